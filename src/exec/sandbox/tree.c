/* Building the mount tree in the child: system calls only, no allocation, no stdio. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "exec/sandbox/tree_int.h"
/* After sys/mount.h, whose names it shares. */
#include "exec/sandbox/linux_int.h"

static void copy_text(char *dst, size_t size, const char *src)
{
    size_t n = MU_MIN(strlen(src), size - 1);
    memcpy(dst, src, n);
    dst[n] = 0;
}

int mu_fail(struct mu_failure *f, const char *step, const char *what)
{
    f->err = errno;
    copy_text(f->step, sizeof f->step, step);
    copy_text(f->what, sizeof f->what, what);
    return -1;
}

/* "/proc/self/fd/<n>": how a mount option names something by descriptor. */
struct fd_path {
    char text[32];
};

static struct fd_path path_of(int fd)
{
    static const char prefix[] = "/proc/self/fd/";
    struct fd_path p;
    char digits[12];
    size_t n = 0, at = sizeof prefix - 1;
    memcpy(p.text, prefix, at);
    do {
        digits[n++] = (char)('0' + fd % 10);
        fd /= 10;
    } while (fd);
    while (n) {
        p.text[at++] = digits[--n];
    }
    p.text[at] = 0;
    return p;
}

/* --- sources --- */

static int open_bind(struct mu_step *s, struct mu_failure *f)
{
    if (s->fd < 0) {
        s->fd = mu_open_tree(AT_FDCWD, s->text, OPEN_TREE_CLONE | AT_RECURSIVE);
    }
    struct mu_mount_attr attr = {.set = s->attr};
    if (s->fd < 0) {
        return mu_fail(f, "open_tree", s->text);
    }
    if (mu_mount_setattr(s->fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr) < 0) {
        return mu_fail(f, "mount_setattr", s->text);
    }
    return 0;
}

static int open_folder(const char *path, int *fd, struct mu_failure *f)
{
    *fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return *fd < 0 ? mu_fail(f, "open", path) : 0;
}

int mu_tree_open(struct mu_tree *tree, struct mu_failure *f)
{
    if (open_folder(tree->session, &tree->session_fd, f) < 0) {
        return -1;
    }
    for (size_t i = 0; i < tree->n; i++) {
        struct mu_step *s = &tree->steps[i];
        if (s->kind == MU_STEP_BIND && open_bind(s, f) < 0) {
            return -1;
        }
        if (s->kind == MU_STEP_OVERLAY && ((s->fd < 0 && open_folder(s->text, &s->fd, f) < 0) ||
                                           open_folder(s->upper, &s->upper_fd, f) < 0 ||
                                           open_folder(s->work, &s->work_fd, f) < 0)) {
            return -1;
        }
    }
    return 0;
}

/* --- places inside: reached from the root's descriptor, never through a link --- */

static int place(int root, const char *path)
{
    return mu_openat2(root, *path ? path : ".", O_PATH,
                      MU_RESOLVE_BENEATH | MU_RESOLVE_NO_SYMLINKS | MU_RESOLVE_NO_MAGICLINKS);
}

/* The folder that `path` lies in; *name is its last part. */
static int parent_of(int root, const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    char parent[1024];
    if (!slash) {
        *name = path;
        return place(root, "");
    }
    if ((size_t)(slash - path) >= sizeof parent) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = 0;
    *name = slash + 1;
    return place(root, parent);
}

static int make_dir(int parent, const char *name, const struct mu_step *s)
{
    struct stat st;
    if (mkdirat(parent, name, s->mode) == 0) {
        return 0;
    }
    if (errno == EEXIST && fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        !S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return -1;
    }
    return errno == EEXIST ? 0 : -1;
}

static int make_file(int parent, const char *name, const struct mu_step *s)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(parent, name, flags, s->mode);
    if (fd < 0 && errno == EEXIST) { /* a base has one already */
        unlinkat(parent, name, 0);
        fd = openat(parent, name, flags, s->mode);
    }
    if (fd < 0) {
        return -1;
    }
    size_t done = 0;
    while (done < s->len) {
        ssize_t n = write(fd, s->text + done, s->len - done);
        if (n <= 0) {
            break;
        }
        done += (size_t)n;
    }
    int why = done < s->len ? errno : 0;
    close(fd);
    errno = why;
    return why ? -1 : 0;
}

