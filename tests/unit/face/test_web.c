/* The web app's files and the throttle of signing in, on a request object of our own. */
#include "fake_http.h"

#include "../alloc_fail.h"
#include "face/api/api_int.h"
#include "face/oz/oz.h"
#include "face/web/web.h"

#define HASH "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"

static const struct mu_web_asset items[] = {
    {.path = "/assets/app-12345678.js",
     .type = "text/javascript; charset=utf-8",
     .sha256 = HASH,
     .immutable = true,
     .plain = {"plain script", 12},
     .gzip = {"gz", 2},
     .brotli = {"b", 1}},
    {.path = "/favicon.svg", .type = "image/svg+xml", .sha256 = HASH, .plain = {"<svg/>", 6}},
    {.path = "/index.html",
     .type = "text/html; charset=utf-8",
     .sha256 = HASH,
     .plain = {"<!doctype html>", 15},
     .gzip = {"page", 4}}};
static const struct mu_web_assets assets = {items, MU_ARRAY_LEN(items)};
static const struct mu_web_assets nothing = {NULL, 0};

/* --- what the client takes --- */

static void the_smallest_form_that_the_client_takes_is_sent(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        int script, page;
    } table[] = {{NULL, MU_CODING_PLAIN, MU_CODING_PLAIN},
                 {"", MU_CODING_PLAIN, MU_CODING_PLAIN},
                 {"gzip, deflate, br, zstd", MU_CODING_BROTLI, MU_CODING_GZIP},
                 {"GZIP", MU_CODING_GZIP, MU_CODING_GZIP},
                 {"br", MU_CODING_BROTLI, MU_CODING_PLAIN},
                 {"*", MU_CODING_BROTLI, MU_CODING_GZIP},
                 {"br;q=0, gzip", MU_CODING_GZIP, MU_CODING_GZIP},
                 {"br; q=0.000, *;q=0.1", MU_CODING_GZIP, MU_CODING_GZIP},
                 {"br;q=0.5, gzip;q=0.8", MU_CODING_GZIP, MU_CODING_GZIP},
                 {"br;q=1.0, gzip;q=0.8", MU_CODING_BROTLI, MU_CODING_GZIP},
                 {"gzip;q=0, br;q=0", MU_CODING_PLAIN, MU_CODING_PLAIN},
                 {"identity", MU_CODING_PLAIN, MU_CODING_PLAIN},
                 {"identity;q=0, gzip;q=0", MU_CODING_PLAIN, MU_CODING_PLAIN},
                 {"brr, gzipp", MU_CODING_PLAIN, MU_CODING_PLAIN},
                 {";q=1,,;", MU_CODING_PLAIN, MU_CODING_PLAIN},
                 {"br;q=", MU_CODING_BROTLI, MU_CODING_PLAIN}};
    for (size_t i = 0; i < MU_ARRAY_LEN(table); i++) {
        if ((int)mu_web_negotiate(mu_str(table[i].header), &items[0]) != table[i].script ||
            (int)mu_web_negotiate(mu_str(table[i].header), &items[2]) != table[i].page) {
            fail_msg("%s", table[i].header);
        }
    }
}

static void a_tag_of_any_form_means_unchanged(void **state)
{
    (void)state;
    static const char *const same[] = {"\"" HASH "\"", "\"" HASH "-gz\"", "W/\"" HASH "-br\"", "*",
                                       "\"x\", \"" HASH "\""};
    static const char *const other[] = {"", "\"x\"", HASH, "\"\"", "W/", ",", "\"2c26b46b\""};
    for (size_t i = 0; i < MU_ARRAY_LEN(same); i++) {
        assert_true(mu_web_unchanged(mu_str(same[i]), &items[0]));
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(other); i++) {
        assert_false(mu_web_unchanged(mu_str(other[i]), &items[0]));
    }
    assert_false(mu_web_unchanged(MU_B_NONE, &items[0]));
}

static void a_page_is_for_who_asks_for_html(void **state)
{
    (void)state;
    assert_true(mu_web_wants_page(MU_B("text/html,application/xhtml+xml,*/*;q=0.8")));
    assert_true(mu_web_wants_page(MU_B("application/json, TEXT/HTML;q=0.1")));
    assert_false(mu_web_wants_page(MU_B("*/*")));
    assert_false(mu_web_wants_page(MU_B("text/html;q=0, */*")));
    assert_false(mu_web_wants_page(MU_B("application/json")));
    assert_false(mu_web_wants_page(MU_B_NONE));
}

