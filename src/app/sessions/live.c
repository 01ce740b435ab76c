/* The clocks of a live session, pause and resume. Its own clock runs while it prepares and runs; it
 * stands still while people are asked (64) and while they paused it (70). */
#include <errno.h>
#include <stdio.h>

#include "app/sessions/live_int.h"

enum { CAP_MS = 24 * 3600 * 1000 };

static const struct mu_stmt q_read = {
    "live_read", "t",
    "SELECT s.org_id, s.state, s.route, s.mode, s.epoch, CASE WHEN s.restore_id IS NULL THEN "
    "s.created_ms ELSE coalesce((SELECT a.offered_ms FROM attempts a WHERE a.session_id = s.id AND "
    "a.epoch = s.epoch), s.created_ms) END, s.deadline_ms, s.limit_ms, s.run_deadline_ms, "
    "s.wait_ms, s.paused_ms, t.last_seq FROM sessions s JOIN streams t ON t.id = s.id WHERE s.id = "
    "$1",
    NULL};
static const struct mu_stmt q_move = {
    "live_move", "tiiiiiiii",
    "UPDATE sessions SET state = $4, paused_ms = $5, wait_ms = $6, run_deadline_ms = $7, "
    "deadline_ms = $8, updated_ms = $9, rev = rev + 1 WHERE id = $1 AND epoch = $2 AND state = $3",
    NULL};
/* A gate that opened meanwhile has stood still only since then. */
const struct mu_stmt mu_q_gates_shift = {
    "gates_shift", "tii",
    "UPDATE gates SET expires_ms = expires_ms + ($2 - CASE WHEN created_ms > $3 THEN created_ms "
    "ELSE CAST($3 AS BIGINT) END) WHERE session_id = $1 AND status = 0 AND expires_ms IS NOT NULL",
    NULL};
static const struct mu_stmt q_state = {
    "live_state", "t",
    "SELECT s.epoch, a.runner_seq, s.run_deadline_ms, s.deadline_ms, s.paused_ms, s.state, s.mode, "
    "s.view, s.conversation, p.spec, s.org_id FROM sessions s JOIN session_specs p ON p.session_id "
    "= s.id "
    "LEFT JOIN attempts a ON a.session_id = s.id AND a.epoch = s.epoch WHERE s.id = $1",
    NULL};
static const struct mu_stmt q_turn = {
    "live_turn", "t",
    "SELECT id, state FROM turns WHERE session_id = $1 AND ended_ms IS NULL AND state > 10 ORDER "
    "BY pos LIMIT 1",
    NULL};

/* --- the row --- */

