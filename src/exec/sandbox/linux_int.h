/* System calls and constants of newer kernels than the C library's headers, as thin wrappers that
 * return the result or -1 with errno. Nothing here allocates. */
#ifndef MU_EXEC_SANDBOX_LINUX_INT_H
#define MU_EXEC_SANDBOX_LINUX_INT_H

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/base.h"

/* From 424 on the numbers are the same on every architecture. */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule       445
#define SYS_landlock_restrict_self  446
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 4
#define MOVE_MOUNT_T_EMPTY_PATH 0x40
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef P_PIDFD
#define P_PIDFD ((idtype_t)3)
#endif
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

enum {
    MU_RESOLVE_NO_XDEV = 1,
    MU_RESOLVE_NO_MAGICLINKS = 2,
    MU_RESOLVE_NO_SYMLINKS = 4,
    MU_RESOLVE_BENEATH = 8,
};
struct mu_open_how {
    uint64_t flags, mode, resolve;
};
struct mu_mount_attr {
    uint64_t set, clear, propagation, userns_fd;
};
struct mu_clone_args { /* CLONE_ARGS_SIZE_VER2 */
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, cgroup;
};

static inline int mu_openat2(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
    struct mu_open_how how = {flags | O_CLOEXEC, 0, resolve};
    return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}
static inline int mu_open_tree(int dir, const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, dir, path, flags | OPEN_TREE_CLOEXEC);
}
static inline int mu_move_mount(int from, int to, const char *to_path)
{
    return (int)syscall(SYS_move_mount, from, "", to, to_path,
                        MOVE_MOUNT_F_EMPTY_PATH | (*to_path ? 0 : MOVE_MOUNT_T_EMPTY_PATH));
}
static inline int mu_mount_setattr(int dir, const char *path, unsigned flags,
                                   const struct mu_mount_attr *attr)
{
    return (int)syscall(SYS_mount_setattr, dir, path, flags, attr, sizeof *attr);
}
static inline int mu_fsopen(const char *type)
{
    return (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
}
static inline int mu_fsconfig(int fs, unsigned cmd, const char *key, const char *value)
{
    return (int)syscall(SYS_fsconfig, fs, cmd, key, value, 0);
}
static inline int mu_fsmount(int fs, unsigned attr)
{
    return (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attr);
}
static inline pid_t mu_clone3(const struct mu_clone_args *args)
{
    return (pid_t)syscall(SYS_clone3, args, sizeof *args);
}
static inline int mu_close_range(unsigned first)
{
    return (int)syscall(SYS_close_range, first, ~0U, 0);
}
static inline int mu_pidfd_kill(int pidfd, int signum)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signum, NULL, 0);
}

#endif
