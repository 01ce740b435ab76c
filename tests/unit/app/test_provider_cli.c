/* Calls of programs: real ones, through the real process seam. */
#include "providers_world.h"

#include <dirent.h>
#include <errno.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "../alloc_fail.h"
#include "io/folder.h"

static struct world w;
static const char *args[8];

static int set_up(void **state)
{
    (void)state;
    world_begin(&w);
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    if (w.p) {
        settle(&w);
    }
    world_end(&w);
    return 0;
}

/* A provider whose program is this script; what follows are its arguments. */
static struct mu_provider_conf *agent(const char *script)
{
    struct mu_provider_conf *c = add_conf(&w, "agent", MU_PROVIDER_CLI);
    memset(args, 0, sizeof args);
    args[0] = "-c";
    args[1] = script;
    args[2] = "agent";
    c->cli_cmd = "sh";
    c->cli_args = args;
    return c;
}

static unsigned entries(const char *path)
{
    unsigned n = 0;
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        n += e->d_name[0] != '.';
    }
    closedir(d);
    return n;
}

static const char system_start[] = "You are an AI agent";

static void stdin_holds_model_system_and_prompt(void **state)
{
    (void)state;
    struct mu_provider_conf *c = agent("cat");
    c->system_prompt = "Be terse.";
    world_start(&w);
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_OK);
    assert_string_equal(w.out, "[model:m-1]\nBe terse.\n\nhi");
    assert_true(w.result.counted);
    assert_true(w.result.is_exit_code);
    assert_int_equal(w.result.status, 0);
    c->model_given = false;
    c->system_prompt = NULL;
    call(&w, "agent", "hi");
    assert_int_equal(strncmp(w.out, system_start, strlen(system_start)), 0);
    assert_has(w.out, "\n\nhi");
}

static void earlier_turns_precede_the_prompt(void **state)
{
    (void)state;
    static const struct mu_model_turn turns[] = {
        {{"one?", 4}, {"one.", 4}},
    };
    agent("cat")->system_prompt = "S";
    world_start(&w);
    struct mu_call_request req = request(&w, "agent", "two?");
    struct mu_provider_call *c;
    req.turns = turns;
    req.n_turns = 1;
    assert_int_equal(mu_provider_call(w.p, &req, &c), 0);
    run_until_done(&w);
    assert_string_equal(w.out, "[model:m-1]\nS\n\nEarlier in this conversation:\n\nUser:\none?\n\n"
                               "Agent:\none.\n\nNow:\ntwo?");
}

static void placeholders_are_whole_arguments(void **state)
{
    (void)state;
    static const char show[] = "for a; do printf '<%s>' \"$a\"; done; cat";
    struct mu_provider_conf *c = agent(show);
    args[3] = "{model}";
    args[4] = "{run_id}";
    args[5] = "--x={model}";
    world_start(&w);
    c->cli_prompt_arg = true;
    call(&w, "agent", "-hi 'there'");
    assert_string_equal(w.out, "<m-1><run_1><--x={model}><-hi 'there'>");
    args[5] = "{prompt}";
    args[6] = "end";
    call(&w, "agent", "hi");
    assert_string_equal(w.out, "<m-1><run_1><hi><end>");
    c->cli_prompt_arg = false; /* where it is placed it is not sent a second time */
    c->system_prompt = "Asked for.";
    call(&w, "agent", "hi");
    assert_string_equal(w.out, "<m-1><run_1><Asked for.\n\nhi><end>");

    static char big[140000];
    memset(big, 'a', sizeof big - 1);
    call(&w, "agent", big);
    assert_class(&w, MU_CALL_CONFIG);
    assert_has(w.text, "OZ_PROVIDER_AGENT_CLI_PROMPT_MODE");
    struct mu_call_request req = request(&w, "agent", "");
    struct mu_provider_call *call_;
    req.prompt = mu_bytes_of("a\0b", 3);
    assert_int_equal(mu_provider_call(w.p, &req, &call_), 0);
    run_until_done(&w);
    assert_class(&w, MU_CALL_BAD_REQUEST);
}

