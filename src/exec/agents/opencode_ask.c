/* What the agent waits for: permissions, and questions of its own. */
#include <errno.h>
#include <stdio.h>

#include "exec/agents/opencode_int.h"

static void drop(struct mu_oc *o, size_t i)
{
    mu_buf_fini(&o->open[i].raw);
    mu_buf_fini(&o->open[i].answer);
    for (; i + 1 < o->n_open; i++) {
        o->open[i] = o->open[i + 1];
    }
    o->n_open--;
}

/* Every entry of a request; the caller is told of those that it was shown, but not of `but`. */
static void drop_request(struct mu_oc *o, const char *request, unsigned but)
{
    char id[MU_OC_ID_MAX];
    snprintf(id, sizeof id, "%s", request); /* it may be that of an entry */
    for (size_t i = 0; i < o->n_open;) {
        unsigned handle = o->open[i].handle;
        bool told = o->open[i].told && handle != but;
        if (strcmp(o->open[i].id, id) != 0) {
            i++;
            continue;
        }
        drop(o, i);
        if (told) {
            o->tell->ask_gone(o->arg, handle);
        }
    }
}

void mu_oc_drop_all(struct mu_oc *o, bool tell)
{
    while (o->n_open) {
        unsigned handle = o->open[0].handle;
        bool told = o->open[0].told;
        drop(o, 0);
        if (told && tell) {
            o->tell->ask_gone(o->arg, handle);
        }
    }
}

static struct mu_oc_open *find(const struct mu_oc *o, const char *id)
{
    for (size_t i = 0; i < o->n_open; i++) {
        if (strcmp(o->open[i].id, id) == 0) {
            return &o->open[i];
        }
    }
    return NULL;
}

static struct mu_oc_open *add(struct mu_oc *o, const char *id, bool question)
{
    if (o->n_open == MU_ACP_ASKS) {
        return NULL;
    }
    struct mu_oc_open *p = &o->open[o->n_open++];
    *p = (struct mu_oc_open){.handle = ++o->last_handle, .question = question};
    snprintf(p->id, sizeof p->id, "%s", id);
    mu_buf_init(&p->raw, MU_OC_RAW_MAX);
    mu_buf_init(&p->answer, MU_OC_ANSWER_MAX);
    return p;
}

/* --- saying what was decided --- */

static int reply(struct mu_oc *o, const char *id, const char *word, const char *words)
{
    mu_buf_clear(&o->out);
    struct mu_json_w w = mu_json_w(&o->out);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "reply", word);
    if (words && words[0]) {
        mu_jw_kcstr(&w, "message", words);
    }
    mu_jw_obj_end(&w);
    if (o->out.failed) {
        return mu_oc_break(o, o->out.failed, "a decision: %s", mu_err_text(o->out.failed));
    }
    return mu_oc_call(o, MU_OC_REPLY, "POST", mu_buf_bytes(&o->out), "/permission/%s/reply", id);
}

static int dismiss(struct mu_oc *o, const char *id)
{
    return mu_oc_call(o, MU_OC_REPLY, "POST", MU_B("{}"), "/question/%s/reject", id);
}

int mu_oc_decide(struct mu_oc *o, unsigned handle, enum mu_acp_decision d, const char *words)
{
    size_t i = 0;
    while (i < o->n_open && o->open[i].handle != handle) {
        i++;
    }
    if (o->state == MU_ACP_BROKEN) {
        return o->err.code;
    }
    if (i == o->n_open) {
        return MU_E_NOT_FOUND;
    }
    if (o->open[i].question) { /* allowed, but nothing said */
        return mu_oc_reply(o, handle, MU_B_NONE);
    }
    char id[MU_OC_ID_MAX];
    memcpy(id, o->open[i].id, sizeof id);
    drop(o, i);
    return reply(o, id, d == MU_ACP_ALLOW ? "once" : "reject", d == MU_ACP_DENY ? words : NULL);
}

