/* The output of one attempt: all of it up to 8 MiB, beyond that the first 1 and the last 7
 * (oz-worker.md 14.3). */
#ifndef MU_APP_SESSIONS_OUTPUT_H
#define MU_APP_SESSIONS_OUTPUT_H

#include "app/sessions/sessions.h"

struct mu_output {
    struct mu_buf head; /* everything while it fits; afterwards the first MiB */
    char *ring;         /* the last 7 MiB once it did not fit */
    size_t ring_at;     /* where the next byte goes */
    int64_t total;
};
void mu_output_init(struct mu_output *o);
void mu_output_fini(struct mu_output *o);
void mu_output_reset(struct mu_output *o);
/* -ENOMEM. */
MU_MUST_USE int mu_output_add(struct mu_output *o, mu_bytes text);
/* Appends what is kept, white space at both ends trimmed if `trim`. */
void mu_output_write(const struct mu_output *o, bool trim, struct mu_buf *dst);
static inline bool mu_output_truncated(const struct mu_output *o)
{
    return o->total > MU_OUTPUT_MAX;
}
/* Bytes [from, total) while nothing was cut; empty afterwards. */
mu_bytes mu_output_from(const struct mu_output *o, int64_t from);

/* Pull-request URLs in a text: artifacts in the SDK's shape (oz-api.md 8), at most 100, each URL
 * once. `rows` and what they point at come from the arena; *ret_json is the array for the run
 * object, ptr NULL when there are none. */
MU_MUST_USE int mu_artifacts_find(const struct mu_env *env, struct mu_arena *a, mu_bytes text,
                                  int64_t now_ms, struct mu_artifact_row **ret_rows, size_t *ret_n,
                                  mu_bytes *ret_json);

#endif
