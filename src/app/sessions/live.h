/* What only live sessions have (village-control-plane.md 4, 5; agent-ops.md 7.7;
 * data-model.md 5.6): turns, gates, pause and resume, and what a runner reports. Each operation is
 * one unit of the session's stream. Operations are structs that live until done() ran, like those
 * of sessions.h. Gates, pauses and the taking of turns are of sessions at a worker (route 2).
 *
 * Who speaks: an operation "of people" carries admin/org_id and answers another tenant's id with
 * MU_E_NOT_FOUND; one "of the runner" is fenced by the epoch and answers MU_E_STALE. `by` is an
 * actor: "user:<uid>", "key:<id>" (mu_actor_of()), "admin", "runner", "system".
 *
 * Every function that takes an operation answers 0 (done() will run) or a code with which it will
 * not: MU_E_INVALID, MU_E_TOO_LARGE for what breaks a bound below, the writer's or readers' codes.
 */
#ifndef MU_APP_SESSIONS_LIVE_H
#define MU_APP_SESSIONS_LIVE_H

#include "app/sessions/sessions.h"

enum {
    MU_TURN_PROMPT_MAX = 400000, /* bytes; 100,000 characters */
    MU_TURNS_QUEUED_MAX = 50,
    MU_GATES_PENDING_MAX = 20,
    MU_GATE_TEXT_MAX = 2000, /* characters of description and of reason */
    MU_GATE_CONTEXT_MAX = 16 << 10,
    MU_GATE_KEY_MAX = 256,       /* bytes of request_key */
    MU_GATE_MORE_MAX = 16 << 10, /* bytes of options, of answer */
    MU_FACT_MAX = 16 << 10,      /* bytes of one event's data */
    MU_REPORT_FACTS = 256,
    MU_DIFF_MAX = 1 << 20,
    MU_CONVERSATION_MAX = 1024,
};

/* --- turns: the prompt queue of an interactive session --- */
enum mu_turn_state {
    MU_TURN_QUEUED = 10,
    MU_TURN_SENT = 20,     /* handed to the runner, which has not said that it has it */
    MU_TURN_ACCEPTED = 30, /* the agent works on it */
    MU_TURN_DONE = 90,
    MU_TURN_FAILED = 92,
    MU_TURN_CANCELLED = 94,
};

struct mu_turn_row {
    mu_bytes id, prompt, options /* JSON */, user; /* user: ptr NULL = nobody */
    int64_t pos /* never 0 */, created_ms, started_ms, ended_ms;
    int state, tries, source;
};

/* Queues a prompt, at the end or (`first`) before all that wait. MU_E_NOT_FOUND; MU_E_CONFLICT: the
 * session is no interactive one, or stops or has ended; MU_E_LIMIT: MU_TURNS_QUEUED_MAX wait. Event
 * TURN_QUEUED. */
