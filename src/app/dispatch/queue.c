/* The queue in memory, and the runs that wait for a provider's room. */
#include <errno.h>
#include <stdio.h>

#include "app/dispatch/dispatch_int.h"

enum {
    LOOK_MAX = 16384, /* waiting runs that one pass passes by … */
    TRY_MAX = 1024,   /* … and those of them that it tries */
    FULL_MAX = 64,    /* groups that it remembers to be without room */
    RETRY_MS = 500,
};

static bool before(const struct mu_run *a, const struct mu_run *b)
{
    return a->queued_ms != b->queued_ms ? a->queued_ms < b->queued_ms
                                        : strcmp(a->id.text, b->id.text) < 0;
}

bool mu_run_older(const struct mu_heap_node *a, const struct mu_heap_node *b)
{
    return before(MU_CONTAINER(a, struct mu_run, node), MU_CONTAINER(b, struct mu_run, node));
}

int mu_run_new(struct mu_dispatch *d, mu_bytes org_id, mu_bytes harness, mu_bytes model,
               struct mu_run **ret)
{
    struct mu_run *run = mu_calloc(1, sizeof *run);
    if (!run) {
        return -ENOMEM;
    }
    run->d = d;
    mu_list_init(&run->link);
    mu_buf_init(&run->attempts, 64 << 10);
    snprintf(run->org_id, sizeof run->org_id, "%.*s", MU_ARGS(org_id));
    run->tenant = mu_identity_tenant(d->opts.identity, org_id);
    run->harness = mu_bytes_dup(harness);
    run->model = mu_bytes_dup(model);
    if (!run->tenant || !run->harness || !run->model) {
        mu_run_free(run);
        return -ENOMEM;
    }
    *ret = run;
    return 0;
}

int mu_run_map(struct mu_run *run)
{
    int r = run->mapped ? 0 : mu_map_put(&run->d->runs, mu_id_bytes(&run->id), run);
    run->mapped = r == 0;
    return r;
}

struct mu_run *mu_run_free(struct mu_run *run)
{
    if (run) {
        mu_free(run->harness);
        mu_free(run->model);
        mu_buf_fini(&run->attempts);
        mu_free(run);
    }
    return NULL;
}

struct mu_run_name mu_run_name(const struct mu_run *run)
{
    struct mu_run_name name;
    snprintf(name.text, sizeof name.text, "run_%s", run->id.text);
    return name;
}

static void show(struct mu_dispatch *d)
{
    mu_metric_set(d->queued_gauge, (int64_t)d->queue.n);
    mu_metric_set(d->waiting_gauge, (int64_t)d->n_waiting);
    mu_metric_set(d->running_gauge, (int64_t)d->n_active);
}

void mu_run_enqueue(struct mu_run *run)
{
    struct mu_dispatch *d = run->d;
    run->phase = MU_RUN_QUEUED;
    run->group = mu_hash(mu_str(run->org_id)) * 31 + mu_hash(mu_str(run->harness)) * 2 + run->admin;
    if (mu_fair_push(&d->queue, mu_str(run->tenant->org_id), run->tenant, &run->node) < 0) {
        mu_run_wait_retry(run); /* a list needs no memory */
        return;
    }
    show(d);
    mu_dispatch_pump(d);
}

static void leave(struct mu_run *run)
{
    struct mu_dispatch *d = run->d;
    if (run->phase == MU_RUN_QUEUED && run->node.place) {
        mu_fair_remove(&d->queue, mu_str(run->tenant->org_id), &run->node);
    } else if (run->phase == MU_RUN_WAITING) {
        mu_list_remove(&run->link);
        d->n_waiting--;
    } else if (run->phase >= MU_RUN_CLAIMING) {
        mu_run_set_idle(run);
    }
}

void mu_run_drop(struct mu_run *run)
{
    struct mu_dispatch *d = run->d;
    leave(run);
    d->look_no++; /* others may have waited behind it */
    if (run->mapped) {
        mu_map_remove(&d->runs, mu_id_bytes(&run->id));
    }
    mu_run_free(run);
    show(d);
    mu_dispatch_check_stopped(d);
    mu_dispatch_pump(d);
}

/* The waiting are kept in order of age. */
static void join_waiting(struct mu_run *run)
{
    struct mu_dispatch *d = run->d;
    run->phase = MU_RUN_WAITING;
    d->n_waiting++;
    if (!mu_list_empty(&d->waiting) &&
        before(run, MU_CONTAINER(d->waiting.next, struct mu_run, link))) {
        mu_list_push_front(&d->waiting, &run->link); /* it was the first in line */
        return;
    }
    struct mu_list *at = d->waiting.prev; /* usually the newest comes last */
    while (at != &d->waiting && before(run, MU_CONTAINER(at, struct mu_run, link))) {
        at = at->prev;
    }
    mu_list_push_front(at, &run->link);
}

static void wake_by(struct mu_dispatch *d, int64_t wake_ms)
{
    int64_t delay = MU_MIN(MU_MAX(wake_ms - mu_env_wall_ms(d->opts.env), 1), (int64_t)MU_LOOK_MS);
    if (d->wake.due_ms > mu_loop_now_ms(d->opts.core) + delay) {
        MU_CHECK(mu_timer_set(&d->wake, delay) == 0); /* it is always set, and only moves */
    }
}

