#include <errno.h>

#include "../unit.h"

#include "../alloc_fail.h"
#include "face/api/api_int.h"

static void nothing(struct mu_call *c)
{
    (void)c;
}

#define ROUTE(m, p)                                                                                \
    {                                                                                              \
        .method = MU_HTTP_##m, .path = p, .handler = nothing                                       \
    }
static const struct mu_route routes[] = {
    ROUTE(GET, "/"),
    ROUTE(GET, "/a/runs"),
    ROUTE(POST, "/a/runs"),
    ROUTE(GET, "/a/runs/{runID}"),
    ROUTE(DELETE, "/a/runs/{id}"),
    ROUTE(GET, "/a/runs/{runID}/events"),
    ROUTE(POST, "/a/runs/bulk"),
    ROUTE(GET, "/a/{x}/{y}/z"),
    {.path = "/health", .handler = nothing, .flags = MU_ROUTE_ANY_METHOD},
    {.path = NULL},
};

static void build(struct mu_router *r)
{
    struct mu_err err;
    mu_router_init(r);
    for (const struct mu_route *x = routes; x->path; x++) {
        assert_int_equal(mu_router_add(r, x, &err), 0);
    }
}

static const char *found(const struct mu_router *r, enum mu_http_method m, const char *path,
                         mu_bytes params[MU_PARAMS_MAX])
{
    const struct mu_node *n = mu_router_find(r, mu_str(path), params);
    if (!n) {
        return "404";
    }
    const struct mu_route *x = mu_node_route(n, m);
    return x ? x->path : "405";
}

static void paths_lead_to_their_routes(void **state)
{
    (void)state;
    struct mu_router r;
    mu_bytes p[MU_PARAMS_MAX];
    build(&r);
    assert_string_equal(found(&r, MU_HTTP_GET, "/", p), "/");
    assert_string_equal(found(&r, MU_HTTP_GET, "/a/runs", p), "/a/runs");
    assert_string_equal(found(&r, MU_HTTP_GET, "/a/runs/", p), "/a/runs");
    assert_string_equal(found(&r, MU_HTTP_GET, "/a/runs//", p), "404");
    assert_string_equal(found(&r, MU_HTTP_GET, "/a//runs", p), "404");
    assert_string_equal(found(&r, MU_HTTP_GET, "/a", p), "404");
    assert_string_equal(found(&r, MU_HTTP_GET, "", p), "404");
    assert_string_equal(found(&r, MU_HTTP_GET, "/a/runs/x y", p), "/a/runs/{runID}");
    assert_true(mu_bytes_is(p[0], "x y"));
    assert_string_equal(found(&r, MU_HTTP_DELETE, "/a/runs/7/", p), "/a/runs/{id}");
    assert_string_equal(found(&r, MU_HTTP_GET, "/a/runs/7/events", p), "/a/runs/{runID}/events");
    mu_router_fini(&r);
}

static void literals_win_and_a_dead_end_falls_back_to_parameters(void **state)
{
    (void)state;
    struct mu_router r;
    mu_bytes p[MU_PARAMS_MAX];
    build(&r);
    assert_string_equal(found(&r, MU_HTTP_POST, "/a/runs/bulk", p), "/a/runs/bulk");
    assert_string_equal(found(&r, MU_HTTP_GET, "/a/runs/bulk", p), "405");
    assert_string_equal(found(&r, MU_HTTP_GET, "/a/runs/bulk/z", p), "/a/{x}/{y}/z");
    assert_true(mu_bytes_is(p[0], "runs") && mu_bytes_is(p[1], "bulk"));
    mu_router_fini(&r);
}

static void wrong_methods_are_told_what_is_allowed(void **state)
{
    (void)state;
    struct mu_router r;
    mu_bytes p[MU_PARAMS_MAX];
    struct mu_buf b;
    build(&r);
    mu_buf_init(&b, 100);
    assert_string_equal(found(&r, MU_HTTP_PUT, "/a/runs", p), "405");
    assert_string_equal(found(&r, MU_HTTP_OTHER, "/a/runs", p), "405");
    mu_node_allow(mu_router_find(&r, MU_B("/a/runs"), p), false, &b);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "GET, HEAD, POST"));
    mu_buf_clear(&b);
    mu_node_allow(mu_router_find(&r, MU_B("/a/runs/bulk"), p), true, &b);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "POST, OPTIONS"));
    mu_buf_fini(&b);
    mu_router_fini(&r);
}

static void head_is_get_and_any_method_is_any(void **state)
{
    (void)state;
    struct mu_router r;
    mu_bytes p[MU_PARAMS_MAX];
    build(&r);
    assert_string_equal(found(&r, MU_HTTP_HEAD, "/a/runs", p), "/a/runs");
    assert_string_equal(found(&r, MU_HTTP_HEAD, "/a/runs/bulk", p), "405");
    assert_string_equal(found(&r, MU_HTTP_OTHER, "/health", p), "/health");
    assert_string_equal(found(&r, MU_HTTP_DELETE, "/health", p), "/health");
    mu_router_fini(&r);
}

static void parameters_are_found_by_the_name_of_the_route_that_matched(void **state)
{
    (void)state;
    assert_int_equal(mu_route_param(&routes[3], "runID"), 0);
    assert_int_equal(mu_route_param(&routes[4], "runID"), -1);
    assert_int_equal(mu_route_param(&routes[4], "id"), 0);
    assert_int_equal(mu_route_param(&routes[7], "y"), 1);
}

static void a_bad_table_is_refused_by_name(void **state)
{
    (void)state;
    static const struct mu_route bad[] = {
        ROUTE(GET, "/twice"), ROUTE(GET, "/a//b"),
        ROUTE(GET, "rel"),    ROUTE(GET, "/{a}/{b}/{c}/{d}/{e}"),
        {.path = "/none"},
    };
    struct mu_router r;
    struct mu_err err;
    mu_router_init(&r);
    assert_int_equal(mu_router_add(&r, &bad[0], &err), 0);
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_int_equal(mu_router_add(&r, &bad[i], &err), MU_E_INVALID);
        assert_non_null(strstr(err.text, bad[i].path));
    }
    mu_router_fini(&r);
}

static int add_all(void *arg)
{
    (void)arg;
    struct mu_router r;
    struct mu_err err;
    int code = 0;
    mu_router_init(&r);
    for (const struct mu_route *x = routes; x->path && code == 0; x++) {
        code = mu_router_add(&r, x, &err);
    }
    mu_router_fini(&r);
    return code;
}

static void building_survives_any_failing_allocation(void **state)
{
    (void)state;
    each_allocation_fails(add_all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_lead_to_their_routes),
        cmocka_unit_test(literals_win_and_a_dead_end_falls_back_to_parameters),
        cmocka_unit_test(wrong_methods_are_told_what_is_allowed),
        cmocka_unit_test(head_is_get_and_any_method_is_any),
        cmocka_unit_test(parameters_are_found_by_the_name_of_the_route_that_matched),
        cmocka_unit_test(a_bad_table_is_refused_by_name),
        cmocka_unit_test(building_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
