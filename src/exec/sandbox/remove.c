#include "exec/sandbox/remove.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_DEPTH = 64, MAX_PASSES = 4096 };

/* A folder that is too deep is moved to the top and emptied in the next pass. */
struct removal {
    int top;
    dev_t dev;
    unsigned moved;
    bool again;
    int first_error;
};

static void note(struct removal *r, int error)
{
    if (r->first_error == 0 && error != ENOENT) {
        r->first_error = -error;
    }
}

static int open_folder(int at, const char *name)
{
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    int fd = openat(at, name, flags);
    if (fd < 0 && errno == EACCES && fchmodat(at, name, 0700, 0) == 0) {
        fd = openat(at, name, flags);
    }
    return fd;
}

static void empty(struct removal *r, int fd, unsigned depth);

static void remove_folder(struct removal *r, int at, const char *name, unsigned depth)
{
    struct stat st;
    int fd = open_folder(at, name);
    if (fd < 0) {
        note(r, errno);
        return;
    }
    if (fstat(fd, &st) < 0 || st.st_dev != r->dev) {
        close(fd); /* something mounted there is not ours to empty */
        note(r, EXDEV);
        return;
    }
    if (depth >= MAX_DEPTH) {
        char moved[40];
        close(fd);
        snprintf(moved, sizeof moved, ".muster-remove-%u", r->moved++);
        if (renameat(at, name, r->top, moved) < 0) {
            note(r, errno);
        }
        r->again = true;
        return;
    }
    if (!(st.st_mode & S_IWUSR) || !(st.st_mode & S_IXUSR)) {
        fchmod(fd, 0700);
    }
    empty(r, fd, depth + 1);
    if (unlinkat(at, name, AT_REMOVEDIR) < 0) {
        if (!(errno == ENOTEMPTY && r->again)) {
            note(r, errno);
        }
    }
}

/* Takes the descriptor. */
static void empty(struct removal *r, int fd, unsigned depth)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        note(r, errno);
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) {
            continue;
        }
        if (unlinkat(dirfd(dir), e->d_name, 0) == 0 || errno == ENOENT) {
            continue;
        }
        if (errno != EISDIR && errno != EPERM) {
            note(r, errno);
            continue;
        }
        remove_folder(r, dirfd(dir), e->d_name, depth);
    }
    closedir(dir);
}

int mu_remove_tree(const char *path)
{
    struct stat st;
    struct removal r = {.top = open_folder(AT_FDCWD, path)};
    if (r.top < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (fstat(r.top, &st) < 0) {
        int error = errno;
        close(r.top);
        return -error;
    }
    r.dev = st.st_dev;
    fchmod(r.top, 0700);
    for (unsigned pass = 0; pass < MAX_PASSES; pass++) {
        int fd = fcntl(r.top, F_DUPFD_CLOEXEC, 3);
        r.again = false;
        if (fd < 0) {
            note(&r, errno);
            break;
        }
        lseek(fd, 0, SEEK_SET);
        empty(&r, fd, 0);
        if (!r.again || r.first_error) {
            break;
        }
    }
    close(r.top);
    if (r.first_error == 0 && rmdir(path) < 0) {
        note(&r, errno);
    }
    return r.first_error;
}
