/* The WebSocket of people's clients (village-control-plane.md 8): /api/v1/ws and /ws. */
#ifndef MU_FACE_LIVE_LIVE_FACE_H
#define MU_FACE_LIVE_LIVE_FACE_H

#include <pthread.h>

#include "app/live/live.h"
#include "base/map.h"
#include "face/api/api.h"

struct mu_sock_limits { /* village-control-plane.md 8.1 */
    int64_t ping_ms, silence_ms, auth_ms;
    int64_t max_message, soft_bytes, hard_bytes;
    int64_t max_per_user, max_total, max_subscriptions, per_second;
};

struct mu_sock_face_opts {
    const struct mu_env *env;
    struct mu_identity *identity;
    struct mu_sessions *sessions;
    struct mu_fleet *fleet;
    struct mu_live *live; /* NULL: nothing runs here */
    struct mu_metrics *metrics;
    unsigned recent_events; /* of the snapshot of a session */
    struct mu_sock_limits limits;
};

/* Hangs on struct mu_oz, the app of its routes. */
struct mu_sock_face {
    struct mu_sock_face_opts opts;
    pthread_mutex_t lock;
    struct mu_map users; /* uid -> struct sock_user: connections of each; under the lock */
    struct mu_map hubs;  /* loop and org -> struct mu_hub; each lives on its loop; the map under
                            the lock */
    _Atomic int64_t connections;
    struct mu_metric *clients, *dropped;
};

void mu_sock_face_init(struct mu_sock_face *f, const struct mu_sock_face_opts *opts);
/* When no connection is left. Harmless on a zeroed one. */
void mu_sock_face_fini(struct mu_sock_face *f);

extern const struct mu_route mu_sock_routes[];
/* Component schemas for openapi.json. */
extern const char *const mu_sock_components[];

#endif