static int make_node(int root, const struct mu_step *s)
{
    const char *name;
    MU_AUTO_CLOSE int parent = parent_of(root, s->path, &name);
    if (parent < 0) {
        return -1;
    }
    switch (s->kind) {
    case MU_STEP_DIR:
        return make_dir(parent, name, s);
    case MU_STEP_FILE:
        return make_file(parent, name, s);
    default: /* a link; a base may have it */
        if (symlinkat(s->text, parent, name) == 0 || errno == EEXIST) {
            return 0;
        }
        return -1;
    }
}

/* --- mounts --- */

/* A new file system of that type with up to four options (pairs, NULL-terminated; a value of NULL
 * is a flag). Returns its detached mount. */
static int new_mount(const char *type, const char *const *options, unsigned attr)
{
    MU_AUTO_CLOSE int fs = mu_fsopen(type);
    if (fs < 0) {
        return -1;
    }
    for (; *options; options += 2) {
        unsigned cmd = options[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
        if (mu_fsconfig(fs, cmd, options[0], options[1]) < 0) {
            return -1;
        }
    }
    if (mu_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL) < 0) {
        return -1;
    }
    return mu_fsmount(fs, attr);
}

static int put_mount(int root, int mount_fd, const char *path)
{
    MU_AUTO_CLOSE int at = place(root, path);
    return at < 0 ? -1 : mu_move_mount(mount_fd, at, "");
}

static int tmpfs_mount(const struct mu_step *s)
{
    char mode[8] = {'0',
                    (char)('0' + (s->mode >> 9 & 7)),
                    (char)('0' + (s->mode >> 6 & 7)),
                    (char)('0' + (s->mode >> 3 & 7)),
                    (char)('0' + (s->mode & 7)),
                    0};
    const char *const options[] = {"size", s->size, "nr_inodes", s->inodes, "mode", mode, NULL};
    return new_mount("tmpfs", options, s->attr);
}

/* The layers are named by descriptor. One that came through an id map is detached and must be in
 * our namespace first: it is put over the work folder's place in the root for that moment. */
static int overlay_mount(int root, const struct mu_step *s)
{
    struct fd_path lower = path_of(s->fd), upper = path_of(s->upper_fd), work = path_of(s->work_fd);
    const char *const options[] = {"lowerdir", lower.text,  "upperdir", upper.text, "workdir",
                                   work.text,  "userxattr", NULL,       NULL};
    if (s->idmap && mu_move_mount(s->fd, root, "") < 0) {
        return -1;
    }
    int fd = new_mount("overlay", options, s->attr);
    int why = errno;
    if (s->idmap) {
        umount2(lower.text, MNT_DETACH);
    }
    errno = why;
    return fd;
}

/* --- /proc --- */

