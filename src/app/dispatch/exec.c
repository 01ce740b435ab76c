/* One run over its candidates: claim, call, retry, fall back (oz-providers.md 4). */
#include "app/dispatch/exec.h"

#include <stdio.h>

#include "base/log.h"

enum { ARENA_MAX = 96 << 20, DB_RETRY_MS = 500, ROOM_MS = 30000, RETRY_MS = 250 };

static void next_candidate(struct mu_exec *x);
static void begin_call(struct mu_exec *x);

static int64_t now_of(const struct mu_exec *x)
{
    return mu_env_wall_ms(x->run->d->opts.env);
}

/* --- life of an exec --- */

static void on_retry(struct mu_timer *t);

static struct mu_exec *exec_new(struct mu_run *run)
{
    struct mu_exec *x = mu_calloc(1, sizeof *x);
    if (!x) {
        return NULL;
    }
    x->run = run;
    run->x = x;
    mu_arena_init(&x->claim.arena, ARENA_MAX);
    mu_arena_init(&x->chunk_arena, 1 << 20);
    mu_output_init(&x->out);
    mu_buf_init(&x->attempts, 64 << 10);
    mu_buf_init(&x->final, MU_OUTPUT_MAX + 4096);
    mu_buf_init(&x->provider_json, 128 << 10);
    mu_timer_init(&x->retry_timer, run->d->opts.core, on_retry);
    mu_timer_init(&x->chunk_timer, run->d->opts.core, NULL);
    mu_timer_init(&x->end_timer, run->d->opts.core, NULL);
    return x;
}

static void exec_free(struct mu_exec *x)
{
    mu_timer_clear(&x->retry_timer);
    mu_timer_clear(&x->chunk_timer);
    mu_timer_clear(&x->end_timer);
    mu_arena_fini(&x->claim.arena);
    mu_arena_fini(&x->chunk_arena);
    mu_output_fini(&x->out);
    mu_buf_fini(&x->attempts);
    mu_buf_fini(&x->final);
    mu_buf_fini(&x->provider_json);
    mu_free(x);
}

void mu_exec_over(struct mu_exec *x)
{
    if (x->chunk_busy) {
        x->over = true;
        x->run->x = NULL;
        x->run = NULL;
        return;
    }
    if (x->run && x->run->x == x) {
        x->run->x = NULL;
    }
    exec_free(x);
}

/* --- choosing --- */

bool mu_dispatch_claiming(struct mu_dispatch *d, const struct mu_provider *pr, const char *org_id)
{
    const struct mu_provider_conf *conf = mu_provider_conf(pr);
    if (conf->msg_limit <= 0 || conf->window_seconds <= 0) {
        return false;
    }
    MU_LIST_EACH(it, tmp, &d->active)
    {
        struct mu_run *other = MU_CONTAINER(it, struct mu_run, link);
        if (other->phase == MU_RUN_CLAIMING && other->x && other->x->claim.provider == conf->key &&
            (conf->quota_global || strcmp(other->org_id, org_id) == 0)) {
            return true;
        }
    }
    return false;
}

/* The first candidate from `from` on that may be tried; -1 with what stands in the way. */
static int choose(struct mu_exec *x, unsigned from, bool *ret_busy)
{
    struct mu_run *run = x->run;
    int64_t now = now_of(x);
    *ret_busy = false;
    for (unsigned i = from; i < x->n_candidates; i++) {
        int64_t until = 0;
        enum mu_provider_gate gate = mu_provider_gate(x->candidates[i], run->org_id, now, &until);
        if (gate == MU_P_OK && !mu_dispatch_claiming(run->d, x->candidates[i], run->org_id)) {
            return (int)i;
        }
        if (gate == MU_P_BLOCKED) {
            x->saturated_until = x->saturated ? MU_MIN(x->saturated_until, until) : until;
            x->saturated = true;
        }
        *ret_busy = *ret_busy || gate == MU_P_BUSY || gate == MU_P_OK;
    }
    return -1;
}

/* --- claim --- */