void mu_run_wait(struct mu_run *run, int64_t wake_ms)
{
    struct mu_dispatch *d = run->d;
    bool was_active = run->phase >= MU_RUN_CLAIMING;
    run->wake_ms = wake_ms;
    run->stubborn = false;
    if (run->phase != MU_RUN_WAITING) { /* else it keeps its place */
        leave(run);
        join_waiting(run);
        show(d);
    }
    wake_by(d, wake_ms);
    if (was_active) { /* its place is free for another */
        mu_dispatch_pump(d);
        mu_dispatch_check_stopped(d);
    }
}

void mu_run_wait_retry(struct mu_run *run)
{
    mu_run_wait(run, mu_env_wall_ms(run->d->opts.env) + RETRY_MS);
    run->stubborn = true;
}

void mu_run_set_active(struct mu_run *run)
{
    struct mu_dispatch *d = run->d;
    leave(run);
    run->phase = MU_RUN_CLAIMING;
    mu_list_push(&d->active, &run->link);
    d->n_active++;
    atomic_fetch_add(&run->tenant->running, 1);
    show(d);
}

void mu_run_set_idle(struct mu_run *run)
{
    struct mu_dispatch *d = run->d;
    mu_list_remove(&run->link);
    d->n_active--;
    run->phase = MU_RUN_QUEUED;
    atomic_fetch_sub(&run->tenant->running, 1);
    if (d->opts.fleet) {
        mu_fleet_tenant_freed(d->opts.fleet);
    }
    show(d);
}

/* --- starting --- */

/* Its tenant may not run more. */
static bool is_busy(const void *arg, void *owner)
{
    const struct mu_dispatch *d = arg;
    const struct mu_tenant *tenant = owner;
    return d->opts.tenant_max_running > 0 &&
           atomic_load(&tenant->running) >= d->opts.tenant_max_running;
}

struct groups {
    uint64_t list[FULL_MAX];
    unsigned n;
};

static bool has_group(const struct groups *g, uint64_t group)
{
    for (unsigned i = 0; i < g->n; i++) {
        if (g->list[i] == group) {
            return true;
        }
    }
    return false;
}

static void add_group(struct groups *g, uint64_t group)
{
    if (g->n < FULL_MAX && !has_group(g, group)) {
        g->list[g->n++] = group;
    }
}

/* The groups in which somebody's time has come: whoever is older there goes first, even if by its
 * own clock it would wait a few milliseconds more. */
static void find_due(const struct mu_dispatch *d, int64_t now_ms, struct groups *ret)
{
    unsigned looked = 0;
    for (struct mu_list *it = d->waiting.next; it != &d->waiting && looked < LOOK_MAX; looked++) {
        const struct mu_run *run = MU_CONTAINER(it, struct mu_run, link);
        if (run->wake_ms <= now_ms) {
            add_group(ret, run->group);
        }
        it = it->next;
    }
}

/* Whether a waiting run is to be tried: its time has come, or something may have become free that
 * it was not tried for yet. */
static bool is_wanted(const struct mu_dispatch *d, struct mu_run *run, const struct groups *due,
                      const struct groups *full, int64_t now_ms)
{
    if (run->wake_ms <= now_ms) {
        return true;
    }
    if (run->stubborn) {
        return false;
    }
    if (has_group(full, run->group)) { /* nobody younger than who found no room finds any */
        run->look_no = d->look_no;
        return false;
    }
    return run->look_no != d->look_no || has_group(due, run->group);
}

static void try_waiting(struct mu_dispatch *d, int64_t now)
{
    int64_t next = INT64_MAX;
    unsigned looked = 0, tried = 0;
    struct groups full = {.n = 0}, due = {.n = 0};
    find_due(d, now, &due);
    MU_LIST_EACH(it, tmp, &d->waiting)
    {
        struct mu_run *run = MU_CONTAINER(it, struct mu_run, link);
        if (d->n_active >= (size_t)d->opts.concurrency) {
            break;
        }
        if (++looked > LOOK_MAX) { /* the oldest first; the others when these are gone */
            next = MU_MIN(next, now + 1000);
            break;
        }
        if (!is_wanted(d, run, &due, &full, now)) {
            next = MU_MIN(next, run->wake_ms);
            continue;
        }
        if (is_busy(d, run->tenant)) {
            continue; /* the end of one of its runs is the next occasion */
        }
        if (++tried > TRY_MAX) { /* the loop has other work too */
            mu_dispatch_pump(d);
            break;
        }
        uint64_t group = run->group;
        if (!mu_run_try(run, now)) {
            add_group(&full, group);
        }
    }
    if (next != INT64_MAX) {
        wake_by(d, next);
    }
}

static void try_queued(struct mu_dispatch *d, int64_t now)
{
    struct mu_heap_node *n;
    while (d->n_active < (size_t)d->opts.concurrency && (n = mu_fair_peek(&d->queue, is_busy, d))) {
        struct mu_run *run = MU_CONTAINER(n, struct mu_run, node);
        mu_fair_turn(&d->queue, mu_str(run->tenant->org_id));
        mu_run_try(run, now);
    }
}

static void pump(struct mu_post *post)
{
    struct mu_dispatch *d = MU_CONTAINER(post, struct mu_dispatch, pump_post);
    d->pump_posted = false;
    if (d->started && !d->stopping) {
        int64_t now = mu_env_wall_ms(d->opts.env); /* one moment: nobody new sees more room */
        try_waiting(d, now);
        try_queued(d, now);
    }
}

void mu_dispatch_pump(struct mu_dispatch *d)
{
    if (!d->pump_posted) {
        d->pump_posted = true;
        d->pump_post.fn = pump;
        mu_loop_post(d->opts.core, &d->pump_post);
    }
}