static int mask_with(int proc, const char *name, int source, unsigned attr_set)
{
    MU_AUTO_CLOSE int at = place(proc, name);
    if (at < 0) {
        return errno == ENOENT ? 0 : -1;
    }
    struct mu_mount_attr attr = {.set = attr_set};
    MU_AUTO_CLOSE int fd =
        mu_open_tree(source < 0 ? at : source, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
    if (fd < 0 || mu_mount_setattr(fd, "", AT_EMPTY_PATH, &attr) < 0) {
        return -1;
    }
    return mu_move_mount(fd, at, "");
}

static const char *const proc_readonly[] = {"sys", "bus", "fs", "irq"};
static const char *const proc_empty[] = {"acpi", "asound", "scsi", "driver"};
static const char *const proc_null[] = {
    "kcore",      "keys",        "key-users",     "kmsg",       "kallsyms",    "modules",
    "timer_list", "sched_debug", "latency_stats", "interrupts", "vmallocinfo", "kpagecount",
    "kpageflags", "kpagecgroup", "sysrq-trigger", "config.gz",
};

static int mask_proc(int proc, int empty, int null, struct mu_failure *f)
{
    const unsigned plain = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    for (size_t i = 0; i < MU_ARRAY_LEN(proc_readonly); i++) {
        if (mask_with(proc, proc_readonly[i], -1, plain | MOUNT_ATTR_RDONLY) < 0) {
            return mu_fail(f, "mask /proc", proc_readonly[i]);
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(proc_empty); i++) {
        if (mask_with(proc, proc_empty[i], empty, plain | MOUNT_ATTR_RDONLY) < 0) {
            return mu_fail(f, "mask /proc", proc_empty[i]);
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(proc_null); i++) {
        if (mask_with(proc, proc_null[i], null, plain | MOUNT_ATTR_RDONLY) < 0) {
            return mu_fail(f, "mask /proc", proc_null[i]);
        }
    }
    return 0;
}

static int mount_proc(int root, const struct mu_step *s, struct mu_failure *f)
{
    static const char *const no_options[] = {NULL};
    /* The folder under the mount point stays what it is: empty. It masks others. */
    MU_AUTO_CLOSE int empty = place(root, s->path);
    MU_AUTO_CLOSE int null = place(root, "dev/null");
    MU_AUTO_CLOSE int fd = new_mount("proc", no_options, s->attr);
    if (fd < 0) {
        return mu_fail(f, "mount proc", s->path);
    }
    if (empty < 0 || null < 0 || mu_move_mount(fd, empty, "") < 0) {
        return mu_fail(f, "place proc", s->path);
    }
    return s->size ? mask_proc(fd, empty, null, f) : 0;
}

/* --- all of it --- */

static int seal(int root, const char *path)
{
    struct mu_mount_attr attr = {.set = MOUNT_ATTR_RDONLY};
    MU_AUTO_CLOSE int at = place(root, path);
    return at < 0 ? -1 : mu_mount_setattr(at, "", AT_EMPTY_PATH, &attr);
}

static int build_step(int root, struct mu_step *s, struct mu_failure *f)
{
    static const char *const pts_options[] = {"newinstance", NULL,   "ptmxmode", "0666",
                                              "mode",        "0620", NULL};
    static const char *const names[] = {"mkdir", "write",  "symlink", "bind", "mount tmpfs",
                                        "proc",  "devpts", "overlay", "seal"};
    int fd = -1, r = -1;
    switch (s->kind) {
    case MU_STEP_DIR:
    case MU_STEP_FILE:
    case MU_STEP_LINK:
        r = make_node(root, s);
        break;
    case MU_STEP_BIND:
        r = put_mount(root, s->fd, s->path);
        fd = s->fd;
        break;
    case MU_STEP_TMPFS:
        fd = tmpfs_mount(s);
        r = fd < 0 ? -1 : put_mount(root, fd, s->path);
        break;
    case MU_STEP_PTS:
        fd = new_mount("devpts", pts_options, s->attr);
        r = fd < 0 ? -1 : put_mount(root, fd, s->path);
        break;
    case MU_STEP_OVERLAY:
        fd = overlay_mount(root, s);
        r = fd < 0 ? -1 : put_mount(root, fd, s->path);
        break;
    case MU_STEP_PROC:
        return mount_proc(root, s, f);
    case MU_STEP_SEAL:
        r = seal(root, s->path);
        break;
    }
    if (r < 0) {
        return mu_fail(f, names[s->kind], *s->path ? s->path : "/");
    }
    if (fd >= 0) {
        close(fd);
    }
    return 0;
}

/* The first step is the root itself; it covers the session's folder while it is built. Returns its
 * descriptor. */
static int mount_root(struct mu_step *s, int session_fd, struct mu_failure *f)
{
    int fd = s->kind == MU_STEP_OVERLAY ? overlay_mount(session_fd, s) : tmpfs_mount(s);
    if (fd < 0) {
        return mu_fail(f, s->kind == MU_STEP_OVERLAY ? "overlay" : "mount tmpfs", "/");
    }
    if (mu_move_mount(fd, session_fd, "") < 0) {
        return mu_fail(f, "move_mount", "/");
    }
    return fd;
}

int mu_tree_build(struct mu_tree *tree, struct mu_failure *f)
{
    MU_AUTO_CLOSE int root = mount_root(&tree->steps[0], tree->session_fd, f);
    if (root < 0) {
        return -1;
    }
    for (size_t i = 1; i < tree->n; i++) {
        if (build_step(root, &tree->steps[i], f) < 0) {
            return -1;
        }
    }
    if (tree->seal && seal(root, "") < 0) {
        return mu_fail(f, "seal", "/");
    }
    /* The old root goes below the new one and is let go: nothing of it has a name any more. */
    if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0) {
        return mu_fail(f, "pivot_root", "/");
    }
    if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) {
        return mu_fail(f, "umount old root", "/");
    }
    return 0;
}
