/* Shared by the files of this context. */
#ifndef MU_APP_LIVE_LIVE_INT_H
#define MU_APP_LIVE_LIVE_INT_H

#include "app/live/live.h"
#include "app/live/recorder_int.h"
#include "app/sessions/checkpoints.h"
#include "base/heap.h"
#include "base/log.h"
#include "base/map.h"
#include "proto/json.h"

enum {
    MU_LIVE_IN_BYTES = 24 << 20, /* of one runner's messages that wait for the database */
    MU_LIVE_IN_COUNT = 16384,
    MU_LIVE_MESSAGE = 2 << 20,
    MU_LIVE_CALLS = 256, /* of one session that wait for an answer */
    MU_LIVE_BATCH = 64,  /* messages in one unit */
    MU_LIVE_GATE_RETRY_MS = 1000,
    MU_TERMINALS = 8,
    MU_TERMINAL_RING = 1 << 20,
    MU_TERMINAL_ACK = 32 << 10, /* bytes between two acknowledgements */
    MU_LIVE_TOOLS = 64,         /* open calls of tools that are remembered */
};

struct mu_terminal;
struct mu_recorder;
struct mu_janitor;
struct mu_sleeper;

/* A message of a runner that waits to be stored. */
struct mu_live_in {
    struct mu_list link;
    int64_t seq;
    size_t len;
    char text[];
};

enum mu_live_phase {
    MU_LIVE_NEW,     /* no hello yet */
    MU_LIVE_GREETED, /* what the database knows is being read */
    MU_LIVE_TALKING,
};

/* What is done for a session just now: one thing at a time. */
enum mu_live_task {
    MU_LIVE_IDLE,
    MU_LIVE_READING,
    MU_LIVE_REPORTING,
    MU_LIVE_ASKING,
    MU_LIVE_DELIVERING,
    MU_LIVE_NEXT_TURN,
    MU_LIVE_GATES,
    MU_LIVE_JOB,
    MU_LIVE_KEEPING,
    MU_LIVE_SLEEPING,
};

/* Who alone types; conn empty: nobody. */
struct mu_live_control {
    struct mu_id conn;
    char uid[MU_UID_LEN + 1];
    struct mu_timer timer;
};

/* A session whose runner can be reached: from its hello until its connection or attempt ends. */
struct mu_live_session {
    struct mu_live *l;
    struct mu_list link;
    struct mu_id id;
    char org_id[MU_ORG_LEN + 1];
    struct mu_execution of;
    enum mu_live_phase phase;
    enum mu_live_task task;
    bool leaving;  /* its runner cannot be told anything any more: what it said is still stored */
    bool over;     /* freed when nothing is under way */
    bool refrozen; /* it said hello although its session is paused: it stands still again */
    bool want_turn, want_answers, prompted /* the task's own prompt is with the runner */;
    int state, mode;
    int64_t stored_seq, queued_seq;
    struct mu_id turn; /* SENT or ACCEPTED */
    bool turn_there;   /* its runner has it: said so, or was sent it on this connection */
    struct mu_list in;
    size_t in_bytes, in_count;
    bool deny_stops, expiry_stops;
    int64_t limit_ms, active_ms /* when people or a terminal did something */;
    char tools[MU_LIVE_TOOLS][40]; /* whose TOOL_CALL is stored */
    unsigned n_tools;
    struct mu_terminal *terminals[MU_TERMINALS];
    struct mu_list calls; /* that wait for the runner or the worker */
    size_t n_calls;
    struct mu_live_control control;
    struct mu_recorder_look look;
    /* of the task */
    struct mu_arena arena;
    size_t taken;      /* messages at the head of `in` that it stores */
    unsigned refused;  /* times that the head of `in` was refused */
    struct mu_id gate; /* ASKING, DELIVERING */
    union {
        struct mu_live_state state;
        struct mu_session_report report;
        struct mu_gate_ask ask;
        struct mu_gate_delivered delivered;
        struct mu_turn_next next;
        struct mu_gate_list gates;
        struct mu_session_job job;
        struct mu_checkpoint_take checkpoint;
    } op;
    struct mu_fact facts[MU_LIVE_BATCH];
};

/* A gate that waits: when its time is over. */
struct mu_live_gate {
    struct mu_heap_node node;
    struct mu_live *l;
    struct mu_id id, session;
    int64_t expires_ms;
    bool stops, busy;
    struct mu_gate_expire op;
};

