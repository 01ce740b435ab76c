/* The writer and the readers without threads: the shipped batch, transaction and recovery code runs
 * at a virtual moment on one database in memory, which is the disk: it outlives the server. */
#include <errno.h>
#include <sqlite3.h>

#include "db/migrate.h"
#include "db/reader.h"
#include "db/writer_int.h"
#include "sim.h"

enum { PROBE_MS = 500, QUEUE_MAX = 400, BATCH_MAX = 24, READ_QUEUE_MAX = 200 };

static int64_t writer_at, probe_at, readers_at;
static bool broken; /* the disk takes nothing just now */
static int64_t broken_until;

/* --- every statement passes here: what the driver keeps is not the server's --- */

struct run {
    mu_row_fn fn;
    void *arg;
};

static int on_row(void *arg, struct mu_row *row)
{
    const struct run *r = arg;
    bool was = sim_mem_lasting(false);
    int x = r->fn(r->arg, row);
    sim_mem_lasting(was);
    return x;
}

int __real_mu_db_run(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args,
                     unsigned n, mu_row_fn fn, void *arg);
int __wrap_mu_db_run(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args,
                     unsigned n, mu_row_fn fn, void *arg);
int __wrap_mu_db_run(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args,
                     unsigned n, mu_row_fn fn, void *arg)
{
    struct run r = {fn, arg};
    bool was = sim_mem_lasting(true);
    int x = __real_mu_db_run(db, s, args, n, fn ? on_row : NULL, &r);
    sim_mem_lasting(was);
    return x;
}

int __real_mu_db_send(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args,
                      unsigned n, int expect);
int __wrap_mu_db_send(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args,
                      unsigned n, int expect);
int __wrap_mu_db_send(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args,
                      unsigned n, int expect)
{
    bool was = sim_mem_lasting(true);
    int x = __real_mu_db_send(db, s, args, n, expect);
    sim_mem_lasting(was);
    return x;
}

/* --- a disk that fails --- */

static bool disk_fails(void)
{
    if (broken && (sim.now >= broken_until || sim.calm)) {
        broken = false;
    }
    if (!broken && sim_fault(sim.plan.disk_pm)) {
        broken = true;
        broken_until = sim.now + sim_between(0, 4000);
        sim.counts.disk_faults++;
        sim_note("disk: takes nothing until %lld", (long long)broken_until);
    }
    return broken;
}

int __real_mu_db_commit(struct mu_db *db);
int __wrap_mu_db_commit(struct mu_db *db);
int __wrap_mu_db_commit(struct mu_db *db)
{
    static const int codes[] = {MU_E_DISK_FULL, MU_E_IO, MU_E_BUSY};
    bool was = sim_mem_lasting(true);
    int r;
    if (sim.elsewhere && disk_fails()) {
        r = mu_db_fail(db, codes[sim_rand(MU_ARRAY_LEN(codes))], "the disk of the simulator");
    } else {
        r = __real_mu_db_commit(db);
        sim.commits += r == 0;
    }
    sim_mem_lasting(was);
    return r;
}

int __real_mu_db_begin(struct mu_db *db, bool write);
int __wrap_mu_db_begin(struct mu_db *db, bool write);
int __wrap_mu_db_begin(struct mu_db *db, bool write)
{
    bool was = sim_mem_lasting(true);
    int r = __real_mu_db_begin(db, write);
    sim_mem_lasting(was);
    return r;
}

void __wrap_mu_db_rollback(struct mu_db *db);
void __real_mu_db_rollback(struct mu_db *db);
void __wrap_mu_db_rollback(struct mu_db *db)
{
    bool was = sim_mem_lasting(true);
    __real_mu_db_rollback(db);
    sim_mem_lasting(was);
}

void __wrap_mu_writer_sleep(int64_t ms);
void __wrap_mu_writer_sleep(int64_t ms)
{
    sim.now += ms;
}

/* --- the database --- */

static void must(int r, const char *what)
{
    if (r < 0) {
        sim_fail("simulator", "%s: %s (%s)", what, mu_err_text(r),
                 sim.db ? mu_db_errmsg(sim.db) : "");
    }
}

