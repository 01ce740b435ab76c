/* A WebSocket connection (RFC 6455, no extensions) on one loop: the server's end, made from an
 * upgrade request, and the client's. Plain or TLS. One codec, one writer. All calls on the
 * connection's loop. */
#ifndef MU_NET_WS_H
#define MU_NET_WS_H

#include "net/http.h"

struct mu_ws;

struct mu_ws_limits {
    size_t max_message;     /* payload bytes of one message, all fragments; more: close 1009 */
    size_t write_hard;      /* unsent bytes; above it the connection is cut (code 4409) */
    size_t write_soft;      /* above it writable() follows; 0 = half of write_hard */
    int64_t write_stall_ms; /* the peer accepts no byte for so long while some wait: cut */
    int64_t ping_ms; /* a ping (8-byte counter) after so long without sending anything; 0 = never */
    int64_t silence_ms; /* without any inbound byte: a probe ping; 0 = never */
    int64_t probe_ms;   /* and so much later without one: cut (code 1006) */
};
/* 16 MiB, 64 MiB, 10 s, 20 s, 75 s, 10 s (oz-worker.md 2.4, 16). */
extern const struct mu_ws_limits mu_ws_default_limits;

struct mu_ws_ops {
    /* Payload of a data message as it arrives: unmasked, fragments joined, a text message checked
     * as UTF-8 up to here (a piece may end inside a character). `last`: the message is whole; the
     * piece may be empty then. The bytes are valid inside the call; everything may be called from
     * it. Not called any more after mu_ws_close() or mu_ws_abort(). */
    void (*data)(void *arg, bool text, mu_bytes piece, bool last);
    /* Unsent bytes fell below half of write_soft after they had been above it; may be NULL. */
    void (*writable)(void *arg);
    /* Exactly once, never from inside a call of ours: the code and reason that the peer sent (1005:
     * it sent none), or why it was cut: 1006 the stream just ended or the peer does not answer,
     * 1002, 1007, 1009 what the peer did wrong (it was told), 4409 it does not take what is sent,
     * 1011 out of memory. The connection is gone afterwards; inside, mu_ws_unsent() still says how
     * much did not leave. */
    void (*closed)(void *arg, int code, mu_bytes reason);
};

/* --- server --- */
/* Whether a request is a proper upgrade: 0, or the status that refuses it (400 another version, bad
 * key or Upgrade header, 426 no upgrade, 405; oz-worker.md 2.2) and why. With 400 and 426 the
 * answer carries "Sec-WebSocket-Version: 13", with 426 also "Upgrade: websocket". */
int mu_ws_check(const struct mu_http_head *head, const char **ret_why);
/* Answers 101 (exactly the headers that oz-worker.md 2.1 names, no sub-protocol) and takes the
 * connection over from the HTTP layer on its loop; `req` is gone. Bytes that the client sent behind
 * its request are not lost. `ops` and `arg` live until closed(). Only after mu_ws_check() = 0.
 * -ENOMEM: the request is still there and must be answered; MU_E_CLOSED: the peer is gone, so is
 * the request. The connection counts in mu_http_server_connections() and is closed with 1001
 * "Server shutting down" by mu_http_server_drain(). Takes at most 2 KiB while idle (plain). */
MU_MUST_USE int mu_ws_accept(struct mu_http_req *req, const struct mu_ws_limits *limits,
                             const struct mu_ws_ops *ops, void *arg, struct mu_ws **ret);
/* The same; the answer names the sub-protocol (a literal) that the client had offered; NULL = none.
 */
MU_MUST_USE int mu_ws_accept_as(struct mu_http_req *req, const char *protocol,
                                const struct mu_ws_limits *limits, const struct mu_ws_ops *ops,
                                void *arg, struct mu_ws **ret);
/* Called once just before mu_http_server_drain() closes the connection: last words. */
void mu_ws_on_drain(struct mu_ws *ws, void (*fn)(void *arg));

/* --- client --- */
struct mu_ws_connect {
    const char *url;     /* ws://, wss://, http:// or https:// (the same) */
    const char *headers; /* further header lines, each ended by CRLF, or NULL */
    const char *proxy;   /* "host:port" of an HTTP proxy to CONNECT through, or NULL */
    const char *ca_file; /* PEM; NULL = the system's */
    int64_t timeout_ms;  /* for name, TCP, TLS and answer together: 45000 */
    struct mu_ws_limits limits;
    struct mu_ws_ops ops; /* copied; in force once opened() was called */
    void *arg;
    /* Exactly one of the two, never from inside mu_ws_connect(). failed(): status of a refusal (0 =
     * no answer), its Retry-After in ms (-1 = none), a sentence for people; everything is freed. */
    void (*opened)(void *arg, struct mu_ws *ws);
    void (*failed)(void *arg, int status, int64_t retry_after_ms, const char *why);
};
struct mu_ws_dial;
/* -ENOMEM, MU_E_INVALID (URL, proxy). Texts are copied. What is left of a dial or a connection when
 * its loop ends must be ended with mu_ws_dial_abort() or mu_ws_abort(): mu_loop_free() frees it
 * then (and calls closed()). */
MU_MUST_USE int mu_ws_connect(struct mu_loop *loop, const struct mu_ws_connect *opts,
                              struct mu_ws_dial **ret);
/* Before opened() or failed(): neither is called then. Returns NULL. */
struct mu_ws_dial *mu_ws_dial_abort(struct mu_ws_dial *d);

/* --- both --- */
/* One whole message in one frame (the client masks). What is sent in one loop turn goes out in one
 * write. Pongs go ahead of queued data; each ping gets one, but for those of a flood (2 KiB of
 * pongs that wait), where the newest do. Copies. Silently dropped after close. */
void mu_ws_send(struct mu_ws *ws, bool text, mu_bytes payload);
/* The same for a payload in two parts (header and bytes of a binary frame). */
void mu_ws_send2(struct mu_ws *ws, bool text, mu_bytes a, mu_bytes b);
/* Sends a close frame behind what is queued, waits at most 5 s for the peer's; closed() follows
 * with the peer's code, or this one. `reason` at most 123 bytes. */
void mu_ws_close(struct mu_ws *ws, int code, const char *reason);
/* Drops the connection without a word; closed() follows (1006). */
void mu_ws_abort(struct mu_ws *ws);
/* A ping now (probe); any inbound byte afterwards is its answer: see mu_ws_last_in_ms(). */
void mu_ws_ping(struct mu_ws *ws);
/* Gives the kernel now what it takes, instead of when the loop turn ends. */
void mu_ws_flush(struct mu_ws *ws);
size_t mu_ws_unsent(const struct mu_ws *ws);
/* More waits than write_soft: if so, writable() follows. */
bool mu_ws_full(struct mu_ws *ws);
/* Loop time of the last inbound byte. */
int64_t mu_ws_last_in_ms(const struct mu_ws *ws);
struct mu_loop *mu_ws_loop(const struct mu_ws *ws);

#endif
