/* The run routes: table, list, cancel, delete. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "face/oz/oz_int.h"

/* --- small parsers shared by the face --- */

bool mu_oz_run_id(struct mu_call *c, struct mu_id *ret)
{
    if (mu_id_parse(mu_call_param(c, "runID"), "run_", ret) < 0) {
        mu_call_error(c, 404, "not_found", NULL, "Not found");
        return false;
    }
    mu_call_note(c, "run_id", mu_call_param(c, "runID"));
    return true;
}

bool mu_oz_limit(struct mu_call *c, unsigned *ret)
{
    mu_bytes text = mu_call_query(c, "limit", 0);
    int64_t n = 50;
    if (text.ptr && mu_bytes_i64(text, &n) < 0) {
        mu_call_error(c, 400, "invalid_field", "limit", "limit must be an integer");
        return false;
    }
    *ret = (unsigned)(n < 1 ? 1 : n > MU_LIST_MAX ? MU_LIST_MAX : n);
    return true;
}

bool mu_oz_cursor(struct mu_call *c, const char *prefix, struct mu_id *ret)
{
    mu_bytes text = mu_call_query(c, "cursor", 0);
    ret->text[0] = 0;
    if (text.ptr && mu_id_parse(text, prefix, ret) < 0) {
        ret->text[0] = 0;
        mu_call_error(c, 400, "invalid_field", "cursor",
                      "cursor must be an id of the list (%s<uuid>)", prefix);
        return false;
    }
    return true;
}

void mu_oz_repeat(struct mu_json_w *w, size_t from, const char *key)
{
    struct mu_buf *b = w->buf;
    size_t len = b->len - from;
    mu_jw_key(w, key);
    char *room = mu_buf_room(b, len);
    if (room) {
        memcpy(room, b->ptr + from, len);
        b->len += len;
    }
    w->comma = true;
}

/* --- list --- */

struct listing {
    struct mu_call *c;
    struct mu_oz *oz;
    struct mu_session_list op;
    struct mu_json_w w;
    struct mu_id cursor, schedule;
};

static int list_row(void *arg, const struct mu_session_view *v)
{
    struct listing *l = arg;
    mu_jw_obj(&l->w);
    mu_oz_run(&l->w, l->oz, v, false);
    mu_jw_obj_end(&l->w);
    return l->w.buf->failed ? l->w.buf->failed : l->w.buf->len > MU_OZ_PAGE_BYTES;
}

static void listed(struct mu_session_list *op, int result)
{
    struct listing *l = op->ctx;
    struct mu_call *c = l->c;
    if (result < 0) {
        mu_call_fail(c, result);
        return;
    }
    char next[64];
    snprintf(next, sizeof next, "run_%s", op->next);
    mu_jw_arr_end(&l->w);
    if (l->oz->list_legacy_items) {
        mu_oz_repeat(&l->w, sizeof "{\"runs\":" - 1, "items");
    }
    mu_jw_key(&l->w, "page_info");
    mu_jw_obj(&l->w);
    mu_jw_kbool(&l->w, "has_next_page", op->more);
    if (op->more) {
        mu_jw_kcstr(&l->w, "next_cursor", next);
    }
    mu_jw_obj_end(&l->w);
    if (op->more) {
        mu_jw_kcstr(&l->w, "next_cursor", next);
    } else {
        mu_jw_knull(&l->w, "next_cursor");
    }
    mu_call_send_object(c, &l->w);
}

/* One state word to the stored states and outcomes it covers (data-model.md 5.8). false = unknown.
 */
