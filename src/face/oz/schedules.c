/* /agent/schedules (oz-api.md 15.5). */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/oz/oz_int.h"

/* --- the item --- */

/* A list has all of them on one page: what is long is cut there (`prompt`) or left out
 * (`agent_config`), and whole in the single get. */
enum { LIST_TEXT = 4096 };

static void add_person(struct mu_json_w *w, const char *key, mu_bytes uid)
{
    mu_jw_key(w, key);
    mu_jw_obj(w);
    mu_jw_kstr(w, "uid", uid);
    mu_jw_kcstr(w, "type", "service_account");
    mu_jw_obj_end(w);
}

/* "owner/name" or a URL that ends so; false for anything else. */
static bool owner_and_repo(mu_bytes text, mu_bytes *ret_owner, mu_bytes *ret_repo)
{
    text = mu_bytes_trim(text);
    if (mu_bytes_ends(text, MU_B(".git"))) {
        text.len -= 4;
    }
    mu_bytes parts[2] = {MU_B_NONE, MU_B_NONE}; /* the last two */
    for (mu_bytes rest = text; rest.ptr;) {
        mu_bytes part = mu_bytes_split(&rest, '/');
        ptrdiff_t colon = mu_bytes_find_char(part, ':'); /* git@host:owner/name */
        part = colon >= 0 ? mu_bytes_from(part, (size_t)colon + 1) : part;
        parts[0] = parts[1];
        parts[1] = part;
    }
    *ret_owner = parts[0];
    *ret_repo = parts[1];
    return parts[0].len && parts[1].len;
}

static void add_repos(struct mu_json_w *w, yyjson_val *repos)
{
    size_t i, n;
    yyjson_val *item;
    mu_jw_key(w, "github_repos");
    mu_jw_arr(w);
    yyjson_arr_foreach(repos, i, n, item)
    {
        mu_bytes owner, repo;
        if (owner_and_repo(mu_json_bytes(item), &owner, &repo)) {
            mu_jw_obj(w);
            mu_jw_kstr(w, "owner", owner);
            mu_jw_kstr(w, "repo", repo);
            mu_jw_obj_end(w);
        }
    }
    mu_jw_arr_end(w);
}

static void add_environment(struct mu_json_w *w, struct mu_arena *a,
                            const struct mu_schedule_view *v)
{
    static const struct mu_json_limits limits = {.max_bytes = 2 << 20, .max_depth = 16};
    yyjson_val *spec = NULL;
    if (!v->env_image.ptr) {
        return;
    }
    mu_jw_key(w, "environment");
    mu_jw_obj(w);
    if (v->env_spec.ptr) {
        int r = mu_json_read(a, v->env_spec, &limits, &spec, NULL);
        w->buf->failed = r < 0 && !w->buf->failed ? r : w->buf->failed;
        mu_jw_kstr(w, "name", v->env_name);
    }
    mu_jw_kstr(w, "docker_image", v->env_image);
    if (spec) {
        add_repos(w, mu_json_get(spec, "repos"));
        yyjson_val *commands = mu_json_get(spec, "setup_commands");
        mu_jw_key(w, "setup_commands");
        if (commands) {
            mu_json_add(w->buf, commands);
            w->comma = true;
        } else {
            mu_jw_raw(w, MU_B("[]"));
        }
    }
    mu_jw_obj_end(w);
}

