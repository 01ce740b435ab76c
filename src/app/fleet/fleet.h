/* The fleet (oz-worker.md 2.6, 5, 16): which workers are connected, which sessions wait for one,
 * who holds which attempt and for how long. Knows no socket and no dialect: a worker's connection
 * is a peer that takes orders and makes reports.
 *
 * Everything lives on the core loop; calls are for the core loop unless marked "any loop". The
 * database decides every move of a session, memory proposes (sessions/attempts.h). */
#ifndef MU_APP_FLEET_FLEET_H
#define MU_APP_FLEET_FLEET_H

#include <stdatomic.h>

#include "app/environments/environments.h"
#include "app/fleet/skills.h"
#include "app/sessions/attempts.h"

struct mu_fleet;
struct mu_worker;
struct mu_execution;

enum mu_dialect { MU_DIALECT_UNKNOWN, MU_DIALECT_VENDORED, MU_DIALECT_WARP, MU_DIALECT_NATIVE };
const char *mu_dialect_name(enum mu_dialect d);

struct mu_fleet_opts {
    const struct mu_env *env;
    struct mu_loop *core;
    struct mu_sessions *sessions;
    struct mu_identity *identity;
    struct mu_environments *environments; /* NULL: sessions have no variables */
    struct mu_readers *readers;
    struct mu_writer *writer;
    struct mu_feed *feed;
    struct mu_metrics *metrics;
    int64_t claim_timeout_ms, native_claim_timeout_ms; /* frame written -> confirmed */
    int64_t grace_ms;                                  /* a lost worker may return */
    int64_t default_capacity; /* of a worker that announces none; 0 = no limit */
    int64_t run_max_ms, pending_max_ms;
    int64_t max_tries;            /* executions of one session */
    int64_t tenant_max_running;   /* 0 = no limit */
    int64_t heartbeat_timeout_ms; /* a worker that is silent for so long is offline; 0 = 30 s */
    int64_t check_ms;             /* how often that is looked at; 0 = 5 s */
    int64_t max_org_workers, max_workers; /* that enrolled, of one org, in all; 0 = 10, 1000 */
    int64_t load_percent;                 /* a worker beyond that is chosen after others; 0 = 80 */
    int64_t hibernated_ms; /* a session that lost its sandbox too often waits so long for people; 0
                              = it ends */
    int64_t drain_timeout_ms; /* of a drain that says none; 0 = for ever */
    enum mu_dialect dialect;  /* of workers that are not native; UNKNOWN: found out */
    bool go_workers;          /* workers that are not native can run something: a sidecar is set */
    bool go_live;             /* and live sessions: it holds our runner */
};
MU_MUST_USE int mu_fleet_new(const struct mu_fleet_opts *opts, struct mu_fleet **ret);
/* After the loops ended and before they are freed: everything but the shell goes; what peers still
 * post then is answered by their release. */
void mu_fleet_end(struct mu_fleet *f);
/* After mu_loop_free() (mu_fleet_end() included, if it was not called). */
struct mu_fleet *mu_fleet_free(struct mu_fleet *f);

/* --- start and stop --- */
/* Start-up, blocking, before the loops run: known workers and the attempts that an earlier process
 * left, each with the whole grace. */
MU_MUST_USE int mu_fleet_load(struct mu_fleet *f, struct mu_db *db);
/* Start-up: a session that waits for a worker. */
MU_MUST_USE int mu_fleet_load_queued(struct mu_fleet *f, const struct mu_live_row *row);
/* From here on work is given out. */
void mu_fleet_start(struct mu_fleet *f);
/* Nothing new is given out, workers that leave keep what they hold: the next start adopts it. */
void mu_fleet_stop(struct mu_fleet *f);
/* From here on the database is not asked for anything: what is under way ends, nothing follows. */
void mu_fleet_close(struct mu_fleet *f);

/* freed() when a worker no longer executes a session: its tenant may run another one elsewhere. */
void mu_fleet_on_freed(struct mu_fleet *f, void (*freed)(void *arg), void *arg);
/* Looks soon whether something can be given out: a tenant may run more again. */
void mu_fleet_tenant_freed(struct mu_fleet *f);

