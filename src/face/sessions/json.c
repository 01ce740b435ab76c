/* Sessions as this API shows them (village-control-plane.md 4.2, 13.2). Runs on reader threads. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/sessions/sessions_int.h"

static const struct mu_json_limits stored_limits = {.max_bytes = 4 << 20, .max_depth = 80};

/* --- words --- */

static const struct {
    int from, to; /* stored */
    const char *name;
} states[] = {
    {10, 19, "CREATED"},
    {20, 39, "QUEUED"},
    {40, 49, "PREPARING_WORKSPACE"},
    {50, 59, "STARTING_PROVIDER"},
    {60, 63, "RUNNING"},
    {64, 69, "WAITING_FOR_APPROVAL"},
    {70, 79, "PAUSED_BY_HUMAN"},
    {80, 89, "STOPPING"},
    {90, 91, "COMPLETED"},
    {92, 93, "FAILED"},
    {94, 99, "TIMED_OUT"},
};

const char *mu_sess_state(int state)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(states); i++) {
        if (state >= states[i].from && state <= states[i].to) {
            return states[i].name;
        }
    }
    return "CREATED";
}

const char *mu_sess_role(enum mu_role role)
{
    return role == MU_ROLE_ADMIN       ? "platform_admin"
           : role == MU_ROLE_ORG_ADMIN ? "admin"
           : role == MU_ROLE_VIEWER    ? "viewer"
                                       : "operator";
}

/* Those that a row can have. */
static const int stored_states[] = {
    MU_ST_QUEUED,     MU_ST_QUEUED_WORKER, MU_ST_CLAIMED,      MU_ST_PREPARING, MU_ST_STARTING,
    MU_ST_RUNNING,    MU_ST_WAITING,       MU_ST_WAITING_AWAY, MU_ST_PAUSED,    MU_ST_HIBERNATING,
    MU_ST_HIBERNATED, MU_ST_PARKED,        MU_ST_STOPPING};

static bool add_live(struct mu_session_list *op, int state)
{
    for (unsigned i = 0; i < op->n_states; i++) {
        if (op->states[i] == state) {
            return true;
        }
    }
    if (op->n_states == MU_LIST_STATES) {
        return false;
    }
    op->states[op->n_states++] = state;
    return true;
}

static bool add_outcome(struct mu_session_list *op, int outcome)
{
    for (unsigned i = 0; i < op->n_outcomes; i++) {
        if (op->outcomes[i] == outcome) {
            return true;
        }
    }
    if (op->n_outcomes == MU_LIST_STATES) {
        return false;
    }
    op->outcomes[op->n_outcomes++] = outcome;
    return true;
}

/* How an ended session shows: by its outcome, as one that was cancelled is completed here. */
static bool add_ended(struct mu_session_list *op, mu_bytes word)
{
    if (mu_bytes_is(word, "COMPLETED")) {
        return add_outcome(op, MU_OUT_FINISHED) && add_outcome(op, MU_OUT_CANCELLED);
    }
    return mu_bytes_is(word, "FAILED")      ? add_outcome(op, MU_OUT_FAILED)
           : mu_bytes_is(word, "TIMED_OUT") ? add_outcome(op, MU_OUT_TIMED_OUT)
                                            : false;
}

bool mu_sess_add_state(struct mu_session_list *op, mu_bytes word)
{
    bool active = mu_bytes_is(word, "active"), found = active;
    if (mu_bytes_is(word, "terminal")) {
        return add_ended(op, MU_B("COMPLETED")) && add_ended(op, MU_B("FAILED")) &&
               add_ended(op, MU_B("TIMED_OUT"));
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(stored_states); i++) {
        if (active || mu_bytes_is(word, mu_sess_state(stored_states[i]))) {
            found = true;
            if (!add_live(op, stored_states[i])) {
                return false;
            }
        }
    }
    return found || add_ended(op, word);
}

