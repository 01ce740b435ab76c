/* The Oz API (oz-api.md): routes below /api/v1 for runs, environments, schedules, providers. */
#ifndef MU_FACE_OZ_OZ_H
#define MU_FACE_OZ_OZ_H

#include "app/dispatch/dispatch.h"
#include "app/environments/environments.h"
#include "app/files/files.h"
#include "app/schedules/schedules.h"
#include "face/api/api.h"
#include "io/work.h"

struct mu_sess_face;
struct mu_web;

/* What the handlers reach, filled by main; mu_call_app() of these routes is a pointer to it.
 * Unchanged once the loops run, but for `settings`, which a reload replaces atomically. */
struct mu_oz {
    const struct mu_env *env;
    struct mu_sessions *sessions;
    struct mu_dispatch *dispatch;
    struct mu_fleet *fleet;
    struct mu_environments *environments;
    struct mu_schedules *schedules;
    struct mu_providers *providers;
    struct mu_identity *identity;
    struct mu_files *files;
    struct mu_readers *readers;
    struct mu_work *work;
    struct mu_loop *core;
    _Atomic(const struct mu_providers_settings *) settings;
    bool list_legacy_items, allow_raw_env_image;
    bool tenant_host_network, tenant_nested; /* rights of every tenant (environments) */
    int64_t list_message_bytes;
    const char *image_allowlist; /* globs separated by commas; NULL = any */
    const char *public_url;      /* NULL: no session links of our own */
    int run_source_default;      /* enum mu_source */
    struct mu_metric *sse_clients;
    struct mu_worker_face *workers; /* face/worker */
    struct mu_sock_face *sockets;   /* face/live */
    struct mu_sess_face *sess;      /* face/sessions */
    struct mu_web *web;             /* face/web */
};

/* The routes of all files of this folder, each table ended by {.path = NULL}. */
extern const struct mu_route mu_oz_run_routes[];
extern const struct mu_route mu_oz_agent_routes[];
extern const struct mu_route mu_oz_event_routes[];
extern const struct mu_route mu_oz_file_routes[];
extern const struct mu_route mu_oz_attempt_routes[];    /* with a session token */
extern const struct mu_route mu_oz_checkpoint_routes[]; /* so too */
extern const struct mu_route mu_oz_environment_routes[];
extern const struct mu_route mu_oz_schedule_routes[];
extern const struct mu_route mu_oz_provider_routes[];
/* Component schemas for openapi.json: pairs of name and JSON text, ended by NULL. */
extern const char *const mu_oz_components[];

#endif
