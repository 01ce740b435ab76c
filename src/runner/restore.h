/* A session goes on from its checkpoint: repositories and what lies beside them before the set-up
 * commands, the agent's home right before the agent (so that nothing of it is read by them). */
#ifndef MU_RUNNER_RESTORE_H
#define MU_RUNNER_RESTORE_H

#include "runner/manifest.h"

struct mu_runner;

struct mu_restore {
    char *folder; /* where the worker put it */
    struct mu_manifest m;
};
/* MUSTER_RESTORE is taken out of the environment; NULL when it is not set. 0 or the status to end
 * with. */
int mu_restore_open(struct mu_runner *r, struct mu_restore **ret);
struct mu_restore *mu_restore_free(struct mu_restore *s);
/* 0 or the status to end with (told). */
int mu_restore_workspace(struct mu_runner *r);
int mu_restore_home(struct mu_runner *r);
/* r->checkouts are told the commits that everybody has. */
void mu_restore_bases(struct mu_runner *r);

#endif
