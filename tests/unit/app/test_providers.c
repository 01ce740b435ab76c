/* The router: candidates, gates, and HTTP calls through a driven seam. */
#include "providers_world.h"

#include "../alloc_fail.h"

#define OPENAI_DELTA(t) "data: {\"choices\":[{\"delta\":{\"content\":\"" t "\"}}]}\n\n"
#define OPENAI_END                                                                                 \
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":" \
    "7,"                                                                                           \
    "\"completion_tokens\":3}}\n\ndata: [DONE]\n\n"

static struct world w;

static int set_up(void **state)
{
    (void)state;
    world_begin(&w);
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    world_end(&w);
    return 0;
}

static struct mu_fetch *start(const char *key)
{
    const struct mu_call_request req = request(&w, key, "hello");
    struct mu_provider_call *c;
    assert_int_equal(mu_provider_call(w.p, &req, &c), 0);
    return &w.fetches[(w.n_fetches - 1) % MAX_FETCHES];
}

static void an_answer_streams_and_is_counted(void **state)
{
    (void)state;
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    world_start(&w);
    struct mu_fetch *x = start("glm");
    assert_int_equal(provider(&w, "glm")->running, 1);
    assert_int_equal(feed(x, 200, OPENAI_DELTA("Hel")), 0);
    assert_string_equal(w.out, "Hel");
    assert_int_equal(feed(x, 200, OPENAI_DELTA("lo") OPENAI_END), 0);
    assert_int_equal(w.dones, 0);
    end_fetch(x, MU_FETCH_OK, 200, -1);
    assert_int_equal(w.dones, 1);
    assert_class(&w, MU_CALL_OK);
    assert_string_equal(w.out, "Hello");
    assert_string_equal(w.text, "");
    assert_false(w.has_final);
    assert_true(w.result.counted);
    assert_int_equal(w.result.status, 200);
    assert_int_equal(w.result.tokens_in, 7);
    assert_int_equal(w.result.tokens_out, 3);
    assert_int_equal(provider(&w, "glm")->running, 0);
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    mu_metrics_write(w.metrics, &b);
    mu_buf_add_char(&b, 0);
    assert_has(b.ptr, "muster_provider_calls_total{provider=\"glm\",class=\"ok\"} 1");
    assert_has(b.ptr, "muster_provider_calls_total{provider=\"glm\",class=\"rate_limited\"} 0");
    assert_has(b.ptr, "muster_provider_call_seconds_count 1");
    mu_buf_fini(&b);
}

static void the_request_is_as_configured(void **state)
{
    (void)state;
    struct mu_provider_conf *glm = add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    struct mu_provider_conf *claude = add_conf(&w, "claude", MU_PROVIDER_ANTHROPIC);
    claude->base_url = NULL;
    world_start(&w);
    struct mu_fetch *x = start("glm");
    assert_string_equal(x->url, "https://models.example/v1/chat/completions");
    assert_has(x->headers, "Authorization: Bearer key-0123456789\n");
    assert_has(x->body, "\"model\":\"m-1\"");
    assert_has(x->body, "\"stream\":true");
    assert_has(x->body, "\"temperature\":0.2");
    assert_has(x->body, "You are an AI agent");
    assert_has(x->body, "{\"role\":\"user\",\"content\":\"hello\"}");
    assert_int_equal(x->req.connect_ms, 10000);
    assert_int_equal(x->req.first_byte_ms, 5000);
    assert_int_equal(x->req.idle_ms, 60000);
    assert_int_equal(x->req.total_ms, 600000);
    end_fetch(x, MU_FETCH_CONNECT, 0, -1);

    glm->system_prompt = "Speak Latin.";
    x = start("glm");
    assert_has(x->body, "Speak Latin.");
    assert_has_not(x->body, "You are an AI agent");
    end_fetch(x, MU_FETCH_CONNECT, 0, -1);
    struct mu_call_request req = request(&w, "glm", "hello");
    struct mu_provider_call *c;
    req.system = MU_B("Speak Greek.");
    assert_int_equal(mu_provider_call(w.p, &req, &c), 0);
    x = &w.fetches[2];
    assert_has(x->body, "Speak Greek.");
    assert_has_not(x->body, "Latin");
    end_fetch(x, MU_FETCH_CONNECT, 0, -1);

    x = start("claude");
    assert_string_equal(x->url, "https://api.anthropic.com/v1/messages");
    assert_has(x->headers, "x-api-key: key-0123456789\n");
    assert_has(x->body, "\"max_tokens\":2048");
    end_fetch(x, MU_FETCH_CONNECT, 0, -1);
}

