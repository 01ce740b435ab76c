/* What a session needs of the worker that takes it, and what a worker says it can do: sets of the
 * same bits. A worker may take what it can do all of (village-control-plane.md 6.6). Pure. */
#ifndef MU_APP_FLEET_NEEDS_H
#define MU_APP_FLEET_NEEDS_H

#include "base/buf.h"
#include "proto/needs.h"

/* By the harness and the snapshot of the environment (ptr NULL = none). A harness is no need where
 * the environment may bring it: by setup commands, or a variable that names the command. */
MU_MUST_USE int mu_needs_of(mu_bytes harness, mu_bytes env_snapshot, int64_t *ret);
/* Of a native worker, by its capabilities as they were stored: `features` and `harnesses`. One that
 * names no harnesses at all may have any. A worker that is not native offers every harness: what is
 * in its images is not known, and nothing else. */
int64_t mu_needs_offered(mu_bytes caps);
/* "network:none, harness claude": the words of a set. */
void mu_needs_words(struct mu_buf *dst, int64_t needs);

#endif
