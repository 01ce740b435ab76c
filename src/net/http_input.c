/* Input of a connection: reading, and the way from bytes to a request. */
#include "net/http_int.h"

enum { MAX_KEPT = 2 * MU_HTTP_IN_BYTES };

/* --- reading --- */

static void on_alloc(uv_handle_t *h, size_t suggested MU_UNUSED, uv_buf_t *buf)
{
    struct mu_http_conn *c = h->data;
    bool quiet = c->state == MU_CONN_WAIT || c->state == MU_CONN_STREAM || c->state == MU_CONN_SEND;
    *buf = uv_buf_init(c->seat->in, quiet ? MU_HTTP_QUIET_BYTES : MU_HTTP_IN_BYTES);
}

void mu_http_read_stop(struct mu_http_conn *c)
{
    if (c->reading) {
        uv_read_stop((uv_stream_t *)&c->tcp);
        c->reading = false;
    }
}

/* The peer will send no more. It may still read: a whole answer that is due is given. */
static void on_end(struct mu_http_conn *c)
{
    c->eof = true;
    mu_http_read_stop(c);
    switch (c->state) {
    case MU_CONN_WAIT:
        if (c->req) {
            mu_http_req_gone(c->req);
        }
        break;
    case MU_CONN_STREAM:
        if (c->stream.left < 0) {
            mu_http_conn_close(c);
        }
        c->last = true;
        break;
    case MU_CONN_SEND:
    case MU_CONN_FLUSH:
    case MU_CONN_TAKEN:
        c->last = true;
        break;
    default:
        mu_http_conn_close(c);
        break;
    }
}

static void tls_input(struct mu_http_conn *c, mu_bytes cipher)
{
    struct mu_http_seat *seat = c->seat;
    ptrdiff_t n = 0;
    mu_tls_feed(c->tls, cipher);
    while (!c->cut && (n = mu_tls_read(c->tls, seat->plain, sizeof seat->plain)) > 0) {
        mu_http_input(c, mu_bytes_of(seat->plain, (size_t)n));
    }
    mu_tls_feed(c->tls, MU_B_NONE);
    if (!c->cut && mu_tls_out(c->tls)->len > 0) {
        mu_http_flush(c); /* handshake, or the alert that tells what was wrong */
    }
    if (c->cut || n == MU_E_PROTOCOL) {
        mu_http_conn_close(c);
    } else if (n == MU_E_CLOSED) {
        on_end(c);
    }
}

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
    struct mu_http_conn *c = h->data;
    if (n == 0 || c->state == MU_CONN_CLOSED) {
        return;
    }
    if (n == UV_EOF) {
        on_end(c);
    } else if (n < 0) {
        mu_http_conn_close(c);
    } else if (c->tls) {
        tls_input(c, mu_bytes_of(buf->base, (size_t)n));
    } else {
        mu_http_input(c, mu_bytes_of(buf->base, (size_t)n));
    }
}

void mu_http_read_start(struct mu_http_conn *c)
{
    if (c->reading || c->eof || c->cut) {
        return;
    }
    if (uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) < 0) {
        mu_http_conn_cut(c);
        return;
    }
    c->reading = true;
}

/* --- from bytes to a request --- */

/* Input that cannot be used yet. Reading stops until it was, so this does not grow. */
static void keep(struct mu_http_conn *c, mu_bytes in)
{
    char *more =
        c->kept_len + in.len <= MAX_KEPT ? mu_realloc(c->kept, c->kept_len + in.len) : NULL;
    if (!more) {
        mu_http_conn_cut(c);
        return;
    }
    memcpy(more + c->kept_len, in.ptr, in.len);
    c->kept = more;
    c->kept_len += in.len;
    mu_http_read_stop(c);
}

static void discard(struct mu_http_conn *c, size_t n)
{
    c->discarded += n;
    if (c->discarded > MU_HTTP_DISCARD) {
        if (c->state == MU_CONN_LINGER) {
            mu_http_conn_cut(c);
        } else {
            mu_http_read_stop(c);
            c->eof = true; /* no lingering: this peer does not stop */
        }
    }
}

void mu_http_malformed(struct mu_http_conn *c, int status, const char *text)
{
    const struct mu_http_ops *ops = &c->seat->server->ops;
    struct mu_http_req *req = c->req;
    c->deaf = c->last = true;
    req->malformed = true;
    mu_http_conn_state(c, MU_CONN_WAIT);
    if (ops->malformed) {
        ops->malformed(ops->arg, req, status, text);
    } else {
        mu_http_respond_close(req, status, NULL, 0, mu_str(text));
    }
}

static bool begin(struct mu_http_conn *c)
{
    struct mu_http_seat *seat = c->seat;
    c->req = mu_http_req_new(c);
    if (!c->req) {
        mu_http_conn_cut(c);
        return false;
    }
    if (!c->fresh) { /* else the time runs since accept */
        c->deadline_ms = mu_loop_now_ms(seat->loop) + seat->server->limits.header_ms;
    }
    mu_http_conn_state(c, MU_CONN_HEAD);
    return true;
}

