/* Signing in (oz-workspace.md 4.3): a token or a one-time code becomes a login in a cookie. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "face/oz/oz.h"
#include "face/sessions/show.h"
#include "face/web/web.h"

enum { COOKIE_MAX = 512, NAME_BYTES = 801 };

static struct mu_web *web_of(const struct mu_call *c)
{
    return ((struct mu_oz *)mu_call_app(c))->web;
}

/* --- what is shown --- */

static void write_user(struct mu_json_w *w, struct mu_identity *id, const struct mu_principal *p)
{
    char name[NAME_BYTES];
    mu_identity_name(id, p, name, sizeof name);
    mu_jw_key(w, "user");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "id", p->uid);
    mu_jw_kcstr(w, "name", name);
    mu_jw_kcstr(w, "role", mu_sess_role(p->role));
    mu_jw_kbool(w, "admin", p->admin);
    mu_jw_kcstr(w, "orgId", p->org_id);
    mu_jw_obj_end(w);
}

/* With a cookie: the login until then, or (an empty token) none. */
static void send_with_cookie(struct mu_call *c, mu_bytes token, int64_t until_ms)
{
    struct mu_buf text;
    int64_t now_ms = mu_env_wall_ms(web_of(c)->env);
    mu_buf_init(&text, COOKIE_MAX);
    mu_call_cookie_text(c, token, MU_MAX((until_ms - now_ms + 999) / 1000, INT64_C(0)), &text);
    mu_bytes value = text.failed ? MU_B_NONE : mu_arena_dup(mu_call_arena(c), mu_buf_bytes(&text));
    mu_buf_wipe(&text);
    mu_buf_fini(&text);
    if (!value.ptr) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    mu_call_send_with(c, 200, "Set-Cookie", value);
}

static struct mu_json_w begin(struct mu_call *c)
{
    struct mu_json_w w = mu_json_w(mu_call_buf(c));
    mu_jw_obj(&w);
    return w;
}

/* --- in --- */

static void failed(struct mu_call *c)
{
    struct mu_web *web = web_of(c);
    mu_bytes peer = mu_http_req_peer(mu_call_http(c));
    mu_login_failed(web->rates, peer, mu_env_mono_ms(web->env));
    mu_log(MU_LOG_WARN, "login.refused", MU_KS("req_id", mu_call_request_id(c)),
           MU_KS("remote", peer));
    mu_call_unauthorized(c, "This key or link is unknown, used, revoked or expired");
}

static void refuse(struct mu_call *c, int result)
{
    if (result == MU_E_UNAUTHORIZED) {
        failed(c);
    } else if (result == MU_E_LIMIT) {
        mu_call_retry(c, 503, "unavailable", 60000, "Too many tenants");
    } else {
        mu_call_fail(c, result);
    }
}

static void signed_in(struct mu_login_op *op, int result)
{
    struct mu_call *c = op->ctx;
    if (result < 0) {
        refuse(c, result);
        return;
    }
    struct mu_json_w w = begin(c);
    write_user(&w, op->identity, &op->who);
    mu_jw_ktime(&w, "expires", op->expires_ms);
    mu_jw_obj_end(&w);
    mu_call_note(c, "login_id", mu_id_bytes(&op->id));
    mu_log(MU_LOG_INFO, "login.created", MU_KS("req_id", mu_call_request_id(c)),
           MU_KS("login_id", mu_id_bytes(&op->id)), MU_KC("org_id", op->who.org_id));
    char token[sizeof op->token];
    memcpy(token, op->token, sizeof token);
    explicit_bzero(op->token, sizeof op->token);
    send_with_cookie(c, mu_bytes_of(token, MU_LOGIN_LEN), op->expires_ms);
    explicit_bzero(token, sizeof token);
}

/* What is given in the body; answered when false. */
static bool take_given(struct mu_call *c, struct mu_credential *ret)
{
    mu_bytes token = mu_bytes_trim(mu_json_get_bytes(mu_call_body(c), "token"));
    mu_bytes code = mu_bytes_trim(mu_json_get_bytes(mu_call_body(c), "code"));
    if (!token.len == !code.len) {
        mu_call_error(c, 400, token.len ? "invalid_field" : "missing_field", "token",
                      "Give either token or code");
        return false;
    }
    if (token.len) {
        *ret = mu_credential_of(token);
        return true;
    }
    if (mu_login_code_take(web_of(c)->identity, code, ret) < 0) {
        failed(c);
        return false;
    }
    return true;
}

