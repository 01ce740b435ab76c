/* Removing and measuring folders whose content nobody vouches for. Blocking: a pool thread, or
 * where waiting is allowed. */
#ifndef MU_EXEC_FOLDER_H
#define MU_EXEC_FOLDER_H

#include "base/base.h"

/* Removes a folder with all that is in it, however deep and whatever its modes; links are removed,
 * never followed, and what is mounted below it is left alone (then the folder stays: -EBUSY,
 * -ENOTEMPTY). 0 also when there is none; -errno. */
int mu_folder_remove(const char *dir);
/* Bytes on the disk of everything in it (blocks, not lengths), on its file system, at most 48
 * levels deep. -errno when it cannot be opened. */
int64_t mu_folder_bytes(const char *dir);

#endif