static bool add_state(struct mu_session_list *op, mu_bytes word)
{
    static const struct {
        const char *word;
        int states[8], outcomes[3];
    } map[] = {
        {"QUEUED", {20}, {0}},
        {"PENDING", {22}, {0}},
        {"CLAIMED", {30}, {0}},
        {"INPROGRESS", {40, 50, 60, 64, 66, 70, 74, 76}, {0}},
        {"SUCCEEDED", {0}, {MU_OUT_FINISHED}},
        {"FAILED", {0}, {MU_OUT_FAILED, MU_OUT_TIMED_OUT}},
        {"CANCELLED", {80}, {MU_OUT_CANCELLED}},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(map); i++) {
        if (!mu_bytes_is(word, map[i].word)) {
            continue;
        }
        bool known = false;
        for (unsigned k = 0; k < op->n_states; k++) {
            known = known || op->states[k] == map[i].states[0];
        }
        for (unsigned k = 0; k < op->n_outcomes; k++) {
            known = known || (map[i].outcomes[0] && op->outcomes[k] == map[i].outcomes[0]);
        }
        for (size_t k = 0; !known && k < 8 && map[i].states[k]; k++) {
            op->states[op->n_states++] = map[i].states[k];
        }
        for (size_t k = 0; !known && k < 3 && map[i].outcomes[k]; k++) {
            op->outcomes[op->n_outcomes++] = map[i].outcomes[k];
        }
        return true;
    }
    return false;
}

static bool bad(struct mu_call *c, const char *field, const char *what)
{
    mu_call_error(c, 400, "invalid_field", field, "%s must be %s", field, what);
    return false;
}

static bool take_time(struct mu_call *c, const char *key, int64_t *ret)
{
    mu_bytes text = mu_call_query(c, key, 0);
    if (!text.ptr || !text.len) {
        return true;
    }
    return mu_time_parse(text, ret) == 0 ? true : bad(c, key, "an RFC 3339 time");
}

static bool take_words(struct listing *l)
{
    mu_bytes q = mu_call_query(l->c, "q", 0);
    mu_bytes copy = mu_arena_dup(mu_call_arena(l->c), q.ptr ? q : MU_B(""));
    if (!copy.ptr) {
        mu_call_fail(l->c, -ENOMEM);
        return false;
    }
    if (copy.len > 400) {
        return bad(l->c, "q", "at most 400 bytes");
    }
    char *p = (char *)copy.ptr;
    for (size_t i = 0; i < copy.len; i++) {
        p[i] = (char)(isspace((unsigned char)p[i]) ? ' ' : tolower((unsigned char)p[i]));
    }
    while (copy.ptr) {
        mu_bytes word = mu_bytes_split(&copy, ' ');
        if (!word.len) {
            continue;
        }
        if (l->op.n_words == MU_ARRAY_LEN(l->op.words)) {
            return bad(l->c, "q", "at most four words");
        }
        l->op.words[l->op.n_words++] = word;
    }
    return true;
}

static mu_bytes text_filter(struct mu_call *c, const char *key)
{
    mu_bytes v = mu_call_query(c, key, 0);
    return v.len ? v : MU_B_NONE;
}

/* The filters of oz-api.md 15.3. false: answered. */
static bool take_filters(struct listing *l)
{
    struct mu_call *c = l->c;
    struct mu_session_list *op = &l->op;
    mu_bytes v;
    for (unsigned i = 0; (v = mu_call_query(c, "state", i)).ptr; i++) {
        if (!add_state(op, v)) {
            return bad(c, "state",
                       "one of QUEUED, PENDING, CLAIMED, INPROGRESS, SUCCEEDED, FAILED, CANCELLED");
        }
    }
    v = text_filter(c, "source");
    if (v.ptr && !(op->source = mu_source_parse(v))) {
        return bad(c, "source",
                   "one of LINEAR, API, SLACK, LOCAL, SCHEDULED_AGENT, WEB_APP, GITHUB_ACTION, "
                   "CLOUD_MODE, CLI");
    }
    v = text_filter(c, "artifact_type");
    if (v.ptr) {
        op->artifact_kind = mu_bytes_is(v, "PULL_REQUEST") ? MU_ARTIFACT_PR
                            : mu_bytes_is(v, "PLAN")       ? MU_ARTIFACT_PLAN
                                                           : 0;
        if (!op->artifact_kind) {
            return bad(c, "artifact_type", "PLAN or PULL_REQUEST");
        }
    }
    v = text_filter(c, "schedule_id");
    if (v.ptr && mu_id_parse(v, NULL, &l->schedule) < 0) {
        return bad(c, "schedule_id", "the id of a schedule");
    }
    op->schedule_id = v.ptr ? mu_id_bytes(&l->schedule) : MU_B_NONE;
    op->name = text_filter(c, "name");
    op->model = text_filter(c, "model_id");
    op->environment_id = text_filter(c, "environment_id");
    op->creator = text_filter(c, "creator");
    op->skill = text_filter(c, "skill");
    if (!op->skill.ptr) {
        op->skill = text_filter(c, "skill_spec");
    }
    return take_time(c, "created_after", &op->created_after) &&
           take_time(c, "created_before", &op->created_before) &&
           take_time(c, "updated_after", &op->updated_after) && take_words(l);
}

