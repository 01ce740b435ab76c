/* POST /agent/run, POST /agent/runs, POST /agent/runs/{runID}/rerun (oz-api.md 4.3, 15.2). */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "base/log.h"
#include "face/oz/oz_int.h"

enum { MAX_IMAGES = 5, MAX_PROMPT = 1000000 };

/* One create request; in the call's arena. */
struct creating {
    struct mu_call *c;
    struct mu_session_create op;
    struct mu_run_request rq;
    struct mu_env_read env;
    struct mu_buf snapshot;
    struct mu_session_get get; /* rerun */
    struct mu_id source_id;
    mu_bytes source_spec;
    /* images */
    struct mu_job job;
    struct mu_new_file files[MAX_IMAGES];
    struct mu_buf raw[MAX_IMAGES];
    size_t n_files;
    int job_result, result;
    bool no_run; /* rerun: what is to be run again was no run */
};

static void refused(struct mu_call *c, int result)
{
    if (result == MU_E_MISMATCH) {
        mu_call_error(c, 422, "invalid_field", "Idempotency-Key",
                      "Idempotency-Key was used with another body before");
    } else if (result == MU_E_EXISTS) {
        mu_call_error(c, 404, "not_found", "Idempotency-Key",
                      "the run that Idempotency-Key stands for was deleted; another key makes a "
                      "new one");
    } else if (result == MU_E_LIMIT) {
        mu_call_retry(
            c, 429, "too_many_requests", 5000,
            "this tenant has as many unfinished runs as it may have (OZ_TENANT_MAX_QUEUED)");
    } else {
        mu_call_fail(c, result);
    }
}

static void answer(struct creating *cr)
{
    struct mu_call *c = cr->c;
    const struct mu_session_create *op = &cr->op;
    if (cr->result < 0) {
        refused(c, cr->result);
        return;
    }
    char id[64];
    snprintf(id, sizeof id, "run_%s", op->id.text);
    mu_call_note(c, "run_id", mu_str(id));
    struct mu_json_w w = mu_json_w(mu_call_buf(c));
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "run_id", id);
    mu_jw_kcstr(&w, "task_id", id);
    mu_jw_kcstr(&w, "state", mu_oz_state(op->state, op->outcome));
    mu_jw_kstr(&w, "request_id", mu_call_request_id(c));
    mu_jw_obj_end(&w);
    if (op->replayed || op->duplicate) {
        mu_call_send_with(c, 200, "Idempotent-Replay", MU_B("true"));
        return;
    }
    mu_log(MU_LOG_INFO, "agent_run.create", MU_KC("run_id", id), MU_KS("harness", op->harness),
           MU_KS("model_id", op->model), MU_KT("has_environment", op->environment_id.len > 0),
           MU_KI("prompt_length", (int64_t)op->prompt.len),
           MU_KC("auth_scope", op->who->admin ? "admin" : "tenant"),
           MU_KS("req_id", mu_call_request_id(c)));
    mu_call_send(c, 200);
}

/* --- images that were stored for a run that did not come to be --- */

static void remove_images(struct mu_job *job)
{
    struct creating *cr = MU_CONTAINER(job, struct creating, job);
    for (size_t i = 0; i < cr->n_files; i++) {
        mu_files_remove(mu_oz(cr->c)->files, mu_id_bytes(&cr->files[i].id));
    }
}

static void images_removed(struct mu_job *job)
{
    answer(MU_CONTAINER(job, struct creating, job));
}

/* Whether no row names them for sure: a connection that broke at the commit leaves that open. */
static bool surely_unused(const struct creating *cr)
{
    return cr->result >= 0 ? cr->op.replayed || cr->op.duplicate
                           : cr->result != MU_E_UNAVAILABLE && cr->result != MU_E_CLOSED &&
                                 cr->result != MU_E_SHUTDOWN;
}

static void decided(struct creating *cr, int result)
{
    cr->result = result;
    if (cr->n_files && surely_unused(cr)) {
        cr->job = (struct mu_job){
            .run = remove_images, .done = images_removed, .loop = mu_call_loop(cr->c)};
        if (mu_work_submit(mu_oz(cr->c)->work, &cr->job) == 0) {
            return;
        }
    }
    answer(cr);
}

static void created(struct mu_session_create *op, int result)
{
    decided(op->ctx, result);
}

