/* Loops, timers and the work pool over the virtual clock: one post, one timer or one job a step. */
#include <errno.h>

#include "io/work.h"
#include "sim.h"

struct mu_loop {
    const struct mu_env *env;
    unsigned number;
    struct mu_post *first, **end;
    struct mu_heap timers;
    uint64_t order;
    int64_t ready_at; /* it is busy with something long until then */
};

/* --- posts --- */

static struct mu_timer *timer_of(const struct mu_heap_node *n)
{
    return n ? MU_CONTAINER(n, struct mu_timer, node) : NULL;
}

static bool is_queued(const struct mu_loop *loop, const struct mu_post *post)
{
    for (const struct mu_post *p = loop->first; p; p = p->next) {
        if (p == post) {
            return true;
        }
    }
    return false;
}

void mu_loop_post(struct mu_loop *loop, struct mu_post *post)
{
    if (is_queued(loop, post)) {
        sim_fail("G7", "a post is queued twice");
    }
    post->next = NULL;
    *loop->end = post;
    loop->end = &post->next;
}

void mu_loop_post_chain(struct mu_loop *loop, struct mu_post *first, struct mu_post *last)
{
    for (struct mu_post *p = first, *next;; p = next) {
        next = p->next;
        mu_loop_post(loop, p);
        if (p == last) {
            break;
        }
    }
}

bool sim_loop_ready(unsigned i)
{
    const struct mu_loop *loop = sim.loops[i];
    return loop && loop->first && loop->ready_at <= sim.now;
}

/* The code that the next step of a loop runs: for the trace. */
const void *sim_loop_what(unsigned i, bool timer)
{
    const struct mu_timer *t = timer_of(mu_heap_top(&sim.loops[i]->timers));
    return timer ? (const void *)(uintptr_t)t->fn
                 : (const void *)(uintptr_t)sim.loops[i]->first->fn;
}

void sim_loop_post(unsigned i)
{
    struct mu_loop *loop = sim.loops[i];
    struct mu_post *p = loop->first;
    loop->first = p->next;
    if (!loop->first) {
        loop->end = &loop->first;
    }
    sim.here = loop;
    p->fn(p);
    sim.here = NULL;
}

void sim_loop_stall(unsigned i, int64_t ms)
{
    if (sim.loops[i]) {
        sim.loops[i]->ready_at = sim.now + ms;
    }
}

/* --- timers --- */

static bool sooner(const struct mu_heap_node *a, const struct mu_heap_node *b)
{
    const struct mu_timer *x = timer_of(a), *y = timer_of(b);
    return x->due_ms != y->due_ms ? x->due_ms < y->due_ms : x->order < y->order;
}

bool sim_loop_due(unsigned i)
{
    const struct mu_loop *loop = sim.loops[i];
    const struct mu_timer *t = loop ? timer_of(mu_heap_top(&loop->timers)) : NULL;
    return t && t->due_ms <= sim.now && loop->ready_at <= sim.now;
}

void sim_loop_timer(unsigned i)
{
    struct mu_loop *loop = sim.loops[i];
    struct mu_timer *t = timer_of(mu_heap_pop(&loop->timers));
    sim.here = loop;
    t->fn(t);
    sim.here = NULL;
}

int64_t sim_loop_next(void)
{
    int64_t next = INT64_MAX;
    for (unsigned i = 0; i < SIM_LOOPS; i++) {
        const struct mu_loop *loop = sim.loops[i];
        const struct mu_timer *t = loop ? timer_of(mu_heap_top(&loop->timers)) : NULL;
        if (t) {
            next = MU_MIN(next, MU_MAX(t->due_ms, loop->ready_at));
        }
        if (loop && loop->first) {
            next = MU_MIN(next, loop->ready_at);
        }
    }
    return next;
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
    t->due_ms = sim.now + MU_MAX(delay_ms, 0);
    t->order = ++loop->order;
    return mu_heap_push(&loop->timers, &t->node);
}

void mu_timer_clear(struct mu_timer *t)
{
    if (mu_timer_is_set(t)) {
        MU_CHECK(mu_loop_here(t->loop));
        mu_heap_remove(&t->loop->timers, &t->node);
    }
}

/* --- life --- */

