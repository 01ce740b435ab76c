#include "base/option.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

static mu_bytes next_word(mu_bytes *rest)
{
    mu_bytes w = MU_B_NONE;
    while (rest->ptr && w.len == 0) {
        w = mu_bytes_split(rest, ' ');
    }
    return w;
}

static bool has_word(const char *words, mu_bytes word, mu_bytes *ret_word)
{
    mu_bytes rest = mu_str(words), w;
    while ((w = next_word(&rest)).len) {
        if (mu_bytes_eq_nocase(w, word)) {
            *ret_word = w;
            return true;
        }
    }
    return false;
}

/* The value as it is shown in a complaint: short, and printable. */
static int refuse(const struct mu_option *o, mu_bytes value, struct mu_err *err, const char *wanted)
{
    char shown[48];
    size_t n = 0;
    for (size_t i = 0; i < value.len && n < sizeof shown - 1; i++) {
        char c = value.ptr[i];
        shown[n++] = c >= ' ' && c < 127 ? c : '?';
    }
    shown[n] = 0;
    return mu_err_set(err, MU_E_INVALID, "%s: \"%s\" is not %s", o->name, shown, wanted);
}

static int set_text(const struct mu_option *o, mu_bytes value, void *field, struct mu_arena *arena,
                    struct mu_err *err)
{
    if (mu_bytes_find_char(value, 0) >= 0) {
        return mu_err_set(err, MU_E_INVALID, "%s: a NUL byte is not accepted", o->name);
    }
    mu_bytes copy = mu_arena_dup(arena, value);
    if (!copy.ptr) {
        return mu_err_set(err, -ENOMEM, "%s: %s", o->name, mu_err_text(-ENOMEM));
    }
    *(const char **)field = copy.ptr;
    return 0;
}

static int set_enum(const struct mu_option *o, mu_bytes value, void *field, struct mu_arena *arena,
                    struct mu_err *err)
{
    mu_bytes word;
    if (!has_word(o->words, value, &word)) {
        char wanted[200];
        snprintf(wanted, sizeof wanted, "one of: %s", o->words);
        return refuse(o, value, err, wanted);
    }
    return set_text(o, word, field, arena, err);
}

static int set_flag(const struct mu_option *o, mu_bytes value, void *field, struct mu_err *err)
{
    mu_bytes word;
    if (has_word("1 true yes on", value, &word)) {
        *(bool *)field = true;
    } else if (has_word("0 false no off", value, &word)) {
        *(bool *)field = false;
    } else {
        return refuse(o, value, err, "a flag (1 true yes on, 0 false no off)");
    }
    return 0;
}

static int refuse_number(const struct mu_option *o, mu_bytes value, struct mu_err *err,
                         const char *what)
{
    char wanted[160];
    const char *unit = o->unit ? o->unit : "";
    if (o->min == 0 && o->max == 0) {
        snprintf(wanted, sizeof wanted, "%s%s%s", what, unit[0] ? " in " : "", unit);
    } else {
        snprintf(wanted, sizeof wanted, "%s%s%s from %lld to %lld", what, unit[0] ? " in " : "",
                 unit, (long long)o->min, (long long)o->max);
    }
    return refuse(o, value, err, wanted);
}

static int set_int(const struct mu_option *o, mu_bytes value, void *field, struct mu_err *err)
{
    int64_t v;
    if (mu_bytes_i64(value, &v) < 0 || ((o->min || o->max) && (v < o->min || v > o->max))) {
        return refuse_number(o, value, err, "a whole number");
    }
    *(int64_t *)field = v;
    return 0;
}

static bool parse_real(mu_bytes value, double *ret)
{
    char text[64];
    if (value.len == 0 || value.len >= sizeof text) {
        return false;
    }
    for (size_t i = 0; i < value.len; i++) {
        /* strtod would also take hexadecimal, "inf" and leading blanks */
        if (!strchr("0123456789+-.eE", value.ptr[i]) || value.ptr[i] == 0) {
            return false;
        }
        text[i] = value.ptr[i];
    }
    text[value.len] = 0;
    char *end;
    *ret = strtod(text, &end);
    return *end == 0 && end != text && isfinite(*ret);
}

