/* Which token of an assignment is git's password, and for whom. */
#include "../unit.h"

#include "base/err.h"
#include "worker/worker_int.h"

static struct mu_arena arena;

static void is(const char *vars, const char *url, const char *wanted)
{
    static const struct mu_json_limits limits = {.max_bytes = 4096, .max_depth = 8};
    yyjson_val *v = NULL;
    const char *got = NULL;
    mu_arena_init(&arena, 1 << 20);
    assert_int_equal(mu_json_read(&arena, mu_str(vars), &limits, &v, NULL), 0);
    assert_int_equal(mu_worker_credential(&arena, v, url, &got), 0);
    if (wanted) {
        assert_non_null(got);
        assert_string_equal(got, wanted);
    } else {
        assert_null(got);
    }
    mu_arena_fini(&arena);
}

#define GITHUB "https://github.com/a/b.git"

static void a_token_of_github_is_for_github_only(void **state)
{
    (void)state;
    is("{\"GH_TOKEN\":\"t\"}", GITHUB, "x-access-token:t");
    static const char *const others[] = {
        "http://github.com/a/b",     "https://github.com.evil.example/a/b",
        "https://github.com@evil/a", "https://x@github.com/a/b",
        "ssh://github.com/a/b",      "git@github.com:a/b",
        "https://github.co"};
    for (size_t i = 0; i < MU_ARRAY_LEN(others); i++) {
        is("{\"GH_TOKEN\":\"t\",\"GITHUB_ACCESS_TOKEN\":\"u\"}", others[i], NULL);
    }
}

static void the_users_own_comes_first_and_the_order_is_the_runners(void **state)
{
    (void)state;
    is("{\"OZ_ENV_VARS_JSON\":\"{\\\"GITHUB_TOKEN\\\":\\\"own\\\"}\",\"GITHUB_ACCESS_TOKEN\":"
       "\"t\"}",
       GITHUB, "x-access-token:own");
    is("{\"GITHUB_TOKEN\":\"3\",\"GH_TOKEN\":\"2\",\"GITHUB_ACCESS_TOKEN\":\"1\"}", GITHUB,
       "x-access-token:1");
    is("{\"GITHUB_TOKEN\":\"3\",\"GH_TOKEN\":\"2\",\"GITHUB_ACCESS_TOKEN\":\"\"}", GITHUB,
       "x-access-token:2");
}

static void what_is_no_token_is_none(void **state)
{
    (void)state;
    is("{}", GITHUB, NULL);
    is("null", GITHUB, NULL);
    is("[1]", GITHUB, NULL);
    is("{\"GH_TOKEN\":7}", GITHUB, NULL);
    is("{\"GH_TOKEN\":\"a\\nHost: evil\"}", GITHUB, NULL);
    is("{\"GH_TOKEN\":\"a\\u0000b\"}", GITHUB, NULL);
    is("{\"OZ_ENV_VARS_JSON\":\"no json\",\"GH_TOKEN\":\"t\"}", GITHUB, "x-access-token:t");
    is("{\"OZ_ENV_VARS_JSON\":\"[]\"}", GITHUB, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_of_github_is_for_github_only),
        cmocka_unit_test(the_users_own_comes_first_and_the_order_is_the_runners),
        cmocka_unit_test(what_is_no_token_is_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
