/* What runners say becomes facts, in their order: messages wait in a list, and one unit at a time
 * stores as many of them as it may. Only what is stored is acknowledged. */
#include <errno.h>
#include <stdio.h>

#include "app/live/sleeper_int.h"
#include "base/encode.h"

enum { FACT_TEXT = 12 << 10, FACT_BUF = 15 << 10, EVENTS_MAX = 64, REFUSED_MAX = 2 };

static const struct mu_json_limits limits = {.max_bytes = MU_LIVE_MESSAGE, .max_depth = 64};

/* --- coming in --- */

static void say_pong(struct mu_live_session *s)
{
    struct mu_buf b;
    mu_buf_init(&b, 256);
    struct mu_json_w w = mu_live_begin(&b, "pong");
    mu_jw_obj_end(&w);
    (void)mu_live_send(s, &b);
    mu_buf_fini(&b);
}

/* Words that stream are shown and not kept: the whole segment comes as `result`. */
static void show_stream(struct mu_live_session *s, yyjson_val *m, mu_bytes json)
{
    struct mu_feed *feed = s->l->opts.feed;
    if (!mu_feed_watched(feed, mu_id_bytes(&s->id))) {
        return;
    }
    struct mu_event *e = mu_event_new(MU_EV_TEXT, 0, mu_live_now(s->l),
                                      mu_json_get_i64(m, "offset", 0), s->of.epoch, json);
    if (e) {
        mu_feed_publish(feed, mu_id_bytes(&s->id), e);
        mu_event_unref(e);
    }
}

static void keep(struct mu_live_session *s, int64_t seq, mu_bytes json)
{
    if (seq <= s->queued_seq) {
        if (seq <= s->stored_seq) {
            mu_live_ack(s, s->stored_seq);
        }
        return;
    }
    if (seq != s->queued_seq + 1) {
        mu_live_drop(s, "a hole in its numbers");
        return;
    }
    if (s->in_count >= MU_LIVE_IN_COUNT || s->in_bytes + json.len > MU_LIVE_IN_BYTES) {
        mu_live_drop(s, "more than was acknowledged is under way");
        return;
    }
    struct mu_live_in *in = mu_alloc(sizeof *in + json.len);
    if (!in) {
        mu_live_drop(s, "out of memory");
        return;
    }
    in->seq = seq;
    in->len = json.len;
    memcpy(in->text, json.ptr, json.len);
    mu_list_push(&s->in, &in->link);
    s->in_bytes += in->len;
    s->in_count++;
    s->queued_seq = seq;
    if (s->task == MU_LIVE_IDLE && s->phase == MU_LIVE_TALKING) {
        mu_live_next(s);
    }
}

void mu_live_message(struct mu_live_session *s, mu_bytes json)
{
    struct mu_arena a;
    yyjson_val *m = NULL;
    mu_arena_init(&a, 4 * MU_LIVE_MESSAGE);
    if (mu_json_read(&a, json, &limits, &m, NULL) == 0) {
        mu_bytes type = mu_json_get_bytes(m, "type");
        int64_t seq = mu_json_get_i64(m, "seq", 0);
        if (mu_bytes_is(type, "ping")) {
            say_pong(s);
        } else if (mu_bytes_is(type, "stream")) {
            show_stream(s, m, json);
        } else if (seq > 0) {
            keep(s, seq, json);
        }
    }
    mu_arena_fini(&a);
}

/* --- facts --- */

struct batch {
    struct mu_live_session *s;
    struct mu_session_report *op;
    int failed;
};

static bool full(const struct batch *b, size_t more)
{
    return b->op->n_facts + more > MU_LIVE_BATCH;
}

/* The text of a fact is cut rather than refused: what the agent did is a fact all the same. */
static mu_bytes cut(mu_bytes text)
{
    return mu_utf8_cut(text, FACT_TEXT);
}

