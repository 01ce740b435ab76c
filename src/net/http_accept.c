/* Listening sockets and what comes in through them. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

#include "net/http_int.h"

enum { BACKLOG = 1024, KEEPALIVE_S = 60 };

static void fill_peer(struct mu_http_conn *c)
{
    struct sockaddr_storage a;
    int len = sizeof a;
    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&a, &len) < 0) {
        return;
    }
    if (a.ss_family == AF_INET) {
        uv_ip4_name((struct sockaddr_in *)&a, c->peer, sizeof c->peer);
    } else if (a.ss_family == AF_INET6) {
        uv_ip6_name((struct sockaddr_in6 *)&a, c->peer, sizeof c->peer);
    }
}

static void free_unborn(uv_handle_t *h)
{
    struct mu_http_conn *c = h->data;
    struct mu_http_seat *seat = c->seat;
    mu_tls_free(c->tls);
    mu_free(c);
    mu_http_seat_unref(seat);
}

static struct mu_http_conn *conn_new(struct mu_http_sock *sock)
{
    struct mu_http_conn *c = mu_calloc(1, sizeof *c);
    if (!c || (sock->listener->tls && mu_tls_new(sock->listener->tls, &c->tls) < 0)) {
        mu_free(c);
        return NULL;
    }
    c->seat = sock->seat;
    c->listener = sock->listener;
    mu_list_init(&c->link);
    mu_list_init(&c->dirty);
    c->tcp.data = c;
    return c;
}

void mu_http_accept(struct mu_http_sock *sock)
{
    struct mu_http_seat *seat = sock->seat;
    struct mu_http_server *s = seat->server;
    struct mu_http_conn *c = conn_new(sock);
    sock->starved = !c;
    if (!c) {
        mu_http_sweep_on(seat); /* libuv holds the connection until it is asked again */
        return;
    }
    uv_tcp_init(seat->uv, &c->tcp);
    atomic_fetch_add(&seat->refs, 1);
    if (uv_accept((uv_stream_t *)&sock->tcp, (uv_stream_t *)&c->tcp) < 0) {
        uv_close((uv_handle_t *)&c->tcp, free_unborn);
        return;
    }
    fill_peer(c);
    size_t count = (size_t)atomic_fetch_add(&s->connections, 1) + 1;
    size_t max = s->limits.max_connections;
    mu_http_conn_begin(c, count > max);
    if (count > max + MU_HTTP_OVER) {
        mu_http_conn_close(c);
    }
}

static void on_connection(uv_stream_t *h, int status)
{
    if (status == 0) {
        mu_http_accept(h->data);
    }
}

/* --- sockets --- */

static void sock_closed(uv_handle_t *h)
{
    struct mu_http_sock *sock = h->data;
    mu_http_seat_unref(sock->seat);
    mu_free(sock);
}

void mu_http_socks_close(struct mu_http_seat *seat)
{
    struct mu_list *l;
    while ((l = mu_list_pop(&seat->socks))) {
        uv_close((uv_handle_t *)&MU_CONTAINER(l, struct mu_http_sock, link)->tcp, sock_closed);
    }
}

static void on_open(struct mu_post *post)
{
    struct mu_http_sock *sock = MU_CONTAINER(post, struct mu_http_sock, post);
    struct mu_http_seat *seat = sock->seat;
    if (!seat->ready || seat->dying || atomic_load(&seat->server->draining)) {
        close(sock->fd);
        mu_free(sock);
        mu_http_seat_unref(seat);
        return;
    }
    sock->tcp.data = sock;
    uv_tcp_init(seat->uv, &sock->tcp);
    mu_list_push(&seat->socks, &sock->link);
    if (uv_tcp_open(&sock->tcp, sock->fd) < 0 ||
        uv_listen((uv_stream_t *)&sock->tcp, BACKLOG, on_connection) < 0) {
        mu_list_remove(&sock->link);
        uv_close((uv_handle_t *)&sock->tcp, sock_closed);
    }
}

static int parse_address(const struct mu_http_listen *l, struct sockaddr_storage *a, socklen_t *len,
                         struct mu_err *err)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)a;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)a;
    memset(a, 0, sizeof *a);
    if (l->host && inet_pton(AF_INET, l->host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)l->port);
        *len = sizeof *v4;
    } else if (l->host && inet_pton(AF_INET6, l->host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)l->port);
        *len = sizeof *v6;
    } else {
        return mu_err_set(err, MU_E_INVALID, "listen address '%s' is not a numeric address",
                          l->host ? l->host : "");
    }
    return l->port <= 65535 ? 0 : mu_err_set(err, MU_E_INVALID, "port %u is out of range", l->port);
}

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

/* Accepted sockets inherit these, which saves their system calls for each connection. */
static int set_options(int fd, int family, bool share)
{
    int r = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    r = r < 0 ? r : share ? set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) : 0;
    r = r < 0 ? r : set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    r = r < 0 ? r : set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    r = r < 0 ? r : set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S);
    return r < 0 || family != AF_INET6 ? r : set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
}

