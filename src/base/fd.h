/* Descriptors. Blocking; any thread. */
#ifndef MU_BASE_FD_H
#define MU_BASE_FD_H

#include "base/bytes.h"

/* To a file, a pipe that blocks or the like, in however many pieces it takes. -errno. */
MU_MUST_USE int mu_write_all(int fd, mu_bytes b);

#endif