static void submit(struct creating *cr)
{
    struct mu_call *c = cr->c;
    struct mu_oz *oz = mu_oz(c);
    int r = mu_run_request_fill(&cr->rq, atomic_load(&oz->settings), mu_call_arena(c), &cr->op);
    cr->op.unit.loop = mu_call_loop(c);
    cr->op.who = mu_call_principal(c);
    cr->op.files = cr->files;
    cr->op.n_files = cr->n_files;
    cr->op.done = created;
    cr->op.ctx = cr;
    if (r == 0) {
        r = mu_dispatch_create(oz->dispatch, &cr->op);
    }
    if (r < 0) {
        decided(cr, r);
    }
}

/* --- images: stored and synced before the run is --- */

static void store_images(struct mu_job *job)
{
    struct creating *cr = MU_CONTAINER(job, struct creating, job);
    struct mu_oz *oz = mu_oz(cr->c);
    for (size_t i = 0; cr->job_result == 0 && i < cr->n_files; i++) {
        mu_bytes raw = mu_buf_bytes(&cr->raw[i]);
        cr->files[i].sha256 = mu_sha256_hex(raw);
        cr->job_result = mu_files_put(oz->files, &cr->files[i].id, raw);
    }
}

static void free_images(struct creating *cr)
{
    for (size_t i = 0; i < cr->n_files; i++) {
        mu_buf_fini(&cr->raw[i]);
    }
}

static void images_stored(struct mu_job *job)
{
    struct creating *cr = MU_CONTAINER(job, struct creating, job);
    free_images(cr);
    if (!job->ran || cr->job_result < 0) {
        decided(cr, job->ran ? cr->job_result : MU_E_SHUTDOWN);
        return;
    }
    submit(cr);
}

/* false: answered. */
static bool take_images(struct creating *cr, yyjson_val *images)
{
    struct mu_call *c = cr->c;
    size_t i, n;
    yyjson_val *item;
    yyjson_arr_foreach(images, i, n, item)
    {
        char field[40];
        snprintf(field, sizeof field, "images[%zu].data", i);
        struct mu_buf *raw = &cr->raw[cr->n_files];
        mu_buf_init(raw, 32 << 20);
        mu_bytes name = mu_arena_printf(mu_call_arena(c), "image-%zu", i + 1);
        int r = mu_base64_decode(mu_json_get_bytes(item, "data"), raw);
        if (r == -ENOMEM || !name.ptr) {
            mu_buf_fini(raw);
            free_images(cr);
            mu_call_fail(c, -ENOMEM);
            return false;
        }
        if (r < 0 || raw->len == 0) {
            mu_buf_fini(raw);
            free_images(cr);
            mu_call_error(c, 400, "invalid_field", field, "%s must be base64 of an image", field);
            return false;
        }
        struct mu_new_file *f = &cr->files[cr->n_files++];
        f->id = mu_id_new(mu_oz(c)->env, NULL);
        f->name = name;
        f->media_type = mu_json_get_bytes(item, "mime_type");
        f->bytes = (int64_t)raw->len;
    }
    cr->rq.n_images = cr->n_files;
    return true;
}

static void store_then_submit(struct creating *cr)
{
    const char *field = NULL;
    const char *refused = mu_run_request_refuse(&cr->rq, &field);
    if (refused) {
        free_images(cr);
        mu_call_error(cr->c, 400, "invalid_field", field, "%s: %s", field, refused);
        return;
    }
    if (cr->n_files == 0) {
        submit(cr);
        return;
    }
    cr->job =
        (struct mu_job){.run = store_images, .done = images_stored, .loop = mu_call_loop(cr->c)};
    int r = mu_work_submit(mu_oz(cr->c)->work, &cr->job);
    if (r < 0) {
        free_images(cr);
        mu_call_fail(cr->c, r);
    }
}

/* --- the environment --- */

static int take_environment(void *arg, const struct mu_env_view *v)
{
    return mu_environment_snapshot(arg, v);
}

static void no_environment(struct creating *cr)
{
    free_images(cr);
    mu_call_error(cr->c, 404, "not_found", "config.environment_id",
                  "Not found: config.environment_id");
}

/* The id names no record: an image, when that is allowed (oz-api.md 16.5). */
static void use_as_image(struct creating *cr)
{
    struct mu_oz *oz = mu_oz(cr->c);
    mu_bytes id = cr->rq.environment_id;
    if (!oz->allow_raw_env_image || mu_bytes_starts(id, MU_B("env_"))) {
        no_environment(cr);
        return;
    }
    if (!mu_oz_image_allowed(oz, id)) {
        free_images(cr);
        mu_call_error(
            cr->c, 400, "invalid_field", "config.environment_id",
            "config.environment_id: this image is not on the operator's list (OZ_IMAGE_ALLOWLIST)");
        return;
    }
    store_then_submit(cr);
}

