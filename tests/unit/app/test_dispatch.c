/* The dispatcher on a real SQLite file, with a driven wall clock and driven upstreams. */
#include "providers_world.h"

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
    const struct mu_writer_opts wo = {
        .db = {.url = url, .sync_normal = true}, .env = &w.env, .feed = bus};
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

/* --- tests --- */

static void a_run_is_asked_once_and_ends_with_its_answer(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    go();
    struct asked *a = create("one", "hello");
    struct mu_fetch *x = nth_fetch(1);
    assert_has(x->body, "hello");
    assert_int_equal(look(a).state, MU_ST_RUNNING);
    assert_int_equal(feed(x, 200, OPENAI_ANSWER("  the answer\\n")), 0);
    end_fetch(x, MU_FETCH_OK, 200, -1);
    struct row r = ended(a);
    assert_int_equal(r.state, MU_ST_COMPLETED);
    assert_int_equal(r.outcome, MU_OUT_FINISHED);
    assert_string_equal(r.output, "the answer");
    assert_string_equal(r.code, "");
    assert_has(r.provider, "\"attempts\":[{\"key\":\"custom\",\"class\":\"ok\",\"status\":200");
    UNTIL(all_gone);
    nothing_more_is_asked();
}

static void tenants_take_turns(void **state)
{
    (void)state;
    static const char *const order[] = {"a0", "b0", "a1", "a2", "a3"};
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    dopts.concurrency = 1;
    go();
    create("tenant-a", "a0");
    nth_fetch(1);
    create("tenant-a", "a1");
    create("tenant-a", "a2");
    create("tenant-a", "a3");
    create("tenant-b", "b0");
    /* a1 was in line before b came: b is at most one behind it */
    unsigned place = 0;
    for (unsigned i = 0; i < MU_ARRAY_LEN(order); i++) {
        struct mu_fetch *x = nth_fetch(i + 1);
        assert_int_equal(live(), 1);
        place = strstr(x->body, "\"b0\"") ? i : place;
        answer(x);
    }
    assert_in_range(place, 1, 2);
    UNTIL(all_gone);
}

static void not_more_than_the_limit_run_at_once(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    dopts.concurrency = 3;
    go();
    for (int i = 0; i < 7; i++) {
        create("one", "x");
    }
    for (unsigned i = 1; i <= 7; i++) {
        struct mu_fetch *x = nth_fetch(i);
        run_for(&w, 10);
        assert_true(live() <= 3);
        answer(x);
    }
    UNTIL(all_gone);
    assert_int_equal(w.n_fetches, 7);
}

static void a_tenants_own_limit_leaves_room_for_others(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    dopts.tenant_max_running = 1;
    go();
    create("tenant-a", "a0");
    create("tenant-a", "a1");
    create("tenant-b", "b0");
    nth_fetch(2);
    nothing_more_is_asked();
    assert_int_equal(live(), 2);
    answer(&w.fetches[0]);
    answer(&w.fetches[1]);
    answer(nth_fetch(3));
    UNTIL(all_gone);
}

static void an_outage_is_tried_again_and_then_the_next_provider(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    add_conf(&w, "second", MU_PROVIDER_OPENAI)->base_url = "https://second.example/v1";
    w.settings.fallback_order = "second";
    go();
    struct asked *a = create("one", "hello");
    end_fetch(nth_fetch(1), MU_FETCH_CONNECT, 0, -1);
    end_fetch(nth_fetch(2), MU_FETCH_CONNECT, 0, -1);
    struct mu_fetch *x = nth_fetch(3);
    assert_has(x->url, "second.example");
    answer(x);
    struct row r = ended(a);
    assert_int_equal(r.outcome, MU_OUT_FINISHED);
    assert_has(r.provider, "{\"key\":\"second\",\"type\"");
    unsigned tries = 0;
    for (const char *p = r.provider; (p = strstr(p, "\"class\":\"unavailable\"")); p++) {
        tries++;
    }
    assert_int_equal(tries, 2);
}

