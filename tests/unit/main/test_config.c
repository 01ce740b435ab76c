#include "../unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "../alloc_fail.h"
#include "main/config_int.h"
#include "main/suggest.h"
#include "proto/json.h"

#define HOME "HOME=/home/somebody"

struct loaded {
    struct mu_config *c;
    struct mu_buf warnings;
    struct mu_err err;
    int r;
};

static void load_with(struct loaded *l, const char *ini, const char *const *env,
                      const char *const *flags)
{
    struct mu_config_args args = {.ini_file = ini, .environ_ = env, .flags = flags};
    memset(l, 0, sizeof *l);
    mu_buf_init(&l->warnings, 65536);
    l->r = mu_config_load(&args, &l->c, &l->warnings, &l->err);
}
#define LOAD(l, ...) load_with(l, NULL, (const char *const[]){HOME, __VA_ARGS__, NULL}, NULL)

static void loaded_fini(struct loaded *l)
{
    mu_config_free(l->c);
    mu_buf_fini(&l->warnings);
}

static bool warned(struct loaded *l, const char *text)
{
    return mu_bytes_find(mu_buf_bytes(&l->warnings), mu_str(text)) >= 0;
}

static const struct mu_provider_conf *provider(struct loaded *l, const char *key)
{
    for (size_t i = 0; l->c && i < l->c->provider_list.n; i++) {
        if (!strcmp(l->c->provider_list.items[i].key, key)) {
            return &l->c->provider_list.items[i];
        }
    }
    return NULL;
}

/* A private folder, with its files removed at the end. */
struct folder {
    char path[64];
};
static void folder_init(struct folder *f)
{
    snprintf(f->path, sizeof f->path, "/tmp/mu_config_XXXXXX");
    assert_non_null(mkdtemp(f->path));
}
static void folder_fini(struct folder *f)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", f->path);
    assert_int_equal(system(cmd), 0);
}
static const char *file_in(struct folder *f, const char *name, const char *content, mode_t mode)
{
    static char path[4][160];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, 160, "%s/%s", f->path, name);
    int fd = open(p, O_WRONLY | O_CREAT | O_TRUNC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    close(fd);
    return p;
}

/* --- rows and sources --- */

static void nothing_set_gives_the_defaults(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "XDG_STATE_HOME=/state");
    assert_int_equal(l.r, 0);
    assert_int_equal(l.c->port, 8080);
    assert_string_equal(l.c->host, "127.0.0.1");
    assert_string_equal(l.c->sqlite_sync, "full");
    assert_string_equal(l.c->providers.default_provider, "custom");
    assert_true(l.c->list_legacy_items && l.c->providers.streaming && l.c->allow_raw_env_image);
    assert_true(l.c->retention_days > 29.9 && l.c->retention_days < 30.1);
    assert_null(l.c->admin_key);
    assert_false(l.c->providers_given);
    if (geteuid() == 0) {
        assert_string_equal(l.c->database_url, "file:/var/lib/muster/muster.db");
    } else {
        assert_string_equal(l.c->database_url, "file:/state/muster/muster.db");
    }
    loaded_fini(&l);
}

static void the_data_folder_is_below_the_users_state(void **state)
{
    (void)state;
    char dir[128];
    const char *both[] = {"HOME=/h", "XDG_STATE_HOME=/s", NULL};
    const char *relative[] = {"HOME=/h", "XDG_STATE_HOME=s", NULL};
    const char *none[] = {NULL};
    mu_config_default_data_dir(both, false, dir, sizeof dir);
    assert_string_equal(dir, "/s/muster");
    mu_config_default_data_dir(relative, false, dir, sizeof dir);
    assert_string_equal(dir, "/h/.local/state/muster");
    mu_config_default_data_dir(none, true, dir, sizeof dir);
    assert_string_equal(dir, "/var/lib/muster");
    mu_config_default_data_dir(none, false, dir, sizeof dir);
    assert_string_equal(dir, "");
}

