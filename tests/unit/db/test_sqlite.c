#include "driver_cases.h"

#include <sys/stat.h>

#include "tmp_dir.h"

static struct mu_db *fresh(void)
{
    struct mu_db *db = NULL;
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.memory = true}, &db, NULL), 0);
    char *sql = mu_db_expand(MU_DB_SQLITE, CREATE_T);
    assert_int_equal(mu_db_script(db, sql), 0);
    mu_free(sql);
    return db;
}

static void file_is_private_and_durable_by_default(void **state)
{
    struct tmp_dir dir;
    tmp_make(&dir);
    struct mu_db *db = NULL;
    struct mu_db_opts opts = {.url = dir.db};
    assert_int_equal(mu_db_open(&opts, &db, NULL), 0);
    assert_int_equal(mu_db_script(db, "CREATE TABLE t (id TEXT)"), 0);
    static const struct mu_stmt sync = {"sync", "", "PRAGMA synchronous", NULL};
    static const struct mu_stmt keys = {"keys", "", "PRAGMA foreign_keys", NULL};
    static const struct mu_stmt trusted = {"trusted", "", "PRAGMA trusted_schema", NULL};
    int64_t n = -1;
    assert_int_equal(mu_db_run(db, &sync, NULL, 0, on_number, &n), 1);
    assert_int_equal(n, 2);
    assert_int_equal(mu_db_run(db, &keys, NULL, 0, on_number, &n), 1);
    assert_int_equal(n, 1);
    assert_int_equal(mu_db_run(db, &trusted, NULL, 0, on_number, &n), 1);
    assert_int_equal(n, 0);
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < 3; i++) {
        char path[80];
        struct stat st;
        snprintf(path, sizeof path, "%s%s", dir.db, suffixes[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    mu_db_close(db);
    opts.sync_normal = true;
    assert_int_equal(mu_db_open(&opts, &db, NULL), 0);
    assert_int_equal(mu_db_run(db, &sync, NULL, 0, on_number, &n), 1);
    assert_int_equal(n, 1);
    mu_db_close(db);
    tmp_drop(&dir);
}

static void a_file_url_names_the_same_file(void **state)
{
    static const struct {
        const char *url, *path;
    } rows[] = {
        {"/a/b.db", "/a/b.db"},
        {"b%20.db", "b%20.db"},
        {"file:/a/b.db?cache=private", "/a/b.db"},
        {"file:///a/b%20c.db", "/a/b c.db"},
        {"file:b.db#x", "b.db"},
        {"file:b%zz%4", "b%zz%4"},
        {"file://localhost/a", "/a"},
        {":memory:", NULL},
        {"file::memory:", NULL},
        {"file:", NULL},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        char *path = mu_db_sqlite_path(rows[i].url);
        assert_true((path == NULL) == (rows[i].path == NULL));
        if (path) {
            assert_string_equal(path, rows[i].path);
        }
        mu_free(path);
    }
}

static void a_reader_cannot_write(void **state)
{
    struct tmp_dir dir;
    tmp_make(&dir);
    struct mu_db *w = NULL, *r = NULL;
    struct mu_db_opts opts = {.url = dir.db};
    assert_int_equal(mu_db_open(&opts, &w, NULL), 0);
    assert_int_equal(mu_db_script(w, "CREATE TABLE t (id TEXT); INSERT INTO t VALUES ('a')"), 0);
    opts.reader = true;
    assert_int_equal(mu_db_open(&opts, &r, NULL), 0);
    assert_int_equal(rows_in_t(r), 1);
    assert_int_equal(mu_db_script(r, "DELETE FROM t"), MU_E_IO);
    assert_int_equal(rows_in_t(r), 1);
    mu_db_close(r);
    mu_db_close(w);
    tmp_drop(&dir);
}

static void a_reader_sees_one_moment_while_its_transaction_lasts(void **state)
{
    struct tmp_dir dir;
    tmp_make(&dir);
    struct mu_db *w = NULL, *r = NULL;
    struct mu_db_opts opts = {.url = dir.db};
    assert_int_equal(mu_db_open(&opts, &w, NULL), 0);
    assert_int_equal(mu_db_script(w, "CREATE TABLE t (id TEXT)"), 0);
    opts.reader = true;
    assert_int_equal(mu_db_open(&opts, &r, NULL), 0);
    assert_int_equal(mu_db_begin(r, false), 0);
    assert_int_equal(rows_in_t(r), 0);
    assert_int_equal(mu_db_script(w, "INSERT INTO t VALUES ('a')"), 0);
    assert_int_equal(rows_in_t(r), 0);
    assert_int_equal(mu_db_commit(r), 0);
    assert_int_equal(rows_in_t(r), 1);
    mu_db_close(r);
    mu_db_close(w);
    tmp_drop(&dir);
}

static void a_full_file_is_disk_full(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(mu_db_script(db, "PRAGMA max_page_count=10"), 0);
    assert_int_equal(mu_db_begin(db, true), 0);
    char *block = calloc(1, 100000);
    int r = MU_DB_RUN(db, &insert, NULL, NULL, MU_VT(MU_B("a")), MU_VI(1), MU_VI(1),
                      MU_VB(mu_bytes_of(block, 100000)));
    free(block);
    assert_int_equal(r, MU_E_DISK_FULL);
    assert_int_equal(db->trouble, MU_E_DISK_FULL);
    mu_db_rollback(db);
    assert_int_equal(rows_in_t(db), 0);
    mu_db_close(db);
}

static void a_place_that_is_no_database_is_worded(void **state)
{
    struct mu_db *db = NULL;
    struct mu_err err = {0};
    assert_true(mu_db_open(&(struct mu_db_opts){.url = "/nowhere/x.db"}, &db, &err) < 0);
    assert_non_null(strstr(err.text, "/nowhere/x.db"));
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = ""}, &db, &err), MU_E_INVALID);
    struct tmp_dir dir;
    tmp_make(&dir);
    FILE *f = fopen(dir.db, "w");
    for (int i = 0; i < 500; i++) {
        fputs("this is not a database. ", f);
    }
    fclose(f);
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = dir.db}, &db, &err), MU_E_IO);
    assert_null(db);
    tmp_drop(&dir);
}

