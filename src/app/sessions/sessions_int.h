/* Shared by the files of this context. */
#ifndef MU_APP_SESSIONS_SESSIONS_INT_H
#define MU_APP_SESSIONS_SESSIONS_INT_H

#include "app/sessions/sessions.h"

struct mu_sessions {
    struct mu_sessions_opts opts;
    struct mu_metric *created, *ended[MU_OUT_TIMED_OUT + 1], *stale;
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

/* A row callback's helper: the first column of the first row as an integer. `arg` is an int64_t. */
int mu_row_take_i64(void *arg, struct mu_row *row);

extern const struct mu_stmt mu_q_chunks_drop, mu_q_attempt_end;

#endif
