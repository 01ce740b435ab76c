/* What time does to sessions: deadlines, retention, and the proof that nothing was orphaned
 * (data-model.md 5.5, 5.9, 8). One thing at a time, on the core loop. */
#include <errno.h>
#include <stdio.h>

#include "app/sessions/attempts.h"
#include "app/sessions/hibernate_int.h"
#include "app/sessions/sessions_int.h"
#include "app/sessions/statements_int.h"
#include "base/encode.h"
#include "base/log.h"

enum {
    TICK_MS = 1000,
    RECONCILE_MS = 60000,
    FIRST_PURGE_MS = 10000,
    BATCH = 200,
    KEYS = 2000, /* idempotency keys a unit, and those of the same moment */
    PURGE_PAUSE_MS = 100,
    ROWS = 500,
    PER_UNIT = 10, /* sessions purged by a unit: a big purge never holds the writer for long */
};

static const struct mu_stmt q_due = {"due", "ii",
                                     "SELECT id, org_id, state, epoch, route FROM sessions WHERE "
                                     "ended_ms IS NULL AND deadline_ms <= $1 "
                                     "ORDER BY deadline_ms, id LIMIT $2",
                                     NULL};
static const struct mu_stmt q_expire = {
    "expire", "tiiiiiiii",
    "UPDATE sessions SET state = CASE WHEN stop_ms IS NOT NULL THEN 90 ELSE CAST($8 AS BIGINT) "
    "END, outcome = CASE WHEN stop_ms IS NOT NULL THEN 2 ELSE CAST($9 AS BIGINT) END, end_reason = "
    "CASE WHEN stop_ms IS NOT NULL THEN end_reason ELSE CAST($5 AS BIGINT) END, ended_ms = $3, "
    "updated_ms = $3, purge_ms = CASE WHEN held = 1 THEN NULL ELSE CAST($4 AS BIGINT) END, "
    "paused_ms = NULL, wait_ms = NULL, rev = rev + 1 WHERE id = $1 AND epoch = $2 AND state = $6 "
    "AND deadline_ms <= $7 RETURNING state, outcome, end_reason, stop_ms",
    NULL};
static const struct mu_stmt q_timeout_result = {
    "timeout_result", "tttti",
    "INSERT INTO session_results (session_id, error_code, error_message, message_head, updated_ms) "
    "VALUES ($1, $2, $3, $4, $5) ON "
    "CONFLICT (session_id) DO UPDATE SET error_code = excluded.error_code, error_message = "
    "excluded.error_message, message_head = "
    "excluded.message_head, updated_ms = excluded.updated_ms",
    NULL};
static const struct mu_stmt q_purge_due = {
    "purge_due", "ii",
    "SELECT id FROM sessions WHERE purge_ms <= $1 ORDER BY purge_ms, id LIMIT $2", NULL};
static const struct mu_stmt q_purge_session = {
    "purge_session", "ti",
    "DELETE FROM sessions WHERE id = $1 AND ended_ms IS NOT NULL AND purge_ms <= $2", NULL};
static const struct mu_stmt q_purge_files = {"purge_files", "t",
                                             "SELECT id FROM files WHERE session_id = $1", NULL};
static const struct mu_stmt q_purge_keys = {
    "purge_keys", "ii",
    "DELETE FROM idempotency_keys WHERE expires_ms <= (SELECT max(x.expires_ms) FROM (SELECT "
    "expires_ms FROM idempotency_keys WHERE expires_ms <= $1 ORDER BY expires_ms LIMIT $2) x)",
    NULL};
static const struct mu_stmt q_purge_ticks = {
    "purge_ticks", "i", "DELETE FROM schedule_ticks WHERE tick_ms <= $1", NULL};

struct due_row {
    struct mu_id id;
    char org_id[MU_ORG_LEN + 1];
    int state, route;
    int64_t epoch;
};