/* --- sessions --- */
/* mu_session_create() for a session that waits for a worker; a free worker is offered it in the
 * same commit. Any loop. Codes of mu_session_create(). */
MU_MUST_USE int mu_fleet_create(struct mu_fleet *f, struct mu_session_create *op);
/* A stop was accepted, or the sweeper ended it. */
void mu_fleet_cancelled(struct mu_fleet *f, mu_bytes session_id);
/* The same from any loop; done() on op->loop, when the fleet knows. */
struct mu_fleet_cancel {
    struct mu_post post;
    struct mu_fleet *fleet;
    struct mu_loop *loop;
    struct mu_id session;
    void (*done)(struct mu_fleet_cancel *op);
    void *ctx;
};
void mu_fleet_cancel(struct mu_fleet *f, struct mu_fleet_cancel *op);
void mu_fleet_expired(struct mu_fleet *f, mu_bytes session_id);
/* The session hibernates (or is parked): nobody runs it any more. */
void mu_fleet_asleep(struct mu_fleet *f, const struct mu_execution *of);
/* Whether the session is one of those that wait for a worker or are held by one. */
bool mu_fleet_knows(struct mu_fleet *f, const struct mu_id *session);
/* It was woken: it waits for a worker (again). Nothing when it is known already. MU_E_BUSY: not all
 * of its last execution is over; -ENOMEM. */
MU_MUST_USE int mu_fleet_woken(struct mu_fleet *f, const struct mu_live_row *row);
/* Of one whose stop was accepted: its worker gives it no time for an end of its own. */
void mu_fleet_hurry(struct mu_fleet *f, mu_bytes session_id);

/* Output of an attempt so far, for a viewer that joins: false when no worker holds the session,
 * else done() follows (core loop). */
struct mu_fleet_snapshot {
    struct mu_session_chunks read;
    struct mu_fleet *fleet;
    struct mu_id id;
    unsigned tries;
    bool running; /* out */
    int64_t epoch, offset;
    struct mu_buf text; /* out: initialised and freed by the caller */
    void (*done)(struct mu_fleet_snapshot *op);
    void *ctx;
};
bool mu_fleet_snapshot(struct mu_fleet *f, struct mu_fleet_snapshot *op);

/* Why a session of the worker route waits, and whether its worker is there. Any loop; done() on
 * op->loop. */
enum mu_waits {
    MU_WAITS_NOT,
    MU_WAITS_WORKER,   /* none is connected */
    MU_WAITS_PINNED,   /* the one that must take it is not */
    MU_WAITS_HARNESS,  /* none that is has the agent program */
    MU_WAITS_FEATURE,  /* none can do all that it needs */
    MU_WAITS_CAPACITY, /* they have no room */
};
struct mu_fleet_look {
    struct mu_post post;
    struct mu_fleet *fleet;
    struct mu_loop *loop;
    struct mu_id id;
    mu_bytes worker;     /* name of one, or empty */
    struct mu_id uid;    /* out: its id; empty: it has none */
    enum mu_waits waits; /* out */
    bool unreachable;    /* out: the worker that holds it lost its connection */
    void (*done)(struct mu_fleet_look *op);
    void *ctx;
};
void mu_fleet_look(struct mu_fleet *f, struct mu_fleet_look *op);
/* A worker by "rnr_" and its id, or by the name that the org has for one of its own, or by the name
 * of a shared one; another org's is not found. Any loop; done() on op->loop. */
struct mu_fleet_find {
    struct mu_post post;
    struct mu_fleet *fleet;
    struct mu_loop *loop;
    mu_bytes given, org_id;            /* org_id empty: of any org, by id */
    bool found;                        /* out; then: */
    char name[MU_WORKER_NAME_MAX + 1]; /* out: what sessions know it by */
    void (*done)(struct mu_fleet_find *op);
    void *ctx;
};
void mu_fleet_find(struct mu_fleet *f, struct mu_fleet_find *op);

