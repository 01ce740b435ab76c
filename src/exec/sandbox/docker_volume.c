/* Volumes that hold the root of a sidecar image, or the bundle, for every task that mounts them.
 * One is filled through the archive of a container that is never started and mounts it; its marker
 * goes in last, so a half-filled one is never used (oz-worker.md 9.4). */
#include <errno.h>
#include <stdio.h>

#include "exec/engine/tar.h"
#include "exec/sandbox/docker_int.h"

#define MARKER ".oz-ready"

enum { PIECE = 256 << 10, HIGH_WATER = 1 << 20, FILL_IDLE_MS = 300000 };

static void make_target(struct mu_docker_volume *v);

void mu_docker_volume_name(char dst[MU_DOCKER_NAME], mu_bytes ref, const char *id)
{
    mu_bytes name, tag, digest = mu_str(id);
    mu_docker_ref_split(ref, &name, &tag);
    mu_bytes host = mu_docker_ref_host(name);
    if (host.len == 0 && mu_bytes_starts(name, MU_B("library/"))) {
        name = mu_bytes_from(name, 8);
    }
    ptrdiff_t colon = mu_bytes_find_char(digest, ':');
    digest = mu_bytes_head(mu_bytes_from(digest, (size_t)(colon + 1)), 12);
    snprintf(dst, MU_DOCKER_NAME, "%.*s-%.*s", (int)MU_MIN(name.len, 100u), name.ptr,
             MU_ARGS(digest));
    for (char *p = dst; *p; p++) {
        char low = (char)(*p | 0x20);
        bool kept = (*p >= '0' && *p <= '9') || (low >= 'a' && low <= 'z') || *p == '_' ||
                    *p == '.' || *p == '-';
        *p = kept ? *p : '-';
    }
}

/* --- end --- */

static void tell(struct mu_timer *t)
{
    struct mu_docker_volume *v = MU_CONTAINER(t, struct mu_docker_volume, later);
    struct mu_list *it, all;
    char error[MU_DOCKER_TEXT], entry[sizeof v->entry];
    int result = v->result;
    v->busy = false;
    snprintf(entry, sizeof entry, "%s", v->entry);
    snprintf(error, sizeof error, "%s", v->error);
    mu_list_init(&all);
    while ((it = mu_list_pop(&v->wants))) {
        mu_list_push(&all, it);
    }
    while ((it = mu_list_pop(&all))) {
        struct mu_docker_want *w = MU_CONTAINER(it, struct mu_docker_want, link);
        w->volume = NULL;
        w->done(w->arg, result, result < 0 ? error : entry);
    }
}

static void drop_helper(struct mu_docker_volume *v, char id[MU_DOCKER_ID])
{
    if (id[0]) {
        int r = mu_docker_remove_(v->d, id, NULL, NULL);
        (void)r; /* without memory it stays for the sweep */
        id[0] = 0;
    }
}

static void ignore(void *arg, const struct mu_engine_result *res)
{
    (void)arg;
    (void)res;
}

static void over(struct mu_docker_volume *v, int result)
{
    v->call = mu_engine_cancel(v->call);
    v->export = mu_engine_cancel(v->export);
    v->result = result;
    v->ready = result == 0;
    drop_helper(v, v->source);
    drop_helper(v, v->target);
    if (result < 0 && v->filling) {
        /* In use by others, or by the helper that is going away: then its lack of a marker tells.
         */
        const struct mu_engine_request req = {.method = "DELETE", .done = ignore};
        struct mu_engine_call *call;
        int r = mu_docker_ask_(v->d, &req, &call, "/volumes/%s?force=1", v->name);
        (void)r;
    }
    v->filling = false;
    if (mu_timer_set(&v->later, 0) < 0) {
        tell(&v->later);
    }
}

static void fail(struct mu_docker_volume *v, int code, const char *what, const char *why)
{
    snprintf(v->error, sizeof v->error, "%s '%.120s'%s%s: %.250s", what, v->name,
             v->image[0] ? " of image " : "", v->image, why ? why : mu_err_text(code));
    over(v, code);
}

