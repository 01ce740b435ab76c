/* OZ_PROVIDER_<KEY>_* (oz-providers.md 1): one table of what may follow the key. */
#include <errno.h>
#include <stdio.h>
#include <sys/sysinfo.h>

#include "main/config_int.h"
#include "proto/json.h"
#include "proto/url.h"

/* The values of one key before they are put together. */
struct values {
    const char *type, *model, *base_url, *api_key, *quota_scope, *models, *system_prompt,
        *extra_body, *cli_cmd, *cli_args, *cli_prompt_mode, *cli_env, *cli_cwd, *cli_exit,
        *cli_format;
    int64_t msg_limit, window_seconds, max_tokens, timeout_ms, cli_timeout_ms, cli_max_parallel,
        cli_max_output;
    double temperature;
};

#define AT(field) offsetof(struct values, field)
/* clang-format off */
static const struct mu_option rows[] = {
    {.name = "TYPE", .type = MU_OPT_ENUM, .offset = AT(type), .words = "openai_compatible anthropic cli", .unit = "", .help = "Kind of provider; default anthropic for claude, else openai_compatible."},
    {.name = "MODEL", .type = MU_OPT_TEXT, .offset = AT(model), .unit = "", .help = "Model; default OZ_PROVIDER_MODEL, then OZ_MODEL, then cli for type cli. Without one the provider is not used."},
    {.name = "MODELS", .type = MU_OPT_TEXT, .offset = AT(models), .unit = "", .help = "Further models that a run may name, separated by commas."},
    {.name = "BASE_URL", .type = MU_OPT_TEXT, .offset = AT(base_url), .unit = "", .help = "URL of the endpoint; required for openai_compatible."},
    {.name = "API_KEY", .type = MU_OPT_SECRET, .offset = AT(api_key), .unit = "", .help = "Key that is sent to the endpoint."},
    {.name = "MSG_LIMIT", .type = MU_OPT_INT, .offset = AT(msg_limit), .max = 1000000000, .fallback = "0", .unit = "", .help = "Quota: messages within the window; 0 = none."},
    {.name = "WINDOW_SECONDS", .type = MU_OPT_INT, .offset = AT(window_seconds), .max = 31536000, .fallback = "0", .unit = "s", .help = "Quota: length of the rolling window; 0 = none."},
    {.name = "QUOTA_SCOPE", .type = MU_OPT_ENUM, .offset = AT(quota_scope), .words = "tenant global", .fallback = "tenant", .unit = "", .help = "Whether each tenant has the quota, or all together."},
    {.name = "TEMPERATURE", .type = MU_OPT_REAL, .offset = AT(temperature), .max = 2, .fallback = "0.2", .unit = "", .help = "Sampling temperature; given but empty = not sent."},
    {.name = "MAX_TOKENS", .type = MU_OPT_INT, .offset = AT(max_tokens), .min = 1, .max = 10000000, .fallback = NULL, .unit = "tokens", .help = "Longest answer; default 2048 for anthropic, else not sent."},
    {.name = "SYSTEM_PROMPT", .type = MU_OPT_TEXT, .offset = AT(system_prompt), .unit = "", .help = "Replaces the built-in system text."},
    {.name = "EXTRA_BODY", .type = MU_OPT_TEXT, .offset = AT(extra_body), .unit = "", .help = "JSON object merged into the request body."},
    {.name = "TIMEOUT_MS", .type = MU_OPT_INT, .offset = AT(timeout_ms), .min = 100, .max = 3600000, .fallback = "120000", .unit = "ms", .help = "Time until the first byte of the answer."},
    {.name = "CLI_CMD", .type = MU_OPT_TEXT, .offset = AT(cli_cmd), .unit = "", .help = "Program of a cli provider: a path, or a name on PATH."},
    {.name = "CLI_ARGS", .type = MU_OPT_TEXT, .offset = AT(cli_args), .unit = "", .help = "Its arguments: a JSON array, or words; {model}, {prompt} and {run_id} are replaced."},
    {.name = "CLI_PROMPT_MODE", .type = MU_OPT_ENUM, .offset = AT(cli_prompt_mode), .words = "stdin arg", .fallback = "stdin", .unit = "", .help = "How the prompt is handed over."},
    {.name = "CLI_FORMAT", .type = MU_OPT_TEXT, .offset = AT(cli_format), .fallback = "text", .unit = "", .help = "What it prints: text, or the JSON lines of a known agent."},
    {.name = "CLI_ENV", .type = MU_OPT_TEXT, .offset = AT(cli_env), .unit = "", .help = "Names of environment variables that are passed on, separated by commas."},
    {.name = "CLI_CWD", .type = MU_OPT_TEXT, .offset = AT(cli_cwd), .unit = "", .help = "Working directory; default: a fresh one for each run, removed afterwards."},
    {.name = "CLI_TIMEOUT_MS", .type = MU_OPT_INT, .offset = AT(cli_timeout_ms), .min = 100, .max = 604800000, .fallback = "300000", .unit = "ms", .help = "Longest run of the program."},
    {.name = "CLI_MAX_PARALLEL", .type = MU_OPT_INT, .offset = AT(cli_max_parallel), .min = 1, .max = 4096, .fallback = NULL, .unit = "", .help = "Programs at once; default: one for each core."},
    {.name = "CLI_MAX_OUTPUT_BYTES", .type = MU_OPT_INT, .offset = AT(cli_max_output), .min = 1024, .max = 1073741824, .fallback = "20971520", .unit = "bytes", .help = "Most output on each of stdout and stderr."},
    {.name = "CLI_RATE_LIMIT_EXIT", .type = MU_OPT_TEXT, .offset = AT(cli_exit), .unit = "", .help = "Exit codes that mean a rate limit, separated by commas."},
};
/* clang-format on */
enum { N_ROWS = MU_ARRAY_LEN(rows), MAX_KEYS = 256, MAX_LIST = 256 };

