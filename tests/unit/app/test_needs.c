/* What sessions need of workers, and what environments say of sandboxes. */
#include "app/fleet/needs.h"

#include <errno.h>
#include <stdio.h>

#include "../alloc_fail.h"
#include "../unit.h"
#include "app/environments/sandbox.h"
#include "proto/json.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

static struct mu_arena arena;

static yyjson_val *json(const char *text)
{
    static const struct mu_json_limits limits = {1 << 20, 64};
    yyjson_val *v = NULL;
    mu_arena_fini(&arena);
    mu_arena_init(&arena, 4 << 20);
    assert_int_equal(mu_json_read(&arena, mu_str(text), &limits, &v, NULL), 0);
    return v;
}

static void needs_are(const char *harness, const char *snapshot, int64_t want)
{
    int64_t got = -1;
    assert_int_equal(mu_needs_of(mu_str(harness), mu_str(snapshot), &got), 0);
    assert_int_equal(got, want);
}

static void an_environment_says_what_its_sandbox_needs(void **state)
{
    needs_are("custom", NULL, 0);
    needs_are("custom", "{\"spec\":{\"sandbox\":{}}}", 0);
    static const struct {
        const char *sandbox;
        int64_t want;
    } cases[] = {
        {"{\"network\":{\"mode\":\"none\"}}", MU_NEED_NET_NONE},
        {"{\"network\":{\"mode\":\"proxy\",\"allow\":[]}}", MU_NEED_NET_PROXY},
        {"{\"network\":{\"mode\":\"host\"}}", MU_NEED_NET_HOST},
        {"{\"nested\":true}", MU_NEED_NESTED},
        {"{\"nested\":false}", 0},
        {"{\"root\":\"fake\"}", MU_NEED_FAKE_ROOT},
        {"{\"limits\":{\"pids\":5}}", MU_NEED_LIMITS},
        {"{\"limits\":{\"cpus\":0.5}}", MU_NEED_LIMITS},
        {"{\"limits\":{\"memory_mb\":64,\"disk_mb\":64}}", MU_NEED_LIMITS | MU_NEED_DISK},
        {"{\"limits\":{\"timeout_seconds\":9}}", MU_NEED_TIME},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        char text[300];
        snprintf(text, sizeof text, "{\"spec\":{\"sandbox\":%s}}", cases[i].sandbox);
        needs_are("custom", text, cases[i].want);
    }
}

static void a_harness_is_needed_unless_the_environment_may_bring_it(void **state)
{
    needs_are("claude-code", NULL, MU_NEED_CLAUDE);
    needs_are("codex", "{}", MU_NEED_CODEX);
    needs_are("gemini-cli", "{\"spec\":{\"setup_commands\":[]}}", MU_NEED_GEMINI);
    needs_are("opencode", "{\"env_var_names\":[\"OZ_SIDECAR_CODEX_CMD\"]}", MU_NEED_OPENCODE);
    needs_are("opencode", "{\"env_var_names\":[\"OZ_SIDECAR_OPENCODE_CMD\"]}", 0);
    needs_are("codex", "{\"spec\":{\"setup_commands\":[\"./install\"]}}", 0);
    needs_are("shell", NULL, 0);
    needs_are("something else", NULL, 0);
}

static void a_worker_offers_what_its_hello_names(void **state)
{
    const int64_t any = MU_NEED_HARNESSES;
    assert_int_equal(mu_needs_offered(MU_B_NONE), any);
    assert_int_equal(mu_needs_offered(MU_B("not JSON")), 0);
    assert_int_equal(mu_needs_offered(MU_B("{\"harnesses\":[]}")), 0);
    assert_int_equal(mu_needs_offered(MU_B("{\"harnesses\":\"claude\"}")), 0);
    assert_int_equal(mu_needs_offered(MU_B("{\"harnesses\":[\"claude\",7,\"gemini-cli\"]}")),
                     MU_NEED_CLAUDE | MU_NEED_GEMINI);
    assert_int_equal(
        mu_needs_offered(MU_B("{\"harnesses\":[],\"features\":[\"network:none\",\"gpu\"]}")),
        MU_NEED_NET_NONE);
    assert_int_equal(mu_needs_offered(MU_B("{\"harnesses\":[],\"features\":[\"harness:any\"]}")),
                     any);
    assert_int_equal(mu_needs_offered(MU_B("{\"harnesses\":[],\"features\":[\"network:proxy\","
                                           "\"network:host\",\"nested\",\"root:fake\",\"limits\","
                                           "\"limits:disk\",\"limits:time\"]}")),
                     MU_NEED_NET_PROXY | MU_NEED_NET_HOST | MU_NEED_NESTED | MU_NEED_FAKE_ROOT |
                         MU_NEED_LIMITS | MU_NEED_DISK | MU_NEED_TIME);
}

static void needs_have_words(void **state)
{
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    mu_needs_words(&b, MU_NEED_NET_NONE | MU_NEED_CODEX | MU_NEED_TIME);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "harness codex, network:none, limits:time"));
    mu_buf_clear(&b);
    mu_needs_words(&b, MU_NEED_HARNESSES);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "harness claude, harness codex, harness gemini, "
                                              "harness opencode"));
    mu_buf_fini(&b);
}

