#include "../alloc_fail.h"
#include "../unit.h"

#include <stdio.h>

#include "base/encode.h"
#include "base/err.h"
#include "proto/json_write.h"
#include "proto/redact.h"

struct known {
    const char *name, *value;
};

static struct mu_redact *knows(const struct known *list, size_t n)
{
    struct mu_redact *r = mu_redact_new();
    assert_non_null(r);
    for (int encoded = 0; encoded < 2; encoded++) {
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(mu_redact_add(r, mu_str(list[i].name), mu_str(list[i].value), encoded),
                             0);
        }
    }
    assert_int_equal(mu_redact_ready(r), 0);
    return r;
}

static struct mu_redact *knows_one(const char *value)
{
    return knows(&(struct known){"NAME", value}, 1);
}

static void is(mu_bytes got, const char *want)
{
    if (!mu_bytes_is(got, want)) {
        fail_msg("\"%.*s\" instead of \"%s\"", MU_ARGS(got), want);
    }
}

static void becomes(const struct mu_redact *r, mu_bytes text, const char *want)
{
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, 1 << 20);
    (void)mu_redact_text(r, text, &out);
    is(mu_buf_bytes(&out), want);
    for (size_t a = 0; a <= text.len; a++) { /* in two and in three pieces */
        for (size_t b = a; b <= text.len; b += a % 3 ? 1 : 5) {
            struct mu_redact_stream s = {.state = 0};
            mu_buf_clear(&out);
            mu_redact_feed(r, &s, mu_bytes_head(text, a), &out);
            mu_redact_feed(r, &s, mu_bytes_of(text.ptr + a, b - a), &out);
            mu_redact_feed(r, &s, mu_bytes_from(text, b), &out);
            mu_redact_flush(r, &s, &out);
            is(mu_buf_bytes(&out), want);
        }
    }
}

static void a_value_is_found_however_the_stream_is_cut(void **state)
{
    (void)state;
    struct mu_redact *r = knows_one("s3cr3t-value");
    becomes(r, MU_B(""), "");
    becomes(r, MU_B("s3cr3t-value"), "[redacted:NAME]");
    becomes(r, MU_B("a s3cr3t-value, and s3cr3t-valve"), "a [redacted:NAME], and s3cr3t-valve");
    becomes(r, MU_B("s3cr3t-vals3cr3t-value!"), "s3cr3t-val[redacted:NAME]!");
    becomes(r, MU_B("ss3cr3t-value"), "s[redacted:NAME]");
    becomes(r, MU_B("s3cr3t-value s3cr3t-value"), "[redacted:NAME] [redacted:NAME]");
    becomes(r, MU_B("s3cr3t-values3cr3t-value"), "[redacted:NAME]"); /* one place */
    mu_redact_free(r);
}

static void bytes_one_by_one_are_the_same(void **state)
{
    (void)state;
    struct mu_redact *r = knows_one("s3cr3t-value");
    struct mu_redact_stream s = {.state = 0};
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, 1000);
    const char *text = "\x1b[1ms3cr3t-value\x1b[0m s3cr\n";
    for (const char *p = text; *p; p++) {
        mu_redact_feed(r, &s, mu_bytes_of(p, 1), &out);
        assert_true(s.held <= 12);
    }
    is(mu_buf_bytes(&out), "\x1b[1m[redacted:NAME]\x1b[0m s3cr\n");
    assert_int_equal(s.hits, 1);
    mu_redact_free(r);
}

static void values_that_overlap_leave_nothing_of_each_other(void **state)
{
    (void)state;
    const struct known list[] = {{"A", "abcdefgh12"}, {"B", "efgh12345678"}, {"C", "bcdefgh1"}};
    struct mu_redact *r = knows(list, 3);
    becomes(r, MU_B("-abcdefgh12345678-"), "-[redacted:C]-");
    becomes(r, MU_B("-abcdefgh12-"), "-[redacted:C]-");
    becomes(r, MU_B("-xefgh12345678-"), "-x[redacted:B]-");
    mu_redact_free(r);
    r = knows_one("aaaaaaaa");
    becomes(r, MU_B("baaaaaaab aaaaaaaaaaaaab"), "baaaaaaab [redacted:NAME]b");
    mu_redact_free(r);
}

static void what_a_longer_value_begins_with_is_covered_too(void **state)
{
    (void)state;
    const struct known list[] = {{"LONG", "xx-abcdefgh-yy"}, {"SHORT", "abcdefgh"}};
    struct mu_redact *r = knows(list, 2);
    becomes(r, MU_B("1 xx-abcdefgh-yy 2"), "1 [redacted:SHORT] 2");
    becomes(r, MU_B("1 abcdefgh 2"), "1 [redacted:SHORT] 2");
    mu_redact_free(r);
}

