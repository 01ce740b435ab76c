#include "worker/yaml.h"

#include "../alloc_fail.h"
#include "../unit.h"

static struct mu_arena arena;
static struct mu_worker_yaml y;
static struct mu_err err;

static int read_yaml(const char *text)
{
    memset(&err, 0, sizeof err);
    mu_arena_fini(&arena);
    mu_arena_init(&arena, 1 << 20);
    return mu_worker_yaml_read(&arena, mu_str(text), &y, &err);
}

static const char everything[] = "worker_id: w1\n"
                                 "cleanup: false\n"
                                 "max_concurrent_tasks: 4\n"
                                 "idle_on_complete: 45m\n"
                                 "labels: [a, \"b c\"]\n"
                                 "backend:\n"
                                 "  direct:\n"
                                 "    workspace_root: /var/lib/oz/workspaces\n"
                                 "    oz_path: /usr/bin/oz\n"
                                 "    setup_command: |\n"
                                 "      echo a\n"
                                 "      echo b\n"
                                 "    teardown_command: 'true'\n"
                                 "    target_dir: ~\n"
                                 "    environment:\n"
                                 "      - name: A\n"
                                 "        value: x=y\n"
                                 "      - name: FROM_HOST\n"
                                 "      - {name: EMPTY, value: ''}\n";

static void every_key_of_the_other_worker_is_read(void **state)
{
    (void)state;
    assert_int_equal(read_yaml(everything), 0);
    assert_string_equal(y.worker_id, "w1");
    assert_int_equal(y.cleanup, 0);
    assert_int_equal(y.max_concurrent_tasks, 4);
    assert_string_equal(y.idle_on_complete, "45m");
    assert_string_equal(y.backend, "direct");
    assert_string_equal(y.setup_command, "echo a\necho b\n");
    assert_string_equal(y.teardown_command, "true");
    assert_null(y.target_dir);
    assert_string_equal(y.environment[0], "A=x=y");
    assert_string_equal(y.environment[1], "FROM_HOST");
    assert_string_equal(y.environment[2], "EMPTY=");
    assert_null(y.environment[3]);
    assert_string_equal(y.labels[1], "b c");
    assert_int_equal(read_yaml("backend: {docker: {volumes: ['/a:/b', '/c:/d:ro'], pull: never}}"), 0);
    assert_string_equal(y.volumes[1], "/c:/d:ro");
    assert_string_equal(y.pull, "never");
    assert_int_equal(read_yaml("backend:\n  command:\n    dispatch_command: run it\n"), 0);
    assert_string_equal(y.dispatch_command, "run it");
    assert_int_equal(read_yaml("backend:\n  docker:\n"), 0);
    assert_string_equal(y.backend, "docker");
}

static void an_empty_file_says_nothing(void **state)
{
    (void)state;
    static const char *const empty[] = {"", "\n", "# nothing\n", "---\n", "~"};
    for (size_t i = 0; i < MU_ARRAY_LEN(empty); i++) {
        assert_int_equal(read_yaml(empty[i]), 0);
        assert_null(y.backend);
        assert_int_equal(y.cleanup, -1);
        assert_int_equal(y.max_concurrent_tasks, -1);
    }
}

static void what_is_wrong_is_named_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
    } bad[] = {{"worker_id: a\nworkerid: b\n", "line 2"},
               {"worker_id: a\nworkerid: b\n", "workerid"},
               {"worker_id: [a]", "expected text"},
               {"cleanup: maybe", "cleanup"},
               {"max_concurrent_tasks: -1", "max_concurrent_tasks"},
               {"max_concurrent_tasks: many", "max_concurrent_tasks"},
               {"backend: {docker: {}, direct: {}}", "more than one block"},
               {"backend: {kubernetes: {}}", "kubernetes"},
               {"backend: {docker: {volume: []}}", "volume"},
               {"backend: docker", "keys and values"},
               {"backend: {direct: {environment: {A: b}}}", "list"},
               {"backend: {direct: {environment: [A]}}", "name and value"},
               {"backend: {direct: {environment: [{value: b}]}}", "name"},
               {"backend: {direct: {environment: [{name: 'A B'}]}}", "name"},
               {"backend: {direct: {environment: [{name: A, x: b}]}}", "only name and value"},
               {"worker_id: a\nworker_id: b", "twice"},
               {"a: &x [*x]", "unknown key"},
               {"[", "line"},
               {"\t- x", "line"}};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_int_equal(read_yaml(bad[i].text), MU_E_INVALID);
        if (!strstr(err.text, bad[i].word)) {
            fail_msg("%s: %s", bad[i].text, err.text);
        }
    }
}

static int read_everything(void *arg)
{
    (void)arg;
    return read_yaml(everything);
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    each_allocation_fails(read_everything, NULL);
    mu_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_key_of_the_other_worker_is_read),
                                       cmocka_unit_test(an_empty_file_says_nothing),
                                       cmocka_unit_test(what_is_wrong_is_named_with_its_line),
                                       cmocka_unit_test(any_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