/* One key and, for each row, the setting that counts. */
struct keyed {
    char key[64];
    const struct mu_setting *win[N_ROWS];
    struct values v;
};

struct build {
    struct mu_config *c;
    const struct mu_settings *settings;
    struct mu_buf *warnings;
    struct mu_err *err;
    struct keyed *keys;
    size_t n_keys;
};

static int no_memory(struct mu_err *err)
{
    return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* A provider key as it is compared: lower case, "_" for what a shell cannot set. */
static bool provider_key(mu_bytes text, char key[64])
{
    if (text.len == 0 || text.len > 63) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        char c = lower(text.ptr[i]);
        key[i] = (char)(word_char(c) ? c : '_');
    }
    key[text.len] = 0;
    return true;
}

const struct mu_option *mu_provider_var(mu_bytes name, char key[64])
{
    mu_bytes prefix = MU_B("OZ_PROVIDER_");
    const struct mu_option *best = NULL;
    size_t longest = 0;
    if (!mu_bytes_starts(name, prefix)) {
        return NULL;
    }
    mu_bytes rest = mu_bytes_from(name, prefix.len);
    for (size_t i = 0; i < N_ROWS; i++) {
        mu_bytes what = mu_str(rows[i].name);
        if (what.len > longest && rest.len > what.len + 1 && mu_bytes_ends(rest, what) &&
            rest.ptr[rest.len - what.len - 1] == '_') {
            best = &rows[i];
            longest = what.len;
        }
    }
    if (!best || !provider_key(mu_bytes_head(rest, rest.len - longest - 1), key)) {
        return NULL;
    }
    return best;
}

void mu_config_harness_word(mu_bytes text, char *dst, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < text.len && n + 1 < size; i++) {
        char c = lower(text.ptr[i]);
        if (word_char(c)) {
            dst[n++] = c;
        } else if (n == 0 || dst[n - 1] != '_') {
            dst[n++] = '_';
        }
    }
    dst[n] = 0;
}

/* --- collecting --- */

