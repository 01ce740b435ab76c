#include "proto/json.h"

#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "base/map.h"

/* What a scan in front of the parser finds out. `values` is an upper bound of the number of values
 * and keys in a well-formed text: the root, the first element of each container, and one more for
 * each comma and each colon. */
struct scan {
    size_t values;
    size_t too_deep_at;
    bool too_deep;
};

static struct scan scan_text(mu_bytes text, unsigned max_depth)
{
    struct scan s = {.values = 1};
    unsigned depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (in_string) {
            if (c == '\\') {
                i++; /* whatever is escaped, it does not end the string */
            } else if (c == '"') {
                in_string = false;
            }
            continue;
        }
        switch (c) {
        case '"':
            in_string = true;
            break;
        case '[':
        case '{':
            s.values++;
            if (++depth > max_depth) {
                s.too_deep = true;
                s.too_deep_at = i;
                return s;
            }
            break;
        case ']':
        case '}':
            depth -= depth > 0;
            break;
        case ',':
        case ':':
            s.values++;
            break;
        default:
            break;
        }
    }
    return s;
}

/* yyjson on an arena. It asks for its values with an estimate and grows by half and by copying; the
 * first block is therefore made as large as the step that holds all values the scan counted, and
 * growing inside it is free. */
struct arena_alc {
    struct mu_arena *arena;
    size_t reserve;
    void *ptr;
    size_t cap;
};

static void *alc_malloc(void *ctx, size_t size)
{
    struct arena_alc *a = ctx;
    size_t cap = size;
    while (cap < a->reserve) {
        cap += cap / 2 + sizeof(struct yyjson_val);
    }
    void *p = mu_arena_alloc(a->arena, cap);
    if (p) {
        a->ptr = p;
        a->cap = cap;
    }
    return p;
}

static void *alc_realloc(void *ctx, void *old, size_t old_size, size_t size)
{
    struct arena_alc *a = ctx;
    if (old == a->ptr && size <= a->cap) {
        return old;
    }
    void *p = mu_arena_alloc(a->arena, size);
    if (p) {
        memcpy(p, old, MU_MIN(old_size, size));
        a->ptr = p;
        a->cap = size;
    }
    return p;
}

static void alc_free(void *ctx MU_UNUSED, void *ptr MU_UNUSED)
{
}

/* Reused by all large objects of one document. */
struct key_table {
    yyjson_val **slots;
    size_t cap;
};

static mu_bytes key_bytes(yyjson_val *key)
{
    return mu_bytes_of(unsafe_yyjson_get_str(key), unsafe_yyjson_get_len(key));
}

enum { PAIRWISE = 8 };

static yyjson_val *duplicate_in_small(yyjson_val *obj, size_t n)
{
    mu_bytes seen[PAIRWISE];
    yyjson_val *key = unsafe_yyjson_get_first(obj);
    for (size_t i = 0; i < n; i++) {
        seen[i] = key_bytes(key);
        for (size_t k = 0; k < i; k++) {
            if (mu_bytes_eq(seen[i], seen[k])) {
                return key;
            }
        }
        key = unsafe_yyjson_get_next(key + 1);
    }
    return NULL;
}

static int duplicate_in_large(struct key_table *t, yyjson_val *obj, size_t n, yyjson_val **ret_key)
{
    size_t cap = 32;
    while (cap < n * 2) {
        cap *= 2;
    }
    if (cap > t->cap) {
        mu_free(t->slots);
        t->cap = 0;
        t->slots = mu_alloc(cap * sizeof *t->slots);
        if (!t->slots) {
            return -ENOMEM;
        }
        t->cap = cap;
    }
    memset(t->slots, 0, cap * sizeof *t->slots);
    yyjson_val *key = unsafe_yyjson_get_first(obj);
    for (size_t i = 0; i < n; i++) {
        mu_bytes b = key_bytes(key);
        size_t at = mu_hash(b) & (cap - 1);
        for (; t->slots[at]; at = (at + 1) & (cap - 1)) {
            if (mu_bytes_eq(key_bytes(t->slots[at]), b)) {
                *ret_key = key;
                return 0;
            }
        }
        t->slots[at] = key;
        key = unsafe_yyjson_get_next(key + 1);
    }
    return 0;
}

/* The values of a document lie in one block in document order, so no recursion is needed. */
static int find_duplicate(yyjson_doc *doc, yyjson_val **ret_key)
{
    struct key_table table = {0};
    yyjson_val *v = yyjson_doc_get_root(doc);
    size_t count = yyjson_doc_get_val_count(doc);
    int r = 0;
    *ret_key = NULL;
    for (size_t i = 0; i < count && r == 0 && !*ret_key; i++) {
        if (!unsafe_yyjson_is_obj(v + i)) {
            continue;
        }
        size_t n = unsafe_yyjson_get_len(v + i);
        if (n <= PAIRWISE) {
            *ret_key = duplicate_in_small(v + i, n);
        } else {
            r = duplicate_in_large(&table, v + i, n, ret_key);
        }
    }
    mu_free(table.slots);
    return r;
}

static int read_failed(const yyjson_read_err *e, struct mu_err *err)
{
    if (e->code == YYJSON_READ_ERROR_MEMORY_ALLOCATION) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    return mu_err_set(err, MU_E_INVALID, "invalid JSON at byte %zu: %s", e->pos, e->msg);
}

