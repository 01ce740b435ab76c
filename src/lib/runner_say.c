/* What the host says of an execution: from any thread to the loop. */
#include <errno.h>
#include <stdio.h>

#include "base/clip.h"
#include "base/encode.h"
#include "lib/runner_int.h"

enum { WORDS_MAX = 128 << 10, TEXT_MAX = 64 << 10 };

enum say_kind {
    SAY_ACCEPT,
    SAY_REJECT,
    SAY_STATE,
    SAY_MESSAGE,
    SAY_STREAM,
    SAY_TERMINAL,
    SAY_ASK,
    SAY_ENDED
};

struct say {
    struct mu_post post;
    struct mu_cp_runner *r;
    enum say_kind kind;
    struct mu_execution of;
    int state;
    unsigned terminal;
    struct mu_id question;
    struct cp_said *said;  /* MESSAGE, ASK */
    struct mu_report *end; /* ENDED */
    size_t len;            /* STREAM, TERMINAL */
    char text[];
};

static void say_free(struct say *s)
{
    if (s) {
        mu_free(s->said);
        mu_report_free(s->end);
        mu_free(s);
    }
}

/* --- on the loop --- */

static void take_on(struct cp_exec *x)
{
    if (!x->accepted) {
        x->accepted = true;
        mu_lib_report(x, MU_REPORT_CLAIMED, 1, 0);
    }
}

/* States only go up; the end's number is above all of them. */
static void tell_state(struct cp_exec *x, int state)
{
    take_on(x);
    if (state > x->told) {
        x->told = state;
        mu_lib_report(x, MU_REPORT_STATE, state, state);
    }
}

static void tell_end(struct cp_exec *x, struct say *s)
{
    struct mu_report *r = s->end;
    take_on(x);
    x->ended = true;
    x->end_seq = MU_ST_COMPLETED;
    if (x->r->attached) {
        s->end = NULL;
        r->session = x->of.session;
        r->execution = x->of.execution;
        r->epoch = x->of.epoch;
        r->seq = x->end_seq;
        mu_fleet_tell(x->r->cp->d.fleet, r);
    }
}

/* In the place of one that is decided; the server lets fewer wait than there are places. */
static void note_open(struct cp_exec *x, const struct say *s)
{
    for (unsigned i = 0; i < MU_CP_OPEN; i++) {
        if (!x->open[i].text[0]) {
            x->open[i] = s->question;
            return;
        }
    }
    x->open[x->n_open++ % MU_CP_OPEN] = s->question;
}

static void say_it(struct cp_exec *x, struct say *s)
{
    mu_lib_talk_say(x, s->said);
    s->said = NULL;
}

static void on_loop(struct mu_post *post)
{
    struct say *s = MU_CONTAINER(post, struct say, post);
    struct cp_exec *x = mu_lib_exec_find(s->r, mu_id_bytes(&s->of.session));
    if (x && (x->of.epoch != s->of.epoch || x->ended)) {
        x = NULL; /* it is another attempt's by now */
    }
    if (!x) {
        say_free(s);
        return;
    }
    switch (s->kind) {
    case SAY_ACCEPT:
        take_on(x);
        break;
    case SAY_REJECT:
        mu_lib_report(x, MU_REPORT_REJECTED, 1, 0);
        mu_lib_exec_free(x);
        break;
    case SAY_STATE:
        tell_state(x, s->state);
        break;
    case SAY_ASK:
        note_open(x, s);
        say_it(x, s);
        break;
    case SAY_MESSAGE:
        if (s->state) { /* what it says only one that was started can say */
            tell_state(x, s->state);
        }
        say_it(x, s);
        break;
    case SAY_STREAM:
        mu_lib_talk_stream(x, mu_bytes_of(s->text, s->len));
        break;
    case SAY_TERMINAL:
        mu_lib_talk_terminal(x, s->terminal, mu_bytes_of(s->text, s->len));
        break;
    case SAY_ENDED:
        tell_end(x, s);
        break;
    }
    say_free(s);
}

/* --- on the host's threads --- */

