/* The end of an execution: the record of its attempts, the end unit, putting back. */
#include <stdio.h>

#include "app/dispatch/exec.h"
#include "base/log.h"
#include "proto/json.h"

enum {
    DB_RETRY_MS = 500,
    MAX_ATTEMPTS_SHOWN = 64,
    LATE_MS = 5000, /* the sweeper ends a run that overslept its total wait */
};

void mu_exec_record(struct mu_exec *x, const struct mu_call_result *result)
{
    struct mu_run *run = x->run;
    const struct mu_provider_conf *conf = mu_provider_conf(x->candidates[x->at]);
    run->last = x->candidates[x->at];
    x->cls = result->cls;
    x->status = result->status;
    x->has_status = result->status != 0 || result->is_exit_code;
    x->is_exit_code = result->is_exit_code;
    x->truncated = result->truncated;
    x->tokens_in += result->tokens_in;
    x->tokens_out += result->tokens_out;
    snprintf(x->text, sizeof x->text, "%s", result->text ? result->text : "");
    mu_log(result->cls == MU_CALL_OK     ? MU_LOG_INFO
           : result->cls == MU_CALL_AUTH ? MU_LOG_ERROR
                                         : MU_LOG_WARN,
           result->cls == MU_CALL_OK ? "provider.attempt" : "provider.error",
           MU_KC("run_id", mu_run_name(run).text), MU_KC("provider_key", conf->key),
           MU_KC("provider_type", mu_provider_type_name(conf->type)),
           MU_KS("model", mu_provider_model(x->candidates[x->at], mu_str(run->model))),
           MU_KC("class", mu_call_class_name(result->cls)), MU_KI("status", result->status),
           MU_KI("duration_ms", result->ms), MU_KC("err_message", x->text));
    if (run->n_attempts >= MAX_ATTEMPTS_SHOWN) {
        return;
    }
    size_t len = run->attempts.len;
    struct mu_json_w w = {&run->attempts, run->n_attempts > 0};
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "key", conf->key);
    mu_jw_kcstr(&w, "class", mu_call_class_name(result->cls));
    if (x->has_status) {
        mu_jw_ki64(&w, result->is_exit_code ? "exit_code" : "status", result->status);
    }
    mu_jw_ki64(&w, "ms", result->ms);
    if (x->text[0]) {
        mu_jw_kstr(&w, "error", mu_str(x->text));
    }
    mu_jw_obj_end(&w);
    if (run->attempts.failed) { /* no room: this one is not shown, the others stay whole */
        run->attempts.failed = 0;
        run->attempts.len = len;
    } else {
        run->n_attempts++;
    }
}

static void provider_json(struct mu_exec *x)
{
    mu_buf_clear(&x->provider_json);
    /* not a candidate of now: a reload may have left none */
    struct mu_provider *pr = x->run->last;
    if (!pr) {
        return;
    }
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
    mu_jw_raw(&w, mu_buf_bytes(&x->run->attempts));
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
}

void mu_exec_settled(struct mu_exec *x)
{
    if (x->quota_of) {
        mu_provider_note_free(x->quota_of, x->run->org_id, x->quota.free_ms);
        x->quota_of = NULL;
    }
}

static void submit_end(struct mu_exec *x);

static void end_again(struct mu_timer *t)
{
    submit_end(MU_CONTAINER(t, struct mu_exec, end_timer));
}

static void log_end(const struct mu_session_end *op, const struct mu_run *run)
{
    const struct mu_run_name name = mu_run_name(run);
    if (op->got_outcome == MU_OUT_FINISHED) {
        mu_log(MU_LOG_INFO, "run.succeeded", MU_KC("run_id", name.text),
               MU_KI("output_length", (int64_t)op->output.len));
    } else if (op->got_outcome == MU_OUT_FAILED) {
        mu_log(MU_LOG_WARN, "agent_run.local_exec_failed", MU_KC("run_id", name.text),
               MU_KC("err_name", op->error_code), MU_KS("err_message", op->error_message));
    } else {
        mu_log(MU_LOG_INFO, "run.ended", MU_KC("run_id", name.text),
               MU_KI("outcome", op->got_outcome), MU_KI("output_length", (int64_t)op->output.len));
    }
}

