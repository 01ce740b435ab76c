#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "net/msg.h"

static void message_lives_until_its_last_reference(void **state)
{
    (void)state;
    struct mu_msg *m = mu_msg_new(MU_B("abc"));
    assert_non_null(m);
    assert_ptr_equal(mu_msg_ref(m), m);
    assert_null(mu_msg_unref(m));
    assert_true(mu_bytes_is(mu_bytes_of(m->data, m->len), "abc"));
    assert_null(mu_msg_unref(m));
    assert_null(mu_msg_unref(NULL));
}

static void no_memory_is_null(void **state)
{
    (void)state;
    mu_alloc_fail_at(1);
    assert_null(mu_msg_new(MU_B("abc")));
    mu_alloc_fail_at(0);
    assert_null(mu_msg_new(mu_bytes_of(NULL, SIZE_MAX)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_lives_until_its_last_reference),
        cmocka_unit_test(no_memory_is_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
