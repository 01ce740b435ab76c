/* What workers say while the database is late, away, or full; and what memory cannot be had for. */
#include "fleet_world.h"

#include "app/fleet/fleet_int.h"

/* --- a database that is late --- */

static struct gate {
    struct mu_unit unit;
    atomic_bool shut, over;
} gate;

static int wait_at(struct mu_unit *u, struct mu_tx *tx)
{
    for (int ms = 0; ms < 5000 && atomic_load(&gate.shut); ms++) {
        struct timespec t = {.tv_nsec = 1000000};
        nanosleep(&t, NULL);
    }
    return 0;
}
static void passed(struct mu_unit *u, int result)
{
    atomic_store(&gate.over, true);
}
/* What is submitted from now on waits behind it. */
static void shut(struct world *w)
{
    atomic_store(&gate.shut, true);
    atomic_store(&gate.over, false);
    gate.unit = (struct mu_unit){.run = wait_at, .done = passed, .loop = w->loop, .alone = true};
    assert_int_equal(mu_writer_submit(w->writer, &gate.unit), 0);
}
static bool is_over(void *arg)
{
    return atomic_load(&gate.over);
}
static void open_gate(void)
{
    atomic_store(&gate.shut, false);
    until(is_over, NULL, "the gate");
}

static struct peer *native(const char *name)
{
    struct peer *x = come(name, true);
    mu_fleet_attach(&x->peer);
    mu_fleet_tell(fleet, hello(x, 2));
    next(x, MU_ORDER_WELCOME);
    return x;
}

static void step_to(struct peer *p, const struct order *o, int state, int64_t seq)
{
    struct mu_report *r = report(p, MU_REPORT_STATE, o);
    r->execution = o->of.execution;
    r->state = state;
    r->seq = seq;
    mu_fleet_tell(fleet, r);
    run_for(W, 5);
}

static void what_was_decided_while_the_database_was_away_is_done(struct world *w)
{
    begin(w);
    struct peer *p = native("n1");
    struct mu_id id = create("x");
    struct order o = *next(p, MU_ORDER_ASSIGN);
    until_state(&id, 30);
    atomic_store(&writer_busy, true);
    step_to(p, &o, 40, 1); /* is not stored, and tried again */
    leave(p, NULL);
    struct peer *q = native("n1"); /* it knows of no task */
    atomic_store(&writer_busy, false);
    struct order *again = assigned(q);
    assert_string_equal(again->of.session.text, id.text);
    assert_int_equal(again->of.epoch, 3);
    finis();
}

static void what_became_running_meanwhile_is_never_given_out_again(struct world *w)
{
    begin(w);
    struct peer *p = native("n1");
    struct mu_id id = create("x");
    struct order o = *next(p, MU_ORDER_ASSIGN);
    step_to(p, &o, 40, 1);
    until_state(&id, 40);
    shut(w);
    step_to(p, &o, 60, 2);
    leave(p, NULL);
    struct peer *q = native("n1"); /* it lost the task: to be prepared anew, for all we know */
    open_gate();
    until_state(&id, 92);
    assert_int_equal(row_of(w, &id).end_reason, MU_END_RUNNER_LOST);
    assert_int_equal(next(q, MU_ORDER_ACK)->of.seq, 2);
    nothing(q);
    finis();
}

static void only_what_is_stored_is_acknowledged(struct world *w)
{
    begin(w);
    struct peer *p = native("n1");
    struct mu_id id = create("x");
    struct order o = *next(p, MU_ORDER_ASSIGN);
    step_to(p, &o, 40, 1);
    until_state(&id, 40);
    shut(w);
    step_to(p, &o, 60, 2);
    leave(p, NULL);
    struct peer *q = come("n1", true);
    mu_fleet_attach(&q->peer);
    struct mu_report *r = hello(q, 2);
    r->running = mu_arena_calloc(&r->arena, sizeof *r->running);
    r->running[0] = (struct mu_report_running){.of = o.of, .state = 60};
    r->n_running = 1;
    mu_fleet_tell(fleet, r);
    struct order *welcome = next(q, MU_ORDER_WELCOME);
    assert_int_equal(welcome->n_keep, 1);
    assert_true(welcome->acked < 2);
    step_to(q, &o, 60, 2); /* once more */
    nothing(q);
    open_gate();
    struct order *ack = next(q, MU_ORDER_ACK);
    assert_int_equal(ack->of.seq, 2);
    until_state(&id, 60);
    finis();
}

static void end_it(struct peer *p, const struct order *o, int64_t seq)
{
    struct mu_report *r = report(p, MU_REPORT_ENDED, o);
    r->execution = o->of.execution;
    r->has_exit_code = true;
    r->seq = seq;
    mu_fleet_tell(fleet, r);
    run_for(W, 5);
}

