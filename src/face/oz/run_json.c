/* The run object as the SDKs read it. Runs on reader threads. */
#include <fnmatch.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/oz/oz_int.h"

const char *mu_oz_state(int state, int outcome)
{
    switch (outcome) {
    case MU_OUT_FINISHED:
        return "SUCCEEDED";
    case MU_OUT_CANCELLED:
        return "CANCELLED";
    case MU_OUT_FAILED:
    case MU_OUT_TIMED_OUT:
        return "FAILED";
    default:
        break;
    }
    return state == 20   ? "QUEUED"
           : state == 22 ? "PENDING"
           : state == 30 ? "CLAIMED"
           : state == 80 ? "CANCELLED"
                         : "INPROGRESS";
}

static const char *const sources[] = {
    NULL,      "LOCAL",         "API",        "LINEAR", "SLACK", "SCHEDULED_AGENT",
    "WEB_APP", "GITHUB_ACTION", "CLOUD_MODE", "CLI"};

const char *mu_oz_source(int source)
{
    return source > 0 && (size_t)source < MU_ARRAY_LEN(sources) ? sources[source] : "API";
}

int mu_oz_source_parse(mu_bytes word)
{
    for (size_t i = 1; i < MU_ARRAY_LEN(sources); i++) {
        if (mu_bytes_is(word, sources[i])) {
            return (int)i;
        }
    }
    return 0;
}

bool mu_oz_image_allowed(const struct mu_oz *oz, mu_bytes image)
{
    if (!oz->image_allowlist || !*oz->image_allowlist) {
        return true;
    }
    char text[512], pattern[256];
    if (image.len >= sizeof text) {
        return false;
    }
    snprintf(text, sizeof text, "%.*s", MU_ARGS(image));
    mu_bytes rest = mu_str(oz->image_allowlist);
    while (rest.ptr) {
        mu_bytes one = mu_bytes_trim(mu_bytes_split(&rest, ','));
        snprintf(pattern, sizeof pattern, "%.*s", MU_ARGS(one));
        if (one.len && one.len < sizeof pattern && fnmatch(pattern, text, 0) == 0) {
            return true;
        }
    }
    return false;
}

static void prefixed(struct mu_json_w *w, const char *key, const char *prefix, mu_bytes id)
{
    char text[80];
    size_t n = strlen(prefix);
    MU_CHECK(n + id.len <= sizeof text);
    memcpy(text, prefix, n);
    memcpy(text + n, id.ptr, id.len);
    mu_jw_kstr(w, key, mu_bytes_of(text, n + id.len));
}

/* What `status_message.message` shows; ptr NULL = nothing. */
static mu_bytes message_of(const struct mu_session_view *v, bool full)
{
    if (v->outcome == MU_OUT_FINISHED) {
        return full ? v->output : v->message_head;
    }
    if (v->error_message.len) {
        return full ? v->error_message : v->message_head;
    }
    if (v->outcome == MU_OUT_LIVE && full && v->output.len) {
        return v->output;
    }
    if (v->state == 80) {
        return MU_B("Cancelled");
    }
    if (v->message_head.len) {
        return v->message_head;
    }
    return v->state == 22 ? MU_B("Waiting for a worker to take this run") : MU_B_NONE;
}

static void add_prompt(struct mu_json_w *w, const struct mu_session_view *v, bool full)
{
    mu_bytes rest = v->prompt_rest;
    if (full && rest.len) {
        struct mu_buf whole;
        mu_buf_init(&whole, (size_t)v->prompt_bytes + 16);
        mu_buf_add(&whole, v->prompt_head);
        mu_buf_add(&whole, rest);
        mu_jw_kstr(w, "prompt", mu_buf_bytes(&whole));
        w->buf->failed = w->buf->failed ? w->buf->failed : whole.failed;
        mu_buf_fini(&whole);
        return;
    }
    mu_jw_kstr(w, "prompt", v->prompt_head);
    if ((int64_t)v->prompt_head.len < v->prompt_bytes) {
        mu_jw_kbool(w, "prompt_truncated", true);
    }
}

static void add_provider(struct mu_json_w *w, const struct mu_session_view *v)
{
    if (v->provider.ptr) {
        mu_jw_kraw(w, "provider", v->provider);
    } else if (v->attempt_provider.ptr) {
        mu_jw_key(w, "provider");
        mu_jw_obj(w);
        mu_jw_kstr(w, "key", v->attempt_provider);
        mu_jw_kstr_opt(w, "model", v->attempt_model);
        mu_jw_obj_end(w);
    } else {
        mu_jw_knull(w, "provider");
    }
}

