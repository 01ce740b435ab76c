/* Enrolment tokens, registration, heartbeats, drain, undrain, deregister. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "face/fleet/fleet_int.h"

enum {
    BODY = 64 << 10,
    CAPS_MAX = 48 << 10,
    USES_MAX = 1000,
    EXPIRES_DEFAULT_S = 86400,
    EXPIRES_MAX_S = 31536000,
    MINUTE_MS = 60000,
};

/* --- POST /runner-enrolments --- */

struct enrolling {
    struct mu_enrolment_op op;
    struct mu_call *c;
};

static void enrolled(struct mu_enrolment_op *op, int result)
{
    struct enrolling *x = op->ctx;
    if (result < 0) {
        mu_call_fail(x->c, result);
        return;
    }
    struct mu_json_w w = mu_call_data(x->c);
    mu_jw_obj(&w);
    mu_sess_prefixed(&w, "enrolmentId", "enr_", mu_id_bytes(&op->pass.id));
    mu_jw_kcstr(&w, "token", op->pass.token);
    if (op->pass.org_id[0]) {
        mu_jw_kcstr(&w, "orgId", op->pass.org_id);
    }
    mu_jw_ki64(&w, "uses", op->uses);
    mu_jw_ktime(&w, "expiresAt", op->pass.expires_ms);
    mu_jw_obj_end(&w);
    explicit_bzero(op->pass.token, sizeof op->pass.token);
    mu_call_data_send(x->c, 201, NULL, 0);
}

