/* Lengths of time and sizes as people write them. Pure. */
#ifndef MU_WORKER_UNITS_H
#define MU_WORKER_UNITS_H

#include "base/bytes.h"

/* "45m", "1h30m", "500ms", "1.5h", "0": milliseconds. MU_E_INVALID. */
MU_MUST_USE int mu_duration_parse(mu_bytes text, int64_t *ret_ms);
/* "8MiB", "512k", "1048576": bytes (k, m, g with or without i and b are powers of 1024).
 * MU_E_INVALID. */
MU_MUST_USE int mu_size_parse(mu_bytes text, int64_t *ret);

#endif
