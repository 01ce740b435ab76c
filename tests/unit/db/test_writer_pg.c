#include "writer_world.h"

#include "db/migrate.h"
#include "pg_group.h"

static struct mu_writer_opts options(void)
{
    return (struct mu_writer_opts){.db = {.url = server.url}};
}

static void script(const char *sql)
{
    struct mu_db *db = NULL;
    struct mu_err err = {0};
    if (mu_db_open(&(struct mu_db_opts){.url = server.url}, &db, &err) < 0) {
        fail_msg("%s", err.text);
    }
    if (mu_db_script(db, sql) < 0) {
        fail_msg("%s", mu_db_errmsg(db));
    }
    mu_db_close(db);
}

#define KILL_WRITER                                                                                \
    "SELECT pg_terminate_backend(l.pid, 5000) FROM pg_locks l WHERE l.locktype = 'advisory' AND "  \
    "l.classid = 1 AND l.objid = 1"

static int set_up(void **state)
{
    if (present) {
        script("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    }
    return 0;
}

static void open_world(struct world *w)
{
    if (!present) {
        skip();
    }
    world_new(w, options());
}

static void units_write_and_subscribers_hear_of_it(void **state)
{
    struct world w;
    open_world(&w);
    struct log l;
    watch_log(&w, &l, "s1");
    assert_int_equal(do_op(&w, OP_NEW, "s1", 2), 0);
    assert_int_equal(do_op(&w, OP_NEW, "s2", 3), 0);
    assert_int_equal(do_op(&w, OP_APPEND, "s1", 3), 0);
    assert_int_equal(do_op(&w, OP_APPEND, "nowhere", 1), MU_E_NOT_FOUND);
    assert_int_equal(do_op(&w, OP_CLASH, "s1", 1), MU_E_CONSTRAINT);
    assert_int_equal(l.n, 5);
    assert_int_equal(l.wrong, 0);
    assert_int_equal(ask(server.url, &count_holes), 0);
    world_end(&w);
}

static void numbers_stay_dense_whatever_is_rolled_back(void **state)
{
    struct world w;
    open_world(&w);
    storm(&w, server.url);
    world_end(&w);
}

static void a_second_server_is_refused(void **state)
{
    struct world a, b;
    struct mu_err err = {0};
    open_world(&a);
    assert_int_equal(world_open(&b, options(), &err), MU_E_BUSY);
    assert_non_null(strstr(err.text, "another server"));
    world_end(&b);
    world_end(&a);
}

static void *end_slowly(void *arg)
{
    nanosleep(&(struct timespec){0, 700000000}, NULL);
    mu_db_close(arg);
    return NULL;
}

/* A killed server's session goes on until PostgreSQL has ended its statement. */
static void a_dead_servers_session_is_waited_for(void **state)
{
    struct world w;
    struct mu_db *dying = NULL;
    struct mu_err err = {0};
    pthread_t thread;
    int fd = -1;
    if (!present) {
        skip();
    }
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = server.url}, &dying, &err), 0);
    assert_int_equal(mu_db_lock(dying, server.url, &fd, &err), 0);
    pthread_create(&thread, NULL, end_slowly, dying);
    world_new(&w, options());
    pthread_join(thread, NULL);
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    world_end(&w);
}

static void a_connection_lost_while_idle_costs_nothing(void **state)
{
    struct world w;
    open_world(&w);
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    script(KILL_WRITER);
    assert_int_equal(do_op(&w, OP_APPEND, "s", 1), 0);
    assert_true(mu_writer_healthy(w.writer));
    assert_int_equal(ask(server.url, &count_events), 2);
    world_end(&w);
}

static int die_once(struct op *op, struct mu_tx *tx)
{
    int r = mu_tx_stream(tx, mu_str(op->stream), 1);
    if (r == 0 && op->runs == 1) {
        script(KILL_WRITER);
    }
    return r < 0 ? r : mu_tx_event(tx, 7, 1, MU_B(""), MU_B("{\"k\":1}"));
}

static void a_connection_lost_inside_a_batch_runs_it_again(void **state)
{
    struct world w;
    open_world(&w);
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    struct op ops[] = {make_op(&w, OP_APPEND, "s", 1), make_op(&w, OP_CALL, "s", 0),
                       make_op(&w, OP_APPEND, "s", 1)};
    ops[1].call = die_once;
    submit_together(&w, ops, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ops[i].result, 0);
    }
    assert_int_equal(ops[1].runs, 2);
    assert_int_equal(ask(server.url, &count_events), 4);
    assert_int_equal(ask(server.url, &count_holes), 0);
    world_end(&w);
}

/* Raises 40001 the first `op->events` times. */
static int transient(struct op *op, struct mu_tx *tx)
{
    static const struct mu_stmt raise = {
        "raise", "", "", "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$"};
    int r = mu_tx_stream(tx, mu_str(op->stream), 1);
    r = r < 0 ? r : mu_tx_event(tx, 7, 1, MU_B(""), MU_B("{\"k\":1}"));
    if (r == 0 && (unsigned)op->runs <= op->events) {
        r = mu_db_run(mu_tx_db(tx), &raise, NULL, 0, NULL, NULL);
    }
    return r;
}

