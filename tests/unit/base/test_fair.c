#include "../unit.h"

#include <errno.h>
#include <stdio.h>

#include "../alloc_fail.h"
#include "base/fair.h"

struct owner {
    char name[8];
    bool busy;
};
struct item {
    struct mu_heap_node node;
    unsigned age;
    struct owner *owner;
};

static bool older(const struct mu_heap_node *a, const struct mu_heap_node *b)
{
    return ((const struct item *)a)->age < ((const struct item *)b)->age;
}

static bool is_busy(const void *arg, void *owner)
{
    assert_string_equal(arg, "arg");
    return ((const struct owner *)owner)->busy;
}

static mu_bytes key(const struct item *it)
{
    return mu_str(it->owner->name);
}

static struct item *next(struct mu_fair *q)
{
    return (struct item *)mu_fair_peek(q, is_busy, "arg");
}

/* Takes the next one; its age, or 0. */
static unsigned take(struct mu_fair *q)
{
    struct item *it = next(q);
    if (!it) {
        return 0;
    }
    mu_fair_turn(q, key(it));
    mu_fair_remove(q, key(it), &it->node);
    mu_fair_turn(q, key(it)); /* harmless, also when it was the owner's last */
    return it->age;
}

static void owners_take_turns_each_with_the_oldest(void **state)
{
    (void)state;
    struct owner a = {"a", false}, b = {"b", false}, c = {"c", false};
    struct item items[] = {{.age = 3, .owner = &a}, {.age = 1, .owner = &a},
                           {.age = 2, .owner = &a}, {.age = 9, .owner = &b},
                           {.age = 8, .owner = &b}, {.age = 7, .owner = &c}};
    static const unsigned order[] = {1, 8, 7, 2, 9, 3, 0};
    struct mu_fair q;
    mu_fair_init(&q, older);
    for (size_t i = 0; i < MU_ARRAY_LEN(items); i++) {
        assert_int_equal(mu_fair_push(&q, key(&items[i]), items[i].owner, &items[i].node), 0);
    }
    assert_int_equal(q.n, 6);
    assert_ptr_equal(next(&q), next(&q)); /* looking takes nothing */
    for (size_t i = 0; i < MU_ARRAY_LEN(order); i++) {
        assert_int_equal(take(&q), order[i]);
    }
    assert_int_equal(q.n, 0);
    assert_int_equal(q.owners.count, 0);
    mu_fair_fini(&q);
}

static void busy_owners_are_passed_over_until_they_are_not(void **state)
{
    (void)state;
    struct owner a = {"a", true}, b = {"b", false};
    struct item items[] = {
        {.age = 1, .owner = &a}, {.age = 5, .owner = &b}, {.age = 6, .owner = &b}};
    struct mu_fair q;
    mu_fair_init(&q, older);
    for (size_t i = 0; i < MU_ARRAY_LEN(items); i++) {
        assert_int_equal(mu_fair_push(&q, key(&items[i]), items[i].owner, &items[i].node), 0);
    }
    assert_int_equal(take(&q), 5);
    b.busy = true;
    assert_null(next(&q));
    a.busy = false;
    assert_int_equal(take(&q), 1);
    assert_null(next(&q));
    b.busy = false;
    assert_int_equal(take(&q), 6);
    mu_fair_fini(&q);
}

static void an_item_may_leave_from_anywhere(void **state)
{
    (void)state;
    struct owner owners[3] = {{"a", false}, {"b", false}, {"c", false}};
    static struct item items[60];
    unsigned left = 0;
    struct mu_fair q;
    mu_fair_init(&q, older);
    for (unsigned i = 0; i < 60; i++) {
        items[i] = (struct item){.age = i + 1, .owner = &owners[i * i % 3]};
        assert_int_equal(mu_fair_push(&q, key(&items[i]), items[i].owner, &items[i].node), 0);
    }
    for (unsigned i = 0; i < 60; i++) {
        if (i * 7 % 5) {
            mu_fair_remove(&q, key(&items[i]), &items[i].node);
            assert_int_equal(items[i].node.place, 0);
        } else {
            left++;
        }
    }
    assert_int_equal(q.n, left);
    for (unsigned i = 0; i < left; i++) {
        assert_int_not_equal(take(&q), 0);
    }
    assert_int_equal(take(&q), 0);
    mu_fair_fini(&q);
    mu_fair_fini(&q);
}

static int fill(void *arg)
{
    (void)arg;
    struct owner owners[3] = {{"a", false}, {"b", false}, {"c", false}};
    static struct item items[60];
    struct mu_fair q;
    size_t n = 0;
    int result = 0;
    mu_fair_init(&q, older);
    for (unsigned i = 0; i < 60; i++) {
        items[i] = (struct item){.age = i + 1, .owner = &owners[i % 3]};
        int r = mu_fair_push(&q, key(&items[i]), items[i].owner, &items[i].node);
        assert_true(r == 0 || (r == -ENOMEM && items[i].node.place == 0));
        n += r == 0;
        result = r < 0 ? r : result;
    }
    assert_int_equal(q.n, n);
    while (take(&q)) {
        n--;
    }
    assert_int_equal(n, 0);
    mu_fair_fini(&q);
    return result;
}

static void an_item_that_finds_no_memory_is_not_in_it(void **state)
{
    (void)state;
    each_allocation_fails(fill, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owners_take_turns_each_with_the_oldest),
        cmocka_unit_test(busy_owners_are_passed_over_until_they_are_not),
        cmocka_unit_test(an_item_may_leave_from_anywhere),
        cmocka_unit_test(an_item_that_finds_no_memory_is_not_in_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
