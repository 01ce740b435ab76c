/* Tasks that need what no connected worker can do (needs.h): they wait, and say so. */
#include <stdio.h>

#include "app/fleet/fleet_int.h"

struct mu_task_note {
    struct mu_session_note op;
    struct mu_task *t; /* NULL: it went meanwhile */
    bool says;
    char text[320];
};

bool mu_worker_can(const struct mu_worker *w, int64_t needs)
{
    return (needs & ~w->offers) == 0;
}

int64_t mu_task_lacks(const struct mu_task *t)
{
    struct mu_fleet *f = t->f;
    int64_t least = -1;
    if (t->pin) {
        return t->pin->ready && mu_worker_serves(t->pin, t->org_id) ? t->needs & ~t->pin->offers
                                                                    : -1;
    }
    MU_LIST_EACH(it, tmp, &f->here)
    {
        const struct mu_worker *w = MU_CONTAINER(it, struct mu_worker, here);
        int64_t lacks = t->needs & ~w->offers;
        bool takes =
            w->ready && (w->native || f->opts.go_workers) && mu_worker_serves(w, t->org_id);
        if (takes && (least < 0 || __builtin_popcountll((uint64_t)lacks) <
                                       __builtin_popcountll((uint64_t)least))) {
            least = lacks;
        }
        if (least == 0) {
            break;
        }
    }
    return least;
}

static void noted(struct mu_session_note *op, int result)
{
    struct mu_task_note *n = MU_CONTAINER(op, struct mu_task_note, op);
    struct mu_task *t = n->t;
    if (t) {
        t->note = NULL;
        t->said = result < 0 ? t->said
                  : n->says  ? MU_UNFIT_SAID
                             : MU_UNFIT_NO; /* else the next look tries again */
    }
    mu_free(n);
}

static void word_it(struct mu_task_note *n, const struct mu_task *t, int64_t lacks)
{
    struct mu_buf words;
    mu_buf_init(&words, 512);
    mu_needs_words(&words, lacks);
    snprintf(n->text, sizeof n->text,
             t->pin ? "The worker that config.worker_host names cannot take this run: it lacks %.*s"
                    : "No connected worker can take this run: it needs %.*s. It waits for one that "
                      "can",
             MU_ARGS(mu_buf_bytes(&words)));
    mu_buf_fini(&words);
}

static void tell(struct mu_task *t, int64_t lacks)
{
    struct mu_fleet *f = t->f;
    struct mu_task_note *n = mu_calloc(1, sizeof *n);
    if (!n) {
        return; /* the next look tries again */
    }
    n->t = t;
    n->says = lacks != 0;
    if (n->says) {
        word_it(n, t, lacks);
        mu_log(MU_LOG_WARN, "run.unschedulable", MU_KS("run_id", mu_id_bytes(&t->id)),
               MU_KC("message", n->text));
    }
    n->op = (struct mu_session_note){.unit = {.loop = f->opts.core},
                                     .id = t->id,
                                     .epoch = t->epoch,
                                     .text = n->text,
                                     .done = noted};
    if (mu_session_note(f->opts.sessions, &n->op) < 0) {
        mu_free(n);
        return;
    }
    t->note = n;
}

void mu_task_tell_unfit(struct mu_task *t)
{
    if (t->needs == 0 || t->note || t->f->closed) {
        return;
    }
    int64_t lacks = mu_task_lacks(t);
    if (lacks > 0 ? t->said != MU_UNFIT_SAID : lacks == 0 && t->said == MU_UNFIT_SAID) {
        tell(t, lacks);
    }
}

void mu_task_note_forget(struct mu_task *t)
{
    if (t->note) {
        t->note->t = NULL;
        t->note = NULL;
    }
}