/* Whether the runner holds it, and takes so much more; fills `of`. */
static mu_cp_status reserve(struct mu_cp_runner *r, mu_cp_str session, const struct say *s,
                            size_t bytes, struct mu_execution *of)
{
    bool message = s->said || s->kind == SAY_STREAM;
    struct mu_cp *cp = r->cp;
    pthread_mutex_lock(&cp->lock);
    struct cp_exec *x = mu_lib_exec_find(r, mu_cp_in(session));
    mu_cp_status status = MU_CP_SESSION_NOT_FOUND;
    if (x) {
        bool full = bytes && (x->kept + bytes > MU_CP_SAY_BYTES || x->says + message > MU_CP_SAYS);
        status = full ? MU_CP_UNAVAILABLE : MU_CP_OK;
    }
    if (status == MU_CP_OK) {
        x->kept += bytes;
        x->says += message;
        *of = x->of;
    }
    pthread_mutex_unlock(&cp->lock);
    return status;
}

static struct say *say_new(struct mu_cp_runner *r, enum say_kind kind, mu_bytes text)
{
    struct say *s = mu_alloc(sizeof *s + text.len);
    if (s) {
        memset(s, 0, sizeof *s);
        s->post.fn = on_loop;
        s->r = r;
        s->kind = kind;
        s->len = text.len;
        if (text.len) {
            memcpy(s->text, text.ptr, text.len);
        }
    }
    return s;
}

/* Takes `s`, which may be NULL: no memory. */
static mu_cp_status post(struct mu_cp_runner *r, mu_cp_str session, struct say *s, size_t bytes)
{
    struct mu_execution of;
    mu_cp_status status = s ? reserve(r, session, s, bytes, &of) : MU_CP_UNAVAILABLE;
    if (status != MU_CP_OK) {
        say_free(s);
        return status;
    }
    s->of = of;
    mu_loop_post(r->cp->loop, &s->post);
    return MU_CP_OK;
}

static mu_cp_status post_state(struct mu_cp_runner *r, mu_cp_str session, enum say_kind kind,
                               int state)
{
    struct say *s = say_new(r, kind, MU_B_NONE);
    if (s) {
        s->state = state;
    }
    return post(r, session, s, 0);
}

mu_cp_status mu_cp_runner_accept(mu_cp_runner *r, mu_cp_str session_id)
{
    return post_state(r, session_id, SAY_ACCEPT, 0);
}

mu_cp_status mu_cp_runner_reject(mu_cp_runner *r, mu_cp_str session_id)
{
    return post_state(r, session_id, SAY_REJECT, 0);
}

mu_cp_status mu_cp_runner_preparing(mu_cp_runner *r, mu_cp_str session_id)
{
    return post_state(r, session_id, SAY_STATE, MU_ST_PREPARING);
}

mu_cp_status mu_cp_runner_starting(mu_cp_runner *r, mu_cp_str session_id)
{
    return post_state(r, session_id, SAY_STATE, MU_ST_STARTING);
}

/* A message; `rest`: without its number. */
static mu_cp_status post_said(struct mu_cp_runner *r, mu_cp_str session, mu_bytes rest,
                              enum say_kind kind, int state, const struct mu_id *question)
{
    struct say *s = say_new(r, kind, MU_B_NONE);
    if (s) {
        s->state = state;
        s->question = question ? *question : (struct mu_id){0};
        s->said = mu_lib_said_new(rest);
        if (!s->said) {
            say_free(s);
            s = NULL;
        }
    }
    return post(r, session, s, rest.len);
}

/* --- messages: written here without their number and the brace before it --- */

struct message {
    struct mu_buf buf;
    struct mu_json_w w;
    bool bad; /* it holds what is no text */
};

static void begin(struct message *m, const char *type)
{
    m->bad = false;
    mu_buf_init(&m->buf, MU_CP_MESSAGE);
    m->w = mu_json_w(&m->buf);
    mu_jw_obj(&m->w);
    mu_jw_kcstr(&m->w, "type", type);
}

static void put(struct message *m, const char *key, mu_cp_str text)
{
    if (text.ptr) {
        m->bad = m->bad || !mu_utf8_valid(mu_cp_in(text));
        mu_jw_kstr(&m->w, key, mu_cp_in(text));
    }
}

/* What the host gives as JSON must be an object, and may become a member of another one. */
static const struct mu_json_limits object_limits = {.max_bytes = MU_CP_MESSAGE, .max_depth = 48};

static bool is_object(mu_bytes json)
{
    struct mu_arena a;
    yyjson_val *v = NULL;
    mu_arena_init(&a, 16 << 20);
    bool ok = mu_json_read(&a, json, &object_limits, &v, NULL) == 0 && yyjson_is_obj(v);
    mu_arena_fini(&a);
    return ok;
}

