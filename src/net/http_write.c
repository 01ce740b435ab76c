/* Output of a connection: a queue of pieces that goes out in as few writes as possible. */
#include <limits.h>

#include "net/http_int.h"

/* What a slow peer did not take at once: copied, because libuv holds on to it while the queue
 * changes. */
struct mu_http_flight {
    uv_write_t req;
    struct mu_http_conn *conn;
    size_t len;
    char data[];
};

enum { MAX_IOV = 96, CRLF = 2 };

static size_t seg_size(const struct mu_http_seg *s)
{
    return s->chunk_len ? (size_t)s->chunk_len + s->len + CRLF : s->len;
}

static void seg_done(struct mu_http_seg *s)
{
    if (s->kind == MU_SEG_MSG) {
        mu_msg_unref(s->own);
    } else if (s->kind == MU_SEG_HEAP) {
        mu_free(s->own);
    }
}

/* Bytes that the kernel took, of all that ever went out. */
uint64_t mu_http_taken(const struct mu_http_conn *c)
{
    return c->handed - uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp);
}

size_t mu_http_waiting(const struct mu_http_conn *c)
{
    size_t n = c->queued;
    if (c->flight) {
        n += c->flight->len;
    }
    if (c->tls) {
        n += mu_tls_out(c->tls)->len;
    }
    return n;
}

/* --- the queue --- */

static void trim(struct mu_http_conn *c)
{
    if (c->seg_at == c->seg_len) {
        mu_free(c->segs);
        c->segs = NULL;
        c->seg_at = c->seg_len = c->seg_cap = 0;
    }
}

static bool make_room(struct mu_http_conn *c)
{
    if (c->seg_len < c->seg_cap) {
        return true;
    }
    if (c->seg_at > c->seg_cap / 2) {
        memmove(c->segs, c->segs + c->seg_at, (c->seg_len - c->seg_at) * sizeof *c->segs);
        c->seg_len -= c->seg_at;
        c->seg_at = 0;
        return true;
    }
    uint32_t cap = c->seg_cap ? c->seg_cap * 2 : 4;
    struct mu_http_seg *more = mu_realloc(c->segs, cap * sizeof *more);
    if (!more) {
        return false;
    }
    c->segs = more;
    c->seg_cap = cap;
    return true;
}

/* Takes what the piece owns, also when it fails. Every piece counts with its own size, so that many
 * small ones meet the limit as well. */
void mu_http_push(struct mu_http_conn *c, struct mu_http_seg seg)
{
    size_t limit = c->seat->server->limits.write_hard;
    size_t overhead = (size_t)(c->seg_len - c->seg_at) * sizeof seg;
    bool full = c->state == MU_CONN_STREAM && mu_http_waiting(c) + overhead + seg.len > limit;
    if (c->cut || full || !make_room(c)) {
        seg_done(&seg);
        mu_http_conn_cut(c);
        return;
    }
    c->segs[c->seg_len++] = seg;
    c->queued += seg_size(&seg);
    mu_http_conn_dirty(c);
}

static void push_copy(struct mu_http_conn *c, mu_bytes bytes)
{
    while (bytes.len > 0) {
        mu_bytes piece = mu_bytes_head(bytes, UINT32_MAX / 2);
        char *copy = mu_bytes_dup(piece);
        if (!copy) {
            mu_http_conn_cut(c);
            return;
        }
        mu_http_push(
            c, (struct mu_http_seg){
                   .own = copy, .data = copy, .len = (uint32_t)piece.len, .kind = MU_SEG_HEAP});
        bytes = mu_bytes_from(bytes, piece.len);
    }
}

void mu_http_drop_output(struct mu_http_conn *c)
{
    while (c->seg_at < c->seg_len) {
        seg_done(&c->segs[c->seg_at++]);
    }
    trim(c);
    c->queued = c->seg_off = 0;
}

/* The first n bytes are gone. */
static void consume(struct mu_http_conn *c, size_t n)
{
    c->queued -= n;
    while (n > 0) {
        struct mu_http_seg *s = &c->segs[c->seg_at];
        size_t rest = seg_size(s) - c->seg_off;
        if (n < rest) {
            c->seg_off += n;
            return;
        }
        n -= rest;
        c->seg_off = 0;
        seg_done(s);
        c->seg_at++;
    }
    trim(c);
}

