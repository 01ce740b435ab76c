#include "../unit.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* cmocka hands a state to every test */

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "../alloc_fail.h"
#include "db/feed.h"

struct sub {
    struct mu_watch watch;
    struct mu_feed *feed;
    int64_t seqs[64];
    int n;
    int lost; /* how often it heard so, and with how many events before the last time */
    int lost_behind;
    void (*then)(struct sub *s);
    struct sub *other;
};

static void on_event(struct mu_watch *w, struct mu_event *e)
{
    struct sub *s = MU_CONTAINER(w, struct sub, watch);
    assert_true(mu_loop_here(w->loop));
    assert_true(s->n < 64);
    s->seqs[s->n++] = e->seq;
    if (s->then) {
        s->then(s);
    }
}

static void subscribe(struct mu_feed *f, struct mu_loop *loop, struct sub *s, const char *id)
{
    s->feed = f;
    s->watch.loop = loop;
    s->watch.on_event = on_event;
    snprintf(s->watch.stream_id, sizeof s->watch.stream_id, "%s", id);
    assert_int_equal(mu_feed_watch(f, &s->watch), 0);
}

static void publish(struct mu_feed *f, const char *id, int64_t seq)
{
    struct mu_event *e = mu_event_new(7, seq, 1, -1, 0, MU_B("{}"));
    assert_non_null(e);
    mu_feed_publish(f, mu_str(id), e);
    mu_event_unref(e);
}

struct stop {
    struct mu_post post;
    struct mu_loop *loop;
};

static void on_stop(struct mu_post *p)
{
    mu_loop_stop(MU_CONTAINER(p, struct stop, post)->loop);
}

/* Runs what is posted by now. */
static void turn(struct mu_loop *loop)
{
    struct stop s = {.post.fn = on_stop, .loop = loop};
    mu_loop_post(loop, &s.post);
    mu_loop_run(loop);
}

struct world {
    struct mu_loop *loop;
    struct mu_feed *feed;
};

static struct world world_new(void)
{
    struct world w;
    assert_int_equal(mu_loop_new(&mu_env_real, "feed", &w.loop), 0);
    assert_int_equal(mu_feed_new(&w.loop, 1, &w.feed), 0);
    return w;
}

static void world_end(struct world *w)
{
    mu_loop_free(w->loop);
    mu_feed_free(w->feed);
}

static void watchers_get_their_streams_events_in_order(void **state)
{
    struct world w = world_new();
    struct sub a = {0}, b = {0}, c = {0};
    subscribe(w.feed, w.loop, &a, "s1");
    subscribe(w.feed, w.loop, &b, "s1");
    subscribe(w.feed, w.loop, &c, "s2");
    assert_int_equal(mu_feed_watches(w.feed), 3);
    for (int i = 1; i <= 20; i++) {
        publish(w.feed, "s1", i);
        publish(w.feed, "s3", i);
    }
    publish(w.feed, "s2", 5);
    assert_int_equal(a.n, 0);
    turn(w.loop);
    assert_int_equal(a.n, 20);
    assert_int_equal(b.n, 20);
    assert_int_equal(c.n, 1);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(a.seqs[i], i + 1);
        assert_int_equal(b.seqs[i], i + 1);
    }
    mu_feed_unwatch(w.feed, &a.watch);
    mu_feed_unwatch(w.feed, &b.watch);
    mu_feed_unwatch(w.feed, &c.watch);
    world_end(&w);
}

static struct tapped {
    char streams[8][8];
    int64_t seqs[8];
    int n;
} tapped;

static void on_tap(void *arg, mu_bytes stream_id, struct mu_event *e)
{
    struct tapped *t = arg;
    snprintf(t->streams[t->n], sizeof t->streams[0], "%.*s", MU_ARGS(stream_id));
    t->seqs[t->n++] = e->seq;
}

