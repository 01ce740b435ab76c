/* A text of any length of which only both ends are kept: all of it while it fits, afterwards its
 * first `head` bytes and the newest. One thread at a time. */
#ifndef MU_BASE_CLIP_H
#define MU_BASE_CLIP_H

#include "base/buf.h"

/* What server, worker and sidecar keep of a task's output (oz-worker.md 14.3). */
enum { MU_OUTPUT_HEAD = 1 << 20, MU_OUTPUT_TAIL = 7 << 20, MU_OUTPUT_MAX = 8 << 20 };

struct mu_clip {
    struct mu_buf all; /* full: what is behind the first part is a ring */
    size_t head;
    size_t at;     /* in the ring: the oldest byte, where the next one goes */
    int64_t total; /* bytes given */
};

/* `limit` bytes are kept in all, the first `head` (less than that) of them for good. Takes no
 * memory yet. */
void mu_clip_init(struct mu_clip *c, size_t limit, size_t head);
/* Forgets the text and gives its memory back; it may be used anew. */
void mu_clip_fini(struct mu_clip *c);
/* -ENOMEM: nothing of it was taken. */
MU_MUST_USE int mu_clip_add(struct mu_clip *c, mu_bytes text);
/* Whether something between the ends is gone. */
static inline bool mu_clip_lost(const struct mu_clip *c)
{
    return c->total > (int64_t)c->all.max;
}
/* What is kept, in order: the first part, and the last one in two pieces (any may be empty). They
 * point into it. */
enum { MU_CLIP_PARTS = 3 };
void mu_clip_parts(const struct mu_clip *c, mu_bytes ret[MU_CLIP_PARTS]);
/* Appends what is kept, white space at both ends trimmed if `trim`. */
void mu_clip_write(const struct mu_clip *c, bool trim, struct mu_buf *dst);
/* Bytes [from, total) while nothing was cut; empty afterwards. */
mu_bytes mu_clip_from(const struct mu_clip *c, int64_t from);

/* Both ends of a text that is there whole: *text becomes the first `head` bytes and the last one is
 * returned; all of it and nothing while it is not longer than `limit`. */
mu_bytes mu_clip_of(mu_bytes *text, size_t limit, size_t head);

#endif
