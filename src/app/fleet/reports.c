/* What workers say. A report counts only from the connection that holds the attempt. */
#include <errno.h>

#include "app/fleet/fleet_int.h"
#include "base/clip.h"

enum { BACKOFF_MS = 5000, BACKOFF_MAX_MS = 60000, REPORT_ARENA = 24 << 20 };

int mu_report_new(enum mu_report_kind kind, struct mu_report **ret)
{
    struct mu_report *r = mu_calloc(1, sizeof *r);
    if (!r) {
        return -ENOMEM;
    }
    r->kind = kind;
    r->epoch = r->offset = r->capacity = -1;
    mu_arena_init(&r->arena, REPORT_ARENA);
    mu_buf_init(&r->output, MU_OUTPUT_MAX + 65536);
    *ret = r;
    return 0;
}

struct mu_report *mu_report_free(struct mu_report *r)
{
    if (r) {
        mu_buf_fini(&r->output);
        mu_skill_set_unref(r->skills);
        mu_arena_fini(&r->arena);
        mu_free(r);
    }
    return NULL;
}

/* The task that the report is about, if that worker holds it. */
static struct mu_task *held(const struct mu_worker *w, const struct mu_report *r)
{
    struct mu_task *t = mu_map_get(&w->f->tasks, mu_id_bytes(&r->session));
    struct mu_work_item *k = t ? t->work : NULL;
    if (!k || k->w != w || !k->offered || !k->sent) {
        return NULL;
    }
    if (r->execution.text[0] && strcmp(r->execution.text, k->execution.text) != 0) {
        return NULL;
    }
    return r->epoch >= 0 && r->epoch != t->epoch ? NULL : t;
}

static void ignore(struct mu_worker *w, const struct mu_report *r)
{
    mu_metric_add(w->f->ignored, 1);
    if (w->native && r->execution.text[0] && r->seq) { /* it need not keep that any longer */
        const struct mu_execution of = {r->session, r->execution, r->epoch, r->seq};
        mu_worker_ack(w, &of);
    }
}

static void confirm(struct mu_task *t, const struct mu_report *r, int state)
{
    struct mu_work_item *k = t->work;
    k->confirmed = true;
    k->w->backoff_ms = 0;
    k->seq = MU_MAX(k->seq, r->seq);
    k->want_state = MU_MAX(k->want_state, state);
    if (k->conn) {
        mu_task_calm(t);
    }
    if (k->w->native && r->seq && k->want_state <= t->state && !k->busy) { /* stored already */
        const struct mu_execution of = {t->id, k->execution, t->epoch, k->seq};
        mu_worker_ack(k->w, &of);
    }
    mu_work_next(t);
}

static void saturate(struct mu_worker *w)
{
    w->backoff_ms = w->backoff_ms ? MU_MIN(2 * w->backoff_ms, (int64_t)BACKOFF_MAX_MS) : BACKOFF_MS;
    w->saturated_until = mu_loop_now_ms(w->f->opts.core) + w->backoff_ms;
    mu_worker_timed(w);
    mu_worker_update(w);
}

static void rejected(struct mu_worker *w, struct mu_task *t, const struct mu_report *r)
{
    if (!t || t->work->confirmed) {
        mu_fleet_worker_settle(w, &r->session, &r->execution);
        ignore(w, r);
        return;
    }
    mu_work_free_slot(t->work);
    saturate(w);
    mu_work_put_back(t, MU_ATT_REJECTED, "The worker is at its capacity", false);
}

/* Whether the report was taken over. */
static bool ended(struct mu_worker *w, struct mu_task *t, struct mu_report *r)
{
    struct mu_work_item *k = t ? t->work : NULL;
    mu_fleet_worker_settle(w, &r->session, &r->execution);
    if (k && (k->end || (k->busy && k->want != MU_WANT_NOTHING))) {
        k->late_seq = MU_MAX(k->late_seq, r->seq); /* the worker keeps it until that is stored */
        return false;
    }
    if (!k) {
        ignore(w, r);
        return false;
    }
    k->want = MU_WANT_NOTHING; /* it came in time after all */
    k->confirmed = true;
    k->end = r;
    mu_work_free_slot(k);
    mu_task_calm(t);
    mu_work_next(t);
    return true;
}

static void learn_dialect(struct mu_worker *w, enum mu_dialect d)
{
    if (d != MU_DIALECT_UNKNOWN && w->dialect == MU_DIALECT_UNKNOWN) {
        w->dialect = d;
        mu_worker_dirty(w);
    }
}

static void answered(struct mu_worker *w, struct mu_report *r)
{
    if (strcmp(r->command.text, w->drain_command.text) == 0) {
        w->drain_command.text[0] = 0;
    } else if (!mu_skills_answered(w, r)) {
        mu_metric_add(w->f->ignored, 1);
    }
}

