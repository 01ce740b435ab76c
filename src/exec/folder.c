/* Folders that something untrusted filled: links to elsewhere, folders without permissions, trees
 * deeper than our stack. By descriptor, never following a link, never leaving the file system. */
#include "exec/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 48, PASSES_MAX = 1 << 16 };

struct removal {
    int top;
    dev_t device;
    unsigned moved; /* names for folders that were brought up */
    bool progress;
    int error;
};

/* The folder, made ours to empty; -1 with errno. */
static int open_dir(int at, const char *name)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
    int fd = openat(at, name, flags);
    if (fd < 0 && errno == EACCES && fchmodat(at, name, 0700, 0) == 0) {
        fd = openat(at, name, flags);
    }
    if (fd >= 0) {
        (void)!fchmod(fd, 0700); /* a folder without the write bit keeps its entries */
    }
    return fd;
}

static bool same_device(const struct removal *r, int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_dev == r->device;
}

static void empty_dir(struct removal *r, int fd, unsigned depth);

static void remove_entry(struct removal *r, int at, const char *name, unsigned depth)
{
    if (unlinkat(at, name, 0) == 0) {
        r->progress = true;
        return;
    }
    if (errno != EISDIR && errno != EPERM) {
        r->error = -errno;
        return;
    }
    if (depth >= DEPTH_MAX) {
        char up[32];
        (void)!fchmodat(at, name, 0700, 0); /* moving it writes its ".." */
        snprintf(up, sizeof up, ".deep-%u", r->moved++);
        if (renameat(at, name, r->top, up) == 0) { /* a later pass finds it there */
            r->progress = true;
        } else {
            r->error = -errno;
        }
        return;
    }
    int fd = open_dir(at, name);
    if (fd >= 0 && same_device(r, fd)) {
        empty_dir(r, fd, depth + 1); /* takes the descriptor */
    } else if (fd >= 0) {
        close(fd); /* something is mounted there: not ours */
    }
    if (unlinkat(at, name, AT_REMOVEDIR) == 0) {
        r->progress = true;
    } else {
        r->error = -errno;
    }
}

static void empty_dir(struct removal *r, int fd, unsigned depth)
{
    DIR *d = fdopendir(fd);
    if (!d) {
        r->error = -errno;
        close(fd);
        return;
    }
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            remove_entry(r, dirfd(d), e->d_name, depth);
        }
    }
    closedir(d);
}

int mu_folder_remove(const char *dir)
{
    struct removal r = {.top = open_dir(AT_FDCWD, dir)};
    if (r.top < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    struct stat st;
    if (fstat(r.top, &st) < 0) {
        int e = -errno;
        close(r.top);
        return e;
    }
    r.device = st.st_dev;
    bool gone = false;
    for (unsigned pass = 0; pass < PASSES_MAX; pass++) {
        r.progress = false;
        int fd = openat(r.top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) {
            r.error = -errno;
            break;
        }
        empty_dir(&r, fd, 0);
        gone = rmdir(dir) == 0;
        if (gone || !r.progress) {
            break;
        }
    }
    close(r.top);
    return gone ? 0 : r.error < 0 ? r.error : -ENOTEMPTY;
}

static int64_t sum_dir(int fd, dev_t device, unsigned depth)
{
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return 0;
    }
    int64_t sum = 0;
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != device) {
            continue;
        }
        sum += (int64_t)st.st_blocks * 512;
        if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
            int inner = openat(dirfd(d), e->d_name,
                               O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
            sum += inner >= 0 ? sum_dir(inner, device, depth + 1) : 0;
        }
    }
    closedir(d);
    return sum;
}

int64_t mu_folder_bytes(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        int e = -errno;
        if (fd >= 0) {
            close(fd);
        }
        return e;
    }
    return sum_dir(fd, st.st_dev, 0);
}
