/* The end of an execution: the record of its attempts, the end unit, putting back. */
#include <stdio.h>

#include "app/dispatch/exec.h"
#include "base/log.h"
#include "proto/json.h"

enum { DB_RETRY_MS = 500, MAX_ATTEMPTS_SHOWN = 64 };

void mu_exec_record(struct mu_exec *x, const struct mu_call_result *result)
{
    const struct mu_provider_conf *conf = mu_provider_conf(x->candidates[x->at]);
    x->cls = result->cls;
    x->status = result->status;
    x->is_exit_code = result->is_exit_code;
    x->truncated = result->truncated;
    x->tokens_in += result->tokens_in;
    x->tokens_out += result->tokens_out;
    snprintf(x->text, sizeof x->text, "%s", result->text ? result->text : "");
    mu_log(result->cls == MU_CALL_OK     ? MU_LOG_INFO
           : result->cls == MU_CALL_AUTH ? MU_LOG_ERROR
                                         : MU_LOG_WARN,
           result->cls == MU_CALL_OK ? "provider.attempt" : "provider.error",
           MU_KS("run_id", mu_id_bytes(&x->run->id)), MU_KC("provider_key", conf->key),
           MU_KC("provider_type", mu_provider_type_name(conf->type)),
           MU_KC("class", mu_call_class_name(result->cls)), MU_KI("status", result->status),
           MU_KI("duration_ms", result->ms), MU_KC("err_message", x->text));
    if (x->n_attempts >= MAX_ATTEMPTS_SHOWN) {
        return;
    }
    struct mu_json_w w = {&x->attempts, x->n_attempts++ > 0};
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "key", conf->key);
    mu_jw_kcstr(&w, "class", mu_call_class_name(result->cls));
    if (result->status) {
        mu_jw_ki64(&w, result->is_exit_code ? "exit_code" : "status", result->status);
    }
    mu_jw_ki64(&w, "ms", result->ms);
    if (x->text[0]) {
        mu_jw_kstr(&w, "error", mu_str(x->text));
    }
    mu_jw_obj_end(&w);
}

static void provider_json(struct mu_exec *x)
{
    mu_buf_clear(&x->provider_json);
    if (!x->n_attempts) {
        return;
    }
    struct mu_provider *pr = x->candidates[x->at];
    const struct mu_provider_conf *conf = mu_provider_conf(pr);
    struct mu_json_w w = mu_json_w(&x->provider_json);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "key", conf->key);
    mu_jw_kcstr(&w, "type", mu_provider_type_name(conf->type));
    mu_jw_kstr(&w, "model", mu_provider_model(pr, mu_str(x->run->model)));
    if (x->run->model[0]) {
        mu_jw_kcstr(&w, "requested_model", x->run->model);
    }
    mu_jw_kbool(&w, "truncated", x->truncated);
    mu_jw_key(&w, "attempts");
    mu_jw_arr(&w);
    mu_jw_raw(&w, mu_buf_bytes(&x->attempts));
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
}

static void submit_end(struct mu_exec *x);

static void end_again(struct mu_timer *t)
{
    submit_end(MU_CONTAINER(t, struct mu_exec, end_timer));
}

static void ended(struct mu_session_end *op, int result)
{
    struct mu_exec *x = op->ctx;
    struct mu_run *run = x->run;
    if (result < 0 && result != MU_E_STALE && result != MU_E_NOT_FOUND && result != MU_E_SHUTDOWN) {
        mu_timer_init(&x->end_timer, run->d->opts.core, end_again);
        if (mu_timer_set(&x->end_timer, DB_RETRY_MS) == 0) {
            return; /* the result is kept in memory until the database takes it */
        }
    }
    if (result == 0 || result > 0) {
        mu_log(MU_LOG_INFO, op->got_outcome == MU_OUT_FINISHED ? "run.succeeded" : "run.ended",
               MU_KS("run_id", mu_id_bytes(&run->id)), MU_KI("outcome", op->got_outcome),
               MU_KI("output_length", (int64_t)op->output.len));
    }
    mu_exec_over(x);
    mu_run_drop(run);
}

static void submit_end(struct mu_exec *x)
{
    struct mu_session_end *op = &x->end;
    if (mu_session_end(x->run->d->opts.sessions, op) < 0) {
        mu_buf_fini(&op->event);
        mu_timer_init(&x->end_timer, x->run->d->opts.core, end_again);
        if (mu_timer_set(&x->end_timer, DB_RETRY_MS) < 0) {
            struct mu_run *run = x->run; /* recovery at the next start finds the session */
            mu_exec_over(x);
            mu_run_drop(run);
        }
    }
}

