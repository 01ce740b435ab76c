/* The routes at the root that belong to no dialect (specification README 7.1), and what they and
 * the key routes need of the server. */
#ifndef MU_FACE_API_META_H
#define MU_FACE_API_META_H

#include "face/api/api.h"

/* Filled by main; read on all loops, unchanged once they run. */
struct mu_meta {
    const struct mu_env *env;
    struct mu_identity *identity;
    struct mu_readers *readers;
    struct mu_writer *writer;
    struct mu_metrics *metrics;
    const struct mu_http_server *http; /* may be NULL: no connection gauge then */
    const char *version;               /* "0.1.0" */
    const char *backend;               /* "sqlite" or "postgresql" */
    /* Whether the dispatcher is ready (/readyz); NULL = always. Any loop. */
    bool (*ready)(void *arg, const char **ret_why);
    void *ready_arg;
};

/* /health, /livez, /readyz, /metrics, /openapi.json */
extern const struct mu_route mu_meta_routes[];
/* /api/v1/keys: issued API keys, admin only. */
extern const struct mu_route mu_key_routes[];

#endif
