/* The way of a request through the gates, on a request object of our own instead of net/http.c. */
#include "fake_http.h"

#include "face/api/api_int.h"

/* --- the api under test --- */

static void echo(struct mu_call *c)
{
    struct mu_json_w w = mu_json_w(mu_call_buf(c));
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "id", mu_call_param(c, "id"));
    mu_jw_kstr(&w, "q", mu_call_query(c, "q", 0));
    mu_jw_kstr(&w, "uid", mu_str(mu_call_principal(c)->uid));
    mu_jw_kstr(&w, "prompt", mu_json_get_bytes(mu_call_body(c), "prompt"));
    mu_jw_kstr(&w, "request_id", mu_call_request_id(c));
    mu_jw_obj_end(&w);
    mu_call_note(c, "run_id", mu_call_param(c, "id"));
    mu_call_send(c, 200);
}

static void plain(struct mu_call *c)
{
    mu_buf_add_str(mu_call_buf(c), "{}");
    mu_call_send(c, 200);
}

static void broken(struct mu_call *c)
{
    mu_call_fail(c, MU_E_CORRUPT);
}

static void streamed(struct mu_call *c)
{
    const struct mu_http_pair h = {"Content-Type", MU_B("text/event-stream")};
    mu_buf_add_str(mu_call_buf(c), "thrown away");
    assert_null(mu_call_stream(c, 200, &h, 1, -1, NULL, NULL));
}

/* What mu_ws_accept() does as far as the api sees it. */
static void upgraded(struct mu_call *c)
{
    struct mu_http_req *req = mu_call_http(c);
    struct mu_http_ops ops = mu_api_http_ops(mu_call_api(c));
    mu_buf_add_str(mu_call_buf(c), "thrown away");
    ops.taken(ops.arg, req);
    mu_http_respond(req, 101, NULL, 0, MU_B("frames"));
}

static const struct mu_schema query[] = {{.name = "q", .type = MU_S_STRING, .max = 5}, {0}};
static const struct mu_schema body[] = {
    {.name = "prompt", .type = MU_S_STRING, .flags = MU_S_REQUIRED | MU_S_NOT_BLANK}, {0}};
static const struct mu_schema optional[] = {{.name = "x", .type = MU_S_INT}, {0}};

static const struct mu_route routes[] = {
    {.method = MU_HTTP_POST,
     .path = "/api/v1/things/{id}",
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .max_body = 1000,
     .query = query,
     .body = body,
     .handler = echo},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/things",
     .auth = MU_AUTH_TENANT,
     .max_body = 100,
     .body = optional,
     .handler = plain},
    {.method = MU_HTTP_GET, .path = "/api/v1/admin", .auth = MU_AUTH_ADMIN, .handler = plain},
    {.method = MU_HTTP_GET, .path = "/api/v1/broken", .auth = MU_AUTH_TENANT, .handler = broken},
    {.method = MU_HTTP_GET, .path = "/api/v1/stream", .auth = MU_AUTH_TENANT, .handler = streamed},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/socket",
     .auth = MU_AUTH_ADMIN,
     .flags = MU_ROUTE_WEBSOCKET,
     .handler = upgraded},
    {.path = "/health", .flags = MU_ROUTE_ANY_METHOD | MU_ROUTE_NO_DRAIN, .handler = plain},
    {.method = MU_HTTP_GET,
     .path = "/metrics",
     .auth = MU_AUTH_ADMIN,
     .flags = MU_ROUTE_PROBE,
     .media = "text/plain",
     .handler = plain},
    {.path = NULL},
};
static const struct mu_route *const tables[] = {routes};

static int64_t mono_now_ns;
static int64_t fake_mono(const struct mu_env *env)
{
    (void)env;
    return mono_now_ns;
}
static int64_t fake_wall(const struct mu_env *env)
{
    (void)env;
    return 1000;
}
static void fake_random(const struct mu_env *env, void *dst, size_t len)
{
    (void)env;
    memset(dst, 7, len);
}
static const struct mu_env env = {fake_wall, fake_mono, fake_random, NULL};

static bool can_write = true;
static bool writable(void *arg, const char **ret_why)
{
    (void)arg;
    *ret_why = "The disk is nearly full";
    return can_write;
}

struct fixture {
    struct mu_identity *identity;
    struct mu_api *api;
};

