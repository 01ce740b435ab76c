/* Every way in which a session ends: reported, cancelled, recovered, deleted. Deadlines are in
 * sweep.c. */
#include <stdio.h>

#include "app/sessions/sessions_int.h"
#include "base/encode.h"
#include "proto/json.h"

static const struct mu_stmt q_complete = {
    "complete", "tiiiiiiiii",
    "UPDATE sessions SET state = CASE WHEN stop_ms IS NOT NULL THEN 90 ELSE CAST($3 AS BIGINT) "
    "END, outcome = CASE WHEN stop_ms "
    "IS NOT NULL THEN 2 ELSE CAST($8 AS BIGINT) END, end_reason = CASE WHEN stop_ms IS NOT NULL "
    "THEN end_reason ELSE CAST($4 AS "
    "BIGINT) END, exit_code = $5, ended_ms = $6, updated_ms = $6, purge_ms = $7, tokens_in = $9, "
    "tokens_out = $10, rev = rev + 1 "
    "WHERE id = $1 AND epoch = $2 AND state BETWEEN 20 AND 80 RETURNING state, outcome, "
    "stop_ms",
    NULL};
static const struct mu_stmt q_result = {
    "result", "ttttittiibt",
    "INSERT INTO session_results (session_id, message_head, error_code, error_message, updated_ms, "
    "provider, artifacts, "
    "output_bytes, output_truncated, output, session_link) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, "
    "$9, $10, $11) ON "
    "CONFLICT (session_id) DO UPDATE "
    "SET message_head = excluded.message_head, error_code = excluded.error_code, error_message = "
    "excluded.error_message, "
    "updated_ms = excluded.updated_ms, provider = excluded.provider, artifacts = "
    "excluded.artifacts, output_bytes = "
    "excluded.output_bytes, output_truncated = excluded.output_truncated, output = "
    "excluded.output, session_link = coalesce(excluded.session_link, "
    "session_results.session_link)",
    NULL};
static const struct mu_stmt q_artifact = {
    "artifact_new", "tttitti",
    "INSERT INTO artifacts (id, session_id, org_id, kind, dedupe, data, created_ms) VALUES ($1, "
    "$2, $3, $4, $5, $6, $7) ON "
    "CONFLICT (session_id, dedupe) DO NOTHING",
    NULL};
#define CANCEL_SET                                                                                 \
    "UPDATE sessions SET state = CASE WHEN worker_id IS NULL THEN 90 ELSE 80 END, outcome = CASE " \
    "WHEN worker_id IS NULL THEN 2 "                                                               \
    "ELSE 0 END, end_reason = 2, stop_ms = $2, deadline_ms = $3, updated_ms = $2, rev = rev + 1, " \
    "ended_ms = CASE WHEN worker_id "                                                              \
    "IS NULL THEN CAST($2 AS BIGINT) END, purge_ms = CASE WHEN worker_id IS NULL THEN CAST($4 AS " \
    "BIGINT) END WHERE id = $1 AND "                                                               \
    "state < 80 "
static const struct mu_stmt q_cancel = {
    "cancel", "tiiit", CANCEL_SET "AND org_id = $5 RETURNING state, route, org_id", NULL};
static const struct mu_stmt q_cancel_any = {"cancel_any", "tiii",
                                            CANCEL_SET "RETURNING state, route, org_id", NULL};
static const struct mu_stmt q_who = {
    "who", "t",
    "SELECT org_id, state, route, CASE WHEN worker_id IS NULL THEN 0 ELSE 1 END FROM sessions "
    "WHERE id = $1",
    NULL};
static const struct mu_stmt q_is_live = {
    "is_live", "t", "SELECT 1 FROM sessions WHERE id = $1 AND ended_ms IS NULL", NULL};
static const struct mu_stmt q_stopped_result = {
    "stopped_result", "tti",
    "INSERT INTO session_results (session_id, error_code, error_message, message_head, updated_ms) "
    "VALUES ($1, 'cancelled', $2, "
    "$2, $3) ON CONFLICT (session_id) DO UPDATE SET error_code = excluded.error_code, "
    "error_message = excluded.error_message, "
    "message_head = excluded.message_head, updated_ms = excluded.updated_ms",
    NULL};
