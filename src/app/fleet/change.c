/* What administrators do to a worker (village-control-plane.md 6.5): drain, undrain, deregister.
 * The database decides, memory follows. */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"

enum { CODE_DEREGISTERED = 4411 };

static const struct mu_stmt q_drain = {
    "worker_drain", "tii",
    "UPDATE workers SET drain_ms = coalesce(drain_ms, $2), drain_until_ms = $3 WHERE id = $1 AND "
    "removed_ms IS NULL RETURNING CASE WHEN drain_ms = $2 THEN 1 ELSE 0 END",
    NULL};
static const struct mu_stmt q_undrain = {"worker_undrain", "t",
                                         "UPDATE workers SET drain_ms = NULL, drain_until_ms = "
                                         "NULL, drained_ms = NULL WHERE id = $1 AND "
                                         "removed_ms IS NULL AND drain_ms IS NOT NULL",
                                         NULL};
static const struct mu_stmt q_remove = {
    "worker_remove", "ti",
    "UPDATE workers SET removed_ms = $2 WHERE id = $1 AND removed_ms IS NULL", NULL};

/* --- to the worker --- */

void mu_worker_told_drain(struct mu_worker *w)
{
    struct mu_order *o;
    const struct mu_execution none = {.seq = 0};
    if (!w->native || !w->ready ||
        mu_worker_order(w, w->drain_ms ? MU_ORDER_DRAIN : MU_ORDER_UNDRAIN, &none, &o) < 0) {
        return; /* its next welcome says so */
    }
    w->drain_command = o->command = mu_id_random(w->f->opts.env);
    mu_worker_post(w, o);
}

void mu_worker_take_back(struct mu_worker *w)
{
    struct mu_list all;
    mu_list_init(&all);
    for (bool again = true; again;) { /* each that goes back changes the list */
        again = false;
        MU_LIST_EACH(it, tmp, &w->tasks)
        {
            struct mu_task *t = MU_CONTAINER(it, struct mu_task, link);
            struct mu_work_item *k = t->work;
            if (!k->confirmed && !t->cancel && !k->end && k->want == MU_WANT_NOTHING) {
                mu_work_put_back(t, MU_ATT_PUT_BACK, "The worker drains", k->sent);
                again = true;
                break;
            }
        }
    }
}

/* --- what is left when its time is over --- */

struct stop {
    struct mu_session_cancel op;
    struct mu_fleet *f;
    struct mu_id id;
};

static void stopped(struct mu_session_cancel *op, int result)
{
    struct stop *x = MU_CONTAINER(op, struct stop, op);
    if (result >= 0 && op->changed && !x->f->ended) {
        mu_fleet_cancelled(x->f, mu_id_bytes(&x->id));
    }
    mu_free(x);
}

void mu_worker_stop_rest(struct mu_worker *w)
{
    struct mu_fleet *f = w->f;
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        struct mu_task *t = MU_CONTAINER(it, struct mu_task, link);
        struct stop *x = t->cancel ? NULL : mu_calloc(1, sizeof *x);
        if (!x) {
            continue; /* the next look tries again */
        }
        x->f = f;
        x->id = t->id;
        x->op = (struct mu_session_cancel){.unit = {.loop = f->opts.core},
                                           .admin = true,
                                           .by = MU_B("system"),
                                           .reason = MU_B("The runner is drained"),
                                           .id = t->id,
                                           .done = stopped};
        if (mu_session_cancel(f->opts.sessions, &x->op) < 0) {
            mu_free(x);
            return;
        }
    }
}

/* --- gone --- */

bool mu_fleet_is_gone(const struct mu_fleet *f, mu_bytes name, mu_bytes instance)
{
    int64_t now = mu_fleet_now(f);
    for (size_t i = 0; i < MU_MIN(f->n_gone, (unsigned)MU_ARRAY_LEN(f->gone)); i++) {
        const struct mu_gone *g = &f->gone[i];
        if (now - g->at_ms < MU_PASS_TOMBSTONE_MS && mu_bytes_is(name, g->name) &&
            mu_bytes_eq(mu_str(g->instance), instance.ptr ? instance : MU_B(""))) {
            return true;
        }
    }
    return false;
}

