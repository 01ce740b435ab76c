#include "net/wire.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>

#include "base/err.h"

/* What a slow peer did not take at once: libuv holds on to it. */
struct mu_wire_flight {
    uv_write_t req;
    struct mu_wire *wire;
    struct mu_wire_node *node;
};

enum { MAX_IOV = 256 };

void mu_wire_init(struct mu_wire *w, const struct mu_wire_ops *ops)
{
    *w = (struct mu_wire){.ops = ops};
}

/* --- reading --- */

static void on_alloc(uv_handle_t *h, size_t suggested MU_UNUSED, uv_buf_t *buf)
{
    struct mu_wire *w = h->data;
    if (w->scratch) {
        *buf = uv_buf_init(w->scratch, (unsigned)w->scratch_size);
        return;
    }
    char *p = mu_alloc(MU_WIRE_IN_BYTES);
    *buf = uv_buf_init(p, p ? MU_WIRE_IN_BYTES : 0);
}

static void read_stop(struct mu_wire *w)
{
    if (w->reading) {
        uv_read_stop((uv_stream_t *)w->tcp);
        w->reading = false;
    }
}

static void ended(struct mu_wire *w, int why)
{
    read_stop(w);
    if (!w->ended) {
        w->ended = true;
        w->ops->end(w, why);
    }
}

static void tls_input(struct mu_wire *w, mu_bytes cipher)
{
    char plain[MU_WIRE_RECORDS];
    ptrdiff_t n = 0;
    mu_tls_feed(w->tls, cipher);
    while (w->reading && (n = mu_tls_read(w->tls, plain, sizeof plain)) > 0) {
        if (!w->deaf) {
            w->ops->input(w, plain, (size_t)n);
        }
    }
    mu_tls_feed(w->tls, MU_B_NONE);
    w->ops->dirty(w); /* a handshake goes on, or there is an alert that tells what was wrong */
    if (w->reading && n < 0) {
        ended(w, n == MU_E_CLOSED ? 0 : MU_E_PROTOCOL);
    }
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
    struct mu_wire *w = h->data;
    char *own = w->scratch ? NULL : buf->base;
    if (n < 0) {
        ended(w, n == UV_EOF ? 0 : n == UV_ENOBUFS ? -ENOMEM : MU_E_IO);
    } else if (n > 0 && w->reading) {
        if (w->tls) {
            tls_input(w, mu_bytes_of(buf->base, (size_t)n));
        } else if (!w->deaf) {
            w->ops->input(w, buf->base, (size_t)n);
        }
    }
    mu_free(own);
}

void mu_wire_start(struct mu_wire *w, uv_tcp_t *tcp, struct mu_tls *tls)
{
    w->tcp = tcp;
    w->tls = tls;
    tcp->data = w;
    if (uv_read_start((uv_stream_t *)tcp, on_alloc, on_read) < 0) {
        w->broken = true;
        w->ops->dirty(w);
        return;
    }
    w->reading = true;
}

void mu_wire_secure(struct mu_wire *w, struct mu_tls *tls)
{
    w->tls = tls;
    tls_input(w, MU_B_NONE); /* a client speaks first */
}

void mu_wire_deafen(struct mu_wire *w, bool stop)
{
    w->deaf = true;
    if (stop) {
        read_stop(w);
    }
}

/* --- the queue --- */

size_t mu_wire_waiting(const struct mu_wire *w)
{
    size_t n = w->queued + (w->urgent ? w->urgent->len : 0);
    if (w->tls) {
        n += mu_tls_out(w->tls)->len;
    }
    return w->tcp ? n + uv_stream_get_write_queue_size((const uv_stream_t *)w->tcp) : n;
}

uint64_t mu_wire_taken(const struct mu_wire *w)
{
    return w->tcp ? w->handed - uv_stream_get_write_queue_size((const uv_stream_t *)w->tcp) : 0;
}

