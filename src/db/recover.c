/* What follows when the engine itself fails (data-model.md 4.2): the answer to "did it commit?",
 * and the way back to health. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "db/migrate.h"
#include "db/writer_int.h"

enum {
    RECONNECT_MS = 2000, /* nothing was committed: the units may as well be told soon */
    UNSURE_MS = 10000, /* the answer "unavailable" for something that did happen is worth a wait */
    PAUSE_MS = 100,
    /* The session of a server that was killed holds the lock until PostgreSQL has ended what it was
     * executing, and a restart is quicker than that. */
    DYING_MS = 5000,
    PROBE_BYTES = 65536, /* what a full disk must have room for before writes are let in again */
};

static const struct mu_stmt slot_take = {
    "slot_take", "ti",
    "INSERT INTO servers (slot, instance, started_ms, beat_ms) VALUES (1, $1, $2, $2) ON CONFLICT "
    "(slot) DO UPDATE SET instance = excluded.instance, started_ms = excluded.started_ms, beat_ms "
    "= excluded.beat_ms RETURNING src_seq",
    NULL};
static const struct mu_stmt slot_read = {
    "slot_read", "t", "SELECT src_seq FROM servers WHERE slot = 1 AND instance = $1", NULL};
static const struct mu_stmt batch_mark = {
    "batch_mark", "tii",
    "UPDATE servers SET src_seq = $2, beat_ms = $3 WHERE slot = 1 AND instance = $1", NULL};
static const struct mu_stmt probe_put = {
    "probe_put", "t",
    "INSERT INTO schema_migrations (version, name, sha256, applied_ms) VALUES (-1, $1, '', 0)",
    NULL};
static const struct mu_stmt probe_drop = {"probe_drop", "",
                                          "DELETE FROM schema_migrations WHERE version = -1", NULL};

