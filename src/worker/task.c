/* The life of one attempt: claimed, prepared, started, running, ended, collected, told, released.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/encode.h"
#include "base/log.h"
#include "worker/worker_int.h"

enum {
    LOG_GATHER_MS = 50,
    LOG_BACKLOG = 1 << 20, /* unsent bytes of the link above which log is left out */
    STORE_AGAIN_MS = 1000,
    STORE_TRIES = 5,
    SMALL_OUTPUT = 64 << 10,
    MAX_LOG_BYTES = 64 << 20
};

/* Only moves that the table allows. */
static void set_state(struct mu_attempt *t, enum mu_attempt_state to)
{
    static const unsigned moves[] = {
        [MU_ATTEMPT_PREPARING] = 1u << MU_ATTEMPT_STARTED | 1u << MU_ATTEMPT_COLLECTING |
                                 1u << MU_ATTEMPT_STORING | 1u << MU_ATTEMPT_OVER,
        [MU_ATTEMPT_STARTED] = 1u << MU_ATTEMPT_COLLECTING | 1u << MU_ATTEMPT_RELEASING |
                               1u << MU_ATTEMPT_DISPATCHED | 1u << MU_ATTEMPT_OVER,
        [MU_ATTEMPT_COLLECTING] = 1u << MU_ATTEMPT_STORING | 1u << MU_ATTEMPT_RELEASING,
        [MU_ATTEMPT_STORING] = 1u << MU_ATTEMPT_RELEASING,
        [MU_ATTEMPT_RELEASING] = 1u << MU_ATTEMPT_OVER,
        [MU_ATTEMPT_DISPATCHED] = 1u << MU_ATTEMPT_RELEASING | 1u << MU_ATTEMPT_OVER,
        [MU_ATTEMPT_OVER] = 0,
    };
    MU_CHECK(moves[t->state] & 1u << to);
    t->state = to;
}

static bool takes_slot(const struct mu_attempt *t)
{
    return t->state < MU_ATTEMPT_RELEASING;
}

static void count(struct mu_worker *w)
{
    w->n_tasks = 0;
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        w->n_tasks += takes_slot(MU_CONTAINER(it, struct mu_attempt, link));
    }
    mu_metric_set(w->m.active, (int64_t)w->n_tasks);
}

struct mu_wire_ids mu_attempt_ids(const struct mu_attempt *t, int64_t seq)
{
    return (struct mu_wire_ids){.task_id = mu_str(t->task_id),
                                .execution_id = mu_str(t->execution_id),
                                .worker_id = mu_str(t->w->conf->worker_id),
                                .epoch = t->epoch,
                                .seq = seq,
                                .native = mu_uplink_native(t->w)};
}

/* --- memory --- */

static void on_log_timer(struct mu_timer *t)
{
    mu_attempt_flush_log(MU_CONTAINER(t, struct mu_attempt, log_timer));
}

struct mu_attempt *mu_attempt_new(struct mu_worker *w)
{
    struct mu_attempt *t = mu_calloc(1, sizeof *t);
    if (!t) {
        return NULL;
    }
    t->w = w;
    t->since_ms = mu_env_wall_ms(w->env);
    t->started_at = mu_loop_now_ms(w->loop);
    t->exit_code = -1;
    mu_arena_init(&t->arena, MU_WIRE_MAX_ARENA);
    mu_kept_init(&t->log, (size_t)w->conf->output_limit);
    mu_buf_init(&t->unsent, MU_WIRE_MAX_LOG_CHUNK);
    mu_buf_init(&t->fetched, MU_WIRE_MAX_MESSAGE);
    mu_timer_init(&t->log_timer, w->loop, on_log_timer);
    mu_timer_init(&t->retry, w->loop, NULL);
    mu_list_push(&w->tasks, &t->link);
    count(w);
    return t;
}