static void the_end_of_a_text_shows_no_beginning_of_a_value(void **state)
{
    (void)state;
    struct mu_redact *r = knows_one("s3cr3t-value-of-many-bytes");
    becomes(r, MU_B("x s3cr3t-"), "x s3cr3t-");          /* 7 */
    becomes(r, MU_B("x s3cr3t-v"), "x [redacted:NAME]"); /* 8 */
    becomes(r, MU_B("x s3cr3t-value-of-many-byte"), "x [redacted:NAME]");
    mu_redact_free(r);
}

static void a_terminal_that_is_quiet_shows_at_most_three_bytes(void **state)
{
    (void)state;
    struct mu_redact *r = knows_one("s3cr3t-value");
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, 1000);
    for (size_t step = 1; step <= 12; step++) {
        struct mu_redact_stream s = {.state = 0};
        mu_bytes rest = MU_B("s3cr3t-value.");
        mu_buf_clear(&out);
        while (rest.len) {
            mu_redact_feed(r, &s, mu_bytes_head(rest, step), &out);
            rest = mu_bytes_from(rest, step);
            assert_int_equal(mu_redact_waits(r, &s), s.held > 0 && out.len + s.held < 4);
            mu_redact_idle(r, &s, &out);
        }
        char want[40];
        snprintf(want, sizeof want, "%.*s[redacted:NAME].", step < 4 ? (int)(3 - 3 % step) : 0,
                 "s3c");
        is(mu_buf_bytes(&out), want);
    }
    mu_redact_free(r);
}

static void short_values_are_none(void **state)
{
    (void)state;
    struct mu_redact *r = knows_one("seven77");
    assert_false(mu_redact_any(r));
    becomes(r, MU_B("seven77 seven77"), "seven77 seven77");
    mu_redact_free(r);
    assert_false(mu_redact_any(NULL));
    becomes(NULL, MU_B("anything"), "anything");
}

static void each_line_of_a_value_is_one(void **state)
{
    (void)state;
    struct mu_redact *r =
        knows_one("-----BEGIN-----\r\nMIIEvQIBADANBgkq\r\nhki\nG9w0BAQEFAASCBKc\n");
    becomes(r, MU_B("MIIEvQIBADANBgkq\r\nhki\r\nG9w0BAQEFAASCBKc"),
            "[redacted:NAME]\r\nhki\r\n[redacted:NAME]");
    mu_redact_free(r);
}

static void a_long_line_is_several_and_one_mark(void **state)
{
    (void)state;
    char value[5000], text[5100];
    for (size_t i = 0; i < sizeof value - 1; i++) {
        value[i] = (char)('!' + i * i % 89);
    }
    value[sizeof value - 1] = 0;
    struct mu_redact *r = knows_one(value);
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, 1 << 20);
    snprintf(text, sizeof text, "<%s>", value);
    assert_int_equal(mu_redact_text(r, mu_str(text), &out), 1);
    is(mu_buf_bytes(&out), "<[redacted:NAME]>");
    mu_redact_free(r);
}

static void names_are_words(void **state)
{
    (void)state;
    struct known k = {"a\"\\\n]\x1b[2J", "s3cr3t-value"};
    struct mu_redact *r = knows(&k, 1);
    becomes(r, MU_B("s3cr3t-value"), "[redacted:a______2J]");
    mu_redact_free(r);
    char name[200];
    memset(name, 'N', sizeof name - 1);
    name[sizeof name - 1] = 0;
    k.name = name;
    r = knows(&k, 1);
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, 1000);
    (void)mu_redact_text(r, MU_B("s3cr3t-value"), &out);
    assert_int_equal(out.len, sizeof "[redacted:]" - 1 + MU_REDACT_NAME - 1);
    mu_redact_free(r);
}

static void hides(const struct mu_redact *r, mu_bytes text)
{
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, 1 << 20);
    if (!mu_redact_text(r, text, &out)) {
        fail_msg("shown: %.*s", MU_ARGS(text));
    }
}

static void names_beyond_their_bound_are_found_all_the_same(void **state)
{
    (void)state;
    struct mu_redact *r = mu_redact_new();
    char name[16], value[32];
    for (int i = 0; i < MU_REDACT_NAMES + 2; i++) {
        snprintf(name, sizeof name, "N%d", i);
        snprintf(value, sizeof value, "s3cr3t-%d-value", i);
        assert_int_equal(mu_redact_add(r, mu_str(name), mu_str(value), false), 0);
    }
    assert_int_equal(mu_redact_ready(r), 0);
    hides(r, mu_str(value));
    mu_redact_free(r);
}

