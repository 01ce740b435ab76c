#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/encode.h"
#include "face/api/api_int.h"
#include "proto/url.h"

/* The path of the value under inspection, always a C string; what does not fit is cut. */
struct at {
    char *text;
    size_t size, len;
    const char *code;         /* of the latest problem, in the words of the sessions face */
    struct mu_issues *issues; /* NULL: the first problem ends the look */
    struct mu_arena *arena;   /* of the issues */
    bool closed;              /* every object is MU_S_CLOSED */
};

static void at_cut(struct at *at, size_t len)
{
    at->len = len;
    at->text[len] = 0;
}

static void at_add(struct at *at, mu_bytes b)
{
    mu_bytes fit = mu_utf8_cut(b, at->size - 1 - at->len);
    for (size_t i = 0; i < fit.len && fit.ptr[i]; i++) {
        at->text[at->len++] = fit.ptr[i];
    }
    at->text[at->len] = 0;
}

static void at_member(struct at *at, mu_bytes name)
{
    if (at->len) {
        at_add(at, MU_B("."));
    }
    at_add(at, name);
}

static void at_index(struct at *at, size_t i)
{
    char text[24];
    int n = snprintf(text, sizeof text, "[%zu]", i);
    at_add(at, mu_bytes_of(text, (size_t)n));
}

static int bad(struct at *at, const char *code, struct mu_err *err, const char *what)
{
    at->code = code;
    return mu_err_set(err, MU_E_INVALID, "%s %s", at->len ? at->text : "the value", what);
}

static int missing(struct at *at, struct mu_err *err)
{
    at->code = "required";
    return mu_err_set(err, MU_E_NOT_FOUND, "%s is required", at->text);
}

/* Where all problems are wanted, one is noted and the look goes on. */
static int settle(struct at *at, int r, const struct mu_err *err)
{
    if (!at->issues || (r != MU_E_INVALID && r != MU_E_NOT_FOUND)) {
        return r;
    }
    return mu_issues_add(at->issues, at->arena, at->code, mu_str(at->text), mu_str(err->text));
}

static bool word_listed(const char *words, mu_bytes value)
{
    mu_bytes rest = mu_str(words);
    while (rest.ptr) {
        mu_bytes word = mu_bytes_split(&rest, ' ');
        if (word.len && mu_bytes_eq(word, value)) {
            return true;
        }
    }
    return false;
}

/* 0, or the words of what the range allows. `unit` is "" for plain numbers. */
static int in_range(struct at *at, const struct mu_schema *s, int64_t n, const char *unit,
                    struct mu_err *err)
{
    if ((s->min == 0 && s->max == 0) || (n >= s->min && (s->max < s->min || n <= s->max))) {
        return 0;
    }
    at->code = n < s->min ? "too_small" : "too_big";
    if (s->max < s->min) {
        return mu_err_set(err, MU_E_INVALID, "%s must be at least %lld%s", at->text,
                          (long long)s->min, unit);
    }
    return mu_err_set(err, MU_E_INVALID, "%s must be %lld to %lld%s", at->text, (long long)s->min,
                      (long long)s->max, unit);
}

static int check_form(struct at *at, enum mu_schema_form form, mu_bytes text, struct mu_err *err)
{
    const char *why = NULL;
    const char *code = mu_form_refuse(form, text, &why);
    return code ? bad(at, code, err, why) : 0;
}

static int check_text(struct at *at, const struct mu_schema *s, mu_bytes text, struct mu_err *err)
{
    if (s->flags & MU_S_NOT_BLANK && mu_bytes_trim(text).len == 0) {
        return s->flags & MU_S_REQUIRED ? missing(at, err)
                                        : bad(at, "too_small", err, "must not be blank");
    }
    if (s->flags & MU_S_NO_NUL && mu_bytes_find_char(text, 0) >= 0) {
        return bad(at, "invalid_format", err, "must not contain NUL characters");
    }
    if (s->words && !word_listed(s->words, text)) {
        at->code = "invalid_enum";
        return mu_err_set(err, MU_E_INVALID, "%s must be one of: %s", at->text, s->words);
    }
    /* bytes are never fewer than characters: counting is for the texts near the limit only */
    bool counts = s->min || s->max;
    int r = counts ? in_range(at, s, (int64_t)mu_utf8_count(text), " characters", err) : 0;
    return r < 0 ? r : check_form(at, s->form, text, err);
}

static int check_time(struct at *at, mu_bytes text, struct mu_err *err)
{
    int64_t ms;
    return mu_time_parse(text, &ms) < 0 ? bad(at, "invalid_format", err,
                                              "must be a time like 2026-01-31T09:08:16Z (RFC 3339)")
                                        : 0;
}