struct mu_sweeper {
    struct mu_sweeper_opts opts;
    struct mu_timer timer;
    struct mu_read read;
    struct mu_unit unit;
    struct mu_job job; /* removes stored objects */
    enum { IDLE, DUE, RECONCILE, PURGE } what;
    bool stopping, purged_last;
    void (*stopped)(void *arg);
    void *stopped_arg;
    int64_t now_ms, next_purge_ms, next_reconcile_ms;
    struct due_row rows[BATCH];
    unsigned n, at, n_expired;
    bool keys_left; /* the unit removed as many keys as it may */
    struct mu_id
        files[PER_UNIT * MU_SESSION_FILES]; /* stored objects of the sessions purged by the unit */
    unsigned n_files;
    int64_t orphans;
    struct mu_metric *orphan_gauge, *purged;
    int ended_state, ended_outcome, ended_reason;
    bool ended_stop; /* a stop had been accepted */
    bool parked;     /* it did not end */
    char why[512];   /* of the session that expires */
};

static void next_step(struct mu_sweeper *w, int64_t delay_ms);

static void finish(struct mu_sweeper *w)
{
    bool more = w->what == DUE && w->n_expired == BATCH; /* others are overdue meanwhile */
    w->what = IDLE;
    if (w->stopping) {
        mu_timer_clear(&w->timer);
        if (w->stopped) {
            void (*fn)(void *) = w->stopped;
            w->stopped = NULL;
            fn(w->stopped_arg);
        }
        return;
    }
    next_step(w, more ? 0 : TICK_MS);
}

/* --- deadlines --- */

static int take_due(void *arg, struct mu_row *row)
{
    struct mu_sweeper *w = arg;
    struct due_row *d = &w->rows[w->n++];
    if (mu_id_parse(mu_row_bytes(row, 0), NULL, &d->id) < 0) {
        w->n--;
        return 0;
    }
    snprintf(d->org_id, sizeof d->org_id, "%.*s", MU_ARGS(mu_row_bytes(row, 1)));
    d->state = (int)mu_row_i64(row, 2);
    d->epoch = mu_row_i64(row, 3);
    d->route = (int)mu_row_i64(row, 4);
    return 0;
}

static int take_purge(void *arg, struct mu_row *row)
{
    struct mu_sweeper *w = arg;
    if (mu_id_parse(mu_row_bytes(row, 0), NULL, &w->rows[w->n].id) == 0) {
        w->n++;
    }
    return 0;
}

/* What must not exist (data-model.md 8); each statement returns one number. */
static const struct mu_stmt orphan_checks[] = {
    {"orphan_deadline", "i",
     "SELECT count(*) FROM sessions WHERE ended_ms IS NULL AND deadline_ms < $1 - 10000", NULL},
    {"orphan_attempt", "i",
     "SELECT count(*) FROM sessions s WHERE s.ended_ms IS NULL AND s.worker_id IS NOT NULL AND "
     "s.updated_ms < $1 - 10000 AND NOT "
     "EXISTS (SELECT 1 FROM attempts a WHERE a.session_id = s.id AND a.ended_ms IS NULL)",
     NULL},
    {"orphan_lease", "i",
     "SELECT count(*) FROM attempts a JOIN sessions s ON s.id = a.session_id WHERE a.ended_ms "
     "IS NULL AND a.lease_ms < $1 AND "
     "s.ended_ms IS NOT NULL",
     NULL},
    {"orphan_stream", "i",
     "SELECT count(*) FROM sessions s WHERE s.ended_ms IS NULL AND s.updated_ms < $1 AND NOT "
     "EXISTS (SELECT 1 FROM streams t "
     "WHERE t.id = s.id)",
     NULL},
    {"orphan_gate", "i",
     "SELECT count(*) FROM gates g WHERE g.status = 0 AND g.created_ms < $1 AND (SELECT s.ended_ms "
     "FROM sessions s WHERE s.id = g.session_id) IS NOT NULL",
     NULL},
    {"orphan_turn", "i",
     "SELECT count(*) FROM turns t WHERE t.ended_ms IS NULL AND t.state > 10 AND t.created_ms < $1 "
     "AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.session_id = t.session_id AND a.ended_ms IS "
     "NULL)",
     NULL},
};

static int count_orphans(struct mu_sweeper *w, struct mu_db *db)
{
    w->orphans = 0;
    for (size_t i = 0; i < MU_ARRAY_LEN(orphan_checks); i++) {
        int64_t n = 0;
        int r = MU_DB_RUN(db, &orphan_checks[i], mu_row_take_i64, &n, MU_VI(w->now_ms));
        if (r < 0) {
            return r;
        }
        w->orphans += n;
    }
    return 0;
}

