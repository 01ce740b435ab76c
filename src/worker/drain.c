/* How a worker stops: signals, draining, cancelling or leaving what runs, the last messages
 * (oz-worker.md 7.2, 16). */
#include <signal.h>

#include "base/log.h"
#include "worker/worker_int.h"

enum {
    LAST_WORDS_MS = 5000, /* for the ends on their way */
    CLOSE_MS = 6000,      /* for the close of the link */
    HARD_EXTRA_MS = 20000 /* above the grace of the sandboxes: then it is left as it is */
};

static void set_phase(struct mu_worker *w, enum mu_worker_phase to)
{
    MU_CHECK(to >= w->phase);
    w->phase = to;
}

static void on_phase_timer(struct mu_timer *t);

/* --- leaving --- */

static void stop_loop(struct mu_worker *w)
{
    mu_timer_clear(&w->phase_timer);
    mu_timer_clear(&w->leave_timer);
    mu_loop_stop(w->loop);
}

static void on_leave_timer(struct mu_timer *t)
{
    struct mu_worker *w = MU_CONTAINER(t, struct mu_worker, leave_timer);
    if (!w->link.closing) {
        mu_uplink_close(w);
        if (mu_timer_set(t, CLOSE_MS) == 0) {
            mu_worker_advance(w);
            return;
        }
    }
    stop_loop(w);
}

static void leave(struct mu_worker *w)
{
    bool wait = mu_uplink_up(w) && w->n_ends > 0;
    if (wait || w->git_stopping || mu_backends_busy(w) || mu_jstore_pending(w->store) > 0) {
        return; /* on_leave_timer ends the patience */
    }
    mu_uplink_close(w);
    if (w->link.state == MU_UPLINK_DOWN) {
        stop_loop(w);
    }
}

/* --- stopping --- */

static bool can_be_left(const struct mu_attempt *t)
{
    return t->state == MU_ATTEMPT_DISPATCHED ||
           (t->state == MU_ATTEMPT_STARTED && t->w->leave_running && !t->stop_reason);
}

static void stop_all(struct mu_worker *w, bool graceful)
{
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        struct mu_attempt *t = MU_CONTAINER(it, struct mu_attempt, link);
        if (can_be_left(t)) {
            mu_attempt_detach(t);
        } else if (t->adopted && t->state == MU_ATTEMPT_PREPARING) {
            mu_attempt_free(t); /* not taken over yet: the journal still has it */
        } else {
            mu_attempt_stop(t, graceful, "graceful_shutdown");
        }
    }
}

static void begin_stopping(struct mu_worker *w, bool graceful)
{
    set_phase(w, MU_PHASE_STOPPING);
    if (mu_timer_set(&w->phase_timer, w->conf->stop_grace_ms + HARD_EXTRA_MS) < 0) {
        stop_loop(w);
    }
    stop_all(w, graceful);
}

static void git_stopped(void *arg)
{
    struct mu_worker *w = arg;
    w->git_stopping = false;
    mu_worker_advance(w);
}

static void begin_leaving(struct mu_worker *w)
{
    set_phase(w, MU_PHASE_LEAVING);
    if (w->git) { /* what a cancelled task asked for may still be fetched */
        w->git_stopping = true;
        mu_git_cache_stop(w->git, git_stopped, w);
    }
    if (mu_timer_set(&w->leave_timer, LAST_WORDS_MS) < 0) {
        stop_loop(w);
    }
}

static bool anything_runs(const struct mu_worker *w)
{
    MU_LIST_EACH(it, tmp, (struct mu_list *)(uintptr_t)&w->tasks)
    {
        if (MU_CONTAINER(it, struct mu_attempt, link)->state != MU_ATTEMPT_DISPATCHED) {
            return true;
        }
    }
    return false;
}

/* It took too long: what is left is found again by the next start. */
static void on_phase_timer(struct mu_timer *t)
{
    struct mu_worker *w = MU_CONTAINER(t, struct mu_worker, phase_timer);
    if (w->phase == MU_PHASE_DRAINING) {
        begin_stopping(w, true);
        mu_worker_advance(w);
        return;
    }
    mu_log(MU_LOG_ERROR, "worker.cut_off", MU_KI("tasks", (int64_t)w->n_tasks));
    _exit(w->exit_code ? w->exit_code : 1);
}

