/* Approval links: how one is made, and what whoever has it may do without an account
 * (specification README 7.1). Looking never changes anything: messengers fetch links to preview
 * them. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "base/map.h"
#include "face/sessions/link_int.h"
#include "proto/url.h"

enum { FORM_MAX = 32 << 10, LIFE_DEFAULT_S = 86400 };

/* --- making --- */

struct making {
    struct mu_call *c;
    struct mu_actor by;
    struct mu_link_make op;
};

static const char *base_url(struct mu_call *c)
{
    const char *url = mu_sess_oz(c)->public_url;
    return url && url[0] ? url : mu_sess_face(c)->own_url;
}

static void add_decisions(struct mu_json_w *w, int decisions)
{
    mu_jw_key(w, "decisions");
    mu_jw_arr(w);
    if (decisions & MU_LINK_ALLOW) {
        mu_jw_str(w, MU_B("allow"));
    }
    if (decisions & MU_LINK_DENY) {
        mu_jw_str(w, MU_B("deny"));
    }
    mu_jw_arr_end(w);
}

static void made(struct mu_link_make *op, int result)
{
    struct making *x = op->ctx;
    struct mu_call *c = x->c;
    if (result == MU_E_NOT_FOUND && !op->no_session) {
        mu_call_error(c, 404, "APPROVAL_NOT_FOUND", NULL, "The session has no such approval");
    } else if (result == MU_E_EXISTS) {
        mu_call_error(c, 409, "APPROVAL_ALREADY_RESOLVED", NULL,
                      "The approval has been resolved already");
    } else if (result == MU_E_CONFLICT) {
        mu_call_error(c, 409, "INVALID_STATE", NULL,
                      "A question wants an answer: a link only allows or denies");
    } else if (result == MU_E_LIMIT) {
        mu_call_error(c, 409, "INVALID_STATE", NULL, "An approval has at most %d links",
                      MU_LINKS_EACH);
    } else if (result < 0) {
        mu_sess_fail(c, result);
    } else {
        struct mu_json_w w = mu_call_data(c);
        mu_bytes url = mu_arena_printf(mu_call_arena(c), "%s/approve/%s", base_url(c), op->token);
        mu_jw_obj(&w);
        mu_sess_prefixed(&w, "approvalId", "apr_", mu_id_bytes(&op->gate));
        mu_jw_kcstr(&w, "linkId", op->id.text);
        mu_jw_kstr(&w, "url", url);
        mu_jw_kstr(&w, "label", op->label);
        add_decisions(&w, op->decisions);
        mu_jw_ktime(&w, "expiresAt", op->expires_ms);
        mu_jw_obj_end(&w);
        w.buf->failed = w.buf->failed ? w.buf->failed : url.ptr ? 0 : -ENOMEM;
        mu_call_data_send(c, 201, NULL, 0);
    }
    explicit_bzero(op->token, sizeof op->token);
}

static int decisions_of(yyjson_val *list)
{
    size_t i, n;
    yyjson_val *v;
    int all = 0;
    if (!yyjson_is_arr(list)) {
        return MU_LINK_ALLOW | MU_LINK_DENY;
    }
    yyjson_arr_foreach(list, i, n, v)
    {
        all |= mu_bytes_is(mu_json_bytes(v), "allow") ? MU_LINK_ALLOW : MU_LINK_DENY;
    }
    return all;
}

static void check_make(struct mu_call *c)
{
    mu_bytes label = mu_json_get_bytes(mu_call_body(c), "label");
    if (label.ptr && label.len > MU_LINK_LABEL_MAX) {
        mu_call_issue(c, "too_big", "label", "label must be at most %d bytes", MU_LINK_LABEL_MAX);
    } else if (label.len && !mu_worker_name_ok(label)) {
        mu_call_issue(c, "invalid_format", "label", "label must not hold control characters");
    }
}

