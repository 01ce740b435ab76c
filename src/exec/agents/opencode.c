#include "exec/agents/opencode.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "exec/agents/opencode_int.h"

enum { OUT_MAX = 4 << 20, PATH_MAX_LEN = 512 };

int mu_oc_init(struct mu_oc *o, const struct mu_acp_ops *tell, const struct mu_oc_ops *ops,
               void *arg, const struct mu_acp_options *opt, const char *model)
{
    *o = (struct mu_oc){.tell = tell, .ops = ops, .arg = arg, .opt = *opt, .model = model};
    mu_buf_init(&o->out, OUT_MAX);
    mu_buf_init(&o->scratch, MU_OC_EVENT_MAX);
    mu_buf_init(&o->words, MU_OC_EVENT_MAX);
    mu_jtok_init(&o->json);
    o->messages = mu_calloc(MU_OC_MESSAGES, sizeof *o->messages);
    o->parts = mu_calloc(MU_OC_PARTS, sizeof *o->parts);
    o->open = mu_calloc(MU_ACP_ASKS, sizeof *o->open);
    if (!o->messages || !o->parts || !o->open || mu_rows_init(&o->rows) < 0) {
        mu_oc_fini(o);
        return -ENOMEM;
    }
    return 0;
}

void mu_oc_fini(struct mu_oc *o)
{
    mu_oc_drop_all(o, false);
    mu_rows_fini(&o->rows);
    mu_free(o->messages);
    mu_free(o->parts);
    mu_free(o->open);
    mu_buf_fini(&o->out);
    mu_buf_fini(&o->scratch);
    mu_buf_fini(&o->words);
    mu_jtok_fini(&o->json);
    *o = (struct mu_oc){.state = MU_ACP_BROKEN};
}

int mu_oc_break(struct mu_oc *o, int code, const char *fmt, ...)
{
    if (o->state != MU_ACP_BROKEN) {
        char text[sizeof o->err.text];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        mu_err_set(&o->err, code, "%s", text);
        o->state = MU_ACP_BROKEN;
    }
    return o->err.code;
}

static int state(const struct mu_oc *o)
{
    return o->state == MU_ACP_BROKEN ? o->err.code : 0;
}

/* --- reading --- */

static bool plain_id(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return n > 0 && n < MU_OC_ID_MAX && !text[n];
}

bool mu_oc_id(const struct mu_jtok *j, int v, char ret[MU_OC_ID_MAX])
{
    return mu_jtok_copy(j, v, ret, MU_OC_ID_MAX) && plain_id(ret);
}

void mu_oc_copy(struct mu_oc *o, int v, char *dst, size_t cap)
{
    mu_row_text(&o->json, v, &o->scratch, dst, cap);
}

void mu_oc_error(struct mu_oc *o, int error, char *dst, size_t cap)
{
    const struct mu_jtok *j = &o->json;
    int v = mu_jtok_get(j, mu_jtok_get(j, error, "data"), "message");
    v = v >= 0 ? v : mu_jtok_get(j, error, "message");
    v = v >= 0 ? v : mu_jtok_get(j, error, "name");
    mu_oc_copy(o, v, dst, cap);
    if (!dst[0]) {
        snprintf(dst, cap, "an error without words");
    }
}

/* --- asking --- */

int mu_oc_call(struct mu_oc *o, enum mu_oc_call call, const char *method, mu_bytes body,
               const char *fmt, ...)
{
    char path[PATH_MAX_LEN];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    int r = n < 0 || n >= (int)sizeof path ? MU_E_TOO_LARGE : 0;
    r = r ? r : o->ops->call(o->arg, call, method, path, body);
    return r ? mu_oc_break(o, r, "the agent cannot be asked: %s", mu_err_text(r)) : 0;
}

int mu_oc_ask_status(struct mu_oc *o)
{
    if (o->asking) {
        o->again = true; /* what is on its way may be older than what was seen now */
        return 0;
    }
    o->asking = true;
    o->again = false;
    return mu_oc_call(o, MU_OC_STATUS, "GET", MU_B_NONE, "/session/status");
}

int mu_oc_start(struct mu_oc *o)
{
    if (o->state != MU_ACP_NEW) {
        return MU_E_CONFLICT;
    }
    o->state = MU_ACP_INITIALIZING;
    return mu_oc_call(o, MU_OC_HEALTH, "GET", MU_B_NONE, "/global/health");
}

/* A name of its own, or a model is asked for one. */
static int create(struct mu_oc *o)
{
    o->state = MU_ACP_OPENING;
    return mu_oc_call(o, MU_OC_CREATE, "POST", MU_B("{\"title\":\"muster\"}"), "/session");
}

