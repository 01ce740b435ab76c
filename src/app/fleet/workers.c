/* The workers: one connection for each id, what it holds, what it is owed. */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"

enum { PROBE_MS = 7000 };
enum { CODE_GOING_AWAY = 1001, CODE_REPLACED = 4410 };

/* --- life --- */

int mu_worker_get(struct mu_fleet *f, mu_bytes name, struct mu_worker **ret)
{
    struct mu_worker *w = mu_map_get(&f->workers, name);
    if (w) {
        *ret = w;
        return 0;
    }
    if (f->workers.count >= MU_FLEET_WORKERS_MAX) {
        return MU_E_LIMIT;
    }
    w = mu_calloc(1, sizeof *w + name.len + 1);
    if (!w) {
        return -ENOMEM;
    }
    memcpy(w->name, name.ptr, name.len);
    w->f = f;
    w->cpu = w->memory = w->disk = -1;
    mu_list_init(&w->known);
    mu_list_init(&w->free_link);
    mu_list_init(&w->here);
    mu_list_init(&w->pin_link);
    mu_list_init(&w->timed);
    mu_list_init(&w->dirty);
    mu_list_init(&w->skills_link);
    mu_list_init(&w->tasks);
    mu_list_init(&w->owed);
    w->dialect = f->opts.dialect;
    w->capacity = f->opts.default_capacity;
    w->uid = mu_id_new(f->opts.env, &w->created_ms);
    if (mu_map_put(&f->workers, mu_bytes_of(w->name, name.len), w) < 0) {
        mu_free(w);
        return -ENOMEM;
    }
    *ret = w;
    return 0;
}

void mu_fleet_worker_free(struct mu_worker *w)
{
    mu_list_remove(&w->free_link);
    mu_list_remove(&w->here);
    mu_list_remove(&w->pin_link);
    mu_list_remove(&w->timed);
    mu_list_remove(&w->dirty);
    mu_list_remove(&w->skills_link);
    while (!mu_list_empty(&w->owed)) {
        mu_free(MU_CONTAINER(mu_list_pop(&w->owed), struct mu_owed, link));
    }
    if (w->pinned) {
        mu_fair_fini(w->pinned);
        mu_free(w->pinned);
    }
    mu_list_remove(&w->known);
    mu_free(w->caps);
    mu_free(w->version);
    mu_free(w->host);
    mu_free(w->meta);
    mu_free(w->runtimes);
    mu_free(w);
}

void mu_worker_forget(struct mu_worker *w)
{
    bool needed = w->peer || w->waiting || w->n_pins || w->changing || !mu_list_empty(&w->tasks) ||
                  !mu_list_empty(&w->owed);
    bool remembered = !w->anonymous && (w->stored || !mu_list_empty(&w->dirty));
    if (!needed && !remembered) {
        w->f->n_owned -= w->org_id[0] != 0;
        mu_map_remove(&w->f->workers, mu_str(w->name));
        mu_fleet_worker_free(w);
    }
}

void mu_worker_timed(struct mu_worker *w)
{
    if (mu_list_empty(&w->timed)) {
        mu_list_push(&w->f->timed_workers, &w->timed);
    }
}

void mu_worker_dirty(struct mu_worker *w)
{
    if (mu_list_empty(&w->dirty) && !w->anonymous) {
        mu_list_push(&w->f->dirty, &w->dirty);
    }
}

/* --- orders --- */

static void deliver(struct mu_post *post)
{
    struct mu_order *o = MU_CONTAINER(post, struct mu_order, post);
    o->peer->order(o->peer, o);
}

int mu_worker_order(struct mu_worker *w, enum mu_order_kind kind, const struct mu_execution *of,
                    struct mu_order **ret)
{
    if (!w->attached) {
        return MU_E_CLOSED;
    }
    struct mu_order *o = mu_calloc(1, sizeof *o);
    if (!o) {
        return -ENOMEM;
    }
    o->kind = kind;
    o->peer = w->peer;
    o->dialect = w->dialect;
    o->of = *of;
    *ret = o;
    return 0;
}

