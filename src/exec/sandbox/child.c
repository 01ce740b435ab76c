#include "exec/sandbox/child.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <uv.h>

#include "base/buf.h"

#ifndef P_PIDFD
#define P_PIDFD ((idtype_t)3)
#endif
enum { MAX_ENVIRON = 1 << 20, ROUND_MS = 10 };

struct mu_child {
    struct mu_loop *loop;
    pid_t pid;
    int pidfd;
    uv_poll_t poll;
    struct mu_timer timer;
    int64_t grace_ms;
    bool ours, leave_group, timed_out, termed, over;
    void (*done)(void *arg, int status, bool timed_out);
    void *arg;
};

int mu_child_started(pid_t pid, int64_t *ret)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0) {
        return MU_E_NOT_FOUND;
    }
    text[n] = 0;
    const char *at = strrchr(text, ')'); /* a program's name may hold anything */
    if (!at || at[1] == 0 || at[2] == 'Z') {
        return MU_E_NOT_FOUND;
    }
    mu_bytes rest = mu_str(at + 2), word = MU_B_NONE;
    for (int i = 3; i <= 22; i++) { /* the 22nd field */
        word = mu_bytes_split(&rest, ' ');
    }
    return mu_bytes_i64(word, ret);
}

/* --- the end --- */

static void on_closed(uv_handle_t *h)
{
    mu_free(h->data);
}

static void let_go(struct mu_child *c)
{
    c->over = true;
    mu_timer_clear(&c->timer);
    uv_close((uv_handle_t *)&c->poll, on_closed);
    close(c->pidfd);
    c->pidfd = -1;
}

static void on_exit_event(uv_poll_t *poll, int status MU_UNUSED, int events MU_UNUSED)
{
    struct mu_child *c = poll->data;
    siginfo_t si = {0};
    int code = -1;
    if (c->over) {
        return;
    }
    if (c->ours) {
        int r = waitid(P_PIDFD, (id_t)c->pidfd, &si, WEXITED | WNOHANG | WNOWAIT);
        if (r < 0 ? errno == EINTR : si.si_pid == 0) {
            return;
        }
        /* The group first: until it is reaped its number cannot become another's. */
        if (!c->leave_group) {
            kill(-c->pid, SIGKILL);
        }
        if (r == 0 && waitid(P_PIDFD, (id_t)c->pidfd, &si, WEXITED | WNOHANG) == 0) {
            code = si.si_code == CLD_EXITED ? si.si_status : 128 + si.si_status;
        }
    }
    bool timed_out = c->timed_out;
    void (*done)(void *, int, bool) = c->done;
    void *arg = c->arg;
    let_go(c);
    done(arg, code, timed_out);
}

static void signal_group(const struct mu_child *c, int signum)
{
    int64_t started;
    /* One that is not ours may be reaped at any moment: looked at right before. */
    if (c->ours || mu_child_started(c->pid, &started) == 0) {
        kill(-c->pid, signum);
    }
}

void mu_child_stop(struct mu_child *c, bool now)
{
    if (now || c->termed) {
        if (now) {
            mu_timer_clear(&c->timer);
            signal_group(c, SIGKILL);
        }
        return;
    }
    c->termed = true;
    signal_group(c, SIGTERM);
    if (mu_timer_set(&c->timer, c->grace_ms) < 0) {
        signal_group(c, SIGKILL);
    }
}

static void on_timer(struct mu_timer *t)
{
    struct mu_child *c = MU_CONTAINER(t, struct mu_child, timer);
    if (c->termed) {
        signal_group(c, SIGKILL);
    } else {
        c->timed_out = true;
        mu_child_stop(c, false);
    }
}

void mu_child_forget(struct mu_child *c)
{
    if (c) {
        let_go(c);
    }
}

pid_t mu_child_pid(const struct mu_child *c)
{
    return c->pid;
}

/* --- the beginning --- */

static int watch(struct mu_loop *loop, pid_t pid, bool ours, const struct mu_child_request *req,
                 struct mu_child **ret)
{
    struct mu_child *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    c->loop = loop;
    c->pid = pid;
    c->ours = ours;
    c->grace_ms = req->grace_ms;
    c->leave_group = req->leave_group;
    c->done = req->done;
    c->arg = req->arg;
    c->poll.data = c;
    mu_timer_init(&c->timer, loop, on_timer);
    c->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int r = c->pidfd < 0 ? -errno : uv_poll_init(mu_loop_uv(loop), &c->poll, c->pidfd);
    if (r < 0) {
        if (c->pidfd >= 0) {
            close(c->pidfd);
        }
        mu_free(c);
        return r == -ESRCH ? MU_E_NOT_FOUND : r;
    }
    r = uv_poll_start(&c->poll, UV_READABLE, on_exit_event);
    if (r == 0 && req->timeout_ms > 0) {
        r = mu_timer_set(&c->timer, req->timeout_ms);
    }
    if (r < 0) {
        let_go(c);
        return r;
    }
    *ret = c;
    return 0;
}

