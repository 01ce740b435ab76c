#include "runner/bridge.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "exec/sandbox/fd3.h"
#include "runner/procs.h"

enum { BLOCK = 16 << 10, SETUP_WAIT_MS = 5000, SWEEP_ROUNDS = 50, BACKLOG = 128 };
_Static_assert((int)MU_BRIDGE_PORTS == (int)MU_FD3_PORTS, "one place for each port");

/* One direction of a connection. The block exists only while bytes wait in it. */
struct way {
    char *block;
    size_t at, len;
    bool eof, done; /* nothing more to read; and the other side was told */
};

struct conn {
    int inner, outer; /* accepted; from the keeper, -1 while it was only asked for */
    uint32_t id;
    struct way out, in; /* inner to outer, outer to inner */
};

struct mu_bridge {
    int fd;
    int ports_fd[MU_BRIDGE_PORTS];
    uint16_t ports[MU_BRIDGE_PORTS];
    size_t n_ports, n_conns, n_asked;
    struct conn conns[MU_BRIDGE_CONNS];
    uint32_t last_id;
    /* which entry of the polled array belongs to whom */
    struct {
        int16_t conn; /* -1: the keeper, -2 - i: port i */
        bool outer;
    } who[MU_BRIDGE_FDS];
};

static void tell(struct mu_bridge *b, uint8_t kind, uint32_t id, int32_t value)
{
    struct mu_fd3_msg m = {.kind = kind, .id = id, .value = value};
    (void)!send(b->fd, &m, sizeof m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int listen_at(uint16_t port)
{
    int fd MU_AUTO_CLOSE = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, BACKLOG) < 0) {
        return -errno;
    }
    return mu_steal_fd(&fd);
}

static int set_up(struct mu_bridge *b, struct mu_err *err)
{
    struct {
        struct mu_fd3_msg head;
        uint16_t ports[MU_FD3_PORTS];
    } m;
    struct pollfd wait = {b->fd, POLLIN, 0};
    if (poll(&wait, 1, SETUP_WAIT_MS) <= 0) {
        return mu_err_set(err, MU_E_TIMEOUT, "the keeper said nothing");
    }
    ssize_t n = recv(b->fd, &m, sizeof m, 0);
    if (n < (ssize_t)sizeof m.head || m.head.kind != MU_FD3_SETUP || m.head.value < 0 ||
        m.head.value > MU_FD3_PORTS ||
        (size_t)n < sizeof m.head + (size_t)m.head.value * sizeof(uint16_t)) {
        return mu_err_set(err, MU_E_PROTOCOL, "the keeper's first message is no set-up");
    }
    for (int i = 0; i < m.head.value; i++) {
        int fd = listen_at(m.ports[i]);
        if (fd < 0) {
            return mu_err_set(err, fd, "port %u: %s", m.ports[i], mu_err_text(fd));
        }
        b->ports_fd[b->n_ports] = fd;
        b->ports[b->n_ports++] = m.ports[i];
    }
    return 0;
}

int mu_bridge_open(int fd, struct mu_bridge **ret, struct mu_err *err)
{
    struct mu_bridge *b = mu_calloc(1, sizeof *b);
    if (!b) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    b->fd = fd;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    int r = set_up(b, err);
    if (r) {
        mu_bridge_close(b);
        return r;
    }
    tell(b, MU_FD3_READY, 0, 0);
    *ret = b;
    return 0;
}

static void drop(struct mu_bridge *b, struct conn *c)
{
    close(c->inner);
    if (c->outer >= 0) {
        close(c->outer);
    } else {
        b->n_asked--;
    }
    mu_free(c->out.block);
    mu_free(c->in.block);
    *c = b->conns[--b->n_conns];
}

struct mu_bridge *mu_bridge_close(struct mu_bridge *b)
{
    if (b) {
        while (b->n_conns) {
            drop(b, &b->conns[b->n_conns - 1]);
        }
        for (size_t i = 0; i < b->n_ports; i++) {
            close(b->ports_fd[i]);
        }
        close(b->fd);
        mu_free(b);
    }
    return NULL;
}

