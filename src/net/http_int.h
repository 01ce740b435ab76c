/* What the files of the HTTP server share.
 *
 *   server ── one seat per loop ── connections ── at most one request each
 *          └─ listeners (a socket per seat)
 *
 * A connection is closed in one place (mu_http_conn_close) and never while code of the layer above
 * is on the stack: whoever finds out that it must end calls mu_http_conn_cut(), and the seat does
 * the rest before the loop waits again. */
#ifndef MU_NET_HTTP_INT_H
#define MU_NET_HTTP_INT_H

#include <stdatomic.h>
#include <uv.h>

#include "net/http.h"
#include "net/http_local.h"
#include "net/tls.h"

enum {
    MU_HTTP_IN_BYTES = 64 * 1024,   /* scratch for reading, one per loop */
    MU_HTTP_QUIET_BYTES = 4 * 1024, /* read at most, while nothing is expected */
    MU_HTTP_OUT_BYTES = 16 * 1024,  /* scratch for writing, and most that a slow peer has copied */
    MU_HTTP_TLS_AHEAD = 64 * 1024,  /* ciphertext that may wait for the socket */
    MU_HTTP_DISCARD = 1024 * 1024,  /* bytes of a refused body that are read */
    MU_HTTP_LINGER_MS = 2000,       /* wait for the peer's close after ours */
    MU_HTTP_ARENA = 64 * 1024 * 1024,
    MU_HTTP_SPARE = 32, /* request objects kept per loop */
    MU_HTTP_OVER = 64,  /* connections above the limit that still get their 503 */
};

enum mu_http_state {
    MU_CONN_IDLE,   /* between requests */
    MU_CONN_HEAD,   /* in a header block */
    MU_CONN_BODY,   /* in a body */
    MU_CONN_DROP,   /* answered already; reading the refused body away */
    MU_CONN_WAIT,   /* the layer above owes an answer */
    MU_CONN_SEND,   /* answered; not all bytes are with the kernel */
    MU_CONN_STREAM, /* a streamed answer */
    MU_CONN_FLUSH,  /* answered for the last time; not all bytes are with the kernel */
    MU_CONN_LINGER, /* our side is shut; waits for the peer's */
    MU_CONN_TAKEN,  /* another protocol has it (WebSocket) */
    MU_CONN_CLOSED,
    MU_CONN_STATES,
};

/* A piece of output: [chunk head] data [CR LF]. */
struct mu_http_seg {
    void *own; /* freed or unreferenced afterwards */
    const char *data;
    uint32_t len;
    uint8_t kind, chunk_len;
    char chunk[10]; /* "1a2b\r\n"; empty = the data is not a chunk */
};
enum { MU_SEG_STATIC, MU_SEG_HEAP, MU_SEG_MSG };

struct mu_http_flight;

struct mu_http_stream {
    const struct mu_http_stream_ops *ops;
    void *arg;
    int64_t left; /* of the announced length; -1 = none was */
    bool chunked, mute, ended, was_full;
};

/* Who has taken a connection over. It reads and writes by itself from its first turn on, and ends
 * the connection with mu_http_conn_close(). */
struct mu_http_taker {
    void (*turn)(void *arg); /* after mu_http_conn_dirty(), when no byte of HTTP is left to write */
    void (*drain)(void *arg); /* the server ends */
    void (*lost)(void *arg);  /* the connection was closed; not while the server is being freed */
    void (*freed)(void *arg); /* nothing refers to it any more */
};

struct mu_http_conn {
    uv_tcp_t tcp;
    struct mu_list link;  /* seat: timed or quiet */
    struct mu_list dirty; /* seat: dirty */
    struct mu_http_seat *seat;
    struct mu_http_listener *listener;
    struct mu_http_req *req;
    struct mu_tls *tls;
    char *kept; /* input that came before it could be used */
    size_t kept_len;

    struct mu_http_seg *segs; /* output: seg_at .. seg_len */
    uint32_t seg_at, seg_len, seg_cap;
    size_t seg_off;                /* bytes of the first one that are gone */
    size_t queued;                 /* bytes in segs, with their framing */
    struct mu_http_flight *flight; /* the one uv_write() under way */
    uint64_t handed;               /* bytes given to libuv so far */

    int64_t deadline_ms;      /* IDLE, HEAD, LINGER; BODY and DROP: end of the window */
    int64_t stall_ms;         /* when waiting output counts as stalled */
    uint64_t stall_mark;      /* bytes the kernel had taken by then */
    size_t window, discarded; /* body bytes in this window; bytes read away */
    struct mu_http_stream stream;
    const struct mu_http_taker *taker; /* TAKEN */
    void *taker_arg;
    char peer[46];
    uint8_t state;
    bool timed, reading, fresh, busy, eof, cut, deaf, last, stalling, bye;
};

