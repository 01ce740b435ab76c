/* Workers: of the native dialect as src/worker is, with a journal, leases and acknowledgements, and
 * of the vendored one, which knows nothing but the task. They take assignments, prepare, start and
 * run them, and say so; their program may be restarted, their machine may die. */
#include "sim_worker_int.h"

enum {
    REDIAL_MS = 3000,
    MARGIN_MOST_MS = 2000, /* src/worker/lease.c */
    SEQ_JUMP = 1000,       /* src/worker/adopt.c */
    PIECE = 90,
    DEAD_MS = 8000,
};

static struct sim_worker workers[SIM_WORKERS];

const char *sim_worker_name(const struct sim_worker *w)
{
    return w->name;
}

bool sim_worker_native(const struct sim_worker *w)
{
    return w->native;
}

int64_t sim_worker_offers(const struct sim_worker *w)
{
    return w->offers;
}

const char *sim_worker_instance(const struct sim_worker *w)
{
    return w->instance;
}

unsigned sim_worker_process(const struct sim_worker *w)
{
    return w->process;
}

char sim_text_at(const struct mu_id *execution, int64_t offset)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    return offset % 41 == 40 ? '\n' : letters[(execution->text[offset % 36] + offset) % 26];
}

char *sim_text_of(const struct exec *x, int64_t from, int64_t to)
{
    char *text = sim_keep((size_t)(to - from) + 1);
    for (int64_t i = from; i < to; i++) {
        text[i - from] = sim_text_at(&x->of.execution, i);
    }
    return text;
}

/* --- the witness: what really executes --- */

/* What said that its session may hibernate rests until it hears otherwise, maybe beside the next
 * attempt: its end is on the way. */
static void witness(struct exec *x)
{
    struct sim_session *s = sim_session(&x->of.session, true);
    bool acts = x->sandbox && x->w->native && !(x->runner && sim_runner_rests(x->runner));
    if (acts != x->acts) {
        x->acts = acts;
        s->running += acts ? 1 : -1U;
    }
    if (acts && s->running > 1) {
        sim_fail("G4", "session %s executes twice at once, now at %s, epoch %lld",
                 x->of.session.text, x->w->name, (long long)x->of.epoch);
    }
}

static void sandbox_begins(struct exec *x)
{
    const struct sim_session *s = sim_session(&x->of.session, true);
    x->sandbox = true;
    if (x->runner && x->w->up) {
        sim_runner_link(x->runner, x->w->link);
    }
    sim.counts.executions++;
    if (s->seen_ended && sim.now - s->seen_ended > 10000) {
        sim_fail("G2", "session %s begins to execute %lld ms after its end", x->of.session.text,
                 (long long)(sim.now - s->seen_ended));
    }
    witness(x);
}

static void sandbox_ends(struct exec *x)
{
    x->sandbox = false;
    witness(x);
    if (x->runner) {
        sim_runner_link(x->runner, NULL);
    }
}

/* --- saying --- */

static void say(struct exec *x, struct sim_up *m)
{
    m->of = x->of;
    sim_link_say(x->w->link, m);
}

static void say_kind(struct exec *x, enum mu_report_kind kind, int64_t seq, int state)
{
    struct sim_up m = {.kind = kind, .state = state, .offset = -1};
    x->of.seq = seq;
    say(x, &m);
}

static void tell_state(struct exec *x, int state)
{
    if (x->muted || x->told == state) {
        return;
    }
    x->told = state;
    x->told_seq = ++x->seq;
    if (x->w->native && x->w->up) {
        say_kind(x, MU_REPORT_STATE, x->told_seq, state);
    }
}

static void send_end(struct exec *x)
{
    struct sim_up m = {.kind = MU_REPORT_ENDED,
                       .exit_code = x->exit_code,
                       .failed = x->failed,
                       .cancelled = x->cancelled,
                       .has_output = true,
                       .offset = -1};
    m.len = (size_t)x->written;
    m.text = sim_text_of(x, 0, x->written);
    x->of.seq = x->end_seq;
    x->end_sent = true;
    say(x, &m);
    if (!x->w->native) { /* what is lost on the way now is lost for good, or sent once more */
        x->end = sim_chance(500);
    }
}

static void pump_ends(struct sim_worker *w)
{
    for (unsigned i = 0; w->up && i < w->n_execs; i++) {
        if (w->execs[i]->end && !w->execs[i]->end_sent) {
            send_end(w->execs[i]);
        }
    }
}

/* --- the life of an execution --- */

static void turn(void *arg);

