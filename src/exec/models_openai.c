/* The OpenAI-compatible wire format (oz-providers.md 6.2). */
#include "exec/models_int.h"
#include "exec/tokens_int.h"

static void add_image(struct mu_json_w *w, const struct mu_model_image *image)
{
    mu_jw_obj(w);
    mu_jw_kcstr(w, "type", "image_url");
    mu_jw_key(w, "image_url");
    mu_jw_obj(w);
    /* mime type and base64 are our own words: nothing in them needs an escape, but a caller's
     * mistake must not break the document */
    struct mu_buf url;
    mu_buf_init(&url, image->base64.len + image->mime_type.len + 16);
    mu_buf_add(&url, MU_B("data:"));
    mu_buf_add(&url, image->mime_type);
    mu_buf_add(&url, MU_B(";base64,"));
    mu_buf_add(&url, image->base64);
    mu_jw_kstr(w, "url", mu_buf_bytes(&url));
    if (url.failed) {
        w->buf->failed = url.failed;
    }
    mu_buf_fini(&url);
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
}

static void add_prompt(struct mu_json_w *w, const struct mu_model_call *call)
{
    if (call->n_images == 0) {
        mu_model_add_message(w, "user", call->prompt);
        return;
    }
    mu_jw_obj(w);
    mu_jw_kcstr(w, "role", "user");
    mu_jw_key(w, "content");
    mu_jw_arr(w);
    mu_model_add_text(w, call->prompt);
    for (size_t i = 0; i < call->n_images; i++) {
        add_image(w, &call->images[i]);
    }
    mu_jw_arr_end(w);
    mu_jw_obj_end(w);
}

void mu_model_body_openai(struct mu_model_body *b, const struct mu_model_call *call)
{
    struct mu_json_w *w = &b->w;
    if (mu_model_member(b, "model")) {
        mu_jw_str(w, call->model);
    }
    if (mu_model_member(b, "messages")) {
        mu_jw_arr(w);
        if (call->system.len) {
            mu_model_add_message(w, "system", call->system);
        }
        mu_model_add_turns(w, call);
        add_prompt(w, call);
        mu_jw_arr_end(w);
    }
    if (call->stream) {
        if (mu_model_member(b, "stream")) {
            mu_jw_bool(w, true);
        }
        if (mu_model_member(b, "stream_options")) {
            mu_jw_raw(w, MU_B("{\"include_usage\":true}"));
        }
    }
    if (call->has_temperature && mu_model_member(b, "temperature")) {
        mu_jw_real(w, call->temperature);
    }
    if (call->max_tokens > 0 && mu_model_member(b, "max_tokens")) {
        mu_jw_i64(w, call->max_tokens);
    }
}

static void read_usage(struct mu_model_reader *r, yyjson_val *root)
{
    yyjson_val *usage = mu_json_get(root, "usage");
    int64_t in = mu_token_count(usage, "prompt_tokens");
    int64_t out = mu_token_count(usage, "completion_tokens");
    r->answer.tokens_in = in > 0 ? in : r->answer.tokens_in;
    r->answer.tokens_out = out > 0 ? out : r->answer.tokens_out;
}

static void read_finish(struct mu_model_reader *r, yyjson_val *choice)
{
    mu_bytes reason = mu_json_get_bytes(choice, "finish_reason");
    if (reason.len) {
        r->answer.truncated = mu_bytes_is(reason, "length");
        mu_model_finish(r, reason);
    }
}

static void on_event(struct mu_model_reader *r, mu_bytes event MU_UNUSED, yyjson_val *root)
{
    if (mu_model_has_error(r, root)) {
        return;
    }
    yyjson_val *choice = yyjson_arr_get_first(mu_json_get(root, "choices"));
    mu_model_deliver_content(r, mu_json_get(mu_json_get(choice, "delta"), "content"));
    read_finish(r, choice);
    read_usage(r, root);
}

static bool on_answer(struct mu_model_reader *r, yyjson_val *root)
{
    if (mu_model_has_error(r, root)) {
        return true;
    }
    yyjson_val *choice = yyjson_arr_get_first(mu_json_get(root, "choices"));
    read_finish(r, choice);
    read_usage(r, root);
    return mu_model_deliver_content(r, mu_json_get(mu_json_get(choice, "message"), "content"));
}

const struct mu_model_format mu_model_openai = {
    .error_prefix = "Provider error:",
    .limited_prefix = "Provider rate limited:",
    .text_member = "choices[0].message.content",
    .on_event = on_event,
    .on_answer = on_answer,
};
