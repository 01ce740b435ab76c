#include "worker/wire.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "../unit.h"

static struct mu_arena arena;
static struct mu_err err;
static struct mu_wire_assignment as;

static int read_it(const char *text)
{
    enum mu_wire_type type;
    yyjson_val *data;
    mu_arena_fini(&arena);
    mu_arena_init(&arena, 4 << 20);
    memset(&err, 0, sizeof err);
    int r = mu_wire_read(&arena, mu_str(text), &type, &data, &err);
    return r < 0 ? r : mu_wire_assignment(data, &as, &err);
}

#define TASK "\"task\":{\"id\":\"run_1\",\"created_at\":\"2026-01-31T12:00:00+01:00\"}"
static const char full[] =
    "{\"type\":\"task_assignment\",\"data\":{\"task_id\":\"run_1\",\"execution_id\":\"e-1\","
    "\"epoch\":3,\"session_token\":\"tok\",\"deadline_at\":\"2026-01-31T12:00:00Z\","
    "\"docker_image\":\"debian:12\",\"sidecar_image\":\"builtin\","
    "\"env_vars\":{\"B\":\"2\",\"A\":\"1\",\"OZ_RUN_TOKEN\":\"t\",\"OZ_TASK_PROMPT_URL\":\"/p\"},"
    "\"secrets\":{\"A\":\"secret\"},\"additional_oz_args\":[\"--x\",\"y z\"],"
    "\"additional_sidecars\":[{\"image\":\"i\",\"mount_path\":\"/m\",\"read_write\":true}],"
    "\"instance_shape\":{\"vcpus\":2,\"memory_gb\":4},"
    "\"task\":{\"id\":\"run_1\",\"owner\":{\"Type\":\"TEAM\",\"Id\":1},\"agent_config_snapshot\":"
    "{\"environment_id\":\" env \",\"model_id\":\"m\",\"profile_id\":\"\",\"mcp_servers\":"
    "{\"z\":{\"u\":\"<&>\"},\"a\":1},\"computer_use_enabled\":false,\"idle_timeout_minutes\":5,"
    "\"harness\":{\"type\":\"codex\"},\"session_sharing\":{\"public_access\":\"VIEWER\"},"
    "\"snapshot_disabled\":true,\"snapshot_upload_timeout_secs\":9}}}}";

static void types_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum mu_wire_type type;
    } cases[] = {{"{\"type\":\"task_cancel\",\"data\":{}}", MU_WIRE_CANCEL},
                 {"{\"type\":\"task_cancellation\",\"data\":{}}", MU_WIRE_CANCEL},
                 {"{\"type\":\"welcome\",\"data\":{}}", MU_WIRE_WELCOME},
                 {"{\"type\":\"heartbeat\"}", MU_WIRE_HEARTBEAT},
                 {"{\"type\":\"something new\",\"data\":5}", MU_WIRE_UNKNOWN}};
    yyjson_val *data;
    enum mu_wire_type type;
    mu_arena_init(&arena, 1 << 20);
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        assert_int_equal(mu_wire_read(&arena, mu_str(cases[i].text), &type, &data, &err), 0);
        assert_int_equal(type, cases[i].type);
    }
    static const char *const bad[] = {"", "{}", "[]", "{\"type\":1}", "{\"type\":\"\"}", "x"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_true(mu_wire_read(&arena, mu_str(bad[i]), &type, &data, &err) < 0);
    }
    mu_arena_fini(&arena);
}

static void an_assignment_is_read_whole(void **state)
{
    (void)state;
    assert_int_equal(read_it(full), 0);
    assert_true(mu_bytes_is(as.execution_id, "e-1") && mu_bytes_is(as.image, "debian:12"));
    assert_int_equal(as.epoch, 3);
    assert_int_equal(as.deadline_ms, 1769860800000);
    assert_true(as.team && as.n_mounts == 1 && as.mounts[0].writable);
    assert_int_equal(as.vcpus, 2);
    assert_int_equal(as.memory_gb, 4);
    assert_int_equal(read_it("{\"type\":\"task_assignment\",\"data\":{\"task_id\":\"run_1\"," TASK
                             ",\"docker_image\":null,\"env_vars\":null}}"),
                     0);
    mu_arena_fini(&arena);
}

