/* A task in the hands of a worker: offered, sent, confirmed, and every way out of that but its end
 * (end.c). One unit of work at a time; mu_work_next() chooses the next from what was reported and
 * wanted meanwhile. */
#include <errno.h>

#include "app/fleet/fleet_int.h"

enum { END_ARENA = 1 << 20, JOB_ARENA = 16 << 20 };

/* --- life --- */

int mu_work_begin(struct mu_task *t, struct mu_worker *w)
{
    struct mu_fleet *f = t->f;
    struct mu_work_item *k = mu_calloc(1, sizeof *k);
    if (!k) {
        return -ENOMEM;
    }
    k->t = t;
    k->w = w;
    k->conn = w->conn;
    k->execution = mu_id_random(f->opts.env);
    mu_run_token_new(f->opts.env, k->token, &k->token_hash);
    k->slot = k->running = true;
    mu_arena_init(&k->end_arena, END_ARENA);
    mu_arena_init(&k->job.arena, JOB_ARENA);
    mu_arena_init(&k->vars_arena, JOB_ARENA);
    mu_work_output_init(k);
    w->in_flight++;
    atomic_fetch_add(&t->tenant->running, 1);
    t->work = k;
    t->phase = MU_TASK_HELD;
    mu_list_push(&w->tasks, &t->link);
    mu_metric_add(f->running, 1);
    return 0;
}

void mu_work_fini(struct mu_work_item *k)
{
    mu_timer_clear(&k->chunk_timer);
    mu_arena_fini(&k->end_arena);
    mu_arena_fini(&k->job.arena);
    mu_arena_fini(&k->vars_arena);
    mu_buf_fini(&k->tail);
    mu_buf_fini(&k->chunk_bytes);
    mu_report_free(k->end);
    mu_report_free(k->side);
    explicit_bzero(k->token, sizeof k->token);
    mu_free(k);
}

void mu_work_free_slot(struct mu_work_item *k)
{
    if (k->slot) {
        k->slot = false;
        k->w->in_flight--;
        k->w->saturated_until = 0; /* one of its runs ended */
        mu_worker_update(k->w);
    }
}

/* What became of the attempt is stored, by its end or without it: the worker need not keep it any
 * longer. */
static void acknowledge_end(const struct mu_task *t)
{
    const struct mu_work_item *k = t->work;
    int64_t seq = MU_MAX(k->late_seq, k->end ? k->end->seq : 0);
    if (k->w->native && (k->end || seq)) {
        const struct mu_execution of = {t->id, k->execution, t->epoch, seq};
        mu_worker_ack(k->w, &of);
    }
}

void mu_work_release(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    struct mu_fleet *f = t->f;
    struct mu_worker *w = k->w;
    MU_CHECK(!k->busy);
    mu_runner_gone(t);
    mu_direct_over(k);
    mu_task_no_due(t);
    if (k->token_known) {
        mu_identity_run_token_remove(f->opts.identity, k->token_hash.text);
    }
    if (k->running) {
        atomic_fetch_sub(&t->tenant->running, 1);
        mu_metric_add(f->running, -1);
        if (f->freed) {
            f->freed(f->freed_arg);
        }
    }
    acknowledge_end(t);
    mu_list_remove(&t->link);
    t->work = NULL;
    t->phase = MU_TASK_NEW;
    k->t = NULL;
    mu_work_free_slot(k);
    k->w = NULL;
    k->over = true;
    if (!k->chunk_busy && !k->reading) {
        mu_work_fini(k);
    }
    mu_worker_status_look(w); /* it may be empty now */
    mu_worker_forget(w);
    mu_fleet_tenant_freed(f);
}

void mu_work_retry(struct mu_task *t)
{
    t->work->retry = true;
    mu_task_due(t, MU_FLEET_RETRY_MS);
}

static bool gone_in_db(int result)
{
    return result == MU_E_STALE || result == MU_E_NOT_FOUND;
}