/* The stream runs before anything is asked for: nothing of it can be missed. */
static int open_conversation(struct mu_oc *o)
{
    const char *wanted = o->opt.conversation;
    if (!wanted || !wanted[0]) {
        return create(o);
    }
    if (!plain_id(wanted)) {
        snprintf(o->not_loaded, sizeof o->not_loaded, "it is not one of OpenCode");
        return create(o);
    }
    o->state = MU_ACP_OPENING;
    return mu_oc_call(o, MU_OC_LOAD, "GET", MU_B_NONE, "/session/%s", wanted);
}

static void add_model(struct mu_oc *o, struct mu_json_w *w)
{
    mu_bytes rest = mu_str(o->model);
    ptrdiff_t slash = mu_bytes_find_char(rest, '/');
    if (slash > 0 && (size_t)slash + 1 < rest.len) {
        mu_jw_key(w, "model");
        mu_jw_obj(w);
        mu_jw_kstr(w, "providerID", mu_bytes_head(rest, (size_t)slash));
        mu_jw_kstr(w, "modelID", mu_bytes_from(rest, (size_t)slash + 1));
        mu_jw_obj_end(w);
    }
}

static void new_turn(struct mu_oc *o)
{
    o->turn++;
    o->accepted = o->active = o->completed = o->cancelling = o->settle = false;
    o->heard = true;
    o->finish[0] = o->error[0] = 0;
    o->tokens_in = o->tokens_out = -1;
    mu_rows_clear(&o->rows);
}

int mu_oc_prompt(struct mu_oc *o, mu_bytes text)
{
    if (o->state != MU_ACP_READY) {
        return o->state == MU_ACP_BROKEN ? o->err.code : MU_E_CONFLICT;
    }
    mu_buf_clear(&o->out);
    struct mu_json_w w = mu_json_w(&o->out);
    mu_jw_obj(&w);
    add_model(o, &w);
    mu_jw_key(&w, "parts");
    mu_jw_arr(&w);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "type", "text");
    mu_jw_kstr(&w, "text", text);
    mu_jw_obj_end(&w);
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    if (o->out.failed) {
        return mu_oc_break(o, o->out.failed, "the prompt: %s", mu_err_text(o->out.failed));
    }
    new_turn(o);
    o->state = MU_ACP_PROMPTED;
    return mu_oc_call(o, MU_OC_PROMPT, "POST", mu_buf_bytes(&o->out), "/session/%s/prompt_async",
                      o->conversation);
}

static int abort_turn(struct mu_oc *o)
{
    return mu_oc_call(o, MU_OC_ABORT, "POST", MU_B_NONE, "/session/%s/abort", o->conversation);
}

int mu_oc_cancel(struct mu_oc *o)
{
    if (o->state != MU_ACP_PROMPTED) {
        return state(o);
    }
    o->cancelling = true;
    mu_oc_drop_all(o, false);
    return abort_turn(o);
}

/* --- what is answered --- */

static int ready(struct mu_oc *o)
{
    struct mu_acp_info info = {MU_B("opencode"),
                               mu_str(o->version),
                               mu_str(o->conversation),
                               o->resumed,
                               mu_str(o->not_loaded[0] ? o->not_loaded : NULL),
                               false};
    o->state = MU_ACP_READY;
    o->tell->ready(o->arg, &info);
    return state(o);
}

static int turn_over(struct mu_oc *o, enum mu_acp_outcome outcome, const char *reason)
{
    struct mu_acp_usage usage = {o->tokens_in, o->tokens_out};
    char words[sizeof o->error]; /* the next turn, begun by the callback, has its own */
    snprintf(words, sizeof words, "%s", reason);
    mu_oc_drop_all(o, true);
    o->state = MU_ACP_READY;
    o->cancelling = o->active = false;
    o->tell->turn(o->arg, outcome, mu_str(words), &usage);
    return state(o);
}

/* The words of ACP for how a turn ended. */
static const char *stop_reason(const struct mu_oc *o)
{
    return strcmp(o->finish, "length") == 0           ? "max_tokens"
           : strcmp(o->finish, "content-filter") == 0 ? "refusal"
                                                      : "end_turn";
}

static int is_idle(struct mu_oc *o)
{
    /* An idle that is late must not end the next turn, and one that began after it was cancelled
     * is cancelled again when it is seen. */
    bool whole = o->completed || o->error[0] || o->cancelling;
    bool believed = (o->active && whole) || (o->settle && !o->cancelling);
    if (o->state != MU_ACP_PROMPTED || !o->accepted || !believed) {
        return 0;
    }
    if (o->cancelling) {
        return turn_over(o, MU_ACP_CANCELLED, "cancelled");
    }
    return o->error[0] ? turn_over(o, MU_ACP_ERROR, o->error)
                       : turn_over(o, MU_ACP_DONE, stop_reason(o));
}

