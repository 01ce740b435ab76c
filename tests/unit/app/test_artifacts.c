/* The pull requests that a text names, as they are stored. */
#include "../unit.h"

#include "../alloc_fail.h"
#include "app/sessions/artifacts.h"

static size_t urls(const char *text, mu_bytes *ret_json, struct mu_arena *a)
{
    struct mu_artifact_row *rows;
    size_t n;
    assert_int_equal(
        mu_artifacts_find(&mu_env_real, a, mu_str(text), 1700000000000, &rows, &n, ret_json), 0);
    return n;
}

static void pull_requests_are_found_wherever_they_stand(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
    } rows[] = {
        {"", 0},
        {"see https://github.com/a/b/pull/1", 1},
        {"(https://github.com/a-1/b.c_d/pull/12).", 1},
        {"https://github.com/a/b/pull/1 https://github.com/a/b/pull/1", 1},
        {"https://github.com/a/b/pull/1\nhttps://github.com/a/b/pull/2", 2},
        {"https://github.com/a/b/pull/1/files", 1},
        {"https://github.com/https://github.com/a/b/pull/3", 1},
        {"https://github.com/a/b/issues/1", 0},
        {"https://github.com/a/b/pull/", 0},
        {"https://github.com/a/b/pull/x", 0},
        {"https://github.com/a/b/pull/12345678901", 0},
        {"https://github.com//b/pull/1", 0},
        {"https://github.com/a//pull/1", 0},
        {"https://github.com/a/b", 0},
        {"http://github.com/a/b/pull/1", 0},
        {"https://github.com.evil.example/a/b/pull/1", 0},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_arena a;
        mu_bytes json;
        mu_arena_init(&a, 1 << 20);
        if (urls(rows[i].text, &json, &a) != rows[i].n) {
            fail_msg("not %zu in: %s", rows[i].n, rows[i].text);
        }
        assert_int_equal(json.ptr != NULL, rows[i].n > 0);
        mu_arena_fini(&a);
    }
}

static void an_artifact_has_the_shape_of_the_sdk(void **state)
{
    (void)state;
    struct mu_arena a;
    mu_bytes json;
    mu_arena_init(&a, 1 << 20);
    assert_int_equal(urls("at https://github.com/a/b/pull/7!", &json, &a), 1);
    assert_true(mu_bytes_is(
        json, "[{\"artifact_type\":\"PULL_REQUEST\",\"created_at\":\"2023-11-14T22:13:20.000Z\","
              "\"data\":{\"url\":\"https://github.com/a/b/pull/7\",\"branch\":\"unknown\"}}]"));
    mu_arena_fini(&a);
}

static void at_most_a_hundred_are_taken(void **state)
{
    (void)state;
    struct mu_arena a;
    struct mu_buf b;
    mu_bytes json;
    mu_arena_init(&a, 1 << 20);
    mu_buf_init(&b, 1 << 20);
    for (int i = 0; i < 150; i++) {
        mu_buf_printf(&b, "https://github.com/a/b/pull/%d ", i);
    }
    mu_buf_add_char(&b, 0);
    assert_int_equal(urls(b.ptr, &json, &a), 100);
    mu_buf_fini(&b);
    mu_arena_fini(&a);
}

static int artifacts_survive(void *arg)
{
    (void)arg;
    struct mu_arena a;
    struct mu_artifact_row *rows;
    size_t n;
    mu_bytes json;
    mu_arena_init(&a, 1 << 20);
    int r = mu_artifacts_find(&mu_env_real, &a,
                              MU_B("https://github.com/a/b/pull/1 https://github.com/a/b/pull/2"),
                              1700000000000, &rows, &n, &json);
    mu_arena_fini(&a);
    return r;
}

static void no_memory_for_artifacts_is_an_error(void **state)
{
    (void)state;
    each_allocation_fails(artifacts_survive, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pull_requests_are_found_wherever_they_stand),
        cmocka_unit_test(an_artifact_has_the_shape_of_the_sdk),
        cmocka_unit_test(at_most_a_hundred_are_taken),
        cmocka_unit_test(no_memory_for_artifacts_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
