/* /environments (oz-api.md 4.7-4.9, 15.6). */
#include <errno.h>
#include <stdio.h>

#include "app/environments/sandbox.h"
#include "face/oz/oz_int.h"

enum { MAX_LIST = 200 };

/* --- the environment object --- */

static void add_vars(struct mu_json_w *w, const struct mu_env_var *vars, size_t n, bool values)
{
    mu_jw_key(w, "env_vars");
    mu_jw_obj(w);
    for (size_t i = 0; i < n; i++) {
        char key[256];
        snprintf(key, sizeof key, "%.*s", MU_ARGS(vars[i].name));
        mu_jw_kstr(w, key, values ? vars[i].value : MU_B("<redacted>"));
    }
    mu_jw_obj_end(w);
}

static void add_environment(struct mu_json_w *w, const struct mu_env_view *v)
{
    struct mu_arena a;
    mu_arena_init(&a, 32 << 20);
    static const struct mu_json_limits limits = {.max_bytes = 2 << 20, .max_depth = 16};
    yyjson_val *spec = NULL;
    if (mu_json_read(&a, v->spec, &limits, &spec, NULL) < 0) {
        w->buf->failed = -ENOMEM;
    }
    char id[64];
    snprintf(id, sizeof id, "env_%.*s", MU_ARGS(v->id));
    mu_jw_kcstr(w, "environment_id", id);
    mu_jw_kcstr(w, "id", id);
    mu_jw_kstr(w, "name", v->name);
    mu_jw_kstr(w, "docker_image", v->image);
    static const char *const lists[] = {"repos", "setup_commands", "secrets"};
    for (size_t i = 0; i < MU_ARRAY_LEN(lists); i++) {
        yyjson_val *list = mu_json_get(spec, lists[i]);
        mu_jw_key(w, lists[i]);
        if (list) {
            mu_json_add(w->buf, list);
            w->comma = true;
        } else {
            mu_jw_raw(w, MU_B("[]"));
        }
    }
    mu_env_sandbox_write(w, "sandbox", mu_json_get(spec, "sandbox"));
    add_vars(w, v->vars, v->n_vars, v->values_shown);
    mu_jw_kcstr(w, "scope", v->org_id.ptr ? "OWNER" : "GLOBAL");
    mu_jw_ktime(w, "created_at", v->created_ms);
    mu_jw_ktime(w, "updated_at", v->updated_ms);
    mu_arena_fini(&a);
}

/* --- create, replace --- */

struct writing {
    struct mu_call *c;
    struct mu_env_write op;
    struct mu_env_var vars[MU_ENV_VARS_MAX];
    struct mu_buf spec;
    bool replace;
};

static void written(struct mu_env_write *op, int result)
{
    struct writing *x = op->ctx;
    struct mu_call *c = x->c;
    mu_bytes spec = mu_arena_dup(mu_call_arena(c), mu_buf_bytes(&x->spec));
    mu_buf_fini(&x->spec);
    if (result == MU_E_INVALID && op->missing.ptr) {
        char field[300];
        snprintf(field, sizeof field, "env_vars.%.*s", MU_ARGS(op->missing));
        mu_call_error(c, 400, "invalid_field", field,
                      "%s: there is no stored value to keep for \"<redacted>\"", field);
        return;
    }
    if (result == MU_E_CONFLICT) {
        mu_call_error(c, 400, "invalid_field", "env_vars",
                      "a global environment may not carry env_vars");
        return;
    }
    if (result < 0 || !spec.ptr) {
        mu_call_fail(c, result < 0 ? result : -ENOMEM);
        return;
    }
    struct mu_env_view v = {.id = mu_id_bytes(&op->id),
                            .org_id = op->is_global ? MU_B_NONE : mu_str(op->who->org_id),
                            .name = op->name,
                            .image = op->image,
                            .spec = spec,
                            .created_ms = op->created_ms,
                            .updated_ms = op->updated_ms,
                            .vars = op->vars,
                            .n_vars = op->n_vars};
    struct mu_json_w w = mu_json_w(mu_call_buf(c));
    mu_jw_obj(&w);
    add_environment(&w, &v);
    mu_call_send_object(c, &w);
}

