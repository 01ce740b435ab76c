/* The fleet with peers that are driven from here, on a real SQLite file. */
#include "fleet_world.h"

/* A session that this peer has said it runs. */
static struct mu_id running_at(struct peer *p, struct order **ret_order)
{
    struct mu_id id = create("x");
    *ret_order = next(p, MU_ORDER_ASSIGN);
    say(p, MU_REPORT_CLAIMED, *ret_order);
    until_state(&id, 60);
    return id;
}

/* --- tests --- */

static void a_session_goes_to_a_worker_and_ends(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("hello");
    struct order *o = next(p, MU_ORDER_ASSIGN);
    assert_string_equal(o->of.session.text, id.text);
    assert_string_equal(o->prompt, "hello");
    assert_string_equal(o->image, "busybox:1");
    struct mu_principal who;
    assert_int_equal(mu_identity_resolve(w->identity, mu_str(o->token), &who), 0);
    assert_string_equal(who.run.text, id.text);
    assert_int_equal(who.run_epoch, 1);
    until_state(&id, 30);
    say(p, MU_REPORT_CLAIMED, o);
    until_state(&id, 60);
    finish(p, o, 0, "all done");
    until_state(&id, 90);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "all done");
    run_for(w, 20);
    assert_int_equal(mu_identity_resolve(w->identity, mu_str(o->token), &who), MU_E_UNAUTHORIZED);
    assert_int_equal(live(&w->alice), 0);
    finis();
}

static void reports_of_another_attempt_do_not_count(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("hello");
    struct order *o = next(p, MU_ORDER_ASSIGN);
    for (int i = 0; i < 6; i++) { /* the epoch before, the next one, another execution */
        struct mu_report *r = report(p, i % 2 ? MU_REPORT_CLAIMED : MU_REPORT_ENDED, o);
        r->epoch = i < 2 ? 0 : i < 4 ? 2 : -1;
        r->execution = i < 4 ? o->of.execution : mu_id_random(&w->env);
        mu_fleet_tell(fleet, r);
        run_for(w, 30);
        assert_int_equal(row_of(w, &id).state, 30);
    }
    finis();
}

static void a_worker_gets_what_it_has_room_for(struct world *w)
{
    begin(w);
    struct mu_id a = create("a"), b = create("b"), c = create("c");
    struct peer *p = connected("w1");
    struct order *one = next(p, MU_ORDER_ASSIGN), *two = next(p, MU_ORDER_ASSIGN);
    assert_string_equal(one->of.session.text, a.text);
    assert_string_equal(two->of.session.text, b.text);
    nothing(p);
    finish(p, one, 3, "");
    assert_string_equal(next(p, MU_ORDER_ASSIGN)->of.session.text, c.text);
    until_state(&a, 92);
    finis();
}

static void tenants_take_turns(struct world *w)
{
    begin(w);
    struct mu_id a1 = create("a1"), a2 = create("a2"), a3 = create("a3");
    struct mu_id b1 = create_for(&w->bob, "b1", NULL);
    struct peer *p = connected("w1");
    char got[3][8];
    for (int i = 0; i < 3; i++) {
        struct order *o = next(p, MU_ORDER_ASSIGN);
        snprintf(got[i], sizeof got[i], "%s", o->prompt);
        finish(p, o, 0, "");
    }
    assert_string_equal(got[0], "a1");
    assert_string_equal(got[1], "b1");
    assert_string_equal(got[2], "a2");
    (void)a1, (void)a2, (void)a3, (void)b1;
    finis();
}

static void a_pinned_session_waits_for_its_worker(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create_for(&w->alice, "mine", "w2");
    nothing(p);
    struct peer *q = connected("w2");
    assert_string_equal(next(q, MU_ORDER_ASSIGN)->of.session.text, id.text);
    finis();
}

static void a_refused_session_goes_elsewhere(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("x");
    say(p, MU_REPORT_REJECTED, next(p, MU_ORDER_ASSIGN));
    until_state(&id, 22);
    assert_int_equal(row_of(w, &id).tries, 0);
    nothing(p); /* it said that it is full */
    struct peer *q = connected("w2");
    struct order *o = next(q, MU_ORDER_ASSIGN);
    assert_string_equal(o->of.session.text, id.text);
    assert_int_equal(o->of.epoch, 3);
    say(p, MU_REPORT_CLAIMED, o); /* not its own any more */
    nothing(q);
    assert_int_equal(row_of(w, &id).state, 30);
    finis();
}

