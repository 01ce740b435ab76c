#include <stdio.h>

#include "main/client.h"
#include "main/ui.h"

enum { MAX_BODY = 4 * 1000000 };

static void print_schedule(yyjson_val *s)
{
    yyjson_val *config = mu_json_get(s, "agent_config"), *history = mu_json_get(s, "history");
    char next[32], last[32];
    mu_ui_ago(mu_json_get_bytes(history, "next_run"), next, sizeof next);
    mu_ui_ago(mu_json_get_bytes(history, "last_ran"), last, sizeof last);
    const struct {
        const char *name;
        mu_bytes value;
    } rows[] = {
        {"schedule", mu_json_get_bytes(s, "id")},
        {"name", mu_json_get_bytes(s, "name")},
        {"cron (UTC)", mu_json_get_bytes(s, "cron_schedule")},
        {"state", mu_json_get_bool(s, "enabled", true) ? MU_B("enabled") : MU_B("paused")},
        {"next", mu_str(next)},
        {"last", mu_str(last)},
        {"model", mu_json_get_bytes(config, "model_id")},
        {"environment", mu_json_get_bytes(config, "environment_id")},
        {"error", mu_json_get_bytes(s, "last_spawn_error")},
        {"prompt", mu_json_get_bytes(s, "prompt")},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        if (rows[i].value.len) {
            printf("%-12s ", rows[i].name);
            mu_ui_text(rows[i].value);
            putchar('\n');
        }
    }
}

static void print_schedules(yyjson_val *root)
{
    static const char *const headings[] = {"SCHEDULE", "STATE", "CRON", "NEXT", "LAST", "NAME"};
    struct mu_table t;
    yyjson_val *s;
    size_t i, max;
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    yyjson_arr_foreach(mu_json_get(root, "schedules"), i, max, s)
    {
        char next[32], last[32];
        yyjson_val *history = mu_json_get(s, "history");
        mu_ui_ago(mu_json_get_bytes(history, "next_run"), next, sizeof next);
        mu_ui_ago(mu_json_get_bytes(history, "last_ran"), last, sizeof last);
        mu_table_cell(&t, mu_json_get_bytes(s, "id"));
        mu_table_cell(&t, mu_json_get_bool(s, "enabled", true) ? MU_B("enabled") : MU_B("paused"));
        mu_table_cell(&t, mu_json_get_bytes(s, "cron_schedule"));
        mu_table_cell(&t, mu_str(next));
        mu_table_cell(&t, mu_str(last));
        mu_table_cell(&t, mu_json_get_bytes(s, "name"));
    }
    mu_table_end(&t);
}

/* What was given, over what is stored (`old`; NULL for a new one). */
static void field(struct mu_json_w *w, const struct mu_cli *cli, const char *flag, const char *key,
                  yyjson_val *old)
{
    const char *v = mu_cli_value(cli, flag);
    mu_jw_kstr(w, key, v ? mu_str(v) : mu_json_get_bytes(old, key));
}

static void make_config(struct mu_json_w *w, const struct mu_cli *cli, yyjson_val *old)
{
    yyjson_val *config = mu_json_get(old, "agent_config"), *key, *val;
    const char *model = mu_cli_value(cli, "model"), *env = mu_cli_value(cli, "environment");
    size_t i, max;
    mu_jw_key(w, "agent_config");
    mu_jw_obj(w);
    yyjson_obj_foreach(config, i, max, key, val)
    {
        mu_bytes name = mu_json_bytes(key);
        if ((model && mu_bytes_is(name, "model_id")) ||
            (env && mu_bytes_is(name, "environment_id"))) {
            continue;
        }
        mu_jw_str(w, name); /* whatever it is: members that nobody knows are kept */
        mu_buf_add_char(w->buf, ':');
        mu_json_add(w->buf, val);
        w->comma = true;
    }
    if (model) {
        mu_jw_kcstr(w, "model_id", model);
    }
    if (env) {
        mu_jw_kcstr(w, "environment_id", env);
    }
    mu_jw_obj_end(w);
}

static void make_body(struct mu_json_w *w, const struct mu_cli *cli, yyjson_val *old)
{
    mu_jw_obj(w);
    field(w, cli, "cron", "cron_schedule", old);
    field(w, cli, "name", "name", old);
    field(w, cli, "prompt", "prompt", old);
    mu_jw_kbool(w, "enabled",
                !mu_cli_has(cli, "disabled") && mu_json_get_bool(old, "enabled", true));
    make_config(w, cli, old);
    mu_jw_obj_end(w);
}

static int send_schedule(struct mu_client *c, const char *method, mu_bytes path, mu_bytes body)
{
    struct mu_reply reply;
    const struct mu_request req = {.method = method, .path = path, .body = body};
    int r = mu_client_call(c, &req, &reply);
    if (r == 0 && c->json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        print_schedule(reply.root);
    }
    return r;
}

int mu_cmd_schedule_create(struct mu_cli *cli)
{
    static const char *const needed[] = {"cron", "name", "prompt"};
    struct mu_client c;
    struct mu_buf body;
    for (size_t i = 0; i < MU_ARRAY_LEN(needed); i++) {
        if (!mu_cli_has(cli, needed[i])) {
            return mu_usage(cli->cmd, "--%s is missing", needed[i]);
        }
    }
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    mu_buf_init(&body, MAX_BODY);
    struct mu_json_w w = mu_json_w(&body);
    make_body(&w, cli, NULL);
    r = body.failed ? mu_client_no_memory()
                    : send_schedule(&c, "POST", MU_B("/agent/schedules"), mu_buf_bytes(&body));
    mu_buf_fini(&body);
    mu_client_close(&c);
    return r;
}

int mu_cmd_schedule_update(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply old;
    struct mu_buf body;
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    const struct mu_request get = {
        .method = "GET", .path = mu_client_path(&c, "/agent/schedules", cli->args[0], "")};
    mu_buf_init(&body, MAX_BODY);
    r = mu_client_call(&c, &get, &old);
    if (r == 0) {
        struct mu_json_w w = mu_json_w(&body);
        make_body(&w, cli, old.root);
        r = body.failed ? mu_client_no_memory()
                        : send_schedule(&c, "PUT", get.path, mu_buf_bytes(&body));
    }
    mu_buf_fini(&body);
    mu_client_close(&c);
    return r;
}

int mu_cmd_schedule_list(struct mu_cli *cli)
{
    return mu_client_show(cli, "/agent/schedules", NULL, print_schedules);
}

int mu_cmd_schedule_get(struct mu_cli *cli)
{
    return mu_client_show(cli, "/agent/schedules", cli->args[0], print_schedule);
}

static int toggle(struct mu_cli *cli, const char *suffix)
{
    struct mu_client c;
    int r = mu_client_open(cli, &c);
    if (r == 0) {
        r = send_schedule(&c, "POST", mu_client_path(&c, "/agent/schedules", cli->args[0], suffix),
                          MU_B_NONE);
        mu_client_close(&c);
    }
    return r;
}

int mu_cmd_schedule_pause(struct mu_cli *cli)
{
    return toggle(cli, "/pause");
}

int mu_cmd_schedule_resume(struct mu_cli *cli)
{
    return toggle(cli, "/resume");
}

int mu_cmd_schedule_delete(struct mu_cli *cli)
{
    return mu_client_each(cli, "DELETE", "/agent/schedules", "", "deleted");
}
