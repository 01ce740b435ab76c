/* From what somebody asked for to a session to be created: harness, route, title, stored spec.
 * Shared by the API and by schedules. */
#ifndef MU_APP_DISPATCH_REQUEST_H
#define MU_APP_DISPATCH_REQUEST_H

#include <yyjson.h>

#include "app/providers/config.h"
#include "app/sessions/sessions.h"

struct mu_run_request {
    mu_bytes prompt, title, skill;
    yyjson_val *config;       /* the config object as sent; NULL = none */
    mu_bytes conversation_id; /* ptr NULL = a new one */
    size_t n_images;
    const char *schedule_json; /* {schedule_id, schedule_name, cron_schedule}, or NULL */
    enum mu_source source;
    mu_bytes environment_id; /* trimmed; ptr NULL = none */
    mu_bytes env_snapshot;   /* JSON; ptr NULL = none */
};

/* What cannot be honoured on the path that the request takes: the offending field and why, or NULL
 * when all is well (oz-api.md 15.2: "never dropped"). Literals. */
const char *mu_run_request_refuse(const struct mu_run_request *rq, const char **ret_field);

/* Fills harness, route, model, name, title, skill, prompt, spec, ids of `op` (everything but who,
 * body, key, loop, done). Texts live in the arena or in the request. -ENOMEM. */
MU_MUST_USE int mu_run_request_fill(const struct mu_run_request *rq,
                                    const struct mu_providers_settings *settings,
                                    struct mu_arena *a, struct mu_session_create *op);

#endif
