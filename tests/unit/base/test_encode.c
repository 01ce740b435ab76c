#include "../unit.h"

#include <errno.h>

#include "../alloc_fail.h"
#include "base/encode.h"
#include "base/err.h"

static void hexadecimal_is_lower_case(void **state MU_UNUSED)
{
    char text[9];
    mu_hex("\x00\xff\x1a\xb2", 4, text);
    assert_string_equal(text, "00ff1ab2");
    mu_hex("", 0, text);
    assert_string_equal(text, "");
    const char *digits = "0123456789abcdef", *upper = "ABCDEF";
    for (int c = 0; c < 256; c++) {
        const char *at = c ? strchr(digits, c) : NULL, *up = c ? strchr(upper, c) : NULL;
        assert_int_equal(mu_hex_value((char)c), at ? at - digits : up ? up - upper + 10 : -1);
        char some[] = {'0', (char)c, 'f'};
        assert_true(mu_hex_is(mu_bytes_of(some, 3), 3) == (at != NULL));
    }
}

static void hexadecimal_is_of_one_length(void **state MU_UNUSED)
{
    assert_true(mu_hex_is(MU_B("0a"), 2));
    assert_false(mu_hex_is(MU_B("0a"), 1));
    assert_false(mu_hex_is(MU_B("0a"), 3));
    assert_true(mu_hex_is(MU_B_NONE, 0));
    assert_false(mu_hex_is(MU_B_NONE, 1));
}

static void base64_matches_the_standard_both_ways(void **state MU_UNUSED)
{
    static const char *const rows[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xfb\xff\xbf", "+/+/"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_buf b;
        mu_buf_init(&b, 100);
        mu_base64_add(&b, mu_str(rows[i][0]));
        assert_true(mu_bytes_is(mu_buf_bytes(&b), rows[i][1]));
        mu_buf_clear(&b);
        assert_int_equal(mu_base64_decode(mu_str(rows[i][1]), &b), 0);
        assert_true(mu_bytes_is(mu_buf_bytes(&b), rows[i][0]));
        mu_buf_fini(&b);
    }
}

static void base64_that_no_encoder_makes_is_refused(void **state MU_UNUSED)
{
    static const char *const rows[] = {
        "Z",    "Zg",     "Zg=",  "Zg===", "=",        "====", "Z===", "Zh==",     "Zm9=",
        "Zm 9", "Zm9v\n", "Zm9-", "Zm9_",  "Zg==Zg==", "Z=g=", "=Zg=", "Zm9v====", "Zm\xc3\xa9"};
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_buf b;
        mu_buf_init(&b, 100);
        assert_int_equal(mu_base64_decode(mu_str(rows[i]), &b), MU_E_INVALID);
        mu_buf_fini(&b);
    }
    struct mu_buf small;
    mu_buf_init(&small, 2);
    assert_int_equal(mu_base64_decode(MU_B("Zm9v"), &small), MU_E_TOO_LARGE);
    mu_buf_fini(&small);
}

static const struct {
    const char *text, *lossy; /* lossy NULL: valid */
} utf8[] = {
    {"", NULL},
    {"plain ascii of some length", NULL},
    {"\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", NULL},
    {"\xed\x9f\xbf\xee\x80\x80", NULL},
    {"a\xff", "a\xef\xbf\xbd"},
    {"\x80", "\xef\xbf\xbd"},
    {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xc1\xbf", "\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xf0\x80\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xf5\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xe2\x82", "\xef\xbf\xbd"},
    {"\xe2\x82x", "\xef\xbf\xbdx"},
    {"\xf0\x9f\x98", "\xef\xbf\xbd"},
    {"\xf0\x9f\x98\xf0\x9f\x98\x80", "\xef\xbf\xbd\xf0\x9f\x98\x80"},
    {"12345678\xc3", "12345678\xef\xbf\xbd"},
    {"1234567\xc3\xa9", NULL},
};

static void malformed_utf8_is_found_and_replaced_by_maximal_parts(void **state MU_UNUSED)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(utf8); i++) {
        struct mu_buf b;
        mu_bytes text = mu_str(utf8[i].text);
        assert_int_equal(mu_utf8_valid(text), utf8[i].lossy == NULL);
        mu_buf_init(&b, 100);
        mu_utf8_add_lossy(&b, text);
        if (!mu_bytes_is(mu_buf_bytes(&b), utf8[i].lossy ? utf8[i].lossy : utf8[i].text)) {
            fail_msg("row %zu", i);
        }
        mu_buf_fini(&b);
    }
}

static void the_length_of_a_character_or_of_what_stands_for_none(void **state MU_UNUSED)
{
    static const struct {
        const char *text;
        size_t len, bad;
    } rows[] = {{"a\x80", 1, 0},        {"\xc3\xa9\xa9", 2, 0},
                {"\xe2\x82\xac", 3, 0}, {"\xf0\x9f\x98\x80", 4, 0},
                {"\x80\x80", 0, 1},     {"\xc3", 0, 1},
                {"\xe2\x82x", 0, 2},    {"\xf0\x9f\x98", 0, 3},
                {"\xff\xff", 0, 1}};
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        size_t bad = 0;
        assert_int_equal(mu_utf8_len(mu_str(rows[i].text), &bad), rows[i].len);
        assert_true(rows[i].len || bad == rows[i].bad);
    }
}

static void cuts_fall_between_characters(void **state MU_UNUSED)
{
    mu_bytes text = MU_B("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z");
    static const size_t ends[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
    for (size_t max = 0; max < MU_ARRAY_LEN(ends); max++) {
        assert_int_equal(mu_utf8_cut(text, max).len, ends[max]);
    }
    assert_int_equal(mu_utf8_count(text), 5);
    assert_int_equal(mu_utf8_count(MU_B_NONE), 0);
}

static int encode_all(void *arg MU_UNUSED)
{
    struct mu_buf a, b;
    mu_buf_init(&a, 1000);
    mu_buf_init(&b, 1000);
    mu_base64_add(&a, MU_B("some bytes"));
    if (!a.failed) {
        int r = mu_base64_decode(mu_buf_bytes(&a), &b);
        assert_true(r == 0 || r == -ENOMEM);
    }
    mu_buf_fini(&a);
    mu_buf_fini(&b);
    return 0;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    each_allocation_fails(encode_all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hexadecimal_is_lower_case),
        cmocka_unit_test(hexadecimal_is_of_one_length),
        cmocka_unit_test(base64_matches_the_standard_both_ways),
        cmocka_unit_test(base64_that_no_encoder_makes_is_refused),
        cmocka_unit_test(malformed_utf8_is_found_and_replaced_by_maximal_parts),
        cmocka_unit_test(the_length_of_a_character_or_of_what_stands_for_none),
        cmocka_unit_test(cuts_fall_between_characters),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
