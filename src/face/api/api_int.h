/* What the files of this folder share. */
#ifndef MU_FACE_API_API_INT_H
#define MU_FACE_API_API_INT_H

#include <stdatomic.h>

#include "base/log.h"
#include "face/api/api.h"

enum {
    MU_PARAMS_MAX = 4,       /* parameters of one path */
    MU_QUERY_MAX = 64,       /* known query values of one request */
    MU_NOTES_MAX = 8,        /* further fields of one access line */
    MU_DEPTH_MAX = 64,       /* of a JSON body */
    MU_DISCARD_MAX = 65536,  /* body of a route that reads none */
    MU_PATH_TEXT = 160,      /* "images[2].data" */
    MU_REQUEST_ID_MAX = 128, /* characters */
};

/* --- route.c --- */
struct mu_node {
    mu_bytes segment; /* of a literal */
    struct mu_node *child, *next, *param;
    const struct mu_route *by_method[MU_HTTP_OTHER + 1];
    const struct mu_route *any;
    const struct mu_route *first; /* NULL: only on the way to others */
};
struct mu_router {
    struct mu_arena arena;
    struct mu_node root;
};
void mu_router_init(struct mu_router *r);
void mu_router_fini(struct mu_router *r);
MU_MUST_USE int mu_router_add(struct mu_router *r, const struct mu_route *route,
                              struct mu_err *err);
/* The node of a normalised path, or NULL; fills `params` in the order of the path. */
const struct mu_node *mu_router_find(const struct mu_router *r, mu_bytes path,
                                     mu_bytes params[MU_PARAMS_MAX]);
/* The route for a method, or NULL (405). */
const struct mu_route *mu_node_route(const struct mu_node *n, enum mu_http_method method);
/* The value of Allow. */
void mu_node_allow(const struct mu_node *n, bool options, struct mu_buf *dst);
/* The index of a parameter in a route's path; -1 = none. */
int mu_route_param(const struct mu_route *r, const char *name);
/* Calls fn for every node that has routes, literals first. */
int mu_router_each(const struct mu_router *r, int (*fn)(void *arg, const struct mu_node *n),
                   void *arg);

/* --- codes.c: the error codes of the sessions face --- */
/* false: the route names one that there is not. */
bool mu_codes_known(const struct mu_route *r, mu_bytes *ret_unknown);
/* Whether the route answers an error of that status. */
bool mu_codes_give(const struct mu_route *r, int status);
/* "x-codes": its codes of that status, if there are any. */
void mu_codes_write(struct mu_json_w *w, const struct mu_route *r, int status);
/* "x-common-codes": what any operation may answer besides. */
void mu_codes_write_common(struct mu_json_w *w);

/* --- envelope.c: the sessions face --- */
enum { MU_ISSUES_MAX = 50 };
struct mu_issues {
    struct {
        mu_bytes path, message;
        const char *code;
    } list[MU_ISSUES_MAX];
    size_t n;
};
/* Copies path and message. MU_E_LIMIT: it was one too many; -ENOMEM. */
MU_MUST_USE int mu_issues_add(struct mu_issues *issues, struct mu_arena *a, const char *code,
                              mu_bytes path, mu_bytes message);
/* Whose face answers a path. */
enum mu_api_face mu_face_of(mu_bytes path);
/* Writes the error of another face's words into the (empty) buffer; returns the status to give. */
int mu_envelope_error(struct mu_call *c, int status, const char *code, const char *field,
                      mu_bytes message);
/* Query and body of a request of this face are as they must be; else it is answered. */
bool mu_envelope_take(struct mu_call *c);
extern const char mu_envelope_bare[];

/* --- forms.c --- */
/* A regular expression that every accepted text matches, or NULL. */
const char *mu_form_pattern(enum mu_schema_form form);

/* --- schema.c --- */
struct mu_query_value {
    const struct mu_schema *schema;
    mu_bytes value;
};
/* Checks the known keys of a query string. Fills the array (MU_QUERY_MAX) and its number. Codes as
 * mu_schema_check(); MU_E_PROTOCOL: the text does not decode; -ENOMEM. */
MU_MUST_USE int mu_schema_query(const struct mu_schema *schema, struct mu_arena *a, mu_bytes query,
                                struct mu_query_value *values, size_t *ret_n, char *ret_path,
                                size_t path_size, struct mu_err *err);

/* All problems, in the order of the schema; objects may have no unknown members. -ENOMEM. */
MU_MUST_USE int mu_schema_check_all(const struct mu_schema *members, yyjson_val *root,
                                    struct mu_arena *a, struct mu_issues *issues);
MU_MUST_USE int mu_schema_query_all(const struct mu_schema *schema, struct mu_arena *a,
                                    mu_bytes query, struct mu_query_value *values, size_t *ret_n,
                                    struct mu_issues *issues);

