#include "app/dispatch/dispatch.h"

#include <errno.h>
#include <stdio.h>

#include "app/dispatch/exec.h"
#include "base/clip.h"
#include "base/log.h"

enum { RECOVER_RETRY_MS = 500 };

/* --- life --- */

/* The alarm stays set for as long as the dispatcher lives: moving it then needs no memory, so no
 * wake-up can be lost. */
static int arm_wake(struct mu_dispatch *d)
{
    return mu_timer_set(&d->wake, MU_LOOK_MS);
}

static void on_wake(struct mu_timer *t)
{
    struct mu_dispatch *d = MU_CONTAINER(t, struct mu_dispatch, wake);
    MU_CHECK(arm_wake(d) == 0); /* its place in the heap has only just become free */
    mu_dispatch_pump(d);
}

static void on_capacity(void *arg)
{
    struct mu_dispatch *d = arg;
    d->look_no++;
    mu_dispatch_pump(d);
}

static void on_freed(void *arg)
{
    mu_dispatch_pump(arg);
}

int mu_dispatch_new(const struct mu_dispatch_opts *opts, struct mu_dispatch **ret)
{
    struct mu_dispatch *d = mu_calloc(1, sizeof *d);
    if (!d) {
        return -ENOMEM;
    }
    d->opts = *opts;
    mu_map_init(&d->runs);
    mu_fair_init(&d->queue, mu_run_older);
    mu_list_init(&d->waiting);
    mu_list_init(&d->active);
    mu_timer_init(&d->wake, opts->core, on_wake);
    mu_timer_init(&d->grace, opts->core, NULL);
    int r = arm_wake(d);
    if (r < 0) {
        mu_free(d);
        return r;
    }
    if (opts->metrics) {
        d->queued_gauge = mu_metrics_gauge(opts->metrics, "muster_runs_queued", NULL,
                                           "Runs waiting for a free place.");
        d->waiting_gauge = mu_metrics_gauge(opts->metrics, "muster_runs_waiting", NULL,
                                            "Runs waiting for a provider's capacity.");
        d->running_gauge = mu_metrics_gauge(opts->metrics, "muster_runs_running", NULL,
                                            "Runs executing in this process.");
    }
    mu_providers_on_capacity(opts->providers, on_capacity, d);
    if (opts->fleet) {
        mu_fleet_on_freed(opts->fleet, on_freed, d);
    }
    *ret = d;
    return 0;
}

struct mu_recovery {
    struct mu_session_recover op;
    struct mu_dispatch *d;
    struct mu_timer again;
    char *harness, *model;
    int64_t queued_ms, saturated_ms;
};

static void free_recoveries(struct mu_dispatch *d)
{
    for (size_t i = 0; i < d->n_recoveries; i++) {
        mu_timer_clear(&d->recoveries[i].again);
        mu_free(d->recoveries[i].harness);
        mu_free(d->recoveries[i].model);
    }
    mu_free(d->recoveries);
    d->recoveries = NULL;
    d->n_recoveries = 0;
}

struct mu_dispatch *mu_dispatch_free(struct mu_dispatch *d)
{
    if (!d) {
        return NULL;
    }
    if (d->opts.fleet) {
        mu_fleet_on_freed(d->opts.fleet, NULL, NULL);
    }
    MU_LIST_EACH(it, tmp, &d->waiting)
    {
        struct mu_run *waiter = MU_CONTAINER(it, struct mu_run, link);
        if (!waiter->mapped) {
            mu_list_remove(it);
            mu_run_free(waiter);
        }
    }
    size_t at = 0;
    struct mu_run *run;
    while ((run = mu_map_next(&d->runs, &at))) {
        mu_run_free(run);
    }
    mu_map_fini(&d->runs);
    mu_fair_fini(&d->queue);
    mu_timer_clear(&d->wake);
    mu_timer_clear(&d->grace);
    free_recoveries(d);
    mu_free(d);
    return NULL;
}

/* --- start-up --- */

