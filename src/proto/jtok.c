#include "proto/jtok.h"

#include <errno.h>

#include "base/encode.h"
#include "base/err.h"

/* With links to the parent jsmn never searches backwards, so its time is linear. */
#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include <jsmn.h>
#pragma GCC diagnostic pop

enum { FIRST_TOKENS = 64 };

void mu_jtok_init(struct mu_jtok *t)
{
    *t = (struct mu_jtok){.n = 0};
}

void mu_jtok_fini(struct mu_jtok *t)
{
    mu_free(t->tokens);
    *t = (struct mu_jtok){.n = 0};
}

static const jsmntok_t *at(const struct mu_jtok *t, int v)
{
    return v >= 0 && (size_t)v < t->n ? (const jsmntok_t *)t->tokens + v : NULL;
}

static mu_bytes span(const struct mu_jtok *t, const jsmntok_t *k)
{
    return mu_bytes_of(t->text.ptr + k->start, (size_t)(k->end - k->start));
}

/* --- what jsmn does not look at --- */

/* Before jsmn sees it: the depth (a close costs it a walk upwards), control characters in strings
 * and a NUL, at which it would stop. */
static int scan(mu_bytes text)
{
    bool inside = false;
    size_t depth = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c == 0 || (inside && c < 0x20)) {
            return MU_E_INVALID;
        }
        if (c == '\\' && inside) {
            i++;
            if (i < text.len && (unsigned char)text.ptr[i] < 0x20) {
                return MU_E_INVALID;
            }
        } else if (c == '"') {
            inside = !inside;
        } else if (!inside && (c == '{' || c == '[')) {
            if (++depth > MU_JTOK_DEPTH) {
                return MU_E_TOO_LARGE;
            }
        } else if (!inside && (c == '}' || c == ']')) {
            depth -= depth > 0;
        }
    }
    return mu_utf8_valid(text) ? 0 : MU_E_INVALID;
}

static size_t digits(mu_bytes b, size_t i)
{
    size_t n = 0;
    while (i + n < b.len && b.ptr[i + n] >= '0' && b.ptr[i + n] <= '9') {
        n++;
    }
    return n;
}

static bool is_number(mu_bytes b)
{
    size_t i = b.len && b.ptr[0] == '-' ? 1 : 0, n = digits(b, i);
    if (!n || (n > 1 && b.ptr[i] == '0')) {
        return false;
    }
    i += n;
    if (i < b.len && b.ptr[i] == '.') {
        n = digits(b, ++i);
        if (!n) {
            return false;
        }
        i += n;
    }
    if (i < b.len && (b.ptr[i] | 0x20) == 'e') {
        i++;
        i += i < b.len && (b.ptr[i] == '+' || b.ptr[i] == '-');
        n = digits(b, i);
        if (!n) {
            return false;
        }
        i += n;
    }
    return i == b.len;
}

static bool is_word(mu_bytes b)
{
    return mu_bytes_is(b, "true") || mu_bytes_is(b, "false") || mu_bytes_is(b, "null");
}

static bool hex4(mu_bytes b, size_t i, unsigned *ret)
{
    unsigned v = 0;
    if (i + 4 > b.len) {
        return false;
    }
    for (size_t k = i; k < i + 4; k++) {
        int h = mu_hex_value(b.ptr[k]);
        if (h < 0) {
            return false;
        }
        v = v << 4 | (unsigned)h;
    }
    *ret = v;
    return true;
}

/* The character that an escape at *i stands for, as UTF-8; its length, or 0 when it stands for
 * none. *i is behind it afterwards. */
static size_t unescape(mu_bytes b, size_t *i, char dst[4])
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    unsigned c, low;
    size_t k = *i + 1;
    if (k >= b.len) {
        return 0;
    }
    const char *p = b.ptr[k] ? strchr(from, b.ptr[k]) : NULL;
    if (p) {
        *i = k + 1;
        dst[0] = to[p - from];
        return 1;
    }
    if (b.ptr[k] != 'u' || !hex4(b, k + 1, &c)) {
        return 0;
    }
    k += 5;
    if (c >= 0xd800 && c < 0xdc00) {
        if (k + 6 > b.len || b.ptr[k] != '\\' || b.ptr[k + 1] != 'u' || !hex4(b, k + 2, &low) ||
            low < 0xdc00 || low > 0xdfff) {
            return 0;
        }
        c = 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00));
        k += 6;
    } else if (c >= 0xdc00 && c < 0xe000) {
        return 0;
    }
    *i = k;
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t j = n; j-- > 1; c >>= 6) {
        dst[j] = (char)(0x80 | (c & 0x3f));
    }
    dst[0] = (char)(lead[n] | c);
    return n;
}