static void add_fact(struct batch *b, int type, struct mu_buf *json)
{
    struct mu_live_session *s = b->s;
    mu_bytes data = json->failed ? MU_B("{\"truncated\":true}") : mu_buf_bytes(json);
    mu_bytes copy = mu_arena_dup(&s->arena, data);
    if (!copy.ptr) {
        b->failed = -ENOMEM;
        return;
    }
    s->facts[b->op->n_facts++] = (struct mu_fact){type, copy};
}

static void put_text(struct mu_json_w *w, yyjson_val *m, const char *from, const char *to)
{
    mu_bytes text = mu_json_get_bytes(m, from);
    if (text.len) {
        mu_jw_kstr(w, to, cut(text));
        if (text.len > FACT_TEXT) {
            mu_jw_kbool(w, "truncated", true);
        }
    }
}

static void put_value(struct mu_json_w *w, yyjson_val *m, const char *key)
{
    yyjson_val *v = mu_json_get(m, key);
    if (yyjson_is_str(v)) {
        put_text(w, m, key, key);
    } else if (v) {
        struct mu_buf b;
        mu_buf_init(&b, FACT_TEXT);
        mu_json_add(&b, v);
        if (b.failed) {
            mu_jw_kbool(w, "truncated", true);
        } else {
            mu_jw_kraw(w, key, mu_buf_bytes(&b));
        }
        mu_buf_fini(&b);
    }
}

static void fact(struct batch *b, int type, yyjson_val *m, const char *const *keys)
{
    struct mu_buf json;
    mu_buf_init(&json, FACT_BUF);
    struct mu_json_w w = mu_json_w(&json);
    mu_jw_obj(&w);
    for (; *keys; keys += 2) {
        if (keys[1]) {
            put_text(&w, m, keys[0], keys[1]);
        }
    }
    mu_jw_obj_end(&w);
    add_fact(b, type, &json);
    mu_buf_fini(&json);
}

/* --- by type: false = it begins the next unit --- */

static bool take_boot(struct batch *b, yyjson_val *m)
{
    static const char *const step[] = {"type",   "type",   "step", "step",
                                       "detail", "detail", NULL,   NULL};
    struct mu_session_report *op = b->op;
    if (!mu_bytes_is(mu_json_get_bytes(m, "step"), "running")) {
        fact(b, MU_EV_PROVIDER_EVENT_FORWARDED, m, step);
        return true;
    }
    if (op->running) {
        return false;
    }
    struct mu_buf json;
    mu_buf_init(&json, FACT_BUF);
    struct mu_json_w w = mu_json_w(&json);
    mu_jw_obj(&w);
    put_text(&w, m, "providerId", "providerId");
    put_text(&w, m, "providerVersion", "providerVersion");
    put_text(&w, m, "adapter", "adapter");
    put_text(&w, m, "workspacePath", "workspacePath");
    mu_jw_kbool(&w, "resumed", mu_json_get_bool(m, "resumed", false));
    mu_jw_obj_end(&w);
    op->running = true;
    op->started = mu_arena_dup(&b->s->arena, mu_buf_bytes(&json));
    b->failed = op->started.ptr && !json.failed ? b->failed : -ENOMEM;
    mu_buf_fini(&json);
    mu_bytes conversation = mu_json_get_bytes(m, "conversationId");
    if (conversation.len && conversation.len <= 512) {
        op->conversation = mu_arena_dup(&b->s->arena, conversation);
    }
    if (b->s->limit_ms > 0) {
        op->run_deadline_ms = mu_live_now(b->s->l) + b->s->limit_ms;
    }
    return true;
}

static bool known_tool(struct mu_live_session *s, mu_bytes id)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(s->tools); i++) {
        if (s->tools[i][0] && mu_bytes_is(id, s->tools[i])) {
            return true;
        }
    }
    return false;
}