static struct fixture make_with(const char *cors, int64_t per_minute)
{
    struct fixture f = {0};
    struct mu_err err;
    const struct mu_identity_opts io = {
        .env = &env, .admin_key = "boss", .requests_per_minute = per_minute};
    assert_int_equal(mu_identity_new(&io, NULL, &f.identity, &err), 0);
    const struct mu_api_opts ao = {.env = &env,
                                   .identity = f.identity,
                                   .cors_origins = cors,
                                   .public_url = "https://muster.example/base",
                                   .allowed_hosts = "in.example, other.example:80",
                                   .tables = tables,
                                   .n_tables = 1,
                                   .writable = writable};
    assert_int_equal(mu_api_new(&ao, &f.api, &err), 0);
    can_write = true;
    return f;
}

static struct fixture make(void)
{
    return make_with(NULL, 0);
}

static void drop(struct fixture *f)
{
    mu_api_free(f->api);
    mu_identity_free(f->identity);
}

static void run(struct fixture *f, struct mu_http_req *r)
{
    struct mu_http_ops ops = mu_api_http_ops(f->api);
    struct mu_http_admit admit = {0};
    ops.admit(ops.arg, r, &admit);
    if (!admit.refuse) {
        assert_int_equal(r->answers, 0);
        ops.request(ops.arg, r);
    }
    assert_int_equal(r->answers, 1);
}

/* One request with a bearer (or none) and what must come back. */
static void expect(struct fixture *f, const char *method, const char *path, const char *token,
                   const char *content, int status, const char *text)
{
    struct mu_http_req r;
    begin(&r, method, path);
    char bearer[128];
    if (token) {
        snprintf(bearer, sizeof bearer, "Bearer %s", token);
        header(&r, "Authorization", bearer);
    }
    if (content) {
        r.body = mu_str(content);
        r.head.content_length = (int64_t)r.body.len;
    }
    run(f, &r);
    if (r.status != status) {
        fail_msg("%s %s: %d %s", method, path, r.status, r.out.ptr);
    }
    out_has(&r, text);
    headers_have(&r, "X-Request-Id: ");
    headers_have(&r, "Cache-Control: no-store\n");
    headers_have(&r, "X-Content-Type-Options: nosniff\n");
    end(&r);
}

static void a_good_request_reaches_its_handler(void **state)
{
    (void)state;
    struct fixture f = make();
    expect(&f, "POST", "/api/v1/things/a b?q=1%2B1&x=2", "t", "{\"prompt\":\"hi\"}", 200,
           "{\"id\":\"a b\",\"q\":\"1+1\",\"uid\":"
           "\"e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8\",\"prompt\":"
           "\"hi\",\"request_id\":\"req_07070707-0707-4707-8707-070707070707\"}");
    expect(&f, "GET", "/api/v1/things/", "t", NULL, 200, "{}");
    expect(&f, "GET", "/api/v1/things", "t", " \n", 200, "{}");
    expect(&f, "HEAD", "/api/v1/things", "t", NULL, 200, "{}");
    expect(&f, "TRACE", "/health", NULL, NULL, 200, "{}");
    drop(&f);
}

static void unknown_callers_learn_nothing_below_the_api(void **state)
{
    (void)state;
    struct fixture f = make();
    static const char *const paths[] = {"/api/v1/things", "/api/v1/nothing", "/api/v1",
                                        "/api/v1/admin"};
    for (size_t i = 0; i < MU_ARRAY_LEN(paths); i++) {
        expect(&f, "GET", paths[i], NULL, NULL, 401, "\"error\":\"Unauthorized\"");
        expect(&f, "PATCH", paths[i], NULL, NULL, 401, "\"code\":\"unauthorized\"");
    }
    expect(&f, "GET", "/api/v1/things", "sk_not_ours", NULL, 401, "\"code\":\"unauthorized\"");
    expect(&f, "GET", "/api/v1/nothing", "t", NULL, 404, "\"error\":\"Not found\"");
    expect(&f, "PATCH", "/api/v1/things", "t", NULL, 405, "\"code\":\"method_not_allowed\"");
    expect(&f, "GET", "/nothing", NULL, NULL, 404, "\"error\":\"Not found\"");
    expect(&f, "GET", "/agent/runs", NULL, NULL, 404, "/api/v1");
    expect(&f, "POST", "/agent/run", NULL, NULL, 404, "/api/v1");
    expect(&f, "GET", "/agent/runner", NULL, NULL, 404, "\"error\":\"Not found\"");
    expect(&f, "GET", "/api/v1/admin", "t", NULL, 403, "\"code\":\"forbidden\"");
    expect(&f, "GET", "/api/v1/admin", "boss", NULL, 200, "{}");
    drop(&f);
}

