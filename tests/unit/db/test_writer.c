#include "writer_world.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault_vfs.h"
#include "tmp_dir.h"

static struct tmp_dir dir;

static struct mu_writer_opts options(void)
{
    return (struct mu_writer_opts){.db = {.url = dir.db}};
}

static int set_up(void **state)
{
    tmp_make(&dir);
    return 0;
}

static int tear_down(void **state)
{
    tmp_drop(&dir);
    return 0;
}

static void units_write_and_subscribers_hear_of_it(void **state)
{
    struct world w;
    world_new(&w, options());
    struct log l;
    watch_log(&w, &l, "s1");
    assert_int_equal(do_op(&w, OP_NEW, "s1", 2), 0);
    assert_int_equal(do_op(&w, OP_NEW, "s2", 3), 0);
    assert_int_equal(do_op(&w, OP_APPEND, "s1", 3), 0);
    assert_int_equal(do_op(&w, OP_APPEND, "s1", 0), 0);
    assert_int_equal(do_op(&w, OP_APPEND, "nowhere", 1), MU_E_NOT_FOUND);
    assert_int_equal(do_op(&w, OP_APPEND, "s2", 1), 0);
    assert_int_equal(l.n, 5);
    assert_int_equal(l.wrong, 0);
    assert_int_equal(ask(dir.db, &count_events), 9);
    assert_int_equal(ask(dir.db, &count_holes), 0);
    mu_feed_unwatch(w.feed, &l.watch);
    world_end(&w);
}

struct heard {
    struct mu_watch watch;
    char text[8][64]; /* stream, org, seq, type */
    int n;
};

static void on_heard(struct mu_watch *w, struct mu_event *e)
{
    struct heard *h = MU_CONTAINER(w, struct heard, watch);
    assert_true(h->n < 8);
    snprintf(h->text[h->n++], sizeof h->text[0], "%.*s %.*s %lld %d", MU_ARGS(e->stream),
             MU_ARGS(e->org), (long long)e->seq, e->type);
}

static void hear(struct world *w, struct heard *h, const char *topic)
{
    *h = (struct heard){.watch = {.loop = w->loop, .on_event = on_heard}};
    snprintf(h->watch.stream_id, sizeof h->watch.stream_id, "%s", topic);
    assert_int_equal(mu_feed_watch(w->feed, &h->watch), 0);
}

