#include "runner/procs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "base/env.h"
#include "runner/bridge.h"
#include "runner/procs_int.h"

enum {
    READ_BLOCK = 16 << 10,
    SAY_PENDING = 1 << 20, /* a read block of empty lines, each with its tag */
    DRAIN_QUIET_MS = 300,  /* the child is gone, somebody else holds the pipe */
    DRAIN_MAX_MS = 2000,
    REST_MS = 2000,
    GROUP_MS = 1000, /* TERM was sent and the first of the group is gone: the others */
};

int64_t mu_mono_ms(void)
{
    return mu_env_mono_ms(&mu_env_real);
}

void mu_note(const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = snprintf(text, sizeof text, "muster runner: ");
    n += vsnprintf(text + n, sizeof text - (size_t)n - 1, fmt, ap);
    va_end(ap);
    n = MU_MIN(n, (int)sizeof text - 2);
    text[n++] = '\n';
    struct pollfd out = {2, POLLOUT, 0};
    if (poll(&out, 1, 1000) > 0) { /* nobody who does not read may stop us */
        (void)!write(2, text, (size_t)n);
    }
}

int mu_procs_init(struct mu_procs *p, struct mu_err *err)
{
    *p = (struct mu_procs){.sigfd = -1};
    mu_buf_init(&p->say, SAY_PENDING);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* an ignored one would reap for itself */
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) {
        return mu_err_set(err, -errno, "signals: %s", mu_err_text(-errno));
    }
    p->sigfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (p->sigfd < 0) {
        return mu_err_set(err, -errno, "signals: %s", mu_err_text(-errno));
    }
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* when it is not PID 1 */
    return 0;
}

void mu_procs_fini(struct mu_procs *p)
{
    for (size_t i = 0; i < p->n_linger; i++) {
        close(p->linger[i]);
    }
    p->n_linger = 0;
    if (p->sigfd >= 0) {
        close(p->sigfd);
        p->sigfd = -1;
    }
    mu_buf_fini(&p->say);
}

/* Which of the spare children it is; NULL = none. */
static pid_t *spare_of(struct mu_procs *p, pid_t pid)
{
    for (size_t i = 0; i < MU_SPARES; i++) {
        if (p->spare[i] == pid) {
            return &p->spare[i];
        }
    }
    return NULL;
}

static void reap(struct mu_procs *p)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        pid_t *spare = spare_of(p, pid);
        if (pid == p->child) {
            p->ended = true;
            p->wstatus = status;
        } else if (spare) {
            *spare = 0;
        } else if (p->watch) {
            p->watch->ended(p->watch->arg, pid, status);
        }
    }
}

void mu_procs_stop(struct mu_procs *p, int64_t grace_ms)
{
    int64_t at = mu_mono_ms() + grace_ms;
    if (!p->stopping || at < p->kill_at) {
        p->kill_at = at;
    }
    p->stopping = true;
    if (p->child > 0 && !p->ended) {
        (void)kill(-p->child, SIGTERM);
    }
}

void mu_procs_signals(struct mu_procs *p)
{
    struct signalfd_siginfo info;
    while (read(p->sigfd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGCHLD) {
            mu_procs_stop(p, MU_STOP_GRACE_MS);
        }
    }
    reap(p);
}

/* --- standard output --- */

static void write_say(struct mu_procs *p)
{
    struct pollfd out = {1, POLLOUT, 0};
    while (p->say.len && poll(&out, 1, 0) > 0) {
        /* A pipe that is ready takes PIPE_BUF bytes without blocking. */
        ssize_t n = write(1, p->say.ptr, MU_MIN(p->say.len, (size_t)4096));
        if (n < 0 && errno != EINTR && errno != EAGAIN) {
            p->mute = true;
            mu_buf_clear(&p->say);
        } else if (n > 0) {
            mu_buf_consume(&p->say, (size_t)n);
        }
    }
}

void mu_say(struct mu_procs *p, mu_bytes b)
{
    static const mu_bytes mark = {"\n[... more output is in agent_output.txt ...]\n", 46};
    if (p->watch) {
        p->watch->said(p->watch->arg, b);
    }
    if (p->mute || p->said > MU_SAY_MAX) {
        return;
    }
    p->said += (int64_t)b.len;
    if (p->said > MU_SAY_MAX) {
        mu_buf_add(&p->say, mark);
    } else {
        mu_redact_feed(p->redact, &p->say_stream, b, &p->say);
    }
    p->say.failed = 0; /* what does not fit is lost */
    write_say(p);
}

