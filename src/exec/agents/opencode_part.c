/* Messages and their parts: words, tools, steps. Each may be told several times and is handed on
 * once. */
#include <errno.h>
#include <stdio.h>

#include "exec/agents/opencode_int.h"

/* --- messages --- */

static struct mu_oc_message *find_message(const struct mu_oc *o, const char *id)
{
    for (size_t i = 0; i < MU_MIN(o->n_messages, (size_t)MU_OC_MESSAGES); i++) {
        if (strcmp(o->messages[i].id, id) == 0) {
            return &o->messages[i];
        }
    }
    return NULL;
}

static void add_message(struct mu_oc *o, const char *id, bool user, uint64_t turn)
{
    struct mu_oc_message *m = &o->messages[o->n_messages++ % MU_OC_MESSAGES];
    *m = (struct mu_oc_message){.turn = turn, .user = user};
    snprintf(m->id, sizeof m->id, "%s", id);
}

static void finished(struct mu_oc *o, int info, const char *id)
{
    const struct mu_jtok *j = &o->json;
    int error = mu_jtok_get(j, info, "error"), finish = mu_jtok_get(j, info, "finish");
    int at = mu_jtok_get(j, mu_jtok_get(j, info, "time"), "completed");
    if (strcmp(id, o->newest) == 0 && mu_jtok_kind(j, at) == MU_JTOK_NUMBER) {
        o->completed = true;
    }
    bool aborted = mu_jtok_is(j, mu_jtok_get(j, error, "name"), MU_B("MessageAbortedError"));
    if (mu_jtok_kind(j, error) == MU_JTOK_OBJECT && !aborted && !o->error[0]) {
        mu_oc_error(o, error, o->error, sizeof o->error);
    }
    if (mu_jtok_kind(j, finish) == MU_JTOK_STRING) {
        mu_oc_copy(o, finish, o->finish, sizeof o->finish);
    }
}

void mu_oc_message(struct mu_oc *o, int info)
{
    const struct mu_jtok *j = &o->json;
    char id[MU_OC_ID_MAX], parent[MU_OC_ID_MAX];
    bool prompted = o->state == MU_ACP_PROMPTED;
    if (!mu_oc_id(j, mu_jtok_get(j, info, "id"), id)) {
        o->ignored++;
        return;
    }
    const struct mu_oc_message *m = find_message(o, id);
    uint64_t turn = prompted ? o->turn : 0; /* 0: of none */
    bool user = mu_jtok_is(j, mu_jtok_get(j, info, "role"), MU_B("user"));
    if (m) {
        turn = m->turn;
    } else if (user) {
        add_message(o, id, true, turn);
    } else {
        const struct mu_oc_message *of =
            mu_oc_id(j, mu_jtok_get(j, info, "parentID"), parent) ? find_message(o, parent) : NULL;
        turn = of ? of->turn : turn;
        add_message(o, id, false, turn);
        if (turn == o->turn) {
            o->error[0] = 0; /* it goes on */
            o->completed = false;
            memcpy(o->newest, id, sizeof id);
        }
    }
    if (prompted && !user && turn == o->turn) {
        o->active = true;
        finished(o, info, id);
    }
}

/* --- words --- */

static struct mu_oc_part *find_part(const struct mu_oc *o, const char *id)
{
    for (size_t i = 0; i < MU_MIN(o->n_parts, (size_t)MU_OC_PARTS); i++) {
        if (strcmp(o->parts[i].id, id) == 0) {
            return &o->parts[i];
        }
    }
    return NULL;
}

static struct mu_oc_part *get_part(struct mu_oc *o, const char *id, enum mu_oc_part_kind kind)
{
    struct mu_oc_part *p = find_part(o, id);
    if (!p) {
        p = &o->parts[o->n_parts++ % MU_OC_PARTS];
        *p = (struct mu_oc_part){.kind = kind};
        snprintf(p->id, sizeof p->id, "%s", id);
    }
    return p;
}

static int say(struct mu_oc *o, struct mu_oc_part *p, mu_bytes text)
{
    if (o->words.failed) {
        return mu_oc_break(o, o->words.failed, "the agent's words: %s",
                           mu_err_text(o->words.failed));
    }
    if (text.len) {
        p->sent += text.len;
        o->tell->text(o->arg, p->kind == MU_OC_THOUGHT, text);
    }
    return 0;
}

static bool in_turn(const struct mu_oc *o, int v)
{
    char id[MU_OC_ID_MAX];
    const struct mu_oc_message *m = mu_oc_id(&o->json, v, id) ? find_message(o, id) : NULL;
    return m && !m->user && m->turn == o->turn;
}

static int whole_text(struct mu_oc *o, int part, const char *id, bool thought)
{
    struct mu_oc_part *p = get_part(o, id, thought ? MU_OC_THOUGHT : MU_OC_TEXT);
    mu_buf_clear(&o->words);
    (void)!mu_jtok_add(&o->json, mu_jtok_get(&o->json, part, "text"), &o->words);
    return say(o, p, mu_bytes_from(mu_buf_bytes(&o->words), MU_MIN(p->sent, o->words.len)));
}

