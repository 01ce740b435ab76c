#include <stdatomic.h>
#include <stdio.h>

#include "base/base.h"

/* One relaxed counter; production never sets fail_at, so the branch is the whole cost. */
static atomic_long fail_at;
static atomic_long made;

static bool must_fail(void)
{
    if (__builtin_expect(atomic_load_explicit(&fail_at, memory_order_relaxed) == 0, 1)) {
        return false;
    }
    long n = atomic_fetch_add(&made, 1) + 1;
    return n == atomic_load(&fail_at);
}

void *mu_alloc(size_t size)
{
    return must_fail() ? NULL : malloc(size ? size : 1);
}

void *mu_calloc(size_t n, size_t size)
{
    return must_fail() ? NULL : calloc(n ? n : 1, size ? size : 1);
}

void *mu_realloc(void *p, size_t size)
{
    return must_fail() ? NULL : realloc(p, size ? size : 1);
}

void mu_free(void *p)
{
    free(p);
}

long mu_alloc_fail_at(long n)
{
    atomic_store(&fail_at, n);
    return atomic_exchange(&made, 0);
}

void mu_check_failed(const char *file, int line, const char *cond)
{
    fprintf(stderr, "%s:%d: check failed: %s\n", file, line, cond);
    abort();
}
