/* The codes of the sessions face's errors (village-control-plane.md 3.6), and which of them a route
 * can answer: openapi.json names them, and tests/e2e/conformance provokes each. */
#include "face/api/api_int.h"

enum { ANY_REQUEST = 1 /* of every request that reaches a route */ };

/* What no route can rule out (the database is away, a bug), apart from what its own rules say. */
static const char *const common[] = {"INTERNAL_ERROR", "UNAVAILABLE"};

static const struct {
    const char *code;
    int status;
    unsigned flags;
} codes[] = {
    {"VALIDATION_ERROR", 400, ANY_REQUEST},
    {"INVALID_PROVIDER", 400, 0},
    {"UNAUTHORIZED", 401, 0},
    {"FORBIDDEN", 403, ANY_REQUEST}, /* a Host or an Origin that is not allowed */
    {"NOT_FOUND", 404, 0},
    {"SESSION_NOT_FOUND", 404, 0},
    {"APPROVAL_NOT_FOUND", 404, 0},
    {"PROMPT_NOT_FOUND", 404, 0},
    {"CHECKPOINT_NOT_FOUND", 404, 0},
    {"RUNNER_NOT_FOUND", 404, 0},
    {"ENROLMENT_NOT_FOUND", 404, 0},
    {"METHOD_NOT_ALLOWED", 405, ANY_REQUEST},
    {"TIMEOUT", 408, ANY_REQUEST},
    {"SESSION_ALREADY_STOPPED", 409, 0},
    {"INVALID_STATE", 409, 0},
    {"APPROVAL_ALREADY_RESOLVED", 409, 0},
    {"RUNNER_HAS_ACTIVE_SESSIONS", 409, 0},
    {"RUNNER_CONFLICT", 409, 0},
    {"IDEMPOTENCY_CONFLICT", 409, 0},
    {"PAYLOAD_TOO_LARGE", 413, 0},
    {"UPGRADE_REQUIRED", 426, 0},
    {"SESSION_LIMIT_EXCEEDED", 429, 0},
    {"PROMPT_LIMIT_EXCEEDED", 429, 0},
    {"RUNNER_LIMIT_EXCEEDED", 429, 0},
    {"WORKER_CONNECTED", 429, 0},
    {"RATE_LIMITED", 429, 0},
    {"HEADERS_TOO_LARGE", 431, ANY_REQUEST},
    {"RUNNER_UNREACHABLE", 503, 0},
    {"UNAVAILABLE", 503, 0},
    {"SHUTTING_DOWN", 503, ANY_REQUEST},
};

static bool listed(const char *list, const char *code)
{
    mu_bytes rest = mu_str(list);
    while (rest.ptr) {
        if (mu_bytes_is(mu_bytes_split(&rest, ' '), code)) {
            return true;
        }
    }
    return false;
}

/* What the layers before the handler answer. */
static bool by_rule(const struct mu_route *r, const char *code)
{
    /* workers' credentials are not counted */
    return (r->auth != MU_AUTH_NONE && strcmp(code, "UNAUTHORIZED") == 0) ||
           (r->auth == MU_AUTH_TENANT && strcmp(code, "RATE_LIMITED") == 0) ||
           (r->flags & MU_ROUTE_WRITES && strcmp(code, "UNAVAILABLE") == 0) ||
           strcmp(code, r->flags & MU_ROUTE_WEBSOCKET ? "UPGRADE_REQUIRED" : "PAYLOAD_TOO_LARGE") ==
               0;
}

static bool gives(const struct mu_route *r, size_t i)
{
    return codes[i].flags & ANY_REQUEST || by_rule(r, codes[i].code) ||
           listed(r->errors, codes[i].code);
}

bool mu_codes_known(const struct mu_route *r, mu_bytes *ret_unknown)
{
    mu_bytes rest = mu_str(r->errors);
    while (rest.ptr) {
        bool known = false;
        *ret_unknown = mu_bytes_split(&rest, ' ');
        for (size_t i = 0; i < MU_ARRAY_LEN(codes); i++) {
            known = known || mu_bytes_is(*ret_unknown, codes[i].code);
        }
        if (!known && ret_unknown->len) {
            return false;
        }
    }
    return true;
}

bool mu_codes_give(const struct mu_route *r, int status)
{
    bool any = status == 500 || status == 503; /* common */
    for (size_t i = 0; i < MU_ARRAY_LEN(codes); i++) {
        any = any || (codes[i].status == status && gives(r, i));
    }
    return any;
}

void mu_codes_write(struct mu_json_w *w, const struct mu_route *r, int status)
{
    bool some = false;
    for (size_t i = 0; i < MU_ARRAY_LEN(codes); i++) {
        if (codes[i].status != status || !gives(r, i)) {
            continue;
        }
        if (!some) {
            mu_jw_key(w, "x-codes");
            mu_jw_arr(w);
            some = true;
        }
        mu_jw_str(w, mu_str(codes[i].code));
    }
    if (some) {
        mu_jw_arr_end(w);
    }
}

void mu_codes_write_common(struct mu_json_w *w)
{
    mu_jw_key(w, "x-common-codes");
    mu_jw_arr(w);
    for (size_t i = 0; i < MU_ARRAY_LEN(common); i++) {
        mu_jw_str(w, mu_str(common[i]));
    }
    mu_jw_arr_end(w);
}
