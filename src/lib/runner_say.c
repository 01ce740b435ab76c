/* What the host says of an execution: from any thread to the loop. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "lib/runner_int.h"

enum { WORDS_MAX = 128 << 10, OUTPUT_MAX = 8 << 20, TEXT_MAX = 64 << 10 };

enum say_kind { SAY_ACCEPT, SAY_REJECT, SAY_STATE, SAY_MESSAGE, SAY_TERMINAL, SAY_ASK, SAY_ENDED };

struct say {
    struct mu_post post;
    struct mu_cp_runner *r;
    enum say_kind kind;
    struct mu_execution of;
    int state;
    unsigned terminal;
    struct mu_id question;
    mu_cp_end end;
    size_t len, output_len; /* ENDED: the message, then the output */
    char text[];
};

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

static void tell_end(struct cp_exec *x, const struct say *s)
{
    struct mu_report *r;
    take_on(x);
    x->ended = true;
    x->end_seq = MU_ST_COMPLETED;
    if (!x->r->attached || mu_lib_report_new(x, MU_REPORT_ENDED, &r) < 0) {
        return;
    }
    r->seq = x->end_seq;
    r->failed = s->end.failed != 0;
    r->has_exit_code = s->end.has_exit_code != 0;
    r->exit_code = s->end.exit_code;
    r->tokens_in = MU_MAX(s->end.tokens_in, 0);
    r->tokens_out = MU_MAX(s->end.tokens_out, 0);
    mu_bytes message = mu_bytes_of(s->text, s->len);
    r->message = message.len ? mu_arena_dup(&r->arena, message) : MU_B_NONE;
    if (s->end.output.ptr) {
        mu_buf_add(&r->output, mu_bytes_of(s->text + s->len, s->output_len));
        r->output_total = (int64_t)s->end.output.len;
        r->has_output = !r->output.failed;
    }
    mu_fleet_tell(x->r->cp->fleet, r);
}

static void note_open(struct cp_exec *x, const struct say *s)
{
    x->open[x->n_open++ % MU_CP_OPEN] = s->question;
}

static void on_loop(struct mu_post *post)
{
    struct say *s = MU_CONTAINER(post, struct say, post);
    struct cp_exec *x = mu_lib_exec_find(s->r, mu_id_bytes(&s->of.session));
    if (x && (x->of.epoch != s->of.epoch || x->ended)) {
        x = NULL; /* it is another attempt's by now */
    }
    if (!x) {
        mu_free(s);
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
        mu_lib_talk_say(x, mu_bytes_of(s->text, s->len));
        break;
    case SAY_MESSAGE:
        if (s->state) { /* what it says only one that was started can say */
            tell_state(x, s->state);
        }
        mu_lib_talk_say(x, mu_bytes_of(s->text, s->len));
        break;
    case SAY_TERMINAL:
        mu_lib_talk_terminal(x, s->terminal, mu_bytes_of(s->text, s->len));
        break;
    case SAY_ENDED:
        tell_end(x, s);
        break;
    }
    mu_free(s);
}

/* --- on the host's threads --- */

/* Whether the runner holds it, and takes so much more; fills `of`. */
static mu_cp_status reserve(struct mu_cp_runner *r, mu_cp_str session, size_t bytes,
                            struct mu_execution *of)
{
    struct mu_cp *cp = r->cp;
    pthread_mutex_lock(&cp->lock);
    struct cp_exec *x = mu_lib_exec_find(r, mu_cp_in(session));
    mu_cp_status status = !x                                  ? MU_CP_SESSION_NOT_FOUND
                          : x->kept + bytes > MU_CP_SAY_BYTES ? MU_CP_UNAVAILABLE
                                                              : MU_CP_OK;
    if (status == MU_CP_OK) {
        x->kept += bytes;
        *of = x->of;
    }
    pthread_mutex_unlock(&cp->lock);
    return status;
}