static void later_sources_win_over_earlier_ones(void **state)
{
    (void)state;
    struct folder f;
    struct loaded l;
    char named[200];
    folder_init(&f);
    const char *ini = file_in(&f, "m.ini",
                              "[listening]\nOZ_CONTROL_PLANE_PORT = 1001\nOZ_THREADS=1\n"
                              "; note\nOZ_MAX_CONNECTIONS=7 # few\nOZ_LOG_LEVEL=warn\n",
                              0600);
    const char *env_file = file_in(
        &f, "env", "export OZ_THREADS='2'\nOZ_MAX_CONNECTIONS=\"8\"\r\nOZ_LOG_LEVEL=error\n", 0600);
    snprintf(named, sizeof named, "OZ_ENV_FILE=%s", env_file);
    const char *env[] = {HOME, named, "OZ_MAX_CONNECTIONS=9", "OZ_LOG_LEVEL=debug", NULL};
    const char *flags[] = {"OZ_LOG_LEVEL=info", NULL};
    load_with(&l, ini, env, flags);
    assert_string_equal(l.err.text, "");
    assert_int_equal(l.r, 0);
    assert_int_equal(l.c->port, 1001);
    assert_int_equal(l.c->threads, 2);
    assert_int_equal(l.c->max_connections, 9);
    assert_string_equal(l.c->log_level, "info");
    loaded_fini(&l);
    folder_fini(&f);
}

static void quoted_values_keep_what_is_inside(void **state)
{
    (void)state;
    struct folder f;
    struct loaded l;
    char named[200];
    folder_init(&f);
    const char *env_file =
        file_in(&f, "env",
                "OZ_ALLOWED_HOSTS=\"a # b\\n\\\"c\\\"\" # note\nPUBLIC_URL=http://x/#part\n"
                "OZ_CORS_ORIGIN='$raw\\n'\nOZ_IMAGE_ALLOWLIST=\n",
                0600);
    snprintf(named, sizeof named, "OZ_ENV_FILE=%s", env_file);
    LOAD(&l, named);
    assert_int_equal(l.r, 0);
    assert_string_equal(l.c->allowed_hosts, "a # b\n\"c\"");
    assert_string_equal(l.c->public_url, "http://x/#part");
    assert_string_equal(l.c->cors_origin, "$raw\\n");
    assert_null(l.c->image_allowlist);
    loaded_fini(&l);
    folder_fini(&f);
}

static void an_alias_is_read_when_the_name_is_not_given(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "LOG_LEVEL=warn", "TURSO_DATABASE_URL=file:/x/y.db");
    assert_int_equal(l.r, 0);
    assert_string_equal(l.c->log_level, "warn");
    assert_string_equal(l.c->database_url, "file:/x/y.db");
    loaded_fini(&l);
    LOAD(&l, "LOG_LEVEL=warn", "OZ_LOG_LEVEL=error");
    assert_string_equal(l.c->log_level, "error");
    loaded_fini(&l);
}

static void a_blank_value_means_unset(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_CONTROL_PLANE_PORT=  ", "OZ_ADMIN_API_KEY=");
    assert_int_equal(l.r, 0);
    assert_int_equal(l.c->port, 8080);
    assert_null(l.c->admin_key);
    loaded_fini(&l);
}