void mu_say_flush(struct mu_procs *p, int64_t ms)
{
    if (p->redact) {
        mu_redact_flush(p->redact, &p->say_stream, &p->say);
        p->say.failed = 0;
    }
    for (int64_t end = mu_mono_ms() + ms; p->say.len && mu_mono_ms() < end;) {
        struct pollfd out = {1, POLLOUT, 0};
        (void)poll(&out, 1, 50);
        write_say(p);
    }
}

/* --- the loop --- */

struct running {
    struct mu_procs *p;
    const struct mu_proc *proc;
    int out;
    int64_t started, last_read;
    bool told; /* TERM because its time is over */
    int64_t kill_at;
    bool timed_out;
};

enum {
    AT_SIG,
    AT_OUT,
    AT_SAY,
    AT_LINGER,
    AT_WATCH = AT_LINGER + MU_LINGER,
    AT_BRIDGE = AT_WATCH + MU_WATCH_FDS,
};

/* Everything that is there, or until the reader of standard output is behind. */
static void read_output(struct running *r)
{
    char block[READ_BLOCK];
    while (r->out >= 0 && !r->p->say.len) {
        ssize_t n = read(r->out, block, sizeof block);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            close(r->out);
            r->out = -1;
            return;
        }
        r->last_read = mu_mono_ms();
        if (r->proc->sink) {
            r->proc->sink(r->proc->arg, mu_bytes_of(block, (size_t)n));
        }
        if ((size_t)n < sizeof block) {
            return; /* signals first */
        }
    }
}

static void read_linger(struct mu_procs *p, size_t i)
{
    char block[READ_BLOCK];
    ssize_t n = read(p->linger[i], block, sizeof block);
    if (n > 0) {
        mu_say(p, mu_bytes_of(block, (size_t)n));
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        close(p->linger[i]);
        p->linger[i] = -1;
    }
}

/* One turn: waits at most `ms` for anything, and serves it. */
static void turn(struct running *r, int64_t ms)
{
    struct mu_procs *p = r->p;
    struct pollfd fds[AT_BRIDGE + MU_BRIDGE_FDS];
    for (size_t i = 0; i < AT_BRIDGE; i++) {
        fds[i] = (struct pollfd){-1, 0, 0};
    }
    fds[AT_SIG] = (struct pollfd){p->sigfd, POLLIN, 0};
    if (p->say.len) {
        fds[AT_SAY] = (struct pollfd){1, POLLOUT, 0};
    } else {
        fds[AT_OUT] = (struct pollfd){r->out, POLLIN, 0};
        for (size_t i = 0; i < p->n_linger; i++) {
            fds[AT_LINGER + i] = (struct pollfd){p->linger[i], POLLIN, 0};
        }
    }
    size_t n_watch = p->watch ? p->watch->want(p->watch->arg, fds + AT_WATCH, &ms) : 0;
    size_t n_bridge = p->bridge ? mu_bridge_want(p->bridge, fds + AT_BRIDGE) : 0;
    int n = poll(fds, AT_BRIDGE + n_bridge, (int)MU_MAX(ms, (int64_t)0));
    if (n <= 0) {
        for (size_t i = 0; i < AT_BRIDGE + n_bridge; i++) {
            fds[i].revents = 0;
        }
    }
    if (fds[AT_SIG].revents) {
        mu_procs_signals(p);
    }
    if (fds[AT_SAY].revents) {
        write_say(p);
    }
    if (fds[AT_OUT].revents) {
        read_output(r);
    }
    for (size_t i = 0; i < p->n_linger; i++) {
        if (fds[AT_LINGER + i].revents) {
            read_linger(p, i);
        }
    }
    if (n_bridge) {
        mu_bridge_serve(p->bridge, fds + AT_BRIDGE, n_bridge, p);
    }
    if (p->watch) { /* also when nothing came: its times */
        p->watch->serve(p->watch->arg, fds + AT_WATCH, n_watch);
    }
}

void mu_procs_turn(struct mu_procs *p, int64_t ms)
{
    static const struct mu_proc nothing = {.in = -1, .out = -1};
    struct running r = {.p = p, .proc = &nothing, .out = -1};
    turn(&r, ms);
}

/* Limits of time; returns how long the next turn may wait. */
static int64_t watch_time(struct running *r)
{
    struct mu_procs *p = r->p;
    int64_t now = mu_mono_ms();
    if (r->proc->timeout_ms && !r->told && now - r->started >= r->proc->timeout_ms) {
        r->told = r->timed_out = true;
        r->kill_at = now + (r->proc->even_stopping ? 0 : MU_STOP_GRACE_MS);
        (void)kill(-p->child, SIGTERM);
    }
    int64_t kill_at = r->kill_at;
    if (p->stopping && !r->proc->even_stopping && (!kill_at || p->kill_at < kill_at)) {
        kill_at = p->kill_at;
    }
    if (kill_at && now >= kill_at) {
        (void)kill(-p->child, SIGKILL);
        if (!r->proc->even_stopping) {
            mu_procs_kill_rest(p);
        }
        return 100;
    }
    int64_t next = kill_at ? kill_at - now : 60000;
    if (r->proc->timeout_ms && !r->told) {
        next = MU_MIN(next, r->started + r->proc->timeout_ms - now);
    }
    return next;
}

