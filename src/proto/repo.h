/* A repository as an environment names it (oz-worker.md 13.2 step 6, 13.5). Pure. Part of the
 * static program. */
#ifndef MU_PROTO_REPO_H
#define MU_PROTO_REPO_H

#include "base/arena.h"

enum { MU_REPO_TEXT = 4096, MU_REPO_NAME = 200, MU_REPO_REF = 200 };

/* The URL is `before`, `where` and `after`, one behind the other. What is no literal points into
 * the parsed text. */
struct mu_repo_spec {
    const char *before, *after;
    mu_bytes where;
    mu_bytes ref;  /* a branch, tag or commit; empty = the remote's default */
    mu_bytes name; /* of its folder: the last part of the path without ".git" */
    /* https, http, ssh or git, git@host:path or owner/name of github.com, with a name of
     * [A-Za-z0-9._-] and none of its parts extraordinarily long. Else it is for git to judge: a
     * path, another transport, a part of an address of github.com. */
    bool plain;
};

/* Variables whose value opens https://github.com, the best first: items of an array. */
#define MU_REPO_TOKENS "GITHUB_ACCESS_TOKEN", "GH_TOKEN", "GITHUB_TOKEN"

/* The URL in one piece, NUL-terminated; ptr NULL: out of memory. */
mu_bytes mu_repo_url(struct mu_arena *a, const struct mu_repo_spec *spec);

/* A URL, git@host:path, owner/name, or a path; then optionally "#ref". MU_E_INVALID with a
 * sentence: what git would read as an option, blanks and control bytes, a URL without host or path,
 * what is no name of a branch, tag or commit, or of a folder; over-long. */
MU_MUST_USE int mu_repo_spec_parse(mu_bytes text, struct mu_repo_spec *ret, const char **ret_why);
/* What may be the name of a branch or tag, or a commit, without "refs/heads/"; also the empty one.
 */
bool mu_repo_ref_ok(mu_bytes ref);

#endif
