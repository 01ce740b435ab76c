#include "exec/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <uv.h>

#include "base/buf.h"
#include "exec/process_int.h"

#ifndef P_PIDFD
#define P_PIDFD ((idtype_t)3)
#endif

enum {
    DEFAULT_KILL_MS = 5000,
    DEFAULT_MAX_OUTPUT = 20 << 20,
    DRAIN_MS = 2000,      /* for pipes that somebody outside the group still holds */
    GROUP_STEP_MS = 5,    /* how often a killed group is looked at … */
    GROUP_STEPS = 40,     /* … and how many times */
    READ_SIZE = 64 << 10, /* what a pipe holds */
    READS_PER_TURN = 4,
    ERR_HEAD = 32 << 10,
    ERR_MARK = 128, /* room for the line between head and tail */
    ERR_TAIL = (32 << 10) - ERR_MARK,
};

/* One polled descriptor. */
struct tap {
    uv_poll_t poll;
    int fd; /* -1 = closed or never opened */
};

enum phase {
    RUNNING,   /* the timer is the timeout */
    TERM_SENT, /* the timer sends KILL */
    KILL_SENT,
    DRAINING, /* the child was reaped; the timer gives up on the pipes */
    LEAVING,  /* the pipes are closed; the timer looks whether the group is gone */
    OVER,     /* done() was called; only handles are left to close */
};

struct mu_process {
    struct mu_loop *loop;
    pid_t pid;
    enum phase phase;
    bool end_known; /* `result.end` is decided, whatever the exit status will say */
    struct mu_process_result result;
    struct tap in, out, err, exit;
    unsigned handles; /* open libuv handles; the last one to close frees */
    struct mu_timer timer;
    struct mu_post post;
    int group_steps;

    char *input;
    size_t in_len, in_off;
    size_t out_bytes, err_bytes, max_output;
    struct mu_buf err_head;
    char *err_ring; /* ERR_TAIL bytes, the newest; position err_ring_pos is next */
    size_t err_ring_len, err_ring_pos;

    int64_t kill_ms;
    void (*on_output)(void *arg, mu_bytes piece);
    void (*done)(void *arg, const struct mu_process_result *result);
    void *arg;
};

static void try_finish(struct mu_process *p);

/* --- memory and handles --- */

static void free_process(struct mu_process *p)
{
    mu_timer_clear(&p->timer);
    mu_buf_fini(&p->err_head);
    mu_free(p->err_ring);
    mu_free(p->input);
    mu_free(p);
}

static void on_tap_closed(uv_handle_t *h)
{
    struct mu_process *p = h->data;
    if (--p->handles == 0 && p->phase == OVER) {
        free_process(p);
    }
}

static void tap_close(struct tap *t)
{
    if (t->fd >= 0) {
        uv_close((uv_handle_t *)&t->poll, on_tap_closed);
        close(t->fd);
        t->fd = -1;
    }
}

/* Takes the descriptor, also when it fails. */
static int tap_open(struct mu_process *p, struct tap *t, int fd)
{
    int r = uv_poll_init(mu_loop_uv(p->loop), &t->poll, fd);
    if (r < 0) {
        close(fd);
        return r;
    }
    t->poll.data = p;
    t->fd = fd;
    p->handles++;
    return 0;
}

static void tap_watch(struct tap *t, int events, uv_poll_cb cb)
{
    if (t->fd >= 0 && uv_poll_start(&t->poll, events, cb) < 0) {
        tap_close(t);
    }
}

/* --- stderr: its head, and the newest bytes in a ring --- */