static struct keyed *key_entry(struct build *b, const char *key)
{
    for (size_t i = 0; i < b->n_keys; i++) {
        if (!strcmp(b->keys[i].key, key)) {
            return &b->keys[i];
        }
    }
    if (b->n_keys == MAX_KEYS) {
        return NULL;
    }
    struct keyed *k = &b->keys[b->n_keys++];
    memset(k, 0, sizeof *k);
    snprintf(k->key, sizeof k->key, "%s", key);
    return k;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct keyed *)a)->key, ((const struct keyed *)b)->key);
}

static int collect_keys(struct build *b)
{
    for (size_t i = 0; i < b->settings->n; i++) {
        const struct mu_setting *s = &b->settings->items[i];
        char key[64];
        if (mu_config_classify(s->name) != MU_NAME_PROVIDER) {
            continue;
        }
        const struct mu_option *row = mu_provider_var(s->name, key);
        if (!strcmp(key, "shell")) {
            return mu_err_set(b->err, MU_E_INVALID,
                              "%.*s: the provider shell is built in and has no settings",
                              MU_ARGS(s->name));
        }
        struct keyed *k = key_entry(b, key);
        if (!k) {
            return mu_err_set(b->err, MU_E_LIMIT, "%.*s: more than %d providers", MU_ARGS(s->name),
                              MAX_KEYS);
        }
        const struct mu_setting **win = &k->win[row - rows];
        if (*win && (*win)->source == s->source && !mu_bytes_eq((*win)->name, s->name)) {
            return mu_err_set(b->err, MU_E_INVALID, "%.*s and %.*s are the same setting: keep one",
                              MU_ARGS((*win)->name), MU_ARGS(s->name));
        }
        *win = s;
    }
    if (b->n_keys) {
        qsort(b->keys, b->n_keys, sizeof *b->keys, by_key);
    }
    return 0;
}

static int remember(struct build *b, const struct mu_setting *s, bool secret)
{
    struct mu_config *c = b->c;
    mu_bytes name = mu_arena_dup(&c->arena, s->name);
    mu_bytes shown = mu_arena_dup(&c->arena, secret ? MU_B("set") : s->value);
    if (!name.ptr || !shown.ptr) {
        return no_memory(b->err);
    }
    c->given[c->n_given++] = (struct mu_config_given){name.ptr, shown.ptr, s->source};
    return 0;
}

static int parse_rows(struct build *b, struct keyed *k)
{
    int r = mu_option_defaults(rows, N_ROWS, &k->v, &b->c->arena, b->err);
    for (size_t i = 0; r == 0 && i < N_ROWS; i++) {
        const struct mu_setting *s = k->win[i];
        if (!s) {
            continue;
        }
        struct mu_option row = rows[i];
        mu_bytes name = mu_arena_dup(&b->c->arena, s->name);
        if (!name.ptr) {
            return no_memory(b->err);
        }
        row.name = name.ptr;
        if (s->value.len) {
            r = mu_option_set(&row, s->value, &k->v, &b->c->arena, b->err);
        }
        if (r == 0) {
            r = remember(b, s, row.type == MU_OPT_SECRET);
        }
    }
    return r;
}

/* --- values with an inner form --- */

static int refuse(struct build *b, const struct keyed *k, const char *what, const char *why)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        if (k->win[i] && !strcmp(rows[i].name, what)) {
            return mu_err_set(b->err, MU_E_INVALID, "%.*s: %s", MU_ARGS(k->win[i]->name), why);
        }
    }
    return mu_err_set(b->err, MU_E_INVALID, "provider %s, %s: %s", k->key, what, why);
}

/* The pieces between separators (any of `seps`), blanks dropped; NULL-terminated. */
static int split_list(struct build *b, const char *text, const char *seps, const char *const **ret)
{
    size_t n = 0;
    const char **list = mu_arena_calloc(&b->c->arena, (MAX_LIST + 1) * sizeof *list);
    if (!list) {
        return no_memory(b->err);
    }
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, seps);
        mu_bytes piece = mu_bytes_trim(mu_bytes_of(p, len));
        p += len + (p[len] != 0);
        if (piece.len == 0) {
            continue;
        }
        if (n == MAX_LIST) {
            return mu_err_set(b->err, MU_E_INVALID, "a list has more than %d entries", MAX_LIST);
        }
        list[n] = mu_arena_dup(&b->c->arena, piece).ptr;
        if (!list[n++]) {
            return no_memory(b->err);
        }
    }
    *ret = n ? list : NULL;
    return 0;
}

