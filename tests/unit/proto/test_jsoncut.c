#include "../unit.h"

#include <errno.h>

#include "../alloc_fail.h"
#include "base/err.h"
#include "proto/jsoncut.h"

enum { MAX_STRING = 16 };

struct seen {
    struct mu_buf out, told;
    struct mu_jsoncut cut;
    int stop;
};

static int on_piece(void *arg, mu_bytes key, unsigned depth, mu_bytes text, bool first)
{
    struct seen *s = arg;
    if (first) {
        mu_buf_printf(&s->told, "<%.*s@%u>", MU_ARGS(key), depth);
    }
    mu_buf_add(&s->told, text);
    return s->stop;
}

static void seen_init(struct seen *s, size_t max)
{
    s->stop = 0;
    mu_buf_init(&s->out, max);
    mu_buf_init(&s->told, 1 << 20);
    mu_jsoncut_init(&s->cut, &s->out, MAX_STRING, on_piece, s);
}

static void seen_fini(struct seen *s)
{
    mu_buf_fini(&s->out);
    mu_buf_fini(&s->told);
}

static const struct {
    const char *in, *out, *told;
} texts[] = {
    {"{}", "{}", ""},
    {" { \"a\" : [ 1 , true ] }\n", "{\"a\":[1,true]}", ""},
    {"{\"a\":\"0123456789abcdef\"}", "{\"a\":\"0123456789abcdef\"}", ""},
    {"{\"a\":\"0123456789abcdefg\"}", "{\"a\":\"0123456789abcdef\"}", "<a@1>0123456789abcdefg"},
    {"{\"d\":{\"output\":\"0123456789abcdef\\n\\\"\\u0041\"}}",
     "{\"d\":{\"output\":\"0123456789abcdef\"}}", "<output@2>0123456789abcdef\n\"A"},
    {"[\"0123456789abcd\\ud83d\\ude00x\"]", "[\"0123456789abcd\\ud83d\\ude00\"]",
     "<@1>0123456789abcd\xf0\x9f\x98\x80x"},
    {"[\"0123456789abcde\xc3\xa9xy\"]", "[\"0123456789abcde\xc3\xa9\"]",
     "<@1>0123456789abcde\xc3\xa9xy"},
    {"[\"0123456789abcdef\\ud800x\"]", "[\"0123456789abcdef\"]",
     "<@1>0123456789abcdef\xef\xbf\xbdx"},
    {"{\"a key that is much too long\":1,\"b\":\"0123456789abcdefg\"}",
     "{\"a key that is mu\":1,\"b\":\"0123456789abcdef\"}", "<b@1>0123456789abcdefg"},
    {"{\"a\":[\"0123456789abcdefg\"],\"b\":2}", "{\"a\":[\"0123456789abcdef\"],\"b\":2}",
     "<@2>0123456789abcdefg"},
};

static void long_strings_are_cut_and_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (size_t step = 1; step < 40; step++) {
            struct seen s;
            seen_init(&s, 1 << 20);
            mu_bytes in = mu_str(texts[i].in);
            while (in.len) {
                assert_int_equal(mu_jsoncut_feed(&s.cut, mu_bytes_head(in, step)), 0);
                in = mu_bytes_from(in, step);
            }
            assert_true(mu_bytes_is(mu_buf_bytes(&s.out), texts[i].out));
            assert_true(mu_bytes_is(mu_buf_bytes(&s.told), texts[i].told));
            seen_fini(&s);
        }
    }
}

static void zero_bytes_come_through(void **state)
{
    (void)state;
    struct seen s;
    seen_init(&s, 1 << 20);
    assert_int_equal(mu_jsoncut_feed(&s.cut, MU_B("\"\\u0001\\u0000\\u0000\\u0000tail\"")), 0);
    assert_memory_equal(s.told.ptr, "<@0>\1\0\0\0tail", 12);
    seen_fini(&s);
}

static void what_is_no_json_ends_it(void **state)
{
    (void)state;
    static const char *const bad[] = {"\"\\x", "\"a\nb\"", "\"\\u00g0\"", "]", "{}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct seen s;
        seen_init(&s, 1 << 20);
        assert_int_equal(mu_jsoncut_feed(&s.cut, mu_str(bad[i])), MU_E_INVALID);
        assert_int_equal(mu_jsoncut_feed(&s.cut, MU_B(" ")), MU_E_INVALID);
        seen_fini(&s);
    }
    struct seen s;
    seen_init(&s, 1 << 20);
    for (int i = 0; i < MU_JSONCUT_DEPTH; i++) {
        assert_int_equal(mu_jsoncut_feed(&s.cut, MU_B("[")), 0);
    }
    assert_int_equal(mu_jsoncut_feed(&s.cut, MU_B("[")), MU_E_INVALID);
    seen_fini(&s);
}

static void what_is_kept_is_bounded(void **state)
{
    (void)state;
    struct seen s;
    seen_init(&s, 64);
    int r = 0;
    for (int i = 0; i < 100 && r == 0; i++) {
        r = mu_jsoncut_feed(&s.cut, MU_B("[1],"));
    }
    assert_int_equal(r, MU_E_TOO_LARGE);
    seen_fini(&s);
    seen_init(&s, 64); /* one long string is not */
    assert_int_equal(mu_jsoncut_feed(&s.cut, MU_B("\"")), 0);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(mu_jsoncut_feed(&s.cut, MU_B("0123456789")), 0);
    }
    seen_fini(&s);
}

static void a_listener_may_end_it(void **state)
{
    (void)state;
    struct seen s;
    seen_init(&s, 1 << 20);
    s.stop = -ENOMEM;
    assert_int_equal(mu_jsoncut_feed(&s.cut, MU_B("\"0123456789abcdefghij\"")), -ENOMEM);
    seen_fini(&s);
}

static int filtered(void *arg)
{
    (void)arg;
    struct seen s;
    seen_init(&s, 1 << 20);
    int r = 0;
    for (int i = 0; i < 300 && r == 0; i++) {
        r = mu_jsoncut_feed(&s.cut, MU_B("[\"0123456789abcdefgh\"],"));
    }
    seen_fini(&s);
    return r;
}

static void memory_may_run_out(void **state)
{
    (void)state;
    each_allocation_fails(filtered, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_strings_are_cut_and_told), cmocka_unit_test(zero_bytes_come_through),
        cmocka_unit_test(what_is_no_json_ends_it),       cmocka_unit_test(what_is_kept_is_bounded),
        cmocka_unit_test(a_listener_may_end_it),         cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
