/* `muster env`: the flags about the sandbox, apart from the rest. */
#ifndef MU_MAIN_CMD_ENV_H
#define MU_MAIN_CMD_ENV_H

#include "main/client.h"

/* Writes the member `sandbox` by --network, --allow, --nested, --fake-root and --limit; what is not
 * given stays as in `old` (may be NULL), unless --no-sandbox is given. 0, or the usage's exit code.
 */
int mu_env_sandbox_flags(struct mu_json_w *w, const struct mu_cli *cli, yyjson_val *old);
/* One line for people; nothing when there is none. Freed with mu_free(). */
char *mu_env_sandbox_line(yyjson_val *sandbox);

#endif