static int json_of(struct build *b, const struct keyed *k, const char *what, const char *text,
                   yyjson_val **ret)
{
    const struct mu_json_limits limits = {.max_bytes = 256 * 1024, .max_depth = 32};
    struct mu_err why;
    char words[560];
    int r = mu_json_read(&b->c->arena, mu_str(text), &limits, ret, &why);
    if (r == -ENOMEM) {
        return no_memory(b->err);
    }
    if (r < 0) {
        snprintf(words, sizeof words, "not valid JSON: %s", why.text);
        return refuse(b, k, what, words);
    }
    return 0;
}

static int args_of(struct build *b, const struct keyed *k, const char *const **ret)
{
    const char *text = k->v.cli_args;
    yyjson_val *root, *item;
    if (text[0] != '[') {
        return split_list(b, text, " \t\r\n\v\f", ret);
    }
    int r = json_of(b, k, "CLI_ARGS", text, &root);
    if (r < 0) {
        return r;
    }
    size_t n = yyjson_arr_size(root), i, max;
    if (n > MAX_LIST) {
        return refuse(b, k, "CLI_ARGS", "more than 256 arguments");
    }
    const char **list = mu_arena_calloc(&b->c->arena, (n + 1) * sizeof *list);
    if (!list) {
        return no_memory(b->err);
    }
    yyjson_arr_foreach(root, i, max, item)
    {
        struct mu_buf shown;
        mu_buf_init(&shown, 256 * 1024);
        mu_bytes arg = mu_json_bytes(item);
        if (!yyjson_is_str(item)) {
            mu_json_add(&shown, item);
            arg = mu_buf_bytes(&shown);
        }
        bool nul = mu_bytes_find_char(arg, 0) >= 0;
        list[i] = shown.failed ? NULL : mu_arena_dup(&b->c->arena, arg).ptr;
        mu_buf_fini(&shown);
        if (!list[i]) {
            return no_memory(b->err);
        }
        if (nul) {
            return refuse(b, k, "CLI_ARGS", "an argument holds a NUL byte");
        }
    }
    *ret = n ? list : NULL;
    return 0;
}

static int exits_of(struct build *b, const struct keyed *k, struct mu_provider_conf *p)
{
    const char *const *words;
    int r = split_list(b, k->v.cli_exit, ",", &words);
    if (r < 0 || !words) {
        return r;
    }
    size_t n = 0;
    while (words[n]) {
        n++;
    }
    int64_t *codes = mu_arena_alloc(&b->c->arena, n * sizeof *codes);
    if (!codes) {
        return no_memory(b->err);
    }
    for (size_t i = 0; i < n; i++) {
        if (mu_bytes_i64(mu_str(words[i]), &codes[i]) < 0 || codes[i] < 1 || codes[i] > 255) {
            return refuse(b, k, "CLI_RATE_LIMIT_EXIT", "expected exit codes from 1 to 255");
        }
    }
    p->cli_rate_limit_exit = codes;
    p->n_cli_rate_limit_exit = n;
    return 0;
}

static int env_names_of(struct build *b, const struct keyed *k, struct mu_provider_conf *p)
{
    int r = split_list(b, k->v.cli_env, ",", &p->cli_env);
    for (const char *const *name = p->cli_env; r == 0 && name && *name; name++) {
        for (const char *s = *name; *s; s++) {
            bool digit = *s >= '0' && *s <= '9';
            if (!(word_char(lower(*s)) || *s == '_') || (digit && s == *name)) {
                return refuse(b, k, "CLI_ENV", "expected names of variables");
            }
        }
    }
    return r;
}

