/* A turn: the prompt goes to the agent, its words and tools to the server, its end is told once. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "base/encode.h"
#include "runner/live_int.h"

enum {
    STREAM_MAX = 64 << 10,
    STREAM_PIECE = 32 << 10,
    CANCEL_MS = 15000,
    EXPLAIN_MAX = 8,      /* refusals that are explained in one turn */
    FIELD_MAX = 16 << 10, /* of args and result, as JSON */
    FORWARD_MAX = 12 << 10,
};

/* --- words --- */

static void say_segment(struct mu_live *v)
{
    struct mu_turn *t = &v->turn;
    if (!t->segment.len) {
        return;
    }
    struct mu_id id = mu_live_uuid();
    struct mu_json_w *w = mu_link_begin(&v->link, "result");
    mu_jw_kcstr(w, "turnId", t->id);
    mu_jw_kstr(w, "messageId", mu_id_bytes(&id));
    mu_jw_kcstr(w, "kind", t->thought ? "thought" : "text");
    mu_jw_kstr(w, "content", mu_buf_bytes(&t->segment));
    mu_link_end(&v->link);
    mu_buf_clear(&t->segment);
}

/* What waits goes out as far as there is room; nobody to take it: it is lost, the message comes
 * whole. */
void mu_turn_stream(struct mu_live *v)
{
    struct mu_turn *t = &v->turn;
    while (t->stream.len && mu_link_room(&v->link)) {
        mu_bytes piece = mu_utf8_cut(mu_buf_bytes(&t->stream), STREAM_PIECE);
        struct mu_json_w *w = piece.len ? mu_link_say(&v->link, "stream") : NULL;
        if (!w) {
            break;
        }
        size_t n = piece.len;
        mu_jw_kcstr(w, "turnId", t->id);
        mu_jw_kcstr(w, "kind", t->stream_thought ? "thought" : "text");
        mu_jw_ki64(w, "offset", t->stream_at);
        mu_jw_kstr(w, "content", piece);
        mu_link_end(&v->link);
        t->stream_at += (int64_t)n;
        mu_buf_consume(&t->stream, n);
    }
    if (!v->link.up) {
        mu_buf_clear(&t->stream);
    }
}

static void stream(struct mu_live *v, bool thought, mu_bytes text)
{
    struct mu_turn *t = &v->turn;
    if (t->stream.len && (t->stream_thought != thought || t->stream.len + text.len > STREAM_MAX)) {
        mu_turn_stream(v);
        mu_buf_clear(&t->stream);
    }
    if (!t->stream.len) {
        t->stream_thought = thought;
        t->stream_at = t->offset[thought];
    }
    if (text.len <= STREAM_MAX) {
        mu_buf_add(&t->stream, text);
        t->stream.failed = 0;
    }
    t->offset[thought] += (int64_t)text.len;
}

/* Without secrets. */
static void show_words(struct mu_live *v, bool thought, mu_bytes text)
{
    struct mu_turn *t = &v->turn;
    if (!text.len) {
        return;
    }
    mu_view_words(v, thought, text);
    stream(v, thought, text);
    if (t->thought != thought) {
        say_segment(v);
        t->thought = thought;
    }
    while (text.len) {
        mu_bytes part = mu_utf8_cut(text, MU_LIVE_SEGMENT - t->segment.len);
        mu_buf_add(&t->segment, part);
        v->link.failed = t->segment.failed ? t->segment.failed : v->link.failed;
        text = mu_bytes_from(text, part.len);
        if (text.len || t->segment.len == MU_LIVE_SEGMENT) {
            say_segment(v);
        }
    }
}

/* Nothing follows that may belong to what was said last. */
static void end_words(struct mu_live *v)
{
    struct mu_turn *t = &v->turn;
    mu_redact_flush(v->r->redact, &t->secrets, &v->words);
    show_words(v, t->said_thought, mu_buf_bytes(&v->words));
    mu_buf_clear(&v->words);
}

void mu_turn_segment(struct mu_live *v)
{
    end_words(v);
    say_segment(v);
}

static void on_text(void *arg, bool thought, mu_bytes text)
{
    struct mu_live *v = arg;
    struct mu_turn *t = &v->turn;
    if (t->step != MU_TURN_RUNS) {
        return;
    }
    if (!thought && mu_bytes_trim(text).len) {
        t->refused = false;
    }
    if (t->said_thought != thought) {
        end_words(v);
        t->said_thought = thought;
    }
    mu_redact_feed(v->r->redact, &t->secrets, text, &v->words);
    v->link.failed = v->words.failed ? v->words.failed : v->link.failed;
    show_words(v, thought, mu_buf_bytes(&v->words));
    mu_buf_clear(&v->words);
}

/* --- tools --- */

