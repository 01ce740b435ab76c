/* Re-runs a body with the n-th allocation failing, n = 1, 2, 3 … until it passes untouched
 * (c-style.md 1.9). */
#include "alloc_fail.h"

#include "base/base.h"

void each_allocation_fails(int (*body)(void *arg), void *arg)
{
    for (long n = 1; n < 100000; n++) {
        mu_alloc_fail_at(n);
        body(arg);
        if (mu_alloc_fail_at(0) < n) {
            return;
        }
    }
    MU_CHECK(!"the body never ran out of allocations");
}