static void a_tap_gets_every_stream_at_once(void **state)
{
    struct world w = world_new();
    struct sub a = {0};
    mu_feed_tap(w.feed, on_tap, &tapped);
    assert_true(mu_feed_watched(w.feed, MU_B("s2")));
    assert_int_equal(mu_feed_watches(w.feed), 0);
    subscribe(w.feed, w.loop, &a, "s1");
    publish(w.feed, "s1", 1);
    publish(w.feed, "s2", 7);
    publish(w.feed, "s1", 2);
    assert_int_equal(tapped.n, 3);
    assert_string_equal(tapped.streams[1], "s2");
    assert_int_equal(tapped.seqs[1], 7);
    assert_int_equal(tapped.seqs[2], 2);
    turn(w.loop);
    assert_int_equal(a.n, 2);
    mu_feed_unwatch(w.feed, &a.watch);
    world_end(&w);
}

static void nothing_comes_after_unwatch_even_when_it_was_published_before(void **state)
{
    struct world w = world_new();
    struct sub a = {0};
    subscribe(w.feed, w.loop, &a, "s1");
    assert_true(mu_feed_watched(w.feed, MU_B("s1")));
    publish(w.feed, "s1", 1);
    mu_feed_unwatch(w.feed, &a.watch);
    mu_feed_unwatch(w.feed, &a.watch);
    assert_false(mu_feed_watched(w.feed, MU_B("s1")));
    assert_int_equal(mu_feed_watches(w.feed), 0);
    turn(w.loop);
    assert_int_equal(a.n, 0);
    world_end(&w);
}

static void drop_other_and_self(struct sub *s)
{
    mu_feed_unwatch(s->feed, &s->other->watch);
    mu_feed_unwatch(s->feed, &s->watch);
}

static void watch_again(struct sub *s)
{
    mu_feed_unwatch(s->feed, &s->watch);
    assert_int_equal(mu_feed_watch(s->feed, &s->watch), 0);
}

static void a_callback_may_unwatch_anybody(void **state)
{
    struct world w = world_new();
    struct sub a = {0}, b = {0}, c = {0};
    subscribe(w.feed, w.loop, &a, "s1");
    subscribe(w.feed, w.loop, &b, "s1");
    subscribe(w.feed, w.loop, &c, "s1");
    a.then = drop_other_and_self;
    a.other = &b; /* the next in line */
    publish(w.feed, "s1", 1);
    publish(w.feed, "s1", 2);
    turn(w.loop);
    assert_int_equal(a.n, 1);
    assert_int_equal(b.n, 0);
    assert_int_equal(c.n, 2);
    mu_feed_unwatch(w.feed, &c.watch);
    assert_false(mu_feed_watched(w.feed, MU_B("s1")));
    world_end(&w);
}

static void a_callback_that_watches_again_gets_an_event_once(void **state)
{
    struct world w = world_new();
    struct sub a = {.then = watch_again};
    subscribe(w.feed, w.loop, &a, "s1");
    publish(w.feed, "s1", 1);
    publish(w.feed, "s1", 2);
    turn(w.loop);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.seqs[0], 1);
    assert_int_equal(a.seqs[1], 2);
    mu_feed_unwatch(w.feed, &a.watch);
    assert_int_equal(mu_feed_watches(w.feed), 0);
    world_end(&w);
}

struct tally {
    struct mu_watch watch;
    int deltas, events;
};

static void on_any(struct mu_watch *w, struct mu_event *e)
{
    struct tally *t = MU_CONTAINER(w, struct tally, watch);
    t->deltas += e->seq == 0;
    t->events += e->seq != 0;
}

static void deltas_are_bounded_and_events_still_pass(void **state)
{
    struct world w = world_new();
    struct tally t = {.watch = {.loop = w.loop, .on_event = on_any, .stream_id = "s1"}};
    assert_int_equal(mu_feed_watch(w.feed, &t.watch), 0);
    struct mu_event *delta = mu_event_new(1, 0, 1, 0, 1, MU_B("x"));
    assert_non_null(delta);
    for (int i = 0; i < 20000; i++) {
        mu_feed_publish(w.feed, MU_B("s1"), delta);
    }
    mu_event_unref(delta);
    for (int i = 1; i <= 500; i++) {
        publish(w.feed, "s1", i);
    }
    turn(w.loop);
    assert_int_equal(t.deltas, 16384);
    assert_int_equal(t.events, 500);
    mu_feed_unwatch(w.feed, &t.watch);
    world_end(&w);
}

/* --- several loops and publishers --- */

enum { LOOPS = 3, STREAMS = 8, EVENTS = 3000 };

