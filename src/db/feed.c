/* Two indexes: each loop has its own map from stream to its watches, touched by that loop only;
 * publishers see a sharded map from stream to the set of loops that watch it. */
#include "db/feed.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/map.h"

enum {
    SHARDS = 64,
    MAX_LOOPS = 64,
    MAX_DELTAS = 16384, /* waiting for one loop, then deltas are left out */
    MAX_DELTA_BYTES = 64 << 20,
    MAX_EVENTS = 1 << 20, /* a loop that is this far behind has hung for a minute */
    STREAM_LEN = sizeof((struct mu_watch *)0)->stream_id,
};

/* Which loops watch a stream. */
struct topic {
    uint64_t loops;
    uint64_t next; /* number of the next item: who misses one sees it by the one behind */
    size_t id_len;
    char id[STREAM_LEN];
};

struct shard {
    pthread_mutex_t lock;
    struct mu_map topics;
    uint64_t top; /* above the numbers of all topics that went */
};

/* The watches of one stream on one loop. */
struct group {
    struct mu_list watches;
    uint64_t next;
    size_t id_len;
    char id[STREAM_LEN];
};

struct item {
    struct item *next;
    struct mu_event *event;
    uint64_t number;
    size_t id_len;
    char id[STREAM_LEN];
};

struct lane {
    struct mu_post post;
    struct mu_feed *feed;
    struct mu_loop *loop;
    uint64_t bit;
    /* loop thread only */
    struct mu_map groups;
    struct group *delivering; /* not released while its callbacks run */
    struct mu_list *cursor;   /* the next node of that delivery */
    /* any thread */
    pthread_mutex_t lock;
    struct item *first, **end;
    size_t waiting, delta_bytes;
    bool posted;
};

struct mu_feed {
    struct shard shards[SHARDS];
    atomic_llong watches;
    void (*tap)(void *arg, mu_bytes stream_id, struct mu_event *e);
    void *tap_arg;
    size_t n_lanes;
    struct lane lanes[];
};

/* --- events --- */

static mu_bytes take_text(char **at, mu_bytes text)
{
    char *copy = *at;
    if (text.len) {
        memcpy(copy, text.ptr, text.len);
    }
    *at += text.len;
    return mu_bytes_of(copy, text.len);
}

struct mu_event *mu_event_committed(const struct mu_event *like)
{
    struct mu_event *e =
        mu_alloc(sizeof *e + like->data.len + like->actor.len + like->stream.len + like->org.len);
    if (!e) {
        return NULL;
    }
    char *at = (char *)(e + 1);
    *e = (struct mu_event){.type = like->type,
                           .seq = like->seq,
                           .at_ms = like->at_ms,
                           .offset = like->offset,
                           .epoch = like->epoch,
                           .data = take_text(&at, like->data),
                           .actor = take_text(&at, like->actor),
                           .stream = take_text(&at, like->stream),
                           .org = take_text(&at, like->org)};
    atomic_init(&e->refs, 1);
    return e;
}

struct mu_event *mu_event_new(int type, int64_t seq, int64_t at_ms, int64_t offset, int64_t epoch,
                              mu_bytes data)
{
    const struct mu_event like = {
        .type = type, .seq = seq, .at_ms = at_ms, .offset = offset, .epoch = epoch, .data = data};
    return mu_event_committed(&like);
}

