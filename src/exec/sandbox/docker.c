/* The docker driver: one container a sandbox, through the engine's API (oz-worker.md 9.4). */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/encode.h"
#include "exec/sandbox/docker_int.h"

enum { GRACE_MS = 10000, LOG_BYTES = 8 << 20 };
static const int64_t FAR_MS = 365LL * 24 * 3600 * 1000;

/* --- driver --- */

/* The engine's usual places, when the operator named none. */
static const char *find_host(void)
{
    static const char *const places[] = {"/var/run/docker.sock", "/run/podman/podman.sock"};
    const char *host = getenv("DOCKER_HOST");
    if (host && *host) {
        return host;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(places); i++) {
        if (access(places[i], F_OK) == 0) {
            return places[i];
        }
    }
    return places[0];
}

static int check_settings(const struct mu_sandbox_settings *set, struct mu_err *err)
{
    const char *pull = set->pull && *set->pull ? set->pull : "missing";
    if (strcmp(pull, "missing") != 0 && strcmp(pull, "always") != 0 && strcmp(pull, "never") != 0) {
        return mu_err_set(err, MU_E_INVALID,
                          "the pull policy '%.40s' is none of missing, always, never", pull);
    }
    for (const char *const *v = set->volumes; v && *v; v++) {
        const char *colon = strchr(*v, ':');
        if (!colon || colon == *v || colon[1] != '/') {
            return mu_err_set(err, MU_E_INVALID,
                              "volume '%.200s': write HOST:CONTAINER or HOST:CONTAINER:MODE", *v);
        }
    }
    return 0;
}

static int docker_open(struct mu_loop *loop, const struct mu_sandbox_settings *settings,
                       struct mu_sandbox_driver **ret, struct mu_err *err)
{
    unsigned char noise[8];
    int r = check_settings(settings, err);
    if (r < 0) {
        return r;
    }
    struct mu_docker *d = mu_calloc(1, sizeof *d);
    if (!d) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    d->loop = loop;
    d->settings = *settings;
    mu_list_init(&d->boxes);
    mu_list_init(&d->buried);
    mu_list_init(&d->volumes);
    mu_list_init(&d->removals);
    mu_list_init(&d->reads);
    mu_list_init(&d->bundle.waiting);
    mu_buf_init(&d->bundle.tar, 0);
    settings->env->random(settings->env, noise, sizeof noise);
    mu_hex(noise, sizeof noise, d->instance);
    const char *host = settings->docker_host;
    r = mu_engine_new(loop, host && *host ? host : find_host(), &d->engine, err);
    if (r < 0) {
        mu_free(d);
        return r;
    }
    *ret = (struct mu_sandbox_driver *)d;
    return 0;
}

static struct mu_sandbox_driver *docker_close(struct mu_sandbox_driver *driver)
{
    struct mu_docker *d = (struct mu_docker *)driver;
    if (d) {
        MU_CHECK(mu_list_empty(&d->boxes));
        mu_docker_check_fini_(d);
        mu_docker_sweep_fini_(d);
        mu_docker_removals_fini_(d);
        mu_docker_reads_fini_(d);
        MU_LIST_EACH(it, tmp, &d->volumes)
        {
            mu_docker_volume_free_(MU_CONTAINER(it, struct mu_docker_volume, link));
        }
        MU_LIST_EACH(it, tmp, &d->buried)
        {
            struct mu_docker_box *b = MU_CONTAINER(it, struct mu_docker_box, link);
            b->holds = 0;
            mu_docker_maybe_free_(b);
        }
        mu_docker_bundle_fini_(d);
        mu_engine_free(d->engine);
        mu_free(d);
    }
    return NULL;
}

/* --- a box's life --- */

void mu_docker_maybe_free_(struct mu_docker_box *b)
{
    if (b->gone && b->holds == 0) {
        mu_list_remove(&b->link);
        mu_timer_clear(&b->bury);
        mu_arena_fini(&b->arena);
        mu_docker_shelf_unref_(b->shelf);
        mu_free(b);
    }
}

