/* A container that runs: waiting for its end however often the connection breaks, stopping it, and
 * finding out how it ended. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "exec/sandbox/docker_int.h"

enum { KILL_MS = 5000, COLLECT_MS = 30000, STOP_ANSWER_MS = 30000 };
/* Podman's wait asks for the container's state without a pause: it takes a whole core and keeps the
 * end from being written down. Looking now and then costs little and tells the end earlier. */
enum { PEEK_FIRST_MS = 10, PEEK_MAX_MS = 1000 };

static void wait_for(struct mu_docker_box *b);

/* --- the engine is away --- */

static void look_again(struct mu_docker_box *b, const struct mu_engine_result *res)
{
    int64_t now = mu_loop_now_ms(b->d->loop);
    b->away_since = b->away_since ? b->away_since : now;
    if (now - b->away_since >= MU_DOCKER_AWAY_MS) {
        mu_docker_end_(b, -1, b->stopping ? b->stop_reason : "container_wait",
                       "Nothing is known of the container any more: %.400s",
                       res->message ? res->message : "unexpected answer");
        return;
    }
    b->retry_ms =
        MU_MIN(b->retry_ms ? b->retry_ms * 2 : MU_DOCKER_RETRY_MS, MU_DOCKER_RETRY_MAX_MS);
    if (mu_timer_set(&b->again, b->retry_ms) < 0) {
        mu_docker_end_(b, -1, "container_wait", "%s", mu_err_text(-ENOMEM));
    }
}

/* --- the end --- */

void mu_docker_logged_(struct mu_docker_box *b)
{
    int code = b->result.exit_code;
    if (b->stopping) {
        bool timeout = !strcmp(b->stop_reason, "task_timeout");
        mu_docker_end_(b, code, b->stop_reason,
                       timeout ? "The task ran longer than %lld s and was stopped" : "Stopped",
                       (long long)(b->timeout_ms / 1000));
    } else if (b->result.oom && code != 0) {
        mu_docker_end_(b, code, "container_oom",
                       "The task used more memory than it may and was ended");
    } else {
        mu_docker_end_(b, code, NULL, "%s", "");
    }
}

static void collect(struct mu_docker_box *b)
{
    mu_timer_clear(&b->again);
    mu_timer_clear(&b->peek);
    mu_timer_clear(&b->escalate);
    b->wait = mu_engine_cancel(b->wait);
    b->kill = mu_engine_cancel(b->kill);
    b->call = mu_engine_cancel(b->call);
    b->phase = MU_DOCKER_COLLECT;
    if (mu_timer_set(&b->deadline, COLLECT_MS) < 0) {
        mu_docker_logged_(b);
        return;
    }
    mu_docker_log_rest_(b);
}

static void on_why(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    struct mu_arena a;
    b->call = NULL;
    mu_arena_init(&a, 16 << 20);
    yyjson_val *v = res->result == 0 && res->status == 200 ? mu_docker_json_(&a, res->body) : NULL;
    b->result.oom = mu_json_get_bool(mu_json_get(v, "State"), "OOMKilled", false);
    mu_arena_fini(&a);
    collect(b);
}

static int ask_state(struct mu_docker_box *b, void (*done)(void *, const struct mu_engine_result *))
{
    const struct mu_engine_request req = {
        .method = "GET", .done = done, .arg = b, .max_body = MU_DOCKER_ANSWER};
    return mu_docker_ask_(b->d, &req, &b->call, "/containers/%s/json", b->id);
}

static void exited(struct mu_docker_box *b, int code)
{
    b->result.exit_code = code;
    b->call = mu_engine_cancel(b->call);
    if (code == 0 || ask_state(b, on_why) < 0) {
        collect(b);
    }
}