static int add_queued(struct mu_dispatch *d, mu_bytes id, mu_bytes org, mu_bytes harness,
                      mu_bytes model, int64_t queued_ms, int64_t epoch, int tries,
                      int64_t saturated_ms)
{
    struct mu_run *run;
    int r = mu_run_new(d, org, harness, model, &run);
    if (r < 0) {
        return r;
    }
    r = mu_id_parse(id, NULL, &run->id);
    if (r == 0) {
        r = mu_run_map(run);
    }
    if (r < 0) {
        mu_run_free(run);
        return r;
    }
    run->queued_ms = queued_ms;
    run->epoch = epoch;
    run->tries = tries;
    run->saturated_ms = saturated_ms;
    run->admin = mu_identity_is_admin_org(d->opts.identity, org);
    mu_run_enqueue(run);
    return 0;
}

static int add_recovery(struct mu_dispatch *d, const struct mu_live_row *row)
{
    if (d->n_recoveries % 64 == 0) {
        struct mu_recovery *p = mu_realloc(d->recoveries, (d->n_recoveries + 64) * sizeof *p);
        if (!p) {
            return -ENOMEM;
        }
        d->recoveries = p;
    }
    struct mu_recovery *rec = &d->recoveries[d->n_recoveries++];
    *rec = (struct mu_recovery){
        .d = d, .queued_ms = row->queued_ms, .saturated_ms = row->saturated_ms};
    rec->harness = mu_bytes_dup(row->harness);
    rec->model = mu_bytes_dup(row->model);
    rec->op.state = row->state;
    rec->op.tries = row->tries;
    rec->op.epoch = row->epoch;
    snprintf(rec->op.org_id, sizeof rec->op.org_id, "%.*s", MU_ARGS(row->org_id));
    return rec->harness && rec->model ? mu_id_parse(row->id, NULL, &rec->op.id) : -ENOMEM;
}

static int load_row(void *arg, const struct mu_live_row *row)
{
    struct mu_dispatch *d = arg;
    struct mu_tenant *t = mu_identity_tenant(d->opts.identity, row->org_id);
    if (!t) {
        return -ENOMEM;
    }
    if (row->state < 80) { /* what is being stopped has given its place back */
        atomic_fetch_add(&t->live, 1);
    }
    if (row->route != MU_ROUTE_PROVIDER) {
        /* what a worker held is found by its attempt: mu_fleet_load() */
        return d->opts.fleet && row->state == MU_ST_QUEUED_WORKER
                   ? mu_fleet_load_queued(d->opts.fleet, row)
                   : 0;
    }
    if (row->state == MU_ST_QUEUED) {
        return add_queued(d, row->id, row->org_id, row->harness, row->model, row->queued_ms,
                          row->epoch, row->tries, row->saturated_ms);
    }
    return add_recovery(d, row);
}

int mu_dispatch_load(struct mu_dispatch *d, struct mu_db *db)
{
    int r = d->opts.fleet ? mu_fleet_load(d->opts.fleet, db) : 0;
    return r < 0 ? r : mu_sessions_each_live(db, load_row, d);
}

static void all_recovered(struct mu_dispatch *d)
{
    if (d->n_recoveries) {
        mu_log(MU_LOG_INFO, "startup.recovered", MU_KI("runs", (int64_t)d->n_recoveries));
    }
    free_recoveries(d);
    d->started = true;
    if (d->opts.fleet) {
        mu_fleet_start(d->opts.fleet);
    }
    d->ready(d->ready_arg);
    mu_dispatch_pump(d);
}

static void recover(struct mu_recovery *rec);

static void recover_again(struct mu_timer *t)
{
    recover(MU_CONTAINER(t, struct mu_recovery, again));
}

static void recovered(struct mu_session_recover *op, int result);

static void queue_again(struct mu_timer *t)
{
    recovered(&MU_CONTAINER(t, struct mu_recovery, again)->op, 0);
}

/* False when there is no memory for that either. */
static bool once_more(struct mu_recovery *rec, void (*fn)(struct mu_timer *t))
{
    mu_timer_init(&rec->again, rec->d->opts.core, fn);
    return mu_timer_set(&rec->again, RECOVER_RETRY_MS) == 0;
}

static void recovered(struct mu_session_recover *op, int result)
{
    struct mu_recovery *rec = op->ctx;
    struct mu_dispatch *d = rec->d;
    if (result < 0 && result != MU_E_STALE && result != MU_E_NOT_FOUND && result != MU_E_SHUTDOWN &&
        once_more(rec, recover_again)) {
        return;
    }
    if (result == 0 && op->requeued &&
        add_queued(d, mu_id_bytes(&op->id), mu_str(op->org_id), mu_str(rec->harness),
                   mu_str(rec->model), rec->queued_ms, op->epoch, op->tries,
                   rec->saturated_ms) < 0) {
        if (once_more(rec, queue_again)) {
            return;
        }
        mu_log(MU_LOG_ERROR, "startup.requeue_failed", MU_KS("run_id", mu_id_bytes(&op->id)));
    }
    if (--d->recoveries_open == 0) {
        all_recovered(d);
    }
}

