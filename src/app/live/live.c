/* Who is there: sessions come with their runner's hello and go with its connection. */
#include "app/live/live.h"

#include <errno.h>
#include <stdio.h>

#include "app/live/janitor_int.h"
#include "app/live/live_int.h"
#include "app/live/recorder_int.h"
#include "app/live/sleeper_int.h"

enum { SESSION_ARENA = 16 << 20 };

int64_t mu_live_now(const struct mu_live *l)
{
    return mu_env_wall_ms(l->opts.env);
}

static struct mu_live_session *any_of(struct mu_live *l, const struct mu_id *id)
{
    return mu_map_get(&l->sessions, mu_id_bytes(id));
}

struct mu_live_session *mu_live_find(struct mu_live *l, const struct mu_id *id)
{
    struct mu_live_session *s = any_of(l, id);
    return s && !s->leaving ? s : NULL;
}

/* --- one session --- */

static struct mu_live_session *session_new(struct mu_live *l, const struct mu_execution *of)
{
    struct mu_live_session *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return NULL;
    }
    s->l = l;
    s->id = of->session;
    s->of = *of;
    s->mode = MU_MODE_TASK;
    mu_list_init(&s->in);
    mu_list_init(&s->calls);
    mu_live_control_init(s);
    mu_list_init(&s->link);
    mu_arena_init(&s->arena, SESSION_ARENA);
    if (mu_map_put(&l->sessions, mu_id_bytes(&s->id), s) < 0) {
        mu_free(s);
        return NULL;
    }
    mu_list_push(&l->all, &s->link);
    mu_metric_add(l->attached, 1);
    return s;
}

void mu_live_session_free(struct mu_live_session *s)
{
    struct mu_list *it;
    while ((it = mu_list_pop(&s->in))) {
        mu_free(MU_CONTAINER(it, struct mu_live_in, link));
    }
    mu_list_remove(&s->link);
    mu_timer_clear(&s->control.timer);
    mu_arena_fini(&s->arena);
    mu_free(s);
}

static void hang_up(struct mu_live_session *s)
{
    if (!s->leaving) {
        s->leaving = true;
        mu_metric_add(s->l->attached, -1);
        mu_live_calls_end(s, MU_E_UNAVAILABLE);
        mu_live_control_end(s);
    }
}

static void detach(struct mu_live_session *s)
{
    struct mu_live *l = s->l;
    if (s->over) {
        return;
    }
    hang_up(s);
    s->over = true;
    (void)mu_map_remove(&l->sessions, mu_id_bytes(&s->id));
    mu_live_terminals_free(s);
    if (s->task == MU_LIVE_IDLE) {
        mu_live_session_free(s);
    }
}

void mu_live_drop(struct mu_live_session *s, const char *why)
{
    struct mu_buf b;
    mu_log(MU_LOG_WARN, "runner.dropped", MU_KS("session_id", mu_id_bytes(&s->id)),
           MU_KC("reason", why));
    mu_metric_add(s->l->dropped, 1);
    mu_buf_init(&b, 1024);
    struct mu_json_w w = mu_live_begin(&b, "reconnect");
    mu_jw_kcstr(&w, "reason", why);
    mu_jw_obj_end(&w);
    (void)mu_live_send(s, &b);
    mu_buf_fini(&b);
    struct mu_live *l = s->l;
    struct mu_execution of = s->of;
    detach(s);
    mu_fleet_runner_drop(l->opts.fleet, &of);
    mu_fleet_said(l->opts.fleet, &of);
}

/* Nothing reaches its runner any more; what came in its order before that is stored all the same.
 */
static void leave(struct mu_live_session *s)
{
    bool stores = s->phase == MU_LIVE_TALKING && !mu_list_empty(&s->in) && !s->l->stopping;
    if (stores) {
        hang_up(s);
    } else {
        detach(s);
    }
}

void mu_live_next(struct mu_live_session *s)
{
    s->task = MU_LIVE_IDLE;
    mu_arena_fini(&s->arena);
    if (s->over) {
        mu_live_session_free(s);
        return;
    }
    if (s->phase != MU_LIVE_TALKING || s->l->stopping) {
        return;
    }
    if ((!s->leaving && mu_live_send_answers(s)) || mu_live_store(s)) {
        return;
    }
    if (!s->leaving && mu_sleeper_store(s)) {
        return;
    }
    struct mu_live *l = s->l;
    struct mu_execution of = s->of;
    if (s->leaving) {
        detach(s);
    } else if (mu_live_send_turn(s)) {
        return;
    }
    mu_fleet_said(l->opts.fleet, &of);
}

