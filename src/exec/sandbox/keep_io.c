/* The keeper's three partners: PID 1's output, PID 1 over descriptor 3, the worker. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

#include "exec/sandbox/keep_int.h"
#include "exec/sandbox/linux_int.h"

enum {
    LOG_PIECE = 64 << 10,
    LOG_PIECES = 8,      /* of one turn */
    DRAIN_EVERY_MS = 10, /* a full log: half a MiB each */
    LINK_MESSAGES = 64,  /* of one turn */
    LINK_PER_SECOND = 2000,
    LINK_PAUSE_MS = 100,
};

/* --- PID 1's output --- */

static void to_log(struct keep *k, const char *p, size_t n)
{
    n = MU_MIN(n, (size_t)(k->log_max - k->log_size));
    while (n) {
        ssize_t done = write(k->log_fd, p, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) { /* no space: what is said from here on is lost, the task goes on */
            k->log_max = k->log_size;
            return;
        }
        k->log_size += done;
        p += done;
        n -= (size_t)done;
    }
}

static bool log_piece(struct keep *k)
{
    char piece[LOG_PIECE];
    ssize_t n = read(k->pipe_fd, piece, sizeof piece);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (n <= 0) {
        close(k->pipe_fd);
        k->pipe_fd = -1;
        return false;
    }
    to_log(k, piece, (size_t)n);
    return true;
}

void keep_log_readable(struct keep *k, int64_t now)
{
    for (int i = 0; i < LOG_PIECES && log_piece(k); i++) {
    }
    if (k->log_size >= k->log_max) {
        k->drain_at_ms = now + DRAIN_EVERY_MS;
    }
    keep_worker_tell(k);
}

void keep_log_rest(struct keep *k)
{
    /* Nobody holds the other end any more, so this ends after what the pipe can hold. */
    for (int i = 0; i < 64 && k->pipe_fd >= 0 && log_piece(k); i++) {
    }
}

/* --- PID 1 over descriptor 3 --- */

static int tell_link(struct keep *k, enum mu_fd3_kind kind, uint32_t id, int32_t value, int fd)
{
    struct mu_fd3_msg m = {.kind = (uint8_t)kind, .id = id, .value = value};
    struct iovec io = {&m, sizeof m};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    struct msghdr msg = {.msg_iov = &io, .msg_iovlen = 1};
    if (k->link_fd < 0) {
        return -EPIPE;
    }
    if (fd >= 0) {
        msg.msg_control = control.room;
        msg.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(k->link_fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static struct keep_dial *find_dial(struct keep *k, uint32_t id)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(k->dials); i++) {
        if (k->dials[i].used && k->dials[i].id == id) {
            return &k->dials[i];
        }
    }
    return NULL;
}

static bool is_port(const struct keep *k, uint16_t port)
{
    for (size_t i = 0; i < k->box.n_ports; i++) {
        if (k->box.ports[i] == port) {
            return true;
        }
    }
    return false;
}

static void answer_dial(struct keep *k, struct keep_dial *d, int fd, int why)
{
    int r MU_UNUSED = fd >= 0 ? tell_link(k, MU_FD3_DIALED, d->id, 0, fd)
                              : tell_link(k, MU_FD3_REFUSED, d->id, why, -1);
    *d = (struct keep_dial){0};
}

static void new_dial(struct keep *k, const struct mu_fd3_msg *m, int64_t now)
{
    struct keep_dial *slot = NULL;
    for (size_t i = 0; i < MU_ARRAY_LEN(k->dials) && !slot; i++) {
        slot = k->dials[i].used ? NULL : &k->dials[i];
    }
    if (!slot || !is_port(k, m->port) || find_dial(k, m->id)) {
        int r MU_UNUSED = tell_link(k, MU_FD3_REFUSED, m->id, slot ? EACCES : EMFILE, -1);
        return;
    }
    *slot = (struct keep_dial){true, false, m->port, m->id, now};
    keep_worker_tell(k);
}

static void link_message(struct keep *k, const struct mu_fd3_msg *m, int64_t now)
{
    switch (m->kind) {
    case MU_FD3_READY:
        if (!k->ready) {
            k->ready = true;
            keep_worker_state(k, "running", NULL);
        }
        break;
    case MU_FD3_DIAL:
        new_dial(k, m, now);
        break;
    case MU_FD3_SWEPT:
        if (k->sweeping) {
            struct mu_ctl_msg told = {.kind = MU_CTL_FROZEN, .value = m->value ? -EBUSY : 0};
            k->sweeping = false;
            k->frozen = true;
            int r MU_UNUSED = k->worker_fd < 0 ? 0 : mu_ctl_send(k->worker_fd, &told, -1);
        }
        break;
    default: /* whatever somebody inside makes up */
        break;
    }
}

void keep_link_readable(struct keep *k, int64_t now)
{
    if (now - k->link_window_ms >= 1000) {
        k->link_window_ms = now;
        k->link_count = 0;
    }
    for (int i = 0; i < LINK_MESSAGES; i++) {
        /* No control buffer: a descriptor from inside vanishes in the kernel. */
        union {
            struct mu_fd3_msg m;
            char room[256];
        } in;
        ssize_t n = recv(k->link_fd, &in, sizeof in, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            close(k->link_fd);
            k->link_fd = -1;
            return;
        }
        if ((size_t)n >= sizeof in.m) {
            link_message(k, &in.m, now);
        }
        if (++k->link_count > LINK_PER_SECOND) {
            k->link_from_ms = now + LINK_PAUSE_MS;
            return;
        }
    }
}

void keep_dials_expire(struct keep *k, int64_t now)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(k->dials); i++) {
        if (k->dials[i].used && now - k->dials[i].since_ms > KEEP_DIAL_MS) {
            answer_dial(k, &k->dials[i], -1, ETIMEDOUT);
        }
    }
}

