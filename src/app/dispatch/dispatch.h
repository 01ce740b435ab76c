/* The one way in for sessions that are to be executed: those of the worker route go to the fleet
 * (app/fleet), those of the provider route wait here in memory (fair between tenants, FIFO within
 * one) and are executed over their candidates (oz-providers.md 4). The database decides every move;
 * memory proposes. Core loop, but for the calls marked "any loop". */
#ifndef MU_APP_DISPATCH_DISPATCH_H
#define MU_APP_DISPATCH_DISPATCH_H

#include "app/fleet/fleet.h"
#include "app/providers/providers.h"
#include "app/sessions/sessions.h"

struct mu_dispatch;
struct mu_files;

struct mu_dispatch_opts {
    const struct mu_env *env;
    struct mu_loop *core;
    struct mu_sessions *sessions;
    struct mu_providers *providers;
    struct mu_identity *identity;
    struct mu_readers *readers;
    struct mu_files *files; /* input images; may be NULL */
    struct mu_fleet *fleet; /* the worker route; NULL: its sessions only wait */
    struct mu_feed *feed;
    struct mu_metrics *metrics;
    const struct mu_providers_settings *settings;
    int64_t concurrency; /* runs executing at once */
    int64_t max_tries;   /* executions of one session */
    int64_t run_max_ms, pending_max_ms;
    int64_t tenant_max_running; /* 0 = no limit */
};
MU_MUST_USE int mu_dispatch_new(const struct mu_dispatch_opts *opts, struct mu_dispatch **ret);
struct mu_dispatch *mu_dispatch_free(struct mu_dispatch *d);

/* Start-up: reads the live sessions with `db` (blocking, before the loops run), fills the queue,
 * and remembers what an earlier process left running. */
MU_MUST_USE int mu_dispatch_load(struct mu_dispatch *d, struct mu_db *db);
/* Puts what was left running back into the queue (or ends it), then calls `ready` and begins to
 * start runs. */
void mu_dispatch_start(struct mu_dispatch *d, void (*ready)(void *arg), void *arg);

/* mu_session_create() for a run that may be executed here: afterwards it is queued. Any loop. */
MU_MUST_USE int mu_dispatch_create(struct mu_dispatch *d, struct mu_session_create *op);
/* mu_session_cancel(), then the work is really stopped. Any loop. */
MU_MUST_USE int mu_dispatch_cancel(struct mu_dispatch *d, struct mu_session_cancel *op);
/* The sweeper ended it. */
void mu_dispatch_expired(struct mu_dispatch *d, mu_bytes session_id);

/* Output of a running attempt so far, for a viewer that joins (any loop; done() on op->loop). */
struct mu_snapshot {
    struct mu_post post;
    struct mu_dispatch *dispatch;
    struct mu_loop *loop;
    struct mu_id id;
    bool running;          /* out: an attempt is producing output here */
    int64_t epoch, offset; /* out: of the first byte of `text` (0, or where the kept tail begins) */
    struct mu_buf text;    /* out; the caller frees it with mu_buf_fini() */
    struct mu_fleet_snapshot held; /* of a session that a worker holds */
    void (*done)(struct mu_snapshot *op);
    void *ctx;
};
void mu_dispatch_snapshot(struct mu_dispatch *d, struct mu_snapshot *op);

/* Stops starting runs; waits up to `grace_ms` for those that run, aborts the rest and puts them
 * back to the queue; then `stopped`. Calling it again with 0 cuts the grace short. */
void mu_dispatch_stop(struct mu_dispatch *d, int64_t grace_ms, void (*stopped)(void *arg),
                      void *arg);
/* New settings (reload): waiting runs look again. */
void mu_dispatch_reload(struct mu_dispatch *d, const struct mu_providers_settings *settings);

#endif
