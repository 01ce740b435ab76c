/* An image that is to be on the engine: looked for, pulled as the policy says, compared with the
 * engine's platform (oz-worker.md 9.1 rows 1-3, 9.4). */
#include <stdio.h>

#include "exec/sandbox/docker_int.h"

enum { PULL_IDLE_MS = 600000 };

static void look(struct mu_docker_image *im);
static void pull(struct mu_docker_image *im, const char *auth);

/* --- references --- */

void mu_docker_ref_split(mu_bytes ref, mu_bytes *ret_name, mu_bytes *ret_tag)
{
    ptrdiff_t at = mu_bytes_find_char(ref, '@');
    mu_bytes name = at >= 0 ? mu_bytes_head(ref, (size_t)at) : ref;
    mu_bytes tag = at >= 0 ? mu_bytes_from(ref, (size_t)at + 1) : MU_B("latest");
    for (size_t i = name.len; i > 0 && name.ptr[i - 1] != '/'; i--) {
        if (name.ptr[i - 1] == ':') {
            tag = at >= 0 ? tag : mu_bytes_from(name, i);
            name = mu_bytes_head(name, i - 1);
            break;
        }
    }
    *ret_name = name;
    *ret_tag = tag;
}

mu_bytes mu_docker_ref_host(mu_bytes name)
{
    ptrdiff_t slash = mu_bytes_find_char(name, '/');
    mu_bytes first = mu_bytes_head(name, slash < 0 ? 0 : (size_t)slash);
    bool host = mu_bytes_find_char(first, '.') >= 0 || mu_bytes_find_char(first, ':') >= 0 ||
                mu_bytes_is(first, "localhost");
    return host ? first : MU_B("");
}

/* --- steps --- */

static void over(struct mu_docker_image *im, int result)
{
    im->working = false;
    mu_pull_fini(&im->pull);
    im->done(im->arg, result);
}

/* A call that could not even be made. */
static void unmade(struct mu_docker_image *im, int code)
{
    snprintf(im->error, sizeof im->error, "%s", mu_err_text(code));
    over(im, code);
}

/* Asks for the image, as the engine has it. */
static int ask(struct mu_docker_image *im,
               void (*done)(void *arg, const struct mu_engine_result *res))
{
    const struct mu_engine_request req = {
        .method = "GET", .done = done, .arg = im, .max_body = MU_DOCKER_ANSWER};
    char ref[3 * sizeof im->ref];
    int r = mu_docker_escape_(ref, sizeof ref, mu_str(im->ref));
    return r < 0 ? r : mu_docker_ask_(im->d, &req, &im->call, "/images/%s/json", ref);
}

static bool is_policy(const struct mu_docker_image *im, const char *policy)
{
    const char *p = im->d->settings.pull;
    return !strcmp(p && *p ? p : "missing", policy);
}

static void on_auth(void *arg, const char *header)
{
    struct mu_docker_image *im = arg;
    im->auth = NULL;
    pull(im, header);
}

static void start_pull(struct mu_docker_image *im)
{
    if (!im->with_auth) {
        pull(im, NULL);
        return;
    }
    int r = mu_docker_auth_start_(im->d, mu_str(im->ref), on_auth, im, &im->auth);
    if (r < 0) {
        unmade(im, r);
    }
}

static void on_version(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_image *im = arg;
    struct mu_arena a;
    im->call = NULL;
    mu_arena_init(&a, 1 << 20);
    yyjson_val *v = res->status == 200 ? mu_docker_json_(&a, res->body) : NULL;
    if (v) {
        mu_engine_text(im->d->os, sizeof im->d->os, mu_json_get_bytes(v, "Os"));
        mu_engine_text(im->d->arch, sizeof im->d->arch, mu_json_get_bytes(v, "Arch"));
        start_pull(im);
    } else {
        snprintf(im->error, sizeof im->error, "%s",
                 res->message ? res->message : "the engine does not tell its version");
        over(im, res->result < 0 ? res->result : MU_E_PROTOCOL);
    }
    mu_arena_fini(&a);
}

/* The platform goes with it: known from the check, or asked for now. */
static void begin_pull(struct mu_docker_image *im)
{
    const struct mu_engine_request req = {
        .method = "GET", .done = on_version, .arg = im, .max_body = 256 << 10};
    im->pulled = true;
    if (im->progress) {
        im->progress(im->arg, "pulling");
    }
    if (!im->working) {
        return; /* stopped by who was told */
    }
    if (im->d->arch[0]) {
        start_pull(im);
        return;
    }
    int r = mu_docker_ask_(im->d, &req, &im->call, "/version");
    if (r < 0) {
        unmade(im, r);
    }
}

/* The image is there: is it for this machine? */
static void found(struct mu_docker_image *im, yyjson_val *v)
{
    mu_bytes arch = mu_json_get_bytes(v, "Architecture"), os = mu_json_get_bytes(v, "Os");
    yyjson_val *digests = mu_json_get(v, "RepoDigests");
    mu_bytes id = mu_json_bytes(yyjson_arr_get_first(digests));
    if ((arch.len && im->d->arch[0] && !mu_bytes_is(arch, im->d->arch)) ||
        (os.len && im->d->os[0] && !mu_bytes_is(os, im->d->os))) {
        snprintf(im->error, sizeof im->error,
                 "the image '%.200s' is for %.*s/%.*s, the engine runs %s/%s", im->ref,
                 (int)MU_MIN(os.len, 20u), os.ptr, (int)MU_MIN(arch.len, 20u), arch.ptr, im->d->os,
                 im->d->arch);
        over(im, MU_E_INVALID);
        return;
    }
    ptrdiff_t at = mu_bytes_find_char(id, '@');
    id = at >= 0 ? mu_bytes_from(id, (size_t)at + 1) : mu_json_get_bytes(v, "Id");
    mu_engine_text(im->id, sizeof im->id, id);
    mu_engine_text(im->user, sizeof im->user, mu_json_get_bytes(mu_json_get(v, "Config"), "User"));
    over(im, 0);
}

