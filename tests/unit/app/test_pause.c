/* Pause and resume, the clocks of a live session, and what its states may do at random. */
#include "session_moves.h"

static int64_t column(struct world *w, const struct mu_id *id, const char *name)
{
    return num(w, "SELECT coalesce(%s, 0) FROM sessions WHERE id = '%s'", name, id->text);
}

/* With a time of its own. */
static struct mu_id limited(struct world *w, int64_t limit_ms)
{
    struct mu_session_create c = new_run(&w->alice);
    c.limit_ms = limit_ms;
    c.queue_ms = 5000;
    return working_as(w, &c);
}

static void its_time_begins_with_its_preparation(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    c.limit_ms = 10000;
    c.queue_ms = 5000;
    c.spec = MU_B("{\"live\":{\"retryOnRunnerLoss\":true}}");
    assert_int_equal(do_create(w, &c), 0);
    assert_int_equal(row_of(w, &c.id).deadline, start_ms + 5000);
    assert_int_equal(offer(w, &c.id, 0, NULL), 0);
    assert_int_equal(column(w, &c.id, "run_deadline_ms"), 0);
    advance(w, 100);
    assert_int_equal(step(w, &c.id, 1, 30, 40), 0);
    assert_int_equal(column(w, &c.id, "run_deadline_ms"), start_ms + 10100);
    assert_int_equal(row_of(w, &c.id).deadline, start_ms + 10100);
    advance(w, 100);
    struct mu_session_step s = {
        .id = c.id, .epoch = 1, .from = 40, .to = 50, .deadline_ms = now(w) + 700};
    assert_int_equal(do_step(w, &s), 0);
    assert_int_equal(row_of(w, &c.id).deadline, now(w) + 700); /* the executor may be stricter */
    assert_int_equal(report_running(w, &c.id, 1), 0);
    assert_int_equal(row_of(w, &c.id).deadline, start_ms + 10100);
    assert_int_equal(column(w, &c.id, "run_deadline_ms"), start_ms + 10100);
    /* Another attempt goes on in the same time. */
    struct mu_session_requeue again = {.id = c.id,
                                       .epoch = 1,
                                       .deadline_ms = now(w) + 60000,
                                       .from = 60,
                                       .lost = true,
                                       .outcome = MU_ATT_LOST,
                                       .reason = "It was lost"};
    assert_int_equal(do_requeue(w, &again), 0);
    assert_int_equal(offer(w, &c.id, 2, NULL), 0);
    assert_int_equal(step(w, &c.id, 3, 30, 60), 0);
    assert_int_equal(row_of(w, &c.id).deadline, start_ms + 10100);
    /* Without a limit the executor's word counts, as ever. */
    struct mu_id free = working(w, &w->alice);
    assert_int_equal(row_of(w, &free).deadline, now(w) + 60000);
    assert_int_equal(column(w, &free, "run_deadline_ms"), 0);
}