struct counter {
    struct mu_watch watch;
    int64_t last;
    long got, wrong;
};

struct member {
    struct mu_post post;
    struct mu_feed *feed;
    struct mu_loop *loop;
    struct counter counters[STREAMS];
    bool leave;
    pthread_barrier_t *barrier;
};

static void count_event(struct mu_watch *w, struct mu_event *e)
{
    struct counter *c = MU_CONTAINER(w, struct counter, watch);
    c->wrong += e->seq != c->last + 1;
    c->last = e->seq;
    c->got++;
}

static void join_or_leave(struct mu_post *p)
{
    struct member *m = MU_CONTAINER(p, struct member, post);
    for (int i = 0; i < STREAMS; i++) {
        struct mu_watch *w = &m->counters[i].watch;
        if (m->leave) {
            mu_feed_unwatch(m->feed, w);
            continue;
        }
        w->loop = m->loop;
        w->on_event = count_event;
        snprintf(w->stream_id, sizeof w->stream_id, "stream-%d", i);
        if (mu_feed_watch(m->feed, w) < 0) {
            abort();
        }
    }
    pthread_barrier_wait(m->barrier);
}

struct publisher {
    pthread_t thread;
    struct mu_feed *feed;
    int stream;
};

static void *publish_many(void *arg)
{
    struct publisher *p = arg;
    char id[32];
    snprintf(id, sizeof id, "stream-%d", p->stream);
    for (int i = 1; i <= EVENTS; i++) {
        struct mu_event *e = mu_event_new(1, i, 1, -1, 0, MU_B("{}"));
        mu_feed_publish(p->feed, mu_str(id), e);
        mu_event_unref(e);
    }
    return NULL;
}

static void every_loop_gets_everything_in_order(void **state)
{
    struct mu_loop *loops[LOOPS];
    struct mu_feed *feed;
    pthread_barrier_t barrier;
    static struct member members[LOOPS];
    struct publisher publishers[STREAMS];
    pthread_barrier_init(&barrier, NULL, LOOPS + 1);
    for (int i = 0; i < LOOPS; i++) {
        assert_int_equal(mu_loop_new(&mu_env_real, "feed", &loops[i]), 0);
    }
    assert_int_equal(mu_feed_new(loops, LOOPS, &feed), 0);
    for (int i = 0; i < LOOPS; i++) {
        assert_int_equal(mu_loop_start(loops[i]), 0);
        members[i] = (struct member){
            .post.fn = join_or_leave, .feed = feed, .loop = loops[i], .barrier = &barrier};
        mu_loop_post(loops[i], &members[i].post);
    }
    pthread_barrier_wait(&barrier);
    assert_int_equal(mu_feed_watches(feed), LOOPS * STREAMS);
    for (int i = 0; i < STREAMS; i++) {
        publishers[i] = (struct publisher){.feed = feed, .stream = i};
        pthread_create(&publishers[i].thread, NULL, publish_many, &publishers[i]);
    }
    for (int i = 0; i < STREAMS; i++) {
        pthread_join(publishers[i].thread, NULL);
    }
    for (int i = 0; i < LOOPS; i++) {
        members[i].leave = true;
        mu_loop_post(loops[i], &members[i].post); /* behind all deliveries */
    }
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < LOOPS; i++) {
        mu_loop_stop(loops[i]);
        mu_loop_join(loops[i]);
        mu_loop_free(loops[i]);
        for (int k = 0; k < STREAMS; k++) {
            assert_int_equal(members[i].counters[k].got, EVENTS);
            assert_int_equal(members[i].counters[k].wrong, 0);
        }
    }
    assert_int_equal(mu_feed_watches(feed), 0);
    mu_feed_free(feed);
    pthread_barrier_destroy(&barrier);
}

/* --- events --- */

static int released;

static void release(void *encoded)
{
    released++;
    free(encoded);
}

static void the_first_encoding_holds_and_goes_with_the_event(void **state)
{
    struct mu_event *e = mu_event_new(1, 2, 3, 4, 5, MU_B("data"));
    assert_true(mu_bytes_is(e->data, "data"));
    void *one = malloc(8), *two = malloc(8);
    released = 0;
    assert_ptr_equal(mu_event_encode(e, 0, one, release), one);
    assert_ptr_equal(mu_event_encode(e, 0, two, release), one);
    assert_int_equal(released, 1);
    void *other_way = malloc(8);
    assert_ptr_equal(mu_event_encode(e, 1, other_way, release), other_way);
    mu_event_ref(e);
    mu_event_unref(e);
    assert_int_equal(released, 1);
    mu_event_unref(e);
    assert_int_equal(released, 3);
}