static void only_listed_variables_are_passed(void **state)
{
    (void)state;
    static const char *const more[] = {"AGENT_KEY", NULL};
    struct mu_provider_conf *c = agent("env");
    world_start(&w);
    call(&w, "agent", "hi");
    assert_has(w.out, "PATH=/usr/local/bin:/usr/bin:/bin\n");
    assert_has(w.out, "LC_ALL=C\n");
    assert_has(w.out, "OZ_RUN_ID=run_1\n");
    assert_has_not(w.out, "not-this");
    assert_has_not(w.out, "SERVER_ONLY");
    assert_has_not(w.out, "AGENT_KEY");
    c->cli_env = more;
    call(&w, "agent", "hi");
    assert_has(w.out, "AGENT_KEY=very-secret-value-1234\n");
    args[1] = "echo \"bad key $AGENT_KEY\" >&2; exit 1";
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_CLI_FAILED);
    assert_string_equal(w.text, "CLI provider failed: bad key [redacted]");
}

static void the_private_folder_goes_and_nothing_else(void **state)
{
    (void)state;
    char outside[64], script[512];
    snprintf(outside, sizeof outside, "%s/outside", w.dir);
    assert_int_equal(mkdir(outside, 0700), 0);
    snprintf(script, sizeof script, "%s/keep", outside);
    assert_true(close(open(script, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) == 0);
    snprintf(script, sizeof script,
             "pwd; stat -c %%a .; mkdir -p a/b/c; touch a/f; ln -s %s link; ln -s %s a/link; "
             "chmod 500 a; chmod 000 a/b",
             outside, outside);
    agent(script);
    world_start(&w);
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_OK);
    assert_has(w.out, "/scratch/run-run_1-");
    assert_has(w.out, "\n700\n");
    settle(&w);
    assert_int_equal(entries(w.scratch), 0);
    assert_int_equal(entries(outside), 1);
}

