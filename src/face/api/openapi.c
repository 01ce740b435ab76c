/* The OpenAPI 3.1 document, written from the route tables. */
#include <errno.h>

#include "face/api/api_int.h"

/* Every status a route of ours can give, in the order they are written. */
static const struct {
    int status;
    const char *text;
} statuses[] = {
    {400, "The request is malformed, or a field is missing or invalid."},
    {401, "No usable credential."},
    {403, "The caller, the Host or the Origin is not allowed."},
    {404, "There is no such thing, or it is another tenant's."},
    {405, "The path does not know this method."},
    {408, "The request came too slowly."},
    {409, "It contradicts what is there."},
    {410, "It was used, is too old, or is not wanted any more."},
    {413, "The body is too large."},
    {416, "The range cannot be served."},
    {422, "The Idempotency-Key was used with another body."},
    {426, "The path is a WebSocket."},
    {429, "Too many requests; see Retry-After."},
    {431, "The header block is too large."},
    {500, "Internal error; the log has the details under the request id."},
    {502, "An upstream failed."},
    {503, "Not available just now; see Retry-After."},
    {504, "An upstream did not answer in time."},
};

/* Component schemas of the routes in this folder, and the error body. */
static const char *const own_components[] = {
    "Error",
    "{\"type\":\"object\",\"required\":[\"error\",\"message\",\"code\",\"request_id\"],"
    "\"properties\":{\"error\":{\"type\":\"string\"},\"message\":{\"type\":\"string\"},"
    "\"code\":{\"type\":\"string\",\"description\":\"A stable word.\"},"
    "\"field\":{\"type\":\"string\",\"description\":\"The offending field.\"},"
    "\"request_id\":{\"type\":\"string\"}}}",
    "AppError",
    "{\"type\":\"object\",\"required\":[\"error\",\"code\",\"requestId\"],\"properties\":{"
    "\"error\":{\"type\":\"string\",\"description\":\"What people read.\"},"
    "\"code\":{\"type\":\"string\",\"description\":\"A stable word.\"},"
    "\"field\":{\"type\":\"string\",\"description\":\"The offending field.\"},\"details\":{},"
    "\"requestId\":{\"type\":\"string\"}}}",
    "Health",
    "{\"type\":\"object\",\"required\":[\"ok\",\"db\",\"status\",\"timestamp\",\"version\","
    "\"backend\",\"request_id\"],\"properties\":{\"ok\":{\"type\":\"boolean\"},"
    "\"db\":{\"enum\":[\"ok\",\"error\"]},\"status\":{\"enum\":[\"ok\",\"degraded\"]},"
    "\"timestamp\":{\"type\":\"string\",\"format\":\"date-time\"},"
    "\"version\":{\"type\":\"string\"},\"backend\":{\"type\":\"string\"},"
    "\"request_id\":{\"type\":\"string\"},\"error\":{\"type\":\"string\"},"
    "\"shutting_down\":{\"type\":\"boolean\"}}}",
    "Alive",
    "{\"type\":\"object\",\"required\":[\"ok\",\"request_id\"],\"properties\":{"
    "\"ok\":{\"type\":\"boolean\"},\"request_id\":{\"type\":\"string\"}}}",
    "Key",
    "{\"type\":\"object\",\"required\":[\"id\",\"name\",\"tenant\",\"prefix\",\"created_at\"],"
    "\"properties\":{\"id\":{\"type\":\"string\"},\"name\":{\"type\":\"string\"},"
    "\"tenant\":{\"type\":\"string\"},\"role\":{\"type\":\"string\"},\"prefix\":{\"type\":"
    "\"string\"},"
    "\"created_at\":{\"type\":\"string\",\"format\":\"date-time\"},"
    "\"expires_at\":{\"type\":[\"string\",\"null\"],\"format\":\"date-time\"},"
    "\"revoked_at\":{\"type\":[\"string\",\"null\"],\"format\":\"date-time\"},"
    "\"last_used_at\":{\"type\":[\"string\",\"null\"],\"format\":\"date-time\"}}}",
    "KeyList",
    "{\"type\":\"object\",\"required\":[\"keys\",\"request_id\"],\"properties\":{"
    "\"keys\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/Key\"}},"
    "\"request_id\":{\"type\":\"string\"}}}",
    "KeyCreated",
    "{\"type\":\"object\",\"required\":[\"id\",\"name\",\"tenant\",\"key\",\"created_at\","
    "\"request_id\"],\"properties\":{\"id\":{\"type\":\"string\"},\"name\":{\"type\":\"string\"},"
    "\"tenant\":{\"type\":\"string\"},\"role\":{\"type\":\"string\"},\"key\":{\"type\":\"string\","
    "\"description\":\"Shown this once.\"},"
    "\"created_at\":{\"type\":\"string\",\"format\":\"date-time\"},"
    "\"expires_at\":{\"type\":[\"string\",\"null\"],\"format\":\"date-time\"},"
    "\"request_id\":{\"type\":\"string\"}}}",
    "Meta",
    "{\"type\":\"object\",\"required\":[\"requestId\",\"timestamp\",\"duration\"],"
    "\"properties\":{\"requestId\":{\"type\":\"string\"},"
    "\"timestamp\":{\"type\":\"string\",\"format\":\"date-time\"},"
    "\"duration\":{\"type\":\"integer\",\"description\":\"Milliseconds.\"}}}",
    "EnvelopeError",
    "{\"type\":\"object\",\"required\":[\"success\",\"error\",\"meta\"],\"properties\":{"
    "\"success\":{\"const\":false},\"error\":{\"type\":\"object\",\"required\":[\"code\","
    "\"message\"],\"properties\":{\"code\":{\"type\":\"string\",\"description\":\"A stable "
    "word.\"},\"message\":{\"type\":\"string\"},\"details\":{\"type\":\"object\"}}},"
    "\"meta\":{\"$ref\":\"#/components/schemas/Meta\"}}}",
    "Success",
    "{\"type\":\"object\",\"required\":[\"success\",\"request_id\"],\"properties\":{"
    "\"success\":{\"type\":\"boolean\"},\"request_id\":{\"type\":\"string\"}}}",
    NULL,
};

