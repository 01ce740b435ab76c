#include "db/migrate.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "base/buf.h"
#include "db/db_int.h"

enum { MAX_MIGRATION = 16 << 20 };

static const struct mu_migration embedded[] = {
#include "migrations.inc"
    {0, NULL, NULL, NULL}, /* C has no empty arrays */
};
static const size_t n_embedded = MU_ARRAY_LEN(embedded) - 1;

static const char create_table[] =
    "CREATE TABLE IF NOT EXISTS schema_migrations (version {{i64}} PRIMARY KEY, name {{text}} NOT "
    "NULL, sha256 {{text}} NOT NULL, applied_ms {{i64}} NOT NULL) {{t}}";
static const struct mu_stmt create_stmt = {"schema_migrations", "", create_table, NULL};
static const struct mu_stmt list_stmt = {
    "schema_list", "", "SELECT version, name, sha256 FROM schema_migrations ORDER BY version",
    NULL};
static const struct mu_stmt insert_stmt = {
    "schema_insert", "itti",
    "INSERT INTO schema_migrations (version, name, sha256, applied_ms) VALUES ($1, $2, $3, $4)",
    NULL};

/* --- migrations --- */

int mu_db_schema_version(void)
{
    return (int)n_embedded;
}

struct applied {
    const struct mu_migration *list;
    size_t n;
    int64_t version; /* newest one */
    struct mu_err *err;
};

static int on_applied(void *arg, struct mu_row *row)
{
    struct applied *a = arg;
    int64_t version = mu_row_i64(row, 0);
    mu_bytes name = mu_row_bytes(row, 1);
    if (version != a->version + 1) {
        return mu_err_set(a->err, MU_E_VERSION, "the database lacks migration %04d",
                          (int)a->version + 1);
    }
    if ((size_t)version > a->n) {
        return mu_err_set(a->err, MU_E_VERSION,
                          "the database is of a newer program: it has migration %04d (%.*s), this "
                          "program knows %d",
                          (int)version, MU_ARGS(name), (int)a->n);
    }
    const struct mu_migration *m = &a->list[version - 1];
    if (!mu_bytes_is(mu_row_bytes(row, 2), m->sha256)) {
        return mu_err_set(a->err, MU_E_VERSION,
                          "migration %04d (%.*s) differs from the one that was applied to the "
                          "database",
                          (int)version, MU_ARGS(name));
    }
    a->version = version;
    return 0;
}

/* Lines that are comments are left out, so they may talk about {{words}}. A line "-- only sqlite",
 * "-- only postgresql" or "-- both" says whom the lines below are for. */
static char *for_engine(enum mu_db_engine engine, const char *text)
{
    struct mu_buf out;
    mu_buf_init(&out, MAX_MIGRATION);
    bool ours = true;
    for (mu_bytes rest = mu_str(text); rest.ptr;) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        mu_bytes word = mu_bytes_trim(line);
        if (mu_bytes_is(word, "-- both")) {
            ours = true;
        } else if (mu_bytes_is(word, "-- only sqlite")) {
            ours = engine == MU_DB_SQLITE;
        } else if (mu_bytes_is(word, "-- only postgresql")) {
            ours = engine == MU_DB_PG;
        } else if (ours && !mu_bytes_starts(word, MU_B("--"))) {
            mu_buf_add(&out, line);
        }
        mu_buf_add_char(&out, '\n');
    }
    mu_buf_add_char(&out, '\0');
    char *expanded = out.failed ? NULL : mu_db_expand(engine, out.ptr);
    mu_buf_fini(&out);
    return expanded;
}