void mu_exec_finish(struct mu_exec *x, int state, enum mu_outcome outcome,
                    enum mu_end_reason reason, const char *code, const char *text)
{
    struct mu_run *run = x->run;
    const struct mu_env *env = run->d->opts.env;
    run->phase = MU_RUN_ENDING;
    if (outcome != MU_OUT_FINISHED) {
        mu_output_write(&x->out, false, &x->final); /* partial output is kept */
    }
    if (text && text != x->text) {
        snprintf(x->text, sizeof x->text, "%s", text);
    }
    provider_json(x);
    struct mu_session_end *op = &x->end;
    *op = (struct mu_session_end){.unit = {.loop = run->d->opts.core},
                                  .id = run->id,
                                  .epoch = run->epoch,
                                  .state = state,
                                  .outcome = outcome,
                                  .reason = reason,
                                  .has_exit_code = x->is_exit_code,
                                  .exit_code = x->status,
                                  .tokens_in = x->tokens_in,
                                  .tokens_out = x->tokens_out,
                                  .error_code = code,
                                  .error_message = code ? mu_str(x->text) : MU_B_NONE,
                                  .output = mu_buf_bytes(&x->final),
                                  .output_bytes =
                                      x->out.total > 0 ? x->out.total : (int64_t)x->final.len,
                                  .output_truncated = mu_output_truncated(&x->out),
                                  .quota = x->quota,
                                  .done = ended,
                                  .ctx = x};
    if (!op->output.ptr && outcome == MU_OUT_FINISHED) {
        op->output = MU_B("");
    }
    if (x->provider_json.len && !x->provider_json.failed) {
        op->provider = mu_buf_bytes(&x->provider_json);
    }
    memcpy(op->org_id, run->org_id, sizeof op->org_id);
    if (mu_artifacts_find(env, &x->claim.arena, op->output, mu_env_wall_ms(env), &op->artifact_rows,
                          &op->n_artifacts, &op->artifacts) < 0) {
        op->n_artifacts = 0; /* no memory: the text that names them is kept all the same */
        op->artifacts = MU_B_NONE;
    }
    submit_end(x);
}

/* --- back to the queue --- */

static void put_back_again(struct mu_timer *t)
{
    struct mu_exec *x = MU_CONTAINER(t, struct mu_exec, end_timer);
    mu_exec_put_back(x, x->put_back.saturated_ms != 0);
}

static void was_put_back(struct mu_session_put_back *op, int result)
{
    struct mu_exec *x = op->ctx;
    struct mu_run *run = x->run;
    if (result == MU_E_STALE && (run->cancel || !run->release)) {
        run->cancel = true; /* a stop came first */
        mu_exec_finish(x, MU_ST_COMPLETED, MU_OUT_CANCELLED, MU_END_STOPPED, "cancelled",
                       "Cancelled");
        return;
    }
    if (result < 0 && result != MU_E_STALE && result != MU_E_NOT_FOUND && result != MU_E_SHUTDOWN &&
        !run->release) {
        mu_timer_init(&x->end_timer, run->d->opts.core, put_back_again);
        if (mu_timer_set(&x->end_timer, DB_RETRY_MS) == 0) {
            return;
        }
    }
    int64_t until = x->saturated_until;
    if (result == 0) {
        run->epoch = op->epoch;
        run->saturated_ms = op->saturated_ms;
    }
    mu_exec_over(x);
    if (result < 0 || run->release) {
        mu_run_drop(run);
    } else {
        mu_run_wait(run, until);
    }
}

void mu_exec_put_back(struct mu_exec *x, bool saturated)
{
    struct mu_run *run = x->run;
    struct mu_dispatch *d = run->d;
    const struct mu_providers_settings *set = d->opts.settings;
    int64_t now = mu_env_wall_ms(d->opts.env);
    int64_t max = set->queue_max_wait_s > 0 ? set->queue_max_wait_s * 1000 : 0;
    int64_t first = run->saturated_ms ? run->saturated_ms : now;
    run->phase = MU_RUN_ENDING;
    if (saturated && max && now - first >= max) {
        snprintf(x->text, sizeof x->text,
                 "All providers saturated: harness %s waited %lld s for capacity", run->harness,
                 (long long)((now - first) / 1000));
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_SATURATED, "saturated", x->text);
        return;
    }
    if (saturated) {
        mu_exec_discard(x);
        x->saturated_until = max ? MU_MIN(x->saturated_until, first + max) : x->saturated_until;
        char until[MU_TIME_LEN + 1];
        mu_time_format(x->saturated_until, until);
        snprintf(x->text, sizeof x->text, "Waiting for provider capacity until %s", until);
    }
    x->put_back = (struct mu_session_put_back){
        .unit = {.loop = d->opts.core},
        .id = run->id,
        .epoch = run->epoch,
        .saturated_ms = saturated ? now : 0,
        .now_ms = now,
        .deadline_ms = saturated && max ? first + max + 5000 : now + d->opts.pending_max_ms,
        .quota = x->quota,
        .message = saturated ? x->text : NULL,
        .done = was_put_back,
        .ctx = x};
    int r = mu_session_put_back(d->opts.sessions, &x->put_back);
    if (r < 0) {
        was_put_back(&x->put_back, r);
    }
}
