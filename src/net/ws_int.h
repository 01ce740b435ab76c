/* What the files of the WebSocket connection share.
 *
 *   ws ── wire (socket, TLS, queue)
 *     └── host: who owns the handle; the HTTP server's connection, or a client's object */
#ifndef MU_NET_WS_INT_H
#define MU_NET_WS_INT_H

#include "net/wire.h"
#include "net/ws.h"
#include "proto/ws.h"

enum {
    MU_WS_CLOSE_MS = 5000,  /* wait for the peer's close frame after ours */
    MU_WS_LINGER_MS = 2000, /* and for the end of its side after both */
    MU_WS_CUT = 4409,       /* the peer does not take what is sent */
    MU_WS_ACCEPT_LEN = 28,  /* characters of Sec-WebSocket-Accept */
    MU_WS_HEAD = 16 * 1024, /* bytes of an answer's header block */
};

enum mu_ws_state {
    MU_WS_OPEN,
    MU_WS_CLOSING, /* our close frame is out or queued; the peer's is not there */
    MU_WS_ENDING,  /* both are, or one will never come: what is queued goes out */
    MU_WS_LINGER,  /* our side is shut; waits for the peer's */
    MU_WS_GONE,
};

struct mu_ws_host {
    void (*dirty)(struct mu_ws *ws); /* asks for mu_ws_turn() before the loop waits */
    void (*close)(struct mu_ws *ws); /* closes the handle; mu_ws_ended() follows */
    bool close_at_once; /* … never from inside close(): it may be called in any place */
};

struct mu_ws {
    struct mu_wire wire;
    const struct mu_ws_host *host;
    void *owner; /* the host's object */
    struct mu_loop *loop;
    const struct mu_ws_ops *ops;
    void (*on_drain)(void *arg); /* or NULL */
    void *arg;
    struct mu_ws_limits limits;
    struct mu_ws_parser parser;
    struct mu_timer timer;
    int64_t last_in_ms, last_out_ms;
    int64_t probe_at_ms;        /* a probe is out since; -1 = none */
    int64_t close_due_ms;       /* CLOSING, LINGER */
    int64_t stall_ms;           /* output waits, and nothing was taken, since */
    uint64_t stall_mark, pings; /* bytes taken by then; counter of our pings */
    mu_bytes reason;            /* for closed(): literal, or in the parser */
    uint16_t code;
    uint8_t state;
    bool client, stalling, was_full, cut;
};

/* ws.c */
void mu_ws_init(struct mu_ws *ws, struct mu_loop *loop, const struct mu_ws_limits *limits,
                const struct mu_ws_ops *ops, void *arg);
/* The connection is open: keep-alive runs. -ENOMEM */
MU_MUST_USE int mu_ws_open(struct mu_ws *ws);
void mu_ws_input(struct mu_ws *ws, char *ptr, size_t len);
void mu_ws_end(struct mu_ws *ws, int why);
void mu_ws_turn(struct mu_ws *ws);
/* The handle is closed, or closing: tells the layer above. */
void mu_ws_ended(struct mu_ws *ws);
extern const struct mu_wire_ops mu_ws_wire_ops;

/* ws_shake.c */
/* The value that answers a key; `dst` gets a NUL. -ENOMEM */
MU_MUST_USE int mu_ws_answer(mu_bytes key, char dst[MU_WS_ACCEPT_LEN + 1]);
/* Whether a comma-separated header value has the token; ASCII case is ignored. */
bool mu_ws_has_token(mu_bytes list, const char *token);

#endif