/* providerId of this API, and the harness of the core. The first four are the specification's. */
static const struct {
    const char *provider, *harness;
} providers[] = {
    {"claude_code", "claude-code"}, {"codex", "codex"}, {"gemini_cli", "gemini-cli"},
    {"opencode", "opencode"},       {"shell", "shell"}, {"custom", "custom"},
};

const char *mu_sess_harness(mu_bytes provider)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(providers); i++) {
        if (mu_bytes_is(provider, providers[i].provider)) {
            return providers[i].harness;
        }
    }
    return NULL;
}

mu_bytes mu_sess_provider(mu_bytes harness)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(providers); i++) {
        if (mu_bytes_is(harness, providers[i].harness)) {
            return mu_str(providers[i].provider);
        }
    }
    return harness;
}

void mu_sess_prefixed(struct mu_json_w *w, const char *key, const char *prefix, mu_bytes id)
{
    char text[80];
    int n = snprintf(text, sizeof text, "%s%.*s", prefix, MU_ARGS(id));
    mu_jw_kstr(w, key, mu_bytes_of(text, MU_MIN((size_t)MU_MAX(n, 0), sizeof text - 1)));
}

/* "user:<id>", "key:<id>", "admin", "runner", "system" */
void mu_sess_actor(struct mu_json_w *w, const char *key, mu_bytes actor)
{
    mu_bytes user = MU_B("user:");
    if (!actor.len) {
        return;
    }
    bool is_user = mu_bytes_starts(actor, user), is_key = mu_bytes_starts(actor, MU_B("key:"));
    mu_jw_key(w, key);
    mu_jw_obj(w);
    mu_jw_kstr(w, "type", is_user || is_key || mu_bytes_is(actor, "admin") ? MU_B("user") : actor);
    mu_jw_kstr(w, "id", is_user ? mu_bytes_from(actor, user.len) : actor);
    mu_jw_obj_end(w);
}

/* --- summary --- */

static mu_bytes first_chars(mu_bytes text, size_t max)
{
    size_t at = 0, bad, n;
    for (size_t i = 0; i < max && at < text.len; i++) {
        n = mu_utf8_len(mu_bytes_from(text, at), &bad);
        at += n ? n : MU_MAX(bad, (size_t)1);
    }
    return mu_bytes_head(text, at);
}

static void add_times(struct mu_json_w *w, const struct mu_session_view *v, int64_t now_ms)
{
    int64_t end = v->ended_ms ? v->ended_ms : now_ms;
    mu_jw_ktime(w, "startedAt", v->created_ms);
    mu_jw_ktime(w, "createdAt", v->created_ms);
    if (v->running_ms) {
        mu_jw_ktime(w, "runStartedAt", v->running_ms);
    }
    if (v->ended_ms) {
        mu_jw_ktime(w, "completedAt", v->ended_ms);
    }
    mu_jw_ktime(w, "updatedAt", v->updated_ms);
    mu_jw_ki64(w, "rev", v->rev);
    mu_jw_ki64(w, "durationSeconds", MU_MAX(end - v->created_ms, 0) / 1000);
}

/* What the stored spec says besides the columns; parsed once for an object. */
struct spec {
    struct mu_arena arena;
    yyjson_val *root, *repo, *live;
};

static void spec_read(struct spec *s, struct mu_json_w *w, const struct mu_session_view *v)
{
    *s = (struct spec){.root = NULL};
    mu_arena_init(&s->arena, 16 << 20);
    if (v->spec.len > 2 &&
        mu_json_read(&s->arena, v->spec, &stored_limits, &s->root, NULL) == -ENOMEM) {
        w->buf->failed = w->buf->failed ? w->buf->failed : -ENOMEM;
    }
    s->repo = mu_json_get(s->root, "repo");
    s->live = mu_json_get(s->root, "live");
}

