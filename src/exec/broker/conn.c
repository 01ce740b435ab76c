#include <errno.h>

#include "exec/broker/broker_int.h"

static void read_half(struct mu_broker_half *h);
static void head_arrived(struct mu_broker_conn *c);

/* --- end --- */

void mu_broker_conn_unref_(struct mu_broker_conn *c)
{
    if (--c->handles == 0) {
        mu_timer_clear(&c->timer);
        mu_buf_fini(&c->out);
        mu_free(c->up.buf);
        mu_free(c->down.buf);
        mu_free(c);
    }
}

static void handle_closed(uv_handle_t *h)
{
    mu_broker_conn_unref_(h->data);
}

static void tell(struct mu_broker_conn *c)
{
    struct mu_broker_session *s = c->session;
    if (s && s->opts.event) {
        struct mu_broker_event e = {
            .host = c->host,
            .port = c->port,
            .verdict = c->verdict,
            .bytes_in = c->down.bytes,
            .bytes_out = c->up.bytes,
            .duration_ms = mu_loop_now_ms(c->loop) - c->started_ms,
        };
        s->opts.event(s->opts.arg, &e);
    }
}

void mu_broker_conn_close_(struct mu_broker_conn *c)
{
    if (c->phase == MU_BR_CLOSED) {
        return;
    }
    c->phase = MU_BR_CLOSED;
    tell(c);
    if (c->session) {
        c->session->n_conns--;
        mu_list_remove(&c->link);
        c->session = NULL;
    }
    mu_timer_clear(&c->timer);
    if (!uv_is_closing((uv_handle_t *)&c->inner)) {
        uv_close((uv_handle_t *)&c->inner, handle_closed);
    }
    if (!uv_is_closing((uv_handle_t *)&c->outer)) {
        uv_close((uv_handle_t *)&c->outer, handle_closed);
    }
}

static void answered(uv_write_t *w, int status)
{
    (void)status;
    mu_broker_conn_close_(w->data);
}

static void on_timer(struct mu_timer *t)
{
    struct mu_broker_conn *c = MU_CONTAINER(t, struct mu_broker_conn, timer);
    switch (c->phase) {
    case MU_BR_HEAD:
        mu_broker_refuse_(c, 408, "timeout");
        break;
    case MU_BR_CONNECT:
    case MU_BR_UPSTREAM:
        mu_broker_refuse_(c, 504, "timeout");
        break;
    default:
        mu_broker_conn_close_(c);
        break;
    }
}

static void arm(struct mu_broker_conn *c, int64_t ms)
{
    if (mu_timer_set(&c->timer, ms) < 0) {
        mu_broker_conn_close_(c);
    }
}

void mu_broker_refuse_(struct mu_broker_conn *c, int status, const char *why)
{
    const char *text = status == 403   ? "Forbidden"
                       : status == 408 ? "Request Timeout"
                       : status == 502 ? "Bad Gateway"
                       : status == 504 ? "Gateway Timeout"
                                       : "Bad Request";
    c->verdict = why;
    if (c->phase == MU_BR_CLOSED) {
        return;
    }
    if (c->forward) { /* there is nobody to read HTTP */
        mu_broker_conn_close_(c);
        return;
    }
    c->phase = MU_BR_ANSWER;
    uv_read_stop((uv_stream_t *)&c->inner);
    int n = snprintf(c->answer, sizeof c->answer,
                     "HTTP/1.1 %d %s\r\nX-Muster-Reason: %s\r\nContent-Type: text/plain\r\n"
                     "Content-Length: %zu\r\nConnection: close\r\n\r\n%s\n",
                     status, text, why, strlen(why) + 1, why);
    uv_buf_t buf = uv_buf_init(c->answer, (unsigned)n);
    c->answer_write.data = c;
    arm(c, MU_BROKER_HEAD_MS);
    if (c->phase == MU_BR_ANSWER &&
        uv_write(&c->answer_write, (uv_stream_t *)&c->inner, &buf, 1, answered) < 0) {
        mu_broker_conn_close_(c);
    }
}

