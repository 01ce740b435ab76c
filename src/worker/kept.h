/* What a task said, as its end reports it: both ends with a line between them that tells what is
 * missing (oz-worker.md 14.3), and the pull requests that are named in it (14.1). Pure. */
#ifndef MU_WORKER_KEPT_H
#define MU_WORKER_KEPT_H

#include "base/clip.h"

enum { MU_MAX_ARTIFACTS = 100 };

/* Of `limit` bytes. Takes no memory yet. */
void mu_kept_init(struct mu_clip *log, size_t limit);
/* Without memory what is new is lost, never the call. */
void mu_kept_add(struct mu_clip *log, mu_bytes b);
/* Appends it whole to `dst`. */
void mu_kept_write(const struct mu_clip *log, struct mu_buf *dst);

/* Cuts what is longer than `limit` in the same way: appends to `dst`. `total` = its real length
 * (what is behind text.len was never read). */
void mu_kept_cut(mu_bytes text, int64_t total, size_t limit, struct mu_buf *dst);

/* The pull requests named in `text` that `dst` does not hold yet, as items of a JSON array; *count
 * goes on from what is there. What does not fit into `dst` is left out. */
void mu_kept_pull_requests(mu_bytes text, int64_t now_ms, struct mu_buf *dst, size_t *count);

#endif
