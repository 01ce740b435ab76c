#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/encode.h"

enum { LINE_MAX_BYTES = 16 * 1024, MAX_FIELDS = 32 };

/* The one global of the program (architecture.md 3). */
static struct {
    _Atomic(const struct mu_env *) env;
    atomic_int level, fd;
    atomic_bool text;
    pthread_mutex_t lock; /* lines longer than a pipe's atomic write must not mix */
    bool torn;            /* under the lock: the last line lost its end */
} state = {&mu_env_real, MU_LOG_INFO, 1, false, PTHREAD_MUTEX_INITIALIZER, false};

void mu_log_setup(const struct mu_env *env, enum mu_log_level level, bool text)
{
    atomic_store(&state.env, env);
    atomic_store(&state.level, (int)level);
    atomic_store(&state.text, text);
}

void mu_log_fd(int fd)
{
    atomic_store(&state.fd, fd);
}

bool mu_log_on(enum mu_log_level level)
{
    return (int)level >= atomic_load_explicit(&state.level, memory_order_relaxed);
}

/* A line on the stack: logging must work when memory does not. `len` never passes the array. */
struct line {
    size_t len;
    char text[LINE_MAX_BYTES];
};

static void put(struct line *l, mu_bytes b)
{
    size_t n = MU_MIN(b.len, sizeof l->text - l->len);
    if (n) {
        memcpy(l->text + l->len, b.ptr, n);
        l->len += n;
    }
}

/* The next character of `in` as it stands inside a JSON string; `in` moves on. */
static mu_bytes escape_next(mu_bytes *in, char tmp[8])
{
    static const char hex[] = "0123456789abcdef";
    unsigned char c = (unsigned char)in->ptr[0];
    size_t used = 1, len = 0;
    if (c == '"' || c == '\\') {
        tmp[len++] = '\\';
        tmp[len++] = (char)c;
    } else if (c == '\n' || c == '\t' || c == '\r') {
        tmp[len++] = '\\';
        tmp[len++] = c == '\n' ? 'n' : c == '\t' ? 't' : 'r';
    } else if (c < 0x20 || c == 0x7f) {
        memcpy(tmp, "\\u00", 4);
        tmp[4] = hex[c >> 4];
        tmp[5] = hex[c & 15];
        len = 6;
    } else if (c < 0x80) {
        tmp[len++] = (char)c;
    } else {
        size_t bad, whole = mu_utf8_len(*in, &bad);
        used = whole ? whole : bad;
        len = whole ? whole : 3;
        memcpy(tmp, whole ? in->ptr : "\xef\xbf\xbd", len);
    }
    *in = mu_bytes_from(*in, used);
    return mu_bytes_of(tmp, len);
}

/* Whether the bytes stand inside a JSON string as they are; nearly all values do. */
static bool is_plain(mu_bytes b)
{
    bool plain = true;
    for (size_t i = 0; i < b.len; i++) {
        unsigned char c = (unsigned char)b.ptr[i];
        plain = plain && c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
    }
    return plain;
}

static size_t escaped_len(mu_bytes b)
{
    char tmp[8];
    size_t n = 0;
    while (b.len && n < LINE_MAX_BYTES) {
        n += escape_next(&b, tmp).len;
    }
    return n;
}

/* The value in quotes, cut so that at most `max` bytes stand between them. */
static void put_string(struct line *l, mu_bytes b, size_t max)
{
    char tmp[8];
    put(l, MU_B("\""));
    if (b.len <= max && is_plain(b)) {
        put(l, b);
        put(l, MU_B("\""));
        return;
    }
    bool cut = escaped_len(b) > max;
    size_t room = cut && max > 3 ? max - 3 : max, n = 0;
    while (b.len) {
        mu_bytes piece = escape_next(&b, tmp);
        if (n + piece.len > room) {
            break;
        }
        put(l, piece);
        n += piece.len;
    }
    put(l, cut && max > 3 ? MU_B("\xe2\x80\xa6\"") : MU_B("\""));
}

static void put_json(struct line *l, mu_bytes b)
{
    size_t from = l->len;
    put(l, b.len ? b : MU_B("null"));
    for (size_t i = from; i < l->len; i++) { /* only white space between tokens can be a newline */
        if (l->text[i] == '\n' || l->text[i] == '\r') {
            l->text[i] = ' ';
        }
    }
}

static void put_value(struct line *l, const struct mu_kv *kv, size_t max)
{
    char digits[24];
    struct mu_buf b = {.ptr = digits, .cap = sizeof digits, .max = sizeof digits};
    switch (kv->kind) {
    case MU_KV_BYTES:
        put_string(l, kv->b, max);
        break;
    case MU_KV_I64:
        mu_buf_add_i64(&b, kv->i);
        put(l, mu_buf_bytes(&b));
        break;
    case MU_KV_BOOL:
        put(l, kv->i ? MU_B("true") : MU_B("false"));
        break;
    case MU_KV_JSON:
        if (kv->b.len <= max) {
            put_json(l, kv->b);
        } else {
            put_string(l, kv->b, max); /* half an object would break the line: shown as text */
        }
        break;
    }
}