void sim_db_open(void)
{
    struct mu_err err = {0};
    bool was = sim_mem_lasting(true);
    must(mu_db_open(&(struct mu_db_opts){.memory = true, .cache_kib = 4096}, &sim.db, &err),
         "open");
    must(mu_db_migrate(sim.db, 0, &err), "migrate");
    sim_mem_lasting(was);
}

static const struct mu_stmt emptied[] = {
#define EMPTY(t)                                                                                   \
    {                                                                                              \
        "empty_" #t, "", "DELETE FROM " #t, NULL                                                   \
    }
    EMPTY(orgs),          EMPTY(sessions),     EMPTY(session_specs), EMPTY(session_results),
    EMPTY(output_chunks), EMPTY(files),        EMPTY(streams),       EMPTY(events),
    EMPTY(artifacts),     EMPTY(attempts),     EMPTY(workers),       EMPTY(idempotency_keys),
    EMPTY(quota_slots),   EMPTY(quota_blocks), EMPTY(turns),         EMPTY(gates),
    EMPTY(gate_votes),
#undef EMPTY
};

void sim_db_empty(void)
{
    must(mu_db_begin(sim.db, true), "begin");
    for (size_t i = 0; i < MU_ARRAY_LEN(emptied); i++) {
        must(mu_db_run(sim.db, &emptied[i], NULL, 0, NULL, NULL), emptied[i].name);
    }
    must(__real_mu_db_commit(sim.db), "commit");
    sim_db_killed();
}

void sim_db_killed(void)
{
    broken = false;
    writer_at = probe_at = readers_at = 0;
}

void sim_db_stall(int64_t ms)
{
    writer_at = sim.now + ms;
}

/* --- the writer: its queue, and when it takes how much of it --- */

int mu_writer_new(const struct mu_writer_opts *opts, struct mu_writer **ret,
                  struct mu_err *err MU_UNUSED)
{
    struct mu_writer *w = mu_calloc(1, sizeof *w);
    if (!w) {
        return -ENOMEM;
    }
    w->opts = *opts;
    w->opts.max_queue = QUEUE_MAX;
    w->opts.max_batch = BATCH_MAX;
    w->lock_fd = -1;
    w->tx.w = w;
    w->db = sim.db;
    w->opts.db.memory = true;
    w->end = &w->first;
    pthread_mutex_init(&w->lock, NULL);
    atomic_init(&w->healthy, true);
    w->batch = mu_calloc(BATCH_MAX, sizeof(struct mu_unit *));
    if (!w->batch) {
        mu_free(w);
        return -ENOMEM;
    }
    *ret = w;
    return 0;
}

int mu_writer_submit(struct mu_writer *w, struct mu_unit *u)
{
    u->post.next = NULL;
    u->result = 0;
    if (w->stopping) {
        return MU_E_SHUTDOWN;
    }
    if (!atomic_load(&w->healthy)) {
        return MU_E_UNAVAILABLE;
    }
    if (w->queued >= w->opts.max_queue || sim_fault(sim.plan.busy_pm)) {
        return MU_E_BUSY;
    }
    *w->end = &u->post;
    w->end = &u->post.next;
    w->queued++;
    return 0;
}

size_t mu_writer_queue(struct mu_writer *w)
{
    return w->queued;
}

bool mu_writer_healthy(struct mu_writer *w)
{
    return atomic_load(&w->healthy);
}

void mu_writer_trouble(struct mu_writer *w, struct mu_err *ret)
{
    *ret = w->trouble;
}

bool mu_writer_stopping(struct mu_writer *w)
{
    return w->stopping;
}

