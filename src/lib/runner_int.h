/* What the files of the host's runners share: a worker without a connection (app/fleet/fleet.h)
 * and, for each execution, the runner's end of docs/runner-protocol.md. Loop thread, but for what
 * is under cp->lock. */
#ifndef MU_LIB_RUNNER_INT_H
#define MU_LIB_RUNNER_INT_H

#include "lib/cp_int.h"

enum {
    MU_CP_TERMINALS = 8,
    MU_CP_WINDOW = 512 << 10, /* terminal bytes sent ahead of what was taken */
    MU_CP_PIECE = 64 << 10,
    MU_CP_KNOWN = 64, /* turns that are remembered */
    MU_CP_OPEN = 64,  /* approvals that are */
    MU_CP_ALIVE_MS = 10000,
    MU_CP_AGAIN_MS = 100,
    MU_CP_MESSAGE = 1 << 20,
    MU_CP_NUMBER = 40, /* room for {"seq":…, */
};

/* A message that is not stored yet: made where the host says it, so that nothing can fail later. */
struct cp_said {
    struct mu_list link;
    int64_t seq;
    size_t at, len;    /* of the JSON object in `text`, once it has its number */
    size_t rest, cost; /* what is behind the number; of it in x->kept */
    char text[];       /* MU_CP_NUMBER bytes, then the rest */
};

struct cp_terminal {
    int64_t acked, sent; /* offsets: the buffer begins at `acked` */
    struct mu_buf bytes;
};

struct cp_exec {
    struct mu_list link; /* r->execs; under cp->lock */
    struct mu_cp_runner *r;
    struct mu_execution of;
    size_t kept, says; /* bytes and messages that were said and not stored; under cp->lock */
    bool accepted;     /* of the host, and told to the fleet */
    bool begun;        /* its runner has said hello */
    bool talking, ended;
    int told; /* the state that the worker told last */
    int64_t end_seq;
    int64_t seq; /* of the runner's messages */
    struct mu_list said;
    struct mu_timer again;
    struct cp_terminal terminals[MU_CP_TERMINALS];
    struct mu_id turns[MU_CP_KNOWN], open[MU_CP_OPEN];
    unsigned n_turns, n_open;
    char running_turn[MU_ID_LEN + 1];
};

struct mu_cp_runner {
    struct mu_list link; /* cp->runners; under cp->lock */
    struct mu_cp *cp;
    mu_cp_runner_ops ops;
    void *user;
    struct mu_peer peer;
    struct mu_admission admission;
    struct mu_post open_post, close_post;
    struct mu_timer alive;
    char name[MU_WORKER_NAME_MAX + 1], version[65];
    struct mu_buf caps;
    int64_t capacity;
    bool attached, closing;
    bool welcome, refused, released, fenced; /* flags somebody waits for, under cp->lock */
    int result;
    struct mu_list execs;
};

/* --- runner.c --- */
/* Under cp->lock or on the loop. */
struct cp_exec *mu_lib_exec_find(struct mu_cp_runner *r, mu_bytes session);
void mu_lib_report(struct cp_exec *x, enum mu_report_kind kind, int64_t seq, int state);
MU_MUST_USE int mu_lib_report_new(struct cp_exec *x, enum mu_report_kind kind,
                                  struct mu_report **ret);
void mu_lib_exec_free(struct cp_exec *x);

/* --- runner_talk.c: the protocol --- */
/* A message without its number: "type":…}; NULL: no memory. Any thread. */
struct cp_said *mu_lib_said_new(mu_bytes rest);
/* Takes it; its bytes are reserved. */
void mu_lib_talk_say(struct cp_exec *x, struct cp_said *s);
/* Words that stream: nobody keeps them. */
void mu_lib_talk_stream(struct cp_exec *x, mu_bytes json);
void mu_lib_talk_terminal(struct cp_exec *x, unsigned n, mu_bytes bytes);
void mu_lib_talk_begin(struct cp_exec *x); /* hello, if it did not say it yet */
void mu_lib_talk_hear(struct cp_exec *x, mu_bytes json);
void mu_lib_talk_init(struct cp_exec *x);
void mu_lib_talk_fini(struct cp_exec *x);

/* --- runner_tell.c: what the host hears --- */
enum cp_heard_kind {
    CP_STOP,
    CP_PROMPT,
    CP_DECIDED,
    CP_INPUT,
    CP_RESIZE,
    CP_INTERRUPT,
    CP_END,
    CP_PAUSE,
    CP_MESSAGE,
};
struct cp_heard {
    struct cp_item item;
    enum cp_heard_kind kind;
    struct mu_execution of;
    struct mu_id command; /* PAUSE */
    struct mu_arena arena;
    mu_bytes a, b, c, d, e, f;
    int64_t n, m, k;
};
/* NULL: no memory, or the host is too slow for what need not be heard now. */
struct cp_heard *mu_lib_heard_new(struct cp_exec *x, enum cp_heard_kind kind);
/* Takes it, copies its texts; false: no memory, it is gone. */
bool mu_lib_heard_give(struct cp_exec *x, struct cp_heard *h);
/* Takes the order. */
void mu_lib_heard_start(struct cp_exec *x, struct mu_order *o);

#endif