static void make(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    yyjson_val *b = mu_call_body(c);
    struct mu_id id, gate;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    if (mu_id_parse(mu_call_param(c, "approvalId"), "apr_", &gate) < 0) {
        gate = mu_id_floor(0); /* of none: the session decides what is answered */
    }
    struct making *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    mu_bytes label = mu_json_get_bytes(b, "label");
    x->c = c;
    x->by = mu_actor_of(p);
    x->op = (struct mu_link_make){.unit = {.loop = mu_call_loop(c)},
                                  .vault = mu_sess_face(c)->vault,
                                  .admin = p->admin,
                                  .org_id = mu_str(p->org_id),
                                  .session = id,
                                  .gate = gate,
                                  .decisions = decisions_of(mu_json_get(b, "decisions")),
                                  .label = label.len ? label : MU_B("link"),
                                  .by = mu_str(x->by.text),
                                  .life_ms =
                                      mu_json_get_i64(b, "expiresInSeconds", LIFE_DEFAULT_S) * 1000,
                                  .done = made,
                                  .ctx = x};
    int r = mu_link_make(mu_sess_oz(c)->sessions, &x->op);
    if (r < 0) {
        mu_sess_fail(c, r);
    }
}

/* --- answers --- */

static void answer_view(struct mu_visit *v)
{
    struct mu_json_w w = mu_json_w(mu_call_buf(v->c));
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "status", "pending");
    mu_jw_kcstr(&w, "action", v->action);
    mu_jw_kcstr(&w, "risk", v->risk);
    mu_jw_kstr(&w, "description", v->description);
    mu_jw_kraw(&w, "context", v->context.len ? v->context : MU_B("{}"));
    mu_sess_prefixed(&w, "session_id", "ses_", mu_id_bytes(&v->session));
    mu_jw_kstr(&w, "session_title", v->title);
    mu_jw_kstr(&w, "asked_by", v->by_agent ? mu_sess_provider(v->harness) : MU_B("api"));
    mu_jw_ktime(&w, "asked_at", v->asked_ms);
    mu_jw_ktime(&w, "expires_at", v->expires_ms);
    mu_jw_kstr(&w, "label", v->label);
    add_decisions(&w, v->decisions);
    mu_call_send_object(v->c, &w);
}

static void answer_done(struct mu_visit *v)
{
    struct mu_json_w w = mu_json_w(mu_call_buf(v->c));
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "status", mu_gate_status_name(v->status));
    mu_jw_kcstr(&w, "decision", v->allow ? "allow" : "deny");
    mu_call_send_object(v->c, &w);
}

static void answer(struct mu_visit *v, enum mu_visit_state state)
{
    struct mu_call *c = v->c;
    v->state = state;
    if (v->page) {
        mu_visit_page(v);
        return;
    }
    switch (state) {
    case MU_VISIT_OPEN:
        answer_view(v);
        break;
    case MU_VISIT_DONE:
    case MU_VISIT_VOTED:
        answer_done(v);
        break;
    case MU_VISIT_USED:
        mu_call_error(c, 410, "link_used", NULL, "The link was used already");
        break;
    case MU_VISIT_DECIDED:
        mu_call_error(c, 409, "already_resolved", NULL, "It was %s elsewhere",
                      v->status == MU_GATE_ALLOWED ? "allowed" : "denied");
        break;
    case MU_VISIT_EXPIRED:
        mu_call_error(c, 410, "link_expired", NULL, "The link is too old");
        break;
    case MU_VISIT_CANCELLED:
        mu_call_error(c, 410, "cancelled", NULL, "Nobody waits for this any more");
        break;
    case MU_VISIT_UNKNOWN:
        mu_call_error(c, 404, "not_found", NULL, "There is no such link");
        break;
    case MU_VISIT_REFUSED:
        mu_call_error(c, 403, "forbidden", "decision", "The link is not for that decision");
        break;
    case MU_VISIT_BUSY:
        mu_call_retry(c, 429, "too_many_requests", v->retry_ms, "Too many requests");
        break;
    case MU_VISIT_BAD:
        mu_call_error(c, 400, "invalid_field", NULL, "%s", v->why);
        break;
    case MU_VISIT_FAILED:
        mu_call_retry(c, 503, "unavailable", 1000, "The server is busy");
        break;
    }
}

