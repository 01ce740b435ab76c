/* The writer's inside: writer.c (queue and thread), batch.c (one transaction), recover.c (what
 * follows when the engine fails), tx.c (a unit's view). */
#ifndef MU_DB_WRITER_INT_H
#define MU_DB_WRITER_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/id.h"
#include "db/db_int.h"
#include "db/writer.h"

enum { MU_TX_ORG = 44 };      /* with "org:" in front it fits into a watch */
enum { MU_WRITER_SPLIT = 1 }; /* a unit failed in a transaction without savepoints */

struct mu_tx {
    struct mu_writer *w;
    mu_bytes stream_id; /* taken last; its numbers next_seq .. next_seq + left - 1 are to be used */
    char org[MU_TX_ORG]; /* whose it is */
    int64_t next_seq;
    unsigned left;
    bool misused;      /* fewer or more events than numbers */
    struct mu_buf log; /* this transaction's events, for the feed */
};

struct mu_writer {
    struct mu_writer_opts opts;
    char *url;
    int lock_fd;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* under the lock */
    struct mu_post *first, **end;
    size_t queued;
    bool asleep, stopping;
    struct mu_err trouble;
    atomic_bool healthy;
    /* writer thread */
    struct mu_db *db; /* NULL while PostgreSQL is gone */
    struct mu_unit **batch;
    struct mu_tx tx;
    int fail_score;  /* how often batches had a failing unit lately, 0..1024 */
    bool crashing;   /* crash_before_commit */
    bool committing; /* COMMIT was sent and not answered */
    bool unsure;     /* tx.log may be committed: known when the database is back */
    bool ousted;     /* another server took the database over: never healthy again */
    int64_t mark;    /* PostgreSQL: batches committed, servers.src_seq */
    struct mu_id instance;
    struct mu_metric *units, *batches, *retries, *commit_time, *queue;
};

/* tx.c */
void mu_tx_reset(struct mu_tx *tx);      /* a new transaction */
void mu_tx_start_unit(struct mu_tx *tx); /* a unit begins */
int mu_tx_end_unit(struct mu_tx *tx);    /* MU_E_INTERNAL when its numbers were not all used */
void mu_tx_publish(struct mu_tx *tx);    /* after the commit */

/* batch.c: runs, commits, publishes and completes. */
void mu_writer_process(struct mu_writer *w, struct mu_unit **units, size_t n);

/* recover.c */
enum mu_settled { MU_SETTLED_COMMITTED, MU_SETTLED_AGAIN, MU_SETTLED_FAILED };
/* After a transaction that ended with an engine's code. FAILED leaves the writer unhealthy. */
enum mu_settled mu_writer_settle(struct mu_writer *w, int code);
/* One attempt to become healthy again. */
void mu_writer_probe(struct mu_writer *w);
/* Opens and locks; PostgreSQL: also takes the slot (`first`) or checks that it still is ours. */
int mu_writer_connect(struct mu_writer *w, bool first, struct mu_err *err);
/* PostgreSQL: queues the batch's mark. */
int mu_writer_send_mark(struct mu_writer *w);
bool mu_writer_stopping(struct mu_writer *w);
void mu_writer_sleep(int64_t ms);

#endif
