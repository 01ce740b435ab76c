/* Gates: their words, how they open, and that the runner took a decision. */
#include <stdio.h>

#include "app/sessions/live_int.h"
#include "base/encode.h"

static const char *const actions[] = {NULL,     "merge", "deps_add", "secrets",
                                      "deploy", "shell", "network",  "tool"};
static const char *const risks[] = {NULL, "low", "med", "high"};
static const char *const statuses[] = {"pending", "allowed", "denied", "expired", "cancelled"};

static const struct mu_stmt q_find = {
    "gate_find", "tt",
    "SELECT status, kind, epoch, expires_ms, votes_needed, resolved_ms, resolved_by, reason FROM "
    "gates WHERE id = $1 AND session_id = $2",
    NULL};
static const struct mu_stmt q_same = {
    "gate_same", "tt",
    "SELECT id FROM gates WHERE session_id = $1 AND request_key = $2 AND status = 0", NULL};
static const struct mu_stmt q_grant = {
    "gate_grant", "tt",
    "SELECT status FROM gates WHERE session_id = $1 AND request_key = $2 AND scope = 1 AND status "
    "IN (1, 2) ORDER BY resolved_ms DESC, id DESC LIMIT 1",
    NULL};
/* The runner's own id of it, in whichever execution. */
static const struct mu_stmt q_asked = {
    "gate_asked", "tt", "SELECT id FROM gates WHERE session_id = $1 AND asked_id = $2", NULL};
/* What an earlier execution asked for in the same turn, and nobody took: asked for once more. */
static const struct mu_stmt q_carried = {
    "gate_carried", "ttti",
    "SELECT id FROM gates WHERE session_id = $1 AND request_key = $2 AND turn_id = $3 AND epoch >= "
    "0 AND epoch < $4 AND delivered_ms IS NULL AND status IN (0, 1, 2, 3) ORDER BY status, id "
    "LIMIT 1",
    NULL};
static const struct mu_stmt q_carry = {
    "gate_carry", "ttit",
    "UPDATE gates SET epoch = $3, asked_id = $4 WHERE id = $1 AND session_id = $2 AND delivered_ms "
    "IS NULL",
    NULL};
static const struct mu_stmt q_pending = {
    "gates_pending", "ti",
    "SELECT count(*) FROM gates WHERE session_id = $1 AND status = 0 AND (epoch < 0 OR epoch >= "
    "$2)",
    NULL};
static const struct mu_stmt q_new = {
    "gate_new", "ttttiiiiittiiitttti",
    "INSERT INTO gates (id, session_id, org_id, turn_id, epoch, kind, action, risk, status, "
    "request_key, resolved_by, created_ms, expires_ms, resolved_ms, description, reason, options, "
    "context, votes_needed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, "
    "$15, $16, $17, $18, $19)",
    NULL};
static const struct mu_stmt q_runner_seq = {
    "gate_runner_seq", "tii",
    "UPDATE attempts SET runner_seq = $3 WHERE session_id = $1 AND epoch = $2 AND ended_ms IS NULL "
    "AND runner_seq < $3",
    NULL};
static const struct mu_stmt q_taken = {
    "gate_taken", "tti",
    "UPDATE gates SET delivered_ms = coalesce(delivered_ms, $3) WHERE id = $1 AND session_id = $2 "
    "AND status <> 0",
    NULL};

/* --- words --- */

static int word_at(const char *const *words, size_t n, mu_bytes word)
{
    for (size_t i = 1; i < n; i++) {
        if (mu_bytes_is(word, words[i])) {
            return (int)i;
        }
    }
    return 0;
}

int mu_gate_action_parse(mu_bytes word)
{
    return word_at(actions, MU_ARRAY_LEN(actions), word);
}

const char *mu_gate_action_name(int action)
{
    return action > 0 && (size_t)action < MU_ARRAY_LEN(actions) ? actions[action] : NULL;
}

