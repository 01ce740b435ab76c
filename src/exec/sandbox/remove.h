/* Removing a folder that somebody hostile filled: by descriptor, never through a link, never into
 * another file system, however deep. Blocking: on a work thread. */
#ifndef MU_EXEC_SANDBOX_REMOVE_H
#define MU_EXEC_SANDBOX_REMOVE_H

#include "base/base.h"

/* 0 also when it was not there. -errno of the first thing that could not be removed. */
MU_MUST_USE int mu_remove_tree(const char *path);

#endif
