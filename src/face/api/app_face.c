/* The errors of /api/… outside /api/v1 (specification README 3, agent-ops.md 4): {error, code,
 * details?, field?, requestId}. */
#include <ctype.h>

#include "face/api/api_int.h"

/* The words of the Oz face, and what this one says; all others in upper case. */
static const struct {
    const char *oz, *ours;
    int status; /* 0: the same */
} words[] = {
    {"missing_field", "VALIDATION_ERROR", 0},        {"invalid_field", "VALIDATION_ERROR", 400},
    {"invalid_json", "VALIDATION_ERROR", 0},         {"invalid_url", "VALIDATION_ERROR", 0},
    {"bad_request", "INVALID_REQUEST", 0},           {"payload_too_large", "INVALID_REQUEST", 0},
    {"too_many_requests", "RATE_LIMIT_EXCEEDED", 0}, {"internal", "INTERNAL_ERROR", 0},
};

int mu_app_error(struct mu_call *c, int status, const char *code, const char *field,
                 mu_bytes message, mu_bytes retry)
{
    char upper[64];
    size_t n = 0;
    for (; code[n] && n < sizeof upper - 1; n++) {
        upper[n] = (char)toupper((unsigned char)code[n]);
    }
    upper[n] = 0;
    const char *name = upper;
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        if (strcmp(code, words[i].oz) == 0) {
            name = words[i].ours;
            status = words[i].status ? words[i].status : status;
        }
    }
    mu_buf_clear(&c->buf);
    struct mu_json_w w = mu_json_w(&c->buf);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "error", message);
    mu_jw_kcstr(&w, "code", name);
    if (field) {
        mu_jw_kcstr(&w, "field", field);
        mu_jw_key(&w, "details");
        mu_jw_arr(&w);
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "path", field);
        mu_jw_kstr(&w, "message", message);
        mu_jw_obj_end(&w);
        mu_jw_arr_end(&w);
    } else if (status == 429 && retry.len) {
        mu_jw_key(&w, "details");
        mu_jw_obj(&w);
        mu_jw_kraw(&w, "retryAfter", retry);
        mu_jw_obj_end(&w);
    }
    mu_jw_kstr(&w, "requestId", c->request_id);
    mu_jw_obj_end(&w);
    return status;
}
