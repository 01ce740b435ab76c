/* What runners are told (docs/runner-protocol.md). */
#include "app/live/live_int.h"

enum { INIT_MAX = 512 << 10, SMALL = 1024 };

struct mu_json_w mu_live_begin(struct mu_buf *b, const char *type)
{
    struct mu_json_w w = mu_json_w(b);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "type", type);
    return w;
}

bool mu_live_send(struct mu_live_session *s, struct mu_buf *json)
{
    if (json->failed || s->over) {
        return false;
    }
    return mu_fleet_to_runner(s->l->opts.fleet, &s->of, mu_buf_bytes(json)) == 0;
}

void mu_live_ack(struct mu_live_session *s, int64_t seq)
{
    struct mu_buf b;
    mu_buf_init(&b, SMALL);
    struct mu_json_w w = mu_live_begin(&b, "ack");
    mu_jw_ki64(&w, "seq", seq);
    mu_jw_obj_end(&w);
    (void)mu_live_send(s, &b); /* else the next one says it too */
    mu_buf_fini(&b);
}

static bool stops(yyjson_val *policy, const char *key)
{
    return mu_bytes_is(mu_json_get_bytes(policy, key), "stop");
}

void mu_live_init(struct mu_live_session *s, const struct mu_live_state *state)
{
    static const struct mu_json_limits limits = {.max_bytes = 4 << 20, .max_depth = 64};
    struct mu_arena a;
    struct mu_buf b;
    yyjson_val *spec = NULL;
    mu_arena_init(&a, 16 << 20);
    mu_buf_init(&b, INIT_MAX);
    if (mu_json_read(&a, state->spec, &limits, &spec, NULL) < 0) {
        spec = NULL;
    }
    yyjson_val *live = mu_json_get(spec, "live"), *policy = mu_json_get(live, "policy");
    s->deny_stops = stops(policy, "onDeny");
    s->expiry_stops = stops(policy, "onExpire");
    s->limit_ms = mu_json_get_i64(live, "timeoutMs", 0);
    struct mu_json_w w = mu_live_begin(&b, "init");
    mu_jw_kstr(&w, "sessionId", mu_id_bytes(&s->id));
    mu_jw_ki64(&w, "epoch", s->of.epoch);
    mu_jw_ki64(&w, "lastAckedSeq", s->stored_seq);
    mu_jw_kcstr(&w, "mode", s->mode == MU_MODE_INTERACTIVE ? "interactive" : "task");
    mu_jw_kstr(&w, "harness", mu_json_get_bytes(live, "harness"));
    mu_bytes model = mu_json_get_bytes(live, "model");
    if (model.len) {
        mu_jw_kstr(&w, "model", model);
    }
    mu_jw_ki64(&w, "cols", mu_json_get_i64(live, "cols", 120));
    mu_jw_ki64(&w, "rows", mu_json_get_i64(live, "rows", 40));
    mu_jw_kbool(&w, "skipPermissions", mu_json_get_bool(live, "skipPermissions", false));
    mu_jw_kbool(&w, "checkpoints",
                s->l->opts.checkpoints && mu_fleet_runner_by_worker(s->l->opts.fleet, &s->of));
    if (state->conversation.len) {
        mu_jw_kstr(&w, "conversationId", state->conversation);
    }
    if (policy) {
        mu_jw_key(&w, "policy");
        mu_json_add(&b, policy);
        w.comma = true;
    }
    mu_jw_key(&w, "terminals");
    mu_jw_arr(&w);
    mu_live_terminals_init(s, &w);
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    if (!mu_live_send(s, &b) && b.failed) {
        mu_log(MU_LOG_ERROR, "runner.init_failed", MU_KS("session_id", mu_id_bytes(&s->id)));
    }
    mu_buf_fini(&b);
    mu_arena_fini(&a);
}

void mu_live_prompt(struct mu_live_session *s, mu_bytes turn, mu_bytes text, mu_bytes options,
                    int tries)
{
    struct mu_buf b;
    mu_buf_init(&b, 8 << 20);
    struct mu_json_w w = mu_live_begin(&b, "prompt");
    mu_jw_kstr(&w, "turnId", turn);
    mu_jw_kstr(&w, "content", text);
    if (options.len) {
        mu_jw_kraw(&w, "options", options);
    }
    mu_jw_ki64(&w, "attempt", tries);
    mu_jw_obj_end(&w);
    (void)mu_live_send(s, &b); /* else its runner comes again and is sent it then */
    mu_buf_fini(&b);
}

void mu_live_answer(struct mu_live_session *s, const struct mu_gate_row *row)
{
    struct mu_buf b;
    mu_buf_init(&b, 64 << 10);
    struct mu_json_w w = mu_live_begin(&b, "answer");
    mu_jw_kstr(&w, "questionId", row->id);
    mu_jw_kcstr(&w, "decision",
                row->status == MU_GATE_ALLOWED     ? "allow"
                : row->status == MU_GATE_CANCELLED ? "cancel"
                                                   : "deny");
    mu_jw_kcstr(&w, "scope", row->scope ? "session" : "once");
    if (row->status == MU_GATE_EXPIRED) {
        mu_jw_kcstr(&w, "reason", "nobody answered in time");
    } else if (row->reason.len) {
        mu_jw_kstr(&w, "reason", row->reason);
    }
    if (row->answer.len) {
        mu_jw_kraw(&w, "answer", row->answer);
    }
    if (row->resolved_by.len) {
        mu_jw_kstr(&w, "by", row->resolved_by);
    }
    mu_jw_obj_end(&w);
    (void)mu_live_send(s, &b);
    mu_buf_fini(&b);
}

void mu_live_refuse(struct mu_live_session *s, const struct mu_id *gate, int status,
                    const char *reason)
{
    struct mu_gate_row row = {.id = mu_id_bytes(gate), .status = status, .reason = mu_str(reason)};
    mu_live_answer(s, &row);
}