static void recover(struct mu_recovery *rec)
{
    rec->op.unit.loop = rec->d->opts.core;
    rec->op.max_tries = (int)rec->d->opts.max_tries;
    rec->op.done = recovered;
    rec->op.ctx = rec;
    int r = mu_session_recover(rec->d->opts.sessions, &rec->op);
    if (r < 0) {
        recovered(&rec->op, r);
    }
}

void mu_dispatch_start(struct mu_dispatch *d, void (*ready)(void *arg), void *arg)
{
    d->ready = ready;
    d->ready_arg = arg;
    if (d->n_recoveries == 0) {
        all_recovered(d);
        return;
    }
    d->recoveries_open = d->n_recoveries;
    size_t n = d->n_recoveries; /* the last completion frees the array */
    struct mu_recovery *all = d->recoveries;
    for (size_t i = 0; i < n; i++) {
        recover(&all[i]);
    }
}

/* --- create --- */

static void enqueue_posted(struct mu_post *post)
{
    struct mu_run *run = MU_CONTAINER(post, struct mu_run, post);
    if (mu_run_map(run) < 0) { /* it is stored: nothing may lose it here */
        mu_run_wait_retry(run);
    } else {
        mu_run_enqueue(run);
    }
}

static void created(struct mu_session_create *op, int result)
{
    struct mu_run *run = op->after;
    if (result < 0 || op->replayed || op->duplicate) {
        mu_run_free(run);
        return;
    }
    run->id = op->id;
    run->queued_ms = op->now_ms;
    run->post.fn = enqueue_posted;
    mu_loop_post(run->d->opts.core, &run->post);
}

int mu_dispatch_create(struct mu_dispatch *d, struct mu_session_create *op)
{
    if (op->route != MU_ROUTE_PROVIDER) {
        return d->opts.fleet ? mu_fleet_create(d->opts.fleet, op)
                             : mu_session_create(d->opts.sessions, op);
    }
    struct mu_run *run;
    int r = mu_run_new(d, mu_str(op->who->org_id), op->harness, op->model, &run);
    if (r < 0) {
        return r;
    }
    run->admin = op->who->admin;
    op->after = run;
    op->after_done = created;
    r = mu_session_create(d->opts.sessions, op);
    if (r < 0) {
        mu_run_free(run);
    }
    return r;
}

/* --- cancel --- */

static void cancel_here(struct mu_dispatch *d, mu_bytes id)
{
    struct mu_run *run = mu_map_get(&d->runs, id);
    if (!run) {
        return;
    }
    run->cancel = true;
    if (run->phase <= MU_RUN_WAITING) {
        mu_run_drop(run); /* it ended in the database: nothing will be called */
    } else {
        mu_run_abort(run);
    }
}

struct cancel_post {
    struct mu_post post;
    struct mu_dispatch *d;
    struct mu_id id;
    int route;
};

static void cancel_posted(struct mu_post *post)
{
    struct cancel_post *p = MU_CONTAINER(post, struct cancel_post, post);
    if (p->route == MU_ROUTE_PROVIDER) {
        cancel_here(p->d, mu_id_bytes(&p->id));
    } else if (p->d->opts.fleet) {
        mu_fleet_cancelled(p->d->opts.fleet, mu_id_bytes(&p->id));
    }
    mu_free(p);
}

static void cancelled(struct mu_session_cancel *op, int result)
{
    struct cancel_post *p = op->after;
    if (result < 0 || !op->changed) {
        mu_free(p);
        return;
    }
    p->route = op->route;
    mu_loop_post(p->d->opts.core, &p->post);
}

int mu_dispatch_cancel(struct mu_dispatch *d, struct mu_session_cancel *op)
{
    struct cancel_post *p =
        mu_alloc(sizeof *p); /* taken before the write: afterwards it could not fail */
    if (!p) {
        return -ENOMEM;
    }
    *p = (struct cancel_post){.post = {.fn = cancel_posted}, .d = d, .id = op->id};
    op->after = p;
    op->after_done = cancelled;
    int r = mu_session_cancel(d->opts.sessions, op);
    if (r < 0) {
        mu_free(p);
    }
    return r;
}

