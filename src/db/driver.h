/* The driver table: what an engine must do (stack.md 5). Two exist, db/sqlite.c and db/pg.c.
 * Non-logging. */
#ifndef MU_DB_DRIVER_H
#define MU_DB_DRIVER_H

#include "base/arena.h"
#include "base/err.h"

enum mu_db_engine { MU_DB_SQLITE, MU_DB_PG };

/* A statement is a constant: name, signature, text. One letter a parameter in `sig`: t text, i
 * int64, b bytes. Placeholders are $1, $2 … on both engines. `pg` is the other text where the
 * engines must differ, else NULL. Type words ({{skip_locked}}) are replaced when it is prepared.
 * Statements are prepared once per connection, found by the address of the struct. */
struct mu_stmt {
    const char *name;
    const char *sig;
    const char *sql;
    const char *pg;
};

/* A parameter. TEXT and BLOB point at bytes that must live until the call returns (mu_db_send:
 * until the unit's end). */
struct mu_val {
    enum { MU_VAL_NULL, MU_VAL_I64, MU_VAL_TEXT, MU_VAL_BLOB } kind;
    int64_t i;
    mu_bytes b;
};
#define MU_VNULL    ((struct mu_val){.kind = MU_VAL_NULL})
#define MU_VI(x)    ((struct mu_val){.kind = MU_VAL_I64, .i = (x)})
#define MU_VT(x)    ((struct mu_val){.kind = MU_VAL_TEXT, .b = (x)})
#define MU_VB(x)    ((struct mu_val){.kind = MU_VAL_BLOB, .b = (x)})
#define MU_VTOPT(x) ((x).ptr ? MU_VT(x) : MU_VNULL) /* ptr NULL = SQL NULL */
#define MU_VIOPT(x) ((x) ? MU_VI(x) : MU_VNULL)     /* 0 = SQL NULL (times) */

struct mu_db;  /* one connection; one thread at a time */
struct mu_row; /* the current row inside a row callback */

/* Called for each row; return < 0 to stop with that code. Column values are valid until it returns.
 * It may run other statements on the connection. */
typedef int (*mu_row_fn)(void *arg, struct mu_row *row);

/* A column that is read as what it is not (text as a number) makes the statement end with
 * MU_E_INTERNAL, on both engines. Numbers: integers, booleans, and sums that fit. */
bool mu_row_null(struct mu_row *r, int col);
int64_t mu_row_i64(struct mu_row *r, int col);    /* 0 for NULL */
mu_bytes mu_row_bytes(struct mu_row *r, int col); /* text or bytes; ptr NULL for NULL */
/* Two such callbacks: the first column of the last row, into an int64_t or a struct mu_id. */
int mu_row_take_i64(void *arg, struct mu_row *row);
int mu_row_take_id(void *arg, struct mu_row *row);

struct mu_db_opts {
    const char *url;   /* "file:…" or a path, or "postgres://…" */
    bool reader;       /* query_only (SQLite), default_transaction_read_only (PostgreSQL) */
    bool memory;       /* SQLite in memory, for tests */
    bool sync_normal;  /* SQLite: the last commits may be lost with the power (never by default) */
    int64_t cache_kib; /* SQLite page cache; 0 = 65536 */
    const char *vfs;   /* SQLite VFS name or NULL: the tests put a faulty disk below */
};

enum mu_db_engine mu_db_engine_of(const char *url);
/* Opens and configures a connection. Errors are worded and never carry the password. */
MU_MUST_USE int mu_db_open(const struct mu_db_opts *opts, struct mu_db **ret, struct mu_err *err);
struct mu_db *mu_db_close(struct mu_db *db);
enum mu_db_engine mu_db_engine(const struct mu_db *db);

/* Runs a statement to its end. Returns the number of rows returned (statements that return rows) or
 * changed (others), or a negative code: MU_E_CONSTRAINT (unique, check), MU_E_BUSY, MU_E_DISK_FULL,
 * MU_E_IO, MU_E_CLOSED (connection lost), MU_E_RETRY (deadlock, serialisation), MU_E_INTERNAL (a
 * statement that is wrong), MU_E_INVALID (a value PostgreSQL refuses: a zero byte in text),
 * MU_E_TOO_LARGE, MU_E_CANCELLED, -ENOMEM. `n` must equal strlen(sig). `fn` may be NULL. The text
 * of the last failure: mu_db_errmsg(). */
MU_MUST_USE int mu_db_run(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args,
                          unsigned n, mu_row_fn fn, void *arg);
/* Like mu_db_run() where no answer is needed on the way: it must affect exactly `expect` rows (-1 =
 * any number). On SQLite it runs at once; on PostgreSQL it is pipelined and its outcome appears at
 * the next mu_db_run() or mu_db_flush(), which then returns the failure (MU_E_STALE for another row
 * count). */
MU_MUST_USE int mu_db_send(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args,
                           unsigned n, int expect);
/* Waits for everything sent. 0 or the first failure. */
MU_MUST_USE int mu_db_flush(struct mu_db *db);

/* Transaction control; `begin` is IMMEDIATE on SQLite. Without `write` it reads one moment of the
 * database on both engines (PostgreSQL: REPEATABLE READ READ ONLY). rollback_to undoes to the
 * savepoint and releases it. */
MU_MUST_USE int mu_db_begin(struct mu_db *db, bool write);
MU_MUST_USE int mu_db_commit(struct mu_db *db);
void mu_db_rollback(struct mu_db *db);
MU_MUST_USE int mu_db_savepoint(struct mu_db *db);
MU_MUST_USE int mu_db_release(struct mu_db *db);
MU_MUST_USE int mu_db_rollback_to(struct mu_db *db);
/* Plain text without parameters or rows (migrations). Several statements are allowed. */
MU_MUST_USE int mu_db_script(struct mu_db *db, const char *sql);
const char *mu_db_errmsg(struct mu_db *db);
/* Replaces {{word}} for the engine (data-model.md 2). Heap, free with mu_free; NULL when out of
 * memory or a word is unknown. */
char *mu_db_expand(enum mu_db_engine engine, const char *sql);
/* SQLite: whether a checkpoint of the WAL is due, and doing it (writer, when idle). No-ops on
 * PostgreSQL. */
void mu_db_checkpoint(struct mu_db *db);

#endif
