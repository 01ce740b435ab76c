/* The session aggregate: every change of a session is one unit of work with its events
 * (data-model.md 5). Knows no executor.
 *
 * Operations are structs that the caller embeds or takes from its request's arena; they and
 * everything they point at must live until done() ran. done() runs on op.unit.loop. */
#ifndef MU_APP_SESSIONS_SESSIONS_H
#define MU_APP_SESSIONS_SESSIONS_H

#include "app/identity/identity.h"
#include "app/sessions/model.h"
#include "base/id.h"
#include "io/work.h"

struct mu_sessions;

struct mu_sessions_opts {
    const struct mu_env *env;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_feed *feed;
    struct mu_metrics *metrics;
    struct mu_identity *identity;
    int64_t pending_max_ms, run_max_ms, retention_ms /* <= 0: keep */;
    int64_t max_queued;     /* live sessions of a tenant; 0 = no limit */
    int64_t checkpoint_max; /* bytes of checkpoints that a session keeps; 0 = none are taken */
};
MU_MUST_USE int mu_sessions_new(const struct mu_sessions_opts *opts, struct mu_sessions **ret);
struct mu_sessions *mu_sessions_free(struct mu_sessions *s);
struct mu_feed *mu_sessions_feed(struct mu_sessions *s);

/* --- create (data-model.md 5.2) --- */
struct mu_new_file { /* an input image: its object is already stored and synced under `id` */
    struct mu_id id;
    mu_bytes name, media_type;
    int64_t bytes;
    struct mu_digest_hex sha256;
};
struct mu_schedule_tick { /* a schedule's firing: recorded in the same unit */
    mu_bytes schedule_id;
    int64_t tick_ms, next_ms;
};

/* The one who acts, as events name it: "user:<uid>", "key:<id>" for an
 * issued key, "admin", or "runner" for a session token. */
enum { MU_ACTOR_LEN = 5 + MU_UID_LEN };
struct mu_actor {
    char text[MU_ACTOR_LEN + 1];
};
struct mu_actor mu_actor_of(const struct mu_principal *p);

/* A variable of one session, sealed (app/environments): kept until the session's data goes, never
 * shown. */
struct mu_sealed_var {
    struct mu_id id;
    mu_bytes name, value;
};

struct mu_first_turn {
    mu_bytes prompt, options, user; /* as in live.h */
    int source;
};

/* It begins where another session was: with copies of the rows of a checkpoint and of those that
 * that one needs. Of the same org; done() gets MU_E_NOT_FOUND: no such session or (`no_checkpoint`)
 * checkpoint. */
enum { MU_CHECKPOINT_CHAIN = 64 };
struct mu_fork {
    struct mu_id source;
    struct mu_id checkpoint; /* empty: by its number */
    int64_t number;          /* 0 = the newest */
    bool no_checkpoint;      /* out */
    /* own: ids of the rows if they are made; the agent's conversation, "" = none is known */
    struct mu_id ids[MU_CHECKPOINT_CHAIN];
    char conversation[1025];
};

