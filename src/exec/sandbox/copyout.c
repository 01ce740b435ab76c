/* Copy-out: files of a workspace, whatever somebody inside made of it (sandbox.md 10). */
#include "exec/sandbox/copyout_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "exec/sandbox/ctl_int.h"
#include "exec/sandbox/linux_int.h"

enum { PATH_LIMIT = 4096, PIECE = 256 << 10, DEPTH = 64 };

/* --- where a path of the workspace lies: its folder, or the layers of an overlay --- */

/* "a/b": the depth of a relative path without empty, dot or dot-dot parts; -1 for any other. */
static int depth_of(const char *path)
{
    int depth = 1;
    if (strlen(path) >= PATH_LIMIT || !mu_bytes_is_path(mu_str(path))) {
        return -1;
    }
    for (const char *c = path; *c; c++) {
        depth += *c == '/';
    }
    return depth;
}

/* First as a mere name, which opens nothing: a device, FIFO or socket is never opened at all. */
static int open_beneath(int top, const char *path)
{
    char name[40];
    struct stat st;
    MU_AUTO_CLOSE int fd = mu_openat2(top, path, O_PATH | O_NOFOLLOW,
                                      MU_RESOLVE_BENEATH | MU_RESOLVE_NO_SYMLINKS |
                                          MU_RESOLVE_NO_MAGICLINKS | MU_RESOLVE_NO_XDEV);
    if (fd < 0) {
        /* ELOOP: a link; EXDEV: out of the folder, or onto another device. */
        return errno == ENOENT || errno == ENOTDIR ? MU_E_NOT_FOUND
               : errno == ELOOP || errno == EXDEV  ? MU_E_INVALID
                                                   : -errno;
    }
    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if (S_ISCHR(st.st_mode) && st.st_rdev == 0) { /* an overlay's sign for "removed" */
        return MU_E_NOT_FOUND;
    }
    if (!S_ISREG(st.st_mode)) {
        return MU_E_INVALID;
    }
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int r = open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return r < 0 ? -errno : r;
}

/* Whether the upper layer hides what a lower one has at `path`: a whiteout at one of its parts, or
 * a folder that was made anew. */
static bool hidden(int upper, const char *path)
{
    char part[PATH_LIMIT];
    size_t len = strlen(path);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] && path[i] != '/') {
            continue;
        }
        struct stat st;
        char value[4];
        memcpy(part, path, i);
        part[i] = 0;
        MU_AUTO_CLOSE int fd = mu_openat2(upper, part, O_PATH | O_NOFOLLOW,
                                          MU_RESOLVE_BENEATH | MU_RESOLVE_NO_SYMLINKS);
        if (fd < 0) {
            return errno != ENOENT; /* not in this layer, so nothing below is hidden by it */
        }
        if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode)) {
            return true; /* a whiteout, or something else in its place */
        }
        char name[40];
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        if (getxattr(name, "user.overlay.opaque", value, sizeof value) == 1 && value[0] == 'y') {
            return true;
        }
    }
    return false;
}

/* The overlay that covers `path` (relative to /workspace), from the journal; its index, or -1. */
static int overlay_of(int session_fd, const char *path, struct mu_arena *arena, struct mu_box *box,
                      const char **rest)
{
    mu_bytes text;
    int best = -1;
    size_t longest = 0;
    if (mu_session_read(session_fd, "journal", MU_BOX_SPEC_MAX, arena, &text) < 0 ||
        mu_box_read(text, arena, box, NULL) < 0) {
        return -1;
    }
    for (size_t i = 0; i < box->n_checkouts; i++) {
        const struct mu_box_checkout *c = &box->checkouts[i];
        size_t n = strlen(c->subdir);
        bool covers = *c->tree && (n == 0 || (strncmp(path, c->subdir, n) == 0 && path[n] == '/'));
        if (covers && (best < 0 || n >= longest)) {
            best = (int)i;
            longest = n;
            *rest = path + n + (n > 0);
        }
    }
    return best;
}

