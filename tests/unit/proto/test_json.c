#include "../unit.h"

#include <errno.h>
#include <float.h>
#include <math.h>

#include "../alloc_fail.h"
#include "base/encode.h"
#include "proto/json.h"

static const struct mu_json_limits limits = {1 << 20, 16};

static int read_text(struct mu_arena *a, mu_bytes text, yyjson_val **ret, struct mu_err *err)
{
    mu_arena_init(a, 64 << 20);
    return mu_json_read(a, text, &limits, ret, err);
}

static int code_of(mu_bytes text, struct mu_err *err)
{
    struct mu_arena a;
    yyjson_val *v;
    int r = read_text(&a, text, &v, err);
    mu_arena_fini(&a);
    return r;
}

static void well_formed_text_is_read_and_written_back(void **state MU_UNUSED)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"{}", "{}"},
        {" [ ] ", "[]"},
        {"null", "null"},
        {"\"x\"", "\"x\""},
        {"[1,-2,0.5,1e3,true,false,null]", "[1,-2,0.5,1000,true,false,null]"},
        {"18446744073709551615", "18446744073709551615"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"9223372036854775807", "9223372036854775807"},
        {"0.1", "0.1"},
        {"1e22", "1e+22"},
        {"5e-324", "4.94065645841247e-324"},
        {"{\"b\":{\"c\":[[],{}]},\"a\":\"\\u0041\\n\\u0000\"}",
         "{\"b\":{\"c\":[[],{}]},\"a\":\"A\\n\\u0000\"}"},
        {"\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\""},
        {"\"[[[[[[[[[[[[[[[[[[[[[[[[[[[{\\\"{\\\\\"", "\"[[[[[[[[[[[[[[[[[[[[[[[[[[[{\\\"{\\\\\""},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_arena a;
        struct mu_err err;
        yyjson_val *v;
        assert_int_equal(read_text(&a, mu_str(rows[i].in), &v, &err), 0);
        struct mu_buf b;
        mu_buf_init(&b, 4096);
        mu_json_add(&b, v);
        mu_buf_add_char(&b, 0);
        assert_int_equal(b.failed, 0);
        assert_string_equal(b.ptr, rows[i].out);
        mu_buf_fini(&b);
        mu_arena_fini(&a);
    }
}

static void malformed_text_is_refused_with_words(void **state MU_UNUSED)
{
    static const char *const rows[] = {
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "'x'",
        "01",
        "1.",
        ".5",
        "+1",
        "nan",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "\"\x01\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "[1] []",
        "1 2",
        "// c\n1",
        "/**/1",
        "\xef\xbb\xbf{}",
        "[1 2]",
        "{\"a\" 1}",
        "\"abc",
        "tru",
        "]",
        "{]",
        "[\"\\\"]",
        "\"\xed\xa0\x80\"",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_err err = {0};
        if (code_of(mu_str(rows[i]), &err) != MU_E_INVALID) {
            fail_msg("accepted: %s", rows[i]);
        }
        assert_non_null(strstr(err.text, "byte"));
    }
    struct mu_err err = {0};
    assert_int_equal(code_of(mu_bytes_of("[1]\0", 4), &err), MU_E_INVALID);
}

static void
depth_is_limited_before_parsing_and_brackets_in_strings_do_not_count(void **state MU_UNUSED)
{
    char text[64];
    struct mu_err err;
    memset(text, '[', 17);
    memset(text + 17, ']', 17);
    assert_int_equal(code_of(mu_bytes_of(text, 34), &err), MU_E_INVALID);
    assert_non_null(strstr(err.text, "deeper than 16"));
    assert_int_equal(code_of(mu_bytes_of(text + 1, 32), &err), 0);
    assert_int_equal(code_of(MU_B("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[\"]"), &err), 0);
}

static void text_over_the_limit_is_too_large(void **state MU_UNUSED)
{
    struct mu_json_limits tiny = {4, 4};
    struct mu_arena a;
    struct mu_err err;
    yyjson_val *v;
    mu_arena_init(&a, 4096);
    assert_int_equal(mu_json_read(&a, MU_B("[1,2]"), &tiny, &v, &err), MU_E_TOO_LARGE);
    assert_int_equal(mu_json_read(&a, MU_B("[12]"), &tiny, &v, &err), 0);
    mu_arena_fini(&a);
}

