/* Schedules (oz-api.md 15.5): cron in UTC; the tick and the run it creates are one unit keyed by
 * (schedule, tick time), so a restart cannot fire twice; a tick missed by at most an hour fires
 * once. */
#ifndef MU_APP_SCHEDULES_SCHEDULES_H
#define MU_APP_SCHEDULES_SCHEDULES_H

#include "app/dispatch/dispatch.h"
#include "app/dispatch/request.h"
#include "app/environments/environments.h"
#include "proto/cron.h"

struct mu_schedules;
struct mu_schedules_opts {
    const struct mu_env *env;
    struct mu_loop *core;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_identity *identity;
    struct mu_dispatch *dispatch;
    struct mu_environments *environments;
    const struct mu_providers_settings *settings;
    bool allow_raw_env_image;
    const char *image_allowlist; /* globs separated by commas; NULL = any */
};
MU_MUST_USE int mu_schedules_new(const struct mu_schedules_opts *opts, struct mu_schedules **ret);
/* Begins to fire; core loop. -ENOMEM. */
MU_MUST_USE int mu_schedules_start(struct mu_schedules *s);
/* No further firing; `stopped` on the core loop when none is under way. */
void mu_schedules_stop(struct mu_schedules *s, void (*stopped)(void *arg), void *arg);
/* New settings; core loop. */
void mu_schedules_reload(struct mu_schedules *s, const struct mu_providers_settings *settings);
struct mu_schedules *mu_schedules_free(struct mu_schedules *s);

enum { MU_SCHED_MAX = 1000 }; /* of a tenant */

enum mu_schedule_what {
    MU_SCHED_CREATE,
    MU_SCHED_REPLACE,
    MU_SCHED_PAUSE,
    MU_SCHED_RESUME,
    MU_SCHED_DELETE
};

struct mu_schedule_view {
    mu_bytes id, org_id, creator, name, cron, spec,
        last_error; /* spec: {"prompt":…,"agent_config"?:…} */
    bool enabled;
    int64_t next_ms, last_ms, created_ms, updated_ms;
    /* Not in a list: the environment that its config names, as it is now. env_spec is the stored
     * JSON of a record; an image stands alone. ptr NULL = none, or gone. */
    mu_bytes env_name, env_image, env_spec;
};

/* One write; it and what it points at live until done(). */
struct mu_schedule_write {
    struct mu_unit unit;
    struct mu_schedules *schedules;
    enum mu_schedule_what what;
    const struct mu_principal *who;
    struct mu_id id; /* create: out */
    mu_bytes name, cron_text, spec;
    struct mu_cron cron; /* of cron_text */
    bool enabled;
    /* Called on the writer thread with the row as it is afterwards (not for DELETE). */
    int (*each)(void *arg, const struct mu_schedule_view *v);
    void *arg;
    void (*done)(struct mu_schedule_write *op,
                 int result); /* MU_E_NOT_FOUND; MU_E_INVALID: the cron never matches; MU_E_LIMIT:
                                 the tenant has MU_SCHED_MAX of them */
    void *ctx;
    int64_t now_ms, next_ms;
};
/* As done(), or done() with the same codes. */
MU_MUST_USE int mu_schedule_write(struct mu_schedules *s, struct mu_schedule_write *op);

struct mu_schedule_read {
    struct mu_read read;
    struct mu_schedules *schedules;
    bool admin;
    mu_bytes org_id;
    struct mu_id id; /* text[0] == 0: the list, by name, at most MU_SCHED_MAX */
    int (*each)(void *arg, const struct mu_schedule_view *v); /* reader thread */
    void *arg;
    void (*done)(struct mu_schedule_read *op, int result); /* single: MU_E_NOT_FOUND */
    void *ctx;
    bool foreign;
};
MU_MUST_USE int mu_schedule_read(struct mu_schedules *s, struct mu_schedule_read *op);

#endif