static void a_name_with_file_reads_the_value_from_it(void **state)
{
    (void)state;
    struct folder f;
    struct loaded l;
    char named[200];
    folder_init(&f);
    snprintf(named, sizeof named, "OZ_ADMIN_API_KEY_FILE=%s",
             file_in(&f, "key", "  the-key\n\n", 0600));
    LOAD(&l, named);
    assert_int_equal(l.r, 0);
    assert_string_equal(l.c->admin_key, "the-key");
    loaded_fini(&l);
    LOAD(&l, named, "OZ_ADMIN_API_KEY=other");
    assert_int_equal(l.r, MU_E_INVALID);
    assert_non_null(strstr(l.err.text, "OZ_ADMIN_API_KEY_FILE"));
    loaded_fini(&l);
    snprintf(named, sizeof named, "OZ_PROVIDER_GLM_API_KEY_FILE=%s/key", f.path);
    LOAD(&l, named, "OZ_PROVIDER_GLM_MODEL=m", "OZ_PROVIDER_GLM_BASE_URL=http://h/v1");
    assert_int_equal(l.r, 0);
    assert_string_equal(provider(&l, "glm")->api_key, "the-key");
    loaded_fini(&l);
    LOAD(&l, "OZ_ADMIN_API_KEY_FILE=/nonexistent/key");
    assert_int_equal(l.r, MU_E_INVALID);
    assert_non_null(strstr(l.err.text, "OZ_ADMIN_API_KEY_FILE"));
    loaded_fini(&l);
    folder_fini(&f);
}

static const struct {
    const char *setting, *named;
} fatal[] = {
    {"OZ_CONTROL_PLANE_PORT=eighty", "OZ_CONTROL_PLANE_PORT"},
    {"OZ_CONTROL_PLANE_PORT=-1", "OZ_CONTROL_PLANE_PORT"},
    {"OZ_CONTROL_PLANE_PORT=65536", "OZ_CONTROL_PLANE_PORT"},
    {"OZ_ALLOW_NO_ADMIN_KEY=perhaps", "OZ_ALLOW_NO_ADMIN_KEY"},
    {"OZ_LOG_LEVEL=loud", "OZ_LOG_LEVEL"},
    {"LOG_LEVEL=loud", "LOG_LEVEL"},
    {"OZ_SQLITE_SYNC=off", "OZ_SQLITE_SYNC"},
    {"ENVIRONMENT=prod", "ENVIRONMENT"},
    {"ENCRYPTION_KEY=short", "ENCRYPTION_KEY"},
    {"DATABASE_URL=mysql://u:p@h/db", "DATABASE_URL"},
    {"TURSO_DATABASE_URL=libsql://h", "DATABASE_URL"},
    {"OZ_METRICS_LISTEN=9090", "OZ_METRICS_LISTEN"},
    {"OZ_METRICS_LISTEN=h:0", "OZ_METRICS_LISTEN"},
    {"PUBLIC_URL=example.com", "PUBLIC_URL"},
    {"OZ_TLS_CERT_FILE=/x", "OZ_TLS_KEY_FILE"},
    {"OZ_TLS_KEY_FILE=/x", "OZ_TLS_CERT_FILE"},
    {"OZ_ENV_FILE=/nonexistent", "OZ_ENV_FILE"},
    {"OZ_CONTROL_PLAN_PORT=1", "did you mean OZ_CONTROL_PLANE_PORT"},
    {"OZ_ADMIN_KEY=1", "did you mean OZ_ADMIN_API_KEY"},
    {"OZ_ENTIRELY_UNHEARD_OF=1", "OZ_ENTIRELY_UNHEARD_OF"},
    {"OZ_PROVIDER_CLAUDE=1", "OZ_PROVIDER_CLAUDE"},
    {"OZ_PROVIDER_X_TYPE=gpt", "OZ_PROVIDER_X_TYPE"},
    {"OZ_PROVIDER_X_BASE_URL=ftp://h", "OZ_PROVIDER_X_BASE_URL"},
    {"OZ_PROVIDER_X_BASE_URL=http://u:p@h", "OZ_PROVIDER_X_BASE_URL"},
    {"OZ_PROVIDER_X_BASE_URL=http://h/?k=1", "OZ_PROVIDER_X_BASE_URL"},
    {"OZ_PROVIDER_X_API_KEY=a b", "OZ_PROVIDER_X_API_KEY"},
    {"OZ_PROVIDER_X_MSG_LIMIT=many", "OZ_PROVIDER_X_MSG_LIMIT"},
    {"OZ_PROVIDER_X_WINDOW_SECONDS=-1", "OZ_PROVIDER_X_WINDOW_SECONDS"},
    {"OZ_PROVIDER_X_QUOTA_SCOPE=all", "OZ_PROVIDER_X_QUOTA_SCOPE"},
    {"OZ_PROVIDER_X_TEMPERATURE=hot", "OZ_PROVIDER_X_TEMPERATURE"},
    {"OZ_PROVIDER_X_MAX_TOKENS=0", "OZ_PROVIDER_X_MAX_TOKENS"},
    {"OZ_PROVIDER_X_EXTRA_BODY=[1]", "OZ_PROVIDER_X_EXTRA_BODY"},
    {"OZ_PROVIDER_X_EXTRA_BODY={", "OZ_PROVIDER_X_EXTRA_BODY"},
    {"OZ_PROVIDER_X_TIMEOUT_MS=soon", "OZ_PROVIDER_X_TIMEOUT_MS"},
    {"OZ_PROVIDER_X_CLI_ARGS=[\"a\"", "OZ_PROVIDER_X_CLI_ARGS"},
    {"OZ_PROVIDER_X_CLI_PROMPT_MODE=file", "OZ_PROVIDER_X_CLI_PROMPT_MODE"},
    {"OZ_PROVIDER_X_CLI_FORMAT=xml", "OZ_PROVIDER_X_CLI_FORMAT"},
    {"OZ_PROVIDER_X_CLI_ENV=A,B-C", "OZ_PROVIDER_X_CLI_ENV"},
    {"OZ_PROVIDER_X_CLI_ENV=1A", "OZ_PROVIDER_X_CLI_ENV"},
    {"OZ_PROVIDER_X_CLI_CWD=work", "OZ_PROVIDER_X_CLI_CWD"},
    {"OZ_PROVIDER_X_CLI_RATE_LIMIT_EXIT=300", "OZ_PROVIDER_X_CLI_RATE_LIMIT_EXIT"},
    {"OZ_PROVIDER_SHELL_TYPE=cli", "OZ_PROVIDER_SHELL_TYPE"},
};

