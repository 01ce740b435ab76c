/* Seeds and steps. Usage: sim [--seed N] [--seeds N] [--trace] [--jobs N] */
#include "sim.h"

#include <getopt.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

enum {
    DRAIN_MAX_MS = 1200000,
    STEPS_MAX = 400000,
    PACE_MS = 1000,
    PACE_STEPS = 1500,
    SLEEPY_EVERY = 3,
    SLEEPY_MS = 10000,
    ENOUGH_SEEDS = 300,
    SPAN_MS = 4 * 3600 * 1000, /* the clocks of two seeds never meet: ids go on within a process */
};

struct sim sim;

/* --- chance --- */

static uint64_t next_random(struct sim_rng *r)
{
    uint64_t z = r->s += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t sim_rand(uint64_t below)
{
    return below ? next_random(&sim.rng) % below : 0;
}

int64_t sim_between(int64_t least, int64_t most)
{
    return least + (int64_t)sim_rand((uint64_t)(most - least + 1));
}

bool sim_chance(unsigned per_mille)
{
    return sim_rand(1000) < per_mille;
}

bool sim_fault(unsigned per_mille)
{
    return !sim.calm && per_mille && sim_chance(per_mille);
}

void sim_random(struct sim_rng *r, void *dst, size_t len)
{
    for (char *p = dst; len; p++, len--) {
        *p = (char)next_random(r);
    }
}

/* Maps are hashed with a key that is drawn once per process: here it is always the same. */
ssize_t __wrap_getrandom(void *dst, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *dst, size_t len, unsigned flags MU_UNUSED)
{
    memset(dst, 0x5a, len);
    return (ssize_t)len;
}

/* --- the story --- */

static char tail[SIM_TAIL][SIM_LINE];
static uint64_t n_tail;

void sim_note(const char *fmt, ...)
{
    char *line = tail[n_tail++ % SIM_TAIL];
    int n =
        snprintf(line, SIM_LINE, "%7llu %8lld  ", (unsigned long long)sim.step, (long long)sim.now);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line + n, SIM_LINE - (size_t)n, fmt, ap);
    va_end(ap);
    if (sim.trace) {
        puts(line);
    }
}

static void tell_tail(void)
{
    uint64_t from = n_tail > SIM_TAIL ? n_tail - SIM_TAIL : 0;
    for (uint64_t i = from; !sim.trace && i < n_tail; i++) {
        fprintf(stderr, "  %s\n", tail[i % SIM_TAIL]);
    }
    fprintf(stderr, "replay: sim --seed %llu --trace\n", (unsigned long long)sim.seed);
}

void sim_fail(const char *invariant, const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fprintf(stderr, "seed %llu, step %llu: %s does not hold: ", (unsigned long long)sim.seed,
            (unsigned long long)sim.step, invariant);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nthe last steps (number, virtual ms):\n");
    tell_tail();
    fflush(stderr);
    _exit(1);
}

static void on_crash(int signum)
{
    fprintf(stderr, "seed %llu, step %llu: signal %d\n", (unsigned long long)sim.seed,
            (unsigned long long)sim.step, signum);
    tell_tail();
    _exit(3);
}

/* --- memory and events of a seed --- */

struct kept {
    struct kept *next;
    _Alignas(16) char bytes[];
};
static struct kept *kept;

void *sim_keep(size_t size)
{
    struct kept *k = calloc(1, sizeof *k + size);
    if (!k) {
        sim_fail("simulator", "no memory");
    }
    k->next = kept;
    kept = k;
    return k->bytes;
}

static void drop_kept(void)
{
    while (kept) {
        struct kept *next = kept->next;
        free(kept);
        kept = next;
    }
}

struct event {
    int64_t at;
    uint64_t order;
    void (*fn)(void *arg);
    void *arg;
};
static struct event *events;
static size_t n_events, events_cap;
static uint64_t event_order;

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void sim_after(int64_t delay_ms, void (*fn)(void *arg), void *arg)
{
    if (n_events == events_cap) {
        events_cap = events_cap ? 2 * events_cap : 256;
        events = realloc(events, events_cap * sizeof *events);
        if (!events) {
            sim_fail("simulator", "no memory");
        }
    }
    size_t i = n_events++;
    struct event e = {sim.now + MU_MAX(delay_ms, 0), ++event_order, fn, arg};
    for (; i && before(&e, &events[(i - 1) / 2]); i = (i - 1) / 2) {
        events[i] = events[(i - 1) / 2];
    }
    events[i] = e;
}

