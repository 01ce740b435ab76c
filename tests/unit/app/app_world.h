/* A database with everything that app/sessions needs, on either engine, and with every unit run
 * once or twice: the writer may run a unit again after a rollback (db/writer.h), so the second kind
 * of world does that to each of them and counts when the answers differ. */
#ifndef TEST_APP_WORLD_H
#define TEST_APP_WORLD_H

#include "../unit.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* cmocka hands a state to every test */
#pragma GCC diagnostic ignored "-Wunused-function"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../alloc_fail.h"
#include "../db/pg_group.h"
#include "../db/tmp_dir.h"
#include "../worlds.h"
#include "app/sessions/query_int.h"
#include "base/encode.h"
#include "base/log.h"
#include "db/writer_int.h"

/* Each world begins after the one before, because ids never go back within a process. */
static int64_t start_ms = INT64_C(1700000000000);

struct kind {
    const char *name;
    bool pg, twice;
};
static const struct kind kinds[4] = {{"sqlite", false, false},
                                     {"sqlite, twice", false, true},
                                     {"postgres", true, false},
                                     {"postgres, twice", true, true}};

struct world {
    struct mu_env env;
    atomic_bool still; /* no time passes */
    _Atomic int64_t now_ms;
    bool pg;
    struct tmp_dir dir;
    char url[128];
    struct mu_loop *loop;
    struct mu_feed *feed;
    struct mu_metrics *metrics;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_identity *identity;
    struct mu_sessions *sessions;
    struct mu_principal alice, bob, admin;
    int result;
    struct { /* a connection of the test's own; statements are found by their address */
        struct mu_db *db;
        struct mu_stmt stmts[64];
        char *texts[64];
        size_t n;
    } side;
};

/* --- every unit twice --- */

enum { RING = 4096 };
static struct {
    pthread_mutex_t lock;
    bool on;
    struct {
        struct mu_unit *unit;
        int (*run)(struct mu_unit *u, struct mu_tx *tx);
    } ring[RING];
    unsigned at, ran, differed;
} doubling = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int (*doubled_run(struct mu_unit *u))(struct mu_unit *u, struct mu_tx *tx)
{
    pthread_mutex_lock(&doubling.lock);
    for (unsigned i = 1; i <= RING; i++) {
        unsigned k = (doubling.at + RING - i) % RING;
        if (doubling.ring[k].unit == u) {
            pthread_mutex_unlock(&doubling.lock);
            return doubling.ring[k].run;
        }
    }
    pthread_mutex_unlock(&doubling.lock);
    fail_msg("a unit that was not submitted");
    return NULL;
}

static int run_twice(struct mu_unit *u, struct mu_tx *tx)
{
    int (*run)(struct mu_unit * unit, struct mu_tx * t) = doubled_run(u);
    struct mu_db *db = mu_tx_db(tx);
    size_t before = tx->log.len;
    int r = mu_db_savepoint(db);
    if (r < 0) {
        return r;
    }
    int first = run(u, tx);
    if (first >= 0) {
        r = mu_tx_end_unit(tx);
        r = r < 0 ? r : mu_db_flush(db);
        first = r < 0 ? r : first;
    }
    if (db->trouble) {
        return db->trouble;
    }
    tx->log.len = before;
    tx->log.failed = 0;
    r = mu_db_rollback_to(db);
    if (r < 0) {
        return r;
    }
    mu_tx_start_unit(tx);
    int second = run(u, tx);
    if (second >= 0) {
        r = mu_db_flush(db);
        second = r < 0 ? r : second;
    }
    pthread_mutex_lock(&doubling.lock);
    doubling.ran++;
    doubling.differed += first != second;
    pthread_mutex_unlock(&doubling.lock);
    return second;
}

/* The writer takes nothing, and counts what it was asked. */
static atomic_bool writer_busy;
static atomic_long writer_refused;

int __real_mu_writer_submit(struct mu_writer *w, struct mu_unit *u);
int __wrap_mu_writer_submit(struct mu_writer *w, struct mu_unit *u);
int __wrap_mu_writer_submit(struct mu_writer *w, struct mu_unit *u)
{
    if (atomic_load(&writer_busy)) {
        atomic_fetch_add(&writer_refused, 1);
        return MU_E_BUSY;
    }
    pthread_mutex_lock(&doubling.lock);
    if (doubling.on && u->run != run_twice) {
        doubling.ring[doubling.at].unit = u;
        doubling.ring[doubling.at].run = u->run;
        doubling.at = (doubling.at + 1) % RING;
        u->run = run_twice;
    }
    pthread_mutex_unlock(&doubling.lock);
    return __real_mu_writer_submit(w, u);
}

/* --- looking at and into the database from outside --- */

