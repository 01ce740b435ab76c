#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/encode.h"

const char *mu_err_text(int code)
{
    switch (code) {
#define MU_ERR(name, number, text)                                                                 \
    case -(number):                                                                                \
        return text;
#include "base/err.def"
#undef MU_ERR
    default:
        return code < 0 && code > -4096 ? strerror(-code) : "unknown error";
    }
}

/* Text that was cut by its buffer must not end in half a character: it goes into JSON answers. */
static void mend_end(char *text)
{
    size_t len = strlen(text), n = len;
    while (n > 0 && len - n < 4) {
        n--;
        if (((unsigned char)text[n] & 0xc0) != 0x80) {
            break;
        }
    }
    if (!mu_utf8_valid(mu_bytes_of(text + n, len - n))) {
        text[n] = 0;
    }
}

int mu_err_set(struct mu_err *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        if (n >= (int)sizeof err->text) {
            mend_end(err->text);
        }
        err->code = code;
    }
    return code;
}

int mu_err_context(struct mu_err *err, const char *fmt, ...)
{
    char old[sizeof err->text];
    snprintf(old, sizeof old, "%s", err->text);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->text) {
        n += snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    }
    if (n >= (int)sizeof err->text) {
        mend_end(err->text);
    }
    return err->code;
}
