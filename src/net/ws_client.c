/* The object around a client's handles: its turns, its end. */
#include <errno.h>

#include "net/ws_client_int.h"

enum { TCP_KEEPALIVE_S = 60 };

static struct mu_ws_client *of(struct mu_wire *w)
{
    return MU_CONTAINER(MU_CONTAINER(w, struct mu_ws, wire), struct mu_ws_client, ws);
}

/* --- the host of the ws --- */

static void on_idle(uv_idle_t *h MU_UNUSED)
{
}

static void on_prepare(uv_prepare_t *h)
{
    struct mu_ws_client *c = h->data;
    uv_prepare_stop(&c->prepare);
    uv_idle_stop(&c->idle);
    if (c->open) {
        mu_ws_turn(&c->ws);
    } else if (c->dial) {
        mu_ws_dial_turn(c->dial);
    }
}

/* The idle handle keeps the loop from waiting when this comes after it looked for turns. */
static void host_dirty(struct mu_ws *ws)
{
    struct mu_ws_client *c = ws->owner;
    if (!c->closing) {
        uv_prepare_start(&c->prepare, on_prepare);
        uv_idle_start(&c->idle, on_idle);
    }
}

static void on_handle_closed(uv_handle_t *h)
{
    struct mu_ws_client *c =
        h->type == UV_TCP ? MU_CONTAINER(h, struct mu_ws_client, tcp) : h->data;
    if (--c->handles > 0) {
        return;
    }
    if (c->open) {
        mu_ws_ended(&c->ws);
    }
    mu_wire_fini(&c->ws.wire);
    mu_free(c);
}

static void host_close(struct mu_ws *ws)
{
    struct mu_ws_client *c = ws->owner;
    if (c->closing) {
        return;
    }
    c->closing = true;
    mu_wire_deafen(&ws->wire, true);
    mu_timer_clear(&ws->timer);
    uv_close((uv_handle_t *)&c->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&c->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&c->idle, on_handle_closed);
}

static const struct mu_ws_host host = {host_dirty, host_close, true};

/* --- before it is open --- */

static void wire_input(struct mu_wire *w, char *ptr, size_t len)
{
    struct mu_ws_client *c = of(w);
    if (c->dial) {
        mu_ws_dial_input(c->dial, mu_bytes_of(ptr, len));
    }
}

static void wire_end(struct mu_wire *w, int why)
{
    struct mu_ws_client *c = of(w);
    if (c->dial) {
        mu_ws_dial_end(c->dial, why);
    }
}

static void wire_dirty(struct mu_wire *w)
{
    host_dirty(&of(w)->ws);
}

static const struct mu_wire_ops wire_ops = {wire_input, wire_end, wire_dirty};

int mu_ws_client_new(struct mu_ws_dial *d, struct mu_ws_client **ret)
{
    struct mu_ws_client *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    uv_loop_t *uv = mu_loop_uv(d->loop);
    c->dial = d;
    c->ops = d->opts.ops;
    c->ws.client = true;
    c->ws.host = &host;
    c->ws.owner = c;
    mu_wire_init(&c->ws.wire, &wire_ops);
    mu_ws_init(&c->ws, d->loop, &d->opts.limits, &c->ops, d->opts.arg);
    uv_tcp_init(uv, &c->tcp);
    uv_prepare_init(uv, &c->prepare);
    uv_idle_init(uv, &c->idle);
    c->tcp.data = c->prepare.data = c->idle.data = c;
    c->handles = 3;
    *ret = c;
    return 0;
}

void mu_ws_client_drop(struct mu_ws_client *c)
{
    c->dial = NULL;
    host_close(&c->ws);
}

void mu_ws_client_opened(struct mu_ws_client *c)
{
    c->dial = NULL;
    c->open = true;
    c->ws.wire.ops = &mu_ws_wire_ops;
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, TCP_KEEPALIVE_S);
}
