/* The request of both wire formats. */
#include <errno.h>

#include "exec/models_int.h"

enum { EXTRA_MAX_BYTES = 64 * 1024, EXTRA_MAX_DEPTH = 32, MAX_HEADERS = 6 };

bool mu_model_member(struct mu_model_body *b, const char *key)
{
    if (mu_json_get(b->extra, key)) {
        return false;
    }
    mu_jw_key(&b->w, key);
    return true;
}

void mu_model_add_message(struct mu_json_w *w, const char *role, mu_bytes text)
{
    mu_jw_obj(w);
    mu_jw_kcstr(w, "role", role);
    mu_jw_kstr(w, "content", text);
    mu_jw_obj_end(w);
}

void mu_model_add_text(struct mu_json_w *w, mu_bytes text)
{
    mu_jw_obj(w);
    mu_jw_kcstr(w, "type", "text");
    mu_jw_kstr(w, "text", text);
    mu_jw_obj_end(w);
}

void mu_model_add_turns(struct mu_json_w *w, const struct mu_model_call *call)
{
    for (size_t i = 0; i < call->n_turns; i++) {
        mu_model_add_message(w, "user", call->turns[i].prompt);
        if (call->turns[i].answer.len) { /* services refuse empty messages */
            mu_model_add_message(w, "assistant", call->turns[i].answer);
        }
    }
}

static void add_extra(struct mu_model_body *b)
{
    yyjson_obj_iter it;
    if (!yyjson_obj_iter_init(b->extra, &it)) {
        return;
    }
    yyjson_val *key;
    while ((key = yyjson_obj_iter_next(&it))) {
        yyjson_val *v = yyjson_obj_iter_get_val(key);
        if (yyjson_is_null(v)) {
            continue; /* says that the member is not to be sent */
        }
        mu_jw_str(&b->w, mu_json_bytes(key));
        mu_buf_add_char(b->w.buf, ':');
        mu_json_add(b->w.buf, v);
    }
}

static int build_body(struct mu_arena *a, const struct mu_model_call *call, mu_bytes *ret,
                      struct mu_err *err)
{
    struct mu_buf buf;
    mu_buf_init(&buf, a->max);
    struct mu_model_body b = {.w = mu_json_w(&buf)};
    if (call->extra_body.len) {
        const struct mu_json_limits limits = {EXTRA_MAX_BYTES, EXTRA_MAX_DEPTH};
        int r = mu_json_read(a, call->extra_body, &limits, &b.extra, err);
        if (r < 0) {
            mu_err_context(err, "extra body");
            return r;
        }
        if (!yyjson_is_obj(b.extra)) {
            return mu_err_set(err, MU_E_INVALID, "extra body: not a JSON object");
        }
    }
    mu_jw_obj(&b.w);
    if (call->wire == MU_WIRE_OPENAI) {
        mu_model_body_openai(&b, call);
    } else {
        mu_model_body_anthropic(&b, call);
    }
    add_extra(&b);
    mu_jw_obj_end(&b.w);
    int r = buf.failed;
    if (r == 0) {
        *ret = mu_arena_dup(a, mu_buf_bytes(&buf));
        r = ret->ptr ? 0 : -ENOMEM;
    }
    mu_buf_fini(&buf);
    return r < 0 ? mu_err_set(err, r, "request body: %s", mu_err_text(r)) : 0;
}

static int build_url(struct mu_arena *a, const struct mu_model_call *call, const char **ret,
                     struct mu_err *err)
{
    bool openai = call->wire == MU_WIRE_OPENAI;
    mu_bytes base = mu_bytes_trim(mu_str(call->base_url));
    if (base.len == 0) {
        if (openai) {
            return mu_err_set(err, MU_E_INVALID, "Provider error: no base URL is configured");
        }
        base = MU_B("https://api.anthropic.com");
    }
    while (base.len && base.ptr[base.len - 1] == '/') {
        base.len--;
    }
    *ret =
        mu_arena_printf(a, "%.*s%s", MU_ARGS(base), openai ? "/chat/completions" : "/v1/messages")
            .ptr;
    return *ret ? 0 : mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
}

/* A key with a line break in it would add headers of its own. */
static bool fits_header(const char *key)
{
    for (const char *p = key; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            return false;
        }
    }
    return true;
}

static int build_headers(struct mu_arena *a, const struct mu_model_call *call,
                         const char *const **ret, struct mu_err *err)
{
    const char **h = mu_arena_calloc(a, MAX_HEADERS * sizeof *h);
    const char *key = call->api_key && call->api_key[0] ? call->api_key : NULL;
    bool anthropic = call->wire == MU_WIRE_ANTHROPIC;
    if (anthropic && !key) {
        return mu_err_set(err, MU_E_INVALID, "Anthropic error: no API key is configured");
    }
    if (key && !fits_header(key)) {
        return mu_err_set(err, MU_E_INVALID, "%s error: the API key contains control characters",
                          anthropic ? "Anthropic" : "Provider");
    }
    if (!h) {
        return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    size_t n = 0;
    h[n++] = "Content-Type: application/json";
    if (key) {
        const char *fmt = anthropic ? "x-api-key: " : "Authorization: Bearer ";
        h[n] = mu_arena_printf(a, "%s%s", fmt, key).ptr;
        if (!h[n++]) {
            return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
        }
    }
    if (anthropic) {
        h[n++] = "anthropic-version: 2023-06-01";
        if (call->stream) {
            h[n++] = "Accept: text/event-stream";
        }
    }
    *ret = h;
    return 0;
}

int mu_model_post(struct mu_arena *a, const struct mu_model_call *call, struct mu_model_post *ret,
                  struct mu_err *err)
{
    struct mu_model_post post = {0};
    struct mu_err own; /* callers may pass NULL, context is added all the same */
    err = err ? err : &own;
    int r = build_url(a, call, &post.url, err);
    if (r == 0) {
        r = build_headers(a, call, &post.headers, err);
    }
    if (r == 0) {
        r = build_body(a, call, &post.body, err);
    }
    if (r == 0) {
        *ret = post;
    }
    return r;
}
