/* Shared by the files of this context. */
#ifndef MU_APP_SESSIONS_SESSIONS_INT_H
#define MU_APP_SESSIONS_SESSIONS_INT_H

#include "app/sessions/live.h"
#include "proto/json_write.h"

struct mu_sessions {
    struct mu_sessions_opts opts;
    struct mu_metric *created, *ended[MU_OUT_TIMED_OUT + 1], *stale;
    struct mu_metric *ckpt_stored, *ckpt_refused, *ckpt_bytes, *restored, *hibernated, *parked;
};

static inline int64_t mu_sessions_now(const struct mu_sessions *s)
{
    return mu_env_wall_ms(s->opts.env);
}
/* Hands a move of one session to the writer. */
MU_MUST_USE int mu_session_submit(struct mu_sessions *s, struct mu_unit *unit,
                                  const struct mu_id *id,
                                  int (*run)(struct mu_unit *u, struct mu_tx *tx),
                                  void (*done)(struct mu_unit *u, int result));
/* Counts the moves that came too late. Any loop. */
void mu_sessions_note_stale(struct mu_sessions *s, int result);
/* The tenant's counter of live sessions: one less. A session is counted until its end or, if that
 * comes first, until a stop is accepted: from then on clients see it as cancelled. Any loop. */
void mu_sessions_note_stop(struct mu_sessions *s, mu_bytes org_id);
/* After an end has been committed: the tenant's counter, the metric. Any loop. */
void mu_sessions_note_end(struct mu_sessions *s, mu_bytes org_id, int outcome);
/* When the session's row may be purged: now + retention, or 0 (SQL NULL) to keep it. */
int64_t mu_sessions_purge_ms(const struct mu_sessions *s, int64_t now_ms);
/* Gives a quota reservation back or keeps it until free_ms; nothing when there is none. Writer
 * thread. */
MU_MUST_USE int mu_quota_settle(struct mu_tx *tx, const struct mu_quota_settle *q, mu_bytes holder);
/* Reserves; MU_E_SATURATED with next_free_ms. Writer thread. */
MU_MUST_USE int mu_quota_take(struct mu_tx *tx, struct mu_quota_take *q, mu_bytes holder,
                              int64_t now_ms);
/* Deletes whatever hangs on a session; the row itself is the caller's. Writer thread. */
MU_MUST_USE int mu_session_delete_parts(struct mu_tx *tx, mu_bytes id);

/* --- what hangs on a live session --- */
struct mu_open {
    int64_t state, gates, undelivered,
        turns; /* gates pending, decisions not taken, turns not over */
    int64_t epoch;
};
/* Under the stream's lock, before the session moves. MU_E_NOT_FOUND. Writer thread. */
MU_MUST_USE int mu_session_open_read(struct mu_tx *tx, mu_bytes session_id, struct mu_open *ret);
/* The session ends, or (`again`) goes back to the queue: gates are closed, turns are cancelled or
 * wait again. After mu_tx_stream() and, at an end, the session's own move; its events come before
 * what the unit has left. Writer thread. */
MU_MUST_USE int mu_session_close_open(struct mu_tx *tx, mu_bytes session_id,
                                      const struct mu_open *open, int64_t now_ms, bool again);
/* Every turn that is not over is cancelled. Like mu_turns_put_back(). */
MU_MUST_USE int mu_turns_cancel(struct mu_tx *tx, mu_bytes session_id, int64_t now_ms);
/* The first turn of a session that is created: its id and bounds, then its row and event. */
MU_MUST_USE int mu_turn_first_ready(struct mu_sessions *s, struct mu_session_create *op);
MU_MUST_USE int mu_turn_first(struct mu_tx *tx, const struct mu_session_create *op);

/* --- sessions that begin or go on where a checkpoint was (restore.c) --- */
/* The rows that a fork begins with: sets restore_id and fork->conversation. Writer thread. */
MU_MUST_USE int mu_fork_copy(struct mu_session_create *op, struct mu_tx *tx);
/* Whether a session whose runner is lost may go on, and from where: what its row shall say of it.
 * MU_E_CONFLICT: it may not (op->too_often says why). Writer thread. */
struct mu_session_requeue;
MU_MUST_USE int mu_session_go_on(struct mu_session_requeue *op, struct mu_tx *tx);
/* After it was put back. */
MU_MUST_USE int mu_session_went_on(struct mu_session_requeue *op, struct mu_tx *tx);

/* --- events that several units write --- */
struct mu_state_change {
    int from, to;
    int outcome;        /* -1 = not said */
    const char *reason; /* a word, or NULL */
    mu_bytes by, note;  /* actor; text of people: ptr NULL = not said, each */
};
MU_MUST_USE int mu_state_event(struct mu_tx *tx, int64_t now_ms, const struct mu_state_change *c);
/* ENDED, which says the same again. */
MU_MUST_USE int mu_ended_event(struct mu_tx *tx, int64_t now_ms, const struct mu_state_change *c);
/* Its members, for an object that says more. */
void mu_state_change_add(struct mu_json_w *w, const struct mu_state_change *c);

/* --- stops --- */
enum { MU_STOP_GRACE_MS = 30000 };
struct mu_who {
    char org[MU_ORG_LEN + 1];
    int state, route, mode;
    bool attached; /* something may run it: a stop ends it only when that was told */
};
/* MU_E_NOT_FOUND also for another tenant's session (G6). */
MU_MUST_USE int mu_session_look_up(struct mu_tx *tx, mu_bytes id, bool admin, mu_bytes org_id,
                                   struct mu_who *ret);
/* Accepts a stop of a session that has not ended; *ret_state is what it becomes. MU_E_STALE. Under
 * the stream's lock; takes its own event numbers. Writer thread; afterwards
 * mu_sessions_note_stop(). */
struct mu_stop {
    int64_t now_ms, purge_ms;
    enum mu_end_reason reason;
    mu_bytes by, note;
};
MU_MUST_USE int mu_session_stop(struct mu_tx *tx, mu_bytes id, const struct mu_stop *stop,
                                int *ret_state);

extern const struct mu_stmt mu_q_chunks_drop, mu_q_attempt_end;

#endif
