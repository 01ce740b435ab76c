#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "face/api/api_int.h"

enum { EXTRA_MAX = 10, HEADERS_MAX = 4 + EXTRA_MAX + MU_CORS_HEADERS };

static int64_t elapsed_us(const struct mu_call *c)
{
    int64_t now = c->api->env->mono_ns(c->api->env) / 1000;
    return MU_MAX(now - mu_http_req_started_us(c->req), 0);
}

/* Of a path that is a secret only what it is a path of. */
static mu_bytes logged_path(const struct mu_call *c, const struct mu_http_head *h)
{
    if (!h) {
        return MU_B("-");
    }
    ptrdiff_t at = mu_bytes_find(h->path, MU_B("/apl_")); /* also where it is no path of ours */
    return c->secret_path ? mu_str(c->secret_path)
           : at >= 0      ? mu_bytes_head(h->path, (size_t)at + 5)
                          : h->path;
}

/* The one access line of a request (oz-api.md 13). The query string is not in it: values may be
 * secret (tickets, tokens in compatibility parameters). */
static void log_access(const struct mu_call *c, int status, int64_t us)
{
    static const char *const faces[] = {[MU_FACE_ROOT] = "root",
                                        [MU_FACE_OZ] = "oz",
                                        [MU_FACE_SESSIONS] = "sessions",
                                        [MU_FACE_APP] = "app"};
    enum mu_log_level level =
        c->route && c->route->flags & MU_ROUTE_QUIET ? MU_LOG_DEBUG : MU_LOG_INFO;
    if (!mu_log_on(level)) {
        return;
    }
    const struct mu_http_head *h = c->headless ? NULL : mu_http_req_head(c->req);
    struct mu_kv kv[8 + MU_NOTES_MAX] = {
        MU_KS("req_id", c->request_id),   MU_KS("method", h ? h->method_name : MU_B("-")),
        MU_KS("path", logged_path(c, h)), MU_KI("status", status),
        MU_KI("duration_ms", us / 1000),  MU_KS("remote", mu_http_req_peer(c->req)),
        MU_KC("face", faces[c->face]),
    };
    size_t n = 7;
    if (c->trace_id.ptr) {
        kv[n++] = MU_KS("trace_id", c->trace_id);
    }
    for (size_t i = 0; i < c->n_notes; i++) {
        kv[n++] = c->notes[i];
    }
    mu_log_write(level, "http.response", kv, n);
}

/* Counts and logs; everything that ends a call passes here once. */
static void account(struct mu_call *c, int status)
{
    int64_t us = elapsed_us(c);
    if (status >= 100 && status < 600) {
        mu_metric_add(c->api->by_class[status / 100 - 1], 1);
    }
    mu_metric_observe_us(c->api->duration, us);
    log_access(c, status, us);
}

void mu_call_taken(struct mu_call *c)
{
    account(c, 101);
    mu_buf_fini(&c->buf);
}

static size_t common_headers(const struct mu_call *c, struct mu_http_pair *dst)
{
    dst[0] = (struct mu_http_pair){"X-Request-Id", c->request_id};
    dst[1] = (struct mu_http_pair){"X-Content-Type-Options", MU_B("nosniff")};
    return 2 + mu_cors_pairs(c->cors, dst + 2);
}

void mu_answer_bare(struct mu_http_req *req, enum mu_api_face face)
{
    const struct mu_http_pair headers[] = {
        {"Content-Type", MU_B("application/json")},
        {"Cache-Control", MU_B("no-store")},
        {"Retry-After", MU_B("1")},
    };
    if (face == MU_FACE_SESSIONS) {
        mu_http_respond_close(req, 503, headers, MU_ARRAY_LEN(headers), mu_str(mu_envelope_bare));
        return;
    }
    mu_http_respond_close(req, 503, headers, MU_ARRAY_LEN(headers),
                          face == MU_FACE_APP
                              ? MU_B("{\"error\":\"Out of memory\",\"code\":\"UNAVAILABLE\"}")
                              : MU_B("{\"error\":\"Out of memory\",\"message\":\"Out of "
                                     "memory\",\"code\":\"unavailable\"}"));
}

/* In the face's shape; its media type. */
static const char *add_error(struct mu_call *c, int *status, const char *code, const char *field,
                             const char *error, mu_bytes message, mu_bytes retry)
{
    if (c->face == MU_FACE_APP) {
        *status = mu_app_error(c, *status, code, field, message, retry);
        return "application/json";
    }
    if (c->face == MU_FACE_SESSIONS) {
        *status = mu_envelope_error(c, *status, code, field, message);
        return "application/json; charset=utf-8";
    }
    mu_buf_clear(&c->buf);
    struct mu_json_w w = mu_json_w(&c->buf);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "error", error);
    mu_jw_kstr(&w, "message", message);
    mu_jw_kcstr(&w, "code", code);
    if (field) {
        mu_jw_kcstr(&w, "field", field);
    }
    mu_jw_kstr(&w, "request_id", c->request_id);
    mu_jw_obj_end(&w);
    return "application/json";
}

