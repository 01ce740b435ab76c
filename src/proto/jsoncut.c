#include "proto/jsoncut.h"

#include "base/err.h"

void mu_jsoncut_init(struct mu_jsoncut *c, struct mu_buf *out, size_t max_string,
                     int (*piece)(void *arg, mu_bytes key, unsigned depth, mu_bytes text,
                                  bool first),
                     void *arg)
{
    *c = (struct mu_jsoncut){.out = out, .max_string = max_string, .piece = piece, .arg = arg};
}

/* --- the text of a string that is cut --- */

static int tell(struct mu_jsoncut *c)
{
    int r = 0;
    if (c->dec_len && c->piece) {
        r = c->piece(c->arg, mu_bytes_of(c->key, c->key_len), c->depth,
                     mu_bytes_of(c->dec, c->dec_len), !c->told);
        c->told = true;
    }
    c->dec_len = 0;
    return r < 0 ? r : 0;
}

static int put(struct mu_jsoncut *c, unsigned char byte)
{
    int r = c->dec_len == sizeof c->dec ? tell(c) : 0;
    c->dec[c->dec_len++] = (char)byte;
    return r;
}

static int put_char(struct mu_jsoncut *c, unsigned cp)
{
    if (cp < 0x80) {
        return put(c, (unsigned char)cp);
    }
    int r;
    if (cp < 0x800) {
        r = put(c, (unsigned char)(0xc0 | cp >> 6));
    } else if (cp < 0x10000) {
        r = put(c, (unsigned char)(0xe0 | cp >> 12));
        r = r < 0 ? r : put(c, (unsigned char)(0x80 | (cp >> 6 & 0x3f)));
    } else {
        r = put(c, (unsigned char)(0xf0 | cp >> 18));
        r = r < 0 ? r : put(c, (unsigned char)(0x80 | (cp >> 12 & 0x3f)));
        r = r < 0 ? r : put(c, (unsigned char)(0x80 | (cp >> 6 & 0x3f)));
    }
    return r < 0 ? r : put(c, (unsigned char)(0x80 | (cp & 0x3f)));
}

enum { REPLACEMENT = 0xfffd };

/* A half of a pair that did not get its other half. */
static int drop_high(struct mu_jsoncut *c)
{
    bool had = c->high != 0;
    c->high = 0;
    return had && c->cut ? put_char(c, REPLACEMENT) : 0;
}

static int unit_done(struct mu_jsoncut *c)
{
    unsigned u = c->unit;
    if (u >= 0xdc00 && u <= 0xdfff) {
        unsigned high = c->high;
        c->high = 0;
        unsigned cp = high ? 0x10000 + ((high - 0xd800) << 10) + (u - 0xdc00) : REPLACEMENT;
        return c->cut ? put_char(c, cp) : 0;
    }
    int r = drop_high(c);
    if (u >= 0xd800 && u <= 0xdbff) {
        c->high = u;
        return r;
    }
    return r < 0 || !c->cut ? r : put_char(c, u);
}

static int escaped(struct mu_jsoncut *c, unsigned char b)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (c->escape == 1 && b == 'u') {
        c->escape = 2;
        c->unit = 0;
        return 0;
    }
    if (c->escape == 1) {
        const char *at = b ? strchr(from, b) : NULL;
        c->escape = 0;
        int r = at ? drop_high(c) : MU_E_INVALID;
        return r < 0 || !c->cut ? r : put(c, (unsigned char)to[at - from]);
    }
    unsigned digit = 16, lower = b | 0x20U;
    if (b >= '0' && b <= '9') {
        digit = b - (unsigned)'0';
    } else if (lower >= 'a' && lower <= 'f') {
        digit = lower - 'a' + 10;
    }
    if (digit == 16) {
        return MU_E_INVALID;
    }
    c->unit = c->unit << 4 | digit;
    if (++c->escape < 6) {
        return 0;
    }
    c->escape = 0;
    return unit_done(c);
}

/* A byte inside a string that is not its end. */
static int string_byte(struct mu_jsoncut *c, unsigned char b)
{
    if (c->escape) {
        return escaped(c, b);
    }
    if (b == '\\') {
        c->escape = 1;
        return 0;
    }
    if (b < 0x20) {
        return MU_E_INVALID;
    }
    if (c->utf8) {
        c->utf8--;
    } else {
        c->utf8 = b >= 0xf0 ? 3 : b >= 0xe0 ? 2 : b >= 0xc0 ? 1 : 0;
    }
    int r = drop_high(c);
    return r < 0 || !c->cut ? r : put(c, b);
}

