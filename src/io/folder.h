/* Removing and measuring folders whose content nobody vouches for: by descriptor, never through a
 * link, never into another file system, however deep. Blocking: a thread of the pool, or where
 * waiting is allowed. Part of the static program. */
#ifndef MU_IO_FOLDER_H
#define MU_IO_FOLDER_H

#include <sys/types.h>

#include "base/base.h"

/* Removes a folder with all that is in it, or the file or link of that name. What can be removed
 * is; 0, also when there was nothing, or the -errno of what could not (-EXDEV: something is mounted
 * there). */
int mu_folder_remove(const char *path);
/* The same for `name` in the folder `parent`. */
int mu_folder_remove_at(int parent, const char *name);
/* The same for what is in a folder, which stays. `fd` is not taken. */
MU_MUST_USE int mu_folder_empty(int fd);

/* Opens a folder for reading, also one that its owner closed to himself: *ret_mode is then the mode
 * to give it back, else 0. The descriptor, or -1 with errno. */
MU_MUST_USE int mu_folder_open(int parent, const char *name, mode_t *ret_mode);

/* Bytes on the disk of everything in it (blocks, not lengths), on its file system, at most 48
 * levels deep. -errno when it cannot be opened. */
int64_t mu_folder_bytes(const char *dir);

#endif
