/* What loop.c, timer.c and watchdog.c share. */
#ifndef MU_IO_LOOP_INT_H
#define MU_IO_LOOP_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "base/heap.h"
#include "io/loop.h"

struct mu_loop {
    const struct mu_env *env;
    char name[16];
    uv_loop_t uv;
    uv_poll_t wake;
    int wake_fd; /* an eventfd */
    uv_prepare_t prepare;
    uv_check_t check;

    _Atomic(struct mu_post *) posted; /* newest first */
    atomic_bool stopping;

    pthread_t thread;
    bool has_thread;
    atomic_uintptr_t owner; /* pthread_self() of the thread that runs it; 0 = nobody does */

    uint64_t now_uv; /* the uv_now() for which now_ms was read */
    int64_t now_ms;

    struct mu_heap timers;
    uv_timer_t alarm;
    int64_t alarm_due_ms; /* INT64_MAX = not armed */
    bool timers_overdue;  /* fire from the next wake-up */
    uint64_t timer_order;
    size_t handled; /* posts delivered and timers fired */

    struct mu_list signals;

    uint64_t woke_ms;                 /* when the present turn began, as uv_now() */
    atomic_bool running;              /* for the watchdog: turns are to be expected */
    atomic_uint_fast64_t turns;       /* grows at the end of every turn */
    atomic_int_fast64_t limit_ms;     /* turns longer than this are noted; 0 = nobody watches */
    atomic_int_fast64_t long_turn_ms; /* the longest noted turn the watchdog has not seen yet */
};

/* loop.c: another turn, whoever calls. */
void mu_loop_wake_(struct mu_loop *loop);

/* timer.c */
MU_MUST_USE int mu_loop_timers_init_(struct mu_loop *loop);
void mu_loop_timers_fini_(struct mu_loop *loop);
void mu_loop_timers_fire_(struct mu_loop *loop);
int64_t mu_loop_read_clock_(struct mu_loop *loop);

#endif
