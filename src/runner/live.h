/* A session that people watch and steer (docs/runner-protocol.md): instead of one agent run, the
 * runner speaks with the server until the session is over. */
#ifndef MU_RUNNER_LIVE_H
#define MU_RUNNER_LIVE_H

#include "base/base.h"

struct mu_runner;
struct mu_live;

/* Whether MUSTER_LINK, or DO_WS_URL, asks for it. */
bool mu_live_wanted(void);
/* Takes the link out of the environment; from now on the server is told of everything. `token`: the
 * session's, or NULL. 0 or the status to end with. */
int mu_live_open(struct mu_runner *r, const char *token, struct mu_live **ret);
/* r->redact is known: no message says what it hides. */
void mu_live_secrets(struct mu_live *v);
/* A step of the preparation begins. */
void mu_live_boot(struct mu_live *v, const char *step);
/* The agent and its turns, until the session is over. The status to end with. */
int mu_live_run(struct mu_live *v);
/* How it ended is told, as far as somebody listens. */
void mu_live_say_end(struct mu_live *v, int status, const char *message);
struct mu_live *mu_live_close(struct mu_live *v);

#endif
