/* The library as its hosts use it. */
#include "library_world.h"

static void one_life(void)
{
    mu_cp_result res;
    w.ask = true;
    assert_true(mu_cp_on(w.cp, MU_CP_ON_ALL, on_event, NULL) > 0);
    runner_open("r");
    create("fix it");
    wait_for("prompt fix it");
    state_comes("WAITING_FOR_APPROVAL");
    const mu_cp_list pending = {.session_id = str(w.session), .status = str("pending")};
    assert_int_equal(mu_cp_list_approvals(w.cp, &anna, &pending, &res), MU_CP_OK);
    assert_int_equal(res.n_approvals, 1);
    assert_true(is(res.approvals[0].action, "deploy"));
    assert_true(is(res.approvals[0].risk, "high"));
    assert_true(is(res.approvals[0].context, "{\"branch\":\"main\"}"));
    assert_non_null(strstr(res.approvals[0].approval_id.ptr, w.approval));
    mu_cp_result done, again;
    assert_int_equal(mu_cp_resolve_approval(w.cp, &anna, str(w.session),
                                            res.approvals[0].approval_id, 0, str("not today"), 0,
                                            &done),
                     MU_CP_OK);
    assert_int_equal(done.sessions[0].n_pending_approvals, 0);
    assert_int_equal(mu_cp_resolve_approval(w.cp, &anna, str(w.session),
                                            res.approvals[0].approval_id, 1, str(NULL), 0, &again),
                     MU_CP_APPROVAL_ALREADY_RESOLVED);
    assert_non_null(again.details.ptr);
    mu_cp_result_free(&again);
    mu_cp_result_free(&done);
    mu_cp_result_free(&res);
    wait_for("decided deny not today");
    wait_for("ended");
    state_is("COMPLETED", "finished");
    /* every event was told, in its order */
    unsigned at = 0;
    int64_t last = 0;
    assert_int_equal(mu_cp_get_events(w.cp, &anna, str(w.session), 0, 100, &res), MU_CP_OK);
    assert_true(res.n_events > 8);
    for (size_t i = 0; i < res.n_events; i++) {
        char line[TEXT];
        snprintf(line, sizeof line, "%lld %.*s", (long long)res.events[i].seq,
                 ARGS(res.events[i].type));
        while (at < w.n && strcmp(w.log[at], line) != 0) {
            at++;
        }
        assert_true(at < w.n);
        assert_int_equal(res.events[i].seq, last + 1);
        last++;
    }
    mu_cp_result_free(&res);
}

static void a_session_asks_is_decided_and_ends(void **state)
{
    each(one_life);
}

static void refusals(void)
{
    mu_cp_result res;
    create("a");
    assert_int_equal(mu_cp_get_session(w.cp, &eve, str(w.session), &res), MU_CP_SESSION_NOT_FOUND);
    assert_int_equal(res.http_status, 404);
    mu_cp_result_free(&res);
    assert_int_equal(create_as(&guest, "b", &res), MU_CP_FORBIDDEN);
    mu_cp_result_free(&res);
    assert_int_equal(mu_cp_get_session(w.cp, &guest, str(w.session), &res), MU_CP_OK);
    mu_cp_result_free(&res);
    const mu_cp_create bad = {.provider_id = str("codex"), .repo_url = str("nonsense")};
    assert_int_equal(mu_cp_create_session(w.cp, &anna, &bad, &res), MU_CP_VALIDATION_ERROR);
    assert_non_null(strstr(res.details.ptr, "\"path\":\"repo.url\""));
    assert_non_null(strstr(res.envelope.ptr, "\"success\":false"));
    mu_cp_result_free(&res);
    const mu_cp_create sly = {.provider_id = str("codex"),
                              .repo_url = str("https://e.org/a.git"),
                              .options = str("{\"a\\\":1,\\\"model\":\"x\"}")};
    assert_int_equal(mu_cp_create_session(w.cp, &anna, &sly, &res), MU_CP_VALIDATION_ERROR);
    assert_non_null(strstr(res.envelope.ptr, "model"));
    mu_cp_result_free(&res);
    const mu_cp_create odd = {.provider_id = str("cobol"), .repo_url = str("https://e.org/a.git")};
    assert_int_equal(mu_cp_create_session(w.cp, &anna, &odd, &res), MU_CP_INVALID_PROVIDER);
    mu_cp_result_free(&res);
    const mu_cp_ask ask = {.action = str("merge"), .description = str("d")};
    assert_int_equal(mu_cp_request_approval(w.cp, &anna, str(w.session), &ask, &res),
                     MU_CP_INVALID_STATE);
    mu_cp_result_free(&res);
    assert_int_equal(mu_cp_stop_session(w.cp, &anna, str(w.session), str("enough"), 1, &res),
                     MU_CP_OK);
    mu_cp_result_free(&res);
    state_is("COMPLETED", "stopped");
    assert_int_equal(mu_cp_stop_session(w.cp, &anna, str(w.session), str(NULL), 1, &res),
                     MU_CP_SESSION_ALREADY_STOPPED);
    mu_cp_result_free(&res);
}

