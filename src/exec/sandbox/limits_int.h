/* Limits and capabilities of what runs inside (sandbox.md 6). System calls only. */
#ifndef MU_EXEC_SANDBOX_LIMITS_INT_H
#define MU_EXEC_SANDBOX_LIMITS_INT_H

#include "exec/sandbox/tree_int.h"

/* Resource limits, niceness, scheduling class. */
MU_MUST_USE int mu_limits_apply(const struct mu_box *box, struct mu_failure *f);
/* Every set empty; the fake root keeps seven of its own namespace. */
MU_MUST_USE int mu_limits_capabilities(bool fake_root, struct mu_failure *f);

#endif