static void close_side(struct world *w)
{
    w->side.db = mu_db_close(w->side.db);
    for (; w->side.n; w->side.n--) {
        free(w->side.texts[w->side.n - 1]);
    }
}

static void with_db(struct world *w, const char *sql, mu_row_fn fn, void *arg)
{
    struct mu_err err = {0};
    if (w->side.n == MU_ARRAY_LEN(w->side.stmts)) {
        close_side(w);
    }
    if (!w->side.db && mu_db_open(&(struct mu_db_opts){.url = w->url}, &w->side.db, &err) < 0) {
        fail_msg("%s", err.text);
    }
    size_t i = w->side.n++;
    w->side.texts[i] = strdup(sql);
    w->side.stmts[i] = (struct mu_stmt){"test", "", w->side.texts[i], NULL};
    int r = fn ? mu_db_run(w->side.db, &w->side.stmts[i], NULL, 0, fn, arg)
               : mu_db_script(w->side.db, sql);
    if (r < 0) {
        fail_msg("%s: %s", sql, mu_db_errmsg(w->side.db));
    }
}

static int on_number(void *arg, struct mu_row *row)
{
    *(int64_t *)arg = mu_row_i64(row, 0);
    return 0;
}
static int on_text(void *arg, struct mu_row *row)
{
    mu_buf_add((struct mu_buf *)arg, mu_row_bytes(row, 0));
    mu_buf_add_char((struct mu_buf *)arg, ';');
    return 0;
}

__attribute__((format(printf, 2, 3))) static int64_t num(struct world *w, const char *fmt, ...)
{
    char sql[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sql, sizeof sql, fmt, ap);
    va_end(ap);
    int64_t n = -1;
    with_db(w, sql, on_number, &n);
    return n;
}

/* The first column of every row, each with a semicolon behind it. */
__attribute__((format(printf, 2, 3))) static const char *txt(struct world *w, const char *fmt, ...)
{
    static char out[16384];
    char sql[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sql, sizeof sql, fmt, ap);
    va_end(ap);
    struct mu_buf b;
    mu_buf_init(&b, sizeof out - 1);
    with_db(w, sql, on_text, &b);
    snprintf(out, sizeof out, "%.*s", MU_ARGS(mu_buf_bytes(&b)));
    mu_buf_fini(&b);
    return out;
}

__attribute__((format(printf, 2, 3))) static void put_sql(struct world *w, const char *fmt, ...)
{
    char sql[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sql, sizeof sql, fmt, ap);
    va_end(ap);
    with_db(w, sql, NULL, NULL);
}

/* A session's row, from outside. */
struct row {
    int64_t state, outcome, end_reason, epoch, tries, rev, saturated, deadline, stop, ended, purge,
        exit_code, tokens_in, tokens_out, has_worker, updated, started;
};

static int on_row(void *arg, struct mu_row *r)
{
    int64_t *v = arg;
    for (int i = 0; i < 17; i++) {
        v[i] = mu_row_i64(r, i);
    }
    return 0;
}

static struct row row_of(struct world *w, const struct mu_id *id)
{
    char sql[512];
    struct row row = {.state = -1};
    snprintf(sql, sizeof sql,
             "SELECT state, outcome, end_reason, epoch, tries, rev, saturated_ms, deadline_ms, "
             "stop_ms, ended_ms, purge_ms, exit_code, tokens_in, tokens_out, CASE WHEN worker_id "
             "IS NULL THEN 0 ELSE 1 END, updated_ms, started_ms FROM sessions WHERE id = '%s'",
             id->text);
    with_db(w, sql, on_row, &row);
    return row;
}

/* G5: every stream's events are exactly 1 .. last_seq. */
static int64_t holes(struct world *w)
{
    return num(w, "SELECT COUNT(*) FROM streams s WHERE s.last_seq <> (SELECT COUNT(*) FROM events "
                  "e WHERE e.stream_id = s.id) OR s.last_seq <> (SELECT COALESCE(MAX(seq), 0) "
                  "FROM events e WHERE e.stream_id = s.id) OR (s.last_seq > 0 AND (SELECT MIN(seq) "
                  "FROM events e WHERE e.stream_id = s.id) <> 1)");
}
static int64_t events_of(struct world *w, const struct mu_id *id)
{
    return num(w, "SELECT COUNT(*) FROM events WHERE stream_id = '%s'", id->text);
}

/* --- life --- */

static int64_t world_wall(const struct mu_env *env)
{
    return atomic_load(&((struct world *)env->arg)->now_ms);
}
static int64_t world_mono(const struct mu_env *env)
{
    const struct world *w = env->arg;
    return atomic_load(&w->still) ? 0 : mu_env_real.mono_ns(&mu_env_real);
}
static void world_random(const struct mu_env *env, void *dst, size_t len)
{
    mu_env_real.random(&mu_env_real, dst, len);
}