static void a_policy_is_read(void **state)
{
    (void)state;
    assert_int_equal(read_it("{\"type\":\"task_assignment\",\"data\":{\"task_id\":\"run_1\"," TASK
                             ",\"policy\":{\"network\":{\"mode\":\"none\",\"allow\":null},"
                             "\"nested\":true,\"root\":\"fake\",\"onDeny\":\"continue\"},"
                             "\"resources\":{\"memory_mb\":64,\"cpus\":0.5,\"pids\":7,"
                             "\"disk_mb\":9}}}"),
                     0);
    assert_int_equal(as.policy.network, MU_WIRE_NET_NONE);
    assert_true(as.policy.nested && as.policy.fake_root && !as.policy.allow);
    assert_true(as.memory_mb == 64 && as.pids == 7 && as.disk_mb == 9);
    assert_true(as.cpus > 0.4 && as.cpus < 0.6);
    assert_int_equal(read_it("{\"type\":\"task_assignment\",\"data\":{\"task_id\":\"run_1\"," TASK
                             ",\"policy\":{\"network\":{\"allow\":[\"a.example:1\"]}}}}"),
                     0);
    assert_int_equal(as.policy.network, MU_WIRE_NET_ANY);
    assert_true(yyjson_arr_size(as.policy.allow) == 1 && !as.policy.nested && !as.policy.fake_root);
    mu_arena_fini(&arena);
}

static void wrong_types_refuse_the_whole(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\"task_id\":\"run_1\"",
        "\"task_id\":\"run_1\",\"task\":null",
        "\"task_id\":\"run_1\",\"task\":{\"id\":\"run_2\"}",
        "\"task_id\":\"run_1\",\"task\":{\"id\":\"run_1\",\"created_at\":\"now\"}",
        "\"task_id\":\"run_1\",\"task\":{\"id\":\"run_1\",\"agent_config_snapshot\":[]}",
        "\"task_id\":\"run_1\",\"task\":{\"id\":\"run_1\",\"agent_config_snapshot\":"
        "{\"idle_timeout_minutes\":1.5}}",
        "\"task_id\":\"run_1\"," TASK ",\"execution_id\":\"a/b\"",
        "\"task_id\":\"run_1\"," TASK ",\"env_vars\":{\"A\":1}",
        "\"task_id\":\"run_1\"," TASK ",\"env_vars\":{\"A=B\":\"1\"}",
        "\"task_id\":\"run_1\"," TASK ",\"env_vars\":{\"A\":\"x\\u0000y\"}",
        "\"task_id\":\"run_1\"," TASK ",\"docker_image\":5",
        "\"task_id\":\"run_1\"," TASK ",\"epoch\":\"1\"",
        "\"task_id\":\"run_1\"," TASK ",\"session_token\":\"a b\"",
        "\"task_id\":\"run_1\"," TASK ",\"deadline_at\":\"tomorrow\"",
        "\"task_id\":\"run_1\"," TASK ",\"additional_oz_args\":\"x\"",
        "\"task_id\":\"run_1\"," TASK ",\"additional_sidecars\":[{\"image\":\"\"}]",
        "\"task_id\":\"run_1\"," TASK ",\"additional_sidecars\":[{\"image\":\"i\",\"mount_path\":"
        "\"/a\"},{\"image\":\"j\",\"mount_path\":\"/a\"}]",
        "\"task_id\":\"run_1\"," TASK ",\"instance_shape\":{\"vcpus\":1e99}",
        "\"task_id\":\"run_1\"," TASK ",\"policy\":[]",
        "\"task_id\":\"run_1\"," TASK ",\"policy\":{\"network\":\"none\"}",
        "\"task_id\":\"run_1\"," TASK ",\"policy\":{\"network\":{\"mode\":\"nothing\"}}",
        "\"task_id\":\"run_1\"," TASK ",\"policy\":{\"network\":{\"mode\":\"\"}}",
        "\"task_id\":\"run_1\"," TASK ",\"policy\":{\"network\":{\"allow\":5}}",
        "\"task_id\":\"run_1\"," TASK ",\"policy\":{\"network\":{\"allow\":[5]}}",
        "\"task_id\":\"run_1\"," TASK ",\"policy\":{\"nested\":1}",
        "\"task_id\":\"run_1\"," TASK ",\"policy\":{\"root\":\"real\"}",
        "\"task_id\":\"run_1\"," TASK ",\"resources\":{\"memory_mb\":\"1\"}",
        "\"task_id\":\"run_1\"," TASK ",\"resources\":{\"memory_mb\":9007199254740993}",
        "\"task_id\":\"run_1\"," TASK ",\"resources\":{\"disk_mb\":9007199254740993}",
        "\"task_id\":\"run_1\"," TASK ",\"resources\":{\"memory_mb\":-1}",
        "\"task_id\":\"run_1\"," TASK ",\"resources\":{\"cpus\":-0.5}"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        char text[1000];
        snprintf(text, sizeof text, "{\"type\":\"task_assignment\",\"data\":{%s}}", bad[i]);
        if (read_it(text) != MU_E_INVALID || !err.text[0] || !mu_bytes_is(as.task_id, "run_1")) {
            fail_msg("%s", bad[i]);
        }
    }
    static const char *const ids[] = {"", ".", "..", "a/b", "a b", "\\u0000", "\\u00e9"};
    for (size_t i = 0; i < MU_ARRAY_LEN(ids); i++) {
        char text[1000];
        snprintf(text, sizeof text, "{\"type\":\"task_assignment\",\"data\":{\"task_id\":\"%s\"}}",
                 ids[i]);
        assert_int_equal(read_it(text), MU_E_INVALID);
    }
    mu_arena_fini(&arena);
}