struct row {
    enum mu_fetch_end end;
    int status;
    const char *body;
    enum mu_call_class cls;
    bool counted;
};

/* oz-providers.md 4.1 and 9. */
static const struct row failures[] = {
    {MU_FETCH_OK, 429, "slow down", MU_CALL_RATE_LIMITED, false},
    {MU_FETCH_BROKEN, 429, "slo", MU_CALL_RATE_LIMITED, false},
    {MU_FETCH_CONNECT, 0, NULL, MU_CALL_UNAVAILABLE, false},
    {MU_FETCH_TLS, 0, NULL, MU_CALL_UNAVAILABLE, false},
    {MU_FETCH_TIMEOUT, 0, NULL, MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_BROKEN, 0, NULL, MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_FAILED, 0, NULL, MU_CALL_UNAVAILABLE, false},
    {MU_FETCH_OK, 408, "", MU_CALL_UNAVAILABLE, false},
    {MU_FETCH_OK, 500, "oops", MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_OK, 502, "oops", MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_OK, 503, "oops", MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_OK, 504, "oops", MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_OK, 529, "oops", MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_STALLED, 503, "oo", MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_OK, 401, "no", MU_CALL_AUTH, false},
    {MU_FETCH_OK, 403, "no", MU_CALL_AUTH, false},
    {MU_FETCH_OK, 400, "bad", MU_CALL_BAD_REQUEST, false},
    {MU_FETCH_OK, 404, "no such page", MU_CALL_BAD_REQUEST, false},
    {MU_FETCH_OK, 413, "big", MU_CALL_BAD_REQUEST, false},
    {MU_FETCH_OK, 422, "bad", MU_CALL_BAD_REQUEST, false},
    {MU_FETCH_OK, 404, "{\"error\":{\"message\":\"The model m-1 was not found\"}}",
     MU_CALL_NO_MODEL, false},
    {MU_FETCH_OK, 302, "to another place", MU_CALL_BAD_RESPONSE, false},
    {MU_FETCH_OK, 200, "", MU_CALL_BAD_RESPONSE, true},
    {MU_FETCH_OK, 200, "<html><body>hello</body></html>", MU_CALL_BAD_RESPONSE, true},
    {MU_FETCH_OK, 200, "{\"choices\":[]}", MU_CALL_BAD_RESPONSE, true},
    {MU_FETCH_OK, 200, OPENAI_END, MU_CALL_BAD_RESPONSE, true},
    {MU_FETCH_OK, 200, OPENAI_DELTA(" \\n") OPENAI_END, MU_CALL_BAD_RESPONSE, true},
    {MU_FETCH_OK, 200, OPENAI_DELTA("half"), MU_CALL_BAD_RESPONSE, true},
    {MU_FETCH_BROKEN, 200, "", MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_BROKEN, 200, OPENAI_DELTA("half"), MU_CALL_BAD_RESPONSE, true},
    {MU_FETCH_STALLED, 200, "", MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_STALLED, 200, OPENAI_DELTA("half"), MU_CALL_BAD_RESPONSE, true},
    {MU_FETCH_TOO_LARGE, 200, OPENAI_DELTA("half"), MU_CALL_BAD_RESPONSE, true},
    {MU_FETCH_TOO_LARGE, 500, "oops", MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_ABORTED, 200,
     "data: {\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n",
     MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_ABORTED, 200,
     OPENAI_DELTA("half") "data: {\"error\":{\"type\":\"overloaded_error\"}}\n\n",
     MU_CALL_UNAVAILABLE, true},
    {MU_FETCH_ABORTED, 200, "data: {\"error\":{\"type\":\"rate_limit_error\"}}\n\n",
     MU_CALL_RATE_LIMITED, false},
};