/* Takes the call's answer: true when it is a success, else the volume has failed. */
static bool went_well(struct mu_docker_volume *v, const struct mu_engine_result *res,
                      const char *what)
{
    if (res->result < 0 || res->status >= 300) {
        fail(v, res->result < 0 ? res->result : MU_E_UNAVAILABLE, what, res->message);
        return false;
    }
    return true;
}

/* `req` only without body of its own: method, done and the streams. */
static void ask(struct mu_docker_volume *v, struct mu_engine_request req,
                struct mu_engine_call **ret, const char *path, const char *id, const char *more)
{
    req.arg = v;
    int r = mu_docker_ask_(v->d, &req, ret, "%s%s%s", path, id, more);
    if (r < 0) {
        fail(v, r, "sidecar volume", NULL);
    }
}

/* --- what is in it --- */

static void on_entry_old(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_volume *v = arg;
    v->call = NULL;
    if (res->result == 0 && res->status == 200) {
        snprintf(v->entry, sizeof v->entry, "/agent/agent/entrypoint.sh");
    }
    over(v, res->result);
}

static void on_entry(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_volume *v = arg;
    v->call = NULL;
    v->entry[0] = 0;
    if (res->result == 0 && res->status == 200) {
        snprintf(v->entry, sizeof v->entry, "/agent/entrypoint.sh");
    } else if (res->result == 0) {
        /* Where the reference's own sidecar image has it. */
        ask(v, (struct mu_engine_request){.method = "HEAD", .done = on_entry_old}, &v->call,
            "/containers/", v->target, "/archive?path=/agent/agent/entrypoint.sh");
        return;
    }
    over(v, res->result);
}

static void find_entry(struct mu_docker_volume *v)
{
    ask(v, (struct mu_engine_request){.method = "HEAD", .done = on_entry}, &v->call, "/containers/",
        v->target, "/archive?path=/agent/entrypoint.sh");
}

/* --- filling --- */

static void on_marked(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_volume *v = arg;
    v->call = NULL;
    if (went_well(v, res, "filling of sidecar volume")) {
        v->filling = false;
        find_entry(v);
    }
}

static void put_marker(struct mu_docker_volume *v)
{
    struct mu_buf tar;
    mu_buf_init(&tar, 8192);
    mu_tar_add_file(&tar, MARKER, 0444, MU_B("1\n"));
    mu_tar_add_end(&tar);
    if (tar.failed) {
        fail(v, tar.failed, "sidecar volume", NULL);
    } else {
        ask(v,
            (struct mu_engine_request){.method = "PUT",
                                       .type = "application/x-tar",
                                       .body = mu_buf_bytes(&tar),
                                       .done = on_marked},
            &v->call, "/containers/", v->target, "/archive?path=/agent");
    }
    mu_buf_fini(&tar);
}

static void on_filled(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_volume *v = arg;
    v->call = NULL;
    if (!went_well(v, res, "filling of sidecar volume")) {
        return;
    }
    if (!v->image[0] && v->sent != v->d->bundle.tar.len) {
        fail(v, MU_E_PROTOCOL, "sidecar volume", "the engine did not take the whole archive");
    } else if (v->export) { /* the archive's end mark was enough for it: the rest is padding */
        v->filled = true;
        mu_engine_resume(v->export);
    } else {
        put_marker(v);
    }
}

/* The bundle goes in from memory … */
static void bundle_writable(void *arg, struct mu_engine_call *call)
{
    struct mu_docker_volume *v = arg;
    mu_bytes rest = mu_bytes_from(mu_buf_bytes(&v->d->bundle.tar), v->sent);
    mu_bytes piece = mu_bytes_head(rest, PIECE);
    bool sent = mu_engine_send(call, piece) == 0;
    v->sent += sent ? piece.len : 0;
    if (!sent || piece.len == rest.len) {
        mu_engine_send_end(call); /* without memory: on_filled() sees that it was not all */
    }
}

/* … an image from its export; what the one end does not take, the other does not give. */
static int on_export(void *arg, mu_bytes piece)
{
    struct mu_docker_volume *v = arg;
    int r = v->call ? mu_engine_send(v->call, piece) : 0;
    if (r == 0 && v->call && mu_engine_unsent(v->call) > HIGH_WATER) {
        mu_engine_pause(v->export);
    }
    return r;
}

