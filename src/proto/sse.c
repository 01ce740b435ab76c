#include "proto/sse.h"

static const unsigned char byte_order_mark[] = {0xef, 0xbb, 0xbf};

void mu_sse_init(struct mu_sse *s, size_t max_event_bytes,
                 void (*on_event)(void *arg, mu_bytes event, mu_bytes data, mu_bytes id), void *arg)
{
    *s = (struct mu_sse){.on_event = on_event, .arg = arg};
    mu_buf_init(&s->line, max_event_bytes);
    mu_buf_init(&s->data, max_event_bytes);
    mu_buf_init(&s->event, max_event_bytes);
    mu_buf_init(&s->id, max_event_bytes);
}

void mu_sse_fini(struct mu_sse *s)
{
    mu_buf_fini(&s->line);
    mu_buf_fini(&s->data);
    mu_buf_fini(&s->event);
    mu_buf_fini(&s->id);
}

void mu_sse_stop(struct mu_sse *s)
{
    s->stopped = true;
}

/* A failed buffer stays failed, so the first error is what every later call answers. */
static int failure(const struct mu_sse *s)
{
    return s->line.failed    ? s->line.failed
           : s->data.failed  ? s->data.failed
           : s->event.failed ? s->event.failed
                             : s->id.failed;
}

static void dispatch(struct mu_sse *s)
{
    if (s->has_data) {
        s->on_event(s->arg, mu_buf_bytes(&s->event), mu_buf_bytes(&s->data), mu_buf_bytes(&s->id));
    }
    s->has_data = false;
    mu_buf_clear(&s->data);
    mu_buf_clear(&s->event);
}

static void take_line(struct mu_sse *s, mu_bytes line)
{
    if (line.len == 0) {
        dispatch(s);
        return;
    }
    mu_bytes value = line, name = mu_bytes_split(&value, ':');
    if (value.len && value.ptr[0] == ' ') {
        value = mu_bytes_from(value, 1); /* one blank belongs to the syntax, more to the data */
    }
    if (mu_bytes_is(name, "data")) {
        if (s->has_data) {
            mu_buf_add_char(&s->data, '\n');
        }
        mu_buf_add(&s->data, value);
        s->has_data = true;
    } else if (mu_bytes_is(name, "event")) {
        mu_buf_clear(&s->event);
        mu_buf_add(&s->event, mu_bytes_trim(value));
    } else if (mu_bytes_is(name, "id") && mu_bytes_find_char(value, 0) < 0) {
        mu_buf_clear(&s->id); /* stays for later events, as the browsers' reader does it */
        mu_buf_add(&s->id, value);
    }
}

/* A line that lies whole in the input is not copied. */
static void end_line(struct mu_sse *s, mu_bytes tail)
{
    if (s->line.len == 0) {
        if (tail.len > s->line.max) {
            s->line.failed = MU_E_TOO_LARGE; /* the limit must not depend on how input is cut */
            return;
        }
        take_line(s, tail);
        return;
    }
    mu_buf_add(&s->line, tail);
    if (!s->line.failed) {
        take_line(s, mu_buf_bytes(&s->line));
        mu_buf_clear(&s->line);
    }
}

static size_t find_end(mu_bytes in)
{
    size_t n = 0;
    while (n < in.len && in.ptr[n] != '\n' && in.ptr[n] != '\r') {
        n++;
    }
    return n;
}

/* Skips a byte-order mark that may come in pieces; what only looked like one is put back. */
static void skip_mark(struct mu_sse *s, mu_bytes *in)
{
    while (in->len && (unsigned char)in->ptr[0] == byte_order_mark[s->bom]) {
        *in = mu_bytes_from(*in, 1);
        if (++s->bom == sizeof byte_order_mark) {
            s->started = true;
            return;
        }
    }
    if (in->len) {
        mu_buf_add(&s->line, mu_bytes_of((const char *)byte_order_mark, s->bom));
        s->started = true;
    }
}

int mu_sse_feed(struct mu_sse *s, mu_bytes in)
{
    if (!s->started) {
        skip_mark(s, &in);
    }
    while (in.len && !s->stopped && !failure(s)) {
        if (s->seen_cr && in.ptr[0] == '\n') {
            in = mu_bytes_from(in, 1); /* the second half of \r\n */
            s->seen_cr = false;
            continue;
        }
        s->seen_cr = false;
        size_t n = find_end(in);
        if (n == in.len) {
            mu_buf_add(&s->line, in);
            break;
        }
        s->seen_cr = in.ptr[n] == '\r';
        end_line(s, mu_bytes_head(in, n));
        in = mu_bytes_from(in, n + 1);
    }
    return s->stopped ? 0 : failure(s);
}

int mu_sse_end(struct mu_sse *s)
{
    if (!s->started && s->bom) {
        mu_buf_add(&s->line, mu_bytes_of((const char *)byte_order_mark, s->bom));
        s->started = true;
    }
    if (!s->stopped && !failure(s) && s->line.len) {
        end_line(s, MU_B_NONE);
    }
    if (!s->stopped && !failure(s)) {
        dispatch(s);
    }
    return s->stopped ? 0 : failure(s);
}

void mu_sse_add(struct mu_buf *dst, const char *event, int64_t id, mu_bytes data)
{
    if (id >= 0) {
        mu_buf_add(dst, MU_B("id: "));
        mu_buf_add_i64(dst, id);
        mu_buf_add_char(dst, '\n');
    }
    if (event && event[0]) {
        mu_buf_add(dst, MU_B("event: "));
        mu_buf_add_str(dst, event);
        mu_buf_add_char(dst, '\n');
    }
    bool more = true;
    while (more) {
        size_t n = find_end(data);
        more = n < data.len;
        mu_buf_add(dst, MU_B("data: "));
        mu_buf_add(dst, mu_bytes_head(data, n));
        mu_buf_add_char(dst, '\n');
        if (more) {
            bool pair = data.ptr[n] == '\r' && n + 1 < data.len && data.ptr[n + 1] == '\n';
            data = mu_bytes_from(data, n + (pair ? 2 : 1));
        }
    }
    mu_buf_add_char(dst, '\n');
}
