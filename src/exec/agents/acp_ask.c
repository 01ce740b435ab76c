/* Permissions: the agent waits until somebody chose one of its options. */
#include <errno.h>
#include <stdio.h>

#include "exec/agents/acp_int.h"

static const char *const kinds[MU_ACP_KINDS] = {"allow_once", "allow_always", "reject_once",
                                                "reject_always"};

static void drop(struct mu_acp *a, size_t i)
{
    for (; i + 1 < a->n_asks; i++) {
        a->asks[i] = a->asks[i + 1];
    }
    a->n_asks--;
}

void mu_acp_asks_drop(struct mu_acp *a)
{
    while (a->n_asks) {
        unsigned handle = a->asks[0].handle;
        drop(a, 0);
        a->ops->ask_gone(a->arg, handle);
    }
}

static void read_options(struct mu_acp *a, struct mu_acp_open_ask *ask, int options)
{
    const struct mu_jtok *j = &a->json;
    for (int i = mu_jtok_first(j, options); i >= 0; i = mu_jtok_next(j, options, i)) {
        mu_bytes id = mu_jtok_raw(j, mu_jtok_get(j, i, "optionId"));
        int kind = mu_jtok_get(j, i, "kind");
        for (size_t k = 0; k < MU_ACP_KINDS; k++) {
            if (mu_jtok_is(j, kind, mu_str(kinds[k])) && id.len && id.len < MU_ACP_OPTION_MAX &&
                !ask->option[k][0]) {
                memcpy(ask->option[k], id.ptr, id.len);
                ask->option[k][id.len] = 0;
            }
        }
    }
}

static bool is_plain(mu_bytes word)
{
    for (size_t i = 0; i < word.len; i++) {
        char c = word.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("_-./=:,@%+", c);
        if (!plain || !c) {
            return false;
        }
    }
    return word.len > 0;
}

void mu_acp_word(struct mu_buf *dst, mu_bytes word)
{
    if (dst->len) {
        mu_buf_add_char(dst, ' ');
    }
    if (is_plain(word)) {
        mu_buf_add(dst, word);
        return;
    }
    mu_buf_add_char(dst, '\'');
    for (size_t i = 0; i < word.len; i++) {
        if (word.ptr[i] == '\'') {
            mu_buf_add_str(dst, "'\\''");
        } else {
            mu_buf_add_char(dst, word.ptr[i]);
        }
    }
    mu_buf_add_char(dst, '\'');
}

/* Text, or a list of words (Codex). */
mu_bytes mu_acp_command(struct mu_acp *a, int input, struct mu_buf *dst)
{
    static const char *const names[] = {"command", "cmd"};
    const struct mu_jtok *j = &a->json;
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        int v = mu_jtok_get(j, input, names[i]);
        mu_buf_clear(dst);
        if (mu_jtok_add(j, v, dst) == 0 && dst->len) {
            return mu_buf_bytes(dst);
        }
        for (int k = mu_jtok_first(j, v); k >= 0; k = mu_jtok_next(j, v, k)) {
            mu_buf_clear(&a->scratch);
            if (mu_jtok_add(j, k, &a->scratch) < 0) {
                return MU_B_NONE;
            }
            mu_acp_word(dst, mu_buf_bytes(&a->scratch));
        }
        if (dst->len && !dst->failed) {
            return mu_buf_bytes(dst);
        }
    }
    return MU_B_NONE;
}

static bool is_open(const struct mu_acp *a, mu_bytes id)
{
    for (size_t i = 0; i < a->n_asks; i++) {
        if (mu_bytes_is(id, a->asks[i].id)) {
            return true;
        }
    }
    return false;
}

static int cancelled(struct mu_acp *a, mu_bytes id)
{
    struct mu_json_w w;
    mu_acp_begin(a, &w);
    mu_jw_kraw(&w, "id", id);
    mu_jw_kraw(&w, "result", MU_B("{\"outcome\":{\"outcome\":\"cancelled\"}}"));
    return mu_acp_end(a, &w);
}

/* What it is about, in the agent's own words: the input and the changes it shows. */
static void subject_of(struct mu_acp *a, int call, struct mu_acp_ask *ask, struct mu_buf *dst)
{
    const struct mu_jtok *j = &a->json;
    mu_bytes input = mu_jtok_raw(j, mu_jtok_get(j, call, "rawInput"));
    mu_bytes content = mu_jtok_raw(j, mu_jtok_get(j, call, "content"));
    mu_buf_clear(dst);
    if (input.len || content.len) {
        mu_buf_add(dst, input);
        mu_buf_add_char(dst, '\n');
        mu_buf_add(dst, content);
        ask->subject = dst->failed ? MU_B_NONE : mu_buf_bytes(dst);
    }
}

