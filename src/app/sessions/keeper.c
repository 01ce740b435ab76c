/* What nobody needs any more of checkpoints. Rows of sessions that ended long ago are dropped,
 * which makes their parts dead; of parts that are dead the object is removed unless a living row
 * names it too (nothing can make a dead one live again), and then the row: whoever is killed in
 * between finds it dead again. */
#include <errno.h>

#include "app/sessions/checkpoints_int.h"
#include "base/log.h"

enum { FIRST_MS = 20000, EVERY_MS = 60000, SOON_MS = 500, ROWS = 50, PARTS = 200 };

static const struct mu_stmt q_due = {
    "ckpt_due", "i",
    "SELECT c.id, c.session_id, s.ended_ms, s.held FROM checkpoints c LEFT JOIN sessions s ON s.id "
    "= c.session_id WHERE c.expires_ms <= $1 ORDER BY c.expires_ms LIMIT 50",
    NULL};
static const struct mu_stmt q_later = {
    "ckpt_later", "ti", "UPDATE checkpoints SET expires_ms = $2 WHERE session_id = $1", NULL};
static const struct mu_stmt q_dead = {
    "ckpt_dead", "",
    "SELECT d.session_id, d.epoch, d.number, d.name, d.object_id, (SELECT count(*) FROM "
    "checkpoint_parts p WHERE p.object_id = d.object_id AND p.dead = 0) FROM checkpoint_parts d "
    "WHERE d.dead = 1 ORDER BY d.session_id LIMIT 200",
    NULL};
static const struct mu_stmt q_buried = {
    "ckpt_buried", "tiit",
    "DELETE FROM checkpoint_parts WHERE session_id = $1 AND epoch = $2 AND number = $3 AND name = "
    "$4 AND dead = 1",
    NULL};
_Static_assert(ROWS == 50 && PARTS == 200, "the statements have the numbers too");

struct due {
    struct mu_id session;
    int64_t ended_ms;
    bool held, same; /* same: as one before it */
};

struct dead {
    struct mu_id session, object;
    int64_t epoch, number;
    bool shared;
    char name[80];
};

struct mu_keeper {
    struct mu_keeper_opts opts;
    struct mu_timer timer;
    struct mu_unit unit;
    struct mu_read read;
    struct mu_job job;
    bool busy, stopping, more;
    void (*stopped)(void *arg);
    void *stopped_arg;
    int64_t now_ms;
    struct due due[ROWS];
    struct dead dead[PARTS];
    size_t n_due, n_dead;
};

static void rest(struct mu_keeper *k, bool soon)
{
    k->busy = false;
    if (!k->stopping) {
        (void)!mu_timer_set(&k->timer, soon ? SOON_MS : EVERY_MS);
    } else if (k->stopped) {
        void (*fn)(void *) = k->stopped;
        k->stopped = NULL;
        fn(k->stopped_arg);
    }
}

/* --- the last step: the rows of objects that are gone --- */

static int run_bury(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_keeper *k = MU_CONTAINER(u, struct mu_keeper, unit);
    int r = 0;
    for (size_t i = 0; r >= 0 && i < k->n_dead; i++) {
        const struct dead *d = &k->dead[i];
        r = MU_TX_SEND(tx, &q_buried, -1, MU_VT(mu_id_bytes(&d->session)), MU_VI(d->epoch),
                       MU_VI(d->number), MU_VT(mu_str(d->name)));
    }
    return MU_MIN(r, 0);
}

static void buried(struct mu_unit *u, int result)
{
    struct mu_keeper *k = MU_CONTAINER(u, struct mu_keeper, unit);
    rest(k, result >= 0 && (k->more || k->n_dead == PARTS));
}

static void remove_objects(struct mu_job *job)
{
    struct mu_keeper *k = MU_CONTAINER(job, struct mu_keeper, job);
    for (size_t i = 0; i < k->n_dead; i++) {
        if (!k->dead[i].shared) {
            k->opts.object_gone(k->opts.arg, mu_id_bytes(&k->dead[i].object));
        }
    }
}

static void objects_removed(struct mu_job *job)
{
    struct mu_keeper *k = MU_CONTAINER(job, struct mu_keeper, job);
    k->unit = (struct mu_unit){.run = run_bury, .done = buried, .loop = k->opts.core};
    if (!job->ran || mu_writer_submit(k->opts.sessions->opts.writer, &k->unit) < 0) {
        rest(k, false);
    }
}

/* --- the second: which objects --- */

static int take_dead(void *arg, struct mu_row *row)
{
    struct mu_keeper *k = arg;
    struct dead *d = &k->dead[k->n_dead];
    mu_bytes name = mu_row_bytes(row, 3);
    if (k->n_dead == PARTS || name.len >= sizeof d->name ||
        mu_id_parse(mu_row_bytes(row, 0), NULL, &d->session) < 0 ||
        mu_id_parse(mu_row_bytes(row, 4), NULL, &d->object) < 0) {
        return 0;
    }
    d->epoch = mu_row_i64(row, 1);
    d->number = mu_row_i64(row, 2);
    d->shared = mu_row_i64(row, 5) > 0;
    memcpy(d->name, name.ptr, name.len);
    d->name[name.len] = 0;
    k->n_dead++;
    return 0;
}