static bool var_name_ok(mu_bytes name)
{
    for (size_t i = 0; i < name.len; i++) {
        char ch = name.ptr[i];
        bool letter = (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') || ch == '_';
        if (!letter && !(i > 0 && ch >= '0' && ch <= '9')) {
            return false;
        }
    }
    return name.len > 0 && name.len <= 200;
}

/* false: answered. */
static bool take_vars(struct writing *x, yyjson_val *vars)
{
    struct mu_call *c = x->c;
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach(vars, i, n, key, value)
    {
        mu_bytes name = mu_json_bytes(key), text = mu_json_bytes(value);
        char field[300];
        snprintf(field, sizeof field, "env_vars.%.*s", (int)MU_MIN(name.len, (size_t)200),
                 name.ptr ? name.ptr : "");
        if (!var_name_ok(name)) {
            mu_call_error(c, 400, "invalid_field", field,
                          "%s: a variable's name must match [A-Za-z_][A-Za-z0-9_]* and have at "
                          "most 200 characters",
                          field);
            return false;
        }
        if (memchr(text.ptr ? text.ptr : "", 0, text.len)) {
            mu_call_error(c, 400, "invalid_field", field, "%s must not contain NUL", field);
            return false;
        }
        bool keep = mu_bytes_is(text, "<redacted>");
        if (keep && !x->replace) {
            mu_call_error(c, 400, "invalid_field", field,
                          "%s: there is no stored value to keep for \"<redacted>\"", field);
            return false;
        }
        x->vars[x->op.n_vars++] = (struct mu_env_var){name, text, keep};
    }
    return true;
}

/* A list given as an array or as newline-separated text: trimmed, blanks dropped. */
static void add_list(struct mu_json_w *w, const char *key, yyjson_val *v)
{
    mu_jw_key(w, key);
    mu_jw_arr(w);
    if (v && yyjson_is_arr(v)) {
        size_t i, n;
        yyjson_val *item;
        yyjson_arr_foreach(v, i, n, item)
        {
            mu_bytes text = mu_bytes_trim(mu_json_bytes(item));
            if (text.len) {
                mu_jw_str(w, text);
            }
        }
    } else {
        mu_bytes rest = mu_json_bytes(v);
        while (rest.ptr) {
            mu_bytes text = mu_bytes_trim(mu_bytes_split(&rest, '\n'));
            if (text.len) {
                mu_jw_str(w, text);
            }
        }
    }
    mu_jw_arr_end(w);
}

/* false: answered. */
static bool sandbox_ok(struct mu_call *c, yyjson_val *sandbox)
{
    bool admin = mu_call_principal(c)->admin;
    const struct mu_oz *oz = mu_oz(c);
    const struct mu_env_rights rights = {.host_network = admin || oz->tenant_host_network,
                                         .nested = admin || oz->tenant_nested};
    char field[64] = "sandbox";
    struct mu_err err;
    int r = mu_env_sandbox_check(sandbox, &rights, field, sizeof field, &err);
    if (r < 0) {
        mu_call_error(c, r == MU_E_FORBIDDEN ? 403 : 400,
                      r == MU_E_FORBIDDEN ? "forbidden" : "invalid_field", field, "%s", err.text);
    }
    return r == 0;
}

static void write_spec(struct mu_buf *dst, yyjson_val *body)
{
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    add_list(&w, "repos", mu_json_get(body, "repos"));
    add_list(&w, "setup_commands", mu_json_get(body, "setup_commands"));
    mu_env_sandbox_write(&w, "sandbox", mu_json_get(body, "sandbox"));
    mu_jw_obj_end(&w);
}

static void write_environment(struct mu_call *c, bool replace)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_oz *oz = mu_oz(c);
    yyjson_val *body = mu_call_body(c);
    struct writing *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->replace = replace;
    if (replace && mu_id_parse(mu_call_param(c, "id"), "env_", &x->op.id) < 0) {
        mu_call_fail(c, MU_E_NOT_FOUND);
        return;
    }
    x->op.name = mu_bytes_trim(mu_json_get_bytes(body, "name"));
    x->op.image = mu_bytes_trim(mu_json_get_bytes(body, "docker_image"));
    x->op.global = p->admin && !replace &&
                   (mu_json_get_bool(body, "global", false) ||
                    mu_bytes_eq_nocase(mu_json_get_bytes(body, "scope"), MU_B("GLOBAL")));
    if (!mu_oz_image_allowed(oz, x->op.image)) {
        mu_call_error(
            c, 400, "invalid_field", "docker_image",
            "docker_image: this image is not on the operator's list (OZ_IMAGE_ALLOWLIST)");
        return;
    }
    yyjson_val *secrets = mu_json_get(body, "secrets");
    if (secrets && yyjson_is_arr(secrets) && yyjson_arr_size(secrets) > 0) {
        mu_call_error(c, 400, "invalid_field", "secrets",
                      "secrets: stored secrets are not available in this version");
        return;
    }
    if (!sandbox_ok(c, mu_json_get(body, "sandbox")) ||
        !take_vars(x, mu_json_get(body, "env_vars"))) {
        return;
    }
    if (x->op.global && x->op.n_vars) {
        mu_call_error(c, 400, "invalid_field", "env_vars",
                      "a global environment may not carry env_vars");
        return;
    }
    mu_buf_init(&x->spec, 2 << 20);
    write_spec(&x->spec, body);
    x->op.spec = mu_buf_bytes(&x->spec);
    x->op.unit.loop = mu_call_loop(c);
    x->op.who = p;
    x->op.vars = x->vars;
    x->op.arena = mu_call_arena(c);
    x->op.done = written;
    x->op.ctx = x;
    int r = x->spec.failed ? x->spec.failed
            : replace      ? mu_environment_replace(oz->environments, &x->op)
                           : mu_environment_create(oz->environments, &x->op);
    if (r < 0) {
        mu_buf_fini(&x->spec);
        mu_call_fail(c, r);
    }
}