static void settle_once(struct mu_worker *w)
{
    if (w->phase == MU_PHASE_DRAINING && !anything_runs(w)) {
        begin_stopping(w, true);
    }
    if (w->phase == MU_PHASE_STOPPING && !anything_runs(w) && mu_jstore_pending(w->store) == 0) {
        stop_all(w, true); /* what is dispatched goes on */
        begin_leaving(w);
    }
    if (w->phase == MU_PHASE_LEAVING) {
        leave(w);
    }
}

void mu_worker_advance(struct mu_worker *w)
{
    if (w->settling || w->phase < MU_PHASE_DRAINING) {
        w->settle_again = w->settling;
        return;
    }
    w->settling = true;
    do {
        w->settle_again = false;
        settle_once(w);
    } while (w->settle_again);
    w->settling = false;
}

/* --- what makes it stop --- */

void mu_worker_drain(struct mu_worker *w, const char *reason)
{
    bool early = w->phase == MU_PHASE_STARTING;
    set_phase(w, MU_PHASE_DRAINING);
    mu_log(MU_LOG_INFO, "worker.stopping", MU_KC("reason", reason),
           MU_KI("tasks", (int64_t)w->n_tasks));
    w->leave_running = w->leave_running || early;
    if (mu_uplink_native(w)) {
        struct mu_buf buf;
        mu_buf_init(&buf, 256);
        mu_wire_drain(&buf, reason);
        mu_uplink_send(w, &buf);
        mu_buf_fini(&buf);
    }
    if (w->leave_running || w->conf->drain_timeout_ms <= 0 ||
        mu_timer_set(&w->phase_timer, w->conf->drain_timeout_ms) < 0) {
        begin_stopping(w, true);
    }
    mu_worker_advance(w);
}

static void on_signal(void *arg, int signum)
{
    struct mu_worker *w = arg;
    if (++w->signals == 1 && w->phase <= MU_PHASE_SERVING) {
        /* Ctrl-C is somebody who wants it to be over. */
        w->leave_running = w->conf->keep_running && signum != SIGINT;
        mu_worker_drain(w, signum == SIGINT ? "SIGINT" : "SIGTERM");
        return;
    }
    if (w->phase == MU_PHASE_DRAINING) {
        begin_stopping(w, false);
    } else if (w->phase == MU_PHASE_STOPPING) {
        stop_all(w, false);
    } else if (w->phase == MU_PHASE_LEAVING && w->signals > 2) {
        stop_loop(w);
    }
    mu_worker_advance(w);
}

void mu_worker_give_up(struct mu_worker *w, int exit_code)
{
    w->exit_code = w->exit_code ? w->exit_code : exit_code;
    w->link.closing = true;
    if (w->phase <= MU_PHASE_SERVING) {
        w->leave_running =
            true; /* nobody would hear of their end: the next start takes them over */
        mu_worker_drain(w, "gave up");
    } else {
        mu_worker_advance(w);
    }
}

void mu_worker_dismissed(struct mu_worker *w)
{
    w->exit_code = w->exit_code ? w->exit_code : MU_WORKER_EXIT_DEREGISTERED;
    w->link.closing = true;
    w->leave_running = false;
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        MU_CONTAINER(it, struct mu_attempt, link)->muted = true; /* they are others' now */
    }
    if (w->phase <= MU_PHASE_SERVING) {
        set_phase(w, MU_PHASE_DRAINING);
        mu_log(MU_LOG_INFO, "worker.stopping", MU_KC("reason", "deregistered"),
               MU_KI("tasks", (int64_t)w->n_tasks));
    }
    if (w->phase == MU_PHASE_DRAINING) {
        begin_stopping(w, false);
    } else if (w->phase == MU_PHASE_STOPPING) {
        stop_all(w, false);
    }
    mu_worker_advance(w);
}

int mu_worker_watch_signals(struct mu_worker *w)
{
    mu_timer_init(&w->phase_timer, w->loop, on_phase_timer);
    mu_timer_init(&w->leave_timer, w->loop, on_leave_timer);
    int r = mu_loop_signal(w->loop, SIGTERM, on_signal, w);
    return r == 0 ? mu_loop_signal(w->loop, SIGINT, on_signal, w) : r;
}
