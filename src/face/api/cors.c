#include <arpa/inet.h>

#include "face/api/api_int.h"
#include "proto/url.h"

/* Walks a list with commas; entries are trimmed, empty ones skipped, one "/" at the end dropped. */
static bool next_entry(mu_bytes *rest, mu_bytes *ret)
{
    while (rest->ptr) {
        mu_bytes e = mu_bytes_trim(mu_bytes_split(rest, ','));
        if (e.len && e.ptr[e.len - 1] == '/') {
            e.len--;
        }
        if (e.len) {
            *ret = e;
            return true;
        }
    }
    return false;
}

/* "https://a.example:8443" of "https://a.example:8443/x"; ptr NULL when it is no URL of http(s). */
static mu_bytes origin_of(mu_bytes url)
{
    size_t start = 0;
    if (mu_bytes_eq_nocase(mu_bytes_head(url, 7), MU_B("http://"))) {
        start = 7;
    } else if (mu_bytes_eq_nocase(mu_bytes_head(url, 8), MU_B("https://"))) {
        start = 8;
    } else {
        return MU_B_NONE;
    }
    size_t end = start;
    while (end < url.len && url.ptr[end] != '/' && url.ptr[end] != '?' && url.ptr[end] != '#') {
        end++;
    }
    return end > start ? mu_bytes_head(url, end) : MU_B_NONE;
}

static mu_bytes authority_of(mu_bytes origin)
{
    ptrdiff_t at = mu_bytes_find(origin, MU_B("://"));
    return at < 0 ? MU_B_NONE : mu_bytes_from(origin, (size_t)at + 3);
}

/* The name without port, brackets and the root's dot. */
static mu_bytes host_name(mu_bytes authority)
{
    if (authority.len && authority.ptr[0] == '[') {
        ptrdiff_t end = mu_bytes_find_char(authority, ']');
        return end < 0 ? MU_B_NONE : mu_bytes_of(authority.ptr + 1, (size_t)end - 1);
    }
    ptrdiff_t colon = mu_bytes_find_char(authority, ':');
    mu_bytes name = colon < 0 ? authority : mu_bytes_head(authority, (size_t)colon);
    if (name.len > 1 && name.ptr[name.len - 1] == '.') {
        name.len--;
    }
    return name;
}

int mu_origins_init(struct mu_origins *o, const char *cors, const char *public_url,
                    const char *allowed_hosts, struct mu_err *err)
{
    *o = (struct mu_origins){.listed = mu_str(cors), .hosts = mu_str(allowed_hosts)};
    mu_bytes rest = o->listed, entry;
    while (next_entry(&rest, &entry)) {
        o->cors = true;
        if (mu_bytes_is(entry, "*")) {
            o->any_origin = true;
        } else if (!mu_bytes_eq(origin_of(entry), entry)) {
            return mu_err_set(err, MU_E_INVALID,
                              "OZ_CORS_ORIGIN: %.*s is no origin: give scheme, name and port, like "
                              "https://app.example.com, or *",
                              MU_ARGS(entry));
        }
    }
    rest = o->hosts;
    while (next_entry(&rest, &entry)) {
        o->any_host = o->any_host || mu_bytes_is(entry, "*");
    }
    if (public_url && public_url[0]) {
        o->own = origin_of(mu_str(public_url));
        if (!o->own.ptr) {
            return mu_err_set(err, MU_E_INVALID, "PUBLIC_URL: %s is no http or https URL",
                              public_url);
        }
        o->own_host = host_name(authority_of(o->own));
    }
    return 0;
}

