/* An open connection, whichever end it is: messages, keep-alive, the close handshake, limits. */
#include "net/ws.h"

#include <errno.h>

#include "base/encode.h"
#include "net/ws_int.h"

const struct mu_ws_limits mu_ws_default_limits = {
    .max_message = 16 * 1024 * 1024,
    .write_hard = 64 * 1024 * 1024,
    .write_stall_ms = 10000,
    .ping_ms = 20000,
    .silence_ms = 75000,
    .probe_ms = 10000,
};

enum { MAX_REASON = MU_WS_CONTROL_MAX - 2 };

static struct mu_ws *of(struct mu_wire *w)
{
    return MU_CONTAINER(w, struct mu_ws, wire);
}

/* Ends the connection at the next turn, with what is to be told. The first word counts. */
static void cut(struct mu_ws *ws, int code, const char *why)
{
    if (ws->cut || ws->state == MU_WS_GONE) {
        return;
    }
    if (ws->state == MU_WS_OPEN || code == MU_WS_CUT) {
        ws->code = (uint16_t)code;
        ws->reason = mu_str(why);
    }
    ws->cut = true;
    mu_wire_deafen(&ws->wire, true);
    ws->host->dirty(ws);
}

/* --- time --- */

static int64_t next_due(const struct mu_ws *ws)
{
    const struct mu_ws_limits *l = &ws->limits;
    int64_t due = INT64_MAX;
    if (ws->stalling) {
        due = ws->stall_ms + l->write_stall_ms;
    }
    if (ws->state == MU_WS_CLOSING || ws->state == MU_WS_LINGER) {
        return MU_MIN(due, ws->close_due_ms);
    }
    if (ws->state != MU_WS_OPEN) {
        return due;
    }
    if (l->ping_ms > 0) {
        due = MU_MIN(due, ws->last_out_ms + l->ping_ms);
    }
    if (ws->probe_at_ms >= 0) {
        due = MU_MIN(due, ws->probe_at_ms + l->probe_ms);
    } else if (l->silence_ms > 0) {
        due = MU_MIN(due, ws->last_in_ms + l->silence_ms);
    }
    return due;
}

/* The timer is only moved forward in time when it goes off: input and output postpone it all the
 * time. */
static int schedule(struct mu_ws *ws)
{
    int64_t due = next_due(ws);
    if (due == INT64_MAX || (mu_timer_is_set(&ws->timer) && ws->timer.due_ms <= due)) {
        return 0;
    }
    return mu_timer_set(&ws->timer, due - mu_loop_now_ms(ws->loop));
}

static void reschedule(struct mu_ws *ws)
{
    if (schedule(ws) < 0) {
        cut(ws, MU_WS_INTERNAL, "out of memory");
    }
}

static bool stalled(struct mu_ws *ws, int64_t now)
{
    uint64_t taken = mu_wire_taken(&ws->wire);
    if (mu_wire_waiting(&ws->wire) == 0) {
        ws->stalling = false;
    } else if (!ws->stalling || taken != ws->stall_mark) {
        ws->stalling = true;
        ws->stall_mark = taken;
        ws->stall_ms = now;
    }
    return ws->stalling && now - ws->stall_ms >= ws->limits.write_stall_ms;
}

static void keep_alive(struct mu_ws *ws, int64_t now)
{
    const struct mu_ws_limits *l = &ws->limits;
    if (ws->probe_at_ms >= 0 && ws->last_in_ms >= ws->probe_at_ms) {
        ws->probe_at_ms = -1;
    }
    if (ws->probe_at_ms >= 0) {
        if (now - ws->probe_at_ms >= l->probe_ms) {
            cut(ws, MU_WS_ABNORMAL, "the peer does not answer");
        }
    } else if (l->silence_ms > 0 && now - ws->last_in_ms >= l->silence_ms) {
        ws->probe_at_ms = now;
        mu_ws_ping(ws);
    }
    if (l->ping_ms > 0 && now - ws->last_out_ms >= l->ping_ms) {
        mu_ws_ping(ws);
    }
}