struct mu_session_create {
    struct mu_unit unit; /* .loop set by the caller; the rest by mu_session_create() */
    struct mu_sessions *sessions;
    const struct mu_principal *who;
    enum mu_route_kind route;
    enum mu_source source;
    mu_bytes harness, model, name, title, skill, prompt;
    mu_bytes environment_id, conversation_id, schedule_id,
        pin_worker_id;     /* the worker that must take it; ptr NULL = none, each */
    int64_t needs;         /* of that worker: stored as it is */
    mu_bytes spec;         /* JSON: agent_config as sent and what else the run shows */
    mu_bytes env_snapshot; /* JSON or ptr NULL */
    mu_bytes body;         /* what is hashed for duplicate detection */
    mu_bytes idem_key;     /* ptr NULL = none */
    bool check_dup; /* a retry without a key: answer a run of the same body of the last 180 s */
    const struct mu_new_file *files;
    size_t n_files;
    const struct mu_schedule_tick *tick; /* NULL: not from a schedule */
    int view, mode;                      /* 0 = MU_VIEW_OZ, MU_MODE_TASK */
    int64_t limit_ms;  /* how long it may run from its preparation on; 0 = as the executor says */
    int64_t queue_ms;  /* how long it may wait for its start; 0 = as configured */
    int64_t org_limit; /* live sessions of the org that are neither hibernated nor parked, those of
                          the village and Agent Ops only: done() gets MU_E_LIMIT; 0 = no limit */
    mu_bytes parent_id, restore_id; /* ptr NULL = none, each */
    const struct mu_sealed_var *vars;
    size_t n_vars;
    const struct mu_first_turn *first_turn; /* of an interactive one; NULL = none */
    struct mu_fork *fork;                   /* NULL = it begins afresh; sets restore_id */
    /* out */
    struct mu_id id; /* the session: new, or the one that the key or the duplicate names */
    bool replayed, duplicate;
    int state, outcome; /* of it */
    struct mu_id turn;  /* the first turn's; of a replayed one as if it were new */
    int64_t now_ms, deadline_ms;
    void (*done)(struct mu_session_create *op,
                 int result); /* MU_E_MISMATCH: the key was used with another body; MU_E_EXISTS:
                                 the key was used, and its session was deleted since; MU_E_STALE:
                                 the tick was taken already */
    void *ctx;
    /* own */
    struct mu_id fresh; /* the id if it is made (a unit may run twice, so `id` is only an answer);
                           app/fleet chooses it beforehand */
    struct mu_digest hash;
    char hash_hex[33];
    mu_bytes prompt_head, prompt_rest, search;
    struct mu_buf search_buf;
    bool over_limit; /* refused unless it is a repetition */
    void *after;     /* for app/dispatch */
    void (*after_done)(struct mu_session_create *op, int result);
};
/* 0 = done() will run; else it will not: MU_E_LIMIT (too many live sessions; of a request that may
 * be a repetition done() says so), MU_E_TOO_LARGE, -ENOMEM, writer codes. */
MU_MUST_USE int mu_session_create(struct mu_sessions *s, struct mu_session_create *op);

/* Whether the stored spec is that of a session whose runner is spoken with
 * (docs/runner-protocol.md): `live` is its first member then. */
static inline bool mu_spec_is_live(mu_bytes spec)
{
    return mu_bytes_starts(spec, MU_B("{\"live\":{"));
}

/* --- reading: views are valid inside the callback, which runs on a reader thread --- */
struct mu_session_view {
    mu_bytes id, org_id, creator, harness, model, name, title, skill, environment_id,
        conversation_id, schedule_id, worker_id, pin_worker_id, parent_id;
    int view, mode, source, state, outcome, end_reason, route, tries;
    int64_t epoch, rev, queued_ms, saturated_ms, deadline_ms, created_ms, started_ms, running_ms,
        stop_ms, ended_ms, updated_ms, exit_code, tokens_in, tokens_out, api_calls, compute_ms,
        limit_ms, paused_ms /* since when, 0 = not */,
        wait_ms /* the same: paused, or for a gate */, run_deadline_ms /* not yet moved by that */;
    bool has_exit_code;
    int64_t prompt_bytes;
    mu_bytes prompt_head, prompt_rest /* single get only */, spec;
    mu_bytes message_head, error_code, error_message, session_link, provider,
        artifacts; /* ptr NULL when none */
    int64_t output_bytes;
    bool output_truncated;
    mu_bytes output; /* single get only; also the chunks so far of a live one */
    mu_bytes attempt_provider, attempt_model; /* single get only: of the live attempt */
    mu_bytes diff;                            /* single get only: JSON, or ptr NULL */
    int64_t last_event_seq;                   /* single get only */
    int64_t executions;                       /* single get only: attempts that an executor took */
};
/* A prompt whole, with a NUL behind it; it is stored in two pieces. -ENOMEM. */
MU_MUST_USE int mu_prompt_join(struct mu_arena *a, mu_bytes head, mu_bytes rest, mu_bytes *ret);

/* 0, a code that ends the read, or, in a list, 1: the page is full with this row. */
typedef int (*mu_session_view_fn)(void *arg, const struct mu_session_view *view);

struct mu_session_get {
    struct mu_read read;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id; /* whose session it must be, unless admin */
    struct mu_id id;
    mu_session_view_fn each;
    void *arg;
    void (*done)(struct mu_session_get *op, int result); /* MU_E_NOT_FOUND */
    void *ctx;
};
MU_MUST_USE int mu_session_get(struct mu_sessions *s, struct mu_session_get *op);

/* Some by their ids, whoever they are of, as a list has them; those that there are not (any more)
 * are left out. */