struct mu_attempt *mu_attempt_free(struct mu_attempt *t)
{
    if (!t) {
        return NULL;
    }
    struct mu_worker *w = t->w;
    mu_list_remove(&t->link);
    mu_timer_clear(&t->log_timer);
    mu_timer_clear(&t->retry);
    mu_arena_fini(&t->arena);
    mu_clip_fini(&t->log);
    mu_buf_fini(&t->unsent);
    mu_buf_fini(&t->fetched);
    mu_collect_fini(&t->collect);
    mu_checkouts_release(t);
    t->fetching = mu_restore_free(t->fetching);
    if (t->has_folder) {
        mu_relay_remove(t);
    }
    t->relay = mu_relay_close(t->relay, true);
    explicit_bzero(t->link_key, sizeof t->link_key);
    if (t->token) {
        explicit_bzero(t->token, strlen(t->token));
    }
    mu_free(t->token);
    mu_free(t);
    count(w);
    return NULL;
}

static void over(struct mu_attempt *t)
{
    struct mu_worker *w = t->w;
    set_state(t, MU_ATTEMPT_OVER);
    mu_attempt_free(t);
    if (w->n_tasks == 0) {
        mu_worker_trim_soon(w);
    }
    mu_worker_advance(w);
}

/* --- what is said about it --- */

void mu_attempt_record(struct mu_attempt *t)
{
    struct mu_buf buf;
    mu_buf_init(&buf, 65536);
    struct mu_json_w w = mu_json_w(&buf);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "task_id", t->task_id);
    mu_jw_kcstr(&w, "kind", t->backend ? t->backend->ops->name : "");
    mu_jw_ki64(&w, "epoch", t->epoch);
    mu_jw_ki64(&w, "seq", t->seq);
    mu_jw_ki64(&w, "claim_seq", t->claim_seq);
    mu_jw_ki64(&w, "since_ms", t->since_ms);
    mu_jw_kcstr(&w, "told", t->told);
    mu_jw_kbool(&w, "started", t->state >= MU_ATTEMPT_STARTED);
    mu_jw_kbool(&w, "dispatched", t->dispatched);
    mu_jw_kbool(&w, "cancelled", t->cancelled);
    mu_jw_ki64(&w, "lease_ms", t->lease_ms);
    mu_jw_kbool(&w, "held", t->held);
    if (t->token) {
        mu_jw_kcstr(&w, "token", t->token);
    }
    if (t->link_key[0]) {
        mu_jw_kcstr(&w, "link_key", t->link_key);
    }
    mu_checkouts_record(t, &w);
    mu_jw_obj_end(&w);
    int r = buf.failed ? buf.failed
                       : mu_jstore_put(t->w->store, MU_JOURNAL_START, mu_str(t->execution_id),
                                       mu_buf_bytes(&buf), false, NULL, NULL);
    if (r < 0) {
        mu_log(MU_LOG_WARN, "journal.not_written", MU_KC("execution_id", t->execution_id),
               MU_KC("err_message", mu_err_text(r)));
    }
    mu_buf_wipe(&buf);
}

void mu_attempt_tell_state(struct mu_attempt *t, const char *state, const char *detail)
{
    struct mu_worker *w = t->w;
    if (t->muted || !strcmp(t->told, state)) {
        return;
    }
    snprintf(t->told, sizeof t->told, "%s", state);
    t->told_seq = ++t->seq;
    mu_attempt_record(t);
    mu_log(MU_LOG_DEBUG, "task.state", MU_KC("task_id", t->task_id), MU_KC("state", state));
    if (mu_uplink_native(w)) {
        struct mu_buf buf;
        const struct mu_wire_ids ids = mu_attempt_ids(t, t->seq);
        mu_buf_init(&buf, 8192);
        mu_wire_state(&buf, &ids, state, detail);
        mu_uplink_send(w, &buf);
        mu_buf_fini(&buf);
    }
}

/* --- output while it runs --- */