static bool escapes_are_good(mu_bytes b)
{
    char c[4];
    for (size_t i = 0; i < b.len;) {
        if (b.ptr[i] != '\\') {
            i++;
        } else if (!unescape(b, &i, c)) {
            return false;
        }
    }
    return true;
}

static size_t blanks(mu_bytes text, size_t i)
{
    while (i < text.len && (text.ptr[i] == ' ' || text.ptr[i] == '\t' || text.ptr[i] == '\n' ||
                            text.ptr[i] == '\r')) {
        i++;
    }
    return i;
}

/* jsmn says where the values are, not whether what stands between them is what belongs there. */
struct walk {
    const struct mu_jtok *t;
    size_t cursor;
    int open[MU_JTOK_DEPTH];     /* containers */
    size_t items[MU_JTOK_DEPTH]; /* of each so far; in an object keys and values */
    size_t depth;
};

static bool gap(struct walk *w, char want, size_t to)
{
    w->cursor = blanks(w->t->text, w->cursor);
    if (want && w->cursor < to && w->t->text.ptr[w->cursor] == want) {
        w->cursor = blanks(w->t->text, w->cursor + 1);
    } else if (want) {
        return false;
    }
    return w->cursor == to;
}

static bool close_until(struct walk *w, size_t begin)
{
    while (w->depth) {
        const jsmntok_t *c = at(w->t, w->open[w->depth - 1]);
        if ((size_t)c->end > begin) {
            return true;
        }
        bool odd = c->type == JSMN_OBJECT && w->items[w->depth - 1] % 2;
        if (odd || !gap(w, 0, (size_t)c->end - 1)) {
            return false;
        }
        w->cursor = (size_t)c->end;
        w->depth--;
    }
    return true;
}

static bool step(struct walk *w, int v)
{
    const jsmntok_t *k = at(w->t, v);
    size_t begin = (size_t)k->start - (k->type == JSMN_STRING ? 1 : 0);
    if (!close_until(w, begin) || (v > 0 && !w->depth)) {
        return false;
    }
    char want = 0;
    if (w->depth) {
        size_t n = w->items[w->depth - 1]++;
        bool object = at(w->t, w->open[w->depth - 1])->type == JSMN_OBJECT;
        if (object && n % 2 == 0 && k->type != JSMN_STRING) {
            return false;
        }
        want = object && n % 2 ? ':' : n ? ',' : 0;
    }
    if (!gap(w, want, begin)) {
        return false;
    }
    mu_bytes text = span(w->t, k);
    if (k->type == JSMN_STRING) {
        w->cursor = (size_t)k->end + 1;
        return escapes_are_good(text);
    }
    if (k->type == JSMN_PRIMITIVE) {
        w->cursor = (size_t)k->end;
        return v > 0 && (is_word(text) || is_number(text));
    }
    w->cursor = begin + 1;
    w->open[w->depth] = v;
    w->items[w->depth++] = 0;
    return true;
}

static bool is_json(const struct mu_jtok *t)
{
    struct walk w = {.t = t};
    enum mu_jtok_kind root = mu_jtok_kind(t, 0);
    if (root != MU_JTOK_OBJECT && root != MU_JTOK_ARRAY) {
        return false;
    }
    for (int v = 0; v < (int)t->n; v++) {
        if (!step(&w, v)) {
            return false;
        }
    }
    return close_until(&w, SIZE_MAX) && blanks(t->text, w.cursor) == t->text.len;
}

static int tokenize(struct mu_jtok *t)
{
    jsmn_parser p;
    jsmn_init(&p);
    for (;;) {
        int r = t->cap ? jsmn_parse(&p, t->text.ptr, t->text.len, t->tokens, (unsigned)t->cap)
                       : JSMN_ERROR_NOMEM;
        if (r != JSMN_ERROR_NOMEM) {
            t->n = p.toknext;
            return r < 0 ? MU_E_INVALID : 0;
        }
        if (t->cap == MU_JTOK_MAX) {
            return MU_E_TOO_LARGE;
        }
        size_t cap = t->cap ? t->cap * 4 : FIRST_TOKENS;
        void *more = mu_realloc(t->tokens, cap * sizeof(jsmntok_t));
        if (!more) {
            return -ENOMEM;
        }
        t->tokens = more;
        t->cap = cap;
    }
}

int mu_jtok_parse(struct mu_jtok *t, mu_bytes text)
{
    t->n = 0;
    t->text = text;
    if (text.len > MU_JTOK_TEXT_MAX) {
        return MU_E_TOO_LARGE;
    }
    int r = scan(text);
    r = r ? r : tokenize(t);
    if (!r && !is_json(t)) {
        r = MU_E_INVALID;
    }
    if (r) {
        t->n = 0;
    }
    return r;
}

/* --- looking up --- */

