#include "../unit.h"

#include <errno.h>
#include <stdio.h>

#include "../alloc_fail.h"
#include "base/encode.h"
#include "exec/models.h"

/* --- requests --- */

static const struct mu_model_turn turns[] = {{MU_B("first"), MU_B("one")},
                                             {MU_B("second"), MU_B("")}};
static const struct mu_model_image images[] = {{MU_B("image/png"), MU_B("AAEC")}};

static void check_post(const struct mu_model_call *call, const char *url, const char *headers,
                       const char *body)
{
    struct mu_arena a;
    struct mu_model_post post;
    struct mu_err err = {0};
    mu_arena_init(&a, 1 << 20);
    if (mu_model_post(&a, call, &post, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(post.url, url);
    struct mu_buf all;
    mu_buf_init(&all, 4096);
    for (size_t i = 0; post.headers[i]; i++) {
        mu_buf_printf(&all, "%s;", post.headers[i]);
    }
    mu_buf_add_char(&all, 0);
    assert_string_equal(all.ptr, headers);
    assert_string_equal(post.body.ptr, body);
    mu_buf_fini(&all);
    mu_arena_fini(&a);
}

static void openai_requests_look_as_the_dialect_wants_them(void **state MU_UNUSED)
{
    struct mu_model_call call = {.wire = MU_WIRE_OPENAI,
                                 .base_url = "http://h/v1///",
                                 .model = MU_B("m"),
                                 .prompt = MU_B("say \"hi\"")};
    check_post(&call, "http://h/v1/chat/completions", "Content-Type: application/json;",
               "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"say "
               "\\\"hi\\\"\"}]}");
    call.api_key = "k1";
    call.system = MU_B("sys");
    call.stream = true;
    call.has_temperature = true;
    call.temperature = 0.2;
    call.max_tokens = 77;
    call.turns = turns;
    call.n_turns = 2;
    check_post(&call, "http://h/v1/chat/completions",
               "Content-Type: application/json;Authorization: Bearer k1;",
               "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"sys\"},"
               "{\"role\":\"user\",\"content\":\"first\"},"
               "{\"role\":\"assistant\",\"content\":\"one\"},"
               "{\"role\":\"user\",\"content\":\"second\"},"
               "{\"role\":\"user\",\"content\":\"say \\\"hi\\\"\"}],"
               "\"stream\":true,\"stream_options\":{\"include_usage\":true},"
               "\"temperature\":0.2,\"max_tokens\":77}");
}

static void openai_images_become_data_urls(void **state MU_UNUSED)
{
    struct mu_model_call call = {.wire = MU_WIRE_OPENAI,
                                 .base_url = "http://h",
                                 .model = MU_B("m"),
                                 .prompt = MU_B("p"),
                                 .images = images,
                                 .n_images = 1};
    check_post(&call, "http://h/chat/completions", "Content-Type: application/json;",
               "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":["
               "{\"type\":\"text\",\"text\":\"p\"},{\"type\":\"image_url\",\"image_url\":"
               "{\"url\":\"data:image/png;base64,AAEC\"}}]}]}");
}

static void anthropic_requests_look_as_the_dialect_wants_them(void **state MU_UNUSED)
{
    struct mu_model_call call = {.wire = MU_WIRE_ANTHROPIC,
                                 .api_key = "k2",
                                 .model = MU_B("c"),
                                 .system = MU_B("sys"),
                                 .prompt = MU_B("p"),
                                 .stream = true};
    check_post(&call, "https://api.anthropic.com/v1/messages",
               "Content-Type: application/json;x-api-key: k2;anthropic-version: 2023-06-01;"
               "Accept: text/event-stream;",
               "{\"model\":\"c\",\"messages\":[{\"role\":\"user\",\"content\":\"p\"}],"
               "\"max_tokens\":2048,\"stream\":true,\"system\":\"sys\"}");
    call.stream = false;
    call.base_url = "http://h/";
    call.max_tokens = 9;
    call.images = images;
    call.n_images = 1;
    call.turns = turns;
    call.n_turns = 1;
    call.has_temperature = true;
    check_post(&call, "http://h/v1/messages",
               "Content-Type: application/json;x-api-key: k2;anthropic-version: 2023-06-01;",
               "{\"model\":\"c\",\"messages\":[{\"role\":\"user\",\"content\":\"first\"},"
               "{\"role\":\"assistant\",\"content\":\"one\"},{\"role\":\"user\",\"content\":["
               "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\","
               "\"data\":\"AAEC\"}},{\"type\":\"text\",\"text\":\"p\"}]}],\"max_tokens\":9,"
               "\"system\":\"sys\",\"temperature\":0}");
}

static void the_extra_body_replaces_adds_and_removes_members(void **state MU_UNUSED)
{
    struct mu_model_call call = {
        .wire = MU_WIRE_OPENAI,
        .base_url = "http://h",
        .model = MU_B("m"),
        .prompt = MU_B("p"),
        .stream = true,
        .has_temperature = true,
        .temperature = 1,
        .extra_body = MU_B("{\"temperature\":0.5,\"stream_options\":null,\"top_p\":{\"x\":[1]}}")};
    check_post(&call, "http://h/chat/completions", "Content-Type: application/json;",
               "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"p\"}],"
               "\"stream\":true,\"temperature\":0.5,\"top_p\":{\"x\":[1]}}");
}

static void requests_that_cannot_work_are_refused(void **state MU_UNUSED)
{
    static const struct {
        struct mu_model_call call;
        const char *word;
    } rows[] = {
        {{.wire = MU_WIRE_OPENAI}, "base URL"},
        {{.wire = MU_WIRE_ANTHROPIC}, "Anthropic error: no API key"},
        {{.wire = MU_WIRE_ANTHROPIC, .api_key = ""}, "no API key"},
        {{.wire = MU_WIRE_OPENAI, .base_url = "http://h", .api_key = "a\r\nX: y"}, "control"},
        {{.wire = MU_WIRE_OPENAI, .base_url = "http://h", .extra_body = MU_B("[]")}, "object"},
        {{.wire = MU_WIRE_OPENAI, .base_url = "http://h", .extra_body = MU_B("{")}, "extra body"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_arena a;
        struct mu_model_post post;
        struct mu_err err = {0};
        mu_arena_init(&a, 1 << 20);
        assert_int_equal(mu_model_post(&a, &rows[i].call, &post, &err), MU_E_INVALID);
        assert_non_null(strstr(err.text, rows[i].word));
        assert_int_equal(mu_model_post(&a, &rows[i].call, &post, NULL), MU_E_INVALID);
        mu_arena_fini(&a);
    }
}

/* --- answers --- */

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

/* Reads an answer in pieces of `step` bytes; returns what feed said. */
static int read_answer(enum mu_model_wire wire, int status, bool sse, mu_bytes body, size_t step,
                       bool complete, size_t max, struct taken *t, struct mu_model_answer *ret)
{
    struct mu_model_reader *r = NULL;
    int e = mu_model_reader_new(wire, max, on_delta, t, &r);
    if (e < 0) {
        return e;
    }
    for (size_t at = 0; at < body.len && e == 0; at += step) {
        e = mu_model_reader_feed(r, status, sse, mu_bytes_head(mu_bytes_from(body, at), step));
    }
    mu_model_reader_end(r, status, "Some Text", complete, ret);
    assert_null(mu_model_reader_free(r));
    return e;
}

#define D(text)   "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define STOP(why) "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"" why "\"}]}\n\n"
#define DONE      "data: [DONE]\n\n"
#define A_DELTA(text)                                                                              \
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":"     \
    "\"text_delta\",\"text\":\"" text "\"}}\n\n"
#define A_STOP(why)                                                                                \
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"" why    \
    "\"},\"usage\":{\"output_tokens\":5}}\n\nevent: message_stop\ndata: "                          \
    "{\"type\":\"message_stop\"}\n\n"
#define A_START                                                                                    \
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":"              \
    "{\"input_tokens\":7,\"cache_read_input_tokens\":2,\"output_tokens\":1}}}\n\n"

static const struct row {
    enum mu_model_wire wire;
    int status;
    bool sse, broken;
    const char *body, *text;
    enum mu_model_class cls;
    const char *words; /* in the error text */
    int64_t in, out;
    bool truncated;
} rows[] = {
    /* OpenAI, streaming */
    {.sse = true, .body = D("Hel") D("lo") STOP("stop") DONE, .text = "Hello"},
    {.sse = true,
     .body = D("a") STOP("length") "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,"
                                   "\"completion_tokens\":4}}\n\n" DONE,
     .text = "a",
     .in = 3,
     .out = 4,
     .truncated = true},
    {.sse = true, .body = ": ping\n\ndata: nonsense\n\n" D("a") "data: []\n\n" DONE, .text = "a"},
    {.sse = true, .body = D("a") DONE, .text = "a"},
    {.sse = true, .body = D("a") STOP("stop"), .text = "a"},
    {.sse = true, .body = D("a") STOP("stop"), .text = "a", .broken = true},
    {.sse = true, .body = D("a") DONE D("late"), .text = "a"},
    {.sse = true,
     .body = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n" D(
         "x") DONE,
     .text = "x"},
    {.sse = true,
     .body = "data: {\"choices\":[{\"delta\":{\"content\":[{\"type\":\"text\",\"text\":\"p\"},"
             "{\"type\":\"image\"},{\"text\":\"q\"}]}}]}\n\n" DONE,
     .text = "pq"},
    {.sse = true, .body = D("a"), .text = "a", .cls = MU_MODEL_BAD_RESPONSE, .words = "ended"},
    {.sse = true,
     .body = D("a"),
     .text = "a",
     .broken = true,
     .cls = MU_MODEL_BAD_RESPONSE,
     .words = "broke"},
    {.sse = true, .body = DONE, .text = "", .cls = MU_MODEL_BAD_RESPONSE, .words = "no text"},
    {.sse = true, .body = D(" \\n") DONE, .text = " \n", .cls = MU_MODEL_BAD_RESPONSE},
    {.sse = true, .body = "", .text = "", .cls = MU_MODEL_BAD_RESPONSE, .words = "empty"},
    {.sse = true,
     .body = D("a") "data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\"}}\n\n" D("b"),
     .text = "a",
     .cls = MU_MODEL_UNAVAILABLE,
     .words = "Provider error: server_error: boom"},
    {.sse = true,
     .body = "data: {\"error\":{\"message\":\"slow down\",\"code\":429}}\n\n",
     .text = "",
     .cls = MU_MODEL_RATE_LIMITED,
     .words = "Provider rate limited: slow down"},
    {.sse = true,
     .body = "data: {\"error\":{\"message\":\"x\",\"code\":\"rate_limit_exceeded\"}}\n\n",
     .text = "",
     .cls = MU_MODEL_RATE_LIMITED,
     .words = "x"},
    {.sse = true,
     .body = "data: {\"error\":\"went wrong\"}\n\n",
     .text = "",
     .cls = MU_MODEL_BAD_RESPONSE,
     .words = "went wrong"},
    /* a plain answer to a streaming request, and a stream that is called plain */
    {.sse = true,
     .body = "\n {\"choices\":[{\"message\":{\"content\":\"plain\"},\"finish_reason\":\"stop\"}]}",
     .text = "plain"},
    {.body = D("a") DONE, .text = "a"},
    /* OpenAI, plain */
    {.body = "{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"length\"}],"
             "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}",
     .text = "hi",
     .in = 1,
     .out = 2,
     .truncated = true},
    {.body = "{\"choices\":[{\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
             "{\"type\":\"output_text\",\"text\":\"b\"}]}}]}",
     .text = "ab"},
    {.body = "{\"choices\":[{\"message\":{\"content\":null}}]}",
     .text = "",
     .cls = MU_MODEL_BAD_RESPONSE,
     .words = "Provider error: the answer has no choices[0].message.content"},
    {.body = "{\"choices\":[{\"message\":{\"content\":\"\"}}]}",
     .text = "",
     .cls = MU_MODEL_BAD_RESPONSE,
     .words = "no text"},
    {.body = "{}", .text = "", .cls = MU_MODEL_BAD_RESPONSE, .words = "choices[0]"},
    {.body = "[]", .text = "", .cls = MU_MODEL_BAD_RESPONSE, .words = "choices[0]"},
    {.body = "{\"choices\"", .text = "", .cls = MU_MODEL_BAD_RESPONSE, .words = "choices[0]"},
    {.body = "{\"choices\"",
     .text = "",
     .broken = true,
     .cls = MU_MODEL_BAD_RESPONSE,
     .words = "broke"},
    {.body = "<!doctype html><p>hi", .text = "", .cls = MU_MODEL_BAD_RESPONSE, .words = "HTML"},
    {.sse = true, .body = "<html>", .text = "", .cls = MU_MODEL_BAD_RESPONSE, .words = "HTML"},
    {.body = "  ", .text = "", .cls = MU_MODEL_BAD_RESPONSE, .words = "empty"},
    {.status = 204, .body = "", .text = "", .cls = MU_MODEL_BAD_RESPONSE, .words = "empty"},
    {.body = "{\"error\":{\"message\":\"no\",\"type\":\"authentication_error\"}}",
     .text = "",
     .cls = MU_MODEL_AUTH,
     .words = "Provider error: authentication_error: no"},
    /* statuses */
    {.status = 429,
     .body = "slow",
     .text = "",
     .cls = MU_MODEL_RATE_LIMITED,
     .words = "Provider rate limited: slow"},
    {.status = 429,
     .body = "",
     .text = "",
     .cls = MU_MODEL_RATE_LIMITED,
     .words = "Provider rate limited: Some Text"},
    {.status = 408,
     .body = "b",
     .text = "",
     .cls = MU_MODEL_UNAVAILABLE,
     .words = "Provider error: 408 Some Text: b"},
    {.status = 500, .body = "b", .text = "", .cls = MU_MODEL_UNAVAILABLE},
    {.status = 502, .body = "<html>bad gateway", .text = "", .cls = MU_MODEL_UNAVAILABLE},
    {.status = 503, .body = "", .text = "", .cls = MU_MODEL_UNAVAILABLE, .words = "503 Some Text"},
    {.status = 504, .body = "b", .text = "", .cls = MU_MODEL_UNAVAILABLE},
    {.status = 529, .body = "b", .text = "", .cls = MU_MODEL_UNAVAILABLE},
    {.status = 599, .body = "b", .text = "", .cls = MU_MODEL_UNAVAILABLE},
    {.status = 401, .body = "b", .text = "", .cls = MU_MODEL_AUTH},
    {.status = 403, .body = "b", .text = "", .cls = MU_MODEL_AUTH},
    {.status = 400, .body = "b", .text = "", .cls = MU_MODEL_BAD_REQUEST},
    {.status = 404, .body = "no route", .text = "", .cls = MU_MODEL_BAD_REQUEST},
    {.status = 404,
     .body = "{\"error\":{\"message\":\"The model `x` does not exist\"}}",
     .text = "",
     .cls = MU_MODEL_NO_MODEL,
     .words = "does not exist"},
    {.status = 404,
     .body = "{\"error\":\"Model not found\"}",
     .text = "",
     .cls = MU_MODEL_NO_MODEL},
    {.status = 413, .body = "b", .text = "", .cls = MU_MODEL_BAD_REQUEST},
    {.status = 418, .body = "b", .text = "", .cls = MU_MODEL_BAD_REQUEST},
    {.status = 422, .body = "b", .text = "", .cls = MU_MODEL_BAD_REQUEST},
    {.status = 302,
     .body = "see http://elsewhere/",
     .text = "",
     .cls = MU_MODEL_BAD_RESPONSE,
     .words = "redirects are not followed"},
    {.status = 500,
     .sse = true,
     .body = D("not a delta") DONE,
     .text = "",
     .cls = MU_MODEL_UNAVAILABLE},
    {.status = 500,
     .body = "half",
     .broken = true,
     .text = "",
     .cls = MU_MODEL_UNAVAILABLE,
     .words = "half"},
    /* Anthropic */
    {.wire = MU_WIRE_ANTHROPIC,
     .sse = true,
     .body = A_START "event: ping\ndata: {\"type\":\"ping\"}\n\n" A_DELTA("Hel") A_DELTA("lo")
         A_STOP("end_turn"),
     .text = "Hello",
     .in = 9,
     .out = 5},
    {.wire = MU_WIRE_ANTHROPIC,
     .sse = true,
     .body = A_DELTA("a") A_STOP("max_tokens"),
     .text = "a",
     .out = 5,
     .truncated = true},
    {.wire = MU_WIRE_ANTHROPIC,
     .sse = true,
     .body = "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"no names\"}}\n\n"
             "data: {\"type\":\"message_stop\"}\n\n",
     .text = "no names"},
    {.wire = MU_WIRE_ANTHROPIC,
     .sse = true,
     .body = A_START A_DELTA("a"),
     .text = "a",
     .in = 9,
     .out = 1,
     .cls = MU_MODEL_BAD_RESPONSE,
     .words = "Anthropic error: the stream ended"},
    {.wire = MU_WIRE_ANTHROPIC,
     .sse = true,
     .body = A_DELTA("a") "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":"
                          "\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n" A_DELTA("b"),
     .text = "a",
     .cls = MU_MODEL_UNAVAILABLE,
     .words = "Anthropic error: overloaded_error: Overloaded"},
    {.wire = MU_WIRE_ANTHROPIC,
     .sse = true,
     .body = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\","
             "\"message\":\"later\"}}\n\n",
     .text = "",
     .cls = MU_MODEL_RATE_LIMITED,
     .words = "Anthropic rate limited: rate_limit_error: later"},
    {.wire = MU_WIRE_ANTHROPIC,
     .body = "{\"content\":[{\"type\":\"thinking\",\"thinking\":\"h\"},{\"type\":\"text\",\"text\":"
             "\"a\"},{\"type\":\"text\",\"text\":\"b\"}],\"stop_reason\":\"max_tokens\",\"usage\":"
             "{\"input_tokens\":1,\"output_tokens\":2}}",
     .text = "ab",
     .in = 1,
     .out = 2,
     .truncated = true},
    {.wire = MU_WIRE_ANTHROPIC,
     .body = "{\"content\":\"text\"}",
     .text = "",
     .cls = MU_MODEL_BAD_RESPONSE,
     .words = "Anthropic error: the answer has no content"},
    {.wire = MU_WIRE_ANTHROPIC,
     .body = "{\"content\":[]}",
     .text = "",
     .cls = MU_MODEL_BAD_RESPONSE,
     .words = "no text"},
    {.wire = MU_WIRE_ANTHROPIC,
     .status = 529,
     .body = "over",
     .text = "",
     .cls = MU_MODEL_UNAVAILABLE,
     .words = "Anthropic error: 529 Some Text: over"},
    {.wire = MU_WIRE_ANTHROPIC,
     .status = 404,
     .body = "{\"error\":{\"type\":\"not_found_error\",\"message\":\"model: c\"}}",
     .text = "",
     .cls = MU_MODEL_NO_MODEL},
};

static void answers_are_judged_the_same_however_they_are_cut(void **state MU_UNUSED)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        const struct row *row = &rows[i];
        static const size_t steps[] = {1, 2, 7, 100000};
        for (size_t k = 0; k < MU_ARRAY_LEN(steps); k++) {
            struct taken t = {.refuse = 0};
            struct mu_model_answer a;
            mu_buf_init(&t.text, 1 << 16);
            (void)!read_answer(row->wire, row->status ? row->status : 200, row->sse,
                               mu_str(row->body), steps[k], !row->broken, 1 << 16, &t, &a);
            if (a.cls != row->cls || !mu_bytes_is(mu_buf_bytes(&t.text), row->text)) {
                fail_msg("row %zu step %zu: %s \"%.*s\" (%s)", i, steps[k],
                         mu_model_class_name(a.cls), MU_ARGS(mu_buf_bytes(&t.text)), a.err.text);
            }
            if (row->words && !strstr(a.err.text, row->words)) {
                fail_msg("row %zu: \"%s\" lacks \"%s\"", i, a.err.text, row->words);
            }
            assert_int_equal(a.tokens_in, row->in);
            assert_int_equal(a.tokens_out, row->out);
            assert_int_equal(a.truncated, row->truncated);
            assert_int_equal(a.err.code < 0, a.cls != MU_MODEL_OK);
            if (a.cls != MU_MODEL_OK) {
                const char *want = row->wire == MU_WIRE_OPENAI ? "Provider " : "Anthropic ";
                assert_true(mu_bytes_starts(mu_str(a.err.text), mu_str(want)));
            }
            mu_buf_fini(&t.text);
        }
    }
}

static void an_error_event_ends_the_call(void **state MU_UNUSED)
{
    struct taken t = {.refuse = 0};
    struct mu_model_answer a;
    mu_buf_init(&t.text, 1000);
    assert_int_equal(read_answer(MU_WIRE_OPENAI, 200, true, MU_B("data: {\"error\":\"x\"}\n\n"), 9,
                                 true, 1000, &t, &a),
                     MU_E_PROTOCOL);
    mu_buf_fini(&t.text);
}

static void text_over_the_limit_ends_the_call(void **state MU_UNUSED)
{
    static const char *const bodies[] = {
        D("12345") D("67890") DONE, "{\"choices\":[{\"message\":{\"content\":\"1234567890\"}}]}"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bodies); i++) {
        struct taken t = {.refuse = 0};
        struct mu_model_answer a;
        mu_buf_init(&t.text, 1000);
        read_answer(MU_WIRE_OPENAI, 200, i == 0, mu_str(bodies[i]), 1000, true, 9, &t, &a);
        assert_int_equal(a.cls, MU_MODEL_BAD_RESPONSE);
        assert_int_equal(a.err.code, MU_E_TOO_LARGE);
        assert_true(t.text.len <= 9);
        t.text.len = 0;
        read_answer(MU_WIRE_OPENAI, 200, i == 0, mu_str(bodies[i]), 1000, true, 10, &t, &a);
        assert_int_equal(a.cls, MU_MODEL_OK);
        mu_buf_fini(&t.text);
    }
}