static void duplicate_keys_are_refused_in_small_large_and_nested_objects(void **state MU_UNUSED)
{
    struct mu_err err;
    assert_int_equal(code_of(MU_B("{\"a\":1,\"b\":2,\"a\":3}"), &err), MU_E_INVALID);
    assert_non_null(strstr(err.text, "duplicate key \"a\" at byte 14"));
    assert_int_equal(code_of(MU_B("{\"a\":1,\"\\u0061\":2}"), &err), MU_E_INVALID);
    assert_int_equal(code_of(MU_B("[{\"x\":{\"\":1,\"\":2}}]"), &err), MU_E_INVALID);
    assert_int_equal(code_of(MU_B("{\"a\":{\"a\":{\"a\":1}},\"b\":{\"a\":2}}"), &err), 0);
    for (int n = 2; n < 300; n++) {
        for (int twin = -1; twin < n; twin += n < 20 ? 1 : 37) {
            struct mu_buf b;
            mu_buf_init(&b, 1 << 16);
            mu_buf_add_char(&b, '{');
            for (int i = 0; i < n; i++) {
                mu_buf_printf(&b, "%s\"k%d\":{\"v\":[%d]}", i ? "," : "", i, i);
            }
            if (twin >= 0) {
                mu_buf_printf(&b, ",\"k%d\":0", twin);
            }
            mu_buf_add_char(&b, '}');
            assert_int_equal(code_of(mu_buf_bytes(&b), &err), twin < 0 ? 0 : MU_E_INVALID);
            mu_buf_fini(&b);
        }
    }
}

static void reading_takes_memory_in_proportion_to_the_text(void **state MU_UNUSED)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    mu_buf_add_str(&b, "[1");
    while (b.len < 100000) {
        mu_buf_add_str(&b, ",1");
    }
    mu_buf_add_char(&b, ']');
    struct mu_arena a;
    struct mu_err err;
    yyjson_val *v;
    mu_arena_init(&a, 14 * b.len); /* a value takes 16 bytes, growth at most half more */
    assert_int_equal(mu_json_read(&a, mu_buf_bytes(&b), &limits, &v, &err), 0);
    assert_int_equal(yyjson_arr_size(v), b.len / 2);
    mu_arena_fini(&a);
    mu_buf_fini(&b);
}

static void lookups_accept_null_and_wrong_types(void **state MU_UNUSED)
{
    struct mu_arena a;
    struct mu_err err;
    yyjson_val *v;
    assert_int_equal(read_text(&a,
                               MU_B("{\"s\":\"t\",\"i\":-7,\"u\":18446744073709551615,"
                                    "\"b\":true,\"n\":null,\"r\":1.5,\"z\":\"\"}"),
                               &v, &err),
                     0);
    assert_true(mu_bytes_is(mu_json_get_bytes(v, "s"), "t"));
    assert_non_null(mu_json_get_bytes(v, "z").ptr);
    assert_null(mu_json_get_bytes(v, "i").ptr);
    assert_null(mu_json_get_bytes(v, "missing").ptr);
    assert_null(mu_json_get_bytes(NULL, "s").ptr);
    assert_null(mu_json_get(mu_json_get(v, "s"), "x"));
    assert_int_equal(mu_json_get_i64(v, "i", 1), -7);
    assert_int_equal(mu_json_get_i64(v, "u", 1), 1);
    assert_int_equal(mu_json_get_i64(v, "r", 1), 1);
    assert_int_equal(mu_json_get_i64(v, "s", 1), 1);
    assert_int_equal(mu_json_get_i64(NULL, "s", 2), 2);
    assert_true(mu_json_get_bool(v, "b", false));
    assert_true(mu_json_get_bool(v, "n", true));
    assert_false(mu_json_get_bool(v, "i", false));
    mu_arena_fini(&a);
}

