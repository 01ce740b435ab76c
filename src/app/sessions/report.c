/* What a runner reports: its facts become events in its order, each exactly once. */
#include <stdio.h>

#include "app/sessions/live_int.h"

const struct mu_stmt mu_q_runner_seq = {
    "runner_seq", "ti",
    "SELECT runner_seq FROM attempts WHERE session_id = $1 AND epoch = $2 AND ended_ms IS NULL",
    NULL};
const struct mu_stmt mu_q_runner_seq_set = {
    "runner_seq_set", "tii",
    "UPDATE attempts SET runner_seq = $3 WHERE session_id = $1 AND epoch = $2", NULL};
static const struct mu_stmt q_running = {
    "report_running", "tiiii",
    "UPDATE sessions SET state = 60, wait_ms = NULL, running_ms = coalesce(running_ms, $3), "
    "run_deadline_ms = $4, "
    "deadline_ms = $5, updated_ms = $3, rev = rev + 1 WHERE id = $1 AND epoch = $2 AND state "
    "BETWEEN 30 AND 59",
    NULL};
static const struct mu_stmt q_attempt_runs = {
    "report_attempt", "tii",
    "UPDATE attempts SET state = 30, acked_ms = coalesce(acked_ms, $3) WHERE session_id = $1 AND "
    "epoch = $2 AND ended_ms IS NULL",
    NULL};
static const struct mu_stmt q_turn_state = {
    "turn_state", "tt",
    "SELECT state FROM turns WHERE id = $1 AND session_id = $2 AND ended_ms IS NULL AND state > 10",
    NULL};
static const struct mu_stmt q_turn_set = {
    "turn_set", "ttii",
    "UPDATE turns SET state = $3, ended_ms = $4 WHERE id = $1 AND session_id = $2", NULL};
/* What was done is behind it: only what it loses from here on counts. */
static const struct mu_stmt q_no_losses = {
    "no_losses", "t", "UPDATE sessions SET losses = 0 WHERE id = $1 AND losses > 0", NULL};
static const struct mu_stmt q_usage = {
    "usage", "tiiiii",
    "UPDATE sessions SET tokens_in = CASE WHEN $2 > tokens_in THEN CAST($2 AS BIGINT) ELSE "
    "tokens_in END, tokens_out = CASE WHEN $3 > tokens_out THEN CAST($3 AS BIGINT) ELSE tokens_out "
    "END, api_calls = CASE WHEN $4 > api_calls THEN CAST($4 AS BIGINT) ELSE api_calls END, "
    "compute_ms = CASE WHEN $5 > compute_ms THEN CAST($5 AS BIGINT) ELSE compute_ms END, "
    "updated_ms = $6 WHERE id = $1",
    NULL};
const struct mu_stmt mu_q_conversation = {
    "conversation", "tt", "UPDATE sessions SET conversation = $2 WHERE id = $1", NULL};
static const struct mu_stmt q_diff = {
    "diff", "tti",
    "INSERT INTO session_results (session_id, diff, updated_ms) VALUES ($1, $2, $3) ON CONFLICT "
    "(session_id) DO UPDATE SET diff = excluded.diff, updated_ms = excluded.updated_ms",
    NULL};

/* What the unit found and does of what was said. */
struct todo {
    mu_bytes id;
    struct mu_clocks l;
    bool starts, turn_moves, turn_ends;
};

/* 1: store it; 0: it is stored already; or a code. */
static int look(struct mu_session_report *op, struct mu_tx *tx, struct todo *t)
{
    int r = mu_clocks_of(tx, t->id, true, MU_B_NONE, &t->l);
    if (r < 0) {
        return r;
    }
    if (t->l.epoch != op->epoch || t->l.state < MU_ST_CLAIMED || t->l.state > MU_ST_STOPPING) {
        return MU_E_STALE;
    }
    r = MU_TX_RUN(tx, &mu_q_runner_seq, mu_row_take_i64, &op->stored_seq, MU_VT(t->id),
                  MU_VI(op->epoch));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    op->last_event_seq = t->l.last_seq;
    if (op->seq <= op->stored_seq) {
        op->repeated = true;
        return 0;
    }
    if (op->seq_before != op->stored_seq) {
        return MU_E_MISMATCH;
    }
    t->starts = op->running && t->l.state < MU_ST_RUNNING;
    if (!op->turn_state) {
        return 1;
    }
    int64_t state = 0;
    r = MU_TX_RUN(tx, &q_turn_state, mu_row_take_i64, &state, MU_VT(mu_id_bytes(&op->turn)),
                  MU_VT(t->id));
    t->turn_moves = r > 0 && op->turn_state > state;
    t->turn_ends = t->turn_moves && op->turn_state >= MU_TURN_DONE;
    return r < 0 ? r : 1;
}

static int start(struct mu_session_report *op, struct mu_tx *tx, struct todo *t)
{
    struct mu_clocks *l = &t->l;
    const struct mu_state_change c = {
        .from = l->state, .to = MU_ST_RUNNING, .outcome = -1, .by = MU_B("runner")};
    int64_t stood = l->wait_ms ? op->now_ms - l->wait_ms : 0;
    int64_t own = l->run_deadline_ms ? l->run_deadline_ms + stood
                  : l->limit_ms      ? op->now_ms + l->limit_ms
                                     : op->run_deadline_ms;
    /* until its first step is stored, the deadline is still that of the offer */
    int64_t held =
        l->state == MU_ST_CLAIMED ? op->now_ms + op->sessions->opts.run_max_ms : l->deadline_ms;
    int64_t deadline = own ? own : held;
    int r = MU_TX_SEND(tx, &q_running, 1, MU_VT(t->id), MU_VI(op->epoch), MU_VI(op->now_ms),
                       MU_VIOPT(own), MU_VI(deadline));
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_attempt_runs, 1, MU_VT(t->id), MU_VI(op->epoch), MU_VI(op->now_ms));
    }
    if (r >= 0) {
        r = mu_tx_event(tx, MU_EV_SESSION_STARTED, op->now_ms, MU_B("runner"),
                        op->started.ptr ? op->started : MU_B("{}"));
    }
    return r < 0 ? r : mu_state_event(tx, op->now_ms, &c);
}