static const struct mu_stmt q_attempt_reason = {
    "attempt_reason", "tit", "UPDATE attempts SET reason = $3 WHERE session_id = $1 AND epoch = $2",
    NULL};
static const struct mu_stmt q_delete = {
    "delete", "t", "DELETE FROM sessions WHERE id = $1 AND ended_ms IS NOT NULL", NULL};
static const struct mu_stmt q_objects = {"objects", "t",
                                         "SELECT id FROM files WHERE session_id = $1", NULL};
static const struct mu_stmt q_requeue_run = {
    "requeue_run", "tiii",
    "UPDATE sessions SET state = 20, worker_id = NULL, epoch = epoch + 1, tries = tries + 1, "
    "deadline_ms = $4, updated_ms = $3, "
    "rev = rev + 1 WHERE id = $1 AND epoch = $2 AND state = 60 AND stop_ms IS NULL RETURNING epoch",
    NULL};

enum { STOP_GRACE_MS = 30000, HEAD_MAX = 4096, MESSAGE_MAX = 65536 };

/* --- the reported end --- */

/* stop_ms comes as it is: SQLite 3.40 gets a second CASE over it wrong in RETURNING. */
static int take_ended(void *arg, struct mu_row *row)
{
    struct mu_session_end *op = arg;
    op->got_state = (int)mu_row_i64(row, 0);
    op->got_outcome = (int)mu_row_i64(row, 1);
    op->got_stop = mu_row_i64(row, 2) != 0;
    return 0;
}

/* Text that a column takes on both engines: valid UTF-8 without zero bytes, at most `max` bytes. */
static mu_bytes clean_text(struct mu_buf *b, mu_bytes raw, size_t max)
{
    mu_buf_init(b, 3 * max);
    mu_utf8_add_lossy(b, mu_bytes_head(raw, max));
    for (size_t i = 0; i < b->len; i++) {
        b->ptr[i] = b->ptr[i] ? b->ptr[i] : ' ';
    }
    mu_bytes cut = mu_utf8_cut(mu_buf_bytes(b), max);
    return cut.ptr ? cut : MU_B("");
}

static int store_result(struct mu_session_end *op, struct mu_tx *tx)
{
    mu_bytes id = mu_id_bytes(&op->id);
    bool cancelled = op->got_outcome == MU_OUT_CANCELLED;
    const char *code = cancelled ? "cancelled" : op->error_code;
    struct mu_buf message_buf, head_buf;
    mu_bytes message =
        clean_text(&message_buf, cancelled ? MU_B("Cancelled") : op->error_message, MESSAGE_MAX);
    mu_bytes head = clean_text(&head_buf, code || !op->output.len ? message : op->output, HEAD_MAX);
    int r = message_buf.failed ? message_buf.failed : head_buf.failed;
    if (r == 0) {
        r = MU_TX_RUN(tx, &q_result, NULL, NULL, MU_VT(id), MU_VT(head), MU_VTOPT(mu_str(code)),
                      code ? MU_VT(message) : MU_VNULL, MU_VI(op->now_ms), MU_VTOPT(op->provider),
                      MU_VTOPT(op->artifacts), MU_VI(op->output_bytes), MU_VI(op->output_truncated),
                      op->output.ptr ? MU_VB(op->output) : MU_VNULL, MU_VTOPT(op->session_link));
    }
    mu_buf_fini(&message_buf);
    mu_buf_fini(&head_buf);
    if (r >= 0 && op->output.ptr) {
        r = MU_TX_SEND(tx, &mu_q_chunks_drop, -1, MU_VT(id));
    }
    for (size_t i = 0; r >= 0 && i < op->n_artifacts; i++) {
        const struct mu_artifact_row *a = &op->artifact_rows[i];
        r = MU_TX_SEND(tx, &q_artifact, -1, MU_VT(mu_id_bytes(&a->id)), MU_VT(id),
                       MU_VT(mu_str(op->org_id)), MU_VI(a->kind), MU_VT(mu_str(a->dedupe.text)),
                       MU_VT(a->data), MU_VI(op->now_ms));
    }
    return r;
}

