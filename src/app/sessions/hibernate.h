/* Interactive sessions that wait for people hold no worker (village-control-plane.md 13.2): behind
 * a checkpoint their execution is ended, and whatever wakes them puts them back into the queue with
 * it. A parked one lost its sandbox and is woken the same way.
 *
 * Operations are like those of live.h. */
#ifndef MU_APP_SESSIONS_HIBERNATE_H
#define MU_APP_SESSIONS_HIBERNATE_H

#include "app/sessions/live.h"

/* 60 or 70 -> 74, 64 -> 66, behind the checkpoint `number` of this attempt, which must be the
 * newest. The turn under way waits again, and that was no try; its gates stay as they are.
 * MU_E_CONFLICT: it is needed after all (`state` says what it is in), or it must not: somebody
 * other than its runner asks, or a request cannot be known again. MU_E_STALE: the attempt is over.
 */
struct mu_session_sleep {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    struct mu_id id;
    int64_t epoch, number;
    int from;              /* 60, 64, 70 */
    int64_t hold_until_ms; /* its deadline */
    int state;             /* out: of the session */
    int64_t now_ms;
    void (*done)(struct mu_session_sleep *op, int result);
    void *ctx;
    /* own */
    struct mu_id restore;
    char conversation[MU_CONVERSATION_MAX + 1];
};
MU_MUST_USE int mu_session_sleep(struct mu_sessions *s, struct mu_session_sleep *op);

/* 66, 74, 76 -> 22, by people. MU_E_NOT_FOUND; MU_E_CONFLICT: it does not sleep. Afterwards, like
 * after everything else that may have woken it: mu_live_poke(). */
struct mu_session_wake {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    bool admin;
    mu_bytes org_id, by;
    struct mu_id id;
    int64_t now_ms;
    void (*done)(struct mu_session_wake *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_wake(struct mu_sessions *s, struct mu_session_wake *op);

/* A session that waits for a worker, as mu_sessions_each_live() would say it. MU_E_NOT_FOUND: it
 * does not. */
struct mu_session_queued {
    struct mu_read read;
    struct mu_id id;
    struct mu_live_row row; /* out; its texts point into the next two */
    char org_id[MU_ORG_LEN + 1];
    char *pin; /* the caller frees it (mu_free) */
    void (*done)(struct mu_session_queued *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_queued_read(struct mu_sessions *s, struct mu_session_queued *op);

/* Those that may hibernate, at most MU_SLEEPY_PAGE: interactive ones in 60 without an open turn and
 * without a gate, in 64, or in 70, whose last move or turn is older. A full page may have another
 * one behind its last. */
enum { MU_SLEEPY_PAGE = 128 };
struct mu_sleepy {
    struct mu_id id;
    int state;
    int64_t epoch;
};
struct mu_session_sleepies {
    struct mu_read read;
    int64_t idle_before_ms, waiting_before_ms, paused_before_ms; /* INT64_MIN = none, each */
    struct mu_sleepy after; /* the last one of the page before; an empty id: the first page */
    struct mu_sleepy found[MU_SLEEPY_PAGE]; /* out */
    size_t n;
    void (*done)(struct mu_session_sleepies *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_session_sleepies(struct mu_sessions *s, struct mu_session_sleepies *op);

#endif
