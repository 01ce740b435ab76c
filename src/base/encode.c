#include "base/encode.h"

#include <errno.h>

#include "base/err.h"

void mu_hex(const void *src, size_t len, char *dst)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *p = src;
    for (size_t i = 0; i < len; i++) {
        dst[2 * i] = hex[p[i] >> 4];
        dst[2 * i + 1] = hex[p[i] & 15];
    }
    dst[2 * len] = 0;
}

int mu_hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char low = (char)(c | 0x20);
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

bool mu_hex_is(mu_bytes b, size_t len)
{
    for (size_t i = 0; i < b.len; i++) {
        char c = b.ptr[i];
        if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) {
            return false;
        }
    }
    return b.len == len;
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void mu_base64_add(struct mu_buf *dst, mu_bytes src)
{
    const unsigned char *p = (const unsigned char *)src.ptr;
    for (size_t i = 0; i < src.len; i += 3) {
        size_t n = MU_MIN(src.len - i, (size_t)3);
        unsigned v =
            (unsigned)p[i] << 16 | (n > 1 ? (unsigned)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0);
        char out[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63],
                       n > 1 ? alphabet[v >> 6 & 63] : '=', n > 2 ? alphabet[v & 63] : '='};
        mu_buf_add(dst, mu_bytes_of(out, 4));
    }
}

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int mu_base64_decode(mu_bytes src, struct mu_buf *dst)
{
    if (src.len % 4) {
        return MU_E_INVALID;
    }
    for (size_t i = 0; i < src.len; i += 4) {
        int pad = 0;
        if (i + 4 == src.len) {
            pad = src.ptr[i + 3] == '=' ? src.ptr[i + 2] == '=' ? 2 : 1 : 0;
        }
        unsigned v = 0;
        for (int k = 0; k < 4; k++) {
            int s = k < 4 - pad ? sextet(src.ptr[i + (size_t)k]) : 0;
            if (s < 0) {
                return MU_E_INVALID;
            }
            v = v << 6 | (unsigned)s;
        }
        if ((pad == 1 && (v & 0xff)) || (pad == 2 && (v & 0xffff))) {
            return MU_E_INVALID; /* bits that no encoder sets */
        }
        char out[3] = {(char)(v >> 16), (char)(v >> 8), (char)v};
        mu_buf_add(dst, mu_bytes_of(out, (size_t)(3 - pad)));
    }
    return dst->failed;
}

/* Length of the well-formed sequence at p, or 0; *bad gets how many bytes one U+FFFD stands for. */
static size_t sequence(const unsigned char *p, size_t len, size_t *bad)
{
    *bad = 1;
    if (p[0] < 0x80) {
        return 1;
    }
    size_t n = p[0] >= 0xc2 && p[0] <= 0xdf   ? 2
               : (p[0] & 0xf0) == 0xe0        ? 3
               : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4
                                              : 0;
    if (!n) {
        return 0;
    }
    unsigned lo = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned hi = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < n; i++) {
        if (i >= len || p[i] < lo || p[i] > hi) {
            *bad = i;
            return 0;
        }
        lo = 0x80;
        hi = 0xbf;
    }
    return n;
}

size_t mu_utf8_len(mu_bytes b, size_t *ret_bad)
{
    return sequence((const unsigned char *)b.ptr, b.len, ret_bad);
}

bool mu_utf8_valid(mu_bytes b)
{
    const unsigned char *p = (const unsigned char *)b.ptr;
    size_t i = 0, bad;
    while (i < b.len) {
        if (i + 8 <= b.len) { /* eight ASCII bytes at once */
            uint64_t w;
            memcpy(&w, p + i, 8);
            if (!(w & 0x8080808080808080)) {
                i += 8;
                continue;
            }
        }
        size_t n = sequence(p + i, b.len - i, &bad);
        if (!n) {
            return false;
        }
        i += n;
    }
    return true;
}

size_t mu_utf8_count(mu_bytes b)
{
    size_t n = 0;
    for (size_t i = 0; i < b.len; i++) {
        n += ((unsigned char)b.ptr[i] & 0xc0) != 0x80;
    }
    return n;
}

mu_bytes mu_utf8_cut(mu_bytes b, size_t max)
{
    if (b.len <= max) {
        return b;
    }
    size_t n = max;
    while (n > 0 && max - n < 4 && ((unsigned char)b.ptr[n] & 0xc0) == 0x80) {
        n--;
    }
    return mu_bytes_head(b, n);
}

void mu_utf8_add_lossy(struct mu_buf *dst, mu_bytes b)
{
    const unsigned char *p = (const unsigned char *)b.ptr;
    size_t start = 0, i = 0, bad;
    while (i < b.len) {
        size_t n = sequence(p + i, b.len - i, &bad);
        if (n) {
            i += n;
            continue;
        }
        mu_buf_add(dst, mu_bytes_of(b.ptr + start, i - start));
        mu_buf_add_str(dst, "\xef\xbf\xbd");
        i += bad;
        start = i;
    }
    mu_buf_add(dst, mu_bytes_of(b.ptr + start, b.len - start));
}