int mu_oc_delta(struct mu_oc *o, int properties)
{
    const struct mu_jtok *j = &o->json;
    char id[MU_OC_ID_MAX];
    bool text = mu_jtok_is(j, mu_jtok_get(j, properties, "field"), MU_B("text")) &&
                mu_oc_id(j, mu_jtok_get(j, properties, "partID"), id);
    if (!text || !in_turn(o, mu_jtok_get(j, properties, "messageID"))) {
        o->ignored++;
        return 0;
    }
    mu_buf_clear(&o->words);
    (void)!mu_jtok_add(j, mu_jtok_get(j, properties, "delta"), &o->words);
    return say(o, get_part(o, id, MU_OC_TEXT), mu_buf_bytes(&o->words));
}

/* --- steps --- */

static int64_t number(const struct mu_jtok *j, int obj, const char *key)
{
    int64_t n = mu_jtok_i64(j, mu_jtok_get(j, obj, key), 0);
    return n > 0 && n < INT64_C(1) << 50 ? n : 0;
}

/* What was read from a cache was read. */
static void step(struct mu_oc *o, int part, const char *id)
{
    const struct mu_jtok *j = &o->json;
    int tokens = mu_jtok_get(j, part, "tokens"), cache = mu_jtok_get(j, tokens, "cache");
    mu_bytes cost = mu_jtok_raw(j, mu_jtok_get(j, part, "cost"));
    if (find_part(o, id)) {
        return;
    }
    (void)get_part(o, id, MU_OC_STEP);
    int64_t in = number(j, tokens, "input") + number(j, cache, "read") + number(j, cache, "write");
    int64_t out = number(j, tokens, "output") + number(j, tokens, "reasoning");
    o->tokens_in = MU_MAX(o->tokens_in, (int64_t)0) + in;
    o->tokens_out = MU_MAX(o->tokens_out, (int64_t)0) + out;
    mu_buf_clear(&o->words);
    struct mu_json_w w = mu_json_w(&o->words);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "sessionUpdate", "usage_update");
    mu_jw_ki64(&w, "used", in + out);
    if (cost.len) {
        mu_jw_kraw(&w, "cost", cost);
    }
    mu_jw_obj_end(&w);
    if (!o->words.failed) {
        o->tell->update(o->arg, MU_B("usage_update"), mu_buf_bytes(&o->words));
    }
}

/* --- tools --- */

