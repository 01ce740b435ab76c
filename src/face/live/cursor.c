#include "face/live/cursor.h"

#include <errno.h>

enum { PAGE = 200, PAGE_BYTES = 16 << 20 };

struct mu_cursor_page {
    struct mu_cursor *cur;
    struct mu_session_events events;
    struct mu_buf out;
    int64_t last;
    bool end;
};

static void read_page(struct mu_cursor *cur);

static void page_free(struct mu_cursor *cur)
{
    mu_buf_fini(&cur->page->out);
    mu_free(cur->page);
    cur->page = NULL;
}

static void fail(struct mu_cursor *cur, int code)
{
    cur->finished = true;
    cur->ops->failed(cur, code);
}

static int take_event(void *arg, const struct mu_session_event *e)
{
    struct mu_cursor_page *p = arg;
    p->cur->ops->encode(p->cur, &p->out, e);
    p->last = e->seq;
    p->end = p->end || e->type == MU_EV_ENDED;
    return p->out.failed;
}

/* A position that is not in the log (any more): told, and begun again. */
static void start_over(struct mu_cursor *cur, int64_t first, int64_t last)
{
    cur->seq = cur->seq > last ? 0 : first - 1;
    cur->ops->reset(cur, first, last);
    if (!cur->finished && !cur->closing) {
        read_page(cur);
    }
}

static void deliver(struct mu_cursor *cur, unsigned count)
{
    struct mu_cursor_page *p = cur->page;
    bool end = p->end;
    if (count) {
        cur->seq = p->last;
        cur->ops->page(cur, mu_buf_bytes(&p->out));
    }
    page_free(cur);
    if (cur->closing || cur->finished) {
        return;
    }
    if (end || (cur->ended && count == 0)) { /* it has seen the end already */
        cur->finished = true;
        cur->ops->over(cur);
    } else if (cur->ops->full(cur)) {
        cur->stale = true; /* mu_cursor_read() goes on */
    } else if (count == PAGE || cur->stale) {
        read_page(cur);
    } else {
        cur->live = true;
        cur->ops->present(cur);
    }
}

static void page_read(struct mu_session_events *op, int result)
{
    struct mu_cursor_page *p = op->ctx;
    struct mu_cursor *cur = p->cur;
    if (cur->closing) {
        page_free(cur);
        cur->ops->closed(cur);
        return;
    }
    if (result < 0 || (op->last_seq == 0 && cur->seq == 0)) {
        page_free(cur);
        fail(cur,
             result < 0 ? result : MU_E_NOT_FOUND); /* the database is away, or it is deleted */
    } else if (cur->seq > op->last_seq || cur->seq + 1 < op->first_seq) {
        int64_t first = op->first_seq, last = op->last_seq;
        page_free(cur);
        start_over(cur, first, last);
    } else {
        deliver(cur, op->count);
    }
}

static void read_page(struct mu_cursor *cur)
{
    if (cur->page) {
        cur->stale = true;
        return;
    }
    struct mu_cursor_page *p = mu_calloc(1, sizeof *p);
    if (!p) {
        fail(cur, -ENOMEM);
        return;
    }
    p->cur = cur;
    mu_buf_init(&p->out, PAGE_BYTES);
    cur->page = p;
    cur->live = cur->stale = false;
    p->events = (struct mu_session_events){.read = {.loop = cur->watch.loop},
                                           .id = cur->id,
                                           .after = cur->seq,
                                           .limit = PAGE,
                                           .each = take_event,
                                           .arg = p,
                                           .done = page_read,
                                           .ctx = p};
    int r = mu_session_events(cur->sessions, &p->events);
    if (r < 0) {
        page_free(cur);
        fail(cur, r);
    }
}

static void fall_behind(struct mu_cursor *cur)
{
    if (cur->ops->behind) {
        cur->ops->behind(cur);
    } else if (!cur->ops->full(cur)) {
        read_page(cur);
    }
}

static void on_event(struct mu_watch *watch, struct mu_event *e)
{
    struct mu_cursor *cur = MU_CONTAINER(watch, struct mu_cursor, watch);
    if (cur->finished || cur->closing) {
        return;
    }
    if (e->seq == 0) {
        cur->ops->delta(cur, e);
        return;
    }
    if (e->seq <= cur->seq) {
        return;
    }
    if (!cur->live) {
        cur->stale = true;
        return;
    }
    if (e->seq != cur->seq + 1 || cur->ops->full(cur)) {
        cur->live = false;
        fall_behind(cur);
        return;
    }
    cur->seq = e->seq;
    if (!cur->ops->event(cur, e)) {
        cur->finished = true;
    } else if (e->type == MU_EV_ENDED) {
        cur->finished = true;
        cur->ops->over(cur);
    }
}

int mu_cursor_open(struct mu_cursor *cur, struct mu_loop *loop)
{
    cur->watch.loop = loop;
    cur->watch.on_event = on_event;
    memcpy(cur->watch.stream_id, cur->id.text, sizeof cur->id.text);
    return mu_feed_watch(mu_sessions_feed(cur->sessions), &cur->watch);
}

void mu_cursor_read(struct mu_cursor *cur)
{
    if (mu_cursor_waits(cur)) {
        read_page(cur);
    }
}

void mu_cursor_close(struct mu_cursor *cur)
{
    mu_feed_unwatch(mu_sessions_feed(cur->sessions), &cur->watch);
    cur->closing = true;
    if (!cur->page) {
        cur->ops->closed(cur);
    }
}