static bool take_tool(struct batch *b, yyjson_val *m)
{
    static const char *const keys[] = {"toolName", "title", "kind", "turnId", NULL};
    struct mu_live_session *s = b->s;
    mu_bytes status = mu_json_get_bytes(m, "status");
    mu_bytes id = mu_utf8_cut(mu_json_get_bytes(m, "callID"), sizeof s->tools[0] - 1);
    bool over = mu_bytes_is(status, "completed") || mu_bytes_is(status, "failed");
    bool known = known_tool(s, id);
    if (full(b, 2)) {
        return false;
    }
    struct mu_buf json;
    mu_buf_init(&json, FACT_BUF);
    if (!known) {
        struct mu_json_w w = mu_json_w(&json);
        mu_jw_obj(&w);
        mu_jw_kstr(&w, "requestId", id);
        for (size_t i = 0; keys[i]; i++) {
            put_text(&w, m, keys[i], keys[i]);
        }
        put_value(&w, m, "args");
        put_value(&w, m, "paths");
        mu_jw_obj_end(&w);
        add_fact(b, MU_EV_TOOL_CALL, &json);
        snprintf(s->tools[s->n_tools++ % MU_LIVE_TOOLS], sizeof s->tools[0], "%.*s", MU_ARGS(id));
    }
    if (over) {
        mu_buf_clear(&json);
        struct mu_json_w w = mu_json_w(&json);
        mu_jw_obj(&w);
        mu_jw_kstr(&w, "requestId", id);
        mu_jw_kbool(&w, "ok", mu_bytes_is(status, "completed"));
        put_value(&w, m, "result");
        mu_jw_obj_end(&w);
        add_fact(b, MU_EV_TOOL_RESULT, &json);
    }
    mu_buf_fini(&json);
    return true;
}

static bool take_events(struct batch *b, yyjson_val *m)
{
    yyjson_val *list = mu_json_get(m, "events"), *item;
    size_t n = MU_MIN(yyjson_arr_size(list), (size_t)EVENTS_MAX), i, all;
    if (full(b, n)) {
        return false;
    }
    yyjson_arr_foreach(list, i, all, item)
    {
        int type = mu_event_type_parse(mu_json_get_bytes(item, "type"));
        struct mu_buf json;
        if (i >= n || type < MU_EV_FACTS || type >= MU_EV_DELTA) {
            continue;
        }
        mu_buf_init(&json, FACT_BUF);
        yyjson_val *data = mu_json_get(item, "data");
        if (yyjson_is_obj(data)) {
            mu_json_add(&json, data);
        } else {
            mu_buf_add_str(&json, "{}");
        }
        add_fact(b, type, &json);
        if (type == MU_EV_DIFF_SUMMARY && b->op->n_facts) {
            b->op->diff = b->s->facts[b->op->n_facts - 1].data;
        }
        mu_buf_fini(&json);
    }
    return true;
}

static bool take_usage(struct batch *b, yyjson_val *usage)
{
    struct mu_session_report *op = b->op;
    if (yyjson_is_obj(usage)) {
        op->has_usage = true;
        op->tokens_in = MU_MAX(mu_json_get_i64(usage, "tokensIn", 0), op->tokens_in);
        op->tokens_out = MU_MAX(mu_json_get_i64(usage, "tokensOut", 0), op->tokens_out);
        op->api_calls = MU_MAX(mu_json_get_i64(usage, "apiCalls", 0), op->api_calls);
        op->compute_ms = MU_MAX(mu_json_get_i64(usage, "computeMs", 0), op->compute_ms);
    }
    return true;
}

/* The turn that the message is about: an interactive session's own, or none of a task. */
static bool take_turn(struct batch *b, yyjson_val *m, int state)
{
    struct mu_session_report *op = b->op;
    struct mu_id turn;
    if (b->s->mode != MU_MODE_INTERACTIVE ||
        mu_id_parse(mu_json_get_bytes(m, "turnId"), NULL, &turn) < 0) {
        return true; /* the one turn of a task has no row */
    }
    if (op->turn_state) {
        return false;
    }
    op->turn = turn;
    op->turn_state = state;
    return true;
}

