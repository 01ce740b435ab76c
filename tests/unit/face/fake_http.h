/* A request object of our own instead of net/http.c: every function of net/http.h that the faces
 * call is here, so the linker leaves the real ones out. */
#ifndef TEST_FACE_FAKE_HTTP_H
#define TEST_FACE_FAKE_HTTP_H

#include "../unit.h"

#include <stdio.h>

#include "io/loop.h"
#include "net/http.h"

struct mu_http_req {
    struct mu_arena arena;
    struct mu_http_head head;
    struct mu_http_header headers[12];
    mu_bytes body;
    void *ctx, *listener;
    int answers, status;
    bool closed;
    struct mu_buf out_headers, out; /* "Name: value\n" each */
    struct mu_loop *loop;           /* stopped by the answer */
};

const struct mu_http_head *mu_http_req_head(const struct mu_http_req *req)
{
    return &req->head;
}
mu_bytes mu_http_req_target(const struct mu_http_req *req)
{
    return req->head.path;
}
mu_bytes mu_http_req_body(const struct mu_http_req *req)
{
    return req->body;
}
struct mu_arena *mu_http_req_arena(struct mu_http_req *req)
{
    return &req->arena;
}
struct mu_loop *mu_http_req_loop(struct mu_http_req *req)
{
    return req->loop;
}
mu_bytes mu_http_req_peer(const struct mu_http_req *req)
{
    (void)req;
    return MU_B("127.0.0.1");
}
void *mu_http_listener_arg(const struct mu_http_req *req)
{
    return req->listener;
}
void mu_http_req_set_ctx(struct mu_http_req *req, void *ctx)
{
    req->ctx = ctx;
}
void *mu_http_req_ctx(const struct mu_http_req *req)
{
    return req->ctx;
}
int64_t mu_http_req_started_us(const struct mu_http_req *req)
{
    (void)req;
    return 0;
}
void mu_http_req_on_gone(struct mu_http_req *req, void (*fn)(struct mu_http_req *req))
{
    (void)req;
    (void)fn;
}
void mu_http_respond(struct mu_http_req *req, int status, const struct mu_http_pair *headers,
                     size_t n, mu_bytes body)
{
    /* the test's own memory must not fail: what is checked is the program's */
    mu_alloc_fail_at(0);
    req->answers++;
    req->status = status;
    mu_buf_init(&req->out_headers, 1 << 20);
    mu_buf_init(&req->out, 1 << 20);
    for (size_t i = 0; i < n; i++) {
        mu_buf_printf(&req->out_headers, "%s: %.*s\n", headers[i].name, MU_ARGS(headers[i].value));
    }
    mu_buf_add_char(&req->out_headers, 0);
    mu_buf_add(&req->out, body);
    mu_buf_add_char(&req->out, 0);
    mu_arena_fini(&req->arena); /* what net does: the call is gone */
    if (req->loop) {
        mu_loop_stop(req->loop);
    }
}
void mu_http_respond_close(struct mu_http_req *req, int status, const struct mu_http_pair *headers,
                           size_t n, mu_bytes body)
{
    req->closed = true;
    mu_http_respond(req, status, headers, n, body);
}
struct mu_http_stream *mu_http_stream(struct mu_http_req *req, int status,
                                      const struct mu_http_pair *headers, size_t n, int64_t length,
                                      const struct mu_http_stream_ops *ops, void *arg)
{
    (void)length, (void)ops, (void)arg;
    mu_http_respond(req, status, headers, n, MU_B(""));
    return NULL;
}

int64_t mu_http_server_connections(const struct mu_http_server *s)
{
    (void)s;
    return 3;
}

/* --- driving it --- */

static inline void begin(struct mu_http_req *r, const char *method, const char *path)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    *r = (struct mu_http_req){0};
    mu_arena_init(&r->arena, 1 << 20);
    r->head.method = MU_HTTP_OTHER;
    for (unsigned i = 0; i < MU_ARRAY_LEN(names); i++) {
        if (strcmp(names[i], method) == 0) {
            r->head.method = i;
        }
    }
    mu_bytes query_part = mu_str(path);
    r->head.path = mu_bytes_split(&query_part, '?');
    r->head.query = query_part;
    r->head.method_name = mu_str(method);
    r->head.host = MU_B("127.0.0.1:8080");
    r->head.headers = r->headers;
    r->head.content_length = -1;
}

static inline void header(struct mu_http_req *r, const char *name, const char *value)
{
    r->headers[r->head.n_headers++] = (struct mu_http_header){mu_str(name), mu_str(value)};
}

static inline void end(struct mu_http_req *r)
{
    mu_buf_fini(&r->out);
    mu_buf_fini(&r->out_headers);
    mu_arena_fini(&r->arena);
}

static inline void out_has(const struct mu_http_req *r, const char *text)
{
    if (!strstr(r->out.ptr, text)) {
        fail_msg("no %s in %s", text, r->out.ptr);
    }
}

static inline void headers_have(const struct mu_http_req *r, const char *text)
{
    if (!strstr(r->out_headers.ptr, text)) {
        fail_msg("no %s in %s", text, r->out_headers.ptr);
    }
}

#endif
