/* How much disk a folder uses: a walk by descriptors in small pieces, so that its owner never
 * stands still (sandbox.md 8). Part of the static program. */
#ifndef MU_EXEC_SANDBOX_DISK_INT_H
#define MU_EXEC_SANDBOX_DISK_INT_H

#include <dirent.h>
#include <sys/types.h>

#include "base/base.h"

enum { MU_DISK_DEPTH = 128, MU_DISK_LINKS = 1 << 15 };

struct mu_disk {
    DIR *open[MU_DISK_DEPTH];
    mode_t restore[MU_DISK_DEPTH]; /* of a folder that had to be made readable; else 0 */
    int depth;                     /* 0 = no walk is going on */
    dev_t device;
    uint64_t *seen; /* inodes with more than one link, counted once */
    size_t n_seen;
    int64_t bytes, entries; /* so far */
    bool partial;           /* something was too deep to be counted */
};
/* `fd` is not taken. 0 or a negated errno. */
MU_MUST_USE int mu_disk_begin(struct mu_disk *d, int fd);
/* Looks at up to `entries` more. True: the walk is complete. */
bool mu_disk_step(struct mu_disk *d, int entries);
/* Ends a walk; frees. Accepts a zeroed one. */
void mu_disk_end(struct mu_disk *d);

#endif