static struct event pop_event(void)
{
    struct event top = events[0], e = events[--n_events];
    size_t i = 0;
    for (size_t k = 1; k < n_events; k = 2 * i + 1) {
        k += k + 1 < n_events && before(&events[k + 1], &events[k]);
        if (!before(&events[k], &e)) {
            break;
        }
        events[i] = events[k];
        i = k;
    }
    events[i] = e;
    return top;
}

/* --- time --- */

int64_t sim_wall(void)
{
    return sim.wall0 + sim.now;
}

static int64_t env_wall(const struct mu_env *env MU_UNUSED)
{
    return sim_wall();
}

static int64_t env_mono(const struct mu_env *env MU_UNUSED)
{
    return sim.now * 1000000;
}

static void env_random(const struct mu_env *env MU_UNUSED, void *dst, size_t len)
{
    sim_random(&sim.env_rng, dst, len);
}

int64_t sim_well_for(void)
{
    return sim.now - sim.well_since;
}

/* --- the plan --- */

static void plan_faults(struct sim_plan *p)
{
    bool quiet = sim_chance(150);
    p->cut_pm = quiet ? 0 : (unsigned)sim_rand(200);
    p->crash_pm = quiet ? 0 : (unsigned)sim_rand(80);
    p->stall_pm = (unsigned)sim_rand(6);
    p->disk_pm = sim_chance(400) ? (unsigned)sim_rand(30) : 0;
    p->busy_pm = sim_chance(300) ? (unsigned)sim_rand(25) : 0;
    p->read_pm = sim_chance(300) ? (unsigned)sim_rand(40) : 0;
    p->kills = sim_chance(500) ? (unsigned)sim_rand(4) : 0;
    p->restarts = sim_chance(300) ? (unsigned)sim_rand(3) : 0;
}

/* In a part of the seeds hardly anything but waiting happens: else somebody ends or needs nearly
 * every session before it sleeps. It draws nothing, so that the other seeds are what they were. */
static void plan_sleep(struct sim_plan *p)
{
    p->sleepy = p->sleep_ms && sim.seed % SLEEPY_EVERY == 0;
    if (!p->sleepy) {
        return;
    }
    p->horizon_ms += SLEEPY_MS;
    p->run_max_ms += SLEEPY_MS;
    p->live_pm = 900;
    p->retention_ms = 0;
    for (unsigned i = 0; i < SIM_WORKERS; i++) {
        p->native[i] = true;
        p->offers[i] = true;
    }
}

static void plan_seed(struct sim_plan *p)
{
    *p = (struct sim_plan){.horizon_ms = sim_between(5000, 25000),
                           .claim_ms = sim_between(2000, 5000),
                           .native_claim_ms = sim_between(2500, 6000),
                           .grace_ms = sim_between(1500, 8000),
                           .run_max_ms = sim_between(10000, 40000),
                           .pending_max_ms = sim_between(10000, 40000),
                           .max_tries = sim_between(1, 3),
                           .default_capacity = sim_between(1, 3),
                           .n_workers = (unsigned)sim_between(1, SIM_WORKERS),
                           .n_people = (unsigned)sim_between(1, 3),
                           .n_viewers = (unsigned)sim_between(0, 4),
                           .gate_ms = sim_between(500, 12000),
                           .sleep_ms = sim_chance(600) ? sim_between(100, 2500) : 0,
                           .live_pm = sim_chance(700) ? (unsigned)sim_rand(700) : 0,
                           .link_ms = sim_between(2, 250),
                           .work_ms = sim_between(100, 4000)};
    if (sim_chance(300)) { /* deadlines and ends meet */
        p->run_max_ms = sim_between(1500, 6000);
    }
    p->tenant_running = sim_chance(200) ? sim_between(1, 3) : 0;
    p->max_queued = sim_chance(200) ? sim_between(2, 5) : 0;
    p->retention_ms = sim_chance(150) ? sim_between(10000, 30000) : 0;
    for (unsigned i = 0; i < SIM_WORKERS; i++) {
        p->native[i] = sim_chance(750);
        p->frail[i] = sim_chance(300);
        p->capacity[i] = sim_between(1, 3);
        p->offers[i] = sim_chance(700);
    }
    plan_faults(p);
    plan_sleep(p);
}

/* --- steps --- */

