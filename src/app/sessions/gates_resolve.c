/* How gates are decided: by people, by their time, by the end of their session. */
#include <stdio.h>

#include "app/sessions/hibernate_int.h"
#include "base/encode.h"

enum { SAME_AGAIN_MS = 60000 };

static const struct mu_stmt q_resolve = {
    "gate_resolve", "ttittiit",
    "UPDATE gates SET status = $3, resolved_by = $4, reason = $5, resolved_ms = $6, scope = $7, "
    "answer = $8, delivered_ms = CASE WHEN epoch < 0 THEN CAST($6 AS BIGINT) ELSE delivered_ms END "
    "WHERE id = $1 AND session_id = $2 AND status = 0",
    NULL};
static const struct mu_stmt q_vote = {
    "gate_vote", "tti",
    "INSERT INTO gate_votes (gate_id, user_id, decision, at_ms) VALUES ($1, $2, 1, $3) ON CONFLICT "
    "(gate_id, user_id) DO NOTHING",
    NULL};
static const struct mu_stmt q_votes = {
    "gate_votes", "t", "SELECT count(*) FROM gate_votes WHERE gate_id = $1 AND decision = 1", NULL};
static const struct mu_stmt q_close = {
    "gates_close", "ti",
    "UPDATE gates SET status = 4, resolved_ms = $2, resolved_by = 'system', delivered_ms = $2 "
    "WHERE session_id = $1 AND status = 0 RETURNING id, kind",
    NULL};
static const struct mu_stmt q_close_asked = {
    "gates_close_asked", "tii",
    "UPDATE gates SET status = 4, resolved_ms = $2, resolved_by = 'system', delivered_ms = $2 "
    "WHERE session_id = $1 AND status = 0 AND (epoch < 0 OR epoch >= $3) RETURNING id, kind",
    NULL};
static const struct mu_stmt q_nobody_asked = {
    "gates_nobody_asked", "tii",
    "UPDATE gates SET delivered_ms = $2 WHERE session_id = $1 AND status <> 0 AND delivered_ms IS "
    "NULL AND (epoch < 0 OR epoch >= $3)",
    NULL};
static const struct mu_stmt q_close_turn = {
    "gates_close_turn", "tiit",
    "UPDATE gates SET status = 4, resolved_ms = $2, resolved_by = 'system', delivered_ms = $2 "
    "WHERE session_id = $1 AND status = 0 AND turn_id = $4 AND epoch >= 0 AND epoch < $3 RETURNING "
    "id, kind",
    NULL};
static const struct mu_stmt q_nobody_turn = {
    "gates_nobody_turn", "tiit",
    "UPDATE gates SET delivered_ms = $2 WHERE session_id = $1 AND status <> 0 AND delivered_ms IS "
    "NULL AND turn_id = $4 AND epoch >= 0 AND epoch < $3",
    NULL};
static const struct mu_stmt q_nobody = {
    "gates_nobody", "ti",
    "UPDATE gates SET delivered_ms = $2 WHERE session_id = $1 AND status <> 0 AND delivered_ms IS "
    "NULL",
    NULL};

struct deciding {
    mu_bytes session, gate;
    struct mu_clocks l;
    struct mu_gate_found found;
    struct mu_verdict v;
    bool stop, stopped;
    int64_t purge_ms;
    struct mu_sessions *sessions;
};

