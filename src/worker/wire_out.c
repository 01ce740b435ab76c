#include "worker/wire.h"

enum { ROOM_FOR_THE_REST = 1 << 20, LEAST_OUTPUT = 4096 };

static struct mu_json_w begin(struct mu_buf *dst, const char *type)
{
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "type", type);
    mu_jw_key(&w, "data");
    mu_jw_obj(&w);
    return w;
}

static void finish(struct mu_json_w *w)
{
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
}

static void put_ids(struct mu_json_w *w, const struct mu_wire_ids *ids)
{
    mu_jw_kstr(w, "task_id", ids->task_id);
    mu_jw_kstr(w, "worker_id", ids->worker_id);
    if (ids->native) {
        mu_jw_kstr(w, "execution_id", ids->execution_id);
        mu_jw_ki64(w, "epoch", ids->epoch);
        if (ids->seq > 0) {
            mu_jw_ki64(w, "seq", ids->seq);
        }
    }
}

void mu_wire_claimed(struct mu_buf *dst, const struct mu_wire_ids *ids)
{
    struct mu_json_w w = begin(dst, "task_claimed");
    put_ids(&w, ids);
    finish(&w);
}

void mu_wire_rejected(struct mu_buf *dst, const struct mu_wire_ids *ids, const char *reason)
{
    struct mu_json_w w = begin(dst, "task_rejected");
    put_ids(&w, ids);
    mu_jw_kcstr(&w, "reason", reason);
    finish(&w);
}

void mu_wire_state(struct mu_buf *dst, const struct mu_wire_ids *ids, const char *state,
                   const char *detail)
{
    struct mu_json_w w = begin(dst, "task_state");
    put_ids(&w, ids);
    mu_jw_kcstr(&w, "state", state);
    if (detail && detail[0]) {
        mu_jw_kcstr(&w, "detail", detail);
    }
    finish(&w);
}

void mu_wire_log(struct mu_buf *dst, const struct mu_wire_ids *ids, const char *stream,
                 int64_t offset, mu_bytes chunk)
{
    struct mu_json_w w = begin(dst, "task_log");
    put_ids(&w, ids);
    mu_jw_kcstr(&w, "stream", stream);
    mu_jw_ki64(&w, "offset", offset);
    mu_jw_kstr(&w, "chunk", chunk);
    finish(&w);
}

void mu_wire_drain(struct mu_buf *dst, const char *reason)
{
    struct mu_json_w w = begin(dst, "drain");
    mu_jw_kcstr(&w, "reason", reason);
    finish(&w);
}

void mu_wire_command_result(struct mu_buf *dst, mu_bytes command_id, bool ok, const char *code,
                            const char *message)
{
    struct mu_json_w w = begin(dst, "command_result");
    mu_jw_kstr(&w, "command_id", command_id);
    mu_jw_kbool(&w, "ok", ok);
    if (code) {
        mu_jw_kcstr(&w, "code", code);
    }
    if (message) {
        mu_jw_kcstr(&w, "message", message);
    }
    finish(&w);
}

void mu_wire_skills_result(struct mu_buf *dst, mu_bytes command_id,
                           const struct mu_wire_skill *skills, size_t n, bool more)
{
    struct mu_json_w w = begin(dst, "command_result");
    mu_jw_kstr(&w, "command_id", command_id);
    mu_jw_kbool(&w, "ok", true);
    mu_jw_kbool(&w, "more", more);
    mu_jw_key(&w, "skills");
    mu_jw_arr(&w);
    for (size_t i = 0; i < n; i++) {
        mu_jw_obj(&w);
        mu_jw_kstr(&w, "name", skills[i].name);
        mu_jw_kstr(&w, "description", skills[i].description);
        mu_jw_kstr(&w, "path", skills[i].path);
        mu_jw_kstr(&w, "base_prompt", skills[i].base_prompt);
        mu_jw_obj_end(&w);
    }
    mu_jw_arr_end(&w);
    finish(&w);
}

/* The output as JSON text of at most `room` bytes; its beginning goes when it is longer. */
static void put_output(struct mu_json_w *w, mu_bytes output, size_t room)
{
    struct mu_buf text;
    mu_buf_init(&text, room);
    for (;;) {
        struct mu_json_w inner = mu_json_w(&text);
        mu_jw_str(&inner, output);
        if (!text.failed) {
            mu_jw_kraw(w, "output", mu_buf_bytes(&text));
            break;
        }
        if (text.failed != MU_E_TOO_LARGE || output.len <= LEAST_OUTPUT) {
            break; /* no memory for it: the rest counts more */
        }
        mu_buf_clear(&text);
        output = mu_bytes_from(output, output.len / 2); /* the end tells most */
    }
    mu_buf_fini(&text);
}

void mu_wire_end(struct mu_buf *dst, const struct mu_wire_ids *ids, const struct mu_wire_end *end)
{
    struct mu_json_w w = begin(dst, end->failed ? "task_failed" : "task_completed");
    put_ids(&w, ids);
    mu_jw_ki64(&w, "exit_code", end->exit_code);
    if (end->output.len) {
        size_t used = end->artifacts.len + end->session_link.len + ROOM_FOR_THE_REST;
        put_output(&w, end->output,
                   used < MU_WIRE_MAX_MESSAGE ? MU_WIRE_MAX_MESSAGE - used : LEAST_OUTPUT);
    }
    if (end->artifacts.ptr) {
        mu_jw_kraw(&w, "artifacts", end->artifacts);
    }
    if (end->session_link.len) {
        mu_jw_kstr(&w, "session_link", end->session_link);
    }
    if (end->message) {
        mu_jw_kcstr(&w, "message", end->message);
    }
    if (end->failure_reason) {
        mu_jw_kcstr(&w, "failure_reason", end->failure_reason);
    }
    if (end->cancelled) {
        mu_jw_kcstr(&w, "task_state", "CANCELLED");
    }
    if (ids->native) {
        mu_jw_key(&w, "usage");
        mu_jw_obj(&w);
        mu_jw_ki64(&w, "duration_ms", end->duration_ms);
        mu_jw_ki64(&w, "cpu_ms", end->cpu_ms);
        mu_jw_ki64(&w, "peak_bytes", end->peak_bytes);
        mu_jw_obj_end(&w);
    }
    finish(&w);
}
