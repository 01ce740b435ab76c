/* Checkpoints of a session, and sessions that begin at one (ours). */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/needs.h"
#include "app/sessions/checkpoints.h"
#include "face/sessions/sessions_int.h"

enum { SPEC_MAX = 4 << 20, JOB_ARENA = 64 << 20, VARS_MAX = 64, MINUTE_MS = 60000 };

/* --- list --- */

struct listing {
    struct mu_call *c;
    struct mu_checkpoint_list op;
    struct mu_json_w w;
    size_t n;
};

static int add_row(void *arg, const struct mu_checkpoint_row *k)
{
    struct listing *l = arg;
    struct mu_json_w *w = &l->w;
    l->n++;
    mu_jw_obj(w);
    mu_jw_kstr(w, "id", k->id);
    mu_jw_ki64(w, "number", k->seq);
    if (k->turn_id.ptr) {
        mu_jw_kstr(w, "turnId", k->turn_id);
    }
    mu_jw_ki64(w, "bytes", k->bytes);
    mu_jw_ktime(w, "createdAt", k->created_ms);
    if (k->epoch == 0) { /* of the session that this one was forked from */
        mu_jw_kbool(w, "inherited", true);
    }
    mu_jw_obj_end(w);
    return w->buf->failed;
}

static void listed(struct mu_checkpoint_list *op, int result)
{
    struct listing *l = op->ctx;
    if (result < 0) {
        mu_sess_fail(l->c, result);
        return;
    }
    mu_jw_arr_end(&l->w);
    mu_jw_kbool(&l->w, "hasMore", l->n == MU_CHECKPOINT_PAGE);
    mu_jw_obj_end(&l->w);
    mu_call_data_send(l->c, 200, NULL, 0);
}

static void list(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l) {
        return;
    }
    l->c = c;
    l->w = mu_call_data(c);
    mu_jw_obj(&l->w);
    mu_jw_key(&l->w, "items");
    mu_jw_arr(&l->w);
    l->op = (struct mu_checkpoint_list){.read = {.loop = mu_call_loop(c)},
                                        .admin = p->admin,
                                        .org_id = mu_str(p->org_id),
                                        .session = id,
                                        .before = mu_sess_query_i64(c, "beforeNumber", 0),
                                        .each = add_row,
                                        .arg = l,
                                        .done = listed,
                                        .ctx = l};
    int r = mu_checkpoint_list(mu_sess_oz(c)->sessions, &l->op);
    if (r < 0) {
        mu_sess_fail(c, r);
    }
}

/* --- fork: what the source is, then what its sandbox needs, then its variables --- */

struct forking {
    struct mu_call *c;
    struct mu_session_create op;
    struct mu_fork fork;
    struct mu_principal who;
    struct mu_session_get get;
    struct mu_session_job job;
    struct mu_session_vars vars;
    struct mu_sealed_var sealed[VARS_MAX];
    struct mu_first_turn turn;
    mu_bytes org, prompt, title, spec;
    bool live, interactive, not_allowed;
};

static void done(struct forking *x, int result)
{
    mu_arena_fini(&x->job.arena);
    if (result == MU_E_NOT_FOUND && x->fork.no_checkpoint) {
        mu_call_error(x->c, 404, "CHECKPOINT_NOT_FOUND", NULL,
                      "The session has no such checkpoint");
    } else if (x->not_allowed) {
        mu_call_error(x->c, 403, "FORBIDDEN", NULL,
                      "The session skips permissions, which is not allowed to you "
                      "(OZ_ALLOW_SKIP_PERMISSIONS)");
    } else if (result == MU_E_NOT_FOUND || result == MU_E_CONFLICT) {
        mu_sess_fail(x->c, result);
    } else {
        mu_sess_created(x->c, &x->op, result);
    }
}

static void created(struct mu_session_create *op, int result)
{
    done(op->ctx, result);
}