static void a_configured_folder_is_used_and_kept(void **state)
{
    (void)state;
    struct mu_provider_conf *c = agent("pwd; touch made");
    char dir[64];
    snprintf(dir, sizeof dir, "%s/work", w.dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    c->cli_cwd = dir;
    world_start(&w);
    call(&w, "agent", "hi");
    assert_has(w.out, dir);
    assert_int_equal(entries(dir), 1);
}

static void trees_deeper_than_descriptors_reach_are_removed(void **state)
{
    (void)state;
    char dir[128];
    struct rlimit before, few;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = 200;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(mu_private_dir_make(w.scratch, "a/../b", dir, sizeof dir), 0);
    assert_has(dir, "/scratch/run-a____b-");
    int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 600; i++) {
        assert_int_equal(mkdirat(at, "d", 0700), 0);
        int next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = next;
        assert_true(at >= 0);
    }
    close(at);
    assert_int_equal(mu_folder_remove(dir), 0);
    assert_int_equal(entries(w.scratch), 0);
    assert_int_equal(mu_folder_remove(dir), 0); /* is gone already */
    assert_int_equal(mu_private_dir_make("/nowhere", "x", dir, sizeof dir), -ENOENT);
    assert_string_equal(dir, "");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* In a child without privileges: 0 when its folder went away. */
static int remove_locked(void)
{
    char top[] = "/tmp/mu-prov-XXXXXX", path[64];
    if ((geteuid() == 0 && setresuid(65534, 65534, 65534) < 0) || !mkdtemp(top)) {
        return 2;
    }
    static const char *const dirs[] = {"/a", "/a/b", "/a/b/c", "/a/b/c/d"};
    for (size_t i = 0; i < MU_ARRAY_LEN(dirs); i++) {
        snprintf(path, sizeof path, "%s%s", top, dirs[i]);
        if (mkdir(path, 0700) < 0) {
            return 3;
        }
    }
    for (size_t i = MU_ARRAY_LEN(dirs); i-- > 0;) {
        snprintf(path, sizeof path, "%s%s", top, dirs[i]);
        if (chmod(path, i % 2 ? 0 : 0500) < 0) {
            return 4;
        }
    }
    return mu_folder_remove(top) == 0 && access(top, F_OK) < 0 ? 0 : 1;
}

static void folders_without_permissions_are_removed(void **state)
{
    (void)state;
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        _exit(remove_locked());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void the_start_sweeps_what_a_crash_left(void **state)
{
    (void)state;
    char dir[128], other[128];
    assert_int_equal(mu_private_dir_make(w.scratch, "x", dir, sizeof dir), 0);
    assert_int_equal(mu_private_dir_write(dir, "f", MU_B("x")), 0);
    snprintf(other, sizeof other, "%s/runs", w.scratch);
    assert_int_equal(mkdir(other, 0700), 0);
    world_start(&w);
    assert_int_equal(access(dir, F_OK), -1);
    assert_int_equal(access(other, F_OK), 0);
}

static void failures_have_their_class_and_text(void **state)
{
    (void)state;
    static const int64_t exits[] = {75};
    static const struct {
        const char *script;
        enum mu_call_class cls;
        int status;
        const char *text;
    } rows[] = {
        {"echo out; echo 'it broke' >&2; exit 3", MU_CALL_CLI_FAILED, 3,
         "CLI provider failed: it broke"},
        {"echo 'said on stdout'; exit 4", MU_CALL_CLI_FAILED, 4,
         "CLI provider failed: said on stdout"},
        {"exit 5", MU_CALL_CLI_FAILED, 5, "CLI provider failed: exit code 5"},
        {"kill -9 $$", MU_CALL_CLI_FAILED, 137, "CLI provider failed: ended by signal 9"},
        {"exit 137", MU_CALL_CLI_FAILED, 137, "CLI provider failed: exit code 137"},
        {"echo 'Rate limit reached' >&2; exit 1", MU_CALL_RATE_LIMITED, 1,
         "CLI rate limited: Rate limit reached"},
        {"echo 'HTTP 429' >&2; exit 1", MU_CALL_RATE_LIMITED, 1, "CLI rate limited: HTTP 429"},
        {"echo 'too many requests'; exit 1", MU_CALL_RATE_LIMITED, 1,
         "CLI rate limited: too many requests"},
        {"echo 'main.c:429: error' >&2; exit 1", MU_CALL_CLI_FAILED, 1,
         "CLI provider failed: main.c:429: error"},
        {"echo 'port 14290' >&2; exit 1", MU_CALL_CLI_FAILED, 1, "CLI provider failed: port 14290"},
        {"exit 75", MU_CALL_RATE_LIMITED, 75, "CLI rate limited: exit code 75"},
        {"echo ' '", MU_CALL_BAD_RESPONSE, 0, "CLI provider failed: the output was empty"},
    };
    struct mu_provider_conf *c = agent("");
    c->cli_rate_limit_exit = exits;
    c->n_cli_rate_limit_exit = 1;
    world_start(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        args[1] = rows[i].script;
        call(&w, "agent", "hi");
        assert_class(&w, rows[i].cls);
        assert_string_equal(w.text, rows[i].text);
        assert_int_equal(w.result.status, rows[i].status);
        assert_int_equal(w.result.counted,
                         rows[i].cls == MU_CALL_BAD_RESPONSE ||
                             (rows[i].cls == MU_CALL_CLI_FAILED && w.out_len > 0));
    }
    args[1] =
        "i=0; while [ $i -lt 300 ]; do echo \"line $i \xc3\xa4\"; i=$((i+1)); done >&2; exit 1";
    call(&w, "agent", "hi");
    assert_int_equal(mu_utf8_count(mu_str(w.text)), 500);
    assert_has(w.text, "CLI provider failed: line 0");
    assert_has(w.text, "line 299");
}

static void limits_end_a_program(void **state)
{
    (void)state;
    struct mu_provider_conf *c = agent("sleep 60 & sleep 60");
    world_start(&w);
    c->cli_timeout_ms = 150;
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_CLI_TIMEOUT);
    assert_string_equal(w.text, "CLI provider failed: no end within 150 ms");
    assert_true(w.result.ms < 5000);
    assert_true(w.result.counted);
    c->cli_timeout_ms = 20000;
    c->cli_max_output = 10000;
    args[1] = "yes";
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_CLI_OUTPUT_LIMIT);
    args[1] = "yes >&2";
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_CLI_OUTPUT_LIMIT);
}

