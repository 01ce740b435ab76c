/* What both engines must do alike. The including program provides fresh(): a connection with the
 * table t. */
#ifndef TEST_DB_DRIVER_CASES_H
#define TEST_DB_DRIVER_CASES_H

#include "../unit.h"

#include <errno.h>
#include <stdio.h>

#pragma GCC diagnostic ignored "-Wunused-parameter" /* cmocka hands a state to every test */
#pragma GCC diagnostic ignored "-Wunused-function"

#include "../alloc_fail.h"
#include "base/bytes.h"
#include "db/db_int.h"
#include "db/reader.h"

static struct mu_db *fresh(void);

#define CREATE_T                                                                                   \
    "CREATE TABLE t (id {{text}} PRIMARY KEY, n {{i64}}, small {{i16}}, b {{blob}}, CHECK (n IS "  \
    "NULL OR n <> 13)) {{t}}"

static const struct mu_stmt insert = {
    "insert", "tiib", "INSERT INTO t (id, n, small, b) VALUES ($1, $2, $3, $4)", NULL};
static const struct mu_stmt backwards = {"backwards", "it", "INSERT INTO t (id, n) VALUES ($2, $1)",
                                         NULL};
static const struct mu_stmt count = {"count", "", "SELECT COUNT(*) FROM t", NULL};
static const struct mu_stmt get = {"get", "t", "SELECT id, n, small, b FROM t WHERE id = $1", NULL};
static const struct mu_stmt all = {"all", "", "SELECT id, n FROM t ORDER BY id", NULL};
static const struct mu_stmt bump = {"bump", "i", "UPDATE t SET n = n + $1", NULL};
static const struct mu_stmt bump_returning = {"bump_returning", "i",
                                              "UPDATE t SET n = n + $1 RETURNING n", NULL};

static int put(struct mu_db *db, const char *id, int64_t n)
{
    return MU_DB_RUN(db, &insert, NULL, NULL, MU_VT(mu_str(id)), MU_VI(n), MU_VI(1), MU_VNULL);
}

static int queue(struct mu_db *db, const char *id, int64_t n, int expect)
{
    const struct mu_val v[] = {MU_VT(mu_str(id)), MU_VI(n), MU_VI(1), MU_VNULL};
    return mu_db_send(db, &insert, v, 4, expect);
}

static int on_number(void *arg, struct mu_row *row)
{
    *(int64_t *)arg = mu_row_i64(row, 0);
    return 0;
}

static int64_t rows_in_t(struct mu_db *db)
{
    int64_t n = -1;
    assert_int_equal(mu_db_run(db, &count, NULL, 0, on_number, &n), 1);
    return n;
}