/* --- peers --- */
enum mu_order_kind {
    MU_ORDER_ASSIGN,
    MU_ORDER_CANCEL,
    MU_ORDER_WELCOME,
    MU_ORDER_ACK,
    MU_ORDER_SKILLS, /* what skills a repository has; MU_REPORT_ANSWER follows */
    MU_ORDER_RUNNER, /* a message for the session's runner */
    MU_ORDER_PAUSE,  /* MU_REPORT_DID follows */
    MU_ORDER_RESUME,
    MU_ORDER_DRAIN, /* it takes nothing new; MU_REPORT_ANSWER follows */
    MU_ORDER_UNDRAIN,
};

struct mu_job_var {
    mu_bytes name, value;
};

/* What the worker is to do. Texts live in the order's arena. */
struct mu_assignment {
    mu_bytes prompt, title, harness, model, skill;
    mu_bytes config;         /* JSON: agent_config as sent, or empty */
    bool live;               /* its runner speaks the runner protocol */
    mu_bytes environment_id; /* ptr NULL = none */
    mu_bytes env_spec;  /* JSON {"repos":[…],"setup_commands":[…],"sandbox"?:{…}}, or empty */
    int64_t timeout_ms; /* by its environment; 0 = none */
    mu_bytes image;     /* ptr NULL = the worker's default */
    struct mu_job_var *vars;
    size_t n_vars;
    mu_bytes checkpoint,  /* what it begins with: an id, or ptr NULL */
        checkpoint_parts; /* names, a JSON array */
    char token[MU_RUN_TOKEN_LEN + 1];
    int64_t created_ms, lease_ms, deadline_ms;
};

struct mu_execution {
    struct mu_id session, execution;
    int64_t epoch, seq;
};

struct mu_order {
    struct mu_post post;
    struct mu_peer *peer;
    struct mu_fleet *fleet;
    enum mu_order_kind kind;
    enum mu_dialect dialect;  /* of the worker, as far as it is known */
    struct mu_execution of;   /* ASSIGN, CANCEL, ACK, RUNNER, PAUSE, RESUME */
    struct mu_assignment job; /* ASSIGN */
    bool at_once;             /* CANCEL: another attempt may begin, there is no time for an end */
    /* WELCOME; the arrays live in the arena */
    const char *worker_uid;
    bool drain; /* it is to take nothing new */
    struct mu_id *keep, *stop;
    struct mu_execution *acked;
    size_t n_keep, n_stop, n_acked;
    struct mu_id command; /* SKILLS, PAUSE, RESUME, DRAIN, UNDRAIN */
    /* SKILLS: a token for the repository, or ptr NULL; WELCOME: the worker's own from now on, or
     * ptr NULL */
    mu_bytes repo, credential;
    /* RUNNER */
    mu_bytes message; /* a JSON object */
    struct mu_arena arena;
};
/* Any loop. */
struct mu_order *mu_order_free(struct mu_order *o);

/* One connection, embedded in the face's object on its own loop; the functions run there. */
struct mu_peer {
    struct mu_loop *loop;
    struct mu_fleet *fleet;
    /* Carries the order out and frees it. */
    void (*order)(struct mu_peer *peer, struct mu_order *o);
    /* Pings; any inbound byte within 5 s: mu_fleet_alive(peer, true), else false. */
    void (*probe)(struct mu_peer *peer);
    void (*close)(struct mu_peer *peer, int code, const char *reason);
    /* The last one: the peer is forgotten and may be freed. */
    void (*release)(struct mu_peer *peer);
    /* the fleet's */
    struct mu_worker *worker; /* core loop */
    int64_t conn;
    struct mu_post attach_post, gone_post, alive_post, probe_post, close_post, release_post;
    char credential[MU_PASS_LEN + 1]; /* what its enrolment gave, said once; before the admission */
    bool alive, closing;
    int close_code;
    const char *close_reason;
    /* filled before mu_fleet_gone() */
    struct mu_id *unsent; /* sessions whose assignment did not leave whole; heap, taken over */
    size_t n_unsent;
};