static void an_end_that_is_told_twice_is_acknowledged_when_it_is_stored(struct world *w)
{
    begin(w);
    struct peer *p = native("n1");
    struct mu_id id = create("x");
    struct order o = *next(p, MU_ORDER_ASSIGN);
    step_to(p, &o, 60, 1);
    until_state(&id, 60);
    assert_int_equal(next(p, MU_ORDER_ACK)->of.seq, 1);
    shut(w);
    end_it(p, &o, 2);
    end_it(p, &o, 2);
    nothing(p);
    open_gate();
    until_state(&id, 90);
    assert_int_equal(next(p, MU_ORDER_ACK)->of.seq, 2);
    finis();
}

static void an_end_that_comes_too_late_is_acknowledged_when_that_is_stored(struct world *w)
{
    begin(w);
    struct peer *p = native("n1");
    struct mu_id id = create("x");
    struct order o = *next(p, MU_ORDER_ASSIGN);
    until_state(&id, 30);
    shut(w);
    struct mu_report *r = report(p, MU_REPORT_REJECTED, &o);
    r->execution = o.of.execution;
    mu_fleet_tell(fleet, r); /* it is being put back */
    run_for(w, 5);
    end_it(p, &o, 2);
    nothing(p);
    open_gate();
    until_state(&id, 22);
    assert_int_equal(next(p, MU_ORDER_ACK)->of.seq, 2);
    finis();
}

static void an_end_of_what_the_sweeper_ended_is_acknowledged(struct world *w)
{
    begin(w);
    struct peer *p = native("n1");
    struct mu_id id = create("x");
    struct order o = *next(p, MU_ORDER_ASSIGN);
    step_to(p, &o, 60, 1);
    until_state(&id, 60);
    assert_int_equal(next(p, MU_ORDER_ACK)->of.seq, 1);
    shut(w);
    struct mu_report *r = report(p, MU_REPORT_LOG, &o);
    r->execution = o.of.execution;
    r->offset = 0;
    r->chunk = MU_B("its last words");
    mu_fleet_tell(fleet, r);
    struct mu_report *end =
        report(p, MU_REPORT_ENDED, &o); /* waits for what was said to be stored */
    end->execution = o.of.execution;
    end->seq = 2;
    mu_fleet_tell(fleet, end);
    run_for(w, 5);
    mu_fleet_expired(fleet, mu_id_bytes(&id));
    assert_int_equal(next(p, MU_ORDER_CANCEL)->of.epoch, 1);
    assert_int_equal(next(p, MU_ORDER_ACK)->of.seq, 2);
    open_gate();
    finis();
}

static void made_and_stopped(struct mu_session_create *op, int result)
{
    on_made(op, result);
    mu_fleet_cancelled(fleet, mu_id_bytes(&op->id));
}

/* The stop of somebody who read of it first is heard before the result of its creation. */
static void what_is_stopped_before_memory_knows_it_is_not_given_out(struct world *w)
{
    begin(w);
    made = new_run(&w->alice);
    made.route = MU_ROUTE_WORKER;
    made.idem_key = MU_B("key");
    made.unit.loop = w->loop;
    made.done = made_and_stopped;
    is_made = false;
    assert_int_equal(mu_fleet_create(fleet, &made), 0);
    until(was_made, NULL, "a session is made");
    run_for(w, 20);
    assert_int_equal(fleet->tasks.count, 0);
    nothing(connected("w1"));
    finis();
}

static void a_database_that_is_away_is_not_asked_in_circles(struct world *w)
{
    begin(w);
    made = new_run(&w->alice);
    made.route = MU_ROUTE_WORKER;
    made.needs = MU_NEED_CLAUDE;
    made.unit.loop = w->loop;
    made.done = on_made;
    is_made = false;
    assert_int_equal(mu_fleet_create(fleet, &made), 0);
    until(was_made, NULL, "a session is made");
    atomic_store(&writer_busy, true);
    atomic_store(&writer_refused, 0);
    struct peer *p = connected("w1"); /* it may have any harness */
    run_for(w, 300);
    assert_in_range(atomic_load(&writer_refused), 1, 10);
    atomic_store(&writer_busy, false);
    assert_string_equal(next(p, MU_ORDER_ASSIGN)->of.session.text, made.id.text);
    finis();
}

static bool is_forgotten(void *arg)
{
    return !mu_map_get(&fleet->tasks, mu_id_bytes(arg));
}

static void what_was_woken_while_it_goes_waits_for_that(struct world *w)
{
    begin(w);
    struct peer *p = native("n1");
    struct mu_id id = create("x");
    struct order o = *next(p, MU_ORDER_ASSIGN);
    const struct mu_live_row row = {.id = mu_id_bytes(&id),
                                    .org_id = mu_str(w->alice.org_id),
                                    .state = MU_ST_QUEUED_WORKER,
                                    .route = MU_ROUTE_WORKER,
                                    .epoch = o.of.epoch + 1};
    step_to(p, &o, 40, 1);
    until_state(&id, 40);
    shut(w);
    step_to(p, &o, 60, 2); /* is under way */
    assert_true(mu_fleet_knows(fleet, &id));
    mu_fleet_asleep(fleet, &o.of);
    assert_false(mu_fleet_knows(fleet, &id));
    assert_int_equal(mu_fleet_woken(fleet, &row), MU_E_BUSY);
    open_gate();
    until(is_forgotten, &id, "it is gone");
    assert_int_equal(mu_fleet_woken(fleet, &row), 0);
    assert_true(mu_fleet_knows(fleet, &id));
    finis();
}

