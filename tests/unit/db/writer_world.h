/* A writer with its loop and feed, and a unit that does what a test says. */
#ifndef TEST_DB_WRITER_WORLD_H
#define TEST_DB_WRITER_WORLD_H

#include "../unit.h"
#include "../worlds.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* cmocka hands a state to every test */
#pragma GCC diagnostic ignored "-Wunused-function"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "db/writer.h"

struct world {
    struct mu_loop *loop;
    struct mu_feed *feed;
    struct mu_metrics *metrics;
    struct mu_writer *writer;
    long waiting, failed;
    atomic_bool gate; /* while set, a gate unit holds the writer */
};

enum op_kind { OP_NEW, OP_APPEND, OP_FAIL, OP_CLASH, OP_MISUSE, OP_OVERUSE, OP_GATE, OP_CALL };

struct op {
    struct mu_unit unit;
    struct world *w;
    enum op_kind kind;
    char stream[48];
    unsigned events;
    int (*call)(struct op *op, struct mu_tx *tx);
    int runs, result, order;
    bool done, heap;
    void *arg;
};

static int op_events(struct op *op, struct mu_tx *tx)
{
    int r = 0;
    for (unsigned i = 0; i < op->events && r == 0; i++) {
        char data[64];
        int n = snprintf(data, sizeof data, "{\"i\":%u}", i);
        r = mu_tx_event(tx, 7, 1000 + i, MU_B("tester"), mu_bytes_of(data, (size_t)n));
    }
    return r;
}

static int op_run(struct mu_unit *u, struct mu_tx *tx)
{
    struct op *op = MU_CONTAINER(u, struct op, unit);
    mu_bytes id = mu_str(op->stream);
    unsigned n = op->events;
    int r = 0;
    op->runs++;
    switch (op->kind) {
    case OP_NEW:
        r = mu_tx_stream_new(tx, id, MU_B("org"), n);
        return r < 0 ? r : op_events(op, tx);
    case OP_APPEND:
        r = mu_tx_stream(tx, id, n);
        return r < 0 ? r : op_events(op, tx);
    case OP_FAIL:
        r = mu_tx_stream(tx, id, n);
        r = r < 0 ? r : op_events(op, tx);
        return r < 0 ? r : MU_E_CONFLICT;
    case OP_CLASH: /* found at the flush only, on PostgreSQL */
        r = mu_tx_stream(tx, id, n);
        r = r < 0 ? r : op_events(op, tx);
        return r < 0 ? r : mu_tx_stream_new(tx, id, MU_B("org"), 0);
    case OP_MISUSE:
        return mu_tx_stream(tx, id, n);
    case OP_OVERUSE:
        r = mu_tx_stream(tx, id, 0);
        return r < 0 ? r : mu_tx_event(tx, 7, 1, MU_B(""), MU_B("{}"));
    case OP_GATE:
        while (atomic_load(&op->w->gate)) {
            nanosleep(&(struct timespec){0, 1000000}, NULL);
        }
        return 0;
    case OP_CALL:
        return op->call(op, tx);
    }
    return MU_E_INTERNAL;
}

static void op_done(struct mu_unit *u, int result)
{
    struct op *op = MU_CONTAINER(u, struct op, unit);
    static int order;
    assert_true(mu_loop_here(u->loop));
    assert_false(op->done);
    op->done = true;
    op->result = result;
    op->order = ++order;
    op->w->failed += result < 0;
    if (--op->w->waiting == 0) {
        mu_loop_stop(op->w->loop);
    }
}

static struct op make_op(struct world *w, enum op_kind kind, const char *stream, unsigned events)
{
    struct op op = {.unit = {.run = op_run, .done = op_done, .loop = w->loop},
                    .w = w,
                    .kind = kind,
                    .events = events};
    snprintf(op.stream, sizeof op.stream, "%s", stream);
    return op;
}

static int submit(struct op *op)
{
    op->unit.stream_id = mu_str(op->stream);
    op->unit.org_id = MU_B("org");
    int r = mu_writer_submit(op->w->writer, &op->unit);
    op->w->waiting += r == 0;
    return r;
}

static void settle(struct world *w)
{
    if (w->waiting) {
        mu_loop_run(w->loop);
    }
    assert_int_equal(w->waiting, 0);
}

static int do_op(struct world *w, enum op_kind kind, const char *stream, unsigned events)
{
    struct op op = make_op(w, kind, stream, events);
    int r = submit(&op);
    if (r < 0) {
        return r;
    }
    settle(w);
    return op.result;
}

/* Submits all behind a closed gate, so that they are one batch (as far as max_batch allows). */
static void submit_together(struct world *w, struct op *ops, size_t n)
{
    struct op gate = make_op(w, OP_GATE, "", 0);
    gate.unit.alone = true;
    atomic_store(&w->gate, true);
    assert_int_equal(submit(&gate), 0);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(submit(&ops[i]), 0);
    }
    atomic_store(&w->gate, false);
    settle(w);
    assert_int_equal(gate.result, 0);
}