static int sweep_read(struct mu_read *read, struct mu_db *db)
{
    struct mu_sweeper *w = MU_CONTAINER(read, struct mu_sweeper, read);
    w->n = w->at = 0;
    switch (w->what) {
    case DUE:
        return MU_DB_RUN(db, &q_due, take_due, w, MU_VI(w->now_ms), MU_VI(BATCH));
    case PURGE:
        return MU_DB_RUN(db, &q_purge_due, take_purge, w, MU_VI(w->now_ms), MU_VI(BATCH));
    default:
        return count_orphans(w, db);
    }
}

static const struct mu_stmt q_why = {
    "why", "t", "SELECT message_head FROM session_results WHERE session_id = $1", NULL};

/* Its worker may be running it still. */
static const struct mu_stmt q_unsettled = {"unsettled", "ti",
                                           "UPDATE attempts SET reason = '" MU_ATT_UNSETTLED
                                           "' WHERE session_id = $1 AND epoch = $2 AND kind = 2",
                                           NULL};

static int take_why(void *arg, struct mu_row *row)
{
    struct mu_sweeper *w = arg;
    mu_bytes why = mu_utf8_cut(mu_row_bytes(row, 0), sizeof w->why - 64);
    if (why.len) { /* what it was told while it waited (mu_session_note) */
        snprintf(w->why, sizeof w->why, "No worker took the run in time. %.*s", MU_ARGS(why));
    }
    return 0;
}

/* How it ends whose time is over. */
struct ending {
    int state, outcome, reason;
    const char *code;
};

static struct ending ending_of(int state)
{
    switch (state) {
    case MU_ST_QUEUED:
    case MU_ST_QUEUED_WORKER:
        return (struct ending){MU_ST_TIMED_OUT, MU_OUT_TIMED_OUT, MU_END_QUEUE_TIMEOUT, "timeout"};
    case MU_ST_HIBERNATED:
    case MU_ST_WAITING_AWAY:
        return (struct ending){MU_ST_COMPLETED, MU_OUT_CANCELLED, MU_END_STOPPED, "cancelled"};
    case MU_ST_PARKED:
        return (struct ending){MU_ST_FAILED, MU_OUT_FAILED, MU_END_RUNNER_LOST, "runner_lost"};
    default:
        return (struct ending){MU_ST_TIMED_OUT, MU_OUT_TIMED_OUT, MU_END_TIMEOUT, "timeout"};
    }
}

static int take_ended(void *arg, struct mu_row *row)
{
    struct mu_sweeper *w = arg;
    w->ended_state = (int)mu_row_i64(row, 0);
    w->ended_outcome = (int)mu_row_i64(row, 1);
    w->ended_reason = (int)mu_row_i64(row, 2);
    w->ended_stop = mu_row_i64(row, 3) != 0;
    return 0;
}

static mu_bytes expired_text(const struct due_row *d, bool stopped, bool queued)
{
    if (stopped) {
        return MU_B("Cancelled");
    }
    if (d->state == MU_ST_HIBERNATED || d->state == MU_ST_WAITING_AWAY) {
        return MU_B("Nobody woke the session in time");
    }
    if (d->state == MU_ST_PARKED) {
        return MU_B("The session lost its sandbox, and nobody restored it in time");
    }
    if (d->state == MU_ST_WAITING || d->state == MU_ST_PAUSED) {
        return MU_B("The session waited for people until its time was over");
    }
    if (d->route == MU_ROUTE_WORKER) {
        return queued ? MU_B("No worker took the run in time")
                      : MU_B("Run exceeded maximum duration");
    }
    return queued ? MU_B("Timed out: nothing could run this before its queue deadline")
                  : MU_B("Timed out: the run passed its deadline");
}