/* The texts of an answer as a list. */
static void add_texts(struct mu_buf *dst, const struct mu_jtok *j, int v)
{
    static const char *const names[] = {"answer", "answers", "text"};
    struct mu_json_w w = mu_json_w(dst);
    size_t n = 0;
    for (size_t i = 0; mu_jtok_kind(j, v) == MU_JTOK_OBJECT && i < MU_ARRAY_LEN(names); i++) {
        int inner = mu_jtok_get(j, v, names[i]);
        v = inner >= 0 ? inner : v;
    }
    mu_jw_arr(&w);
    if (mu_jtok_kind(j, v) == MU_JTOK_STRING) {
        mu_jw_raw(&w, mu_jtok_raw(j, v));
        n++;
    }
    for (int i = mu_jtok_kind(j, v) == MU_JTOK_ARRAY ? mu_jtok_first(j, v) : -1; i >= 0;
         i = mu_jtok_next(j, v, i)) {
        if (mu_jtok_kind(j, i) == MU_JTOK_STRING) {
            mu_jw_raw(&w, mu_jtok_raw(j, i));
            n++;
        }
    }
    mu_jw_arr_end(&w);
    if (!n) {
        mu_buf_clear(dst);
    }
}

/* All of a request are answered: it is. */
static int reply_all(struct mu_oc *o, const char *id)
{
    mu_buf_clear(&o->out);
    struct mu_json_w w = mu_json_w(&o->out);
    mu_jw_obj(&w);
    mu_jw_key(&w, "answers");
    mu_jw_arr(&w);
    for (size_t i = 0; i < o->n_open; i++) {
        if (strcmp(o->open[i].id, id) == 0) {
            if (!o->open[i].answered) {
                return 0;
            }
            mu_jw_raw(&w, mu_buf_bytes(&o->open[i].answer));
        }
    }
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    char copy[MU_OC_ID_MAX];
    snprintf(copy, sizeof copy, "%s", id);
    drop_request(o, copy, 0);
    if (o->out.failed) {
        return mu_oc_break(o, o->out.failed, "an answer: %s", mu_err_text(o->out.failed));
    }
    return mu_oc_call(o, MU_OC_REPLY, "POST", mu_buf_bytes(&o->out), "/question/%s/reply", copy);
}

int mu_oc_reply(struct mu_oc *o, unsigned handle, mu_bytes answer)
{
    struct mu_oc_open *p = NULL;
    struct mu_jtok j;
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    for (size_t i = 0; i < o->n_open && !p; i++) {
        bool it = o->open[i].handle == handle && o->open[i].question && !o->open[i].answered;
        p = it ? &o->open[i] : NULL;
    }
    if (o->state == MU_ACP_BROKEN) {
        return o->err.code;
    }
    if (!p) {
        return MU_E_NOT_FOUND;
    }
    /* a text alone is no JSON text of its own for our reader */
    mu_buf_init(&text, MU_OC_ANSWER_MAX + 64);
    mu_buf_add_str(&text, "{\"answer\":");
    mu_buf_add(&text, answer);
    mu_buf_add_char(&text, '}');
    mu_jtok_init(&j);
    if (!text.failed && mu_jtok_parse(&j, mu_buf_bytes(&text)) == 0) {
        int v = mu_jtok_get(&j, 0, "answer");
        add_texts(&p->answer, &j, v);
    }
    mu_jtok_fini(&j);
    p->answered = true;
    p->told = false; /* its answer is there: nobody has to be told that it is gone */
    if (p->answer.len && !p->answer.failed) {
        return reply_all(o, p->id);
    }
    char id[MU_OC_ID_MAX];
    memcpy(id, p->id, sizeof id);
    drop_request(o, id, handle);
    return dismiss(o, id);
}

/* --- being asked --- */

