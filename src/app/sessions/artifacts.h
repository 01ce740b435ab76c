/* What the output of an attempt leads to. */
#ifndef MU_APP_SESSIONS_ARTIFACTS_H
#define MU_APP_SESSIONS_ARTIFACTS_H

#include "app/sessions/sessions.h"

/* Pull-request URLs in a text: artifacts in the SDK's shape (oz-api.md 8), at most 100, each URL
 * once. `rows` and what they point at come from the arena; *ret_json is the array for the run
 * object, ptr NULL when there are none. */
MU_MUST_USE int mu_artifacts_find(const struct mu_env *env, struct mu_arena *a, mu_bytes text,
                                  int64_t now_ms, struct mu_artifact_row **ret_rows, size_t *ret_n,
                                  mu_bytes *ret_json);

#endif