static void send_log(struct mu_attempt *t, mu_bytes b)
{
    struct mu_worker *w = t->w;
    if (mu_uplink_native(w) && w->link.ws && mu_ws_unsent(w->link.ws) < LOG_BACKLOG && !t->muted) {
        struct mu_buf buf;
        const struct mu_wire_ids ids = mu_attempt_ids(t, 0);
        mu_buf_init(&buf, 8 * MU_WIRE_MAX_LOG_CHUNK);
        mu_wire_log(&buf, &ids, "stdout", t->log_sent, b);
        mu_uplink_send(w, &buf);
        mu_buf_fini(&buf);
    }
    t->log_sent += (int64_t)b.len; /* sent, or left out: the whole comes with the end */
}

void mu_attempt_flush_log(struct mu_attempt *t)
{
    mu_timer_clear(&t->log_timer);
    mu_bytes b = mu_buf_bytes(&t->unsent);
    if (b.len) {
        send_log(t, b);
        mu_buf_clear(&t->unsent);
    }
}

/* A chunk ends between characters where it can. */
static void gather(struct mu_attempt *t, mu_bytes b)
{
    while (b.len) {
        mu_bytes part = mu_bytes_head(b, MU_WIRE_MAX_LOG_CHUNK - t->unsent.len);
        mu_buf_add(&t->unsent, part);
        if (t->unsent.failed) {
            mu_buf_clear(&t->unsent);
            t->log_sent += (int64_t)b.len;
            return;
        }
        b = mu_bytes_from(b, part.len);
        if (t->unsent.len == MU_WIRE_MAX_LOG_CHUNK) {
            mu_bytes all = mu_buf_bytes(&t->unsent);
            mu_bytes whole = mu_utf8_cut(all, all.len - 1);
            whole = whole.len + 8 < all.len ? all : whole;
            send_log(t, whole);
            mu_buf_consume(&t->unsent, whole.len);
        }
    }
}

static void on_log(void *arg, int64_t offset, mu_bytes bytes)
{
    struct mu_attempt *t = arg;
    if (offset > t->log.total) { /* a gap: what is missing is counted */
        t->log.total = offset;
    } else if (offset < t->log.total) {
        bytes = mu_bytes_from(bytes, (size_t)MU_MIN(t->log.total - offset, (int64_t)bytes.len));
        offset = t->log.total;
    }
    mu_kept_add(&t->log, bytes);
    int64_t behind = t->log_sent + (int64_t)t->unsent.len - offset;
    bytes = mu_bytes_from(bytes, behind > 0 ? (size_t)MU_MIN(behind, (int64_t)bytes.len) : 0);
    if (behind < 0) {
        mu_attempt_flush_log(t);
        t->log_sent = offset;
    }
    gather(t, bytes);
    if (t->unsent.len && !mu_timer_is_set(&t->log_timer)) {
        (void)!mu_timer_set(&t->log_timer, LOG_GATHER_MS);
    }
}

/* --- start --- */

static void on_state(void *arg, const char *state, const char *detail)
{
    struct mu_attempt *t = arg;
    if (t->link_key[0] && !strcmp(state, "running")) {
        state = "starting"; /* that the agent runs is for its runner to say */
    }
    if (!t->stop_reason && !(t->link_key[0] && !strcmp(state, "paused"))) {
        mu_attempt_tell_state(t, state, detail);
    }
}

static void on_ended(void *arg, const struct mu_sandbox_result *result);

const struct mu_sandbox_events mu_attempt_events = {on_state, on_log, on_ended};

void mu_attempt_begin(struct mu_attempt *t)
{
    struct mu_worker *w = t->w;
    struct mu_buf buf;
    t->claim_seq = t->seq = 1;
    mu_attempt_record(t);
    mu_metric_add(w->m.claimed, 1);
    mu_log(MU_LOG_INFO, "task.claimed", MU_KC("task_id", t->task_id),
           MU_KC("execution_id", t->execution_id), MU_KC("backend", t->backend->ops->name));
    const struct mu_wire_ids ids = mu_attempt_ids(t, t->claim_seq);
    mu_buf_init(&buf, 4096);
    mu_wire_claimed(&buf, &ids);
    mu_uplink_send(w, &buf);
    mu_buf_fini(&buf);
    mu_attempt_tell_state(t, "preparing", NULL);
    mu_lease_watch(w);
    mu_attempt_prepare(t);
}

