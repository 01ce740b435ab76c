#include <errno.h>

#include "base/clock.h"
#include "worker/wire.h"

enum { MAX_DEPTH = 64 };

static bool all_of(mu_bytes b, const char *more)
{
    for (size_t i = 0; i < b.len; i++) {
        char c = b.ptr[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && (!c || !strchr(more, c))) {
            return false;
        }
    }
    return true;
}

bool mu_wire_task_id_ok(mu_bytes id)
{
    return id.len > 0 && id.len <= MU_WIRE_MAX_TASK_ID && all_of(id, "_.-") &&
           !mu_bytes_is(id, ".") && !mu_bytes_is(id, "..");
}

bool mu_wire_execution_id_ok(mu_bytes id)
{
    return id.len > 0 && id.len <= MU_WIRE_MAX_EXECUTION_ID && all_of(id, "_-");
}

int mu_wire_read(struct mu_arena *a, mu_bytes text, enum mu_wire_type *ret_type,
                 yyjson_val **ret_data, struct mu_err *err)
{
    static const struct {
        const char *name;
        enum mu_wire_type type;
    } types[] = {{"welcome", MU_WIRE_WELCOME},
                 {"task_assignment", MU_WIRE_ASSIGNMENT},
                 {"task_cancel", MU_WIRE_CANCEL},
                 {"task_cancellation", MU_WIRE_CANCEL},
                 {"ack", MU_WIRE_ACK},
                 {"command", MU_WIRE_COMMAND},
                 {"runner", MU_WIRE_RUNNER},
                 {"heartbeat", MU_WIRE_HEARTBEAT}};
    const struct mu_json_limits limits = {.max_bytes = MU_WIRE_MAX_MESSAGE, .max_depth = MAX_DEPTH};
    yyjson_val *root;
    int r = mu_json_read(a, text, &limits, &root, err);
    if (r < 0) {
        return r;
    }
    mu_bytes type = mu_json_get_bytes(root, "type");
    if (!type.len) {
        return mu_err_set(err, MU_E_INVALID, "a message without a type");
    }
    *ret_type = MU_WIRE_UNKNOWN;
    for (size_t i = 0; i < MU_ARRAY_LEN(types); i++) {
        if (mu_bytes_is(type, types[i].name)) {
            *ret_type = types[i].type;
        }
    }
    yyjson_val *data = mu_json_get(root, "data");
    *ret_data = yyjson_is_obj(data) ? data : NULL;
    return 0;
}

/* --- typed members: a wrong type anywhere refuses the whole assignment (3.3) --- */

struct reader {
    struct mu_err *err;
    int r; /* the first thing that was wrong */
};

static bool fits(yyjson_val *v, char kind)
{
    switch (kind) {
    case 's':
        return yyjson_is_str(v);
    case 'o':
        return yyjson_is_obj(v);
    case 'a':
        return yyjson_is_arr(v);
    case 'b':
        return yyjson_is_bool(v);
    case 'n':
        return yyjson_is_num(v);
    default: /* 'i' */
        return yyjson_is_int(v) && (yyjson_is_sint(v) || yyjson_get_uint(v) <= INT64_MAX);
    }
}

static const char *kind_word(char kind)
{
    return kind == 's'   ? "text"
           : kind == 'o' ? "an object"
           : kind == 'a' ? "an array"
           : kind == 'b' ? "true or false"
           : kind == 'n' ? "a number"
                         : "a whole number";
}

static yyjson_val *take(struct reader *rd, yyjson_val *obj, const char *where, const char *key,
                        char kind)
{
    yyjson_val *v = mu_json_get(obj, key);
    if (!v || yyjson_is_null(v)) {
        return NULL;
    }
    if (!fits(v, kind)) {
        if (rd->r == 0) {
            rd->r = mu_err_set(rd->err, MU_E_INVALID, "invalid assignment: %s%s must be %s", where,
                               key, kind_word(kind));
        }
        return NULL;
    }
    return v;
}

static mu_bytes text_of(struct reader *rd, yyjson_val *obj, const char *where, const char *key)
{
    return mu_json_bytes(take(rd, obj, where, key, 's'));
}

static int64_t number_of(struct reader *rd, yyjson_val *obj, const char *where, const char *key)
{
    yyjson_val *v = take(rd, obj, where, key, 'i');
    return v ? yyjson_get_sint(v) : 0;
}

static void fail(struct reader *rd, const char *text)
{
    if (rd->r == 0) {
        rd->r = mu_err_set(rd->err, MU_E_INVALID, "invalid assignment: %s", text);
    }
}

static bool has_nul(mu_bytes b)
{
    return b.len && memchr(b.ptr, 0, b.len);
}

static void check_strings(struct reader *rd, yyjson_val *obj, const char *name)
{
    size_t i, n;
    yyjson_val *k, *v;
    if (!obj) {
        return;
    }
    yyjson_obj_foreach(obj, i, n, k, v)
    {
        mu_bytes key = mu_json_bytes(k);
        if (!yyjson_is_str(v)) {
            fail(rd,
                 name[0] == 's' ? "secrets must hold text only" : "env_vars must hold text only");
        } else if (!key.len || has_nul(key) || mu_bytes_find_char(key, '=') >= 0) {
            fail(rd, "a variable's name is empty or holds a character that no name can have");
        } else if (has_nul(mu_json_bytes(v))) {
            fail(rd, "a variable holds a NUL byte, which no environment can");
        }
    }
}

