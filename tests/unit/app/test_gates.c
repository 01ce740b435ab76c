/* Gates: how they open, who decides them, and that exactly one decision wins. */
#include "session_moves.h"

static struct mu_gate_resolve a_decision(struct world *w, const struct mu_id *session,
                                         const struct mu_id *gate, bool allow)
{
    return (struct mu_gate_resolve){.session = *session,
                                    .gate = *gate,
                                    .org_id = mu_str(w->alice.org_id),
                                    .allow = allow,
                                    .by = MU_B("user:ann")};
}

static int resolve(struct world *w, const struct mu_id *session, const struct mu_id *gate,
                   bool allow)
{
    struct mu_gate_resolve op = a_decision(w, session, gate, allow);
    return do_resolve(w, &op);
}

static int expire(struct world *w, const struct mu_id *session, const struct mu_id *gate)
{
    struct mu_gate_expire op = {.session = *session, .gate = *gate};
    return do_expire(w, &op);
}

static int64_t status_of(struct world *w, const struct mu_id *gate)
{
    return num(w, "SELECT status FROM gates WHERE id = '%s'", gate->text);
}

static const char *types_of_events(struct world *w, const struct mu_id *id)
{
    return txt(w, "SELECT CAST(type AS TEXT) FROM events WHERE stream_id = '%s' ORDER BY seq",
               id->text);
}

static void words_are_read_back(struct world *w)
{
    for (int i = 1; i <= MU_ACT_TOOL; i++) {
        assert_int_equal(mu_gate_action_parse(mu_str(mu_gate_action_name(i))), i);
    }
    for (int i = 1; i <= MU_RISK_HIGH; i++) {
        assert_int_equal(mu_gate_risk_parse(mu_str(mu_gate_risk_name(i))), i);
    }
    assert_null(mu_gate_action_name(0));
    assert_null(mu_gate_action_name(MU_ACT_TOOL + 1));
    assert_null(mu_gate_risk_name(MU_RISK_HIGH + 1));
    assert_null(mu_gate_status_name(MU_GATE_CANCELLED + 1));
    assert_string_equal(mu_gate_status_name(MU_GATE_EXPIRED), "expired");
    assert_int_equal(mu_gate_action_parse(MU_B("sudo")), 0);
    for (int type = 1; type < 100; type++) {
        const char *name = mu_event_type_name(type);
        assert_int_equal(name ? mu_event_type_parse(mu_str(name)) : type, type);
    }
    assert_int_equal(mu_event_type_parse(MU_B("FILE_TOUCHED")), MU_EV_FILE_TOUCHED);
    assert_int_equal(mu_event_type_parse(MU_B("nothing")), 0);
    (void)queued(w, &w->alice); /* so that a unit ran */
}

static void a_gate_stops_the_session_until_it_is_decided(struct world *w)
{
    struct mu_id id = working(w, &w->alice), gate;
    int64_t deadline = row_of(w, &id).deadline;
    advance(w, 1000);
    struct mu_gate_ask op = a_gate(&id, 1, "key");
    op.expires_ms = now(w) + 60000;
    assert_int_equal(do_ask(w, &op), 0);
    gate = op.id;
    assert_false(op.existing);
    assert_int_equal(op.status, MU_GATE_PENDING);
    struct row r = row_of(w, &id);
    assert_int_equal(r.state, MU_ST_WAITING);
    assert_int_equal(r.deadline, start_ms + INT64_C(86400000));
    char want[400];
    snprintf(want, sizeof want,
             "{\"gate\":\"%s\",\"kind\":1,\"action\":\"shell\",\"risk\":\"med\",\"status\":"
             "\"pending\",\"description\":\"rm -r build\",\"context\":{\"command\":\"rm -r "
             "build\"},\"expires_ms\":%lld};{\"from\":60,\"to\":64,\"by\":\"runner\"};",
             gate.text, (long long)op.expires_ms);
    assert_string_equal(txt(w,
                            "SELECT data FROM events WHERE stream_id = '%s' AND seq > 3 ORDER BY "
                            "seq",
                            id.text),
                        want);

    advance(w, 5000);
    struct mu_gate_resolve res = a_decision(w, &id, &gate, true);
    res.reason = MU_B("\"fine\"");
    assert_int_equal(do_resolve(w, &res), 0);
    assert_int_equal(res.status, MU_GATE_ALLOWED);
    assert_int_equal(res.state, MU_ST_RUNNING);
    assert_false(res.repeated || res.stopped);
    r = row_of(w, &id);
    assert_int_equal(r.state, MU_ST_RUNNING);
    assert_int_equal(r.deadline, deadline + 5000); /* its own clock stood still */
    snprintf(want, sizeof want,
             "{\"gate\":\"%s\",\"kind\":1,\"status\":\"allowed\",\"decision\":\"allow\",\"by\":"
             "\"user:ann\",\"reason\":\"\\\"fine\\\"\"};{\"from\":64,\"to\":60,\"by\":\"user:ann\"}"
             ";",
             gate.text);
    assert_string_equal(txt(w,
                            "SELECT data FROM events WHERE stream_id = '%s' AND seq > 5 ORDER BY "
                            "seq",
                            id.text),
                        want);
    assert_string_equal(txt(w,
                            "SELECT actor FROM events WHERE stream_id = '%s' AND seq IN (4, 6) "
                            "ORDER BY seq",
                            id.text),
                        "runner;user:ann;");
}