static void ended(struct mu_session_end *op, int result)
{
    struct mu_exec *x = op->ctx;
    struct mu_run *run = x->run;
    bool gone = result == MU_E_STALE || result == MU_E_NOT_FOUND;
    if (result < 0 && !gone && result != MU_E_SHUTDOWN) {
        mu_timer_init(&x->end_timer, run->d->opts.core, end_again);
        if (mu_timer_set(&x->end_timer, DB_RETRY_MS) == 0) {
            return; /* the result is kept in memory until the database takes it */
        }
    }
    if (result >= 0) {
        log_end(op, run);
    }
    if (result >= 0 || gone) {
        mu_exec_settled(x);
    }
    mu_exec_over(x);
    mu_run_drop(run);
}

static void submit_end(struct mu_exec *x)
{
    struct mu_session_end *op = &x->end;
    if (mu_session_end(x->run->d->opts.sessions, op) < 0) {
        mu_buf_fini(&op->event); /* it was not taken */
        mu_timer_init(&x->end_timer, x->run->d->opts.core, end_again);
        if (mu_timer_set(&x->end_timer, DB_RETRY_MS) < 0) {
            struct mu_run *run = x->run; /* recovery at the next start finds the session */
            mu_exec_over(x);
            mu_run_drop(run);
        }
    }
}

