/* A session that waits for long gives its worker back behind a checkpoint, and what people do wakes
 * it (app/live/sleeper.c, wake.c). */
#include "live_world.h"

#include "app/live/sleeper_int.h"

enum { SLEEP_MS = 400 };

/* An interactive session that has had nothing to do for long enough is asked. */
static const char *is_asked(struct world *w)
{
    static char request[40];
    live_begin_sleepy(w, SLEEP_MS);
    runs(INTERACTIVE, MU_MODE_INTERACTIVE);
    mu_sleeper_start(live_->sleeper);
    advance(w, SLEEP_MS + 10);
    const char *at = strstr(told("hibernate"), "\"requestId\":\"");
    assert_non_null(at);
    snprintf(request, sizeof request, "%.36s", at + strlen("\"requestId\":\""));
    return request;
}

static void keeps_a_checkpoint(void)
{
    says("\"type\":\"checkpoint\",\"number\":1,\"roots\":[],\"parts\":[]");
    has(told("checkpoint"), "\"number\":1,\"ok\":true");
}

static void may_go(const char *request)
{
    says("\"type\":\"hibernate\",\"requestId\":\"%s\",\"ok\":true,\"number\":1", request);
}

/* The next of that kind, whatever the runner is told meanwhile. */
static struct order *order_of(enum mu_order_kind kind)
{
    struct order *o;
    do {
        until(has_order, P, "an order");
        o = &P->orders[P->taken++ % ORDERS];
    } while (o->kind != kind);
    return o;
}

static int64_t live_attempts(void)
{
    return num(W, "SELECT count(*) FROM attempts WHERE ended_ms IS NULL AND session_id = '%s'",
               ID.text);
}

static void an_idle_one_is_put_down_and_a_prompt_wakes_it(struct world *w)
{
    const char *request = is_asked(w);
    keeps_a_checkpoint();
    assert_int_equal(row_of(W, &ID).state, MU_ST_RUNNING);
    may_go(request);
    assert_string_equal(order_of(MU_ORDER_CANCEL)->of.session.text, ID.text);
    assert_int_equal(row_of(W, &ID).state, MU_ST_HIBERNATED); /* before its worker is told */
    assert_int_equal(live_attempts(), 0);
    int64_t epoch = O->of.epoch;
    prompt("go on");
    until_state(&ID, MU_ST_QUEUED_WORKER);
    struct mu_report *r = report(P, MU_REPORT_ENDED, O); /* its place is free now */
    r->epoch = epoch;
    r->seq = 9;
    r->cancelled = true;
    mu_fleet_tell(fleet, r);
    O = order_of(MU_ORDER_ASSIGN);
    assert_string_equal(O->of.session.text, ID.text);
    assert_true(O->of.epoch > epoch);
    assert_int_equal(strlen(O->checkpoint), 36);
    live_end();
}

static void one_that_cannot_be_kept_goes_on(struct world *w)
{
    const char *request = is_asked(w);
    says("\"type\":\"hibernate\",\"requestId\":\"%s\",\"ok\":false,\"error\":\"no room\"", request);
    has(told("hibernate-cancel"), request);
    assert_int_equal(row_of(W, &ID).state, MU_ST_RUNNING);
    assert_int_equal(live_attempts(), 1);
    live_end();
}

static void the_word_of_another_request_does_not_count(struct world *w)
{
    const char *request = is_asked(w);
    keeps_a_checkpoint();
    may_go("11111111-1111-4111-8111-111111111111");
    acked(seq);
    assert_int_equal(row_of(W, &ID).state, MU_ST_RUNNING);
    may_go(request);
    until_state(&ID, MU_ST_HIBERNATED);
    live_end();
}

/* The row decides, in one unit: the prompt was there first. */
static void one_that_is_needed_by_then_stays(struct world *w)
{
    const char *request = is_asked(w);
    keeps_a_checkpoint();
    put_sql(W, "UPDATE sessions SET state = %d WHERE id = '%s'", MU_ST_WAITING, ID.text);
    may_go(request);
    has(told("hibernate-cancel"), request);
    assert_int_equal(row_of(W, &ID).state, MU_ST_WAITING);
    assert_int_equal(live_attempts(), 1);
    live_end();
}

/* It forgets what the old connection was asked. */
static void a_runner_that_comes_again_is_asked_again(struct world *w)
{
    const char *request = is_asked(w);
    says_hello("");
    (void)told("init");
    has(told("hibernate"), request);
    keeps_a_checkpoint();
    may_go(request);
    until_state(&ID, MU_ST_HIBERNATED);
    live_end();
}

static bool nobody_wakes(void *arg)
{
    return mu_list_empty(&live_->waking);
}

static void what_does_not_wait_for_a_worker_is_not_woken(struct world *w)
{
    live_begin(w);
    struct mu_id nobody = mu_id_random(&w->env);
    mu_live_woken(live_, &nobody);
    assert_false(nobody_wakes(NULL));
    until(nobody_wakes, NULL, "its row was looked for");
    runs(INTERACTIVE, MU_MODE_INTERACTIVE);
    mu_live_woken(live_, &ID); /* the fleet knows it */
    assert_true(nobody_wakes(NULL));
    mu_live_woken(live_, &nobody); /* the end comes before the answer */
    live_end();
}

IN_WORLD(an_idle_one_is_put_down_and_a_prompt_wakes_it)
IN_WORLD(one_that_cannot_be_kept_goes_on)
IN_WORLD(the_word_of_another_request_does_not_count)
IN_WORLD(one_that_is_needed_by_then_stays)
IN_WORLD(a_runner_that_comes_again_is_asked_again)
IN_WORLD(what_does_not_wait_for_a_worker_is_not_woken)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(an_idle_one_is_put_down_and_a_prompt_wakes_it),
        ON_BOTH(one_that_cannot_be_kept_goes_on),
        ON_BOTH(the_word_of_another_request_does_not_count),
        ON_BOTH(one_that_is_needed_by_then_stays),
        ON_BOTH(a_runner_that_comes_again_is_asked_again),
        ON_BOTH(what_does_not_wait_for_a_worker_is_not_woken),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
