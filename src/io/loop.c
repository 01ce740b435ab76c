#include "io/loop_int.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Not a uv_async_t: who is woken by that spins until who woke it has left write(), and on a busy
 * core it is write() that gave the core away. */
void mu_loop_wake_(struct mu_loop *loop)
{
    uint64_t one = 1;
    while (write(loop->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
    } /* EAGAIN: it was woken quite often already */
}

/* --- the post queue: producers push on a stack, the loop takes all of it and reverses it --- */

static struct mu_post *reversed(struct mu_post *p)
{
    struct mu_post *out = NULL;
    while (p) {
        struct mu_post *next = p->next;
        p->next = out;
        out = p;
        p = next;
    }
    return out;
}

/* `top` .. `bottom` are linked newest first. */
static void push(struct mu_loop *loop, struct mu_post *top, struct mu_post *bottom)
{
    struct mu_post *old = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    do {
        bottom->next = old;
    } while (!atomic_compare_exchange_weak_explicit(&loop->posted, &old, top, memory_order_release,
                                                    memory_order_relaxed));
    /* Whoever found it empty wakes; the others know that a wake-up is under way. */
    if (!old) {
        mu_loop_wake_(loop);
    }
}

void mu_loop_post(struct mu_loop *loop, struct mu_post *post)
{
    push(loop, post, post);
}

void mu_loop_post_chain(struct mu_loop *loop, struct mu_post *first, struct mu_post *last)
{
    last->next = NULL;
    push(loop, reversed(first), first);
}

/* Returns whether there were any. */
static bool deliver(struct mu_loop *loop)
{
    struct mu_post *p =
        reversed(atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire));
    bool any = p != NULL;
    while (p) {
        struct mu_post *next = p->next; /* fn may free it or post it again */
        loop->handled++;
        p->fn(p);
        p = next;
    }
    return any;
}

static void on_wake(uv_poll_t *wake, int status MU_UNUSED, int events MU_UNUSED)
{
    struct mu_loop *loop = wake->data;
    uint64_t times;
    (void)!read(loop->wake_fd, &times, sizeof times); /* before: what comes later wakes again */
    deliver(loop);
    if (loop->timers_overdue) {
        mu_loop_timers_fire_(loop);
    }
    if (atomic_load(&loop->stopping)) {
        uv_stop(&loop->uv);
    }
}

/* --- time and turns --- */

int64_t mu_loop_read_clock_(struct mu_loop *loop)
{
    loop->now_uv = uv_now(&loop->uv);
    loop->now_ms = mu_env_mono_ms(loop->env);
    return loop->now_ms;
}

int64_t mu_loop_now_ms(const struct mu_loop *loop)
{
    /* libuv moves its own time right after each wait, which is the only sign of a new turn that
     * comes before the callbacks of that turn. A loop that does not run has no turns. */
    if (loop->now_uv != uv_now(&loop->uv) ||
        !atomic_load_explicit(&loop->running, memory_order_relaxed)) {
        return mu_loop_read_clock_((struct mu_loop *)loop);
    }
    return loop->now_ms;
}

/* Before the loop waits: the turn is over. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct mu_loop *loop = prepare->data;
    int_fast64_t limit = atomic_load_explicit(&loop->limit_ms, memory_order_relaxed);
    if (limit > 0) {
        int_fast64_t took = (int_fast64_t)(uv_hrtime() / 1000000) - (int_fast64_t)loop->woke_ms;
        int_fast64_t noted = atomic_load(&loop->long_turn_ms);
        while (took > limit && took > noted &&
               !atomic_compare_exchange_weak(&loop->long_turn_ms, &noted, took)) {
        }
    }
    atomic_fetch_add_explicit(&loop->turns, 1, memory_order_release);
}

/* After the wait and the I/O callbacks; libuv's time is still that of the end of the wait. */
static void on_check(uv_check_t *check)
{
    struct mu_loop *loop = check->data;
    loop->woke_ms = uv_now(&loop->uv);
}

/* --- life --- */

static int open_handles(struct mu_loop *loop)
{
    loop->wake.data = loop->prepare.data = loop->check.data = loop;
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        return -errno;
    }
    int r = uv_poll_init(&loop->uv, &loop->wake, loop->wake_fd);
    if (r == 0) {
        r = uv_poll_start(&loop->wake, UV_READABLE, on_wake);
    }
    if (r == 0) {
        r = mu_loop_timers_init_(loop);
    }
    if (r == 0) {
        r = uv_prepare_init(&loop->uv, &loop->prepare);
    }
    if (r == 0) {
        r = uv_prepare_start(&loop->prepare, on_prepare);
    }
    if (r == 0) {
        r = uv_check_init(&loop->uv, &loop->check);
    }
    if (r == 0) {
        r = uv_check_start(&loop->check, on_check);
    }
    return r;
}

static void ignore_sigpipe(void)
{
    struct sigaction sa;
    if (sigaction(SIGPIPE, NULL, &sa) == 0 && !(sa.sa_flags & SA_SIGINFO) &&
        sa.sa_handler == SIG_DFL) {
        sa.sa_handler = SIG_IGN;
        sigaction(SIGPIPE, &sa, NULL);
    }
}

static void close_handle(uv_handle_t *h, void *arg MU_UNUSED)
{
    if (!uv_is_closing(h)) {
        uv_close(h, NULL);
    }
}