static const char *const extra[] = {"C=3", "B=mine", NULL};
static const struct mu_wire_about about = {.server_root_url = "http://h:1",
                                           .idle_on_complete = "45m",
                                           .environment = extra,
                                           .execution_id = "e-1"};

static void the_last_of_a_variable_wins_and_all_are_sorted(void **state)
{
    (void)state;
    static const char *const want[] = {"A=secret",
                                       "B=mine",
                                       "C=3",
                                       "GH_PROMPT_DISABLED=1",
                                       "GIT_TERMINAL_PROMPT=0",
                                       "OZ_EXECUTION_ID=e-1",
                                       "OZ_RUN_ID=run_1",
                                       "OZ_WORKER=muster",
                                       "TASK_ID=run_1",
                                       "WARP_SERVER_ROOT_URL=http://h:1"};
    const char *const *env;
    mu_bytes prompt;
    assert_int_equal(read_it(full), 0);
    assert_int_equal(mu_wire_env(&arena, &as, &about, &env, &prompt, &err), 0);
    for (size_t i = 0; i < MU_ARRAY_LEN(want); i++) {
        assert_string_equal(env[i], want[i]);
    }
    assert_null(env[MU_ARRAY_LEN(want)]);
    assert_null(prompt.ptr);
    struct mu_wire_about foreign = about;
    foreign.keep_token = true;
    assert_int_equal(mu_wire_env(&arena, &as, &foreign, &env, &prompt, &err), 0);
    assert_string_equal(env[6], "OZ_RUN_ID=run_1");
    assert_string_equal(env[7], "OZ_RUN_TOKEN=t");
    mu_arena_fini(&arena);
}