/* Whether a worker may connect: 0, MU_E_BUSY (its id is connected and alive: 429), MU_E_LIMIT
 * (503), MU_E_SHUTDOWN, -ENOMEM; MU_E_NOT_FOUND: there is no such worker; MU_E_FORBIDDEN: the
 * credential is another worker's; MU_E_CANCELLED: this installation was deregistered. Any loop; may
 * take 5 s. After 0 exactly one of mu_fleet_attach() and mu_fleet_gone() follows. */
struct mu_admission {
    struct mu_post post;
    struct mu_fleet *fleet;
    struct mu_peer *peer;
    mu_bytes name;                                     /* worker id */
    struct mu_id runner;                               /* the record that it must be, or empty */
    mu_bytes instance;                                 /* of native workers, ptr NULL = none */
    bool anonymous;                                    /* the name was made up */
    bool native;                                       /* it will say hello */
    void (*done)(struct mu_admission *op, int result); /* on peer->loop */
    void *ctx;
    int result;
};
void mu_fleet_admit(struct mu_fleet *f, struct mu_admission *op);
/* The connection is open: orders may come. On peer->loop, like the next two. */
void mu_fleet_attach(struct mu_peer *peer);
/* It is over (or did not come to be); release() follows. */
void mu_fleet_gone(struct mu_peer *peer);
/* The answer to probe(). */
void mu_fleet_alive(struct mu_peer *peer, bool alive);
/* An assignment that came when the connection was closed already. Takes the order. */
void mu_fleet_unsent(struct mu_order *o);

/* --- reports --- */
#define MU_LOG_OFFSET_MAX (INT64_C(1) << 53)
enum mu_report_kind {
    MU_REPORT_HELLO,
    MU_REPORT_CLAIMED,
    MU_REPORT_REJECTED,
    MU_REPORT_STATE,
    MU_REPORT_LOG,
    MU_REPORT_ENDED,
    MU_REPORT_DRAIN,
    MU_REPORT_ANSWER, /* to MU_ORDER_SKILLS */
    MU_REPORT_DID,    /* or not: an answer to MU_ORDER_PAUSE, MU_ORDER_RESUME */
    MU_REPORT_RUNNER, /* a message of the session's runner */
    MU_REPORT_TERMINAL,
    MU_REPORT_ALIVE, /* a heartbeat, or a message that only shows the dialect */
};

struct mu_report_running {
    struct mu_execution of;
    int state; /* stored number; 0 = not said */
};

/* What a worker (peer set) or the session's own runner said; heap, texts live in the arena. The
 * runner speaks over HTTP with its session token (oz-worker.md 13.6): peer NULL, session and epoch
 * those of the principal (run, run_epoch); kinds ALIVE, LOG, and ENDED, which is only data: the
 * worker says when it is over, unless it is away for longer than the grace. */