static void every_failure_has_its_class(void **state)
{
    (void)state;
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    world_start(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(failures); i++) {
        struct mu_fetch *x = start("glm");
        int fed = failures[i].body ? feed(x, failures[i].status, failures[i].body) : 0;
        assert_true((fed < 0) == (failures[i].end == MU_FETCH_ABORTED));
        end_fetch(x, failures[i].end, failures[i].status, failures[i].status == 429 ? 7000 : -1);
        if (w.result.cls != failures[i].cls || w.result.counted != failures[i].counted) {
            fail_msg("row %zu: %s, counted %d: %s", i, mu_call_class_name(w.result.cls),
                     w.result.counted, w.text);
        }
        assert_true(w.text[0] != 0);
        assert_int_equal(w.result.retry_after_ms, failures[i].status == 429 ? 7000 : 0);
    }
    assert_int_equal(w.dones, MU_ARRAY_LEN(failures));
}

static void fallback_follows_the_table(void **state)
{
    (void)state;
    static const struct {
        enum mu_call_class cls;
        bool before, after; /* output */
        const char *code;
    } rows[] = {
        {MU_CALL_OK, false, false, ""},
        {MU_CALL_RATE_LIMITED, true, true, "rate_limited"},
        {MU_CALL_UNAVAILABLE, true, true, "provider_unavailable"},
        {MU_CALL_AUTH, true, true, "provider_auth"},
        {MU_CALL_BAD_REQUEST, false, false, "provider_bad_request"},
        {MU_CALL_NO_MODEL, true, true, "provider_bad_request"},
        {MU_CALL_BAD_RESPONSE, true, true, "provider_bad_response"},
        {MU_CALL_CLI_FAILED, true, false, "cli_failed"},
        {MU_CALL_CLI_TIMEOUT, false, false, "cli_timeout"},
        {MU_CALL_CLI_OUTPUT_LIMIT, false, false, "cli_output_limit"},
        {MU_CALL_CONFIG, true, true, "config"},
        {MU_CALL_CANCELLED, false, false, "cancelled"},
    };
    assert_int_equal(MU_ARRAY_LEN(rows), MU_CALL_CLASSES);
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        assert_int_equal(mu_call_falls_back(rows[i].cls, false), rows[i].before);
        assert_int_equal(mu_call_falls_back(rows[i].cls, true), rows[i].after);
        assert_string_equal(mu_call_error_code(rows[i].cls), rows[i].code);
    }
}

static void an_answer_beyond_the_limit_is_a_bad_response(void **state)
{
    (void)state;
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    world_start(&w);
    struct mu_fetch *x = start("glm");
    int r = 0;
    for (int i = 0; i < 1000 && r == 0; i++) {
        r = feed(x, 200, OPENAI_DELTA("eight by"));
    }
    assert_true(r < 0);
    end_fetch(x, MU_FETCH_ABORTED, 200, -1);
    assert_class(&w, MU_CALL_BAD_RESPONSE);
    assert_true(w.out_len <= 4096);

    static char big[1 << 20];
    memset(big, 'a', sizeof big - 1);
    x = start("glm"); /* an error page is read, but only its beginning is kept */
    assert_int_equal(feed(x, 500, big), 0);
    end_fetch(x, MU_FETCH_OK, 500, -1);
    assert_class(&w, MU_CALL_UNAVAILABLE);
    assert_true(mu_utf8_count(mu_str(w.text)) <= 500);
}

static void texts_hold_neither_key_nor_url(void **state)
{
    (void)state;
    struct mu_provider_conf *c = add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    c->api_key = "plainword";
    c->base_url = "https://user:pw@models.example/v1";
    world_start(&w);
    char body[700];
    struct mu_fetch *x = start("glm");
    feed(x, 401,
         "the key plainword is wrong at https://user:pw@models.example/v1/chat, plainword!");
    end_fetch(x, MU_FETCH_OK, 401, -1);
    assert_class(&w, MU_CALL_AUTH);
    assert_has(w.text, "[redacted]");
    assert_has_not(w.text, "plainword");
    assert_has_not(w.text, "models.example");
    for (size_t pad = 380; pad < 480; pad++) { /* also where the text was cut inside the key */
        memset(body, 'a', sizeof body);
        for (size_t i = 9; i < pad; i += 10) {
            body[i] = ' ';
        }
        snprintf(body + pad, sizeof body - pad, " plainword and more");
        x = start("glm");
        feed(x, 400, body);
        end_fetch(x, MU_FETCH_OK, 400, -1);
        assert_has_not(w.text, "plainw");
    }
}

