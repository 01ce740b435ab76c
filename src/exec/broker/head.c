#include "exec/broker/broker.h"
#include "exec/broker/policy.h"

/* The next line without its CRLF; false when there is none or it holds a bare CR, LF or another
 * control byte. */
static bool next_line(mu_bytes *rest, mu_bytes *ret)
{
    for (size_t i = 0; i + 1 < rest->len; i++) {
        unsigned char c = (unsigned char)rest->ptr[i];
        if (c == '\r') {
            if (rest->ptr[i + 1] != '\n') {
                return false;
            }
            *ret = mu_bytes_head(*rest, i);
            *rest = mu_bytes_from(*rest, i + 2);
            return true;
        }
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return false;
}

static bool token(mu_bytes t)
{
    for (size_t i = 0; i < t.len; i++) {
        char c = t.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              strchr("!#$%&'*+-.^_`|~", c))) {
            return false;
        }
    }
    return t.len > 0;
}

static bool headers_ok(mu_bytes headers)
{
    mu_bytes line;
    for (int n = 0; headers.len; n++) {
        if (n == 100 || !next_line(&headers, &line)) {
            return false;
        }
        ptrdiff_t colon = mu_bytes_find_char(line, ':');
        if (colon <= 0 || !token(mu_bytes_head(line, (size_t)colon))) {
            return false; /* also a folded line */
        }
    }
    return true;
}

static int digits(mu_bytes text, uint16_t *ret)
{
    int64_t v;
    if (text.len == 0 || text.len > 5 || text.ptr[0] == '0' || text.ptr[0] == '-' ||
        mu_bytes_i64(text, &v) < 0 || v < 1 || v > 65535) {
        return MU_E_INVALID;
    }
    *ret = (uint16_t)v;
    return 0;
}

static int authority(mu_bytes text, unsigned default_port, struct mu_proxy_head *ret)
{
    ptrdiff_t colon = mu_bytes_find_char(text, ':');
    ret->host = colon < 0 ? text : mu_bytes_head(text, (size_t)colon);
    ret->port = (uint16_t)default_port;
    if (colon < 0 ? default_port == 0
                  : digits(mu_bytes_from(text, (size_t)colon + 1), &ret->port) < 0) {
        return MU_E_INVALID;
    }
    return mu_broker_host_ok(ret->host) ? 0 : MU_E_INVALID;
}

static int target(mu_bytes text, struct mu_proxy_head *ret, const char **ret_why)
{
    *ret_why = "grammar";
    if (ret->connect) {
        return authority(text, 0, ret);
    }
    if (!mu_bytes_starts(text, MU_B("http://"))) {
        *ret_why = "method";
        return MU_E_INVALID;
    }
    text = mu_bytes_from(text, 7);
    size_t n = 0;
    while (n < text.len && text.ptr[n] != '/' && text.ptr[n] != '?') {
        n++;
    }
    ret->target = mu_bytes_from(text, n);
    if (authority(mu_bytes_head(text, n), 80, ret) < 0 ||
        (ret->target.len && ret->target.ptr[0] != '/')) {
        return MU_E_INVALID;
    }
    if (ret->target.len == 0) {
        ret->target = MU_B("/");
    }
    if (ret->port != 80) {
        *ret_why = "method";
        return MU_E_INVALID;
    }
    return 0;
}