struct mu_wire_node *mu_wire_node(size_t len)
{
    struct mu_wire_node *n = len < SIZE_MAX / 2 ? mu_alloc(sizeof *n + len) : NULL;
    if (n) {
        n->next = NULL;
        n->len = len;
    }
    return n;
}

void mu_wire_push(struct mu_wire *w, struct mu_wire_node *n)
{
    if (w->head) {
        w->last->next = n;
    } else {
        w->head = n;
    }
    w->last = n;
    w->queued += n->len;
    w->nodes++;
    w->ops->dirty(w);
}

/* What waits becomes one node, so that a peer that asks for much and reads little gets one more
 * node into the queue for each that leaves it. */
void mu_wire_push_urgent(struct mu_wire *w, struct mu_wire_node *n)
{
    struct mu_wire_node *before = w->urgent;
    if (before && before->len + n->len <= MU_WIRE_URGENT) {
        struct mu_wire_node *both = mu_wire_node(before->len + n->len);
        if (both) {
            memcpy(both->data, before->data, before->len);
            memcpy(both->data + before->len, n->data, n->len);
            mu_free(n);
            n = both;
        }
    }
    mu_free(before);
    w->urgent = n;
    w->ops->dirty(w);
}

/* To the first border: in front of everything, or behind the node that is partly gone. */
static void merge_urgent(struct mu_wire *w)
{
    struct mu_wire_node *n = w->urgent;
    if (!n) {
        return;
    }
    w->urgent = NULL;
    struct mu_wire_node **place = w->head && w->head_off > 0 ? &w->head->next : &w->head;
    n->next = *place;
    *place = n;
    if (!n->next) {
        w->last = n;
    }
    w->queued += n->len;
    w->nodes++;
}

static struct mu_wire_node *pop(struct mu_wire *w)
{
    struct mu_wire_node *n = w->head;
    w->head = n->next;
    w->head_off = 0;
    w->nodes--;
    return n;
}

static void consume(struct mu_wire *w, size_t n)
{
    w->queued -= n;
    while (n > 0) {
        size_t rest = w->head->len - w->head_off;
        if (n < rest) {
            w->head_off += n;
            return;
        }
        n -= rest;
        mu_free(pop(w));
    }
}

static unsigned gather(const struct mu_wire *w, uv_buf_t *v, unsigned max, size_t *ret_total)
{
    unsigned n = 0;
    size_t off = w->head_off;
    *ret_total = 0;
    for (struct mu_wire_node *it = w->head; it && n < max; it = it->next) {
        size_t len = MU_MIN(it->len - off, (size_t)INT_MAX / 2);
        v[n++] = uv_buf_init(it->data + off, (unsigned)len);
        *ret_total += len;
        off = 0;
        if (*ret_total > INT_MAX / 4) { /* libuv counts in int */
            break;
        }
    }
    return n;
}

/* --- writing --- */

static void broke(struct mu_wire *w)
{
    w->broken = true;
    w->ops->dirty(w);
}

static size_t try_write(struct mu_wire *w, const uv_buf_t *v, unsigned n)
{
    int r = uv_try_write((uv_stream_t *)w->tcp, v, n);
    if (r < 0) {
        if (r != UV_EAGAIN) {
            broke(w);
        }
        return 0;
    }
    w->handed += (size_t)r;
    return (size_t)r;
}

static void on_written(uv_write_t *req, int status)
{
    struct mu_wire_flight *f = MU_CONTAINER(req, struct mu_wire_flight, req);
    struct mu_wire *w = f->wire;
    w->flight = NULL;
    mu_free(f->node);
    mu_free(f);
    if (uv_is_closing((uv_handle_t *)w->tcp)) {
        return;
    }
    if (status < 0) {
        w->broken = true;
    }
    w->ops->dirty(w);
}