void mu_dispatch_expired(struct mu_dispatch *d, mu_bytes session_id)
{
    cancel_here(d, session_id);
    if (d->opts.fleet) {
        mu_fleet_expired(d->opts.fleet, session_id);
    }
}

/* --- snapshot --- */

static void snapshot_back(struct mu_post *post)
{
    struct mu_snapshot *op = MU_CONTAINER(post, struct mu_snapshot, post);
    op->done(op);
}

static void held_read(struct mu_fleet_snapshot *held)
{
    struct mu_snapshot *op = held->ctx;
    op->text = held->text;
    op->running = held->running;
    op->epoch = held->epoch;
    op->offset = held->offset;
    op->post.fn = snapshot_back;
    mu_loop_post(op->loop, &op->post);
}

/* Whether a worker holds it: then the answer follows. */
static bool snapshot_held(struct mu_snapshot *op)
{
    struct mu_fleet *fleet = op->dispatch->opts.fleet;
    op->held = (struct mu_fleet_snapshot){.id = op->id, .done = held_read, .ctx = op};
    mu_buf_init(&op->held.text, MU_OUTPUT_MAX + (2 << 20));
    return fleet && mu_fleet_snapshot(fleet, &op->held);
}

static void snapshot_here(struct mu_post *post)
{
    struct mu_snapshot *op = MU_CONTAINER(post, struct mu_snapshot, post);
    struct mu_run *run = mu_map_get(&op->dispatch->runs, mu_id_bytes(&op->id));
    if (!run && snapshot_held(op)) {
        return;
    }
    mu_buf_init(&op->text, MU_OUTPUT_MAX + 1);
    op->running = run && run->x && run->phase >= MU_RUN_RUNNING;
    if (op->running) {
        op->epoch = run->epoch;
        op->offset = 0;
        mu_clip_write(&run->x->out, false, &op->text);
        op->running = !op->text.failed; /* without memory the viewer has the deltas only */
        if (op->running && mu_clip_lost(&run->x->out)) {
            /* only the tail is whole: the viewer sees where it begins */
            mu_buf_consume(&op->text, MU_OUTPUT_HEAD);
            op->offset = run->x->out.total - MU_OUTPUT_TAIL;
        }
    }
    op->post.fn = snapshot_back;
    mu_loop_post(op->loop, &op->post);
}

void mu_dispatch_snapshot(struct mu_dispatch *d, struct mu_snapshot *op)
{
    op->dispatch = d;
    op->post.fn = snapshot_here;
    mu_loop_post(d->opts.core, &op->post);
}

/* --- stop, reload --- */

void mu_dispatch_check_stopped(struct mu_dispatch *d)
{
    if (d->stopping && d->n_active == 0 && d->stopped) {
        void (*fn)(void *) = d->stopped;
        d->stopped = NULL;
        mu_timer_clear(&d->grace);
        fn(d->stopped_arg);
    }
}

static void cut_off(struct mu_timer *t)
{
    struct mu_dispatch *d = MU_CONTAINER(t, struct mu_dispatch, grace);
    MU_LIST_EACH(it, tmp, &d->active)
    {
        struct mu_run *run = MU_CONTAINER(it, struct mu_run, link);
        run->release = true;
        mu_run_abort(run);
    }
    mu_dispatch_check_stopped(d);
}

void mu_dispatch_stop(struct mu_dispatch *d, int64_t grace_ms, void (*stopped)(void *arg),
                      void *arg)
{
    if (!d->stopping && d->opts.fleet) {
        mu_fleet_stop(d->opts.fleet);
    }
    if (!d->stopping) {
        d->stopping = true;
        d->stopped = stopped;
        d->stopped_arg = arg;
        mu_timer_init(&d->grace, d->opts.core, cut_off);
    }
    if (d->n_active == 0 || grace_ms <= 0 || mu_timer_set(&d->grace, grace_ms) < 0) {
        cut_off(&d->grace);
    }
}

void mu_dispatch_reload(struct mu_dispatch *d, const struct mu_providers_settings *settings)
{
    d->opts.settings = settings;
    on_capacity(d);
}
