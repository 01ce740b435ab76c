/* The dispatcher: what a cancel, a stop and a crash do to its runs. */
#include "dispatch_world.h"

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
    TURN_UNTIL(last_created);
    TURN_UNTIL(one_is_on_its_way);
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

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
