/* Answers: the header block, whole bodies and streams. */
#include <stdio.h>

#include "net/http_int.h"

static bool value_ok(mu_bytes v)
{
    return mu_bytes_find_char(v, '\r') < 0 && mu_bytes_find_char(v, '\n') < 0 &&
           mu_bytes_find_char(v, '\0') < 0;
}

static void add_pairs(struct mu_buf *b, const struct mu_http_pair *headers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (value_ok(headers[i].value)) {
            mu_buf_add_str(b, headers[i].name);
            mu_buf_add(b, MU_B(": "));
            mu_buf_add(b, headers[i].value);
            mu_buf_add(b, MU_B("\r\n"));
        }
    }
}

static bool has_no_body(int status)
{
    return status == 204 || status == 304 || status < 200;
}

enum framing { FRAME_LENGTH, FRAME_CHUNKED, FRAME_CLOSE };

/* The header block, in a buffer of the seat; ptr NULL when there was no memory. */
static mu_bytes build_head(struct mu_http_req *req, int status, const struct mu_http_pair *headers,
                           size_t n, enum framing framing, uint64_t length, bool keep)
{
    struct mu_buf *b = &req->seat->head;
    mu_buf_clear(b);
    if (status == 200) {
        mu_buf_add(b, MU_B("HTTP/1.1 200 OK\r\nDate: "));
    } else {
        mu_buf_add(b, MU_B("HTTP/1.1 "));
        mu_buf_add_i64(b, status);
        mu_buf_add_char(b, ' ');
        mu_buf_add_str(b, mu_http_reason(status));
        mu_buf_add(b, MU_B("\r\nDate: "));
    }
    mu_buf_add_str(b, mu_http_date(req->seat));
    mu_buf_add(b, MU_B("\r\n"));
    add_pairs(b, headers, n);
    if (framing == FRAME_CHUNKED) {
        mu_buf_add(b, MU_B("Transfer-Encoding: chunked\r\n"));
    } else if (framing == FRAME_LENGTH && !has_no_body(status)) {
        mu_buf_add(b, MU_B("Content-Length: "));
        mu_buf_add_i64(b, (int64_t)length);
        mu_buf_add(b, MU_B("\r\n"));
    }
    if (!keep) {
        mu_buf_add(b, MU_B("Connection: close\r\n"));
    } else if (req->has_head && mu_http1_head(req->parser)->http10) {
        mu_buf_add(b, MU_B("Connection: keep-alive\r\n"));
    }
    mu_buf_add(b, MU_B("\r\n"));
    return b->failed ? MU_B_NONE : mu_buf_bytes(b);
}

/* Whether the connection may carry another request after this answer. */
static bool may_keep(struct mu_http_conn *c, struct mu_http_req *req, bool in_admit)
{
    const struct mu_http_head *h = mu_http_req_head(req);
    if (!h || !h->keep_alive || req->malformed || c->eof || c->last ||
        atomic_load_explicit(&c->seat->server->draining, memory_order_relaxed)) {
        return false;
    }
    /* A refused body is read away when that is short; a client that asked first sends none, or
     * does, and nobody could tell. */
    return !in_admit || (!h->chunked && h->content_length <= MU_HTTP_DISCARD &&
                         (!h->expect_continue || h->content_length <= 0));
}

/* What follows once the bytes of a whole answer were handed over. */
static void answered(struct mu_http_conn *c, bool keep, bool in_admit)
{
    c->last = !keep;
    if (!keep) {
        c->deaf = true;
        mu_http_conn_state(c, MU_CONN_FLUSH);
        mu_http_conn_dirty(c);
    } else if (in_admit) {
        return; /* the body is still to come: mu_http_input() goes on */
    } else if (mu_http_waiting(c) > 0) {
        mu_http_conn_state(c, MU_CONN_SEND);
        mu_http_conn_dirty(c);
    } else {
        mu_http_conn_next(c);
    }
}

static void respond(struct mu_http_req *req, int status, const struct mu_http_pair *headers,
                    size_t n, mu_bytes body, bool close)
{
    struct mu_http_conn *c = req->conn;
    MU_CHECK(mu_loop_here(mu_http_req_loop(req)) && !req->answered && status >= 200);
    req->answered = true;
    if (req->local) {
        mu_http_local_answer(req, status, headers, n, body);
        return;
    }
    if (!c) {
        mu_http_req_free(req);
        return;
    }
    bool in_admit = c->state == MU_CONN_HEAD;
    MU_CHECK(in_admit || c->state == MU_CONN_WAIT);
    const struct mu_http_head *h = mu_http_req_head(req);
    bool keep = !close && may_keep(c, req, in_admit);
    bool mute = (h && h->method == MU_HTTP_HEAD) || has_no_body(status);
    mu_bytes head = build_head(req, status, headers, n, FRAME_LENGTH, body.len, keep);
    if (head.ptr) {
        mu_http_send_now(c, (mu_bytes[]){head, body}, mute ? 1 : 2);
    } else {
        mu_http_conn_cut(c);
    }
    if (!in_admit) { /* else the parser is still needed */
        c->req = NULL;
        mu_http_req_free(req);
    }
    answered(c, keep, in_admit);
}

void mu_http_respond(struct mu_http_req *req, int status, const struct mu_http_pair *headers,
                     size_t n, mu_bytes body)
{
    respond(req, status, headers, n, body, false);
}

