/* The newest bytes of a stream, each known by its offset from the stream's beginning. One thread at
 * a time. */
#ifndef MU_BASE_RING_H
#define MU_BASE_RING_H

#include "base/bytes.h"

struct mu_ring {
    char *ptr;
    size_t cap, max;
    size_t len;  /* bytes that are kept */
    int64_t end; /* offset behind the newest byte */
};

/* Takes no memory yet; keeps at most `max` (1 or more) bytes. */
void mu_ring_init(struct mu_ring *r, size_t max);
void mu_ring_fini(struct mu_ring *r);
/* The oldest bytes make room, also when there is no memory for more. -ENOMEM: there is none at all;
 * then the bytes are lost as if they had been pushed out. */
int mu_ring_add(struct mu_ring *r, mu_bytes b);
/* Offset of the oldest byte that is kept. */
static inline int64_t mu_ring_from(const struct mu_ring *r)
{
    return r->end - (int64_t)r->len;
}
/* Bytes from `offset` on, at most `max`: as many as lie in one piece. Empty behind the end; from
 * the oldest on when they are gone (compare with mu_ring_from()). Valid until the next add. */
mu_bytes mu_ring_at(const struct mu_ring *r, int64_t offset, size_t max);

#endif