static void a_pause_stops_the_clocks(struct world *w)
{
    struct mu_id id = limited(w, 10000);
    struct mu_gate_ask g = a_gate(&id, 1, "key");
    advance(w, 1000);
    struct mu_session_pause p = {
        .id = id, .org_id = mu_str(w->alice.org_id), .by = MU_B("user:me")};
    p.hold_until_ms = now(w) + 50000;
    assert_int_equal(do_pause(w, &p), 0);
    assert_int_equal(p.from, 60);
    struct row r = row_of(w, &id);
    assert_int_equal(r.state, MU_ST_PAUSED);
    assert_int_equal(r.deadline, now(w) + 50000);
    assert_int_equal(column(w, &id, "paused_ms"), now(w));
    assert_int_equal(do_pause(w, &p), MU_E_CONFLICT);
    advance(w, 3000);
    g.expires_ms = now(w) + 500; /* asked while it is paused: it stays so */
    assert_int_equal(do_ask(w, &g), 0);
    assert_int_equal(row_of(w, &id).state, MU_ST_PAUSED);
    advance(w, 2000);
    struct mu_gate_expire e = {.session = id, .gate = g.id};
    assert_int_equal(do_expire(w, &e), MU_E_STALE); /* its clock stands still too */
    struct mu_session_resume s = {
        .id = id, .org_id = mu_str(w->alice.org_id), .by = MU_B("user:me")};
    assert_int_equal(do_resume(w, &s), 0);
    assert_int_equal(s.to, MU_ST_WAITING);
    assert_int_equal(do_resume(w, &s), MU_E_CONFLICT);
    assert_int_equal(num(w, "SELECT expires_ms FROM gates"), g.expires_ms + 2000);
    assert_int_equal(column(w, &id, "paused_ms"), 0);
    advance(w, 100);
    /* 60 -> 70 -> 64 -> 70 -> 64 -> 60: all of it is time that it waited */
    assert_int_equal(pause_it(w, &w->alice, &id), 0);
    advance(w, 900);
    assert_int_equal(resume(w, &w->alice, &id), 0);
    assert_int_equal(num(w, "SELECT expires_ms FROM gates"), g.expires_ms + 2900);
    struct mu_gate_resolve d = {
        .session = id, .gate = g.id, .admin = true, .allow = true, .by = MU_B("admin")};
    assert_int_equal(do_resolve(w, &d), 0);
    r = row_of(w, &id);
    assert_int_equal(r.state, MU_ST_RUNNING);
    assert_int_equal(r.deadline, start_ms + 10000 + 6000);
    assert_int_equal(column(w, &id, "run_deadline_ms"), r.deadline);
    assert_int_equal(column(w, &id, "wait_ms"), 0);
    assert_string_equal(
        txt(w,
            "SELECT data FROM events WHERE stream_id = '%s' AND type = 2 AND seq > 3 ORDER BY "
            "seq",
            id.text),
        "{\"from\":60,\"to\":70,\"by\":\"user:me\"};{\"from\":70,\"to\":64,\"by\":\"user:me\"};"
        "{\"from\":64,\"to\":70,\"by\":\"user:me\"};{\"from\":70,\"to\":64,\"by\":\"user:me\"};"
        "{\"from\":64,\"to\":60,\"by\":\"admin\"};");
}

static void a_gate_decided_in_a_pause_does_not_end_it(struct world *w)
{
    struct mu_id id = limited(w, 10000), gate;
    assert_int_equal(ask(w, &id, 1, "key", &gate), 0);
    assert_int_equal(pause_it(w, &w->alice, &id), 0);
    struct mu_gate_resolve d = {
        .session = id, .gate = gate, .admin = true, .allow = true, .by = MU_B("admin")};
    assert_int_equal(do_resolve(w, &d), 0);
    assert_int_equal(d.state, MU_ST_PAUSED);
    assert_int_equal(resume(w, &w->alice, &id), 0);
    assert_int_equal(row_of(w, &id).state, MU_ST_RUNNING);
}

static void what_is_not_there_or_not_running_is_not_paused(struct world *w)
{
    struct mu_id id = working(w, &w->alice), provider = running(w, &w->alice),
                 unknown = mu_id_new(&w->env, NULL);
    assert_int_equal(pause_it(w, &w->alice, &unknown), MU_E_NOT_FOUND);
    assert_int_equal(pause_it(w, &w->bob, &id), MU_E_NOT_FOUND);
    assert_int_equal(pause_it(w, &w->alice, &provider), MU_E_CONFLICT);
    assert_int_equal(resume(w, &w->alice, &id), MU_E_CONFLICT);
    assert_int_equal(pause_it(w, &w->admin, &id), 0);
    assert_int_equal(resume(w, &w->bob, &id), MU_E_NOT_FOUND);
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    assert_int_equal(row_of(w, &id).state, MU_ST_STOPPING);
    assert_int_equal(resume(w, &w->alice, &id), MU_E_CONFLICT);
    assert_int_equal(column(w, &id, "paused_ms"), 0);
}

static void nobody_waits_for_more_than_a_day(struct world *w)
{
    struct mu_id id = limited(w, 10000);
    advance(w, 1000);
    assert_int_equal(pause_it(w, &w->alice, &id), 0);
    assert_int_equal(row_of(w, &id).deadline, start_ms + INT64_C(86400000));
    advance(w, 86390000);
    assert_int_equal(resume(w, &w->alice, &id), 0);
    assert_int_equal(row_of(w, &id).deadline, start_ms + INT64_C(86400000));
}

