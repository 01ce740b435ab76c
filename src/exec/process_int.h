/* The fork side of process.c. */
#ifndef MU_EXEC_PROCESS_INT_H
#define MU_EXEC_PROCESS_INT_H

#include <sys/types.h>

#include "exec/process.h"

/* argv[0] as a path for execve, by the PATH of `env`: 0, -ENOENT, -EACCES, -ENOMEM. */
MU_MUST_USE int mu_process_resolve_(const char *program, const char *const *env, char **ret);
/* Forks and executes `path` with the three descriptors as stdin, stdout and stderr (they stay open
 * in the caller). Returns when the program runs: 0, or the negated errno of what failed; then there
 * is no child. */
MU_MUST_USE int mu_process_spawn_(const char *path, const struct mu_process_request *req,
                                  const int fds[3], pid_t *ret);

#endif