static void the_last_of_several_gates_lets_it_go_on(struct world *w)
{
    struct mu_id id = working(w, &w->alice), a, b;
    assert_int_equal(ask(w, &id, 1, "a", &a), 0);
    assert_int_equal(ask(w, &id, 1, "b", &b), 0);
    assert_int_equal(resolve(w, &id, &b, false), 0);
    assert_int_equal(row_of(w, &id).state, MU_ST_WAITING);
    assert_int_equal(resolve(w, &id, &a, false), 0);
    assert_int_equal(row_of(w, &id).state, MU_ST_RUNNING);
    assert_string_equal(types_of_events(w, &id), "1;2;2;11;2;11;12;12;2;");
}

static void an_open_request_is_not_asked_twice(struct world *w)
{
    struct mu_id id = working(w, &w->alice);
    struct mu_gate_ask first = a_gate(&id, 1, "key"), again = first;
    first.fresh = mu_id_random(&w->env);
    assert_int_equal(do_ask(w, &first), 0);
    assert_string_equal(first.id.text, first.fresh.text);
    assert_int_equal(do_ask(w, &again), 0);
    assert_true(again.existing);
    assert_string_equal(again.id.text, first.id.text);
    assert_int_equal(events_of(w, &id), 5);
    /* The runner comes back with its question, which was answered meanwhile. */
    assert_int_equal(resolve(w, &id, &first.id, true), 0);
    assert_int_equal(do_ask(w, &first), 0);
    assert_true(first.existing);
    assert_int_equal(first.status, MU_GATE_ALLOWED);
    /* The same subject once more is another question. */
    assert_int_equal(do_ask(w, &again), 0);
    assert_false(again.existing);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gates"), 2);
}

static void a_decision_for_the_session_is_not_asked_again(struct world *w)
{
    struct mu_id id = working(w, &w->alice), other = working(w, &w->alice), gate;
    for (int allow = 0; allow < 2; allow++) {
        const char *key = allow ? "good" : "bad";
        assert_int_equal(ask(w, &id, 1, key, &gate), 0);
        struct mu_gate_resolve res = a_decision(w, &id, &gate, allow);
        res.scope = 1;
        assert_int_equal(do_resolve(w, &res), 0);
        int64_t events = events_of(w, &id);
        struct mu_gate_ask op = a_gate(&id, 1, key);
        assert_int_equal(do_ask(w, &op), 0);
        assert_false(op.existing);
        assert_int_equal(op.status, allow ? MU_GATE_ALLOWED : MU_GATE_DENIED);
        assert_string_equal(op.reason, "session_grant");
        assert_int_equal(row_of(w, &id).state, MU_ST_RUNNING);
        assert_int_equal(events_of(w, &id), events + 2);
        assert_int_equal(ask(w, &other, 1, key, NULL), 0); /* it is of one session only */
        assert_int_equal(row_of(w, &other).state, MU_ST_WAITING);
    }
    /* once is not for the session */
    assert_int_equal(ask(w, &id, 1, "once", &gate), 0);
    assert_int_equal(resolve(w, &id, &gate, true), 0);
    assert_int_equal(ask(w, &id, 1, "once", NULL), 0);
    assert_int_equal(row_of(w, &id).state, MU_ST_WAITING);
}

static void one_question_too_many_is_denied(struct world *w)
{
    struct mu_id id = working(w, &w->alice);
    for (int i = 0; i < MU_GATES_PENDING_MAX; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(ask(w, &id, 1, key, NULL), 0);
    }
    struct mu_gate_ask op = a_gate(&id, 1, "more");
    assert_int_equal(do_ask(w, &op), 0);
    assert_int_equal(op.status, MU_GATE_DENIED);
    assert_string_equal(op.reason, "too_many_pending");
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gates WHERE status = 0"), MU_GATES_PENDING_MAX);
    op = a_gate(&id, 1, "k3");
    assert_int_equal(do_ask(w, &op), 0);
    assert_true(op.existing);
    /* all go with the session, each with its event, and the end is the last */
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gates WHERE status = 4"), MU_GATES_PENDING_MAX);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gates WHERE delivered_ms IS NULL"), 0);
    assert_int_equal(end_with(w, &id, 1, 90, MU_OUT_FINISHED, "out"), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM events WHERE type = 12"),
                     MU_GATES_PENDING_MAX + 1);
    assert_int_equal(
        num(w, "SELECT type FROM events WHERE stream_id = '%s' ORDER BY seq DESC LIMIT 1", id.text),
        MU_EV_ENDED);
}

