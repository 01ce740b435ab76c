/* The mount tree of a sandbox (sandbox.md 4), in two halves. The keeper *plans* it: a list of steps
 * in which everything is already looked up, read and allocated. The child, between clone3 and
 * execve, *builds* it: it walks the list and only makes system calls. */
#ifndef MU_EXEC_SANDBOX_TREE_INT_H
#define MU_EXEC_SANDBOX_TREE_INT_H

#include "exec/sandbox/box_int.h"

enum mu_step_kind {
    MU_STEP_DIR,
    MU_STEP_FILE,  /* `text` of `len` bytes is its content */
    MU_STEP_LINK,  /* `text` is where it points */
    MU_STEP_BIND,  /* host path `text`; mounted with all that is below it */
    MU_STEP_TMPFS, /* `size`, `inodes` as text */
    MU_STEP_PROC,  /* a new instance; with its masks when `size` is set */
    MU_STEP_PTS,
    MU_STEP_OVERLAY, /* lower, upper and work folder */
    MU_STEP_SEAL,    /* the mount at `path` becomes read-only */
};

struct mu_step {
    enum mu_step_kind kind;
    bool is_dir; /* BIND: of a folder */
    bool idmap;  /* BIND, OVERLAY: what the worker owns is the agent's inside (ranges only) */
    mode_t mode;
    unsigned attr;    /* MOUNT_ATTR_* */
    const char *path; /* inside, without the leading slash; "" = the root */
    const char *text;
    size_t len;
    const char *size, *inodes;
    const char *upper, *work;  /* OVERLAY; `text` is the lower folder */
    int fd, upper_fd, work_fd; /* opened before the identity changes */
};

struct mu_tree {
    struct mu_arena *arena;
    struct mu_step *steps;
    size_t n, cap;
    const char **made; /* folders that exist or will */
    size_t n_made, cap_made;
    int failed;          /* 0, -ENOMEM … */
    const char *session; /* absolute path of the session's folder */
    int session_fd;      /* the same in the child's mount namespace */
    bool writable;       /* a base into which packages are installed */
    bool seal;           /* the root becomes read-only */
};

/* Which step of the launch failed, and how: what exit 125 is explained with. */
struct mu_failure {
    int32_t err; /* errno */
    char step[40], what[216];
};
/* Fills it and returns -1; only copies, so the child may call it. */
int mu_fail(struct mu_failure *f, const char *step, const char *what);

/* --- the keeper's half --- */

/* Everything in `tree` is in the arena. 0, or the negated errno with words. */
MU_MUST_USE int mu_tree_plan(const struct mu_box *box, const char *session, struct mu_arena *arena,
                             struct mu_tree *ret, struct mu_err *err);
/* Steps with `idmap`: opens their sources through an id map (privileged). */
MU_MUST_USE int mu_tree_idmap(struct mu_tree *tree, const struct mu_box *box, struct mu_err *err);
/* Whether `path` of /etc must never be shown. */
bool mu_tree_etc_forbidden(const char *name);
/* A mount asked for by an environment or a setting: 0, or MU_E_FORBIDDEN / -errno with words. */
MU_MUST_USE int mu_tree_mount_allowed(const struct mu_box_mount *m, const char *session,
                                      struct mu_err *err);

/* Internal to the plan's two files. */
struct mu_step *mu_tree_add_(struct mu_tree *t, enum mu_step_kind kind, const char *path);
void mu_tree_dir_(struct mu_tree *t, const char *path);
void mu_tree_bind_(struct mu_tree *t, const char *source, const char *path, bool is_dir,
                   unsigned attr);
void mu_tree_text_(struct mu_tree *t, const char *path, const char *text, size_t len);
void mu_tree_plan_etc_(struct mu_tree *t, const struct mu_box *box);

/* --- the child's half; 0 or -1 --- */

/* Sources, while it still is who the worker is. */
MU_MUST_USE int mu_tree_open(struct mu_tree *tree, struct mu_failure *f);
/* Builds it over the session's folder and makes it the root. Afterwards the working folder is "/".
 */
MU_MUST_USE int mu_tree_build(struct mu_tree *tree, struct mu_failure *f);

#endif
