/* Environment and arguments of a task (oz-worker.md 8.1, 8.2, 8.4). */
#include <errno.h>

#include "worker/wire.h"

enum { MAX_VARS = 4096 };

mu_bytes mu_wire_var(const struct mu_wire_assignment *as, const char *name)
{
    yyjson_val *v = mu_json_get(as->env_vars, name);
    return yyjson_is_str(v) ? mu_json_bytes(v) : MU_B_NONE;
}

/* --- the environment: last wins, sorted --- */

struct var {
    mu_bytes name, value;
    size_t order;
};

struct vars {
    struct mu_arena *a;
    struct var *items;
    size_t n, cap;
    int r;
};

static void add(struct vars *v, mu_bytes name, mu_bytes value)
{
    if (v->r < 0 || v->n >= MAX_VARS) {
        v->r = v->r < 0 ? v->r : MU_E_LIMIT;
        return;
    }
    if (v->n == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 64;
        struct var *grown = mu_arena_alloc(v->a, cap * sizeof *grown);
        if (!grown) {
            v->r = -ENOMEM;
            return;
        }
        if (v->n) {
            memcpy(grown, v->items, v->n * sizeof *grown);
        }
        v->items = grown;
        v->cap = cap;
    }
    v->items[v->n] = (struct var){name, value, v->n};
    v->n++;
}

static void add_object(struct vars *v, yyjson_val *obj)
{
    size_t i, n;
    yyjson_val *k, *val;
    if (!obj) {
        return;
    }
    yyjson_obj_foreach(obj, i, n, k, val)
    {
        add(v, mu_json_bytes(k), mu_json_bytes(val));
    }
}

static void add_pairs(struct vars *v, const char *const *pairs)
{
    for (; pairs && *pairs; pairs++) {
        mu_bytes rest = mu_str(*pairs);
        mu_bytes name = mu_bytes_split(&rest, '=');
        add(v, name, rest);
    }
}

static int by_name(const void *a, const void *b)
{
    const struct var *x = a, *y = b;
    int c = mu_bytes_cmp(x->name, y->name);
    return c ? c : x->order < y->order ? -1 : x->order > y->order;
}

/* Of what is not for our own runner: it talks to the worker, not to the server (13.6). */
static bool unwanted(mu_bytes name, const struct mu_wire_about *about)
{
    return !about->keep_token &&
           (mu_bytes_is(name, "OZ_RUN_TOKEN") || mu_bytes_is(name, "OZ_TASK_PROMPT_URL"));
}

static int finish(struct vars *v, const struct mu_wire_about *about, const char *const **ret,
                  mu_bytes *ret_prompt, struct mu_err *err)
{
    const char **list = mu_arena_calloc(v->a, (v->n + 1) * sizeof *list);
    size_t n = 0;
    if (!list) {
        return -ENOMEM;
    }
    qsort(v->items, v->n, sizeof *v->items, by_name);
    for (size_t i = 0; i < v->n; i++) {
        const struct var *x = &v->items[i];
        bool last = i + 1 == v->n || !mu_bytes_eq(x->name, v->items[i + 1].name);
        if (!last || unwanted(x->name, about)) {
            continue;
        }
        if (mu_bytes_is(x->name, "OZ_TASK_PROMPT") && x->value.len > MU_WIRE_MAX_PROMPT_ENV) {
            *ret_prompt = x->value;
            continue;
        }
        if (x->name.len + 1 + x->value.len > MU_WIRE_MAX_ENV_BYTES) {
            return mu_err_set(err, MU_E_INVALID, "variable %.*s is longer than %d bytes",
                              (int)MU_MIN(x->name.len, (size_t)80), x->name.ptr,
                              MU_WIRE_MAX_ENV_BYTES);
        }
        mu_bytes pair = mu_arena_printf(v->a, "%.*s=%.*s", MU_ARGS(x->name), MU_ARGS(x->value));
        if (!pair.ptr) {
            return -ENOMEM;
        }
        list[n++] = pair.ptr;
    }
    *ret = list;
    return 0;
}

