/* What a request says of its sender: bearers, and cookies from the right pages. */
#include "fake_http.h"

#include "face/api/api_int.h"

static void plain(struct mu_call *c)
{
    mu_buf_add_str(mu_call_buf(c), "{}");
    mu_call_send(c, 200);
}

static const struct mu_route routes[] = {
    {.method = MU_HTTP_POST,
     .path = "/api/v1/things/{id}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = plain},
    {.method = MU_HTTP_DELETE,
     .path = "/api/v1/things/{id}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = plain},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/things",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = plain},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/socket",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_ADMIN,
     .flags = MU_ROUTE_WEBSOCKET,
     .handler = plain},
    {.method = MU_HTTP_POST,
     .path = "/api/things",
     .face = MU_FACE_APP,
     .auth = MU_AUTH_TENANT,
     .handler = plain},
    {.path = NULL},
};
static const struct mu_route *const tables[] = {routes};

static int64_t fake_mono(const struct mu_env *env)
{
    (void)env;
    return 0;
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

struct fixture {
    struct mu_identity *identity;
    struct mu_api *api;
};

static struct fixture make_as(const char *public_url, bool tls)
{
    struct fixture f = {0};
    struct mu_err err;
    const struct mu_identity_opts io = {.env = &env, .admin_key = "boss"};
    assert_int_equal(mu_identity_new(&io, NULL, &f.identity, &err), 0);
    const struct mu_api_opts ao = {.env = &env,
                                   .identity = f.identity,
                                   .cors_origins = "https://listed.example",
                                   .public_url = public_url,
                                   .tls = tls,
                                   .allowed_hosts = "in.example",
                                   .tables = tables,
                                   .n_tables = 1};
    assert_int_equal(mu_api_new(&ao, &f.api, &err), 0);
    return f;
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
        ops.request(ops.arg, r);
    }
    assert_int_equal(r->answers, 1);
}