/* One of our codes, where no state says it. */
static void failed(struct mu_visit *v, int code)
{
    if (code == MU_E_NOT_FOUND) {
        answer(v, MU_VISIT_UNKNOWN);
    } else if (v->page) {
        v->retry_ms = 1000;
        answer(v, MU_VISIT_FAILED);
    } else {
        mu_call_fail(v->c, code);
    }
}

/* --- deciding --- */

static void look(struct mu_visit *v);

static void stop_told(struct mu_fleet_cancel *op)
{
    answer(op->ctx, MU_VISIT_DONE);
}

static void resolved(struct mu_gate_resolve *op, int result)
{
    struct mu_visit *v = op->ctx;
    struct mu_call *c = v->c;
    if ((result == MU_E_EXISTS || result == MU_E_STALE) && !v->again) {
        v->again = true; /* somebody was faster: what is true now? */
        look(v);
        return;
    }
    if (result < 0) {
        failed(v, result == MU_E_EXISTS || result == MU_E_STALE ? MU_E_BUSY : result);
        return;
    }
    v->status = op->status;
    if (mu_sess_face(c)->live) {
        mu_live_poke(mu_sess_face(c)->live, &op->session);
    }
    if (op->stopped) {
        v->cancel = (struct mu_fleet_cancel){
            .loop = mu_call_loop(c), .session = op->session, .done = stop_told, .ctx = v};
        mu_fleet_cancel(mu_sess_oz(c)->fleet, &v->cancel);
        return;
    }
    answer(v, op->status == MU_GATE_PENDING ? MU_VISIT_VOTED : MU_VISIT_DONE);
}

static void decide(struct mu_visit *v)
{
    struct mu_call *c = v->c;
    mu_bytes by = mu_arena_printf(mu_call_arena(c), "link:%.*s", MU_ARGS(v->label));
    if (!by.ptr) {
        failed(v, -ENOMEM);
        return;
    }
    v->op = (struct mu_gate_resolve){.unit = {.loop = mu_call_loop(c)},
                                     .admin = true, /* the link says whose it is */
                                     .session = v->session,
                                     .gate = v->gate,
                                     .allow = v->allow,
                                     .stop = !v->allow && v->stop,
                                     .reason = v->reason.len ? v->reason : MU_B_NONE,
                                     .by = by,
                                     .voter = v->made_by,
                                     .link = v->link,
                                     .done = resolved,
                                     .ctx = v};
    int r = mu_gate_resolve(mu_sess_oz(c)->sessions, &v->op);
    if (r < 0) {
        failed(v, r);
    }
}

/* --- looking --- */

static int take_session(void *arg, const struct mu_session_view *s)
{
    struct mu_visit *v = arg;
    v->title = mu_arena_dup(mu_call_arena(v->c), s->title);
    v->harness = mu_arena_dup(mu_call_arena(v->c), s->harness);
    return v->title.ptr && v->harness.ptr ? mu_sess_deny_stops(s, &v->stop) : -ENOMEM;
}

static void session_read(struct mu_session_get *get, int result)
{
    struct mu_visit *v = get->ctx;
    if (result < 0) {
        failed(v, result);
    } else if (!v->decides) {
        answer(v, MU_VISIT_OPEN);
    } else if (!(v->decisions & (v->allow ? MU_LINK_ALLOW : MU_LINK_DENY))) {
        answer(v, MU_VISIT_REFUSED);
    } else {
        decide(v);
    }
}