/* The session after the decision. */
static int move_on(struct deciding *d, struct mu_tx *tx)
{
    int64_t pending = 0;
    if (d->stop && (mu_clocks_runs(&d->l) || mu_state_sleeps(d->l.state))) {
        const struct mu_stop stop = {.now_ms = d->v.now_ms,
                                     .purge_ms = d->purge_ms,
                                     .reason = MU_END_DENIED,
                                     .by = d->v.by,
                                     .note = d->v.reason};
        int r = mu_session_stop(tx, d->session, &stop, &d->l.state);
        d->stopped = r >= 0;
        return r;
    }
    if (d->l.state != MU_ST_WAITING && d->l.state != MU_ST_WAITING_AWAY) {
        return 0;
    }
    bool away = d->l.state == MU_ST_WAITING_AWAY; /* its attempt ended with that */
    int r = mu_gates_pending(tx, d->session, d->l.epoch - away, &pending);
    if (r < 0 || pending) {
        return r;
    }
    if (away) {
        return mu_wake(tx, d->sessions, d->session, &d->l, d->v.now_ms, d->v.by);
    }
    const struct mu_state_change c = {
        .from = MU_ST_WAITING, .to = MU_ST_RUNNING, .outcome = -1, .by = d->v.by};
    r = mu_clocks_move(tx, d->session, &d->l, MU_ST_RUNNING, d->v.now_ms, 0);
    if (r >= 0) {
        r = mu_tx_stream(tx, d->session, 1);
    }
    return r < 0 ? r : mu_state_event(tx, d->v.now_ms, &c);
}

static int decide(struct deciding *d, struct mu_tx *tx)
{
    const struct mu_verdict *v = &d->v;
    int r = MU_TX_RUN(tx, &q_resolve, NULL, NULL, MU_VT(d->gate), MU_VT(d->session),
                      MU_VI(v->status), MU_VT(v->by), MU_VTOPT(v->reason), MU_VI(v->now_ms),
                      MU_VI(v->scope), MU_VTOPT(v->answer));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    r = mu_tx_stream(tx, d->session, 1);
    if (r >= 0) {
        r = mu_gate_resolved_event(tx, d->gate, v);
    }
    return r < 0 ? r : move_on(d, tx);
}

static bool is_over(const struct deciding *d)
{
    return !mu_clocks_stands(&d->l) && d->found.expires_ms && d->found.expires_ms <= d->v.now_ms;
}

/* --- by people --- */

/* 1: decided by this; 0: a vote; or a code. */
static int vote(struct mu_gate_resolve *op, struct mu_tx *tx, const struct deciding *d)
{
    int64_t n = 0;
    if (!op->allow || d->found.votes < 2) {
        return 1;
    }
    int r = MU_TX_RUN(tx, &q_vote, NULL, NULL, MU_VT(d->gate),
                      MU_VT(op->voter.ptr ? op->voter : op->by), MU_VI(op->now_ms));
    if (r < 0) {
        return r;
    }
    op->repeated = r == 0;
    r = MU_TX_RUN(tx, &q_votes, mu_row_take_i64, &n, MU_VT(d->gate));
    return r < 0 ? r : n >= d->found.votes;
}

/* It is resolved: success for the one who did that just now. */
static int answer_known(struct mu_gate_resolve *op, const struct mu_gate_found *found)
{
    int same = op->allow ? MU_GATE_ALLOWED : MU_GATE_DENIED;
    op->known = found->known;
    op->status = found->known.status;
    op->repeated = !op->link.text[0] && op->status == same &&
                   mu_bytes_is(op->by, found->known.by) &&
                   op->now_ms - found->known.resolved_ms <= SAME_AGAIN_MS;
    return op->repeated ? 0 : MU_E_EXISTS;
}

