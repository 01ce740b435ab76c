#include "worker/store.h"

#include <stdio.h>

#include "../unit.h"

static char dir[64], path[128];
static unsigned told;

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/muster-store-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/journal", dir);
    told = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    rmdir(dir);
    return 0;
}

static void on_done(void *arg, int result, mu_bytes bytes)
{
    struct mu_loop *loop = arg;
    assert_int_equal(result, 0);
    (void)bytes;
    if (++told == 3) {
        mu_loop_stop(loop);
    }
}

static void on_idle(void *arg)
{
    (void)arg;
    told += 100;
}

static struct mu_jstore *open_it(struct mu_loop **loop)
{
    struct mu_journal *j;
    struct mu_jstore *s;
    struct mu_err err;
    int64_t lost;
    assert_int_equal(mu_loop_new(&mu_env_real, "test", loop), 0);
    assert_int_equal(mu_journal_open(path, &j, &lost, &err), 0);
    assert_int_equal(mu_jstore_new(*loop, j, on_idle, NULL, &s), 0);
    return s;
}

static void ask(struct mu_jstore *s, struct mu_loop *loop)
{
    assert_int_equal(
        mu_jstore_put(s, MU_JOURNAL_START, mu_str("a"), mu_str("one"), false, on_done, loop), 0);
    assert_int_equal(mu_jstore_read(s, MU_JOURNAL_START, mu_str("a"), on_done, loop), 0);
    assert_int_equal(
        mu_jstore_put(s, MU_JOURNAL_END, mu_str("a"), mu_str("two"), true, on_done, loop), 0);
}

static void requests_are_done_in_order_and_told_on_the_loop(void **state)
{
    (void)state;
    struct mu_loop *loop;
    struct mu_jstore *s = open_it(&loop);
    ask(s, loop);
    assert_int_equal(mu_jstore_pending(s), 3);
    mu_loop_run(loop);
    assert_int_equal(told, 103);
    assert_int_equal(mu_jstore_pending(s), 0);
    mu_jstore_free(s);
    mu_loop_free(loop);
}

static void nobody_is_told_of_what_was_left_when_it_closed(void **state)
{
    (void)state;
    struct mu_loop *loop;
    struct mu_jstore *s = open_it(&loop);
    ask(s, loop);
    mu_jstore_free(s);
    mu_loop_free(loop);
    assert_int_equal(told, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_are_done_in_order_and_told_on_the_loop, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(nobody_is_told_of_what_was_left_when_it_closed, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
