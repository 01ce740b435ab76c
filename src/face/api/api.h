/* What all HTTP faces share: the declarative route table that routes, limits, authenticates,
 * validates and documents (architecture.md 4 "A request"), the request context, and answers in the
 * face's own error shape. */
#ifndef MU_FACE_API_API_H
#define MU_FACE_API_API_H

#include "app/identity/identity.h"
#include "net/http.h"
#include "proto/json.h"

struct mu_api;
struct mu_call;
struct mu_meta;

/* --- schemas: they validate and they become openapi.json --- */
enum mu_schema_type {
    MU_S_STRING,
    MU_S_INT,
    MU_S_NUMBER,
    MU_S_BOOL,
    MU_S_OBJECT,
    MU_S_ARRAY,
    MU_S_MAP,            /* object with any keys; `items` describes the values */
    MU_S_ANY,            /* any JSON value */
    MU_S_TIME,           /* RFC 3339 text */
    MU_S_STRING_OR_LIST, /* newline-separated text or array of strings (oz-api.md 4.7) */
};

enum {
    MU_S_REQUIRED = 1,
    MU_S_NULLABLE = 2,
    MU_S_NOT_BLANK = 4,
    MU_S_REPEAT = 8 /* query key may repeat */,
    MU_S_NO_NUL = 16,
    MU_S_CLOSED = 32 /* OBJECT: members that the schema does not list are refused */
};

/* What a text must look like beyond its length; of a MAP: each of its keys (forms.c). */
enum mu_schema_form {
    MU_F_NONE,
    MU_F_ID,       /* 1..128 of [A-Za-z0-9._:-] */
    MU_F_FEATURE,  /* 1..64 of [a-z0-9._:-] */
    MU_F_HEX,      /* hexadecimal digits */
    MU_F_REF,      /* the name of a branch or tag, as git takes it */
    MU_F_REPO,     /* the URL of a repository without credentials */
    MU_F_ENV_NAME, /* the name of a variable that a session may set */
    MU_F_LABEL,    /* 1..64 characters */
};

struct mu_schema {
    const char *name; /* member or query key; NULL inside arrays and maps */
    enum mu_schema_type type;
    unsigned flags;
    int64_t min,
        max; /* INT, NUMBER: value; STRING: characters; ARRAY, MAP: entries; 0,0 = not limited */
    const char *words; /* STRING: allowed words separated by blanks; NULL = any */
    enum mu_schema_form form;
    const struct mu_schema *items; /* ARRAY, MAP: the entry; OBJECT: members, ended by {0} */
    const char *ref; /* documentation: name of a component schema instead of items (responses) */
    const char *doc; /* one sentence */
};

/* Checks a value. On failure fills the path of the offending field ("config.model_id",
 * "images[2].data") and a sentence that names the field and what is accepted; returns MU_E_INVALID
 * (code "invalid_field") or MU_E_NOT_FOUND (a required field is missing: code "missing_field").
 * Unknown members are ignored (Oz face), but for those of a MU_S_CLOSED object. The sessions face
 * notes all problems and refuses every unknown member (mu_schema_check_all()). */
MU_MUST_USE int mu_schema_check(const struct mu_schema *members, yyjson_val *root, char *ret_path,
                                size_t path_size, struct mu_err *err);

/* NULL, or the code of an issue (village-control-plane.md 3.4) and words for it, which follow the
 * member's name. */
const char *mu_form_refuse(enum mu_schema_form form, mu_bytes text, const char **ret_why);

/* --- routes --- */
enum mu_api_auth {
    MU_AUTH_NONE,
    MU_AUTH_TENANT, /* any bearer */
    MU_AUTH_ADMIN,
    MU_AUTH_WORKER, /* the admin key, the key of one worker, an enrolment token */
    MU_AUTH_RUNNER, /* an enrolment token or a worker's own credential: the handler looks which */
    MU_AUTH_RUN,    /* any bearer, or a session token: the handler checks principal->run */
};
/* Whose error body and conventions. It follows from the path (specification README 3): a route that
 * says another one is refused at start. */
