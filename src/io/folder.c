#include "io/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
    DEPTH_MAX = 48, /* of the stack and of open descriptors, not of the tree */
    PASSES_MAX = 1 << 16,
    MOVES_MAX = 1 << 24, /* more folders than a disk limit lets be made */
};

static bool is_own_or_parent(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* The mode is changed by descriptor: between two looks at a name somebody could put a link there.
 */
int mu_folder_open(int parent, const char *name, mode_t *ret_mode)
{
    char path[40];
    struct stat st;
    *ret_mode = 0;
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
    *ret_mode = st.st_mode & 07777;
    return openat(held, ".", DIR_FLAGS & ~O_NOFOLLOW);
}

/* --- removing --- */

struct removal {
    int top; /* folders that are too deep are moved here, where a later pass finds them */
    dev_t device;
    unsigned moved;
    bool progress;
    int error; /* the first of this pass */
};

static void note(struct removal *r, int why)
{
    if (r->error == 0 && why != ENOENT) {
        r->error = -why;
    }
}

static void empty_dir(struct removal *r, int fd, unsigned depth);

static void bring_up(struct removal *r, int parent, const char *name)
{
    char up[32];
    int why;
    do { /* such a name may be taken already, by whatever the owner liked */
        snprintf(up, sizeof up, ".muster-%u", r->moved++);
        why = renameat(parent, name, r->top, up) < 0 ? errno : 0;
    } while ((why == EEXIST || why == ENOTEMPTY || why == ENOTDIR) && r->moved < MOVES_MAX);
    if (why) {
        note(r, why);
    } else {
        r->progress = true;
    }
}

/* `why` it is no file that could be unlinked. */
static void remove_dir(struct removal *r, int parent, const char *name, unsigned depth, int why)
{
    mode_t mode;
    struct stat st;
    int fd = mu_folder_open(parent, name, &mode);
    if (fd < 0) {
        note(r, errno == ENOTDIR || errno == ELOOP ? why : errno);
        return;
    }
    if (fstat(fd, &st) < 0 || st.st_dev != r->device) {
        close(fd); /* something mounted there is not ours to empty */
        note(r, EXDEV);
        return;
    }
    if ((st.st_mode & 0700) != 0700) { /* else it keeps its entries, and its ".." */
        (void)!fchmod(fd, (st.st_mode & 07777) | 0700);
    }
    if (depth >= DEPTH_MAX) {
        close(fd);
        bring_up(r, parent, name);
        return;
    }
    empty_dir(r, fd, depth + 1);
    if (unlinkat(parent, name, AT_REMOVEDIR) == 0) {
        r->progress = true;
    } else {
        note(r, errno);
    }
}

/* Takes the descriptor. */
static void empty_dir(struct removal *r, int fd, unsigned depth)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        note(r, errno);
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        if (is_own_or_parent(e->d_name)) {
            continue;
        }
        if (unlinkat(dirfd(dir), e->d_name, 0) == 0) {
            r->progress = true;
        } else if (errno == EISDIR || errno == EPERM) {
            remove_dir(r, dirfd(dir), e->d_name, depth, errno);
        } else {
            note(r, errno);
        }
    }
    closedir(dir);
}

int mu_folder_empty(int fd)
{
    struct stat st;
    struct removal r = {.top = fd};
    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if ((st.st_mode & 0700) != 0700 && fchmod(fd, (st.st_mode & 07777) | 0700) < 0) {
        return -errno;
    }
    r.device = st.st_dev;
    for (unsigned pass = 0; pass < PASSES_MAX; pass++) {
        r.progress = false;
        r.error = 0;
        int own = openat(fd, ".", DIR_FLAGS);
        if (own < 0) {
            return -errno;
        }
        empty_dir(&r, own, 0);
        if (!r.progress) {
            return r.error;
        }
    }
    return r.error ? r.error : -ELOOP;
}

int mu_folder_remove_at(int parent, const char *name)
{
    mode_t mode;
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }
    int why = errno;
    if (why != EISDIR && why != EPERM) {
        return -why;
    }
    MU_AUTO_CLOSE int fd = mu_folder_open(parent, name, &mode);
    if (fd < 0) {
        return errno == ENOENT ? 0 : errno == ENOTDIR || errno == ELOOP ? -why : -errno;
    }
    int r = mu_folder_empty(fd);
    if (r == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
        r = -errno;
    }
    return r;
}

int mu_folder_remove(const char *path)
{
    return mu_folder_remove_at(AT_FDCWD, path);
}

/* --- measuring --- */

static int64_t sum_dir(int fd, dev_t device, unsigned depth)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return 0;
    }
    int64_t sum = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        if (is_own_or_parent(e->d_name) ||
            fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != device) {
            continue;
        }
        sum += (int64_t)st.st_blocks * 512;
        if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
            int inner = openat(dirfd(dir), e->d_name, DIR_FLAGS);
            sum += inner >= 0 ? sum_dir(inner, device, depth + 1) : 0;
        }
    }
    closedir(dir);
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