static void add_value(struct mu_json_w *w, const char *key, yyjson_val *v)
{
    mu_jw_key(w, key);
    mu_json_add(w->buf, v);
    w->comma = true;
}

static void add_live(struct mu_json_w *w, const struct forking *x, yyjson_val *live)
{
    size_t i, n;
    yyjson_val *key, *value;
    mu_jw_key(w, "live");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "mode", x->interactive ? "interactive" : "task");
    yyjson_obj_foreach(live, i, n, key, value)
    {
        if (!mu_bytes_is(mu_json_bytes(key), "mode")) {
            add_value(w, yyjson_get_str(key), value);
        }
    }
    mu_jw_obj_end(w);
}

/* The source's, in its new mode; the task is another one. */
static int build_spec(struct forking *x)
{
    static const struct mu_json_limits limits = {.max_bytes = SPEC_MAX, .max_depth = 80};
    struct mu_arena *a = mu_call_arena(x->c);
    yyjson_val *spec = NULL, *key, *value;
    size_t i, n;
    int r = mu_json_read(a, x->spec, &limits, &spec, NULL);
    if (r < 0) {
        return r == -ENOMEM ? r : MU_E_CORRUPT; /* not the caller's fault */
    }
    yyjson_val *live = mu_json_get(spec, "live");
    if (mu_json_get_bool(live, "skipPermissions", false) && !x->who.admin &&
        !mu_sess_face(x->c)->allow_skip_permissions) { /* an administrator made the source */
        x->not_allowed = true;
        return MU_E_INVALID;
    }
    struct mu_buf b;
    mu_buf_init(&b, SPEC_MAX);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    add_live(&w, x, live);
    yyjson_obj_foreach(spec, i, n, key, value)
    {
        mu_bytes name = mu_json_bytes(key);
        if (!mu_bytes_is(name, "live") && !mu_bytes_is(name, "taskSpec")) {
            add_value(&w, yyjson_get_str(key), value);
        }
    }
    mu_jw_obj_end(&w);
    x->op.spec = b.failed ? MU_B_NONE : mu_arena_dup(a, mu_buf_bytes(&b));
    r = b.failed ? b.failed : x->op.spec.ptr ? 0 : -ENOMEM;
    mu_buf_fini(&b);
    if (r == 0) {
        r = mu_needs_of(x->op.harness, x->op.env_snapshot, &x->op.needs);
    }
    x->op.needs |= MU_NEED_LIVE | mu_sess_feature_needs(mu_json_get(live, "features"));
    return r;
}

static int fill(struct forking *x)
{
    struct mu_call *c = x->c;
    const struct mu_sess_face *f = mu_sess_face(c);
    struct mu_session_create *op = &x->op;
    op->unit.loop = mu_call_loop(c);
    op->who = &x->who;
    op->route = MU_ROUTE_WORKER;
    op->source = MU_SRC_API;
    op->view = MU_VIEW_VILLAGE;
    op->mode = x->interactive ? MU_MODE_INTERACTIVE : MU_MODE_TASK;
    op->skill = MU_B("");
    op->prompt = x->prompt.ptr ? x->prompt : MU_B("");
    op->title = x->title;
    op->env_snapshot = x->job.env_snapshot;
    op->queue_ms = f->max_queue_min * MINUTE_MS;
    op->org_limit = f->max_sessions_per_org;
    op->parent_id = mu_id_bytes(&x->fork.source);
    op->fork = &x->fork;
    op->vars = x->sealed;
    op->done = created;
    op->ctx = x;
    op->body = mu_arena_printf(mu_call_arena(c), "fork %s\n%.*s", x->fork.source.text,
                               MU_ARGS(mu_call_raw_body(c)));
    if (x->interactive && x->prompt.len) {
        x->turn = (struct mu_first_turn){.prompt = x->prompt,
                                         .options = MU_B("{}"),
                                         .user = mu_str(mu_call_principal(c)->uid),
                                         .source = MU_SRC_API};
        op->first_turn = &x->turn;
    }
    return op->body.ptr ? build_spec(x) : -ENOMEM;
}

