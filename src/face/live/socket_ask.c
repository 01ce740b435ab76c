/* What the client wants done: keys, sizes, decisions, acknowledgements. */
#include <errno.h>
#include <stdio.h>

#include "face/live/socket_int.h"
#include "face/sessions/show.h"

enum { REASON_BYTES = 4 * MU_GATE_TEXT_MAX };

/* --- orders to the runner --- */

struct ask {
    struct mu_live_call call;
    struct mu_sock *s;
    struct mu_actor by;
    char org[MU_ORG_LEN + 1];
    char reply_to[MU_SOCK_MESSAGE_ID + 1];
    char uid[MU_UID_LEN + 1];
    size_t len;
    char data[];
};

/* MU_E_UNAVAILABLE is the runner here, not the database. */
static void not_done(struct mu_sock *s, mu_bytes reply_to, int code)
{
    if (code == MU_E_UNAVAILABLE) {
        mu_sock_error(s, reply_to, "RUNNER_UNREACHABLE",
                      "The session's runner is not reachable just now");
    } else {
        mu_sock_fail(s, reply_to, code);
    }
}

void mu_sock_control(struct mu_sock *s, const struct mu_id *session, mu_bytes uid,
                     mu_bytes reply_to)
{
    struct mu_sock_out o;
    struct mu_json_w *w = mu_sock_event(&o, "control");
    mu_sess_prefixed(w, "sessionId", "ses_", mu_id_bytes(session));
    if (uid.len) {
        mu_jw_kstr(w, "userId", uid);
    } else {
        mu_jw_knull(w, "userId");
    }
    mu_sock_event_end(s, &o, reply_to);
}

static void barred(struct mu_sock *s, mu_bytes reply_to, const char *held_by)
{
    struct mu_buf b;
    char text[64 + MU_UID_LEN];
    mu_buf_init(&b, 1024);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "userId", held_by);
    mu_jw_obj_end(&w);
    snprintf(text, sizeof text, "The session is under the exclusive control of %s", held_by);
    mu_sock_error_details(s, reply_to, "FORBIDDEN", b.failed ? MU_B_NONE : mu_buf_bytes(&b), text);
    mu_buf_fini(&b);
}

/* Done: what follows for the connection, which may have changed its mind meanwhile. */
static void answered(const struct ask *a, mu_bytes reply_to)
{
    const struct mu_live_call *c = &a->call;
    struct mu_sock *s = a->s;
    struct mu_sub *sub = mu_sock_find(s, &c->session);
    if (c->want == MU_LIVE_TAKE && !sub) {
        mu_sock_let_go(s, &c->session);
    } else if (c->want == MU_LIVE_TAKE) {
        sub->controls = true;
    }
    bool says = c->want == MU_LIVE_TAKE     ? sub != NULL
                : c->want == MU_LIVE_HOLDER ? sub && c->held_by[0]
                                            : c->want == MU_LIVE_LET_GO && reply_to.ptr;
    if (says && s->ws) {
        mu_sock_control(s, &c->session, mu_str(c->held_by), reply_to);
    }
}

static void asked(struct mu_live_call *call, int result)
{
    struct ask *a = call->ctx;
    struct mu_sock *s = a->s;
    mu_bytes reply_to = a->reply_to[0] ? mu_str(a->reply_to) : MU_B_NONE;
    mu_buf_fini(&call->answer);
    s->asks--;
    s->ask_bytes -= a->len;
    if (result >= 0) {
        answered(a, reply_to);
    } else if (s->ws && call->want != MU_LIVE_HOLDER) {
        if (result == MU_E_FORBIDDEN && call->held_by[0]) {
            barred(s, reply_to, call->held_by);
        } else {
            not_done(s, reply_to, result);
        }
    }
    mu_free(a);
    mu_sock_unref(s);
}

/* The session whose terminal is meant; answered when false. */
static bool may_type(struct mu_sock_msg *m, struct mu_id *ret, int64_t *ret_terminal)
{
    struct mu_sock *s = m->s;
    if (!mu_sock_session(m, ret) ||
        !mu_sock_number(m, "terminal", 0, MU_SOCK_TERMINALS - 1, 0, ret_terminal)) {
        return false;
    }
    if (!mu_sock_find(s, ret)) {
        mu_sock_error(s, m->id, "NOT_SUBSCRIBED", "Subscribe to the session first");
        return false;
    }
    if (!mu_sock_operates(s)) {
        mu_sock_fail(s, m->id, MU_E_FORBIDDEN);
        return false;
    }
    if (!s->face->opts.live) {
        not_done(s, m->id, MU_E_UNAVAILABLE);
        return false;
    }
    return true;
}

