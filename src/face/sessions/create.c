/* POST /sessions (village-control-plane.md 4.2). */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/needs.h"
#include "base/encode.h"
#include "base/log.h"
#include "face/sessions/sessions_int.h"
#include "proto/repo.h"

enum {
    ENV_MAX = 64,
    ENV_BYTES = 262144,
    SPEC_MAX = 2 << 20,
    SNAPSHOT_MAX = 4 << 20,
    MINUTE_MS = 60000,
    LIMIT_RETRY_MS = 30000,
    TITLE_CHARS = MU_SESS_SUMMARY_CHARS,
};

/* One create request; in the call's arena. */
struct creating {
    struct mu_call *c;
    struct mu_session_create op;
    struct mu_principal who; /* the caller's, or (administrator) that of another org */
    struct mu_env_read env;
    struct mu_fleet_find find; /* the runner that options.runnerId names */
    struct mu_buf snapshot;    /* of the environment that options.environmentId names */
    struct mu_first_turn turn;
    yyjson_val *body, *repo, *options;
    struct mu_sealed_var vars[ENV_MAX];
    mu_bytes task;
    const char *harness;
    bool interactive;
};

/* --- what the schema does not say --- */

/* A repository of the machine, or over a transport that proves nothing: where the operator lets. */
static bool local_repo(mu_bytes url)
{
    static const char *const schemes[] = {"file://", "http://", "git://"};
    for (size_t i = 0; i < MU_ARRAY_LEN(schemes); i++) {
        if (mu_bytes_starts(url, mu_str(schemes[i]))) {
            return true;
        }
    }
    return url.len && url.ptr[0] == '/';
}

static void check_repo(struct mu_call *c, yyjson_val *repo)
{
    const char *why = NULL;
    struct mu_repo_spec spec;
    mu_bytes url = mu_json_get_bytes(repo, "url");
    bool tag = mu_json_get(repo, "tag");
    if (url.len && url.len <= 2048) {
        bool local = mu_sess_face(c)->allow_local_repos && local_repo(url);
        bool bad = local ? mu_repo_spec_parse(url, &spec, &why) < 0
                         : mu_form_refuse(MU_F_REPO, url, &why) != NULL;
        if (bad) {
            mu_call_issue(c, "invalid_url", "repo.url", "repo.url %s", why);
        }
    }
    if (tag && (mu_json_get(repo, "branch") || mu_json_get(repo, "commit"))) {
        mu_call_issue(c, "invalid_format", "repo.tag",
                      "repo.tag excludes repo.branch and repo.commit");
    }
}

static void check_env(struct mu_call *c, yyjson_val *env)
{
    size_t i, n, sum = 0;
    yyjson_val *key, *value;
    if (!env || !yyjson_is_obj(env)) {
        return;
    }
    yyjson_obj_foreach(env, i, n, key, value)
    {
        sum += mu_json_bytes(key).len + mu_json_bytes(value).len;
    }
    if (sum > ENV_BYTES) {
        mu_call_issue(c, "too_big", "options.env", "options.env must be at most %d bytes in all",
                      ENV_BYTES);
    }
}

static void check_options(struct mu_call *c, yyjson_val *body, yyjson_val *o)
{
    const struct mu_sess_face *f = mu_sess_face(c);
    int64_t minutes = mu_json_get_i64(o, "timeoutMinutes", 1);
    if (minutes > f->max_timeout_min) {
        mu_call_issue(c, "too_big", "options.timeoutMinutes",
                      "options.timeoutMinutes must be at most %lld", (long long)f->max_timeout_min);
    }
    bool task = mu_bytes_trim(mu_json_get_bytes(body, "task")).len || mu_json_get(body, "taskSpec");
    if (mu_bytes_is(mu_json_get_bytes(o, "mode"), "task") && !task) {
        mu_call_issue(c, "required", "task", "task is required in the mode task");
    }
    check_env(c, mu_json_get(o, "env"));
    mu_sess_check_workspace(c, o);
}

void mu_sess_check_create(struct mu_call *c)
{
    yyjson_val *body = mu_call_body(c);
    mu_bytes task = mu_json_get_bytes(body, "task");
    if (task.ptr && mu_json_get(body, "taskSpec")) {
        mu_call_issue(c, "invalid_format", "taskSpec", "taskSpec excludes task");
    }
    check_repo(c, mu_json_get(body, "repo"));
    check_options(c, body, mu_json_get(body, "options"));
}

/* --- answers --- */

