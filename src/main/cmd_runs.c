#include <stdio.h>

#include "base/env.h"
#include "main/client.h"
#include "main/ui.h"
#include "proto/url.h"

static const char *const states[] = {"QUEUED",    "PENDING", "CLAIMED",  "INPROGRESS",
                                     "SUCCEEDED", "FAILED",  "CANCELLED"};
enum { LIVE_STATES = 4 };

static int list_path(const struct mu_cli *cli, struct mu_buf *path)
{
    int64_t limit;
    size_t at = 0;
    const char *state;
    bool any = false;
    int r = mu_cli_number(cli, "limit", 1, 200, 50, &limit);
    if (r) {
        return r;
    }
    mu_buf_printf(path, "/agent/runs?limit=%lld", (long long)limit);
    while ((state = mu_cli_next(cli, "state", &at))) {
        size_t i = 0;
        while (i < MU_ARRAY_LEN(states) && !mu_bytes_eq_nocase(mu_str(state), mu_str(states[i]))) {
            i++;
        }
        if (i == MU_ARRAY_LEN(states)) {
            return mu_usage(cli->cmd,
                            "--state %s: expected one of QUEUED PENDING CLAIMED INPROGRESS "
                            "SUCCEEDED FAILED CANCELLED",
                            state);
        }
        mu_buf_printf(path, "&state=%s", states[i]);
        any = true;
    }
    for (size_t i = 0; !any && !mu_cli_has(cli, "all") && i < LIVE_STATES; i++) {
        mu_buf_printf(path, "&state=%s", states[i]);
    }
    return 0;
}

static void print_runs(yyjson_val *runs)
{
    static const char *const headings[] = {"RUN", "STATE", "CREATED", "TIME", "MODEL", "TITLE"};
    struct mu_table t;
    yyjson_val *run;
    size_t i, max;
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    t.state_column = 1;
    yyjson_arr_foreach(runs, i, max, run)
    {
        char ago[32], span[32];
        mu_bytes end = mu_json_get_bytes(run, "completed_at");
        mu_bytes state = mu_json_get_bytes(run, "state");
        mu_bytes title = mu_json_get_bytes(run, "title");
        mu_bytes model = mu_json_get_bytes(mu_json_get(run, "provider"), "model");
        if (model.len == 0) {
            model = mu_json_get_bytes(mu_json_get(run, "agent_config"), "model_id");
        }
        if (title.len == 0 || mu_bytes_is(title, "API run")) {
            title = mu_json_get_bytes(run, "prompt");
        }
        mu_ui_ago(mu_json_get_bytes(run, "created_at"), ago, sizeof ago);
        mu_ui_span(mu_json_get_bytes(run, "started_at"), end, span, sizeof span);
        mu_table_cell(&t, mu_json_get_bytes(run, "run_id"));
        mu_table_cell(&t, state);
        mu_table_cell(&t, mu_str(ago));
        mu_table_cell(&t, mu_str(span));
        mu_table_cell(&t, model);
        mu_table_cell(&t, title);
    }
    mu_table_end(&t);
}

int mu_cmd_ps(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    struct mu_buf path;
    mu_buf_init(&path, 4096);
    int r = list_path(cli, &path);
    if (r == 0) {
        r = mu_client_open(cli, &c);
    }
    if (r) {
        mu_buf_fini(&path);
        return r;
    }
    const struct mu_request req = {.method = "GET", .path = mu_buf_bytes(&path)};
    r = mu_client_call(&c, &req, &reply);
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        print_runs(mu_json_get(reply.root, "runs"));
        if (mu_json_get_bool(mu_json_get(reply.root, "page_info"), "has_next_page", false)) {
            fputs("muster: there are more; see --limit\n", stderr);
        }
    }
    mu_client_close(&c);
    mu_buf_fini(&path);
    return r;
}

/* --- one run --- */

static void print_artifacts(yyjson_val *list)
{
    yyjson_val *a;
    size_t i, max;
    yyjson_arr_foreach(list, i, max, a)
    {
        yyjson_val *data = mu_json_get(a, "data");
        mu_bytes what = mu_json_get_bytes(data, "url");
        mu_ui_row(i ? "" : "artifacts", what.len ? what : mu_json_get_bytes(data, "title"));
    }
}