static int end_events(struct mu_session_end *op, struct mu_tx *tx)
{
    int r = 0;
    for (size_t i = 0; r >= 0 && i < op->n_artifacts; i++) {
        r = mu_tx_event(tx, MU_EV_ARTIFACT, op->now_ms, MU_B(""), op->artifact_rows[i].data);
    }
    char moved[64];
    snprintf(moved, sizeof moved, "{\"to\":%d,\"outcome\":%d}", op->got_state, op->got_outcome);
    if (r >= 0) {
        r = mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B(""), mu_str(moved));
    }
    if (r < 0) {
        return r;
    }
    mu_buf_clear(&op->event);
    struct mu_json_w w = mu_json_w(&op->event);
    mu_jw_obj(&w);
    mu_jw_ki64(&w, "to", op->got_state);
    mu_jw_ki64(&w, "outcome", op->got_outcome);
    if (op->got_outcome != MU_OUT_CANCELLED && op->error_code) {
        mu_jw_key(&w, "error");
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "code", op->error_code);
        mu_jw_kstr(&w, "message", mu_utf8_cut(op->error_message, 2000));
        mu_jw_obj_end(&w);
    }
    mu_jw_obj_end(&w);
    return op->event.failed
               ? op->event.failed
               : mu_tx_event(tx, MU_EV_ENDED, op->now_ms, MU_B(""), mu_buf_bytes(&op->event));
}

