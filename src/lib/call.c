/* Operations: a JSON object becomes the request that a client of the server would have sent, and
 * goes its way without a socket. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "lib/cp_int.h"
#include "proto/url.h"

enum { HEAD_MAX = 64 << 10, BODY_MAX = 2 << 20, DEPTH = 64 };

const struct mu_route *const mu_lib_tables[] = {
    mu_sess_routes,          mu_sess_control_routes, mu_sess_event_routes, mu_sess_result_routes,
    mu_sess_approval_routes, mu_sess_turn_routes,    mu_sess_org_routes};
const size_t mu_lib_n_tables = MU_ARRAY_LEN(mu_lib_tables);

/* --- which --- */

/* What streams has no place here: mu_cp_on() is that. */
static bool offered(const struct mu_route *r)
{
    return r->id && !(r->flags & MU_ROUTE_WEBSOCKET) &&
           !(r->media && strcmp(r->media, "text/event-stream") == 0);
}

static const struct mu_route *route_at(size_t i)
{
    for (size_t t = 0; t < mu_lib_n_tables; t++) {
        for (const struct mu_route *r = mu_lib_tables[t]; r->path; r++) {
            if (offered(r) && i-- == 0) {
                return r;
            }
        }
    }
    return NULL;
}

const char *mu_cp_operation(size_t i, const char **summary)
{
    const struct mu_route *r = route_at(i);
    if (r && summary) {
        *summary = r->summary;
    }
    return r ? r->id : NULL;
}

static const struct mu_route *route_named(const char *op)
{
    const struct mu_route *r;
    for (size_t i = 0; (r = route_at(i)) != NULL; i++) {
        if (strcmp(r->id, op) == 0) {
            return r;
        }
    }
    return NULL;
}

/* --- one call --- */

struct cp_call {
    struct mu_list link; /* cp->calls, once it is on the loop */
    struct mu_post post;
    struct cp_item item; /* of mu_cp_submit() */
    struct mu_http_local http;
    struct mu_cp *cp;
    struct mu_principal who;
    struct mu_http_req *req; /* until it was answered */
    struct mu_buf head, body;
    mu_cp_result result;
    bool done, dropped; /* dropped: nobody waits any more */
    bool raw;           /* the answer is bytes */
    mu_cp_done_fn fn;   /* NULL: somebody waits */
    void *user;
};

static void call_free(struct cp_call *call)
{
    mu_buf_wipe(&call->head);
    mu_buf_wipe(&call->body);
    mu_cp_result_free(&call->result);
    mu_free(call);
}

static void drop_call(struct cp_item *it)
{
    call_free(MU_CONTAINER(it, struct cp_call, item));
}

static void run_call(struct mu_cp *cp, struct cp_item *it)
{
    struct cp_call *call = MU_CONTAINER(it, struct cp_call, item);
    pthread_mutex_lock(&cp->lock);
    cp->submitted--;
    pthread_mutex_unlock(&cp->lock);
    call->fn(cp, &call->result, call->user);
    call->result = (mu_cp_result){0}; /* the host's, which frees it */
    call_free(call);
}

/* It has its result; loop thread, or when nothing runs. */
static void settle(struct cp_call *call)
{
    struct mu_cp *cp = call->cp;
    mu_list_remove(&call->link);
    if (call->fn) {
        call->item = (struct cp_item){.run = run_call, .drop = drop_call};
        mu_lib_give(cp, &cp->asked, &call->item);
    } else if (call->dropped) {
        call_free(call);
    } else {
        mu_lib_flag(cp, &call->done);
    }
}

static void answered(struct mu_http_local *l, int status, const struct mu_http_pair *headers,
                     size_t n, mu_bytes body)
{
    struct cp_call *call = l->ctx;
    bool json = true;
    for (size_t i = 0; i < n; i++) {
        json = json && (!mu_bytes_eq_nocase(mu_str(headers[i].name), MU_B("Content-Type")) ||
                        mu_bytes_starts(headers[i].value, MU_B("application/json")));
    }
    call->req = NULL;
    int r = status == 0 ? MU_E_INTERNAL
            : json      ? mu_lib_result_read(&call->result, body)
                        : mu_lib_result_bytes(&call->result, body);
    if (r < 0) {
        mu_lib_result_set(&call->result, r == -ENOMEM ? MU_CP_UNAVAILABLE : MU_CP_INTERNAL_ERROR,
                          r == -ENOMEM ? "Out of memory" : "Internal error");
    }
    call->result.http_status = status;
    settle(call);
}