static int apply(struct mu_db *db, const struct mu_migration *m, int64_t now_ms, struct mu_err *err)
{
    char *sql = for_engine(mu_db_engine(db), m->text);
    if (!sql) {
        return mu_err_set(err, MU_E_INTERNAL,
                          "migration %04d (%s): an unknown {{word}}, or no "
                          "memory",
                          m->version, m->name);
    }
    const struct mu_val row[] = {MU_VI(m->version), MU_VT(mu_str(m->name)),
                                 MU_VT(mu_str(m->sha256)), MU_VI(now_ms)};
    int r = mu_db_begin(db, true);
    if (r == 0) {
        r = mu_db_script(db, sql);
    }
    if (r == 0) {
        r = mu_db_run(db, &insert_stmt, row, MU_ARRAY_LEN(row), NULL, NULL);
    }
    if (r >= 0) {
        r = mu_db_commit(db);
    }
    if (r < 0) {
        mu_db_rollback(db);
        mu_err_set(err, r, "migration %04d (%s): %s", m->version, m->name, mu_db_errmsg(db));
    }
    mu_free(sql);
    return r;
}

int mu_db_migrate_list(struct mu_db *db, const struct mu_migration *list, size_t n, int64_t now_ms,
                       struct mu_err *err)
{
    struct mu_err own = {0};
    struct applied a = {.list = list, .n = n, .err = &own};
    int r = mu_db_run(db, &create_stmt, NULL, 0, NULL, NULL);
    if (r >= 0) {
        r = mu_db_run(db, &list_stmt, NULL, 0, on_applied, &a);
    }
    if (r < 0) {
        return mu_err_set(err, r, "%s", own.code ? own.text : mu_db_errmsg(db));
    }
    r = 0;
    for (size_t i = (size_t)a.version; i < n && r == 0; i++) {
        r = apply(db, &list[i], now_ms, err);
    }
    return r;
}

int mu_db_migrate(struct mu_db *db, int64_t now_ms, struct mu_err *err)
{
    return mu_db_migrate_list(db, embedded, n_embedded, now_ms, err);
}

/* --- the lock --- */

static int on_flag(void *arg, struct mu_row *row)
{
    *(int64_t *)arg = mu_row_i64(row, 0);
    return 0;
}

static int lock_pg(struct mu_db *db, struct mu_err *err)
{
    /* data-model.md 4.5: class 1, the server's slot */
    static const struct mu_stmt try_lock = {"try_lock", "", "SELECT pg_try_advisory_lock(1, 1)",
                                            NULL};
    int64_t got = 0;
    int r = mu_db_run(db, &try_lock, NULL, 0, on_flag, &got);
    if (r < 0) {
        return mu_err_set(err, r, "server lock: %s", mu_db_errmsg(db));
    }
    return got ? 0 : mu_err_set(err, MU_E_BUSY, "another server uses this database");
}

static int lock_file(const char *path, int *ret_fd, struct mu_err *err)
{
    struct mu_buf name;
    mu_buf_init(&name, 8192);
    mu_buf_printf(&name, "%s.lock", path);
    mu_buf_add_char(&name, '\0');
    if (name.failed) {
        int r = name.failed;
        mu_buf_fini(&name);
        return mu_err_set(err, r, "server lock: %s", mu_err_text(r));
    }
    int r = 0;
    MU_AUTO_CLOSE int fd = open(name.ptr, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        r = mu_err_set(err, -errno, "server lock '%s': %s", name.ptr, strerror(errno));
    } else if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int code = errno == EWOULDBLOCK ? MU_E_BUSY : -errno;
        r = mu_err_set(err, code, "server lock '%s': %s", name.ptr,
                       code == MU_E_BUSY ? "another server uses this database" : strerror(errno));
    } else {
        *ret_fd = mu_steal_fd(&fd);
    }
    mu_buf_fini(&name);
    return r;
}

int mu_db_lock(struct mu_db *db, const char *url, int *ret_fd, struct mu_err *err)
{
    static const struct mu_stmt file_stmt = {
        "database_file", "", "SELECT file <> '' FROM pragma_database_list WHERE name = 'main'",
        NULL};
    if (mu_db_engine(db) == MU_DB_PG) {
        int r = lock_pg(db, err);
        if (r == 0) {
            *ret_fd = -1;
        }
        return r;
    }
    int64_t on_disk = 0;
    int r = mu_db_run(db, &file_stmt, NULL, 0, on_flag, &on_disk);
    if (r < 0) {
        return mu_err_set(err, r, "server lock: %s", mu_db_errmsg(db));
    }
    if (!on_disk) {
        *ret_fd = -1;
        return 0;
    }
    char *path = mu_db_sqlite_path(url);
    if (!path) {
        return mu_err_set(err, -ENOMEM, "server lock: no memory");
    }
    r = lock_file(path, ret_fd, err);
    mu_free(path);
    return r;
}