static void a_missing_key_fails_before_any_request(void **state)
{
    (void)state;
    struct mu_provider_conf *c = add_conf(&w, "my-llm", MU_PROVIDER_ANTHROPIC);
    c->api_key = NULL;
    c = add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    c->base_url = NULL;
    c = add_conf(&w, "kimi", MU_PROVIDER_OPENAI);
    c->extra_body = "[1]";
    world_start(&w);
    call(&w, "my-llm", "hello");
    assert_class(&w, MU_CALL_AUTH);
    assert_has(w.text, "Anthropic error:");
    assert_has(w.text, "OZ_PROVIDER_MY_LLM_API_KEY");
    assert_has(w.text, "OZ_PROVIDER_API_KEY");
    assert_false(w.result.counted);
    call(&w, "glm", "hello");
    assert_class(&w, MU_CALL_CONFIG);
    assert_has(w.text, "OZ_PROVIDER_GLM_BASE_URL");
    call(&w, "kimi", "hello");
    assert_class(&w, MU_CALL_CONFIG);
    assert_int_equal(w.n_fetches, 0);
}

static void an_abort_ends_as_cancelled(void **state)
{
    (void)state;
    struct mu_provider_conf *conf = add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    world_start(&w);
    struct mu_call_request req = request(&w, "glm", "hello");
    struct mu_provider_call *c;
    assert_int_equal(mu_provider_call(w.p, &req, &c), 0);
    struct mu_fetch *x = &w.fetches[0];
    mu_provider_call_abort(c);
    mu_provider_call_abort(c);
    assert_true(x->abort_asked);
    assert_int_equal(w.dones, 0);
    assert_true(feed(x, 200, OPENAI_DELTA("late")) < 0);
    end_fetch(x, MU_FETCH_ABORTED, 0, -1);
    assert_class(&w, MU_CALL_CANCELLED);
    assert_string_equal(w.out, "");

    w.refuse = MU_E_TOO_LARGE; /* the caller does not want more */
    x = start("glm");
    assert_int_equal(feed(x, 200, OPENAI_DELTA("x")), MU_E_TOO_LARGE);
    end_fetch(x, MU_FETCH_ABORTED, 200, -1);
    assert_class(&w, MU_CALL_CANCELLED);
    w.refuse = 0;

    conf->api_key = NULL; /* a call that ended before it began */
    conf->base_url = NULL;
    req = request(&w, "glm", "hello");
    assert_int_equal(mu_provider_call(w.p, &req, &c), 0);
    mu_provider_call_abort(c);
    run_until_done(&w);
    assert_class(&w, MU_CALL_CANCELLED);
}

static enum mu_provider_gate gate(const char *key, const char *org, int64_t *until)
{
    *until = 0;
    return mu_provider_gate(provider(&w, key), org, w.now_ms, until);
}

static void learn(const char *key, const char *org, enum mu_call_class cls, int64_t retry_ms)
{
    const struct mu_call_result r = {
        .cls = cls, .retry_after_ms = retry_ms, .text = "", .counted = cls == MU_CALL_OK};
    mu_provider_learn(provider(&w, key), org, &r);
}

