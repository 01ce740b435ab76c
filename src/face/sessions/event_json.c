/* One event of the log as this API shows it, over REST, server-sent events and the WebSocket alike
 * (village-control-plane.md 11.2). Any thread. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/sessions/sessions_int.h"

enum { SUMMARY_BYTES = 200 };

static const struct mu_json_limits stored_limits = {.max_bytes = 256 << 10, .max_depth = 40};

/* Members that are shown under another name, or in other words. */
enum how { AS_IS, STATE, SESSION_ID_PREFIX_APR, TIME, KIND, TURN_STATE };
struct rename {
    const char *from, *to;
    enum how how;
};

static const struct rename of_state[] = {{"from", "previousState", STATE},
                                         {"to", "newState", STATE},
                                         {"reason", "reason", AS_IS},
                                         {"note", "note", AS_IS},
                                         {"message", "message", AS_IS},
                                         {"provider", "provider", AS_IS},
                                         {"model", "model", AS_IS},
                                         {"error", "error", AS_IS},
                                         {NULL, NULL, AS_IS}};
static const struct rename of_end[] = {
    {"to", "finalState", STATE}, {"from", "previousState", STATE}, {"reason", "reason", AS_IS},
    {"note", "note", AS_IS},     {"exit_code", "exitCode", AS_IS}, {"error", "error", AS_IS},
    {NULL, NULL, AS_IS}};
static const struct rename of_request[] = {{"gate", "approvalId", SESSION_ID_PREFIX_APR},
                                           {"kind", "kind", KIND},
                                           {"action", "action", AS_IS},
                                           {"description", "description", AS_IS},
                                           {"risk", "risk", AS_IS},
                                           {"status", "status", AS_IS},
                                           {"context", "context", AS_IS},
                                           {"options", "options", AS_IS},
                                           {"turn", "turnId", AS_IS},
                                           {"expires_ms", "expiresAt", TIME},
                                           {NULL, NULL, AS_IS}};
static const struct rename of_decision[] = {{"gate", "approvalId", SESSION_ID_PREFIX_APR},
                                            {"kind", "kind", KIND},
                                            {"status", "status", AS_IS},
                                            {"decision", "decision", AS_IS},
                                            {"scope", "scope", AS_IS},
                                            {"by", "resolvedBy", AS_IS},
                                            {"reason", "reason", AS_IS},
                                            {NULL, NULL, AS_IS}};
static const struct rename of_turn[] = {
    {"turn", "promptId", AS_IS},         {"pos", "position", AS_IS},
    {"ahead", "ahead", AS_IS},           {"tries", "attempt", AS_IS},
    {"state", "state", TURN_STATE},      {"outcome", "outcome", AS_IS},
    {"stopReason", "stopReason", AS_IS}, {"error", "error", AS_IS},
    {"usage", "usage", AS_IS},           {NULL, NULL, AS_IS}};

static const char *turn_state(int64_t state)
{
    return state >= MU_TURN_CANCELLED  ? "cancelled"
           : state >= MU_TURN_FAILED   ? "failed"
           : state >= MU_TURN_DONE     ? "done"
           : state >= MU_TURN_ACCEPTED ? "running"
           : state >= MU_TURN_SENT     ? "sent"
                                       : "queued";
}

static void add_member(struct mu_json_w *w, const struct rename *r, yyjson_val *v)
{
    int64_t n = yyjson_is_int(v) ? yyjson_get_sint(v) : 0;
    switch (r->how) {
    case STATE:
        mu_jw_kcstr(w, r->to, mu_sess_state((int)n));
        break;
    case SESSION_ID_PREFIX_APR:
        mu_sess_prefixed(w, r->to, "apr_", mu_json_bytes(v));
        break;
    case TIME:
        mu_jw_ktime(w, r->to, n);
        break;
    case KIND:
        mu_jw_kcstr(w, r->to, n == MU_GATE_QUESTION ? "question" : "approval");
        break;
    case TURN_STATE:
        mu_jw_kcstr(w, r->to, yyjson_is_int(v) ? turn_state(n) : "done");
        break;
    case AS_IS:
        mu_jw_key(w, r->to);
        mu_json_add(w->buf, v);
        w->comma = true;
        break;
    }
}