static void touched(struct mu_live *v, const struct mu_acp_tool *t)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    bool read = strcmp(t->kind, "read") == 0, gone = strcmp(t->kind, "delete") == 0;
    bool write = strcmp(t->kind, "edit") == 0 || strcmp(t->kind, "move") == 0;
    size_t root = strlen(v->r->ws.root);
    mu_buf_init(&b, 8192);
    if (t->status != MU_ACP_COMPLETED || (!read && !gone && !write)) {
        return;
    }
    for (size_t i = 0; i < t->n_paths; i++) {
        const char *path = t->paths[i];
        if (strncmp(path, v->r->ws.root, root) == 0 && path[root] == '/') {
            path += root + 1;
        } else if (path[0] == '/') {
            continue; /* not of the workspace */
        }
        mu_buf_clear(&b);
        struct mu_json_w w = mu_json_w(&b);
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "path", path);
        mu_jw_kcstr(&w, "reason", read ? "read" : gone ? "delete" : "write");
        mu_jw_obj_end(&w);
        if (!b.failed) {
            mu_live_event(v, "FILE_TOUCHED", mu_buf_bytes(&b));
            v->files++;
        }
    }
}

void mu_turn_tool(struct mu_live *v, const struct mu_acp_tool *t, const char *note)
{
    static const char *const words[] = {"pending", "running", "completed", "failed"};
    struct mu_json_w *w = mu_link_begin(&v->link, "tool");
    mu_jw_kcstr(w, "turnId", v->turn.id);
    mu_jw_kcstr(w, "callID", t->id);
    mu_jw_kcstr(w, "toolName", t->name);
    mu_jw_kcstr(w, "kind", t->kind);
    mu_jw_kcstr(w, "status", words[t->status]);
    mu_jw_kcstr(w, "title", t->title);
    if (t->args.len && !t->args_cut) {
        mu_jw_kraw(w, "args", mu_buf_bytes(&t->args));
    } else {
        mu_jw_kstr(w, "args", mu_live_fit(mu_buf_bytes(&t->args), FIELD_MAX));
    }
    if (t->result.len) {
        mu_jw_kstr(w, "result", mu_live_fit(mu_buf_bytes(&t->result), FIELD_MAX));
    }
    if (t->n_paths) {
        mu_jw_key(w, "paths");
        mu_jw_arr(w);
        for (size_t i = 0; i < t->n_paths; i++) {
            mu_jw_str(w, mu_str(t->paths[i]));
        }
        mu_jw_arr_end(w);
    }
    if (note) {
        mu_jw_kcstr(w, "note", note);
    }
    mu_link_end(&v->link);
}

static void on_tool(void *arg, const struct mu_acp_tool *t)
{
    struct mu_live *v = arg;
    if (v->turn.step != MU_TURN_RUNS) {
        return;
    }
    if (t->born > v->turn.refused_at) { /* it goes on with another one */
        v->turn.refused = false;
    }
    mu_turn_segment(v);
    mu_view_tool(v, t);
    mu_turn_tool(v, t, NULL);
    mu_live_command(v, t, false);
    touched(v, t);
}

static void on_update(void *arg, mu_bytes kind, mu_bytes json)
{
    struct mu_live *v = arg;
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, FORWARD_MAX + 1024);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_key(&w, "providerEvent");
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "kind", kind);
    if (json.len <= FORWARD_MAX) {
        mu_jw_kraw(&w, "update", json);
    } else {
        mu_jw_kbool(&w, "truncated", true);
    }
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
    if (!b.failed) {
        mu_live_event(v, "PROVIDER_EVENT_FORWARDED", mu_buf_bytes(&b));
    }
}

static void on_noise(void *arg, mu_bytes line)
{
    struct mu_live *v = arg;
    mu_view_note(v, "\x1b[2m", "%.*s", (int)MU_MIN(line.len, (size_t)2000), line.ptr);
}

static int on_send(void *arg, mu_bytes line)
{
    struct mu_live *v = arg;
    mu_buf_add(&v->agent.tell, line);
    mu_agent_write(v);
    return v->agent.tell.failed;
}

/* --- its beginning and its end --- */

static bool was(char list[][MU_LIVE_ID], size_t n, const char *id)
{
    for (size_t i = 0; i < MU_MIN(n, (size_t)MU_LIVE_REMEMBER); i++) {
        if (strcmp(list[i], id) == 0) {
            return true;
        }
    }
    return false;
}

