#include "../unit.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "exec/agents/acp.h"

/* What the other side saw and what the caller was told, as one text. */
struct heard {
    struct mu_buf log, sent;
    struct mu_acp acp;
    int answer;         /* to every question at once: mu_acp_decision, -1 = none */
    const char *prompt; /* to be said when it is ready */
    int fail_send;
};

static MU_PRINTF(2, 3) void note(struct heard *h, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mu_buf_add_str(&h->log, text);
}

static int on_send(void *arg, mu_bytes line)
{
    struct heard *h = arg;
    mu_buf_add(&h->sent, line);
    return h->fail_send;
}

static void on_ready(void *arg, const struct mu_acp_info *i)
{
    struct heard *h = arg;
    note(h, "ready(%.*s %.*s %.*s%s%s%.*s)\n", MU_ARGS(i->agent), MU_ARGS(i->version),
         MU_ARGS(i->conversation), i->resumed ? " resumed" : "", i->not_loaded.ptr ? " not:" : "",
         MU_ARGS(i->not_loaded));
    if (h->prompt) {
        (void)!mu_acp_prompt(&h->acp, mu_str(h->prompt));
    }
}

static void on_text(void *arg, bool thought, mu_bytes text)
{
    note(arg, "%s(%.*s)\n", thought ? "thought" : "text", MU_ARGS(text));
}

static void on_tool(void *arg, const struct mu_acp_tool *t)
{
    note(arg, "tool(%s %s %s '%s' %d args=%.*s%s result=%.*s%s", t->id, t->name, t->kind, t->title,
         t->status, MU_ARGS(mu_buf_bytes(&t->args)), t->args_cut ? "..." : "",
         (int)MU_MIN(t->result.len, (size_t)100), t->result.ptr ? t->result.ptr : "",
         t->result_cut ? "..." : "");
    for (size_t i = 0; i < t->n_paths; i++) {
        note(arg, " %s", t->paths[i]);
    }
    note(arg, ")\n");
}

static void on_ask(void *arg, const struct mu_acp_ask *a)
{
    struct heard *h = arg;
    note(h, "ask(%u %s %s '%s' command=%.*s url=%.*s exact=%.*s)\n", a->handle, a->tool->id,
         a->tool->kind, a->tool->title, MU_ARGS(a->command), MU_ARGS(a->url), MU_ARGS(a->exact));
    if (h->answer >= 0) {
        (void)!mu_acp_answer(&h->acp, a->handle, (enum mu_acp_decision)h->answer);
    }
}

static void on_gone(void *arg, unsigned handle)
{
    note(arg, "gone(%u)\n", handle);
}

static void on_update(void *arg, mu_bytes kind, mu_bytes json)
{
    note(arg, "update(%.*s %.*s)\n", MU_ARGS(kind), MU_ARGS(json));
}

static void on_turn(void *arg, enum mu_acp_outcome o, mu_bytes reason, const struct mu_acp_usage *u)
{
    note(arg, "turn(%d %.*s %d %d)\n", (int)o, MU_ARGS(reason), (int)u->tokens_in,
         (int)u->tokens_out);
}

static void on_noise(void *arg, mu_bytes line)
{
    note(arg, "noise(%.*s)\n", MU_ARGS(line));
}

static const struct mu_acp_ops ops = {on_send, on_ready,  on_text, on_tool, on_ask,
                                      on_gone, on_update, on_turn, on_noise};
static const struct mu_acp_options new_one = {"/workspace", NULL, "default", "1", NULL};

static int begin(struct heard *h, const struct mu_acp_options *opt)
{
    *h = (struct heard){.answer = -1};
    mu_buf_init(&h->log, 1 << 20);
    mu_buf_init(&h->sent, 64 << 20);
    int r = mu_acp_init(&h->acp, &ops, h, opt);
    return r ? r : mu_acp_start(&h->acp);
}

static void end(struct heard *h)
{
    mu_acp_fini(&h->acp);
    mu_buf_fini(&h->log);
    mu_buf_fini(&h->sent);
}

static int say(struct heard *h, const char *text)
{
    return mu_acp_feed(&h->acp, mu_str(text));
}

#define HELLO                                                                                      \
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":1,\"agentInfo\":{\"name\":"     \
    "\"a\",\"version\":\"1.0\"},\"agentCapabilities\":{\"loadSession\":true}}}\n"
