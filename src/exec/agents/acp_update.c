/* What the agent tells about its turn: words, tool rows, plans. */
#include <errno.h>
#include <stdio.h>

#include "exec/agents/acp_int.h"

static void set_kind(struct mu_acp *a, struct mu_acp_tool *t, int v)
{
    static const char *const kinds[] = {"read",    "edit",  "delete", "move", "search",
                                        "execute", "think", "fetch",  "other"};
    for (size_t i = 0; i < MU_ARRAY_LEN(kinds); i++) {
        if (mu_jtok_is(&a->json, v, mu_str(kinds[i]))) {
            snprintf(t->kind, sizeof t->kind, "%s", kinds[i]);
        }
    }
}

static void set_status(struct mu_acp *a, struct mu_acp_tool *t, int v)
{
    static const struct {
        const char *word;
        enum mu_acp_tool_status status;
    } words[] = {{"pending", MU_ACP_PENDING},
                 {"in_progress", MU_ACP_RUNNING},
                 {"completed", MU_ACP_COMPLETED},
                 {"failed", MU_ACP_FAILED}};
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        if (mu_jtok_is(&a->json, v, mu_str(words[i].word))) {
            t->status = words[i].status;
        }
    }
}

static void add_path(struct mu_acp *a, struct mu_acp_tool *t, int v)
{
    char path[4096];
    if (mu_jtok_copy(&a->json, v, path, sizeof path)) {
        mu_row_path(t, path);
    }
}

static void set_paths(struct mu_acp *a, struct mu_acp_tool *t, int call)
{
    static const char *const names[] = {"file_path", "filePath",      "filepath",     "path",
                                        "abs_path",  "absolute_path", "notebook_path"};
    const struct mu_jtok *j = &a->json;
    int list = mu_jtok_get(j, call, "locations"), content = mu_jtok_get(j, call, "content");
    int input = mu_jtok_get(j, call, "rawInput");
    for (int i = mu_jtok_first(j, list); i >= 0; i = mu_jtok_next(j, list, i)) {
        add_path(a, t, mu_jtok_get(j, i, "path"));
    }
    for (int i = mu_jtok_first(j, content); i >= 0; i = mu_jtok_next(j, content, i)) {
        add_path(a, t, mu_jtok_get(j, i, "path"));
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        add_path(a, t, mu_jtok_get(j, input, names[i]));
    }
}

/* The text of the content list; what is no text is named. */
static void content_text(struct mu_acp *a, int content, struct mu_buf *dst)
{
    const struct mu_jtok *j = &a->json;
    for (int i = mu_jtok_first(j, content); i >= 0; i = mu_jtok_next(j, content, i)) {
        int inner = mu_jtok_get(j, i, "content");
        if (mu_jtok_is(j, mu_jtok_get(j, inner, "type"), MU_B("text"))) {
            (void)!mu_jtok_add(j, mu_jtok_get(j, inner, "text"), dst);
        } else if (mu_jtok_is(j, mu_jtok_get(j, i, "type"), MU_B("diff"))) {
            mu_buf_add_str(dst, dst->len ? "\nchange of " : "change of ");
            (void)!mu_jtok_add(j, mu_jtok_get(j, i, "path"), dst);
        }
    }
}

static void set_result(struct mu_acp *a, struct mu_acp_tool *t, int call)
{
    const struct mu_jtok *j = &a->json;
    int output = mu_jtok_get(j, call, "rawOutput");
    static const char *const names[] = {"formatted_output", "output", "stdout", "error", "message"};
    mu_buf_clear(&a->scratch);
    if (mu_jtok_add(j, output, &a->scratch) < 0) {
        for (size_t i = 0; i < MU_ARRAY_LEN(names) && !a->scratch.len; i++) {
            (void)!mu_jtok_add(j, mu_jtok_get(j, output, names[i]), &a->scratch);
        }
    }
    if (!a->scratch.len) {
        content_text(a, mu_jtok_get(j, call, "content"), &a->scratch);
    }
    if (!a->scratch.len && output >= 0 && mu_jtok_kind(j, output) != MU_JTOK_NULL) {
        mu_buf_add(&a->scratch, mu_jtok_raw(j, output));
    }
    if (a->scratch.len) {
        mu_row_keep(&t->result, &t->result_cut, mu_buf_bytes(&a->scratch));
    }
}

/* Of an execute; agents say its end in one of several places. */
static void set_command(struct mu_acp *a, struct mu_acp_tool *t, int call)
{
    static const char *const codes[] = {"exit_code", "exitCode", "exit"};
    static const char *const folders[] = {"cwd", "workdir", "dir_path"};
    const struct mu_jtok *j = &a->json;
    int input = mu_jtok_get(j, call, "rawInput");
    int meta = mu_jtok_get(j, mu_jtok_get(j, call, "_meta"), "terminal_exit");
    int said[] = {mu_jtok_get(j, call, "rawOutput"), meta};
    struct mu_buf command MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&command, MU_ACP_LINE_MAX);
    if (strcmp(t->kind, "execute") != 0) {
        return;
    }
    mu_bytes text = mu_acp_command(a, input, &command);
    if (text.ptr) {
        mu_row_keep(&t->command, &t->command_cut, text);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(folders) && !t->cwd[0]; i++) {
        mu_acp_copy(a, mu_jtok_get(j, input, folders[i]), t->cwd, sizeof t->cwd);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(codes) * MU_ARRAY_LEN(said); i++) {
        int64_t n = mu_jtok_i64(j, mu_jtok_get(j, said[i % 2], codes[i / 2]), INT64_MIN);
        if (n >= INT32_MIN && n <= INT32_MAX) {
            t->exited = true;
            t->exit_code = (int)n;
        }
    }
}

