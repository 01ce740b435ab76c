/* The moves of an attempt at a worker. */
#include "app/sessions/attempts.h"

#include <errno.h>
#include <stdio.h>

#include "app/sessions/checkpoints_int.h"
#include "app/sessions/hibernate_int.h"

enum { PART_NAMES = 2 << 20 };

static const struct mu_stmt q_offer = {
    "offer", "ttiii",
    "UPDATE sessions SET state = 30, worker_id = $2, epoch = epoch + 1, deadline_ms = $5, "
    "updated_ms = $4, started_ms = coalesce(started_ms, $4), rev = rev + 1 WHERE id = $1 AND state "
    "= 22 AND epoch = $3",
    NULL};
static const struct mu_stmt q_attempt = {
    "attempt_worker", "tittiiit",
    "INSERT INTO attempts (session_id, epoch, execution_id, kind, worker_id, conn, server_slot, "
    "state, lease_ms, offered_ms, token_hash) VALUES ($1, $2, $3, 2, $4, $5, 1, 10, $6, $7, $8)",
    NULL};
/* From its first preparation on; its clock stood still while it waited to go on (wait_ms). */
#define OWN_DEADLINE                                                                               \
    "coalesce(run_deadline_ms + CASE WHEN wait_ms IS NULL THEN 0 ELSE CAST($5 AS BIGINT) - "       \
    "wait_ms END, CASE WHEN limit_ms > 0 THEN CAST($5 AS BIGINT) + limit_ms END)"
static const struct mu_stmt q_step = {
    "step", "tiiii",
    "UPDATE sessions SET state = $3, deadline_ms = CASE WHEN " OWN_DEADLINE
    " < $4 THEN " OWN_DEADLINE " ELSE CAST($4 AS BIGINT) END, run_deadline_ms = " OWN_DEADLINE
    ", wait_ms = NULL, updated_ms = $5, running_ms "
    "= CASE WHEN $3 = 60 THEN coalesce(running_ms, $5) ELSE running_ms END, rev = rev + 1 WHERE id "
    "= $1 AND epoch = $2 AND state BETWEEN 30 AND 59 AND state < $3",
    NULL};
static const struct mu_stmt q_ack = {
    "ack", "tiiii",
    "UPDATE attempts SET state = $3, acked_ms = coalesce(acked_ms, $4), lease_ms = $5 WHERE "
    "session_id = $1 AND epoch = $2 AND ended_ms IS NULL",
    NULL};
#define REQUEUE(clock, states)                                                                     \
    "UPDATE sessions SET state = 22, worker_id = NULL, epoch = epoch + 1, tries = tries + $5, "    \
    "deadline_ms = $4, updated_ms = $3, rev = rev + 1" clock " WHERE id = $1 AND epoch = $2 AND "  \
    "state BETWEEN " states " AND stop_ms IS NULL"
static const struct mu_stmt q_requeue = {"requeue", "tiiii", REQUEUE("", "30 AND 50"), NULL};
/* What it waited for people does not count as time that it ran. */
static const struct mu_stmt q_requeue_ran = {
    "requeue_ran", "tiiii",
    REQUEUE(", run_deadline_ms = CASE WHEN wait_ms IS NULL THEN run_deadline_ms ELSE "
            "run_deadline_ms + ($3 - wait_ms) END, wait_ms = NULL, paused_ms = NULL",
            "30 AND 70"),
    NULL};
static const struct mu_stmt q_attempt_void = {
    "attempt_void", "tiiit",
    "UPDATE attempts SET state = 90, outcome = $3, ended_ms = $4, reason = $5 WHERE session_id = "
    "$1 AND epoch = $2 AND ended_ms IS NULL",
    NULL};
static const struct mu_stmt q_note = {
    "note", "tii",
    "UPDATE sessions SET updated_ms = $3, rev = rev + 1 WHERE id = $1 AND epoch = $2 AND state = "
    "22",
    NULL};
static const struct mu_stmt q_note_text = {
    "note_text", "tti",
    "INSERT INTO session_results (session_id, message_head, updated_ms) VALUES ($1, $2, $3) ON "
    "CONFLICT (session_id) DO UPDATE SET message_head = excluded.message_head, updated_ms = "
    "excluded.updated_ms",
    NULL};