void mu_exec_keep(struct mu_exec *x, mu_bytes text)
{
    if (!text.ptr) {
        mu_clip_write(&x->out, true, &x->final);
        x->final_bytes = mu_clip_lost(&x->out) ? x->out.total : (int64_t)x->final.len;
        return;
    }
    text = mu_bytes_trim(text);
    x->final_bytes = (int64_t)text.len;
    mu_bytes last = mu_clip_of(&text, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
    mu_buf_add(&x->final, text);
    mu_buf_add(&x->final, last);
}

/* What was said so far is kept. */
static void keep_partial(struct mu_exec *x)
{
    mu_clip_write(&x->out, false, &x->final);
    x->final_bytes = x->out.total;
}

void mu_exec_finish(struct mu_exec *x, int state, enum mu_outcome outcome,
                    enum mu_end_reason reason, const char *code, const char *text)
{
    struct mu_run *run = x->run;
    const struct mu_env *env = run->d->opts.env;
    run->phase = MU_RUN_ENDING;
    if (outcome != MU_OUT_FINISHED) {
        keep_partial(x);
    } else if (x->final.failed) { /* an empty answer would pass for the whole one */
        mu_buf_fini(&x->final);
        mu_buf_clear(&x->final);
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_INTERNAL, "internal",
                       "There was not enough memory for the output");
        return;
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
                                  .output_bytes = x->final_bytes,
                                  .output_truncated = x->final_bytes > MU_OUTPUT_MAX,
                                  .quota = x->quota,
                                  .done = ended,
                                  .ctx = x};
    if (x->final.failed) {
        op->output = MU_B_NONE; /* no memory for it: what is stored of it stays */
    } else if (!op->output.ptr) {
        op->output = MU_B(""); /* what is stored of a text that was thrown away must go */
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
    mu_exec_put_back(x, x->put_back_saturated);
}

static void was_put_back(struct mu_session_put_back *op, int result)
{
    struct mu_exec *x = op->ctx;
    struct mu_run *run = x->run;
    if (result == MU_E_STALE) { /* a stop came first */
        mu_exec_finish(x, MU_ST_COMPLETED, MU_OUT_CANCELLED, MU_END_STOPPED, "cancelled",
                       "Cancelled");
        return;
    }
    if (result < 0 && result != MU_E_NOT_FOUND && result != MU_E_SHUTDOWN && !run->release) {
        mu_timer_init(&x->end_timer, run->d->opts.core, put_back_again);
        if (mu_timer_set(&x->end_timer, DB_RETRY_MS) == 0) {
            return;
        }
    }
    int64_t until = x->put_back_saturated ? x->saturated_until : op->now_ms + DB_RETRY_MS;
    if (result == 0) {
        run->epoch = op->epoch;
        run->saturated_ms = op->saturated_ms;
        run->shown_ms = x->put_back_saturated ? until : 0;
        mu_exec_settled(x);
    }
    bool saturated = x->put_back_saturated;
    mu_exec_over(x);
    if (result < 0 || run->release || run->cancel) {
        mu_run_drop(run);
        return;
    }
    if (!saturated) { /* what became free while it was here is what it has just failed to use */
        run->look_no = run->d->look_no;
    }
    mu_run_wait(run, until);
}

static int64_t max_wait_ms(const struct mu_exec *x)
{
    int64_t s = x->run->d->opts.settings->queue_max_wait_s;
    return s > 0 ? MU_MIN(s, INT64_MAX / 4000) * 1000 : 0;
}

/* The total wait is counted from the first saturation. */
int64_t mu_exec_give_up_ms(const struct mu_exec *x, int64_t now_ms)
{
    int64_t first = x->run->saturated_ms ? x->run->saturated_ms : now_ms;
    return max_wait_ms(x) ? first + max_wait_ms(x) : INT64_MAX;
}

bool mu_exec_waited_out(struct mu_exec *x, int64_t now_ms)
{
    if (now_ms < mu_exec_give_up_ms(x, now_ms)) {
        return false;
    }
    snprintf(x->text, sizeof x->text,
             "All providers saturated: harness %s waited %lld s for capacity", x->run->harness,
             (long long)((now_ms - x->run->saturated_ms) / 1000));
    return true;
}

int64_t mu_exec_wait_until(struct mu_exec *x, int64_t now_ms)
{
    x->saturated_until = MU_MAX(x->saturated_until, now_ms + 1);
    x->saturated_until = MU_MIN(x->saturated_until, mu_exec_give_up_ms(x, now_ms));
    char until[MU_TIME_LEN + 1];
    mu_time_format(x->saturated_until, until);
    snprintf(x->text, sizeof x->text, MU_WAITING_TEXT "%s", until);
    return x->saturated_until;
}

int64_t mu_exec_wait_deadline(const struct mu_exec *x, int64_t now_ms)
{
    if (max_wait_ms(x)) {
        return mu_exec_give_up_ms(x, now_ms) + LATE_MS;
    }
    /* without a limit a run may wait for longer than a queued one may */
    return MU_MAX(now_ms, x->saturated_until) + x->run->d->opts.pending_max_ms;
}

void mu_exec_put_back(struct mu_exec *x, bool saturated)
{
    struct mu_run *run = x->run;
    struct mu_dispatch *d = run->d;
    int64_t now = mu_env_wall_ms(d->opts.env);
    run->phase = MU_RUN_ENDING;
    if (saturated && mu_exec_waited_out(x, now)) {
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_SATURATED, "saturated", x->text);
        return;
    }
    if (saturated) {
        int64_t until = mu_exec_wait_until(x, now);
        mu_log(MU_LOG_INFO, "run.queued", MU_KC("run_id", mu_run_name(run).text),
               MU_KI("wait_ms", until - now));
    }
    mu_exec_discard(x); /* viewers see that it begins anew */
    x->put_back_saturated = saturated;
    x->put_back = (struct mu_session_put_back){
        .unit = {.loop = d->opts.core},
        .id = run->id,
        .epoch = run->epoch,
        .saturated_ms = saturated ? now : 0,
        .now_ms = now,
        .deadline_ms = saturated ? mu_exec_wait_deadline(x, now) : now + d->opts.pending_max_ms,
        .quota = x->quota,
        .message = saturated ? x->text : NULL,
        .done = was_put_back,
        .ctx = x};
    int r = mu_session_put_back(d->opts.sessions, &x->put_back);
    if (r < 0) {
        was_put_back(&x->put_back, r);
    }
}