static void ask(struct mu_sock_msg *m, const struct mu_live_call *what)
{
    struct mu_sock *s = m->s;
    size_t len = what->data.len;
    if (s->asks >= MU_SOCK_ASKS || s->ask_bytes + len > MU_SOCK_ASK_BYTES) {
        mu_sock_fail(s, m->id, MU_E_LIMIT);
        return;
    }
    struct ask *a = mu_calloc(1, sizeof *a + len);
    if (!a) {
        mu_sock_fail(s, m->id, -ENOMEM);
        return;
    }
    if (len) {
        memcpy(a->data, what->data.ptr, len);
    }
    snprintf(a->reply_to, sizeof a->reply_to, "%.*s", MU_ARGS(m->id));
    memcpy(a->org, s->who.org_id, sizeof a->org);
    a->by = mu_actor_of(&s->who);
    a->s = s;
    a->len = len;
    a->call = *what;
    a->call.loop = s->loop;
    a->call.admin = s->who.admin;
    a->call.org_id = mu_str(a->org);
    a->call.by = mu_str(a->by.text);
    a->call.conn = s->id;
    memcpy(a->uid, s->who.uid, sizeof a->uid);
    a->call.uid = mu_str(a->uid);
    a->call.data = mu_bytes_of(a->data, len);
    a->call.done = asked;
    a->call.ctx = a;
    s->asks++;
    s->ask_bytes += len;
    mu_sock_ref(s);
    mu_live_ask(s->face->opts.live, &a->call);
}

void mu_sock_input(struct mu_sock_msg *m)
{
    struct mu_live_call what = {.want = MU_LIVE_INPUT};
    int64_t terminal;
    if (may_type(m, &what.session, &terminal) &&
        mu_sock_text(m, "data", MU_SOCK_INPUT, true, &what.data)) {
        what.terminal = (unsigned)terminal;
        ask(m, &what);
    }
}

void mu_sock_resize(struct mu_sock_msg *m)
{
    struct mu_live_call what = {.want = MU_LIVE_RESIZE};
    int64_t terminal, cols, rows;
    if (may_type(m, &what.session, &terminal) &&
        mu_sock_number(m, "cols", 20, 500, MU_SOCK_REQUIRED, &cols) &&
        mu_sock_number(m, "rows", 5, 200, MU_SOCK_REQUIRED, &rows)) {
        what.terminal = (unsigned)terminal;
        what.cols = (int)cols;
        what.rows = (int)rows;
        ask(m, &what);
    }
}

/* --- who alone types --- */

void mu_sock_take_control(struct mu_sock_msg *m)
{
    struct mu_live_call what = {.want = MU_LIVE_TAKE};
    int64_t terminal;
    if (may_type(m, &what.session, &terminal)) {
        ask(m, &what);
    }
}

void mu_sock_release_control(struct mu_sock_msg *m)
{
    struct mu_live_call what = {.want = MU_LIVE_LET_GO};
    if (!mu_sock_session(m, &what.session)) {
        return;
    }
    struct mu_sub *sub = mu_sock_find(m->s, &what.session);
    if (sub) {
        sub->controls = false;
    }
    if (sub && m->s->face->opts.live) {
        ask(m, &what);
    } else {
        mu_sock_control(m->s, &what.session, MU_B_NONE, m->id);
    }
}

/* When it cannot be said, control ends as it does of who rests. */
void mu_sock_let_go(struct mu_sock *s, const struct mu_id *session)
{
    struct mu_sock_msg m = {.s = s, .id = MU_B_NONE};
    const struct mu_live_call what = {.want = MU_LIVE_LET_GO, .session = *session};
    if (s->face->opts.live && s->asks < MU_SOCK_ASKS) {
        ask(&m, &what);
    }
}

void mu_sock_ask_control(struct mu_sub *sub)
{
    struct mu_sock *s = sub->s;
    struct mu_sock_msg m = {.s = s, .id = MU_B_NONE};
    const struct mu_live_call what = {.want = MU_LIVE_HOLDER, .session = sub->id};
    if (s->face->opts.live && s->asks < MU_SOCK_ASKS) {
        ask(&m, &what);
    }
}

/* --- decisions --- */