/* What stays in the output is told too. */
static int begin_cut(struct mu_jsoncut *c)
{
    int r = 0;
    c->cut = true;
    c->told = false;
    c->dec_len = 0;
    for (size_t i = c->begin; r >= 0 && c->piece && i < c->out->len; i++) {
        r = string_byte(c, (unsigned char)c->out->ptr[i]);
    }
    return r;
}

static int end_string(struct mu_jsoncut *c)
{
    int r = drop_high(c);
    if (r >= 0 && c->cut && !c->is_key) {
        r = tell(c);
    }
    c->in_string = c->cut = false;
    c->utf8 = 0;
    mu_buf_add_char(c->out, '"');
    return r;
}

static void note_key(struct mu_jsoncut *c)
{
    size_t len = c->out->len - c->begin;
    c->key_len = len <= MU_JSONCUT_KEY ? len : 0;
    memcpy(c->key, c->out->ptr + c->begin, c->key_len);
}

static int in_string(struct mu_jsoncut *c, unsigned char b)
{
    bool whole = !c->escape && !c->utf8; /* between two characters */
    if (whole && b == '"') {
        if (c->is_key) {
            note_key(c);
        }
        return end_string(c);
    }
    if (whole && !c->high && !c->cut && c->out->len - c->begin >= c->max_string) {
        int r = c->is_key ? (c->cut = true, 0) : begin_cut(c);
        if (r < 0) {
            return r;
        }
    }
    bool kept = !c->cut;
    int r = string_byte(c, b);
    if (kept) {
        mu_buf_add_char(c->out, (char)b);
    } else if (c->is_key) {
        c->dec_len = 0;
    }
    return r;
}

/* --- outside of strings --- */

static bool object_now(const struct mu_jsoncut *c)
{
    return c->depth && c->is_object >> (c->depth - 1) & 1;
}

static int open_container(struct mu_jsoncut *c, bool object)
{
    if (c->depth == MU_JSONCUT_DEPTH) {
        return MU_E_INVALID;
    }
    uint64_t bit = UINT64_C(1) << c->depth++;
    c->is_object = object ? c->is_object | bit : c->is_object & ~bit;
    c->want_key = object;
    c->key_len = 0;
    return 0;
}

static int outside(struct mu_jsoncut *c, unsigned char b)
{
    int r = 0;
    switch (b) {
    case ' ':
    case '\t':
    case '\r':
    case '\n':
        return 0;
    case '"':
        c->in_string = true;
        c->is_key = c->want_key;
        c->want_key = false;
        c->begin = c->out->len + 1;
        c->high = 0;
        break;
    case '{':
    case '[':
        r = open_container(c, b == '{');
        break;
    case '}':
    case ']':
        r = c->depth ? 0 : MU_E_INVALID;
        c->depth -= c->depth > 0;
        c->want_key = false;
        break;
    case ',':
        c->want_key = object_now(c);
        c->key_len = 0;
        break;
    default:
        break;
    }
    mu_buf_add_char(c->out, (char)b);
    return r;
}

/* The plain bytes at the beginning of `text` that can be taken at once. */
static size_t plain(const struct mu_jsoncut *c, mu_bytes text)
{
    size_t n = 0;
    if (!c->in_string || c->escape || c->utf8 || c->high || (c->cut && c->is_key)) {
        return 0;
    }
    size_t room = c->cut ? sizeof c->dec - c->dec_len
                         : c->max_string - MU_MIN(c->max_string, c->out->len - c->begin);
    size_t most = MU_MIN(text.len, room);
    while (n < most) {
        unsigned char b = (unsigned char)text.ptr[n];
        if (b < 0x20 || b >= 0x80 || b == '"' || b == '\\') {
            break;
        }
        n++;
    }
    return n;
}

int mu_jsoncut_feed(struct mu_jsoncut *c, mu_bytes text)
{
    while (text.len && !c->failed) {
        size_t n = plain(c, text);
        if (n && c->cut) {
            memcpy(c->dec + c->dec_len, text.ptr, n);
            c->dec_len += n;
        } else if (n) {
            mu_buf_add(c->out, mu_bytes_head(text, n));
        } else {
            n = 1;
            unsigned char b = (unsigned char)text.ptr[0];
            int r = c->in_string ? in_string(c, b) : outside(c, b);
            c->failed = r < 0 ? r : 0;
        }
        c->failed = c->failed ? c->failed : c->out->failed;
        text = mu_bytes_from(text, n);
    }
    return c->failed;
}
