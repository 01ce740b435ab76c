/* URLs, paths and query strings. */
#ifndef MU_PROTO_URL_H
#define MU_PROTO_URL_H

#include "base/arena.h"
#include "base/err.h"

struct mu_buf;

/* Percent-decodes ("+" stays "+" unless `form`) into the arena, NUL-terminated. MU_E_INVALID on a
 * malformed escape or a decoded NUL, -ENOMEM. What comes out need not be valid UTF-8. */
MU_MUST_USE int mu_url_decode(struct mu_arena *a, mu_bytes text, bool form, mu_bytes *ret);
/* Appends with everything outside the unreserved characters escaped. */
void mu_url_encode(struct mu_buf *dst, mu_bytes text);

/* The path of a request target, normalised once (stack.md 2): refuses bytes outside printable ASCII
 * before decoding, control bytes and invalid UTF-8 after it, an encoded "/" or "\"; removes "."
 * segments and refuses ".."; joins no slashes (an empty segment in the middle stays). Leaves the
 * path percent-decoded. MU_E_INVALID, -ENOMEM. */
MU_MUST_USE int mu_url_path(struct mu_arena *a, mu_bytes raw_path, mu_bytes *ret);

/* Walks "a=1&b=2": 1 with the next pair, decoded as a form; 0 at the end. MU_E_INVALID for a pair
 * that does not decode (behind which the walk may go on), -ENOMEM. */
MU_MUST_USE int mu_url_query_next(struct mu_arena *a, mu_bytes *rest, mu_bytes *ret_key,
                                  mu_bytes *ret_value);

struct mu_url {
    mu_bytes scheme, host, path,
        query;     /* pointers into the text; host without brackets, path at least "/" */
    unsigned port; /* the scheme's default when there is none */
    bool has_userinfo;
};
/* Absolute http and https URLs. MU_E_INVALID with words. */
MU_MUST_USE int mu_url_parse(mu_bytes text, struct mu_url *ret, struct mu_err *err);

#endif