static int64_t timeout_of(const struct mu_attempt *t)
{
    int64_t ms = t->w->conf->task_timeout_ms;
    if (t->as.deadline_ms > 0) {
        int64_t left = MU_MAX(t->as.deadline_ms - mu_env_wall_ms(t->w->env), INT64_C(1000));
        ms = ms > 0 ? MU_MIN(ms, left) : left;
    }
    return ms;
}

static int fill_mounts(struct mu_attempt *t, struct mu_sandbox_mount *mounts)
{
    for (size_t i = 0; i < t->as.n_mounts; i++) {
        const struct mu_wire_mount *m = &t->as.mounts[i];
        mu_bytes image = mu_arena_dup(&t->arena, m->image), path = mu_arena_dup(&t->arena, m->path);
        if (!image.ptr || !path.ptr) {
            return -ENOMEM;
        }
        mounts[i] = (struct mu_sandbox_mount){
            .source = image.ptr, .target = path.ptr, .writable = m->writable, .image = true};
    }
    return 0;
}

static const char *text_of(struct mu_attempt *t, mu_bytes b)
{
    return b.len ? mu_arena_dup(&t->arena, b).ptr : NULL;
}

static int launch(struct mu_attempt *t, struct mu_err *err)
{
    const struct mu_worker_conf *c = t->w->conf;
    const struct mu_wire_assignment *as = &t->as;
    bool foreign = !strcmp(t->backend->ops->name, "command");
    int linked = as->live ? mu_relay_open(t) : 0;
    if (linked < 0) {
        return mu_err_set(err, linked, "the runner's socket: %s", mu_err_text(linked));
    }
    const struct mu_wire_about about = {.server_root_url = c->server_root_url,
                                        .link = as->live ? mu_relay_path(t) : NULL,
                                        .link_key = t->link_key,
                                        .restore = t->restores ? mu_relay_restore(t) : NULL,
                                        .session_sharing_url = c->session_sharing_url,
                                        .idle_on_complete = c->idle_on_complete,
                                        .environment = c->environment,
                                        .execution_id = t->execution_id,
                                        .keep_token = foreign};
    struct mu_sandbox_mount mounts[MU_ARRAY_LEN(as->mounts) + 1];
    struct mu_sandbox_checkout checkouts[MU_WORKER_MAX_REPOS];
    mu_bytes long_prompt = MU_B_NONE;
    struct mu_sandbox_spec spec = {.execution_id = t->execution_id,
                                   .task_id = t->task_id,
                                   .epoch = t->epoch,
                                   .mounts = mounts,
                                   .n_mounts = as->n_mounts,
                                   .checkouts = checkouts,
                                   .n_checkouts = mu_checkouts_fill(t, checkouts),
                                   .log_bytes = MAX_LOG_BYTES,
                                   .timeout_ms = timeout_of(t),
                                   .stop_grace_ms = c->stop_grace_ms};
    int r = mu_wire_env(&t->arena, as, &about, &spec.env, &long_prompt, err);
    if (r == 0) {
        r = mu_wire_argv(&t->arena, as, &about, &spec.argv);
    }
    if (r == 0) {
        r = fill_mounts(t, mounts);
    }
    if (r < 0) {
        return r;
    }
    if (as->live) {
        mounts[spec.n_mounts++] =
            (struct mu_sandbox_mount){.source = mu_relay_folder(t), .target = "/run/muster/link"};
    }
    spec.prompt = t->prompt.ptr ? t->prompt : long_prompt;
    spec.image = text_of(t, as->image);
    spec.sidecar_image = text_of(t, as->sidecar);
    mu_policy_fill(t, &spec);
    struct mu_buf task;
    mu_buf_init(&task, MU_WIRE_MAX_MESSAGE);
    if (foreign) {
        mu_json_add(&task, as->task);
        spec.task_json = mu_buf_bytes(&task);
    }
    r = task.failed
            ? task.failed
            : t->backend->ops->start(t->backend->driver, &spec, &mu_attempt_events, t, &t->sandbox);
    mu_buf_fini(&task);
    return r;
}