static void the_writer_puts_commas_where_they_belong(void **state MU_UNUSED)
{
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "s", MU_B("a\"b"));
    mu_jw_kstr_opt(&w, "o", MU_B_NONE);
    mu_jw_kcstr(&w, "c", "x");
    mu_jw_ki64(&w, "i", INT64_MIN);
    mu_jw_kbool(&w, "t", true);
    mu_jw_knull(&w, "n");
    mu_jw_kraw(&w, "r", MU_B("[1]"));
    mu_jw_ktime(&w, "d", 0);
    mu_jw_ktime_opt(&w, "e", 0);
    mu_jw_ktime_opt(&w, "f", 1);
    mu_jw_key(&w, "a");
    mu_jw_arr(&w);
    mu_jw_obj(&w);
    mu_jw_obj_end(&w);
    mu_jw_arr(&w);
    mu_jw_arr_end(&w);
    mu_jw_i64(&w, 1);
    mu_jw_real(&w, 0.2);
    mu_jw_real(&w, NAN);
    mu_jw_real(&w, INFINITY);
    mu_jw_null(&w);
    mu_jw_bool(&w, false);
    mu_jw_str(&w, MU_B(""));
    mu_jw_time(&w, 1769850496986);
    mu_jw_raw(&w, MU_B("7"));
    mu_jw_arr_end(&w);
    mu_jw_ki64(&w, "last", 1);
    mu_jw_obj_end(&w);
    mu_buf_add_char(&b, 0);
    assert_string_equal(
        b.ptr,
        "{\"s\":\"a\\\"b\",\"o\":null,\"c\":\"x\",\"i\":-9223372036854775808,\"t\":true,\"n\":null,"
        "\"r\":[1],\"d\":\"1970-01-01T00:00:00.000Z\",\"e\":null,\"f\":\"1970-01-01T00:00:00."
        "001Z\","
        "\"a\":[{},[],1,0.2,null,null,null,false,\"\",\"2026-01-31T09:08:16.986Z\",7],\"last\":1}");
    mu_buf_fini(&b);
}

/* The plain way to write a string, to compare the fast one with. */
static void slow_string(struct mu_buf *dst, mu_bytes s)
{
    struct mu_buf clean;
    mu_buf_init(&clean, 1 << 20);
    mu_utf8_add_lossy(&clean, s);
    mu_buf_add_char(dst, '"');
    for (size_t i = 0; i < clean.len; i++) {
        unsigned char c = (unsigned char)clean.ptr[i];
        const char *two = strchr("\bb\tt\nn\ff\rr\"\"\\\\", c);
        if (c == '"' || c == '\\') {
            mu_buf_printf(dst, "\\%c", c);
        } else if (c < 0x20 && c && two) {
            mu_buf_printf(dst, "\\%c", two[1]);
        } else if (c < 0x20) {
            mu_buf_printf(dst, "\\u%04x", c);
        } else {
            mu_buf_add_char(dst, (char)c);
        }
    }
    mu_buf_add_char(dst, '"');
    mu_buf_fini(&clean);
}

static void any_bytes_become_a_string_that_equals_the_plain_escape(void **state MU_UNUSED)
{
    static const char *const pieces[] = {
        "plain ascii text",
        "\"",
        "\\",
        "\n",
        "\x01",
        "\x1f",
        "\x7f",
        "\xc3\xa9",
        "\xe2\x82\xac",
        "\xf0\x9f\x98\x80",
        "\xff",
        "\xc3",
        "\xe2\x82",
        "\xf0\x9f\x98",
        "\xed\xa0\x80",
        "\xf4\x90\x80\x80",
        "a",
        "\x80",
        "12345678",
        "\xf0\x9f",
        "\xe2",
    };
    unsigned seed = 7;
    for (int round = 0; round < 4000; round++) {
        struct mu_buf in, fast, slow;
        mu_buf_init(&in, 4096);
        mu_buf_init(&fast, 1 << 16);
        mu_buf_init(&slow, 1 << 16);
        for (unsigned k = 0; k < 1 + seed % 9; k++) {
            seed = seed * 1103515245 + 12345;
            mu_buf_add_str(&in, pieces[(seed >> 16) % MU_ARRAY_LEN(pieces)]);
        }
        struct mu_json_w w = mu_json_w(&fast);
        mu_jw_str(&w, mu_buf_bytes(&in));
        slow_string(&slow, mu_buf_bytes(&in));
        assert_int_equal(fast.len, slow.len);
        assert_memory_equal(fast.ptr, slow.ptr, slow.len);
        mu_buf_fini(&in);
        mu_buf_fini(&fast);
        mu_buf_fini(&slow);
    }
    struct mu_buf nul;
    mu_buf_init(&nul, 64);
    struct mu_json_w w = mu_json_w(&nul);
    mu_jw_str(&w, mu_bytes_of("a\0b", 3));
    assert_true(mu_bytes_is(mu_buf_bytes(&nul), "\"a\\u0000b\""));
    mu_buf_fini(&nul);
}