/* --- the member `sandbox` --- */

static const struct mu_env_rights all = {true, true}, none = {false, false};

static void refused(const char *sandbox, const struct mu_env_rights *rights, int code,
                    const char *field)
{
    char path[64];
    struct mu_err err;
    assert_int_equal(mu_env_sandbox_check(json(sandbox), rights, path, sizeof path, &err), code);
    assert_string_equal(path, field);
    assert_non_null(strstr(err.text, field));
}

static void what_goes_beyond_types_is_checked(void **state)
{
    char path[64];
    struct mu_err err;
    static const char *const fine[] = {
        "{}", "{\"network\":{\"mode\":\"proxy\"}}", "{\"network\":{\"allow\":[\"a.example:1\"]}}",
        "{\"nested\":false}", "{\"network\":{\"mode\":\"none\",\"allow\":null}}"};
    for (size_t i = 0; i < MU_ARRAY_LEN(fine); i++) {
        assert_int_equal(mu_env_sandbox_check(json(fine[i]), &none, path, sizeof path, &err), 0);
    }
    assert_int_equal(mu_env_sandbox_check(NULL, &none, path, sizeof path, &err), 0);
    refused("{\"nested\":true}", &none, MU_E_FORBIDDEN, "sandbox.nested");
    refused("{\"network\":{\"mode\":\"host\"}}", &none, MU_E_FORBIDDEN, "sandbox.network.mode");
    refused("{\"network\":{\"mode\":\"host\",\"allow\":[]}}", &all, MU_E_INVALID,
            "sandbox.network.allow");
    refused("{\"network\":{\"allow\":[\"a.example:1\",\"b.example\"]}}", &all, MU_E_INVALID,
            "sandbox.network.allow[1]");
    assert_int_equal(mu_env_sandbox_check(json("{\"nested\":true,\"network\":{\"mode\":\"host\"}}"),
                                          &all, path, sizeof path, &err),
                     0);
}

static void written_as(void (*write)(struct mu_json_w *, const char *, yyjson_val *),
                       const char *sandbox, const char *want)
{
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    write(&w, "k", json(sandbox));
    mu_jw_obj_end(&w);
    mu_buf_add_char(&b, 0);
    assert_int_equal(b.failed, 0);
    assert_string_equal(b.ptr, want);
    mu_buf_fini(&b);
}

static void it_is_kept_and_sent_without_what_says_nothing(void **state)
{
    static const char full[] =
        "{\"limits\":{\"timeout_seconds\":5,\"cpus\":0.5,\"pids\":null,\"x\":1},\"root\":\"fake\","
        "\"nested\":true,\"y\":2,\"network\":{\"allow\":[\"a.example:1\"],\"z\":3}}";
    written_as(mu_env_sandbox_write, full,
               "{\"k\":{\"network\":{\"mode\":\"proxy\",\"allow\":[\"a.example:1\"]},\"nested\":"
               "true,\"root\":\"fake\",\"limits\":{\"cpus\":0.5,\"timeout_seconds\":5}}}");
    written_as(mu_env_policy_write, full,
               "{\"k\":{\"network\":{\"mode\":\"proxy\",\"allow\":[\"a.example:1\"]},\"nested\":"
               "true,\"root\":\"fake\"}}");
    written_as(mu_env_resources_write, full, "{\"k\":{\"cpus\":0.5}}");
    assert_int_equal(mu_env_timeout_ms(json(full)), 5000);
    static const char *const empty[] = {"{}", "{\"network\":{},\"limits\":{\"cpus\":null}}",
                                        "{\"nested\":false,\"root\":null,\"network\":null}"};
    for (size_t i = 0; i < MU_ARRAY_LEN(empty); i++) {
        written_as(mu_env_sandbox_write, empty[i], "{}");
        written_as(mu_env_policy_write, empty[i], "{}");
        written_as(mu_env_resources_write, empty[i], "{}");
        assert_int_equal(mu_env_timeout_ms(json(empty[i])), 0);
    }
    written_as(mu_env_sandbox_write, "{\"limits\":{\"timeout_seconds\":5}}",
               "{\"k\":{\"limits\":{\"timeout_seconds\":5}}}");
}

static int read_needs(void *arg)
{
    int64_t got = 0;
    int r = mu_needs_of(MU_B("codex"), MU_B("{\"spec\":{\"sandbox\":{\"nested\":true}}}"), &got);
    assert_true(r == 0 ? got == (MU_NEED_NESTED | MU_NEED_CODEX) : r == -ENOMEM);
    return r;
}

static void memory_may_run_out(void **state)
{
    each_allocation_fails(read_needs, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_environment_says_what_its_sandbox_needs),
        cmocka_unit_test(a_harness_is_needed_unless_the_environment_may_bring_it),
        cmocka_unit_test(a_worker_offers_what_its_hello_names),
        cmocka_unit_test(needs_have_words),
        cmocka_unit_test(what_goes_beyond_types_is_checked),
        cmocka_unit_test(it_is_kept_and_sent_without_what_says_nothing),
        cmocka_unit_test(memory_may_run_out),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    mu_arena_fini(&arena);
    return r;
}
