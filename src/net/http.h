/* The HTTP server: listeners on every loop (SO_REUSEPORT), connections that live and die on one
 * loop, plain or TLS, request and response objects, streamed answers with back-pressure. Knows no
 * routes. */
#ifndef MU_NET_HTTP_H
#define MU_NET_HTTP_H

#include "io/loop.h"
#include "net/msg.h"
#include "proto/http1.h"

struct mu_http_server;
struct mu_http_req;

struct mu_http_limits {
    struct mu_http1_limits head;
    int64_t header_ms; /* from the first byte (or accept) to the end of the header block: 10000 */
    int64_t idle_ms;   /* kept-alive connection without a request: 75000 */
    int64_t body_min_rate;  /* bytes/s of a body, looked at every header_ms: 1024; slower is 408 and
                               close */
    size_t max_connections; /* per process: 20000; above it the connection is answered 503 and
                               closed */
    size_t write_soft,
        write_hard; /* unsent bytes of one connection: above soft the writer of a stream is paused
                       (1 MiB); a stream that passes hard is cut (8 MiB) */
    int64_t write_stall_ms; /* no byte accepted by the peer for so long while some wait: closed
                               (60000) */
};
extern const struct mu_http_limits mu_http_default_limits;

/* What the layer above decides when the header block is there. */
struct mu_http_admit {
    size_t max_body; /* larger: 413 (body discarded up to 1 MiB, then Connection: close) */
    bool refuse; /* answer at once with the response already given through mu_http_respond(); the
                    body is discarded */
};

struct mu_http_ops {
    /* Header block complete; decide before any body byte is accepted and before "100 Continue" is
     * sent. Calling mu_http_respond() here and setting refuse = true answers early. Loop thread of
     * the connection. */
    void (*admit)(void *arg, struct mu_http_req *req, struct mu_http_admit *ret);
    /* The whole request is there. Exactly one mu_http_respond() or mu_http_stream() must follow,
     * now or later. */
    void (*request)(void *arg, struct mu_http_req *req);
    /* A message that never became a request (bad framing, 431, 408 …): the body of the error answer
     * is built here, so that errors look the same everywhere. `req` has its arena and loop, but a
     * head only for 413 and a body that failed; the connection is closed after the answer. */
    void (*malformed)(void *arg, struct mu_http_req *req, int status, const char *text);
    void *arg;
    /* Instead of an answer, another protocol takes the connection over (net/ws.h): the last moment
     * of the request. May be NULL. */
    void (*taken)(void *arg, struct mu_http_req *req);
};

struct mu_http_listen {
    const char *host; /* numeric address */
    unsigned port;    /* 0 = any free one */
    int fd; /* >= 0: an inherited listening TCP socket (socket activation), of which copies are
               used; host and port are ignored */
    void *listener_arg; /* shown to the ops as mu_http_listener_arg(req): which listener it came
                           from */
    const char *tls_cert_file, *tls_key_file; /* both or neither; PEM */
};

/* `loops` (1..64) all run or will run; connections are spread over them. `limits` and `ops` are
 * copied, ops->arg must outlive the server. -ENOMEM. */
MU_MUST_USE int mu_http_server_new(struct mu_loop **loops, size_t n_loops,
                                   const struct mu_http_limits *limits,
                                   const struct mu_http_ops *ops, struct mu_http_server **ret);
/* Before the loops start, or on loop 0. Fills *ret_port. Errors are worded (address in use names
 * the address). */
MU_MUST_USE int mu_http_server_listen(struct mu_http_server *s, const struct mu_http_listen *l,
                                      unsigned *ret_port, struct mu_err *err);
/* Reads the certificate files of all listeners again, without using them yet. Blocking; any thread,
 * one at a time, once all listeners are there. When it fails nothing stays prepared. */
MU_MUST_USE int mu_http_server_prepare_tls(struct mu_http_server *s, struct mu_err *err);
/* Puts what was prepared into use for new connections, or (`use` false) forgets it. Any thread. */
void mu_http_server_commit_tls(struct mu_http_server *s, bool use);
/* Stops accepting; idle connections are closed, others answer what they have and close, WebSockets
 * are closed with 1001. Loop 0.
 * `drained` is called on loop 0 when no connection is left or after `grace_ms` (then the rest is
 * cut). */