/* --- relay --- */

/* False: the hour's bytes are used up. */
static bool count(struct mu_broker_half *h, size_t n)
{
    struct mu_broker_session *s = h->conn->session;
    int64_t now = mu_loop_now_ms(h->conn->loop);
    h->bytes += (int64_t)n;
    if (now - s->window_ms >= 3600 * 1000) {
        s->window_ms = now;
        s->window_bytes = 0;
    }
    s->window_bytes += (int64_t)n;
    return s->window_bytes <= s->broker->settings.max_bytes_per_hour;
}

static void half_over(struct mu_broker_half *h)
{
    struct mu_broker_conn *c = h->conn;
    h->done = true;
    if (c->up.done && c->down.done) {
        mu_broker_conn_close_(c);
    }
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    struct mu_broker_half *h = req->data;
    if (h->conn->phase == MU_BR_CLOSED) {
        return;
    }
    if (status < 0) {
        mu_broker_conn_close_(h->conn);
        return;
    }
    half_over(h);
}

static void pass_eof(struct mu_broker_half *h)
{
    h->shutdown.data = h;
    if (uv_shutdown(&h->shutdown, h->to, on_shutdown) < 0) {
        mu_broker_conn_close_(h->conn);
    }
}

static void on_written(uv_write_t *w, int status)
{
    struct mu_broker_half *h = w->data;
    if (h->conn->phase == MU_BR_CLOSED) {
        return;
    }
    if (status < 0) {
        mu_broker_conn_close_(h->conn);
        return;
    }
    h->off = h->len = 0;
    if (h->eof) {
        pass_eof(h);
    } else {
        read_half(h);
    }
}

/* Hands on what is in the buffer; reading stops until it is gone. */
static void flush_half(struct mu_broker_half *h)
{
    if (h->off < h->len) {
        uv_buf_t buf = uv_buf_init(h->buf + h->off, (unsigned)(h->len - h->off));
        int n = uv_try_write(h->to, &buf, 1);
        if (n > 0) {
            h->off += (size_t)n;
        }
    }
    if (h->off == h->len) {
        h->off = h->len = 0;
        return;
    }
    uv_read_stop(h->from);
    uv_buf_t buf = uv_buf_init(h->buf + h->off, (unsigned)(h->len - h->off));
    h->write.data = h;
    if (uv_write(&h->write, h->to, &buf, 1, on_written) < 0) {
        mu_broker_conn_close_(h->conn);
    }
}

static void room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct mu_broker_conn *c = handle->data;
    struct mu_broker_half *h = handle == (uv_handle_t *)&c->inner ? &c->up : &c->down;
    (void)suggested;
    *ret = uv_buf_init(h->buf + h->len, (unsigned)(MU_BROKER_BUF - h->len));
}

/* The first bytes from inside: whether their server name is the host that was allowed. */
static void sniff(struct mu_broker_conn *c)
{
    mu_bytes name;
    enum mu_sni got = mu_sni_find(mu_bytes_of(c->up.buf + c->up.off, c->up.len - c->up.off), &name);
    if (got == MU_SNI_MORE && !c->up.eof) {
        return;
    }
    if (got == MU_SNI_BAD || (got == MU_SNI_FOUND && !mu_bytes_eq_nocase(name, mu_str(c->host)))) {
        c->verdict = "sni";
        mu_broker_conn_close_(c);
        return;
    }
    c->phase = MU_BR_RELAY;
    flush_half(&c->up);
}

static void upstream_answer(struct mu_broker_conn *c);

static void took(struct mu_broker_half *h, size_t n)
{
    struct mu_broker_conn *c = h->conn;
    h->len += n;
    switch (c->phase) {
    case MU_BR_HEAD:
        head_arrived(c);
        return;
    case MU_BR_UPSTREAM:
        upstream_answer(c);
        return;
    default:
        break;
    }
    if (!count(h, n)) {
        c->verdict = "quota";
        mu_broker_conn_close_(c);
        return;
    }
    arm(c, MU_BROKER_IDLE_MS);
    if (c->phase == MU_BR_SNIFF && h == &c->up) {
        sniff(c);
    } else if (c->phase != MU_BR_CLOSED) {
        flush_half(h);
    }
}