/* --- offer --- */

/* One that was put back after it had begun waits as long as a new one from then on. */
static int64_t wait_until(const struct mu_task *t)
{
    return MU_MAX(t->queued_ms + t->f->opts.pending_max_ms, t->until_ms);
}

static void offered(struct mu_session_offer *op, int result)
{
    struct mu_task *t = op->ctx;
    struct mu_work_item *k = t->work;
    struct mu_fleet *f = t->f;
    k->busy = false;
    if (result >= 0) {
        t->epoch = op->epoch;
        t->state = MU_ST_CLAIMED;
        k->offered = true;
        t->said = MU_UNFIT_NO;
        k->token_known = mu_identity_run_token_add(f->opts.identity, k->token_hash.text, &t->id,
                                                   t->org_id, t->epoch) == 0;
        mu_work_next(t);
        return;
    }
    bool dropped = k->want == MU_WANT_DROP;
    mu_work_release(t);
    if (t->doomed || dropped || (gone_in_db(result) && !t->unborn)) {
        mu_task_drop(t); /* cancelled or expired meanwhile: the row says so */
    } else if (!t->unborn) {
        mu_task_park(t, MU_FLEET_RETRY_MS);
    } /* else its creation's result says what becomes of it */
}

void mu_work_offer(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    struct mu_fleet *f = t->f;
    int64_t now = mu_fleet_now(f);
    /* whoever drives the attempt acts long before: this is the net below */
    int64_t lease =
        now + MU_MAX(f->opts.claim_timeout_ms, f->opts.native_claim_timeout_ms) + f->opts.grace_ms;
    int64_t net = lease + 600000;
    k->offer = (struct mu_session_offer){.unit = {.loop = f->opts.core},
                                         .id = t->id,
                                         .execution_id = k->execution,
                                         .epoch = t->epoch,
                                         .worker_id = mu_str(k->w->name),
                                         .conn = k->conn,
                                         .token = k->token_hash,
                                         .deadline_ms = MU_MAX(wait_until(t), net),
                                         .lease_ms = lease,
                                         .noted = t->said != MU_UNFIT_NO || t->note,
                                         .done = offered,
                                         .ctx = t};
    k->busy = true;
    if (mu_session_offer(f->opts.sessions, &k->offer) < 0) {
        k->busy = false;
        mu_work_release(t);
        mu_task_park(t, MU_FLEET_RETRY_MS);
        return;
    }
    mu_work_job(t);
}

/* --- step --- */

static void stepped(struct mu_session_step *op, int result)
{
    struct mu_task *t = op->ctx;
    struct mu_work_item *k = t->work;
    k->busy = false;
    if (result >= 0) {
        t->state = op->to;
        int64_t seq = k->want_state > t->state ? k->step_seq : k->seq;
        if (k->w->native && seq) {
            const struct mu_execution of = {t->id, k->execution, t->epoch, seq};
            mu_worker_ack(k->w, &of);
        }
    } else if (gone_in_db(result)) {
        k->want_state = 0; /* a stop was accepted, or it ended: that is told soon */
    } else {
        mu_work_retry(t);
        return;
    }
    mu_work_next(t);
}

static void step(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    struct mu_fleet *f = t->f;
    if (t->state == MU_ST_CLAIMED) {
        k->deadline_ms = mu_fleet_now(f) + f->opts.run_max_ms;
    }
    k->step = (struct mu_session_step){.unit = {.loop = f->opts.core},
                                       .id = t->id,
                                       .epoch = t->epoch,
                                       .deadline_ms = k->deadline_ms,
                                       .lease_ms = mu_fleet_now(f) + f->opts.grace_ms,
                                       .from = t->state,
                                       .to = k->want_state,
                                       .done = stepped,
                                       .ctx = t};
    k->step_seq = k->seq;
    k->busy = true;
    if (mu_session_step(f->opts.sessions, &k->step) < 0) {
        k->busy = false;
        mu_work_retry(t);
    }
}