static const struct mu_stmt q_job = {
    "job", "t",
    "SELECT p.prompt_head, p.prompt_rest, s.title, s.harness, s.model, s.skill, p.spec, "
    "s.environment_id, p.env_snapshot, s.created_ms, s.restore_id FROM session_specs p JOIN "
    "sessions s ON s.id = "
    "p.session_id WHERE p.session_id = $1",
    NULL};
static const struct mu_stmt q_stored = {
    "stored_chunks", "t",
    "SELECT pos, bytes FROM output_chunks WHERE session_id = $1 ORDER BY pos LIMIT 8192", NULL};
static const struct mu_stmt q_attempts_live = {
    "attempts_live", "t",
    "SELECT a.session_id, a.epoch, a.execution_id, a.worker_id, a.conn, a.offered_ms, a.acked_ms, "
    "a.token_hash, s.org_id, s.state, s.tries, s.queued_ms, s.deadline_ms, s.stop_ms, "
    "s.pin_worker_id, (SELECT max(c.pos + length(c.bytes)) FROM output_chunks c WHERE c.session_id "
    "= a.session_id), s.needs FROM attempts a JOIN sessions s ON s.id = a.session_id WHERE "
    "a.ended_ms IS "
    "NULL AND a.kind = 2 AND a.session_id > $1 ORDER BY a.session_id LIMIT 1000",
    NULL};

static const struct mu_stmt q_unsettled = {
    "attempts_unsettled", "ti",
    "SELECT a.session_id, a.epoch, a.execution_id, a.worker_id FROM attempts a WHERE a.session_id "
    ">= $1 AND a.kind = 2 AND a.ended_ms >= $2 AND (a.outcome IN (3, 6) OR a.reason = "
    "'" MU_ATT_UNSETTLED "') AND NOT EXISTS (SELECT 1 FROM attempts b WHERE b.session_id = "
    "a.session_id AND b.ended_ms IS NULL AND b.worker_id = a.worker_id) ORDER BY a.session_id, "
    "a.epoch LIMIT 10000",
    NULL};

/* --- offer --- */

static int run_offer(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_offer *op = MU_CONTAINER(u, struct mu_session_offer, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = mu_tx_stream(tx, id, 1);
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_offer, 1, MU_VT(id), MU_VT(op->worker_id), MU_VI(op->epoch),
                       MU_VI(op->now_ms), MU_VI(op->deadline_ms));
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_attempt, 1, MU_VT(id), MU_VI(op->epoch + 1),
                       MU_VT(mu_id_bytes(&op->execution_id)), MU_VT(op->worker_id), MU_VI(op->conn),
                       MU_VI(op->lease_ms), MU_VI(op->now_ms), MU_VT(mu_str(op->token.text)));
    }
    if (r >= 0 && op->noted) {
        r = MU_TX_SEND(tx, &q_note_text, 1, MU_VT(id), MU_VT(MU_B("")), MU_VI(op->now_ms));
    }
    return r < 0 ? r
                 : mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B("system"),
                               MU_B("{\"from\":22,\"to\":30}"));
}

static void offered(struct mu_unit *u, int result)
{
    struct mu_session_offer *op = MU_CONTAINER(u, struct mu_session_offer, unit);
    if (result >= 0) {
        op->epoch++;
    }
    mu_sessions_note_stale(op->sessions, result);
    op->done(op, result);
}

int mu_session_offer(struct mu_sessions *s, struct mu_session_offer *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->id, run_offer, offered);
}

/* --- step --- */

static int run_step(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_step *op = MU_CONTAINER(u, struct mu_session_step, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = mu_tx_stream(tx, id, 1);
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_step, 1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->to),
                       MU_VI(op->deadline_ms), MU_VI(op->now_ms));
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_ack, -1, MU_VT(id), MU_VI(op->epoch),
                       MU_VI(op->to == MU_ST_RUNNING ? 30 : 20), MU_VI(op->now_ms),
                       MU_VI(op->lease_ms));
    }
    char data[64];
    snprintf(data, sizeof data, "{\"from\":%d,\"to\":%d}", op->from, op->to);
    return r < 0 ? r : mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B("runner"), mu_str(data));
}