void mu_attempt_start(struct mu_attempt *t)
{
    struct mu_err err = {0};
    if (t->stop_reason) { /* cancelled before it began */
        mu_attempt_fail(t, NULL, "%s", "");
        return;
    }
    int r = launch(t, &err);
    if (r < 0) {
        mu_attempt_fail(t, "unknown", "%s", err.text[0] ? err.text : mu_err_text(r));
        return;
    }
    set_state(t, MU_ATTEMPT_STARTED);
    mu_attempt_record(t);
    mu_arena_fini(&t->arena);
    mu_buf_fini(&t->fetched);
    memset(&t->as, 0, sizeof t->as);
    t->prompt = MU_B_NONE;
}

/* --- stop --- */

void mu_attempt_stop(struct mu_attempt *t, bool graceful, const char *reason)
{
    bool again = t->stop_reason != NULL;
    if (!again) {
        t->stop_reason = reason;
        t->stop_graceful = graceful;
    }
    switch (t->state) {
    case MU_ATTEMPT_PREPARING:
        if (t->prompt_fetch) {
            mu_fetch_real.abort(t->prompt_fetch); /* its done() goes on */
        } else {
            mu_checkouts_abort(t);
        }
        break; /* whatever it waits for sees stop_reason */
    case MU_ATTEMPT_STARTED:
        if (!again || (t->stop_graceful && !graceful)) {
            t->stop_graceful = graceful;
            mu_attempt_tell_state(t, "stopping", reason);
            t->backend->ops->stop(t->sandbox, graceful, t->stop_reason);
        }
        break;
    case MU_ATTEMPT_DISPATCHED:
        if (!again) {
            t->backend->ops->stop(t->sandbox, graceful, reason);
            mu_attempt_collected(t);
        }
        break;
    default: /* it has ended already */
        break;
    }
}

void mu_attempt_detach(struct mu_attempt *t)
{
    MU_CHECK(t->state == MU_ATTEMPT_STARTED || t->state == MU_ATTEMPT_DISPATCHED);
    mu_attempt_flush_log(t);
    t->relay = mu_relay_close(t->relay, false);
    t->backend->ops->detach(t->sandbox);
    t->sandbox = NULL;
    over(t);
}

/* --- the end --- */

void mu_attempt_fail(struct mu_attempt *t, const char *reason, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(t->message, sizeof t->message, fmt, ap);
    va_end(ap);
    snprintf(t->failure_reason, sizeof t->failure_reason, "%s", reason ? reason : "");
    mu_log(MU_LOG_WARN, "task.failed", MU_KC("task_id", t->task_id),
           MU_KC("reason", t->failure_reason), MU_KC("err_message", t->message));
    mu_attempt_collected(t);
}

/* Whoever runs it reports its end to the server, not to us: what is not cancelled would stay for
 * ever. */
static void limit_dispatched(struct mu_worker *w)
{
    struct mu_attempt *oldest = NULL;
    size_t n = 0;
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        struct mu_attempt *t = MU_CONTAINER(it, struct mu_attempt, link);
        if (t->state == MU_ATTEMPT_DISPATCHED) {
            oldest = oldest ? oldest : t;
            n++;
        }
    }
    if (n > MU_WORKER_MAX_DISPATCHED) {
        mu_attempt_collected(oldest);
    }
}