static void on_wait(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    struct mu_arena a;
    b->wait = NULL;
    if (res->result < 0 || res->status >= 500) {
        look_again(b, res);
        return;
    }
    mu_arena_init(&a, 1 << 20);
    yyjson_val *v = res->status == 200 ? mu_docker_json_(&a, res->body) : NULL;
    int64_t code = mu_json_get_i64(v, "StatusCode", -1);
    mu_arena_fini(&a);
    if (code < 0 || code > 255) { /* gone, or an engine that waits in another way */
        mu_docker_look_(b);
    } else {
        exited(b, (int)code);
    }
}

static void wait_for(struct mu_docker_box *b)
{
    const struct mu_engine_request req = {
        .method = "POST", .done = on_wait, .arg = b, .timeout_ms = -1};
    if (b->wait) {
        return;
    }
    int r =
        mu_docker_ask_(b->d, &req, &b->wait, "/containers/%s/wait?condition=not-running", b->id);
    if (r < 0) {
        const struct mu_engine_result res = {.result = r, .message = mu_err_text(r)};
        look_again(b, &res);
    }
}

/* --- how is it? --- */

static int64_t label_number(yyjson_val *labels, const char *name, int64_t fallback)
{
    int64_t n;
    return mu_bytes_i64(mu_json_get_bytes(labels, name), &n) == 0 && n > 0 ? n : fallback;
}

/* What the spec said, as far as it is needed from now on. */
static void take_over(struct mu_docker_box *b, yyjson_val *v)
{
    yyjson_val *labels = mu_json_get(mu_json_get(v, "Config"), "Labels");
    int64_t started = 0;
    b->timeout_ms = label_number(labels, "oz.timeout_ms", 0);
    b->grace_ms = label_number(labels, "oz.grace_ms", b->grace_ms);
    b->log_max = label_number(labels, "oz.log_bytes", b->log_max);
    b->phase = MU_DOCKER_RUN;
    if (b->timeout_ms > 0 &&
        mu_time_parse(mu_json_get_bytes(mu_json_get(v, "State"), "StartedAt"), &started) == 0) {
        int64_t left = started + b->timeout_ms - mu_env_wall_ms(b->d->settings.env);
        int r = mu_timer_set(&b->deadline, MU_MAX(left, 0));
        (void)r; /* without memory it runs without a limit rather than ending here */
    }
}

/* Less and less often; false: the wait has to do. */
static bool peek_later(struct mu_docker_box *b)
{
    int64_t elapsed = mu_loop_now_ms(b->d->loop) - b->running_since;
    int64_t next = MU_MIN(MU_MAX(PEEK_FIRST_MS, elapsed / 4), PEEK_MAX_MS);
    return mu_engine_is_podman(b->d->engine) && mu_timer_set(&b->peek, next) == 0;
}

static void on_peek(struct mu_timer *t)
{
    struct mu_docker_box *b = MU_CONTAINER(t, struct mu_docker_box, peek);
    if (b->phase == MU_DOCKER_RUN && !mu_timer_is_set(&b->again)) {
        mu_docker_look_(b);
    }
}

static void keep_running(struct mu_docker_box *b, yyjson_val *v)
{
    bool adopted = b->phase == MU_DOCKER_ADOPT;
    if (adopted) {
        take_over(b, v);
        mu_docker_state_(b, "running", "adopted");
        if (b->gone || b->phase != MU_DOCKER_RUN) {
            return;
        }
    }
    if (!peek_later(b)) {
        wait_for(b);
    }
    mu_docker_follow_(b);
    if (adopted && b->stopping) {
        mu_docker_stop_(b);
    }
}

static void not_started(struct mu_docker_box *b, yyjson_val *state)
{
    char why[200];
    mu_engine_text(why, sizeof why, mu_json_get_bytes(state, "Error"));
    if (b->phase == MU_DOCKER_ADOPT) {
        mu_docker_end_(b, -1, b->stopping ? b->stop_reason : "unknown",
                       "The container had not been started when the worker went away");
    } else {
        mu_docker_end_(b, -1, "container_start", "The container did not start%s%s",
                       why[0] ? ": " : "", why);
    }
}

