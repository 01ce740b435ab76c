/* Hexadecimal, base64 and UTF-8. Any thread. What is appended to a buffer may fail as its appends
 * do (base/buf.h). */
#ifndef MU_BASE_ENCODE_H
#define MU_BASE_ENCODE_H

#include "base/buf.h"

/* 2*len lower-case characters and a NUL. */
void mu_hex(const void *src, size_t len, char *dst);
/* The value of a hexadecimal digit in either case, or -1. */
int mu_hex_value(char c);
/* Exactly `len` lower-case hexadecimal digits. */
bool mu_hex_is(mu_bytes b, size_t len);
/* Standard alphabet with padding, appended. */
void mu_base64_add(struct mu_buf *dst, mu_bytes src);
/* Strict: standard alphabet, right padding, nothing else. Appends; MU_E_INVALID (then a part may
 * have been appended), -ENOMEM, MU_E_TOO_LARGE. */
MU_MUST_USE int mu_base64_decode(mu_bytes src, struct mu_buf *dst);

/* Well-formed UTF-8 (no overlongs, no surrogates, at most U+10FFFF). */
bool mu_utf8_valid(mu_bytes b);
/* Length of the well-formed character at the start of `b`, which is not empty; 0 when there is
 * none: then *ret_bad bytes (the maximal invalid part) stand for one U+FFFD. */
size_t mu_utf8_len(mu_bytes b, size_t *ret_bad);
/* Number of characters of valid UTF-8. */
size_t mu_utf8_count(mu_bytes b);
/* The longest prefix of at most `max` bytes that does not cut a character in two. */
mu_bytes mu_utf8_cut(mu_bytes b, size_t max);
/* Appends b with each maximal invalid sequence replaced by U+FFFD. */
void mu_utf8_add_lossy(struct mu_buf *dst, mu_bytes b);

#endif
