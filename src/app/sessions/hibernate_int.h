/* Parts of units that put sessions to sleep or wake them; after mu_tx_stream(), they take their own
 * event numbers. Writer thread. */
#ifndef MU_APP_SESSIONS_HIBERNATE_INT_H
#define MU_APP_SESSIONS_HIBERNATE_INT_H

#include "app/sessions/hibernate.h"
#include "app/sessions/live_int.h"

/* The newest checkpoint: 1, 0 = there is none, or a code. `conversation` has MU_CONVERSATION_MAX +
 * 1 bytes. (restore.c) */
struct mu_found_checkpoint {
    struct mu_id id;
    int64_t seq, epoch, number;
    char *conversation;
};
MU_MUST_USE int mu_checkpoint_newest(struct mu_tx *tx, mu_bytes session,
                                     struct mu_found_checkpoint *ret);

/* 66, 74 or 76 -> 22. What the gates still have is moved by the time that it was paused. */
MU_MUST_USE int mu_wake(struct mu_tx *tx, struct mu_sessions *s, mu_bytes id, struct mu_clocks *l,
                        int64_t now_ms, mu_bytes by);

/* It lost its sandbox and cannot go on now: `from` -> 76, with that text, unless it has no
 * checkpoint (MU_E_CONFLICT). Its attempt, if any, its gates and turns are the caller's. */
struct mu_park {
    int64_t epoch, now_ms, hold_until_ms;
    int from;
    mu_bytes text;
};
MU_MUST_USE int mu_park(struct mu_tx *tx, mu_bytes id, const struct mu_park *p);

#endif