static void a_cancelled_session_is_stopped_where_it_runs(struct world *w)
{
    begin(w);
    struct order *o;
    struct peer *p = connected("w1");
    struct mu_id id = running_at(p, &o);
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    mu_fleet_cancelled(fleet, mu_id_bytes(&id));
    assert_string_equal(next(p, MU_ORDER_CANCEL)->of.session.text, id.text);
    assert_int_equal(row_of(w, &id).state, 80);
    finish(p, o, 0, "too late");
    until_state(&id, 90);
    assert_int_equal(row_of(w, &id).outcome, MU_OUT_CANCELLED);
    finis();
}

static void a_worker_that_returns_keeps_its_sessions(struct world *w)
{
    begin(w);
    struct order *o;
    struct peer *p = connected("w1");
    struct mu_id id = running_at(p, &o);
    leave(p, NULL);
    assert_int_equal(row_of(w, &id).state, 60);
    struct peer *q = connected("w1");
    finish(p, o, 1, "from the connection that is gone");
    finish(q, o, 0, "from the new one");
    until_state(&id, 90);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "from the new one");
    finis();
}

static void what_did_not_leave_goes_back_at_once(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("x");
    next(p, MU_ORDER_ASSIGN);
    leave(p, &id);
    until_state(&id, 22);
    assert_int_equal(num(w, "SELECT outcome FROM attempts"), MU_ATT_PUT_BACK);
    struct peer *q = connected("w1"); /* nothing is unresolved there */
    assert_string_equal(next(q, MU_ORDER_ASSIGN)->of.session.text, id.text);
    finis();
}

static void one_connection_for_each_id(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    run_for(w, 5);
    assert_int_equal(come("w1", false)->admitted, MU_E_BUSY);
    assert_int_equal(p->probes, 1);
    p->alive = false;
    struct peer *q = come("w1", false);
    assert_int_equal(q->admitted, 0);
    run_for(w, 5);
    assert_true(p->closed);
    assert_int_equal(p->close_code, 1001);
    struct peer *n = come("n1", true);
    mu_fleet_attach(&n->peer);
    run_for(w, 5);
    struct peer *m = come("n1", true); /* the same instance: no question */
    assert_int_equal(m->admitted, 0);
    run_for(w, 5);
    assert_int_equal(n->close_code, 4410);
    assert_int_equal(n->probes, 0);
    finis();
}

static void a_native_worker_says_what_it_runs(struct world *w)
{
    begin(w);
    struct mu_id one = create("one"), two = create("two");
    struct peer *p = come("n1", true);
    mu_fleet_attach(&p->peer);
    nothing(p); /* it says hello first */
    mu_fleet_tell(fleet, hello(p, 2));
    next(p, MU_ORDER_WELCOME);
    struct order *a = next(p, MU_ORDER_ASSIGN), *b = next(p, MU_ORDER_ASSIGN);
    struct order keep = *a, lost = *b;
    say(p, MU_REPORT_CLAIMED, a);
    say(p, MU_REPORT_CLAIMED, b);
    until_state(&one, 40);
    until_state(&two, 40);
    leave(p, NULL);
    struct peer *q = come("n1", true);
    mu_fleet_attach(&q->peer);
    struct mu_report *r = hello(q, 2);
    r->running = mu_arena_calloc(&r->arena, 2 * sizeof *r->running);
    r->running[0] = (struct mu_report_running){.of = keep.of, .state = 60};
    r->running[1].of.execution = mu_id_random(&w->env);
    r->n_running = 2;
    mu_fleet_tell(fleet, r);
    struct order *welcome = next(q, MU_ORDER_WELCOME);
    assert_int_equal(welcome->n_keep, 1);
    assert_int_equal(welcome->n_stop, 1);
    until_state(&one, 60);
    /* what it had only prepared and lost begins anew */
    struct order *again = next(q, MU_ORDER_ASSIGN);
    assert_string_equal(again->of.session.text, lost.of.session.text);
    assert_int_equal(again->of.epoch, 3);
    assert_int_equal(row_of(w, &two).tries, 1);
    finis();
}

