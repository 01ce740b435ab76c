/* What a single get shows of a session, and the moves that several test programs make. */
#ifndef TEST_APP_SESSION_MOVES_H
#define TEST_APP_SESSION_MOVES_H

#include "app/sessions/attempts.h"
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

static void put_chunk(struct world *w, const struct mu_id *id, int64_t epoch, int64_t pos,
                      mu_bytes bytes, bool discard)
{
    struct mu_session_chunk op = {
        .id = *id, .epoch = epoch, .pos = pos, .bytes = bytes, .discard = discard};
    int r = do_chunk(w, &op);
    assert_true(r >= 0 || r == MU_E_STALE);
}

#endif