/* Reads t again for each row of t. */
static int ask_again(void *arg, struct mu_row *row)
{
    struct mu_db *db = arg;
    char id[8];
    snprintf(id, sizeof id, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    assert_int_equal(rows_in_t(db), 3);
    assert_int_equal(MU_DB_RUN(db, &get, NULL, NULL, MU_VT(mu_str(id))), 1);
    assert_true(mu_bytes_is(mu_row_bytes(row, 0), id)); /* the row outlives what it asked for */
    return 0;
}

static void a_row_may_run_another_statement(void **state)
{
    struct mu_db *db = fresh();
    put(db, "a", 1);
    put(db, "b", 2);
    put(db, "c", 3);
    assert_int_equal(mu_db_begin(db, false), 0);
    assert_int_equal(mu_db_run(db, &all, NULL, 0, ask_again, db), 3);
    assert_int_equal(mu_db_commit(db), 0);
    assert_int_equal(rows_in_t(db), 3);
    mu_db_close(db);
}

static void a_changing_statement_tells_how_many_rows(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(put(db, "a", 1), 1);
    assert_int_equal(put(db, "b", 2), 1);
    assert_int_equal(MU_DB_RUN(db, &bump, NULL, NULL, MU_VI(5)), 2);
    assert_int_equal(MU_DB_RUN(db, &bump_returning, NULL, NULL, MU_VI(5)), 2);
    assert_int_equal(mu_db_run(db, &all, NULL, 0, NULL, NULL), 2);
    static const struct mu_stmt none = {"none", "t", "DELETE FROM t WHERE id = $1", NULL};
    assert_int_equal(MU_DB_RUN(db, &none, NULL, NULL, MU_VT(MU_B("zzz"))), 0);
    mu_db_close(db);
}

struct seen {
    char id[16];
    int64_t n, small;
    bool n_null, b_null;
    char b[300];
    size_t b_len;
    int rows, stop_at;
};

static int on_row(void *arg, struct mu_row *row)
{
    struct seen *s = arg;
    mu_bytes id = mu_row_bytes(row, 0), b = mu_row_bytes(row, 3);
    snprintf(s->id, sizeof s->id, "%.*s", MU_ARGS(id));
    s->n = mu_row_i64(row, 1);
    s->n_null = mu_row_null(row, 1);
    s->small = mu_row_i64(row, 2);
    s->b_null = b.ptr == NULL;
    s->b_len = b.len;
    memcpy(s->b, b.len ? b.ptr : "", b.len);
    return 0;
}

static void values_come_back_as_they_went_in(void **state)
{
    struct mu_db *db = fresh();
    unsigned char bytes[256];
    for (int i = 0; i < 256; i++) {
        bytes[i] = (unsigned char)i;
    }
    static const int64_t numbers[] = {0, -1, 1, INT64_MIN, INT64_MAX, 0x0102030405060708};
    for (size_t i = 0; i < MU_ARRAY_LEN(numbers); i++) {
        char id[8];
        snprintf(id, sizeof id, "k%zu", i);
        assert_int_equal(MU_DB_RUN(db, &insert, NULL, NULL, MU_VT(mu_str(id)), MU_VI(numbers[i]),
                                   MU_VI(-300), MU_VB(mu_bytes_of((char *)bytes, 256))),
                         1);
        struct seen s = {0};
        assert_int_equal(MU_DB_RUN(db, &get, on_row, &s, MU_VT(mu_str(id))), 1);
        assert_string_equal(s.id, id);
        assert_true(s.n == numbers[i] && !s.n_null);
        assert_int_equal(s.small, -300);
        assert_int_equal(s.b_len, 256);
        assert_memory_equal(s.b, bytes, 256);
    }
    mu_db_close(db);
}

static void null_and_empty_are_different(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(
        MU_DB_RUN(db, &insert, NULL, NULL, MU_VT(MU_B_NONE), MU_VNULL, MU_VNULL, MU_VB(MU_B_NONE)),
        1);
    struct seen s = {0};
    assert_int_equal(MU_DB_RUN(db, &get, on_row, &s, MU_VT(MU_B(""))), 1);
    assert_true(s.n_null && s.n == 0);
    assert_true(!s.b_null && s.b_len == 0);
    assert_int_equal(put(db, "x", 1), 1);
    assert_int_equal(MU_DB_RUN(db, &get, on_row, &s, MU_VT(MU_B("x"))), 1);
    assert_true(s.b_null && !s.n_null);
    mu_db_close(db);
}

static void placeholders_are_numbers_whatever_their_order(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(MU_DB_RUN(db, &backwards, NULL, NULL, MU_VI(42), MU_VT(MU_B("id"))), 1);
    struct seen s = {0};
    assert_int_equal(MU_DB_RUN(db, &get, on_row, &s, MU_VT(MU_B("id"))), 1);
    assert_int_equal(s.n, 42);
    mu_db_close(db);
}

static void violated_constraints_have_one_code(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(put(db, "a", 1), 1);
    assert_int_equal(put(db, "a", 1), MU_E_CONSTRAINT);
    assert_true(mu_db_errmsg(db)[0] != '\0');
    assert_int_equal(put(db, "b", 13), MU_E_CONSTRAINT);
    assert_int_equal(put(db, "c", 1), 1);
    assert_int_equal(rows_in_t(db), 2);
    mu_db_close(db);
}

static void wrong_statements_are_internal_errors(void **state)
{
    struct mu_db *db = fresh();
    static const struct mu_stmt syntax = {"syntax", "", "SELEKT 1", NULL};
    static const struct mu_stmt table = {"table", "", "SELECT * FROM nowhere", NULL};
    static const struct mu_stmt quoted = {"quoted", "", "SELECT \"text\"", NULL};
    static const struct mu_stmt word = {"word", "", "SELECT {{word}}", NULL};
    static const struct mu_stmt open = {"open", "", "SELECT {{text", NULL};
    static const struct mu_stmt letter = {"letter", "x", "SELECT $1", NULL};
    assert_int_equal(mu_db_run(db, &syntax, NULL, 0, NULL, NULL), MU_E_INTERNAL);
    assert_int_equal(mu_db_run(db, &table, NULL, 0, NULL, NULL), MU_E_INTERNAL);
    assert_int_equal(mu_db_run(db, &quoted, NULL, 0, NULL, NULL), MU_E_INTERNAL);
    assert_int_equal(mu_db_run(db, &word, NULL, 0, NULL, NULL), MU_E_INTERNAL);
    assert_int_equal(mu_db_run(db, &open, NULL, 0, NULL, NULL), MU_E_INTERNAL);
    assert_int_equal(MU_DB_RUN(db, &letter, NULL, NULL, MU_VI(1)), MU_E_INTERNAL);
    assert_int_equal(MU_DB_RUN(db, &get, NULL, NULL, MU_VI(1)), MU_E_INTERNAL);
    assert_int_equal(mu_db_run(db, &get, NULL, 0, NULL, NULL), MU_E_INTERNAL);
    assert_int_equal(MU_DB_RUN(db, &get, NULL, NULL, MU_VT(MU_B("a")), MU_VI(1)), MU_E_INTERNAL);
    assert_int_equal(rows_in_t(db), 0);
    mu_db_close(db);
}

static int read_text_as_number(void *arg, struct mu_row *row)
{
    (void)mu_row_i64(row, 0);
    return 0;
}

static int read_number_as_text(void *arg, struct mu_row *row)
{
    (void)mu_row_bytes(row, 1);
    return 0;
}

static int read_beyond(void *arg, struct mu_row *row)
{
    (void)mu_row_null(row, 99);
    return 0;
}

static void a_column_read_as_another_type_is_an_error(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(put(db, "1", 1), 1);
    assert_int_equal(mu_db_run(db, &all, NULL, 0, read_text_as_number, NULL), MU_E_INTERNAL);
    assert_int_equal(mu_db_run(db, &all, NULL, 0, read_number_as_text, NULL), MU_E_INTERNAL);
    assert_int_equal(mu_db_run(db, &all, NULL, 0, read_beyond, NULL), MU_E_INTERNAL);
    mu_db_close(db);
}

static int stop_at_second(void *arg, struct mu_row *row)
{
    int *n = arg;
    return ++*n == 2 ? MU_E_LIMIT : 0;
}

static void a_row_callback_stops_the_statement(void **state)
{
    struct mu_db *db = fresh();
    for (int i = 0; i < 5; i++) {
        char id[4] = {(char)('a' + i)};
        assert_int_equal(put(db, id, i), 1);
    }
    int n = 0;
    assert_int_equal(mu_db_run(db, &all, NULL, 0, stop_at_second, &n), MU_E_LIMIT);
    assert_int_equal(n, 2);
    assert_int_equal(mu_db_run(db, &all, NULL, 0, NULL, NULL), 5);
    mu_db_close(db);
}

/* On PostgreSQL the outcome of a send appears later: either place may tell. */
static int send_and_flush(struct mu_db *db, const char *id, int64_t n, int expect)
{
    int r = queue(db, id, n, expect);
    int f = mu_db_flush(db);
    return r < 0 ? r : f;
}

static void what_was_sent_is_checked_at_the_flush(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(mu_db_begin(db, true), 0);
    assert_int_equal(send_and_flush(db, "a", 1, 1), 0);
    assert_int_equal(mu_db_savepoint(db), 0);
    assert_int_equal(send_and_flush(db, "b", 1, 2), MU_E_STALE);
    assert_int_equal(mu_db_rollback_to(db), 0);
    assert_int_equal(mu_db_savepoint(db), 0);
    assert_int_equal(send_and_flush(db, "a", 1, 1), MU_E_CONSTRAINT);
    assert_int_equal(mu_db_rollback_to(db), 0);
    assert_int_equal(send_and_flush(db, "c", 1, -1), 0);
    assert_int_equal(mu_db_commit(db), 0);
    assert_int_equal(rows_in_t(db), 2);
    mu_db_close(db);
}

static void a_run_behind_a_failed_send_gives_its_failure(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(put(db, "a", 1), 1);
    assert_int_equal(mu_db_begin(db, true), 0);
    int r = queue(db, "a", 1, 1);
    if (r == 0) {
        int64_t n = -1;
        r = mu_db_run(db, &count, NULL, 0, on_number, &n);
        assert_int_equal(n, -1);
    }
    assert_int_equal(r, MU_E_CONSTRAINT);
    mu_db_rollback(db);
    assert_int_equal(rows_in_t(db), 1);
    mu_db_close(db);
}

static void a_thousand_sends_fit_through_the_pipeline(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(mu_db_begin(db, true), 0);
    for (int i = 0; i < 1000; i++) {
        char id[16];
        snprintf(id, sizeof id, "k%04d", i);
        assert_int_equal(queue(db, id, i + 100, 1), 0);
    }
    assert_int_equal(mu_db_commit(db), 0);
    assert_int_equal(rows_in_t(db), 1000);
    mu_db_close(db);
}

static void a_failure_long_ago_in_the_pipeline_is_not_forgotten(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(put(db, "k0000", 1), 1);
    assert_int_equal(mu_db_begin(db, true), 0);
    int r = 0;
    for (int i = 0; i < 600 && r == 0; i++) {
        char id[16];
        snprintf(id, sizeof id, "k%04d", i);
        r = queue(db, id, i + 100, 1);
    }
    if (r == 0) {
        r = mu_db_commit(db);
    }
    assert_int_equal(r, MU_E_CONSTRAINT);
    mu_db_rollback(db);
    assert_int_equal(rows_in_t(db), 1);
    mu_db_close(db);
}

static void nested_outcomes_of_a_transaction(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(mu_db_begin(db, true), 0);
    assert_int_equal(mu_db_savepoint(db), 0);
    assert_int_equal(put(db, "kept", 1), 1);
    assert_int_equal(mu_db_release(db), 0);
    assert_int_equal(mu_db_savepoint(db), 0);
    assert_int_equal(put(db, "undone", 1), 1);
    assert_int_equal(mu_db_rollback_to(db), 0);
    assert_int_equal(mu_db_commit(db), 0);
    assert_int_equal(rows_in_t(db), 1);
    assert_int_equal(mu_db_begin(db, true), 0);
    assert_int_equal(put(db, "gone", 1), 1);
    mu_db_rollback(db);
    mu_db_rollback(db); /* harmless */
    assert_int_equal(rows_in_t(db), 1);
    assert_false(mu_db_in_tx(db));
    mu_db_close(db);
}

static void a_script_runs_several_statements(void **state)
{
    struct mu_db *db = fresh();
    assert_int_equal(
        mu_db_script(db, "INSERT INTO t (id) VALUES ('a'); INSERT INTO t (id) VALUES ('b;c');"), 0);
    assert_int_equal(rows_in_t(db), 2);
    assert_int_equal(mu_db_script(db, ""), 0);
    assert_int_equal(mu_db_script(db, "NONSENSE"), MU_E_INTERNAL);
    assert_int_equal(rows_in_t(db), 2);
    mu_db_close(db);
}

static void sums_and_comparisons_are_numbers(void **state)
{
    struct mu_db *db = fresh();
    static const int64_t values[] = {
        0, 7, -7, 9999, 10000, 10001, -123456789012345, 50000000000000};
    static const struct mu_stmt sum = {"sum", "", "SELECT SUM(n) FROM t", NULL};
    static const struct mu_stmt flag = {"flag", "", "SELECT COUNT(*) > 0 FROM t", NULL};
    int64_t total = 0, got = -1;
    for (size_t i = 0; i < MU_ARRAY_LEN(values); i++) {
        char id[8];
        snprintf(id, sizeof id, "s%zu", i);
        assert_int_equal(put(db, id, values[i]), 1);
        total += values[i];
        assert_int_equal(mu_db_run(db, &sum, NULL, 0, on_number, &got), 1);
        assert_true(got == total);
    }
    assert_int_equal(mu_db_run(db, &flag, NULL, 0, on_number, &got), 1);
    assert_int_equal(got, 1);
    mu_db_close(db);
}

static void text_compares_by_bytes(void **state)
{
    struct mu_db *db = fresh();
    static const struct mu_stmt upper = {
        "upper", "",
        "SELECT COUNT(*) FROM t x JOIN t y ON x.id < y.id WHERE x.id = 'B' AND y.id = 'a'", NULL};
    assert_int_equal(put(db, "a", 1), 1);
    assert_int_equal(put(db, "B", 1), 1);
    int64_t n = 0;
    assert_int_equal(mu_db_run(db, &upper, NULL, 0, on_number, &n), 1);
    assert_int_equal(n, 1);
    mu_db_close(db);
}

static int work_without_memory(void *arg)
{
    struct mu_db *db = arg;
    char id[32];
    static int serial;
    static const struct mu_stmt many[12] = {
        {"m", "", "SELECT 0", NULL}, {"m", "", "SELECT 1", NULL},  {"m", "", "SELECT 2", NULL},
        {"m", "", "SELECT 3", NULL}, {"m", "", "SELECT 4", NULL},  {"m", "", "SELECT 5", NULL},
        {"m", "", "SELECT 6", NULL}, {"m", "", "SELECT 7", NULL},  {"m", "", "SELECT 8", NULL},
        {"m", "", "SELECT 9", NULL}, {"m", "", "SELECT 10", NULL}, {"m", "", "SELECT 11", NULL}};
    snprintf(id, sizeof id, "m%d", serial++);
    int r = mu_db_begin(db, true);
    r = r < 0 ? r : put(db, id, 1);
    for (size_t i = 0; i < MU_ARRAY_LEN(many) && r >= 0; i++) {
        r = mu_db_run(db, &many[i], NULL, 0, NULL, NULL);
    }
    r = r < 0 ? r : mu_db_commit(db);
    if (r < 0) {
        mu_db_rollback(db);
    }
    return r;
}

static int open_without_memory(void *arg)
{
    const struct mu_db_opts *opts = arg;
    struct mu_db *db = NULL;
    struct mu_err err = {0};
    int r = mu_db_open(opts, &db, &err);
    assert_true(r == 0 || (err.code < 0 && err.text[0]));
    r = r < 0 ? r : work_without_memory(db);
    mu_db_close(db);
    return r;
}

#define DRIVER_CASES                                                                               \
    cmocka_unit_test(a_row_may_run_another_statement),                                             \
        cmocka_unit_test(a_changing_statement_tells_how_many_rows),                                \
        cmocka_unit_test(values_come_back_as_they_went_in),                                        \
        cmocka_unit_test(null_and_empty_are_different),                                            \
        cmocka_unit_test(placeholders_are_numbers_whatever_their_order),                           \
        cmocka_unit_test(violated_constraints_have_one_code),                                      \
        cmocka_unit_test(wrong_statements_are_internal_errors),                                    \
        cmocka_unit_test(a_column_read_as_another_type_is_an_error),                               \
        cmocka_unit_test(a_row_callback_stops_the_statement),                                      \
        cmocka_unit_test(what_was_sent_is_checked_at_the_flush),                                   \
        cmocka_unit_test(a_run_behind_a_failed_send_gives_its_failure),                            \
        cmocka_unit_test(a_thousand_sends_fit_through_the_pipeline),                               \
        cmocka_unit_test(a_failure_long_ago_in_the_pipeline_is_not_forgotten),                     \
        cmocka_unit_test(nested_outcomes_of_a_transaction),                                        \
        cmocka_unit_test(a_script_runs_several_statements),                                        \
        cmocka_unit_test(sums_and_comparisons_are_numbers),                                        \
        cmocka_unit_test(text_compares_by_bytes)

#endif
