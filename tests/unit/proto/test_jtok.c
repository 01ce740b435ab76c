#include "../unit.h"

#include "../alloc_fail.h"
#include "base/err.h"
#include "proto/jtok.h"

static int parse(const char *text)
{
    struct mu_jtok t;
    mu_jtok_init(&t);
    int r = mu_jtok_parse(&t, mu_str(text));
    mu_jtok_fini(&t);
    return r;
}

static const char *const good[] = {"{}",
                                   "[]",
                                   " [ ] ",
                                   "{\"a\":1}",
                                   "[1,2,[],{},\"x\",null,true,false,-0,1e5,0.5E-2]",
                                   "{\"a\":{\"b\":[{}]},\"c\":\"\\ud83d\\ude00\\n\\/\"}",
                                   "\t\r\n{ \"a\" : [ 1 , 2 ] }\n",
                                   "[\"\\u0000\"]",
                                   "[{},{}]",
                                   "[[],[]]",
                                   "{\"\":\"\"}"};
static const char *const bad[] = {"",
                                  " ",
                                  "1",
                                  "\"a\"",
                                  "null",
                                  "{",
                                  "}",
                                  "[",
                                  "]",
                                  "[1",
                                  "[1,]",
                                  "[,1]",
                                  "[1 2]",
                                  "{\"a\"}",
                                  "{\"a\":}",
                                  "{\"a\" 1}",
                                  "{\"a\",1}",
                                  "{1:2}",
                                  "{\"a\":1,}",
                                  "{\"a\":1 \"b\":2}",
                                  "[1]]",
                                  "{}{}",
                                  "[1]x",
                                  "x[1]",
                                  "[tru]",
                                  "[truee]",
                                  "[nul]",
                                  "[01]",
                                  "[1.]",
                                  "[.5]",
                                  "[+1]",
                                  "[-]",
                                  "[1e]",
                                  "[1e+]",
                                  "[0x1]",
                                  "[\"\\x\"]",
                                  "[\"\\u12\"]",
                                  "[\"\\ud800\"]",
                                  "[\"\\udc00\"]",
                                  "[\"\\ud800\\u0041\"]",
                                  "[\"a\nb\"]",
                                  "[\"a\tb\"]",
                                  "[\"\xff\"]",
                                  "[\"\xc3\"]",
                                  "[\"a]",
                                  "[1:2]",
                                  "{\"a\":1:2}",
                                  "{\"a\"::1}",
                                  "[\"a\":1]",
                                  "{[]:1}",
                                  "{\"a\":[}",
                                  "[{]}",
                                  "[\"\\",
                                  "{\"a\":\"b\":\"c\"}",
                                  "[1,,2]",
                                  "{,}",
                                  "[,]",
                                  "{\"a\":1,,\"b\":2}",
                                  "[\f1]",
                                  "['a']",
                                  "[NaN]",
                                  "[//\n1]"};

static void only_json_is_taken(void **state)
{
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(good); i++) {
        if (parse(good[i]) != 0) {
            fail_msg("refused: %s", good[i]);
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        if (parse(bad[i]) != MU_E_INVALID) {
            fail_msg("taken: %s", bad[i]);
        }
    }
    struct mu_jtok t;
    mu_jtok_init(&t);
    assert_int_equal(mu_jtok_parse(&t, MU_B("[1\0]")), MU_E_INVALID);
    assert_int_equal(mu_jtok_parse(&t, MU_B("[]\0")), MU_E_INVALID);
    mu_jtok_fini(&t);
}