static void print_run(yyjson_val *run)
{
    yyjson_val *config = mu_json_get(run, "agent_config"), *p = mu_json_get(run, "provider");
    mu_bytes state = mu_json_get_bytes(run, "state"), output = mu_json_get_bytes(run, "output");
    mu_ui_row("run", mu_json_get_bytes(run, "run_id"));
    mu_ui_row("title", mu_json_get_bytes(run, "title"));
    printf("%-12s %s%.*s%s\n", "state", mu_ui_state_colour(stdout, state), MU_ARGS(state),
           mu_ui_reset(stdout));
    mu_ui_time_row("created", mu_json_get_bytes(run, "created_at"));
    mu_ui_time_row("started", mu_json_get_bytes(run, "started_at"));
    mu_ui_time_row("ended", mu_json_get_bytes(run, "completed_at"));
    mu_ui_time_row("queued until", mu_json_get_bytes(run, "queued_until"));
    mu_ui_row("source", mu_json_get_bytes(run, "source"));
    mu_ui_row("harness", mu_json_get_bytes(run, "harness"));
    mu_ui_row("provider", mu_json_get_bytes(p, "key"));
    mu_ui_row("model", p ? mu_json_get_bytes(p, "model") : mu_json_get_bytes(config, "model_id"));
    mu_ui_row("environment", mu_json_get_bytes(config, "environment_id"));
    mu_ui_row("worker", mu_json_get_bytes(run, "worker_id"));
    mu_ui_row("session", mu_json_get_bytes(run, "session_link"));
    print_artifacts(mu_json_get(run, "artifacts"));
    mu_ui_row("error", mu_json_get_bytes(mu_json_get(run, "error"), "message"));
    if (!mu_state_ended(state)) {
        mu_ui_row("message", mu_json_get_bytes(mu_json_get(run, "status_message"), "message"));
    }
    puts("\nprompt");
    mu_ui_text(mu_json_get_bytes(run, "prompt"));
    putchar('\n');
    if (output.len) {
        puts("\noutput");
        mu_ui_text(output);
        putchar('\n');
    }
}

int mu_cmd_show(struct mu_cli *cli)
{
    return mu_client_show(cli, "/agent/runs", cli->args[0], print_run);
}

int mu_cmd_logs(struct mu_cli *cli)
{
    struct mu_client c;
    char state[16] = "";
    if (!mu_cli_has(cli, "follow")) {
        return mu_client_show(cli, "/agent/runs", cli->args[0], mu_print_outcome);
    }
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    const struct mu_follow f = {
        .id = cli->args[0], .events = c.json, .progress = !c.json && mu_ui_tty(stderr)};
    r = mu_client_follow(&c, &f, state, sizeof state);
    mu_client_close(&c);
    return r ? r : mu_state_exit(mu_str(state));
}

/* --- several runs --- */

int mu_cmd_cancel(struct mu_cli *cli)
{
    return mu_client_each(cli, "POST", "/agent/runs", "/cancel", "cancelled");
}

int mu_cmd_rm(struct mu_cli *cli)
{
    return mu_client_each(cli, "DELETE", "/agent/runs", "", "deleted");
}

int mu_cmd_wait(struct mu_cli *cli)
{
    struct mu_client c;
    int64_t seconds;
    int first = mu_cli_number(cli, "timeout", 0, 31536000, -1, &seconds);
    if (first == 0) {
        first = mu_client_open(cli, &c);
    }
    if (first) {
        return first;
    }
    int64_t end = mu_env_mono_ms(&mu_env_real) + seconds * 1000;
    for (size_t i = 0; i < cli->n_args; i++) {
        struct mu_reply reply = {0};
        int64_t left = MU_MAX((end - mu_env_mono_ms(&mu_env_real) + 999) / 1000, 0);
        int r = mu_client_wait(&c, cli->args[i], seconds < 0 ? -1 : left, &reply);
        mu_bytes state = mu_json_get_bytes(reply.root, "state");
        if (c.json && reply.root && (r == 0 || r == MU_EXIT_TIMEOUT)) {
            mu_client_print(&reply);
        } else if (r == 0 || r == MU_EXIT_TIMEOUT) {
            printf("%s %.*s\n", cli->args[i], MU_ARGS(state));
        }
        r = r ? r : mu_state_exit(state);
        first = first ? first : r;
    }
    mu_client_close(&c);
    return first;
}