static void what_is_wrong_is_refused_with_the_codes_of_the_api(void **state)
{
    each(refusals);
}

static void in_json(void)
{
    static const struct {
        const char *op, *json;
        mu_cp_status status;
    } cases[] = {
        {"createsession", "{}", MU_CP_NOT_FOUND},
        {"streamSessionEvents", "{\"sessionId\":\"ses_1\"}", MU_CP_NOT_FOUND},
        {"getSession", "{}", MU_CP_VALIDATION_ERROR},
        {"getSession", "[]", MU_CP_VALIDATION_ERROR},
        {"getSession", "{", MU_CP_VALIDATION_ERROR},
        {"getSession", "{\"sessionId\":\"\"}", MU_CP_VALIDATION_ERROR},
        {"getSession", "{\"sessionId\":{}}", MU_CP_VALIDATION_ERROR},
        {"getSession", "{\"sessionId\":\"../orgs/me\"}", MU_CP_VALIDATION_ERROR},
        {"getSession", "{\"sessionId\":\"ses_none\"}", MU_CP_SESSION_NOT_FOUND},
        {"listSessions", "{\"pageSize\":101}", MU_CP_VALIDATION_ERROR},
        {"listSessions", "{\"pageSize\":2,\"state\":\"RUNNING\"}", MU_CP_OK},
        {"createSession", "{\"providerId\":\"codex\",\"surplus\":1}", MU_CP_VALIDATION_ERROR},
        {"createSession", "{\"idempotencyKey\":\"a\\nb\"}", MU_CP_VALIDATION_ERROR},
        {"getOwnOrg", "", MU_CP_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mu_cp_result res;
        mu_cp_status got = mu_cp_call(w.cp, &anna, cases[i].op, str(cases[i].json), &res);
        if (got != cases[i].status || !res.envelope.len) {
            fail_msg("%s %s: %s: %.*s", cases[i].op, cases[i].json, mu_cp_status_name(got),
                     ARGS(res.envelope));
        }
        mu_cp_result_free(&res);
    }
    static const char one[] =
        "{\"orgId\":\"acme\",\"providerId\":\"codex\",\"repo\":{\"url\":\"https://e.org/a.git\"},"
        "\"task\":\"%s\",\"idempotencyKey\":\"k\",\"requestId\":\"req-7\"}";
    char json[300], id[48];
    mu_cp_result res;
    snprintf(json, sizeof json, one, "x");
    assert_int_equal(mu_cp_call(w.cp, &anna, "createSession", str(json), &res), MU_CP_OK);
    assert_int_equal(res.http_status, 201);
    assert_non_null(strstr(res.envelope.ptr, "\"requestId\":\"req-7\""));
    snprintf(id, sizeof id, "%.40s", strstr(res.data.ptr, "ses_"));
    mu_cp_result_free(&res);
    assert_int_equal(mu_cp_call(w.cp, &anna, "createSession", str(json), &res), MU_CP_OK);
    assert_non_null(strstr(res.data.ptr, id));
    mu_cp_result_free(&res);
    snprintf(json, sizeof json, one, "y");
    assert_int_equal(mu_cp_call(w.cp, &anna, "createSession", str(json), &res),
                     MU_CP_IDEMPOTENCY_CONFLICT);
    mu_cp_result_free(&res);
}

static void operations_are_called_by_name_with_one_object(void **state)
{
    each(in_json);
}

static void every_operation_has_a_name_and_a_sentence(void **state)
{
    static const char *const must[] = {
        "createSession",   "getSession",    "listSessions",   "stopSession",      "pauseSession",
        "resumeSession",   "sendInput",     "resizeTerminal", "getSessionEvents", "requestApproval",
        "resolveApproval", "listApprovals", "getTerminal",    "getDiff",          "getArtifacts"};
    for (size_t k = 0; k < sizeof must / sizeof must[0]; k++) {
        const char *name, *words = NULL;
        bool found = false;
        for (size_t i = 0; (name = mu_cp_operation(i, &words)) != NULL; i++) {
            assert_true(words && words[0]);
            found = found || strcmp(name, must[k]) == 0;
        }
        assert_true(found);
    }
}

static void answers_later(void)
{
    mu_cp_submit(w.cp, &anna, "listSessions", str("{}"), on_done, NULL);
    mu_cp_submit(w.cp, &anna, "getSession", str("{}"), on_done, NULL);
    wait_for("done OK");
    wait_for("done VALIDATION_ERROR");
    mu_cp_submit(w.cp, &anna, "listSessions", str("{\"page\":2}"), on_done, NULL);
}

static void answers_come_also_without_waiting(void **state)
{
    each(answers_later);
}

static unsigned numbers[2];

static void on_once(mu_cp *cp, const mu_cp_event *e, void *user)
{
    mu_cp_result res;
    note("once");
    mu_cp_off(cp, numbers[0]);
    assert_int_equal(mu_cp_get_session(cp, &anna, e->subject_id, &res), MU_CP_OK);
    mu_cp_result_free(&res);
}

static void calls_back(void)
{
    numbers[0] = mu_cp_on(w.cp, MU_CP_ON_SESSION, on_once, NULL);
    numbers[1] = mu_cp_on(w.cp, MU_CP_ON_SESSION, on_event, NULL);
    create("a");
    wait_for("1 SESSION_CREATED");
    create("b");
    create("c");
    step();
    mu_cp_off(w.cp, numbers[1]);
    mu_cp_off(w.cp, 77);
    unsigned once = 0;
    for (unsigned i = 0; i < w.n; i++) {
        once += strcmp(w.log[i], "once") == 0;
    }
    assert_int_equal(once, 1);
}

static void a_callback_may_call_the_library_and_take_itself_off(void **state)
{
    each(calls_back);
}

static void time_is_what_the_host_says(void **state)
{
    for (size_t i = 0; i < 2; i++) {
        world_begin(&kinds[2 * i + 1], NULL);
        create("nobody takes it");
        int64_t due = mu_cp_tick(w.cp, w.now_ms);
        assert_true(due > w.now_ms && due <= w.now_ms + 1000);
        w.now_ms += 59 * MINUTE;
        mu_cp_tick(w.cp, w.now_ms);
        state_is("QUEUED", NULL);
        w.now_ms += 2 * MINUTE;
        mu_cp_tick(w.cp, w.now_ms);
        for (int s = 0; s < 5; s++) { /* the sweeps take turns */
            w.now_ms += 1000;
            mu_cp_tick(w.cp, w.now_ms);
        }
        state_is("TIMED_OUT", "queue_timeout");
        /* an approval that nobody gives is denied */
        w.ask = true;
        runner_open("r");
        create("ask");
        wait_for("prompt ask");
        state_comes("WAITING_FOR_APPROVAL");
        for (int m = 0; m < 31; m++) {
            w.now_ms += MINUTE;
            mu_cp_tick(w.cp, w.now_ms);
        }
        wait_for("decided deny nobody answered in time");
        world_end();
    }
}

static void silent_message(mu_cp_runner *r, mu_cp_str session, mu_cp_str json, void *user)
{
}

static void an_answer_that_needs_time_is_pending(void **state)
{
    world_begin(&kinds[1], NULL);
    mu_cp_runner_ops mute = ops;
    mute.message = silent_message;
    const mu_cp_runner_config c = {.size = sizeof c, .name = str("m")};
    mu_cp_result res;
    assert_int_equal(mu_cp_runner_open(w.cp, &c, &mute, NULL, &w.runner), MU_CP_OK);
    create("a");
    wait_for("prompt a");
    state_comes("RUNNING");
    char json[100];
    snprintf(json, sizeof json, "{\"sessionId\":\"%s\"}", w.session);
    assert_int_equal(mu_cp_call(w.cp, &anna, "openTerminal", str(json), &res), MU_CP_PENDING);
    mu_cp_result_free(&res);
    mu_cp_submit(w.cp, &anna, "openTerminal", str(json), on_done, NULL);
    w.now_ms += 6000;
    mu_cp_tick(w.cp, w.now_ms);
    wait_for("done RUNNER_UNREACHABLE");
    world_end();
}

static void what_was_stored_is_there_after_a_restart(void **state)
{
    for (size_t i = 2u + driven; i < 4; i += 2) {
        mu_cp_result res;
        world_begin(&kinds[i], NULL);
        create("keep me");
        mu_cp *other;
        char why[300];
        assert_int_equal(mu_cp_open(NULL, w.folder, &other, why, sizeof why), MU_CP_UNAVAILABLE);
        assert_true(why[0] != 0);
        mu_cp_close(w.cp);
        open_world(NULL);
        state_is("QUEUED", NULL);
        runner_open("r");
        wait_for("prompt keep me");
        mu_cp_close(w.cp); /* with a runner and a session that runs */
        open_world(NULL);
        const mu_cp_list all = {.page_size = 5};
        assert_int_equal(mu_cp_list_sessions(w.cp, &anna, &all, &res), MU_CP_OK);
        assert_int_equal(res.n_sessions, 1);
        assert_int_equal(res.total, 1);
        mu_cp_result_free(&res);
        world_end();
    }
}

static void on_slow(mu_cp *cp, const mu_cp_event *e, void *user)
{
    mu_cp_result res;
    nanosleep(&(struct timespec){0, 10000000}, NULL);
    mu_cp_status got = mu_cp_get_session(cp, &anna, e->subject_id, &res);
    assert_true(got == MU_CP_OK || got == MU_CP_SHUTTING_DOWN);
    assert_true(res.envelope.len > 0);
    mu_cp_result_free(&res);
    mu_cp_tick(cp, w.now_ms);
    mu_cp_submit(cp, &anna, "getOwnOrg", str(NULL), on_done, NULL);
    assert_int_equal(mu_cp_runner_accept(w.runner, str("ses_none")), MU_CP_SESSION_NOT_FOUND);
    note("slow");
}

static void beside(void)
{
    mu_cp *other;
    mu_cp_result res;
    create("here");
    assert_int_equal(mu_cp_open(NULL, ":memory:", &other, NULL, 0), MU_CP_OK);
    assert_int_equal(mu_cp_get_session(other, &anna, str(w.session), &res),
                     MU_CP_SESSION_NOT_FOUND);
    mu_cp_result_free(&res);
    mu_cp_close(other);
    state_is("QUEUED", NULL);
}

static void handles_live_side_by_side(void **state)
{
    each(beside);
}

enum { TOGETHER = 4, EACH = 6 };

/* One of several callers at once, each with its own org. */
static void *busy(void *arg)
{
    char org[16];
    snprintf(org, sizeof org, "org-%d", (int)(intptr_t)arg);
    const mu_cp_caller who = {str(org), str("u"), MU_CP_OPERATOR};
    for (int i = 0; i < EACH; i++) {
        mu_cp_result made, res;
        mu_cp_status got = create_as(&who, "t", &made);
        if (got == MU_CP_OK) {
            unsigned number = mu_cp_on(w.cp, MU_CP_ON_ALL, on_event, NULL);
            got = mu_cp_stop_session(w.cp, &who, made.sessions[0].session_id, str(NULL), 1, &res);
            mu_cp_result_free(&res);
            mu_cp_off(w.cp, number);
        }
        mu_cp_result_free(&made);
        if (got != MU_CP_OK) {
            note("refused %s", mu_cp_status_name(got));
            return arg;
        }
    }
    return NULL;
}

static void together(void)
{
    pthread_t threads[TOGETHER];
    void *refused, *any = NULL;
    runner_open("r");
    for (intptr_t i = 0; i < TOGETHER; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, busy, (void *)(i + 1)), 0);
    }
    for (size_t i = 0; i < TOGETHER; i++) {
        pthread_join(threads[i], &refused);
        any = refused ? refused : any;
    }
    for (unsigned i = 0; any && i < w.n; i++) {
        print_message("heard: %s\n", w.log[i]);
    }
    assert_null(any);
    mu_cp_result res;
    assert_int_equal(mu_cp_list_sessions(w.cp, NULL, NULL, &res), MU_CP_OK);
    assert_int_equal(res.total, TOGETHER * EACH);
    mu_cp_result_free(&res);
}