static void list_runs(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l) {
        return;
    }
    l->c = c;
    l->oz = mu_oz(c);
    l->op.read.loop = mu_call_loop(c);
    l->op.admin = p->admin;
    l->op.org_id = mu_str(p->org_id);
    if (!mu_oz_limit(c, &l->op.limit) || !mu_oz_cursor(c, "run_", &l->cursor) || !take_filters(l)) {
        return;
    }
    if (l->cursor.text[0]) {
        l->op.before = mu_id_bytes(&l->cursor);
    }
    l->w = mu_json_w(mu_call_buf(c));
    mu_jw_obj(&l->w);
    mu_jw_key(&l->w, "runs");
    mu_jw_arr(&l->w);
    l->op.each = list_row;
    l->op.arg = l;
    l->op.done = listed;
    l->op.ctx = l;
    int r = mu_session_list(l->oz->sessions, &l->op);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- cancel, delete --- */

struct cancelling {
    struct mu_session_cancel op;
    struct mu_actor by;
    struct mu_call *c;
};

static void cancelled(struct mu_session_cancel *op, int result)
{
    struct cancelling *x = op->ctx;
    if (result < 0) {
        mu_call_fail(x->c, result);
        return;
    }
    if (op->changed) {
        char id[64];
        snprintf(id, sizeof id, "run_%s", op->id.text);
        mu_log(MU_LOG_INFO, "agent_run.cancelled", MU_KC("run_id", id),
               MU_KJ("worker_id", MU_B("null")), MU_KS("req_id", mu_call_request_id(x->c)));
    }
    mu_buf_printf(mu_call_buf(x->c), "\"run_%s\"", op->id.text);
    mu_call_send(x->c, 200);
}