int mu_proxy_head_parse(mu_bytes head, struct mu_proxy_head *ret, const char **ret_why)
{
    *ret = (struct mu_proxy_head){0};
    *ret_why = "malformed";
    mu_bytes rest = head, line;
    if (head.len < 4 || !mu_bytes_ends(head, MU_B("\r\n\r\n")) || !next_line(&rest, &line)) {
        /* a NUL or another control byte in the target gets the word that says so */
        ptrdiff_t end = mu_bytes_find_char(head, '\n');
        *ret_why = end > 0 && memchr(head.ptr, 0, (size_t)end) ? "grammar" : "malformed";
        return MU_E_INVALID;
    }
    mu_bytes words = line;
    ret->method = mu_bytes_split(&words, ' ');
    mu_bytes where = mu_bytes_split(&words, ' ');
    if (!token(ret->method) || where.len == 0 ||
        (!mu_bytes_is(words, "HTTP/1.1") && !mu_bytes_is(words, "HTTP/1.0"))) {
        return MU_E_INVALID;
    }
    for (size_t i = 0; i < where.len; i++) {
        if ((unsigned char)where.ptr[i] <= 0x20 || (unsigned char)where.ptr[i] >= 0x7f) {
            return MU_E_INVALID;
        }
    }
    ret->headers = mu_bytes_head(rest, rest.len - 2);
    if (!headers_ok(ret->headers)) {
        return MU_E_INVALID;
    }
    ret->connect = mu_bytes_is(ret->method, "CONNECT");
    return target(where, ret, ret_why);
}

/* A cursor over a ClientHello; `ok` falls when something does not fit. */
struct cursor {
    const uint8_t *at;
    size_t left;
    bool ok;
};

static unsigned take(struct cursor *c, size_t bytes)
{
    unsigned v = 0;
    if (!c->ok || c->left < bytes) {
        c->ok = false;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++) {
        v = v << 8 | c->at[i];
    }
    c->at += bytes;
    c->left -= bytes;
    return v;
}

static struct cursor sub(struct cursor *c, size_t bytes)
{
    struct cursor r = {c->at, bytes, c->ok && c->left >= bytes};
    if (!r.ok) {
        c->ok = false;
        return r;
    }
    c->at += bytes;
    c->left -= bytes;
    return r;
}

static enum mu_sni name_in(struct cursor list, mu_bytes *ret)
{
    struct cursor names = sub(&list, take(&list, 2));
    while (names.ok && names.left) {
        unsigned type = take(&names, 1);
        struct cursor name = sub(&names, take(&names, 2));
        if (name.ok && type == 0) {
            *ret = mu_bytes_of((const char *)name.at, name.left);
            return MU_SNI_FOUND;
        }
    }
    return names.ok ? MU_SNI_NONE : MU_SNI_BAD;
}

static enum mu_sni hello_name(struct cursor hello, mu_bytes *ret)
{
    if (take(&hello, 1) != 1) { /* ClientHello */
        return MU_SNI_BAD;
    }
    struct cursor body = sub(&hello, take(&hello, 3));
    (void)sub(&body, 34); /* version, random */
    (void)sub(&body, take(&body, 1));
    (void)sub(&body, take(&body, 2));
    (void)sub(&body, take(&body, 1));
    if (body.ok && body.left == 0) { /* the old form without extensions */
        return MU_SNI_NONE;
    }
    struct cursor extensions = sub(&body, take(&body, 2));
    while (extensions.ok && extensions.left) {
        unsigned type = take(&extensions, 2);
        struct cursor one = sub(&extensions, take(&extensions, 2));
        if (one.ok && type == 0) {
            return name_in(one, ret);
        }
    }
    return extensions.ok ? MU_SNI_NONE : MU_SNI_BAD;
}

enum mu_sni mu_sni_find(mu_bytes data, mu_bytes *ret_name)
{
    if (data.len == 0) {
        return MU_SNI_MORE;
    }
    if (data.ptr[0] != 22) {
        return MU_SNI_NONE;
    }
    if (data.len < 5) {
        return MU_SNI_MORE;
    }
    size_t record = (size_t)(uint8_t)data.ptr[3] << 8 | (uint8_t)data.ptr[4];
    if (record > MU_SNI_RECORD) {
        return MU_SNI_BAD;
    }
    if (data.len < 5 + record) {
        return MU_SNI_MORE;
    }
    struct cursor hello = {(const uint8_t *)data.ptr + 5, record, true};
    return hello_name(hello, ret_name);
}