static int take_live(void *arg, struct mu_row *row)
{
    struct mu_clocks *l = arg;
    snprintf(l->org, sizeof l->org, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    l->state = (int)mu_row_i64(row, 1);
    l->route = (int)mu_row_i64(row, 2);
    l->mode = (int)mu_row_i64(row, 3);
    int64_t *const rest[] = {&l->epoch,           &l->since_ms, &l->deadline_ms, &l->limit_ms,
                             &l->run_deadline_ms, &l->wait_ms,  &l->paused_ms,   &l->last_seq};
    for (int i = 0; i < (int)MU_ARRAY_LEN(rest); i++) {
        *rest[i] = mu_row_i64(row, 4 + i);
    }
    return 0;
}

int mu_clocks_read(struct mu_tx *tx, mu_bytes id, struct mu_clocks *ret)
{
    int r = MU_TX_RUN(tx, &q_read, take_live, ret, MU_VT(id));
    return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : 0;
}

int mu_clocks_of(struct mu_tx *tx, mu_bytes id, bool admin, mu_bytes org_id, struct mu_clocks *ret)
{
    int r = mu_tx_stream(tx, id, 0);
    if (r >= 0) {
        r = mu_clocks_read(tx, id, ret);
    }
    return r < 0 ? r : !admin && !mu_bytes_is(org_id, ret->org) ? MU_E_NOT_FOUND : 0;
}

int mu_clocks_move(struct mu_tx *tx, mu_bytes id, struct mu_clocks *l, int to, int64_t now_ms,
                   int64_t hold_until_ms)
{
    int from = l->state;
    if (to == MU_ST_RUNNING) {
        l->run_deadline_ms += l->wait_ms ? now_ms - l->wait_ms : 0;
        l->wait_ms = 0;
    } else if (!l->wait_ms) {
        l->wait_ms = now_ms;
        l->run_deadline_ms = l->run_deadline_ms ? l->run_deadline_ms : l->deadline_ms;
    }
    l->paused_ms = to == MU_ST_PAUSED ? now_ms : 0;
    int64_t until = l->since_ms + CAP_MS;
    if (!l->limit_ms) { /* what its executor allowed holds */
        until = MU_MAX(until, l->run_deadline_ms);
    }
    int64_t other = to == MU_ST_RUNNING ? l->run_deadline_ms : hold_until_ms;
    l->deadline_ms = other ? MU_MIN(until, other) : until;
    l->state = to;
    int r = MU_TX_RUN(tx, &q_move, NULL, NULL, MU_VT(id), MU_VI(l->epoch), MU_VI(from), MU_VI(to),
                      MU_VIOPT(l->paused_ms), MU_VIOPT(l->wait_ms), MU_VIOPT(l->run_deadline_ms),
                      MU_VI(l->deadline_ms), MU_VI(now_ms));
    return r < 0 ? r : r == 0 ? MU_E_STALE : 0;
}

static int move_by(struct mu_tx *tx, mu_bytes id, struct mu_clocks *l, int to, int64_t now_ms,
                   int64_t hold_until_ms, mu_bytes by)
{
    const struct mu_state_change c = {.from = l->state, .to = to, .outcome = -1, .by = by};
    int r = mu_clocks_move(tx, id, l, to, now_ms, hold_until_ms);
    if (r >= 0) {
        r = mu_tx_stream(tx, id, 1);
    }
    return r < 0 ? r : mu_state_event(tx, now_ms, &c);
}

/* --- pause --- */

static int run_pause(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_pause *op = MU_CONTAINER(u, struct mu_session_pause, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    struct mu_clocks l;
    int r = mu_clocks_of(tx, id, op->admin, op->org_id, &l);
    if (r < 0) {
        return r;
    }
    op->from = l.state;
    if (!mu_clocks_runs(&l) || l.state == MU_ST_PAUSED) {
        return MU_E_CONFLICT;
    }
    return move_by(tx, id, &l, MU_ST_PAUSED, op->now_ms, op->hold_until_ms, op->by);
}

static void pause_done(struct mu_unit *u, int result)
{
    struct mu_session_pause *op = MU_CONTAINER(u, struct mu_session_pause, unit);
    op->done(op, result);
}

int mu_session_pause(struct mu_sessions *s, struct mu_session_pause *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->id, run_pause, pause_done);
}

/* --- resume --- */

static int run_resume(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_resume *op = MU_CONTAINER(u, struct mu_session_resume, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    struct mu_clocks l;
    int64_t pending = 0;
    int r = mu_clocks_of(tx, id, op->admin, op->org_id, &l);
    if (r < 0) {
        return r;
    }
    if (l.state != MU_ST_PAUSED) {
        return MU_E_CONFLICT;
    }
    r = mu_gates_pending(tx, id, l.epoch, &pending);
    if (r >= 0) {
        r = MU_TX_SEND(tx, &mu_q_gates_shift, -1, MU_VT(id), MU_VI(op->now_ms), MU_VI(l.paused_ms));
    }
    op->to = pending ? MU_ST_WAITING : MU_ST_RUNNING;
    return r < 0 ? r : move_by(tx, id, &l, op->to, op->now_ms, 0, op->by);
}

static void resume_done(struct mu_unit *u, int result)
{
    struct mu_session_resume *op = MU_CONTAINER(u, struct mu_session_resume, unit);
    op->done(op, result);
}

int mu_session_resume(struct mu_sessions *s, struct mu_session_resume *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->id, run_resume, resume_done);
}

/* --- for a runner's hello --- */

static int take_state(void *arg, struct mu_row *row)
{
    struct mu_live_state *op = arg;
    int64_t *const times[] = {&op->epoch, &op->runner_seq, &op->run_deadline_ms, &op->deadline_ms,
                              &op->paused_ms};
    for (int i = 0; i < (int)MU_ARRAY_LEN(times); i++) {
        *times[i] = mu_row_i64(row, i);
    }
    op->state = (int)mu_row_i64(row, 5);
    op->mode = (int)mu_row_i64(row, 6);
    op->view = (int)mu_row_i64(row, 7);
    mu_bytes conversation = mu_row_bytes(row, 8);
    op->conversation = conversation.ptr ? mu_arena_dup(&op->arena, conversation) : MU_B_NONE;
    op->spec = mu_arena_dup(&op->arena, mu_row_bytes(row, 9));
    snprintf(op->org_id, sizeof op->org_id, "%.*s", MU_ARGS(mu_row_bytes(row, 10)));
    return op->spec.ptr && (!conversation.ptr || op->conversation.ptr) ? 0 : -ENOMEM;
}

static int take_turn(void *arg, struct mu_row *row)
{
    struct mu_live_state *op = arg;
    op->turn_state = (int)mu_row_i64(row, 1);
    return mu_id_parse(mu_row_bytes(row, 0), NULL, &op->turn);
}

static int run_state(struct mu_read *read, struct mu_db *db)
{
    struct mu_live_state *op = MU_CONTAINER(read, struct mu_live_state, read);
    mu_bytes id = mu_id_bytes(&op->id);
    op->turn.text[0] = 0;
    op->turn_state = 0;
    int r = MU_DB_RUN(db, &q_state, take_state, op, MU_VT(id));
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    r = MU_DB_RUN(db, &q_turn, take_turn, op, MU_VT(id));
    return r < 0 ? r : 0;
}

static void state_done(struct mu_read *read, int result)
{
    struct mu_live_state *op = MU_CONTAINER(read, struct mu_live_state, read);
    op->done(op, result);
}

int mu_live_state_read(struct mu_sessions *s, struct mu_live_state *op)
{
    op->sessions = s;
    op->read.run = run_state;
    op->read.done = state_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

const struct mu_planned mu_live_planned[] = {
    {&q_read, ""},
    {&mu_q_gates_shift, "gates_pending"},
    {&q_turn, "turns_open"},
    {NULL, NULL},
};
