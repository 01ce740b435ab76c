/* Terminals of running sessions: bytes come with the runner's offsets, get the session's, are shown
 * to who watches, kept in a ring for who comes, and recorded. The runner is told what was taken: it
 * sends only so much ahead (docs/runner-protocol.md). */
#include <errno.h>
#include <stdio.h>

#include "app/live/live_int.h"
#include "app/live/recorder_int.h"

enum { RING_FIRST = 64 << 10, WINDOW = 512 << 10 };

/* One terminal of an attempt. Offsets here are the session's: base + the runner's. */
struct mu_terminal {
    int64_t base;       /* -1: not known yet */
    int64_t begin, end; /* what the ring holds */
    int64_t acked;
    char *ring;
    size_t size;
};

static struct mu_terminal *get(struct mu_live_session *s, unsigned n)
{
    if (n >= MU_TERMINALS) {
        return NULL;
    }
    if (!s->terminals[n]) {
        s->terminals[n] = mu_calloc(1, sizeof *s->terminals[n]);
        if (s->terminals[n]) {
            s->terminals[n]->base = -1;
        }
    }
    return s->terminals[n];
}

void mu_live_terminals_free(struct mu_live_session *s)
{
    for (size_t i = 0; i < MU_TERMINALS; i++) {
        if (s->terminals[i]) {
            mu_free(s->terminals[i]->ring);
            mu_free(s->terminals[i]);
            s->terminals[i] = NULL;
        }
    }
}

/* --- what was there before --- */

void mu_live_terminals_known(struct mu_live_session *s, const struct mu_recorded *known)
{
    for (unsigned i = 0; i < MU_TERMINALS; i++) {
        struct mu_terminal *t = s->terminals[i];
        if (!t && known[i].newest == 0) {
            continue;
        }
        t = get(s, i);
        if (t) {
            t->base = known[i].base >= 0 ? known[i].base : known[i].newest;
            t->begin = t->end = t->acked = known[i].newest;
        }
    }
}

void mu_live_terminals_hello(struct mu_live_session *s, yyjson_val *terminals)
{
    size_t i, n;
    yyjson_val *item;
    yyjson_arr_foreach(terminals, i, n, item)
    {
        int64_t number = mu_json_get_i64(item, "terminal", -1);
        if (number >= 0 && number < MU_TERMINALS) {
            (void)!get(s, (unsigned)number);
        }
    }
}

void mu_live_terminals_init(struct mu_live_session *s, struct mu_json_w *w)
{
    for (unsigned i = 0; i < MU_TERMINALS; i++) {
        const struct mu_terminal *t = s->terminals[i];
        if (t && t->base >= 0) {
            mu_jw_obj(w);
            mu_jw_ki64(w, "terminal", i);
            mu_jw_ki64(w, "offset", MU_MAX(t->end - t->base, 0));
            mu_jw_obj_end(w);
        }
    }
}

/* --- bytes --- */

static bool grow(struct mu_terminal *t, size_t need)
{
    size_t size = t->size ? t->size : RING_FIRST;
    size_t have = (size_t)(t->end - t->begin);
    while (size < MU_TERMINAL_RING && size < have + need) {
        size *= 2;
    }
    if (size == t->size) {
        return true;
    }
    char *ring = mu_alloc(size);
    if (!ring) {
        return t->ring != NULL;
    }
    for (int64_t at = t->begin; at < t->end; at++) {
        ring[(size_t)at % size] = t->ring[(size_t)at % t->size];
    }
    mu_free(t->ring);
    t->ring = ring;
    t->size = size;
    return true;
}

static void keep(struct mu_terminal *t, int64_t offset, mu_bytes bytes)
{
    if (offset != t->end) { /* a gap: the ring begins anew behind it */
        t->begin = t->end = offset;
    }
    if (grow(t, bytes.len)) {
        mu_bytes last = bytes.len > t->size ? mu_bytes_from(bytes, bytes.len - t->size) : bytes;
        size_t at = (size_t)(offset + (int64_t)(bytes.len - last.len)) % t->size;
        size_t first = MU_MIN(last.len, t->size - at);
        memcpy(t->ring + at, last.ptr, first);
        memcpy(t->ring, last.ptr + first, last.len - first);
    }
    t->end = offset + (int64_t)bytes.len;
    t->begin = MU_MAX(t->begin, t->end - (int64_t)t->size);
}

static void show(struct mu_live_session *s, unsigned number, int64_t offset, mu_bytes bytes)
{
    struct mu_feed *feed = s->l->opts.feed;
    if (!mu_feed_watched(feed, mu_id_bytes(&s->id))) {
        return;
    }
    struct mu_event *e = mu_event_new(MU_EV_TERMINAL, 0, mu_live_now(s->l), offset, number, bytes);
    if (e) {
        mu_feed_publish(feed, mu_id_bytes(&s->id), e);
        mu_event_unref(e);
    }
}