static void on_read(uv_stream_t *from, ssize_t n, const uv_buf_t *buf)
{
    struct mu_broker_conn *c = from->data;
    struct mu_broker_half *h = from == (uv_stream_t *)&c->inner ? &c->up : &c->down;
    (void)buf;
    if (n > 0) {
        took(h, (size_t)n);
        return;
    }
    if (n == 0) {
        return;
    }
    if (n != UV_EOF || c->phase < MU_BR_SNIFF) {
        if (c->phase == MU_BR_UPSTREAM) {
            mu_broker_refuse_(c, 502, "upstream");
        } else {
            mu_broker_conn_close_(c);
        }
        return;
    }
    uv_read_stop(from);
    h->eof = true;
    if (c->phase == MU_BR_SNIFF && h == &c->up) {
        sniff(c);
    }
    if (c->phase != MU_BR_CLOSED && h->off == h->len) {
        pass_eof(h);
    }
}

static void read_half(struct mu_broker_half *h)
{
    int r = uv_read_start(h->from, room, on_read);
    if (r < 0 && r != UV_EALREADY) {
        mu_broker_conn_close_(h->conn);
    }
}

/* --- the proxy request --- */

static bool hop_by_hop(mu_bytes name)
{
    static const char *const words[] = {"host", "connection", "keep-alive",
                                        "te",   "upgrade",    "trailer"};
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        if (mu_bytes_eq_nocase(name, mu_str(words[i]))) {
            return true;
        }
    }
    return name.len >= 6 && mu_bytes_eq_nocase(mu_bytes_head(name, 6), MU_B("proxy-"));
}

/* Absolute form: what the server behind it gets to see; one request a connection. False: both ways
 * of framing a body at once. */
static bool plain_request(struct mu_broker_conn *c, const struct mu_proxy_head *head)
{
    mu_bytes rest = head->headers;
    bool length = false, chunked = false;
    mu_buf_printf(&c->out, "%.*s %.*s HTTP/1.1\r\nHost: %.*s\r\n", MU_ARGS(head->method),
                  MU_ARGS(head->target), MU_ARGS(head->host));
    while (rest.len) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        mu_bytes name = mu_bytes_head(line, (size_t)mu_bytes_find_char(line, ':'));
        length |= mu_bytes_eq_nocase(name, MU_B("content-length"));
        chunked |= mu_bytes_eq_nocase(name, MU_B("transfer-encoding"));
        if (!hop_by_hop(name)) {
            mu_buf_add(&c->out, line);
            mu_buf_add_char(&c->out, '\n');
        }
    }
    mu_buf_add_str(&c->out, "Connection: close\r\n\r\n");
    return !(length && chunked);
}

