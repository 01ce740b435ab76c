#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "exec/broker/broker_int.h"

static int upstream_parse(struct mu_broker *b, struct mu_err *err)
{
    if (!b->settings.upstream) {
        return 0;
    }
    char text[MU_HOST_MAX + 32];
    int n = snprintf(text, sizeof text, "65535=%s", b->settings.upstream);
    size_t got;
    struct mu_err inner = {0};
    if (n >= (int)sizeof text || mu_forward_parse(text, &b->upstream, 1, &got, &inner) < 0) {
        return mu_err_set(err, MU_E_INVALID, "upstream proxy: \"%s\" is not host:port",
                          b->settings.upstream);
    }
    return 0;
}

int mu_broker_new(struct mu_loop *loop, const struct mu_broker_settings *settings,
                  struct mu_broker **ret, struct mu_err *err)
{
    struct mu_broker *b = mu_calloc(1, sizeof *b);
    if (!b) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    b->settings = *settings;
    b->loop = loop;
    if (!b->settings.max_connections) {
        b->settings.max_connections = 64;
    }
    if (!b->settings.max_bytes_per_hour) {
        b->settings.max_bytes_per_hour = INT64_C(1) << 30;
    }
    int r = mu_allow_parse(settings->allow, &b->allow, err);
    const char *what = "allowed hosts";
    if (r == 0) {
        what = "allowed addresses";
        r = mu_allow_addr_parse(settings->allow_addr, &b->allow_addr, err);
    }
    if (r == 0) {
        what = "forwards";
        r = mu_forward_parse(settings->forward, b->forwards, MU_BROKER_FORWARDS, &b->n_forwards,
                             err);
    }
    if (r < 0) {
        mu_err_context(err, "%s", what);
    } else {
        r = upstream_parse(b, err);
    }
    if (r < 0) {
        mu_broker_free(b);
        return r;
    }
    *ret = b;
    return 0;
}

struct mu_broker *mu_broker_free(struct mu_broker *b)
{
    if (b) {
        mu_allow_fini(&b->allow);
        mu_allow_addr_fini(&b->allow_addr);
        mu_free(b);
    }
    return NULL;
}

size_t mu_broker_ports(const struct mu_broker *b, uint16_t *ret, size_t max)
{
    size_t n = 0;
    if (max) {
        ret[n++] = MU_BROKER_PROXY_PORT;
    }
    for (size_t i = 0; i < b->n_forwards && n < max; i++) {
        ret[n++] = b->forwards[i].inside;
    }
    return n;
}

int mu_broker_session_new(struct mu_broker *b, const struct mu_broker_session_opts *opts,
                          struct mu_broker_session **ret, struct mu_err *err)
{
    struct mu_broker_session *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    s->broker = b;
    s->opts = *opts;
    s->opts.allow = NULL; /* parsed now, not kept */
    mu_list_init(&s->conns);
    int r = mu_allow_parse(opts->allow, &s->allow, err);
    if (r < 0) {
        mu_free(s);
        return mu_err_context(err, "network.allow");
    }
    *ret = s;
    return 0;
}

struct mu_broker_session *mu_broker_session_free(struct mu_broker_session *s)
{
    if (s) {
        MU_LIST_EACH(it, tmp, &s->conns)
        {
            mu_broker_conn_close_(MU_CONTAINER(it, struct mu_broker_conn, link));
        }
        mu_allow_fini(&s->allow);
        mu_free(s);
    }
    return NULL;
}

int mu_broker_dial(struct mu_broker_session *s, uint16_t port, int *ret_fd)
{
    const struct mu_forward *forward = NULL;
    for (size_t i = 0; i < s->broker->n_forwards; i++) {
        if (s->broker->forwards[i].inside == port) {
            forward = &s->broker->forwards[i];
        }
    }
    if (!forward && port != MU_BROKER_PROXY_PORT) {
        return MU_E_INVALID;
    }
    if (s->n_conns >= s->broker->settings.max_connections) {
        return MU_E_LIMIT;
    }
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
        return -errno;
    }
    int r = mu_broker_conn_new_(s, fds[0], forward);
    if (r < 0) {
        close(fds[1]);
        return r;
    }
    *ret_fd = fds[1];
    return 0;
}
