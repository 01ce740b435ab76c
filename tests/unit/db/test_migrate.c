#include "driver_cases.h"

#include "db/migrate.h"
#include "tmp_dir.h"

static struct mu_db *fresh(void)
{
    struct mu_db *db = NULL;
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.memory = true}, &db, NULL), 0);
    return db;
}

static const struct mu_migration two[] = {
    {1, "first", "aa",
     "-- {{anything}} may stand in a comment\nCREATE TABLE t (id {{text}} NOT NULL) {{t}};\n"},
    {2, "second", "bb",
     "-- only sqlite\nINSERT INTO t VALUES ('lite');\n-- only postgresql\nINSERT INTO t VALUES "
     "('pg');\n-- both\nINSERT INTO t VALUES ('both');\n"},
};

static const struct mu_stmt applied = {
    "applied", "",
    "SELECT version * 1000 + applied_ms FROM schema_migrations ORDER BY version DESC", NULL};

static int on_first(void *arg, struct mu_row *row)
{
    int64_t *n = arg;
    *n = *n ? *n : mu_row_i64(row, 0);
    return 0;
}

static int64_t newest(struct mu_db *db)
{
    int64_t n = 0;
    assert_true(mu_db_run(db, &applied, NULL, 0, on_first, &n) >= 0);
    return n;
}

static void migrations_apply_once_and_in_order(void **state)
{
    struct mu_db *db = fresh();
    struct mu_err err = {0};
    assert_int_equal(mu_db_migrate_list(db, two, 1, 5, &err), 0);
    assert_int_equal(newest(db), 1005);
    assert_int_equal(mu_db_migrate_list(db, two, 2, 6, &err), 0);
    assert_int_equal(newest(db), 2006);
    assert_int_equal(rows_in_t(db), 2);
    assert_int_equal(mu_db_migrate_list(db, two, 2, 7, &err), 0);
    assert_int_equal(newest(db), 2006);
    assert_int_equal(rows_in_t(db), 2);
    mu_db_close(db);
}

static void a_changed_migration_is_refused(void **state)
{
    struct mu_db *db = fresh();
    struct mu_err err = {0};
    assert_int_equal(mu_db_migrate_list(db, two, 2, 5, &err), 0);
    struct mu_migration changed[] = {two[0], two[1]};
    changed[0].sha256 = "ab";
    assert_int_equal(mu_db_migrate_list(db, changed, 2, 6, &err), MU_E_VERSION);
    assert_int_equal(err.code, MU_E_VERSION);
    assert_non_null(strstr(err.text, "0001"));
    assert_non_null(strstr(err.text, "first"));
    mu_db_close(db);
}

static void a_database_of_the_future_is_refused(void **state)
{
    struct mu_db *db = fresh();
    struct mu_err err = {0};
    assert_int_equal(mu_db_migrate_list(db, two, 2, 5, &err), 0);
    assert_int_equal(mu_db_migrate_list(db, two, 1, 6, &err), MU_E_VERSION);
    assert_non_null(strstr(err.text, "newer program"));
    assert_int_equal(newest(db), 2005);
    mu_db_close(db);
}

static void a_hole_in_the_list_is_refused(void **state)
{
    struct mu_db *db = fresh();
    struct mu_err err = {0};
    assert_int_equal(mu_db_migrate_list(db, two, 2, 5, &err), 0);
    assert_int_equal(mu_db_script(db, "DELETE FROM schema_migrations WHERE version = 1"), 0);
    assert_int_equal(mu_db_migrate_list(db, two, 2, 6, &err), MU_E_VERSION);
    assert_non_null(strstr(err.text, "lacks"));
    mu_db_close(db);
}

static void a_failing_migration_leaves_nothing(void **state)
{
    struct mu_db *db = fresh();
    struct mu_err err = {0};
    const struct mu_migration bad[] = {
        two[0], {2, "broken", "cc", "INSERT INTO t VALUES ('x'); INSERT INTO nowhere VALUES (1);"}};
    assert_int_equal(mu_db_migrate_list(db, bad, 2, 5, &err), MU_E_INTERNAL);
    assert_non_null(strstr(err.text, "0002 (broken)"));
    assert_non_null(strstr(err.text, "nowhere"));
    assert_int_equal(newest(db), 1005);
    assert_int_equal(rows_in_t(db), 0);
    const struct mu_migration word[] = {two[0], {2, "word", "cc", "CREATE TABLE u (a {{nope}})"}};
    assert_int_equal(mu_db_migrate_list(db, word, 2, 5, &err), MU_E_INTERNAL);
    assert_int_equal(newest(db), 1005);
    mu_db_close(db);
}