struct gather {
    uv_buf_t v[MAX_IOV];
    unsigned n;
    size_t total, skip;
};

static void gather_part(struct gather *g, const char *ptr, size_t len)
{
    if (g->skip >= len) {
        g->skip -= len;
        return;
    }
    g->v[g->n++] = uv_buf_init((char *)ptr + g->skip, (unsigned)(len - g->skip));
    g->total += len - g->skip;
    g->skip = 0;
}

static void gather_segs(struct mu_http_conn *c, struct gather *g)
{
    g->n = 0;
    g->total = 0;
    g->skip = c->seg_off;
    for (uint32_t i = c->seg_at; i < c->seg_len && g->n + 3 <= MAX_IOV; i++) {
        const struct mu_http_seg *s = &c->segs[i];
        gather_part(g, s->chunk, s->chunk_len);
        gather_part(g, s->data, s->len);
        if (s->chunk_len) {
            gather_part(g, "\r\n", CRLF);
        }
    }
}

/* --- writing --- */

/* Returns how many bytes the kernel took; a broken connection takes none and is cut. */
static size_t try_write(struct mu_http_conn *c, const uv_buf_t *v, unsigned n)
{
    int r = uv_try_write((uv_stream_t *)&c->tcp, v, n);
    if (r < 0) {
        if (r != UV_EAGAIN) {
            mu_http_conn_cut(c);
        }
        return 0;
    }
    c->handed += (size_t)r;
    return (size_t)r;
}

static void on_written(uv_write_t *req, int status)
{
    struct mu_http_flight *f = MU_CONTAINER(req, struct mu_http_flight, req);
    struct mu_http_conn *c = f->conn;
    c->flight = NULL;
    mu_free(f);
    if (uv_is_closing((uv_handle_t *)&c->tcp)) {
        return;
    }
    if (status < 0) {
        mu_http_conn_close(c);
        return;
    }
    mu_http_conn_advance(c);
}

static void take_off(struct mu_http_conn *c, const uv_buf_t *v, unsigned n, size_t total)
{
    size_t want = MU_MIN(total, (size_t)MU_HTTP_OUT_BYTES);
    struct mu_http_flight *f = mu_alloc(sizeof *f + want);
    if (!f) {
        mu_http_conn_cut(c);
        return;
    }
    f->conn = c;
    f->len = 0;
    for (unsigned i = 0; i < n && f->len < want; i++) {
        size_t part = MU_MIN(v[i].len, want - f->len);
        memcpy(f->data + f->len, v[i].base, part);
        f->len += part;
    }
    uv_buf_t all = uv_buf_init(f->data, (unsigned)f->len);
    if (uv_write(&f->req, (uv_stream_t *)&c->tcp, &all, 1, on_written) < 0) {
        mu_free(f);
        mu_http_conn_cut(c);
        return;
    }
    c->handed += f->len;
    c->flight = f;
}

static void out_consume(struct mu_buf *out, size_t n)
{
    mu_buf_consume(out, n);
    if (out->len == 0) {
        mu_buf_fini(out);
    }
}

static void flush_plain(struct mu_http_conn *c)
{
    struct gather g;
    while (!c->flight && !c->cut) {
        gather_segs(c, &g);
        if (g.n == 0) {
            return;
        }
        size_t done = try_write(c, g.v, g.n);
        if (done > 0) {
            consume(c, done);
        }
        if (done < g.total && !c->cut) {
            gather_segs(c, &g);
            take_off(c, g.v, g.n, g.total);
            if (c->flight) {
                consume(c, c->flight->len);
            }
        }
    }
}

static void encrypt(struct mu_http_conn *c, mu_bytes plain)
{
    if (mu_tls_write(c->tls, plain) < 0) {
        mu_http_conn_cut(c);
    }
}