struct mu_live_session *mu_live_expect(struct mu_live *l, const struct mu_id *id)
{
    struct mu_execution of;
    struct mu_live_session *s = any_of(l, id);
    if (s || !mu_fleet_reachable(l->opts.fleet, id, &of)) {
        return s && !s->leaving ? s : NULL;
    }
    return session_new(l, &of);
}

/* --- what the fleet says --- */

static void state_read(struct mu_live_state *op, int result)
{
    struct mu_live_session *s = op->ctx;
    if (s->over || result < 0 || op->epoch != s->of.epoch) {
        mu_arena_fini(&op->arena);
        if (!s->over) {
            mu_live_drop(s, "its state was not read");
        }
        mu_live_next(s);
        return;
    }
    s->state = op->state;
    s->mode = op->mode;
    s->stored_seq = s->queued_seq = op->runner_seq;
    s->turn = op->turn;
    snprintf(s->org_id, sizeof s->org_id, "%s", op->org_id);
    s->want_turn = s->want_answers = true;
    mu_live_init(s, op);
    mu_arena_fini(&op->arena);
    s->phase = MU_LIVE_TALKING;
    mu_sleeper_talks(s);
    mu_live_next(s);
}

static void looked(struct mu_recorder_look *look)
{
    struct mu_live_session *s = look->ctx;
    if (s->over) {
        mu_live_next(s);
        return;
    }
    mu_live_terminals_known(s, look->terminals);
    struct mu_live_state *op = &s->op.state;
    *op = (struct mu_live_state){
        .read = {.loop = s->l->opts.core}, .id = s->id, .done = state_read, .ctx = s};
    mu_arena_init(&op->arena, SESSION_ARENA);
    if (mu_live_state_read(s->l->opts.sessions, op) < 0) {
        mu_arena_fini(&op->arena);
        mu_live_drop(s, "its state was not read");
        mu_live_next(s);
    }
}

static void greet(struct mu_live_session *s, yyjson_val *hello)
{
    mu_bytes processing = mu_json_get_bytes(hello, "processing");
    struct mu_id turn;
    if (processing.len && mu_id_parse(processing, NULL, &turn) == 0) {
        s->turn_there = s->prompted = true;
    }
    mu_live_terminals_hello(s, mu_json_get(hello, "terminals"));
    s->phase = MU_LIVE_GREETED;
    s->task = MU_LIVE_READING;
    s->look =
        (struct mu_recorder_look){.session = s->id, .epoch = s->of.epoch, .done = looked, .ctx = s};
    mu_recorder_look(s->l->recorder, &s->look);
}
static void on_hello(struct mu_live *l, const struct mu_execution *of, yyjson_val *hello)
{
    struct mu_live_session *s = any_of(l, &of->session);
    if (s) {
        detach(s); /* its runner came anew */
    }
    int64_t epoch = mu_json_get_i64(hello, "epoch", 0);
    if (l->stopping || (epoch && epoch != of->epoch)) {
        return;
    }
    s = session_new(l, of);
    if (s) {
        greet(s, hello);
    }
}

static void on_message(void *arg, const struct mu_execution *of, mu_bytes json)
{
    static const struct mu_json_limits limits = {.max_bytes = MU_LIVE_MESSAGE, .max_depth = 64};
    struct mu_live *l = arg;
    struct mu_arena a;
    yyjson_val *root;
    mu_arena_init(&a, 4 * MU_LIVE_MESSAGE);
    if (mu_json_read(&a, json, &limits, &root, NULL) == 0) {
        mu_bytes type = mu_json_get_bytes(root, "type");
        struct mu_live_session *s = any_of(l, &of->session);
        if (s && s->of.epoch != of->epoch) {
            detach(s);
            s = NULL;
        }
        if (mu_bytes_is(type, "hello")) {
            on_hello(l, of, root);
        } else if (s && mu_bytes_is(type, "gone")) {
            leave(s);
        } else if (s && !s->leaving) {
            mu_live_message(s, json);
        }
    }
    mu_arena_fini(&a);
}

static void on_terminal(void *arg, const struct mu_execution *of, unsigned terminal, int64_t offset,
                        mu_bytes bytes)
{
    struct mu_live_session *s = mu_live_find(arg, &of->session);
    if (s && s->of.epoch == of->epoch && s->phase == MU_LIVE_TALKING && !s->l->stopping) {
        mu_live_terminal(s, terminal, offset, bytes);
    }
}