static bool is_over(mu_bytes status)
{
    static const char *const words[] = {"exited", "dead", "stopped", "removing"};
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        if (mu_bytes_is(status, words[i])) {
            return true;
        }
    }
    return false; /* running, paused, restarting, stopping */
}

static void judge(struct mu_docker_box *b, yyjson_val *v)
{
    yyjson_val *state = mu_json_get(v, "State");
    mu_bytes status = mu_json_get_bytes(state, "Status");
    b->away_since = b->retry_ms = 0;
    if (mu_bytes_is(status, "created") || mu_bytes_is(status, "configured") ||
        mu_bytes_is(status, "initialized")) {
        not_started(b, state);
    } else if (!is_over(status)) {
        keep_running(b, v);
    } else {
        if (b->phase == MU_DOCKER_ADOPT) {
            take_over(b, v);
        }
        b->result.exit_code = (int)mu_json_get_i64(state, "ExitCode", -1);
        b->result.oom = mu_json_get_bool(state, "OOMKilled", false);
        collect(b);
    }
}

static void on_look(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    struct mu_arena a;
    b->call = NULL;
    if (res->result == 0 && res->status == 404) {
        bool adopting = b->phase == MU_DOCKER_ADOPT;
        mu_docker_end_(b, -1,
                       b->stopping ? b->stop_reason
                       : adopting  ? "unknown"
                                   : "container_wait",
                       "The container was removed by somebody else");
        return;
    }
    mu_arena_init(&a, 16 << 20);
    yyjson_val *v = res->result == 0 && res->status == 200 ? mu_docker_json_(&a, res->body) : NULL;
    if (v) {
        judge(b, v);
    } else {
        look_again(b, res);
    }
    mu_arena_fini(&a);
}

/* --- adoption: which one is it? --- */

static void on_found(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    struct mu_arena a;
    b->call = NULL;
    if (res->result < 0 || res->status != 200) {
        look_again(b, res);
        return;
    }
    mu_arena_init(&a, 16 << 20);
    mu_bytes id = mu_json_get_bytes(yyjson_arr_get_first(mu_docker_json_(&a, res->body)), "Id");
    if (id.len > 0 && id.len < sizeof b->id) {
        mu_engine_text(b->id, sizeof b->id, id);
        mu_docker_look_(b);
    } else {
        mu_docker_end_(b, -1, b->stopping ? b->stop_reason : "unknown",
                       "Nothing is left of the container");
    }
    mu_arena_fini(&a);
}

static int find(struct mu_docker_box *b)
{
    const struct mu_engine_request req = {
        .method = "GET", .done = on_found, .arg = b, .max_body = MU_DOCKER_ANSWER};
    struct mu_buf filter MU_CLEANUP(mu_buf_fini);
    char escaped[3 * 1024];
    char label[600];
    mu_buf_init(&filter, 1024);
    struct mu_json_w w = mu_json_w(&filter);
    mu_jw_obj(&w);
    mu_jw_key(&w, "label");
    mu_jw_arr(&w);
    snprintf(label, sizeof label, "oz.execution=%s", b->execution);
    mu_jw_str(&w, mu_str(label));
    snprintf(label, sizeof label, "oz.worker=%.500s", b->d->settings.worker_id);
    mu_jw_str(&w, mu_str(label));
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    int r = filter.failed ? filter.failed
                          : mu_docker_escape_(escaped, sizeof escaped, mu_buf_bytes(&filter));
    return r < 0
               ? r
               : mu_docker_ask_(b->d, &req, &b->call, "/containers/json?all=1&filters=%s", escaped);
}

void mu_docker_look_(struct mu_docker_box *b)
{
    int r = b->call ? 0 : b->id[0] ? ask_state(b, on_look) : find(b);
    if (r < 0) {
        const struct mu_engine_result res = {.result = r, .message = mu_err_text(r)};
        look_again(b, &res);
    }
}

/* --- stopping --- */