static void other_forms_are_found(void **state)
{
    (void)state;
    const char *value = "p\"a/ss: wörd+?\t\\~(1)";
    struct mu_redact *r = knows_one(value);
    struct mu_buf b MU_CLEANUP(mu_buf_fini), two MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, 1 << 20);
    mu_buf_init(&two, 1 << 20);
    struct mu_json_w w = mu_json_w(&b), w2 = mu_json_w(&two);
    mu_jw_str(&w, mu_str(value));
    hides(r, mu_buf_bytes(&b));
    mu_jw_str(&w2, mu_buf_bytes(&b));
    hides(r, mu_buf_bytes(&two));
    const char *const percent[] = {
        "p%22a%2Fss%3A%20w%C3%B6rd%2B%3F%09%5C~%281%29", /* RFC 3986 */
        "p%22a%2fss%3a%20w%c3%b6rd%2b%3f%09%5c~%281%29",
        "p%22a%2Fss%3A%20w%C3%B6rd%2B%3F%09%5C~(1)",     /* encodeURIComponent */
        "p%22a/ss%3A%20w%C3%B6rd%2B%3F%09%5C~%281%29",   /* urllib.parse.quote */
        "p%22a%2Fss%3A+w%C3%B6rd%2B%3F%09%5C%7E%281%29", /* URLSearchParams */
        "p%22a%2Fss%3A+w%C3%B6rd%2B%3F%09%5C~%281%29",   /* quote_plus */
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(percent); i++) {
        hides(r, mu_str(percent[i]));
    }
    for (size_t before = 0; before < 7; before++) { /* base64 of text around it, every alignment */
        for (size_t after = 0; after < 4; after++) {
            mu_buf_clear(&b);
            mu_buf_clear(&two);
            mu_buf_add(&two, mu_bytes_head(MU_B("user:::"), before));
            mu_buf_add_str(&two, value);
            mu_buf_add(&two, mu_bytes_head(MU_B("....."), after));
            mu_base64_add(&b, mu_buf_bytes(&two));
            hides(r, mu_buf_bytes(&b));
            for (size_t i = 0; i < b.len; i++) {
                b.ptr[i] = b.ptr[i] == '+' ? '-' : b.ptr[i] == '/' ? '_' : b.ptr[i];
            }
            hides(r, mu_buf_bytes(&b));
        }
    }
    mu_redact_free(r);
}

static void base64_in_lines_is_found(void **state)
{
    (void)state;
    char value[200];
    for (size_t i = 0; i < sizeof value - 1; i++) {
        value[i] = (char)('A' + i * 7 % 57);
    }
    value[199] = 0;
    struct mu_redact *r = knows_one(value);
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, 1000);
    mu_base64_add(&b, mu_str(value));
    for (mu_bytes rest = mu_buf_bytes(&b); rest.len; rest = mu_bytes_from(rest, 76)) {
        hides(r, mu_bytes_head(rest, 76));
    }
    mu_redact_free(r);
}

static void json_becomes(const struct mu_redact *r, const char *json, const char *want)
{
    static const char *const keep[] = {"type", "events.type", NULL};
    static const struct mu_redact_own own = {keep, 4, "args"};
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, 1 << 20);
    assert_int_equal(mu_redact_json(r, mu_str(json), &own, false, &out), 0);
    is(mu_buf_bytes(&out), want);
}

static void a_document_stays_one(void **state)
{
    (void)state;
    struct mu_redact *r = knows_one("n123\"456\t789");
    json_becomes(r, "{\"a\":\"n123\\\"456\\t789\",\"b\":[1,\"x\\u006e123\\u0022456\\u0009789y\"]}",
                 "{\"a\":\"[redacted:NAME]\",\"b\":[1,\"x[redacted:NAME]y\"]}");
    mu_redact_free(r);
    r = knows_one("n1234567");
    json_becomes(r, "{\"a\":\"\\n1234567\",\"b\":\"\\\\n1234567\"}",
                 "{\"a\":\"\\n1234567\",\"b\":\"\\\\[redacted:NAME]\"}");
    mu_redact_free(r);
}

