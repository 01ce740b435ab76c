/* The root and key routes, on a real loop, writer and reader pool. */
#include "fake_http.h"

#include "../db/tmp_dir.h"
#include "db/reader.h"
#include "db/writer.h"
#include "face/api/api_int.h"
#include "face/api/meta.h"

struct world {
    struct tmp_dir dir;
    struct mu_loop *loop;
    struct mu_metrics *metrics;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_identity *identity;
    struct mu_api *api;
    struct mu_meta meta;
    bool ready;
};

static const struct mu_meta *meta_of(void *app)
{
    return &((struct world *)app)->meta;
}

static bool ready(void *arg, const char **ret_why)
{
    *ret_why = "The dispatcher is starting";
    return *(bool *)arg;
}

static void must(int r, const struct mu_err *err)
{
    if (r < 0) {
        fail_msg("%s", err->text);
    }
}

static int open_world(void **state)
{
    static struct world w;
    struct mu_err err = {0};
    static const struct mu_route *const tables[] = {mu_meta_routes, mu_key_routes};
    w = (struct world){.ready = true};
    tmp_make(&w.dir);
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &w.loop), 0);
    assert_int_equal(mu_metrics_new(&w.metrics), 0);
    const struct mu_writer_opts wo = {.db = {.url = w.dir.db, .sync_normal = true},
                                      .env = &mu_env_real};
    must(mu_writer_new(&wo, &w.writer, &err), &err);
    const struct mu_readers_opts ro = {.db = {.url = w.dir.db, .reader = true}, .threads = 1};
    must(mu_readers_new(&ro, &w.readers, &err), &err);
    const struct mu_identity_opts io = {
        .env = &mu_env_real, .writer = w.writer, .core = w.loop, .admin_key = "boss"};
    must(mu_identity_new(&io, NULL, &w.identity, &err), &err);
    const struct mu_api_opts ao = {.env = &mu_env_real,
                                   .identity = w.identity,
                                   .metrics = w.metrics,
                                   .tables = tables,
                                   .n_tables = MU_ARRAY_LEN(tables),
                                   .app = &w,
                                   .meta_of = meta_of};
    must(mu_api_new(&ao, &w.api, &err), &err);
    w.meta = (struct mu_meta){.env = &mu_env_real,
                              .identity = w.identity,
                              .readers = w.readers,
                              .writer = w.writer,
                              .metrics = w.metrics,
                              .http = (void *)1,
                              .version = "9.9.9",
                              .backend = "sqlite",
                              .ready = ready,
                              .ready_arg = &w.ready};
    *state = &w;
    return 0;
}

static int close_world(void **state)
{
    struct world *w = *state;
    mu_readers_free(w->readers);
    mu_writer_free(w->writer);
    mu_loop_stop(w->loop);
    mu_loop_run(w->loop);
    mu_api_free(w->api);
    mu_identity_free(w->identity);
    mu_metrics_free(w->metrics);
    mu_loop_free(w->loop);
    tmp_drop(&w->dir);
    return 0;
}

/* Runs one request to its answer; the caller ends it. */
static void run(struct world *w, struct mu_http_req *r, const char *method, const char *path,
                const char *token, const char *body)
{
    char bearer[128];
    struct mu_http_ops ops = mu_api_http_ops(w->api);
    struct mu_http_admit admit = {0};
    begin(r, method, path);
    r->loop = w->loop;
    if (token) {
        snprintf(bearer, sizeof bearer, "Bearer %s", token);
        header(r, "Authorization", bearer);
    }
    r->body = mu_str(body);
    ops.admit(ops.arg, r, &admit);
    if (!admit.refuse) {
        ops.request(ops.arg, r);
    }
    mu_loop_run(w->loop);
    assert_int_equal(r->answers, 1);
}

static void health_is_the_union_of_both_faces(void **state)
{
    struct mu_http_req r;
    run(*state, &r, "DELETE", "/health", NULL, NULL);
    assert_int_equal(r.status, 200);
    out_has(&r, "{\"ok\":true,\"db\":\"ok\",\"status\":\"ok\",\"timestamp\":\"20");
    out_has(&r, "\"version\":\"9.9.9\",\"backend\":\"sqlite\",\"request_id\":\"req_");
    end(&r);
}

static int slow_read(struct mu_read *r, struct mu_db *db)
{
    (void)r;
    (void)db;
    usleep(2300000);
    return 0;
}

static void slow_done(struct mu_read *r, int result)
{
    (void)result;
    mu_loop_stop(r->loop);
}

static void health_does_not_wait_for_a_database_that_hangs(void **state)
{
    struct world *w = *state;
    struct mu_http_req r;
    struct mu_read slow = {.run = slow_read, .done = slow_done, .loop = w->loop};
    assert_int_equal(mu_readers_submit(w->readers, &slow), 0); /* the pool has one thread */
    run(w, &r, "GET", "/health", NULL, NULL);
    assert_int_equal(r.status, 503);
    out_has(&r, "{\"ok\":false,\"db\":\"error\",\"status\":\"degraded\"");
    end(&r);
    mu_loop_run(w->loop);
}

static void readiness_asks_the_dispatcher_and_liveness_nobody(void **state)
{
    struct world *w = *state;
    struct mu_http_req r;
    run(w, &r, "GET", "/readyz", NULL, NULL);
    assert_int_equal(r.status, 200);
    end(&r);
    w->ready = false;
    run(w, &r, "GET", "/readyz", NULL, NULL);
    assert_int_equal(r.status, 503);
    out_has(&r, "\"db\":\"ok\"");
    out_has(&r, "The dispatcher is starting");
    end(&r);
    run(w, &r, "GET", "/livez", NULL, NULL);
    assert_int_equal(r.status, 200);
    end(&r);
    w->ready = true;
}

