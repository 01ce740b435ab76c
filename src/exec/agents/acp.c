#include "exec/agents/acp.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/encode.h"
#include "exec/agents/acp_int.h"

enum { NOISE_MAX = 4096, OUT_MAX = 4 << 20, SCRATCH_MAX = MU_ACP_LINE_MAX };

int mu_acp_init(struct mu_acp *a, const struct mu_acp_ops *ops, void *arg,
                const struct mu_acp_options *opt)
{
    *a = (struct mu_acp){.ops = ops, .arg = arg, .opt = *opt};
    mu_buf_init(&a->line, MU_ACP_LINE_MAX);
    mu_buf_init(&a->out, OUT_MAX);
    mu_buf_init(&a->scratch, SCRATCH_MAX);
    mu_buf_init(&a->scratch2, SCRATCH_MAX);
    mu_jtok_init(&a->json);
    a->asks = mu_calloc(MU_ACP_ASKS, sizeof *a->asks);
    if (!a->asks || mu_rows_init(&a->rows) < 0) {
        mu_acp_fini(a);
        return -ENOMEM;
    }
    return 0;
}

void mu_acp_fini(struct mu_acp *a)
{
    mu_rows_fini(&a->rows);
    mu_free(a->asks);
    mu_buf_fini(&a->line);
    mu_buf_fini(&a->out);
    mu_buf_fini(&a->scratch);
    mu_buf_fini(&a->scratch2);
    mu_jtok_fini(&a->json);
    *a = (struct mu_acp){.state = MU_ACP_BROKEN};
}

int mu_acp_break(struct mu_acp *a, int code, const char *fmt, ...)
{
    if (a->state != MU_ACP_BROKEN) {
        char text[sizeof a->err.text];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        mu_err_set(&a->err, code, "%s", text);
        a->state = MU_ACP_BROKEN;
    }
    return a->err.code;
}

void mu_acp_copy(struct mu_acp *a, int v, char *dst, size_t cap)
{
    mu_row_text(&a->json, v, &a->scratch, dst, cap);
}

/* --- what is said to the agent --- */

void mu_acp_begin(struct mu_acp *a, struct mu_json_w *w)
{
    mu_buf_clear(&a->out);
    *w = mu_json_w(&a->out);
    mu_jw_obj(w);
    mu_jw_kcstr(w, "jsonrpc", "2.0");
}

int mu_acp_end(struct mu_acp *a, struct mu_json_w *w)
{
    mu_jw_obj_end(w);
    mu_buf_add_char(&a->out, '\n');
    if (a->out.failed) {
        return mu_acp_break(a, a->out.failed, "what is said to the agent: %s",
                            mu_err_text(a->out.failed));
    }
    int r = a->ops->send(a->arg, mu_buf_bytes(&a->out));
    return r ? mu_acp_break(a, r, "the agent cannot be told: %s", mu_err_text(r)) : 0;
}

int mu_acp_refuse(struct mu_acp *a, mu_bytes id, int code, const char *text)
{
    struct mu_json_w w;
    mu_acp_begin(a, &w);
    mu_jw_kraw(&w, "id", id);
    mu_jw_key(&w, "error");
    mu_jw_obj(&w);
    mu_jw_ki64(&w, "code", code);
    mu_jw_kcstr(&w, "message", text);
    mu_jw_obj_end(&w);
    return mu_acp_end(a, &w);
}

static void request(struct mu_acp *a, struct mu_json_w *w, const char *method)
{
    mu_acp_begin(a, w);
    a->wait_id = ++a->last_id;
    mu_jw_ki64(w, "id", a->wait_id);
    mu_jw_kcstr(w, "method", method);
    mu_jw_key(w, "params");
    mu_jw_obj(w);
}

static int request_end(struct mu_acp *a, struct mu_json_w *w)
{
    mu_jw_obj_end(w);
    return mu_acp_end(a, w);
}