static void values_are_found_by_their_keys(void **state)
{
    (void)state;
    struct mu_jtok t;
    struct mu_buf b;
    char small[4];
    mu_buf_init(&b, 64);
    mu_jtok_init(&t);
    assert_int_equal(
        mu_jtok_parse(&t, MU_B("{\"skip\":{\"n\":[1,{\"n\":2}]},\"n\":-7,\"s\":\"a\\u00e9\\n\","
                               "\"t\":true,\"z\":null,\"big\":12345678901234567890,\"f\":1.5,"
                               "\"k\\u0065y\":[10,[20],{\"x\":1},30],\"n2\":1,\"n2\":2}")),
        0);
    assert_int_equal(mu_jtok_i64(&t, mu_jtok_get(&t, 0, "n"), 0), -7);
    assert_int_equal(mu_jtok_i64(&t, mu_jtok_get(&t, 0, "big"), 5), 5);
    assert_int_equal(mu_jtok_i64(&t, mu_jtok_get(&t, 0, "f"), 5), 5);
    assert_int_equal(mu_jtok_i64(&t, mu_jtok_get(&t, 0, "n2"), 5), 2);
    assert_true(mu_jtok_bool(&t, mu_jtok_get(&t, 0, "t"), false));
    assert_true(mu_jtok_bool(&t, mu_jtok_get(&t, 0, "s"), true));
    assert_int_equal(mu_jtok_kind(&t, mu_jtok_get(&t, 0, "z")), MU_JTOK_NULL);
    assert_int_equal(mu_jtok_get(&t, 0, "nothing"), -1);
    assert_int_equal(mu_jtok_get(&t, mu_jtok_get(&t, 0, "n"), "x"), -1);
    int s = mu_jtok_get(&t, 0, "s");
    assert_true(mu_bytes_is(mu_jtok_raw(&t, s), "\"a\\u00e9\\n\""));
    assert_true(mu_jtok_is(&t, s, MU_B("a\xc3\xa9\n")));
    assert_false(mu_jtok_is(&t, s, MU_B("a\xc3\xa9")));
    assert_false(mu_jtok_is(&t, s, MU_B("a\xc3\xa9\n\n")));
    assert_int_equal(mu_jtok_add(&t, s, &b), 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "a\xc3\xa9\n"));
    assert_int_equal(mu_jtok_add(&t, 0, &b), MU_E_NOT_FOUND);
    assert_false(mu_jtok_copy(&t, s, small, sizeof small));
    assert_string_equal(small, "");
    int arr = mu_jtok_get(&t, 0, "key"), n = 0;
    static const char *const items[] = {"10", "[20]", "{\"x\":1}", "30"};
    for (int i = mu_jtok_first(&t, arr); i >= 0; i = mu_jtok_next(&t, arr, i)) {
        assert_true(mu_bytes_is(mu_jtok_raw(&t, i), items[n++]));
    }
    assert_int_equal(n, 4);
    n = 0;
    for (int k = mu_jtok_first(&t, 0); k >= 0; k = mu_jtok_next(&t, 0, k)) {
        assert_int_equal(mu_jtok_kind(&t, k), MU_JTOK_STRING);
        n++;
    }
    assert_int_equal(n, 10);
    mu_buf_fini(&b);
    mu_jtok_fini(&t);
}

static void after_a_failure_nothing_is_there(void **state)
{
    (void)state;
    struct mu_jtok t;
    mu_jtok_init(&t);
    assert_int_equal(mu_jtok_parse(&t, MU_B("{\"a\":1}")), 0);
    assert_int_equal(mu_jtok_parse(&t, MU_B("{\"a\":1")), MU_E_INVALID);
    assert_int_equal(mu_jtok_get(&t, 0, "a"), -1);
    assert_int_equal(mu_jtok_kind(&t, 0), MU_JTOK_NONE);
    mu_jtok_fini(&t);
}

static void bounds_hold(void **state)
{
    (void)state;
    struct mu_buf b;
    struct mu_jtok t;
    mu_jtok_init(&t);
    mu_buf_init(&b, 4 << 20);
    for (int deep = MU_JTOK_DEPTH; deep <= MU_JTOK_DEPTH + 1; deep++) {
        mu_buf_clear(&b);
        for (int i = 0; i < deep; i++) {
            mu_buf_add_char(&b, '[');
        }
        for (int i = 0; i < deep; i++) {
            mu_buf_add_char(&b, ']');
        }
        assert_int_equal(mu_jtok_parse(&t, mu_buf_bytes(&b)),
                         deep > MU_JTOK_DEPTH ? MU_E_TOO_LARGE : 0);
    }
    for (int n = MU_JTOK_MAX - 1; n <= MU_JTOK_MAX; n++) {
        mu_buf_clear(&b);
        mu_buf_add_char(&b, '[');
        for (int i = 0; i < n; i++) {
            mu_buf_add_str(&b, i ? ",[]" : "[]");
        }
        mu_buf_add_char(&b, ']');
        assert_int_equal(mu_jtok_parse(&t, mu_buf_bytes(&b)), n < MU_JTOK_MAX ? 0 : MU_E_TOO_LARGE);
    }
    /* a million brackets are refused before they cost anything */
    mu_buf_clear(&b);
    for (int i = 0; i < 1 << 20; i++) {
        mu_buf_add_char(&b, '{');
    }
    assert_int_equal(mu_jtok_parse(&t, mu_buf_bytes(&b)), MU_E_TOO_LARGE);
    mu_buf_fini(&b);
    mu_jtok_fini(&t);
}

static int body(void *arg)
{
    (void)arg;
    struct mu_jtok t;
    struct mu_buf b;
    mu_jtok_init(&t);
    mu_buf_init(&b, 100);
    mu_buf_add_char(&b, '[');
    for (int i = 0; i < 40; i++) {
        mu_buf_add_str(&b, i ? ",1" : "1");
    }
    int r = b.failed ? b.failed : mu_jtok_parse(&t, MU_B("[[1,2,3,4,5,6,7,8,9,0],[\"a\"]]"));
    mu_buf_clear(&b);
    int v = mu_jtok_first(&t, mu_jtok_next(&t, 0, mu_jtok_first(&t, 0)));
    r = r ? r : mu_jtok_add(&t, v, &b);
    assert_true(r == 0 || r == -12);
    mu_buf_fini(&b);
    mu_jtok_fini(&t);
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
        cmocka_unit_test(only_json_is_taken),
        cmocka_unit_test(values_are_found_by_their_keys),
        cmocka_unit_test(after_a_failure_nothing_is_there),
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