static void what_is_decided_stays(struct world *w)
{
    struct mu_id id = working(w, &w->alice), gate;
    assert_int_equal(ask(w, &id, 1, "key", &gate), 0);
    struct mu_gate_resolve op = a_decision(w, &id, &gate, true);
    op.reason = MU_B("because");
    assert_int_equal(do_resolve(w, &op), 0);
    int64_t events = events_of(w, &id);
    advance(w, 60000);
    op = a_decision(w, &id, &gate, true);
    assert_int_equal(do_resolve(w, &op), 0);
    assert_true(op.repeated);
    op = a_decision(w, &id, &gate, false); /* the other decision */
    assert_int_equal(do_resolve(w, &op), MU_E_EXISTS);
    assert_int_equal(op.known.status, MU_GATE_ALLOWED);
    assert_int_equal(op.known.resolved_ms, now(w) - 60000);
    assert_string_equal(op.known.by, "user:ann");
    assert_string_equal(op.known.reason, "because");
    op = a_decision(w, &id, &gate, true);
    op.by = MU_B("user:bob"); /* another person */
    assert_int_equal(do_resolve(w, &op), MU_E_EXISTS);
    advance(w, 1);
    assert_int_equal(resolve(w, &id, &gate, true), MU_E_EXISTS); /* too late to be a repetition */
    assert_int_equal(events_of(w, &id), events);
    assert_int_equal(expire(w, &id, &gate), MU_E_STALE);
}

static void strangers_and_the_session_itself_do_not_decide(struct world *w)
{
    struct mu_id id = working(w, &w->alice), other = working(w, &w->alice), gate,
                 unknown = mu_id_new(&w->env, NULL);
    assert_int_equal(ask(w, &id, 1, "key", &gate), 0);
    struct mu_gate_resolve op = a_decision(w, &id, &gate, true);
    op.org_id = mu_str(w->bob.org_id);
    assert_int_equal(do_resolve(w, &op), MU_E_NOT_FOUND);
    assert_true(op.no_session);
    op = a_decision(w, &unknown, &gate, true);
    assert_int_equal(do_resolve(w, &op), MU_E_NOT_FOUND);
    assert_true(op.no_session);
    op = a_decision(w, &id, &unknown, true);
    assert_int_equal(do_resolve(w, &op), MU_E_NOT_FOUND);
    assert_false(op.no_session);
    op = a_decision(w, &other, &gate, true); /* another session of the same tenant */
    assert_int_equal(do_resolve(w, &op), MU_E_NOT_FOUND);
    op = a_decision(w, &id, &gate, true);
    op.own = true;
    assert_int_equal(do_resolve(w, &op), MU_E_FORBIDDEN);
    op = a_decision(w, &id, &gate, true);
    op.by = MU_B("");
    assert_int_equal(do_resolve(w, &op), MU_E_INVALID);
    assert_int_equal(status_of(w, &gate), MU_GATE_PENDING);
    assert_int_equal(events_of(w, &id), 5);
    op = a_decision(w, &id, &gate, true);
    op.admin = true;
    op.org_id = MU_B_NONE;
    assert_int_equal(do_resolve(w, &op), 0);
    /* nor does a stranger ask */
    struct mu_gate_ask a = a_gate(&id, -1, "other");
    a.org_id = mu_str(w->bob.org_id);
    assert_int_equal(do_ask(w, &a), MU_E_NOT_FOUND);
}