static int on_status(struct mu_oc *o, int status)
{
    const struct mu_jtok *j = &o->json;
    o->asking = false;
    if (status != 200) {
        return 0; /* it is asked again when nothing happens */
    }
    bool again = o->again;
    uint64_t turn = o->turn;
    int type = mu_jtok_get(j, mu_jtok_get(j, 0, o->conversation), "type");
    bool idle = type < 0 || mu_jtok_is(j, type, MU_B("idle"));
    int r = idle ? is_idle(o) : 0;
    o->settle = false;
    again = again && o->state == MU_ACP_PROMPTED && o->turn == turn;
    return r || !again ? r : mu_oc_ask_status(o);
}

static int on_health(struct mu_oc *o, int status)
{
    const struct mu_jtok *j = &o->json;
    if ((!status || status >= 500) && ++o->tries < MU_OC_HEALTH_TRIES) {
        return mu_oc_call(o, MU_OC_HEALTH, "GET", MU_B_NONE, "/global/health");
    }
    mu_oc_copy(o, mu_jtok_get(j, 0, "version"), o->version, sizeof o->version);
    if (status != 200 || !o->version[0]) {
        return mu_oc_break(o, MU_E_VERSION, "opencode serve does not say that it is healthy (%d)",
                           status);
    }
    o->ops->listen(o->arg);
    return state(o);
}

static int read_again(struct mu_oc *o)
{
    return mu_oc_call(o, MU_OC_READ, "GET", MU_B_NONE, "/session/%s/message?limit=%d",
                      o->conversation, MU_OC_REREAD);
}

static int on_opened(struct mu_oc *o, enum mu_oc_call call, int status)
{
    const struct mu_jtok *j = &o->json;
    char id[MU_OC_ID_MAX];
    bool got = status == 200 && mu_oc_id(j, mu_jtok_get(j, 0, "id"), id);
    if (o->state != MU_ACP_OPENING) {
        return 0;
    }
    if (!got && call == MU_OC_LOAD && status) {
        mu_oc_error(o, 0, o->not_loaded, sizeof o->not_loaded);
        return create(o);
    }
    if (!got) {
        return mu_oc_break(o, MU_E_VERSION, "opencode serve began no conversation (%d)", status);
    }
    memcpy(o->conversation, id, sizeof id);
    o->resumed = call == MU_OC_LOAD;
    return o->resumed ? read_again(o) : ready(o); /* what is old has to be known as such */
}

static int on_prompted(struct mu_oc *o, int status)
{
    char text[300], words[400];
    if (o->state != MU_ACP_PROMPTED) {
        return 0;
    }
    if (status >= 200 && status < 300) {
        o->accepted = true;
        return 0;
    }
    mu_oc_error(o, 0, text, sizeof text);
    snprintf(words, sizeof words, "the prompt was not taken: %s", status ? text : "no answer");
    int r = status ? 0 : abort_turn(o); /* perhaps it came through */
    return r ? r : turn_over(o, o->cancelling ? MU_ACP_CANCELLED : MU_ACP_ERROR, words);
}

/* The last messages, after the stream was lost or a conversation was loaded. */
static int on_read(struct mu_oc *o, int status)
{
    const struct mu_jtok *j = &o->json;
    bool prompted = o->state == MU_ACP_PROMPTED;
    int r = 0, list = status == 200 ? 0 : -1;
    for (int i = mu_jtok_first(j, list); i >= 0 && !r; i = mu_jtok_next(j, list, i)) {
        int parts = prompted ? mu_jtok_get(j, i, "parts") : -1;
        mu_oc_message(o, mu_jtok_get(j, i, "info"));
        for (int p = mu_jtok_first(j, parts); p >= 0 && !r; p = mu_jtok_next(j, parts, p)) {
            r = mu_oc_part(o, p);
        }
    }
    return !r && o->state == MU_ACP_OPENING ? ready(o) : r;
}

/* Empty when it is no JSON, which nothing of what is read from it minds. */
static int parse(struct mu_oc *o, mu_bytes text)
{
    int r = mu_jtok_parse(&o->json, text);
    if (r == MU_E_INVALID) {
        o->garbage += text.len > 0;
        return mu_jtok_parse(&o->json, MU_B("{}"));
    }
    return r;
}

