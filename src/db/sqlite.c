#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/encode.h"
#include "db/db_int.h"

enum {
    BUSY_MS = 5000,
    CACHE_KIB = 65536,
    /* A checkpoint holds the writer while it copies and syncs: 20,000 pages made the slowest
     * hundredth of creates wait 100 ms, 2,000 make it 30 ms at the same rate (docs/benchmarks.md).
     */
    CHECKPOINT_PAGES = 2000,
    IDLE_PAGES = 1000, /* less is not worth a sync of the whole file */
    JOURNAL_LIMIT = 128 << 20,
};

struct sqlite {
    struct mu_db base;
    sqlite3 *conn;
    int wal_pages; /* in the log after the last commit */
    int due_pages; /* the next checkpoint is due at so many */
};

struct prepared {
    sqlite3_stmt *stmt;
    bool rows;                             /* it has columns */
    bool changes;                          /* it inserts, updates or deletes */
    int n_bind;                            /* positions in the statement */
    unsigned char param[MU_DB_MAX_PARAMS]; /* position - 1 -> parameter index */
};

static struct sqlite *of(struct mu_db *db)
{
    return MU_CONTAINER(db, struct sqlite, base);
}

static int map_code(int rc)
{
    if (rc == SQLITE_IOERR_NOMEM) {
        return -ENOMEM;
    }
    switch (rc & 0xff) {
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
        return MU_E_CONSTRAINT;
    case SQLITE_FULL:
        return MU_E_DISK_FULL;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return MU_E_BUSY;
    case SQLITE_READONLY:
    case SQLITE_IOERR:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_PROTOCOL:
    case SQLITE_NOLFS:
        return MU_E_IO;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_TOOBIG:
        return MU_E_TOO_LARGE;
    case SQLITE_INTERRUPT:
        return MU_E_CANCELLED;
    default:
        return MU_E_INTERNAL;
    }
}

static int fail(struct sqlite *q, const char *what, int rc)
{
    return mu_db_fail(&q->base, map_code(rc), "%s: %s", what, sqlite3_errmsg(q->conn));
}

/* --- statements --- */

