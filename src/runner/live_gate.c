/* What the agent may not do unasked: the policy first, then people. */
#include <stdio.h>

#include "base/encode.h"
#include "runner/live_int.h"

enum { DESCRIPTION = 1500, REASON = 800, BY_SHOWN = 24 };

static struct mu_question *by_handle(struct mu_live *v, unsigned handle)
{
    for (size_t i = 0; i < MU_LIVE_QUESTIONS; i++) {
        if (v->questions[i].id[0] && v->questions[i].handle == handle) {
            return &v->questions[i];
        }
    }
    return NULL;
}

static struct mu_question *by_id(struct mu_live *v, const char *id)
{
    for (size_t i = 0; i < MU_LIVE_QUESTIONS && id[0]; i++) {
        if (strcmp(v->questions[i].id, id) == 0) {
            return &v->questions[i];
        }
    }
    return NULL;
}

static void say_answered(struct mu_live *v, const char *id, bool taken)
{
    struct mu_json_w *w = mu_link_begin(&v->link, "answered");
    mu_jw_kcstr(w, "questionId", id);
    mu_jw_kbool(w, "taken", taken);
    mu_link_end(&v->link);
    snprintf(v->answered[v->n_answered++ % MU_LIVE_REMEMBER], MU_LIVE_ID, "%s", id);
}

static bool was_answered(const struct mu_live *v, const char *id)
{
    for (size_t i = 0; i < MU_MIN(v->n_answered, (size_t)MU_LIVE_REMEMBER); i++) {
        if (strcmp(v->answered[i], id) == 0) {
            return true;
        }
    }
    return false;
}

void mu_live_ask_gone(void *arg, unsigned handle)
{
    struct mu_live *v = arg;
    struct mu_question *q = by_handle(v, handle);
    if (q) {
        say_answered(v, q->id, false);
        q->id[0] = 0;
    }
}

void mu_gate_close_all(struct mu_live *v)
{
    for (size_t i = 0; i < MU_LIVE_QUESTIONS; i++) {
        if (v->questions[i].id[0]) {
            unsigned handle = v->questions[i].handle;
            mu_live_ask_gone(v, handle);
            mu_push_decide(v, handle, false, "nobody answered in time");
        }
    }
}

/* Some agents end their turn when they are refused: what to tell them then. */
static void remember_refusal(struct mu_live *v, const char *what, const char *who,
                             const char *reason)
{
    struct mu_turn *t = &v->turn;
    snprintf(t->refusal, sizeof t->refusal,
             "The request \"%.200s\" was refused by %s.%s%.700s\nDo not try it again in another "
             "way. Go on without it, or say what you cannot do without it.",
             what, who, reason[0] ? " Reason: " : "", reason);
    t->refused_at = mu_agent_touches(v);
    t->refused = true;
}

/* --- asking --- */

static void add_context(struct mu_json_w *w, const struct mu_acp_ask *ask,
                        const struct mu_guard_answer *g)
{
    const struct mu_acp_tool *t = ask->tool;
    mu_jw_key(w, "context");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "callID", t->id);
    mu_jw_kcstr(w, "toolName", t->name);
    mu_jw_kcstr(w, "kind", t->kind);
    mu_jw_kcstr(w, "rule", g->rule);
    if (ask->command.ptr) {
        mu_bytes part = mu_live_fit(ask->command, 4096);
        mu_jw_kstr(w, "command", part);
        if (part.len < ask->command.len) {
            mu_jw_kbool(w, "commandTruncated", true);
        }
    }
    if (ask->url.ptr) {
        mu_jw_kstr(w, "url", mu_live_fit(ask->url, 2048));
    }
    if (t->n_paths) {
        size_t room = 4096;
        mu_jw_key(w, "paths");
        mu_jw_arr(w);
        for (size_t i = 0; i < t->n_paths; i++) {
            mu_bytes path = mu_live_fit(mu_str(t->paths[i]), room);
            mu_jw_str(w, path);
            room -= MU_MIN(room, path.len);
        }
        mu_jw_arr_end(w);
    }
    mu_jw_obj_end(w);
}

