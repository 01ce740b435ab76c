/* The life of a connection: states, closing, deadlines. */
#include <sys/socket.h>

#include "net/http_int.h"

#define TO(state) (1u << MU_CONN_##state)

static const unsigned moves[MU_CONN_STATES] = {
    [MU_CONN_IDLE] = TO(HEAD) | TO(FLUSH) | TO(CLOSED),
    [MU_CONN_HEAD] = TO(BODY) | TO(DROP) | TO(WAIT) | TO(SEND) | TO(IDLE) | TO(FLUSH) | TO(CLOSED),
    [MU_CONN_BODY] = TO(WAIT) | TO(CLOSED),
    [MU_CONN_DROP] = TO(IDLE) | TO(SEND) | TO(FLUSH) | TO(CLOSED),
    [MU_CONN_WAIT] = TO(IDLE) | TO(SEND) | TO(STREAM) | TO(FLUSH) | TO(TAKEN) | TO(CLOSED),
    [MU_CONN_SEND] = TO(IDLE) | TO(FLUSH) | TO(CLOSED),
    [MU_CONN_STREAM] = TO(IDLE) | TO(FLUSH) | TO(CLOSED),
    [MU_CONN_FLUSH] = TO(LINGER) | TO(CLOSED),
    [MU_CONN_LINGER] = TO(CLOSED),
    [MU_CONN_TAKEN] = TO(CLOSED),
};

/* A connection that waits for the layer above has no deadline; thousands of streams must not be
 * looked at ten times a second. */
static bool has_deadline(const struct mu_http_conn *c)
{
    bool idle = c->state == MU_CONN_WAIT || c->state == MU_CONN_STREAM || c->state == MU_CONN_TAKEN;
    return !idle || mu_http_waiting(c) > 0;
}

void mu_http_conn_timed(struct mu_http_conn *c)
{
    if (!c->timed && c->state != MU_CONN_CLOSED) {
        c->timed = true;
        mu_list_remove(&c->link);
        mu_list_push(&c->seat->timed, &c->link);
        mu_http_sweep_on(c->seat);
    }
}

void mu_http_conn_state(struct mu_http_conn *c, enum mu_http_state to)
{
    MU_CHECK(moves[c->state] & (1u << to));
    c->state = (uint8_t)to;
    if (to != MU_CONN_CLOSED && has_deadline(c)) {
        mu_http_conn_timed(c);
    }
}

void mu_http_conn_dirty(struct mu_http_conn *c)
{
    if (c->state != MU_CONN_CLOSED && mu_list_empty(&c->dirty)) {
        mu_list_push(&c->seat->dirty, &c->dirty);
    }
}

void mu_http_conn_cut(struct mu_http_conn *c)
{
    c->cut = true;
    mu_http_conn_dirty(c);
}

void mu_http_conn_begin(struct mu_http_conn *c, bool over)
{
    struct mu_http_seat *seat = c->seat;
    c->fresh = c->timed = true;
    c->deadline_ms = mu_loop_now_ms(seat->loop) + seat->server->limits.header_ms;
    mu_list_push(&seat->timed, &c->link);
    mu_http_sweep_on(seat);
    mu_http_read_start(c);
    if (!over || c->cut) {
        return;
    }
    c->req = c->tls ? NULL : mu_http_req_new(c);
    if (!c->req) {
        mu_http_conn_close(c);
        return;
    }
    mu_http_conn_state(c, MU_CONN_HEAD);
    mu_http_malformed(c, 503, "too many connections");
}

/* --- the end --- */

void mu_http_conn_release(struct mu_http_conn *c)
{
    atomic_fetch_sub(&c->seat->server->connections, 1);
    mu_http_drop_output(c);
    if (c->taker) {
        c->taker->freed(c->taker_arg);
    }
    mu_tls_free(c->tls);
    mu_free(c->kept);
    mu_free(c);
}

static void on_closed(uv_handle_t *h)
{
    struct mu_http_conn *c = h->data;
    struct mu_http_seat *seat = c->seat;
    mu_http_conn_release(c);
    mu_http_seat_unref(seat);
}

void mu_http_conn_close(struct mu_http_conn *c)
{
    if (c->state == MU_CONN_CLOSED) {
        return;
    }
    enum mu_http_state was = c->state;
    mu_http_conn_state(c, MU_CONN_CLOSED);
    mu_list_remove(&c->link);
    mu_list_remove(&c->dirty);
    c->tcp.data = c; /* a taker may have put itself there */
    uv_close((uv_handle_t *)&c->tcp, on_closed);
    mu_http_drop_output(c);
    struct mu_http_req *req = c->req;
    c->req = NULL;
    bool quiet = c->seat->dying; /* the layer above may be gone already */
    if (req) {
        req->conn = NULL;
        if (req->answered || was != MU_CONN_WAIT) {
            mu_http_req_free(req);
        } else if (!quiet) {
            mu_http_req_gone(req);
        }
    }
    if (was == MU_CONN_STREAM && !quiet) {
        c->stream.ops->closed(c->stream.arg);
    } else if (was == MU_CONN_TAKEN && !quiet) {
        c->taker->lost(c->taker_arg);
    }
}

int mu_http_conn_take(struct mu_http_req *req, const struct mu_http_taker *taker, void *arg)
{
    struct mu_http_conn *c = req->conn;
    const struct mu_http_ops *ops = &req->seat->server->ops;
    MU_CHECK(mu_loop_here(req->seat->loop) && !req->answered);
    req->answered = true;
    if (!c || c->cut || c->eof) {
        if (c) {
            c->req = NULL;
            mu_http_conn_cut(c);
        }
        mu_http_req_free(req);
        return MU_E_CLOSED;
    }
    if (ops->taken) {
        ops->taken(ops->arg, req);
    }
    mu_http_read_stop(c);
    c->req = NULL;
    mu_http_req_free(req);
    c->taker = taker;
    c->taker_arg = arg;
    mu_http_conn_state(c, MU_CONN_TAKEN);
    mu_http_conn_dirty(c);
    return 0;
}