static struct say *say_new(struct mu_cp_runner *r, enum say_kind kind, mu_bytes text, size_t room)
{
    struct say *s = mu_alloc(sizeof *s + text.len + room);
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
    mu_cp_status status = s ? reserve(r, session, bytes, &of) : MU_CP_UNAVAILABLE;
    if (status != MU_CP_OK) {
        mu_free(s);
        return status;
    }
    s->of = of;
    mu_loop_post(r->cp->loop, &s->post);
    return MU_CP_OK;
}

static mu_cp_status post_state(struct mu_cp_runner *r, mu_cp_str session, enum say_kind kind,
                               int state)
{
    struct say *s = say_new(r, kind, MU_B_NONE, 0);
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

/* --- messages: written here without their number and the brace before it --- */

struct message {
    struct mu_buf buf;
    struct mu_json_w w;
};

static void begin(struct message *m, const char *type)
{
    mu_buf_init(&m->buf, MU_CP_MESSAGE);
    m->w = mu_json_w(&m->buf);
    mu_jw_obj(&m->w);
    mu_jw_kcstr(&m->w, "type", type);
}

static void put(struct message *m, const char *key, mu_cp_str text)
{
    if (text.ptr) {
        mu_jw_kstr(&m->w, key, mu_cp_in(text));
    }
}

/* What the host gives as JSON must be an object. */
static bool is_object(mu_bytes json, bool with_type)
{
    static const struct mu_json_limits limits = {.max_bytes = MU_CP_MESSAGE, .max_depth = 64};
    struct mu_arena a;
    yyjson_val *v = NULL;
    mu_arena_init(&a, 16 << 20);
    bool ok = mu_json_read(&a, json, &limits, &v, NULL) == 0 && yyjson_is_obj(v) &&
              (!with_type || (mu_json_get_bytes(v, "type").len && !mu_json_get(v, "seq")));
    mu_arena_fini(&a);
    return ok;
}

static mu_cp_status finish(struct mu_cp_runner *r, mu_cp_str session, struct message *m,
                           enum say_kind kind, int state, const struct mu_id *question)
{
    mu_jw_obj_end(&m->w);
    mu_bytes rest = mu_bytes_from(mu_buf_bytes(&m->buf), 1);
    mu_cp_status status = MU_CP_VALIDATION_ERROR;
    if (!m->buf.failed) {
        struct say *s = say_new(r, kind, rest, 0);
        if (s) {
            s->state = state;
            s->question = question ? *question : (struct mu_id){0};
        }
        status = post(r, session, s, rest.len);
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
    struct say *s = say_new(r, SAY_TERMINAL, mu_cp_in(bytes), 0);
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
    if (mu_event_type_parse(mu_str(type)) < MU_EV_FACTS || !is_object(mu_cp_in(data), false)) {
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
        (ask->context.ptr && !is_object(mu_cp_in(ask->context), false))) {
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
    if (!is_object(text, true)) {
        return MU_CP_VALIDATION_ERROR;
    }
    mu_bytes rest = mu_bytes_from(text, 1);
    return post(r, session_id, say_new(r, SAY_MESSAGE, rest, 0), rest.len);
}

mu_cp_status mu_cp_runner_ended(mu_cp_runner *r, mu_cp_str session_id, const mu_cp_end *end)
{
    mu_bytes message = mu_utf8_cut(mu_cp_in(end->message), TEXT_MAX);
    mu_bytes output = mu_bytes_head(mu_cp_in(end->output), OUTPUT_MAX);
    if (!mu_utf8_valid(message)) {
        return MU_CP_VALIDATION_ERROR;
    }
    struct say *s = say_new(r, SAY_ENDED, message, output.len);
    if (s) {
        s->end = *end;
        s->output_len = output.len;
        if (output.len) {
            memcpy(s->text + s->len, output.ptr, output.len);
        }
    }
    return post(r, session_id, s, 0);
}