static void a_partial_answer_is_thrown_away_before_the_next_provider(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    add_conf(&w, "second", MU_PROVIDER_OPENAI);
    w.settings.fallback_order = "second";
    go();
    struct asked *a = create("one", "hello");
    struct mu_fetch *x = nth_fetch(1);
    assert_int_equal(feed(x, 200, OPENAI_DELTA("half of ")), 0);
    run_for(&w, 20);
    end_fetch(x, MU_FETCH_BROKEN, 200, -1);
    x = nth_fetch(2); /* no second try behind a piece of text */
    assert_int_equal(feed(x, 200, OPENAI_ANSWER("whole")), 0);
    end_fetch(x, MU_FETCH_OK, 200, -1);
    struct row r = ended(a);
    assert_string_equal(r.output, "whole");
    assert_int_equal(w.n_fetches, 2);
}

static void a_bad_request_ends_the_run(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    add_conf(&w, "second", MU_PROVIDER_OPENAI);
    w.settings.fallback_order = "second";
    go();
    struct asked *a = create("one", "hello");
    end_fetch(nth_fetch(1), MU_FETCH_OK, 400, -1);
    struct row r = ended(a);
    assert_int_equal(r.state, MU_ST_FAILED);
    assert_string_equal(r.code, "provider_bad_request");
    nothing_more_is_asked();
}

static void a_quota_of_one_lets_one_of_eight_through(void **state)
{
    (void)state;
    struct mu_provider_conf *c = add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    c->msg_limit = 1;
    c->window_seconds = WINDOW_S;
    go();
    for (int i = 0; i < 8; i++) {
        create("one", "x");
    }
    answer(nth_fetch(1));
    unsigned good = 0, full = 0;
    for (unsigned i = 0; i < 8; i++) {
        struct row r = ended(&runs[i]);
        good += r.outcome == MU_OUT_FINISHED;
        full +=
            strcmp(r.code, "saturated") == 0 && strcmp(r.message, "All providers saturated") == 0;
    }
    assert_int_equal(good, 1);
    assert_int_equal(full, 7);
    assert_int_equal(w.n_fetches, 1);
}

static void waiters_come_one_at_a_time_in_order(void **state)
{
    (void)state;
    struct mu_provider_conf *c = add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    c->msg_limit = 1;
    c->window_seconds = WINDOW_S;
    w.settings.queue_on_saturation = true;
    go();
    create("one", "p0");
    create("one", "p1");
    create("one", "p2");
    for (unsigned i = 0; i < 3; i++) {
        char word[8];
        snprintf(word, sizeof word, "\"p%u\"", i);
        struct mu_fetch *x = nth_fetch(i + 1);
        assert_has(x->body, word);
        answer(x);
        assert_int_equal(ended(&runs[i]).outcome, MU_OUT_FINISHED);
        nothing_more_is_asked();
        if (i < 2) {
            assert_has(look(&runs[2]).message, MU_WAITING_TEXT);
        }
        w.now_ms += WINDOW_S * 1000 + 10;
        mu_providers_capacity(w.p);
    }
    UNTIL(all_gone);
}

static void a_call_that_did_not_count_gives_its_place_to_the_next(void **state)
{
    (void)state;
    struct mu_provider_conf *c = add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    c->msg_limit = 1;
    c->window_seconds = WINDOW_S;
    w.settings.queue_on_saturation = true;
    w.settings.retries = 0;
    go();
    create("one", "p0");
    struct mu_fetch *x = nth_fetch(1);
    create("one", "p1");
    UNTIL(one_waits);
    end_fetch(x, MU_FETCH_OK, 400, -1);
    x = nth_fetch(2); /* without any clock: the unit came back */
    assert_has(x->body, "\"p1\"");
    answer(x);
    assert_int_equal(ended(&runs[1]).outcome, MU_OUT_FINISHED);
}

