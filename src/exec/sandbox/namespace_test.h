/* For tests only: what they cannot ask for through the table of drivers. */
#ifndef MU_EXEC_SANDBOX_NAMESPACE_TEST_H
#define MU_EXEC_SANDBOX_NAMESPACE_TEST_H

#include "exec/sandbox/sandbox.h"

/* The kind of launch for what is started from now on: 'A' to 'D' (sandbox.md 3). */
void mu_sandbox_namespace_rung(struct mu_sandbox_driver *d, int rung);

#endif
