/* The files of the web app. It routes itself: a page that no face claims is its index. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "face/api/meta.h"
#include "face/oz/oz.h"
#include "face/web/web.h"

static const char permissions[] =
    "accelerometer=(), autoplay=(), browsing-topics=(), camera=(), "
    "clipboard-read=(), clipboard-write=(self), display-capture=(), encrypted-media=(), "
    "fullscreen=(self), gamepad=(), geolocation=(), gyroscope=(), hid=(), idle-detection=(), "
    "local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), "
    "picture-in-picture=(), publickey-credentials-get=(), screen-wake-lock=(), serial=(), usb=(), "
    "xr-spatial-tracking=()";

/* --- what the client wants --- */

/* The weight of a list's entry, in thousandths: "br;q=0.5" is 500; -1: it is not listed. */
static int64_t weight_of(mu_bytes list, const char *word)
{
    int64_t any = -1;
    while (list.ptr) {
        mu_bytes rest = mu_bytes_split(&list, ','),
                 name = mu_bytes_trim(mu_bytes_split(&rest, ';'));
        int64_t q = 1000;
        while (rest.ptr) {
            mu_bytes value = mu_bytes_trim(mu_bytes_split(&rest, ';'));
            mu_bytes key = mu_bytes_trim(mu_bytes_split(&value, '='));
            value = mu_bytes_trim(value);
            if (!mu_bytes_eq_nocase(key, MU_B("q")) || !value.len) {
                continue;
            }
            q = value.ptr[0] == '1' ? 1000 : 0;
            for (size_t i = 2, unit = 100; q < 1000 && i < value.len && i < 5; i++, unit /= 10) {
                char d = value.ptr[i];
                q += d >= '0' && d <= '9' ? (int64_t)unit * (d - '0') : 0;
            }
        }
        if (mu_bytes_eq_nocase(name, mu_str(word))) {
            return q;
        }
        any = mu_bytes_is(name, "*") ? q : any;
    }
    return any;
}

enum mu_web_coding mu_web_negotiate(mu_bytes accept_encoding, const struct mu_web_asset *a)
{
    int64_t br = a->brotli.len ? weight_of(accept_encoding, "br") : -1;
    int64_t gzip = a->gzip.len ? weight_of(accept_encoding, "gzip") : -1;
    if (br > 0 && br >= gzip) {
        return MU_CODING_BROTLI;
    }
    return gzip > 0 ? MU_CODING_GZIP : MU_CODING_PLAIN;
}

bool mu_web_unchanged(mu_bytes if_none_match, const struct mu_web_asset *a)
{
    while (if_none_match.ptr) {
        mu_bytes tag = mu_bytes_trim(mu_bytes_split(&if_none_match, ','));
        if (mu_bytes_is(tag, "*")) {
            return true;
        }
        tag = mu_bytes_starts(tag, MU_B("W/")) ? mu_bytes_from(tag, 2) : tag;
        if (tag.len > 2 && tag.ptr[0] == '"' &&
            mu_bytes_starts(mu_bytes_from(tag, 1), mu_str(a->sha256))) {
            return true;
        }
    }
    return false;
}

bool mu_web_wants_page(mu_bytes accept)
{
    while (accept.ptr) {
        mu_bytes one = mu_bytes_split(&accept, ',');
        mu_bytes copy = one, name = mu_bytes_trim(mu_bytes_split(&copy, ';'));
        if (mu_bytes_eq_nocase(name, MU_B("text/html"))) {
            return weight_of(one, "text/html") > 0;
        }
    }
    return false;
}

static int by_path(const void *key, const void *item)
{
    const mu_bytes *path = key;
    const struct mu_web_asset *a = item;
    size_t len = strlen(a->path);
    int r = memcmp(path->ptr, a->path, MU_MIN(path->len, len));
    return r ? r : (path->len > len) - (path->len < len);
}

const struct mu_web_asset *mu_web_find(const struct mu_web_assets *all, mu_bytes path)
{
    return all->n && path.len ? bsearch(&path, all->items, all->n, sizeof *all->items, by_path)
                              : NULL;
}

/* --- answers --- */

static const struct mu_web *web_of(const struct mu_call *c)
{
    return ((const struct mu_oz *)mu_call_app(c))->web;
}

/* A Host header is text of the client's: into the policy comes only what looks like one. */
static bool plain_host(mu_bytes host)
{
    for (size_t i = 0; i < host.len; i++) {
        char ch = host.ptr[i];
        bool ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                  (ch >= '0' && ch <= '9') || (ch && strchr(".-:[]", ch));
        if (!ok) {
            return false;
        }
    }
    return host.len > 0 && host.len < 256;
}

