/* What an agent may do without a person (village-control-plane.md 5.1, 5.3, 10.6): the session's
 * policy and one request of the agent give allow, deny or ask. Pure; part of the static program. */
#ifndef MU_EXEC_AGENTS_POLICY_H
#define MU_EXEC_AGENTS_POLICY_H

#include "base/arena.h"
#include "base/err.h"

enum mu_guard_action {
    MU_GUARD_TOOL, /* any other permission that an agent asks for */
    MU_GUARD_SHELL,
    MU_GUARD_NETWORK,
    MU_GUARD_DEPS_ADD,
    MU_GUARD_MERGE,
    MU_GUARD_SECRETS,
    MU_GUARD_DEPLOY,
};
enum mu_guard_verdict { MU_GUARD_ALLOW, MU_GUARD_ASK, MU_GUARD_DENY };
enum mu_guard_risk { MU_GUARD_LOW, MU_GUARD_MED, MU_GUARD_HIGH };
const char *mu_guard_action_name(enum mu_guard_action a);
const char *mu_guard_risk_name(enum mu_guard_risk r);

enum { MU_GUARD_LIST = 256, MU_GUARD_TEXT_MAX = 256 << 10 };

struct mu_guard_list {
    mu_bytes *items;
    size_t n;
};
struct mu_guard {
    struct mu_arena arena;
    struct mu_guard_list shell_allow, shell_deny, paths, branches, egress;
    unsigned asks; /* bit by action */
    bool restricted;
    bool stop_on_deny;
    enum mu_guard_verdict shell_default; /* of what is not in shell_allow */
};

/* PolicySpec as JSON; empty text, "null" and "{}" are the defaults: any command, approval for
 * merge, deps_add, secrets and deploy, network open. Members that are missing are the defaults;
 * unknown ones are ignored. MU_E_INVALID (worded): no JSON, or a member of the wrong kind or with
 * an unknown word; MU_E_TOO_LARGE, -ENOMEM. Then *ret asks for everything. */
MU_MUST_USE int mu_guard_read(mu_bytes json, struct mu_guard *ret, struct mu_err *err);
void mu_guard_fini(struct mu_guard *g); /* accepts a zeroed one */

struct mu_guard_request {
    mu_bytes kind;    /* ACP's: read edit delete move search execute think fetch other */
    mu_bytes command; /* of an execute; ptr NULL = not known */
    mu_bytes url;     /* of a fetch; ptr NULL = not known */
    const char *const *paths;
    size_t n_paths;
};
struct mu_guard_answer {
    enum mu_guard_verdict verdict;
    enum mu_guard_action action;
    enum mu_guard_risk risk;
    char rule[200]; /* which one decided, in words */
};
/* What is not understood for certain is asked for, also when memory ends. */
void mu_guard_check(const struct mu_guard *g, const struct mu_guard_request *r,
                    struct mu_guard_answer *ret);

#endif
