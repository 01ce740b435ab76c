/* Looks through a folder for what a checkpoint keeps of it: the repositories in it, and the files
 * that belong to none. Never through a link. */
#ifndef MU_RUNNER_WALK_H
#define MU_RUNNER_WALK_H

#include "base/buf.h"

enum { MU_WALK_REPOS = 32, MU_WALK_DEPTH = 48, MU_WALK_PATH = 4096, MU_WALK_TURN = 4096 };

struct mu_walk {
    /* what is looked for */
    bool home;        /* an agent's home instead of a workspace: no repositories */
    int64_t since_s;  /* only files that were changed (ctime) since then; 0 = all */
    int64_t file_max; /* larger ones are left out; 0 = none */
    int avoid;        /* a folder that is not looked into; -1 = none */
    size_t list_max;  /* bytes of names */
    size_t entries_max;
    /* Every MU_WALK_TURN entries: something else may be done. Not 0 ends it with that code. */
    int (*turn)(void *arg);
    void *arg;
    /* what was found */
    struct mu_buf files; /* relative paths, a NUL behind each */
    size_t n_files, seen;
    uint64_t print;             /* differs when any of the files may have changed */
    char *repos[MU_WALK_REPOS]; /* relative, "" = the folder itself; sorted */
    size_t n_repos;
    bool cut; /* there is more than the bounds allow */
};

void mu_walk_init(struct mu_walk *w, bool home);
/* 0; -errno, -ENOMEM, MU_E_TOO_LARGE when it was cut, what `turn` returned. */
MU_MUST_USE int mu_walk_run(struct mu_walk *w, int folder);
void mu_walk_fini(struct mu_walk *w);

/* Of two lists (NUL behind each) appends to `dst` what is in `old` and not in `now`. */
MU_MUST_USE int mu_walk_gone(mu_bytes old, mu_bytes now, struct mu_buf *dst);

#endif
