/* What a request says of its sender (specification README 4): a bearer, else the cookie of a login.
 * A cookie comes along by itself, so a request that has nothing else must show that a page of ours
 * made it. */
#include "face/api/api_int.h"

mu_bytes mu_call_cookie(const struct mu_call *c)
{
    const char *name = mu_cookie_name(&c->api->origins);
    mu_bytes rest = mu_call_header(c, "Cookie");
    while (rest.ptr) {
        mu_bytes value = mu_bytes_trim(mu_bytes_split(&rest, ';'));
        mu_bytes key = mu_bytes_split(&value, '=');
        if (mu_bytes_is(key, name)) {
            return value.len && value.len <= 200 ? value : MU_B_NONE;
        }
    }
    return MU_B_NONE;
}

void mu_call_cookie_text(const struct mu_call *c, mu_bytes token, int64_t seconds,
                         struct mu_buf *dst)
{
    mu_buf_printf(dst, "%s=%.*s; Path=/; HttpOnly; SameSite=Strict; Max-Age=%lld%s",
                  mu_cookie_name(&c->api->origins), MU_ARGS(token),
                  token.len ? (long long)seconds : 0LL,
                  mu_origins_secure(&c->api->origins) ? "; Secure" : "");
}

bool mu_call_same_origin(const struct mu_call *c)
{
    mu_bytes origin = mu_call_header(c, "Origin");
    if (origin.ptr) {
        return mu_origin_own(&c->api->origins, origin, mu_http_req_head(c->req)->host);
    }
    return mu_bytes_is(mu_call_header(c, "Sec-Fetch-Site"), "same-origin") &&
           !(c->route && c->route->flags & MU_ROUTE_WEBSOCKET);
}

int mu_call_sender(const struct mu_call *c, struct mu_credential *ret)
{
    mu_bytes token = mu_call_bearer(c);
    enum mu_http_method method = mu_http_req_head(c->req)->method;
    bool reads = (method == MU_HTTP_GET || method == MU_HTTP_HEAD) &&
                 !(c->route && c->route->flags & MU_ROUTE_WEBSOCKET);
    if (token.len) {
        *ret = mu_credential_of(token);
        return 0;
    }
    token = mu_call_cookie(c);
    if (!token.len) {
        return MU_E_NOT_FOUND;
    }
    if (!mu_bytes_starts(token, MU_B(MU_LOGIN_PREFIX))) {
        return MU_E_UNAUTHORIZED; /* a cookie is nothing but a login */
    }
    *ret = mu_credential_of(token);
    return reads || mu_call_same_origin(c) ? 0 : MU_E_FORBIDDEN;
}

void mu_call_foreign(struct mu_call *c)
{
    mu_call_error(
        c, 403, "forbidden", NULL,
        "This request must come from a page of this server: its Origin header must be the "
        "server's own%s",
        c->route && c->route->flags & MU_ROUTE_WEBSOCKET
            ? ""
            : ", or Sec-Fetch-Site must be same-origin");
}
