/* `muster worker`: the daemon that holds sandboxes. One outbound WebSocket to a server, several
 * slots, a journal that survives it (oz-worker.md 7, 8, 14-16). */
#ifndef MU_WORKER_WORKER_H
#define MU_WORKER_WORKER_H

#include "exec/sandbox/sandbox.h"

/* Exit codes besides 0 (stopped by a signal), 1 (cannot go on) and 2 (settings). */
enum {
    MU_WORKER_EXIT_REFUSED = 3,
    MU_WORKER_EXIT_GAVE_UP = 4,
    MU_WORKER_EXIT_DEREGISTERED = 5, /* the server wants it no more; what it ran is ended */
};

/* Texts outlive the worker. */
struct mu_worker_conf {
    const char *worker_id, *ws_url, *server_root_url;
    /* What opens the link while the state folder holds no credential; one may be NULL. */
    const char *enrol_token, *api_key;
    const char *session_sharing_url, *idle_on_complete; /* NULL = none */
    const char *proxy, *ca_file;                        /* NULL = none; the system's */
    const char *upstream; /* proxy that sandboxes' connections go through, or NULL */
    const char *state_dir;
    const char *backend; /* auto namespace docker direct command */
    int64_t capacity;    /* 0 = unlimited */
    int64_t task_timeout_ms, drain_timeout_ms, stop_grace_ms;
    int64_t output_limit;
    bool keep_running; /* a stop leaves the sandboxes to the next start */
    int64_t reconnect_max_attempts, reconnect_window_ms;
    const char *const *environment; /* variables of every task, NULL-terminated, or NULL */
    const char *const *labels, *const *features, *const *harnesses; /* the same */
    const char *metrics_host;                                       /* NULL = no listener */
    unsigned metrics_port;
    const char *allow, *allow_addr, *forward; /* exec/broker.h; NULL = none */
    bool ssh_keys;                            /* of the worker's user, for repositories */
    const char *cache_dir; /* mirrors of repositories; NULL = the runner clones */
    enum mu_sandbox_network network;
    struct mu_sandbox_settings sandbox; /* env, state_dir and worker_id are filled in */
};

/* The kinds that this program has, NULL-terminated. */
extern const struct mu_sandbox_ops *const mu_worker_kinds[];
/* Whether `kind` may be asked for; fills the name it has here ("podman" is docker, "process" is
 * direct). */
bool mu_worker_kind(mu_bytes kind, const char **ret);

struct mu_worker;
/* Takes the state folder (0700, made if need be, locked), reads the journal, opens the drivers.
 * Worded errors. */
MU_MUST_USE int mu_worker_open(const struct mu_env *env, const struct mu_worker_conf *conf,
                               struct mu_worker **ret, struct mu_err *err);
/* Runs on this thread until a signal ends it or it gives up: the exit code. */
int mu_worker_run(struct mu_worker *w);
struct mu_worker *mu_worker_close(struct mu_worker *w);

/* What protects on this machine: one report a kind that the settings allow, each told through
 * `each`; blocks for as long as the checks take (at most a minute). Worded errors. */
MU_MUST_USE int mu_worker_check(const struct mu_env *env, const struct mu_worker_conf *conf,
                                void (*each)(void *arg, const struct mu_sandbox_report *report),
                                void *arg, struct mu_err *err);

#endif
