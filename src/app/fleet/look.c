/* What only the fleet's memory knows, for whoever asks: read on the core loop, told on the asker's.
 */
#include <stdio.h>

#include "app/fleet/fleet_int.h"

static enum mu_waits why_waiting(const struct mu_task *t)
{
    if (t->pin && (!t->pin->ready || !mu_worker_serves(t->pin, t->org_id))) {
        return MU_WAITS_PINNED;
    }
    int64_t lacks = mu_task_lacks(t);
    return lacks < 0                   ? MU_WAITS_WORKER
           : lacks & MU_NEED_HARNESSES ? MU_WAITS_HARNESS
           : lacks                     ? MU_WAITS_FEATURE
                                       : MU_WAITS_CAPACITY;
}

static void answer(struct mu_post *post)
{
    struct mu_fleet_look *op = MU_CONTAINER(post, struct mu_fleet_look, post);
    op->done(op);
}

static void look(struct mu_post *post)
{
    struct mu_fleet_look *op = MU_CONTAINER(post, struct mu_fleet_look, post);
    const struct mu_task *t = mu_map_get(&op->fleet->tasks, mu_id_bytes(&op->id));
    const struct mu_worker *w = mu_map_get(&op->fleet->workers, op->worker);
    op->waits = MU_WAITS_NOT;
    op->unreachable = false;
    op->uid = w ? w->uid : (struct mu_id){""};
    if (t && !t->work && t->state <= MU_ST_CLAIMED) {
        op->waits = why_waiting(t);
    } else if (t && t->work) {
        op->unreachable = !t->work->w || !t->work->w->attached;
    }
    op->post.fn = answer;
    mu_loop_post(op->loop, &op->post);
}

void mu_fleet_look(struct mu_fleet *f, struct mu_fleet_look *op)
{
    op->fleet = f;
    op->post.fn = look;
    mu_loop_post(f->opts.core, &op->post);
}

/* --- a worker --- */

static void found(struct mu_post *post)
{
    struct mu_fleet_find *op = MU_CONTAINER(post, struct mu_fleet_find, post);
    op->done(op);
}

static void find(struct mu_post *post)
{
    struct mu_fleet_find *op = MU_CONTAINER(post, struct mu_fleet_find, post);
    struct mu_fleet *f = op->fleet;
    struct mu_id uid;
    char org[MU_ORG_LEN + 1];
    snprintf(org, sizeof org, "%.*s", MU_ARGS(op->org_id));
    const struct mu_worker *w = NULL;
    if (mu_id_parse(op->given, "rnr_", &uid) == 0) {
        w = mu_fleet_by_uid(f, &uid);
    } else {
        w = org[0] ? mu_fleet_by_host(f, org, op->given) : NULL;
        w = w ? w : mu_fleet_by_host(f, "", op->given);
    }
    op->found = w && (!org[0] || mu_worker_serves(w, org));
    if (op->found) {
        snprintf(op->name, sizeof op->name, "%s", w->name);
    }
    op->post.fn = found;
    mu_loop_post(op->loop, &op->post);
}

void mu_fleet_find(struct mu_fleet *f, struct mu_fleet_find *op)
{
    op->fleet = f;
    op->post.fn = find;
    mu_loop_post(f->opts.core, &op->post);
}

/* --- whether it is there --- */

static void status_told(struct mu_post *post)
{
    struct mu_fleet_status *op = MU_CONTAINER(post, struct mu_fleet_status, post);
    op->done(op);
}

static void look_status(struct mu_post *post)
{
    struct mu_fleet_status *op = MU_CONTAINER(post, struct mu_fleet_status, post);
    struct mu_worker_view v;
    op->found = mu_fleet_get(op->fleet, &op->uid, op->admin, mu_str(op->org_id), &v);
    if (op->found) {
        op->status = v.status;
        op->drained = v.drained;
        snprintf(op->of_org, sizeof op->of_org, "%.*s", MU_ARGS(v.org_id));
    }
    op->post.fn = status_told;
    mu_loop_post(op->loop, &op->post);
}

void mu_fleet_status(struct mu_fleet *f, struct mu_fleet_status *op)
{
    op->fleet = f;
    op->post.fn = look_status;
    mu_loop_post(f->opts.core, &op->post);
}
