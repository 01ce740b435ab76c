#include "net/local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <uv.h>

enum { READ_BLOCK = 64 << 10, QUEUE_MAX = 32 << 20, BACKLOG = 8, READS = 4 };

struct mu_local {
    uv_poll_t poll;
    struct mu_loop *loop;
    const struct mu_local_ops *ops; /* NULL: closed, or not started */
    void *arg;
    struct mu_buf out;
    size_t sent; /* of `out` */
    bool held, failed;
    int fd;
};

struct mu_listener {
    uv_poll_t poll;
    struct mu_loop *loop;
    void (*accepted)(void *arg, struct mu_local *conn);
    void *arg;
    char *name;
    int fd, folder;
};

/* --- connections --- */

static void watch(struct mu_local *c);

static void freed(uv_handle_t *h)
{
    struct mu_local *c = h->data;
    mu_buf_fini(&c->out);
    mu_free(c);
}

struct mu_local *mu_local_close(struct mu_local *c)
{
    if (c && c->fd >= 0) {
        c->ops = NULL;
        (void)uv_poll_stop(&c->poll);
        close(c->fd);
        c->fd = -1;
        uv_close((uv_handle_t *)&c->poll, freed);
    }
    return NULL;
}

static void gone(struct mu_local *c)
{
    const struct mu_local_ops *ops = c->ops;
    (void)uv_poll_stop(&c->poll);
    if (ops && !c->failed) {
        c->failed = true;
        ops->ended(c->arg);
    }
}

/* 0; 1: the kernel takes no more just now; -errno. */
static int write_out(struct mu_local *c)
{
    while (c->sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.ptr + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno == EAGAIN ? 1 : -errno;
        }
        c->sent += (size_t)n;
    }
    c->sent = 0;
    mu_buf_clear(&c->out);
    return 0;
}

static bool read_in(struct mu_local *c)
{
    char block[READ_BLOCK];
    for (int i = 0; i < READS && c->ops && !c->held; i++) {
        ssize_t n = recv(c->fd, block, sizeof block, 0);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
            return true;
        }
        if (n <= 0) {
            return false;
        }
        c->ops->data(c->arg, mu_bytes_of(block, (size_t)n));
        if ((size_t)n < sizeof block) {
            return true;
        }
    }
    return true;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct mu_local *c = poll->data;
    if (status < 0) {
        gone(c);
        return;
    }
    if (events & UV_WRITABLE) {
        int r = write_out(c);
        if (r < 0) {
            gone(c);
            return;
        }
        if (r == 0 && c->ops && c->ops->drained) {
            c->ops->drained(c->arg);
        }
    }
    if (events & UV_READABLE && c->ops && !read_in(c)) {
        gone(c);
        return;
    }
    if (c->ops) {
        watch(c);
    }
}

static void watch(struct mu_local *c)
{
    int events = (c->held ? 0 : UV_READABLE) | (c->sent < c->out.len ? UV_WRITABLE : 0);
    if (c->fd < 0 || c->failed) {
        return;
    }
    if (events == 0) {
        (void)uv_poll_stop(&c->poll);
    } else if (uv_poll_start(&c->poll, events, on_poll) < 0) {
        gone(c);
    }
}

void mu_local_start(struct mu_local *c, const struct mu_local_ops *ops, void *arg)
{
    c->ops = ops;
    c->arg = arg;
    watch(c);
}

int mu_local_send(struct mu_local *c, mu_bytes bytes)
{
    if (c->fd < 0 || c->failed) {
        return 0;
    }
    if (c->sent > c->out.len / 2) {
        mu_buf_consume(&c->out, c->sent);
        c->sent = 0;
    }
    size_t before = c->out.len;
    mu_buf_add(&c->out, bytes);
    int r = c->out.failed;
    c->out.failed = 0;
    c->out.len = r ? before : c->out.len;
    watch(c);
    return r;
}

size_t mu_local_unsent(const struct mu_local *c)
{
    return c->out.len - c->sent;
}

void mu_local_hold(struct mu_local *c, bool on)
{
    if (c->held != on) {
        c->held = on;
        watch(c);
    }
}

static int conn_new(struct mu_listener *l, int fd, struct mu_local **ret)
{
    struct mu_local *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    c->loop = l->loop;
    c->fd = fd;
    mu_buf_init(&c->out, QUEUE_MAX);
    int r = uv_poll_init(mu_loop_uv(l->loop), &c->poll, fd);
    if (r < 0) {
        mu_free(c);
        return r;
    }
    c->poll.data = c;
    *ret = c;
    return 0;
}

/* --- the listener --- */

static void on_connect(uv_poll_t *poll, int status MU_UNUSED, int events MU_UNUSED)
{
    struct mu_listener *l = poll->data;
    struct mu_local *c;
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    if (conn_new(l, fd, &c) < 0) {
        close(fd);
        return;
    }
    l->accepted(l->arg, c);
}

static void listener_freed(uv_handle_t *h)
{
    struct mu_listener *l = h->data;
    mu_free(l->name);
    mu_free(l);
}

struct mu_listener *mu_listener_close(struct mu_listener *l)
{
    if (l) {
        (void)uv_poll_stop(&l->poll);
        close(l->fd);
        (void)unlinkat(l->folder, l->name, 0);
        close(l->folder);
        uv_close((uv_handle_t *)&l->poll, listener_freed);
    }
    return NULL;
}

/* Through /proc: a socket's address has room for 107 bytes only. */
static int bind_at(int fd, int folder, const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/%s", folder, name);
    if (n < 0 || (size_t)n >= sizeof a.sun_path) {
        return -ENAMETOOLONG;
    }
    (void)unlinkat(folder, name, 0);
    if (bind(fd, (const struct sockaddr *)&a, sizeof a) < 0 ||
        fchmodat(folder, name, 0666, 0) < 0 || listen(fd, BACKLOG) < 0) {
        return -errno;
    }
    return 0;
}

int mu_local_listen(struct mu_loop *loop, const char *folder, const char *name,
                    void (*accepted)(void *arg, struct mu_local *conn), void *arg,
                    struct mu_listener **ret)
{
    int dir MU_AUTO_CLOSE = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int fd MU_AUTO_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r = dir < 0 || fd < 0 ? -errno : bind_at(fd, dir, name);
    if (r < 0) {
        return r;
    }
    struct mu_listener *l = mu_calloc(1, sizeof *l);
    char *copy = mu_bytes_dup(mu_str(name));
    r = l && copy ? uv_poll_init(mu_loop_uv(loop), &l->poll, fd) : -ENOMEM;
    if (r < 0) {
        mu_free(l);
        mu_free(copy);
        return r;
    }
    *l = (struct mu_listener){
        .poll = l->poll, .loop = loop, .accepted = accepted, .arg = arg, .name = copy};
    l->poll.data = l;
    l->fd = mu_steal_fd(&fd);
    l->folder = mu_steal_fd(&dir);
    r = uv_poll_start(&l->poll, UV_READABLE, on_connect);
    if (r < 0) {
        mu_listener_close(l);
        return r;
    }
    *ret = l;
    return 0;
}