/* --- freezing and stopping --- */

int keep_freeze(struct keep *k, bool on)
{
    int r = mu_cgroup_freeze(&k->cgroup, on);
    if (r == -ENOSYS) {
        r = tell_link(k, on ? MU_FD3_SWEEP : MU_FD3_THAW, 0, 0, -1);
        k->sweeping = on && r == 0;
        k->frozen = false;
        return r;
    }
    k->frozen = on && r == 0;
    return r;
}

void keep_stop(struct keep *k, int64_t grace_ms, const char *reason, const char *message)
{
    grace_ms = MU_MIN(MU_MAX(grace_ms, 0), (int64_t)INT32_MAX); /* what fits into the message */
    int64_t at = keep_now_ms() + grace_ms;
    if (!k->kill_at_ms) {
        snprintf(k->reason, sizeof k->reason, "%s", reason);
        snprintf(k->message, sizeof k->message, "%s", message);
    } else if (at >= k->kill_at_ms) {
        return; /* it ends sooner already */
    }
    k->kill_at_ms = MU_MAX(at, 1);
    if (k->frozen || k->sweeping) {
        int r MU_UNUSED = keep_freeze(k, false);
    }
    if (grace_ms <= 0 || tell_link(k, MU_FD3_STOP, 0, (int32_t)grace_ms, -1) < 0) {
        mu_pidfd_kill(k->pidfd, SIGKILL);
        mu_cgroup_kill(&k->cgroup);
    }
}

/* --- the worker --- */

static void worker_gone(struct keep *k)
{
    close(k->worker_fd);
    k->worker_fd = -1;
    for (size_t i = 0; i < MU_ARRAY_LEN(k->dials); i++) {
        k->dials[i].told = false;
    }
}

void keep_worker_state(struct keep *k, const char *state, const char *detail)
{
    struct mu_ctl_msg m = {.kind = MU_CTL_STATE};
    size_t n = strlen(state) + 1;
    snprintf(m.text, sizeof m.text, "%s", state);
    snprintf(m.text + n, sizeof m.text - n, "%s", detail ? detail : "");
    if (k->worker_fd >= 0 && mu_ctl_send(k->worker_fd, &m, -1) == -EPIPE) {
        worker_gone(k);
    }
}

/* One message that must arrive: false = not now. */
static bool tell_worker(struct keep *k, const struct mu_ctl_msg *m)
{
    int r = mu_ctl_send(k->worker_fd, m, -1);
    if (r < 0 && r != -EAGAIN) {
        worker_gone(k);
    }
    return r == 0;
}

void keep_worker_tell(struct keep *k)
{
    if (k->worker_fd >= 0 && k->log_told < k->log_size) {
        struct mu_ctl_msg m = {.kind = MU_CTL_LOG, .value = k->log_size};
        if (tell_worker(k, &m)) {
            k->log_told = k->log_size;
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(k->dials) && k->worker_fd >= 0; i++) {
        struct keep_dial *d = &k->dials[i];
        struct mu_ctl_msg m = {.kind = MU_CTL_DIAL, .id = d->id, .port = d->port};
        if (d->used && !d->told) {
            d->told = tell_worker(k, &m);
        }
    }
}

void keep_worker_new(struct keep *k, int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.uid != geteuid()) {
        close(fd);
        return;
    }
    if (k->worker_fd >= 0) {
        worker_gone(k);
    }
    k->worker_fd = fd;
    k->log_told = -1; /* it is told the size, whatever it is */
    keep_worker_state(k, k->frozen ? "paused" : k->ready ? "running" : "starting", NULL);
    keep_worker_tell(k);
}

static void worker_message(struct keep *k, const struct mu_ctl_msg *m, int *fd)
{
    struct keep_dial *d;
    switch (m->kind) {
    case MU_CTL_STOP:
        keep_stop(k, m->value, m->text, "");
        break;
    case MU_CTL_DIALED:
    case MU_CTL_REFUSED:
        d = find_dial(k, m->id);
        if (d) {
            answer_dial(k, d, m->kind == MU_CTL_DIALED ? *fd : -1,
                        m->value > 0 ? (int)m->value : ECONNREFUSED);
        }
        break;
    case MU_CTL_FREEZE:
    case MU_CTL_THAW: {
        struct mu_ctl_msg told = {.kind = MU_CTL_FROZEN};
        told.value = keep_freeze(k, m->kind == MU_CTL_FREEZE);
        if (!k->sweeping && mu_ctl_send(k->worker_fd, &told, -1) == -EPIPE) {
            worker_gone(k);
        }
        break;
    }
    default:
        break;
    }
}

void keep_worker_readable(struct keep *k)
{
    for (int i = 0; i < LINK_MESSAGES && k->worker_fd >= 0; i++) {
        struct mu_ctl_msg m;
        int fd = -1;
        int r = mu_ctl_recv(k->worker_fd, &m, &fd);
        if (r == 0) {
            return;
        }
        if (r < 0) {
            worker_gone(k);
            return;
        }
        worker_message(k, &m, &fd);
        if (fd >= 0) {
            close(fd);
        }
    }
}