static enum mu_visit_state state_of(const struct mu_visit *v)
{
    int64_t now_ms = mu_env_wall_ms(mu_sess_oz(v->c)->env);
    if (v->used_ms) {
        return MU_VISIT_USED;
    }
    switch (v->status) {
    case MU_GATE_PENDING:
        return v->expires_ms <= now_ms ? MU_VISIT_EXPIRED : MU_VISIT_OPEN;
    case MU_GATE_EXPIRED:
        return MU_VISIT_EXPIRED;
    case MU_GATE_CANCELLED:
        return MU_VISIT_CANCELLED;
    default:
        return MU_VISIT_DECIDED;
    }
}

static void looked(struct mu_link_look *op, int result)
{
    struct mu_visit *v = op->ctx;
    if (result < 0) {
        failed(v, result);
        return;
    }
    enum mu_visit_state state = state_of(v);
    mu_call_note(v->c, "link_id", mu_id_bytes(&v->link));
    if (state != MU_VISIT_OPEN || v->again) {
        answer(v, state == MU_VISIT_OPEN ? MU_VISIT_EXPIRED : state);
        return;
    }
    v->get = (struct mu_session_get){.read = {.loop = mu_call_loop(v->c)},
                                     .admin = true,
                                     .id = v->session,
                                     .each = take_session,
                                     .arg = v,
                                     .done = session_read,
                                     .ctx = v};
    int r = mu_session_get(mu_sess_oz(v->c)->sessions, &v->get);
    if (r < 0) {
        failed(v, r);
    }
}

static int take_link(void *arg, const struct mu_link_row *l, const struct mu_gate_row *g)
{
    struct mu_visit *v = arg;
    struct mu_arena *a = mu_call_arena(v->c);
    const char *action = mu_gate_action_name(g->action), *risk = mu_gate_risk_name(g->risk);
    v->label = mu_arena_dup(a, l->label);
    v->made_by = mu_arena_dup(a, l->made_by);
    v->description = mu_arena_dup(a, g->description);
    v->context = mu_arena_dup(a, g->context);
    v->action = action ? action : "tool";
    v->risk = risk ? risk : "med";
    v->decisions = l->decisions;
    v->status = g->status;
    v->by_agent = g->epoch >= 0;
    v->asked_ms = g->created_ms;
    v->expires_ms = l->expires_ms;
    v->used_ms = l->used_ms;
    v->resolved_ms = g->resolved_ms;
    if (mu_id_parse(l->id, NULL, &v->link) < 0 || mu_id_parse(g->id, NULL, &v->gate) < 0 ||
        mu_id_parse(g->session_id, NULL, &v->session) < 0) {
        return MU_E_CORRUPT;
    }
    return v->label.ptr && v->made_by.ptr && v->description.ptr && v->context.ptr ? 0 : -ENOMEM;
}

static void look(struct mu_visit *v)
{
    struct mu_call *c = v->c;
    v->look = (struct mu_link_look){.read = {.loop = mu_call_loop(c)},
                                    .vault = mu_sess_face(c)->vault,
                                    .token = mu_call_param(c, "token"),
                                    .each = take_link,
                                    .arg = v,
                                    .done = looked,
                                    .ctx = v};
    int r = mu_link_look(mu_sess_oz(c)->sessions, &v->look);
    if (r < 0) {
        failed(v, r);
    }
}

/* --- the routes without an account --- */

/* One number of a few says when the budget of an address would be full again; addresses that share
 * one share the budget. */
int mu_link_charge(struct mu_link_rates *rates, mu_bytes peer, int64_t now_us,
                   int64_t *ret_retry_ms)
{
    if (rates->per_minute <= 0) {
        return 0;
    }
    _Atomic int64_t *slot = &rates->at_us[mu_hash(peer) % MU_LINK_RATES];
    int64_t each_us = INT64_C(60000000) / rates->per_minute, at = atomic_load(slot);
    for (;;) {
        int64_t next = MU_MAX(at, now_us) + each_us;
        if (next - now_us > INT64_C(60000000)) {
            *ret_retry_ms = (next - now_us - INT64_C(60000000) + 999) / 1000;
            return MU_E_LIMIT;
        }
        if (atomic_compare_exchange_weak(slot, &at, next)) {
            return 0;
        }
    }
}