static void write_ref(struct mu_json_w *w, const char *name)
{
    mu_jw_key(w, "$ref");
    mu_buf_printf(w->buf, "\"#/components/schemas/%s\"", name);
    w->comma = true;
}

/* "type", with "null" beside it where null is accepted. */
static void write_type(struct mu_json_w *w, const struct mu_schema *s, const char *type)
{
    if (!(s->flags & MU_S_NULLABLE)) {
        mu_jw_kcstr(w, "type", type);
        return;
    }
    mu_jw_key(w, "type");
    mu_jw_arr(w);
    mu_jw_str(w, mu_str(type));
    mu_jw_str(w, MU_B("null"));
    mu_jw_arr_end(w);
}

static void write_limits(struct mu_json_w *w, const struct mu_schema *s, const char *min,
                         const char *max)
{
    if (s->min || s->max) {
        mu_jw_ki64(w, min, s->min);
        if (s->max >= s->min) {
            mu_jw_ki64(w, max, s->max);
        }
    }
}

static void write_words(struct mu_json_w *w, const struct mu_schema *s)
{
    mu_bytes rest = mu_str(s->words);
    mu_jw_key(w, "enum");
    mu_jw_arr(w);
    while (rest.ptr) {
        mu_bytes word = mu_bytes_split(&rest, ' ');
        if (word.len) {
            mu_jw_str(w, word);
        }
    }
    if (s->flags & MU_S_NULLABLE) {
        mu_jw_null(w);
    }
    mu_jw_arr_end(w);
}

