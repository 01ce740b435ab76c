#include <stdio.h>

#include "main/client.h"
#include "main/ui.h"

static void add_quota(struct mu_table *t, yyjson_val *p)
{
    char text[64] = "";
    int64_t limit = mu_json_get_i64(p, "limit", 0);
    if (limit > 0) {
        snprintf(text, sizeof text, "%lld/%lld", (long long)mu_json_get_i64(p, "used", 0),
                 (long long)limit);
    }
    mu_table_cell(t, mu_str(text));
}

static void add_state(struct mu_table *t, yyjson_val *p)
{
    char ago[32], text[96] = "ready";
    mu_bytes blocked = mu_json_get_bytes(p, "blocked_until");
    mu_bytes resets = mu_json_get_bytes(p, "resets_at");
    mu_bytes breaker = mu_json_get_bytes(p, "breaker");
    int64_t limit = mu_json_get_i64(p, "limit", 0);
    if (blocked.len) {
        mu_ui_ago(blocked, ago, sizeof ago);
        snprintf(text, sizeof text, "blocked, free %s", ago);
    } else if (breaker.len && !mu_bytes_is(breaker, "closed")) {
        snprintf(text, sizeof text, "breaker %.*s", (int)MU_MIN(breaker.len, (size_t)40),
                 breaker.ptr);
    } else if (limit > 0 && mu_json_get_i64(p, "used", 0) >= limit) {
        mu_ui_ago(resets, ago, sizeof ago);
        snprintf(text, sizeof text, "saturated, free %s", ago);
    }
    mu_table_cell(t, mu_str(text));
}

static void print_providers(yyjson_val *root)
{
    static const char *const headings[] = {"PROVIDER", "TYPE", "MODEL", "QUOTA", "STATE", "FOUND"};
    struct mu_table t;
    yyjson_val *p;
    size_t i, max;
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    yyjson_arr_foreach(mu_json_get(root, "providers"), i, max, p)
    {
        mu_table_cell(&t, mu_json_get_bytes(p, "key"));
        mu_table_cell(&t, mu_json_get_bytes(p, "type"));
        mu_table_cell(&t, mu_json_get_bytes(p, "model"));
        add_quota(&t, p);
        add_state(&t, p);
        mu_table_cell(&t, mu_json_get_bytes(p, "found"));
    }
    mu_table_end(&t);
}

int mu_cmd_providers(struct mu_cli *cli)
{
    return mu_client_show(cli, "/providers", NULL, print_providers);
}