struct mu_live {
    struct mu_live_opts opts;
    struct mu_map sessions; /* id -> struct mu_live_session */
    struct mu_map gates;    /* id -> struct mu_live_gate */
    struct mu_heap due;     /* gates by time */
    struct mu_list all;
    struct mu_timer timer;
    struct mu_recorder *recorder;
    struct mu_janitor *janitor;
    struct mu_sleeper *sleeper;
    struct mu_list waking;
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct mu_metric *attached, *pending, *bytes, *dropped;
};

int64_t mu_live_now(const struct mu_live *l); /* wall */
/* The one whose runner can be told something. */
struct mu_live_session *mu_live_find(struct mu_live *l, const struct mu_id *id);
/* The same, or one of whose runner nothing was heard yet on this connection of its worker; NULL: it
 * cannot be reached. */
struct mu_live_session *mu_live_expect(struct mu_live *l, const struct mu_id *id);
/* Nothing is under way any more: what is to be done next? */
void mu_live_next(struct mu_live_session *s);
void mu_live_session_free(struct mu_live_session *s);
/* control.c */
void mu_live_control_init(struct mu_live_session *s);
void mu_live_control_end(struct mu_live_session *s);
MU_MUST_USE int mu_live_control(struct mu_live_session *s, struct mu_live_call *call);
/* Whether that may be typed; else who has control is told in it. */
bool mu_live_control_allows(struct mu_live_session *s, struct mu_live_call *call);
/* Drops the connection's state; the runner comes again. */
void mu_live_drop(struct mu_live_session *s, const char *why);

/* outbound.c: false when it does not reach the runner */
bool mu_live_send(struct mu_live_session *s, struct mu_buf *json);
void mu_live_ack(struct mu_live_session *s, int64_t seq);
void mu_live_init(struct mu_live_session *s, const struct mu_live_state *state);
void mu_live_prompt(struct mu_live_session *s, mu_bytes turn, mu_bytes text, mu_bytes options,
                    int tries);
void mu_live_answer(struct mu_live_session *s, const struct mu_gate_row *row);
void mu_live_refuse(struct mu_live_session *s, const struct mu_id *gate, int status,
                    const char *reason);
struct mu_json_w mu_live_begin(struct mu_buf *b, const char *type);

/* inbound.c */
void mu_live_message(struct mu_live_session *s, mu_bytes json);
/* Stores what waits at the head of `in`; false: nothing does. */
bool mu_live_store(struct mu_live_session *s);
/* What was taken of `in` is stored and goes. */
void mu_live_stored(struct mu_live_session *s);
/* It was not: when the attempt is over nobody needs it, else its runner says it again. */
void mu_live_not_stored(struct mu_live_session *s, int result);

/* checkpoint.c: the message at the head of `in` */
bool mu_live_checkpoint(struct mu_live_session *s, yyjson_val *m, int64_t seq);

/* turns.c: what is sent without being asked */
bool mu_live_send_turn(struct mu_live_session *s);
bool mu_live_send_answers(struct mu_live_session *s);

/* gates.c */
void mu_live_gates_init(struct mu_live *l);
void mu_live_gates_fini(struct mu_live *l);
void mu_live_gate_opened(struct mu_live *l, const struct mu_id *id, const struct mu_id *session,
                         int64_t expires_ms, bool stops);
void mu_live_gate_closed(struct mu_live *l, const struct mu_id *id);
/* The session's gates are looked at again: a pause has moved their time. One whose time is over
 * already is tried again after `retry_ms`. */
void mu_live_gates_of(struct mu_live *l, const struct mu_id *session, int64_t retry_ms);

/* wake.c: somebody may have woken it */
void mu_live_woken(struct mu_live *l, const struct mu_id *session);
void mu_live_woken_end(struct mu_live *l);

/* calls.c */
void mu_live_call_end(struct mu_live_session *s, struct mu_live_call *call, int result);
void mu_live_calls_end(struct mu_live_session *s, int result);
/* Answers of the runner or the worker to a call of that number. */
struct mu_live_call *mu_live_call_of(struct mu_live_session *s, mu_bytes request_id);
void mu_live_call_answer(struct mu_live_session *s, yyjson_val *message);
void mu_live_call_did(struct mu_live_session *s, const struct mu_id *command, bool did);

/* terminals.c */
void mu_live_terminal(struct mu_live_session *s, unsigned number, int64_t offset, mu_bytes bytes);
/* What the hello says of its terminals; the answer to it goes into an open array of `init`. */
void mu_live_terminals_hello(struct mu_live_session *s, yyjson_val *terminals);
void mu_live_terminals_init(struct mu_live_session *s, struct mu_json_w *w);
/* What is recorded of them; before init. */
void mu_live_terminals_known(struct mu_live_session *s, const struct mu_recorded *known);
void mu_live_terminals_free(struct mu_live_session *s);

#endif