static void body_begins(struct mu_http_conn *c, enum mu_http_state state)
{
    mu_http_conn_state(c, state);
    c->window = 0;
    c->deadline_ms = mu_loop_now_ms(c->seat->loop) + c->seat->server->limits.header_ms;
}

/* The layer above answered before the body came. */
static bool refused(struct mu_http_conn *c, bool has_body)
{
    if (c->state != MU_CONN_HEAD) { /* the connection ends after this answer */
        mu_http_req_free(c->req);
        c->req = NULL;
        return true;
    }
    if (has_body) {
        body_begins(c, MU_CONN_DROP);
    }
    return true;
}

static bool on_head(struct mu_http_conn *c, bool more_input)
{
    struct mu_http_req *req = c->req;
    const struct mu_http_ops *ops = &c->seat->server->ops;
    const struct mu_http_head *h = mu_http1_head(req->parser);
    struct mu_http_admit admit = {.max_body = MU_HTTP_DISCARD};
    bool has_body = h->chunked || h->content_length > 0;
    req->has_head = true;
    if (ops->admit) {
        ops->admit(ops->arg, req, &admit);
    }
    if (req->answered) {
        return refused(c, has_body);
    }
    MU_CHECK(!admit.refuse);
    if (h->content_length > 0 && (uint64_t)h->content_length > admit.max_body) {
        mu_http_malformed(c, 413, "the body is too large");
        return true;
    }
    mu_buf_init(&req->body, admit.max_body);
    if (has_body) {
        body_begins(c, MU_CONN_BODY);
        if (h->expect_continue && !more_input) {
            mu_http_send_now(c, (mu_bytes[]){MU_B("HTTP/1.1 100 Continue\r\n\r\n")}, 1);
        }
    }
    return true;
}

static bool on_body(struct mu_http_conn *c)
{
    struct mu_http_req *req = c->req;
    mu_bytes piece = mu_http1_body(req->parser);
    c->window += piece.len;
    if (c->state == MU_CONN_DROP) {
        return true; /* its length was looked at before it was allowed */
    }
    int64_t length = mu_http1_head(req->parser)->content_length;
    if (!req->body.ptr && length > 0 && length <= MU_HTTP_IN_BYTES) {
        mu_buf_room(&req->body, (size_t)length); /* exactly once */
    }
    mu_buf_add(&req->body, piece);
    if (req->body.failed) {
        bool large = req->body.failed == MU_E_TOO_LARGE;
        mu_http_malformed(c, large ? 413 : 503, large ? "the body is too large" : "out of memory");
    }
    return true;
}

static bool on_done(struct mu_http_conn *c)
{
    struct mu_http_req *req = c->req;
    const struct mu_http_ops *ops = &c->seat->server->ops;
    if (!req->answered) {
        mu_http_conn_state(c, MU_CONN_WAIT);
        ops->request(ops->arg, req);
        return true;
    }
    c->req = NULL;
    mu_http_req_free(req);
    if (mu_http_waiting(c) > 0) {
        mu_http_conn_state(c, MU_CONN_SEND);
        mu_http_conn_dirty(c);
    } else {
        mu_http_conn_next(c);
    }
    return true;
}

static bool parse(struct mu_http_conn *c, mu_bytes *in)
{
    size_t used = 0;
    const char *text = NULL;
    enum mu_http1_event ev = mu_http1_feed(c->req->parser, *in, &used);
    *in = mu_bytes_from(*in, used);
    switch (ev) {
    case MU_HTTP1_HEAD:
        return on_head(c, in->len > 0);
    case MU_HTTP1_BODY:
        return on_body(c);
    case MU_HTTP1_DONE:
        return on_done(c);
    case MU_HTTP1_ERROR:
        if (c->state == MU_CONN_DROP || c->req->answered) {
            mu_http_conn_cut(c); /* it has its answer */
        } else {
            int status = mu_http1_status(c->req->parser, &text);
            mu_http_malformed(c, status, text);
        }
        return true;
    default:
        return false;
    }
}

/* One step; false when nothing more can be done with the input. */
static bool step(struct mu_http_conn *c, mu_bytes *in)
{
    if (c->cut || c->deaf || c->state == MU_CONN_CLOSED) {
        discard(c, in->len);
        *in = MU_B_NONE;
        return false;
    }
    switch (c->state) {
    case MU_CONN_IDLE:
        return in->len > 0 && begin(c);
    case MU_CONN_HEAD:
    case MU_CONN_BODY:
    case MU_CONN_DROP:
        return parse(c, in);
    default:
        return false;
    }
}

void mu_http_input(struct mu_http_conn *c, mu_bytes in)
{
    MU_CHECK(!c->busy);
    if (c->kept_len > 0) {
        keep(c, in);
        return;
    }
    c->busy = true;
    while (step(c, &in)) {
    }
    c->busy = false;
    if (in.len > 0) {
        keep(c, in);
    }
}