/* The opened file, or an error as read_file() tells it. *from_base = the worker's own file. */
static int open_in_workspace(int session_fd, const char *path, bool *from_base)
{
    struct mu_arena arena;
    struct mu_box box;
    char top[40] = "workspace";
    const char *rest = path;
    *from_base = false;
    mu_arena_init(&arena, 2 * MU_BOX_SPEC_MAX);
    int overlay = overlay_of(session_fd, path, &arena, &box, &rest);
    if (overlay >= 0) {
        snprintf(top, sizeof top, "upper/%d", overlay);
    }
    MU_AUTO_CLOSE int dir = openat(session_fd, top, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int fd = dir < 0 ? MU_E_NOT_FOUND : open_beneath(dir, rest);
    if (fd == MU_E_NOT_FOUND && dir >= 0 && overlay >= 0 && !hidden(dir, rest)) {
        MU_AUTO_CLOSE int base =
            open(box.checkouts[overlay].tree, O_PATH | O_DIRECTORY | O_CLOEXEC);
        fd = base < 0 ? MU_E_NOT_FOUND : open_beneath(base, rest);
        *from_base = true;
    }
    mu_arena_fini(&arena);
    return fd;
}

/* --- reading --- */

static int judge(int fd, bool from_base, int64_t range)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode)) {
        return MU_E_INVALID;
    }
    /* A second name could be one that a later reader trusts. */
    if (!from_base && st.st_nlink != 1) {
        return MU_E_INVALID;
    }
    bool owner =
        range ? st.st_uid >= range && st.st_uid < range + MU_BOX_RANGE : st.st_uid == geteuid();
    return owner || from_base ? 0 : MU_E_INVALID;
}

/* The first `max` bytes, however the file grows meanwhile. */
static int read_up_to(int fd, size_t max, char **ret, size_t *ret_len)
{
    struct mu_buf b;
    struct stat st;
    /* No more than a piece at a time is allotted: a sparse file of 9 GiB is no reason for memory.
     */
    mu_buf_init(&b, max + PIECE);
    int r = fstat(fd, &st) < 0 ? -errno : st.st_size > (int64_t)max ? MU_E_TOO_LARGE : 0;
    while (r >= 0 || r == MU_E_TOO_LARGE) {
        size_t want = MU_MIN((size_t)PIECE, max + 1 - b.len);
        char *to = mu_buf_room(&b, want);
        ssize_t n = to ? read(fd, to, want) : -1;
        if (!to || (n < 0 && errno != EINTR)) {
            r = to ? -errno : b.failed;
            break;
        }
        b.len += (size_t)MU_MAX(n, (ssize_t)0);
        if (b.len > max) {
            b.len = max;
            r = MU_E_TOO_LARGE;
            break;
        }
        if (n == 0) {
            break;
        }
    }
    if (r < 0 && r != MU_E_TOO_LARGE) {
        mu_buf_fini(&b);
        return r;
    }
    *ret = b.ptr;
    *ret_len = b.len;
    return r;
}

int mu_copyout(int session_fd, const char *path, size_t max, int64_t range, char **ret,
               size_t *ret_len)
{
    static const char prefix[] = "/workspace/";
    if (strncmp(path, prefix, sizeof prefix - 1) != 0) {
        return MU_E_INVALID;
    }
    const char *rest = path + sizeof prefix - 1;
    int depth = depth_of(rest);
    if (depth < 1 || depth > DEPTH) {
        return MU_E_INVALID;
    }
    bool from_base;
    MU_AUTO_CLOSE int fd = open_in_workspace(session_fd, rest, &from_base);
    if (fd < 0) {
        return fd;
    }
    int r = judge(fd, from_base, range);
    return r < 0 ? r : read_up_to(fd, max, ret, ret_len);
}
