/* What the files of the WebSocket client share.
 *
 *   dial ── job: name resolution and trusted certificates, on a thread
 *      └── client, one per address that is tried: handles, and the ws that it becomes */
#ifndef MU_NET_WS_CLIENT_INT_H
#define MU_NET_WS_CLIENT_INT_H

#include <netdb.h>

#include "base/arena.h"
#include "net/ws_int.h"

struct mu_ws_client {
    struct mu_ws ws;
    struct mu_ws_ops ops;
    struct mu_ws_dial *dial; /* NULL: open, or given up */
    uv_tcp_t tcp;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_connect_t connect;
    unsigned handles; /* open ones */
    bool open, closing;
};

enum mu_ws_phase {
    MU_DIAL_NAME,
    MU_DIAL_CONNECT,
    MU_DIAL_PROXY, /* waits for the answer to CONNECT */
    MU_DIAL_TLS,
    MU_DIAL_ANSWER,
};

struct mu_ws_job {
    uv_work_t work;
    struct mu_ws_dial *dial; /* NULL: aborted */
    char *host, *ca_file;
    char service[8];
    bool secure;
    int failed; /* of getaddrinfo() */
    struct addrinfo *addrs;
    struct mu_tls_conf *trust;
    struct mu_err err;
};

struct mu_ws_dial {
    struct mu_loop *loop;
    struct mu_ws_connect opts; /* its texts are in the arena */
    struct mu_arena arena;
    const char *host, *peer_host; /* where the WebSocket is; where the socket goes (proxy) */
    unsigned port, peer_port;
    bool secure;
    mu_bytes tunnel, request; /* what is sent; the second one ends in the user's headers */
    char want[MU_WS_ACCEPT_LEN + 1];
    struct mu_buf answer;
    struct mu_ws_job *job;
    struct addrinfo *addrs, *next;
    struct mu_tls_conf *trust;
    struct mu_ws_client *client;
    struct mu_timer timer;
    int64_t deadline_ms;
    enum mu_ws_phase phase;
};

/* ws_client.c: the object around the handles */
MU_MUST_USE int mu_ws_client_new(struct mu_ws_dial *d, struct mu_ws_client **ret);
/* Nothing more is reported to the dial. */
void mu_ws_client_drop(struct mu_ws_client *c);
/* The handshake is done: keep-alive runs, the layer above is told. */
void mu_ws_client_opened(struct mu_ws_client *c);

/* ws_dial.c */
void mu_ws_dial_input(struct mu_ws_dial *d, mu_bytes in);
void mu_ws_dial_end(struct mu_ws_dial *d, int why);
void mu_ws_dial_turn(struct mu_ws_dial *d);

/* ws_answer.c: an answer's header block */
struct mu_ws_reply {
    int status;                      /* 100..599 */
    int64_t retry_after_ms;          /* -1 = none, or not in seconds */
    bool websocket, upgrade, extras; /* Upgrade, Connection; something that was not asked for */
    mu_bytes reason, accept, body;   /* body: what came behind the block */
};
/* 0: filled. -EAGAIN: it goes on. MU_E_PROTOCOL, MU_E_TOO_LARGE. */
MU_MUST_USE int mu_ws_reply_parse(mu_bytes in, struct mu_ws_reply *ret);

#endif