static void a_logged_event_says_who(void **state)
{
    const struct mu_event like = {.type = 1,
                                  .seq = 2,
                                  .at_ms = 3,
                                  .offset = -1,
                                  .actor = MU_B("admin"),
                                  .data = MU_B("{}"),
                                  .stream = MU_B("s1"),
                                  .org = MU_B("org")};
    struct mu_event *e = mu_event_committed(&like);
    assert_non_null(e);
    assert_true(mu_bytes_is(e->stream, "s1"));
    assert_true(mu_bytes_is(e->org, "org"));
    assert_true(mu_bytes_is(e->actor, "admin"));
    assert_true(mu_bytes_is(e->data, "{}"));
    assert_int_equal(e->offset, -1);
    mu_event_unref(e);
}

static void on_lost(struct mu_watch *w)
{
    struct sub *s = MU_CONTAINER(w, struct sub, watch);
    s->lost++;
    s->lost_behind = s->n;
}

static void announce(struct mu_feed *f, const char *topic, int64_t seq)
{
    struct mu_event *e = mu_event_new(7, seq, 1, -1, 0, MU_B("{}"));
    assert_non_null(e);
    mu_feed_announce(f, mu_str(topic), e);
    mu_event_unref(e);
}

static void a_topic_is_told_to_its_watchers_and_not_to_the_tap(void **state)
{
    struct world w = world_new();
    struct sub a = {0}, b = {0};
    memset(&tapped, 0, sizeof tapped);
    mu_feed_tap(w.feed, on_tap, &tapped);
    assert_false(mu_feed_awaited(w.feed, MU_B("org:a"))); /* a tap awaits no topic */
    subscribe(w.feed, w.loop, &a, "org:a");
    subscribe(w.feed, w.loop, &b, "org:b");
    assert_true(mu_feed_awaited(w.feed, MU_B("org:a")));
    assert_false(mu_feed_awaited(w.feed, MU_B("org:c")));
    announce(w.feed, "org:a", 3);
    announce(w.feed, "org:c", 4);
    publish(w.feed, "s1", 5);
    turn(w.loop);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.seqs[0], 3);
    assert_int_equal(b.n, 0);
    assert_int_equal(tapped.n, 1);
    assert_string_equal(tapped.streams[0], "s1");
    mu_feed_unwatch(w.feed, &a.watch);
    mu_feed_unwatch(w.feed, &b.watch);
    assert_false(mu_feed_awaited(w.feed, MU_B("org:a")));
    world_end(&w);
}

static void who_missed_something_hears_so_before_the_next(void **state)
{
    struct world w = world_new();
    struct sub a = {0}, late = {0}, again = {0}, careless = {0};
    a.watch.on_lost = late.watch.on_lost = again.watch.on_lost = on_lost;
    subscribe(w.feed, w.loop, &a, "org:a");
    subscribe(w.feed, w.loop, &careless, "org:a");
    announce(w.feed, "org:a", 1);
    mu_feed_skip(w.feed, MU_B("org:a"));
    mu_feed_skip(w.feed, MU_B("org:b")); /* nobody's */
    turn(w.loop);
    assert_int_equal(a.lost, 0); /* nothing came behind it yet */
    announce(w.feed, "org:a", 3);
    announce(w.feed, "org:a", 4);
    turn(w.loop);
    assert_int_equal(a.n, 3);
    assert_int_equal(a.lost, 1);
    assert_int_equal(a.lost_behind, 1);
    assert_int_equal(careless.n, 3);
    /* who comes later, or again, missed nothing that it should have had */
    mu_feed_skip(w.feed, MU_B("org:a"));
    mu_feed_unwatch(w.feed, &a.watch);
    mu_feed_unwatch(w.feed, &careless.watch);
    subscribe(w.feed, w.loop, &again, "org:a");
    announce(w.feed, "org:a", 6);
    turn(w.loop);
    subscribe(w.feed, w.loop, &late, "org:a");
    announce(w.feed, "org:a", 7);
    turn(w.loop);
    assert_int_equal(again.n, 2);
    assert_int_equal(again.lost, 0);
    assert_int_equal(late.n, 1);
    assert_int_equal(late.lost, 0);
    mu_feed_skip(w.feed, MU_B("org:a"));
    announce(w.feed, "org:a", 9);
    turn(w.loop);
    assert_int_equal(again.lost, 1);
    assert_int_equal(late.lost, 1);
    mu_feed_unwatch(w.feed, &again.watch);
    mu_feed_unwatch(w.feed, &late.watch);
    world_end(&w);
}