void mu_worker_post(struct mu_worker *w, struct mu_order *o)
{
    o->post.fn = deliver;
    mu_loop_post(w->peer->loop, &o->post);
}

struct mu_order *mu_order_free(struct mu_order *o)
{
    if (o) {
        explicit_bzero(o->job.token, sizeof o->job.token);
        if (o->credential.ptr) {
            explicit_bzero((char *)(uintptr_t)o->credential.ptr, o->credential.len);
        }
        mu_arena_fini(&o->arena);
        mu_free(o);
    }
    return NULL;
}

void mu_worker_ack(struct mu_worker *w, const struct mu_execution *of)
{
    struct mu_order *o;
    if (mu_worker_order(w, MU_ORDER_ACK, of, &o) == 0) { /* else it is sent again, and acked then */
        mu_worker_post(w, o);
    }
}

/* --- what a worker must be told to stop --- */

bool mu_worker_owes(const struct mu_worker *w, const struct mu_id *session)
{
    MU_LIST_EACH(it, tmp, &((struct mu_worker *)(uintptr_t)w)->owed)
    {
        const struct mu_owed *o = MU_CONTAINER(it, struct mu_owed, link);
        if (strcmp(o->of.session.text, session->text) == 0) {
            return true;
        }
    }
    return false;
}

static void owed_drop(struct mu_worker *w, struct mu_owed *o)
{
    struct mu_fleet *f = w->f;
    mu_list_remove(&o->link);
    w->n_owed--;
    w->in_flight -= o->slot;
    mu_free(o);
    mu_worker_update(w);
    if (f->n_parked) {
        f->unpark_ms = mu_loop_now_ms(f->opts.core); /* somebody may wait for just this */
    }
}

void mu_worker_owes_nothing(struct mu_worker *w)
{
    while (!mu_list_empty(&w->owed)) {
        owed_drop(w, MU_CONTAINER(w->owed.next, struct mu_owed, link));
    }
}

static void send_cancel(struct mu_worker *w, struct mu_owed *o)
{
    struct mu_order *order;
    if (o->sent_ms == 0 && mu_worker_order(w, MU_ORDER_CANCEL, &o->of, &order) == 0) {
        o->sent_ms = mu_loop_now_ms(w->f->opts.core);
        order->at_once = true;
        mu_worker_post(w, order);
    }
}

void mu_worker_owe(struct mu_worker *w, const struct mu_execution *of, bool slot)
{
    struct mu_owed *o = mu_calloc(1, sizeof *o);
    if (!o) { /* it is told once, if it is there, and trusted */
        struct mu_owed once = {.of = *of};
        send_cancel(w, &once);
        w->in_flight -= slot;
        mu_worker_update(w);
        return;
    }
    if (w->n_owed >= MU_FLEET_OWED_MAX) {
        owed_drop(w, MU_CONTAINER(w->owed.next, struct mu_owed, link));
    }
    o->of = *of;
    o->slot = slot;
    o->made_ms = mu_loop_now_ms(w->f->opts.core);
    mu_list_push(&w->owed, &o->link);
    w->n_owed++;
    send_cancel(w, o);
    mu_worker_timed(w);
}

bool mu_fleet_worker_settle(struct mu_worker *w, const struct mu_id *session,
                            const struct mu_id *execution)
{
    bool found = false;
    MU_LIST_EACH(it, tmp, &w->owed)
    {
        struct mu_owed *o = MU_CONTAINER(it, struct mu_owed, link);
        if (strcmp(o->of.session.text, session->text) == 0 &&
            (!execution->text[0] || strcmp(o->of.execution.text, execution->text) == 0)) {
            owed_drop(w, o);
            found = true;
            break;
        }
    }
    return found;
}