static void head_arrived(struct mu_broker_conn *c)
{
    mu_bytes data = mu_bytes_of(c->up.buf, c->up.len);
    ptrdiff_t end = mu_bytes_find(data, MU_B("\r\n\r\n"));
    if (end < 0 && data.len < MU_BROKER_HEAD) {
        return;
    }
    uv_read_stop((uv_stream_t *)&c->inner);
    if (end < 0 || end + 4 > MU_BROKER_HEAD) {
        mu_broker_refuse_(c, 403, "too_large");
        return;
    }
    struct mu_proxy_head head;
    const char *why;
    int r = mu_proxy_head_parse(mu_bytes_head(data, (size_t)end + 4), &head, &why);
    if (head.host.len && head.host.len <= MU_HOST_MAX && r == 0) {
        memcpy(c->host, head.host.ptr, head.host.len);
        c->port = head.port;
    }
    const struct mu_broker_session *s = c->session;
    if (r == 0 && !mu_allow_has(&s->allow, head.host, head.port) &&
        !mu_allow_has(&s->broker->allow, head.host, head.port)) {
        r = MU_E_FORBIDDEN;
        why = "not_listed";
    }
    if (r == 0 && !head.connect && !plain_request(c, &head)) {
        r = MU_E_INVALID;
        why = "malformed";
    }
    if (r < 0) {
        mu_broker_refuse_(c, 403, why);
        return;
    }
    c->tunnel = head.connect;
    c->up.off = (size_t)end + 4;
    c->via_upstream = s->broker->upstream.port != 0;
    c->dial_port = c->via_upstream ? s->broker->upstream.port : c->port;
    c->any_addr = c->via_upstream;
    const char *host = c->via_upstream ? s->broker->upstream.host : c->host;
    memcpy(c->dial_host, host, strlen(host) + 1);
    arm(c, MU_BROKER_CONNECT_MS);
    mu_broker_dial_start_(c);
}

/* --- the connection outside --- */

static void out_written(uv_write_t *w, int status)
{
    struct mu_broker_conn *c = w->data;
    if (status < 0) {
        mu_broker_conn_close_(c);
    }
}

static void send_out(struct mu_broker_conn *c, mu_bytes text)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)text.ptr, (unsigned)text.len);
    c->out_write.data = c;
    if (c->out.failed ||
        uv_write(&c->out_write, (uv_stream_t *)&c->outer, &buf, 1, out_written) < 0) {
        mu_broker_conn_close_(c);
    }
}

/* Both ways are open. */
static void relay(struct mu_broker_conn *c)
{
    static char established[] = "HTTP/1.1 200 Connection established\r\n\r\n";
    c->verdict = "allowed";
    c->phase = c->tunnel ? MU_BR_SNIFF : MU_BR_RELAY;
    arm(c, MU_BROKER_IDLE_MS);
    if (c->tunnel) {
        uv_buf_t buf = uv_buf_init(established, sizeof established - 1);
        if (uv_try_write((uv_stream_t *)&c->inner, &buf, 1) != (int)buf.len) {
            mu_broker_conn_close_(c); /* a fresh pair has room for a line */
        }
    } else if (c->out.len && !c->via_upstream) {
        send_out(c, mu_buf_bytes(&c->out));
    }
    if (c->phase == MU_BR_CLOSED) {
        return;
    }
    read_half(&c->down);
    if (c->phase == MU_BR_CLOSED) {
        return;
    }
    size_t waiting = c->up.len - c->up.off; /* came behind the head */
    memmove(c->up.buf, c->up.buf + c->up.off, waiting);
    c->up.off = 0;
    c->up.len = 0;
    read_half(&c->up);
    if (waiting && c->phase != MU_BR_CLOSED) {
        took(&c->up, waiting);
    }
}

void mu_broker_connected_(struct mu_broker_conn *c)
{
    uv_tcp_nodelay(&c->outer, 1);
    uv_tcp_keepalive(&c->outer, 1, 60);
    if (!c->via_upstream) {
        relay(c);
        return;
    }
    c->phase = MU_BR_UPSTREAM;
    char text[2 * MU_HOST_MAX + 128];
    int n = snprintf(text, sizeof text, "CONNECT %s:%u HTTP/1.1\r\nHost: %s:%u\r\n\r\n", c->host,
                     c->port, c->host, c->port);
    uv_buf_t buf = uv_buf_init(text, (unsigned)n);
    if (uv_try_write((uv_stream_t *)&c->outer, &buf, 1) != n) {
        mu_broker_refuse_(c, 502, "upstream");
        return;
    }
    read_half(&c->down);
}

