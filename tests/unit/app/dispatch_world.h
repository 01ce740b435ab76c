/* The dispatcher on a real SQLite file, with a driven wall clock and driven upstreams. */
#ifndef TEST_APP_DISPATCH_WORLD_H
#define TEST_APP_DISPATCH_WORLD_H

#include "providers_world.h"

#pragma GCC diagnostic ignored "-Wunused-function"

#include <errno.h>

#include "app/dispatch/exec.h"
#include "app/identity/identity.h"

#define OPENAI_DELTA(t)  "data: {\"choices\":[{\"delta\":{\"content\":\"" t "\"}}]}\n\n"
#define OPENAI_ANSWER(t) OPENAI_DELTA(t) "data: [DONE]\n\n"

enum { MAX_RUNS = 16, WINDOW_S = 60 };

struct asked {
    struct mu_session_create op;
    struct mu_session_cancel cancel;
    struct mu_session_claim claim;
    struct mu_principal who;
    char prompt[64];
    int created, cancelled, claimed;
    bool create_done, cancel_done, claim_done;
};

static struct world w;
static struct mu_feed *bus;
static struct mu_writer *writer;
static struct mu_readers *readers;
static struct mu_identity *identity;
static struct mu_sessions *sessions;
static struct mu_dispatch *dispatch;
static struct mu_dispatch_opts dopts;
static struct mu_db *db;
static struct asked runs[MAX_RUNS];
static unsigned n_runs;
static bool is_ready, is_stopped;
static char url[96];

/* --- the world --- */

static int set_up(void **state)
{
    (void)state;
    struct mu_err err = {0};
    world_begin(&w);
    snprintf(url, sizeof url, "file:%s/test.db", w.dir);
    assert_int_equal(mu_feed_new(&w.loop, 1, &bus), 0);
    const struct mu_writer_opts wo = {.db = {.url = url}, .env = &w.env, .feed = bus};
    assert_int_equal(mu_writer_new(&wo, &writer, &err), 0);
    const struct mu_readers_opts ro = {.db = {.url = url, .reader = true}, .threads = 1};
    assert_int_equal(mu_readers_new(&ro, &readers, &err), 0);
    const struct mu_db_opts read = {.url = url, .reader = true};
    assert_int_equal(mu_db_open(&read, &db, &err), 0);
    const struct mu_identity_opts io = {.env = &w.env,
                                        .writer = writer,
                                        .readers = readers,
                                        .core = w.loop,
                                        .admin_key = "the-admin-key",
                                        .max_tenants = 100};
    assert_int_equal(mu_identity_new(&io, db, &identity, &err), 0);
    const struct mu_sessions_opts so = {.env = &w.env,
                                        .writer = writer,
                                        .readers = readers,
                                        .feed = bus,
                                        .identity = identity,
                                        .pending_max_ms = 86400000,
                                        .run_max_ms = 86400000};
    assert_int_equal(mu_sessions_new(&so, &sessions), 0);
    w.opts.writer = writer;
    w.settings.queue_max_wait_s = 300;
    w.settings.max_output_bytes = 1 << 20;
    memset(runs, 0, sizeof runs);
    n_runs = 0;
    is_ready = is_stopped = false;
    dispatch = NULL;
    dopts = (struct mu_dispatch_opts){.env = &w.env,
                                      .core = w.loop,
                                      .sessions = sessions,
                                      .identity = identity,
                                      .readers = readers,
                                      .feed = bus,
                                      .settings = &w.settings,
                                      .concurrency = 8,
                                      .max_tries = 3,
                                      .run_max_ms = 86400000,
                                      .pending_max_ms = 86400000};
    return 0;
}

static void ready(void *arg)
{
    (void)arg;
    is_ready = true;
}
static void stopped_now(void *arg)
{
    (void)arg;
    is_stopped = true;
}

static void until_(bool (*holds)(void), const char *what)
{
    for (int i = 0; i < 5000 && !holds(); i++) {
        run_for(&w, 1);
    }
    if (!holds()) {
        fail_msg("never: %s", what);
    }
}
#define UNTIL(fn) until_(fn, #fn)

/* Looked at after each turn. They take no time, what other threads do does: hence so many. */
static void turn_until_(bool (*holds)(void), const char *what)
{
    for (int i = 0; i < 1000000 && !holds(); i++) {
        run_for(&w, 0);
    }
    if (!holds()) {
        fail_msg("never: %s", what);
    }
}
#define TURN_UNTIL(fn) turn_until_(fn, #fn)

static bool ready_now(void)
{
    return is_ready;
}
static bool has_stopped(void)
{
    return is_stopped;
}

/* Providers as configured by the test; then what the database holds is taken up. */
static void go(void)
{
    assert_int_equal(mu_providers_new(&w.opts, NULL, &w.p), 0);
    dopts.providers = w.p;
    assert_int_equal(mu_dispatch_new(&dopts, &dispatch), 0);
    assert_int_equal(mu_dispatch_load(dispatch, db), 0);
    mu_dispatch_start(dispatch, ready, NULL);
    UNTIL(ready_now);
}

static unsigned live(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MAX_FETCHES; i++) {
        n += w.fetches[i].live;
    }
    return n;
}