static void next_turn(struct exec *x, int64_t delay)
{
    x->due = sim.now + delay;
    sim_after(delay, turn, x);
}

static void over(struct exec *x)
{
    sandbox_ends(x);
    if (x->muted) {
        x->phase = X_GONE;
        return;
    }
    x->phase = X_OVER;
    x->end_seq = ++x->seq;
    x->end = true;
    x->end_sent = false;
    pump_ends(x->w);
}

static void write_some(struct exec *x)
{
    int64_t from = x->written;
    x->written += sim_between(1, PIECE);
    if (x->w->native && x->w->up && !x->muted) {
        struct sim_up m = {.kind = MU_REPORT_LOG, .offset = from};
        m.text = sim_text_of(x, from, x->written);
        m.len = (size_t)(x->written - from);
        x->of.seq = 0;
        say(x, &m);
    }
}

/* What is frozen stands still; else it ends when its runner says so. */
static void run_live(struct exec *x)
{
    if (!x->frozen && sim_runner_works(x->runner)) {
        over(x);
    } else {
        next_turn(x, sim_between(50, 800));
    }
}

static void go_on(struct exec *x)
{
    switch (x->phase) {
    case X_PREPARING:
        if (sim_fault(30)) {
            x->failed = true;
            over(x);
            return;
        }
        x->phase = X_STARTING;
        sandbox_begins(x);
        tell_state(x, MU_ST_STARTING);
        next_turn(x, sim_between(0, 400));
        break;
    case X_STARTING:
        x->phase = X_RUNNING;
        tell_state(x, MU_ST_RUNNING);
        next_turn(x, sim_between(0, sim.plan.work_ms));
        break;
    case X_RUNNING:
        if (x->runner) {
            run_live(x);
            return;
        }
        write_some(x);
        if (sim_chance(400)) {
            x->exit_code = sim_chance(200) ? 1 : 0;
            over(x);
        } else {
            next_turn(x, sim_between(0, sim.plan.work_ms));
        }
        break;
    case X_STOPPING:
        over(x);
        break;
    default:
        break;
    }
}

static void turn(void *arg)
{
    struct exec *x = arg;
    if (x->due >= 0 && sim.now >= x->due && x->w->alive && x->phase < X_OVER) {
        x->due = -1;
        go_on(x);
    }
}

static void stop(struct exec *x, bool graceful)
{
    if (x->phase == X_PREPARING) {
        x->failed = true;
        over(x);
    } else if (x->phase < X_STOPPING) {
        x->phase = X_STOPPING;
        next_turn(x, graceful ? sim_between(0, 3000) : sim_between(0, 100));
    } else if (x->phase == X_STOPPING && !graceful) {
        next_turn(x, sim_between(0, 100));
    }
}

/* --- leases (src/worker/lease.c) --- */

static bool at_risk(const struct exec *x)
{
    return x->lease_ms > 0 && !x->held && !x->muted && x->phase < X_OVER;
}

static int64_t heard(const struct sim_worker *w)
{
    return MU_MAX(w->heard, w->link && w->up ? sim_link_heard(w->link) : 0);
}

static int64_t lease_end(const struct exec *x)
{
    int64_t least = x->lease_ms - MU_MIN(x->lease_ms / 4, (int64_t)MARGIN_MOST_MS);
    return MU_MAX(heard(x->w), x->started_at) + least;
}

static void hang_up(struct sim_worker *w);

static void watch_lease(void *arg)
{
    struct exec *x = arg;
    if (!x->w->alive || !at_risk(x)) {
        return; /* a restart watches again */
    }
    int64_t left = lease_end(x) - sim.now;
    if (left > 0) {
        sim_after(left, watch_lease, x);
        return;
    }
    sim_note("worker %s: the lease of %s is over", x->w->name, x->of.session.text);
    x->muted = true;
    stop(x, false);
    hang_up(x->w);
}

/* --- orders --- */

static struct exec *find(struct sim_worker *w, const struct mu_id *session,
                         const struct mu_id *execution)
{
    struct exec *found = NULL;
    for (unsigned i = 0; i < w->n_execs; i++) {
        struct exec *x = w->execs[i];
        if (x->phase == X_GONE || (x->phase == X_OVER && !x->end)) {
            continue;
        }
        if (execution ? strcmp(x->of.execution.text, execution->text) == 0
                      : !x->muted && x->phase < X_OVER &&
                            strcmp(x->of.session.text, session->text) == 0) {
            found = x;
        }
    }
    return found;
}

static int64_t busy(const struct sim_worker *w)
{
    int64_t n = 0;
    for (unsigned i = 0; i < w->n_execs; i++) {
        n += w->execs[i]->phase < X_OVER;
    }
    return n;
}

