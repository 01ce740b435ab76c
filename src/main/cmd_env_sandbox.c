#include <stdio.h>

#include "main/cmd_env.h"
#include "main/ui.h"

static const char *const limits[] = {"memory_mb", "cpus", "pids", "disk_mb", "timeout_seconds"};

static bool any_flag(const struct mu_cli *cli)
{
    static const char *const flags[] = {"network", "allow", "nested", "fake-root", "limit"};
    for (size_t i = 0; i < MU_ARRAY_LEN(flags); i++) {
        if (mu_cli_has(cli, flags[i])) {
            return true;
        }
    }
    return false;
}

static void keep(struct mu_json_w *w, const char *key, yyjson_val *v)
{
    if (v) {
        mu_jw_key(w, key);
        mu_json_add(w->buf, v);
        w->comma = true;
    }
}

static void network(struct mu_json_w *w, const struct mu_cli *cli, yyjson_val *old)
{
    const char *mode = mu_cli_value(cli, "network"), *v;
    size_t at = 0;
    mu_jw_key(w, "network");
    mu_jw_obj(w);
    if (mode) {
        mu_jw_kcstr(w, "mode", mode);
    } else if (!mu_cli_has(cli, "allow")) {
        keep(w, "mode", mu_json_get(old, "mode"));
    }
    if (mu_cli_has(cli, "allow")) {
        mu_jw_key(w, "allow");
        mu_jw_arr(w);
        while ((v = mu_cli_next(cli, "allow", &at))) {
            mu_jw_str(w, mu_str(v));
        }
        mu_jw_arr_end(w);
    } else if (!mode || !strcmp(mode, "proxy")) {
        keep(w, "allow", mu_json_get(old, "allow"));
    }
    mu_jw_obj_end(w);
}

/* "NAME=NUMBER"; the last one of a name counts. */
static mu_bytes limit_given(const struct mu_cli *cli, const char *name)
{
    const char *v;
    mu_bytes found = MU_B_NONE;
    for (size_t at = 0; (v = mu_cli_next(cli, "limit", &at));) {
        mu_bytes rest = mu_str(v);
        if (mu_bytes_is(mu_bytes_split(&rest, '='), name)) {
            found = rest;
        }
    }
    return found;
}

static bool is_limit(mu_bytes text)
{
    mu_bytes name = mu_bytes_split(&text, '=');
    bool known = false, digit = false;
    for (size_t i = 0; i < MU_ARRAY_LEN(limits); i++) {
        known = known || mu_bytes_is(name, limits[i]);
    }
    size_t dots = 0;
    for (size_t i = 0; i < text.len; i++) {
        digit = text.ptr[i] >= '0' && text.ptr[i] <= '9';
        dots += text.ptr[i] == '.';
        if (!digit && (text.ptr[i] != '.' || i == 0)) {
            return false;
        }
    }
    bool zeros = text.len > 1 && text.ptr[0] == '0' && text.ptr[1] != '.'; /* no JSON */
    return known && digit && dots <= 1 && !zeros && text.len < 24;
}

static int write_limits(struct mu_json_w *w, const struct mu_cli *cli, yyjson_val *old)
{
    const char *v;
    for (size_t at = 0; (v = mu_cli_next(cli, "limit", &at));) {
        if (!is_limit(mu_str(v))) {
            return mu_usage(cli->cmd,
                            "--limit %s: expected memory_mb, cpus, pids, disk_mb or "
                            "timeout_seconds, =, and a number",
                            v);
        }
    }
    mu_jw_key(w, "limits");
    mu_jw_obj(w);
    for (size_t i = 0; i < MU_ARRAY_LEN(limits); i++) {
        mu_bytes given = limit_given(cli, limits[i]);
        if (given.ptr) {
            mu_jw_kraw(w, limits[i], given);
        } else {
            keep(w, limits[i], mu_json_get(old, limits[i]));
        }
    }
    mu_jw_obj_end(w);
    return 0;
}

int mu_env_sandbox_flags(struct mu_json_w *w, const struct mu_cli *cli, yyjson_val *old)
{
    old = mu_cli_has(cli, "no-sandbox") ? NULL : old;
    if (!any_flag(cli)) {
        keep(w, "sandbox", old);
        return 0;
    }
    mu_jw_key(w, "sandbox");
    mu_jw_obj(w);
    network(w, cli, mu_json_get(old, "network"));
    if (mu_cli_has(cli, "nested")) {
        mu_jw_kbool(w, "nested", true);
    } else {
        keep(w, "nested", mu_json_get(old, "nested"));
    }
    if (mu_cli_has(cli, "fake-root")) {
        mu_jw_kcstr(w, "root", "fake");
    } else {
        keep(w, "root", mu_json_get(old, "root"));
    }
    int r = write_limits(w, cli, mu_json_get(old, "limits"));
    mu_jw_obj_end(w);
    return r;
}

/* --- for people --- */

static void add_word(struct mu_buf *line, const char *before, mu_bytes word)
{
    mu_buf_add_str(line, line->len ? " " : "");
    mu_buf_add_str(line, before);
    mu_buf_add(line, word);
}

char *mu_env_sandbox_line(yyjson_val *sandbox)
{
    struct mu_buf line;
    yyjson_val *network_ = mu_json_get(sandbox, "network"), *v;
    size_t i, n;
    mu_buf_init(&line, 1 << 17);
    if (network_) {
        add_word(&line, "network=", mu_json_get_bytes(network_, "mode"));
    }
    yyjson_arr_foreach(mu_json_get(network_, "allow"), i, n, v)
    {
        add_word(&line, "", mu_json_bytes(v));
    }
    if (mu_json_get_bool(sandbox, "nested", false)) {
        add_word(&line, "nested", MU_B_NONE);
    }
    if (mu_json_get_bytes(sandbox, "root").len) {
        add_word(&line, "root=", mu_json_get_bytes(sandbox, "root"));
    }
    for (i = 0; i < MU_ARRAY_LEN(limits); i++) {
        v = mu_json_get(mu_json_get(sandbox, "limits"), limits[i]);
        if (v) {
            mu_buf_add_str(&line, line.len ? " " : "");
            mu_buf_printf(&line, "%s=", limits[i]);
            mu_json_add(&line, v);
        }
    }
    char *text = line.failed || !line.len ? NULL : mu_bytes_dup(mu_buf_bytes(&line));
    mu_buf_fini(&line);
    return text;
}
