/* What a runner reports becomes events in its order, each exactly once. */
#include "session_moves.h"

static struct mu_session_report a_report(const struct mu_id *id, int64_t before, int64_t seq)
{
    return (struct mu_session_report){.id = *id, .epoch = 1, .seq_before = before, .seq = seq};
}

static struct mu_id preparing(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    c.view = MU_VIEW_VILLAGE;
    assert_int_equal(do_create(w, &c), 0);
    assert_int_equal(offer(w, &c.id, 0, NULL), 0);
    assert_int_equal(step(w, &c.id, 1, 30, 40), 0);
    return c.id;
}

static const struct mu_fact facts[] = {
    {MU_EV_AGENT_MESSAGE, {"{\"text\":\"one\"}", 14}},
    {MU_EV_FILE_TOUCHED, {"{\"path\":\"a\"}", 12}},
    {MU_EV_GIT_COMMIT, {"{\"sha\":\"c0\"}", 12}},
};

static void facts_are_stored_in_their_order(struct world *w)
{
    struct mu_id id = preparing(w);
    struct mu_session_report op = a_report(&id, 0, 5);
    op.facts = facts;
    op.n_facts = 3;
    op.running = true;
    op.started = MU_B("{\"providerId\":\"codex\"}");
    op.has_usage = true;
    op.tokens_in = 10;
    op.tokens_out = 20;
    op.api_calls = 3;
    op.compute_ms = 4000;
    op.diff = MU_B("{\"filesChanged\":1}");
    op.conversation = MU_B("conv-7");
    advance(w, 50);
    assert_int_equal(do_report(w, &op), 0);
    assert_false(op.repeated);
    assert_int_equal(op.stored_seq, 5);
    assert_int_equal(op.last_event_seq, 8);
    assert_int_equal(events_of(w, &id), 8);
    assert_string_equal(
        txt(w,
            "SELECT CAST(type AS TEXT) || data || actor FROM events WHERE stream_id = '%s' AND seq "
            "> 3 ORDER BY seq",
            id.text),
        "10{\"providerId\":\"codex\"}runner;2{\"from\":40,\"to\":60,\"by\":\"runner\"}runner;"
        "20{\"text\":\"one\"}runner;23{\"path\":\"a\"}runner;30{\"sha\":\"c0\"}runner;");
    assert_int_equal(row_of(w, &id).state, MU_ST_RUNNING);
    assert_int_equal(num(w,
                         "SELECT COUNT(*) FROM sessions WHERE tokens_in = 10 AND tokens_out = 20 "
                         "AND api_calls = 3 AND compute_ms = 4000 AND running_ms = %lld AND "
                         "conversation = 'conv-7'",
                         (long long)now(w)),
                     1);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM session_results WHERE diff = "
                            "'{\"filesChanged\":1}'"),
                     1);
    assert_int_equal(num(w, "SELECT state FROM attempts"), 30);

    op = a_report(&id, 5, 6); /* less than before: usage never shrinks */
    op.has_usage = true;
    op.tokens_in = 11;
    op.tokens_out = 19;
    assert_int_equal(do_report(w, &op), 0);
    assert_int_equal(op.last_event_seq, 8);
    assert_int_equal(num(w, "SELECT tokens_in * 100 + tokens_out FROM sessions"), 1120);
    assert_int_equal(end_with(w, &id, 1, 90, MU_OUT_FINISHED, "x"), 0);
    assert_int_equal(num(w, "SELECT tokens_in * 100 + tokens_out FROM sessions"), 1120);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM session_results WHERE diff IS NOT NULL"), 1);
}

