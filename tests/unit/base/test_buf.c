#include "../unit.h"

#include <errno.h>

#include "../alloc_fail.h"
#include "base/buf.h"
#include "base/err.h"

static void appends_gather(void **state MU_UNUSED)
{
    struct mu_buf b;
    mu_buf_init(&b, 1000);
    mu_buf_add(&b, MU_B_NONE);
    mu_buf_add_str(&b, NULL);
    mu_buf_add_str(&b, "ab");
    mu_buf_add_char(&b, 'c');
    mu_buf_add_i64(&b, INT64_MIN);
    mu_buf_add_i64(&b, 0);
    mu_buf_add_i64(&b, INT64_MAX);
    mu_buf_printf(&b, "<%s>", "x");
    mu_buf_printf(&b, "%s", "");
    assert_int_equal(b.failed, 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "abc-92233720368547758080"
                                              "9223372036854775807<x>"));
    mu_buf_consume(&b, 3);
    assert_true(mu_bytes_starts(mu_buf_bytes(&b), MU_B("-92")));
    mu_buf_consume(&b, 1000);
    assert_int_equal(b.len, 0);
    mu_buf_fini(&b);
    mu_buf_fini(&b);
}

static void the_maximum_is_exact_for_every_kind_of_append(void **state MU_UNUSED)
{
    for (size_t max = 0; max < 200; max++) {
        struct mu_buf b;
        mu_buf_init(&b, max);
        for (size_t i = 0; i < max; i++) {
            if (i % 3 == 0) {
                mu_buf_add_char(&b, 'x');
            } else if (i % 3 == 1) {
                mu_buf_printf(&b, "%c", 'y');
            } else {
                mu_buf_add(&b, MU_B("z"));
            }
        }
        assert_int_equal(b.failed, 0);
        assert_int_equal(b.len, max);
        if (max % 2) {
            mu_buf_add_char(&b, 'x');
        } else {
            mu_buf_printf(&b, "%d", 1);
        }
        assert_int_equal(b.failed, MU_E_TOO_LARGE);
        assert_int_equal(b.len, max);
        mu_buf_fini(&b);
    }
}

static void a_failure_stays_until_cleared(void **state MU_UNUSED)
{
    struct mu_buf b;
    mu_buf_init(&b, 4);
    mu_buf_add_str(&b, "12345");
    assert_int_equal(b.failed, MU_E_TOO_LARGE);
    mu_buf_add_char(&b, '1');
    assert_int_equal(b.len, 0);
    assert_null(mu_buf_room(&b, 1));
    mu_buf_clear(&b);
    mu_buf_add_char(&b, '1');
    assert_int_equal(b.failed, 0);
    assert_int_equal(b.len, 1);
    mu_buf_wipe(&b);
    assert_null(b.ptr);
}

static void an_unlimited_buffer_formats_too(void **state MU_UNUSED)
{
    struct mu_buf b;
    mu_buf_init(&b, SIZE_MAX);
    mu_buf_printf(&b, "%d", 12);
    assert_int_equal(b.failed, 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "12"));
    assert_null(mu_buf_room(&b, SIZE_MAX - 1));
    assert_int_equal(b.failed, MU_E_TOO_LARGE);
    mu_buf_fini(&b);
}

static int fill(void *arg MU_UNUSED)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    for (int i = 0; i < 500; i++) {
        mu_buf_add_str(&b, "some text ");
        mu_buf_printf(&b, "%d", i);
    }
    assert_true(b.failed == 0 || b.failed == -ENOMEM);
    mu_buf_fini(&b);
    return 0;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    each_allocation_fails(fill, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_gather),
        cmocka_unit_test(the_maximum_is_exact_for_every_kind_of_append),
        cmocka_unit_test(a_failure_stays_until_cleared),
        cmocka_unit_test(an_unlimited_buffer_formats_too),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