static void stepped(struct mu_unit *u, int result)
{
    struct mu_session_step *op = MU_CONTAINER(u, struct mu_session_step, unit);
    mu_sessions_note_stale(op->sessions, result);
    op->done(op, result);
}

int mu_session_step(struct mu_sessions *s, struct mu_session_step *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->id, run_step, stepped);
}

/* --- requeue --- */

/* It goes nowhere by itself any more: people may try again. */
static int park(struct mu_session_requeue *op, struct mu_tx *tx, const struct mu_open *open)
{
    mu_bytes id = mu_id_bytes(&op->id);
    const struct mu_park p = {
        .epoch = op->epoch,
        .now_ms = op->now_ms,
        .hold_until_ms = op->park_until_ms,
        .from = (int)open->state,
        .text = MU_B("SESSION_LOST: the session lost its runner three times, and no turn was done "
                     "in between; resume it to try again")};
    int r = MU_TX_SEND(tx, &q_attempt_void, -1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->outcome),
                       MU_VI(op->now_ms), MU_VT(mu_str(op->reason)));
    if (r >= 0) {
        r = MU_TX_SEND(tx, &mu_q_chunks_drop, -1, MU_VT(id));
    }
    if (r >= 0) {
        r = mu_session_close_open(tx, id, open, op->now_ms, true);
    }
    if (r >= 0) {
        r = mu_park(tx, id, &p);
    }
    op->parked = r >= 0;
    return r == MU_E_STALE && open->state < MU_ST_STOPPING ? MU_E_CONFLICT : r;
}

static int run_requeue(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_requeue *op = MU_CONTAINER(u, struct mu_session_requeue, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    struct mu_open open;
    int r = mu_tx_stream(tx, id, 0);
    if (r >= 0) {
        r = mu_session_open_read(tx, id, &open);
    }
    op->parked = false;
    if (r >= 0 && op->lost) {
        r = mu_session_go_on(op, tx);
    }
    if (r == MU_E_CONFLICT && op->too_often && op->park_until_ms) {
        return park(op, tx, &open);
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, op->lost ? &q_requeue_ran : &q_requeue, 1, MU_VT(id), MU_VI(op->epoch),
                       MU_VI(op->now_ms), MU_VI(op->deadline_ms), MU_VI(op->counts));
    }
    if (r >= 0 && op->lost) {
        r = mu_session_went_on(op, tx);
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_attempt_void, -1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->outcome),
                       MU_VI(op->now_ms), MU_VT(mu_str(op->reason)));
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &mu_q_chunks_drop, -1, MU_VT(id));
    }
    if (r >= 0) {
        r = mu_session_close_open(tx, id, &open, op->now_ms, true);
    }
    if (r >= 0) {
        r = mu_tx_stream(tx, id, 1);
    }
    return r < 0 ? r : mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B("system"), mu_str(op->event));
}

static void requeued(struct mu_unit *u, int result)
{
    struct mu_session_requeue *op = MU_CONTAINER(u, struct mu_session_requeue, unit);
    if (result >= 0) {
        op->epoch++;
        mu_metric_add(op->sessions->restored, op->lost && !op->parked);
        mu_metric_add(op->sessions->parked, op->parked);
    }
    mu_sessions_note_stale(op->sessions, result);
    op->done(op, result);
}

int mu_session_requeue(struct mu_sessions *s, struct mu_session_requeue *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    snprintf(op->event, sizeof op->event, "{\"from\":%d,\"to\":22,\"message\":\"%s\"}", op->from,
             op->reason);
    return mu_session_submit(s, &op->unit, &op->id, run_requeue, requeued);
}

/* --- why it waits --- */

static int run_note(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_note *op = MU_CONTAINER(u, struct mu_session_note, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = mu_tx_stream(tx, id, 1);
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_note, 1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->now_ms));
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_note_text, 1, MU_VT(id), MU_VT(mu_str(op->text)), MU_VI(op->now_ms));
    }
    return r < 0 ? r : mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B("system"), mu_str(op->event));
}