/* NULL: it is answered. */
static struct mu_visit *visit(struct mu_call *c, bool page)
{
    struct mu_visit *v = mu_call_new(c, sizeof *v);
    if (!v) {
        return NULL;
    }
    v->c = c;
    v->page = page;
    int64_t now_us = mu_sess_oz(c)->env->mono_ns(mu_sess_oz(c)->env) / 1000;
    if (mu_link_charge(mu_sess_face(c)->link_rates, mu_http_req_peer(mu_call_http(c)), now_us,
                       &v->retry_ms) < 0) {
        answer(v, MU_VISIT_BUSY);
        return NULL;
    }
    return v;
}

static void show_page(struct mu_call *c)
{
    struct mu_visit *v = visit(c, true);
    if (v) {
        look(v);
    }
}

static void show_json(struct mu_call *c)
{
    struct mu_visit *v = visit(c, false);
    if (v) {
        look(v);
    }
}

static void decide_json(struct mu_call *c)
{
    struct mu_visit *v = visit(c, false);
    if (v) {
        v->decides = true;
        v->allow = mu_bytes_is(mu_json_get_bytes(mu_call_body(c), "decision"), "allow");
        v->reason = mu_json_get_bytes(mu_call_body(c), "reason");
        look(v);
    }
}

/* A form's line ends are CR LF. */
static mu_bytes plain_lines(struct mu_arena *a, mu_bytes text)
{
    char *dst = mu_arena_alloc(a, text.len + 1);
    size_t n = 0;
    for (size_t i = 0; dst && i < text.len; i++) {
        bool end = text.ptr[i] == '\r' && i + 1 < text.len && text.ptr[i + 1] == '\n';
        if (!end) {
            dst[n++] = text.ptr[i];
        }
    }
    return dst ? mu_bytes_of(dst, n) : MU_B_NONE;
}

/* MU_E_INVALID: v->why says what is wrong with it; -ENOMEM. */
static int take_form(struct mu_visit *v)
{
    struct mu_arena *a = mu_call_arena(v->c);
    mu_bytes rest = mu_call_raw_body(v->c), key, value, decision = MU_B_NONE;
    int r;
    while ((r = mu_url_query_next(a, &rest, &key, &value)) > 0) {
        if (mu_bytes_is(key, "decision") && !decision.ptr) {
            decision = value;
        } else if (mu_bytes_is(key, "reason") && !v->reason.ptr) {
            v->reason = plain_lines(a, value);
            if (!v->reason.ptr) {
                return -ENOMEM;
            }
        } else {
            v->why = "The form has a field that is not known, or one twice.";
            return MU_E_INVALID;
        }
    }
    v->allow = mu_bytes_is(decision, "allow");
    if (r < 0) {
        v->why = "The form cannot be read.";
    } else if (!v->allow && !mu_bytes_is(decision, "deny")) {
        v->why = "Choose to allow or to deny.";
    } else if (!mu_utf8_valid(v->reason) ||
               memchr(v->reason.len ? v->reason.ptr : "", 0, v->reason.len)) {
        v->why = "The reason is no text.";
    } else if (mu_utf8_count(v->reason) > MU_GATE_TEXT_MAX) {
        v->why = "The reason is too long: at most 2,000 characters.";
    }
    return r < 0 ? r : v->why ? MU_E_INVALID : 0;
}