static void add_item(struct mu_json_w *w, const struct mu_schedule_view *v, bool full)
{
    struct mu_arena a;
    mu_arena_init(&a, 128 << 20);
    static const struct mu_json_limits limits = {.max_bytes = 2 << 20, .max_depth = 80};
    yyjson_val *spec = NULL;
    int r = mu_json_read(&a, v->spec, &limits, &spec, NULL);
    if (r < 0 && !w->buf->failed) {
        w->buf->failed = r;
    }
    mu_bytes prompt = mu_json_get_bytes(spec, "prompt");
    bool cut = !full && prompt.len > LIST_TEXT;
    mu_jw_obj(w);
    mu_jw_kstr(w, "id", v->id);
    mu_jw_kstr(w, "name", v->name);
    mu_jw_kstr(w, "prompt", cut ? mu_utf8_cut(prompt, LIST_TEXT) : prompt);
    if (cut) {
        mu_jw_kbool(w, "prompt_truncated", true);
    }
    mu_jw_kstr(w, "cron_schedule", v->cron);
    mu_jw_kbool(w, "enabled", v->enabled);
    mu_jw_ktime(w, "created_at", v->created_ms);
    mu_jw_ktime(w, "updated_at", v->updated_ms);
    yyjson_val *config = mu_json_get(spec, "agent_config");
    if (config && (full || v->spec.len - prompt.len <= 2 * LIST_TEXT)) {
        mu_jw_key(w, "agent_config");
        mu_json_add(w->buf, config);
        w->comma = true;
    }
    add_environment(w, &a, v);
    mu_jw_key(w, "history");
    mu_jw_obj(w);
    mu_jw_ktime_opt(w, "last_ran", v->last_ms);
    mu_jw_ktime_opt(w, "next_run", v->next_ms);
    mu_jw_obj_end(w);
    mu_jw_kstr_opt(w, "last_spawn_error", v->last_error);
    mu_jw_key(w, "scope");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "type", "User");
    mu_bytes uid = v->creator.len ? v->creator : v->org_id;
    mu_jw_kstr(w, "uid", uid);
    mu_jw_obj_end(w);
    add_person(w, "created_by", uid);
    mu_arena_fini(&a);
}

/* --- writing --- */

struct writing {
    struct mu_call *c;
    struct mu_schedule_write op;
    struct mu_buf spec;
};

static int take_row(void *arg, const struct mu_schedule_view *v)
{
    struct writing *x = arg;
    struct mu_buf *b = mu_call_buf(x->c);
    mu_buf_clear(b); /* a unit may run twice */
    struct mu_json_w w = mu_json_w(b);
    add_item(&w, v, true);
    mu_jw_kstr(&w, "request_id", mu_call_request_id(x->c));
    mu_jw_obj_end(&w);
    return b->failed;
}

static void written(struct mu_schedule_write *op, int result)
{
    struct writing *x = op->ctx;
    mu_buf_fini(&x->spec);
    if (result == MU_E_LIMIT) {
        mu_call_error(x->c, 422, "invalid_field", "name",
                      "name: this tenant has %d schedules already; delete one first", MU_SCHED_MAX);
        return;
    }
    if (result < 0) {
        mu_call_fail(x->c, result);
        return;
    }
    if (op->what == MU_SCHED_DELETE) {
        mu_call_success(x->c);
    } else {
        mu_call_send(x->c, 200);
    }
}

/* What is no environment's id must be an image that may be used (oz-api.md 16.5); whether the
 * environment exists is a matter of each firing. false: answered. */
static bool take_environment(struct mu_call *c, mu_bytes id)
{
    const struct mu_oz *oz = mu_oz(c);
    const char *field = "agent_config.environment_id";
    struct mu_id parsed;
    if (!id.len || mu_id_parse(id, "env_", &parsed) == 0) {
        return true;
    }
    if (!oz->allow_raw_env_image || mu_bytes_starts(id, MU_B("env_"))) {
        mu_call_error(c, 400, "invalid_field", field, "%s is not the id of an environment", field);
        return false;
    }
    if (!mu_oz_image_allowed(oz, id)) {
        mu_call_error(c, 400, "invalid_field", field,
                      "%s: this image is not on the operator's list (OZ_IMAGE_ALLOWLIST)", field);
        return false;
    }
    return true;
}

