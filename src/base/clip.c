#include "base/clip.h"

#include <errno.h>

void mu_clip_init(struct mu_clip *c, size_t limit, size_t head)
{
    MU_CHECK(head < limit);
    *c = (struct mu_clip){.head = head};
    mu_buf_init(&c->all, limit);
}

void mu_clip_fini(struct mu_clip *c)
{
    mu_buf_fini(&c->all);
    c->at = 0;
    c->total = 0;
}

int mu_clip_add(struct mu_clip *c, mu_bytes text)
{
    mu_bytes fits = mu_bytes_head(text, c->all.max - c->all.len);
    mu_buf_add(&c->all, fits);
    if (c->all.failed) {
        c->all.failed = 0;
        return -ENOMEM;
    }
    c->total += (int64_t)text.len;
    text = mu_bytes_from(text, fits.len);
    size_t size = c->all.max - c->head;
    if (text.len > size) { /* its beginning would be overwritten by its end */
        c->at = (c->at + text.len - size) % size;
        text = mu_bytes_from(text, text.len - size);
    }
    while (text.len) {
        size_t n = MU_MIN(text.len, size - c->at);
        memcpy(c->all.ptr + c->head + c->at, text.ptr, n);
        c->at = (c->at + n) % size;
        text = mu_bytes_from(text, n);
    }
    return 0;
}

void mu_clip_parts(const struct mu_clip *c, mu_bytes ret[MU_CLIP_PARTS])
{
    mu_bytes all = mu_buf_bytes(&c->all), ring = mu_bytes_from(all, c->head);
    ret[0] = mu_bytes_head(all, c->head);
    ret[1] = mu_bytes_from(ring, c->at);
    ret[2] = mu_bytes_head(ring, c->at);
}

static bool blank(char ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

static void trim_start(mu_bytes *b)
{
    while (b->len && blank(b->ptr[0])) {
        *b = mu_bytes_from(*b, 1);
    }
}

static void trim_end(mu_bytes *b)
{
    while (b->len && blank(b->ptr[b->len - 1])) {
        b->len--;
    }
}

void mu_clip_write(const struct mu_clip *c, bool trim, struct mu_buf *dst)
{
    mu_bytes parts[MU_CLIP_PARTS];
    mu_clip_parts(c, parts);
    for (size_t i = 0; trim && i < MU_CLIP_PARTS; i++) {
        trim_start(&parts[i]);
        if (parts[i].len) {
            break;
        }
    }
    for (size_t i = MU_CLIP_PARTS; trim && i-- > 0;) {
        trim_end(&parts[i]);
        if (parts[i].len) {
            break;
        }
    }
    for (size_t i = 0; i < MU_CLIP_PARTS; i++) {
        mu_buf_add(dst, parts[i]);
    }
}

mu_bytes mu_clip_from(const struct mu_clip *c, int64_t from)
{
    if (mu_clip_lost(c) || from < 0) {
        return MU_B_NONE;
    }
    return mu_bytes_from(mu_buf_bytes(&c->all), (size_t)from);
}

mu_bytes mu_clip_of(mu_bytes *text, size_t limit, size_t head)
{
    if (text->len <= limit) {
        return MU_B_NONE;
    }
    mu_bytes last = mu_bytes_from(*text, text->len - (limit - head));
    *text = mu_bytes_head(*text, head);
    return last;
}