static void claimed(struct mu_session_claim *op, int result)
{
    struct mu_exec *x = op->ctx;
    struct mu_run *run = x->run;
    struct mu_provider *pr = x->candidates[x->at];
    if (result == 0) {
        run->epoch = op->epoch;
        run->phase = MU_RUN_RUNNING;
        if (op->quota.limit > 0) {
            x->quota.provider = op->quota.provider;
            memcpy(x->quota.scope, op->quota.scope, sizeof x->quota.scope);
        }
        mu_providers_capacity(run->d->opts.providers);
        mu_log(MU_LOG_INFO, "run.start", MU_KS("run_id", mu_id_bytes(&run->id)),
               MU_KC("harness", run->harness), MU_KC("provider_key", op->provider),
               MU_KI("prompt_length", (int64_t)op->prompt.len));
        mu_exec_context(x, begin_call);
        return;
    }
    if (result == MU_E_SATURATED) {
        mu_provider_note_full(pr, run->org_id, op->quota.next_free_ms);
        mu_exec_over(x);
        run->phase = MU_RUN_CLAIMING; /* leaves the active list in mu_run_try() */
        mu_providers_capacity(run->d->opts.providers);
        mu_run_try(run);
        return;
    }
    mu_exec_over(x);
    if (result == MU_E_STALE || result == MU_E_NOT_FOUND) {
        mu_run_drop(run); /* cancelled or expired meanwhile: the row says so */
    } else {
        mu_run_wait(run, mu_env_wall_ms(run->d->opts.env) + DB_RETRY_MS);
    }
}

static void start_claim(struct mu_exec *x)
{
    struct mu_run *run = x->run;
    struct mu_dispatch *d = run->d;
    struct mu_provider *pr = x->candidates[x->at];
    int64_t now = now_of(x);
    mu_run_set_active(run);
    struct mu_session_claim *op = &x->claim;
    op->unit.loop = d->opts.core;
    op->id = run->id;
    op->epoch = run->epoch;
    op->provider = mu_provider_conf(pr)->key;
    op->model = mu_provider_model(pr, mu_str(run->model));
    mu_provider_quota(pr, run->org_id, now, &op->quota);
    op->deadline_ms = op->lease_ms = now + d->opts.run_max_ms;
    op->done = claimed;
    op->ctx = x;
    if (mu_session_claim(d->opts.sessions, op) < 0) {
        mu_exec_over(x);
        mu_run_wait(run, now + DB_RETRY_MS);
    }
}

/* --- nobody has room --- */

static void saturate_done(struct mu_session_saturate *op, int result)
{
    struct mu_exec *x = op->ctx;
    struct mu_run *run = x->run;
    int64_t until = x->saturated_until;
    if (result == 0) {
        run->saturated_ms = op->saturated_ms;
    }
    mu_exec_over(x);
    if (result == MU_E_STALE || result == MU_E_NOT_FOUND) {
        mu_run_drop(run);
        return;
    }
    mu_run_wait(run, result == 0 ? until : mu_env_wall_ms(run->d->opts.env) + DB_RETRY_MS);
}

/* Every candidate is full: wait for the earliest, remember since when. */
static void wait_saturated(struct mu_exec *x)
{
    struct mu_run *run = x->run;
    struct mu_dispatch *d = run->d;
    const struct mu_providers_settings *set = d->opts.settings;
    int64_t now = now_of(x),
            max = set->queue_max_wait_s > 0 ? set->queue_max_wait_s * 1000 : INT64_MAX / 2;
    if (!set->queue_on_saturation) {
        mu_run_set_active(run);
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_SATURATED, "saturated",
                       "All providers saturated");
        return;
    }
    if (run->saturated_ms && now - run->saturated_ms >= max) {
        char text[200];
        snprintf(text, sizeof text,
                 "All providers saturated: harness %s waited %lld s for capacity", run->harness,
                 (long long)((now - run->saturated_ms) / 1000));
        mu_run_set_active(run);
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_SATURATED, "saturated", text);
        return;
    }
    int64_t give_up = (run->saturated_ms ? run->saturated_ms : now) + max;
    x->saturated_until = MU_MIN(x->saturated_until, give_up);
    if (run->saturated_ms) { /* the row knows already */
        int64_t until = x->saturated_until;
        mu_exec_over(x);
        mu_run_wait(run, until);
        return;
    }
    char until_text[MU_TIME_LEN + 1];
    mu_time_format(x->saturated_until, until_text);
    snprintf(x->text, sizeof x->text, "Waiting for provider capacity until %s", until_text);
    x->saturate = (struct mu_session_saturate){
        .unit = {.loop = d->opts.core},
        .id = run->id,
        .epoch = run->epoch,
        .deadline_ms = set->queue_max_wait_s > 0 ? give_up + 5000 : now + d->opts.pending_max_ms,
        .message = x->text,
        .done = saturate_done,
        .ctx = x};
    mu_run_set_active(run);
    if (mu_session_saturate(d->opts.sessions, &x->saturate) < 0) {
        mu_exec_over(x);
        mu_run_wait(run, now + DB_RETRY_MS);
    }
}