static void metrics_need_the_admin_key(void **state)
{
    struct mu_http_req r;
    run(*state, &r, "GET", "/metrics", "tenant", NULL);
    assert_int_equal(r.status, 403);
    end(&r);
    run(*state, &r, "GET", "/metrics", "boss", NULL);
    assert_int_equal(r.status, 200);
    headers_have(&r, "Content-Type: text/plain; version=0.0.4");
    out_has(&r, "muster_http_connections 3");
    out_has(&r, "muster_http_requests_total{code=\"4xx\"}");
    out_has(&r, "muster_http_request_duration_seconds_count");
    end(&r);
}

static void the_document_names_every_route(void **state)
{
    struct mu_http_req r;
    run(*state, &r, "GET", "/openapi.json", NULL, NULL);
    assert_int_equal(r.status, 200);
    headers_have(&r, "Content-Type: application/json\n");
    out_has(&r, "{\"openapi\":\"3.1.0\"");
    out_has(&r, "\"/api/v1/keys/{id}\"");
    end(&r);
}

static void text_of(const char *from, const char *key, char *dst, size_t size)
{
    const char *at = strstr(from, key);
    assert_non_null(at);
    at += strlen(key);
    snprintf(dst, size, "%.*s", (int)strcspn(at, "\""), at);
}

static void a_key_lives_from_create_to_delete(void **state)
{
    struct world *w = *state;
    struct mu_http_req r;
    char id[64], key[80], path[128];
    run(w, &r, "POST", "/api/v1/keys", "boss",
        "{\"name\":\" ci \",\"tenant\":\"acme\",\"expires_in_days\":2}");
    assert_int_equal(r.status, 200);
    out_has(&r, "\"name\":\"ci\",\"tenant\":\"acme\",\"role\":\"operator\",\"key\":\"sk_");
    assert_null(strstr(r.out.ptr, "\"expires_at\":null"));
    text_of(r.out.ptr, "\"id\":\"", id, sizeof id);
    text_of(r.out.ptr, "\"key\":\"", key, sizeof key);
    end(&r);

    run(w, &r, "GET", "/api/v1/keys", key, NULL);
    assert_int_equal(r.status, 403);
    end(&r);
    run(w, &r, "GET", "/api/v1/keys", "boss", NULL);
    assert_int_equal(r.status, 200);
    out_has(&r, id);
    out_has(&r, "\"revoked_at\":null");
    assert_null(strstr(r.out.ptr, key));
    end(&r);
    run(w, &r, "POST", "/api/v1/keys", "boss", "{\"name\":\"ci\"}");
    assert_int_equal(r.status, 409);
    headers_have(&r, "X-Should-Retry: false\n");
    end(&r);

    snprintf(path, sizeof path, "/api/v1/keys/%s", id);
    run(w, &r, "DELETE", path, "tenant", NULL);
    assert_int_equal(r.status, 403);
    end(&r);
    run(w, &r, "DELETE", path, "boss", NULL);
    assert_int_equal(r.status, 200);
    out_has(&r, "{\"success\":true,");
    end(&r);
    run(w, &r, "DELETE", path, "boss", NULL);
    assert_int_equal(r.status, 404);
    end(&r);
    run(w, &r, "GET", "/api/v1/keys", key, NULL);
    assert_int_equal(r.status, 401);
    end(&r);
}

static void bad_keys_are_refused_by_field(void **state)
{
    static const struct {
        const char *body, *text;
    } rows[] = {
        {"{}", "\"code\":\"missing_field\",\"field\":\"name\""},
        {"{\"name\":\" \"}", "\"field\":\"name\""},
        {"{\"name\":\"a\",\"expires_in_days\":0}", "\"field\":\"expires_in_days\""},
        {"{\"name\":\"a\\u0000b\"}", "\"field\":\"name\""},
    };
    struct mu_http_req r;
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        run(*state, &r, "POST", "/api/v1/keys", "boss", rows[i].body);
        assert_int_equal(r.status, 400);
        out_has(&r, rows[i].text);
        end(&r);
    }
    run(*state, &r, "DELETE", "/api/v1/keys/nonsense", "boss", NULL);
    assert_int_equal(r.status, 404);
    end(&r);
}

static void a_stopping_server_says_so(void **state)
{
    struct world *w = *state;
    struct mu_http_req r;
    mu_api_set_stopping(w->api);
    run(w, &r, "GET", "/health", NULL, NULL);
    assert_int_equal(r.status, 503);
    out_has(&r, "\"ok\":false,\"db\":\"ok\",\"status\":\"degraded\"");
    out_has(&r, "\"shutting_down\":true");
    headers_have(&r, "Retry-After: 1\n");
    end(&r);
    run(w, &r, "GET", "/openapi.json", NULL, NULL);
    assert_int_equal(r.status, 503);
    out_has(&r, "\"code\":\"shutting_down\"");
    end(&r);
}

int main(void)
{
    mu_log_setup(&mu_env_real, MU_LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(health_is_the_union_of_both_faces),
        cmocka_unit_test(health_does_not_wait_for_a_database_that_hangs),
        cmocka_unit_test(readiness_asks_the_dispatcher_and_liveness_nobody),
        cmocka_unit_test(metrics_need_the_admin_key),
        cmocka_unit_test(the_document_names_every_route),
        cmocka_unit_test(a_key_lives_from_create_to_delete),
        cmocka_unit_test(bad_keys_are_refused_by_field),
        cmocka_unit_test(a_stopping_server_says_so),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