/* A request of this process: no bearer, no Host that is known, and all the rest. */
static void expect_local(struct fixture *f, const char *method, const char *path, const char *token,
                         enum mu_role role, int status, const char *text)
{
    struct mu_http_req r;
    struct mu_principal who;
    assert_int_equal(mu_identity_resolve(f->identity, mu_str(token), &who), 0);
    who.role = who.admin ? who.role : role;
    begin(&r, method, path);
    r.head.host = MU_B("unheard.example");
    header(&r, "Authorization", "Bearer sk_not_looked_at");
    if (strcmp(method, "POST") == 0) {
        r.body = MU_B("{\"prompt\":\"hi\"}");
        r.head.content_length = (int64_t)r.body.len;
    }
    mu_api_local(f->api, &r, &who);
    assert_int_equal(r.answers, 1);
    if (r.status != status) {
        fail_msg("%s %s: %d %s", method, path, r.status, r.out.ptr);
    }
    out_has(&r, text);
    end(&r);
}

static void whom_the_process_knows_needs_no_key_but_the_right_role(void **state)
{
    (void)state;
    struct fixture f = make();
    const enum mu_role viewer = MU_ROLE_VIEWER, operator= MU_ROLE_OPERATOR;
    expect_local(&f, "GET", "/api/v1/things", "t", viewer, 200, "{}");
    expect_local(&f, "POST", "/api/v1/things/1", "t", operator, 200, "\"prompt\":\"hi\"");
    expect_local(&f, "POST", "/api/v1/things/1", "t", viewer, 403, "\"code\":\"forbidden\"");
    expect_local(&f, "GET", "/api/v1/admin", "t", operator, 403, "\"code\":\"forbidden\"");
    expect_local(&f, "GET", "/api/v1/admin", "boss", 0, 200, "{}");
    expect_local(&f, "GET", "/api/v1/nothing", "t", viewer, 404, "\"code\":\"not_found\"");
    expect_local(&f, "PATCH", "/api/v1/things", "t", operator, 405, "method_not_allowed");
    expect_local(&f, "GET", "/api/v1/socket", "boss", 0, 426, "\"code\":\"upgrade_required\"");
    mu_api_set_stopping(f.api);
    expect_local(&f, "GET", "/api/v1/things", "t", viewer, 503, "\"code\":\"shutting_down\"");
    drop(&f);
}

static void bearers_are_read_leniently_and_other_schemes_refused(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        int status;
    } rows[] = {{"Bearer t", 200},  {"bEaReR    t  ", 200}, {"Basic t", 401}, {"Bearer", 401},
                {"Bearer   ", 401}, {"Bearert", 401},       {"", 401}};
    struct fixture f = make();
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_http_req r;
        begin(&r, "GET", "/api/v1/things");
        header(&r, "authorization", rows[i].value);
        run(&f, &r);
        assert_int_equal(r.status, rows[i].status);
        if (r.status == 401) {
            headers_have(&r, "WWW-Authenticate: Bearer\n");
        }
        end(&r);
    }
    drop(&f);
}

static void bad_input_is_refused_by_name(void **state)
{
    (void)state;
    struct fixture f = make();
    static const char path[] = "/api/v1/things/1";
    expect(&f, "POST", path, "t", "", 400, "\"code\":\"missing_field\",\"field\":\"prompt\"");
    expect(&f, "POST", path, "t", " \t\r\n", 400, "\"error\":\"prompt is required\"");
    expect(&f, "POST", path, "t", "null", 400, "\"code\":\"missing_field\"");
    expect(&f, "POST", path, "t", "{", 400, "\"error\":\"Invalid JSON\"");
    expect(&f, "POST", path, "t", "{", 400, "\"code\":\"invalid_json\"");
    expect(&f, "POST", path, "t", "[1]", 400, "\"code\":\"invalid_field\",\"field\":\"\"");
    expect(&f, "POST", path, "t", "{\"prompt\":5}", 400,
           "\"code\":\"invalid_field\",\"field\":\"prompt\"");
    expect(&f, "POST", "/api/v1/things/1?q=123456", "t", "{\"prompt\":\"x\"}", 400,
           "\"field\":\"q\"");
    expect(&f, "POST", "/api/v1/things/1?q=%f", "t", "{\"prompt\":\"x\"}", 400,
           "\"code\":\"invalid_url\"");
    char deep[200];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 99);
    deep[199] = 0;
    expect(&f, "POST", path, "t", deep, 400, "\"code\":\"invalid_json\"");
    drop(&f);
}

