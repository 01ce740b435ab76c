#include "db/reader.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "db/db_int.h"

enum { QUEUE = 16384, THREADS_SQLITE = 2, THREADS_PG = 4, THREADS_MAX = 64, RETRY_MS = 500 };

struct reader {
    struct mu_readers *pool;
    pthread_t thread;
    struct mu_db *db;      /* NULL = to be opened again */
    int64_t retry_mono_ms; /* not before */
};

struct mu_readers {
    struct mu_readers_opts opts;
    char *url;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct mu_post *first, **end;
    size_t queued;
    unsigned asleep;
    bool stopping;
    unsigned started;
    struct reader readers[];
};

static void call_done(struct mu_post *post)
{
    struct mu_read *r = MU_CONTAINER(post, struct mu_read, post);
    r->done(r, r->result);
}

static void complete(struct mu_read *read, int result)
{
    read->result = result;
    read->post.fn = call_done;
    mu_loop_post(read->loop, &read->post);
}

/* A database that is gone is not asked more often than every RETRY_MS: the others are told at once.
 */
static int have_connection(struct reader *r)
{
    if (r->db && mu_db_alive(r->db)) {
        return 0;
    }
    r->db = mu_db_close(r->db);
    int64_t now = mu_env_mono_ms(r->pool->opts.env);
    if (now < r->retry_mono_ms) {
        return MU_E_UNAVAILABLE;
    }
    if (mu_db_open(&r->pool->opts.db, &r->db, NULL) < 0) {
        r->db = NULL;
        r->retry_mono_ms = now + RETRY_MS;
        return MU_E_UNAVAILABLE;
    }
    return 0;
}

static int run_read(struct reader *r, struct mu_read *read)
{
    int result = have_connection(r);
    if (result < 0) {
        return result;
    }
    result = mu_db_begin(r->db, false);
    if (result == 0) {
        result = read->run(read, r->db);
    }
    if (result >= 0) {
        int c = mu_db_commit(r->db);
        result = c < 0 ? c : result;
    }
    if (result < 0) {
        mu_db_rollback(r->db);
    }
    if (r->db->trouble == MU_E_CLOSED || r->db->trouble == MU_E_IO) {
        r->db = mu_db_close(r->db);
        return MU_E_UNAVAILABLE;
    }
    return result;
}

static void *reader_main(void *arg)
{
    struct reader *r = arg;
    struct mu_readers *pool = r->pool;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->first && !pool->stopping) {
            pool->asleep++;
            pthread_cond_wait(&pool->wake, &pool->lock);
            pool->asleep--;
        }
        if (!pool->first) {
            break;
        }
        struct mu_read *read = MU_CONTAINER(pool->first, struct mu_read, post);
        pool->first = read->post.next;
        if (!pool->first) {
            pool->end = &pool->first;
        }
        pool->queued--;
        bool stopping = pool->stopping;
        pthread_mutex_unlock(&pool->lock);
        complete(read, stopping ? MU_E_SHUTDOWN : run_read(r, read));
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int start(struct mu_readers *pool, unsigned i)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&pool->readers[i].thread, NULL, reader_main, &pool->readers[i]);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r == 0) {
        char name[16];
        snprintf(name, sizeof name, "mu-reader-%u", i);
        pthread_setname_np(pool->readers[i].thread, name);
        pool->started++;
    }
    return -r;
}

int mu_readers_new(const struct mu_readers_opts *opts, struct mu_readers **ret, struct mu_err *err)
{
    bool pg = mu_db_engine_of(opts->db.url) == MU_DB_PG;
    unsigned n = opts->threads ? opts->threads : pg ? THREADS_PG : THREADS_SQLITE;
    n = MU_MIN(n, (unsigned)THREADS_MAX);
    struct mu_readers *pool = mu_calloc(1, sizeof *pool + n * sizeof pool->readers[0]);
    if (!pool) {
        return mu_err_set(err, -ENOMEM, "no memory for the readers");
    }
    pool->opts = *opts;
    pool->opts.threads = n;
    pool->opts.max_queue = opts->max_queue ? opts->max_queue : QUEUE;
    pool->opts.db.reader = true;
    pool->opts.env = opts->env ? opts->env : &mu_env_real;
    pool->end = &pool->first;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->url = mu_bytes_dup(mu_str(opts->db.url));
    pool->opts.db.url = pool->url;
    int r = pool->url ? 0 : mu_err_set(err, -ENOMEM, "no memory for the readers");
    for (unsigned i = 0; i < n && r == 0; i++) {
        pool->readers[i].pool = pool;
        r = mu_db_open(&pool->opts.db, &pool->readers[i].db, err);
    }
    for (unsigned i = 0; i < n && r == 0; i++) {
        r = start(pool, i);
        if (r < 0) {
            mu_err_set(err, r, "a reader's thread: %s", mu_err_text(r));
        }
    }
    if (r < 0) {
        mu_readers_free(pool);
        return r;
    }
    *ret = pool;
    return 0;
}

struct mu_readers *mu_readers_free(struct mu_readers *pool)
{
    if (!pool) {
        return NULL;
    }
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->started; i++) {
        pthread_join(pool->readers[i].thread, NULL);
    }
    for (unsigned i = 0; i < pool->opts.threads; i++) {
        mu_db_close(pool->readers[i].db);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    mu_free(pool->url);
    mu_free(pool);
    return NULL;
}

int mu_readers_submit(struct mu_readers *pool, struct mu_read *read)
{
    int r = 0;
    read->post.next = NULL;
    pthread_mutex_lock(&pool->lock);
    if (pool->stopping) {
        r = MU_E_SHUTDOWN;
    } else if (pool->queued >= pool->opts.max_queue) {
        r = MU_E_BUSY;
    } else {
        *pool->end = &read->post;
        pool->end = &read->post.next;
        pool->queued++;
        if (pool->asleep) {
            pthread_cond_signal(&pool->wake);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return r;
}
