/* One run over its candidates: claim, call, retry, fall back (oz-providers.md 4). */
#include "app/dispatch/exec.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "proto/json.h"

enum {
    ARENA_MAX = 96 << 20,
    ROOM_MS = 30000,
    RETRY_MS = 250,
    LIMITED_MS = 5000,
    UNREAD_MAX = 20,
};

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
    mu_clip_init(&x->out, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
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
    mu_clip_fini(&x->out);
    mu_buf_fini(&x->final);
    mu_buf_fini(&x->provider_json);
    mu_free(x);
}

/* The slot that was promised for the coming call: taken, handed on, given back. */
static void hold(struct mu_exec *x, struct mu_provider *pr)
{
    if (x->held) {
        mu_provider_release(x->held);
    }
    x->held = pr;
    if (pr) {
        mu_provider_hold(pr);
    }
}

void mu_exec_over(struct mu_exec *x)
{
    if (x->held) { /* the call never came */
        hold(x, NULL);
        mu_providers_capacity(x->run->d->opts.providers);
    }
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
        if (other->phase == MU_RUN_CLAIMING && other->x && other->x->held == pr &&
            (conf->quota_global || strcmp(other->org_id, org_id) == 0)) {
            return true;
        }
    }
    return false;
}

/* The first candidate from `from` on that may be tried; -1 with what stands in the way. */
static int choose(struct mu_exec *x, unsigned from, int64_t now, bool *ret_busy)
{
    const struct mu_run *run = x->run;
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

static void log_start(const struct mu_exec *x)
{
    const struct mu_run *run = x->run;
    struct mu_buf keys;
    mu_buf_init(&keys, 8192);
    struct mu_json_w w = mu_json_w(&keys);
    mu_jw_arr(&w);
    for (unsigned i = 0; i < x->n_candidates; i++) {
        mu_jw_str(&w, mu_str(mu_provider_conf(x->candidates[i])->key));
    }
    mu_jw_arr_end(&w);
    mu_log(MU_LOG_INFO, "run.start", MU_KC("subsystem", "local-runner"),
           MU_KC("run_id", mu_run_name(run).text), MU_KC("harness", run->harness),
           MU_KJ("candidates", keys.failed ? MU_B("[]") : mu_buf_bytes(&keys)),
           MU_KC("provider_key", x->claim.provider),
           MU_KI("prompt_length", (int64_t)x->claim.prompt.len));
    mu_buf_fini(&keys);
}

static void claimed(struct mu_session_claim *op, int result)
{
    struct mu_exec *x = op->ctx;
    struct mu_run *run = x->run;
    struct mu_provider *pr = x->candidates[x->at];
    if (result == 0) {
        run->epoch = op->epoch;
        run->phase = MU_RUN_RUNNING;
        run->shown_ms = 0;
        if (op->quota.limit > 0) {
            x->quota.provider = op->quota.provider;
            memcpy(x->quota.scope, op->quota.scope, sizeof x->quota.scope);
            x->quota_of = pr;
        }
        mu_providers_capacity(run->d->opts.providers); /* the next one may be claimed */
        log_start(x);
        mu_exec_context(x, begin_call);
        return;
    }
    struct mu_dispatch *d = run->d;
    if (result == MU_E_SATURATED) {
        mu_provider_note_full(pr, run->org_id, op->quota.next_free_ms);
    }
    mu_exec_over(x);
    mu_providers_capacity(d->opts.providers);
    if (result == MU_E_STALE || result == MU_E_NOT_FOUND) {
        mu_run_drop(run); /* cancelled or expired meanwhile: the row says so */
    } else if (result == MU_E_SATURATED && !d->stopping) {
        mu_run_try(run, mu_env_wall_ms(d->opts.env)); /* it leaves the active list there */
    } else {
        mu_run_wait_retry(run);
    }
}

/* What it was waiting for did not come in the time that it may wait. */
static void give_up(struct mu_exec *x, const char *text)
{
    mu_run_set_active(x->run);
    mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_SATURATED, "saturated", text);
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
    mu_provider_quota(pr, run->org_id, now, &op->quota);
    op->provider = op->quota.provider; /* lives as long as the provider, also over a reload */
    op->model = mu_provider_model(pr, mu_str(run->model));
    hold(x, pr);
    op->waited = run->saturated_ms != 0;
    op->deadline_ms = op->lease_ms = now + d->opts.run_max_ms;
    op->done = claimed;
    op->ctx = x;
    if (mu_session_claim(d->opts.sessions, op) < 0) {
        mu_exec_over(x);
        mu_run_wait_retry(run);
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
        run->shown_ms = until;
    }
    mu_exec_over(x);
    if (run->cancel || result == MU_E_STALE || result == MU_E_NOT_FOUND) {
        mu_run_drop(run);
        return;
    }
    if (result == 0) {
        mu_run_wait(run, until);
    } else {
        mu_run_wait_retry(run);
    }
}