static int expire_result(struct mu_sweeper *w, struct mu_tx *tx, const char *code)
{
    const struct due_row *d = &w->rows[w->at];
    mu_bytes id = mu_id_bytes(&d->id);
    bool queued = d->state == MU_ST_QUEUED || d->state == MU_ST_QUEUED_WORKER;
    mu_bytes text = expired_text(d, w->ended_stop, queued);
    int r = 0;
    w->why[0] = 0;
    if (!w->ended_stop && d->state == MU_ST_QUEUED_WORKER) {
        r = MU_TX_RUN(tx, &q_why, take_why, w, MU_VT(id));
        text = w->why[0] ? mu_str(w->why) : text;
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_timeout_result, 1, MU_VT(id),
                       MU_VT(w->ended_stop ? MU_B("cancelled") : mu_str(code)), MU_VT(text),
                       MU_VT(text), MU_VI(w->now_ms));
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &mu_q_attempt_end, -1, MU_VT(id), MU_VI(d->epoch), MU_VI(MU_ATT_STOPPED),
                       MU_VNULL, MU_VI(w->now_ms));
    }
    bool held = !mu_state_sleeps(d->state);
    if (r >= 0 && d->state > MU_ST_QUEUED_WORKER && held) {
        r = MU_TX_SEND(tx, &q_unsettled, -1, MU_VT(id), MU_VI(d->epoch));
    }
    return r;
}

/* One that ran before and finds no worker now waits for people. 0; MU_E_CONFLICT: it ends. */
static int park(struct mu_sweeper *w, struct mu_tx *tx)
{
    const struct due_row *d = &w->rows[w->at];
    mu_bytes id = mu_id_bytes(&d->id);
    struct mu_clocks l;
    const struct mu_park p = {
        .epoch = d->epoch,
        .now_ms = w->now_ms,
        .hold_until_ms = w->now_ms + w->opts.hibernated_ms,
        .from = d->state,
        .text = MU_B("No worker took the session up again in time; resume it to try again")};
    if (d->state != MU_ST_QUEUED_WORKER || w->opts.hibernated_ms <= 0) {
        return MU_E_CONFLICT;
    }
    int r = mu_clocks_of(tx, id, true, MU_B_NONE, &l);
    if (r < 0) {
        return r;
    }
    if (l.state != d->state || l.epoch != d->epoch || l.deadline_ms > w->now_ms) {
        return MU_E_STALE;
    }
    r = mu_park(tx, id, &p);
    return r == MU_E_STALE ? MU_E_CONFLICT : r;
}

static int run_expire(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_sweeper *w = MU_CONTAINER(u, struct mu_sweeper, unit);
    const struct due_row *d = &w->rows[w->at];
    mu_bytes id = mu_id_bytes(&d->id);
    const struct ending e = ending_of(d->state);
    struct mu_open open;
    int r = park(w, tx);
    w->parked = r >= 0;
    if (r != MU_E_CONFLICT) {
        return r;
    }
    r = mu_tx_stream(tx, id, 2);
    if (r >= 0) {
        r = mu_session_open_read(tx, id, &open);
    }
    if (r < 0) {
        return r;
    }
    r = MU_TX_RUN(tx, &q_expire, take_ended, w, MU_VT(id), MU_VI(d->epoch), MU_VI(w->now_ms),
                  MU_VIOPT(mu_sessions_purge_ms(w->opts.sessions, w->now_ms)), MU_VI(e.reason),
                  MU_VI(d->state), MU_VI(w->now_ms), MU_VI(e.state), MU_VI(e.outcome));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    r = expire_result(w, tx, e.code);
    if (r >= 0) {
        r = mu_session_close_open(tx, id, &open, w->now_ms, false);
    }
    const struct mu_state_change c = {.from = d->state,
                                      .to = w->ended_state,
                                      .outcome = w->ended_outcome,
                                      .reason = mu_end_reason_name(w->ended_reason),
                                      .by = MU_B("system")};
    if (r >= 0) {
        r = mu_state_event(tx, w->now_ms, &c);
    }
    return r < 0 ? r : mu_ended_event(tx, w->now_ms, &c);
}

static void expire_next(struct mu_sweeper *w);

static void expired(struct mu_unit *u, int result)
{
    struct mu_sweeper *w = MU_CONTAINER(u, struct mu_sweeper, unit);
    const struct due_row *d = &w->rows[w->at];
    if (result >= 0 && w->parked) {
        mu_metric_add(w->opts.sessions->parked, 1);
        w->opts.expired(w->opts.arg, mu_id_bytes(&d->id));
        w->n_expired++;
    } else if (result >= 0) {
        if (w->ended_outcome == MU_OUT_CANCELLED && !w->ended_stop) { /* nobody had asked for it */
            mu_sessions_note_stop(w->opts.sessions, mu_str(d->org_id));
        }
        mu_sessions_note_end(w->opts.sessions, mu_str(d->org_id), w->ended_outcome);
        w->opts.expired(w->opts.arg, mu_id_bytes(&d->id));
        w->n_expired++;
    }
    w->at++;
    expire_next(w);
}