/* No grace: nobody will come back for them. */
static void lose_all(struct mu_worker *w)
{
    for (bool again = true; again;) {
        again = false;
        MU_LIST_EACH(it, tmp, &w->tasks)
        {
            struct mu_task *t = MU_CONTAINER(it, struct mu_task, link);
            struct mu_work_item *k = t->work;
            if (k->want == MU_WANT_NOTHING && !k->end) {
                mu_work_lost(t);
                again = true;
                break;
            }
        }
    }
}

void mu_worker_removed(struct mu_worker *w)
{
    struct mu_fleet *f = w->f;
    if (!w->org_id[0]) {
        struct mu_gone *g = &f->gone[f->n_gone++ % MU_ARRAY_LEN(f->gone)];
        snprintf(g->name, sizeof g->name, "%s", w->name);
        snprintf(g->instance, sizeof g->instance, "%s", w->instance);
        g->at_ms = mu_fleet_now(f);
    }
    mu_identity_worker_removed(f->opts.identity, &w->uid);
    lose_all(w); /* while it is there to be told */
    if (w->peer) {
        mu_worker_evict(w, CODE_DEREGISTERED, "This worker was deregistered");
    }
    mu_worker_owes_nothing(w);
    /* what is left of it is a name that sessions may be pinned to */
    mu_list_remove(&w->known);
    mu_list_remove(&w->dirty);
    w->stored = w->online = w->leaving = false;
    w->drain_ms = w->drain_until_ms = w->drained_ms = w->seen_ms = 0;
    if (!w->org_id[0]) {
        w->uid = mu_id_new(f->opts.env, &w->created_ms);
        w->conflicts = 0;
    }
}

/* --- the units --- */

static int run_drain(struct mu_tx *tx, struct mu_fleet_change *op)
{
    int64_t fresh = 0;
    int r = MU_TX_RUN(tx, &q_drain, mu_row_take_i64, &fresh, MU_VT(mu_id_bytes(&op->uid)),
                      MU_VI(op->now_ms), MU_VIOPT(op->until_ms));
    return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : fresh ? MU_EV_RUNNER_DRAINING : 0;
}

static int run_remove(struct mu_tx *tx, struct mu_fleet_change *op)
{
    int r = MU_TX_RUN(tx, &q_remove, NULL, NULL, MU_VT(mu_id_bytes(&op->uid)), MU_VI(op->now_ms));
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    r = mu_worker_passes_revoke(tx, &op->uid, op->now_ms);
    return r < 0 ? r : MU_EV_RUNNER_DEREGISTERED;
}

static int run_change(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_fleet_change *op = MU_CONTAINER(u, struct mu_fleet_change, unit);
    int r = op->worker_org[0] ? 0 : mu_store_seed(tx, &op->uid, mu_str(op->name), op->now_ms);
    if (r < 0) {
        return r;
    }
    if (op->act == MU_ACT_DRAIN) {
        r = run_drain(tx, op);
    } else if (op->act == MU_ACT_REMOVE) {
        r = run_remove(tx, op);
    } else {
        r = MU_TX_RUN(tx, &q_undrain, NULL, NULL, MU_VT(mu_id_bytes(&op->uid)));
        r = r < 0 ? r : r == 0 ? MU_E_CONFLICT : MU_EV_RUNNER_UNDRAINED;
    }
    if (r > 0) {
        r = mu_worker_event(tx, op->stream, op->worker_org, r, op->now_ms,
                            op->by.ptr ? op->by : MU_B("system"), mu_str(op->event));
    }
    return MU_MIN(r, 0);
}

static void done_there(struct mu_post *post)
{
    struct mu_fleet_change *op = MU_CONTAINER(post, struct mu_fleet_change, post);
    op->done(op, op->result);
}

static void answer(struct mu_fleet_change *op, int result)
{
    op->result = result;
    op->post.fn = done_there;
    mu_loop_post(op->loop, &op->post);
}

static void follow(struct mu_worker *w, const struct mu_fleet_change *op)
{
    switch (op->act) {
    case MU_ACT_DRAIN:
        w->drain_ms = w->drain_ms ? w->drain_ms : op->now_ms;
        w->drain_until_ms = op->until_ms;
        mu_worker_update(w);
        mu_worker_take_back(w);
        mu_worker_told_drain(w);
        break;
    case MU_ACT_UNDRAIN:
        w->drain_ms = w->drain_until_ms = w->drained_ms = 0;
        w->draining = false;
        mu_worker_told_drain(w);
        mu_worker_update(w);
        break;
    case MU_ACT_REMOVE:
        mu_worker_removed(w);
        return;
    case MU_ACT_BEAT:
        break;
    }
    mu_worker_status_look(w);
}