#define NEW "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"sessionId\":\"s1\"}}\n"
#define UPDATE(inner)                                                                              \
    "{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{\"sessionId\":\"s1\","         \
    "\"update\":" inner "}}\n"
#define WORDS(t)                                                                                   \
    UPDATE("{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":"   \
           "\"" t "\"}}")

static void ready(struct heard *h, const char *prompt)
{
    assert_int_equal(begin(h, &new_one), 0);
    h->prompt = prompt;
    assert_int_equal(say(h, HELLO NEW), 0);
    mu_buf_clear(&h->sent);
    mu_buf_clear(&h->log);
}

static bool has(const struct mu_buf *b, const char *text)
{
    return mu_bytes_find(mu_buf_bytes(b), mu_str(text)) >= 0;
}

static void expect_log(struct heard *h, const char *want)
{
    mu_buf_add_char(&h->log, 0);
    assert_string_equal(h->log.ptr, want);
}

/* One transcript for each agent, with what is its own (real-parts.md 5). */
static const struct transcript {
    const char *name, *lines, *log, *option;
} transcripts[] = {
    {"OpenCode",
     UPDATE(
         "{\"sessionUpdate\":\"tool_call\",\"toolCallId\":\"c1\",\"title\":\"bash\",\"kind\":"
         "\"execute\",\"status\":\"pending\",\"rawInput\":{}}") "{\"jsonrpc\":\"2.0\",\"id\":0,"
                                                                "\"method\":\"session/"
                                                                "request_permission\",\"params\":{"
                                                                "\"sessionId\":\"s1\",\"toolCall\":"
                                                                "{\"toolCallId\":\"c1\",\"title\":"
                                                                "\"ls\",\"kind\":\"execute\","
                                                                "\"rawInput\":{\"command\":\"ls\"}}"
                                                                ",\"options\":[{\"optionId\":"
                                                                "\"once\",\"kind\":\"allow_once\"},"
                                                                "{\"optionId\":\"always\",\"kind\":"
                                                                "\"allow_always\"},{\"optionId\":"
                                                                "\"reject\",\"kind\":"
                                                                "\"reject_once\"}]}}\n" UPDATE(
                                                                    "{\"sessionUpdate\":\"tool_"
                                                                    "call_update\",\"toolCallId\":"
                                                                    "\"c1\","
                                                                    "\"status\":\"completed\","
                                                                    "\"rawOutput\":{\"output\":\"a."
                                                                    "c\"}}") "{\"jsonrpc\":\"2.0\","
                                                                             "\"id\":3,\"result\":{"
                                                                             "\"stopReason\":\"end_"
                                                                             "turn\",\"usage\":{"
                                                                             "\"inputTokens\":5,"
                                                                             "\"outputTokens\":7,"
                                                                             "\"totalTokens\":12}}}"
                                                                             "\n",
     "tool(c1 execute execute 'bash' 0 args= result=)\n"
     "ask(1 c1 execute 'ls' command=ls url= exact={\"toolCallId\":\"c1\",\"title\":\"ls\",\"kind\":"
     "\"execute\",\"rawInput\":{\"command\":\"ls\"}})\n"
     "tool(c1 execute execute 'ls' 2 args={\"command\":\"ls\"} result=a.c)\n"
     "turn(0 end_turn 5 7)\n",
     "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"outcome\":{\"outcome\":\"selected\",\"optionId\":"
     "\"once\"}}}\n"},
    {"Claude",
     WORDS("") WORDS("I will ") WORDS("look")
         UPDATE("{\"sessionUpdate\":\"tool_call\",\"toolCallId\":"
                "\"toolu_1\",\"title\":\"Edit a\",\"kind\":"
                "\"edit\",\"status\":\"pending\",\"locations\":[{"
                "\"path\":\"/workspace/a\"}],\"content\":[{"
                "\"type\":\"diff\",\"path\":\"/workspace/"
                "a\",\"oldText\":\"1\",\"newText\":\"2\"}],"
                "\"_meta\":{\"claudeCode\":{\"toolName\":\"Edit\"}}"
                "}") "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":"
                     "\"session/request_permission\",\"params\":{"
                     "\"sessionId\":\"s1\",\"toolCall\":{"
                     "\"toolCallId\":\"toolu_1\",\"rawInput\":{"
                     "\"file_path\":"
                     "\"/workspace/"
                     "a\"}},\"options\":[{\"optionId\":\"allow_"
                     "always\",\"kind\":\"allow_always\"},{"
                     "\"optionId\":\"allow\",\"kind\":\"allow_"
                     "once\"},{\"optionId\":\"reject\",\"kind\":"
                     "\"reject_once\"}]}}\n"
                     "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{"
                     "\"stopReason\":\"end_turn\",\"usage\":{"
                     "\"inputTokens\":5,\"outputTokens\":7,"
                     "\"cachedReadTokens\":100}}}\n",
     "text(I will )\ntext(look)\n"
     "tool(toolu_1 Edit edit 'Edit a' 0 args= result=change of /workspace/a /workspace/a)\n"
     "ask(1 toolu_1 edit 'Edit a' command= url= exact={\"toolCallId\":\"toolu_1\",\"rawInput\":{"
     "\"file_path\":\"/workspace/a\"}})\n"
     "turn(0 end_turn 105 7)\n",
     "{\"jsonrpc\":\"2.0\",\"id\":4,\"result\":{\"outcome\":{\"outcome\":\"selected\",\"optionId\":"
     "\"allow\"}}}\n"},
    {"Codex",
     "{\"jsonrpc\":\"2.0\",\"id\":\"5b0e-\\u00e9\",\"method\":\"session/request_permission\","
     "\"params\":{\"sessionId\":\"s1\",\"toolCall\":{\"toolCallId\":\"exec-1\",\"title\":\"git "
     "push\","
     "\"kind\":\"execute\",\"rawInput\":{\"command\":[\"/bin/bash\",\"-lc\",\"git push 'x'\"]}},"
     "\"options\":[{\"optionId\":\"approved\",\"kind\":\"allow_once\"},{\"optionId\":\"abort\","
     "\"kind\":\"reject_once\"}]}}\n" UPDATE("{\"sessionUpdate\":\"tool_call\",\"toolCallId\":"
                                             "\"exec-1\",\"title\":\"git push\",\"kind\":"
                                             "\"execute\",\"status\":\"in_progress\"}")
         UPDATE(
             "{\"sessionUpdate\":\"usage_update\",\"used\":5,\"size\":9}") "{\"jsonrpc\":\"2.0\","
                                                                           "\"id\":3,\"result\":{"
                                                                           "\"stopReason\":\"end_"
                                                                           "turn\"}}\n",
     "ask(1 exec-1 execute 'git push' command=/bin/bash -lc 'git push '\\''x'\\''' url= exact={"
     "\"toolCallId\":\"exec-1\",\"title\":\"git "
     "push\",\"kind\":\"execute\",\"rawInput\":{\"command\":["
     "\"/bin/bash\",\"-lc\",\"git push 'x'\"]}})\n"
     "tool(exec-1 execute execute 'git push' 1 args={\"command\":[\"/bin/bash\",\"-lc\",\"git push "
     "'x'\"]} result=)\n"
     "update(usage_update {\"sessionUpdate\":\"usage_update\",\"used\":5,\"size\":9})\n"
     "turn(0 end_turn -1 -1)\n",
     "{\"jsonrpc\":\"2.0\",\"id\":\"5b0e-\\u00e9\",\"result\":{\"outcome\":{\"outcome\":"
     "\"selected\","
     "\"optionId\":\"approved\"}}}\n"},
    {"Gemini",
     "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"session/request_permission\",\"params\":{"
     "\"sessionId\":\"s1\",\"toolCall\":{\"toolCallId\":\"run_shell_command-1\",\"status\":"
     "\"pending\",\"title\":\"ls -la\",\"content\":[],\"locations\":[],\"kind\":\"execute\"},"
     "\"options\":[{\"optionId\":\"proceed_always\",\"kind\":\"allow_always\"},{\"optionId\":"
     "\"proceed_once\",\"kind\":\"allow_once\"},{\"optionId\":\"cancel\",\"kind\":\"reject_once\"}]"
     "}}"
     "\n" UPDATE(
         "{\"sessionUpdate\":\"tool_call_update\",\"toolCallId\":\"run_shell_command-1\","
         "\"status\":\"completed\",\"content\":[{\"type\":\"content\",\"content\":{\"type\":"
         "\"text\",\"text\":\"total 0\"}}]}") "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{"
                                              "\"stopReason\":\"end_turn\",\"_meta\":{\"quota\":{"
                                              "\"token_count\":{\"input_tokens\":8,\"output_"
                                              "tokens\":9}}}}}\n",
     "ask(1 run_shell_command-1 execute 'ls -la' command= url= exact={\"toolCallId\":"
     "\"run_shell_command-1\",\"status\":\"pending\",\"title\":\"ls -la\",\"content\":[],"
     "\"locations\":[],\"kind\":\"execute\"})\n"
     "tool(run_shell_command-1 execute execute 'ls -la' 2 args= result=total 0)\n"
     "turn(0 end_turn 8 9)\n",
     "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"outcome\":{\"outcome\":\"selected\",\"optionId\":"
     "\"proceed_once\"}}}\n"},
};

