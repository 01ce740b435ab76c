/* What is done to a live session: stop, end, pause, resume, interrupt; what it changed. */
#include <stdio.h>

#include "main/session_id.h"
#include "main/ui.h"

static int act(const struct mu_cli *cli, const char *suffix, const char *body, const char *done)
{
    struct mu_client c;
    struct mu_reply reply;
    char id[MU_LONG_ID];
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    r = mu_session_call(cli, &c, "POST", suffix, mu_str(body), id, &reply);
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        mu_bytes state = mu_json_get_bytes(mu_json_get(reply.root, "data"), "state");
        printf("%s %s%s%.*s\n", id, done, state.len ? ", " : "", MU_ARGS(state));
    }
    mu_client_close(&c);
    return r;
}

int mu_cmd_session_stop(struct mu_cli *cli)
{
    bool force = mu_cli_has(cli, "force");
    return act(cli, "/stop", force ? "{\"graceful\":false}" : "{}", "stopped");
}

int mu_cmd_session_end(struct mu_cli *cli)
{
    return act(cli, "/end", "{}", "is told to end");
}

int mu_cmd_session_interrupt(struct mu_cli *cli)
{
    return act(cli, "/interrupt", "{}", "interrupted");
}

int mu_cmd_pause(struct mu_cli *cli)
{
    return act(cli, "/pause", "{}", "paused");
}

int mu_cmd_resume(struct mu_cli *cli)
{
    return act(cli, "/resume", "{}", "resumed");
}

/* --- diff --- */

static void print_files(yyjson_val *diff)
{
    static const char *const headings[] = {"STATUS", "ADDED", "REMOVED", "FILE"};
    struct mu_table t;
    yyjson_val *f;
    size_t i, max;
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    yyjson_arr_foreach(mu_json_get(diff, "files"), i, max, f)
    {
        char added[24], removed[24];
        snprintf(added, sizeof added, "%lld", (long long)mu_json_get_i64(f, "additions", 0));
        snprintf(removed, sizeof removed, "%lld", (long long)mu_json_get_i64(f, "deletions", 0));
        mu_table_cell(&t, mu_json_get_bytes(f, "status"));
        mu_table_cell(&t, mu_str(added));
        mu_table_cell(&t, mu_str(removed));
        mu_table_cell(&t, mu_json_get_bytes(f, "path"));
    }
    mu_table_end(&t);
}

static int print_patch(yyjson_val *diff)
{
    yyjson_val *patch = mu_json_get(diff, "patch");
    if (!patch) {
        fputs("muster: the text of the patch is known only while the session runs\n", stderr);
        return MU_EXIT_FAILED;
    }
    mu_ui_text(mu_json_bytes(patch));
    if (mu_json_get_bool(diff, "truncated", false)) {
        fputs("muster: the patch is longer; this is its beginning\n", stderr);
    }
    return MU_EXIT_OK;
}

int mu_cmd_diff(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    char id[MU_LONG_ID];
    bool patch = mu_cli_has(cli, "patch");
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    r = mu_session_call(cli, &c, "GET", patch ? "/diff?patch=true" : "/diff", MU_B_NONE, id,
                        &reply);
    yyjson_val *data = r == 0 ? mu_json_get(reply.root, "data") : NULL;
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0 && patch && mu_json_get_i64(data, "filesChanged", 0)) {
        r = print_patch(data);
    } else if (r == 0 && !patch) {
        print_files(data);
    }
    mu_client_close(&c);
    return r;
}
