/* Landlock (sandbox.md 6): a second lock on files, the last one on abstract sockets and signals.
 * Part of the static program; system calls only. */
#ifndef MU_EXEC_SANDBOX_LANDLOCK_INT_H
#define MU_EXEC_SANDBOX_LANDLOCK_INT_H

#include "exec/sandbox/tree_int.h"

/* The version the kernel has; 0 = none (-> errno). */
int mu_landlock_abi(void);

struct mu_landlock_path {
    const char *path;
    bool writable, ioctl;
};
struct mu_landlock_rules {
    const struct mu_landlock_path *paths; /* what is not there is left out */
    size_t n_paths;
    bool tcp; /* refuse TCP altogether (there is no network namespace) */
};
/* Restricts the calling thread for good. no_new_privs must be set. */
MU_MUST_USE int mu_landlock_apply(const struct mu_landlock_rules *rules, struct mu_failure *f);
/* The rules inside the full tree. */
extern const struct mu_landlock_rules mu_landlock_tree;
/* The same where packages are installed into an unpacked base: all but device nodes. */
extern const struct mu_landlock_rules mu_landlock_root;

#endif
