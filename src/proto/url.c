#include "proto/url.h"

#include <errno.h>

#include "base/buf.h"
#include "base/encode.h"

/* The byte of "%XX" at text.ptr[at], or -1. */
static int escape_at(mu_bytes text, size_t at)
{
    if (text.len - at < 3) {
        return -1;
    }
    int high = mu_hex_value(text.ptr[at + 1]), low = mu_hex_value(text.ptr[at + 2]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

int mu_url_decode(struct mu_arena *a, mu_bytes text, bool form, mu_bytes *ret)
{
    char *dst = mu_arena_alloc(a, text.len + 1);
    if (!dst) {
        return -ENOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '%') {
            int v = escape_at(text, i);
            if (v < 0) {
                return MU_E_INVALID;
            }
            c = (char)v;
            i += 2;
        } else if (c == '+' && form) {
            c = ' ';
        }
        if (c == 0) {
            return MU_E_INVALID;
        }
        dst[n++] = c;
    }
    dst[n] = 0;
    *ret = mu_bytes_of(dst, n);
    return 0;
}

static bool is_alnum(char c)
{
    char low = (char)(c | 0x20);
    return (c >= '0' && c <= '9') || (low >= 'a' && low <= 'z');
}

static bool is_unreserved(char c)
{
    return is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

void mu_url_encode(struct mu_buf *dst, mu_bytes text)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (is_unreserved((char)c)) {
            mu_buf_add_char(dst, (char)c);
        } else {
            mu_buf_add(dst, mu_bytes_of((char[]){'%', digits[c >> 4], digits[c & 15]}, 3));
        }
    }
}

/* Decodes into dst, which has room for raw.len bytes. Returns the length, or MU_E_INVALID. */
static ptrdiff_t decode_path(mu_bytes raw, char *dst)
{
    ptrdiff_t n = 0;
    for (size_t i = 0; i < raw.len; i++) {
        unsigned char c = (unsigned char)raw.ptr[i];
        if (c < 0x21 || c > 0x7e || c == '\\' || c == '?' || c == '#') {
            return MU_E_INVALID;
        }
        if (c == '%') {
            int v = escape_at(raw, i);
            if (v < 0x20 || v == 0x7f || v == '/' || v == '\\') {
                return MU_E_INVALID;
            }
            c = (unsigned char)v;
            i += 2;
        }
        dst[n++] = (char)c;
    }
    return n;
}

/* Removes "." segments in place; MU_E_INVALID on "..". */
static ptrdiff_t drop_dots(char *path, size_t len)
{
    size_t out = 0, at = 0;
    while (at < len) { /* path[at] is the slash in front of a segment */
        size_t end = at + 1;
        while (end < len && path[end] != '/') {
            end++;
        }
        mu_bytes segment = mu_bytes_of(path + at + 1, end - at - 1);
        if (mu_bytes_is(segment, "..")) {
            return MU_E_INVALID;
        }
        if (!mu_bytes_is(segment, ".")) {
            memmove(path + out, path + at, end - at);
            out += end - at;
        } else if (end == len) {
            path[out++] = '/'; /* "/a/." names the folder, as "/a/" does */
        }
        at = end;
    }
    return (ptrdiff_t)out;
}

int mu_url_path(struct mu_arena *a, mu_bytes raw_path, mu_bytes *ret)
{
    if (raw_path.len == 0 || raw_path.ptr[0] != '/') {
        return MU_E_INVALID;
    }
    char *dst = mu_arena_alloc(a, raw_path.len + 1);
    if (!dst) {
        return -ENOMEM;
    }
    ptrdiff_t n = decode_path(raw_path, dst);
    if (n < 0 || !mu_utf8_valid(mu_bytes_of(dst, (size_t)n))) {
        return MU_E_INVALID;
    }
    n = drop_dots(dst, (size_t)n);
    if (n < 0) {
        return MU_E_INVALID;
    }
    dst[n] = 0;
    *ret = mu_bytes_of(dst, (size_t)n);
    return 0;
}

int mu_url_query_next(struct mu_arena *a, mu_bytes *rest, mu_bytes *ret_key, mu_bytes *ret_value)
{
    while (rest->ptr) {
        mu_bytes pair = mu_bytes_split(rest, '&');
        if (pair.len == 0) {
            continue;
        }
        mu_bytes value = pair;
        mu_bytes key = mu_bytes_split(&value, '=');
        int r = mu_url_decode(a, key, true, &key);
        if (r == 0) {
            r = mu_url_decode(a, value, true, &value);
        }
        if (r < 0) {
            return r;
        }
        *ret_key = key;
        *ret_value = value;
        return 1;
    }
    return 0;
}