static void reject(struct sim_worker *w, const struct mu_execution *of)
{
    struct sim_up m = {.kind = MU_REPORT_REJECTED, .of = *of, .offset = -1};
    m.of.seq = 1;
    sim_link_say(w->link, &m);
}

static void take(struct sim_worker *w, const struct sim_down *m)
{
    if (w->n_execs == SIM_EXECS) {
        reject(w, &m->of);
        return;
    }
    struct exec *x = sim_keep(sizeof *x);
    w->execs[w->n_execs++] = x;
    x->w = w;
    x->of = m->of;
    memcpy(x->token, m->token, sizeof x->token);
    x->lease_ms = w->native ? m->lease_ms : 0;
    x->started_at = sim.now;
    x->seq = 1;
    x->beats_left = 6;
    x->runner = m->live ? sim_runner_new(&m->of) : NULL;
    say_kind(x, MU_REPORT_CLAIMED, 1, 0);
    tell_state(x, MU_ST_PREPARING);
    watch_lease(x);
    next_turn(x, sim_between(0, 1500));
    sim_after(sim_between(0, 3 * SIM_BEAT_MS), sim_beat, x);
}

static void assigned(struct sim_worker *w, const struct sim_down *m)
{
    struct exec *same = w->native ? find(w, NULL, &m->of.execution) : find(w, &m->of.session, NULL);
    if (same && same->end) {
        same->end_sent = false;
        pump_ends(w);
        return;
    }
    if (same) {
        if (!same->muted) {
            say_kind(same, MU_REPORT_CLAIMED, 1, 0);
        }
        return;
    }
    struct exec *other = find(w, &m->of.session, NULL);
    if (other && m->of.epoch < other->of.epoch) {
        return;
    }
    if (other) {
        other->muted = true;
        stop(other, false);
        sandbox_ends(other); /* the new one waits for the old one's end */
    }
    if (w->draining || busy(w) >= w->capacity) {
        reject(w, &m->of);
    } else {
        take(w, m);
    }
}

static void cancelled(struct sim_worker *w, const struct sim_down *m)
{
    struct exec *x = w->native ? find(w, NULL, &m->of.execution) : find(w, &m->of.session, NULL);
    if (!x || x->muted || x->phase >= X_OVER || (w->native && x->of.epoch != m->of.epoch)) {
        return;
    }
    x->cancelled = true;
    stop(x, !m->at_once);
}

static void acked(struct sim_worker *w, const struct mu_execution *of)
{
    struct exec *x = find(w, NULL, &of->execution);
    if (!x) {
        return;
    }
    int64_t seq = of->seq < 0 ? INT64_MAX : of->seq;
    bool end = x->end && seq >= x->end_seq;
    x->acked_seq = MU_MAX(x->acked_seq, seq);
    bool runs = at_risk(x) && x->told == MU_ST_RUNNING && x->acked_seq >= x->told_seq;
    if (end || runs) {
        sim_acked(&x->of, x->told, end);
    }
    x->held = x->held || runs;
    if (end) {
        x->end = false;
    }
}

/* The end of the worker's connection is the end of its runners', and so is its beginning. */
static void link_runners(struct sim_worker *w)
{
    for (unsigned i = 0; i < w->n_execs; i++) {
        struct exec *x = w->execs[i];
        if (x->runner && x->sandbox && !x->muted) {
            sim_runner_link(x->runner, w->up ? w->link : NULL);
        }
    }
}

static void tell_again(struct sim_worker *w)
{
    for (unsigned i = 0; i < w->n_execs; i++) {
        struct exec *x = w->execs[i];
        if (x->muted || x->phase >= X_OVER) {
            continue;
        }
        if (!w->native || x->acked_seq < 1) {
            say_kind(x, MU_REPORT_CLAIMED, 1, 0);
        }
        if (w->native && x->told && x->acked_seq < x->told_seq) {
            say_kind(x, MU_REPORT_STATE, x->told_seq, x->told);
        }
    }
    pump_ends(w);
}

static void welcomed(struct sim_worker *w, const struct sim_down *m)
{
    for (size_t i = 0; i < m->n_acked; i++) {
        acked(w, &m->acked[i]);
    }
    for (size_t i = 0; i < m->n_stop; i++) {
        struct exec *x = find(w, NULL, &m->stop[i]);
        if (x) {
            x->muted = true;
            x->end = false;
            stop(x, false);
        }
    }
    w->up = true;
    tell_again(w);
    link_runners(w);
    if (w->draining) {
        struct sim_up drain = {.kind = MU_REPORT_DRAIN, .offset = -1};
        sim_link_say(w->link, &drain);
    }
}

