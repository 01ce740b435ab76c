/* Whose attempt it is while nobody can be asked. Until the server has confirmed that an attempt
 * runs it may give the task to another worker when it hears nothing from us (oz-worker.md 5.5). So
 * such an attempt ends here first: its lease is counted from the last byte that came from the
 * server. One that is known to run is given to nobody else and goes on without a connection. */
#include "base/log.h"
#include "worker/worker_int.h"

enum {
    STEP_MS = 100,
    MARGIN_MOST_MS = 2000, /* for killing what runs, before the other one may begin */
};

/* What an end is known of, or the server knows to run, is nobody else's. */
static bool at_risk(const struct mu_attempt *t)
{
    return t->lease_ms > 0 && !t->held && !t->muted && t->state <= MU_ATTEMPT_STARTED;
}

static void expire(struct mu_attempt *t)
{
    struct mu_worker *w = t->w;
    mu_log(MU_LOG_WARN, "task.lease_expired", MU_KC("task_id", t->task_id),
           MU_KC("execution_id", t->execution_id), MU_KI("lease_ms", t->lease_ms));
    t->muted = true;
    mu_attempt_stop(t, false, "task_cancelled");
    if (w->link.ws) { /* a new one begins by saying what is there */
        mu_ws_abort(w->link.ws);
    }
}

/* A quiet server is asked in time whether it is there: each of us hears the other one then. */
static void ask(struct mu_worker *w, int64_t shortest, int64_t now)
{
    if (w->link.ws && shortest && now - MU_MAX(w->heard_ms, w->asked_ms) >= shortest / 4) {
        w->asked_ms = now;
        mu_ws_ping(w->link.ws);
    }
}

static void on_lease(struct mu_timer *timer)
{
    struct mu_worker *w = MU_CONTAINER(timer, struct mu_worker, lease_timer);
    int64_t now = mu_loop_now_ms(w->loop), shortest = 0;
    if (w->link.ws) {
        w->heard_ms = MU_MAX(w->heard_ms, mu_ws_last_in_ms(w->link.ws));
    }
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        struct mu_attempt *t = MU_CONTAINER(it, struct mu_attempt, link);
        int64_t least = t->lease_ms - MU_MIN(t->lease_ms / 4, (int64_t)MARGIN_MOST_MS);
        if (at_risk(t) && now - MU_MAX(w->heard_ms, t->started_at) >= least) {
            expire(t);
            break; /* the list may be another one now; the others are next */
        }
        if (at_risk(t)) {
            shortest = shortest ? MU_MIN(shortest, t->lease_ms) : t->lease_ms;
        }
    }
    ask(w, shortest, now);
    mu_lease_watch(w);
}

void mu_lease_watch(struct mu_worker *w)
{
    bool any = false;
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        any = any || at_risk(MU_CONTAINER(it, struct mu_attempt, link));
    }
    if (any && !mu_timer_is_set(&w->lease_timer) && mu_timer_set(&w->lease_timer, STEP_MS) < 0) {
        mu_log(MU_LOG_WARN, "task.lease_not_watched", MU_KC("worker_id", w->conf->worker_id));
    }
}

void mu_lease_init(struct mu_worker *w)
{
    mu_timer_init(&w->lease_timer, w->loop, on_lease);
}

void mu_lease_acked(struct mu_attempt *t)
{
    if (at_risk(t) && t->acked_seq >= t->told_seq && !strcmp(t->told, "running")) {
        t->held = true;
        mu_attempt_record(t); /* a restart must not forget it */
    }
}