/* The row that it is about; one that was not told of yet, or of another conversation, is made. */
static struct mu_acp_tool *row_of(struct mu_oc *o, int properties, unsigned handle)
{
    const struct mu_jtok *j = &o->json;
    char id[MU_ACP_ID_MAX], permission[sizeof(((struct mu_acp_tool *)0)->name)];
    int meta = mu_jtok_get(j, properties, "metadata"),
        list = mu_jtok_get(j, properties, "patterns");
    mu_oc_copy(o, mu_jtok_get(j, mu_jtok_get(j, properties, "tool"), "callID"), id, sizeof id);
    if (!id[0]) {
        snprintf(id, sizeof id, "permission-%u", handle);
    }
    struct mu_acp_tool *t = mu_rows_get(&o->rows, id);
    if (!t) {
        return NULL;
    }
    t->touched = ++o->rows.touches;
    mu_oc_copy(o, mu_jtok_get(j, properties, "permission"), permission, sizeof permission);
    const char *kind = mu_oc_kind(mu_str(permission)); /* permissions are named as the tools are */
    if (!t->name[0]) {
        snprintf(t->name, sizeof t->name, "%s", permission);
    }
    if (strcmp(kind, "other") != 0) {
        snprintf(t->kind, sizeof t->kind, "%s", kind);
    }
    size_t before = t->n_paths;
    mu_oc_add_path(o, t, mu_jtok_get(j, meta, "filepath"));
    int files = mu_jtok_get(j, meta, "files");
    for (int i = mu_jtok_first(j, files); i >= 0; i = mu_jtok_next(j, files, i)) {
        mu_oc_add_path(o, t, mu_jtok_get(j, i, "filePath"));
    }
    int folders = mu_jtok_get(j, meta, "directories");
    for (int i = mu_jtok_first(j, folders); i >= 0; i = mu_jtok_next(j, folders, i)) {
        mu_oc_add_path(o, t, i);
    }
    bool files_only = strcmp(t->kind, "edit") == 0 || strcmp(t->kind, "read") == 0;
    for (int i = files_only && t->n_paths == before ? mu_jtok_first(j, list) : -1; i >= 0;
         i = mu_jtok_next(j, list, i)) {
        mu_oc_add_path(o, t, i);
    }
    if (!t->title[0] || strcmp(t->title, t->name) == 0) {
        int what = mu_jtok_get(j, meta, "command");
        what = what >= 0 ? what : mu_jtok_first(j, list);
        mu_oc_copy(o, what, t->title, sizeof t->title);
    }
    if (!t->title[0]) {
        snprintf(t->title, sizeof t->title, "%s", t->name);
    }
    return t;
}

static mu_bytes text_of(const struct mu_jtok *j, int v, struct mu_buf *dst)
{
    mu_buf_clear(dst);
    return mu_jtok_add(j, v, dst) == 0 && dst->len && !dst->failed ? mu_buf_bytes(dst) : MU_B_NONE;
}

static bool is_open(const struct mu_oc *o, unsigned handle)
{
    for (size_t i = 0; i < o->n_open; i++) {
        if (o->open[i].handle == handle) {
            return true;
        }
    }
    return false;
}

/* The request that o->json has at `properties`. The same is asked for again when the arguments of
 * the tool are the same as well: the folder that a command runs in is one of them only. */
static int hand_on(struct mu_oc *o, int properties, unsigned handle)
{
    const struct mu_jtok *j = &o->json;
    struct mu_buf command MU_CLEANUP(mu_buf_fini), url MU_CLEANUP(mu_buf_fini);
    struct mu_buf exact MU_CLEANUP(mu_buf_fini), subject MU_CLEANUP(mu_buf_fini);
    struct mu_acp_ask ask = {.handle = handle};
    int meta = mu_jtok_get(j, properties, "metadata"),
        list = mu_jtok_get(j, properties, "patterns");
    mu_buf_init(&command, MU_OC_RAW_MAX);
    mu_buf_init(&url, 8192);
    mu_buf_init(&exact, 2 * MU_OC_RAW_MAX);
    mu_buf_init(&subject, 2 * MU_OC_RAW_MAX);
    struct mu_acp_tool *t = row_of(o, properties, handle);
    if (!t) {
        return mu_oc_break(o, -ENOMEM, "no memory for a request of the agent");
    }
    ask.tool = t;
    ask.command = text_of(j, mu_jtok_get(j, meta, "command"), &command);
    ask.url = text_of(j, mu_jtok_get(j, meta, "url"), &url);
    ask.exact = mu_jtok_raw(j, properties);
    bool args = t->args.len && !t->args_cut;
    if (args) {
        mu_buf_add_str(&exact, "{\"request\":");
        mu_buf_add(&exact, ask.exact);
        mu_buf_add_str(&exact, ",\"input\":");
        mu_buf_add(&exact, mu_buf_bytes(&t->args));
        mu_buf_add_char(&exact, '}');
        mu_bytes parts[] = {mu_jtok_raw(j, mu_jtok_get(j, properties, "permission")),
                            mu_jtok_raw(j, list), mu_jtok_raw(j, meta), mu_buf_bytes(&t->args)};
        for (size_t i = 0; i < MU_ARRAY_LEN(parts); i++) {
            mu_buf_add(&subject, parts[i]);
            mu_buf_add_char(&subject, '\n');
        }
        ask.exact = exact.failed ? ask.exact : mu_buf_bytes(&exact);
        ask.subject = subject.failed ? MU_B_NONE : mu_buf_bytes(&subject);
    }
    o->tell->ask(o->arg, &ask);
    return o->state == MU_ACP_BROKEN ? o->err.code : 0;
}

