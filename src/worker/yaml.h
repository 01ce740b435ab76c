/* The worker's config file (oz-worker.md 7.2): that of the other worker, with our own keys beside.
 * Unknown keys and wrong types are refused, with the line. */
#ifndef MU_WORKER_YAML_H
#define MU_WORKER_YAML_H

#include "base/arena.h"
#include "base/err.h"

enum { MU_WORKER_YAML_MAX = 1 << 20 };

/* NULL, -1 or an empty list where the file says nothing. Lists end with NULL. */
struct mu_worker_yaml {
    const char *worker_id, *idle_on_complete, *backend /* whose block there is */;
    int64_t cleanup /* 0, 1 */, max_concurrent_tasks;
    const char *const *environment; /* "NAME=value", or "NAME" = that of the host */
    /* backend.docker */
    const char *const *volumes;
    const char *docker_host, *pull, *task_network;
    /* backend.direct */
    const char *workspace_root, *target_dir, *oz_path, *setup_command, *teardown_command;
    /* backend.command */
    const char *dispatch_command, *cancel_command, *dispatch_timeout;
    /* ours */
    const char *web_socket_url, *server_root_url, *state_dir, *metrics_listen, *task_timeout,
        *drain_timeout, *output_limit, *sandbox;
    const char *const *labels;
};

/* Texts come from the arena. MU_E_INVALID worded, -ENOMEM. */
MU_MUST_USE int mu_worker_yaml_read(struct mu_arena *a, mu_bytes text, struct mu_worker_yaml *ret,
                                    struct mu_err *err);

#endif