enum mu_jtok_kind mu_jtok_kind(const struct mu_jtok *t, int v)
{
    const jsmntok_t *k = at(t, v);
    if (!k) {
        return MU_JTOK_NONE;
    }
    if (k->type == JSMN_PRIMITIVE) {
        char c = t->text.ptr[k->start];
        return c == 'n' ? MU_JTOK_NULL : c == 't' || c == 'f' ? MU_JTOK_BOOL : MU_JTOK_NUMBER;
    }
    return k->type == JSMN_OBJECT  ? MU_JTOK_OBJECT
           : k->type == JSMN_ARRAY ? MU_JTOK_ARRAY
                                   : MU_JTOK_STRING;
}

/* The first value that begins at or behind `end`: values lie in the order of the text. */
static int behind(const struct mu_jtok *t, int from, int end)
{
    size_t lo = (size_t)from, hi = t->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (at(t, (int)mid)->start >= end) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return (int)lo;
}

int mu_jtok_first(const struct mu_jtok *t, int container)
{
    const jsmntok_t *c = at(t, container), *k = at(t, container + 1);
    return c && k && (c->type == JSMN_OBJECT || c->type == JSMN_ARRAY) && k->start < c->end
               ? container + 1
               : -1;
}

int mu_jtok_next(const struct mu_jtok *t, int container, int item)
{
    const jsmntok_t *c = at(t, container), *k = at(t, item);
    if (!c || !k) {
        return -1;
    }
    if (c->type == JSMN_OBJECT) { /* over the value of this key */
        k = at(t, ++item);
    }
    int next = k ? behind(t, item + 1, k->end) : -1;
    k = at(t, next);
    return k && k->start < c->end ? next : -1;
}

bool mu_jtok_is(const struct mu_jtok *t, int v, mu_bytes text)
{
    const jsmntok_t *k = at(t, v);
    if (!k || k->type != JSMN_STRING) {
        return false;
    }
    mu_bytes b = span(t, k);
    size_t n = 0;
    for (size_t i = 0; i < b.len;) {
        char c[4] = {b.ptr[i]};
        size_t len = 1;
        if (b.ptr[i] == '\\') {
            len = unescape(b, &i, c);
        } else {
            i++;
        }
        if (text.len - n < len || memcmp(text.ptr + n, c, len) != 0) {
            return false;
        }
        n += len;
    }
    return n == text.len;
}

int mu_jtok_get(const struct mu_jtok *t, int obj, const char *key)
{
    int found = -1;
    if (mu_jtok_kind(t, obj) != MU_JTOK_OBJECT) {
        return -1;
    }
    for (int k = mu_jtok_first(t, obj); k >= 0; k = mu_jtok_next(t, obj, k)) {
        if (mu_jtok_is(t, k, mu_str(key))) {
            found = k + 1;
        }
    }
    return found;
}

mu_bytes mu_jtok_raw(const struct mu_jtok *t, int v)
{
    const jsmntok_t *k = at(t, v);
    if (!k) {
        return MU_B_NONE;
    }
    mu_bytes b = span(t, k);
    return k->type == JSMN_STRING ? mu_bytes_of(b.ptr - 1, b.len + 2) : b;
}

int mu_jtok_add(const struct mu_jtok *t, int v, struct mu_buf *dst)
{
    const jsmntok_t *k = at(t, v);
    if (!k || k->type != JSMN_STRING) {
        return MU_E_NOT_FOUND;
    }
    mu_bytes b = span(t, k);
    for (size_t i = 0; i < b.len && !dst->failed;) {
        const char *p = memchr(b.ptr + i, '\\', b.len - i);
        size_t plain = p ? (size_t)(p - (b.ptr + i)) : b.len - i;
        mu_buf_add(dst, mu_bytes_of(b.ptr + i, plain));
        i += plain;
        if (p) {
            char c[4];
            mu_buf_add(dst, mu_bytes_of(c, unescape(b, &i, c)));
        }
    }
    return dst->failed;
}

bool mu_jtok_copy(const struct mu_jtok *t, int v, char *dst, size_t cap)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, cap - 1);
    dst[0] = 0;
    if (mu_jtok_add(t, v, &b) < 0 || (b.len && memchr(b.ptr, 0, b.len))) {
        return false;
    }
    if (b.len) {
        memcpy(dst, b.ptr, b.len);
    }
    dst[b.len] = 0;
    return true;
}

int64_t mu_jtok_i64(const struct mu_jtok *t, int v, int64_t fallback)
{
    int64_t n;
    return mu_jtok_kind(t, v) == MU_JTOK_NUMBER && mu_bytes_i64(mu_jtok_raw(t, v), &n) == 0
               ? n
               : fallback;
}

bool mu_jtok_bool(const struct mu_jtok *t, int v, bool fallback)
{
    return mu_jtok_kind(t, v) == MU_JTOK_BOOL ? t->text.ptr[at(t, v)->start] == 't' : fallback;
}