static void refused(struct mu_call *c, int result)
{
    switch (result) {
    case MU_E_LIMIT:
        mu_call_retry(c, 429, "SESSION_LIMIT_EXCEEDED", LIMIT_RETRY_MS,
                      "The org has as many sessions as it may have at once "
                      "(OZ_MAX_SESSIONS_PER_ORG)");
        return;
    case MU_E_EXISTS:
        mu_call_error(c, 404, "SESSION_NOT_FOUND", NULL,
                      "The session that Idempotency-Key stands for was deleted; another key makes "
                      "a new one");
        return;
    default:
        mu_call_fail(c, result);
    }
}

void mu_sess_created(struct mu_call *c, struct mu_session_create *op, int result)
{
    if (result < 0) {
        refused(c, result);
        return;
    }
    mu_bytes location = mu_arena_printf(mu_call_arena(c), "/api/v1/sessions/ses_%s", op->id.text);
    if (!location.ptr) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    mu_call_note(c, "session_id", mu_id_bytes(&op->id));
    struct mu_http_pair headers[2] = {{"Location", location}};
    size_t n = 1;
    if (op->replayed) {
        headers[n++] = (struct mu_http_pair){"Idempotent-Replay", MU_B("true")};
    } else {
        mu_log(MU_LOG_INFO, "session.create", MU_KS("session_id", mu_id_bytes(&op->id)),
               MU_KS("harness", op->harness), MU_KT("interactive", op->mode == MU_MODE_INTERACTIVE),
               MU_KI("prompt_length", (int64_t)op->prompt.len), MU_KT("fork", op->fork != NULL),
               MU_KS("req_id", mu_call_request_id(c)));
    }
    mu_sess_answer_detail(c, &op->id, 201, op->replayed ? NULL : "CREATED", headers, n);
}

static void created(struct mu_session_create *op, int result)
{
    struct creating *cr = op->ctx;
    mu_buf_fini(&cr->snapshot);
    mu_sess_created(cr->c, op, result);
}

/* --- what is stored --- */

static void add_member(struct mu_json_w *w, const char *key, yyjson_val *v)
{
    if (v && !yyjson_is_null(v)) {
        mu_jw_key(w, key);
        mu_json_add(w->buf, v);
        w->comma = true;
    }
}

/* What the orchestrator and the runner are told; `live` comes first (mu_spec_is_live()). */
static void add_live(struct mu_json_w *w, const struct creating *cr)
{
    yyjson_val *o = cr->options;
    const char *word = strcmp(cr->harness, "claude-code") == 0  ? "claude"
                       : strcmp(cr->harness, "gemini-cli") == 0 ? "gemini"
                                                                : cr->harness;
    mu_jw_key(w, "live");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "mode", cr->interactive ? "interactive" : "task");
    mu_jw_kcstr(w, "harness", word);
    if (mu_json_get_bytes(o, "model").len) {
        mu_jw_kstr(w, "model", mu_json_get_bytes(o, "model"));
    }
    mu_jw_ki64(w, "cols", mu_json_get_i64(o, "cols", 120));
    mu_jw_ki64(w, "rows", mu_json_get_i64(o, "rows", 40));
    mu_jw_kbool(w, "skipPermissions", mu_json_get_bool(o, "dangerouslySkipPermissions", false));
    mu_jw_kbool(w, "retryOnRunnerLoss", mu_json_get_bool(o, "retryOnRunnerLoss", false));
    mu_jw_ki64(w, "timeoutMs", cr->op.limit_ms);
    add_member(w, "features", mu_json_get(o, "features"));
    add_member(w, "policy", mu_json_get(o, "policy"));
    mu_jw_obj_end(w);
}

static int build_spec(struct creating *cr)
{
    struct mu_buf b;
    mu_buf_init(&b, SPEC_MAX);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    add_live(&w, cr);
    add_member(&w, "repo", cr->repo);
    add_member(&w, "metadata", mu_json_get(cr->body, "metadata"));
    add_member(&w, "taskSpec", mu_json_get(cr->body, "taskSpec"));
    if (cr->op.n_vars) {
        mu_jw_key(&w, "envNames");
        mu_jw_arr(&w);
        for (size_t i = 0; i < cr->op.n_vars; i++) {
            mu_jw_str(&w, cr->vars[i].name);
        }
        mu_jw_arr_end(&w);
    }
    mu_jw_obj_end(&w);
    cr->op.spec = b.failed ? MU_B_NONE : mu_arena_dup(mu_call_arena(cr->c), mu_buf_bytes(&b));
    int r = b.failed;
    mu_buf_fini(&b);
    return r < 0 ? r : cr->op.spec.ptr ? 0 : -ENOMEM;
}