static void five_failures_open_the_breaker_and_one_trial_closes_it(void **state)
{
    (void)state;
    int64_t until;
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    world_start(&w);
    for (int i = 0; i < 20; i++) { /* never five within 30 s */
        learn("glm", "o", MU_CALL_UNAVAILABLE, 0);
        w.now_ms += 7600;
    }
    assert_int_equal(gate("glm", "o", &until), MU_P_OK);
    w.now_ms += 60000;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(gate("glm", "o", &until), MU_P_OK);
        learn("glm", "o", MU_CALL_UNAVAILABLE, 0);
        w.now_ms += 100;
    }
    assert_int_equal(gate("glm", "o", &until), MU_P_BROKEN);
    assert_int_equal(until, w.now_ms - 100 + 15000);
    w.now_ms = until - 1;
    assert_int_equal(gate("glm", "o", &until), MU_P_BROKEN);
    w.now_ms += 1;
    assert_int_equal(gate("glm", "o", &until), MU_P_OK);
    struct mu_fetch *x = start("glm");
    assert_int_equal(gate("glm", "other", &until), MU_P_BROKEN); /* one trial only */
    assert_true(until > w.now_ms);
    end_fetch(x, MU_FETCH_CONNECT, 0, -1);
    mu_provider_learn(provider(&w, "glm"), "o", &w.result);
    assert_int_equal(gate("glm", "o", &until), MU_P_BROKEN); /* failed: open again */
    assert_int_equal(until, w.now_ms + 15000);
    w.now_ms = until;
    x = start("glm");
    feed(x, 200, OPENAI_DELTA("ok") OPENAI_END);
    end_fetch(x, MU_FETCH_OK, 200, -1);
    mu_provider_learn(provider(&w, "glm"), "o", &w.result);
    assert_int_equal(gate("glm", "o", &until), MU_P_OK);
    learn("glm", "o", MU_CALL_UNAVAILABLE, 0); /* counting began anew */
    assert_int_equal(gate("glm", "o", &until), MU_P_OK);
    for (int i = 0; i < 5; i++) {
        learn("glm", "o", MU_CALL_UNAVAILABLE, 0);
    }
    w.now_ms -= 3600000; /* a clock set back must not hold it open for an hour */
    assert_int_equal(gate("glm", "o", &until), MU_P_BROKEN);
    assert_true(until <= w.now_ms + 15000);
}

static void other_failures_do_not_open_the_breaker(void **state)
{
    (void)state;
    int64_t until;
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    world_start(&w);
    for (int i = 0; i < 20; i++) {
        learn("glm", "o", MU_CALL_AUTH, 0);
        learn("glm", "o", MU_CALL_BAD_REQUEST, 0);
        learn("glm", "o", MU_CALL_BAD_RESPONSE, 0);
        learn("glm", "o", MU_CALL_CANCELLED, 0);
    }
    assert_int_equal(gate("glm", "o", &until), MU_P_OK);
}

static void a_rate_limit_blocks_longer_while_it_repeats(void **state)
{
    (void)state;
    static const int64_t waits[] = {30000, 60000, 120000, 240000, 300000, 300000};
    int64_t until;
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    add_conf(&w, "kimi", MU_PROVIDER_OPENAI)->quota_global = true;
    world_start(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(waits); i++) {
        learn("glm", "o", MU_CALL_RATE_LIMITED, 0);
        learn("glm", "o", MU_CALL_RATE_LIMITED, 0); /* a parallel call: no second strike */
        assert_int_equal(gate("glm", "o", &until), MU_P_BLOCKED);
        assert_int_equal(until, w.now_ms + waits[i]);
        assert_int_equal(gate("glm", "other", &until), MU_P_OK);
        w.now_ms += waits[i];
        assert_int_equal(gate("glm", "o", &until), MU_P_OK);
    }
    learn("glm", "o", MU_CALL_OK, 0);
    learn("glm", "o", MU_CALL_RATE_LIMITED, 0);
    gate("glm", "o", &until);
    assert_int_equal(until, w.now_ms + 30000);

    learn("kimi", "o", MU_CALL_RATE_LIMITED, 5000); /* Retry-After; one account for all */
    assert_int_equal(gate("kimi", "other", &until), MU_P_BLOCKED);
    assert_int_equal(until, w.now_ms + 5000);
    learn("kimi", "x", MU_CALL_RATE_LIMITED, 9000);
    learn("kimi", "x", MU_CALL_RATE_LIMITED, 2000);
    gate("kimi", "other", &until);
    assert_int_equal(until, w.now_ms + 9000);
    w.now_ms += 9000;
    learn("kimi", "x", MU_CALL_RATE_LIMITED, INT64_MAX / 2);
    gate("kimi", "other", &until);
    assert_int_equal(until, w.now_ms + 86400000);
}