void mu_worker_send_owed(struct mu_worker *w)
{
    MU_LIST_EACH(it, tmp, &w->owed)
    {
        send_cancel(w, MU_CONTAINER(it, struct mu_owed, link));
    }
}

/* --- connections --- */

static void run_done(struct mu_post *post)
{
    struct mu_admission *op = MU_CONTAINER(post, struct mu_admission, post);
    op->done(op, op->result);
}

static void answer(struct mu_admission *op, int result)
{
    op->result = result;
    op->post.fn = run_done;
    mu_loop_post(op->peer->loop, &op->post);
}

static void take(struct mu_worker *w, struct mu_admission *op)
{
    struct mu_fleet *f = w->f;
    w->peer = op->peer;
    w->conn = op->peer->conn = ++f->next_conn;
    w->native = op->native;
    w->anonymous = op->anonymous;
    w->ready = w->draining = false;
    w->instance[0] = 0;
    if (op->instance.len && op->instance.len < sizeof w->instance) {
        memcpy(w->instance, op->instance.ptr, op->instance.len);
        w->instance[op->instance.len] = 0;
    }
    op->peer->worker = w;
    answer(op, 0);
}

static bool was_unsent(const struct mu_peer *p, const struct mu_id *id)
{
    for (size_t i = 0; i < p->n_unsent; i++) {
        if (strcmp(p->unsent[i].text, id->text) == 0) {
            return true;
        }
    }
    return false;
}

/* The worker has no connection any more; what it holds waits for it. */
static void detach(struct mu_worker *w)
{
    struct mu_fleet *f = w->f;
    struct mu_peer *p = w->peer;
    if (w->attached) {
        mu_metric_set(f->connected, (int64_t)--f->n_connected);
        w->seen_ms = mu_fleet_now(f);
        mu_worker_dirty(w);
        mu_log(MU_LOG_INFO, "worker.disconnected", MU_KC("worker_id", w->name),
               MU_KI("in_flight", w->in_flight));
    }
    w->peer = NULL;
    w->attached = w->ready = false;
    mu_list_remove(&w->here);
    mu_skills_left(w);
    mu_list_remove(&w->free_link);
    mu_list_remove(&w->pin_link);
    MU_LIST_EACH(it, tmp, &w->owed)
    {
        MU_CONTAINER(it, struct mu_owed, link)->sent_ms = 0;
    }
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        struct mu_task *t = MU_CONTAINER(it, struct mu_task, link);
        mu_work_left(t, was_unsent(p, &t->id));
    }
}

static void close_there(struct mu_post *post)
{
    struct mu_peer *p = MU_CONTAINER(post, struct mu_peer, close_post);
    p->close(p, p->close_code, p->close_reason);
}

void mu_worker_evict(struct mu_worker *w, int code, const char *reason)
{
    struct mu_peer *p = w->peer;
    p->worker = NULL;
    detach(w);
    p->close_code = code;
    p->close_reason = reason;
    p->close_post.fn = close_there;
    mu_loop_post(p->loop, &p->close_post);
}

static void probe_there(struct mu_post *post)
{
    struct mu_peer *p = MU_CONTAINER(post, struct mu_peer, probe_post);
    p->probe(p);
}

static void refuse_newcomer(struct mu_worker *w, struct mu_admission *op)
{
    w->conflicts++;
    mu_metric_add(w->f->conflicts, 1);
    mu_worker_dirty(w);
    answer(op, MU_E_BUSY);
}