/* --- openapi.c --- */
MU_MUST_USE int mu_openapi_write(const struct mu_router *r, const char *server_url,
                                 const char *const *const *components, struct mu_buf *dst);

/* --- cors.c --- */
struct mu_origins {
    bool any_origin;   /* OZ_CORS_ORIGIN is "*" */
    bool any_host;     /* allowed_hosts has "*" */
    bool cors;         /* OZ_CORS_ORIGIN is set */
    mu_bytes listed;   /* OZ_CORS_ORIGIN */
    mu_bytes own;      /* origin of public_url, or none */
    mu_bytes own_host; /* its host */
    mu_bytes hosts;    /* allowed_hosts */
    bool tls;          /* the main listener speaks it */
};
MU_MUST_USE int mu_origins_init(struct mu_origins *o, const char *cors, const char *public_url,
                                const char *allowed_hosts, struct mu_err *err);
bool mu_host_allowed(const struct mu_origins *o, mu_bytes host);
/* Whether a page of that origin may call `path`; `host` is the request's own. */
bool mu_origin_allowed(const struct mu_origins *o, mu_bytes origin, mu_bytes host, mu_bytes path);
/* Whether it is this server's own, as pages that came from here have it. */
bool mu_origin_own(const struct mu_origins *o, mu_bytes origin, mu_bytes host);
/* Browsers reach this server over TLS only: cookies are for that alone. */
bool mu_origins_secure(const struct mu_origins *o);
const char *mu_cookie_name(const struct mu_origins *o);
/* The value for Access-Control-Allow-Origin, ptr NULL = none. */
mu_bytes mu_cors_value(const struct mu_origins *o, mu_bytes origin, mu_bytes path);
enum { MU_CORS_HEADERS = 6 };
/* Appends the pairs; returns how many. */
size_t mu_cors_pairs(mu_bytes value, struct mu_http_pair *dst);

/* --- api.c, answer.c --- */
struct mu_api {
    const struct mu_env *env;
    struct mu_identity *identity;
    struct mu_metrics *metrics;
    struct mu_origins origins;
    bool (*writable)(void *arg, const char **ret_why);
    void *writable_arg;
    void *app;
    const struct mu_meta *(*meta_of)(void *app);
    const struct mu_route *(*other)(void *app, const struct mu_http_head *head);
    struct mu_router router;
    struct mu_buf openapi;
    atomic_bool stopping;
    struct mu_metric *by_class[5], *duration, *connections;
};

struct mu_call {
    struct mu_api *api;
    struct mu_http_req *req;
    enum mu_api_face face;
    const struct mu_route *route; /* NULL: no route applies */
    struct mu_issues *issues;     /* made with the first */
    bool authenticated;
    struct mu_principal principal;
    struct mu_credential credential;
    mu_bytes request_id, trace_id, cors;
    char minted[4 + MU_ID_LEN + 1];
    mu_bytes params[MU_PARAMS_MAX];
    struct mu_query_value *query;
    size_t n_query;
    yyjson_val *body;
    struct mu_buf buf;
    struct mu_kv notes[MU_NOTES_MAX];
    size_t n_notes;
    void (*on_gone)(struct mu_call *c);
    void *ctx;
    const char *secret_path; /* MU_ROUTE_SECRET: what is logged instead */
    bool close;              /* the connection ends with the answer */
    bool no_memory;          /* a problem could not be noted */
    bool headless;           /* the message was malformed before its header block was complete */
};

/* --- app_face.c: what is below /api/ and outside /api/v1 --- */
/* The error of another face's words; `retry`: the value of Retry-After, or empty. Returns the
 * status to give. */
int mu_app_error(struct mu_call *c, int status, const char *code, const char *field,
                 mu_bytes message, mu_bytes retry);

/* Whether a face below /api/v1 owns the path. */
static inline bool mu_path_is_api(mu_bytes path)
{
    return mu_bytes_starts(path, MU_B("/api/v1/")) || mu_bytes_is(path, "/api/v1");
}
/* An error whose `error` member is the short text of oz-api.md 3 and whose `message` says more. */
void mu_answer_error(struct mu_call *c, int status, const char *code, const char *field,
                     const char *error, mu_bytes message, const struct mu_http_pair *extra,
                     size_t n_extra);
/* Sends the buffer. */
void mu_answer(struct mu_call *c, int status, const char *type, const struct mu_http_pair *extra,
               size_t n_extra);
/* A WebSocket was made of it. */
void mu_call_taken(struct mu_call *c);
/* Reads the JSON body into c->body, when the route has one. MU_E_INVALID, worded: it is no JSON;
 * MU_E_TOO_LARGE: it was answered. */
MU_MUST_USE int mu_call_read_body(struct mu_call *c, struct mu_err *err);
/* When there is no memory for a call. */
void mu_answer_bare(struct mu_http_req *req, enum mu_api_face face);

#endif