static void a_repeated_report_changes_nothing(struct world *w)
{
    struct mu_id id = preparing(w);
    struct mu_session_report op = a_report(&id, 0, 3);
    op.facts = facts;
    op.n_facts = 3;
    assert_int_equal(do_report(w, &op), 0);
    for (int64_t seq = 1; seq <= 3; seq++) {
        op = a_report(&id, seq - 1, seq);
        op.facts = facts;
        op.n_facts = 1;
        op.running = true;
        assert_int_equal(do_report(w, &op), 0);
        assert_true(op.repeated);
        assert_int_equal(op.stored_seq, 3);
        assert_int_equal(op.last_event_seq, 6);
    }
    assert_int_equal(row_of(w, &id).state, MU_ST_PREPARING);
    assert_int_equal(events_of(w, &id), 6);
}

static void a_hole_is_asked_for(struct world *w)
{
    struct mu_id id = preparing(w);
    struct mu_session_report op = a_report(&id, 0, 3);
    assert_int_equal(do_report(w, &op), 0);
    static const int64_t holes_at[][2] = {{4, 5}, {2, 5}, {0, 4}};
    for (size_t i = 0; i < MU_ARRAY_LEN(holes_at); i++) {
        op = a_report(&id, holes_at[i][0], holes_at[i][1]);
        op.facts = facts;
        op.n_facts = 1;
        assert_int_equal(do_report(w, &op), MU_E_MISMATCH);
        assert_int_equal(op.stored_seq, 3);
    }
    assert_int_equal(events_of(w, &id), 3);
    op = a_report(&id, 3, 4);
    assert_int_equal(do_report(w, &op), 0);
    /* a question counts too */
    op = a_report(&id, 4, 5);
    op.running = true;
    assert_int_equal(do_report(w, &op), 0);
    struct mu_gate_ask g = a_gate(&id, 1, "key");
    g.runner_seq = 6;
    assert_int_equal(do_ask(w, &g), 0);
    op = a_report(&id, 6, 7);
    assert_int_equal(do_report(w, &op), 0);
    assert_int_equal(op.stored_seq, 7);
}

static void who_lost_the_lease_is_not_heard(struct world *w)
{
    struct mu_id id = preparing(w), unknown = mu_id_new(&w->env, NULL);
    struct mu_session_report op = a_report(&unknown, 0, 1);
    assert_int_equal(do_report(w, &op), MU_E_NOT_FOUND);
    op = a_report(&id, 0, 1);
    op.epoch = 0;
    assert_int_equal(do_report(w, &op), MU_E_STALE);
    op.epoch = 2;
    assert_int_equal(do_report(w, &op), MU_E_STALE);
    assert_int_equal(requeue(w, &id, 1, true, NULL), 0);
    op.epoch = 1;
    assert_int_equal(do_report(w, &op), MU_E_STALE);
    op.epoch = 2; /* nobody has it */
    assert_int_equal(do_report(w, &op), MU_E_STALE);
    assert_int_equal(offer(w, &id, 2, NULL), 0);
    op = a_report(&id, 0, 1); /* its successor counts from the beginning */
    op.epoch = 3;
    op.facts = facts;
    op.n_facts = 1;
    assert_int_equal(do_report(w, &op), 0);
    /* While it is stopped it is heard, but moves nothing; after the end it is not. */
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    op = a_report(&id, 1, 2);
    op.epoch = 3;
    op.facts = facts;
    op.n_facts = 2;
    op.running = true;
    assert_int_equal(do_report(w, &op), 0);
    assert_int_equal(row_of(w, &id).state, MU_ST_STOPPING);
    assert_int_equal(end_with(w, &id, 3, 90, MU_OUT_FINISHED, ""), 0);
    int64_t events = events_of(w, &id);
    op.seq_before = 2;
    op.seq = 3;
    assert_int_equal(do_report(w, &op), MU_E_STALE);
    assert_int_equal(events_of(w, &id), events);
    assert_int_equal(metric(w, "muster_stale_reports_total"), 6);
}