enum mu_api_face {
    MU_FACE_ROOT,
    MU_FACE_OZ,
    MU_FACE_SESSIONS, /* the envelope of village-control-plane.md 3.1 around every answer */
    MU_FACE_APP,      /* /api/… outside /api/v1: {error, code, details?, field?, requestId} */
};
enum {
    MU_ROUTE_ANY_METHOD = 1,
    MU_ROUTE_WRITES =
        2,              /* refused with 503 while the disk is nearly full or the database is away */
    MU_ROUTE_QUIET = 4, /* no access line at info (health probes) */
    MU_ROUTE_NO_DRAIN = 16,   /* still served while stopping (health) */
    MU_ROUTE_SECRET = 128,    /* who knows the path has the right: it is not logged, and its page,
                                 which sends no referrer, may post to it (Origin: null) */
    MU_ROUTE_URL_TOKEN = 256, /* the token may be in ?token= (compatibility; it is not logged) */
    MU_ROUTE_PROBE = 32,      /* also on the metrics listener, and there without a key */
    MU_ROUTE_WEBSOCKET =
        64, /* the handler is called for a proper upgrade request only (after the key was looked at)
               and calls mu_ws_accept(mu_call_http(c), …), now or later, or answers; the call is
               gone once it was accepted; no trailing slash is tolerated */
};

struct mu_route {
    enum mu_http_method method;
    const char *path; /* "/api/v1/agent/runs/{runID}": a parameter is one segment; one trailing
                         slash is tolerated */
    enum mu_api_face face;
    enum mu_api_auth auth;
    enum mu_role role; /* 0: a viewer for GET, an operator for everything else */
    unsigned flags;
    size_t max_body;          /* 0 = no body is read (a body up to 64 KiB is discarded) */
    size_t usual_body;        /* 0, or what is accepted of a body without entries in ... */
    const char *large_member; /* ... this member of it (images); above it 413 */
    const struct mu_schema
        *query; /* ended by {0}; NULL = no query keys are known (unknown keys are ignored) */
    const struct mu_schema
        *body; /* members of the JSON object, ended by {0}; NULL = the body is ignored */
    /* Rules that the schemas do not say, of the sessions face: notes what it finds with
     * mu_call_issue(). It runs also when the schemas found something: any member may be missing or
     * of a wrong type. */
    void (*check)(struct mu_call *call);
    void (*handler)(struct mu_call *call);
    /* documentation */
    const char *id, *summary; /* operationId, one sentence */
    const char *response;     /* component schema of the answer (in the envelope: of its data), or
                                 NULL */
    const char *success;      /* its statuses, separated by blanks; NULL = "200" */
    const char *errors; /* extra statuses, separated by blanks: "404 422 429 503"; of the sessions
                           face the codes of its own errors: "SESSION_NOT_FOUND" (codes.c) */
    void (*describe)(struct mu_json_w *w); /* writes further members of the operation, or NULL */
    const char *media; /* media type of the 200 answer; NULL = application/json */
};

/* The listener_arg of a listener: NULL is the main one. */
struct mu_api_listener {
    bool probes_only; /* serves MU_ROUTE_PROBE only, without a key (OZ_METRICS_LISTEN) */
};

/* Handlers are registered as tables, each ended by {.path = NULL}. */
struct mu_api_opts {
    const struct mu_env *env;
    struct mu_identity *identity;
    struct mu_metrics *metrics;
    const char *cors_origins; /* OZ_CORS_ORIGIN or NULL */
    const char *public_url;
    bool tls;                  /* the main listener speaks TLS */
    const char *allowed_hosts; /* further Host names, separated by commas, "*" = any; loopback
                                  names, numeric addresses (they cannot be rebound) and the host of
                                  public_url are always allowed (architecture.md G10) */
    const struct mu_route *const *tables;
    size_t n_tables;
    const char *const *const *components; /* openapi component schemas: lists, ended by NULL, of
                                             pairs of name and JSON text, each ended by NULL */
    bool (*writable)(void *arg, const char **ret_why); /* MU_ROUTE_WRITES asks this; any loop */
    void *writable_arg;
    /* The route of a path that no table has, or NULL: 404. Not in openapi.json. May be NULL. */
    const struct mu_route *(*other)(void *app, const struct mu_http_head *head);
    void *app; /* the server's root struct, for handlers: mu_call_app() */
    const struct mu_meta *(*meta_of)(void *app); /* what the root and key routes need (meta.h); its
                                                    result may be filled until the loops start */
};
/* The texts and tables of `opts` must outlive the api. Errors are worded: a route given twice, a
 * bad origin. */
