/* Who wants to know that a stream got new events (data-model.md 4.4 "Bus"). After each commit the
 * writer publishes; only streams that somebody watches cost anything. Deltas (text that is not in
 * the log) travel the same way with seq 0. */
#ifndef MU_DB_FEED_H
#define MU_DB_FEED_H

#include <stdatomic.h>

#include "base/bytes.h"
#include "base/list.h"
#include "io/loop.h"

struct mu_feed;

enum { MU_EVENT_ENCODINGS = 4 };

/* An event as published: refcounted and immutable, shared by all watchers. */
struct mu_event {
    _Atomic unsigned refs;
    int type;    /* events.def; deltas have their own types */
    int64_t seq; /* 0 = a delta */
    int64_t at_ms;
    int64_t offset; /* deltas: byte offset of `data` in the attempt's output; -1 = not one */
    int64_t epoch;  /* deltas: the attempt */
    mu_bytes data;  /* JSON (events) or raw bytes (deltas) */
    mu_bytes actor; /* of events: who, or "" */
    /* Of committed events: which stream, and whose ("": nobody's). */
    mu_bytes stream, org;
    /* The subscribers' shared encodings, one for each way to show it: whoever comes first sets it
     * with mu_event_encode(). */
    _Atomic(void *) encoded[MU_EVENT_ENCODINGS];
    _Atomic(void (*)(void *encoded)) free_encoded; /* the same for all */
};
struct mu_event *mu_event_new(int type, int64_t seq, int64_t at_ms, int64_t offset, int64_t epoch,
                              mu_bytes data);
/* One of the log: numbers and texts as in `like`; they are copied. */
struct mu_event *mu_event_committed(const struct mu_event *like);
struct mu_event *mu_event_ref(struct mu_event *e);
struct mu_event *mu_event_unref(struct mu_event *e);
/* Offers the encoding number `way`, which the event then owns. Returns the one that holds: another
 * loop may have been first, then `encoded` was released with `free_fn`. Every caller passes the
 * same `free_fn`.
 */
void *mu_event_encode(struct mu_event *e, unsigned way, void *encoded,
                      void (*free_fn)(void *encoded));

/* A subscription, embedded in the subscriber; lives on one loop. */
struct mu_watch {
    struct mu_list link;
    char stream_id[48]; /* the longest: "rollout:" and a UUID */
    struct mu_loop *loop;
    /* On the loop, in order, each event at most once per watch; seq may repeat what the subscriber
     * read from the database: it drops those by number. */
    void (*on_event)(struct mu_watch *w, struct mu_event *e);
    /* NULL, or, before on_event(): some were left out. For who cannot see that by the numbers; it
     * does not unwatch anybody. */
    void (*on_lost)(struct mu_watch *w);
    bool active;
};

/* `loops` are all loops that subscribers live on, at most 64. -ENOMEM. */
MU_MUST_USE int mu_feed_new(struct mu_loop **loops, size_t n, struct mu_feed **ret);
/* When nothing publishes any more and the loops have ended; watches that are left are forgotten. */
struct mu_feed *mu_feed_free(struct mu_feed *f);

/* On the watch's loop. Register before reading the first page from the database: then the border
 * loses nothing. -ENOMEM. */
MU_MUST_USE int mu_feed_watch(struct mu_feed *f, struct mu_watch *w);
/* On the watch's loop; no callback comes afterwards. Harmless when not active. */
void mu_feed_unwatch(struct mu_feed *f, struct mu_watch *w);
/* Somebody who wants all of every stream: `tap` runs on the publisher's thread, before anybody else
 * hears of it, in the order of the commits; it only takes a reference and hands it on. Before
 * anything publishes. */
void mu_feed_tap(struct mu_feed *f, void (*tap)(void *arg, mu_bytes stream_id, struct mu_event *e),
                 void *arg);
/* Any thread: whether anybody watches the stream (so that nobody encodes for nothing). */
bool mu_feed_watched(struct mu_feed *f, mu_bytes stream_id);
/* Any thread; the caller keeps its own reference. Delivered to each loop that has watchers, in
 * publishing order. What waits for a loop is bounded: beyond that (or without memory) deltas are
 * left out early and events late, and the subscriber sees the hole by the numbers. */
void mu_feed_publish(struct mu_feed *f, mu_bytes stream_id, struct mu_event *e);
/* A topic is what no stream is: several streams' events for one watcher ("org:" and whose), who
 * watches it as he would a stream. What is announced never reaches the tap. Any thread. */
bool mu_feed_awaited(struct mu_feed *f, mu_bytes topic);
void mu_feed_announce(struct mu_feed *f, mu_bytes topic, struct mu_event *e);
/* There was no memory for one: its watchers hear so with the next. Any thread. */
void mu_feed_skip(struct mu_feed *f, mu_bytes topic);
/* Watches now. Any thread. */
int64_t mu_feed_watches(const struct mu_feed *f);

#endif