static void only_what_runs_is_asked_for(struct world *w)
{
    struct mu_id id = working(w, &w->alice), provider = running(w, &w->alice);
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    assert_int_equal(do_create(w, &c), 0);
    for (int people = 0; people < 2; people++) {
        struct mu_gate_ask op = a_gate(&c.id, people ? -1 : 0, "key");
        op.org_id = mu_str(w->alice.org_id);
        assert_int_equal(do_ask(w, &op), people ? MU_E_CONFLICT : MU_E_STALE);
        op = a_gate(&provider, people ? -1 : 1, "key");
        op.org_id = mu_str(w->alice.org_id);
        assert_int_equal(do_ask(w, &op), people ? MU_E_CONFLICT : MU_E_STALE);
    }
    assert_int_equal(ask(w, &id, 2, "key", NULL), MU_E_STALE);
    assert_int_equal(ask(w, &id, 0, "key", NULL), MU_E_STALE);
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    assert_int_equal(ask(w, &id, 1, "key", NULL), MU_E_STALE);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gates"), 0);
    struct mu_gate_ask op = a_gate(&id, 1, "key");
    op.action = 0;
    assert_int_equal(do_ask(w, &op), MU_E_INVALID);
    op = a_gate(&id, 1, "key");
    op.votes_needed = 3;
    assert_int_equal(do_ask(w, &op), MU_E_INVALID);
    static char big[MU_GATE_CONTEXT_MAX + 1];
    memset(big, 'x', sizeof big);
    op = a_gate(&id, 1, "key");
    op.context = mu_bytes_of(big, sizeof big);
    assert_int_equal(do_ask(w, &op), MU_E_TOO_LARGE);
    op = a_gate(&id, 1, "key");
    op.description = mu_bytes_of(big, MU_GATE_TEXT_MAX + 1);
    assert_int_equal(do_ask(w, &op), MU_E_TOO_LARGE);
}

/* What a gate may hold at most does not fit its event: the row has it all the same. */
static void the_largest_gate_is_asked_for(struct world *w)
{
    struct mu_id id = working(w, &w->alice);
    static char text[MU_GATE_TEXT_MAX], context[MU_GATE_CONTEXT_MAX];
    memset(text, 1, sizeof text);
    memset(context, 'x', sizeof context);
    context[0] = context[sizeof context - 1] = '"';
    struct mu_gate_ask op = a_gate(&id, 1, "key");
    op.description = mu_bytes_of(text, sizeof text);
    op.context = mu_bytes_of(context, sizeof context);
    assert_int_equal(do_ask(w, &op), 0);
    assert_int_equal(num(w, "SELECT length(context) FROM gates"), sizeof context);
    assert_int_equal(num(w, "SELECT length(description) FROM gates"), sizeof text);
    assert_int_equal(events_of(w, &id), 5);
}