static int run_end(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_end *op = MU_CONTAINER(u, struct mu_session_end, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = mu_tx_stream(tx, id, 2 + (unsigned)op->n_artifacts);
    if (r < 0) {
        return r;
    }
    r = MU_TX_RUN(tx, &q_complete, take_ended, op, MU_VT(id), MU_VI(op->epoch), MU_VI(op->state),
                  MU_VI(op->reason), op->has_exit_code ? MU_VI(op->exit_code) : MU_VNULL,
                  MU_VI(op->now_ms), MU_VIOPT(mu_sessions_purge_ms(op->sessions, op->now_ms)),
                  MU_VI(op->outcome), MU_VI(op->tokens_in), MU_VI(op->tokens_out));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    int outcome = op->got_outcome == MU_OUT_CANCELLED  ? MU_ATT_STOPPED
                  : op->got_outcome == MU_OUT_FINISHED ? MU_ATT_FINISHED
                                                       : MU_ATT_FAILED;
    r = MU_TX_SEND(tx, &mu_q_attempt_end, -1, MU_VT(id), MU_VI(op->epoch), MU_VI(outcome),
                   op->has_exit_code ? MU_VI(op->exit_code) : MU_VNULL, MU_VI(op->now_ms));
    if (r >= 0 && op->attempt_reason.len) {
        r = MU_TX_SEND(tx, &q_attempt_reason, -1, MU_VT(id), MU_VI(op->epoch),
                       MU_VT(op->attempt_reason));
    }
    if (r >= 0) {
        r = mu_quota_settle(tx, &op->quota, id);
    }
    if (r >= 0) {
        r = store_result(op, tx);
    }
    return r < 0 ? r : end_events(op, tx);
}

static int run_settle(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_end *op = MU_CONTAINER(u, struct mu_session_end, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    /* what a live session holds belongs to another attempt */
    int r = MU_TX_RUN(tx, &q_is_live, NULL, NULL, MU_VT(id));
    return r != 0 ? MU_MIN(r, 0) : mu_quota_settle(tx, &op->quota, id);
}

static void settle_done(struct mu_unit *u, int result MU_UNUSED)
{
    struct mu_session_end *op = MU_CONTAINER(u, struct mu_session_end, unit);
    op->done(op, op->why_not); /* a hold that was not settled ends by itself */
}

/* The session ended without this report (its deadline passed), but what the call used of a quota
 * is known only here: else the hold would give the message back long before the window does. */
static bool settle_alone(struct mu_session_end *op, int result)
{
    bool gone = result == MU_E_STALE || result == MU_E_NOT_FOUND;
    if (!gone || !op->quota.provider) {
        return false;
    }
    op->why_not = result;
    op->unit.run = run_settle;
    op->unit.done = settle_done;
    op->unit.alone = false;
    return mu_writer_submit(op->sessions->opts.writer, &op->unit) == 0;
}

static void end_done(struct mu_unit *u, int result)
{
    struct mu_session_end *op = MU_CONTAINER(u, struct mu_session_end, unit);
    mu_buf_fini(&op->event);
    if (result >= 0 && op->got_outcome == MU_OUT_CANCELLED && !op->got_stop) {
        mu_sessions_note_stop(op->sessions, mu_str(op->org_id)); /* nobody had asked for it */
    }
    if (result >= 0) {
        mu_sessions_note_end(op->sessions, mu_str(op->org_id), op->got_outcome);
    } else if (result == MU_E_STALE) {
        mu_metric_add(op->sessions->stale, 1);
    }
    if (!settle_alone(op, result)) {
        op->done(op, result);
    }
}

int mu_session_end(struct mu_sessions *s, struct mu_session_end *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    mu_buf_init(&op->event, 16384);
    op->unit.run = run_end;
    op->unit.done = end_done;
    op->unit.stream_id = mu_id_bytes(&op->id);
    op->unit.alone = op->output.len > (1u << 20);
    return mu_writer_submit(s->opts.writer, &op->unit);
}

/* --- cancel --- */

struct who {
    char org[MU_ORG_LEN + 1];
    int state, route;
    bool attached; /* something may run it: a stop ends it only when that was told */
};

static int take_cancelled(void *arg, struct mu_row *row)
{
    struct mu_session_cancel *op = arg;
    op->state = (int)mu_row_i64(row, 0);
    op->route = (int)mu_row_i64(row, 1);
    snprintf(op->org, sizeof op->org, "%.*s", MU_ARGS(mu_row_bytes(row, 2)));
    return 0;
}

static int take_who(void *arg, struct mu_row *row)
{
    struct who *w = arg;
    snprintf(w->org, sizeof w->org, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    w->state = (int)mu_row_i64(row, 1);
    w->route = (int)mu_row_i64(row, 2);
    w->attached = mu_row_i64(row, 3) != 0;
    return 0;
}

/* MU_E_NOT_FOUND also for another tenant's session (G6). */
static int look_up(struct mu_tx *tx, mu_bytes id, bool admin, mu_bytes org_id, struct who *ret)
{
    int r = MU_TX_RUN(tx, &q_who, take_who, ret, MU_VT(id));
    if (r < 0) {
        return r;
    }
    return r == 0 || (!admin && !mu_bytes_is(org_id, ret->org)) ? MU_E_NOT_FOUND : 0;
}

static int run_cancel(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_cancel *op = MU_CONTAINER(u, struct mu_session_cancel, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    op->changed = false;
    struct who who;
    int r = look_up(tx, id, op->admin, op->org_id, &who);
    if (r < 0) {
        return r;
    }
    op->state = who.state;
    op->route = who.route;
    if (who.state >= 80) {
        return 0;
    }
    int64_t purge = mu_sessions_purge_ms(op->sessions, op->now_ms);
    r = mu_tx_stream(tx, id, who.attached ? 1 : 2);
    if (r < 0) {
        return r;
    }
    r = op->admin
            ? MU_TX_RUN(tx, &q_cancel_any, take_cancelled, op, MU_VT(id), MU_VI(op->now_ms),
                        MU_VI(op->now_ms + STOP_GRACE_MS), MU_VIOPT(purge))
            : MU_TX_RUN(tx, &q_cancel, take_cancelled, op, MU_VT(id), MU_VI(op->now_ms),
                        MU_VI(op->now_ms + STOP_GRACE_MS), MU_VIOPT(purge), MU_VT(op->org_id));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    op->changed = true;
    char data[64];
    snprintf(data, sizeof data, "{\"from\":%d,\"to\":%d,\"outcome\":%d}", who.state, op->state,
             op->state == 90 ? 2 : 0);
    r = mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B(""), mu_str(data));
    if (r < 0 || op->state != MU_ST_COMPLETED) {
        return r;
    }
    r = MU_TX_SEND(tx, &q_stopped_result, -1, MU_VT(id), MU_VT(MU_B("Cancelled")),
                   MU_VI(op->now_ms));
    return r < 0 ? r
                 : mu_tx_event(tx, MU_EV_ENDED, op->now_ms, MU_B(""),
                               MU_B("{\"to\":90,\"outcome\":2}"));
}

static void cancel_done(struct mu_unit *u, int result)
{
    struct mu_session_cancel *op = MU_CONTAINER(u, struct mu_session_cancel, unit);
    if (result >= 0 && op->changed) {
        mu_sessions_note_stop(op->sessions, mu_str(op->org));
    }
    if (result >= 0 && op->changed && op->state == MU_ST_COMPLETED) {
        mu_sessions_note_end(op->sessions, mu_str(op->org), MU_OUT_CANCELLED);
    }
    if (op->after_done) {
        op->after_done(op, result);
    }
    op->done(op, result);
}

int mu_session_cancel(struct mu_sessions *s, struct mu_session_cancel *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->id, run_cancel, cancel_done);
}

/* --- delete --- */

int mu_session_delete_parts(struct mu_tx *tx, mu_bytes id)
{
    static const struct mu_stmt parts[] = {
        {"del_events", "t", "DELETE FROM events WHERE stream_id = $1", NULL},
        {"del_stream", "t", "DELETE FROM streams WHERE id = $1", NULL},
        {"del_artifacts", "t", "DELETE FROM artifacts WHERE session_id = $1", NULL},
        {"del_files", "t", "DELETE FROM files WHERE session_id = $1", NULL},
        {"del_chunks", "t", "DELETE FROM output_chunks WHERE session_id = $1", NULL},
        {"del_attempts", "t", "DELETE FROM attempts WHERE session_id = $1", NULL},
        {"del_result", "t", "DELETE FROM session_results WHERE session_id = $1", NULL},
        {"del_spec", "t", "DELETE FROM session_specs WHERE session_id = $1", NULL},
    };
    int r = 0;
    for (size_t i = 0; r >= 0 && i < MU_ARRAY_LEN(parts); i++) {
        r = MU_TX_SEND(tx, &parts[i], -1, MU_VT(id));
    }
    return r;
}

static int take_object(void *arg, struct mu_row *row)
{
    struct mu_session_delete *op = arg;
    if (op->n_files < MU_SESSION_FILES &&
        mu_id_parse(mu_row_bytes(row, 0), NULL, &op->files[op->n_files]) == 0) {
        op->n_files++;
    }
    return 0;
}

static int run_delete(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_delete *op = MU_CONTAINER(u, struct mu_session_delete, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    struct who who;
    int r = look_up(tx, id, op->admin, op->org_id, &who);
    if (r < 0) {
        return r;
    }
    op->n_files = 0;
    r = MU_TX_RUN(tx, &q_objects, take_object, op, MU_VT(id));
    if (r < 0) {
        return r;
    }
    r = MU_TX_RUN(tx, &q_delete, NULL, NULL, MU_VT(id));
    if (r <= 0) {
        return r < 0 ? r : MU_E_CONFLICT;
    }
    return mu_session_delete_parts(tx, id);
}

static void delete_done(struct mu_unit *u, int result)
{
    struct mu_session_delete *op = MU_CONTAINER(u, struct mu_session_delete, unit);
    op->done(op, result);
}

int mu_session_delete(struct mu_sessions *s, struct mu_session_delete *op)
{
    op->sessions = s;
    return mu_session_submit(s, &op->unit, &op->id, run_delete, delete_done);
}

/* --- recovery at start --- */

static int recover_end(struct mu_session_recover *op, struct mu_tx *tx, int state, int outcome)
{
    mu_bytes id = mu_id_bytes(&op->id);
    bool stopped = outcome == MU_OUT_CANCELLED;
    struct mu_session_end end = {.id = op->id};
    int r = MU_TX_RUN(tx, &q_complete, take_ended, &end, MU_VT(id), MU_VI(op->epoch), MU_VI(state),
                      MU_VI(stopped ? MU_END_STOPPED : MU_END_INTERRUPTED), MU_VNULL,
                      MU_VI(op->now_ms), MU_VIOPT(mu_sessions_purge_ms(op->sessions, op->now_ms)),
                      MU_VI(outcome), MU_VI(0), MU_VI(0));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    static const struct mu_stmt q_lost_result = {
        "lost_result", "tttti",
        "INSERT INTO session_results (session_id, error_code, error_message, message_head, "
        "updated_ms) VALUES ($1, $2, $3, $4, $5) "
        "ON CONFLICT (session_id) DO UPDATE SET error_code = excluded.error_code, error_message = "
        "excluded.error_message, "
        "message_head = excluded.message_head, updated_ms = excluded.updated_ms",
        NULL};
    mu_bytes text = stopped ? MU_B("Cancelled")
                            : MU_B("The server was interrupted while this ran, too many times");
    r = MU_TX_SEND(tx, &q_lost_result, 1, MU_VT(id),
                   MU_VT(stopped ? MU_B("cancelled") : MU_B("interrupted")), MU_VT(text),
                   MU_VT(text), MU_VI(op->now_ms));
    char data[64];
    snprintf(data, sizeof data, "{\"to\":%d,\"outcome\":%d}", end.got_state, end.got_outcome);
    if (r >= 0) {
        r = mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B(""), mu_str(data));
    }
    return r < 0 ? r : mu_tx_event(tx, MU_EV_ENDED, op->now_ms, MU_B(""), mu_str(data));
}

static int run_recover(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_recover *op = MU_CONTAINER(u, struct mu_session_recover, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    bool requeue = op->state == MU_ST_RUNNING && op->tries + 1 < op->max_tries;
    op->requeued = false;
    int r = mu_tx_stream(tx, id, requeue ? 1 : 2);
    if (r >= 0) {
        r = MU_TX_SEND(tx, &mu_q_attempt_end, -1, MU_VT(id), MU_VI(op->epoch), MU_VI(MU_ATT_LOST),
                       MU_VNULL, MU_VI(op->now_ms));
    }
    if (r < 0) {
        return r;
    }
    if (!requeue) {
        bool stopping = op->state == 80;
        return recover_end(op, tx, stopping ? MU_ST_COMPLETED : MU_ST_FAILED,
                           stopping ? MU_OUT_CANCELLED : MU_OUT_FAILED);
    }
    int64_t epoch = 0;
    r = MU_TX_RUN(tx, &q_requeue_run, mu_row_take_i64, &epoch, MU_VT(id), MU_VI(op->epoch),
                  MU_VI(op->now_ms), MU_VI(op->now_ms + op->sessions->opts.pending_max_ms));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    op->requeued = true;
    r = MU_TX_SEND(tx, &mu_q_chunks_drop, -1, MU_VT(id));
    if (r >= 0) {
        r = mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B(""),
                        MU_B("{\"from\":60,\"to\":20,\"message\":\"The server was restarted\"}"));
    }
    return r < 0 ? r : (int)epoch;
}

static void recover_done(struct mu_unit *u, int result)
{
    struct mu_session_recover *op = MU_CONTAINER(u, struct mu_session_recover, unit);
    if (result >= 0 && op->requeued) {
        op->epoch = result;
        op->tries++;
    } else if (result >= 0) {
        mu_sessions_note_end(op->sessions, mu_str(op->org_id),
                             op->state == 80 ? MU_OUT_CANCELLED : MU_OUT_FAILED);
    }
    op->done(op, result < 0 ? result : 0);
}

int mu_session_recover(struct mu_sessions *s, struct mu_session_recover *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->id, run_recover, recover_done);
}