static int run_resolve(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_gate_resolve *op = MU_CONTAINER(u, struct mu_gate_resolve, unit);
    struct deciding d = {
        .session = mu_id_bytes(&op->session),
        .gate = mu_id_bytes(&op->gate),
        .v = {.status = op->allow ? MU_GATE_ALLOWED : MU_GATE_DENIED,
              .scope = op->scope,
              .reason = op->reason,
              .answer = op->answer,
              .by = op->by,
              .now_ms = op->now_ms},
        .stop = op->stop && !op->allow,
        .purge_ms = mu_sessions_purge_ms(op->sessions, op->now_ms),
        .sessions = op->sessions,
    };
    op->repeated = op->stopped = false;
    int r = mu_clocks_of(tx, d.session, op->admin, op->org_id, &d.l);
    op->no_session = r == MU_E_NOT_FOUND;
    if (r < 0) {
        return r;
    }
    op->state = d.l.state;
    memcpy(op->org, d.l.org, sizeof op->org);
    if (op->own) {
        return MU_E_FORBIDDEN;
    }
    r = mu_gate_find(tx, d.session, d.gate, &d.found);
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    d.v.kind = d.found.kind;
    if (d.found.known.status != MU_GATE_PENDING) {
        return answer_known(op, &d.found);
    }
    if (is_over(&d)) { /* that is stored in a moment */
        op->known = (struct mu_gate_known){MU_GATE_EXPIRED, d.found.expires_ms, "system", ""};
        op->status = MU_GATE_EXPIRED;
        return MU_E_EXISTS;
    }
    r = op->link.text[0] ? mu_link_use(tx, op) : 0;
    if (r < 0) {
        return r;
    }
    r = vote(op, tx, &d);
    op->status = r > 0 ? d.v.status : MU_GATE_PENDING;
    if (r > 0) {
        op->repeated = false;
        r = decide(&d, tx);
    }
    op->stopped = d.stopped;
    op->state = d.l.state;
    return r < 0 ? r : 0;
}

static void note_stopped(struct mu_sessions *s, const char *org, int state)
{
    mu_sessions_note_stop(s, mu_str(org));
    if (state == MU_ST_COMPLETED) {
        mu_sessions_note_end(s, mu_str(org), MU_OUT_CANCELLED);
    }
}

static void resolve_done(struct mu_unit *u, int result)
{
    struct mu_gate_resolve *op = MU_CONTAINER(u, struct mu_gate_resolve, unit);
    if (result >= 0 && op->stopped) {
        note_stopped(op->sessions, op->org, op->state);
    }
    op->done(op, result);
}

int mu_gate_resolve(struct mu_sessions *s, struct mu_gate_resolve *op)
{
    if (op->reason.len > 4 * MU_GATE_TEXT_MAX || mu_utf8_count(op->reason) > MU_GATE_TEXT_MAX ||
        op->answer.len > MU_GATE_MORE_MAX) {
        return MU_E_TOO_LARGE;
    }
    if (op->by.len == 0 || op->by.len > MU_ACTOR_LEN || op->scope < 0 || op->scope > 1) {
        return MU_E_INVALID;
    }
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->session, run_resolve, resolve_done);
}

/* --- by time --- */

static int run_expire(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_gate_expire *op = MU_CONTAINER(u, struct mu_gate_expire, unit);
    struct deciding d = {
        .session = mu_id_bytes(&op->session),
        .gate = mu_id_bytes(&op->gate),
        .v = {.status = MU_GATE_EXPIRED, .by = MU_B("system"), .now_ms = op->now_ms},
        .stop = op->stop,
        .purge_ms = mu_sessions_purge_ms(op->sessions, op->now_ms),
        .sessions = op->sessions,
    };
    op->stopped = false;
    int r = mu_clocks_of(tx, d.session, true, MU_B_NONE, &d.l);
    if (r >= 0) {
        memcpy(op->org, d.l.org, sizeof op->org);
        r = mu_gate_find(tx, d.session, d.gate, &d.found);
        r = r == 0 ? MU_E_NOT_FOUND : r;
    }
    if (r < 0) {
        return r;
    }
    if (d.found.known.status != MU_GATE_PENDING || !is_over(&d)) {
        return MU_E_STALE;
    }
    d.v.kind = d.found.kind;
    r = decide(&d, tx);
    op->stopped = d.stopped;
    op->state = d.l.state;
    return r < 0 ? r : 0;
}

static void expire_done(struct mu_unit *u, int result)
{
    struct mu_gate_expire *op = MU_CONTAINER(u, struct mu_gate_expire, unit);
    if (result >= 0 && op->stopped) {
        note_stopped(op->sessions, op->org, op->state);
    }
    op->done(op, result);
}

int mu_gate_expire(struct mu_sessions *s, struct mu_gate_expire *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->session, run_expire, expire_done);
}

/* --- by who asked --- */

