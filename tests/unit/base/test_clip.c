/* Both ends of a long text. */
#include "../unit.h"

#include <errno.h>
#include <string.h>

#include "../alloc_fail.h"
#include "base/clip.h"

static void add(struct mu_clip *o, const char *text)
{
    assert_int_equal(mu_clip_add(o, mu_str(text)), 0);
}

/* `n` bytes whose values tell their place. */
static void add_counted(struct mu_clip *o, size_t from, size_t n)
{
    char piece[8192];
    while (n) {
        size_t len = MU_MIN(n, sizeof piece);
        for (size_t i = 0; i < len; i++) {
            piece[i] = (char)('a' + (from + i) % 23);
        }
        assert_int_equal(mu_clip_add(o, mu_bytes_of(piece, len)), 0);
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
    struct mu_clip o;
    struct mu_buf b;
    mu_clip_init(&o, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
    mu_buf_init(&b, 1024);
    add(&o, "");
    add(&o, " \n one");
    add(&o, " two\t\r\n");
    mu_clip_write(&o, false, &b);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), " \n one two\t\r\n"));
    mu_buf_clear(&b);
    mu_clip_write(&o, true, &b);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "one two"));
    assert_false(mu_clip_lost(&o));
    assert_true(mu_bytes_is(mu_clip_from(&o, 6), " two\t\r\n"));
    assert_int_equal(mu_clip_from(&o, 13).len, 0);
    assert_int_equal(mu_clip_from(&o, 1000).len, 0);
    assert_int_equal(mu_clip_from(&o, -1).len, 0);
    mu_clip_fini(&o);
    assert_int_equal(o.total, 0);
    mu_buf_clear(&b);
    mu_clip_write(&o, true, &b);
    assert_int_equal(b.len, 0);
    mu_clip_fini(&o);
    mu_buf_fini(&b);
}