static void transient_failures_run_unit_by_unit(void **state)
{
    struct world w;
    open_world(&w);
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    struct op ops[] = {make_op(&w, OP_APPEND, "s", 1), make_op(&w, OP_CALL, "s", 3),
                       make_op(&w, OP_CALL, "s", 1000), make_op(&w, OP_APPEND, "s", 1)};
    ops[1].call = ops[2].call = transient;
    submit_together(&w, ops, 4);
    assert_int_equal(ops[0].result, 0);
    assert_int_equal(ops[1].result, 0);
    assert_int_equal(ops[1].runs, 4);
    assert_int_equal(ops[2].result, MU_E_UNAVAILABLE);
    assert_in_range(ops[2].runs, 3, 8);
    assert_int_equal(ops[3].result, 0);
    assert_true(mu_writer_healthy(w.writer));
    assert_int_equal(ask(server.url, &count_events), 4);
    assert_int_equal(ask(server.url, &count_holes), 0);
    world_end(&w);
}

/* --- the connection breaks during COMMIT --- */

/* Waits until the writer's backend shows `what`, then kills it. */
static void *kill_in_commit(void *what)
{
    char sql[700];
    snprintf(sql, sizeof sql,
             "DO $$ BEGIN FOR i IN 1..500 LOOP PERFORM pg_stat_clear_snapshot(); IF EXISTS (SELECT "
             "FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid WHERE l.locktype = "
             "'advisory' AND l.classid = 1 AND a.wait_event = '%s') THEN EXIT; END IF; PERFORM "
             "pg_sleep(0.02); END LOOP; END $$",
             (const char *)what);
    script(sql);
    script(KILL_WRITER);
    script("ALTER SYSTEM RESET synchronous_standby_names");
    script("SELECT pg_reload_conf()");
    return NULL;
}

static void a_commit_that_happened_unheard_is_found(void **state)
{
    struct world w;
    open_world(&w);
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    struct log l;
    watch_log(&w, &l, "s");
    l.last = 1;
    /* COMMIT is done locally and then waits for a standby that is not there. */
    script("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    script("SELECT pg_reload_conf()");
    nanosleep(&(struct timespec){0, 300000000}, NULL);
    pthread_t killer;
    pthread_create(&killer, NULL, kill_in_commit, "SyncRep");
    struct op ops[] = {make_op(&w, OP_APPEND, "s", 2), make_op(&w, OP_APPEND, "s", 1)};
    assert_int_equal(submit(&ops[0]), 0);
    settle(&w);
    pthread_join(killer, NULL);
    assert_int_equal(ops[0].result, 0);
    assert_int_equal(ops[0].runs, 1);
    assert_int_equal(submit(&ops[1]), 0);
    settle(&w);
    assert_int_equal(ops[1].result, 0);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.wrong, 0);
    assert_int_equal(ask(server.url, &count_events), 4);
    assert_int_equal(ask(server.url, &count_holes), 0);
    world_end(&w);
}

static void a_commit_that_did_not_happen_is_run_again(void **state)
{
    struct world w;
    open_world(&w);
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    /* The check at COMMIT sleeps for the first transaction only. */
    script("CREATE SEQUENCE slow; CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ "
           "BEGIN IF nextval('slow') = 1 THEN PERFORM pg_sleep(20); END IF; RETURN NULL; END $$; "
           "CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED "
           "FOR EACH ROW EXECUTE FUNCTION dawdle()");
    pthread_t killer;
    pthread_create(&killer, NULL, kill_in_commit, "PgSleep");
    struct op op = make_op(&w, OP_APPEND, "s", 1);
    assert_int_equal(submit(&op), 0);
    settle(&w);
    pthread_join(killer, NULL);
    assert_int_equal(op.result, 0);
    assert_int_equal(op.runs, 2);
    assert_int_equal(ask(server.url, &count_events), 2);
    assert_int_equal(ask(server.url, &count_holes), 0);
    world_end(&w);
}

/* --- the server goes away --- */

static void a_stopped_server_makes_unavailable_and_comes_back(void **state)
{
    struct world w;
    open_world(&w);
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    pg_shutdown(&server);
    assert_int_equal(do_op(&w, OP_APPEND, "s", 1), MU_E_UNAVAILABLE);
    assert_false(mu_writer_healthy(w.writer));
    struct op op = make_op(&w, OP_APPEND, "s", 1);
    assert_int_equal(submit(&op), MU_E_UNAVAILABLE);
    assert_true(pg_boot(&server));
    wait_healthy(&w, true);
    assert_int_equal(do_op(&w, OP_APPEND, "s", 1), 0);
    assert_int_equal(ask(server.url, &count_events), 2);
    world_end(&w);
}

static void a_writer_whose_slot_was_taken_stays_silent(void **state)
{
    struct world w;
    open_world(&w);
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    script("UPDATE servers SET instance = 'another'");
    assert_int_equal(do_op(&w, OP_APPEND, "s", 1), MU_E_UNAVAILABLE);
    assert_false(mu_writer_healthy(w.writer));
    struct mu_err err;
    mu_writer_trouble(w.writer, &err);
    assert_non_null(strstr(err.text, "taken"));
    nanosleep(&(struct timespec){1, 200000000}, NULL);
    assert_false(mu_writer_healthy(w.writer));
    assert_int_equal(ask(server.url, &count_events), 1);
    world_end(&w);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, set_up)
    const struct CMUnitTest tests[] = {
        T(units_write_and_subscribers_hear_of_it),
        T(numbers_stay_dense_whatever_is_rolled_back),
        T(a_second_server_is_refused),
        T(a_dead_servers_session_is_waited_for),
        T(a_connection_lost_while_idle_costs_nothing),
        T(a_connection_lost_inside_a_batch_runs_it_again),
        T(transient_failures_run_unit_by_unit),
        T(a_commit_that_happened_unheard_is_found),
        T(a_commit_that_did_not_happen_is_run_again),
        T(a_stopped_server_makes_unavailable_and_comes_back),
        T(a_writer_whose_slot_was_taken_stays_silent),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
