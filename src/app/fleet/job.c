/* What an assignment says: read while the offer is being committed, sent when it is. */
#include <errno.h>

#include "app/environments/sandbox.h"
#include "app/fleet/fleet_int.h"
#include "proto/json.h"

enum { ORDER_ARENA = 32 << 20 };

/* --- variables: their values are never part of a stored run --- */

static int take_vars(void *arg, const struct mu_env_view *v)
{
    struct mu_work_item *k = arg;
    struct mu_arena *a = &k->vars_arena;
    mu_arena_fini(a); /* what a read before this one had begun with */
    k->n_vars = 0;
    k->var_list = mu_arena_calloc(a, (v->n_vars + 1) * sizeof *k->var_list);
    if (!k->var_list) {
        return -ENOMEM;
    }
    for (size_t i = 0; v->values_shown && i < v->n_vars; i++) {
        struct mu_job_var *var = &k->var_list[k->n_vars++];
        var->name = mu_arena_dup(a, v->vars[i].name);
        var->value = mu_arena_dup(a, v->vars[i].value);
        if (!var->name.ptr || !var->value.ptr) {
            return -ENOMEM;
        }
    }
    return 0;
}

/* A variable of the session's own: in place of the environment's of that name. */
static int take_own_var(void *arg, mu_bytes name, mu_bytes value)
{
    struct mu_work_item *k = arg;
    struct mu_arena *a = &k->vars_arena;
    size_t at = 0;
    while (at < k->n_vars && !mu_bytes_eq(k->var_list[at].name, name)) {
        at++;
    }
    if (at == k->n_vars) {
        struct mu_job_var *more = mu_arena_calloc(a, (k->n_vars + 1) * sizeof *more);
        if (!more) {
            return -ENOMEM;
        }
        if (k->n_vars) {
            memcpy(more, k->var_list, k->n_vars * sizeof *more);
        }
        k->var_list = more;
        k->n_vars++;
    }
    struct mu_job_var *var = &k->var_list[at];
    var->name = mu_arena_dup(a, name);
    var->value = mu_arena_dup(a, value);
    return var->name.ptr && var->value.ptr ? 0 : -ENOMEM;
}

static bool still_wanted(struct mu_work_item *k)
{
    k->reading = false;
    if (k->over && !k->chunk_busy) {
        mu_work_fini(k);
        return false;
    }
    return !k->over;
}

static void own_vars_read(struct mu_session_vars *op, int result)
{
    struct mu_work_item *k = op->ctx;
    if (!still_wanted(k)) {
        return;
    }
    if (result < 0) {
        mu_work_retry(k->t);
        return;
    }
    k->job_read = true;
    mu_work_next(k->t);
}

/* The last thing that is read: variables that came with the session, if its spec names any. */
static void own_vars(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    struct mu_fleet *f = t->f;
    mu_bytes spec = t->texts ? t->texts->spec : k->job.spec;
    if (!f->opts.environments || !mu_spec_is_live(spec) ||
        mu_bytes_find(spec, MU_B("\"envNames\":[\"")) < 0) {
        k->job_read = true;
        mu_work_next(t);
        return;
    }
    k->own_vars = (struct mu_session_vars){.read = {.loop = f->opts.core},
                                           .org_id = mu_str(t->org_id),
                                           .session = t->id,
                                           .each = take_own_var,
                                           .arg = k,
                                           .done = own_vars_read,
                                           .ctx = k};
    k->reading = true;
    if (mu_session_vars_read(f->opts.environments, &k->own_vars) < 0) {
        k->reading = false;
        mu_work_retry(t);
    }
}

static void vars_read(struct mu_env_read *op, int result)
{
    struct mu_work_item *k = op->ctx;
    if (!still_wanted(k)) {
        return;
    }
    struct mu_task *t = k->t;
    if (result == 0) {
        own_vars(t);
    } else if (result == MU_E_NOT_FOUND) {
        k->job_read = true;
        mu_work_fail(t, MU_END_WORKSPACE_ERROR, "environment_gone",
                     "The environment was deleted before a worker took the run, and its variables "
                     "with it");
    } else {
        mu_work_retry(t);
    }
}

static bool has_vars(mu_bytes snapshot)
{
    return snapshot.len && mu_bytes_find(snapshot, MU_B("\"env_var_names\":[\"")) >= 0;
}

static void texts_there(struct mu_task *t, mu_bytes environment_id, mu_bytes snapshot)
{
    struct mu_work_item *k = t->work;
    struct mu_fleet *f = t->f;
    struct mu_id env;
    if (f->closed) {
        return;
    }
    if (!f->opts.environments || !has_vars(snapshot) ||
        mu_id_parse(environment_id, "env_", &env) < 0) {
        mu_arena_fini(&k->vars_arena); /* what a read before this one had begun with */
        k->n_vars = 0;
        own_vars(t);
        return;
    }
    k->vars = (struct mu_env_read){.read = {.loop = f->opts.core},
                                   .org_id = mu_str(t->org_id),
                                   .id = env,
                                   .each = take_vars,
                                   .arg = k,
                                   .done = vars_read,
                                   .ctx = k};
    k->reading = true;
    if (mu_environment_read(f->opts.environments, &k->vars) < 0) {
        k->reading = false;
        mu_work_retry(t);
    }
}

static void job_read(struct mu_session_job *op, int result)
{
    struct mu_work_item *k = op->ctx;
    if (!still_wanted(k)) {
        return;
    }
    struct mu_task *t = k->t;
    if (result == 0) {
        texts_there(t, op->environment_id, op->env_snapshot);
    } else {
        mu_work_retry(t); /* not found: the creation is not committed yet, or the offer fails too */
    }
}