static void on_timer(struct mu_timer *t)
{
    struct mu_ws *ws = MU_CONTAINER(t, struct mu_ws, timer);
    int64_t now = mu_loop_now_ms(ws->loop);
    if (ws->cut || ws->state == MU_WS_GONE) {
        return;
    }
    if (stalled(ws, now)) {
        cut(ws, MU_WS_CUT, "the peer takes no data");
    } else if (ws->state == MU_WS_OPEN) {
        keep_alive(ws, now);
    } else if (ws->state != MU_WS_ENDING && now >= ws->close_due_ms) {
        cut(ws, ws->code, "");
    }
    if (!ws->cut) {
        reschedule(ws);
    }
}

/* --- sending --- */

static struct mu_wire_node *frame(struct mu_ws *ws, enum mu_ws_opcode op, mu_bytes a, mu_bytes b)
{
    unsigned char head[MU_WS_HEADER_MAX], mask[4];
    const struct mu_env *env = mu_loop_env(ws->loop);
    if (ws->client) {
        env->random(env, mask, sizeof mask);
    }
    size_t at = mu_ws_header(head, op, true, a.len + b.len, ws->client ? mask : NULL);
    struct mu_wire_node *n = mu_wire_node(at + a.len + b.len);
    if (!n) {
        cut(ws, MU_WS_INTERNAL, "out of memory");
        return NULL;
    }
    memcpy(n->data, head, at);
    if (a.len) {
        memcpy(n->data + at, a.ptr, a.len);
    }
    if (b.len) {
        memcpy(n->data + at + a.len, b.ptr, b.len);
    }
    if (ws->client) {
        mu_ws_mask(n->data + at, a.len + b.len, mask, 0);
    }
    ws->last_out_ms = mu_loop_now_ms(ws->loop);
    return n;
}

static size_t soft_limit(const struct mu_ws *ws)
{
    return ws->limits.write_soft ? ws->limits.write_soft : ws->limits.write_hard / 2;
}

/* What the queue costs: small messages must not cost more than they count. */
static size_t cost(const struct mu_ws *ws)
{
    return mu_wire_waiting(&ws->wire) + ws->wire.nodes * sizeof(struct mu_wire_node);
}

static void send_frame(struct mu_ws *ws, enum mu_ws_opcode op, mu_bytes a, mu_bytes b)
{
    MU_CHECK(mu_loop_here(ws->loop));
    if (ws->cut || ws->state != MU_WS_OPEN) {
        return;
    }
    size_t hard = ws->limits.write_hard, used = cost(ws);
    if (a.len > hard || b.len > hard - a.len || used > hard - a.len - b.len) {
        cut(ws, MU_WS_CUT, "the peer takes data too slowly");
        return;
    }
    struct mu_wire_node *n = frame(ws, op, a, b);
    if (n) {
        mu_wire_push(&ws->wire, n);
        ws->was_full = ws->was_full || used + n->len > soft_limit(ws);
    }
}

void mu_ws_send(struct mu_ws *ws, bool text, mu_bytes payload)
{
    send_frame(ws, text ? MU_WS_TEXT : MU_WS_BINARY, payload, MU_B_NONE);
}

void mu_ws_send2(struct mu_ws *ws, bool text, mu_bytes a, mu_bytes b)
{
    send_frame(ws, text ? MU_WS_TEXT : MU_WS_BINARY, a, b);
}

void mu_ws_ping(struct mu_ws *ws)
{
    char count[8];
    uint64_t v = ++ws->pings;
    for (size_t i = sizeof count; i-- > 0; v >>= 8) {
        count[i] = (char)(v & 0xff);
    }
    send_frame(ws, MU_WS_PING, mu_bytes_of(count, sizeof count), MU_B_NONE);
}

/* A close frame behind what is queued. */
static void push_close(struct mu_ws *ws, int code, mu_bytes reason)
{
    char number[2] = {(char)(code >> 8), (char)(code & 0xff)};
    bool none = code == MU_WS_NO_CODE;
    struct mu_wire_node *n =
        frame(ws, MU_WS_CLOSE, mu_bytes_of(number, none ? 0 : 2), none ? MU_B_NONE : reason);
    if (n) {
        mu_wire_push(&ws->wire, n);
    }
}

