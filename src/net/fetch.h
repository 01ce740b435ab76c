/* Outbound HTTP(S) on libcurl's multi interface in socket-action mode on one loop (stack.md 6):
 * http and https only, no redirects, TLS verified, HTTPS_PROXY/NO_PROXY honoured, connections
 * reused. */
#ifndef MU_NET_FETCH_H
#define MU_NET_FETCH_H

#include "base/bytes.h"
#include "io/loop.h"

/* Why a fetch ended. */
enum mu_fetch_end {
    MU_FETCH_OK,      /* the whole answer arrived (any status) */
    MU_FETCH_CONNECT, /* refused, unreachable, name not found, no connection within connect_ms:
                         nothing was sent */
    MU_FETCH_TLS,
    MU_FETCH_TIMEOUT, /* before the first byte of the answer */
    MU_FETCH_STALLED, /* no byte for idle_ms after it began, or total_ms passed */
    MU_FETCH_BROKEN,  /* the connection ended in the middle, or the framing was wrong */
    MU_FETCH_TOO_LARGE,
    MU_FETCH_ABORTED, /* by abort() or by body_fn() returning < 0 */
    MU_FETCH_FAILED,  /* anything else (bad URL, no memory) */
};

struct mu_fetch_result {
    enum mu_fetch_end end;
    int status;              /* 0 = no status line was seen */
    int64_t first_byte_ms;   /* from the start to the first byte of the answer; -1 = none */
    const char *text;        /* short reason for people, without the URL */
    int64_t retry_after_ms;  /* of the Retry-After header (seconds or date); -1 = none */
    bool event_stream, json; /* by Content-Type */
};

struct mu_fetch_request {
    const char *method; /* "GET", "POST" */
    const char *url;
    const char *const *headers; /* "Name: value", NULL-terminated */
    mu_bytes body;              /* copied */
    /* 0 = none. connect and first_byte count from when a connection is sought (after waiting for
     * max_connections), total from the start. */
    int64_t connect_ms, first_byte_ms, idle_ms, total_ms;
    size_t max_bytes; /* of the answer's body; what fits is handed over. 0 = no limit */
    /* A piece of the body, in order. Return < 0 to abort. May be NULL (then the body is dropped).
     * Only called for the final answer, not for 1xx. `status` is known. */
    int (*body_fn)(void *arg, int status, mu_bytes piece);
    /* Exactly once, never from inside start(); the fetch is gone afterwards. */
    void (*done)(void *arg, const struct mu_fetch_result *result);
    void *arg;
};

struct mu_fetcher;
struct mu_fetch;

/* The seam for outbound HTTP: the real one below, a driven one in the simulator. All on the loop's
 * thread. */
struct mu_fetch_ops {
    /* -ENOMEM, MU_E_INVALID (method or a header with control characters), MU_E_CLOSED. */
    int (*start)(struct mu_fetcher *f, const struct mu_fetch_request *req, struct mu_fetch **ret);
    /* done() follows with MU_FETCH_ABORTED, never from inside abort. Also from body_fn. */
    void (*abort)(struct mu_fetch *fetch);
};
extern const struct mu_fetch_ops mu_fetch_real;

/* `max_connections` in all (0 = no limit). Loop thread. -ENOMEM, MU_E_INVALID. */
MU_MUST_USE int mu_fetcher_new(struct mu_loop *loop, long max_connections, struct mu_fetcher **ret);
/* Aborts what runs (their done() is called first). Loop thread, not from inside a body_fn or done.
 */
struct mu_fetcher *mu_fetcher_free(struct mu_fetcher *f);

#endif