static void a_caller_that_refuses_ends_the_call_with_its_code(void **state MU_UNUSED)
{
    struct taken t = {.refuse = MU_E_CANCELLED};
    struct mu_model_answer a;
    mu_buf_init(&t.text, 1000);
    assert_int_equal(
        read_answer(MU_WIRE_OPENAI, 200, true, MU_B(D("a") D("b") DONE), 5, true, 1000, &t, &a),
        MU_E_CANCELLED);
    assert_true(mu_bytes_is(mu_buf_bytes(&t.text), "a"));
    assert_int_equal(a.err.code, MU_E_CANCELLED);
    mu_buf_fini(&t.text);
}

static const char *error_text_of(mu_bytes body, struct mu_model_answer *a)
{
    struct taken t = {.refuse = 0};
    mu_buf_init(&t.text, 1000);
    (void)!read_answer(MU_WIRE_OPENAI, 500, false, body, 4096, true, 1000, &t, a);
    mu_buf_fini(&t.text);
    return a->err.text;
}

static void error_texts_carry_no_urls_keys_or_line_breaks(void **state MU_UNUSED)
{
    struct mu_model_answer a;
    const char *text =
        error_text_of(MU_B("see xhttps://user:pw@host/v1?key=abc \"HTTP://x/\"\r\n\tIncorrect key "
                           "sk-test-12345678 or 0123456789abcdefABCDEF0123456789, model "
                           "claude-3-5-sonnet-20241022 "
                           "key-value httpd"),
                      &a);
    assert_string_equal(text, "Provider error: 500 Some Text: see x[url] \"[url]\" Incorrect key "
                              "[key] or [key], model claude-3-5-sonnet-20241022 key-value httpd");
}