/* No byte becomes more than six: short lines, which nearly all are, need no exact count. */
static bool fits_whole(mu_bytes msg, const struct mu_kv *kv, size_t n)
{
    size_t most = 128 + 6 * msg.len;
    for (size_t i = 0; i < n && most <= LINE_MAX_BYTES; i++) {
        bool text = kv[i].kind == MU_KV_BYTES || kv[i].kind == MU_KV_JSON;
        most += strlen(kv[i].key) + 32 + (text ? 6 * kv[i].b.len : 0);
    }
    return most <= LINE_MAX_BYTES;
}

/* The largest cut that lets every value stay within the line together: short values are never cut
 * because of a long one. */
static size_t fair_cut(mu_bytes msg, const struct mu_kv *kv, size_t n)
{
    size_t lens[MAX_FIELDS + 1], fixed = 128;
    if (fits_whole(msg, kv, n)) {
        return LINE_MAX_BYTES;
    }
    lens[n] = escaped_len(msg);
    for (size_t i = 0; i < n; i++) {
        bool text = kv[i].kind == MU_KV_BYTES || kv[i].kind == MU_KV_JSON;
        lens[i] = text ? escaped_len(kv[i].b) : 0;
        fixed += strlen(kv[i].key) + 32;
    }
    size_t low = 0, high = LINE_MAX_BYTES;
    while (low < high) {
        size_t mid = (low + high + 1) / 2, sum = fixed;
        for (size_t i = 0; i <= n; i++) {
            sum += MU_MIN(lens[i], mid);
        }
        if (sum <= LINE_MAX_BYTES) {
            low = mid;
        } else {
            high = mid - 1;
        }
    }
    return low;
}

static void format_json(struct line *l, const char *time, enum mu_log_level level, mu_bytes msg,
                        const struct mu_kv *kv, size_t n, size_t cut)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    put(l, MU_B("{\"ts\":\""));
    put(l, mu_str(time));
    put(l, MU_B("\",\"level\":\""));
    put(l, mu_str(names[level]));
    put(l, MU_B("\",\"msg\":"));
    put_string(l, msg, cut);
    put(l, MU_B(",\"service\":\"muster\""));
    for (size_t i = 0; i < n; i++) {
        put(l, MU_B(",\""));
        put(l, mu_str(kv[i].key));
        put(l, MU_B("\":"));
        put_value(l, &kv[i], cut);
    }
    put(l, MU_B("}\n"));
}

static void format_text(struct line *l, const char *time, enum mu_log_level level, mu_bytes msg,
                        const struct mu_kv *kv, size_t n, size_t cut)
{
    static const char *const names[] = {" DEBUG ", " INFO  ", " WARN  ", " ERROR "};
    put(l, mu_str(time));
    put(l, mu_str(names[level]));
    size_t at = l->len;
    put_string(l, msg, cut); /* escaped, but without its quotes */
    memmove(l->text + at, l->text + at + 1, l->len - at - 2);
    l->len -= 2;
    for (size_t i = 0; i < n; i++) {
        put(l, MU_B(" "));
        put(l, mu_str(kv[i].key));
        put(l, MU_B("="));
        put_value(l, &kv[i], cut);
    }
    put(l, MU_B("\n"));
}

/* A reader of our stdout that stalls may hold a line up briefly, never for good. Returns how much
 * of it was written. */
static size_t write_all(int fd, const char *p, size_t size)
{
    int patience = 2;
    size_t len = size;
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN && patience-- > 0) {
            struct pollfd pfd = {.fd = fd, .events = POLLOUT};
            (void)poll(&pfd, 1, 20);
        } else if (n == 0 || errno != EINTR) {
            break;
        }
    }
    return size - len;
}

/* With the lock. Half a line must not swallow the next one: that begins a line of its own. */
static void write_line(int fd, const char *p, size_t len)
{
    if (state.torn && write_all(fd, "\n", 1) == 0) {
        return;
    }
    size_t done = write_all(fd, p, len);
    state.torn = done > 0 && done < len;
}

void mu_log_write(enum mu_log_level level, const char *msg, const struct mu_kv *kv, size_t n)
{
    MU_CHECK(n <= MAX_FIELDS && level >= MU_LOG_DEBUG && level <= MU_LOG_ERROR);
    struct line l;
    l.len = 0;
    char time[MU_TIME_LEN + 1];
    mu_time_format(mu_env_wall_ms(atomic_load(&state.env)), time);
    mu_bytes m = mu_str(msg);
    size_t cut = fair_cut(m, kv, n);
    if (atomic_load(&state.text)) {
        format_text(&l, time, level, m, kv, n, cut);
    } else {
        format_json(&l, time, level, m, kv, n, cut);
    }
    int saved = errno;
    pthread_mutex_lock(&state.lock);
    write_line(atomic_load(&state.fd), l.text, l.len);
    pthread_mutex_unlock(&state.lock);
    errno = saved;
}