static void bury(struct mu_timer *t)
{
    mu_docker_maybe_free_(MU_CONTAINER(t, struct mu_docker_box, bury));
}

void mu_docker_drop_calls_(struct mu_docker_box *b)
{
    mu_docker_image_stop_(&b->image);
    mu_docker_want_stop_(&b->want);
    mu_list_remove(&b->bundle_want.link);
    b->call = mu_engine_cancel(b->call);
    b->wait = mu_engine_cancel(b->wait);
    b->logs = mu_engine_cancel(b->logs);
    b->hint = mu_engine_cancel(b->hint);
    b->kill = mu_engine_cancel(b->kill);
    b->hold = mu_engine_cancel(b->hold);
    b->frozen = NULL;
    mu_timer_clear(&b->again);
    mu_timer_clear(&b->peek);
    mu_timer_clear(&b->log_again);
    mu_timer_clear(&b->deadline);
    mu_timer_clear(&b->escalate);
}

/* The caller does not see it any more. */
static void forget(struct mu_docker_box *b)
{
    b->gone = true;
    mu_docker_drop_calls_(b);
    mu_timer_clear(&b->end);
    mu_list_remove(&b->link);
    mu_list_push(&b->d->buried, &b->link);
    MU_CHECK(mu_timer_set(&b->bury, 0) == 0);
}

void mu_docker_state_(struct mu_docker_box *b, const char *state, const char *detail)
{
    if (b->ev.state && !b->gone) {
        b->ev.state(b->arg, state, detail);
    }
}

static void tell_end(struct mu_timer *t)
{
    struct mu_docker_box *b = MU_CONTAINER(t, struct mu_docker_box, end);
    b->phase = MU_DOCKER_ENDED;
    if (b->result.failure_reason) {
        b->result.message = b->message;
    }
    b->ev.ended(b->arg, &b->result);
}

void mu_docker_end_(struct mu_docker_box *b, int exit_code, const char *reason, const char *fmt,
                    ...)
{
    va_list ap;
    if (b->phase >= MU_DOCKER_ENDING) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(b->message, sizeof b->message, fmt, ap);
    va_end(ap);
    b->phase = MU_DOCKER_ENDING;
    b->result.exit_code = exit_code;
    b->result.failure_reason = reason;
    mu_docker_drop_calls_(b);
    /* The place in the heap was taken when the box was made. */
    MU_CHECK(mu_timer_set(&b->end, 0) == 0);
}

/* --- start --- */

/* NULL-terminated list of texts; NULL stays NULL. */
static int copy_list(struct mu_arena *a, const char *const **list)
{
    size_t n = 0;
    while (*list && (*list)[n]) {
        n++;
    }
    const char **copy = mu_arena_calloc(a, (n + 1) * sizeof *copy);
    for (size_t i = 0; copy && i < n; i++) {
        copy[i] = mu_arena_dup(a, mu_str((*list)[i])).ptr;
        if (!copy[i]) {
            return -ENOMEM;
        }
    }
    *list = copy;
    return copy ? 0 : -ENOMEM;
}

static int copy_text(struct mu_arena *a, const char **text)
{
    if (*text) {
        *text = mu_arena_dup(a, mu_str(*text)).ptr;
        return *text ? 0 : -ENOMEM;
    }
    return 0;
}

static int copy_mounts(struct mu_arena *a, struct mu_sandbox_spec *s)
{
    struct mu_sandbox_mount *m = mu_arena_calloc(a, (s->n_mounts + 1) * sizeof *m);
    int r = m ? 0 : -ENOMEM;
    for (size_t i = 0; r == 0 && i < s->n_mounts; i++) {
        m[i] = s->mounts[i];
        r = copy_text(a, &m[i].source);
        r = r < 0 ? r : copy_text(a, &m[i].target);
    }
    s->mounts = m;
    return r;
}

