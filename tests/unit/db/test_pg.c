#include "driver_cases.h"

#include "db/migrate.h"
#include "db/pg_int.h"
#include "pg_group.h"

static struct mu_db *connect_as(bool reader)
{
    struct mu_db *db = NULL;
    struct mu_err err = {0};
    if (mu_db_open(&(struct mu_db_opts){.url = server.url, .reader = reader}, &db, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return db;
}

static struct mu_db *fresh(void)
{
    if (!present) {
        skip();
    }
    struct mu_db *db = connect_as(false);
    char *sql = mu_db_expand(MU_DB_PG, "DROP TABLE IF EXISTS t;" CREATE_T);
    assert_int_equal(mu_db_script(db, sql), 0);
    mu_free(sql);
    return db;
}

static int on_text(void *arg, struct mu_row *row)
{
    snprintf(arg, 200, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    return 0;
}

static void session_settings_are_ours(void **state)
{
    static const struct mu_stmt settings = {
        "settings", "", "",
        "SELECT current_setting('application_name') || ' ' || current_setting('client_encoding') "
        "|| "
        "' ' || current_setting('plan_cache_mode') || ' ' || "
        "current_setting('idle_in_transaction_session_timeout')"};
    struct mu_db *db = fresh();
    char text[200] = "";
    assert_int_equal(mu_db_run(db, &settings, NULL, 0, on_text, text), 1);
    assert_string_equal(text, "muster UTF8 force_generic_plan 10s");
    mu_db_close(db);
}

static void a_reader_cannot_write(void **state)
{
    struct mu_db *w = fresh();
    struct mu_db *r = connect_as(true);
    assert_int_equal(put(r, "a", 1), MU_E_IO);
    assert_int_equal(mu_db_begin(r, false), 0);
    assert_int_equal(put(r, "a", 1), MU_E_IO);
    mu_db_rollback(r);
    assert_int_equal(rows_in_t(r), 0);
    mu_db_close(r);
    mu_db_close(w);
}

static void kill_backends_but(struct mu_db *db)
{
    assert_int_equal(
        mu_db_script(db,
                     "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> "
                     "pg_backend_pid() AND backend_type = 'client backend'"),
        0);
}

static void a_killed_connection_is_closed_and_stays_so(void **state)
{
    struct mu_db *killer = fresh();
    struct mu_db *db = connect_as(false);
    assert_true(mu_db_alive(db));
    assert_int_equal(mu_db_begin(db, true), 0);
    assert_int_equal(send_and_flush(db, "a", 1, 1), 0);
    kill_backends_but(killer);
    assert_int_equal(send_and_flush(db, "b", 1, 1), MU_E_CLOSED);
    assert_int_equal(db->trouble, MU_E_CLOSED);
    assert_int_equal(mu_db_run(db, &count, NULL, 0, NULL, NULL), MU_E_CLOSED);
    assert_int_equal(mu_db_commit(db), MU_E_CLOSED);
    mu_db_rollback(db);
    assert_false(mu_db_alive(db));
    mu_db_close(db);

    db = connect_as(false);
    kill_backends_but(killer);
    assert_false(mu_db_alive(db));
    mu_db_close(db);
    assert_int_equal(rows_in_t(killer), 0);
    mu_db_close(killer);
}

static void a_statement_prepared_behind_a_failure_is_prepared_again(void **state)
{
    static const struct mu_stmt late = {"late", "t", "DELETE FROM t WHERE id = $1", NULL};
    struct mu_db *db = fresh();
    assert_int_equal(put(db, "a", 1), 1);
    assert_int_equal(mu_db_begin(db, true), 0);
    assert_int_equal(queue(db, "a", 1, 1), 0);
    const struct mu_val v = MU_VT(MU_B("a"));
    assert_int_equal(mu_db_send(db, &late, &v, 1, 1), 0);
    assert_int_equal(mu_db_flush(db), MU_E_CONSTRAINT);
    mu_db_rollback(db);
    assert_int_equal(mu_db_run(db, &late, &v, 1, NULL, NULL), 1);
    mu_db_close(db);
}

static void a_deadlock_asks_to_run_again(void **state)
{
    struct mu_db *a = fresh();
    struct mu_db *b = connect_as(false);
    static const struct mu_stmt touch = {"touch", "t", "UPDATE t SET n = n + 1 WHERE id = $1",
                                         NULL};
    static const struct mu_stmt wait = {"wait", "", "SET LOCAL lock_timeout = '50ms'", NULL};
    assert_int_equal(put(a, "x", 1), 1);
    assert_int_equal(mu_db_begin(a, true), 0);
    assert_int_equal(MU_DB_RUN(a, &touch, NULL, NULL, MU_VT(MU_B("x"))), 1);
    assert_int_equal(mu_db_begin(b, true), 0);
    assert_int_equal(mu_db_run(b, &wait, NULL, 0, NULL, NULL), 0);
    assert_int_equal(MU_DB_RUN(b, &touch, NULL, NULL, MU_VT(MU_B("x"))), MU_E_RETRY);
    assert_int_equal(b->trouble, MU_E_RETRY);
    mu_db_rollback(b);
    assert_int_equal(mu_db_commit(a), 0);
    mu_db_close(b);
    mu_db_close(a);
}

static void a_failed_transaction_does_not_commit(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(put(db, "a", 1), 1);
    assert_int_equal(mu_db_begin(db, true), 0);
    assert_int_equal(put(db, "b", 1), 1);
    assert_int_equal(put(db, "a", 1), MU_E_CONSTRAINT);
    assert_int_equal(mu_db_commit(db), MU_E_INTERNAL);
    mu_db_rollback(db);
    assert_int_equal(rows_in_t(db), 1);
    mu_db_close(db);
}

static void invalid_text_is_refused_with_a_code(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(put(db, "\xff\xfe", 1), MU_E_INVALID);
    assert_int_equal(
        MU_DB_RUN(db, &insert, NULL, NULL, MU_VT(MU_B("a\0b")), MU_VI(1), MU_VI(1), MU_VNULL),
        MU_E_INVALID);
    assert_int_equal(
        MU_DB_RUN(db, &insert, NULL, NULL, MU_VT(MU_B("a")), MU_VI(1), MU_VI(70000), MU_VNULL),
        MU_E_INVALID);
    mu_db_close(db);
}

static void codes_follow_the_sqlstate(void **state)
{
    static const struct {
        const char *sqlstate;
        int code;
    } rows[] = {
        {"23505", MU_E_CONSTRAINT}, {"23514", MU_E_CONSTRAINT}, {"40001", MU_E_RETRY},
        {"40P01", MU_E_RETRY},      {"53100", MU_E_DISK_FULL},  {"57P01", MU_E_CLOSED},
        {"08006", MU_E_CLOSED},     {"53300", MU_E_CLOSED},     {"25006", MU_E_IO},
        {"57014", MU_E_CANCELLED},  {"42P01", MU_E_INTERNAL},   {"25P02", MU_E_INTERNAL},
        {NULL, MU_E_CLOSED},        {"22021", MU_E_INVALID},    {"58030", MU_E_IO},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        assert_int_equal(mu_pg_code(rows[i].sqlstate), rows[i].code);
    }
}

static void the_password_is_never_told(void **state)
{
    static const char *const urls[] = {
        "postgres://muster:hidden-word@127.0.0.1:1/x",
        "postgres://muster:hidden-word@127.0.0.1:port/x",
        "postgres://muster:hidden-word%zz@127.0.0.1/x",
        "postgres://muster:hidden-word@127.0.0.1/x?nonsense=1",
        "postgres://muster:hidden-word@[::1/x",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(urls); i++) {
        struct mu_db *db = NULL;
        struct mu_err err = {0};
        assert_true(mu_db_open(&(struct mu_db_opts){.url = urls[i]}, &db, &err) < 0);
        assert_null(db);
        assert_true(err.code < 0 && strlen(err.text) > 12);
        assert_null(strstr(err.text, "hidden-word"));
    }
}

static void one_server_holds_the_lock(void **state)
{
    struct mu_db *a = fresh();
    struct mu_db *b = connect_as(false);
    struct mu_err err = {0};
    int fd = 5;
    assert_int_equal(mu_db_check(a, &err), 0);
    assert_int_equal(mu_db_lock(a, server.url, &fd, &err), 0);
    assert_int_equal(fd, -1);
    assert_int_equal(mu_db_lock(b, server.url, &fd, &err), MU_E_BUSY);
    assert_non_null(strstr(err.text, "another server"));
    mu_db_close(a);
    int r = MU_E_BUSY;
    for (int i = 0; i < 100 && r == MU_E_BUSY; i++) {
        r = mu_db_lock(b, server.url, &fd, &err);
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    assert_int_equal(r, 0);
    mu_db_close(b);
}

static void the_embedded_schema_applies_twice(void **state)
{
    struct mu_db *db = fresh();
    struct mu_err err = {0};
    assert_int_equal(mu_db_script(db, "DROP SCHEMA public CASCADE; CREATE SCHEMA public"), 0);
    if (mu_db_migrate(db, 1, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(mu_db_migrate(db, 2, &err), 0);
    assert_int_equal(mu_db_script(db, "DROP SCHEMA public CASCADE; CREATE SCHEMA public"), 0);
    mu_db_close(db);
}

static void a_column_in_another_order_is_refused(void **state)
{
    struct mu_db *db = fresh();
    struct mu_err err = {0};
    assert_int_equal(mu_db_script(db,
                                  "DROP TABLE IF EXISTS schema_migrations; CREATE TABLE "
                                  "schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT "
                                  "NULL, sha256 TEXT NOT NULL, applied_ms BIGINT NOT NULL)"),
                     0);
    assert_int_equal(mu_db_check(db, &err), MU_E_VERSION);
    assert_int_equal(mu_db_script(db, "DROP TABLE schema_migrations"), 0);
    assert_int_equal(mu_db_check(db, &err), 0);
    assert_int_equal(mu_db_script(db, "DROP TABLE schema_migrations"), 0);
    mu_db_close(db);
}

static void any_allocation_may_fail(void **state)
{
    struct mu_db *db = fresh();
    each_allocation_fails(work_without_memory, db);
    mu_db_close(db);
    each_allocation_fails(open_without_memory, &(struct mu_db_opts){.url = server.url});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DRIVER_CASES,
        cmocka_unit_test(session_settings_are_ours),
        cmocka_unit_test(a_reader_cannot_write),
        cmocka_unit_test(a_killed_connection_is_closed_and_stays_so),
        cmocka_unit_test(a_statement_prepared_behind_a_failure_is_prepared_again),
        cmocka_unit_test(a_deadlock_asks_to_run_again),
        cmocka_unit_test(a_failed_transaction_does_not_commit),
        cmocka_unit_test(invalid_text_is_refused_with_a_code),
        cmocka_unit_test(codes_follow_the_sqlstate),
        cmocka_unit_test(the_password_is_never_told),
        cmocka_unit_test(one_server_holds_the_lock),
        cmocka_unit_test(the_embedded_schema_applies_twice),
        cmocka_unit_test(a_column_in_another_order_is_refused),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