static void words_of_ours_stay_and_no_others(void **state)
{
    (void)state;
    struct mu_redact *r = knows_one("COMPLETED");
    json_becomes(r,
                 "{\"type\":\"COMPLETED\",\"title\":\"COMPLETED\",\"args\":{\"type\":\"COMPLETED\","
                 "\"COMPLETED\":[\"COMPLETED\"]},\"events\":[{\"type\":\"COMPLETED\",\"data\":{"
                 "\"type\":\"COMPLETED\"}}]}",
                 "{\"type\":\"COMPLETED\",\"title\":\"[redacted:NAME]\",\"args\":{\"type\":\"["
                 "redacted:NAME]\",\"[redacted:NAME]\":[\"[redacted:NAME]\"]},\"events\":[{"
                 "\"type\":\"COMPLETED\",\"data\":{\"type\":\"[redacted:NAME]\"}}]}");
    mu_redact_free(r);
}

static void nothing_is_its_own_unless_it_is_said(void **state)
{
    (void)state;
    const struct mu_redact_own own = {NULL, 1, NULL};
    struct mu_redact *r = knows_one("COMPLETED");
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, 1000);
    mu_bytes json = MU_B("{\"COMPLETED\":{\"COMPLETED\":\"COMPLETED\"}}");
    assert_int_equal(mu_redact_json(r, json, &own, false, &out), 0);
    is(mu_buf_bytes(&out), "{\"COMPLETED\":{\"[redacted:NAME]\":\"[redacted:NAME]\"}}");
    mu_redact_free(r);
}

static void what_is_no_json_is_refused(void **state)
{
    (void)state;
    struct mu_redact *r = knows_one("s3cr3t-value");
    const char *const bad[] = {"{", "{\"a", "{\"a\\", "]", "{]", "[}"};
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, 1000);
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_int_not_equal(
            mu_redact_json(r, mu_str(bad[i]), &(struct mu_redact_own){NULL, 4, NULL}, false, &out),
            0);
    }
    mu_redact_free(r);
}

static void too_many_values_are_said(void **state)
{
    (void)state;
    struct mu_redact *r = mu_redact_new();
    char value[1025];
    int e = 0, n = 0;
    for (; n < 600 && !e; n++) {
        for (size_t i = 0; i < 1024; i++) {
            value[i] = (char)('a' + (i + (size_t)n * (i + 1)) % 26);
        }
        int len = snprintf(value, 9, "%08d", n);
        value[len] = '-';
        value[1024] = 0;
        e = mu_redact_add(r, MU_B("N"), mu_str(value), false);
    }
    assert_int_equal(e, MU_E_TOO_LARGE);
    assert_in_range(n, 500, 520);
    assert_int_equal(mu_redact_ready(r), 0);
    mu_redact_free(r);
}

static int all_of_it(void *arg)
{
    (void)arg;
    struct mu_redact *r = mu_redact_new();
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, 4096);
    int e = r ? 0 : -1;
    for (int encoded = 0; encoded < 2 && !e; encoded++) {
        e = mu_redact_add(r, MU_B("A"), MU_B("s3cr3t \"value\" of quite a length: 0123456789"),
                          encoded);
        e = e ? e : mu_redact_add(r, MU_B("B"), MU_B("another one\nwith two lines"), encoded);
    }
    e = e ? e : mu_redact_ready(r);
    e = e ? e
          : mu_redact_json(r, MU_B("{\"a\":\"\\tanother one\"}"),
                           &(struct mu_redact_own){NULL, 4, NULL}, false, &out);
    if (!e) {
        is(mu_buf_bytes(&out), "{\"a\":\"\\t[redacted:B]\"}");
    }
    mu_redact_free(r);
    return e;
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    each_allocation_fails(all_of_it, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_is_found_however_the_stream_is_cut),
        cmocka_unit_test(bytes_one_by_one_are_the_same),
        cmocka_unit_test(values_that_overlap_leave_nothing_of_each_other),
        cmocka_unit_test(what_a_longer_value_begins_with_is_covered_too),
        cmocka_unit_test(the_end_of_a_text_shows_no_beginning_of_a_value),
        cmocka_unit_test(a_terminal_that_is_quiet_shows_at_most_three_bytes),
        cmocka_unit_test(short_values_are_none),
        cmocka_unit_test(each_line_of_a_value_is_one),
        cmocka_unit_test(a_long_line_is_several_and_one_mark),
        cmocka_unit_test(names_are_words),
        cmocka_unit_test(names_beyond_their_bound_are_found_all_the_same),
        cmocka_unit_test(other_forms_are_found),
        cmocka_unit_test(base64_in_lines_is_found),
        cmocka_unit_test(a_document_stays_one),
        cmocka_unit_test(words_of_ours_stay_and_no_others),
        cmocka_unit_test(nothing_is_its_own_unless_it_is_said),
        cmocka_unit_test(what_is_no_json_is_refused),
        cmocka_unit_test(too_many_values_are_said),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
