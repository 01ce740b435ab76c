#include "exec/sandbox/disk_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
    TRASH_ROUNDS = 1 << 22, /* more folders than a disk limit lets be made */
    MOVES = 1 << 24,
};

/* A folder that its owner closed to himself is opened for the look and closed again. The mode is
 * changed by descriptor: between two looks at a name somebody inside could put a link there. */
static int open_dir(int parent, const char *name, mode_t *restore)
{
    char path[40];
    struct stat st;
    *restore = 0;
    int fd = openat(parent, name, DIR_FLAGS);
    if (fd >= 0 || errno != EACCES) {
        return fd;
    }
    MU_AUTO_CLOSE int held = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (held < 0 || fstat(held, &st) < 0) {
        return -1;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", held);
    if (chmod(path, (st.st_mode & 07777) | 0700) < 0) {
        return -1;
    }
    *restore = st.st_mode & 07777;
    return openat(held, ".", DIR_FLAGS & ~O_NOFOLLOW);
}

/* --- counting --- */

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
    int fd = open_dir(parent, name, &restore);
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

/* --- removing --- */

struct removal {
    int top; /* folders that are not empty are moved here and emptied in turn */
    uint64_t moved;
    dev_t device;
    int failed;
};

static void note(struct removal *r, int why)
{
    if (r->failed == 0 && why != ENOENT) {
        r->failed = -why;
    }
}

static void remove_entry(struct removal *r, int dir, const char *name)
{
    struct stat st;
    char moved[40];
    if (unlinkat(dir, name, 0) == 0) {
        return;
    }
    if ((errno != EISDIR && errno != EPERM) || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISDIR(st.st_mode)) {
        note(r, errno);
        return;
    }
    if (st.st_dev != r->device) {
        note(r, EXDEV);
        return;
    }
    if (unlinkat(dir, name, AT_REMOVEDIR) == 0 || dir == r->top) {
        return;
    }
    /* Flat instead of deep: neither the stack nor the descriptors grow with the depth. */
    int why;
    do {
        snprintf(moved, sizeof moved, ".muster-%llu", (unsigned long long)r->moved++);
        why = renameat(dir, name, r->top, moved) < 0 ? errno : 0;
    } while ((why == EEXIST || why == ENOTEMPTY) && r->moved < MOVES);
    if (why) {
        note(r, why);
    }
}

/* Moving a folder changes its "..", so one must be allowed to write in it. */
static void make_movable(int dir, const struct dirent *e)
{
    mode_t restore;
    if (e->d_type == DT_DIR || e->d_type == DT_UNKNOWN) {
        MU_AUTO_CLOSE int fd = open_dir(dir, e->d_name, &restore);
        int ignored MU_UNUSED = fd < 0 ? 0 : fchmod(fd, 0700);
    }
}

/* Removes what is in it; its folders end up in the top folder. */
static void flatten(struct removal *r, int fd)
{
    int ignored MU_UNUSED = fchmod(fd, 0700);
    DIR *dir = fdopendir(fd);
    if (!dir) {
        note(r, errno);
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            make_movable(dirfd(dir), e);
            remove_entry(r, dirfd(dir), e->d_name);
        }
    }
    closedir(dir);
}

/* One pass over the top folder: empties each folder in it. True: nothing is left. */
static bool pass(struct removal *r)
{
    MU_AUTO_CLOSE int own = openat(r->top, ".", DIR_FLAGS);
    DIR *dir = own < 0 ? NULL : fdopendir(own);
    bool empty = true;
    if (!dir) {
        note(r, errno);
        return false;
    }
    own = -1;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        empty = false;
        remove_entry(r, r->top, e->d_name);
        mode_t restore;
        int fd = open_dir(r->top, e->d_name, &restore);
        if (fd >= 0) {
            flatten(r, fd);
            if (unlinkat(r->top, e->d_name, AT_REMOVEDIR) < 0) {
                note(r, errno);
            }
        } else {
            note(r, errno);
        }
    }
    closedir(dir);
    return empty;
}

int mu_disk_empty(int fd)
{
    struct stat st;
    struct removal r = {.top = fd};
    if (fstat(fd, &st) < 0 || fchmod(fd, (st.st_mode & 07777) | 0700) < 0) {
        return -errno;
    }
    r.device = st.st_dev;
    for (int i = 0; i < TRASH_ROUNDS; i++) {
        if (pass(&r)) {
            return 0;
        }
        if (r.failed) {
            break;
        }
    }
    return r.failed ? r.failed : -ELOOP;
}

int mu_disk_remove(int parent, const char *name)
{
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (S_ISDIR(st.st_mode)) {
        mode_t restore;
        MU_AUTO_CLOSE int fd = open_dir(parent, name, &restore);
        int r = fd < 0 ? -errno : mu_disk_empty(fd);
        if (r < 0) {
            return r;
        }
    }
    return unlinkat(parent, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
}