static void many_threads_may_call_at_once(void **state)
{
    each(together);
}

static void told_late(void)
{
    runner_open("r");
    assert_true(mu_cp_on(w.cp, MU_CP_ON_SESSION, on_slow, NULL) > 0);
    w.refuse = true;
    for (int i = 0; i < 5; i++) {
        create("a");
    }
    mu_cp_close(w.cp); /* while callbacks wait, and call the library when it is gone */
    unsigned slow = 0, done = 0;
    for (unsigned i = 0; i < w.n; i++) {
        slow += strcmp(w.log[i], "slow") == 0;
        done += strncmp(w.log[i], "done", 4) == 0;
    }
    assert_true(slow >= 5);
    assert_int_equal(done, slow);
    open_world(NULL);
}

static void callbacks_that_wait_are_told_when_it_is_closed(void **state)
{
    each(told_late);
}

static void what_waits_for_answers_has_a_maximum(void **state)
{
    world_begin(&kinds[1], NULL);
    for (unsigned i = 0; i < 4096; i++) {
        mu_cp_submit(w.cp, &anna, "getOwnOrg", str(NULL), on_done, NULL);
    }
    assert_false(heard("done UNAVAILABLE"));
    mu_cp_submit(w.cp, &anna, "getOwnOrg", str(NULL), on_done, NULL);
    assert_true(heard("done UNAVAILABLE"));
    mu_cp_tick(w.cp, w.now_ms);
    w.n = 0;
    mu_cp_submit(w.cp, &anna, "getOwnOrg", str(NULL), on_done, NULL);
    wait_for("done OK");
    world_end();
}

