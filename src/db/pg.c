/* The connection stays in pipeline mode: statements are queued with what is expected of them, and
 * one Sync asks for all their results. A failure makes the server skip everything up to the Sync.
 */
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/pg_int.h"

static int lost(struct mu_pg *g)
{
    g->lost = true;
    g->n_wait = 0;
    const char *text = PQerrorMessage(g->conn);
    return mu_db_fail(&g->base, MU_E_CLOSED, "connection lost: %.*s", (int)strcspn(text, "\n"),
                      text);
}

static int fail(struct mu_pg *g, const char *name, const PGresult *res)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    if (PQstatus(g->conn) == CONNECTION_BAD) {
        return lost(g);
    }
    if (!state) {
        return mu_db_fail(&g->base, MU_E_INTERNAL, "%s: %s", name, PQresultErrorMessage(res));
    }
    /* The primary message only: the detail of a violated constraint shows row contents. */
    const char *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    return mu_db_fail(&g->base, mu_pg_code(state), "%s: %s (%s)", name, text ? text : "", state);
}

/* --- results --- */

static int give_rows(struct mu_pg *g, const struct mu_stmt *s, PGresult *res, mu_row_fn fn,
                     void *arg)
{
    struct mu_row row = {.driver = g->base.driver, .handle = res};
    for (int n = PQntuples(res); row.row < n; row.row++) {
        int r = fn(arg, &row);
        if (row.bad) {
            return mu_db_fail(&g->base, MU_E_INTERNAL, "%s: a column is read as another type",
                              s->name);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int affected(PGresult *res)
{
    if (PQresultStatus(res) == PGRES_TUPLES_OK) {
        return PQntuples(res);
    }
    long long n = strtoll(PQcmdTuples(res), NULL, 10);
    return n > INT_MAX ? INT_MAX : (int)n;
}

/* The next result of the pipeline without the NULL behind it. */
static PGresult *next_result(struct mu_pg *g)
{
    PGresult *res = PQgetResult(g->conn);
    if (res && PQresultStatus(res) != PGRES_PIPELINE_SYNC) {
        PGresult *more = PQgetResult(g->conn);
        if (more) { /* never for single statements; the pipeline would be out of step */
            PQclear(more);
            PQclear(res);
            return NULL;
        }
    }
    return res;
}

/* Judges one result. */
static int judge(struct mu_pg *g, const struct mu_pg_wait *w, PGresult *res)
{
    ExecStatusType status = PQresultStatus(res);
    bool good = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
    if (w->prepare && !good) {
        w->prepare->ready = false;
    }
    if (status == PGRES_PIPELINE_ABORTED) {
        return MU_E_INTERNAL; /* always behind the failure that is kept */
    }
    if (!good) {
        return fail(g, w->stmt->name, res);
    }
    int n = w->prepare ? 0 : affected(res);
    if (!w->prepare && w->expect >= 0 && n != w->expect) {
        return mu_db_fail(&g->base, MU_E_STALE, "%s: %d rows instead of %d", w->stmt->name, n,
                          w->expect);
    }
    return n;
}

/* Asks for everything outstanding. Returns what the last statement gave; its rows go to `fn`. */
static int collect(struct mu_pg *g, mu_row_fn fn, void *arg)
{
    if (g->lost) {
        return MU_E_CLOSED;
    }
    if (!PQpipelineSync(g->conn)) {
        return lost(g);
    }
    int last = 0;
    PGresult *rows = NULL;
    const struct mu_stmt *stmt = NULL;
    for (unsigned i = 0, n = g->n_wait; i < n; i++) {
        PGresult *res = next_result(g);
        if (!res) {
            return lost(g);
        }
        last = judge(g, &g->wait[i], res);
        if (last >= 0 && i + 1 == n && fn && !g->failed) {
            rows = res;
            stmt = g->wait[i].stmt;
            continue;
        }
        if (last < 0 && !g->failed) {
            g->failed = last;
        }
        PQclear(res);
        if (g->lost) {
            return MU_E_CLOSED;
        }
    }
    g->n_wait = 0;
    PGresult *sync = next_result(g);
    bool ok = sync && PQresultStatus(sync) == PGRES_PIPELINE_SYNC;
    PQclear(sync);
    if (!ok) {
        last = lost(g);
    } else if (rows) { /* now, because the callback may run other statements */
        int r = give_rows(g, stmt, rows, fn, arg);
        last = r < 0 ? r : last;
    }
    PQclear(rows);
    return last;
}

static int take_failed(struct mu_pg *g)
{
    int r = g->failed;
    g->failed = 0;
    return r;
}

static int pg_flush(struct mu_db *db)
{
    struct mu_pg *g = mu_pg_of(db);
    if (g->lost) {
        return MU_E_CLOSED;
    }
    int r = g->n_wait ? collect(g, NULL, NULL) : 0;
    if (g->failed) {
        return take_failed(g);
    }
    return r < 0 ? r : 0;
}

/* --- queueing --- */

static const Oid *types_of(const char *sig, Oid types[MU_DB_MAX_PARAMS])
{
    for (size_t i = 0; sig[i]; i++) {
        types[i] = sig[i] == 't' ? MU_PG_TEXT : sig[i] == 'i' ? MU_PG_INT8 : MU_PG_BYTEA;
    }
    return types;
}

/* Waits when the pipeline has no room for `n` more. */
static int make_room(struct mu_pg *g, unsigned n)
{
    if (g->n_wait + n <= MU_DB_PIPELINE) {
        return 0;
    }
    int r = collect(g, NULL, NULL); /* keeps the failure */
    return g->failed ? g->failed : MU_MIN(r, 0);
}

static int queue_prepare(struct mu_pg *g, const struct mu_stmt *s, struct mu_pg_prep *p)
{
    Oid types[MU_DB_MAX_PARAMS];
    if (!PQsendPrepare(g->conn, p->name, p->text, (int)strlen(s->sig), types_of(s->sig, types))) {
        return lost(g);
    }
    p->ready = true;
    g->wait[g->n_wait++] = (struct mu_pg_wait){s, p, -1};
    return 0;
}

static int queue(struct mu_pg *g, const struct mu_stmt *s, struct mu_pg_prep *p,
                 const struct mu_val *args, unsigned n, int expect)
{
    const char *values[MU_DB_MAX_PARAMS];
    int lengths[MU_DB_MAX_PARAMS], formats[MU_DB_MAX_PARAMS];
    uint64_t numbers[MU_DB_MAX_PARAMS];
    if (g->lost) {
        return MU_E_CLOSED;
    }
    int r = make_room(g, 2);
    if (r == 0 && !p->ready) {
        r = queue_prepare(g, s, p);
    }
    if (r < 0) {
        return r;
    }
    for (unsigned i = 0; i < n; i++) {
        formats[i] = 1;
        if (args[i].kind == MU_VAL_I64) {
            numbers[i] = htobe64((uint64_t)args[i].i);
            values[i] = (const char *)&numbers[i];
            lengths[i] = (int)sizeof numbers[i];
        } else {
            bool null = args[i].kind == MU_VAL_NULL;
            values[i] = null ? NULL : args[i].b.ptr ? args[i].b.ptr : "";
            lengths[i] = null ? 0 : (int)args[i].b.len;
        }
    }
    if (!PQsendQueryPrepared(g->conn, p->name, (int)n, values, lengths, formats, 1)) {
        return lost(g);
    }
    g->wait[g->n_wait++] = (struct mu_pg_wait){s, NULL, expect};
    return 0;
}

static int pg_prepare(struct mu_db *db, const struct mu_stmt *s MU_UNUSED, const char *text,
                      void **ret)
{
    struct mu_pg *g = mu_pg_of(db);
    struct mu_pg_prep *p = mu_calloc(1, sizeof *p);
    char *copy = p ? mu_bytes_dup(mu_str(text)) : NULL;
    if (!copy) {
        mu_free(p);
        return mu_db_fail(db, -ENOMEM, "no memory");
    }
    p->text = copy;
    snprintf(p->name, sizeof p->name, "s%u", g->names++);
    *ret = p;
    return 0;
}

static void pg_unprepare(struct mu_db *db MU_UNUSED, void *prep)
{
    struct mu_pg_prep *p = prep;
    mu_free(p->text);
    mu_free(p);
}

static int pg_run(struct mu_db *db, const struct mu_stmt *s, void *prep, const struct mu_val *args,
                  unsigned n, mu_row_fn fn, void *arg)
{
    struct mu_pg *g = mu_pg_of(db);
    int r = queue(g, s, prep, args, n, -1);
    if (r == 0) {
        r = collect(g, fn, arg);
    }
    int failed = take_failed(g);
    return r == MU_E_CLOSED ? r : failed ? failed : r;
}

static int pg_send(struct mu_db *db, const struct mu_stmt *s, void *prep, const struct mu_val *args,
                   unsigned n, int expect)
{
    struct mu_pg *g = mu_pg_of(db);
    return g->failed ? g->failed : queue(g, s, prep, args, n, expect);
}

/* --- transactions --- */

static const struct mu_stmt begin_read = {"begin", "",
                                          "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", NULL};
static const struct mu_stmt begin_write = {"begin", "",
                                           "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", NULL};
static const struct mu_stmt commit = {"commit", "", "COMMIT", NULL};
static const struct mu_stmt rollback = {"rollback", "", "ROLLBACK", NULL};
static const struct mu_stmt savepoint = {"savepoint", "", "SAVEPOINT u", NULL};
static const struct mu_stmt release = {"release", "", "RELEASE SAVEPOINT u", NULL};
static const struct mu_stmt rollback_to = {"rollback to", "", "ROLLBACK TO SAVEPOINT u", NULL};

/* COMMIT goes out only when everything before it is known to be good: the row counts are judged
 * here, not on the server. In a failed transaction it would "succeed" as a ROLLBACK. */
static int do_commit(struct mu_db *db)
{
    struct mu_pg *g = mu_pg_of(db);
    int r = pg_flush(db);
    if (r < 0) {
        return r;
    }
    if (PQtransactionStatus(g->conn) != PQTRANS_INTRANS) {
        return mu_db_fail(db, MU_E_INTERNAL, "commit: the transaction has failed");
    }
    r = mu_db_run(db, &commit, NULL, 0, NULL, NULL);
    return r < 0 ? r : 0;
}

static int pg_control(struct mu_db *db, enum mu_db_ctl what)
{
    struct mu_pg *g = mu_pg_of(db);
    switch (what) {
    case MU_DB_BEGIN_READ:
        return mu_db_send(db, &begin_read, NULL, 0, -1);
    case MU_DB_BEGIN_WRITE:
        return mu_db_send(db, &begin_write, NULL, 0, -1);
    case MU_DB_SAVEPOINT:
        return mu_db_send(db, &savepoint, NULL, 0, -1);
    case MU_DB_RELEASE:
        return mu_db_send(db, &release, NULL, 0, -1);
    case MU_DB_COMMIT:
        return do_commit(db);
    case MU_DB_ROLLBACK_TO: {
        /* A failure still in the pipeline would make the server skip the rollback too. */
        (void)pg_flush(db);
        g->failed = 0;
        int r = mu_db_send(db, &rollback_to, NULL, 0, -1);
        if (r == 0) {
            r = mu_db_send(db, &release, NULL, 0, -1);
        }
        return r < 0 ? r : pg_flush(db);
    }
    }
    return MU_E_INTERNAL;
}

static void pg_rollback(struct mu_db *db)
{
    struct mu_pg *g = mu_pg_of(db);
    char text[sizeof db->errmsg];
    memcpy(text, db->errmsg, sizeof text);
    (void)pg_flush(db);
    g->failed = 0;
    if (!g->lost && PQtransactionStatus(g->conn) != PQTRANS_IDLE) {
        int r = mu_db_run(db, &rollback, NULL, 0, NULL, NULL);
        if (r < 0 && !g->lost) {
            (void)lost(g); /* a session that cannot roll back is of no use */
        }
    }
    if (text[0]) {
        memcpy(db->errmsg, text, sizeof text);
    }
}

static bool pg_in_tx(struct mu_db *db)
{
    struct mu_pg *g = mu_pg_of(db);
    /* What is still in the pipeline may hold the BEGIN. */
    return !g->lost && (g->n_wait > 0 || PQtransactionStatus(g->conn) != PQTRANS_IDLE);
}

static bool pg_alive(struct mu_db *db)
{
    struct mu_pg *g = mu_pg_of(db);
    struct pollfd p = {.fd = PQsocket(g->conn), .events = POLLIN};
    if (g->lost || p.fd < 0) {
        return false;
    }
    /* Between transactions the server sends nothing but its farewell, which the end of the stream
     * follows, and parameter changes. */
    for (int i = 0; i < 8 && !g->lost && poll(&p, 1, 0) > 0; i++) {
        if (!PQconsumeInput(g->conn) || PQstatus(g->conn) != CONNECTION_OK) {
            (void)lost(g);
        }
    }
    return !g->lost;
}

/* Several statements need the simple protocol, which pipeline mode does not have. */
static int pg_script(struct mu_db *db, const char *sql)
{
    struct mu_pg *g = mu_pg_of(db);
    int r = pg_flush(db);
    if (r < 0) {
        return r;
    }
    if (!PQexitPipelineMode(g->conn)) {
        return lost(g);
    }
    PGresult *res = PQexec(g->conn, sql);
    ExecStatusType status = PQresultStatus(res);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY) {
        r = fail(g, "script", res);
    }
    PQclear(res);
    if (!g->lost && !PQenterPipelineMode(g->conn)) {
        return lost(g);
    }
    return r;
}

static void pg_checkpoint(struct mu_db *db MU_UNUSED)
{
}

static void pg_close(struct mu_db *db)
{
    struct mu_pg *g = mu_pg_of(db);
    PQfinish(g->conn);
    mu_free(g);
}

static const struct mu_db_driver driver = {
    .engine = MU_DB_PG,
    .close = pg_close,
    .prepare = pg_prepare,
    .unprepare = pg_unprepare,
    .run = pg_run,
    .send = pg_send,
    .flush = pg_flush,
    .control = pg_control,
    .rollback = pg_rollback,
    .script = pg_script,
    .checkpoint = pg_checkpoint,
    .in_tx = pg_in_tx,
    .alive = pg_alive,
    .row_null = mu_pg_row_null,
    .row_i64 = mu_pg_row_i64,
    .row_bytes = mu_pg_row_bytes,
};

int mu_db_pg_open(const struct mu_db_opts *opts, struct mu_db **ret, struct mu_err *err)
{
    struct mu_pg *g = mu_calloc(1, sizeof *g);
    if (!g) {
        return mu_err_set(err, -ENOMEM, "no memory for a database connection");
    }
    g->base.driver = &driver;
    int r = mu_pg_connect(opts, &g->conn, err);
    if (r == 0 && !PQenterPipelineMode(g->conn)) {
        r = mu_err_set(err, MU_E_INTERNAL, "PostgreSQL: no pipeline mode");
    }
    if (r < 0) {
        mu_db_close(&g->base);
        return r;
    }
    *ret = &g->base;
    return 0;
}
