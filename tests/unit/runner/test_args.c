#include "../unit.h"

#include <stdio.h>

#include "base/bytes.h"
#include "runner/args.h"

static int parse(struct mu_runner_args *ret, const char *const *words)
{
    static char store[32][64];
    char *argv[33];
    int n = 0;
    for (; words[n]; n++) {
        snprintf(store[n], sizeof store[n], "%s", words[n]);
        argv[n] = store[n];
    }
    struct mu_err err;
    return mu_runner_args_parse(n, argv, ret, &err);
}
#define PARSE(ret, ...) parse(ret, (const char *const[]){__VA_ARGS__, NULL})

static void values_of_flags_are_never_flags(void **state)
{
    (void)state;
    struct mu_runner_args a;
    assert_int_equal(
        PARSE(&a, "agent", "run", "--profile", "--model", "--skill", "--harness", "--model", "m"),
        0);
    assert_string_equal(a.model, "m");
    assert_null(a.harness);
    assert_int_equal(
        PARSE(&a, "--mcp", "{\"--model\":1}", "--model", "--harness", "--harness", "codex"), 0);
    assert_string_equal(a.model, "--harness");
    assert_string_equal(a.harness, "codex");
}

static void optional_values_do_not_swallow_a_flag(void **state)
{
    (void)state;
    struct mu_runner_args a;
    assert_int_equal(PARSE(&a, "--idle-on-complete", "--model", "m", "--share"), 0);
    assert_string_equal(a.model, "m");
    assert_int_equal(PARSE(&a, "--idle-on-complete", "45m", "--share", "team:edit", "--model", "m"),
                     0);
    assert_string_equal(a.model, "m");
}

static void unknown_words_and_the_equals_form(void **state)
{
    (void)state;
    struct mu_runner_args a;
    assert_int_equal(
        PARSE(&a, "run", "--new-flag", "x", "stray", "--model=a=b", "--task-id=", "--", "-x"), 0);
    assert_string_equal(a.model, "a=b");
    assert_string_equal(a.task_id, "");
    assert_false(a.self_test);
    assert_int_equal(PARSE(&a, "--self-test", "--server-root-url", "u"), 0);
    assert_true(a.self_test);
    assert_string_equal(a.server_root_url, "u");
}

static void a_flag_without_its_value_is_refused_by_name(void **state)
{
    (void)state;
    struct mu_runner_args a = {.model = "untouched"};
    struct mu_err err;
    char word[] = "--environment", *argv[] = {word};
    assert_int_equal(mu_runner_args_parse(1, argv, &a, &err), MU_E_INVALID);
    assert_non_null(strstr(err.text, "--environment"));
    assert_string_equal(a.model, "untouched");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_flags_are_never_flags),
        cmocka_unit_test(optional_values_do_not_swallow_a_flag),
        cmocka_unit_test(unknown_words_and_the_equals_form),
        cmocka_unit_test(a_flag_without_its_value_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