static int take_var(void *arg, mu_bytes name, mu_bytes value)
{
    struct forking *x = arg;
    struct mu_arena *a = mu_call_arena(x->c);
    if (x->op.n_vars == VARS_MAX) {
        return MU_E_CORRUPT;
    }
    struct mu_sealed_var *v = &x->sealed[x->op.n_vars++];
    v->name = mu_arena_dup(a, name);
    return v->name.ptr ? mu_environment_seal(mu_sess_oz(x->c)->environments, a, value, v) : -ENOMEM;
}

static void vars_read(struct mu_session_vars *op, int result)
{
    struct forking *x = op->ctx;
    int r = result < 0 ? result : fill(x);
    if (r == 0) {
        r = mu_dispatch_create(mu_sess_oz(x->c)->dispatch, &x->op);
    }
    if (r < 0) {
        done(x, r);
    }
}

static void job_read(struct mu_session_job *op, int result)
{
    struct forking *x = op->ctx;
    if (result >= 0) {
        x->vars = (struct mu_session_vars){.read = {.loop = mu_call_loop(x->c)},
                                           .org_id = x->org,
                                           .session = x->fork.source,
                                           .each = take_var,
                                           .arg = x,
                                           .done = vars_read,
                                           .ctx = x};
        result = mu_session_vars_read(mu_sess_oz(x->c)->environments, &x->vars);
    }
    if (result < 0) {
        done(x, result);
    }
}

static int take_source(void *arg, const struct mu_session_view *v)
{
    struct forking *x = arg;
    struct mu_arena *a = mu_call_arena(x->c);
    struct {
        mu_bytes from, *to;
    } const texts[] = {{v->org_id, &x->org},
                       {v->spec, &x->spec},
                       {v->harness, &x->op.harness},
                       {v->model, &x->op.model},
                       {v->name, &x->op.name},
                       {v->environment_id, &x->op.environment_id},
                       {v->pin_worker_id, &x->op.pin_worker_id},
                       {x->title.ptr ? x->title : v->title, &x->title}};
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        *texts[i].to = texts[i].from.ptr ? mu_arena_dup(a, texts[i].from) : MU_B_NONE;
        if (texts[i].from.ptr && !texts[i].to->ptr) {
            return -ENOMEM;
        }
    }
    x->op.limit_ms = v->limit_ms;
    x->live = mu_spec_is_live(v->spec) && v->view == MU_VIEW_VILLAGE;
    return 0;
}

static void source_read(struct mu_session_get *op, int result)
{
    struct forking *x = op->ctx;
    if (result >= 0 && !x->live) {
        result = MU_E_CONFLICT;
    }
    if (result < 0) {
        done(x, result);
        return;
    }
    if (!mu_sess_act_for(x->c, x->org, &x->who)) {
        return;
    }
    x->job.id = x->fork.source;
    x->job.read.loop = mu_call_loop(x->c);
    x->job.done = job_read;
    x->job.ctx = x;
    mu_arena_init(&x->job.arena, JOB_ARENA);
    result = mu_session_job_read(mu_sess_oz(x->c)->sessions, &x->job);
    if (result < 0) {
        done(x, result);
    }
}