/* Never stored in clear, and in no spec. */
static int seal_vars(struct creating *cr)
{
    yyjson_val *env = mu_json_get(cr->options, "env"), *key, *value;
    size_t i, n;
    int r = 0;
    if (!env) {
        return 0;
    }
    yyjson_obj_foreach(env, i, n, key, value)
    {
        if (r < 0 || cr->op.n_vars == ENV_MAX) {
            break;
        }
        struct mu_sealed_var *v = &cr->vars[cr->op.n_vars++];
        v->name = mu_json_bytes(key);
        r = mu_environment_seal(mu_sess_oz(cr->c)->environments, mu_call_arena(cr->c),
                                mu_json_bytes(value), v);
    }
    cr->op.vars = cr->vars;
    return r;
}

/* --- the task --- */

static void add_list(struct mu_buf *b, const char *title, yyjson_val *list)
{
    size_t i, n;
    yyjson_val *item;
    if (!list || yyjson_arr_size(list) == 0) {
        return;
    }
    mu_buf_printf(b, "\n\n%s:", title);
    yyjson_arr_foreach(list, i, n, item)
    {
        mu_buf_add_str(b, "\n- ");
        mu_buf_add(b, mu_json_bytes(item));
    }
}

/* The prompt of a structured task (10.2): title, goal, constraints, acceptance, folder. */
static int spell_task(struct creating *cr, yyjson_val *t)
{
    struct mu_buf b;
    mu_buf_init(&b, 4 << 20);
    mu_buf_add(&b, mu_json_get_bytes(t, "title"));
    mu_buf_add_str(&b, "\n\n");
    mu_buf_add(&b, mu_json_get_bytes(t, "goal"));
    add_list(&b, "Constraints", mu_json_get(t, "constraints"));
    add_list(&b, "It is done when", mu_json_get(t, "acceptance"));
    if (mu_json_get_bytes(t, "roomPath").len) {
        mu_buf_printf(&b, "\n\nWork in the folder %.*s.",
                      MU_ARGS(mu_json_get_bytes(t, "roomPath")));
    }
    if (mu_json_get_bytes(t, "branchName").len) {
        mu_buf_printf(&b, "\n\nUse the branch %.*s.", MU_ARGS(mu_json_get_bytes(t, "branchName")));
    }
    cr->task = b.failed ? MU_B_NONE : mu_arena_dup(mu_call_arena(cr->c), mu_buf_bytes(&b));
    int r = b.failed;
    mu_buf_fini(&b);
    return r < 0 ? r : cr->task.ptr ? 0 : -ENOMEM;
}

/* A text without the values of the session's variables: what is shown of it is no place for them.
 */
static mu_bytes without_secrets(struct creating *cr, mu_bytes text)
{
    yyjson_val *env = mu_json_get(cr->options, "env"), *key, *value;
    size_t i, n;
    if (!env) {
        return text;
    }
    yyjson_obj_foreach(env, i, n, key, value)
    {
        mu_bytes secret = mu_json_bytes(value);
        ptrdiff_t at = secret.len >= 6 ? mu_bytes_find(text, secret) : -1;
        while (at >= 0) {
            text = mu_arena_printf(mu_call_arena(cr->c), "%.*s***%.*s", (int)at, text.ptr,
                                   MU_ARGS(mu_bytes_from(text, (size_t)at + secret.len)));
            at = text.ptr ? mu_bytes_find(text, secret) : -1;
        }
        if (!text.ptr) {
            return text;
        }
    }
    return text;
}

/* The first characters of the task, for lists. */
static int take_title(struct creating *cr)
{
    mu_bytes head = without_secrets(cr, mu_utf8_cut(cr->task, (size_t)16 * TITLE_CHARS));
    size_t at = 0, bad;
    for (size_t i = 0; head.ptr && i < TITLE_CHARS && at < head.len; i++) {
        at += MU_MAX(mu_utf8_len(mu_bytes_from(head, at), &bad), (size_t)1);
    }
    cr->op.title = mu_bytes_head(head, at);
    return head.ptr ? 0 : -ENOMEM;
}

/* --- to the domain --- */

