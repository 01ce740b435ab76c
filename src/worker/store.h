/* The journal behind a thread of its own, so that the loop never waits for the disk. Requests are
 * done in the order they were made. Loop thread. */
#ifndef MU_WORKER_STORE_H
#define MU_WORKER_STORE_H

#include "io/work.h"
#include "worker/journal.h"

struct mu_jstore;

/* Takes the journal over. idle(arg): nothing is under way any more. */
MU_MUST_USE int mu_jstore_new(struct mu_loop *loop, struct mu_journal *journal,
                              void (*idle)(void *arg), void *arg, struct mu_jstore **ret);
/* Waits for what runs; what waits is dropped, and nobody is told of either any more. The loop has
 * ended, and is freed after this. */
struct mu_jstore *mu_jstore_free(struct mu_jstore *s);

/* done(arg, result, bytes): later, on the loop; bytes only of a read, valid inside. `done` may be
 * NULL. -ENOMEM, MU_E_BUSY: nothing was begun. Payloads are copied. */
typedef void (*mu_jstore_done)(void *arg, int result, mu_bytes bytes);
MU_MUST_USE int mu_jstore_put(struct mu_jstore *s, enum mu_journal_kind kind, mu_bytes key,
                              mu_bytes payload, bool sync, mu_jstore_done done, void *arg);
MU_MUST_USE int mu_jstore_remove(struct mu_jstore *s, mu_bytes key);
MU_MUST_USE int mu_jstore_read(struct mu_jstore *s, enum mu_journal_kind kind, mu_bytes key,
                               mu_jstore_done done, void *arg);
/* Requests that are not done yet. */
size_t mu_jstore_pending(const struct mu_jstore *s);

#endif