static void on_loop(struct mu_post *post)
{
    struct cp_call *call = MU_CONTAINER(post, struct cp_call, post);
    struct mu_cp *cp = call->cp;
    mu_list_push(&cp->calls, &call->link);
    call->http = (struct mu_http_local){.loop = cp->loop, .done = answered, .ctx = call};
    int r = mu_http_local_open(&call->http, mu_buf_bytes(&call->head), mu_buf_bytes(&call->body),
                               &call->req);
    if (r < 0) {
        bool memory = r == -ENOMEM;
        mu_lib_result_set(&call->result, memory ? MU_CP_UNAVAILABLE : MU_CP_VALIDATION_ERROR,
                          memory ? "Out of memory" : "A parameter is too long, or no text");
        settle(call);
        return;
    }
    mu_api_local(cp->api, call->req, &call->who);
}

void mu_lib_calls_drop(struct mu_cp *cp)
{
    struct mu_list *l;
    while ((l = mu_list_pop(&cp->calls)) != NULL) {
        struct cp_call *call = MU_CONTAINER(l, struct cp_call, link);
        mu_http_local_drop(call->req);
        call->req = NULL;
        mu_lib_result_set(&call->result, MU_CP_SHUTTING_DOWN, "The control plane is closed");
        settle(call);
    }
}

/* --- the request --- */

static bool has_member(const struct mu_schema *s, mu_bytes key)
{
    for (; s && s->name; s++) {
        if (mu_bytes_is(key, s->name)) {
            return true;
        }
    }
    return false;
}

/* A string as it is, another scalar as its JSON. */
static void add_value(struct mu_buf *b, yyjson_val *v)
{
    if (yyjson_is_str(v)) {
        mu_url_encode(b, mu_json_bytes(v));
        return;
    }
    struct mu_buf text;
    mu_buf_init(&text, HEAD_MAX);
    mu_json_add(&text, v);
    mu_url_encode(b, mu_buf_bytes(&text));
    b->failed = b->failed ? b->failed : text.failed;
    mu_buf_fini(&text);
}

/* The path with its parameters; the name of one that is missing, or none. */
static mu_bytes add_path(struct mu_buf *b, const char *path, yyjson_val *args)
{
    mu_bytes rest = mu_str(path);
    while (rest.len) {
        ptrdiff_t open = mu_bytes_find_char(rest, '{');
        if (open < 0) {
            mu_buf_add(b, rest);
            break;
        }
        mu_buf_add(b, mu_bytes_head(rest, (size_t)open));
        rest = mu_bytes_from(rest, (size_t)open + 1);
        mu_bytes name = mu_bytes_split(&rest, '}');
        yyjson_val *v = yyjson_obj_getn(args, name.ptr, name.len);
        size_t before = b->len;
        if (yyjson_is_str(v) || yyjson_is_int(v)) {
            add_value(b, v);
        }
        if (b->len == before) {
            return name;
        }
    }
    return MU_B_NONE;
}

static bool in_path(const char *path, mu_bytes key)
{
    char name[128];
    int n = snprintf(name, sizeof name, "{%.*s}", MU_ARGS(key));
    return n > 0 && (size_t)n < sizeof name && strstr(path, name) != NULL;
}

static bool is_header(mu_bytes key)
{
    return mu_bytes_is(key, "idempotencyKey") || mu_bytes_is(key, "requestId");
}

static void add_query(struct mu_buf *b, const struct mu_route *r, yyjson_val *args)
{
    size_t i, n;
    yyjson_val *key, *v;
    char sep = '?';
    yyjson_obj_foreach(args, i, n, key, v)
    {
        mu_bytes name = mu_json_bytes(key);
        if (in_path(r->path, name) || is_header(name) || (r->body && !has_member(r->query, name))) {
            continue;
        }
        bool list = yyjson_is_arr(v);
        size_t all = list ? yyjson_arr_size(v) : 1;
        for (size_t at = 0; at < all; at++) {
            mu_buf_add_char(b, sep);
            mu_url_encode(b, name);
            mu_buf_add_char(b, '=');
            add_value(b, list ? yyjson_arr_get(v, at) : v);
            sep = '&';
        }
    }
}

void mu_lib_put_member(struct mu_json_w *w, yyjson_val *key, yyjson_val *v)
{
    if (w->comma) {
        mu_buf_add_char(w->buf, ',');
    }
    mu_json_add(w->buf, key);
    mu_buf_add_char(w->buf, ':');
    mu_json_add(w->buf, v);
    w->comma = true;
}

