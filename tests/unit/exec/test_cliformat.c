#include "../unit.h"

#include <errno.h>

#include "../alloc_fail.h"
#include "exec/cliformat.h"

struct taken {
    struct mu_buf text;
    int refuse;
};

static int on_delta(void *arg, mu_bytes text)
{
    struct taken *t = arg;
    mu_buf_add(&t->text, text);
    return t->refuse;
}

#define C_TEXT(id, text)                                                                           \
    "{\"type\":\"assistant\",\"session_id\":\"s1\",\"parent_tool_use_id\":null,\"message\":"       \
    "{\"id\":\"" id "\",\"content\":[{\"type\":\"text\",\"text\":\"" text "\"}]}}\n"
#define C_START(id)                                                                                \
    "{\"type\":\"stream_event\",\"event\":{\"type\":\"message_start\",\"message\":{\"id\":\"" id   \
    "\"}}}\n{\"type\":\"stream_event\",\"event\":{\"type\":\"content_block_start\"}}\n"
#define C_DELTA(text)                                                                              \
    "{\"type\":\"stream_event\",\"event\":{\"type\":\"content_block_delta\",\"delta\":"            \
    "{\"type\":\"text_delta\",\"text\":\"" text "\"}}}\n"
#define C_RESULT(text)                                                                             \
    "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"" text           \
    "\",\"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":"  \
    "5,\"output_tokens\":3},\"permission_denials\":[]}\n"
#define C_INIT "{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"s1\"}\n"

