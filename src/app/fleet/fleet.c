/* The fleet: life, start-up, time. */
#include "app/fleet/fleet.h"

#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"

enum {
    HEARTBEAT_TIMEOUT_MS = 30000,
    CHECK_MS = 5000,
    ORG_WORKERS = 10,
    WORKERS = 1000,
    LOAD_PERCENT = 80
};

const char *mu_dialect_name(enum mu_dialect d)
{
    static const char *const names[] = {"unknown", "vendored", "warp", "native"};
    return names[d];
}

int64_t mu_fleet_now(const struct mu_fleet *f)
{
    return mu_env_wall_ms(f->opts.env);
}

struct mu_metric *mu_fleet_protocol_errors(struct mu_fleet *f)
{
    return f->protocol_errors;
}

/* --- time --- */

void mu_task_due(struct mu_task *t, int64_t delay_ms)
{
    t->due_ms = mu_loop_now_ms(t->f->opts.core) + delay_ms;
    if (mu_list_empty(&t->timed)) {
        mu_list_push(&t->f->timed, &t->timed);
    }
}

void mu_task_no_due(struct mu_task *t)
{
    mu_list_remove(&t->timed);
    t->due_ms = 0;
}

void mu_task_calm(struct mu_task *t)
{
    if (!t->work || !t->work->retry) {
        mu_task_no_due(t);
    }
}

/* A look at every deadline of the tasks that have one: a list needs no memory, so none is ever
 * lost, and it holds only what is offered or without its worker. */
static void tick(struct mu_timer *timer)
{
    struct mu_fleet *f = MU_CONTAINER(timer, struct mu_fleet, tick);
    if (f->closed) {
        return;
    }
    int64_t now = mu_loop_now_ms(f->opts.core);
    struct mu_list due;
    mu_list_init(&due);
    MU_LIST_EACH(it, tmp, &f->timed)
    {
        if (MU_CONTAINER(it, struct mu_task, timed)->due_ms <= now) {
            mu_list_remove(it);
            mu_list_push(&due, it);
        }
    }
    while (!mu_list_empty(&due)) {
        mu_task_tick(MU_CONTAINER(mu_list_pop(&due), struct mu_task, timed));
    }
    MU_LIST_EACH(it, tmp, &f->timed_workers)
    {
        mu_worker_tick(MU_CONTAINER(it, struct mu_worker, timed), now);
    }
    if (f->n_parked && f->unpark_ms && now >= f->unpark_ms) {
        mu_fleet_unpark(f);
    }
    mu_fleet_status_tick(f, now);
    mu_fleet_purge_tick(f, now);
    mu_store_tick(f);
    mu_skills_tick(f, now);
    mu_leases_tick(f);
    MU_CHECK(mu_timer_set(&f->tick, MU_FLEET_TICK_MS) == 0); /* its place in the heap is there */
}

/* --- life --- */

void mu_fleet_on_freed(struct mu_fleet *f, void (*freed)(void *arg), void *arg)
{
    f->freed = freed;
    f->freed_arg = arg;
}

static void add_metrics(struct mu_fleet *f)
{
    struct mu_metrics *m = f->opts.metrics;
    static const char *const lost[] = {"reason=\"not_confirmed\"", "reason=\"disconnected\"",
                                       "reason=\"claim_timeout\"", "reason=\"unknown_to_worker\""};
    if (!m) {
        return;
    }
    f->connected =
        mu_metrics_gauge(m, "oz_workers_connected", NULL, "Workers with an open connection.");
    f->conflicts = mu_metrics_counter(m, "oz_worker_conflicts_total", NULL,
                                      "Workers refused because their id was connected already.");
    f->latency =
        mu_metrics_histogram(m, "oz_assign_latency_seconds", NULL,
                             "Time from the moment a run waits for a worker to its assignment.");
    for (size_t i = 0; i < MU_ARRAY_LEN(lost); i++) {
        f->lost[i] = mu_metrics_counter(m, "oz_attempts_lost_total", lost[i],
                                        "Attempts that a worker did not bring to an end.");
    }
    f->protocol_errors = mu_metrics_counter(m, "oz_ws_protocol_errors_total", NULL,
                                            "Messages of workers that could not be understood.");
    f->ignored = mu_metrics_counter(m, "oz_worker_reports_ignored_total", NULL,
                                    "Reports about a run that the worker does not hold.");
    f->queued = mu_metrics_gauge(m, "oz_runs_pending", NULL, "Runs that wait for a worker.");
    f->running = mu_metrics_gauge(m, "oz_runs_held", NULL, "Runs that a worker holds.");
}