MU_MUST_USE int mu_api_new(const struct mu_api_opts *opts, struct mu_api **ret, struct mu_err *err);
struct mu_api *mu_api_free(struct mu_api *api);
/* The ops for mu_http_server_new(). */
struct mu_http_ops mu_api_http_ops(struct mu_api *api);
/* A request of this process (net/http_local.h) by somebody whom the process knows: no key is looked
 * at, and no Host or Origin; the rest of the way is that of every request. Loop thread of the
 * request, whose body is there. */
void mu_api_local(struct mu_api *api, struct mu_http_req *req, const struct mu_principal *who);
/* From the moment a stop signal arrives: 503 shutting_down with Retry-After: 1 on everything but
 * MU_ROUTE_NO_DRAIN. */
void mu_api_set_stopping(struct mu_api *api);
bool mu_api_stopping(const struct mu_api *api);
/* The OpenAPI 3.1 document generated from the tables; valid as long as the api. */
mu_bytes mu_api_openapi(const struct mu_api *api);
/* The fields that are accepted by the schema but not honoured yet are listed by the faces, see
 * docs/compat.md. */

/* --- inside a handler; loop thread of the request --- */
void *mu_call_app(const struct mu_call *c);
struct mu_arena *mu_call_arena(struct mu_call *c);
/* Zeroed memory of the call; NULL: there is none, and that is answered. */
void *mu_call_new(struct mu_call *c, size_t size);
struct mu_loop *mu_call_loop(struct mu_call *c);
struct mu_http_req *mu_call_http(struct mu_call *c);
const struct mu_principal *mu_call_principal(const struct mu_call *c);
mu_bytes mu_call_request_id(const struct mu_call *c);
/* 32 hexadecimal characters of a valid `traceparent` header; ptr NULL when there was none. */
mu_bytes mu_call_trace_id(const struct mu_call *c);
/* opts.meta_of(app). */
const struct mu_meta *mu_call_meta(const struct mu_call *c);
struct mu_api *mu_call_api(const struct mu_call *c);
mu_bytes mu_call_param(const struct mu_call *c,
                       const char *name); /* path parameter, percent-decoded */
/* First (or `index`th) value of a query key that the route knows, decoded; ptr NULL when absent. */
mu_bytes mu_call_query(const struct mu_call *c, const char *key, unsigned index);
yyjson_val *mu_call_body(
    const struct mu_call *c); /* checked against the schema; NULL when the route has none */
mu_bytes mu_call_raw_body(const struct mu_call *c);
mu_bytes mu_call_header(const struct mu_call *c, const char *name);
mu_bytes mu_call_bearer(const struct mu_call *c); /* of the header Authorization; empty = none */
/* The login of the request's cookie; empty = none. */
mu_bytes mu_call_cookie(const struct mu_call *c);
/* Its attributes included: what Set-Cookie says. An empty token takes it away. */
void mu_call_cookie_text(const struct mu_call *c, mu_bytes token, int64_t seconds,
                         struct mu_buf *dst);
/* Whether the request shows that a page of this server made it. */
bool mu_call_same_origin(const struct mu_call *c);
/* The bearer, else the cookie. MU_E_NOT_FOUND: neither; MU_E_UNAUTHORIZED: no login is in the
 * cookie; MU_E_FORBIDDEN: only a cookie, and nothing shows that a page of ours made the request
 * (mu_call_foreign() answers that). */
MU_MUST_USE int mu_call_sender(const struct mu_call *c, struct mu_credential *ret);
void mu_call_foreign(struct mu_call *c);
/* What the principal was found by; NULL when nobody asked. */
const struct mu_credential *mu_call_credential(const struct mu_call *c);
/* A field of the access line ("run_id"). */
void mu_call_note(struct mu_call *c, const char *key, mu_bytes value);

