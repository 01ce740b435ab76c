/* A turn that ended is measured by its loop and picked up here; a turn that does not end is found
 * out by waking the loop and seeing that it does not turn. An idle loop is thereby woken about
 * twice a second at the usual limit of 50 ms. */
#include "io/loop_int.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

enum { MAX_LOOPS = 64, HUNG_FACTOR = 10 };

struct watched {
    struct mu_loop *loop;
    uint64_t turns;
    int64_t since_ms; /* when `turns` was first seen, or the loop was woken */
    bool woken, reported;
};

struct mu_watchdog {
    struct watched loops[MAX_LOOPS];
    size_t n;
    int64_t limit_ms;
    void (*report)(void *arg, const char *loop_name, int64_t turn_ms);
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool end;
};

static int64_t now_ms(void)
{
    return (int64_t)(uv_hrtime() / 1000000);
}

static void look(struct mu_watchdog *w, struct watched *l)
{
    /* In this order: who sees the end of a turn also sees what it took. */
    uint64_t turns = atomic_load_explicit(&l->loop->turns, memory_order_acquire);
    int64_t took = atomic_exchange(&l->loop->long_turn_ms, 0);
    int64_t now = now_ms();
    if (took > 0 && !l->reported) {
        w->report(w->arg, l->loop->name, took);
    }
    if (turns != l->turns || !atomic_load(&l->loop->running)) {
        l->turns = turns;
        l->since_ms = now;
        l->woken = l->reported = false;
    } else if (now - l->since_ms > HUNG_FACTOR * w->limit_ms && !l->reported) {
        if (l->woken) {
            l->reported = true;
            w->report(w->arg, l->loop->name, now - l->since_ms);
        } else {
            l->woken = true;
            l->since_ms = now;
            mu_loop_wake_(l->loop);
        }
    }
}

static void *thread_main(void *arg)
{
    struct mu_watchdog *w = arg;
    pthread_setname_np(pthread_self(), "mu-watchdog");
    int64_t period_ms = MU_MAX(w->limit_ms / 4, 1);
    pthread_mutex_lock(&w->lock);
    while (!w->end) {
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC, &ts);
        int64_t ns = ts.tv_nsec + period_ms % 1000 * 1000000;
        ts.tv_sec += (time_t)(period_ms / 1000 + ns / 1000000000);
        ts.tv_nsec = (long)(ns % 1000000000);
        pthread_cond_timedwait(&w->ended, &w->lock, &ts);
        if (w->end) {
            break;
        }
        pthread_mutex_unlock(&w->lock);
        for (size_t i = 0; i < w->n; i++) {
            look(w, &w->loops[i]);
        }
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static int start_thread(struct mu_watchdog *w)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = -pthread_create(&w->thread, NULL, thread_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

static void watch(struct mu_watchdog *w, int64_t limit_ms)
{
    for (size_t i = 0; i < w->n; i++) {
        atomic_store(&w->loops[i].loop->limit_ms, limit_ms);
        atomic_store(&w->loops[i].loop->long_turn_ms, 0);
    }
}

int mu_watchdog_new(struct mu_loop **loops, size_t n, int64_t limit_ms,
                    void (*report)(void *arg, const char *loop_name, int64_t turn_ms), void *arg,
                    struct mu_watchdog **ret)
{
    if (n > MAX_LOOPS || limit_ms <= 0) {
        return MU_E_INVALID;
    }
    struct mu_watchdog *w = mu_calloc(1, sizeof *w);
    if (!w) {
        return -ENOMEM;
    }
    w->n = n;
    w->limit_ms = limit_ms;
    w->report = report;
    w->arg = arg;
    for (size_t i = 0; i < n; i++) {
        w->loops[i] = (struct watched){.loop = loops[i], .since_ms = now_ms()};
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->ended, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&w->lock, NULL);
    watch(w, limit_ms);
    int r = start_thread(w);
    if (r < 0) {
        watch(w, 0);
        pthread_cond_destroy(&w->ended);
        pthread_mutex_destroy(&w->lock);
        mu_free(w);
        return r;
    }
    *ret = w;
    return 0;
}

struct mu_watchdog *mu_watchdog_free(struct mu_watchdog *w)
{
    if (!w) {
        return NULL;
    }
    pthread_mutex_lock(&w->lock);
    w->end = true;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    watch(w, 0);
    pthread_cond_destroy(&w->ended);
    pthread_mutex_destroy(&w->lock);
    mu_free(w);
    return NULL;
}