int mu_fleet_new(const struct mu_fleet_opts *opts, struct mu_fleet **ret)
{
    struct mu_fleet *f = mu_calloc(1, sizeof *f);
    if (!f) {
        return -ENOMEM;
    }
    f->opts = *opts;
    f->opts.heartbeat_timeout_ms =
        opts->heartbeat_timeout_ms ? opts->heartbeat_timeout_ms : HEARTBEAT_TIMEOUT_MS;
    f->opts.check_ms = opts->check_ms ? opts->check_ms : CHECK_MS;
    f->opts.max_org_workers = opts->max_org_workers ? opts->max_org_workers : ORG_WORKERS;
    f->opts.max_workers = opts->max_workers ? opts->max_workers : WORKERS;
    f->opts.load_percent = opts->load_percent ? opts->load_percent : LOAD_PERCENT;
    mu_map_init(&f->tasks);
    mu_map_init(&f->workers);
    mu_fair_init(&f->queue, mu_task_older);
    struct mu_list *const lists[] = {&f->parked,    &f->timed,         &f->free,
                                     &f->pin_check, &f->timed_workers, &f->dirty,
                                     &f->pin_busy,  &f->here,          &f->known};
    for (size_t i = 0; i < MU_ARRAY_LEN(lists); i++) {
        mu_list_init(lists[i]);
    }
    mu_skills_init(f);
    mu_timer_init(&f->tick, opts->core, tick);
    /* numbers of connections never repeat, not even after a restart */
    f->next_conn = mu_fleet_now(f) << 20;
    add_metrics(f);
    int r = mu_fleet_store_new(f);
    if (r == 0) {
        r = mu_fleet_leases_new(f);
    }
    if (r < 0) {
        mu_fleet_store_free(f);
        mu_free(f);
        return r;
    }
    *ret = f;
    return 0;
}

void mu_fleet_end(struct mu_fleet *f)
{
    if (!f || f->ended) {
        return;
    }
    mu_timer_clear(&f->tick);
    f->stopping = f->closed = f->ended = true;
    mu_skills_fini(f);
    size_t at = 0;
    struct mu_task *t;
    while ((t = mu_map_next(&f->tasks, &at))) {
        if (t->work) {
            mu_work_fini(t->work);
        }
        mu_task_note_forget(t);
        mu_free(t->texts);
        if (!t->unborn) { /* else its creation's result is on the way */
            mu_free(t);
        }
    }
    at = 0;
    struct mu_worker *w;
    while ((w = mu_map_next(&f->workers, &at))) {
        mu_fleet_worker_free(w);
    }
    mu_map_fini(&f->tasks);
    mu_map_fini(&f->workers);
    mu_fair_fini(&f->queue);
    mu_fleet_store_free(f);
    mu_fleet_leases_free(f);
}

struct mu_fleet *mu_fleet_free(struct mu_fleet *f)
{
    mu_fleet_end(f);
    mu_free(f);
    return NULL;
}

void mu_fleet_start(struct mu_fleet *f)
{
    f->started = true;
    MU_CHECK(mu_timer_set(&f->tick, MU_FLEET_TICK_MS) == 0);
    mu_fleet_pump(f);
}

void mu_fleet_stop(struct mu_fleet *f)
{
    f->stopping = true;
    mu_skills_stop(f);
}

