/* The envelope of the sessions face, on a request object of our own: every answer has it, and all
 * problems of a request are told at once. */
#include "fake_http.h"

#include "../alloc_fail.h"
#include "face/api/api_int.h"

static void give(struct mu_call *c)
{
    struct mu_json_w w = mu_call_data(c);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "id", mu_call_param(c, "id"));
    mu_jw_obj_end(&w);
    const struct mu_http_pair location = {"Location", MU_B("/there")};
    mu_call_data_send(c, 201, &location, 1);
}

static void nothing(struct mu_call *c)
{
    mu_call_done(c);
}

static void mismatch(struct mu_call *c)
{
    mu_call_fail(c, MU_E_MISMATCH);
}

static void gone(struct mu_call *c)
{
    mu_call_error(c, 404, "SESSION_NOT_FOUND", NULL, "There is no such session");
}

static void with_details(struct mu_call *c)
{
    mu_call_error_details(c, 409, "BUILD_BLOCKED", MU_B("{\"status\":\"known_bad\"}"), "No");
}

static void check(struct mu_call *c)
{
    yyjson_val *b = mu_call_body(c);
    if (mu_json_get(b, "branch") && mu_json_get(b, "tag")) {
        mu_call_issue(c, "invalid_format", "tag", "tag excludes branch");
    }
}

static const struct mu_schema value = {.type = MU_S_STRING, .max = 4};
static const struct mu_schema repo[] = {
    {.name = "url",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED,
     .min = 1,
     .max = 2048,
     .form = MU_F_REPO},
    {.name = "commit", .type = MU_S_STRING, .min = 7, .max = 64, .form = MU_F_HEX},
    {0}};
static const struct mu_schema body[] = {
    {.name = "orgId", .type = MU_S_STRING, .flags = MU_S_REQUIRED, .form = MU_F_ID},
    {.name = "repo", .type = MU_S_OBJECT, .flags = MU_S_REQUIRED, .items = repo},
    {.name = "branch", .type = MU_S_STRING, .form = MU_F_REF},
    {.name = "tag", .type = MU_S_STRING, .form = MU_F_REF},
    {.name = "mode", .type = MU_S_STRING, .words = "task interactive"},
    {.name = "minutes", .type = MU_S_INT, .min = 1, .max = 120},
    {.name = "env", .type = MU_S_MAP, .items = &value, .max = 100, .form = MU_F_ENV_NAME},
    {0}};
static const struct mu_schema query[] = {{.name = "page", .type = MU_S_INT, .min = 1, .max = 9},
                                         {.name = "size", .type = MU_S_INT, .min = 1, .max = 9},
                                         {0}};

static const struct mu_route routes[] = {
    {.method = MU_HTTP_POST,
     .path = "/api/v1/sessions",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .max_body = 100000,
     .query = query,
     .body = body,
     .check = check,
     .handler = nothing},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/sessions/{id}",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .handler = give},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/sweeps",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .role = MU_ROLE_ORG_ADMIN,
     .handler = nothing},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/updates/status",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .handler = mismatch},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/builds/{id}",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .handler = gone},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/rollouts",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .handler = with_details},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/runners",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_ADMIN,
     .handler = nothing},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/providers",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = mismatch},
    {.path = NULL},
};

static int64_t mono(const struct mu_env *env)
{
    (void)env;
    return 42 * INT64_C(1000000);
}
static int64_t wall(const struct mu_env *env)
{
    (void)env;
    return 1000;
}
static void bytes(const struct mu_env *env, void *dst, size_t len)
{
    (void)env;
    memset(dst, 7, len);
}
static const struct mu_env env = {wall, mono, bytes, NULL};

static bool can_write;
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