/* What is hashed by the server to know the same request again: only when it says everything. */
static void add_key(struct mu_json_w *w, const struct mu_acp_ask *ask,
                    const struct mu_guard_answer *g)
{
    struct mu_buf key MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&key, MU_LIVE_KEY);
    if (!ask->subject.ptr) {
        return;
    }
    mu_buf_printf(&key, "%s\n%s\n%s\n", mu_guard_action_name(g->action), ask->tool->kind,
                  ask->tool->name);
    mu_buf_add(&key, ask->subject);
    if (!key.failed) {
        mu_jw_kstr(w, "requestKey", mu_buf_bytes(&key));
    }
}

static void say_question(struct mu_live *v, const struct mu_question *q,
                         const struct mu_acp_ask *ask, const struct mu_guard_answer *g)
{
    struct mu_json_w *w = mu_link_begin(&v->link, "question");
    mu_bytes exact = mu_live_fit(ask->exact, MU_LIVE_EXACT);
    mu_bytes what = ask->command.ptr ? ask->command : mu_str(ask->tool->title);
    mu_jw_kcstr(w, "questionId", q->id);
    mu_jw_kcstr(w, "turnId", v->turn.id);
    mu_jw_kcstr(w, "kind", "permission");
    mu_jw_kcstr(w, "text", ask->tool->title);
    mu_jw_key(w, "approval");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "action", mu_guard_action_name(g->action));
    mu_jw_kstr(w, "description", mu_utf8_cut(what, DESCRIPTION));
    mu_jw_kcstr(w, "risk", mu_guard_risk_name(g->risk));
    add_context(w, ask, g);
    mu_jw_kstr(w, "exact", exact);
    if (exact.len < ask->exact.len) {
        mu_jw_kbool(w, "exactTruncated", true);
    }
    mu_jw_obj_end(w);
    add_key(w, ask, g);
    mu_link_end(&v->link);
}

static struct mu_question *free_question(struct mu_live *v, unsigned handle)
{
    struct mu_question *q = NULL;
    for (size_t i = 0; i < MU_LIVE_QUESTIONS && !q; i++) {
        q = v->questions[i].id[0] ? NULL : &v->questions[i];
    }
    if (q) {
        struct mu_id id = mu_live_uuid();
        *q = (struct mu_question){.handle = handle};
        memcpy(q->id, id.text, sizeof q->id);
        v->asked++;
    }
    return q;
}

/* `text` without the secrets, so that what is cut of it shows no half of one: q->what is its
 * beginning. `ret` is initialised. */
static void take_what(struct mu_live *v, struct mu_question *q, mu_bytes text, struct mu_buf *ret)
{
    mu_buf_init(ret, MU_LIVE_CLEAN);
    (void)mu_redact_text(v->r->redact, text, ret);
    mu_bytes what = mu_utf8_cut(mu_buf_bytes(ret), sizeof q->what - 1);
    snprintf(q->what, sizeof q->what, "%.*s", MU_ARGS(what));
}

static void open_question(struct mu_live *v, const struct mu_acp_ask *ask,
                          const struct mu_guard_answer *g, uint64_t command)
{
    struct mu_question *q = free_question(v, ask->handle);
    if (!q) { /* as many as acp lets through */
        mu_agent_decide(v, ask->handle, MU_ACP_DENY, "too many questions are open");
        return;
    }
    struct mu_buf clean MU_CLEANUP(mu_buf_fini);
    take_what(v, q, ask->command.ptr ? ask->command : mu_str(ask->tool->title), &clean);
    q->command = command;
    if (g->action == MU_GUARD_MERGE && ask->command.len < sizeof q->sends) {
        snprintf(q->sends, sizeof q->sends, "%.*s", MU_ARGS(ask->command));
    }
    mu_view_note(v, "\x1b[33m", "? %s (%s, risk %s: %s)", q->what, mu_guard_action_name(g->action),
                 mu_guard_risk_name(g->risk), g->rule);
    say_question(v, q, ask, g);
}

/* Each violation of the policy is an alert. */
static void alert(struct mu_live *v, const struct mu_acp_ask *ask, const struct mu_guard_answer *g)
{
    struct mu_buf b;
    struct mu_json_w w;
    mu_live_alert_begin(&w, &b, "warn", "policy", "denied by the policy", g->rule);
    mu_jw_key(&w, "context");
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "callID", ask->tool->id);
    mu_jw_kcstr(&w, "toolName", ask->tool->name);
    mu_jw_kcstr(&w, "action", mu_guard_action_name(g->action));
    mu_jw_kstr(&w, "what",
               mu_live_fit(ask->command.ptr ? ask->command : mu_str(ask->tool->title), 4096));
    mu_jw_obj_end(&w);
    mu_live_alert_end(v, &w, &b);
}