static void sign_in(struct mu_call *c)
{
    struct mu_web *web = web_of(c);
    struct mu_credential of;
    int64_t wait_ms = 0;
    if (!mu_call_same_origin(c)) {
        mu_call_foreign(c);
        return;
    }
    if (mu_login_try(web->rates, mu_http_req_peer(mu_call_http(c)), mu_env_mono_ms(web->env),
                     &wait_ms) < 0) {
        mu_call_retry(c, 429, "too_many_requests", wait_ms,
                      "Too many attempts to sign in from this address; wait a while");
        return;
    }
    if (!take_given(c, &of)) {
        return;
    }
    struct mu_login_op *op = mu_call_new(c, sizeof *op);
    if (!op) {
        return;
    }
    op->unit.loop = mu_call_loop(c);
    op->of = of;
    op->agent = mu_call_header(c, "User-Agent");
    op->replaces = mu_call_cookie(c);
    op->done = signed_in;
    op->ctx = c;
    int r = mu_login_create(web->identity, op);
    if (r < 0) {
        refuse(c, r);
    }
}

/* --- out --- */

static void out(struct mu_call *c)
{
    struct mu_json_w w = begin(c);
    mu_jw_kbool(&w, "success", true);
    mu_jw_obj_end(&w);
    send_with_cookie(c, MU_B(""), 0);
}

static void signed_out(struct mu_login_op *op, int result)
{
    struct mu_call *c = op->ctx;
    if (result < 0) {
        mu_call_fail(c, result);
        return;
    }
    mu_log(MU_LOG_INFO, "login.ended", MU_KS("req_id", mu_call_request_id(c)),
           MU_KS("login_id", mu_id_bytes(&op->id)));
    out(c);
}

static int end_login(struct mu_call *c, const struct mu_credential *of, const struct mu_id *id,
                     void (*done)(struct mu_login_op *op, int result))
{
    struct mu_login_op *op = mu_arena_calloc(mu_call_arena(c), sizeof *op);
    if (!op) {
        return -ENOMEM;
    }
    op->unit.loop = mu_call_loop(c);
    op->of = *of;
    op->id = *id;
    op->done = done;
    op->ctx = c;
    return mu_login_end(web_of(c)->identity, op);
}

