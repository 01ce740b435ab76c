#include <errno.h>
#include <netdb.h>

#include "exec/broker/broker_int.h"

static void try_next(struct mu_broker_conn *c);

/* --- on a pool thread: only `dial_host`, `resolve` and `addrs` are touched --- */

static void keep(struct mu_broker_conn *c, const struct sockaddr *addr, size_t len)
{
    if (c->n_addrs < MU_BROKER_ADDRS && len <= sizeof c->addrs[0]) {
        memset(&c->addrs[c->n_addrs], 0, sizeof c->addrs[0]);
        memcpy(&c->addrs[c->n_addrs++], addr, len);
    }
}

static void look_up_one(struct mu_broker_conn *c, const char *name, int flags)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags}, *list = NULL;
    if (getaddrinfo(name, NULL, &hints, &list) == 0) {
        for (struct addrinfo *a = list; a; a = a->ai_next) {
            keep(c, a->ai_addr, a->ai_addrlen);
        }
        freeaddrinfo(list);
    }
}

static void look_up(uv_work_t *work)
{
    struct mu_broker_conn *c = work->data;
    c->n_addrs = 0;
    if (!c->resolve || c->any_addr) {
        look_up_one(c, c->dial_host, 0);
        return;
    }
    char *text = c->resolve(c->resolve_arg, c->dial_host), one[64];
    mu_bytes rest = mu_str(text);
    while (rest.ptr) {
        mu_bytes word = mu_bytes_split(&rest, ' ');
        if (word.len && word.len < sizeof one) {
            memcpy(one, word.ptr, word.len);
            one[word.len] = 0;
            look_up_one(c, one, AI_NUMERICHOST);
        }
    }
    mu_free(text);
}

/* --- on the loop --- */

static void set_port(struct sockaddr_storage *a, uint16_t port)
{
    if (a->ss_family == AF_INET) {
        ((struct sockaddr_in *)a)->sin_port = htons(port);
    } else {
        ((struct sockaddr_in6 *)a)->sin6_port = htons(port);
    }
}

/* Leaves only what may be connected to. */
static void filter(struct mu_broker_conn *c)
{
    const struct mu_broker *b = c->session->broker;
    size_t n = 0;
    c->found = c->n_addrs > 0;
    for (size_t i = 0; i < c->n_addrs; i++) {
        const struct sockaddr *a = (const struct sockaddr *)&c->addrs[i];
        if (c->any_addr || mu_addr_public(a) ||
            mu_allow_addr_has(&b->allow_addr, a, c->dial_port)) {
            c->addrs[n] = c->addrs[i];
            set_port(&c->addrs[n++], c->dial_port);
        }
    }
    c->n_addrs = n;
}

static void looked_up(uv_work_t *work, int status)
{
    struct mu_broker_conn *c = work->data;
    (void)status;
    if (c->phase == MU_BR_CONNECT && c->session) {
        filter(c);
        if (c->n_addrs) {
            try_next(c);
        } else if (c->found) {
            mu_broker_refuse_(c, 403, "private_address");
        } else {
            mu_broker_refuse_(c, 502, "not_found");
        }
    }
    mu_broker_conn_unref_(c);
}

static void on_connect(uv_connect_t *connect, int status)
{
    struct mu_broker_conn *c = connect->data;
    if (c->phase != MU_BR_CONNECT) {
        return;
    }
    if (status == 0) {
        mu_broker_connected_(c);
        return;
    }
    c->addr_at++;
    try_next(c);
}

static void outer_again(uv_handle_t *h)
{
    struct mu_broker_conn *c = h->data;
    if (c->phase == MU_BR_CONNECT && uv_tcp_init(h->loop, &c->outer) == 0) {
        c->outer.data = c; /* the handle counts on: it was not given back */
        try_next(c);
        return;
    }
    mu_broker_conn_unref_(c);
}

/* A socket whose connection failed is not used for another address. */
static void try_next(struct mu_broker_conn *c)
{
    if (c->addr_at == c->n_addrs) {
        mu_broker_refuse_(c, 502, "connect");
        return;
    }
    if (uv_fileno((uv_handle_t *)&c->outer, &(uv_os_fd_t){-1}) == 0) {
        uv_close((uv_handle_t *)&c->outer, outer_again);
        return;
    }
    c->connect.data = c;
    int r = uv_tcp_connect(&c->connect, &c->outer, (struct sockaddr *)&c->addrs[c->addr_at],
                           on_connect);
    if (r < 0) {
        c->addr_at = c->n_addrs;
        mu_broker_refuse_(c, 502, "connect");
    }
}

void mu_broker_dial_start_(struct mu_broker_conn *c)
{
    c->phase = MU_BR_CONNECT;
    c->work.data = c;
    c->addr_at = 0;
    c->handles++;
    if (uv_queue_work(mu_loop_uv(c->loop), &c->work, look_up, looked_up) < 0) {
        c->handles--;
        mu_broker_refuse_(c, 502, "connect");
    }
}