void mu_http_server_drain(struct mu_http_server *s, int64_t grace_ms, void (*drained)(void *arg),
                          void *arg);
/* After the loops ended, before or after mu_loop_free() (before: the rest goes when the loops are
 * freed). No callback runs any more; requests that were never answered are freed. */
struct mu_http_server *mu_http_server_free(struct mu_http_server *s);
/* Open connections now. Any thread. */
int64_t mu_http_server_connections(const struct mu_http_server *s);

/* --- a request: valid until its response was given and finished; loop thread only --- */
const struct mu_http_head *mu_http_req_head(const struct mu_http_req *req);
/* As it was sent, as far as it came: also of a message that never became a request. */
mu_bytes mu_http_req_target(const struct mu_http_req *req);
mu_bytes mu_http_req_body(const struct mu_http_req *req);
/* Lives as long as the request; at most 64 MiB. */
struct mu_arena *mu_http_req_arena(struct mu_http_req *req);
struct mu_loop *mu_http_req_loop(struct mu_http_req *req);
mu_bytes mu_http_req_peer(const struct mu_http_req *req); /* "127.0.0.1" */
void *mu_http_listener_arg(const struct mu_http_req *req);
/* One pointer of the layer above (its request context, from the arena). */
void mu_http_req_set_ctx(struct mu_http_req *req, void *ctx);
void *mu_http_req_ctx(const struct mu_http_req *req);
/* Monotonic microseconds at which the first byte arrived. */
int64_t mu_http_req_started_us(const struct mu_http_req *req);
/* Called once, on the loop, when the peer went away before the response was given (the response is
 * still due; it reaches a peer that only shut its sending side, else nobody), so that long polls
 * can stop early. Called at once when the peer is gone already. */
void mu_http_req_on_gone(struct mu_http_req *req, void (*fn)(struct mu_http_req *req));

/* The answer. Headers: name/value pairs; Content-Length, Connection and Date are ours. The body is
 * copied or taken: mu_http_respond() copies nothing that fits into one write. HEAD sends no body
 * but its length. After the call `req` is gone once it is written: do not touch it again. */
struct mu_http_pair {
    const char *name; /* literal */
    mu_bytes value;   /* no CR, LF or NUL: such a header is dropped */
};
void mu_http_respond(struct mu_http_req *req, int status, const struct mu_http_pair *headers,
                     size_t n, mu_bytes body);
/* The same; the connection is closed afterwards. */
void mu_http_respond_close(struct mu_http_req *req, int status, const struct mu_http_pair *headers,
                           size_t n, mu_bytes body);

/* --- streamed answers (SSE, downloads): chunked unless `length` >= 0 --- */
struct mu_http_stream_ops {
    void (*writable)(void *arg); /* unsent bytes fell below half of write_soft after
                                    mu_http_stream_full() was true */
    void (*closed)(void *arg);   /* exactly once, when the stream is over for any reason; afterwards
                                    it must not be used */
};
struct mu_http_stream;
/* Sends the header block and frees the request (its arena too): an idle stream costs a few hundred
 * bytes. `ops` and `arg` must live until closed() ran. NULL only if the peer is gone or memory is
 * out: closed() was not and will not be called then. */
struct mu_http_stream *mu_http_stream(struct mu_http_req *req, int status,
                                      const struct mu_http_pair *headers, size_t n, int64_t length,
                                      const struct mu_http_stream_ops *ops, void *arg);
/* Queues a shared message (takes a reference); all that is queued in one loop turn goes out in one
 * write. */
void mu_http_stream_send(struct mu_http_stream *s, struct mu_msg *msg);
/* The same with a copy of the bytes. Without memory, above write_hard or beyond the announced
 * length the connection is cut, and closed() follows. */
void mu_http_stream_write(struct mu_http_stream *s, mu_bytes bytes);
/* Above write_soft: stop, and wait for writable(). */
bool mu_http_stream_full(const struct mu_http_stream *s);
/* Ends the answer properly (last chunk); closed() follows. */
void mu_http_stream_end(struct mu_http_stream *s);
/* Cuts the connection. */
void mu_http_stream_abort(struct mu_http_stream *s);

#endif