/* Whose turn it is to number it: a message that the protocol keeps without a number must not get
 * one, the next would be a hole. False: the host must not say that. */
static bool kind_of(mu_bytes json, enum say_kind *ret)
{
    struct mu_arena a;
    yyjson_val *v = NULL;
    mu_arena_init(&a, 16 << 20);
    bool ok = mu_json_read(&a, json, &object_limits, &v, NULL) == 0 && yyjson_is_obj(v);
    mu_bytes type = ok ? mu_json_get_bytes(v, "type") : MU_B_NONE;
    *ret = mu_bytes_is(type, "stream") ? SAY_STREAM : SAY_MESSAGE;
    ok = type.len && !mu_json_get(v, "seq") && !mu_bytes_is(type, "hello") &&
         !mu_bytes_is(type, "ping");
    mu_arena_fini(&a);
    return ok;
}

static mu_cp_status finish(struct mu_cp_runner *r, mu_cp_str session, struct message *m,
                           enum say_kind kind, int state, const struct mu_id *question)
{
    mu_jw_obj_end(&m->w);
    mu_bytes rest = mu_bytes_from(mu_buf_bytes(&m->buf), 1);
    mu_cp_status status = MU_CP_VALIDATION_ERROR;
    if (!m->buf.failed && !m->bad) {
        status = post_said(r, session, rest, kind, state, question);
    } else if (m->buf.failed == -ENOMEM) {
        status = MU_CP_UNAVAILABLE;
    }
    mu_buf_fini(&m->buf);
    return status;
}

mu_cp_status mu_cp_runner_running(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str provider_id,
                                  mu_cp_str workspace_path)
{
    struct message m;
    begin(&m, "boot");
    mu_jw_kcstr(&m.w, "step", "running");
    put(&m, "providerId", provider_id);
    put(&m, "workspacePath", workspace_path);
    mu_jw_kbool(&m.w, "resumed", false);
    return finish(r, session_id, &m, SAY_MESSAGE, MU_ST_STARTING, NULL);
}

mu_cp_status mu_cp_runner_terminal(mu_cp_runner *r, mu_cp_str session_id, unsigned terminal,
                                   mu_cp_str bytes)
{
    if (terminal >= MU_CP_TERMINALS || bytes.len > MU_CP_MESSAGE) {
        return MU_CP_VALIDATION_ERROR;
    }
    struct say *s = say_new(r, SAY_TERMINAL, mu_cp_in(bytes));
    if (s) {
        s->terminal = terminal;
    }
    return post(r, session_id, s, bytes.len);
}

mu_cp_status mu_cp_runner_words(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str turn_id,
                                mu_cp_str text)
{
    struct message m;
    if (text.len > WORDS_MAX) {
        return MU_CP_VALIDATION_ERROR;
    }
    struct mu_id id = mu_id_random(&r->cp->env);
    begin(&m, "result");
    put(&m, "turnId", turn_id);
    mu_jw_kcstr(&m.w, "messageId", id.text);
    mu_jw_kcstr(&m.w, "kind", "text");
    put(&m, "content", text);
    return finish(r, session_id, &m, SAY_MESSAGE, 0, NULL);
}

mu_cp_status mu_cp_runner_event(mu_cp_runner *r, mu_cp_str session_id, const char *type,
                                mu_cp_str data)
{
    struct message m;
    if (mu_event_type_parse(mu_str(type)) < MU_EV_FACTS || !is_object(mu_cp_in(data))) {
        return MU_CP_VALIDATION_ERROR;
    }
    begin(&m, "events");
    mu_jw_key(&m.w, "events");
    mu_jw_arr(&m.w);
    mu_jw_obj(&m.w);
    mu_jw_kcstr(&m.w, "type", type);
    mu_jw_kraw(&m.w, "data", mu_bytes_trim(mu_cp_in(data)));
    mu_jw_obj_end(&m.w);
    mu_jw_arr_end(&m.w);
    return finish(r, session_id, &m, SAY_MESSAGE, 0, NULL);
}