void mu_answer(struct mu_call *c, int status, const char *type, const struct mu_http_pair *extra,
               size_t n_extra)
{
    struct mu_http_pair headers[HEADERS_MAX];
    static const struct mu_http_pair later = {"Retry-After", {"1", 1}};
    MU_CHECK(n_extra <= EXTRA_MAX);
    if (c->buf.failed) {
        /* what was built is incomplete: nothing of it may leave */
        mu_buf_fini(&c->buf);
        mu_buf_init(&c->buf, 4096);
        status = 503;
        type = add_error(c, &status, "unavailable", NULL, "Out of memory", MU_B("Out of memory"),
                         MU_B("1"));
        extra = &later;
        n_extra = 1;
    }
    size_t n = common_headers(c, headers);
    if (type) {
        headers[n++] = (struct mu_http_pair){"Content-Type", mu_str(type)};
    }
    bool cached = false;
    for (size_t i = 0; i < n_extra; i++) {
        cached = cached || strcmp(extra[i].name, "Cache-Control") == 0;
        headers[n++] = extra[i];
    }
    if (!cached) {
        headers[n++] = (struct mu_http_pair){"Cache-Control", MU_B("no-store")};
    }
    account(c, status);
    /* the call lies in the request's arena, which is gone after the next call; the buffer is ours
     */
    struct mu_buf buf = c->buf;
    mu_bytes body = buf.failed ? MU_B_NONE : mu_buf_bytes(&buf);
    if (c->close) {
        mu_http_respond_close(c->req, status, headers, n, body);
    } else {
        mu_http_respond(c->req, status, headers, n, body);
    }
    mu_buf_fini(&buf);
}

void mu_answer_error(struct mu_call *c, int status, const char *code, const char *field,
                     const char *error, mu_bytes message, const struct mu_http_pair *extra,
                     size_t n_extra)
{
    bool waits = n_extra && strcmp(extra[0].name, "Retry-After") == 0;
    const char *type =
        add_error(c, &status, code, field, error, message, waits ? extra[0].value : MU_B_NONE);
    mu_answer(c, status, type, extra, n_extra);
}

struct mu_buf *mu_call_buf(struct mu_call *c)
{
    return &c->buf;
}

static const char *media_of(const struct mu_call *c, int status)
{
    bool content = status == 200 || status == 206;
    return content && c->route && c->route->media ? c->route->media : "application/json";
}

void mu_call_send(struct mu_call *c, int status)
{
    mu_answer(c, status, media_of(c, status), NULL, 0);
}

void mu_call_send_object(struct mu_call *c, struct mu_json_w *w)
{
    mu_jw_kstr(w, "request_id", mu_call_request_id(c));
    mu_jw_obj_end(w);
    mu_call_send(c, 200);
}

void mu_call_success(struct mu_call *c)
{
    struct mu_json_w w = mu_json_w(mu_call_buf(c));
    mu_jw_obj(&w);
    mu_jw_kbool(&w, "success", true);
    mu_call_send_object(c, &w);
}

void mu_call_send_with(struct mu_call *c, int status, const char *header, mu_bytes value)
{
    const struct mu_http_pair pair = {header, value};
    mu_answer(c, status, media_of(c, status), &pair, 1);
}

void mu_call_send_headers(struct mu_call *c, int status, const struct mu_http_pair *headers,
                          size_t n)
{
    mu_answer(c, status, media_of(c, status), headers, n);
}

void mu_call_send_as(struct mu_call *c, int status, const char *type,
                     const struct mu_http_pair *headers, size_t n)
{
    mu_answer(c, status, type, headers, n);
}

void mu_call_error(struct mu_call *c, int status, const char *code, const char *field,
                   const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0) {
        text[0] = 0;
    }
    /* clients retry 409 on their own; ours never gets better by itself (oz-api.md 3) */
    const struct mu_http_pair no_retry = {"X-Should-Retry", MU_B("false")};
    mu_answer_error(c, status, code, field, text, mu_str(text), &no_retry, status == 409);
}

void mu_call_unauthorized(struct mu_call *c, const char *why)
{
    const struct mu_http_pair pair = {"WWW-Authenticate", MU_B("Bearer")};
    mu_answer_error(c, 401, "unauthorized", NULL, "Unauthorized", mu_str(why), &pair, 1);
}