static void each_agent_gives_the_same_however_its_bytes_come(void **state)
{
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(transcripts); i++) {
        const struct transcript *t = &transcripts[i];
        size_t len = strlen(t->lines);
        for (size_t cut = 0; cut <= len; cut++) {
            struct heard h;
            ready(&h, "do it");
            h.answer = MU_ACP_ALLOW;
            assert_int_equal(mu_acp_feed(&h.acp, mu_bytes_of(t->lines, cut)), 0);
            assert_int_equal(mu_acp_feed(&h.acp, mu_bytes_of(t->lines + cut, len - cut)), 0);
            expect_log(&h, t->log);
            mu_buf_add_char(&h.sent, 0);
            assert_string_equal(h.sent.ptr, t->option);
            end(&h);
        }
        struct heard h;
        ready(&h, "do it");
        h.answer = MU_ACP_DENY;
        for (size_t k = 0; k < len; k++) {
            assert_int_equal(mu_acp_feed(&h.acp, mu_bytes_of(t->lines + k, 1)), 0);
        }
        expect_log(&h, t->log);
        end(&h);
    }
}

static void what_is_said_at_the_start(void **state)
{
    (void)state;
    struct heard h;
    assert_int_equal(begin(&h, &new_one), 0);
    assert_true(has(&h.sent, "\"readTextFile\":false,\"writeTextFile\":false},\"terminal\":false"));
    assert_true(
        has(&h.sent, "\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1"));
    assert_int_equal(mu_acp_prompt(&h.acp, MU_B("x")), MU_E_CONFLICT);
    assert_int_equal(say(&h, HELLO), 0);
    assert_true(
        has(&h.sent, "\"session/new\",\"params\":{\"cwd\":\"/workspace\",\"mcpServers\":[]}"));
    assert_int_equal(say(&h, "{\"id\":2,\"result\":{\"sessionId\":\"s1\",\"modes\":{"
                             "\"currentModeId\":\"yolo\",\"availableModes\":[{\"id\":\"yolo\"},{"
                             "\"id\":\"default\"}]}}}\n"),
                     0);
    assert_true(has(&h.sent, "\"session/set_mode\",\"params\":{\"sessionId\":\"s1\",\"modeId\":"
                             "\"default\"}"));
    assert_int_equal(say(&h, "{\"id\":3,\"error\":{\"code\":1,\"message\":\"no\"}}\n"), 0);
    expect_log(&h, "ready(a 1.0 s1)\n");
    end(&h);
}

