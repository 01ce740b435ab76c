/* Shared by agents.c and agents_json.c. */
#ifndef MU_FACE_OZ_AGENTS_INT_H
#define MU_FACE_OZ_AGENTS_INT_H

#include "app/fleet/fleet.h"
#include "base/map.h"
#include "face/oz/oz_int.h"
#include "proto/repo.h"

enum { MU_AGENT_REPOS = 50, MU_AGENT_ENVS = 100 };

struct mu_agent_env {
    mu_bytes id, name;
    bool own; /* the caller's; else a global one, or seen by the admin */
};

/* A repository of the caller's environments, once. */
struct mu_agent_repo {
    mu_bytes text; /* as an environment names it */
    mu_bytes url, ref, owner, name;
    const struct mu_agent_env **envs; /* that name it: at most MU_AGENT_ENVS */
    size_t n_envs;
    struct mu_id token_env; /* the own environment with a token for it, text[0] = 0: none */
    mu_bytes token;
    struct mu_fleet_skills op;
};

struct mu_agent_run {
    mu_bytes skill; /* as the run named it */
    int64_t last_ms;
};

/* One call; all of it in its arena. */
struct mu_agents {
    struct mu_call *c;
    bool wanted, by_last_run;
    struct mu_repo_spec want;
    mu_bytes wanted_url;
    struct mu_env_read envs;
    struct mu_id cursor;
    unsigned pages;
    struct mu_agent_repo repos[MU_AGENT_REPOS];
    size_t n_repos, at, pending;
    int failed;
    struct mu_session_skills lately;
    struct mu_map runs; /* skill -> struct mu_agent_run */
};

/* agents_json.c: the answer; gives back the sets. */
void mu_agents_send(struct mu_agents *x);

#endif