static void shrink(struct mu_oc *o)
{
    struct mu_buf *all[] = {&o->out, &o->scratch, &o->words};
    for (size_t i = 0; i < MU_ARRAY_LEN(all); i++) {
        if (all[i]->cap > 1 << 20) {
            mu_buf_fini(all[i]);
        }
        mu_buf_clear(all[i]);
    }
}

static int answered(struct mu_oc *o, enum mu_oc_call call, int status)
{
    switch (call) {
    case MU_OC_HEALTH:
        return o->state == MU_ACP_INITIALIZING ? on_health(o, status) : 0;
    case MU_OC_LOAD:
    case MU_OC_CREATE:
        return on_opened(o, call, status);
    case MU_OC_PROMPT:
        return on_prompted(o, status);
    case MU_OC_STATUS:
        return on_status(o, status);
    case MU_OC_PERMISSIONS:
    case MU_OC_QUESTIONS:
        return status == 200 ? mu_oc_pending(o, 0, call == MU_OC_QUESTIONS) : 0;
    case MU_OC_READ:
        return on_read(o, status);
    case MU_OC_REPLY: /* 404: nobody waits for it any more */
        return status == 0 || status >= 500
                   ? mu_oc_break(o, MU_E_IO, "the agent did not take a decision (%d)", status)
                   : 0;
    case MU_OC_ABORT:
        break;
    }
    return 0;
}

int mu_oc_answer(struct mu_oc *o, enum mu_oc_call call, int status, mu_bytes body)
{
    if (o->state == MU_ACP_BROKEN) {
        return o->err.code;
    }
    int r = parse(o, body);
    if (r) {
        return mu_oc_break(o, r, "an answer of the agent has too many or too deep values: %s",
                           mu_err_text(r));
    }
    r = answered(o, call, status);
    r = r ? r : mu_oc_release(o, false);
    shrink(o);
    return r ? r : state(o);
}

/* --- what is told --- */

static int connected(struct mu_oc *o)
{
    if (o->state == MU_ACP_INITIALIZING && o->version[0]) {
        return open_conversation(o);
    }
    if (o->state != MU_ACP_PROMPTED) {
        return 0;
    }
    /* again: what was told meanwhile is read */
    int r = mu_oc_call(o, MU_OC_PERMISSIONS, "GET", MU_B_NONE, "/permission");
    r = r ? r : mu_oc_call(o, MU_OC_QUESTIONS, "GET", MU_B_NONE, "/question");
    r = r ? r : read_again(o);
    return r ? r : mu_oc_ask_status(o);
}

static void update(struct mu_oc *o, const char *kind, const char *key, mu_bytes value)
{
    mu_buf_clear(&o->words);
    struct mu_json_w w = mu_json_w(&o->words);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "sessionUpdate", kind);
    mu_jw_kraw(&w, key, value);
    mu_jw_obj_end(&w);
    if (!o->words.failed && value.len) {
        o->tell->update(o->arg, mu_str(kind), mu_buf_bytes(&o->words));
    }
}

static int status_changed(struct mu_oc *o, int properties)
{
    const struct mu_jtok *j = &o->json;
    int status = mu_jtok_get(j, properties, "status"), type = mu_jtok_get(j, status, "type");
    if (mu_jtok_is(j, type, MU_B("idle"))) {
        return o->state == MU_ACP_PROMPTED ? mu_oc_ask_status(o) : 0;
    }
    if (o->state == MU_ACP_READY) { /* nobody asked for it: a turn that was given up */
        return abort_turn(o);
    }
    bool late = o->cancelling && !o->active; /* it began after it was cancelled */
    o->active = true;
    if (mu_jtok_is(j, type, MU_B("retry"))) {
        update(o, "retry", "status", mu_jtok_raw(j, status));
    }
    return late ? abort_turn(o) : 0;
}

static void failed(struct mu_oc *o, int properties)
{
    const struct mu_jtok *j = &o->json;
    int error = mu_jtok_get(j, properties, "error");
    bool aborted = mu_jtok_is(j, mu_jtok_get(j, error, "name"), MU_B("MessageAbortedError"));
    if (!aborted && !o->error[0] && o->state == MU_ACP_PROMPTED) {
        mu_oc_error(o, error, o->error, sizeof o->error);
        o->active = true;
    }
}