static void environment_read(struct mu_env_read *op, int result)
{
    struct creating *cr = op->ctx;
    if (result == MU_E_NOT_FOUND) {
        mu_buf_fini(&cr->snapshot);
        use_as_image(cr);
        return;
    }
    mu_bytes copy =
        result < 0 ? MU_B_NONE : mu_arena_dup(mu_call_arena(cr->c), mu_buf_bytes(&cr->snapshot));
    mu_buf_fini(&cr->snapshot);
    if (result < 0 || !copy.ptr) {
        free_images(cr);
        mu_call_fail(cr->c, result < 0 ? result : -ENOMEM);
        return;
    }
    cr->rq.env_snapshot = copy;
    store_then_submit(cr);
}

static void with_environment(struct creating *cr)
{
    struct mu_call *c = cr->c;
    mu_bytes id = cr->rq.environment_id;
    if (!id.len || cr->rq.env_snapshot.ptr) {
        store_then_submit(cr);
        return;
    }
    const struct mu_principal *p = mu_call_principal(c);
    cr->env = (struct mu_env_read){.read = {.loop = mu_call_loop(c)},
                                   .admin = p->admin,
                                   .org_id = mu_str(p->org_id),
                                   .each = take_environment,
                                   .arg = &cr->snapshot,
                                   .done = environment_read,
                                   .ctx = cr};
    if (mu_id_parse(id, "env_", &cr->env.id) < 0) {
        use_as_image(cr);
        return;
    }
    mu_buf_init(&cr->snapshot, 1 << 20);
    int r = mu_environment_read(mu_oz(c)->environments, &cr->env);
    if (r < 0) {
        environment_read(&cr->env, r);
    }
}

/* --- the request --- */

static struct creating *creating_new(struct mu_call *c)
{
    struct creating *cr = mu_call_new(c, sizeof *cr);
    if (!cr) {
        return NULL;
    }
    cr->c = c;
    mu_bytes agent = mu_call_header(c, "user-agent");
    cr->rq.source = mu_bytes_starts(agent, MU_B("muster-cli/"))
                        ? MU_SRC_CLI
                        : (enum mu_source)mu_oz(c)->run_source_default;
    return cr;
}

/* Idempotency-Key and the SDKs' retry counter. false: answered. */
static bool take_retry_headers(struct creating *cr)
{
    struct mu_call *c = cr->c;
    mu_bytes key = mu_call_header(c, "idempotency-key");
    if (key.ptr) {
        bool ok = key.len >= 1 && key.len <= 255;
        for (size_t i = 0; ok && i < key.len; i++) {
            ok = key.ptr[i] >= 0x20 && key.ptr[i] < 0x7f;
        }
        if (!ok) {
            mu_call_error(c, 400, "invalid_field", "Idempotency-Key",
                          "Idempotency-Key must be 1 to 255 printable ASCII characters");
            return false;
        }
        cr->op.idem_key = key;
    }
    int64_t count = 0;
    mu_bytes retries = mu_call_header(c, "x-stainless-retry-count");
    cr->op.check_dup = !key.ptr && retries.ptr && mu_bytes_i64(retries, &count) == 0 && count >= 1;
    return true;
}

/* false: answered. */
static bool take_prompt(struct creating *cr, yyjson_val *body)
{
    struct mu_call *c = cr->c;
    yyjson_val *config = cr->rq.config;
    bool skilled = cr->rq.skill.len || mu_json_get_bytes(config, "skill_spec").len;
    cr->rq.prompt = mu_json_get_bytes(body, "prompt");
    if (!mu_bytes_trim(cr->rq.prompt).len && !skilled) {
        mu_call_error(c, 400, "missing_field", "prompt", "prompt is required");
        return false;
    }
    if (cr->rq.prompt.len > MAX_PROMPT) {
        mu_call_error(c, 400, "invalid_field", "prompt", "prompt must be at most %d bytes",
                      MAX_PROMPT);
        return false;
    }
    if (!cr->rq.prompt.ptr) {
        cr->rq.prompt = MU_B("");
    }
    if (memchr(cr->rq.prompt.ptr, 0, cr->rq.prompt.len)) {
        mu_call_error(c, 400, "invalid_field", "prompt", "prompt must not contain NUL");
        return false;
    }
    return true;
}

