/* Assignments and cancellations: what is taken, refused, known already (oz-worker.md 5, 16). */
#include <errno.h>

#include "base/id.h"
#include "base/log.h"
#include "worker/worker_int.h"

struct mu_attempt *mu_slots_find(struct mu_worker *w, mu_bytes task_id, mu_bytes execution_id)
{
    struct mu_attempt *found = NULL;
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        struct mu_attempt *t = MU_CONTAINER(it, struct mu_attempt, link);
        if (t->state == MU_ATTEMPT_OVER) {
            continue;
        }
        if (execution_id.len ? mu_bytes_is(execution_id, t->execution_id)
                             : mu_bytes_is(task_id, t->task_id) && !t->muted) {
            found = t;
        }
    }
    return found;
}

static struct mu_wire_ids ids_of(struct mu_worker *w, const struct mu_wire_assignment *as)
{
    return (struct mu_wire_ids){.task_id = as->task_id,
                                .execution_id = as->execution_id,
                                .worker_id = mu_str(w->conf->worker_id),
                                .epoch = as->epoch,
                                .seq = 1,
                                .native = mu_uplink_native(w)};
}

static void reject(struct mu_worker *w, const struct mu_wire_assignment *as, const char *reason)
{
    struct mu_buf buf;
    const struct mu_wire_ids ids = ids_of(w, as);
    mu_buf_init(&buf, 4096);
    mu_wire_rejected(&buf, &ids, reason);
    mu_uplink_send(w, &buf);
    mu_buf_fini(&buf);
    mu_metric_add(w->m.rejected, 1);
    mu_log(MU_LOG_INFO, "task.rejected", MU_KS("task_id", as->task_id), MU_KC("reason", reason));
}

/* A bad assignment never becomes a task; the claim timeout covers the loss of this answer. */
static void refuse(struct mu_worker *w, const struct mu_wire_assignment *as, const char *message)
{
    struct mu_buf buf;
    const struct mu_wire_ids ids = ids_of(w, as);
    const struct mu_wire_end end = {
        .failed = true, .exit_code = -1, .message = message, .failure_reason = "unknown"};
    mu_health_failure(w);
    mu_log(MU_LOG_WARN, "task.bad_assignment", MU_KS("task_id", as->task_id),
           MU_KC("err_message", message));
    if (as->task_id.len == 0) {
        return;
    }
    mu_buf_init(&buf, 65536);
    mu_wire_end(&buf, &ids, &end);
    mu_uplink_send(w, &buf);
    mu_buf_fini(&buf);
}

static void claim_again(struct mu_attempt *t)
{
    struct mu_buf buf;
    const struct mu_wire_ids ids = mu_attempt_ids(t, t->claim_seq);
    mu_buf_init(&buf, 4096);
    mu_wire_claimed(&buf, &ids);
    mu_uplink_send(t->w, &buf);
    mu_buf_fini(&buf);
}

/* Whether it is an attempt that we have already, or an old one of a task that we have. */
static bool is_known(struct mu_worker *w, const struct mu_wire_assignment *as)
{
    struct mu_end *end = as->execution_id.len ? mu_ends_find(w, as->execution_id) : NULL;
    if (end) { /* it is over: the server has not heard it yet */
        end->sent = false;
        mu_ends_pump(w);
        return true;
    }
    struct mu_attempt *same = mu_slots_find(w, as->task_id, as->execution_id);
    if (same) {
        if (!same->muted) {
            claim_again(same);
        }
        return true;
    }
    struct mu_attempt *other = mu_slots_find(w, as->task_id, MU_B_NONE);
    if (!other || !as->execution_id.len) {
        return false;
    }
    if (mu_uplink_native(w) && as->epoch < other->epoch) {
        mu_log(MU_LOG_WARN, "task.old_epoch", MU_KS("task_id", as->task_id),
               MU_KI("epoch", as->epoch));
        return true;
    }
    /* The server gave the task a new attempt: the old one counts no more. */
    other->muted = true;
    mu_attempt_stop(other, false, "task_cancelled");
    return false;
}

