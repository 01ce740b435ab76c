/* Shared by the files of this context. */
#ifndef MU_APP_DISPATCH_DISPATCH_INT_H
#define MU_APP_DISPATCH_DISPATCH_INT_H

#include "app/dispatch/dispatch.h"
#include "app/sessions/artifacts.h"
#include "base/fair.h"

enum mu_run_phase {
    MU_RUN_QUEUED,   /* in d->queue */
    MU_RUN_WAITING,  /* no candidate has room: in d->waiting */
    MU_RUN_CLAIMING, /* from here on it counts as active */
    MU_RUN_RUNNING,
    MU_RUN_ENDING,
};

/* A session of the provider route that has not ended. */
struct mu_run {
    struct mu_post post; /* from create() on another loop */
    struct mu_dispatch *d;
    struct mu_heap_node node; /* in d->queue */
    struct mu_list link;      /* in d->waiting or d->active */
    struct mu_id id;
    char org_id[MU_ORG_LEN + 1];
    struct mu_tenant *tenant;
    char *harness, *model; /* model as requested, "" = none */
    bool admin;
    enum mu_run_phase phase;
    int64_t queued_ms, epoch, saturated_ms, wake_ms;
    int tries;
    int64_t shown_ms;         /* until when the row says that it waits */
    bool stubborn;            /* waits for the database or for memory: capacity does not help it */
    uint64_t look_no;         /* the look (d->look_no) that it was tried in last */
    uint64_t group;           /* of whoever has the same candidates under the same quotas */
    bool mapped;              /* in d->runs */
    bool cancel;              /* stop was accepted, or the session ended behind our back */
    bool release;             /* shutdown: put back instead of going on */
    unsigned unread;          /* how often its stored input could not be read just then */
    struct mu_exec *x;        /* while active */
    struct mu_provider *last; /* whose call was recorded last; NULL = none in this process */
    /* what was tried so far, over all executions: JSON objects, separated by commas */
    struct mu_buf attempts;
    unsigned n_attempts;
};

struct mu_dispatch {
    struct mu_dispatch_opts opts;
    struct mu_map runs;   /* id -> run */
    struct mu_fair queue; /* by org and age */
    struct mu_list waiting, active;
    size_t n_active, n_waiting;
    struct mu_timer wake;
    struct mu_post pump_post;
    bool pump_posted, started, stopping;
    uint64_t look_no; /* counts the times that something may have become free */
    /* recovery */
    struct mu_recovery *recoveries;
    size_t n_recoveries, recoveries_open;
    void (*ready)(void *arg);
    void *ready_arg;
    /* stop */
    struct mu_timer grace;
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct mu_metric *queued_gauge, *running_gauge, *waiting_gauge;
};

/* The waiting are looked at at least this often: the wall clock may be set. */
enum { MU_LOOK_MS = 60000 };

struct mu_run_name {
    char text[8 + MU_ID_LEN];
};
/* "run_<uuid>": how people and programs know it. */
struct mu_run_name mu_run_name(const struct mu_run *run);
/* queue.c */
MU_MUST_USE int mu_run_new(struct mu_dispatch *d, mu_bytes org_id, mu_bytes harness, mu_bytes model,
                           struct mu_run **ret);
struct mu_run *mu_run_free(struct mu_run *run);
/* By age: the order of one org's runs. */
bool mu_run_older(const struct mu_heap_node *a, const struct mu_heap_node *b);
/* Into d->runs, where a cancel finds it. A run that is not there yet is tried only once it is.
 * -ENOMEM. */
MU_MUST_USE int mu_run_map(struct mu_run *run);
/* Queues a run and pumps; without memory it waits a while. */
void mu_run_enqueue(struct mu_run *run);
/* Out of whatever list it is in; frees it. */
void mu_run_drop(struct mu_run *run);
void mu_run_wait(struct mu_run *run, int64_t wake_ms);
/* Half a second, whatever becomes free: the database or memory was not there. */
void mu_run_wait_retry(struct mu_run *run);
void mu_run_set_active(struct mu_run *run);
void mu_run_set_idle(struct mu_run *run);
/* Starts what may start, at the next turn of the loop. */
void mu_dispatch_pump(struct mu_dispatch *d);
/* exec.c: tries to start a run; else it goes to the waiting list or ends. False when none of its
 * candidates had room at now_ms (wall clock); the run may be gone in either case. */
bool mu_run_try(struct mu_run *run, int64_t now_ms);
void mu_run_abort(struct mu_run *run);
/* Whether another run is just being claimed for this provider under the same quota: the database is
 * asked for one at a time, so that the oldest gets what is free. */
bool mu_dispatch_claiming(struct mu_dispatch *d, const struct mu_provider *pr, const char *org_id);
void mu_dispatch_check_stopped(struct mu_dispatch *d);

#endif
