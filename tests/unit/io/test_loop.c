#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "../alloc_fail.h"
#include "io/loop.h"

static struct mu_loop *new_loop(void)
{
    struct mu_loop *loop;
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &loop), 0);
    return loop;
}

static int64_t now_ns(void)
{
    return mu_env_real.mono_ns(&mu_env_real);
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* --- posts --- */

enum { PRODUCERS = 4, EACH = 20000 };

struct numbered {
    struct mu_post post;
    int producer, number;
    struct sink *sink;
};

struct sink {
    struct mu_loop *loop;
    int next[PRODUCERS];
    long total, expected, wrong;
    struct numbered *items[PRODUCERS];
};

static void receive(struct mu_post *post)
{
    struct numbered *n = MU_CONTAINER(post, struct numbered, post);
    struct sink *s = n->sink;
    s->wrong += n->number != s->next[n->producer] || !mu_loop_here(s->loop);
    s->next[n->producer] = n->number + 1;
    if (++s->total == s->expected) {
        mu_loop_stop(s->loop);
    }
}

struct producer {
    struct sink *sink;
    int index;
    pthread_t thread;
};

static void *produce(void *arg)
{
    struct producer *p = arg;
    struct numbered *items = p->sink->items[p->index];
    for (int i = 0; i < EACH;) {
        int chain = i % 7 == 0 && i + 5 <= EACH ? 5 : 1;
        for (int k = 0; k < chain; k++) {
            items[i + k] = (struct numbered){
                {k + 1 < chain ? &items[i + k + 1].post : NULL, receive}, p->index, i + k, p->sink};
        }
        if (chain > 1) {
            mu_loop_post_chain(p->sink->loop, &items[i].post, &items[i + chain - 1].post);
        } else {
            mu_loop_post(p->sink->loop, &items[i].post);
        }
        i += chain;
    }
    return NULL;
}

static void posts_of_many_threads_arrive_once_and_in_the_order_of_each(void **state MU_UNUSED)
{
    struct sink s = {.loop = new_loop(), .expected = (long)PRODUCERS * EACH};
    struct producer p[PRODUCERS];
    assert_int_equal(mu_loop_start(s.loop), 0);
    for (int i = 0; i < PRODUCERS; i++) {
        s.items[i] = calloc(EACH, sizeof *s.items[i]);
        p[i] = (struct producer){.sink = &s, .index = i};
        assert_int_equal(pthread_create(&p[i].thread, NULL, produce, &p[i]), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(p[i].thread, NULL);
    }
    mu_loop_join(s.loop);
    mu_loop_free(s.loop);
    assert_int_equal(s.total, s.expected);
    assert_int_equal(s.wrong, 0);
    for (int i = 0; i < PRODUCERS; i++) {
        free(s.items[i]);
    }
}

static void one_producer_is_fast(void **state MU_UNUSED)
{
    enum { N = 1000000 };
    struct sink s = {.loop = new_loop(), .expected = N};
    struct numbered *items = calloc(N, sizeof *items);
    assert_int_equal(mu_loop_start(s.loop), 0);
    int64_t begin = now_ns();
    for (int i = 0; i < N; i++) {
        items[i] = (struct numbered){{NULL, receive}, 0, i, &s};
        mu_loop_post(s.loop, &items[i].post);
    }
    int64_t posted = now_ns();
    mu_loop_join(s.loop);
    int64_t end = now_ns();
    printf("post: %.2f million/s handed over, %.2f million/s delivered\n",
           N / 1e6 / ((double)(posted - begin) / 1e9), N / 1e6 / ((double)(end - begin) / 1e9));
    assert_int_equal(s.total, N);
    assert_int_equal(s.wrong, 0);
    mu_loop_free(s.loop);
    free(items);
    /* Sanitizers and neighbours slow this down a lot; a lost wake-up would take for ever. */
    assert_true(end - begin < INT64_C(60000000000));
}

static void posts_queued_at_stop_are_delivered(void **state MU_UNUSED)
{
    struct sink s = {.loop = new_loop(), .expected = -1};
    struct numbered items[3];
    mu_loop_stop(s.loop);
    for (int i = 0; i < 3; i++) {
        items[i] = (struct numbered){{NULL, receive}, 0, i, &s};
        mu_loop_post(s.loop, &items[i].post);
    }
    mu_loop_run(s.loop);
    assert_int_equal(s.total, 3);
    /* And what comes after the end is delivered by free. */
    mu_loop_post(s.loop, &items[0].post);
    mu_loop_free(s.loop);
    assert_int_equal(s.total, 4);
}

struct again {
    struct mu_post post;
    struct mu_loop *loop;
    int left;
};

static void post_again(struct mu_post *post)
{
    struct again *a = MU_CONTAINER(post, struct again, post);
    if (--a->left > 0) {
        mu_loop_post(a->loop, post);
    } else {
        mu_loop_stop(a->loop);
    }
}

static void a_post_may_post_itself_again(void **state MU_UNUSED)
{
    struct again a = {.post = {NULL, post_again}, .loop = new_loop(), .left = 1000};
    mu_loop_post(a.loop, &a.post);
    mu_loop_run(a.loop);
    assert_int_equal(a.left, 0);
    mu_loop_free(a.loop);
}

static void here_is_only_the_thread_of_the_loop(void **state MU_UNUSED)
{
    struct mu_loop *loop = new_loop();
    assert_true(mu_loop_here(loop));
    assert_int_equal(mu_loop_start(loop), 0);
    assert_false(mu_loop_here(loop));
    mu_loop_stop(loop);
    mu_loop_join(loop);
    assert_true(mu_loop_here(loop));
    mu_loop_free(loop);
}

/* --- timers --- */

enum { TIMERS = 500 };

struct ticks {
    struct mu_loop *loop;
    struct mu_timer timers[TIMERS];
    int64_t fired_ms[TIMERS];
    int order[TIMERS];
    int n, stop_after;
};

static struct ticks *ticks;

static void tick(struct mu_timer *t)
{
    int i = (int)(t - ticks->timers);
    assert_false(mu_timer_is_set(t));
    ticks->fired_ms[i] = mu_loop_now_ms(t->loop);
    ticks->order[ticks->n++] = i;
    if (ticks->n == ticks->stop_after) {
        mu_loop_stop(t->loop);
    }
}

static void begin_ticks(int stop_after)
{
    ticks = calloc(1, sizeof *ticks);
    ticks->loop = new_loop();
    ticks->stop_after = stop_after;
    for (int i = 0; i < TIMERS; i++) {
        mu_timer_init(&ticks->timers[i], ticks->loop, tick);
    }
}

static void end_ticks(void)
{
    mu_loop_free(ticks->loop);
    free(ticks);
    ticks = NULL;
}

static void timers_fire_in_order_and_never_early(void **state MU_UNUSED)
{
    begin_ticks(TIMERS);
    int64_t due[TIMERS];
    for (int i = 0; i < TIMERS; i++) {
        int64_t delay = (i * 37) % 61;
        assert_int_equal(mu_timer_set(&ticks->timers[i], delay), 0);
        due[i] = ticks->timers[i].due_ms;
        assert_true(mu_timer_is_set(&ticks->timers[i]));
    }
    mu_loop_run(ticks->loop);
    for (int k = 0; k < TIMERS; k++) {
        int i = ticks->order[k];
        assert_true(ticks->fired_ms[i] >= due[i]);
        if (k > 0) {
            int before = ticks->order[k - 1];
            assert_true(due[before] < due[i] || (due[before] == due[i] && before < i));
        }
    }
    end_ticks();
}

static void a_cleared_timer_stays_silent_and_a_moved_one_fires_once(void **state MU_UNUSED)
{
    begin_ticks(2);
    assert_int_equal(mu_timer_set(&ticks->timers[0], 1), 0);
    assert_int_equal(mu_timer_set(&ticks->timers[1], 1), 0);
    assert_int_equal(mu_timer_set(&ticks->timers[2], 60), 0);
    mu_timer_clear(&ticks->timers[0]);
    mu_timer_clear(&ticks->timers[0]);
    assert_int_equal(mu_timer_set(&ticks->timers[1], 30), 0);
    mu_loop_run(ticks->loop);
    assert_int_equal(ticks->n, 2);
    assert_int_equal(ticks->order[0], 1);
    assert_int_equal(ticks->order[1], 2);
    end_ticks();
}

struct zero {
    struct mu_timer timer;
    struct mu_post post;
    bool posted;
    int fired;
};

static void zero_post(struct mu_post *post)
{
    MU_CONTAINER(post, struct zero, post)->posted = true;
}

static void zero_tick(struct mu_timer *t)
{
    struct zero *z = MU_CONTAINER(t, struct zero, timer);
    if (++z->fired == 1) {
        mu_loop_post(t->loop, &z->post);
        assert_int_equal(mu_timer_set(t, 0), 0);
    } else if (!z->posted && z->fired < 100) {
        assert_int_equal(mu_timer_set(t, 0), 0);
    } else {
        mu_loop_stop(t->loop);
    }
}

static void a_timer_of_zero_set_in_a_timer_lets_the_rest_of_the_loop_run(void **state MU_UNUSED)
{
    struct zero z = {.post = {NULL, zero_post}};
    struct mu_loop *loop = new_loop();
    mu_timer_init(&z.timer, loop, zero_tick);
    assert_int_equal(mu_timer_set(&z.timer, 0), 0);
    mu_loop_run(loop);
    assert_true(z.posted);
    assert_true(z.fired < 100);
    mu_loop_free(loop);
}

struct nap {
    struct mu_post post;
    struct mu_loop *loop;
    int64_t before, cached, set_ms;
    struct mu_timer timer;
};

static void nap_done(struct mu_timer *t)
{
    struct nap *n = MU_CONTAINER(t, struct nap, timer);
    n->set_ms = mu_env_mono_ms(&mu_env_real) - n->set_ms;
    mu_loop_stop(n->loop);
}

static void nap_post(struct mu_post *post)
{
    struct nap *n = MU_CONTAINER(post, struct nap, post);
    /* The loop slept until this post: time must have moved on with it. */
    n->cached = mu_loop_now_ms(n->loop);
    n->set_ms = mu_env_mono_ms(&mu_env_real);
    assert_int_equal(mu_timer_set(&n->timer, 50), 0);
}

static void a_timer_set_after_a_long_wait_counts_from_now(void **state MU_UNUSED)
{
    struct nap n = {.post = {NULL, nap_post}, .loop = new_loop()};
    mu_timer_init(&n.timer, n.loop, nap_done);
    n.before = mu_loop_now_ms(n.loop);
    assert_int_equal(mu_loop_start(n.loop), 0);
    sleep_ms(120);
    mu_loop_post(n.loop, &n.post);
    mu_loop_join(n.loop);
    mu_loop_free(n.loop);
    assert_true(n.cached >= n.before + 110);
    assert_true(n.set_ms >= 45);
}

/* --- signals --- */

static void on_signal(void *arg, int signum)
{
    struct mu_loop *loop = arg;
    assert_int_equal(signum, SIGUSR1);
    assert_true(mu_loop_here(loop));
    mu_loop_stop(loop);
}

static void a_signal_is_delivered_on_the_loop(void **state MU_UNUSED)
{
    struct mu_loop *loop = new_loop();
    assert_int_equal(mu_loop_signal(loop, SIGUSR1, on_signal, loop), 0);
    assert_int_equal(mu_loop_signal(loop, SIGUSR1, on_signal, loop), MU_E_EXISTS);
    assert_int_equal(mu_loop_signal(loop, 9999, on_signal, loop), -EINVAL);
    assert_int_equal(mu_loop_start(loop), 0);
    kill(getpid(), SIGUSR1);
    mu_loop_join(loop);
    mu_loop_free(loop);
}

static void broken_pipes_do_not_kill(void **state MU_UNUSED)
{
    int fd[2];
    struct mu_loop *loop = new_loop();
    assert_int_equal(pipe(fd), 0);
    close(fd[0]);
    assert_int_equal(write(fd[1], "x", 1), -1);
    assert_int_equal(errno, EPIPE);
    close(fd[1]);
    mu_loop_free(loop);
}

/* --- watchdog --- */

struct reports {
    atomic_int n;
    atomic_long longest;
};

static void on_report(void *arg, const char *name, int64_t turn_ms)
{
    struct reports *r = arg;
    assert_string_equal(name, "test");
    atomic_fetch_add(&r->n, 1);
    if (turn_ms > atomic_load(&r->longest)) {
        atomic_store(&r->longest, (long)turn_ms);
    }
}

struct hog {
    struct mu_post post;
    long ms;
    atomic_bool done;
};

static void hog(struct mu_post *post)
{
    struct hog *h = MU_CONTAINER(post, struct hog, post);
    sleep_ms(h->ms);
    atomic_store(&h->done, true);
}

static int hog_for(long ms, int64_t limit_ms, long wait_ms, long *ret_longest)
{
    struct reports r = {0};
    struct mu_watchdog *w;
    struct mu_loop *loop = new_loop();
    struct hog h = {.post = {NULL, hog}, .ms = ms};
    assert_int_equal(mu_loop_start(loop), 0);
    assert_int_equal(mu_watchdog_new(&loop, 1, limit_ms, on_report, &r, &w), 0);
    sleep_ms(30);
    if (ms) {
        mu_loop_post(loop, &h.post);
    }
    sleep_ms(wait_ms);
    assert_null(mu_watchdog_free(w));
    mu_loop_stop(loop);
    mu_loop_join(loop);
    mu_loop_free(loop);
    *ret_longest = atomic_load(&r.longest);
    return atomic_load(&r.n);
}

static void a_long_turn_is_reported_once_with_its_length(void **state MU_UNUSED)
{
    long longest;
    assert_int_equal(hog_for(400, 100, 700, &longest), 1);
    assert_in_range(longest, 395, 690);
}

static void a_turn_that_does_not_end_is_reported_meanwhile_and_only_once(void **state MU_UNUSED)
{
    long longest;
    assert_int_equal(hog_for(2500, 80, 2800, &longest), 1);
    assert_in_range(longest, 780, 2490);
}

static void an_idle_loop_is_not_reported(void **state MU_UNUSED)
{
    long longest;
    assert_int_equal(hog_for(0, 50, 1300, &longest), 0);
}

static void a_watchdog_refuses_too_many_loops(void **state MU_UNUSED)
{
    struct mu_loop *loops[65] = {0};
    struct mu_watchdog *w;
    assert_int_equal(mu_watchdog_new(loops, 65, 50, on_report, NULL, &w), MU_E_INVALID);
    assert_null(mu_watchdog_free(NULL));
    assert_null(mu_loop_free(NULL));
}

/* --- a loop that its host turns --- */

static int64_t hand_ns;

static int64_t hand_mono(const struct mu_env *env MU_UNUSED)
{
    return hand_ns;
}

static int fired;

static void on_fired(struct mu_timer *t MU_UNUSED)
{
    fired++;
}

static void on_posted(struct mu_post *post MU_UNUSED)
{
    fired++;
}

static void *post_later(void *arg)
{
    static struct mu_post late = {.fn = on_posted};
    sleep_ms(20);
    mu_loop_post(arg, &late);
    return NULL;
}

static void a_host_turns_the_loop_by_its_own_clock(void **state MU_UNUSED)
{
    const struct mu_env env = {mu_env_real.wall_ms, hand_mono, mu_env_real.random, NULL};
    struct mu_loop *loop;
    struct mu_timer a, b;
    struct mu_post post = {.fn = on_posted};
    hand_ns = INT64_C(5000000000);
    fired = 0;
    assert_int_equal(mu_loop_new(&env, "hand", &loop), 0);
    assert_int_equal(mu_loop_due_ms(loop), INT64_MAX);
    mu_timer_init(&a, loop, on_fired);
    mu_timer_init(&b, loop, on_fired);
    assert_int_equal(mu_timer_set(&a, 86400000), 0);
    assert_int_equal(mu_timer_set(&b, 3600000), 0);
    assert_int_equal(mu_loop_due_ms(loop), 5000 + 3600000);
    assert_int_equal(mu_loop_turn(loop, false), 0);
    mu_loop_post(loop, &post);
    assert_int_equal(mu_loop_turn(loop, true), 1);
    hand_ns += INT64_C(3600) * 1000000000;
    assert_int_equal(mu_loop_turn(loop, true), 1);
    assert_int_equal(mu_loop_due_ms(loop), 5000 + 86400000);
    hand_ns += INT64_C(86400) * 1000000000;
    assert_int_equal(mu_loop_turn(loop, false), 1);
    assert_int_equal(mu_loop_due_ms(loop), INT64_MAX);
    assert_int_equal(fired, 3);
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, post_later, loop), 0);
    while (mu_loop_turn(loop, true) == 0) { /* a wake-up of before may end the wait */
    }
    assert_int_equal(fired, 4);
    pthread_join(other, NULL);
    mu_loop_free(loop);
}