static const char *why_not(struct mu_worker *w)
{
    int64_t most = w->conf->capacity > 0 ? w->conf->capacity : MU_WORKER_MAX_TASKS;
    if (w->phase != MU_PHASE_SERVING || w->server_drains) {
        return "worker is draining";
    }
    if ((int64_t)w->n_tasks >= most || w->n_ends >= MU_WORKER_MAX_ENDS / 2) {
        return "worker at maximum concurrency";
    }
    return NULL;
}

static int name_execution(struct mu_worker *w, struct mu_attempt *t)
{
    const struct mu_wire_assignment *as = &t->as;
    memcpy(t->task_id, as->task_id.ptr, as->task_id.len);
    if (as->execution_id.len) {
        memcpy(t->execution_id, as->execution_id.ptr, as->execution_id.len);
    } else {
        struct mu_id id = mu_id_new(w->env, NULL);
        memcpy(t->execution_id, id.text, sizeof id.text);
    }
    if (as->session_token.len) {
        t->token = mu_bytes_dup(as->session_token);
        return t->token ? 0 : -ENOMEM;
    }
    return 0;
}

static void take(struct mu_worker *w, struct mu_arena *arena, const struct mu_wire_assignment *as)
{
    char why[256];
    struct mu_backend *backend = mu_backends_choose(w, as, why, sizeof why);
    if (!backend) {
        refuse(w, as, why);
        return;
    }
    struct mu_attempt *t = mu_attempt_new(w);
    if (!t) {
        reject(w, as, "worker is out of memory");
        return;
    }
    t->as = *as;
    t->backend = backend;
    t->epoch = as->epoch;
    t->lease_ms = mu_uplink_native(w) ? as->lease_ms : 0;
    if (name_execution(w, t) < 0) {
        mu_attempt_free(t);
        reject(w, as, "worker is out of memory");
        return;
    }
    t->arena = *arena; /* what was read is the task's now */
    mu_arena_init(arena, 0);
    mu_attempt_begin(t);
}

void mu_slots_assign(struct mu_worker *w, struct mu_arena *arena, yyjson_val *data)
{
    struct mu_wire_assignment as;
    struct mu_err err = {0};
    if (mu_wire_assignment(data, &as, &err) < 0) {
        refuse(w, &as, err.text);
        return;
    }
    if (mu_uplink_native(w) && !as.execution_id.len) {
        refuse(w, &as, "invalid assignment: execution_id is missing");
        return;
    }
    if (is_known(w, &as)) {
        return;
    }
    const char *why = why_not(w);
    if (why) {
        reject(w, &as, why);
    } else {
        take(w, arena, &as);
    }
}

void mu_slots_cancel(struct mu_worker *w, yyjson_val *data)
{
    mu_bytes task_id = mu_json_get_bytes(data, "task_id");
    mu_bytes execution_id = mu_json_get_bytes(data, "execution_id");
    struct mu_attempt *t = mu_slots_find(w, task_id, execution_id);
    if (!t || t->muted || (task_id.len && !mu_bytes_is(task_id, t->task_id))) {
        mu_log(MU_LOG_INFO, "task.cancel_unknown", MU_KS("task_id", mu_bytes_head(task_id, 128)));
        return;
    }
    if (mu_uplink_native(w) && mu_json_get_i64(data, "epoch", t->epoch) != t->epoch) {
        mu_log(MU_LOG_WARN, "task.old_epoch", MU_KC("task_id", t->task_id));
        return;
    }
    mu_log(MU_LOG_INFO, "task.cancel", MU_KC("task_id", t->task_id));
    if (t->state <= MU_ATTEMPT_STARTED || t->state == MU_ATTEMPT_DISPATCHED) {
        t->cancelled = true;
    }
    mu_attempt_stop(t, mu_json_get_bool(data, "graceful", true), "task_cancelled");
}