static void read_mounts(struct reader *rd, yyjson_val *data, struct mu_wire_assignment *as)
{
    yyjson_val *list = take(rd, data, "", "additional_sidecars", 'a'), *v;
    size_t i, n;
    if (!list) {
        return;
    }
    yyjson_arr_foreach(list, i, n, v)
    {
        if (!yyjson_is_obj(v)) {
            fail(rd, "additional_sidecars must hold objects");
            return;
        }
        if (as->n_mounts == MU_ARRAY_LEN(as->mounts)) {
            fail(rd, "too many additional_sidecars");
            return;
        }
        struct mu_wire_mount *m = &as->mounts[as->n_mounts++];
        m->image = text_of(rd, v, "additional_sidecars.", "image");
        m->path = text_of(rd, v, "additional_sidecars.", "mount_path");
        yyjson_val *rw = take(rd, v, "additional_sidecars.", "read_write", 'b');
        m->writable = rw && yyjson_get_bool(rw);
        if (!m->image.len || !m->path.len || m->path.ptr[0] != '/') {
            fail(rd, "an additional sidecar without image or absolute mount_path");
        }
        for (size_t k = 0; k + 1 < as->n_mounts; k++) {
            if (mu_bytes_eq(as->mounts[k].path, m->path)) {
                fail(rd, "two additional sidecars have the same mount_path");
            }
        }
    }
}

static void check_args(struct reader *rd, yyjson_val *list)
{
    yyjson_val *v;
    size_t i, n;
    if (!list) {
        return;
    }
    yyjson_arr_foreach(list, i, n, v)
    {
        if (!yyjson_is_str(v) || has_nul(mu_json_bytes(v))) {
            fail(rd, "additional_oz_args must hold text only");
        }
    }
}

static void check_snapshot(struct reader *rd, yyjson_val *s)
{
    static const struct {
        const char *key;
        char kind;
    } members[] = {{"environment_id", 's'},
                   {"base_prompt", 's'},
                   {"model_id", 's'},
                   {"profile_id", 's'},
                   {"skill_spec", 's'},
                   {"mcp_servers", 'o'},
                   {"computer_use_enabled", 'b'},
                   {"idle_timeout_minutes", 'i'},
                   {"harness", 'o'},
                   {"session_sharing", 'o'},
                   {"snapshot_disabled", 'b'},
                   {"snapshot_upload_timeout_secs", 'i'},
                   {"inference_providers", 'o'},
                   {"snapshot_script_timeout_secs", 'i'}};
    for (size_t i = 0; s && i < MU_ARRAY_LEN(members); i++) {
        (void)take(rd, s, "agent_config_snapshot.", members[i].key, members[i].kind);
    }
}

static void check_date(struct reader *rd, yyjson_val *task, const char *key)
{
    int64_t ms;
    mu_bytes text = text_of(rd, task, "task.", key);
    if (text.len && mu_time_parse(text, &ms) < 0) {
        fail(rd, "task.created_at and task.updated_at must be RFC 3339 times");
    }
}

static void read_task(struct reader *rd, yyjson_val *data, struct mu_wire_assignment *as)
{
    as->task = take(rd, data, "", "task", 'o');
    if (!as->task) {
        fail(rd, "task is missing");
        return;
    }
    mu_bytes id = text_of(rd, as->task, "task.", "id");
    if (id.len && !mu_bytes_eq(id, as->task_id)) {
        fail(rd, "task.id is not task_id");
    }
    as->title = text_of(rd, as->task, "task.", "title");
    check_date(rd, as->task, "created_at");
    check_date(rd, as->task, "updated_at");
    yyjson_val *owner = take(rd, as->task, "task.", "owner", 'o');
    as->team = mu_bytes_is(text_of(rd, owner, "task.owner.", "Type"), "TEAM");
    as->snapshot = take(rd, as->task, "task.", "agent_config_snapshot", 'o');
    check_snapshot(rd, as->snapshot);
    if (has_nul(as->title)) {
        as->title = MU_B_NONE;
    }
}