static void large_bodies_are_refused_before_they_come(void **state)
{
    (void)state;
    struct fixture f = make();
    struct mu_http_req r;
    struct mu_http_ops ops = mu_api_http_ops(f.api);
    struct mu_http_admit admit = {0};
    begin(&r, "POST", "/api/v1/things/1");
    header(&r, "Authorization", "Bearer t");
    r.head.content_length = 1001;
    ops.admit(ops.arg, &r, &admit);
    assert_true(admit.refuse);
    assert_int_equal(r.status, 413);
    out_has(&r, "\"error\":\"Request body too large\"");
    out_has(&r, "\"code\":\"payload_too_large\"");
    end(&r);

    begin(&r, "POST", "/api/v1/things/1");
    header(&r, "Authorization", "Bearer t");
    ops.admit(ops.arg, &r, &admit);
    assert_false(admit.refuse);
    assert_int_equal(admit.max_body, 1000);
    ops.malformed(ops.arg, &r, 413, "too large"); /* a chunked one */
    assert_int_equal(r.status, 413);
    assert_true(r.closed);
    out_has(&r, "at most 1000 bytes");
    end(&r);
    drop(&f);
}

static void malformed_messages_get_the_same_body(void **state)
{
    (void)state;
    struct fixture f = make();
    struct mu_http_ops ops = mu_api_http_ops(f.api);
    struct mu_http_req r;
    begin(&r, "GET", "/");
    ops.malformed(ops.arg, &r, 431, "too many headers");
    assert_int_equal(r.status, 431);
    assert_true(r.closed);
    out_has(&r, "\"error\":\"too many headers\",\"message\":\"too many headers\",\"code\":"
                "\"headers_too_large\",\"request_id\":\"req_");
    headers_have(&r, "X-Request-Id: req_");
    end(&r);
    drop(&f);
}

static void request_ids_are_kept_when_they_are_clean(void **state)
{
    (void)state;
    struct fixture f = make();
    struct mu_http_req r;
    begin(&r, "GET", "/health");
    header(&r, "X-Oz-Request-Id", "second");
    run(&f, &r);
    headers_have(&r, "X-Request-Id: second\n");
    end(&r);
    begin(&r, "GET", "/x");
    header(&r, "X-Oz-Request-Id", "second");
    header(&r, "X-Request-Id", "a.B:9=_-");
    run(&f, &r);
    headers_have(&r, "X-Request-Id: a.B:9=_-\n");
    out_has(&r, "\"request_id\":\"a.B:9=_-\"");
    end(&r);
    begin(&r, "GET", "/x");
    header(&r, "X-Request-Id", "a b");
    run(&f, &r);
    headers_have(&r, "X-Request-Id: req_");
    end(&r);
    drop(&f);
}

static void foreign_hosts_and_origins_are_forbidden(void **state)
{
    (void)state;
    static const struct {
        const char *host, *origin;
        int status;
    } rows[] = {
        {"localhost:8080", NULL, 200},
        {"[::1]:8080", NULL, 200},
        {"192.168.1.7", NULL, 200},
        {"MUSTER.example", NULL, 200},
        {"in.example.:99", NULL, 200},
        {"other.example", NULL, 200},
        {"evil.example", NULL, 403},
        {"", NULL, 403},
        {"[::1", NULL, 403},
        {"localhost:8080", "http://localhost:8080", 200},
        {"localhost:8080", "https://muster.example", 200},
        {"localhost:8080", "https://listed.example", 200},
        {"localhost:8080", "http://listed.example", 403},
        {"localhost:8080", "http://localhost:8081", 403},
        {"localhost:8080", "null", 403},
        {"localhost:8080", "", 403},
        {"localhost:8080", "http://localhost:8080/x", 403},
    };
    struct fixture f = make_with("https://listed.example/", 0);
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_http_req r;
        begin(&r, "GET", "/health");
        r.head.host = mu_str(rows[i].host);
        if (rows[i].origin) {
            header(&r, "Origin", rows[i].origin);
        }
        run(&f, &r);
        if (r.status != rows[i].status) {
            fail_msg("Host %s, Origin %s: %d", rows[i].host, rows[i].origin, r.status);
        }
        if (r.status == 403) {
            out_has(&r, "\"code\":\"forbidden\"");
            out_has(&r, rows[i].origin ? "Origin" : "Host");
        }
        end(&r);
    }
    drop(&f);
}

