/* The server: everything it consists of (architecture.md 3). Created in serve.c, never global. */
#ifndef MU_MAIN_SERVER_H
#define MU_MAIN_SERVER_H

#include <pthread.h>

#include "app/domain/domain.h"
#include "app/sessions/checkpoints.h"
#include "face/api/meta.h"
#include "face/fleet/fleet.h"
#include "face/live/live_face.h"
#include "face/oz/oz.h"
#include "face/sessions/sessions.h"
#include "face/web/web.h"
#include "face/worker/worker.h"
#include "main/config.h"
#include "main/embedded.h"

enum { MU_MAX_LOOPS = 64, MU_MAX_INHERITED = 8, MU_MAX_RETIRED = 64 };

/* One look at the free space of the data folder (server_run.c). */
struct mu_disk_look {
    struct mu_timer timer; /* until the next one; core loop */
    struct mu_job job;
    const char *dir;
    int64_t free_mb; /* out; < 0: not known */
};

/* One reload (reload.c): what is read off the loops and taken over, or dropped, as a whole. */
struct mu_reload {
    struct mu_timer again; /* until it may begin; core loop */
    struct mu_job job;
    struct mu_config *next;
    struct mu_tenant_tokens tokens;
    struct mu_buf warnings;
    bool new_admin_key, admin_key_in_file;
    int result;
    struct mu_err err;
};

struct mu_server {
    const struct mu_env *env;
    const struct mu_config_args *args; /* for a reload */
    struct mu_config *conf;            /* replaced whole by a reload */
    struct mu_config *first_conf;      /* what everything was built from: kept to the end */
    struct mu_retired_config { /* of former reloads: requests and units may still use them */
        struct mu_config *conf;
        int64_t at_ms;
    } retired[MU_MAX_RETIRED];
    size_t n_retired;

    struct mu_loop *loops[MU_MAX_LOOPS]; /* own all connections; loops[0] is also the core loop */
    size_t n_loops;
    struct mu_watchdog *watchdog;
    struct mu_work *work; /* blocking jobs: files, private folders */
    struct mu_metrics *metrics;

    struct mu_feed *feed;     /* who wants to know of new events */
    struct mu_writer *writer; /* the one group-committing writer */
    struct mu_readers *readers;
    struct mu_vault *vault; /* at-rest encryption */

    struct mu_fetcher *fetcher; /* outbound HTTP */
    char recordings[1100];
    struct mu_domain d; /* identity, sessions, fleet, providers … */
    struct mu_schedules *schedules;
    struct mu_sweeper *sweeper;
    struct mu_keeper *keeper; /* of checkpoints */

    struct mu_oz oz;               /* the Oz face */
    struct mu_worker_face workers; /* the worker link */
    struct mu_sock_face sockets;   /* the WebSocket of clients */
    struct mu_sess_face sess;      /* the sessions API */
    struct mu_link_rates link_rates;
    struct mu_web web;   /* signing in, and the web app's files */
    char own_url[80];    /* as this machine reaches the main listener; once it listens */
    struct mu_meta meta; /* health, metrics, openapi, keys */
    struct mu_api *api;
    struct mu_http_server *http;
    struct mu_api_listener main_listener, metrics_listener;
    unsigned port;
    int inherited[MU_MAX_INHERITED]; /* sockets of systemd */
    unsigned n_inherited;

    struct mu_embedded *embedded; /* the worker on this machine */
    char *worker_keys;            /* OZ_WORKER_KEYS and its own */

    char scratch[1100]; /* private folders of CLI runs */
    struct mu_disk_look disk;
    struct mu_reload reload;
    atomic_bool disk_low, ready;
    bool db_down;          /* loop 0: its trouble was logged */
    atomic_bool keys_busy; /* a reload or a rotation of the admin key is under way */
    atomic_bool admin_key_in_file;
    bool new_admin_key;

    /* stop: the main thread waits for `over` */
    struct mu_post begin_post;
    struct mu_timer hard_limit;
    int signals;
    bool runs_stopping;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool over;
    int exit_code;
};

/* server.c: builds everything in the order of the floors; nothing runs yet. Worded. */
MU_MUST_USE int mu_server_build(struct mu_server *s, struct mu_err *err);
/* Frees whatever was built, half-built or not; the loops have ended. */
void mu_server_free(struct mu_server *s);
/* server_run.c: starts the loops, recovers, listens; returns when the server has stopped. The exit
 * code. */
int mu_server_run(struct mu_server *s);
/* serve.c: level and format of the log as configured; at start and on reload. */
void mu_server_log_setup(const struct mu_env *env, const struct mu_config *conf);
/* Logs each line, and empties the buffer. */
void mu_server_log_warnings(struct mu_buf *warnings);
/* Where the admin key that was just made is. */
void mu_server_log_new_key(const struct mu_server *s);
/* reload.c: SIGHUP, on the core loop; `arg` is the server. */
void mu_server_on_reload(void *arg, int signum);
/* notify.c: sends `state` ("READY=1") to the service manager, if there is one. */
void mu_notify(const char *state);
/* The listening sockets that the service manager passed to this process, at most `max`; start-up,
 * as it changes the environment. */
unsigned mu_inherited_sockets(int *fds, unsigned max);
/* rotate.c: POST /api/v1/keys/rotate-admin. */
extern const struct mu_route mu_server_routes[];

#endif
