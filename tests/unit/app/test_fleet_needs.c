/* What a session needs of its worker; what outlives a restart. */
#include "fleet_world.h"

static void start_anew(struct world *w)
{
    mu_fleet_close(fleet);
    run_for(w, 30);
    fleet = mu_fleet_free(fleet);
    struct mu_db *db = NULL;
    struct mu_err err;
    assert_int_equal(mu_fleet_new(&fopts, &fleet), 0);
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = w->url}, &db, &err), 0);
    assert_int_equal(mu_fleet_load(fleet, db), 0);
    mu_db_close(db);
    mu_fleet_start(fleet);
}

static void a_worker_that_was_away_is_told_to_stop_also_after_a_restart(struct world *w)
{
    begin(w);
    fopts.grace_ms = 50;
    start_anew(w);
    struct peer *p = connected("w1"), *other = connected("w2");
    struct mu_id id = create_for(&w->alice, "lost", "w1"), done = create_for(&w->alice, "x", "w2");
    struct order o = *next(p, MU_ORDER_ASSIGN), theirs = *next(other, MU_ORDER_ASSIGN);
    say(p, MU_REPORT_CLAIMED, &o);
    until_state(&id, 60);
    finish(other, &theirs, 3, "");
    until_state(&done, 92);
    run_for(w, 700); /* the workers' rows are written now and then */
    leave(p, NULL);
    until_state(&id, 92);
    leave(other, NULL);
    start_anew(w);
    struct peer *q = connected("w1");
    struct order *cancel = next(q, MU_ORDER_CANCEL);
    assert_string_equal(cancel->of.session.text, id.text);
    assert_string_equal(cancel->of.execution.text, o.of.execution.text);
    nothing(q);
    nothing(connected("w2"));
    finis();
}

static int64_t lease_of(const struct mu_id *id)
{
    return num(W, "SELECT lease_ms FROM attempts WHERE session_id = '%s' AND ended_ms IS NULL",
               id->text);
}