static void a_prompt_that_is_too_long_for_a_variable_is_handed_out(void **state)
{
    (void)state;
    const char *const *env;
    mu_bytes prompt;
    struct mu_buf text;
    mu_buf_init(&text, 1 << 20);
    mu_buf_add_str(&text, "{\"type\":\"task_assignment\",\"data\":{\"task_id\":\"run_1\"," TASK
                          ",\"env_vars\":{\"OZ_TASK_PROMPT\":\"");
    for (int i = 0; i < 100000; i++) {
        mu_buf_add_char(&text, 'p');
    }
    size_t at = text.len;
    mu_buf_printf(&text, "\"}}}%c", 0);
    assert_int_equal(read_it(text.ptr), 0);
    assert_int_equal(mu_wire_env(&arena, &as, &about, &env, &prompt, &err), 0);
    assert_int_equal(prompt.len, 100000);
    for (; *env; env++) {
        assert_false(mu_bytes_starts(mu_str(*env), MU_B("OZ_TASK_PROMPT")));
    }
    text.len = at;
    mu_buf_add_str(&text, "\",\"BIG\":\"");
    for (int i = 0; i < 131000; i++) {
        mu_buf_add_char(&text, 'b');
    }
    mu_buf_printf(&text, "\"}}}%c", 0);
    assert_int_equal(read_it(text.ptr), 0);
    assert_int_equal(mu_wire_env(&arena, &as, &about, &env, &prompt, &err), MU_E_INVALID);
    assert_non_null(strstr(err.text, "BIG"));
    mu_buf_fini(&text);
    mu_arena_fini(&arena);
}

static void the_arguments_are_those_of_the_table(void **state)
{
    (void)state;
    static const char *const want[] = {"agent",
                                       "run",
                                       "--share",
                                       "team:edit",
                                       "--task-id",
                                       "run_1",
                                       "--sandboxed",
                                       "--server-root-url",
                                       "http://h:1",
                                       "--model",
                                       "m",
                                       "--mcp",
                                       "{\"a\":1,\"z\":{\"u\":\"\\u003c\\u0026\\u003e\"}}",
                                       "--no-computer-use",
                                       "--harness",
                                       "codex",
                                       "--share",
                                       "public:view",
                                       "--no-snapshot",
                                       "--snapshot-upload-timeout",
                                       "9s",
                                       "--environment",
                                       "env",
                                       "--x",
                                       "y z",
                                       "--idle-on-complete",
                                       "5m"};
    const char *const *argv;
    assert_int_equal(read_it(full), 0);
    assert_int_equal(mu_wire_argv(&arena, &as, &about, &argv), 0);
    for (size_t i = 0; i < MU_ARRAY_LEN(want); i++) {
        assert_string_equal(argv[i], want[i]);
    }
    assert_null(argv[MU_ARRAY_LEN(want)]);
    mu_arena_fini(&arena);
}

static void expect_text(struct mu_buf *b, const char *want)
{
    if (!mu_bytes_is(mu_buf_bytes(b), want)) {
        fail_msg("%.*s\ninstead of\n%s", MU_ARGS(mu_buf_bytes(b)), want);
    }
    mu_buf_clear(b);
}