static void people_may_ask_and_no_runner_waits(struct world *w)
{
    struct mu_id id = working(w, &w->alice);
    struct mu_gate_ask op = a_gate(&id, -1, "merge");
    op.org_id = mu_str(w->alice.org_id);
    op.by = MU_B("user:ci");
    assert_int_equal(do_ask(w, &op), 0);
    assert_int_equal(resolve(w, &id, &op.id, true), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gates WHERE delivered_ms IS NULL"), 0);
    assert_string_equal(
        txt(w, "SELECT actor FROM events WHERE stream_id = '%s' AND type = 11", id.text),
        "user:ci;");
}

static void a_decision_is_told_until_it_is_taken(struct world *w)
{
    struct mu_id id = working(w, &w->alice), gate, unknown = mu_id_new(&w->env, NULL);
    assert_int_equal(ask(w, &id, 1, "key", &gate), 0);
    struct mu_gate_delivered op = {.session = id, .gate = gate, .epoch = 1};
    assert_int_equal(do_delivered(w, &op), MU_E_CONFLICT);
    assert_int_equal(resolve(w, &id, &gate, false), 0);
    advance(w, 7);
    assert_int_equal(do_delivered(w, &op), 0);
    assert_int_equal(num(w, "SELECT delivered_ms FROM gates"), now(w));
    advance(w, 7);
    assert_int_equal(do_delivered(w, &op), 0);
    assert_int_equal(num(w, "SELECT delivered_ms FROM gates"), now(w) - 7);
    op.epoch = 0;
    assert_int_equal(do_delivered(w, &op), MU_E_STALE);
    op.epoch = 1;
    op.gate = unknown;
    assert_int_equal(do_delivered(w, &op), MU_E_NOT_FOUND);
}

static void what_nobody_waits_for_any_more_is_cancelled(struct world *w)
{
    struct mu_id id = working(w, &w->alice), one, two;
    assert_int_equal(ask(w, &id, 1, "one", &one), 0);
    assert_int_equal(ask(w, &id, 1, "two", &two), 0);
    struct mu_gate_delivered op = {.session = id, .gate = one, .epoch = 1, .unwanted = true};
    assert_int_equal(do_delivered(w, &op), 0);
    assert_int_equal(op.state, MU_ST_WAITING); /* for the other one */
    assert_int_equal(num(w,
                         "SELECT COUNT(*) FROM gates WHERE status = 4 AND resolved_by = 'runner' "
                         "AND delivered_ms IS NOT NULL"),
                     1);
    assert_int_equal(do_delivered(w, &op), 0);
    assert_int_equal(op.state, 0); /* nothing new */
    op.gate = two;
    assert_int_equal(do_delivered(w, &op), 0);
    assert_int_equal(op.state, MU_ST_RUNNING);
    assert_int_equal(
        num(w, "SELECT COUNT(*) FROM events WHERE stream_id = '%s' AND type = 12", id.text), 2);
    assert_int_equal(resolve(w, &id, &two, true), MU_E_EXISTS);
}

/* Two keys of one org are two people, one key is one, whatever it says of itself. */
static void two_keys_of_an_org_are_two(struct world *w)
{
    struct mu_id id = working(w, &w->alice), key[2];
    struct mu_gate_ask g = a_gate(&id, 1, "votes of keys");
    g.votes_needed = 2;
    assert_int_equal(do_ask(w, &g), 0);
    for (int i = 0; i < 2; i++) {
        key[i] = mu_id_new(&w->env, NULL);
    }
    static const int keys[] = {0, 0, 1};
    for (size_t i = 0; i < MU_ARRAY_LEN(keys); i++) {
        struct mu_principal p = w->alice;
        p.key = key[keys[i]];
        struct mu_actor by = mu_actor_of(&p);
        struct mu_gate_resolve op = a_decision(w, &id, &g.id, true);
        op.by = mu_str(by.text);
        assert_int_equal(do_resolve(w, &op), 0);
        assert_int_equal(op.status, keys[i] ? MU_GATE_ALLOWED : MU_GATE_PENDING);
        assert_true(op.repeated == (i == 1));
    }
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gate_votes"), 2);
}

static void two_people_are_two(struct world *w)
{
    struct mu_id id = working(w, &w->alice);
    struct mu_gate_ask g = a_gate(&id, 1, "deploy");
    g.votes_needed = 2;
    assert_int_equal(do_ask(w, &g), 0);
    for (int i = 0; i < 2; i++) {
        struct mu_gate_resolve op = a_decision(w, &id, &g.id, true);
        assert_int_equal(do_resolve(w, &op), 0);
        assert_int_equal(op.status, MU_GATE_PENDING);
        assert_int_equal(op.repeated, i); /* the same person once more */
    }
    assert_int_equal(row_of(w, &id).state, MU_ST_WAITING);
    assert_int_equal(events_of(w, &id), 5);
    struct mu_gate_resolve op = a_decision(w, &id, &g.id, true);
    op.by = MU_B("user:bob");
    assert_int_equal(do_resolve(w, &op), 0);
    assert_int_equal(op.status, MU_GATE_ALLOWED);
    assert_int_equal(row_of(w, &id).state, MU_ST_RUNNING);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gate_votes"), 2);
    /* one denial is enough */
    g.fresh = mu_id_random(&w->env);
    assert_int_equal(do_ask(w, &g), 0);
    assert_int_equal(resolve(w, &id, &g.id, true), 0);
    assert_int_equal(resolve(w, &id, &g.id, false), 0);
    assert_int_equal(status_of(w, &g.id), MU_GATE_DENIED);
}

static void a_denial_may_stop_the_session(struct world *w)
{
    struct mu_id id = working(w, &w->alice), gate, other;
    assert_int_equal(ask(w, &id, 1, "a", &gate), 0);
    assert_int_equal(ask(w, &id, 1, "b", &other), 0);
    struct mu_gate_resolve op = a_decision(w, &id, &gate, false);
    op.stop = true;
    op.reason = MU_B("no");
    assert_int_equal(do_resolve(w, &op), 0);
    assert_true(op.stopped);
    assert_int_equal(op.state, MU_ST_STOPPING);
    assert_int_equal(live(&w->alice), 0);
    assert_int_equal(status_of(w, &other), MU_GATE_CANCELLED);
    struct row r = row_of(w, &id);
    assert_int_equal(r.state, MU_ST_STOPPING);
    assert_int_equal(r.stop, now(w));
    assert_int_equal(end_with(w, &id, 1, 92, MU_OUT_FAILED, "x"), 0);
    r = row_of(w, &id);
    assert_int_equal(r.state, MU_ST_COMPLETED);
    assert_int_equal(r.outcome, MU_OUT_CANCELLED);
    assert_int_equal(r.end_reason, MU_END_DENIED);
    assert_int_equal(live(&w->alice), 0);
    assert_string_equal(types_of_events(w, &id), "1;2;2;11;2;11;12;12;2;2;4;");
    /* what is allowed stops nothing */
    struct mu_id good = working(w, &w->alice);
    assert_int_equal(ask(w, &good, 1, "a", &gate), 0);
    op = a_decision(w, &good, &gate, true);
    op.stop = true;
    assert_int_equal(do_resolve(w, &op), 0);
    assert_int_equal(row_of(w, &good).state, MU_ST_RUNNING);
}

static void time_denies(struct world *w)
{
    struct mu_id id = working(w, &w->alice), never;
    struct mu_gate_ask g = a_gate(&id, 1, "key");
    g.expires_ms = now(w) + 1000;
    assert_int_equal(do_ask(w, &g), 0);
    assert_int_equal(ask(w, &id, 1, "never", &never), 0);
    advance(w, 999);
    assert_int_equal(expire(w, &id, &g.id), MU_E_STALE);
    advance(w, 1);
    struct mu_gate_resolve late = a_decision(w, &id, &g.id, true);
    assert_int_equal(do_resolve(w, &late), MU_E_EXISTS); /* whoever stores it first */
    assert_int_equal(late.known.status, MU_GATE_EXPIRED);
    assert_int_equal(expire(w, &id, &g.id), 0);
    assert_int_equal(expire(w, &id, &g.id), MU_E_STALE);
    assert_int_equal(status_of(w, &g.id), MU_GATE_EXPIRED);
    assert_int_equal(row_of(w, &id).state, MU_ST_WAITING);
    assert_int_equal(expire(w, &id, &never), MU_E_STALE);
    assert_int_equal(resolve(w, &id, &never, true), 0);
    assert_int_equal(row_of(w, &id).state, MU_ST_RUNNING);
    /* and may stop */
    g.fresh = mu_id_random(&w->env);
    g.expires_ms = now(w) + 1;
    assert_int_equal(do_ask(w, &g), 0);
    advance(w, 1);
    struct mu_gate_expire op = {.session = id, .gate = g.id, .stop = true};
    assert_int_equal(do_expire(w, &op), 0);
    assert_true(op.stopped);
    assert_int_equal(row_of(w, &id).end_reason, MU_END_DENIED);
    assert_int_equal(live(&w->alice), 0);
}

/* --- races: both are submitted before either ran --- */

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
struct race {
    struct world *w;
    int left, won, results[4];
};
static void race_over(struct race *r, int i, int result)
{
    r->results[i] = result;
    r->won += result == 0;
    if (--r->left == 0) {
        mu_loop_stop(r->w->loop);
    }
}
static void resolve_raced(struct mu_gate_resolve *op, int result)
{
    race_over(op->ctx, op->allow, result);
}
static void expire_raced(struct mu_gate_expire *op, int result)
{
    race_over(op->ctx, 2, result);
}

static void exactly_one_decision_wins(struct world *w)
{
    for (int round = 0; round < 6; round++) {
        struct mu_id id = working(w, &w->alice);
        struct mu_gate_ask g = a_gate(&id, 1, "key");
        bool timed = round % 2;
        g.expires_ms = now(w) + 1000;
        assert_int_equal(do_ask(w, &g), 0);
        advance(w, timed ? 1000 : 10);
        struct race race = {.w = w, .left = 3};
        struct mu_unit gate = {
            .run = hold_writer, .done = released, .loop = w->loop, .alone = true};
        struct mu_gate_resolve yes = a_decision(w, &id, &g.id, true), no = yes;
        struct mu_gate_expire late = {.session = id, .gate = g.id};
        yes.unit.loop = no.unit.loop = late.unit.loop = w->loop;
        no.allow = false;
        yes.done = no.done = resolve_raced;
        late.done = expire_raced;
        yes.ctx = no.ctx = late.ctx = &race;
        atomic_store(&held, true);
        assert_int_equal(mu_writer_submit(w->writer, &gate), 0);
        assert_int_equal(mu_gate_resolve(w->sessions, round % 3 ? &yes : &no), 0);
        assert_int_equal(mu_gate_expire(w->sessions, &late), 0);
        assert_int_equal(mu_gate_resolve(w->sessions, round % 3 ? &no : &yes), 0);
        atomic_store(&held, false);
        mu_loop_run(w->loop);
        assert_int_equal(race.won, 1);
        assert_int_equal(race.results[2], timed ? 0 : MU_E_STALE);
        assert_string_equal(types_of_events(w, &id), "1;2;2;11;2;12;2;");
        assert_int_equal(row_of(w, &id).state, MU_ST_RUNNING);
    }
}

/* --- reading --- */

struct gates {
    unsigned n, enough;
    char ids[64][MU_ID_LEN + 1];
    struct mu_gate_row last;
    char description[64], by[64];
};

static int take_gate(void *arg, const struct mu_gate_row *g)
{
    struct gates *l = arg;
    l->last = *g;
    keep(l->description, sizeof l->description, g->description);
    keep(l->by, sizeof l->by, g->resolved_by);
    keep(l->ids[l->n++], sizeof l->ids[0], g->id);
    return l->enough && l->n == l->enough;
}

static struct gates list_gates(struct world *w, struct mu_gate_list *op)
{
    struct gates l = {.n = 0, .enough = (unsigned)(op->arg ? *(unsigned *)op->arg : 0)};
    op->each = take_gate;
    op->arg = &l;
    op->limit = op->limit ? op->limit : 50;
    assert_int_equal(do_gate_list(w, op), 0);
    assert_int_equal(op->count, l.n);
    return l;
}

/* Of two sessions of alice's (0 to 4, 5 to 8) and one of bob's; the first is allowed. */
enum { GATES = 12 };
static void many_gates(struct world *w, struct mu_id sessions[3], struct mu_id gates[GATES])
{
    sessions[0] = working(w, &w->alice);
    sessions[1] = working(w, &w->alice);
    sessions[2] = working(w, &w->bob);
    for (int i = 0; i < 12; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        struct mu_gate_ask g = a_gate(&sessions[(i >= 5) + (i >= 9)], 1, key);
        g.action = i % 2 ? MU_ACT_MERGE : MU_ACT_SHELL;
        g.risk = i % 3 ? MU_RISK_LOW : MU_RISK_HIGH;
        assert_int_equal(do_ask(w, &g), 0);
        gates[i] = g.id;
    }
    assert_int_equal(resolve(w, &sessions[0], &gates[0], true), 0);
}

static void an_inbox_shows_what_waits(struct world *w)
{
    struct mu_id sessions[3], gates[GATES];
    many_gates(w, sessions, gates);
    mu_bytes org = mu_str(w->alice.org_id);
    struct mu_gate_list op = {.org_id = org, .status = MU_GATE_PENDING};
    struct gates l = list_gates(w, &op);
    assert_int_equal(l.n, 8);
    assert_string_equal(l.ids[0], gates[8].text); /* the newest first */
    assert_string_equal(l.description, "rm -r build");
    assert_false(op.more);
    op = (struct mu_gate_list){.org_id = org, .status = -1, .limit = 9};
    l = list_gates(w, &op);
    assert_int_equal(l.n, 9);
    assert_false(op.more);
    assert_int_equal(l.last.status, MU_GATE_ALLOWED);
    assert_string_equal(l.by, "user:ann");
    op = (struct mu_gate_list){.org_id = org, .status = -1, .action = MU_ACT_MERGE};
    assert_int_equal(list_gates(w, &op).n, 4);
    op = (struct mu_gate_list){.org_id = org, .status = -1, .risk = MU_RISK_HIGH};
    assert_int_equal(list_gates(w, &op).n, 3);
    op = (struct mu_gate_list){.org_id = org, .session = sessions[1], .status = -1};
    assert_int_equal(list_gates(w, &op).n, 4);
    op = (struct mu_gate_list){.admin = true, .status = MU_GATE_PENDING};
    assert_int_equal(list_gates(w, &op).n, 11);
    op = (struct mu_gate_list){.admin = true, .status = MU_GATE_ALLOWED};
    assert_int_equal(list_gates(w, &op).n, 1);
    unsigned enough = 2;
    op = (struct mu_gate_list){.admin = true, .status = -1, .arg = &enough};
    l = list_gates(w, &op);
    assert_int_equal(l.n, 2);
    assert_true(op.more);
    op = (struct mu_gate_list){
        .org_id = org, .session = sessions[2], .status = -1, .limit = 5, .each = take_gate};
    assert_int_equal(do_gate_list(w, &op), MU_E_NOT_FOUND); /* another tenant's */
    op = (struct mu_gate_list){.status = -1, .limit = 5};
    assert_int_equal(mu_gate_list(w->sessions, &op), MU_E_INVALID);
}

static void gates_come_in_pages(struct world *w)
{
    struct mu_id sessions[3], gates[GATES];
    struct mu_gate_list op;
    unsigned seen_all = 0;
    char before[MU_ID_LEN + 1] = "";
    many_gates(w, sessions, gates);
    do {
        op = (struct mu_gate_list){.org_id = mu_str(w->alice.org_id),
                                   .status = -1,
                                   .limit = 2,
                                   .action = MU_ACT_SHELL,
                                   .before = before[0] ? mu_str(before) : MU_B_NONE};
        struct gates l = list_gates(w, &op);
        for (unsigned i = 0; i < l.n; i++) {
            assert_string_equal(l.ids[i], gates[8 - 2 * seen_all].text);
            seen_all++;
        }
        memcpy(before, op.next, sizeof before);
    } while (op.more);
    assert_int_equal(seen_all, 5);
}

static int count_gate(void *arg, const struct mu_gate_row *g)
{
    (*(int *)arg)++;
    return 0;
}

static void the_next_start_finds_what_is_open(struct world *w)
{
    struct mu_id id = working(w, &w->alice), over = working(w, &w->alice), a, b, c;
    assert_int_equal(ask(w, &id, 1, "a", &a), 0);
    assert_int_equal(ask(w, &id, 1, "b", &b), 0);
    assert_int_equal(ask(w, &id, 1, "c", &c), 0);
    assert_int_equal(ask(w, &over, 1, "d", NULL), 0);
    assert_int_equal(resolve(w, &id, &b, true), 0);
    assert_int_equal(resolve(w, &id, &c, true), 0);
    struct mu_gate_delivered op = {.session = id, .gate = c, .epoch = 1};
    assert_int_equal(do_delivered(w, &op), 0);
    assert_int_equal(end_with(w, &over, 1, 92, MU_OUT_FAILED, ""), 0);
    struct mu_db *db = NULL;
    struct mu_err err;
    int n = 0;
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = w->url}, &db, &err), 0);
    assert_int_equal(mu_gates_each_open(db, count_gate, &n), 0);
    mu_db_close(db);
    assert_int_equal(n, 2); /* one is open, one decision is not taken */
}