static void settings_out_of_range_are_refused_in_words(void **state)
{
    mu_cp *cp;
    mu_cp_config c;
    char why[300] = "";
    mu_cp_config_init(&c);
    c.max_timeout_minutes = INT64_MAX;
    assert_int_equal(mu_cp_open(&c, ":memory:", &cp, why, sizeof why), MU_CP_VALIDATION_ERROR);
    assert_non_null(strstr(why, "max_timeout_minutes"));
}

static void a_storage_that_cannot_be_is_refused_in_words(void **state)
{
    mu_cp *cp;
    char why[300] = "";
    assert_int_equal(mu_cp_open(NULL, "/proc/nothing/here", &cp, why, sizeof why),
                     MU_CP_UNAVAILABLE);
    assert_non_null(strstr(why, "/proc/nothing/here"));
    assert_int_equal(mu_cp_open(NULL, "postgres://localhost/x", &cp, why, sizeof why),
                     MU_CP_VALIDATION_ERROR);
    mu_cp_config c;
    mu_cp_config_init(&c);
    c.key = str("short");
    assert_int_equal(mu_cp_open(&c, ":memory:", &cp, NULL, 0), MU_CP_VALIDATION_ERROR);
    char key[4098];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    c.key = str(key);
    assert_int_equal(mu_cp_open(&c, ":memory:", &cp, why, sizeof why), MU_CP_VALIDATION_ERROR);
    assert_non_null(strstr(why, "longer than 4096"));
    key[4096] = '\0';
    c.key = str(key);
    assert_int_equal(mu_cp_open(&c, ":memory:", &cp, why, sizeof why), MU_CP_OK);
    mu_cp_close(cp);
    mu_cp_close(NULL);
    mu_cp_runner_close(NULL);
    mu_cp_result_free(NULL);
}