int mu_gate_risk_parse(mu_bytes word)
{
    return word_at(risks, MU_ARRAY_LEN(risks), word);
}

const char *mu_gate_risk_name(int risk)
{
    return risk > 0 && (size_t)risk < MU_ARRAY_LEN(risks) ? risks[risk] : NULL;
}

const char *mu_gate_status_name(int status)
{
    return status >= 0 && (size_t)status < MU_ARRAY_LEN(statuses) ? statuses[status] : NULL;
}

/* --- what is there --- */

static int take_found(void *arg, struct mu_row *row)
{
    struct mu_gate_found *g = arg;
    g->known.status = (int)mu_row_i64(row, 0);
    g->kind = (int)mu_row_i64(row, 1);
    g->epoch = mu_row_i64(row, 2);
    g->expires_ms = mu_row_i64(row, 3);
    g->votes = (int)mu_row_i64(row, 4);
    g->known.resolved_ms = mu_row_i64(row, 5);
    mu_bytes reason = mu_utf8_cut(mu_row_bytes(row, 7), sizeof g->known.reason - 1);
    snprintf(g->known.by, sizeof g->known.by, "%.*s", MU_ARGS(mu_row_bytes(row, 6)));
    snprintf(g->known.reason, sizeof g->known.reason, "%.*s", MU_ARGS(reason));
    return 0;
}

int mu_gate_find(struct mu_tx *tx, mu_bytes session, mu_bytes gate, struct mu_gate_found *ret)
{
    return MU_TX_RUN(tx, &q_find, take_found, ret, MU_VT(gate), MU_VT(session));
}

int mu_gates_pending(struct mu_tx *tx, mu_bytes session, int64_t epoch, int64_t *ret)
{
    int r = MU_TX_RUN(tx, &q_pending, mu_row_take_i64, ret, MU_VT(session), MU_VI(epoch));
    return r < 0 ? r : 0;
}

/* It has been asked by that name already: 1; 0; or a code. */
static int find_own(struct mu_gate_ask *op, struct mu_tx *tx)
{
    struct mu_gate_found found;
    mu_bytes session = mu_id_bytes(&op->session);
    op->id = op->made;
    int r = mu_gate_find(tx, session, mu_id_bytes(&op->id), &found);
    if (r == 0 && op->epoch >= 0) {
        r = MU_TX_RUN(tx, &q_asked, mu_row_take_id, &op->id, MU_VT(session),
                      MU_VT(mu_id_bytes(&op->made)));
        r = r > 0 ? mu_gate_find(tx, session, mu_id_bytes(&op->id), &found) : r;
    }
    op->status = r > 0 ? found.known.status : op->status;
    return r;
}

/* The runner asks again for what it had asked for before its session hibernated: it is the same
 * gate, with whatever was decided meanwhile, and that once. 1, 0 or a code. */
static int carry(struct mu_gate_ask *op, struct mu_tx *tx, struct mu_clocks *l)
{
    mu_bytes session = mu_id_bytes(&op->session);
    struct mu_gate_found found;
    struct mu_id id;
    if (op->epoch < 0 || !op->turn_id.len) {
        return 0;
    }
    int r = MU_TX_RUN(tx, &q_carried, mu_row_take_id, &id, MU_VT(session), MU_VT(op->request_key),
                      MU_VT(op->turn_id), MU_VI(op->epoch));
    if (r <= 0) {
        return r;
    }
    r = mu_gate_find(tx, session, mu_id_bytes(&id), &found);
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_carry, 1, MU_VT(mu_id_bytes(&id)), MU_VT(session), MU_VI(op->epoch),
                       MU_VT(mu_id_bytes(&op->made)));
    }
    op->id = id;
    op->carried = true;
    op->status = found.known.status;
    op->expires_ms = found.expires_ms;
    if (r < 0 || op->status != MU_GATE_PENDING || l->state != MU_ST_RUNNING) {
        return r < 0 ? r : 1;
    }
    r = mu_clocks_move(tx, session, l, MU_ST_WAITING, op->now_ms, op->hold_until_ms);
    if (r >= 0) {
        r = mu_tx_stream(tx, session, 1);
    }
    const struct mu_state_change c = {
        .from = MU_ST_RUNNING, .to = MU_ST_WAITING, .outcome = -1, .by = MU_B("runner")};
    r = r < 0 ? r : mu_state_event(tx, op->now_ms, &c);
    return r < 0 ? r : 1;
}