/* --- memory --- */

static int whole_life(void *arg MU_UNUSED)
{
    struct mu_loop *loop = NULL;
    struct mu_watchdog *w = NULL;
    struct mu_timer t;
    int r = mu_loop_new(&mu_env_real, "test", &loop);
    if (r < 0) {
        return r;
    }
    mu_timer_init(&t, loop, zero_tick);
    r = mu_timer_set(&t, 1000);
    if (r == 0) {
        r = mu_loop_signal(loop, SIGUSR2, on_signal, loop);
    }
    if (r == 0) {
        r = mu_watchdog_new(&loop, 1, 1000, on_report, NULL, &w);
    }
    mu_watchdog_free(w);
    mu_timer_clear(&t);
    mu_loop_free(loop);
    return r;
}

static void no_failing_allocation_leaks(void **state MU_UNUSED)
{
    each_allocation_fails(whole_life, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_of_many_threads_arrive_once_and_in_the_order_of_each),
        cmocka_unit_test(one_producer_is_fast),
        cmocka_unit_test(posts_queued_at_stop_are_delivered),
        cmocka_unit_test(a_post_may_post_itself_again),
        cmocka_unit_test(here_is_only_the_thread_of_the_loop),
        cmocka_unit_test(timers_fire_in_order_and_never_early),
        cmocka_unit_test(a_cleared_timer_stays_silent_and_a_moved_one_fires_once),
        cmocka_unit_test(a_timer_of_zero_set_in_a_timer_lets_the_rest_of_the_loop_run),
        cmocka_unit_test(a_timer_set_after_a_long_wait_counts_from_now),
        cmocka_unit_test(a_signal_is_delivered_on_the_loop),
        cmocka_unit_test(broken_pipes_do_not_kill),
        cmocka_unit_test(a_long_turn_is_reported_once_with_its_length),
        cmocka_unit_test(a_turn_that_does_not_end_is_reported_meanwhile_and_only_once),
        cmocka_unit_test(an_idle_loop_is_not_reported),
        cmocka_unit_test(a_watchdog_refuses_too_many_loops),
        cmocka_unit_test(a_host_turns_the_loop_by_its_own_clock),
        cmocka_unit_test(no_failing_allocation_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