static void create_enrolment(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    yyjson_val *body = mu_call_body(c);
    mu_bytes org = mu_json_get_bytes(body, "orgId");
    bool shared = mu_json_get_bool(body, "shared", false);
    if (shared && !p->admin) {
        mu_call_error(c, 403, "FORBIDDEN", NULL, "Only the administrator enrols shared runners");
        return;
    }
    if (shared ? false : !mu_sess_org(c, org.ptr ? org : MU_B("me"), &org)) {
        return;
    }
    if (org.len > MU_ORG_LEN) {
        mu_call_issue(c, "too_big", "orgId", "orgId is no org of this server");
        (void)mu_call_refused(c);
        return;
    }
    struct enrolling *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->op = (struct mu_enrolment_op){
        .unit = {.loop = mu_call_loop(c)},
        .name = mu_json_get_bytes(body, "name").ptr ? mu_json_get_bytes(body, "name") : MU_B(""),
        .uses = mu_json_get_i64(body, "uses", 1),
        .done = enrolled,
        .ctx = x};
    if (!shared) {
        snprintf(x->op.pass.org_id, sizeof x->op.pass.org_id, "%.*s", MU_ARGS(org));
    }
    x->op.pass.expires_ms = mu_env_wall_ms(mu_sess_oz(c)->env) +
                            1000 * mu_json_get_i64(body, "expiresInSeconds", EXPIRES_DEFAULT_S);
    int r = mu_enrolment_create(mu_sess_oz(c)->identity, &x->op);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- POST /runners --- */

struct registering {
    struct mu_fleet_register op;
    struct mu_call *c;
    char link[64];
};

static void add_once(struct mu_json_w *w, void *ctx)
{
    struct registering *x = ctx;
    const struct mu_oz *oz = mu_sess_oz(x->c);
    if (x->op.pass.token[0]) {
        mu_jw_kcstr(w, "runnerToken", x->op.pass.token);
        explicit_bzero(x->op.pass.token, sizeof x->op.pass.token);
    }
    mu_jw_ki64(w, "heartbeatIntervalMs", oz->workers->opts.heartbeat_ms);
    mu_jw_kcstr(w, "linkUrl", x->link);
}

static void registered(struct mu_fleet_register *op, int result)
{
    struct registering *x = op->ctx;
    if (result == MU_E_CONFLICT) {
        mu_call_error(x->c, 409, "RUNNER_CONFLICT", NULL,
                      "hostname is not that of this credential's runner");
        return;
    }
    if (result < 0) {
        explicit_bzero(x->op.pass.token, sizeof x->op.pass.token);
        mu_fleet_fail(x->c, result);
        return;
    }
    snprintf(x->link, sizeof x->link, "/api/v1/runners/rnr_%s/link", op->uid.text);
    mu_fleet_answer_info(x->c, &op->uid, op->created ? 201 : 200, true, add_once, x);
}

/* As a worker's hello would say it. */
static mu_bytes caps_of(struct mu_call *c, yyjson_val *body)
{
    yyjson_val *caps = mu_json_get(body, "capabilities"), *v;
    struct mu_buf b;
    size_t i, n;
    mu_buf_init(&b, CAPS_MAX);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_key(&w, "harnesses");
    mu_jw_arr(&w);
    yyjson_arr_foreach(mu_json_get(caps, "providers"), i, n, v)
    {
        const char *harness = mu_sess_harness(mu_json_bytes(v));
        mu_jw_str(&w, harness ? mu_str(harness) : mu_json_bytes(v));
    }
    mu_jw_arr_end(&w);
    static const char *const lists[] = {"features", "labels"};
    for (size_t k = 0; k < MU_ARRAY_LEN(lists); k++) {
        yyjson_val *list = mu_json_get(k ? body : caps, lists[k]);
        if (list) {
            mu_jw_key(&w, lists[k]);
            mu_json_add(&b, list);
            w.comma = true;
        }
    }
    mu_bytes build = mu_json_get_bytes(body, "buildId");
    if (build.len) {
        mu_jw_kstr(&w, "build_id", build);
    }
    mu_jw_obj_end(&w);
    mu_bytes text = b.failed ? MU_B_NONE : mu_arena_dup(mu_call_arena(c), mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return text;
}

static mu_bytes meta_of(struct mu_call *c, yyjson_val *body)
{
    yyjson_val *meta = mu_json_get(body, "metadata");
    struct mu_buf b;
    mu_buf_init(&b, BODY);
    if (!meta) {
        return MU_B_NONE;
    }
    mu_json_add(&b, meta);
    mu_bytes text = b.failed ? MU_B_NONE : mu_arena_dup(mu_call_arena(c), mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return text;
}

static void register_runner(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    yyjson_val *body = mu_call_body(c);
    struct registering *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->op = (struct mu_fleet_register){
        .loop = mu_call_loop(c),
        .enrolment = p->enrolment,
        .runner = p->runner,
        .host = mu_json_get_bytes(body, "hostname"),
        .caps = caps_of(c, body),
        .version = mu_json_get_bytes(body, "version"),
        .meta = meta_of(c, body),
        .capacity = mu_json_get_i64(mu_json_get(body, "capabilities"), "maxConcurrentSessions", -1),
        .done = registered,
        .ctx = x};
    memcpy(x->op.org_id, p->org_id, sizeof x->op.org_id);
    if (!x->op.caps.ptr) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    mu_fleet_register(mu_sess_oz(c)->fleet, &x->op);
}

/* --- the changes --- */

struct changing {
    struct mu_fleet_change op;
    struct mu_call *c;
};

static void still_holds(struct changing *x)
{
    struct mu_buf b;
    mu_buf_init(&b, 64 << 10);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_key(&w, "activeSessions");
    mu_jw_arr(&w);
    for (size_t i = 0; i < MU_MIN(x->op.n_sessions, (size_t)MU_FLEET_SESSIONS); i++) {
        char text[8 + MU_ID_LEN];
        snprintf(text, sizeof text, "ses_%s", x->op.sessions[i].text);
        mu_jw_str(&w, mu_str(text));
    }
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    mu_call_error_details(
        x->c, 409, "RUNNER_HAS_ACTIVE_SESSIONS", b.failed ? MU_B_NONE : mu_buf_bytes(&b),
        "The runner holds %zu sessions; force=true takes it away from them", x->op.n_sessions);
    mu_buf_fini(&b);
}

static void beaten(struct changing *x)
{
    struct mu_json_w w = mu_call_data(x->c);
    mu_jw_obj(&w);
    mu_jw_ktime(&w, "serverTime", mu_env_wall_ms(mu_sess_oz(x->c)->env));
    mu_jw_kbool(&w, "drain", x->op.draining);
    mu_jw_kraw(&w, "commands", MU_B("[]")); /* they are told over the link alone */
    mu_jw_obj_end(&w);
    mu_call_data_send(x->c, 200, NULL, 0);
}

static void changed(struct mu_fleet_change *op, int result)
{
    struct changing *x = op->ctx;
    if (result == MU_E_CONFLICT && op->act == MU_ACT_REMOVE) {
        still_holds(x);
    } else if (result == MU_E_CONFLICT) {
        mu_call_error(x->c, 409, "INVALID_STATE", NULL, "The runner does not drain");
    } else if (result < 0) {
        mu_fleet_fail(x->c, result);
    } else if (op->act == MU_ACT_BEAT) {
        beaten(x);
    } else if (op->act == MU_ACT_REMOVE) {
        mu_call_done(x->c);
    } else {
        mu_fleet_answer_info(x->c, &op->uid, 200, false, NULL, NULL);
    }
}

static struct changing *changing_new(struct mu_call *c, enum mu_fleet_act act)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    struct changing *x = mu_fleet_id(c, &id) ? mu_call_new(c, sizeof *x) : NULL;
    if (x) {
        x->c = c;
        x->op = (struct mu_fleet_change){.loop = mu_call_loop(c),
                                         .act = act,
                                         .uid = id,
                                         .admin = p->admin,
                                         .timeout_ms = -1,
                                         .by = p->admin ? MU_B("admin") : MU_B("user"),
                                         .done = changed,
                                         .ctx = x};
        memcpy(x->op.org_id, p->org_id, sizeof x->op.org_id);
    }
    return x;
}

static void drain_runner(struct mu_call *c)
{
    yyjson_val *body = mu_call_body(c);
    struct changing *x = changing_new(c, MU_ACT_DRAIN);
    if (x) {
        int64_t minutes = mu_json_get_i64(body, "timeoutMinutes", -1);
        x->op.reason = mu_json_get_bytes(body, "reason");
        x->op.timeout_ms = minutes < 0 ? -1 : minutes * MINUTE_MS;
        mu_fleet_change(mu_sess_oz(c)->fleet, &x->op);
    }
}

static void undrain_runner(struct mu_call *c)
{
    struct changing *x = changing_new(c, MU_ACT_UNDRAIN);
    if (x) {
        mu_fleet_change(mu_sess_oz(c)->fleet, &x->op);
    }
}

static void deregister_runner(struct mu_call *c)
{
    struct changing *x = changing_new(c, MU_ACT_REMOVE);
    if (x) {
        x->op.force = mu_bytes_is(mu_call_query(c, "force", 0), "true");
        mu_fleet_change(mu_sess_oz(c)->fleet, &x->op);
    }
}

static void heartbeat(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    yyjson_val *body = mu_call_body(c);
    struct mu_id named;
    struct changing *x = changing_new(c, MU_ACT_BEAT);
    if (!x) {
        return;
    }
    if (strcmp(p->runner.text, x->op.uid.text) != 0 ||
        mu_id_parse(mu_json_get_bytes(body, "runnerId"), "rnr_", &named) < 0 ||
        strcmp(named.text, x->op.uid.text) != 0) {
        mu_call_error(c, 403, "FORBIDDEN", NULL, "A runner's credential is for its own heartbeat");
        return;
    }
    struct mu_report *r;
    int e = mu_report_new(MU_REPORT_ALIVE, &r);
    if (e < 0) {
        mu_call_fail(c, e);
        return;
    }
    mu_report_take_beat(body, r);
    x->op.beat = r;
    x->op.admin = true; /* its own */
    mu_fleet_change(mu_sess_oz(c)->fleet, &x->op);
}

/* --- what the bodies may hold --- */

static const struct mu_schema enrol_body[] = {
    {.name = "name", .type = MU_S_STRING, .flags = MU_S_NO_NUL, .max = 200, .doc = "For people."},
    {.name = "orgId",
     .type = MU_S_STRING,
     .form = MU_F_ID,
     .doc = "Whose runners; default: the caller's org."},
    {.name = "shared", .type = MU_S_BOOL, .doc = "Runners for everybody (administrator only)."},
    {.name = "uses", .type = MU_S_INT, .min = 1, .max = USES_MAX, .doc = "Registrations, 1."},
    {.name = "expiresInSeconds",
     .type = MU_S_INT,
     .min = 60,
     .max = EXPIRES_MAX_S,
     .doc = "Default: a day."},
    {0}};
static const struct mu_schema provider = {
    .type = MU_S_STRING, .words = "codex claude_code gemini_cli omnara opencode shell custom"};
static const struct mu_schema feature = {
    .type = MU_S_STRING, .min = 1, .max = 64, .form = MU_F_FEATURE};
static const struct mu_schema text = {.type = MU_S_STRING, .flags = MU_S_NO_NUL, .max = 1024};
static const struct mu_schema version = {
    .type = MU_S_STRING, .flags = MU_S_NO_NUL, .min = 1, .max = 64};
static const struct mu_schema caps_members[] = {
    {.name = "providers",
     .type = MU_S_ARRAY,
     .flags = MU_S_REQUIRED,
     .min = 1,
     .max = 8,
     .items = &provider,
     .doc = "What it has."},
    {.name = "maxConcurrentSessions", .type = MU_S_INT, .min = 1, .max = 256, .doc = "Default 5."},
    {.name = "features", .type = MU_S_ARRAY, .max = 32, .items = &feature, .doc = "What it can."},
    {0}};
static const struct mu_schema register_body[] = {
    {.name = "hostname",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED,
     .min = 1,
     .max = 128,
     .form = MU_F_ID,
     .doc = "Its name in the org."},
    {.name = "capabilities",
     .type = MU_S_OBJECT,
     .flags = MU_S_REQUIRED,
     .items = caps_members,
     .doc = "What it can do."},
    {.name = "metadata",
     .type = MU_S_MAP,
     .max = 32,
     .items = &text,
     .form = MU_F_LABEL,
     .doc = "Kept and shown."},
    {.name = "mode", .type = MU_S_STRING, .words = "hosted customer_hosted", .doc = "Whose it is."},
    {.name = "version", .type = MU_S_STRING, .flags = MU_S_NO_NUL, .max = 64, .doc = "Version."},
    {.name = "buildId", .type = MU_S_STRING, .form = MU_F_ID, .doc = "Build."},
    {.name = "protocolVersion",
     .type = MU_S_INT,
     .flags = MU_S_REQUIRED,
     .min = 1,
     .max = 1000,
     .doc = "2."},
    {.name = "labels", .type = MU_S_ARRAY, .max = 32, .items = &feature, .doc = "For placement."},
    {0}};
static const struct mu_schema active = {.type = MU_S_STRING, .form = MU_F_ID};
static const struct mu_schema load_members[] = {
    {.name = "cpuPercent", .type = MU_S_NUMBER, .max = 100, .doc = "Processors."},
    {.name = "memoryPercent", .type = MU_S_NUMBER, .max = 100, .doc = "Memory."},
    {.name = "diskPercent",
     .type = MU_S_NUMBER,
     .max = 100,
     .doc = "Disk; from 95 on it gets nothing."},
    {0}};
static const struct mu_schema beat_body[] = {
    {.name = "runnerId",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED,
     .form = MU_F_ID,
     .doc = "Own."},
    {.name = "timestamp", .type = MU_S_TIME, .flags = MU_S_REQUIRED, .doc = "Its clock."},
    {.name = "activeSessions",
     .type = MU_S_ARRAY,
     .flags = MU_S_REQUIRED,
     .max = 256,
     .items = &active,
     .doc = "What it runs."},
    {.name = "load",
     .type = MU_S_OBJECT,
     .flags = MU_S_REQUIRED,
     .items = load_members,
     .doc = "Figures."},
    {.name = "runtimeVersions", .type = MU_S_MAP, .max = 8, .items = &version, .doc = "Versions."},
    {.name = "sequence", .type = MU_S_INT, .min = 1, .max = INT64_C(1) << 53, .doc = "Counted."},
    {.name = "sessionSeqs",
     .type = MU_S_MAP,
     .max = 256,
     .items = &(const struct mu_schema){.type = MU_S_INT},
     .doc = "Last events."},
    {0}};
static const struct mu_schema drain_body[] = {
    {.name = "reason", .type = MU_S_STRING, .flags = MU_S_NO_NUL, .max = 500, .doc = "Why."},
    {.name = "timeoutMinutes",
     .type = MU_S_INT,
     .max = 10080,
     .doc = "What still runs then is stopped; 0 = never."},
    {0}};
static const struct mu_schema force_query[] = {
    {.name = "force",
     .type = MU_S_STRING,
     .words = "true false",
     .doc = "Also with live sessions: they go elsewhere or end."},
    {0}};

#define POST(p, h, i, s, r, ...)                                                                   \
    {                                                                                              \
        .method = MU_HTTP_POST, .path = p, .face = MU_FACE_SESSIONS, .handler = h, .id = i,        \
        .summary = s, .response = r, .flags = MU_ROUTE_WRITES, .max_body = BODY, __VA_ARGS__       \
    }
const struct mu_route mu_fleet_change_routes[] = {
    POST("/api/v1/runner-enrolments", create_enrolment, "createRunnerEnrolment",
         "Make an enrolment token; it is shown once.", "RunnerEnrolment", .auth = MU_AUTH_TENANT,
         .role = MU_ROLE_ORG_ADMIN, .body = enrol_body, .success = "201"),
    POST("/api/v1/runners", register_runner, "registerRunner",
         "Register a runner with an enrolment token, or again with its credential.",
         "RunnerRegistered", .auth = MU_AUTH_RUNNER, .body = register_body, .success = "200 201",
         .errors = "RUNNER_CONFLICT RUNNER_LIMIT_EXCEEDED"),
    POST("/api/v1/runners/{runnerId}/heartbeat", heartbeat, "runnerHeartbeat",
         "The heartbeat of a runner that has no link.", "RunnerHeartbeatAnswer",
         .auth = MU_AUTH_RUNNER, .body = beat_body, .errors = "RUNNER_NOT_FOUND"),
    POST("/api/v1/runners/{runnerId}/drain", drain_runner, "drainRunner",
         "It takes nothing new; what it holds goes on.", "RunnerInfo", .auth = MU_AUTH_TENANT,
         .role = MU_ROLE_ORG_ADMIN, .body = drain_body, .errors = "RUNNER_NOT_FOUND"),
    POST("/api/v1/runners/{runnerId}/undrain", undrain_runner, "undrainRunner",
         "It takes sessions again.", "RunnerInfo", .auth = MU_AUTH_TENANT,
         .role = MU_ROLE_ORG_ADMIN, .errors = "RUNNER_NOT_FOUND INVALID_STATE"),
    {.method = MU_HTTP_DELETE,
     .path = "/api/v1/runners/{runnerId}",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .role = MU_ROLE_ORG_ADMIN,
     .flags = MU_ROUTE_WRITES,
     .query = force_query,
     .handler = deregister_runner,
     .id = "deregisterRunner",
     .summary = "Forget a runner; its credential is revoked.",
     .errors = "RUNNER_NOT_FOUND RUNNER_HAS_ACTIVE_SESSIONS"},
    {.path = NULL}};