/* Whether it is decided without asking anybody. */
static int decide(struct mu_gate_ask *op, struct mu_tx *tx)
{
    mu_bytes session = mu_id_bytes(&op->session);
    int64_t n = MU_GATE_PENDING;
    int r = op->kind == MU_GATE_APPROVAL ? MU_TX_RUN(tx, &q_grant, mu_row_take_i64, &n,
                                                     MU_VT(session), MU_VT(op->request_key))
                                         : 0;
    if (r != 0) {
        op->status = (int)n;
        snprintf(op->reason, sizeof op->reason, "session_grant");
        return r < 0 ? r : 0;
    }
    r = mu_gates_pending(tx, session, 0, &n);
    if (r >= 0 && n >= MU_GATES_PENDING_MAX) {
        op->status = MU_GATE_DENIED;
        snprintf(op->reason, sizeof op->reason, "too_many_pending");
    }
    return r;
}

/* --- its events --- */

static void request_json(const struct mu_gate_ask *op, struct mu_buf *b, size_t text, bool context)
{
    struct mu_json_w w = mu_json_w(b);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "gate", op->id.text);
    mu_jw_ki64(&w, "kind", op->kind);
    if (op->action) {
        mu_jw_kcstr(&w, "action", actions[op->action]);
    }
    if (op->risk) {
        mu_jw_kcstr(&w, "risk", risks[op->risk]);
    }
    mu_jw_kcstr(&w, "status", mu_gate_status_name(op->status));
    mu_jw_kstr(&w, "description", mu_utf8_cut(op->description, text));
    if (context && op->context.len) {
        mu_jw_kraw(&w, "context", op->context);
    }
    if (context && op->options.len) {
        mu_jw_kraw(&w, "options", op->options);
    }
    if (op->turn_id.len) {
        mu_jw_kstr(&w, "turn", op->turn_id);
    }
    if (op->expires_ms) {
        mu_jw_ki64(&w, "expires_ms", op->expires_ms);
    }
    mu_jw_obj_end(&w);
}

/* An event is smaller than a gate may be: what does not fit is in the gate's row only. */
static int request_event(const struct mu_gate_ask *op, struct mu_tx *tx, mu_bytes by)
{
    static const struct {
        size_t text;
        bool context;
    } sizes[] = {{SIZE_MAX, true}, {SIZE_MAX, false}, {2000, false}};
    int r = MU_E_TOO_LARGE;
    for (size_t i = 0; r == MU_E_TOO_LARGE && i < MU_ARRAY_LEN(sizes); i++) {
        struct mu_buf b;
        mu_buf_init(&b, MU_FACT_MAX);
        request_json(op, &b, MU_MIN(sizes[i].text, op->description.len), sizes[i].context);
        r = b.failed ? b.failed
                     : mu_tx_event(tx, MU_EV_APPROVAL_REQUESTED, op->now_ms, by, mu_buf_bytes(&b));
        mu_buf_fini(&b);
    }
    return r;
}

int mu_gate_resolved_event(struct mu_tx *tx, mu_bytes gate, const struct mu_verdict *v)
{
    struct mu_buf b;
    mu_buf_init(&b, MU_FACT_MAX);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "gate", gate);
    mu_jw_ki64(&w, "kind", v->kind);
    mu_jw_kcstr(&w, "status", mu_gate_status_name(v->status));
    if (v->status != MU_GATE_CANCELLED) {
        mu_jw_kcstr(&w, "decision", v->status == MU_GATE_ALLOWED ? "allow" : "deny");
    }
    if (v->scope) {
        mu_jw_kcstr(&w, "scope", "session");
    }
    mu_jw_kstr(&w, "by", v->by);
    if (v->reason.len) {
        mu_jw_kstr(&w, "reason", mu_utf8_cut(v->reason, 2000));
    }
    mu_jw_obj_end(&w);
    int r = b.failed ? b.failed
                     : mu_tx_event(tx, MU_EV_APPROVAL_RESOLVED, v->now_ms, v->by, mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return r;
}