void mu_http_respond_close(struct mu_http_req *req, int status, const struct mu_http_pair *headers,
                           size_t n, mu_bytes body)
{
    respond(req, status, headers, n, body, true);
}

/* --- streams --- */

static struct mu_http_conn *conn_of(struct mu_http_stream *s)
{
    return MU_CONTAINER(s, struct mu_http_conn, stream);
}

struct mu_http_stream *mu_http_stream(struct mu_http_req *req, int status,
                                      const struct mu_http_pair *headers, size_t n, int64_t length,
                                      const struct mu_http_stream_ops *ops, void *arg)
{
    struct mu_http_conn *c = req->conn;
    MU_CHECK(mu_loop_here(mu_http_req_loop(req)) && !req->answered && status >= 200);
    req->answered = true;
    if (req->local) { /* there is nothing that a stream could go along */
        mu_http_local_answer(req, 0, NULL, 0, MU_B_NONE);
        return NULL;
    }
    if (!c || c->cut || (c->eof && length < 0)) {
        if (c) {
            c->req = NULL;
            mu_http_conn_cut(c);
        }
        mu_http_req_free(req);
        return NULL;
    }
    MU_CHECK(c->state == MU_CONN_WAIT);
    const struct mu_http_head *h = mu_http_req_head(req);
    enum framing framing = length >= 0       ? FRAME_LENGTH
                           : h && !h->http10 ? FRAME_CHUNKED
                                             : FRAME_CLOSE;
    bool keep = framing != FRAME_CLOSE && may_keep(c, req, false);
    c->last = !keep;
    c->stream =
        (struct mu_http_stream){.ops = ops,
                                .arg = arg,
                                .left = length,
                                .chunked = framing == FRAME_CHUNKED,
                                .mute = (h && h->method == MU_HTTP_HEAD) || has_no_body(status)};
    mu_bytes head = build_head(req, status, headers, n, framing, (uint64_t)MU_MAX(length, 0), keep);
    if (head.ptr) {
        mu_http_send_now(c, &head, 1);
    } else {
        mu_http_conn_cut(c);
    }
    c->req = NULL;
    mu_http_req_free(req);
    if (c->cut) {
        return NULL;
    }
    mu_http_conn_state(c, MU_CONN_STREAM);
    return &c->stream;
}

/* Whether `len` more bytes are to be sent; more than was announced ends the connection. */
static bool takes(struct mu_http_stream *s, size_t len)
{
    struct mu_http_conn *c = conn_of(s);
    MU_CHECK(mu_loop_here(c->seat->loop) && c->state == MU_CONN_STREAM);
    if (c->cut || s->ended || s->mute || len == 0) {
        return false;
    }
    if (len > UINT32_MAX || (s->left >= 0 && (uint64_t)s->left < len)) {
        mu_http_conn_cut(c);
        return false;
    }
    s->left = s->left >= 0 ? s->left - (int64_t)len : s->left;
    return true;
}

static struct mu_http_seg seg_of(const struct mu_http_stream *s, void *own, const char *data,
                                 size_t len, uint8_t kind)
{
    static const char digits[] = "0123456789abcdef";
    struct mu_http_seg seg = {.own = own, .data = data, .len = (uint32_t)len, .kind = kind};
    if (!s->chunked) {
        return seg;
    }
    char text[8];
    unsigned at = sizeof text;
    do {
        text[--at] = digits[len & 15];
        len >>= 4;
    } while (len);
    seg.chunk_len = (uint8_t)(sizeof text - at);
    memcpy(seg.chunk, text + at, seg.chunk_len);
    seg.chunk[seg.chunk_len++] = '\r';
    seg.chunk[seg.chunk_len++] = '\n';
    return seg;
}

void mu_http_stream_send(struct mu_http_stream *s, struct mu_msg *msg)
{
    if (takes(s, msg->len)) {
        mu_http_push(conn_of(s), seg_of(s, mu_msg_ref(msg), msg->data, msg->len, MU_SEG_MSG));
    }
}

void mu_http_stream_write(struct mu_http_stream *s, mu_bytes bytes)
{
    if (!takes(s, bytes.len)) {
        return;
    }
    char *copy = mu_alloc(bytes.len);
    if (!copy) {
        mu_http_conn_cut(conn_of(s));
        return;
    }
    memcpy(copy, bytes.ptr, bytes.len);
    mu_http_push(conn_of(s), seg_of(s, copy, copy, bytes.len, MU_SEG_HEAP));
}

bool mu_http_stream_full(const struct mu_http_stream *s)
{
    struct mu_http_conn *c = conn_of((struct mu_http_stream *)s);
    bool full = !c->cut && mu_http_waiting(c) > c->seat->server->limits.write_soft;
    c->stream.was_full = c->stream.was_full || full;
    return full;
}

void mu_http_stream_end(struct mu_http_stream *s)
{
    struct mu_http_conn *c = conn_of(s);
    MU_CHECK(mu_loop_here(c->seat->loop) && c->state == MU_CONN_STREAM);
    if (c->cut || s->ended) {
        return;
    }
    s->ended = true;
    if (s->left > 0 && !s->mute) { /* fewer bytes than announced: only a cut tells the peer */
        mu_http_conn_cut(c);
        return;
    }
    if (s->chunked && !s->mute) {
        mu_http_push(c, (struct mu_http_seg){.data = "0\r\n\r\n", .len = 5});
    }
    mu_http_conn_dirty(c);
}

void mu_http_stream_abort(struct mu_http_stream *s)
{
    mu_http_conn_cut(conn_of(s));
}
