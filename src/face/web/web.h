/* What the web app needs of the server and has nowhere else: signing in, and its files. */
#ifndef MU_FACE_WEB_WEB_H
#define MU_FACE_WEB_WEB_H

#include <pthread.h>

#include "app/identity/identity.h"
#include "face/api/api.h"

/* --- files, as the build embeds them (cmake/web_assets.py) --- */
struct mu_web_asset {
    const char *path;             /* "/assets/index-5f2c.js" */
    const char *type;             /* media type */
    const char *sha256;           /* 64 hex: of the bytes as they are */
    bool immutable;               /* its name changes with its bytes */
    mu_bytes plain, gzip, brotli; /* the last two are empty where they would be no smaller */
};
struct mu_web_assets {
    const struct mu_web_asset *items; /* sorted by path */
    size_t n;                         /* 0: the build is without a web app */
};

enum mu_web_coding { MU_CODING_PLAIN, MU_CODING_GZIP, MU_CODING_BROTLI };
/* The best coding that the client takes and the asset has; no header: the plain bytes. */
enum mu_web_coding mu_web_negotiate(mu_bytes accept_encoding, const struct mu_web_asset *a);
/* Whether If-None-Match names the asset, in whatever coding. */
bool mu_web_unchanged(mu_bytes if_none_match, const struct mu_web_asset *a);
/* Whether Accept names HTML. */
bool mu_web_wants_page(mu_bytes accept);
const struct mu_web_asset *mu_web_find(const struct mu_web_assets *all, mu_bytes path);

/* --- who tries to sign in, by address --- */
enum { MU_LOGIN_TRIES_MS = 60000, MU_LOGIN_FAILURES_MS = 600000 };
struct mu_login_rates;
/* `tries` of one address in a minute, `failures` in ten; 0 = no limit. */
MU_MUST_USE int mu_login_rates_new(int64_t tries, int64_t failures, struct mu_login_rates **ret);
struct mu_login_rates *mu_login_rates_free(struct mu_login_rates *r);
/* One try of an address. MU_E_LIMIT with the wait: it is not looked at. Any thread. */
MU_MUST_USE int mu_login_try(struct mu_login_rates *r, mu_bytes peer, int64_t now_ms,
                             int64_t *ret_wait_ms);
void mu_login_failed(struct mu_login_rates *r, mu_bytes peer, int64_t now_ms);

/* Hangs on struct mu_oz, the app of its routes. */
struct mu_web {
    const struct mu_env *env;
    struct mu_identity *identity;
    const struct mu_web_assets *assets; /* NULL: OZ_WEB is off */
    const char *public_url;             /* or NULL: */
    const char *own_url;                /* once it listens */
    struct mu_login_rates *rates;
};
/* "http://127.0.0.1:8080/#code=lk_…", which signs the administrator in, once. Codes of
 * mu_login_code_make(). */
MU_MUST_USE int mu_web_login_link(const struct mu_web *web, char *dst, size_t size);

/* /api/auth/… and the making of links. */
extern const struct mu_route mu_web_auth_routes[];
/* mu_api_opts.other; the app is a struct mu_oz. */
const struct mu_route *mu_web_other(void *app, const struct mu_http_head *head);
/* Component schemas for openapi.json. */
extern const char *const mu_web_components[];

#endif
