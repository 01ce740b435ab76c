/* Environments (oz-api.md 4.7-4.9, 15.6): image, repositories, setup commands, and variables that
 * are encrypted at rest. */
#ifndef MU_APP_ENVIRONMENTS_ENVIRONMENTS_H
#define MU_APP_ENVIRONMENTS_ENVIRONMENTS_H

#include "app/sessions/sessions.h"
#include "base/crypt.h"
#include "base/id.h"

struct mu_environments;
struct mu_environments_opts {
    const struct mu_env *env;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_vault *vault;
};
MU_MUST_USE int mu_environments_new(const struct mu_environments_opts *opts,
                                    struct mu_environments **ret);
struct mu_environments *mu_environments_free(struct mu_environments *e);

enum { MU_ENV_VARS_MAX = 200 };
struct mu_env_var {
    mu_bytes name, value;
    bool keep; /* PUT: the stored value stays */
};

/* Create, replace, delete: one operation struct. It and what it points at live until done(). */
struct mu_env_write {
    struct mu_unit unit;
    struct mu_environments *envs;
    const struct mu_principal *who;
    struct mu_id id;      /* create: out */
    bool global;          /* create, admin only: no owner */
    mu_bytes name, image; /* image: docker_image */
    mu_bytes spec;        /* JSON {"repos":[…],"setup_commands":[…],"secrets":[…]} */
    const struct mu_env_var *vars;
    size_t n_vars;
    struct mu_arena *arena; /* for the sealed values */
    void (*done)(struct mu_env_write *op,
                 int result); /* MU_E_NOT_FOUND; MU_E_INVALID: *missing names a variable that
                                 should keep its value and has none */
    void *ctx;
    /* out */
    int64_t created_ms, updated_ms;
    mu_bytes missing;
    bool is_global;
    /* own */
    struct mu_sealed_var *sealed;
    int64_t now_ms;
    enum { MU_ENV_CREATE, MU_ENV_REPLACE, MU_ENV_DELETE } what;
};
MU_MUST_USE int mu_environment_create(struct mu_environments *e, struct mu_env_write *op);
MU_MUST_USE int mu_environment_replace(struct mu_environments *e, struct mu_env_write *op);
MU_MUST_USE int mu_environment_delete(struct mu_environments *e, struct mu_env_write *op);

struct mu_env_view {
    mu_bytes id, org_id /* ptr NULL = global */, name, image, spec;
    int64_t version, created_ms, updated_ms;
    const struct mu_env_var *vars; /* values empty unless they may be shown */
    size_t n_vars;
    bool values_shown;
};
/* Appends what a run keeps of its environment as of create: JSON with names, never values. */
MU_MUST_USE int mu_environment_snapshot(struct mu_buf *dst, const struct mu_env_view *v);

/* Whether a list of globs separated by commas (NULL or empty: any) admits an image. */
bool mu_image_allowed(const char *globs, mu_bytes image);

struct mu_env_read {
    struct mu_read read;
    struct mu_environments *envs;
    bool admin;
    mu_bytes org_id;
    struct mu_id id; /* get */
    bool list;
    unsigned limit;      /* list: 1..200 */
    struct mu_id cursor; /* list: text[0] == 0 = first page */
    int (*each)(
        void *arg,
        const struct mu_env_view *v); /* reader thread; values only in a single get by the owner;
                                         1 in a list: the page is full with this one */
    void *arg;
    void (*done)(struct mu_env_read *op, int result); /* get: MU_E_NOT_FOUND */
    void *ctx;
    struct mu_arena arena; /* initialised by us, freed before done() */
    /* out */
    unsigned count;
    bool more;
    char next[MU_ID_LEN + 1];
};
MU_MUST_USE int mu_environment_read(struct mu_environments *e, struct mu_env_read *op);

/* --- variables of one session: sealed here, stored by app/sessions --- */
/* Fills id and value of `ret` from the arena. -ENOMEM, MU_E_TOO_LARGE. */
MU_MUST_USE int mu_environment_seal(struct mu_environments *e, struct mu_arena *a, mu_bytes clear,
                                    struct mu_sealed_var *ret);
/* Opens all of a session's, in the order of their names. */
struct mu_session_vars {
    struct mu_read read;
    struct mu_environments *envs;
    mu_bytes org_id; /* of the session */
    struct mu_id session;
    int (*each)(void *arg, mu_bytes name, mu_bytes value); /* reader thread */
    void *arg;
    void (*done)(struct mu_session_vars *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_vars_read(struct mu_environments *e, struct mu_session_vars *op);

#endif