static int check_real(struct at *at, const struct mu_schema *s, double v, struct mu_err *err)
{
    bool limited = s->min || s->max;
    if (limited && (v < (double)s->min || (s->max >= s->min && v > (double)s->max))) {
        at->code = v < (double)s->min ? "too_small" : "too_big";
        return mu_err_set(err, MU_E_INVALID, "%s must be %lld to %lld", at->text, (long long)s->min,
                          (long long)s->max);
    }
    return 0;
}

static int check_value(struct at *at, const struct mu_schema *s, yyjson_val *v, struct mu_err *err);

static int check_members(struct at *at, const struct mu_schema *members, yyjson_val *obj,
                         struct mu_err *err)
{
    size_t len = at->len;
    for (const struct mu_schema *m = members; m && m->name; m++) {
        at_cut(at, len);
        at_member(at, mu_str(m->name));
        yyjson_val *v = obj ? yyjson_obj_get(obj, m->name) : NULL;
        int r = 0;
        if (v && !yyjson_is_null(v)) {
            r = check_value(at, m, v, err);
        } else if (!(v && m->flags & MU_S_NULLABLE)) {
            r = m->flags & MU_S_REQUIRED ? missing(at, err) : v ? check_value(at, m, v, err) : 0;
        }
        r = settle(at, r, err);
        if (r < 0) {
            return r;
        }
    }
    at_cut(at, len);
    return 0;
}

static int check_closed(struct at *at, const struct mu_schema *members, yyjson_val *v,
                        struct mu_err *err)
{
    size_t len = at->len, i, n;
    yyjson_val *key, *item;
    yyjson_obj_foreach(v, i, n, key, item)
    {
        const struct mu_schema *m = members;
        while (m && m->name && !mu_bytes_is(mu_json_bytes(key), m->name)) {
            m++;
        }
        if (m && m->name) {
            continue;
        }
        at_member(at, mu_json_bytes(key));
        int r = settle(at, bad(at, "unrecognized_key", err, "is not known"), err);
        if (r < 0) {
            return r;
        }
        at_cut(at, len);
    }
    return 0;
}

static int check_object(struct at *at, const struct mu_schema *s, yyjson_val *v, struct mu_err *err)
{
    if (!yyjson_is_obj(v)) {
        return bad(at, "invalid_type", err, "must be an object");
    }
    int r = at->closed || s->flags & MU_S_CLOSED ? check_closed(at, s->items, v, err) : 0;
    return r < 0 ? r : check_members(at, s->items, v, err);
}

static int check_array(struct at *at, const struct mu_schema *s, yyjson_val *v, struct mu_err *err)
{
    int r = in_range(at, s, (int64_t)yyjson_arr_size(v), " entries", err);
    size_t len = at->len, i, n;
    yyjson_val *item;
    if (r < 0 || !s->items) {
        return r;
    }
    yyjson_arr_foreach(v, i, n, item)
    {
        at_cut(at, len);
        at_index(at, i);
        r = settle(at, check_value(at, s->items, item, err), err);
        if (r < 0) {
            return r;
        }
    }
    at_cut(at, len);
    return 0;
}

static int check_map(struct at *at, const struct mu_schema *s, yyjson_val *v, struct mu_err *err)
{
    int r = in_range(at, s, (int64_t)yyjson_obj_size(v), " entries", err);
    size_t len = at->len, i, n;
    yyjson_val *key, *item;
    if (r < 0 || !s->items) {
        return r;
    }
    yyjson_obj_foreach(v, i, n, key, item)
    {
        at_cut(at, len);
        at_member(at, mu_json_bytes(key));
        r = check_form(at, s->form, mu_json_bytes(key), err);
        r = settle(at, r < 0 ? r : check_value(at, s->items, item, err), err);
        if (r < 0) {
            return r;
        }
    }
    at_cut(at, len);
    return 0;
}

static int check_int(struct at *at, const struct mu_schema *s, yyjson_val *v, struct mu_err *err)
{
    bool fits = yyjson_is_sint(v) || (yyjson_is_uint(v) && yyjson_get_uint(v) <= INT64_MAX);
    return fits ? in_range(at, s, yyjson_get_sint(v), "", err)
                : bad(at, "invalid_type", err, "must be an integer");
}

