/* The four formats (real-parts.md 1-4). Unknown types and members are ignored: agents add them with
 * every release. */
#include "exec/cliformat_int.h"
#include "exec/tokens_int.h"

/* The first member that is a text. */
static mu_bytes text_of(yyjson_val *obj, const char *a, const char *b)
{
    mu_bytes text = mu_json_get_bytes(obj, a);
    return text.len ? text : mu_json_get_bytes(obj, b);
}

/* An error as a string, {message}, {data:{message}} or {name}. */
static mu_bytes error_text(yyjson_val *error)
{
    mu_bytes text = mu_json_bytes(error);
    if (!text.len) {
        text = mu_json_get_bytes(error, "message");
    }
    if (!text.len) {
        text = mu_json_get_bytes(mu_json_get(error, "data"), "message");
    }
    if (!text.len) {
        text = text_of(error, "name", "type");
    }
    return text.len ? text : MU_B("the agent reported an error");
}

static bool same_part(const struct mu_cli_reader *r, mu_bytes id)
{
    return id.len && mu_bytes_is(id, r->part);
}

static void set_part(struct mu_cli_reader *r, mu_bytes id)
{
    bool fits = id.len && id.len < sizeof r->part;
    if (fits) {
        memcpy(r->part, id.ptr, id.len);
    }
    r->part[fits ? id.len : 0] = 0;
}

/* --- Claude Code --- */

static void claude_stream(struct mu_cli_reader *r, yyjson_val *event)
{
    mu_bytes type = mu_json_get_bytes(event, "type");
    if (mu_bytes_is(type, "message_start")) {
        set_part(r, mu_json_get_bytes(mu_json_get(event, "message"), "id"));
        mu_cli_message_begins(r);
    } else if (mu_bytes_is(type, "content_block_start")) {
        mu_cli_message_begins(r);
    } else if (mu_bytes_is(type, "content_block_delta")) {
        yyjson_val *delta = mu_json_get(event, "delta");
        if (mu_bytes_is(mu_json_get_bytes(delta, "type"), "text_delta")) {
            mu_cli_deliver_delta(r, mu_json_get_bytes(delta, "text"));
        }
    }
}

static void claude_message(struct mu_cli_reader *r, yyjson_val *message)
{
    yyjson_val *content = mu_json_get(message, "content");
    mu_bytes id = mu_json_get_bytes(message, "id");
    if (id.len && r->part[0] && !same_part(r, id)) {
        mu_cli_message_begins(r); /* not the message whose pieces came before */
    }
    if (yyjson_is_str(content)) {
        mu_cli_deliver_whole(r, mu_json_bytes(content));
        return;
    }
    yyjson_arr_iter it;
    if (!yyjson_arr_iter_init(content, &it)) {
        return;
    }
    yyjson_val *block;
    while ((block = yyjson_arr_iter_next(&it))) {
        if (mu_bytes_is(mu_json_get_bytes(block, "type"), "text")) {
            mu_cli_deliver_whole(r, mu_json_get_bytes(block, "text"));
        }
    }
}

static void claude_result(struct mu_cli_reader *r, yyjson_val *line)
{
    struct mu_cli_verdict *v = &r->verdict;
    yyjson_val *usage = mu_json_get(line, "usage"), *text = mu_json_get(line, "result");
    mu_bytes subtype = mu_json_get_bytes(line, "subtype");
    v->tokens_in = mu_token_count(usage, "input_tokens") +
                   mu_token_count(usage, "cache_creation_input_tokens") +
                   mu_token_count(usage, "cache_read_input_tokens");
    v->tokens_out = mu_token_count(usage, "output_tokens");
    v->denied = (int)MU_MIN(yyjson_arr_size(mu_json_get(line, "permission_denials")), (size_t)9999);
    v->truncated = mu_bytes_is(mu_json_get_bytes(line, "stop_reason"), "max_tokens");
    bool error = mu_json_get_bool(line, "is_error", !mu_bytes_is(subtype, "success"));
    mu_buf_clear(&r->answer);
    r->has_answer = false;
    if (error) {
        mu_bytes why = mu_json_bytes(text);
        mu_cli_failed(r, why.len       ? why
                         : subtype.len ? subtype
                                       : MU_B("the agent reported an error"));
    } else {
        mu_cli_recovered(r);
        mu_buf_add(&r->answer, mu_json_bytes(text));
        r->has_answer = yyjson_is_str(text);
        r->failed = r->failed ? r->failed : r->answer.failed;
    }
}

void mu_cli_claude_line(struct mu_cli_reader *r, yyjson_val *line)
{
    mu_bytes type = mu_json_get_bytes(line, "type");
    /* words of a subagent are said to the agent, not to us */
    bool inner = mu_json_get_bytes(line, "parent_tool_use_id").len > 0;
    mu_cli_session(r, mu_json_get_bytes(line, "session_id"));
    if (mu_bytes_is(type, "stream_event")) {
        if (!inner) {
            claude_stream(r, mu_json_get(line, "event"));
        }
    } else if (mu_bytes_is(type, "assistant")) {
        if (!inner) {
            claude_message(r, mu_json_get(line, "message"));
        }
    } else if (mu_bytes_is(type, "result")) {
        claude_result(r, line);
    }
}

