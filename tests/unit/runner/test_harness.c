#include "../unit.h"

#include <errno.h>
#include <stdio.h>

#include "../alloc_fail.h"
#include "runner/harness.h"

static const char *vars[16];

static const char *get(const char *name)
{
    for (size_t i = 0; vars[i]; i += 2) {
        if (strcmp(vars[i], name) == 0) {
            return vars[i + 1];
        }
    }
    return NULL;
}

static enum mu_harness chosen(const char *env, const char *arg, const char *model,
                              const char *fallback)
{
    struct mu_harness_hints h = {env, arg, model, fallback};
    enum mu_harness ret;
    struct mu_err err;
    assert_int_equal(mu_harness_choose(&h, &ret, &err), 0);
    return ret;
}

static void refused(const char *env, const char *arg, const char *model, const char *fallback)
{
    struct mu_harness_hints h = {env, arg, model, fallback};
    enum mu_harness ret;
    struct mu_err err = {0};
    assert_int_equal(mu_harness_choose(&h, &ret, &err), MU_E_INVALID);
    assert_true(err.text[0]);
}

static void the_order_of_choice(void **state)
{
    (void)state;
    assert_int_equal(chosen("codex", "gemini", "claude", "shell"), MU_HARNESS_CODEX);
    assert_int_equal(chosen("", "Gemini-CLI", "claude", "shell"), MU_HARNESS_GEMINI);
    assert_int_equal(chosen("oz", "", "My-CLAUDE-codex", "shell"), MU_HARNESS_CLAUDE);
    assert_int_equal(chosen(NULL, "oz", "gpt-codex-gemini", "shell"), MU_HARNESS_CODEX);
    assert_int_equal(chosen(NULL, NULL, "pending", "shell"), MU_HARNESS_SHELL);
    assert_int_equal(chosen("claude-code", NULL, NULL, NULL), MU_HARNESS_CLAUDE);
    assert_int_equal(chosen("opencode", NULL, NULL, NULL), MU_HARNESS_OPENCODE);
    assert_int_equal(chosen("custom", NULL, NULL, NULL), MU_HARNESS_CUSTOM);
}

static void no_word_matches_by_chance(void **state)
{
    (void)state;
    refused(NULL, NULL, NULL, NULL);
    refused("", "", "", "");
    refused(NULL, NULL, "my-shell-model", NULL);
    refused("my-claude", NULL, "claude", NULL);
    refused(NULL, "x", "claude", NULL);
    refused(NULL, NULL, "glm", "nothing");
}

static void expect(enum mu_harness h, mu_bytes prompt, const char *want, bool on_stdin)
{
    struct mu_harness_cmd cmd;
    struct mu_err err;
    char line[4096] = "";
    assert_int_equal(mu_harness_command(h, prompt, "/s", get, &cmd, &err), 0);
    for (size_t i = 0; cmd.argv[i]; i++) {
        size_t n = strlen(line);
        snprintf(line + n, sizeof line - n, "%s<%s>", i ? " " : "", cmd.argv[i]);
    }
    assert_string_equal(line, want);
    assert_int_equal(cmd.prompt_on_stdin, on_stdin);
    mu_harness_cmd_fini(&cmd);
}

static void each_programs_words(void **state)
{
    (void)state;
    vars[0] = NULL;
    expect(MU_HARNESS_CLAUDE, MU_B("do"),
           "<claude> <-p> <do> <--permission-mode> <bypassPermissions>", false);
    expect(
        MU_HARNESS_CODEX, MU_B("-x"),
        "<codex> <exec> <-> <--skip-git-repo-check> <--dangerously-bypass-approvals-and-sandbox>",
        true);
    expect(MU_HARNESS_GEMINI, MU_B("a\0b"), "<gemini> <--yolo>", true);
    expect(MU_HARNESS_OPENCODE, MU_B("do it\n\"now\""), "<opencode> <run> <do it\n\"now\">", false);
    expect(MU_HARNESS_SHELL, MU_B("-x"), "</bin/sh> </s>", false);
}

static void overrides_replace_program_and_words(void **state)
{
    (void)state;
    const char *const set[] = {"OZ_SIDECAR_CLAUDE_CMD",
                               "/opt/my claude",
                               "OZ_SIDECAR_CLAUDE_ARGS",
                               " \t a  b\n",
                               "OZ_SIDECAR_CODEX_CMD",
                               "",
                               "OZ_SIDECAR_CODEX_ARGS",
                               "",
                               "OZ_SIDECAR_CUSTOM_CMD",
                               "cat | wc",
                               NULL};
    memcpy(vars, set, sizeof set);
    expect(MU_HARNESS_CLAUDE, MU_B("do"), "</opt/my claude> <-p> <do> <a> <b>", false);
    expect(MU_HARNESS_CODEX, MU_B("do"), "<> <exec> <do>", false);
    expect(MU_HARNESS_CUSTOM, MU_B("do"), "</bin/sh> <-c> <cat | wc>", true);
}

static void too_many_words_and_no_custom_command_are_refused(void **state)
{
    (void)state;
    char many[2 * (MU_HARNESS_WORDS + 1) + 1];
    for (size_t i = 0; i < sizeof many - 1; i++) {
        many[i] = i % 2 ? ' ' : 'w';
    }
    many[sizeof many - 1] = 0;
    const char *const set[] = {"OZ_SIDECAR_CLAUDE_ARGS", many, "OZ_SIDECAR_CUSTOM_CMD", "", NULL};
    memcpy(vars, set, sizeof set);
    struct mu_harness_cmd cmd;
    struct mu_err err;
    assert_int_equal(mu_harness_command(MU_HARNESS_CLAUDE, MU_B("do"), "/s", get, &cmd, &err),
                     MU_E_INVALID);
    assert_int_equal(mu_harness_command(MU_HARNESS_CUSTOM, MU_B("do"), "/s", get, &cmd, &err),
                     MU_E_INVALID);
    many[2 * MU_HARNESS_WORDS] = 0;
    assert_int_equal(mu_harness_command(MU_HARNESS_CLAUDE, MU_B("do"), "/s", get, &cmd, &err), 0);
    mu_harness_cmd_fini(&cmd);
    vars[0] = NULL;
}

static int no_memory(void *arg)
{
    (void)arg;
    struct mu_harness_cmd cmd;
    struct mu_err err;
    int r = mu_harness_command(MU_HARNESS_CLAUDE, MU_B("do"), "/s", get, &cmd, &err);
    if (r == 0) {
        mu_harness_cmd_fini(&cmd);
    }
    return r;
}

static void memory_may_run_out_anywhere(void **state)
{
    (void)state;
    each_allocation_fails(no_memory, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_of_choice),
        cmocka_unit_test(no_word_matches_by_chance),
        cmocka_unit_test(each_programs_words),
        cmocka_unit_test(overrides_replace_program_and_words),
        cmocka_unit_test(too_many_words_and_no_custom_command_are_refused),
        cmocka_unit_test(memory_may_run_out_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
