/* The Anthropic wire format (oz-providers.md 6.3). */
#include "exec/models_int.h"
#include "exec/tokens_int.h"

enum { DEFAULT_MAX_TOKENS = 2048 };

static void add_image(struct mu_json_w *w, const struct mu_model_image *image)
{
    mu_jw_obj(w);
    mu_jw_kcstr(w, "type", "image");
    mu_jw_key(w, "source");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "type", "base64");
    mu_jw_kstr(w, "media_type", image->mime_type);
    mu_jw_kstr(w, "data", image->base64);
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
    for (size_t i = 0; i < call->n_images; i++) {
        add_image(w, &call->images[i]);
    }
    mu_model_add_text(w, call->prompt);
    mu_jw_arr_end(w);
    mu_jw_obj_end(w);
}

void mu_model_body_anthropic(struct mu_model_body *b, const struct mu_model_call *call)
{
    struct mu_json_w *w = &b->w;
    if (mu_model_member(b, "model")) {
        mu_jw_str(w, call->model);
    }
    if (mu_model_member(b, "messages")) {
        mu_jw_arr(w);
        mu_model_add_turns(w, call);
        add_prompt(w, call);
        mu_jw_arr_end(w);
    }
    if (mu_model_member(b, "max_tokens")) {
        mu_jw_i64(w, call->max_tokens > 0 ? call->max_tokens : DEFAULT_MAX_TOKENS);
    }
    if (call->stream && mu_model_member(b, "stream")) {
        mu_jw_bool(w, true);
    }
    if (call->system.len && mu_model_member(b, "system")) {
        mu_jw_str(w, call->system);
    }
    if (call->has_temperature && mu_model_member(b, "temperature")) {
        mu_jw_real(w, call->temperature);
    }
}

static void read_usage(struct mu_model_reader *r, yyjson_val *usage)
{
    int64_t in = mu_token_count(usage, "input_tokens") +
                 mu_token_count(usage, "cache_creation_input_tokens") +
                 mu_token_count(usage, "cache_read_input_tokens");
    int64_t out = mu_token_count(usage, "output_tokens");
    r->answer.tokens_in = in > 0 ? in : r->answer.tokens_in;
    r->answer.tokens_out = out > 0 ? out : r->answer.tokens_out;
}

static void read_stop(struct mu_model_reader *r, yyjson_val *obj)
{
    mu_bytes reason = mu_json_get_bytes(obj, "stop_reason");
    if (reason.len) {
        r->answer.truncated = mu_bytes_is(reason, "max_tokens") ||
                              mu_bytes_is(reason, "model_context_window_exceeded");
        mu_model_finish(r, reason);
    }
}

static void on_event(struct mu_model_reader *r, mu_bytes event, yyjson_val *root)
{
    mu_bytes type = event.len ? event : mu_json_get_bytes(root, "type");
    if (mu_bytes_is(type, "content_block_delta")) {
        mu_model_deliver(r, mu_json_get_bytes(mu_json_get(root, "delta"), "text"));
    } else if (mu_bytes_is(type, "message_start")) {
        read_usage(r, mu_json_get(mu_json_get(root, "message"), "usage"));
    } else if (mu_bytes_is(type, "message_delta")) {
        read_usage(r, mu_json_get(root, "usage"));
        read_stop(r, mu_json_get(root, "delta"));
    } else if (mu_bytes_is(type, "message_stop")) {
        r->terminal = true;
        mu_sse_stop(&r->sse);
    } else if (mu_bytes_is(type, "error")) {
        yyjson_val *error = mu_json_get(root, "error");
        mu_model_upstream_error(r, error ? error : root);
    }
}

static bool on_answer(struct mu_model_reader *r, yyjson_val *root)
{
    if (mu_model_has_error(r, root)) {
        return true;
    }
    yyjson_val *content = mu_json_get(root, "content");
    read_usage(r, mu_json_get(root, "usage"));
    read_stop(r, root);
    return yyjson_is_arr(content) && mu_model_deliver_content(r, content);
}

const struct mu_model_format mu_model_anthropic = {
    .error_prefix = "Anthropic error:",
    .limited_prefix = "Anthropic rate limited:",
    .text_member = "content",
    .on_event = on_event,
    .on_answer = on_answer,
};