static int fill(struct creating *cr)
{
    struct mu_call *c = cr->c;
    const struct mu_sess_face *f = mu_sess_face(c);
    struct mu_session_create *op = &cr->op;
    yyjson_val *o = cr->options;
    op->unit.loop = mu_call_loop(c);
    op->who = &cr->who;
    op->route = MU_ROUTE_WORKER;
    op->source = MU_SRC_API;
    op->view = MU_VIEW_VILLAGE;
    op->mode = cr->interactive ? MU_MODE_INTERACTIVE : MU_MODE_TASK;
    op->harness = mu_str(cr->harness);
    op->model = mu_json_get_bytes(o, "model").ptr ? mu_json_get_bytes(o, "model") : MU_B("");
    op->name = mu_json_get_bytes(cr->repo, "url"); /* lists are filtered by it */
    op->skill = MU_B("");
    op->prompt = cr->task;
    op->body = mu_call_raw_body(c);
    op->limit_ms = mu_json_get_i64(o, "timeoutMinutes", f->default_timeout_min) * MINUTE_MS;
    op->queue_ms = f->max_queue_min * MINUTE_MS;
    op->org_limit = f->max_sessions_per_org;
    op->done = created;
    op->ctx = cr;
    if (cr->interactive && cr->task.len) {
        cr->turn = (struct mu_first_turn){.prompt = cr->task,
                                          .options = MU_B("{}"),
                                          .user = mu_str(mu_call_principal(c)->uid),
                                          .source = MU_SRC_API};
        op->first_turn = &cr->turn;
    }
    int r = take_title(cr);
    if (r == 0) {
        r = seal_vars(cr);
    }
    if (r == 0) {
        const struct mu_sess_workspace workspace = {.repo = cr->repo,
                                                    .policy = mu_json_get(o, "policy"),
                                                    .environment = mu_buf_bytes(&cr->snapshot)};
        r = mu_sess_snapshot(mu_call_arena(c), &workspace, &op->env_snapshot);
    }
    if (r == 0) {
        r = build_spec(cr);
    }
    if (r == 0) {
        r = mu_needs_of(op->harness, op->env_snapshot, &op->needs);
    }
    op->needs |= MU_NEED_LIVE | mu_sess_feature_needs(mu_json_get(o, "features"));
    return r;
}

static void submit(struct creating *cr)
{
    int r = fill(cr);
    if (r == 0) {
        r = mu_dispatch_create(mu_sess_oz(cr->c)->dispatch, &cr->op);
    }
    if (r < 0) {
        created(&cr->op, r);
    }
}

/* --- the environment --- */

static int take_environment(void *arg, const struct mu_env_view *v)
{
    return mu_environment_snapshot(arg, v);
}

static void environment_read(struct mu_env_read *op, int result)
{
    struct creating *cr = op->ctx;
    if (result == 0) {
        cr->op.environment_id = mu_id_bytes(&op->id);
        submit(cr);
        return;
    }
    mu_buf_fini(&cr->snapshot);
    if (result == MU_E_NOT_FOUND) {
        mu_call_issue(cr->c, "invalid_format", "options.environmentId",
                      "options.environmentId names no environment of yours");
        (void)mu_call_refused(cr->c);
    } else {
        mu_call_fail(cr->c, result);
    }
}

static void with_environment(struct creating *cr)
{
    struct mu_call *c = cr->c;
    mu_bytes id = mu_json_get_bytes(cr->options, "environmentId");
    mu_buf_init(&cr->snapshot, SNAPSHOT_MAX);
    if (!id.len) {
        submit(cr);
        return;
    }
    cr->env = (struct mu_env_read){.read = {.loop = mu_call_loop(c)},
                                   .admin = cr->who.admin,
                                   .org_id = mu_str(cr->who.org_id),
                                   .each = take_environment,
                                   .arg = &cr->snapshot,
                                   .done = environment_read,
                                   .ctx = cr};
    int r = mu_id_parse(id, "env_", &cr->env.id) < 0
                ? MU_E_NOT_FOUND
                : mu_environment_read(mu_sess_oz(c)->environments, &cr->env);
    if (r < 0) {
        environment_read(&cr->env, r);
    }
}

/* --- the runner --- */

static void runner_found(struct mu_fleet_find *op)
{
    struct creating *cr = op->ctx;
    if (!op->found && mu_bytes_starts(op->given, MU_B("rnr_"))) {
        mu_call_error(cr->c, 404, "RUNNER_NOT_FOUND", NULL,
                      "There is no runner of the id options.runnerId");
        return;
    }
    cr->op.pin_worker_id = op->found ? mu_str(op->name) : op->given; /* one that may come */
    with_environment(cr);
}