/* The conditions of a text are patterns; a schema has room for one, so several go below allOf. */
static void write_patterns(struct mu_json_w *w, const struct mu_schema *s)
{
    const char *list[3];
    size_t n = 0;
    if (s->flags & MU_S_NOT_BLANK) {
        list[n++] = "[^ \\t\\n\\r\\x0b\\x0c]";
    }
    if (s->flags & MU_S_NO_NUL) {
        list[n++] = "^[^\\x00]*$";
    }
    const char *form = s->type == MU_S_STRING ? mu_form_pattern(s->form) : NULL;
    if (form) {
        list[n++] = form;
    }
    if (n == 1) {
        mu_jw_kcstr(w, "pattern", list[0]);
    }
    if (n < 2) {
        return;
    }
    mu_jw_key(w, "allOf");
    mu_jw_arr(w);
    for (size_t i = 0; i < n; i++) {
        mu_jw_obj(w);
        mu_jw_kcstr(w, "pattern", list[i]);
        mu_jw_obj_end(w);
    }
    mu_jw_arr_end(w);
}

/* `closed`: every object is MU_S_CLOSED. */
static void write_schema(struct mu_json_w *w, const struct mu_schema *s, bool closed);

static void write_members(struct mu_json_w *w, const struct mu_schema *members, bool closed)
{
    bool required = false;
    mu_jw_key(w, "properties");
    mu_jw_obj(w);
    for (const struct mu_schema *m = members; m && m->name; m++) {
        mu_jw_key(w, m->name);
        write_schema(w, m, closed);
        required = required || m->flags & MU_S_REQUIRED;
    }
    mu_jw_obj_end(w);
    if (!required) {
        return;
    }
    mu_jw_key(w, "required");
    mu_jw_arr(w);
    for (const struct mu_schema *m = members; m->name; m++) {
        if (m->flags & MU_S_REQUIRED) {
            mu_jw_str(w, mu_str(m->name));
        }
    }
    mu_jw_arr_end(w);
}

static void write_string(struct mu_json_w *w, const struct mu_schema *s)
{
    write_type(w, s, "string");
    write_limits(w, s, "minLength", "maxLength");
    if (s->words) {
        write_words(w, s);
    }
    write_patterns(w, s);
}

static void write_entries(struct mu_json_w *w, const struct mu_schema *s, const char *key,
                          bool closed)
{
    if (!s->items && !s->ref) {
        return;
    }
    mu_jw_key(w, key);
    if (s->ref) {
        mu_jw_obj(w);
        write_ref(w, s->ref);
        mu_jw_obj_end(w);
    } else {
        write_schema(w, s->items, closed);
    }
}

static void write_string_or_list(struct mu_json_w *w, const struct mu_schema *s)
{
    mu_jw_key(w, "anyOf");
    mu_jw_arr(w);
    mu_jw_obj(w);
    mu_jw_kcstr(w, "type", "string");
    write_patterns(w, s);
    mu_jw_obj_end(w);
    mu_jw_obj(w);
    mu_jw_kcstr(w, "type", "array");
    write_limits(w, s, "minItems", "maxItems");
    mu_jw_key(w, "items"); /* anything; the pattern is for those that are texts */
    mu_jw_obj(w);
    write_patterns(w, s);
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
    if (s->flags & MU_S_NULLABLE) {
        mu_jw_obj(w);
        mu_jw_kcstr(w, "type", "null");
        mu_jw_obj_end(w);
    }
    mu_jw_arr_end(w);
}

static void write_by_type(struct mu_json_w *w, const struct mu_schema *s, bool closed)
{
    switch (s->type) {
    case MU_S_STRING:
        write_string(w, s);
        break;
    case MU_S_TIME:
        write_type(w, s, "string");
        mu_jw_kcstr(w, "format", "date-time");
        break;
    case MU_S_INT:
        write_type(w, s, "integer");
        if (s->min || s->max) {
            write_limits(w, s, "minimum", "maximum");
        } else {
            mu_jw_ki64(w, "minimum", INT64_MIN);
            mu_jw_ki64(w, "maximum", INT64_MAX);
        }
        break;
    case MU_S_NUMBER:
        write_type(w, s, "number");
        write_limits(w, s, "minimum", "maximum");
        break;
    case MU_S_BOOL:
        write_type(w, s, "boolean");
        break;
    case MU_S_OBJECT:
        write_type(w, s, "object");
        if (s->items) {
            write_members(w, s->items, closed);
        }
        if (s->items && (closed || s->flags & MU_S_CLOSED)) {
            mu_jw_kbool(w, "additionalProperties", false);
        }
        break;
    case MU_S_ARRAY:
        write_type(w, s, "array");
        write_limits(w, s, "minItems", "maxItems");
        write_entries(w, s, "items", closed);
        break;
    case MU_S_MAP:
        write_type(w, s, "object");
        write_limits(w, s, "minProperties", "maxProperties");
        if (mu_form_pattern(s->form)) {
            mu_jw_key(w, "propertyNames");
            mu_jw_obj(w);
            mu_jw_kcstr(w, "pattern", mu_form_pattern(s->form));
            mu_jw_obj_end(w);
        }
        write_entries(w, s, "additionalProperties", closed);
        break;
    case MU_S_STRING_OR_LIST:
        write_string_or_list(w, s);
        break;
    case MU_S_ANY:
        break;
    }
}

