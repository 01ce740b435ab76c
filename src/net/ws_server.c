/* The server's end: how a connection comes over from HTTP. */
#include <errno.h>

#include "net/http_int.h"
#include "net/ws_int.h"

static struct mu_http_conn *conn_of(struct mu_ws *ws)
{
    return ws->owner;
}

static void host_dirty(struct mu_ws *ws)
{
    mu_http_conn_dirty(conn_of(ws));
}

static void host_close(struct mu_ws *ws)
{
    mu_http_conn_close(conn_of(ws));
}

static const struct mu_ws_host host = {host_dirty, host_close, false};

static void on_drain(void *arg)
{
    struct mu_ws *ws = arg;
    if (ws->on_drain && ws->state == MU_WS_OPEN) {
        ws->on_drain(ws->arg);
    }
    mu_ws_close(ws, MU_WS_GOING_AWAY, "Server shutting down");
}

/* The first turn: HTTP has written all it had. */
static void begin(struct mu_ws *ws)
{
    struct mu_http_conn *c = conn_of(ws);
    char *kept = c->kept;
    size_t kept_len = c->kept_len;
    struct mu_tls *tls = c->tls;
    c->kept = NULL;
    c->kept_len = 0;
    c->tls = NULL;
    ws->wire.scratch = c->seat->in;
    ws->wire.scratch_size = sizeof c->seat->in;
    mu_wire_start(&ws->wire, &c->tcp, tls);
    mu_wire_flush(&ws->wire); /* the answer goes ahead of any pong */
    if (atomic_load(&c->seat->server->draining)) {
        on_drain(ws);
    }
    if (kept_len > 0) {
        mu_ws_input(ws, kept, kept_len);
    }
    mu_free(kept);
    if (c->eof) {
        mu_ws_end(ws, 0);
    }
}

static void on_turn(void *arg)
{
    struct mu_ws *ws = arg;
    if (!ws->wire.tcp) {
        begin(ws);
    }
    mu_ws_turn(ws);
}

static void on_lost(void *arg)
{
    mu_ws_ended(arg);
}

static void on_freed(void *arg)
{
    struct mu_ws *ws = arg;
    mu_timer_clear(&ws->timer);
    mu_wire_fini(&ws->wire);
    mu_free(ws);
}

static const struct mu_http_taker taker = {on_turn, on_drain, on_lost, on_freed};

/* Without a sub-protocol exactly these headers: some clients compare the values as a whole
 * (oz-worker.md 2.1). */
static int push_answer(struct mu_ws *ws, const struct mu_http_head *h, const char *protocol)
{
    char accept[MU_WS_ACCEPT_LEN + 1];
    struct mu_buf b;
    mu_buf_init(&b, 1024);
    int r = mu_ws_answer(mu_http_header(h, "Sec-WebSocket-Key"), accept);
    mu_buf_printf(&b,
                  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                  "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s%s%s\r\n",
                  r < 0 ? "" : accept, protocol ? "Sec-WebSocket-Protocol: " : "",
                  protocol ? protocol : "", protocol ? "\r\n" : "");
    struct mu_wire_node *n = r < 0 || b.failed ? NULL : mu_wire_node(b.len);
    if (n) {
        memcpy(n->data, b.ptr, b.len);
        mu_wire_push(&ws->wire, n);
    }
    mu_buf_fini(&b);
    return n ? 0 : r < 0 ? r : -ENOMEM;
}

int mu_ws_accept_as(struct mu_http_req *req, const char *protocol,
                    const struct mu_ws_limits *limits, const struct mu_ws_ops *ops, void *arg,
                    struct mu_ws **ret)
{
    struct mu_http_conn *c = req->conn;
    struct mu_ws *ws = mu_calloc(1, sizeof *ws);
    if (!ws) {
        return -ENOMEM;
    }
    ws->host = &host;
    ws->owner = c;
    mu_wire_init(&ws->wire, &mu_ws_wire_ops);
    mu_ws_init(ws, req->seat->loop, limits, ops, arg);
    int r = c ? mu_ws_open(ws) : 0;
    if (r == 0 && c) {
        r = push_answer(ws, mu_http_req_head(req), protocol);
    }
    if (r == 0) {
        r = mu_http_conn_take(req, &taker, ws);
    }
    if (r < 0) {
        on_freed(ws);
        return r;
    }
    *ret = ws;
    return 0;
}

int mu_ws_accept(struct mu_http_req *req, const struct mu_ws_limits *limits,
                 const struct mu_ws_ops *ops, void *arg, struct mu_ws **ret)
{
    return mu_ws_accept_as(req, NULL, limits, ops, arg, ret);
}