static void what_is_sent_has_the_fields_of_both_dialects(void **state)
{
    (void)state;
    struct mu_buf b;
    struct mu_wire_ids ids = {.task_id = MU_B("run_1"),
                              .execution_id = MU_B("e-1"),
                              .worker_id = MU_B("w"),
                              .epoch = 3,
                              .seq = 2};
    struct mu_wire_end end = {.exit_code = 7,
                              .output = mu_bytes_of("a\0<\xff", 4),
                              .artifacts = MU_B("[1]"),
                              .session_link = MU_B("https://s"),
                              .message = "m",
                              .failure_reason = "container_exit"};
    mu_buf_init(&b, 1 << 20);
    mu_wire_claimed(&b, &ids);
    expect_text(&b,
                "{\"type\":\"task_claimed\",\"data\":{\"task_id\":\"run_1\",\"worker_id\":\"w\"}}");
    mu_wire_end(&b, &ids, &end);
    expect_text(&b, "{\"type\":\"task_completed\",\"data\":{\"task_id\":\"run_1\",\"worker_id\":"
                    "\"w\",\"exit_code\":7,\"output\":\"a\\u0000<\xef\xbf\xbd\",\"artifacts\":[1],"
                    "\"session_link\":\"https://s\",\"message\":\"m\",\"failure_reason\":"
                    "\"container_exit\"}}");
    ids.native = true;
    mu_wire_claimed(&b, &ids);
    expect_text(&b,
                "{\"type\":\"task_claimed\",\"data\":{\"task_id\":\"run_1\",\"worker_id\":\"w\","
                "\"execution_id\":\"e-1\",\"epoch\":3,\"seq\":2}}");
    mu_wire_rejected(&b, &ids, "no");
    expect_text(&b,
                "{\"type\":\"task_rejected\",\"data\":{\"task_id\":\"run_1\",\"worker_id\":\"w\","
                "\"execution_id\":\"e-1\",\"epoch\":3,\"seq\":2,\"reason\":\"no\"}}");
    mu_wire_log(&b, &ids, "stdout", 5, MU_B("x\n"));
    expect_text(&b, "{\"type\":\"task_log\",\"data\":{\"task_id\":\"run_1\",\"worker_id\":\"w\","
                    "\"execution_id\":\"e-1\",\"epoch\":3,\"seq\":2,\"stream\":\"stdout\","
                    "\"offset\":5,\"chunk\":\"x\\n\"}}");
    end = (struct mu_wire_end){.failed = true, .exit_code = -1, .message = "m", .cancelled = true};
    mu_wire_end(&b, &ids, &end);
    expect_text(&b, "{\"type\":\"task_failed\",\"data\":{\"task_id\":\"run_1\",\"worker_id\":\"w\","
                    "\"execution_id\":\"e-1\",\"epoch\":3,\"seq\":2,\"exit_code\":-1,\"message\":"
                    "\"m\",\"task_state\":\"CANCELLED\",\"usage\":{\"duration_ms\":0,\"cpu_ms\":0,"
                    "\"peak_bytes\":0}}}");
    mu_buf_fini(&b);
}

static void output_that_grows_by_its_escapes_is_cut_to_the_message(void **state)
{
    (void)state;
    size_t len = 8 << 20;
    char *nul = calloc(1, len);
    struct mu_buf b;
    const struct mu_wire_ids ids = {.task_id = MU_B("run_1")};
    const struct mu_wire_end end = {.output = mu_bytes_of(nul, len)};
    mu_buf_init(&b, MU_WIRE_MAX_MESSAGE);
    mu_wire_end(&b, &ids, &end);
    assert_int_equal(b.failed, 0);
    assert_true(b.len > (4 << 20));
    mu_buf_fini(&b);
    free(nul);
}

static int everything(void *arg)
{
    (void)arg;
    const char *const *list;
    mu_bytes prompt;
    struct mu_buf b;
    int r = read_it(full);
    if (r == 0) {
        r = mu_wire_env(&arena, &as, &about, &list, &prompt, &err);
    }
    if (r == 0) {
        r = mu_wire_argv(&arena, &as, &about, &list);
    }
    const struct mu_wire_ids ids = {.task_id = MU_B("run_1"), .native = true};
    const struct mu_wire_end end = {.output = MU_B("some output"), .message = "m"};
    mu_buf_init(&b, 65536);
    mu_wire_end(&b, &ids, &end);
    mu_buf_fini(&b);
    return r;
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    each_allocation_fails(everything, NULL);
    mu_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_are_told_apart),
        cmocka_unit_test(an_assignment_is_read_whole),
        cmocka_unit_test(a_policy_is_read),
        cmocka_unit_test(wrong_types_refuse_the_whole),
        cmocka_unit_test(the_last_of_a_variable_wins_and_all_are_sorted),
        cmocka_unit_test(a_prompt_that_is_too_long_for_a_variable_is_handed_out),
        cmocka_unit_test(the_arguments_are_those_of_the_table),
        cmocka_unit_test(what_is_sent_has_the_fields_of_both_dialects),
        cmocka_unit_test(output_that_grows_by_its_escapes_is_cut_to_the_message),
        cmocka_unit_test(any_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
