/* The list of repositories to clone: what each line means and where it goes (oz-worker.md 13.2 step
 * 6, 13.5). Pure. */
#ifndef MU_RUNNER_REPOS_H
#define MU_RUNNER_REPOS_H

#include "base/bytes.h"
#include "base/err.h"

enum { MU_REPOS_MAX = 64 };

struct mu_repo {
    char *url;
    char *branch; /* a branch or tag; NULL = the remote's default */
    char *name;   /* its folder below the workspace, unless it is the only one */
};
struct mu_repos {
    struct mu_repo *items;
    size_t n;
};

/* One repository a line (proto/repo.h). Refused (MU_E_INVALID, worded): what that refuses, and more
 * than MU_REPOS_MAX. -ENOMEM. A second one of the same name gets "-2" and so on. */
MU_MUST_USE int mu_repos_parse(mu_bytes text, struct mu_repos *ret, struct mu_err *err);
void mu_repos_fini(struct mu_repos *repos);

#endif