static void add_renamed(struct mu_json_w *w, const struct rename *list, yyjson_val *d)
{
    for (const struct rename *r = list; r->from; r++) {
        yyjson_val *v = mu_json_get(d, r->from);
        if (v && !yyjson_is_null(v)) {
            add_member(w, r, v);
        }
    }
}

/* The members of the data of what the server itself says of a session. */
static void add_own(struct mu_json_w *w, mu_bytes session_id, const struct mu_session_event *e,
                    yyjson_val *d)
{
    bool asks = e->type == MU_EV_APPROVAL_REQUESTED, decides = e->type == MU_EV_APPROVAL_RESOLVED;
    mu_sess_prefixed(w, "sessionId", "ses_", session_id);
    if (e->type == MU_EV_CREATED) {
        mu_jw_kcstr(w, "state", mu_sess_state((int)mu_json_get_i64(d, "to", MU_ST_QUEUED_WORKER)));
        mu_jw_kcstr(w, "mode",
                    mu_json_get_i64(d, "mode", MU_MODE_TASK) == MU_MODE_INTERACTIVE ? "interactive"
                                                                                    : "task");
    } else if (e->type == MU_EV_STATE) {
        add_renamed(w, of_state, d);
    } else if (e->type == MU_EV_ENDED) {
        add_renamed(w, of_end, d);
    } else if (asks) { /* the object as the inbox has it */
        mu_jw_key(w, "approval");
        mu_jw_obj(w);
        add_renamed(w, of_request, d);
        mu_jw_ktime(w, "requestedAt", e->at_ms);
        mu_jw_obj_end(w);
    } else if (decides) {
        add_renamed(w, of_decision, d);
        mu_jw_ktime(w, "resolvedAt", e->at_ms);
    } else {
        add_renamed(w, of_turn, d);
    }
}

static bool is_own(int type)
{
    switch (type) {
    case MU_EV_CREATED:
    case MU_EV_STATE:
    case MU_EV_ENDED:
    case MU_EV_APPROVAL_REQUESTED:
    case MU_EV_APPROVAL_RESOLVED:
    case MU_EV_TURN_QUEUED:
    case MU_EV_TURN_STARTED:
    case MU_EV_TURN_ENDED:
    case MU_EV_TURN_CHANGED:
        return true;
    default:
        return false;
    }
}

void mu_sess_event_members(struct mu_json_w *w, mu_bytes session_id,
                           const struct mu_session_event *e)
{
    struct mu_arena a;
    yyjson_val *d = NULL;
    mu_arena_init(&a, 2 << 20);
    if (e->data.len && mu_json_read(&a, e->data, &stored_limits, &d, NULL) == -ENOMEM) {
        w->buf->failed = w->buf->failed ? w->buf->failed : -ENOMEM;
    }
    add_own(w, session_id, e, d);
    mu_arena_fini(&a);
}

void mu_sess_event_data(struct mu_json_w *w, mu_bytes session_id, const struct mu_session_event *e)
{
    if (!is_own(e->type)) {
        mu_jw_raw(w, e->data.len ? e->data : MU_B("{}"));
        return;
    }
    mu_jw_obj(w);
    mu_sess_event_members(w, session_id, e);
    mu_jw_obj_end(w);
}

void mu_sess_event(struct mu_json_w *w, mu_bytes session_id, const struct mu_session_event *e)
{
    const char *type = mu_event_type_name(e->type);
    mu_jw_obj(w);
    mu_jw_ki64(w, "seq", e->seq);
    mu_jw_kcstr(w, "type", type ? type : "PROVIDER_EVENT_FORWARDED");
    mu_jw_ktime(w, "timestamp", e->at_ms);
    mu_sess_actor(w, "actor", e->actor);
    mu_jw_key(w, "data");
    mu_sess_event_data(w, session_id, e);
    mu_jw_obj_end(w);
}

/* --- one line for people --- */