/* Checks, and cuts trailing slashes. `name` is the variable. */
static int url_of(struct build *b, mu_bytes name, const char *text, const char **ret)
{
    struct mu_url url;
    mu_bytes t = mu_str(text);
    int r = mu_url_parse(t, &url, b->err);
    if (r < 0) {
        mu_err_context(b->err, "%.*s", MU_ARGS(name));
        return r;
    }
    if (url.has_userinfo) {
        return mu_err_set(b->err, MU_E_INVALID,
                          "%.*s: a user name or password in the URL is not accepted; the key has "
                          "its own variable",
                          MU_ARGS(name));
    }
    if (url.query.len) {
        return mu_err_set(b->err, MU_E_INVALID, "%.*s: a query string is not accepted",
                          MU_ARGS(name));
    }
    while (t.len && t.ptr[t.len - 1] == '/') {
        t.len--;
    }
    *ret = mu_arena_dup(&b->c->arena, t).ptr;
    return *ret ? 0 : no_memory(b->err);
}

static bool header_safe(const char *s)
{
    for (; *s; s++) {
        if (*s < '!' || *s > '~') {
            return false;
        }
    }
    return true;
}

/* --- putting one provider together --- */

struct mu_provider_conf *mu_config_add_provider(struct mu_config *c, const char *key,
                                                enum mu_provider_type type)
{
    struct mu_provider_list *l = &c->provider_list;
    struct mu_provider_conf *items = mu_arena_calloc(&c->arena, (l->n + 1) * sizeof *items);
    const char *kept = mu_arena_dup(&c->arena, mu_str(key)).ptr;
    if (!items || !kept) {
        return NULL;
    }
    if (l->n) {
        memcpy(items, l->items, l->n * sizeof *items);
    }
    l->items = items;
    items[l->n] = (struct mu_provider_conf){
        .key = kept,
        .type = type,
        .base_url = type == MU_PROVIDER_ANTHROPIC ? "https://api.anthropic.com" : NULL,
        .has_temperature = true,
        .temperature = 0.2,
        .max_tokens = type == MU_PROVIDER_ANTHROPIC ? 2048 : 0,
        .timeout_ms = 120000,
        .cli_timeout_ms = 300000,
        .cli_max_parallel = get_nprocs(),
        .cli_max_output = 20 * 1024 * 1024,
        .cli_format = MU_CLI_TEXT,
    };
    return &items[l->n++];
}

static enum mu_provider_type type_of(const struct keyed *k)
{
    if (!k->v.type) {
        return mu_provider_default_type(mu_str(k->key));
    }
    return !strcmp(k->v.type, "cli")         ? MU_PROVIDER_CLI
           : !strcmp(k->v.type, "anthropic") ? MU_PROVIDER_ANTHROPIC
                                             : MU_PROVIDER_OPENAI;
}

static const struct mu_setting *given(const struct keyed *k, const char *what)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        if (!strcmp(rows[i].name, what)) {
            return k->win[i];
        }
    }
    return NULL;
}
static bool has(const struct keyed *k, const char *what)
{
    const struct mu_setting *s = given(k, what);
    return s && s->value.len > 0;
}
static bool blank(const struct keyed *k, const char *what)
{
    const struct mu_setting *s = given(k, what);
    return s && s->value.len == 0;
}

