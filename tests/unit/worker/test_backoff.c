#include "worker/backoff.h"

#include <string.h>

#include "../unit.h"
#include "worker/units.h"

static uint64_t dice;

static void fixed(const struct mu_env *env, void *dst, size_t len)
{
    (void)env;
    memcpy(dst, &dice, len);
}

static void delays_double_up_to_thirty_seconds(void **state)
{
    (void)state;
    struct mu_env env = mu_env_real;
    struct mu_backoff b = {0};
    env.random = fixed;
    const int64_t limits[] = {500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
    for (size_t i = 0; i < MU_ARRAY_LEN(limits); i++) {
        dice = (uint64_t)limits[i]; /* the largest that is possible */
        assert_int_equal(mu_backoff_next(&b, &env, -1), limits[i]);
    }
    for (int i = 0; i < 1000; i++) {
        mu_backoff_next(&b, &env, -1);
    }
    assert_true(mu_backoff_next(&b, &env, -1) <= 30000);
}

static void delays_are_spread_from_nothing(void **state)
{
    (void)state;
    int64_t least = 30000, most = 0;
    for (int i = 0; i < 2000; i++) {
        struct mu_backoff b = {.failures = 10};
        int64_t d = mu_backoff_next(&b, &mu_env_real, -1);
        least = MU_MIN(least, d);
        most = MU_MAX(most, d);
    }
    assert_true(least < 1000 && most > 29000 && most <= 30000);
}

static void what_the_server_asks_for_is_kept(void **state)
{
    (void)state;
    struct mu_backoff b = {0};
    int64_t d = mu_backoff_next(&b, &mu_env_real, 15000);
    assert_true(d >= 15000 && d <= 15500);
    assert_true(mu_backoff_next(&b, &mu_env_real, INT64_C(1) << 40) <= 301000);
}

static void the_breaker_counts_failures_in_a_row(void **state)
{
    (void)state;
    struct mu_breaker b = {.max = 3};
    assert_false(mu_breaker_failed(&b, 0));
    assert_false(mu_breaker_failed(&b, 1));
    mu_breaker_connected(&b);
    assert_false(mu_breaker_failed(&b, 2));
    assert_false(mu_breaker_failed(&b, 3));
    assert_true(mu_breaker_failed(&b, 4));
    struct mu_breaker never = {0};
    for (int i = 0; i < 1000; i++) {
        assert_false(mu_breaker_failed(&never, i));
    }
}

static void a_late_failure_restarts_the_count(void **state)
{
    (void)state;
    struct mu_breaker b = {.max = 2, .window_ms = 1000};
    assert_false(mu_breaker_failed(&b, 0));
    assert_false(mu_breaker_failed(&b, 1001));
    assert_true(mu_breaker_failed(&b, 2001));
}

static void times_and_sizes_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"45m", 2700000},   {"0s", 0},        {"0", 0},
                {"1h30m", 5400000}, {"500ms", 500},   {"1.5h", 5400000},
                {" 8h ", 28800000}, {"1d", 86400000}, {"1500us", 1}};
    static const char *const bad[] = {"", "5", "h", "5x", "-1s", "5 m", "1h-", "99999999999999h"};
    int64_t v;
    for (size_t i = 0; i < MU_ARRAY_LEN(good); i++) {
        assert_int_equal(mu_duration_parse(mu_str(good[i].text), &v), 0);
        assert_int_equal(v, good[i].ms);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_true(mu_duration_parse(mu_str(bad[i]), &v) < 0);
    }
    static const struct {
        const char *text;
        int64_t n;
    } sizes[] = {{"8MiB", 8 << 20},
                 {"512k", 512 << 10},
                 {"1048576", 1 << 20},
                 {"1.5 K", -1},
                 {"2GB", INT64_C(2) << 30},
                 {"10b", 10},
                 {"1x", -1},
                 {"", -1},
                 {"1kk", -1}};
    for (size_t i = 0; i < MU_ARRAY_LEN(sizes); i++) {
        int r = mu_size_parse(mu_str(sizes[i].text), &v);
        assert_int_equal(r < 0, sizes[i].n < 0);
        assert_true(r < 0 || v == sizes[i].n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(delays_double_up_to_thirty_seconds),
                                       cmocka_unit_test(delays_are_spread_from_nothing),
                                       cmocka_unit_test(what_the_server_asks_for_is_kept),
                                       cmocka_unit_test(the_breaker_counts_failures_in_a_row),
                                       cmocka_unit_test(a_late_failure_restarts_the_count),
                                       cmocka_unit_test(times_and_sizes_are_read)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
