/* Shared by the files of this context. */
#ifndef MU_APP_FLEET_FLEET_INT_H
#define MU_APP_FLEET_FLEET_INT_H

#include "app/fleet/fleet.h"
#include "app/fleet/needs.h"
#include "base/fair.h"
#include "base/log.h"

enum {
    MU_FLEET_TICK_MS = 250,     /* how exactly deadlines in memory are kept */
    MU_FLEET_CONFIRM_MS = 5000, /* after a reconnect: what was offered before is confirmed */
    MU_FLEET_SETTLE_MS = 30000, /* after a cancel: the worker has stopped whatever it ran */
    MU_FLEET_RETRY_MS = 500,    /* the database or memory was not there */
    MU_FLEET_OWED_MAX = 1024,
    MU_FLEET_BAD_CONNS = 4,
    MU_FLEET_EARLY_STOPS = 64,
    MU_FLEET_WORKERS_MAX = 100000,
    MU_FLEET_PINS_MAX = 50000, /* as many leave no room for names that only runs know */
    MU_DISK_FULL_PERCENT = 95, /* a worker gets nothing from then on */
};

/* What a session's assignment says, kept from its creation while it is small. */
struct mu_job_texts {
    size_t bytes;
    int64_t created_ms;
    mu_bytes prompt, title, harness, model, skill, spec, environment_id, env_snapshot;
};

enum mu_task_phase {
    MU_TASK_NEW,    /* not stored yet, and not in the map */
    MU_TASK_QUEUED, /* in a queue */
    MU_TASK_PARKED, /* nobody here may take it just now, or the database is away */
    MU_TASK_HELD,   /* a worker was chosen: work is set */
};

struct mu_work_item;

/* A session of the worker route that has not ended. */
struct mu_task {
    struct mu_post post; /* creation */
    struct mu_fleet *f;
    struct mu_heap_node node;
    struct mu_list link;  /* parked, or its worker's tasks */
    struct mu_list timed; /* in f->timed while due_ms means something */
    struct mu_id id;
    char org_id[MU_ORG_LEN + 1];
    struct mu_tenant *tenant;
    struct mu_worker *pin; /* the only one that may take it */
    struct mu_job_texts *texts;
    struct mu_session_create *create;
    enum mu_task_phase phase;
    int64_t queued_ms, queued_us /* monotonic, for the latency */, epoch, due_ms;
    int64_t until_ms;                      /* it may wait until then; 0 = as long as a new one */
    int64_t bad_conns[MU_FLEET_BAD_CONNS]; /* connections that did not confirm it */
    int tries, state;
    int64_t needs;             /* of its worker (needs.h) */
    struct mu_task_note *note; /* under way (unfit.c) */
    enum { MU_UNFIT_NO, MU_UNFIT_SAID, MU_UNFIT_PERHAPS /* by an earlier process */ } said;
    bool stubborn; /* parked for the database or for memory: room at a worker does not help it */
    bool ahead;    /* memory ran ahead of the create's commit */
    bool unborn;   /* its result is not known yet */
    bool born;     /* it was made */
    bool mapped;   /* in f->tasks */
    bool doomed;   /* it was not: the offer's answer is awaited */
    bool dead;     /* gone, but for the create's result */
    bool cancel;   /* a stop was accepted */
    struct mu_work_item *work;
    char pin_name[];
};

enum mu_task_want {
    MU_WANT_NOTHING,
    MU_WANT_REQUEUE,
    MU_WANT_STOPPED, /* ended as cancelled: nobody runs it */
    MU_WANT_FAILED,
    MU_WANT_DROP, /* it ended behind our back */
};

