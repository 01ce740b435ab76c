/* `opencode serve` on a loopback port: its requests, one after the other, and its event stream, in
 * the runner's loop (real-parts.md 1). What they mean is exec/agents/opencode.h. */
#ifndef MU_RUNNER_LIVE_SERVE_H
#define MU_RUNNER_LIVE_SERVE_H

#include <poll.h>

#include "exec/agents/opencode.h"
#include "proto/sse.h"
#include "runner/http_stream.h"

enum {
    MU_SERVE_QUEUE = 160, /* requests that wait: a decision each, and some */
    MU_SERVE_QUEUE_BYTES = 32 << 20,
    MU_SERVE_FDS = 2,
};

struct mu_serve_conn {
    int fd;        /* -1: none */
    size_t sent;   /* of what is to be said */
    int64_t until; /* given up then */
    struct mu_http_stream http;
};
struct mu_serve_request {
    enum mu_oc_call call;
    char *text; /* head and body */
    size_t len;
};
struct mu_serve {
    struct mu_oc oc;
    struct mu_live *live;
    char authorization[160];
    unsigned port, listening; /* what it was told, and what it said itself (0 = not yet) */
    int64_t listens_by;
    struct mu_buf line; /* of its standard output */
    /* requests */
    struct mu_serve_request queue[MU_SERVE_QUEUE];
    size_t head, n, bytes;
    struct mu_serve_conn ask;
    struct mu_buf body;
    int64_t not_before;
    int64_t failed_at; /* the oldest one will have no answer: told when the server lives on */
    /* events */
    bool hear; /* wanted */
    struct mu_serve_conn ears;
    struct mu_buf hello; /* the request for the stream */
    struct mu_sse sse;
    int64_t hear_at; /* again, after it ended */
    unsigned deaf;   /* how often in a row */
};

/* Words of the environment for a server that is about to be started: a port and a password of its
 * own. NULL and *ret_error: -errno. */
struct mu_serve *mu_serve_new(struct mu_live *v, const struct mu_acp_options *opt,
                              const char *model, int *ret_error);
struct mu_serve *mu_serve_free(struct mu_serve *s);
/* Between the two a child is started: it alone knows the password. */
void mu_serve_secret(struct mu_serve *s);
void mu_serve_forget(void);

/* Its standard output. */
void mu_serve_said(struct mu_serve *s, mu_bytes b);
/* What to poll for: at most MU_SERVE_FDS, in fds and who (1 the request, 2 the events). */
size_t mu_serve_want(struct mu_serve *s, bool reads, struct pollfd *fds, int *who,
                     int64_t *wait_ms);
void mu_serve_io(struct mu_serve *s, int who);
/* Begins what can be begun, gives up what takes too long. */
void mu_serve_turn(struct mu_serve *s);

#endif