static void preflights_are_answered_when_cors_is_on(void **state)
{
    (void)state;
    struct fixture f = make_with("https://listed.example", 0);
    struct mu_http_req r;
    begin(&r, "OPTIONS", "/api/v1/things");
    header(&r, "Origin", "https://listed.example");
    run(&f, &r);
    assert_int_equal(r.status, 204);
    headers_have(&r, "Access-Control-Allow-Origin: https://listed.example\n");
    headers_have(&r, "Vary: Origin\n");
    headers_have(&r, "X-Request-Id: ");
    assert_int_equal(r.out.len, 1);
    end(&r);
    begin(&r, "OPTIONS", "/api/v1/things");
    header(&r, "Origin", "https://evil.example");
    run(&f, &r);
    assert_int_equal(r.status, 204);
    assert_null(strstr(r.out_headers.ptr, "Access-Control"));
    end(&r);
    drop(&f);

    f = make_with("*", 0);
    begin(&r, "GET", "/api/v1/things");
    header(&r, "Origin", "https://any.example");
    run(&f, &r);
    assert_int_equal(r.status, 401);
    headers_have(&r, "Access-Control-Allow-Origin: *\n");
    end(&r);
    begin(&r, "GET", "/nothing");
    header(&r, "Origin", "https://any.example");
    run(&f, &r);
    assert_int_equal(r.status, 403);
    end(&r);
    drop(&f);

    f = make();
    expect(&f, "OPTIONS", "/nothing", NULL, NULL, 404, "Not found");
    expect(&f, "OPTIONS", "/api/v1/things", "t", NULL, 405, "Method not allowed");
    drop(&f);
}

static void bad_settings_are_refused_in_words(void **state)
{
    (void)state;
    struct mu_origins o;
    struct mu_err err;
    assert_int_equal(mu_origins_init(&o, "listed.example", NULL, NULL, &err), MU_E_INVALID);
    assert_int_equal(mu_origins_init(&o, "https://a/b", NULL, NULL, &err), MU_E_INVALID);
    assert_int_equal(mu_origins_init(&o, NULL, "ftp://a", NULL, &err), MU_E_INVALID);
    assert_int_equal(mu_origins_init(&o, NULL, NULL, NULL, &err), 0);
}

static void a_spent_budget_is_429_until_time_passes(void **state)
{
    (void)state;
    struct fixture f = make_with(NULL, 2);
    mono_now_ns = 0;
    expect(&f, "GET", "/api/v1/things", "t", NULL, 200, "{}");
    expect(&f, "GET", "/api/v1/things", "t", NULL, 200, "{}");
    struct mu_http_req r;
    begin(&r, "GET", "/api/v1/things");
    header(&r, "Authorization", "Bearer t");
    run(&f, &r);
    assert_int_equal(r.status, 429);
    headers_have(&r, "Retry-After: 30\n");
    out_has(&r, "\"code\":\"too_many_requests\"");
    end(&r);
    expect(&f, "GET", "/api/v1/things", "other", NULL, 200, "{}");
    expect(&f, "GET", "/api/v1/things", "boss", NULL, 200, "{}");
    mono_now_ns = 30 * 1000000000LL;
    expect(&f, "GET", "/api/v1/things", "t", NULL, 200, "{}");
    mono_now_ns = 0;
    drop(&f);
}