static void write_schema(struct mu_json_w *w, const struct mu_schema *s, bool closed)
{
    mu_jw_obj(w);
    if (s->type == MU_S_OBJECT && s->ref && s->flags & MU_S_NULLABLE) {
        mu_jw_key(w, "anyOf");
        mu_jw_arr(w);
        mu_jw_obj(w);
        write_ref(w, s->ref);
        mu_jw_obj_end(w);
        mu_jw_raw(w, MU_B("{\"type\":\"null\"}"));
        mu_jw_arr_end(w);
    } else if (s->type == MU_S_OBJECT && s->ref) {
        write_ref(w, s->ref);
    } else {
        write_by_type(w, s, closed);
    }
    if (s->doc) {
        mu_jw_kcstr(w, "description", s->doc);
    }
    mu_jw_obj_end(w);
}

/* --- operations --- */

static void write_path_params(struct mu_json_w *w, const char *path)
{
    mu_bytes rest = mu_bytes_from(mu_str(path), 1);
    while (rest.ptr) {
        mu_bytes segment = mu_bytes_split(&rest, '/');
        if (segment.len > 2 && segment.ptr[0] == '{') {
            mu_jw_obj(w);
            mu_jw_kstr(w, "name", mu_bytes_of(segment.ptr + 1, segment.len - 2));
            mu_jw_kcstr(w, "in", "path");
            mu_jw_kbool(w, "required", true);
            mu_jw_kraw(w, "schema", MU_B("{\"type\":\"string\",\"minLength\":1}"));
            mu_jw_obj_end(w);
        }
    }
}

static void write_query_params(struct mu_json_w *w, const struct mu_schema *query)
{
    for (const struct mu_schema *s = query; s && s->name; s++) {
        mu_jw_obj(w);
        mu_jw_kcstr(w, "name", s->name);
        mu_jw_kcstr(w, "in", "query");
        if (s->flags & MU_S_REQUIRED) {
            mu_jw_kbool(w, "required", true);
        }
        if (s->doc) {
            mu_jw_kcstr(w, "description", s->doc);
        }
        mu_jw_key(w, "schema");
        if (s->flags & MU_S_REPEAT) {
            mu_jw_obj(w);
            mu_jw_kcstr(w, "type", "array");
            mu_jw_ki64(w, "maxItems", MU_QUERY_MAX / 4);
            mu_jw_key(w, "items");
            write_schema(w, s, false);
            mu_jw_obj_end(w);
            mu_jw_kcstr(w, "style", "form");
            mu_jw_kbool(w, "explode", true);
        } else {
            write_schema(w, s, false);
        }
        mu_jw_obj_end(w);
    }
}

static void write_body(struct mu_json_w *w, const struct mu_route *r)
{
    bool required = false;
    for (const struct mu_schema *s = r->body; s->name; s++) {
        required = required || s->flags & MU_S_REQUIRED;
    }
    mu_jw_key(w, "requestBody");
    mu_jw_obj(w);
    mu_jw_kbool(w, "required", required);
    mu_jw_key(w, "content");
    mu_jw_obj(w);
    mu_jw_key(w, "application/json");
    mu_jw_obj(w);
    mu_jw_key(w, "schema");
    mu_jw_obj(w);
    bool closed = r->face == MU_FACE_SESSIONS;
    mu_jw_kcstr(w, "type", "object");
    write_members(w, r->body, closed);
    if (closed) {
        mu_jw_kbool(w, "additionalProperties", false);
    }
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
}

