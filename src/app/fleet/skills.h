/* What skills repositories have (oz-api.md 15.1): asked of a connected worker, since only workers
 * fetch repositories, and kept for a while. Part of the fleet; in memory only. */
#ifndef MU_APP_FLEET_SKILLS_H
#define MU_APP_FLEET_SKILLS_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/list.h"
#include "io/loop.h"

struct mu_fleet;

enum {
    MU_SKILLS_MAX = 200,       /* of one repository */
    MU_SKILLS_BYTES = 1 << 20, /* all their texts */
    MU_SKILL_NAME_MAX = 200,   /* bytes, each */
    MU_SKILL_PATH_MAX = 512,
    MU_SKILL_ABOUT_MAX = 4096,
    MU_SKILL_PROMPT_MAX = 32 << 10,
    MU_SKILLS_WAIT_MS = 20000, /* for a worker's answer */
};

struct mu_skill {
    mu_bytes name, description, path, base_prompt;
};
/* The skills of one repository: filled by one thread, then unchanged and shared. */
struct mu_skill_set {
    atomic_uint refs;
    size_t n, bytes;
    struct mu_skill *skills;
    struct mu_arena arena;
};
/* With one reference. -ENOMEM. */
MU_MUST_USE int mu_skill_set_new(struct mu_skill_set **ret);
/* Copies what a worker said of a skill. MU_E_INVALID: without a name or path, too long, or with
 * bytes that have no business there; MU_E_LIMIT: the set is full; -ENOMEM. The set is as before
 * then. */
MU_MUST_USE int mu_skill_set_add(struct mu_skill_set *s, const struct mu_skill *skill);
struct mu_skill_set *mu_skill_set_ref(struct mu_skill_set *s);
struct mu_skill_set *mu_skill_set_unref(struct mu_skill_set *s);

/* One repository's. It and its texts live until done(). What one org learned is never told to
 * another, nor what was read with one credential to those who have none or another. */
struct mu_fleet_skills {
    struct mu_post post;
    struct mu_list link;
    struct mu_fleet *fleet;
    struct mu_loop *loop; /* where done() is called */
    mu_bytes org_id;
    mu_bytes repo;       /* as the environment names it */
    mu_bytes credential; /* a token for it, or ptr NULL; kept while the question is open */
    bool refresh;        /* what is known is forgotten first */
    /* At the latest MU_SKILLS_WAIT_MS later (and at once when the server stops): 0 with the set,
     * or with NULL when there is no worker to ask; MU_E_TIMEOUT, MU_E_BUSY (too many questions),
     * MU_E_UNAVAILABLE (the worker's words are in `why`), MU_E_SHUTDOWN, -ENOMEM. */
    void (*done)(struct mu_fleet_skills *op, int result);
    void *ctx;
    int result;
    struct mu_skill_set *set; /* a reference: the caller's to give back */
    char why[200];
};
/* Any loop. */
void mu_fleet_skills(struct mu_fleet *f, struct mu_fleet_skills *op);

#endif
