/* Approvals (village-control-plane.md 5): the list of a session, the inbox of an org, asking,
 * resolving. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/sessions/sessions_int.h"

enum { CONTEXT_MAX = MU_GATE_CONTEXT_MAX };

#define ACTIONS  "merge deps_add secrets deploy shell network tool"
#define RISKS    "low med high"
#define STATUSES "pending allowed denied expired cancelled"

/* --- lists --- */

struct listing {
    struct mu_call *c;
    struct mu_gate_list op;
    struct mu_json_w w;
    struct mu_sess_paging paging;
    struct mu_id cursor, session;
    char org[129];
    const char *name;
};

static int status_of(mu_bytes word)
{
    for (int i = MU_GATE_PENDING; word.ptr && i <= MU_GATE_CANCELLED; i++) {
        if (mu_bytes_is(word, mu_gate_status_name(i))) {
            return i;
        }
    }
    return -1;
}

static int add_row(void *arg, const struct mu_gate_row *row)
{
    struct listing *l = arg;
    mu_sess_gate(&l->w, row);
    return l->w.buf->failed;
}

static void listed(struct mu_gate_list *op, int result)
{
    struct listing *l = op->ctx;
    struct mu_json_w *w = &l->w;
    if (result < 0) {
        mu_sess_fail(l->c, result);
        return;
    }
    mu_jw_arr_end(w);
    mu_jw_ki64(w, "pageSize", l->paging.size);
    mu_jw_kbool(w, "hasMore", op->more);
    if (op->more) {
        mu_sess_cursor_add(w, "nextCursor", l->c, l->name, mu_str(l->org), op->next);
    }
    mu_jw_obj_end(w);
    mu_call_data_send(l->c, 200, NULL, 0);
}

static void start(struct listing *l)
{
    struct mu_call *c = l->c;
    l->paging = mu_sess_paging_of(c);
    l->op.read.loop = mu_call_loop(c);
    l->op.status = status_of(mu_call_query(c, "status", 0));
    l->op.action = mu_gate_action_parse(mu_call_query(c, "action", 0));
    l->op.risk = mu_gate_risk_parse(mu_call_query(c, "risk", 0));
    l->op.limit = (unsigned)l->paging.size;
    if (l->paging.cursor.ptr) {
        int r = mu_sess_cursor_read(c, l->name, mu_str(l->org), l->paging.cursor, &l->cursor);
        if (r == MU_E_INVALID) {
            mu_call_issue(c, "invalid_format", "cursor", "cursor is not one of this list");
            (void)mu_call_refused(c);
            return;
        }
        if (r < 0) {
            mu_call_fail(c, r);
            return;
        }
        l->op.before = mu_id_bytes(&l->cursor);
    }
    l->w = mu_call_data(c);
    mu_jw_obj(&l->w);
    mu_jw_key(&l->w, "items");
    mu_jw_arr(&l->w);
    l->op.each = add_row;
    l->op.arg = l;
    l->op.done = listed;
    l->op.ctx = l;
    int r = mu_gate_list(mu_sess_oz(c)->sessions, &l->op);
    if (r < 0) {
        mu_sess_fail(c, r);
    }
}

static void list_of_session(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l) {
        return;
    }
    l->c = c;
    l->name = "approvals";
    snprintf(l->org, sizeof l->org, "%s", id.text);
    l->op.admin = p->admin;
    l->op.org_id = mu_str(p->org_id);
    l->op.session = id;
    start(l);
}

static void inbox(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    mu_bytes given = mu_call_query(c, "orgId", 0), org = mu_str(p->org_id);
    if (given.ptr && !mu_sess_org(c, given, &org)) {
        return;
    }
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l) {
        return;
    }
    mu_bytes one = mu_call_query(c, "sessionId", 0);
    if (one.ptr && mu_id_parse(one, "ses_", &l->session) < 0) {
        mu_call_issue(c, "invalid_format", "sessionId", "sessionId is no id of a session");
        (void)mu_call_refused(c);
        return;
    }
    bool all = p->admin && !given.ptr;
    l->c = c;
    l->name = "inbox";
    snprintf(l->org, sizeof l->org, "%.*s", MU_ARGS(all ? MU_B("*") : org));
    l->op.admin = all;
    l->op.org_id = all ? MU_B_NONE : mu_str(l->org);
    l->op.session = l->session;
    start(l);
}

