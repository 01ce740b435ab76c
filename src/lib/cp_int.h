/* What the files of the library share.
 *
 *   host threads ── call.c ──┐                        ┌── tell.c ── callbacks of the host
 *                            ├─▶ core loop ── app ────┤
 *   runners of the host ─────┘   (own thread, or      └── runner.c: a worker without a connection
 *                                 turned by the host)
 *
 * An operation goes the way of a request of the server (face/api, face/sessions), so that there is
 * one validation and one envelope; only the socket is left out. */
#ifndef MU_LIB_CP_INT_H
#define MU_LIB_CP_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "app/domain/domain.h"
#include "face/oz/oz.h"
#include "face/sessions/sessions.h"
#include "net/http_local.h"
#include "proto/json.h"

#define MU_CP_BUILDING 1
#include "muster/control_plane.h"

enum {
    MU_CP_QUEUE_BYTES = 64 << 20, /* of a lane: what waits for its callback */
    MU_CP_CALLS = 4096,           /* of mu_cp_submit(): not answered, or not told */
    MU_CP_SAY_BYTES = 16 << 20,   /* of one execution: said and not stored */
    MU_CP_SAYS = 10000,           /* the same in messages */
    MU_CP_ID = 4 + MU_ID_LEN,     /* "ses_…" */
};

static inline mu_bytes mu_cp_in(mu_cp_str s)
{
    return mu_bytes_of(s.ptr, s.ptr ? s.len : 0);
}
static inline mu_cp_str mu_cp_out(mu_bytes b)
{
    return (mu_cp_str){b.ptr, b.len};
}

/* --- tell.c: what waits for the host --- */
struct cp_item {
    struct cp_item *next;
    size_t bytes;
    struct mu_cp_runner *runner; /* of that one, or NULL */
    /* Calls the host, then frees; `drop`: only frees. */
    void (*run)(struct mu_cp *cp, struct cp_item *it);
    void (*drop)(struct cp_item *it);
};

/* Items in their order, one at a time. Own threads: one thread each. */
struct cp_lane {
    struct mu_cp *cp;
    struct cp_item *first, **end;
    size_t bytes;
    bool running, has_thread;
    pthread_t thread, runner_thread; /* runner_thread: who is inside a callback */
    const struct mu_cp_runner *now_runner;
};

struct cp_sub {
    struct cp_sub *next;
    unsigned number, mask, busy; /* busy: callbacks that run */
    bool gone;
    mu_cp_event_fn fn;
    void *user;
};

struct mu_cp {
    struct mu_env env;
    mu_cp_config conf;
    char root[1024], url[1100], recordings[1100], blobs[1100];
    bool temporary; /* `root` goes with the handle */
    _Atomic int64_t now_ms;

    struct mu_loop *loop;
    struct mu_work *work;
    struct mu_metrics *metrics;
    struct mu_feed *feed;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_vault *vault;
    struct mu_domain d;
    struct mu_sweeper *sweeper;
    struct mu_oz oz;
    struct mu_sess_face sess;
    struct mu_api *api;
    struct mu_providers_settings settings;
    struct mu_provider_list no_providers;
    struct mu_principal admin;
    char admin_key[65];

    struct mu_post begin_post, end_post;
    bool ready, over; /* under `lock` */
    int began;        /* the start's result */

    pthread_mutex_t lock; /* the lanes, subscriptions, answers, runners' lists */
    pthread_cond_t changed;
    pthread_mutex_t drive;      /* host-driven: who turns the loop */
    struct cp_lane told, asked; /* events; runners' callbacks and answers of mu_cp_submit() */
    bool lanes_stop, gap;
    bool closed;                /* what the loop and the floors are is going, or gone */
    unsigned inside, submitted; /* who needs them just now; answers that are owed */
    struct cp_sub *subs;
    unsigned next_sub;
    _Atomic unsigned masks; /* of all subscriptions */

    struct mu_list calls;   /* loop: operations without an answer */
    struct mu_list runners; /* under `lock` */
    struct mu_list left;    /* runners that mu_cp_close() closed: callbacks may still name them */
};

void mu_lib_lanes_init(struct mu_cp *cp);
MU_MUST_USE int mu_lib_lanes_start(struct mu_cp *cp);
void mu_lib_lanes_end(struct mu_cp *cp);  /* what waits is told, then the threads end */
void mu_lib_lanes_drop(struct mu_cp *cp); /* frees what is left */
void mu_lib_give(struct mu_cp *cp, struct cp_lane *lane, struct cp_item *it);
/* Whether the lane holds all that it may: what can be left out or asked for again is not given. */
bool mu_lib_full(struct mu_cp *cp, struct cp_lane *lane);
/* Host-driven: tells what waits on the calling thread; whether there was something. */
bool mu_lib_tell(struct mu_cp *cp, struct cp_lane *lane);
/* No callback of that runner runs or will. */
void mu_lib_silence(struct mu_cp *cp, const struct mu_cp_runner *r);
/* The feed's tap. */
void mu_lib_tap(void *arg, mu_bytes stream_id, struct mu_event *e);

/* --- clock.c --- */
void mu_lib_clock_init(struct mu_cp *cp);
/* Host-driven: until `*done` (or, NULL, nothing is left to do at this time). Whether it is. Runs
 * callbacks of runners. */
bool mu_lib_settle(struct mu_cp *cp, const bool *done);
/* Waits until the flag, which is set under `lock`, is; however the loop is driven. False: the host
 * drives, and it needs time to pass. */
bool mu_lib_wait(struct mu_cp *cp, const bool *done);

/* --- open.c --- */
/* The core loop has set a flag that somebody waits for. */
void mu_lib_flag(struct mu_cp *cp, bool *flag);
/* Until mu_lib_leave() nothing of the handle goes, and the loop takes posts; false: it is closed.
 */
MU_MUST_USE bool mu_lib_enter(struct mu_cp *cp);
void mu_lib_leave(struct mu_cp *cp);

/* --- call.c --- */
/* A member of another object as it is. */
void mu_lib_put_member(struct mu_json_w *w, yyjson_val *key, yyjson_val *v);
mu_cp_status mu_lib_status_of(mu_bytes code);
/* What is left when nothing runs any more. */
void mu_lib_calls_drop(struct mu_cp *cp);
extern const struct mu_route *const mu_lib_tables[];
extern const size_t mu_lib_n_tables;

/* --- result.c --- */
/* Reads the envelope; its typed part stays empty. -ENOMEM, MU_E_INVALID */
MU_MUST_USE int mu_lib_result_read(mu_cp_result *result, mu_bytes body);
/* An answer of the library's own. */
void mu_lib_result_set(mu_cp_result *result, mu_cp_status status, const char *message);
/* Of bytes. */
MU_MUST_USE int mu_lib_result_bytes(mu_cp_result *result, mu_bytes body);
/* Fills the typed part of one that has an envelope. -ENOMEM */
MU_MUST_USE int mu_lib_result_type(mu_cp_result *result);

/* --- runner.c --- */
void mu_lib_runners_end(struct mu_cp *cp);  /* closes them */
void mu_lib_runners_drop(struct mu_cp *cp); /* frees those, after the last callback */

#endif