/* What of the data says most, by type; the first that is there. */
static const struct {
    int type;
    const char *keys[3];
} telling[] = {
    {MU_EV_APPROVAL_REQUESTED, {"description", NULL, NULL}},
    {MU_EV_APPROVAL_RESOLVED, {"status", NULL, NULL}},
    {MU_EV_SESSION_STARTED, {"providerId", NULL, NULL}},
    {MU_EV_AGENT_MESSAGE, {"text", NULL, NULL}},
    {MU_EV_TOOL_CALL, {"title", "toolName", NULL}},
    {MU_EV_TOOL_RESULT, {"summary", "toolName", NULL}},
    {MU_EV_FILE_TOUCHED, {"path", NULL, NULL}},
    {MU_EV_COMMAND_STARTED, {"command", NULL, NULL}},
    {MU_EV_ALERT_RAISED, {"title", "description", NULL}},
    {MU_EV_GIT_COMMIT, {"message", "sha", NULL}},
    {MU_EV_GIT_PUSH, {"branch", NULL, NULL}},
    {MU_EV_PR_OPENED, {"url", NULL, NULL}},
    {MU_EV_WORKSPACE_READY, {"branch", "commit", NULL}},
    {MU_EV_ARTIFACT, {"artifact_type", NULL, NULL}},
};

static void summarize(struct mu_buf *b, int type, yyjson_val *d)
{
    if (type == MU_EV_STATE || type == MU_EV_ENDED) {
        mu_buf_printf(b, "%s → %s", mu_sess_state((int)mu_json_get_i64(d, "from", 10)),
                      mu_sess_state((int)mu_json_get_i64(d, "to", 10)));
        mu_bytes why = mu_json_get_bytes(d, "note");
        why = why.len ? why : mu_json_get_bytes(d, "message");
        why = why.len ? why : mu_json_get_bytes(d, "reason");
        if (why.len) {
            mu_buf_add_str(b, ": ");
            mu_buf_add(b, mu_utf8_cut(why, SUMMARY_BYTES));
        }
        return;
    }
    if (type == MU_EV_CREATED) {
        mu_buf_add_str(b, mu_sess_state((int)mu_json_get_i64(d, "to", MU_ST_QUEUED_WORKER)));
        return;
    }
    if (type == MU_EV_DIFF_SUMMARY) {
        mu_buf_printf(b, "%lld files, +%lld -%lld",
                      (long long)mu_json_get_i64(d, "filesChanged", 0),
                      (long long)mu_json_get_i64(d, "linesAdded", 0),
                      (long long)mu_json_get_i64(d, "linesRemoved", 0));
        return;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(telling); i++) {
        for (size_t k = 0; telling[i].type == type && telling[i].keys[k]; k++) {
            mu_bytes text = mu_json_get_bytes(d, telling[i].keys[k]);
            if (text.len) {
                mu_buf_add(b, mu_utf8_cut(text, SUMMARY_BYTES));
                return;
            }
        }
    }
}

void mu_sess_event_summary(struct mu_json_w *w, const struct mu_session_event *e)
{
    struct mu_arena a;
    struct mu_buf b;
    yyjson_val *d = NULL;
    const char *type = mu_event_type_name(e->type);
    mu_arena_init(&a, 2 << 20);
    mu_buf_init(&b, 4096);
    if (e->data.len && mu_json_read(&a, e->data, &stored_limits, &d, NULL) == -ENOMEM) {
        w->buf->failed = w->buf->failed ? w->buf->failed : -ENOMEM;
    }
    summarize(&b, e->type, d);
    mu_jw_obj(w);
    mu_jw_kcstr(w, "type", type ? type : "PROVIDER_EVENT_FORWARDED");
    mu_jw_ktime(w, "timestamp", e->at_ms);
    mu_jw_kstr(w, "summary", mu_buf_bytes(&b));
    mu_jw_obj_end(w);
    w->buf->failed = w->buf->failed ? w->buf->failed : b.failed;
    mu_buf_fini(&b);
    mu_arena_fini(&a);
}
