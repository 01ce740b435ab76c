/* The reader pool: a few connections for short read transactions (data-model.md 4.3). A reader
 * never decides a write. */
#ifndef MU_DB_READER_H
#define MU_DB_READER_H

#include "db/driver.h"
#include "io/loop.h"

struct mu_readers;

struct mu_read {
    struct mu_post post;                             /* used by the pool */
    int (*run)(struct mu_read *r, struct mu_db *db); /* reader thread, inside a read transaction */
    void (*done)(struct mu_read *r, int result);     /* on `loop`; exactly once */
    struct mu_loop *loop;
    int result;
};

struct mu_readers_opts {
    struct mu_db_opts db;
    const struct mu_env *env; /* NULL = the real one; must outlive the pool */
    unsigned threads;         /* 2 on SQLite, 4 on PostgreSQL */
    size_t max_queue;         /* default 16384 */
};
/* After the writer (which migrates). A lost connection is opened again; reads meanwhile end with
 * MU_E_UNAVAILABLE. */
MU_MUST_USE int mu_readers_new(const struct mu_readers_opts *opts, struct mu_readers **ret,
                               struct mu_err *err);
/* Finishes the reads that run, ends the waiting ones with MU_E_SHUTDOWN, joins, closes. The loops
 * must still run (or be freed afterwards) for the completions. Returns NULL. */
struct mu_readers *mu_readers_free(struct mu_readers *r);
/* Any thread. 0, MU_E_BUSY, MU_E_SHUTDOWN; done() is not called when it fails. */
MU_MUST_USE int mu_readers_submit(struct mu_readers *r, struct mu_read *read);
/* mu_db_run() with the parameters as arguments. */
#define MU_DB_RUN(db, stmt, fn, arg, ...)                                                          \
    mu_db_run(db, stmt, (const struct mu_val[]){__VA_ARGS__},                                      \
              sizeof((const struct mu_val[]){__VA_ARGS__}) / sizeof(struct mu_val), fn, arg)

#endif
