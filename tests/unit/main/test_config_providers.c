/* OZ_PROVIDER_<KEY>_*: values, what is global, orders, validation. */
#include "config_world.h"

static void a_provider_has_the_defaults_of_its_type(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_PROVIDER_CLAUDE_MODEL=m1", "OZ_PROVIDER_CLAUDE_API_KEY=k",
         "OZ_PROVIDER_GLM_MODEL=m2", "OZ_PROVIDER_GLM_BASE_URL=https://h/v1//",
         "OZ_PROVIDER_MINE_TYPE=CLI", "OZ_PROVIDER_MINE_CLI_CMD=prog");
    assert_int_equal(l.r, 0);
    const struct mu_provider_conf *claude = provider(&l, "claude"), *glm = provider(&l, "glm"),
                                  *mine = provider(&l, "mine");
    assert_int_equal(l.c->provider_list.n, 4); /* and the shell */
    assert_true(l.c->providers_given);
    assert_int_equal(claude->type, MU_PROVIDER_ANTHROPIC);
    assert_string_equal(claude->base_url, "https://api.anthropic.com");
    assert_int_equal(claude->max_tokens, 2048);
    assert_int_equal(glm->type, MU_PROVIDER_OPENAI);
    assert_string_equal(glm->base_url, "https://h/v1");
    assert_int_equal(glm->max_tokens, 0);
    assert_true(glm->has_temperature && glm->temperature > 0.19 && glm->temperature < 0.21);
    assert_int_equal(glm->timeout_ms, 120000);
    assert_int_equal(mine->type, MU_PROVIDER_CLI);
    assert_string_equal(mine->model, "cli");
    assert_false(mine->model_given);
    assert_int_equal(mine->cli_timeout_ms, 300000);
    assert_int_equal(mine->cli_max_output, 20 * 1024 * 1024);
    assert_true(mine->cli_max_parallel >= 1);
    assert_false(mine->discovered);
    loaded_fini(&l);
}

static void every_provider_value_arrives(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_PROVIDER_MY-LLM_TYPE=cli", "OZ_PROVIDER_MY-LLM_MODELS=a, b ,,c",
         "OZ_PROVIDER_MY-LLM_MSG_LIMIT=5", "OZ_PROVIDER_MY-LLM_WINDOW_SECONDS=60",
         "OZ_PROVIDER_MY-LLM_QUOTA_SCOPE=global",
         "OZ_PROVIDER_MY-LLM_TEMPERATURE=", "OZ_PROVIDER_MY-LLM_MAX_TOKENS=77",
         "OZ_PROVIDER_MY-LLM_SYSTEM_PROMPT=be", "OZ_PROVIDER_MY-LLM_EXTRA_BODY={\"a\":1}",
         "OZ_PROVIDER_MY-LLM_TIMEOUT_MS=500", "OZ_PROVIDER_MY-LLM_CLI_CMD=prog",
         "OZ_PROVIDER_MY-LLM_CLI_ARGS=[\"a b\",1,true,\"\"]",
         "OZ_PROVIDER_MY-LLM_CLI_PROMPT_MODE=arg", "OZ_PROVIDER_MY-LLM_CLI_ENV=A_1,B",
         "OZ_PROVIDER_MY-LLM_CLI_CWD=/w", "OZ_PROVIDER_MY-LLM_CLI_TIMEOUT_MS=1000",
         "OZ_PROVIDER_MY-LLM_CLI_MAX_PARALLEL=3", "OZ_PROVIDER_MY-LLM_CLI_RATE_LIMIT_EXIT=75,76",
         "OZ_PROVIDER_MY-LLM_CLI_FORMAT=codex-json",
         "OZ_PROVIDER_MY-LLM_CLI_MAX_OUTPUT_BYTES=2048");
    assert_string_equal(l.err.text, "");
    const struct mu_provider_conf *p = provider(&l, "my_llm");
    assert_non_null(p);
    assert_string_equal(p->models[2], "c");
    assert_null(p->models[3]);
    assert_int_equal(p->msg_limit, 5);
    assert_int_equal(p->window_seconds, 60);
    assert_true(p->quota_global);
    assert_false(p->has_temperature);
    assert_int_equal(p->max_tokens, 77);
    assert_string_equal(p->system_prompt, "be");
    assert_string_equal(p->extra_body, "{\"a\":1}");
    assert_int_equal(p->timeout_ms, 500);
    assert_string_equal(p->cli_args[0], "a b");
    assert_string_equal(p->cli_args[1], "1");
    assert_string_equal(p->cli_args[2], "true");
    assert_string_equal(p->cli_args[3], "");
    assert_null(p->cli_args[4]);
    assert_true(p->cli_prompt_arg);
    assert_string_equal(p->cli_env[1], "B");
    assert_string_equal(p->cli_cwd, "/w");
    assert_int_equal(p->cli_timeout_ms, 1000);
    assert_int_equal(p->cli_max_parallel, 3);
    assert_int_equal(p->n_cli_rate_limit_exit, 2);
    assert_int_equal(p->cli_rate_limit_exit[1], 76);
    assert_int_equal(p->cli_format, MU_CLI_CODEX_JSON);
    assert_int_equal(p->cli_max_output, 2048);
    loaded_fini(&l);
}