static bool take_complete(struct batch *b, yyjson_val *m)
{
    static const char *const keys[] = {"outcome", "stopReason", "error", "type", "turnId"};
    mu_bytes outcome = mu_json_get_bytes(m, "outcome");
    int state = mu_bytes_is(outcome, "done")     ? MU_TURN_DONE
                : mu_bytes_is(outcome, "failed") ? MU_TURN_FAILED
                                                 : MU_TURN_CANCELLED;
    if (full(b, 1) || !take_turn(b, m, state)) {
        return false;
    }
    struct mu_buf json;
    mu_buf_init(&json, FACT_BUF);
    struct mu_json_w w = mu_json_w(&json);
    bool own = b->op->turn_state == state; /* else the one turn of a task */
    mu_jw_obj(&w);
    if (own) {
        mu_jw_kcstr(&w, "turn", b->op->turn.text);
        mu_jw_ki64(&w, "state", state);
    }
    for (size_t i = 0; i < (own ? 3 : MU_ARRAY_LEN(keys)); i++) {
        put_text(&w, m, keys[i], keys[i]);
    }
    mu_jw_obj_end(&w);
    if (own) {
        b->op->turn_end = mu_arena_dup(&b->s->arena, mu_buf_bytes(&json));
        b->failed = b->op->turn_end.ptr ? b->failed : -ENOMEM;
    } else {
        add_fact(b, MU_EV_PROVIDER_EVENT_FORWARDED, &json);
    }
    mu_buf_fini(&json);
    return take_usage(b, mu_json_get(m, "usage"));
}

static bool take(struct batch *b, yyjson_val *m)
{
    static const char *const words[] = {"kind",      "kind",   "content", "text", "messageId",
                                        "messageId", "turnId", "turnId",  NULL,   NULL};
    static const char *const error[] = {"error", "description", "turnId", "turnId", NULL, NULL};
    static const char *const exited[] = {"type", "type", "message", "message", NULL, NULL};
    mu_bytes type = mu_json_get_bytes(m, "type");
    if (full(b, 1)) {
        return false;
    }
    if (mu_bytes_is(type, "boot")) {
        return take_boot(b, m);
    }
    if (mu_bytes_is(type, "tool")) {
        return take_tool(b, m);
    }
    if (mu_bytes_is(type, "events")) {
        return take_events(b, m);
    }
    if (mu_bytes_is(type, "complete")) {
        return take_complete(b, m);
    }
    if (mu_bytes_is(type, "agentStatus")) {
        return take_turn(b, m, MU_TURN_ACCEPTED);
    }
    if (mu_bytes_is(type, "result")) {
        fact(b, MU_EV_AGENT_MESSAGE, m, words);
    } else if (mu_bytes_is(type, "error")) {
        fact(b, MU_EV_ALERT_RAISED, m, error);
    } else if (mu_bytes_is(type, "exited")) {
        fact(b, MU_EV_PROVIDER_EVENT_FORWARDED, m, exited);
    } else if (mu_bytes_is(type, "diff") || mu_bytes_is(type, "terminal")) {
        mu_live_call_answer(b->s, m);
    } else if (mu_bytes_is(type, "hibernate")) {
        mu_sleeper_said(b->s, m);
    } /* of another version: its number is taken */
    return true;
}

/* --- storing --- */

void mu_live_stored(struct mu_live_session *s)
{
    s->refused = 0;
    for (; s->taken; s->taken--) {
        struct mu_live_in *in = MU_CONTAINER(mu_list_pop(&s->in), struct mu_live_in, link);
        s->stored_seq = in->seq;
        s->in_bytes -= in->len;
        s->in_count--;
        mu_free(in);
    }
}

static void moved(struct mu_live_session *s, int state)
{
    s->state = state;
    mu_fleet_moved(s->l->opts.fleet, &s->of, state);
}

static bool lost(int result)
{
    return result == MU_E_STALE || result == MU_E_NOT_FOUND;
}

/* It would fail again, for what it is. */
static bool is_refusal(int result)
{
    return result == MU_E_INVALID || result == MU_E_TOO_LARGE || result == MU_E_CONFLICT ||
           result == MU_E_EXISTS || result == MU_E_CONSTRAINT || result == MU_E_LIMIT;
}