static void noted(struct mu_unit *u, int result)
{
    struct mu_session_note *op = MU_CONTAINER(u, struct mu_session_note, unit);
    op->done(op, result);
}

int mu_session_note(struct mu_sessions *s, struct mu_session_note *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    snprintf(op->event, sizeof op->event, "{\"from\":22,\"to\":22,\"message\":\"%s\"}", op->text);
    return mu_session_submit(s, &op->unit, &op->id, run_note, noted);
}

/* --- the job --- */

static int take_job(void *arg, struct mu_row *row)
{
    struct mu_session_job *op = arg;
    int r = mu_prompt_join(&op->arena, mu_row_bytes(row, 0), mu_row_bytes(row, 1), &op->prompt);
    if (r < 0) {
        return r;
    }
    mu_bytes *const texts[] = {&op->title, &op->harness,        &op->model,       &op->skill,
                               &op->spec,  &op->environment_id, &op->env_snapshot};
    for (int i = 0; i < (int)MU_ARRAY_LEN(texts); i++) {
        mu_bytes v = mu_row_bytes(row, 2 + i);
        *texts[i] = v.ptr ? mu_arena_dup(&op->arena, v) : MU_B_NONE;
        if (v.ptr && !texts[i]->ptr) {
            return -ENOMEM;
        }
    }
    op->created_ms = mu_row_i64(row, 9);
    mu_bytes restore = mu_row_bytes(row, 10);
    op->restore_id = restore.ptr ? mu_arena_dup(&op->arena, restore) : MU_B_NONE;
    op->restore_parts = MU_B_NONE;
    return restore.ptr && !op->restore_id.ptr ? -ENOMEM : 0;
}

/* One that is gone is named all the same: its worker finds out, and says so. */
static int read_parts(struct mu_session_job *op, struct mu_db *db)
{
    mu_bytes id = mu_id_bytes(&op->id);
    struct mu_chain chain;
    struct mu_buf names;
    mu_buf_init(&names, PART_NAMES);
    int r = mu_chain_read(db, id, op->restore_id, &chain);
    if (r >= 0) {
        r = mu_chain_names(db, id, &chain, &names);
    } else if (r == MU_E_NOT_FOUND || r == MU_E_CORRUPT) {
        mu_buf_add_str(&names, "[]");
        r = names.failed;
    }
    if (r >= 0) {
        op->restore_parts = mu_arena_dup(&op->arena, mu_buf_bytes(&names));
        r = op->restore_parts.ptr ? 0 : -ENOMEM;
    }
    mu_buf_fini(&names);
    return r;
}

static int run_job(struct mu_read *read, struct mu_db *db)
{
    struct mu_session_job *op = MU_CONTAINER(read, struct mu_session_job, read);
    int r = MU_DB_RUN(db, &q_job, take_job, op, MU_VT(mu_id_bytes(&op->id)));
    if (r > 0 && op->restore_id.ptr) {
        r = read_parts(op, db);
        return MU_MIN(r, 0);
    }
    return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : 0;
}

static void job_done(struct mu_read *read, int result)
{
    struct mu_session_job *op = MU_CONTAINER(read, struct mu_session_job, read);
    op->done(op, result);
}