static void add_options(struct mu_oc *o, int options, struct mu_buf *text, struct mu_buf *words)
{
    const struct mu_jtok *j = &o->json;
    struct mu_json_w w = mu_json_w(words);
    mu_jw_arr(&w);
    for (int i = mu_jtok_first(j, options); i >= 0; i = mu_jtok_next(j, options, i)) {
        int label = mu_jtok_get(j, i, "label"), more = mu_jtok_get(j, i, "description");
        if (mu_jtok_kind(j, label) != MU_JTOK_STRING) {
            continue;
        }
        mu_jw_raw(&w, mu_jtok_raw(j, label));
        if (mu_jtok_kind(j, more) == MU_JTOK_STRING) {
            mu_buf_add_str(text, "\n- ");
            (void)!mu_jtok_add(j, label, text);
            mu_buf_add_str(text, ": ");
            (void)!mu_jtok_add(j, more, text);
        }
    }
    mu_jw_arr_end(&w);
}

static int ask_one(struct mu_oc *o, int v, unsigned handle)
{
    const struct mu_jtok *j = &o->json;
    struct mu_buf text MU_CLEANUP(mu_buf_fini), words MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&text, MU_OC_ANSWER_MAX);
    mu_buf_init(&words, MU_OC_ANSWER_MAX);
    (void)!mu_jtok_add(j, mu_jtok_get(j, v, "question"), &text);
    add_options(o, mu_jtok_get(j, v, "options"), &text, &words);
    struct mu_oc_question q = {
        .handle = handle,
        .text = text.failed || !text.len ? MU_B("?") : mu_buf_bytes(&text),
        .options = words.failed || words.len <= 2 ? MU_B_NONE : mu_buf_bytes(&words),
        .multiple = mu_jtok_bool(j, mu_jtok_get(j, v, "multiple"), false),
    };
    o->ops->question(o->arg, &q);
    return o->state == MU_ACP_BROKEN ? o->err.code : 0;
}

static int questions(struct mu_oc *o, int properties, const char *id)
{
    const struct mu_jtok *j = &o->json;
    int list = mu_jtok_get(j, properties, "questions"), r = 0;
    size_t n = 0;
    unsigned first = o->last_handle + 1;
    for (int i = mu_jtok_first(j, list); i >= 0; i = mu_jtok_next(j, list, i)) {
        n++;
    }
    if (!n || n > MU_ACP_ASKS - o->n_open) {
        return dismiss(o, id);
    }
    for (size_t i = 0; i < n; i++) { /* all, before one is answered */
        struct mu_oc_open *p = add(o, id, true);
        p->told = true;
    }
    unsigned handle = first;
    for (int i = mu_jtok_first(j, list); i >= 0 && !r; i = mu_jtok_next(j, list, i)) {
        r = is_open(o, handle) ? ask_one(o, i, handle) : 0;
        handle++;
    }
    return r;
}

