/* What an environment says about its sandbox (docs/workers.md): the member `sandbox` of its spec,
 * {"network":{"mode","allow":[…]},"nested","root","limits":{…}}. Pure. */
#ifndef MU_APP_ENVIRONMENTS_SANDBOX_H
#define MU_APP_ENVIRONMENTS_SANDBOX_H

#include "base/err.h"
#include "proto/json.h"
#include "proto/json_write.h"

enum { MU_ENV_ALLOW_MAX = 256, MU_ENV_ALLOW_TEXT = 260 };

/* What lets a sandbox do more than others: sandbox.host_network, sandbox.nested. */
struct mu_env_rights {
    bool host_network, nested;
};

/* Checks what types and ranges do not say: hosts, what goes together, rights. Types are checked by
 * the caller before. MU_E_INVALID, MU_E_FORBIDDEN: worded, with the field's path. */
MU_MUST_USE int mu_env_sandbox_check(yyjson_val *sandbox, const struct mu_env_rights *rights,
                                     char *ret_path, size_t path_size, struct mu_err *err);
/* Writes it as it is kept, known members only; with `key` in front. Nothing when it says nothing.
 */
void mu_env_sandbox_write(struct mu_json_w *w, const char *key, yyjson_val *sandbox);

/* The two parts of it that an assignment carries (oz-worker.md 16); nothing when they are empty. */
void mu_env_policy_write(struct mu_json_w *w, const char *key, yyjson_val *sandbox);
void mu_env_resources_write(struct mu_json_w *w, const char *key, yyjson_val *sandbox);
/* How long a run may take by its environment; 0 = not said. */
int64_t mu_env_timeout_ms(yyjson_val *sandbox);

#endif