static void decide(struct mu_live *v, const struct mu_acp_ask *ask, bool allow, const char *why)
{
    char note[300];
    snprintf(note, sizeof note, "%s: %s", allow ? "allowed" : "denied", why);
    mu_turn_tool(v, ask->tool, note);
    if (!allow) {
        mu_view_note(v, "\x1b[31m", "denied by the policy: %s", why);
        remember_refusal(v, ask->tool->title, "the policy of this session", why);
    }
    if (allow) {
        mu_live_command(v, ask->tool, true);
    }
    mu_agent_decide(v, ask->handle, allow ? MU_ACP_ALLOW : MU_ACP_DENY, v->turn.refusal);
}

void mu_live_ask(void *arg, const struct mu_acp_ask *ask)
{
    struct mu_live *v = arg;
    const struct mu_acp_tool *t = ask->tool;
    struct mu_guard_request request = {
        .kind = ask->command.ptr ? MU_B("execute") : mu_str(t->kind),
        .command = ask->command,
        .url = ask->url,
        .paths = (const char *const *)t->paths,
        .n_paths = t->n_paths,
    };
    struct mu_guard_answer g;
    v->turn.refused = false;
    mu_turn_segment(v);
    mu_view_tool(v, t);
    uint64_t command = mu_live_command_asks(v, t);
    mu_guard_check(&v->guard, &request, &g);
    if (g.verdict == MU_GUARD_DENY) {
        alert(v, ask, &g);
        decide(v, ask, false, g.rule);
    } else if (v->skip_permissions) {
        decide(v, ask, true, "permissions are skipped in this session");
    } else if (g.verdict == MU_GUARD_ALLOW) {
        decide(v, ask, true, g.rule);
    } else {
        mu_turn_tool(v, t, NULL);
        open_question(v, ask, &g, command);
    }
}

void mu_gate_push(struct mu_live *v, unsigned handle, mu_bytes command)
{
    struct mu_acp_tool *t = mu_calloc(1, sizeof *t);
    struct mu_buf exact MU_CLEANUP(mu_buf_fini);
    struct mu_guard_request request = {.kind = MU_B("execute"), .command = command};
    struct mu_guard_answer g;
    mu_buf_init(&exact, 1 << 20);
    struct mu_json_w w = mu_json_w(&exact);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "command", command);
    mu_jw_obj_end(&w);
    if (!t || exact.failed) {
        mu_free(t);
        mu_push_decide(v, handle, false, "out of memory");
        return;
    }
    snprintf(t->id, sizeof t->id, "push-%u", handle - MU_PUSH_HANDLE);
    snprintf(t->name, sizeof t->name, "shell");
    snprintf(t->kind, sizeof t->kind, "execute");
    mu_bytes title = mu_utf8_cut(command, sizeof t->title - 1);
    snprintf(t->title, sizeof t->title, "%.*s", MU_ARGS(title));
    struct mu_acp_ask ask = {.handle = handle,
                             .tool = t,
                             .command = command,
                             .exact = mu_buf_bytes(&exact),
                             .subject = command};
    mu_guard_check(&v->guard, &request, &g);
    if (g.verdict == MU_GUARD_DENY) {
        alert(v, &ask, &g);
        mu_push_decide(v, handle, false, g.rule);
    } else if (v->skip_permissions || !(v->guard.asks >> MU_GUARD_MERGE & 1)) {
        mu_push_decide(v, handle, true, NULL); /* the policy was loosened meanwhile */
    } else {
        if (g.verdict == MU_GUARD_ALLOW) { /* what it does may not, but what it gets can */
            g.action = MU_GUARD_MERGE;
            g.risk = MU_GUARD_MED;
            snprintf(g.rule, sizeof g.rule, "it would get the credential of the repository");
        }
        open_question(v, &ask, &g, 0);
    }
    mu_free(t);
}