static void set_name(struct mu_acp *a, struct mu_acp_tool *t, int call)
{
    const struct mu_jtok *j = &a->json;
    int meta = mu_jtok_get(j, mu_jtok_get(j, call, "_meta"), "claudeCode");
    char name[sizeof t->name];
    mu_acp_copy(a, mu_jtok_get(j, meta, "toolName"), name, sizeof name);
    if (name[0]) {
        snprintf(t->name, sizeof t->name, "%s", name);
    } else if (!t->name[0] || strcmp(t->name, "other") == 0) {
        snprintf(t->name, sizeof t->name, "%s", t->kind);
    }
}

/* An agent that names no id speaks of a row of its own. */
static void id_of(struct mu_acp *a, int call, char id[MU_ACP_ID_MAX])
{
    mu_acp_copy(a, mu_jtok_get(&a->json, call, "toolCallId"), id, MU_ACP_ID_MAX);
    if (!id[0]) {
        snprintf(id, MU_ACP_ID_MAX, "permission-%u", a->last_handle + 1);
    }
}

struct mu_acp_tool *mu_acp_row(struct mu_acp *a, int call)
{
    const struct mu_jtok *j = &a->json;
    char id[MU_ACP_ID_MAX], title[sizeof(((struct mu_acp_tool *)0)->title)];
    id_of(a, call, id);
    struct mu_acp_tool *t = mu_rows_get(&a->rows, id);
    if (!t) {
        return NULL;
    }
    t->touched = ++a->rows.touches;
    set_kind(a, t, mu_jtok_get(j, call, "kind"));
    set_status(a, t, mu_jtok_get(j, call, "status"));
    set_name(a, t, call);
    mu_acp_copy(a, mu_jtok_get(j, call, "title"), title, sizeof title);
    if (title[0]) {
        snprintf(t->title, sizeof t->title, "%s", title);
    } else if (!t->title[0]) {
        snprintf(t->title, sizeof t->title, "%s", t->name);
    }
    int input = mu_jtok_get(j, call, "rawInput");
    mu_bytes raw = mu_jtok_raw(j, input);
    if (raw.len && !mu_bytes_is(raw, "{}") && mu_jtok_kind(j, input) != MU_JTOK_NULL) {
        mu_row_keep(&t->args, &t->args_cut, raw);
    }
    set_command(a, t, call);
    set_paths(a, t, call);
    set_result(a, t, call);
    return t;
}

static int told(struct mu_acp *a, int update)
{
    if (mu_jtok_kind(&a->json, mu_jtok_get(&a->json, update, "toolCallId")) != MU_JTOK_STRING) {
        a->ignored++;
        return 0;
    }
    struct mu_acp_tool *t = mu_acp_row(a, update);
    if (!t) {
        return mu_acp_break(a, -ENOMEM, "no memory for a tool of the agent");
    }
    a->ops->tool(a->arg, t);
    return 0;
}

static int words(struct mu_acp *a, int update, bool thought)
{
    const struct mu_jtok *j = &a->json;
    int content = mu_jtok_get(j, update, "content"), type = mu_jtok_get(j, content, "type");
    mu_buf_clear(&a->scratch);
    if (mu_jtok_is(j, type, MU_B("text"))) {
        (void)!mu_jtok_add(j, mu_jtok_get(j, content, "text"), &a->scratch);
    } else if (mu_jtok_kind(j, type) == MU_JTOK_STRING) {
        mu_buf_add_char(&a->scratch, '[');
        (void)!mu_jtok_add(j, type, &a->scratch);
        mu_buf_add_char(&a->scratch, ']');
    }
    if (a->scratch.failed) {
        return mu_acp_break(a, a->scratch.failed, "the agent's words: %s",
                            mu_err_text(a->scratch.failed));
    }
    if (a->scratch.len) { /* Claude's first piece is empty */
        a->ops->text(a->arg, thought, mu_buf_bytes(&a->scratch));
    }
    return 0;
}

static int in_turn(struct mu_acp *a, int update, int kind)
{
    const struct mu_jtok *j = &a->json;
    if (mu_jtok_is(j, kind, MU_B("agent_message_chunk"))) {
        return words(a, update, false);
    }
    if (mu_jtok_is(j, kind, MU_B("agent_thought_chunk"))) {
        return words(a, update, true);
    }
    if (mu_jtok_is(j, kind, MU_B("tool_call")) || mu_jtok_is(j, kind, MU_B("tool_call_update"))) {
        return told(a, update);
    }
    return 1;
}

int mu_acp_update(struct mu_acp *a, int params)
{
    const struct mu_jtok *j = &a->json;
    int update = mu_jtok_get(j, params, "update"), kind = mu_jtok_get(j, update, "sessionUpdate");
    static const char *const forwarded[] = {"plan", "usage_update", "current_mode_update"};
    bool ours = a->state >= MU_ACP_READY &&
                mu_jtok_is(j, mu_jtok_get(j, params, "sessionId"), mu_str(a->conversation));
    if (!ours) { /* history that is told again comes before it is ready */
        a->ignored++;
        return 0;
    }
    int r = a->state == MU_ACP_PROMPTED ? in_turn(a, update, kind) : 1;
    for (size_t i = 0; r == 1 && i < MU_ARRAY_LEN(forwarded); i++) {
        if (mu_jtok_is(j, kind, mu_str(forwarded[i]))) {
            a->ops->update(a->arg, mu_str(forwarded[i]), mu_jtok_raw(j, update));
            r = 0;
        }
    }
    a->ignored += r == 1;
    r = r == 1 ? 0 : r;
    return a->state == MU_ACP_BROKEN ? a->err.code : r;
}