static void on_ended(void *arg, const struct mu_sandbox_result *result)
{
    struct mu_attempt *t = arg;
    t->exit_code = result->exit_code;
    t->oom = result->oom;
    t->cpu_ms = result->cpu_ms;
    t->peak_bytes = result->peak_bytes;
    snprintf(t->failure_reason, sizeof t->failure_reason, "%s",
             result->failure_reason ? result->failure_reason : "");
    snprintf(t->message, sizeof t->message, "%s", result->message ? result->message : "");
    mu_attempt_flush_log(t);
    mu_log(MU_LOG_INFO, "task.ended", MU_KC("task_id", t->task_id),
           MU_KI("exit_code", t->exit_code), MU_KC("reason", t->failure_reason));
    if (!strcmp(t->failure_reason, "dispatched") && !t->stop_reason) {
        t->dispatched = true;
        set_state(t, MU_ATTEMPT_DISPATCHED);
        count(t->w);
        mu_attempt_record(t);
        mu_attempt_tell_state(t, "running", "dispatched");
        mu_health_ended(t->w, MU_RESULT_DISPATCHED, mu_env_wall_ms(t->w->env) - t->since_ms);
        limit_dispatched(t->w);
        mu_worker_advance(t->w);
        return;
    }
    set_state(t, MU_ATTEMPT_COLLECTING);
    if (t->muted) {
        mu_attempt_collected(t);
    } else {
        mu_collect_run(t);
    }
}

static void released(void *arg)
{
    over(arg);
}

static void release(struct mu_attempt *t)
{
    set_state(t, MU_ATTEMPT_RELEASING);
    count(t->w); /* told before its end is: the server may fill the slot at once */
    if (t->sandbox) {
        struct mu_sandbox *s = t->sandbox;
        t->sandbox = NULL;
        t->backend->ops->release(s, released, t);
    } else {
        over(t);
    }
}

static const char *task_reason(const struct mu_attempt *t)
{
    const char *phase = t->collect.phase;
    return !strcmp(phase, "setup")                    ? "setup_command"
           : !strcmp(phase, "clone")                  ? "workspace_setup"
           : !strcmp(phase, "restore")                ? "restore_failed"
           : !strcmp(t->backend->ops->name, "direct") ? "agent_invocation"
                                                      : "container_exit";
}

/* The sentences and words of an end. */
static int word_end(struct mu_attempt *t, struct mu_wire_end *end, char text[160])
{
    *end = (struct mu_wire_end){.exit_code = t->exit_code,
                                .cpu_ms = t->cpu_ms,
                                .peak_bytes = t->peak_bytes,
                                .duration_ms = mu_env_wall_ms(t->w->env) - t->since_ms};
    if (t->cancelled) {
        end->cancelled = true;
        end->message = "Task cancelled";
        end->failure_reason = "task_cancelled";
        return MU_RESULT_CANCELLED;
    }
    if (t->stop_reason) {
        end->failed = true;
        end->message = "The worker was stopped before the task was done";
        end->failure_reason = t->stop_reason;
    } else if (t->failure_reason[0]) {
        end->failed = true;
        end->message = t->message[0] ? t->message : "Task failed";
        end->failure_reason = t->failure_reason;
    } else if (t->oom) {
        end->failed = true;
        end->message = "The task used more memory than it may and was ended";
        end->failure_reason = "container_oom";
    } else if (t->link_key[0] && !t->collect.phase[0]) {
        end->failed = true;
        end->message = "The session's runner was lost";
        end->failure_reason = "runner_lost";
    } else if (t->exit_code != 0) {
        snprintf(text, 160, "The agent ended with status %d", t->exit_code);
        end->message = t->collect.message[0] ? t->collect.message : text;
        end->failure_reason = task_reason(t);
    } else {
        end->message = "Task completed";
        return MU_RESULT_SUCCEEDED;
    }
    return MU_RESULT_FAILED;
}

static void encode_end(struct mu_attempt *t, struct mu_wire_end *end, mu_bytes output,
                       struct mu_buf *dst)
{
    struct mu_buf artifacts;
    mu_buf_init(&artifacts, 1 << 20);
    if (t->collect.n_artifacts) {
        mu_buf_add_char(&artifacts, '[');
        mu_buf_add(&artifacts, mu_buf_bytes(&t->collect.artifacts));
        mu_buf_add_char(&artifacts, ']');
        bool whole = !artifacts.failed && !t->collect.artifacts.failed;
        end->artifacts = whole ? mu_buf_bytes(&artifacts) : MU_B_NONE;
    }
    end->output = output;
    end->session_link = mu_str(t->collect.session_link);
    struct mu_wire_ids ids = mu_attempt_ids(t, t->seq);
    ids.native = true; /* the same text goes to either kind of server, whichever is there then */
    mu_wire_end(dst, &ids, end);
    mu_buf_fini(&artifacts);
}

