/* One call: connect, ask, read the answer, close. Memory goes when the handle is closed, nothing is
 * being looked up and no callback of the caller is on the stack. */
#include <errno.h>
#include <stdio.h>

#include "exec/engine/engine_int.h"
#include "exec/engine/pull.h"
#include "proto/json.h"

static void connect_call(struct mu_engine_call *c);

/* --- end --- */

static void maybe_free(struct mu_engine_call *c)
{
    if (c->stage != MU_CALL_OVER || c->open || c->looking || c->holds) {
        return;
    }
    struct mu_engine *e = c->engine;
    mu_timer_clear(&c->timer);
    mu_buf_wipe(&c->queue);
    mu_buf_wipe(&c->flight);
    mu_buf_wipe(&c->input);
    mu_buf_fini(&c->body);
    mu_free(c->target);
    mu_free(c->headers);
    mu_free(c);
    if (--e->calls == 0 && e->gone) {
        mu_engine_free(e);
    }
}

static void on_closed(uv_handle_t *h)
{
    struct mu_engine_call *c = h->data;
    c->open = c->closing = c->connected = c->reading = false;
    if (c->again && c->stage != MU_CALL_OVER) {
        c->again = false;
        connect_call(c);
        return;
    }
    maybe_free(c);
}

static void close_handle(struct mu_engine_call *c)
{
    if (c->open && !c->closing) {
        c->closing = true;
        uv_close(&c->sock.handle, on_closed);
    }
}

static void over(struct mu_engine_call *c)
{
    c->stage = MU_CALL_OVER;
    mu_timer_clear(&c->timer);
    if (c->looking) {
        uv_cancel((uv_req_t *)&c->lookup);
    }
    close_handle(c);
    maybe_free(c);
}

struct mu_engine_call *mu_engine_cancel(struct mu_engine_call *c)
{
    if (c && c->stage != MU_CALL_OVER) {
        over(c);
    }
    return NULL;
}

/* "no such container" out of {"message": …}, or the text itself. */
static void error_words(struct mu_engine_call *c)
{
    static const struct mu_json_limits limits = {.max_bytes = MU_ENGINE_ERROR_BODY,
                                                 .max_depth = 16};
    struct mu_arena a;
    yyjson_val *v = NULL;
    mu_arena_init(&a, 16 * MU_ENGINE_ERROR_BODY);
    int r = mu_json_read(&a, mu_buf_bytes(&c->body), &limits, &v, NULL);
    mu_bytes text = r == 0 ? mu_json_get_bytes(v, "message") : mu_buf_bytes(&c->body);
    if (text.len) {
        mu_engine_text(c->message, sizeof c->message, text);
    } else {
        snprintf(c->message, sizeof c->message, "the engine answered with status %d",
                 c->response.status);
    }
    mu_arena_fini(&a);
}

static void transport_words(struct mu_engine_call *c, int code)
{
    const char *host = c->engine->host;
    switch (code) {
    case MU_E_VERSION:
        snprintf(c->message, sizeof c->message,
                 "the engine at %.200s is too old: it speaks API %.12s, needed is 1.40", host,
                 c->response.api_version);
        break;
    case MU_E_PROTOCOL:
    case MU_E_INVALID:
        snprintf(c->message, sizeof c->message, "what answers at %.200s is no container engine",
                 host);
        break;
    case MU_E_TIMEOUT:
        snprintf(c->message, sizeof c->message, "the engine at %.200s does not answer", host);
        break;
    case MU_E_CLOSED:
        snprintf(c->message, sizeof c->message, "the engine at %.200s closed the connection", host);
        break;
    default:
        snprintf(c->message, sizeof c->message, "the engine at %.200s: %s", host,
                 code == -EHOSTUNREACH ? "no way to that host" : mu_err_text(code));
        break;
    }
}