int mu_gate_withdraw(struct mu_tx *tx, struct mu_gate_delivered *op,
                     const struct mu_gate_found *found, const struct mu_clocks *l)
{
    struct deciding d = {
        .session = mu_id_bytes(&op->session),
        .gate = mu_id_bytes(&op->found),
        .l = *l,
        .found = *found,
        .sessions = op->sessions,
        .v = {.status = MU_GATE_CANCELLED,
              .kind = found->kind,
              .by = MU_B("runner"),
              .now_ms = op->now_ms},
    };
    int r = decide(&d, tx);
    op->state = d.l.state;
    return r;
}

/* --- with its session --- */

struct closed {
    struct mu_id ids[MU_GATES_PENDING_MAX];
    int kinds[MU_GATES_PENDING_MAX];
    unsigned n;
};

static int take_closed(void *arg, struct mu_row *row)
{
    struct closed *c = arg;
    if (c->n == MU_ARRAY_LEN(c->ids)) {
        return MU_E_CORRUPT; /* more than may be open */
    }
    c->kinds[c->n] = (int)mu_row_i64(row, 1);
    return mu_id_parse(mu_row_bytes(row, 0), NULL, &c->ids[c->n++]);
}

static int tell_closed(struct mu_tx *tx, mu_bytes session_id, const struct closed *c,
                       int64_t now_ms)
{
    struct mu_verdict v = {.status = MU_GATE_CANCELLED, .by = MU_B("system"), .now_ms = now_ms};
    int r = c->n ? mu_tx_stream(tx, session_id, c->n) : 0;
    for (unsigned i = 0; r >= 0 && i < c->n; i++) {
        v.kind = c->kinds[i];
        r = mu_gate_resolved_event(tx, mu_id_bytes(&c->ids[i]), &v);
    }
    return r;
}

int mu_gates_close(struct mu_tx *tx, mu_bytes session_id, int64_t now_ms)
{
    struct closed c = {.n = 0};
    int r = MU_TX_RUN(tx, &q_close, take_closed, &c, MU_VT(session_id), MU_VI(now_ms));
    if (r >= 0) {
        r = tell_closed(tx, session_id, &c, now_ms);
    }
    return r < 0 ? r : MU_TX_SEND(tx, &q_nobody, -1, MU_VT(session_id), MU_VI(now_ms));
}

int mu_gates_close_asked(struct mu_tx *tx, mu_bytes session_id, int64_t epoch, int64_t now_ms)
{
    struct closed c = {.n = 0};
    int r = MU_TX_RUN(tx, &q_close_asked, take_closed, &c, MU_VT(session_id), MU_VI(now_ms),
                      MU_VI(epoch));
    if (r >= 0) {
        r = tell_closed(tx, session_id, &c, now_ms);
    }
    return r < 0 ? r
                 : MU_TX_SEND(tx, &q_nobody_asked, -1, MU_VT(session_id), MU_VI(now_ms),
                              MU_VI(epoch));
}

int mu_gates_close_turn(struct mu_tx *tx, mu_bytes session_id, mu_bytes turn_id, int64_t epoch,
                        int64_t now_ms)
{
    struct closed c = {.n = 0};
    int r = MU_TX_RUN(tx, &q_close_turn, take_closed, &c, MU_VT(session_id), MU_VI(now_ms),
                      MU_VI(epoch), MU_VT(turn_id));
    if (r >= 0) {
        r = tell_closed(tx, session_id, &c, now_ms);
    }
    return r < 0 ? r
                 : MU_TX_SEND(tx, &q_nobody_turn, -1, MU_VT(session_id), MU_VI(now_ms),
                              MU_VI(epoch), MU_VT(turn_id));
}

const struct mu_planned mu_gates_resolve_planned[] = {
    {&q_close, "gates_pending"},
    {&q_close_asked, "gates_pending"},
    {&q_close_turn, "gates_pending"},
    {&q_nobody_asked, "gates_undelivered"},
    {&q_nobody_turn, "gates_undelivered"},
    {&q_nobody, "gates_undelivered"},
    {&q_votes, ""},
    {NULL, NULL},
};