static void the_log_is_emptied_when_idle(void **state)
{
    struct tmp_dir dir;
    tmp_make(&dir);
    struct mu_db *db = NULL;
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = dir.db}, &db, NULL), 0);
    assert_int_equal(mu_db_script(db, "CREATE TABLE t (b BLOB)"), 0);
    for (int i = 0; i < 2; i++) { /* less than what makes a busy writer checkpoint by itself */
        assert_int_equal(mu_db_script(db, "INSERT INTO t VALUES (randomblob(3000000))"), 0);
    }
    struct stat before, after;
    assert_int_equal(stat(dir.db, &before), 0);
    mu_db_checkpoint(db);
    assert_int_equal(stat(dir.db, &after), 0);
    assert_true(after.st_size > before.st_size + 5000000);
    mu_db_close(db);
    tmp_drop(&dir);
}

static void any_allocation_may_fail(void **state)
{
    struct tmp_dir dir;
    tmp_make(&dir);
    struct mu_db *db = NULL;
    struct mu_db_opts opts = {.url = dir.db};
    assert_int_equal(mu_db_open(&opts, &db, NULL), 0);
    char *sql = mu_db_expand(MU_DB_SQLITE, CREATE_T);
    assert_int_equal(mu_db_script(db, sql), 0);
    mu_free(sql);
    each_allocation_fails(work_without_memory, db);
    mu_db_close(db);
    each_allocation_fails(open_without_memory, &opts);
    tmp_drop(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DRIVER_CASES,
        cmocka_unit_test(file_is_private_and_durable_by_default),
        cmocka_unit_test(a_file_url_names_the_same_file),
        cmocka_unit_test(a_reader_cannot_write),
        cmocka_unit_test(a_reader_sees_one_moment_while_its_transaction_lasts),
        cmocka_unit_test(a_full_file_is_disk_full),
        cmocka_unit_test(a_place_that_is_no_database_is_worded),
        cmocka_unit_test(the_log_is_emptied_when_idle),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
