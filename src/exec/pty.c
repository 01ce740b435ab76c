#include "exec/pty.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>

/* What the C libraries take for a request; the kernel looks at 32 bits. */
#ifdef __GLIBC__
typedef unsigned long request;
#else
typedef int request;
#endif
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

int mu_pty_resize(int fd, unsigned cols, unsigned rows)
{
    if (!cols || !rows || cols > MU_PTY_SIDE_MAX || rows > MU_PTY_SIDE_MAX) {
        return -EINVAL;
    }
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols};
    return ioctl(fd, TIOCSWINSZ, &size) < 0 ? -errno : 0;
}

/* Both sides. The far one by the near one, not by a name that somebody could have put there. */
static int open_pair(int *ret_near, int *ret_far)
{
    int near MU_AUTO_CLOSE = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    int unlock = 0;
    if (near < 0 || ioctl(near, (request)TIOCSPTLCK, &unlock) < 0) {
        return -errno;
    }
    int far = ioctl(near, (request)TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (far < 0) { /* a kernel before 4.13, or a filter that does not know it */
        unsigned number;
        char path[40];
        if (ioctl(near, (request)TIOCGPTN, &number) < 0) {
            return -errno;
        }
        snprintf(path, sizeof path, "/dev/pts/%u", number);
        far = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    }
    if (far < 0) {
        return -errno;
    }
    *ret_near = mu_steal_fd(&near);
    *ret_far = far;
    return 0;
}

static void close_from(unsigned first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0U, 0U) == 0) {
        return;
    }
#endif
    for (int fd = (int)first; fd < 4096; fd++) {
        close(fd);
    }
}

/* Only system calls from here on. */
static MU_NORETURN void become(const struct mu_pty_spawn *s, int far, int report)
{
    sigset_t none;
    int r = 0;
    sigemptyset(&none);
    for (int sig = 1; sig < 32; sig++) {
        signal(sig, SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid();
    int high = fcntl(report, F_DUPFD_CLOEXEC, 10), in = s->in >= 0 ? s->in : far;
    if (high < 0 || ioctl(far, TIOCSCTTY, 0) < 0 || dup2(in, 0) < 0 || dup2(far, 1) < 0 ||
        dup2(far, 2) < 0 || (s->cwd && chdir(s->cwd) < 0)) {
        r = errno;
    } else {
        dup2(high, 3);
        fcntl(3, F_SETFD, FD_CLOEXEC);
        close_from(4);
        high = 3;
        execve(s->program, (char *const *)s->argv, s->env);
        r = errno;
    }
    (void)!write(high, &r, sizeof r);
    _exit(127);
}

pid_t mu_pty_spawn(const struct mu_pty_spawn *s, int *ret_fd)
{
    int near MU_AUTO_CLOSE = -1, far MU_AUTO_CLOSE = -1, error = 0;
    int report[2] = {-1, -1};
    int r = open_pair(&near, &far);
    r = r ? r : mu_pty_resize(near, s->cols, s->rows);
    if (r || pipe2(report, O_CLOEXEC) < 0) {
        return r ? r : -errno;
    }
    pid_t pid = fork();
    if (pid == 0) {
        become(s, far, report[1]);
    }
    r = pid < 0 ? -errno : 0;
    close(report[1]);
    ssize_t n = 0;
    while (!r && (n = read(report[0], &error, sizeof error)) < 0 && errno == EINTR) {
    }
    close(report[0]);
    if (n == sizeof error) { /* it is gone, and reaping it here takes it from nobody */
        (void)waitpid(pid, NULL, 0);
        r = -error;
    }
    if (r) {
        return r;
    }
    (void)fcntl(near, F_SETFL, O_NONBLOCK);
    *ret_fd = mu_steal_fd(&near);
    return pid;
}
