#include <errno.h>
#include <stdio.h>

#include "main/config_int.h"
#include "proto/url.h"

/* Names of files in the data folder and links to a run are put together in buffers of 1100 and 400
 * bytes. */
enum { MAX_SETTINGS = 4096, MAX_DATA_DIR = 1000, MAX_PUBLIC_URL = 300 };
#define HOST_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-_%[]"

const struct mu_setting *mu_settings_find(const struct mu_settings *s, mu_bytes name)
{
    for (size_t i = s->n; i > 0; i--) {
        if (mu_bytes_eq(s->items[i - 1].name, name)) {
            return &s->items[i - 1];
        }
    }
    return NULL;
}

int mu_settings_add(struct mu_settings *s, const struct mu_setting *item, struct mu_err *err)
{
    if (s->n >= MAX_SETTINGS) {
        return mu_err_set(err, MU_E_LIMIT, "more than %d settings", MAX_SETTINGS);
    }
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 64;
        struct mu_setting *grown = mu_arena_alloc(s->arena, cap * sizeof *grown);
        if (!grown) {
            return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
        }
        if (s->n) {
            memcpy(grown, s->items, s->n * sizeof *grown);
        }
        s->items = grown;
        s->cap = cap;
    }
    s->items[s->n++] = *item;
    return 0;
}

/* --- one variable of one source --- */

struct collect {
    struct mu_settings *settings;
    struct mu_buf *warnings;
    enum mu_config_source source;
};

static const char *source_word(enum mu_config_source source)
{
    switch (source) {
    case MU_FROM_ENV:
        return "in the environment";
    case MU_FROM_FLAG:
        return "on the command line";
    default:
        return "in the file";
    }
}

/* The variable whose value the file named by `name` holds: NAME_FILE where NAME is text. */
static bool names_a_file(mu_bytes name, mu_bytes *ret_base)
{
    mu_bytes suffix = MU_B("_FILE");
    if (!mu_bytes_ends(name, suffix) || name.len <= suffix.len) {
        return false;
    }
    char key[64];
    mu_bytes base = mu_bytes_head(name, name.len - suffix.len);
    const struct mu_option *o = mu_option_find(mu_config_table, mu_config_table_len, base);
    if (!o) {
        o = mu_provider_var(base, key);
    }
    *ret_base = base;
    return o && (o->type == MU_OPT_TEXT || o->type == MU_OPT_SECRET);
}

static int add_unique(struct collect *c, struct mu_setting *item, struct mu_err *err)
{
    const struct mu_setting *old = mu_settings_find(c->settings, item->name);
    if (old && old->source == item->source && old->from_file != item->from_file) {
        return mu_err_set(err, MU_E_INVALID,
                          "%.*s and %.*s_FILE are both given %s: keep one of them",
                          MU_ARGS(item->name), MU_ARGS(item->name), source_word(item->source));
    }
    return mu_settings_add(c->settings, item, err);
}

static int unknown(struct collect *c, mu_bytes name, struct mu_err *err)
{
    const char *near = mu_config_nearest(name);
    int shown = (int)MU_MIN(name.len, (size_t)80);
    if (near) {
        return mu_err_set(err, MU_E_INVALID,
                          "%.*s %s is not a setting; did you mean %s? (`muster config` lists all)",
                          shown, name.ptr, source_word(c->source), near);
    }
    return mu_err_set(err, MU_E_INVALID,
                      "%.*s %s is not a setting (`muster config` lists all): remove it", shown,
                      name.ptr, source_word(c->source));
}

static int collect_one(struct collect *c, mu_bytes name, mu_bytes value, struct mu_err *err)
{
    struct mu_setting item = {
        .name = name, .value = mu_bytes_trim(value), .source = c->source, .from_file = false};
    mu_bytes base;
    switch (mu_config_classify(name)) {
    case MU_NAME_ROW:
    case MU_NAME_PROVIDER:
    case MU_NAME_FALLBACK:
        return add_unique(c, &item, err);
    case MU_NAME_LATER:
        mu_buf_printf(c->warnings, "%.*s is not used by this version\n", MU_ARGS(name));
        return 0;
    case MU_NAME_IGNORED:
        return 0;
    case MU_NAME_UNKNOWN:
        break;
    }
    if (names_a_file(name, &base)) {
        if (item.value.len == 0) {
            return 0;
        }
        mu_bytes path = mu_arena_dup(c->settings->arena, item.value);
        if (!path.ptr) {
            return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
        }
        item.name = base;
        item.from_file = true;
        int r = mu_config_read_value(c->settings->arena, path.ptr, &item.value, err);
        if (r < 0) {
            mu_err_context(err, "%.*s", MU_ARGS(name));
            return r == -ENOMEM ? r : MU_E_INVALID;
        }
        return add_unique(c, &item, err);
    }
    /* The environment also holds what is other programs' business. */
    if (c->source == MU_FROM_ENV && !mu_bytes_starts(name, MU_B("OZ_"))) {
        return 0;
    }
    return unknown(c, name, err);
}