static void want(struct mu_bridge *b, struct pollfd *fds, size_t *n, int fd, short events,
                 int16_t conn, bool outer)
{
    if (events) {
        fds[*n] = (struct pollfd){fd, events, 0};
        b->who[*n].conn = conn;
        b->who[*n].outer = outer;
        (*n)++;
    }
}

static bool can_read(const struct way *w)
{
    return !w->eof && !w->len;
}

size_t mu_bridge_want(struct mu_bridge *b, struct pollfd *fds)
{
    size_t n = 0;
    if (b->fd >= 0) {
        want(b, fds, &n, b->fd, POLLIN, -1, false);
    }
    bool room = b->fd >= 0 && b->n_conns < MU_BRIDGE_CONNS && b->n_asked < MU_FD3_DIALS;
    for (size_t i = 0; i < b->n_ports && room; i++) {
        want(b, fds, &n, b->ports_fd[i], POLLIN, (int16_t)(-2 - (int)i), false);
    }
    for (size_t i = 0; i < b->n_conns; i++) {
        struct conn *c = &b->conns[i];
        if (c->outer < 0) {
            continue; /* what the client sends meanwhile waits in the kernel */
        }
        want(b, fds, &n, c->inner,
             (short)((can_read(&c->out) ? POLLIN : 0) | (c->in.len ? POLLOUT : 0)), (int16_t)i,
             false);
        want(b, fds, &n, c->outer,
             (short)((can_read(&c->in) ? POLLIN : 0) | (c->out.len ? POLLOUT : 0)), (int16_t)i,
             true);
    }
    return n;
}

/* Copies what is there in one direction. False: the connection is broken. */
static bool copy(struct way *w, int from, int to)
{
    if (can_read(w)) {
        w->block = w->block ? w->block : mu_alloc(BLOCK);
        if (!w->block) {
            return false;
        }
        ssize_t n = recv(from, w->block, BLOCK, MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return false;
        }
        w->eof = n == 0;
        w->at = 0;
        w->len = n > 0 ? (size_t)n : 0;
    }
    if (w->len) {
        ssize_t n = send(to, w->block + w->at, w->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return false;
        }
        w->at += n > 0 ? (size_t)n : 0;
        w->len -= n > 0 ? (size_t)n : 0;
    }
    if (!w->len) {
        mu_free(w->block);
        w->block = NULL;
        if (w->eof && !w->done) {
            w->done = true;
            (void)shutdown(to, SHUT_WR);
        }
    }
    return true;
}

