/* The sessions that run now, as seen by people (village-control-plane.md 4.4, 8, 10.3): what their
 * runners say becomes facts, what people want becomes messages to the runners, terminals are kept
 * and shown. Knows no socket and no dialect: the fleet carries messages to and from runners
 * (docs/runner-protocol.md).
 *
 * Everything lives on the core loop; calls are for any loop unless marked. */
#ifndef MU_APP_LIVE_LIVE_H
#define MU_APP_LIVE_LIVE_H

#include "app/fleet/fleet.h"
#include "app/sessions/live.h"

struct mu_live;

struct mu_live_opts {
    const struct mu_env *env;
    struct mu_loop *core;
    struct mu_sessions *sessions;
    struct mu_fleet *fleet;
    struct mu_feed *feed;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_work *work; /* recordings are written there */
    struct mu_metrics *metrics;
    const char *recordings_dir; /* exists; 0700 */
    int64_t recording_max;      /* bytes kept of one session's terminals */
    int64_t recording_keep_ms;  /* after the last byte, unless the session lives */
    int64_t gate_ms;            /* default time of an approval */
    int64_t command_ms;         /* a runner answers within this time (5 s) */
    int64_t paused_max_ms;      /* a paused session ends after this time */
    bool checkpoints;           /* runners take them */
    /* an interactive session hibernates that is paused, idle, or waits for a gate for so long, when
     * runners take checkpoints; 0 = never, each */
    int64_t sleep_paused_ms, sleep_idle_ms, sleep_waiting_ms;
};
MU_MUST_USE int mu_live_new(const struct mu_live_opts *opts, struct mu_live **ret);
/* After the loops ended and before they are freed: sessions and timers go; what is still posted is
 * answered MU_E_SHUTDOWN. */
void mu_live_end(struct mu_live *l);
/* After mu_loop_free(). */
struct mu_live *mu_live_free(struct mu_live *l);
/* Start-up, blocking, before the loops run: gates that are open. */
MU_MUST_USE int mu_live_load(struct mu_live *l, struct mu_db *db);
/* Core loop: old recordings go from now on. */
void mu_live_start(struct mu_live *l);
/* Core loop; from here on nothing is begun, what is recorded is written out; then stopped(). */
void mu_live_stop(struct mu_live *l, void (*stopped)(void *arg), void *arg);

/* --- what people want of a session --- */
enum mu_live_want {
    MU_LIVE_PAUSE,
    MU_LIVE_RESUME, /* also of one that sleeps: it waits for a worker then */
    MU_LIVE_INPUT,  /* data; text or bytes, `line` appends a newline */
    MU_LIVE_RESIZE, /* cols, rows */
    MU_LIVE_OPEN,   /* a further terminal: out terminal; data: command or empty */
    MU_LIVE_CLOSE,
    MU_LIVE_ABORT,  /* the turn under way (turn empty: whichever) */
    MU_LIVE_DIFF,   /* out: answer, JSON {"files":[…],"patch"?:…} as the runner gave it */
    MU_LIVE_END,    /* an interactive session shall finish as done */
    MU_LIVE_TAKE,   /* from now on only `conn` types; the feed says so, MU_EV_CONTROL */
    MU_LIVE_LET_GO, /* it does not any more; nothing when it did not */
    MU_LIVE_HOLDER, /* out: held_by */
};
struct mu_live_call {
    struct mu_post post;
    struct mu_live *live;
    struct mu_loop *loop; /* of the caller: done() runs there */
    enum mu_live_want want;
    bool admin;
    mu_bytes org_id, by; /* by: actor, for the log */
    struct mu_id session, turn;
    unsigned terminal; /* 0 = the agent's */
    mu_bytes data;
    bool line, with_patch;
    int cols, rows;
    struct mu_id conn; /* the caller's connection: TAKE, and what may be barred by that; or empty */
    mu_bytes uid;      /* TAKE: whose it is */
    /* out */
    char held_by[MU_UID_LEN + 1]; /* uid of who alone types; "" = nobody */
    int state;                    /* of the session, as far as known */
    struct mu_buf answer; /* initialised by mu_live_ask(); the caller frees it after done() */
    /* 0; MU_E_FORBIDDEN: another connection has control, see held_by; MU_E_NOT_FOUND (no such
     * session, or another tenant's); MU_E_CONFLICT: not in this state; MU_E_UNAVAILABLE: its runner
     * is not reachable or did not answer in time; MU_E_TOO_LARGE: more input than it takes at once;
     * writer codes. */
    void (*done)(struct mu_live_call *call, int result);
    void *ctx;
    void *own;
    int result;
};
/* The call and what it points at live until done(). */
void mu_live_ask(struct mu_live *l, struct mu_live_call *call);

/* A turn was queued, a gate was resolved, a session was stopped: looks what its runner must be
 * told, or whether that woke it. */
void mu_live_poke(struct mu_live *l, const struct mu_id *session);

/* --- terminals --- */
/* Live bytes are published to the feed under the session's id: type MU_EV_TERMINAL, `epoch` = the
 * number of the terminal, `offset` = of the first byte in the session's terminal (it grows over all
 * attempts). Bytes so far: from memory or the recording. */
struct mu_terminal_read {
    struct mu_post post;
    struct mu_live *live;
    struct mu_loop *loop;
    struct mu_id session;
    unsigned terminal;
    int64_t from; /* -1: the last `limit` bytes */
    size_t limit; /* 1 … 1 MiB */
    /* out */
    int64_t begin, end;     /* of `bytes`: begin > from when older ones are gone */
    int64_t oldest, newest; /* what there is at all; 0,0 = nothing was ever shown */
    struct mu_buf bytes;    /* the caller frees it after done() */
    void (*done)(struct mu_terminal_read *op, int result); /* 0 also when there is nothing */
    void *ctx;
    int result; /* own */
};
void mu_terminal_read(struct mu_live *l, struct mu_terminal_read *op);

#endif
