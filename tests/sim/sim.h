/* The simulator (architecture.md 6): the shipped app and db floors, workers, viewers and callers in
 * one thread on a virtual clock. One seed is one story: which of the things that may happen next
 * does happen, how long everything takes and what breaks is drawn from it, so that a seed can be
 * told again exactly.
 *
 *   sim_loop.c    io/loop.h, its timers and io/work.h: posts, timers and jobs are steps
 *   sim_db.c      db/writer.h and db/reader.h without threads; a disk that fails
 *   sim_mem.c     the server's memory: all of it goes with a kill, none of it may stay after a stop
 *   sim_server.c  the server's start, stop and sudden death
 *   sim_link.c    the cables between workers and server, with the server's end of them
 *   sim_worker.c  workers and what runs in their sandboxes
 *   sim_runner.c  runners of live sessions in those sandboxes
 *   sim_people.c  callers; sim_view.c: viewers
 *   check_*.c     what must hold after every step
 *   sim.c         seeds, steps, the report */
#ifndef SIM_H
#define SIM_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "app/domain/domain.h"
#include "app/fleet/fleet_int.h"
#include "app/sessions/attempts.h"
#include "db/db_int.h"

enum {
    SIM_LOOPS = 2, /* the core and one that only serves connections */
    SIM_WORKERS = 3,
    SIM_SESSIONS = 64,
    SIM_EVENTS = 256, /* of one session's log whose digests are kept */
    SIM_TAIL = 64,    /* steps that are told when a seed fails */
    SIM_LINE = 200,
    SIM_ORGS = 3,         /* alice, bob, the admin */
    SIM_SLEEP_MS = 60000, /* the deadline of what sleeps */
    SIM_OLD = 99,         /* exit code of reports that must not count */
};

struct sim_rng {
    uint64_t s;
};

/* What a seed decides beforehand. */
struct sim_plan {
    int64_t horizon_ms; /* faults and callers until then; afterwards everything must come to rest */
    int64_t claim_ms, native_claim_ms, grace_ms, run_max_ms, pending_max_ms, max_tries;
    int64_t tenant_running, max_queued, default_capacity, retention_ms;
    unsigned n_workers;
    bool native[SIM_WORKERS], frail[SIM_WORKERS] /* its machine dies, not only the program */;
    int64_t capacity[SIM_WORKERS], offers[SIM_WORKERS];
    unsigned n_people, n_viewers;
    unsigned kills, restarts; /* of the server */
    int64_t gate_ms;          /* a gate's time */
    int64_t sleep_ms;         /* who waits for so long hibernates; 0 = nobody does */
    bool sleepy;              /* most sessions wait for people who are slow */
    int64_t link_ms;          /* the longest way of a message */
    int64_t work_ms;          /* the longest a sandbox works */
    unsigned live_pm;         /* of the sessions that are made */
    unsigned cut_pm, crash_pm, stall_pm, disk_pm, busy_pm, read_pm; /* per mille */
};

struct sim_server; /* sim_server.c */

struct sim {
    uint64_t seed, step;
    int64_t now; /* of the monotonic clock, ms */
    int64_t wall0;
    struct sim_rng rng, env_rng;
    struct sim_plan plan;
    struct mu_env env;
    bool calm; /* beyond the horizon: nothing breaks any more */
    bool trace;
    int64_t well_since;
    unsigned life; /* counts the server's starts; 0 = none yet */
    bool up;       /* a server runs and has recovered */
    struct mu_loop *loops[SIM_LOOPS];
    struct mu_loop *here; /* whose code runs; NULL = nobody's, or another thread's */
    bool elsewhere;       /* code of another thread runs */
    struct mu_db *db;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_work *work;
    struct mu_feed *feed;
    struct mu_domain d;
    struct mu_sweeper *sweeper;
    struct mu_metrics *metrics;
    struct mu_principal who[SIM_ORGS]; /* of this life */
    uint64_t commits, checked_commits;
    size_t batch; /* units in the last transaction */
    /* what was seen over all seeds of this process */
    struct sim_counts {
        uint64_t steps, sessions, ended, kills, restarts, cuts, crashes, commits, disk_faults,
            lost_ends, executions, replays, gates, sleeps, wakes;
    } counts;
};
extern struct sim sim;