static void close_uv(struct mu_loop *loop)
{
    do {
        uv_walk(&loop->uv, close_handle, NULL);
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    } while (uv_loop_close(&loop->uv) == UV_EBUSY);
    if (loop->wake_fd >= 0) {
        close(loop->wake_fd);
    }
}

int mu_loop_new(const struct mu_env *env, const char *name, struct mu_loop **ret)
{
    struct mu_loop *loop = mu_calloc(1, sizeof *loop);
    if (!loop) {
        return -ENOMEM;
    }
    loop->env = env;
    size_t len = strnlen(name, sizeof loop->name - 1);
    memcpy(loop->name, name, len);
    mu_list_init(&loop->signals);
    ignore_sigpipe();

    int r = uv_loop_init(&loop->uv);
    if (r < 0) {
        mu_free(loop);
        return r;
    }
    r = open_handles(loop);
    if (r < 0) {
        close_uv(loop);
        mu_free(loop);
        return r;
    }
    mu_loop_read_clock_(loop);
    *ret = loop;
    return 0;
}

/* Posts may bring further posts; a handler that posts itself for ever must not hold the end up. */
static void deliver_last(struct mu_loop *loop)
{
    for (int round = 0; round < 1000 && deliver(loop); round++) {
    }
}

void mu_loop_run(struct mu_loop *loop)
{
    atomic_store(&loop->owner, (uintptr_t)pthread_self());
    uv_update_time(&loop->uv);
    mu_loop_read_clock_(loop);
    loop->woke_ms = uv_now(&loop->uv);
    atomic_store(&loop->running, true);
    while (!atomic_load(&loop->stopping)) {
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    }
    atomic_store(&loop->running, false);
    deliver_last(loop);
    atomic_store(&loop->stopping, false);
    if (!loop->has_thread) {
        atomic_store(&loop->owner, 0);
    }
}

size_t mu_loop_turn(struct mu_loop *loop, bool wait)
{
    MU_CHECK(!loop->has_thread);
    size_t before = loop->handled;
    atomic_store(&loop->owner, (uintptr_t)pthread_self());
    uv_update_time(&loop->uv);
    deliver(loop);
    mu_loop_timers_fire_(loop);
    uv_run(&loop->uv, wait && loop->handled == before ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    atomic_store(&loop->owner, 0);
    return loop->handled - before;
}

static void *thread_main(void *arg)
{
    struct mu_loop *loop = arg;
    pthread_setname_np(pthread_self(), loop->name);
    mu_loop_run(loop);
    return NULL;
}

int mu_loop_start(struct mu_loop *loop)
{
    MU_CHECK(!loop->has_thread);
    loop->has_thread = true;
    int r = -pthread_create(&loop->thread, NULL, thread_main, loop);
    if (r < 0) {
        loop->has_thread = false;
        return r;
    }
    /* From now on the starter is not "here", even if the thread has not begun yet. */
    atomic_store(&loop->owner, (uintptr_t)loop->thread);
    return 0;
}

void mu_loop_stop(struct mu_loop *loop)
{
    atomic_store(&loop->stopping, true);
    mu_loop_wake_(loop);
}

void mu_loop_join(struct mu_loop *loop)
{
    if (loop->has_thread) {
        MU_CHECK(pthread_join(loop->thread, NULL) == 0);
        loop->has_thread = false;
        atomic_store(&loop->owner, 0);
    }
}

bool mu_loop_here(const struct mu_loop *loop)
{
    uintptr_t owner = atomic_load_explicit(&loop->owner, memory_order_relaxed);
    return owner == 0 || owner == (uintptr_t)pthread_self();
}

const struct mu_env *mu_loop_env(const struct mu_loop *loop)
{
    return loop->env;
}

void *mu_loop_uv(struct mu_loop *loop)
{
    return &loop->uv;
}

/* --- signals --- */

struct sub {
    struct mu_list link;
    uv_signal_t handle;
    int signum;
    void (*fn)(void *arg, int signum);
    void *arg;
};

static void on_signal(uv_signal_t *h, int signum)
{
    struct sub *s = h->data;
    s->fn(s->arg, signum);
}

static void free_sub(uv_handle_t *h)
{
    mu_free(h->data);
}

int mu_loop_signal(struct mu_loop *loop, int signum, void (*fn)(void *arg, int signum), void *arg)
{
    MU_CHECK(mu_loop_here(loop));
    MU_LIST_EACH(it, tmp, &loop->signals)
    {
        if (MU_CONTAINER(it, struct sub, link)->signum == signum) {
            return MU_E_EXISTS;
        }
    }
    struct sub *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return -ENOMEM;
    }
    int r = uv_signal_init(&loop->uv, &s->handle);
    if (r < 0) {
        mu_free(s);
        return r;
    }
    s->signum = signum;
    s->fn = fn;
    s->arg = arg;
    s->handle.data = s;
    r = uv_signal_start(&s->handle, on_signal, signum);
    if (r < 0) {
        uv_close((uv_handle_t *)&s->handle, free_sub);
        return r;
    }
    mu_list_push(&loop->signals, &s->link);
    return 0;
}

struct mu_loop *mu_loop_free(struct mu_loop *loop)
{
    if (!loop) {
        return NULL;
    }
    MU_CHECK(!loop->has_thread);
    deliver_last(loop);
    MU_LIST_EACH(it, tmp, &loop->signals)
    {
        uv_close((uv_handle_t *)&MU_CONTAINER(it, struct sub, link)->handle, free_sub);
    }
    close_uv(loop);
    mu_loop_timers_fini_(loop);
    mu_free(loop);
    return NULL;
}
