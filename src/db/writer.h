/* The group-committing writer (data-model.md 4.2): one thread that takes units in order, runs each
 * in a savepoint inside one transaction, commits durably, publishes the committed events, and then
 * completes every unit on its loop. */
#ifndef MU_DB_WRITER_H
#define MU_DB_WRITER_H

#include "base/metrics.h"
#include "db/driver.h"
#include "db/feed.h"
#include "io/loop.h"

struct mu_writer;
struct mu_tx; /* a unit's view of the running transaction; writer thread only, valid during run() */

/* What one operation changes. Embedded in the operation's own object. Ids, times and encoded JSON
 * are fixed before submission: run() may be called again from the start with the same inputs after
 * a rollback, so it must not change them. */
struct mu_unit {
    struct mu_post post;                             /* used by the writer */
    int (*run)(struct mu_unit *u, struct mu_tx *tx); /* writer thread; < 0 rolls this unit back */
    void (*done)(struct mu_unit *u,
                 int result); /* on `loop`, after the commit is durable (run()'s result >= 0), or
                                 with the code that failed it; exactly once */
    struct mu_loop *loop;
    mu_bytes org_id, stream_id; /* order inside a PostgreSQL batch; may be empty */
    bool alone;                 /* large (an 8 MiB result): a batch of its own */
    int result;                 /* used by the writer */
};

struct mu_writer_opts {
    struct mu_db_opts db;
    const struct mu_env *env;
    struct mu_feed *feed; /* gets the committed events */
    /* Bits of the types of events that also the topics "org:" and whose stream it is, and "org:*",
     * hear of (db/feed.h); types above 63 do not. */
    uint64_t org_types;
    struct mu_metrics *metrics; /* may be NULL */
    size_t max_queue; /* units waiting; beyond it submit answers MU_E_BUSY (default 65536) */
    size_t max_batch; /* 256 on SQLite, 60 on PostgreSQL */
    bool crash_before_commit; /* tests */
};

/* Opens its connection, takes the server lock (mu_db_lock), checks, migrates, starts the thread.
 * Worded errors. */
MU_MUST_USE int mu_writer_new(const struct mu_writer_opts *opts, struct mu_writer **ret,
                              struct mu_err *err);
/* Commits what is queued, completes everything, closes the connection and releases the lock. The
 * loops must still run (or be run afterwards) for the completions. */
struct mu_writer *mu_writer_free(struct mu_writer *w);

/* Any thread. 0, MU_E_BUSY (queue full), MU_E_UNAVAILABLE (the database is gone or full just now:
 * probes go on by themselves), MU_E_SHUTDOWN. done() is not called when this fails. */
MU_MUST_USE int mu_writer_submit(struct mu_writer *w, struct mu_unit *u);
/* Whether the last commit or probe worked. Any thread. */
bool mu_writer_healthy(struct mu_writer *w);
/* The words of the last trouble (code 0 while healthy). Any thread. */
void mu_writer_trouble(struct mu_writer *w, struct mu_err *ret);
/* Units waiting now. Any thread. */
size_t mu_writer_queue(struct mu_writer *w);

/* --- inside run() --- */
struct mu_db *mu_tx_db(struct mu_tx *tx);
/* Takes the stream's lock and its next `n` event numbers ("every unit on a session starts with
 * it"). MU_E_NOT_FOUND when there is no such stream. Exactly n events must follow (checked at the
 * unit's end), or n = 0 to lock only. Taken again while some are left, it adds to them. The id
 * lives until the unit's end. */
MU_MUST_USE int mu_tx_stream(struct mu_tx *tx, mu_bytes stream_id, unsigned n);
/* A new stream whose first `n` numbers are taken. Ids live until the unit's end. */
MU_MUST_USE int mu_tx_stream_new(struct mu_tx *tx, mu_bytes stream_id, mu_bytes org_id, unsigned n);
/* Appends the next event of the stream taken last. `data` is JSON of at most 16 KiB; `type` a
 * number of events.def. */
MU_MUST_USE int mu_tx_event(struct mu_tx *tx, int type, int64_t at_ms, mu_bytes actor,
                            mu_bytes data);
/* Shorthands for mu_db_run/mu_db_send on the transaction's connection. */
#define MU_TX_RUN(tx, stmt, fn, arg, ...)                                                          \
    mu_db_run(mu_tx_db(tx), stmt, (const struct mu_val[]){__VA_ARGS__},                            \
              sizeof((const struct mu_val[]){__VA_ARGS__}) / sizeof(struct mu_val), fn, arg)
#define MU_TX_SEND(tx, stmt, expect, ...)                                                          \
    mu_db_send(mu_tx_db(tx), stmt, (const struct mu_val[]){__VA_ARGS__},                           \
               sizeof((const struct mu_val[]){__VA_ARGS__}) / sizeof(struct mu_val), expect)

#endif