static void fork_session(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    yyjson_val *b = mu_call_body(c), *checkpoint = mu_json_get(b, "checkpoint");
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    struct forking *x = mu_call_new(c, sizeof *x);
    if (!x || !mu_sess_take_key(c, &x->op.idem_key)) {
        return;
    }
    x->c = c;
    x->fork.source = id;
    x->fork.number = yyjson_is_int(checkpoint) ? yyjson_get_sint(checkpoint) : 0;
    if (yyjson_is_str(checkpoint) &&
        mu_id_parse(mu_json_bytes(checkpoint), NULL, &x->fork.checkpoint) < 0) {
        x->fork.no_checkpoint = true; /* the check saw that it is one */
        done(x, MU_E_NOT_FOUND);
        return;
    }
    x->interactive = !mu_bytes_is(mu_json_get_bytes(b, "mode"), "task");
    x->prompt = mu_json_get_bytes(b, "prompt");
    mu_bytes title = mu_bytes_trim(mu_json_get_bytes(b, "title"));
    x->title = title.len ? title : MU_B_NONE;
    x->get = (struct mu_session_get){.read = {.loop = mu_call_loop(c)},
                                     .admin = p->admin,
                                     .org_id = mu_str(p->org_id),
                                     .id = id,
                                     .each = take_source,
                                     .arg = x,
                                     .done = source_read,
                                     .ctx = x};
    int r = mu_session_get(mu_sess_oz(c)->sessions, &x->get);
    if (r < 0) {
        done(x, r);
    }
}

static void check_fork(struct mu_call *c)
{
    yyjson_val *b = mu_call_body(c), *checkpoint = mu_json_get(b, "checkpoint");
    struct mu_id id;
    bool number = yyjson_is_int(checkpoint) && yyjson_get_sint(checkpoint) >= 1;
    bool named =
        yyjson_is_str(checkpoint) && mu_id_parse(mu_json_bytes(checkpoint), NULL, &id) == 0;
    if (checkpoint && !number && !named) {
        mu_call_issue(c, "invalid_format", "checkpoint",
                      "checkpoint must be the number of a checkpoint, from 1 on, or its id");
    }
    if (mu_bytes_is(mu_json_get_bytes(b, "mode"), "task") &&
        !mu_bytes_trim(mu_json_get_bytes(b, "prompt")).len) {
        mu_call_issue(c, "required", "prompt", "prompt is required in the mode task");
    }
}

static const struct mu_schema fork_body[] = {
    {.name = "checkpoint",
     .type = MU_S_ANY,
     .doc = "Number or id of the checkpoint; default: the newest."},
    {.name = "title",
     .type = MU_S_STRING,
     .flags = MU_S_NOT_BLANK | MU_S_NO_NUL,
     .min = 1,
     .max = MU_SESS_SUMMARY_CHARS,
     .doc = "Default: that of the source."},
    {.name = "prompt",
     .type = MU_S_STRING,
     .flags = MU_S_NOT_BLANK | MU_S_NO_NUL,
     .min = 1,
     .max = MU_SESS_TASK_CHARS,
     .doc = "What to do next; without it the session waits for prompts."},
    {.name = "mode",
     .type = MU_S_STRING,
     .words = "task interactive",
     .doc = "Default: interactive."},
    {0}};
static const struct mu_schema list_query[] = {{.name = "beforeNumber",
                                               .type = MU_S_INT,
                                               .min = 1,
                                               .max = INT64_C(9007199254740991),
                                               .doc = "The page of 200 ends before it."},
                                              {0}};

const struct mu_route mu_sess_fork_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/sessions/{sessionId}/checkpoints",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .query = list_query,
     .handler = list,
     .id = "listCheckpoints",
     .summary = "Its checkpoints, newest first (ours).",
     .response = "CheckpointList",
     .errors = "SESSION_NOT_FOUND"},
    {.method = MU_HTTP_POST,
     .path = "/api/v1/sessions/{sessionId}/fork",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .max_body = MU_SESS_BODY,
     .body = fork_body,
     .check = check_fork,
     .handler = fork_session,
     .id = "forkSession",
     .summary = "A session that begins at a checkpoint of this one (ours).",
     .response = "SessionDetail",
     .success = "201",
     .errors = "SESSION_NOT_FOUND CHECKPOINT_NOT_FOUND INVALID_STATE IDEMPOTENCY_CONFLICT "
               "SESSION_LIMIT_EXCEEDED"},
    {.path = NULL}};