static int set_plain(struct build *b, const struct keyed *k, struct mu_provider_conf *p)
{
    const struct mu_config *c = b->c;
    const struct values *v = &k->v;
    p->model = v->model ? v->model : c->provider_model ? c->provider_model : c->model;
    p->model_given = p->model != NULL;
    if (!p->model && p->type == MU_PROVIDER_CLI) {
        p->model = "cli";
    }
    p->msg_limit = has(k, "MSG_LIMIT") ? v->msg_limit : c->provider_msg_limit;
    p->window_seconds = has(k, "WINDOW_SECONDS") ? v->window_seconds : c->provider_window_seconds;
    p->quota_global = !strcmp(v->quota_scope, "global");
    p->has_temperature = !blank(k, "TEMPERATURE");
    p->temperature = v->temperature;
    p->max_tokens = v->max_tokens ? v->max_tokens : p->max_tokens;
    p->system_prompt = v->system_prompt;
    p->extra_body = v->extra_body;
    p->timeout_ms = v->timeout_ms;
    p->cli_cmd = v->cli_cmd;
    p->cli_prompt_arg = !strcmp(v->cli_prompt_mode, "arg");
    p->cli_cwd = v->cli_cwd;
    p->cli_timeout_ms = v->cli_timeout_ms;
    p->cli_max_parallel = v->cli_max_parallel ? v->cli_max_parallel : p->cli_max_parallel;
    p->cli_max_output = v->cli_max_output;
    if (mu_cli_format_parse(mu_str(v->cli_format), &p->cli_format) < 0) {
        return refuse(b, k, "CLI_FORMAT",
                      "not a known format (text, claude-stream-json, codex-json, opencode-json, "
                      "gemini-json)");
    }
    if (p->cli_cwd && p->cli_cwd[0] != '/') {
        return refuse(b, k, "CLI_CWD", "expected an absolute path");
    }
    return 0;
}

static int set_structured(struct build *b, const struct keyed *k, struct mu_provider_conf *p)
{
    const struct values *v = &k->v;
    yyjson_val *body;
    int r = 0;
    if (v->models) {
        r = split_list(b, v->models, ",", &p->models);
    }
    if (r == 0 && v->extra_body) {
        r = json_of(b, k, "EXTRA_BODY", v->extra_body, &body);
        if (r == 0 && !yyjson_is_obj(body)) {
            r = refuse(b, k, "EXTRA_BODY", "expected a JSON object");
        }
    }
    if (r == 0 && v->cli_args) {
        r = args_of(b, k, &p->cli_args);
    }
    if (r == 0 && v->cli_env) {
        r = env_names_of(b, k, p);
    }
    if (r == 0 && v->cli_exit) {
        r = exits_of(b, k, p);
    }
    return r;
}

/* URL and key. The global ones go only to custom and to keys that name no type, URL or model of
 * their own: else a key would be sent to whoever runs another provider (oz-providers.md 1.1). */
static int set_endpoint(struct build *b, const struct keyed *k, struct mu_provider_conf *p)
{
    const struct mu_config *c = b->c;
    const struct values *v = &k->v;
    bool global = !strcmp(k->key, "custom") || (!v->type && !v->base_url && !v->model);
    int r = 0;
    if (v->base_url) {
        r = url_of(b, given(k, "BASE_URL")->name, v->base_url, &p->base_url);
    } else if (global && c->provider_base_url) {
        r = url_of(b, MU_B("OZ_PROVIDER_BASE_URL"), c->provider_base_url, &p->base_url);
    }
    p->api_key = v->api_key;
    if (!p->api_key && global && c->provider_api_key && p->type != MU_PROVIDER_CLI) {
        p->api_key = c->provider_api_key;
        mu_buf_printf(b->warnings, "OZ_PROVIDER_API_KEY is sent to the provider %s%s%s\n", k->key,
                      p->base_url ? " at " : "", p->base_url ? p->base_url : "");
    }
    if (r == 0 && p->api_key && !header_safe(p->api_key)) {
        r = v->api_key ? refuse(b, k, "API_KEY", "blanks and control characters are not accepted")
                       : mu_err_set(b->err, MU_E_INVALID,
                                    "OZ_PROVIDER_API_KEY: blanks and control characters are not "
                                    "accepted");
    }
    return r;
}

static int add_provider(struct build *b, const struct keyed *k, bool implied)
{
    struct mu_provider_conf *p = mu_config_add_provider(b->c, k->key, type_of(k));
    if (!p) {
        return no_memory(b->err);
    }
    size_t warned = b->warnings->len;
    int r = set_plain(b, k, p);
    if (r == 0) {
        r = set_structured(b, k, p);
    }
    if (r == 0) {
        r = set_endpoint(b, k, p);
    }
    if (r < 0) {
        return r;
    }
    if (implied && !mu_provider_complete(p)) {
        b->c->provider_list.n--;
        b->warnings->len = warned;
    } else if (!mu_provider_complete(p)) {
        mu_buf_printf(b->warnings, "the provider %s is not used: %s is missing\n", k->key,
                      p->model ? "its _BASE_URL" : "its _MODEL (or OZ_PROVIDER_MODEL)");
    }
    return 0;
}

