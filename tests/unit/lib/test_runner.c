/* The runners of a host: what they are told, and what they say. */
#include "library_world.h"

static void steering(void)
{
    mu_cp_result res;
    assert_true(mu_cp_on(w.cp, MU_CP_ON_SESSION | MU_CP_ON_TERMINAL, on_event, NULL) > 0);
    runner_open("r");
    create("work");
    wait_for("prompt work");
    state_comes("RUNNING");
    assert_int_equal(mu_cp_send_input(w.cp, &anna, str(w.session), 0, str("ls"), 1, &res),
                     MU_CP_OK);
    assert_int_equal(res.http_status, 202);
    mu_cp_result_free(&res);
    wait_for("input 0 ls line");
    assert_int_equal(mu_cp_resize_terminal(w.cp, &anna, str(w.session), 0, 100, 30, &res),
                     MU_CP_OK);
    mu_cp_result_free(&res);
    wait_for("resize 0 100x30");
    assert_int_equal(mu_cp_runner_terminal(w.runner, str(w.session), 0, str("hello\r\n")),
                     MU_CP_OK);
    wait_for("0 TERMINAL");
    char json[100];
    snprintf(json, sizeof json, "{\"sessionId\":\"%s\"}", w.session);
    assert_int_equal(mu_cp_call(w.cp, &anna, "getTerminal", str(json), &res), MU_CP_OK);
    assert_true(is(res.data, "hello\r\n"));
    mu_cp_result_free(&res);
    assert_int_equal(mu_cp_call(w.cp, &anna, "getDiff", str(json), &res), MU_CP_OK);
    assert_non_null(strstr(res.data.ptr, "\"path\":\"a\""));
    mu_cp_result_free(&res);
    assert_int_equal(mu_cp_pause_session(w.cp, &anna, str(w.session), &res), MU_CP_OK);
    mu_cp_result_free(&res);
    assert_true(heard("pause"));
    state_is("PAUSED_BY_HUMAN", NULL);
    assert_int_equal(mu_cp_resume_session(w.cp, &anna, str(w.session), &res), MU_CP_OK);
    mu_cp_result_free(&res);
    assert_true(heard("go on"));
    assert_int_equal(mu_cp_stop_session(w.cp, &anna, str(w.session), str(NULL), 1, &res), MU_CP_OK);
    mu_cp_result_free(&res);
    wait_for("stop");
    wait_for("ended");
    state_is("COMPLETED", "stopped");
    mu_cp_status status = MU_CP_OK;
    for (int i = 0; i < 5000 && status == MU_CP_OK; i++) { /* until the runner hears of it, too */
        step();
        status = mu_cp_runner_accept(w.runner, str(w.session));
    }
    assert_int_equal(status, MU_CP_SESSION_NOT_FOUND);
}

static void people_steer_what_the_host_runs(void **state)
{
    each(steering);
}

/* What the protocol does not number, and what is none of it, makes no hole for what follows. */
static void said_by_the_agent(void)
{
    static const char *const never[] = {"",
                                        "[]",
                                        "{}",
                                        "{\"type\":\"hello\"}",
                                        "{\"type\":\"ping\"}",
                                        "{\"type\":\"error\",\"seq\":1}",
                                        "{\"type\":\"error\"} {}"};
    char deep[400] = "", stream[200];
    const mu_cp_ask ask = {.action = str("shell"), .description = str("\xff")};
    char id[37];
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        assert_int_equal(mu_cp_runner_say(w.runner, str(w.session), str(never[i])),
                         MU_CP_VALIDATION_ERROR);
    }
    for (size_t i = 0; i < 50; i++) { /* the server reads 64, and it is a member of a member */
        memcpy(deep + 5 * i, "{\"a\":", 5);
        deep[252 + i] = '}';
    }
    memcpy(deep + 250, "{}", 2);
    assert_int_equal(mu_cp_runner_event(w.runner, str(w.session), "USAGE_TICK", str(deep)),
                     MU_CP_VALIDATION_ERROR);
    assert_int_equal(
        mu_cp_runner_words(w.runner, str(w.session), str(w.turn), (mu_cp_str){"\xc3(", 2}),
        MU_CP_VALIDATION_ERROR);
    assert_int_equal(mu_cp_runner_ask(w.runner, str(w.session), str(w.turn), &ask, id),
                     MU_CP_VALIDATION_ERROR);
    snprintf(stream, sizeof stream,
             "{\"type\":\"stream\",\"turnId\":\"%s\",\"kind\":\"text\",\"offset\":0,"
             "\"content\":\"he\"}",
             w.turn);
    assert_int_equal(mu_cp_runner_say(w.runner, str(w.session), str(stream)), MU_CP_OK);
    wait_for("0 TEXT");
    assert_int_equal(
        mu_cp_runner_event(w.runner, str(w.session), "GIT_COMMIT", str("{\"commit\":\"c\"}")),
        MU_CP_OK);
    for (int i = 0; i < 5000 && !heard_end("GIT_COMMIT"); i++) {
        step();
    }
    assert_true(heard_end("GIT_COMMIT"));
}