static int hand_on(struct mu_acp *a, unsigned handle, int params)
{
    const struct mu_jtok *j = &a->json;
    int call = mu_jtok_get(j, params, "toolCall"), input = mu_jtok_get(j, call, "rawInput");
    struct mu_buf command MU_CLEANUP(mu_buf_fini), url MU_CLEANUP(mu_buf_fini);
    struct mu_acp_ask ask = {.handle = handle};
    mu_buf_init(&command, MU_ACP_LINE_MAX);
    mu_buf_init(&url, 8192);
    struct mu_acp_tool *t = mu_acp_row(a, call);
    if (!t) {
        return mu_acp_break(a, -ENOMEM, "no memory for a request of the agent");
    }
    ask.tool = t;
    ask.command = mu_acp_command(a, input, &command);
    if (mu_jtok_add(j, mu_jtok_get(j, input, "url"), &url) == 0) {
        ask.url = mu_buf_bytes(&url);
    }
    ask.exact = mu_jtok_raw(j, call >= 0 ? call : params);
    subject_of(a, call, &ask, &a->scratch2);
    a->ops->ask(a->arg, &ask);
    return a->state == MU_ACP_BROKEN ? a->err.code : 0;
}

int mu_acp_asked(struct mu_acp *a, int id, int params)
{
    mu_bytes raw = mu_jtok_raw(&a->json, id);
    if (raw.len >= MU_ACP_ID_MAX) {
        return mu_acp_break(a, MU_E_TOO_LARGE, "the id of a request of the agent is too long");
    }
    if (is_open(a, raw)) {
        return mu_acp_break(a, MU_E_PROTOCOL,
                            "the agent used the id of a request again that is still open");
    }
    if (a->state != MU_ACP_PROMPTED || a->cancelling) {
        return cancelled(a, raw);
    }
    if (a->n_asks == MU_ACP_ASKS) {
        return mu_acp_refuse(a, raw, -32000, "too many permissions are waited for");
    }
    struct mu_acp_open_ask *ask = &a->asks[a->n_asks];
    *ask = (struct mu_acp_open_ask){.handle = 0};
    memcpy(ask->id, raw.ptr, raw.len);
    read_options(a, ask, mu_jtok_get(&a->json, params, "options"));
    unsigned handle = a->last_handle + 1;
    ask->handle = handle;
    a->n_asks++;
    int r = hand_on(a, handle, params);
    a->last_handle = MU_MAX(a->last_handle, handle);
    return r;
}

int mu_acp_answer(struct mu_acp *a, unsigned handle, enum mu_acp_decision d)
{
    static const size_t first[] = {[MU_ACP_ALLOW] = 0, [MU_ACP_DENY] = 2};
    struct mu_json_w w;
    size_t i = 0;
    while (i < a->n_asks && a->asks[i].handle != handle) {
        i++;
    }
    if (a->state == MU_ACP_BROKEN) {
        return a->err.code;
    }
    if (i == a->n_asks) {
        return MU_E_NOT_FOUND;
    }
    const struct mu_acp_open_ask *ask = &a->asks[i];
    const char *option = "";
    if (d != MU_ACP_CANCEL) { /* once, else for always: whoever asks us again is asked again */
        size_t k = first[d];
        option = ask->option[k][0] ? ask->option[k] : ask->option[k + 1];
    }
    int r;
    if (option[0]) {
        mu_acp_begin(a, &w);
        mu_jw_kraw(&w, "id", mu_str(ask->id));
        mu_jw_key(&w, "result");
        mu_jw_obj(&w);
        mu_jw_key(&w, "outcome");
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "outcome", "selected");
        mu_jw_kraw(&w, "optionId", mu_str(option));
        mu_jw_obj_end(&w);
        mu_jw_obj_end(&w);
        r = mu_acp_end(a, &w);
    } else {
        r = cancelled(a, mu_str(ask->id));
    }
    drop(a, i);
    return r;
}

void mu_acp_taken_back(struct mu_acp *a, int params)
{
    const struct mu_jtok *j = &a->json;
    mu_bytes id = mu_jtok_raw(j, mu_jtok_get(j, params, "requestId"));
    for (size_t i = 0; i < a->n_asks && id.len; i++) {
        if (mu_bytes_is(id, a->asks[i].id)) {
            unsigned handle = a->asks[i].handle;
            drop(a, i);
            a->ops->ask_gone(a->arg, handle);
            return;
        }
    }
}
