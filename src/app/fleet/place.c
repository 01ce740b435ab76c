/* Who gets what: tasks that wait, workers with room. Event-driven: a task that comes, a slot that
 * becomes free, a worker that connects. */
#include "app/fleet/fleet_int.h"

enum {
    LOOK_WORKERS = 64,
    PARK_MS = 1000,
    LOOK_PARKED = 256,
    LOOK_NEEDS = 16,
    UNPARK_MAX = 4096,
    DISK_FULL_PERCENT = 95
};

/* --- workers with room --- */

static bool has_room(const struct mu_worker *w)
{
    const struct mu_fleet *f = w->f;
    return w->attached && w->ready && !w->draining && !w->drain_ms && !w->leaving &&
           w->disk < DISK_FULL_PERCENT && (w->native || f->opts.go_workers) &&
           (w->capacity == 0 || w->in_flight < w->capacity) &&
           w->saturated_until <= mu_loop_now_ms(f->opts.core);
}

void mu_worker_update(struct mu_worker *w)
{
    struct mu_fleet *f = w->f;
    bool in = !mu_list_empty(&w->free_link), may = has_room(w);
    if (may && !in) {
        mu_list_push(&f->free, &w->free_link);
        f->refit = true;
    } else if (!may && in) {
        mu_list_remove(&w->free_link);
    }
    if (may && w->pinned && w->pinned->n) {
        mu_list_remove(&w->pin_link);
        mu_list_push(&f->pin_check, &w->pin_link);
    }
    if (may && (f->queue.n || f->n_parked || !mu_list_empty(&f->pin_check))) {
        mu_fleet_pump(f);
    }
}

static bool may_take(const struct mu_worker *w, const struct mu_task *t)
{
    for (size_t i = 0; i < MU_FLEET_BAD_CONNS; i++) {
        if (t->bad_conns[i] && t->bad_conns[i] == w->conn) {
            return false;
        }
    }
    return mu_worker_serves(w, t->org_id) && mu_worker_can(w, t->needs) &&
           !mu_worker_owes(w, &t->id);
}

/* --- tasks that wait --- */

static struct mu_fair *queue_of(struct mu_task *t)
{
    return t->pin ? t->pin->pinned : &t->f->queue;
}

/* Its tenant may not run more. */
static bool is_busy(const void *arg, void *owner)
{
    const struct mu_fleet *f = arg;
    const struct mu_tenant *tenant = owner;
    return f->opts.tenant_max_running > 0 &&
           atomic_load(&tenant->running) >= f->opts.tenant_max_running;
}

static struct mu_task *next_of(struct mu_fleet *f, struct mu_fair *q)
{
    struct mu_heap_node *n = mu_fair_peek(q, is_busy, f);
    return n ? MU_CONTAINER(n, struct mu_task, node) : NULL;
}

void mu_task_park(struct mu_task *t, int64_t retry_ms)
{
    struct mu_fleet *f = t->f;
    t->phase = MU_TASK_PARKED;
    t->stubborn = retry_ms == MU_FLEET_RETRY_MS;
    mu_list_push(&f->parked, &t->link);
    f->n_parked++;
    int64_t at = mu_loop_now_ms(f->opts.core) + retry_ms;
    f->unpark_ms = f->unpark_ms ? MU_MIN(f->unpark_ms, at) : at;
}

void mu_task_enqueue(struct mu_task *t)
{
    struct mu_fleet *f = t->f;
    if (mu_task_map(t) < 0 ||
        mu_fair_push(queue_of(t), mu_str(t->tenant->org_id), t->tenant, &t->node) < 0) {
        mu_task_park(t, MU_FLEET_RETRY_MS); /* a list needs no memory */
        return;
    }
    t->phase = MU_TASK_QUEUED;
    mu_task_tell_unfit(t);
    mu_metric_set(f->queued, (int64_t)(f->queue.n + f->n_parked));
    if (t->pin) {
        mu_worker_update(t->pin);
    } else {
        mu_fleet_pump(f);
    }
}

void mu_task_unqueue(struct mu_task *t)
{
    if (t->phase == MU_TASK_QUEUED) {
        mu_fair_remove(queue_of(t), mu_str(t->tenant->org_id), &t->node);
    } else if (t->phase == MU_TASK_PARKED) {
        mu_list_remove(&t->link);
        t->f->n_parked--;
    }
    t->phase = MU_TASK_NEW;
}

void mu_fleet_unpark(struct mu_fleet *f)
{
    struct mu_list all;
    mu_list_init(&all);
    for (int i = 0; i < UNPARK_MAX && !mu_list_empty(&f->parked); i++) {
        mu_list_push(&all, mu_list_pop(&f->parked));
        f->n_parked--;
    }
    /* the others at the next tick: the loop has other work too */
    f->unpark_ms = f->n_parked ? mu_loop_now_ms(f->opts.core) : 0;
    while (!mu_list_empty(&all)) {
        struct mu_task *t = MU_CONTAINER(mu_list_pop(&all), struct mu_task, link);
        t->phase = MU_TASK_NEW;
        mu_task_enqueue(t);
    }
}

/* --- both together --- */

static void give(struct mu_task *t, struct mu_worker *w, struct mu_fair *q)
{
    mu_fair_turn(q, mu_str(t->tenant->org_id));
    mu_task_unqueue(t);
    if (mu_work_begin(t, w) < 0) {
        mu_task_park(t, MU_FLEET_RETRY_MS);
        return;
    }
    mu_list_remove(&w->free_link); /* the next one is another's turn */
    mu_worker_update(w);
    mu_work_offer(t);
}

/* What only one worker may take. `by_turns`: a worker that took such a task last time stands back
 * for what anybody may take. */
