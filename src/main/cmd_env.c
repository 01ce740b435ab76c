#include <stdio.h>

#include "main/client.h"
#include "main/cmd_env.h"
#include "main/ui.h"

enum { MAX_BODY = 1000000 };

static void list_of(struct mu_json_w *w, const struct mu_cli *cli, const char *flag,
                    const char *key)
{
    size_t at = 0;
    const char *v;
    mu_jw_key(w, key);
    mu_jw_arr(w);
    while ((v = mu_cli_next(cli, flag, &at))) {
        mu_jw_str(w, mu_str(v));
    }
    mu_jw_arr_end(w);
}

/* --var NAME=value, or NAME with the value of our own environment: then it is on no command line.
 */
static int one_var(const struct mu_cli *cli, const char *given, mu_bytes *name, mu_bytes *value)
{
    mu_bytes rest = mu_str(given);
    *name = mu_bytes_split(&rest, '=');
    *value = rest;
    if (!rest.ptr) {
        const char *own = getenv(given);
        if (!own) {
            return mu_usage(cli->cmd, "--var %s: it is not in this environment", given);
        }
        *value = mu_str(own);
    }
    return name->len ? 0 : mu_usage(cli->cmd, "--var %s: expected NAME=value", given);
}

static bool is_given(const struct mu_cli *cli, const char *flag, mu_bytes name)
{
    size_t at = 0;
    const char *v;
    while ((v = mu_cli_next(cli, flag, &at))) {
        mu_bytes rest = mu_str(v);
        if (mu_bytes_eq(mu_bytes_split(&rest, '='), name)) {
            return true;
        }
    }
    return false;
}

/* The stored variables that stay (their values as "<redacted>" mean "as stored"), then the given.
 */
static int vars_of(struct mu_json_w *w, const struct mu_cli *cli, yyjson_val *old)
{
    size_t at = 0, i, max;
    const char *v;
    yyjson_val *key, *val;
    struct mu_buf name_text;
    mu_buf_init(&name_text, 4096);
    mu_jw_key(w, "env_vars");
    mu_jw_obj(w);
    yyjson_obj_foreach(old, i, max, key, val)
    {
        mu_bytes name = mu_json_bytes(key);
        if (!is_given(cli, "var", name) && !is_given(cli, "unset", name)) {
            mu_buf_clear(&name_text);
            mu_buf_add(&name_text, name);
            mu_buf_add_char(&name_text, 0);
            if (name_text.failed) {
                continue; /* longer than any name that the server accepts */
            }
            mu_jw_kcstr(w, name_text.ptr, "<redacted>");
        }
    }
    int r = 0;
    while (r == 0 && (v = mu_cli_next(cli, "var", &at))) {
        mu_bytes name, value;
        r = one_var(cli, v, &name, &value);
        for (size_t j = 0; r == 0 && j < name.len; j++) {
            char ch = name.ptr[j];
            if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' ||
                  (j && ch >= '0' && ch <= '9'))) {
                r = mu_usage(cli->cmd, "--var %.*s: not the name of a variable", MU_ARGS(name));
            }
        }
        mu_buf_clear(&name_text);
        mu_buf_add(&name_text, name);
        mu_buf_add_char(&name_text, 0);
        if (r == 0 && name_text.failed) {
            r = mu_usage(cli->cmd, "--var: the name is too long");
        }
        if (r == 0) {
            mu_jw_key(w, name_text.ptr);
            mu_jw_str(w, value);
        }
    }
    mu_jw_obj_end(w);
    mu_buf_fini(&name_text);
    return r;
}

static void print_list(const char *name, yyjson_val *list)
{
    yyjson_val *v;
    size_t i, max;
    yyjson_arr_foreach(list, i, max, v)
    {
        printf("%-12s ", i ? "" : name);
        mu_ui_text(mu_json_bytes(v));
        putchar('\n');
    }
}

static void print_text_row(const char *name, mu_bytes v)
{
    if (v.len) {
        printf("%-12s ", name);
        mu_ui_text(v);
        putchar('\n');
    }
}

static void print_env(yyjson_val *e)
{
    yyjson_val *key, *val;
    size_t i, max;
    print_text_row("environment", mu_json_get_bytes(e, "environment_id"));
    print_text_row("name", mu_json_get_bytes(e, "name"));
    print_text_row("image", mu_json_get_bytes(e, "docker_image"));
    print_text_row("scope", mu_json_get_bytes(e, "scope"));
    print_list("repos", mu_json_get(e, "repos"));
    print_list("setup", mu_json_get(e, "setup_commands"));
    char *sandbox = mu_env_sandbox_line(mu_json_get(e, "sandbox"));
    print_text_row("sandbox", mu_str(sandbox));
    mu_free(sandbox);
    /* Names only: values belong on no screen by accident; --json shows what the API tells. */
    yyjson_obj_foreach(mu_json_get(e, "env_vars"), i, max, key, val)
    {
        print_text_row(i ? "" : "variables", mu_json_bytes(key));
    }
    print_text_row("updated", mu_json_get_bytes(e, "updated_at"));
}

