/* From the spec to a started container: image, sidecar volumes, create, files, start. */
#include <errno.h>
#include <stdio.h>

#include "exec/sandbox/docker_int.h"

enum { CREATE_MS = 120000, UPLOAD_MS = 120000, START_MS = 120000 };

static void create(struct mu_docker_box *b);
static void next_sidecar(struct mu_docker_box *b);

/* --- start --- */

static void on_started(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    b->call = NULL;
    if (res->result == 0 && res->status >= 400) {
        mu_docker_end_(b, -1, "container_start", "The container did not start: %.400s",
                       res->message);
        return;
    }
    mu_docker_run_(b, res->result == 0); /* no answer came: it may run all the same */
}

static void start(struct mu_docker_box *b)
{
    const struct mu_engine_request req = {
        .method = "POST", .done = on_started, .arg = b, .timeout_ms = START_MS};
    b->phase = MU_DOCKER_START;
    mu_docker_state_(b, "starting", NULL);
    if (b->gone || b->phase != MU_DOCKER_START || b->stopping) {
        return; /* stopped from inside the callback */
    }
    int r = mu_docker_ask_(b->d, &req, &b->call, "/containers/%s/start", b->id);
    if (r < 0) {
        mu_docker_end_(b, -1, "container_start", "%s", mu_err_text(r));
    }
}

/* --- files --- */

static void on_uploaded(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    b->call = NULL;
    if (res->result < 0 || res->status >= 300) {
        mu_docker_end_(b, -1, "workspace_setup", "The prompt could not be put into place: %.400s",
                       res->message ? res->message : "unexpected answer");
        return;
    }
    start(b);
}

static void upload(struct mu_docker_box *b)
{
    struct mu_buf tar MU_CLEANUP(mu_buf_wipe);
    mu_buf_init(&tar, MU_DOCKER_SPEC);
    b->phase = MU_DOCKER_UPLOAD;
    int r = mu_docker_files_(b, &tar);
    if (r == 0 && tar.len == 0) {
        start(b);
        return;
    }
    struct mu_engine_request req = {.method = "PUT",
                                    .type = "application/x-tar",
                                    .body = mu_buf_bytes(&tar),
                                    .done = on_uploaded,
                                    .arg = b,
                                    .timeout_ms = UPLOAD_MS};
    r = r < 0 ? r : mu_docker_ask_(b->d, &req, &b->call, "/containers/%s/archive?path=/", b->id);
    if (r < 0) {
        mu_docker_end_(b, -1, "workspace_setup", "%s", mu_err_text(r));
    }
}

/* --- create --- */

static bool take_id(struct mu_docker_box *b, mu_bytes body)
{
    struct mu_arena a;
    mu_arena_init(&a, 1 << 20);
    mu_bytes id = mu_json_get_bytes(mu_docker_json_(&a, body), "Id");
    bool ok = id.len > 0 && id.len < sizeof b->id;
    if (ok) {
        mu_engine_text(b->id, sizeof b->id, id);
    }
    mu_arena_fini(&a);
    return ok;
}

static void on_cleared(void *arg)
{
    struct mu_docker_box *b = arg;
    b->holds--;
    if (b->gone) {
        mu_docker_maybe_free_(b);
    } else if (b->phase == MU_DOCKER_CREATE) {
        create(b);
    }
}

/* A container of this name is in the way. It may go when an earlier try at this very execution left
 * it there. */
static void on_in_the_way(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    struct mu_arena a;
    b->call = NULL;
    mu_arena_init(&a, 16 << 20);
    yyjson_val *v = res->status == 200 ? mu_docker_json_(&a, res->body) : NULL;
    yyjson_val *labels = mu_json_get(mu_json_get(v, "Config"), "Labels");
    bool ours = mu_bytes_is(mu_json_get_bytes(labels, "oz.execution"), b->execution) &&
                mu_bytes_is(mu_json_get_bytes(labels, "oz.worker"), b->d->settings.worker_id);
    mu_arena_fini(&a);
    if (!ours) {
        mu_docker_end_(b, -1, "container_create", "A container named %s is there already", b->name);
        return;
    }
    b->holds++;
    if (mu_docker_remove_(b->d, b->name, on_cleared, b) < 0) {
        b->holds--;
        mu_docker_end_(b, -1, "container_create", "%s", mu_err_text(-ENOMEM));
    }
}

static void on_created(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    b->call = NULL;
    if (res->result == 0 && res->status == 409 && !b->cleared && !b->stopping) {
        const struct mu_engine_request req = {.method = "GET", .done = on_in_the_way, .arg = b};
        b->cleared = true;
        if (mu_docker_ask_(b->d, &req, &b->call, "/containers/%s/json", b->name) == 0) {
            return;
        }
    }
    if (res->result < 0 || res->status != 201 || !take_id(b, res->body)) {
        b->maybe_made = res->result < 0 || res->status < 400;
        mu_docker_end_(b, -1, b->stopping ? b->stop_reason : "container_create",
                       "The container could not be made: %.400s",
                       res->message ? res->message : "unexpected answer");
        return;
    }
    if (b->stopping) { /* meanwhile; release() takes it away */
        mu_docker_end_(b, -1, b->stop_reason, "Stopped before it began");
        return;
    }
    upload(b);
}

