#include "exec/broker/policy.h"

#include <arpa/inet.h>
#include <errno.h>

#include "exec/broker/broker.h"

static bool lower_label_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

bool mu_broker_host_ok(mu_bytes host)
{
    if (host.len == 0 || host.len > MU_HOST_MAX) {
        return false;
    }
    mu_bytes rest = host, label = MU_B_NONE;
    while (rest.ptr) {
        label = mu_bytes_split(&rest, '.');
        if (label.len == 0 || label.len > 63 || label.ptr[0] == '-' ||
            label.ptr[label.len - 1] == '-') {
            return false;
        }
        for (size_t i = 0; i < label.len; i++) {
            if (!lower_label_char(label.ptr[i])) {
                return false;
            }
        }
    }
    /* the last label begins with a letter: no dotted, decimal or octal address is a name */
    return label.ptr[0] >= 'a' && label.ptr[0] <= 'z';
}

static bool port_of(mu_bytes text, uint16_t *ret)
{
    if (text.len == 0 || text.len > 5) {
        return false;
    }
    unsigned v = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return false;
        }
        v = v * 10 + (unsigned)(text.ptr[i] - '0');
    }
    if (v == 0 || v > 65535 || (text.len > 1 && text.ptr[0] == '0')) {
        return false;
    }
    *ret = (uint16_t)v;
    return true;
}

/* "host:port" at the last colon; a bracketed IPv6 address keeps its brackets out of `host`. */
static bool host_port(mu_bytes text, mu_bytes *ret_host, uint16_t *ret_port)
{
    for (size_t i = text.len; i-- > 0;) {
        if (text.ptr[i] == ':') {
            mu_bytes host = mu_bytes_head(text, i);
            if (host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']') {
                host = mu_bytes_of(host.ptr + 1, host.len - 2);
            } else if (mu_bytes_find_char(host, ':') >= 0) {
                return false;
            }
            *ret_host = host;
            return host.len > 0 && port_of(mu_bytes_from(text, i + 1), ret_port);
        }
    }
    return false;
}

/* The next entry of a list, trimmed; false at the end. */
static bool next_entry(mu_bytes *rest, mu_bytes *ret)
{
    while (rest->len) {
        size_t n = 0;
        while (n < rest->len && !strchr(", \t\r\n", rest->ptr[n])) {
            n++;
        }
        *ret = mu_bytes_head(*rest, n);
        *rest = mu_bytes_from(*rest, n < rest->len ? n + 1 : n);
        if (ret->len) {
            return true;
        }
    }
    return false;
}

void mu_allow_fini(struct mu_allow *a)
{
    for (size_t i = 0; i < a->n; i++) {
        mu_free(a->entries[i].host);
    }
    mu_free(a->entries);
    *a = (struct mu_allow){0};
}

/* All but the host's copy. */
static bool read_entry(mu_bytes text, struct mu_allow_entry *ret, mu_bytes *ret_host)
{
    if (!host_port(text, ret_host, &ret->port)) {
        return false;
    }
    ret->wild = mu_bytes_starts(*ret_host, MU_B("*."));
    *ret_host = mu_bytes_from(*ret_host, ret->wild ? 2 : 0);
    return mu_broker_host_ok(*ret_host);
}

bool mu_allow_entry_ok(mu_bytes text)
{
    struct mu_allow_entry e;
    mu_bytes host;
    return read_entry(text, &e, &host);
}

static int allow_entry(struct mu_allow *a, mu_bytes text, struct mu_err *err)
{
    struct mu_allow_entry e = {0};
    mu_bytes host;
    if (!read_entry(text, &e, &host)) {
        return mu_err_set(err, MU_E_INVALID,
                          "\"%.*s\" is not host:port (lower-case name, \"*.\" in front allowed; no "
                          "addresses)",
                          (int)MU_MIN(text.len, 200), text.ptr);
    }
    if (a->n == MU_ALLOW_MAX) {
        return mu_err_set(err, MU_E_LIMIT, "more than %d hosts are allowed", MU_ALLOW_MAX);
    }
    struct mu_allow_entry *grown = mu_realloc(a->entries, (a->n + 1) * sizeof *grown);
    if (!grown) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    a->entries = grown;
    e.host = mu_bytes_dup(host);
    if (!e.host) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    a->entries[a->n++] = e;
    return 0;
}

int mu_allow_parse(const char *text, struct mu_allow *ret, struct mu_err *err)
{
    *ret = (struct mu_allow){0};
    mu_bytes rest = mu_str(text), entry;
    while (next_entry(&rest, &entry)) {
        int r = allow_entry(ret, entry, err);
        if (r < 0) {
            mu_allow_fini(ret);
            return r;
        }
    }
    return 0;
}

bool mu_allow_has(const struct mu_allow *a, mu_bytes host, uint16_t port)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct mu_allow_entry *e = &a->entries[i];
        mu_bytes want = mu_str(e->host);
        if (e->port != port) {
            continue;
        }
        if (!e->wild ? mu_bytes_eq(host, want)
                     : host.len > want.len + 1 && mu_bytes_ends(host, want) &&
                           host.ptr[host.len - want.len - 1] == '.') {
            return true;
        }
    }
    return false;
}

void mu_allow_addr_fini(struct mu_allow_addr *a)
{
    mu_free(a->addrs);
    *a = (struct mu_allow_addr){0};
}

static bool numeric(mu_bytes host, uint16_t port, struct sockaddr_storage *ret)
{
    char text[INET6_ADDRSTRLEN];
    if (host.len >= sizeof text) {
        return false;
    }
    memcpy(text, host.ptr, host.len);
    text[host.len] = 0;
    memset(ret, 0, sizeof *ret);
    struct sockaddr_in *in4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
    if (inet_pton(AF_INET, text, &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
        in4->sin_port = htons(port);
        return true;
    }
    if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        return true;
    }
    return false;
}