static void writes_and_everything_else_are_refused_in_their_times(void **state)
{
    (void)state;
    struct fixture f = make();
    can_write = false;
    expect(&f, "POST", "/api/v1/things/1", "t", "{\"prompt\":\"x\"}", 503, "nearly full");
    expect(&f, "GET", "/api/v1/things", "t", NULL, 200, "{}");
    can_write = true;
    mu_api_set_stopping(f.api);
    expect(&f, "GET", "/api/v1/things", "t", NULL, 503, "\"code\":\"shutting_down\"");
    expect(&f, "GET", "/health", NULL, NULL, 200, "{}");
    drop(&f);
}

static void internal_errors_tell_nothing(void **state)
{
    (void)state;
    struct fixture f = make();
    expect(&f, "GET", "/api/v1/broken", "t", NULL, 500,
           "{\"error\":\"Internal error\",\"message\":\"Internal error\",\"code\":\"internal\",");
    drop(&f);
}

static void the_metrics_listener_serves_probes_without_a_key(void **state)
{
    (void)state;
    struct fixture f = make();
    struct mu_api_listener listener = {.probes_only = true};
    static const struct {
        const char *path;
        int status;
    } rows[] = {{"/metrics", 200}, {"/health", 404}, {"/api/v1/things", 404}, {"/nothing", 404}};
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_http_req r;
        begin(&r, "GET", rows[i].path);
        r.listener = &listener;
        run(&f, &r);
        assert_int_equal(r.status, rows[i].status);
        end(&r);
    }
    struct mu_http_req r;
    begin(&r, "GET", "/metrics");
    header(&r, "Authorization", "Bearer boss");
    run(&f, &r);
    headers_have(&r, "Content-Type: text/plain\n");
    end(&r);
    expect(&f, "GET", "/metrics", NULL, NULL, 401, "Unauthorized");
    drop(&f);
}

static void a_stream_carries_the_common_headers(void **state)
{
    (void)state;
    struct fixture f = make();
    expect(&f, "GET", "/api/v1/stream", "t", NULL, 200, "");
    drop(&f);
}

/* A request for a WebSocket; what `without` names is left out. */
static void ask_upgrade(struct fixture *f, const char *method, const char *path, const char *token,
                        const char *without, struct mu_http_req *r)
{
    static const struct {
        const char *name, *value;
    } headers[] = {{"Upgrade", "websocket"},
                   {"Connection", "Upgrade"},
                   {"Sec-WebSocket-Version", "13"},
                   {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}};
    begin(r, method, path);
    r->head.upgrade = true;
    for (size_t i = 0; i < MU_ARRAY_LEN(headers); i++) {
        if (!without || strcmp(without, headers[i].name) != 0) {
            header(r, headers[i].name, headers[i].value);
        } else if (i < 2) {
            r->head.upgrade = false;
        }
    }
    if (token) {
        header(r, "Authorization", token);
    }
    run(f, r);
}

static void a_websocket_is_opened_after_the_key_and_the_upgrade_were_looked_at(void **state)
{
    (void)state;
    static const struct {
        const char *method, *path, *token, *without;
        int status;
        bool closed;
    } rows[] = {
        {"GET", "/api/v1/socket", "Bearer boss", NULL, 101, false},
        {"GET", "/api/v1/socket?a=b", "bearer   boss ", NULL, 101, false},
        {"GET", "/api/v1/socket", NULL, NULL, 401, true},
        {"GET", "/api/v1/socket", "Bearer t", NULL, 403, true},
        {"GET", "/api/v1/socket", NULL, "Sec-WebSocket-Key", 401, true},
        {"GET", "/api/v1/socket", "Bearer boss", "Sec-WebSocket-Key", 400, true},
        {"GET", "/api/v1/socket", "Bearer boss", "Sec-WebSocket-Version", 400, true},
        {"GET", "/api/v1/socket", "Bearer boss", "Connection", 400, true},
        {"GET", "/api/v1/socket", "Bearer boss", "Upgrade", 426, false},
        {"HEAD", "/api/v1/socket", "Bearer boss", "Upgrade", 405, false},
        {"POST", "/api/v1/socket", "Bearer boss", NULL, 405, true},
        {"GET", "/api/v1/socket/", "Bearer boss", NULL, 404, true},
        {"GET", "/api/v1/socket/", "Bearer boss", "Upgrade", 404, false},
        {"GET", "/api/v1/things", "Bearer boss", NULL, 404, true},
        {"GET", "/api/v1/nothing", "Bearer boss", NULL, 404, true},
        {"GET", "/health", NULL, NULL, 404, true},
        {"GET", "/", NULL, NULL, 404, true},
    };
    struct fixture f = make();
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_http_req r;
        ask_upgrade(&f, rows[i].method, rows[i].path, rows[i].token, rows[i].without, &r);
        if (r.status != rows[i].status || r.closed != rows[i].closed) {
            fail_msg("row %zu: %d %d", i, r.status, r.closed);
        }
        if (r.status == 426 || r.status == 400) {
            headers_have(&r, "Sec-WebSocket-Version: 13\n");
        }
        if (r.status == 426) {
            headers_have(&r, "Upgrade: websocket\n");
            out_has(&r, "\"code\":\"upgrade_required\"");
        }
        if (r.status == 405) {
            headers_have(&r, "Allow: GET");
        }
        end(&r);
    }
    mu_api_set_stopping(f.api);
    struct mu_http_req r;
    ask_upgrade(&f, "GET", "/api/v1/socket", "Bearer boss", NULL, &r);
    assert_int_equal(r.status, 503);
    headers_have(&r, "Retry-After: ");
    end(&r);
    drop(&f);
}

