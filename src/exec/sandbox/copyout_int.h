/* Copy-out from a session's folder; blocking. No libuv. */
#ifndef MU_EXEC_SANDBOX_COPYOUT_INT_H
#define MU_EXEC_SANDBOX_COPYOUT_INT_H

#include "base/base.h"

/* A regular file "/workspace/…" with one name, owned by who it should be (the range's ids, or ours
 * when `range` is 0), through openat2: never through a link, never blocking, never opening anything
 * but a regular file. At most `max` bytes; *ret is the caller's to mu_free(), also with
 * MU_E_TOO_LARGE. Errors as mu_sandbox_ops.read_file tells them. */
MU_MUST_USE int mu_copyout(int session_fd, const char *path, size_t max, int64_t range, char **ret,
                           size_t *ret_len);

#endif