static void a_full_quota_is_remembered_per_org_within_bounds(void **state)
{
    (void)state;
    int64_t until;
    char org[32];
    struct mu_quota_take q;
    struct mu_provider_conf *c = add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    c->msg_limit = 3;
    c->window_seconds = 60;
    add_conf(&w, "kimi", MU_PROVIDER_OPENAI)->quota_global = true;
    world_start(&w);
    mu_provider_quota(provider(&w, "glm"), "tok_a", w.now_ms, &q);
    assert_string_equal(q.provider, "glm");
    assert_string_equal(q.scope, "tok_a");
    assert_int_equal(q.limit, 3);
    assert_true(q.hold_until_ms > w.now_ms);
    mu_provider_quota(provider(&w, "kimi"), "tok_a", w.now_ms, &q);
    assert_string_equal(q.scope, "*");
    assert_int_equal(q.limit, 0);

    mu_provider_note_full(provider(&w, "glm"), "o", w.now_ms + 500);
    assert_int_equal(gate("glm", "o", &until), MU_P_BLOCKED);
    assert_int_equal(until, w.now_ms + 500);
    assert_int_equal(gate("glm", "p", &until), MU_P_OK);
    learn("glm", "o", MU_CALL_BAD_REQUEST, 0); /* gave its unit back */
    assert_int_equal(gate("glm", "o", &until), MU_P_OK);
    for (int i = 0; i < 12000; i++) {
        snprintf(org, sizeof org, "org-%d", i);
        mu_provider_note_full(provider(&w, "glm"), org, w.now_ms + 500);
        assert_true(w.p->scopes.count <= 10000);
    }
    assert_int_equal(gate("glm", "org-11999", &until), MU_P_BLOCKED);
    assert_int_equal(gate("glm", "org-0", &until), MU_P_OK);
}

static void candidates_are(const char *harness, bool admin, const char *expected)
{
    struct mu_provider *found[MU_CANDIDATES_MAX];
    char got[256] = "";
    unsigned n = mu_providers_candidates(w.p, mu_str(harness), admin, found, MU_CANDIDATES_MAX);
    for (unsigned i = 0; i < n; i++) {
        size_t len = strlen(got);
        snprintf(got + len, sizeof got - len, "%s%s", i ? " " : "",
                 mu_provider_conf(found[i])->key);
    }
    assert_string_equal(got, expected);
}

static void candidates_come_in_order(void **state)
{
    (void)state;
    struct mu_fallback_order own[] = {{"gemini_cli", "kimi"}};
    add_conf(&w, "claude", MU_PROVIDER_ANTHROPIC)->api_key = NULL;
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    add_conf(&w, "kimi", MU_PROVIDER_OPENAI);
    add_conf(&w, "custom", MU_PROVIDER_OPENAI);
    add_conf(&w, "broken", MU_PROVIDER_OPENAI)->base_url = NULL;
    add_conf(&w, "shell", MU_PROVIDER_SHELL);
    w.settings.fallback_order = " GLM, kimi,,broken, glm, nobody, claude ,shell,custom";
    w.settings.fallback_orders = own;
    w.settings.n_fallback_orders = 1;
    world_start(&w);
    candidates_are("claude-code", false, "claude glm kimi custom");
    candidates_are("glm", false, "glm kimi claude custom");
    candidates_are("gemini-cli", false, "kimi");
    candidates_are("something", true, "custom glm kimi claude");
    candidates_are("shell", true, "shell");
    candidates_are("shell", false, "");
    char words[512];
    mu_providers_no_candidate(w.p, MU_B("shell"), false, words, sizeof words);
    assert_has(words, "admin key only");
}

static void what_was_found_serves_the_admin_only(void **state)
{
    (void)state;
    char words[512];
    add_conf(&w, "claude", MU_PROVIDER_ANTHROPIC)->discovered = true;
    world_start(&w);
    candidates_are("claude-code", true, "claude");
    candidates_are("claude-code", false, "");
    candidates_are("custom", true, "claude"); /* nobody named anything else */
    candidates_are("custom", false, "");
    mu_providers_no_candidate(w.p, MU_B("custom"), false, words, sizeof words);
    assert_has(words, "'custom'");
    assert_has(words, "OZ_PROVIDER_CUSTOM_BASE_URL");
    assert_has(words, "admin key only");
}

