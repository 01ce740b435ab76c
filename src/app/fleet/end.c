/* How a worker's attempt ends: as its terminal report says, or as we decided (k->want). */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"
#include "app/sessions/artifacts.h"
#include "base/clip.h"

struct verdict {
    int state;
    enum mu_outcome outcome;
    enum mu_end_reason reason;
    const char *code;
    mu_bytes text;
};

/* W's words for why a task failed (oz-worker.md 3.5), as far as they mean more than "it failed". */
static enum mu_end_reason reason_of(mu_bytes word)
{
    static const char *const workspace[] = {
        "image_pull",    "sidecar_prep", "container_create", "container_start", "workspace_setup",
        "setup_command", "volume_mount", "init_container",   "invalid_image",   "unschedulable"};
    for (size_t i = 0; i < MU_ARRAY_LEN(workspace); i++) {
        if (mu_bytes_is(word, workspace[i])) {
            return MU_END_WORKSPACE_ERROR;
        }
    }
    if (mu_bytes_is(word, "task_timeout") || mu_bytes_is(word, "active_deadline")) {
        return MU_END_TIMEOUT;
    }
    return mu_bytes_is(word, "graceful_shutdown") ? MU_END_RUNNER_LOST : MU_END_PROVIDER_ERROR;
}

bool mu_report_is_loss(const struct mu_report *r)
{
    static const char *const words[] = {"graceful_shutdown", "container_oom", "unknown",
                                        "runner_lost", "restore_failed"};
    for (size_t i = 0; r->failed && !r->cancelled && i < MU_ARRAY_LEN(words); i++) {
        if (mu_bytes_is(r->failure_reason, words[i])) {
            return true;
        }
    }
    return false;
}

/* The first words are what clients of runs look for (oz-providers.md 8); people at a session are
 * told what it was. */
static mu_bytes exit_text(const struct mu_report *r, bool live, struct mu_arena *a)
{
    mu_bytes why = live ? r->message : MU_B_NONE;
    mu_bytes text = mu_arena_printf(a, "Worker exit code %lld%s%.*s", (long long)r->exit_code,
                                    why.len ? ": " : "", MU_ARGS(why));
    return text.ptr ? text : MU_B("Worker exit code not 0");
}

static struct verdict by_report(const struct mu_report *r, bool live, struct mu_arena *a)
{
    if (r->cancelled) {
        return (struct verdict){MU_ST_COMPLETED, MU_OUT_CANCELLED, MU_END_STOPPED, "cancelled",
                                MU_B("Cancelled")};
    }
    if (r->failed) {
        return (struct verdict){MU_ST_FAILED, MU_OUT_FAILED, reason_of(r->failure_reason),
                                "worker_failed", r->message.len ? r->message : MU_B("Task failed")};
    }
    if (r->has_exit_code && r->exit_code != 0) {
        return (struct verdict){MU_ST_FAILED, MU_OUT_FAILED, reason_of(r->failure_reason),
                                "exit_code", exit_text(r, live, a)};
    }
    return (struct verdict){MU_ST_COMPLETED, MU_OUT_FINISHED, MU_END_FINISHED, NULL, r->message};
}

static struct verdict by_want(const struct mu_work_item *k)
{
    if (k->want == MU_WANT_FAILED) {
        return (struct verdict){MU_ST_FAILED, MU_OUT_FAILED, k->want_end, k->want_code,
                                mu_str(k->want_text)};
    }
    return (struct verdict){MU_ST_COMPLETED, MU_OUT_CANCELLED, MU_END_STOPPED, "cancelled",
                            MU_B("Cancelled")};
}

static void ended(struct mu_session_end *op, int result)
{
    struct mu_task *t = op->ctx;
    struct mu_work_item *k = t->work;
    bool over = result >= 0 || result == MU_E_STALE || result == MU_E_NOT_FOUND;
    k->busy = false;
    if (!over) { /* kept in memory until the database takes it */
        if (result != MU_E_SHUTDOWN) {
            mu_work_retry(t);
        }
        return;
    }
    if (result >= 0) {
        mu_log(op->got_outcome == MU_OUT_FAILED ? MU_LOG_WARN : MU_LOG_INFO, "run.ended",
               MU_KS("run_id", mu_id_bytes(&t->id)), MU_KC("worker_id", k->w->name),
               MU_KI("outcome", op->got_outcome),
               MU_KS("err_message", op->error_code ? op->error_message : MU_B("")));
    }
    mu_task_drop(t);
}