static int make_of(struct fixture *f, const struct mu_route *table)
{
    struct mu_err err;
    const struct mu_route *tables[] = {table};
    const struct mu_identity_opts io = {.env = &env, .admin_key = "boss"};
    assert_int_equal(mu_identity_new(&io, NULL, &f->identity, &err), 0);
    const struct mu_api_opts ao = {.env = &env,
                                   .identity = f->identity,
                                   .tables = tables,
                                   .n_tables = 1,
                                   .writable = writable};
    can_write = true;
    return mu_api_new(&ao, &f->api, &err);
}

static struct fixture make(void)
{
    struct fixture f = {0};
    assert_int_equal(make_of(&f, routes), 0);
    return f;
}

static void drop(struct fixture *f)
{
    mu_api_free(f->api);
    mu_identity_free(f->identity);
}

static void send(struct fixture *f, struct mu_http_req *r, const char *method, const char *path,
                 const char *token, const char *content)
{
    static char bearer[128];
    begin(r, method, path);
    if (token) {
        snprintf(bearer, sizeof bearer, "Bearer %s", token);
        header(r, "Authorization", bearer);
    }
    header(r, "X-Request-Id", "mine");
    if (content) {
        r->body = mu_str(content);
        r->head.content_length = (int64_t)r->body.len;
    }
    struct mu_http_ops ops = mu_api_http_ops(f->api);
    struct mu_http_admit admit = {0};
    ops.admit(ops.arg, r, &admit);
    if (!admit.refuse) {
        ops.request(ops.arg, r);
    }
    assert_int_equal(r->answers, 1);
}

#define META                                                                                       \
    "\"meta\":{\"requestId\":\"mine\",\"timestamp\":\"1970-01-01T00:00:01.000Z\",\"duration\":42}" \
    "}"

static void answers(struct fixture *f, const char *method, const char *path, const char *token,
                    const char *content, int status, const char *exactly)
{
    struct mu_http_req r;
    send(f, &r, method, path, token, content);
    if (r.status != status || strcmp(r.out.ptr, exactly) != 0) {
        fail_msg("%s %s: %d %s\ninstead of %d %s", method, path, r.status, r.out.ptr, status,
                 exactly);
    }
    headers_have(&r, "Content-Type: application/json; charset=utf-8\n");
    headers_have(&r, "X-Request-Id: mine\n");
    headers_have(&r, "Cache-Control: no-store\n");
    end(&r);
}

static void success_is_data_and_meta(void **state)
{
    (void)state;
    struct fixture f = make();
    answers(&f, "GET", "/api/v1/sessions/x", "t", NULL, 201,
            "{\"success\":true,\"data\":{\"id\":\"x\"}," META);
    answers(&f, "POST", "/api/v1/sessions", "t",
            "{\"orgId\":\"o\",\"repo\":{\"url\":\"https://h/p\"}}", 200, "{\"success\":true," META);
    drop(&f);
}

#define ERROR(code, message)                                                                       \
    "{\"success\":false,\"error\":{\"code\":\"" code "\",\"message\":\"" message "\"}," META