int mu_acp_start(struct mu_acp *a)
{
    struct mu_json_w w;
    if (a->state != MU_ACP_NEW) {
        return MU_E_CONFLICT;
    }
    a->state = MU_ACP_INITIALIZING;
    request(a, &w, "initialize");
    mu_jw_ki64(&w, "protocolVersion", 1);
    mu_jw_key(&w, "clientInfo");
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "name", "muster");
    mu_jw_kcstr(&w, "version", a->opt.version);
    mu_jw_obj_end(&w);
    mu_jw_kraw(
        &w, "clientCapabilities",
        MU_B("{\"fs\":{\"readTextFile\":false,\"writeTextFile\":false},\"terminal\":false}"));
    return request_end(a, &w);
}

static int open_conversation(struct mu_acp *a, bool load)
{
    struct mu_json_w w;
    a->state = MU_ACP_OPENING;
    a->loading = load;
    request(a, &w, load ? "session/load" : "session/new");
    if (load) {
        mu_jw_kcstr(&w, "sessionId", a->opt.conversation);
    }
    mu_jw_kcstr(&w, "cwd", a->opt.cwd);
    mu_jw_kraw(&w, "mcpServers", MU_B("[]"));
    return request_end(a, &w);
}

int mu_acp_prompt(struct mu_acp *a, mu_bytes text)
{
    struct mu_json_w w;
    if (a->state != MU_ACP_READY) {
        return a->state == MU_ACP_BROKEN ? a->err.code : MU_E_CONFLICT;
    }
    a->state = MU_ACP_PROMPTED;
    a->cancelling = false;
    mu_rows_clear(&a->rows);
    request(a, &w, "session/prompt");
    mu_jw_kcstr(&w, "sessionId", a->conversation);
    mu_jw_key(&w, "prompt");
    mu_jw_arr(&w);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "type", "text");
    mu_jw_kstr(&w, "text", text);
    mu_jw_obj_end(&w);
    mu_jw_arr_end(&w);
    return request_end(a, &w);
}

int mu_acp_cancel(struct mu_acp *a)
{
    struct mu_json_w w;
    if (a->state != MU_ACP_PROMPTED) {
        return a->state == MU_ACP_BROKEN ? a->err.code : 0;
    }
    a->cancelling = true;
    mu_acp_begin(a, &w);
    mu_jw_kcstr(&w, "method", "session/cancel");
    mu_jw_key(&w, "params");
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "sessionId", a->conversation);
    mu_jw_obj_end(&w);
    int r = mu_acp_end(a, &w);
    while (!r && a->n_asks) {
        r = mu_acp_answer(a, a->asks[0].handle, MU_ACP_CANCEL);
    }
    return r;
}

/* --- what it answers --- */

static int ready(struct mu_acp *a)
{
    struct mu_acp_info info = {mu_str(a->agent[0] ? a->agent : NULL),
                               mu_str(a->version[0] ? a->version : NULL),
                               mu_str(a->conversation),
                               a->resumed,
                               mu_str(a->not_loaded[0] ? a->not_loaded : NULL),
                               a->no_model};
    a->state = MU_ACP_READY;
    a->ops->ready(a->arg, &info);
    return a->state == MU_ACP_BROKEN ? a->err.code : 0;
}

static void error_text(struct mu_acp *a, int error, char *dst, size_t cap)
{
    mu_acp_copy(a, mu_jtok_get(&a->json, error, "message"), dst, cap);
    if (!dst[0]) {
        snprintf(dst, cap, "an error without words");
    }
    /* many say "Internal error", and what happened in data */
    int data = mu_jtok_get(&a->json, error, "data");
    int more = mu_jtok_get(&a->json, data, "details");
    more = more >= 0 ? more : mu_jtok_get(&a->json, data, "message");
    more = more >= 0 ? more : data;
    char words[300];
    mu_acp_copy(a, more, words, sizeof words);
    size_t n = strlen(dst);
    if (words[0] && n + 3 < cap) {
        snprintf(dst + n, cap - n, ": %s", words);
    }
}