static void what_is_too_much_is_refused(struct world *w)
{
    static char big[MU_DIFF_MAX + 1];
    static struct mu_fact many[MU_REPORT_FACTS + 1];
    struct mu_id id = preparing(w);
    memset(big, ' ', sizeof big);
    big[0] = '{';
    big[MU_FACT_MAX - 1] = '}';
    for (size_t i = 0; i < MU_ARRAY_LEN(many); i++) {
        many[i] = (struct mu_fact){MU_EV_TOOL_CALL, mu_bytes_of(big, MU_FACT_MAX)};
    }
    struct mu_session_report op = a_report(&id, 0, 1);
    op.facts = many;
    op.n_facts = MU_REPORT_FACTS + 1;
    assert_int_equal(do_report(w, &op), MU_E_TOO_LARGE);
    op.n_facts = MU_REPORT_FACTS;
    assert_int_equal(do_report(w, &op), 0);
    assert_int_equal(events_of(w, &id), MU_REPORT_FACTS + 3);
    op = a_report(&id, 1, 2);
    many[0].data.len++;
    op.facts = many;
    op.n_facts = 1;
    assert_int_equal(do_report(w, &op), MU_E_TOO_LARGE);
    static const int types[] = {0,  MU_EV_STATE, MU_EV_ENDED, MU_EV_APPROVAL_REQUESTED,
                                99, MU_EV_DELTA};
    for (size_t i = 0; i < MU_ARRAY_LEN(types); i++) {
        const struct mu_fact fact = {types[i], MU_B("{}")};
        op = a_report(&id, 1, 2);
        op.facts = &fact;
        op.n_facts = 1;
        assert_int_equal(do_report(w, &op), MU_E_INVALID);
    }
    op = a_report(&id, 1, 2);
    op.diff = mu_bytes_of(big, sizeof big);
    assert_int_equal(do_report(w, &op), MU_E_TOO_LARGE);
    op = a_report(&id, 1, 2);
    op.turn_state = MU_TURN_SENT;
    assert_int_equal(do_report(w, &op), MU_E_INVALID);
    op = a_report(&id, 3, 2);
    assert_int_equal(do_report(w, &op), MU_E_INVALID);
}

static void its_end_of_time_may_come_with_its_start(struct world *w)
{
    struct mu_id id = preparing(w);
    struct mu_session_report op = a_report(&id, 0, 1);
    op.running = true;
    op.run_deadline_ms = now(w) + 777;
    assert_int_equal(do_report(w, &op), 0);
    assert_int_equal(row_of(w, &id).deadline, now(w) + 777);
    op = a_report(&id, 1, 2); /* once is enough */
    op.running = true;
    op.run_deadline_ms = now(w) + 999;
    assert_int_equal(do_report(w, &op), 0);
    assert_int_equal(row_of(w, &id).deadline, now(w) + 777);
    assert_int_equal(events_of(w, &id), 5);
}

/* Its runner may be heard before the first step of its worker is stored. */
static void what_runs_at_once_has_the_time_of_a_run(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    assert_int_equal(do_create(w, &c), 0);
    assert_int_equal(offer(w, &c.id, 0, NULL), 0);
    struct mu_session_report op = a_report(&c.id, 0, 1);
    op.running = true;
    assert_int_equal(do_report(w, &op), 0);
    assert_int_equal(row_of(w, &c.id).state, MU_ST_RUNNING);
    assert_int_equal(row_of(w, &c.id).deadline, now(w) + 3600000);
}

