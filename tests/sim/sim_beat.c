/* What runs in a sandbox speaks to the server by itself, with the token of its attempt, which is
 * good for nothing else and not for longer. */
#include "sim_worker_int.h"

static void replied(struct mu_reply *reply)
{
    struct exec *x = reply->ctx;
    x->replying = false;
    x->refused = x->refused || reply->result == MU_E_STALE;
}

static void runner_says(struct exec *x, const struct mu_principal *p)
{
    struct mu_report *r;
    bool side = x->phase == X_RUNNING && sim_chance(100);
    if (mu_report_new(side ? MU_REPORT_ENDED : MU_REPORT_ALIVE, &r) < 0) {
        sim_fail("simulator", "no memory");
    }
    r->session = p->run;
    r->epoch = p->run_epoch;
    if (side) {
        r->has_exit_code = r->has_output = true;
        mu_buf_add(&r->output, mu_bytes_of(sim_text_of(x, 0, x->written), (size_t)x->written));
        r->output_total = x->written;
    }
    x->reply = (struct mu_reply){.loop = sim.loops[1], .done = replied, .ctx = x};
    x->replying = true;
    r->reply = &x->reply;
    mu_fleet_tell(sim.d.fleet, r);
}

void sim_beat(void *arg)
{
    struct exec *x = arg;
    struct mu_principal p;
    if (!x->sandbox && x->beats_left-- <= 0) { /* a few times more: a token may leak */
        return;
    }
    if (sim.up && !x->replying && mu_identity_resolve(sim.d.identity, mu_str(x->token), &p) == 0) {
        const struct sim_session *s = sim_session(&x->of.session, true);
        if (strcmp(p.run.text, x->of.session.text) != 0 || p.run_epoch != x->of.epoch) {
            sim_fail("G4", "a session token is good for another attempt");
        }
        int64_t over = s->epoch > x->of.epoch ? s->epoch_at : s->seen_ended;
        if (over && sim.now - over > 3000 && sim_well_for() > 3000) {
            sim_fail("G4", "the token of %s epoch %lld is good %lld ms after that was over",
                     x->of.session.text, (long long)x->of.epoch, (long long)(sim.now - over));
        }
        if (x->sandbox && !x->refused) {
            sim.here = sim.loops[1];
            runner_says(x, &p);
            sim.here = NULL;
        }
    }
    sim_after(sim_between(SIM_BEAT_MS / 3, SIM_BEAT_MS), sim_beat, x);
}
