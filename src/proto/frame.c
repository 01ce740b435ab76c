#include "proto/frame.h"

#include <errno.h>

#include "base/err.h"

void mu_frame_in_init(struct mu_frame_in *f)
{
    *f = (struct mu_frame_in){.n_head = 0};
    mu_buf_init(&f->body, MU_FRAME_JSON_MAX);
}

void mu_frame_in_fini(struct mu_frame_in *f)
{
    mu_buf_fini(&f->body);
    f->n_head = 0;
}

static size_t max_of(unsigned kind)
{
    return kind == MU_FRAME_BYTES ? (size_t)MU_FRAME_BYTES_MAX
           : kind == MU_FRAME_PUT ? (size_t)MU_FRAME_PUT_MAX
                                  : (size_t)MU_FRAME_JSON_MAX;
}

static size_t length_of(const unsigned char head[MU_FRAME_HEAD])
{
    return (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
}

static int take_head(struct mu_frame_in *f, mu_bytes *piece)
{
    size_t n = MU_MIN((size_t)MU_FRAME_HEAD - f->n_head, piece->len);
    memcpy(f->head + f->n_head, piece->ptr, n);
    f->n_head += n;
    *piece = mu_bytes_from(*piece, n);
    if (f->n_head < MU_FRAME_HEAD) {
        return 0;
    }
    size_t len = length_of(f->head);
    if (f->head[4] > MU_FRAME_PUT || (f->head[4] != MU_FRAME_BYTES && !len)) {
        return MU_E_PROTOCOL;
    }
    return len > max_of(f->head[4]) ? MU_E_TOO_LARGE : 0;
}

/* A frame that lies whole in the piece is handed on where it is. */
static int take_body(struct mu_frame_in *f, mu_bytes *piece, mu_frame_fn each, void *arg)
{
    size_t len = length_of(f->head), want = len - f->body.len;
    mu_bytes part = mu_bytes_head(*piece, want), whole = part;
    if (part.len < want || f->body.len) {
        mu_buf_add(&f->body, part);
        if (f->body.failed) {
            return f->body.failed;
        }
        whole = mu_buf_bytes(&f->body);
    }
    *piece = mu_bytes_from(*piece, part.len);
    if (part.len < want) {
        return 0;
    }
    f->n_head = 0;
    int r = each(arg, (enum mu_frame_kind)f->head[4], whole);
    mu_buf_fini(&f->body); /* large ones are rare: no memory is kept for them */
    return r;
}

int mu_frame_feed(struct mu_frame_in *f, mu_bytes piece, mu_frame_fn each, void *arg)
{
    while (!f->failed && piece.len) {
        if (f->n_head < MU_FRAME_HEAD) {
            f->failed = take_head(f, &piece);
        }
        /* an empty frame of terminal bytes is whole with its head */
        bool ready = f->n_head == MU_FRAME_HEAD && (piece.len || !length_of(f->head));
        if (!f->failed && ready) {
            f->failed = take_body(f, &piece, each, arg);
        }
    }
    return f->failed;
}

int mu_frame_front(mu_bytes b, struct mu_frame_view *ret)
{
    const unsigned char *head = (const unsigned char *)b.ptr;
    size_t len = b.len < MU_FRAME_HEAD ? 0 : length_of(head);
    if (b.len < MU_FRAME_HEAD || b.len - MU_FRAME_HEAD < len) {
        return 0;
    }
    ret->kind = (enum mu_frame_kind)head[4];
    ret->payload = mu_bytes_of(b.ptr + MU_FRAME_HEAD, len);
    return 1;
}

int mu_frame_add(struct mu_buf *dst, enum mu_frame_kind kind, mu_bytes payload)
{
    if (dst->failed) {
        return dst->failed;
    }
    if (payload.len > max_of(kind)) {
        return MU_E_TOO_LARGE;
    }
    size_t before = dst->len;
    unsigned len = (unsigned)payload.len;
    char head[MU_FRAME_HEAD] = {(char)(len >> 24), (char)(len >> 16), (char)(len >> 8), (char)len,
                                (char)kind};
    mu_buf_add(dst, mu_bytes_of(head, sizeof head));
    mu_buf_add(dst, payload);
    int r = dst->failed;
    if (r) {
        dst->len = before;
        dst->failed = 0;
    }
    return r;
}

int mu_frame_add_term(struct mu_buf *dst, const struct mu_frame_term *t)
{
    if (dst->failed) {
        return dst->failed;
    }
    if (t->data.len > MU_FRAME_DATA_MAX || t->terminal > 255) {
        return MU_E_TOO_LARGE;
    }
    size_t before = dst->len;
    unsigned len = (unsigned)t->data.len + MU_FRAME_TERM_HEAD;
    char head[MU_FRAME_HEAD + MU_FRAME_TERM_HEAD] = {
        (char)(len >> 24), (char)(len >> 16), (char)(len >> 8), (char)len, MU_FRAME_BYTES, 1,
        (char)t->terminal};
    for (size_t i = 0; i < 8; i++) {
        head[MU_FRAME_HEAD + 8 + i] = (char)(t->offset >> (56 - 8 * i));
    }
    mu_buf_add(dst, mu_bytes_of(head, sizeof head));
    mu_buf_add(dst, t->data);
    int r = dst->failed;
    if (r) {
        dst->len = before;
        dst->failed = 0;
    }
    return r;
}

int mu_frame_term_parse(mu_bytes payload, struct mu_frame_term *ret)
{
    const unsigned char *p = (const unsigned char *)payload.ptr;
    if (payload.len < MU_FRAME_TERM_HEAD || payload.len > MU_FRAME_BYTES_MAX || p[0] != 1) {
        return MU_E_PROTOCOL;
    }
    uint64_t offset = 0;
    for (size_t i = 2; i < 8; i++) {
        if (p[i]) {
            return MU_E_PROTOCOL;
        }
    }
    for (size_t i = 8; i < 16; i++) {
        offset = offset << 8 | p[i];
    }
    if (offset > INT64_MAX) {
        return MU_E_PROTOCOL;
    }
    *ret = (struct mu_frame_term){p[1], offset, mu_bytes_from(payload, MU_FRAME_TERM_HEAD)};
    return 0;
}
