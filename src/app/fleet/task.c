/* Sessions of the worker route in memory: made with their creation or at start, dropped when they
 * have ended. */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"

enum { TEXTS_MAX = 16 << 10, TEXTS_ALL = 64 << 20, DIRECT_BODY = 64 << 10 };

int mu_fleet_task_new(struct mu_fleet *f, mu_bytes org_id, mu_bytes pin, struct mu_task **ret)
{
    struct mu_task *t = mu_calloc(1, sizeof *t + pin.len + 1);
    if (!t) {
        return -ENOMEM;
    }
    t->f = f;
    mu_list_init(&t->link);
    mu_list_init(&t->timed);
    snprintf(t->org_id, sizeof t->org_id, "%.*s", MU_ARGS(org_id));
    if (pin.len) {
        memcpy(t->pin_name, pin.ptr, pin.len);
    }
    t->state = MU_ST_QUEUED_WORKER;
    t->tenant = mu_identity_tenant(f->opts.identity, org_id);
    if (!t->tenant) {
        mu_free(t);
        return -ENOMEM;
    }
    *ret = t;
    return 0;
}

bool mu_task_older(const struct mu_heap_node *x, const struct mu_heap_node *y)
{
    const struct mu_task *a = MU_CONTAINER(x, struct mu_task, node);
    const struct mu_task *b = MU_CONTAINER(y, struct mu_task, node);
    return a->queued_ms != b->queued_ms ? a->queued_ms < b->queued_ms
                                        : strcmp(a->id.text, b->id.text) < 0;
}

/* By its id, or as the org calls its own; else it is the name of a shared one. */
static struct mu_worker *named(struct mu_fleet *f, const struct mu_task *t)
{
    struct mu_id uid;
    if (mu_id_parse(mu_str(t->pin_name), "rnr_", &uid) == 0) {
        return mu_fleet_by_uid(f, &uid);
    }
    return f->n_owned ? mu_fleet_by_host(f, t->org_id, mu_str(t->pin_name)) : NULL;
}

static int pin_it(struct mu_task *t)
{
    struct mu_fleet *f = t->f;
    struct mu_worker *w;
    if (!t->pin_name[0] || t->pin) {
        return 0;
    }
    /* anybody may name a worker that is not there: those that come must still find room */
    int r = 0;
    w = named(f, t);
    if (!w) {
        r = f->workers.count >= MU_FLEET_PINS_MAX && !mu_map_get(&f->workers, mu_str(t->pin_name))
                ? MU_E_LIMIT
                : mu_worker_get(f, mu_str(t->pin_name), &w);
    }
    if (r == 0 && !w->pinned) {
        w->pinned = mu_alloc(sizeof *w->pinned);
        if (w->pinned) {
            mu_fair_init(w->pinned, mu_task_older);
        } else {
            mu_worker_forget(w);
            r = -ENOMEM;
        }
    }
    if (r == 0) {
        t->pin = w;
        w->n_pins++;
    }
    return r;
}

int mu_task_map(struct mu_task *t)
{
    int r = t->mapped ? 0 : mu_map_put(&t->f->tasks, mu_id_bytes(&t->id), t);
    t->mapped = r == 0;
    return r < 0 ? r : pin_it(t);
}

void mu_task_forget_texts(struct mu_task *t)
{
    if (t->texts) {
        t->f->cached_bytes -= t->texts->bytes;
        mu_free(t->texts);
        t->texts = NULL;
    }
}

void mu_fleet_task_free(struct mu_task *t)
{
    struct mu_worker *pin = t->pin;
    mu_task_note_forget(t);
    mu_task_forget_texts(t);
    if (pin) {
        pin->n_pins--;
        mu_worker_forget(pin);
    }
    mu_free(t);
}

void mu_task_drop(struct mu_task *t)
{
    struct mu_fleet *f = t->f;
    mu_task_unqueue(t);
    mu_task_no_due(t);
    if (t->work) {
        mu_work_release(t);
    }
    if (t->mapped) {
        t->mapped = false;
        mu_map_remove(&f->tasks, mu_id_bytes(&t->id));
    }
    if (t->unborn) {
        t->dead = true; /* its creation's result comes yet */
        return;
    }
    mu_fleet_task_free(t);
}

/* --- creation --- */

static void put(char **at, mu_bytes src, mu_bytes *dst)
{
    if (!src.ptr) {
        *dst = MU_B_NONE;
        return;
    }
    memcpy(*at, src.ptr, src.len);
    *dst = mu_bytes_of(*at, src.len);
    *at += src.len;
}