static void exactly_the_maximum_is_not_cut(void **state)
{
    (void)state;
    struct mu_clip o;
    struct mu_buf b;
    mu_clip_init(&o, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
    mu_buf_init(&b, MU_OUTPUT_MAX + 1);
    add_counted(&o, 0, MU_OUTPUT_MAX);
    assert_false(mu_clip_lost(&o));
    mu_clip_write(&o, false, &b);
    assert_int_equal(b.len, MU_OUTPUT_MAX);
    assert_counted(mu_buf_bytes(&b), 0);
    mu_clip_fini(&o);
    mu_buf_fini(&b);
}

static void of_more_the_first_and_the_last_are_kept(void **state)
{
    (void)state;
    const size_t extra[] = {1, 5000, 3u << 20, (7u << 20) + 3, 20u << 20};
    for (size_t i = 0; i < MU_ARRAY_LEN(extra); i++) {
        struct mu_clip o;
        struct mu_buf b;
        size_t total = MU_OUTPUT_MAX + extra[i], tail = MU_OUTPUT_MAX - MU_OUTPUT_HEAD;
        mu_clip_init(&o, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
        mu_buf_init(&b, MU_OUTPUT_MAX + 1);
        add_counted(&o, 0, total);
        assert_true(mu_clip_lost(&o));
        assert_int_equal(o.total, total);
        mu_clip_write(&o, false, &b);
        assert_int_equal(b.len, MU_OUTPUT_MAX);
        assert_counted(mu_bytes_head(mu_buf_bytes(&b), MU_OUTPUT_HEAD), 0);
        assert_counted(mu_bytes_from(mu_buf_bytes(&b), MU_OUTPUT_HEAD), total - tail);
        assert_int_equal(mu_clip_from(&o, 0).len, 0);
        mu_clip_fini(&o);
        mu_buf_fini(&b);
    }
}

static void one_piece_larger_than_everything_is_cut_too(void **state)
{
    (void)state;
    struct mu_clip o;
    struct mu_buf b, all;
    size_t total = MU_OUTPUT_MAX + (2u << 20);
    mu_clip_init(&o, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
    mu_buf_init(&b, MU_OUTPUT_MAX + 1);
    mu_buf_init(&all, total);
    char *p = mu_buf_room(&all, total);
    assert_non_null(p);
    for (size_t i = 0; i < total; i++) {
        p[i] = (char)('a' + i % 23);
    }
    assert_int_equal(mu_clip_add(&o, mu_bytes_of(p, total)), 0);
    mu_clip_write(&o, false, &b);
    assert_int_equal(b.len, MU_OUTPUT_MAX);
    assert_counted(mu_bytes_head(mu_buf_bytes(&b), MU_OUTPUT_HEAD), 0);
    assert_counted(mu_bytes_from(mu_buf_bytes(&b), MU_OUTPUT_HEAD),
                   total - (MU_OUTPUT_MAX - MU_OUTPUT_HEAD));
    mu_clip_fini(&o);
    mu_buf_fini(&b);
    mu_buf_fini(&all);
}

static void a_cut_text_is_trimmed_at_both_ends(void **state)
{
    (void)state;
    struct mu_clip o;
    struct mu_buf b;
    mu_clip_init(&o, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
    mu_buf_init(&b, MU_OUTPUT_MAX + 1);
    add(&o, "  \nSTART");
    add_counted(&o, 0, 12u << 20);
    add(&o, "END \n\t\n");
    mu_clip_write(&o, true, &b);
    assert_true(mu_bytes_starts(mu_buf_bytes(&b), MU_B("START")));
    assert_true(mu_bytes_ends(mu_buf_bytes(&b), MU_B("END")));
    mu_clip_fini(&o);
    mu_buf_fini(&b);
}

static mu_bytes text_of(const struct mu_clip *k, struct mu_buf *b)
{
    mu_bytes parts[MU_CLIP_PARTS];
    mu_clip_parts(k, parts);
    mu_buf_init(b, 1 << 20);
    for (size_t i = 0; i < MU_CLIP_PARTS; i++) {
        mu_buf_add(b, parts[i]);
    }
    assert_int_equal(parts[0].len, MU_MIN(k->head, k->all.len));
    return mu_buf_bytes(b);
}

static void pieces_of_any_length_come_out_in_order(void **state)
{
    (void)state;
    static const size_t limits[][2] = {{8, 0}, {8, 1}, {8, 7}, {100, 30}, {1000, 500}};
    char all[3000];
    for (size_t i = 0; i < sizeof all; i++) {
        all[i] = (char)('a' + (i * 7 + i / 31) % 26);
    }
    for (size_t l = 0; l < MU_ARRAY_LEN(limits); l++) {
        size_t limit = limits[l][0], first = limits[l][1];
        for (size_t step = 1; step < sizeof all; step = step * 3 / 2 + 1) {
            struct mu_clip k;
            mu_clip_init(&k, limit, first);
            for (size_t at = 0; at < sizeof all; at += step) {
                struct mu_buf b;
                mu_bytes piece = mu_bytes_of(all + at, MU_MIN(step, sizeof all - at));
                assert_int_equal(mu_clip_add(&k, piece), 0);
                size_t n = at + piece.len, last = n > limit ? limit - first : 0;
                mu_bytes t = text_of(&k, &b);
                assert_int_equal(k.total, n);
                assert_int_equal(mu_clip_lost(&k), n > limit);
                assert_int_equal(t.len, MU_MIN(n, limit));
                assert_memory_equal(t.ptr, all, t.len - last);
                assert_memory_equal(t.ptr + t.len - last, all + n - last, last);
                mu_buf_fini(&b);
            }
            mu_clip_fini(&k);
        }
    }
}

static void a_text_that_is_there_whole_has_two_ends(void **state)
{
    (void)state;
    mu_bytes text = MU_B("0123456789"), last = mu_clip_of(&text, 10, 3);
    assert_true(mu_bytes_is(text, "0123456789"));
    assert_int_equal(last.len, 0);
    last = mu_clip_of(&text, 9, 3);
    assert_true(mu_bytes_is(text, "012"));
    assert_true(mu_bytes_is(last, "456789"));
    text = MU_B("0123456789");
    last = mu_clip_of(&text, 2, 0);
    assert_int_equal(text.len, 0);
    assert_true(mu_bytes_is(last, "89"));
}

static int output_survives(void *arg)
{
    (void)arg;
    struct mu_clip o;
    static char big[1 << 20];
    memset(big, 'x', sizeof big);
    mu_clip_init(&o, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
    int r = 0;
    for (int i = 0; r == 0 && i < 9; i++) {
        int64_t before = o.total;
        r = mu_clip_add(&o, mu_bytes_of(big, sizeof big));
        assert_true(r == 0 || (r == -ENOMEM && o.total == before));
    }
    mu_clip_fini(&o);
    return r;
}

static void no_memory_is_an_error_and_keeps_what_there_is(void **state)
{
    (void)state;
    each_allocation_fails(output_survives, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_text_is_kept_whole_and_trimmed_on_request),
        cmocka_unit_test(exactly_the_maximum_is_not_cut),
        cmocka_unit_test(of_more_the_first_and_the_last_are_kept),
        cmocka_unit_test(one_piece_larger_than_everything_is_cut_too),
        cmocka_unit_test(a_cut_text_is_trimmed_at_both_ends),
        cmocka_unit_test(pieces_of_any_length_come_out_in_order),
        cmocka_unit_test(a_text_that_is_there_whole_has_two_ends),
        cmocka_unit_test(no_memory_is_an_error_and_keeps_what_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