static int check_string(struct at *at, const struct mu_schema *s, yyjson_val *v, struct mu_err *err)
{
    if (!yyjson_is_str(v)) {
        return bad(at, "invalid_type", err,
                   s->type == MU_S_TIME ? "must be a time (RFC 3339 text)" : "must be a string");
    }
    return s->type == MU_S_TIME ? check_time(at, mu_json_bytes(v), err)
                                : check_text(at, s, mu_json_bytes(v), err);
}

/* The text form has as many entries as lines that are not blank; entries that are no strings are
 * dropped by the face (oz-api.md 4.7). */
static int check_lines(struct at *at, const struct mu_schema *s, yyjson_val *v, struct mu_err *err)
{
    bool no_nul = s->flags & MU_S_NO_NUL;
    size_t len = at->len, entries = 0, i, n;
    yyjson_val *item;
    if (yyjson_is_arr(v)) {
        yyjson_arr_foreach(v, i, n, item)
        {
            if (no_nul && mu_bytes_find_char(mu_json_bytes(item), 0) >= 0) {
                at_index(at, i);
                return bad(at, "invalid_format", err, "must not contain NUL characters");
            }
        }
        at_cut(at, len);
        return in_range(at, s, (int64_t)yyjson_arr_size(v), " entries", err);
    }
    if (!yyjson_is_str(v)) {
        return bad(at, "invalid_type", err, "must be a string or an array of strings");
    }
    mu_bytes rest = mu_json_bytes(v);
    if (no_nul && mu_bytes_find_char(rest, 0) >= 0) {
        return bad(at, "invalid_format", err, "must not contain NUL characters");
    }
    while (rest.ptr) {
        entries += mu_bytes_trim(mu_bytes_split(&rest, '\n')).len > 0;
    }
    return in_range(at, s, (int64_t)entries, " entries", err);
}

static int check_value(struct at *at, const struct mu_schema *s, yyjson_val *v, struct mu_err *err)
{
    if (yyjson_is_null(v) && s->flags & MU_S_NULLABLE) {
        return 0;
    }
    switch (s->type) {
    case MU_S_STRING:
    case MU_S_TIME:
        return check_string(at, s, v, err);
    case MU_S_INT:
        return check_int(at, s, v, err);
    case MU_S_NUMBER:
        return yyjson_is_num(v) ? check_real(at, s, yyjson_get_num(v), err)
                                : bad(at, "invalid_type", err, "must be a number");
    case MU_S_BOOL:
        return yyjson_is_bool(v) ? 0 : bad(at, "invalid_type", err, "must be true or false");
    case MU_S_OBJECT:
        return check_object(at, s, v, err);
    case MU_S_ARRAY:
        return yyjson_is_arr(v) ? check_array(at, s, v, err)
                                : bad(at, "invalid_type", err, "must be an array");
    case MU_S_MAP:
        return yyjson_is_obj(v) ? check_map(at, s, v, err)
                                : bad(at, "invalid_type", err, "must be an object");
    case MU_S_STRING_OR_LIST:
        return check_lines(at, s, v, err);
    case MU_S_ANY:
        break;
    }
    return 0;
}

static int check_root(struct at *at, const struct mu_schema *members, yyjson_val *root,
                      struct mu_err *err)
{
    at_cut(at, 0);
    if (root && yyjson_is_null(root)) {
        root = NULL;
    }
    if (root && !yyjson_is_obj(root)) {
        at->code = "invalid_type";
        return mu_err_set(err, MU_E_INVALID, "the body must be a JSON object");
    }
    int r = root && at->closed ? check_closed(at, members, root, err) : 0;
    return r < 0 ? r : check_members(at, members, root, err);
}

int mu_schema_check(const struct mu_schema *members, yyjson_val *root, char *ret_path,
                    size_t path_size, struct mu_err *err)
{
    MU_CHECK(path_size > 0);
    struct at at = {.text = ret_path, .size = path_size};
    return check_root(&at, members, root, err);
}

/* What ends a look at everything: all that could be noted was, or there is no memory. */
static int noted(int r)
{
    return r == MU_E_LIMIT ? 0 : r;
}

int mu_schema_check_all(const struct mu_schema *members, yyjson_val *root, struct mu_arena *a,
                        struct mu_issues *issues)
{
    char path[MU_PATH_TEXT];
    struct mu_err err = {0};
    struct at at = {
        .text = path, .size = sizeof path, .issues = issues, .arena = a, .closed = true};
    int r = settle(&at, check_root(&at, members, root, &err), &err);
    return noted(r);
}

/* --- query strings --- */