/* --- asking --- */

struct asking {
    struct mu_call *c;
    struct mu_gate_ask op;
    struct mu_actor by;
    struct mu_digest_hex key;
    struct mu_gate_list list;
    struct mu_json_w w;
    bool found;
};

static int find(void *arg, const struct mu_gate_row *row)
{
    struct asking *x = arg;
    x->found = true;
    x->w = mu_call_data(x->c);
    mu_sess_gate(&x->w, row);
    return x->w.buf->failed;
}

/* The object as it is stored; one that could not be found again is told by its id alone. */
static void read_back(struct mu_gate_list *op, int result)
{
    struct asking *x = op->ctx;
    struct mu_call *c = x->c;
    if (result < 0) {
        mu_sess_fail(c, result);
        return;
    }
    if (!x->found) {
        struct mu_json_w w = mu_call_data(c);
        mu_jw_obj(&w);
        mu_sess_prefixed(&w, "approvalId", "apr_", mu_id_bytes(&x->op.id));
        mu_jw_kcstr(&w, "status", mu_gate_status_name(x->op.status));
        mu_jw_obj_end(&w);
    }
    mu_call_data_send(c, x->op.existing ? 200 : 201, NULL, 0);
}

static void asked(struct mu_gate_ask *op, int result)
{
    struct asking *x = op->ctx;
    struct mu_call *c = x->c;
    if (result < 0) {
        mu_sess_fail(c, result);
        return;
    }
    if (mu_sess_face(c)->live) {
        mu_live_poke(mu_sess_face(c)->live, &op->session);
    }
    x->list = (struct mu_gate_list){.read = {.loop = mu_call_loop(c)},
                                    .admin = op->admin,
                                    .org_id = op->org_id,
                                    .session = op->session,
                                    .gate = op->id,
                                    .status = -1,
                                    .limit = 1,
                                    .each = find,
                                    .arg = x,
                                    .done = read_back,
                                    .ctx = x};
    int r = mu_gate_list(mu_sess_oz(c)->sessions, &x->list);
    if (r < 0) {
        mu_sess_fail(c, r);
    }
}

static void check_ask(struct mu_call *c)
{
    yyjson_val *context = mu_json_get(mu_call_body(c), "context");
    struct mu_buf b;
    mu_buf_init(&b, 2 << 20);
    if (context) {
        mu_json_add(&b, context);
    }
    if (b.len > CONTEXT_MAX) {
        mu_call_issue(c, "too_big", "context", "context must be at most %d bytes", CONTEXT_MAX);
    }
    mu_buf_fini(&b);
}

/* action and the subject of it: the same request asks once, and a grant holds for it. */
static int take_request(struct asking *x, yyjson_val *b)
{
    struct mu_call *c = x->c;
    struct mu_gate_ask *op = &x->op;
    struct mu_buf text;
    mu_buf_init(&text, 4 << 20);
    yyjson_val *context = mu_json_get(b, "context");
    if (context) {
        mu_json_add(&text, context);
    } else {
        mu_buf_add_str(&text, "{}");
    }
    op->context = text.failed ? MU_B_NONE : mu_arena_dup(mu_call_arena(c), mu_buf_bytes(&text));
    op->description = mu_json_get_bytes(b, "description");
    mu_buf_printf(&text, "|%.*s|", MU_ARGS(mu_json_get_bytes(b, "action")));
    mu_buf_add(&text, op->description);
    x->key = mu_sha256_hex(mu_buf_bytes(&text));
    op->request_key = mu_str(x->key.text);
    int r = text.failed ? text.failed : op->context.ptr ? 0 : -ENOMEM;
    mu_buf_fini(&text);
    return r;
}