static void the_total_wait_has_an_end(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    w.settings.queue_on_saturation = true;
    w.settings.queue_max_wait_s = 10;
    go();
    struct asked *a = create("one", "x");
    end_fetch(nth_fetch(1), MU_FETCH_OK, 429, 4000);
    UNTIL(one_waits);
    assert_int_equal(look(a).state, MU_ST_QUEUED);
    assert_int_equal(look(a).saturated_ms, w.now_ms);
    w.now_ms += 4001;
    mu_providers_capacity(w.p);
    end_fetch(nth_fetch(2), MU_FETCH_OK, 429, 20000);
    UNTIL(one_waits);
    w.now_ms += 6000;
    mu_providers_capacity(w.p);
    struct row r = ended(a);
    assert_string_equal(r.code, "saturated");
    assert_has(r.message, "harness custom waited 10 s");
    assert_int_equal(w.n_fetches, 2);
    /* both executions are on record */
    assert_has(strstr(r.provider, "rate_limited") + 1, "rate_limited");
}

/* --- cancel --- */

static bool cancel_answered(void)
{
    return runs[n_runs - 1].cancel_done;
}

static void a_queued_run_is_cancelled_without_a_call(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    dopts.concurrency = 1;
    go();
    create("one", "first");
    struct mu_fetch *x = nth_fetch(1);
    struct asked *a = create("one", "second");
    begin_cancel(a);
    UNTIL(cancel_answered);
    struct row r = ended(a);
    assert_int_equal(r.outcome, MU_OUT_CANCELLED);
    answer(x);
    UNTIL(all_gone);
    assert_int_equal(w.n_fetches, 1);
}

static void cancel_races_the_claim_and_wins(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    go();
    for (int i = 0; i < 8; i++) { /* the interleaving differs a little each time */
        struct asked *a = prepare("one", "x");
        assert_int_equal(mu_dispatch_create(dispatch, &a->op), 0);
        for (int k = 0; !a->create_done || k < i; k++) {
            run_for(&w, 0);
        }
        begin_cancel(a);
        UNTIL(cancel_answered);
        for (int k = 0; k < 2000 && dispatch->runs.count; k++) {
            for (unsigned f = 0; f < MAX_FETCHES; f++) {
                if (w.fetches[f].live && w.fetches[f].abort_asked) {
                    end_fetch(&w.fetches[f], MU_FETCH_ABORTED, 0, -1);
                }
            }
            run_for(&w, 1);
        }
        assert_int_equal(dispatch->runs.count, 0);
        assert_int_equal(ended(a).outcome, MU_OUT_CANCELLED);
        assert_int_equal(live(), 0);
    }
}

static void a_running_call_is_aborted_and_its_text_kept(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    go();
    struct asked *a = create("one", "x");
    struct mu_fetch *x = nth_fetch(1);
    assert_int_equal(feed(x, 200, OPENAI_DELTA("so far")), 0);
    begin_cancel(a);
    UNTIL(cancel_answered);
    run_for(&w, 5);
    assert_true(x->abort_asked);
    end_fetch(x, MU_FETCH_ABORTED, 200, -1);
    struct row r = ended(a);
    assert_int_equal(r.outcome, MU_OUT_CANCELLED);
    assert_string_equal(r.code, "cancelled");
    assert_string_equal(r.output, "so far");
    UNTIL(all_gone);
}

static void an_answer_that_comes_behind_the_cancel_is_not_a_success(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    go();
    struct asked *a = create("one", "x");
    struct mu_fetch *x = nth_fetch(1);
    begin_cancel(a);
    UNTIL(cancel_answered); /* committed; the core may not have heard of it */
    x->abort_asked = false;
    end_fetch(x, MU_FETCH_OK, 200, -1);
    assert_int_equal(ended(a).outcome, MU_OUT_CANCELLED);
    UNTIL(all_gone);
}