/* The child is gone; what it wrote is still in the pipe, and others may hold it open. */
static void drain(struct running *r)
{
    int64_t end = mu_mono_ms() + DRAIN_MAX_MS;
    r->last_read = mu_mono_ms();
    if (r->p->stopping) {
        end = mu_mono_ms() + DRAIN_QUIET_MS;
    }
    while (r->out >= 0 && mu_mono_ms() < end && mu_mono_ms() - r->last_read < DRAIN_QUIET_MS) {
        turn(r, r->proc->linger ? 20 : 50);
        if (r->proc->linger && !r->p->say.len && mu_mono_ms() - r->last_read >= 20) {
            break;
        }
    }
    struct mu_procs *p = r->p;
    if (r->out >= 0 && r->proc->linger) {
        for (size_t i = 0; i < MU_LINGER; i++) {
            if (i == p->n_linger) {
                p->linger[p->n_linger++] = -1;
            }
            if (p->linger[i] < 0) {
                p->linger[i] = r->out;
                r->out = -1;
                break;
            }
        }
    }
    if (r->out >= 0) {
        close(r->out);
    }
}

/* After TERM the rest of the group gets a moment to end by itself. */
static void await_group(struct running *r, pid_t group)
{
    int64_t end = MU_MIN(mu_mono_ms() + GROUP_MS, r->p->kill_at);
    while (r->p->stopping && mu_mono_ms() < end && kill(-group, 0) == 0) {
        turn(r, 20);
    }
}

int mu_procs_status(int wstatus)
{
    return WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) : 128 + WTERMSIG(wstatus);
}

void mu_procs_run(struct mu_procs *p, const struct mu_proc *proc, struct mu_proc_end *ret)
{
    *ret = (struct mu_proc_end){0};
    mu_procs_signals(p);
    if (p->stopping && !proc->even_stopping) {
        *ret = (struct mu_proc_end){.status = 143, .stopped = true};
        return;
    }
    struct mu_spawned child;
    mu_spawn(proc, &child);
    if (child.error && child.pid <= 0) {
        *ret = (struct mu_proc_end){.status = child.error == -EACCES ? 126 : 127,
                                    .error = child.error};
        return;
    }
    p->child = child.pid;
    p->ended = false;
    struct running r = {.p = p, .proc = proc, .out = child.out, .started = mu_mono_ms()};
    while (!p->ended) {
        turn(&r, watch_time(&r));
    }
    p->child = 0;
    if (proc->kill_rest) {
        await_group(&r, child.pid);
        mu_procs_kill_rest(p);
    }
    drain(&r);
    ret->status = mu_procs_status(p->wstatus);
    ret->no_interpreter = child.no_interpreter;
    if (child.error) {
        ret->error = child.error;
        ret->status = child.error == -EACCES ? 126 : 127;
    } else if (r.timed_out) {
        ret->timed_out = true;
        ret->status = 124;
    }
    if (p->stopping && !proc->even_stopping) {
        ret->stopped = true;
        ret->status = 143;
    }
}

/* --- the end of everything --- */

/* The direct children; orphans become such. Returns how many were told. */
static int kill_children(struct mu_procs *p)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    int fd MU_AUTO_CLOSE = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    int killed = 0;
    mu_bytes rest = mu_bytes_of(text, n > 0 ? (size_t)n : 0);
    while (rest.ptr) {
        int64_t pid;
        if (mu_bytes_i64(mu_bytes_split(&rest, ' '), &pid) == 0 && pid > 1 &&
            !spare_of(p, (pid_t)pid)) {
            (void)kill((pid_t)pid, SIGKILL);
            killed++;
        }
    }
    return killed;
}

void mu_procs_kill_rest(struct mu_procs *p)
{
    int64_t end = mu_mono_ms() + REST_MS;
    do {
        if (getpid() == 1 && !p->spare[MU_SPARE_REPORT] && !p->spare[MU_SPARE_LINK]) {
            (void)kill(-1, SIGKILL);
        }
        int left = kill_children(p);
        reap(p);
        if (!left) {
            break;
        }
        struct pollfd none = {-1, 0, 0};
        (void)poll(&none, 1, 2);
    } while (mu_mono_ms() < end);
}
