/* The server's end of the worker link (oz-worker.md 2-4, 16): the WebSocket endpoint in both Go
 * dialects and the native one, and the list of workers. What is decided is decided in app/fleet. */
#ifndef MU_FACE_WORKER_WORKER_H
#define MU_FACE_WORKER_WORKER_H

#include "app/fleet/fleet.h"
#include "base/clip.h"
#include "face/api/api.h"

struct mu_worker_face_opts {
    const struct mu_env *env;
    struct mu_fleet *fleet;
    struct mu_loop *core;
    const char *sidecar_image;   /* NULL = none: `builtin` for native workers */
    const char *server_root_url; /* what a sandbox reaches the server by */
    int64_t heartbeat_ms;        /* told to native workers */
};
/* Hangs on struct mu_oz, the app of all these routes; unchanged once work is given out. */
struct mu_worker_face {
    struct mu_worker_face_opts opts;
};

extern const struct mu_route mu_worker_routes[];
extern const struct mu_route mu_runner_socket_routes[];

/* The figures of a heartbeat; what is not understood of it is passed over. */
void mu_report_take_beat(yyjson_val *data, struct mu_report *r);

/* What ends an attempt: exit code, output, artifacts, link, message, usage. -ENOMEM,
 * MU_E_TOO_LARGE. */
MU_MUST_USE int mu_report_take_end(const struct mu_env *env, yyjson_val *data, struct mu_report *r,
                                   struct mu_clip *captured);

#endif
