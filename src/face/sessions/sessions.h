/* The sessions API (village-control-plane.md 3–5, 12.1): sessions, their events, terminals, turns
 * and approvals below /api/v1. */
#ifndef MU_FACE_SESSIONS_SESSIONS_H
#define MU_FACE_SESSIONS_SESSIONS_H

#include <stdatomic.h>

#include "base/crypt.h"
#include "face/api/api.h"

/* Requests with an approval link, by address (links.c). */
enum { MU_LINK_RATES = 1024 };
struct mu_link_rates {
    int64_t per_minute; /* 0 = no limit */
    _Atomic int64_t at_us[MU_LINK_RATES];
};
/* Takes one request of an address. MU_E_LIMIT: wait. Any thread. */
MU_MUST_USE int mu_link_charge(struct mu_link_rates *rates, mu_bytes peer, int64_t now_us,
                               int64_t *ret_retry_ms);

/* Hangs on struct mu_oz, the app of all these routes; unchanged once the loops run. */
struct mu_sess_face {
    struct mu_vault *vault; /* tags cursors, seals variables */
    struct mu_live *live;   /* NULL: nothing runs here */
    int64_t max_sessions_per_org, default_timeout_min, max_timeout_min, max_queue_min,
        approval_timeout_min, recent_events;
    const char *own_url; /* base of links without PUBLIC_URL; there once the server listens */
    struct mu_link_rates *link_rates;
    bool allow_local_repos, allow_skip_permissions;
};

extern const struct mu_route mu_sess_routes[];
extern const struct mu_route mu_sess_control_routes[];
extern const struct mu_route mu_sess_event_routes[];
extern const struct mu_route mu_sess_result_routes[];
extern const struct mu_route mu_sess_approval_routes[];
extern const struct mu_route mu_sess_link_routes[];
extern const struct mu_route mu_sess_turn_routes[];
extern const struct mu_route mu_sess_fork_routes[];
extern const struct mu_route mu_sess_org_routes[];
/* Component schemas for openapi.json. */
extern const char *const mu_sess_components[];

#endif