enum step { POST0, POST1, TIMER0, TIMER1, WRITE, READ, WORK, EVENT, STEPS };
static const unsigned weight[STEPS] = {12, 12, 6, 6, 6, 6, 6, 8};

static bool is_possible(enum step s)
{
    switch (s) {
    case POST0:
    case POST1:
        return sim_loop_ready(s - POST0);
    case TIMER0:
    case TIMER1:
        return sim_loop_due(s - TIMER0);
    case WRITE:
        return sim_writer_ready();
    case READ:
        return sim_readers_ready();
    case WORK:
        return sim_work_ready();
    case EVENT:
        return n_events && events[0].at <= sim.now;
    default:
        return false;
    }
}

static void take_step(enum step s)
{
    struct event e;
    switch (s) {
    case POST0:
    case POST1:
        sim_loop_post(s - POST0);
        break;
    case TIMER0:
    case TIMER1:
        sim_loop_timer(s - TIMER0);
        break;
    case WRITE:
        sim_writer_step();
        break;
    case READ:
        sim_readers_step();
        break;
    case WORK:
        sim_work_step();
        break;
    default:
        e = pop_event();
        e.fn(e.arg);
        break;
    }
}

static enum step choose(void)
{
    unsigned total = 0, w[STEPS];
    for (enum step s = 0; s < STEPS; s++) {
        w[s] = is_possible(s) ? weight[s] : 0;
        total += w[s];
    }
    if (!total) {
        return STEPS;
    }
    uint64_t at = sim_rand(total);
    enum step s = 0;
    while (at >= w[s]) {
        at -= w[s++];
    }
    return s;
}

static void pass_time(void)
{
    int64_t next = n_events ? events[0].at : INT64_MAX;
    next = MU_MIN(next, MU_MIN(sim_loop_next(), sim_db_next()));
    if (next == INT64_MAX) {
        sim_fail("G3", "nothing will ever happen again");
    }
    sim.now = MU_MAX(next, sim.now);
}

static void mishaps(void)
{
    if (sim_fault(sim.plan.stall_pm)) {
        switch (sim_rand(3)) {
        case 0:
            sim_db_stall(sim_between(0, 2500));
            break;
        default:
            sim_loop_stall((unsigned)sim_rand(SIM_LOOPS), sim_between(0, 400));
            break;
        }
    }
    if (!sim.up || !mu_writer_healthy(sim.writer)) {
        sim.well_since = sim.now;
    }
}

/* Nothing may keep the loops busy for nothing. */
static void check_pace(void)
{
    static int64_t since;
    static uint64_t steps;
    if (sim.step == 1 || sim.now >= since + PACE_MS) {
        since = sim.now;
        steps = sim.step;
    } else if (sim.step - steps > PACE_STEPS) {
        sim_fail("G7", "%d steps in a second: something runs in circles", PACE_STEPS);
    }
}

static void one_step(void)
{
    enum step s = choose();
    if (s == STEPS) {
        pass_time();
        return;
    }
    sim.step++;
    if (sim.trace) {
        static const char *const names[STEPS] = {"post 0", "post 1", "timer 0", "timer 1",
                                                 "write",  "read",   "work",    "event"};
        const void *what = s <= TIMER1 ? sim_loop_what(s % SIM_LOOPS, s >= TIMER0) : NULL;
        sim_note(". %s %p", names[s], what);
    }
    take_step(s);
    check_pace();
    mishaps();
    sim_rows_check();
    sim_memory_check();
    if (sim_rand(4) == 0) {
        sim.now += (int64_t)sim_rand(3);
    }
}

/* --- a seed --- */

static void reset_seed(uint64_t seed)
{
    struct sim_counts counts = sim.counts;
    struct mu_db *db = sim.db;
    bool trace = sim.trace;
    drop_kept();
    n_events = 0;
    n_tail = event_order = 0;
    sim = (struct sim){.seed = seed,
                       .trace = trace,
                       .db = db,
                       .counts = counts,
                       .wall0 = INT64_C(1700000000000) + (int64_t)(seed % 10000000) * SPAN_MS,
                       .env = {env_wall, env_mono, env_random, NULL}};
    sim.rng.s = seed * UINT64_C(0xd1342543de82ef95) + 1;
    sim.env_rng.s = ~sim.rng.s;
    next_random(&sim.rng);
    sim_db_empty();
    plan_seed(&sim.plan);
    sim_rows_begin();
}

static bool at_rest(void)
{
    return sim.up && sim_all_ended() && sim_memory_at_rest() && sim_people_rest() &&
           sim_workers_rest();
}