/* Every candidate is full: wait for the earliest, remember since when. */
static void wait_saturated(struct mu_exec *x)
{
    struct mu_run *run = x->run;
    struct mu_dispatch *d = run->d;
    const struct mu_providers_settings *set = d->opts.settings;
    int64_t now = now_of(x);
    if (!set->queue_on_saturation) {
        give_up(x, "All providers saturated");
        return;
    }
    if (mu_exec_waited_out(x, now)) {
        give_up(x, x->text);
        return;
    }
    int64_t until = mu_exec_wait_until(x, now);
    if (run->saturated_ms && run->shown_ms > now && run->shown_ms - until < 1000) {
        mu_exec_over(x); /* the row says so; a later end is told when that one is over */
        mu_run_wait(run, until);
        return;
    }
    x->saturate = (struct mu_session_saturate){.unit = {.loop = d->opts.core},
                                               .id = run->id,
                                               .epoch = run->epoch,
                                               .now_ms = now,
                                               .deadline_ms = mu_exec_wait_deadline(x, now),
                                               .message = x->text,
                                               .done = saturate_done,
                                               .ctx = x};
    mu_log(MU_LOG_INFO, "run.queued", MU_KC("run_id", mu_run_name(run).text),
           MU_KI("wait_ms", until - now));
    mu_run_set_active(run);
    if (mu_session_saturate(d->opts.sessions, &x->saturate) < 0) {
        mu_exec_over(x);
        mu_run_wait_retry(run);
    }
}

/* A candidate is there, only not at this moment: every slot of its program is taken, or another
 * run is just being claimed. Capacity wakes the run before. */
static void wait_for_room(struct mu_exec *x)
{
    struct mu_run *run = x->run;
    int64_t now = now_of(x);
    if (mu_exec_waited_out(x, now)) {
        give_up(x, x->text);
        return;
    }
    int64_t until = MU_MIN(now + ROOM_MS, mu_exec_give_up_ms(x, now));
    mu_exec_over(x);
    mu_run_wait(run, until);
}

/* Whether an older one of its group is just being noted down as waiting: that one goes first, even
 * if room comes before it is back in line. */
static bool elder_is_noted(const struct mu_run *run)
{
    MU_LIST_EACH(it, tmp, &run->d->active)
    {
        const struct mu_run *other = MU_CONTAINER(it, struct mu_run, link);
        bool noted = other->x && (other->phase == MU_RUN_CLAIMING ? other->x->saturate.done != NULL
                                                                  : other->x->put_back_saturated);
        if (noted && other->group == run->group && mu_run_older(&other->node, &run->node)) {
            return true;
        }
    }
    return false;
}

bool mu_run_try(struct mu_run *run, int64_t now_ms)
{
    struct mu_dispatch *d = run->d;
    run->look_no = d->look_no;
    if (run->cancel) {
        mu_run_drop(run);
        return true;
    }
    struct mu_exec *x = mu_run_map(run) == 0 ? exec_new(run) : NULL;
    if (!x) {
        mu_run_wait_retry(run);
        return false;
    }
    x->n_candidates = mu_providers_candidates(d->opts.providers, mu_str(run->harness), run->admin,
                                              x->candidates, MU_CANDIDATES_MAX);
    if (x->n_candidates == 0) {
        mu_providers_no_candidate(d->opts.providers, mu_str(run->harness), run->admin, x->text,
                                  sizeof x->text);
        mu_run_set_active(run);
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_PROVIDER_ERROR, "config", x->text);
        return true;
    }
    bool busy;
    int at = choose(x, 0, now_ms, &busy);
    if (at >= 0 && !elder_is_noted(run)) {
        x->at = (unsigned)at;
        start_claim(x);
        return true;
    }
    if (at >= 0 || busy) {
        wait_for_room(x);
        return false;
    }
    if (x->saturated) {
        wait_saturated(x);
        return false;
    }
    mu_run_set_active(run);
    mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_PROVIDER_ERROR, "provider_unavailable",
                   "Every provider of this run failed repeatedly just now; they are tried again "
                   "in a few seconds");
    return true;
}