static void add_summary(struct mu_json_w *w, const struct mu_session_view *v, int64_t now_ms,
                        const char *state, const struct spec *spec)
{
    mu_bytes url = mu_json_get_bytes(spec->repo, "url");
    mu_sess_prefixed(w, "sessionId", "ses_", v->id);
    mu_jw_kstr(w, "orgId", v->org_id);
    mu_jw_kcstr(w, "state", state ? state : mu_sess_state(v->state));
    if (mu_state_sleeps(v->state)) { /* it holds no worker: a wake puts it back into the queue */
        mu_jw_kbool(w, v->state == MU_ST_PARKED ? "parked" : "hibernated", true);
    }
    mu_jw_kstr(w, "providerId", mu_sess_provider(v->harness));
    mu_jw_kstr(w, "repoUrl", url.ptr ? url : MU_B(""));
    add_times(w, v, now_ms);
    mu_bytes task = v->view == MU_VIEW_VILLAGE ? v->title : v->prompt_head;
    mu_jw_kstr(w, "taskSummary", first_chars(task, MU_SESS_SUMMARY_CHARS));
    mu_jw_kcstr(w, "mode", v->mode == MU_MODE_INTERACTIVE ? "interactive" : "task");
}

void mu_sess_summary(struct mu_json_w *w, const struct mu_session_view *v, int64_t now_ms,
                     const char *state)
{
    struct spec spec;
    spec_read(&spec, w, v);
    add_summary(w, v, now_ms, state, &spec);
    mu_arena_fini(&spec.arena);
}

/* --- detail --- */

static void add_text(struct mu_json_w *w, const char *key, mu_bytes text)
{
    if (text.len) {
        mu_jw_kstr(w, key, text);
    }
}

static void add_repo(struct mu_json_w *w, yyjson_val *repo)
{
    static const char *const keys[] = {"url", "branch", "commit", "tag"};
    if (!repo) {
        return;
    }
    mu_jw_key(w, "repo");
    mu_jw_obj(w);
    for (size_t i = 0; i < MU_ARRAY_LEN(keys); i++) {
        add_text(w, keys[i], mu_json_get_bytes(repo, keys[i]));
    }
    mu_jw_obj_end(w);
}

static void add_usage(struct mu_json_w *w, const struct mu_session_view *v)
{
    mu_jw_key(w, "usage");
    mu_jw_obj(w);
    mu_jw_ki64(w, "tokensIn", v->tokens_in);
    mu_jw_ki64(w, "tokensOut", v->tokens_out);
    mu_jw_ki64(w, "apiCalls", v->api_calls);
    mu_jw_ki64(w, "computeSeconds", v->compute_ms / 1000);
    mu_jw_obj_end(w);
}

static void add_diff(struct mu_json_w *w, const struct mu_session_view *v)
{
    static const char *const keys[] = {"filesChanged", "linesAdded", "linesRemoved"};
    struct mu_arena a;
    yyjson_val *diff = NULL;
    if (!v->diff.len) {
        return;
    }
    mu_arena_init(&a, 16 << 20);
    if (mu_json_read(&a, v->diff, &stored_limits, &diff, NULL) == 0) {
        mu_jw_key(w, "diff");
        mu_jw_obj(w);
        for (size_t i = 0; i < MU_ARRAY_LEN(keys); i++) {
            mu_jw_ki64(w, keys[i], mu_json_get_i64(diff, keys[i], 0));
        }
        mu_jw_obj_end(w);
    }
    mu_arena_fini(&a);
}

static void add_end(struct mu_json_w *w, const struct mu_session_view *v)
{
    /* a reason that only the core distinguishes is shown as the nearest of this API */
    const char *reason = v->end_reason == MU_END_SATURATED     ? "provider_error"
                         : v->end_reason == MU_END_INTERRUPTED ? "runner_lost"
                                                               : mu_end_reason_name(v->end_reason);
    if (v->ended_ms && reason) {
        mu_jw_kcstr(w, "endReason", reason);
    }
    if (v->has_exit_code) {
        mu_jw_ki64(w, "exitCode", v->exit_code);
    }
    if (v->outcome != MU_OUT_CANCELLED) { /* a stop is no error */
        add_text(w, "errorMessage", v->error_message);
    }
}