int mu_json_read(struct mu_arena *a, mu_bytes text, const struct mu_json_limits *limits,
                 yyjson_val **ret, struct mu_err *err)
{
    if (text.len > limits->max_bytes) {
        return mu_err_set(err, MU_E_TOO_LARGE, "JSON text of more than %zu bytes",
                          limits->max_bytes);
    }
    struct scan s = scan_text(text, limits->max_depth);
    if (s.too_deep) {
        return mu_err_set(err, MU_E_INVALID, "JSON nested deeper than %u at byte %zu",
                          limits->max_depth, s.too_deep_at);
    }
    if (text.len == 0) {
        return mu_err_set(err, MU_E_INVALID, "invalid JSON at byte 0: the text is empty");
    }
    char *copy = mu_arena_alloc(a, text.len + YYJSON_PADDING_SIZE);
    if (!copy) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    memcpy(copy, text.ptr, text.len);
    memset(copy + text.len, 0, YYJSON_PADDING_SIZE);
    struct arena_alc ctx = {
        .arena = a,
        /* +2: the parser counts its next value before it stores it */
        .reserve = sizeof(struct yyjson_doc) + (s.values + 2) * sizeof(struct yyjson_val),
    };
    const yyjson_alc alc = {alc_malloc, alc_realloc, alc_free, &ctx};
    yyjson_read_err e;
    yyjson_doc *doc = yyjson_read_opts(copy, text.len, YYJSON_READ_INSITU, &alc, &e);
    if (!doc) {
        return read_failed(&e, err);
    }
    yyjson_val *twice;
    int r = find_duplicate(doc, &twice);
    if (r < 0) {
        return mu_err_set(err, r, "out of memory");
    }
    if (twice) {
        mu_bytes key = mu_utf8_cut(key_bytes(twice), 64);
        return mu_err_set(err, MU_E_INVALID, "duplicate key \"%.*s\" at byte %zu", MU_ARGS(key),
                          (size_t)(key.ptr - copy));
    }
    *ret = yyjson_doc_get_root(doc);
    return 0;
}

yyjson_val *mu_json_get(yyjson_val *obj, const char *key)
{
    return yyjson_obj_get(obj, key);
}

mu_bytes mu_json_bytes(yyjson_val *v)
{
    return yyjson_is_str(v) ? key_bytes(v) : MU_B_NONE;
}

mu_bytes mu_json_get_bytes(yyjson_val *obj, const char *key)
{
    return mu_json_bytes(yyjson_obj_get(obj, key));
}

int64_t mu_json_get_i64(yyjson_val *obj, const char *key, int64_t fallback)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    if (!yyjson_is_int(v) || (yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX)) {
        return fallback;
    }
    return yyjson_get_sint(v);
}

bool mu_json_get_bool(yyjson_val *obj, const char *key, bool fallback)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_bool(v) ? yyjson_get_bool(v) : fallback;
}

static void add_value(struct mu_json_w *w, yyjson_val *v);

static void add_members(struct mu_json_w *w, yyjson_val *obj)
{
    yyjson_obj_iter it = yyjson_obj_iter_with(obj);
    yyjson_val *key;
    mu_jw_obj(w);
    while ((key = yyjson_obj_iter_next(&it))) {
        mu_jw_str(w, key_bytes(key));
        mu_buf_add_char(w->buf, ':');
        w->comma = false;
        add_value(w, yyjson_obj_iter_get_val(key));
    }
    mu_jw_obj_end(w);
}

/* Recursion is bounded: the reader refused deeper documents. */
static void add_value(struct mu_json_w *w, yyjson_val *v)
{
    switch (yyjson_get_type(v)) {
    case YYJSON_TYPE_STR:
        mu_jw_str(w, key_bytes(v));
        break;
    case YYJSON_TYPE_BOOL:
        mu_jw_bool(w, yyjson_get_bool(v));
        break;
    case YYJSON_TYPE_NUM:
        if (yyjson_is_real(v)) {
            mu_jw_real(w, yyjson_get_real(v));
        } else if (yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX) {
            char digits[24];
            int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)yyjson_get_uint(v));
            mu_jw_raw(w, mu_bytes_of(digits, (size_t)n));
        } else {
            mu_jw_i64(w, yyjson_get_sint(v));
        }
        break;
    case YYJSON_TYPE_ARR: {
        yyjson_arr_iter it = yyjson_arr_iter_with(v);
        yyjson_val *item;
        mu_jw_arr(w);
        while ((item = yyjson_arr_iter_next(&it))) {
            add_value(w, item);
        }
        mu_jw_arr_end(w);
        break;
    }
    case YYJSON_TYPE_OBJ:
        add_members(w, v);
        break;
    case YYJSON_TYPE_RAW:
        mu_jw_raw(w, mu_bytes_of(yyjson_get_raw(v), yyjson_get_len(v)));
        break;
    default:
        mu_jw_null(w);
        break;
    }
}

void mu_json_add(struct mu_buf *dst, yyjson_val *v)
{
    struct mu_json_w w = mu_json_w(dst);
    add_value(&w, v);
}