void mu_run_try(struct mu_run *run)
{
    struct mu_dispatch *d = run->d;
    if (run->cancel) {
        mu_run_drop(run);
        return;
    }
    struct mu_exec *x = exec_new(run);
    if (!x) {
        mu_run_wait(run, mu_env_wall_ms(d->opts.env) + DB_RETRY_MS);
        return;
    }
    x->n_candidates = mu_providers_candidates(d->opts.providers, mu_str(run->harness), run->admin,
                                              x->candidates, MU_CANDIDATES_MAX);
    if (x->n_candidates == 0) {
        mu_providers_no_candidate(d->opts.providers, mu_str(run->harness), run->admin, x->text,
                                  sizeof x->text);
        mu_run_set_active(run);
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_PROVIDER_ERROR, "config", x->text);
        return;
    }
    bool busy;
    int at = choose(x, 0, &busy);
    if (at >= 0) {
        x->at = (unsigned)at;
        start_claim(x);
    } else if (busy) {
        mu_exec_over(x);
        mu_run_wait(run, mu_env_wall_ms(d->opts.env) + ROOM_MS); /* capacity wakes it before */
    } else if (x->saturated) {
        wait_saturated(x);
    } else {
        mu_run_set_active(run);
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_PROVIDER_ERROR,
                       "provider_unavailable",
                       "Every provider of this run failed repeatedly just now; it is tried again "
                       "in a few seconds");
    }
}

/* --- the call --- */

static int on_delta(void *arg, mu_bytes text)
{
    struct mu_exec *x = arg;
    if (x->run->cancel || x->run->release) {
        return MU_E_CANCELLED;
    }
    mu_exec_delta(x, text);
    return 0;
}

/* What becomes of the reservation of the call that just ended. */
static void settle(struct mu_exec *x, const struct mu_call_result *result)
{
    const struct mu_provider_conf *conf = mu_provider_conf(x->candidates[x->at]);
    x->quota.free_ms = result->counted ? now_of(x) + conf->window_seconds * 1000 : 0;
}

static void stopped(struct mu_exec *x)
{
    if (x->run->cancel) {
        mu_exec_finish(x, MU_ST_COMPLETED, MU_OUT_CANCELLED, MU_END_STOPPED, "cancelled",
                       "Cancelled");
    } else {
        mu_exec_put_back(x, false);
    }
}

static void fail(struct mu_exec *x)
{
    mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_PROVIDER_ERROR,
                   mu_call_error_code(x->cls), x->text);
}

static void call_done(void *arg, const struct mu_call_result *result)
{
    struct mu_exec *x = arg;
    struct mu_run *run = x->run;
    struct mu_provider *pr = x->candidates[x->at];
    x->call = NULL;
    settle(x, result);
    mu_exec_record(x, result);
    mu_provider_learn(pr, run->org_id, result);
    if (run->cancel || run->release) {
        stopped(x);
        return;
    }
    if (result->cls == MU_CALL_OK) {
        if (result->final_text.ptr) {
            mu_buf_add(&x->final, mu_bytes_trim(result->final_text));
        } else {
            mu_output_write(&x->out, true, &x->final);
        }
        mu_exec_finish(x, MU_ST_COMPLETED, MU_OUT_FINISHED, MU_END_FINISHED, NULL, NULL);
        return;
    }
    bool had_output = x->out.total > 0;
    if (result->cls == MU_CALL_UNAVAILABLE && !had_output &&
        x->retries < (unsigned)run->d->opts.settings->retries) {
        int64_t delay = (int64_t)RETRY_MS << x->retries++;
        unsigned char jitter;
        run->d->opts.env->random(run->d->opts.env, &jitter, 1);
        delay += delay * jitter / 512;
        if (mu_timer_set(&x->retry_timer, delay) == 0) {
            return;
        }
    }
    if (mu_call_falls_back(result->cls, had_output)) {
        next_candidate(x);
    } else {
        fail(x);
    }
}