void mu_call_retry(struct mu_call *c, int status, const char *code, int64_t retry_ms,
                   const char *text)
{
    char seconds[24];
    int64_t s = MU_MAX((retry_ms + 999) / 1000, 1);
    int n = snprintf(seconds, sizeof seconds, "%lld", (long long)s);
    const struct mu_http_pair pair = {"Retry-After", mu_bytes_of(seconds, (size_t)n)};
    mu_answer_error(c, status, code, NULL, text, mu_str(text), &pair, 1);
}

void mu_call_fail(struct mu_call *c, int code)
{
    switch (code) {
    case MU_E_NOT_FOUND:
        mu_call_error(c, 404, "not_found", NULL, "Not found");
        return;
    case MU_E_INVALID:
        mu_call_error(c, 400, "invalid_field", NULL, "Invalid value");
        return;
    case MU_E_UNAUTHORIZED:
        mu_call_unauthorized(c, "Unauthorized");
        return;
    case MU_E_FORBIDDEN:
        mu_call_error(c, 403, "forbidden", NULL, "Forbidden");
        return;
    case MU_E_CONFLICT:
    case MU_E_EXISTS:
        mu_call_error(c, 409, "conflict", NULL, "%s", mu_err_text(code));
        return;
    case MU_E_TOO_LARGE:
        mu_call_error(c, 413, "payload_too_large", NULL, "Request body too large");
        return;
    case MU_E_MISMATCH:
        if (c->face == MU_FACE_SESSIONS) {
            mu_call_error(c, 409, "IDEMPOTENCY_CONFLICT", NULL,
                          "The Idempotency-Key was used with another body");
            return;
        }
        mu_call_error(c, 422, "invalid_field", "Idempotency-Key",
                      "The Idempotency-Key was used with another body");
        return;
    case MU_E_LIMIT:
        mu_call_retry(c, 429, "too_many_requests", 1000, "Too many requests");
        return;
    case MU_E_BUSY:
    case MU_E_SATURATED:
        mu_call_retry(c, 503, "unavailable", 1000, "The server is busy");
        return;
    case MU_E_UNAVAILABLE:
    case MU_E_CLOSED:
        mu_call_retry(c, 503, "unavailable", 2000, "The database is unavailable");
        return;
    case MU_E_DISK_FULL:
        mu_call_retry(c, 503, "unavailable", 30000, "The disk is full");
        return;
    case MU_E_SHUTDOWN:
        mu_call_retry(c, 503, "shutting_down", 1000, "The server is shutting down");
        return;
    case -ENOMEM:
        mu_call_retry(c, 503, "unavailable", 1000, "Out of memory");
        return;
    default:
        mu_log(MU_LOG_ERROR, "http.request_error", MU_KS("req_id", c->request_id),
               MU_KC("route", c->route ? c->route->path : ""), MU_KI("err_code", code),
               MU_KC("err_message", mu_err_text(code)));
        mu_call_error(c, 500, "internal", NULL, "Internal error");
    }
}

struct mu_http_stream *mu_call_stream(struct mu_call *c, int status,
                                      const struct mu_http_pair *headers, size_t n, int64_t length,
                                      const struct mu_http_stream_ops *ops, void *arg)
{
    struct mu_http_pair all[HEADERS_MAX];
    MU_CHECK(n <= EXTRA_MAX);
    size_t at = common_headers(c, all);
    bool cached = false;
    for (size_t i = 0; i < n; i++) {
        cached = cached || mu_bytes_eq_nocase(mu_str(headers[i].name), MU_B("Cache-Control"));
        all[at++] = headers[i];
    }
    if (!cached) {
        all[at++] = (struct mu_http_pair){"Cache-Control", MU_B("no-store")};
    }
    account(c, status);
    struct mu_buf buf = c->buf;
    if (length < 0 && mu_http_req_head(c->req)->method == MU_HTTP_HEAD) {
        /* a stream without an end would never end: its headers are all there is to say */
        mu_http_respond(c->req, status, all, at, MU_B_NONE);
        mu_buf_fini(&buf);
        return NULL;
    }
    struct mu_http_stream *s = mu_http_stream(c->req, status, all, at, length, ops, arg);
    mu_buf_fini(&buf);
    return s;
}

void *mu_call_new(struct mu_call *c, size_t size)
{
    void *p = mu_arena_calloc(mu_call_arena(c), size);
    if (!p) {
        mu_call_fail(c, -ENOMEM);
    }
    return p;
}