static int world_open(struct world *w, struct mu_writer_opts opts, struct mu_err *err)
{
    *w = (struct world){0};
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &w->loop), 0);
    assert_int_equal(mu_feed_new(&w->loop, 1, &w->feed), 0);
    assert_int_equal(mu_metrics_new(&w->metrics), 0);
    opts.env = &mu_env_real;
    opts.feed = w->feed;
    opts.metrics = w->metrics;
    return mu_writer_new(&opts, &w->writer, err);
}

static void world_new(struct world *w, struct mu_writer_opts opts)
{
    struct mu_err err = {0};
    if (world_open(w, opts, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static void world_end(struct world *w)
{
    w->writer = mu_writer_free(w->writer);
    w->loop = mu_loop_free(w->loop);
    w->feed = mu_feed_free(w->feed);
    w->metrics = mu_metrics_free(w->metrics);
}

static void wait_healthy(struct world *w, bool healthy)
{
    for (int i = 0; i < 600 && mu_writer_healthy(w->writer) != healthy; i++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    assert_true(mu_writer_healthy(w->writer) == healthy);
}

/* --- looking at the database from outside --- */

static int on_count(void *arg, struct mu_row *row)
{
    *(int64_t *)arg = mu_row_i64(row, 0);
    return 0;
}

static int64_t ask(const char *url, const struct mu_stmt *s)
{
    struct mu_db *db = NULL;
    int64_t n = -1;
    struct mu_err err = {0};
    if (mu_db_open(&(struct mu_db_opts){.url = url, .reader = true}, &db, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(mu_db_run(db, s, NULL, 0, on_count, &n), 1);
    mu_db_close(db);
    return n;
}

static const struct mu_stmt count_streams = {"count_streams", "", "SELECT COUNT(*) FROM streams",
                                             NULL};
static const struct mu_stmt count_events = {"count_events", "", "SELECT COUNT(*) FROM events",
                                            NULL};
/* Streams whose events are not exactly 1 .. last_seq (G5). */
static const struct mu_stmt count_holes = {
    "count_holes", "",
    "SELECT COUNT(*) FROM streams s WHERE s.last_seq <> (SELECT COUNT(*) FROM events e WHERE "
    "e.stream_id = s.id) OR s.last_seq <> (SELECT COALESCE(MAX(seq), 0) FROM events e WHERE "
    "e.stream_id = s.id) OR (s.last_seq > 0 AND (SELECT MIN(seq) FROM events e WHERE e.stream_id = "
    "s.id) <> 1)",
    NULL};

/* Random work with failures of every kind over a few streams. */
static void storm(struct world *w, const char *url)
{
    enum { N = 600, STREAMS = 5 };
    static struct op ops[N];
    int64_t expected = 0;
    unsigned seed = 42;
    for (int i = 0; i < STREAMS; i++) {
        char id[16];
        snprintf(id, sizeof id, "storm-%d", i);
        assert_int_equal(do_op(w, OP_NEW, id, 1), 0);
        expected++;
    }
    for (int i = 0; i < N; i++) {
        char id[16];
        snprintf(id, sizeof id, "storm-%d", rand_r(&seed) % STREAMS);
        int dice = rand_r(&seed) % 100;
        /* Calm first, then one in four fails: both ways of running a batch are taken. */
        bool fails = i > N / 2 && dice < 25;
        enum op_kind kind = !fails      ? OP_APPEND
                            : dice < 10 ? OP_FAIL
                            : dice < 20 ? OP_CLASH
                                        : OP_MISUSE;
        ops[i] = make_op(w, kind, id, 1 + dice % 3);
    }
    submit_together(w, ops, N);
    for (int i = 0; i < N; i++) {
        int want = ops[i].kind == OP_APPEND  ? 0
                   : ops[i].kind == OP_FAIL  ? MU_E_CONFLICT
                   : ops[i].kind == OP_CLASH ? MU_E_CONSTRAINT
                                             : MU_E_INTERNAL;
        assert_int_equal(ops[i].result, want);
        expected += want == 0 ? ops[i].events : 0;
    }
    assert_int_equal(ask(url, &count_events), expected);
    assert_int_equal(ask(url, &count_holes), 0);
}

/* --- a subscriber --- */

struct log {
    struct mu_watch watch;
    int64_t last;
    int n, wrong;
};

static void on_log(struct mu_watch *watch, struct mu_event *e)
{
    struct log *l = MU_CONTAINER(watch, struct log, watch);
    l->wrong += e->seq != l->last + 1 || e->type != 7 || e->data.len < 7 || e->data.ptr[0] != '{';
    l->last = e->seq;
    l->n++;
}

static void watch_log(struct world *w, struct log *l, const char *stream)
{
    *l = (struct log){.watch = {.loop = w->loop, .on_event = on_log}};
    snprintf(l->watch.stream_id, sizeof l->watch.stream_id, "%s", stream);
    assert_int_equal(mu_feed_watch(w->feed, &l->watch), 0);
}

static int64_t metric(struct world *w, const char *name)
{
    return metric_of(w->metrics, name);
}

#endif