static const struct row {
    enum mu_cli_format format;
    const char *in, *out, *answer; /* answer NULL: none named */
    bool failed, rate_limited, truncated;
    int64_t tokens_in, tokens_out;
    int denied;
    const char *session, *why;
} rows[] = {
    {.format = MU_CLI_TEXT, .in = "plain\n{\"type\":\"x\"}\n", .out = "plain\n{\"type\":\"x\"}\n"},
    /* Claude: whole messages */
    {.format = MU_CLI_CLAUDE_STREAM_JSON,
     .in = C_INIT C_TEXT("m1", "one") C_TEXT("m1", "two") C_TEXT("m2", "three") C_RESULT("three"),
     .out = "one\n\ntwo\n\nthree",
     .answer = "three",
     .tokens_in = 15,
     .tokens_out = 3,
     .session = "s1"},
    /* partial messages and the whole: once */
    {.format = MU_CLI_CLAUDE_STREAM_JSON,
     .in = C_START("m1") C_DELTA("on") C_DELTA("e") C_TEXT("m1", "one") C_START("m2") C_DELTA("two")
         C_TEXT("m2", "two") C_RESULT("two"),
     .out = "one\n\ntwo",
     .answer = "two",
     .tokens_in = 15,
     .tokens_out = 3,
     .session = "s1"},
    /* the stream broke off and the whole message has more */
    {.format = MU_CLI_CLAUDE_STREAM_JSON,
     .in = C_START("m1") C_DELTA("on") C_TEXT("m1", "one more"),
     .out = "one more",
     .session = "s1"},
    /* a whole message that is not the one that was streamed */
    {.format = MU_CLI_CLAUDE_STREAM_JSON,
     .in = C_START("m1") C_DELTA("abc") C_TEXT("m9", "abcdef"),
     .out = "abc\n\nabcdef",
     .session = "s1"},
    {.format = MU_CLI_CLAUDE_STREAM_JSON,
     .in = C_START("m1") C_DELTA("abc") C_TEXT("m1", "other words"),
     .out = "abc\n\nother words",
     .session = "s1"},
    /* tools, subagents, noise */
    {.format = MU_CLI_CLAUDE_STREAM_JSON,
     .in = "warning: not JSON\n\n[1]\n{\"type\":\"later\"}\n{broken\n"
           "{\"type\":\"assistant\",\"parent_tool_use_id\":\"t1\",\"message\":{\"content\":"
           "[{\"type\":\"text\",\"text\":\"inner\"}]}}\n"
           "{\"type\":\"assistant\",\"message\":{\"content\":[{\"type\":\"tool_use\"}]}}\n"
           "{\"type\":\"user\",\"message\":{\"content\":[{\"type\":\"tool_result\","
           "\"content\":\"output\"}]}}\n" C_TEXT("m1", "said"),
     .out = "said",
     .session = "s1"},
    {.format = MU_CLI_CLAUDE_STREAM_JSON,
     .in = "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":true,\"result\":\"API Error: "
           "429 too fast\"}",
     .out = "",
     .failed = true,
     .rate_limited = true,
     .why = "API Error: 429 too fast"},
    {.format = MU_CLI_CLAUDE_STREAM_JSON,
     .in = "{\"type\":\"result\",\"subtype\":\"error_during_execution\"}\n",
     .out = "",
     .failed = true,
     .why = "error_during_execution"},
    {.format = MU_CLI_CLAUDE_STREAM_JSON,
     .in = "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"\","
           "\"stop_reason\":\"max_tokens\",\"permission_denials\":[{\"tool_name\":\"Bash\"},{}]}\n",
     .out = "",
     .truncated = true,
     .denied = 2},
    /* Codex */
    {.format = MU_CLI_CODEX_JSON,
     .in = "{\"type\":\"thread.started\",\"thread_id\":\"th1\"}\n{\"type\":\"turn.started\"}\n"
           "{\"type\":\"item.completed\",\"item\":{\"type\":\"error\",\"message\":\"metadata\"}}\n"
           "{\"type\":\"item.started\",\"item\":{\"type\":\"command_execution\"}}\n"
           "{\"type\":\"item.completed\",\"item\":{\"type\":\"agent_message\",\"text\":\"a\"}}\n"
           "{\"type\":\"item.completed\",\"item\":{\"type\":\"agent_message\",\"text\":\"b\"}}\n"
           "{\"type\":\"turn.completed\",\"usage\":{\"input_tokens\":4,\"output_tokens\":2}}\n",
     .out = "a\n\nb",
     .tokens_in = 4,
     .tokens_out = 2,
     .session = "th1"},
    {.format = MU_CLI_CODEX_JSON,
     .in = "{\"type\":\"error\",\"message\":\"Reconnecting\"}\n{\"type\":\"turn.completed\"}\n",
     .out = ""},
    {.format = MU_CLI_CODEX_JSON,
     .in = "{\"type\":\"error\",\"message\":\"x\"}\n"
           "{\"type\":\"turn.failed\",\"error\":{\"message\":\"Rate limit reached\"}}\n",
     .out = "",
     .failed = true,
     .rate_limited = true,
     .why = "Rate limit reached"},
    /* OpenCode */
    {.format = MU_CLI_OPENCODE_JSON,
     .in = "{\"type\":\"step_start\",\"sessionID\":\"ses_1\"}\n"
           "{\"type\":\"text\",\"part\":{\"id\":\"p1\",\"text\":\"one\"}}\n"
           "{\"type\":\"text\",\"part\":{\"id\":\"p1\",\"text\":\"one, grown\"}}\n"
           "{\"type\":\"tool_use\",\"part\":{}}\n"
           "{\"type\":\"step_finish\",\"part\":{\"reason\":\"tool-calls\",\"tokens\":{\"input\":1,"
           "\"output\":2,\"cache\":{\"read\":3,\"write\":0}}}}\n"
           "{\"type\":\"text\",\"part\":{\"id\":\"p2\",\"text\":\"two\"}}\n"
           "{\"type\":\"text\",\"text\":\"three\"}\n"
           "{\"type\":\"step_finish\",\"part\":{\"reason\":\"length\",\"tokens\":{\"input\":10,"
           "\"output\":20}}}\n",
     .out = "one, grown\n\ntwo\n\nthree",
     .truncated = true,
     .tokens_in = 14,
     .tokens_out = 22,
     .session = "ses_1"},
    {.format = MU_CLI_OPENCODE_JSON,
     .in = "{\"type\":\"error\",\"error\":{\"name\":\"ApiError\",\"data\":{\"message\":\"m\"}}}\n",
     .out = "",
     .failed = true,
     .why = "m"},
    {.format = MU_CLI_OPENCODE_JSON,
     .in = "{\"type\":\"error\",\"error\":{\"name\":\"ApiError\"}}\n",
     .out = "",
     .failed = true,
     .why = "ApiError"},
    /* Gemini */
    {.format = MU_CLI_GEMINI_JSON,
     .in = "{\"type\":\"init\",\"session_id\":\"g1\",\"model\":\"m\"}\n"
           "{\"type\":\"message\",\"role\":\"user\",\"content\":\"asked\"}\n"
           "{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"a\",\"delta\":true}\n"
           "{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"b\",\"delta\":true}\n"
           "{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"ab\"}\n"
           "{\"type\":\"tool_use\",\"tool_name\":\"t\"}\n"
           "{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"c\"}\n"
           "{\"type\":\"result\",\"status\":\"success\",\"stats\":{\"input_tokens\":6,"
           "\"output_tokens\":7}}\n",
     .out = "ab\n\nc",
     .tokens_in = 6,
     .tokens_out = 7,
     .session = "g1"},
    {.format = MU_CLI_GEMINI_JSON,
     .in = "{\"type\":\"error\",\"severity\":\"error\",\"message\":\"quota\"}\n"
           "{\"type\":\"result\",\"status\":\"error\"}\n",
     .out = "",
     .failed = true,
     .why = "quota"},
    {.format = MU_CLI_GEMINI_JSON,
     .in = "{\"type\":\"error\",\"severity\":\"warning\",\"message\":\"loop\"}\n"
           "{\"type\":\"result\",\"status\":\"success\"}\n",
     .out = ""},
};