static void err_add_tail(struct mu_process *p, mu_bytes b)
{
    if (!p->err_ring) {
        p->err_ring = mu_alloc(ERR_TAIL);
        if (!p->err_ring) {
            return; /* the head tells most */
        }
    }
    b = mu_bytes_from(b, b.len > ERR_TAIL ? b.len - ERR_TAIL : 0);
    while (b.len) {
        size_t n = MU_MIN(b.len, ERR_TAIL - p->err_ring_pos);
        memcpy(p->err_ring + p->err_ring_pos, b.ptr, n);
        p->err_ring_pos = (p->err_ring_pos + n) % ERR_TAIL;
        p->err_ring_len = MU_MIN(p->err_ring_len + n, (size_t)ERR_TAIL);
        b = mu_bytes_from(b, n);
    }
}

static void err_add(struct mu_process *p, mu_bytes b)
{
    size_t room = p->err_head.len < ERR_HEAD ? ERR_HEAD - p->err_head.len : 0;
    mu_buf_add(&p->err_head, mu_bytes_head(b, room));
    b = mu_bytes_from(b, room);
    if (b.len) {
        err_add_tail(p, b);
    }
}

static mu_bytes err_text(struct mu_process *p)
{
    size_t kept = MU_MIN(p->err_bytes, (size_t)ERR_HEAD) + p->err_ring_len;
    if (p->err_bytes > kept) {
        mu_buf_printf(&p->err_head, "\n[... %zu bytes left out ...]\n", p->err_bytes - kept);
    }
    size_t wrapped = p->err_ring_len == ERR_TAIL ? p->err_ring_pos : 0;
    if (p->err_ring_len) {
        mu_buf_add(&p->err_head, mu_bytes_of(p->err_ring + wrapped, p->err_ring_len - wrapped));
        mu_buf_add(&p->err_head, mu_bytes_of(p->err_ring, wrapped));
    }
    return mu_buf_bytes(&p->err_head);
}

/* --- the end --- */

static void signal_group(struct mu_process *p, int signum)
{
    /* Only while the child is not reaped: its number is nobody else's then. */
    if (p->phase < DRAINING && p->pid > 0) {
        kill(-p->pid, signum);
    }
}

static void kill_now(struct mu_process *p)
{
    signal_group(p, SIGKILL);
    p->phase = KILL_SENT;
    mu_timer_clear(&p->timer);
}

static void decide(struct mu_process *p, enum mu_process_end end)
{
    if (!p->end_known) {
        p->end_known = true;
        p->result.end = end;
    }
}

static void terminate(struct mu_process *p, enum mu_process_end end)
{
    if (p->phase != RUNNING) {
        return;
    }
    decide(p, end);
    signal_group(p, SIGTERM);
    p->phase = TERM_SENT;
    if (mu_timer_set(&p->timer, p->kill_ms) < 0) {
        kill_now(p);
    }
}

static void finish(struct mu_process *p)
{
    p->phase = OVER;
    mu_timer_clear(&p->timer);
    tap_close(&p->in);
    tap_close(&p->out);
    tap_close(&p->err);
    tap_close(&p->exit);
    p->result.err_text = err_text(p);
    p->done(p->arg, &p->result);
    if (p->handles == 0) {
        free_process(p);
    }
}

/* Members that were killed may need a moment. Those that were handed to us (we are process 1, or a
 * subreaper) are reaped here. */
static bool group_gone(struct mu_process *p)
{
    while (waitpid(-p->pid, NULL, WNOHANG) > 0) {
    }
    return kill(-p->pid, 0) < 0;
}

static void try_finish(struct mu_process *p)
{
    if (p->phase == DRAINING && p->out.fd < 0 && p->err.fd < 0) {
        p->phase = LEAVING;
    }
    if (p->phase != LEAVING) {
        return;
    }
    if (group_gone(p) || p->group_steps++ >= GROUP_STEPS ||
        mu_timer_set(&p->timer, GROUP_STEP_MS) < 0) {
        finish(p);
    }
}

static void on_timer(struct mu_timer *t)
{
    struct mu_process *p = MU_CONTAINER(t, struct mu_process, timer);
    switch (p->phase) {
    case RUNNING:
        terminate(p, MU_PROCESS_TIMEOUT);
        break;
    case TERM_SENT:
        kill_now(p);
        break;
    case DRAINING:
        tap_close(&p->out);
        tap_close(&p->err);
        try_finish(p);
        break;
    case LEAVING:
        try_finish(p);
        break;
    case KILL_SENT:
    case OVER:
        break;
    }
}