static void codes_have_their_names(void **state)
{
    assert_string_equal(mu_cp_status_name(MU_CP_OK), "OK");
    assert_string_equal(mu_cp_status_name(MU_CP_SESSION_ALREADY_STOPPED),
                        "SESSION_ALREADY_STOPPED");
    assert_string_equal(mu_cp_status_name((mu_cp_status)9999), "OTHER");
}

int main(void)
{
    const struct CMUnitTest always[] = {
        cmocka_unit_test(a_session_asks_is_decided_and_ends),
        cmocka_unit_test(what_is_wrong_is_refused_with_the_codes_of_the_api),
        cmocka_unit_test(operations_are_called_by_name_with_one_object),
        cmocka_unit_test(answers_come_also_without_waiting),
        cmocka_unit_test(a_callback_may_call_the_library_and_take_itself_off),
        cmocka_unit_test(what_was_stored_is_there_after_a_restart),
        cmocka_unit_test(callbacks_that_wait_are_told_when_it_is_closed),
        cmocka_unit_test(many_threads_may_call_at_once),
        cmocka_unit_test(handles_live_side_by_side),
    };
    const struct CMUnitTest once[] = {
        cmocka_unit_test(time_is_what_the_host_says),
        cmocka_unit_test(an_answer_that_needs_time_is_pending),
        cmocka_unit_test(every_operation_has_a_name_and_a_sentence),
        cmocka_unit_test(what_waits_for_answers_has_a_maximum),
        cmocka_unit_test(settings_out_of_range_are_refused_in_words),
        cmocka_unit_test(a_storage_that_cannot_be_is_refused_in_words),
        cmocka_unit_test(codes_have_their_names),
    };
    int failed = cmocka_run_group_tests_name("threads", always, NULL, NULL);
    driven = true;
    failed += cmocka_run_group_tests_name("driven", always, NULL, NULL);
    return failed + cmocka_run_group_tests_name("driven, once", once, NULL, NULL);
}
