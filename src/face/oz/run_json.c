/* The run object as the SDKs read it. Runs on reader threads. */
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

const char *mu_oz_source(int source)
{
    const char *name = mu_source_name(source);
    return name ? name : "API";
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
    if (v->outcome == MU_OUT_FINISHED) { /* without output, what the worker said of its end */
        return full && v->output.len ? v->output : v->message_head;
    }
    if (v->error_message.len) {
        return full ? v->error_message : v->message_head;
    }
    if (v->state == 80) {
        return MU_B("Cancelled");
    }
    if (v->outcome == MU_OUT_LIVE && full && v->output.len) {
        return v->output;
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

static const struct mu_json_limits stored_limits = {.max_bytes = 2 << 20, .max_depth = 80};

/* The model that answers or answered; "pending" until a provider was picked. */
static mu_bytes used_model(struct mu_arena *a, const struct mu_session_view *v)
{
    yyjson_val *provider = NULL;
    if (v->attempt_model.len) {
        return v->attempt_model;
    }
    if (!v->provider.ptr || mu_json_read(a, v->provider, &stored_limits, &provider, NULL) < 0) {
        return MU_B("pending");
    }
    return mu_json_get_bytes(provider, "model");
}

/* `agent_config` as it was sent, and what must be there besides (oz-api.md 5): the model that was
 * used if none was asked for, the environment as it was understood, a name. */
static void add_config(struct mu_json_w *w, struct mu_arena *a, const struct mu_session_view *v,
                       yyjson_val *config)
{
    size_t i, n;
    yyjson_val *key, *value;
    bool model = false, name = false;
    mu_jw_key(w, "agent_config");
    mu_jw_obj(w);
    yyjson_obj_foreach(config, i, n, key, value)
    {
        bool given = !yyjson_is_null(value);
        mu_bytes k = mu_json_bytes(key);
        if (mu_bytes_is(k, "environment_id") ||
            (!given && (mu_bytes_is(k, "model_id") || mu_bytes_is(k, "name")))) {
            continue;
        }
        model = model || mu_bytes_is(k, "model_id");
        name = name || mu_bytes_is(k, "name");
        mu_jw_str(w, k);
        mu_buf_add_char(w->buf, ':');
        mu_json_add(w->buf, value);
        w->comma = true;
    }
    if (!model) {
        mu_jw_kstr(w, "model_id", used_model(a, v));
    }
    if (!name) {
        mu_jw_kstr(w, "name", v->title);
    }
    mu_jw_kstr_opt(w, "environment_id", v->environment_id);
    mu_jw_obj_end(w);
}

/* agent_config, schedule: kept in the stored spec. */
static void add_spec(struct mu_json_w *w, const struct mu_session_view *v)
{
    struct mu_arena a;
    mu_arena_init(&a, 8 << 20);
    yyjson_val *spec = NULL;
    if (v->spec.len > 2) {
        int r = mu_json_read(&a, v->spec, &stored_limits, &spec, NULL);
        w->buf->failed = r < 0 && !w->buf->failed ? r : w->buf->failed;
    }
    add_config(w, &a, v, mu_json_get(spec, "agent_config"));
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
    bool stopping = v->state == 80; /* shown as cancelled from the moment the stop is accepted */
    if (v->error_code.ptr || stopping) {
        mu_jw_key(w, "error");
        mu_jw_obj(w);
        mu_jw_kstr(w, "code", stopping ? MU_B("cancelled") : v->error_code);
        mu_jw_kstr(w, "message",
                   stopping ? MU_B("Cancelled")
                   : full   ? v->error_message
                            : mu_utf8_cut(v->error_message, 4096));
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

/* A run that waits for a provider's capacity says until when. */
static void add_queued_until(struct mu_json_w *w, const struct mu_session_view *v)
{
    mu_bytes text = MU_B(MU_WAITING_TEXT);
    if (v->outcome == MU_OUT_LIVE && v->state == MU_ST_QUEUED &&
        mu_bytes_starts(v->message_head, text)) {
        mu_jw_kstr(w, "queued_until", mu_bytes_from(v->message_head, text.len));
    } else {
        mu_jw_knull(w, "queued_until");
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
    /* what is cancelled ended when the stop was accepted, however long the winding up takes */
    bool cancelled = v->outcome == MU_OUT_CANCELLED || v->state == 80;
    mu_jw_ktime_opt(w, "completed_at", cancelled && v->stop_ms ? v->stop_ms : v->ended_ms);
    add_queued_until(w, v);
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
                v->route == MU_ROUTE_WORKER && v->outcome == 0 && v->state >= 40 &&
                    v->state < MU_ST_STOPPING && !mu_state_sleeps(v->state));
    if (v->skill.len) {
        mu_jw_key(w, "agent_skill");
        mu_jw_obj(w);
        mu_jw_kstr(w, "full_path", v->skill);
        mu_jw_obj_end(w);
    }
    add_people(w, v);
}
