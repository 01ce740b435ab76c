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

#endif