int mu_session_job_read(struct mu_sessions *s, struct mu_session_job *op)
{
    op->sessions = s;
    op->read.run = run_job;
    op->read.done = job_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

/* --- the output so far --- */

static int take_chunk(void *arg, struct mu_row *row)
{
    struct mu_session_chunks *op = arg;
    int64_t pos = mu_row_i64(row, 0);
    mu_bytes bytes = mu_row_bytes(row, 1);
    if (pos != op->end) { /* the middle was dropped */
        mu_buf_clear(&op->text);
        op->begin = pos;
    }
    mu_buf_add(&op->text, bytes);
    op->end = pos + (int64_t)bytes.len;
    return op->text.failed;
}

static int run_chunks(struct mu_read *read, struct mu_db *db)
{
    struct mu_session_chunks *op = MU_CONTAINER(read, struct mu_session_chunks, read);
    op->begin = op->end = 0;
    int r = MU_DB_RUN(db, &q_stored, take_chunk, op, MU_VT(mu_id_bytes(&op->id)));
    return r < 0 ? r : 0;
}

static void chunks_done(struct mu_read *read, int result)
{
    struct mu_session_chunks *op = MU_CONTAINER(read, struct mu_session_chunks, read);
    op->done(op, result);
}

int mu_session_chunks_read(struct mu_sessions *s, struct mu_session_chunks *op)
{
    op->sessions = s;
    op->read.run = run_chunks;
    op->read.done = chunks_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

/* --- start-up --- */

struct attempts {
    int (*each)(void *arg, const struct mu_attempt_row *row);
    void *arg;
    char id[MU_ID_LEN + 1];
};

static int take_attempt(void *arg, struct mu_row *r)
{
    struct attempts *a = arg;
    const struct mu_attempt_row row = {.session_id = mu_row_bytes(r, 0),
                                       .epoch = mu_row_i64(r, 1),
                                       .execution_id = mu_row_bytes(r, 2),
                                       .worker_id = mu_row_bytes(r, 3),
                                       .conn = mu_row_i64(r, 4),
                                       .offered_ms = mu_row_i64(r, 5),
                                       .acked_ms = mu_row_i64(r, 6),
                                       .token_hash = mu_row_bytes(r, 7),
                                       .org_id = mu_row_bytes(r, 8),
                                       .state = (int)mu_row_i64(r, 9),
                                       .tries = (int)mu_row_i64(r, 10),
                                       .queued_ms = mu_row_i64(r, 11),
                                       .deadline_ms = mu_row_i64(r, 12),
                                       .stop_ms = mu_row_i64(r, 13),
                                       .pin_worker_id = mu_row_bytes(r, 14),
                                       .output_bytes = mu_row_i64(r, 15),
                                       .needs = mu_row_i64(r, 16)};
    snprintf(a->id, sizeof a->id, "%.*s", MU_ARGS(row.session_id));
    return a->each(a->arg, &row);
}

int mu_sessions_each_attempt(struct mu_db *db,
                             int (*each)(void *arg, const struct mu_attempt_row *row), void *arg)
{
    struct attempts a = {each, arg, ""};
    for (;;) {
        char after[MU_ID_LEN + 1];
        memcpy(after, a.id, sizeof after);
        int r = MU_DB_RUN(db, &q_attempts_live, take_attempt, &a, MU_VT(mu_str(after)));
        if (r < 1000) {
            return r < 0 ? r : 0;
        }
    }
}

static int take_unsettled(void *arg, struct mu_row *r)
{
    struct attempts *a = arg;
    const struct mu_attempt_row row = {.session_id = mu_row_bytes(r, 0),
                                       .epoch = mu_row_i64(r, 1),
                                       .execution_id = mu_row_bytes(r, 2),
                                       .worker_id = mu_row_bytes(r, 3)};
    return a->each(a->arg, &row);
}

int mu_sessions_each_unsettled(struct mu_db *db, int64_t made_ms, int64_t since_ms,
                               int (*each)(void *arg, const struct mu_attempt_row *row), void *arg)
{
    struct attempts a = {each, arg, ""};
    char from[24]; /* ids begin with the time of their making */
    uint64_t ms = (uint64_t)MU_MAX(made_ms, 0);
    snprintf(from, sizeof from, "%08llx-%04llx-", (unsigned long long)(ms >> 16) & 0xffffffff,
             (unsigned long long)ms & 0xffff);
    int r = MU_DB_RUN(db, &q_unsettled, take_unsettled, &a, MU_VT(mu_str(from)), MU_VI(since_ms));
    return r < 0 ? r : 0;
}

const struct mu_planned mu_attempts_planned[] = {
    {&q_offer, ""}, {&q_step, ""},      {&q_ack, ""},
    {&q_job, ""},   {&q_stored, ""},    {&q_attempts_live, "attempts_one_live"},
    {&q_note, ""},  {&q_unsettled, ""}, {NULL, NULL},
};
