/* The strings of a JSON document, one after the other. Only a string that holds a value is written
 * anew: all else stays as it was, byte for byte. */
#include <errno.h>

#include "base/err.h"
#include "proto/json_write.h"
#include "proto/jtok.h"
#include "proto/redact.h"

enum { STRING_MAX = 64 << 20 };

struct place {
    bool object, value; /* a value comes next, else a key */
};
struct reader {
    const struct mu_redact *r;
    const struct mu_redact_own *own;
    bool brief;
    struct mu_buf *out;
    struct mu_buf decoded, clean, wrapped;
    struct mu_jtok json;
    mu_bytes text;
    size_t at, copied;
    struct place places[MU_REDACT_DEPTH];
    size_t depth;
    size_t objects;  /* around it */
    mu_bytes key[2]; /* of the outermost two objects, as they stand there */
};

/* "key" or "key.key" */
static bool kept(const struct reader *d)
{
    for (const char *const *k = d->own->keep; k && *k && d->objects && d->objects <= 2; k++) {
        mu_bytes second = mu_str(*k);
        mu_bytes first = mu_bytes_split(&second, '.');
        bool same = mu_bytes_eq(first, d->key[0]);
        if (same && (d->objects == 1 ? !second.ptr : mu_bytes_eq(second, d->key[1]))) {
            return true;
        }
    }
    return false;
}

static bool own_key(const struct reader *d)
{
    bool other = d->objects > 1 && d->own->but && mu_bytes_is(d->key[0], d->own->but);
    return d->objects <= d->own->levels && !other;
}

/* What the literal says. */
static int decode(struct reader *d, mu_bytes literal, mu_bytes *ret)
{
    if (mu_bytes_find_char(literal, '\\') < 0) {
        *ret = literal;
        return 0;
    }
    mu_buf_clear(&d->wrapped);
    mu_buf_clear(&d->decoded);
    mu_buf_add_str(&d->wrapped, "[\"");
    mu_buf_add(&d->wrapped, literal);
    mu_buf_add_str(&d->wrapped, "\"]");
    int e = d->wrapped.failed;
    e = e ? e : mu_jtok_parse(&d->json, mu_buf_bytes(&d->wrapped));
    e = e ? e : mu_jtok_add(&d->json, mu_jtok_first(&d->json, 0), &d->decoded);
    *ret = mu_buf_bytes(&d->decoded);
    return e;
}

static int clean(struct reader *d, mu_bytes literal)
{
    mu_bytes said;
    int e = decode(d, literal, &said);
    if (e) {
        return e;
    }
    mu_buf_clear(&d->clean);
    struct mu_redact_stream s = {.brief = d->brief};
    mu_redact_feed(d->r, &s, said, &d->clean);
    mu_redact_flush(d->r, &s, &d->clean);
    if (!s.hits) {
        return d->clean.failed;
    }
    struct mu_json_w w = mu_json_w(d->out);
    size_t begin = (size_t)(literal.ptr - d->text.ptr) - 1;
    mu_buf_add(d->out, mu_bytes_of(d->text.ptr + d->copied, begin - d->copied));
    mu_jw_str(&w, mu_buf_bytes(&d->clean));
    d->copied = begin + literal.len + 2;
    return d->clean.failed;
}

static int string(struct reader *d)
{
    size_t from = ++d->at;
    while (d->at < d->text.len && d->text.ptr[d->at] != '"') {
        d->at += d->text.ptr[d->at] == '\\' ? 2 : 1;
    }
    if (d->at >= d->text.len) {
        return MU_E_INVALID;
    }
    mu_bytes literal = mu_bytes_of(d->text.ptr + from, d->at++ - from);
    struct place *p = d->depth ? &d->places[d->depth - 1] : NULL;
    if (p && p->object && !p->value) {
        if (d->objects && d->objects <= 2) {
            d->key[d->objects - 1] = literal;
        }
        return own_key(d) ? 0 : clean(d, literal);
    }
    return kept(d) ? 0 : clean(d, literal);
}

static int structure(struct reader *d, char c)
{
    struct place *p = d->depth ? &d->places[d->depth - 1] : NULL;
    if (c == '{' || c == '[') {
        if (d->depth == MU_REDACT_DEPTH) {
            return MU_E_TOO_LARGE;
        }
        d->places[d->depth++] = (struct place){c == '{', false};
        d->objects += c == '{';
    } else if (c == '}' || c == ']') {
        if (!p || p->object != (c == '}')) {
            return MU_E_INVALID;
        }
        d->depth--;
        d->objects -= c == '}';
    } else if (p && (c == ':' || c == ',')) {
        p->value = c == ':';
    }
    d->at++;
    return 0;
}

int mu_redact_json(const struct mu_redact *r, mu_bytes json, const struct mu_redact_own *own,
                   bool brief, struct mu_buf *out)
{
    if (!mu_redact_any(r)) {
        mu_buf_add(out, json);
        return out->failed;
    }
    struct reader d = {.r = r, .own = own, .brief = brief, .out = out, .text = json};
    struct mu_buf *bufs[] = {&d.decoded, &d.clean, &d.wrapped};
    for (size_t i = 0; i < MU_ARRAY_LEN(bufs); i++) {
        mu_buf_init(bufs[i], STRING_MAX);
    }
    mu_jtok_init(&d.json);
    int e = 0;
    while (d.at < json.len && !e) {
        e = json.ptr[d.at] == '"' ? string(&d) : structure(&d, json.ptr[d.at]);
    }
    e = e || !d.depth ? e : MU_E_INVALID;
    if (!e) {
        mu_buf_add(out, mu_bytes_from(json, d.copied));
        e = out->failed;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(bufs); i++) {
        mu_buf_wipe(bufs[i]);
    }
    mu_jtok_fini(&d.json);
    return e;
}