static void a_stop_says_who_and_why(struct world *w)
{
    struct mu_id id = working(w, &w->alice), gate;
    assert_int_equal(ask(w, &id, 1, "key", &gate), 0);
    struct mu_session_cancel op = {.id = id,
                                   .org_id = mu_str(w->alice.org_id),
                                   .by = MU_B("user:ann"),
                                   .reason = MU_B("enough \"now\"")};
    assert_int_equal(do_cancel(w, &op), 0);
    assert_string_equal(
        txt(w, "SELECT data || actor FROM events WHERE stream_id = '%s' ORDER BY seq DESC LIMIT 1",
            id.text),
        "{\"from\":64,\"to\":80,\"outcome\":0,\"reason\":\"stopped\",\"by\":\"user:ann\",\"note\":"
        "\"enough \\\"now\\\"\"}user:ann;");
}

/* --- deadlines --- */

static void every_state_ends_at_its_deadline(struct world *w)
{
    static const struct {
        int state, end, outcome, reason;
        const char *code;
    } cases[] = {
        {64, 94, MU_OUT_TIMED_OUT, MU_END_TIMEOUT, "timeout"},
        {70, 94, MU_OUT_TIMED_OUT, MU_END_TIMEOUT, "timeout"},
        {72, 94, MU_OUT_TIMED_OUT, MU_END_TIMEOUT, "timeout"},
        {74, 90, MU_OUT_CANCELLED, MU_END_STOPPED, "cancelled"},
        {76, 92, MU_OUT_FAILED, MU_END_RUNNER_LOST, "runner_lost"},
    };
    struct mu_id ids[MU_ARRAY_LEN(cases)], gate;
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        ids[i] = working(w, &w->alice);
        if (cases[i].state <= 70) {
            assert_int_equal(ask(w, &ids[i], 1, "key", &gate), 0);
        }
        if (cases[i].state == 74 || cases[i].state == 76) {
            put_sql(w,
                    "UPDATE sessions SET worker_id = NULL WHERE id = '%s'; UPDATE attempts SET "
                    "ended_ms = 1, state = 90, reason = 'kept' WHERE session_id = '%s'",
                    ids[i].text, ids[i].text);
        }
        put_sql(w, "UPDATE sessions SET state = %d, deadline_ms = %lld WHERE id = '%s'",
                cases[i].state, (long long)now(w), ids[i].text);
    }
    sweep_until(w, 0, five_expired);
    assert_int_equal(n_expired, MU_ARRAY_LEN(cases));
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        struct row r = row_of(w, &ids[i]);
        assert_int_equal(r.state, cases[i].end);
        assert_int_equal(r.outcome, cases[i].outcome);
        assert_int_equal(r.end_reason, cases[i].reason);
        assert_int_equal(get(w, &w->alice, &ids[i]), 0);
        assert_string_equal(seen.code, cases[i].code);
        assert_int_equal(
            num(w, "SELECT type FROM events WHERE stream_id = '%s' ORDER BY seq DESC LIMIT 1",
                ids[i].text),
            MU_EV_ENDED);
    }
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gates WHERE status = 0"), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM attempts WHERE reason = 'kept'"), 2);
    assert_int_equal(live(&w->alice), 0);
}

static bool two_are_orphans(struct world *w)
{
    return metric(w, "muster_orphans") == 2;
}

static void what_must_not_be_is_counted(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.mode = MU_MODE_INTERACTIVE;
    const struct mu_first_turn first = {.prompt = MU_B("hello")};
    c.first_turn = &first;
    struct mu_id id = working_as(w, &c), other = working(w, &w->alice);
    assert_int_equal(ask(w, &other, 1, "key", NULL), 0);
    struct mu_turn_next n = {.session = id, .epoch = 1};
    mu_arena_init(&n.arena, 1 << 20);
    assert_int_equal(do_turn_next(w, &n), 0);
    mu_arena_fini(&n.arena);
    put_sql(w, "UPDATE attempts SET ended_ms = 1 WHERE session_id = '%s'", id.text);
    put_sql(w,
            "UPDATE sessions SET state = 90, outcome = 1, ended_ms = 1 WHERE id = '%s'; UPDATE "
            "attempts SET ended_ms = 1 WHERE session_id = '%s'",
            other.text, other.text);
    put_sql(w, "UPDATE sessions SET deadline_ms = %lld, updated_ms = %lld",
            (long long)now(w) + 600000, (long long)now(w) + 600000);
    sweep_until(w, 60000, two_are_orphans);
    assert_true(two_are_orphans(w));
}

