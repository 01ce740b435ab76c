#include "../unit.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* cmocka hands a state to every test */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "db/reader.h"
#include "pg_group.h"
#include "tmp_dir.h"

static struct tmp_dir dir;

static const struct mu_stmt count = {"count", "", "SELECT COUNT(*) FROM t", NULL};
static const struct mu_stmt erase = {"erase", "", "DELETE FROM t", NULL};

struct reads {
    struct mu_loop *loop;
    int waiting;
    atomic_bool gate;
};

struct ask {
    struct mu_read read;
    struct reads *all;
    int64_t first, second;
    int result;
    bool done;
};

static int on_number(void *arg, struct mu_row *row)
{
    *(int64_t *)arg = mu_row_i64(row, 0);
    return 0;
}

static void on_done(struct mu_read *r, int result)
{
    struct ask *a = MU_CONTAINER(r, struct ask, read);
    assert_true(mu_loop_here(r->loop));
    assert_false(a->done);
    a->done = true;
    a->result = result;
    if (--a->all->waiting == 0) {
        mu_loop_stop(a->all->loop);
    }
}

static int run_count(struct mu_read *r, struct mu_db *db)
{
    struct ask *a = MU_CONTAINER(r, struct ask, read);
    return mu_db_run(db, &count, NULL, 0, on_number, &a->first);
}

/* Counts twice with the gate's time in between. */
static int run_twice(struct mu_read *r, struct mu_db *db)
{
    struct ask *a = MU_CONTAINER(r, struct ask, read);
    int n = mu_db_run(db, &count, NULL, 0, on_number, &a->first);
    atomic_store(&a->all->gate, true);
    while (atomic_load(&a->all->gate)) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return n < 0 ? n : mu_db_run(db, &count, NULL, 0, on_number, &a->second);
}

static int run_write(struct mu_read *r, struct mu_db *db)
{
    return mu_db_run(db, &erase, NULL, 0, NULL, NULL);
}

static int run_own_code(struct mu_read *r, struct mu_db *db)
{
    return MU_E_NOT_FOUND;
}

static struct ask make(struct reads *all, int (*run)(struct mu_read *, struct mu_db *))
{
    return (struct ask){.read = {.run = run, .done = on_done, .loop = all->loop},
                        .all = all,
                        .first = -1,
                        .second = -1};
}

static int submit(struct mu_readers *pool, struct ask *a)
{
    int r = mu_readers_submit(pool, &a->read);
    a->all->waiting += r == 0;
    return r;
}

static int ask_once(struct mu_readers *pool, struct reads *all,
                    int (*run)(struct mu_read *, struct mu_db *), int64_t *n)
{
    struct ask a = make(all, run);
    assert_int_equal(submit(pool, &a), 0);
    mu_loop_run(all->loop);
    *n = a.first;
    return a.result;
}