static int check_query_number(struct at *at, const struct mu_schema *s, mu_bytes text,
                              struct mu_err *err)
{
    if (s->type == MU_S_INT) {
        int64_t n;
        return mu_bytes_i64(text, &n) < 0 ? bad(at, "invalid_type", err, "must be an integer")
                                          : in_range(at, s, n, "", err);
    }
    char copy[64], *end = NULL;
    if (text.len == 0 || text.len >= sizeof copy ||
        (text.ptr[0] != '-' && (text.ptr[0] < '0' || text.ptr[0] > '9'))) {
        return bad(at, "invalid_type", err, "must be a number");
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = 0;
    double v = strtod(copy, &end);
    if (end != copy + text.len || !isfinite(v)) {
        return bad(at, "invalid_type", err, "must be a number");
    }
    return check_real(at, s, v, err);
}

static int check_query_value(struct at *at, const struct mu_schema *s, mu_bytes text,
                             struct mu_err *err)
{
    switch (s->type) {
    case MU_S_INT:
    case MU_S_NUMBER:
        return check_query_number(at, s, text, err);
    case MU_S_BOOL:
        return word_listed("true false 1 0", text)
                   ? 0
                   : bad(at, "invalid_type", err, "must be true or false");
    case MU_S_TIME:
        return check_time(at, text, err);
    default:
        return mu_utf8_valid(text) ? check_text(at, s, text, err)
                                   : bad(at, "invalid_format", err, "must be valid UTF-8");
    }
}

static const struct mu_schema *query_key(const struct mu_schema *schema, mu_bytes key)
{
    for (const struct mu_schema *s = schema; s->name; s++) {
        if (mu_bytes_is(key, s->name)) {
            return s;
        }
    }
    return NULL;
}

static bool seen(const struct mu_query_value *values, size_t n, const struct mu_schema *s)
{
    for (size_t i = 0; i < n; i++) {
        if (values[i].schema == s) {
            return true;
        }
    }
    return false;
}

static int query_pair(struct at *at, const struct mu_schema *s, mu_bytes value,
                      struct mu_query_value *values, size_t *n, struct mu_err *err)
{
    at_cut(at, 0);
    at_member(at, mu_str(s->name));
    if (!(s->flags & MU_S_REPEAT) && seen(values, *n, s)) {
        return bad(at, "invalid_format", err, "may be given only once");
    }
    if (*n == MU_QUERY_MAX) {
        return bad(at, "too_big", err, "is given too often");
    }
    int r = check_query_value(at, s, value, err);
    if (r == 0) {
        values[(*n)++] = (struct mu_query_value){s, value};
    }
    return r;
}

static int walk_query(struct at *at, const struct mu_schema *schema, struct mu_arena *a,
                      mu_bytes query, struct mu_query_value *values, size_t *n, struct mu_err *err)
{
    at_cut(at, 0);
    mu_bytes rest = query, key, value;
    int more;
    while ((more = mu_url_query_next(a, &rest, &key, &value)) > 0) {
        const struct mu_schema *s = query_key(schema, key);
        int r = s ? settle(at, query_pair(at, s, value, values, n, err), err) : 0;
        if (r < 0) {
            return r;
        }
    }
    if (more < 0) {
        return more == -ENOMEM ? mu_err_set(err, more, "out of memory")
                               : mu_err_set(err, MU_E_PROTOCOL, "the query string does not decode");
    }
    for (const struct mu_schema *s = schema; s->name; s++) {
        if (s->flags & MU_S_REQUIRED && !seen(values, *n, s)) {
            at_cut(at, 0);
            at_member(at, mu_str(s->name));
            int r = settle(at, missing(at, err), err);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

int mu_schema_query(const struct mu_schema *schema, struct mu_arena *a, mu_bytes query,
                    struct mu_query_value *values, size_t *ret_n, char *ret_path, size_t path_size,
                    struct mu_err *err)
{
    struct at at = {.text = ret_path, .size = path_size};
    size_t n = 0;
    int r = walk_query(&at, schema, a, query, values, &n, err);
    if (r == 0) {
        *ret_n = n;
    }
    return r;
}

int mu_schema_query_all(const struct mu_schema *schema, struct mu_arena *a, mu_bytes query,
                        struct mu_query_value *values, size_t *ret_n, struct mu_issues *issues)
{
    char path[MU_PATH_TEXT];
    struct mu_err err = {0};
    struct at at = {.text = path, .size = sizeof path, .issues = issues, .arena = a};
    *ret_n = 0;
    int r = walk_query(&at, schema, a, query, values, ret_n, &err);
    if (r == MU_E_PROTOCOL) {
        r = mu_issues_add(issues, a, "invalid_format", MU_B(""), mu_str(err.text));
    }
    return noted(r);
}
