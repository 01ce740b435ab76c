#include "../unit.h"

#include "base/list.h"

struct item {
    int n;
    struct mu_list link;
};

static int order_of(struct mu_list *l)
{
    int digits = 0;
    MU_LIST_EACH(it, tmp, l)
    {
        digits = digits * 10 + MU_CONTAINER(it, struct item, link)->n;
    }
    return digits;
}

static void items_keep_their_order_and_leave_once(void **state MU_UNUSED)
{
    struct mu_list l;
    struct item a = {.n = 1}, b = {.n = 2}, c = {.n = 3};
    mu_list_init(&l);
    assert_true(mu_list_empty(&l));
    assert_null(mu_list_pop(&l));
    mu_list_push(&l, &b.link);
    mu_list_push(&l, &c.link);
    mu_list_push_front(&l, &a.link);
    assert_int_equal(order_of(&l), 123);
    mu_list_remove(&b.link);
    mu_list_remove(&b.link);
    assert_int_equal(order_of(&l), 13);
    assert_ptr_equal(mu_list_pop(&l), &a.link);
    assert_ptr_equal(mu_list_pop(&l), &c.link);
    assert_true(mu_list_empty(&l));
}

static void a_walk_may_remove_what_it_stands_on(void **state MU_UNUSED)
{
    struct mu_list l;
    struct item items[9];
    mu_list_init(&l);
    for (int i = 0; i < 9; i++) {
        items[i].n = i + 1;
        mu_list_push(&l, &items[i].link);
    }
    MU_LIST_EACH(it, tmp, &l)
    {
        if (MU_CONTAINER(it, struct item, link)->n % 2) {
            mu_list_remove(it);
        }
    }
    assert_int_equal(order_of(&l), 2468);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_keep_their_order_and_leave_once),
        cmocka_unit_test(a_walk_may_remove_what_it_stands_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