/* --- start-up checks --- */

static int check_sqlite(struct mu_err *err)
{
    if (sqlite3_libversion_number() < 3037000) {
        return mu_err_set(err, MU_E_VERSION, "SQLite %s is too old: at least 3.37 is needed",
                          sqlite3_libversion());
    }
    if (!sqlite3_threadsafe()) {
        return mu_err_set(err, MU_E_VERSION, "SQLite was built without threads");
    }
    static const char *const missing[] = {"OMIT_WAL", "OMIT_CTE", "OMIT_AUTORESET",
                                          "OMIT_FOREIGN_KEY", "OMIT_SHARED_MEM"};
    for (size_t i = 0; i < MU_ARRAY_LEN(missing); i++) {
        if (sqlite3_compileoption_used(missing[i])) {
            return mu_err_set(err, MU_E_VERSION, "SQLite was built with %s", missing[i]);
        }
    }
    return 0;
}

static int check_pg(struct mu_db *db, struct mu_err *err)
{
    static const struct mu_stmt version = {
        "version", "", "", "SELECT CAST(current_setting('server_version_num') AS INTEGER)"};
    static const struct mu_stmt utf8 = {"encoding", "", "",
                                        "SELECT current_setting('server_encoding') = 'UTF8'"};
    int64_t number = 0, is_utf8 = 0;
    int r = mu_db_run(db, &version, NULL, 0, on_flag, &number);
    if (r >= 0) {
        r = mu_db_run(db, &utf8, NULL, 0, on_flag, &is_utf8);
    }
    if (r < 0) {
        return mu_err_set(err, r, "%s", mu_db_errmsg(db));
    }
    if (number < 140000) {
        return mu_err_set(err, MU_E_VERSION, "PostgreSQL %d is too old: at least 14 is needed",
                          (int)(number / 10000));
    }
    if (!is_utf8) {
        return mu_err_set(err, MU_E_VERSION, "the database's encoding is not UTF8");
    }
    return 0;
}

/* Both comparisons that go wrong in a locale (data-model.md 9.6), on a real column. */
static int compare_column(struct mu_db *db, int64_t *ret_right)
{
    static const struct mu_stmt rows = {
        "order_rows", "",
        "INSERT INTO schema_migrations (version, name, sha256, applied_ms) VALUES (-1, 'B', '', "
        "0), (-2, 'a', '', 0), (-3, 'f', '', 0), (-4, '~', '', 0)",
        NULL};
    static const struct mu_stmt right = {
        "order_right", "",
        "SELECT COUNT(*) FROM schema_migrations x JOIN schema_migrations y ON x.name < y.name "
        "WHERE (x.version = -1 AND y.version = -2) OR (x.version = -3 AND y.version = -4)",
        NULL};
    int r = mu_db_begin(db, true);
    if (r == 0) {
        r = mu_db_run(db, &rows, NULL, 0, NULL, NULL);
    }
    if (r >= 0) {
        r = mu_db_run(db, &right, NULL, 0, on_flag, ret_right);
    }
    mu_db_rollback(db);
    return r;
}

int mu_db_check(struct mu_db *db, struct mu_err *err)
{
    int r = mu_db_engine(db) == MU_DB_PG ? check_pg(db, err) : check_sqlite(err);
    if (r < 0) {
        return r;
    }
    int64_t right = 0;
    r = mu_db_run(db, &create_stmt, NULL, 0, NULL, NULL);
    if (r >= 0) {
        r = compare_column(db, &right);
    }
    if (r < 0) {
        return mu_err_set(err, r, "%s", mu_db_errmsg(db));
    }
    return right == 2
               ? 0
               : mu_err_set(err, MU_E_VERSION, "text does not compare by bytes in this database");
}