static void a_conversation_is_loaded_and_its_history_is_not_told(void **state)
{
    (void)state;
    static const struct mu_acp_options load = {"/w", "s1", NULL, "1", NULL};
    struct heard h;
    assert_int_equal(begin(&h, &load), 0);
    assert_int_equal(
        say(&h, HELLO WORDS("old") UPDATE(
                    "{\"sessionUpdate\":\"plan\",\"entries\":[]}") "{\"id\":2,\"result\":null}\n"),
        0);
    assert_true(has(&h.sent, "\"session/load\",\"params\":{\"sessionId\":\"s1\""));
    expect_log(&h, "ready(a 1.0 s1 resumed)\n");
    end(&h);
    assert_int_equal(begin(&h, &load), 0);
    assert_int_equal(say(&h, HELLO "{\"id\":2,\"error\":{\"code\":-1,\"message\":\"no such\"}}\n"
                                   "{\"id\":3,\"result\":{\"sessionId\":\"s2\"}}\n"),
                     0);
    expect_log(&h, "ready(a 1.0 s2 not:no such)\n");
    end(&h);
    assert_int_equal(begin(&h, &load), 0);
    assert_int_equal(say(&h, "{\"id\":1,\"result\":{\"protocolVersion\":1}}\n"
                             "{\"id\":2,\"result\":{\"sessionId\":\"s2\"}}\n"),
                     0);
    expect_log(&h, "ready(  s2 not:the agent cannot load conversations)\n");
    end(&h);
}

