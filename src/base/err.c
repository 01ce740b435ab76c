#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

int mu_err_set(struct mu_err *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
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
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    }
    return err->code;
}
