/* What is kept of a live session after its turns, and sessions that begin there. */
#include <stdio.h>

#include "base/id.h"
#include "main/prompt.h"
#include "main/session_id.h"
#include "main/ui.h"

/* --- list --- */

static void print_checkpoints(yyjson_val *items)
{
    static const char *const headings[] = {"NUMBER", "TAKEN", "BYTES", "TURN", "ID"};
    struct mu_table t;
    yyjson_val *k;
    size_t i, max;
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    yyjson_arr_foreach(items, i, max, k)
    {
        char number[24], ago[32], bytes[24];
        bool inherited = mu_json_get_bool(k, "inherited", false);
        mu_bytes turn = mu_json_get_bytes(k, "turnId");
        snprintf(number, sizeof number, "%lld", (long long)mu_json_get_i64(k, "number", 0));
        snprintf(bytes, sizeof bytes, "%lld", (long long)mu_json_get_i64(k, "bytes", 0));
        mu_ui_ago(mu_json_get_bytes(k, "createdAt"), ago, sizeof ago);
        mu_table_cell(&t, mu_str(number));
        mu_table_cell(&t, mu_str(ago));
        mu_table_cell(&t, mu_str(bytes));
        mu_table_cell(&t, inherited ? MU_B("(inherited)") : turn.len ? turn : MU_B("-"));
        mu_table_cell(&t, mu_json_get_bytes(k, "id"));
    }
    mu_table_end(&t);
}

int mu_cmd_session_checkpoints(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    char id[MU_LONG_ID], suffix[64];
    int64_t before;
    int r = mu_cli_number(cli, "before", 1, INT64_C(9007199254740991), 0, &before);
    r = r ? r : mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    snprintf(suffix, sizeof suffix, before ? "/checkpoints?beforeNumber=%lld" : "/checkpoints",
             (long long)before);
    r = mu_session_call(cli, &c, "GET", suffix, MU_B_NONE, id, &reply);
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        yyjson_val *data = mu_json_get(reply.root, "data");
        print_checkpoints(mu_json_get(data, "items"));
        if (mu_json_get_bool(data, "hasMore", false)) {
            fputs("muster: there are more; see --before\n", stderr);
        }
    }
    mu_client_close(&c);
    return r;
}

/* --- fork --- */

/* --checkpoint: a number as the list has it, or an id. */
static int add_checkpoint(const struct mu_cli *cli, struct mu_json_w *w)
{
    const char *v = mu_cli_value(cli, "checkpoint");
    struct mu_id id;
    int64_t number;
    if (!v) {
        return 0;
    }
    if (mu_bytes_i64(mu_str(v), &number) == 0 && number >= 1) {
        mu_jw_ki64(w, "checkpoint", number);
    } else if (mu_id_parse(mu_str(v), NULL, &id) == 0) {
        mu_jw_kcstr(w, "checkpoint", v);
    } else {
        return mu_usage(cli->cmd, "--checkpoint %s: expected a number, from 1 on, or an id", v);
    }
    return 0;
}

static int make_body(const struct mu_cli *cli, mu_bytes prompt, struct mu_buf *dst)
{
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    int r = add_checkpoint(cli, &w);
    mu_client_option(&w, cli, "title", "title");
    if (prompt.len) {
        mu_jw_kstr(&w, "prompt", prompt);
    }
    if (mu_cli_has(cli, "task")) {
        mu_jw_kcstr(&w, "mode", "task");
    }
    mu_jw_obj_end(&w);
    return r ? r : dst->failed ? mu_client_no_memory() : 0;
}

static int fork_it(const struct mu_cli *cli, struct mu_client *c, mu_bytes body)
{
    struct mu_reply reply;
    char id[MU_LONG_ID];
    int r = mu_session_call(cli, c, "POST", "/fork", body, id, &reply);
    if (r == 0) {
        mu_session_made(c, &reply);
    }
    return r;
}

static int read_prompt(const struct mu_cli *cli, struct mu_buf *dst)
{
    if (cli->n_args < 2) {
        return mu_cli_has(cli, "task") ? mu_usage(cli->cmd, "--task needs a prompt") : 0;
    }
    return mu_prompt_args(cli, 1, dst);
}

int mu_cmd_session_fork(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_buf prompt, body;
    mu_buf_init(&prompt, MU_PROMPT_BUF);
    mu_buf_init(&body, 8 * MU_PROMPT_MAX);
    int r = read_prompt(cli, &prompt);
    r = r ? r : make_body(cli, mu_buf_bytes(&prompt), &body);
    r = r ? r : mu_client_open(cli, &c);
    if (r == 0) {
        r = fork_it(cli, &c, mu_buf_bytes(&body));
        mu_client_close(&c);
    }
    mu_buf_fini(&prompt);
    mu_buf_fini(&body);
    return r;
}