static void trace_ids_are_taken_from_valid_headers_only(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        bool valid;
    } rows[] = {
        {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true},
        {"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true},
        {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false},
        {"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
        {"00-00000000000000000000000000000000-b7ad6b7169203331-01", false},
        {"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false},
        {"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
        {"00-0af7651916cd43dd", false},
    };
    struct fixture f = make();
    struct mu_http_ops ops = mu_api_http_ops(f.api);
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_http_req r;
        struct mu_http_admit admit;
        begin(&r, "GET", "/health");
        header(&r, "traceparent", rows[i].value);
        ops.admit(ops.arg, &r, &admit);
        assert_int_equal(mu_call_trace_id(r.ctx).len, rows[i].valid ? 32 : 0);
        ops.request(ops.arg, &r);
        end(&r);
    }
    drop(&f);
}

static int one_request(void *arg)
{
    struct mu_http_req r;
    begin(&r, "POST", "/api/v1/things/1?q=a");
    header(&r, "Authorization", "Bearer t");
    r.body = MU_B("{\"prompt\":\"hi\"}");
    run(arg, &r);
    int status = r.status;
    end(&r);
    assert_true(status == 200 || status == 503);
    return 0;
}

/* The answer switches the failing off (it must be recorded), so there is no count to stop at: the
 * numbers go well past what one request allocates. */
static void a_request_survives_any_failing_allocation(void **state)
{
    (void)state;
    struct fixture f = make();
    for (long n = 1; n < 60; n++) {
        mu_alloc_fail_at(n);
        one_request(&f);
        mu_alloc_fail_at(0);
    }
    drop(&f);
}

int main(void)
{
    mu_log_setup(&env, MU_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_request_reaches_its_handler),
        cmocka_unit_test(unknown_callers_learn_nothing_below_the_api),
        cmocka_unit_test(whom_the_process_knows_needs_no_key_but_the_right_role),
        cmocka_unit_test(bearers_are_read_leniently_and_other_schemes_refused),
        cmocka_unit_test(bad_input_is_refused_by_name),
        cmocka_unit_test(large_bodies_are_refused_before_they_come),
        cmocka_unit_test(malformed_messages_get_the_same_body),
        cmocka_unit_test(request_ids_are_kept_when_they_are_clean),
        cmocka_unit_test(foreign_hosts_and_origins_are_forbidden),
        cmocka_unit_test(preflights_are_answered_when_cors_is_on),
        cmocka_unit_test(bad_settings_are_refused_in_words),
        cmocka_unit_test(a_spent_budget_is_429_until_time_passes),
        cmocka_unit_test(writes_and_everything_else_are_refused_in_their_times),
        cmocka_unit_test(internal_errors_tell_nothing),
        cmocka_unit_test(the_metrics_listener_serves_probes_without_a_key),
        cmocka_unit_test(a_stream_carries_the_common_headers),
        cmocka_unit_test(trace_ids_are_taken_from_valid_headers_only),
        cmocka_unit_test(a_websocket_is_opened_after_the_key_and_the_upgrade_were_looked_at),
        cmocka_unit_test(a_request_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