static void a_bad_setting_is_fatal_and_names_itself(void **state)
{
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(fatal); i++) {
        struct loaded l;
        LOAD(&l, fatal[i].setting);
        if (l.r != MU_E_INVALID || !strstr(l.err.text, fatal[i].named)) {
            fail_msg("%s: %d %s", fatal[i].setting, l.r, l.err.text);
        }
        loaded_fini(&l);
    }
}

static void a_complaint_never_repeats_a_password(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "DATABASE_URL=mysql://user:hunter2@host/db");
    assert_int_equal(l.r, MU_E_INVALID);
    assert_null(strstr(l.err.text, "hunter2"));
    loaded_fini(&l);
}

static void a_bad_file_names_file_and_line(void **state)
{
    (void)state;
    struct folder f;
    struct loaded l;
    const char *env[] = {HOME, NULL};
    const struct {
        const char *text, *said;
    } bad[] = {
        {"OZ_THREADS=1\nnonsense\n", "line 2"},
        {"\n\nOZ_TREADS=1\n", "line 3"},
        {"OZ_MODEL=\"open\n", "line 1"},
        {"=x\n", "line 1"},
        {"[section\n", "line 1"},
        {"OZ_MODEL=\xff\n", "line 1"},
        {"PATH=/bin\n", "PATH"},
    };
    folder_init(&f);
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        load_with(&l, file_in(&f, "m.ini", bad[i].text, 0600), env, NULL);
        if (l.r != MU_E_INVALID || !strstr(l.err.text, bad[i].said) ||
            !strstr(l.err.text, "m.ini")) {
            fail_msg("%s: %d %s", bad[i].text, l.r, l.err.text);
        }
        loaded_fini(&l);
    }
    load_with(&l, "/nonexistent.ini", env, NULL);
    assert_int_equal(l.r, MU_E_INVALID);
    loaded_fini(&l);
    folder_fini(&f);
}