/* Hands a node to libuv, which tells when it is gone. */
static void take_off(struct mu_wire *w, struct mu_wire_node *n, size_t off)
{
    struct mu_wire_flight *f = mu_alloc(sizeof *f);
    if (!f) {
        mu_free(n);
        broke(w);
        return;
    }
    f->wire = w;
    f->node = n;
    /* uv_buf_init() counts in unsigned; the field does not */
    uv_buf_t v = {.base = n->data + off, .len = n->len - off};
    if (uv_write(&f->req, (uv_stream_t *)w->tcp, &v, 1, on_written) < 0) {
        mu_free(n);
        mu_free(f);
        broke(w);
        return;
    }
    w->handed += v.len;
    w->flight = f;
}

static void flush_plain(struct mu_wire *w)
{
    uv_buf_t v[MAX_IOV];
    size_t total;
    while (!w->flight && !w->broken) {
        merge_urgent(w);
        unsigned n = gather(w, v, MAX_IOV, &total);
        if (n == 0) {
            return;
        }
        size_t done = try_write(w, v, n);
        consume(w, done);
        if (done < total && !w->broken) {
            size_t off = w->head_off;
            struct mu_wire_node *head = pop(w);
            w->queued -= head->len - off;
            take_off(w, head, off);
        }
    }
}

/* Whole records from as many nodes as fit, not a record for each node. */
static void encrypt_some(struct mu_wire *w)
{
    char plain[MU_WIRE_RECORDS];
    size_t n = 0, off = w->head_off;
    for (struct mu_wire_node *it = w->head; it && n < sizeof plain; it = it->next) {
        size_t part = MU_MIN(it->len - off, sizeof plain - n);
        memcpy(plain + n, it->data + off, part);
        n += part;
        off = 0;
    }
    if (mu_tls_write(w->tls, mu_bytes_of(plain, n)) < 0) {
        broke(w);
        return;
    }
    consume(w, n);
}

static void write_cipher(struct mu_wire *w, struct mu_buf *out)
{
    uv_buf_t v = {.base = out->ptr, .len = out->len};
    size_t done = try_write(w, &v, 1);
    mu_buf_consume(out, done);
    if (out->len > 0 && !w->broken) {
        struct mu_wire_node *n = mu_wire_node(out->len);
        if (!n) {
            broke(w);
            return;
        }
        memcpy(n->data, out->ptr, out->len);
        mu_buf_consume(out, out->len);
        take_off(w, n, 0);
    }
    if (out->len == 0) {
        mu_buf_fini(out); /* an idle connection keeps none */
    }
}

static void flush_tls(struct mu_wire *w)
{
    struct mu_buf *out = mu_tls_out(w->tls);
    while (!w->flight && !w->broken) {
        merge_urgent(w);
        while (mu_tls_ready(w->tls) && w->head && out->len < MU_WIRE_TLS_AHEAD && !w->broken) {
            encrypt_some(w);
        }
        if (out->len == 0 || w->broken) {
            return;
        }
        write_cipher(w, out);
    }
}

void mu_wire_flush(struct mu_wire *w)
{
    if (!w->tcp) {
        return;
    }
    if (w->tls) {
        flush_tls(w);
    } else {
        flush_plain(w);
    }
}

bool mu_wire_shut(struct mu_wire *w)
{
    uv_os_fd_t fd;
    if (w->tls) {
        mu_tls_bye(w->tls);
        mu_wire_flush(w);
    }
    return !w->broken && !w->ended && w->reading &&
           uv_fileno((const uv_handle_t *)w->tcp, &fd) == 0 && shutdown(fd, SHUT_WR) == 0;
}

void mu_wire_drop(struct mu_wire *w)
{
    while (w->head) {
        mu_free(pop(w));
    }
    w->last = NULL;
    mu_free(w->urgent);
    w->urgent = NULL;
    w->queued = 0;
}

void mu_wire_fini(struct mu_wire *w)
{
    mu_wire_drop(w);
    w->tls = mu_tls_free(w->tls);
}