/* --- sim.c --- */
uint64_t sim_rand(uint64_t below);
int64_t sim_between(int64_t least, int64_t most);
bool sim_chance(unsigned per_mille);
bool sim_fault(unsigned per_mille); /* the same, but never beyond the horizon */
void sim_random(struct sim_rng *r, void *dst, size_t len);
/* One line of the story. */
void sim_note(const char *fmt, ...) MU_PRINTF(1, 2);
/* An invariant does not hold: tells the seed and its last steps, and ends the program. */
MU_NORETURN void sim_fail(const char *invariant, const char *fmt, ...) MU_PRINTF(2, 3);
/* `fn` happens at the first moment after that delay; two of the same time in this order. */
void sim_after(int64_t delay_ms, void (*fn)(void *arg), void *arg);
/* Zeroed; lives until the seed's end. */
void *sim_keep(size_t size);
int64_t sim_wall(void);
/* How long the server has been up with a disk that takes what is written. */
int64_t sim_well_for(void);

/* --- sim_mem.c: what mu_alloc() gives is the server's, unless `on` --- */
bool sim_mem_lasting(bool on); /* returns what was set before */
void sim_mem_drop(void);       /* kill -9 */
size_t sim_mem_left(void);     /* blocks; each is told */

/* --- sim_loop.c --- */
bool sim_loop_ready(unsigned i);
bool sim_loop_due(unsigned i);
void sim_loop_post(unsigned i);  /* delivers one */
void sim_loop_timer(unsigned i); /* fires one */
const void *sim_loop_what(unsigned i, bool timer);
bool sim_work_ready(void);
void sim_work_step(void);
/* When something is next due by itself, at least. */
int64_t sim_loop_next(void);
void sim_loop_stall(unsigned i, int64_t ms);
void sim_loop_drain(struct mu_loop *loop); /* its end: what is posted is delivered */

/* --- sim_db.c --- */
void sim_db_open(void);  /* once a process */
void sim_db_empty(void); /* a new seed */
bool sim_writer_ready(void);
void sim_writer_step(void);
bool sim_readers_ready(void);
void sim_readers_step(void);
int64_t sim_db_next(void);
void sim_db_stall(int64_t ms);
void sim_db_killed(void);

/* --- sim_server.c --- */
void sim_server_plan(void); /* the first start, kills and restarts */
void sim_server_start(void);
void sim_server_kill(void);
void sim_server_stop(void);
void sim_server_last_stop(void);
bool sim_server_over(void); /* stopped for good */

/* --- sim_link.c --- */
struct sim_link;
struct sim_worker;
/* What a worker hears. */
struct sim_down {
    enum mu_order_kind kind;
    struct mu_execution of;
    bool at_once;
    int64_t lease_ms;
    bool live;            /* ASSIGN: with a runner */
    const char *message;  /* RUNNER */
    struct mu_id command; /* PAUSE, RESUME */
    char token[MU_RUN_TOKEN_LEN + 1];
    struct mu_execution *acked;
    struct mu_id *stop;
    size_t n_acked, n_stop;
};
/* What it says. */
struct sim_up {
    enum mu_report_kind kind;
    struct mu_execution of; /* execution empty = not said */
    int state;
    int64_t exit_code, offset;
    bool failed, cancelled, has_output, did;
    struct mu_id command;
    char *text; /* output or chunk */
    size_t len;
    struct mu_report_running *running;
    struct mu_id *unacked;
    size_t n_running, n_unacked;
    int64_t capacity;
};
struct sim_link *sim_link_dial(struct sim_worker *w);
void sim_link_say(struct sim_link *l, const struct sim_up *m); /* copies it, not what it names */
void sim_link_cut(struct sim_link *l);                         /* somewhere on the way */
void sim_link_close(struct sim_link *l);                       /* by the worker */
bool sim_link_well(const struct sim_link *l);                  /* bytes pass both ways */
int64_t sim_link_heard(const struct sim_link *l);
void sim_links_server_gone(void);  /* killed */
void sim_links_server_stops(void); /* closes all of them */

