/* What a task said, bounded: the first megabyte and the newest bytes, a line between them that
 * tells what is missing (oz-worker.md 14.3); and what is found in it (14.1, 14.2). Pure. */
#ifndef MU_WORKER_KEPT_H
#define MU_WORKER_KEPT_H

#include "base/buf.h"

enum { MU_KEPT_HEAD = 1 << 20, MU_MAX_ARTIFACTS = 100 };

struct mu_kept {
    struct mu_buf head;
    char *ring; /* grows up to tail_max, then wraps */
    size_t ring_cap, ring_len, ring_pos, tail_max;
    int64_t total;
};

/* `limit` bytes are kept in all. Takes no memory yet. */
void mu_kept_init(struct mu_kept *o, size_t limit);
void mu_kept_fini(struct mu_kept *o);
/* Without memory the newest bytes are lost, never the call. */
void mu_kept_add(struct mu_kept *o, mu_bytes b);
/* Appends it whole to `dst`. */
void mu_kept_write(const struct mu_kept *o, struct mu_buf *dst);

/* Cuts what is longer than `limit` in the same way: appends to `dst`. `total` = its real length
 * (what is behind text.len was never read). */
void mu_kept_cut(mu_bytes text, int64_t total, size_t limit, struct mu_buf *dst);

/* The pull requests named in `text` that `dst` does not hold yet, as items of a JSON array; *count
 * goes on from what is there. */
void mu_find_pull_requests(mu_bytes text, int64_t now_ms, struct mu_buf *dst, size_t *count);
/* The first http(s) URL behind the word "session" on one line; empty = none. */
mu_bytes mu_find_session_link(mu_bytes text);

#endif