static int tear_down(void **state)
{
    (void)state;
    if (dispatch) {
        mu_dispatch_stop(dispatch, 0, stopped_now, NULL);
        for (int i = 0; i < 2000 && !is_stopped; i++) {
            for (unsigned k = 0; k < MAX_FETCHES; k++) {
                if (w.fetches[k].live && w.fetches[k].abort_asked) {
                    end_fetch(&w.fetches[k], MU_FETCH_ABORTED, 0, -1);
                }
            }
            run_for(&w, 1);
        }
        assert_true(is_stopped);
        assert_int_equal(live(), 0);
    }
    writer = mu_writer_free(writer);
    readers = mu_readers_free(readers);
    run_for(&w, 5);
    db = mu_db_close(db);
    dispatch = mu_dispatch_free(dispatch);
    w.p = mu_providers_free(w.p);
    sessions = mu_sessions_free(sessions);
    identity = mu_identity_free(identity);
    world_end(&w);
    bus = mu_feed_free(bus);
    return 0;
}

/* --- asking --- */

static void create_done(struct mu_session_create *op, int result)
{
    struct asked *a = op->ctx;
    a->created = result;
    a->create_done = true;
}
static void cancel_done(struct mu_session_cancel *op, int result)
{
    struct asked *a = op->ctx;
    a->cancelled = result;
    a->cancel_done = true;
}
static void claim_done(struct mu_session_claim *op, int result)
{
    struct asked *a = op->ctx;
    a->claimed = result;
    a->claim_done = true;
}

static bool last_created(void)
{
    return runs[n_runs - 1].create_done;
}

static struct asked *prepare(const char *token, const char *prompt)
{
    assert_true(n_runs < MAX_RUNS);
    struct asked *a = &runs[n_runs++];
    assert_int_equal(mu_identity_resolve(identity, mu_str(token), &a->who), 0);
    snprintf(a->prompt, sizeof a->prompt, "%s", prompt);
    a->op = (struct mu_session_create){.unit = {.loop = w.loop},
                                       .who = &a->who,
                                       .route = MU_ROUTE_PROVIDER,
                                       .source = MU_SRC_API,
                                       .harness = MU_B("custom"),
                                       .model = MU_B(""),
                                       .name = MU_B(""),
                                       .title = MU_B("t"),
                                       .skill = MU_B(""),
                                       .prompt = mu_str(a->prompt),
                                       .spec = MU_B("{}"),
                                       .body = mu_str(a->prompt),
                                       .done = create_done,
                                       .ctx = a};
    return a;
}

static struct asked *create(const char *token, const char *prompt)
{
    struct asked *a = prepare(token, prompt);
    assert_int_equal(mu_dispatch_create(dispatch, &a->op), 0);
    UNTIL(last_created);
    assert_int_equal(a->created, 0);
    run_for(&w, 0);
    return a;
}

static void begin_cancel(struct asked *a)
{
    a->cancel = (struct mu_session_cancel){.unit = {.loop = w.loop},
                                           .org_id = mu_str(a->who.org_id),
                                           .id = a->op.id,
                                           .done = cancel_done,
                                           .ctx = a};
    assert_int_equal(mu_dispatch_cancel(dispatch, &a->cancel), 0);
}

/* --- looking --- */

struct row {
    int64_t state, outcome, tries, saturated_ms;
    char code[32], message[256], output[256], provider[2048];
};

static int take_row(void *arg, struct mu_row *r)
{
    struct row *row = arg;
    row->state = mu_row_i64(r, 0);
    row->outcome = mu_row_i64(r, 1);
    row->tries = mu_row_i64(r, 2);
    row->saturated_ms = mu_row_i64(r, 3);
    snprintf(row->code, sizeof row->code, "%.*s", MU_ARGS(mu_row_bytes(r, 4)));
    mu_bytes said = mu_row_bytes(r, 5).ptr ? mu_row_bytes(r, 5) : mu_row_bytes(r, 6);
    snprintf(row->message, sizeof row->message, "%.*s", MU_ARGS(said));
    snprintf(row->output, sizeof row->output, "%.*s", MU_ARGS(mu_row_bytes(r, 7)));
    snprintf(row->provider, sizeof row->provider, "%.*s", MU_ARGS(mu_row_bytes(r, 8)));
    return 0;
}

static struct row look(const struct asked *a)
{
    static const struct mu_stmt q = {
        "look", "t",
        "SELECT s.state, s.outcome, s.tries, s.saturated_ms, x.error_code, x.error_message, "
        "x.message_head, x.output, x.provider FROM sessions s LEFT JOIN session_results x ON "
        "x.session_id = s.id WHERE s.id = $1",
        NULL};
    struct row row = {0};
    assert_int_equal(MU_DB_RUN(db, &q, take_row, &row, MU_VT(mu_id_bytes(&a->op.id))), 1);
    return row;
}

static const struct asked *watched;
static bool watched_ended(void)
{
    return look(watched).outcome != 0;
}
static struct row ended(const struct asked *a)
{
    watched = a;
    UNTIL(watched_ended);
    return look(a);
}

static bool all_gone(void)
{
    return dispatch->runs.count == 0;
}
static bool one_is_on_its_way(void)
{
    return dispatch->n_active || dispatch->n_waiting;
}
static bool one_waits(void)
{
    return dispatch->n_waiting == 1;
}

static unsigned wanted;
static bool fetched(void)
{
    return w.n_fetches >= wanted;
}
/* The n-th request that goes out (from 1). */
static struct mu_fetch *nth_fetch(unsigned n)
{
    wanted = n;
    UNTIL(fetched);
    return &w.fetches[(n - 1) % MAX_FETCHES];
}

static void answer(struct mu_fetch *x)
{
    assert_int_equal(feed(x, 200, OPENAI_ANSWER("done")), 0);
    end_fetch(x, MU_FETCH_OK, 200, -1);
}

static void nothing_more_is_asked(void)
{
    unsigned before = w.n_fetches;
    run_for(&w, 60);
    assert_int_equal(w.n_fetches, before);
}

#endif