/* --- answers: exactly one --- */
/* A buffer in the call's keeping for building the body; at most 112 MiB: a run's prompt and twice
 * its output, each byte escaped. */
struct mu_buf *mu_call_buf(struct mu_call *c);
/* Sends mu_call_buf() as application/json (or as the route's `media` when the status is 200 or
 * 206); a failed buffer becomes a 503. */
void mu_call_send(struct mu_call *c, int status);
/* Ends the object that `w` writes into mu_call_buf() with a request_id and sends it with 200. */
void mu_call_send_object(struct mu_call *c, struct mu_json_w *w);
/* {"success":true,"request_id":…} with 200: what a delete answers. */
void mu_call_success(struct mu_call *c);
/* The same as mu_call_send() with one further header. */
void mu_call_send_with(struct mu_call *c, int status, const char *header, mu_bytes value);
/* The same with up to 8 further headers. */
void mu_call_send_headers(struct mu_call *c, int status, const struct mu_http_pair *headers,
                          size_t n);
/* Sends mu_call_buf() as what `type` says. */
void mu_call_send_as(struct mu_call *c, int status, const char *type,
                     const struct mu_http_pair *headers, size_t n);
/* An error in the face's shape: {"error","message","code","field"?,"request_id"}. `field` may be
 * NULL. */
void mu_call_error(struct mu_call *c, int status, const char *code, const char *field,
                   const char *fmt, ...) MU_PRINTF(5, 6);
/* 401 with WWW-Authenticate. */
void mu_call_unauthorized(struct mu_call *c, const char *why);
/* 429 or 503 with Retry-After (whole seconds, rounded up). */
void mu_call_retry(struct mu_call *c, int status, const char *code, int64_t retry_ms,
                   const char *text);
/* The answer for one of our codes, by the face's table: NOT_FOUND 404, INVALID 400, UNAUTHORIZED
 * 401, FORBIDDEN 403, CONFLICT, EXISTS 409 (not retried), TOO_LARGE 413, MISMATCH 422, LIMIT 429,
 * BUSY, SATURATED, UNAVAILABLE, DISK_FULL, SHUTDOWN, -ENOMEM 503, anything else 500 "Internal
 * error" (details to the log). */
void mu_call_fail(struct mu_call *c, int code);
/* --- the sessions face --- */
/* A member or parameter that is not as it must be; `code` is one of village-control-plane.md 3.4.
 * At most 50 are kept. */
void mu_call_issue(struct mu_call *c, const char *code, const char *path, const char *fmt, ...)
    MU_PRINTF(4, 5);
/* Answers VALIDATION_ERROR when problems were noted: then true. */
bool mu_call_refused(struct mu_call *c);
/* An error with `details`, the text of a JSON object (ptr NULL: none). Codes are those of 3.6. */
void mu_call_error_details(struct mu_call *c, int status, const char *code, mu_bytes details,
                           const char *fmt, ...) MU_PRINTF(5, 6);
/* Begins {"success":true,"data": in mu_call_buf(), which is emptied: exactly one value follows. */
struct mu_json_w mu_call_data(struct mu_call *c);
/* Ends what mu_call_data() began, with `meta`, and sends it. */
void mu_call_data_send(struct mu_call *c, int status, const struct mu_http_pair *headers, size_t n);
/* Success without data. */
void mu_call_done(struct mu_call *c);

/* Begins a streamed answer (SSE, download); the call is gone afterwards. At most 8 headers, the
 * Content-Type among them. NULL: the peer left, or only asked for the headers; nothing more to do.
 */
struct mu_http_stream *mu_call_stream(struct mu_call *c, int status,
                                      const struct mu_http_pair *headers, size_t n, int64_t length,
                                      const struct mu_http_stream_ops *ops, void *arg);
/* Called once when the client went away while the handler waits (long poll); at once when it is
 * gone already. The answer is still due. */
void mu_call_on_gone(struct mu_call *c, void (*fn)(struct mu_call *c));
void mu_call_set_ctx(struct mu_call *c, void *ctx);
void *mu_call_ctx(const struct mu_call *c);

#endif
