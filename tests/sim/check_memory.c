/* What the fleet remembers: against itself after every step, and against the rows, which it follows
 * with a small delay. */
#include "app/dispatch/dispatch_int.h"
#include "sim.h"

enum { LAG_MS = 6000, WELL_MS = 4000 };

static int64_t idle_since; /* work waits, a worker is free, and nobody looks */

/* --- counts --- */

static void check_worker(const struct mu_worker *w)
{
    int64_t slots = 0;
    size_t owed = 0;
    struct mu_worker *x = (struct mu_worker *)(uintptr_t)w;
    MU_LIST_EACH(it, tmp, &x->tasks)
    {
        const struct mu_task *t = MU_CONTAINER(it, struct mu_task, link);
        if (!t->work || t->work->w != w) {
            sim_fail("memory", "worker %s lists a task that is not its own", w->name);
        }
        slots += t->work->slot;
    }
    MU_LIST_EACH(it, tmp, &x->owed)
    {
        slots += MU_CONTAINER(it, struct mu_owed, link)->slot;
        owed++;
    }
    if (slots != w->in_flight || owed != w->n_owed) {
        sim_fail("memory", "worker %s counts %lld in flight and %zu owed, has %lld and %zu",
                 w->name, (long long)w->in_flight, w->n_owed, (long long)slots, owed);
    }
    if (w->n_owed > MU_FLEET_OWED_MAX) {
        sim_fail("G7", "worker %s is owed too much", w->name);
    }
}

static void check_counts(struct mu_fleet *f)
{
    size_t at = 0, parked = 0;
    long running[SIM_ORGS] = {0};
    struct mu_worker *w;
    struct mu_task *t;
    while ((w = mu_map_next(&f->workers, &at))) {
        check_worker(w);
    }
    at = 0;
    while ((t = mu_map_next(&f->tasks, &at))) {
        parked += t->phase == MU_TASK_PARKED;
        for (unsigned i = 0; t->work && i < SIM_ORGS; i++) {
            running[i] += t->work->running && t->tenant == sim.who[i].tenant;
        }
        if (t->work && t->work->tail.len > (1 << 20) + 4096) {
            sim_fail("G7", "the tail of %s is too long", t->id.text);
        }
    }
    MU_LIST_EACH(it, tmp, &sim.d.dispatch->active)
    {
        for (unsigned i = 0; i < SIM_ORGS; i++) {
            running[i] += MU_CONTAINER(it, struct mu_run, link)->tenant == sim.who[i].tenant;
        }
    }
    if (parked != f->n_parked) {
        sim_fail("memory", "%zu tasks are parked, %zu counted", parked, f->n_parked);
    }
    for (unsigned i = 0; i < SIM_ORGS; i++) {
        if (atomic_load(&sim.who[i].tenant->running) != running[i]) {
            sim_fail("memory", "tenant %u runs %ld, %ld are counted", i, running[i],
                     atomic_load(&sim.who[i].tenant->running));
        }
    }
}

/* --- who acts --- */

/* Something will look at it again: a unit, a read, a time, its worker, or, when it is being
 * stopped, the sweeper. */
static bool somebody_acts(const struct mu_task *t)
{
    const struct mu_work_item *k = t->work;
    switch (t->phase) {
    case MU_TASK_QUEUED:
        return true;
    case MU_TASK_PARKED:
        return t->f->unpark_ms != 0;
    case MU_TASK_NEW:
        return false;
    case MU_TASK_HELD:
        break;
    }
    return k->busy || k->reading || k->chunk_busy || t->due_ms || t->cancel ||
           (k->conn && k->confirmed) || (k->conn && k->w->native && !k->w->ready);
}

static void lag(int64_t *since, bool wrong, const struct sim_session *s, const char *what)
{
    if (!wrong || sim_well_for() < WELL_MS) {
        *since = 0;
    } else if (*since == 0) {
        *since = sim.now;
    } else if (sim.now - *since > LAG_MS) {
        sim_fail("G3", "session %s in state %d: %s since %lld ms", s->id.text, s->state, what,
                 (long long)(sim.now - *since));
    }
}

static void check_session(struct mu_fleet *f, struct sim_session *s)
{
    const struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(&s->id));
    bool live =
        s->present && !s->ended_ms && s->state >= MU_ST_QUEUED_WORKER && !mu_state_sleeps(s->state);
    lag(&s->unowned, live && !t, s, "memory does not know it");
    lag(&s->stuck, live && t && !somebody_acts(t), s, "nobody will act");
    lag(&s->behind, live && t && !(t->work && t->work->busy) && t->epoch != s->epoch, s,
        "memory has another epoch");
    lag(&s->unstopped, live && t && s->state == MU_ST_STOPPING && !t->cancel, s,
        "memory does not know of the stop");
    lag(&s->left, !live && t && s->seen, s, "memory keeps it after its end");
}

static void check_wakeup(struct mu_fleet *f)
{
    bool idle = f->started && !f->stopping && f->queue.n && !mu_list_empty(&f->free) &&
                !f->pump_posted && sim.plan.tenant_running == 0 && sim_well_for() > WELL_MS;
    if (!idle) {
        idle_since = 0;
    } else if (!idle_since) {
        idle_since = sim.now;
    } else if (sim.now - idle_since > LAG_MS) {
        sim_fail("G3", "%zu sessions wait, a worker is free, and nobody looks", f->queue.n);
    }
}

void sim_memory_check(void)
{
    if (!sim.d.fleet) {
        idle_since = 0;
        return;
    }
    check_counts(sim.d.fleet);
    if (!sim.up) {
        return;
    }
    for (unsigned i = 0; i < sim_n_sessions; i++) {
        check_session(sim.d.fleet, &sim_sessions[i]);
    }
    check_wakeup(sim.d.fleet);
}

/* --- the end --- */

bool sim_memory_at_rest(void)
{
    size_t at = 0;
    struct mu_worker *w;
    if (sim.d.fleet->tasks.count) {
        return false;
    }
    while ((w = mu_map_next(&sim.d.fleet->workers, &at))) {
        if (w->in_flight || w->n_owed) {
            return false;
        }
    }
    return true;
}

void sim_memory_rest(void)
{
    for (unsigned i = 0; i < SIM_ORGS; i++) {
        long live = atomic_load(&sim.who[i].tenant->live);
        long running = atomic_load(&sim.who[i].tenant->running);
        if (live != 0 || running != 0) {
            sim_fail("leftovers", "tenant %u counts %ld live and %ld running sessions at the end",
                     i, live, running);
        }
    }
    if (sim.d.fleet->cached_bytes || sim.d.fleet->n_parked || sim.d.fleet->queue.n) {
        sim_fail("leftovers", "the fleet keeps %zu bytes, %zu parked, %zu queued",
                 sim.d.fleet->cached_bytes, sim.d.fleet->n_parked, sim.d.fleet->queue.n);
    }
}