static void by_worker(struct mu_worker *w, struct mu_report *r)
{
    struct mu_task *t = r->session.text[0] ? held(w, r) : NULL;
    w->seen_ms = mu_fleet_now(w->f);
    learn_dialect(w, r->dialect);
    if (w->native && !w->ready && r->kind != MU_REPORT_HELLO) { /* it comes again after hello */
        mu_metric_add(w->f->protocol_errors, 1);
        mu_report_free(r);
        return;
    }
    switch (r->kind) {
    case MU_REPORT_HELLO:
        mu_worker_hello(w, r);
        break;
    case MU_REPORT_CLAIMED:
    case MU_REPORT_STATE:
        if (t) {
            confirm(t, r,
                    r->kind == MU_REPORT_STATE               ? r->state
                    : w->native || (t->needs & MU_NEED_LIVE) ? MU_ST_PREPARING
                                                             : MU_ST_RUNNING);
        } else {
            ignore(w, r);
        }
        break;
    case MU_REPORT_REJECTED:
        rejected(w, t, r);
        break;
    case MU_REPORT_LOG:
        if (t) {
            mu_work_log(t, r);
        } else {
            ignore(w, r);
        }
        break;
    case MU_REPORT_ENDED:
        if (ended(w, t, r)) {
            return;
        }
        break;
    case MU_REPORT_DRAIN:
        w->draining = true;
        mu_worker_update(w);
        break;
    case MU_REPORT_ANSWER:
        answered(w, r);
        break;
    case MU_REPORT_DID:
    case MU_REPORT_RUNNER:
    case MU_REPORT_TERMINAL:
        if (!mu_runner_report(w, t, r)) {
            mu_metric_add(w->f->ignored, 1);
        }
        break;
    case MU_REPORT_ALIVE:
        mu_worker_beat(w, r);
        break;
    }
    mu_report_free(r);
}

/* --- by what runs in the sandbox --- */

static void reply_there(struct mu_post *post)
{
    struct mu_reply *reply = MU_CONTAINER(post, struct mu_reply, post);
    reply->done(reply);
}

static void by_runner(struct mu_fleet *f, struct mu_report *r)
{
    struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(&r->session));
    struct mu_work_item *k = t ? t->work : NULL;
    struct mu_reply *reply = r->reply;
    /* while its end is being stored, what is there of it is in use */
    bool ending = k && k->busy && (k->end || k->want != MU_WANT_NOTHING);
    bool mine = k && k->offered && k->sent && t->epoch == r->epoch && !ending;
    if (mine) {
        k->report_ms = mu_loop_now_ms(f->opts.core);
    }
    if (mine && r->kind == MU_REPORT_LOG) {
        mu_work_log(t, r);
    }
    if (mine && r->kind == MU_REPORT_ENDED) {
        mu_report_free(k->side);
        k->side = r;
        r = NULL;
    }
    mu_report_free(r);
    if (reply) {
        reply->result = mine ? 0 : MU_E_STALE;
        reply->post.fn = reply_there;
        mu_loop_post(reply->loop, &reply->post);
    }
}

static void told(struct mu_post *post)
{
    struct mu_report *r = MU_CONTAINER(post, struct mu_report, post);
    struct mu_fleet *f = r->fleet;
    if (f->ended) {
        mu_report_free(r);
    } else if (!r->peer) {
        by_runner(f, r);
    } else if (r->peer->worker && r->peer->worker->peer == r->peer) {
        by_worker(r->peer->worker, r);
    } else { /* a connection that was replaced */
        mu_metric_add(f->ignored, 1);
        mu_report_free(r);
    }
}

void mu_fleet_tell(struct mu_fleet *f, struct mu_report *r)
{
    r->fleet = f;
    r->post.fn = told;
    mu_loop_post(f->opts.core, &r->post);
}

/* --- hello: what the worker has against what we think it has --- */

static const struct mu_report_running *runs(const struct mu_report *r, const struct mu_work_item *k)
{
    for (size_t i = 0; i < r->n_running; i++) {
        if (strcmp(r->running[i].of.execution.text, k->execution.text) == 0) {
            return &r->running[i];
        }
    }
    return NULL;
}

static bool has_end(const struct mu_report *r, const struct mu_work_item *k)
{
    for (size_t i = 0; i < r->n_unacked; i++) {
        if (strcmp(r->unacked[i].text, k->execution.text) == 0) {
            return true;
        }
    }
    return false;
}

/* Of the attempts that we have: kept, soon ended, or unknown to it. */
static void reconcile_ours(struct mu_worker *w, struct mu_report *r)
{
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        struct mu_task *t = MU_CONTAINER(it, struct mu_task, link);
        struct mu_work_item *k = t->work;
        const struct mu_report_running *x = runs(r, k);
        if (!k->offered || !k->sent) {
            continue;
        }
        if (x) {
            const struct mu_report said = {.seq = k->seq};
            confirm(t, &said, MU_MAX(x->state, (int)MU_ST_PREPARING));
        } else if (has_end(r, k)) {
            k->confirmed = true; /* its end is on the way */
            mu_task_calm(t);
        } else if (!k->end && k->want == MU_WANT_NOTHING) {
            mu_metric_add(w->f->lost[3], 1);
            if (t->cancel) {
                k->want = MU_WANT_STOPPED;
                mu_task_calm(t);
                mu_work_next(t);
            } else if (t->state == MU_ST_CLAIMED && !k->confirmed) {
                mu_work_put_back(t, MU_ATT_UNCONFIRMED, "The worker does not know it", false);
            } else if (t->state < MU_ST_RUNNING && t->tries + 1 < w->f->opts.max_tries) {
                mu_work_put_back(t, MU_ATT_LOST, "The worker lost it", false);
            } else {
                mu_work_gone(t, "The worker lost it");
            }
        }
    }
}

