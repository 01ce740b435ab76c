/* The envelope of the sessions face (village-control-plane.md 3.1): one object around every answer,
 * errors included, and all problems of a request at once (3.4). */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "face/api/api_int.h"

enum { TEXT_MAX = 512, CODE_MAX = 64 };

const char mu_envelope_bare[] =
    "{\"success\":false,\"error\":{\"code\":\"UNAVAILABLE\",\"message\":"
    "\"Out of memory\"}}";

/* --- whose path it is (specification README 3) --- */

enum mu_api_face mu_face_of(mu_bytes path)
{
    static const char *const firsts[] = {"sessions", "approvals", "runners",   "runner-enrolments",
                                         "builds",   "rollouts",  "orgs",      "sweeps",
                                         "updates",  "ws",        "ws-tickets"};
    if (!mu_path_is_api(path)) {
        return mu_bytes_starts(path, MU_B("/api/")) ? MU_FACE_APP : MU_FACE_ROOT;
    }
    mu_bytes rest = mu_bytes_from(path, strlen("/api/v1/"));
    mu_bytes first = mu_bytes_split(&rest, '/');
    for (size_t i = 0; i < MU_ARRAY_LEN(firsts); i++) {
        if (mu_bytes_is(first, firsts[i])) {
            return MU_FACE_SESSIONS;
        }
    }
    return mu_bytes_is(first, "providers") && rest.len ? MU_FACE_SESSIONS : MU_FACE_OZ;
}

/* --- issues --- */

int mu_issues_add(struct mu_issues *issues, struct mu_arena *a, const char *code, mu_bytes path,
                  mu_bytes message)
{
    if (issues->n == MU_ISSUES_MAX) {
        return MU_E_LIMIT;
    }
    mu_bytes p = mu_arena_dup(a, path), m = mu_arena_dup(a, message);
    if (!p.ptr || !m.ptr) {
        return -ENOMEM;
    }
    issues->list[issues->n].path = p;
    issues->list[issues->n].message = m;
    issues->list[issues->n++].code = code;
    return 0;
}

static int make_issues(struct mu_call *c)
{
    if (!c->issues) {
        c->issues = mu_arena_calloc(mu_call_arena(c), sizeof *c->issues);
    }
    return c->issues ? 0 : -ENOMEM;
}

void mu_call_issue(struct mu_call *c, const char *code, const char *path, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || make_issues(c) < 0 ||
        mu_issues_add(c->issues, mu_call_arena(c), code, mu_str(path), mu_str(text)) == -ENOMEM) {
        c->no_memory = true; /* answered by mu_call_refused() */
    }
}

static void add_issue(struct mu_json_w *w, mu_bytes path, const char *code, mu_bytes message)
{
    mu_jw_obj(w);
    mu_jw_kstr(w, "path", path);
    mu_jw_kcstr(w, "code", code);
    mu_jw_kstr(w, "message", message);
    mu_jw_obj_end(w);
}

static void add_issues(struct mu_buf *b, const struct mu_issues *issues)
{
    struct mu_json_w w = mu_json_w(b);
    mu_jw_obj(&w);
    mu_jw_key(&w, "issues");
    mu_jw_arr(&w);
    for (size_t i = 0; i < issues->n; i++) {
        add_issue(&w, issues->list[i].path, issues->list[i].code, issues->list[i].message);
    }
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
}

bool mu_call_refused(struct mu_call *c)
{
    if (c->no_memory) {
        mu_call_fail(c, -ENOMEM);
        return true;
    }
    if (!c->issues || c->issues->n == 0) {
        return false;
    }
    struct mu_buf details;
    mu_buf_init(&details, 1 << 20);
    add_issues(&details, c->issues);
    if (details.failed) {
        mu_call_fail(c, -ENOMEM);
    } else {
        mu_call_error_details(
            c, 400, "VALIDATION_ERROR", mu_buf_bytes(&details), "The request is not valid: %.*s%s",
            MU_ARGS(c->issues->list[0].message), c->issues->n > 1 ? " (and more)" : "");
    }
    mu_buf_fini(&details);
    return true;
}

/* --- the object --- */

static void add_meta(struct mu_call *c)
{
    const struct mu_env *env = c->api->env;
    int64_t us = env->mono_ns(env) / 1000 - mu_http_req_started_us(c->req);
    struct mu_json_w w = {&c->buf, true};
    mu_jw_key(&w, "meta");
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "requestId", c->request_id);
    mu_jw_ktime(&w, "timestamp", mu_env_wall_ms(env));
    mu_jw_ki64(&w, "duration", MU_MAX(us, 0) / 1000);
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
}

struct mu_json_w mu_call_data(struct mu_call *c)
{
    mu_buf_clear(&c->buf);
    struct mu_json_w w = mu_json_w(&c->buf);
    mu_jw_obj(&w);
    mu_jw_kbool(&w, "success", true);
    mu_jw_key(&w, "data");
    return w;
}

