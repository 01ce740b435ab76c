#include "runner/http_stream.h"

#include "base/encode.h"

enum { SIZE_LINE = 1024, SIZE_DIGITS = 12 };

void mu_http_stream_init(struct mu_http_stream *s)
{
    *s = (struct mu_http_stream){.left = -1};
    mu_buf_init(&s->line, MU_HTTP_STREAM_HEAD);
}

void mu_http_stream_fini(struct mu_http_stream *s)
{
    mu_buf_fini(&s->line);
}

static int broken(struct mu_http_stream *s, int code)
{
    s->step = MU_HS_BROKEN;
    return code;
}

/* 1: s->line holds a whole one, without its end. */
static int take_line(struct mu_http_stream *s, mu_bytes *in, size_t max)
{
    ptrdiff_t at = mu_bytes_find_char(*in, '\n');
    mu_bytes part = mu_bytes_head(*in, at < 0 ? in->len : (size_t)at);
    *in = mu_bytes_from(*in, part.len + (at >= 0));
    mu_buf_add(&s->line, part);
    if (s->line.failed || s->line.len > max) {
        return s->line.failed ? s->line.failed : MU_E_PROTOCOL;
    }
    if (at < 0) {
        return 0;
    }
    s->head += s->line.len + 1;
    if ((s->step == MU_HS_HEAD || s->step == MU_HS_TRAILER) && s->head > MU_HTTP_STREAM_HEAD) {
        return MU_E_TOO_LARGE;
    }
    if (s->line.len && s->line.ptr[s->line.len - 1] == '\r') {
        s->line.len--;
    }
    return 1;
}

static int status_line(struct mu_http_stream *s, mu_bytes line)
{
    int64_t status;
    if (line.len < 12 || !mu_bytes_starts(line, MU_B("HTTP/1.")) || line.ptr[8] != ' ' ||
        (line.len > 12 && line.ptr[12] != ' ') ||
        mu_bytes_i64(mu_bytes_of(line.ptr + 9, 3), &status) < 0 || status < 100) {
        return MU_E_PROTOCOL;
    }
    s->status = (int)status;
    s->chunked = false;
    s->left = -1;
    return 0;
}

static int header(struct mu_http_stream *s, mu_bytes line)
{
    ptrdiff_t colon = mu_bytes_find_char(line, ':');
    mu_bytes name = mu_bytes_head(line, colon > 0 ? (size_t)colon : 0);
    mu_bytes value = mu_bytes_trim(mu_bytes_from(line, name.len + 1));
    if (colon <= 0) {
        return MU_E_PROTOCOL;
    }
    if (mu_bytes_eq_nocase(name, MU_B("transfer-encoding"))) {
        s->chunked = true;
        return mu_bytes_eq_nocase(value, MU_B("chunked")) ? 0 : MU_E_PROTOCOL;
    }
    if (mu_bytes_eq_nocase(name, MU_B("content-length"))) {
        int64_t n;
        bool good = mu_bytes_i64(value, &n) == 0 && n >= 0 && (s->left < 0 || s->left == n);
        s->left = good ? n : s->left;
        return good ? 0 : MU_E_PROTOCOL;
    }
    return 0;
}

static int head_line(struct mu_http_stream *s)
{
    mu_bytes line = mu_buf_bytes(&s->line);
    if (!s->status) {
        return status_line(s, line);
    }
    if (line.len) {
        return header(s, line);
    }
    if (s->status < 200) { /* the answer proper follows */
        s->status = 0;
        return 0;
    }
    bool none = s->status == 204 || s->status == 304 || (!s->chunked && s->left == 0);
    s->step = none ? MU_HS_DONE : s->chunked ? MU_HS_SIZE : MU_HS_DATA;
    return 0;
}

static int size_line(struct mu_http_stream *s)
{
    int64_t size = 0;
    size_t digits = 0;
    for (; digits < s->line.len; digits++) {
        char c = s->line.ptr[digits];
        int d = mu_hex_value(c);
        if (d < 0) {
            break;
        }
        if (digits >= SIZE_DIGITS) {
            return MU_E_PROTOCOL;
        }
        size = size * 16 + d;
    }
    if (!digits ||
        (digits < s->line.len && s->line.ptr[digits] != ';' && s->line.ptr[digits] != ' ')) {
        return MU_E_PROTOCOL;
    }
    s->left = size;
    s->head = 0;
    s->step = size ? MU_HS_DATA : MU_HS_TRAILER;
    return 0;
}

static int a_line(struct mu_http_stream *s, mu_bytes *in)
{
    int got = take_line(s, in, s->step == MU_HS_HEAD ? MU_HTTP_STREAM_HEAD : SIZE_LINE), r = 0;
    if (got <= 0) {
        return got;
    }
    switch (s->step) {
    case MU_HS_HEAD:
        r = head_line(s);
        break;
    case MU_HS_SIZE:
        r = size_line(s);
        break;
    case MU_HS_DATA_END:
        r = s->line.len ? MU_E_PROTOCOL : 0;
        s->step = MU_HS_SIZE;
        break;
    case MU_HS_TRAILER:
        s->step = s->line.len ? MU_HS_TRAILER : MU_HS_DONE;
        break;
    case MU_HS_DATA:
    case MU_HS_DONE:
    case MU_HS_BROKEN:
        break;
    }
    s->line.len = 0;
    return r;
}

int mu_http_stream_feed(struct mu_http_stream *s, mu_bytes *in, mu_bytes *ret_piece)
{
    *ret_piece = MU_B_NONE;
    while (in->len && s->step != MU_HS_DONE) {
        if (s->step == MU_HS_BROKEN) {
            return MU_E_PROTOCOL;
        }
        if (s->step != MU_HS_DATA) {
            int r = a_line(s, in);
            if (r) {
                return broken(s, r);
            }
            continue;
        }
        size_t n = s->left < 0 ? in->len : (size_t)MU_MIN((int64_t)in->len, s->left);
        *ret_piece = mu_bytes_head(*in, n);
        *in = mu_bytes_from(*in, n);
        s->left -= s->left < 0 ? 0 : (int64_t)n;
        if (s->left == 0) {
            s->step = s->chunked ? MU_HS_DATA_END : MU_HS_DONE;
        }
        return 0;
    }
    return 0;
}

int mu_http_stream_end(struct mu_http_stream *s)
{
    if (s->step == MU_HS_DATA && s->left < 0 && !s->chunked) {
        s->step = MU_HS_DONE;
    }
    return s->step == MU_HS_DONE ? 0 : broken(s, MU_E_PROTOCOL);
}