static void on_blow(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    b->kill = NULL;
    if (res->result == 0 && res->status == 404) {
        mu_docker_look_(b);
    }
    /* Otherwise the wait tells, or the next blow falls. */
}

static void on_removed(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    b->kill = NULL;
    bool away = res->result < 0 || (res->status >= 300 && res->status != 404);
    mu_docker_end_(b, b->result.exit_code, b->stop_reason, "Stopped%s%.300s",
                   away ? "; the engine could not end it: " : " by removing the container",
                   away && res->message ? res->message : "");
}

void mu_docker_stop_(struct mu_docker_box *b)
{
    struct mu_engine_request req = {.method = "POST", .done = on_blow, .arg = b};
    int64_t next_ms = KILL_MS;
    int r;
    b->kill = mu_engine_cancel(b->kill);
    b->blows = b->blows == 0 && !b->graceful ? 1 : b->blows;
    if (b->blows == 0) {
        next_ms = b->grace_ms + 3000; /* the engine itself kills after the grace */
        req.timeout_ms = b->grace_ms + STOP_ANSWER_MS;
        r = mu_docker_ask_(b->d, &req, &b->kill, "/containers/%s/stop?t=%lld", b->id,
                           (long long)((b->grace_ms + 999) / 1000));
    } else if (b->blows < 3) {
        r = mu_docker_ask_(b->d, &req, &b->kill, "/containers/%s/kill?signal=SIGKILL", b->id);
    } else {
        req.method = "DELETE";
        req.done = on_removed;
        r = mu_docker_ask_(b->d, &req, &b->kill, "/containers/%s?force=1&v=1", b->id);
        if (r == 0) {
            return;
        }
    }
    b->blows++;
    if (mu_timer_set(&b->escalate, r < 0 ? 500 : next_ms) < 0) {
        mu_docker_end_(b, -1, b->stop_reason, "%s", mu_err_text(-ENOMEM));
    }
}

static void on_escalate(struct mu_timer *t)
{
    struct mu_docker_box *b = MU_CONTAINER(t, struct mu_docker_box, escalate);
    if (b->phase == MU_DOCKER_RUN) {
        mu_docker_stop_(b);
    }
}

static void on_deadline(struct mu_timer *t)
{
    struct mu_docker_box *b = MU_CONTAINER(t, struct mu_docker_box, deadline);
    if (b->phase == MU_DOCKER_COLLECT) { /* the engine does not give the rest of the log */
        mu_docker_logged_(b);
    } else if (b->phase == MU_DOCKER_RUN && !b->stopping) {
        b->stopping = b->graceful = true;
        b->stop_reason = "task_timeout";
        mu_docker_stop_(b);
    }
}

/* --- start --- */

void mu_docker_run_init_(struct mu_docker_box *b)
{
    mu_timer_init(&b->peek, b->d->loop, on_peek);
    mu_timer_init(&b->escalate, b->d->loop, on_escalate);
    mu_timer_init(&b->deadline, b->d->loop, on_deadline);
}

void mu_docker_run_(struct mu_docker_box *b, bool certain)
{
    b->phase = MU_DOCKER_RUN;
    b->running_since = mu_loop_now_ms(b->d->loop);
    b->spec = (struct mu_sandbox_spec){0};
    mu_arena_fini(&b->arena);
    if (b->timeout_ms > 0 && mu_timer_set(&b->deadline, b->timeout_ms) < 0) {
        b->stopping = true;
        b->stop_reason = "container_start";
    }
    if (!certain) {
        mu_docker_look_(b);
    } else {
        mu_docker_state_(b, "running", NULL);
        if (b->gone || b->phase != MU_DOCKER_RUN) {
            return;
        }
        if (!peek_later(b)) { /* else its log is followed when the first look finds it running */
            wait_for(b);
            mu_docker_follow_(b);
        }
    }
    if (b->stopping && b->phase == MU_DOCKER_RUN && !b->blows) {
        mu_docker_stop_(b);
    }
}