static void expire_next(struct mu_sweeper *w)
{
    if (w->at == w->n || w->stopping) {
        finish(w);
        return;
    }
    w->unit = (struct mu_unit){.run = run_expire,
                               .done = expired,
                               .loop = w->opts.core,
                               .org_id = mu_str(w->rows[w->at].org_id),
                               .stream_id = mu_id_bytes(&w->rows[w->at].id)};
    if (mu_writer_submit(w->opts.sessions->opts.writer, &w->unit) < 0) {
        finish(w); /* the next tick finds the same rows */
    }
}

/* --- retention --- */

static int take_file(void *arg, struct mu_row *row)
{
    struct mu_sweeper *w = arg;
    if (w->n_files < MU_ARRAY_LEN(w->files) &&
        mu_id_parse(mu_row_bytes(row, 0), NULL, &w->files[w->n_files]) == 0) {
        w->n_files++;
    }
    return 0;
}

static int run_purge(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_sweeper *w = MU_CONTAINER(u, struct mu_sweeper, unit);
    unsigned end = MU_MIN(w->at + PER_UNIT, w->n);
    w->n_files = 0;
    w->keys_left = false;
    int r = 0;
    for (unsigned i = w->at; r >= 0 && i < end; i++) {
        mu_bytes id = mu_id_bytes(&w->rows[i].id);
        r = MU_TX_RUN(tx, &q_purge_files, take_file, w, MU_VT(id));
        if (r >= 0) {
            r = MU_TX_RUN(tx, &q_purge_session, NULL, NULL, MU_VT(id), MU_VI(w->now_ms));
        }
        if (r > 0) {
            r = mu_session_delete_parts(tx, id);
        }
    }
    if (r >= 0 && w->n == 0) {
        r = MU_TX_RUN(tx, &q_purge_keys, NULL, NULL, MU_VI(w->now_ms), MU_VI(KEYS));
        w->keys_left = r >= KEYS;
    }
    if (r >= 0 && w->n == 0) {
        r = MU_TX_SEND(tx, &q_purge_ticks, -1, MU_VI(w->now_ms - INT64_C(7) * 86400000));
    }
    return r < 0 ? r : 0;
}

static void purge_next(struct mu_sweeper *w);

static void remove_files(struct mu_job *job)
{
    struct mu_sweeper *w = MU_CONTAINER(job, struct mu_sweeper, job);
    for (unsigned i = 0; i < w->n_files; i++) {
        w->opts.file_gone(w->opts.arg, mu_id_bytes(&w->files[i]));
    }
}

static void files_removed(struct mu_job *job)
{
    struct mu_sweeper *w = MU_CONTAINER(job, struct mu_sweeper, job);
    if (!job->ran) { /* no row names them any more: better one slow turn than bytes that stay */
        remove_files(job);
    }
    if (w->n == 0 && !w->keys_left) {
        w->next_purge_ms = w->now_ms + w->opts.retention_interval_ms;
        finish(w);
    } else if (w->at < w->n) {
        purge_next(w);
    } else {
        w->next_purge_ms =
            0; /* another page at the next tick; the last, empty one also clears the old keys */
        w->what = IDLE;
        if (w->stopping) {
            finish(w);
        } else {
            next_step(w, PURGE_PAUSE_MS);
        }
    }
}

static void purged(struct mu_unit *u, int result)
{
    struct mu_sweeper *w = MU_CONTAINER(u, struct mu_sweeper, unit);
    unsigned end = MU_MIN(w->at + PER_UNIT, w->n);
    if (result < 0) {
        mu_log(MU_LOG_WARN, "retention.sweep_failed", MU_KC("err_message", mu_err_text(result)));
        w->next_purge_ms = w->now_ms + w->opts.retention_interval_ms;
        finish(w);
        return;
    }
    mu_metric_add(w->purged, end - w->at);
    w->at = end;
    w->job = (struct mu_job){.run = remove_files, .done = files_removed, .loop = w->opts.core};
    if (w->n_files == 0 || mu_work_submit(w->opts.work, &w->job) < 0) {
        files_removed(&w->job);
    }
}