static void a_command_that_is_not_there_is_a_configuration_error(void **state)
{
    (void)state;
    struct mu_provider_conf *c = agent("");
    world_start(&w);
    c->cli_cmd = "no-such-program-here";
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_CONFIG);
    assert_has(w.text, "OZ_PROVIDER_AGENT_CLI_CMD");
    assert_false(w.result.counted);
    c->cli_cmd = NULL;
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_CONFIG);
    assert_has(w.text, "OZ_PROVIDER_AGENT_CLI_CMD");
    static const struct mu_model_image image = {{"image/png", 9}, {"AAAA", 4}};
    struct mu_call_request req = request(&w, "agent", "hi");
    struct mu_provider_call *call_;
    req.images = &image;
    req.n_images = 1;
    assert_int_equal(mu_provider_call(w.p, &req, &call_), 0);
    run_until_done(&w);
    assert_class(&w, MU_CALL_CONFIG);
    assert_int_equal(provider(&w, "agent")->running, 0);
}

static void a_program_that_ignores_stdin_comes_to_no_harm(void **state)
{
    (void)state;
    static char big[1 << 20];
    memset(big, 'a', sizeof big - 1);
    agent("exec <&-; echo fine");
    world_start(&w);
    call(&w, "agent", big);
    assert_class(&w, MU_CALL_OK);
    assert_string_equal(w.out, "fine\n");
}

static void slots_bound_what_runs(void **state)
{
    (void)state;
    int64_t until;
    agent("echo hi");
    world_start(&w);
    struct mu_provider *pr = provider(&w, "agent");
    const struct mu_call_request req = request(&w, "agent", "hi");
    struct mu_provider_call *c;
    assert_int_equal(mu_provider_gate(pr, "o", w.now_ms, &until), MU_P_OK);
    assert_int_equal(mu_provider_call(w.p, &req, &c), 0);
    assert_int_equal(mu_provider_gate(pr, "o", w.now_ms, &until), MU_P_BUSY);
    assert_int_equal(mu_provider_call(w.p, &req, &c), MU_E_BUSY);
    run_until_done(&w);
    assert_int_equal(mu_provider_gate(pr, "o", w.now_ms, &until), MU_P_OK);
    run_for(&w, 30);
    assert_int_equal(w.capacity, 1);
}

static void stop_soon(struct mu_timer *t)
{
    (void)t;
    mu_loop_stop(w.loop);
}

static void an_abort_ends_the_group_at_any_moment(void **state)
{
    (void)state;
    char marker[96], script[256];
    snprintf(marker, sizeof marker, "%s/late", w.dir);
    snprintf(script, sizeof script, "(sleep 1; touch %s) & echo begun; sleep 60", marker);
    agent(script);
    world_start(&w);
    struct mu_call_request req = request(&w, "agent", "hi");
    struct mu_provider_call *c;
    assert_int_equal(mu_provider_call(w.p, &req, &c), 0);
    mu_provider_call_abort(c); /* while its folder is made */
    assert_int_equal(w.dones, 0);
    run_until_done(&w);
    assert_class(&w, MU_CALL_CANCELLED);
    assert_string_equal(w.out, "");

    assert_int_equal(mu_provider_call(w.p, &req, &c), 0);
    struct mu_timer t;
    mu_timer_init(&t, w.loop, stop_soon);
    for (int i = 0; i < 500 && !w.out_len; i++) {
        assert_int_equal(mu_timer_set(&t, 10), 0);
        mu_loop_run(w.loop);
    }
    assert_string_equal(w.out, "begun\n");
    mu_provider_call_abort(c);
    run_until_done(&w);
    assert_class(&w, MU_CALL_CANCELLED);
    assert_true(w.result.counted);
    run_for(&w, 1300);
    assert_int_equal(access(marker, F_OK), -1);
    assert_int_equal(w.dones, 2);

    args[1] = "echo a; sleep 60";
    w.refuse = MU_E_TOO_LARGE; /* the caller wants no more */
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_CANCELLED);
}

static void the_shell_runs_the_prompt(void **state)
{
    (void)state;
    add_conf(&w, "shell", MU_PROVIDER_SHELL);
    world_start(&w);
    call(&w, "shell", "read line; echo \"got [$line]\"\necho \"in $OZ_RUN_ID\"");
    assert_class(&w, MU_CALL_OK);
    assert_string_equal(w.out, "got []\nin run_1\n");
    call(&w, "shell", "true");
    assert_class(&w, MU_CALL_OK);
    call(&w, "shell", "echo partly; echo 'rate limit' >&2; exit 9");
    assert_class(&w, MU_CALL_CLI_FAILED);
    assert_string_equal(w.text, "CLI provider failed: rate limit");
    assert_string_equal(w.out, "partly\n");
    assert_int_equal(w.result.status, 9);
    settle(&w);
    assert_int_equal(entries(w.scratch), 0);
}