static void acknowledge(struct mu_live_session *s, unsigned number, struct mu_terminal *t)
{
    struct mu_buf b;
    mu_buf_init(&b, 256);
    struct mu_json_w w = mu_live_begin(&b, "terminal-ack");
    mu_jw_ki64(&w, "terminal", number);
    mu_jw_ki64(&w, "offset", t->end - t->base);
    mu_jw_obj_end(&w);
    if (mu_live_send(s, &b)) {
        t->acked = t->end;
    }
    mu_buf_fini(&b);
}

void mu_live_terminal(struct mu_live_session *s, unsigned number, int64_t offset, mu_bytes bytes)
{
    struct mu_terminal *t = get(s, number);
    if (!t || !bytes.len) {
        return;
    }
    t->base = t->base < 0 ? 0 : t->base;
    int64_t at = t->base + offset, end = at + (int64_t)bytes.len;
    if (end <= t->end) {
        return; /* sent again after a reconnect */
    }
    if (end - t->acked > 2 * WINDOW && at == t->end) {
        mu_live_drop(s, "more of a terminal than was acknowledged");
        return;
    }
    if (at < t->end) {
        bytes = mu_bytes_from(bytes, (size_t)(t->end - at));
        at = t->end;
    }
    if (at > t->end) {
        t->acked = at;
    }
    keep(t, at, bytes);
    s->active_ms = mu_live_now(s->l);
    mu_metric_add(s->l->bytes, (int64_t)bytes.len);
    show(s, number, at, bytes);
    mu_recorder_add(s->l->recorder, &s->id, number, s->of.epoch, t->base, at, bytes);
    if (t->end - t->acked >= MU_TERMINAL_ACK) {
        acknowledge(s, number, t);
    }
}

/* --- reading --- */

struct reading {
    struct mu_recorder_read read;
    struct mu_terminal_read *op;
};

static void tell(struct mu_post *post)
{
    struct mu_terminal_read *op = MU_CONTAINER(post, struct mu_terminal_read, post);
    op->done(op, op->result);
}

static void finish(struct mu_terminal_read *op, int result)
{
    op->result = result < 0 ? result : op->bytes.failed;
    op->end = op->begin + (int64_t)op->bytes.len;
    op->post.fn = tell;
    mu_loop_post(op->loop, &op->post);
}

static struct mu_terminal *live_one(struct mu_terminal_read *op)
{
    struct mu_live_session *s = mu_live_find(op->live, &op->session);
    struct mu_terminal *t = s && op->terminal < MU_TERMINALS ? s->terminals[op->terminal] : NULL;
    return t && t->end > t->begin ? t : NULL;
}

static void from_files(struct mu_recorder_read *read)
{
    struct reading *x = MU_CONTAINER(read, struct reading, read);
    struct mu_terminal_read *op = x->op;
    const struct mu_terminal *t = live_one(op);
    op->begin = read->begin;
    op->oldest = read->range.oldest;
    op->newest = t ? MU_MAX(t->end, read->range.newest) : read->range.newest;
    int result = read->result;
    mu_free(x);
    finish(op, result);
}

static void from_ring(struct mu_terminal_read *op, const struct mu_terminal *t, int64_t from)
{
    size_t n = MU_MIN(op->limit, (size_t)(t->end - from));
    size_t at = (size_t)from % t->size, first = MU_MIN(n, t->size - at);
    mu_buf_add(&op->bytes, mu_bytes_of(t->ring + at, first));
    mu_buf_add(&op->bytes, mu_bytes_of(t->ring, n - first));
    op->begin = from;
    op->oldest = MU_MIN(t->begin, from);
    op->newest = t->end;
    finish(op, 0);
}

static void read_here(struct mu_post *post)
{
    struct mu_terminal_read *op = MU_CONTAINER(post, struct mu_terminal_read, post);
    const struct mu_terminal *t = live_one(op);
    int64_t from = op->from;
    if (op->live->stopping) {
        finish(op, MU_E_SHUTDOWN);
        return;
    }
    if (t && from < 0 && t->end - (int64_t)op->limit >= t->begin) {
        from = t->end - (int64_t)op->limit;
    }
    if (t && from >= t->begin && from <= t->end) {
        from_ring(op, t, from);
        return;
    }
    struct reading *x = mu_calloc(1, sizeof *x);
    if (!x) {
        finish(op, -ENOMEM);
        return;
    }
    x->op = op;
    x->read = (struct mu_recorder_read){.session = op->session,
                                        .terminal = op->terminal,
                                        .from = op->from,
                                        .limit = op->limit,
                                        .bytes = &op->bytes,
                                        .done = from_files};
    mu_recorder_read(op->live->recorder, &x->read);
}

void mu_terminal_read(struct mu_live *l, struct mu_terminal_read *op)
{
    op->live = l;
    mu_buf_init(&op->bytes, op->limit + 1);
    op->post.fn = read_here;
    mu_loop_post(l->opts.core, &op->post);
}
