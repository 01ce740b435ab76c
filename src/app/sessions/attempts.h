/* A session's attempt at a worker (data-model.md 5.3, 5.4): offered, acknowledged, put back or
 * lost, and what the assignment must contain. The end is mu_session_end(). Every move is fenced by
 * the epoch and may be asked for again: MU_E_STALE says that the session moved meanwhile.
 *
 * Operations are structs that live until done() ran, like those of sessions.h. */
#ifndef MU_APP_SESSIONS_ATTEMPTS_H
#define MU_APP_SESSIONS_ATTEMPTS_H

#include "app/sessions/sessions.h"

/* 22 -> 30 with a new attempt. */
struct mu_session_offer {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id, execution_id; /* execution_id: the caller's, its last 8 characters random */
    int64_t epoch;                 /* in: the one known; out: the new one */
    mu_bytes worker_id;
    int64_t conn;                /* of the worker's connection */
    struct mu_digest_hex token;  /* hash of the session token */
    int64_t now_ms, deadline_ms; /* deadline: whoever drives the attempt acts before it */
    int64_t lease_ms;            /* the attempt is the worker's until then, unless renewed */
    bool noted;                  /* takes the text of mu_session_note() back */
    void (*done)(struct mu_session_offer *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_offer(struct mu_sessions *s, struct mu_session_offer *op);

/* 30 -> 40, 50 or 60, or further among these; never back. The first step acknowledges the attempt.
 */
struct mu_session_step {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch, now_ms, deadline_ms, lease_ms;
    int from, to; /* from: as known, for the log */
    void (*done)(struct mu_session_step *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_step(struct mu_sessions *s, struct mu_session_step *op);

/* 30, 40 or 50 (or, `lost`, also 60, 64, 70) -> 22 at its old place: refused, not confirmed,
 * unsent, lost. MU_E_STALE also when a stop was accepted: then it has to end. Its gates are
 * cancelled; the turn under way waits again. */
struct mu_session_requeue {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch; /* in; out: the new one */
    int64_t now_ms, deadline_ms;
    int from;
    bool counts; /* as an execution that was lost */
    /* Its runner is lost, and a live session may go on: from its newest checkpoint, or (a task that
     * asked for retryOnRunnerLoss and has none) from the beginning. done() gets MU_E_CONFLICT when
     * it may not: then it has to end. */
    bool lost;
    bool too_often; /* out: it lost too many runners without a turn that was done in between … */
    bool parked;    /* out: … and, interactive, it waits to be woken (76), as a success */
    int64_t park_until_ms; /* in: its deadline then; 0: it is not parked */
    enum mu_attempt_outcome outcome;
    const char *reason; /* a sentence without quotes: shown, and kept with the attempt */
    void (*done)(struct mu_session_requeue *op, int result);
    void *ctx;
    char event[256];
    /* own */
    struct mu_id restore;
    int64_t restore_number;
    char conversation[1025];
};
MU_MUST_USE int mu_session_requeue(struct mu_sessions *s, struct mu_session_requeue *op);

/* 22 -> 22: why it waits, for people: its message until it is offered. An empty text takes it back.
 * MU_E_STALE: it does not wait any more. */
struct mu_session_note {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch, now_ms;
    const char *text; /* plain characters, no quotes */
    void (*done)(struct mu_session_note *op, int result);
    void *ctx;
    char event[400];
};
MU_MUST_USE int mu_session_note(struct mu_sessions *s, struct mu_session_note *op);

/* A file that the attempt leaves: its object is stored already. A file of the same name is
 * replaced. MU_E_STALE: the attempt is over; MU_E_EXISTS: an input image has that name; MU_E_LIMIT:
 * more than MU_RUN_FILES files or MU_RUN_FILE_BYTES bytes. */
struct mu_session_attach {
    struct mu_unit unit;
    struct mu_id session, file;
    int64_t epoch;
    mu_bytes name, media_type;
    int64_t bytes;
    struct mu_digest_hex sha256;
    struct mu_id replaced; /* out: the object that is nobody's any more, or empty */
    void (*done)(struct mu_session_attach *op, int result);
    void *ctx;
    /* own */
    int64_t now_ms, other_bytes, n_others;
    char org_id[MU_ORG_LEN + 1];
    bool taken;
};
MU_MUST_USE int mu_session_attach(struct mu_sessions *s, struct mu_session_attach *op);

/* What a worker is told of a session; texts live in the arena, which the caller initialises. */
struct mu_session_job {
    struct mu_read read;
    struct mu_sessions *sessions;
    struct mu_id id;
    struct mu_arena arena;
    mu_bytes prompt, title, harness, model, skill, spec, environment_id,
        env_snapshot;                   /* the last two: ptr NULL = none */
    mu_bytes restore_id, restore_parts; /* the checkpoint that it begins with and the names of the
                                           parts, a JSON array; ptr NULL = none */
    int64_t created_ms;
    void (*done)(struct mu_session_job *op, int result); /* MU_E_NOT_FOUND */
    void *ctx;
};
MU_MUST_USE int mu_session_job_read(struct mu_sessions *s, struct mu_session_job *op);

/* The stored output so far: its bytes from `from` on, as much as is kept. */
struct mu_session_chunks {
    struct mu_read read;
    struct mu_sessions *sessions;
    struct mu_id id;
    struct mu_buf text; /* initialised by the caller */
    int64_t begin, end; /* out: offsets of the first byte of `text` and behind the last one; a text
                           of which a middle part was dropped begins behind that part */
    void (*done)(struct mu_session_chunks *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_chunks_read(struct mu_sessions *s, struct mu_session_chunks *op);

/* Start-up: every attempt at a worker that has not ended. */
struct mu_attempt_row {
    mu_bytes session_id, execution_id, worker_id, token_hash, org_id, pin_worker_id;
    int64_t epoch, conn, offered_ms, acked_ms, queued_ms, deadline_ms, stop_ms, output_bytes, needs;
    int state, tries; /* of the session */
};
MU_MUST_USE int mu_sessions_each_attempt(struct mu_db *db,
                                         int (*each)(void *arg, const struct mu_attempt_row *row),
                                         void *arg);

/* The reason of an attempt that ended without a word of its worker. */
#define MU_ATT_UNSETTLED "unsettled"
/* Start-up: attempts that ended since `since_ms` without a word of their worker, which may be
 * running them still: of sessions made since `made_ms`, and not those of a session that the same
 * worker holds again. At most 10,000. */
MU_MUST_USE int mu_sessions_each_unsettled(struct mu_db *db, int64_t made_ms, int64_t since_ms,
                                           int (*each)(void *arg, const struct mu_attempt_row *row),
                                           void *arg);

#endif