static void settings_of_later_versions_are_warned_about(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_LOCAL_STREAMING=on", "SLACK_BOT_TOKEN=x", "OZ_WS_MAX_CONNECTIONS=1");
    assert_int_equal(l.r, 0);
    assert_true(warned(&l, "OZ_LOCAL_STREAMING is not used by this version"));
    assert_true(warned(&l, "SLACK_BOT_TOKEN is not used"));
    assert_true(warned(&l, "OZ_WS_MAX_CONNECTIONS is not used"));
    loaded_fini(&l);
}

static void variables_of_clients_and_sandboxes_are_ignored(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_API_KEY=x", "OZ_API_BASE_URL=y", "OZ_API_LOG=1", "OZ_RUN_ID=r",
         "OZ_SIDECAR_CLAUDE_CMD=c", "OTEL_SERVICE_NAME=n", "SOMETHING_ELSE=1", "NOT A PAIR");
    assert_int_equal(l.r, 0);
    assert_int_equal(l.warnings.len, 0);
    loaded_fini(&l);
}

/* --- providers --- */

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

/* --- printing --- */

static void secrets_are_masked_in_every_style(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_ADMIN_API_KEY=hunter2", "OZ_PROVIDER_X_API_KEY=hunter2",
         "DATABASE_URL=postgres://me:hunter2@h/db", "OZ_PROVIDER_X_MODEL=m\"x");
    assert_int_equal(l.r, 0);
    for (int style = MU_CONFIG_TEXT; style <= MU_CONFIG_MARKDOWN; style++) {
        struct mu_buf out;
        mu_buf_init(&out, 1 << 20);
        mu_config_print(l.c, (enum mu_config_style)style, &out);
        assert_int_equal(out.failed, 0);
        assert_true(mu_bytes_find(mu_buf_bytes(&out), MU_B("OZ_ADMIN_API_KEY")) >= 0);
        assert_true(mu_bytes_find(mu_buf_bytes(&out), MU_B("hunter2")) < 0);
        if (style == MU_CONFIG_JSON) {
            struct mu_arena a;
            yyjson_val *root;
            struct mu_json_limits limits = {1 << 20, 8};
            mu_arena_init(&a, 1 << 24);
            assert_int_equal(mu_json_read(&a, mu_buf_bytes(&out), &limits, &root, NULL), 0);
            assert_true(yyjson_arr_size(mu_json_get(root, "settings")) > mu_config_table_len);
            mu_arena_fini(&a);
        }
        mu_buf_fini(&out);
    }
    loaded_fini(&l);
}

static void every_row_has_words_and_a_unit(void **state)
{
    (void)state;
    for (size_t i = 0; i < mu_config_table_len; i++) {
        const struct mu_option *o = &mu_config_table[i];
        assert_non_null(o->unit);
        assert_true(o->help && strlen(o->help) > 10);
        assert_int_equal(mu_option_find(mu_config_table, mu_config_table_len, mu_str(o->name)) - o,
                         0);
        for (size_t j = 0; j < i; j++) {
            assert_true(mu_config_table[j].offset != o->offset);
        }
    }
}

/* --- the first start --- */