/* --- orders --- */

static int normal_keys(struct build *b, mu_bytes list, mu_bytes name, const char **ret)
{
    struct mu_buf out;
    mu_buf_init(&out, 16384);
    int r = 0;
    for (mu_bytes rest = list; r == 0 && rest.ptr;) {
        char key[64];
        mu_bytes piece = mu_bytes_trim(mu_bytes_split(&rest, ','));
        if (piece.len == 0) {
            continue;
        }
        if (!provider_key(piece, key)) {
            r = mu_err_set(b->err, MU_E_INVALID,
                           "%.*s: a provider key is longer than 63 characters", MU_ARGS(name));
        }
        mu_buf_printf(&out, "%s%s", out.len ? "," : "", r == 0 ? key : "");
    }
    if (r == 0) {
        *ret = out.failed ? NULL : mu_arena_dup(&b->c->arena, mu_buf_bytes(&out)).ptr;
        r = *ret ? 0 : no_memory(b->err);
    }
    mu_buf_fini(&out);
    return r;
}

static int add_order(struct build *b, const struct mu_setting *s)
{
    struct mu_providers_settings *p = &b->c->providers;
    mu_bytes prefix = MU_B("OZ_PROVIDER_FALLBACK_ORDER_");
    char word[128];
    const char *keys;
    mu_config_harness_word(mu_bytes_from(s->name, prefix.len), word, sizeof word);
    int r = normal_keys(b, s->value, s->name, &keys);
    if (r == 0) {
        r = remember(b, s, false);
    }
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < p->n_fallback_orders; i++) {
        if (!strcmp(p->fallback_orders[i].harness, word)) {
            p->fallback_orders[i].keys = keys; /* a later source wins */
            return 0;
        }
    }
    const char *harness = mu_arena_dup(&b->c->arena, mu_str(word)).ptr;
    if (!harness) {
        return no_memory(b->err);
    }
    p->fallback_orders[p->n_fallback_orders++] = (struct mu_fallback_order){harness, keys};
    return 0;
}

static int add_orders(struct build *b)
{
    struct mu_providers_settings *p = &b->c->providers;
    size_t n = 0;
    for (size_t i = 0; i < b->settings->n; i++) {
        n += mu_config_classify(b->settings->items[i].name) == MU_NAME_FALLBACK;
    }
    p->fallback_orders = mu_arena_calloc(&b->c->arena, (n + 1) * sizeof *p->fallback_orders);
    if (!p->fallback_orders) {
        return no_memory(b->err);
    }
    int r = 0;
    for (size_t i = 0; r == 0 && i < b->settings->n; i++) {
        if (mu_config_classify(b->settings->items[i].name) == MU_NAME_FALLBACK) {
            r = add_order(b, &b->settings->items[i]);
        }
    }
    if (r == 0 && p->fallback_order) {
        r = normal_keys(b, mu_str(p->fallback_order), MU_B("OZ_PROVIDER_FALLBACK_ORDER"),
                        &p->fallback_order);
    }
    return r;
}

/* --- everything --- */

static int add_implied(struct build *b, mu_bytes key)
{
    struct keyed k = {.key = ""};
    if (!provider_key(key, k.key) || !strcmp(k.key, "shell")) {
        return 0;
    }
    for (size_t i = 0; i < b->c->provider_list.n; i++) {
        if (!strcmp(b->c->provider_list.items[i].key, k.key)) {
            return 0;
        }
    }
    int r = mu_option_defaults(rows, N_ROWS, &k.v, &b->c->arena, b->err);
    return r < 0 ? r : add_provider(b, &k, true);
}

/* Keys without a variable of their own become candidates through the global ones, as the reference
 * loads them. */