/* What was not stored: when the attempt is over nobody needs it; what is refused is tried once more
 * by itself and then left out; else its runner says it again. */
void mu_live_not_stored(struct mu_live_session *s, int result)
{
    s->taken = 0;
    s->refused += is_refusal(result);
    if (!s->over && !(is_refusal(result) && s->refused <= REFUSED_MAX)) {
        mu_live_drop(s, lost(result) ? "its attempt is over" : "it was not stored");
    }
}

static void reported(struct mu_session_report *op, int result)
{
    struct mu_live_session *s = op->ctx;
    if (result < 0) {
        mu_live_not_stored(s, result);
        mu_live_next(s);
        return;
    }
    mu_live_stored(s);
    if (!s->over) {
        mu_live_ack(s, s->stored_seq);
        if (op->running) {
            moved(s, MU_ST_RUNNING);
            s->want_turn = true;
        }
        if (op->turn_state >= MU_TURN_DONE) {
            s->turn.text[0] = 0;
            s->turn_there = false;
            s->want_turn = true;
        }
    }
    mu_live_next(s);
}

/* A message that the database refused twice is left out, or nothing behind it were ever stored. */
static bool leave_out(struct batch *b, yyjson_val *m)
{
    struct mu_buf json;
    mu_buf_init(&json, FACT_BUF);
    struct mu_json_w w = mu_json_w(&json);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "kind", "runner_message");
    mu_jw_kcstr(&w, "description", "a message of the runner could not be stored and was left out");
    put_text(&w, m, "type", "message");
    mu_jw_obj_end(&w);
    add_fact(b, MU_EV_ALERT_RAISED, &json);
    mu_buf_fini(&json);
    mu_log(MU_LOG_WARN, "runner.message_left_out", MU_KS("session_id", mu_id_bytes(&b->s->id)),
           MU_KS("type", mu_json_get_bytes(m, "type")));
    return true;
}

/* Whether it has a unit of its own. */
static bool is_alone(mu_bytes type)
{
    return mu_bytes_is(type, "question") || mu_bytes_is(type, "answered") ||
           mu_bytes_is(type, "checkpoint");
}

/* Messages from the head on, until one must wait for the next unit. */
static size_t gather(struct batch *b, int64_t *ret_seq)
{
    size_t taken = 0, most = b->s->refused ? 1 : MU_LIVE_BATCH;
    bool bad = b->s->refused >= REFUSED_MAX;
    MU_LIST_EACH(it, tmp, &b->s->in)
    {
        struct mu_live_in *in = MU_CONTAINER(it, struct mu_live_in, link);
        struct mu_arena a;
        yyjson_val *m = NULL;
        mu_arena_init(&a, 4 * MU_LIVE_MESSAGE);
        bool taking = false;
        if (mu_json_read(&a, mu_bytes_of(in->text, in->len), &limits, &m, NULL) == 0) {
            mu_bytes type = mu_json_get_bytes(m, "type");
            taking = taken < most && (bad ? leave_out(b, m) : !is_alone(type) && take(b, m));
        }
        mu_arena_fini(&a);
        if (!taking || b->failed) {
            break;
        }
        *ret_seq = in->seq;
        taken++;
    }
    return taken;
}

static bool store_facts(struct mu_live_session *s)
{
    struct mu_session_report *op = &s->op.report;
    *op = (struct mu_session_report){.unit = {.loop = s->l->opts.core},
                                     .id = s->id,
                                     .epoch = s->of.epoch,
                                     .seq_before = s->stored_seq,
                                     .facts = s->facts,
                                     .done = reported,
                                     .ctx = s};
    struct batch b = {s, op, 0};
    s->taken = gather(&b, &op->seq);
    if (!s->taken) {
        return false;
    }
    s->task = MU_LIVE_REPORTING;
    if (b.failed || mu_session_report(s->l->opts.sessions, op) < 0) {
        s->task = MU_LIVE_IDLE;
        mu_live_not_stored(s, MU_E_UNAVAILABLE);
    }
    return true;
}