static bool gives(const struct mu_route *r, int status)
{
    if (r->face == MU_FACE_SESSIONS) {
        return mu_codes_give(r, status);
    }
    bool guarded = r->auth != MU_AUTH_NONE;
    mu_bytes rest = mu_str(r->errors);
    while (rest.ptr) {
        int64_t n = 0;
        if (mu_bytes_i64(mu_bytes_split(&rest, ' '), &n) == 0 && n == status) {
            return true;
        }
    }
    switch (status) {
    case 400:
    case 403:
    case 405:
    case 408:
    case 413:
    case 431:
    case 500:
    case 503:
        return true;
    case 401:
    case 429:
        return guarded;
    case 404:
        return strchr(r->path, '{') != NULL;
    case 426:
        return r->flags & MU_ROUTE_WEBSOCKET;
    default:
        return false;
    }
}

static void write_error(struct mu_json_w *w, size_t i, const struct mu_route *r)
{
    char key[4] = {(char)('0' + statuses[i].status / 100),
                   (char)('0' + statuses[i].status / 10 % 10),
                   (char)('0' + statuses[i].status % 10), 0};
    /* a health answer is not an error body: it says what is wrong in its own members */
    bool own = statuses[i].status == 503 && r->response && strcmp(r->response, "Health") == 0;
    mu_jw_key(w, key);
    mu_jw_obj(w);
    mu_jw_kcstr(w, "description", statuses[i].text);
    if (r->face == MU_FACE_SESSIONS) {
        mu_codes_write(w, r, statuses[i].status);
    }
    mu_jw_key(w, "content");
    mu_jw_obj(w);
    mu_jw_key(w, "application/json");
    mu_jw_obj(w);
    mu_jw_key(w, "schema");
    mu_jw_obj(w);
    write_ref(w, own                           ? r->response
                 : r->face == MU_FACE_SESSIONS ? "EnvelopeError"
                 : r->face == MU_FACE_APP      ? "AppError"
                                               : "Error");
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
    if (r->media && strncmp(r->media, "text/html", 9) == 0) { /* a page says it on a page */
        mu_jw_kraw(w, r->media, MU_B("{\"schema\":{\"type\":\"string\"}}"));
    }
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
}

/* The schema of what a route answers. */
static void write_answer(struct mu_json_w *w, const struct mu_route *r)
{
    bool wrapped = r->face == MU_FACE_SESSIONS && !r->media;
    mu_jw_obj(w);
    if (wrapped) {
        mu_jw_kcstr(w, "type", "object");
        mu_jw_kraw(w, "required",
                   r->response ? MU_B("[\"success\",\"data\",\"meta\"]")
                               : MU_B("[\"success\",\"meta\"]"));
        mu_jw_key(w, "properties");
        mu_jw_obj(w);
        mu_jw_kraw(w, "success", MU_B("{\"const\":true}"));
        mu_jw_kraw(w, "meta", MU_B("{\"$ref\":\"#/components/schemas/Meta\"}"));
        if (r->response) {
            mu_jw_key(w, "data");
            mu_jw_obj(w);
        }
    }
    if (r->response) {
        write_ref(w, r->response);
    }
    if (wrapped && r->response) {
        mu_jw_obj_end(w);
    }
    if (wrapped) {
        mu_jw_obj_end(w);
    }
    mu_jw_obj_end(w);
}

static void write_success(struct mu_json_w *w, const struct mu_route *r)
{
    if (r->flags & MU_ROUTE_WEBSOCKET) {
        mu_jw_key(w, "101");
        mu_jw_obj(w);
        mu_jw_kcstr(w, "description", "The connection is a WebSocket now.");
        mu_jw_obj_end(w);
        return;
    }
    mu_bytes rest = mu_str(r->success ? r->success : "200");
    while (rest.ptr) {
        mu_bytes status = mu_bytes_split(&rest, ' ');
        mu_jw_str(w, status);
        mu_buf_add_char(w->buf, ':');
        w->comma = false;
        mu_jw_obj(w);
        mu_jw_kcstr(w, "description", "Done.");
        mu_jw_key(w, "content");
        mu_jw_obj(w);
        mu_jw_key(w, r->media ? r->media : "application/json");
        mu_jw_obj(w);
        mu_jw_key(w, "schema");
        write_answer(w, r);
        mu_jw_obj_end(w);
        mu_jw_obj_end(w);
        mu_jw_obj_end(w);
    }
}

