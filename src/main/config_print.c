#include <stdio.h>

#include "main/config_int.h"
#include "proto/json.h"

static const char *source_name(enum mu_config_source source)
{
    switch (source) {
    case MU_FROM_DEFAULT:
        return "default";
    case MU_FROM_INI:
        return "file";
    case MU_FROM_ENV_FILE:
        return ".env";
    case MU_FROM_ENV:
        return "environment";
    case MU_FROM_FLAG:
        return "flag";
    case MU_FROM_GENERATED:
        return "generated";
    }
    return "default";
}

static const char *type_name(const struct mu_option *o)
{
    switch (o->type) {
    case MU_OPT_TEXT:
        return "text";
    case MU_OPT_SECRET:
        return "secret";
    case MU_OPT_FLAG:
        return "flag";
    case MU_OPT_INT:
        return "integer";
    case MU_OPT_REAL:
        return "number";
    case MU_OPT_ENUM:
        return "word";
    }
    return "text";
}

/* ?password=… of a PostgreSQL URL, and other parameters that end like it. */
static void add_query_masked(struct mu_buf *dst, mu_bytes text)
{
    mu_bytes name = MU_B("password=");
    ptrdiff_t at;
    while ((at = mu_bytes_find(text, name)) >= 0) {
        mu_buf_add(dst, mu_bytes_head(text, (size_t)at + name.len));
        mu_buf_add_str(dst, "***");
        text = mu_bytes_from(text, (size_t)at + name.len);
        ptrdiff_t next = mu_bytes_find_char(text, '&');
        text = next < 0 ? MU_B_NONE : mu_bytes_from(text, (size_t)next);
    }
    mu_buf_add(dst, text);
}

/* A password inside a URL is a secret too. */
static void add_masked(struct mu_buf *dst, mu_bytes text)
{
    ptrdiff_t scheme = mu_bytes_find(text, MU_B("://"));
    size_t from = scheme < 0 ? 0 : (size_t)scheme + 3;
    ptrdiff_t at = -1, colon = -1;
    for (size_t i = from; scheme >= 0 && i < text.len && text.ptr[i] != '/'; i++) {
        at = text.ptr[i] == '@' ? (ptrdiff_t)i : at;
    }
    for (size_t i = from; at >= 0 && i < (size_t)at && colon < 0; i++) {
        colon = text.ptr[i] == ':' ? (ptrdiff_t)i : -1;
    }
    if (colon < 0) {
        if (scheme < 0) {
            mu_buf_add(dst, text);
        } else {
            add_query_masked(dst, text);
        }
        return;
    }
    mu_buf_add(dst, mu_bytes_head(text, (size_t)colon));
    mu_buf_add_str(dst, ":***");
    add_query_masked(dst, mu_bytes_from(text, (size_t)at));
}

static void show(const struct mu_config *c, const struct mu_option *o, struct mu_buf *dst)
{
    struct mu_buf raw;
    mu_buf_init(&raw, 1 << 20);
    mu_option_show(o, c, &raw);
    add_masked(dst, mu_buf_bytes(&raw));
    if (raw.failed) {
        dst->failed = raw.failed;
    }
    mu_buf_fini(&raw);
}

static void print_text(const struct mu_config *c, struct mu_buf *dst)
{
    for (size_t i = 0; i < mu_config_table_len; i++) {
        size_t start = dst->len;
        mu_buf_printf(dst, "%-34s ", mu_config_table[i].name);
        show(c, &mu_config_table[i], dst);
        size_t width = dst->len - start;
        mu_buf_printf(dst, "%*s  %s\n", width < 60 ? (int)(60 - width) : 0, "",
                      source_name(c->sources[i]));
    }
    for (size_t i = 0; i < c->n_given; i++) {
        const struct mu_config_given *g = &c->given[i];
        mu_buf_printf(dst, "%-34s %-25s  %s\n", g->name, g->shown, source_name(g->source));
    }
    for (size_t i = 0; i < c->provider_list.n; i++) {
        const struct mu_provider_conf *p = &c->provider_list.items[i];
        if (p->discovered) {
            mu_buf_printf(dst, "# found: provider %s (%s)\n", p->key, p->found ? p->found : "");
        }
    }
}