int mu_wire_env(struct mu_arena *a, const struct mu_wire_assignment *as,
                const struct mu_wire_about *about, const char *const **ret, mu_bytes *ret_prompt,
                struct mu_err *err)
{
    struct vars v = {.a = a};
    mu_bytes root = mu_str(about->server_root_url);
    add(&v, MU_B("TASK_ID"), as->task_id);
    add(&v, MU_B("GIT_TERMINAL_PROMPT"), MU_B("0"));
    add(&v, MU_B("GH_PROMPT_DISABLED"), MU_B("1"));
    if (root.len) {
        add(&v, MU_B("WARP_SERVER_ROOT_URL"), root);
    }
    add(&v, MU_B("OZ_RUN_ID"), as->task_id);
    if (as->harness.len) {
        add(&v, MU_B("OZ_HARNESS"), as->harness);
    }
    add_object(&v, as->env_vars);
    add_object(&v, as->secrets);
    add_pairs(&v, about->environment);
    /* Ours whatever was sent. */
    add(&v, MU_B("OZ_EXECUTION_ID"), mu_str(about->execution_id));
    if (about->link) {
        add(&v, MU_B("MUSTER_LINK"), mu_str(about->link));
        add(&v, MU_B("MUSTER_LINK_KEY"), mu_str(about->link_key));
        if (about->restore) {
            add(&v, MU_B("MUSTER_RESTORE"), mu_str(about->restore));
        }
    }
    if (!about->keep_token) {
        add(&v, MU_B("OZ_WORKER"), MU_B("muster")); /* the runner leaves the report to us */
    }
    if (v.r < 0) {
        return v.r == MU_E_LIMIT ? mu_err_set(err, MU_E_INVALID, "more than %d variables", MAX_VARS)
                                 : v.r;
    }
    *ret_prompt = MU_B_NONE;
    return finish(&v, about, ret, ret_prompt, err);
}

/* --- the arguments --- */

struct args {
    struct mu_arena *a;
    const char **list;
    size_t n, cap;
    int r;
};

static void push(struct args *l, mu_bytes word)
{
    mu_bytes copy = l->n + 1 < l->cap ? mu_arena_dup(l->a, word) : MU_B_NONE;
    if (!copy.ptr) {
        l->r = l->r < 0 ? l->r : -ENOMEM;
        return;
    }
    l->list[l->n++] = copy.ptr;
}

/* A flag with a value that is trimmed and left out when empty. */
static void push_text(struct args *l, const char *flag, mu_bytes value)
{
    value = mu_bytes_trim(value);
    if (value.len && !memchr(value.ptr, 0, value.len)) {
        push(l, mu_str(flag));
        push(l, value);
    }
}

static void push_number(struct args *l, const char *flag, int64_t n, const char *unit)
{
    if (n > 0) {
        mu_bytes text = mu_arena_printf(l->a, "%lld%s", (long long)n, unit);
        push(l, mu_str(flag));
        push(l, text);
    }
}

static int by_key(const void *a, const void *b)
{
    yyjson_val *const *x = a, *const *y = b;
    return mu_bytes_cmp(mu_json_bytes(*x), mu_json_bytes(*y));
}

/* Compact JSON, server names sorted, < > & escaped as Go does. */
static void push_mcp(struct args *l, yyjson_val *servers)
{
    size_t n = yyjson_obj_size(servers), i, max;
    yyjson_val *k, *v, **keys;
    struct mu_buf raw, out;
    if (n == 0 || !(keys = mu_arena_alloc(l->a, n * sizeof *keys))) {
        l->r = n ? -ENOMEM : l->r;
        return;
    }
    yyjson_obj_foreach(servers, i, max, k, v)
    {
        keys[i] = k;
    }
    qsort(keys, n, sizeof *keys, by_key);
    mu_buf_init(&raw, 1 << 20);
    mu_buf_init(&out, 2 << 20);
    mu_buf_add_char(&raw, '{');
    for (i = 0; i < n; i++) {
        mu_json_add(&raw, keys[i]);
        mu_buf_add_char(&raw, ':');
        mu_json_add(&raw, yyjson_obj_iter_get_val(keys[i]));
        mu_buf_add_char(&raw, i + 1 < n ? ',' : '}');
    }
    for (i = 0; i < raw.len; i++) {
        char c = raw.ptr[i];
        if (c == '<' || c == '>' || c == '&') {
            mu_buf_printf(&out, "\\u00%02x", (unsigned)c);
        } else {
            mu_buf_add_char(&out, c);
        }
    }
    if (raw.failed || out.failed) {
        l->r = -ENOMEM;
    } else {
        push(l, MU_B("--mcp"));
        push(l, mu_buf_bytes(&out));
    }
    mu_buf_fini(&raw);
    mu_buf_fini(&out);
}