static void output_is_stored_while_it_runs(struct world *w)
{
    begin(w);
    struct order *o;
    struct peer *p = connected("w1");
    struct mu_id id = running_at(p, &o);
    static const struct {
        int64_t offset;
        const char *text;
    } logs[] = {{0, "one "}, {0, "one "}, {2, "e two "}, {20, "after a gap"}};
    for (size_t i = 0; i < MU_ARRAY_LEN(logs); i++) {
        struct mu_report *r = report(p, MU_REPORT_LOG, o);
        r->offset = logs[i].offset;
        r->chunk = mu_str(logs[i].text);
        mu_fleet_tell(fleet, r);
    }
    run_for(w, 1200);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "one two \n[... 12 bytes were dropped ...]\nafter a gap");
    struct mu_report *end = report(p, MU_REPORT_ENDED, o);
    mu_fleet_tell(fleet, end); /* brings none: what is stored stays */
    until_state(&id, 90);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "one two \n[... 12 bytes were dropped ...]\nafter a gap");
    finis();
}

static void the_next_start_waits_for_the_workers(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("x");
    struct order o = *next(p, MU_ORDER_ASSIGN);
    say(p, MU_REPORT_CLAIMED, &o);
    until_state(&id, 60);
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
    struct mu_principal who;
    assert_int_equal(mu_identity_resolve(w->identity, mu_str(o.token), &who), 0);
    struct peer *q = connected("w1");
    finish(q, &o, 0, "kept");
    until_state(&id, 90);
    finis();
}

/* --- memory that runs out: nothing is lost, it is done later --- */

static void a_session_survives_any_failing_allocation(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    run_for(w, 10);
    for (long n = 1; n < 40; n++) {
        made = new_run(&w->alice);
        made.route = MU_ROUTE_WORKER;
        made.prompt = MU_B("x");
        made.needs = MU_NEED_CODEX; /* a plain worker may have it */
        made.unit.loop = w->loop;
        made.done = on_made;
        is_made = false;
        mu_alloc_fail_at(n);
        int r = mu_fleet_create(fleet, &made);
        if (r == 0) {
            until(was_made, NULL, "an answer");
        }
        mu_alloc_fail_at(0);
        if (r < 0 || made_result < 0) {
            continue;
        }
        struct mu_id id = made.id;
        struct order *o = next(p, MU_ORDER_ASSIGN);
        assert_string_equal(o->of.session.text, id.text);
        finish(p, o, 0, "x");
        until_state(&id, 90);
    }
    finis();
}

IN_WORLD(a_session_goes_to_a_worker_and_ends)
IN_WORLD(reports_of_another_attempt_do_not_count)
IN_WORLD(a_worker_gets_what_it_has_room_for)
IN_WORLD(tenants_take_turns)
IN_WORLD(a_pinned_session_waits_for_its_worker)
IN_WORLD(a_refused_session_goes_elsewhere)
IN_WORLD(a_cancelled_session_is_stopped_where_it_runs)
IN_WORLD(a_worker_that_returns_keeps_its_sessions)
IN_WORLD(what_did_not_leave_goes_back_at_once)
IN_WORLD(one_connection_for_each_id)
IN_WORLD(a_native_worker_says_what_it_runs)
IN_WORLD(output_is_stored_while_it_runs)
IN_WORLD(the_next_start_waits_for_the_workers)
IN_WORLD(a_session_survives_any_failing_allocation)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_session_goes_to_a_worker_and_ends),
        ON_BOTH(reports_of_another_attempt_do_not_count),
        ON(a_worker_gets_what_it_has_room_for, 0),
        ON(tenants_take_turns, 0),
        ON(a_pinned_session_waits_for_its_worker, 0),
        ON_BOTH(a_refused_session_goes_elsewhere),
        ON_BOTH(a_cancelled_session_is_stopped_where_it_runs),
        ON(a_worker_that_returns_keeps_its_sessions, 0),
        ON(what_did_not_leave_goes_back_at_once, 0),
        ON(one_connection_for_each_id, 0),
        ON_BOTH(a_native_worker_says_what_it_runs),
        ON_BOTH(output_is_stored_while_it_runs),
        ON_BOTH(the_next_start_waits_for_the_workers),
        ON(a_session_survives_any_failing_allocation, 0),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