void mu_oz_create_run(struct mu_call *c)
{
    struct creating *cr = creating_new(c);
    yyjson_val *body = mu_call_body(c);
    if (!cr || !take_retry_headers(cr)) {
        return;
    }
    cr->rq.config = mu_json_get(body, "config");
    if (cr->rq.config && yyjson_is_null(cr->rq.config)) {
        cr->rq.config = NULL;
    }
    cr->rq.title = mu_json_get_bytes(body, "title");
    cr->rq.skill = mu_json_get_bytes(body, "skill");
    mu_bytes environment = mu_bytes_trim(mu_json_get_bytes(cr->rq.config, "environment_id"));
    cr->rq.environment_id = environment.len ? environment : MU_B_NONE;
    cr->op.body = mu_call_raw_body(c);
    mu_bytes conversation = mu_json_get_bytes(body, "conversation_id");
    struct mu_id parsed;
    if (conversation.len && mu_id_parse(conversation, NULL, &parsed) < 0) {
        mu_call_error(c, 400, "invalid_field", "conversation_id",
                      "conversation_id must be the conversation_id of an earlier run");
        return;
    }
    cr->rq.conversation_id =
        conversation.len ? mu_arena_dup(mu_call_arena(c), mu_id_bytes(&parsed)) : MU_B_NONE;
    if (mu_json_get_bool(body, "team", false)) {
        mu_call_error(c, 400, "invalid_field", "team",
                      "team: this server has no teams; leave it out or send false");
        return;
    }
    if (!take_prompt(cr, body) || !take_images(cr, mu_json_get(body, "images"))) {
        return;
    }
    with_environment(cr);
}

/* --- rerun: the same request again --- */

static int take_source(void *arg, const struct mu_session_view *v)
{
    struct creating *cr = arg;
    struct mu_arena *a = mu_call_arena(cr->c);
    cr->no_run = v->view != MU_VIEW_OZ;
    mu_bytes spec = mu_arena_dup(a, v->spec), title = mu_arena_dup(a, v->title),
             skill = mu_arena_dup(a, v->skill);
    if (!spec.ptr || !title.ptr || !skill.ptr ||
        mu_prompt_join(a, v->prompt_head, v->prompt_rest, &cr->rq.prompt) < 0) {
        return -ENOMEM;
    }
    cr->rq.title = title;
    cr->rq.skill = skill;
    cr->source_spec = spec;
    if (v->environment_id.ptr) {
        cr->rq.environment_id = mu_arena_dup(a, v->environment_id);
    }
    if (v->conversation_id.ptr) {
        cr->rq.conversation_id = mu_arena_dup(a, v->conversation_id);
    }
    bool lost = (v->environment_id.ptr && !cr->rq.environment_id.ptr) ||
                (v->conversation_id.ptr && !cr->rq.conversation_id.ptr);
    return lost ? -ENOMEM : 0;
}

static void source_read(struct mu_session_get *op, int result)
{
    struct creating *cr = op->ctx;
    struct mu_call *c = cr->c;
    yyjson_val *spec = NULL;
    static const struct mu_json_limits limits = {.max_bytes = 2 << 20, .max_depth = 80};
    if (result == 0) {
        result = mu_json_read(mu_call_arena(c), cr->source_spec, &limits, &spec, NULL);
        result =
            result < 0 && result != -ENOMEM ? MU_E_CORRUPT : result; /* not the caller's fault */
    }
    if (result < 0) {
        mu_call_fail(c, result);
        return;
    }
    if (cr->no_run) {
        mu_call_error(c, 400, "invalid_field", "runID",
                      "runID: what the sessions API made is not run again as a run");
        return;
    }
    if (mu_json_get_i64(spec, "images", 0) > 0) {
        mu_call_error(c, 400, "invalid_field", "runID",
                      "a run with images cannot be run again from its stored form");
        return;
    }
    cr->rq.config = mu_json_get(spec, "agent_config");
    with_environment(cr);
}

void mu_oz_rerun(struct mu_call *c)
{
    struct creating *cr = creating_new(c);
    if (!cr || !mu_oz_run_id(c, &cr->source_id) || !take_retry_headers(cr)) {
        return;
    }
    cr->op.check_dup = false;                  /* asking for it again is the point */
    cr->op.body = mu_id_bytes(&cr->source_id); /* what a repetition with a key must equal */
    const struct mu_principal *p = mu_call_principal(c);
    cr->get = (struct mu_session_get){.read = {.loop = mu_call_loop(c)},
                                      .admin = p->admin,
                                      .org_id = mu_str(p->org_id),
                                      .id = cr->source_id,
                                      .each = take_source,
                                      .arg = cr,
                                      .done = source_read,
                                      .ctx = cr};
    int r = mu_session_get(mu_oz(c)->sessions, &cr->get);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}