static void between_two_tries_the_cancel_is_at_once(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    w.settings.retries = 5;
    go();
    struct asked *a = create("one", "x");
    end_fetch(nth_fetch(1), MU_FETCH_CONNECT, 0, -1);
    begin_cancel(a);
    assert_int_equal(ended(a).outcome, MU_OUT_CANCELLED);
    UNTIL(all_gone);
    nothing_more_is_asked();
}

static void a_waiting_run_is_cancelled_at_once(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    w.settings.queue_on_saturation = true;
    go();
    struct asked *a = create("one", "x");
    end_fetch(nth_fetch(1), MU_FETCH_OK, 429, 50000);
    UNTIL(one_waits);
    begin_cancel(a);
    assert_int_equal(ended(a).outcome, MU_OUT_CANCELLED);
    UNTIL(all_gone);
    assert_int_equal(dispatch->n_waiting, 0);
    w.now_ms += 60000;
    mu_providers_capacity(w.p);
    nothing_more_is_asked();
}

/* --- stop, recovery --- */

static void what_outlasts_the_grace_is_put_back(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    go();
    struct asked *a = create("one", "x");
    struct mu_fetch *x = nth_fetch(1);
    assert_int_equal(feed(x, 200, OPENAI_DELTA("half")), 0);
    mu_dispatch_stop(dispatch, 500, stopped_now, NULL);
    struct asked *late = create("one", "late");
    assert_false(x->abort_asked);
    run_for(&w, 600);
    assert_true(x->abort_asked);
    assert_false(is_stopped);
    end_fetch(x, MU_FETCH_ABORTED, 200, -1);
    UNTIL(has_stopped);
    assert_int_equal(look(a).state, MU_ST_QUEUED);
    assert_int_equal(look(a).tries, 0);
    assert_int_equal(look(late).state, MU_ST_QUEUED);
    assert_int_equal(w.n_fetches, 1);
}

static void a_second_stop_cuts_the_grace_short(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    go();
    create("one", "x");
    struct mu_fetch *x = nth_fetch(1);
    mu_dispatch_stop(dispatch, 60000, stopped_now, NULL);
    run_for(&w, 5);
    assert_false(x->abort_asked);
    mu_dispatch_stop(dispatch, 0, stopped_now, NULL);
    assert_true(x->abort_asked);
}

static void what_ends_within_the_grace_is_a_success(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    go();
    struct asked *a = create("one", "x");
    struct mu_fetch *x = nth_fetch(1);
    mu_dispatch_stop(dispatch, 60000, stopped_now, NULL);
    answer(x);
    UNTIL(has_stopped);
    assert_int_equal(look(a).outcome, MU_OUT_FINISHED);
}

/* A stop while nothing but a unit of work is under way: it must not wait for ever. */
static void a_stop_during_the_saturation_unit_ends(void **state)
{
    (void)state;
    struct mu_provider_conf *c = add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    c->msg_limit = 1;
    c->window_seconds = WINDOW_S;
    w.settings.queue_on_saturation = true;
    go();
    create("one", "p0");
    answer(nth_fetch(1));
    ended(&runs[0]);
    UNTIL(all_gone);
    struct asked *a = prepare("one", "p1");
    assert_int_equal(mu_dispatch_create(dispatch, &a->op), 0);
    for (int i = 0; i < 5000 && !a->create_done; i++) {
        run_for(&w, 0);
    }
    for (int i = 0; i < 5000 && !dispatch->n_active && !dispatch->n_waiting; i++) {
        run_for(&w, 0);
    }
    mu_dispatch_stop(dispatch, 60000, stopped_now, NULL);
    UNTIL(has_stopped);
    assert_int_equal(look(a).state, MU_ST_QUEUED);
}

static bool claim_answered(void)
{
    return runs[0].claim_done;
}