static void with_runner(struct creating *cr)
{
    mu_bytes given = mu_json_get_bytes(cr->options, "runnerId");
    cr->op.pin_worker_id = MU_B_NONE;
    if (!given.len) {
        with_environment(cr);
        return;
    }
    cr->find = (struct mu_fleet_find){.loop = mu_call_loop(cr->c),
                                      .given = given,
                                      .org_id = mu_str(cr->who.org_id),
                                      .done = runner_found,
                                      .ctx = cr};
    mu_fleet_find(mu_sess_oz(cr->c)->fleet, &cr->find);
}

/* --- the request --- */

bool mu_sess_take_key(struct mu_call *c, mu_bytes *ret)
{
    mu_bytes key = mu_call_header(c, "idempotency-key");
    bool ok = !key.ptr || (key.len >= 1 && key.len <= 255);
    for (size_t i = 0; ok && i < key.len; i++) {
        ok = key.ptr[i] >= 0x20 && key.ptr[i] < 0x7f;
    }
    if (!ok) {
        mu_call_issue(c, "invalid_format", "Idempotency-Key",
                      "Idempotency-Key must be 1 to 255 printable ASCII characters");
        return !mu_call_refused(c);
    }
    *ret = key;
    return true;
}

bool mu_sess_act_for(struct mu_call *c, mu_bytes org, struct mu_principal *ret)
{
    *ret = *mu_call_principal(c);
    if (mu_bytes_is(org, ret->org_id)) {
        return true;
    }
    if (org.len > MU_ORG_LEN) {
        mu_call_issue(c, "too_big", "orgId", "orgId must be at most %d characters", MU_ORG_LEN);
        return !mu_call_refused(c);
    }
    ret->tenant = mu_identity_tenant(mu_sess_oz(c)->identity, org);
    if (!ret->tenant) {
        mu_call_fail(c, -ENOMEM);
        return false;
    }
    snprintf(ret->org_id, sizeof ret->org_id, "%.*s", MU_ARGS(org));
    ret->token_hash[0] = 0; /* the org is not that of the admin key */
    return true;
}

/* For whose org: another than the caller's own only the administrator makes something. */
static bool take_org(struct creating *cr)
{
    mu_bytes org;
    if (!mu_sess_org(cr->c, mu_json_get_bytes(cr->body, "orgId"), &org)) {
        return false;
    }
    return mu_sess_act_for(cr->c, org, &cr->who);
}

static bool take_rights(struct creating *cr)
{
    const struct mu_sess_face *f = mu_sess_face(cr->c);
    mu_bytes provider = mu_json_get_bytes(cr->body, "providerId");
    cr->harness = mu_sess_harness(provider);
    if (!cr->harness) {
        mu_call_error(cr->c, 400, "INVALID_PROVIDER", NULL, "There is no provider %.*s here",
                      MU_ARGS(mu_bytes_head(provider, 64)));
        return false;
    }
    if (mu_json_get_bool(cr->options, "dangerouslySkipPermissions", false) && !cr->who.admin &&
        !f->allow_skip_permissions) {
        mu_call_error(cr->c, 403, "FORBIDDEN", NULL,
                      "options.dangerouslySkipPermissions is not allowed here "
                      "(OZ_ALLOW_SKIP_PERMISSIONS)");
        return false;
    }
    return true;
}

void mu_sess_create(struct mu_call *c)
{
    struct creating *cr = mu_call_new(c, sizeof *cr);
    if (!cr) {
        return;
    }
    cr->c = c;
    cr->body = mu_call_body(c);
    cr->repo = mu_json_get(cr->body, "repo");
    cr->options = mu_json_get(cr->body, "options");
    cr->task = mu_bytes_trim(mu_json_get_bytes(cr->body, "task"));
    yyjson_val *spec = mu_json_get(cr->body, "taskSpec");
    cr->task = cr->task.ptr ? cr->task : MU_B("");
    if (!mu_sess_take_key(c, &cr->op.idem_key) || !take_org(cr) || !take_rights(cr)) {
        return;
    }
    int r = spec ? spell_task(cr, spec) : 0;
    if (r < 0) {
        mu_call_fail(c, r);
        return;
    }
    mu_bytes mode = mu_json_get_bytes(cr->options, "mode");
    cr->interactive = mu_bytes_is(mode, "interactive") || (!mode.len && cr->task.len == 0);
    with_runner(cr);
}