static void a_first_start_makes_folder_and_keys_once(void **state)
{
    (void)state;
    struct folder f;
    struct loaded l;
    struct mu_err err;
    struct stat st;
    char dir[200], key[300], first[128];
    bool made;
    folder_init(&f);
    snprintf(dir, sizeof dir, "OZ_DATA_DIR=%s/a/b", f.path);
    LOAD(&l, dir);
    assert_int_equal(mu_config_first_start(l.c, &mu_env_real, &made, &err), 0);
    assert_true(made);
    assert_int_equal(stat(l.c->data_dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    snprintf(key, sizeof key, "%s/admin.key", l.c->data_dir);
    assert_int_equal(stat(key, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(strlen(l.c->admin_key) >= 64);
    assert_true(strlen(l.c->encryption_key) >= 32);
    snprintf(first, sizeof first, "%s", l.c->admin_key);
    loaded_fini(&l);
    LOAD(&l, dir);
    assert_int_equal(mu_config_first_start(l.c, &mu_env_real, &made, &err), 0);
    assert_false(made);
    assert_string_equal(l.c->admin_key, first);
    loaded_fini(&l);
    assert_int_equal(chmod(key, 0644), 0);
    LOAD(&l, dir);
    assert_int_equal(mu_config_first_start(l.c, &mu_env_real, &made, &err), MU_E_INVALID);
    assert_non_null(strstr(err.text, "chmod 600"));
    loaded_fini(&l);
    folder_fini(&f);
}

static void production_makes_up_no_secrets(void **state)
{
    (void)state;
    struct folder f;
    struct loaded l;
    struct mu_err err;
    bool made;
    char dir[200];
    folder_init(&f);
    snprintf(dir, sizeof dir, "OZ_DATA_DIR=%s/d", f.path);
    LOAD(&l, dir, "ENVIRONMENT=production");
    assert_int_equal(mu_config_first_start(l.c, &mu_env_real, &made, &err), MU_E_INVALID);
    assert_non_null(strstr(err.text, "DATABASE_URL"));
    loaded_fini(&l);
    LOAD(&l, dir, "ENVIRONMENT=production", "DATABASE_URL=/tmp/x.db");
    assert_int_equal(mu_config_first_start(l.c, &mu_env_real, &made, &err), MU_E_INVALID);
    assert_non_null(strstr(err.text, "OZ_ADMIN_API_KEY"));
    loaded_fini(&l);
    LOAD(&l, dir, "ENVIRONMENT=production", "DATABASE_URL=/tmp/x.db", "OZ_ALLOW_NO_ADMIN_KEY=1");
    assert_int_equal(mu_config_first_start(l.c, &mu_env_real, &made, &err), MU_E_INVALID);
    assert_non_null(strstr(err.text, "ENCRYPTION_KEY"));
    loaded_fini(&l);
    LOAD(&l, dir, "ENVIRONMENT=production", "DATABASE_URL=/tmp/x.db", "OZ_ADMIN_API_KEY=k",
         "ENCRYPTION_KEY=0123456789012345678901234567890123456789");
    assert_int_equal(mu_config_first_start(l.c, &mu_env_real, &made, &err), 0);
    assert_false(made);
    loaded_fini(&l);
    folder_fini(&f);
}

/* --- discovery --- */

static const unsigned no_ports[] = {0};

static void keys_are_found_and_the_first_is_the_default(void **state)
{
    (void)state;
    struct loaded l;
    struct mu_err err;
    LOAD(&l, "OPENAI_API_KEY=o", "ANTHROPIC_API_KEY=a", "GEMINI_API_KEY=g");
    assert_int_equal(mu_discover(l.c, "", no_ports, &err), 0);
    assert_int_equal(l.c->provider_list.n, 5);
    for (size_t i = 1; i < 5; i++) {
        assert_true(l.c->provider_list.items[i].discovered);
        assert_true(mu_provider_complete(&l.c->provider_list.items[i]));
        assert_non_null(l.c->provider_list.items[i].found);
    }
    assert_string_equal(provider(&l, "claude")->api_key, "a");
    assert_string_equal(provider(&l, "gemini")->api_key, "g");
    assert_int_equal(provider(&l, "custom")->type, MU_PROVIDER_ANTHROPIC);
    assert_string_equal(provider(&l, "custom")->api_key, "a");
    loaded_fini(&l);
}

static void nothing_is_looked_for_when_a_provider_is_configured(void **state)
{
    (void)state;
    struct loaded l;
    struct mu_err err;
    LOAD(&l, "OPENAI_API_KEY=o", "OZ_PROVIDER_GLM_MODEL=m");
    assert_int_equal(mu_discover(l.c, "/usr/bin:/bin", no_ports, &err), 0);
    assert_int_equal(l.c->provider_list.n, 2);
    assert_false(provider(&l, "glm")->discovered);
    loaded_fini(&l);
}

static void agents_on_the_path_become_cli_providers(void **state)
{
    (void)state;
    struct folder f;
    struct loaded l;
    struct mu_err err;
    folder_init(&f);
    file_in(&f, "claude", "#!/bin/sh\n", 0700);
    file_in(&f, "codex", "not executable", 0600);
    LOAD(&l, "ANTHROPIC_API_KEY=a");
    assert_int_equal(mu_discover(l.c, f.path, no_ports, &err), 0);
    const struct mu_provider_conf *p = provider(&l, "claude_cli");
    assert_non_null(p);
    assert_int_equal(p->type, MU_PROVIDER_CLI);
    assert_int_equal(p->cli_format, MU_CLI_CLAUDE_STREAM_JSON);
    assert_true(p->discovered);
    assert_non_null(strstr(p->found, f.path));
    assert_null(provider(&l, "codex"));
    loaded_fini(&l);
    LOAD(&l, "OZ_MODEL=general");
    assert_int_equal(mu_discover(l.c, f.path, no_ports, &err), 0);
    assert_int_equal(provider(&l, "claude")->type, MU_PROVIDER_CLI);
    assert_int_equal(provider(&l, "custom")->type, MU_PROVIDER_CLI);
    assert_false(provider(&l, "custom")->model_given);
    loaded_fini(&l);
    folder_fini(&f);
}

/* A server that gives one connection one answer. */
struct small_server {
    int fd;
    unsigned port;
    const char *answer;
    pthread_t thread;
};
static void *serve_one(void *arg)
{
    struct small_server *s = arg;
    char request[1024];
    int c = accept(s->fd, NULL, NULL);
    if (c >= 0 && s->answer && recv(c, request, sizeof request, 0) > 0) {
        send(c, s->answer, strlen(s->answer), MSG_NOSIGNAL);
    }
    close(c);
    return NULL;
}
static void server_init(struct small_server *s, const char *answer)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    s->answer = answer;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->fd, 4), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, serve_one, s), 0);
}
static void server_fini(struct small_server *s)
{
    pthread_join(s->thread, NULL);
    close(s->fd);
}

