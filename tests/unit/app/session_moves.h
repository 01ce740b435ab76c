/* What a single get shows of a session, and the moves that several test programs make. */
#ifndef TEST_APP_SESSION_MOVES_H
#define TEST_APP_SESSION_MOVES_H

#include "app/sessions/attempts.h"
#include "app/sessions/live.h"
#include "app_world.h"

/* --- what a single get shows --- */

struct seen {
    int calls, state, outcome, end_reason, tries;
    int64_t epoch, output_bytes, prompt_bytes, exit_code, tokens_in, tokens_out;
    bool has_exit_code, truncated;
    char id[40], org[48], head[8192], rest[8192], output[8192], message[8192], code[64],
        error[4096], provider[64], attempt_provider[64], attempt_model[64], title[64];
};

static void keep(char *dst, size_t size, mu_bytes b)
{
    snprintf(dst, size, "%.*s", MU_ARGS(b));
}

static int see(void *arg, const struct mu_session_view *v)
{
    struct seen *s = arg;
    s->calls++;
    s->state = v->state;
    s->outcome = v->outcome;
    s->end_reason = v->end_reason;
    s->tries = v->tries;
    s->epoch = v->epoch;
    s->output_bytes = v->output_bytes;
    s->prompt_bytes = v->prompt_bytes;
    s->has_exit_code = v->has_exit_code;
    s->exit_code = v->exit_code;
    s->tokens_in = v->tokens_in;
    s->tokens_out = v->tokens_out;
    s->truncated = v->output_truncated;
    keep(s->id, sizeof s->id, v->id);
    keep(s->org, sizeof s->org, v->org_id);
    keep(s->head, sizeof s->head, v->prompt_head);
    keep(s->rest, sizeof s->rest, v->prompt_rest);
    keep(s->output, sizeof s->output, v->output);
    keep(s->message, sizeof s->message, v->message_head);
    keep(s->code, sizeof s->code, v->error_code);
    keep(s->error, sizeof s->error, v->error_message);
    keep(s->provider, sizeof s->provider, v->provider);
    keep(s->attempt_provider, sizeof s->attempt_provider, v->attempt_provider);
    keep(s->attempt_model, sizeof s->attempt_model, v->attempt_model);
    keep(s->title, sizeof s->title, v->title);
    return 0;
}

static struct seen seen;

static int get(struct world *w, const struct mu_principal *who, const struct mu_id *id)
{
    struct mu_session_get op = {
        .id = *id, .admin = who->admin, .org_id = mu_str(who->org_id), .each = see, .arg = &seen};
    seen = (struct seen){.calls = 0};
    return do_get(w, &op);
}

static long live(const struct mu_principal *p)
{
    return atomic_load(&p->tenant->live);
}

/* --- moves --- */

static struct mu_session_switch a_switch(const struct mu_id *id, int64_t epoch)
{
    return (struct mu_session_switch){
        .id = *id, .epoch = epoch, .provider = "next", .model = MU_B("m\"-2")};
}

static struct mu_session_put_back a_put_back(struct world *w, const struct mu_id *id, int64_t epoch)
{
    return (struct mu_session_put_back){
        .id = *id, .epoch = epoch, .now_ms = now(w), .deadline_ms = now(w) + 1000};
}

OPERATION(mu_session_offer, do_offer, mu_session_offer, w->sessions, unit)
OPERATION(mu_session_step, do_step, mu_session_step, w->sessions, unit)
OPERATION(mu_session_requeue, do_requeue, mu_session_requeue, w->sessions, unit)

static int offer(struct world *w, const struct mu_id *id, int64_t epoch, int64_t *ret_epoch)
{
    struct mu_session_offer op = {.id = *id,
                                  .execution_id = mu_id_random(&w->env),
                                  .epoch = epoch,
                                  .worker_id = MU_B("w1"),
                                  .conn = 7,
                                  .token = mu_sha256_hex(MU_B("token")),
                                  .deadline_ms = now(w) + 60000};
    int r = do_offer(w, &op);
    if (ret_epoch) {
        *ret_epoch = op.epoch;
    }
    return r;
}

static int step(struct world *w, const struct mu_id *id, int64_t epoch, int from, int to)
{
    struct mu_session_step op = {
        .id = *id, .epoch = epoch, .deadline_ms = now(w) + 60000, .from = from, .to = to};
    return do_step(w, &op);
}

static int requeue(struct world *w, const struct mu_id *id, int64_t epoch, bool counts,
                   int64_t *ret_epoch)
{
    struct mu_session_requeue op = {.id = *id,
                                    .epoch = epoch,
                                    .deadline_ms = now(w) + 60000,
                                    .from = 30,
                                    .counts = counts,
                                    .outcome = MU_ATT_REJECTED,
                                    .reason = "It was refused"};
    int r = do_requeue(w, &op);
    if (ret_epoch) {
        *ret_epoch = op.epoch;
    }
    return r;
}

/* --- what only live sessions have --- */