static void to_live(struct sim_worker *w, const struct sim_down *m)
{
    struct exec *x = find(w, NULL, &m->of.execution);
    bool there = x && x->runner && x->sandbox && x->phase < X_OVER && !x->muted;
    if (m->kind == MU_ORDER_RUNNER) {
        if (there) {
            sim_runner_hears(x->runner, m->message);
            witness(x);
        }
        return;
    }
    struct sim_up did = {.kind = MU_REPORT_DID,
                         .of = m->of,
                         .command = m->command,
                         .did = there && x->phase < X_STOPPING,
                         .offset = -1};
    if (did.did) {
        x->frozen = m->kind == MU_ORDER_PAUSE;
    }
    sim_link_say(w->link, &did);
}

void sim_worker_hears(struct sim_worker *w, const struct sim_down *m)
{
    switch (m->kind) {
    case MU_ORDER_ASSIGN:
        assigned(w, m);
        break;
    case MU_ORDER_CANCEL:
        cancelled(w, m);
        break;
    case MU_ORDER_WELCOME:
        welcomed(w, m);
        break;
    case MU_ORDER_ACK:
        acked(w, &m->of);
        break;
    case MU_ORDER_RUNNER:
    case MU_ORDER_PAUSE:
    case MU_ORDER_RESUME:
        to_live(w, m);
        break;
    default:
        break;
    }
}

/* --- the connection --- */

static void dial(void *arg)
{
    struct sim_worker *w = arg;
    if (w->alive && !w->link) {
        w->link = sim_link_dial(w);
    }
}

static void redial(struct sim_worker *w)
{
    sim_after(sim_between(50, REDIAL_MS), dial, w);
}

static void unsend(struct sim_worker *w)
{
    if (w->link) {
        w->heard = MU_MAX(w->heard, w->up ? sim_link_heard(w->link) : 0);
    }
    w->link = NULL;
    w->up = false;
    link_runners(w);
    for (unsigned i = 0; i < w->n_execs; i++) {
        w->execs[i]->end_sent = false;
    }
}

static void hang_up(struct sim_worker *w)
{
    if (w->link) {
        struct sim_link *l = w->link;
        unsend(w);
        sim_link_close(l);
        redial(w);
    }
}

void sim_worker_lost(struct sim_worker *w, struct sim_link *l)
{
    if (w->link == l) {
        unsend(w);
        redial(w);
    }
}

static void hello(struct sim_worker *w)
{
    struct sim_up m = {.kind = MU_REPORT_HELLO, .offset = -1, .capacity = w->capacity};
    m.running = sim_keep(SIM_EXECS * sizeof *m.running);
    m.unacked = sim_keep(SIM_EXECS * sizeof *m.unacked);
    for (unsigned i = 0; i < w->n_execs; i++) {
        const struct exec *x = w->execs[i];
        if (x->phase < X_OVER && !x->muted) {
            m.running[m.n_running] = (struct mu_report_running){
                .of = x->of, .state = x->told ? x->told : MU_ST_PREPARING};
            m.running[m.n_running++].of.seq = x->seq;
        } else if (x->phase == X_OVER && x->end) {
            m.unacked[m.n_unacked++] = x->of.execution;
        }
    }
    sim_link_say(w->link, &m);
}

void sim_worker_opened(struct sim_worker *w, struct sim_link *l)
{
    if (w->link != l) {
        sim_fail("simulator", "a link that nobody dialled");
    }
    w->heard = sim.now;
    if (w->native) {
        hello(w);
    } else {
        w->up = true;
        tell_again(w);
    }
}

/* --- crashes --- */

static void restart(void *arg)
{
    struct sim_worker *w = arg;
    bool forgets = w->frail && sim_chance(300);
    w->alive = true;
    w->draining = false;
    sim_note("worker %s: starts%s", w->name, forgets ? ", with an empty disk" : "");
    if (forgets) {
        snprintf(w->instance, sizeof w->instance, "i-%u-%u", w->number, w->process);
    }
    for (unsigned i = 0; i < w->n_execs; i++) {
        struct exec *x = w->execs[i];
        x->end_sent = false;
        if (forgets) {
            sandbox_ends(x);
            x->end = false;
            x->phase = X_GONE;
        } else if (x->phase < X_OVER) {
            x->seq += SEQ_JUMP;
            x->told_seq = x->seq;
            if (!x->sandbox) {
                x->failed = true;
                over(x);
            } else {
                next_turn(x, sim_between(0, 500));
                watch_lease(x);
            }
        }
    }
    dial(w);
}