static void stop_counting(struct sub *s)
{
    s->n = 0;
}

static void what_a_loop_had_no_room_for_is_heard_of(void **state)
{
    struct world w = world_new();
    struct sub a = {.then = stop_counting};
    a.watch.on_lost = on_lost;
    subscribe(w.feed, w.loop, &a, "s1");
    for (int i = 0; i < 20000; i++) {
        publish(w.feed, "s1", 0);
    }
    turn(w.loop);
    assert_int_equal(a.lost, 0);
    publish(w.feed, "s1", 1);
    turn(w.loop);
    assert_int_equal(a.lost, 1);
    mu_feed_unwatch(w.feed, &a.watch);
    world_end(&w);
}

static void left_over_watches_and_events_are_released_with_the_feed(void **state)
{
    struct world w = world_new();
    struct sub a = {0};
    subscribe(w.feed, w.loop, &a, "s1");
    publish(w.feed, "s1", 1);
    turn(w.loop);
    publish(w.feed, "s1", 2);
    mu_loop_free(w.loop);
    mu_feed_free(w.feed);
    assert_false(a.watch.active);
}

static int feed_without_memory(void *arg)
{
    struct mu_loop *loop = arg;
    struct mu_feed *f = NULL;
    struct sub subs[20] = {0};
    int r = mu_feed_new(&loop, 1, &f);
    for (int i = 0; i < 20 && r == 0; i++) {
        struct sub *s = &subs[i];
        s->feed = f;
        s->watch.loop = loop;
        s->watch.on_event = on_event;
        snprintf(s->watch.stream_id, sizeof s->watch.stream_id, "s%d", i);
        r = mu_feed_watch(f, &s->watch);
        assert_true(s->watch.active == (r == 0));
        assert_true(mu_feed_watched(f, mu_str(s->watch.stream_id)) == (r == 0));
        struct mu_event *e = r == 0 ? mu_event_new(1, i, 1, -1, 0, MU_B("{}")) : NULL;
        if (e) {
            mu_feed_publish(f, mu_str(s->watch.stream_id), e);
            mu_event_unref(e);
        }
    }
    turn(loop);
    for (int i = 0; i < 20 && f; i++) {
        mu_feed_unwatch(f, &subs[i].watch);
    }
    mu_feed_free(f);
    return r;
}

static void any_allocation_may_fail(void **state)
{
    struct mu_loop *loop;
    assert_int_equal(mu_loop_new(&mu_env_real, "feed", &loop), 0);
    each_allocation_fails(feed_without_memory, loop);
    mu_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(watchers_get_their_streams_events_in_order),
        cmocka_unit_test(a_tap_gets_every_stream_at_once),
        cmocka_unit_test(nothing_comes_after_unwatch_even_when_it_was_published_before),
        cmocka_unit_test(a_callback_may_unwatch_anybody),
        cmocka_unit_test(a_callback_that_watches_again_gets_an_event_once),
        cmocka_unit_test(deltas_are_bounded_and_events_still_pass),
        cmocka_unit_test(every_loop_gets_everything_in_order),
        cmocka_unit_test(the_first_encoding_holds_and_goes_with_the_event),
        cmocka_unit_test(a_logged_event_says_who),
        cmocka_unit_test(a_topic_is_told_to_its_watchers_and_not_to_the_tap),
        cmocka_unit_test(who_missed_something_hears_so_before_the_next),
        cmocka_unit_test(what_a_loop_had_no_room_for_is_heard_of),
        cmocka_unit_test(left_over_watches_and_events_are_released_with_the_feed),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