void mu_work_job(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    if (t->texts) {
        texts_there(t, t->texts->environment_id, t->texts->env_snapshot);
        return;
    }
    if (t->unborn && !k->offered) {
        return; /* nothing to read yet: mu_work_next() comes back after the commit */
    }
    k->job.id = t->id;
    k->job.read.loop = t->f->opts.core;
    k->job.done = job_read;
    k->job.ctx = k;
    mu_arena_fini(&k->job.arena);
    k->reading = true;
    if (mu_session_job_read(t->f->opts.sessions, &k->job) < 0) {
        k->reading = false;
        mu_work_retry(t);
    }
}

/* --- the order --- */

static mu_bytes dup_text(struct mu_arena *a, mu_bytes text, bool *ok)
{
    mu_bytes copy = text.ptr ? mu_arena_dup(a, text) : MU_B_NONE;
    *ok = *ok && (!text.ptr || copy.ptr);
    return copy;
}

/* From the snapshot of the environment that was taken when the session was created. */
static bool add_environment(struct mu_assignment *job, struct mu_arena *a, mu_bytes snapshot)
{
    static const struct mu_json_limits limits = {.max_bytes = 8 << 20, .max_depth = 40};
    yyjson_val *root = NULL;
    if (!snapshot.len) {
        job->image = job->environment_id; /* the id of no record is an image */
        return true;
    }
    if (mu_json_read(a, snapshot, &limits, &root, NULL) < 0) {
        return false;
    }
    mu_bytes image = mu_json_get_bytes(root, "docker_image");
    job->image = image.len ? image : MU_B_NONE;
    job->timeout_ms = mu_env_timeout_ms(mu_json_get(mu_json_get(root, "spec"), "sandbox"));
    struct mu_buf b;
    mu_buf_init(&b, 8 << 20);
    mu_json_add(&b, mu_json_get(root, "spec"));
    bool ok = !b.failed;
    job->env_spec = dup_text(a, mu_buf_bytes(&b), &ok);
    mu_buf_fini(&b);
    return ok;
}

static bool fill(struct mu_task *t, struct mu_order *o)
{
    struct mu_work_item *k = t->work;
    struct mu_arena *a = &o->arena;
    struct mu_assignment *job = &o->job;
    struct mu_job_texts texts = {.created_ms = k->job.created_ms,
                                 .prompt = k->job.prompt,
                                 .title = k->job.title,
                                 .harness = k->job.harness,
                                 .model = k->job.model,
                                 .skill = k->job.skill,
                                 .spec = k->job.spec,
                                 .environment_id = k->job.environment_id,
                                 .env_snapshot = k->job.env_snapshot};
    const struct mu_job_texts *x = t->texts ? t->texts : &texts;
    bool ok = true;
    job->prompt = dup_text(a, x->prompt, &ok);
    job->title = dup_text(a, x->title, &ok);
    job->harness = dup_text(a, x->harness, &ok);
    job->model = dup_text(a, x->model, &ok);
    job->skill = dup_text(a, x->skill, &ok);
    job->config = dup_text(a, x->spec, &ok);
    k->live = job->live = mu_spec_is_live(x->spec);
    job->environment_id = dup_text(a, x->environment_id, &ok);
    job->created_ms = x->created_ms;
    if (!t->texts) {
        job->checkpoint = dup_text(a, k->job.restore_id, &ok);
        job->checkpoint_parts = dup_text(a, k->job.restore_parts, &ok);
    }
    job->vars = mu_arena_calloc(a, (k->n_vars + 1) * sizeof *job->vars);
    ok = ok && job->vars;
    for (size_t i = 0; ok && i < k->n_vars; i++) {
        struct mu_job_var *var = &job->vars[job->n_vars++];
        var->name = dup_text(a, k->var_list[i].name, &ok);
        var->value = dup_text(a, k->var_list[i].value, &ok);
    }
    return ok && add_environment(job, a, x->env_snapshot);
}

void mu_work_send(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    struct mu_fleet *f = t->f;
    struct mu_order *o;
    const struct mu_execution of = {t->id, k->execution, t->epoch, 0};
    if (mu_worker_order(k->w, MU_ORDER_ASSIGN, &of, &o) < 0) {
        mu_work_retry(t);
        return;
    }
    mu_arena_init(&o->arena, ORDER_ARENA);
    if (!fill(t, o)) {
        mu_order_free(o);
        mu_work_retry(t);
        return;
    }
    memcpy(o->job.token, k->token, sizeof o->job.token);
    /* less than what is waited before another one may get it (mu_work_left()) */
    o->job.lease_ms = MU_MIN(MU_MIN(f->opts.grace_ms, f->opts.native_claim_timeout_ms),
                             f->opts.heartbeat_timeout_ms);
    int64_t may =
        o->job.timeout_ms ? MU_MIN(o->job.timeout_ms, f->opts.run_max_ms) : f->opts.run_max_ms;
    o->job.deadline_ms = mu_fleet_now(f) + may;
    k->sent = true;
    mu_task_due(t, k->w->native ? f->opts.native_claim_timeout_ms : f->opts.claim_timeout_ms);
    mu_metric_observe_us(f->latency, f->opts.env->mono_ns(f->opts.env) / 1000 - t->queued_us);
    mu_worker_post(k->w, o);
    mu_arena_fini(&k->job.arena);
    mu_arena_fini(&k->vars_arena);
    k->n_vars = 0;
    k->job_read = false;
    explicit_bzero(k->token, sizeof k->token);
}
