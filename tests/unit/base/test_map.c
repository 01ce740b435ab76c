#include "../unit.h"

#include <errno.h>
#include <stdio.h>

#include "../alloc_fail.h"
#include "base/map.h"

enum { N = 2000 };

struct entry {
    char key[16];
    bool in;
};

/* The map against an array, over a long random walk. */
static void a_random_walk_agrees_with_a_plain_array(void **state MU_UNUSED)
{
    static struct entry e[N];
    struct mu_map m;
    unsigned seed = 3;
    size_t live = 0;
    mu_map_init(&m);
    for (size_t i = 0; i < N; i++) {
        snprintf(e[i].key, sizeof e[i].key, "key%zu", i);
    }
    for (int step = 0; step < 100000; step++) {
        seed = seed * 1103515245 + 12345;
        struct entry *x = &e[(seed >> 8) % (step % 20000 < 10000 ? N : 20)];
        mu_bytes key = mu_str(x->key);
        assert_ptr_equal(mu_map_get(&m, key), x->in ? x : NULL);
        if ((seed >> 4) % 2) {
            assert_int_equal(mu_map_put(&m, key, x), 0);
            live += !x->in;
            x->in = true;
        } else {
            assert_ptr_equal(mu_map_remove(&m, key), x->in ? x : NULL);
            live -= x->in;
            x->in = false;
        }
        assert_int_equal(m.count, live);
        assert_true(m.used < m.cap || m.cap == 0);
        assert_true(m.cap <= 16384);
    }
    size_t at = 0, seen = 0;
    struct entry *x;
    while ((x = mu_map_next(&m, &at))) {
        assert_true(x->in);
        assert_ptr_equal(mu_map_remove(&m, mu_str(x->key)), x);
        seen++;
    }
    assert_int_equal(seen, live);
    assert_int_equal(m.count, 0);
    mu_map_fini(&m);
    assert_null(mu_map_get(&m, MU_B("x")));
    assert_null(mu_map_remove(&m, MU_B("x")));
}

static void put_replaces_key_and_value(void **state MU_UNUSED)
{
    struct mu_map m;
    char a[] = "k", b[] = "k";
    mu_map_init(&m);
    assert_int_equal(mu_map_put(&m, mu_str(a), a), 0);
    assert_int_equal(mu_map_put(&m, mu_str(b), b), 0);
    assert_int_equal(m.count, 1);
    a[0] = 'x'; /* the first key may be gone by now */
    assert_ptr_equal(mu_map_get(&m, MU_B("k")), b);
    mu_map_fini(&m);
}

static void the_empty_key_is_a_key(void **state MU_UNUSED)
{
    struct mu_map m;
    int v;
    mu_map_init(&m);
    assert_int_equal(mu_map_put(&m, MU_B(""), &v), 0);
    assert_ptr_equal(mu_map_get(&m, MU_B_NONE), &v);
    mu_map_fini(&m);
}

static void the_hash_depends_on_every_byte_and_the_length(void **state MU_UNUSED)
{
    char text[40] = {0};
    uint64_t seen[40 + 40];
    size_t n = 0;
    for (size_t len = 0; len < 40; len++) {
        seen[n++] = mu_hash(mu_bytes_of(text, len));
    }
    for (size_t i = 0; i < 40; i++) {
        text[i] = 1;
        seen[n++] = mu_hash(mu_bytes_of(text, 40));
        text[i] = 0;
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_true(seen[i] != seen[k]);
        }
    }
    assert_true(mu_hash(MU_B("same")) == mu_hash(MU_B("same")));
}

static int fill(void *arg MU_UNUSED)
{
    static char keys[100][8];
    struct mu_map m;
    size_t n = 0;
    mu_map_init(&m);
    for (size_t i = 0; i < 100; i++) {
        snprintf(keys[i], sizeof keys[i], "%zu", i);
        int r = mu_map_put(&m, mu_str(keys[i]), keys[i]);
        assert_true(r == 0 || r == -ENOMEM);
        n += r == 0;
        assert_int_equal(m.count, n);
        assert_ptr_equal(mu_map_get(&m, mu_str(keys[i])), r == 0 ? keys[i] : NULL);
    }
    mu_map_fini(&m);
    return 0;
}

static void every_failing_allocation_leaves_the_map_as_it_was(void **state MU_UNUSED)
{
    each_allocation_fails(fill, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_random_walk_agrees_with_a_plain_array),
        cmocka_unit_test(put_replaces_key_and_value),
        cmocka_unit_test(the_empty_key_is_a_key),
        cmocka_unit_test(the_hash_depends_on_every_byte_and_the_length),
        cmocka_unit_test(every_failing_allocation_leaves_the_map_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
