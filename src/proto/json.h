/* JSON: reading on yyjson into an arena (stack.md 4); writing is proto/json_write.h. */
#ifndef MU_PROTO_JSON_H
#define MU_PROTO_JSON_H

#include <yyjson.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "proto/json_write.h"

struct mu_json_limits {
    size_t max_bytes; /* of the text */
    unsigned max_depth;
};

/* Strict RFC 8259, UTF-8 checked, one document, white space around it allowed. Memory comes from
 * the arena. The depth is checked before parsing; duplicate keys are refused. Numbers: integers
 * outside int64/uint64 become doubles; a number that overflows a double is refused. Errors:
 * MU_E_INVALID (with words and the byte position), MU_E_TOO_LARGE, -ENOMEM. */
MU_MUST_USE int mu_json_read(struct mu_arena *a, mu_bytes text, const struct mu_json_limits *limits,
                             yyjson_val **ret, struct mu_err *err);

/* Look-ups that accept NULL and wrong types: NULL, empty or the fallback then. */
yyjson_val *mu_json_get(yyjson_val *obj, const char *key);
mu_bytes mu_json_bytes(yyjson_val *v); /* of a string */
mu_bytes mu_json_get_bytes(yyjson_val *obj, const char *key);
int64_t mu_json_get_i64(yyjson_val *obj, const char *key, int64_t fallback);
bool mu_json_get_bool(yyjson_val *obj, const char *key, bool fallback);
/* Appends the value as compact JSON text, member order kept. */
void mu_json_add(struct mu_buf *dst, yyjson_val *v);

#endif
