/* The writer: the hot path of list answers. Each call asks the buffer for room once in the common
 * case and writes behind it. */
#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/encode.h"
#include "proto/json_write.h"

static void punct(struct mu_json_w *w, char c)
{
    char *p = mu_buf_room(w->buf, w->comma ? 2 : 1);
    if (p) {
        size_t n = 0;
        if (w->comma) {
            p[n++] = ',';
        }
        p[n++] = c;
        w->buf->len += n;
    }
    w->comma = false;
}

static void punct_end(struct mu_json_w *w, char c)
{
    mu_buf_add_char(w->buf, c);
    w->comma = true;
}

void mu_jw_obj(struct mu_json_w *w)
{
    punct(w, '{');
}

void mu_jw_obj_end(struct mu_json_w *w)
{
    punct_end(w, '}');
}

void mu_jw_arr(struct mu_json_w *w)
{
    punct(w, '[');
}

void mu_jw_arr_end(struct mu_json_w *w)
{
    punct_end(w, ']');
}

void mu_jw_key(struct mu_json_w *w, const char *key)
{
    size_t len = strlen(key);
    char *p = mu_buf_room(w->buf, len + 3 + w->comma);
    if (p) {
        if (w->comma) {
            *p++ = ',';
        }
        *p++ = '"';
        memcpy(p, key, len);
        p += len;
        *p++ = '"';
        *p++ = ':';
        w->buf->len = (size_t)(p - w->buf->ptr);
    }
    w->comma = false;
}

void mu_jw_raw(struct mu_json_w *w, mu_bytes json)
{
    char *p = mu_buf_room(w->buf, json.len + w->comma);
    if (p) {
        if (w->comma) {
            *p++ = ',';
        }
        if (json.len) {
            memcpy(p, json.ptr, json.len);
        }
        w->buf->len += json.len + w->comma;
    }
    w->comma = true;
}

/* Whether one of the eight bytes must not be copied as it is: below 0x20, '"', '\\', above 0x7f. */
static bool special(uint64_t v)
{
    const uint64_t ones = 0x0101010101010101, high = 0x8080808080808080;
    uint64_t quote = v ^ (ones * '"'), back = v ^ (ones * '\\');
    return ((v | (v - ones * 0x20) | (quote - ones) | (back - ones)) & high) != 0;
}

/* The text that stands for one byte that needs escaping. */
static size_t escape(unsigned char c, char dst[6])
{
    static const char hex[] = "0123456789abcdef";
    static const char shorts[] = "\bb\tt\nn\ff\rr\"\"\\\\";
    for (size_t i = 0; shorts[i]; i += 2) {
        if ((unsigned char)shorts[i] == c) {
            dst[0] = '\\';
            dst[1] = shorts[i + 1];
            return 2;
        }
    }
    memcpy(dst, "\\u00", 4);
    dst[4] = hex[c >> 4];
    dst[5] = hex[c & 15];
    return 6;
}

void mu_jw_str(struct mu_json_w *w, mu_bytes s)
{
    /* The output is never shorter than the input, so this much is needed in any case; what an
     * escape takes beyond it is asked for when it comes. */
    char *o = mu_buf_room(w->buf, s.len + 2 + w->comma);
    if (!o) {
        return;
    }
    if (w->comma) {
        *o++ = ',';
    }
    w->comma = true;
    *o++ = '"';
    size_t i = 0;
    while (i < s.len) {
        uint64_t v;
        if (i + 8 <= s.len && (memcpy(&v, s.ptr + i, 8), !special(v))) {
            memcpy(o, &v, 8);
            o += 8;
            i += 8;
            continue;
        }
        unsigned char c = (unsigned char)s.ptr[i];
        if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
            *o++ = (char)c;
            i++;
            continue;
        }
        size_t used = 1, n = 0;
        char tmp[6];
        if (c < 0x80) {
            n = escape(c, tmp);
        } else {
            n = mu_utf8_len(mu_bytes_from(s, i), &used);
            used = n ? n : used;
            memcpy(tmp, n ? s.ptr + i : "\xef\xbf\xbd", n ? n : 3);
            n = n ? n : 3;
        }
        w->buf->len = (size_t)(o - w->buf->ptr);
        i += used;
        o = mu_buf_room(w->buf, n + (s.len - i) + 1);
        if (!o) {
            return;
        }
        memcpy(o, tmp, n);
        o += n;
    }
    *o++ = '"';
    w->buf->len = (size_t)(o - w->buf->ptr);
}

void mu_jw_i64(struct mu_json_w *w, int64_t v)
{
    if (w->comma) {
        mu_buf_add_char(w->buf, ',');
    }
    mu_buf_add_i64(w->buf, v);
    w->comma = true;
}

void mu_jw_real(struct mu_json_w *w, double v)
{
    if (!isfinite(v)) {
        mu_jw_null(w);
        return;
    }
    if (v == 0 && signbit(v)) {
        mu_jw_raw(w, MU_B("-0.0")); /* "-0" would be read back as an integer without its sign */
        return;
    }
    char text[40];
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, v);
        double back = strtod(text, NULL);
        if (memcmp(&back, &v, sizeof v) == 0) {
            break;
        }
    }
    mu_jw_raw(w, mu_bytes_of(text, (size_t)n));
}

void mu_jw_bool(struct mu_json_w *w, bool v)
{
    mu_jw_raw(w, v ? MU_B("true") : MU_B("false"));
}

void mu_jw_null(struct mu_json_w *w)
{
    mu_jw_raw(w, MU_B("null"));
}

void mu_jw_time(struct mu_json_w *w, int64_t ms)
{
    char text[MU_TIME_LEN + 3];
    mu_time_format(ms, text + 1);
    text[0] = text[MU_TIME_LEN + 1] = '"';
    mu_jw_raw(w, mu_bytes_of(text, MU_TIME_LEN + 2));
}

void mu_jw_kstr(struct mu_json_w *w, const char *key, mu_bytes s)
{
    mu_jw_key(w, key);
    mu_jw_str(w, s);
}

void mu_jw_kstr_opt(struct mu_json_w *w, const char *key, mu_bytes s)
{
    mu_jw_key(w, key);
    if (s.ptr) {
        mu_jw_str(w, s);
    } else {
        mu_jw_null(w);
    }
}

void mu_jw_kcstr(struct mu_json_w *w, const char *key, const char *s)
{
    mu_jw_kstr(w, key, mu_str(s));
}

void mu_jw_ki64(struct mu_json_w *w, const char *key, int64_t v)
{
    mu_jw_key(w, key);
    mu_jw_i64(w, v);
}

void mu_jw_kbool(struct mu_json_w *w, const char *key, bool v)
{
    mu_jw_key(w, key);
    mu_jw_bool(w, v);
}

void mu_jw_knull(struct mu_json_w *w, const char *key)
{
    mu_jw_key(w, key);
    mu_jw_null(w);
}

void mu_jw_kraw(struct mu_json_w *w, const char *key, mu_bytes json)
{
    mu_jw_key(w, key);
    mu_jw_raw(w, json);
}

void mu_jw_ktime(struct mu_json_w *w, const char *key, int64_t ms)
{
    mu_jw_key(w, key);
    mu_jw_time(w, ms);
}

void mu_jw_ktime_opt(struct mu_json_w *w, const char *key, int64_t ms)
{
    mu_jw_key(w, key);
    if (ms) {
        mu_jw_time(w, ms);
    } else {
        mu_jw_null(w);
    }
}
