/* Variables of an environment object: KEY=VALUE lines as the reference passes them, and a flat JSON
 * object that loses nothing (oz-worker.md 13.2 step 5, 13.5). */
#ifndef MU_RUNNER_ENVVARS_H
#define MU_RUNNER_ENVVARS_H

#include "base/bytes.h"
#include "base/err.h"

/* Takes one variable; neither part holds a NUL. A negative return ends the walk with it. */
typedef int (*mu_envvar_fn)(void *arg, mu_bytes name, mu_bytes value);

/* Lines without "=", or whose key is empty, begins with a digit or holds anything but letters,
 * digits and "_", are skipped. The number of variables, or what `set` returned. */
MU_MUST_USE int mu_envvars_lines(mu_bytes text, mu_envvar_fn set, void *arg);
/* One JSON object whose values are strings; nothing is set unless all of it is well-formed. A name
 * that no environment can hold, or a value with U+0000, is skipped. MU_E_INVALID (with the
 * position), -ENOMEM, or what `set` returned. */
MU_MUST_USE int mu_envvars_json(mu_bytes text, mu_envvar_fn set, void *arg, struct mu_err *err);

#endif