static void print_json(const struct mu_config *c, struct mu_buf *dst)
{
    struct mu_json_w w = mu_json_w(dst);
    struct mu_buf value;
    mu_buf_init(&value, 1 << 20);
    mu_jw_obj(&w);
    mu_jw_key(&w, "settings");
    mu_jw_arr(&w);
    for (size_t i = 0; i < mu_config_table_len; i++) {
        const struct mu_option *o = &mu_config_table[i];
        mu_buf_clear(&value);
        show(c, o, &value);
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "name", o->name);
        mu_jw_kcstr(&w, "type", type_name(o));
        mu_jw_kstr(&w, "value", mu_buf_bytes(&value));
        mu_jw_kcstr(&w, "source", source_name(c->sources[i]));
        mu_jw_kstr_opt(&w, "default", mu_str(o->fallback));
        mu_jw_kcstr(&w, "unit", o->unit ? o->unit : "");
        mu_jw_kcstr(&w, "help", o->help);
        mu_jw_obj_end(&w);
    }
    for (size_t i = 0; i < c->n_given; i++) {
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "name", c->given[i].name);
        mu_jw_kcstr(&w, "value", c->given[i].shown);
        mu_jw_kcstr(&w, "source", source_name(c->given[i].source));
        mu_jw_obj_end(&w);
    }
    mu_jw_arr_end(&w);
    mu_jw_key(&w, "providers");
    mu_jw_arr(&w);
    for (size_t i = 0; i < c->provider_list.n; i++) {
        const struct mu_provider_conf *p = &c->provider_list.items[i];
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "key", p->key);
        mu_jw_kcstr(&w, "type", mu_provider_type_name(p->type));
        mu_jw_kstr_opt(&w, "model", mu_str(p->model));
        mu_jw_kbool(&w, "complete", mu_provider_complete(p));
        mu_jw_kbool(&w, "discovered", p->discovered);
        mu_jw_kstr_opt(&w, "found", mu_str(p->found));
        mu_jw_obj_end(&w);
    }
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    mu_buf_add_char(dst, '\n');
    mu_buf_fini(&value);
}

static void add_range(const struct mu_option *o, struct mu_buf *dst)
{
    bool low = o->min > INT64_MIN, high = o->max < INT64_MAX;
    if (o->type == MU_OPT_ENUM) {
        mu_buf_printf(dst, "`%s`", o->words);
    } else if (o->type == MU_OPT_FLAG) {
        mu_buf_add_str(dst, "flag");
    } else if ((o->type == MU_OPT_INT || o->type == MU_OPT_REAL) && (o->min || o->max)) {
        if (low) {
            mu_buf_add_i64(dst, o->min);
        }
        mu_buf_add_str(dst, "..");
        if (high) {
            mu_buf_add_i64(dst, o->max);
        }
        mu_buf_printf(dst, "%s%s", o->unit[0] ? " " : "", o->unit);
    } else {
        mu_buf_add_str(dst, type_name(o));
    }
}

static void print_markdown(struct mu_buf *dst)
{
    mu_buf_add_str(
        dst, "# Configuration\n\n"
             "Generated by `muster config --markdown`. Order: default < INI file (`--config`) < "
             "`.env` (`OZ_ENV_FILE`) < environment < flag (`--set NAME=value`). `NAME_FILE` reads "
             "a text or secret from a file. Flags take `1 true yes on` and `0 false no off`. A "
             "malformed value and an unknown name are fatal.\n\n"
             "| variable | default | range | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < mu_config_table_len; i++) {
        const struct mu_option *o = &mu_config_table[i];
        mu_buf_printf(dst, "| `%s`", o->name);
        if (o->alias) {
            mu_buf_printf(dst, " (alias `%s`)", o->alias);
        }
        mu_buf_printf(dst, " | %s%s%s | ", o->fallback ? "`" : "", o->fallback ? o->fallback : "–",
                      o->fallback ? "`" : "");
        add_range(o, dst);
        mu_buf_printf(dst, " | %s%s |\n", o->help, o->reload ? " Taken over on SIGHUP." : "");
    }
    mu_provider_markdown(dst);
}

void mu_config_print(const struct mu_config *c, enum mu_config_style style, struct mu_buf *dst)
{
    switch (style) {
    case MU_CONFIG_TEXT:
        print_text(c, dst);
        break;
    case MU_CONFIG_JSON:
        print_json(c, dst);
        break;
    case MU_CONFIG_MARKDOWN:
        print_markdown(dst);
        break;
    }
}