/* --- back to the queue --- */

static void want_failed(struct mu_work_item *k, enum mu_end_reason reason, const char *code,
                        const char *text)
{
    k->want = MU_WANT_FAILED;
    k->want_end = reason;
    k->want_code = code;
    k->want_text = text;
}

/* It is lost and may not go on: it ends as it was reported, or as lost. */
static void not_on(struct mu_task *t, bool too_often)
{
    struct mu_work_item *k = t->work;
    k->goes_on = false;
    k->may_not = true;
    k->too_often = too_often;
    if (k->want == MU_WANT_REQUEUE) {
        k->want = MU_WANT_NOTHING;
        if (!k->end) {
            want_failed(k, MU_END_RUNNER_LOST, "worker_lost", "Worker disconnected");
        }
    }
    mu_work_next(t);
}

static void requeued(struct mu_session_requeue *op, int result)
{
    struct mu_task *t = op->ctx;
    struct mu_work_item *k = t->work;
    k->busy = false;
    if (gone_in_db(result)) {
        k->goes_on = false;
        k->may_not = true;
        k->want = k->want == MU_WANT_DROP ? k->want : k->end ? MU_WANT_NOTHING : MU_WANT_STOPPED;
        mu_work_next(t); /* a stop was accepted, or it ended: the end finds out which */
        return;
    }
    if (result == MU_E_CONFLICT) {
        not_on(t, op->too_often);
        return;
    }
    if (result < 0) {
        mu_work_retry(t);
        return;
    }
    mu_log(MU_LOG_INFO, "run.requeued", MU_KS("run_id", mu_id_bytes(&t->id)),
           MU_KC("worker_id", k->w->name), MU_KC("reason", op->reason));
    bool dropped = k->want == MU_WANT_DROP || op->parked;
    t->until_ms = op->deadline_ms;
    if (op->lost) {
        mu_task_forget_texts(t); /* they do not say where it goes on */
    }
    t->epoch = op->epoch;
    t->state = MU_ST_QUEUED_WORKER;
    t->tries += op->counts;
    t->queued_us = t->f->opts.env->mono_ns(t->f->opts.env) / 1000;
    mu_work_release(t);
    if (dropped || t->cancel) {
        mu_task_drop(t);
    } else {
        mu_task_enqueue(t);
    }
}

static void requeue(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    struct mu_fleet *f = t->f;
    int64_t now = mu_fleet_now(f);
    int64_t deadline = t->state == MU_ST_CLAIMED ? wait_until(t) : now + f->opts.pending_max_ms;
    k->requeue = (struct mu_session_requeue){
        .unit = {.loop = f->opts.core},
        .id = t->id,
        .epoch = t->epoch,
        .deadline_ms = deadline,
        .from = t->state,
        .counts = t->state > MU_ST_CLAIMED && !k->goes_on,
        .lost = k->goes_on,
        .park_until_ms = f->opts.hibernated_ms ? now + f->opts.hibernated_ms : 0,
        .outcome = k->want_outcome,
        .reason = k->want_text,
        .done = requeued,
        .ctx = t};
    k->busy = true;
    if (mu_session_requeue(f->opts.sessions, &k->requeue) < 0) {
        k->busy = false;
        mu_work_retry(t);
    }
}

void mu_work_put_back(struct mu_task *t, enum mu_attempt_outcome outcome, const char *reason,
                      bool told)
{
    struct mu_work_item *k = t->work;
    if (k->want != MU_WANT_NOTHING || k->end) {
        return;
    }
    k->want = MU_WANT_REQUEUE;
    k->want_outcome = outcome;
    k->want_text = reason;
    if (told) {
        const struct mu_execution of = {t->id, k->execution, t->epoch, 0};
        mu_worker_owe(k->w, &of, k->slot);
        k->slot = false;
    }
    mu_task_calm(t);
    mu_work_next(t);
}