/* What a task needs while a worker holds it. One unit of work at a time (busy). */
struct mu_work_item {
    struct mu_task *t;
    struct mu_worker *w;
    int64_t conn; /* the connection it was sent on, or was adopted by; 0: none just now */
    struct mu_id execution;
    struct mu_digest_hex token_hash;
    char token[MU_RUN_TOKEN_LEN + 1];
    bool token_known, slot /* counts in the worker's in_flight */,
        running /* counts in the tenant's */;
    bool offered; /* committed */
    bool reading, job_read;
    bool sent;      /* the assignment was handed over */
    bool live;      /* it is known to be a live session */
    bool confirmed; /* by the worker */
    bool goes_on;   /* REQUEUE: as one that is lost and may go on from a checkpoint */
    bool may_not;   /* it was asked for, and the session may not */
    bool too_often; /* … because it lost too many runners */
    bool busy, retry /* at due_ms */;
    int want_state; /* the furthest that was reported */
    enum mu_task_want want;
    enum mu_attempt_outcome want_outcome; /* REQUEUE */
    enum mu_end_reason want_end;          /* FAILED */
    const char *want_code, *want_text /* or the reason of REQUEUE; literals */;
    bool cancel_sent;
    struct mu_runner_peer *direct; /* its runner's own connection; NULL: none */
    int64_t deadline_ms, report_ms /* the runner's last sign of life */;
    int64_t seq;      /* the last one that was reported */
    int64_t step_seq; /* what the step under way makes durable */
    int64_t late_seq; /* of an end that came while another one, or its requeue, was being stored */
    struct mu_report *end;
    struct mu_report *side; /* what its runner said about its end */
    struct mu_session_offer offer;
    struct mu_session_step step;
    struct mu_session_requeue requeue;
    struct mu_session_end ended;
    struct mu_arena end_arena;
    struct mu_session_job job;
    struct mu_env_read vars;
    struct mu_session_vars own_vars; /* of the session itself */
    struct mu_arena vars_arena;
    struct mu_job_var *var_list;
    size_t n_vars;
    /* output: what is not stored yet, output.c */
    struct mu_buf tail; /* begins at `persisted` */
    int64_t persisted, total;
    int64_t log_at[2]; /* the worker's offsets */
    struct mu_session_chunk chunk;
    struct mu_buf chunk_bytes; /* of the chunk under way */
    struct mu_timer chunk_timer;
    int64_t log_gap; /* bytes that were left out just now */
    bool chunk_busy, chunk_unwanted, over /* free it when nothing is under way */;
};

/* An execution that a worker must be told to stop, or that it may still be running. */
struct mu_owed {
    struct mu_list link;
    struct mu_execution of;
    bool slot;       /* counts in in_flight until it is settled */
    int64_t sent_ms; /* loop time of the cancel frame on the present connection; 0 = not sent */
    int64_t made_ms;
};

struct mu_worker {
    struct mu_fleet *f;
    struct mu_list free_link;   /* in f->free */
    struct mu_list here;        /* in f->here */
    struct mu_list pin_link;    /* in f->pin_check or f->pin_busy */
    struct mu_list timed;       /* in f->timed_workers */
    struct mu_list dirty;       /* in f->dirty */
    struct mu_list skills_link; /* in f->skills.workers, when it can be asked */
    struct mu_list tasks, owed;
    struct mu_fair *pinned;
    size_t n_pins;                /* tasks whose pin it is */
    struct mu_peer *peer;         /* attached or admitted */
    struct mu_admission *waiting; /* for the answer to the probe */
    int64_t conn;
    enum mu_dialect dialect;
    bool attached, ready, native, draining, anonymous, stored, took_pinned;
    int64_t offers; /* of what tasks may need */
    int64_t capacity, in_flight;
    int64_t saturated_until, backoff_ms, due_ms /* of the probe's end, … */;
    int64_t since_ms, seen_ms, conflicts, created_ms;
    size_t n_owed;
    struct mu_list known;                         /* in f->known: it has been here, or is stored */
    char org_id[MU_ORG_LEN + 1];                  /* whose sessions it takes; "" = everybody's */
    char *host;                                   /* as its org calls it; NULL: the key is that */
    char *meta, *runtimes;                        /* JSON; may be NULL */
    int64_t drain_ms, drain_until_ms, drained_ms; /* by order, stored */
    int64_t beat_ms, sequence; /* loop time and number of the last heartbeat on this connection */
    int64_t cpu, memory, disk, skew_ms;
    struct mu_id drain_command;
    unsigned changing; /* units about it that are under way */
    bool online;       /* as it was told */
    bool leaving;      /* it is being deregistered */
    bool told_skew;
    struct mu_id uid;
    char instance[40];
    char *caps, *version; /* of the present connection; may be NULL */
    char name[];          /* the map's key */
};