static int initialized(struct mu_acp *a, int result)
{
    const struct mu_jtok *j = &a->json;
    int64_t version = mu_jtok_i64(j, mu_jtok_get(j, result, "protocolVersion"), -1);
    if (version != 1) {
        return mu_acp_break(a, MU_E_VERSION, "the agent speaks another version of ACP (%lld)",
                            (long long)version);
    }
    int info = mu_jtok_get(j, result, "agentInfo");
    mu_acp_copy(a, mu_jtok_get(j, info, "name"), a->agent, sizeof a->agent);
    mu_acp_copy(a, mu_jtok_get(j, info, "version"), a->version, sizeof a->version);
    int caps = mu_jtok_get(j, result, "agentCapabilities");
    a->can_load = mu_jtok_bool(j, mu_jtok_get(j, caps, "loadSession"), false);
    bool wanted = a->opt.conversation && a->opt.conversation[0];
    if (wanted && !a->can_load) {
        snprintf(a->not_loaded, sizeof a->not_loaded, "the agent cannot load conversations");
    }
    return open_conversation(a, wanted && a->can_load);
}

/* Whether the agent offers the mode and is in another one. */
static bool wants_mode(struct mu_acp *a, int result)
{
    const struct mu_jtok *j = &a->json;
    int modes = mu_jtok_get(j, result, "modes");
    int list = mu_jtok_get(j, modes, "availableModes");
    mu_bytes mode = mu_str(a->opt.mode);
    if (!mode.len || mu_jtok_is(j, mu_jtok_get(j, modes, "currentModeId"), mode)) {
        return false;
    }
    for (int i = mu_jtok_first(j, list); i >= 0; i = mu_jtok_next(j, list, i)) {
        if (mu_jtok_is(j, mu_jtok_get(j, i, "id"), mode)) {
            return true;
        }
    }
    return false;
}

/* The item of `list` whose `id` or name is the model that is wanted. */
static bool find_model(struct mu_acp *a, int list, const char *id, bool grouped)
{
    const struct mu_jtok *j = &a->json;
    mu_bytes model = mu_str(a->opt.model);
    for (int i = mu_jtok_first(j, list); i >= 0; i = mu_jtok_next(j, list, i)) {
        int v = mu_jtok_get(j, i, id), group = mu_jtok_get(j, i, "options");
        if (mu_jtok_is(j, v, model) || mu_jtok_is(j, mu_jtok_get(j, i, "name"), model)) {
            return mu_jtok_copy(j, v, a->model, sizeof a->model) && a->model[0];
        }
        if (!grouped && find_model(a, group, id, true)) {
            return true;
        }
    }
    return false;
}

/* What the agent offers: as an option of the conversation, or as older ones do. */
static void look_for_model(struct mu_acp *a, int result)
{
    const struct mu_jtok *j = &a->json;
    int models = mu_jtok_get(j, result, "models");
    int options = mu_jtok_get(j, result, "configOptions"), current = -1;
    bool offers = models >= 0, found = false;
    a->model[0] = a->model_option[0] = 0;
    if (!a->opt.model || !a->opt.model[0]) {
        return;
    }
    for (int i = mu_jtok_first(j, options); i >= 0 && !found; i = mu_jtok_next(j, options, i)) {
        int id = mu_jtok_get(j, i, "id");
        if (mu_jtok_is(j, id, MU_B("model")) ||
            mu_jtok_is(j, mu_jtok_get(j, i, "category"), MU_B("model"))) {
            offers = true;
            found = mu_jtok_copy(j, id, a->model_option, sizeof a->model_option) &&
                    find_model(a, mu_jtok_get(j, i, "options"), "value", false);
            current = mu_jtok_get(j, i, "currentValue");
        }
    }
    if (!found) {
        a->model_option[0] = 0;
        found = find_model(a, mu_jtok_get(j, models, "availableModels"), "modelId", false);
        current = mu_jtok_get(j, models, "currentModelId");
    }
    a->no_model = offers && !found;
    if (found && mu_jtok_is(j, current, mu_str(a->model))) {
        a->model[0] = 0; /* it is that one */
    }
}

/* Ready, after the model that is wanted was asked for. */
static int ready_with_model(struct mu_acp *a)
{
    struct mu_json_w w;
    if (!a->model[0]) {
        return ready(a);
    }
    bool option = a->model_option[0] != 0;
    a->state = MU_ACP_MODEL;
    request(a, &w, option ? "session/set_config_option" : "session/set_model");
    mu_jw_kcstr(&w, "sessionId", a->conversation);
    if (option) {
        mu_jw_kcstr(&w, "configId", a->model_option);
    }
    mu_jw_kcstr(&w, option ? "value" : "modelId", a->model);
    return request_end(a, &w);
}