static int bind_one(const struct sockaddr_storage *a, socklen_t len, bool share, bool listens)
{
    MU_AUTO_CLOSE int fd = socket(a->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    int r = set_options(fd, a->ss_family, share);
    if (r < 0) {
        return r;
    }
    if (bind(fd, (const struct sockaddr *)a, len) < 0 || (listens && listen(fd, BACKLOG) < 0)) {
        return -errno;
    }
    return mu_steal_fd(&fd);
}

static unsigned port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
        return 0;
    }
    return a.ss_family == AF_INET    ? ntohs(((struct sockaddr_in *)&a)->sin_port)
           : a.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&a)->sin6_port)
                                     : 0;
}

static int bind_all(const struct mu_http_listen *l, int *fds, size_t n, struct mu_err *err)
{
    struct sockaddr_storage a;
    socklen_t len = 0;
    int r = parse_address(l, &a, &len, err);
    if (r < 0) {
        return r;
    }
    if (l->port) {
        /* SO_REUSEPORT would let a second server of the same user share the port silently. */
        MU_AUTO_CLOSE int probe = bind_one(&a, len, false, true);
        r = MU_MIN(probe, 0);
    }
    for (size_t i = 0; i < n && r >= 0; i++) {
        r = fds[i] = bind_one(&a, len, true, true);
        if (r >= 0 && i == 0) {
            uint16_t port = htons((uint16_t)port_of(r));
            if (a.ss_family == AF_INET) {
                ((struct sockaddr_in *)&a)->sin_port = port;
            } else {
                ((struct sockaddr_in6 *)&a)->sin6_port = port;
            }
        }
    }
    return r < 0 ? mu_err_set(err, r, "listen on %s port %u: %s", l->host, l->port, mu_err_text(r))
                 : 0;
}

/* What else a service manager may hand over (a file, a unix socket) would be taken without a word
 * and never get a connection. */
static bool is_tcp_listener(int fd)
{
    int family = 0, listens = 0;
    socklen_t len = sizeof family;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) < 0) {
        return false;
    }
    len = sizeof listens;
    return (family == AF_INET || family == AF_INET6) &&
           getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens;
}

static int share_inherited(int fd, int *fds, size_t n, struct mu_err *err)
{
    if (!is_tcp_listener(fd)) {
        return mu_err_set(err, MU_E_INVALID, "inherited socket %d is not a listening TCP socket",
                          fd);
    }
    for (size_t i = 0; i < n; i++) {
        fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fds[i] < 0) {
            return mu_err_set(err, -errno, "inherited socket %d: %s", fd, mu_err_text(-errno));
        }
    }
    return 0;
}

static void undo(int *fds, struct mu_http_sock **socks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
        mu_free(socks[i]);
    }
}

static int make_listener(struct mu_http_server *s, const struct mu_http_listen *l,
                         struct mu_http_listener **ret, struct mu_err *err)
{
    struct mu_http_listener *lis = mu_calloc(1, sizeof *lis);
    if (!lis) {
        return mu_err_set(err, -ENOMEM, "no memory for a listener");
    }
    lis->server = s;
    lis->arg = l->listener_arg;
    if (l->tls_cert_file || l->tls_key_file) {
        int r = l->tls_cert_file && l->tls_key_file
                    ? mu_tls_conf_new(l->tls_cert_file, l->tls_key_file, &lis->tls, err)
                    : mu_err_set(err, MU_E_INVALID, "TLS needs a certificate and a key");
        if (r < 0) {
            mu_free(lis);
            return r;
        }
    }
    *ret = lis;
    return 0;
}

enum { MAX_SEATS = 64 };

static int open_sockets(struct mu_http_server *s, const struct mu_http_listen *l,
                        struct mu_http_listener *lis, unsigned *ret_port, struct mu_err *err)
{
    int fds[MAX_SEATS];
    struct mu_http_sock *socks[MAX_SEATS] = {NULL};
    size_t n = s->n_seats;
    memset(fds, -1, sizeof fds);
    int r = l->fd >= 0 ? share_inherited(l->fd, fds, n, err) : bind_all(l, fds, n, err);
    for (size_t i = 0; i < n && r >= 0; i++) {
        socks[i] = mu_calloc(1, sizeof *socks[i]);
        r = socks[i] ? 0 : mu_err_set(err, -ENOMEM, "no memory for a listener");
    }
    if (r < 0) {
        undo(fds, socks, n);
        return r;
    }
    *ret_port = port_of(fds[0]);
    for (size_t i = 0; i < n; i++) {
        struct mu_http_seat *seat = s->seats[i];
        *socks[i] = (struct mu_http_sock){
            .seat = seat, .listener = lis, .fd = fds[i], .post = {.fn = on_open}};
        mu_list_init(&socks[i]->link);
        atomic_fetch_add(&seat->refs, 1);
        mu_loop_post(seat->loop, &socks[i]->post);
    }
    return 0;
}

int mu_http_server_listen(struct mu_http_server *s, const struct mu_http_listen *l,
                          unsigned *ret_port, struct mu_err *err)
{
    struct mu_http_listener *lis = NULL;
    MU_CHECK(s->n_seats <= MAX_SEATS && mu_loop_here(s->seats[0]->loop));
    int r = make_listener(s, l, &lis, err);
    if (r < 0) {
        return r;
    }
    r = open_sockets(s, l, lis, ret_port, err);
    if (r < 0) {
        mu_tls_conf_free(lis->tls);
        mu_free(lis);
        return r;
    }
    mu_list_push(&s->listeners, &lis->link);
    return 0;
}