static void a_local_server_gives_its_first_model(void **state)
{
    (void)state;
    struct small_server s;
    struct loaded l;
    struct mu_err err;
    server_init(&s, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
                    "{\"object\":\"list\",\"data\":[{\"id\":\"tiny:1b\"},{\"id\":\"other\"}]}");
    const unsigned ports[] = {1, s.port, 0};
    LOAD(&l, "LANG=C");
    assert_int_equal(mu_discover(l.c, "", ports, &err), 0);
    server_fini(&s);
    assert_non_null(provider(&l, "local"));
    assert_string_equal(provider(&l, "local")->model, "tiny:1b");
    assert_non_null(strstr(provider(&l, "local")->base_url, "/v1"));
    assert_string_equal(provider(&l, "custom")->model, "tiny:1b");
    loaded_fini(&l);
}

static void a_local_server_of_another_kind_is_passed_over(void **state)
{
    (void)state;
    const char *answers[] = {
        NULL,
        "",
        "HTTP/1.1 404 Not Found\r\n\r\n{\"data\":[{\"id\":\"m\"}]}",
        "HTTP/1.1 200 OK\r\n\r\n<html>",
        "HTTP/1.1 200 OK\r\n\r\n{\"data\":[]}",
        "HTTP/1.1 200 OK\r\n\r\n{\"data\":[{\"id\":7}]}",
        "HTTP/1.1 200 OK\r\n\r\n{\"data\":[{\"id\":\"a b\"}]}",
        "SSH-2.0-OpenSSH\r\n\r\n",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(answers); i++) {
        struct small_server s;
        struct mu_arena a;
        const char *model;
        mu_arena_init(&a, 1 << 20);
        server_init(&s, answers[i]);
        assert_false(mu_discover_local(&a, s.port, &model));
        server_fini(&s);
        mu_arena_fini(&a);
    }
}