static void decide_form(struct mu_call *c)
{
    struct mu_visit *v = visit(c, true);
    if (!v) {
        return;
    }
    mu_bytes rest = mu_call_header(c, "Content-Type");
    mu_bytes type = mu_bytes_trim(mu_bytes_split(&rest, ';'));
    int r = MU_E_INVALID;
    if (mu_bytes_eq_nocase(type, MU_B("application/x-www-form-urlencoded"))) {
        r = take_form(v);
    } else {
        v->why = "This page takes its own form only.";
    }
    if (r == MU_E_INVALID) {
        answer(v, MU_VISIT_BAD);
    } else if (r < 0) {
        failed(v, r);
    } else {
        v->decides = true;
        look(v);
    }
}

/* --- tables --- */

static const struct mu_schema decision = {.type = MU_S_STRING, .words = "allow deny"};
static const struct mu_schema make_body[] = {
    {.name = "label",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL | MU_S_NOT_BLANK,
     .min = 1,
     .max = MU_LINK_LABEL_MAX,
     .doc = "Whom it is for: what it decides is resolved by link:<label>."},
    {.name = "decisions",
     .type = MU_S_ARRAY,
     .min = 1,
     .max = 2,
     .items = &decision,
     .doc = "What it may be used for; default: both."},
    {.name = "expiresInSeconds",
     .type = MU_S_INT,
     .min = 1,
     .max = MU_LINK_LIFE_MS / 1000,
     .doc = "Default: a day; never longer than the approval waits."},
    {0}};
static const struct mu_schema use_body[] = {{.name = "decision",
                                             .type = MU_S_STRING,
                                             .flags = MU_S_REQUIRED,
                                             .words = "allow deny",
                                             .doc = "What shall become of it."},
                                            {.name = "reason",
                                             .type = MU_S_STRING,
                                             .flags = MU_S_NO_NUL,
                                             .max = MU_GATE_TEXT_MAX,
                                             .doc = "The agent is told it."},
                                            {0}};

const struct mu_route mu_sess_link_routes[] = {
    {.method = MU_HTTP_POST,
     .path = "/api/v1/sessions/{sessionId}/approvals/{approvalId}/links",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .max_body = MU_SESS_BODY,
     .body = make_body,
     .check = check_make,
     .handler = make,
     .id = "createApprovalLink",
     .summary = "Make a link that decides once, without an account; it is shown once.",
     .response = "ApprovalLink",
     .success = "201",
     .errors = "SESSION_NOT_FOUND APPROVAL_NOT_FOUND APPROVAL_ALREADY_RESOLVED INVALID_STATE"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/approval-links/{token}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_NONE,
     .flags = MU_ROUTE_SECRET,
     .handler = show_json,
     .id = "getApprovalLink",
     .summary = "What a link decides; changes nothing.",
     .response = "ApprovalLinkView",
     .errors = "404 409 410 429 503"},
    {.method = MU_HTTP_POST,
     .path = "/api/v1/approval-links/{token}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_NONE,
     .flags = MU_ROUTE_WRITES | MU_ROUTE_SECRET,
     .max_body = FORM_MAX,
     .body = use_body,
     .handler = decide_json,
     .id = "useApprovalLink",
     .summary = "Allow or deny with a link, once.",
     .response = "ApprovalLinkUsed",
     .errors = "403 404 409 410 429 503"},
    {.method = MU_HTTP_GET,
     .path = "/approve/{token}",
     .face = MU_FACE_ROOT,
     .auth = MU_AUTH_NONE,
     .flags = MU_ROUTE_SECRET,
     .handler = show_page,
     .id = "approvalPage",
     .summary = "The page of a link; changes nothing.",
     .media = "text/html; charset=utf-8",
     .errors = "404 409 410 429 503"},
    {.method = MU_HTTP_POST,
     .path = "/approve/{token}",
     .face = MU_FACE_ROOT,
     .auth = MU_AUTH_NONE,
     .flags = MU_ROUTE_WRITES | MU_ROUTE_SECRET,
     .max_body = FORM_MAX,
     .handler = decide_form,
     .id = "useApprovalPage",
     .summary = "The form of that page.",
     .media = "text/html; charset=utf-8",
     .errors = "400 403 404 409 410 429 503"},
    {.path = NULL}};