static void a_hello_is_answered_with_what_is_known(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    const struct mu_first_turn first = {.prompt = MU_B("hi")};
    c.mode = MU_MODE_INTERACTIVE;
    c.limit_ms = 5000;
    c.first_turn = &first;
    c.spec = MU_B("{\"repo\":1}");
    struct mu_id id = working_as(w, &c), unknown = mu_id_new(&w->env, NULL);
    struct mu_live_state op = {.id = id};
    mu_arena_init(&op.arena, 1 << 20);
    assert_int_equal(do_live_state(w, &op), 0);
    assert_int_equal(op.epoch, 1);
    assert_int_equal(op.runner_seq, 0);
    assert_int_equal(op.state, MU_ST_RUNNING);
    assert_int_equal(op.mode, MU_MODE_INTERACTIVE);
    assert_int_equal(op.view, MU_VIEW_VILLAGE);
    assert_int_equal(op.run_deadline_ms, now(w) + 5000);
    assert_null(op.conversation.ptr);
    assert_true(mu_bytes_is(op.spec, "{\"repo\":1}"));
    assert_int_equal(op.turn_state, 0);
    mu_arena_fini(&op.arena);
    struct mu_turn_next n = {.session = id, .epoch = 1};
    mu_arena_init(&n.arena, 1 << 20);
    assert_int_equal(do_turn_next(w, &n), 0);
    mu_arena_fini(&n.arena);
    struct mu_session_report r = a_report(&id, 0, 9);
    r.turn = n.id;
    r.turn_state = MU_TURN_ACCEPTED;
    r.conversation = MU_B("c-1");
    assert_int_equal(do_report(w, &r), 0);
    op = (struct mu_live_state){.id = id};
    mu_arena_init(&op.arena, 1 << 20);
    assert_int_equal(do_live_state(w, &op), 0);
    assert_int_equal(op.runner_seq, 9);
    assert_string_equal(op.turn.text, n.id.text);
    assert_int_equal(op.turn_state, MU_TURN_ACCEPTED);
    assert_true(mu_bytes_is(op.conversation, "c-1"));
    mu_arena_fini(&op.arena);
    op = (struct mu_live_state){.id = unknown};
    mu_arena_init(&op.arena, 1 << 20);
    assert_int_equal(do_live_state(w, &op), MU_E_NOT_FOUND);
    mu_arena_fini(&op.arena);
}

/* --- the session as the village sees it --- */

struct village {
    int view, mode;
    int64_t limit, paused, wait, run_deadline, calls, compute, last_seq;
    char parent[64], pin[64], diff[64];
};
static int see_village(void *arg, const struct mu_session_view *v)
{
    struct village *s = arg;
    s->view = v->view;
    s->mode = v->mode;
    s->limit = v->limit_ms;
    s->paused = v->paused_ms;
    s->wait = v->wait_ms;
    s->run_deadline = v->run_deadline_ms;
    s->calls = v->api_calls;
    s->compute = v->compute_ms;
    s->last_seq = v->last_event_seq;
    keep(s->parent, sizeof s->parent, v->parent_id);
    keep(s->pin, sizeof s->pin, v->pin_worker_id);
    keep(s->diff, sizeof s->diff, v->diff);
    return 0;
}

static void a_get_shows_what_the_village_asks_for(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.limit_ms = 5000;
    c.parent_id = MU_B("parent");
    c.pin_worker_id = MU_B("w1");
    struct mu_id id = working_as(w, &c);
    struct mu_session_report r = a_report(&id, 0, 1);
    r.has_usage = true;
    r.api_calls = 3;
    r.compute_ms = 4;
    r.diff = MU_B("{}");
    assert_int_equal(do_report(w, &r), 0);
    assert_int_equal(pause_it(w, &w->alice, &id), 0);
    struct village v = {0};
    struct mu_session_get op = {
        .id = id, .org_id = mu_str(w->alice.org_id), .each = see_village, .arg = &v};
    assert_int_equal(do_get(w, &op), 0);
    assert_int_equal(v.view, MU_VIEW_VILLAGE);
    assert_int_equal(v.mode, MU_MODE_TASK);
    assert_int_equal(v.limit, 5000);
    assert_int_equal(v.paused, now(w));
    assert_int_equal(v.wait, now(w));
    assert_int_equal(v.run_deadline, now(w) + 5000);
    assert_int_equal(v.calls, 3);
    assert_int_equal(v.compute, 4);
    assert_int_equal(v.last_seq, 4);
    assert_string_equal(v.parent, "parent");
    assert_string_equal(v.pin, "w1");
    assert_string_equal(v.diff, "{}");
}

