/* What happens in an org, for all of one loop who follow it: one watch, one read of the rows that
 * lists show, one frame for all of them (also of other loops, where those are not first). */
#include <errno.h>
#include <stdio.h>

#include "face/live/socket_int.h"
#include "face/sessions/show.h"

enum { WAITING = 8192, BATCH = 64, ROW = 64 << 10 };

struct note {
    struct note *next;
    struct mu_event *event;
};

/* Events whose rows are being read, and all behind the first of them. */
struct batch {
    struct mu_hub *hub;
    struct mu_session_some op;
    struct mu_event *events[BATCH];
    size_t n, row_of[BATCH]; /* of each event; BATCH: it needs none */
    struct mu_id ids[BATCH];
    struct mu_org_row rows[BATCH];
    struct mu_buf texts[BATCH];
    int64_t now_ms;
};

struct mu_hub {
    struct mu_sock_face *face;
    struct mu_loop *loop;
    struct mu_watch watch;
    struct mu_list subs;
    struct note *first, **end;
    size_t waiting;
    struct batch *reading;
    unsigned busy; /* it is on the stack */
    char key[32 + MU_ORG_LEN];
};

/* --- life --- */

static void drop_waiting(struct mu_hub *h)
{
    while (h->first) {
        struct note *n = h->first;
        h->first = n->next;
        mu_event_unref(n->event);
        mu_free(n);
    }
    h->end = &h->first;
    h->waiting = 0;
}

static void free_when_over(struct mu_hub *h)
{
    if (mu_list_empty(&h->subs) && !h->reading && !h->busy) {
        mu_free(h);
    }
}

/* Nobody follows any more: who comes next makes a new one. */
static void retire(struct mu_hub *h)
{
    struct mu_sock_face *f = h->face;
    mu_feed_unwatch(mu_sessions_feed(f->opts.sessions), &h->watch);
    drop_waiting(h);
    pthread_mutex_lock(&f->lock);
    (void)mu_map_remove(&f->hubs, mu_str(h->key));
    pthread_mutex_unlock(&f->lock);
    free_when_over(h);
}

/* --- telling --- */

static void lose(struct mu_hub *h)
{
    drop_waiting(h);
    h->busy++;
    MU_LIST_EACH(it, tmp, &h->subs)
    {
        mu_org_gap(MU_CONTAINER(it, struct mu_org_sub, member));
    }
    h->busy--;
}

static void tell(struct mu_hub *h, struct mu_event *e, const struct mu_org_row *row)
{
    const struct mu_msg *m = mu_frames_of_org(e, row);
    if (!m) {
        lose(h);
        return;
    }
    /* A connection that ends here takes no other member with it: it follows an org once. */
    MU_LIST_EACH(it, tmp, &h->subs)
    {
        mu_org_deliver(MU_CONTAINER(it, struct mu_org_sub, member), mu_frame_text(m));
    }
}

/* --- rows --- */

static bool needs_row(struct mu_event *e)
{
    return (e->type == MU_EV_CREATED || e->type == MU_EV_STATE) && !mu_frames_have_org(e);
}

static void batch_free(struct batch *b)
{
    for (size_t i = 0; i < BATCH; i++) {
        mu_buf_fini(&b->texts[i]);
    }
    for (size_t i = 0; i < b->n; i++) {
        mu_event_unref(b->events[i]);
    }
    mu_free(b);
}

/* Several events of one session read it once. */
static size_t row_for(struct batch *b, mu_bytes id)
{
    size_t i = 0;
    while (i < b->op.n && !mu_bytes_is(id, b->ids[i].text)) {
        i++;
    }
    if (i == b->op.n && mu_id_parse(id, NULL, &b->ids[i]) < 0) {
        return BATCH;
    }
    b->op.n = MU_MAX(b->op.n, i + 1);
    return i;
}

/* A reader's thread. */
static int take_row(void *arg, const struct mu_session_view *v)
{
    struct batch *b = arg;
    struct mu_buf *text = &b->texts[b->op.at];
    struct mu_json_w w = mu_json_w(text);
    mu_jw_obj(&w);
    mu_sess_summary(&w, v, b->now_ms, NULL);
    mu_jw_obj_end(&w);
    b->rows[b->op.at] = (struct mu_org_row){mu_buf_bytes(text), v->view != MU_VIEW_VILLAGE};
    return text->failed;
}

static void pump(struct mu_hub *h);

static void rows_read(struct mu_session_some *op, int result)
{
    static const struct mu_org_row none = {{NULL, 0}, false};
    struct batch *b = op->ctx;
    struct mu_hub *h = b->hub;
    h->reading = NULL;
    h->busy++;
    for (size_t i = 0; i < b->n && result >= 0; i++) {
        tell(h, b->events[i], b->row_of[i] < BATCH ? &b->rows[b->row_of[i]] : &none);
    }
    if (result < 0) {
        lose(h);
    }
    batch_free(b);
    pump(h);
    h->busy--;
    free_when_over(h);
}