/* --- the call --- */

static int on_delta(void *arg, mu_bytes text)
{
    struct mu_exec *x = arg;
    if (x->run->cancel || x->run->release) {
        return MU_E_CANCELLED;
    }
    return mu_exec_delta(x, text);
}

/* What becomes of the reservation of the call that just ended: it stays when any try of it counted.
 */
static void settle(struct mu_exec *x, const struct mu_call_result *result)
{
    const struct mu_provider_conf *conf = mu_provider_conf(x->candidates[x->at]);
    if (result->counted) {
        x->quota.free_ms = now_of(x) + conf->window_seconds * 1000;
    }
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

/* The candidate of the call that just ended is full until a time that is known. */
static void note_limited(struct mu_exec *x)
{
    int64_t now = now_of(x), until = 0;
    struct mu_provider *pr = x->candidates[x->at];
    if (mu_provider_gate(pr, x->run->org_id, now, &until) != MU_P_BLOCKED) {
        until = now + LIMITED_MS; /* there was no memory to note it */
    }
    x->saturated_until = x->saturated ? MU_MIN(x->saturated_until, until) : until;
    x->saturated = true;
    mu_log(MU_LOG_INFO, "run.rate_limited", MU_KC("run_id", mu_run_name(x->run).text),
           MU_KC("provider_key", mu_provider_conf(pr)->key), MU_KC("message", x->text));
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
    if (run->cancel || (run->release && result->cls != MU_CALL_OK)) {
        stopped(x);
        return;
    }
    if (x->no_memory) {
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_INTERNAL, "internal",
                       "There was not enough memory for the output");
        return;
    }
    if (result->cls == MU_CALL_OK) {
        mu_exec_keep(x, result->final_text);
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
            hold(x, pr);
            return;
        }
    }
    if (result->cls == MU_CALL_RATE_LIMITED) {
        note_limited(x);
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

/* Whether reading failed for a reason that has nothing to do with what was to be read. */
static bool may_pass(int code)
{
    return code == -ENOMEM || code == MU_E_BUSY || code == MU_E_UNAVAILABLE ||
           code == MU_E_CLOSED || code == MU_E_RETRY || code == MU_E_SHUTDOWN;
}

static void begin_call(struct mu_exec *x)
{
    struct mu_run *run = x->run;
    if (run->cancel || run->release) {
        stopped(x);
        return;
    }
    if (may_pass(x->context_result) && run->unread++ < UNREAD_MAX) {
        mu_exec_put_back(x, false);
        return;
    }
    if (x->context_result < 0) {
        x->cls = MU_CALL_CONFIG;
        mu_exec_finish(x, MU_ST_FAILED, MU_OUT_FAILED, MU_END_INTERNAL, "internal",
                       "The run's stored input could not be read");
        return;
    }
    struct mu_provider *pr = x->candidates[x->at];
    const struct mu_run_name name = mu_run_name(run);
    struct mu_call_request req = {.provider = pr,
                                  .run_id = name.text,
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
    hold(x, NULL);
    int r = mu_provider_call(run->d->opts.providers, &req, &x->call);
    if (r == MU_E_BUSY) { /* fewer slots since a reload, or the work pool is full */
        mu_exec_put_back(x, false);
    } else if (r < 0) {
        struct mu_call_result failed = {.cls = MU_CALL_UNAVAILABLE, .text = mu_err_text(r)};
        call_done(x, &failed);
    }
}

/* --- fall back --- */

static void changed(struct mu_session_switch *op, int result)
{
    struct mu_exec *x = op->ctx;
    struct mu_run *run = x->run;
    if (result == 0) {
        mu_exec_settled(x);
        x->quota_of = op->quota.limit > 0 ? x->candidates[x->at] : NULL;
        x->quota =
            (struct mu_quota_settle){.provider = op->quota.limit > 0 ? op->quota.provider : NULL};
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
    hold(x, NULL);
    int at = choose(x, x->at + 1, now_of(x), &busy);
    if (at < 0) {
        if (busy) { /* a candidate is there, only not at this moment */
            mu_exec_put_back(x, false);
        } else if (x->saturated && run->d->opts.settings->queue_on_saturation) {
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
                                           .model = mu_provider_model(pr, mu_str(run->model)),
                                           .former = x->quota,
                                           .done = changed,
                                           .ctx = x};
    mu_provider_quota(pr, run->org_id, now_of(x), &x->change.quota);
    x->change.provider = x->change.quota.provider;
    hold(x, pr);
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
