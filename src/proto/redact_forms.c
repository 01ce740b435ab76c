/* The forms that a value takes on its way: JSON, percent-encoding, base64. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "base/err.h"
#include "proto/json_write.h"
#include "proto/redact_int.h"

enum { FORM_MAX = 16 << 10, LINE64 = 76 };

/* A form that is longer than a piece is several. */
static int put(struct mu_redact *r, unsigned name, const struct mu_buf *form)
{
    int e = form->failed == -ENOMEM ? -ENOMEM : 0;
    for (mu_bytes rest = mu_buf_bytes(form); rest.len && !e;) {
        mu_bytes piece = mu_bytes_head(rest, MU_REDACT_PIECE);
        e = mu_redact_put(r, name, piece);
        rest = mu_bytes_from(rest, piece.len);
    }
    return e;
}

/* --- JSON --- */

static void json_form(mu_bytes value, struct mu_buf *ret)
{
    struct mu_json_w w = mu_json_w(ret);
    mu_buf_clear(ret);
    mu_jw_str(&w, value);
    if (!ret->failed) { /* without its quotes */
        mu_buf_consume(ret, 1);
        ret->len--;
    }
}

static int json_forms(struct mu_redact *r, unsigned name, mu_bytes line)
{
    struct mu_buf one MU_CLEANUP(mu_buf_wipe), two MU_CLEANUP(mu_buf_wipe);
    mu_buf_init(&one, FORM_MAX);
    mu_buf_init(&two, FORM_MAX);
    json_form(line, &one);
    if (!one.failed && mu_bytes_eq(mu_buf_bytes(&one), line)) {
        return 0;
    }
    int e = put(r, name, &one);
    json_form(mu_buf_bytes(&one), &two);
    return e ? e : put(r, name, &two);
}

/* --- percent --- */

struct percent {
    const char *plain; /* besides letters, digits and -_. */
    const char *digits;
    bool plus; /* for a blank */
};

static void percent_form(mu_bytes value, const struct percent *p, struct mu_buf *ret)
{
    mu_buf_clear(ret);
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (word || (c && strchr("-_.", c)) || (c && strchr(p->plain, c))) {
            mu_buf_add_char(ret, (char)c);
        } else if (c == ' ' && p->plus) {
            mu_buf_add_char(ret, '+');
        } else {
            mu_buf_add_char(ret, '%');
            mu_buf_add_char(ret, p->digits[c >> 4]);
            mu_buf_add_char(ret, p->digits[c & 15]);
        }
    }
}

static int percent_forms(struct mu_redact *r, unsigned name, mu_bytes line)
{
    static const char upper[] = "0123456789ABCDEF", lower[] = "0123456789abcdef";
    static const struct percent forms[] = {
        {"~", upper, false},      /* RFC 3986 */
        {"~", lower, false},      /* the same */
        {"~!'()*", upper, false}, /* JavaScript */
        {"~/", upper, false},     /* Python */
        {"", upper, false},       /* older ones */
        {"*", upper, true},       /* forms */
        {"~", upper, true},       /* Python's and Go's forms */
        {"~$&+,/:;=@", upper, false} /* Go: a part of a path */,
        {"~!$&'()*+,;=", upper, false} /* the user's part of an address */,
    };
    struct mu_buf b MU_CLEANUP(mu_buf_wipe);
    int e = 0;
    mu_buf_init(&b, FORM_MAX);
    for (size_t i = 0; i < MU_ARRAY_LEN(forms) && !e; i++) {
        percent_form(line, &forms[i], &b);
        e = put(r, name, &b);
    }
    return e;
}

/* --- base64 --- */

static int put_base64(struct mu_redact *r, unsigned name, struct mu_buf *b)
{
    int e = put(r, name, b);
    bool other = false;
    for (size_t i = 0; i < b->len; i++) {
        char c = b->ptr[i];
        other = other || c == '+' || c == '/';
        b->ptr[i] = c == '+' ? '-' : c == '/' ? '_' : c;
    }
    return e || !other ? e : put(r, name, b);
}

/* What an encoder says of the value when `before` other bytes modulo 3 stand before it: the
 * characters that depend on nothing else. */
static int base64_at(struct mu_redact *r, unsigned name, mu_bytes value, size_t before)
{
    struct mu_buf raw MU_CLEANUP(mu_buf_wipe), b MU_CLEANUP(mu_buf_wipe);
    mu_buf_init(&raw, value.len + 3);
    mu_buf_init(&b, value.len * 2 + 16);
    mu_buf_add(&raw, mu_bytes_of("\0\0", before));
    mu_buf_add(&raw, value);
    mu_base64_add(&b, mu_buf_bytes(&raw));
    if (raw.failed || b.failed) {
        return -ENOMEM;
    }
    b.len = raw.len * 8 / 6;
    mu_buf_consume(&b, before ? before + 1 : 0);
    return put_base64(r, name, &b);
}

/* What `base64` writes: lines. */
static int base64_lines(struct mu_redact *r, unsigned name, mu_bytes value)
{
    struct mu_buf b MU_CLEANUP(mu_buf_wipe);
    int e = 0;
    mu_buf_init(&b, value.len * 2 + 16);
    mu_base64_add(&b, value);
    if (b.failed) {
        return -ENOMEM;
    }
    mu_bytes rest = mu_bytes_head(mu_buf_bytes(&b), value.len * 8 / 6);
    while (rest.len && !e) {
        mu_bytes line = mu_bytes_head(rest, LINE64);
        e = mu_redact_put(r, name, line);
        rest = mu_bytes_from(rest, line.len);
    }
    return e;
}

int mu_redact_base64(struct mu_redact *r, unsigned name, mu_bytes value)
{
    int e = 0;
    for (size_t before = 0; before < 3 && !e; before++) {
        e = base64_at(r, name, value, before);
    }
    bool lines = value.len * 8 / 6 > LINE64;
    return e || !lines ? e : base64_lines(r, name, value);
}

int mu_redact_forms(struct mu_redact *r, unsigned name, mu_bytes line)
{
    int e = json_forms(r, name, line);
    e = e ? e : percent_forms(r, name, line);
    return e ? e : mu_redact_base64(r, name, line);
}