static void an_agents_format_gives_words_and_answer(void **state)
{
    (void)state;
    struct mu_provider_conf *c = agent(
        "echo '{\"type\":\"assistant\",\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"I "
        "look\"}]}}'; echo '{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,"
        "\"result\":\" done \",\"usage\":{\"input_tokens\":5,\"output_tokens\":2}}'");
    c->cli_format = MU_CLI_CLAUDE_STREAM_JSON;
    world_start(&w);
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_OK);
    assert_string_equal(w.out, "I look");
    assert_true(w.has_final);
    assert_string_equal(w.final_text, "done");
    assert_int_equal(w.result.tokens_out, 2);
    args[1] = "echo '{\"type\":\"result\",\"subtype\":\"error\",\"is_error\":true,"
              "\"result\":\"I could not\"}'";
    call(&w, "agent", "hi");
    assert_class(&w, MU_CALL_CLI_FAILED);
    assert_string_equal(w.text, "CLI provider failed: I could not");
}

static void a_full_work_pool_refuses_the_call(void **state)
{
    (void)state;
    agent("echo hi");
    w.work = mu_work_free(w.work);
    assert_int_equal(mu_work_new(1, 0, &w.work), 0);
    w.opts.work = w.work;
    world_start(&w);
    const struct mu_call_request req = request(&w, "agent", "hi");
    struct mu_provider_call *c;
    assert_int_equal(mu_provider_call(w.p, &req, &c), MU_E_BUSY);
    assert_int_equal(provider(&w, "agent")->running, 0);
    assert_true(mu_list_empty(&w.p->calls));
}

static void a_shutdown_does_not_wait_for_folders(void **state)
{
    (void)state;
    agent("mkdir -p a/b/c/d/e; echo hi");
    world_start(&w);
    call(&w, "agent", "hi");
    assert_false(mu_list_empty(&w.p->calls));
    w.p = mu_providers_free(w.p); /* its removal ends, or is left to the next start, in tear_down */
}

static int one_call(void *arg)
{
    (void)arg;
    const struct mu_call_request req = request(&w, "agent", "hi");
    struct mu_provider_call *c;
    int before = w.dones;
    int r = mu_provider_call(w.p, &req, &c);
    if (r == 0) {
        run_until_done(&w);
        assert_int_equal(w.dones, before + 1);
    }
    while (!mu_list_empty(&w.p->calls)) {
        mu_loop_stop(w.loop); /* one turn */
        mu_loop_run(w.loop);
        usleep(1000);
    }
    assert_int_equal(provider(&w, "agent")->running, 0);
    return r;
}

static void no_allocation_failure_breaks_a_call(void **state)
{
    (void)state;
    agent("echo hi");
    world_start(&w);
    mu_providers_on_capacity(w.p, NULL, NULL);
    each_allocation_fails(one_call, NULL);
    assert_class(&w, MU_CALL_OK);
    assert_int_equal(entries(w.scratch), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(stdin_holds_model_system_and_prompt),
        T(earlier_turns_precede_the_prompt),
        T(placeholders_are_whole_arguments),
        T(only_listed_variables_are_passed),
        T(the_private_folder_goes_and_nothing_else),
        T(a_configured_folder_is_used_and_kept),
        T(trees_deeper_than_descriptors_reach_are_removed),
        T(folders_without_permissions_are_removed),
        T(the_start_sweeps_what_a_crash_left),
        T(failures_have_their_class_and_text),
        T(limits_end_a_program),
        T(a_command_that_is_not_there_is_a_configuration_error),
        T(a_program_that_ignores_stdin_comes_to_no_harm),
        T(slots_bound_what_runs),
        T(an_abort_ends_the_group_at_any_moment),
        T(the_shell_runs_the_prompt),
        T(an_agents_format_gives_words_and_answer),
        T(a_full_work_pool_refuses_the_call),
        T(a_shutdown_does_not_wait_for_folders),
        T(no_allocation_failure_breaks_a_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
