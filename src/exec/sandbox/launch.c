/* The keeper's side of a launch. */
#include "exec/sandbox/launch_int.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "exec/sandbox/linux_int.h"
#include "exec/sandbox/sandbox.h"

enum { START_MS = 30000 };

/* --- ids --- */

static int write_proc(pid_t pid, const char *name, const char *text, struct mu_failure *f)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    MU_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    size_t n = strlen(text);
    if (fd < 0 || write(fd, text, n) != (ssize_t)n) {
        return mu_fail(f, "id map", path);
    }
    return 0;
}

/* One id: setgroups must be denied before the group map may be written. A range is written by root
 * and keeps setgroups, which real packages want. */
static int map_ids(struct mu_launch *l)
{
    const struct mu_box *box = l->box;
    char uids[64], gids[64];
    if (box->range) {
        snprintf(uids, sizeof uids, "0 %lld %d\n", (long long)box->range, MU_BOX_RANGE);
        memcpy(gids, uids, sizeof gids);
    } else {
        snprintf(uids, sizeof uids, "%u %u 1\n", mu_box_uid(box), (unsigned)geteuid());
        snprintf(gids, sizeof gids, "%u %u 1\n", mu_box_uid(box), (unsigned)getegid());
        if (write_proc(l->pid, "setgroups", "deny", &l->failure) < 0) {
            return -1;
        }
    }
    if (write_proc(l->pid, "gid_map", gids, &l->failure) < 0) {
        return -1;
    }
    return write_proc(l->pid, "uid_map", uids, &l->failure);
}

/* --- birth --- */

static uint64_t namespaces(const struct mu_box *box)
{
    if (box->rung == MU_RUNG_LANDLOCK) {
        return 0;
    }
    uint64_t flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWCGROUP;
    if (!mu_box_without(box, MU_WITHOUT_IPCNS)) {
        flags |= CLONE_NEWIPC;
    }
    if (box->network != MU_NET_HOST && !mu_box_without(box, MU_WITHOUT_NETNS)) {
        flags |= CLONE_NEWNET;
    }
    return flags;
}

static int give_birth(struct mu_launch *l)
{
    struct mu_clone_args args = {
        .flags = namespaces(l->box) | CLONE_PIDFD,
        .pidfd = (uintptr_t)&l->pidfd,
        .exit_signal = SIGCHLD,
    };
    if (l->cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)l->cgroup_fd;
    }
    l->pid = mu_clone3(&args);
    if (l->pid == 0) {
        mu_launch_child_(l);
    }
    return l->pid < 0 ? mu_fail(&l->failure, "clone3", "namespaces") : 0;
}

static void reap(struct mu_launch *l)
{
    mu_pidfd_kill(l->pidfd, SIGKILL);
    while (waitpid(l->pid, NULL, __WALL) < 0 && errno == EINTR) {
    }
    close(l->pidfd);
    l->pidfd = -1;
    l->pid = 0;
}

/* Until the status socket closes at execve, or tells what failed. */
static int wait_for_exec(struct mu_launch *l)
{
    struct pollfd p = {.fd = l->status[0], .events = POLLIN};
    int r;
    do {
        r = poll(&p, 1, START_MS);
    } while (r < 0 && errno == EINTR);
    if (r <= 0) {
        errno = ETIMEDOUT;
        return mu_fail(&l->failure, "start", "the child does not answer");
    }
    struct mu_failure told;
    ssize_t n = recv(l->status[0], &told, sizeof told, 0);
    if (n == (ssize_t)sizeof told) {
        told.step[sizeof told.step - 1] = told.what[sizeof told.what - 1] = 0;
        l->failure = told;
        return -1;
    }
    return 0;
}

static int let_go(struct mu_launch *l)
{
    if (l->box->rung != MU_RUNG_LANDLOCK && map_ids(l) < 0) {
        return -1;
    }
    int r = l->born ? l->born(l->arg, l->pid) : 0;
    if (r < 0) {
        errno = -r;
        return mu_fail(&l->failure, "cgroup", "add");
    }
    if (send(l->status[0], "g", 1, MSG_NOSIGNAL) != 1) {
        return mu_fail(&l->failure, "start", "go");
    }
    return wait_for_exec(l);
}

int mu_launch(struct mu_launch *l)
{
    l->pid = 0;
    l->pidfd = -1;
    memset(&l->failure, 0, sizeof l->failure);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, l->status) < 0) {
        mu_fail(&l->failure, "socketpair", "status");
        return -l->failure.err;
    }
    int r = give_birth(l);
    close(l->status[1]);
    if (r == 0) {
        r = let_go(l);
        if (r < 0) {
            reap(l);
        }
    }
    close(l->status[0]);
    return r == 0 ? 0 : l->failure.err > 0 ? -l->failure.err : -EPROTO;
}
