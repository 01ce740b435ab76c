#include "worker/kept.h"

#include <stdio.h>

#include "base/clock.h"
#include "proto/json.h"

enum { RING_FIRST = 16 << 10, MARK = 96 };

void mu_kept_init(struct mu_kept *o, size_t limit)
{
    memset(o, 0, sizeof *o);
    size_t head = MU_MIN(limit / 2, (size_t)MU_KEPT_HEAD);
    mu_buf_init(&o->head, head);
    o->tail_max = limit - head;
}

void mu_kept_fini(struct mu_kept *o)
{
    mu_buf_fini(&o->head);
    mu_free(o->ring);
    memset(o, 0, sizeof *o);
}

static bool grow_ring(struct mu_kept *o, size_t want)
{
    size_t cap = o->ring_cap ? o->ring_cap : RING_FIRST;
    while (cap < want && cap < o->tail_max) {
        cap *= 2;
    }
    cap = MU_MIN(cap, o->tail_max);
    if (cap <= o->ring_cap) {
        return o->ring_cap > 0;
    }
    char *grown = mu_realloc(o->ring, cap); /* it never wrapped while it may grow */
    if (!grown) {
        return o->ring_cap > 0;
    }
    o->ring = grown;
    o->ring_cap = cap;
    o->ring_pos = o->ring_len;
    return true;
}

void mu_kept_add(struct mu_kept *o, mu_bytes b)
{
    o->total += (int64_t)b.len;
    mu_bytes first = mu_bytes_head(b, o->head.max - o->head.len);
    if (first.len) {
        mu_buf_add(&o->head, first);
        if (o->head.failed) {
            mu_buf_clear(&o->head);
            o->head.max = 0; /* what comes goes to the tail */
        } else {
            b = mu_bytes_from(b, first.len);
        }
    }
    if (b.len == 0 || o->tail_max == 0) {
        return;
    }
    if (o->ring_len + b.len > o->ring_cap && !grow_ring(o, o->ring_len + b.len)) {
        return;
    }
    b = mu_bytes_from(b, b.len > o->ring_cap ? b.len - o->ring_cap : 0);
    while (b.len) {
        size_t at = o->ring_pos % o->ring_cap;
        size_t n = MU_MIN(b.len, o->ring_cap - at);
        memcpy(o->ring + at, b.ptr, n);
        o->ring_pos = (at + n) % o->ring_cap;
        o->ring_len = MU_MIN(o->ring_len + n, o->ring_cap);
        b = mu_bytes_from(b, n);
    }
}

static void mark(struct mu_buf *dst, int64_t missing)
{
    mu_buf_printf(dst, "\n[... %lld bytes left out ...]\n", (long long)missing);
}

void mu_kept_write(const struct mu_kept *o, struct mu_buf *dst)
{
    mu_buf_add(dst, mu_buf_bytes(&o->head));
    int64_t missing = o->total - (int64_t)(o->head.len + o->ring_len);
    if (missing > 0) {
        mark(dst, missing);
    }
    if (o->ring_len) {
        size_t start = o->ring_len == o->ring_cap ? o->ring_pos % o->ring_cap : 0;
        mu_buf_add(dst, mu_bytes_of(o->ring + start, o->ring_len - start));
        mu_buf_add(dst, mu_bytes_of(o->ring, start));
    }
}

void mu_kept_cut(mu_bytes text, int64_t total, size_t limit, struct mu_buf *dst)
{
    int64_t beyond = MU_MAX(total - (int64_t)text.len, (int64_t)0);
    if (text.len <= limit && beyond == 0) {
        mu_buf_add(dst, text);
        return;
    }
    size_t head = MU_MIN(limit / 2, (size_t)MU_KEPT_HEAD);
    size_t tail = MU_MIN(limit - head, text.len - MU_MIN(head, text.len));
    mu_buf_add(dst, mu_bytes_head(text, head));
    int64_t missing = (int64_t)(text.len - MU_MIN(head, text.len) - tail);
    if (missing > 0) {
        mark(dst, missing);
    }
    mu_buf_add(dst, mu_bytes_from(text, text.len - tail));
    if (beyond > 0) {
        mark(dst, beyond);
    }
}