static void purge_next(struct mu_sweeper *w)
{
    w->unit = (struct mu_unit){.run = run_purge, .done = purged, .loop = w->opts.core};
    if (w->stopping || mu_writer_submit(w->opts.sessions->opts.writer, &w->unit) < 0) {
        finish(w);
    }
}

/* --- the round --- */

static void sweep_read_done(struct mu_read *read, int result)
{
    struct mu_sweeper *w = MU_CONTAINER(read, struct mu_sweeper, read);
    if (result < 0 || w->stopping) {
        finish(w);
        return;
    }
    if (w->what == DUE) {
        expire_next(w);
    } else if (w->what == PURGE) {
        purge_next(w);
    } else {
        mu_metric_set(w->orphan_gauge, w->orphans);
        if (w->orphans) {
            mu_log(MU_LOG_ERROR, "reconcile.orphans", MU_KI("count", w->orphans));
        }
        finish(w);
    }
}

static void tick(struct mu_timer *t)
{
    struct mu_sweeper *w = MU_CONTAINER(t, struct mu_sweeper, timer);
    next_step(w, TICK_MS); /* always set: moving it needs no memory */
    if (w->what != IDLE) {
        return;
    }
    w->n_expired = 0;
    w->now_ms = mu_sessions_now(w->opts.sessions);
    if (w->now_ms >= w->next_reconcile_ms) {
        w->what = RECONCILE;
        w->next_reconcile_ms = w->now_ms + RECONCILE_MS;
    } else if (w->now_ms >= w->next_purge_ms && !w->purged_last) {
        w->what = PURGE;
    } else {
        w->what = DUE;
    }
    w->purged_last = w->what == PURGE; /* a long purge does not keep deadlines waiting */
    w->read = (struct mu_read){.run = sweep_read, .done = sweep_read_done, .loop = w->opts.core};
    if (mu_readers_submit(w->opts.sessions->opts.readers, &w->read) < 0) {
        finish(w);
    }
}

static void next_step(struct mu_sweeper *w, int64_t delay_ms)
{
    /* it is in the heap already, or its place there has only just become free */
    MU_CHECK(mu_timer_set(&w->timer, delay_ms) == 0);
}

int mu_sweeper_new(const struct mu_sweeper_opts *opts, struct mu_sweeper **ret)
{
    struct mu_sweeper *w = mu_calloc(1, sizeof *w);
    if (!w) {
        return -ENOMEM;
    }
    w->opts = *opts;
    struct mu_metrics *m = opts->sessions->opts.metrics;
    if (m) {
        w->orphan_gauge =
            mu_metrics_gauge(m, "muster_orphans", NULL,
                             "Sessions without an owner or past their deadline; always 0.");
        w->purged = mu_metrics_counter(m, "muster_sessions_purged_total", NULL,
                                       "Sessions removed by retention.");
    }
    int64_t now = mu_sessions_now(opts->sessions);
    w->next_purge_ms = now + FIRST_PURGE_MS;
    w->next_reconcile_ms = now + RECONCILE_MS;
    mu_timer_init(&w->timer, opts->core, tick);
    int r = mu_timer_set(&w->timer, TICK_MS);
    if (r < 0) {
        mu_free(w);
        return r;
    }
    *ret = w;
    return 0;
}

void mu_sweeper_stop(struct mu_sweeper *w, void (*stopped)(void *arg), void *arg)
{
    w->stopping = true;
    w->stopped = stopped;
    w->stopped_arg = arg;
    if (w->what == IDLE) {
        finish(w);
    }
}

struct mu_sweeper *mu_sweeper_free(struct mu_sweeper *w)
{
    if (w) {
        mu_timer_clear(&w->timer);
        mu_free(w);
    }
    return NULL;
}

const struct mu_planned mu_sweep_planned[] = {
    {&q_due, "sessions_due"},
    {&q_purge_due, "sessions_purge"},
    {&q_purge_files, "files_session"},
    {&q_purge_keys, "idempotency_expire"},
    {&q_why, ""},
    {&orphan_checks[0], "sessions_due"},
    {&orphan_checks[2], "attempts_one_live"},
    {&orphan_checks[4], "gates_open"},
    {&orphan_checks[5], "turns_open"},
    {NULL, NULL},
};