struct deciding {
    struct mu_gate_resolve op;
    struct mu_session_get get;
    struct mu_fleet_cancel cancel;
    struct mu_sock *s;
    struct mu_actor by;
    char org[MU_ORG_LEN + 1];
    char reply_to[MU_SOCK_MESSAGE_ID + 1];
    struct mu_buf reason, answer;
};

static void tell_known(struct deciding *x, mu_bytes reply_to)
{
    const struct mu_gate_known *k = &x->op.known;
    struct mu_buf b;
    mu_buf_init(&b, 8192);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_key(&w, "approval");
    mu_jw_obj(&w);
    mu_sess_prefixed(&w, "approvalId", "apr_", mu_id_bytes(&x->op.gate));
    mu_jw_kcstr(&w, "status", mu_gate_status_name(k->status));
    mu_jw_kcstr(&w, "decision", k->status == MU_GATE_ALLOWED ? "allow" : "deny");
    mu_jw_kcstr(&w, "resolvedBy", k->by);
    if (k->resolved_ms) {
        mu_jw_ktime(&w, "resolvedAt", k->resolved_ms);
    }
    if (k->reason[0]) {
        mu_jw_kcstr(&w, "reason", k->reason);
    }
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
    mu_sock_error_details(x->s, reply_to, "APPROVAL_ALREADY_RESOLVED",
                          b.failed ? MU_B_NONE : mu_buf_bytes(&b),
                          "The approval has been resolved already");
    mu_buf_fini(&b);
}

static void tell(struct deciding *x, int result)
{
    struct mu_sock *s = x->s;
    mu_bytes reply_to = x->reply_to[0] ? mu_str(x->reply_to) : MU_B_NONE;
    struct mu_sock_out o;
    if (result == MU_E_EXISTS) {
        tell_known(x, reply_to);
    } else if (result == MU_E_NOT_FOUND && !x->op.no_session) {
        mu_sock_error(s, reply_to, "APPROVAL_NOT_FOUND", "The session has no such approval");
    } else if (result == MU_E_INVALID || result == MU_E_TOO_LARGE) {
        mu_sock_error(s, reply_to, "INVALID_MESSAGE", "reason or answer is too long");
    } else if (result < 0) {
        mu_sock_fail(s, reply_to, result);
    } else {
        struct mu_json_w *w = mu_sock_event(&o, "approval_recorded");
        mu_sess_prefixed(w, "sessionId", "ses_", mu_id_bytes(&x->op.session));
        mu_sess_prefixed(w, "approvalId", "apr_", mu_id_bytes(&x->op.gate));
        mu_jw_kcstr(w, "status", mu_gate_status_name(x->op.status));
        mu_sock_event_end(s, &o, reply_to);
    }
}

static void finish(struct deciding *x, int result)
{
    struct mu_sock *s = x->s;
    if (s->ws) {
        tell(x, result);
    }
    s->asks--;
    mu_buf_fini(&x->reason);
    mu_buf_fini(&x->answer);
    mu_free(x);
    mu_sock_unref(s);
}

/* A denial that ends the session: its worker knows. */
static void stop_told(struct mu_fleet_cancel *op)
{
    finish(op->ctx, 0);
}

static void decided(struct mu_gate_resolve *op, int result)
{
    struct deciding *x = op->ctx;
    struct mu_sock *s = x->s;
    if (result >= 0 && s->face->opts.live) {
        mu_live_poke(s->face->opts.live, &op->session);
    }
    if (result >= 0 && op->stopped) {
        x->cancel = (struct mu_fleet_cancel){
            .loop = s->loop, .session = op->session, .done = stop_told, .ctx = x};
        mu_fleet_cancel(s->face->opts.fleet, &x->cancel);
        return;
    }
    finish(x, result);
}

static int read_policy(void *arg, const struct mu_session_view *v)
{
    struct deciding *x = arg;
    bool stops = false;
    int r = mu_sess_deny_stops(v, &stops);
    x->op.stop = !x->op.allow && stops;
    return r;
}

static void policy_read(struct mu_session_get *get, int result)
{
    struct deciding *x = get->ctx;
    if (result == 0) {
        result = mu_gate_resolve(x->s->face->opts.sessions, &x->op);
    }
    if (result < 0) {
        x->op.no_session = true;
        decided(&x->op, result);
    }
}