void mu_work_fail(struct mu_task *t, enum mu_end_reason reason, const char *code, const char *text)
{
    struct mu_work_item *k = t->work;
    if (k->want == MU_WANT_NOTHING && !k->end) {
        want_failed(k, reason, code, text);
        mu_task_calm(t);
    }
    mu_work_next(t);
}

static bool may_go_on(const struct mu_task *t)
{
    return (t->needs & MU_NEED_LIVE) && !t->cancel && !t->work->may_not;
}

static void go_on(struct mu_work_item *k, const char *reason)
{
    k->want = MU_WANT_REQUEUE;
    k->want_outcome = MU_ATT_LOST;
    k->want_text = reason;
    k->goes_on = true;
}

void mu_work_gone(struct mu_task *t, const char *reason)
{
    struct mu_work_item *k = t->work;
    if (!may_go_on(t)) {
        mu_work_fail(t, MU_END_RUNNER_LOST, "worker_lost", "Worker disconnected");
        return;
    }
    if (k->want == MU_WANT_NOTHING && !k->end) {
        go_on(k, reason);
        mu_task_calm(t);
    }
    mu_work_next(t);
}

static void fail_lost(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    const struct mu_execution of = {t->id, k->execution, t->epoch, 0};
    if (k->want == MU_WANT_NOTHING && !k->end) {
        mu_worker_owe(k->w, &of, k->slot);
        k->slot = false;
    }
    mu_work_gone(t, "The worker disconnected");
}

void mu_work_lost(struct mu_task *t)
{
    struct mu_fleet *f = t->f;
    mu_metric_add(f->lost[t->state == MU_ST_CLAIMED ? 0 : 1], 1);
    if (t->state <= MU_ST_STARTING && !t->cancel &&
        (t->state == MU_ST_CLAIMED || t->tries + 1 < f->opts.max_tries)) {
        mu_work_put_back(t, t->state == MU_ST_CLAIMED ? MU_ATT_UNCONFIRMED : MU_ATT_LOST,
                         "The worker disconnected", true);
    } else {
        fail_lost(t);
    }
}

/* --- the worker's connection --- */

/* Until somebody else may have it: what did not run yet need not wait for longer than it takes to
 * be sure that its worker has let go of it. */
static int64_t patience(const struct mu_task *t)
{
    const struct mu_fleet_opts *o = &t->f->opts;
    int64_t offline = o->heartbeat_timeout_ms + o->check_ms;
    return t->state <= MU_ST_STARTING && !t->cancel ? MU_MIN(o->grace_ms, offline) : o->grace_ms;
}

void mu_work_left(struct mu_task *t, bool unsent)
{
    struct mu_work_item *k = t->work;
    if (!k->direct) { /* one that came by itself is still there */
        mu_runner_gone(t);
    }
    k->conn = 0;
    k->cancel_sent = false;
    k->sent = k->sent && !unsent;
    if (k->sent && !k->retry) {
        mu_task_due(t, patience(t));
    }
    mu_work_next(t); /* what was not sent goes back */
}

void mu_work_adopt(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    k->conn = k->w->conn;
    mu_task_calm(t);
    if (t->cancel) {
        mu_work_cancel_frame(t);
    } else if (k->sent && !k->confirmed) {
        mu_task_due(t, MU_FLEET_CONFIRM_MS);
    }
    mu_work_next(t);
}

void mu_work_cancel_frame(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    struct mu_order *o;
    const struct mu_execution of = {t->id, k->execution, t->epoch, 0};
    if (!k->sent || !k->conn || k->cancel_sent) {
        return;
    }
    if (mu_worker_order(k->w, MU_ORDER_CANCEL, &of, &o) < 0) {
        mu_work_retry(t);
        return;
    }
    k->cancel_sent = true;
    mu_worker_post(k->w, o);
}