/* --- at random --- */

static unsigned seed = 11;
static int dice(int n)
{
    return (int)((unsigned)rand_r(&seed) % (unsigned)n);
}

struct trial {
    struct world *w;
    struct mu_id id, gate, turn;
    int64_t epoch; /* as the one who acts believes */
    int state;
};

static int try_end(struct trial *t)
{
    static const int ends[][2] = {{90, 1}, {92, 3}, {94, 4}};
    int k = dice(3);
    return end_with(t->w, &t->id, t->epoch, ends[k][0], ends[k][1], "out");
}

static int try_gate(struct trial *t, int what)
{
    struct mu_gate_resolve d = {.session = t->id,
                                .gate = t->gate,
                                .admin = true,
                                .allow = dice(2),
                                .stop = dice(8) == 0,
                                .scope = dice(5) == 0,
                                .by = MU_B("user:x")};
    struct mu_gate_expire e = {.session = t->id, .gate = t->gate, .stop = dice(8) == 0};
    char key[8];
    snprintf(key, sizeof key, "k%d", dice(4));
    if (what == 0) {
        struct mu_gate_ask g = a_gate(&t->id, t->epoch, key);
        g.expires_ms = now(t->w) + dice(2000);
        int r = do_ask(t->w, &g);
        t->gate = r == 0 ? g.id : t->gate;
        return r;
    }
    return what == 1 ? do_resolve(t->w, &d) : do_expire(t->w, &e);
}

static int try_turn(struct trial *t, int what)
{
    struct mu_turn_add a = {.session = t->id, .admin = true, .prompt = MU_B("go")};
    struct mu_turn_next n = {.session = t->id, .epoch = t->epoch};
    if (what == 0) {
        return do_turn_add(t->w, &a);
    }
    mu_arena_init(&n.arena, 1 << 20);
    int r = do_turn_next(t->w, &n);
    t->turn = r == 0 ? n.id : t->turn;
    mu_arena_fini(&n.arena);
    return r;
}

static int try_report(struct trial *t)
{
    static const int states[] = {0, MU_TURN_ACCEPTED, MU_TURN_DONE, MU_TURN_FAILED};
    const struct mu_fact fact = {MU_EV_AGENT_MESSAGE, MU_B("{\"text\":\"hi\"}")};
    int64_t before = num(t->w,
                         "SELECT coalesce(max(runner_seq), 0) FROM attempts WHERE session_id = "
                         "'%s' AND epoch = %d",
                         t->id.text, (int)t->epoch);
    struct mu_session_report op = {.id = t->id,
                                   .epoch = t->epoch,
                                   .seq_before = before,
                                   .seq = before + 1,
                                   .facts = &fact,
                                   .n_facts = (size_t)dice(2),
                                   .running = dice(2),
                                   .turn = t->turn,
                                   .turn_state = t->turn.text[0] ? states[dice(4)] : 0};
    return do_report(t->w, &op);
}

