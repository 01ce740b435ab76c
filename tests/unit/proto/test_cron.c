#include "../unit.h"

#include "base/clock.h"
#include "proto/cron.h"

static int64_t ms_of(const char *text)
{
    int64_t ms = 0;
    assert_int_equal(mu_time_parse(mu_str(text), &ms), 0);
    return ms;
}

static void next_times_are_those_of_the_calendar(void **state MU_UNUSED)
{
    static const struct {
        const char *cron, *after, *next;
    } rows[] = {
        {"0 9 * * *", "2026-01-31T08:59:59.999Z", "2026-01-31T09:00:00.000Z"},
        {"0 9 * * *", "2026-01-31T09:00:00Z", "2026-02-01T09:00:00.000Z"},
        {"* * * * *", "2026-12-31T23:59:00Z", "2027-01-01T00:00:00.000Z"},
        {"*/15 * * * *", "2026-01-01T00:00:01Z", "2026-01-01T00:15:00.000Z"},
        {"5/20 * * * *", "2026-01-01T00:25:00Z", "2026-01-01T00:45:00.000Z"},
        {"7-30/10 3 * * *", "2026-01-01T03:17:00Z", "2026-01-01T03:27:00.000Z"},
        {"0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00.000Z"},
        {"0 0 29 2 *", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00.000Z"},
        {"0 0 31 * *", "2026-03-31T00:00:00Z", "2026-05-31T00:00:00.000Z"},
        {"30 6 * jan,JUL mon-fri", "2026-01-31T00:00:00Z", "2026-07-01T06:30:00.000Z"},
        {"0 0 * * 7", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00.000Z"},
        {"0 0 * * 0", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00.000Z"},
        {"0 0 * * fri-sun", "2026-11-23T00:00:00Z", "2026-11-27T00:00:00.000Z"},
        {"0 0 * * 5-7", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00.000Z"},
        /* both day fields restricted: either of them */
        {"0 0 13 * fri", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00.000Z"},
        {"0 0 13 * mon", "2026-11-12T00:00:00Z", "2026-11-13T00:00:00.000Z"},
        /* a stepped star does not count as restricted: both must hold */
        {"0 0 */2 * mon", "2026-11-21T00:00:00Z", "2026-11-23T00:00:00.000Z"},
        {"0 0 1 * */3", "2026-11-02T00:00:00Z", "2027-05-01T00:00:00.000Z"},
        {"  0\t0  1 1 *  ", "2026-11-21T00:00:00Z", "2027-01-01T00:00:00.000Z"},
        {"59 23 31 12 *", "1969-12-30T00:00:00Z", "1969-12-31T23:59:00.000Z"},
        {"0 0 * * *", "1969-12-30T12:00:00.001Z", "1969-12-31T00:00:00.000Z"},
        {"*/60 */24 */31 */12 */7", "2026-01-01T00:00:00Z", "2034-01-01T00:00:00.000Z"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_cron c;
        struct mu_err err = {0};
        char text[MU_TIME_LEN + 1];
        int64_t next;
        if (mu_cron_parse(mu_str(rows[i].cron), &c, &err) < 0) {
            fail_msg("%s: %s", rows[i].cron, err.text);
        }
        assert_int_equal(mu_cron_next(&c, ms_of(rows[i].after), &next), 0);
        mu_time_format(next, text);
        if (strcmp(text, rows[i].next) != 0) {
            fail_msg("%s after %s: %s, not %s", rows[i].cron, rows[i].after, text, rows[i].next);
        }
    }
}

static void bad_expressions_are_refused_with_the_name_of_the_field(void **state MU_UNUSED)
{
    static const struct {
        const char *cron, *word;
    } rows[] = {
        {"", "0 of 5"},
        {"* * * *", "4 of 5"},
        {"* * * * * *", "more than 5"},
        {"60 * * * *", "minute"},
        {"-1 * * * *", "minute"},
        {"* 24 * * *", "hour"},
        {"* * 0 * *", "day of month"},
        {"* * 32 * *", "day of month"},
        {"* * * 13 *", "month"},
        {"* * * 0 *", "month"},
        {"* * * * 8", "day of week"},
        {"* * * foo *", "month"},
        {"* * * * monday", "day of week"},
        {"30-10 * * * *", "backwards"},
        {"*/0 * * * *", "step"},
        {"*/61 * * * *", "step"},
        {"*/ * * * *", "step"},
        {"*/-1 * * * *", "step"},
        {"1, * * * *", "minute"},
        {",1 * * * *", "minute"},
        {"1-2-3 * * * *", "minute"},
        {"1/2/3 * * * *", "minute"},
        {"** * * * *", "minute"},
        {"*-5 * * * *", "minute"},
        {"99999999999999999999 * * * *", "minute"},
        {"? * * * *", "minute"},
        {"1\n2 * * * *", "minute"},
        {"@daily", "minute"},
        {"@", "minute"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_cron c;
        struct mu_err err = {0};
        assert_int_equal(mu_cron_parse(mu_str(rows[i].cron), &c, &err), MU_E_INVALID);
        if (!strstr(err.text, rows[i].word)) {
            fail_msg("%s: %s", rows[i].cron, err.text);
        }
    }
    char longer[257];
    struct mu_cron c;
    memset(longer, ' ', sizeof longer);
    assert_int_equal(mu_cron_parse(mu_bytes_of(longer, sizeof longer), &c, NULL), MU_E_INVALID);
}

static void a_day_that_never_comes_is_not_found(void **state MU_UNUSED)
{
    struct mu_cron c;
    int64_t next = 7;
    assert_int_equal(mu_cron_parse(MU_B("0 0 30 2 *"), &c, NULL), 0);
    assert_int_equal(mu_cron_next(&c, 0, &next), MU_E_NOT_FOUND);
    assert_int_equal(mu_cron_parse(MU_B("* * * * *"), &c, NULL), 0);
    assert_int_equal(mu_cron_next(&c, INT64_MAX, &next), MU_E_NOT_FOUND);
    assert_int_equal(mu_cron_next(&c, INT64_MIN, &next), MU_E_NOT_FOUND);
    assert_int_equal(next, 7);
}

/* Against the definition, minute by minute. */
static void next_equals_the_first_minute_that_matches(void **state MU_UNUSED)
{
    static const char *const rows[] = {"*/7 1-5,22 * * *", "0 */5 1,15 * wed", "59 23 31 * *",
                                       "3 3 3 3-5 *", "1-3,50/4 * 28-31 2 *"};
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_cron c;
        assert_int_equal(mu_cron_parse(mu_str(rows[i]), &c, NULL), 0);
        int64_t from = ms_of("2027-12-30T21:13:07Z"), next = 0;
        for (int k = 0; k < 20; k++, from = next) {
            assert_int_equal(mu_cron_next(&c, from, &next), 0);
            int64_t t = from - from % 60000 + 60000;
            for (;; t += 60000) {
                struct mu_civil v = mu_civil_of(t);
                bool day = c.days >> v.day & 1, week = c.weekdays >> v.weekday & 1;
                bool either = c.any_day || c.any_weekday ? day && week : day || week;
                if (either && (c.months >> v.month & 1) && (c.hours >> v.hour & 1) &&
                    (c.minutes >> v.minute & 1)) {
                    break;
                }
            }
            assert_int_equal(next, t);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(next_times_are_those_of_the_calendar),
        cmocka_unit_test(bad_expressions_are_refused_with_the_name_of_the_field),
        cmocka_unit_test(a_day_that_never_comes_is_not_found),
        cmocka_unit_test(next_equals_the_first_minute_that_matches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
