#include "../unit.h"

#include <errno.h>

#include "../alloc_fail.h"
#include "base/heap.h"

enum { N = 500 };

struct item {
    struct mu_heap_node node;
    unsigned due;
};

static bool less(const struct mu_heap_node *a, const struct mu_heap_node *b)
{
    return ((const struct item *)a)->due < ((const struct item *)b)->due;
}

static void check_order(const struct mu_heap *h)
{
    for (size_t i = 0; i < h->len; i++) {
        assert_int_equal(h->nodes[i]->place, i + 1);
        assert_false(i && less(h->nodes[i], h->nodes[(i - 1) / 2]));
    }
}

static void the_smallest_comes_first_after_any_removals(void **state MU_UNUSED)
{
    static struct item items[N];
    struct mu_heap h;
    unsigned seed = 11;
    mu_heap_init(&h, less);
    assert_null(mu_heap_top(&h));
    assert_null(mu_heap_pop(&h));
    for (int step = 0; step < 20000; step++) {
        seed = seed * 1103515245 + 12345;
        struct item *it = &items[(seed >> 8) % N];
        if (it->node.place) {
            mu_heap_remove(&h, &it->node);
            assert_int_equal(it->node.place, 0);
            mu_heap_remove(&h, &it->node); /* harmless */
        } else {
            it->due = (seed >> 16) % 100;
            assert_int_equal(mu_heap_push(&h, &it->node), 0);
        }
        if (step % 100 == 0) {
            check_order(&h);
        }
    }
    unsigned last = 0;
    struct mu_heap_node *n;
    while ((n = mu_heap_pop(&h))) {
        assert_true(((struct item *)n)->due >= last);
        last = ((struct item *)n)->due;
        assert_int_equal(n->place, 0);
    }
    assert_int_equal(h.len, 0);
    mu_heap_fini(&h);
    mu_heap_fini(&h);
}

static int fill(void *arg MU_UNUSED)
{
    static struct item items[200];
    struct mu_heap h;
    mu_heap_init(&h, less);
    for (size_t i = 0; i < 200; i++) {
        items[i] = (struct item){.due = (unsigned)(200 - i)};
        int r = mu_heap_push(&h, &items[i].node);
        assert_true(r == 0 || (r == -ENOMEM && items[i].node.place == 0));
    }
    check_order(&h);
    mu_heap_fini(&h);
    return 0;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    each_allocation_fails(fill, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_comes_first_after_any_removals),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