/* --- memory that runs out --- */

static int every_gate(void *arg)
{
    struct world *w = arg;
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    int64_t epoch = 0;
    struct mu_id gate = {""}, second = {""};
    if (do_create(w, &c) < 0 || offer(w, &c.id, 0, &epoch) < 0 ||
        step(w, &c.id, epoch, 30, 60) < 0) {
        return 0;
    }
    (void)ask(w, &c.id, epoch, "a", &gate);
    (void)ask(w, &c.id, epoch, "b", &second);
    (void)resolve(w, &c.id, &gate, true);
    struct mu_gate_list op = {
        .org_id = mu_str(w->alice.org_id), .status = -1, .limit = 5, .each = count_gate};
    int n = 0;
    op.arg = &n;
    (void)do_gate_list(w, &op);
    (void)end_with(w, &c.id, epoch, 90, MU_OUT_FINISHED, "x");
    return 0;
}

static void gates_survive_any_failing_allocation(struct world *w)
{
    each_allocation_fails(every_gate, w);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gates g JOIN sessions s ON s.id = g.session_id "
                            "WHERE g.status = 0 AND s.ended_ms IS NOT NULL"),
                     0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM sessions s WHERE s.state = 64 AND NOT EXISTS "
                            "(SELECT 1 FROM gates g WHERE g.session_id = s.id AND g.status = 0)"),
                     0);
    assert_int_equal(holes(w), 0);
}