/* --- room --- */

static void a_slot_is_free_again_without_memory_too(struct world *w)
{
    begin(w);
    fopts.default_capacity = 1;
    start_anew(w);
    struct peer *p = connected("w1");
    struct mu_id one = create("one"), two = create("two");
    struct order *o = next(p, MU_ORDER_ASSIGN);
    say(p, MU_REPORT_CLAIMED, o);
    until_state(&one, 60);
    mu_alloc_fail_at(1); /* that it is owed a stop cannot be noted */
    mu_fleet_expired(fleet, mu_id_bytes(&one));
    mu_alloc_fail_at(0);
    assert_string_equal(next(p, MU_ORDER_CANCEL)->of.session.text, one.text);
    assert_string_equal(next(p, MU_ORDER_ASSIGN)->of.session.text, two.text);
    finis();
}

static void know_many_workers(void)
{
    for (int i = 0; i < MU_FLEET_PINS_MAX; i++) {
        char name[24];
        struct mu_worker *x;
        snprintf(name, sizeof name, "known-%d", i);
        assert_int_equal(mu_worker_get(fleet, mu_str(name), &x), 0);
    }
}

static void ask_for(const char *worker, const char *key)
{
    made = new_run(&W->alice);
    made.route = MU_ROUTE_WORKER;
    made.pin_worker_id = mu_str(worker);
    made.idem_key = key ? mu_str(key) : MU_B_NONE;
    made.unit.loop = W->loop;
    made.done = on_made;
    is_made = false;
    assert_int_equal(mu_fleet_create(fleet, &made), 0);
    until(was_made, NULL, "a session is made");
}

static int load_queued(void *arg, const struct mu_live_row *row)
{
    return mu_fleet_load_queued(fleet, row);
}

static void names_that_only_runs_know_leave_room_for_workers(struct world *w)
{
    begin(w);
    know_many_workers();
    ask_for("nobody", NULL);
    assert_int_equal(made_result, MU_E_LIMIT);
    ask_for("somebody", "key"); /* it is stored before it is looked at */
    assert_int_equal(made_result, 0);
    struct mu_id id = made.id;
    run_for(w, 20);
    start_anew(w); /* also when the next start finds no room for it */
    know_many_workers();
    struct mu_db *db = NULL;
    struct mu_err err;
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = w->url}, &db, &err), 0);
    assert_int_equal(mu_sessions_each_live(db, load_queued, NULL), 0);
    mu_db_close(db);
    struct peer *other = connected("other"), *p = connected("somebody");
    assert_string_equal(next(p, MU_ORDER_ASSIGN)->of.session.text, id.text);
    nothing(other);
    finis();
}

IN_WORLD(a_slot_is_free_again_without_memory_too)
IN_WORLD(names_that_only_runs_know_leave_room_for_workers)
IN_WORLD(what_was_decided_while_the_database_was_away_is_done)
IN_WORLD(what_became_running_meanwhile_is_never_given_out_again)
IN_WORLD(only_what_is_stored_is_acknowledged)
IN_WORLD(an_end_that_is_told_twice_is_acknowledged_when_it_is_stored)
IN_WORLD(an_end_that_comes_too_late_is_acknowledged_when_that_is_stored)
IN_WORLD(an_end_of_what_the_sweeper_ended_is_acknowledged)
IN_WORLD(what_is_stopped_before_memory_knows_it_is_not_given_out)
IN_WORLD(a_database_that_is_away_is_not_asked_in_circles)
IN_WORLD(what_was_woken_while_it_goes_waits_for_that)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON(what_was_decided_while_the_database_was_away_is_done, 0),
        ON_BOTH(what_became_running_meanwhile_is_never_given_out_again),
        ON_BOTH(only_what_is_stored_is_acknowledged),
        ON_BOTH(an_end_that_is_told_twice_is_acknowledged_when_it_is_stored),
        ON_BOTH(an_end_that_comes_too_late_is_acknowledged_when_that_is_stored),
        ON(an_end_of_what_the_sweeper_ended_is_acknowledged, 0),
        ON(what_is_stopped_before_memory_knows_it_is_not_given_out, 0),
        ON(a_database_that_is_away_is_not_asked_in_circles, 0),
        ON(what_was_woken_while_it_goes_waits_for_that, 0),
        ON(a_slot_is_free_again_without_memory_too, 0),
        ON(names_that_only_runs_know_leave_room_for_workers, 0),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