struct mu_http_req {
    struct mu_list link; /* seat: reqs or spare */
    struct mu_http_seat *seat;
    struct mu_http_conn *conn; /* NULL: the peer is gone */
    struct mu_http_listener *listener;
    struct mu_http1 *parser;
    struct mu_arena arena;
    struct mu_buf body;
    bool has_head, answered, gone_told, malformed;
    int64_t started_us;
    struct mu_http_local
        *local; /* it came over no connection: no seat, no listener (http_local.h) */
    void *ctx;
    void (*gone)(struct mu_http_req *req);
    char peer[46];
};

struct mu_http_listener {
    struct mu_list link;
    struct mu_http_server *server;
    void *arg;
    struct mu_tls_conf *tls;
};

/* A listener's socket on one loop. */
struct mu_http_sock {
    uv_tcp_t tcp;
    struct mu_list link;
    struct mu_post post;
    struct mu_http_seat *seat;
    struct mu_http_listener *listener;
    int fd;
    bool starved; /* a connection waits because there was no memory for it */
};

/* What the server has on one loop. */
struct mu_http_seat {
    struct mu_http_server *server;
    struct mu_loop *loop;
    uv_loop_t *uv;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_timer_t sweep, drain;
    struct mu_list timed, quiet, dirty, reqs, spare, socks;
    size_t n_spare;
    struct mu_post setup, drain_post, cut_post;
    atomic_size_t refs; /* posts under way and open handles; the last one frees the seat */
    bool ready, dying, sweeping;
    struct mu_buf head;
    int64_t date_s;
    char date[32];
    char in[MU_HTTP_IN_BYTES], plain[MU_HTTP_OUT_BYTES], out[MU_HTTP_OUT_BYTES];
};

struct mu_http_server {
    struct mu_http_seat **seats;
    size_t n_seats;
    struct mu_http_limits limits;
    struct mu_http_ops ops;
    struct mu_list listeners;
    atomic_int_fast64_t connections;
    atomic_bool draining;
    int64_t drain_until_ms;
    bool drain_cut;
    void (*drained)(void *arg);
    void *drained_arg;
    atomic_size_t refs; /* seats */
};

/* http_server.c */
void mu_http_seat_unref(struct mu_http_seat *seat);
void mu_http_sweep_on(struct mu_http_seat *seat);
const char *mu_http_date(struct mu_http_seat *seat);

/* http_accept.c */
void mu_http_accept(struct mu_http_sock *sock);
void mu_http_socks_close(struct mu_http_seat *seat);

/* http_conn.c */
void mu_http_conn_begin(struct mu_http_conn *c, bool over);
void mu_http_conn_state(struct mu_http_conn *c, enum mu_http_state to);
void mu_http_conn_dirty(struct mu_http_conn *c);
void mu_http_conn_cut(struct mu_http_conn *c);
void mu_http_conn_close(struct mu_http_conn *c);
void mu_http_conn_release(struct mu_http_conn *c); /* its memory, when libuv is done with it */
/* Does what is due: writes, goes on to the next request, ends. */
void mu_http_conn_advance(struct mu_http_conn *c);
void mu_http_conn_next(struct mu_http_conn *c);
void mu_http_conn_check(struct mu_http_conn *c, int64_t now);
void mu_http_conn_timed(struct mu_http_conn *c);
/* The request (which waits for its answer) is gone afterwards. MU_E_CLOSED: the peer is gone. */
MU_MUST_USE int mu_http_conn_take(struct mu_http_req *req, const struct mu_http_taker *taker,
                                  void *arg);

/* http_input.c */
void mu_http_read_start(struct mu_http_conn *c);
void mu_http_read_stop(struct mu_http_conn *c);
void mu_http_input(struct mu_http_conn *c, mu_bytes in);
void mu_http_malformed(struct mu_http_conn *c, int status, const char *text);

/* http_req.c */
struct mu_http_req *mu_http_req_new(struct mu_http_conn *c);
void mu_http_req_free(struct mu_http_req *req);
void mu_http_req_destroy(struct mu_http_req *req);
void mu_http_req_gone(struct mu_http_req *req);

/* http_local.c: gives the answer and frees the request. */
void mu_http_local_answer(struct mu_http_req *req, int status, const struct mu_http_pair *headers,
                          size_t n, mu_bytes body);

/* http_write.c */
size_t mu_http_waiting(const struct mu_http_conn *c); /* bytes the kernel has not taken yet */
void mu_http_send_now(struct mu_http_conn *c, const mu_bytes *parts, size_t n);
void mu_http_push(struct mu_http_conn *c, struct mu_http_seg seg);
void mu_http_flush(struct mu_http_conn *c);
void mu_http_drop_output(struct mu_http_conn *c);
uint64_t mu_http_taken(const struct mu_http_conn *c);

#endif
