#include "db/writer.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "db/writer_int.h"

enum {
    QUEUE = 65536,
    BATCH_SQLITE = 256,
    BATCH_PG = 60, /* above 64 subtransactions PostgreSQL's snapshots overflow for everyone */
    BATCH_MAX = 1024,
    PROBE_MS = 500,
    IDLE_MS = 200,
};

/* --- the queue --- */

int mu_writer_submit(struct mu_writer *w, struct mu_unit *u)
{
    int r = 0;
    u->post.next = NULL;
    u->result = 0;
    pthread_mutex_lock(&w->lock);
    if (w->stopping) {
        r = MU_E_SHUTDOWN;
    } else if (!atomic_load(&w->healthy)) {
        r = MU_E_UNAVAILABLE;
    } else if (w->queued >= w->opts.max_queue) {
        r = MU_E_BUSY;
    } else {
        *w->end = &u->post;
        w->end = &u->post.next;
        w->queued++;
        if (w->asleep) {
            w->asleep = false;
            pthread_cond_signal(&w->wake);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

size_t mu_writer_queue(struct mu_writer *w)
{
    pthread_mutex_lock(&w->lock);
    size_t n = w->queued;
    pthread_mutex_unlock(&w->lock);
    return n;
}

bool mu_writer_healthy(struct mu_writer *w)
{
    return atomic_load(&w->healthy);
}

void mu_writer_trouble(struct mu_writer *w, struct mu_err *ret)
{
    pthread_mutex_lock(&w->lock);
    *ret = w->trouble;
    pthread_mutex_unlock(&w->lock);
}

bool mu_writer_stopping(struct mu_writer *w)
{
    pthread_mutex_lock(&w->lock);
    bool stopping = w->stopping;
    pthread_mutex_unlock(&w->lock);
    return stopping;
}

/* With the lock. Moves the next batch to w->batch; a large unit goes alone. */
static size_t take(struct mu_writer *w)
{
    size_t n = 0;
    while (w->first && n < w->opts.max_batch) {
        struct mu_unit *u = MU_CONTAINER(w->first, struct mu_unit, post);
        if (u->alone && n) {
            break;
        }
        w->first = u->post.next;
        w->batch[n++] = u;
        if (u->alone) {
            break;
        }
    }
    if (!w->first) {
        w->end = &w->first;
    }
    w->queued -= n;
    return n;
}

/* --- the thread --- */

/* With the lock. Whether somebody woke us before `ms` (-1 = no limit) were over. */
static bool wait_for_work(struct mu_writer *w, int64_t ms)
{
    int64_t until_ns = w->opts.env->mono_ns(w->opts.env) + ms * 1000000;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                             .tv_nsec = (long)(until_ns % 1000000000)};
    int r = 0;
    w->asleep = true;
    while (!w->first && !w->stopping && r == 0) {
        r = ms < 0 ? pthread_cond_wait(&w->wake, &w->lock)
                   : pthread_cond_timedwait(&w->wake, &w->lock, &until);
    }
    w->asleep = false;
    return w->first || w->stopping;
}

/* With the lock, which it gives back for the chores of a quiet moment. */
static void wait_or_tidy(struct mu_writer *w, bool *tidy)
{
    bool healthy = atomic_load(&w->healthy);
    if (wait_for_work(w, !healthy ? PROBE_MS : *tidy ? -1 : IDLE_MS)) {
        return;
    }
    pthread_mutex_unlock(&w->lock);
    if (!healthy) {
        mu_writer_probe(w);
    } else {
        mu_db_checkpoint(w->db);
        *tidy = true;
    }
    pthread_mutex_lock(&w->lock);
}

/* Units of one stream keep their order; two servers take the streams' locks in the same order
 * (data-model.md 4.2). */
static void sort_batch(struct mu_unit **units, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct mu_unit *u = units[i];
        size_t k = i;
        for (; k > 0; k--) {
            int c = mu_bytes_cmp(units[k - 1]->org_id, u->org_id);
            if (c == 0) {
                c = mu_bytes_cmp(units[k - 1]->stream_id, u->stream_id);
            }
            if (c <= 0) {
                break;
            }
            units[k] = units[k - 1];
        }
        units[k] = u;
    }
}

static void *writer_main(void *arg)
{
    struct mu_writer *w = arg;
    bool sorted = !w->opts.db.memory && mu_db_engine_of(w->url) == MU_DB_PG, tidy = false;
    pthread_mutex_lock(&w->lock);
    while (w->first || !w->stopping) {
        size_t n = take(w);
        if (n == 0) {
            wait_or_tidy(w, &tidy);
            continue;
        }
        mu_metric_set(w->queue, (int64_t)w->queued);
        pthread_mutex_unlock(&w->lock);
        if (sorted) {
            sort_batch(w->batch, n);
        }
        mu_writer_process(w, w->batch, n);
        tidy = false;
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* --- life --- */

static void apply_defaults(struct mu_writer *w)
{
    struct mu_writer_opts *o = &w->opts;
    bool pg = !o->db.memory && mu_db_engine_of(o->db.url) == MU_DB_PG;
    size_t most = pg ? BATCH_PG : BATCH_MAX;
    o->db.reader = false;
    o->env = o->env ? o->env : &mu_env_real;
    o->max_queue = o->max_queue ? o->max_queue : QUEUE;
    o->max_batch = o->max_batch ? o->max_batch : pg ? BATCH_PG : BATCH_SQLITE;
    o->max_batch = MU_MIN(o->max_batch, most);
    w->crashing = o->crash_before_commit;
}

static void add_metrics(struct mu_writer *w)
{
    struct mu_metrics *m = w->opts.metrics;
    if (!m) {
        return;
    }
    w->units = mu_metrics_counter(m, "muster_db_units_total", NULL, "Units of work completed.");
    w->batches =
        mu_metrics_counter(m, "muster_db_batches_total", NULL, "Transactions of the writer.");
    w->retries = mu_metrics_counter(m, "muster_db_batch_retries_total", NULL,
                                    "Transactions that were run again.");
    w->commit_time =
        mu_metrics_histogram(m, "muster_db_commit_seconds", NULL, "Time of a durable commit.");
    w->queue = mu_metrics_gauge(m, "muster_db_queue", NULL, "Units waiting for the writer.");
}

static int start_thread(struct mu_writer *w)
{
    /* Signals are for the loops. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&w->thread, NULL, writer_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r == 0) {
        pthread_setname_np(w->thread, "mu-writer");
        w->started = true;
    }
    return -r;
}

static void init_sync(struct mu_writer *w)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&w->lock, NULL);
    w->end = &w->first;
    atomic_init(&w->healthy, true);
}

int mu_writer_new(const struct mu_writer_opts *opts, struct mu_writer **ret, struct mu_err *err)
{
    struct mu_writer *w = mu_calloc(1, sizeof *w);
    if (!w) {
        return mu_err_set(err, -ENOMEM, "no memory for the writer");
    }
    w->opts = *opts;
    w->lock_fd = -1;
    w->tx.w = w;
    init_sync(w);
    apply_defaults(w);
    w->instance = mu_id_random(w->opts.env);
    w->url = mu_bytes_dup(mu_str(opts->db.memory ? ":memory:" : opts->db.url));
    w->opts.db.url = w->url;
    w->batch = mu_calloc(w->opts.max_batch, sizeof(struct mu_unit *));
    int r = w->url && w->batch ? 0 : mu_err_set(err, -ENOMEM, "no memory for the writer");
    if (r == 0) {
        r = mu_writer_connect(w, true, err);
    }
    if (r == 0) {
        add_metrics(w);
        r = start_thread(w);
        if (r < 0) {
            mu_err_set(err, r, "the writer's thread: %s", mu_err_text(r));
        }
    }
    if (r < 0) {
        mu_writer_free(w);
        return r;
    }
    *ret = w;
    return 0;
}

struct mu_writer *mu_writer_free(struct mu_writer *w)
{
    if (!w) {
        return NULL;
    }
    if (w->started) {
        pthread_mutex_lock(&w->lock);
        w->stopping = true;
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
    }
    w->db = mu_db_close(w->db);
    if (w->lock_fd >= 0) {
        close(w->lock_fd);
    }
    mu_buf_fini(&w->tx.log);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    mu_free(w->batch);
    mu_free(w->url);
    mu_free(w);
    return NULL;
}