static void a_lease_is_renewed_while_the_worker_is_connected(struct world *w)
{
    begin(w);
    fopts.grace_ms = 1500;
    start_anew(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("x");
    struct order *o = next(p, MU_ORDER_ASSIGN);
    assert_int_equal(lease_of(&id), now(w) + fopts.claim_timeout_ms + fopts.grace_ms);
    say(p, MU_REPORT_CLAIMED, o);
    until_state(&id, 60);
    assert_int_equal(lease_of(&id), now(w) + fopts.grace_ms);
    atomic_fetch_add(&w->now_ms, 700);
    run_for(w, 900);
    assert_int_equal(lease_of(&id), now(w) + fopts.grace_ms);
    leave(p, NULL);
    atomic_fetch_add(&w->now_ms, 700);
    run_for(w, 900);
    assert_int_equal(lease_of(&id), now(w) - 700 + fopts.grace_ms);
    finis();
}

/* --- what a session needs --- */

static int load_queued(void *arg, const struct mu_live_row *row)
{
    return mu_fleet_load_queued(fleet, row);
}

static struct mu_id create_needing(int64_t needs)
{
    made = new_run(&W->alice);
    made.route = MU_ROUTE_WORKER;
    made.prompt = MU_B("x");
    made.needs = needs;
    made.unit.loop = W->loop;
    made.done = on_made;
    is_made = false;
    assert_int_equal(mu_fleet_create(fleet, &made), 0);
    until(was_made, NULL, "a session is made");
    assert_int_equal(made_result, 0);
    return made.id;
}

static struct peer *offering(const char *name, const char *caps)
{
    struct peer *x = come(name, true);
    mu_fleet_attach(&x->peer);
    struct mu_report *r = hello(x, 1);
    r->caps = mu_arena_dup(&r->arena, mu_str(caps));
    mu_fleet_tell(fleet, r);
    next(x, MU_ORDER_WELCOME);
    return x;
}

/* Between acknowledgements. */
static struct order *assigned(struct peer *x)
{
    struct order *o;
    do {
        until(has_order, x, "an assignment");
        o = &x->orders[x->taken++ % ORDERS];
    } while (o->kind == MU_ORDER_ACK);
    assert_int_equal(o->kind, MU_ORDER_ASSIGN);
    return o;
}

static bool says_why(void *arg)
{
    assert_int_equal(get(W, &W->alice, arg), 0);
    return strstr(seen.message, "network:none") != NULL;
}
static bool says_nothing(void *arg)
{
    assert_int_equal(get(W, &W->alice, arg), 0);
    return seen.message[0] == 0;
}

static void a_session_waits_for_a_worker_that_can_and_says_so(struct world *w)
{
    begin(w);
    struct peer *plain = connected("plain"), *poor = offering("poor", "{\"harnesses\":[]}");
    struct mu_id id = create_needing(MU_NEED_NET_NONE | MU_NEED_CODEX);
    until(says_why, &id, "the reason");
    assert_non_null(strstr(seen.message, "No connected worker"));
    nothing(plain);
    nothing(poor);
    assert_int_equal(row_of(w, &id).state, 22);
    struct peer *other = offering("other", "{\"features\":[\"nested\"]}");
    nothing(other);
    struct peer *rich =
        offering("rich", "{\"features\":[\"network:none\"],\"harnesses\":[\"codex\"]}");
    struct order *o = assigned(rich);
    assert_string_equal(o->of.session.text, id.text);
    until(says_nothing, &id, "the reason is gone");
    /* the worker is full: who needs it waits, and nobody says that it is not there */
    struct mu_id second = create_needing(MU_NEED_NET_NONE);
    run_for(w, 1200);
    until(says_nothing, &second, "no reason");
    finish(rich, o, 0, "");
    assert_string_equal(assigned(rich)->of.session.text, second.text);
    finis();
}

static void the_reason_is_taken_back_when_a_worker_comes_that_is_busy(struct world *w)
{
    begin(w);
    struct peer *poor = offering("poor", "{\"harnesses\":[]}");
    struct mu_id id = create_needing(MU_NEED_NET_NONE);
    until(says_why, &id, "the reason");
    struct peer *rich = come("rich", true);
    mu_fleet_attach(&rich->peer);
    struct mu_report *r = hello(rich, 1);
    r->caps = MU_B("{\"features\":[\"network:none\"]}");
    r->capacity = 1;
    struct mu_id pinned = create_for(&w->alice, "mine", "rich");
    mu_fleet_tell(fleet, r);
    next(rich, MU_ORDER_WELCOME);
    struct order *first = assigned(rich);
    bool mine = strcmp(first->of.session.text, pinned.text) == 0;
    until(says_nothing, &id, "the reason is gone");
    finish(rich, first, 0, "");
    assert_string_equal(assigned(rich)->of.session.text, mine ? id.text : pinned.text);
    nothing(poor);
    finis();
}

static void needs_survive_the_next_start(struct world *w)
{
    begin(w);
    struct mu_id id = create_needing(MU_NEED_NET_NONE);
    mu_fleet_close(fleet);
    run_for(w, 30);
    fleet = mu_fleet_free(fleet);
    struct mu_db *db = NULL;
    struct mu_err err;
    assert_int_equal(mu_fleet_new(&fopts, &fleet), 0);
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = w->url}, &db, &err), 0);
    assert_int_equal(mu_sessions_each_live(db, load_queued, NULL), 0);
    mu_db_close(db);
    mu_fleet_start(fleet);
    struct peer *poor = offering("poor", "{}");
    until(says_why, &id, "the reason");
    nothing(poor);
    struct peer *rich = offering("rich", "{\"features\":[\"network:none\"]}");
    assert_string_equal(next(rich, MU_ORDER_ASSIGN)->of.session.text, id.text);
    until(says_nothing, &id, "the reason is gone");
    finis();
}

IN_WORLD(a_worker_that_was_away_is_told_to_stop_also_after_a_restart)
IN_WORLD(a_lease_is_renewed_while_the_worker_is_connected)
IN_WORLD(a_session_waits_for_a_worker_that_can_and_says_so)
IN_WORLD(the_reason_is_taken_back_when_a_worker_comes_that_is_busy)
IN_WORLD(needs_survive_the_next_start)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_worker_that_was_away_is_told_to_stop_also_after_a_restart),
        ON_BOTH(a_lease_is_renewed_while_the_worker_is_connected),
        ON_BOTH(a_session_waits_for_a_worker_that_can_and_says_so),
        ON(the_reason_is_taken_back_when_a_worker_comes_that_is_busy, 0),
        ON_BOTH(needs_survive_the_next_start),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
