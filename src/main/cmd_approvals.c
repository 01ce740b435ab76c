/* What waits for a person. */
#include <stdio.h>

#include "main/session_id.h"
#include "main/ui.h"

static void print_approvals(yyjson_val *root)
{
    static const char *const headings[] = {"APPROVAL", "ACTION",  "RISK", "ASKED",
                                           "EXPIRES",  "SESSION", "WHAT"};
    struct mu_table t;
    yyjson_val *a, *data = mu_json_get(root, "data");
    size_t i, max;
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    yyjson_arr_foreach(mu_json_get(data, "items"), i, max, a)
    {
        char asked[32], expires[32];
        mu_ui_ago(mu_json_get_bytes(a, "requestedAt"), asked, sizeof asked);
        mu_ui_ago(mu_json_get_bytes(a, "expiresAt"), expires, sizeof expires);
        mu_table_cell(&t, mu_json_get_bytes(a, "approvalId"));
        mu_table_cell(&t, mu_json_get_bytes(a, "action"));
        mu_table_cell(&t, mu_json_get_bytes(a, "risk"));
        mu_table_cell(&t, mu_str(asked));
        mu_table_cell(&t, mu_str(expires));
        mu_table_cell(&t, mu_json_get_bytes(a, "sessionId"));
        mu_table_cell(&t, mu_json_get_bytes(a, "description"));
    }
    mu_table_end(&t);
    if (mu_json_get_bool(data, "hasMore", false)) {
        fputs("muster: there are more\n", stderr);
    }
}

int mu_cmd_approvals(struct mu_cli *cli)
{
    return mu_client_show(cli, "/approvals?status=pending&pageSize=100", NULL, print_approvals);
}

static int decide(const struct mu_cli *cli, bool allow)
{
    struct mu_client c;
    struct mu_reply reply;
    struct mu_buf body;
    char id[MU_LONG_ID], session[MU_LONG_ID], suffix[MU_LONG_ID + 16];
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    mu_buf_init(&body, 1 << 20);
    struct mu_json_w w = mu_json_w(&body);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "decision", allow ? "allow" : "deny");
    if (mu_cli_has(cli, "session")) {
        mu_jw_kcstr(&w, "scope", "session");
    }
    mu_client_option(&w, cli, "reason", "reason"); /* only `deny` has it */
    mu_jw_obj_end(&w);
    r = body.failed ? mu_client_no_memory() : mu_approval_named(&c, cli->args[0], id, session);
    if (r == 0) {
        snprintf(suffix, sizeof suffix, "/approvals/%s", id);
        const struct mu_request req = {.method = "POST",
                                       .path = mu_session_path(&c, session, suffix),
                                       .body = mu_buf_bytes(&body)};
        r = mu_client_call(&c, &req, &reply);
    }
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        printf("%s %s\n", id, allow ? "allowed" : "denied");
    }
    mu_buf_fini(&body);
    mu_client_close(&c);
    return r;
}

int mu_cmd_approve(struct mu_cli *cli)
{
    return decide(cli, true);
}

int mu_cmd_deny(struct mu_cli *cli)
{
    return decide(cli, false);
}