static int copy_spec(struct mu_docker_box *b, const struct mu_sandbox_spec *spec)
{
    struct mu_sandbox_spec *s = &b->spec;
    *s = *spec;
    s->task_json = MU_B_NONE;
    s->checkouts = NULL; /* the runner clones inside; the worker says so in its log */
    s->n_checkouts = 0;
    s->execution_id = b->execution;
    s->base = s->broker_policy = NULL;
    s->image = s->image && *s->image ? s->image : "ubuntu:22.04";
    int r = copy_text(&b->arena, &s->image);
    r = r < 0 ? r : copy_text(&b->arena, &s->task_id);
    r = r < 0 ? r : copy_text(&b->arena, &s->sidecar_image);
    r = r < 0 ? r : copy_list(&b->arena, &s->env);
    r = r < 0 ? r : copy_list(&b->arena, &s->argv);
    r = r < 0 ? r : copy_mounts(&b->arena, s);
    if (r == 0 && s->prompt.ptr) {
        s->prompt = mu_arena_dup(&b->arena, s->prompt);
        r = s->prompt.ptr ? 0 : -ENOMEM;
    }
    return r;
}

static int list_sidecars(struct mu_docker_box *b)
{
    const struct mu_sandbox_spec *s = &b->spec;
    const char *image = s->sidecar_image;
    bool builtin = !image || !*image || !strcmp(image, "builtin");
    b->sidecars[0] =
        (struct mu_docker_sidecar){.image = builtin ? NULL : image, .target = "/agent"};
    b->n_sidecars = 1;
    for (size_t i = 0; i < s->n_mounts; i++) {
        if (!s->mounts[i].image) {
            continue;
        }
        if (b->n_sidecars == MU_DOCKER_MAX_SIDECARS) {
            return MU_E_LIMIT;
        }
        b->sidecars[b->n_sidecars++] =
            (struct mu_docker_sidecar){.image = s->mounts[i].source,
                                       .target = s->mounts[i].target,
                                       .writable = s->mounts[i].writable};
    }
    return 0;
}

static void on_again(struct mu_timer *t)
{
    struct mu_docker_box *b = MU_CONTAINER(t, struct mu_docker_box, again);
    if (b->phase == MU_DOCKER_IMAGE) {
        mu_docker_state_(b, "preparing", NULL);
        int r = b->gone || b->phase != MU_DOCKER_IMAGE ? 0 : mu_docker_prepare_(b);
        if (r < 0) {
            mu_docker_end_(b, -1, "image_pull", "image '%.200s': %s", b->spec.image,
                           r == MU_E_INVALID ? "that is no image's name" : mu_err_text(r));
        }
    } else {
        mu_docker_look_(b);
    }
}

static void box_free(struct mu_docker_box *b)
{
    mu_timer_clear(&b->end);
    mu_timer_clear(&b->bury);
    mu_timer_clear(&b->again);
    mu_arena_fini(&b->arena);
    mu_free(b);
}

static int box_new(struct mu_docker *d, const char *execution_id,
                   const struct mu_sandbox_events *events, void *arg, struct mu_docker_box **ret)
{
    struct mu_docker_box *b = mu_calloc(1, sizeof *b);
    if (!b) {
        return -ENOMEM;
    }
    b->d = d;
    b->ev = *events;
    b->arg = arg;
    b->result.exit_code = -1;
    b->grace_ms = GRACE_MS;
    b->log_max = LOG_BYTES;
    snprintf(b->execution, sizeof b->execution, "%s", execution_id);
    mu_arena_init(&b->arena, MU_DOCKER_SPEC);
    mu_list_init(&b->bundle_want.link);
    mu_list_init(&b->want.link);
    mu_timer_init(&b->again, d->loop, on_again);
    mu_timer_init(&b->end, d->loop, tell_end);
    mu_timer_init(&b->bury, d->loop, bury);
    mu_docker_run_init_(b);
    mu_docker_log_init_(b);
    /* Far away: what matters is that setting them later cannot fail. */
    int r = mu_timer_set(&b->end, FAR_MS);
    r = r < 0 ? r : mu_timer_set(&b->bury, FAR_MS);
    r = r < 0 ? r : mu_timer_set(&b->again, 0);
    if (r < 0) {
        box_free(b);
        return r;
    }
    *ret = b;
    return 0;
}

