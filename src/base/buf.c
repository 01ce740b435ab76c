#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/err.h"

void mu_buf_init(struct mu_buf *b, size_t max_bytes)
{
    *b = (struct mu_buf){.max = max_bytes};
}

void mu_buf_fini(struct mu_buf *b)
{
    mu_free(b->ptr);
    b->ptr = NULL;
    b->len = b->cap = 0;
}

void mu_buf_wipe(struct mu_buf *b)
{
    if (b->ptr) {
        explicit_bzero(b->ptr, b->cap);
    }
    mu_buf_fini(b);
}

void mu_buf_clear(struct mu_buf *b)
{
    b->len = 0;
    b->failed = 0;
}

char *mu_buf_room(struct mu_buf *b, size_t n)
{
    if (b->failed) {
        return NULL;
    }
    if (n > b->max || b->len > b->max - n) {
        b->failed = MU_E_TOO_LARGE;
        return NULL;
    }
    if (b->cap - b->len < n) {
        size_t cap = MU_MAX(b->cap * 2, (size_t)64);
        cap = MU_MIN(MU_MAX(cap, b->len + n), b->max);
        char *p = mu_realloc(b->ptr, cap);
        if (!p) {
            b->failed = -ENOMEM;
            return NULL;
        }
        b->ptr = p;
        b->cap = cap;
    }
    return b->ptr + b->len;
}

void mu_buf_add(struct mu_buf *b, mu_bytes data)
{
    char *p = data.len ? mu_buf_room(b, data.len) : NULL;
    if (p) {
        memcpy(p, data.ptr, data.len);
        b->len += data.len;
    }
}

void mu_buf_add_char(struct mu_buf *b, char c)
{
    char *p = mu_buf_room(b, 1);
    if (p) {
        *p = c;
        b->len++;
    }
}

void mu_buf_add_i64(struct mu_buf *b, int64_t v)
{
    char tmp[24];
    size_t at = sizeof tmp;
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do {
        tmp[--at] = (char)('0' + u % 10);
        u /= 10;
    } while (u);
    if (v < 0) {
        tmp[--at] = '-';
    }
    mu_buf_add(b, mu_bytes_of(tmp + at, sizeof tmp - at));
}

void mu_buf_printf(struct mu_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    /* vsnprintf wants a place for its NUL; it is not counted into len */
    size_t max = b->max;
    b->max = max < SIZE_MAX ? max + 1 : max;
    char *p = n < 0 ? NULL : mu_buf_room(b, (size_t)n + 1);
    b->max = max;
    if (p) {
        vsnprintf(p, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void mu_buf_consume(struct mu_buf *b, size_t n)
{
    if (n >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->ptr, b->ptr + n, b->len - n);
    b->len -= n;
}
