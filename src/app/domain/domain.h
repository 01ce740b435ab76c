/* The contexts of the domain as one, for who consists of all of them: the server and the library.
 * Made in the order of the arrows between them, and taken down in the opposite one. */
#ifndef MU_APP_DOMAIN_DOMAIN_H
#define MU_APP_DOMAIN_DOMAIN_H

#include "app/dispatch/dispatch.h"
#include "app/environments/environments.h"
#include "app/files/files.h"
#include "app/fleet/fleet.h"
#include "app/live/live.h"

struct mu_domain {
    struct mu_identity *identity;
    struct mu_files *files;
    struct mu_sessions *sessions;
    struct mu_environments *environments;
    struct mu_fleet *fleet;
    struct mu_live *live; /* what runners say and are told */
    struct mu_providers *providers;
    struct mu_dispatch *dispatch;
};

struct mu_domain_opts {
    /* what every context stands on */
    const struct mu_env *env;
    struct mu_loop *core;
    struct mu_work *work;
    struct mu_metrics *metrics;
    struct mu_feed *feed;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_vault *vault;
    /* what several are told */
    int64_t run_max_ms, pending_max_ms, max_tries, tenant_max_running;
    /* what one is told: everything in these but the above and the contexts, which are filled in */
    const char *files_dir;
    struct mu_identity_opts identity;
    struct mu_sessions_opts sessions;
    struct mu_fleet_opts fleet;
    struct mu_live_opts live;
    struct mu_providers_opts providers;
    struct mu_dispatch_opts dispatch;
};

/* Makes them, and reads what they keep in memory; nothing runs yet. Start-up, blocking. Worded.
 * Half made it is taken down like a whole one. */
MU_MUST_USE int mu_domain_new(struct mu_domain *d, struct mu_domain_opts *o, struct mu_db *db,
                              struct mu_err *err);
/* Once the loops have ended, before they are freed: all but what their last connections still name.
 */
void mu_domain_end(struct mu_domain *d);
/* After mu_loop_free(). */
void mu_domain_free(struct mu_domain *d);

#endif