struct mu_fleet {
    struct mu_fleet_opts opts;
    struct mu_map tasks;   /* session id -> task */
    struct mu_map workers; /* name -> worker */
    struct mu_fair queue;
    struct mu_list parked, timed, free, pin_check, timed_workers, dirty;
    struct mu_list pin_busy; /* workers whose own tasks are of tenants that may not run more */
    struct mu_list here;     /* attached workers */
    struct mu_list known;    /* workers that are more than a name that runs gave */
    size_t n_owned;          /* workers of orgs */
    struct mu_gone {         /* installations that were deregistered a while ago */
        char name[MU_WORKER_NAME_MAX + 1], instance[40];
        int64_t at_ms;
    } gone[64];
    unsigned n_gone;
    int64_t check_ms /* next look at all workers */, purge_ms;
    struct mu_timer tick;
    struct mu_post pump_post;
    void (*freed)(void *arg);
    void *freed_arg;
    const struct mu_runner_ops *runners; /* NULL: none is listened to */
    void *runners_arg;
    bool pump_posted, started, stopping, closed, ended, told_sidecar;
    bool refit; /* a worker has room that had none: those that are parked may be for it */
    int64_t next_conn;
    size_t cached_bytes, n_connected, n_parked;
    int64_t unpark_ms;
    /* stops of sessions that memory did not know: the last ones, in a ring */
    struct mu_id early_stops[MU_FLEET_EARLY_STOPS];
    unsigned n_early_stops;
    struct mu_store *store;   /* store.c */
    struct mu_leases *leases; /* lease.c */
    struct mu_skills {
        struct mu_map map;                  /* org, credential and repository -> struct mu_known */
        struct mu_list kept, open, workers; /* workers: whose turn it is first */
        size_t n, bytes, n_open, n_waiting;
    } skills; /* skills.c */
    struct mu_metric *connected, *conflicts, *latency, *lost[4], *protocol_errors, *ignored,
        *queued, *running;
};

/* fleet.c */
int64_t mu_fleet_now(const struct mu_fleet *f); /* wall */
/* Sets when the task is looked at again (tick), wall clock free; 0 = never. */
void mu_task_due(struct mu_task *t, int64_t delay_ms);
void mu_task_no_due(struct mu_task *t);
/* Nothing is waited for any more but the time of a retry: without that it would never come. */
void mu_task_calm(struct mu_task *t);
void mu_worker_timed(struct mu_worker *w);

/* task.c */
/* By age: the order of one org's tasks. */
bool mu_task_older(const struct mu_heap_node *x, const struct mu_heap_node *y);

/* place.c: who gets what */
void mu_fleet_pump(struct mu_fleet *f);
void mu_fleet_pump_now(struct mu_fleet *f);
/* Puts a stored task where it waits; frees its worker. */
void mu_task_enqueue(struct mu_task *t);
void mu_task_park(struct mu_task *t, int64_t retry_ms);
void mu_task_unqueue(struct mu_task *t);
/* A worker can take something, or something changed for those that are parked. */
void mu_worker_update(struct mu_worker *w);
void mu_fleet_unpark(struct mu_fleet *f);

/* unfit.c: tasks that need what no worker here can do */
bool mu_worker_can(const struct mu_worker *w, int64_t needs);
/* What the worker that comes nearest lacks; 0 = somebody can take it, -1: nobody is there. */
int64_t mu_task_lacks(const struct mu_task *t);
/* Tells the people who wait for it, or takes that back: after anything that may have changed it. */
void mu_task_tell_unfit(struct mu_task *t);
/* The task goes: what is under way for it ends by itself. */
void mu_task_note_forget(struct mu_task *t);

/* task.c: making and dropping */
/* What its assignment says is read from the database from here on. */
void mu_task_forget_texts(struct mu_task *t);
/* Any loop. */
MU_MUST_USE int mu_fleet_task_new(struct mu_fleet *f, mu_bytes org_id, mu_bytes pin,
                                  struct mu_task **ret);
