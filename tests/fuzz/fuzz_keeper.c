/* The keeper between somebody inside who says anything, workers that come and go and say anything,
 * and time: every request to dial is answered at most once, no descriptor is left open, nothing is
 * said to a partner that is no message.
 * Input: steps. A letter, then a length, then that many bytes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exec/sandbox/keep_int.h"
#include "fuzz.h"

struct world {
    struct keep k;
    int inside, worker, output; /* our ends */
    int64_t now;
    int asked, answered;
};

static int64_t ports[] = {3128, 8081};

static void pair(int type, int *ours, int *theirs)
{
    int fds[2];
    MU_CHECK(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    *ours = fds[0];
    *theirs = fds[1];
}

static void begin(struct world *w)
{
    static int null = -1;
    int pipe_fds[2];
    memset(w, 0, sizeof *w);
    struct keep *k = &w->k;
    if (null < 0) {
        null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    }
    k->session_fd = k->pidfd = k->listen_fd = k->worker_fd = k->cgroup.unified_fd = -1;
    k->box.ports = ports;
    k->box.n_ports = MU_ARRAY_LEN(ports);
    k->log_fd = null;
    k->log_max = 300;
    MU_CHECK(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) == 0);
    k->pipe_fd = pipe_fds[0];
    w->output = pipe_fds[1];
    pair(SOCK_SEQPACKET, &w->inside, &k->link_fd);
    w->worker = -1;
    w->now = keep_now_ms();
}

/* What came out for somebody inside: whole messages of the kinds that go there. */
static void hear_inside(struct world *w)
{
    struct mu_fd3_msg m;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    for (;;) {
        struct iovec io = {&m, sizeof m};
        struct msghdr msg = {.msg_iov = &io,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
        if (recvmsg(w->inside, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0) {
            return;
        }
        const struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        MU_CHECK(!!c == (m.kind == MU_FD3_DIALED));
        MU_CHECK(m.kind >= MU_FD3_DIALED && m.kind <= MU_FD3_THAW);
        if (c) {
            int fd;
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
            close(fd);
        }
        w->answered += m.kind == MU_FD3_DIALED || m.kind == MU_FD3_REFUSED;
    }
}

static void hear_worker(struct world *w)
{
    struct mu_ctl_msg m;
    while (w->worker >= 0 && mu_ctl_recv(w->worker, &m, NULL) == 1) {
        MU_CHECK(m.kind >= MU_CTL_STATE && m.kind <= MU_CTL_FROZEN);
        MU_CHECK(memchr(m.text, 0, sizeof m.text));
        MU_CHECK(m.kind != MU_CTL_LOG || (m.value >= 0 && m.value <= w->k.log_max));
        MU_CHECK(m.kind != MU_CTL_DIAL || m.port == 3128 || m.port == 8081);
    }
}

static void say(int to, mu_bytes what, bool with_fd)
{
    struct iovec io = {(void *)(uintptr_t)what.ptr, what.len};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control = {.room = {0}};
    struct msghdr msg = {.msg_iov = &io, .msg_iovlen = 1};
    int fds[2] = {2, 2};
    if (with_fd) {
        size_t n = what.len % 2 ? sizeof fds : sizeof *fds;
        msg.msg_control = control.room;
        msg.msg_controllen = CMSG_SPACE(n);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n);
        memcpy(CMSG_DATA(c), fds, n);
    }
    ssize_t n MU_UNUSED = sendmsg(to, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void new_worker(struct world *w)
{
    int theirs;
    if (w->worker >= 0) {
        close(w->worker);
    }
    pair(SOCK_SEQPACKET, &w->worker, &theirs);
    keep_worker_new(&w->k, theirs);
}

static void step(struct world *w, unsigned letter, mu_bytes what)
{
    struct keep *k = &w->k;
    switch (letter) {
    case 'i': /* somebody inside */
    case 'I':
        say(w->inside, what, letter == 'I');
        w->asked += what.len >= sizeof(struct mu_fd3_msg) && (uint8_t)what.ptr[0] == MU_FD3_DIAL;
        if (k->link_fd >= 0) {
            keep_link_readable(k, w->now);
        }
        break;
    case 'w': /* the worker */
    case 'W':
        if (w->worker >= 0) {
            say(w->worker, what, letter == 'W');
        }
        if (k->worker_fd >= 0) {
            keep_worker_readable(k);
        }
        break;
    case 'n':
        new_worker(w);
        break;
    case 'o': { /* output of the task */
        ssize_t n MU_UNUSED = write(w->output, what.ptr, what.len);
        if (k->pipe_fd >= 0) {
            keep_log_readable(k, w->now);
        }
        break;
    }
    default: /* time */
        w->now += letter * 100;
        keep_dials_expire(k, w->now);
        break;
    }
    MU_CHECK(k->log_size <= k->log_max && k->kill_at_ms >= 0);
    MU_CHECK(memchr(k->reason, 0, sizeof k->reason));
    hear_inside(w);
    hear_worker(w);
}

static void finish(struct world *w)
{
    int fds[] = {w->inside, w->worker, w->output, w->k.link_fd, w->k.worker_fd, w->k.pipe_fd};
    for (size_t i = 0; i < MU_ARRAY_LEN(fds); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    mu_bytes in = fuzz_bytes(data, size);
    int lowest = dup(2), again;
    close(lowest);
    begin(&w);
    while (in.len) {
        unsigned letter = fuzz_byte(&in), n = fuzz_byte(&in);
        mu_bytes what = mu_bytes_head(in, MU_MIN((size_t)n, in.len));
        in = mu_bytes_from(in, what.len);
        step(&w, letter, what);
    }
    MU_CHECK(w.answered <= w.asked);
    finish(&w);
    again = dup(2); /* the number of one that was left open would be skipped */
    close(again);
    static bool second; /* begin() opens one for ever */
    MU_CHECK(again == lowest || !second);
    second = true;
    return 0;
}
