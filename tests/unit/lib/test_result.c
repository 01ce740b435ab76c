/* Answers as the host sees them, without memory too. */
#include "../unit.h"

#include <errno.h>
#include <string.h>

#include "../alloc_fail.h"
#include "lib/cp_int.h"

static const char detail[] =
    "{\"success\":true,\"data\":{\"sessionId\":\"ses_1\",\"orgId\":\"o\",\"state\":\"RUNNING\","
    "\"exitCode\":3,\"usage\":{\"tokensIn\":5},\"pendingApprovals\":[{\"approvalId\":\"apr_1\","
    "\"context\":{\"a\":[1,2]}}]},\"meta\":{}}";
static const char failure[] =
    "{\"success\":false,\"error\":{\"code\":\"NEW_CODE\",\"message\":\"m\",\"details\":{\"x\":1}}}";

static int read_typed(mu_cp_result *res, const char *text)
{
    int r = mu_lib_result_read(res, mu_str(text));
    return r < 0 ? r : mu_lib_result_type(res);
}

static bool is(mu_cp_str s, const char *text)
{
    return mu_bytes_is(mu_cp_in(s), text);
}

static void a_detail_is_read(void **state)
{
    mu_cp_result res = {0};
    (void)state;
    assert_int_equal(read_typed(&res, detail), 0);
    assert_int_equal(res.status, MU_CP_OK);
    assert_int_equal(res.n_sessions, 1);
    const mu_cp_session *s = &res.sessions[0];
    assert_true(is(s->session_id, "ses_1") && is(s->state, "RUNNING"));
    assert_true(s->has_exit_code && s->exit_code == 3 && s->tokens_in == 5);
    assert_null(s->completed_at.ptr);
    assert_int_equal(s->n_pending_approvals, 1);
    assert_true(is(s->pending_approvals[0].context, "{\"a\":[1,2]}"));
    mu_cp_result_free(&res);
    mu_cp_result_free(&res);
}

static void an_unknown_code_is_kept(void **state)
{
    mu_cp_result res = {0};
    (void)state;
    assert_int_equal(read_typed(&res, failure), 0);
    assert_int_equal(res.status, MU_CP_OTHER);
    assert_true(is(res.code, "NEW_CODE") && is(res.details, "{\"x\":1}"));
    assert_int_equal(res.n_sessions, 0);
    mu_cp_result_free(&res);
}

static void what_is_no_envelope_is_an_error(void **state)
{
    mu_cp_result res = {0};
    (void)state;
    assert_int_equal(read_typed(&res, "{"), MU_E_INVALID);
    mu_lib_result_set(&res, MU_CP_INTERNAL_ERROR, "a \"word\"");
    assert_true(is(res.envelope, "{\"success\":false,\"error\":{\"code\":\"INTERNAL_ERROR\","
                                 "\"message\":\"a \\\"word\\\"\"}}"));
    mu_cp_result_free(&res);
}

static int read_all(void *arg)
{
    const char *const texts[] = {detail, failure};
    int r = 0;
    (void)arg;
    for (size_t i = 0; i < 2; i++) {
        mu_cp_result res = {0};
        int x = read_typed(&res, texts[i]);
        r = x < 0 ? x : r;
        mu_lib_result_set(&res, MU_CP_FORBIDDEN, "no");
        assert_true(res.status == MU_CP_FORBIDDEN || res.status == MU_CP_UNAVAILABLE);
        assert_true(res.envelope.len > 0);
        mu_cp_result_free(&res);
    }
    return r;
}

static void no_failing_allocation_leaks(void **state)
{
    (void)state;
    each_allocation_fails(read_all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_detail_is_read),
        cmocka_unit_test(an_unknown_code_is_kept),
        cmocka_unit_test(what_is_no_envelope_is_an_error),
        cmocka_unit_test(no_failing_allocation_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