static int opened(struct mu_acp *a, int result)
{
    struct mu_json_w w;
    if (a->loading) {
        snprintf(a->conversation, sizeof a->conversation, "%s", a->opt.conversation);
        a->resumed = true;
    } else if (!mu_jtok_copy(&a->json, mu_jtok_get(&a->json, result, "sessionId"), a->conversation,
                             sizeof a->conversation) ||
               !a->conversation[0]) {
        return mu_acp_break(a, MU_E_PROTOCOL, "the agent gave its conversation no usable id");
    }
    a->loading = false;
    mu_rows_clear(&a->rows);
    look_for_model(a, result);
    if (!wants_mode(a, result)) {
        return ready_with_model(a);
    }
    a->state = MU_ACP_MODE;
    request(a, &w, "session/set_mode");
    mu_jw_kcstr(&w, "sessionId", a->conversation);
    mu_jw_kcstr(&w, "modeId", a->opt.mode);
    return request_end(a, &w);
}

static int64_t first_number(const struct mu_jtok *j, int obj, const char *a, const char *b)
{
    int64_t n = mu_jtok_i64(j, mu_jtok_get(j, obj, a), -1);
    n = n >= 0 ? n : mu_jtok_i64(j, mu_jtok_get(j, obj, b), -1);
    return n >= 0 && n < INT64_C(1) << 53 ? n : -1;
}

/* Of most agents in `usage`, of Gemini below _meta. What was read from a cache was read. */
static struct mu_acp_usage usage_of(const struct mu_jtok *j, int result)
{
    int u = mu_jtok_get(j, result, "usage");
    if (u < 0) {
        int quota = mu_jtok_get(j, mu_jtok_get(j, result, "_meta"), "quota");
        u = mu_jtok_get(j, quota, "token_count");
        u = u >= 0 ? u : quota;
    }
    struct mu_acp_usage usage = {first_number(j, u, "inputTokens", "input_tokens"),
                                 first_number(j, u, "outputTokens", "output_tokens")};
    int64_t read = first_number(j, u, "cachedReadTokens", "cached_read_tokens");
    int64_t wrote = first_number(j, u, "cachedWriteTokens", "cached_write_tokens");
    if (usage.tokens_in >= 0) {
        usage.tokens_in += MU_MAX(read, (int64_t)0) + MU_MAX(wrote, (int64_t)0);
    }
    return usage;
}

static int turn_over(struct mu_acp *a, int result, int error)
{
    char reason[512];
    struct mu_acp_usage usage = usage_of(&a->json, result);
    enum mu_acp_outcome outcome = MU_ACP_DONE;
    if (error >= 0) {
        error_text(a, error, reason, sizeof reason);
        outcome = a->cancelling ? MU_ACP_CANCELLED : MU_ACP_ERROR;
    } else {
        int stop = mu_jtok_get(&a->json, result, "stopReason");
        mu_acp_copy(a, stop, reason, sizeof reason);
        outcome = strcmp(reason, "cancelled") == 0 ? MU_ACP_CANCELLED : MU_ACP_DONE;
    }
    mu_acp_asks_drop(a);
    a->state = MU_ACP_READY;
    a->cancelling = false;
    a->ops->turn(a->arg, outcome, mu_str(reason), &usage);
    return a->state == MU_ACP_BROKEN ? a->err.code : 0;
}

static int answered(struct mu_acp *a, int result, int error)
{
    char text[300];
    a->wait_id = 0;
    if (a->state == MU_ACP_PROMPTED) {
        return turn_over(a, result, error);
    }
    if (a->state == MU_ACP_MODE) {
        return ready_with_model(a); /* one that stays as it is still asks or not as it likes */
    }
    if (a->state == MU_ACP_MODEL) {
        a->no_model = error >= 0;
        return ready(a);
    }
    if (error >= 0) {
        error_text(a, error, text, sizeof text);
        if (a->state == MU_ACP_OPENING && a->loading) {
            snprintf(a->not_loaded, sizeof a->not_loaded, "%.199s", text);
            mu_rows_clear(&a->rows);
            return open_conversation(a, false);
        }
        return mu_acp_break(a, MU_E_PROTOCOL, "the agent refused to start: %s", text);
    }
    return a->state == MU_ACP_INITIALIZING ? initialized(a, result) : opened(a, result);
}