/* A session that an earlier process left running. */
static struct asked *left_running(void)
{
    struct asked *a = prepare("one", "left");
    assert_int_equal(mu_session_create(sessions, &a->op), 0);
    UNTIL(last_created);
    a->claim = (struct mu_session_claim){.unit = {.loop = w.loop},
                                         .id = a->op.id,
                                         .epoch = 0,
                                         .provider = "custom",
                                         .model = MU_B("m"),
                                         .deadline_ms = w.now_ms + 3600000,
                                         .lease_ms = w.now_ms + 3600000,
                                         .done = claim_done,
                                         .ctx = a};
    mu_arena_init(&a->claim.arena, 1 << 20);
    assert_int_equal(mu_session_claim(sessions, &a->claim), 0);
    UNTIL(claim_answered);
    mu_arena_fini(&a->claim.arena);
    assert_int_equal(a->claimed, 0);
    assert_int_equal(look(a).state, MU_ST_RUNNING);
    return a;
}

static void what_a_crash_left_running_is_done_again(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    struct asked *a = left_running();
    go();
    answer(nth_fetch(1));
    struct row r = ended(a);
    assert_int_equal(r.outcome, MU_OUT_FINISHED);
    assert_int_equal(r.tries, 1);
}

static void the_tries_of_a_run_are_bounded(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    dopts.max_tries = 1;
    struct asked *a = left_running();
    go();
    struct row r = ended(a);
    assert_int_equal(r.state, MU_ST_FAILED);
    assert_string_equal(r.code, "interrupted");
    nothing_more_is_asked();
}

static void no_candidate_is_said_in_words(void **state)
{
    (void)state;
    add_conf(&w, "other", MU_PROVIDER_OPENAI);
    go();
    struct row r = ended(create("one", "x"));
    assert_string_equal(r.code, "config");
    assert_has(r.message, "OZ_PROVIDER_CUSTOM_MODEL");
}

/* --- the slots of programs --- */

static void programs_wait_for_a_slot(void **state)
{
    (void)state;
    struct mu_provider_conf *c = add_conf(&w, "custom", MU_PROVIDER_CLI);
    static const char *const args[] = {"-c", "sleep 0.05; echo done", NULL};
    c->cli_cmd = "sh";
    c->cli_args = args;
    c->cli_max_parallel = 2;
    go();
    for (int i = 0; i < 8; i++) {
        create("one", "x");
        assert_true(provider(&w, "custom")->running <= 2);
    }
    for (unsigned i = 0; i < 8; i++) {
        struct row r = ended(&runs[i]);
        if (r.outcome != MU_OUT_FINISHED) {
            fail_msg("run %u ended with %s: %s", i, r.code, r.message);
        }
        assert_true(provider(&w, "custom")->running <= 2);
    }
    UNTIL(all_gone);
    assert_int_equal(provider(&w, "custom")->held, 0);
    settle(&w);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_run_is_asked_once_and_ends_with_its_answer),
        T(tenants_take_turns),
        T(not_more_than_the_limit_run_at_once),
        T(a_tenants_own_limit_leaves_room_for_others),
        T(an_outage_is_tried_again_and_then_the_next_provider),
        T(a_partial_answer_is_thrown_away_before_the_next_provider),
        T(a_bad_request_ends_the_run),
        T(a_quota_of_one_lets_one_of_eight_through),
        T(waiters_come_one_at_a_time_in_order),
        T(a_call_that_did_not_count_gives_its_place_to_the_next),
        T(the_total_wait_has_an_end),
        T(a_queued_run_is_cancelled_without_a_call),
        T(cancel_races_the_claim_and_wins),
        T(a_running_call_is_aborted_and_its_text_kept),
        T(an_answer_that_comes_behind_the_cancel_is_not_a_success),
        T(between_two_tries_the_cancel_is_at_once),
        T(a_waiting_run_is_cancelled_at_once),
        T(what_outlasts_the_grace_is_put_back),
        T(a_second_stop_cuts_the_grace_short),
        T(what_ends_within_the_grace_is_a_success),
        T(a_stop_during_the_saturation_unit_ends),
        T(what_a_crash_left_running_is_done_again),
        T(the_tries_of_a_run_are_bounded),
        T(no_candidate_is_said_in_words),
        T(programs_wait_for_a_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