static void a_model_id_names_harness_and_perhaps_model(void **state)
{
    (void)state;
    static const char *const more[] = {"m-2", NULL};
    add_conf(&w, "glm", MU_PROVIDER_OPENAI)->models = more;
    world_start(&w);
    const struct mu_providers_settings *s = &w.settings;
    assert_string_equal(mu_providers_harness(s, MU_B("Claude-Sonnet")), "claude-code");
    assert_string_equal(mu_providers_harness(s, MU_B("gpt-codex-glm")), "codex");
    assert_string_equal(mu_providers_harness(s, MU_B("GEMINI")), "gemini-cli");
    assert_string_equal(mu_providers_harness(s, MU_B("shell")), "shell");
    assert_string_equal(mu_providers_harness(s, MU_B("shell-2")), "custom");
    assert_string_equal(mu_providers_harness(s, MU_B_NONE), "custom");
    const struct mu_provider *pr = provider(&w, "glm");
    assert_true(mu_bytes_is(mu_provider_model(pr, MU_B("m-2")), "m-2"));
    assert_true(mu_bytes_is(mu_provider_model(pr, MU_B("m-3")), "m-1"));
    assert_true(mu_bytes_is(mu_provider_model(pr, MU_B_NONE), "m-1"));
}

static void a_reload_keeps_what_is_known(void **state)
{
    (void)state;
    int64_t until;
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    add_conf(&w, "kimi", MU_PROVIDER_OPENAI);
    world_start(&w);
    learn("glm", "o", MU_CALL_RATE_LIMITED, 0);
    struct mu_provider *kimi = provider(&w, "kimi");
    const struct mu_call_request late = request(&w, "kimi", "hello");
    struct mu_fetch *x = start("kimi");
    struct mu_provider_conf confs[2] = {w.confs[0], w.confs[0]};
    confs[0].key = "fresh";
    confs[1].model = "m-9";
    struct mu_provider_list list = {confs, 2};
    struct mu_providers_settings settings = w.settings;
    assert_int_equal(mu_providers_reload(w.p, &list, &settings), 0);
    memset(w.confs, 0x55, sizeof w.confs); /* the old configuration is gone */
    assert_int_equal(gate("glm", "o", &until), MU_P_BLOCKED);
    assert_string_equal(mu_provider_conf(provider(&w, "glm"))->model, "m-9");
    assert_string_equal(mu_provider_conf(kimi)->key, "kimi");
    feed(x, 200, OPENAI_DELTA("ok") OPENAI_END); /* the running call ends well */
    end_fetch(x, MU_FETCH_OK, 200, -1);
    assert_class(&w, MU_CALL_OK);
    struct mu_provider_call *c;
    assert_int_equal(mu_provider_call(w.p, &late, &c), 0);
    run_until_done(&w);
    assert_class(&w, MU_CALL_CONFIG);
    assert_int_equal(mu_provider_gate(kimi, "o", w.now_ms, &until), MU_P_OK);
    run_for(&w, 20);
    assert_int_not_equal(w.capacity, 0);
}

struct seen {
    int n;
    char keys[128];
    struct mu_provider_status last;
};
static void see(void *arg, const struct mu_provider_status *s)
{
    struct seen *seen = arg;
    size_t len = strlen(seen->keys);
    snprintf(seen->keys + len, sizeof seen->keys - len, "%s ", s->key);
    seen->last = *s;
    seen->n++;
}

static void status_shows_each_caller_its_own(void **state)
{
    (void)state;
    struct seen tenant = {0}, other = {0}, admin = {0};
    add_conf(&w, "claude", MU_PROVIDER_CLI)->discovered = true;
    add_conf(&w, "shell", MU_PROVIDER_SHELL);
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    world_start(&w);
    learn("glm", "o", MU_CALL_RATE_LIMITED, 4000);
    for (int i = 0; i < 5; i++) {
        learn("glm", "o", MU_CALL_UNAVAILABLE, 0);
    }
    mu_providers_status(w.p, "o", false, see, &tenant);
    mu_providers_status(w.p, "other", false, see, &other);
    mu_providers_status(w.p, "o", true, see, &admin);
    assert_string_equal(tenant.keys, "glm ");
    assert_int_equal(tenant.last.blocked_until_ms, w.now_ms + 4000);
    assert_string_equal(tenant.last.breaker, "open");
    assert_int_equal(tenant.last.breaker_until_ms, w.now_ms + 15000);
    assert_string_equal(tenant.last.type, "openai_compatible");
    assert_int_equal(other.last.blocked_until_ms, 0);
    assert_string_equal(admin.keys, "claude shell glm ");
}