static void add_body(struct mu_buf *b, const struct mu_route *r, yyjson_val *args)
{
    size_t i, n;
    yyjson_val *key, *v;
    struct mu_json_w w = mu_json_w(b);
    mu_jw_obj(&w);
    yyjson_obj_foreach(args, i, n, key, v)
    {
        mu_bytes name = mu_json_bytes(key);
        bool elsewhere = is_header(name) || has_member(r->query, name) ||
                         (in_path(r->path, name) && !has_member(r->body, name));
        if (!elsewhere) {
            mu_lib_put_member(&w, key, v);
        }
    }
    mu_jw_obj_end(&w);
}

/* A header's value must not end its line; what else it may be the server's code decides. */
static bool add_header(struct mu_buf *b, const char *name, yyjson_val *v)
{
    mu_bytes text = mu_json_bytes(v);
    for (size_t i = 0; i < text.len; i++) {
        if ((unsigned char)text.ptr[i] < 0x20 || text.ptr[i] == 0x7f) {
            return false;
        }
    }
    if (v && !yyjson_is_str(v)) {
        return false;
    }
    if (v) {
        mu_buf_printf(b, "%s: ", name);
        mu_buf_add(b, text);
        mu_buf_add_str(b, "\r\n");
    }
    return true;
}

static int refuse(struct cp_call *call, const char *text, mu_bytes more)
{
    char whole[256];
    snprintf(whole, sizeof whole, "%s%.*s", text, (int)MU_MIN(more.len, (size_t)100),
             more.ptr ? more.ptr : "");
    mu_lib_result_set(&call->result, MU_CP_VALIDATION_ERROR, whole);
    return MU_E_INVALID;
}

static int write_request(struct cp_call *call, const struct mu_route *r, yyjson_val *args)
{
    static const char *const methods[] = {
        [MU_HTTP_GET] = "GET", [MU_HTTP_HEAD] = "HEAD",   [MU_HTTP_POST] = "POST",
        [MU_HTTP_PUT] = "PUT", [MU_HTTP_PATCH] = "PATCH", [MU_HTTP_DELETE] = "DELETE"};
    struct mu_buf *head = &call->head;
    mu_buf_printf(head, "%s ", methods[r->method]);
    mu_bytes missing = add_path(head, r->path, args);
    if (missing.ptr) {
        return refuse(call, "A parameter is missing: ", missing);
    }
    add_query(head, r, args);
    mu_buf_add_str(head, " HTTP/1.1\r\nHost: localhost\r\n");
    if (!add_header(head, "Idempotency-Key", mu_json_get(args, "idempotencyKey")) ||
        !add_header(head, "X-Request-Id", mu_json_get(args, "requestId"))) {
        return refuse(call, "idempotencyKey and requestId must be one line of text", MU_B_NONE);
    }
    if (r->body) {
        add_body(&call->body, r, args);
        mu_buf_printf(head, "Content-Length: %zu\r\n", call->body.len);
    }
    mu_buf_add_str(head, "\r\n");
    int failed = head->failed ? head->failed : call->body.failed;
    return failed == MU_E_TOO_LARGE ? refuse(call, "The parameters are too large", MU_B_NONE)
                                    : failed;
}

static int read_request(struct cp_call *call, const char *op, mu_bytes json)
{
    static const struct mu_json_limits limits = {BODY_MAX, DEPTH};
    const struct mu_route *r = route_named(op);
    struct mu_arena a;
    struct mu_err err = {0};
    yyjson_val *args = NULL;
    if (!r) {
        mu_lib_result_set(&call->result, MU_CP_NOT_FOUND, "There is no such operation");
        return MU_E_NOT_FOUND;
    }
    mu_arena_init(&a, 64 << 20);
    int x = mu_json_read(&a, json.len ? json : MU_B("{}"), &limits, &args, &err);
    if (x == MU_E_INVALID || x == MU_E_TOO_LARGE) {
        x = refuse(call, "The parameters are no JSON: ", mu_str(err.text));
    } else if (x == 0 && !yyjson_is_obj(args)) {
        x = refuse(call, "The parameters must be a JSON object", MU_B_NONE);
    } else if (x == 0) {
        x = write_request(call, r, args);
    }
    mu_arena_fini(&a);
    return x;
}

/* --- who --- */

static bool org_ok(mu_bytes org)
{
    for (size_t i = 0; i < org.len; i++) {
        char c = org.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
              (c && strchr("._:-", c)))) {
            return false;
        }
    }
    return org.len >= 1 && org.len <= MU_ORG_LEN;
}

static bool user_ok(mu_bytes user)
{
    for (size_t i = 0; i < user.len; i++) {
        if ((unsigned char)user.ptr[i] < 0x20 || user.ptr[i] == '"' || user.ptr[i] == '\\') {
            return false;
        }
    }
    return user.len <= MU_UID_LEN && mu_utf8_valid(user);
}

