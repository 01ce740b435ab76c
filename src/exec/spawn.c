/* From vfork to execve. The child runs in the parent's memory, so everything it needs is prepared
 * before, and it only makes system calls: no allocation, no locks, no stdio. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "exec/process_int.h"

static const char default_path[] = "/bin:/usr/bin";

/* --- finding the program --- */

static int runnable(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        return errno == EACCES ? -EACCES : -ENOENT;
    }
    if (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0) {
        return -EACCES;
    }
    return 0;
}

static int search(mu_bytes program, mu_bytes path, char **ret)
{
    int why = -ENOENT;
    while (path.ptr) {
        mu_bytes dir = mu_bytes_split(&path, ':');
        if (dir.len == 0 || dir.len + program.len + 2 > PATH_MAX) {
            continue;
        }
        char *full = mu_alloc(dir.len + program.len + 2);
        if (!full) {
            return -ENOMEM;
        }
        memcpy(full, dir.ptr, dir.len);
        full[dir.len] = '/';
        memcpy(full + dir.len + 1, program.ptr, program.len + 1);
        int r = runnable(full);
        if (r == 0) {
            *ret = full;
            return 0;
        }
        mu_free(full);
        why = r == -EACCES ? r : why;
    }
    return why;
}

int mu_process_resolve_(const char *program, const char *const *env, char **ret)
{
    mu_bytes name = mu_str(program);
    if (name.len == 0) {
        return -ENOENT;
    }
    if (mu_bytes_find_char(name, '/') >= 0) { /* relative to the child's folder: execve will tell */
        *ret = mu_bytes_dup(name);
        return *ret ? 0 : -ENOMEM;
    }
    const char *path = default_path;
    for (; env && *env; env++) {
        if (strncmp(*env, "PATH=", 5) == 0) {
            path = *env + 5;
            break;
        }
    }
    return search(name, mu_str(path), ret);
}

char *mu_process_find(const char *program, const char *path)
{
    mu_bytes name = mu_str(program);
    char *found = NULL;
    if (mu_bytes_find_char(name, '/') >= 0) {
        return runnable(program) == 0 ? mu_bytes_dup(name) : NULL;
    }
    if (name.len == 0 || search(name, mu_str(path ? path : default_path), &found) < 0) {
        return NULL;
    }
    return found;
}

/* --- the child --- */

struct plan {
    const char *path;
    const struct mu_process_request *req;
    int fds[3];
    int status; /* the write end of the pipe that tells errno; closed by a successful execve */
    pid_t parent;
};

static const char *const no_env[] = {NULL};

MU_NORETURN static void give_up(int status)
{
    int why = errno;
    ssize_t n = write(status, &why, sizeof why);
    _exit(n == sizeof why ? 127 : 126);
}

/* Out of the way of 0..2, where the other ends are about to be put. */
static int above_stdio(int fd)
{
    return fd > 2 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static void close_from(int first)
{
    if (syscall(SYS_close_range, (unsigned)first, ~0U, 0) == 0) {
        return;
    }
    struct rlimit lim;
    rlim_t last = getrlimit(RLIMIT_NOFILE, &lim) == 0 ? MU_MIN(lim.rlim_cur, 1U << 20) : 1U << 16;
    for (int fd = first; fd < (int)last; fd++) {
        close(fd);
    }
}

/* Leaves 0, 1, 2 and 3 = the status pipe. */
static int place_fds(const struct plan *plan)
{
    int fds[3];
    int status = above_stdio(plan->status);
    if (status < 0) {
        give_up(plan->status); /* else the program would get the server's own three */
    }
    for (int i = 0; i < 3; i++) {
        fds[i] = above_stdio(plan->fds[i]);
        if (fds[i] < 0) {
            give_up(status);
        }
    }
    for (int i = 0; i < 3; i++) {
        if (dup2(fds[i], i) < 0) {
            give_up(status);
        }
    }
    if (status != 3 && dup3(status, 3, O_CLOEXEC) < 0) {
        give_up(status);
    }
    close_from(4);
    return 3;
}

static void limit(int what, int64_t value)
{
    struct rlimit lim;
    if (value > 0 && getrlimit((__rlimit_resource_t)what, &lim) == 0) {
        lim.rlim_max = MU_MIN(lim.rlim_max, (rlim_t)value);
        lim.rlim_cur = lim.rlim_max;
        setrlimit((__rlimit_resource_t)what, &lim);
    }
}

static void die_first(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        /* Without /proc, or where it is not permitted, the child is like any other process. */
        ssize_t n MU_UNUSED = write(fd, "500", 3);
        close(fd);
    }
}

static void default_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int sig = 1; sig < NSIG; sig++) {
        sigaction(sig, &dfl, NULL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Not inlined: its frame must not be that of the parent. */
MU_NORETURN static __attribute__((noinline)) void child(const struct plan *plan)
{
    const struct mu_process_request *req = plan->req;
    int status = place_fds(plan);
    if (setsid() < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        give_up(status);
    }
    if (getppid() != plan->parent) { /* it died before PDEATHSIG was set */
        _exit(126);
    }
    die_first();
    umask(077);
    limit(RLIMIT_AS, req->max_memory_bytes);
    limit(RLIMIT_CPU, req->max_cpu_s);
    limit(RLIMIT_NOFILE, req->max_files);
    if (chdir(req->cwd ? req->cwd : "/") < 0) {
        give_up(status);
    }
    default_signals();
    execve(plan->path, (char *const *)req->argv, (char *const *)(req->env ? req->env : no_env));
    give_up(status);
}

/* --- the parent --- */

/* The errno that the child reported, 0 when execve succeeded. */
static int read_status(int fd)
{
    int why = 0;
    ssize_t n;
    do {
        n = read(fd, &why, sizeof why);
    } while (n < 0 && errno == EINTR);
    return n == sizeof why ? why : 0;
}

static pid_t fork_child(const struct plan *plan)
{
    /* A handler that ran in the child would act on the parent's memory. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = vfork();
    if (pid == 0) {
        child(plan);
    }
    int why = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = why;
    return pid;
}

int mu_process_spawn_(const char *path, const struct mu_process_request *req, const int fds[3],
                      pid_t *ret)
{
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        return -errno;
    }
    struct plan plan = {path, req, {fds[0], fds[1], fds[2]}, pipe_fds[1], getpid()};
    pid_t pid = fork_child(&plan);
    int r = pid < 0 ? -errno : 0;
    close(pipe_fds[1]);
    if (r == 0) {
        r = -read_status(pipe_fds[0]);
        if (r < 0) {
            while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
            }
        } else {
            *ret = pid;
        }
    }
    close(pipe_fds[0]);
    return r;
}
