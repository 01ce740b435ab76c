#include "worker/kept.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "../unit.h"

static mu_bytes text_of(const struct mu_clip *k, struct mu_buf *b)
{
    mu_buf_init(b, 64 << 20);
    mu_kept_write(k, b);
    return mu_buf_bytes(b);
}

static void short_output_is_kept_whole_however_it_comes(void **state)
{
    (void)state;
    char all[5000];
    for (size_t i = 0; i < sizeof all; i++) {
        all[i] = (char)i;
    }
    for (size_t step = 1; step < 4000; step += 37) {
        struct mu_clip k;
        struct mu_buf b;
        mu_kept_init(&k, 8000); /* head 4000, tail 4000 */
        for (size_t at = 0; at < sizeof all; at += step) {
            mu_kept_add(&k, mu_bytes_of(all + at, MU_MIN(step, sizeof all - at)));
        }
        assert_true(mu_bytes_eq(text_of(&k, &b), mu_bytes_of(all, sizeof all)));
        mu_buf_fini(&b);
        mu_clip_fini(&k);
    }
}

static void of_long_output_both_ends_stay(void **state)
{
    (void)state;
    for (size_t step = 1; step < 3000; step += 111) {
        struct mu_clip k;
        struct mu_buf b;
        char piece[3000];
        mu_kept_init(&k, 2000);
        size_t total = 0;
        while (total < 100000) {
            for (size_t i = 0; i < step; i++) {
                piece[i] = (char)('a' + (total + i) % 26);
            }
            mu_kept_add(&k, mu_bytes_of(piece, step));
            total += step;
        }
        mu_bytes t = text_of(&k, &b);
        char mark[80];
        int n = snprintf(mark, sizeof mark, "\n[... %zu bytes left out ...]\n", total - 2000);
        assert_int_equal(t.len, 2000 + n);
        assert_memory_equal(t.ptr + 1000, mark, n);
        for (size_t i = 0; i < 1000; i++) {
            assert_int_equal(t.ptr[i], 'a' + i % 26);
            assert_int_equal(t.ptr[1000 + n + i], 'a' + (total - 1000 + i) % 26);
        }
        mu_buf_fini(&b);
        mu_clip_fini(&k);
    }
}

static void a_file_is_cut_in_the_same_way(void **state)
{
    (void)state;
    struct mu_buf b;
    mu_buf_init(&b, 1000);
    mu_kept_cut(MU_B("short"), 5, 100, &b);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "short"));
    mu_buf_clear(&b);
    mu_kept_cut(MU_B("0123456789abcdefghij"), 20, 10, &b);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "01234\n[... 10 bytes left out ...]\nfghij"));
    mu_buf_clear(&b);
    mu_kept_cut(MU_B("0123456789"), 1000, 10, &b);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "0123456789\n[... 990 bytes left out ...]\n"));
    mu_buf_fini(&b);
}

static void pull_requests_are_found_once_each(void **state)
{
    (void)state;
    struct mu_buf b;
    size_t n = 0;
    mu_buf_init(&b, 100000);
    mu_kept_pull_requests(
        MU_B("https://github.com/a/b/pull/12. https://github.com/a-1/b_2.c/pull/3/files "
             "https://github.com/a/b/pull/12 http://github.com/a/b/pull/1 "
             "https://github.com/a/b/pulls/1 https://github.com/a/b/pull/x "
             "https://github.com/a/pull/1 https://github.com/https://github.com/q/r/pull/9 "
             "https://github.com/a/b/pull/1"),
        1769860801234, &b, &n);
    assert_int_equal(n, 4);
    mu_bytes t = mu_buf_bytes(&b);
    assert_true(mu_bytes_starts(
        t, MU_B("{\"artifact_type\":\"PULL_REQUEST\",\"created_at\":\"2026-01-31T12:00:01Z\","
                "\"data\":{\"branch\":\"unknown\",\"url\":\"https://github.com/a/b/pull/12\"}},")));
    assert_true(mu_bytes_find(t, MU_B("\"https://github.com/a-1/b_2.c/pull/3\"")) > 0);
    assert_true(mu_bytes_find(t, MU_B("\"https://github.com/q/r/pull/9\"")) > 0);
    assert_true(mu_bytes_ends(t, MU_B("\"https://github.com/a/b/pull/1\"}}")));
    for (int i = 0; i < 300; i++) {
        char url[80];
        snprintf(url, sizeof url, "https://github.com/a/b/pull/%d ", 1000 + i);
        mu_kept_pull_requests(mu_str(url), 0, &b, &n);
    }
    assert_int_equal(n, MU_MAX_ARTIFACTS);
    mu_buf_fini(&b);
}

static void no_item_is_written_in_part(void **state)
{
    (void)state;
    struct mu_buf whole, b;
    size_t n = 0;
    mu_bytes text = mu_str("https://github.com/o/r/pull/1 https://github.com/o/r/pull/23");
    mu_buf_init(&whole, 4096);
    mu_kept_pull_requests(text, 0, &whole, &n);
    assert_int_equal(n, 2);
    for (size_t room = 0; room < whole.len + 2; room++) {
        mu_buf_init(&b, room);
        n = 0;
        mu_kept_pull_requests(text, 0, &b, &n);
        assert_int_equal(b.failed, 0);
        assert_true(b.len == 0 ? n == 0 : b.ptr[0] == '{' && b.ptr[b.len - 1] == '}' && n > 0);
        mu_buf_fini(&b);
    }
    assert_int_equal(n, 2);
    mu_buf_fini(&whole);
}

static int keep_some(void *arg)
{
    (void)arg;
    struct mu_clip k;
    struct mu_buf b;
    char piece[1000];
    memset(piece, 'x', sizeof piece);
    mu_kept_init(&k, 200000);
    for (int i = 0; i < 300; i++) {
        mu_kept_add(&k, mu_bytes_of(piece, sizeof piece));
    }
    assert_int_equal(k.total, 300000); /* what got lost is counted */
    text_of(&k, &b);
    mu_buf_fini(&b);
    mu_clip_fini(&k);
    return 0;
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    each_allocation_fails(keep_some, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_output_is_kept_whole_however_it_comes),
        cmocka_unit_test(of_long_output_both_ends_stay),
        cmocka_unit_test(a_file_is_cut_in_the_same_way),
        cmocka_unit_test(pull_requests_are_found_once_each),
        cmocka_unit_test(no_item_is_written_in_part),
        cmocka_unit_test(any_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
