/* How a session ends: reported, recovered; and how it is deleted. Stops are in stop.c, deadlines in
 * sweep.c. */
#include <stdio.h>

#include "app/sessions/checkpoints_int.h"
#include "base/encode.h"
#include "proto/json.h"

static const struct mu_stmt q_complete = {
    "complete", "tiiiiiiiii",
    "UPDATE sessions SET state = CASE WHEN stop_ms IS NOT NULL THEN 90 ELSE CAST($3 AS BIGINT) "
    "END, outcome = CASE WHEN stop_ms "
    "IS NOT NULL THEN 2 ELSE CAST($8 AS BIGINT) END, end_reason = CASE WHEN stop_ms IS NOT NULL "
    "THEN end_reason ELSE CAST($4 AS "
    "BIGINT) END, exit_code = $5, ended_ms = $6, updated_ms = $6, purge_ms = CASE WHEN held = 1 "
    "THEN NULL ELSE CAST($7 AS BIGINT) END, tokens_in = CASE WHEN $9 > tokens_in THEN CAST($9 AS "
    "BIGINT) ELSE tokens_in END, tokens_out = CASE WHEN $10 > tokens_out THEN CAST($10 AS BIGINT) "
    "ELSE tokens_out END, paused_ms = NULL, wait_ms = NULL, rev = rev + 1 "
    "WHERE id = $1 AND epoch = $2 AND state BETWEEN 20 AND 80 RETURNING state, outcome, "
    "stop_ms, end_reason",
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
static const struct mu_stmt q_is_live = {
    "is_live", "t", "SELECT 1 FROM sessions WHERE id = $1 AND ended_ms IS NULL", NULL};
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

enum { HEAD_MAX = 4096, MESSAGE_MAX = 65536 };

/* --- the reported end --- */

/* stop_ms comes as it is: SQLite 3.40 gets a second CASE over it wrong in RETURNING. */
static int take_ended(void *arg, struct mu_row *row)
{
    struct mu_session_end *op = arg;
    op->got_state = (int)mu_row_i64(row, 0);
    op->got_outcome = (int)mu_row_i64(row, 1);
    op->got_stop = mu_row_i64(row, 2) != 0;
    op->got_reason = (int)mu_row_i64(row, 3);
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

static int end_events(struct mu_session_end *op, struct mu_tx *tx, int from)
{
    int r = 0;
    mu_bytes by = op->by_runner ? MU_B("runner") : MU_B("system");
    for (size_t i = 0; r >= 0 && i < op->n_artifacts; i++) {
        r = mu_tx_event(tx, MU_EV_ARTIFACT, op->now_ms, by, op->artifact_rows[i].data);
    }
    const struct mu_state_change c = {.from = from,
                                      .to = op->got_state,
                                      .outcome = op->got_outcome,
                                      .reason = mu_end_reason_name(op->got_reason),
                                      .by = by};
    if (r >= 0) {
        r = mu_state_event(tx, op->now_ms, &c);
    }
    if (r < 0) {
        return r;
    }
    mu_buf_clear(&op->event);
    struct mu_json_w w = mu_json_w(&op->event);
    mu_jw_obj(&w);
    mu_state_change_add(&w, &c);
    if (op->has_exit_code) {
        mu_jw_ki64(&w, "exit_code", op->exit_code);
    }
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
               : mu_tx_event(tx, MU_EV_ENDED, op->now_ms, by, mu_buf_bytes(&op->event));
}

static int run_end(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_end *op = MU_CONTAINER(u, struct mu_session_end, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    struct mu_open open;
    int r = mu_tx_stream(tx, id, 2 + (unsigned)op->n_artifacts);
    if (r >= 0) {
        r = mu_session_open_read(tx, id, &open);
    }
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
    if (r >= 0) {
        r = mu_session_close_open(tx, id, &open, op->now_ms, false);
    }
    return r < 0 ? r : end_events(op, tx, (int)open.state);
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

/* --- delete --- */

int mu_session_delete_parts(struct mu_tx *tx, mu_bytes id)
{
    static const struct mu_stmt parts[] = {
        {"del_votes", "t",
         "DELETE FROM gate_votes WHERE gate_id IN (SELECT id FROM gates WHERE session_id = $1)",
         NULL},
        {"del_links", "t", "DELETE FROM approval_links WHERE session_id = $1", NULL},
        {"del_gates", "t", "DELETE FROM gates WHERE session_id = $1", NULL},
        {"del_turns", "t", "DELETE FROM turns WHERE session_id = $1", NULL},
        {"del_events", "t", "DELETE FROM events WHERE stream_id = $1", NULL},
        {"del_stream", "t", "DELETE FROM streams WHERE id = $1", NULL},
        {"del_artifacts", "t", "DELETE FROM artifacts WHERE session_id = $1", NULL},
        {"del_vars", "t", "DELETE FROM secrets WHERE scope_id = $1 AND scope = 3", NULL},
        {"del_files", "t", "DELETE FROM files WHERE session_id = $1", NULL},
        {"del_chunks", "t", "DELETE FROM output_chunks WHERE session_id = $1", NULL},
        {"del_attempts", "t", "DELETE FROM attempts WHERE session_id = $1", NULL},
        {"del_result", "t", "DELETE FROM session_results WHERE session_id = $1", NULL},
        {"del_spec", "t", "DELETE FROM session_specs WHERE session_id = $1", NULL},
    };
    int r = mu_checkpoints_drop(tx, id);
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
    struct mu_who who;
    int r = mu_session_look_up(tx, id, op->admin, op->org_id, &who);
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

static int recover_end(struct mu_session_recover *op, struct mu_tx *tx, const struct mu_open *open,
                       int state, int outcome)
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
    if (r >= 0) {
        r = mu_session_close_open(tx, id, open, op->now_ms, false);
    }
    const struct mu_state_change c = {.from = (int)open->state,
                                      .to = end.got_state,
                                      .outcome = end.got_outcome,
                                      .reason = mu_end_reason_name(end.got_reason),
                                      .by = MU_B("system")};
    if (r >= 0) {
        r = mu_state_event(tx, op->now_ms, &c);
    }
    return r < 0 ? r : mu_ended_event(tx, op->now_ms, &c);
}

static int run_recover(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_recover *op = MU_CONTAINER(u, struct mu_session_recover, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    bool requeue = op->state == MU_ST_RUNNING && op->tries + 1 < op->max_tries;
    struct mu_open open;
    op->requeued = false;
    int r = mu_tx_stream(tx, id, requeue ? 1 : 2);
    if (r >= 0) {
        r = mu_session_open_read(tx, id, &open);
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &mu_q_attempt_end, -1, MU_VT(id), MU_VI(op->epoch), MU_VI(MU_ATT_LOST),
                       MU_VNULL, MU_VI(op->now_ms));
    }
    if (r < 0) {
        return r;
    }
    if (!requeue) {
        bool stopping = op->state == 80;
        return recover_end(op, tx, &open, stopping ? MU_ST_COMPLETED : MU_ST_FAILED,
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
        r = mu_session_close_open(tx, id, &open, op->now_ms, true);
    }
    if (r >= 0) {
        r = mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B("system"),
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