/* No login is known here: what passes the gate is 401, what does not is 403. */
static void cookie(struct fixture *f, const char *method, const char *path, const char *host,
                   const char *name, const char *origin, const char *site, int status)
{
    struct mu_http_req r;
    char text[160];
    begin(&r, method, path);
    r.head.host = mu_str(host);
    snprintf(text, sizeof text, "other=1; %s=ms_0123; x", name);
    header(&r, "Cookie", text);
    if (origin) {
        header(&r, "Origin", origin);
    }
    if (site) {
        header(&r, "Sec-Fetch-Site", site);
    }
    if (strcmp(path, "/api/v1/socket") == 0) {
        r.head.upgrade = true;
        header(&r, "Upgrade", "websocket");
        header(&r, "Connection", "Upgrade");
        header(&r, "Sec-WebSocket-Version", "13");
        header(&r, "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    }
    run(f, &r);
    if (r.status != status) {
        fail_msg("%s %s from %s, %s: %d %s", method, path, origin, site, r.status, r.out.ptr);
    }
    if (status == 403 && !(origin && strstr(origin, "evil"))) {
        out_has(&r, "must come from a page of this server");
    }
    end(&r);
}

static void a_cookie_needs_a_page_of_this_server(void **state)
{
    (void)state;
    static const char path[] = "/api/v1/things/x", socket[] = "/api/v1/socket";
    static const char own[] = "muster.example", name[] = "__Host-muster_session";
    struct fixture f = make_as("https://muster.example/base", false);
    cookie(&f, "GET", "/api/v1/things", own, name, NULL, NULL, 401);
    cookie(&f, "GET", "/api/v1/things", own, name, NULL, "cross-site", 401);
    cookie(&f, "HEAD", "/api/v1/things", own, name, NULL, NULL, 401);
    cookie(&f, "POST", path, own, name, NULL, NULL, 403);
    cookie(&f, "POST", path, own, name, NULL, "same-site", 403);
    cookie(&f, "POST", path, own, name, NULL, "none", 403);
    cookie(&f, "POST", path, own, name, NULL, "same-origin", 401);
    cookie(&f, "POST", path, own, name, "https://muster.example", NULL, 401);
    cookie(&f, "POST", path, own, name, "https://muster.example", "same-origin", 401);
    cookie(&f, "POST", path, own, name, "https://listed.example", NULL, 403);
    cookie(&f, "POST", path, own, name, "https://listed.example", "same-origin", 403);
    cookie(&f, "POST", path, own, name, "https://evil.example", "same-origin", 403);
    /* the same host in plain is not the same origin */
    cookie(&f, "POST", path, own, name, "http://muster.example", NULL, 403);
    cookie(&f, "POST", path, "127.0.0.1:8080", name, "http://127.0.0.1:8080", NULL, 401);
    cookie(&f, "DELETE", path, own, name, NULL, NULL, 403);
    cookie(&f, "GET", socket, own, name, NULL, NULL, 403);
    cookie(&f, "GET", socket, own, name, NULL, "same-origin", 403);
    cookie(&f, "GET", socket, own, name, "https://listed.example", NULL, 403);
    cookie(&f, "GET", socket, own, name, "https://muster.example", NULL, 401);
    drop(&f);
}

static void only_the_cookie_of_a_login_is_looked_at(void **state)
{
    (void)state;
    static const char *const others[] = {"muster_session=ms_1",
                                         "__Host-muster_sessions=ms_1",
                                         "__Host-muster_session=",
                                         "__Host-muster_session",
                                         "",
                                         ";;="};
    struct fixture f = make_as("https://muster.example/base", false);
    for (size_t i = 0; i < MU_ARRAY_LEN(others); i++) {
        struct mu_http_req r;
        begin(&r, "GET", "/api/v1/things");
        header(&r, "Cookie", others[i]);
        run(&f, &r);
        assert_int_equal(r.status, 401);
        out_has(&r, "send Authorization: Bearer");
        end(&r);
    }
    struct mu_http_req r;
    begin(&r, "GET", "/api/v1/things"); /* the admin key is no login */
    header(&r, "Cookie", "__Host-muster_session=boss");
    run(&f, &r);
    assert_int_equal(r.status, 401);
    out_has(&r, "unknown, revoked or expired");
    end(&r);
    begin(&r, "POST", "/api/v1/things/x"); /* a bearer goes before the cookie, from anywhere */
    header(&r, "Cookie", "__Host-muster_session=ms_1");
    header(&r, "Authorization", "Bearer t");
    r.body = MU_B("{\"prompt\":\"hi\"}");
    run(&f, &r);
    assert_int_equal(r.status, 200);
    end(&r);
    drop(&f);
}

/* Without a public URL: the listener's own scheme, or a proxy's. */
static void the_own_origin_is_that_of_the_listener(void **state)
{
    (void)state;
    static const char path[] = "/api/v1/things/x", host[] = "in.example:8080";
    struct fixture f = make_as(NULL, false);
    cookie(&f, "POST", path, host, "muster_session", "http://in.example:8080", NULL, 401);
    cookie(&f, "POST", path, host, "muster_session", "https://in.example:8080", NULL, 401);
    cookie(&f, "POST", path, host, "muster_session", "https://listed.example", NULL, 403);
    drop(&f);
    f = make_as(NULL, true);
    cookie(&f, "POST", path, host, "__Host-muster_session", "https://in.example:8080", NULL, 401);
    cookie(&f, "POST", path, host, "__Host-muster_session", "http://in.example:8080", NULL, 403);
    drop(&f);
}

static void errors_of_the_app_have_its_shape(void **state)
{
    (void)state;
    struct fixture f = make_as(NULL, false);
    struct mu_http_req r;
    begin(&r, "POST", "/api/things");
    header(&r, "Cookie", "muster_session=ms_1");
    run(&f, &r);
    assert_int_equal(r.status, 403);
    out_has(&r, "{\"error\":\"This request must come from a page of this server: its Origin header "
                "must be the server's own, or Sec-Fetch-Site must be "
                "same-origin\",\"code\":\"FORBIDDEN\",\"requestId\":\"req_");
    end(&r);
    begin(&r, "GET", "/api/none");
    run(&f, &r);
    assert_int_equal(r.status, 404);
    out_has(&r, "{\"error\":\"Not found\",\"code\":\"NOT_FOUND\",\"requestId\":\"req_");
    end(&r);
    drop(&f);
}

int main(void)
{
    mu_log_setup(&env, MU_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cookie_needs_a_page_of_this_server),
        cmocka_unit_test(only_the_cookie_of_a_login_is_looked_at),
        cmocka_unit_test(the_own_origin_is_that_of_the_listener),
        cmocka_unit_test(errors_of_the_app_have_its_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