static struct mu_work_item *ours(struct mu_worker *w, const struct mu_id *execution)
{
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        struct mu_work_item *k = MU_CONTAINER(it, struct mu_task, link)->work;
        if (strcmp(k->execution.text, execution->text) == 0) {
            return k;
        }
    }
    return NULL;
}

/* Of the executions that it has: which go on, which are nobody's any more. */
static void reconcile_theirs(struct mu_worker *w, const struct mu_report *r, struct mu_order *o)
{
    o->keep = mu_arena_calloc(&o->arena, (r->n_running + 1) * sizeof *o->keep);
    o->stop = mu_arena_calloc(&o->arena, (r->n_running + 1) * sizeof *o->stop);
    o->acked = mu_arena_calloc(&o->arena, (r->n_running + r->n_unacked + 1) * sizeof *o->acked);
    if (!o->keep || !o->stop || !o->acked) {
        return;
    }
    for (size_t i = 0; i < r->n_running; i++) {
        const struct mu_report_running *x = &r->running[i];
        const struct mu_work_item *k = ours(w, &x->of.execution);
        /* One that is cancelled is told so next: only then does its end come back. */
        bool keep = k && k->want == MU_WANT_NOTHING;
        if (keep) {
            o->keep[o->n_keep++] = x->of.execution;
            /* what is not stored yet is acknowledged when it is: the worker relies on it */
            int64_t seq = k->want_state > k->t->state ? 0 : k->seq;
            o->acked[o->n_acked++] =
                (struct mu_execution){k->t->id, k->execution, k->t->epoch, seq};
        } else {
            o->stop[o->n_stop++] = x->of.execution;
        }
    }
    for (size_t i = 0; i < r->n_unacked; i++) {
        if (!ours(w, &r->unacked[i])) { /* its end is stored, or was given up */
            o->acked[o->n_acked++] = (struct mu_execution){.execution = r->unacked[i], .seq = -1};
        }
    }
}

/* What we wanted it to stop and it does not run is settled. */
static void settle_by(struct mu_worker *w, const struct mu_report *r)
{
    for (bool again = true; again;) {
        again = false;
        MU_LIST_EACH(it, tmp, &w->owed)
        {
            const struct mu_owed *o = MU_CONTAINER(it, struct mu_owed, link);
            bool running = false;
            for (size_t i = 0; i < r->n_running; i++) {
                running =
                    running || strcmp(r->running[i].of.execution.text, o->of.execution.text) == 0;
            }
            if (!running) {
                const struct mu_execution of = o->of;
                mu_fleet_worker_settle(w, &of.session, &of.execution);
                again = true;
                break;
            }
        }
    }
}

void mu_worker_hello(struct mu_worker *w, struct mu_report *r)
{
    struct mu_order *o;
    const struct mu_execution none = {.seq = 0};
    if (w->ready) {
        mu_metric_add(w->f->protocol_errors, 1); /* it was said already */
        return;
    }
    w->native = true;
    w->dialect = MU_DIALECT_NATIVE;
    w->capacity = r->capacity >= 0 ? r->capacity : w->f->opts.default_capacity;
    mu_free(w->caps);
    mu_free(w->version);
    w->caps = r->caps.len ? mu_bytes_dup(r->caps) : NULL;
    w->offers = mu_needs_offered(r->caps);
    w->version = r->version.len ? mu_bytes_dup(r->version) : NULL;
    mu_worker_dirty(w);
    if (mu_worker_order(w, MU_ORDER_WELCOME, &none, &o) < 0) {
        return; /* it hears nothing, and comes again */
    }
    mu_arena_init(&o->arena, 8 << 20);
    o->worker_uid = mu_arena_dup(&o->arena, mu_id_bytes(&w->uid)).ptr;
    o->drain = w->drain_ms != 0;
    if (w->peer->credential[0]) {
        o->credential = mu_arena_dup(&o->arena, mu_str(w->peer->credential));
        explicit_bzero(w->peer->credential, sizeof w->peer->credential);
    }
    settle_by(w, r);
    reconcile_theirs(w, r, o);
    mu_worker_post(w, o);
    mu_worker_adopt_all(w);
    reconcile_ours(w, r);
    w->ready = true;
    mu_skills_worker(w, r->reads_skills);
    mu_worker_update(w);
}
