/* What the page of an approval link shows of a text, and how often an address may ask. */
#include "../unit.h"

#include "base/buf.h"
#include "base/err.h"
#include "face/sessions/link_int.h"

static void shows(const char *text, size_t n, const char *want)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    mu_visit_text(&b, mu_bytes_of(text, n));
    mu_buf_add_char(&b, 0);
    assert_string_equal(b.ptr, want);
    mu_buf_fini(&b);
}
#define SHOWS(text, want) shows(text, sizeof text - 1, want)

static void markup_is_text(void **state MU_UNUSED)
{
    SHOWS("<b>&amp;\"x'", "&lt;b&gt;&amp;amp;&quot;x&#39;");
    SHOWS("a\n\tb  c", "a\n\tb  c");
    SHOWS("h\xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80", "h\xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80");
    SHOWS("", "");
}

static void what_has_no_shape_is_shown_by_its_number(void **state MU_UNUSED)
{
    SHOWS("a\0b", "a<b>\\u{0}</b>b");
    SHOWS("\x1b[31m\r\x7f", "<b>\\u{1B}</b>[31m<b>\\u{D}</b><b>\\u{7F}</b>");
    SHOWS("\xe2\x80\xaegpj.exe", "<b>\\u{202E}</b>gpj.exe");
    SHOWS("\xe2\x81\xa6\xe2\x80\x8b\xc2\xa0", "<b>\\u{2066}</b><b>\\u{200B}</b><b>\\u{A0}</b>");
    SHOWS("\xef\xbb\xbf\xe3\x85\xa4\xf3\xa0\x81\xa1",
          "<b>\\u{FEFF}</b><b>\\u{3164}</b><b>\\u{E0061}</b>");
    SHOWS("\xff\xc3(\xed\xa0\x80", "<b>\\xFF</b><b>\\xC3</b>(<b>\\xED</b><b>\\xA0</b><b>\\x80</b>");
}

static void an_address_has_so_many_requests_a_minute(void **state MU_UNUSED)
{
    static struct mu_link_rates r = {.per_minute = 6};
    int64_t wait = 0, now = INT64_C(1000000000);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(mu_link_charge(&r, MU_B("10.0.0.1"), now, &wait), 0);
    }
    assert_int_equal(mu_link_charge(&r, MU_B("10.0.0.1"), now, &wait), MU_E_LIMIT);
    assert_int_equal(wait, 10000);
    int others = 0; /* hardly all of them share its budget */
    for (char d = '2'; d <= '9'; d++) {
        char peer[] = {'1', '0', '.', '0', '.', '0', '.', d};
        others += mu_link_charge(&r, mu_bytes_of(peer, sizeof peer), now, &wait) == 0;
    }
    assert_true(others > 0);
    assert_int_equal(mu_link_charge(&r, MU_B("10.0.0.1"), now + 10000000, &wait), 0);
    assert_int_equal(mu_link_charge(&r, MU_B("10.0.0.1"), now + 10000000, &wait), MU_E_LIMIT);
    r.per_minute = 0;
    assert_int_equal(mu_link_charge(&r, MU_B("10.0.0.1"), now, &wait), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(markup_is_text),
        cmocka_unit_test(what_has_no_shape_is_shown_by_its_number),
        cmocka_unit_test(an_address_has_so_many_requests_a_minute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
