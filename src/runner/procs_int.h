#ifndef MU_RUNNER_PROCS_INT_H
#define MU_RUNNER_PROCS_INT_H

#include "runner/procs.h"

struct mu_spawned {
    pid_t pid;
    int out;   /* read end; -1 = none */
    int error; /* -errno: it was not started */
    bool no_interpreter;
};
/* In a session of its own, with nothing open but 0, 1 and 2. */
void mu_spawn(const struct mu_proc *proc, struct mu_spawned *ret);

/* 0, or what the look-up ended with; as a shell, a file that may not be executed is remembered
 * while the search goes on. `ret` has room for 4096 bytes. */
MU_MUST_USE int mu_find_program(const char *name, const char *path, char *ret);

#endif