/* --- what is found in it --- */

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
}

static size_t run_of_name(mu_bytes b)
{
    size_t i = 0;
    while (i < b.len && name_char(b.ptr[i])) {
        i++;
    }
    return i;
}

/* The length of "<owner>/<repo>/pull/<digits>" at the start of `b`, or 0. */
static size_t pull_path(mu_bytes b)
{
    size_t at = 0;
    for (int part = 0; part < 2; part++) {
        size_t n = run_of_name(mu_bytes_from(b, at));
        at += n;
        if (n == 0 || at >= b.len || b.ptr[at] != '/') {
            return 0;
        }
        at++;
    }
    if (!mu_bytes_starts(mu_bytes_from(b, at), MU_B("pull/"))) {
        return 0;
    }
    at += 5;
    size_t digits = 0;
    while (at + digits < b.len && b.ptr[at + digits] >= '0' && b.ptr[at + digits] <= '9') {
        digits++;
    }
    return digits ? at + digits : 0;
}

static bool known(const struct mu_buf *dst, mu_bytes url)
{
    char quoted[600];
    int n = snprintf(quoted, sizeof quoted, "\"%.*s\"", MU_ARGS(url));
    return n < 0 || (size_t)n >= sizeof quoted ||
           mu_bytes_find(mu_buf_bytes(dst), mu_bytes_of(quoted, (size_t)n)) >= 0;
}

void mu_find_pull_requests(mu_bytes text, int64_t now_ms, struct mu_buf *dst, size_t *count)
{
    mu_bytes prefix = MU_B("https://github.com/");
    char when[MU_TIME_LEN + 1];
    mu_time_format(now_ms - now_ms % 1000, when);
    when[19] = 'Z'; /* whole seconds */
    when[20] = 0;
    while (*count < MU_MAX_ARTIFACTS) {
        ptrdiff_t at = mu_bytes_find(text, prefix);
        if (at < 0) {
            return;
        }
        mu_bytes url = mu_bytes_from(text, (size_t)at);
        size_t path = pull_path(mu_bytes_from(url, prefix.len));
        text = mu_bytes_from(url, prefix.len + path);
        url = mu_bytes_head(url, prefix.len + path);
        if (path == 0 || known(dst, url)) {
            continue;
        }
        mu_buf_printf(dst,
                      "%s{\"artifact_type\":\"PULL_REQUEST\",\"created_at\":\"%s\",\"data\":{"
                      "\"branch\":\"unknown\",\"url\":\"%.*s\"}}",
                      *count ? "," : "", when, MU_ARGS(url));
        (*count)++;
    }
}

static mu_bytes url_in(mu_bytes line)
{
    ptrdiff_t plain = mu_bytes_find(line, MU_B("http://"));
    ptrdiff_t tls = mu_bytes_find(line, MU_B("https://"));
    ptrdiff_t at = plain < 0 ? tls : tls < 0 ? plain : MU_MIN(plain, tls);
    if (at < 0) {
        return MU_B_NONE;
    }
    mu_bytes url = mu_bytes_from(line, (size_t)at);
    size_t n = 0;
    while (n < url.len && n < 2048 && (unsigned char)url.ptr[n] > ' ' && url.ptr[n] != 127 &&
           !strchr("\"'<>`", url.ptr[n])) {
        n++;
    }
    return n > 8 ? mu_bytes_head(url, n) : MU_B_NONE;
}

mu_bytes mu_find_session_link(mu_bytes text)
{
    while (text.ptr) {
        mu_bytes line = mu_bytes_split(&text, '\n');
        ptrdiff_t at = mu_bytes_find_nocase(line, MU_B("session"));
        mu_bytes url = at >= 0 ? url_in(mu_bytes_from(line, (size_t)at + 7)) : MU_B_NONE;
        if (url.len) {
            return url;
        }
    }
    return MU_B_NONE;
}