/* Not every browser takes 'self' for a WebSocket of the same host. */
static mu_bytes policy(struct mu_call *c)
{
    mu_bytes host = mu_http_req_head(mu_call_http(c))->host;
    struct mu_buf b;
    mu_buf_init(&b, 2048);
    mu_buf_add_str(&b, "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "
                       "data: blob:; font-src 'self'; connect-src 'self'");
    if (plain_host(host)) {
        mu_buf_printf(&b, " ws://%.*s wss://%.*s", MU_ARGS(host), MU_ARGS(host));
    }
    mu_buf_add_str(&b, "; worker-src 'self' blob:; frame-src 'self'; base-uri 'none'; form-action "
                       "'self'; frame-ancestors 'none'");
    mu_bytes text = b.failed ? MU_B_NONE : mu_arena_dup(mu_call_arena(c), mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return text;
}

enum { SAFETY = 4 };
static bool add_safety(struct mu_call *c, struct mu_http_pair *dst)
{
    mu_bytes csp = policy(c);
    const struct mu_http_pair pairs[SAFETY] = {
        {"Content-Security-Policy", csp},
        {"Referrer-Policy", MU_B("no-referrer")},
        {"Cross-Origin-Opener-Policy", MU_B("same-origin")},
        {"Permissions-Policy", mu_str(permissions)},
    };
    memcpy(dst, pairs, sizeof pairs);
    return csp.ptr != NULL;
}

static mu_bytes tag_of(struct mu_call *c, const struct mu_web_asset *a, enum mu_web_coding coding)
{
    static const char *const marks[] = {"", "-gz", "-br"};
    char text[80];
    int n = snprintf(text, sizeof text, "\"%s%s\"", a->sha256, marks[coding]);
    return mu_arena_dup(mu_call_arena(c), mu_bytes_of(text, (size_t)n));
}

static void send_asset(struct mu_call *c, const struct mu_web_asset *a)
{
    struct mu_http_pair headers[SAFETY + 5];
    enum mu_web_coding coding = mu_web_negotiate(mu_call_header(c, "Accept-Encoding"), a);
    mu_bytes tag = tag_of(c, a, coding);
    if (!tag.ptr || !add_safety(c, headers)) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    size_t n = SAFETY;
    headers[n++] = (struct mu_http_pair){"Cache-Control",
                                         a->immutable ? MU_B("public, max-age=31536000, immutable")
                                                      : MU_B("no-cache")};
    headers[n++] = (struct mu_http_pair){"ETag", tag};
    headers[n++] = (struct mu_http_pair){"Vary", MU_B("Accept-Encoding")};
    if (mu_web_unchanged(mu_call_header(c, "If-None-Match"), a)) {
        mu_call_send_as(c, 304, NULL, headers, n);
        return;
    }
    headers[n++] = (struct mu_http_pair){"Accept-Ranges", MU_B("none")};
    if (coding != MU_CODING_PLAIN) {
        headers[n++] = (struct mu_http_pair){
            "Content-Encoding", coding == MU_CODING_BROTLI ? MU_B("br") : MU_B("gzip")};
    }
    mu_buf_add(mu_call_buf(c), coding == MU_CODING_BROTLI ? a->brotli
                               : coding == MU_CODING_GZIP ? a->gzip
                                                          : a->plain);
    mu_call_send_as(c, 200, a->type, headers, n);
}

static void file(struct mu_call *c)
{
    const struct mu_web_asset *a =
        mu_web_find(web_of(c)->assets, mu_http_req_head(mu_call_http(c))->path);
    if (a) {
        send_asset(c, a);
    } else {
        mu_call_fail(c, MU_E_NOT_FOUND);
    }
}

static void page(struct mu_call *c)
{
    const struct mu_web_asset *a = mu_web_find(web_of(c)->assets, MU_B("/index.html"));
    struct mu_http_pair headers[SAFETY];
    if (a) {
        send_asset(c, a);
        return;
    }
    if (!add_safety(c, headers)) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    mu_buf_add_str(mu_call_buf(c), "This build of Muster has no web app: run script/build with "
                                   "Node.js 18 or later installed, which makes web/dist first.\n");
    mu_call_send_as(c, 404, "text/plain; charset=utf-8", headers, SAFETY);
}

/* --- which path --- */

static const struct mu_route file_route = {
    .method = MU_HTTP_GET, .path = "/{file}", .face = MU_FACE_ROOT, .handler = file};
static const struct mu_route page_route = {
    .method = MU_HTTP_GET, .path = "/{page}", .face = MU_FACE_ROOT, .handler = page};

/* Where a page would hide that something is misspelt or not there (specification README 3). */
static bool is_for_programs(mu_bytes path)
{
    static const char *const prefixes[] = {"/api/", "/assets/", "/webhooks/", "/agent/run",
                                           "/sandbox/"};
    for (size_t i = 0; i < MU_ARRAY_LEN(prefixes); i++) {
        if (mu_bytes_starts(path, mu_str(prefixes[i]))) {
            return true;
        }
    }
    return mu_bytes_is(path, "/api");
}

const struct mu_route *mu_web_other(void *app, const struct mu_http_head *head)
{
    const struct mu_web *web = ((const struct mu_oz *)app)->web;
    bool reads = head->method == MU_HTTP_GET || head->method == MU_HTTP_HEAD;
    if (!web || !web->assets) {
        return NULL;
    }
    if (mu_bytes_is(head->path, "/")) {
        return &page_route;
    }
    if (mu_web_find(web->assets, head->path)) {
        return &file_route;
    }
    return web->assets->n && reads && !is_for_programs(head->path) &&
                   mu_web_wants_page(mu_http_header(head, "Accept"))
               ? &page_route
               : NULL;
}
