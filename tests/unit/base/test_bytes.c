#include "../unit.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "base/bytes.h"
#include "base/err.h"

static void comparisons_look_at_content_only(void **state MU_UNUSED)
{
    assert_true(mu_bytes_eq(MU_B_NONE, MU_B("")));
    assert_true(mu_bytes_is(MU_B("abc"), "abc"));
    assert_false(mu_bytes_is(MU_B("abc"), "abd"));
    assert_false(mu_bytes_is(mu_bytes_of("a\0b", 3), "a"));
    assert_true(mu_bytes_is(MU_B_NONE, NULL));
    assert_true(mu_bytes_eq_nocase(MU_B("AbZ[@"), MU_B("aBz[@")));
    assert_false(mu_bytes_eq_nocase(MU_B("@"), MU_B("`")));
    assert_false(mu_bytes_eq_nocase(MU_B("a"), MU_B("ab")));
    assert_true(mu_bytes_eq_secret(MU_B("key"), MU_B("key")));
    assert_false(mu_bytes_eq_secret(MU_B("key"), MU_B("kez")));
    assert_false(mu_bytes_eq_secret(MU_B("key"), MU_B("ke")));
    assert_true(mu_bytes_eq_secret(MU_B_NONE, MU_B("")));
}

static void order_is_bytewise_and_shorter_first(void **state MU_UNUSED)
{
    static const char *const sorted[] = {"", "a", "a\x01", "ab", "b", "\x7f", "\x80", "\xff"};
    for (size_t i = 0; i < MU_ARRAY_LEN(sorted); i++) {
        for (size_t k = 0; k < MU_ARRAY_LEN(sorted); k++) {
            int c = mu_bytes_cmp(mu_str(sorted[i]), mu_str(sorted[k]));
            assert_int_equal((c > 0) - (c < 0), (i > k) - (i < k));
        }
    }
    assert_int_equal(mu_bytes_cmp(MU_B_NONE, MU_B("")), 0);
}

static void prefixes_and_suffixes(void **state MU_UNUSED)
{
    assert_true(mu_bytes_starts(MU_B("abc"), MU_B("ab")));
    assert_true(mu_bytes_starts(MU_B("abc"), MU_B_NONE));
    assert_false(mu_bytes_starts(MU_B("ab"), MU_B("abc")));
    assert_true(mu_bytes_ends(MU_B("abc"), MU_B("bc")));
    assert_true(mu_bytes_ends(MU_B_NONE, MU_B("")));
    assert_false(mu_bytes_ends(MU_B("abc"), MU_B("ab")));
    assert_false(mu_bytes_ends(MU_B("bc"), MU_B("abc")));
}

static void finding_gives_the_first_position(void **state MU_UNUSED)
{
    assert_int_equal(mu_bytes_find(MU_B("banana"), MU_B("an")), 1);
    assert_int_equal(mu_bytes_find(MU_B("banana"), MU_B("na")), 2);
    assert_int_equal(mu_bytes_find(MU_B("banana"), MU_B("x")), -1);
    assert_int_equal(mu_bytes_find(MU_B("a"), MU_B("ab")), -1);
    assert_int_equal(mu_bytes_find(MU_B_NONE, MU_B("")), 0);
    assert_int_equal(mu_bytes_find(MU_B_NONE, MU_B("x")), -1);
    assert_int_equal(mu_bytes_find_nocase(MU_B("BaNaNa"), MU_B("nA")), 2);
    assert_int_equal(mu_bytes_find_nocase(MU_B("abc"), MU_B("c")), 2);
    assert_int_equal(mu_bytes_find_nocase(MU_B("abc"), MU_B("")), 0);
    assert_int_equal(mu_bytes_find_nocase(MU_B("abc"), MU_B("abcd")), -1);
    assert_int_equal(mu_bytes_find_char(MU_B("abc"), 'c'), 2);
    assert_int_equal(mu_bytes_find_char(MU_B_NONE, 'c'), -1);
}

