#include "../unit.h"

#include <time.h>

#include "base/clock.h"
#include "base/err.h"

static void times_parse_to_their_millisecond(void **state MU_UNUSED)
{
    static const struct {
        const char *text, *out; /* out NULL: invalid */
    } rows[] = {
        {"2026-01-31T09:08:16.986Z", "2026-01-31T09:08:16.986Z"},
        {"2026-01-31t09:08:16z", "2026-01-31T09:08:16.000Z"},
        {"2026-01-31 09:08:16.9Z", "2026-01-31T09:08:16.900Z"},
        {"2026-01-31T09:08:16.98699999999999999999Z", "2026-01-31T09:08:16.986Z"},
        {"2026-01-31T09:08:16+05:30", "2026-01-31T03:38:16.000Z"},
        {"2026-01-31T09:08:16-00:01", "2026-01-31T09:09:16.000Z"},
        {"2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000Z"},
        {"2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000Z"},
        {"1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"},
        {"2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"},
        {"0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000Z"},
        {"9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"},
        {"2023-02-29T00:00:00Z", NULL},
        {"1900-02-29T00:00:00Z", NULL},
        {"2026-13-01T00:00:00Z", NULL},
        {"2026-00-01T00:00:00Z", NULL},
        {"2026-04-31T00:00:00Z", NULL},
        {"2026-01-00T00:00:00Z", NULL},
        {"2026-1-1T00:00:00Z", NULL},
        {"2026-01-31T24:00:00Z", NULL},
        {"2026-01-31T09:60:00Z", NULL},
        {"2026-01-31T09:08:61Z", NULL},
        {"2026-01-31T09:08:16", NULL},
        {"2026-01-31T09:08Z", NULL},
        {"2026-01-31T09:08:16.Z", NULL},
        {"2026-01-31T09:08:16+0530", NULL},
        {"2026-01-31T09:08:16+24:00", NULL},
        {"2026-01-31T09:08:16Zx", NULL},
        {"2026-01-31", NULL},
        {"2026-01-31T", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        int64_t ms = 42;
        char text[MU_TIME_LEN + 1];
        int r = mu_time_parse(mu_str(rows[i].text), &ms);
        if (r != (rows[i].out ? 0 : MU_E_INVALID)) {
            fail_msg("%s: %d", rows[i].text, r);
        }
        if (rows[i].out) {
            mu_time_format(ms, text);
            assert_string_equal(text, rows[i].out);
        } else {
            assert_int_equal(ms, 42);
        }
    }
}

static void times_out_of_four_digit_years_are_clamped_when_written(void **state MU_UNUSED)
{
    char text[MU_TIME_LEN + 1];
    mu_time_format(INT64_MAX, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999Z");
    mu_time_format(INT64_MIN, text);
    assert_string_equal(text, "0000-01-01T00:00:00.000Z");
}

static void http_dates_parse(void **state MU_UNUSED)
{
    int64_t ms = 0;
    assert_int_equal(mu_time_parse_http(MU_B("Sun, 06 Nov 1994 08:49:37 GMT"), &ms), 0);
    assert_true(ms == INT64_C(784111777000));
    static const char *const bad[] = {
        "",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nox 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun,",
        "Sun, 06 No",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_int_equal(mu_time_parse_http(mu_str(bad[i]), &ms), MU_E_INVALID);
    }
}

static void civil_time_agrees_with_the_c_library(void **state MU_UNUSED)
{
    for (int64_t s = -INT64_C(62000000000); s < INT64_C(250000000000); s += 86400 * 37 + 12347) {
        time_t t = (time_t)s;
        struct tm tm;
        gmtime_r(&t, &tm);
        struct mu_civil c = mu_civil_of(s * 1000);
        assert_int_equal(c.year, tm.tm_year + 1900);
        assert_int_equal(c.month, tm.tm_mon + 1);
        assert_int_equal(c.day, tm.tm_mday);
        assert_int_equal(c.hour, tm.tm_hour);
        assert_int_equal(c.minute, tm.tm_min);
        assert_int_equal(c.second, tm.tm_sec);
        assert_int_equal(c.weekday, tm.tm_wday);
        assert_true(mu_civil_ms(&c) == s * 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_parse_to_their_millisecond),
        cmocka_unit_test(times_out_of_four_digit_years_are_clamped_when_written),
        cmocka_unit_test(http_dates_parse),
        cmocka_unit_test(civil_time_agrees_with_the_c_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