static void the_embedded_schema_applies_twice(void **state)
{
    struct mu_db *db = fresh();
    struct mu_err err = {0};
    if (mu_db_check(db, &err) < 0 || mu_db_migrate(db, 1, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(newest(db), mu_db_schema_version() * 1000 + 1);
    assert_int_equal(mu_db_migrate(db, 2, &err), 0);
    assert_int_equal(mu_db_check(db, &err), 0);
    assert_int_equal(newest(db), mu_db_schema_version() * 1000 + 1);
    mu_db_close(db);
}

static void type_words_become_each_engines_own(void **state)
{
    static const struct {
        const char *in, *sqlite, *pg;
    } rows[] = {
        {"{{text}}", "TEXT", "TEXT COLLATE \"C\""},
        {"{{i64}} {{i16}}", "INTEGER INTEGER", "BIGINT SMALLINT"},
        {"a {{blob}}) {{t}};", "a BLOB) STRICT;", "a BYTEA) ;"},
        {"{{tw}}", "STRICT, WITHOUT ROWID", ""},
        {"{{hot}}{{ctr}}", "STRICTSTRICT, WITHOUT ROWID",
         "WITH (fillfactor=70)WITH (fillfactor=50)"},
        {"{{hotw}}", "STRICT, WITHOUT ROWID", "WITH (fillfactor=70)"},
        {"x {{skip_locked}}", "x ", "x FOR UPDATE SKIP LOCKED"},
        {"", "", ""},
        {"{ {x}} }}", "{ {x}} }}", "{ {x}} }}"},
        {"{{Text}}", NULL, NULL},
        {"{{}}", NULL, NULL},
        {"{{text}", NULL, NULL},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        char *lite = mu_db_expand(MU_DB_SQLITE, rows[i].in);
        char *pg = mu_db_expand(MU_DB_PG, rows[i].in);
        if (rows[i].sqlite) {
            assert_string_equal(lite, rows[i].sqlite);
            assert_string_equal(pg, rows[i].pg);
        } else {
            assert_null(lite);
            assert_null(pg);
        }
        mu_free(lite);
        mu_free(pg);
    }
}

static void one_server_holds_the_file(void **state)
{
    struct tmp_dir dir;
    tmp_make(&dir);
    struct mu_db *a = NULL, *b = NULL, *m = fresh();
    struct mu_err err = {0};
    struct mu_db_opts opts = {.url = dir.db};
    assert_int_equal(mu_db_open(&opts, &a, NULL), 0);
    assert_int_equal(mu_db_open(&opts, &b, NULL), 0);
    int first = -1, second = -1;
    assert_int_equal(mu_db_lock(a, dir.db, &first, &err), 0);
    assert_true(first >= 0);
    assert_int_equal(mu_db_lock(b, dir.db, &second, &err), MU_E_BUSY);
    assert_int_equal(second, -1);
    assert_non_null(strstr(err.text, "another server"));
    close(first);
    assert_int_equal(mu_db_lock(b, dir.db, &second, &err), 0);
    close(second);
    first = 7;
    assert_int_equal(mu_db_lock(m, ":memory:", &first, &err), 0);
    assert_int_equal(first, -1);
    mu_db_close(m);
    mu_db_close(b);
    mu_db_close(a);
    tmp_drop(&dir);
}

static int migrate_without_memory(void *arg)
{
    struct mu_db *db = NULL;
    struct mu_err err = {0};
    int r = mu_db_open(&(struct mu_db_opts){.memory = true}, &db, &err);
    r = r < 0 ? r : mu_db_check(db, &err);
    r = r < 0 ? r : mu_db_migrate_list(db, two, 2, 5, &err);
    assert_true(r == 0 || (err.code < 0 && err.text[0]));
    mu_db_close(db);
    return r;
}

static void any_allocation_may_fail(void **state)
{
    each_allocation_fails(migrate_without_memory, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(migrations_apply_once_and_in_order),
        cmocka_unit_test(a_changed_migration_is_refused),
        cmocka_unit_test(a_database_of_the_future_is_refused),
        cmocka_unit_test(a_hole_in_the_list_is_refused),
        cmocka_unit_test(a_failing_migration_leaves_nothing),
        cmocka_unit_test(the_embedded_schema_applies_twice),
        cmocka_unit_test(type_words_become_each_engines_own),
        cmocka_unit_test(one_server_holds_the_file),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