/* --- gates --- */

static void asked(struct mu_gate_ask *op, int result)
{
    struct mu_live_session *s = op->ctx;
    if (result < 0) {
        mu_live_not_stored(s, result);
        mu_live_next(s);
        return;
    }
    mu_live_stored(s);
    if (op->status == MU_GATE_PENDING) {
        mu_live_gate_opened(s->l, &op->id, &s->id, op->expires_ms, s->expiry_stops);
        s->state = s->state == MU_ST_RUNNING ? MU_ST_WAITING : s->state;
    }
    if (!s->over) {
        mu_live_ack(s, s->stored_seq);
        if (op->carried) {
            s->want_answers = true; /* what was decided of it before it was asked for again */
        } else if (op->status != MU_GATE_PENDING) {
            mu_live_refuse(s, &s->gate, op->status, op->reason);
        }
    }
    mu_live_next(s);
}

/* What people see of a gate besides its text. */
static void gate_texts(yyjson_val *m, bool permission, struct mu_buf *context,
                       struct mu_buf *options)
{
    yyjson_val *approval = mu_json_get(m, "approval"), *c = mu_json_get(approval, "context");
    if (permission) {
        mu_json_add(context, yyjson_is_obj(c) ? c : approval);
    } else {
        mu_buf_add_str(context,
                       yyjson_get_bool(mu_json_get(m, "multiple")) ? "{\"multiple\":true}" : "{}");
    }
    mu_json_add(options, mu_json_get(m, "options"));
}

static bool ask(struct mu_live_session *s, yyjson_val *m, int64_t seq)
{
    yyjson_val *approval = mu_json_get(m, "approval");
    struct mu_arena *a = &s->arena;
    int64_t now = mu_live_now(s->l), hint = mu_json_get_i64(m, "expiresAt", 0);
    if (mu_id_parse(mu_json_get_bytes(m, "questionId"), NULL, &s->gate) < 0) {
        mu_live_drop(s, "a question without an id");
        return true;
    }
    bool permission = !mu_bytes_is(mu_json_get_bytes(m, "kind"), "question");
    struct mu_buf context, options;
    mu_buf_init(&context, MU_GATE_CONTEXT_MAX);
    mu_buf_init(&options, MU_GATE_CONTEXT_MAX);
    gate_texts(m, permission, &context, &options);
    mu_bytes text = mu_json_get_bytes(approval, "description");
    text = text.len ? text : mu_json_get_bytes(m, "text");
    mu_bytes key = mu_json_get_bytes(m, "requestKey");
    struct mu_digest_hex hex = mu_sha256_hex(key.len ? key : mu_id_bytes(&s->gate));
    int action = mu_gate_action_parse(mu_json_get_bytes(approval, "action"));
    action = action ? action : MU_ACT_TOOL;
    int risk = mu_gate_risk_parse(mu_json_get_bytes(approval, "risk"));
    struct mu_gate_ask *op = &s->op.ask;
    *op = (struct mu_gate_ask){
        .unit = {.loop = s->l->opts.core},
        .session = s->id,
        .epoch = s->of.epoch,
        .runner_seq = seq,
        .fresh = s->gate,
        .kind = permission ? MU_GATE_APPROVAL : MU_GATE_QUESTION,
        .action = permission ? action : 0, /* a question does nothing */
        .risk = risk ? risk : MU_RISK_MED,
        .request_key = mu_arena_dup(a, mu_str(hex.text)),
        .description = mu_arena_dup(a, mu_utf8_cut(text.len ? text : MU_B("?"), MU_GATE_TEXT_MAX)),
        .context =
            context.failed ? MU_B("{\"truncated\":true}") : mu_arena_dup(a, mu_buf_bytes(&context)),
        .options = options.failed || options.len <= 4 ? MU_B_NONE
                                                      : mu_arena_dup(a, mu_buf_bytes(&options)),
        .turn_id = mu_arena_dup(a, mu_utf8_cut(mu_json_get_bytes(m, "turnId"), 40)),
        .expires_ms =
            hint > now ? MU_MIN(hint, now + s->l->opts.gate_ms) : now + s->l->opts.gate_ms,
        .votes_needed = 1,
        .by = MU_B("runner"),
        .done = asked,
        .ctx = s};
    mu_buf_fini(&context);
    mu_buf_fini(&options);
    bool ok = op->request_key.ptr && op->description.ptr && op->context.ptr && op->turn_id.ptr;
    s->taken = 1;
    s->task = MU_LIVE_ASKING;
    if (!ok || mu_gate_ask(s->l->opts.sessions, op) < 0) {
        s->task = MU_LIVE_IDLE;
        mu_live_not_stored(s, MU_E_UNAVAILABLE);
    }
    return true;
}

