/* Checkpoints of live sessions: what the agent, its workspace and its conversation were after a
 * turn (docs/runner-protocol.md). A checkpoint is a row with what its runner said of it and 0..n
 * parts, stored objects that belong to no list of files. It needs those before it in its chain,
 * which are of the same execution; a fork begins with a copy of the rows of its source's chain and
 * shares the objects.
 *
 * Operations are like those of live.h. */
#ifndef MU_APP_SESSIONS_CHECKPOINTS_H
#define MU_APP_SESSIONS_CHECKPOINTS_H

#include "app/sessions/sessions.h"

enum {
    MU_CHECKPOINT_PARTS = 256, /* of one checkpoint */
    MU_CHECKPOINT_ROOTS = 256,
    MU_CHECKPOINT_PART_BYTES = 16 << 20,
    MU_CHECKPOINT_MANIFEST = 256 << 10,
    MU_CHECKPOINT_ROWS = 1000,      /* of one session: beyond that the oldest chains go … */
    MU_CHECKPOINT_PART_ROWS = 8192, /* … and beyond that no part is taken */
    MU_LOSSES_MAX = 3,              /* with no turn done in between: it is parked, a task fails */
};

/* "ckpt-<epoch>-<number>-<part>.pack": false = the name of an ordinary file. */
bool mu_checkpoint_name(mu_bytes name, int64_t *ret_epoch, int64_t *ret_number);

/* A part: its object is stored already. One of the same name is replaced. MU_E_STALE: the attempt
 * is over; MU_E_LIMIT: more than a session may keep, although all that may go went; MU_E_TOO_LARGE;
 * MU_E_INVALID: no such name, or of another epoch. */
struct mu_checkpoint_put {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id session, object;
    int64_t epoch;
    mu_bytes name;
    int64_t bytes;
    struct mu_digest_hex sha256;
    void (*done)(struct mu_checkpoint_put *op, int result);
    void *ctx;
    int64_t number; /* own */
};
MU_MUST_USE int mu_checkpoint_put(struct mu_sessions *s, struct mu_checkpoint_put *op);

struct mu_checkpoint_part {
    mu_bytes name, sha256;
    int64_t bytes;
};
/* The runner says that it took one: stored with the runner's number `runner_seq` and the event
 * CHECKPOINT_TAKEN, or (`refused`) only that number and the event ALERT_RAISED. What is left of
 * those up to it that were never finished goes. MU_E_STALE; MU_E_MISMATCH: `runner_seq` is not the
 * next number. */
struct mu_checkpoint_take {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch, runner_seq;
    int64_t number, prev;           /* prev: 0 = the first of a chain */
    mu_bytes turn_id, conversation; /* ptr NULL = none, each */
    mu_bytes manifest;              /* JSON object: roots, parts */
    const struct mu_checkpoint_part *parts;
    size_t n_parts;
    const char *bad; /* the caller found that it cannot be one: why; else NULL */
    /* out */
    bool repeated;
    const char *refused; /* why, or NULL */
    int64_t bytes;
    struct mu_id checkpoint;
    int64_t now_ms;
    void (*done)(struct mu_checkpoint_take *op, int result);
    void *ctx;
    struct mu_id fresh; /* own */
    char event[480];
};
MU_MUST_USE int mu_checkpoint_take(struct mu_sessions *s, struct mu_checkpoint_take *op);

/* --- reading: rows are valid inside the callback, which runs on a reader thread --- */
struct mu_checkpoint_row {
    mu_bytes id, turn_id, conversation; /* ptr NULL = none, the last two */
    mu_bytes manifest;                  /* as in mu_checkpoint_take; lists have none */
    int64_t seq /* counts in the session, from 1 */, number, prev,
        epoch /* 0: of a fork's source */, bytes, created_ms;
};
typedef int (*mu_checkpoint_fn)(void *arg, const struct mu_checkpoint_row *row);

/* What the attempt of that epoch is to begin with: the chain, oldest first. MU_E_NOT_FOUND: with
 * nothing, or it is over. */
struct mu_checkpoint_chain {
    struct mu_read read;
    struct mu_id session;
    int64_t epoch;
    mu_checkpoint_fn each;
    void *arg;
    void (*done)(struct mu_checkpoint_chain *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_checkpoint_chain(struct mu_sessions *s, struct mu_checkpoint_chain *op);

/* The object of one part of it. MU_E_NOT_FOUND. */
struct mu_checkpoint_find {
    struct mu_read read;
    struct mu_id session;
    int64_t epoch;
    mu_bytes name;
    struct mu_id object; /* out */
    void (*done)(struct mu_checkpoint_find *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_checkpoint_find(struct mu_sessions *s, struct mu_checkpoint_find *op);

/* Those of a session, newest first, at most MU_CHECKPOINT_PAGE before `before` (0 = from the
 * newest). MU_E_NOT_FOUND. */
enum { MU_CHECKPOINT_PAGE = 200 };
struct mu_checkpoint_list {
    struct mu_read read;
    bool admin;
    mu_bytes org_id;
    struct mu_id session;
    int64_t before;
    mu_checkpoint_fn each;
    void *arg;
    void (*done)(struct mu_checkpoint_list *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_checkpoint_list(struct mu_sessions *s, struct mu_checkpoint_list *op);

/* --- what is not needed any more --- */
/* On the core loop: checkpoints go `keep_ms` after the end of their session, and objects that
 * nobody names any more are removed. */
struct mu_keeper;
struct mu_keeper_opts {
    struct mu_loop *core;
    struct mu_sessions *sessions;
    struct mu_work *work;
    int64_t keep_ms;
    void (*object_gone)(void *arg, mu_bytes object_id); /* work pool */
    void *arg;
};
MU_MUST_USE int mu_keeper_new(const struct mu_keeper_opts *opts, struct mu_keeper **ret);
/* Looks first after that time; -1 = the usual one. */
void mu_keeper_start(struct mu_keeper *k, int64_t delay_ms);
/* Nothing is begun from here on; stopped() when nothing is under way. */
void mu_keeper_stop(struct mu_keeper *k, void (*stopped)(void *arg), void *arg);
struct mu_keeper *mu_keeper_free(struct mu_keeper *k);

#endif