static void changed(struct mu_unit *u, int result)
{
    struct mu_fleet_change *op = MU_CONTAINER(u, struct mu_fleet_change, unit);
    struct mu_fleet *f = op->fleet;
    struct mu_worker *w = f->ended ? NULL : mu_map_get(&f->workers, mu_str(op->name));
    if (w) {
        if (op->act == MU_ACT_REMOVE && result < 0) {
            w->leaving = false;
            mu_worker_update(w);
        }
        if (result >= 0) {
            mu_log(MU_LOG_INFO, "worker.changed", MU_KC("worker_id", w->name),
                   MU_KC("event", op->act == MU_ACT_DRAIN     ? "drain"
                                  : op->act == MU_ACT_UNDRAIN ? "undrain"
                                                              : "deregister"));
            follow(w, op);
        }
        w->changing--;
        mu_worker_forget(w);
    }
    answer(op, MU_MIN(result, 0));
}

/* --- before --- */

static int beat(struct mu_worker *w, struct mu_fleet_change *op)
{
    mu_worker_beat(w, op->beat);
    op->draining = w->drain_ms != 0;
    return 1;
}

/* What it will be when that is done. */
static enum mu_worker_status status_then(const struct mu_worker *w, enum mu_fleet_act act)
{
    switch (act) {
    case MU_ACT_DRAIN:
        return w->online ? MU_WORKER_DRAINING : MU_WORKER_OFFLINE;
    case MU_ACT_UNDRAIN:
        return w->online ? MU_WORKER_ONLINE : MU_WORKER_OFFLINE;
    case MU_ACT_REMOVE:
        return MU_WORKER_OFFLINE;
    case MU_ACT_BEAT:
        break;
    }
    return mu_worker_status(w);
}

/* 1: that was all. */
static int prepare(struct mu_worker *w, struct mu_fleet_change *op)
{
    struct mu_fleet *f = w->f;
    if (op->act == MU_ACT_BEAT) {
        return beat(w, op);
    }
    if (op->act == MU_ACT_REMOVE) {
        op->n_sessions = mu_fleet_sessions_of(w, op->sessions, MU_FLEET_SESSIONS);
        if (op->n_sessions && !op->force) {
            return MU_E_CONFLICT;
        }
        w->leaving = true;
        mu_worker_update(w);
    }
    op->now_ms = mu_fleet_now(f);
    int64_t timeout = op->timeout_ms < 0 ? f->opts.drain_timeout_ms : op->timeout_ms;
    op->until_ms = timeout ? op->now_ms + timeout : 0;
    snprintf(op->name, sizeof op->name, "%s", w->name);
    snprintf(op->worker_org, sizeof op->worker_org, "%s", w->org_id);
    snprintf(op->stream, sizeof op->stream, "worker:%s", w->uid.text);
    mu_worker_event_text(w, status_then(w, op->act), op->act == MU_ACT_REMOVE && op->force,
                         op->reason, op->event, sizeof op->event);
    return 0;
}

static void change_here(struct mu_post *post)
{
    struct mu_fleet_change *op = MU_CONTAINER(post, struct mu_fleet_change, post);
    struct mu_fleet *f = op->fleet;
    struct mu_worker *w = f->stopping ? NULL : mu_fleet_by_uid(f, &op->uid);
    int r =
        f->stopping ? MU_E_SHUTDOWN
        : !w || w->leaving || (!op->admin && !(op->org_id[0] && strcmp(op->org_id, w->org_id) == 0))
            ? MU_E_NOT_FOUND
            : prepare(w, op);
    if (r == 0) {
        op->unit.run = run_change;
        op->unit.done = changed;
        op->unit.loop = f->opts.core;
        w->changing++;
        r = mu_writer_submit(f->opts.writer, &op->unit);
        if (r == 0) {
            return;
        }
        w->changing--;
        w->leaving = false;
        mu_worker_update(w);
    }
    if (op->beat) {
        op->beat = mu_report_free(op->beat);
    }
    answer(op, MU_MIN(r, 0));
}

void mu_fleet_change(struct mu_fleet *f, struct mu_fleet_change *op)
{
    op->fleet = f;
    op->post.fn = change_here;
    mu_loop_post(f->opts.core, &op->post);
}