/* false: answered. */
static bool take_body(struct writing *x)
{
    struct mu_call *c = x->c;
    yyjson_val *body = mu_call_body(c), *config = mu_json_get(body, "agent_config");
    struct mu_err err = {0};
    config = config && yyjson_is_null(config) ? NULL : config;
    x->op.name = mu_bytes_trim(mu_json_get_bytes(body, "name"));
    x->op.cron_text = mu_bytes_trim(mu_json_get_bytes(body, "cron_schedule"));
    x->op.enabled = mu_json_get_bool(body, "enabled", true);
    if (mu_cron_parse(x->op.cron_text, &x->op.cron, &err) < 0) {
        mu_call_error(c, 400, "invalid_field", "cron_schedule", "cron_schedule: %s", err.text);
        return false;
    }
    int64_t next;
    if (mu_cron_next(&x->op.cron, mu_env_wall_ms(mu_oz(c)->env), &next) < 0) {
        mu_call_error(c, 400, "invalid_field", "cron_schedule",
                      "cron_schedule: no day in the calendar matches it");
        return false;
    }
    if (mu_json_get_bool(body, "team", false)) {
        mu_call_error(c, 400, "invalid_field", "team",
                      "team: this server has no teams; leave it out or send false");
        return false;
    }
    mu_bytes environment = mu_bytes_trim(mu_json_get_bytes(config, "environment_id"));
    if (!take_environment(c, environment)) {
        return false;
    }
    struct mu_run_request rq = {.prompt = mu_json_get_bytes(body, "prompt"),
                                .config = config,
                                .environment_id = environment};
    const char *field = NULL, *refused = mu_run_request_refuse(&rq, &field);
    if (refused) {
        char path[80];
        mu_bytes name = mu_bytes_from(mu_str(field), sizeof "config." - 1);
        snprintf(path, sizeof path, "agent_config.%.*s", MU_ARGS(name));
        mu_call_error(c, 400, "invalid_field", path, "%s: %s", path, refused);
        return false;
    }
    struct mu_json_w w = mu_json_w(&x->spec);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "prompt", rq.prompt);
    if (config) {
        mu_jw_key(&w, "agent_config");
        mu_json_add(w.buf, config);
    }
    w.comma = true;
    mu_jw_obj_end(&w);
    x->op.spec = mu_buf_bytes(&x->spec);
    if (x->spec.failed) {
        int r = x->spec.failed;
        mu_buf_fini(&x->spec); /* an answer ends the call, and with it this struct */
        mu_call_fail(c, r);
        return false;
    }
    return true;
}

static void write_schedule(struct mu_call *c, enum mu_schedule_what what)
{
    struct writing *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->op = (struct mu_schedule_write){.unit = {.loop = mu_call_loop(c)},
                                       .what = what,
                                       .who = mu_call_principal(c),
                                       .each = take_row,
                                       .arg = x,
                                       .done = written,
                                       .ctx = x};
    if (what != MU_SCHED_CREATE && mu_id_parse(mu_call_param(c, "id"), NULL, &x->op.id) < 0) {
        mu_call_fail(c, MU_E_NOT_FOUND);
        return;
    }
    mu_buf_init(&x->spec, 2 << 20);
    if ((what == MU_SCHED_CREATE || what == MU_SCHED_REPLACE) && !take_body(x)) {
        return;
    }
    int r = mu_schedule_write(mu_oz(c)->schedules, &x->op);
    if (r < 0) {
        mu_buf_fini(&x->spec);
        mu_call_fail(c, r);
    }
}

static void create_schedule(struct mu_call *c)
{
    write_schedule(c, MU_SCHED_CREATE);
}
static void replace_schedule(struct mu_call *c)
{
    write_schedule(c, MU_SCHED_REPLACE);
}
static void pause_schedule(struct mu_call *c)
{
    write_schedule(c, MU_SCHED_PAUSE);
}
static void resume_schedule(struct mu_call *c)
{
    write_schedule(c, MU_SCHED_RESUME);
}
static void delete_schedule(struct mu_call *c)
{
    write_schedule(c, MU_SCHED_DELETE);
}

/* --- reading --- */

struct reading {
    struct mu_call *c;
    struct mu_schedule_read op;
    struct mu_json_w w;
};

static int add_row(void *arg, const struct mu_schedule_view *v)
{
    struct reading *x = arg;
    add_item(&x->w, v, x->op.id.text[0] != 0);
    if (!x->op.id.text[0]) {
        mu_jw_obj_end(&x->w);
    }
    return x->w.buf->failed;
}

static void was_read(struct mu_schedule_read *op, int result)
{
    struct reading *x = op->ctx;
    if (result < 0) {
        mu_call_fail(x->c, result);
        return;
    }
    if (!op->id.text[0]) {
        mu_jw_arr_end(&x->w);
    }
    mu_call_send_object(x->c, &x->w);
}