static void create(struct mu_docker_box *b)
{
    struct mu_buf body MU_CLEANUP(mu_buf_wipe);
    mu_buf_init(&body, MU_DOCKER_SPEC);
    b->phase = MU_DOCKER_CREATE;
    int r = mu_docker_body_(b, &body);
    const struct mu_engine_request req = {.method = "POST",
                                          .type = "application/json",
                                          .body = mu_buf_bytes(&body),
                                          .done = on_created,
                                          .arg = b,
                                          .timeout_ms = CREATE_MS};
    r = r < 0 ? r : mu_docker_ask_(b->d, &req, &b->call, "/containers/create?name=%s", b->name);
    if (r < 0) {
        mu_docker_end_(b, -1, "container_create", "%s", mu_err_text(r));
    }
}

/* --- sidecars, one after another: the standard one first --- */

static struct mu_docker_sidecar *sidecar(struct mu_docker_box *b)
{
    return &b->sidecars[b->at_sidecar];
}

static void on_volume(void *arg, int result, const char *text)
{
    struct mu_docker_box *b = arg;
    if (result < 0) {
        mu_docker_end_(b, -1, "sidecar_prep", "%s", text);
        return;
    }
    if (b->at_sidecar == 0) {
        if (!*text) {
            mu_docker_end_(b, -1, "sidecar_prep",
                           "The sidecar image '%.200s' holds no /entrypoint.sh",
                           sidecar(b)->image ? sidecar(b)->image : "builtin");
            return;
        }
        snprintf(b->entry, sizeof b->entry, "%s", text);
    }
    b->at_sidecar++;
    next_sidecar(b);
}

static void get_volume(struct mu_docker_box *b)
{
    struct mu_docker_sidecar *s = sidecar(b);
    b->want.done = on_volume;
    b->want.arg = b;
    int r = mu_docker_volume_get_(b->d, s->volume, s->image, b->spec.image, &b->want);
    if (r < 0) {
        mu_docker_end_(b, -1, "sidecar_prep", "%s", mu_err_text(r));
    }
}

static void on_bundle(void *arg, int result, const char *error)
{
    struct mu_docker_box *b = arg;
    if (result < 0) {
        mu_docker_end_(b, -1, "sidecar_prep", "%s", error);
        return;
    }
    snprintf(sidecar(b)->volume, MU_DOCKER_NAME, "%s", b->d->bundle.name);
    get_volume(b);
}

static void on_sidecar_image(void *arg, int result)
{
    struct mu_docker_box *b = arg;
    struct mu_docker_sidecar *s = sidecar(b);
    if (result < 0) {
        mu_docker_end_(b, -1, "sidecar_prep", "%s", b->image.error);
        return;
    }
    mu_docker_volume_name(s->volume, mu_str(s->image), b->image.id);
    get_volume(b);
}

static void next_sidecar(struct mu_docker_box *b)
{
    int r;
    if (b->at_sidecar == b->n_sidecars) {
        create(b);
        return;
    }
    struct mu_docker_sidecar *s = sidecar(b);
    if (s->image) {
        b->image.with_auth = false;
        b->image.done = on_sidecar_image;
        r = mu_docker_image_start_(&b->image, s->image);
    } else if (b->d->bundle.name[0]) {
        on_bundle(b, 0, NULL);
        return;
    } else {
        b->bundle_want.done = on_bundle;
        b->bundle_want.arg = b;
        r = mu_docker_bundle_get_(b->d, &b->bundle_want);
    }
    if (r < 0) {
        mu_docker_end_(b, -1, "sidecar_prep", "sidecar image '%.200s': %s",
                       s->image ? s->image : "builtin", mu_err_text(r));
    }
}

/* --- the task image --- */

static void on_image(void *arg, int result)
{
    struct mu_docker_box *b = arg;
    if (result < 0) {
        mu_docker_end_(b, -1, "image_pull", "%s", b->image.error);
        return;
    }
    snprintf(b->user, sizeof b->user, "%s", b->image.user);
    b->phase = MU_DOCKER_SIDECARS;
    next_sidecar(b);
}

static void on_progress(void *arg, const char *text)
{
    mu_docker_state_(arg, "preparing", text);
}

int mu_docker_prepare_(struct mu_docker_box *b)
{
    b->phase = MU_DOCKER_IMAGE;
    b->image.d = b->d;
    b->image.with_auth = true;
    b->image.progress = on_progress;
    b->image.done = on_image;
    b->image.arg = b;
    return mu_docker_image_start_(&b->image, b->spec.image);
}

/* A creation is waited for (or it would be nobody's), so is a start. */
void mu_docker_prep_stop_(struct mu_docker_box *b)
{
    if (b->phase == MU_DOCKER_CREATE || (b->phase == MU_DOCKER_START && b->call)) {
        return;
    }
    mu_docker_end_(b, -1, b->stop_reason, "Stopped before it began");
}