struct mu_session_some {
    struct mu_read read;
    const struct mu_id *ids;
    size_t n;
    mu_session_view_fn each;
    void *arg;
    size_t at; /* of each(): which of the ids */
    void (*done)(struct mu_session_some *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_some(struct mu_sessions *s, struct mu_session_some *op);

enum { MU_LIST_MAX = 200, MU_LIST_STATES = 16, MU_LIST_DEPTH = 10000 };
#define MU_VIEW_BIT(view) (1u << (view))
struct mu_session_list {
    struct mu_read read;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id;
    unsigned limit;  /* 1..MU_LIST_MAX */
    mu_bytes before; /* cursor: a bare id, or ptr NULL for the first page */
    /* filters; unset = ptr NULL or 0 */
    int states[MU_LIST_STATES];   /* stored states of live sessions */
    int outcomes[MU_LIST_STATES]; /* outcomes of ended ones */
    unsigned n_states, n_outcomes;
    int source, artifact_kind;
    mu_bytes name, model, environment_id, creator, schedule_id, skill, harness, worker_id;
    unsigned views; /* MU_VIEW_BIT()s; 0 = MU_VIEW_OZ alone */
    int64_t created_after, created_before, updated_after;
    mu_bytes words[4]; /* lower case; each must occur in title, prompt head or skill */
    unsigned n_words;
    unsigned offset; /* skips as many; MU_E_INVALID when that and limit exceed MU_LIST_DEPTH */
    bool want_total;
    mu_session_view_fn each;
    void *arg;
    void (*done)(struct mu_session_list *op, int result);
    void *ctx;
    /* out */
    unsigned total;   /* of what the filters hold, from `before` on; at most MU_LIST_DEPTH */
    bool total_exact; /* else there are more, or the time of the search was over */
    unsigned count;
    bool more;                /* another page exists (or a bounded scan stopped early, or the page
                                 was full by its bytes) */
    char next[MU_ID_LEN + 1]; /* cursor of the next page */
};
MU_MUST_USE int mu_session_list(struct mu_sessions *s, struct mu_session_list *op);

/* The stored files of a session, oldest first. */
struct mu_session_file {
    mu_bytes id, name, media_type, sha256;
    int64_t bytes, created_ms;
};
struct mu_session_files {
    struct mu_read read;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id;
    struct mu_id id;
    int (*each)(void *arg, const struct mu_session_file *f); /* reader thread */
    void *arg;
    void (*done)(struct mu_session_files *op, int result); /* MU_E_NOT_FOUND */
    void *ctx;
    /* out */
    int64_t output_bytes, ended_ms; /* of the session */
    bool allowed;                   /* own */
};
MU_MUST_USE int mu_session_files(struct mu_sessions *s, struct mu_session_files *op);

/* Events after a number, in order, at most `limit`. */
struct mu_session_event {
    int64_t seq, at_ms;
    int type;
    mu_bytes data, actor; /* actor: "" = unknown */
};
struct mu_session_events {
    struct mu_read read;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t after;
    unsigned limit;
    int (*each)(void *arg, const struct mu_session_event *e); /* reader thread */
    void *arg;
    void (*done)(struct mu_session_events *op, int result);
    void *ctx;
    /* out */
    int64_t first_seq, last_seq; /* kept range of the stream; 0,0 = no such stream */
    unsigned count;
};
MU_MUST_USE int mu_session_events(struct mu_sessions *s, struct mu_session_events *op);

/* --- cancel, delete --- */
struct mu_session_cancel {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id;
    mu_bytes by, reason; /* for the log: an actor, and a text of people of at most 1,000 characters;
                            ptr NULL = none, each */
    struct mu_id id;
    /* out */
    bool changed; /* this call ended it or began to */
    int state, route;
    char org[MU_ORG_LEN + 1];
    int64_t now_ms;
    void (*done)(struct mu_session_cancel *op, int result); /* MU_E_NOT_FOUND; a session that ended
                                                               already is success, unchanged */
    void *ctx;
    void *after;
    void (*after_done)(struct mu_session_cancel *op, int result);
};
MU_MUST_USE int mu_session_cancel(struct mu_sessions *s, struct mu_session_cancel *op);

/* Removes an ended session and all that belongs to it but the stored objects, which it names.
 * MU_E_NOT_FOUND; MU_E_CONFLICT while it has not ended. */
enum {
    MU_SESSION_FILES = 96,         /* input images and what attempts left */
    MU_RUN_FILES = 64,             /* of those, left by attempts … */
    MU_RUN_FILE_BYTES = 256 << 20, /* … and their bytes together */
};
struct mu_session_delete {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id;
    struct mu_id id;
    /* out: the objects of its files, for the caller to remove */
    struct mu_id files[MU_SESSION_FILES];
    unsigned n_files;
    void (*done)(struct mu_session_delete *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_delete(struct mu_sessions *s, struct mu_session_delete *op);

/* --- moves of the executor (app/dispatch); all fenced by epoch --- */

/* One reservation of quota (data-model.md 3.7, 5.7), taken in the unit of the claim. */
struct mu_quota_take {
    const char *provider;
    char scope[MU_ORG_LEN + 1]; /* org id, or "*" */
    int64_t limit;              /* slots; 0 = no quota */
    int64_t hold_until_ms;      /* frees itself then if nobody settles */
    int64_t next_free_ms;       /* out, when there was none */
};

/* QUEUED -> RUNNING with a new attempt, the prompt read in the same unit. MU_E_STALE: the session
 * moved meanwhile; MU_E_SATURATED: no quota (quota.next_free_ms). */
struct mu_session_claim {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch; /* in: the one known; out: the new one */
    const char *provider;
    mu_bytes model;
    bool waited; /* its row shows that it waits: forget that */
    struct mu_quota_take quota;
    int64_t now_ms, deadline_ms, lease_ms;
    struct mu_id execution_id;
    struct mu_arena arena; /* initialised by the caller; the texts below live in it */
    mu_bytes prompt, spec, conversation_id; /* out */
    void (*done)(struct mu_session_claim *op, int result);
    void *ctx;
    char event[256];
};
MU_MUST_USE int mu_session_claim(struct mu_sessions *s, struct mu_session_claim *op);

/* What becomes of a quota reservation: kept until `free_ms` (success: completion + window; 0 =
 * given back). */
struct mu_quota_settle {
    const char *provider; /* NULL = none */
    char scope[MU_ORG_LEN + 1];
    int64_t free_ms;
};

/* The next candidate of a running attempt: takes its quota, gives back the former one's.
 * MU_E_SATURATED; MU_E_STALE, also when a stop was accepted meanwhile. */
struct mu_session_switch {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch, now_ms;
    const char *provider;
    mu_bytes model;
    struct mu_quota_settle former; /* of the candidate before */
    struct mu_quota_take quota;
    void (*done)(struct mu_session_switch *op, int result);
    void *ctx;
    char event[256];
};
MU_MUST_USE int mu_session_switch(struct mu_sessions *s, struct mu_session_switch *op);

/* Running -> queued without a loss (data-model.md 5.4 [put_back]): saturation, shutdown. */
struct mu_session_put_back {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch;        /* in; out: the new one */
    int64_t saturated_ms; /* in: now when saturated, 0 otherwise; out: the first saturation or 0 */
    int64_t now_ms, deadline_ms;
    struct mu_quota_settle quota;
    const char *message; /* shown while it waits; NULL */
    void (*done)(struct mu_session_put_back *op, int result);
    void *ctx;
    char event[512];
};
MU_MUST_USE int mu_session_put_back(struct mu_sessions *s, struct mu_session_put_back *op);

/* The message of a session that waits for capacity: this, then the time. */
#define MU_WAITING_TEXT "Waiting for provider capacity until "

/* Queued: remembers the first saturation (the total wait is counted from it). MU_E_STALE when it
 * moved. */
struct mu_session_saturate {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch, now_ms, deadline_ms;
    const char *message;
    int64_t saturated_ms; /* out */
    void (*done)(struct mu_session_saturate *op, int result);
    void *ctx;
    char event[512];
};
MU_MUST_USE int mu_session_saturate(struct mu_sessions *s, struct mu_session_saturate *op);

/* Output so far, append-only: `pos` is the offset of `bytes` in the attempt's output. MU_E_STALE:
 * the attempt lost its lease, nothing was stored or dropped. */
struct mu_session_chunk {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch, pos, now_ms;
    mu_bytes bytes;
    bool discard; /* first drop what is stored (a fallback threw the partial text away) */
    void (*done)(struct mu_session_chunk *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_chunk(struct mu_sessions *s, struct mu_session_chunk *op);

/* The end (data-model.md 5.5): also of a session that is still queued (epoch as known). A session
 * whose stop was accepted ends as cancelled whatever is asked here. MU_E_STALE. */
struct mu_session_end {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch, now_ms;
    int state; /* MU_ST_COMPLETED, _FAILED, _TIMED_OUT */
    enum mu_outcome outcome;
    enum mu_end_reason reason;
    bool has_exit_code;
    int64_t exit_code, tokens_in, tokens_out;
    const char *error_code; /* NULL = none */
    mu_bytes error_message; /* without a code: shown when there is no output */
    mu_bytes output;        /* whole, already cut to 8 MiB; ptr NULL: keep the chunks as they are */
    int64_t output_bytes;
    bool output_truncated;
    mu_bytes session_link;   /* http(s), or ptr NULL: the stored one stays */
    mu_bytes attempt_reason; /* kept with the attempt; ptr NULL = none */
    mu_bytes provider;       /* JSON for the run object, or ptr NULL */
    mu_bytes artifacts;      /* JSON array in the SDK's shape, or ptr NULL */
    struct mu_artifact_row { /* at most 100 */
        struct mu_id id;
        int kind;
        struct mu_digest_hex dedupe;
        mu_bytes data;
    } * artifact_rows;
    size_t n_artifacts;
    struct mu_quota_settle quota;
    char org_id[MU_ORG_LEN + 1];
    bool by_runner; /* its report; else the server's own verdict */
    /* out */
    int got_state, got_outcome, got_reason;
    bool got_stop; /* a stop had been accepted */
    void (*done)(struct mu_session_end *op, int result);
    void *ctx;
    struct mu_buf event;
    int why_not; /* own: the answer, while the quota of a stale report is settled */
};
MU_MUST_USE int mu_session_end(struct mu_sessions *s, struct mu_session_end *op);

/* --- start-up, sweeps: core loop --- */
struct mu_live_row {
    mu_bytes id, org_id, harness, model, pin_worker_id;
    int state, route, tries;
    int64_t queued_ms, epoch, deadline_ms, saturated_ms, needs;
};
/* Every live session in order of deadline, blocking (start-up, before the threads serve). */
MU_MUST_USE int mu_sessions_each_live(struct mu_db *db,
                                      int (*each)(void *arg, const struct mu_live_row *row),
                                      void *arg);
/* Start-up: puts a session of an earlier run of the server back into the queue, or ends it: state
 * 60 -> requeued with tries + 1 (or failed, `interrupted`, at max_tries), 80 -> ended as cancelled.
 * Through the writer like any unit. */
struct mu_session_recover {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    char org_id[MU_ORG_LEN + 1];
    int state, tries, max_tries;
    int64_t epoch, now_ms;
    bool requeued; /* out; epoch and tries are the new ones then */
    void (*done)(struct mu_session_recover *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_recover(struct mu_sessions *s, struct mu_session_recover *op);

/* The skills that an org's newest 2,000 sessions name, each session's by itself, in no order. */
struct mu_session_skills {
    struct mu_read read;
    mu_bytes org_id;
    int (*each)(void *arg, mu_bytes skill, int64_t created_ms); /* reader thread */
    void *arg;
    void (*done)(struct mu_session_skills *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_skills(struct mu_sessions *s, struct mu_session_skills *op);

/* Sessions past their deadline, once: each is ended (TIMED_OUT) and told to `expired` on the core
 * loop. Call every second. */
struct mu_sweeper;
struct mu_sweeper_opts {
    struct mu_sessions *sessions;
    struct mu_loop *core;
    int64_t retention_interval_ms;
    int64_t hibernated_ms; /* how long a session that ran before and finds no worker waits for
                              people (76); 0 = it ends */
    struct mu_work *work;  /* file_gone() runs there */
    void (*expired)(void *arg, mu_bytes session_id);
    void (*file_gone)(void *arg, mu_bytes file_id); /* a purged session's stored object; blocking */
    void *arg;
};
/* Deadlines every second, the reconciler every minute (metric muster_orphans, always 0), retention
 * after 10 s and then every interval in batches. Core loop. */
MU_MUST_USE int mu_sweeper_new(const struct mu_sweeper_opts *opts, struct mu_sweeper **ret);
/* Stops; `stopped` runs on the core loop when nothing of it is under way. */
void mu_sweeper_stop(struct mu_sweeper *w, void (*stopped)(void *arg), void *arg);
struct mu_sweeper *mu_sweeper_free(struct mu_sweeper *w);

#endif