struct mu_report {
    struct mu_post post;
    struct mu_fleet *fleet;
    struct mu_peer *peer;
    enum mu_report_kind kind;
    enum mu_dialect dialect; /* what the message gives away; UNKNOWN = nothing */
    struct mu_id session;
    struct mu_id execution; /* empty = not said */
    int64_t epoch;          /* -1 = not said */
    int64_t seq;            /* 0 = not said */
    int state;              /* STATE */
    /* ENDED */
    bool failed, cancelled, has_exit_code, has_output;
    bool searched; /* the output was looked through for artifacts */
    int64_t exit_code, tokens_in, tokens_out;
    mu_bytes message, failure_reason, session_link; /* ptr NULL = none */
    struct mu_buf output;                           /* what is kept of it */
    int64_t output_total;                           /* bytes that it had */
    struct mu_artifact_row *artifact_rows;
    size_t n_artifacts;
    mu_bytes artifacts; /* JSON array */
    /* LOG */
    unsigned stream; /* 0 or 1 */
    int64_t offset;  /* at most MU_LOG_OFFSET_MAX; -1 = not said */
    mu_bytes chunk;
    /* ALIVE */
    bool beat;                 /* it is a heartbeat with figures */
    int64_t cpu, memory, disk; /* percent; -1 = not said */
    int64_t sequence, sent_ms; /* 0 = not said */
    mu_bytes runtimes;         /* JSON object, or ptr NULL */
    /* HELLO */
    mu_bytes instance, version, caps; /* caps: JSON object, stored as it is */
    int64_t capacity;                 /* -1 = not said */
    struct mu_report_running *running;
    struct mu_id *unacked;
    size_t n_running, n_unacked;
    bool reads_skills; /* it knows MU_ORDER_SKILLS */
    /* ANSWER */
    struct mu_id command;
    struct mu_skill_set *skills; /* a reference; NULL: it could not, `message` says why */
    /* DID */
    bool did; /* else `message` says why not */
    /* RUNNER: `chunk` is the message; TERMINAL: `offset`, `chunk` */
    unsigned terminal;
    struct mu_arena arena;
    struct mu_reply *reply; /* NULL: nobody waits for an answer */
};
/* Embedded in whoever made the report: when it was dealt with. */
struct mu_reply {
    struct mu_post post;
    struct mu_loop *loop;
    void (*done)(struct mu_reply *reply); /* on `loop` */
    void *ctx;
    int result; /* 0, or MU_E_STALE: the attempt is over, nothing was taken */
};
MU_MUST_USE int mu_report_new(enum mu_report_kind kind, struct mu_report **ret);
struct mu_report *mu_report_free(struct mu_report *r);
/* Takes the report. Any loop. */
void mu_fleet_tell(struct mu_fleet *f, struct mu_report *r);

/* --- runners of live sessions: the fleet only carries what they say (docs/runner-protocol.md) ---
 */
struct mu_runner_ops {
    /* One message, in order; the text is valid inside the call. */
    void (*message)(void *arg, const struct mu_execution *of, mu_bytes json);
    void (*terminal)(void *arg, const struct mu_execution *of, unsigned terminal, int64_t offset,
                     mu_bytes bytes);
    /* Answer to mu_fleet_pause(). `why` in words when it did not. */
    void (*did)(void *arg, const struct mu_execution *of, const struct mu_id *command, bool did,
                mu_bytes why);
    /* A stop was accepted: it will end. */
    void (*stopping)(void *arg, const struct mu_id *session);
    /* Nothing reaches that runner any more: its worker's connection ended, or the attempt did. */
    void (*gone)(void *arg, const struct mu_id *session, int64_t epoch);
    /* Whether something that it said is not stored yet: its end waits for mu_fleet_said(). */
    bool (*unstored)(void *arg, const struct mu_id *session, int64_t epoch);
};
/* Before work is given out. */
void mu_fleet_on_runners(struct mu_fleet *f, const struct mu_runner_ops *ops, void *arg);
/* A message for the runner of that attempt. MU_E_UNAVAILABLE: nobody is there who could hand it on;
 * -ENOMEM. */
MU_MUST_USE int mu_fleet_to_runner(struct mu_fleet *f, const struct mu_execution *of,
                                   mu_bytes json);
/* Its connection is worth nothing any more: it comes again. A worker's runner is told so by a
 * message. */
void mu_fleet_runner_drop(struct mu_fleet *f, const struct mu_execution *of);
/* Whether its words come through a worker, which also stores files for it. */
bool mu_fleet_runner_by_worker(const struct mu_fleet *f, const struct mu_execution *of);
/* Everything in the sandbox stands still, or goes on. The same codes; did() follows, unless gone()
 * comes first. */
MU_MUST_USE int mu_fleet_pause(struct mu_fleet *f, const struct mu_execution *of, bool pause,
                               const struct mu_id *command);
/* The attempt of that session, if its worker can be told something; false: it cannot. */
bool mu_fleet_reachable(struct mu_fleet *f, const struct mu_id *session, struct mu_execution *ret);
/* Everything that it said is stored, or will not be. */
void mu_fleet_said(struct mu_fleet *f, const struct mu_execution *of);
/* The state that the session was brought to by what its runner said. */
void mu_fleet_moved(struct mu_fleet *f, const struct mu_execution *of, int state);

