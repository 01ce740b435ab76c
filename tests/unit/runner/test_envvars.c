#include "../unit.h"

#include <errno.h>

#include "../alloc_fail.h"
#include "base/buf.h"
#include "runner/envvars.h"

static int collect(void *arg, mu_bytes name, mu_bytes value)
{
    struct mu_buf *b = arg;
    mu_buf_add(b, name);
    mu_buf_add_char(b, '=');
    mu_buf_add(b, value);
    mu_buf_add_char(b, ';');
    return b->failed;
}

static void expect_lines(const char *text, int n, const char *want)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    assert_int_equal(mu_envvars_lines(mu_str(text), collect, &b), n);
    mu_buf_add_char(&b, 0);
    assert_string_equal(b.ptr, want);
    mu_buf_fini(&b);
}

static void expect_json(mu_bytes text, int n, const char *want)
{
    struct mu_buf b;
    struct mu_err err;
    mu_buf_init(&b, 1 << 20);
    assert_int_equal(mu_envvars_json(text, collect, &b, &err), n);
    mu_buf_add_char(&b, 0);
    assert_string_equal(b.ptr, want);
    mu_buf_fini(&b);
}

static void lines_that_name_nothing_are_skipped(void **state)
{
    (void)state;
    expect_lines("A=1\nB=x=y \n=no\n1C=no\nD-E=no\nno\n\nF=\n_g9= v", 4, "A=1;B=x=y ;F=;_g9= v;");
    expect_lines("", 0, "");
    expect_lines("A=1\r", 1, "A=1\r;");
}

static void a_flat_object_loses_nothing(void **state)
{
    (void)state;
    expect_json(MU_B(" { \"A\" : \"1\" ,\"B\":\"\" }\n"), 2, "A=1;B=;");
    expect_json(MU_B("{}"), 0, "");
    expect_json(MU_B("{\"A\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}"), 1, "A=\"\\/\b\f\n\r\t;");
    expect_json(MU_B("{\"A\":\"\\u00fc\\u20AC\\ud83d\\ude00\\u007f\"}"), 1,
                "A=\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\x7f;");
    expect_json(MU_B("{\"\\u0041\":\"ü\",\"A\":\"again\"}"), 2, "A=ü;A=again;");
}

static void what_no_environment_can_hold_is_skipped(void **state)
{
    (void)state;
    expect_json(MU_B("{\"a-b\":\"1\",\"\":\"2\",\"1\":\"3\",\"Z\":\"x\\u0000y\",\"ok\":\"4\"}"), 1,
                "ok=4;");
}

static void anything_else_sets_nothing_at_all(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{\"A\":1}",
        "{\"A\":null}",
        "{\"A\":true}",
        "{\"A\":{}}",
        "{\"A\":[]}",
        "{\"A\":\"1\",}",
        "{\"A\":\"1\"}x",
        "{\"A\":\"1\"}{}",
        "{,}",
        "{\"A\"}",
        "{\"A\":}",
        "{A:\"1\"}",
        "{'A':'1'}",
        "{\"A\":\"1\" \"B\":\"2\"}",
        "{\"A\":\"\\x\"}",
        "{\"A\":\"\\u12\"}",
        "{\"A\":\"\\u12g4\"}",
        "{\"A\":\"\\ud83d\"}",
        "{\"A\":\"\\ud83dx\"}",
        "{\"A\":\"\\ud83d\\u0041\"}",
        "{\"A\":\"\\ude00\"}",
        "{\"A\":\"\n\"}",
        "{\"A\":\"\t\"}",
        "{\"A\":\"x",
        "{\"A\":\"x\\",
        "{\"A\":\"\xff\"}",
        "{\"ok\":\"1\",\"A\":2}",
        "//\n{}",
        "\xef\xbb\xbf{}",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        expect_json(mu_str(bad[i]), MU_E_INVALID, "");
    }
    expect_json(mu_bytes_of("{\"A\":\"x\0y\"}", 11), MU_E_INVALID, "");
}

static int no_memory(void *arg)
{
    (void)arg;
    struct mu_buf b;
    struct mu_err err;
    mu_buf_init(&b, 1 << 20);
    int r = mu_envvars_json(MU_B("{\"A\":\"some value\",\"B\":\"another\"}"), collect, &b, &err);
    mu_buf_fini(&b);
    return r < 0 ? r : 0;
}

static void memory_may_run_out_anywhere(void **state)
{
    (void)state;
    each_allocation_fails(no_memory, NULL);
}

static int refuse(void *arg, mu_bytes name, mu_bytes value)
{
    (void)arg, (void)name, (void)value;
    return -EPERM;
}

static void a_refusal_ends_the_walk(void **state)
{
    (void)state;
    struct mu_err err;
    assert_int_equal(mu_envvars_lines(MU_B("A=1\nB=2"), refuse, NULL), -EPERM);
    assert_int_equal(mu_envvars_json(MU_B("{\"A\":\"1\"}"), refuse, NULL, &err), -EPERM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_that_name_nothing_are_skipped),
        cmocka_unit_test(a_flat_object_loses_nothing),
        cmocka_unit_test(what_no_environment_can_hold_is_skipped),
        cmocka_unit_test(anything_else_sets_nothing_at_all),
        cmocka_unit_test(memory_may_run_out_anywhere),
        cmocka_unit_test(a_refusal_ends_the_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