static int parse_port(mu_bytes text, unsigned *port)
{
    unsigned v = 0;
    if (text.len == 0 || text.len > 5) {
        return MU_E_INVALID;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return MU_E_INVALID;
        }
        v = v * 10 + (unsigned)(text.ptr[i] - '0');
    }
    if (v == 0 || v > 65535) {
        return MU_E_INVALID;
    }
    *port = v;
    return 0;
}

static bool host_ok(mu_bytes host, bool literal)
{
    for (size_t i = 0; i < host.len; i++) {
        char c = host.ptr[i];
        bool ok = literal ? mu_hex_value(c) >= 0 || c == ':' || c == '.' : is_unreserved(c);
        if (!ok) {
            return false;
        }
    }
    return host.len > 0 && host.len <= 253;
}

/* host[:port] or [v6][:port] */
static int parse_authority(mu_bytes text, struct mu_url *u, struct mu_err *err)
{
    bool literal = text.len > 0 && text.ptr[0] == '[';
    mu_bytes port = MU_B_NONE;
    if (literal) {
        ptrdiff_t close = mu_bytes_find_char(text, ']');
        if (close < 0) {
            return mu_err_set(err, MU_E_INVALID, "the address has no closing bracket");
        }
        u->host = mu_bytes_of(text.ptr + 1, (size_t)close - 1);
        mu_bytes after = mu_bytes_from(text, (size_t)close + 1);
        if (after.len > 0 && after.ptr[0] != ':') {
            return mu_err_set(err, MU_E_INVALID, "unexpected text behind the address");
        }
        port = after.len > 0 ? mu_bytes_from(after, 1) : MU_B_NONE;
    } else {
        port = text;
        u->host = mu_bytes_split(&port, ':');
    }
    if (!host_ok(u->host, literal)) {
        return mu_err_set(err, MU_E_INVALID, "the host name is not valid");
    }
    if (port.ptr && parse_port(port, &u->port) < 0) {
        return mu_err_set(err, MU_E_INVALID, "the port is not a number from 1 to 65535");
    }
    return 0;
}

static int parse_scheme(mu_bytes *rest, struct mu_url *u, struct mu_err *err)
{
    ptrdiff_t at = mu_bytes_find(*rest, MU_B("://"));
    u->scheme = mu_bytes_head(*rest, at < 0 ? 0 : (size_t)at);
    if (mu_bytes_eq_nocase(u->scheme, MU_B("http"))) {
        u->port = 80;
    } else if (mu_bytes_eq_nocase(u->scheme, MU_B("https"))) {
        u->port = 443;
    } else {
        return mu_err_set(err, MU_E_INVALID, "the URL must begin with http:// or https://");
    }
    *rest = mu_bytes_from(*rest, (size_t)at + 3);
    return 0;
}

int mu_url_parse(mu_bytes text, struct mu_url *ret, struct mu_err *err)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c < 0x21 || c > 0x7e || c == '\\') {
            return mu_err_set(err, MU_E_INVALID,
                              "the URL contains a character that is not allowed");
        }
    }
    struct mu_url u = {0};
    mu_bytes rest = text;
    int r = parse_scheme(&rest, &u, err);
    if (r < 0) {
        return r;
    }
    ptrdiff_t fragment = mu_bytes_find_char(rest, '#');
    if (fragment >= 0) {
        rest.len = (size_t)fragment;
    }
    size_t end = 0;
    while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?') {
        end++;
    }
    mu_bytes authority = mu_bytes_head(rest, end);
    rest = mu_bytes_from(rest, end);
    for (size_t i = authority.len; i > 0; i--) {
        if (authority.ptr[i - 1] == '@') {
            u.has_userinfo = true;
            authority = mu_bytes_from(authority, i);
            break;
        }
    }
    r = parse_authority(authority, &u, err);
    if (r < 0) {
        return r;
    }
    ptrdiff_t q = mu_bytes_find_char(rest, '?');
    u.path = q < 0 ? rest : mu_bytes_head(rest, (size_t)q);
    u.query = q < 0 ? MU_B("") : mu_bytes_from(rest, (size_t)q + 1);
    if (u.path.len == 0) {
        u.path = MU_B("/");
    }
    *ret = u;
    return 0;
}
