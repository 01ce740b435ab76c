/* The kept output of an attempt, and the pull requests that a text names. */
#include "../unit.h"

#include <errno.h>
#include <string.h>

#include "../alloc_fail.h"
#include "app/sessions/output.h"

static void add(struct mu_output *o, const char *text)
{
    assert_int_equal(mu_output_add(o, mu_str(text)), 0);
}

/* `n` bytes whose values tell their place. */
static void add_counted(struct mu_output *o, size_t from, size_t n)
{
    char piece[8192];
    while (n) {
        size_t len = MU_MIN(n, sizeof piece);
        for (size_t i = 0; i < len; i++) {
            piece[i] = (char)('a' + (from + i) % 23);
        }
        assert_int_equal(mu_output_add(o, mu_bytes_of(piece, len)), 0);
        from += len;
        n -= len;
    }
}

static void assert_counted(mu_bytes b, size_t from)
{
    for (size_t i = 0; i < b.len; i++) {
        if (b.ptr[i] != (char)('a' + (from + i) % 23)) {
            fail_msg("byte %zu is not the one at %zu", i, from + i);
        }
    }
}

static void short_text_is_kept_whole_and_trimmed_on_request(void **state)
{
    (void)state;
    struct mu_output o;
    struct mu_buf b;
    mu_output_init(&o);
    mu_buf_init(&b, 1024);
    add(&o, "");
    add(&o, " \n one");
    add(&o, " two\t\r\n");
    mu_output_write(&o, false, &b);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), " \n one two\t\r\n"));
    mu_buf_clear(&b);
    mu_output_write(&o, true, &b);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "one two"));
    assert_false(mu_output_truncated(&o));
    assert_true(mu_bytes_is(mu_output_from(&o, 6), " two\t\r\n"));
    assert_int_equal(mu_output_from(&o, 13).len, 0);
    assert_int_equal(mu_output_from(&o, 1000).len, 0);
    assert_int_equal(mu_output_from(&o, -1).len, 0);
    mu_output_reset(&o);
    assert_int_equal(o.total, 0);
    mu_buf_clear(&b);
    mu_output_write(&o, true, &b);
    assert_int_equal(b.len, 0);
    mu_output_fini(&o);
    mu_buf_fini(&b);
}

static void exactly_the_maximum_is_not_cut(void **state)
{
    (void)state;
    struct mu_output o;
    struct mu_buf b;
    mu_output_init(&o);
    mu_buf_init(&b, MU_OUTPUT_MAX + 1);
    add_counted(&o, 0, MU_OUTPUT_MAX);
    assert_false(mu_output_truncated(&o));
    mu_output_write(&o, false, &b);
    assert_int_equal(b.len, MU_OUTPUT_MAX);
    assert_counted(mu_buf_bytes(&b), 0);
    mu_output_fini(&o);
    mu_buf_fini(&b);
}

static void of_more_the_first_and_the_last_are_kept(void **state)
{
    (void)state;
    const size_t extra[] = {1, 5000, 3u << 20, (7u << 20) + 3, 20u << 20};
    for (size_t i = 0; i < MU_ARRAY_LEN(extra); i++) {
        struct mu_output o;
        struct mu_buf b;
        size_t total = MU_OUTPUT_MAX + extra[i], tail = MU_OUTPUT_MAX - MU_OUTPUT_HEAD;
        mu_output_init(&o);
        mu_buf_init(&b, MU_OUTPUT_MAX + 1);
        add_counted(&o, 0, total);
        assert_true(mu_output_truncated(&o));
        assert_int_equal(o.total, total);
        mu_output_write(&o, false, &b);
        assert_int_equal(b.len, MU_OUTPUT_MAX);
        assert_counted(mu_bytes_head(mu_buf_bytes(&b), MU_OUTPUT_HEAD), 0);
        assert_counted(mu_bytes_from(mu_buf_bytes(&b), MU_OUTPUT_HEAD), total - tail);
        assert_int_equal(mu_output_from(&o, 0).len, 0);
        mu_output_fini(&o);
        mu_buf_fini(&b);
    }
}

static void one_piece_larger_than_everything_is_cut_too(void **state)
{
    (void)state;
    struct mu_output o;
    struct mu_buf b, all;
    size_t total = MU_OUTPUT_MAX + (2u << 20);
    mu_output_init(&o);
    mu_buf_init(&b, MU_OUTPUT_MAX + 1);
    mu_buf_init(&all, total);
    char *p = mu_buf_room(&all, total);
    assert_non_null(p);
    for (size_t i = 0; i < total; i++) {
        p[i] = (char)('a' + i % 23);
    }
    assert_int_equal(mu_output_add(&o, mu_bytes_of(p, total)), 0);
    mu_output_write(&o, false, &b);
    assert_int_equal(b.len, MU_OUTPUT_MAX);
    assert_counted(mu_bytes_head(mu_buf_bytes(&b), MU_OUTPUT_HEAD), 0);
    assert_counted(mu_bytes_from(mu_buf_bytes(&b), MU_OUTPUT_HEAD),
                   total - (MU_OUTPUT_MAX - MU_OUTPUT_HEAD));
    mu_output_fini(&o);
    mu_buf_fini(&b);
    mu_buf_fini(&all);
}

static void a_cut_text_is_trimmed_at_both_ends(void **state)
{
    (void)state;
    struct mu_output o;
    struct mu_buf b;
    mu_output_init(&o);
    mu_buf_init(&b, MU_OUTPUT_MAX + 1);
    add(&o, "  \nSTART");
    add_counted(&o, 0, 12u << 20);
    add(&o, "END \n\t\n");
    mu_output_write(&o, true, &b);
    assert_true(mu_bytes_starts(mu_buf_bytes(&b), MU_B("START")));
    assert_true(mu_bytes_ends(mu_buf_bytes(&b), MU_B("END")));
    mu_output_fini(&o);
    mu_buf_fini(&b);
}

static int output_survives(void *arg)
{
    (void)arg;
    struct mu_output o;
    static char big[1 << 20];
    memset(big, 'x', sizeof big);
    mu_output_init(&o);
    int r = 0;
    for (int i = 0; r == 0 && i < 9; i++) {
        int64_t before = o.total;
        r = mu_output_add(&o, mu_bytes_of(big, sizeof big));
        assert_true(r == 0 || (r == -ENOMEM && o.total == before));
    }
    mu_output_fini(&o);
    return r;
}

static void no_memory_is_an_error_and_keeps_what_there_is(void **state)
{
    (void)state;
    each_allocation_fails(output_survives, NULL);
}

/* --- pull requests --- */

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
        cmocka_unit_test(short_text_is_kept_whole_and_trimmed_on_request),
        cmocka_unit_test(exactly_the_maximum_is_not_cut),
        cmocka_unit_test(of_more_the_first_and_the_last_are_kept),
        cmocka_unit_test(one_piece_larger_than_everything_is_cut_too),
        cmocka_unit_test(a_cut_text_is_trimmed_at_both_ends),
        cmocka_unit_test(no_memory_is_an_error_and_keeps_what_there_is),
        cmocka_unit_test(pull_requests_are_found_wherever_they_stand),
        cmocka_unit_test(an_artifact_has_the_shape_of_the_sdk),
        cmocka_unit_test(at_most_a_hundred_are_taken),
        cmocka_unit_test(no_memory_for_artifacts_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
