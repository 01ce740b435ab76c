#include "../unit.h"

#include "../alloc_fail.h"
#include "base/arena.h"

static void memory_is_aligned_and_does_not_overlap(void **state MU_UNUSED)
{
    struct mu_arena a;
    unsigned char *p[300];
    mu_arena_init(&a, 1 << 20);
    for (size_t i = 0; i < MU_ARRAY_LEN(p); i++) {
        p[i] = mu_arena_alloc(&a, i);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        memset(p[i], (int)i, i);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(p); i++) {
        for (size_t k = 0; k < i; k++) {
            assert_int_equal(p[i][k], i & 0xff);
        }
    }
    mu_arena_fini(&a);
}

static void the_limit_bounds_what_is_handed_out(void **state MU_UNUSED)
{
    struct mu_arena a;
    mu_arena_init(&a, 100);
    assert_non_null(mu_arena_alloc(&a, 60)); /* takes 64 */
    assert_null(mu_arena_alloc(&a, 37));
    assert_non_null(mu_arena_alloc(&a, 36));
    assert_null(mu_arena_alloc(&a, 1));
    mu_arena_fini(&a);
    assert_non_null(mu_arena_alloc(&a, 100));
    mu_arena_fini(&a);
    mu_arena_init(&a, SIZE_MAX);
    assert_null(mu_arena_alloc(&a, SIZE_MAX));
    assert_null(mu_arena_alloc(&a, SIZE_MAX - 7));
    mu_arena_fini(&a);
    struct mu_arena zero = {0};
    assert_null(mu_arena_alloc(&zero, 1));
    mu_arena_fini(&zero);
}

static void many_small_pieces_count_with_their_rounding(void **state MU_UNUSED)
{
    struct mu_arena a;
    size_t n = 0;
    mu_arena_init(&a, 1600);
    while (n < 10000 && mu_arena_alloc(&a, 1)) {
        n++;
    }
    assert_int_equal(n, 100);
    mu_arena_fini(&a);
}

static void copies_and_formatted_text_end_with_a_nul(void **state MU_UNUSED)
{
    struct mu_arena a;
    mu_arena_init(&a, 1 << 20);
    mu_bytes b = mu_arena_dup(&a, mu_bytes_of("a\0b", 3));
    assert_memory_equal(b.ptr, "a\0b", 4);
    b = mu_arena_dup(&a, MU_B_NONE);
    assert_string_equal(b.ptr, "");
    b = mu_arena_printf(&a, "%d-%s", 7, "x");
    assert_string_equal(b.ptr, "7-x");
    assert_int_equal(b.len, 3);
    assert_null(mu_arena_printf(&a, "%2000000d", 7).ptr);
    char *z = mu_arena_calloc(&a, 100);
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(z[i], 0);
    }
    mu_arena_fini(&a);
}

static int fill(void *arg MU_UNUSED)
{
    struct mu_arena a;
    mu_arena_init(&a, 1 << 20);
    for (size_t i = 0; i < 200; i++) {
        char *p = mu_arena_calloc(&a, i * 7);
        if (p && i) {
            p[i] = 1;
        }
        mu_bytes b = mu_arena_printf(&a, "%zu", i);
        assert_true(!b.ptr || b.len > 0);
    }
    mu_arena_fini(&a);
    return 0;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    each_allocation_fails(fill, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned_and_does_not_overlap),
        cmocka_unit_test(the_limit_bounds_what_is_handed_out),
        cmocka_unit_test(many_small_pieces_count_with_their_rounding),
        cmocka_unit_test(copies_and_formatted_text_end_with_a_nul),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