static int run_dead(struct mu_read *read, struct mu_db *db)
{
    struct mu_keeper *k = MU_CONTAINER(read, struct mu_keeper, read);
    k->n_dead = 0;
    int r = mu_db_run(db, &q_dead, NULL, 0, take_dead, k);
    return MU_MIN(r, 0);
}

static void dead_read(struct mu_read *read, int result)
{
    struct mu_keeper *k = MU_CONTAINER(read, struct mu_keeper, read);
    k->job = (struct mu_job){.run = remove_objects, .done = objects_removed, .loop = k->opts.core};
    if (result < 0 || k->n_dead == 0 || k->stopping) {
        rest(k, result >= 0 && k->more);
    } else if (mu_work_submit(k->opts.work, &k->job) < 0) {
        rest(k, false);
    }
}

/* --- the first: sessions that ended long ago --- */

static int take_due(void *arg, struct mu_row *row)
{
    struct mu_keeper *k = arg;
    struct due *d = &k->due[k->n_due];
    if (k->n_due == ROWS || mu_id_parse(mu_row_bytes(row, 1), NULL, &d->session) < 0) {
        return 0;
    }
    /* a session that is gone took its rows along: one that did not is treated as ended */
    d->ended_ms = mu_row_null(row, 2) && !mu_row_null(row, 3) ? 0 : MU_MAX(mu_row_i64(row, 2), 1);
    d->held = mu_row_i64(row, 3) != 0;
    d->same = false;
    for (size_t i = 0; i < k->n_due && !d->same; i++) {
        d->same = strcmp(k->due[i].session.text, d->session.text) == 0;
    }
    k->n_due++;
    return 0;
}

static int run_due(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_keeper *k = MU_CONTAINER(u, struct mu_keeper, unit);
    k->n_due = 0;
    int r = MU_TX_RUN(tx, &q_due, take_due, k, MU_VI(k->now_ms));
    for (size_t i = 0; r >= 0 && i < k->n_due; i++) {
        const struct due *d = &k->due[i];
        mu_bytes id = mu_id_bytes(&d->session);
        int64_t until =
            d->ended_ms && !d->held ? d->ended_ms + k->opts.keep_ms : k->now_ms + k->opts.keep_ms;
        if (d->same) {
            continue;
        }
        r = until > k->now_ms ? MU_TX_SEND(tx, &q_later, -1, MU_VT(id), MU_VI(until))
                              : mu_checkpoints_drop(tx, id);
    }
    return MU_MIN(r, 0);
}

static void due_done(struct mu_unit *u, int result)
{
    struct mu_keeper *k = MU_CONTAINER(u, struct mu_keeper, unit);
    k->more = result >= 0 && k->n_due == ROWS;
    k->read = (struct mu_read){.run = run_dead, .done = dead_read, .loop = k->opts.core};
    if (k->stopping || mu_readers_submit(k->opts.sessions->opts.readers, &k->read) < 0) {
        rest(k, false);
    }
}

static void on_timer(struct mu_timer *t)
{
    struct mu_keeper *k = MU_CONTAINER(t, struct mu_keeper, timer);
    k->busy = true;
    k->now_ms = mu_sessions_now(k->opts.sessions);
    k->unit = (struct mu_unit){.run = run_due, .done = due_done, .loop = k->opts.core};
    if (mu_writer_submit(k->opts.sessions->opts.writer, &k->unit) < 0) {
        rest(k, false);
    }
}

int mu_keeper_new(const struct mu_keeper_opts *opts, struct mu_keeper **ret)
{
    struct mu_keeper *k = mu_calloc(1, sizeof *k);
    if (!k) {
        return -ENOMEM;
    }
    k->opts = *opts;
    mu_timer_init(&k->timer, opts->core, on_timer);
    *ret = k;
    return 0;
}

void mu_keeper_start(struct mu_keeper *k, int64_t delay_ms)
{
    (void)!mu_timer_set(&k->timer, delay_ms < 0 ? FIRST_MS : delay_ms);
}

void mu_keeper_stop(struct mu_keeper *k, void (*stopped)(void *arg), void *arg)
{
    k->stopping = true;
    mu_timer_clear(&k->timer);
    k->stopped = stopped;
    k->stopped_arg = arg;
    if (!k->busy) {
        rest(k, false);
    }
}

struct mu_keeper *mu_keeper_free(struct mu_keeper *k)
{
    if (k) {
        mu_timer_clear(&k->timer);
        mu_free(k);
    }
    return NULL;
}

const struct mu_planned mu_keeper_planned[] = {
    {&q_due, "checkpoints_expire"}, {&q_dead, "checkpoint_parts_dead"}, {NULL, NULL}};