static void on_exported(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_volume *v = arg;
    v->export = NULL;
    if (!went_well(v, res, "export for sidecar volume")) {
        return;
    }
    if (v->call) {
        mu_engine_send_end(v->call);
    } else if (v->filled) {
        put_marker(v);
    }
}

static void image_writable(void *arg, struct mu_engine_call *call)
{
    struct mu_docker_volume *v = arg;
    (void)call;
    if (v->export) {
        mu_engine_resume(v->export);
        return;
    }
    if (v->sent == 0) {
        v->sent = 1;
        ask(v,
            (struct mu_engine_request){.method = "GET",
                                       .on_body = on_export,
                                       .done = on_exported,
                                       .timeout_ms = FILL_IDLE_MS},
            &v->export, "/containers/", v->source, "/export");
    }
}

static void fill(struct mu_docker_volume *v)
{
    v->sent = 0;
    v->filled = false;
    ask(v,
        (struct mu_engine_request){.method = "PUT",
                                   .type = "application/x-tar",
                                   .on_writable = v->image[0] ? image_writable : bundle_writable,
                                   .done = on_filled,
                                   .timeout_ms = FILL_IDLE_MS},
        &v->call, "/containers/", v->target, "/archive?path=/agent");
}

/* --- helpers --- */

static int helper_id(const struct mu_engine_result *res, char id[MU_DOCKER_ID])
{
    struct mu_arena a;
    mu_arena_init(&a, 1 << 20);
    mu_bytes text = mu_json_get_bytes(mu_docker_json_(&a, res->body), "Id");
    bool ok = text.len > 0 && text.len < MU_DOCKER_ID;
    if (ok) {
        mu_engine_text(id, MU_DOCKER_ID, text);
    }
    mu_arena_fini(&a);
    return ok ? 0 : MU_E_PROTOCOL;
}

static void make_helper(struct mu_docker_volume *v, const char *image, const char *volume,
                        void (*done)(void *, const struct mu_engine_result *))
{
    struct mu_buf body;
    mu_buf_init(&body, 64 << 10);
    int r = mu_docker_helper_body_(v->d, image, volume, &body);
    if (r < 0) {
        fail(v, r, "sidecar volume", NULL);
    } else {
        ask(v,
            (struct mu_engine_request){.method = "POST",
                                       .type = "application/json",
                                       .body = mu_buf_bytes(&body),
                                       .done = done,
                                       .timeout_ms = 120000},
            &v->call, "/containers/create", "", "");
    }
    mu_buf_fini(&body);
}

static void on_source(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_volume *v = arg;
    v->call = NULL;
    if (!went_well(v, res, "container for sidecar volume")) {
        return;
    }
    if (helper_id(res, v->source) < 0) {
        fail(v, MU_E_PROTOCOL, "container for sidecar volume", "no id in the engine's answer");
        return;
    }
    fill(v);
}

static void on_marker(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_volume *v = arg;
    v->call = NULL;
    if (res->result == 0 && res->status == 200) {
        find_entry(v);
    } else if (res->result == 0 && res->status == 404) {
        v->filling = true;
        if (v->image[0]) {
            make_helper(v, v->image, NULL, on_source);
        } else {
            fill(v);
        }
    } else {
        fail(v, res->result < 0 ? res->result : MU_E_UNAVAILABLE, "sidecar volume", res->message);
    }
}

static void on_target(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_volume *v = arg;
    v->call = NULL;
    if (!went_well(v, res, "container for sidecar volume")) {
        return;
    }
    if (helper_id(res, v->target) < 0) {
        fail(v, MU_E_PROTOCOL, "container for sidecar volume", "no id in the engine's answer");
        return;
    }
    ask(v, (struct mu_engine_request){.method = "HEAD", .done = on_marker}, &v->call,
        "/containers/", v->target, "/archive?path=/agent/" MARKER);
}

static void make_target(struct mu_docker_volume *v)
{
    make_helper(v, v->image[0] ? v->image : v->helper_image, v->name, on_target);
}

/* --- the volume itself --- */