void mu_sess_completed(struct mu_json_w *w, const struct mu_session_view *v)
{
    mu_jw_kcstr(w, "finalState", mu_sess_state(v->state));
    add_end(w, v);
    add_usage(w, v);
    add_diff(w, v);
}

void mu_sess_detail(struct mu_json_w *w, const struct mu_session_view *v)
{
    struct spec spec;
    spec_read(&spec, w, v);
    add_repo(w, spec.repo);
    add_usage(w, v);
    add_text(w, "providerVersion", mu_json_get_bytes(spec.live, "providerVersion"));
    add_text(w, "model", v->model);
    if (v->parent_id.len) {
        mu_sess_prefixed(w, "parentSessionId", "ses_", v->parent_id);
    }
    if (v->environment_id.len) {
        mu_jw_kstr(w, "environmentId", v->environment_id);
    }
    add_end(w, v);
    add_diff(w, v);
    mu_jw_kraw(w, "artifacts", v->artifacts.len ? v->artifacts : MU_B("[]"));
    int64_t deadline = v->run_deadline_ms ? v->run_deadline_ms : v->deadline_ms;
    if (v->outcome == MU_OUT_LIVE && deadline) {
        mu_jw_ktime(w, "deadlineAt", deadline);
    }
    if (v->paused_ms) {
        mu_jw_ktime(w, "pausedAt", v->paused_ms);
    }
    if (v->limit_ms) {
        mu_jw_ki64(w, "timeoutMinutes", v->limit_ms / 60000);
    }
    yyjson_val *metadata = mu_json_get(spec.root, "metadata");
    if (metadata) {
        mu_jw_key(w, "metadata");
        mu_json_add(w->buf, metadata);
        w->comma = true;
    }
    mu_jw_ki64(w, "lastEventSeq", v->last_event_seq);
    mu_jw_ki64(w, "attempt", v->executions);
    mu_jw_kstr(w, "createdBy", v->creator);
    mu_arena_fini(&spec.arena);
}

/* --- approvals --- */

void mu_sess_gate(struct mu_json_w *w, const struct mu_gate_row *g)
{
    bool question = g->kind == MU_GATE_QUESTION;
    const char *action = mu_gate_action_name(g->action), *risk = mu_gate_risk_name(g->risk);
    mu_jw_obj(w);
    mu_sess_prefixed(w, "approvalId", "apr_", g->id);
    mu_sess_prefixed(w, "sessionId", "ses_", g->session_id);
    mu_jw_kstr(w, "orgId", g->org_id);
    mu_jw_kcstr(w, "kind", question ? "question" : "approval");
    mu_jw_kcstr(w, "action", action ? action : "tool");
    mu_jw_kstr(w, "description", g->description);
    mu_jw_kcstr(w, "risk", risk ? risk : "med");
    mu_jw_kcstr(w, "status", mu_gate_status_name(g->status));
    mu_jw_ktime(w, "requestedAt", g->created_ms);
    if (g->expires_ms) {
        mu_jw_ktime(w, "expiresAt", g->expires_ms);
    }
    mu_jw_kraw(w, "context", g->context.len ? g->context : MU_B("{}"));
    if (g->options.len) {
        mu_jw_kraw(w, "options", g->options);
    }
    add_text(w, "requestKey", g->request_key);
    add_text(w, "turnId", g->turn_id);
    if (g->votes_needed > 1) {
        mu_jw_ki64(w, "votesNeeded", g->votes_needed);
    }
    if (g->status != MU_GATE_PENDING) {
        if (g->status != MU_GATE_CANCELLED) {
            mu_jw_kcstr(w, "decision", g->status == MU_GATE_ALLOWED ? "allow" : "deny");
        }
        mu_jw_kcstr(w, "scope", g->scope ? "session" : "once");
        add_text(w, "reason", g->reason);
        if (g->answer.len) {
            mu_jw_kraw(w, "answer", g->answer);
        }
        add_text(w, "resolvedBy", g->resolved_by);
        if (g->resolved_ms) {
            mu_jw_ktime(w, "resolvedAt", g->resolved_ms);
        }
    }
    mu_jw_obj_end(w);
}