/* --- words --- */

static void near_words_are_suggested_and_far_ones_not(void **state)
{
    (void)state;
    assert_int_equal(mu_edit_distance(MU_B("kitten"), MU_B("sitting")), 3);
    assert_int_equal(mu_edit_distance(MU_B("ab"), MU_B("ba")), 1);
    assert_int_equal(mu_edit_distance(MU_B(""), MU_B("abc")), 3);
    assert_int_equal(mu_edit_distance(MU_B("RUN"), MU_B("run")), 0);
    assert_true(mu_edit_near(MU_B("porvider"), 1));
    assert_false(mu_edit_near(MU_B("ps"), 2));
    assert_null(mu_config_nearest(MU_B("OZ_QQQQQQQQQQ")));
}

/* --- memory --- */

static int load_once(void *arg)
{
    (void)arg;
    struct loaded l;
    struct mu_err err;
    LOAD(&l, "OZ_PROVIDER_X_TYPE=cli", "OZ_PROVIDER_X_CLI_ARGS=[\"a\"]", "OZ_PROVIDER_X_MODELS=a,b",
         "OZ_PROVIDER_BASE_URL=http://h", "OZ_PROVIDER_MODEL=m", "OZ_PROVIDER_FALLBACK_ORDER=x,y",
         "OZ_PROVIDER_FALLBACK_ORDER_KIMI=x");
    if (l.r == 0) {
        int ignored_ = mu_discover(l.c, "", no_ports, &err);
        (void)ignored_;
    }
    assert_true(l.r == 0 || l.r == -ENOMEM);
    loaded_fini(&l);
    return 0;
}

static void loading_survives_any_failing_allocation(void **state)
{
    (void)state;
    each_allocation_fails(load_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_set_gives_the_defaults),
        cmocka_unit_test(the_data_folder_is_below_the_users_state),
        cmocka_unit_test(later_sources_win_over_earlier_ones),
        cmocka_unit_test(quoted_values_keep_what_is_inside),
        cmocka_unit_test(an_alias_is_read_when_the_name_is_not_given),
        cmocka_unit_test(a_blank_value_means_unset),
        cmocka_unit_test(a_name_with_file_reads_the_value_from_it),
        cmocka_unit_test(a_bad_setting_is_fatal_and_names_itself),
        cmocka_unit_test(a_complaint_never_repeats_a_password),
        cmocka_unit_test(a_bad_file_names_file_and_line),
        cmocka_unit_test(settings_of_later_versions_are_warned_about),
        cmocka_unit_test(variables_of_clients_and_sandboxes_are_ignored),
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
        cmocka_unit_test(secrets_are_masked_in_every_style),
        cmocka_unit_test(every_row_has_words_and_a_unit),
        cmocka_unit_test(a_first_start_makes_folder_and_keys_once),
        cmocka_unit_test(production_makes_up_no_secrets),
        cmocka_unit_test(keys_are_found_and_the_first_is_the_default),
        cmocka_unit_test(nothing_is_looked_for_when_a_provider_is_configured),
        cmocka_unit_test(agents_on_the_path_become_cli_providers),
        cmocka_unit_test(a_local_server_gives_its_first_model),
        cmocka_unit_test(a_local_server_of_another_kind_is_passed_over),
        cmocka_unit_test(near_words_are_suggested_and_far_ones_not),
        cmocka_unit_test(loading_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
