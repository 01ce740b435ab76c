/* Stops that people ask for: accepted at once, over when the executor says so. */
#include <stdio.h>

#include "app/sessions/sessions_int.h"

static const struct mu_stmt q_stop = {
    "stop", "tiiii",
    "UPDATE sessions SET state = CASE WHEN worker_id IS NULL THEN 90 ELSE 80 END, outcome = CASE "
    "WHEN worker_id IS NULL THEN 2 ELSE 0 END, end_reason = $5, stop_ms = $2, deadline_ms = $3, "
    "updated_ms = $2, rev = rev + 1, paused_ms = NULL, wait_ms = NULL, ended_ms = CASE WHEN "
    "worker_id IS NULL THEN CAST($2 AS BIGINT) END, purge_ms = CASE WHEN worker_id IS NULL AND "
    "held = 0 THEN CAST($4 AS BIGINT) END WHERE id = $1 AND state < 80 RETURNING state",
    NULL};
static const struct mu_stmt q_who = {
    "who", "t",
    "SELECT org_id, state, route, CASE WHEN worker_id IS NULL THEN 0 ELSE 1 END, mode FROM "
    "sessions WHERE id = $1",
    NULL};
static const struct mu_stmt q_stopped_result = {
    "stopped_result", "tti",
    "INSERT INTO session_results (session_id, error_code, error_message, message_head, updated_ms) "
    "VALUES ($1, 'cancelled', $2, "
    "$2, $3) ON CONFLICT (session_id) DO UPDATE SET error_code = excluded.error_code, "
    "error_message = excluded.error_message, "
    "message_head = excluded.message_head, updated_ms = excluded.updated_ms",
    NULL};

static int take_who(void *arg, struct mu_row *row)
{
    struct mu_who *w = arg;
    snprintf(w->org, sizeof w->org, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    w->state = (int)mu_row_i64(row, 1);
    w->route = (int)mu_row_i64(row, 2);
    w->attached = mu_row_i64(row, 3) != 0;
    w->mode = (int)mu_row_i64(row, 4);
    return 0;
}

int mu_session_look_up(struct mu_tx *tx, mu_bytes id, bool admin, mu_bytes org_id,
                       struct mu_who *ret)
{
    int r = MU_TX_RUN(tx, &q_who, take_who, ret, MU_VT(id));
    if (r < 0) {
        return r;
    }
    return r == 0 || (!admin && !mu_bytes_is(org_id, ret->org)) ? MU_E_NOT_FOUND : 0;
}

int mu_session_stop(struct mu_tx *tx, mu_bytes id, const struct mu_stop *stop, int *ret_state)
{
    struct mu_open open;
    int64_t state = 0;
    int r = mu_session_open_read(tx, id, &open);
    if (r < 0) {
        return r;
    }
    r = MU_TX_RUN(tx, &q_stop, mu_row_take_i64, &state, MU_VT(id), MU_VI(stop->now_ms),
                  MU_VI(stop->now_ms + MU_STOP_GRACE_MS), MU_VIOPT(stop->purge_ms),
                  MU_VI(stop->reason));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    bool over = state == MU_ST_COMPLETED;
    *ret_state = (int)state;
    r = mu_tx_stream(tx, id, over ? 2 : 1);
    if (r >= 0) {
        r = mu_session_close_open(tx, id, &open, stop->now_ms, false);
    }
    const struct mu_state_change c = {.from = (int)open.state,
                                      .to = (int)state,
                                      .outcome = over ? MU_OUT_CANCELLED : MU_OUT_LIVE,
                                      .reason = mu_end_reason_name((int)stop->reason),
                                      .by = stop->by,
                                      .note = stop->note};
    if (r >= 0) {
        r = mu_state_event(tx, stop->now_ms, &c);
    }
    if (r < 0 || !over) {
        return r;
    }
    r = MU_TX_SEND(tx, &q_stopped_result, -1, MU_VT(id), MU_VT(MU_B("Cancelled")),
                   MU_VI(stop->now_ms));
    return r < 0 ? r : mu_ended_event(tx, stop->now_ms, &c);
}

static int run_cancel(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_cancel *op = MU_CONTAINER(u, struct mu_session_cancel, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    op->changed = false;
    struct mu_who who;
    int r = mu_session_look_up(tx, id, op->admin, op->org_id, &who);
    if (r < 0) {
        return r;
    }
    op->state = who.state;
    op->route = who.route;
    if (who.state >= MU_ST_STOPPING) {
        return 0;
    }
    memcpy(op->org, who.org, sizeof op->org);
    r = mu_tx_stream(tx, id, 0);
    if (r < 0) {
        return r;
    }
    const struct mu_stop stop = {.now_ms = op->now_ms,
                                 .purge_ms = mu_sessions_purge_ms(op->sessions, op->now_ms),
                                 .reason = MU_END_STOPPED,
                                 .by = op->by,
                                 .note = op->reason};
    r = mu_session_stop(tx, id, &stop, &op->state);
    op->changed = r >= 0;
    return r < 0 ? r : 0;
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