static void a_cancelled_turn_answers_what_is_open(void **state)
{
    (void)state;
    struct heard h;
    ready(&h, "x");
    assert_int_equal(say(&h, "{\"id\":\"p\",\"method\":\"session/request_permission\",\"params\":{"
                             "\"toolCall\":{\"toolCallId\":\"c\"},\"options\":[]}}\n"),
                     0);
    assert_int_equal(mu_acp_cancel(&h.acp), 0);
    assert_true(has(&h.sent,
                    "{\"jsonrpc\":\"2.0\",\"method\":\"session/cancel\",\"params\":{"
                    "\"sessionId\":\"s1\"}}\n{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"result\":{"
                    "\"outcome\":{\"outcome\":\"cancelled\"}}}\n"));
    assert_int_equal(mu_acp_answer(&h.acp, 1, MU_ACP_ALLOW), MU_E_NOT_FOUND);
    mu_buf_clear(&h.sent);
    assert_int_equal(
        say(&h, "{\"id\":9,\"method\":\"session/request_permission\",\"params\":{}}\n"), 0);
    assert_true(has(&h.sent, "\"id\":9,\"result\":{\"outcome\":{\"outcome\":\"cancelled\"}}"));
    assert_int_equal(say(&h, "{\"id\":3,\"result\":{\"stopReason\":\"cancelled\"}}\n"), 0);
    assert_true(has(&h.log, "turn(2 cancelled -1 -1)\n"));
    assert_int_equal(mu_acp_cancel(&h.acp), 0);
    assert_int_equal(mu_acp_prompt(&h.acp, MU_B("again")), 0);
    end(&h);
}

static void what_was_not_offered_is_refused_with_its_own_id(void **state)
{
    (void)state;
    static const char *const ids[] = {"0", "\"a\\\"b\"", "null", "-1.5e3", "{\"x\":[1]}", "[]"};
    for (size_t i = 0; i < MU_ARRAY_LEN(ids); i++) {
        struct heard h;
        char line[256], want[256];
        ready(&h, "x");
        snprintf(line, sizeof line, "{\"id\":%s,\"method\":\"fs/read_text_file\"}\n", ids[i]);
        snprintf(want, sizeof want, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"error\":{\"code\":-32601,",
                 ids[i]);
        assert_int_equal(say(&h, line), 0);
        assert_true(has(&h.sent, want));
        end(&h);
    }
}

static void questions_that_nobody_waits_for_are_gone(void **state)
{
    (void)state;
    struct heard h;
    ready(&h, "x");
    assert_int_equal(
        say(&h, "{\"id\":1,\"method\":\"session/request_permission\",\"params\":{\"toolCall\":{"
                "\"toolCallId\":\"c\"}}}\n{\"id\":2,\"method\":\"session/request_permission\","
                "\"params\":{}}\n{\"method\":\"$/cancel_request\",\"params\":{\"requestId\":1}}\n"
                "{\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}\n"),
        0);
    expect_log(&h, "ask(1 c other 'other' command= url= exact={\"toolCallId\":\"c\"})\n"
                   "ask(2 permission-2 other 'other' command= url= exact={})\n"
                   "gone(1)\ngone(2)\nturn(0 end_turn -1 -1)\n");
    end(&h);
}

static void nonsense_is_forgiven_or_ends_it_clearly(void **state)
{
    (void)state;
    struct heard h;
    ready(&h, "x");
    assert_int_equal(say(&h, "hello\n\n  \r\n[1]\n{\"a\":1}\n{\"id\":77,\"result\":1}\n{\"id\":3}\n"
                             "{\"method\":7,\"id\":1}\n{\"method\":\"session/update\"}\n"
                             "{\"method\":\"session/update\",\"params\":[]}\n" UPDATE("7")
                                 UPDATE("{\"sessionUpdate\":\"tool_call\"}")
                                     UPDATE("{\"sessionUpdate\":\"brand_new\"}") WORDS("ok")),
                     0);
    expect_log(&h, "noise(hello)\nnoise([1])\ntext(ok)\n");
    assert_int_equal(h.acp.garbage, 2);
    end(&h);
    static const struct {
        const char *line;
        int code;
    } bad[] = {
        {"{\"id\":5,\"method\":\"session/request_permission\",\"params\":{}}\n{\"id\":5,\"method\":"
         "\"session/request_permission\",\"params\":{}}\n",
         MU_E_PROTOCOL},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        ready(&h, "x");
        assert_int_equal(say(&h, bad[i].line), bad[i].code);
        assert_int_equal(say(&h, WORDS("more")), bad[i].code);
        assert_int_equal(mu_acp_prompt(&h.acp, MU_B("x")), bad[i].code);
        assert_true(h.acp.err.text[0]);
        end(&h);
    }
    assert_int_equal(begin(&h, &new_one), 0);
    assert_int_equal(say(&h, "{\"id\":1,\"result\":{\"protocolVersion\":2}}\n"), MU_E_VERSION);
    end(&h);
    assert_int_equal(begin(&h, &new_one), 0);
    assert_int_equal(say(&h, HELLO "{\"id\":2,\"result\":{}}\n"), MU_E_PROTOCOL);
    end(&h);
}

