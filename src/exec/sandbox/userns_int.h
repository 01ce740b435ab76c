/* User namespaces for a moment: to act as the root of a range of ids, or as the map of a mount.
 * Needs root, and a single-threaded process. Part of the static program. */
#ifndef MU_EXEC_SANDBOX_USERNS_INT_H
#define MU_EXEC_SANDBOX_USERNS_INT_H

#include <stdint.h>

#include "base/base.h"

/* Runs fn in a child that is root of a namespace in which `count` ids from `inside` on are the
 * host's from `outside` on. Its exit status, or a negated errno. */
MU_MUST_USE int mu_userns_run(int64_t inside, int64_t outside, int64_t count, int (*fn)(void *arg),
                              void *arg);
/* A descriptor of such a namespace without anybody in it; -errno. */
MU_MUST_USE int mu_userns_fd(int64_t inside, int64_t outside, int64_t count);

#endif
