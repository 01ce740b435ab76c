/* An event loop: one thread, its timers, and a queue through which every other thread hands it
 * work. Built on libuv, whose types stay inside io/ and net/ (stack.md 2). */
#ifndef MU_IO_LOOP_H
#define MU_IO_LOOP_H

#include "base/env.h"
#include "base/err.h"
#include "base/heap.h"
#include "base/list.h"

struct mu_loop;

/* A message to a loop, embedded in the object it is about (no allocation, so posting cannot fail).
 * One post object is in at most one queue at a time. */
struct mu_post {
    struct mu_post *next;
    void (*fn)(struct mu_post *post); /* on the loop's thread */
};

/* `env` must outlive the loop. `name` is the thread's name (at most 15 characters). A SIGPIPE that
 * would end the process is set to be ignored: broken pipes are results of write(). */
MU_MUST_USE int mu_loop_new(const struct mu_env *env, const char *name, struct mu_loop **ret);
/* Starts a thread that runs the loop until mu_loop_stop(); mu_loop_join() waits for it. Not twice.
 */
MU_MUST_USE int mu_loop_start(struct mu_loop *loop);
/* Runs on the calling thread instead (tests, command line). Returns after mu_loop_stop(). */
void mu_loop_run(struct mu_loop *loop);
/* One turn on the calling thread, for a host that drives the loop itself: what is posted, what is
 * due, what came; `wait`: when there is nothing, until something comes. Nobody else runs it just
 * then. Returns how many posts were delivered and timers fired. */
size_t mu_loop_turn(struct mu_loop *loop, bool wait);
/* When the first timer is due, on the clock of mu_loop_now_ms(); INT64_MAX: none is set. Loop
 * thread, or between the turns. */
int64_t mu_loop_due_ms(const struct mu_loop *loop);
/* Any thread: the loop ends after the turn in which it sees this; posts that are queued by then are
 * still delivered. */
void mu_loop_stop(struct mu_loop *loop);
void mu_loop_join(struct mu_loop *loop);
/* After join (or run), when nobody posts any more: delivers what was posted since, closes what is
 * still open and frees. Returns NULL. */
struct mu_loop *mu_loop_free(struct mu_loop *loop);

/* Any thread. Order is kept per posting thread. Wakes the loop at most once for many posts. */
void mu_loop_post(struct mu_loop *loop, struct mu_post *post);
/* Posts a whole chain linked by ->next (first..last) with one wake-up: the writer completes a batch
 * with it. */
void mu_loop_post_chain(struct mu_loop *loop, struct mu_post *first, struct mu_post *last);

/* Whether the caller is on the loop's thread (before start: any thread). MU_CHECK this in code that
 * must be. */
bool mu_loop_here(const struct mu_loop *loop);
const struct mu_env *mu_loop_env(const struct mu_loop *loop);
/* Monotonic milliseconds, cached per loop turn. Loop thread. */
int64_t mu_loop_now_ms(const struct mu_loop *loop);
/* The libuv loop; for io/, net/ and exec/ only. */
void *mu_loop_uv(struct mu_loop *loop);

/* A timer; a heap inside the loop holds any number of them over one libuv timer. Loop thread only.
 * Memory is the caller's: it must be cleared before it goes away. */
struct mu_timer {
    struct mu_heap_node node; /* in the loop's heap */
    int64_t due_ms;
    uint64_t order;
    void (*fn)(struct mu_timer *t);
    struct mu_loop *loop;
};
/* Zeroes and names the callback; nothing is set yet. */
void mu_timer_init(struct mu_timer *t, struct mu_loop *loop, void (*fn)(struct mu_timer *t));
/* Fires once, `delay_ms` from now (0 = next turn); setting it again moves it. -ENOMEM. */
MU_MUST_USE int mu_timer_set(struct mu_timer *t, int64_t delay_ms);
void mu_timer_clear(struct mu_timer *t);
static inline bool mu_timer_is_set(const struct mu_timer *t)
{
    return t->node.place != 0;
}

/* Delivers SIGINT, SIGTERM, SIGHUP … on the loop. One subscription per signal and process
 * (MU_E_EXISTS), until the loop is freed. Loop thread. */
MU_MUST_USE int mu_loop_signal(struct mu_loop *loop, int signum, void (*fn)(void *arg, int signum),
                               void *arg);

/* The watchdog (c-style.md 1.7): one thread that watches up to 64 loops and calls `report` (on its
 * own thread) once for every loop turn longer than `limit_ms`: when the turn has ended, or, if it
 * does not, after ten to twenty times the limit. Start after the loops, stop before them. */
struct mu_watchdog;
MU_MUST_USE int mu_watchdog_new(struct mu_loop **loops, size_t n, int64_t limit_ms,
                                void (*report)(void *arg, const char *loop_name, int64_t turn_ms),
                                void *arg, struct mu_watchdog **ret);
struct mu_watchdog *mu_watchdog_free(struct mu_watchdog *w);

#endif