static int random_move(struct trial *t)
{
    struct world *w = t->w;
    struct mu_session_requeue again = {.id = t->id,
                                       .epoch = t->epoch,
                                       .deadline_ms = now(w) + 60000,
                                       .from = t->state,
                                       .lost = dice(2),
                                       .outcome = MU_ATT_LOST,
                                       .reason = "It was lost"};
    int move = t->state < 60 && dice(3) ? dice(6) : dice(24); /* most of it while it runs */
    switch (move) {
    case 0:
    case 1:
    case 2:
        return offer(w, &t->id, t->epoch, NULL);
    case 3:
    case 4:
    case 5:
        return step(w, &t->id, t->epoch, t->state, 40 + 10 * dice(3));
    case 6:
        return dice(3) ? 0 : do_requeue(w, &again);
    case 7:
        return dice(4) ? 0 : try_end(t);
    case 8:
        return dice(4) ? 0 : cancel(w, &w->alice, &t->id, NULL);
    case 9:
    case 10:
        return pause_it(w, &w->alice, &t->id);
    case 11:
    case 12:
        return resume(w, &w->alice, &t->id);
    case 13:
    case 14:
    case 15:
        return try_gate(t, 0);
    case 16:
    case 17:
        return try_gate(t, 1);
    case 18:
        return try_gate(t, 2);
    case 19:
        return try_turn(t, 0);
    case 20:
    case 21:
        return try_turn(t, 1);
    default:
        return try_report(t);
    }
}

/* Everything that must hold of a session, whatever happened: the number of what does not. */
static int64_t wrongs(struct world *w, const struct mu_id *id)
{
    return num(
        w,
        "SELECT CASE WHEN s.state = 64 AND g.n = 0 THEN 1 ELSE 0 END + CASE WHEN s.state IN (60, "
        "80) AND g.n > 0 THEN 2 ELSE 0 END + CASE WHEN s.ended_ms IS NOT NULL AND g.n + t.n > 0 "
        "THEN 4 ELSE 0 END + CASE WHEN (s.state BETWEEN 30 AND 80) <> (a.n = 1) THEN 8 ELSE 0 END "
        "+ CASE WHEN (s.ended_ms IS NOT NULL) <> (e.n = 1) OR e.n > 1 THEN 16 ELSE 0 END + CASE "
        "WHEN e.n = 1 AND e.at <> x.last_seq THEN 32 ELSE 0 END + CASE WHEN (s.state = 70) <> "
        "(s.paused_ms IS NOT NULL) THEN 64 ELSE 0 END + CASE WHEN s.wait_ms IS NULL AND s.state IN "
        "(64, 70) OR s.wait_ms IS NOT NULL AND s.state NOT IN (64, 70) AND NOT (s.state < 60 AND "
        "s.losses > 0) THEN 128 ELSE 0 END + CASE WHEN u.n > 0 AND a.n = 0 THEN 256 ELSE "
        "0 END + CASE WHEN u.n > 1 THEN 512 ELSE 0 END FROM sessions s JOIN streams x ON x.id = "
        "s.id, (SELECT COUNT(*) AS n FROM gates WHERE session_id = '%s' AND status = 0) g, (SELECT "
        "COUNT(*) AS n FROM turns WHERE session_id = '%s' AND ended_ms IS NULL) t, (SELECT "
        "COUNT(*) AS n FROM turns WHERE session_id = '%s' AND ended_ms IS NULL AND state > 10) u, "
        "(SELECT COUNT(*) AS n FROM attempts WHERE session_id = '%s' AND ended_ms IS NULL) a, "
        "(SELECT COUNT(*) AS n, coalesce(MAX(seq), 0) AS at FROM events WHERE stream_id = '%s' AND "
        "type = 4) e WHERE s.id = '%s'",
        id->text, id->text, id->text, id->text, id->text, id->text);
}

/* What the log says of the states is one unbroken path. */
static void check_log(struct world *w, const struct mu_id *id, int state)
{
    char log[16384];
    snprintf(log, sizeof log, "%s",
             txt(w, "SELECT data FROM events WHERE stream_id = '%s' AND type = 2 ORDER BY seq",
                 id->text));
    int at = 22;
    for (const char *p = log; (p = strstr(p, "{\"from\":")); p++) {
        int from = 0, to = 0;
        assert_int_equal(sscanf(p, "{\"from\":%d,\"to\":%d", &from, &to), 2);
        assert_int_equal(from, at);
        assert_true(from == to || mu_state_may_move(from, to));
        at = to;
    }
    assert_int_equal(at, state);
}

static bool reached[100][100];

