/* Rows, sources, printing and the first start. */
#include "config_world.h"
#include "main/suggest.h"
#include "proto/json.h"

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
                "OZ_ALLOWED_HOSTS=\"a # b\\n\\\"c\\\"\" # note\nOZ_PROVIDER_MODEL=m/#part\n"
                "OZ_CORS_ORIGIN='$raw\\n'\nOZ_IMAGE_ALLOWLIST=\n",
                0600);
    snprintf(named, sizeof named, "OZ_ENV_FILE=%s", env_file);
    LOAD(&l, named);
    assert_int_equal(l.r, 0);
    assert_string_equal(l.c->allowed_hosts, "a # b\n\"c\"");
    assert_string_equal(l.c->provider_model, "m/#part");
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
    {"PUBLIC_URL=https://u:p@h", "PUBLIC_URL"},
    {"PUBLIC_URL=https://h/?a=1", "PUBLIC_URL"},
    {"PUBLIC_URL=https://h/#a", "PUBLIC_URL"},
    {"OZ_METRICS_LISTEN=:9090", "OZ_METRICS_LISTEN"},
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

static void paths_and_links_fit_where_they_are_used(void **state)
{
    (void)state;
    struct loaded l;
    char dir[1200] = "OZ_DATA_DIR=/", url[500] = "PUBLIC_URL=http://h/";
    memset(dir + 13, 'd', 1001);
    LOAD(&l, dir);
    assert_int_equal(l.r, MU_E_INVALID);
    assert_non_null(strstr(l.err.text, "OZ_DATA_DIR"));
    loaded_fini(&l);
    memset(url + 20, 'u', 400);
    LOAD(&l, url);
    assert_int_equal(l.r, MU_E_INVALID);
    assert_non_null(strstr(l.err.text, "PUBLIC_URL"));
    loaded_fini(&l);
    LOAD(&l, "PUBLIC_URL=https://example.com/base//");
    assert_int_equal(l.r, 0);
    assert_string_equal(l.c->public_url, "https://example.com/base");
    loaded_fini(&l);
}

static void a_listener_is_host_and_port(void **state)
{
    (void)state;
    char host[16];
    unsigned port;
    assert_int_equal(mu_config_listen("127.0.0.1:9100", host, sizeof host, &port), 0);
    assert_string_equal(host, "127.0.0.1");
    assert_int_equal(port, 9100);
    assert_int_equal(mu_config_listen("[::1]:9100", host, sizeof host, &port), 0);
    assert_string_equal(host, "::1");
    assert_int_equal(mu_config_listen("fd00:1:2:3:4:5:6:7:1", host, sizeof host, &port),
                     MU_E_INVALID);
    assert_int_equal(mu_config_listen("h:65536", host, sizeof host, &port), MU_E_INVALID);
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
    LOAD(&l, "OZ_LOCAL_STREAMING=on", "SLACK_BOT_TOKEN=x", "OZ_MAX_BUILDS=1");
    assert_int_equal(l.r, 0);
    assert_true(warned(&l, "OZ_LOCAL_STREAMING is not used by this version"));
    assert_true(warned(&l, "SLACK_BOT_TOKEN is not used"));
    assert_true(warned(&l, "OZ_MAX_BUILDS is not used"));
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

/* --- printing --- */

static void secrets_are_masked_in_every_style(void **state)
{
    (void)state;
    struct loaded l;
    LOAD(&l, "OZ_ADMIN_API_KEY=hunter2", "OZ_PROVIDER_X_API_KEY=hunter2",
         "DATABASE_URL=postgres://me:hunter2@h/db?sslpassword=hunter2&password=hunter2&x=1",
         "OZ_PROVIDER_X_MODEL=m\"x");
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

static void a_key_file_is_replaced_only_when_that_is_meant(void **state)
{
    (void)state;
    struct folder f;
    struct mu_arena a;
    struct mu_err err;
    struct stat st;
    mu_bytes got;
    char path[160];
    folder_init(&f);
    mu_arena_init(&a, 1 << 20);
    snprintf(path, sizeof path, "%s/k", f.path);
    assert_int_equal(mu_config_write_key(f.path, "k", MU_B("one\n"), true), 0);
    assert_int_equal(mu_config_write_key(f.path, "k", MU_B("two\n"), false), -EEXIST);
    assert_int_equal(mu_config_read_value(&a, path, &got, &err), 0);
    assert_true(mu_bytes_is(got, "one"));
    assert_int_equal(mu_config_write_key(f.path, "k", MU_B("three\n"), true), 0);
    assert_int_equal(mu_config_read_value(&a, path, &got, &err), 0);
    assert_true(mu_bytes_is(got, "three"));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(mu_config_write_key("/nonexistent", "k", MU_B("x"), true), -ENOENT);
    mu_arena_fini(&a);
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
        int ignored_ = mu_discover(l.c, "", (const unsigned[]){0}, &err);
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
        cmocka_unit_test(paths_and_links_fit_where_they_are_used),
        cmocka_unit_test(a_listener_is_host_and_port),
        cmocka_unit_test(a_complaint_never_repeats_a_password),
        cmocka_unit_test(a_bad_file_names_file_and_line),
        cmocka_unit_test(settings_of_later_versions_are_warned_about),
        cmocka_unit_test(variables_of_clients_and_sandboxes_are_ignored),
        cmocka_unit_test(secrets_are_masked_in_every_style),
        cmocka_unit_test(every_row_has_words_and_a_unit),
        cmocka_unit_test(a_first_start_makes_folder_and_keys_once),
        cmocka_unit_test(a_key_file_is_replaced_only_when_that_is_meant),
        cmocka_unit_test(production_makes_up_no_secrets),
        cmocka_unit_test(near_words_are_suggested_and_far_ones_not),
        cmocka_unit_test(loading_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