struct mu_turn_add {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id;
    struct mu_id session;
    mu_bytes prompt, options, user; /* options: JSON object, ptr NULL = {}; user: uid or ptr NULL */
    int source;
    bool first;
    /* out */
    struct mu_id id;
    int64_t pos, ahead; /* ahead: turns that are not over and come before it */
    int64_t now_ms;
    void (*done)(struct mu_turn_add *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_turn_add(struct mu_sessions *s, struct mu_turn_add *op);

/* Another text for a turn that waits, or (prompt.ptr NULL) its withdrawal. MU_E_NOT_FOUND;
 * MU_E_CONFLICT: it does not wait any more. Events TURN_CHANGED, TURN_ENDED. */
struct mu_turn_edit {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id;
    struct mu_id session, turn;
    mu_bytes prompt, user;
    int64_t now_ms;
    bool no_session; /* out: MU_E_NOT_FOUND is about the session */
    void (*done)(struct mu_turn_edit *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_turn_edit(struct mu_sessions *s, struct mu_turn_edit *op);

/* Of the runner: the first turn that waits becomes SENT; only when none is SENT or ACCEPTED and the
 * session is in 60 or 64 (else MU_E_CONFLICT). MU_E_NOT_FOUND: nothing waits. Event TURN_STARTED.
 */
struct mu_turn_next {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id session;
    int64_t epoch, now_ms;
    bool again; /* the one that is SENT, once more: its runner does not have it */
    /* out; texts in the arena, which the caller initialises */
    struct mu_arena arena;
    struct mu_id id;
    mu_bytes prompt, options, user;
    int tries;
    void (*done)(struct mu_turn_next *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_turn_next(struct mu_sessions *s, struct mu_turn_next *op);

/* --- what a runner reports: facts in its order, fenced by epoch and by its own numbers --- */
struct mu_fact {
    int type;      /* events.def, MU_EV_FACTS and above */
    mu_bytes data; /* JSON object, at most MU_FACT_MAX */
};
/* Stores facts `seq_before`+1 … `seq` of the runner, in one unit: all or, when `seq` is not above
 * what is stored, none (success, `repeated`). MU_E_STALE; MU_E_MISMATCH: `seq_before` is not what
 * is stored (a hole): ask again from `stored_seq`. A runner whose stop was accepted may still
 * report; that moves nothing. What does not fit any more (running: it runs; a turn that is over) is
 * left out. */
struct mu_session_report {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch, now_ms;
    int64_t seq_before, seq;
    const struct mu_fact *facts;
    size_t n_facts;
    /* what else it says, each optional */
    bool running;            /* 30, 40 or 50 -> 60 (session_started; state event) */
    mu_bytes started;        /* with running: data of the event SESSION_STARTED */
    int64_t run_deadline_ms; /* with running: when none is known yet (no limit_ms); 0 = none */
    struct mu_id turn;       /* of the next two */
    int turn_state;          /* ACCEPTED, DONE, FAILED, CANCELLED; 0 = nothing */
    mu_bytes turn_end;       /* data of the event TURN_ENDED */
    bool has_usage;          /* absolute values; never less than what is stored */
    int64_t tokens_in, tokens_out, api_calls, compute_ms;
    mu_bytes diff;         /* JSON of the last DIFF_SUMMARY, stored for getDiff; ptr NULL */
    mu_bytes conversation; /* the agent's own id of its conversation; ptr NULL */
    /* out */
    bool repeated;
    int64_t stored_seq;
    int64_t last_event_seq;
    void (*done)(struct mu_session_report *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_report(struct mu_sessions *s, struct mu_session_report *op);

/* The turn that is SENT or ACCEPTED waits again (its runner is gone); at MU_TURN_TRIES tries it
 * fails. Part of the units that take a session from its runner (requeue, park): after
 * mu_tx_stream(). Writer thread. */
enum { MU_TURN_TRIES = 3 };
MU_MUST_USE int mu_turns_put_back(struct mu_tx *tx, mu_bytes session_id, int64_t now_ms);

/* --- gates --- */
enum mu_gate_kind { MU_GATE_APPROVAL = 1, MU_GATE_QUESTION };
enum mu_gate_action {
    MU_ACT_MERGE = 1,
    MU_ACT_DEPS_ADD,
    MU_ACT_SECRETS,
    MU_ACT_DEPLOY,
    MU_ACT_SHELL,
    MU_ACT_NETWORK,
    MU_ACT_TOOL,
};
enum mu_gate_risk { MU_RISK_LOW = 1, MU_RISK_MED, MU_RISK_HIGH };
enum mu_gate_status {
    MU_GATE_PENDING,
    MU_GATE_ALLOWED /* or answered */,
    MU_GATE_DENIED,
    MU_GATE_EXPIRED,
    MU_GATE_CANCELLED,
};
/* The words of the API and back; 0 and NULL for what is none. */
int mu_gate_action_parse(mu_bytes word);
const char *mu_gate_action_name(int action);
int mu_gate_risk_parse(mu_bytes word);
const char *mu_gate_risk_name(int risk);
const char *mu_gate_status_name(int status);

struct mu_gate_row {
    mu_bytes id, session_id, org_id, turn_id, request_key, description, context /* JSON */,
        options /* JSON or ptr NULL */, answer, reason, resolved_by;
    int64_t epoch /* -1: asked by people */, created_ms, expires_ms, resolved_ms, delivered_ms;
    int kind, action, risk, status, scope, votes_needed;
    mu_bytes asked_id; /* what its runner calls it, when that is not its id; else ptr NULL */
};

/* A gate opens, by the runner (epoch >= 0) or by people (epoch < 0: a trusted integration; no
 * runner waits for that decision: it counts as delivered). State 60 -> 64, events
 * APPROVAL_REQUESTED and STATE. Special ends, all success:
 *  - an open gate with the same request_key, or a gate `fresh` in any state (the runner asks
 * again): `id` is its id, `existing`, `status`;
 *  - what an earlier execution of the session asked for in that turn, by the same request_key, and
 *    did not hear the decision of: that gate, now of this epoch, is also called `fresh`
 *    (`carried`); pending, it is waited for as if it had opened;
 *  - a grant of this session (scope session) for the request_key: `status` allowed or denied at
 *    once, with both events and no pending gate;
 *  - MU_GATES_PENDING_MAX are open: denied, reason too_many_pending.
 * MU_E_CONFLICT (people) or MU_E_STALE (runner): the session is not in 60, 64 or 70. */
struct mu_gate_ask {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id;
    struct mu_id session;
    int64_t epoch, now_ms;
    int64_t runner_seq;    /* of the runner's report: stored with it; 0 = none */
    int64_t hold_until_ms; /* the session's deadline while it waits; 0 = 24 h after it was made */
    struct mu_id fresh; /* its id if it is made: by the runner (the id of its question) or empty */
    int kind, action, risk;
    mu_bytes request_key, description, context, options,
        turn_id;        /* ptr NULL = none, the last two */
    int64_t expires_ms; /* 0 = never */
    int votes_needed;   /* 1, or 2 */
    mu_bytes by;        /* ptr NULL: the runner */
    /* out */
    struct mu_id id;
    bool existing;
    bool carried; /* … of an earlier execution, which did not take its decision */
    int status;
    char reason[64];
    void (*done)(struct mu_gate_ask *op, int result);
    void *ctx;
    struct mu_id made; /* own: its id if it is made (a unit may run twice) */
};
MU_MUST_USE int mu_gate_ask(struct mu_sessions *s, struct mu_gate_ask *op);

/* Exactly one resolution wins. Events APPROVAL_RESOLVED and, when nothing is pending any more and
 * the session is in 64, STATE 64 -> 60 (or, a denial with `stop`: 60, 64, 70 -> 80 with end reason
 * denied; the caller tells the executor, like after a cancel).
 * MU_E_NOT_FOUND: session (no_session) or gate; MU_E_FORBIDDEN: `own` (the session's runner);
 * MU_E_EXISTS: it is resolved already, see `known`; the same decision by the same person within 60
 * s is success (`repeated`; not with a link). MU_E_STALE: the link is used, too old, or not for
 * that. With votes_needed 2 the first allow is a vote: success, status pending. */
struct mu_gate_resolve {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id;
    bool own;
    struct mu_id session, gate;
    bool allow;
    int scope; /* 0 once, 1 session */
    bool stop; /* a denial ends the session (policy onDeny) */
    mu_bytes reason, answer /* of a question, JSON */; /* ptr NULL = none */
    mu_bytes by;                                       /* at most MU_ACTOR_LEN bytes */
    mu_bytes voter;                                    /* whose vote it is, if not by's; ptr NULL */
    struct mu_id link; /* with one that is used up by this (links.h); empty = none */
    /* out */
    bool repeated, no_session, stopped;
    int status, state;     /* of gate and session */
    struct mu_gate_known { /* with MU_E_EXISTS: how it was resolved before */
        int status;        /* MU_GATE_EXPIRED also just before that is stored */
        int64_t resolved_ms;
        char by[MU_ACTOR_LEN + 1], reason[512]; /* the reason's beginning */
    } known;
    char org[MU_ORG_LEN + 1];
    int64_t now_ms;
    void (*done)(struct mu_gate_resolve *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_gate_resolve(struct mu_sessions *s, struct mu_gate_resolve *op);

/* Its time is over: denied by the system, as above. MU_E_STALE: it is resolved, or its time was
 * moved. Not while the session is paused (70). */
struct mu_gate_expire {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id session, gate;
    bool stop;
    bool stopped; /* out: `stop` did that */
    int state;    /* out, of the session */
    char org[MU_ORG_LEN + 1];
    int64_t now_ms;
    void (*done)(struct mu_gate_expire *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_gate_expire(struct mu_sessions *s, struct mu_gate_expire *op);

/* The runner has taken the decision; a repetition is success. With `unwanted` nobody waits for it
 * any more: a gate without one is cancelled (event APPROVAL_RESOLVED, and when nothing is pending
 * any more STATE 64 -> 60). MU_E_STALE; MU_E_NOT_FOUND; MU_E_CONFLICT: there is no decision yet. */
struct mu_gate_delivered {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id session, gate; /* gate: as its runner calls it */
    int64_t epoch;
    bool unwanted;
    struct mu_id found; /* out: the gate's id */
    int state;          /* out: of the session, when the gate was cancelled; else 0 */
    int64_t now_ms;
    void (*done)(struct mu_gate_delivered *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_gate_delivered(struct mu_sessions *s, struct mu_gate_delivered *op);

/* Part of every unit that ends a session or takes it from its runner: what is pending is cancelled,
 * each with its event, and decisions that nobody takes any more count as delivered. After
 * mu_tx_stream(); takes its own event numbers. Writer thread. */
MU_MUST_USE int mu_gates_close(struct mu_tx *tx, mu_bytes session_id, int64_t now_ms);
/* The same of those that the attempt of that epoch (or people) asked for: what an earlier one asked
 * for before the session hibernated is asked for again. */
MU_MUST_USE int mu_gates_close_asked(struct mu_tx *tx, mu_bytes session_id, int64_t epoch,
                                     int64_t now_ms);
/* The same of those that an attempt before that epoch asked for in a turn which is over now. */
MU_MUST_USE int mu_gates_close_turn(struct mu_tx *tx, mu_bytes session_id, mu_bytes turn_id,
                                    int64_t epoch, int64_t now_ms);

/* --- pause and resume --- */
/* 60, 64 -> 70. The clock of the session and of its gates stops. MU_E_NOT_FOUND, MU_E_CONFLICT.
 * While a session waits or is paused, its deadline is 24 h after it was made (or was taken up again
 * from a checkpoint), or before that `hold_until_ms`. */
struct mu_session_pause {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id, by;
    struct mu_id id;
    int64_t hold_until_ms; /* its deadline while it is paused; 0 = the 24 h */
    int from;              /* out */
    int64_t now_ms;
    void (*done)(struct mu_session_pause *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_pause(struct mu_sessions *s, struct mu_session_pause *op);
/* 70 -> 60, or 64 when gates are pending; their times and the deadline are moved by the pause. */
struct mu_session_resume {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id, by;
    struct mu_id id;
    int to; /* out */
    int64_t now_ms;
    void (*done)(struct mu_session_resume *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_resume(struct mu_sessions *s, struct mu_session_resume *op);

/* --- reading; rows are valid inside the callback, which runs on a reader thread --- */
/* Turns of a session in their order, at most MU_TURN_PAGE from `from_pos` on (0 = from the first).
 * MU_E_NOT_FOUND. */
enum { MU_TURN_PAGE = 200, MU_GATE_PAGE = 200 };
struct mu_turn_list {
    struct mu_read read;
    bool admin;
    mu_bytes org_id;
    struct mu_id session;
    int64_t from_pos;
    int (*each)(void *arg, const struct mu_turn_row *row);
    void *arg;
    void (*done)(struct mu_turn_list *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_turn_list(struct mu_sessions *s, struct mu_turn_list *op);

/* Gates of one session, or (session empty) of an org: newest first, at most `limit` before
 * `before`. Of all orgs when admin and org_id.ptr is NULL. MU_E_NOT_FOUND: no such session. */
struct mu_gate_list {
    struct mu_read read;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id;
    struct mu_id session;
    struct mu_id gate;                                     /* only this one of the session */
    bool untaken;                                          /* of the session: those decided … */
    int64_t epoch;                                         /* … whose runner has not taken it */
    int status;                                            /* -1 = any */
    int action, risk;                                      /* 0 = any */
    mu_bytes before;                                       /* id, or ptr NULL */
    unsigned limit;                                        /* 1..MU_GATE_PAGE */
    int (*each)(void *arg, const struct mu_gate_row *row); /* 1 = enough */
    void *arg;
    unsigned count;           /* out */
    bool more;                /* also when the time of a search was over: then a short page … */
    char next[MU_ID_LEN + 1]; /* … goes on before this id */
    void (*done)(struct mu_gate_list *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_gate_list(struct mu_sessions *s, struct mu_gate_list *op);

/* Start-up, blocking: every gate that is pending, or whose decision its runner has not taken, of
 * sessions that have not ended. */
MU_MUST_USE int mu_gates_each_open(struct mu_db *db,
                                   int (*each)(void *arg, const struct mu_gate_row *row),
                                   void *arg);

/* What the orchestrator of a live session must know when its runner says hello. */
struct mu_live_state {
    struct mu_read read;
    struct mu_sessions *sessions;
    struct mu_id id;
    struct mu_arena arena; /* initialised by the caller */
    /* out */
    int64_t epoch, runner_seq /* of that epoch's attempt */, run_deadline_ms, deadline_ms,
        paused_ms;
    int state, mode, view;
    char org_id[MU_ORG_LEN + 1];
    mu_bytes conversation, spec; /* ptr NULL = none */
    struct mu_id turn;           /* SENT or ACCEPTED; empty = none */
    int turn_state;
    void (*done)(struct mu_live_state *op, int result); /* MU_E_NOT_FOUND */
    void *ctx;
};
MU_MUST_USE int mu_live_state_read(struct mu_sessions *s, struct mu_live_state *op);

#endif
