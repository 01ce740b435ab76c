#include <stdio.h>

#include "main/client.h"
#include "main/ui.h"

int mu_cmd_keys_create(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    struct mu_buf body;
    int64_t days;
    const char *tenant = mu_cli_value(cli, "tenant");
    int r = mu_cli_number(cli, "expires", 1, 36500, 0, &days);
    if (r == 0) {
        r = mu_client_open(cli, &c);
    }
    if (r) {
        return r;
    }
    mu_buf_init(&body, 65536);
    struct mu_json_w w = mu_json_w(&body);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "name", cli->args[0]);
    if (tenant) {
        mu_jw_kcstr(&w, "tenant", tenant);
    }
    if (days) {
        mu_jw_ki64(&w, "expires_in_days", days);
    }
    mu_jw_obj_end(&w);
    const struct mu_request req = {
        .method = "POST", .path = MU_B("/keys"), .body = mu_buf_bytes(&body)};
    r = body.failed ? mu_usage(cli->cmd, "the name is too long") : mu_client_call(&c, &req, &reply);
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        mu_ui_text(mu_json_get_bytes(reply.root, "key"));
        putchar('\n');
        if (mu_ui_tty(stderr)) {
            fputs("This is the only time that the key is shown.\n", stderr);
        }
    }
    mu_buf_fini(&body);
    mu_client_close(&c);
    return r;
}

static void print_keys(yyjson_val *root)
{
    static const char *const headings[] = {"KEY",  "PREFIX",  "CREATED", "EXPIRES",
                                           "USED", "REVOKED", "NAME"};
    static const char *const times[] = {"created_at", "expires_at", "last_used_at", "revoked_at"};
    struct mu_table t;
    yyjson_val *k;
    size_t i, max;
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    yyjson_arr_foreach(mu_json_get(root, "keys"), i, max, k)
    {
        mu_table_cell(&t, mu_json_get_bytes(k, "id"));
        mu_table_cell(&t, mu_json_get_bytes(k, "prefix"));
        for (size_t j = 0; j < MU_ARRAY_LEN(times); j++) {
            char ago[32];
            mu_ui_ago(mu_json_get_bytes(k, times[j]), ago, sizeof ago);
            mu_table_cell(&t, mu_str(ago));
        }
        mu_table_cell(&t, mu_json_get_bytes(k, "name"));
    }
    mu_table_end(&t);
}

int mu_cmd_keys_list(struct mu_cli *cli)
{
    return mu_client_show(cli, "/keys", NULL, print_keys);
}

int mu_cmd_keys_revoke(struct mu_cli *cli)
{
    return mu_client_each(cli, "DELETE", "/keys", "", "revoked");
}

int mu_cmd_keys_rotate(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    const struct mu_request req = {.method = "POST", .path = MU_B("/keys/rotate-admin")};
    r = mu_client_call(&c, &req, &reply);
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0 && isatty(1)) {
        mu_ui_text(mu_json_get_bytes(reply.root, "key"));
        putchar('\n');
    } else if (r == 0) {
        /* As at first start: the key is shown on a terminal only. */
        puts("rotated: the new key is in admin.key of the data folder");
    }
    mu_client_close(&c);
    return r;
}

int mu_cmd_login_link(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    const struct mu_request req = {.method = "POST", .path = MU_B("/keys/login-link")};
    r = mu_client_call(&c, &req, &reply);
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        mu_ui_text(mu_json_get_bytes(reply.root, "url"));
        putchar('\n');
        if (mu_ui_tty(stderr)) {
            fputs("It signs one browser in as administrator, once, within 15 minutes.\n", stderr);
        }
    }
    mu_client_close(&c);
    return r;
}