static void cancel_run(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct cancelling *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->by = mu_actor_of(p);
    x->op = (struct mu_session_cancel){.unit = {.loop = mu_call_loop(c)},
                                       .admin = p->admin,
                                       .org_id = mu_str(p->org_id),
                                       .by = mu_str(x->by.text),
                                       .done = cancelled,
                                       .ctx = x};
    if (!mu_oz_run_id(c, &x->op.id)) {
        return;
    }
    int r = mu_dispatch_cancel(mu_oz(c)->dispatch, &x->op);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

struct deleting {
    struct mu_session_delete op;
    struct mu_call *c;
    struct mu_job job;
};

static void remove_objects(struct mu_job *job)
{
    struct deleting *x = MU_CONTAINER(job, struct deleting, job);
    for (unsigned i = 0; i < x->op.n_files; i++) {
        mu_files_remove(mu_oz(x->c)->files, mu_id_bytes(&x->op.files[i]));
    }
}

static void objects_removed(struct mu_job *job)
{
    mu_call_success(MU_CONTAINER(job, struct deleting, job)->c);
}

static void deleted(struct mu_session_delete *op, int result)
{
    struct deleting *x = op->ctx;
    if (result == MU_E_CONFLICT) {
        mu_call_error(x->c, 409, "conflict", "runID", "the run has not ended: cancel it first");
        return;
    }
    if (result < 0) {
        mu_call_fail(x->c, result);
        return;
    }
    x->job =
        (struct mu_job){.run = remove_objects, .done = objects_removed, .loop = mu_call_loop(x->c)};
    if (op->n_files == 0 || mu_work_submit(mu_oz(x->c)->work, &x->job) < 0) {
        mu_call_success(x->c);
    }
}

static void delete_run(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct deleting *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->op = (struct mu_session_delete){.unit = {.loop = mu_call_loop(c)},
                                       .admin = p->admin,
                                       .org_id = mu_str(p->org_id),
                                       .done = deleted,
                                       .ctx = x};
    if (!mu_oz_run_id(c, &x->op.id)) {
        return;
    }
    int r = mu_session_delete(mu_oz(c)->sessions, &x->op);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- schemas and routes --- */

static const struct mu_schema strings = {.type = MU_S_STRING, .max = 4096};
static const struct mu_schema env_value = {.type = MU_S_STRING, .max = 65536};
static const struct mu_schema mcp_members[] = {
    {.name = "command", .type = MU_S_STRING, .max = 4096, .doc = "Program to start."},
    {.name = "args", .type = MU_S_ARRAY, .max = 200, .items = &strings, .doc = "Its arguments."},
    {.name = "env", .type = MU_S_MAP, .max = 200, .items = &env_value, .doc = "Its environment."},
    {.name = "url", .type = MU_S_STRING, .max = 2000, .doc = "Address of a remote server."},
    {.name = "headers",
     .type = MU_S_MAP,
     .max = 100,
     .items = &env_value,
     .doc = "Headers for it."},
    {.name = "warp_id", .type = MU_S_STRING, .max = 200, .doc = "Id of a shared server."},
    {0}};
static const struct mu_schema mcp_server = {.type = MU_S_OBJECT, .items = mcp_members};
const struct mu_schema mu_oz_config_members[] = {
    {.name = "name",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 200,
     .doc = "For search and traceability; the title when none is given."},
    {.name = "model_id",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 200,
     .doc = "Model wanted; its name chooses the harness unless `harness` does."},
    {.name = "harness",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .words = "claude-code codex gemini-cli opencode shell custom",
     .doc = "The agent program to run; needs an environment."},
    {.name = "base_prompt",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 100000,
     .doc = "Replaces the built-in system prompt."},
    {.name = "environment_id",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 200,
     .doc = "Environment (or image) to run in: the run waits for a worker."},
    {.name = "skill_spec",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 200,
     .doc = "{owner}/{repo}:{skill_path}; needs an environment."},
    {.name = "mcp_servers",
     .type = MU_S_MAP,
     .flags = MU_S_NULLABLE,
     .max = 50,
     .items = &mcp_server,
     .doc = "MCP servers by name; need an environment."},
    {.name = "computer_use_enabled",
     .type = MU_S_BOOL,
     .flags = MU_S_NULLABLE,
     .doc = "Needs an environment."},
    {.name = "worker_host",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 200,
     .doc = "Worker that must take the run; absent or `warp`: any."},
    {0}};
static const struct mu_schema image_members[] = {
    {.name = "data",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED | MU_S_NOT_BLANK,
     .doc = "The image in base64."},
    {.name = "mime_type",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED,
     .words = "image/jpeg image/png image/gif image/webp",
     .doc = "Its media type."},
    {0}};
static const struct mu_schema image = {.type = MU_S_OBJECT, .items = image_members};
static const struct mu_schema run_body[] = {
    {.name = "prompt",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE,
     .max = 1000000,
     .doc = "What to do. Required unless a skill is given."},
    {.name = "title",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 200,
     .doc = "Title; beats config.name."},
    {.name = "skill",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = 200,
     .doc = "Skill to run; needs an environment."},
    {.name = "conversation_id",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE,
     .max = 200,
     .doc = "Continue an earlier conversation."},
    {.name = "images",
     .type = MU_S_ARRAY,
     .flags = MU_S_NULLABLE,
     .max = 5,
     .items = &image,
     .doc = "Up to five images for the model."},
    {.name = "team",
     .type = MU_S_BOOL,
     .flags = MU_S_NULLABLE,
     .doc = "Only false: this server has no teams."},
    {.name = "config",
     .type = MU_S_OBJECT,
     .flags = MU_S_NULLABLE,
     .items = mu_oz_config_members,
     .doc = "How to run it."},
    {0}};
static const struct mu_schema list_query[] = {
    {.name = "limit", .type = MU_S_INT, .doc = "Runs per page, 50; clamped to 1..200."},
    {.name = "cursor", .type = MU_S_STRING, .doc = "Id of a run: the page begins after it."},
    {.name = "state",
     .type = MU_S_STRING,
     .flags = MU_S_REPEAT,
     .words = "QUEUED PENDING CLAIMED INPROGRESS SUCCEEDED FAILED CANCELLED",
     .doc = "Any of these states; may be repeated."},
    {.name = "source",
     .type = MU_S_STRING,
     .words = "LINEAR API SLACK LOCAL SCHEDULED_AGENT WEB_APP GITHUB_ACTION CLOUD_MODE CLI",
     .doc = "Where the run came from."},
    {.name = "name",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL,
     .max = 200,
     .doc = "config.name, exactly."},
    {.name = "model_id",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL,
     .max = 200,
     .doc = "config.model_id, exactly."},
    {.name = "environment_id",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL,
     .max = 200,
     .doc = "config.environment_id, exactly."},
    {.name = "creator",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL,
     .max = 200,
     .doc = "creator.uid, exactly."},
    {.name = "schedule_id",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL,
     .max = 200,
     .doc = "Runs of this schedule."},
    {.name = "skill",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL,
     .max = 200,
     .doc = "The skill, exactly."},
    {.name = "skill_spec",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL,
     .max = 200,
     .doc = "The same as skill."},
    {.name = "artifact_type",
     .type = MU_S_STRING,
     .words = "PLAN PULL_REQUEST",
     .doc = "Runs with such an artifact."},
    {.name = "created_after", .type = MU_S_TIME, .doc = "Created after this time."},
    {.name = "created_before", .type = MU_S_TIME, .doc = "Created before this time."},
    {.name = "updated_after", .type = MU_S_TIME, .doc = "Changed after this time."},
    {.name = "q",
     .type = MU_S_STRING,
     .max = 400,
     .doc = "Up to four words, each found in title, prompt or skill."},
    {0}};
static const struct mu_schema get_query[] = {
    {.name = "wait",
     .type = MU_S_INT,
     .max = 50,
     .doc = "Seconds to wait for the run to end, at most 50."},
    {0}};
#define CREATE(p, opid)                                                                            \
    {                                                                                              \
        .method = MU_HTTP_POST, .path = p, .face = MU_FACE_OZ, .auth = MU_AUTH_TENANT,             \
        .flags = MU_ROUTE_WRITES, .max_body = 32 << 20, .usual_body = 1000000,                     \
        .large_member = "images", .body = run_body, .handler = mu_oz_create_run, .id = opid,       \
        .summary = "Create a run.", .response = "RunCreated", .errors = "404 422 429 503"          \
    }
const struct mu_route mu_oz_run_routes[] = {
    CREATE("/api/v1/agent/run", "createRun"),
    CREATE("/api/v1/agent/runs", "createRunPlural"),
    {.method = MU_HTTP_GET,
     .path = "/api/v1/agent/runs",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .query = list_query,
     .handler = list_runs,
     .id = "listRuns",
     .summary = "List runs, newest first.",
     .response = "RunList",
     .errors = "503"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/agent/runs/{runID}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .query = get_query,
     .handler = mu_oz_get_run,
     .id = "getRun",
     .summary = "One run, complete; waits for its end if asked to.",
     .response = "Run",
     .errors = "404 503"},
    {.method = MU_HTTP_DELETE,
     .path = "/api/v1/agent/runs/{runID}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = delete_run,
     .id = "deleteRun",
     .summary = "Delete an ended run and all that belongs to it.",
     .response = "Success",
     .errors = "404 409 503"},
    {.method = MU_HTTP_POST,
     .path = "/api/v1/agent/runs/{runID}/cancel",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = cancel_run,
     .id = "cancelRun",
     .summary = "Cancel a run; an ended one stays as it is.",
     .response = "RunId",
     .errors = "404 503"},
    {.method = MU_HTTP_POST,
     .path = "/api/v1/agent/runs/{runID}/rerun",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .handler = mu_oz_rerun,
     .id = "rerunRun",
     .summary = "Create a run from the same request again.",
     .response = "RunCreated",
     .errors = "404 422 429 503"},
    {.path = NULL}};
