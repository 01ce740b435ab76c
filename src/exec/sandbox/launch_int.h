/* The launcher (sandbox.md 3): from a plan to a running PID 1. Part of the static program. */
#ifndef MU_EXEC_SANDBOX_LAUNCH_INT_H
#define MU_EXEC_SANDBOX_LAUNCH_INT_H

#include "exec/sandbox/landlock_int.h"
#include "exec/sandbox/seccomp.h"
#include "exec/sandbox/tree_int.h"

enum {
    MU_LAUNCH_FAILED = 125, /* exit status: our set-up, not the task */
    MU_LAUNCH_PATHS = 48,
};

struct mu_launch {
    /* In. The caller keeps the descriptors; all of them are above 4. */
    const struct mu_box *box;
    struct mu_tree tree;
    int session_fd;
    int out_fd;  /* stdout and stderr of PID 1 */
    int link_fd; /* its descriptor 3 */
    const char *program;
    const char *const *argv;
    const struct mu_landlock_path *host_paths; /* rung D: what it may reach; ends with path NULL */
    int cgroup_fd;                             /* v2 group it is born into; -1 = none */
    /* Called between birth and "go", when it is already limited to nothing: 0 or a negated errno.
     */
    int (*born)(void *arg, pid_t pid);
    void *arg;
    /* Out. */
    pid_t pid;
    int pidfd;
    struct mu_failure failure; /* when mu_launch() was not 0 */

    /* Between keeper and child. */
    int status[2]; /* SEQPACKET: "go" inwards, a struct mu_failure outwards, closed by execve */
};

/* Starts PID 1 and returns when it executes its program: 0, or a negated errno; then no process is
 * left and `failure` names the step. Blocks for some milliseconds, 30 s at most. The calling thread
 * must live as long as the sandbox shall (PDEATHSIG). */
MU_MUST_USE int mu_launch(struct mu_launch *l);

/* The same through bubblewrap (rung B). */
MU_MUST_USE int mu_launch_bwrap(struct mu_launch *l);

/* What it executes inside: limits, Landlock, the filter, then the program. argv[0]: numbers, the
 * rest is the program's. */
int mu_launch_second_stage(int argc, char **argv);

/* Limits, capabilities, no_new_privs, Landlock, the filter, in this order and for good. */
MU_MUST_USE int mu_launch_lock_up_(const struct mu_box *box,
                                   const struct mu_landlock_rules *landlock, struct mu_failure *f);
/* The child's side: never returns. */
MU_NORETURN void mu_launch_child_(struct mu_launch *l);

#endif