/* --- asking --- */

static int insert_gate(struct mu_gate_ask *op, struct mu_tx *tx, const struct mu_clocks *l)
{
    bool done = op->status != MU_GATE_PENDING;
    return MU_TX_SEND(
        tx, &q_new, 1, MU_VT(mu_id_bytes(&op->id)), MU_VT(mu_id_bytes(&op->session)),
        MU_VT(mu_str(l->org)), MU_VTOPT(op->turn_id), MU_VI(op->epoch < 0 ? -1 : op->epoch),
        MU_VI(op->kind), MU_VI(op->action), MU_VI(op->risk), MU_VI(op->status),
        MU_VT(op->request_key), done ? MU_VT(MU_B("system")) : MU_VNULL, MU_VI(op->now_ms),
        MU_VIOPT(op->expires_ms), done ? MU_VI(op->now_ms) : MU_VNULL, MU_VT(op->description),
        done ? MU_VT(mu_str(op->reason)) : MU_VNULL, MU_VTOPT(op->options),
        MU_VT(op->context.ptr ? op->context : MU_B("{}")), MU_VI(op->votes_needed));
}

static int open_gate(struct mu_gate_ask *op, struct mu_tx *tx, struct mu_clocks *l)
{
    mu_bytes session = mu_id_bytes(&op->session), by = op->by.ptr ? op->by : MU_B("runner");
    bool done = op->status != MU_GATE_PENDING, moves = !done && l->state == MU_ST_RUNNING;
    op->id = op->made;
    int r = insert_gate(op, tx, l);
    if (r >= 0 && done && op->epoch < 0) {
        r = MU_TX_SEND(tx, &q_taken, 1, MU_VT(mu_id_bytes(&op->id)), MU_VT(session),
                       MU_VI(op->now_ms));
    }
    if (r >= 0 && moves) {
        r = mu_clocks_move(tx, session, l, MU_ST_WAITING, op->now_ms, op->hold_until_ms);
    }
    if (r >= 0) {
        r = mu_tx_stream(tx, session, done || moves ? 2 : 1);
    }
    if (r >= 0) {
        r = request_event(op, tx, by);
    }
    if (r >= 0 && done) {
        const struct mu_verdict v = {.status = op->status,
                                     .kind = op->kind,
                                     .reason = mu_str(op->reason),
                                     .by = MU_B("system"),
                                     .now_ms = op->now_ms};
        r = mu_gate_resolved_event(tx, mu_id_bytes(&op->id), &v);
    }
    const struct mu_state_change c = {
        .from = MU_ST_RUNNING, .to = MU_ST_WAITING, .outcome = -1, .by = by};
    return r < 0 || !moves ? r : mu_state_event(tx, op->now_ms, &c);
}

static int run_ask(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_gate_ask *op = MU_CONTAINER(u, struct mu_gate_ask, unit);
    mu_bytes session = mu_id_bytes(&op->session);
    bool runner = op->epoch >= 0;
    struct mu_clocks l;
    op->existing = op->carried = false;
    op->status = MU_GATE_PENDING;
    op->reason[0] = 0;
    int r = mu_clocks_of(tx, session, runner || op->admin, op->org_id, &l);
    if (r < 0) {
        return r;
    }
    if ((runner && l.epoch != op->epoch) || !mu_clocks_runs(&l)) {
        return runner ? MU_E_STALE : MU_E_CONFLICT;
    }
    if (runner && op->runner_seq) {
        r = MU_TX_SEND(tx, &q_runner_seq, -1, MU_VT(session), MU_VI(op->epoch),
                       MU_VI(op->runner_seq));
    }
    if (r >= 0) {
        r = find_own(op, tx);
    }
    if (r == 0) {
        r = carry(op, tx, &l);
    }
    if (r == 0) {
        r = MU_TX_RUN(tx, &q_same, mu_row_take_id, &op->id, MU_VT(session), MU_VT(op->request_key));
    }
    if (r != 0) {
        op->existing = r > 0;
        return r < 0 ? r : 0;
    }
    r = decide(op, tx);
    return r < 0 ? r : open_gate(op, tx, &l);
}