static void every_refusal_has_the_envelope(void **state)
{
    (void)state;
    struct fixture f = make();
    answers(&f, "GET", "/api/v1/sessions/x", NULL, NULL, 401,
            ERROR("UNAUTHORIZED", "Unauthorized: send Authorization: Bearer <token>"));
    answers(&f, "GET", "/api/v1/ws-tickets/none", NULL, NULL, 401,
            ERROR("UNAUTHORIZED", "Unauthorized: send Authorization: Bearer <token>"));
    answers(&f, "GET", "/api/v1/orgs/x/none", "t", NULL, 404, ERROR("NOT_FOUND", "Not found"));
    answers(&f, "GET", "/api/v1/providers/x/none", "t", NULL, 404, ERROR("NOT_FOUND", "Not found"));
    answers(&f, "PATCH", "/api/v1/sessions", "t", NULL, 405,
            ERROR("METHOD_NOT_ALLOWED", "Method not allowed"));
    answers(&f, "GET", "/api/v1/runners", "t", NULL, 403,
            ERROR("FORBIDDEN", "This needs the admin key"));
    answers(&f, "GET", "/api/v1/sweeps", "t", NULL, 403,
            ERROR("FORBIDDEN", "This needs the role of an administrator of the org"));
    answers(&f, "GET", "/api/v1/sweeps", "boss", NULL, 200, "{\"success\":true," META);
    answers(&f, "GET", "/api/v1/updates/status", "t", NULL, 409,
            ERROR("IDEMPOTENCY_CONFLICT", "The Idempotency-Key was used with another body"));
    answers(&f, "GET", "/api/v1/builds/x", "t", NULL, 404,
            ERROR("SESSION_NOT_FOUND", "There is no such session"));
    answers(&f, "GET", "/api/v1/rollouts", "t", NULL, 409,
            "{\"success\":false,\"error\":{\"code\":\"BUILD_BLOCKED\",\"message\":\"No\","
            "\"details\":{\"status\":\"known_bad\"}}," META);
    can_write = false;
    answers(&f, "POST", "/api/v1/sessions", "t", "{}", 503,
            ERROR("UNAVAILABLE", "The disk is nearly full"));
    can_write = true;
    mu_api_set_stopping(f.api);
    answers(&f, "GET", "/api/v1/sessions/x", "t", NULL, 503,
            ERROR("SHUTTING_DOWN", "The server is shutting down"));
    drop(&f);
}

static void too_large_a_body_is_refused_in_the_envelope(void **state)
{
    (void)state;
    struct fixture f = make();
    struct mu_http_req r;
    begin(&r, "POST", "/api/v1/sessions");
    header(&r, "Authorization", "Bearer t");
    r.head.content_length = 100001;
    struct mu_http_ops ops = mu_api_http_ops(f.api);
    struct mu_http_admit admit = {0};
    ops.admit(ops.arg, &r, &admit);
    assert_true(admit.refuse);
    assert_int_equal(r.status, 413);
    out_has(&r, "{\"success\":false,\"error\":{\"code\":\"PAYLOAD_TOO_LARGE\"");
    out_has(&r, "\"requestId\":\"req_");
    end(&r);
    drop(&f);
}

static void a_message_that_is_no_request_is_told_so_in_the_envelope(void **state)
{
    (void)state;
    struct fixture f = make();
    struct mu_http_req r;
    begin(&r, "GET", "/api/v1/sessions/%01");
    struct mu_http_ops ops = mu_api_http_ops(f.api);
    ops.malformed(ops.arg, &r, 400, "malformed path");
    assert_int_equal(r.status, 400);
    out_has(&r, "\"code\":\"VALIDATION_ERROR\",\"message\":\"malformed path\"");
    end(&r);
    begin(&r, "GET", "/api/v1/agent/runs/%01");
    ops.malformed(ops.arg, &r, 400, "malformed path");
    out_has(&r, "\"code\":\"bad_request\"");
    end(&r);
    drop(&f);
}

static void another_face_keeps_its_own_body(void **state)
{
    (void)state;
    struct fixture f = make();
    struct mu_http_req r;
    send(&f, &r, "GET", "/api/v1/providers", "t", NULL);
    assert_int_equal(r.status, 422);
    out_has(&r, "\"request_id\":\"mine\"");
    end(&r);
    send(&f, &r, "GET", "/api/v1/sessionsx", NULL, NULL);
    out_has(&r, "\"code\":\"unauthorized\"");
    end(&r);
    drop(&f);
}

/* --- validation --- */

