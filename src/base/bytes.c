#include "base/bytes.h"

#include "base/err.h"

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

bool mu_bytes_eq_nocase(mu_bytes a, mu_bytes b)
{
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (lower(a.ptr[i]) != lower(b.ptr[i])) {
            return false;
        }
    }
    return true;
}

int mu_bytes_cmp(mu_bytes a, mu_bytes b)
{
    size_t n = MU_MIN(a.len, b.len);
    int r = n ? memcmp(a.ptr, b.ptr, n) : 0;
    return r ? r : (a.len > b.len) - (a.len < b.len);
}

bool mu_bytes_starts(mu_bytes a, mu_bytes prefix)
{
    return a.len >= prefix.len && (prefix.len == 0 || memcmp(a.ptr, prefix.ptr, prefix.len) == 0);
}

bool mu_bytes_ends(mu_bytes a, mu_bytes suffix)
{
    return a.len >= suffix.len &&
           (suffix.len == 0 || memcmp(a.ptr + a.len - suffix.len, suffix.ptr, suffix.len) == 0);
}

ptrdiff_t mu_bytes_find(mu_bytes hay, mu_bytes needle)
{
    if (needle.len == 0) {
        return 0;
    }
    if (hay.len < needle.len) {
        return -1;
    }
    const char *p = memmem(hay.ptr, hay.len, needle.ptr, needle.len);
    return p ? p - hay.ptr : -1;
}

ptrdiff_t mu_bytes_find_nocase(mu_bytes hay, mu_bytes needle)
{
    for (size_t i = 0; i + needle.len <= hay.len; i++) {
        if (mu_bytes_eq_nocase(mu_bytes_of(hay.ptr + i, needle.len), needle)) {
            return (ptrdiff_t)i;
        }
    }
    return -1;
}

ptrdiff_t mu_bytes_find_char(mu_bytes hay, char c)
{
    const char *p = hay.len ? memchr(hay.ptr, c, hay.len) : NULL;
    return p ? p - hay.ptr : -1;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

mu_bytes mu_bytes_trim(mu_bytes b)
{
    while (b.len && is_space(b.ptr[0])) {
        b.ptr++;
        b.len--;
    }
    while (b.len && is_space(b.ptr[b.len - 1])) {
        b.len--;
    }
    return b;
}

mu_bytes mu_bytes_from(mu_bytes b, size_t from)
{
    if (from >= b.len) {
        return mu_bytes_of(b.ptr ? b.ptr + b.len : NULL, 0);
    }
    return mu_bytes_of(b.ptr + from, b.len - from);
}

mu_bytes mu_bytes_head(mu_bytes b, size_t len)
{
    return mu_bytes_of(b.ptr, MU_MIN(b.len, len));
}

mu_bytes mu_bytes_split(mu_bytes *rest, char sep)
{
    mu_bytes all = *rest;
    ptrdiff_t at = mu_bytes_find_char(all, sep);
    if (at < 0) {
        *rest = MU_B_NONE;
        return all;
    }
    *rest = mu_bytes_from(all, (size_t)at + 1);
    return mu_bytes_head(all, (size_t)at);
}

bool mu_bytes_is_path(mu_bytes path)
{
    bool good = path.len > 0;
    while (good && path.ptr) {
        mu_bytes part = mu_bytes_split(&path, '/');
        good = part.len > 0 && !mu_bytes_is(part, ".") && !mu_bytes_is(part, "..");
    }
    return good;
}

int mu_bytes_i64(mu_bytes b, int64_t *ret)
{
    bool minus = b.len && b.ptr[0] == '-';
    size_t i = minus ? 1 : 0;
    if (i == b.len || b.len > 20) {
        return MU_E_INVALID;
    }
    int64_t v = 0;
    for (; i < b.len; i++) {
        if (b.ptr[i] < '0' || b.ptr[i] > '9') {
            return MU_E_INVALID;
        }
        int d = b.ptr[i] - '0';
        if (__builtin_mul_overflow(v, 10, &v) ||
            (minus ? __builtin_sub_overflow(v, d, &v) : __builtin_add_overflow(v, d, &v))) {
            return MU_E_INVALID;
        }
    }
    *ret = v;
    return 0;
}

char *mu_bytes_dup(mu_bytes b)
{
    char *p = mu_alloc(b.len + 1);
    if (p) {
        if (b.len) {
            memcpy(p, b.ptr, b.len);
        }
        p[b.len] = 0;
    }
    return p;
}

bool mu_bytes_eq_secret(mu_bytes a, mu_bytes b)
{
    if (a.len != b.len) {
        return false;
    }
    unsigned diff = 0;
    for (size_t i = 0; i < a.len; i++) {
        diff |= (unsigned char)(a.ptr[i] ^ b.ptr[i]);
    }
    return diff == 0;
}
