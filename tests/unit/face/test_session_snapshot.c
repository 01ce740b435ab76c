/* What a session keeps of its workspace. */
#include "../unit.h"

#include "../alloc_fail.h"
#include "face/sessions/sessions_int.h"

static int make(struct mu_arena *a, const char *repo, const char *policy, const char *env,
                mu_bytes *ret)
{
    static const struct mu_json_limits limits = {1 << 20, 40};
    struct mu_sess_workspace x = {.environment = mu_str(env)};
    int r = mu_json_read(a, mu_str(repo), &limits, &x.repo, NULL);
    if (r == 0 && policy) {
        r = mu_json_read(a, mu_str(policy), &limits, &x.policy, NULL);
    }
    return r < 0 ? r : mu_sess_snapshot(a, &x, ret);
}

static void is(const char *repo, const char *policy, const char *env, const char *expected)
{
    struct mu_arena a;
    mu_bytes got = MU_B_NONE;
    mu_arena_init(&a, 8 << 20);
    assert_int_equal(make(&a, repo, policy, env, &got), 0);
    if (!mu_bytes_is(got, expected)) {
        fail_msg("%.*s\ninstead of %s", MU_ARGS(got), expected);
    }
    mu_arena_fini(&a);
}

#define BARE(line)                                                                                 \
    "{\"docker_image\":\"\",\"spec\":{\"repos\":[\"" line                                          \
    "\"],\"setup_commands\":[]},\"env_var_names\":[]}"

static void a_repository_alone_is_one_line(void **state)
{
    (void)state;
    is("{\"url\":\"https://h/a/b\"}", NULL, "", BARE("https://h/a/b"));
    is("{\"url\":\"https://h/a/b\",\"branch\":\"main\"}", NULL, "", BARE("https://h/a/b#main"));
    is("{\"url\":\"https://h/a/b\",\"branch\":\"main\",\"commit\":\"abcdef0\"}", NULL, "",
       BARE("https://h/a/b#abcdef0"));
    is("{\"url\":\"git@h:a/b\",\"tag\":\"v1\"}", NULL, "", BARE("git@h:a/b#v1"));
    is("{\"url\":\"git+ssh://h/a/b\"}", NULL, "", BARE("ssh://h/a/b"));
}

#define ENV                                                                                        \
    "{\"environment_id\":\"e\",\"version\":3,\"name\":\"n\",\"docker_image\":\"debian:12\","       \
    "\"spec\":{\"repos\":[\"x/y\",\"https://h/a/b\"],\"setup_commands\":[\"make\"],\"secrets\":[]" \
    ",\"sandbox\":{\"network\":{\"mode\":\"proxy\",\"allow\":[\"a:1\"]},\"root\":\"fake\","        \
    "\"limits\":{\"memory_mb\":512,\"pids\":900,\"timeout_seconds\":60}}},"                        \
    "\"env_var_names\":[\"A\"]}"

static void it_stands_before_those_of_the_environment(void **state)
{
    (void)state;
    is("{\"url\":\"https://h/a/b\"}", NULL, ENV,
       "{\"environment_id\":\"e\",\"version\":3,\"name\":\"n\",\"docker_image\":\"debian:12\","
       "\"spec\":{\"repos\":[\"https://h/a/b\",\"x/y\"],\"setup_commands\":[\"make\"],"
       "\"secrets\":[],\"sandbox\":{\"network\":{\"mode\":\"proxy\",\"allow\":[\"a:1\"]},"
       "\"root\":\"fake\",\"limits\":{\"memory_mb\":512,\"pids\":900,\"timeout_seconds\":60}}},"
       "\"env_var_names\":[\"A\"]}");
}

static void a_policy_only_tightens_and_adds_hosts(void **state)
{
    (void)state;
    is("{\"url\":\"https://h/a/b\"}",
       "{\"memoryMb\":1024,\"maxProcesses\":64,\"cpu\":1.5,\"egressAllowlist\":[\"b\",\"c:8443\"]}",
       ENV,
       "{\"environment_id\":\"e\",\"version\":3,\"name\":\"n\",\"docker_image\":\"debian:12\","
       "\"spec\":{\"repos\":[\"https://h/a/b\",\"x/y\"],\"setup_commands\":[\"make\"],"
       "\"secrets\":[],\"sandbox\":{\"network\":{\"mode\":\"proxy\",\"allow\":[\"a:1\",\"b:443\","
       "\"c:8443\"]},\"root\":\"fake\",\"limits\":{\"memory_mb\":512,\"cpus\":1.5,\"pids\":64,"
       "\"timeout_seconds\":60}}},\"env_var_names\":[\"A\"]}");
    is("{\"url\":\"u\"}", "{\"egressAllowlist\":[\"b\"]}",
       "{\"spec\":{\"sandbox\":{\"network\":{\"mode\":\"none\"}}}}",
       "{\"docker_image\":\"\",\"spec\":{\"repos\":[\"u\"],\"setup_commands\":[],\"sandbox\":{"
       "\"network\":{\"mode\":\"none\"},\"limits\":{}}},\"env_var_names\":[]}");
    is("{\"url\":\"u\"}", "{\"onDeny\":\"stop\"}", "", BARE("u"));
}

static void what_is_stored_wrongly_is_told(void **state)
{
    (void)state;
    struct mu_arena a;
    mu_bytes got;
    mu_arena_init(&a, 1 << 20);
    assert_int_equal(make(&a, "{\"url\":\"u\"}", NULL, "no json", &got), MU_E_CORRUPT);
    mu_arena_fini(&a);
}

static int make_once(void *arg)
{
    (void)arg;
    struct mu_arena a;
    mu_bytes got;
    mu_arena_init(&a, 8 << 20);
    int r =
        make(&a, "{\"url\":\"u\",\"branch\":\"b\"}", "{\"egressAllowlist\":[\"b\"]}", ENV, &got);
    mu_arena_fini(&a);
    return r;
}

static void it_survives_any_failing_allocation(void **state)
{
    (void)state;
    each_allocation_fails(make_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_repository_alone_is_one_line),
        cmocka_unit_test(it_stands_before_those_of_the_environment),
        cmocka_unit_test(a_policy_only_tightens_and_adds_hosts),
        cmocka_unit_test(what_is_stored_wrongly_is_told),
        cmocka_unit_test(it_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
