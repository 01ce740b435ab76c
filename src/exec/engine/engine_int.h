/* Shared by engine.c and call.c. */
#ifndef MU_EXEC_ENGINE_ENGINE_INT_H
#define MU_EXEC_ENGINE_ENGINE_INT_H

#include <sys/socket.h>
#include <uv.h>

#include "base/buf.h"
#include "exec/engine/engine.h"
#include "exec/engine/response.h"

enum {
    MU_ENGINE_READ = 64 << 10,
    MU_ENGINE_UNSENT = 16 << 20,
    MU_ENGINE_ERROR_BODY = 16 << 10,
    MU_ENGINE_BODY = 4 << 20,
    MU_ENGINE_TIMEOUT_MS = 30000,
    MU_ENGINE_CONNECT_MS = 10000,
    MU_ENGINE_MESSAGE = 400,
};

struct mu_engine {
    struct mu_loop *loop;
    char *host; /* as configured */
    char *path; /* of the unix socket, or NULL: */
    char *name; /* TCP */
    char port[8];
    char version[MU_ENGINE_VERSION_LEN];
    bool podman; /* as the ping said */
    unsigned calls;
    bool gone;                /* the last call frees it */
    char buf[MU_ENGINE_READ]; /* for whichever call reads just now */
};

enum mu_engine_stage {
    MU_CALL_PING, /* asks for the version first, on a connection of its own */
    MU_CALL_OWN,
    MU_CALL_OVER, /* done() was called or will not be */
};

struct mu_engine_call {
    struct mu_engine *engine;
    struct mu_engine_request req;
    enum mu_engine_stage stage;
    char *target, *headers; /* copies */
    bool connected, paused, reading, ended /* upload */, writing, write_failed;
    bool again;     /* connect anew when the handle is closed */
    unsigned holds; /* inside a callback of the caller */
    int fail_later; /* for done(), from the timer */
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_pipe_t pipe;
        uv_tcp_t tcp;
    } sock;
    bool open, closing; /* the handle */
    uv_connect_t connect;
    uv_getaddrinfo_t lookup;
    bool looking;
    uv_write_t write;
    struct mu_buf queue, flight; /* to be written; being written */
    struct mu_buf input;         /* the request's body */
    struct mu_timer timer;
    struct mu_response response;
    struct mu_buf body; /* kept one, or the error's */
    char message[MU_ENGINE_MESSAGE];
};

#endif