static void principal(struct world *w, const char *token, struct mu_principal *p)
{
    assert_int_equal(mu_identity_resolve(w->identity, mu_str(token), p), 0);
}

static void world_begin(struct world *w, const struct kind *kind)
{
    struct mu_err err = {0};
    memset(w, 0, sizeof *w);
    mu_log_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    start_ms += INT64_C(100) * 86400000;
    atomic_store(&w->now_ms, start_ms);
    w->env = (struct mu_env){world_wall, world_mono, world_random, w};
    w->pg = kind->pg;
    tmp_make(&w->dir);
    snprintf(w->url, sizeof w->url, "%s", kind->pg ? server.url : w->dir.db);
    if (w->pg) {
        with_db(w, "DROP SCHEMA public CASCADE; CREATE SCHEMA public", NULL, NULL);
    }
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &w->loop), 0);
    assert_int_equal(mu_feed_new(&w->loop, 1, &w->feed), 0);
    assert_int_equal(mu_metrics_new(&w->metrics), 0);
    const struct mu_db_opts db = {.url = w->url, .sync_normal = true};
    const struct mu_writer_opts wo = {
        .db = db, .env = &w->env, .feed = w->feed, .metrics = w->metrics};
    const struct mu_readers_opts ro = {.db = db, .threads = 2};
    const struct mu_identity_opts io = {.env = &w->env, .admin_key = "the-admin"};
    if (mu_writer_new(&wo, &w->writer, &err) < 0 || mu_readers_new(&ro, &w->readers, &err) < 0 ||
        mu_identity_new(&io, NULL, &w->identity, &err) < 0) {
        fail_msg("%s", err.text);
    }
    const struct mu_sessions_opts so = {.env = &w->env,
                                        .writer = w->writer,
                                        .readers = w->readers,
                                        .feed = w->feed,
                                        .metrics = w->metrics,
                                        .identity = w->identity,
                                        .pending_max_ms = 600000,
                                        .run_max_ms = 3600000,
                                        .retention_ms = 86400000,
                                        .checkpoint_max = 1000};
    assert_int_equal(mu_sessions_new(&so, &w->sessions), 0);
    principal(w, "alice", &w->alice);
    principal(w, "bob", &w->bob);
    principal(w, "the-admin", &w->admin);
    doubling.on = kind->twice;
    doubling.ran = doubling.differed = 0;
}

static void world_end(struct world *w)
{
    bool twice = doubling.on;
    doubling.on = false;
    int64_t bad = w->writer ? holes(w) : 0;
    close_side(w);
    w->readers = mu_readers_free(w->readers);
    w->writer = mu_writer_free(w->writer);
    w->loop = mu_loop_free(w->loop);
    w->sessions = mu_sessions_free(w->sessions);
    w->identity = mu_identity_free(w->identity);
    w->feed = mu_feed_free(w->feed);
    w->metrics = mu_metrics_free(w->metrics);
    tmp_drop(&w->dir);
    assert_int_equal(bad, 0);
    assert_int_equal(doubling.differed, 0);
    if (twice) {
        assert_int_not_equal(doubling.ran, 0);
    }
}

/* A test body is given the kinds of world that it runs in. */
static struct world the_world;

static int set_up(void **state)
{
    const struct kind *kind = *state;
    if (!kind->pg || present) {
        world_begin(&the_world, kind);
    }
    return 0;
}
static int tear_down(void **state)
{
    const struct kind *kind = *state;
    if (!kind->pg || present) {
        world_end(&the_world);
    }
    return 0;
}
static void run_in(void **state, void (*test)(struct world *w))
{
    const struct kind *kind = *state;
    if (kind->pg && !present) {
        skip();
    }
    test(&the_world);
}

#define IN_WORLD(test)                                                                             \
    static void test##_in(void **state)                                                            \
    {                                                                                              \
        run_in(state, test);                                                                       \
    }
#define ON(test, k)                                                                                \
    {                                                                                              \
#test, test##_in, set_up, tear_down, (void *)&kinds[k]                                     \
    }
#define ON_ALL(test)  ON(test, 0), ON(test, 1), ON(test, 2), ON(test, 3)
#define ON_BOTH(test) ON(test, 0), ON(test, 2)

static void advance(struct world *w, int64_t ms)
{
    atomic_fetch_add(&w->now_ms, ms);
}

static int64_t now(struct world *w)
{
    return atomic_load(&w->now_ms);
}

static void run_for(struct world *w, int64_t ms)
{
    turn_for(w->loop, ms);
}

/* --- operations, each to its end --- */

static int wait_for(struct world *w, int submitted)
{
    if (submitted < 0) {
        return submitted;
    }
    mu_loop_run(w->loop);
    return w->result;
}