static int find_caller(struct cp_call *call, const mu_cp_caller *caller)
{
    struct mu_cp *cp = call->cp;
    call->who = cp->admin;
    if (!caller || caller->role == MU_CP_PLATFORM_ADMIN) {
        return 0;
    }
    mu_bytes org = mu_cp_in(caller->org_id), user = mu_cp_in(caller->user_id);
    if (!org_ok(org) || !user_ok(user) || caller->role < MU_CP_VIEWER ||
        caller->role > MU_CP_ORG_ADMIN) {
        return refuse(call, "The caller is not valid: org_id, user_id, role", MU_B_NONE);
    }
    struct mu_principal *p = &call->who;
    *p = (struct mu_principal){.role = caller->role == MU_CP_VIEWER     ? MU_ROLE_VIEWER
                                       : caller->role == MU_CP_OPERATOR ? MU_ROLE_OPERATOR
                                                                        : MU_ROLE_ORG_ADMIN,
                               .tenant = mu_identity_tenant(cp->d.identity, org)};
    snprintf(p->org_id, sizeof p->org_id, "%.*s", MU_ARGS(org));
    snprintf(p->uid, sizeof p->uid, "%.*s", MU_ARGS(user.len ? user : org));
    return p->tenant ? 0 : -ENOMEM;
}

/* --- the two ways --- */

static struct cp_call *call_new(struct mu_cp *cp)
{
    struct cp_call *call = mu_calloc(1, sizeof *call);
    if (call) {
        call->cp = cp;
        call->post.fn = on_loop;
        mu_list_init(&call->link);
        mu_buf_init(&call->head, HEAD_MAX);
        mu_buf_init(&call->body, BODY_MAX);
    }
    return call;
}

/* 0, or it has its result. */
static int prepare(struct cp_call *call, const mu_cp_caller *caller, const char *op, mu_bytes json)
{
    int r = find_caller(call, caller);
    if (r == 0) {
        r = read_request(call, op, json);
    }
    if (r < 0 && call->result.status == MU_CP_OK) {
        mu_lib_result_set(&call->result, MU_CP_UNAVAILABLE, "Out of memory");
    }
    return r;
}

/* To the loop; false: it has its result. */
static bool send(struct cp_call *call, const mu_cp_caller *caller, const char *op, mu_bytes json)
{
    struct mu_cp *cp = call->cp;
    if (!mu_lib_enter(cp)) {
        mu_lib_result_set(&call->result, MU_CP_SHUTTING_DOWN, "The control plane is closed");
        return false;
    }
    bool sent = prepare(call, caller, op, json) == 0;
    if (sent) {
        mu_loop_post(cp->loop, &call->post);
    }
    mu_lib_leave(cp);
    return sent;
}

static bool may_submit(struct mu_cp *cp)
{
    pthread_mutex_lock(&cp->lock);
    bool room = cp->submitted < MU_CP_CALLS;
    cp->submitted += room;
    pthread_mutex_unlock(&cp->lock);
    return room;
}

mu_cp_status mu_cp_call(mu_cp *cp, const mu_cp_caller *caller, const char *op, mu_cp_str json,
                        mu_cp_result *result)
{
    struct cp_call *call = call_new(cp);
    *result = (mu_cp_result){0};
    if (!call) {
        mu_lib_result_set(result, MU_CP_UNAVAILABLE, "Out of memory");
        return result->status;
    }
    if (send(call, caller, op, mu_cp_in(json)) && !mu_lib_wait(cp, &call->done)) {
        pthread_mutex_lock(&cp->drive);
        call->dropped = !call->done;
        bool done = call->done;
        pthread_mutex_unlock(&cp->drive);
        if (!done) {
            mu_lib_result_set(result, MU_CP_PENDING, "The answer needs time to pass");
            return result->status;
        }
    }
    *result = call->result;
    call->result = (mu_cp_result){0};
    call_free(call);
    return result->status;
}

void mu_cp_submit(mu_cp *cp, const mu_cp_caller *caller, const char *op, mu_cp_str json,
                  mu_cp_done_fn done, void *user)
{
    bool room = may_submit(cp);
    struct cp_call *call = room ? call_new(cp) : NULL;
    if (!call) { /* no room to say it later */
        mu_cp_result result = {0};
        mu_lib_result_set(&result, MU_CP_UNAVAILABLE,
                          room ? "Out of memory" : "Too many operations wait");
        if (room) {
            pthread_mutex_lock(&cp->lock);
            cp->submitted--;
            pthread_mutex_unlock(&cp->lock);
        }
        done(cp, &result, user);
        return;
    }
    call->fn = done;
    call->user = user;
    if (!send(call, caller, op, mu_cp_in(json))) {
        settle(call);
    }
}