static void ask(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    yyjson_val *b = mu_call_body(c);
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    struct asking *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->by = mu_actor_of(p);
    int64_t now_ms = mu_env_wall_ms(mu_sess_oz(c)->env);
    x->op =
        (struct mu_gate_ask){.unit = {.loop = mu_call_loop(c)},
                             .admin = p->admin,
                             .org_id = mu_str(p->org_id),
                             .session = id,
                             .epoch = -1,
                             .now_ms = now_ms,
                             .kind = MU_GATE_APPROVAL,
                             .action = mu_gate_action_parse(mu_json_get_bytes(b, "action")),
                             .risk = mu_gate_risk_parse(mu_json_get_bytes(b, "risk")),
                             .expires_ms = now_ms + mu_sess_face(c)->approval_timeout_min * 60000,
                             .votes_needed = 1,
                             .by = mu_str(x->by.text),
                             .done = asked,
                             .ctx = x};
    x->op.risk = x->op.risk ? x->op.risk : MU_RISK_MED;
    int r = take_request(x, b);
    if (r == 0) {
        r = mu_gate_ask(mu_sess_oz(c)->sessions, &x->op);
    }
    if (r < 0) {
        mu_sess_fail(c, r);
    }
}

/* --- resolving --- */

struct resolving {
    struct mu_call *c;
    struct mu_gate_resolve op;
    struct mu_actor by;
    struct mu_gate_list list;
    struct mu_buf details, answer;
    struct mu_session_get get;
    struct mu_fleet_cancel cancel;
};

static int find_decision(void *arg, const struct mu_gate_row *row)
{
    struct resolving *x = arg;
    struct mu_json_w w = mu_json_w(&x->details);
    mu_jw_obj(&w);
    mu_jw_key(&w, "approval");
    mu_sess_gate(&w, row);
    mu_jw_obj_end(&w);
    return x->details.failed;
}

static void decision_read(struct mu_gate_list *op, int result)
{
    struct resolving *x = op->ctx;
    struct mu_call *c = x->c;
    struct mu_buf details = x->details;
    mu_buf_fini(&x->answer);
    if (result < 0 || details.failed) {
        mu_call_fail(c, result < 0 ? result : details.failed);
    } else {
        mu_call_error_details(c, 409, "APPROVAL_ALREADY_RESOLVED", mu_buf_bytes(&details),
                              "The approval has been resolved already");
    }
    mu_buf_fini(&details);
}

static void resolved_before(struct resolving *x)
{
    struct mu_call *c = x->c;
    x->list = (struct mu_gate_list){.read = {.loop = mu_call_loop(c)},
                                    .admin = x->op.admin,
                                    .org_id = x->op.org_id,
                                    .session = x->op.session,
                                    .gate = x->op.gate,
                                    .status = -1,
                                    .limit = 1,
                                    .each = find_decision,
                                    .arg = x,
                                    .done = decision_read,
                                    .ctx = x};
    int r = mu_gate_list(mu_sess_oz(c)->sessions, &x->list);
    if (r < 0) {
        decision_read(&x->list, r);
    }
}

/* A denial that ends the session: its worker knows. */
static void stop_told(struct mu_fleet_cancel *op)
{
    struct resolving *x = op->ctx;
    mu_sess_answer_detail(x->c, &x->op.session, 200, NULL, NULL, 0);
}

static void resolved(struct mu_gate_resolve *op, int result)
{
    struct resolving *x = op->ctx;
    struct mu_call *c = x->c;
    if (result == MU_E_EXISTS) {
        resolved_before(x);
        return;
    }
    mu_buf_fini(&x->details);
    mu_buf_fini(&x->answer);
    if (result == MU_E_NOT_FOUND && !op->no_session) {
        mu_call_error(c, 404, "APPROVAL_NOT_FOUND", NULL, "The session has no such approval");
    } else if (result < 0) {
        mu_sess_fail(c, result);
    } else {
        if (mu_sess_face(c)->live) {
            mu_live_poke(mu_sess_face(c)->live, &op->session);
        }
        if (op->stopped) {
            x->cancel = (struct mu_fleet_cancel){
                .loop = mu_call_loop(c), .session = op->session, .done = stop_told, .ctx = x};
            mu_fleet_cancel(mu_sess_oz(c)->fleet, &x->cancel);
            return;
        }
        mu_sess_answer_detail(c, &op->session, 200, NULL, NULL, 0);
    }
}