static void lines_have_a_bound(void **state)
{
    (void)state;
    struct heard h;
    ready(&h, "x");
    char *block = mu_alloc(1 << 20);
    memset(block, 'x', 1 << 20);
    int r = 0;
    for (int i = 0; i < 16; i++) {
        r = mu_acp_feed(&h.acp, mu_bytes_of(block, 1 << 20));
        assert_int_equal(r, 0);
    }
    assert_int_equal(mu_acp_feed(&h.acp, mu_bytes_of(block, 1)), MU_E_TOO_LARGE);
    end(&h);
    ready(&h, "x");
    memset(block, '[', 1 << 20);
    block[(1 << 20) - 1] = '\n';
    assert_int_equal(mu_acp_feed(&h.acp, mu_bytes_of(block, 1 << 20)), MU_E_TOO_LARGE);
    end(&h);
    mu_free(block);
}

static void rows_and_questions_are_bounded(void **state)
{
    (void)state;
    struct heard h;
    char line[512];
    ready(&h, "x");
    for (int i = 0; i < 3 * MU_ROWS; i++) {
        snprintf(line, sizeof line,
                 UPDATE("{\"sessionUpdate\":\"tool_call\",\"toolCallId\":\"t%d\"}"), i);
        assert_int_equal(say(&h, line), 0);
    }
    assert_int_equal(h.acp.rows.n, MU_ROWS);
    for (int i = 0; i < 2 * MU_ACP_ASKS; i++) {
        snprintf(line, sizeof line,
                 "{\"id\":%d,\"method\":\"session/request_permission\",\"params\":{}}\n", i);
        assert_int_equal(say(&h, line), 0);
    }
    assert_int_equal(h.acp.n_asks, MU_ACP_ASKS);
    assert_true(has(&h.sent, "too many permissions"));
    end(&h);
}

static void an_error_of_a_turn_has_its_words(void **state)
{
    (void)state;
    struct heard h;
    ready(&h, "x");
    assert_int_equal(say(&h, "{\"id\":3,\"error\":{\"code\":-32603,\"message\":\"Internal error\","
                             "\"data\":{\"details\":\"no quota\"}}}\n"),
                     0);
    expect_log(&h, "turn(1 Internal error: no quota -1 -1)\n");
    end(&h);
    ready(&h, "x");
    h.fail_send = MU_E_TOO_LARGE;
    assert_int_equal(say(&h, "{\"id\":1,\"method\":\"x\"}\n"), MU_E_TOO_LARGE);
    end(&h);
}

static int body(void *arg)
{
    (void)arg;
    struct heard h;
    int r = begin(&h, &new_one);
    if (!r) {
        h.prompt = "do it";
        h.answer = MU_ACP_ALLOW;
        r = say(&h, HELLO);
        r = r ? r : say(&h, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"sess");
        r = r ? r : say(&h, "ionId\":\"s1\"}}\n");
        r = r ? r : say(&h, transcripts[1].lines);
    }
    end(&h);
    return r;
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    each_allocation_fails(body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_agent_gives_the_same_however_its_bytes_come),
        cmocka_unit_test(what_is_said_at_the_start),
        cmocka_unit_test(a_conversation_is_loaded_and_its_history_is_not_told),
        cmocka_unit_test(a_cancelled_turn_answers_what_is_open),
        cmocka_unit_test(what_was_not_offered_is_refused_with_its_own_id),
        cmocka_unit_test(questions_that_nobody_waits_for_are_gone),
        cmocka_unit_test(nonsense_is_forgiven_or_ends_it_clearly),
        cmocka_unit_test(lines_have_a_bound),
        cmocka_unit_test(rows_and_questions_are_bounded),
        cmocka_unit_test(an_error_of_a_turn_has_its_words),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
