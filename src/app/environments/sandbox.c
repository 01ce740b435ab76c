#include "app/environments/sandbox.h"

#include <stdio.h>

#include "exec/broker/policy.h"

static const char *const limits[] = {"memory_mb", "cpus", "pids", "disk_mb"};

static int refuse(char *path, size_t size, const char *field, struct mu_err *err, int code,
                  const char *what)
{
    snprintf(path, size, "%s", field);
    return mu_err_set(err, code, "%s %s", field, what);
}

static int check_allow(yyjson_val *allow, char *path, size_t size, struct mu_err *err)
{
    size_t i, n;
    yyjson_val *v;
    if (!yyjson_is_arr(allow)) {
        return 0;
    }
    yyjson_arr_foreach(allow, i, n, v)
    {
        if (!mu_allow_entry_ok(mu_json_bytes(v))) {
            char field[64];
            snprintf(field, sizeof field, "sandbox.network.allow[%zu]", i);
            return refuse(path, size, field, err, MU_E_INVALID,
                          "must be host:port: a lower-case name, *. in front allowed, no address, "
                          "the port always there");
        }
    }
    return 0;
}

int mu_env_sandbox_check(yyjson_val *sandbox, const struct mu_env_rights *rights, char *ret_path,
                         size_t path_size, struct mu_err *err)
{
    yyjson_val *network = mu_json_get(sandbox, "network"), *allow = mu_json_get(network, "allow");
    mu_bytes mode = mu_json_get_bytes(network, "mode");
    if (yyjson_is_arr(allow) && mode.len && !mu_bytes_is(mode, "proxy")) {
        return refuse(ret_path, path_size, "sandbox.network.allow", err, MU_E_INVALID,
                      "goes with the mode proxy only: nothing else looks at hosts");
    }
    if (mu_bytes_is(mode, "host") && !rights->host_network) {
        return refuse(ret_path, path_size, "sandbox.network.mode", err, MU_E_FORBIDDEN,
                      "host needs the right sandbox.host_network (OZ_TENANT_HOST_NETWORK)");
    }
    if (mu_json_get_bool(sandbox, "nested", false) && !rights->nested) {
        return refuse(ret_path, path_size, "sandbox.nested", err, MU_E_FORBIDDEN,
                      "needs the right sandbox.nested (OZ_TENANT_NESTED)");
    }
    return check_allow(allow, ret_path, path_size, err);
}

/* --- writing: an object begins with its first member --- */

static void open_obj(struct mu_json_w *w, const char *key, bool *open)
{
    if (!*open) {
        *open = true;
        mu_jw_key(w, key);
        mu_jw_obj(w);
    }
}

static void close_obj(struct mu_json_w *w, bool open)
{
    if (open) {
        mu_jw_obj_end(w);
    }
}

static bool is_said(yyjson_val *v)
{
    return v && !yyjson_is_null(v);
}

static void write_value(struct mu_json_w *w, const char *key, yyjson_val *v)
{
    mu_jw_key(w, key);
    mu_json_add(w->buf, v);
    w->comma = true;
}

static void write_network(struct mu_json_w *w, yyjson_val *sandbox, const char *outer, bool *open)
{
    yyjson_val *network = mu_json_get(sandbox, "network");
    yyjson_val *mode = mu_json_get(network, "mode"), *allow = mu_json_get(network, "allow");
    if (!is_said(mode) && !is_said(allow)) {
        return;
    }
    open_obj(w, outer, open);
    mu_jw_key(w, "network");
    mu_jw_obj(w);
    mu_jw_kstr(w, "mode", is_said(mode) ? mu_json_bytes(mode) : MU_B("proxy"));
    if (is_said(allow)) {
        write_value(w, "allow", allow);
    }
    mu_jw_obj_end(w);
}

static void write_policy(struct mu_json_w *w, yyjson_val *sandbox, const char *outer, bool *open)
{
    mu_bytes root = mu_json_get_bytes(sandbox, "root");
    write_network(w, sandbox, outer, open);
    if (mu_json_get_bool(sandbox, "nested", false)) {
        open_obj(w, outer, open);
        mu_jw_kbool(w, "nested", true);
    }
    if (root.len) {
        open_obj(w, outer, open);
        mu_jw_kstr(w, "root", root);
    }
}

static void write_limits(struct mu_json_w *w, yyjson_val *from, const char *outer, bool *open)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(limits); i++) {
        yyjson_val *v = mu_json_get(from, limits[i]);
        if (is_said(v)) {
            open_obj(w, outer, open);
            write_value(w, limits[i], v);
        }
    }
}

void mu_env_sandbox_write(struct mu_json_w *w, const char *key, yyjson_val *sandbox)
{
    bool open = false, inner = false;
    yyjson_val *said = mu_json_get(sandbox, "limits"), *v = mu_json_get(said, "timeout_seconds");
    bool any = is_said(v);
    for (size_t i = 0; i < MU_ARRAY_LEN(limits); i++) {
        any = any || is_said(mu_json_get(said, limits[i]));
    }
    write_policy(w, sandbox, key, &open);
    if (any) {
        open_obj(w, key, &open);
        write_limits(w, said, "limits", &inner);
        if (is_said(v)) {
            open_obj(w, "limits", &inner);
            write_value(w, "timeout_seconds", v);
        }
        close_obj(w, inner);
    }
    close_obj(w, open);
}

void mu_env_policy_write(struct mu_json_w *w, const char *key, yyjson_val *sandbox)
{
    bool open = false;
    write_policy(w, sandbox, key, &open);
    close_obj(w, open);
}

void mu_env_resources_write(struct mu_json_w *w, const char *key, yyjson_val *sandbox)
{
    bool open = false;
    write_limits(w, mu_json_get(sandbox, "limits"), key, &open);
    close_obj(w, open);
}

int64_t mu_env_timeout_ms(yyjson_val *sandbox)
{
    return mu_json_get_i64(mu_json_get(sandbox, "limits"), "timeout_seconds", 0) * 1000;
}