static int set_real(const struct mu_option *o, mu_bytes value, void *field, struct mu_err *err)
{
    double v;
    if (!parse_real(value, &v) ||
        ((o->min || o->max) && (v < (double)o->min || v > (double)o->max))) {
        return refuse_number(o, value, err, "a number");
    }
    *(double *)field = v;
    return 0;
}

int mu_option_set(const struct mu_option *o, mu_bytes value, void *dst, struct mu_arena *arena,
                  struct mu_err *err)
{
    void *field = (char *)dst + o->offset;
    switch (o->type) {
    case MU_OPT_TEXT:
    case MU_OPT_SECRET:
        return set_text(o, value, field, arena, err);
    case MU_OPT_FLAG:
        return set_flag(o, mu_bytes_trim(value), field, err);
    case MU_OPT_INT:
        return set_int(o, mu_bytes_trim(value), field, err);
    case MU_OPT_REAL:
        return set_real(o, mu_bytes_trim(value), field, err);
    case MU_OPT_ENUM:
        return set_enum(o, mu_bytes_trim(value), field, arena, err);
    }
    return mu_err_set(err, MU_E_INTERNAL, "%s: unknown type", o->name);
}

static void unset(const struct mu_option *o, void *dst)
{
    void *field = (char *)dst + o->offset;
    switch (o->type) {
    case MU_OPT_FLAG:
        *(bool *)field = false;
        break;
    case MU_OPT_INT:
        *(int64_t *)field = 0;
        break;
    case MU_OPT_REAL:
        *(double *)field = 0;
        break;
    case MU_OPT_TEXT:
    case MU_OPT_SECRET:
    case MU_OPT_ENUM:
        *(const char **)field = NULL;
        break;
    }
}

int mu_option_defaults(const struct mu_option *table, size_t n, void *dst, struct mu_arena *arena,
                       struct mu_err *err)
{
    for (size_t i = 0; i < n; i++) {
        const struct mu_option *o = &table[i];
        if (!o->fallback) {
            unset(o, dst);
            continue;
        }
        int r = mu_option_set(o, mu_str(o->fallback), dst, arena, err);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

const struct mu_option *mu_option_find(const struct mu_option *table, size_t n, mu_bytes name)
{
    for (size_t i = 0; i < n; i++) {
        if (mu_bytes_is(name, table[i].name)) {
            return &table[i];
        }
    }
    for (size_t i = 0; i < n; i++) {
        mu_bytes rest = mu_str(table[i].alias), w;
        while ((w = next_word(&rest)).len) {
            if (mu_bytes_eq(w, name)) {
                return &table[i];
            }
        }
    }
    return NULL;
}

static void show_real(double v, struct mu_buf *dst)
{
    char text[40];
    for (int digits = 6; digits <= 17; digits++) { /* the shortest that reads back */
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) >= v && strtod(text, NULL) <= v) {
            break;
        }
    }
    mu_buf_add_str(dst, text);
}

void mu_option_show(const struct mu_option *o, const void *src, struct mu_buf *dst)
{
    const void *field = (const char *)src + o->offset;
    switch (o->type) {
    case MU_OPT_TEXT:
    case MU_OPT_ENUM:
        mu_buf_add_str(dst, *(const char *const *)field);
        break;
    case MU_OPT_SECRET: {
        const char *s = *(const char *const *)field;
        mu_buf_add_str(dst, s && s[0] ? "set" : "unset");
        break;
    }
    case MU_OPT_FLAG:
        mu_buf_add_str(dst, *(const bool *)field ? "on" : "off");
        break;
    case MU_OPT_INT:
        mu_buf_add_i64(dst, *(const int64_t *)field);
        break;
    case MU_OPT_REAL:
        show_real(*(const double *)field, dst);
        break;
    }
}
