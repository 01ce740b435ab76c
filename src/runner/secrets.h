/* What must not leave the sandbox (G9): the values of the session's variables that are secret, in
 * whatever is said about it. */
#ifndef MU_RUNNER_SECRETS_H
#define MU_RUNNER_SECRETS_H

#include "proto/redact.h"

struct mu_runner;

/* Whether the value of a variable is worth hiding. `given`: by the user of the session, so that its
 * name need not say that it is a secret. What anybody could guess (words, numbers, paths, addresses
 * without a password) is none, or output would become unreadable. */
bool mu_secret_worth(mu_bytes name, mu_bytes value, bool given);

/* Learns them: the user's variables (lines and JSON, as mu_envvars_*), those of the environment
 * whose names say so, and what the runner itself was given. r->redact; 0 or the status to end with.
 */
MU_MUST_USE int mu_secrets_learn(struct mu_runner *r, mu_bytes lines, mu_bytes json);
void mu_secrets_forget(struct mu_runner *r);

/* In place, cut to its room. */
void mu_secrets_hide(const struct mu_redact *r, char *text, size_t cap);
/* A file of .oz, by its path below it, written anew if there is something to hide. Its size, or a
 * negative code: then it must not be handed on. */
MU_MUST_USE int64_t mu_secrets_file(struct mu_runner *r, const char *path);

#endif