static void create_environment(struct mu_call *c)
{
    write_environment(c, false);
}

static void replace_environment(struct mu_call *c)
{
    write_environment(c, true);
}

static void removed(struct mu_env_write *op, int result)
{
    struct writing *x = op->ctx;
    if (result < 0) {
        mu_call_fail(x->c, result);
        return;
    }
    mu_call_success(x->c);
}

static void delete_environment(struct mu_call *c)
{
    struct writing *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->op = (struct mu_env_write){.unit = {.loop = mu_call_loop(c)},
                                  .who = mu_call_principal(c),
                                  .arena = mu_call_arena(c),
                                  .done = removed,
                                  .ctx = x};
    int r = mu_id_parse(mu_call_param(c, "id"), "env_", &x->op.id) < 0
                ? MU_E_NOT_FOUND
                : mu_environment_delete(mu_oz(c)->environments, &x->op);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- get, list --- */

struct reading {
    struct mu_call *c;
    struct mu_env_read op;
    struct mu_json_w w;
};

static int add_row(void *arg, const struct mu_env_view *v)
{
    struct reading *x = arg;
    mu_jw_obj(&x->w);
    add_environment(&x->w, v);
    if (x->op.list) {
        mu_jw_obj_end(&x->w);
    }
    return x->w.buf->failed ? x->w.buf->failed : x->op.list && x->w.buf->len > MU_OZ_PAGE_BYTES;
}

static void got(struct mu_env_read *op, int result)
{
    struct reading *x = op->ctx;
    if (result < 0) {
        mu_call_fail(x->c, result);
        return;
    }
    mu_call_send_object(x->c, &x->w);
}

static void listed(struct mu_env_read *op, int result)
{
    struct reading *x = op->ctx;
    if (result < 0) {
        mu_call_fail(x->c, result);
        return;
    }
    mu_jw_arr_end(&x->w);
    mu_oz_repeat(&x->w, sizeof "{\"items\":" - 1, "environments");
    if (op->more) {
        char next[64];
        snprintf(next, sizeof next, "env_%s", op->next);
        mu_jw_kcstr(&x->w, "next_cursor", next);
    } else {
        mu_jw_knull(&x->w, "next_cursor");
    }
    mu_call_send_object(x->c, &x->w);
}

static void read_environments(struct mu_call *c, bool list)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct reading *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->w = mu_json_w(mu_call_buf(c));
    x->op = (struct mu_env_read){.read = {.loop = mu_call_loop(c)},
                                 .admin = p->admin,
                                 .org_id = mu_str(p->org_id),
                                 .list = list,
                                 .each = add_row,
                                 .arg = x,
                                 .done = list ? listed : got,
                                 .ctx = x};
    if (list) {
        if (!mu_oz_limit(c, &x->op.limit) || !mu_oz_cursor(c, "env_", &x->op.cursor)) {
            return;
        }
        if (!mu_call_query(c, "limit", 0).ptr) {
            x->op.limit = MAX_LIST; /* as the reference: up to 200 without being asked */
        }
        mu_jw_obj(&x->w);
        mu_jw_key(&x->w, "items");
        mu_jw_arr(&x->w);
    } else if (mu_id_parse(mu_call_param(c, "id"), "env_", &x->op.id) < 0) {
        mu_call_fail(c, MU_E_NOT_FOUND);
        return;
    }
    int r = mu_environment_read(mu_oz(c)->environments, &x->op);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

static void get_environment(struct mu_call *c)
{
    read_environments(c, false);
}

static void list_environments(struct mu_call *c)
{
    read_environments(c, true);
}

/* --- schemas and routes --- */

static const struct mu_schema allow_entry = {.type = MU_S_STRING, .max = MU_ENV_ALLOW_TEXT};
static const struct mu_schema network[] = {
    {.name = "mode",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE,
     .words = "proxy none host",
     .doc = "proxy: listed hosts only; none: no way out; host: the worker's own network (right "
            "sandbox.host_network)."},
    {.name = "allow",
     .type = MU_S_ARRAY,
     .flags = MU_S_NULLABLE,
     .max = MU_ENV_ALLOW_MAX,
     .items = &allow_entry,
     .doc = "host:port pairs besides the worker's own list; *.example.org:443 covers names below."},
    {0}};
static const struct mu_schema limits[] = {
    {.name = "memory_mb",
     .type = MU_S_INT,
     .flags = MU_S_NULLABLE,
     .min = 16,
     .max = 16777216,
     .doc = "Memory, MiB."},
    {.name = "cpus",
     .type = MU_S_NUMBER,
     .flags = MU_S_NULLABLE,
     .min = 0,
     .max = 4096,
     .doc = "Processors, also parts of one; 0 = as the worker gives."},
    {.name = "pids",
     .type = MU_S_INT,
     .flags = MU_S_NULLABLE,
     .min = 16,
     .max = 4194304,
     .doc = "Processes and threads."},
    {.name = "disk_mb",
     .type = MU_S_INT,
     .flags = MU_S_NULLABLE,
     .min = 16,
     .max = 16777216,
     .doc = "What a run may write, MiB."},
    {.name = "timeout_seconds",
     .type = MU_S_INT,
     .flags = MU_S_NULLABLE,
     .min = 1,
     .max = 2592000,
     .doc = "A run that takes longer is stopped and has failed."},
    {0}};
static const struct mu_schema sandbox[] = {
    {.name = "network",
     .type = MU_S_OBJECT,
     .flags = MU_S_NULLABLE | MU_S_CLOSED,
     .items = network,
     .doc = "What its runs may reach."},
    {.name = "nested",
     .type = MU_S_BOOL,
     .flags = MU_S_NULLABLE,
     .doc = "User namespaces inside, for sandboxes of the agent's own (right sandbox.nested)."},
    {.name = "root",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE,
     .words = "fake",
     .doc = "fake: the agent is user 0 in there, without more rights outside."},
    {.name = "limits",
     .type = MU_S_OBJECT,
     .flags = MU_S_NULLABLE | MU_S_CLOSED,
     .items = limits,
     .doc = "Each at most what the worker gives."},
    {0}};
static const struct mu_schema var_value = {.type = MU_S_STRING, .max = 65536};
static const struct mu_schema body[] = {
    {.name = "name",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED | MU_S_NOT_BLANK | MU_S_NO_NUL,
     .max = 200,
     .doc = "Name for people."},
    {.name = "docker_image",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED | MU_S_NOT_BLANK | MU_S_NO_NUL,
     .max = 500,
     .doc = "Image to run in."},
    {.name = "repos",
     .type = MU_S_STRING_OR_LIST,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 100,
     .doc = "owner/name or git URLs to clone."},
    {.name = "setup_commands",
     .type = MU_S_STRING_OR_LIST,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 100,
     .doc = "Commands run before the agent."},
    {.name = "env_vars",
     .type = MU_S_MAP,
     .flags = MU_S_NULLABLE,
     .max = MU_ENV_VARS_MAX,
     .items = &var_value,
     .doc = "Variables, encrypted at rest; a value <redacted> keeps the stored one (PUT)."},
    {.name = "sandbox",
     .type = MU_S_OBJECT,
     .flags = MU_S_NULLABLE | MU_S_CLOSED,
     .items = sandbox,
     .doc = "What its runs need of a sandbox; only workers that can give it take them."},
    {.name = "secrets",
     .type = MU_S_ARRAY,
     .flags = MU_S_NULLABLE,
     .max = 100,
     .items = &var_value,
     .doc = "Names of stored secrets; none exist in this version."},
    {.name = "global",
     .type = MU_S_BOOL,
     .flags = MU_S_NULLABLE,
     .doc = "Admin: visible to every tenant."},
    {.name = "scope",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE,
     .max = 20,
     .doc = "Admin: GLOBAL is the same as global: true."},
    {0}};
static const struct mu_schema list_query[] = {
    {.name = "limit", .type = MU_S_INT, .doc = "Entries per page, 200; clamped to 1..200."},
    {.name = "cursor",
     .type = MU_S_STRING,
     .doc = "Id of an environment: the page begins after it."},
    {0}};

const struct mu_route mu_oz_environment_routes[] = {
    {.method = MU_HTTP_POST,
     .path = "/api/v1/environments",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .max_body = 1000000,
     .body = body,
     .handler = create_environment,
     .id = "createEnvironment",
     .summary = "Create an environment.",
     .response = "Environment",
     .errors = "403 503"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/environments",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .query = list_query,
     .handler = list_environments,
     .id = "listEnvironments",
     .summary = "Own and global environments, latest change first.",
     .response = "EnvironmentList",
     .errors = "503"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/environments/{id}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = get_environment,
     .id = "getEnvironment",
     .summary = "One environment; values are shown to its owner.",
     .response = "Environment",
     .errors = "404 503"},
    {.method = MU_HTTP_PUT,
     .path = "/api/v1/environments/{id}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .max_body = 1000000,
     .body = body,
     .handler = replace_environment,
     .id = "replaceEnvironment",
     .summary = "Replace an environment whole.",
     .response = "Environment",
     .errors = "403 404 503"},
    {.method = MU_HTTP_DELETE,
     .path = "/api/v1/environments/{id}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = delete_environment,
     .id = "deleteEnvironment",
     .summary = "Delete an environment; runs keep what they began with.",
     .response = "Success",
     .errors = "404 503"},
    {.path = NULL}};