#define OPERATION(op_type, verb, call, owner, loop_field)                                          \
    static void verb##_over(struct op_type *op, int result)                                        \
    {                                                                                              \
        struct world *w = op->ctx;                                                                 \
        w->result = result;                                                                        \
        mu_loop_stop(w->loop);                                                                     \
    }                                                                                              \
    static int verb(struct world *w, struct op_type *op)                                           \
    {                                                                                              \
        op->loop_field.loop = w->loop;                                                             \
        op->done = verb##_over;                                                                    \
        op->ctx = w;                                                                               \
        return wait_for(w, call(owner, op));                                                       \
    }
OPERATION(mu_session_create, do_create, mu_session_create, w->sessions, unit)
OPERATION(mu_session_claim, do_claim, mu_session_claim, w->sessions, unit)
OPERATION(mu_session_switch, do_switch, mu_session_switch, w->sessions, unit)
OPERATION(mu_session_put_back, do_put_back, mu_session_put_back, w->sessions, unit)
OPERATION(mu_session_saturate, do_saturate, mu_session_saturate, w->sessions, unit)
OPERATION(mu_session_chunk, do_chunk, mu_session_chunk, w->sessions, unit)
OPERATION(mu_session_end, do_end, mu_session_end, w->sessions, unit)
OPERATION(mu_session_cancel, do_cancel, mu_session_cancel, w->sessions, unit)
OPERATION(mu_session_delete, do_delete, mu_session_delete, w->sessions, unit)
OPERATION(mu_session_recover, do_recover, mu_session_recover, w->sessions, unit)
OPERATION(mu_session_get, do_get, mu_session_get, w->sessions, read)
OPERATION(mu_session_list, do_list, mu_session_list, w->sessions, read)
OPERATION(mu_session_events, do_events, mu_session_events, w->sessions, read)

static struct mu_session_create new_run(const struct mu_principal *who)
{
    return (struct mu_session_create){.who = who,
                                      .route = MU_ROUTE_PROVIDER,
                                      .source = MU_SRC_API,
                                      .harness = MU_B("custom"),
                                      .model = MU_B("m-1"),
                                      .name = MU_B("a name"),
                                      .title = MU_B("A Title"),
                                      .skill = MU_B(""),
                                      .prompt = MU_B("do it"),
                                      .spec = MU_B("{}"),
                                      .body = MU_B("{\"prompt\":\"do it\"}")};
}

/* A queued session. */
static struct mu_id queued(struct world *w, const struct mu_principal *who)
{
    struct mu_session_create op = new_run(who);
    assert_int_equal(do_create(w, &op), 0);
    assert_false(op.replayed || op.duplicate);
    return op.id;
}

static struct mu_session_claim a_claim(struct world *w, const struct mu_id *id, int64_t epoch)
{
    struct mu_session_claim op = {.id = *id,
                                  .epoch = epoch,
                                  .provider = "prov",
                                  .model = MU_B("m-1"),
                                  .deadline_ms = now(w) + 3600000,
                                  .lease_ms = now(w) + 3600000};
    mu_arena_init(&op.arena, 4 << 20);
    return op;
}

static int claim(struct world *w, const struct mu_id *id, int64_t epoch, int64_t *ret_epoch)
{
    struct mu_session_claim op = a_claim(w, id, epoch);
    int r = do_claim(w, &op);
    if (r == 0 && ret_epoch) {
        *ret_epoch = op.epoch;
    }
    mu_arena_fini(&op.arena);
    return r;
}

static struct mu_id running(struct world *w, const struct mu_principal *who)
{
    struct mu_id id = queued(w, who);
    int64_t epoch = 0;
    assert_int_equal(claim(w, &id, 0, &epoch), 0);
    assert_int_equal(epoch, 1);
    return id;
}

static int end_with(struct world *w, const struct mu_id *id, int64_t epoch, int state, int outcome,
                    const char *output)
{
    struct mu_session_end op = {.id = *id,
                                .epoch = epoch,
                                .state = state,
                                .outcome = (enum mu_outcome)outcome,
                                .reason = MU_END_FINISHED,
                                .output = mu_str(output)};
    snprintf(op.org_id, sizeof op.org_id, "%s", w->alice.org_id);
    return do_end(w, &op);
}

static int cancel(struct world *w, const struct mu_principal *who, const struct mu_id *id,
                  bool *ret_changed)
{
    struct mu_session_cancel op = {.id = *id, .admin = who->admin, .org_id = mu_str(who->org_id)};
    int r = do_cancel(w, &op);
    if (ret_changed) {
        *ret_changed = op.changed;
    }
    return r;
}

static int64_t metric(struct world *w, const char *name)
{
    return metric_of(w->metrics, name);
}

#endif