/* Its stdin: a file in memory, so that nobody has to write while it reads. */
static int open_input(mu_bytes input)
{
    if (input.len == 0) {
        return open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    MU_AUTO_CLOSE int fd = memfd_create("input", MFD_CLOEXEC);
    while (fd >= 0 && input.len) {
        ssize_t n = write(fd, input.ptr, input.len);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        input = mu_bytes_from(input, n > 0 ? (size_t)n : 0);
    }
    return fd >= 0 && lseek(fd, 0, SEEK_SET) == 0 ? mu_steal_fd(&fd) : -1;
}

static int add_actions(posix_spawn_file_actions_t *a, const struct mu_child_request *req, int in,
                       int out)
{
    int r = posix_spawn_file_actions_adddup2(a, in, 0);
    if (r == 0) {
        r = posix_spawn_file_actions_adddup2(a, out, 1);
    }
    if (r == 0) {
        r = posix_spawn_file_actions_adddup2(a, out, 2);
    }
    if (r == 0) {
        r = posix_spawn_file_actions_addclosefrom_np(a, 3);
    }
    if (r == 0 && req->cwd) {
        r = posix_spawn_file_actions_addchdir_np(a, req->cwd);
    }
    return -r;
}

static int spawn(const struct mu_child_request *req, int in, int out, pid_t *ret)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t all, none;
    int r = posix_spawn_file_actions_init(&actions);
    if (r) {
        return -r;
    }
    r = posix_spawnattr_init(&attr);
    if (r) {
        posix_spawn_file_actions_destroy(&actions);
        return -r;
    }
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    r = add_actions(&actions, req, in, out);
    if (r == 0) {
        r = -posix_spawn(ret, req->argv[0], &actions, &attr, (char *const *)(uintptr_t)req->argv,
                         (char *const *)(uintptr_t)req->env);
    }
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    return r;
}

int mu_child_start(struct mu_loop *loop, const struct mu_child_request *req, struct mu_child **ret)
{
    pid_t pid;
    MU_AUTO_CLOSE int in = open_input(req->input);
    MU_AUTO_CLOSE int out = req->output_fd >= 0 ? fcntl(req->output_fd, F_DUPFD_CLOEXEC, 3)
                                                : open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (in < 0 || out < 0) {
        return -errno;
    }
    /* Ends of dup2 that are their own source would stay close-on-exec. */
    int high = in < 3 ? fcntl(in, F_DUPFD_CLOEXEC, 3) : -1;
    int r = spawn(req, high >= 0 ? high : in, out, &pid);
    if (high >= 0) {
        close(high);
    }
    if (r < 0) {
        return r;
    }
    r = watch(loop, pid, true, req, ret);
    if (r < 0) { /* nobody would see it end */
        kill(-pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    return r;
}

int mu_child_adopt(struct mu_loop *loop, pid_t pid, int64_t started,
                   const struct mu_child_request *req, struct mu_child **ret)
{
    int64_t now;
    int r = mu_child_started(pid, &now);
    if (r < 0 || now != started) {
        return MU_E_NOT_FOUND;
    }
    r = watch(loop, pid, false, req, ret);
    /* Between the look and the pidfd it may have become another's. */
    if (r == 0 && (mu_child_started(pid, &now) < 0 || now != started)) {
        let_go(*ret);
        *ret = NULL;
        return MU_E_NOT_FOUND;
    }
    return r;
}

/* --- what left its group --- */

static bool has_variable(const char *pid, const char *variable, struct mu_buf *scratch)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/environ", pid);
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    mu_buf_clear(scratch);
    for (;;) {
        char *room = mu_buf_room(scratch, 4096);
        ssize_t n = room ? read(fd, room, 4096) : -1;
        if (n <= 0) {
            break;
        }
        scratch->len += (size_t)n;
    }
    mu_bytes rest = mu_buf_bytes(scratch);
    while (rest.ptr) {
        if (mu_bytes_is(mu_bytes_split(&rest, 0), variable)) {
            return true;
        }
    }
    return false;
}

static size_t kill_round(const char *variable, struct mu_buf *scratch)
{
    size_t found = 0;
    DIR *dir = opendir("/proc");
    for (struct dirent *e; dir && (e = readdir(dir));) {
        int64_t pid = 0, started = 0;
        if (mu_bytes_i64(mu_str(e->d_name), &pid) < 0 || pid <= 1 || pid == getpid() ||
            !has_variable(e->d_name, variable, scratch) ||
            mu_child_started((pid_t)pid, &started) < 0) {
            continue;
        }
        MU_AUTO_CLOSE int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
        if (fd >= 0 && has_variable(e->d_name, variable, scratch)) {
            syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
            found++;
        }
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

size_t mu_child_kill_marked(const char *variable, unsigned rounds)
{
    struct mu_buf scratch;
    size_t left = 0;
    mu_buf_init(&scratch, MAX_ENVIRON);
    for (unsigned i = 0; i < rounds; i++) {
        left = kill_round(variable, &scratch);
        if (left == 0) {
            break;
        }
        usleep(ROUND_MS * 1000);
    }
    mu_buf_fini(&scratch);
    return left;
}
