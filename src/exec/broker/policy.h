/* What the broker allows: lists of hosts, addresses and forwards, and the heads of proxy requests.
 * Pure functions (sandbox.md 9, rules 1 to 4). */
#ifndef MU_EXEC_BROKER_POLICY_H
#define MU_EXEC_BROKER_POLICY_H

#include <netinet/in.h>

#include "base/bytes.h"
#include "base/err.h"

enum { MU_HOST_MAX = 253, MU_ALLOW_MAX = 1024 };

/* An entry of an allow-list: one host, or with `wild` everything one or more labels below it. */
struct mu_allow_entry {
    char *host; /* lower case, of the list's own memory */
    uint16_t port;
    bool wild;
};
struct mu_allow {
    struct mu_allow_entry *entries;
    size_t n;
};
/* "api.example.com:443,*.example.org:443": commas or white space between, the port always there, at
 * most MU_ALLOW_MAX entries. NULL is the empty list. Worded: which entry is wrong. */
MU_MUST_USE int mu_allow_parse(const char *text, struct mu_allow *ret, struct mu_err *err);
void mu_allow_fini(struct mu_allow *a);
/* Whether a text is one entry of such a list. */
bool mu_allow_entry_ok(mu_bytes text);
bool mu_allow_has(const struct mu_allow *a, mu_bytes host, uint16_t port);

/* Addresses with a port that names may resolve to although they are private. */
struct mu_allow_addr {
    struct sockaddr_storage *addrs;
    size_t n;
};
/* "10.0.0.5:8080,[fd00::1]:443". Worded. */
MU_MUST_USE int mu_allow_addr_parse(const char *text, struct mu_allow_addr *ret,
                                    struct mu_err *err);
void mu_allow_addr_fini(struct mu_allow_addr *a);
bool mu_allow_addr_has(const struct mu_allow_addr *a, const struct sockaddr *addr, uint16_t port);
/* Whether an address belongs to the public internet: not private, loopback, link-local, shared,
 * multicast, reserved, unspecified or unique-local, nor an IPv4 address of that kind mapped or
 * translated into IPv6. */
bool mu_addr_public(const struct sockaddr *addr);

/* "8081=host:port,…": the loopback port inside, the host (a name, or a numeric address; IPv6 in
 * brackets) and port outside. */
struct mu_forward {
    uint16_t inside, port;
    char host[MU_HOST_MAX + 1];
};
/* At most `max` entries; no inside port twice, none below 1024 or equal to the proxy's. Worded. */
MU_MUST_USE int mu_forward_parse(const char *text, struct mu_forward *ret, size_t max,
                                 size_t *ret_n, struct mu_err *err);

/* The head of a proxy request, up to and with its empty line. */
struct mu_proxy_head {
    bool connect;
    mu_bytes host;
    uint16_t port;
    mu_bytes method, target; /* absolute form: the path with its query, "/" when empty */
    mu_bytes headers;        /* the lines behind the first, without the empty one */
};
/* 0, or MU_E_INVALID with the word of X-Muster-Reason: "malformed" (framing, control bytes),
 * "method" (neither CONNECT nor an absolute http:// URL for port 80), "grammar" (host or port). */
MU_MUST_USE int mu_proxy_head_parse(mu_bytes head, struct mu_proxy_head *ret, const char **ret_why);

/* The server name in the first bytes of a TLS connection. */
enum { MU_SNI_RECORD = 16 << 10 }; /* bytes of a record at most */
enum mu_sni { MU_SNI_MORE, MU_SNI_NONE, MU_SNI_BAD, MU_SNI_FOUND };
/* MORE: not decidable yet (ask again with more, at most 16 KiB); NONE: not TLS, or a ClientHello
 * without a name; BAD: it looks like TLS and cannot be read (split over records, cut, too long). */
enum mu_sni mu_sni_find(mu_bytes data, mu_bytes *ret_name);

#endif