static void say_complete(struct mu_live *v, const char *id, const char *outcome, const char *reason,
                         bool error)
{
    struct mu_json_w *w = mu_link_begin(&v->link, "complete");
    mu_jw_kcstr(w, "turnId", id);
    mu_jw_kcstr(w, "outcome", outcome);
    if (reason[0]) {
        mu_jw_kcstr(w, error ? "error" : "stopReason", reason);
    }
    mu_jw_key(w, "usage");
    mu_jw_obj(w);
    if (v->tokens_in >= 0) {
        mu_jw_ki64(w, "tokensIn", v->tokens_in);
        mu_jw_ki64(w, "tokensOut", MU_MAX(v->tokens_out, (int64_t)0));
    }
    mu_jw_ki64(w, "apiCalls", v->calls);
    mu_jw_obj_end(w);
    mu_link_end(&v->link);
    snprintf(v->over[v->n_over++ % MU_LIVE_REMEMBER], MU_LIVE_ID, "%s", id);
}

static void set_prompt(struct mu_turn *t, const char *id, mu_bytes content)
{
    snprintf(t->id, sizeof t->id, "%s", id);
    mu_buf_clear(&t->prompt);
    mu_buf_add(&t->prompt, content);
    t->step = MU_TURN_WAITS;
}

void mu_turn_prompt(struct mu_live *v, const char *id, mu_bytes content)
{
    struct mu_turn *t = &v->turn, *n = &v->next;
    bool known = (t->step != MU_TURN_NONE && strcmp(t->id, id) == 0) ||
                 (n->step != MU_TURN_NONE && strcmp(n->id, id) == 0) || was(v->over, v->n_over, id);
    if (known || v->done) {
        return;
    }
    if (t->step == MU_TURN_NONE) {
        set_prompt(t, id, content);
    } else if (n->step == MU_TURN_NONE) {
        set_prompt(n, id, content); /* the server is quicker than our git */
    } else {
        say_complete(v, id, "failed", "another turn is not over", true);
    }
}

static void running(struct mu_live *v)
{
    struct mu_turn *t = &v->turn;
    t->step = MU_TURN_RUNS;
    t->offset[0] = t->offset[1] = 0;
    t->cancel = t->refused = t->thought = t->said_thought = false;
    t->kill_at = 0;
    t->explained = 0;
    mu_buf_clear(&t->segment);
    mu_buf_clear(&t->stream);
    v->busy_from = mu_mono_ms();
    struct mu_json_w *w = mu_link_begin(&v->link, "agentStatus");
    mu_jw_kcstr(w, "turnId", t->id);
    mu_jw_kcstr(w, "status", "thinking");
    mu_link_end(&v->link);
}

void mu_turn_begin(struct mu_live *v)
{
    struct mu_turn *t = &v->turn;
    running(v);
    if (!v->agent.spoke) { /* a screen: it is typed in, and that is all that can be known */
        if (v->interactive) {
            mu_term_type(v, 0, mu_buf_bytes(&t->prompt));
            mu_term_type(v, 0, MU_B("\r"));
            mu_turn_over(v, "done", "", false);
        }
        return;
    }
    mu_view_prompt(v, mu_buf_bytes(&t->prompt));
    int r = mu_agent_prompt(v, mu_buf_bytes(&t->prompt));
    if (r) {
        mu_turn_over(v, "failed", mu_err_text(r), true);
    }
}

void mu_turn_over(struct mu_live *v, const char *outcome, const char *reason, bool error)
{
    struct mu_turn *t = &v->turn;
    if (t->step == MU_TURN_NONE || t->step == MU_TURN_OVER) {
        return;
    }
    mu_turn_segment(v);
    mu_turn_stream(v);
    mu_gate_close_all(v);
    mu_live_commands_over(v);
    memset(v->approved, 0, sizeof v->approved);
    if (t->step == MU_TURN_RUNS) {
        v->busy_ms += mu_mono_ms() - v->busy_from;
    }
    t->step = MU_TURN_OVER;
    t->outcome = outcome;
    t->failed_by_agent = error;
    t->kill_at = 0;
    snprintf(t->reason, sizeof t->reason, "%s", reason);
    if (error) {
        mu_view_note(v, "\x1b[31m", "%s", reason);
    }
}

void mu_turn_complete(struct mu_live *v)
{
    struct mu_turn *t = &v->turn;
    say_complete(v, t->id, t->outcome, t->reason, t->failed_by_agent);
    mu_checkpoint_turn_over(v, t->id);
    t->step = MU_TURN_NONE;
    mu_buf_fini(&t->prompt);
    if (!v->interactive && !v->done) { /* a task is one turn */
        bool good = strcmp(t->outcome, "done") == 0;
        mu_live_end(v, good ? 0 : v->exit_status, "%s",
                    good           ? ""
                    : t->reason[0] ? t->reason
                                   : "the turn was cancelled");
    }
    if (v->next.step != MU_TURN_NONE) {
        set_prompt(t, v->next.id, mu_buf_bytes(&v->next.prompt));
        mu_buf_fini(&v->next.prompt);
        v->next.step = MU_TURN_NONE;
    }
}