static void random_trial(struct world *w, int number)
{
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    c.view = MU_VIEW_VILLAGE;
    c.mode = number % 2 ? MU_MODE_INTERACTIVE : MU_MODE_TASK;
    c.limit_ms = number % 3 ? 3600000 : 0;
    c.spec = MU_B("{\"live\":{\"retryOnRunnerLoss\":true}}");
    assert_int_equal(do_create(w, &c), 0);
    struct trial t = {.w = w, .id = c.id};
    struct row row = row_of(w, &t.id);
    for (int i = 0; i < 40; i++) {
        bool lost = dice(8) == 0; /* somebody who lost the lease */
        t.epoch = row.epoch - lost;
        t.state = (int)row.state;
        advance(w, dice(700));
        int r = random_move(&t);
        struct row after = row_of(w, &t.id);
        int64_t wrong = wrongs(w, &t.id);
        if (row.state != after.state && !mu_state_may_move((int)row.state, (int)after.state)) {
            fail_msg("trial %d.%d: %d -> %d (%d)", number, i, (int)row.state, (int)after.state, r);
        }
        if (wrong) {
            fail_msg("trial %d.%d: %d -> %d (%d): %d", number, i, (int)row.state, (int)after.state,
                     r, (int)wrong);
        }
        if (row.state >= 90) {
            assert_memory_equal(&row, &after, sizeof row);
        }
        reached[row.state][after.state] = true;
        row = after;
    }
    check_log(w, &t.id, (int)row.state);
}

static void no_order_of_events_leaves_the_table(struct world *w)
{
    for (int i = 0; i < (w->pg ? 8 : 30); i++) {
        random_trial(w, i);
    }
    assert_int_equal(
        live(&w->alice),
        num(w, "SELECT COUNT(*) FROM sessions WHERE ended_ms IS NULL AND state <> 80"));
    static const int moves[][2] = {{60, 64}, {64, 60}, {60, 70}, {70, 60}, {64, 70}, {70, 64}};
    for (size_t i = 0; !w->pg && i < MU_ARRAY_LEN(moves); i++) { /* else it proves little */
        if (!reached[moves[i][0]][moves[i][1]]) {
            fail_msg("no trial came from %d to %d", moves[i][0], moves[i][1]);
        }
    }
}

/* --- memory that runs out --- */

static int every_pause(void *arg)
{
    struct world *w = arg;
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    int64_t epoch = 0;
    if (do_create(w, &c) < 0 || offer(w, &c.id, 0, &epoch) < 0 ||
        step(w, &c.id, epoch, 30, 60) < 0) {
        return 0;
    }
    (void)pause_it(w, &w->alice, &c.id);
    (void)resume(w, &w->alice, &c.id);
    struct mu_live_state op = {.id = c.id};
    mu_arena_init(&op.arena, 1 << 20);
    (void)do_live_state(w, &op);
    mu_arena_fini(&op.arena);
    return 0;
}

static void pauses_survive_any_failing_allocation(struct world *w)
{
    each_allocation_fails(every_pause, w);
    assert_int_equal(holes(w), 0);
}

#define EACH_TEST(ALL, BOTH, ONE)                                                                  \
    ALL(its_time_begins_with_its_preparation)                                                      \
    ALL(a_pause_stops_the_clocks)                                                                  \
    ALL(a_gate_decided_in_a_pause_does_not_end_it)                                                 \
    BOTH(what_is_not_there_or_not_running_is_not_paused)                                           \
    BOTH(nobody_waits_for_more_than_a_day)                                                         \
    BOTH(a_stop_says_who_and_why)                                                                  \
    ALL(every_state_ends_at_its_deadline)                                                          \
    BOTH(what_must_not_be_is_counted)                                                              \
    ALL(no_order_of_events_leaves_the_table)                                                       \
    ONE(pauses_survive_any_failing_allocation)

EACH_TEST(IN_WORLD, IN_WORLD, IN_WORLD)

#define ON_ALL_(test)  ON_ALL(test),
#define ON_BOTH_(test) ON_BOTH(test),
#define ON_ONE_(test)  ON(test, 0),

int main(void)
{
    const struct CMUnitTest tests[] = {EACH_TEST(ON_ALL_, ON_BOTH_, ON_ONE_)};
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