/* oz-worker.md 2.6: one connection for each worker id. */
static void contend(struct mu_worker *w, struct mu_admission *op)
{
    if (op->native && op->instance.len && mu_bytes_is(op->instance, w->instance)) {
        if (w->waiting) { /* it is alive; the connection that was asked will not say so any more */
            struct mu_admission *other = w->waiting;
            w->waiting = NULL;
            refuse_newcomer(w, other);
        }
        mu_worker_evict(w, CODE_REPLACED, "Replaced by a newer connection of the same worker");
        take(w, op);
    } else if (w->waiting) {
        refuse_newcomer(w, op);
    } else {
        w->waiting = op;
        w->due_ms = mu_loop_now_ms(w->f->opts.core) + PROBE_MS;
        mu_worker_timed(w);
        w->peer->probe_post.fn = probe_there;
        mu_loop_post(w->peer->loop, &w->peer->probe_post);
    }
}

/* The record that it comes as. */
static int find(struct mu_fleet *f, const struct mu_admission *op, struct mu_worker **ret)
{
    if (!op->runner.text[0]) {
        return mu_fleet_is_gone(f, op->name, op->instance) ? MU_E_CANCELLED
                                                           : mu_worker_get(f, op->name, ret);
    }
    *ret = mu_fleet_by_uid(f, &op->runner);
    if (!*ret || (*ret)->leaving) {
        return MU_E_NOT_FOUND;
    }
    return op->name.len && !mu_bytes_is(op->name, mu_worker_host(*ret)) ? MU_E_FORBIDDEN : 0;
}

static void admit_here(struct mu_post *post)
{
    struct mu_admission *op = MU_CONTAINER(post, struct mu_admission, post);
    struct mu_fleet *f = op->fleet;
    struct mu_worker *w;
    if (f->stopping || f->ended) {
        answer(op, MU_E_SHUTDOWN);
        return;
    }
    int r = find(f, op, &w);
    if (r < 0) {
        answer(op, r);
    } else if (w->peer) {
        contend(w, op);
    } else {
        take(w, op);
    }
}

void mu_fleet_admit(struct mu_fleet *f, struct mu_admission *op)
{
    op->fleet = f;
    op->peer->fleet = f;
    op->post.fn = admit_here;
    mu_loop_post(f->opts.core, &op->post);
}

static void verdict(struct mu_worker *w, bool alive)
{
    struct mu_admission *op = w->waiting;
    w->waiting = NULL;
    if (alive) {
        refuse_newcomer(w, op);
        return;
    }
    if (w->peer) {
        mu_worker_evict(w, CODE_GOING_AWAY,
                        "This connection did not answer, another one took over");
    }
    take(w, op);
}

static void alive_here(struct mu_post *post)
{
    struct mu_peer *p = MU_CONTAINER(post, struct mu_peer, alive_post);
    struct mu_worker *w = p->fleet->ended ? NULL : p->worker;
    if (w && w->peer == p && w->waiting) {
        verdict(w, p->alive);
    }
}

void mu_fleet_alive(struct mu_peer *peer, bool alive)
{
    peer->alive = alive;
    peer->alive_post.fn = alive_here;
    mu_loop_post(peer->fleet->opts.core, &peer->alive_post);
}

static void attach_here(struct mu_post *post)
{
    struct mu_peer *p = MU_CONTAINER(post, struct mu_peer, attach_post);
    struct mu_worker *w = p->fleet->ended ? NULL : p->worker;
    if (!w || w->peer != p) {
        return;
    }
    struct mu_fleet *f = w->f;
    w->attached = true;
    mu_list_push(&f->here, &w->here);
    w->ready = !w->native;
    w->since_ms = w->seen_ms = mu_fleet_now(f);
    w->beat_ms = w->sequence = 0;
    mu_worker_know(w);
    w->backoff_ms = w->saturated_until = 0;
    if (w->native) {
        w->dialect = MU_DIALECT_NATIVE;
    } else if (w->dialect == MU_DIALECT_NATIVE) {
        w->dialect = f->opts.dialect;
    }
    if (!w->native) {
        w->capacity = f->opts.default_capacity;
        w->offers =
            MU_NEED_HARNESSES /* its images may have any */ | (f->opts.go_live ? MU_NEED_LIVE : 0);
    }
    mu_metric_set(f->connected, (int64_t)++f->n_connected);
    mu_log(MU_LOG_INFO, "worker.connected", MU_KC("worker_id", w->name),
           MU_KC("dialect", mu_dialect_name(w->dialect)), MU_KI("in_flight", w->in_flight));
    if (!w->native && !f->opts.go_workers && !f->told_sidecar) {
        f->told_sidecar = true;
        mu_log(MU_LOG_WARN, "worker.no_sidecar", MU_KC("worker_id", w->name),
               MU_KC("note", "this kind of worker gets no work before OZ_WORKER_SIDECAR_IMAGE is "
                             "set"));
    }
    mu_worker_dirty(w);
    mu_worker_status_look(w);
    if (!w->native) { /* else when it has said hello */
        mu_worker_adopt_all(w);
    }
}