static void read_schedules(struct mu_call *c, bool list)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct reading *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->w = mu_json_w(mu_call_buf(c));
    x->op = (struct mu_schedule_read){.read = {.loop = mu_call_loop(c)},
                                      .admin = p->admin,
                                      .org_id = mu_str(p->org_id),
                                      .each = add_row,
                                      .arg = x,
                                      .done = was_read,
                                      .ctx = x};
    if (list) {
        mu_jw_obj(&x->w);
        mu_jw_key(&x->w, "schedules");
        mu_jw_arr(&x->w);
    } else if (mu_id_parse(mu_call_param(c, "id"), NULL, &x->op.id) < 0) {
        mu_call_fail(c, MU_E_NOT_FOUND);
        return;
    }
    int r = mu_schedule_read(mu_oz(c)->schedules, &x->op);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

static void get_schedule(struct mu_call *c)
{
    read_schedules(c, false);
}
static void list_schedules(struct mu_call *c)
{
    read_schedules(c, true);
}

/* --- schemas and routes --- */

#define FIELDS(enabled_flags)                                                                      \
    {.name = "cron_schedule",                                                                      \
     .type = MU_S_STRING,                                                                          \
     .flags = MU_S_REQUIRED | MU_S_NOT_BLANK,                                                      \
     .max = 200,                                                                                   \
     .doc = "Five fields, in UTC."},                                                               \
        {.name = "name",                                                                           \
         .type = MU_S_STRING,                                                                      \
         .flags = MU_S_REQUIRED | MU_S_NOT_BLANK | MU_S_NO_NUL,                                    \
         .max = 200,                                                                               \
         .doc = "Need not be unique."},                                                            \
        {.name = "prompt",                                                                         \
         .type = MU_S_STRING,                                                                      \
         .flags = MU_S_REQUIRED | MU_S_NOT_BLANK | MU_S_NO_NUL,                                    \
         .max = 1000000,                                                                           \
         .doc = "What each run is asked."},                                                        \
        {.name = "enabled",                                                                        \
         .type = MU_S_BOOL,                                                                        \
         .flags = (enabled_flags),                                                                 \
         .doc = "Whether it fires."},                                                              \
        {.name = "agent_config",                                                                   \
         .type = MU_S_OBJECT,                                                                      \
         .flags = MU_S_NULLABLE,                                                                   \
         .items = mu_oz_config_members,                                                            \
         .doc = "As config of a run."},                                                            \
        {.name = "team",                                                                           \
         .type = MU_S_BOOL,                                                                        \
         .flags = MU_S_NULLABLE,                                                                   \
         .doc = "Only false: this server has no teams."},                                          \
    {                                                                                              \
        0                                                                                          \
    }

static const struct mu_schema create_body[] = {FIELDS(MU_S_NULLABLE)};
static const struct mu_schema replace_body[] = {FIELDS(MU_S_REQUIRED)};

#define ITEM(m, p, fn, opid, text, resp)                                                           \
    {                                                                                              \
        .method = m, .path = "/api/v1/agent/schedules/{id}" p, .face = MU_FACE_OZ,                 \
        .auth = MU_AUTH_TENANT, .handler = fn, .id = opid, .summary = text, .response = resp,      \
        .errors = "404 503"                                                                        \
    }
const struct mu_route mu_oz_schedule_routes[] = {
    {.method = MU_HTTP_POST,
     .path = "/api/v1/agent/schedules",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .max_body = 1000000,
     .body = create_body,
     .handler = create_schedule,
     .id = "createSchedule",
     .summary = "Create a schedule.",
     .response = "Schedule",
     .errors = "422 503"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/agent/schedules",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = list_schedules,
     .id = "listSchedules",
     .summary = "All schedules, by name.",
     .response = "ScheduleList",
     .errors = "503"},
    ITEM(MU_HTTP_GET, "", get_schedule, "getSchedule", "One schedule.", "Schedule"),
    {.method = MU_HTTP_PUT,
     .path = "/api/v1/agent/schedules/{id}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .max_body = 1000000,
     .body = replace_body,
     .handler = replace_schedule,
     .id = "replaceSchedule",
     .summary = "Replace a schedule.",
     .response = "Schedule",
     .errors = "404 503"},
    ITEM(MU_HTTP_DELETE, "", delete_schedule, "deleteSchedule", "Delete a schedule; its runs stay.",
         "Success"),
    ITEM(MU_HTTP_POST, "/pause", pause_schedule, "pauseSchedule", "Stop it from firing.",
         "Schedule"),
    ITEM(MU_HTTP_POST, "/resume", resume_schedule, "resumeSchedule", "Let it fire again.",
         "Schedule"),
    {.path = NULL}};
