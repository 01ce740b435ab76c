/* Shared by the files of live sessions. */
#ifndef MU_APP_SESSIONS_LIVE_INT_H
#define MU_APP_SESSIONS_LIVE_INT_H

#include "app/sessions/sessions_int.h"
#include "app/sessions/statements_int.h"

/* A session as its unit finds it. */
struct mu_clocks {
    char org[MU_ORG_LEN + 1];
    int state, route, mode;
    int64_t epoch, deadline_ms, limit_ms, run_deadline_ms, wait_ms, paused_ms;
    int64_t since_ms; /* when it was made, or taken up again from a checkpoint */
    int64_t last_seq; /* of its events */
};
/* Under the stream's lock. MU_E_NOT_FOUND. */
MU_MUST_USE int mu_clocks_read(struct mu_tx *tx, mu_bytes id, struct mu_clocks *ret);
/* For people: takes the stream's lock first; MU_E_NOT_FOUND also for another tenant's. */
MU_MUST_USE int mu_clocks_of(struct mu_tx *tx, mu_bytes id, bool admin, mu_bytes org_id,
                             struct mu_clocks *ret);
/* A move among 60, 64 and 70 with what it does to the clocks; `hold_until_ms` as in live.h. Changes
 * `l` likewise. */
MU_MUST_USE int mu_clocks_move(struct mu_tx *tx, mu_bytes id, struct mu_clocks *l, int to,
                               int64_t now_ms, int64_t hold_until_ms);
/* session, now, since when they stood still: their time goes on. */
extern const struct mu_stmt mu_q_gates_shift;
/* Number of the last message of the attempt's runner that is stored; the conversation of its agent.
 */
extern const struct mu_stmt mu_q_runner_seq, mu_q_runner_seq_set, mu_q_conversation;
/* Is in 60, 64 or 70, at a worker. */
static inline bool mu_clocks_runs(const struct mu_clocks *l)
{
    return l->route == MU_ROUTE_WORKER &&
           (l->state == MU_ST_RUNNING || l->state == MU_ST_WAITING || l->state == MU_ST_PAUSED);
}

/* Its gates' time does not pass: it is paused, whatever holds it. */
static inline bool mu_clocks_stands(const struct mu_clocks *l)
{
    return l->state == MU_ST_PAUSED || l->state == MU_ST_HIBERNATED || l->state == MU_ST_PARKED;
}

/* A gate as its unit finds it. */
struct mu_gate_found {
    int kind, votes;
    int64_t epoch, expires_ms;
    struct mu_gate_known known;
};
MU_MUST_USE int mu_gate_find(struct mu_tx *tx, mu_bytes session, mu_bytes gate,
                             struct mu_gate_found *ret); /* 1, 0 = none, or a code */
/* How many are open that people, or the runners of that attempt and of later ones, asked for: what
 * an earlier one asked for nobody waits for before it is asked for again. */
MU_MUST_USE int mu_gates_pending(struct mu_tx *tx, mu_bytes session, int64_t epoch, int64_t *ret);

/* That gate as lists show it. 1, 0 = none, or a code of each(). */
MU_MUST_USE int mu_gate_by_id(struct mu_db *db, mu_bytes session, mu_bytes gate,
                              int (*each)(void *arg, const struct mu_gate_row *row), void *arg);
/* The link of a decision is used with it. MU_E_STALE: it cannot be. */
MU_MUST_USE int mu_link_use(struct mu_tx *tx, const struct mu_gate_resolve *op);

struct mu_verdict {
    int status, scope, kind;
    mu_bytes reason, answer, by;
    int64_t now_ms;
};
/* The event of a decision; its number is taken. */
MU_MUST_USE int mu_gate_resolved_event(struct mu_tx *tx, mu_bytes gate, const struct mu_verdict *v);
/* Nobody waits for this pending gate any more: it is cancelled. op->state: the session's. */
MU_MUST_USE int mu_gate_withdraw(struct mu_tx *tx, struct mu_gate_delivered *op,
                                 const struct mu_gate_found *found, const struct mu_clocks *l);

#endif