static void check_resolve(struct mu_call *c)
{
    struct mu_id given, path;
    mu_bytes text = mu_json_get_bytes(mu_call_body(c), "approvalId");
    if (text.ptr && (mu_id_parse(text, "apr_", &given) < 0 ||
                     mu_id_parse(mu_call_param(c, "approvalId"), "apr_", &path) < 0 ||
                     strcmp(given.text, path.text) != 0)) {
        mu_call_issue(c, "invalid_format", "approvalId",
                      "approvalId must be the one that the path names");
    }
}

int mu_sess_deny_stops(const struct mu_session_view *v, bool *ret)
{
    static const struct mu_json_limits limits = {.max_bytes = 4 << 20, .max_depth = 80};
    struct mu_arena a;
    yyjson_val *spec = NULL;
    mu_arena_init(&a, 16 << 20);
    int r = v->spec.len > 2 ? mu_json_read(&a, v->spec, &limits, &spec, NULL) : 0;
    yyjson_val *policy = mu_json_get(mu_json_get(spec, "live"), "policy");
    *ret = mu_bytes_is(mu_json_get_bytes(policy, "onDeny"), "stop");
    mu_arena_fini(&a);
    return r == -ENOMEM ? r : 0;
}

static int read_policy(void *arg, const struct mu_session_view *v)
{
    struct resolving *x = arg;
    bool stops = false;
    int r = mu_sess_deny_stops(v, &stops);
    x->op.stop = !x->op.allow && stops;
    return r;
}

static void policy_read(struct mu_session_get *get, int result)
{
    struct resolving *x = get->ctx;
    if (result == 0) {
        result = mu_gate_resolve(mu_sess_oz(x->c)->sessions, &x->op);
    }
    if (result < 0) {
        x->op.no_session = true;
        resolved(&x->op, result);
    }
}

static void take_decision(struct resolving *x, yyjson_val *b)
{
    yyjson_val *answer = mu_json_get(b, "answer");
    mu_bytes reason = mu_json_get_bytes(b, "reason");
    x->op.allow = mu_bytes_is(mu_json_get_bytes(b, "decision"), "allow");
    x->op.scope = mu_bytes_is(mu_json_get_bytes(b, "scope"), "session");
    x->op.reason = reason.len ? reason : MU_B_NONE;
    mu_buf_init(&x->details, 1 << 20);
    mu_buf_init(&x->answer, 1 << 20);
    if (answer) {
        mu_json_add(&x->answer, answer);
        x->op.answer = mu_buf_bytes(&x->answer);
    }
}

static void resolve(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id, gate;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    if (mu_id_parse(mu_call_param(c, "approvalId"), "apr_", &gate) < 0) {
        gate = mu_id_floor(0); /* of none: the session decides what is answered */
    }
    struct resolving *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->by = mu_actor_of(p);
    x->op = (struct mu_gate_resolve){.unit = {.loop = mu_call_loop(c)},
                                     .admin = p->admin,
                                     .org_id = mu_str(p->org_id),
                                     .own = p->run.text[0] != 0,
                                     .session = id,
                                     .gate = gate,
                                     .by = mu_str(x->by.text),
                                     .now_ms = mu_env_wall_ms(mu_sess_oz(c)->env),
                                     .done = resolved,
                                     .ctx = x};
    take_decision(x, mu_call_body(c));
    x->get = (struct mu_session_get){.read = {.loop = mu_call_loop(c)},
                                     .admin = p->admin,
                                     .org_id = mu_str(p->org_id),
                                     .id = id,
                                     .each = read_policy,
                                     .arg = x,
                                     .done = policy_read,
                                     .ctx = x};
    int r = mu_session_get(mu_sess_oz(c)->sessions, &x->get);
    if (r < 0) {
        policy_read(&x->get, r);
    }
}

/* --- routes --- */