/* Whatever the request carries: afterwards it is no login. */
static void sign_out(struct mu_call *c)
{
    struct mu_credential sent;
    struct mu_login l;
    int r = mu_call_sender(c, &sent);
    if (r == MU_E_FORBIDDEN) {
        mu_call_foreign(c);
        return;
    }
    r = r == 0 ? mu_login_get(web_of(c)->identity, &sent, &l) : MU_E_NOT_FOUND;
    r = r == 0 ? end_login(c, &l.of, &l.id, signed_out) : r;
    if (r == MU_E_NOT_FOUND) {
        out(c);
    } else if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- who am I --- */

static void no_user(struct mu_call *c)
{
    struct mu_json_w w = begin(c);
    mu_jw_knull(&w, "user");
    mu_jw_obj_end(&w);
    if (mu_call_cookie(c).len) { /* of no use any more */
        send_with_cookie(c, MU_B(""), 0);
    } else {
        mu_call_send(c, 200);
    }
}

static void show_session(struct mu_call *c)
{
    struct mu_identity *id = web_of(c)->identity;
    struct mu_credential sent;
    struct mu_principal who;
    struct mu_login l;
    int r = mu_call_sender(c, &sent);
    if (r == 0) {
        r = mu_identity_resolve_credential(id, &sent, &who);
        r = r == 0 && who.role == 0 ? MU_E_UNAUTHORIZED : r;
    }
    if (r == MU_E_UNAUTHORIZED || r == MU_E_NOT_FOUND) {
        no_user(c);
        return;
    }
    if (r < 0) {
        refuse(c, r);
        return;
    }
    struct mu_json_w w = begin(c);
    bool login = mu_login_get(id, &sent, &l) == 0;
    write_user(&w, id, &who);
    mu_jw_ktime_opt(&w, "expires", login ? l.expires_ms : 0);
    mu_jw_obj_end(&w);
    if (login && !mu_call_bearer(c).len) { /* the browser's copy lives as long as ours */
        send_with_cookie(c, mu_call_cookie(c), l.expires_ms);
    } else {
        mu_call_send(c, 200);
    }
}

static void list(struct mu_call *c)
{
    const struct mu_credential *sent = mu_call_credential(c);
    struct mu_login *all = mu_call_new(c, MU_LOGINS_EACH * sizeof *all), own;
    if (!all) {
        return;
    }
    bool login = mu_login_get(web_of(c)->identity, sent, &own) == 0;
    size_t n = mu_login_list(web_of(c)->identity, sent, all);
    struct mu_json_w w = begin(c);
    mu_jw_key(&w, "sessions");
    mu_jw_arr(&w);
    for (size_t i = 0; i < n; i++) {
        mu_jw_obj(&w);
        mu_jw_kstr(&w, "id", mu_id_bytes(&all[i].id));
        mu_jw_ktime(&w, "created", all[i].created_ms);
        mu_jw_ktime(&w, "lastUsed", all[i].used_ms);
        mu_jw_ktime(&w, "expires", all[i].expires_ms);
        mu_jw_kcstr(&w, "userAgent", all[i].agent);
        mu_jw_kbool(&w, "current", login && strcmp(own.id.text, all[i].id.text) == 0);
        mu_jw_obj_end(&w);
    }
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    mu_call_send(c, 200);
}

static void removed(struct mu_login_op *op, int result)
{
    struct mu_call *c = op->ctx;
    if (result < 0) {
        mu_call_fail(c, result);
        return;
    }
    mu_log(MU_LOG_INFO, "login.ended", MU_KS("req_id", mu_call_request_id(c)),
           MU_KS("login_id", mu_id_bytes(&op->id)));
    struct mu_json_w w = begin(c);
    mu_jw_kbool(&w, "success", true);
    mu_jw_obj_end(&w);
    mu_call_send(c, 200);
}

static void remove_one(struct mu_call *c)
{
    struct mu_id id;
    int r = mu_id_parse(mu_call_param(c, "id"), "", &id);
    r = r < 0 ? MU_E_NOT_FOUND : end_login(c, mu_call_credential(c), &id, removed);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- links --- */

int mu_web_login_link(const struct mu_web *web, char *dst, size_t size)
{
    char code[MU_LOGIN_CODE_LEN + 1];
    const char *url = web->public_url && web->public_url[0] ? web->public_url : web->own_url;
    int r = mu_login_code_make(web->identity, code);
    if (r < 0) {
        return r;
    }
    size_t n = strlen(url);
    n -= n && url[n - 1] == '/';
    int len = snprintf(dst, size, "%.*s/#code=%s", (int)n, url, code);
    explicit_bzero(code, sizeof code);
    return len < 0 || (size_t)len >= size ? MU_E_TOO_LARGE : 0;
}

static void make_link(struct mu_call *c)
{
    char url[2048];
    struct mu_web *web = web_of(c);
    int r = mu_web_login_link(web, url, sizeof url);
    if (r == MU_E_LIMIT) {
        mu_call_retry(c, 429, "too_many_requests", 60000, "Too many links wait to be used");
        return;
    }
    if (r < 0) {
        mu_call_fail(c, r);
        return;
    }
    struct mu_json_w w = begin(c);
    mu_jw_kcstr(&w, "url", url);
    mu_jw_ktime(&w, "expires_at", mu_env_wall_ms(web->env) + MU_LOGIN_CODE_MS);
    explicit_bzero(url, sizeof url);
    mu_call_send_object(c, &w);
}

/* --- tables --- */

static const struct mu_schema login_body[] = {
    {.name = "token",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 4096,
     .doc = "The admin key, an API key, or the token of a tenant."},
    {.name = "code",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 200,
     .doc = "Of the link that `muster login-link` makes: one use, for 15 minutes."},
    {0}};

const char *const mu_web_components[] = {
    "User",
    "{\"type\":\"object\",\"required\":[\"id\",\"name\",\"role\",\"admin\",\"orgId\"],"
    "\"properties\":{\"id\":{\"type\":\"string\"},\"name\":{\"type\":\"string\"},\"role\":{"
    "\"type\":\"string\"},\"admin\":{\"type\":\"boolean\"},\"orgId\":{\"type\":\"string\"}}}",
    "Login",
    "{\"type\":\"object\",\"required\":[\"user\",\"expires\"],\"properties\":{\"user\":{\"$ref\":"
    "\"#/components/schemas/User\"},\"expires\":{\"type\":\"string\",\"format\":\"date-time\"}}}",
    "AuthSession",
    "{\"type\":\"object\",\"required\":[\"user\"],\"properties\":{\"user\":{\"anyOf\":[{\"$ref\":"
    "\"#/components/schemas/User\"},{\"type\":\"null\"}]},\"expires\":{\"type\":[\"string\","
    "\"null\"],\"format\":\"date-time\"}}}",
    "LoginList",
    "{\"type\":\"object\",\"required\":[\"sessions\"],\"properties\":{\"sessions\":{\"type\":"
    "\"array\",\"items\":{\"type\":\"object\",\"required\":[\"id\",\"created\",\"lastUsed\","
    "\"expires\",\"userAgent\",\"current\"],\"properties\":{\"id\":{\"type\":\"string\"},"
    "\"created\":{\"type\":\"string\",\"format\":\"date-time\"},\"lastUsed\":{\"type\":"
    "\"string\",\"format\":\"date-time\"},\"expires\":{\"type\":\"string\",\"format\":"
    "\"date-time\"},\"userAgent\":{\"type\":\"string\"},\"current\":{\"type\":\"boolean\"}}}}}}",
    "Done",
    "{\"type\":\"object\",\"required\":[\"success\"],\"properties\":{\"success\":{\"const\":true}}"
    "}",
    "LoginLink",
    "{\"type\":\"object\",\"required\":[\"url\",\"expires_at\",\"request_id\"],\"properties\":{"
    "\"url\":{\"type\":\"string\"},\"expires_at\":{\"type\":\"string\",\"format\":\"date-time\"},"
    "\"request_id\":{\"type\":\"string\"}}}",
    NULL};

const struct mu_route mu_web_auth_routes[] = {
    {.method = MU_HTTP_POST,
     .path = "/api/auth/login",
     .face = MU_FACE_APP,
     .flags = MU_ROUTE_WRITES,
     .max_body = 16384,
     .body = login_body,
     .handler = sign_in,
     .id = "login",
     .summary = "Signs a browser in: a token or a one-time code becomes a cookie.",
     .response = "Login",
     .errors = "401 429"},
    {.method = MU_HTTP_POST,
     .path = "/api/auth/logout",
     .face = MU_FACE_APP,
     .handler = sign_out,
     .id = "logout",
     .summary = "Ends the login that the request carries, and takes the cookie away.",
     .response = "Done"},
    {.method = MU_HTTP_GET,
     .path = "/api/auth/session",
     .face = MU_FACE_APP,
     .handler = show_session,
     .id = "getAuthSession",
     .summary = "Who is signed in, and until when; never 401.",
     .response = "AuthSession"},
    {.method = MU_HTTP_GET,
     .path = "/api/auth/sessions",
     .face = MU_FACE_APP,
     .auth = MU_AUTH_TENANT,
     .handler = list,
     .id = "listLogins",
     .summary = "The caller's logins, newest first.",
     .response = "LoginList"},
    {.method = MU_HTTP_DELETE,
     .path = "/api/auth/sessions/{id}",
     .face = MU_FACE_APP,
     .auth = MU_AUTH_TENANT,
     .role = MU_ROLE_VIEWER,
     .handler = remove_one,
     .id = "endLogin",
     .summary = "Ends one of the caller's logins.",
     .response = "Done"},
    {.method = MU_HTTP_POST,
     .path = "/api/v1/keys/login-link",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_ADMIN,
     .handler = make_link,
     .id = "createLoginLink",
     .summary = "A link that signs the administrator in, once, within 15 minutes.",
     .response = "LoginLink"},
    {.path = NULL}};
