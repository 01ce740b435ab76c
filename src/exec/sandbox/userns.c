#include "exec/sandbox/userns_int.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "exec/sandbox/linux_int.h"

struct child {
    pid_t pid;
    int go; /* closed without a byte = give up */
};

static int write_map(pid_t pid, const char *name, const char *text)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    MU_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    size_t n = strlen(text);
    return fd >= 0 && write(fd, text, n) == (ssize_t)n ? 0 : -errno;
}

MU_NORETURN static void in_child(const int pipe_fds[2], int (*fn)(void *arg), void *arg)
{
    char go;
    close(pipe_fds[1]);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    ssize_t n = read(pipe_fds[0], &go, 1);
    if (n != 1 || !fn || setgid(0) < 0 || setuid(0) < 0) {
        _exit(1);
    }
    _exit(fn(arg));
}

static int start(int64_t inside, int64_t outside, int64_t count, int (*fn)(void *arg), void *arg,
                 struct child *ret)
{
    char map[80];
    int pipe_fds[2];
    struct mu_clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    snprintf(map, sizeof map, "%lld %lld %lld\n", (long long)inside, (long long)outside,
             (long long)count);
    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        return -errno;
    }
    pid_t pid = mu_clone3(&args);
    if (pid == 0) {
        in_child(pipe_fds, fn, arg);
    }
    int r = pid < 0 ? -errno : 0;
    close(pipe_fds[0]);
    *ret = (struct child){pid, pipe_fds[1]};
    r = r ? r : write_map(pid, "uid_map", map);
    r = r ? r : write_map(pid, "gid_map", map);
    return r;
}

static int end(struct child *c)
{
    int status = 0;
    close(c->go);
    if (c->pid <= 0) {
        return 0;
    }
    while (waitpid(c->pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int mu_userns_run(int64_t inside, int64_t outside, int64_t count, int (*fn)(void *arg), void *arg)
{
    struct child c;
    int r = start(inside, outside, count, fn, arg, &c);
    if (r == 0 && write(c.go, "g", 1) != 1) {
        r = -errno;
    }
    int status = end(&c);
    return r ? r : status;
}

int mu_userns_fd(int64_t inside, int64_t outside, int64_t count)
{
    struct child c;
    char path[48];
    int fd = -1, r = start(inside, outside, count, NULL, NULL, &c);
    if (r == 0) {
        snprintf(path, sizeof path, "/proc/%d/ns/user", (int)c.pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        r = fd < 0 ? -errno : fd;
    }
    int status MU_UNUSED = end(&c);
    return r;
}