void mu_turn_abort(struct mu_live *v)
{
    struct mu_turn *t = &v->turn;
    if (t->step == MU_TURN_WAITS) {
        mu_turn_over(v, "cancelled", "", false);
        return;
    }
    if (t->step != MU_TURN_RUNS || t->cancel) {
        return;
    }
    t->cancel = true;
    t->kill_at = mu_mono_ms() + CANCEL_MS;
    mu_view_note(v, "\x1b[33m", "cancelled");
    if (!v->agent.spoke) { /* Ctrl-C */
        mu_term_type(v, 0, MU_B("\x03"));
        return;
    }
    mu_gate_close_all(v);
    if (mu_agent_cancel(v) < 0) {
        t->kill_at = mu_mono_ms();
    }
}

/* The agent stopped because somebody refused: it is told so, in the same turn, and goes on. */
static bool goes_on(struct mu_live *v)
{
    struct mu_turn *t = &v->turn;
    if (!t->refused || t->cancel || v->guard.stop_on_deny || v->stop_told ||
        t->explained == EXPLAIN_MAX) {
        return false;
    }
    t->refused = false;
    t->explained++;
    mu_turn_segment(v);
    mu_view_prompt(v, mu_str(t->refusal));
    return mu_agent_prompt(v, mu_str(t->refusal)) == 0;
}

static void on_turn(void *arg, enum mu_acp_outcome outcome, mu_bytes reason,
                    const struct mu_acp_usage *usage)
{
    struct mu_live *v = arg;
    char text[512];
    if (usage->tokens_in >= 0 || usage->tokens_out >= 0) {
        v->tokens_in = MU_MAX(v->tokens_in, (int64_t)0) + MU_MAX(usage->tokens_in, (int64_t)0);
        v->tokens_out = MU_MAX(v->tokens_out, (int64_t)0) + MU_MAX(usage->tokens_out, (int64_t)0);
    }
    v->calls++;
    if (v->turn.step != MU_TURN_RUNS || (outcome != MU_ACP_ERROR && goes_on(v))) {
        return;
    }
    snprintf(text, sizeof text, "%.*s", MU_ARGS(reason));
    bool refusal = outcome == MU_ACP_DONE && strcmp(text, "refusal") == 0;
    if (v->turn.cancel || outcome == MU_ACP_CANCELLED) {
        mu_turn_over(v, "cancelled", outcome == MU_ACP_ERROR ? "cancelled" : text, false);
    } else {
        bool bad = outcome == MU_ACP_ERROR;
        mu_turn_over(v, bad || refusal ? "failed" : "done", text, bad);
    }
}

void mu_turn_ready(struct mu_live *v, const struct mu_acp_info *info)
{
    v->phase = "running";
    struct mu_json_w *w = mu_link_begin(&v->link, "boot");
    mu_jw_kcstr(w, "step", "running");
    mu_jw_kcstr(w, "providerId", mu_harness_name(v->r->harness));
    mu_jw_kcstr(w, "workspacePath", MU_WORKSPACE);
    if (info && info->version.ptr) {
        mu_jw_kstr(w, "providerVersion", info->version);
    }
    if (info) {
        mu_jw_kstr(w, "conversationId", info->conversation);
    }
    mu_jw_kcstr(w, "adapter", !info ? "terminal" : v->agent.serve ? "opencode" : "acp");
    if (info && info->not_loaded.ptr) {
        mu_jw_kstr(w, "detail", info->not_loaded);
    } else if (v->agent.no_serve[0]) {
        mu_jw_kcstr(w, "detail", v->agent.no_serve);
    } else if (info && info->no_model) {
        mu_jw_kcstr(w, "detail", "the agent does not offer the model that is wanted");
    }
    mu_jw_kbool(w, "resumed", info && info->resumed);
    mu_link_end(&v->link);
}

static void on_ready(void *arg, const struct mu_acp_info *info)
{
    struct mu_live *v = arg;
    snprintf(v->agent.conversation, sizeof v->agent.conversation, "%.*s",
             MU_ARGS(info->conversation));
    v->agent.step = MU_AGENT_READY;
    mu_turn_ready(v, info);
    if (info->not_loaded.ptr) {
        mu_view_note(v, "\x1b[33m", "a new conversation was begun: %.*s",
                     MU_ARGS(info->not_loaded));
    }
    if (info->no_model) {
        mu_view_note(v, "\x1b[33m", "the agent does not offer the model that is wanted");
    }
}

const struct mu_acp_ops mu_live_acp = {
    .send = on_send,
    .ready = on_ready,
    .text = on_text,
    .tool = on_tool,
    .ask = mu_live_ask,
    .ask_gone = mu_live_ask_gone,
    .update = on_update,
    .turn = on_turn,
    .noise = on_noise,
};