static size_t take(struct mu_writer *w, size_t most)
{
    size_t n = 0;
    while (w->first && n < most) {
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

static void run_batch(struct mu_writer *w, size_t most)
{
    size_t n = take(w, most);
    sim_note("writer: %zu units", n);
    sim.batch = n;
    sim.elsewhere = true;
    mu_writer_process(w, w->batch, n);
    sim.elsewhere = false;
    sim_rows_check();
    if (!atomic_load(&w->healthy)) {
        probe_at = sim.now + PROBE_MS;
    }
}

bool sim_writer_ready(void)
{
    const struct mu_writer *w = sim.writer;
    if (!w || writer_at > sim.now) {
        return false;
    }
    return w->first || (!atomic_load(&w->healthy) && probe_at <= sim.now);
}

void sim_writer_step(void)
{
    struct mu_writer *w = sim.writer;
    if (w->first) {
        /* those that came a moment too late are in the next batch */
        run_batch(w, sim_chance(500) ? BATCH_MAX : (size_t)sim_between(1, 3));
        writer_at = sim.now + sim_between(0, 4);
    } else {
        sim.elsewhere = true;
        mu_writer_probe(w);
        sim.elsewhere = false;
        probe_at = sim.now + PROBE_MS;
    }
}

struct mu_writer *mu_writer_free(struct mu_writer *w)
{
    if (!w) {
        return NULL;
    }
    w->stopping = true;
    while (w->first) {
        run_batch(w, BATCH_MAX);
    }
    mu_buf_fini(&w->tx.log);
    pthread_mutex_destroy(&w->lock);
    mu_free(w->batch);
    mu_free(w);
    return NULL;
}

/* --- readers --- */

struct mu_readers {
    struct mu_post *first, **end;
    size_t queued;
    bool stopping;
};

int mu_readers_new(const struct mu_readers_opts *opts MU_UNUSED, struct mu_readers **ret,
                   struct mu_err *err MU_UNUSED)
{
    struct mu_readers *r = mu_calloc(1, sizeof *r);
    if (!r) {
        return -ENOMEM;
    }
    r->end = &r->first;
    *ret = r;
    return 0;
}

int mu_readers_submit(struct mu_readers *r, struct mu_read *read)
{
    if (r->stopping) {
        return MU_E_SHUTDOWN;
    }
    if (r->queued >= READ_QUEUE_MAX || sim_fault(sim.plan.busy_pm)) {
        return MU_E_BUSY;
    }
    read->post.next = NULL;
    *r->end = &read->post;
    r->end = &read->post.next;
    r->queued++;
    return 0;
}

static void read_done(struct mu_post *post)
{
    struct mu_read *r = MU_CONTAINER(post, struct mu_read, post);
    r->done(r, r->result);
}

static void complete(struct mu_read *read, int result)
{
    read->result = result;
    read->post.fn = read_done;
    mu_loop_post(read->loop, &read->post);
}

/* There are several readers: any of the first few may be answered first. */
static struct mu_read *pick(struct mu_readers *r)
{
    struct mu_post **at = &r->first;
    for (uint64_t skip = sim_rand(2); skip && (*at)->next; skip--) {
        at = &(*at)->next;
    }
    struct mu_post *p = *at;
    *at = p->next;
    if (!*at) {
        r->end = at;
    }
    r->queued--;
    return MU_CONTAINER(p, struct mu_read, post);
}

static int run_read(struct mu_read *read)
{
    if (sim_fault(sim.plan.read_pm)) {
        return MU_E_UNAVAILABLE;
    }
    must(mu_db_begin(sim.db, false), "begin");
    int result = read->run(read, sim.db);
    if (result >= 0) {
        must(__real_mu_db_commit(sim.db), "commit");
    } else {
        mu_db_rollback(sim.db);
    }
    return result;
}

bool sim_readers_ready(void)
{
    return sim.readers && sim.readers->first && readers_at <= sim.now;
}

void sim_readers_step(void)
{
    struct mu_read *read = pick(sim.readers);
    sim.elsewhere = true;
    int result = run_read(read);
    sim.elsewhere = false;
    complete(read, result);
    readers_at = sim_fault(sim.plan.stall_pm) ? sim.now + sim_between(0, 800) : sim.now;
}

int64_t sim_db_next(void)
{
    int64_t next = INT64_MAX;
    if (sim.writer && sim.writer->first) {
        next = MU_MIN(next, writer_at);
    }
    if (sim.writer && !atomic_load(&sim.writer->healthy)) {
        next = MU_MIN(next, MU_MAX(probe_at, writer_at));
    }
    if (sim.readers && sim.readers->first) {
        next = MU_MIN(next, readers_at);
    }
    return next;
}

struct mu_readers *mu_readers_free(struct mu_readers *r)
{
    if (!r) {
        return NULL;
    }
    r->stopping = true;
    while (r->first) {
        complete(pick(r), MU_E_SHUTDOWN);
    }
    mu_free(r);
    return NULL;
}