const char *mu_oc_kind(mu_bytes tool)
{
    static const struct {
        const char *name, *kind;
    } kinds[] = {
        {"bash", "execute"},     {"read", "read"},       {"edit", "edit"},
        {"write", "edit"},       {"multiedit", "edit"},  {"patch", "edit"},
        {"apply_patch", "edit"}, {"glob", "search"},     {"grep", "search"},
        {"list", "search"},      {"lsp", "search"},      {"codesearch", "search"},
        {"webfetch", "fetch"},   {"websearch", "fetch"}, {"task", "think"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(kinds); i++) {
        if (mu_bytes_is(tool, kinds[i].name)) {
            return kinds[i].kind;
        }
    }
    return "other";
}

void mu_oc_add_path(struct mu_oc *o, struct mu_acp_tool *t, int v)
{
    char path[4096], whole[8192];
    if (!mu_jtok_copy(&o->json, v, path, sizeof path) || !path[0]) {
        return;
    }
    const char *p = strncmp(path, "./", 2) == 0 ? path + 2 : path;
    bool absolute = path[0] == '/' || !o->opt.cwd;
    int n =
        snprintf(whole, sizeof whole, "%s%s%s", absolute ? "" : o->opt.cwd, absolute ? "" : "/", p);
    if (n > 0 && n < (int)sizeof whole) {
        mu_row_path(t, whole);
    }
}

static void set_paths(struct mu_oc *o, struct mu_acp_tool *t, int state)
{
    const struct mu_jtok *j = &o->json;
    int input = mu_jtok_get(j, state, "input"), meta = mu_jtok_get(j, state, "metadata");
    int files = mu_jtok_get(j, meta, "files");
    mu_oc_add_path(o, t, mu_jtok_get(j, input, "filePath"));
    mu_oc_add_path(o, t, mu_jtok_get(j, input, "path"));
    mu_oc_add_path(o, t, mu_jtok_get(j, meta, "filepath"));
    for (int i = mu_jtok_first(j, files); i >= 0; i = mu_jtok_next(j, files, i)) {
        mu_oc_add_path(o, t, mu_jtok_get(j, i, "filePath"));
    }
}

static void set_command(struct mu_oc *o, struct mu_acp_tool *t, int state)
{
    const struct mu_jtok *j = &o->json;
    int input = mu_jtok_get(j, state, "input");
    int64_t code =
        mu_jtok_i64(j, mu_jtok_get(j, mu_jtok_get(j, state, "metadata"), "exit"), INT64_MIN);
    if (strcmp(t->kind, "execute") != 0) {
        return;
    }
    mu_buf_clear(&o->words);
    if (mu_jtok_add(j, mu_jtok_get(j, input, "command"), &o->words) == 0) {
        mu_row_keep(&t->command, &t->command_cut, mu_buf_bytes(&o->words));
    }
    mu_oc_copy(o, mu_jtok_get(j, input, "workdir"), t->cwd, sizeof t->cwd);
    if (code >= INT32_MIN && code <= INT32_MAX) {
        t->exited = true;
        t->exit_code = (int)code;
    }
}

/* What it says itself, else the most telling of its arguments. */
static void set_title(struct mu_oc *o, struct mu_acp_tool *t, int state)
{
    static const char *const names[] = {"command", "filePath", "url",         "pattern",
                                        "query",   "path",     "description", "name"};
    const struct mu_jtok *j = &o->json;
    char title[sizeof t->title];
    int input = mu_jtok_get(j, state, "input");
    mu_oc_copy(o, mu_jtok_get(j, state, "title"), title, sizeof title);
    for (size_t i = 0; i < MU_ARRAY_LEN(names) && !title[0]; i++) {
        mu_oc_copy(o, mu_jtok_get(j, input, names[i]), title, sizeof title);
    }
    if (title[0] || !t->title[0]) {
        snprintf(t->title, sizeof t->title, "%s", title[0] ? title : t->name);
    }
}

static bool set_status(struct mu_oc *o, struct mu_acp_tool *t, int v)
{
    static const char *const words[] = {"pending", "running", "completed", "error"};
    enum mu_acp_tool_status was = t->status;
    for (size_t i = was; i < MU_ARRAY_LEN(words); i++) { /* never back */
        if (mu_jtok_is(&o->json, v, mu_str(words[i]))) {
            t->status = (enum mu_acp_tool_status)i;
        }
    }
    return t->status != was;
}

static int tool(struct mu_oc *o, int part)
{
    const struct mu_jtok *j = &o->json;
    char id[MU_ACP_ID_MAX];
    int state = mu_jtok_get(j, part, "state"), input = mu_jtok_get(j, state, "input");
    mu_oc_copy(o, mu_jtok_get(j, part, "callID"), id, sizeof id);
    if (!id[0]) {
        o->ignored++;
        return 0;
    }
    bool fresh = !mu_rows_find(&o->rows, id);
    struct mu_acp_tool *t = mu_rows_get(&o->rows, id);
    if (!t) {
        return mu_oc_break(o, -ENOMEM, "no memory for a tool of the agent");
    }
    if (t->status == MU_ACP_COMPLETED || t->status == MU_ACP_FAILED) {
        return 0; /* told again */
    }
    mu_oc_copy(o, mu_jtok_get(j, part, "tool"), t->name, sizeof t->name);
    snprintf(t->kind, sizeof t->kind, "%s", mu_oc_kind(mu_str(t->name)));
    bool changed = set_status(o, t, mu_jtok_get(j, state, "status")) || fresh;
    mu_bytes raw = mu_jtok_raw(j, input);
    if (mu_jtok_kind(j, input) == MU_JTOK_OBJECT && raw.len > 2 &&
        !mu_bytes_eq(raw, mu_buf_bytes(&t->args))) {
        changed = changed || !t->args_cut;
        mu_row_keep(&t->args, &t->args_cut, raw);
    }
    set_title(o, t, state);
    set_command(o, t, state);
    set_paths(o, t, state);
    int result = mu_jtok_get(j, state, t->status == MU_ACP_FAILED ? "error" : "output");
    mu_buf_clear(&o->words);
    if (mu_jtok_add(j, result, &o->words) == 0) {
        mu_row_keep(&t->result, &t->result_cut, mu_buf_bytes(&o->words));
    }
    if (changed) { /* its output while it runs is not told piece by piece */
        t->touched = ++o->rows.touches;
        o->tell->tool(o->arg, t);
    }
    return 0;
}

int mu_oc_part(struct mu_oc *o, int part)
{
    const struct mu_jtok *j = &o->json;
    int type = mu_jtok_get(j, part, "type");
    char id[MU_OC_ID_MAX];
    if (!in_turn(o, mu_jtok_get(j, part, "messageID")) ||
        !mu_oc_id(j, mu_jtok_get(j, part, "id"), id)) {
        o->ignored++;
        return 0;
    }
    bool thought = mu_jtok_is(j, type, MU_B("reasoning"));
    if (thought || mu_jtok_is(j, type, MU_B("text"))) {
        return whole_text(o, part, id, thought);
    }
    if (mu_jtok_is(j, type, MU_B("tool"))) {
        return tool(o, part);
    }
    if (mu_jtok_is(j, type, MU_B("step-finish"))) {
        step(o, part, id);
    }
    return 0;
}