static void write_responses(struct mu_json_w *w, const struct mu_route *r)
{
    mu_jw_key(w, "responses");
    mu_jw_obj(w);
    write_success(w, r);
    for (size_t i = 0; i < MU_ARRAY_LEN(statuses); i++) {
        if (gives(r, statuses[i].status)) {
            write_error(w, i, r);
        }
    }
    mu_jw_obj_end(w);
}

/* `path` is the pattern that is written for the whole node: parameters carry its names. */
static void write_operation(struct mu_json_w *w, const char *method, const struct mu_route *r,
                            const char *path)
{
    mu_jw_key(w, method);
    mu_jw_obj(w);
    if (r->id) {
        mu_jw_kcstr(w, "operationId", r->id);
    }
    if (r->summary) {
        mu_jw_kcstr(w, "summary", r->summary);
    }
    mu_jw_kraw(w, "security",
               r->auth == MU_AUTH_NONE ? MU_B("[]") : MU_B("[{\"bearer\":[]},{\"cookie\":[]}]"));
    mu_jw_key(w, "parameters");
    mu_jw_arr(w);
    write_path_params(w, path);
    write_query_params(w, r->query);
    mu_jw_arr_end(w);
    if (r->body) {
        write_body(w, r);
    }
    write_responses(w, r);
    if (r->describe) {
        r->describe(w);
    }
    mu_jw_obj_end(w);
}

static int write_node(void *arg, const struct mu_node *n)
{
    static const char *const names[] = {
        [MU_HTTP_GET] = "get",     [MU_HTTP_POST] = "post",     [MU_HTTP_PUT] = "put",
        [MU_HTTP_PATCH] = "patch", [MU_HTTP_DELETE] = "delete",
    };
    struct mu_json_w *w = arg;
    mu_jw_key(w, n->first->path);
    mu_jw_obj(w);
    if (n->any) {
        write_operation(w, "get", n->any, n->first->path);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        if (names[i] && n->by_method[i] && !(n->any && i == MU_HTTP_GET)) {
            write_operation(w, names[i], n->by_method[i], n->first->path);
        }
    }
    mu_jw_obj_end(w);
    return w->buf->failed;
}

static void write_components(struct mu_json_w *w, const char *const *components)
{
    for (const char *const *c = components; c && c[0]; c += 2) {
        mu_jw_kraw(w, c[0], mu_str(c[1]));
    }
}

int mu_openapi_write(const struct mu_router *r, const char *server_url,
                     const char *const *const *components, struct mu_buf *dst)
{
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "openapi", "3.1.0");
    mu_jw_kraw(&w, "info",
               MU_B("{\"title\":\"Muster\",\"version\":\"" MU_VERSION
                    "\",\"description\":\"A self-hosted control plane for coding agents.\"}"));
    mu_codes_write_common(&w);
    mu_jw_key(&w, "servers");
    mu_jw_arr(&w);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "url", server_url && server_url[0] ? server_url : "/");
    mu_jw_obj_end(&w);
    mu_jw_arr_end(&w);
    mu_jw_key(&w, "paths");
    mu_jw_obj(&w);
    int failed = mu_router_each(r, write_node, &w);
    mu_jw_obj_end(&w);
    mu_jw_key(&w, "components");
    mu_jw_obj(&w);
    mu_jw_kraw(&w, "securitySchemes",
               MU_B("{\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\"},\"cookie\":{\"type\":"
                    "\"apiKey\",\"in\":\"cookie\",\"name\":\"muster_session\"}}"));
    mu_jw_key(&w, "schemas");
    mu_jw_obj(&w);
    write_components(&w, own_components);
    for (; components && *components; components++) {
        write_components(&w, *components);
    }
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
    return failed ? failed : dst->failed;
}
