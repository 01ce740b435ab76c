#ifndef MU_EXEC_AGENTS_POLICY_INT_H
#define MU_EXEC_AGENTS_POLICY_INT_H

#include "exec/agents/policy.h"
#include "exec/agents/shell.h"

/* What one simple command is, whatever the policy says. */
struct mu_guard_class {
    enum mu_guard_action action;
    enum mu_guard_risk risk;
    bool destroys;  /* the machine it runs on */
    bool uncertain; /* which of its subcommands runs is only known when it runs */
    mu_bytes host;  /* of a network program; ptr NULL = not known */
};
struct mu_guard_class mu_guard_classify(const struct mu_guard *g, const struct mu_shell *s,
                                        size_t command);
/* Files that hold secrets by their names, and those that the policy protects. */
bool mu_guard_secret_path(mu_bytes path);
bool mu_guard_protected(const struct mu_guard *g, mu_bytes path);
mu_bytes mu_guard_host(mu_bytes url);
bool mu_guard_host_allowed(const struct mu_guard *g, mu_bytes host);

#endif
