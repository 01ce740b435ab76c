#include "exec/sandbox/namespace_int.h"
#include <errno.h>
int mu_ns_check(struct mu_sandbox_driver *d MU_UNUSED,
                void (*done)(void *arg, const struct mu_sandbox_report *report) MU_UNUSED,
                void *arg MU_UNUSED)
{
    return -ENOSYS;
}