/* Our side is shut first and the peer's bytes are read away for a while: closing with unread input
 * would reset the connection, and the peer would lose the answer. */
static void linger(struct mu_http_conn *c)
{
    if (c->tls && !c->bye) {
        c->bye = true;
        mu_tls_bye(c->tls);
        mu_http_flush(c);
        if (mu_http_waiting(c) > 0) {
            return;
        }
    }
    uv_os_fd_t fd;
    if (c->eof || c->cut || uv_fileno((uv_handle_t *)&c->tcp, &fd) < 0 ||
        shutdown(fd, SHUT_WR) < 0) {
        mu_http_conn_close(c);
        return;
    }
    c->deadline_ms = mu_loop_now_ms(c->seat->loop) + MU_HTTP_LINGER_MS;
    mu_http_conn_state(c, MU_CONN_LINGER);
    mu_http_read_start(c);
}

/* --- going on --- */

/* The answer is with the kernel: ready for the next request, or to end. */
void mu_http_conn_next(struct mu_http_conn *c)
{
    struct mu_http_server *s = c->seat->server;
    c->fresh = false;
    if (c->eof || c->last || atomic_load_explicit(&s->draining, memory_order_relaxed)) {
        c->last = c->deaf = true;
        mu_http_conn_state(c, MU_CONN_FLUSH);
        mu_http_conn_dirty(c);
        return;
    }
    c->deadline_ms = mu_loop_now_ms(c->seat->loop) + s->limits.idle_ms;
    mu_http_conn_state(c, MU_CONN_IDLE);
    if (c->kept_len > 0) {
        mu_http_conn_dirty(c);
    } else {
        mu_http_read_start(c);
    }
}

static void advance_stream(struct mu_http_conn *c)
{
    struct mu_http_stream *s = &c->stream;
    size_t waiting = mu_http_waiting(c);
    if (s->ended) {
        if (waiting == 0) {
            mu_http_conn_next(c);
            s->ops->closed(s->arg);
        }
    } else if (s->was_full && waiting < c->seat->server->limits.write_soft / 2) {
        s->was_full = false;
        if (s->ops->writable) {
            s->ops->writable(s->arg);
        }
    }
}

void mu_http_conn_advance(struct mu_http_conn *c)
{
    if (!c->cut && c->state != MU_CONN_CLOSED) {
        mu_http_flush(c);
    }
    if (c->cut) {
        mu_http_conn_close(c);
        return;
    }
    switch (c->state) {
    case MU_CONN_SEND:
        if (mu_http_waiting(c) == 0) {
            mu_http_conn_next(c);
        }
        break;
    case MU_CONN_STREAM:
        advance_stream(c);
        break;
    case MU_CONN_FLUSH:
        if (mu_http_waiting(c) == 0) {
            linger(c);
        }
        break;
    case MU_CONN_TAKEN:
        if (mu_http_waiting(c) == 0) {
            c->taker->turn(c->taker_arg);
        }
        break;
    default:
        break;
    }
    if (c->state == MU_CONN_IDLE && c->kept_len > 0 && !c->cut) {
        char *kept = c->kept;
        mu_bytes in = mu_bytes_of(kept, c->kept_len);
        c->kept = NULL;
        c->kept_len = 0;
        mu_http_read_start(c);
        mu_http_input(c, in);
        mu_free(kept);
    }
}

/* --- deadlines --- */

static bool stalled(struct mu_http_conn *c, int64_t now)
{
    if (mu_http_waiting(c) == 0) {
        c->stalling = false;
        return false;
    }
    uint64_t taken = mu_http_taken(c);
    if (!c->stalling || taken != c->stall_mark) {
        c->stalling = true;
        c->stall_mark = taken;
        c->stall_ms = now + c->seat->server->limits.write_stall_ms;
    }
    return now >= c->stall_ms;
}

/* At the end of each window of header_ms: did enough of the body come? */
static bool too_slow(struct mu_http_conn *c, int64_t now)
{
    const struct mu_http_limits *l = &c->seat->server->limits;
    if (now < c->deadline_ms) {
        return false;
    }
    bool slow = (int64_t)c->window * 1000 < l->body_min_rate * l->header_ms;
    c->deadline_ms = now + l->header_ms;
    c->window = 0;
    return slow;
}

void mu_http_conn_check(struct mu_http_conn *c, int64_t now)
{
    if (c->cut || stalled(c, now)) {
        mu_http_conn_close(c);
        return;
    }
    switch (c->state) {
    case MU_CONN_IDLE:
    case MU_CONN_LINGER:
        if (now >= c->deadline_ms) {
            mu_http_conn_close(c);
        }
        break;
    case MU_CONN_HEAD:
        if (now >= c->deadline_ms) {
            mu_http_malformed(c, 408, "the request header took too long");
        }
        break;
    case MU_CONN_BODY:
        if (too_slow(c, now)) {
            mu_http_malformed(c, 408, "the request body came too slowly");
        }
        break;
    case MU_CONN_DROP:
        if (too_slow(c, now)) {
            mu_http_conn_close(c);
        }
        break;
    default:
        if (!has_deadline(c)) {
            c->timed = c->stalling = false;
            mu_list_remove(&c->link);
            mu_list_push(&c->seat->quiet, &c->link);
        }
        break;
    }
}