void mu_ws_close(struct mu_ws *ws, int code, const char *reason)
{
    MU_CHECK(mu_loop_here(ws->loop) && mu_ws_code_ok((unsigned)code));
    if (ws->cut || ws->state != MU_WS_OPEN) {
        return;
    }
    push_close(ws, code, mu_utf8_cut(mu_str(reason), MAX_REASON));
    ws->code = (uint16_t)code;
    ws->reason = MU_B("");
    ws->state = MU_WS_CLOSING;
    ws->close_due_ms = mu_loop_now_ms(ws->loop) + MU_WS_CLOSE_MS;
    reschedule(ws);
}

void mu_ws_abort(struct mu_ws *ws)
{
    MU_CHECK(mu_loop_here(ws->loop));
    if (ws->state != MU_WS_OPEN) {
        ws->code = MU_WS_ABNORMAL;
        ws->reason = MU_B("");
    }
    cut(ws, MU_WS_ABNORMAL, "");
    if (ws->host->close_at_once) {
        ws->host->close(ws);
    }
}

/* --- receiving --- */

/* Our own code if we began; else the peer's, or what it did wrong. */
static void end_with(struct mu_ws *ws, int code, mu_bytes reason, bool echo)
{
    bool began = ws->state == MU_WS_CLOSING;
    if (!began) {
        push_close(ws, code, echo ? MU_B_NONE : reason);
    }
    ws->code = (uint16_t)code;
    ws->reason = reason;
    ws->state = MU_WS_ENDING;
    mu_wire_deafen(&ws->wire, false);
    ws->host->dirty(ws);
}

static void pong(struct mu_ws *ws, mu_bytes payload)
{
    if (ws->state == MU_WS_OPEN && !ws->cut) {
        struct mu_wire_node *n = frame(ws, MU_WS_PONG, payload, MU_B_NONE);
        if (n) {
            mu_wire_push_urgent(&ws->wire, n);
        }
    }
}

static void event(struct mu_ws *ws, enum mu_ws_event ev)
{
    struct mu_ws_parser *p = &ws->parser;
    switch (ev) {
    case MU_WS_EV_DATA:
        if (ws->state == MU_WS_OPEN) {
            ws->ops->data(ws->arg, p->text, p->piece, p->last);
        }
        break;
    case MU_WS_EV_PING:
        pong(ws, p->piece);
        break;
    case MU_WS_EV_CLOSE:
        end_with(ws, p->code, p->piece, true);
        break;
    case MU_WS_EV_ERROR:
        end_with(ws, p->code, mu_str(p->fault), false);
        break;
    default:
        break; /* any byte answers a probe */
    }
}

void mu_ws_input(struct mu_ws *ws, char *ptr, size_t len)
{
    ws->last_in_ms = mu_loop_now_ms(ws->loop);
    while (len > 0 && !ws->wire.deaf) {
        size_t used = 0;
        enum mu_ws_event ev = mu_ws_parse(&ws->parser, ptr, len, &used);
        ptr += used;
        len -= used;
        event(ws, ev);
    }
}

void mu_ws_end(struct mu_ws *ws, int why)
{
    if (ws->state == MU_WS_ENDING && mu_wire_waiting(&ws->wire) > 0) {
        ws->host->dirty(ws); /* it may still read what it is owed */
        return;
    }
    cut(ws, MU_WS_ABNORMAL,
        why == 0               ? "the connection ended without a close frame"
        : why == MU_E_PROTOCOL ? "TLS failed"
        : why == -ENOMEM       ? "out of memory"
                               : "the connection broke");
}

static void wire_input(struct mu_wire *w, char *ptr, size_t len)
{
    mu_ws_input(of(w), ptr, len);
}

static void wire_end(struct mu_wire *w, int why)
{
    mu_ws_end(of(w), why);
}