static void all_that_hangs_on_a_session_goes_with_it(struct world *w)
{
    static const char *const tables[] = {"turns",       "gates",  "gate_votes",
                                         "checkpoints", "events", "streams"};
    struct mu_session_create c = new_run(&w->alice);
    const struct mu_first_turn first = {.prompt = MU_B("hi")};
    c.mode = MU_MODE_INTERACTIVE;
    c.first_turn = &first;
    struct mu_id id = working_as(w, &c);
    struct mu_gate_ask g = a_gate(&id, 1, "key");
    g.votes_needed = 2;
    assert_int_equal(do_ask(w, &g), 0);
    struct mu_gate_resolve d = {
        .session = id, .gate = g.id, .admin = true, .allow = true, .by = MU_B("admin")};
    assert_int_equal(do_resolve(w, &d), 0);
    put_sql(w,
            "INSERT INTO checkpoints (id, session_id, epoch, seq, kind, state, ref, created_ms) "
            "VALUES ('c', '%s', 1, 1, 1, 1, 'r', 1)",
            id.text);
    assert_int_equal(end_with(w, &id, 1, 90, MU_OUT_FINISHED, ""), 0);
    for (size_t i = 0; i < MU_ARRAY_LEN(tables); i++) {
        assert_int_not_equal(num(w, "SELECT COUNT(*) FROM %s", tables[i]), 0);
    }
    struct mu_session_delete del = {.id = id, .org_id = mu_str(w->alice.org_id)};
    assert_int_equal(do_delete(w, &del), 0);
    for (size_t i = 0; i < MU_ARRAY_LEN(tables); i++) {
        assert_int_equal(num(w, "SELECT COUNT(*) FROM %s", tables[i]), 0);
    }
}

static void a_held_session_is_not_purged(struct world *w)
{
    struct mu_id ids[3] = {working(w, &w->alice), queued(w, &w->alice), working(w, &w->alice)};
    put_sql(w, "UPDATE sessions SET held = 1");
    assert_int_equal(end_with(w, &ids[0], 1, 90, MU_OUT_FINISHED, ""), 0);
    assert_int_equal(cancel(w, &w->alice, &ids[1], NULL), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM sessions WHERE purge_ms IS NOT NULL"), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM sessions WHERE ended_ms IS NOT NULL"), 2);
}

/* --- the limit of an org --- */

static atomic_bool held;
static int hold_writer(struct mu_unit *u, struct mu_tx *tx)
{
    while (atomic_load(&held)) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return 0;
}
static void released(struct mu_unit *u, int result)
{
}
struct creates {
    struct world *w;
    int left, made, refused;
};
static void created(struct mu_session_create *op, int result)
{
    struct creates *c = op->ctx;
    c->made += result == 0;
    c->refused += result == MU_E_LIMIT;
    if (--c->left == 0) {
        mu_loop_stop(c->w->loop);
    }
}

static struct mu_session_create village_run(struct world *w, int64_t limit)
{
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    c.view = MU_VIEW_VILLAGE;
    c.org_limit = limit;
    return c;
}