static void on_look(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_image *im = arg;
    im->call = NULL;
    if (res->result == 0 && res->status == 200) {
        struct mu_arena a;
        mu_arena_init(&a, 16 << 20);
        yyjson_val *v = mu_docker_json_(&a, res->body);
        if (v) {
            found(im, v);
        } else {
            snprintf(im->error, sizeof im->error,
                     "the engine's answer about '%.200s' is unreadable", im->ref);
            over(im, MU_E_PROTOCOL);
        }
        mu_arena_fini(&a);
        return;
    }
    if (res->result == 0 && res->status == 404 && !im->pulled && !is_policy(im, "never")) {
        begin_pull(im);
        return;
    }
    if (res->result == 0 && res->status == 404 && !im->pulled) {
        snprintf(im->error, sizeof im->error,
                 "the image '%.200s' is not on the engine, and the worker may not pull", im->ref);
    } else if (!im->error[0]) { /* what the pull said tells more */
        snprintf(im->error, sizeof im->error, "image '%.200s': %s", im->ref,
                 res->message ? res->message : "unexpected answer");
    }
    over(im, res->result < 0 ? res->result : MU_E_NOT_FOUND);
}

static void look(struct mu_docker_image *im)
{
    int r = ask(im, on_look);
    if (r < 0) {
        unmade(im, r);
    }
}

static int pull_body(void *arg, mu_bytes piece)
{
    struct mu_docker_image *im = arg;
    int r = mu_pull_feed(&im->pull, piece);
    if (!im->working) { /* stopped by who was told */
        mu_pull_fini(&im->pull);
        return MU_E_CANCELLED;
    }
    return r;
}

/* An error of the registry is none of the task's when the image is there. */
static void on_pulled(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_image *im = arg;
    im->call = NULL;
    if (res->result < 0 || res->status >= 400) {
        snprintf(im->error, sizeof im->error, "pull of '%.150s': %.300s", im->ref,
                 res->message ? res->message : "unexpected answer");
    } else if (im->pull.failed) {
        snprintf(im->error, sizeof im->error, "pull of '%.150s': %.300s", im->ref, im->pull.error);
    } else if (mu_pull_end(&im->pull) < 0) {
        snprintf(im->error, sizeof im->error, "pull of '%.150s' was cut off", im->ref);
    }
    look(im);
}

static void on_status(void *arg, const char *status)
{
    struct mu_docker_image *im = arg;
    if (im->progress) {
        im->progress(im->arg, status);
    }
}

static void pull(struct mu_docker_image *im, const char *auth)
{
    struct mu_engine_request req = {.method = "POST",
                                    .headers = auth,
                                    .done = on_pulled,
                                    .on_body = pull_body,
                                    .arg = im,
                                    .timeout_ms = PULL_IDLE_MS};
    char name[3 * sizeof im->ref], tag[3 * sizeof im->ref];
    mu_bytes n, t;
    mu_docker_ref_split(mu_str(im->ref), &n, &t);
    int r = mu_docker_escape_(name, sizeof name, n);
    r = r < 0 ? r : mu_docker_escape_(tag, sizeof tag, t);
    mu_pull_init(&im->pull, on_status, im);
    r = r < 0 ? r
              : mu_docker_ask_(im->d, &req, &im->call,
                               "/images/create?fromImage=%s&tag=%s&platform=%s/%s", name, tag,
                               im->d->os, im->d->arch);
    if (r < 0) {
        unmade(im, r);
    }
}

/* Names come from outside and go into a path. */
static bool well_formed(mu_bytes ref)
{
    for (size_t i = 0; i < ref.len; i++) {
        char c = ref.ptr[i], low = (char)(c | 0x20);
        bool alnum = (c >= '0' && c <= '9') || (low >= 'a' && low <= 'z');
        if (!alnum && (i == 0 || !memchr("._-/:@", c, 6))) {
            return false;
        }
    }
    return ref.len > 0 && mu_bytes_find(ref, MU_B("..")) < 0 && mu_bytes_find(ref, MU_B("//")) < 0;
}

int mu_docker_image_start_(struct mu_docker_image *im, const char *ref)
{
    int r;
    im->error[0] = im->id[0] = im->user[0] = 0;
    im->pulled = false;
    if (strlen(ref) >= sizeof im->ref || !well_formed(mu_str(ref))) {
        return MU_E_INVALID;
    }
    snprintf(im->ref, sizeof im->ref, "%s", ref);
    mu_pull_init(&im->pull, NULL, NULL);
    im->working = true;
    if (is_policy(im, "always")) {
        begin_pull(im);
        return 0;
    }
    r = ask(im, on_look);
    im->working = r == 0;
    return r;
}

void mu_docker_image_stop_(struct mu_docker_image *im)
{
    im->call = mu_engine_cancel(im->call);
    if (im->auth) {
        mu_docker_auth_stop_(im->auth);
        im->auth = NULL;
    }
    mu_pull_fini(&im->pull);
    im->working = false;
}