static void finish(struct mu_engine_call *c, int code)
{
    struct mu_engine_result r = {.result = code};
    if (c->stage == MU_CALL_OVER) {
        return;
    }
    if (code < 0) {
        transport_words(c, code);
        if (!c->connected || code == MU_E_CLOSED || code == -ECONNRESET || code == MU_E_TIMEOUT) {
            c->engine->version[0] = 0; /* what is there next may be another one */
        }
        r.message = c->message;
    } else {
        r.status = c->response.status;
        r.body = mu_buf_bytes(&c->body);
        if (r.status >= 400) {
            error_words(c);
            r.message = c->message;
            r.body = MU_B_NONE;
        }
    }
    c->holds++;
    c->stage = MU_CALL_OVER;
    mu_timer_clear(&c->timer);
    close_handle(c);
    c->req.done(c->req.arg, &r);
    c->holds--;
    over(c);
}

/* From where the caller may be on the stack: done() comes with the timer. */
static void fail_later(struct mu_engine_call *c, int code)
{
    c->fail_later = code;
    close_handle(c);
    if (mu_timer_set(&c->timer, 0) < 0) {
        /* The timer is set already in every stage but a pause: there it has a place in the heap. */
        MU_CHECK(mu_timer_is_set(&c->timer));
    }
}

static void on_timer(struct mu_timer *t)
{
    struct mu_engine_call *c = MU_CONTAINER(t, struct mu_engine_call, timer);
    finish(c, c->fail_later ? c->fail_later : MU_E_TIMEOUT);
}

/* Something moved. */
static void progress(struct mu_engine_call *c)
{
    if (c->stage == MU_CALL_OVER || c->fail_later) {
        return;
    }
    int64_t ms = c->req.timeout_ms ? c->req.timeout_ms : MU_ENGINE_TIMEOUT_MS;
    if (c->stage == MU_CALL_OWN && c->connected && (ms < 0 || c->paused)) {
        /* Kept in the heap, so that setting it again cannot fail. */
        ms = 365LL * 24 * 3600 * 1000;
    }
    ms = c->connected ? ms : MU_ENGINE_CONNECT_MS;
    if (mu_timer_set(&c->timer, ms < 0 ? MU_ENGINE_TIMEOUT_MS : ms) < 0) {
        MU_CHECK(mu_timer_is_set(&c->timer));
    }
}

/* --- reading --- */

static int on_head(void *arg, const struct mu_response *r)
{
    struct mu_engine_call *c = arg;
    bool kept = r->status < 400 && c->stage == MU_CALL_OWN;
    mu_buf_fini(&c->body);
    mu_buf_init(&c->body, !kept ? MU_ENGINE_ERROR_BODY
                                : (c->req.max_body ? c->req.max_body : MU_ENGINE_BODY));
    return 0;
}

static int on_body(void *arg, mu_bytes piece)
{
    struct mu_engine_call *c = arg;
    int status = c->response.status;
    if (c->stage != MU_CALL_OWN || status >= 400) { /* the beginning tells enough */
        mu_buf_add(&c->body, mu_bytes_head(piece, c->body.max - c->body.len));
        return 0;
    }
    if (!c->req.on_body) {
        mu_buf_add(&c->body, piece);
        return c->body.failed;
    }
    c->holds++;
    int r = c->req.on_body(c->req.arg, piece);
    c->holds--;
    return c->stage == MU_CALL_OVER ? MU_E_CANCELLED : r;
}

/* The answer to the ping: the call itself goes over a new connection. */
static void pinged(struct mu_engine_call *c)
{
    int r = c->response.status == 200
                ? mu_engine_negotiate(mu_str(c->response.api_version), c->engine->version)
                : MU_E_PROTOCOL;
    if (r < 0) {
        finish(c, r);
        return;
    }
    c->engine->podman = c->response.libpod;
    c->stage = MU_CALL_OWN;
    c->again = true;
    close_handle(c);
}

static void answered(struct mu_engine_call *c, int r)
{
    if (c->stage == MU_CALL_OVER) {
        maybe_free(c);
    } else if (r < 0) {
        finish(c, r);
    } else if (r == 1 && c->stage == MU_CALL_PING) {
        pinged(c);
    } else if (r == 1) {
        finish(c, 0);
    }
}

static void room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct mu_engine_call *c = handle->data;
    (void)suggested;
    *ret = uv_buf_init(c->engine->buf, MU_ENGINE_READ);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct mu_engine_call *c = stream->data;
    if (n == 0 || c->stage == MU_CALL_OVER || c->closing || c->fail_later) {
        return;
    }
    c->holds++;
    int r;
    if (n > 0) {
        progress(c);
        r = mu_response_feed(&c->response, mu_bytes_of(buf->base, (size_t)n));
    } else {
        r = n == UV_EOF ? mu_response_end(&c->response) : (int)n;
        r = r == 0 ? MU_E_CLOSED : r;
    }
    c->holds--;
    answered(c, r);
}