void mu_fleet_close(struct mu_fleet *f)
{
    f->stopping = f->closed = true;
    mu_skills_stop(f);
    mu_timer_clear(&f->tick);
}

/* --- start-up --- */

static int add_task(struct mu_fleet *f, mu_bytes id, mu_bytes org, mu_bytes pin,
                    struct mu_task **ret)
{
    struct mu_task *t;
    int r = mu_fleet_task_new(f, org, pin, &t);
    if (r < 0) {
        return r;
    }
    r = mu_id_parse(id, NULL, &t->id);
    if (r == 0) {
        r = mu_task_map(t);
        r = r == MU_E_LIMIT ? 0 : r; /* it is stored: it waits for room as for a worker */
    }
    if (r < 0) {
        if (t->mapped) {
            mu_map_remove(&f->tasks, mu_id_bytes(&t->id));
        }
        mu_fleet_task_free(t);
        return r;
    }
    t->born = true;
    t->queued_us = f->opts.env->mono_ns(f->opts.env) / 1000;
    *ret = t;
    return 0;
}

int mu_fleet_load_queued(struct mu_fleet *f, const struct mu_live_row *row)
{
    struct mu_task *t;
    int r = add_task(f, row->id, row->org_id, row->pin_worker_id, &t);
    if (r == 0) {
        t->queued_ms = row->queued_ms;
        t->until_ms = row->deadline_ms;
        t->epoch = row->epoch;
        t->tries = row->tries;
        t->needs = row->needs;
        t->said = t->needs ? MU_UNFIT_PERHAPS : MU_UNFIT_NO;
        mu_task_enqueue(t);
    }
    return r;
}

/* It is forgotten as soon as the unit that is under way came back. */
static bool goes(const struct mu_task *t)
{
    return t->work && t->work->want == MU_WANT_DROP;
}

bool mu_fleet_knows(struct mu_fleet *f, const struct mu_id *session)
{
    const struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(session));
    return t && !goes(t);
}

int mu_fleet_woken(struct mu_fleet *f, const struct mu_live_row *row)
{
    const struct mu_task *t = mu_map_get(&f->tasks, row->id);
    if (f->ended || (t && !goes(t))) {
        return 0;
    }
    return t ? MU_E_BUSY
             : mu_fleet_load_queued(f, row); /* stopped meanwhile: its offer finds out */
}

static int load_attempt(void *arg, const struct mu_attempt_row *row)
{
    struct mu_fleet *f = arg;
    struct mu_worker *w;
    struct mu_task *t;
    int r = mu_worker_get(f, row->worker_id, &w);
    if (r == 0) {
        r = add_task(f, row->session_id, row->org_id, row->pin_worker_id, &t);
    }
    if (r == 0) {
        r = mu_work_begin(t, w);
    }
    if (r < 0) {
        return r;
    }
    struct mu_work_item *k = t->work;
    t->queued_ms = row->queued_ms;
    t->epoch = row->epoch;
    t->tries = row->tries;
    t->state = row->state;
    t->needs = row->needs;
    t->said = t->needs ? MU_UNFIT_PERHAPS : MU_UNFIT_NO;
    t->cancel = row->stop_ms != 0;
    if ((t->needs & MU_NEED_LIVE) && row->epoch > 1) { /* it may have gone on: that is not known */
        t->until_ms = mu_fleet_now(f) + f->opts.pending_max_ms;
    }
    k->conn = 0;
    k->offered = k->sent = true;
    k->confirmed = row->state > MU_ST_CLAIMED && row->acked_ms;
    k->deadline_ms = row->deadline_ms;
    k->persisted = k->total = k->log_at[0] = row->output_bytes;
    r = mu_id_parse(row->execution_id, NULL, &k->execution);
    snprintf(k->token_hash.text, sizeof k->token_hash.text, "%.*s", MU_ARGS(row->token_hash));
    k->token_known =
        row->token_hash.len && mu_identity_run_token_add(f->opts.identity, k->token_hash.text,
                                                         &t->id, t->org_id, t->epoch) == 0;
    mu_task_due(t, f->opts.grace_ms);
    return r;
}