/* Saves reading it again, which is most of the time until the assignment leaves. */
static void keep_texts(struct mu_task *t, const struct mu_session_create *op)
{
    struct mu_fleet *f = t->f;
    const mu_bytes from[] = {op->prompt, op->title, op->harness,        op->model,
                             op->skill,  op->spec,  op->environment_id, op->env_snapshot};
    size_t bytes = sizeof(struct mu_job_texts) + 1;
    for (size_t i = 0; i < MU_ARRAY_LEN(from); i++) {
        bytes += from[i].len;
    }
    struct mu_job_texts *x =
        bytes <= TEXTS_MAX && f->cached_bytes + bytes <= TEXTS_ALL ? mu_alloc(bytes) : NULL;
    if (!x) {
        return;
    }
    mu_bytes *const to[] = {&x->prompt, &x->title, &x->harness,        &x->model,
                            &x->skill,  &x->spec,  &x->environment_id, &x->env_snapshot};
    char *at = (char *)(x + 1);
    for (size_t i = 0; i < MU_ARRAY_LEN(from); i++) {
        put(&at, from[i], to[i]);
    }
    x->bytes = bytes;
    x->created_ms = t->queued_ms;
    f->cached_bytes += bytes;
    t->texts = x;
}

static bool was_stopped(const struct mu_task *t)
{
    for (size_t i = 0; i < MU_FLEET_EARLY_STOPS; i++) {
        if (strcmp(t->f->early_stops[i].text, t->id.text) == 0) {
            return true;
        }
    }
    return false;
}

static void born_here(struct mu_post *post)
{
    struct mu_task *t = MU_CONTAINER(post, struct mu_task, post);
    t->unborn = false;
    if (t->f->ended) {
        mu_free(t);
        return;
    }
    if (t->dead) {
        mu_fleet_task_free(t);
        return;
    }
    if (!t->born) {
        t->doomed = true;
        if (!t->work || !t->work->busy) { /* else its offer finds no session, and drops it */
            mu_task_drop(t);
        }
        return;
    }
    if (!t->ahead && was_stopped(t)) {
        mu_task_drop(t);
        return;
    }
    if (t->phase == MU_TASK_NEW && !t->work) {
        mu_task_enqueue(t);
    }
}

/* On the request's loop. */
static void created(struct mu_session_create *op, int result)
{
    struct mu_task *t = op->after;
    t->born = result >= 0 && !op->replayed && !op->duplicate;
    if (t->born && !t->ahead) {
        t->id = op->id;
        t->queued_ms = op->now_ms;
        t->queued_us = t->f->opts.env->mono_ns(t->f->opts.env) / 1000;
    }
    t->post.fn = born_here;
    mu_loop_post(t->f->opts.core, &t->post);
}

static void refuse_there(struct mu_post *post)
{
    struct mu_task *t = MU_CONTAINER(post, struct mu_task, post);
    struct mu_session_create *op = t->create;
    int code = t->state;
    mu_free(t);
    op->done(op, code);
}

static void refuse(struct mu_task *t, struct mu_loop *loop, int code)
{
    struct mu_worker *pin = t->pin;
    mu_task_forget_texts(t);
    if (pin) {
        pin->n_pins--;
        mu_worker_forget(pin);
    }
    if (t->mapped) {
        mu_map_remove(&t->f->tasks, mu_id_bytes(&t->id));
    }
    t->state = code;
    t->post.fn = refuse_there;
    mu_loop_post(loop, &t->post);
}

/* On the core loop: creation and offer go to the writer one behind the other, so that one commit
 * makes both durable. */
static void create_here(struct mu_post *post)
{
    struct mu_task *t = MU_CONTAINER(post, struct mu_task, post);
    struct mu_fleet *f = t->f;
    struct mu_session_create *op = t->create;
    struct mu_loop *loop = op->unit.loop;
    t->unborn = t->ahead = true;
    t->id = op->fresh = mu_id_new(f->opts.env, &t->queued_ms);
    t->queued_us = f->opts.env->mono_ns(f->opts.env) / 1000;
    int r = mu_task_map(t);
    if (r == 0) {
        keep_texts(t, op);
        r = mu_session_create(f->opts.sessions, op);
    }
    if (r < 0) {
        refuse(t, loop, r);
        return;
    }
    /* from here on `op` is the request's again */
    mu_task_enqueue(t);
    mu_fleet_pump_now(f);
}

/* Whether memory may run ahead of the commit: not when it may turn out to be a repetition or one
 * too many, when what the assignment says is read from the database, nor when the core loop would
 * have much to hash. */
static bool runs_ahead(const struct mu_session_create *op)
{
    return !op->idem_key.ptr && !op->check_dup && !op->org_limit && !op->n_vars && !op->fork &&
           op->body.len <= DIRECT_BODY;
}

int mu_fleet_create(struct mu_fleet *f, struct mu_session_create *op)
{
    struct mu_task *t;
    int r = mu_fleet_task_new(f, mu_str(op->who->org_id), op->pin_worker_id, &t);
    if (r < 0) {
        return r;
    }
    t->create = op;
    op->needs |= mu_spec_is_live(op->spec) ? MU_NEED_LIVE : 0;
    t->needs = op->needs;
    op->after = t;
    op->after_done = created;
    if (runs_ahead(op)) {
        t->post.fn = create_here;
        mu_loop_post(f->opts.core, &t->post);
        return 0;
    }
    r = mu_session_create(f->opts.sessions, op);
    if (r < 0) {
        mu_free(t);
    }
    return r;
}