static void error_texts_are_cut_between_characters(void **state MU_UNUSED)
{
    for (size_t shift = 0; shift < 4; shift++) {
        struct mu_buf body;
        struct mu_model_answer a;
        mu_buf_init(&body, 1 << 20);
        for (size_t i = 0; i < shift; i++) {
            mu_buf_add_char(&body, 'x');
        }
        for (size_t i = 0; i < 100000; i++) {
            mu_buf_add_str(&body, "\xe2\x82\xac");
        }
        const char *text = error_text_of(mu_buf_bytes(&body), &a);
        assert_true(mu_utf8_valid(mu_str(text)));
        assert_true(strlen(text) > 440 && strlen(text) <= 500);
        mu_buf_fini(&body);
    }
}

static int one_call(void *arg)
{
    const struct row *row = arg;
    struct taken t = {.refuse = 0};
    struct mu_model_answer a;
    mu_buf_init(&t.text, 1000);
    int e = read_answer(row->wire, row->status ? row->status : 200, row->sse, mu_str(row->body), 11,
                        true, 1000, &t, &a);
    mu_buf_fini(&t.text);
    return e;
}

static int one_request(void *arg MU_UNUSED)
{
    struct mu_arena a;
    struct mu_model_post post;
    struct mu_err err;
    struct mu_model_call call = {.wire = MU_WIRE_OPENAI,
                                 .base_url = "http://h",
                                 .api_key = "k",
                                 .prompt = MU_B("p"),
                                 .images = images,
                                 .n_images = 1,
                                 .extra_body = MU_B("{\"a\":1}")};
    mu_arena_init(&a, 1 << 16);
    int e = mu_model_post(&a, &call, &post, &err);
    assert_true(e == 0 || e == -ENOMEM);
    mu_arena_fini(&a);
    return e;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    each_allocation_fails(one_request, NULL);
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        each_allocation_fails(one_call, (void *)(uintptr_t)&rows[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(openai_requests_look_as_the_dialect_wants_them),
        cmocka_unit_test(openai_images_become_data_urls),
        cmocka_unit_test(anthropic_requests_look_as_the_dialect_wants_them),
        cmocka_unit_test(the_extra_body_replaces_adds_and_removes_members),
        cmocka_unit_test(requests_that_cannot_work_are_refused),
        cmocka_unit_test(answers_are_judged_the_same_however_they_are_cut),
        cmocka_unit_test(an_error_event_ends_the_call),
        cmocka_unit_test(text_over_the_limit_ends_the_call),
        cmocka_unit_test(a_caller_that_refuses_ends_the_call_with_its_code),
        cmocka_unit_test(error_texts_carry_no_urls_keys_or_line_breaks),
        cmocka_unit_test(error_texts_are_cut_between_characters),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