static struct mu_event *take_first(struct mu_hub *h)
{
    struct note *n = h->first;
    struct mu_event *e = n->event;
    h->first = n->next;
    h->end = h->first ? h->end : &h->first;
    h->waiting--;
    mu_free(n);
    return e;
}

static int read_rows(struct mu_hub *h)
{
    struct batch *b = mu_calloc(1, sizeof *b);
    if (!b) {
        return -ENOMEM;
    }
    b->hub = h;
    b->now_ms = mu_env_wall_ms(h->face->opts.env);
    for (size_t i = 0; i < BATCH; i++) {
        mu_buf_init(&b->texts[i], ROW);
    }
    while (h->first && b->n < BATCH) {
        struct mu_event *e = take_first(h);
        b->row_of[b->n] = needs_row(e) ? row_for(b, e->stream) : BATCH;
        b->events[b->n++] = e;
    }
    b->op.read.loop = h->loop;
    b->op.ids = b->ids;
    b->op.each = take_row;
    b->op.arg = b;
    b->op.done = rows_read;
    b->op.ctx = b;
    int r = mu_session_some(h->face->opts.sessions, &b->op);
    if (r < 0) {
        batch_free(b);
        return r;
    }
    h->reading = b;
    return 0;
}

/* In order: what needs no row waits behind what does. */
static void pump(struct mu_hub *h)
{
    h->busy++;
    while (h->first && !h->reading) {
        if (needs_row(h->first->event)) {
            if (read_rows(h) < 0) {
                lose(h);
            }
        } else {
            struct mu_event *e = take_first(h);
            tell(h, e, NULL);
            mu_event_unref(e);
        }
    }
    h->busy--;
}

/* --- the feed --- */

static void on_event(struct mu_watch *w, struct mu_event *e)
{
    struct mu_hub *h = MU_CONTAINER(w, struct mu_hub, watch);
    if (mu_list_empty(&h->subs)) { /* all left when they were told of a gap */
        free_when_over(h);
        return;
    }
    struct note *n = h->waiting < WAITING ? mu_alloc(sizeof *n) : NULL;
    if (!n) {
        lose(h);
        return;
    }
    *n = (struct note){.event = mu_event_ref(e)};
    *h->end = n;
    h->end = &n->next;
    h->waiting++;
    h->busy++;
    pump(h);
    h->busy--;
    free_when_over(h);
}

static void on_lost(struct mu_watch *w)
{
    lose(MU_CONTAINER(w, struct mu_hub, watch));
}

/* --- who follows --- */

static int hub_new(struct mu_sock *s, const char *org, const char *key, struct mu_hub **ret)
{
    struct mu_hub *h = mu_calloc(1, sizeof *h);
    if (!h) {
        return -ENOMEM;
    }
    h->face = s->face;
    h->loop = s->loop;
    h->end = &h->first;
    mu_list_init(&h->subs);
    snprintf(h->key, sizeof h->key, "%s", key);
    h->watch.loop = s->loop;
    h->watch.on_event = on_event;
    h->watch.on_lost = on_lost;
    snprintf(h->watch.stream_id, sizeof h->watch.stream_id, "org:%s", org);
    int r = mu_feed_watch(mu_sessions_feed(s->face->opts.sessions), &h->watch);
    if (r == 0) {
        pthread_mutex_lock(&s->face->lock);
        r = mu_map_put(&s->face->hubs, mu_str(h->key), h);
        pthread_mutex_unlock(&s->face->lock);
        if (r < 0) {
            mu_feed_unwatch(mu_sessions_feed(s->face->opts.sessions), &h->watch);
        }
    }
    if (r < 0) {
        mu_free(h);
        return r;
    }
    *ret = h;
    return 0;
}

int mu_hub_join(struct mu_org_sub *sub)
{
    struct mu_sock_face *f = sub->s->face;
    char key[sizeof((struct mu_hub *)0)->key];
    snprintf(key, sizeof key, "%p/%s", (void *)sub->s->loop, sub->org);
    pthread_mutex_lock(&f->lock);
    struct mu_hub *h = mu_map_get(&f->hubs, mu_str(key));
    pthread_mutex_unlock(&f->lock);
    int r = h ? 0 : hub_new(sub->s, sub->org, key, &h);
    if (r == 0) {
        sub->hub = h;
        mu_list_push(&h->subs, &sub->member);
    }
    return r;
}

void mu_hub_leave(struct mu_org_sub *sub)
{
    struct mu_hub *h = sub->hub;
    mu_list_remove(&sub->member);
    sub->hub = NULL;
    if (mu_list_empty(&h->subs)) {
        retire(h);
    }
}