/* A runner that came by itself, with its session's token: embedded in the face's object on its own
 * loop; the functions run there. */
enum { MU_RUNNER_WAITING = 8 << 20 /* bytes of one that wait for the core loop */ };
struct mu_runner_peer {
    struct mu_loop *loop;
    struct mu_id session;
    int64_t epoch; /* of the attempt that its token is of */
    /* 0; MU_E_BUSY: the attempt has not begun; MU_E_CANCELLED: it is over; MU_E_CONFLICT: it is not
     * live, or its worker speaks for it; MU_E_SHUTDOWN. After 0 one of mu_fleet_runner_attach() and
     * mu_fleet_runner_gone() follows, else nothing. */
    void (*admitted)(struct mu_runner_peer *p, int result);
    void (*told)(struct mu_runner_peer *p, mu_bytes json);
    void (*close)(struct mu_runner_peer *p, int code, const char *reason);
    /* The last one: the peer is forgotten and may be freed. */
    void (*release)(struct mu_runner_peer *p);
    /* the fleet's */
    struct mu_fleet *fleet;
    struct mu_post admit_post, attach_post, gone_post, close_post;
    int result, close_code;
    const char *close_reason;
    atomic_size_t waiting;
};
/* On peer->loop, all of them. Attach: the connection is open; an older one of the session is closed
 * with 4410. */
void mu_fleet_runner_admit(struct mu_fleet *f, struct mu_runner_peer *p);
void mu_fleet_runner_attach(struct mu_runner_peer *p);
/* It is over; release() follows. */
void mu_fleet_runner_gone(struct mu_runner_peer *p);
/* A message (one JSON object), terminal bytes. MU_E_LIMIT: too much waits, the connection is to be
 * ended; -ENOMEM. */
MU_MUST_USE int mu_fleet_runner_said(struct mu_runner_peer *p, mu_bytes json);
MU_MUST_USE int mu_fleet_runner_showed(struct mu_runner_peer *p, unsigned terminal, int64_t offset,
                                       mu_bytes bytes);

/* --- enrolment --- */
/* A worker registers: with an enrolment token as a new one, or again under its host's name, which
 * gives it a new credential; or with its credential, as what it is. Any loop; done() on `loop`:
 * 0; MU_E_UNAUTHORIZED: the token is used up; MU_E_LIMIT, MU_E_SATURATED: the org, or the
 * installation, has all it may have; MU_E_CONFLICT: the host is another worker's;
 * MU_E_NOT_FOUND, MU_E_SHUTDOWN, -ENOMEM, a writer code. Texts live until done(). */
struct mu_fleet_register {
    struct mu_post post;
    struct mu_unit unit;
    struct mu_fleet *fleet;
    struct mu_loop *loop;
    struct mu_id enrolment, runner; /* one of them */
    char org_id[MU_ORG_LEN + 1];    /* of the enrolment; "" = shared */
    mu_bytes host;                  /* ptr NULL with a credential: as it is */
    mu_bytes caps, version, meta;   /* JSON, text, JSON; ptr NULL = as they are */
    int64_t capacity;               /* -1 = as it is */
    struct mu_worker *worker;       /* the fleet's */
    struct mu_pass pass;            /* out: its token, with an enrolment */
    struct mu_id uid;               /* out */
    bool created;                   /* out */
    int64_t now_ms, uses_left;
    int result;
    char stream[8 + MU_ID_LEN], event[512];
    void (*done)(struct mu_fleet_register *op, int result);
    void *ctx;
};
void mu_fleet_register(struct mu_fleet *f, struct mu_fleet_register *op);

/* --- what administrators do to a worker, and its heartbeat without a link --- */
enum mu_fleet_act { MU_ACT_DRAIN, MU_ACT_UNDRAIN, MU_ACT_REMOVE, MU_ACT_BEAT };
enum { MU_FLEET_SESSIONS = 256 };
/* Any loop; done() on `loop`: 0; MU_E_NOT_FOUND (also another org's); MU_E_CONFLICT: UNDRAIN of one
 * that does not drain, REMOVE of one with live sessions (named in `sessions`); MU_E_SHUTDOWN, a
 * writer code. Texts live until done(). */