static void stored(void *arg, int result, mu_bytes bytes MU_UNUSED);

/* Without the journal it is only in memory; better than not at all. */
static void keep_in_memory(struct mu_attempt *t)
{
    struct mu_wire_end end;
    struct mu_buf text;
    char words[160];
    word_end(t, &end, words);
    mu_buf_init(&text, MU_WIRE_MAX_MESSAGE + 4096);
    encode_end(t, &end, mu_bytes_head(mu_buf_bytes(&t->collect.output), SMALL_OUTPUT), &text);
    struct mu_end *e = text.failed ? NULL : mu_ends_add(t->w, t->execution_id, t->seq);
    if (e) {
        e->text = text.ptr;
        e->text_len = text.len;
    } else {
        mu_buf_fini(&text);
        mu_log(MU_LOG_ERROR, "task.end_lost", MU_KC("task_id", t->task_id));
    }
    release(t);
}

static void store_end(struct mu_attempt *t)
{
    struct mu_wire_end end;
    struct mu_buf text;
    char words[160];
    word_end(t, &end, words);
    mu_buf_init(&text, MU_WIRE_MAX_MESSAGE + 4096);
    encode_end(t, &end, mu_buf_bytes(&t->collect.output), &text);
    int r = text.failed ? text.failed
                        : mu_jstore_put(t->w->store, MU_JOURNAL_END, mu_str(t->execution_id),
                                        mu_buf_bytes(&text), true, stored, t);
    mu_buf_fini(&text);
    if (r < 0) {
        stored(t, r, MU_B_NONE);
    }
}

static void on_store_retry(struct mu_timer *timer)
{
    store_end(MU_CONTAINER(timer, struct mu_attempt, retry));
}

static void stored(void *arg, int result, mu_bytes bytes MU_UNUSED)
{
    struct mu_attempt *t = arg;
    struct mu_worker *w = t->w;
    if (result < 0) {
        mu_log(MU_LOG_ERROR, "journal.end_not_written", MU_KC("task_id", t->task_id),
               MU_KC("err_message", mu_err_text(result)));
        t->retry.fn = on_store_retry;
        if (t->collect.tries++ >= STORE_TRIES || result == MU_E_LIMIT ||
            mu_timer_set(&t->retry, STORE_AGAIN_MS) < 0) {
            keep_in_memory(t);
        }
        mu_ends_pump(w);
        return;
    }
    if (!mu_ends_add(w, t->execution_id, t->seq)) {
        mu_log(MU_LOG_ERROR, "task.end_waits_for_restart", MU_KC("task_id", t->task_id));
    }
    release(t);
    mu_ends_pump(w);
}

/* Everything is there: the end is written and told. */
void mu_attempt_collected(struct mu_attempt *t)
{
    struct mu_wire_end end;
    char words[160];
    if (t->state == MU_ATTEMPT_DISPATCHED || t->muted) {
        if (mu_jstore_remove(t->w->store, mu_str(t->execution_id)) < 0) {
            mu_log(MU_LOG_WARN, "journal.not_removed", MU_KC("execution_id", t->execution_id));
        }
        if (t->state == MU_ATTEMPT_PREPARING) {
            over(t);
        } else {
            release(t);
        }
        return;
    }
    set_state(t, MU_ATTEMPT_STORING);
    t->collect.tries = 0;
    t->seq++;
    mu_attempt_record(t); /* a restart must know which number its end has */
    int result = word_end(t, &end, words);
    mu_health_ended(t->w, result, end.duration_ms);
    if (result == MU_RESULT_FAILED) {
        mu_health_failure_of(t->w, end.failure_reason);
    }
    store_end(t);
}