static int read_all(const struct row *row, size_t step, size_t max_line, struct taken *t,
                    struct mu_cli_reader **ret, struct mu_cli_verdict *v, mu_bytes *answer)
{
    mu_bytes in = mu_str(row->in);
    int e = mu_cli_reader_new(row->format, max_line, on_delta, t, ret);
    for (size_t at = 0; at < in.len && e == 0; at += step) {
        e = mu_cli_reader_feed(*ret, mu_bytes_head(mu_bytes_from(in, at), step));
    }
    return e < 0 ? e : mu_cli_reader_end(*ret, v, answer);
}

static void formats_are_read_the_same_however_they_are_cut(void **state MU_UNUSED)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        static const size_t steps[] = {1, 3, 64, 100000};
        const struct row *row = &rows[i];
        for (size_t k = 0; k < MU_ARRAY_LEN(steps); k++) {
            struct taken t = {.refuse = 0};
            struct mu_cli_reader *r = NULL;
            struct mu_cli_verdict v;
            mu_bytes answer;
            mu_buf_init(&t.text, 1 << 16);
            assert_int_equal(read_all(row, steps[k], 4096, &t, &r, &v, &answer), 0);
            if (!mu_bytes_is(mu_buf_bytes(&t.text), row->out)) {
                fail_msg("row %zu: \"%.*s\"", i, MU_ARGS(mu_buf_bytes(&t.text)));
            }
            assert_true(mu_bytes_is(answer, row->answer));
            assert_int_equal(answer.ptr != NULL, row->answer != NULL);
            assert_int_equal(v.failed, row->failed);
            assert_int_equal(v.rate_limited, row->rate_limited);
            assert_int_equal(v.truncated, row->truncated);
            assert_int_equal(v.tokens_in, row->tokens_in);
            assert_int_equal(v.tokens_out, row->tokens_out);
            assert_int_equal(v.denied, row->denied);
            assert_string_equal(v.session, row->session ? row->session : "");
            assert_string_equal(v.text, row->why ? row->why : "");
            assert_null(mu_cli_reader_free(r));
            mu_buf_fini(&t.text);
        }
    }
}