int mu_loop_new(const struct mu_env *env, const char *name, struct mu_loop **ret)
{
    struct mu_loop *loop = mu_calloc(1, sizeof *loop);
    if (!loop) {
        return -ENOMEM;
    }
    loop->env = env;
    loop->number = (unsigned)(name[0] - '0');
    loop->end = &loop->first;
    mu_heap_init(&loop->timers, sooner);
    *ret = loop;
    return 0;
}

void sim_loop_drain(struct mu_loop *loop)
{
    sim.here = loop;
    for (int n = 0; loop->first; n++) {
        struct mu_post *p = loop->first;
        if (n == 100000) {
            sim_fail("G7", "a loop is posted to for ever at its end");
        }
        loop->first = p->next;
        if (!loop->first) {
            loop->end = &loop->first;
        }
        p->fn(p);
    }
    sim.here = NULL;
}

struct mu_loop *mu_loop_free(struct mu_loop *loop)
{
    if (!loop) {
        return NULL;
    }
    sim_loop_drain(loop);
    if (mu_heap_top(&loop->timers)) {
        sim_fail("leftovers", "a timer is still set when its loop ends");
    }
    mu_heap_fini(&loop->timers);
    mu_free(loop);
    return NULL;
}

bool mu_loop_here(const struct mu_loop *loop)
{
    return !sim.elsewhere && (!sim.here || sim.here == loop);
}

const struct mu_env *mu_loop_env(const struct mu_loop *loop)
{
    return loop->env;
}

int64_t mu_loop_now_ms(const struct mu_loop *loop MU_UNUSED)
{
    return sim.now;
}

/* --- what nobody may use here: it would be I/O or a thread --- */

int mu_loop_start(struct mu_loop *loop MU_UNUSED)
{
    sim_fail("simulator", "a loop's thread");
}

void mu_loop_run(struct mu_loop *loop MU_UNUSED)
{
    sim_fail("simulator", "a loop runs by itself");
}

void mu_loop_stop(struct mu_loop *loop MU_UNUSED)
{
    sim_fail("simulator", "a loop that runs by itself is stopped");
}

void mu_loop_join(struct mu_loop *loop MU_UNUSED)
{
    sim_fail("simulator", "a loop's thread");
}

void *mu_loop_uv(struct mu_loop *loop MU_UNUSED)
{
    sim_fail("simulator", "I/O");
}

int mu_loop_signal(struct mu_loop *loop MU_UNUSED, int signum MU_UNUSED,
                   void (*fn)(void *arg, int signum) MU_UNUSED, void *arg MU_UNUSED)
{
    sim_fail("simulator", "a signal");
}

/* --- the work pool --- */

struct mu_work {
    struct mu_post *first, **end;
};

static void on_done(struct mu_post *post)
{
    struct mu_job *job = MU_CONTAINER(post, struct mu_job, post);
    job->done(job);
}

static void job_done(struct mu_job *job)
{
    job->post.fn = on_done;
    mu_loop_post(job->loop, &job->post);
}

int mu_work_new(unsigned threads MU_UNUSED, size_t max_queue MU_UNUSED, struct mu_work **ret)
{
    struct mu_work *w = mu_calloc(1, sizeof *w);
    if (!w) {
        return -ENOMEM;
    }
    w->end = &w->first;
    *ret = w;
    return 0;
}

int mu_work_submit(struct mu_work *w, struct mu_job *job)
{
    if (sim_fault(sim.plan.busy_pm)) {
        return MU_E_BUSY;
    }
    job->ran = false;
    job->post.next = NULL;
    *w->end = &job->post;
    w->end = &job->post.next;
    return 0;
}

bool sim_work_ready(void)
{
    return sim.work && sim.work->first;
}

static struct mu_job *take(struct mu_work *w)
{
    struct mu_post *p = w->first;
    w->first = p->next;
    if (!w->first) {
        w->end = &w->first;
    }
    return MU_CONTAINER(p, struct mu_job, post);
}

void sim_work_step(void)
{
    struct mu_job *job = take(sim.work);
    sim.elsewhere = true;
    job->run(job);
    sim.elsewhere = false;
    job->ran = true;
    job_done(job);
}

struct mu_work *mu_work_free(struct mu_work *w)
{
    while (w && w->first) {
        job_done(take(w));
    }
    mu_free(w);
    return NULL;
}
