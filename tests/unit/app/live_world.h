/* A session whose worker and runner are driven from here. */
#ifndef TEST_LIVE_WORLD_H
#define TEST_LIVE_WORLD_H

#include "fleet_world.h"

#include <sys/stat.h>

#include "app/live/live_int.h"

static struct mu_live *live_;
static struct mu_work *pool;
static struct peer *P;
static struct order *O;
static struct mu_id ID;
static int64_t seq;
static struct mu_live_opts lopts;
static char recordings[160];

static void say_runner(const char *json)
{
    struct mu_report *r = report(P, MU_REPORT_RUNNER, O);
    r->epoch = O->of.epoch;
    r->chunk = mu_arena_dup(&r->arena, mu_str(json));
    mu_fleet_tell(fleet, r);
}

__attribute__((format(printf, 1, 2))) static void says(const char *fmt, ...)
{
    char rest[3000], json[3200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(rest, sizeof rest, fmt, ap);
    va_end(ap);
    snprintf(json, sizeof json, "{\"seq\":%lld,%s}", (long long)++seq, rest);
    say_runner(json);
}

static void says_hello(const char *more)
{
    char json[512];
    snprintf(json, sizeof json, "{\"type\":\"hello\",\"epoch\":%lld,\"lastSeq\":%lld%s}",
             (long long)O->of.epoch, (long long)seq, more);
    say_runner(json);
}

/* The next message for the runner; acknowledgements are passed over unless they are asked for. */
static const char *told(const char *type)
{
    char want[64];
    snprintf(want, sizeof want, "\"type\":\"%s\"", type);
    for (;;) {
        until(has_order, P, type);
        struct order *o = &P->orders[P->taken++ % ORDERS];
        if (o->kind == MU_ORDER_ACK || o->kind == MU_ORDER_WELCOME) {
            continue;
        }
        if (o->kind == MU_ORDER_RUNNER && strstr(o->message, want)) {
            return o->message;
        }
        bool ack = strstr(o->message, "\"type\":\"ack\"") || strstr(o->message, "terminal-ack");
        if (o->kind != MU_ORDER_RUNNER || !ack) {
            fprintf(stderr, "GOT %d %s want %s\n", o->kind, o->message, type);
            fail_msg("%s instead of %s", o->message, type);
        }
    }
}

static void acked(int64_t n)
{
    char want[64];
    snprintf(want, sizeof want, "\"seq\":%lld}", (long long)n);
    while (!strstr(told("ack"), want)) {
    }
}

static void has(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        fail_msg("no %s in %s", part, text);
    }
}

static const char *events(void)
{
    return txt(W, "SELECT type || ' ' || data FROM events WHERE stream_id = '%s' ORDER BY seq",
               ID.text);
}

static struct mu_id make(const char *spec, int mode)
{
    made = new_run(&W->alice);
    made.route = MU_ROUTE_WORKER;
    made.view = MU_VIEW_VILLAGE;
    made.mode = mode;
    made.prompt = MU_B("the task");
    made.spec = mu_str(spec);
    made.environment_id = MU_B("busybox:1");
    made.unit.loop = W->loop;
    made.done = on_made;
    is_made = false;
    assert_int_equal(mu_fleet_create(fleet, &made), 0);
    until(was_made, NULL, "a session is made");
    assert_int_equal(made_result, 0);
    return made.id;
}

static void worker_comes(void)
{
    P = come("w", true);
    mu_fleet_attach(&P->peer);
    struct mu_report *r = hello(P, 4);
    r->caps = mu_arena_dup(&r->arena, MU_B("{\"features\":[\"live\",\"harness:any\"]}"));
    mu_fleet_tell(fleet, r);
    (void)next(P, MU_ORDER_WELCOME);
}

static void starts(const char *spec, int mode)
{
    worker_comes();
    ID = make(spec, mode);
    O = assigned(P);
    assert_string_equal(O->of.session.text, ID.text);
    struct mu_report *r = report(P, MU_REPORT_CLAIMED, O);
    r->epoch = O->of.epoch;
    r->seq = 1;
    mu_fleet_tell(fleet, r);
    until_state(&ID, MU_ST_PREPARING);
    seq = 0;
}

#define TASK        "{\"live\":{\"harness\":\"claude\",\"timeoutMs\":600000}}"
#define INTERACTIVE "{\"live\":{\"harness\":\"claude\",\"policy\":{\"onExpire\":\"deny\"}}}"

static void runs(const char *spec, int mode)
{
    starts(spec, mode);
    says_hello("");
    (void)told("init");
    says("\"type\":\"boot\",\"step\":\"running\",\"providerId\":\"claude\","
         "\"workspacePath\":\"/workspace\",\"conversationId\":\"c-1\"");
    until_state(&ID, MU_ST_RUNNING);
}

static bool is_set(void *flag)
{
    return *(bool *)flag;
}

static struct mu_turn_add turn;
static bool is_added;
static int turn_result;
static void on_added(struct mu_turn_add *op, int r)
{
    turn_result = r;
    is_added = true;
}
static void prompt(const char *text)
{
    turn = (struct mu_turn_add){.unit = {.loop = W->loop},
                                .org_id = mu_str(W->alice.org_id),
                                .session = ID,
                                .prompt = mu_str(text),
                                .done = on_added};
    is_added = false;
    assert_int_equal(mu_turn_add(W->sessions, &turn), 0);
    until(is_set, &is_added, "a turn");
    assert_int_equal(turn_result, 0);
    mu_live_poke(live_, &ID);
}

/* --- the world --- */

static bool has_stopped;
static void on_stopped(void *arg)
{
    has_stopped = true;
}
static bool stopped_now(void *arg)
{
    return has_stopped;
}

/* Whoever waits for people for `sleep_ms` hibernates; 0: nobody does. */
static void live_begin_sleepy(struct world *w, int64_t sleep_ms)
{
    begin(w);
    snprintf(recordings, sizeof recordings, "%s/recordings", w->dir.path);
    assert_int_equal(mkdir(recordings, 0700), 0);
    assert_int_equal(mu_work_new(2, 100, &pool), 0);
    lopts = (struct mu_live_opts){.env = &w->env,
                                  .core = w->loop,
                                  .sessions = w->sessions,
                                  .fleet = fleet,
                                  .feed = w->feed,
                                  .writer = w->writer,
                                  .readers = w->readers,
                                  .work = pool,
                                  .metrics = w->metrics,
                                  .recordings_dir = recordings,
                                  .recording_max = 16 << 20,
                                  .recording_keep_ms = 3600000,
                                  .gate_ms = 60000,
                                  .command_ms = 200,
                                  .paused_max_ms = 3600000,
                                  .checkpoints = sleep_ms > 0,
                                  .sleep_idle_ms = sleep_ms,
                                  .sleep_waiting_ms = sleep_ms};
    assert_int_equal(mu_live_new(&lopts, &live_), 0);
}

static void live_begin(struct world *w)
{
    live_begin_sleepy(w, 0);
}

static void live_end(void)
{
    has_stopped = false;
    mu_live_stop(live_, on_stopped, NULL);
    until(stopped_now, NULL, "the recordings are written");
    mu_fleet_close(fleet);
    run_for(W, 30);
    W->writer = mu_writer_free(W->writer);
    run_for(W, 5);
    mu_fleet_end(fleet);
    mu_live_end(live_);
    run_for(W, 5);
    pool = mu_work_free(pool);
    run_for(W, 5);
    live_ = mu_live_free(live_);
    fleet = mu_fleet_free(fleet);
}

#endif