static void on_exit_event(uv_poll_t *poll, int status MU_UNUSED, int events MU_UNUSED)
{
    struct mu_process *p = poll->data;
    siginfo_t si = {0};
    /* Looked at first and reaped after the group was killed: until then the group's number cannot
     * be given to others. */
    int r = waitid(P_PIDFD, (id_t)p->exit.fd, &si, WEXITED | WNOHANG | WNOWAIT);
    if (r < 0 ? errno == EINTR : si.si_pid == 0) {
        return;
    }
    if (r == 0) {
        signal_group(p, SIGKILL);
        waitid(P_PIDFD, (id_t)p->exit.fd, &si, WEXITED | WNOHANG);
    }
    if (r < 0) { /* somebody else reaped it (SIGCHLD ignored): what it said is lost */
        decide(p, MU_PROCESS_EXITED);
    } else if (si.si_code == CLD_EXITED) {
        decide(p, MU_PROCESS_EXITED);
        p->result.code = si.si_status;
    } else {
        decide(p, MU_PROCESS_SIGNALED);
        p->result.signal = si.si_status;
        p->result.code = 128 + si.si_status;
    }
    p->phase = DRAINING;
    tap_close(&p->exit);
    tap_close(&p->in);
    if (mu_timer_set(&p->timer, DRAIN_MS) < 0) {
        tap_close(&p->out);
        tap_close(&p->err);
    }
    try_finish(p);
}

/* --- pipes --- */

static void flood(struct mu_process *p)
{
    decide(p, MU_PROCESS_FLOOD);
    if (p->result.end == MU_PROCESS_EXITED || p->result.end == MU_PROCESS_SIGNALED) {
        p->result.end = MU_PROCESS_FLOOD; /* it ended while the pipe still held too much */
    }
    tap_close(&p->out);
    tap_close(&p->err);
    if (p->phase < KILL_SENT) {
        kill_now(p);
    }
    try_finish(p);
}

static void take(struct mu_process *p, bool is_out, mu_bytes b)
{
    size_t *total = is_out ? &p->out_bytes : &p->err_bytes;
    size_t room = p->max_output - *total;
    mu_bytes fits = mu_bytes_head(b, room);
    *total += fits.len;
    if (is_out && fits.len && p->on_output) {
        p->on_output(p->arg, fits);
    } else if (!is_out) {
        err_add(p, fits);
    }
    if (b.len > room) {
        flood(p);
    }
}

static void on_readable(uv_poll_t *poll, int status MU_UNUSED, int events MU_UNUSED)
{
    struct mu_process *p = poll->data;
    struct tap *t = MU_CONTAINER(poll, struct tap, poll);
    char buf[READ_SIZE];
    for (int i = 0; i < READS_PER_TURN && t->fd >= 0; i++) {
        ssize_t n = read(t->fd, buf, sizeof buf);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            tap_close(t);
            try_finish(p);
            return;
        }
        take(p, t == &p->out, mu_bytes_of(buf, (size_t)n));
        if ((size_t)n < sizeof buf) {
            return;
        }
    }
}

static void on_writable(uv_poll_t *poll, int status, int events MU_UNUSED)
{
    struct mu_process *p = poll->data;
    while (status == 0 && p->in_off < p->in_len) {
        ssize_t n = write(p->in.fd, p->input + p->in_off, p->in_len - p->in_off);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n < 0) { /* it does not want to read, which is its right */
            break;
        }
        p->in_off += (size_t)n;
    }
    tap_close(&p->in);
    mu_free(p->input);
    p->input = NULL;
}

/* --- start --- */

