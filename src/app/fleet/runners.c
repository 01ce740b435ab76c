/* What runners of live sessions say and are told passes here, unread (docs/runner-protocol.md). */
#include <errno.h>

#include "app/fleet/fleet_int.h"

enum { MESSAGE_ARENA = 2 << 20 };

void mu_fleet_on_runners(struct mu_fleet *f, const struct mu_runner_ops *ops, void *arg)
{
    f->runners = ops;
    f->runners_arg = arg;
}

static struct mu_execution of_task(const struct mu_task *t, int64_t seq)
{
    return (struct mu_execution){t->id, t->work->execution, t->epoch, seq};
}

bool mu_runner_report(struct mu_worker *w, struct mu_task *t, const struct mu_report *r)
{
    struct mu_fleet *f = w->f;
    if (!t || !f->runners || !t->work->conn) {
        return false;
    }
    const struct mu_execution of = of_task(t, r->seq);
    if (r->kind == MU_REPORT_RUNNER) {
        f->runners->message(f->runners_arg, &of, r->chunk);
    } else if (r->kind == MU_REPORT_TERMINAL) {
        f->runners->terminal(f->runners_arg, &of, r->terminal, r->offset, r->chunk);
    } else {
        f->runners->did(f->runners_arg, &of, &r->command, r->did, r->message);
    }
    return true;
}

void mu_runner_gone(struct mu_task *t)
{
    struct mu_fleet *f = t->f;
    if (f->runners && t->work->offered) {
        f->runners->gone(f->runners_arg, &t->id, t->epoch);
    }
}

bool mu_runner_unstored(const struct mu_task *t)
{
    struct mu_fleet *f = t->f;
    return f->runners && f->runners->unstored(f->runners_arg, &t->id, t->epoch);
}

void mu_fleet_said(struct mu_fleet *f, const struct mu_execution *of)
{
    struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(&of->session));
    if (t && t->work && t->work->end && t->epoch == of->epoch) {
        mu_work_next(t);
    }
}

/* The runner's own connection, if that attempt has one. */
static struct mu_work_item *direct_of(struct mu_fleet *f, const struct mu_execution *of)
{
    struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(&of->session));
    struct mu_work_item *k = t ? t->work : NULL;
    return k && k->direct && t->epoch == of->epoch ? k : NULL;
}

/* The task of that attempt, if its worker can be told something. */
static struct mu_task *reachable(struct mu_fleet *f, const struct mu_execution *of)
{
    struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(&of->session));
    struct mu_work_item *k = t ? t->work : NULL;
    bool there = k && k->sent && k->confirmed && k->conn && k->w->native && t->epoch == of->epoch;
    return there ? t : NULL;
}

bool mu_fleet_reachable(struct mu_fleet *f, const struct mu_id *session, struct mu_execution *ret)
{
    struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(session));
    if (!t || !t->work) {
        return false;
    }
    *ret = of_task(t, 0);
    return reachable(f, ret) != NULL;
}

int mu_fleet_to_runner(struct mu_fleet *f, const struct mu_execution *of, mu_bytes json)
{
    struct mu_work_item *k = direct_of(f, of);
    struct mu_task *t = reachable(f, of);
    struct mu_order *o;
    if (k) {
        return mu_direct_tell(k, json);
    }
    if (!t) {
        return MU_E_UNAVAILABLE;
    }
    const struct mu_execution whole = of_task(t, 0);
    int r = mu_worker_order(t->work->w, MU_ORDER_RUNNER, &whole, &o);
    if (r < 0) {
        return r;
    }
    mu_arena_init(&o->arena, MESSAGE_ARENA);
    o->message = mu_arena_dup(&o->arena, json);
    if (!o->message.ptr) {
        mu_order_free(o);
        return -ENOMEM;
    }
    mu_worker_post(t->work->w, o);
    return 0;
}

int mu_fleet_pause(struct mu_fleet *f, const struct mu_execution *of, bool pause,
                   const struct mu_id *command)
{
    struct mu_task *t = reachable(f, of);
    struct mu_order *o;
    if (!t) {
        return MU_E_UNAVAILABLE;
    }
    const struct mu_execution whole = of_task(t, 0);
    int r = mu_worker_order(t->work->w, pause ? MU_ORDER_PAUSE : MU_ORDER_RESUME, &whole, &o);
    if (r < 0) {
        return r;
    }
    o->command = *command;
    mu_worker_post(t->work->w, o);
    return 0;
}

void mu_fleet_moved(struct mu_fleet *f, const struct mu_execution *of, int state)
{
    struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(&of->session));
    if (t && t->work && t->epoch == of->epoch && t->state < MU_ST_STOPPING) {
        t->state = MU_MAX(t->state, state);
        t->work->want_state = MU_MAX(t->work->want_state, state);
    }
}