static void a_line_over_the_limit_is_too_large(void **state MU_UNUSED)
{
    for (size_t step = 1; step < 100; step++) {
        const struct row row = {.format = MU_CLI_CODEX_JSON,
                                .in = "{\"type\":\"turn.started\"}\n"
                                      "{\"type\":\"a line that is too long\"}\n"};
        struct taken t = {.refuse = 0};
        struct mu_cli_reader *r = NULL;
        struct mu_cli_verdict v;
        mu_bytes answer;
        mu_buf_init(&t.text, 100);
        assert_int_equal(read_all(&row, step, 30, &t, &r, &v, &answer), MU_E_TOO_LARGE);
        assert_int_equal(mu_cli_reader_feed(r, MU_B("{}\n")), MU_E_TOO_LARGE);
        mu_cli_reader_free(r);
        mu_buf_fini(&t.text);
    }
}

static void a_caller_that_refuses_ends_the_reading(void **state MU_UNUSED)
{
    struct taken t = {.refuse = MU_E_CANCELLED};
    struct mu_cli_reader *r = NULL;
    struct mu_cli_verdict v;
    mu_bytes answer;
    mu_buf_init(&t.text, 1000);
    assert_int_equal(read_all(&rows[1], 100, 4096, &t, &r, &v, &answer), MU_E_CANCELLED);
    assert_true(mu_bytes_is(mu_buf_bytes(&t.text), "one"));
    mu_cli_reader_free(r);
    mu_buf_fini(&t.text);
}

static void words_of_rate_limits_are_told_from_numbers(void **state MU_UNUSED)
{
    static const struct {
        const char *text;
        bool limited;
    } cases[] = {
        {"Rate limit reached", true},
        {"rate_limit_error", true},
        {"Too Many Requests", true},
        {"HTTP 429", true},
        {"status=429", true},
        {"status code: 429", true},
        {"API Error: 429 {}", true},
        {"error (429)", true},
        {"429 Too fast", true},
        {"HTTP/1.1 429", true},
        {"you hit your usage limit", true},
        {"RESOURCE_EXHAUSTED", true},
        {"", false},
        {"line 429", false},
        {"port 4290", false},
        {"http://localhost:429/x", false},
        {"1429 tokens", false},
        {"status 4291", false},
        {"corporate limits", false},
        {"error at main.c:429", false},
        {"the rate limiter was built", false},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        if (mu_cli_rate_limited(mu_str(cases[i].text)) != cases[i].limited) {
            fail_msg("%s", cases[i].text);
        }
    }
}

static void format_words_go_both_ways(void **state MU_UNUSED)
{
    enum mu_cli_format f;
    for (int i = MU_CLI_TEXT; i <= MU_CLI_GEMINI_JSON; i++) {
        assert_int_equal(mu_cli_format_parse(mu_str(mu_cli_format_name(i)), &f), 0);
        assert_int_equal(f, i);
    }
    assert_int_equal(mu_cli_format_parse(MU_B("xml"), &f), MU_E_INVALID);
}

static int one_reading(void *arg)
{
    struct taken t = {.refuse = 0};
    struct mu_cli_reader *r = NULL;
    struct mu_cli_verdict v;
    mu_bytes answer;
    mu_buf_init(&t.text, 1000);
    int e = read_all(arg, 13, 4096, &t, &r, &v, &answer);
    assert_true(e == 0 || e == -ENOMEM);
    mu_cli_reader_free(r);
    mu_buf_fini(&t.text);
    return e;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        each_allocation_fails(one_reading, (void *)(uintptr_t)&rows[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_are_read_the_same_however_they_are_cut),
        cmocka_unit_test(a_line_over_the_limit_is_too_large),
        cmocka_unit_test(a_caller_that_refuses_ends_the_reading),
        cmocka_unit_test(words_of_rate_limits_are_told_from_numbers),
        cmocka_unit_test(format_words_go_both_ways),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