static void parts_are_clamped(void **state MU_UNUSED)
{
    assert_true(mu_bytes_is(mu_bytes_from(MU_B("abc"), 1), "bc"));
    assert_true(mu_bytes_is(mu_bytes_from(MU_B("abc"), 9), ""));
    assert_non_null(mu_bytes_from(MU_B("abc"), 9).ptr);
    assert_null(mu_bytes_from(MU_B_NONE, 1).ptr);
    assert_true(mu_bytes_is(mu_bytes_head(MU_B("abc"), 2), "ab"));
    assert_true(mu_bytes_is(mu_bytes_head(MU_B("abc"), 9), "abc"));
    assert_true(mu_bytes_is(mu_bytes_trim(MU_B(" \t\r\n\v\fa b\n ")), "a b"));
    assert_int_equal(mu_bytes_trim(MU_B(" \n ")).len, 0);
    assert_int_equal(mu_bytes_trim(MU_B_NONE).len, 0);
}

static void splitting_ends_with_a_null_rest(void **state MU_UNUSED)
{
    static const struct {
        const char *in, *parts;
    } rows[] = {
        {"a,b,,c", "[a][b][][c]"}, {"a", "[a]"}, {"", "[]"}, {",", "[][]"}, {"a,", "[a][]"}};
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        mu_bytes rest = mu_str(rows[i].in);
        char out[64] = "";
        size_t n = 0;
        while (rest.ptr) {
            mu_bytes part = mu_bytes_split(&rest, ',');
            n += (size_t)snprintf(out + n, sizeof out - n, "[%.*s]", MU_ARGS(part));
        }
        assert_string_equal(out, rows[i].parts);
    }
}

static void a_path_leads_nowhere_else(void **state MU_UNUSED)
{
    static const char *const good[] = {"a", "a/b", ".a/..b/c..", "a b/\xc3\xbc"};
    static const char *const bad[] = {"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b"};
    for (size_t i = 0; i < MU_ARRAY_LEN(good); i++) {
        assert_true(mu_bytes_is_path(mu_str(good[i])));
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_false(mu_bytes_is_path(mu_str(bad[i])));
    }
    assert_false(mu_bytes_is_path(MU_B_NONE));
}

static void integers_are_whole_decimal_and_in_range(void **state MU_UNUSED)
{
    static const struct {
        const char *text;
        bool ok;
        int64_t v;
    } rows[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"007", true, 7},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"99999999999999999999", false, 0},
        {"", false, 0},
        {"-", false, 0},
        {"+1", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"1a", false, 0},
        {"--1", false, 0},
        {"0x1", false, 0},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        int64_t v = 42;
        int r = mu_bytes_i64(mu_str(rows[i].text), &v);
        assert_int_equal(r, rows[i].ok ? 0 : MU_E_INVALID);
        assert_true(v == (rows[i].ok ? rows[i].v : 42));
    }
}

static int copy(void *arg MU_UNUSED)
{
    char *p = mu_bytes_dup(mu_bytes_of("a\0b", 3));
    if (p) {
        assert_memory_equal(p, "a\0b", 4);
    }
    mu_free(p);
    p = mu_bytes_dup(MU_B_NONE);
    if (p) {
        assert_string_equal(p, "");
    }
    mu_free(p);
    return 0;
}

static void copies_end_with_a_nul_and_may_fail(void **state MU_UNUSED)
{
    each_allocation_fails(copy, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparisons_look_at_content_only),
        cmocka_unit_test(order_is_bytewise_and_shorter_first),
        cmocka_unit_test(prefixes_and_suffixes),
        cmocka_unit_test(finding_gives_the_first_position),
        cmocka_unit_test(parts_are_clamped),
        cmocka_unit_test(splitting_ends_with_a_null_rest),
        cmocka_unit_test(a_path_leads_nowhere_else),
        cmocka_unit_test(integers_are_whole_decimal_and_in_range),
        cmocka_unit_test(copies_end_with_a_nul_and_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