static void every_file_is_found_by_its_whole_path(void **state)
{
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(items); i++) {
        assert_ptr_equal(mu_web_find(&assets, mu_str(items[i].path)), &items[i]);
    }
    static const char *const none[] = {"/", "", "/favicon.sv", "/favicon.svgg", "/a", "/z"};
    for (size_t i = 0; i < MU_ARRAY_LEN(none); i++) {
        assert_null(mu_web_find(&assets, mu_str(none[i])));
    }
    assert_null(mu_web_find(&nothing, MU_B("/index.html")));
}

/* --- requests --- */

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

static void plain(struct mu_call *c)
{
    mu_buf_add_str(mu_call_buf(c), "{}");
    mu_call_send(c, 200);
}

static const struct mu_route routes[] = {
    {.method = MU_HTTP_GET, .path = "/livez", .flags = MU_ROUTE_PROBE, .handler = plain},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/things",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = plain},
    {.path = NULL}};
static const struct mu_route *const tables[] = {routes};

struct fixture {
    struct mu_identity *identity;
    struct mu_oz oz;
    struct mu_web web;
    struct mu_api *api;
};

static void open_with(struct fixture *f, const struct mu_web_assets *a)
{
    struct mu_err err;
    memset(f, 0, sizeof *f);
    const struct mu_identity_opts io = {.env = &env, .admin_key = "boss"};
    assert_int_equal(mu_identity_new(&io, NULL, &f->identity, &err), 0);
    f->web = (struct mu_web){.env = &env, .identity = f->identity, .assets = a};
    f->oz.web = &f->web;
    const struct mu_api_opts ao = {.env = &env,
                                   .identity = f->identity,
                                   .tables = tables,
                                   .n_tables = 1,
                                   .other = mu_web_other,
                                   .app = &f->oz};
    assert_int_equal(mu_api_new(&ao, &f->api, &err), 0);
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

/* One GET (or other) with up to one header, its status and (or NULL) its body. */
static void expect(struct fixture *f, const char *method, const char *path, const char *name,
                   const char *value, int status, const char *text)
{
    struct mu_http_req r;
    begin(&r, method, path);
    if (name) {
        header(&r, name, value);
    }
    run(f, &r);
    if (r.status != status || (text && strcmp((char *)r.out.ptr, text) != 0)) {
        fail_msg("%s %s: %d %s", method, path, r.status, r.out.ptr);
    }
    headers_have(&r, "X-Content-Type-Options: nosniff\n");
    end(&r);
}

static void files_and_pages_have_their_places(void **state)
{
    (void)state;
    struct fixture f;
    static const char page[] = "<!doctype html>", html[] = "text/html,*/*;q=0.8";
    open_with(&f, &assets);
    expect(&f, "GET", "/", NULL, NULL, 200, page);
    expect(&f, "GET", "/index.html", NULL, NULL, 200, page);
    expect(&f, "GET", "/favicon.svg", NULL, NULL, 200, "<svg/>");
    expect(&f, "GET", "/assets/app-12345678.js", "Accept-Encoding", "br", 200, "b");
    expect(&f, "GET", "/assets/app-12345678.js", "Accept-Encoding", "gzip", 200, "gz");
    expect(&f, "GET", "/assets/app-12345678.js", NULL, NULL, 200, "plain script");
    expect(&f, "GET", "/assets/app-12345678.js", "Range", "bytes=0-3", 200, "plain script");
    expect(&f, "GET", "/sessions/ses_1?tab=files", "Accept", html, 200, page);
    expect(&f, "HEAD", "/sessions/ses_1", "Accept", html, 200, page); /* net sends its length */
    expect(&f, "GET", "/livez", "Accept", html, 200, "{}");
    static const char *const none[] = {"/api", "/api/x", "/assets/none.js", "/agent/runs/1",
                                       "/webhooks/x"};
    for (size_t i = 0; i < MU_ARRAY_LEN(none); i++) {
        expect(&f, "GET", none[i], "Accept", html, 404, NULL);
    }
    expect(&f, "GET", "/api/v1/none", "Accept", html, 401, NULL);
    expect(&f, "GET", "/sessions/ses_1", "Accept", "*/*", 404, NULL);
    expect(&f, "POST", "/sessions/ses_1", "Accept", html, 404, NULL);
    expect(&f, "POST", "/", NULL, NULL, 405, NULL);
    expect(&f, "DELETE", "/favicon.svg", NULL, NULL, 405, NULL);
    drop(&f);
}

static void a_file_says_how_long_it_is_good_and_what_it_may(void **state)
{
    (void)state;
    struct fixture f;
    struct mu_http_req r;
    open_with(&f, &assets);
    begin(&r, "GET", "/assets/app-12345678.js");
    header(&r, "Accept-Encoding", "gzip, br");
    run(&f, &r);
    headers_have(&r, "Content-Type: text/javascript; charset=utf-8\n");
    headers_have(&r, "Cache-Control: public, max-age=31536000, immutable\n");
    headers_have(&r, "ETag: \"" HASH "-br\"\n");
    headers_have(&r, "Content-Encoding: br\n");
    headers_have(&r, "Vary: Accept-Encoding\n");
    headers_have(&r, "Accept-Ranges: none\n");
    headers_have(&r, "Referrer-Policy: no-referrer\n");
    headers_have(&r, "Cross-Origin-Opener-Policy: same-origin\n");
    headers_have(&r, "camera=(), ");
    headers_have(&r, "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src "
                     "'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self' "
                     "ws://127.0.0.1:8080 wss://127.0.0.1:8080; worker-src 'self' blob:; frame-src "
                     "'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'\n");
    assert_null(strstr((char *)r.out_headers.ptr, "no-store"));
    end(&r);

    begin(&r, "GET", "/");
    header(&r, "If-None-Match", "\"" HASH "-gz\"");
    run(&f, &r);
    assert_int_equal(r.status, 304);
    assert_int_equal(r.out.ptr[0], 0);
    headers_have(&r, "Cache-Control: no-cache\n");
    headers_have(&r, "ETag: \"" HASH "\"\n");
    headers_have(&r, "Vary: Accept-Encoding\n");
    assert_null(strstr((char *)r.out_headers.ptr, "Content-Type:"));
    end(&r);
    drop(&f);
}

/* OZ_ALLOWED_HOSTS=* lets any Host header in: it is not what a policy is made of. */
static void a_host_cannot_write_into_the_policy(void **state)
{
    (void)state;
    struct fixture f;
    struct mu_err err;
    struct mu_http_req r;
    open_with(&f, &assets);
    f.api = mu_api_free(f.api);
    const struct mu_api_opts ao = {.env = &env,
                                   .identity = f.identity,
                                   .allowed_hosts = "*",
                                   .tables = tables,
                                   .n_tables = 1,
                                   .other = mu_web_other,
                                   .app = &f.oz};
    assert_int_equal(mu_api_new(&ao, &f.api, &err), 0);
    begin(&r, "GET", "/");
    r.head.host = MU_B("x; script-src *");
    run(&f, &r);
    assert_int_equal(r.status, 200);
    headers_have(&r, "connect-src 'self'; worker-src");
    end(&r);
    drop(&f);
}

static void without_an_app_the_root_says_so(void **state)
{
    (void)state;
    struct fixture f;
    open_with(&f, &nothing);
    expect(&f, "GET", "/", "Accept", "text/html", 404,
           "This build of Muster has no web app: run script/build with Node.js 18 or later "
           "installed, which makes web/dist first.\n");
    expect(&f, "GET", "/sessions", "Accept", "text/html", 404, NULL);
    drop(&f);
    open_with(&f, NULL); /* OZ_WEB=off */
    struct mu_http_req r;
    begin(&r, "GET", "/");
    header(&r, "Accept", "text/html");
    run(&f, &r);
    assert_int_equal(r.status, 404);
    out_has(&r, "\"code\":\"not_found\"");
    end(&r);
    drop(&f);
}

static void the_metrics_listener_has_no_pages(void **state)
{
    (void)state;
    struct fixture f;
    struct mu_http_req r;
    struct mu_api_listener probes = {.probes_only = true};
    open_with(&f, &assets);
    begin(&r, "GET", "/");
    r.listener = &probes;
    run(&f, &r);
    assert_int_equal(r.status, 404);
    end(&r);
    drop(&f);
}

static void a_file_survives_any_failing_allocation(void **state)
{
    (void)state;
    struct fixture f;
    open_with(&f, &assets);
    for (long n = 1; n < 40; n++) {
        struct mu_http_req r;
        begin(&r, "GET", "/assets/app-12345678.js");
        header(&r, "Accept-Encoding", "br");
        mu_alloc_fail_at(n);
        run(&f, &r);
        mu_alloc_fail_at(0);
        assert_true(r.status == 200 || r.status == 503);
        if (r.status == 200) {
            assert_string_equal((char *)r.out.ptr, "b");
        }
        end(&r);
    }
    drop(&f);
}

/* --- how often --- */

static void an_address_may_try_so_often_and_fail_so_often(void **state)
{
    (void)state;
    struct mu_login_rates *r;
    int64_t wait, now = 1000;
    assert_int_equal(mu_login_rates_new(20, 10, &r), 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(mu_login_try(r, MU_B("10.0.0.1"), now + i, &wait), 0);
    }
    assert_int_equal(mu_login_try(r, MU_B("10.0.0.1"), now + 100, &wait), MU_E_LIMIT);
    assert_int_equal(wait, MU_LOGIN_TRIES_MS - 100);
    assert_int_equal(mu_login_try(r, MU_B("10.0.0.2"), now, &wait), 0);
    assert_int_equal(mu_login_try(r, MU_B("10.0.0.1"), now + MU_LOGIN_TRIES_MS - 1, &wait),
                     MU_E_LIMIT);
    now += MU_LOGIN_TRIES_MS;
    assert_int_equal(mu_login_try(r, MU_B("10.0.0.1"), now, &wait), 0);
    now += MU_LOGIN_TRIES_MS;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(mu_login_try(r, MU_B("10.0.0.1"), now + i, &wait), 0);
        mu_login_failed(r, MU_B("10.0.0.1"), now + i);
    }
    now += MU_LOGIN_TRIES_MS;
    assert_int_equal(mu_login_try(r, MU_B("10.0.0.1"), now, &wait), MU_E_LIMIT);
    assert_int_equal(wait, MU_LOGIN_FAILURES_MS - MU_LOGIN_TRIES_MS);
    now += wait;
    assert_int_equal(mu_login_try(r, MU_B("10.0.0.1"), now, &wait), 0);
    mu_login_rates_free(r);
}

