/* Files of one secret each: there as a whole or not at all, readable by their owner only. Blocking.
 */
#ifndef MU_IO_KEY_FILE_H
#define MU_IO_KEY_FILE_H

#include "base/buf.h"
#include "base/env.h"
#include "base/err.h"

enum { MU_KEY_LEAST = 32, MU_KEY_FILE_MAX = 4096 };

/* Writes `file` in the folder `dir` (0600) whole and synced, under a temporary name first. Without
 * `replace` one that is there already stays (-EEXIST). -errno. */
MU_MUST_USE int mu_key_file_write(const char *dir, const char *file, mu_bytes content,
                                  bool replace);
/* Makes one that is not there, `prefix` and 64 random hexadecimal digits. -EEXIST, -errno. */
MU_MUST_USE int mu_key_file_make(const struct mu_env *env, const char *dir, const char *file,
                                 const char *prefix);
/* Appends the secret, without white space around it. MU_E_NOT_FOUND: no such file; MU_E_INVALID: it
 * can be read by others, or holds no secret; -errno. Worded, but for MU_E_NOT_FOUND. */
MU_MUST_USE int mu_key_file_read(const char *path, struct mu_buf *ret, struct mu_err *err);

#endif
