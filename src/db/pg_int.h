/* PostgreSQL: what pg.c (the pipeline) shares with pg_open.c (connecting) and pg_row.c (values). */
#ifndef MU_DB_PG_INT_H
#define MU_DB_PG_INT_H

#include <libpq-fe.h>

#include "db/db_int.h"

/* Type numbers of the server's catalogue; they never change. */
enum {
    MU_PG_BOOL = 16,
    MU_PG_BYTEA = 17,
    MU_PG_NAME = 19,
    MU_PG_INT8 = 20,
    MU_PG_INT2 = 21,
    MU_PG_INT4 = 23,
    MU_PG_TEXT = 25,
    MU_PG_JSON = 114,
    MU_PG_BPCHAR = 1042,
    MU_PG_VARCHAR = 1043,
    MU_PG_NUMERIC = 1700,
    MU_PG_VOID = 2278,
};

struct mu_pg_prep {
    char name[16];
    bool ready; /* prepared, or its PREPARE is in the pipeline */
    char *text; /* kept: a PREPARE that an earlier failure skipped is sent again */
};

/* One result that is outstanding. */
struct mu_pg_wait {
    const struct mu_stmt *stmt;
    struct mu_pg_prep *prepare; /* this is the PREPARE of that statement */
    int expect;                 /* rows; -1 = any */
};

struct mu_pg {
    struct mu_db base;
    PGconn *conn;
    struct mu_pg_wait wait[MU_DB_PIPELINE];
    unsigned n_wait;
    unsigned names; /* statements named so far */
    int failed;     /* first failure of what was sent; kept until it was reported */
    bool lost;
};

static inline struct mu_pg *mu_pg_of(struct mu_db *db)
{
    return MU_CONTAINER(db, struct mu_pg, base);
}
/* The connection with its session settings, outside pipeline mode. */
MU_MUST_USE int mu_pg_connect(const struct mu_db_opts *opts, PGconn **ret, struct mu_err *err);
/* Our code for an SQLSTATE (NULL = the connection broke). */
int mu_pg_code(const char *sqlstate);

bool mu_pg_row_null(struct mu_row *r, int col);
int64_t mu_pg_row_i64(struct mu_row *r, int col);
mu_bytes mu_pg_row_bytes(struct mu_row *r, int col);

#endif