struct mu_fleet_change {
    struct mu_post post;
    struct mu_unit unit;
    struct mu_fleet *fleet;
    struct mu_loop *loop;
    enum mu_fleet_act act;
    struct mu_id uid;
    bool admin; /* of every org, and of shared workers */
    char org_id[MU_ORG_LEN + 1];
    bool force;             /* REMOVE */
    int64_t timeout_ms;     /* DRAIN: what runs then is stopped; -1 = as configured, 0 = never */
    mu_bytes reason, by;    /* by: who, for the log */
    struct mu_report *beat; /* BEAT: taken */
    bool draining;          /* out */
    struct mu_id sessions[MU_FLEET_SESSIONS];
    size_t n_sessions;
    char name[MU_WORKER_NAME_MAX + 1], worker_org[MU_ORG_LEN + 1];
    int64_t now_ms, until_ms;
    int result;
    char stream[8 + MU_ID_LEN], event[512];
    void (*done)(struct mu_fleet_change *op, int result);
    void *ctx;
};
void mu_fleet_change(struct mu_fleet *f, struct mu_fleet_change *op);

/* --- looking --- */
enum mu_worker_status { MU_WORKER_ONLINE, MU_WORKER_OFFLINE, MU_WORKER_DRAINING };
const char *mu_worker_status_name(enum mu_worker_status s);
struct mu_worker_view {
    mu_bytes id, name, version, instance, caps;
    mu_bytes host, org_id, meta, runtimes; /* org_id "" = shared */
    enum mu_dialect dialect;
    enum mu_worker_status status;
    bool connected, draining, saturated, drained;
    int64_t since_ms, seen_ms, capacity, in_flight, conflicts;
    int64_t created_ms, drain_ms, reserved, cpu, memory, disk /* percent; -1 = not said */, skew_ms;
    const struct mu_worker *worker; /* for the next two, inside the call */
};
/* The sessions that it holds; how many. */
size_t mu_fleet_sessions_of(const struct mu_worker *w, struct mu_id *dst, size_t max);
/* Every known worker, in no order. Core loop. */
int mu_fleet_each(struct mu_fleet *f, int (*each)(void *arg, const struct mu_worker_view *v),
                  void *arg);
/* One; false: there is none, or it is another org's. */
bool mu_fleet_get(struct mu_fleet *f, const struct mu_id *uid, bool admin, mu_bytes org_id,
                  struct mu_worker_view *ret);
/* The same from any loop, its status alone; done() on op->loop. */
struct mu_fleet_status {
    struct mu_post post;
    struct mu_fleet *fleet;
    struct mu_loop *loop;
    struct mu_id uid;
    bool admin;
    char org_id[MU_ORG_LEN + 1];
    bool found; /* out; then: */
    enum mu_worker_status status;
    bool drained;
    char of_org[MU_ORG_LEN + 1]; /* "" = shared */
    void (*done)(struct mu_fleet_status *op);
    void *ctx;
};
void mu_fleet_status(struct mu_fleet *f, struct mu_fleet_status *op);
/* Its events (nobody's rights are looked at): those after `after`, at most `limit`. Any loop;
 * done() on read.loop. MU_E_BUSY, -ENOMEM. */
struct mu_fleet_events {
    struct mu_read read;
    struct mu_id uid;
    int64_t after;
    unsigned limit;
    int (*each)(void *arg, int64_t seq, int type, int64_t at_ms, mu_bytes actor, mu_bytes data);
    void *arg;
    int64_t first_seq, last_seq; /* out */
    void (*done)(struct mu_fleet_events *op, int result);
    void *ctx;
    char stream[8 + MU_ID_LEN];
};
MU_MUST_USE int mu_fleet_events(struct mu_fleet *f, struct mu_fleet_events *op);
/* For counters of the face. */
struct mu_metric *mu_fleet_protocol_errors(struct mu_fleet *f);

#endif
