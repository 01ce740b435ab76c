/* JSON: reading on yyjson into an arena, writing forwards into a buffer (stack.md 4). */
#ifndef MU_PROTO_JSON_H
#define MU_PROTO_JSON_H

#include <yyjson.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

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

/* The writer. Commas are its business; keys are literals that need no escaping. */
struct mu_json_w {
    struct mu_buf *buf;
    bool comma; /* the next item needs one in front */
};
static inline struct mu_json_w mu_json_w(struct mu_buf *buf)
{
    return (struct mu_json_w){buf, false};
}
void mu_jw_obj(struct mu_json_w *w);     /* { */
void mu_jw_obj_end(struct mu_json_w *w); /* } */
void mu_jw_arr(struct mu_json_w *w);
void mu_jw_arr_end(struct mu_json_w *w);
void mu_jw_key(struct mu_json_w *w, const char *key);
void mu_jw_str(struct mu_json_w *w,
               mu_bytes s); /* invalid UTF-8 becomes U+FFFD; control characters are escaped */
void mu_jw_i64(struct mu_json_w *w, int64_t v);
void mu_jw_real(struct mu_json_w *w,
                double v); /* shortest form that reads back; not finite: null */
void mu_jw_bool(struct mu_json_w *w, bool v);
void mu_jw_null(struct mu_json_w *w);
void mu_jw_raw(struct mu_json_w *w, mu_bytes json); /* JSON text as it is */
void mu_jw_time(struct mu_json_w *w, int64_t ms);   /* RFC 3339 string (base/clock.h) */
/* Key and value in one call. The _opt ones write null for NULL/none (ms 0, ptr NULL). */
void mu_jw_kstr(struct mu_json_w *w, const char *key, mu_bytes s);
void mu_jw_kstr_opt(struct mu_json_w *w, const char *key, mu_bytes s);
void mu_jw_kcstr(struct mu_json_w *w, const char *key, const char *s);
void mu_jw_ki64(struct mu_json_w *w, const char *key, int64_t v);
void mu_jw_kbool(struct mu_json_w *w, const char *key, bool v);
void mu_jw_knull(struct mu_json_w *w, const char *key);
void mu_jw_kraw(struct mu_json_w *w, const char *key, mu_bytes json);
void mu_jw_ktime(struct mu_json_w *w, const char *key, int64_t ms);
void mu_jw_ktime_opt(struct mu_json_w *w, const char *key, int64_t ms);

#endif