static void refused(struct fixture *f, const char *path, const char *content,
                    const char *const *issues)
{
    struct mu_http_req r;
    send(f, &r, "POST", path, "t", content);
    if (r.status != 400) {
        fail_msg("%s: %d %s", content, r.status, r.out.ptr);
    }
    out_has(&r, "\"code\":\"VALIDATION_ERROR\"");
    size_t n = 0, seen = 0;
    for (; issues[n]; n++) {
        out_has(&r, issues[n]);
    }
    for (const char *at = r.out.ptr; (at = strstr(at, "{\"path\":")); at++) {
        seen++;
    }
    if (seen != n) {
        fail_msg("%zu issues instead of %zu: %s", seen, n, r.out.ptr);
    }
    end(&r);
}

#define ISSUE(path, code) "{\"path\":\"" path "\",\"code\":\"" code "\","
#define REFUSED(f, path, content, ...)                                                             \
    refused(f, path, content, (const char *const[]){__VA_ARGS__, NULL})

static void all_problems_are_told_at_once(void **state)
{
    (void)state;
    struct fixture f = make();
    REFUSED(&f, "/api/v1/sessions?page=0&size=x",
            "{\"extra\":1,\"orgId\":7,\"repo\":{\"url\":\"https://a:b@h/p\",\"commit\":\"xyz\","
            "\"more\":1},\"branch\":\"-x\",\"tag\":\"v1\",\"mode\":\"fast\",\"minutes\":121,"
            "\"env\":{\"A\":\"12345\",\"1B\":\"\",\"PATH\":\"\",\"LD_PRELOAD\":\"\","
            "\"GIT_CONFIG_GLOBAL\":\"\",\"OZ_X\":\"\"}}",
            ISSUE("page", "too_small"), ISSUE("size", "invalid_type"),
            ISSUE("extra", "unrecognized_key"), ISSUE("orgId", "invalid_type"),
            ISSUE("repo.url", "invalid_url"), ISSUE("repo.commit", "too_small"),
            ISSUE("repo.more", "unrecognized_key"), ISSUE("branch", "invalid_format"),
            ISSUE("mode", "invalid_enum"), ISSUE("minutes", "too_big"), ISSUE("env.A", "too_big"),
            ISSUE("env.1B", "invalid_format"), ISSUE("env.PATH", "reserved"),
            ISSUE("env.LD_PRELOAD", "reserved"), ISSUE("env.GIT_CONFIG_GLOBAL", "reserved"),
            ISSUE("env.OZ_X", "reserved"), ISSUE("tag", "invalid_format"));
    REFUSED(&f, "/api/v1/sessions", "", ISSUE("orgId", "required"), ISSUE("repo", "required"));
    REFUSED(&f, "/api/v1/sessions", "{\"orgId\":\"o\",\"repo\":{}}", ISSUE("repo.url", "required"));
    REFUSED(&f, "/api/v1/sessions", "[1]", ISSUE("", "invalid_type"));
    REFUSED(&f, "/api/v1/sessions", "{\"a", ISSUE("", "invalid_format"));
    REFUSED(&f, "/api/v1/sessions", "{\"a\":\"\xff\"}", ISSUE("", "invalid_format"));
    REFUSED(&f, "/api/v1/sessions?page=%zz", "{\"orgId\":null,\"repo\":[]}",
            ISSUE("", "invalid_format"), ISSUE("orgId", "required"), ISSUE("repo", "invalid_type"));
    drop(&f);
}

static void at_most_fifty_are_told(void **state)
{
    (void)state;
    struct fixture f = make();
    struct mu_buf b;
    struct mu_http_req r;
    mu_buf_init(&b, 1 << 20);
    mu_buf_add_str(&b, "{");
    for (int i = 0; i < 80; i++) {
        mu_buf_printf(&b, "%s\"k%d\":1", i ? "," : "", i);
    }
    mu_buf_add_str(&b, "}");
    mu_buf_add_char(&b, 0);
    send(&f, &r, "POST", "/api/v1/sessions", "t", b.ptr);
    assert_int_equal(r.status, 400);
    out_has(&r, ISSUE("k49", "unrecognized_key"));
    assert_null(strstr(r.out.ptr, "\"k50\""));
    end(&r);
    mu_buf_fini(&b);
    drop(&f);
}

