/* Timers: one heap in the loop, one libuv timer armed for its top. The alarm is only moved when an
 * earlier timer comes; a cleared or postponed top costs one early wake-up instead, which is cheaper
 * than re-arming at every change (idle timeouts of connections are postponed all the time). */
#include "io/loop_int.h"

/* Far enough for any use, and no sum below overflows. */
#define MAX_DELAY_MS (INT64_C(1) << 60)
/* The alarm goes off at least this often while timers are set. */
#define MAX_ALARM_MS INT64_C(86400000)

static struct mu_timer *timer_of(const struct mu_heap_node *n)
{
    return MU_CONTAINER(n, struct mu_timer, node);
}

static bool sooner(const struct mu_heap_node *a, const struct mu_heap_node *b)
{
    const struct mu_timer *x = timer_of(a), *y = timer_of(b);
    return x->due_ms != y->due_ms ? x->due_ms < y->due_ms : x->order < y->order;
}

static void on_alarm(uv_timer_t *alarm);

static void arm(struct mu_loop *loop, int64_t due_ms)
{
    int64_t delay = MU_MIN(MU_MAX(due_ms - mu_loop_now_ms(loop), 0), MAX_ALARM_MS);
    /* Cannot fail: the callback is set and the handle is open. */
    MU_CHECK(uv_timer_start(&loop->alarm, on_alarm, (uint64_t)delay, 0) == 0);
    loop->alarm_due_ms = due_ms;
}

void mu_loop_timers_fire_(struct mu_loop *loop)
{
    int64_t now = mu_loop_read_clock_(loop);
    /* A timer set by a callback below waits for the next turn, also with delay 0. */
    uint64_t last = loop->timer_order;
    struct mu_heap_node *n;
    loop->alarm_due_ms = INT64_MIN; /* callbacks need not arm: it is done once, below */
    while ((n = mu_heap_top(&loop->timers)) != NULL) {
        struct mu_timer *t = timer_of(n);
        if (t->due_ms > now || t->order > last) {
            break;
        }
        mu_heap_remove(&loop->timers, n);
        loop->handled++;
        t->fn(t);
    }
    loop->timers_overdue = false;
    loop->alarm_due_ms = INT64_MAX;
    if (!n) {
        return;
    }
    if (timer_of(n)->due_ms > now) {
        arm(loop, timer_of(n)->due_ms);
    } else {
        /* libuv runs a timer that is started with 0 inside a timer's callback in the same turn,
         * before any I/O: the next turn is asked for in another way. */
        loop->timers_overdue = true;
        loop->alarm_due_ms = INT64_MIN;
        mu_loop_wake_(loop);
    }
}

static void on_alarm(uv_timer_t *alarm)
{
    mu_loop_timers_fire_(alarm->data);
}

int mu_loop_timers_init_(struct mu_loop *loop)
{
    mu_heap_init(&loop->timers, sooner);
    loop->alarm_due_ms = INT64_MAX;
    loop->alarm.data = loop;
    return uv_timer_init(&loop->uv, &loop->alarm);
}

void mu_loop_timers_fini_(struct mu_loop *loop)
{
    while (mu_heap_pop(&loop->timers)) {
    }
    mu_heap_fini(&loop->timers);
}

int64_t mu_loop_due_ms(const struct mu_loop *loop)
{
    const struct mu_heap_node *n = mu_heap_top(&((struct mu_loop *)loop)->timers);
    return n ? timer_of(n)->due_ms : INT64_MAX;
}

void mu_timer_init(struct mu_timer *t, struct mu_loop *loop, void (*fn)(struct mu_timer *t))
{
    *t = (struct mu_timer){.loop = loop, .fn = fn};
}

int mu_timer_set(struct mu_timer *t, int64_t delay_ms)
{
    struct mu_loop *loop = t->loop;
    MU_CHECK(mu_loop_here(loop));
    mu_heap_remove(&loop->timers, &t->node);
    t->due_ms = mu_loop_now_ms(loop) + MU_MIN(MU_MAX(delay_ms, 0), MAX_DELAY_MS);
    t->order = ++loop->timer_order;
    int r = mu_heap_push(&loop->timers, &t->node);
    if (r == 0 && t->due_ms < loop->alarm_due_ms) {
        arm(loop, t->due_ms);
    }
    return r;
}

void mu_timer_clear(struct mu_timer *t)
{
    if (mu_timer_is_set(t)) {
        MU_CHECK(mu_loop_here(t->loop));
        mu_heap_remove(&t->loop->timers, &t->node);
    }
}
