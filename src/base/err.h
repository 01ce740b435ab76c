/* Error codes (c-style.md 1.4): functions return 0 or a count for success and a negative code for
 * failure. */
#ifndef MU_BASE_ERR_H
#define MU_BASE_ERR_H

#include "base/base.h"

enum {
#define MU_ERR(name, number, text) MU_E_##name = -(number),
#include "base/err.def"
#undef MU_ERR
};

/* Words for people, where a code is not enough (configuration, outbound HTTP, children). Lives on
 * the stack of the caller. */
struct mu_err {
    int code;
    char text[480];
};

/* The stable text of a code (ours or errno's); never NULL. Any thread. */
const char *mu_err_text(int code) __attribute__((returns_nonnull));

/* Fills `err` (may be NULL) and returns `code`. No allocation. */
int mu_err_set(struct mu_err *err, int code, const char *fmt, ...) MU_PRINTF(3, 4);

/* Puts "context: " in front of the text that is there. Returns err->code. */
int mu_err_context(struct mu_err *err, const char *fmt, ...) MU_PRINTF(2, 3);

#endif