static int file_pair(void *arg, mu_bytes name, mu_bytes value, unsigned line, struct mu_err *err)
{
    (void)line;
    return collect_one(arg, name, value, err);
}

/* --- the sources --- */

static int split_pair(const char *pair, mu_bytes *name, mu_bytes *value)
{
    mu_bytes all = mu_str(pair);
    ptrdiff_t eq = mu_bytes_find_char(all, '=');
    if (eq <= 0) {
        return MU_E_INVALID;
    }
    *name = mu_bytes_head(all, (size_t)eq);
    *value = mu_bytes_from(all, (size_t)eq + 1);
    return 0;
}

static int collect_pairs(struct collect *c, const char *const *pairs, struct mu_err *err)
{
    for (; pairs && *pairs; pairs++) {
        mu_bytes name, value;
        int r = split_pair(*pairs, &name, &value);
        if (r < 0) {
            if (c->source == MU_FROM_ENV) {
                continue; /* not ours to judge */
            }
            return mu_err_set(err, r, "--set %.60s: expected NAME=value", *pairs);
        }
        r = collect_one(c, name, value, err);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static mu_bytes pair_value(const char *const *pairs, const char *wanted)
{
    mu_bytes found = MU_B_NONE, name, value;
    for (; pairs && *pairs; pairs++) {
        if (split_pair(*pairs, &name, &value) == 0 && mu_bytes_is(name, wanted)) {
            found = mu_bytes_trim(value);
        }
    }
    return found;
}

static int collect_env_file(struct collect *c, const struct mu_config_args *args,
                            struct mu_err *err)
{
    mu_bytes named = pair_value(args->flags, "OZ_ENV_FILE");
    if (!named.len) {
        named = pair_value(args->environ_, "OZ_ENV_FILE");
    }
    const struct mu_setting *ini = mu_settings_find(c->settings, MU_B("OZ_ENV_FILE"));
    if (!named.len && ini) {
        named = ini->value;
    }
    mu_bytes path = mu_arena_dup(c->settings->arena, named.len ? named : MU_B(".env"));
    if (!path.ptr) {
        return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    c->source = MU_FROM_ENV_FILE;
    int r = mu_config_read_file(c->settings->arena, path.ptr, file_pair, c, err);
    if (r == MU_E_NOT_FOUND) {
        if (!named.len) {
            mu_err_set(err, 0, "%s", "");
            return 0;
        }
        mu_err_context(err, "OZ_ENV_FILE");
        return MU_E_INVALID;
    }
    return r;
}

static int collect_all(const struct mu_config_args *args, struct mu_settings *settings,
                       struct mu_buf *warnings, struct mu_err *err)
{
    struct collect c = {.settings = settings, .warnings = warnings, .source = MU_FROM_INI};
    int r = 0;
    if (args->ini_file) {
        r = mu_config_read_file(settings->arena, args->ini_file, file_pair, &c, err);
        if (r == MU_E_NOT_FOUND) {
            r = MU_E_INVALID;
        }
    }
    if (r == 0) {
        r = collect_env_file(&c, args, err);
    }
    if (r == 0) {
        c.source = MU_FROM_ENV;
        r = collect_pairs(&c, args->environ_, err);
    }
    if (r == 0) {
        c.source = MU_FROM_FLAG;
        r = collect_pairs(&c, args->flags, err);
    }
    return r;
}

/* --- rows --- */

static const struct mu_setting *row_setting(const struct mu_settings *s, const struct mu_option *o)
{
    const struct mu_setting *found = mu_settings_find(s, mu_str(o->name));
    mu_bytes rest = mu_str(o->alias);
    while (!found && rest.ptr) {
        found = mu_settings_find(s, mu_bytes_split(&rest, ' '));
    }
    return found;
}

static int apply_rows(struct mu_config *c, const struct mu_settings *s, struct mu_err *err)
{
    for (size_t i = 0; i < mu_config_table_len; i++) {
        struct mu_option row = mu_config_table[i];
        const struct mu_setting *given = row_setting(s, &row);
        if (!given || given->value.len == 0) {
            continue; /* blank means unset */
        }
        mu_bytes name = mu_arena_dup(&c->arena, given->name);
        if (!name.ptr) {
            return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
        }
        row.name = name.ptr; /* the complaint names what was written */
        int r = mu_option_set(&row, given->value, c, &c->arena, err);
        if (r < 0) {
            return r;
        }
        c->sources[i] = given->source;
    }
    return 0;
}

static int keep(struct mu_config *c, const char **field, const char *before, const char *dir,
                const char *after, struct mu_err *err)
{
    mu_bytes text = mu_arena_printf(&c->arena, "%s%s%s", before, dir, after);
    *field = text.ptr;
    return text.ptr ? 0 : mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
}

void mu_config_default_data_dir(const char *const *environ_, bool root, char *dst, size_t size)
{
    mu_bytes state = pair_value(environ_, "XDG_STATE_HOME"), home = pair_value(environ_, "HOME");
    int n = 0;
    if (root) {
        n = snprintf(dst, size, "/var/lib/muster");
    } else if (state.len && state.ptr[0] == '/') { /* relative ones are to be ignored (XDG) */
        n = snprintf(dst, size, "%.*s/muster", MU_ARGS(state));
    } else if (home.len) {
        n = snprintf(dst, size, "%.*s/.local/state/muster", MU_ARGS(home));
    }
    if (n <= 0 || (size_t)n >= size) {
        dst[0] = 0;
    }
}

static int derive_paths(struct mu_config *c, const char *const *environ_, struct mu_err *err)
{
    int r = 0;
    if (!c->data_dir) {
        char dir[4096];
        mu_config_default_data_dir(environ_, geteuid() == 0, dir, sizeof dir);
        if (!dir[0]) {
            return mu_err_set(err, MU_E_INVALID,
                              "OZ_DATA_DIR: neither HOME nor XDG_STATE_HOME says where the data "
                              "folder belongs: set it");
        }
        r = keep(c, &c->data_dir, "", dir, "", err);
    }
    if (r == 0 && !c->database_url) {
        r = keep(c, &c->database_url, "file:", c->data_dir, "/muster.db", err);
    }
    if (r == 0 && !c->blob_dir) {
        r = keep(c, &c->blob_dir, "", c->data_dir, "/blobs", err);
    }
    return r;
}

/* --- what one row alone cannot tell --- */

static int check_database(const struct mu_config *c, struct mu_err *err)
{
    mu_bytes url = mu_str(c->database_url);
    ptrdiff_t scheme = mu_bytes_find(url, MU_B("://"));
    bool known = mu_bytes_starts(url, MU_B("postgres://")) ||
                 mu_bytes_starts(url, MU_B("postgresql://")) || mu_bytes_starts(url, MU_B("file:"));
    if (scheme >= 0 && !known) {
        return mu_err_set(err, MU_E_INVALID,
                          "DATABASE_URL: %.*s:// is not supported; accepted are a path, file:… "
                          "(SQLite) and postgres://…",
                          (int)MU_MIN(scheme, 20), url.ptr);
    }
    return 0;
}

int mu_config_listen(const char *text, char *host, size_t size, unsigned *ret_port)
{
    mu_bytes v = mu_str(text);
    ptrdiff_t colon = -1;
    int64_t port = 0;
    for (size_t i = 0; i < v.len; i++) {
        colon = v.ptr[i] == ':' ? (ptrdiff_t)i : colon;
    }
    if (colon <= 0 || mu_bytes_i64(mu_bytes_from(v, (size_t)colon + 1), &port) < 0 || port < 1 ||
        port > 65535) {
        return MU_E_INVALID;
    }
    mu_bytes name = mu_bytes_head(v, (size_t)colon);
    if (name.len > 2 && name.ptr[0] == '[' && name.ptr[name.len - 1] == ']') {
        name = mu_bytes_of(name.ptr + 1, name.len - 2);
    }
    if (name.len >= size) {
        return MU_E_INVALID;
    }
    snprintf(host, size, "%.*s", MU_ARGS(name));
    *ret_port = (unsigned)port;
    return 0;
}

/* Links are built from it, so it is a plain base: no slash at its end, nothing behind the path. */
static int check_public_url(struct mu_config *c, struct mu_err *err)
{
    struct mu_url url;
    mu_bytes text = mu_str(c->public_url);
    int r = mu_url_parse(text, &url, err);
    if (r < 0) {
        mu_err_context(err, "PUBLIC_URL");
        return r;
    }
    if (url.has_userinfo || url.query.len || mu_bytes_find_char(text, '#') >= 0) {
        return mu_err_set(err, MU_E_INVALID,
                          "PUBLIC_URL: no user name, query or fragment is accepted");
    }
    if (text.len > MAX_PUBLIC_URL) {
        return mu_err_set(err, MU_E_INVALID, "PUBLIC_URL is longer than %d characters",
                          MAX_PUBLIC_URL);
    }
    while (text.len && text.ptr[text.len - 1] == '/') {
        text.len--;
    }
    c->public_url = mu_arena_dup(&c->arena, text).ptr;
    return c->public_url ? 0 : mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
}

static int check_together(struct mu_config *c, struct mu_err *err)
{
    char host[64];
    unsigned port;
    int r = check_database(c, err);
    if (r == 0 && strlen(c->data_dir) > MAX_DATA_DIR) {
        r = mu_err_set(err, MU_E_INVALID, "OZ_DATA_DIR: the path is longer than %d characters",
                       MAX_DATA_DIR);
    }
    if (r == 0 && strspn(c->host, HOST_CHARS) != strlen(c->host)) {
        r = mu_err_set(err, MU_E_INVALID, "OZ_CONTROL_PLANE_HOST: not an address or a host name");
    }
    if (r == 0 && !c->tls_cert_file != !c->tls_key_file) {
        r = mu_err_set(err, MU_E_INVALID, "%s is missing: TLS needs certificate and key",
                       c->tls_cert_file ? "OZ_TLS_KEY_FILE" : "OZ_TLS_CERT_FILE");
    }
    if (c->metrics_listen && mu_bytes_eq_nocase(mu_str(c->metrics_listen), MU_B("off"))) {
        c->metrics_listen = NULL;
    }
    if (r == 0 && c->metrics_listen &&
        mu_config_listen(c->metrics_listen, host, sizeof host, &port) < 0) {
        r = mu_err_set(err, MU_E_INVALID, "OZ_METRICS_LISTEN: expected host:port or off");
    }
    if (r == 0 && c->public_url) {
        r = check_public_url(c, err);
    }
    const struct {
        const char *name, *value;
    } roots[] = {{"ENCRYPTION_KEY", c->encryption_key},
                 {"ENCRYPTION_KEY_PREVIOUS", c->encryption_key_previous}};
    for (size_t i = 0; r == 0 && i < MU_ARRAY_LEN(roots); i++) {
        if (roots[i].value && strlen(roots[i].value) < 32) {
            r = mu_err_set(err, MU_E_INVALID, "%s is shorter than 32 characters", roots[i].name);
        }
    }
    return r;
}

static int load(struct mu_config *c, const struct mu_config_args *args, struct mu_buf *warnings,
                struct mu_err *err)
{
    struct mu_settings settings = {.arena = &c->arena};
    c->sources = mu_arena_calloc(&c->arena, mu_config_table_len * sizeof *c->sources);
    if (!c->sources) {
        return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    int r = mu_option_defaults(mu_config_table, mu_config_table_len, c, &c->arena, err);
    if (r == 0) {
        r = collect_all(args, &settings, warnings, err);
    }
    if (r == 0) {
        r = apply_rows(c, &settings, err);
    }
    if (r == 0) {
        r = derive_paths(c, args->environ_, err);
    }
    if (r == 0) {
        r = check_together(c, err);
    }
    if (r == 0) {
        r = mu_config_providers(c, &settings, warnings, err);
    }
    if (r == 0 && warnings->failed) {
        r = mu_err_set(err, warnings->failed, "%s", mu_err_text(warnings->failed));
    }
    return r;
}

int mu_config_load(const struct mu_config_args *args, struct mu_config **ret,
                   struct mu_buf *ret_warnings, struct mu_err *err)
{
    struct mu_config *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    mu_arena_init(&c->arena, MU_CONFIG_MAX_BYTES);
    int r = load(c, args, ret_warnings, err);
    if (r < 0) {
        mu_config_free(c);
        return r;
    }
    *ret = c;
    return 0;
}