static int send_env(struct mu_cli *cli, struct mu_client *c, const char *method, mu_bytes path,
                    const struct mu_buf *body)
{
    struct mu_reply reply;
    if (body->failed || !path.ptr) {
        return body->failed == MU_E_TOO_LARGE ? mu_usage(cli->cmd, "the arguments are too long")
                                              : mu_client_no_memory();
    }
    const struct mu_request req = {.method = method, .path = path, .body = mu_buf_bytes(body)};
    int r = mu_client_call(c, &req, &reply);
    if (r == 0 && c->json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        mu_ui_text(mu_json_get_bytes(reply.root, "environment_id"));
        putchar('\n');
    }
    return r;
}

int mu_cmd_env_create(struct mu_cli *cli)
{
    const char *name = mu_cli_value(cli, "name"), *image = mu_cli_value(cli, "docker-image");
    struct mu_client c;
    struct mu_buf body;
    name = name ? name : cli->n_args ? cli->args[0] : NULL;
    if (!name || !image) {
        return mu_usage(cli->cmd, "%s is missing", name ? "--docker-image" : "--name");
    }
    mu_buf_init(&body, MAX_BODY);
    struct mu_json_w w = mu_json_w(&body);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "name", name);
    mu_jw_kcstr(&w, "docker_image", image);
    list_of(&w, cli, "repo", "repos");
    list_of(&w, cli, "setup-command", "setup_commands");
    if (mu_cli_has(cli, "global")) {
        mu_jw_kbool(&w, "global", true);
    }
    int r = mu_env_sandbox_flags(&w, cli, NULL);
    r = r ? r : vars_of(&w, cli, NULL);
    mu_jw_obj_end(&w);
    if (r == 0) {
        r = mu_client_open(cli, &c);
    }
    if (r == 0) {
        r = send_env(cli, &c, "POST", MU_B("/environments"), &body);
        mu_client_close(&c);
    }
    mu_buf_wipe(&body);
    mu_buf_fini(&body);
    return r;
}

static void kept(struct mu_json_w *w, const struct mu_cli *cli, const char *flag, const char *key,
                 yyjson_val *old)
{
    const char *v = mu_cli_value(cli, flag);
    mu_jw_kstr(w, key, v ? mu_str(v) : mu_json_get_bytes(old, key));
}

static void kept_list(struct mu_json_w *w, const struct mu_cli *cli, const char *flag,
                      const char *key, yyjson_val *old)
{
    yyjson_val *list = mu_json_get(old, key);
    if (mu_cli_has(cli, flag) || !list) {
        list_of(w, cli, flag, key);
        return;
    }
    mu_jw_key(w, key);
    mu_json_add(w->buf, list);
    w->comma = true;
}

static int update_env(struct mu_cli *cli, struct mu_client *c)
{
    struct mu_reply old;
    struct mu_buf body;
    const struct mu_request get = {.method = "GET",
                                   .path = mu_client_path(c, "/environments", cli->args[0], "")};
    int r = mu_client_call(c, &get, &old);
    if (r) {
        return r;
    }
    mu_buf_init(&body, MAX_BODY);
    struct mu_json_w w = mu_json_w(&body);
    mu_jw_obj(&w);
    kept(&w, cli, "name", "name", old.root);
    kept(&w, cli, "docker-image", "docker_image", old.root);
    kept_list(&w, cli, "repo", "repos", old.root);
    kept_list(&w, cli, "setup-command", "setup_commands", old.root);
    yyjson_val *secrets = mu_json_get(old.root, "secrets");
    if (secrets) {
        mu_jw_key(&w, "secrets");
        mu_json_add(&body, secrets);
        w.comma = true;
    }
    r = mu_env_sandbox_flags(&w, cli, mu_json_get(old.root, "sandbox"));
    r = r ? r : vars_of(&w, cli, mu_json_get(old.root, "env_vars"));
    mu_jw_obj_end(&w);
    if (r == 0) {
        r = send_env(cli, c, "PUT", get.path, &body);
    }
    mu_buf_wipe(&body);
    mu_buf_fini(&body);
    return r;
}

int mu_cmd_env_update(struct mu_cli *cli)
{
    struct mu_client c;
    int r = mu_client_open(cli, &c);
    if (r == 0) {
        r = update_env(cli, &c);
        mu_client_close(&c);
    }
    return r;
}

static void print_envs(yyjson_val *root)
{
    static const char *const headings[] = {"ENVIRONMENT", "SCOPE", "UPDATED", "IMAGE", "NAME"};
    struct mu_table t;
    yyjson_val *e;
    size_t i, max;
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    yyjson_arr_foreach(mu_json_get(root, "items"), i, max, e)
    {
        char ago[32];
        mu_ui_ago(mu_json_get_bytes(e, "updated_at"), ago, sizeof ago);
        mu_table_cell(&t, mu_json_get_bytes(e, "environment_id"));
        mu_table_cell(&t, mu_json_get_bytes(e, "scope"));
        mu_table_cell(&t, mu_str(ago));
        mu_table_cell(&t, mu_json_get_bytes(e, "docker_image"));
        mu_table_cell(&t, mu_json_get_bytes(e, "name"));
    }
    mu_table_end(&t);
}

int mu_cmd_env_list(struct mu_cli *cli)
{
    return mu_client_show(cli, "/environments?limit=200", NULL, print_envs);
}

int mu_cmd_env_get(struct mu_cli *cli)
{
    return mu_client_show(cli, "/environments", cli->args[0], print_env);
}

int mu_cmd_env_delete(struct mu_cli *cli)
{
    return mu_client_each(cli, "DELETE", "/environments", "", "deleted");
}
