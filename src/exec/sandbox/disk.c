#include "exec/sandbox/disk_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "io/folder.h"

enum { DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK };

int mu_disk_begin(struct mu_disk *d, int fd)
{
    struct stat st;
    MU_AUTO_CLOSE int own = openat(fd, ".", DIR_FLAGS);
    if (own < 0 || fstat(own, &st) < 0) {
        return -errno;
    }
    DIR *dir = fdopendir(own);
    if (!dir) {
        return -errno;
    }
    own = -1;
    mu_disk_end(d);
    d->open[0] = dir;
    d->restore[0] = 0;
    d->depth = 1;
    d->device = st.st_dev;
    d->bytes = d->entries = 0;
    d->partial = false;
    return 0;
}

static void leave(struct mu_disk *d)
{
    DIR *dir = d->open[--d->depth];
    if (d->restore[d->depth]) {
        int r MU_UNUSED = fchmod(dirfd(dir), d->restore[d->depth]);
    }
    closedir(dir);
}

static bool first_time(struct mu_disk *d, uint64_t inode)
{
    if (!d->seen) {
        d->seen = mu_calloc(MU_DISK_LINKS, sizeof *d->seen);
        if (!d->seen) {
            return true; /* counted twice, which errs on the safe side */
        }
    }
    size_t at = (inode * 0x9e3779b97f4a7c15ULL >> 32) % MU_DISK_LINKS;
    while (d->seen[at]) {
        if (d->seen[at] == inode) {
            return false;
        }
        at = (at + 1) % MU_DISK_LINKS;
    }
    if (d->n_seen < MU_DISK_LINKS / 2) {
        d->seen[at] = inode;
        d->n_seen++;
    }
    return true;
}

static void enter(struct mu_disk *d, int parent, const char *name)
{
    if (d->depth == MU_DISK_DEPTH) {
        d->partial = true;
        return;
    }
    mode_t restore;
    int fd = mu_folder_open(parent, name, &restore);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0) {
            close(fd);
        }
        d->partial = true;
        return;
    }
    d->restore[d->depth] = restore;
    d->open[d->depth++] = dir;
}

static void look_at(struct mu_disk *d, const char *name)
{
    struct stat st;
    int parent = dirfd(d->open[d->depth - 1]);
    d->entries++;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != d->device) {
        return;
    }
    if (S_ISDIR(st.st_mode) || st.st_nlink < 2 || first_time(d, st.st_ino)) {
        d->bytes += (int64_t)st.st_blocks * 512;
    }
    if (S_ISDIR(st.st_mode)) {
        enter(d, parent, name);
    }
}

bool mu_disk_step(struct mu_disk *d, int entries)
{
    while (d->depth > 0 && entries-- > 0) {
        const struct dirent *e = readdir(d->open[d->depth - 1]);
        if (!e) {
            leave(d);
        } else if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            look_at(d, e->d_name);
        }
    }
    return d->depth == 0;
}

void mu_disk_end(struct mu_disk *d)
{
    while (d->depth > 0) {
        leave(d);
    }
    mu_free(d->seen);
    d->seen = NULL;
    d->n_seen = 0;
}