void mu_work_hurry_frame(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    struct mu_order *o;
    const struct mu_execution of = {t->id, k->execution, t->epoch, 0};
    if (k->sent && k->conn && mu_worker_order(k->w, MU_ORDER_CANCEL, &of, &o) == 0) {
        o->at_once = true;
        k->cancel_sent = true;
        mu_worker_post(k->w, o);
    }
}

/* --- time --- */

static void tick_retry(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    k->retry = false;
    if (k->sent && !k->conn) {
        mu_task_due(t, patience(t)); /* what it waited for besides */
    }
    if (t->cancel) {
        mu_work_cancel_frame(t);
    }
    mu_work_next(t);
}

static void not_confirmed(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    for (size_t i = MU_FLEET_BAD_CONNS - 1; i > 0; i--) {
        t->bad_conns[i] = t->bad_conns[i - 1];
    }
    t->bad_conns[0] = k->conn;
    mu_metric_add(t->f->lost[2], 1);
    mu_work_put_back(t, MU_ATT_UNCONFIRMED, "The worker did not confirm it in time", true);
}

void mu_task_tick(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    struct mu_fleet *f = t->f;
    mu_task_no_due(t);
    if (!k) {
        return;
    }
    if (k->retry) {
        tick_retry(t);
    } else if (k->end || k->want != MU_WANT_NOTHING) {
        return; /* a unit of it is under way */
    } else if (k->conn && k->sent && !k->confirmed) {
        not_confirmed(t);
    } else if (!k->conn && k->sent) {
        int64_t last = k->report_ms + f->opts.grace_ms - mu_loop_now_ms(f->opts.core);
        if (k->report_ms && last > 0) { /* what it runs still reports */
            mu_task_due(t, last);
        } else if (k->side && t->state > MU_ST_CLAIMED) { /* it outlived its worker */
            k->end = k->side;
            k->side = NULL;
            mu_work_next(t);
        } else {
            mu_work_lost(t);
        }
    }
}

/* --- what next --- */

void mu_work_next(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    if (k->busy || !k->offered || k->retry || t->f->closed) {
        return;
    }
    if (k->want == MU_WANT_DROP) {
        mu_task_drop(t);
    } else if (k->end && mu_report_is_loss(k->end) && may_go_on(t)) {
        if (!mu_runner_unstored(t)) { /* else it comes back with mu_fleet_said() */
            go_on(k, "The runner was lost");
            requeue(t);
        }
    } else if (k->end) {
        mu_work_end(t);
    } else if (t->cancel && !k->sent) {
        k->want = MU_WANT_STOPPED; /* nobody was told of it */
        mu_work_end(t);
    } else if (k->want == MU_WANT_STOPPED || k->want == MU_WANT_FAILED) {
        mu_work_end(t);
    } else if (k->want == MU_WANT_REQUEUE && t->state > MU_ST_STARTING && !k->goes_on &&
               may_go_on(t)) {
        k->goes_on = true;
        requeue(t);
    } else if (k->want == MU_WANT_REQUEUE && t->state > MU_ST_STARTING && !k->goes_on) {
        /* a step that was under way when that was decided: now it may have been executed */
        want_failed(k, MU_END_RUNNER_LOST, "worker_lost", "Worker disconnected");
        mu_work_end(t);
    } else if (k->want == MU_WANT_REQUEUE) {
        requeue(t);
    } else if (!k->sent && !k->conn) {
        k->want = MU_WANT_REQUEUE;
        k->want_outcome = MU_ATT_PUT_BACK;
        k->want_text = "The worker left before it was told";
        requeue(t);
    } else if (!k->sent && k->job_read) {
        mu_work_send(t);
    } else if (!k->sent && !k->reading) {
        mu_work_job(t);
    } else if (k->want_state > t->state && !t->cancel) {
        step(t);
    }
}