static void ask_done(struct mu_unit *u, int result)
{
    struct mu_gate_ask *op = MU_CONTAINER(u, struct mu_gate_ask, unit);
    if (result == MU_E_STALE) {
        mu_sessions_note_stale(op->sessions, result);
    }
    op->done(op, result);
}

int mu_gate_ask(struct mu_sessions *s, struct mu_gate_ask *op)
{
    if (op->description.len > 4 * MU_GATE_TEXT_MAX ||
        mu_utf8_count(op->description) > MU_GATE_TEXT_MAX ||
        op->context.len > MU_GATE_CONTEXT_MAX || op->options.len > MU_GATE_MORE_MAX ||
        op->request_key.len > MU_GATE_KEY_MAX) {
        return MU_E_TOO_LARGE;
    }
    bool known = op->kind == MU_GATE_APPROVAL ? mu_gate_action_name(op->action) != NULL
                                              : op->kind == MU_GATE_QUESTION && op->action == 0;
    if (!known || (op->risk && !mu_gate_risk_name(op->risk)) || op->votes_needed < 0 ||
        op->votes_needed > 2) {
        return MU_E_INVALID;
    }
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    op->votes_needed = op->votes_needed ? op->votes_needed : 1;
    op->made = op->fresh.text[0] ? op->fresh : mu_id_new(s->opts.env, NULL);
    return mu_session_submit(s, &op->unit, &op->session, run_ask, ask_done);
}

/* --- taken --- */

static int run_delivered(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_gate_delivered *op = MU_CONTAINER(u, struct mu_gate_delivered, unit);
    mu_bytes session = mu_id_bytes(&op->session), gate;
    struct mu_gate_found found;
    struct mu_clocks l;
    op->state = 0;
    op->found = op->gate;
    gate = mu_id_bytes(&op->found);
    int r = mu_clocks_of(tx, session, true, MU_B_NONE, &l);
    if (r >= 0 && l.epoch != op->epoch) {
        return MU_E_STALE;
    }
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_asked, mu_row_take_id, &op->found, MU_VT(session),
                      MU_VT(mu_id_bytes(&op->gate)));
    }
    if (r >= 0) {
        r = mu_gate_find(tx, session, gate, &found);
        r = r == 0 ? MU_E_NOT_FOUND : r;
    }
    if (r >= 0 && found.known.status == MU_GATE_PENDING) {
        r = op->unwanted ? mu_gate_withdraw(tx, op, &found, &l) : MU_E_CONFLICT;
    }
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_taken, NULL, NULL, MU_VT(gate), MU_VT(session), MU_VI(op->now_ms));
    }
    return r < 0 ? r : 0;
}

static void delivered_done(struct mu_unit *u, int result)
{
    struct mu_gate_delivered *op = MU_CONTAINER(u, struct mu_gate_delivered, unit);
    op->done(op, result);
}

int mu_gate_delivered(struct mu_sessions *s, struct mu_gate_delivered *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->session, run_delivered, delivered_done);
}

const struct mu_planned mu_gates_planned[] = {
    {&q_find, ""},
    {&q_same, "gates_pending"},
    {&q_grant, "gates_grant"},
    {&q_pending, "gates_pending"},
    {&q_asked, "gates_asked"},
    {&q_carried, "gates_session"},
    {NULL, NULL},
};
