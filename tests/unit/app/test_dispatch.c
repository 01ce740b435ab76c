/* The dispatcher: who is started when, over which providers, and who waits. */
#include "dispatch_world.h"

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

/* --- the waiting --- */

static void a_reload_that_leaves_no_candidate_ends_the_waiting(void **state)
{
    (void)state;
    static const struct mu_provider_list none;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    w.settings.queue_on_saturation = true;
    go();
    struct asked *a = create("one", "x");
    end_fetch(nth_fetch(1), MU_FETCH_OK, 429, 50000);
    UNTIL(one_waits);
    assert_int_equal(mu_providers_reload(w.p, &none, &w.settings), 0);
    mu_dispatch_reload(dispatch, &w.settings);
    struct row r = ended(a);
    assert_string_equal(r.code, "config");
    assert_has(r.provider, "\"attempts\":[{\"key\":\"custom\",\"class\":\"rate_limited\"");
}

static bool ten_wait(void)
{
    return dispatch->n_waiting == 10;
}

/* Who has the same candidates under the same quotas finds no more room than the one before. */
static void one_of_a_group_is_tried_for_all(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    w.settings.queue_on_saturation = true;
    go();
    create("one", "x");
    end_fetch(nth_fetch(1), MU_FETCH_OK, 429, 50000);
    UNTIL(one_waits);
    for (int i = 1; i < 10; i++) {
        create("one", "x");
    }
    UNTIL(ten_wait);
    run_for(&w, 50);
    (void)mu_alloc_fail_at(1000000); /* counts */
    mu_providers_capacity(w.p);
    run_for(&w, 50);
    assert_in_range(mu_alloc_fail_at(0), 1, 5); /* each try takes its own memory */
    w.now_ms += 50001;
    mu_providers_capacity(w.p);
    for (unsigned i = 2; i <= 11; i++) {
        answer(nth_fetch(i));
    }
    UNTIL(all_gone);
}

static bool two_wait(void)
{
    return dispatch->n_waiting == 2;
}
static bool three_wait(void)
{
    return dispatch->n_waiting == 3;
}

/* Each waits by a clock of its own; that a younger one's is ahead by a moment decides nothing. */
static void the_oldest_of_a_group_goes_first_whosever_time_has_come(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    w.settings.queue_on_saturation = true;
    dopts.concurrency = 1;
    go();
    struct asked *oldest = create("one", "x");
    end_fetch(nth_fetch(1), MU_FETCH_OK, 429, 50000);
    UNTIL(one_waits);
    create("one", "x");
    create("one", "x");
    UNTIL(three_wait);
    w.now_ms += 50001;
    MU_LIST_EACH(it, tmp, &dispatch->waiting)
    {
        bool youngest = it->next == &dispatch->waiting;
        struct mu_run *run = MU_CONTAINER(it, struct mu_run, link);
        run->wake_ms = w.now_ms + (youngest ? -1 : 1000);
        run->look_no = dispatch->look_no;
    }
    mu_dispatch_pump(dispatch);
    struct mu_fetch *second = nth_fetch(2);
    assert_int_equal(dispatch->n_active, 1);
    assert_string_equal(MU_CONTAINER(dispatch->active.next, struct mu_run, link)->id.text,
                        oldest->op.id.text);
    answer(second);
    w.now_ms += 1001;
    answer(nth_fetch(3));
    answer(nth_fetch(4));
    UNTIL(all_gone);
}

static struct mu_run *run_of(const struct asked *a)
{
    return mu_map_get(&dispatch->runs, mu_str(a->op.id.text));
}

static void nobody_passes_one_that_is_being_noted_as_waiting(void **state)
{
    (void)state;
    struct mu_provider_conf *c = add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    c->msg_limit = 1;
    c->window_seconds = WINDOW_S;
    w.settings.queue_on_saturation = true;
    go();
    create("one", "p0");
    answer(nth_fetch(1));
    struct mu_run *elder = run_of(create("one", "p1"));
    UNTIL(one_waits);
    struct mu_run *younger = run_of(create("one", "p2"));
    UNTIL(two_wait);
    elder->shown_ms = 0;
    assert_false(mu_run_try(elder, w.now_ms));
    assert_int_equal(elder->phase, MU_RUN_CLAIMING); /* its row is being written */
    w.now_ms += WINDOW_S * 1000 + 10;
    assert_false(mu_run_try(younger, w.now_ms));
    assert_int_equal(younger->phase, MU_RUN_WAITING);
    for (unsigned i = 1; i < 3; i++) {
        struct mu_fetch *x = nth_fetch(i + 1);
        assert_has(x->body, i == 1 ? "\"p1\"" : "\"p2\"");
        answer(x);
        w.now_ms += WINDOW_S * 1000 + 10;
    }
    UNTIL(all_gone);
}