static void crash(struct sim_worker *w)
{
    int64_t down = w->frail ? sim_between(0, DEAD_MS) : sim_between(0, 1500);
    sim.counts.crashes++;
    sim_note("worker %s: %s", w->name, w->frail ? "its machine dies" : "is restarted");
    if (w->link) {
        struct sim_link *l = w->link;
        unsend(w);
        sim_link_close(l);
    }
    w->alive = false;
    w->process++;
    for (unsigned i = 0; i < w->n_execs; i++) {
        struct exec *x = w->execs[i];
        /* nobody watches leases while the program is away: it is back before that matters */
        bool late = at_risk(x) && lease_end(x) <= sim.now + down;
        if (x->phase < X_OVER && (w->frail || late)) {
            sandbox_ends(x);
        }
    }
    sim_after(down, restart, w);
}

/* --- the story --- */

/* What a machine that was set back to an earlier day says, or another worker's: it must not count.
 */
static void say_old(struct sim_worker *w)
{
    struct sim_worker *from = sim_chance(500) ? w : &workers[sim_rand(sim.plan.n_workers)];
    struct exec *x = from->n_execs ? from->execs[sim_rand(from->n_execs)] : NULL;
    if (!x || !from->native || x->phase >= X_OVER || x->muted) {
        return;
    }
    struct sim_up m = {.kind = MU_REPORT_ENDED,
                       .of = x->of,
                       .exit_code = SIM_OLD,
                       .has_output = true,
                       .offset = -1};
    m.text = sim_text_of(x, 0, 1);
    m.of.seq = 9;
    if (from == w) {
        m.of.execution = mu_id_random(&sim.env);
        m.of.epoch -= 1 + (int64_t)sim_rand(2);
        m.of.epoch = MU_MAX(m.of.epoch, 0);
    }
    sim_link_say(w->link, &m);
}

static void mishap(void *arg)
{
    struct sim_worker *w = arg;
    if (sim.calm) {
        if (w->draining) { /* it says hello anew, and takes work again */
            w->draining = false;
            hang_up(w);
        }
        return;
    }
    if (w->alive && sim_fault(sim.plan.crash_pm)) {
        crash(w);
    } else if (w->link && sim_fault(sim.plan.cut_pm)) {
        sim_link_cut(w->link);
    } else if (w->native && w->up && !w->draining && sim_fault(20)) {
        struct sim_up drain = {.kind = MU_REPORT_DRAIN, .offset = -1};
        w->draining = true;
        sim_link_say(w->link, &drain);
    } else if (w->native && w->up && sim_fault(100)) {
        say_old(w);
    }
    sim_after(sim_between(1, 1000), mishap, w);
}

/* What drains is restarted, or nobody would take anything any more. */
static void refresh(void *arg)
{
    struct sim_worker *w = arg;
    if (w->alive && w->draining) {
        crash(w);
    }
    if (!sim.calm) {
        sim_after(sim_between(3000, 9000), refresh, w);
    }
}

void sim_workers_plan(void)
{
    memset(workers, 0, sizeof workers);
    for (unsigned i = 0; i < sim.plan.n_workers; i++) {
        struct sim_worker *w = &workers[i];
        w->number = i;
        snprintf(w->name, sizeof w->name, "w%u", i);
        snprintf(w->instance, sizeof w->instance, "i-%u", i);
        w->native = sim.plan.native[i];
        w->frail = sim.plan.frail[i];
        w->capacity = sim.plan.capacity[i];
        w->offers = sim.plan.offers[i];
        w->alive = true;
        sim_after(sim_between(0, 3000), dial, w);
        sim_after(sim_between(1, 1000), mishap, w);
        sim_after(sim_between(3000, 9000), refresh, w);
    }
}

/* What was asked of a server that is gone is never answered. */
void sim_workers_server_gone(void)
{
    for (unsigned i = 0; i < sim.plan.n_workers; i++) {
        for (unsigned k = 0; k < workers[i].n_execs; k++) {
            workers[i].execs[k]->replying = false;
        }
    }
}

bool sim_workers_rest(void)
{
    for (unsigned i = 0; i < sim.plan.n_workers; i++) {
        for (unsigned k = 0; k < workers[i].n_execs; k++) {
            const struct exec *x = workers[i].execs[k];
            if (x->phase < X_OVER || (x->end && workers[i].native)) {
                return false;
            }
        }
    }
    return true;
}