static void repositories_are_urls_without_credentials(void **state)
{
    (void)state;
    static const char *const good[] = {"https://github.com/a/b", "https://github.com/a/b.git",
                                       "HTTPS://h:8443/p",       "ssh://git@h/p",
                                       "ssh://h:22/p/q",         "git+ssh://git@h/p",
                                       "git@github.com:a/b.git", "deploy.key@h:p"};
    static const char *const bad[] = {"",
                                      "x",
                                      "owner/name",
                                      "/etc/x",
                                      "../x",
                                      "file:///x",
                                      "http://h/p",
                                      "git://h/p",
                                      "ext::sh -c x",
                                      "https://",
                                      "https://h",
                                      "https://h/",
                                      "https://u@h/p",
                                      "https://u:p@h/p",
                                      "ssh://u:p@h/p",
                                      "--upload-pack=x",
                                      "-x@h:p",
                                      "u@-h:p",
                                      "https://h/p#b",
                                      "https://h/p?x=y",
                                      "https://h/a b",
                                      " https://h/p",
                                      "https://-h/p",
                                      "u@h:",
                                      "u@h::p",
                                      "https://h/.."};
    const char *why = "";
    for (size_t i = 0; i < MU_ARRAY_LEN(good); i++) {
        if (mu_form_refuse(MU_F_REPO, mu_str(good[i]), &why)) {
            fail_msg("%s is refused: %s", good[i], why);
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        const char *code = mu_form_refuse(MU_F_REPO, mu_str(bad[i]), &why);
        if (!code || strcmp(code, "invalid_url") != 0) {
            fail_msg("%s is taken", bad[i]);
        }
    }
}

static void a_route_of_another_face_is_refused_at_start(void **state)
{
    (void)state;
    static const struct mu_route wrong[] = {
        {.method = MU_HTTP_GET, .path = "/api/v1/sessions", .face = MU_FACE_OZ, .handler = nothing},
        {.path = NULL}};
    static const struct mu_route wrong_too[] = {{.method = MU_HTTP_GET,
                                                 .path = "/api/v1/agent/x",
                                                 .face = MU_FACE_SESSIONS,
                                                 .handler = nothing},
                                                {.path = NULL}};
    struct fixture f = {0};
    assert_int_equal(make_of(&f, wrong), MU_E_INVALID);
    drop(&f);
    f = (struct fixture){0};
    assert_int_equal(make_of(&f, wrong_too), MU_E_INVALID);
    drop(&f);
}

static int refuse_once(void *arg)
{
    struct fixture *f = arg;
    struct mu_http_req r;
    send(f, &r, "POST", "/api/v1/sessions?page=0", "t", "{\"x\":1,\"orgId\":5,\"repo\":{}}");
    int status = r.status;
    end(&r);
    return status == 400 ? 0 : -1;
}

static void a_refusal_survives_any_failing_allocation(void **state)
{
    (void)state;
    struct fixture f = make();
    assert_int_equal(refuse_once(&f), 0);
    each_allocation_fails(refuse_once, &f);
    drop(&f);
}

int main(void)
{
    mu_log_setup(&env, MU_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(success_is_data_and_meta),
        cmocka_unit_test(every_refusal_has_the_envelope),
        cmocka_unit_test(too_large_a_body_is_refused_in_the_envelope),
        cmocka_unit_test(a_message_that_is_no_request_is_told_so_in_the_envelope),
        cmocka_unit_test(another_face_keeps_its_own_body),
        cmocka_unit_test(all_problems_are_told_at_once),
        cmocka_unit_test(at_most_fifty_are_told),
        cmocka_unit_test(repositories_are_urls_without_credentials),
        cmocka_unit_test(a_route_of_another_face_is_refused_at_start),
        cmocka_unit_test(a_refusal_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
