/* Before its session hibernates: the agent stands still, everything is put into a checkpoint, and
 * the server is told. From then on the end may come at any moment, or the word to go on. */
#include <signal.h>
#include <stdio.h>

#include "runner/live_int.h"

enum { HOLD_MS = 150000 /* a server that says nothing any more, and knows of no checkpoint */ };

static void say(struct mu_live *v, const char *error)
{
    struct mu_hold *h = &v->hold;
    struct mu_json_w *w = mu_link_begin(&v->link, "hibernate");
    mu_jw_kcstr(w, "requestId", h->request);
    mu_jw_kbool(w, "ok", !error);
    if (error) {
        mu_jw_kcstr(w, "error", error);
    } else {
        mu_jw_ki64(w, "number", h->number);
    }
    mu_link_end(&v->link);
    h->step = MU_HOLD_SAID;
    h->kept = !error;
}

void mu_hold_begin(struct mu_live *v, const char *request)
{
    struct mu_hold *h = &v->hold;
    if (v->done || v->r->procs.stopping || strcmp(request, h->request) == 0) {
        return;
    }
    snprintf(h->request, sizeof h->request, "%s", request);
    h->until = mu_mono_ms() + HOLD_MS;
    if (!v->ckpt->on || v->agent.step != MU_AGENT_READY) {
        say(v, "no checkpoint can be taken");
        return;
    }
    h->step = MU_HOLD_WANTED;
    if (v->turn.step == MU_TURN_RUNS && v->agent.spoke && !h->stopped) {
        h->stopped = true;
        mu_agent_kill(v, SIGSTOP);
    }
}

void mu_hold_end(struct mu_live *v)
{
    struct mu_hold *h = &v->hold;
    bool stopped = h->stopped;
    *h = (struct mu_hold){.step = MU_HOLD_NONE};
    if (stopped) {
        mu_agent_kill(v, SIGCONT);
    }
}

bool mu_hold_due(const struct mu_live *v)
{
    return v->hold.step == MU_HOLD_WANTED && v->turn.step != MU_TURN_OVER && !v->done;
}

void mu_hold_take(struct mu_live *v)
{
    struct mu_hold *h = &v->hold;
    h->stood = true;
    int64_t number = mu_checkpoint_now(v);
    if (!h->stood) {
        return; /* it went on meanwhile, and the checkpoint may not have all of it */
    }
    h->number = number;
    h->step = MU_HOLD_TAKING;
    if (!number) {
        say(v, "no checkpoint was taken");
    }
}

void mu_hold_told(struct mu_live *v, int64_t number, bool ok)
{
    const struct mu_hold *h = &v->hold;
    if (h->step == MU_HOLD_TAKING && number == h->number) {
        say(v, ok ? NULL : "the checkpoint was not kept");
    }
}

void mu_hold_watch(struct mu_live *v, int64_t now)
{
    const struct mu_hold *h = &v->hold;
    if (h->step == MU_HOLD_NONE) {
        return;
    }
    if ((now >= h->until && !h->kept) || v->r->procs.stopping || v->done) {
        mu_hold_end(v);
    } else if (h->step == MU_HOLD_TAKING && !v->ckpt->sending && v->ckpt->prev != h->number) {
        say(v, "the checkpoint was not stored");
    }
}