/* Into f->tasks, once, and to the worker that it is pinned to. -ENOMEM; MU_E_LIMIT: there is no
 * room for the name of that worker, it is only in f->tasks. */
MU_MUST_USE int mu_task_map(struct mu_task *t);
/* Out of everything it is in, and freed (when its creation is over). */
void mu_task_drop(struct mu_task *t);
void mu_fleet_task_free(struct mu_task *t);
/* work.c */
MU_MUST_USE int mu_work_begin(struct mu_task *t, struct mu_worker *w);
/* The slot, the token, the item; no unit of it may be under way. */
void mu_work_release(struct mu_task *t);
void mu_work_free_slot(struct mu_work_item *k);
void mu_work_fini(struct mu_work_item *k); /* when nothing of it is under way any more */
void mu_work_offer(struct mu_task *t);
/* Looks what is to be done next. */
void mu_work_next(struct mu_task *t);
void mu_work_retry(struct mu_task *t);
/* Back to the queue. `told`: the worker knows of it, so it is told to stop, and does not get it
 * again before that is settled. */
void mu_work_put_back(struct mu_task *t, enum mu_attempt_outcome outcome, const char *reason,
                      bool told);
/* Its worker did not return in time. */
void mu_work_lost(struct mu_task *t);
/* What ran is gone: a live session goes on elsewhere if it may, all others end. */
void mu_work_gone(struct mu_task *t, const char *reason);
void mu_work_fail(struct mu_task *t, enum mu_end_reason reason, const char *code, const char *text);
/* The worker's connection ended, or another one came. */
void mu_work_left(struct mu_task *t, bool unsent);
void mu_work_adopt(struct mu_task *t);
void mu_work_cancel_frame(struct mu_task *t);
/* Once more, without time; nothing without memory or connection: it is only faster. */
void mu_work_hurry_frame(struct mu_task *t);
void mu_task_tick(struct mu_task *t);
/* job.c: what the assignment says; sends it when the offer is committed */
void mu_work_job(struct mu_task *t);
void mu_work_send(struct mu_task *t);
/* end.c: by the report k->end, or as k->want says */
void mu_work_end(struct mu_task *t);
/* Whether the report tells of a loss rather than of an end of the agent's own. */
bool mu_report_is_loss(const struct mu_report *r);
/* output.c */
void mu_work_output_init(struct mu_work_item *k);
void mu_work_log(struct mu_task *t, const struct mu_report *r);
/* Stores what is not stored yet; false: nothing is left (or it is not wanted). */
bool mu_work_flush(struct mu_work_item *k);

/* workers.c */
MU_MUST_USE int mu_worker_get(struct mu_fleet *f, mu_bytes name, struct mu_worker **ret);
void mu_worker_forget(struct mu_worker *w); /* when nothing refers to it */
void mu_fleet_worker_free(struct mu_worker *w);
bool mu_worker_owes(const struct mu_worker *w, const struct mu_id *session);
/* The worker may be running that; it is told to stop. `slot`: it goes on counting until settled. */
void mu_worker_owe(struct mu_worker *w, const struct mu_execution *of, bool slot);
/* It is not there any more. */
void mu_worker_owes_nothing(struct mu_worker *w);
/* It reported the end of it, or does not know it. */
bool mu_fleet_worker_settle(struct mu_worker *w, const struct mu_id *session,
                            const struct mu_id *execution);
void mu_worker_send_owed(struct mu_worker *w);
void mu_worker_tick(struct mu_worker *w, int64_t now);
MU_MUST_USE int mu_worker_order(struct mu_worker *w, enum mu_order_kind kind,
                                const struct mu_execution *of, struct mu_order **ret);
void mu_worker_post(struct mu_worker *w, struct mu_order *o);
void mu_worker_ack(struct mu_worker *w, const struct mu_execution *of);
void mu_worker_dirty(struct mu_worker *w);
/* What it holds is its again: on a new connection. */
void mu_worker_adopt_all(struct mu_worker *w);
/* reports.c */
void mu_worker_hello(struct mu_worker *w, struct mu_report *r);