struct mu_event *mu_event_ref(struct mu_event *e)
{
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

struct mu_event *mu_event_unref(struct mu_event *e)
{
    if (e && atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1) {
        for (unsigned i = 0; i < MU_EVENT_ENCODINGS; i++) {
            void *encoded = atomic_load_explicit(&e->encoded[i], memory_order_relaxed);
            if (encoded) {
                atomic_load_explicit(&e->free_encoded, memory_order_relaxed)(encoded);
            }
        }
        mu_free(e);
    }
    return NULL;
}

void *mu_event_encode(struct mu_event *e, unsigned way, void *encoded,
                      void (*free_fn)(void *encoded))
{
    void *now = NULL;
    MU_CHECK(way < MU_EVENT_ENCODINGS);
    if (atomic_compare_exchange_strong(&e->encoded[way], &now, encoded)) {
        /* Read by the last unref only, which the caller's own reference is before. */
        atomic_store_explicit(&e->free_encoded, free_fn, memory_order_relaxed);
        return encoded;
    }
    free_fn(encoded);
    return now;
}

/* --- setting up --- */

static struct shard *shard_of(struct mu_feed *f, mu_bytes id)
{
    return &f->shards[mu_hash(id) >> 58];
}

static void deliver(struct mu_post *post);

int mu_feed_new(struct mu_loop **loops, size_t n, struct mu_feed **ret)
{
    MU_CHECK(n <= MAX_LOOPS);
    struct mu_feed *f = mu_calloc(1, sizeof *f + n * sizeof f->lanes[0]);
    if (!f) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&f->shards[i].lock, NULL);
        mu_map_init(&f->shards[i].topics);
    }
    f->n_lanes = n;
    for (size_t i = 0; i < n; i++) {
        struct lane *lane = &f->lanes[i];
        lane->post.fn = deliver;
        lane->feed = f;
        lane->loop = loops[i];
        lane->bit = UINT64_C(1) << i;
        lane->end = &lane->first;
        mu_map_init(&lane->groups);
        pthread_mutex_init(&lane->lock, NULL);
    }
    *ret = f;
    return 0;
}

static void drop_items(struct item *it)
{
    while (it) {
        struct item *next = it->next;
        mu_event_unref(it->event);
        mu_free(it);
        it = next;
    }
}

struct mu_feed *mu_feed_free(struct mu_feed *f)
{
    if (!f) {
        return NULL;
    }
    for (size_t i = 0; i < f->n_lanes; i++) {
        struct lane *lane = &f->lanes[i];
        drop_items(lane->first);
        size_t at = 0;
        for (struct group *g; (g = mu_map_next(&lane->groups, &at));) {
            while (!mu_list_empty(&g->watches)) {
                MU_CONTAINER(mu_list_pop(&g->watches), struct mu_watch, link)->active = false;
            }
            mu_free(g);
        }
        mu_map_fini(&lane->groups);
        pthread_mutex_destroy(&lane->lock);
    }
    for (size_t i = 0; i < SHARDS; i++) {
        size_t at = 0;
        for (struct topic *t; (t = mu_map_next(&f->shards[i].topics, &at));) {
            mu_free(t);
        }
        mu_map_fini(&f->shards[i].topics);
        pthread_mutex_destroy(&f->shards[i].lock);
    }
    mu_free(f);
    return NULL;
}

/* --- watching --- */

static struct lane *lane_of(struct mu_feed *f, const struct mu_loop *loop)
{
    struct lane *lane = NULL;
    for (size_t i = 0; i < f->n_lanes; i++) {
        lane = f->lanes[i].loop == loop ? &f->lanes[i] : lane;
    }
    MU_CHECK(lane && mu_loop_here(loop)); /* one of the loops the feed was given, and on it */
    return lane;
}