static int docker_start(struct mu_sandbox_driver *driver, const struct mu_sandbox_spec *spec,
                        const struct mu_sandbox_events *events, void *arg, struct mu_sandbox **ret)
{
    struct mu_docker *d = (struct mu_docker *)driver;
    struct mu_docker_box *b = NULL;
    int r = box_new(d, spec->execution_id, events, arg, &b);
    if (r < 0) {
        return r;
    }
    b->phase = MU_DOCKER_IMAGE;
    b->timeout_ms = MU_MAX(spec->timeout_ms, 0);
    b->grace_ms = spec->stop_grace_ms > 0 ? spec->stop_grace_ms : GRACE_MS;
    b->log_max = spec->log_bytes > 0 ? spec->log_bytes : LOG_BYTES;
    mu_docker_name(b->name, spec->task_id, spec->execution_id);
    r = copy_spec(b, spec);
    r = r < 0 ? r : list_sidecars(b);
    if (r < 0) {
        box_free(b);
        return r;
    }
    mu_list_push(&d->boxes, &b->link);
    *ret = (struct mu_sandbox *)b;
    return 0;
}

static int docker_adopt(struct mu_sandbox_driver *driver, const char *execution_id,
                        int64_t log_offset, const struct mu_sandbox_events *events, void *arg,
                        struct mu_sandbox **ret)
{
    struct mu_docker *d = (struct mu_docker *)driver;
    struct mu_docker_box *b = NULL;
    int r = box_new(d, execution_id, events, arg, &b);
    if (r < 0) {
        return r;
    }
    b->phase = MU_DOCKER_ADOPT;
    b->log_at = MU_MAX(log_offset, 0);
    mu_list_push(&d->boxes, &b->link);
    *ret = (struct mu_sandbox *)b;
    return 0;
}

/* --- stop, release, detach --- */

static void docker_stop(struct mu_sandbox *s, bool graceful, const char *reason)
{
    struct mu_docker_box *b = (struct mu_docker_box *)s;
    if (b->phase >= MU_DOCKER_COLLECT) {
        return;
    }
    if (!b->stopping) {
        b->stopping = true;
        b->graceful = graceful;
        b->stop_reason = reason;
    } else if (b->graceful && !graceful) {
        b->graceful = false;
        b->blows = 1; /* the next one is KILL */
    } else {
        return;
    }
    if (b->phase == MU_DOCKER_RUN) {
        if (!mu_docker_thaw_(b)) { /* what stands still does not hear of a stop */
            mu_docker_stop_(b);
        }
    } else if (b->phase != MU_DOCKER_ADOPT) {
        mu_docker_prep_stop_(b);
    }
}

static void docker_release(struct mu_sandbox *s, void (*done)(void *arg), void *arg)
{
    struct mu_docker_box *b = (struct mu_docker_box *)s;
    struct mu_docker *d = b->d;
    const char *id = d->settings.keep ? "" : b->maybe_made ? b->name : b->id;
    int r = mu_docker_remove_(d, id, done, arg);
    forget(b);
    if (r < 0) { /* for want of memory: the sweep takes it away */
        done(arg);
    }
}

static void docker_detach(struct mu_sandbox *s)
{
    forget((struct mu_docker_box *)s);
}

const struct mu_sandbox_ops mu_sandbox_docker = {
    .name = "docker",
    .open = docker_open,
    .close = docker_close,
    .check = mu_docker_check_,
    .start = docker_start,
    .adopt = docker_adopt,
    .stop = docker_stop,
    .freeze = mu_docker_freeze_,
    .read_file = mu_docker_read_file_,
    .release = docker_release,
    .detach = docker_detach,
    .sweep = mu_docker_sweep_,
};