/* One stream of another org, one of nobody, and a type that no org hears of. */
static int other_streams(struct op *op, struct mu_tx *tx)
{
    static const char *const orgs[] = {"another", "",
                                       "an-org-whose-name-does-not-fit-into-any-topic"};
    for (size_t i = 0; i < MU_ARRAY_LEN(orgs); i++) {
        static const char *const streams[] = {"o1", "o2", "o3"};
        int r = mu_tx_stream_new(tx, mu_str(streams[i]), mu_str(orgs[i]), 2);
        r = r < 0 ? r : mu_tx_event(tx, 7, 1, MU_B("x"), MU_B("{}"));
        r = r < 0 ? r : mu_tx_event(tx, 8, 1, MU_B("x"), MU_B("{}"));
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static void an_org_hears_of_some_events_of_all_its_streams(void **state)
{
    struct world w;
    struct mu_writer_opts o = options();
    o.org_types = UINT64_C(1) << 7;
    world_new(&w, o);
    struct heard mine, another, all;
    hear(&w, &mine, "org:org");
    hear(&w, &another, "org:another");
    hear(&w, &all, "org:*");
    assert_int_equal(do_op(&w, OP_NEW, "s1", 1), 0);
    assert_int_equal(do_op(&w, OP_APPEND, "s1", 1), 0);
    assert_int_equal(do_op(&w, OP_FAIL, "s1", 1), MU_E_CONFLICT); /* rolled back: nobody hears */
    struct op op = make_op(&w, OP_CALL, "", 0);
    op.call = other_streams;
    assert_int_equal(submit(&op), 0);
    settle(&w);
    assert_int_equal(op.result, 0);
    assert_int_equal(mine.n, 2);
    assert_string_equal(mine.text[0], "s1 org 1 7");
    assert_string_equal(mine.text[1], "s1 org 2 7");
    assert_int_equal(another.n, 1);
    assert_string_equal(another.text[0], "o1 another 1 7");
    assert_int_equal(all.n, 5);
    assert_string_equal(all.text[2], "o1 another 1 7");
    assert_string_equal(all.text[3], "o2  1 7");
    assert_string_equal(all.text[4], "o3  1 7");
    mu_feed_unwatch(w.feed, &mine.watch);
    mu_feed_unwatch(w.feed, &another.watch);
    mu_feed_unwatch(w.feed, &all.watch);
    world_end(&w);
}

static void a_failing_unit_fails_alone(void **state)
{
    struct world w;
    world_new(&w, options());
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    struct log l;
    watch_log(&w, &l, "s");
    l.last = 1;
    struct op ops[] = {
        make_op(&w, OP_APPEND, "s", 2), make_op(&w, OP_FAIL, "s", 2),
        make_op(&w, OP_APPEND, "s", 1), make_op(&w, OP_CLASH, "s", 3),
        make_op(&w, OP_MISUSE, "s", 2), make_op(&w, OP_OVERUSE, "s", 0),
        make_op(&w, OP_APPEND, "s", 2),
    };
    int64_t batches = metric(&w, "muster_db_batches_total");
    submit_together(&w, ops, MU_ARRAY_LEN(ops));
    assert_int_equal(metric(&w, "muster_db_batches_total"), batches + 2); /* the gate and one */
    static const int results[] = {
        0, MU_E_CONFLICT, 0, MU_E_CONSTRAINT, MU_E_INTERNAL, MU_E_INTERNAL, 0};
    for (size_t i = 0; i < MU_ARRAY_LEN(ops); i++) {
        assert_int_equal(ops[i].result, results[i]);
    }
    assert_int_equal(l.n, 5);
    assert_int_equal(l.wrong, 0);
    assert_int_equal(ask(dir.db, &count_events), 6);
    assert_int_equal(ask(dir.db, &count_holes), 0);
    world_end(&w);
}

static void numbers_stay_dense_whatever_is_rolled_back(void **state)
{
    struct world w;
    world_new(&w, options());
    storm(&w, dir.db);
    world_end(&w);
}

static void frequent_failures_are_not_run_twice(void **state)
{
    struct world w;
    world_new(&w, options());
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    enum { BATCHES = 30, N = 10 };
    int64_t twice = 0;
    for (int b = 0; b < BATCHES; b++) {
        struct op ops[N];
        for (int i = 0; i < N; i++) {
            ops[i] = make_op(&w, i == 5 ? OP_FAIL : OP_APPEND, "s", 1);
        }
        submit_together(&w, ops, N);
        twice += ops[0].runs > 1;
        assert_true(b < 10 || ops[0].runs == 1);
    }
    assert_in_range(twice, 1, 6);
    for (int b = 0; b < 60; b++) { /* and a calm time brings the cheap way back */
        struct op ops[N];
        for (int i = 0; i < N; i++) {
            ops[i] = make_op(&w, OP_APPEND, "s", 1);
        }
        submit_together(&w, ops, N);
    }
    struct op ops[] = {make_op(&w, OP_APPEND, "s", 1), make_op(&w, OP_FAIL, "s", 1)};
    submit_together(&w, ops, 2);
    assert_int_equal(ops[0].runs, 2);
    assert_int_equal(ask(dir.db, &count_holes), 0);
    world_end(&w);
}

static void units_of_a_stream_keep_their_order(void **state)
{
    struct world w;
    world_new(&w, options());
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    struct op ops[50];
    for (int i = 0; i < 50; i++) {
        ops[i] = make_op(&w, OP_APPEND, "s", 1);
    }
    submit_together(&w, ops, 50);
    for (int i = 1; i < 50; i++) {
        assert_true(ops[i].order > ops[i - 1].order);
    }
    world_end(&w);
}

static void a_large_unit_has_a_batch_of_its_own(void **state)
{
    struct world w;
    world_new(&w, options());
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    struct op ops[7];
    for (int i = 0; i < 7; i++) {
        ops[i] = make_op(&w, OP_APPEND, "s", 1);
        ops[i].unit.alone = i == 2 || i == 3;
    }
    int64_t batches = metric(&w, "muster_db_batches_total");
    submit_together(&w, ops, 7);
    assert_int_equal(metric(&w, "muster_db_batches_total"), batches + 1 + 4);
    assert_int_equal(metric(&w, "muster_db_units_total"), 1 + 1 + 7);
    world_end(&w);
}

/* --- durability --- */

static int syncs_at_start(struct op *op, struct mu_tx *tx)
{
    *(int *)op->arg = atomic_load(&fault_syncs);
    return mu_tx_stream_new(tx, mu_str(op->stream), MU_B("org"), 0);
}

static int syncs_at_done;

static void note_syncs(struct mu_unit *u, int result)
{
    syncs_at_done = atomic_load(&fault_syncs);
    op_done(u, result);
}

static void done_comes_after_the_sync(void **state)
{
    struct world w;
    struct mu_writer_opts o = options();
    o.db.vfs = fault_vfs_register();
    world_new(&w, o);
    for (int i = 0; i < 5; i++) {
        char id[8];
        int before = -1;
        snprintf(id, sizeof id, "s%d", i);
        struct op op = make_op(&w, OP_CALL, id, 0);
        op.call = syncs_at_start;
        op.arg = &before;
        op.unit.done = note_syncs;
        assert_int_equal(submit(&op), 0);
        settle(&w);
        assert_int_equal(op.result, 0);
        assert_true(syncs_at_done > before);
    }
    world_end(&w);
}

static void trouble_and_back(atomic_int *fault, int code, const char *words)
{
    struct world w;
    struct mu_writer_opts o = options();
    o.db.vfs = fault_vfs_register();
    world_new(&w, o);
    assert_int_equal(do_op(&w, OP_NEW, "s", 1), 0);
    struct log l;
    watch_log(&w, &l, "s");
    l.last = 1;
    atomic_store(fault, code);
    struct op ops[] = {make_op(&w, OP_APPEND, "s", 1), make_op(&w, OP_APPEND, "s", 1),
                       make_op(&w, OP_NEW, "t", 1)};
    submit_together(&w, ops, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ops[i].result, MU_E_UNAVAILABLE);
    }
    assert_false(mu_writer_healthy(w.writer));
    struct mu_err err;
    mu_writer_trouble(w.writer, &err);
    assert_non_null(strstr(err.text, words));
    assert_int_equal(do_op(&w, OP_APPEND, "s", 1), MU_E_UNAVAILABLE);
    nanosleep(&(struct timespec){0, 700000000}, NULL); /* a probe goes wrong meanwhile */
    assert_false(mu_writer_healthy(w.writer));
    atomic_store(fault, 0);
    wait_healthy(&w, true);
    mu_writer_trouble(w.writer, &err);
    assert_int_equal(err.code, 0);
    assert_int_equal(do_op(&w, OP_APPEND, "s", 2), 0);
    assert_int_equal(l.n, 2);
    assert_int_equal(l.wrong, 0);
    assert_int_equal(ask(dir.db, &count_streams), 1);
    assert_int_equal(ask(dir.db, &count_events), 3);
    assert_int_equal(ask(dir.db, &count_holes), 0);
    world_end(&w);
}

static void a_full_disk_stops_intake_until_there_is_room(void **state)
{
    trouble_and_back(&fault_write, SQLITE_FULL, "disk full");
}

static void a_failing_sync_acknowledges_nothing(void **state)
{
    trouble_and_back(&fault_sync, SQLITE_IOERR_FSYNC, "input/output");
}

static void a_crash_before_the_commit_leaves_nothing(void **state)
{
    struct world w;
    world_new(&w, options());
    assert_int_equal(do_op(&w, OP_NEW, "before", 1), 0);
    world_end(&w);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct mu_writer_opts o = options();
        o.crash_before_commit = true;
        struct world c;
        if (world_open(&c, o, NULL) == 0 && do_op(&c, OP_NEW, "never", 1) == 0) {
            (void)!write(pipes[1], "acknowledged", 12);
        }
        _exit(0);
    }
    int status = 0;
    char text[16];
    close(pipes[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(read(pipes[0], text, sizeof text), 0);
    close(pipes[0]);
    world_new(&w, options());
    assert_int_equal(ask(dir.db, &count_streams), 1);
    assert_int_equal(do_op(&w, OP_NEW, "never", 1), 0);
    world_end(&w);
}

/* --- limits and life --- */

static void a_full_queue_says_busy(void **state)
{
    struct world w;
    struct mu_writer_opts o = options();
    o.max_queue = 5;
    world_new(&w, o);
    struct op gate = make_op(&w, OP_GATE, "", 0), ops[6];
    gate.unit.alone = true;
    atomic_store(&w.gate, true);
    assert_int_equal(submit(&gate), 0);
    while (mu_writer_queue(w.writer)) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    for (int i = 0; i < 6; i++) {
        char id[8];
        snprintf(id, sizeof id, "q%d", i);
        ops[i] = make_op(&w, OP_NEW, id, 1);
        assert_int_equal(submit(&ops[i]), i < 5 ? 0 : MU_E_BUSY);
    }
    assert_int_equal(mu_writer_queue(w.writer), 5);
    atomic_store(&w.gate, false);
    settle(&w);
    assert_int_equal(ask(dir.db, &count_streams), 5);
    world_end(&w);
}

static void what_is_queued_at_the_end_is_still_committed(void **state)
{
    struct world w;
    world_new(&w, options());
    static struct op ops[700];
    for (int i = 0; i < 700; i++) {
        char id[8];
        snprintf(id, sizeof id, "e%d", i);
        ops[i] = make_op(&w, OP_NEW, id, 1);
        assert_int_equal(submit(&ops[i]), 0);
    }
    w.writer = mu_writer_free(w.writer);
    settle(&w);
    assert_int_equal(w.failed, 0);
    assert_int_equal(ask(dir.db, &count_streams), 700);
    world_end(&w);
}

static void a_second_server_is_refused(void **state)
{
    struct world a, b;
    struct mu_err err = {0};
    world_new(&a, options());
    assert_int_equal(world_open(&b, options(), &err), MU_E_BUSY);
    assert_non_null(strstr(err.text, "another server"));
    world_end(&b);
    world_end(&a);
    world_new(&a, options());
    world_end(&a);
}

static void a_database_in_memory_works_too(void **state)
{
    struct world w;
    world_new(&w, (struct mu_writer_opts){.db = {.memory = true}});
    assert_int_equal(do_op(&w, OP_NEW, "s", 2), 0);
    assert_int_equal(do_op(&w, OP_FAIL, "s", 2), MU_E_CONFLICT);
    assert_int_equal(do_op(&w, OP_APPEND, "s", 2), 0);
    world_end(&w);
}

struct crowd {
    pthread_t thread;
    struct world *w;
    struct op ops[500];
};

static void *submit_all(void *arg)
{
    struct crowd *c = arg;
    for (int i = 0; i < 500; i++) {
        if (mu_writer_submit(c->w->writer, &c->ops[i].unit) < 0) {
            abort();
        }
    }
    return NULL;
}

static void many_threads_may_submit(void **state)
{
    struct world w;
    static struct crowd crowd[4];
    world_new(&w, options());
    for (int t = 0; t < 4; t++) {
        crowd[t].w = &w;
        for (int i = 0; i < 500; i++) {
            char id[16];
            snprintf(id, sizeof id, "t%d-%d", t, i);
            crowd[t].ops[i] = make_op(&w, OP_NEW, id, 2);
        }
    }
    w.waiting = 2000;
    for (int t = 0; t < 4; t++) {
        pthread_create(&crowd[t].thread, NULL, submit_all, &crowd[t]);
    }
    settle(&w);
    for (int t = 0; t < 4; t++) {
        pthread_join(crowd[t].thread, NULL);
    }
    assert_int_equal(w.failed, 0);
    assert_int_equal(ask(dir.db, &count_events), 4000);
    world_end(&w);
}

static int own_retry(struct op *op, struct mu_tx *tx)
{
    return MU_E_RETRY;
}

static void a_units_own_code_is_not_taken_for_the_engines(void **state)
{
    struct world w;
    world_new(&w, options());
    struct op op = make_op(&w, OP_CALL, "", 0);
    op.call = own_retry;
    assert_int_equal(submit(&op), 0);
    settle(&w);
    assert_int_equal(op.result, MU_E_RETRY);
    assert_int_equal(op.runs, 1);
    assert_true(mu_writer_healthy(w.writer));
    world_end(&w);
}

static int big_event(struct op *op, struct mu_tx *tx)
{
    static char big[20000];
    memset(big, '1', sizeof big);
    int r = mu_tx_stream_new(tx, MU_B("big"), MU_B("org"), 1);
    return r < 0 ? r : mu_tx_event(tx, 1, 1, MU_B(""), mu_bytes_of(big, op->events));
}

static void an_event_has_a_largest_size(void **state)
{
    struct world w;
    world_new(&w, options());
    struct op op = make_op(&w, OP_CALL, "", 16385);
    op.call = big_event;
    assert_int_equal(submit(&op), 0);
    settle(&w);
    assert_int_equal(op.result, MU_E_TOO_LARGE);
    op = make_op(&w, OP_CALL, "", 16384);
    op.call = big_event;
    assert_int_equal(submit(&op), 0);
    settle(&w);
    assert_int_equal(op.result, 0);
    world_end(&w);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(units_write_and_subscribers_hear_of_it),
        T(an_org_hears_of_some_events_of_all_its_streams),
        T(a_failing_unit_fails_alone),
        T(numbers_stay_dense_whatever_is_rolled_back),
        T(frequent_failures_are_not_run_twice),
        T(units_of_a_stream_keep_their_order),
        T(a_large_unit_has_a_batch_of_its_own),
        T(done_comes_after_the_sync),
        T(a_full_disk_stops_intake_until_there_is_room),
        T(a_failing_sync_acknowledges_nothing),
        T(a_crash_before_the_commit_leaves_nothing),
        T(a_full_queue_says_busy),
        T(what_is_queued_at_the_end_is_still_committed),
        T(a_second_server_is_refused),
        T(a_database_in_memory_works_too),
        T(many_threads_may_submit),
        T(a_units_own_code_is_not_taken_for_the_engines),
        T(an_event_has_a_largest_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
