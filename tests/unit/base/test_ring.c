#include "../unit.h"

#include "../alloc_fail.h"
#include "base/ring.h"

static char at(int64_t i)
{
    return (char)('a' + i % 23);
}

static void every_byte_is_found_by_its_offset_until_it_is_pushed_out(void **state)
{
    (void)state;
    unsigned seed = 7;
    struct mu_ring r;
    mu_ring_init(&r, 10000);
    char block[3000];
    for (int round = 0; round < 300; round++) {
        seed = seed * 1103515245 + 12345;
        size_t n = (seed >> 16) % sizeof block;
        for (size_t i = 0; i < n; i++) {
            block[i] = at(r.end + (int64_t)i);
        }
        int64_t before = r.end;
        assert_int_equal(mu_ring_add(&r, mu_bytes_of(block, n)), 0);
        assert_true(r.end == before + (int64_t)n);
        assert_true(mu_ring_from(&r) == MU_MAX(r.end - 10000, (int64_t)0));
        int64_t seen = mu_ring_from(&r);
        while (seen < r.end) {
            mu_bytes b = mu_ring_at(&r, seen, 777);
            assert_true(b.len > 0 && b.len <= 777);
            for (size_t i = 0; i < b.len; i++) {
                assert_int_equal(b.ptr[i], at(seen + (int64_t)i));
            }
            seen += (int64_t)b.len;
        }
        assert_true(seen == r.end);
    }
    assert_int_equal(mu_ring_at(&r, r.end, 1).len, 0);
    assert_int_equal(mu_ring_at(&r, 0, 1).ptr[0], at(mu_ring_from(&r)));
    mu_ring_fini(&r);
}

static void one_piece_larger_than_all_of_it_leaves_its_end(void **state)
{
    (void)state;
    struct mu_ring r;
    mu_ring_init(&r, 8);
    assert_int_equal(mu_ring_add(&r, MU_B("0123456789abcdef")), 0);
    assert_int_equal(mu_ring_from(&r), 8);
    assert_int_equal(mu_ring_at(&r, 15, 9).ptr[0], 'f');
    mu_ring_fini(&r);
}

static int body(void *arg)
{
    (void)arg;
    struct mu_ring r;
    char block[5000] = {0};
    mu_ring_init(&r, 20000);
    int e = mu_ring_add(&r, mu_bytes_of(block, 100));
    assert_int_equal(r.end, 100);
    (void)mu_ring_add(&r, mu_bytes_of(block, sizeof block)); /* there is an older, smaller one */
    assert_int_equal(r.end, 5100);
    mu_ring_fini(&r);
    return e;
}

static void no_memory_costs_old_bytes_only(void **state)
{
    (void)state;
    each_allocation_fails(body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_found_by_its_offset_until_it_is_pushed_out),
        cmocka_unit_test(one_piece_larger_than_all_of_it_leaves_its_end),
        cmocka_unit_test(no_memory_costs_old_bytes_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