#define EACH_TEST(ALL, BOTH, ONE)                                                                  \
    ONE(words_are_read_back)                                                                       \
    ALL(a_gate_stops_the_session_until_it_is_decided)                                              \
    ALL(the_last_of_several_gates_lets_it_go_on)                                                   \
    ALL(an_open_request_is_not_asked_twice)                                                        \
    ALL(a_decision_for_the_session_is_not_asked_again)                                             \
    ALL(one_question_too_many_is_denied)                                                           \
    ALL(what_is_decided_stays)                                                                     \
    BOTH(strangers_and_the_session_itself_do_not_decide)                                           \
    BOTH(only_what_runs_is_asked_for)                                                              \
    BOTH(the_largest_gate_is_asked_for)                                                            \
    ALL(people_may_ask_and_no_runner_waits)                                                        \
    ALL(a_decision_is_told_until_it_is_taken)                                                      \
    ALL(what_nobody_waits_for_any_more_is_cancelled)                                               \
    ALL(two_keys_of_an_org_are_two)                                                                \
    ALL(two_people_are_two)                                                                        \
    ALL(a_denial_may_stop_the_session)                                                             \
    ALL(time_denies)                                                                               \
    BOTH(exactly_one_decision_wins)                                                                \
    BOTH(an_inbox_shows_what_waits)                                                                \
    BOTH(gates_come_in_pages)                                                                      \
    BOTH(the_next_start_finds_what_is_open)                                                        \
    ONE(gates_survive_any_failing_allocation)

EACH_TEST(IN_WORLD, IN_WORLD, IN_WORLD)

#define ON_ALL_(test)  ON_ALL(test),
#define ON_BOTH_(test) ON_BOTH(test),
#define ON_ONE_(test)  ON(test, 0),

int main(void)
{
    const struct CMUnitTest tests[] = {EACH_TEST(ON_ALL_, ON_BOTH_, ON_ONE_)};
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
