/* Events as the sessions API shows them. */
#include "../unit.h"

#include "../alloc_fail.h"
#include "face/sessions/sessions_int.h"

#define ID "01a20099-a806-705f-8368-7e7c95432e99"

static int shown_as(struct mu_buf *b, int type, const char *actor, const char *data)
{
    const struct mu_session_event e = {
        .seq = 7, .at_ms = 1000, .type = type, .data = mu_str(data), .actor = mu_str(actor)};
    struct mu_json_w w = mu_json_w(b);
    mu_sess_event(&w, MU_B(ID), &e);
    return b->failed;
}

static void shows(int type, const char *actor, const char *data, const char *text)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    assert_int_equal(shown_as(&b, type, actor, data), 0);
    mu_buf_add_char(&b, 0);
    assert_string_equal(b.ptr, text);
    mu_buf_fini(&b);
}

#define HEAD(type) "{\"seq\":7,\"type\":\"" type "\",\"timestamp\":\"1970-01-01T00:00:01.000Z\","
#define SESSION    "\"sessionId\":\"ses_" ID "\""

static void states_have_the_words_of_the_api(void **state)
{
    (void)state;
    shows(MU_EV_CREATED, "user:u1", "{\"to\":22}",
          HEAD("SESSION_CREATED") "\"actor\":{\"type\":\"user\",\"id\":\"u1\"},\"data\":{" SESSION
                                  ",\"state\":\"QUEUED\",\"mode\":\"task\"}}");
    shows(
        MU_EV_CREATED, "admin", "{\"to\":22,\"mode\":2}",
        HEAD("SESSION_CREATED") "\"actor\":{\"type\":\"user\",\"id\":\"admin\"},\"data\":{" SESSION
                                ",\"state\":\"QUEUED\",\"mode\":\"interactive\"}}");
    shows(MU_EV_STATE, "", "{\"from\":60,\"to\":64}",
          HEAD("SESSION_STATE_CHANGED") "\"data\":{" SESSION ",\"previousState\":\"RUNNING\","
                                        "\"newState\":\"WAITING_FOR_APPROVAL\"}}");
    shows(
        MU_EV_STATE, "runner", "{\"from\":50,\"to\":60,\"reason\":\"r\",\"secret\":1}",
        HEAD("SESSION_STATE_CHANGED") "\"actor\":{\"type\":\"runner\",\"id\":\"runner\"},\"data\":"
                                      "{" SESSION ",\"previousState\":\"STARTING_PROVIDER\","
                                      "\"newState\":\"RUNNING\",\"reason\":\"r\"}}");
    shows(
        MU_EV_ENDED, "system", "{\"from\":60,\"to\":94,\"outcome\":4,\"exit_code\":9}",
        HEAD("SESSION_ENDED") "\"actor\":{\"type\":\"system\",\"id\":\"system\"},\"data\":{" SESSION
                              ",\"finalState\":\"TIMED_OUT\",\"previousState\":\"RUNNING\","
                              "\"exitCode\":9}}");
}

static void gates_and_turns_have_ids_and_times_of_the_api(void **state)
{
    (void)state;
    shows(
        MU_EV_APPROVAL_REQUESTED, "",
        "{\"gate\":\"g\",\"kind\":1,\"action\":\"merge\",\"status\":\"pending\","
        "\"description\":\"d\",\"expires_ms\":2000}",
        HEAD("APPROVAL_REQUESTED") "\"data\":{" SESSION
                                   ",\"approval\":{\"approvalId\":\"apr_g\",\"kind\":\"approval\","
                                   "\"action\":\"merge\",\"description\":\"d\",\"status\":"
                                   "\"pending\",\"expiresAt\":\"1970-01-01T00:00:02.000Z\","
                                   "\"requestedAt\":\"1970-01-01T00:00:01.000Z\"}}}");
    shows(
        MU_EV_APPROVAL_RESOLVED, "",
        "{\"gate\":\"g\",\"kind\":2,\"status\":\"denied\",\"decision\":\"deny\",\"by\":\"user:x\"}",
        HEAD("APPROVAL_RESOLVED") "\"data\":{" SESSION
                                  ",\"approvalId\":\"apr_g\",\"kind\":\"question\",\"status\":"
                                  "\"denied\",\"decision\":\"deny\",\"resolvedBy\":\"user:x\","
                                  "\"resolvedAt\":\"1970-01-01T00:00:01.000Z\"}}");
    shows(MU_EV_TURN_ENDED, "", "{\"turn\":\"t\",\"state\":94}",
          HEAD("TURN_ENDED") "\"data\":{" SESSION ",\"promptId\":\"t\",\"state\":\"cancelled\"}}");
}

static void what_the_runner_said_is_shown_as_it_said_it(void **state)
{
    (void)state;
    shows(
        MU_EV_FILE_TOUCHED, "runner", "{\"path\":\"a\",\"reason\":\"write\"}",
        HEAD("FILE_TOUCHED") "\"actor\":{\"type\":\"runner\",\"id\":\"runner\"},\"data\":{\"path\":"
                             "\"a\",\"reason\":\"write\"}}");
    shows(MU_EV_GIT_PUSH, "", "", HEAD("GIT_PUSH") "\"data\":{}}");
    shows(MU_EV_STATE, "", "no json", HEAD("SESSION_STATE_CHANGED") "\"data\":{" SESSION "}}");
}

static void every_stored_state_has_a_word_and_every_word_finds_its_states(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        unsigned states, outcomes;
    } rows[] = {{"QUEUED", 3, 0},
                {"PREPARING_WORKSPACE", 1, 0},
                {"STARTING_PROVIDER", 1, 0},
                {"RUNNING", 1, 0},
                {"WAITING_FOR_APPROVAL", 2, 0},
                {"PAUSED_BY_HUMAN", 4, 0},
                {"STOPPING", 1, 0},
                {"COMPLETED", 0, 2},
                {"FAILED", 0, 1},
                {"TIMED_OUT", 0, 1},
                {"active", 13, 0},
                {"terminal", 0, 4}};
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_session_list op = {0};
        assert_true(mu_sess_add_state(&op, mu_str(rows[i].word)));
        assert_true(mu_sess_add_state(&op, mu_str(rows[i].word))); /* twice adds nothing */
        assert_int_equal(op.n_states, rows[i].states);
        assert_int_equal(op.n_outcomes, rows[i].outcomes);
        for (unsigned k = 0; rows[i].word[0] < 'a' && k < op.n_states; k++) {
            assert_string_equal(mu_sess_state(op.states[k]), rows[i].word);
        }
    }
    struct mu_session_list op = {0};
    assert_false(mu_sess_add_state(&op, MU_B("DONE")));
}

static int show_once(void *arg)
{
    (void)arg;
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    int r = shown_as(&b, MU_EV_STATE, "runner", "{\"from\":60,\"to\":90,\"reason\":\"finished\"}");
    mu_buf_fini(&b);
    return r;
}

static void an_event_survives_any_failing_allocation(void **state)
{
    (void)state;
    each_allocation_fails(show_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_have_the_words_of_the_api),
        cmocka_unit_test(gates_and_turns_have_ids_and_times_of_the_api),
        cmocka_unit_test(what_the_runner_said_is_shown_as_it_said_it),
        cmocka_unit_test(every_stored_state_has_a_word_and_every_word_finds_its_states),
        cmocka_unit_test(an_event_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