static void arguments_without_brackets_are_words(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_PROVIDER_X_TYPE=cli", "OZ_PROVIDER_X_CLI_ARGS= -p  'x y' {prompt}\t--end ");
    assert_int_equal(l.r, 0);
    const struct mu_provider_conf *p = provider(&l, "x");
    assert_string_equal(p->cli_args[0], "-p");
    assert_string_equal(p->cli_args[1], "'x");
    assert_string_equal(p->cli_args[3], "{prompt}");
    assert_string_equal(p->cli_args[4], "--end");
    assert_null(p->cli_args[5]);
    loaded_fini(&l);
}

static void the_longest_ending_names_the_setting(void **state)
{
    (void)state;
    char key[64];
    assert_string_equal(mu_provider_var(MU_B("OZ_PROVIDER_A_CLI_TIMEOUT_MS"), key)->name,
                        "CLI_TIMEOUT_MS");
    assert_string_equal(key, "a");
    assert_string_equal(mu_provider_var(MU_B("OZ_PROVIDER_A_B_TIMEOUT_MS"), key)->name,
                        "TIMEOUT_MS");
    assert_string_equal(key, "a_b");
    assert_null(mu_provider_var(MU_B("OZ_PROVIDER__TYPE_X"), key));
    assert_null(mu_provider_var(MU_B("OZ_PROVIDER_TYPE"), key));
    /* Names of the table are never a provider's, though they end like one. */
    assert_int_equal(mu_config_classify(MU_B("OZ_PROVIDER_MODEL")), MU_NAME_ROW);
    assert_int_equal(mu_config_classify(MU_B("OZ_PROVIDER_MAX_OUTPUT_BYTES")), MU_NAME_ROW);
}

static void the_model_comes_from_the_chain(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_MODEL=general", "OZ_PROVIDER_X_BASE_URL=http://h", "OZ_PROVIDER_Y_TYPE=cli");
    assert_string_equal(provider(&l, "x")->model, "general");
    assert_string_equal(provider(&l, "y")->model, "general");
    assert_true(provider(&l, "y")->model_given);
    assert_string_equal(l.c->providers.model_fallback, "general");
    loaded_fini(&l);
    LOAD(&l, "OZ_MODEL=general", "OZ_PROVIDER_MODEL=nearer", "OZ_PROVIDER_X_BASE_URL=http://h");
    assert_string_equal(provider(&l, "x")->model, "nearer");
    assert_string_equal(l.c->providers.model_fallback, "general");
    loaded_fini(&l);
}

static void a_global_key_is_not_sent_to_other_providers(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_PROVIDER_BASE_URL=http://mine/v1", "OZ_PROVIDER_API_KEY=mine",
         "OZ_PROVIDER_MODEL=m", "OZ_PROVIDER_CLAUDE_MODEL=c", "OZ_PROVIDER_KIMI_TYPE=anthropic",
         "OZ_PROVIDER_CUSTOM_MODEL=own", "OZ_PROVIDER_GLM_MSG_LIMIT=3");
    assert_int_equal(l.r, 0);
    assert_string_equal(provider(&l, "claude")->base_url, "https://api.anthropic.com");
    assert_null(provider(&l, "claude")->api_key);
    assert_null(provider(&l, "kimi")->api_key);
    assert_string_equal(provider(&l, "custom")->base_url, "http://mine/v1");
    assert_string_equal(provider(&l, "custom")->api_key, "mine");
    assert_string_equal(provider(&l, "custom")->model, "own");
    /* names no type, URL or model of its own */
    assert_string_equal(provider(&l, "glm")->api_key, "mine");
    assert_true(warned(&l, "OZ_PROVIDER_API_KEY is sent to the provider custom"));
    assert_true(warned(&l, "OZ_PROVIDER_API_KEY is sent to the provider glm"));
    assert_false(warned(&l, "OZ_PROVIDER_API_KEY is sent to the provider claude"));
    loaded_fini(&l);
}

static void global_settings_alone_make_candidates(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_PROVIDER_BASE_URL=http://mine/v1", "OZ_PROVIDER_MODEL=m",
         "OZ_DEFAULT_PROVIDER=House", "OZ_PROVIDER_FALLBACK_ORDER= Spare-1 , ,X");
    assert_int_equal(l.r, 0);
    assert_true(l.c->providers_given);
    assert_non_null(provider(&l, "custom"));
    assert_non_null(provider(&l, "codex"));
    assert_non_null(provider(&l, "house"));
    assert_non_null(provider(&l, "spare_1"));
    assert_string_equal(l.c->providers.fallback_order, "spare_1,x");
    assert_string_equal(l.c->providers.default_provider, "house");
    loaded_fini(&l);
    /* without a model nobody is complete */
    LOAD(&l, "OZ_PROVIDER_BASE_URL=http://mine/v1");
    assert_int_equal(l.r, 0);
    assert_int_equal(l.c->provider_list.n, 1);
    assert_int_equal(provider(&l, "shell")->type, MU_PROVIDER_SHELL);
    loaded_fini(&l);
}