void mu_writer_sleep(int64_t ms)
{
    struct timespec ts = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

static bool is_pg(const struct mu_writer *w)
{
    return !w->opts.db.memory && mu_db_engine_of(w->url) == MU_DB_PG;
}

static int64_t wall_ms(const struct mu_writer *w)
{
    return mu_env_wall_ms(w->opts.env);
}

static int on_mark(void *arg, struct mu_row *row)
{
    *(int64_t *)arg = mu_row_i64(row, 0);
    return 0;
}

int mu_writer_send_mark(struct mu_writer *w)
{
    if (mu_db_engine(w->db) != MU_DB_PG) {
        return 0;
    }
    const struct mu_val args[] = {MU_VT(mu_id_bytes(&w->instance)), MU_VI(w->mark + 1),
                                  MU_VI(wall_ms(w))};
    return mu_db_send(w->db, &batch_mark, args, MU_ARRAY_LEN(args), 1);
}

/* --- connecting --- */

static int take_slot(struct mu_writer *w, struct mu_err *err)
{
    const struct mu_val args[] = {MU_VT(mu_id_bytes(&w->instance)), MU_VI(wall_ms(w))};
    int r = mu_db_run(w->db, &slot_take, args, MU_ARRAY_LEN(args), on_mark, &w->mark);
    return r < 0 ? mu_err_set(err, r, "server slot: %s", mu_db_errmsg(w->db)) : 0;
}

/* Leaves w->mark alone: what was committed is compared with it. */
static int check_slot(struct mu_writer *w, int64_t *ret_mark, struct mu_err *err)
{
    const struct mu_val args[] = {MU_VT(mu_id_bytes(&w->instance))};
    int r = mu_db_run(w->db, &slot_read, args, 1, on_mark, ret_mark);
    if (r < 0) {
        return mu_err_set(err, r, "server slot: %s", mu_db_errmsg(w->db));
    }
    if (r == 0) {
        w->ousted = true;
        return mu_err_set(err, MU_E_CLOSED, "another server has taken the database over");
    }
    return 0;
}

static int open_locked(struct mu_writer *w, struct mu_err *err)
{
    struct mu_db_opts opts = w->opts.db;
    opts.url = w->url;
    int r = mu_db_open(&opts, &w->db, err);
    if (r == 0 && (is_pg(w) || w->lock_fd < 0)) {
        r = mu_db_lock(w->db, w->url, &w->lock_fd, err);
    }
    return r;
}

static int open_first(struct mu_writer *w, struct mu_err *err)
{
    const struct mu_env *env = w->opts.env;
    int64_t give_up = mu_env_mono_ms(env) + DYING_MS;
    int r = open_locked(w, err);
    while (r == MU_E_BUSY && is_pg(w) && mu_env_mono_ms(env) < give_up) {
        w->db = mu_db_close(w->db);
        mu_writer_sleep(PAUSE_MS);
        r = open_locked(w, err);
    }
    return r;
}

int mu_writer_connect(struct mu_writer *w, bool first, struct mu_err *err)
{
    int r = first ? open_first(w, err) : open_locked(w, err);
    if (r == 0 && first) {
        r = mu_db_check(w->db, err);
        if (r == 0) {
            r = mu_db_migrate(w->db, wall_ms(w), err);
        }
        if (r == 0 && is_pg(w)) {
            r = take_slot(w, err);
        }
    }
    if (r < 0) {
        w->db = mu_db_close(w->db);
    }
    return r;
}

/* A fresh connection in the place of a broken one. *ret_mark: the newest committed batch. */
static int reconnect(struct mu_writer *w, int64_t *ret_mark, struct mu_err *err)
{
    w->db = mu_db_close(w->db);
    int r = mu_writer_connect(w, false, err);
    if (r == 0 && is_pg(w)) {
        r = check_slot(w, ret_mark, err);
        if (r < 0) {
            w->db = mu_db_close(w->db);
        }
    }
    return r;
}

/* --- health --- */

static void set_trouble(struct mu_writer *w, const struct mu_err *err)
{
    pthread_mutex_lock(&w->lock);
    w->trouble = err ? *err : (struct mu_err){0};
    atomic_store(&w->healthy, err == NULL);
    pthread_mutex_unlock(&w->lock);
}

/* PostgreSQL is back: whether the batch whose COMMIT got no answer is in. */
static bool was_committed(struct mu_writer *w, int64_t mark)
{
    bool yes = w->committing && mark > w->mark;
    w->mark = mark;
    w->committing = false;
    return yes;
}

static enum mu_settled settle_lost(struct mu_writer *w)
{
    const struct mu_env *env = w->opts.env;
    int64_t give_up = mu_env_mono_ms(env) + (w->committing ? UNSURE_MS : RECONNECT_MS);
    struct mu_err err = {0};
    for (;;) {
        int64_t mark = 0;
        if (reconnect(w, &mark, &err) == 0) {
            set_trouble(w, NULL);
            return was_committed(w, mark) ? MU_SETTLED_COMMITTED : MU_SETTLED_AGAIN;
        }
        set_trouble(w, &err);
        if (w->ousted || mu_writer_stopping(w) || mu_env_mono_ms(env) > give_up) {
            w->unsure = w->committing;
            return MU_SETTLED_FAILED;
        }
        mu_writer_sleep(PAUSE_MS);
    }
}

enum mu_settled mu_writer_settle(struct mu_writer *w, int code)
{
    if (code == MU_E_CLOSED && is_pg(w)) {
        return settle_lost(w);
    }
    struct mu_err err = {0};
    mu_err_set(&err, code, "%s: %s", mu_err_text(code), mu_db_errmsg(w->db));
    set_trouble(w, &err);
    w->committing = false;
    return MU_SETTLED_FAILED;
}

/* A full disk often has room for the few bytes of a changed row, so the probe writes (and takes
 * back) as much as a good batch does. */
static int write_something(struct mu_writer *w)
{
    char *block = mu_alloc(PROBE_BYTES);
    if (!block) {
        return -ENOMEM;
    }
    memset(block, ' ', PROBE_BYTES);
    int r = mu_db_begin(w->db, true);
    if (r == 0) {
        const struct mu_val arg = MU_VT(mu_bytes_of(block, PROBE_BYTES));
        r = mu_db_run(w->db, &probe_put, &arg, 1, NULL, NULL);
    }
    if (r >= 0) {
        r = mu_db_run(w->db, &probe_drop, NULL, 0, NULL, NULL);
    }
    if (r >= 0) {
        r = mu_db_commit(w->db);
    }
    if (r < 0) {
        mu_db_rollback(w->db);
    }
    mu_free(block);
    return r;
}

void mu_writer_probe(struct mu_writer *w)
{
    struct mu_err err = {0};
    int64_t mark = 0;
    if (w->ousted) {
        return;
    }
    /* SQLite keeps its connection: a transaction whose sync failed is complete in the log file, and
     * opening anew would bring it back although its units were told that it failed. The next write
     * of this connection goes over it. */
    int r = is_pg(w) ? reconnect(w, &mark, &err) : 0;
    if (r == 0 && is_pg(w)) {
        w->committing = w->unsure;
        bool in = was_committed(w, mark);
        if (in && w->opts.feed) {
            mu_tx_publish(&w->tx);
        }
        w->unsure = false;
    }
    if (r == 0) {
        r = write_something(w);
        if (r < 0) {
            mu_err_set(&err, r, "%s: %s", mu_err_text(r), mu_db_errmsg(w->db));
        }
    }
    set_trouble(w, r < 0 ? &err : NULL);
}