/* Whoever asks for less than usual must not get the usual because of a slip. */
static void read_policy(struct reader *rd, yyjson_val *data, struct mu_wire_policy *ret)
{
    yyjson_val *policy = take(rd, data, "", "policy", 'o');
    yyjson_val *network = take(rd, policy, "policy.", "network", 'o');
    mu_bytes mode = text_of(rd, network, "policy.network.", "mode");
    mu_bytes root = text_of(rd, policy, "policy.", "root");
    yyjson_val *nested = take(rd, policy, "policy.", "nested", 'b'), *v;
    size_t i, n;
    if (mode.ptr && !mu_bytes_is(mode, "proxy") && !mu_bytes_is(mode, "none") &&
        !mu_bytes_is(mode, "host")) {
        fail(rd, "policy.network.mode must be proxy, none or host");
    }
    if (root.ptr && !mu_bytes_is(root, "fake")) {
        fail(rd, "policy.root must be fake");
    }
    ret->network = mu_bytes_is(mode, "proxy")  ? MU_WIRE_NET_PROXY
                   : mu_bytes_is(mode, "none") ? MU_WIRE_NET_NONE
                   : mu_bytes_is(mode, "host") ? MU_WIRE_NET_HOST
                                               : MU_WIRE_NET_ANY;
    ret->nested = nested && yyjson_get_bool(nested);
    ret->fake_root = root.ptr != NULL;
    ret->allow = mu_json_get(network, "allow");
    ret->allow = yyjson_is_null(ret->allow) ? NULL : ret->allow;
    if (!ret->allow || yyjson_is_str(ret->allow)) {
        return;
    }
    ret->allow = take(rd, network, "policy.network.", "allow", 'a');
    yyjson_arr_foreach(ret->allow, i, n, v)
    {
        if (!yyjson_is_str(v)) {
            fail(rd, "policy.network.allow must hold text only");
        }
    }
}

static void read_native(struct reader *rd, yyjson_val *data, struct mu_wire_assignment *as)
{
    as->epoch = number_of(rd, data, "", "epoch");
    as->lease_ms = number_of(rd, data, "", "lease_ms");
    as->harness = text_of(rd, data, "", "harness");
    as->live = mu_bytes_is(text_of(rd, data, "", "mode"), "live");
    as->session_token = text_of(rd, data, "", "session_token");
    as->restore = as->live && take(rd, data, "", "checkpoint", 'o');
    read_policy(rd, data, &as->policy);
    as->secrets = take(rd, data, "", "secrets", 'o');
    check_strings(rd, as->secrets, "secrets");
    yyjson_val *deadline = mu_json_get(data, "deadline_at");
    if (yyjson_is_int(deadline)) {
        as->deadline_ms = yyjson_get_sint(deadline);
    } else if (yyjson_is_str(deadline) &&
               mu_time_parse(mu_json_bytes(deadline), &as->deadline_ms) < 0) {
        fail(rd, "deadline_at must be a time");
    }
    yyjson_val *res = take(rd, data, "", "resources", 'o');
    as->memory_mb = number_of(rd, res, "resources.", "memory_mb");
    as->pids = number_of(rd, res, "resources.", "pids");
    as->disk_mb = number_of(rd, res, "resources.", "disk_mb");
    yyjson_val *cpus = take(rd, res, "resources.", "cpus", 'n');
    as->cpus = cpus ? yyjson_get_num(cpus) : 0;
    if (as->memory_mb < 0 || as->memory_mb > (1 << 24) || as->disk_mb < 0 ||
        as->disk_mb > (1 << 24) || as->pids < 0 || as->cpus < 0) {
        fail(rd, "resources out of range");
    }
    for (size_t i = 0; i < as->session_token.len; i++) { /* it becomes a header */
        if ((unsigned char)as->session_token.ptr[i] <= ' ' || as->session_token.ptr[i] == 127) {
            fail(rd, "session_token is not a token");
        }
    }
}

int mu_wire_assignment(yyjson_val *data, struct mu_wire_assignment *ret, struct mu_err *err)
{
    struct reader rd = {.err = err};
    memset(ret, 0, sizeof *ret);
    ret->task_id = mu_json_get_bytes(data, "task_id");
    if (!mu_wire_task_id_ok(ret->task_id)) {
        bool empty = ret->task_id.len == 0;
        ret->task_id = ret->task_id.len <= MU_WIRE_MAX_TASK_ID ? ret->task_id : MU_B_NONE;
        return mu_err_set(err, MU_E_INVALID, "invalid assignment: task_id is %s",
                          empty ? "missing" : "not an id");
    }
    ret->execution_id = text_of(&rd, data, "", "execution_id");
    if (ret->execution_id.len && !mu_wire_execution_id_ok(ret->execution_id)) {
        ret->execution_id = MU_B_NONE;
        fail(&rd, "execution_id is not an id");
    }
    read_native(&rd, data, ret);
    read_task(&rd, data, ret);
    ret->image = text_of(&rd, data, "", "docker_image");
    ret->sidecar = text_of(&rd, data, "", "sidecar_image");
    ret->env_vars = take(&rd, data, "", "env_vars", 'o');
    check_strings(&rd, ret->env_vars, "env_vars");
    read_mounts(&rd, data, ret);
    ret->args = take(&rd, data, "", "additional_oz_args", 'a');
    check_args(&rd, ret->args);
    yyjson_val *shape = take(&rd, data, "", "instance_shape", 'o');
    ret->vcpus = number_of(&rd, shape, "instance_shape.", "vcpus");
    ret->memory_gb = number_of(&rd, shape, "instance_shape.", "memory_gb");
    if (ret->vcpus > 4096 || ret->memory_gb > (1 << 20) || has_nul(ret->image) ||
        has_nul(ret->sidecar)) {
        fail(&rd, "instance_shape or image out of range");
    }
    return rd.r;
}