OPERATION(mu_session_pause, do_pause, mu_session_pause, w->sessions, unit)
OPERATION(mu_session_resume, do_resume, mu_session_resume, w->sessions, unit)
OPERATION(mu_session_report, do_report, mu_session_report, w->sessions, unit)
OPERATION(mu_gate_ask, do_ask, mu_gate_ask, w->sessions, unit)
OPERATION(mu_gate_resolve, do_resolve, mu_gate_resolve, w->sessions, unit)
OPERATION(mu_gate_expire, do_expire, mu_gate_expire, w->sessions, unit)
OPERATION(mu_gate_delivered, do_delivered, mu_gate_delivered, w->sessions, unit)
OPERATION(mu_gate_list, do_gate_list, mu_gate_list, w->sessions, read)
OPERATION(mu_turn_add, do_turn_add, mu_turn_add, w->sessions, unit)
OPERATION(mu_turn_edit, do_turn_edit, mu_turn_edit, w->sessions, unit)
OPERATION(mu_turn_next, do_turn_next, mu_turn_next, w->sessions, unit)
OPERATION(mu_turn_list, do_turn_list, mu_turn_list, w->sessions, read)
OPERATION(mu_live_state, do_live_state, mu_live_state_read, w->sessions, read)

static int pause_it(struct world *w, const struct mu_principal *who, const struct mu_id *id)
{
    struct mu_session_pause op = {
        .id = *id, .admin = who->admin, .org_id = mu_str(who->org_id), .by = MU_B("user:me")};
    return do_pause(w, &op);
}

static int resume(struct world *w, const struct mu_principal *who, const struct mu_id *id)
{
    struct mu_session_resume op = {
        .id = *id, .admin = who->admin, .org_id = mu_str(who->org_id), .by = MU_B("user:me")};
    return do_resume(w, &op);
}

static struct mu_gate_ask a_gate(const struct mu_id *session, int64_t epoch, const char *key)
{
    return (struct mu_gate_ask){.session = *session,
                                .epoch = epoch,
                                .kind = MU_GATE_APPROVAL,
                                .action = MU_ACT_SHELL,
                                .risk = MU_RISK_MED,
                                .request_key = mu_str(key),
                                .description = MU_B("rm -r build"),
                                .context = MU_B("{\"command\":\"rm -r build\"}")};
}

static int ask(struct world *w, const struct mu_id *session, int64_t epoch, const char *key,
               struct mu_id *ret_gate)
{
    struct mu_gate_ask op = a_gate(session, epoch, key);
    int r = do_ask(w, &op);
    if (ret_gate) {
        *ret_gate = op.id;
    }
    return r;
}

static int report_running(struct world *w, const struct mu_id *id, int64_t epoch)
{
    struct mu_session_report op = {.id = *id, .epoch = epoch, .seq = 1, .running = true};
    return do_report(w, &op);
}

/* At a worker, running at epoch 1. */
static struct mu_id working_as(struct world *w, struct mu_session_create *c)
{
    c->route = MU_ROUTE_WORKER;
    c->view = MU_VIEW_VILLAGE;
    assert_int_equal(do_create(w, c), 0);
    assert_int_equal(offer(w, &c->id, 0, NULL), 0);
    assert_int_equal(step(w, &c->id, 1, 30, 60), 0);
    return c->id;
}

static struct mu_id working(struct world *w, const struct mu_principal *who)
{
    struct mu_session_create c = new_run(who);
    return working_as(w, &c);
}

static void put_chunk(struct world *w, const struct mu_id *id, int64_t epoch, int64_t pos,
                      mu_bytes bytes, bool discard)
{
    struct mu_session_chunk op = {
        .id = *id, .epoch = epoch, .pos = pos, .bytes = bytes, .discard = discard};
    int r = do_chunk(w, &op);
    assert_true(r >= 0 || r == MU_E_STALE);
}

/* --- time --- */

static int n_expired;
static bool is_swept;

static void count_expired(void *arg, mu_bytes id)
{
    n_expired++;
}
static void ignore_file(void *arg, mu_bytes id)
{
}
static void on_swept(void *arg)
{
    is_swept = true;
}

/* The sweeper runs, and sees the clock jump by `later_ms` after its start, until it was enough. */
static void sweep_until(struct world *w, int64_t later_ms, bool (*enough)(struct world *w))
{
    struct mu_sweeper *sw = NULL;
    struct mu_work *work = NULL;
    n_expired = 0;
    assert_int_equal(mu_work_new(1, 4, &work), 0);
    const struct mu_sweeper_opts o = {.sessions = w->sessions,
                                      .core = w->loop,
                                      .retention_interval_ms = 3600000,
                                      .hibernated_ms = 86400000,
                                      .work = work,
                                      .expired = count_expired,
                                      .file_gone = ignore_file};
    assert_int_equal(mu_sweeper_new(&o, &sw), 0);
    advance(w, later_ms);
    for (int i = 0; i < 1000 && !enough(w); i++) {
        run_for(w, 20);
    }
    is_swept = false;
    mu_sweeper_stop(sw, on_swept, NULL);
    while (!is_swept) {
        run_for(w, 1);
    }
    mu_sweeper_free(sw);
    mu_work_free(work);
}

static bool five_expired(struct world *w)
{
    return n_expired >= 5;
}

#endif