static void give_pinned(struct mu_fleet *f, bool by_turns)
{
    struct mu_list round;
    mu_list_init(&round);
    while (!mu_list_empty(&f->pin_check)) {
        mu_list_push(&round, mu_list_pop(&f->pin_check));
    }
    while (!mu_list_empty(&round)) {
        struct mu_worker *w = MU_CONTAINER(mu_list_pop(&round), struct mu_worker, pin_link);
        if (mu_list_empty(&w->free_link) || !w->pinned || !w->pinned->n) {
            continue;
        }
        if (by_turns && w->took_pinned && f->queue.n) {
            w->took_pinned = false;
            mu_list_push(&f->pin_check, &w->pin_link);
            continue;
        }
        struct mu_task *t = next_of(f, w->pinned);
        if (t && !may_take(w, t)) {
            mu_task_unqueue(t);
            mu_task_park(t, PARK_MS);
            mu_list_push(&round, &w->pin_link);
        } else if (t) {
            w->took_pinned = true;
            give(t, w, w->pinned);
        } else {
            mu_list_push(&f->pin_busy, &w->pin_link);
        }
    }
}

/* village-control-plane.md 6.6: under the soft limit before over it, the org's own before shared,
 * then whoever has the least to do; among equals who was chosen longest ago. */
static int64_t burden(const struct mu_worker *w)
{
    int64_t percent = w->capacity ? 100 * w->in_flight / w->capacity : 0;
    bool over =
        w->capacity && (w->in_flight + 1) * 100 > w->capacity * w->f->opts.load_percent + 99;
    return (over ? 1000000 : 0) + (w->org_id[0] ? 0 : 100000) + percent * 101 + MU_MAX(w->cpu, 0);
}

/* Those that cannot do what it needs are passed by: the one that can may be the last. */
static struct mu_worker *taker(struct mu_fleet *f, const struct mu_task *t, bool *ret_any)
{
    unsigned looked = 0;
    struct mu_worker *best = NULL;
    int64_t least = INT64_MAX;
    *ret_any = false;
    MU_LIST_EACH(it, tmp, &f->free)
    {
        struct mu_worker *w = MU_CONTAINER(it, struct mu_worker, free_link);
        if (!mu_worker_can(w, t->needs) || !mu_worker_serves(w, t->org_id)) {
            continue;
        }
        *ret_any = true;
        if (may_take(w, t) && burden(w) < least) {
            best = w;
            least = burden(w);
        }
        if (++looked == LOOK_WORKERS) {
            break;
        }
    }
    return best;
}

static bool somebody_has_room(struct mu_fleet *f, const struct mu_task *t)
{
    bool any;
    return t->pin ? !mu_list_empty(&t->pin->free_link) && may_take(t->pin, t)
                  : taker(f, t, &any) != NULL;
}

/* A worker has room again: what waits for just that need not wait for the next look. */
static void refit(struct mu_fleet *f)
{
    unsigned looked = 0;
    f->refit = false;
    MU_LIST_EACH(it, tmp, &f->parked)
    {
        struct mu_task *t = MU_CONTAINER(it, struct mu_task, link);
        if (++looked > LOOK_PARKED) {
            break;
        }
        if ((t->needs || f->n_owned) && !t->stubborn && somebody_has_room(f, t)) {
            mu_task_unqueue(t);
            mu_task_enqueue(t);
        }
    }
}

/* What nobody with room can do, found out once in a pass. */
struct hopeless {
    struct {
        int64_t needs;
        const struct mu_tenant *of; /* NULL: everybody */
    } of[LOOK_NEEDS];
    unsigned n;
};

static bool is_hopeless(const struct hopeless *h, const struct mu_task *t)
{
    for (unsigned i = 0; i < h->n; i++) {
        if ((h->of[i].needs & ~t->needs) == 0 && (!h->of[i].of || h->of[i].of == t->tenant)) {
            return true;
        }
    }
    return false;
}

static void give_any(struct mu_fleet *f)
{
    struct hopeless h = {.n = 0};
    while (!mu_list_empty(&f->free)) {
        struct mu_task *t = next_of(f, &f->queue);
        bool any = true;
        if (!t) {
            break;
        }
        struct mu_worker *w = is_hopeless(&h, t) ? NULL : taker(f, t, &any);
        if (w) {
            w->took_pinned = false;
            give(t, w, &f->queue);
            continue;
        }
        if (!any && h.n < LOOK_NEEDS) {
            h.of[h.n].needs = t->needs;
            h.of[h.n++].of = f->n_owned ? t->tenant : NULL;
        }
        mu_task_unqueue(t);
        mu_task_park(t, PARK_MS);
    }
}

void mu_fleet_pump_now(struct mu_fleet *f)
{
    if (!f->started || f->stopping) {
        return;
    }
    if (f->refit) {
        refit(f);
    }
    give_pinned(f, true);
    give_any(f);
    while (!mu_list_empty(&f->pin_check)) {
        give_pinned(f, false);
    }
    mu_metric_set(f->queued, (int64_t)(f->queue.n + f->n_parked));
}

void mu_fleet_tenant_freed(struct mu_fleet *f)
{
    struct mu_list *busy;
    while ((busy = mu_list_pop(&f->pin_busy))) {
        mu_list_push(&f->pin_check, busy);
    }
    mu_fleet_pump(f);
}

static void pump(struct mu_post *post)
{
    struct mu_fleet *f = MU_CONTAINER(post, struct mu_fleet, pump_post);
    f->pump_posted = false;
    mu_fleet_pump_now(f);
}

void mu_fleet_pump(struct mu_fleet *f)
{
    if (!f->pump_posted && f->started && !f->stopping) {
        f->pump_posted = true;
        f->pump_post.fn = pump;
        mu_loop_post(f->opts.core, &f->pump_post);
    }
}