static void read_more(struct mu_engine_call *c)
{
    if (c->connected && !c->closing && !c->paused && !c->reading) {
        int r = uv_read_start(&c->sock.stream, room, on_read);
        c->reading = r == 0;
        if (r < 0) {
            fail_later(c, r);
        }
    }
}

void mu_engine_pause(struct mu_engine_call *c)
{
    c->paused = true;
    if (c->reading && !c->closing) {
        uv_read_stop(&c->sock.stream);
    }
    c->reading = false;
    progress(c);
}

void mu_engine_resume(struct mu_engine_call *c)
{
    if (c->stage != MU_CALL_OVER && c->paused) {
        c->paused = false;
        progress(c);
        read_more(c);
    }
}

/* --- writing --- */

static void flush(struct mu_engine_call *c);

static void on_written(uv_write_t *w, int status)
{
    struct mu_engine_call *c = w->data;
    c->writing = false;
    mu_buf_clear(&c->flight);
    if (c->stage == MU_CALL_OVER || c->closing || status == UV_ECANCELED) {
        return;
    }
    if (status < 0) { /* the answer that tells why may be on its way: reading goes on */
        c->write_failed = true;
        mu_buf_clear(&c->queue);
        return;
    }
    progress(c);
    if (c->queue.len) {
        flush(c);
    } else if (c->stage == MU_CALL_OWN && c->req.on_writable && !c->ended) {
        c->holds++;
        c->req.on_writable(c->req.arg, c);
        c->holds--;
        maybe_free(c);
    }
}

static void flush(struct mu_engine_call *c)
{
    if (!c->connected || c->closing || c->writing || c->write_failed || c->queue.len == 0) {
        return;
    }
    struct mu_buf sent = c->queue;
    c->queue = c->flight;
    c->flight = sent;
    uv_buf_t buf = uv_buf_init(c->flight.ptr, (unsigned)c->flight.len);
    c->write.data = c;
    int r = uv_write(&c->write, &c->sock.stream, &buf, 1, on_written);
    c->writing = r == 0;
    if (r < 0) {
        fail_later(c, r);
    }
}

int mu_engine_send(struct mu_engine_call *c, mu_bytes piece)
{
    if (piece.len == 0 || c->stage == MU_CALL_OVER || c->write_failed) {
        return 0; /* an empty chunk would be the end */
    }
    mu_buf_printf(&c->queue, "%zx\r\n", piece.len);
    mu_buf_add(&c->queue, piece);
    mu_buf_add(&c->queue, MU_B("\r\n"));
    if (c->queue.failed) {
        return c->queue.failed;
    }
    flush(c);
    return 0;
}

void mu_engine_send_end(struct mu_engine_call *c)
{
    if (c->ended || c->stage == MU_CALL_OVER) {
        return;
    }
    c->ended = true;
    mu_buf_add(&c->queue, MU_B("0\r\n\r\n"));
    if (c->queue.failed) {
        fail_later(c, c->queue.failed);
        return;
    }
    flush(c);
}

size_t mu_engine_unsent(const struct mu_engine_call *c)
{
    return c->queue.len + c->flight.len;
}

static void write_head(struct mu_engine_call *c)
{
    const struct mu_engine_request *q = &c->req;
    mu_buf_clear(&c->queue);
    if (c->stage == MU_CALL_PING) {
        mu_buf_add_str(&c->queue,
                       "GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n");
    } else {
        mu_buf_printf(&c->queue,
                      "%s /v%s%s HTTP/1.1\r\nHost: engine\r\nUser-Agent: muster/" MU_VERSION
                      "\r\nConnection: close\r\n%s",
                      q->method, c->engine->version, c->target, c->headers ? c->headers : "");
        if (q->type) {
            mu_buf_printf(&c->queue, "Content-Type: %s\r\n", q->type);
        }
        if (q->on_writable) {
            mu_buf_add_str(&c->queue, "Transfer-Encoding: chunked\r\n\r\n");
        } else if (q->body.len || strcmp(q->method, "GET") != 0) {
            mu_buf_printf(&c->queue, "Content-Length: %zu\r\n\r\n", q->body.len);
            mu_buf_add(&c->queue, q->body);
        } else {
            mu_buf_add_str(&c->queue, "\r\n");
        }
    }
    if (c->queue.failed) {
        fail_later(c, c->queue.failed);
        return;
    }
    flush(c);
}