static void upstream_answer(struct mu_broker_conn *c)
{
    mu_bytes data = mu_bytes_of(c->down.buf, c->down.len);
    ptrdiff_t end = mu_bytes_find(data, MU_B("\r\n\r\n"));
    if (end < 0 && data.len < MU_BROKER_HEAD) {
        return;
    }
    uv_read_stop((uv_stream_t *)&c->outer);
    if (end < 0 || data.len < 13 || memcmp(data.ptr, "HTTP/1.", 7) != 0 ||
        memcmp(data.ptr + 8, " 200", 4) != 0 || (data.ptr[12] != ' ' && data.ptr[12] != '\r')) {
        mu_broker_refuse_(c, 502, "upstream");
        return;
    }
    size_t skip = (size_t)end + 4, rest = c->down.len - skip;
    memmove(c->down.buf, c->down.buf + skip, rest);
    c->down.len = rest;
    if (!c->tunnel && c->out.len) {
        send_out(c, mu_buf_bytes(&c->out));
    }
    if (c->phase == MU_BR_CLOSED) {
        return;
    }
    relay(c);
    if (rest && c->phase != MU_BR_CLOSED) {
        flush_half(&c->down);
    }
}

/* --- begin --- */

static int open_handles(struct mu_broker_conn *c, int fd)
{
    void *uv = mu_loop_uv(c->loop);
    int r = uv_pipe_init(uv, &c->inner, 0);
    if (r < 0) {
        return r;
    }
    c->handles = 1;
    c->inner.data = c;
    r = uv_tcp_init(uv, &c->outer);
    if (r == 0) {
        c->handles = 2;
        c->outer.data = c;
        r = uv_pipe_open(&c->inner, fd);
    }
    return r;
}

static int fail_new(struct mu_broker_conn *c, int fd, int r)
{
    if (fd >= 0) {
        close(fd);
    }
    c->phase = MU_BR_CLOSED;
    if (c->handles == 0) {
        c->handles = 1;
        mu_broker_conn_unref_(c);
        return r;
    }
    unsigned n = c->handles;
    uv_close((uv_handle_t *)&c->inner, handle_closed);
    if (n == 2) {
        uv_close((uv_handle_t *)&c->outer, handle_closed);
    }
    return r;
}

int mu_broker_conn_new_(struct mu_broker_session *s, int fd, const struct mu_forward *forward)
{
    struct mu_broker_conn *c = mu_calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return -ENOMEM;
    }
    c->loop = s->broker->loop;
    c->resolve = s->broker->settings.resolve;
    c->resolve_arg = s->broker->settings.resolve_arg;
    c->verdict = "closed";
    c->started_ms = mu_loop_now_ms(c->loop);
    mu_timer_init(&c->timer, c->loop, on_timer);
    mu_buf_init(&c->out, 2 * MU_BROKER_HEAD);
    c->up = (struct mu_broker_half){
        .conn = c, .from = (uv_stream_t *)&c->inner, .to = (uv_stream_t *)&c->outer};
    c->down = (struct mu_broker_half){
        .conn = c, .from = (uv_stream_t *)&c->outer, .to = (uv_stream_t *)&c->inner};
    c->up.buf = mu_alloc(MU_BROKER_BUF);
    c->down.buf = mu_alloc(MU_BROKER_BUF);
    if (!c->up.buf || !c->down.buf) {
        return fail_new(c, fd, -ENOMEM);
    }
    int r = open_handles(c, fd);
    if (r < 0) {
        return fail_new(c, fd, r);
    }
    r = mu_timer_set(&c->timer, forward ? MU_BROKER_CONNECT_MS : MU_BROKER_HEAD_MS);
    if (r < 0) {
        return fail_new(c, -1, r);
    }
    c->session = s;
    s->n_conns++;
    mu_list_push(&s->conns, &c->link);
    if (forward) {
        c->forward = true;
        c->any_addr = true;
        c->port = forward->port;
        memcpy(c->host, forward->host, strlen(forward->host) + 1);
        c->dial_port = forward->port;
        memcpy(c->dial_host, forward->host, strlen(forward->host) + 1);
        mu_broker_dial_start_(c);
    } else {
        read_half(&c->up);
    }
    return 0;
}