void mu_call_data_send(struct mu_call *c, int status, const struct mu_http_pair *headers, size_t n)
{
    add_meta(c);
    mu_answer(c, status, "application/json; charset=utf-8", headers, n);
}

void mu_call_done(struct mu_call *c)
{
    mu_buf_clear(&c->buf);
    struct mu_json_w w = mu_json_w(&c->buf);
    mu_jw_obj(&w);
    mu_jw_kbool(&w, "success", true);
    mu_call_data_send(c, 200, NULL, 0);
}

/* --- errors --- */

static void add_error(struct mu_call *c, const char *code, mu_bytes message, mu_bytes details)
{
    mu_buf_clear(&c->buf);
    struct mu_json_w w = mu_json_w(&c->buf);
    mu_jw_obj(&w);
    mu_jw_kbool(&w, "success", false);
    mu_jw_key(&w, "error");
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "code", code);
    mu_jw_kstr(&w, "message", message);
    if (details.len) {
        mu_jw_kraw(&w, "details", details);
    }
    mu_jw_obj_end(&w);
    add_meta(c);
}

void mu_call_error_details(struct mu_call *c, int status, const char *code, mu_bytes details,
                           const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    add_error(c, code, n < 0 ? MU_B("") : mu_str(text), details);
    const struct mu_http_pair no_retry = {"X-Should-Retry", MU_B("false")};
    mu_answer(c, status, "application/json; charset=utf-8", &no_retry, status == 409);
}

/* The words of the Oz face for what is refused before a handler, and what this one says. */
static const struct {
    const char *oz, *ours, *issue;
    int status; /* 0: the same */
} words[] = {
    {"missing_field", "VALIDATION_ERROR", "required", 0},
    {"invalid_field", "VALIDATION_ERROR", "invalid_format", 400},
    {"invalid_json", "VALIDATION_ERROR", "invalid_format", 0},
    {"bad_request", "VALIDATION_ERROR", "invalid_format", 0},
    {"too_many_requests", "RATE_LIMITED", NULL, 0},
    {"internal", "INTERNAL_ERROR", NULL, 0},
};

int mu_envelope_error(struct mu_call *c, int status, const char *code, const char *field,
                      mu_bytes message)
{
    char upper[CODE_MAX];
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        if (strcmp(code, words[i].oz) != 0) {
            continue;
        }
        struct mu_buf details;
        mu_buf_init(&details, 64 << 10);
        if (words[i].issue) {
            mu_buf_add_str(&details, "{\"issues\":[");
            struct mu_json_w w = mu_json_w(&details);
            add_issue(&w, mu_str(field), words[i].issue, message);
            mu_buf_add_str(&details, "]}");
        }
        add_error(c, words[i].ours, message, mu_buf_bytes(&details));
        c->buf.failed = c->buf.failed ? c->buf.failed : details.failed;
        mu_buf_fini(&details);
        return words[i].status ? words[i].status : status;
    }
    size_t n = 0;
    for (; code[n] && n < sizeof upper - 1; n++) {
        upper[n] = (char)toupper((unsigned char)code[n]);
    }
    upper[n] = 0;
    add_error(c, upper, message, MU_B_NONE);
    return status;
}

/* --- query and body --- */

static int take_query(struct mu_call *c)
{
    if (!c->route->query) {
        return 0;
    }
    c->query = mu_arena_alloc(mu_call_arena(c), MU_QUERY_MAX * sizeof *c->query);
    return c->query ? mu_schema_query_all(c->route->query, mu_call_arena(c),
                                          mu_http_req_head(c->req)->query, c->query, &c->n_query,
                                          c->issues)
                    : -ENOMEM;
}

static int take_body(struct mu_call *c)
{
    struct mu_err err = {0};
    int r = mu_call_read_body(c, &err);
    if (r == MU_E_INVALID) {
        mu_call_issue(c, "invalid_format", "", "the body is no JSON: %s", err.text);
        return 0;
    }
    return r < 0 || !c->route->body
               ? r
               : mu_schema_check_all(c->route->body, c->body, mu_call_arena(c), c->issues);
}

bool mu_envelope_take(struct mu_call *c)
{
    int r = make_issues(c);
    if (r == 0) {
        r = take_query(c);
    }
    if (r == 0) {
        r = take_body(c);
    }
    if (r == MU_E_TOO_LARGE) {
        return false;
    }
    if (r < 0) {
        mu_call_fail(c, r);
        return false;
    }
    bool object = !c->route->body || !c->body || yyjson_is_obj(c->body);
    if (c->route->check && object && c->issues->n < MU_ISSUES_MAX) {
        c->route->check(c);
    }
    return !mu_call_refused(c);
}