static int add_all_implied(struct build *b)
{
    struct mu_config *c = b->c;
    int r = 0;
    if (!c->provider_base_url && !c->provider_api_key) {
        return 0;
    }
    for (size_t i = 0; r == 0 && mu_harness_primary_at(i); i++) {
        r = add_implied(b, mu_str(mu_harness_primary_at(i)));
    }
    if (r == 0) {
        r = add_implied(b, mu_str(c->providers.default_provider));
    }
    mu_bytes rest = mu_str(c->providers.fallback_order);
    while (r == 0 && rest.ptr) {
        r = add_implied(b, mu_bytes_split(&rest, ','));
    }
    for (size_t i = 0; r == 0 && i < c->providers.n_fallback_orders; i++) {
        rest = mu_str(c->providers.fallback_orders[i].keys);
        while (r == 0 && rest.ptr) {
            r = add_implied(b, mu_bytes_split(&rest, ','));
        }
    }
    return r;
}

static int normal_defaults(struct build *b)
{
    struct mu_providers_settings *p = &b->c->providers;
    int r = normal_keys(b, mu_str(p->default_provider), MU_B("OZ_DEFAULT_PROVIDER"),
                        &p->default_provider);
    char *harness = mu_arena_alloc(&b->c->arena, strlen(p->default_harness) + 1);
    if (r < 0 || !harness) {
        return r < 0 ? r : no_memory(b->err);
    }
    size_t n = strlen(p->default_harness);
    for (size_t i = 0; i <= n; i++) {
        harness[i] = lower(p->default_harness[i]);
    }
    p->default_harness = harness;
    p->model_fallback = b->c->model ? b->c->model : b->c->provider_model;
    return 0;
}

/* Built in, so that a first run is possible with nothing at all; it serves the administrator only.
 */
static int add_shell(struct build *b)
{
    struct mu_provider_conf *p = mu_config_add_provider(b->c, "shell", MU_PROVIDER_SHELL);
    if (!p) {
        return no_memory(b->err);
    }
    p->model = "shell";
    return 0;
}

int mu_config_providers(struct mu_config *c, const struct mu_settings *s, struct mu_buf *warnings,
                        struct mu_err *err)
{
    MU_AUTO_FREE struct keyed *keys = calloc(MAX_KEYS, sizeof *keys);
    struct build b = {.c = c, .settings = s, .warnings = warnings, .err = err, .keys = keys};
    c->given = mu_arena_calloc(&c->arena, (s->n + 1) * sizeof *c->given);
    if (!keys || !c->given) {
        return no_memory(err);
    }
    int r = collect_keys(&b);
    for (size_t i = 0; r == 0 && i < b.n_keys; i++) {
        r = parse_rows(&b, &b.keys[i]);
        if (r == 0) {
            r = add_provider(&b, &b.keys[i], false);
        }
    }
    if (r == 0) {
        r = normal_defaults(&b);
    }
    if (r == 0) {
        r = add_orders(&b);
    }
    if (r == 0) {
        r = add_all_implied(&b);
    }
    c->providers_given = c->provider_list.n > 0;
    return r < 0 ? r : add_shell(&b);
}

void mu_provider_markdown(struct mu_buf *dst)
{
    mu_buf_add_str(dst, "\n## One provider\n\n`OZ_PROVIDER_<KEY>_…`; the key is a word, other "
                        "characters than letters and digits count as `_`.\n\n"
                        "| variable | default | meaning |\n|---|---|---|\n");
    for (size_t i = 0; i < N_ROWS; i++) {
        mu_buf_printf(dst, "| `OZ_PROVIDER_<KEY>_%s` | %s%s%s | %s |\n", rows[i].name,
                      rows[i].fallback ? "`" : "", rows[i].fallback ? rows[i].fallback : "–",
                      rows[i].fallback ? "`" : "", rows[i].help);
    }
    mu_buf_add_str(dst, "| `OZ_PROVIDER_FALLBACK_ORDER_<HARNESS>` | – | Overrides "
                        "`OZ_PROVIDER_FALLBACK_ORDER` for one harness (`CLAUDE_CODE`). |\n");
}
