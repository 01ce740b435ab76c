/* The journal behind a thread of its own, so that the loop never waits for the disk. Requests are
 * done in the order they were made. Loop thread. */
#ifndef MU_WORKER_STORE_H
#define MU_WORKER_STORE_H

#include "io/work.h"
#include "worker/journal.h"

struct mu_store;

/* Takes the journal over. idle(arg): nothing is under way any more. */
MU_MUST_USE int mu_store_new(struct mu_loop *loop, struct mu_journal *journal,
                             void (*idle)(void *arg), void *arg, struct mu_store **ret);
/* Waits for what is under way. The loop has ended or ends. */
struct mu_store *mu_store_free(struct mu_store *s);

/* done(arg, result, bytes): later, on the loop; bytes only of a read, valid inside. `done` may be
 * NULL. -ENOMEM, MU_E_BUSY: nothing was begun. Payloads are copied. */
typedef void (*mu_store_done)(void *arg, int result, mu_bytes bytes);
MU_MUST_USE int mu_store_put(struct mu_store *s, enum mu_journal_kind kind, mu_bytes key,
                             mu_bytes payload, bool sync, mu_store_done done, void *arg);
MU_MUST_USE int mu_store_remove(struct mu_store *s, mu_bytes key);
MU_MUST_USE int mu_store_read(struct mu_store *s, enum mu_journal_kind kind, mu_bytes key,
                              mu_store_done done, void *arg);
/* Requests that are not done yet. */
size_t mu_store_pending(const struct mu_store *s);

#endif