/* --- connecting --- */

static void on_connect(uv_connect_t *req, int status)
{
    struct mu_engine_call *c = req->data;
    if (c->stage == MU_CALL_OVER || c->closing) {
        return;
    }
    if (status < 0) {
        finish(c, status);
        return;
    }
    c->connected = true;
    progress(c);
    mu_response_init(&c->response, c->stage == MU_CALL_OWN && !strcmp(c->req.method, "HEAD"));
    c->response.on_head = on_head;
    c->response.on_body = on_body;
    c->response.arg = c;
    write_head(c);
    read_more(c);
}

static int connect_tcp(struct mu_engine_call *c, const struct sockaddr *addr)
{
    int r = uv_tcp_init(mu_loop_uv(c->engine->loop), &c->sock.tcp);
    if (r < 0) {
        return r;
    }
    c->open = true;
    c->sock.tcp.data = c;
    uv_tcp_nodelay(&c->sock.tcp, 1);
    uv_tcp_keepalive(&c->sock.tcp, 1, 30);
    return uv_tcp_connect(&c->connect, &c->sock.tcp, addr, on_connect);
}

static void on_lookup(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct mu_engine_call *c = req->data;
    c->looking = false;
    if (c->stage == MU_CALL_OVER) {
        maybe_free(c);
    } else if (!c->fail_later) {
        int r = status < 0 || !list ? -EHOSTUNREACH : connect_tcp(c, list->ai_addr);
        if (r < 0) {
            finish(c, r);
        }
    }
    uv_freeaddrinfo(list);
}

static void connect_call(struct mu_engine_call *c)
{
    struct mu_engine *e = c->engine;
    int r;
    c->connect.data = c;
    progress(c);
    if (e->path) {
        r = uv_pipe_init(mu_loop_uv(e->loop), &c->sock.pipe, 0);
        if (r == 0) {
            c->open = true;
            c->sock.pipe.data = c;
            uv_pipe_connect(&c->connect, &c->sock.pipe, e->path, on_connect);
        }
    } else {
        struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
        c->lookup.data = c;
        r = uv_getaddrinfo(mu_loop_uv(e->loop), &c->lookup, on_lookup, e->name, e->port, &hints);
        c->looking = r == 0;
    }
    if (r < 0) {
        fail_later(c, r);
    }
}

static int copy_request(struct mu_engine_call *c, const struct mu_engine_request *req)
{
    c->req = *req;
    c->target = mu_bytes_dup(mu_str(req->path));
    c->headers = req->headers ? mu_bytes_dup(mu_str(req->headers)) : NULL;
    if (!c->target || (req->headers && !c->headers)) {
        return -ENOMEM;
    }
    mu_buf_add(&c->input, req->body);
    c->req.body = mu_buf_bytes(&c->input);
    return c->input.failed;
}

int mu_engine_start(struct mu_engine *e, const struct mu_engine_request *req,
                    struct mu_engine_call **ret)
{
    MU_CHECK(mu_loop_here(e->loop));
    struct mu_engine_call *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    c->engine = e;
    e->calls++;
    mu_buf_init(&c->queue, MU_ENGINE_UNSENT + 1024);
    mu_buf_init(&c->flight, MU_ENGINE_UNSENT + 1024);
    mu_buf_init(&c->input, MU_ENGINE_UNSENT);
    mu_timer_init(&c->timer, e->loop, on_timer);
    int r = copy_request(c, req);
    r = r < 0 ? r : mu_timer_set(&c->timer, MU_ENGINE_CONNECT_MS);
    if (r < 0) {
        over(c);
        return r;
    }
    c->stage = e->version[0] ? MU_CALL_OWN : MU_CALL_PING;
    connect_call(c);
    *ret = c;
    return 0;
}