static void wire_dirty(struct mu_wire *w)
{
    of(w)->host->dirty(of(w));
}

const struct mu_wire_ops mu_ws_wire_ops = {wire_input, wire_end, wire_dirty};

/* --- turns --- */

/* Both close frames are exchanged and ours is with the kernel. A peer that may still be sending
 * would be answered with a reset, which could overtake our close frame: our side is shut and its
 * bytes are read away. */
static void linger(struct mu_ws *ws)
{
    ws->state = MU_WS_LINGER;
    ws->close_due_ms = mu_loop_now_ms(ws->loop) + MU_WS_LINGER_MS;
    if (mu_wire_shut(&ws->wire)) {
        reschedule(ws);
    } else {
        cut(ws, ws->code, "");
    }
}

static void tell_writable(struct mu_ws *ws)
{
    if (ws->was_full && cost(ws) < soft_limit(ws) / 2) {
        ws->was_full = false;
        if (ws->ops->writable) {
            ws->ops->writable(ws->arg);
        }
    }
}

void mu_ws_turn(struct mu_ws *ws)
{
    if (!ws->cut) {
        mu_wire_flush(&ws->wire);
    }
    if (ws->wire.broken) {
        cut(ws, MU_WS_ABNORMAL, "the connection broke");
    }
    bool was = ws->stalling;
    if (!ws->cut && stalled(ws, mu_loop_now_ms(ws->loop))) {
        cut(ws, MU_WS_CUT, "the peer takes no data");
    }
    if (!ws->cut && !was && ws->stalling) {
        reschedule(ws);
    }
    if (!ws->cut && ws->state == MU_WS_ENDING && mu_wire_waiting(&ws->wire) == 0) {
        linger(ws);
    }
    if (ws->cut) {
        ws->host->close(ws);
    } else if (ws->state == MU_WS_OPEN) {
        tell_writable(ws);
    }
}

/* --- life --- */

void mu_ws_init(struct mu_ws *ws, struct mu_loop *loop, const struct mu_ws_limits *limits,
                const struct mu_ws_ops *ops, void *arg)
{
    ws->loop = loop;
    ws->limits = *limits;
    ws->ops = ops;
    ws->arg = arg;
    ws->probe_at_ms = -1;
    ws->reason = MU_B("");
    mu_timer_init(&ws->timer, loop, on_timer);
    mu_ws_parser_init(&ws->parser, !ws->client, limits->max_message);
}

int mu_ws_open(struct mu_ws *ws)
{
    ws->last_in_ms = ws->last_out_ms = mu_loop_now_ms(ws->loop);
    return schedule(ws);
}

void mu_ws_ended(struct mu_ws *ws)
{
    if (ws->state == MU_WS_GONE) {
        return;
    }
    if (!ws->cut && ws->state == MU_WS_OPEN) { /* closed from below */
        ws->code = MU_WS_ABNORMAL;
        ws->reason = MU_B("");
    }
    ws->state = MU_WS_GONE;
    mu_timer_clear(&ws->timer);
    ws->ops->closed(ws->arg, ws->code, ws->reason); /* may ask what did not leave */
    mu_wire_drop(&ws->wire);
}

void mu_ws_flush(struct mu_ws *ws)
{
    if (!ws->cut) {
        mu_wire_flush(&ws->wire);
    }
}

size_t mu_ws_unsent(const struct mu_ws *ws)
{
    return mu_wire_waiting(&ws->wire);
}

/* Also of what was no message: pongs, and what TLS makes of what was sent. */
bool mu_ws_full(struct mu_ws *ws)
{
    bool full = mu_ws_unsent(ws) > soft_limit(ws);
    ws->was_full = ws->was_full || full;
    return full;
}

int64_t mu_ws_last_in_ms(const struct mu_ws *ws)
{
    return ws->last_in_ms;
}

void mu_ws_on_drain(struct mu_ws *ws, void (*fn)(void *arg))
{
    ws->on_drain = fn;
}

struct mu_loop *mu_ws_loop(const struct mu_ws *ws)
{
    return ws->loop;
}