/* Of our conversation; 1 = it means nothing to us. */
static int in_session(struct mu_oc *o, int type, int properties)
{
    const struct mu_jtok *j = &o->json;
    if (mu_jtok_is(j, type, MU_B("session.status"))) {
        return status_changed(o, properties);
    }
    if (mu_jtok_is(j, type, MU_B("session.idle"))) {
        return o->state == MU_ACP_PROMPTED ? mu_oc_ask_status(o) : 0;
    }
    if (mu_jtok_is(j, type, MU_B("session.error"))) {
        failed(o, properties);
        return 0;
    }
    if (o->state != MU_ACP_PROMPTED) {
        if (mu_jtok_is(j, type, MU_B("message.updated"))) {
            mu_oc_message(o, mu_jtok_get(j, properties, "info")); /* an old one is known as such */
            return 0;
        }
        return 1;
    }
    if (mu_jtok_is(j, type, MU_B("message.updated"))) {
        mu_oc_message(o, mu_jtok_get(j, properties, "info"));
        return 0;
    }
    if (mu_jtok_is(j, type, MU_B("message.part.updated"))) {
        return mu_oc_part(o, mu_jtok_get(j, properties, "part"));
    }
    if (mu_jtok_is(j, type, MU_B("message.part.delta"))) {
        return mu_oc_delta(o, properties);
    }
    if (mu_jtok_is(j, type, MU_B("todo.updated"))) {
        update(o, "plan", "entries", mu_jtok_raw(j, mu_jtok_get(j, properties, "todos")));
        return 0;
    }
    return 1;
}

static bool ours(struct mu_oc *o, int properties)
{
    const struct mu_jtok *j = &o->json;
    int id = mu_jtok_get(j, properties, "sessionID");
    id = id >= 0 ? id : mu_jtok_get(j, mu_jtok_get(j, properties, "part"), "sessionID");
    id = id >= 0 ? id : mu_jtok_get(j, mu_jtok_get(j, properties, "info"), "sessionID");
    return o->conversation[0] && mu_jtok_is(j, id, mu_str(o->conversation));
}

static int told(struct mu_oc *o)
{
    const struct mu_jtok *j = &o->json;
    int type = mu_jtok_get(j, 0, "type"), properties = mu_jtok_get(j, 0, "properties");
    if (mu_jtok_is(j, type, MU_B("server.connected"))) {
        return connected(o);
    }
    if (mu_jtok_is(j, type, MU_B("server.heartbeat"))) {
        return 0;
    }
    /* These also of the conversations that the agent gives to others: they would wait for ever. */
    if (mu_jtok_is(j, type, MU_B("permission.asked"))) {
        return mu_oc_asked(o, properties, false);
    }
    if (mu_jtok_is(j, type, MU_B("question.asked"))) {
        return mu_oc_asked(o, properties, true);
    }
    if (mu_jtok_is(j, type, MU_B("permission.replied")) ||
        mu_jtok_is(j, type, MU_B("question.replied")) ||
        mu_jtok_is(j, type, MU_B("question.rejected"))) {
        mu_oc_settled(o, properties);
        return 0;
    }
    int r = ours(o, properties) ? in_session(o, type, properties) : 1;
    o->heard = o->heard || r != 1;
    o->ignored += r == 1;
    return r == 1 ? 0 : r;
}

int mu_oc_event(struct mu_oc *o, mu_bytes data)
{
    if (o->state == MU_ACP_BROKEN) {
        return o->err.code;
    }
    int r = parse(o, data);
    if (r) {
        return mu_oc_break(o, r, "an event of the agent has too many or too deep values: %s",
                           mu_err_text(r));
    }
    r = told(o);
    r = r ? r : mu_oc_release(o, false);
    shrink(o);
    return r ? r : state(o);
}

/* --- time --- */

int64_t mu_oc_patience(const struct mu_oc *o)
{
    for (size_t i = 0; i < o->n_open; i++) {
        if (!o->open[i].told) {
            return MU_OC_HOLD_MS / 4;
        }
    }
    return o->state == MU_ACP_PROMPTED ? MU_OC_SILENCE_MS / 4 : MU_OC_SILENCE_MS;
}

int mu_oc_tick(struct mu_oc *o, int64_t now_ms)
{
    bool late = false;
    if (o->state == MU_ACP_BROKEN) {
        return o->err.code;
    }
    for (size_t i = 0; i < o->n_open; i++) {
        struct mu_oc_open *p = &o->open[i];
        p->since = p->since ? p->since : now_ms;
        late = late || (!p->told && now_ms - p->since >= MU_OC_HOLD_MS);
    }
    int r = late ? mu_oc_release(o, true) : 0;
    if (o->heard) {
        o->heard = false;
        o->heard_at = now_ms;
    }
    if (!r && o->state == MU_ACP_PROMPTED && now_ms - o->heard_at >= MU_OC_SILENCE_MS) {
        o->heard = true;
        o->settle = true;
        r = mu_oc_ask_status(o);
    }
    return r ? r : state(o);
}