static bool is_numeric(mu_bytes name)
{
    char text[64];
    unsigned char address[16];
    if (name.len == 0 || name.len >= sizeof text) {
        return false;
    }
    memcpy(text, name.ptr, name.len);
    text[name.len] = 0;
    return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

bool mu_host_allowed(const struct mu_origins *o, mu_bytes host)
{
    mu_bytes name = host_name(host);
    if (o->any_host) {
        return true;
    }
    if (name.len == 0) {
        return false;
    }
    if (mu_bytes_eq_nocase(name, MU_B("localhost")) || is_numeric(name) ||
        mu_bytes_eq_nocase(name, o->own_host)) {
        return true;
    }
    mu_bytes rest = o->hosts, entry;
    while (next_entry(&rest, &entry)) {
        if (mu_bytes_eq_nocase(name, host_name(entry))) {
            return true;
        }
    }
    return false;
}

/* A wildcard covers the Oz face and health only (oz-api.md 1.2). */
static bool wildcard_covers(const struct mu_origins *o, mu_bytes path)
{
    return o->any_origin && (mu_path_is_api(path) || mu_bytes_is(path, "/health"));
}

static bool listed(const struct mu_origins *o, mu_bytes origin)
{
    mu_bytes rest = o->listed, entry;
    while (next_entry(&rest, &entry)) {
        if (mu_bytes_eq_nocase(origin, entry)) {
            return true;
        }
    }
    return false;
}

bool mu_origin_allowed(const struct mu_origins *o, mu_bytes origin, mu_bytes host, mu_bytes path)
{
    if (wildcard_covers(o, path)) {
        return true;
    }
    mu_bytes whole = origin_of(origin);
    if (!whole.ptr || whole.len != origin.len) {
        return false;
    }
    return mu_bytes_eq_nocase(authority_of(origin), host) ||
           (o->own.ptr && mu_bytes_eq_nocase(origin, o->own)) || listed(o, origin);
}

bool mu_origins_secure(const struct mu_origins *o)
{
    return o->tls || mu_bytes_eq_nocase(mu_bytes_head(o->own, 8), MU_B("https://"));
}

/* oz-workspace.md 4.3: the prefix says that no other host and no plain page can have set it. */
const char *mu_cookie_name(const struct mu_origins *o)
{
    return mu_origins_secure(o) ? "__Host-muster_session" : "muster_session";
}

bool mu_origin_own(const struct mu_origins *o, mu_bytes origin, mu_bytes host)
{
    mu_bytes whole = origin_of(origin), authority = authority_of(origin);
    if (!whole.ptr || whole.len != origin.len) {
        return false;
    }
    if (o->own.ptr && mu_bytes_eq_nocase(origin, o->own)) {
        return true;
    }
    /* a page that came over plain HTTP is nobody's where TLS is spoken; a proxy may speak it for us
     */
    bool plain = mu_bytes_eq_nocase(mu_bytes_head(origin, 7), MU_B("http://"));
    bool tls_host = mu_origins_secure(o) && mu_bytes_eq_nocase(host_name(host), o->own_host);
    return mu_bytes_eq_nocase(authority, host) && !(plain && (o->tls || tls_host));
}

mu_bytes mu_cors_value(const struct mu_origins *o, mu_bytes origin, mu_bytes path)
{
    if (wildcard_covers(o, path)) {
        return MU_B("*");
    }
    return origin.len && !mu_bytes_is(origin, "*") && listed(o, origin) ? origin : MU_B_NONE;
}

size_t mu_cors_pairs(mu_bytes value, struct mu_http_pair *dst)
{
    if (!value.ptr) {
        return 0;
    }
    const struct mu_http_pair pairs[MU_CORS_HEADERS] = {
        {"Access-Control-Allow-Origin", value},
        {"Vary", MU_B("Origin")},
        {"Access-Control-Allow-Methods", MU_B("GET,POST,PUT,PATCH,DELETE,OPTIONS")},
        /* without the X-Stainless names a browser build of the SDK cannot preflight */
        {"Access-Control-Allow-Headers",
         MU_B("Authorization,Content-Type,X-Request-Id,X-Oz-Request-Id,User-Agent,Idempotency-Key,"
              "Last-Event-ID,X-Stainless-Arch,X-Stainless-Async,X-Stainless-Lang,X-Stainless-OS,"
              "X-Stainless-Package-Version,X-Stainless-Read-Timeout,X-Stainless-Retry-Count,"
              "X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout")},
        {"Access-Control-Max-Age", MU_B("600")},
        {"Access-Control-Expose-Headers", MU_B("X-Request-Id, Retry-After")},
    };
    memcpy(dst, pairs, sizeof pairs);
    return MU_CORS_HEADERS;
}
