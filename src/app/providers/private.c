/* Private directories of child processes. What runs in one may leave anything there: links to
 * elsewhere, folders without permissions, a tree deeper than our stack. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "app/providers/providers_int.h"

enum { ID_MAX = 64, DEPTH_MAX = 48, PASSES_MAX = 1 << 16 };

static const char prefix[] = "run-";
static const char suffix[] = "-XXXXXX";

size_t mu_private_dir_size(const char *scratch, const char *run_id)
{
    return strlen(scratch) + 1 + sizeof prefix + MU_MIN(strlen(run_id), (size_t)ID_MAX) +
           sizeof suffix;
}

int mu_private_dir_make(const char *scratch, const char *run_id, char *dst, size_t size)
{
    char id[ID_MAX + 1];
    size_t n = 0;
    for (; run_id[n] && n < ID_MAX; n++) {
        char ch = run_id[n];
        bool plain = (ch >= '0' && ch <= '9') || ((ch | 32) >= 'a' && (ch | 32) <= 'z') ||
                     ch == '-' || ch == '_';
        id[n] = plain ? ch : '_';
    }
    id[n] = 0;
    int len = snprintf(dst, size, "%s/%s%s%s", scratch, prefix, id, suffix);
    if (len < 0 || (size_t)len >= size) {
        dst[0] = 0;
        return -ENAMETOOLONG;
    }
    if (!mkdtemp(dst)) { /* 0700 */
        int e = -errno;
        dst[0] = 0;
        return e;
    }
    return 0;
}

int mu_private_dir_write(const char *dir, const char *name, mu_bytes content)
{
    MU_AUTO_CLOSE int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (at < 0) {
        return -errno;
    }
    MU_AUTO_CLOSE int fd =
        openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    while (content.len) {
        ssize_t n = write(fd, content.ptr, content.len);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        content = mu_bytes_from(content, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

struct removal {
    int top;
    unsigned moved; /* names for folders that were brought up */
    bool progress;
    int error;
};

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
    if (fd >= 0) {
        empty_dir(r, fd, depth + 1); /* takes the descriptor */
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

int mu_private_dir_remove(const char *dir)
{
    struct removal r = {.top = open_dir(AT_FDCWD, dir)};
    if (r.top < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
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

void mu_private_dirs_sweep(const char *scratch)
{
    DIR *d = opendir(scratch);
    if (!d) {
        return;
    }
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        struct stat st;
        mu_bytes name = mu_str(e->d_name);
        size_t least = sizeof prefix - 1 + sizeof suffix - 1;
        if (name.len < least || !mu_bytes_starts(name, mu_str(prefix)) ||
            name.ptr[name.len - (sizeof suffix - 1)] != '-' ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode) ||
            st.st_uid != geteuid()) {
            continue;
        }
        size_t size = strlen(scratch) + name.len + 2;
        char *path = mu_alloc(size);
        if (path) {
            snprintf(path, size, "%s/%s", scratch, e->d_name);
            (void)mu_private_dir_remove(path);
            mu_free(path);
        }
    }
    closedir(d);
}
