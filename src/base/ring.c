#include "base/ring.h"

#include <errno.h>

enum { FIRST = 4096 };

void mu_ring_init(struct mu_ring *r, size_t max)
{
    *r = (struct mu_ring){.max = max};
}

void mu_ring_fini(struct mu_ring *r)
{
    mu_free(r->ptr);
    *r = (struct mu_ring){.max = r->max, .end = r->end};
}

/* Where the byte of an offset lies: the buffer is filled round and round. */
static size_t place(const struct mu_ring *r, int64_t offset)
{
    return (size_t)(offset % (int64_t)r->cap);
}

static void grow(struct mu_ring *r, size_t want)
{
    size_t cap = MU_MAX(r->cap * 2, (size_t)FIRST);
    while (cap < want && cap < r->max) {
        cap *= 2;
    }
    cap = MU_MIN(cap, r->max);
    char *p = cap > r->cap ? mu_alloc(cap) : NULL;
    if (!p) {
        return;
    }
    struct mu_ring old = *r;
    r->ptr = p;
    r->cap = cap;
    for (int64_t at = mu_ring_from(&old); at < old.end;) {
        mu_bytes b = mu_ring_at(&old, at, SIZE_MAX);
        for (size_t i = 0; i < b.len; i++) {
            r->ptr[place(r, at + (int64_t)i)] = b.ptr[i];
        }
        at += (int64_t)b.len;
    }
    mu_free(old.ptr);
}

int mu_ring_add(struct mu_ring *r, mu_bytes b)
{
    if (r->len + b.len > r->cap && r->cap < r->max) {
        grow(r, MU_MIN(r->len + b.len, r->max));
    }
    if (!r->cap && b.len) {
        r->end += (int64_t)b.len;
        return -ENOMEM;
    }
    if (b.len > r->cap) {
        r->end += (int64_t)(b.len - r->cap);
        b = mu_bytes_from(b, b.len - r->cap);
    }
    while (b.len) {
        size_t at = place(r, r->end), n = MU_MIN(b.len, r->cap - at);
        memcpy(r->ptr + at, b.ptr, n);
        r->end += (int64_t)n;
        r->len = MU_MIN(r->len + n, r->cap);
        b = mu_bytes_from(b, n);
    }
    return 0;
}

mu_bytes mu_ring_at(const struct mu_ring *r, int64_t offset, size_t max)
{
    offset = MU_MAX(offset, mu_ring_from(r));
    if (offset >= r->end || !r->cap) {
        return MU_B_NONE;
    }
    size_t at = place(r, offset), n = (size_t)(r->end - offset);
    return mu_bytes_of(r->ptr + at, MU_MIN(MU_MIN(n, r->cap - at), max));
}