static void ask(struct mu_bridge *b, size_t port)
{
    int fd = accept4(b->ports_fd[port], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    struct mu_fd3_msg m = {.kind = MU_FD3_DIAL, .port = b->ports[port], .id = ++b->last_id};
    if (b->n_conns == MU_BRIDGE_CONNS || b->n_asked == MU_FD3_DIALS ||
        send(b->fd, &m, sizeof m, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof m) {
        close(fd);
        return;
    }
    b->conns[b->n_conns++] = (struct conn){.inner = fd, .outer = -1, .id = m.id};
    b->n_asked++;
}

static struct conn *asked(struct mu_bridge *b, uint32_t id)
{
    for (size_t i = 0; i < b->n_conns; i++) {
        if (b->conns[i].id == id && b->conns[i].outer < 0) {
            return &b->conns[i];
        }
    }
    return NULL;
}

/* How many processes but this one are neither stopped nor dead. */
static int running_others(void)
{
    DIR *d = opendir("/proc");
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        int64_t pid;
        char path[64], text[512];
        if (mu_bytes_i64(mu_str(e->d_name), &pid) || pid == getpid()) {
            continue;
        }
        snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
        int fd MU_AUTO_CLOSE = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t len = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        text[len > 0 ? len : 0] = 0;
        const char *state = strrchr(text, ')');
        n += state && strlen(state) > 2 && !strchr("TtZXx", state[2]);
    }
    if (d) {
        closedir(d);
    }
    return n;
}

static void sweep(struct mu_bridge *b)
{
    int left = 1;
    uint32_t round = 0;
    while (left && round < SWEEP_ROUNDS && getpid() == 1) {
        (void)kill(-1, SIGSTOP);
        struct pollfd none = {-1, 0, 0};
        (void)poll(&none, 1, 1);
        left = running_others();
        round++;
    }
    tell(b, MU_FD3_SWEPT, round, left);
}

static void obey(struct mu_bridge *b, const struct mu_fd3_msg *m, int fd, struct mu_procs *p)
{
    struct conn *c = asked(b, m->id);
    switch (m->kind) {
    case MU_FD3_DIALED:
        if (c && fd >= 0) {
            (void)fcntl(fd, F_SETFL, O_NONBLOCK);
            c->outer = fd;
            b->n_asked--;
            return; /* the descriptor is its own now */
        }
        break;
    case MU_FD3_REFUSED:
        if (c) {
            drop(b, c);
        }
        break;
    case MU_FD3_STOP:
        /* Results must be written before the keeper's own time is over. */
        mu_procs_stop(p, m->value >= 4000 ? MU_MIN((int64_t)MU_STOP_GRACE_MS, m->value - 2000)
                                          : MU_MAX(m->value, 0) / 2);
        break;
    case MU_FD3_SWEEP:
        sweep(b);
        break;
    case MU_FD3_THAW:
        (void)(getpid() == 1 && kill(-1, SIGCONT));
        break;
    default:
        break; /* a later build may say more */
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void hear(struct mu_bridge *b, struct mu_procs *p)
{
    for (int i = 0; i < 64; i++) {
        struct mu_fd3_msg m = {0};
        union {
            char space[CMSG_SPACE(sizeof(int))];
            struct cmsghdr align;
        } control;
        struct iovec iov = {&m, sizeof m};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space};
        msg.msg_controllen = sizeof control.space;
        ssize_t n = recvmsg(b->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) { /* the keeper is gone: nothing can be asked for any more */
            close(b->fd);
            b->fd = -1;
            while (b->n_asked) {
                for (size_t k = b->n_conns; k-- > 0;) {
                    if (b->conns[k].outer < 0) {
                        drop(b, &b->conns[k]);
                    }
                }
            }
            return;
        }
        int fd = -1;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            c->cmsg_len == CMSG_LEN(sizeof fd)) {
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
        }
        if (n == (ssize_t)sizeof m) {
            obey(b, &m, fd, p);
        } else if (fd >= 0) {
            close(fd);
        }
    }
}

void mu_bridge_serve(struct mu_bridge *b, const struct pollfd *fds, size_t n, struct mu_procs *p)
{
    bool broken[MU_BRIDGE_CONNS] = {false};
    for (size_t i = 0; i < n; i++) {
        int conn = b->who[i].conn;
        if (conn < 0 || !fds[i].revents) {
            continue;
        }
        struct conn *c = &b->conns[conn];
        bool lost = (fds[i].revents & (POLLERR | POLLNVAL)) != 0;
        if (lost || !copy(&c->out, c->inner, c->outer) || !copy(&c->in, c->outer, c->inner) ||
            (c->out.done && c->in.done)) {
            broken[conn] = true;
        }
    }
    for (size_t i = b->n_conns; i-- > 0;) { /* from the end: drop() moves the last one */
        if (broken[i]) {
            drop(b, &b->conns[i]);
        }
    }
    /* Afterwards, since these change which connections there are. */
    for (size_t i = 0; i < n; i++) {
        if (b->who[i].conn == -1 && fds[i].revents && b->fd >= 0) {
            hear(b, p);
        } else if (b->who[i].conn <= -2 && fds[i].revents && b->fd >= 0) {
            ask(b, (size_t)(-2 - b->who[i].conn));
        }
    }
}