mu_cp_status mu_cp_runner_ask(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str turn_id,
                              const mu_cp_ask *ask, char *id)
{
    struct message m;
    if (!mu_gate_action_parse(mu_cp_in(ask->action)) || !ask->description.len ||
        (ask->risk.ptr && !mu_gate_risk_parse(mu_cp_in(ask->risk))) ||
        (ask->context.ptr && !is_object(mu_cp_in(ask->context)))) {
        return MU_CP_VALIDATION_ERROR;
    }
    struct mu_id question = mu_id_random(&r->cp->env);
    begin(&m, "question");
    mu_jw_kcstr(&m.w, "questionId", question.text);
    put(&m, "turnId", turn_id);
    mu_jw_kcstr(&m.w, "kind", "permission");
    put(&m, "text", ask->description);
    mu_jw_key(&m.w, "approval");
    mu_jw_obj(&m.w);
    put(&m, "action", ask->action);
    put(&m, "description", ask->description);
    put(&m, "risk", ask->risk);
    if (ask->context.ptr) {
        mu_jw_kraw(&m.w, "context", mu_bytes_trim(mu_cp_in(ask->context)));
    }
    mu_jw_obj_end(&m.w);
    put(&m, "requestKey", ask->request_key);
    mu_cp_status status = finish(r, session_id, &m, SAY_ASK, 0, &question);
    if (status == MU_CP_OK) {
        memcpy(id, question.text, sizeof question.text);
    }
    return status;
}

mu_cp_status mu_cp_runner_turn(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str turn_id,
                               const char *status, mu_cp_str error)
{
    static const char *const ends[] = {"done", "failed", "cancelled"};
    struct message m;
    bool thinks = strcmp(status, "thinking") == 0, over = false;
    for (size_t i = 0; i < MU_ARRAY_LEN(ends); i++) {
        over = over || strcmp(status, ends[i]) == 0;
    }
    if (!thinks && !over) {
        return MU_CP_VALIDATION_ERROR;
    }
    begin(&m, thinks ? "agentStatus" : "complete");
    put(&m, "turnId", turn_id);
    mu_jw_kcstr(&m.w, thinks ? "status" : "outcome", status);
    put(&m, "error", error);
    return finish(r, session_id, &m, SAY_MESSAGE, 0, NULL);
}

mu_cp_status mu_cp_runner_say(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str json)
{
    mu_bytes text = mu_bytes_trim(mu_cp_in(json));
    enum say_kind kind;
    if (!kind_of(text, &kind)) {
        return MU_CP_VALIDATION_ERROR;
    }
    if (kind == SAY_STREAM) {
        return post(r, session_id, say_new(r, kind, text), text.len);
    }
    return post_said(r, session_id, mu_bytes_from(text, 1), SAY_MESSAGE, 0, NULL);
}

static int fill_end(struct mu_cp_runner *r, const mu_cp_end *end, mu_bytes message,
                    struct mu_report **ret)
{
    int x = mu_report_new(MU_REPORT_ENDED, ret);
    if (x < 0) {
        return x;
    }
    struct mu_report *e = *ret;
    e->peer = &r->peer;
    e->dialect = MU_DIALECT_NATIVE;
    e->failed = end->failed != 0;
    e->has_exit_code = end->has_exit_code != 0;
    e->exit_code = end->exit_code;
    e->tokens_in = MU_MAX(end->tokens_in, 0);
    e->tokens_out = MU_MAX(end->tokens_out, 0);
    if (message.len) {
        e->message = mu_arena_dup(&e->arena, message);
        x = e->message.ptr ? 0 : -ENOMEM;
    }
    if (end->output.ptr) {
        mu_bytes first = mu_cp_in(end->output);
        mu_bytes last = mu_clip_of(&first, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
        mu_buf_add(&e->output, first);
        mu_buf_add(&e->output, last);
        e->output_total = (int64_t)end->output.len;
        e->has_output = true;
    }
    return x < 0 ? x : e->output.failed;
}

mu_cp_status mu_cp_runner_ended(mu_cp_runner *r, mu_cp_str session_id, const mu_cp_end *end)
{
    mu_bytes message = mu_utf8_cut(mu_cp_in(end->message), TEXT_MAX);
    if (!mu_utf8_valid(message)) {
        return MU_CP_VALIDATION_ERROR;
    }
    struct say *s = say_new(r, SAY_ENDED, MU_B_NONE);
    if (s && fill_end(r, end, message, &s->end) < 0) {
        say_free(s);
        s = NULL;
    }
    return post(r, session_id, s, 0);
}