/* The agent wants to know something: nobody but people can say it. */
void mu_live_question(void *arg, const struct mu_oc_question *ask)
{
    struct mu_live *v = arg;
    struct mu_question *q = free_question(v, ask->handle);
    mu_turn_segment(v);
    v->turn.refused = false;
    if (!q) {
        mu_agent_reply(v, ask->handle, MU_B_NONE);
        return;
    }
    struct mu_buf clean MU_CLEANUP(mu_buf_fini);
    take_what(v, q, ask->text, &clean);
    q->own = true;
    mu_bytes text = mu_utf8_cut(mu_buf_bytes(&clean), DESCRIPTION);
    mu_view_note(v, "\x1b[33m", "? %.*s", MU_ARGS(text));
    struct mu_json_w *w = mu_link_begin(&v->link, "question");
    mu_jw_kcstr(w, "questionId", q->id);
    mu_jw_kcstr(w, "turnId", v->turn.id);
    mu_jw_kcstr(w, "kind", "question");
    mu_jw_kstr(w, "text", text);
    if (ask->options.ptr) {
        mu_jw_kraw(w, "options", ask->options);
    }
    if (ask->multiple) {
        mu_jw_kbool(w, "multiple", true);
    }
    mu_link_end(&v->link);
}

/* Somebody in the sandbox decided what people were asked for: it cannot be undone, but it is not
 * hidden. */
void mu_live_foreign(void *arg, unsigned handle)
{
    struct mu_live *v = arg;
    const struct mu_question *q = by_handle(v, handle);
    struct mu_buf b;
    struct mu_json_w w;
    mu_live_alert_begin(&w, &b, "critical", "security", "a permission was given inside the sandbox",
                        "The agent's server was told to allow what was waiting for a decision, and "
                        "not by this runner.");
    mu_jw_key(&w, "context");
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "what", q ? q->what : "");
    mu_jw_obj_end(&w);
    mu_view_note(v, "\x1b[31m", "allowed inside the sandbox, by nobody we know: %s",
                 q ? q->what : "");
    mu_live_alert_end(v, &w, &b);
}

/* --- answers --- */

void mu_gate_answer(struct mu_live *v, const struct mu_jtok *j, int answer)
{
    char id[MU_LIVE_ID], reason[REASON], by[120];
    if (!mu_jtok_copy(j, mu_jtok_get(j, answer, "questionId"), id, sizeof id) || !id[0]) {
        return;
    }
    struct mu_question *q = by_id(v, id);
    if (!q) {
        if (!was_answered(v, id)) {
            say_answered(v, id, false);
        }
        return;
    }
    int decision = mu_jtok_get(j, answer, "decision");
    bool allow = mu_jtok_is(j, decision, MU_B("allow"));
    bool deny = mu_jtok_is(j, decision, MU_B("deny"));
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&text, 64 << 10);
    (void)!mu_jtok_add(j, mu_jtok_get(j, answer, "reason"), &text);
    mu_bytes cut = mu_utf8_cut(mu_buf_bytes(&text), sizeof reason - 1);
    snprintf(reason, sizeof reason, "%.*s", MU_ARGS(cut));
    (void)mu_jtok_copy(j, mu_jtok_get(j, answer, "by"), by, sizeof by);
    if (strlen(by) > BY_SHOWN) { /* a hash says nothing to people */
        snprintf(by + mu_utf8_cut(mu_str(by), BY_SHOWN).len, 4, "…");
    }
    mu_view_note(v, allow ? "\x1b[32m" : "\x1b[31m", "%s%s%s%s%s: %s",
                 allow  ? "allowed"
                 : deny ? "denied"
                        : "cancelled",
                 by[0] ? " by " : "", by, reason[0] ? ", " : "", reason, q->what);
    bool own = q->own;
    if (allow) {
        mu_live_command_allowed(v, q->command);
        if (q->sends[0] && q->handle < MU_PUSH_HANDLE) {
            memcpy(v->approved[v->n_approved++ % MU_LIVE_APPROVED], q->sends, sizeof q->sends);
        }
    }
    if (deny && !own) {
        remember_refusal(v, q->what, "a person", reason);
    }
    say_answered(v, id, true); /* before it is acted upon */
    unsigned handle = q->handle;
    q->id[0] = 0;
    if (own) {
        int said = allow ? mu_jtok_get(j, answer, "answer") : -1;
        mu_agent_reply(v, handle, mu_jtok_raw(j, said));
        return;
    }
    mu_agent_decide(v, handle,
                    allow  ? MU_ACP_ALLOW
                    : deny ? MU_ACP_DENY
                           : MU_ACP_CANCEL,
                    v->turn.refusal);
}

void mu_gate_pending(struct mu_live *v, const char *id)
{
    if (id[0] && !by_id(v, id) && !was_answered(v, id)) {
        say_answered(v, id, false);
    }
}
