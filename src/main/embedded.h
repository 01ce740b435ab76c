/* The worker that `muster serve` starts on its own machine (OZ_EMBEDDED_WORKER): a child process,
 * so that the server itself never makes sandboxes. */
#ifndef MU_MAIN_EMBEDDED_H
#define MU_MAIN_EMBEDDED_H

#include "io/loop.h"
#include "main/config.h"

struct mu_embedded;

/* Before the identity is built: its name and a key of this start alone. *ret_worker_keys = the
 * configured OZ_WORKER_KEYS with that key added (mu_free() it). *ret is NULL when none is wanted.
 * `args` outlives it. */
MU_MUST_USE int mu_embedded_new(const struct mu_env *env, const struct mu_config *conf,
                                const struct mu_config_args *args, struct mu_embedded **ret,
                                char **ret_worker_keys);
/* Core loop: when the server listens, reached from this machine by `own_url` (copied). Started
 * again whenever it ends. */
void mu_embedded_start(struct mu_embedded *e, struct mu_loop *core, const char *own_url);
/* Once. Hands the signal on and calls stopped() on the loop when the worker has ended, at most
 * `grace_ms` later (then it is killed). NULL is stopped already. */
void mu_embedded_stop(struct mu_embedded *e, int signum, int64_t grace_ms,
                      void (*stopped)(void *arg), void *arg);
/* The grace is over. */
void mu_embedded_stop_now(struct mu_embedded *e);
struct mu_embedded *mu_embedded_free(struct mu_embedded *e);

#endif