/* A native worker says in its hello what it runs; another one is told once more to stop what it may
 * be running. */
static int load_owed(void *arg, const struct mu_attempt_row *row)
{
    struct mu_fleet *f = arg;
    struct mu_worker *w = mu_map_get(&f->workers, row->worker_id);
    struct mu_execution of = {.epoch = row->epoch};
    if (w && w->dialect != MU_DIALECT_NATIVE &&
        mu_id_parse(row->session_id, NULL, &of.session) == 0 &&
        mu_id_parse(row->execution_id, NULL, &of.execution) == 0) {
        mu_worker_owe(w, &of, false);
    }
    return 0;
}

int mu_fleet_load(struct mu_fleet *f, struct mu_db *db)
{
    int64_t since = mu_fleet_now(f) - f->opts.run_max_ms;
    int r = mu_store_load(f, db);
    if (r >= 0) {
        r = mu_sessions_each_attempt(db, load_attempt, f);
    }
    return r < 0
               ? r
               : mu_sessions_each_unsettled(db, since - f->opts.run_max_ms - f->opts.pending_max_ms,
                                            since, load_owed, f);
}

/* --- sessions --- */

void mu_fleet_hurry(struct mu_fleet *f, mu_bytes session_id)
{
    struct mu_task *t = mu_map_get(&f->tasks, session_id);
    if (t && t->cancel && t->work) {
        mu_work_hurry_frame(t);
    }
}

void mu_fleet_cancelled(struct mu_fleet *f, mu_bytes session_id)
{
    struct mu_task *t = mu_map_get(&f->tasks, session_id);
    if (!t) { /* the result of its creation may still be on the way */
        (void)!mu_id_parse(session_id, NULL,
                           &f->early_stops[f->n_early_stops++ % MU_FLEET_EARLY_STOPS]);
        return;
    }
    t->cancel = true;
    if (!t->work) {
        mu_task_drop(t); /* it ended in the database */
        return;
    }
    if (f->runners) {
        f->runners->stopping(f->runners_arg, &t->id);
    }
    mu_work_cancel_frame(t);
    mu_work_next(t);
}

static void cancel_told(struct mu_post *post)
{
    struct mu_fleet_cancel *op = MU_CONTAINER(post, struct mu_fleet_cancel, post);
    op->done(op);
}

static void cancel_posted(struct mu_post *post)
{
    struct mu_fleet_cancel *op = MU_CONTAINER(post, struct mu_fleet_cancel, post);
    mu_fleet_cancelled(op->fleet, mu_id_bytes(&op->session));
    op->post.fn = cancel_told;
    mu_loop_post(op->loop, &op->post);
}

void mu_fleet_cancel(struct mu_fleet *f, struct mu_fleet_cancel *op)
{
    op->fleet = f;
    op->post.fn = cancel_posted;
    mu_loop_post(f->opts.core, &op->post);
}

void mu_fleet_asleep(struct mu_fleet *f, const struct mu_execution *of)
{
    const struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(&of->session));
    if (t && t->epoch == of->epoch) {
        mu_fleet_expired(f, mu_id_bytes(&of->session));
    }
}

void mu_fleet_expired(struct mu_fleet *f, mu_bytes session_id)
{
    struct mu_task *t = mu_map_get(&f->tasks, session_id);
    if (!t) {
        return;
    }
    struct mu_work_item *k = t->work;
    if (k && k->sent) { /* it may go on running: the slot is not given away early */
        const struct mu_execution of = {t->id, k->execution, t->epoch, 0};
        mu_worker_owe(k->w, &of, k->slot);
        k->slot = false;
    }
    if (k && k->busy) {
        k->want = MU_WANT_DROP;
    } else {
        mu_task_drop(t);
    }
}
