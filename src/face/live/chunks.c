#include "face/live/chunks.h"

#include <errno.h>

#include "base/encode.h"

enum { HELD_MAX = 3 };

struct piece {
    struct mu_list all, mine;
    struct mu_chunk_stream *stream;
    struct mu_event *e;
    size_t at; /* its first byte that has not left */
};

static struct piece *first_of(const struct mu_chunk_stream *s)
{
    return MU_CONTAINER(s->pieces.next, struct piece, mine);
}

static mu_bytes rest_of(const struct piece *p)
{
    return mu_bytes_from(p->e->data, p->at);
}

static int64_t offset_of(const struct piece *p)
{
    return p->e->offset + (int64_t)p->at;
}

static void take_off(struct piece *p, size_t n)
{
    p->at += n;
    p->stream->bytes -= n;
    p->stream->of->bytes -= n;
}

static void piece_free(struct piece *p)
{
    struct mu_chunk_stream *s = p->stream;
    take_off(p, rest_of(p).len);
    mu_list_remove(&p->all);
    mu_list_remove(&p->mine);
    mu_event_unref(p->e);
    mu_free(p);
    if (mu_list_empty(&s->pieces)) {
        mu_list_remove(&s->link);
    }
}

void mu_chunks_init(struct mu_chunks *c, size_t max)
{
    mu_list_init(&c->all);
    mu_list_init(&c->ready);
    c->bytes = 0;
    c->max = max;
}

void mu_chunk_stream_init(struct mu_chunk_stream *s, struct mu_chunks *of, int64_t sent, bool raw)
{
    *s = (struct mu_chunk_stream){.of = of, .sent = sent, .acked = -1, .raw = raw};
    mu_list_init(&s->pieces);
    mu_list_init(&s->link);
}

void mu_chunk_stream_fini(struct mu_chunk_stream *s)
{
    while (s->of && !mu_list_empty(&s->pieces)) {
        piece_free(first_of(s));
    }
}

int mu_chunks_add(struct mu_chunk_stream *s, struct mu_event *e, int64_t from)
{
    struct mu_chunks *c = s->of;
    size_t at = (size_t)(from - e->offset);
    MU_CHECK(from >= e->offset && at <= e->data.len);
    at = MU_MAX(at, e->data.len - MU_MIN(e->data.len, c->max));
    size_t len = e->data.len - at;
    if (!len) {
        return 0;
    }
    struct piece *p = mu_calloc(1, sizeof *p);
    if (!p) {
        return -ENOMEM;
    }
    while (c->bytes + len > c->max) {
        piece_free(MU_CONTAINER(c->all.next, struct piece, all));
    }
    *p = (struct piece){.stream = s, .e = mu_event_ref(e), .at = at};
    if (mu_list_empty(&s->pieces)) {
        mu_list_push(&c->ready, &s->link);
    }
    mu_list_push(&c->all, &p->all);
    mu_list_push(&s->pieces, &p->mine);
    s->bytes += len;
    c->bytes += len;
    return 0;
}

/* --- leaving --- */

enum stop { FULL, GAP, END };

/* Copies what lies together at the front. */
static enum stop gather(const struct mu_chunk_stream *s, struct mu_chunk *ret)
{
    int64_t next = offset_of(first_of(s));
    ret->offset = next;
    ret->len = 0;
    MU_LIST_EACH(it, tmp, &s->pieces)
    {
        const struct piece *p = MU_CONTAINER(it, struct piece, mine);
        mu_bytes rest = rest_of(p);
        if (offset_of(p) != next) {
            return GAP;
        }
        size_t n = MU_MIN(rest.len, (size_t)MU_CHUNK_MAX - ret->len);
        memcpy(ret->bytes + ret->len, rest.ptr, n);
        ret->len += n;
        next += (int64_t)n;
        if (ret->len == MU_CHUNK_MAX) {
            return FULL;
        }
    }
    return END;
}

/* Bytes at the end that begin a character which is not whole. */
static size_t half_character(mu_bytes b)
{
    for (size_t k = 1; k <= HELD_MAX && k <= b.len; k++) {
        unsigned char c = (unsigned char)b.ptr[b.len - k];
        size_t whole = c >= 0xf0 && c <= 0xf4   ? 4
                       : c >= 0xe0 && c <= 0xef ? 3
                       : c >= 0xc2 && c <= 0xdf ? 2
                                                : 0;
        size_t bad = 0;
        if (whole > k && mu_utf8_len(mu_bytes_from(b, b.len - k), &bad) == 0 && bad == k) {
            return k;
        }
        if ((c & 0xc0) != 0x80) {
            return 0;
        }
    }
    return 0;
}

/* How much of what was gathered leaves now; 0 = it waits for more. */
static size_t cut(const struct mu_chunk_stream *s, enum stop why, struct mu_chunk *c)
{
    mu_bytes b = mu_bytes_of(c->bytes, c->len);
    c->text = !s->raw && mu_utf8_valid(b);
    if (s->raw || c->text) {
        return c->len;
    }
    size_t half = half_character(b);
    if (half == c->len) { /* nothing before it */
        return why == END && !s->over ? 0 : c->len;
    }
    c->len -= half;
    c->text = mu_utf8_valid(mu_bytes_of(c->bytes, c->len));
    return c->len;
}

static void leave(struct mu_chunk_stream *s, size_t len)
{
    while (len) {
        struct piece *p = first_of(s);
        size_t n = MU_MIN(len, rest_of(p).len);
        take_off(p, n);
        len -= n;
        if (!rest_of(p).len) {
            piece_free(p);
        }
    }
}

static bool may_send(const struct mu_chunk_stream *s, bool all)
{
    bool ahead = s->acked >= 0 && s->sent - s->acked >= MU_CHUNK_AHEAD;
    return !ahead && (all || s->over || s->bytes >= MU_CHUNK_MAX);
}

static bool take_of(struct mu_chunk_stream *s, struct mu_chunk *ret)
{
    enum stop why = gather(s, ret);
    size_t n = cut(s, why, ret);
    if (!n) {
        return false;
    }
    ret->stream = s;
    ret->gap_from = s->sent >= 0 && s->sent < ret->offset ? s->sent : -1;
    s->sent = ret->offset + (int64_t)n;
    leave(s, n);
    if (!mu_list_empty(&s->pieces)) {
        mu_list_remove(&s->link);
        mu_list_push(&s->of->ready, &s->link);
    }
    return true;
}

bool mu_chunks_take(struct mu_chunks *c, bool all, struct mu_chunk *ret)
{
    MU_LIST_EACH(it, tmp, &c->ready)
    {
        struct mu_chunk_stream *s = MU_CONTAINER(it, struct mu_chunk_stream, link);
        if (may_send(s, all) && take_of(s, ret)) {
            return true;
        }
    }
    return false;
}

void mu_chunk_stream_ack(struct mu_chunk_stream *s, int64_t offset)
{
    s->acked = MU_MAX(s->acked, MU_MIN(offset, MU_MAX(s->sent, 0)));
}
