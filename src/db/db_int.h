/* What the engines, the migrations and the writer share behind driver.h. */
#ifndef MU_DB_DB_INT_H
#define MU_DB_DB_INT_H

#include "db/driver.h"

enum {
    MU_DB_MAX_PARAMS = 64,
    MU_DB_MAX_STMTS = 4096, /* statements are constants of the program: reached only by a mistake */
    MU_DB_PIPELINE = 256,   /* results outstanding before the driver waits by itself */
};

enum mu_db_ctl {
    MU_DB_BEGIN_READ,
    MU_DB_BEGIN_WRITE,
    MU_DB_COMMIT,
    MU_DB_SAVEPOINT,
    MU_DB_RELEASE,
    MU_DB_ROLLBACK_TO,
};

/* What an engine does with a checked statement: `prep` is what its prepare() made. */
struct mu_db_driver {
    enum mu_db_engine engine;
    void (*close)(struct mu_db *db);
    int (*prepare)(struct mu_db *db, const struct mu_stmt *s, const char *text, void **ret);
    void (*unprepare)(struct mu_db *db, void *prep);
    int (*run)(struct mu_db *db, const struct mu_stmt *s, void *prep, const struct mu_val *args,
               unsigned n, mu_row_fn fn, void *arg);
    int (*send)(struct mu_db *db, const struct mu_stmt *s, void *prep, const struct mu_val *args,
                unsigned n, int expect);
    int (*flush)(struct mu_db *db);
    int (*control)(struct mu_db *db, enum mu_db_ctl what);
    void (*rollback)(struct mu_db *db);
    int (*script)(struct mu_db *db, const char *sql);
    void (*checkpoint)(struct mu_db *db);
    /* Whether a transaction is open on the engine's side. */
    bool (*in_tx)(struct mu_db *db);
    /* Between transactions: whether the connection still looks alive. Never waits. */
    bool (*alive)(struct mu_db *db);
    bool (*row_null)(struct mu_row *r, int col);
    int64_t (*row_i64)(struct mu_row *r, int col);
    mu_bytes (*row_bytes)(struct mu_row *r, int col);
};

struct mu_db_slot {
    const struct mu_stmt *key;
    void *prep;
};

struct mu_db {
    const struct mu_db_driver *driver;
    struct mu_db_slot *slots; /* open addressing by address; a power of two or none */
    size_t n_slots, n_stmts;
    /* The engine's trouble in this transaction (RETRY, BUSY, DISK_FULL, IO, CLOSED, or the
     * transaction is gone): what a unit returns may be its own code and says nothing about the
     * engine. Cleared by begin. */
    int trouble;
    char errmsg[480];
};

struct mu_row {
    const struct mu_db_driver *driver;
    void *handle; /* sqlite3_stmt or PGresult */
    int row;
    bool bad; /* a column was read as what it is not */
};

MU_MUST_USE int mu_db_sqlite_open(const struct mu_db_opts *opts, struct mu_db **ret,
                                  struct mu_err *err);
MU_MUST_USE int mu_db_pg_open(const struct mu_db_opts *opts, struct mu_db **ret,
                              struct mu_err *err);
/* Keeps the text and marks trouble where the code means it; returns `code`. */
int mu_db_fail(struct mu_db *db, int code, const char *fmt, ...) MU_PRINTF(3, 4);
static inline bool mu_db_in_tx(struct mu_db *db)
{
    return db->driver->in_tx(db);
}
static inline bool mu_db_alive(struct mu_db *db)
{
    return db->driver->alive(db);
}
/* The file behind a SQLite url ("file:" and its query stripped, %xx decoded); heap. NULL: no memory
 * or no file (":memory:"). */
char *mu_db_sqlite_path(const char *url);

struct mu_migration {
    int version;
    const char *name, *sha256, *text;
};
/* mu_db_migrate() over a given list, which is in order and without holes. */
MU_MUST_USE int mu_db_migrate_list(struct mu_db *db, const struct mu_migration *list, size_t n,
                                   int64_t now_ms, struct mu_err *err);

#endif