static void on_did(void *arg, const struct mu_execution *of, const struct mu_id *command, bool did,
                   mu_bytes why MU_UNUSED)
{
    struct mu_live_session *s = mu_live_find(arg, &of->session);
    if (s && s->of.epoch == of->epoch) {
        mu_live_call_did(s, command, did);
    }
}

static void on_gone(void *arg, const struct mu_id *session, int64_t epoch)
{
    struct mu_live_session *s = any_of(arg, session);
    if (s && s->of.epoch <= epoch) {
        leave(s);
    }
}

static bool on_unstored(void *arg, const struct mu_id *session, int64_t epoch)
{
    const struct mu_live_session *s = any_of(arg, session);
    return s && s->of.epoch == epoch && !mu_list_empty(&s->in);
}

static void on_stopping(void *arg, const struct mu_id *session)
{
    struct mu_live_session *s = mu_live_find(arg, session);
    if (s) {
        s->state = MU_ST_STOPPING;
    }
}

static const struct mu_runner_ops runner_ops = {on_message,  on_terminal, on_did,
                                                on_stopping, on_gone,     on_unstored};

/* --- life --- */

int mu_live_new(const struct mu_live_opts *opts, struct mu_live **ret)
{
    struct mu_live *l = mu_calloc(1, sizeof *l);
    if (!l) {
        return -ENOMEM;
    }
    l->opts = *opts;
    mu_map_init(&l->sessions);
    mu_list_init(&l->all);
    mu_list_init(&l->waking);
    mu_live_gates_init(l);
    l->attached = mu_metrics_gauge(opts->metrics, "muster_live_sessions", NULL,
                                   "Sessions whose runner is connected");
    l->pending = mu_metrics_gauge(opts->metrics, "muster_gates_pending", NULL,
                                  "Gates that wait for a person");
    l->bytes = mu_metrics_counter(opts->metrics, "muster_terminal_bytes_total", NULL,
                                  "Bytes of terminals that were taken");
    l->dropped = mu_metrics_counter(opts->metrics, "muster_runner_dropped_total", NULL,
                                    "Connections of runners that were dropped for what they said");
    if (!l->attached || !l->pending || !l->bytes || !l->dropped ||
        mu_recorder_new(l, &l->recorder) < 0 || mu_janitor_new(l, &l->janitor) < 0 ||
        mu_sleeper_new(l, &l->sleeper) < 0) {
        mu_live_free(l);
        return -ENOMEM;
    }
    mu_fleet_on_runners(opts->fleet, &runner_ops, l);
    *ret = l;
    return 0;
}

void mu_live_start(struct mu_live *l)
{
    mu_janitor_start(l->janitor, -1);
    mu_sleeper_start(l->sleeper);
}

static void all_written(void *arg)
{
    struct mu_live *l = arg;
    l->stopped(l->stopped_arg);
}

void mu_live_stop(struct mu_live *l, void (*stopped)(void *arg), void *arg)
{
    l->stopping = true;
    l->stopped = stopped;
    l->stopped_arg = arg;
    mu_timer_clear(&l->timer);
    MU_LIST_EACH(it, tmp, &l->all)
    {
        struct mu_live_session *s = MU_CONTAINER(it, struct mu_live_session, link);
        mu_live_calls_end(s, MU_E_SHUTDOWN);
    }
    mu_recorder_stop(l->recorder, all_written, l);
}

void mu_live_end(struct mu_live *l)
{
    if (!l) {
        return;
    }
    l->stopping = true;
    MU_LIST_EACH(it, tmp, &l->all)
    {
        detach(MU_CONTAINER(it, struct mu_live_session, link));
    }
    mu_timer_clear(&l->timer);
    mu_recorder_end(l->recorder);
    mu_janitor_end(l->janitor);
    mu_sleeper_end(l->sleeper);
    mu_live_woken_end(l);
}

struct mu_live *mu_live_free(struct mu_live *l)
{
    if (!l) {
        return NULL;
    }
    MU_LIST_EACH(it, tmp, &l->all) /* whose last unit never came back */
    {
        mu_live_session_free(MU_CONTAINER(it, struct mu_live_session, link));
    }
    mu_recorder_free(l->recorder);
    mu_janitor_free(l->janitor);
    mu_sleeper_free(l->sleeper);
    mu_live_gates_fini(l);
    mu_map_fini(&l->sessions);
    mu_free(l);
    return NULL;
}
