/* Writing JSON forwards into a buffer (stack.md 4). Apart from the reader, so that a program
 * without a JSON library can write it too. */
#ifndef MU_PROTO_JSON_WRITE_H
#define MU_PROTO_JSON_WRITE_H

#include "base/buf.h"

/* Commas are its business; keys are literals that need no escaping. */
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