/* --- Codex --- */

void mu_cli_codex_line(struct mu_cli_reader *r, yyjson_val *line)
{
    mu_bytes type = mu_json_get_bytes(line, "type");
    yyjson_val *item = mu_json_get(line, "item"), *usage = mu_json_get(line, "usage");
    if (mu_bytes_is(type, "thread.started")) {
        mu_cli_session(r, mu_json_get_bytes(line, "thread_id"));
    } else if (mu_bytes_is(type, "item.completed")) {
        mu_bytes kind = text_of(item, "type", "item_type");
        if (mu_bytes_is(kind, "agent_message") || mu_bytes_is(kind, "assistant_message")) {
            mu_cli_deliver_whole(r, mu_json_get_bytes(item, "text"));
        }
    } else if (mu_bytes_is(type, "turn.completed")) {
        r->verdict.tokens_in += mu_token_count(usage, "input_tokens");
        r->verdict.tokens_out += mu_token_count(usage, "output_tokens");
        mu_cli_recovered(r);
    } else if (mu_bytes_is(type, "turn.failed")) {
        mu_cli_failed(r, error_text(mu_json_get(line, "error")));
    } else if (mu_bytes_is(type, "error")) {
        /* also said before each reconnection; a turn that completes takes it back */
        mu_cli_failed(r, error_text(line));
    }
}

/* --- OpenCode --- */

static void opencode_text(struct mu_cli_reader *r, yyjson_val *part, mu_bytes text)
{
    mu_bytes id = mu_json_get_bytes(part, "id");
    /* the same part may come again when it grew */
    if (!same_part(r, id)) {
        set_part(r, id);
        mu_cli_message_begins(r);
    }
    if (r->streamed && text.len >= r->streamed) {
        text = mu_bytes_from(text, r->streamed);
    }
    mu_cli_deliver_delta(r, text);
}

void mu_cli_opencode_line(struct mu_cli_reader *r, yyjson_val *line)
{
    mu_bytes type = mu_json_get_bytes(line, "type");
    yyjson_val *part = mu_json_get(line, "part");
    mu_cli_session(r, text_of(line, "sessionID", "session_id"));
    if (mu_bytes_is(type, "text")) {
        mu_bytes text = mu_json_get_bytes(part, "text");
        opencode_text(r, part, text.ptr ? text : mu_json_get_bytes(line, "text"));
    } else if (mu_bytes_is(type, "step_finish")) {
        yyjson_val *tokens = mu_json_get(part, "tokens"), *cache = mu_json_get(tokens, "cache");
        r->verdict.tokens_in += mu_token_count(tokens, "input") + mu_token_count(cache, "read") +
                                mu_token_count(cache, "write");
        r->verdict.tokens_out += mu_token_count(tokens, "output");
        r->verdict.truncated = mu_bytes_is(mu_json_get_bytes(part, "reason"), "length");
    } else if (mu_bytes_is(type, "error")) {
        yyjson_val *error = mu_json_get(line, "error");
        mu_cli_failed(r, error_text(error ? error : line));
    }
}

/* --- Gemini --- */

static void gemini_result(struct mu_cli_reader *r, yyjson_val *line)
{
    yyjson_val *stats = mu_json_get(line, "stats"), *error = mu_json_get(line, "error");
    r->verdict.tokens_in = mu_token_count(stats, "input_tokens");
    r->verdict.tokens_out = mu_token_count(stats, "output_tokens");
    mu_bytes status = mu_json_get_bytes(line, "status");
    if (yyjson_is_obj(error) || yyjson_is_str(error)) {
        mu_cli_failed(r, error_text(error));
    } else if (status.len && !mu_bytes_is(status, "success")) {
        mu_bytes said = mu_str(r->verdict.text); /* an error line may have come before */
        mu_cli_failed(r, said.len ? said : status);
    } else {
        mu_cli_recovered(r);
    }
}

void mu_cli_gemini_line(struct mu_cli_reader *r, yyjson_val *line)
{
    mu_bytes type = mu_json_get_bytes(line, "type");
    if (mu_bytes_is(type, "init")) {
        mu_cli_session(r, mu_json_get_bytes(line, "session_id"));
    } else if (mu_bytes_is(type, "message")) {
        mu_bytes role = mu_json_get_bytes(line, "role"), text = mu_json_get_bytes(line, "content");
        if (mu_bytes_is(role, "user")) {
            mu_cli_message_begins(r);
        } else if (mu_json_get_bool(line, "delta", false)) {
            mu_cli_deliver_delta(r, text);
        } else {
            mu_cli_deliver_whole(r, text);
        }
    } else if (mu_bytes_is(type, "tool_use") || mu_bytes_is(type, "tool_result")) {
        mu_cli_message_begins(r);
    } else if (mu_bytes_is(type, "result")) {
        gemini_result(r, line);
    } else if (mu_bytes_is(type, "error")) {
        if (!mu_bytes_is(mu_json_get_bytes(line, "severity"), "warning")) {
            yyjson_val *error = mu_json_get(line, "error");
            mu_cli_failed(r, error_text(error ? error : line));
        }
    }
}
