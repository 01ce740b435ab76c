/* The commands that an agent runs, as events: each begins once and ends once. */
#include <stdio.h>

#include "base/encode.h"
#include "runner/live_int.h"

enum { COMMAND_MAX = 8 << 10, DATA_MAX = 15 << 10 };

static uint64_t hash(const char *id)
{
    uint64_t h = UINT64_C(14695981039346656037);
    for (; *id; id++) {
        h = (h ^ (unsigned char)*id) * UINT64_C(1099511628211);
    }
    return h | 1; /* 0: free */
}

static struct mu_live_command *find(struct mu_live *v, uint64_t id)
{
    for (size_t i = 0; i < MU_LIVE_COMMANDS; i++) {
        if (v->running[i].id == id) {
            return &v->running[i];
        }
    }
    return NULL;
}

/* The oldest makes room. */
static struct mu_live_command *add(struct mu_live *v, uint64_t id, const char *call)
{
    struct mu_live_command *c = &v->running[v->n_running++ % MU_LIVE_COMMANDS];
    *c = (struct mu_live_command){.id = id, .at = mu_mono_ms()};
    snprintf(c->call, sizeof c->call, "%s", call);
    return c;
}

static void say(struct mu_live *v, const char *type, struct mu_json_w *w)
{
    mu_jw_obj_end(w);
    if (!w->buf->failed) {
        mu_live_event(v, type, mu_buf_bytes(w->buf));
    }
}

static void begins(struct mu_live *v, struct mu_live_command *c, const struct mu_acp_tool *t)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, DATA_MAX);
    struct mu_json_w w = mu_json_w(&b);
    mu_bytes text = t->command.len ? mu_buf_bytes(&t->command) : mu_str(t->title);
    mu_bytes part = mu_live_fit(text, COMMAND_MAX);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "commandId", c->call);
    mu_jw_kcstr(&w, "turnId", v->turn.id);
    mu_jw_kstr(&w, "command", part);
    if (part.len < text.len || t->command_cut) {
        mu_jw_kbool(&w, "truncated", true);
    }
    mu_jw_kcstr(&w, "cwd", t->cwd[0] ? t->cwd : MU_WORKSPACE);
    say(v, "COMMAND_STARTED", &w);
    c->step = MU_COMMAND_RUNS;
    c->at = mu_mono_ms();
}

/* `t` NULL: nobody says how. */
static void ends(struct mu_live *v, struct mu_live_command *c, const struct mu_acp_tool *t)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, DATA_MAX);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "commandId", c->call);
    if (t && t->exited) {
        mu_jw_ki64(&w, "exitCode", t->exit_code);
    } else {
        mu_jw_knull(&w, "exitCode");
    }
    mu_jw_kbool(&w, "ok", t && t->status == MU_ACP_COMPLETED && (!t->exited || !t->exit_code));
    mu_jw_ki64(&w, "durationMs", mu_mono_ms() - c->at);
    say(v, "COMMAND_FINISHED", &w);
    c->step = MU_COMMAND_OVER;
}

void mu_live_command(struct mu_live *v, const struct mu_acp_tool *t, bool allowed)
{
    uint64_t id = hash(t->id);
    if (strcmp(t->kind, "execute") != 0) {
        return;
    }
    struct mu_live_command *c = find(v, id);
    bool over = t->status >= MU_ACP_COMPLETED;
    c = c ? c : add(v, id, t->id);
    /* one that was refused fails without ever having run */
    bool refused = t->status == MU_ACP_FAILED && c->asked && !c->allowed && !t->exited;
    c->allowed = c->allowed || allowed;
    if (c->step == MU_COMMAND_WAITS && !refused && (allowed || t->status >= MU_ACP_RUNNING)) {
        if (t->status >= MU_ACP_RUNNING || t->command.len) {
            int64_t at = c->at;
            begins(v, c, t);
            c->at = over ? at : c->at; /* an agent that says it afterwards */
        }
    }
    if (c->step == MU_COMMAND_RUNS && over) {
        ends(v, c, t);
        v->commands++;
    }
}

uint64_t mu_live_command_asks(struct mu_live *v, const struct mu_acp_tool *t)
{
    mu_live_command(v, t, false);
    struct mu_live_command *c = find(v, hash(t->id));
    if (c) {
        c->asked = true;
    }
    return c ? c->id : 0;
}

void mu_live_command_allowed(struct mu_live *v, uint64_t id)
{
    struct mu_live_command *c = id ? find(v, id) : NULL;
    if (c && c->step == MU_COMMAND_WAITS) {
        c->allowed = true;
        c->at = mu_mono_ms();
    }
}

void mu_live_commands_over(struct mu_live *v)
{
    for (size_t i = 0; i < MU_LIVE_COMMANDS; i++) {
        if (v->running[i].id && v->running[i].step == MU_COMMAND_RUNS) {
            ends(v, &v->running[i], NULL);
        }
        v->running[i].id = 0; /* ids are of one turn */
    }
}