/* agent_config, schedule: kept in the stored spec. */
static void add_spec(struct mu_json_w *w, const struct mu_session_view *v)
{
    struct mu_arena a;
    mu_arena_init(&a, 8 << 20);
    yyjson_val *spec = NULL;
    static const struct mu_json_limits limits = {.max_bytes = 2 << 20, .max_depth = 80};
    if (v->spec.len <= 2 || mu_json_read(&a, v->spec, &limits, &spec, NULL) < 0) {
        spec = NULL;
    }
    yyjson_val *config = mu_json_get(spec, "agent_config");
    mu_jw_key(w, "agent_config");
    if (config) {
        mu_json_add(w->buf, config);
        w->comma = true;
    } else {
        mu_jw_obj(w);
        mu_jw_obj_end(w);
    }
    yyjson_val *schedule = mu_json_get(spec, "schedule");
    if (schedule) {
        mu_jw_key(w, "schedule");
        mu_json_add(w->buf, schedule);
        w->comma = true;
    }
    mu_arena_fini(&a);
}

static void add_people(struct mu_json_w *w, const struct mu_session_view *v)
{
    mu_jw_key(w, "creator");
    mu_jw_obj(w);
    mu_jw_kstr(w, "uid", v->creator);
    mu_jw_kcstr(w, "type", "service_account");
    mu_jw_obj_end(w);
    mu_jw_key(w, "scope");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "type", "User");
    mu_jw_kstr(w, "uid", v->creator);
    mu_jw_obj_end(w);
}

static void add_result(struct mu_json_w *w, const struct mu_oz *oz, const struct mu_session_view *v,
                       bool full)
{
    mu_bytes message = message_of(v, full);
    if (!full) {
        message = mu_utf8_cut(message, (size_t)oz->list_message_bytes);
    }
    if (message.ptr) {
        mu_jw_key(w, "status_message");
        mu_jw_obj(w);
        mu_jw_kstr(w, "message", message);
        mu_jw_obj_end(w);
    } else {
        mu_jw_knull(w, "status_message");
    }
    if (v->error_code.ptr) {
        mu_jw_key(w, "error");
        mu_jw_obj(w);
        mu_jw_kstr(w, "code", v->error_code);
        mu_jw_kstr(w, "message", full ? v->error_message : mu_utf8_cut(v->error_message, 4096));
        mu_jw_obj_end(w);
    } else {
        mu_jw_knull(w, "error");
    }
    if (full) {
        mu_jw_kstr(w, "output", v->output.ptr ? v->output : MU_B(""));
    }
    if (v->output_truncated) {
        mu_jw_kbool(w, "output_truncated", true);
    }
    if (v->has_exit_code) {
        mu_jw_ki64(w, "exit_code", v->exit_code);
    } else {
        mu_jw_knull(w, "exit_code");
    }
    if (v->tokens_in || v->tokens_out) {
        mu_jw_key(w, "usage");
        mu_jw_obj(w);
        mu_jw_ki64(w, "input_tokens", v->tokens_in);
        mu_jw_ki64(w, "output_tokens", v->tokens_out);
        mu_jw_obj_end(w);
    }
}

static void add_link(struct mu_json_w *w, const struct mu_oz *oz, const struct mu_session_view *v)
{
    if (v->session_link.ptr || !oz->public_url || !v->started_ms) {
        mu_jw_kstr_opt(w, "session_link", v->session_link);
        return;
    }
    char link[400];
    snprintf(link, sizeof link, "%s/sessions/%.*s", oz->public_url, MU_ARGS(v->id));
    mu_jw_kcstr(w, "session_link", link);
}

void mu_oz_run(struct mu_json_w *w, const struct mu_oz *oz, const struct mu_session_view *v,
               bool full)
{
    prefixed(w, "run_id", "run_", v->id);
    prefixed(w, "task_id", "run_", v->id);
    mu_jw_kcstr(w, "state", mu_oz_state(v->state, v->outcome));
    mu_jw_kstr(w, "title", v->title);
    add_prompt(w, v, full);
    mu_jw_ktime(w, "created_at", v->created_ms);
    mu_jw_ktime(w, "updated_at", v->updated_ms);
    mu_jw_ktime_opt(w, "started_at", v->started_ms);
    mu_jw_ktime_opt(w, "completed_at", v->ended_ms);
    add_link(w, oz, v);
    mu_jw_kraw(w, "artifacts", v->artifacts.ptr ? v->artifacts : MU_B("[]"));
    mu_jw_kstr(w, "conversation_id", v->conversation_id.ptr ? v->conversation_id : v->id);
    add_spec(w, v);
    mu_jw_kcstr(w, "source", mu_oz_source(v->source));
    add_result(w, oz, v, full);
    mu_jw_kstr(w, "harness", v->harness);
    add_provider(w, v);
    if (v->route == MU_ROUTE_WORKER) {
        mu_jw_kstr_opt(w, "worker_id", v->worker_id);
    } else {
        mu_jw_knull(w, "worker_id");
    }
    mu_jw_kbool(w, "is_sandbox_running",
                v->route == MU_ROUTE_WORKER && v->outcome == 0 && v->state >= 40 && v->state < 80);
    if (v->skill.len) {
        mu_jw_key(w, "agent_skill");
        mu_jw_obj(w);
        mu_jw_kstr(w, "full_path", v->skill);
        mu_jw_obj_end(w);
    }
    add_people(w, v);
}