/* Whole records from as many pieces as fit, not a record for each piece. */
static bool encrypt_some(struct mu_http_conn *c)
{
    struct gather g;
    gather_segs(c, &g);
    size_t n = 0;
    for (unsigned i = 0; i < g.n && n < MU_HTTP_OUT_BYTES; i++) {
        size_t part = MU_MIN(g.v[i].len, (size_t)MU_HTTP_OUT_BYTES - n);
        memcpy(c->seat->out + n, g.v[i].base, part);
        n += part;
    }
    if (n == 0) {
        return false;
    }
    encrypt(c, mu_bytes_of(c->seat->out, n));
    consume(c, n);
    return !c->cut;
}

static void flush_out(struct mu_http_conn *c)
{
    struct mu_buf *out = mu_tls_out(c->tls);
    if (out->len == 0 || c->flight) {
        return;
    }
    uv_buf_t v = uv_buf_init(out->ptr, (unsigned)out->len);
    size_t done = try_write(c, &v, 1);
    out_consume(out, done);
    if (out->len > 0 && !c->cut) {
        v = uv_buf_init(out->ptr, (unsigned)out->len);
        take_off(c, &v, 1, out->len);
        if (c->flight) {
            out_consume(out, c->flight->len);
        }
    }
}

static void flush_tls(struct mu_http_conn *c)
{
    while (!c->cut && !c->flight) {
        while (c->queued > 0 && mu_tls_out(c->tls)->len < MU_HTTP_TLS_AHEAD && encrypt_some(c)) {
        }
        if (c->cut || mu_tls_out(c->tls)->len == 0) {
            return;
        }
        flush_out(c);
    }
}

void mu_http_flush(struct mu_http_conn *c)
{
    if (c->tls) {
        flush_tls(c);
    } else {
        flush_plain(c);
    }
    if (!c->cut && mu_http_waiting(c) > 0) {
        mu_http_conn_timed(c); /* somebody must notice when the peer takes no more */
    }
}

/* Encrypts as much as may wait; returns how many bytes that was. */
static size_t send_tls(struct mu_http_conn *c, const mu_bytes *parts, size_t n)
{
    size_t taken = 0, fill = 0;
    for (size_t i = 0; i < n && !c->cut; i++) {
        mu_bytes rest = parts[i];
        while (rest.len > 0 && !c->cut && mu_tls_out(c->tls)->len < MU_HTTP_TLS_AHEAD) {
            mu_bytes piece = mu_bytes_head(rest, MU_HTTP_OUT_BYTES - fill);
            memcpy(c->seat->out + fill, piece.ptr, piece.len);
            fill += piece.len;
            taken += piece.len;
            rest = mu_bytes_from(rest, piece.len);
            if (fill == MU_HTTP_OUT_BYTES) {
                encrypt(c, mu_bytes_of(c->seat->out, fill));
                fill = 0;
            }
        }
        if (rest.len > 0) {
            break;
        }
    }
    if (fill > 0 && !c->cut) {
        encrypt(c, mu_bytes_of(c->seat->out, fill));
    }
    if (!c->cut) {
        flush_out(c);
    }
    return taken;
}

static size_t send_plain(struct mu_http_conn *c, const mu_bytes *parts, size_t n)
{
    uv_buf_t v[4];
    unsigned used = 0;
    MU_CHECK(n <= MU_ARRAY_LEN(v));
    for (size_t i = 0; i < n; i++) {
        if (parts[i].len > 0) {
            v[used++] = uv_buf_init((char *)parts[i].ptr, (unsigned)MU_MIN(parts[i].len, INT_MAX));
        }
    }
    return used ? try_write(c, v, used) : 0;
}

/* Writes at once what the socket takes, and copies only the rest. */
void mu_http_send_now(struct mu_http_conn *c, const mu_bytes *parts, size_t n)
{
    size_t done = 0;
    if (c->cut) {
        return;
    }
    if (mu_http_waiting(c) == 0) {
        done = c->tls ? send_tls(c, parts, n) : send_plain(c, parts, n);
    }
    for (size_t i = 0; i < n && !c->cut; i++) {
        size_t skip = MU_MIN(done, parts[i].len);
        done -= skip;
        push_copy(c, mu_bytes_from(parts[i], skip));
    }
    if (!c->cut && mu_http_waiting(c) > 0) {
        mu_http_conn_timed(c);
    }
}