static void push_config(struct args *l, const struct mu_wire_assignment *as, mu_bytes harness,
                        bool builtin)
{
    yyjson_val *s = as->snapshot;
    push_text(l, "--model", mu_json_get_bytes(s, "model_id"));
    push_text(l, "--profile", mu_json_get_bytes(s, "profile_id"));
    push_text(l, "--skill", mu_json_get_bytes(s, "skill_spec"));
    push_mcp(l, mu_json_get(s, "mcp_servers"));
    if (s) {
        bool on = mu_json_get_bool(s, "computer_use_enabled", builtin);
        push(l, on ? MU_B("--computer-use") : MU_B("--no-computer-use"));
    }
    yyjson_val *aws = mu_json_get(mu_json_get(s, "inference_providers"), "aws");
    mu_bytes role = mu_bytes_trim(mu_json_get_bytes(aws, "role_arn"));
    if (role.len && !mu_json_get_bool(aws, "disabled", false)) {
        push_text(l, "--bedrock-inference-role", role);
        push_text(l, "--bedrock-role-region", mu_json_get_bytes(aws, "region"));
    }
    if (!builtin) {
        push_text(l, "--harness", harness);
    }
    mu_bytes access = mu_json_get_bytes(mu_json_get(s, "session_sharing"), "public_access");
    if (mu_bytes_is(access, "VIEWER") || mu_bytes_is(access, "EDITOR")) {
        push(l, MU_B("--share"));
        push(l, mu_bytes_is(access, "VIEWER") ? MU_B("public:view") : MU_B("public:edit"));
    }
    if (mu_json_get_bool(s, "snapshot_disabled", false)) {
        push(l, MU_B("--no-snapshot"));
    }
    push_number(l, "--snapshot-upload-timeout",
                mu_json_get_i64(s, "snapshot_upload_timeout_secs", 0), "s");
    push_number(l, "--snapshot-script-timeout",
                mu_json_get_i64(s, "snapshot_script_timeout_secs", 0), "s");
    push_text(l, "--environment", mu_json_get_bytes(s, "environment_id"));
}

int mu_wire_argv(struct mu_arena *a, const struct mu_wire_assignment *as,
                 const struct mu_wire_about *about, const char *const **ret)
{
    size_t more = as->args ? yyjson_arr_size(as->args) : 0;
    struct args l = {.a = a, .cap = 64 + more};
    l.list = mu_arena_calloc(a, l.cap * sizeof *l.list);
    if (!l.list) {
        return -ENOMEM;
    }
    mu_bytes harness =
        mu_bytes_trim(mu_json_get_bytes(mu_json_get(as->snapshot, "harness"), "type"));
    harness = harness.len ? harness : as->harness;
    bool builtin = harness.len == 0 || mu_bytes_is(harness, "oz");
    push(&l, MU_B("agent"));
    push(&l, MU_B("run"));
    if (as->team) {
        push_text(&l, "--share", MU_B("team:edit"));
    }
    push_text(&l, "--task-id", as->task_id);
    push(&l, MU_B("--sandboxed"));
    push_text(&l, "--server-root-url", mu_str(about->server_root_url));
    push_config(&l, as, harness, builtin);
    size_t i, n;
    yyjson_val *v;
    if (as->args) {
        yyjson_arr_foreach(as->args, i, n, v)
        {
            push(&l, mu_json_bytes(v));
        }
    }
    push(&l, MU_B("--idle-on-complete"));
    int64_t minutes = mu_json_get_i64(as->snapshot, "idle_timeout_minutes", 0);
    if (minutes > 0) {
        push(&l, mu_arena_printf(a, "%lldm", (long long)minutes));
    } else if (about->idle_on_complete) {
        push(&l, mu_str(about->idle_on_complete));
    }
    push_text(&l, "--session-sharing-server-url", mu_str(about->session_sharing_url));
    *ret = l.list;
    return l.r;
}