static void turns(void)
{
    mu_cp_result res;
    assert_true(mu_cp_on(w.cp, MU_CP_ON_ALL, on_event, NULL) > 0);
    runner_open("r");
    const mu_cp_create q = {.provider_id = str("codex"),
                            .repo_url = str("https://example.org/a.git"),
                            .mode = str("interactive"),
                            .options = str("{\"timeoutMinutes\":7}")};
    assert_int_equal(mu_cp_create_session(w.cp, &anna, &q, &res), MU_CP_OK);
    assert_true(is(res.sessions[0].mode, "interactive"));
    snprintf(w.session, sizeof w.session, "%.*s", ARGS(res.sessions[0].session_id));
    mu_cp_result_free(&res);
    state_comes("RUNNING");
    assert_int_equal(mu_cp_add_prompt(w.cp, &anna, str(w.session), str("first"), &res), MU_CP_OK);
    mu_cp_result_free(&res);
    wait_for("prompt first");
    assert_int_equal(mu_cp_runner_words(w.runner, str(w.session), str(w.turn), str("yes")),
                     MU_CP_OK);
    assert_int_equal(
        mu_cp_runner_event(w.runner, str(w.session), "FILE_TOUCHED", str("{\"path\":\"a.c\"}")),
        MU_CP_OK);
    assert_int_equal(mu_cp_runner_event(w.runner, str(w.session), "SESSION_ENDED", str("{}")),
                     MU_CP_VALIDATION_ERROR);
    assert_int_equal(mu_cp_runner_turn(w.runner, str(w.session), str(w.turn), "done", str(NULL)),
                     MU_CP_OK);
    assert_int_equal(mu_cp_add_prompt(w.cp, &anna, str(w.session), str("second"), &res), MU_CP_OK);
    mu_cp_result_free(&res);
    wait_for("prompt second");
    said_by_the_agent();
    const mu_cp_end end = {.failed = 1, .has_exit_code = 1, .exit_code = 3, .message = str("oh")};
    assert_int_equal(mu_cp_runner_ended(w.runner, str(w.session), &end), MU_CP_OK);
    wait_for("ended");
    state_is("FAILED", NULL);
}

static void an_interactive_session_takes_prompts(void **state)
{
    each(turns);
}

static void two_runners(void)
{
    mu_cp_runner *first, *second;
    assert_true(mu_cp_on(w.cp, MU_CP_ON_ALL, on_event, NULL) > 0);
    runner_open("r");
    first = w.runner;
    const mu_cp_runner_config same = {.size = sizeof same, .name = str("r")};
    assert_int_equal(mu_cp_runner_open(w.cp, &same, &ops, NULL, &second), MU_CP_RUNNER_CONFLICT);
    const mu_cp_runner_config unnamed = {.size = sizeof unnamed};
    assert_int_equal(mu_cp_runner_open(w.cp, &unnamed, &ops, NULL, &second),
                     MU_CP_VALIDATION_ERROR);
    w.hold = true;
    create("late");
    wait_for("start late");
    w.hold = false;
    mu_cp_runner_close(first); /* it had not even confirmed */
    runner_open("s");
    second = w.runner;
    wait_for("prompt late");
    state_comes("RUNNING");
    mu_cp_runner_close(second);
    assert_true(heard("1 runner_online"));
    runner_open("r");
}

static void what_a_runner_leaves_another_one_takes(void **state)
{
    mu_cp_config c;
    mu_cp_config_init(&c);
    c.orphan_grace_ms = 1000;
    for (size_t i = driven; i < sizeof kinds / sizeof kinds[0]; i += 2) {
        world_begin(&kinds[i], &c);
        two_runners();
        world_end();
    }
}

/* Says `n` times the same, and goes on when it may; how often it had to wait. */
static int say_much(int n, mu_cp_str bytes, bool words)
{
    int said = 0, refused = 0;
    while (said < n && refused < 5000) {
        mu_cp_status s = words ? mu_cp_runner_words(w.runner, str(w.session), str(w.turn), bytes)
                               : mu_cp_runner_terminal(w.runner, str(w.session), 0, bytes);
        if (s == MU_CP_OK) {
            said++;
            continue;
        }
        assert_int_equal(s, MU_CP_UNAVAILABLE);
        if (w.kind->driven && !refused) { /* nothing was stored meanwhile: just the maximum */
            assert_int_equal((size_t)said, (16 << 20) / bytes.len - words);
        }
        refused++;
        step();
    }
    assert_int_equal(said, n);
    return refused;
}

static void much(void)
{
    char *text = malloc(1 << 20);
    assert_non_null(text);
    memset(text, 'x', 1 << 20);
    assert_true(mu_cp_on(w.cp, MU_CP_ON_SESSION, on_event, NULL) > 0);
    runner_open("r");
    create("work");
    wait_for("prompt work");
    state_comes("RUNNING");
    int refused = say_much(40, (mu_cp_str){text, 1 << 20}, false);
    assert_true(refused > 0 || !w.kind->driven);
    for (int i = 0; i < 50; i++) { /* all of it is stored, or left out */
        step();
    }
    refused = say_much(200, (mu_cp_str){text, 128 << 10}, true);
    assert_true(refused > 0 || !w.kind->driven);
    free(text);
    const mu_cp_end end = {.has_exit_code = 1};
    assert_int_equal(mu_cp_runner_ended(w.runner, str(w.session), &end), MU_CP_OK);
    wait_for("ended");
    state_is("COMPLETED", "finished");
}

static void what_is_said_and_not_stored_has_a_maximum(void **state)
{
    each(much);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(people_steer_what_the_host_runs),
        cmocka_unit_test(an_interactive_session_takes_prompts),
        cmocka_unit_test(what_a_runner_leaves_another_one_takes),
        cmocka_unit_test(what_is_said_and_not_stored_has_a_maximum),
    };
    int failed = cmocka_run_group_tests_name("threads", tests, NULL, NULL);
    driven = true;
    return failed + cmocka_run_group_tests_name("driven", tests, NULL, NULL);
}