#define STATUS                                                                                     \
    {                                                                                              \
        .name = "status", .type = MU_S_STRING, .words = STATUSES, .doc = "Only these."             \
    }
#define PAGE_SIZE                                                                                  \
    {                                                                                              \
        .name = "pageSize", .type = MU_S_INT, .min = 1, .max = MU_SESS_PAGE_MAX,                   \
        .doc = "Entries of a page, 20."                                                            \
    }
#define CURSOR                                                                                     \
    {                                                                                              \
        .name = "cursor", .type = MU_S_STRING, .min = 1, .max = 512,                               \
        .doc = "nextCursor of the page before."                                                    \
    }
static const struct mu_schema session_query[] = {STATUS, PAGE_SIZE, CURSOR, {0}};
static const struct mu_schema inbox_query[] = {
    {.name = "orgId",
     .type = MU_S_STRING,
     .form = MU_F_ID,
     .doc = "The org; default: the caller's own, for the administrator all."},
    STATUS,
    {.name = "action", .type = MU_S_STRING, .words = ACTIONS, .doc = "Only this action."},
    {.name = "risk", .type = MU_S_STRING, .words = RISKS, .doc = "Only this risk."},
    {.name = "sessionId", .type = MU_S_STRING, .form = MU_F_ID, .doc = "Of one session."},
    PAGE_SIZE,
    CURSOR,
    {0}};
static const struct mu_schema ask_body[] = {
    {.name = "action",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED,
     .words = ACTIONS,
     .doc = "What shall be done."},
    {.name = "description",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED | MU_S_NOT_BLANK | MU_S_NO_NUL,
     .min = 1,
     .max = MU_GATE_TEXT_MAX,
     .doc = "For the one who decides."},
    {.name = "context", .type = MU_S_MAP, .max = 200, .doc = "Details, at most 16 KiB."},
    {.name = "risk", .type = MU_S_STRING, .words = RISKS, .doc = "Default: med."},
    {0}};
static const struct mu_schema resolve_body[] = {
    {.name = "approvalId", .type = MU_S_STRING, .form = MU_F_ID, .doc = "The same as in the path."},
    {.name = "decision",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED,
     .words = "allow deny",
     .doc = "What shall become of it."},
    {.name = "reason",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL,
     .max = MU_GATE_TEXT_MAX,
     .doc = "The agent is told it."},
    {.name = "scope",
     .type = MU_S_STRING,
     .words = "once session",
     .doc = "session: the same request does not ask again in this session."},
    {.name = "answer", .type = MU_S_MAP, .max = 50, .doc = "Answer to a question."},
    {0}};

const struct mu_route mu_sess_approval_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/approvals",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .query = inbox_query,
     .handler = inbox,
     .id = "listApprovals",
     .summary = "The inbox of an org, newest first.",
     .response = "ApprovalList"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/sessions/{sessionId}/approvals",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .query = session_query,
     .handler = list_of_session,
     .id = "listSessionApprovals",
     .summary = "The session's approvals, newest first.",
     .response = "ApprovalList",
     .errors = "SESSION_NOT_FOUND"},
    {.method = MU_HTTP_POST,
     .path = "/api/v1/sessions/{sessionId}/approvals",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .max_body = MU_SESS_BODY,
     .body = ask_body,
     .check = check_ask,
     .handler = ask,
     .id = "requestApproval",
     .summary = "Ask for an approval (trusted integrations).",
     .response = "Approval",
     .success = "201 200",
     .errors = "SESSION_NOT_FOUND INVALID_STATE"},
    {.method = MU_HTTP_POST,
     .path = "/api/v1/sessions/{sessionId}/approvals/{approvalId}",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .max_body = MU_SESS_BODY,
     .body = resolve_body,
     .check = check_resolve,
     .handler = resolve,
     .id = "resolveApproval",
     .summary = "Allow or deny; exactly one decision wins.",
     .response = "SessionDetail",
     .errors = "SESSION_NOT_FOUND APPROVAL_NOT_FOUND APPROVAL_ALREADY_RESOLVED"},
    {.path = NULL}};