/* That the runner has a decision is stored first, then the number of its message. */
static void delivered(struct mu_gate_delivered *op, int result)
{
    struct mu_live_session *s = op->ctx;
    if (s->l->stopping) { /* its runner says it to the next process */
        s->taken = 0;
        mu_live_next(s);
        return;
    }
    if (result < 0 && !lost(result)) {
        mu_live_not_stored(s, result);
        mu_live_next(s);
        return;
    }
    if (op->state) { /* nobody waits for it any more */
        mu_live_gate_closed(s->l, &op->found);
        s->state = s->state == MU_ST_WAITING ? op->state : s->state;
    }
    struct mu_session_report *next = &s->op.report;
    *next = (struct mu_session_report){.unit = {.loop = s->l->opts.core},
                                       .id = s->id,
                                       .epoch = s->of.epoch,
                                       .seq_before = s->stored_seq,
                                       .seq = s->stored_seq + 1,
                                       .facts = s->facts,
                                       .done = reported,
                                       .ctx = s};
    s->task = MU_LIVE_REPORTING;
    if (mu_session_report(s->l->opts.sessions, next) < 0) {
        mu_live_not_stored(s, MU_E_UNAVAILABLE);
        mu_live_next(s);
    }
}

static bool deliver(struct mu_live_session *s, yyjson_val *m)
{
    struct mu_id gate;
    struct mu_gate_delivered *op = &s->op.delivered;
    if (mu_id_parse(mu_json_get_bytes(m, "questionId"), NULL, &gate) < 0) {
        mu_live_drop(s, "an answer to no question");
        return true;
    }
    *op = (struct mu_gate_delivered){.unit = {.loop = s->l->opts.core},
                                     .session = s->id,
                                     .gate = gate,
                                     .epoch = s->of.epoch,
                                     .unwanted = !mu_json_get_bool(m, "taken", true),
                                     .done = delivered,
                                     .ctx = s};
    s->taken = 1;
    s->task = MU_LIVE_DELIVERING;
    if (mu_gate_delivered(s->l->opts.sessions, op) < 0) {
        s->task = MU_LIVE_IDLE;
        mu_live_not_stored(s, MU_E_UNAVAILABLE);
    }
    return true;
}

bool mu_live_store(struct mu_live_session *s)
{
    if (mu_list_empty(&s->in)) {
        return false;
    }
    if (store_facts(s)) {
        return true;
    }
    const struct mu_live_in *in = MU_CONTAINER(s->in.next, struct mu_live_in, link);
    struct mu_arena a;
    yyjson_val *m = NULL;
    mu_arena_init(&a, 4 * MU_LIVE_MESSAGE);
    bool begun = true;
    if (mu_json_read(&a, mu_bytes_of(in->text, in->len), &limits, &m, NULL) < 0) {
        mu_live_drop(s, "out of memory");
    } else if (mu_bytes_is(mu_json_get_bytes(m, "type"), "question")) {
        begun = ask(s, m, in->seq);
    } else if (mu_bytes_is(mu_json_get_bytes(m, "type"), "checkpoint")) {
        begun = mu_live_checkpoint(s, m, in->seq);
    } else {
        begun = deliver(s, m);
    }
    mu_arena_fini(&a);
    return begun;
}