int mu_allow_addr_parse(const char *text, struct mu_allow_addr *ret, struct mu_err *err)
{
    *ret = (struct mu_allow_addr){0};
    mu_bytes rest = mu_str(text), entry, host;
    while (next_entry(&rest, &entry)) {
        struct sockaddr_storage addr;
        uint16_t port;
        int r = 0;
        if (!host_port(entry, &host, &port) || !numeric(host, port, &addr)) {
            r = mu_err_set(err, MU_E_INVALID, "\"%.*s\" is not address:port",
                           (int)MU_MIN(entry.len, 200), entry.ptr);
        } else if (ret->n == MU_ALLOW_MAX) {
            r = mu_err_set(err, MU_E_LIMIT, "more than %d addresses are allowed", MU_ALLOW_MAX);
        } else {
            struct sockaddr_storage *grown =
                mu_realloc(ret->addrs, (ret->n + 1) * sizeof *ret->addrs);
            r = grown ? 0 : mu_err_set(err, -ENOMEM, "out of memory");
            if (grown) {
                ret->addrs = grown;
                ret->addrs[ret->n++] = addr;
            }
        }
        if (r < 0) {
            mu_allow_addr_fini(ret);
            return r;
        }
    }
    return 0;
}

bool mu_allow_addr_has(const struct mu_allow_addr *a, const struct sockaddr *addr, uint16_t port)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct sockaddr_storage *e = &a->addrs[i];
        if (e->ss_family != addr->sa_family) {
            continue;
        }
        if (addr->sa_family == AF_INET) {
            const struct sockaddr_in *x = (const void *)e, *y = (const void *)addr;
            if (x->sin_addr.s_addr == y->sin_addr.s_addr && ntohs(x->sin_port) == port) {
                return true;
            }
        } else {
            const struct sockaddr_in6 *x = (const void *)e, *y = (const void *)addr;
            if (!memcmp(&x->sin6_addr, &y->sin6_addr, 16) && ntohs(x->sin6_port) == port) {
                return true;
            }
        }
    }
    return false;
}

static bool public4(uint32_t a)
{
    static const struct {
        uint32_t net;
        int bits;
    } closed[] = {
        {0x00000000, 8},  {0x0a000000, 8},  {0x64400000, 10}, {0x7f000000, 8},  {0xa9fe0000, 16},
        {0xac100000, 12}, {0xc0000000, 24}, {0xc0000200, 24}, {0xc0586300, 24}, {0xc0a80000, 16},
        {0xc6120000, 15}, {0xc6336400, 24}, {0xcb007100, 24}, {0xe0000000, 3},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(closed); i++) {
        if ((a ^ closed[i].net) >> (32 - closed[i].bits) == 0) {
            return false;
        }
    }
    return true;
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

bool mu_addr_public(const struct sockaddr *addr)
{
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    if (addr->sa_family == AF_INET) {
        return public4(ntohl(((const struct sockaddr_in *)(const void *)addr)->sin_addr.s_addr));
    }
    if (addr->sa_family != AF_INET6) {
        return false;
    }
    const uint8_t *a = ((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr.s6_addr;
    if (!memcmp(a, nat64, sizeof nat64)) {
        return public4(be32(a + 12));
    }
    if (a[0] == 0x20 && a[1] == 0x02) { /* 6to4 */
        return public4(be32(a + 2));
    }
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] < 2) { /* 2001::/23: Teredo, ORCHID, benchmarks */
        return false;
    }
    if (be32(a) == 0x20010db8) { /* documentation */
        return false;
    }
    /* of all others only 2000::/3 is given out; mapped, unique-local, link-local, multicast and the
     * unspecified address lie outside of it */
    return a[0] >> 5 == 1;
}

static int forward_entry(mu_bytes entry, struct mu_forward *ret)
{
    mu_bytes rest = entry, inside = mu_bytes_split(&rest, '='), host;
    struct sockaddr_storage addr;
    if (!rest.ptr || !port_of(inside, &ret->inside) || !host_port(rest, &host, &ret->port) ||
        host.len > MU_HOST_MAX || ret->inside < 1024 || ret->inside == MU_BROKER_PROXY_PORT ||
        (!mu_broker_host_ok(host) && !numeric(host, ret->port, &addr))) {
        return MU_E_INVALID;
    }
    memcpy(ret->host, host.ptr, host.len);
    ret->host[host.len] = 0;
    return 0;
}

int mu_forward_parse(const char *text, struct mu_forward *ret, size_t max, size_t *ret_n,
                     struct mu_err *err)
{
    *ret_n = 0;
    mu_bytes rest = mu_str(text), entry;
    while (next_entry(&rest, &entry)) {
        if (*ret_n == max) {
            return mu_err_set(err, MU_E_LIMIT, "more than %zu forwards", max);
        }
        struct mu_forward *f = &ret[*ret_n];
        int r = forward_entry(entry, f);
        for (size_t i = 0; r == 0 && i < *ret_n; i++) {
            r = ret[i].inside == f->inside ? MU_E_INVALID : 0;
        }
        if (r < 0) {
            return mu_err_set(err, r,
                              "\"%.*s\" is not port=host:port (the port from 1024 on, not %d, none "
                              "twice)",
                              (int)MU_MIN(entry.len, 200), entry.ptr, MU_BROKER_PROXY_PORT);
        }
        (*ret_n)++;
    }
    return 0;
}
