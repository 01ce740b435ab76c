/* Shared by broker.c, conn.c and dial.c. */
#ifndef MU_EXEC_BROKER_BROKER_INT_H
#define MU_EXEC_BROKER_BROKER_INT_H

#include <uv.h>

#include "base/buf.h"
#include "base/list.h"
#include "exec/broker/broker.h"
#include "exec/broker/policy.h"

enum {
    MU_BROKER_HEAD = 8 << 10,
    MU_BROKER_BUF = 32 << 10,
    MU_BROKER_ADDRS = 16, /* of one name that are tried */
    MU_BROKER_HEAD_MS = 10000,
    MU_BROKER_CONNECT_MS = 10000, /* name and connection together */
    MU_BROKER_IDLE_MS = 2 * 3600 * 1000,
};

struct mu_broker {
    struct mu_broker_settings settings;
    struct mu_loop *loop;
    struct mu_allow allow;
    struct mu_allow_addr allow_addr;
    struct mu_forward forwards[MU_BROKER_FORWARDS];
    size_t n_forwards;
    struct mu_forward upstream; /* .port 0 = none */
};

struct mu_broker_session {
    struct mu_broker *broker;
    struct mu_broker_session_opts opts;
    struct mu_allow allow;
    struct mu_list conns;
    unsigned n_conns;
    int64_t window_ms, window_bytes; /* the hour that is counted */
};

/* One way: what was read from one side and goes to the other. */
struct mu_broker_half {
    struct mu_broker_conn *conn;
    uv_stream_t *from, *to;
    char *buf;       /* MU_BROKER_BUF */
    size_t off, len; /* what of it is not written yet */
    int64_t bytes;
    bool eof, done; /* read to the end; and that was passed on */
    uv_write_t write;
    uv_shutdown_t shutdown;
};

enum mu_broker_phase {
    MU_BR_HEAD,     /* the proxy request is being read */
    MU_BR_CONNECT,  /* name, then connection */
    MU_BR_UPSTREAM, /* the answer of the machine's proxy */
    MU_BR_SNIFF,    /* relaying, but the first bytes from inside wait for the look at the name */
    MU_BR_RELAY,
    MU_BR_ANSWER, /* a refusal is on its way */
    MU_BR_CLOSED,
};

struct mu_broker_conn {
    struct mu_list link;
    struct mu_broker_session *session; /* NULL: it is gone */
    struct mu_loop *loop;
    enum mu_broker_phase phase;
    bool tunnel; /* CONNECT */
    bool forward, via_upstream;
    unsigned handles; /* open ones, and what is under way in the pool */
    uv_pipe_t inner;
    uv_tcp_t outer;
    struct mu_broker_half up, down; /* inside to outside, and back */
    struct mu_timer timer;
    char host[MU_HOST_MAX + 1];
    uint16_t port;
    const char *verdict;
    int64_t started_ms;
    struct mu_buf out; /* our own text to the outside, sent before anything else */
    uv_write_t out_write, answer_write;
    char answer[256];
    /* dial.c */
    uv_work_t work;
    uv_connect_t connect;
    char *(*resolve)(void *arg, const char *host);
    void *resolve_arg;
    char dial_host[MU_HOST_MAX + 1];
    uint16_t dial_port;
    bool any_addr; /* named by the operator: nothing is held against the address */
    struct sockaddr_storage addrs[MU_BROKER_ADDRS];
    size_t n_addrs, addr_at;
    bool found; /* the name had addresses, allowed or not */
};

/* conn.c */
/* Takes over our end of the pair. -ENOMEM or libuv's. */
MU_MUST_USE int mu_broker_conn_new_(struct mu_broker_session *s, int fd,
                                    const struct mu_forward *forward);
/* Closes; the event is told once. */
void mu_broker_conn_close_(struct mu_broker_conn *c);
void mu_broker_conn_unref_(struct mu_broker_conn *c);
/* The proxy's answer, then the end. Before relaying only. */
void mu_broker_refuse_(struct mu_broker_conn *c, int status, const char *why);
/* The connection outside stands. */
void mu_broker_connected_(struct mu_broker_conn *c);
/* dial.c: resolves dial_host, drops what may not be reached, connects. */
void mu_broker_dial_start_(struct mu_broker_conn *c);

#endif