/* `ret_next`: the number that this loop hears first. */
static int set_topic(struct mu_feed *f, mu_bytes id, uint64_t bit, uint64_t *ret_next)
{
    struct shard *s = shard_of(f, id);
    int r = 0;
    pthread_mutex_lock(&s->lock);
    struct topic *t = mu_map_get(&s->topics, id);
    if (!t) {
        t = mu_calloc(1, sizeof *t);
        r = t ? 0 : -ENOMEM;
        if (t) {
            memcpy(t->id, id.ptr, id.len);
            t->id_len = id.len;
            t->next = s->top;
            r = mu_map_put(&s->topics, mu_bytes_of(t->id, t->id_len), t);
        }
    }
    if (r == 0) {
        t->loops |= bit;
        *ret_next = t->next;
    } else {
        mu_free(t);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

static void clear_topic(struct mu_feed *f, mu_bytes id, uint64_t bit)
{
    struct shard *s = shard_of(f, id);
    pthread_mutex_lock(&s->lock);
    struct topic *t = mu_map_get(&s->topics, id);
    if (t && (t->loops &= ~bit) == 0) {
        mu_map_remove(&s->topics, id);
        s->top = MU_MAX(s->top, t->next);
        mu_free(t);
    }
    pthread_mutex_unlock(&s->lock);
}

static void drop_group(struct mu_feed *f, struct lane *lane, struct group *g)
{
    mu_bytes id = mu_bytes_of(g->id, g->id_len);
    clear_topic(f, id, lane->bit);
    mu_map_remove(&lane->groups, id);
    mu_free(g);
}

static struct group *add_group(struct mu_feed *f, struct lane *lane, mu_bytes id)
{
    struct group *g = mu_calloc(1, sizeof *g);
    if (!g) {
        return NULL;
    }
    mu_list_init(&g->watches);
    memcpy(g->id, id.ptr, id.len);
    g->id_len = id.len;
    if (mu_map_put(&lane->groups, mu_bytes_of(g->id, g->id_len), g) < 0) {
        mu_free(g);
        return NULL;
    }
    if (set_topic(f, id, lane->bit, &g->next) < 0) {
        mu_map_remove(&lane->groups, id);
        mu_free(g);
        return NULL;
    }
    return g;
}

int mu_feed_watch(struct mu_feed *f, struct mu_watch *w)
{
    struct lane *lane = lane_of(f, w->loop);
    MU_CHECK(!w->active && memchr(w->stream_id, '\0', sizeof w->stream_id));
    mu_bytes id = mu_str(w->stream_id);
    struct group *g = mu_map_get(&lane->groups, id);
    if (!g) {
        g = add_group(f, lane, id);
    }
    if (!g) {
        return -ENOMEM;
    }
    mu_list_push(&g->watches, &w->link);
    w->active = true;
    atomic_fetch_add(&f->watches, 1);
    return 0;
}

void mu_feed_unwatch(struct mu_feed *f, struct mu_watch *w)
{
    if (!w->active) {
        return;
    }
    struct lane *lane = lane_of(f, w->loop);
    if (lane->cursor == &w->link) {
        lane->cursor = w->link.next;
    }
    mu_list_remove(&w->link);
    w->active = false;
    atomic_fetch_sub(&f->watches, 1);
    struct group *g = mu_map_get(&lane->groups, mu_str(w->stream_id));
    if (g && g != lane->delivering && mu_list_empty(&g->watches)) {
        drop_group(f, lane, g);
    }
}

void mu_feed_tap(struct mu_feed *f, void (*tap)(void *arg, mu_bytes stream_id, struct mu_event *e),
                 void *arg)
{
    f->tap = tap;
    f->tap_arg = arg;
}

bool mu_feed_awaited(struct mu_feed *f, mu_bytes topic)
{
    if (atomic_load_explicit(&f->watches, memory_order_acquire) == 0) {
        return false;
    }
    struct shard *s = shard_of(f, topic);
    pthread_mutex_lock(&s->lock);
    bool watched = mu_map_get(&s->topics, topic) != NULL;
    pthread_mutex_unlock(&s->lock);
    return watched;
}

bool mu_feed_watched(struct mu_feed *f, mu_bytes stream_id)
{
    return f->tap || mu_feed_awaited(f, stream_id);
}

int64_t mu_feed_watches(const struct mu_feed *f)
{
    return atomic_load_explicit(&((struct mu_feed *)f)->watches, memory_order_relaxed);
}

/* --- delivery --- */

static void append(struct lane *lane, mu_bytes id, struct mu_event *e, uint64_t number)
{
    bool delta = e->seq == 0, room, wake = false;
    struct item *it = mu_alloc(sizeof *it);
    if (!it) {
        return;
    }
    it->next = NULL;
    it->event = mu_event_ref(e);
    it->number = number;
    it->id_len = id.len;
    memcpy(it->id, id.ptr, id.len);
    pthread_mutex_lock(&lane->lock);
    room = delta ? lane->waiting < MAX_DELTAS && lane->delta_bytes < MAX_DELTA_BYTES
                 : lane->waiting < MAX_EVENTS;
    if (room) {
        *lane->end = it;
        lane->end = &it->next;
        lane->waiting++;
        lane->delta_bytes += delta ? e->data.len : 0;
        wake = !lane->posted;
        lane->posted = true;
    }
    pthread_mutex_unlock(&lane->lock);
    if (!room) {
        drop_items(it);
    }
    if (wake) {
        mu_loop_post(lane->loop, &lane->post);
    }
}

static void publish(struct mu_feed *f, mu_bytes id, struct mu_event *e, bool tapped)
{
    struct shard *s = shard_of(f, id);
    /* Held while queueing: two publishers of a stream reach all loops in the same order. */
    pthread_mutex_lock(&s->lock);
    if (f->tap && tapped) {
        f->tap(f->tap_arg, id, e);
    }
    struct topic *t = mu_map_get(&s->topics, id);
    for (size_t i = 0; t && i < f->n_lanes; i++) {
        if (t->loops & f->lanes[i].bit) {
            append(&f->lanes[i], id, e, t->next);
        }
    }
    if (t) {
        t->next++;
    }
    pthread_mutex_unlock(&s->lock);
}

void mu_feed_publish(struct mu_feed *f, mu_bytes stream_id, struct mu_event *e)
{
    publish(f, stream_id, e, true);
}

void mu_feed_announce(struct mu_feed *f, mu_bytes topic, struct mu_event *e)
{
    publish(f, topic, e, false);
}

void mu_feed_skip(struct mu_feed *f, mu_bytes topic)
{
    struct shard *s = shard_of(f, topic);
    pthread_mutex_lock(&s->lock);
    struct topic *t = mu_map_get(&s->topics, topic);
    if (t) {
        t->next++;
    }
    pthread_mutex_unlock(&s->lock);
}

static void deliver_item(struct mu_feed *f, struct lane *lane, struct item *it)
{
    struct group *g = mu_map_get(&lane->groups, mu_bytes_of(it->id, it->id_len));
    if (!g) {
        return;
    }
    /* Watches that a callback adds come behind the fence: one that watches again from its own
     * callback would otherwise be called for ever. */
    struct mu_list fence;
    mu_list_push(&g->watches, &fence);
    bool lost = it->number > g->next;
    g->next = MU_MAX(g->next, it->number + 1);
    lane->delivering = g;
    lane->cursor = g->watches.next;
    while (lane->cursor != &fence) {
        struct mu_watch *w = MU_CONTAINER(lane->cursor, struct mu_watch, link);
        lane->cursor = lane->cursor->next;
        if (lost && w->on_lost) {
            w->on_lost(w);
        }
        w->on_event(w, it->event);
    }
    lane->cursor = NULL;
    lane->delivering = NULL;
    mu_list_remove(&fence);
    if (mu_list_empty(&g->watches)) {
        drop_group(f, lane, g);
    }
}

static void deliver(struct mu_post *post)
{
    struct lane *lane = MU_CONTAINER(post, struct lane, post);
    pthread_mutex_lock(&lane->lock);
    struct item *first = lane->first;
    lane->first = NULL;
    lane->end = &lane->first;
    lane->waiting = lane->delta_bytes = 0;
    lane->posted = false;
    pthread_mutex_unlock(&lane->lock);
    for (struct item *it = first; it; it = it->next) {
        deliver_item(lane->feed, lane, it);
    }
    drop_items(first);
}