static bool is_change(const char *sql)
{
    sql += strspn(sql, " \t\r\n");
    static const char *const verbs[] = {"INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"};
    for (size_t i = 0; i < MU_ARRAY_LEN(verbs); i++) {
        if (strncasecmp(sql, verbs[i], strlen(verbs[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* SQLite takes $1 for a name and numbers names in the order they appear. */
static int map_params(struct sqlite *q, const struct mu_stmt *s, struct prepared *p)
{
    size_t n = strlen(s->sig);
    p->n_bind = sqlite3_bind_parameter_count(p->stmt);
    for (int i = 0; i < p->n_bind; i++) {
        const char *name = sqlite3_bind_parameter_name(p->stmt, i + 1);
        int64_t number = 0;
        if (i >= MU_DB_MAX_PARAMS || !name || name[0] != '$' ||
            mu_bytes_i64(mu_str(name + 1), &number) < 0 || number < 1 || number > (int64_t)n) {
            return mu_db_fail(&q->base, MU_E_INTERNAL, "%s: placeholder '%s'", s->name,
                              name ? name : "?");
        }
        p->param[i] = (unsigned char)(number - 1);
    }
    return 0;
}

static void sq_unprepare(struct mu_db *db MU_UNUSED, void *prep)
{
    struct prepared *p = prep;
    sqlite3_finalize(p->stmt);
    mu_free(p);
}

static int sq_prepare(struct mu_db *db, const struct mu_stmt *s, const char *text, void **ret)
{
    struct sqlite *q = of(db);
    struct prepared *p = mu_calloc(1, sizeof *p);
    if (!p) {
        return mu_db_fail(db, -ENOMEM, "no memory");
    }
    const char *tail = NULL;
    int rc = sqlite3_prepare_v3(q->conn, text, -1, SQLITE_PREPARE_PERSISTENT, &p->stmt, &tail);
    int r = 0;
    if (rc != SQLITE_OK) {
        r = fail(q, s->name, rc);
    } else if (!p->stmt || tail[strspn(tail, " \t\r\n;")]) {
        r = mu_db_fail(db, MU_E_INTERNAL, "%s: not exactly one statement", s->name);
    } else {
        p->rows = sqlite3_column_count(p->stmt) > 0;
        p->changes = is_change(text);
        r = map_params(q, s, p);
    }
    if (r < 0) {
        sq_unprepare(db, p);
        return r;
    }
    *ret = p;
    return 0;
}

static int bind_all(struct prepared *p, const struct mu_val *args)
{
    int rc = SQLITE_OK;
    for (int i = 0; i < p->n_bind && rc == SQLITE_OK; i++) {
        const struct mu_val *v = &args[p->param[i]];
        /* A NULL pointer would bind NULL where empty text is meant. */
        const char *ptr = v->b.ptr ? v->b.ptr : "";
        switch (v->kind) {
        case MU_VAL_NULL:
            rc = sqlite3_bind_null(p->stmt, i + 1);
            break;
        case MU_VAL_I64:
            rc = sqlite3_bind_int64(p->stmt, i + 1, v->i);
            break;
        case MU_VAL_TEXT:
            rc = sqlite3_bind_text(p->stmt, i + 1, ptr, (int)v->b.len, SQLITE_STATIC);
            break;
        case MU_VAL_BLOB:
            rc = sqlite3_bind_blob(p->stmt, i + 1, ptr, (int)v->b.len, SQLITE_STATIC);
            break;
        }
    }
    return rc;
}

static int step_all(struct sqlite *q, const struct mu_stmt *s, struct prepared *p, mu_row_fn fn,
                    void *arg)
{
    int rows = 0;
    for (;;) {
        int rc = sqlite3_step(p->stmt);
        if (rc == SQLITE_DONE) {
            break;
        }
        if (rc != SQLITE_ROW) {
            return fail(q, s->name, rc);
        }
        rows++;
        if (!fn) {
            continue;
        }
        struct mu_row row = {.driver = q->base.driver, .handle = p->stmt};
        int r = fn(arg, &row);
        if (row.bad) {
            return mu_db_fail(&q->base, MU_E_INTERNAL, "%s: a column is read as another type",
                              s->name);
        }
        if (r < 0) {
            return r;
        }
    }
    if (p->rows) {
        return rows;
    }
    sqlite3_int64 changed = p->changes ? sqlite3_changes64(q->conn) : 0;
    return changed > INT_MAX ? INT_MAX : (int)changed;
}

static int sq_run(struct mu_db *db, const struct mu_stmt *s, void *prep, const struct mu_val *args,
                  unsigned n MU_UNUSED, mu_row_fn fn, void *arg)
{
    struct sqlite *q = of(db);
    struct prepared *p = prep;
    if (sqlite3_stmt_busy(p->stmt)) {
        return mu_db_fail(db, MU_E_INTERNAL, "%s: run inside its own rows", s->name);
    }
    bool was_tx = !sqlite3_get_autocommit(q->conn);
    int rc = bind_all(p, args);
    int r = rc == SQLITE_OK ? step_all(q, s, p, fn, arg) : fail(q, s->name, rc);
    sqlite3_reset(p->stmt);
    sqlite3_clear_bindings(p->stmt); /* the bytes are the caller's */
    /* Some failures (no memory, full disk) end the whole transaction behind the caller's back. */
    if (r < 0 && was_tx && sqlite3_get_autocommit(q->conn) && !db->trouble) {
        db->trouble = MU_E_RETRY;
    }
    return r;
}

static int sq_send(struct mu_db *db, const struct mu_stmt *s, void *prep, const struct mu_val *args,
                   unsigned n, int expect)
{
    int r = sq_run(db, s, prep, args, n, NULL, NULL);
    if (r >= 0 && expect >= 0 && r != expect) {
        return mu_db_fail(db, MU_E_STALE, "%s: %d rows instead of %d", s->name, r, expect);
    }
    return r < 0 ? r : 0;
}

static int sq_flush(struct mu_db *db MU_UNUSED)
{
    return 0;
}

/* --- transactions --- */

static const struct mu_stmt begin_read = {"begin", "", "BEGIN", NULL};
static const struct mu_stmt begin_write = {"begin", "", "BEGIN IMMEDIATE", NULL};
static const struct mu_stmt commit = {"commit", "", "COMMIT", NULL};
static const struct mu_stmt rollback = {"rollback", "", "ROLLBACK", NULL};
static const struct mu_stmt savepoint = {"savepoint", "", "SAVEPOINT u", NULL};
static const struct mu_stmt release = {"release", "", "RELEASE u", NULL};
static const struct mu_stmt rollback_to = {"rollback to", "", "ROLLBACK TO u", NULL};

static int control(struct mu_db *db, const struct mu_stmt *s)
{
    int r = mu_db_run(db, s, NULL, 0, NULL, NULL);
    return r < 0 ? r : 0;
}

static int sq_control(struct mu_db *db, enum mu_db_ctl what)
{
    static const struct mu_stmt *const stmts[] = {
        [MU_DB_BEGIN_READ] = &begin_read, [MU_DB_BEGIN_WRITE] = &begin_write,
        [MU_DB_COMMIT] = &commit,         [MU_DB_SAVEPOINT] = &savepoint,
        [MU_DB_RELEASE] = &release,       [MU_DB_ROLLBACK_TO] = &rollback_to,
    };
    int r = control(db, stmts[what]);
    if (r == 0 && what == MU_DB_ROLLBACK_TO) {
        r = control(db, &release);
    }
    return r;
}

static void sq_rollback(struct mu_db *db)
{
    struct sqlite *q = of(db);
    if (sqlite3_get_autocommit(q->conn)) {
        return;
    }
    /* The words of the failure that led here are worth more than those of the rollback. */
    char text[sizeof db->errmsg];
    memcpy(text, db->errmsg, sizeof text);
    int trouble = db->trouble;
    if (control(db, &rollback) < 0 && !sqlite3_get_autocommit(q->conn)) {
        (void)sqlite3_exec(q->conn, "ROLLBACK", NULL, NULL, NULL);
    }
    db->trouble = trouble;
    memcpy(db->errmsg, text, sizeof text);
}

static int sq_script(struct mu_db *db, const char *sql)
{
    struct sqlite *q = of(db);
    int rc = sqlite3_exec(q->conn, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : fail(q, "script", rc);
}

static bool sq_in_tx(struct mu_db *db)
{
    return !sqlite3_get_autocommit(of(db)->conn);
}

static bool sq_alive(struct mu_db *db MU_UNUSED)
{
    return true;
}

/* --- the write-ahead log --- */

static void checkpoint(struct sqlite *q)
{
    (void)sqlite3_wal_checkpoint_v2(q->conn, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

static int on_wal(void *arg, sqlite3 *conn MU_UNUSED, const char *name MU_UNUSED, int pages)
{
    struct sqlite *q = arg;
    if (pages < q->wal_pages) { /* it began anew: everything was copied */
        q->due_pages = CHECKPOINT_PAGES;
    }
    q->wal_pages = pages;
    if (pages >= q->due_pages) {
        checkpoint(q);
        q->due_pages = pages + CHECKPOINT_PAGES / 4; /* in case a reader holds it back */
    }
    return SQLITE_OK; /* the commit is durable whatever became of the checkpoint */
}

static void sq_checkpoint(struct mu_db *db)
{
    struct sqlite *q = of(db);
    if (q->wal_pages >= IDLE_PAGES && sqlite3_get_autocommit(q->conn)) {
        checkpoint(q);
        q->wal_pages = 0; /* what a reader held back is tried again with the next writes */
        q->due_pages = CHECKPOINT_PAGES;
    }
}

/* --- rows --- */

static int column_type(struct mu_row *r, int col)
{
    if (col < 0 || col >= sqlite3_column_count(r->handle)) {
        r->bad = true;
        return SQLITE_NULL;
    }
    return sqlite3_column_type(r->handle, col);
}

static bool sq_row_null(struct mu_row *r, int col)
{
    return column_type(r, col) == SQLITE_NULL;
}

static int64_t sq_row_i64(struct mu_row *r, int col)
{
    switch (column_type(r, col)) {
    case SQLITE_INTEGER:
        return sqlite3_column_int64(r->handle, col);
    case SQLITE_NULL:
        return 0;
    default:
        r->bad = true;
        return 0;
    }
}

static mu_bytes sq_row_bytes(struct mu_row *r, int col)
{
    const void *ptr = NULL;
    switch (column_type(r, col)) {
    case SQLITE_TEXT:
        ptr = sqlite3_column_text(r->handle, col);
        break;
    case SQLITE_BLOB:
        ptr = sqlite3_column_blob(r->handle, col);
        break;
    case SQLITE_NULL:
        return MU_B_NONE;
    default:
        r->bad = true;
        return MU_B_NONE;
    }
    int len = sqlite3_column_bytes(r->handle, col);
    if (!ptr) {
        r->bad = len > 0; /* no memory */
        return mu_bytes_of("", 0);
    }
    return mu_bytes_of(ptr, (size_t)len);
}

/* --- opening --- */

char *mu_db_sqlite_path(const char *url)
{
    mu_bytes u = mu_str(url);
    bool uri = mu_bytes_starts(u, MU_B("file:"));
    if (uri) {
        u = mu_bytes_from(u, 5);
        u = mu_bytes_head(u, strcspn(u.ptr, "?#"));
        if (mu_bytes_starts(u, MU_B("//"))) {
            u = mu_bytes_from(u, 2);
            ptrdiff_t slash = mu_bytes_find_char(u, '/');
            u = mu_bytes_from(u, slash < 0 ? u.len : (size_t)slash);
        }
    }
    if (u.len == 0 || mu_bytes_is(u, ":memory:")) {
        return NULL;
    }
    char *path = mu_bytes_dup(u);
    if (!path || !uri) {
        return path;
    }
    char *to = path;
    for (const char *p = path; *p; p++) {
        int hi = p[0] == '%' ? mu_hex_value(p[1]) : -1, lo = hi < 0 ? -1 : mu_hex_value(p[2]);
        *to++ = lo < 0 ? *p : (char)(hi * 16 + lo);
        p += lo < 0 ? 0 : 2;
    }
    *to = '\0';
    return path;
}

/* SQLite would create the file readable by others; WAL and index take the file's mode. A file that
 * exists is left alone: closing any descriptor of it would drop the locks that the other
 * connections of this process hold on it. */
static int create_private(const struct mu_db_opts *opts, struct mu_err *err)
{
    char *path = opts->memory || opts->reader ? NULL : mu_db_sqlite_path(opts->url);
    if (!path) {
        return 0;
    }
    int r = 0;
    if (access(path, F_OK) < 0) {
        MU_AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        r = fd < 0 ? mu_err_set(err, -errno, "database file '%s': %s", path, strerror(errno)) : 0;
    }
    mu_free(path);
    return r;
}

static int pragma(struct sqlite *q, const char *text)
{
    return sqlite3_exec(q->conn, text, NULL, NULL, NULL);
}

static int configure(struct sqlite *q, const struct mu_db_opts *opts)
{
    sqlite3_extended_result_codes(q->conn, 1);
    sqlite3_busy_timeout(q->conn, BUSY_MS);
    sqlite3_db_config(q->conn, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    /* "text" in double quotes is a column or an error, as on PostgreSQL. */
    sqlite3_db_config(q->conn, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    sqlite3_db_config(q->conn, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    char text[400];
    snprintf(text, sizeof text,
             "PRAGMA trusted_schema=OFF; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY;"
             "PRAGMA cell_size_check=ON; PRAGMA cache_size=-%lld;",
             (long long)(opts->cache_kib > 0 ? opts->cache_kib : CACHE_KIB));
    int rc = pragma(q, text);
    if (rc != SQLITE_OK || opts->memory) {
        return rc;
    }
    if (opts->reader) {
        return pragma(q, "PRAGMA query_only=ON; PRAGMA mmap_size=0;");
    }
    snprintf(text, sizeof text,
             "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s; PRAGMA journal_size_limit=%d;",
             opts->sync_normal ? "NORMAL" : "FULL", JOURNAL_LIMIT);
    rc = pragma(q, text);
    if (rc == SQLITE_OK) {
        q->due_pages = CHECKPOINT_PAGES;
        sqlite3_wal_hook(q->conn, on_wal, q);
    }
    return rc;
}

static int is_wal(void *arg, struct mu_row *row)
{
    *(bool *)arg = mu_bytes_is(mu_row_bytes(row, 0), "wal");
    return 0;
}

static void sq_close(struct mu_db *db)
{
    struct sqlite *q = of(db);
    sqlite3_close_v2(q->conn);
    mu_free(q);
}

/* SQLite counts its memory under one lock for all threads unless told otherwise before its first
 * use; nobody asks for the count. */
static void quiet_memory(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static const struct mu_db_driver driver = {
    .engine = MU_DB_SQLITE,
    .close = sq_close,
    .prepare = sq_prepare,
    .unprepare = sq_unprepare,
    .run = sq_run,
    .send = sq_send,
    .flush = sq_flush,
    .control = sq_control,
    .rollback = sq_rollback,
    .script = sq_script,
    .checkpoint = sq_checkpoint,
    .in_tx = sq_in_tx,
    .alive = sq_alive,
    .row_null = sq_row_null,
    .row_i64 = sq_row_i64,
    .row_bytes = sq_row_bytes,
};

int mu_db_sqlite_open(const struct mu_db_opts *opts, struct mu_db **ret, struct mu_err *err)
{
    static const struct mu_stmt journal_mode = {"journal_mode", "", "PRAGMA journal_mode", NULL};
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, quiet_memory);
    int r = create_private(opts, err);
    if (r < 0) {
        return r;
    }
    struct sqlite *q = mu_calloc(1, sizeof *q);
    if (!q) {
        return mu_err_set(err, -ENOMEM, "no memory for a database connection");
    }
    q->base.driver = &driver;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX |
                SQLITE_OPEN_PRIVATECACHE | (opts->reader ? 0 : SQLITE_OPEN_CREATE);
    int rc = sqlite3_open_v2(opts->memory ? ":memory:" : opts->url, &q->conn, flags, opts->vfs);
    if (rc == SQLITE_OK) {
        rc = configure(q, opts);
    }
    if (rc != SQLITE_OK) {
        r = mu_err_set(err, map_code(rc), "database '%s': %s",
                       opts->memory ? ":memory:" : opts->url,
                       q->conn ? sqlite3_errmsg(q->conn) : sqlite3_errstr(rc));
    } else if (!opts->memory && !opts->reader) {
        bool wal = false;
        r = mu_db_run(&q->base, &journal_mode, NULL, 0, is_wal, &wal);
        r = r >= 0 && !wal ? MU_E_IO : MU_MIN(r, 0);
        if (r < 0) {
            mu_err_set(err, r, "database '%s': its file system does not allow journal_mode=WAL",
                       opts->url);
        }
    }
    if (r < 0) {
        mu_db_close(&q->base);
        return r;
    }
    *ret = &q->base;
    return 0;
}