/* Who brought the output: the worker, or what ran in its sandbox. */
static const struct mu_report *told(const struct mu_work_item *k)
{
    return k->end && k->end->has_output ? k->end : k->side ? k->side : k->end;
}

static void take_output(struct mu_work_item *k, struct mu_session_end *op)
{
    const struct mu_report *r = told(k);
    if (r && r->has_output) {
        op->output = r->output.len ? mu_buf_bytes(&r->output) : MU_B("");
        op->output_bytes = MU_MAX(r->output_total, k->total);
        op->output_truncated = r->output_total > (int64_t)r->output.len;
    } else if (k->total == 0) {
        op->output = MU_B("");
    } else { /* what was reported while it ran stays as it is stored */
        op->output_bytes = k->total;
        op->output_truncated = k->total > MU_OUTPUT_MAX;
    }
}

static void take_artifacts(struct mu_task *t, struct mu_session_end *op)
{
    struct mu_work_item *k = t->work;
    const struct mu_report *r = k->end && k->end->n_artifacts ? k->end : k->side;
    if (r && r->n_artifacts) {
        op->artifact_rows = r->artifact_rows;
        op->n_artifacts = r->n_artifacts;
        op->artifacts = r->artifacts;
    } else if (told(k) && told(k)->searched) {
        return;
    } else if (mu_artifacts_find(t->f->opts.env, &k->end_arena, op->output, mu_fleet_now(t->f),
                                 &op->artifact_rows, &op->n_artifacts, &op->artifacts) < 0) {
        op->n_artifacts = 0; /* no memory: the text that names them is kept all the same */
        op->artifacts = MU_B_NONE;
    }
}

void mu_work_end(struct mu_task *t)
{
    struct mu_work_item *k = t->work;
    struct mu_fleet *f = t->f;
    struct mu_session_end *op = &k->ended;
    if (!(told(k) && told(k)->has_output) && mu_work_flush(k)) {
        return; /* comes back when the last of it is stored */
    }
    if (k->end && mu_runner_unstored(t)) {
        return; /* comes back with mu_fleet_said() */
    }
    mu_arena_fini(&k->end_arena);
    struct verdict v = k->end ? by_report(k->end, k->live, &k->end_arena) : by_want(k);
    if (k->too_often) {
        v.reason = MU_END_RUNNER_LOST;
        v.code = "session_lost";
        v.text = MU_B("SESSION_LOST: the session lost its runner three times, and no turn was done "
                      "in between");
    }
    *op = (struct mu_session_end){.unit = {.loop = f->opts.core},
                                  .id = t->id,
                                  .epoch = t->epoch,
                                  .state = v.state,
                                  .outcome = v.outcome,
                                  .reason = v.reason,
                                  .error_code = v.code,
                                  .error_message = v.text,
                                  .by_runner = k->end != NULL,
                                  .done = ended,
                                  .ctx = t};
    if (k->end) {
        op->has_exit_code = k->end->has_exit_code;
        op->exit_code = k->end->exit_code;
        op->tokens_in = k->end->tokens_in;
        op->tokens_out = k->end->tokens_out;
        op->session_link = k->end->session_link.ptr ? k->end->session_link
                           : k->side                ? k->side->session_link
                                                    : MU_B_NONE;
        op->attempt_reason = k->end->failure_reason;
    } else if (k->sent) { /* its worker was told of it and said nothing: the next start knows */
        op->attempt_reason = MU_B(MU_ATT_UNSETTLED);
    }
    memcpy(op->org_id, t->org_id, sizeof op->org_id);
    take_output(k, op);
    take_artifacts(t, op);
    k->busy = true;
    if (mu_session_end(f->opts.sessions, op) < 0) {
        mu_buf_fini(&op->event); /* it was not taken */
        k->busy = false;
        mu_work_retry(t);
    }
}