static void the_quota_of_all_applies_where_none_is_set(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_PROVIDER_MSG_LIMIT=10", "OZ_PROVIDER_WINDOW_SECONDS=60", "OZ_PROVIDER_X_MODEL=m",
         "OZ_PROVIDER_Y_MODEL=m", "OZ_PROVIDER_Y_MSG_LIMIT=0");
    assert_int_equal(provider(&l, "x")->msg_limit, 10);
    assert_int_equal(provider(&l, "y")->msg_limit, 0);
    assert_int_equal(provider(&l, "y")->window_seconds, 60);
    assert_true(warned(&l, "the provider x is not used"));
    loaded_fini(&l);
}

static void fallback_orders_are_kept_per_harness(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_PROVIDER_FALLBACK_ORDER_CLAUDE_CODE=glm,Kimi",
         "OZ_PROVIDER_FALLBACK_ORDER_gemini_cli=custom");
    assert_int_equal(l.r, 0);
    assert_int_equal(l.c->providers.n_fallback_orders, 2);
    assert_string_equal(l.c->providers.fallback_orders[0].harness, "claude_code");
    assert_string_equal(l.c->providers.fallback_orders[0].keys, "glm,kimi");
    assert_string_equal(l.c->providers.fallback_orders[1].harness, "gemini_cli");
    loaded_fini(&l);
}

static void model_ids_pick_the_harness_by_the_first_word(void **state)
{
    (void)state;
    assert_string_equal(mu_harness_of_model(MU_B("Claude-codex"), "custom"), "claude-code");
    assert_string_equal(mu_harness_of_model(MU_B("x-GLM-4"), "custom"), "glm");
    assert_string_equal(mu_harness_of_model(MU_B("gemini-2"), "custom"), "gemini-cli");
    assert_string_equal(mu_harness_of_model(MU_B("gpt"), "kimi"), "kimi");
    assert_string_equal(mu_harness_of_model(MU_B("shell"), "custom"), "shell");
    assert_string_equal(mu_harness_of_model(MU_B("shelly"), "custom"), "custom");
    assert_string_equal(mu_harness_primary(MU_B("gemini-cli"), "custom"), "gemini");
    assert_string_equal(mu_harness_primary(MU_B("unheard"), "house"), "house");
}

static void validation_wants_a_provider_that_can_work(void **state)
{
    (void)state;
    struct loaded l;
    struct mu_err err;
    const struct {
        const char *settings[4], *said;
    } cases[] = {
        {{"OZ_PROVIDER_GLM_MODEL=m"}, "the harness custom has no provider"},
        {{"OZ_PROVIDER_CUSTOM_MODEL=m", "OZ_PROVIDER_CUSTOM_TYPE=anthropic"},
         "OZ_PROVIDER_CUSTOM_API_KEY"},
        {{"OZ_PROVIDER_CUSTOM_TYPE=cli"}, "OZ_PROVIDER_CUSTOM_CLI_CMD"},
        {{"OZ_PROVIDER_CUSTOM_TYPE=cli", "OZ_PROVIDER_CUSTOM_CLI_CMD=no-such-program"},
         "not on PATH"},
        {{"OZ_PROVIDER_CUSTOM_TYPE=cli", "OZ_PROVIDER_CUSTOM_CLI_CMD=sh"}, NULL},
        {{"OZ_PROVIDER_CUSTOM_TYPE=cli", "OZ_PROVIDER_CUSTOM_CLI_CMD=sh",
          "OZ_VALIDATE_HARNESSES=custom, kimi"},
         "the harness kimi"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        const char *env[6] = {HOME};
        memcpy(env + 1, cases[i].settings, sizeof cases[i].settings);
        load_with(&l, NULL, env, NULL);
        assert_int_equal(l.r, 0);
        int r = mu_config_check_providers(l.c, "/usr/bin:/bin", &l.warnings, &err);
        if (cases[i].said ? r != MU_E_INVALID || !strstr(err.text, cases[i].said) : r != 0) {
            fail_msg("case %zu: %d %s", i, r, err.text);
        }
        loaded_fini(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_provider_has_the_defaults_of_its_type),
        cmocka_unit_test(every_provider_value_arrives),
        cmocka_unit_test(arguments_without_brackets_are_words),
        cmocka_unit_test(the_longest_ending_names_the_setting),
        cmocka_unit_test(the_model_comes_from_the_chain),
        cmocka_unit_test(a_global_key_is_not_sent_to_other_providers),
        cmocka_unit_test(global_settings_alone_make_candidates),
        cmocka_unit_test(the_quota_of_all_applies_where_none_is_set),
        cmocka_unit_test(fallback_orders_are_kept_per_harness),
        cmocka_unit_test(model_ids_pick_the_harness_by_the_first_word),
        cmocka_unit_test(validation_wants_a_provider_that_can_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