void mu_worker_adopt_all(struct mu_worker *w)
{
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        mu_work_adopt(MU_CONTAINER(it, struct mu_task, link));
    }
    mu_worker_send_owed(w);
    mu_worker_update(w);
}

void mu_fleet_attach(struct mu_peer *peer)
{
    peer->attach_post.fn = attach_here;
    mu_loop_post(peer->fleet->opts.core, &peer->attach_post);
}

static void release_there(struct mu_post *post)
{
    struct mu_peer *p = MU_CONTAINER(post, struct mu_peer, release_post);
    p->release(p);
}

static void gone_here(struct mu_post *post)
{
    struct mu_peer *p = MU_CONTAINER(post, struct mu_peer, gone_post);
    struct mu_worker *w = p->fleet->ended ? NULL : p->worker;
    if (w && w->peer == p) {
        detach(w);
        if (w->waiting) {
            verdict(w, false);
        } else {
            mu_worker_forget(w);
        }
    }
    p->worker = NULL;
    mu_free(p->unsent);
    p->unsent = NULL;
    p->release_post.fn = release_there;
    mu_loop_post(p->loop, &p->release_post);
}

void mu_fleet_gone(struct mu_peer *peer)
{
    peer->gone_post.fn = gone_here;
    mu_loop_post(peer->fleet->opts.core, &peer->gone_post);
}

static void unsent_here(struct mu_post *post)
{
    struct mu_order *o = MU_CONTAINER(post, struct mu_order, post);
    struct mu_fleet *f = o->fleet;
    struct mu_task *t = f->ended ? NULL : mu_map_get(&f->tasks, mu_id_bytes(&o->of.session));
    if (t && t->work && strcmp(t->work->execution.text, o->of.execution.text) == 0) {
        t->work->sent = false;
        mu_work_put_back(t, MU_ATT_PUT_BACK, "The worker left before it was told", false);
    }
    mu_order_free(o);
}

void mu_fleet_unsent(struct mu_order *o)
{
    o->fleet = o->peer->fleet;
    o->post.fn = unsent_here;
    mu_loop_post(o->fleet->opts.core, &o->post);
}

/* --- time --- */

void mu_worker_tick(struct mu_worker *w, int64_t now)
{
    int64_t keep_ms = w->f->opts.run_max_ms;
    MU_LIST_EACH(it, tmp, &w->owed)
    {
        struct mu_owed *o = MU_CONTAINER(it, struct mu_owed, link);
        bool settled = o->sent_ms && now - o->sent_ms >= MU_FLEET_SETTLE_MS;
        if (settled || now - o->made_ms >= keep_ms) {
            owed_drop(w, o);
        } else if (o->sent_ms == 0) {
            send_cancel(w, o);
        }
    }
    if (w->waiting && now >= w->due_ms) {
        verdict(w, false);
    }
    if (w->saturated_until && now >= w->saturated_until) {
        w->saturated_until = 0;
        mu_worker_update(w);
    }
    if (!w->waiting && !w->saturated_until && mu_list_empty(&w->owed)) {
        mu_list_remove(&w->timed);
        mu_worker_forget(w);
    }
}
