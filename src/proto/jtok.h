/* JSON as tokens over one text, on jsmn: for the static program, which has no JSON library. The
 * text must outlive the tokens. Pure; one thread at a time.
 *
 * Values are named by numbers: 0 is the root, -1 is "not there"; every look-up takes -1 and gives
 * -1, empty or the fallback for it and for a value of another kind. */
#ifndef MU_PROTO_JTOK_H
#define MU_PROTO_JTOK_H

#include "base/buf.h"

enum { MU_JTOK_MAX = 65536, MU_JTOK_DEPTH = 128, MU_JTOK_TEXT_MAX = 64 << 20 };

enum mu_jtok_kind {
    MU_JTOK_NONE,
    MU_JTOK_OBJECT,
    MU_JTOK_ARRAY,
    MU_JTOK_STRING,
    MU_JTOK_NUMBER,
    MU_JTOK_BOOL,
    MU_JTOK_NULL,
};

struct mu_jtok {
    mu_bytes text;
    void *tokens; /* kept for the next text */
    size_t n, cap;
};
void mu_jtok_init(struct mu_jtok *t); /* takes no memory yet */
void mu_jtok_fini(struct mu_jtok *t);

/* One object or array, strictly RFC 8259, in well-formed UTF-8, white space around it allowed.
 * MU_E_INVALID: it is none; MU_E_TOO_LARGE: more tokens, nested deeper or longer than the bounds
 * above; -ENOMEM. Nothing can be looked up after a failure. */
MU_MUST_USE int mu_jtok_parse(struct mu_jtok *t, mu_bytes text);

enum mu_jtok_kind mu_jtok_kind(const struct mu_jtok *t, int v);
/* The member's value; of several with the same key the last one, as agents themselves read it. */
int mu_jtok_get(const struct mu_jtok *t, int obj, const char *key);
/* Items of an array: the first, and the one after `item` in `arr`. Of an object: its keys, and the
 * value of a key is key + 1. */
int mu_jtok_first(const struct mu_jtok *t, int container);
int mu_jtok_next(const struct mu_jtok *t, int container, int item);

/* The value as it stands in the text; a string with its quotes. */
mu_bytes mu_jtok_raw(const struct mu_jtok *t, int v);
/* A string, decoded. True when it is equal. */
bool mu_jtok_is(const struct mu_jtok *t, int v, mu_bytes text);
/* Appends a string, decoded. MU_E_NOT_FOUND: it is no string (nothing is appended); what the buffer
 * fails with. */
MU_MUST_USE int mu_jtok_add(const struct mu_jtok *t, int v, struct mu_buf *dst);
/* A string, decoded, with a NUL behind it: false when it is none, or has more than cap - 1 bytes or
 * a NUL inside (dst is "" then). */
bool mu_jtok_copy(const struct mu_jtok *t, int v, char *dst, size_t cap);
/* A whole number without fraction or exponent. */
int64_t mu_jtok_i64(const struct mu_jtok *t, int v, int64_t fallback);
bool mu_jtok_bool(const struct mu_jtok *t, int v, bool fallback);

#endif
