/* The way of every request (architecture.md 4): route, who may reach us, who is calling, limits,
 * and only then the body. */
#include "face/api/api.h"

#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/api/api_int.h"
#include "net/ws.h"

enum { OPENAPI_MAX = 8 << 20, ANSWER_MAX = 112 << 20 };

/* --- request id and trace --- */

static bool request_id_ok(mu_bytes v)
{
    if (v.len == 0 || v.len > MU_REQUEST_ID_MAX) {
        return false;
    }
    for (size_t i = 0; i < v.len; i++) {
        char ch = v.ptr[i];
        bool ok = (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') ||
                  (ch >= '0' && ch <= '9') || (ch && strchr("._:=-", ch));
        if (!ok) {
            return false;
        }
    }
    return true;
}

static void mint_request_id(struct mu_call *c)
{
    struct mu_id id = mu_id_random(c->api->env);
    int n = snprintf(c->minted, sizeof c->minted, "req_%s", id.text);
    c->request_id = mu_bytes_of(c->minted, (size_t)n);
}

static void take_request_id(struct mu_call *c, const struct mu_http_head *h)
{
    c->request_id = mu_http_header(h, "X-Request-Id");
    if (!c->request_id.ptr) {
        c->request_id = mu_http_header(h, "X-Oz-Request-Id");
    }
    if (!request_id_ok(c->request_id)) {
        mint_request_id(c);
    }
}

static bool is_zero(mu_bytes b)
{
    size_t n = 0;
    while (n < b.len && b.ptr[n] == '0') {
        n++;
    }
    return n == b.len;
}

/* W3C Trace Context: version-traceid-parentid-flags. */
static mu_bytes trace_id(mu_bytes v)
{
    if (v.len < 55 || v.ptr[2] != '-' || v.ptr[35] != '-' || v.ptr[52] != '-') {
        return MU_B_NONE;
    }
    mu_bytes version = mu_bytes_head(v, 2), id = mu_bytes_of(v.ptr + 3, 32);
    mu_bytes parent = mu_bytes_of(v.ptr + 36, 16), flags = mu_bytes_of(v.ptr + 53, 2);
    if (!mu_hex_is(version, 2) || mu_bytes_is(version, "ff") ||
        (v.len > 55 && (is_zero(version) || v.ptr[55] != '-'))) {
        return MU_B_NONE;
    }
    if (!mu_hex_is(flags, 2) || !mu_hex_is(parent, 16) || is_zero(parent) || !mu_hex_is(id, 32) ||
        is_zero(id)) {
        return MU_B_NONE;
    }
    return id;
}

/* --- the gates; each answers and returns false when the request ends there --- */

static bool reachable(struct mu_call *c, const struct mu_http_head *h)
{
    const struct mu_origins *o = &c->api->origins;
    mu_bytes origin = mu_http_header(h, "Origin");
    if (!mu_host_allowed(o, h->host)) {
        mu_call_error(c, 403, "forbidden", NULL,
                      "The Host header names a host this server does not answer for; add it to "
                      "OZ_ALLOWED_HOSTS");
        return false;
    }
    if (o->cors && h->method == MU_HTTP_OPTIONS) {
        mu_answer(c, 204, NULL, NULL, 0);
        return false;
    }
    /* without CORS an OPTIONS is a method like another: it changes nothing and ends as 405 */
    bool harmless = h->method == MU_HTTP_OPTIONS;
    bool own_page = c->secret_path && mu_bytes_is(origin, "null");
    if (origin.ptr && !harmless && !own_page && !mu_origin_allowed(o, origin, h->host, h->path)) {
        mu_call_error(c, 403, "forbidden", NULL,
                      "The Origin header names an origin that is not allowed; add it to "
                      "OZ_CORS_ORIGIN");
        return false;
    }
    return true;
}

static bool unauthorized(struct mu_call *c, const char *why)
{
    mu_call_unauthorized(c, why);
    return false;
}

static const char *const role_words[] = {
    [MU_ROLE_VIEWER] = "This needs a role",
    [MU_ROLE_OPERATOR] = "This needs the role operator",
    [MU_ROLE_ORG_ADMIN] = "This needs the role of an administrator of the org",
    [MU_ROLE_ADMIN] = "This needs the admin key",
};

/* A viewer only reads (village-control-plane.md 3.7), in every face. */
static enum mu_role role_needed(const struct mu_route *r)
{
    bool reads = r->method == MU_HTTP_GET || r->flags & MU_ROUTE_ANY_METHOD;
    return r->role ? r->role : reads ? MU_ROLE_VIEWER : MU_ROLE_OPERATOR;
}

/* Whether this kind of bearer may call the route. */
static bool permitted(struct mu_call *c)
{
    const struct mu_principal *p = &c->principal;
    const char *why = NULL;
    bool pass = p->enrolment.text[0] || p->runner.text[0];
    enum mu_api_auth auth = c->route ? c->route->auth : MU_AUTH_NONE;
    if (pass && auth != MU_AUTH_WORKER && auth != MU_AUTH_RUNNER) {
        why = "An enrolment token or a worker's credential registers and opens workers only";
    } else if (auth == MU_AUTH_RUNNER && !pass) {
        why = "This needs an enrolment token or a worker's credential";
    } else if (p->worker && (!c->route || c->route->auth != MU_AUTH_WORKER)) {
        why = "A worker's key opens the worker link only";
    } else if (p->run.text[0] && (!c->route || c->route->auth != MU_AUTH_RUN)) {
        why = "A session token is for its own run's prompt, report and files only";
    } else if (c->route && c->route->auth == MU_AUTH_ADMIN && !p->admin) {
        why = "This needs the admin key";
    } else if (c->route && c->route->auth == MU_AUTH_WORKER && !p->admin && !p->worker && !pass) {
        why = "This needs the admin key or a worker's key";
    } else if (c->route && !pass && !p->worker && !p->run.text[0] &&
               p->role < role_needed(c->route)) {
        why = role_words[role_needed(c->route)];
    }
    if (why) {
        mu_call_error(c, 403, "forbidden", NULL, "%s", why);
    }
    return !why;
}

/* Before the query is read as the route wants it. Tokens need no percent signs. */
static mu_bytes url_token(mu_bytes query)
{
    mu_bytes name = MU_B("token=");
    while (query.ptr) {
        mu_bytes one = mu_bytes_split(&query, '&');
        if (mu_bytes_starts(one, name)) {
            return mu_bytes_from(one, name.len);
        }
    }
    return MU_B_NONE;
}

/* 0, or the code that says why not. An explicit token goes before what comes along by itself. */
static int find_sender(struct mu_call *c)
{
    mu_bytes token = MU_B_NONE;
    if (c->route && c->route->flags & MU_ROUTE_URL_TOKEN && !mu_call_bearer(c).len) {
        token = url_token(mu_http_req_head(c->req)->query);
    }
    if (!token.len) {
        return mu_call_sender(c, &c->credential);
    }
    c->credential = mu_credential_of(token);
    return 0;
}

static bool authenticate(struct mu_call *c)
{
    int r = find_sender(c);
    if (r == MU_E_NOT_FOUND) {
        return unauthorized(c, "Unauthorized: send Authorization: Bearer <token>");
    }
    if (r == MU_E_FORBIDDEN) {
        mu_call_foreign(c);
        return false;
    }
    if (r == 0) {
        r = mu_identity_resolve_credential(c->api->identity, &c->credential, &c->principal);
    }
    if (r == MU_E_UNAUTHORIZED) {
        return unauthorized(c, "Unauthorized: the token is unknown, revoked or expired");
    }
    if (r == MU_E_LIMIT) {
        mu_call_retry(c, 503, "unavailable", 60000, "Too many tenants");
        return false;
    }
    if (r < 0) {
        mu_call_fail(c, r);
        return false;
    }
    if (c->principal.removed && !(c->route && c->route->flags & MU_ROUTE_WEBSOCKET)) {
        return unauthorized(c, "Unauthorized: this worker was deregistered");
    }
    c->authenticated = true;
    return permitted(c);
}

static bool names_agent_run(mu_bytes path)
{
    mu_bytes prefix = MU_B("/agent/run");
    mu_bytes rest = mu_bytes_from(path, prefix.len);
    if (!mu_bytes_starts(path, prefix)) {
        return false;
    }
    if (rest.len && rest.ptr[0] == 's') {
        rest = mu_bytes_from(rest, 1);
    }
    return rest.len == 0 || rest.ptr[0] == '/';
}

static bool wants_websocket(const struct mu_http_head *h)
{
    return h->upgrade && mu_bytes_eq_nocase(mu_http_header(h, "Upgrade"), MU_B("websocket"));
}

static bool is_websocket(const struct mu_route *route)
{
    return route && route->flags & MU_ROUTE_WEBSOCKET;
}

/* oz-worker.md 2.2: no answer here may look like one that a worker should try again. */
static bool upgradable(struct mu_call *c, const struct mu_http_head *h)
{
    const struct mu_http_pair pairs[] = {{"Sec-WebSocket-Version", MU_B("13")},
                                         {"Upgrade", MU_B("websocket")}};
    const struct mu_http_pair allow = {"Allow", MU_B("GET")};
    const char *why = NULL;
    int status = mu_ws_check(h, &why);
    switch (status) {
    case 0:
        return true;
    case 405:
        mu_answer_error(c, 405, "method_not_allowed", NULL, "Method not allowed", mu_str(why),
                        &allow, 1);
        return false;
    case 426:
        mu_answer_error(c, 426, "upgrade_required", NULL, "Upgrade required", mu_str(why), pairs,
                        2);
        return false;
    default:
        c->close = true; /* what follows may be no HTTP */
        mu_answer_error(c, status, "bad_request", NULL, "Bad request", mu_str(why), pairs, 1);
        return false;
    }
}

static bool routed(struct mu_call *c, const struct mu_http_head *h, const struct mu_node *node)
{
    if (wants_websocket(h) && !(node && is_websocket(node->first))) {
        mu_call_error(c, 404, "not_found", NULL, "Not found: no WebSocket is served here");
        return false;
    }
    if (!node) {
        mu_call_error(c, 404, "not_found", NULL, "%s",
                      names_agent_run(h->path)
                          ? "Not found: the API lives below /api/v1; set the client's base URL to "
                            "<this server>/api/v1"
                          : "Not found");
        return false;
    }
    if (!c->route) {
        char text[128];
        struct mu_buf allow;
        mu_buf_init(&allow, sizeof text);
        mu_node_allow(node, c->api->origins.cors, &allow);
        mu_bytes list = mu_bytes_head(mu_buf_bytes(&allow), sizeof text);
        if (list.len) {
            memcpy(text, list.ptr, list.len);
        }
        mu_buf_fini(&allow);
        const struct mu_http_pair pair = {"Allow", mu_bytes_of(text, list.len)};
        mu_answer_error(c, 405, "method_not_allowed", NULL, "Method not allowed",
                        MU_B("Method not allowed"), &pair, 1);
        return false;
    }
    return !is_websocket(c->route) || upgradable(c, h);
}

static bool served_now(struct mu_call *c)
{
    struct mu_api *api = c->api;
    int64_t retry_ms = 0;
    int r = c->authenticated ? mu_identity_charge(api->identity, &c->principal, &retry_ms) : 0;
    if (r < 0) {
        mu_call_retry(c, 429, "too_many_requests", retry_ms, "Too many requests");
        return false;
    }
    if (mu_api_stopping(api) && !(c->route->flags & MU_ROUTE_NO_DRAIN)) {
        mu_call_fail(c, MU_E_SHUTDOWN);
        return false;
    }
    const char *why = NULL;
    if (c->route->flags & MU_ROUTE_WRITES && api->writable &&
        !api->writable(api->writable_arg, &why)) {
        mu_call_retry(c, 503, "unavailable", 5000, why ? why : "Writes are refused just now");
        return false;
    }
    return true;
}

static size_t body_limit(const struct mu_call *c)
{
    return c->route->max_body ? c->route->max_body : MU_DISCARD_MAX;
}

static bool too_large(struct mu_call *c, size_t limit)
{
    c->close = true; /* oz-api.md 17.7: what is still on its way is read away, then it ends */
    char text[96];
    int n = snprintf(text, sizeof text, "Request body too large: at most %zu bytes", limit);
    mu_answer_error(c, 413, "payload_too_large", NULL, "Request body too large",
                    mu_bytes_of(text, (size_t)n), NULL, 0);
    return false;
}

/* What comes once it is known who calls what. */
static bool admitted(struct mu_call *c, const struct mu_http_head *h, const struct mu_node *node)
{
    if (!routed(c, h, node) || !served_now(c)) {
        return false;
    }
    if (h->content_length >= 0 && (uint64_t)h->content_length > body_limit(c)) {
        return too_large(c, body_limit(c));
    }
    return true;
}

static bool gates(struct mu_call *c, const struct mu_http_head *h)
{
    const struct mu_api_listener *listener = mu_http_listener_arg(c->req);
    bool probes_only = listener && listener->probes_only;
    c->close = wants_websocket(h); /* what follows a refusal is no HTTP */
    const struct mu_node *node = mu_router_find(&c->api->router, h->path, c->params);
    if (node && node->first->flags & MU_ROUTE_SECRET) {
        c->secret_path = node->first->path;
    }
    if (!reachable(c, h)) {
        return false;
    }
    if (probes_only && node && !(node->first->flags & MU_ROUTE_PROBE)) {
        node = NULL;
    }
    if (node && is_websocket(node->first) && mu_bytes_ends(h->path, MU_B("/"))) {
        node = NULL;
    }
    struct mu_node of_other = {0};
    if (!node && !probes_only && c->api->other) {
        of_other.first = c->api->other(c->api->app, h);
        of_other.by_method[MU_HTTP_GET] = of_other.first;
        node = of_other.first ? &of_other : NULL;
    }
    c->route = node ? mu_node_route(node, h->method) : NULL;
    /* without a bearer nobody learns which paths below /api/v1 exist, nor uploads a byte */
    bool guarded = c->route ? c->route->auth != MU_AUTH_NONE : mu_path_is_api(h->path);
    if (guarded && !probes_only && !authenticate(c)) {
        return false;
    }
    return admitted(c, h, node);
}

static struct mu_call *call_new(struct mu_api *api, struct mu_http_req *req)
{
    struct mu_call *c = mu_arena_calloc(mu_http_req_arena(req), sizeof *c);
    if (c) {
        c->api = api;
        c->req = req;
        mu_buf_init(&c->buf, ANSWER_MAX);
        mu_http_req_set_ctx(req, c);
    }
    return c;
}

/* NULL: answered. */
static struct mu_call *call_begin(struct mu_api *api, struct mu_http_req *req,
                                  const struct mu_http_head *h)
{
    struct mu_call *c = call_new(api, req);
    if (!c) {
        mu_answer_bare(req, mu_face_of(h->path));
        return NULL;
    }
    c->face = mu_face_of(h->path);
    take_request_id(c, h);
    c->trace_id = trace_id(mu_http_header(h, "traceparent"));
    return c;
}

static void on_admit(void *arg, struct mu_http_req *req, struct mu_http_admit *ret)
{
    struct mu_api *api = arg;
    const struct mu_http_head *h = mu_http_req_head(req);
    ret->max_body = MU_DISCARD_MAX;
    ret->refuse = true;
    struct mu_call *c = call_begin(api, req, h);
    if (!c) {
        return;
    }
    c->cors = mu_cors_value(&api->origins, mu_http_header(h, "Origin"), h->path);
    if (gates(c, h)) {
        ret->max_body = body_limit(c);
        ret->refuse = false;
    }
}

/* --- the whole request is there --- */

static bool field_error(struct mu_call *c, int r, const char *path, const struct mu_err *err)
{
    if (r == MU_E_NOT_FOUND) {
        mu_call_error(c, 400, "missing_field", path, "%s", err->text);
    } else if (r == MU_E_INVALID) {
        mu_call_error(c, 400, "invalid_field", path, "%s", err->text);
    } else if (r == MU_E_PROTOCOL) {
        mu_call_error(c, 400, "invalid_url", NULL, "%s", err->text);
    } else {
        mu_call_fail(c, r);
    }
    return false;
}

static bool take_query(struct mu_call *c)
{
    char path[MU_PATH_TEXT] = "";
    struct mu_err err = {0};
    if (!c->route->query) {
        return true;
    }
    c->query = mu_arena_alloc(mu_call_arena(c), MU_QUERY_MAX * sizeof *c->query);
    if (!c->query) {
        mu_call_fail(c, -ENOMEM);
        return false;
    }
    int r = mu_schema_query(c->route->query, mu_call_arena(c), mu_http_req_head(c->req)->query,
                            c->query, &c->n_query, path, sizeof path, &err);
    return r < 0 ? field_error(c, r, path, &err) : true;
}

/* Whether the body may be larger than usual for what it carries. */
static bool carries_more(const struct mu_call *c)
{
    yyjson_val *v = mu_json_get(c->body, c->route->large_member);
    return v && yyjson_is_arr(v) && yyjson_arr_size(v) > 0;
}

int mu_call_read_body(struct mu_call *c, struct mu_err *err)
{
    mu_bytes raw = mu_http_req_body(c->req);
    if (!c->route->body || !mu_bytes_trim(raw).len) {
        return 0;
    }
    bool large = c->route->usual_body && raw.len > c->route->usual_body;
    const struct mu_json_limits limits = {body_limit(c), MU_DEPTH_MAX};
    int r = mu_json_read(mu_call_arena(c), raw, &limits, &c->body, err);
    if (large && (r == MU_E_INVALID || (r == 0 && !carries_more(c)))) {
        too_large(c, c->route->usual_body);
        return MU_E_TOO_LARGE;
    }
    if (r == MU_E_TOO_LARGE) {
        mu_call_fail(c, r);
    }
    return r;
}

static bool take_body(struct mu_call *c)
{
    char path[MU_PATH_TEXT] = "", text[sizeof(struct mu_err)];
    struct mu_err err = {0};
    if (!c->route->body) {
        return true;
    }
    int r = mu_call_read_body(c, &err);
    if (r == MU_E_TOO_LARGE) {
        return false;
    }
    if (r == MU_E_INVALID) {
        int n = snprintf(text, sizeof text, "Invalid JSON: %s", err.text);
        mu_answer_error(c, 400, "invalid_json", NULL, "Invalid JSON",
                        mu_bytes_of(text, MU_MIN((size_t)n, sizeof text - 1)), NULL, 0);
        return false;
    }
    if (r < 0) {
        mu_call_fail(c, r);
        return false;
    }
    r = mu_schema_check(c->route->body, c->body, path, sizeof path, &err);
    return r < 0 ? field_error(c, r, path, &err) : true;
}

static void on_request(void *arg, struct mu_http_req *req)
{
    (void)arg;
    struct mu_call *c = mu_http_req_ctx(req);
    bool taken = c->face == MU_FACE_SESSIONS ? mu_envelope_take(c) : take_query(c) && take_body(c);
    if (taken) {
        c->route->handler(c);
    }
}

void mu_api_local(struct mu_api *api, struct mu_http_req *req, const struct mu_principal *who)
{
    const struct mu_http_head *h = mu_http_req_head(req);
    struct mu_call *c = call_begin(api, req, h);
    if (!c) {
        return;
    }
    c->principal = *who;
    c->authenticated = true;
    const struct mu_node *node = mu_router_find(&api->router, h->path, c->params);
    c->route = node ? mu_node_route(node, h->method) : NULL;
    if (permitted(c) && admitted(c, h, node)) {
        on_request(api, req);
    }
}

static void on_taken(void *arg, struct mu_http_req *req)
{
    (void)arg;
    mu_call_taken(mu_http_req_ctx(req));
}

static const char *code_of(int status)
{
    switch (status) {
    case 408:
        return "timeout";
    case 413:
        return "payload_too_large";
    case 414:
        return "invalid_url";
    case 431:
        return "headers_too_large";
    case 501:
        return "not_implemented";
    case 503:
        return "unavailable";
    case 505:
        return "http_version";
    default:
        return "bad_request";
    }
}

static void on_malformed(void *arg, struct mu_http_req *req, int status, const char *text)
{
    struct mu_call *c = mu_http_req_ctx(req);
    if (!c) {
        c = call_new(arg, req);
        if (!c) {
            mu_bytes target = mu_http_req_target(req);
            mu_answer_bare(req, mu_face_of(mu_bytes_split(&target, '?')));
            return;
        }
        mu_bytes path = mu_http_req_target(req);
        c->face = mu_face_of(mu_bytes_split(&path, '?'));
        c->headless = true;
        mint_request_id(c);
    }
    c->close = true;
    if (status == 413 && c->route) {
        too_large(c, body_limit(c));
    } else if (status == 503) {
        mu_call_retry(c, status, code_of(status), 1000, text);
    } else {
        mu_call_error(c, status, code_of(status), NULL, "%s", text);
    }
}

/* --- the object --- */

static void register_metrics(struct mu_api *api)
{
    static const char *const labels[] = {"code=\"1xx\"", "code=\"2xx\"", "code=\"3xx\"",
                                         "code=\"4xx\"", "code=\"5xx\""};
    if (!api->metrics) {
        return;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(labels); i++) {
        api->by_class[i] = mu_metrics_counter(api->metrics, "muster_http_requests_total", labels[i],
                                              "HTTP answers by class of status.");
    }
    api->duration = mu_metrics_histogram(api->metrics, "muster_http_request_duration_seconds", NULL,
                                         "Time from the first byte of a request to its answer.");
    api->connections =
        mu_metrics_gauge(api->metrics, "muster_http_connections", NULL, "Open HTTP connections.");
}

static int add_route(struct mu_api *api, const struct mu_route *route, struct mu_err *err)
{
    enum mu_api_face face = mu_face_of(mu_str(route->path));
    bool ours = face == MU_FACE_SESSIONS;
    if (ours != (route->face == MU_FACE_SESSIONS) ||
        (face == MU_FACE_APP) != (route->face == MU_FACE_APP)) {
        return mu_err_set(err, MU_E_INVALID, "route %s: not of this face", route->path);
    }
    mu_bytes unknown;
    if (ours && !mu_codes_known(route, &unknown)) {
        return mu_err_set(err, MU_E_INVALID, "route %s: there is no code %.*s", route->path,
                          MU_ARGS(unknown));
    }
    return mu_router_add(&api->router, route, err);
}

static int build(struct mu_api *api, const struct mu_api_opts *opts, struct mu_err *err)
{
    int r = mu_origins_init(&api->origins, opts->cors_origins, opts->public_url,
                            opts->allowed_hosts, err);
    api->origins.tls = opts->tls;
    for (size_t t = 0; r == 0 && t < opts->n_tables; t++) {
        for (const struct mu_route *route = opts->tables[t]; r == 0 && route->path; route++) {
            r = add_route(api, route, err);
        }
    }
    if (r == 0) {
        r = mu_openapi_write(&api->router, opts->public_url, opts->components, &api->openapi);
        if (r < 0) {
            mu_err_set(err, r, "openapi.json: %s", mu_err_text(r));
        }
    }
    return r;
}

int mu_api_new(const struct mu_api_opts *opts, struct mu_api **ret, struct mu_err *err)
{
    struct mu_api *api = mu_calloc(1, sizeof *api);
    if (!api) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    api->env = opts->env;
    api->identity = opts->identity;
    api->metrics = opts->metrics;
    api->writable = opts->writable;
    api->writable_arg = opts->writable_arg;
    api->app = opts->app;
    api->meta_of = opts->meta_of;
    api->other = opts->other;
    mu_router_init(&api->router);
    mu_buf_init(&api->openapi, OPENAPI_MAX);
    int r = build(api, opts, err);
    if (r < 0) {
        mu_api_free(api);
        return r;
    }
    register_metrics(api);
    *ret = api;
    return 0;
}

struct mu_api *mu_api_free(struct mu_api *api)
{
    if (api) {
        mu_router_fini(&api->router);
        mu_buf_fini(&api->openapi);
        mu_free(api);
    }
    return NULL;
}

struct mu_http_ops mu_api_http_ops(struct mu_api *api)
{
    return (struct mu_http_ops){
        .admit = on_admit,
        .request = on_request,
        .malformed = on_malformed,
        .taken = on_taken,
        .arg = api,
    };
}

void mu_api_set_stopping(struct mu_api *api)
{
    atomic_store(&api->stopping, true);
}

bool mu_api_stopping(const struct mu_api *api)
{
    return atomic_load(&api->stopping);
}

mu_bytes mu_api_openapi(const struct mu_api *api)
{
    return mu_buf_bytes(&api->openapi);
}
