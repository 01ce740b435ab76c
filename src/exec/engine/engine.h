/* Client of the Docker Engine API (Docker, Podman): HTTP/1.1 over a unix socket, or plain TCP to an
 * address that the operator named. One connection a call. Bodies stream both ways with
 * back-pressure. Loop thread for all of it; nothing blocks it. */
#ifndef MU_EXEC_ENGINE_ENGINE_H
#define MU_EXEC_ENGINE_ENGINE_H

#include "base/bytes.h"
#include "io/loop.h"

struct mu_engine;
struct mu_engine_call;

/* `host`: "unix:///path", "/path", "tcp://host:port" or "http://host:port" (no TLS). Looks at
 * nothing yet. Worded. */
MU_MUST_USE int mu_engine_new(struct mu_loop *loop, const char *host, struct mu_engine **ret,
                              struct mu_err *err);
/* When every call is done or cancelled. Returns NULL. */
struct mu_engine *mu_engine_free(struct mu_engine *e);
const char *mu_engine_host(const struct mu_engine *e);
/* "1.43"; "" before the first answer. Calls negotiate it by themselves and again after the engine
 * could not be reached. */
const char *mu_engine_version(const struct mu_engine *e);

/* As the last ping said. Its followed logs lose lines that are written in a hurry. */
bool mu_engine_is_podman(const struct mu_engine *e);

enum { MU_ENGINE_VERSION_LEN = 8 };
/* The version to speak with an engine that answers the ping with `api_version`: its own, but at
 * most 1.47. MU_E_VERSION below 1.40, MU_E_INVALID. */
MU_MUST_USE int mu_engine_negotiate(mu_bytes api_version, char ret[MU_ENGINE_VERSION_LEN]);

/* How a call ended. The texts are valid inside done(). */
struct mu_engine_result {
    int result;          /* 0: there is an answer, whatever its status; else -errno, MU_E_TIMEOUT,
                            MU_E_CLOSED, MU_E_PROTOCOL, MU_E_VERSION, or what on_body returned */
    int status;          /* 0 without an answer */
    mu_bytes body;       /* of a 2xx answer without on_body */
    const char *message; /* what went wrong, one line; NULL when nothing did */
};

struct mu_engine_request {
    const char *method;
    const char *path;    /* "/containers/json?all=1"; the version goes in front */
    const char *headers; /* "Name: value\r\n" lines, or NULL */
    const char *type;    /* of the body */
    mu_bytes body;       /* copied */
    /* Streamed body: called when the connection stands and whenever all that was sent is gone,
     * until mu_engine_send_end(). Must send, end, or see to it that somebody does later. */
    void (*on_writable)(void *arg, struct mu_engine_call *call);
    /* A piece of the body of a 2xx answer. Negative: gives up with it. NULL = kept for done(). */
    int (*on_body)(void *arg, mu_bytes piece);
    size_t max_body;    /* of what is kept: 4 MiB when 0 */
    int64_t timeout_ms; /* without any progress; 0 = 30 s, negative = none once connected */
    void (*done)(void *arg, const struct mu_engine_result *result); /* exactly once, never from
                                                                       inside a call of ours */
    void *arg;
};
/* -ENOMEM, or what libuv refused. *ret is valid until done() or cancel. */
MU_MUST_USE int mu_engine_start(struct mu_engine *e, const struct mu_engine_request *req,
                                struct mu_engine_call **ret);
/* Closes the connection; done() is not called. Accepts NULL. Returns NULL. */
struct mu_engine_call *mu_engine_cancel(struct mu_engine_call *c);

/* Streamed body. Copied; -ENOMEM, MU_E_TOO_LARGE (16 MiB wait already). */
MU_MUST_USE int mu_engine_send(struct mu_engine_call *c, mu_bytes piece);
void mu_engine_send_end(struct mu_engine_call *c);
/* Bytes that wait to be written. */
size_t mu_engine_unsent(const struct mu_engine_call *c);
/* The rest of the answer stays with the engine until resume; at most one read (64 KiB) is still
 * handed over after a pause. */
void mu_engine_pause(struct mu_engine_call *c);
void mu_engine_resume(struct mu_engine_call *c);

#endif