static void on_retry(struct mu_timer *t)
{
    begin_call(MU_CONTAINER(t, struct mu_exec, retry_timer));
}

static void begin_call(struct mu_exec *x)
{
    struct mu_run *run = x->run;
    if (run->cancel || run->release) {
        stopped(x);
        return;
    }
    if (x->context_result < 0) {
        x->cls = MU_CALL_CONFIG;
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_INTERNAL, "internal",
                       "The run's stored input could not be read");
        return;
    }
    struct mu_provider *pr = x->candidates[x->at];
    struct mu_call_request req = {.provider = pr,
                                  .run_id = run->id.text,
                                  .org_id = run->org_id,
                                  .model = mu_provider_model(pr, mu_str(run->model)),
                                  .model_given = mu_provider_conf(pr)->model_given,
                                  .system = x->system,
                                  .prompt = x->claim.prompt,
                                  .images = x->images,
                                  .n_images = x->n_images,
                                  .turns = x->turns,
                                  .n_turns = x->n_turns,
                                  .on_delta = on_delta,
                                  .done = call_done,
                                  .arg = x};
    int r = mu_provider_call(run->d->opts.providers, &req, &x->call);
    if (r < 0) {
        struct mu_call_result failed = {
            .cls = MU_CALL_UNAVAILABLE, .text = mu_err_text(r)};
        call_done(x, &failed);
    }
}

/* --- fall back --- */

static void changed(struct mu_session_switch *op, int result)
{
    struct mu_exec *x = op->ctx;
    struct mu_run *run = x->run;
    if (result == 0) {
        x->quota.provider = op->quota.limit > 0 ? op->quota.provider : NULL;
        memcpy(x->quota.scope, op->quota.scope, sizeof x->quota.scope);
        x->retries = 0;
        begin_call(x);
        return;
    }
    if (run->cancel || run->release) {
        stopped(x);
    } else if (result == MU_E_SATURATED) {
        mu_provider_note_full(x->candidates[x->at], run->org_id, op->quota.next_free_ms);
        x->saturated_until = x->saturated ? MU_MIN(x->saturated_until, op->quota.next_free_ms)
                                          : op->quota.next_free_ms;
        x->saturated = true;
        next_candidate(x);
    } else {
        fail(x); /* stale: the end will find that out; the database away: the end is tried until it
                    is back */
    }
}

static void next_candidate(struct mu_exec *x)
{
    struct mu_run *run = x->run;
    bool busy;
    if (x->cls == MU_CALL_RATE_LIMITED) {
        int64_t until = 0;
        (void)mu_provider_gate(x->candidates[x->at], run->org_id, now_of(x), &until);
        x->saturated_until = x->saturated ? MU_MIN(x->saturated_until, until) : until;
        x->saturated = true;
    }
    int at = choose(x, x->at + 1, &busy);
    if (at < 0) {
        if (x->saturated && run->d->opts.settings->queue_on_saturation) {
            mu_exec_put_back(x, true);
        } else {
            fail(x);
        }
        return;
    }
    mu_exec_discard(x);
    x->at = (unsigned)at;
    struct mu_provider *pr = x->candidates[x->at];
    x->change = (struct mu_session_switch){.unit = {.loop = run->d->opts.core},
                                           .id = run->id,
                                           .epoch = run->epoch,
                                           .provider = mu_provider_conf(pr)->key,
                                           .model = mu_provider_model(pr, mu_str(run->model)),
                                           .former = x->quota,
                                           .done = changed,
                                           .ctx = x};
    mu_provider_quota(pr, run->org_id, now_of(x), &x->change.quota);
    if (mu_session_switch(run->d->opts.sessions, &x->change) < 0) {
        fail(x);
    }
}

/* --- stop --- */

void mu_run_abort(struct mu_run *run)
{
    struct mu_exec *x = run->x;
    if (!x) {
        return;
    }
    if (x->call) {
        mu_provider_call_abort(x->call);
    } else if (mu_timer_is_set(&x->retry_timer)) {
        mu_timer_clear(&x->retry_timer);
        stopped(x);
    } /* else a unit is under way; its completion looks at run->cancel and run->release */
}
