/* Text and bytes from outside: a pointer and a length, never owned, never NUL-terminated by
 * contract. */
#ifndef MU_BASE_BYTES_H
#define MU_BASE_BYTES_H

#include <string.h>

#include "base/base.h"

typedef struct {
    const char *ptr;
    size_t len;
} mu_bytes;

#define MU_B(literal) ((mu_bytes){"" literal, sizeof(literal) - 1})
#define MU_B_NONE     ((mu_bytes){NULL, 0})
/* For printf: "%.*s", MU_ARGS(b) */
#define MU_ARGS(b) (int)(b).len, ((b).ptr ? (b).ptr : "")

static inline mu_bytes mu_bytes_of(const char *ptr, size_t len)
{
    return (mu_bytes){ptr, len};
}
/* Of a C string; NULL gives the empty bytes. */
static inline mu_bytes mu_str(const char *s)
{
    return (mu_bytes){s, s ? strlen(s) : 0};
}
static inline bool mu_bytes_eq(mu_bytes a, mu_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
static inline bool mu_bytes_is(mu_bytes a, const char *s)
{
    return mu_bytes_eq(a, mu_str(s));
}
/* ASCII case is ignored. */
bool mu_bytes_eq_nocase(mu_bytes a, mu_bytes b);
/* memcmp order, shorter first on a tie. */
int mu_bytes_cmp(mu_bytes a, mu_bytes b);
bool mu_bytes_starts(mu_bytes a, mu_bytes prefix);
bool mu_bytes_ends(mu_bytes a, mu_bytes suffix);
/* Position of `needle`, or -1. */
ptrdiff_t mu_bytes_find(mu_bytes hay, mu_bytes needle);
ptrdiff_t mu_bytes_find_nocase(mu_bytes hay, mu_bytes needle);
ptrdiff_t mu_bytes_find_char(mu_bytes hay, char c);
/* Without leading and trailing ASCII white space (space, \t \r \n \v \f). */
mu_bytes mu_bytes_trim(mu_bytes b);
/* From `from` (clamped) to the end. */
mu_bytes mu_bytes_from(mu_bytes b, size_t from);
/* The first `len` bytes (clamped). */
mu_bytes mu_bytes_head(mu_bytes b, size_t len);
/* Splits at the first `sep`: returns the part before it and leaves the rest in `*rest` (empty and
 * ptr NULL when there was no separator). Loop while (rest.ptr). */
mu_bytes mu_bytes_split(mu_bytes *rest, char sep);
/* A relative path without empty, "." or ".." parts: it leads nowhere else. */
bool mu_bytes_is_path(mu_bytes path);
/* Whole text as a decimal integer with an optional minus sign. MU_E_INVALID when it is not one or
 * does not fit. */
MU_MUST_USE int mu_bytes_i64(mu_bytes b, int64_t *ret);
/* A NUL-terminated heap copy, freed with mu_free; NULL when out of memory. */
char *mu_bytes_dup(mu_bytes b);
/* The same time for any content of equal length. */
bool mu_bytes_eq_secret(mu_bytes a, mu_bytes b);

#endif