static int response(struct mu_acp *a, int id, int result, int error)
{
    int64_t n = mu_jtok_i64(&a->json, id, 0);
    if (!n || n != a->wait_id) {
        a->ignored++; /* twice, or to what nobody asked */
        return 0;
    }
    return answered(a, result, error);
}

/* --- its lines --- */

static int message(struct mu_acp *a)
{
    const struct mu_jtok *j = &a->json;
    int method = mu_jtok_get(j, 0, "method"), id = mu_jtok_get(j, 0, "id");
    int params = mu_jtok_get(j, 0, "params");
    if (mu_jtok_kind(j, method) == MU_JTOK_STRING) {
        if (id < 0) {
            if (mu_jtok_is(j, method, MU_B("session/update"))) {
                return mu_acp_update(a, params);
            }
            if (mu_jtok_is(j, method, MU_B("$/cancel_request"))) {
                mu_acp_taken_back(a, params);
            }
            return 0;
        }
        if (mu_jtok_is(j, method, MU_B("session/request_permission"))) {
            return mu_acp_asked(a, id, params);
        }
        return mu_acp_refuse(a, mu_jtok_raw(j, id), -32601, "method not found");
    }
    int result = mu_jtok_get(j, 0, "result"), error = mu_jtok_get(j, 0, "error");
    if (mu_jtok_kind(j, error) == MU_JTOK_NULL && result >= 0) {
        error = -1;
    }
    if (id >= 0 && (result >= 0 || error >= 0)) {
        return response(a, id, result, error);
    }
    a->ignored++;
    return 0;
}

static int take_line(struct mu_acp *a, mu_bytes line)
{
    line = mu_bytes_trim(line);
    if (!line.len) {
        return 0;
    }
    int r = mu_jtok_parse(&a->json, line);
    if (r == MU_E_INVALID || (!r && mu_jtok_kind(&a->json, 0) != MU_JTOK_OBJECT)) {
        a->garbage++;
        a->ops->noise(a->arg, mu_utf8_cut(line, NOISE_MAX));
        return a->state == MU_ACP_BROKEN ? a->err.code : 0;
    }
    if (r) {
        return mu_acp_break(a, r, "a message of the agent has too many or too deep values: %s",
                            mu_err_text(r));
    }
    return message(a);
}

/* Long lines are rare: no memory is kept for them. */
static void shrink(struct mu_acp *a)
{
    struct mu_buf *all[] = {&a->out, &a->scratch, &a->scratch2};
    for (size_t i = 0; i < MU_ARRAY_LEN(all); i++) {
        if (all[i]->cap > 1 << 20) {
            mu_buf_fini(all[i]);
        }
        mu_buf_clear(all[i]);
    }
}

int mu_acp_feed(struct mu_acp *a, mu_bytes piece)
{
    while (piece.len && a->state != MU_ACP_BROKEN) {
        ptrdiff_t end = mu_bytes_find_char(piece, '\n');
        mu_bytes part = mu_bytes_head(piece, end < 0 ? piece.len : (size_t)end);
        piece = mu_bytes_from(piece, part.len + (end < 0 ? 0 : 1));
        if (end >= 0 && !a->line.len) {
            (void)take_line(a, part); /* whole: no copy */
            shrink(a);
            continue;
        }
        mu_buf_add(&a->line, part);
        if (a->line.failed) {
            return mu_acp_break(a, a->line.failed,
                                a->line.failed == MU_E_TOO_LARGE
                                    ? "a line of the agent is longer than %d MiB"
                                    : "no memory for a line of the agent (at most %d MiB)",
                                MU_ACP_LINE_MAX >> 20);
        }
        if (end >= 0) {
            (void)take_line(a, mu_buf_bytes(&a->line));
            shrink(a);
            if (a->line.cap > 1 << 20) {
                mu_buf_fini(&a->line);
            }
            a->line.len = 0;
        }
    }
    return a->state == MU_ACP_BROKEN ? a->err.code : 0;
}
