#include "runner/envvars.h"

#include "base/buf.h"
#include "base/encode.h"

enum { VALUE_MAX = 1 << 20 };

static bool name_ok(mu_bytes name)
{
    if (!name.len || (name.ptr[0] >= '0' && name.ptr[0] <= '9')) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_')) {
            return false;
        }
    }
    return true;
}

int mu_envvars_lines(mu_bytes text, mu_envvar_fn set, void *arg)
{
    int n = 0;
    mu_bytes rest = text;
    while (rest.ptr) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        ptrdiff_t eq = mu_bytes_find_char(line, '=');
        if (eq < 0 || !name_ok(mu_bytes_head(line, (size_t)eq))) {
            continue;
        }
        int r = set(arg, mu_bytes_head(line, (size_t)eq), mu_bytes_from(line, (size_t)eq + 1));
        if (r < 0) {
            return r;
        }
        n++;
    }
    return n;
}

struct reader {
    mu_bytes text;
    size_t at;
};

static int peek(const struct reader *r)
{
    return r->at < r->text.len ? (unsigned char)r->text.ptr[r->at] : -1;
}

static void blanks(struct reader *r)
{
    int c;
    while ((c = peek(r)) == ' ' || c == '\t' || c == '\n' || c == '\r') {
        r->at++;
    }
}

static bool take(struct reader *r, char c)
{
    blanks(r);
    if (peek(r) != (unsigned char)c) {
        return false;
    }
    r->at++;
    return true;
}

/* Four hexadecimal digits, or -1. */
static int32_t hex4(struct reader *r)
{
    int32_t v = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        int c = peek(r);
        int d = mu_hex_value((char)c);
        if (d < 0) {
            return -1;
        }
        v = v * 16 + d;
    }
    return v;
}

static void add_utf8(struct mu_buf *b, int32_t c)
{
    if (c < 0x80) {
        mu_buf_add_char(b, (char)c);
        return;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
    mu_buf_add_char(b, (char)(lead[more] | (c >> (6 * more))));
    while (more--) {
        mu_buf_add_char(b, (char)(0x80 | ((c >> (6 * more)) & 0x3f)));
    }
}

/* What follows a backslash. */
static bool escape(struct reader *r, struct mu_buf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    int c = peek(r);
    if (c <= 0) {
        return false;
    }
    r->at++;
    if (c != 'u') {
        const char *p = strchr(from, c);
        if (p) {
            mu_buf_add_char(out, to[p - from]);
        }
        return p != NULL;
    }
    int32_t u = hex4(r);
    if (u >= 0xd800 && u < 0xdc00) {
        if (peek(r) != '\\' || r->at + 1 >= r->text.len || r->text.ptr[r->at + 1] != 'u') {
            return false;
        }
        r->at += 2;
        int32_t low = hex4(r);
        if (low < 0xdc00 || low > 0xdfff) {
            return false;
        }
        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    } else if (u < 0 || (u >= 0xdc00 && u <= 0xdfff)) {
        return false;
    }
    add_utf8(out, u);
    return true;
}

static bool string(struct reader *r, struct mu_buf *out)
{
    mu_buf_clear(out);
    if (!take(r, '"')) {
        return false;
    }
    for (;;) {
        int c = peek(r);
        if (c < 0x20) { /* the end, or a control character */
            return false;
        }
        r->at++;
        if (c == '"') {
            return true;
        }
        if (c != '\\') {
            mu_buf_add_char(out, (char)c);
        } else if (!escape(r, out)) {
            return false;
        }
    }
}

static int wrong(const struct reader *r, struct mu_err *err, const struct mu_buf *a,
                 const struct mu_buf *b)
{
    int failed = a->failed ? a->failed : b->failed;
    if (failed) {
        return mu_err_set(err, failed, "%s", mu_err_text(failed));
    }
    return mu_err_set(err, MU_E_INVALID, "not a JSON object of strings, at byte %zu", r->at);
}

/* One walk over the document; without `set` it only checks. */
static int walk(mu_bytes text, mu_envvar_fn set, void *arg, struct mu_err *err)
{
    struct reader r = {text, 0};
    struct mu_buf name MU_CLEANUP(mu_buf_fini), value MU_CLEANUP(mu_buf_wipe);
    mu_buf_init(&name, VALUE_MAX);
    mu_buf_init(&value, VALUE_MAX);
    int n = 0;
    bool more = false;
    if (!take(&r, '{')) {
        return wrong(&r, err, &name, &value);
    }
    if (!take(&r, '}')) {
        do {
            if (!string(&r, &name) || !take(&r, ':') || !string(&r, &value) || name.failed ||
                value.failed) {
                return wrong(&r, err, &name, &value);
            }
            mu_bytes v = value.ptr ? mu_buf_bytes(&value) : MU_B("");
            if (set && name_ok(mu_buf_bytes(&name)) && !memchr(v.ptr, 0, v.len)) {
                int set_r = set(arg, mu_buf_bytes(&name), v);
                if (set_r < 0) {
                    return set_r;
                }
                n++;
            }
            more = take(&r, ',');
        } while (more);
        if (!take(&r, '}')) {
            return wrong(&r, err, &name, &value);
        }
    }
    blanks(&r);
    return r.at == text.len ? n : wrong(&r, err, &name, &value);
}

int mu_envvars_json(mu_bytes text, mu_envvar_fn set, void *arg, struct mu_err *err)
{
    if (!mu_utf8_valid(text)) {
        return mu_err_set(err, MU_E_INVALID, "not UTF-8");
    }
    int r = walk(text, NULL, NULL, err);
    return r < 0 ? r : walk(text, set, arg, err);
}