static struct mu_db *prepare(const char *url)
{
    struct mu_db *db = NULL;
    struct mu_err err = {0};
    if (mu_db_open(&(struct mu_db_opts){.url = url}, &db, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(mu_db_script(db,
                                  "DROP TABLE IF EXISTS t; CREATE TABLE t (id TEXT); INSERT INTO "
                                  "t VALUES ('a'), ('b')"),
                     0);
    return db;
}

static struct mu_readers *open_pool(const char *url, unsigned threads, size_t max_queue)
{
    struct mu_readers *pool = NULL;
    struct mu_err err = {0};
    struct mu_readers_opts o = {.db = {.url = url}, .threads = threads, .max_queue = max_queue};
    if (mu_readers_new(&o, &pool, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return pool;
}

static void reads_answer_and_see_one_moment(const char *url)
{
    struct mu_db *db = prepare(url);
    struct reads all = {0};
    int64_t n = 0;
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &all.loop), 0);
    struct mu_readers *pool = open_pool(url, 2, 0);
    assert_int_equal(ask_once(pool, &all, run_count, &n), 1);
    assert_int_equal(n, 2);
    assert_int_equal(ask_once(pool, &all, run_own_code, &n), MU_E_NOT_FOUND);
    assert_true(ask_once(pool, &all, run_write, &n) < 0);
    assert_int_equal(ask_once(pool, &all, run_count, &n), 1);
    assert_int_equal(n, 2);
    struct ask a = make(&all, run_twice), b = make(&all, run_count);
    assert_int_equal(submit(pool, &a), 0);
    while (!atomic_load(&all.gate)) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    assert_int_equal(mu_db_script(db, "INSERT INTO t VALUES ('c')"), 0);
    assert_int_equal(submit(pool, &b), 0); /* the other thread, a later moment */
    nanosleep(&(struct timespec){0, 50000000}, NULL);
    atomic_store(&all.gate, false);
    mu_loop_run(all.loop);
    assert_int_equal(a.first, 2);
    assert_int_equal(a.second, 2);
    assert_int_equal(b.first, 3);
    mu_readers_free(pool);
    mu_loop_free(all.loop);
    mu_db_close(db);
}

static void reads_answer_and_see_one_moment_on_sqlite(void **state)
{
    tmp_make(&dir);
    reads_answer_and_see_one_moment(dir.db);
    tmp_drop(&dir);
}

static void reads_answer_and_see_one_moment_on_postgresql(void **state)
{
    if (!present) {
        skip();
    }
    reads_answer_and_see_one_moment(server.url);
}

static void *free_pool(void *pool)
{
    return mu_readers_free(pool);
}

static void a_full_queue_says_busy_and_the_end_says_shutdown(void **state)
{
    tmp_make(&dir);
    struct mu_db *db = prepare(dir.db);
    struct reads all = {0};
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &all.loop), 0);
    struct mu_readers *pool = open_pool(dir.db, 1, 3);
    struct ask gate = make(&all, run_twice), asks[4];
    assert_int_equal(submit(pool, &gate), 0);
    while (!atomic_load(&all.gate)) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    for (int i = 0; i < 4; i++) {
        asks[i] = make(&all, run_count);
        assert_int_equal(submit(pool, &asks[i]), i < 3 ? 0 : MU_E_BUSY);
    }
    /* The end begins while a read runs: those behind it are not run any more. */
    pthread_t thread;
    struct ask late = make(&all, run_count);
    assert_int_equal(pthread_create(&thread, NULL, free_pool, pool), 0);
    int r = MU_E_BUSY;
    while (r == MU_E_BUSY) {
        r = submit(pool, &late);
    }
    assert_int_equal(r, MU_E_SHUTDOWN);
    atomic_store(&all.gate, false);
    pthread_join(thread, NULL);
    mu_loop_run(all.loop);
    assert_int_equal(gate.result, 1);
    for (int i = 0; i < 3; i++) {
        assert_true(asks[i].done);
        assert_int_equal(asks[i].result, MU_E_SHUTDOWN);
    }
    assert_false(asks[3].done || late.done);
    mu_loop_free(all.loop);
    mu_db_close(db);
    tmp_drop(&dir);
}

static void a_lost_connection_is_opened_again(void **state)
{
    if (!present) {
        skip();
    }
    struct mu_db *db = prepare(server.url);
    struct reads all = {0};
    int64_t n = 0;
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &all.loop), 0);
    struct mu_readers *pool = open_pool(server.url, 2, 0);
    assert_int_equal(ask_once(pool, &all, run_count, &n), 1);
    assert_int_equal(
        mu_db_script(db,
                     "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> "
                     "pg_backend_pid() AND backend_type = 'client backend'"),
        0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ask_once(pool, &all, run_count, &n), 1);
    }
    mu_db_close(db);
    pg_shutdown(&server);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ask_once(pool, &all, run_count, &n), MU_E_UNAVAILABLE);
    }
    assert_true(pg_boot(&server));
    int r = MU_E_UNAVAILABLE;
    for (int i = 0; i < 100 && r == MU_E_UNAVAILABLE; i++) {
        nanosleep(&(struct timespec){0, 20000000}, NULL);
        r = ask_once(pool, &all, run_count, &n);
    }
    assert_int_equal(r, 1);
    mu_readers_free(pool);
    mu_loop_free(all.loop);
}

static void a_database_that_is_not_there_is_worded(void **state)
{
    struct mu_readers *pool = NULL;
    struct mu_err err = {0};
    struct mu_readers_opts o = {.db = {.url = "/nowhere/x.db"}};
    assert_true(mu_readers_new(&o, &pool, &err) < 0);
    assert_null(pool);
    assert_non_null(strstr(err.text, "/nowhere/x.db"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_answer_and_see_one_moment_on_sqlite),
        cmocka_unit_test(reads_answer_and_see_one_moment_on_postgresql),
        cmocka_unit_test(a_full_queue_says_busy_and_the_end_says_shutdown),
        cmocka_unit_test(a_lost_connection_is_opened_again),
        cmocka_unit_test(a_database_that_is_not_there_is_worded),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
