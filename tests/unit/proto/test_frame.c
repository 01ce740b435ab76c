#include "../unit.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "base/err.h"
#include "proto/frame.h"

struct heard {
    char text[4096];
    size_t len, n;
    int answer;
};

static int hear(void *arg, enum mu_frame_kind kind, mu_bytes payload)
{
    struct heard *h = arg;
    h->n++;
    h->len += (size_t)snprintf(h->text + h->len, sizeof h->text - h->len, "%d:%zu:%.*s|", (int)kind,
                               payload.len, (int)MU_MIN(payload.len, (size_t)40), payload.ptr);
    return h->answer;
}

static void frames_split_anywhere_are_the_same(void **state)
{
    (void)state;
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    assert_int_equal(mu_frame_add(&b, MU_FRAME_JSON, MU_B("{\"a\":1}")), 0);
    assert_int_equal(mu_frame_add(&b, MU_FRAME_BYTES, MU_B("")), 0);
    assert_int_equal(mu_frame_add(&b, MU_FRAME_BYTES, MU_B("0123456789abcdefXY")), 0);
    assert_int_equal(mu_frame_add(&b, MU_FRAME_JSON, MU_B("{}")), 0);
    for (size_t cut = 0; cut <= b.len; cut++) {
        for (size_t second = cut; second <= b.len; second++) {
            struct mu_frame_in f;
            struct heard h = {.len = 0};
            mu_frame_in_init(&f);
            assert_int_equal(mu_frame_feed(&f, mu_bytes_of(b.ptr, cut), hear, &h), 0);
            assert_int_equal(mu_frame_feed(&f, mu_bytes_of(b.ptr + cut, second - cut), hear, &h),
                             0);
            assert_int_equal(
                mu_frame_feed(&f, mu_bytes_of(b.ptr + second, b.len - second), hear, &h), 0);
            assert_string_equal(h.text, "0:7:{\"a\":1}|1:0:|1:18:0123456789abcdefXY|0:2:{}|");
            mu_frame_in_fini(&f);
        }
    }
    mu_buf_fini(&b);
}

static int feed_all(const char *bytes, size_t len, struct heard *h)
{
    struct mu_frame_in f;
    mu_frame_in_init(&f);
    int r = mu_frame_feed(&f, mu_bytes_of(bytes, len), hear, h);
    int again = mu_frame_feed(&f, MU_B("\0\0\0\2\0{}"), hear, h);
    assert_true(r == 0 || again == r);
    mu_frame_in_fini(&f);
    return r;
}

static void what_is_no_frame_ends_it_for_good(void **state)
{
    (void)state;
    struct heard h = {.len = 0};
    assert_int_equal(feed_all("\0\0\0\1\3x", 6, &h), MU_E_PROTOCOL);
    assert_int_equal(feed_all("\0\0\0\0\2", 5, &h), MU_E_PROTOCOL);
    assert_int_equal(feed_all("\0\0\x20\1\2", 5, &h), MU_E_TOO_LARGE);
    assert_int_equal(feed_all("\0\0\0\0\0", 5, &h), MU_E_PROTOCOL);
    assert_int_equal(feed_all("\0\x10\0\1\0", 5, &h), MU_E_TOO_LARGE);
    assert_int_equal(feed_all("\0\1\0\x11\1", 5, &h), MU_E_TOO_LARGE);
    assert_int_equal(feed_all("\xff\xff\xff\xff\0", 5, &h), MU_E_TOO_LARGE);
    assert_int_equal(h.n, 0);
    h.answer = MU_E_CLOSED;
    assert_int_equal(feed_all("\0\0\0\1\0x", 6, &h), MU_E_CLOSED);
    assert_int_equal(h.n, 1);
}

static void terminal_bytes_keep_number_and_offset(void **state)
{
    (void)state;
    struct mu_buf b;
    struct mu_frame_term t = {7, 0x0102030405060708, MU_B("abc")}, got;
    mu_buf_init(&b, 4096);
    assert_int_equal(mu_frame_add_term(&b, &t), 0);
    assert_int_equal(b.len, MU_FRAME_HEAD + MU_FRAME_TERM_HEAD + 3);
    mu_bytes payload = mu_bytes_from(mu_buf_bytes(&b), MU_FRAME_HEAD);
    assert_int_equal(mu_frame_term_parse(payload, &got), 0);
    assert_int_equal(got.terminal, 7);
    assert_true(got.offset == t.offset && mu_bytes_is(got.data, "abc"));
    assert_int_equal(mu_frame_term_parse(mu_bytes_head(payload, 15), &got), MU_E_PROTOCOL);
    for (size_t i = 0; i < MU_FRAME_TERM_HEAD; i++) {
        if (i == 1 || i > 8) {
            continue;
        }
        b.ptr[MU_FRAME_HEAD + i] ^= (char)0x80;
        assert_int_equal(mu_frame_term_parse(payload, &got), MU_E_PROTOCOL);
        b.ptr[MU_FRAME_HEAD + i] ^= (char)0x80;
    }
    mu_buf_fini(&b);
}

static void what_does_not_fit_leaves_the_buffer_as_it_was(void **state)
{
    (void)state;
    struct mu_buf b;
    mu_buf_init(&b, 12);
    assert_int_equal(mu_frame_add(&b, MU_FRAME_JSON, MU_B("{}")), 0);
    assert_int_equal(mu_frame_add(&b, MU_FRAME_JSON, MU_B("{}")), MU_E_TOO_LARGE);
    struct mu_frame_term t = {0, 0, MU_B("a")};
    assert_int_equal(mu_frame_add_term(&b, &t), MU_E_TOO_LARGE);
    assert_int_equal(b.len, 7);
    assert_int_equal(b.failed, 0);
    mu_buf_fini(&b);
}

static int body(void *arg)
{
    (void)arg;
    struct mu_frame_in f;
    struct heard h = {.len = 0};
    mu_frame_in_init(&f);
    int r = mu_frame_feed(&f, MU_B("\0\0\0\2\0{"), hear, &h);
    r = r ? r : mu_frame_feed(&f, MU_B("}"), hear, &h);
    assert_true(r == 0 || r == -12);
    mu_frame_in_fini(&f);
    return r;
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    each_allocation_fails(body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_split_anywhere_are_the_same),
        cmocka_unit_test(what_is_no_frame_ends_it_for_good),
        cmocka_unit_test(terminal_bytes_keep_number_and_offset),
        cmocka_unit_test(what_does_not_fit_leaves_the_buffer_as_it_was),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