static void an_org_has_room_for_so_many(struct world *w)
{
    enum { LIMIT = 3, TRIES = 8 };
    struct creates all = {.w = w, .left = TRIES};
    struct mu_session_create ops[TRIES];
    struct mu_unit gate = {.run = hold_writer, .done = released, .loop = w->loop, .alone = true};
    for (int i = 0; i < 5; i++) {
        (void)queued(w, &w->alice); /* runs of the Oz API are not counted */
    }
    atomic_store(&held, true);
    assert_int_equal(mu_writer_submit(w->writer, &gate), 0);
    for (int i = 0; i < TRIES; i++) {
        ops[i] = village_run(w, LIMIT);
        ops[i].unit.loop = w->loop;
        ops[i].done = created;
        ops[i].ctx = &all;
        assert_int_equal(mu_session_create(w->sessions, &ops[i]), 0);
    }
    atomic_store(&held, false);
    mu_loop_run(w->loop);
    assert_int_equal(all.made, LIMIT);
    assert_int_equal(all.refused, TRIES - LIMIT);
    assert_int_equal(live(&w->alice), 5 + LIMIT);
    /* one that is hibernated or parked gives its place to another, one that ended too */
    struct mu_session_create c = village_run(w, LIMIT);
    assert_int_equal(do_create(w, &c), MU_E_LIMIT);
    static const int away[] = {74, 76};
    for (size_t i = 0; i < 2; i++) {
        put_sql(w,
                "UPDATE sessions SET state = %d WHERE id = (SELECT min(id) FROM sessions WHERE "
                "state = 22)",
                away[i]);
        c = village_run(w, LIMIT);
        assert_int_equal(do_create(w, &c), 0);
        c = village_run(w, LIMIT);
        assert_int_equal(do_create(w, &c), MU_E_LIMIT);
    }
    c = village_run(w, LIMIT + 1);
    c.idem_key = MU_B("key");
    assert_int_equal(do_create(w, &c), 0);
    assert_int_equal(do_create(w, &c), 0); /* a repetition needs no room */
    assert_true(c.replayed);
    c = new_run(&w->alice); /* a key is one of its API */
    c.idem_key = MU_B("key");
    assert_int_equal(do_create(w, &c), 0);
    assert_false(c.replayed);
    struct mu_session_create other = village_run(w, 1);
    other.who = &w->bob;
    assert_int_equal(do_create(w, &other), 0);
}

/* --- memory that runs out --- */

static void a_report_is_stored_whole_or_not(struct world *w)
{
    for (long n = 1;; n++) {
        mu_alloc_fail_at(n);
        struct mu_session_create c = new_run(&w->alice);
        c.route = MU_ROUTE_WORKER;
        int64_t epoch = 0;
        bool ready = do_create(w, &c) == 0 && offer(w, &c.id, 0, &epoch) == 0;
        struct mu_session_report op = a_report(&c.id, 0, 1);
        op.facts = facts;
        op.n_facts = 3;
        op.running = true;
        op.diff = MU_B("{}");
        int r = ready ? do_report(w, &op) : -1;
        long made = mu_alloc_fail_at(0);
        if (ready) {
            assert_int_equal(row_of(w, &c.id).state, r == 0 ? 60 : 30);
            assert_int_equal(events_of(w, &c.id), r == 0 ? 7 : 2);
        }
        if (made < n) {
            assert_int_equal(r, 0);
            break;
        }
    }
    assert_int_equal(holes(w), 0);
}

#define EACH_TEST(ALL, BOTH, ONE)                                                                  \
    ALL(facts_are_stored_in_their_order)                                                           \
    ALL(a_repeated_report_changes_nothing)                                                         \
    ALL(a_hole_is_asked_for)                                                                       \
    ALL(who_lost_the_lease_is_not_heard)                                                           \
    BOTH(what_is_too_much_is_refused)                                                              \
    ALL(its_end_of_time_may_come_with_its_start)                                                   \
    ALL(what_runs_at_once_has_the_time_of_a_run)                                                   \
    BOTH(a_hello_is_answered_with_what_is_known)                                                   \
    BOTH(a_get_shows_what_the_village_asks_for)                                                    \
    BOTH(all_that_hangs_on_a_session_goes_with_it)                                                 \
    BOTH(a_held_session_is_not_purged)                                                             \
    BOTH(an_org_has_room_for_so_many)                                                              \
    ONE(a_report_is_stored_whole_or_not)

EACH_TEST(IN_WORLD, IN_WORLD, IN_WORLD)

#define ON_ALL_(test)  ON_ALL(test),
#define ON_BOTH_(test) ON_BOTH(test),
#define ON_ONE_(test)  ON(test, 0),

int main(void)
{
    const struct CMUnitTest tests[] = {EACH_TEST(ON_ALL_, ON_BOTH_, ON_ONE_)};
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