/* --- sim_worker.c --- */
void sim_workers_plan(void);
void sim_worker_opened(struct sim_worker *w, struct sim_link *l);
void sim_worker_lost(struct sim_worker *w, struct sim_link *l);
void sim_worker_hears(struct sim_worker *w, const struct sim_down *m);
const char *sim_worker_name(const struct sim_worker *w);
bool sim_worker_native(const struct sim_worker *w);
int64_t sim_worker_offers(const struct sim_worker *w);
const char *sim_worker_instance(const struct sim_worker *w);
unsigned sim_worker_process(const struct sim_worker *w);
bool sim_workers_rest(void);
void sim_workers_server_gone(void);
/* The text that an execution writes, as a function of its name. */
char sim_text_at(const struct mu_id *execution, int64_t offset);

/* --- sim_runner.c --- */
struct sim_runner;
struct sim_runner *sim_runner_new(const struct mu_execution *of);
/* Its connection: by way of its worker's, or NULL. */
void sim_runner_link(struct sim_runner *r, struct sim_link *link);
void sim_runner_hears(struct sim_runner *r, const char *text);
bool sim_runner_rests(const struct sim_runner *r); /* until the server says something else */
bool sim_runner_works(struct sim_runner *r);       /* a little; true: its task is done */

/* --- sim_people.c, sim_view.c --- */
void sim_people_plan(void);
void sim_people_server_gone(void);
bool sim_people_rest(void);
void sim_views_plan(void);
void sim_views_server_gone(void);
void sim_views_end(void);

/* --- check_rows.c: what the database says, and what was promised --- */
struct sim_session {
    struct mu_id id;
    unsigned org;
    bool acked, stop_acked, delete_asked, gone, seen;
    /* as last seen */
    int state, outcome, end_reason;
    int64_t epoch, tries, deadline_ms, stop_ms, ended_ms, queued_ms;
    char worker[24];
    int64_t last_seq, ended_seq;
    int log_state;            /* by its events */
    uint64_t log[SIM_EVENTS]; /* digest of each event, by its number */
    int64_t seen_ended;       /* virtual time at which its end was first seen */
    bool present, absent;     /* at the last look; and that was looked into */
    /* since when memory is behind, by kind; 0 = it is not */
    int64_t unowned, stuck, behind, unstopped, left;
    int64_t epoch_at; /* virtual time at which the present one was first seen */
    int64_t state_at;
    unsigned running; /* executions that go on just now, of workers that keep leases */
};
void sim_rows_begin(void);
void sim_rows_check(void);
void sim_rows_overdue(void);
void sim_rows_end(void);
struct sim_session *sim_session(const struct mu_id *id, bool make);
extern struct sim_session sim_sessions[SIM_SESSIONS];
extern unsigned sim_n_sessions;
bool sim_all_ended(void);
uint64_t sim_event_digest(int type, mu_bytes data);
bool sim_row_exists(const struct mu_id *id);
/* A promise of the fleet to a worker: what it acknowledges must be stored. */
void sim_acked(const struct mu_execution *of, int told_state, bool end);
void sim_assigned(const struct mu_execution *of, const char *worker);

/* --- check_gates.c --- */
void sim_gates_begin(void);
void sim_gates_check(void);
bool sim_gate_some(struct mu_id *ret_gate, struct mu_id *ret_session, bool pending);
void sim_turn_promised(const struct mu_id *id, const struct mu_id *session);
void sim_gate_decided(const struct mu_id *id, int status, bool repeated); /* somebody was told */
void sim_gate_acts(const struct mu_execution *of, const struct mu_id *gate);
void sim_runner_acked(const struct mu_execution *of, int64_t seq);

/* --- check_memory.c: what the fleet remembers against itself and against the rows --- */
void sim_memory_check(void);
bool sim_memory_at_rest(void);
void sim_memory_rest(void); /* at the end: nothing is left */

#endif