/* What is in the message; false: answered. */
static bool take_decision(struct mu_sock_msg *m, struct deciding *x)
{
    mu_bytes approval, decision, scope, reason;
    if (!mu_sock_session(m, &x->op.session) ||
        !mu_sock_text(m, "approvalId", MU_SOCK_MESSAGE_ID, true, &approval) ||
        !mu_sock_text(m, "decision", 16, true, &decision) ||
        !mu_sock_text(m, "scope", 16, false, &scope) ||
        !mu_sock_text(m, "reason", REASON_BYTES, false, &reason)) {
        return false;
    }
    x->op.allow = mu_bytes_is(decision, "allow");
    x->op.scope = mu_bytes_is(scope, "session");
    if ((!x->op.allow && !mu_bytes_is(decision, "deny")) ||
        (scope.ptr && !x->op.scope && !mu_bytes_is(scope, "once"))) {
        mu_sock_error(m->s, m->id, "INVALID_MESSAGE",
                      "decision is allow or deny, scope once or session");
        return false;
    }
    if (mu_id_parse(approval, "apr_", &x->op.gate) < 0) {
        x->op.gate = mu_id_floor(0); /* of none: the session decides what is answered */
    }
    mu_buf_add(&x->reason, reason);
    yyjson_val *answer = mu_json_get(m->root, "answer");
    if (answer) {
        mu_json_add(&x->answer, answer);
    }
    x->op.reason = reason.len ? mu_buf_bytes(&x->reason) : MU_B_NONE;
    x->op.answer = answer ? mu_buf_bytes(&x->answer) : MU_B_NONE;
    return true;
}

static void begin_deciding(struct mu_sock_msg *m, struct deciding *x)
{
    struct mu_sock *s = m->s;
    x->s = s;
    x->by = mu_actor_of(&s->who);
    memcpy(x->org, s->who.org_id, sizeof x->org);
    snprintf(x->reply_to, sizeof x->reply_to, "%.*s", MU_ARGS(m->id));
    x->op.unit.loop = s->loop;
    x->op.admin = s->who.admin;
    x->op.org_id = mu_str(x->org);
    x->op.by = mu_str(x->by.text);
    x->op.now_ms = mu_env_wall_ms(s->face->opts.env);
    x->op.done = decided;
    x->op.ctx = x;
    x->get = (struct mu_session_get){.read = {.loop = s->loop},
                                     .admin = s->who.admin,
                                     .org_id = mu_str(x->org),
                                     .id = x->op.session,
                                     .each = read_policy,
                                     .arg = x,
                                     .done = policy_read,
                                     .ctx = x};
    s->asks++;
    mu_sock_ref(s);
    int r = x->reason.failed   ? x->reason.failed
            : x->answer.failed ? x->answer.failed
                               : mu_session_get(s->face->opts.sessions, &x->get);
    if (r < 0) {
        policy_read(&x->get, r);
    }
}

void mu_sock_resolve_approval(struct mu_sock_msg *m)
{
    struct mu_sock *s = m->s;
    if (!mu_sock_operates(s)) {
        mu_sock_fail(s, m->id, MU_E_FORBIDDEN);
        return;
    }
    struct deciding *x = s->asks < MU_SOCK_ASKS ? mu_calloc(1, sizeof *x) : NULL;
    if (!x) {
        mu_sock_fail(s, m->id, s->asks < MU_SOCK_ASKS ? -ENOMEM : MU_E_LIMIT);
        return;
    }
    mu_buf_init(&x->reason, REASON_BYTES + 1);
    mu_buf_init(&x->answer, MU_GATE_MORE_MAX); /* so many of them wait at once */
    if (take_decision(m, x)) {
        begin_deciding(m, x);
        return;
    }
    mu_buf_fini(&x->reason);
    mu_buf_fini(&x->answer);
    mu_free(x);
}

/* --- flow control --- */

void mu_sock_ack(struct mu_sock_msg *m)
{
    struct mu_id id;
    int64_t terminal, offset;
    if (!mu_sock_session(m, &id) ||
        !mu_sock_number(m, "terminal", 0, MU_SOCK_TERMINALS - 1, 0, &terminal) ||
        !mu_sock_number(m, "terminalOffset", 0, INT64_MAX / 2, MU_SOCK_REQUIRED, &offset)) {
        return;
    }
    struct mu_sub *sub = mu_sock_find(m->s, &id);
    if (!sub || !sub->terms[terminal]) {
        mu_sock_error(m->s, m->id, "NOT_SUBSCRIBED", "Subscribe to the terminal first");
        return;
    }
    mu_chunk_stream_ack(&sub->terms[terminal]->stream, offset);
    mu_sock_flush(m->s, true);
}