static int move_turn(struct mu_session_report *op, struct mu_tx *tx, const struct todo *t)
{
    int r = MU_TX_SEND(tx, &q_turn_set, 1, MU_VT(mu_id_bytes(&op->turn)), MU_VT(t->id),
                       MU_VI(op->turn_state), t->turn_ends ? MU_VI(op->now_ms) : MU_VNULL);
    if (r >= 0 && op->turn_state == MU_TURN_DONE) {
        r = MU_TX_SEND(tx, &q_no_losses, -1, MU_VT(t->id));
    }
    if (r < 0 || !t->turn_ends) {
        return r;
    }
    char data[96];
    snprintf(data, sizeof data, "{\"turn\":\"%s\",\"state\":%d}", op->turn.text, op->turn_state);
    return mu_tx_event(tx, MU_EV_TURN_ENDED, op->now_ms, MU_B("runner"),
                       op->turn_end.ptr ? op->turn_end : mu_str(data));
}

static int store_values(struct mu_session_report *op, struct mu_tx *tx, const struct todo *t)
{
    int r = MU_TX_SEND(tx, &mu_q_runner_seq_set, 1, MU_VT(t->id), MU_VI(op->epoch), MU_VI(op->seq));
    if (r >= 0 && op->has_usage) {
        r = MU_TX_SEND(tx, &q_usage, 1, MU_VT(t->id), MU_VI(op->tokens_in), MU_VI(op->tokens_out),
                       MU_VI(op->api_calls), MU_VI(op->compute_ms), MU_VI(op->now_ms));
    }
    if (r >= 0 && op->conversation.ptr) {
        r = MU_TX_SEND(tx, &mu_q_conversation, 1, MU_VT(t->id), MU_VT(op->conversation));
    }
    if (r >= 0 && op->diff.ptr) {
        r = MU_TX_SEND(tx, &q_diff, 1, MU_VT(t->id), MU_VT(op->diff), MU_VI(op->now_ms));
    }
    return r;
}

static int run_report(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_report *op = MU_CONTAINER(u, struct mu_session_report, unit);
    struct todo t = {.id = mu_id_bytes(&op->id)};
    op->repeated = false;
    op->stored_seq = op->last_event_seq = 0;
    int r = look(op, tx, &t);
    if (r <= 0) {
        return r;
    }
    unsigned n = (unsigned)op->n_facts + (t.starts ? 2 : 0) + t.turn_ends;
    r = store_values(op, tx, &t);
    if (r >= 0 && n) {
        r = mu_tx_stream(tx, t.id, n);
    }
    if (r >= 0 && t.starts) {
        r = start(op, tx, &t);
    }
    for (size_t i = 0; r >= 0 && i < op->n_facts; i++) {
        r = mu_tx_event(tx, op->facts[i].type, op->now_ms, MU_B("runner"), op->facts[i].data);
    }
    if (r >= 0 && t.turn_moves) {
        r = move_turn(op, tx, &t);
    }
    if (r >= 0 && t.turn_ends) { /* what it did not ask for again is nobody's */
        r = mu_gates_close_turn(tx, t.id, mu_id_bytes(&op->turn), op->epoch, op->now_ms);
    }
    op->stored_seq = op->seq;
    op->last_event_seq += n;
    return r < 0 ? r : 0;
}

static void report_done(struct mu_unit *u, int result)
{
    struct mu_session_report *op = MU_CONTAINER(u, struct mu_session_report, unit);
    mu_sessions_note_stale(op->sessions, result);
    op->done(op, result);
}

int mu_session_report(struct mu_sessions *s, struct mu_session_report *op)
{
    static const int turn_states[] = {0, MU_TURN_ACCEPTED, MU_TURN_DONE, MU_TURN_FAILED,
                                      MU_TURN_CANCELLED};
    bool known = false;
    size_t bytes = op->diff.len;
    if (op->n_facts > MU_REPORT_FACTS || op->diff.len > MU_DIFF_MAX ||
        op->conversation.len > MU_CONVERSATION_MAX || op->started.len > MU_FACT_MAX ||
        op->turn_end.len > MU_FACT_MAX) {
        return MU_E_TOO_LARGE;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(turn_states); i++) {
        known = known || op->turn_state == turn_states[i];
    }
    for (size_t i = 0; i < op->n_facts; i++) {
        int type = op->facts[i].type;
        if (op->facts[i].data.len > MU_FACT_MAX) {
            return MU_E_TOO_LARGE;
        }
        known = known && type >= MU_EV_FACTS && mu_event_type_name(type);
        bytes += op->facts[i].data.len;
    }
    if (!known || op->seq_before < 0 || op->seq < op->seq_before) {
        return MU_E_INVALID;
    }
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    op->unit.alone = bytes > (1u << 20);
    return mu_session_submit(s, &op->unit, &op->id, run_report, report_done);
}

const struct mu_planned mu_report_planned[] = {
    {&mu_q_runner_seq, ""}, {&mu_q_runner_seq_set, ""}, {&q_turn_state, ""}, {&q_turn_set, ""},
    {NULL, NULL},
};
