#include <stdio.h>

#include "main/client.h"
#include "main/ui.h"

static const char *state_of(yyjson_val *w)
{
    return !mu_json_get_bool(w, "connected", false)  ? "offline"
           : mu_json_get_bool(w, "draining", false)  ? "draining"
           : mu_json_get_bool(w, "saturated", false) ? "full"
                                                     : "online";
}

/* "namespace, docker": those that work there. */
static mu_bytes sandboxes(yyjson_val *w, struct mu_buf *dst)
{
    yyjson_val *s;
    size_t i, max;
    mu_buf_clear(dst);
    yyjson_arr_foreach(mu_json_get(mu_json_get(w, "capabilities"), "sandbox"), i, max, s)
    {
        if (mu_json_get_bool(s, "usable", false)) {
            mu_buf_add_str(dst, dst->len ? ", " : "");
            mu_buf_add(dst, mu_json_get_bytes(s, "kind"));
        }
    }
    return mu_buf_bytes(dst);
}

static void print_workers(yyjson_val *root)
{
    static const char *const headings[] = {"WORKER", "STATE", "LOAD",     "VERSION",
                                           "SINCE",  "SEEN",  "SANDBOXES"};
    struct mu_table t;
    struct mu_buf kinds;
    yyjson_val *w;
    size_t i, max;
    mu_buf_init(&kinds, 1 << 16);
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    yyjson_arr_foreach(mu_json_get(root, "workers"), i, max, w)
    {
        char load[48], since[32], seen[32];
        long long capacity = mu_json_get_i64(w, "capacity", 0);
        long long running = mu_json_get_i64(w, "in_flight", 0);
        if (capacity) {
            snprintf(load, sizeof load, "%lld/%lld", running, capacity);
        } else {
            snprintf(load, sizeof load, "%lld", running);
        }
        mu_ui_ago(mu_json_get_bytes(w, "since"), since, sizeof since);
        mu_ui_ago(mu_json_get_bytes(w, "last_seen"), seen, sizeof seen);
        mu_table_cell(&t, mu_json_get_bytes(w, "id"));
        mu_table_cell(&t, mu_str(state_of(w)));
        mu_table_cell(&t, mu_str(load));
        mu_table_cell(&t, mu_json_get_bytes(w, "version"));
        mu_table_cell(&t, mu_str(since));
        mu_table_cell(&t, mu_str(seen));
        mu_table_cell(&t, sandboxes(w, &kinds));
    }
    mu_table_end(&t);
    mu_buf_fini(&kinds);
}

int mu_cmd_workers(struct mu_cli *cli)
{
    return mu_client_show(cli, "/workers", NULL, print_workers);
}

static void print_tokens(yyjson_val *root)
{
    static const char *const headings[] = {"TOKEN", "PREFIX",  "STATUS",  "LEFT",
                                           "ORG",   "CREATED", "EXPIRES", "NAME"};
    struct mu_table t;
    yyjson_val *e;
    size_t i, max;
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    yyjson_arr_foreach(mu_json_get(mu_json_get(root, "data"), "items"), i, max, e)
    {
        char left[32], created[32], expires[32];
        bool shared = mu_json_get_bool(e, "shared", false);
        snprintf(left, sizeof left, "%lld", (long long)mu_json_get_i64(e, "usesLeft", 0));
        mu_ui_ago(mu_json_get_bytes(e, "createdAt"), created, sizeof created);
        mu_ui_ago(mu_json_get_bytes(e, "expiresAt"), expires, sizeof expires);
        mu_table_cell(&t, mu_json_get_bytes(e, "enrolmentId"));
        mu_table_cell(&t, mu_json_get_bytes(e, "prefix"));
        mu_table_cell(&t, mu_json_get_bytes(e, "status"));
        mu_table_cell(&t, mu_str(left));
        mu_table_cell(&t, shared ? MU_B("everybody") : mu_json_get_bytes(e, "orgId"));
        mu_table_cell(&t, mu_str(created));
        mu_table_cell(&t, mu_str(expires));
        mu_table_cell(&t, mu_json_get_bytes(e, "name"));
    }
    mu_table_end(&t);
}

int mu_cmd_workers_tokens(struct mu_cli *cli)
{
    return mu_client_show(
        cli, mu_cli_has(cli, "all") ? "/runner-enrolments?all=true" : "/runner-enrolments", NULL,
        print_tokens);
}

int mu_cmd_workers_revoke(struct mu_cli *cli)
{
    return mu_client_each(cli, "DELETE", "/runner-enrolments", "", "revoked");
}
