/* What a worker must not lose when it is killed: for each execution the record of its start and its
 * end (the terminal message, until the server has it). One append-only file with a checksum a
 * record; a torn tail is cut off; dead records are compacted away. Blocking; one thread at a time
 * (store.h puts a thread in front). */
#ifndef MU_WORKER_JOURNAL_H
#define MU_WORKER_JOURNAL_H

#include "base/buf.h"
#include "base/err.h"

enum mu_journal_kind { MU_JOURNAL_START = 1, MU_JOURNAL_END = 2, MU_JOURNAL_GONE = 3 };
enum {
    MU_JOURNAL_MAX_KEY = 128,
    MU_JOURNAL_MAX_RECORD = 64 << 20, /* of one session */
};
#define MU_JOURNAL_MAX_LIVE (INT64_C(1) << 30) /* of all together */

struct mu_journal;

/* Opens or makes `path` (0600). *ret_lost = bytes of a torn or damaged tail that were cut off.
 * Worded errors. */
MU_MUST_USE int mu_journal_open(const char *path, struct mu_journal **ret, int64_t *ret_lost,
                                struct mu_err *err);
struct mu_journal *mu_journal_close(struct mu_journal *j);

/* Writes a record (START or END); it replaces the one of the same key and kind. `sync`: it is on
 * the disk at return. MU_E_LIMIT (over the bounds), MU_E_DISK_FULL, MU_E_INVALID (key), -errno; the
 * journal is as before then. */
MU_MUST_USE int mu_journal_put(struct mu_journal *j, enum mu_journal_kind kind, mu_bytes key,
                               mu_bytes payload, bool sync);
/* Both records of the key are done with. */
MU_MUST_USE int mu_journal_remove(struct mu_journal *j, mu_bytes key);
/* Appends the payload to `dst`. MU_E_NOT_FOUND, MU_E_CORRUPT, -errno. */
MU_MUST_USE int mu_journal_read(struct mu_journal *j, enum mu_journal_kind kind, mu_bytes key,
                                struct mu_buf *dst);
/* Walks the live keys, in no order: start with *at = 0; empty bytes at the end. Which records it
 * has. */
mu_bytes mu_journal_next(const struct mu_journal *j, size_t *at, bool *ret_start, bool *ret_end);
/* Bytes of the file and of what is live in it. */
int64_t mu_journal_size(const struct mu_journal *j);
int64_t mu_journal_live(const struct mu_journal *j);

#endif
