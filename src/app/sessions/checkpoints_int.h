/* Shared by the files of checkpoints. */
#ifndef MU_APP_SESSIONS_CHECKPOINTS_INT_H
#define MU_APP_SESSIONS_CHECKPOINTS_INT_H

#include "app/sessions/checkpoints.h"
#include "app/sessions/live_int.h"

/* One checkpoint and those that it needs, the newest first. */
struct mu_chain {
    struct mu_chain_link {
        struct mu_id id;
        int64_t epoch, number;
    } links[MU_CHECKPOINT_CHAIN];
    size_t n;
    struct mu_id want; /* own: the next one; empty = all are there */
};
/* MU_E_NOT_FOUND: no such checkpoint of that session; MU_E_CORRUPT: a part of its chain is missing.
 * On any connection. */
MU_MUST_USE int mu_chain_read(struct mu_db *db, mu_bytes session, mu_bytes checkpoint,
                              struct mu_chain *ret);
/* The names of its parts as a JSON array. */
MU_MUST_USE int mu_chain_names(struct mu_db *db, mu_bytes session, const struct mu_chain *chain,
                               struct mu_buf *dst);

/* Parts of a unit; after mu_tx_stream(). Writer thread. */
/* Removes the oldest chain that is not the newest one: 1, or 0 when there is none. */
MU_MUST_USE int mu_checkpoints_prune(struct mu_tx *tx, mu_bytes session);
/* All of a session; takes its stream itself, when the unit holds no event numbers. */
MU_MUST_USE int mu_checkpoints_drop(struct mu_tx *tx, mu_bytes session);
/* Behind a move of a session: if it ended, the parts of those that nobody finished. */
MU_MUST_USE int mu_checkpoints_ended(struct mu_tx *tx, mu_bytes session);

#endif