/* direct.c */
MU_MUST_USE int mu_direct_tell(struct mu_work_item *k, mu_bytes json); /* k->direct is set */
/* The attempt ends: so does the connection. */
void mu_direct_over(struct mu_work_item *k);

/* runners.c */
/* A report of kind RUNNER, TERMINAL or DID; false: nobody holds that attempt. */
bool mu_runner_report(struct mu_worker *w, struct mu_task *t, const struct mu_report *r);
/* Its end is stored after everything that its runner said. */
bool mu_runner_unstored(const struct mu_task *t);
void mu_runner_gone(struct mu_task *t);

/* skills.c */
void mu_skills_init(struct mu_fleet *f);
void mu_skills_stop(struct mu_fleet *f);
void mu_skills_fini(struct mu_fleet *f);
void mu_skills_tick(struct mu_fleet *f, int64_t now);
/* It said hello: whether it may be asked. */
void mu_skills_worker(struct mu_worker *w, bool can);
void mu_skills_left(struct mu_worker *w);
/* Takes r->skills; false: nobody had asked. */
bool mu_skills_answered(struct mu_worker *w, struct mu_report *r);

/* status.c: who is there, told as events */
bool mu_worker_serves(const struct mu_worker *w, const char *org_id);
enum mu_worker_status mu_worker_status(const struct mu_worker *w);
/* Something of it may be different: online, offline, drained. */
void mu_worker_status_look(struct mu_worker *w);
void mu_worker_beat(struct mu_worker *w, const struct mu_report *r);
void mu_fleet_status_tick(struct mu_fleet *f, int64_t now);
void mu_worker_know(struct mu_worker *w);
const char *mu_worker_host(const struct mu_worker *w);
struct mu_worker *mu_fleet_by_uid(struct mu_fleet *f, const struct mu_id *uid);
struct mu_worker *mu_fleet_by_host(struct mu_fleet *f, const char *org_id, mu_bytes host);
void mu_worker_view(const struct mu_worker *w, struct mu_worker_view *v);
/* The stored JSON of an event about it. */
void mu_worker_event_text(const struct mu_worker *w, enum mu_worker_status status, bool forced,
                          mu_bytes reason, char *dst, size_t size);
/* record.c: the worker's own stream. Inside a unit: its next event; the texts live until the unit's
 * end. */
MU_MUST_USE int mu_worker_event(struct mu_tx *tx, const char *stream, const char *org_id, int type,
                                int64_t at_ms, mu_bytes actor, mu_bytes data);
/* Writes one by itself. */
void mu_worker_record(struct mu_worker *w, int type);
/* purge.c */
void mu_fleet_purge_tick(struct mu_fleet *f, int64_t now);
/* change.c */
void mu_worker_told_drain(struct mu_worker *w);
/* It is shut out, and what it holds goes on elsewhere, or ends. */
void mu_worker_removed(struct mu_worker *w);
bool mu_fleet_is_gone(const struct mu_fleet *f, mu_bytes name, mu_bytes instance);
/* Everything that it holds and nobody confirmed goes back. */
void mu_worker_take_back(struct mu_worker *w);
void mu_worker_stop_rest(struct mu_worker *w);
/* workers.c: its connection ends, by us. */
void mu_worker_evict(struct mu_worker *w, int code, const char *reason);

/* store.c: rows of workers, written a few at a time */
/* In a unit: the row is there, if only as a beginning. */
MU_MUST_USE int mu_store_seed(struct mu_tx *tx, const struct mu_id *uid, mu_bytes name,
                              int64_t now_ms);
void mu_store_tick(struct mu_fleet *f);
MU_MUST_USE int mu_store_load(struct mu_fleet *f, struct mu_db *db);
MU_MUST_USE int mu_fleet_store_new(struct mu_fleet *f);
void mu_fleet_store_free(struct mu_fleet *f);

/* lease.c */
void mu_leases_tick(struct mu_fleet *f);
MU_MUST_USE int mu_fleet_leases_new(struct mu_fleet *f);
void mu_fleet_leases_free(struct mu_fleet *f);

#endif