static void a_block_survives_a_restart(void **state)
{
    (void)state;
    struct mu_err err;
    char path[64];
    int64_t until;
    snprintf(path, sizeof path, "%s/m.db", w.dir);
    const struct mu_db_opts db_opts = {.url = path, .sync_normal = true};
    struct mu_feed *feed_ = NULL;
    struct mu_writer *writer;
    assert_int_equal(mu_feed_new(&w.loop, 1, &feed_), 0);
    const struct mu_writer_opts wo = {.db = db_opts, .env = &mu_env_real, .feed = feed_};
    if (mu_writer_new(&wo, &writer, &err) < 0) {
        fail_msg("%s", err.text);
    }
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    w.opts.writer = writer;
    world_start(&w);
    learn("glm", "o", MU_CALL_RATE_LIMITED, 0);
    w.now_ms += 30000;
    learn("glm", "o", MU_CALL_RATE_LIMITED, 0);
    for (int i = 0; i < 500 && w.p->n_writes; i++) {
        run_for(&w, 5);
    }
    assert_int_equal(w.p->n_writes, 0);
    w.p = mu_providers_free(w.p);
    struct mu_db *db;
    assert_int_equal(mu_db_open(&db_opts, &db, &err), 0);
    w.metrics = mu_metrics_free(w.metrics);
    w.opts.metrics = NULL;
    assert_int_equal(mu_providers_new(&w.opts, db, &w.p), 0);
    assert_int_equal(gate("glm", "o", &until), MU_P_BLOCKED);
    assert_int_equal(until, w.now_ms + 60000);
    w.now_ms = until;
    learn("glm", "o", MU_CALL_RATE_LIMITED, 0); /* its strikes were kept, too */
    gate("glm", "o", &until);
    assert_int_equal(until, w.now_ms + 120000);
    w.p = mu_providers_free(w.p); /* with the write on its way */
    db = mu_db_close(db);
    writer = mu_writer_free(writer);
    run_for(&w, 20);
    feed_ = mu_feed_free(feed_);
}

static int one_call(void *arg)
{
    struct mu_providers *p = NULL;
    struct mu_provider_call *c = NULL;
    struct mu_metrics *metrics = NULL;
    (void)arg;
    if (mu_metrics_new(&metrics) < 0) {
        return -1;
    }
    w.opts.metrics = metrics;
    int r = mu_providers_new(&w.opts, NULL, &p);
    if (r == 0) {
        w.p = p;
        const struct mu_call_request req = request(&w, "glm", "hello");
        int before = w.dones;
        r = mu_provider_call(p, &req, &c);
        if (r == 0) {
            struct mu_fetch *x = &w.fetches[(w.n_fetches - 1) % MAX_FETCHES];
            feed(x, 200, OPENAI_DELTA("ok") OPENAI_END);
            end_fetch(x, MU_FETCH_OK, 200, -1);
            assert_int_equal(w.dones, before + 1);
            learn("glm", "o", MU_CALL_RATE_LIMITED, 0);
            mu_provider_note_full(provider(&w, "glm"), "p", w.now_ms + 1);
            r = mu_providers_reload(p, &w.list, &w.settings);
        }
        w.p = mu_providers_free(p);
    }
    mu_metrics_free(metrics);
    w.opts.metrics = NULL;
    return r;
}

static void no_allocation_failure_breaks_a_call(void **state)
{
    (void)state;
    add_conf(&w, "glm", MU_PROVIDER_OPENAI);
    each_allocation_fails(one_call, NULL);
    assert_int_equal(one_call(NULL), 0);
    assert_class(&w, MU_CALL_OK);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(an_answer_streams_and_is_counted),
        T(the_request_is_as_configured),
        T(every_failure_has_its_class),
        T(fallback_follows_the_table),
        T(an_answer_beyond_the_limit_is_a_bad_response),
        T(texts_hold_neither_key_nor_url),
        T(a_missing_key_fails_before_any_request),
        T(an_abort_ends_as_cancelled),
        T(five_failures_open_the_breaker_and_one_trial_closes_it),
        T(other_failures_do_not_open_the_breaker),
        T(a_rate_limit_blocks_longer_while_it_repeats),
        T(a_full_quota_is_remembered_per_org_within_bounds),
        T(candidates_come_in_order),
        T(what_was_found_serves_the_admin_only),
        T(a_model_id_names_harness_and_perhaps_model),
        T(a_reload_keeps_what_is_known),
        T(status_shows_each_caller_its_own),
        T(a_block_survives_a_restart),
        T(no_allocation_failure_breaks_a_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