/* Opens the three pipes; the child's ends go to `child`, which the caller closes. */
static int open_pipes(struct mu_process *p, int child[3])
{
    struct tap *taps[3] = {&p->in, &p->out, &p->err};
    for (int i = 0; i < 3; i++) {
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) < 0) {
            return -errno;
        }
        child[i] = fds[i > 0];
        int r = tap_open(p, taps[i], fds[i == 0]);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int watch_exit(struct mu_process *p)
{
    int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    int r = fd < 0 ? -errno : tap_open(p, &p->exit, fd);
    if (r < 0) { /* nobody would see it end */
        kill(-p->pid, SIGKILL);
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) {
        }
        p->pid = 0;
    }
    return r;
}

static int launch(struct mu_process *p, const struct mu_process_request *req)
{
    int child[3] = {-1, -1, -1};
    char *path = NULL;
    int r = mu_process_resolve_(req->argv[0], req->env, &path);
    if (r == 0) {
        r = open_pipes(p, child);
    }
    if (r == 0) {
        r = mu_process_spawn_(path, req, child, &p->pid);
    }
    for (int i = 0; i < 3; i++) {
        if (child[i] >= 0) {
            close(child[i]);
        }
    }
    mu_free(path);
    return r < 0 ? r : watch_exit(p);
}

static void on_not_started(struct mu_post *post)
{
    finish(MU_CONTAINER(post, struct mu_process, post));
}

static int new_process(struct mu_loop *loop, const struct mu_process_request *req,
                       struct mu_process **ret)
{
    struct mu_process *p = mu_calloc(1, sizeof *p);
    if (!p) {
        return -ENOMEM;
    }
    p->loop = loop;
    p->in.fd = p->out.fd = p->err.fd = p->exit.fd = -1;
    p->result.code = -1;
    p->kill_ms = req->kill_ms > 0 ? req->kill_ms : DEFAULT_KILL_MS;
    p->max_output = req->max_output ? req->max_output : DEFAULT_MAX_OUTPUT;
    p->on_output = req->on_output;
    p->done = req->done;
    p->arg = req->arg;
    p->post.fn = on_not_started;
    mu_buf_init(&p->err_head, ERR_HEAD + ERR_MARK + ERR_TAIL);
    mu_timer_init(&p->timer, loop, on_timer);
    int r = 0;
    if (req->input.len) {
        p->input = mu_alloc(req->input.len);
        if (p->input) {
            memcpy(p->input, req->input.ptr, req->input.len);
            p->in_len = req->input.len;
        } else {
            r = -ENOMEM;
        }
    }
    if (r == 0 && req->timeout_ms > 0) {
        r = mu_timer_set(&p->timer, req->timeout_ms);
    }
    if (r < 0) {
        free_process(p);
        return r;
    }
    *ret = p;
    return 0;
}

static int real_start(struct mu_loop *loop, const struct mu_process_request *req,
                      struct mu_process **ret)
{
    MU_CHECK(mu_loop_here(loop));
    if (!req->argv || !req->argv[0]) {
        return MU_E_INVALID;
    }
    struct mu_process *p;
    int r = new_process(loop, req, &p);
    if (r < 0) {
        return r;
    }
    r = launch(p, req);
    if (r < 0) {
        p->phase = KILL_SENT;
        mu_timer_clear(&p->timer);
        decide(p, MU_PROCESS_NOT_STARTED);
        p->result.start_errno = -r;
        mu_loop_post(loop, &p->post);
    } else {
        tap_watch(&p->in, UV_WRITABLE, on_writable);
        tap_watch(&p->out, UV_READABLE, on_readable);
        tap_watch(&p->err, UV_READABLE, on_readable);
        tap_watch(&p->exit, UV_READABLE, on_exit_event);
        MU_CHECK(p->exit.fd >= 0); /* fails only for a descriptor that is watched already */
    }
    *ret = p;
    return 0;
}

static void real_kill(struct mu_process *p)
{
    terminate(p, MU_PROCESS_KILLED);
}

const struct mu_process_ops mu_process_real = {real_start, real_kill};