/* Whether its tool is known with what it is to do, or will never be. */
static bool tool_known(struct mu_oc *o, int properties)
{
    const struct mu_jtok *j = &o->json;
    char id[MU_ACP_ID_MAX];
    mu_oc_copy(o, mu_jtok_get(j, mu_jtok_get(j, properties, "tool"), "callID"), id, sizeof id);
    const struct mu_acp_tool *t = id[0] ? mu_rows_find(&o->rows, id) : NULL;
    return !id[0] || (t && t->args.len);
}

int mu_oc_asked(struct mu_oc *o, int properties, bool question)
{
    const struct mu_jtok *j = &o->json;
    char id[MU_OC_ID_MAX];
    if (!mu_oc_id(j, mu_jtok_get(j, properties, "id"), id)) {
        o->ignored++;
        return 0;
    }
    if (find(o, id)) { /* told again */
        return 0;
    }
    if (o->state != MU_ACP_PROMPTED || o->cancelling) {
        return question ? dismiss(o, id) : reply(o, id, "reject", NULL);
    }
    o->heard = true;
    if (question) {
        return questions(o, properties, id);
    }
    struct mu_oc_open *p = add(o, id, false);
    if (!p) {
        return reply(o, id, "reject", "too many permissions are waited for");
    }
    mu_bytes raw = mu_jtok_raw(j, properties);
    if (!tool_known(o, properties) && raw.len < MU_OC_RAW_MAX) {
        mu_buf_add(&p->raw, raw);
        return p->raw.failed ? mu_oc_break(o, p->raw.failed, "no memory for a request") : 0;
    }
    p->told = true;
    return hand_on(o, properties, p->handle);
}

int mu_oc_release(struct mu_oc *o, bool all)
{
    struct mu_buf raw MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&raw, MU_OC_RAW_MAX);
    for (size_t i = 0; i < o->n_open; i++) {
        struct mu_oc_open *p = &o->open[i];
        if (p->told || !p->raw.len) {
            continue;
        }
        mu_buf_clear(&raw);
        mu_buf_add(&raw, mu_buf_bytes(&p->raw));
        int r = raw.failed ? raw.failed : mu_jtok_parse(&o->json, mu_buf_bytes(&raw));
        if (r) {
            return mu_oc_break(o, r, "a request of the agent: %s", mu_err_text(r));
        }
        if (!all && !tool_known(o, 0)) {
            continue;
        }
        p->told = true;
        mu_buf_fini(&p->raw);
        r = hand_on(o, 0, p->handle);
        if (r) {
            return r;
        }
        i = (size_t)-1; /* it may have been answered at once */
    }
    return 0;
}

void mu_oc_settled(struct mu_oc *o, int properties)
{
    const struct mu_jtok *j = &o->json;
    char id[MU_OC_ID_MAX];
    int v = mu_jtok_get(j, properties, "requestID");
    v = v >= 0 ? v : mu_jtok_get(j, properties, "permissionID");
    const struct mu_oc_open *p = mu_oc_id(j, v, id) ? find(o, id) : NULL;
    if (!p) {
        return; /* that was us */
    }
    int word = mu_jtok_get(j, properties, "reply");
    word = word >= 0 ? word : mu_jtok_get(j, properties, "response");
    if (!p->question && !mu_jtok_is(j, word, MU_B("reject"))) {
        o->ops->foreign(o->arg, p->handle);
    }
    drop_request(o, id, 0);
}

int mu_oc_pending(struct mu_oc *o, int list, bool question)
{
    const struct mu_jtok *j = &o->json;
    int r = 0;
    for (size_t i = 0; i < o->n_open;) {
        bool there = o->open[i].question != question;
        for (int k = mu_jtok_first(j, list); k >= 0 && !there; k = mu_jtok_next(j, list, k)) {
            there = mu_jtok_is(j, mu_jtok_get(j, k, "id"), mu_str(o->open[i].id));
        }
        if (!there) {
            drop_request(o, o->open[i].id, 0);
            i = 0;
            continue;
        }
        i++;
    }
    for (int k = mu_jtok_first(j, list); k >= 0 && !r; k = mu_jtok_next(j, list, k)) {
        r = mu_oc_asked(o, k, question);
    }
    return r;
}