static void zero_is_no_limit(void **state)
{
    (void)state;
    struct mu_login_rates *r;
    int64_t wait;
    assert_int_equal(mu_login_rates_new(0, 0, &r), 0);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(mu_login_try(r, MU_B("10.0.0.1"), 7, &wait), 0);
        mu_login_failed(r, MU_B("10.0.0.1"), 7);
    }
    mu_login_rates_free(r);
}

static void a_network_of_ipv6_is_one_address(void **state)
{
    (void)state;
    struct mu_login_rates *r;
    int64_t wait;
    assert_int_equal(mu_login_rates_new(20, 10, &r), 0);
    for (int i = 0; i < 10; i++) {
        char peer[40];
        snprintf(peer, sizeof peer, "2001:db8:1:2::%x", i + 1);
        mu_login_failed(r, mu_str(peer), 5000);
    }
    assert_int_equal(mu_login_try(r, MU_B("2001:db8:1:2:ffff::1"), 5001, &wait), MU_E_LIMIT);
    assert_int_equal(mu_login_try(r, MU_B("2001:db8:1:3::1"), 5001, &wait), 0);
    mu_login_rates_free(r);
}

int main(void)
{
    mu_log_setup(&env, MU_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_form_that_the_client_takes_is_sent),
        cmocka_unit_test(a_tag_of_any_form_means_unchanged),
        cmocka_unit_test(a_page_is_for_who_asks_for_html),
        cmocka_unit_test(every_file_is_found_by_its_whole_path),
        cmocka_unit_test(files_and_pages_have_their_places),
        cmocka_unit_test(a_file_says_how_long_it_is_good_and_what_it_may),
        cmocka_unit_test(a_host_cannot_write_into_the_policy),
        cmocka_unit_test(without_an_app_the_root_says_so),
        cmocka_unit_test(the_metrics_listener_has_no_pages),
        cmocka_unit_test(a_file_survives_any_failing_allocation),
        cmocka_unit_test(an_address_may_try_so_often_and_fail_so_often),
        cmocka_unit_test(zero_is_no_limit),
        cmocka_unit_test(a_network_of_ipv6_is_one_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