static void remember_created(struct mu_docker_volume *v, const struct mu_engine_result *res,
                             bool *ret_same)
{
    struct mu_arena a;
    char created[sizeof v->created];
    mu_arena_init(&a, 1 << 20);
    mu_engine_text(created, sizeof created,
                   mu_json_get_bytes(mu_docker_json_(&a, res->body), "CreatedAt"));
    *ret_same = strcmp(created, v->created) == 0;
    snprintf(v->created, sizeof v->created, "%s", created);
    mu_arena_fini(&a);
}

static void on_created(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_volume *v = arg;
    bool same;
    v->call = NULL;
    if (went_well(v, res, "sidecar volume")) {
        remember_created(v, res, &same);
        make_target(v);
    }
}

static void create(struct mu_docker_volume *v)
{
    char text[2 * MU_DOCKER_NAME];
    int n =
        snprintf(text, sizeof text, "{\"Name\":\"%s\",\"Labels\":{\"oz.managed\":\"1\"}}", v->name);
    ask(v,
        (struct mu_engine_request){.method = "POST",
                                   .type = "application/json",
                                   .body = mu_bytes_of(text, (size_t)n),
                                   .done = on_created},
        &v->call, "/volumes/create", "", "");
}

static void on_volume(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_volume *v = arg;
    bool same;
    v->call = NULL;
    if (res->result == 0 && res->status == 404) {
        create(v);
    } else if (went_well(v, res, "sidecar volume")) {
        remember_created(v, res, &same);
        if (v->ready && same) { /* it is the one that was looked into */
            over(v, 0);
        } else {
            make_target(v);
        }
    }
}

static void check(struct mu_docker_volume *v)
{
    v->busy = true;
    v->error[0] = 0;
    ask(v, (struct mu_engine_request){.method = "GET", .done = on_volume}, &v->call, "/volumes/",
        v->name, "");
}

/* --- the list --- */

static struct mu_docker_volume *find(struct mu_docker *d, const char *name)
{
    MU_LIST_EACH(it, tmp, &d->volumes)
    {
        struct mu_docker_volume *v = MU_CONTAINER(it, struct mu_docker_volume, link);
        if (!strcmp(v->name, name)) {
            return v;
        }
    }
    return NULL;
}

static struct mu_docker_volume *add(struct mu_docker *d, const char *name, const char *image)
{
    MU_LIST_EACH(it, tmp, &d->volumes)
    {
        struct mu_docker_volume *old = MU_CONTAINER(it, struct mu_docker_volume, link);
        if (d->n_volumes >= MU_DOCKER_VOLUMES && !old->busy) {
            mu_docker_volume_free_(old); /* it is looked into again when it is wanted again */
        }
    }
    struct mu_docker_volume *v = d->n_volumes < MU_DOCKER_VOLUMES ? mu_calloc(1, sizeof *v) : NULL;
    if (v) {
        v->d = d;
        snprintf(v->name, sizeof v->name, "%s", name);
        snprintf(v->image, sizeof v->image, "%s", image ? image : "");
        mu_list_init(&v->wants);
        mu_timer_init(&v->later, d->loop, tell);
        mu_list_push(&d->volumes, &v->link);
        d->n_volumes++;
    }
    return v;
}

int mu_docker_volume_get_(struct mu_docker *d, const char *name, const char *image,
                          const char *helper, struct mu_docker_want *want)
{
    struct mu_docker_volume *v = find(d, name);
    v = v ? v : add(d, name, image);
    if (!v) {
        return d->n_volumes >= MU_DOCKER_VOLUMES ? MU_E_LIMIT : -ENOMEM;
    }
    want->volume = v;
    mu_list_push(&v->wants, &want->link);
    if (!v->busy) {
        snprintf(v->helper_image, sizeof v->helper_image, "%s", helper);
        check(v);
    }
    return 0;
}

void mu_docker_want_stop_(struct mu_docker_want *w)
{
    if (w->volume) { /* the volume is made ready all the same: others will want it */
        mu_list_remove(&w->link);
        w->volume = NULL;
    }
}

void mu_docker_volume_free_(struct mu_docker_volume *v)
{
    mu_engine_cancel(v->call);
    mu_engine_cancel(v->export);
    mu_timer_clear(&v->later);
    mu_list_remove(&v->link);
    v->d->n_volumes--;
    mu_free(v);
}