static bool none_active(void)
{
    return dispatch->n_active == 0;
}

static void what_becomes_free_on_the_way_to_waiting_is_seen(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    w.settings.queue_on_saturation = true;
    go();
    struct asked *a = prepare("one", "x");
    struct mu_provider *pr = provider(&w, "custom");
    mu_provider_note_full(pr, a->who.org_id, w.now_ms + 60000);
    assert_int_equal(mu_dispatch_create(dispatch, &a->op), 0);
    TURN_UNTIL(one_is_on_its_way);
    mu_provider_note_free(pr, a->who.org_id, 0); /* while the row is told that it waits */
    answer(nth_fetch(1));
    assert_int_equal(ended(a).outcome, MU_OUT_FINISHED);
    UNTIL(none_active);
}

/* --- memory, size --- */

static void an_answer_above_the_limit_keeps_both_ends(void **state)
{
    (void)state;
    static struct mu_exec x;
    const size_t len = 9 << 20;
    char *text = malloc(len);
    memset(text, 'm', len);
    text[0] = 'a';
    text[len - 1] = 'z';
    mu_clip_init(&x.out, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
    mu_buf_init(&x.final, MU_OUTPUT_MAX + 4096);
    mu_exec_keep(&x, mu_bytes_of(text, len));
    assert_int_equal(x.final.failed, 0);
    assert_int_equal(x.final.len, MU_OUTPUT_MAX);
    assert_int_equal(x.final_bytes, len);
    assert_int_equal(x.final.ptr[0], 'a');
    assert_int_equal(x.final.ptr[MU_OUTPUT_MAX - 1], 'z');
    mu_buf_fini(&x.final);
    free(text);
}

static bool nothing_left(void)
{
    w.now_ms += 2; /* what is tried again in half a second waits for this clock */
    for (unsigned i = 0; i < MAX_FETCHES; i++) {
        struct mu_fetch *x = &w.fetches[i];
        if (x->live) {
            bool broke = feed(x, 200, OPENAI_ANSWER("done")) < 0 || x->abort_asked;
            end_fetch(x, broke ? MU_FETCH_ABORTED : MU_FETCH_OK, 200, -1);
        }
    }
    return dispatch->runs.count == 0 && dispatch->n_waiting == 0 && dispatch->n_active == 0;
}

/* The n-th allocation of anything in the process fails: what was acknowledged comes to an end. */
static void no_allocation_failure_loses_a_run(void **state)
{
    (void)state;
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    add_conf(&w, "second", MU_PROVIDER_OPENAI);
    w.settings.fallback_order = "second";
    go();
    create("one", "warm");
    UNTIL(nothing_left);
    long n = 1, made = 0;
    for (; made >= n - 1; n++) {
        w.now_ms += 60000; /* no breaker remembers the round before */
        n_runs = 0;
        memset(&runs[0], 0, sizeof runs[0]);
        struct asked *a = prepare("one", "hello");
        (void)mu_alloc_fail_at(n);
        bool taken = mu_dispatch_create(dispatch, &a->op) == 0;
        if (taken) {
            UNTIL(last_created);
            run_for(&w, 0);
            UNTIL(nothing_left);
        }
        made = mu_alloc_fail_at(0);
        if (taken && a->created == 0) {
            assert_int_not_equal(look(a).outcome, MU_OUT_LIVE);
        }
    }
    assert_int_equal(look(&runs[0]).outcome, MU_OUT_FINISHED);
    assert_true(n > 10);
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
        T(a_reload_that_leaves_no_candidate_ends_the_waiting),
        T(one_of_a_group_is_tried_for_all),
        T(the_oldest_of_a_group_goes_first_whosever_time_has_come),
        T(nobody_passes_one_that_is_being_noted_as_waiting),
        T(what_becomes_free_on_the_way_to_waiting_is_seen),
        T(an_answer_above_the_limit_keeps_both_ends),
        T(no_allocation_failure_loses_a_run),
        T(no_candidate_is_said_in_words),
        T(programs_wait_for_a_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
