/* What the task changed: changes.patch against the commits it began with (oz-worker.md 13.5, README
 * 9). The repository's own configuration is never read for it: git works on a folder of ours that
 * borrows only its objects and index, so that no hook, filter, file-system monitor or diff program
 * of it can run. */
#ifndef MU_RUNNER_PATCH_H
#define MU_RUNNER_PATCH_H

#include "base/buf.h"
#include "runner/procs.h"
#include "runner/workspace.h"

enum { MU_CHECKOUTS_MAX = 64 };

struct mu_checkout {
    char *dir;     /* below the workspace; "" = itself */
    char *git_dir; /* absolute; the same as `common` but in a linked work tree */
    char *common;
    char *branch; /* NULL = detached */
    char commit[65];
    bool unfetchable; /* only this session has it */
};
struct mu_checkouts {
    struct mu_checkout items[MU_CHECKOUTS_MAX];
    size_t n;
};

/* What git may cost and where it is looked up. */
struct mu_patch_limits {
    const char *path;    /* PATH */
    int64_t timeout_ms;  /* of all of it together */
    int64_t file_bytes;  /* a changed file above this is left out, with a note */
    int64_t patch_bytes; /* a larger patch is given up, with a note */
};

/* Finds the checkouts of the workspace (itself, else the folders right below it) and what they
 * stand at. One without a commit is skipped. */
void mu_checkouts_find(struct mu_checkouts *c, struct mu_workspace *w, struct mu_procs *p,
                       const char *path);
void mu_checkouts_fini(struct mu_checkouts *c);
/* The branch that one is on now, or NULL; freed by the caller. */
char *mu_checkout_branch(const struct mu_checkout *c);

/* Commits that HEAD has and `since` has not, oldest first, at most the newest 20; `since` is HEAD
 * afterwards. Nothing when git fails. */
typedef void (*mu_commit_fn)(void *arg, const struct mu_checkout *c, mu_bytes sha,
                             mu_bytes subject);
void mu_checkout_commits(const struct mu_checkout *c, struct mu_procs *p, const char *path,
                         char since[65], mu_commit_fn each, void *arg);

/* Writes .oz/changes.patch. Returns its size; 0 and no file when nothing changed or it could not be
 * made (then with a note). */
int64_t mu_patch_make(const struct mu_checkouts *c, struct mu_workspace *w, struct mu_procs *p,
                      const struct mu_patch_limits *limits);

/* The changes as they are now: for each checkout once what `git diff --raw --numstat -z` says, and
 * with `patch` once more the text. `cut`: there was more. Returns git's status, 0 = all was told.
 */
typedef void (*mu_patch_fn)(void *arg, const struct mu_checkout *c, bool patch, mu_bytes text,
                            bool cut);
MU_MUST_USE int mu_patch_look(const struct mu_checkouts *c, struct mu_workspace *w,
                              struct mu_procs *p, const struct mu_patch_limits *limits, bool patch,
                              mu_patch_fn each, void *arg);

#endif