MU_NORETURN static void not_at_rest(const char *what)
{
    sim_fail("G3", "%s: server %d, ended %d, fleet %d, people %d, workers %d", what, sim.up,
             sim_all_ended(), sim.up && sim_memory_at_rest(), sim_people_rest(),
             sim_workers_rest());
}

static void run_until(int64_t at)
{
    while (sim.now < at) {
        one_step();
    }
}

static void run_seed(uint64_t seed)
{
    reset_seed(seed);
    sim_note("plan: %u workers, %u people, %u kills, %u restarts, horizon %lld", sim.plan.n_workers,
             sim.plan.n_people, sim.plan.kills, sim.plan.restarts, (long long)sim.plan.horizon_ms);
    sim_server_plan();
    sim_workers_plan();
    sim_people_plan();
    sim_views_plan();
    run_until(sim.plan.horizon_ms);
    sim_note("calm");
    sim.calm = true;
    int64_t limit = sim.now + DRAIN_MAX_MS;
    while (!at_rest()) {
        one_step();
        if ((sim.step & 63) == 0) {
            sim_rows_overdue();
        }
        if (sim.now > limit || sim.step > STEPS_MAX) {
            not_at_rest("it does not come to rest");
        }
    }
    run_until(sim.now + 5000); /* what is posted arrives, and nothing begins anew */
    if (!at_rest()) {
        not_at_rest("it does not stay at rest");
    }
    sim_views_end();
    sim_memory_rest();
    sim_rows_end();
    sim_server_last_stop();
    while (!sim_server_over()) {
        one_step();
    }
    sim.counts.steps += sim.step;
    sim.counts.commits += sim.commits;
}

/* --- the program --- */

/* A run of many seeds in which hardly anybody sleeps or is asked tests nothing of that. */
static int judge_counts(const struct sim_counts *c, uint64_t seeds)
{
    bool enough = c->sleeps >= seeds / 8 && c->wakes >= seeds / 8 && c->gates >= seeds;
    if (seeds < ENOUGH_SEEDS || enough) {
        return 0;
    }
    fprintf(stderr,
            "too little happens: of %llu seeds at least an eighth sleeps and wakes, and one gate "
            "each\n",
            (unsigned long long)seeds);
    return 1;
}

static int run_seeds(uint64_t from, uint64_t n, uint64_t every)
{
    for (uint64_t i = from; i < from + n; i += every) {
        run_seed(i);
    }
    const struct sim_counts *c = &sim.counts;
    printf("%llu steps, %llu commits, %llu sessions (%llu ended), %llu executions, %llu kills, "
           "%llu restarts, %llu gates, %llu sleeps, %llu wakes, %llu cut links, %llu crashed "
           "workers, %llu "
           "full disks, %llu "
           "repeated "
           "requests\n",
           (unsigned long long)c->steps, (unsigned long long)c->commits,
           (unsigned long long)c->sessions, (unsigned long long)c->ended,
           (unsigned long long)c->executions, (unsigned long long)c->kills,
           (unsigned long long)c->restarts, (unsigned long long)c->gates,
           (unsigned long long)c->sleeps, (unsigned long long)c->wakes, (unsigned long long)c->cuts,
           (unsigned long long)c->crashes, (unsigned long long)c->disk_faults,
           (unsigned long long)c->replays);
    fflush(stdout);
    return judge_counts(c, (n + every - 1) / every);
}

static void catch_crashes(void)
{
#if !defined(__SANITIZE_ADDRESS__)
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (size_t i = 0; i < MU_ARRAY_LEN(signals); i++) {
        signal(signals[i], on_crash);
    }
#else
    (void)on_crash;
#endif
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"seeds", required_argument, NULL, 'n'},
                                            {"every", required_argument, NULL, 'e'},
                                            {"trace", no_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    uint64_t from = 1, n = 1, every = 1;
    bool trace = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 's') {
            from = strtoull(optarg, NULL, 10);
        } else if (c == 'n') {
            n = strtoull(optarg, NULL, 10);
        } else if (c == 'e') {
            every = MU_MAX(strtoull(optarg, NULL, 10), 1);
        } else if (c == 't') {
            trace = true;
        } else {
            fprintf(stderr, "usage: sim [--seed N] [--seeds N] [--every N] [--trace]\n");
            return 2;
        }
    }
    catch_crashes();
    sim_db_open();
    sim.trace = trace;
    return run_seeds(from, n, every);
}