static void doubles_read_back_as_they_were(void **state MU_UNUSED)
{
    static const double rows[] = {0,       -0.0,   0.1,           1.0 / 3, 1e300,      DBL_MIN,
                                  DBL_MAX, 5e-324, 123456789.125, -2.5,    1e15 + 0.5, 0.2};
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_buf b;
        mu_buf_init(&b, 64);
        struct mu_json_w w = mu_json_w(&b);
        mu_jw_real(&w, rows[i]);
        mu_buf_add_char(&b, 0);
        double back = strtod(b.ptr, NULL);
        assert_memory_equal(&back, &rows[i], sizeof back);
        mu_buf_fini(&b);
    }
}

static void a_full_buffer_fails_once_and_stays_failed(void **state MU_UNUSED)
{
    for (size_t max = 0; max < 60; max++) {
        struct mu_buf b;
        mu_buf_init(&b, max);
        struct mu_json_w w = mu_json_w(&b);
        mu_jw_obj(&w);
        mu_jw_kstr(&w, "key", MU_B("\"\"\"\x01\xff\xff long enough"));
        mu_jw_ki64(&w, "n", 12345678);
        mu_jw_obj_end(&w);
        static const char whole[] = "{\"key\":\"\\\"\\\"\\\"\\u0001\xef\xbf\xbd\xef\xbf\xbd long "
                                    "enough\",\"n\":12345678}";
        assert_true(b.len <= max);
        assert_int_equal(b.failed, max >= sizeof whole - 1 ? 0 : MU_E_TOO_LARGE);
        mu_buf_fini(&b);
    }
}

static int read_all(void *arg MU_UNUSED)
{
    struct mu_arena a;
    struct mu_err err;
    yyjson_val *v;
    struct mu_buf b;
    mu_buf_init(&b, 1 << 16);
    int r = read_text(&a,
                      MU_B("{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,"
                           "\"i\":[1,2,3,\"\\u00e9\xff\"]}"),
                      &v, &err);
    if (r == 0) {
        fail_msg("invalid UTF-8 was accepted");
    }
    mu_arena_fini(&a);
    r = read_text(
        &a, MU_B("{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":[]}"), &v,
        &err);
    if (r == 0) {
        mu_json_add(&b, v);
        r = b.failed;
    } else {
        assert_int_equal(r, -ENOMEM);
    }
    mu_arena_fini(&a);
    mu_buf_fini(&b);
    return r;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    each_allocation_fails(read_all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_text_is_read_and_written_back),
        cmocka_unit_test(malformed_text_is_refused_with_words),
        cmocka_unit_test(depth_is_limited_before_parsing_and_brackets_in_strings_do_not_count),
        cmocka_unit_test(text_over_the_limit_is_too_large),
        cmocka_unit_test(duplicate_keys_are_refused_in_small_large_and_nested_objects),
        cmocka_unit_test(reading_takes_memory_in_proportion_to_the_text),
        cmocka_unit_test(lookups_accept_null_and_wrong_types),
        cmocka_unit_test(the_writer_puts_commas_where_they_belong),
        cmocka_unit_test(any_bytes_become_a_string_that_equals_the_plain_escape),
        cmocka_unit_test(doubles_read_back_as_they_were),
        cmocka_unit_test(a_full_buffer_fails_once_and_stays_failed),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
