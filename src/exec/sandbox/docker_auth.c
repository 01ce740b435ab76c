/* The credentials of a registry, from the configuration file of the docker command (config.json
 * below DOCKER_CONFIG or ~/.docker). Credential helpers are not run. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <uv.h>

#include "base/encode.h"
#include "exec/sandbox/docker_int.h"

enum { MAX_CONFIG = 1 << 20 };

struct mu_docker_auth {
    uv_work_t work;
    void (*done)(void *arg, const char *header); /* NULL: nobody waits any more */
    void *arg;
    char path[4096], image[512];
    struct mu_buf header;
};

/* Docker's own registry goes by a legacy URL in the file. */
static bool is_entry_of(mu_bytes key, mu_bytes host)
{
    ptrdiff_t scheme = mu_bytes_find(key, MU_B("://"));
    key = scheme >= 0 ? mu_bytes_from(key, (size_t)scheme + 3) : key;
    if (host.len == 0) {
        return mu_bytes_starts(key, MU_B("index.docker.")) && mu_bytes_ends(key, MU_B("/v1/"));
    }
    mu_bytes rest = key, name = mu_bytes_split(&rest, '/');
    return mu_bytes_eq_nocase(name, host);
}

static yyjson_val *entry_of(yyjson_val *auths, mu_bytes host, mu_bytes *ret_key)
{
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach(auths, i, n, key, value)
    {
        if (is_entry_of(mu_json_bytes(key), host)) {
            *ret_key = mu_json_bytes(key);
            return value;
        }
    }
    return NULL;
}

static void add_field(struct mu_json_w *w, const char *name, mu_bytes value)
{
    if (value.len) {
        mu_jw_kstr(w, name, value);
    }
}

/* {"username",…} as the engine wants it, out of an entry of the file. */
static int auth_json(yyjson_val *entry, mu_bytes key, struct mu_buf *dst)
{
    struct mu_buf pair MU_CLEANUP(mu_buf_wipe);
    mu_buf_init(&pair, 64 << 10);
    mu_bytes user = mu_json_get_bytes(entry, "username");
    mu_bytes password = mu_json_get_bytes(entry, "password");
    mu_bytes auth = mu_json_get_bytes(entry, "auth");
    if (auth.len) {
        int r = mu_base64_decode(auth, &pair);
        if (r < 0) {
            return r;
        }
        password = mu_buf_bytes(&pair);
        user = mu_bytes_split(&password, ':');
        while (password.len && password.ptr[password.len - 1] == 0) {
            password.len--;
        }
    }
    if (user.len == 0) {
        return MU_E_NOT_FOUND;
    }
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "username", user);
    add_field(&w, "password", password);
    add_field(&w, "identitytoken", mu_json_get_bytes(entry, "identitytoken"));
    add_field(&w, "registrytoken", mu_json_get_bytes(entry, "registrytoken"));
    mu_jw_kstr(&w, "serveraddress", key);
    mu_jw_obj_end(&w);
    return dst->failed;
}

int mu_docker_auth_header(mu_bytes config, mu_bytes image, struct mu_buf *dst)
{
    struct mu_buf json MU_CLEANUP(mu_buf_wipe);
    struct mu_arena a;
    mu_bytes name, tag, key = MU_B_NONE;
    mu_docker_ref_split(image, &name, &tag);
    mu_buf_init(&json, 64 << 10);
    mu_arena_init(&a, 16 * MAX_CONFIG);
    yyjson_val *v = mu_docker_json_(&a, config);
    yyjson_val *entry = entry_of(mu_json_get(v, "auths"), mu_docker_ref_host(name), &key);
    int r = !v ? MU_E_INVALID : !entry ? MU_E_NOT_FOUND : auth_json(entry, key, &json);
    mu_arena_fini(&a);
    if (r < 0) {
        return r;
    }
    mu_buf_add_str(dst, "X-Registry-Auth: ");
    size_t at = dst->len;
    mu_base64_add(dst, mu_buf_bytes(&json));
    for (size_t i = at; i < dst->len; i++) { /* the alphabet for URLs */
        char c = dst->ptr[i];
        dst->ptr[i] = (char)(c == '+' ? '-' : c == '/' ? '_' : c);
    }
    mu_buf_add_str(dst, "\r\n");
    mu_buf_add(dst, mu_bytes_of("", 1));
    return dst->failed;
}

static void read_config(uv_work_t *w)
{
    struct mu_docker_auth *a = w->data;
    struct mu_buf text MU_CLEANUP(mu_buf_wipe);
    MU_AUTO_CLOSE int fd = open(a->path, O_RDONLY | O_CLOEXEC);
    mu_buf_init(&text, MAX_CONFIG);
    for (ssize_t n = 1; fd >= 0 && n > 0;) {
        char *p = mu_buf_room(&text, 4096);
        n = p ? read(fd, p, 4096) : 0;
        text.len += n > 0 ? (size_t)n : 0;
    }
    if (text.failed ||
        mu_docker_auth_header(mu_buf_bytes(&text), mu_str(a->image), &a->header) < 0) {
        mu_buf_wipe(&a->header);
    }
}

static void read_done(uv_work_t *w, int status)
{
    struct mu_docker_auth *a = w->data;
    (void)status;
    if (a->done) {
        a->done(a->arg, a->header.len ? a->header.ptr : NULL);
    }
    mu_buf_wipe(&a->header);
    mu_free(a);
}

int mu_docker_auth_start_(struct mu_docker *d, mu_bytes image,
                          void (*done)(void *arg, const char *header), void *arg,
                          struct mu_docker_auth **ret)
{
    struct mu_docker_auth *a = mu_calloc(1, sizeof *a);
    if (!a) {
        return -ENOMEM;
    }
    const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
    a->work.data = a;
    a->done = done;
    a->arg = arg;
    mu_buf_init(&a->header, 128 << 10);
    snprintf(a->path, sizeof a->path, "%s%s/config.json",
             dir && *dir ? dir
             : home      ? home
                         : "",
             dir && *dir ? "" : "/.docker");
    snprintf(a->image, sizeof a->image, "%.*s", MU_ARGS(image));
    int r = uv_queue_work(mu_loop_uv(d->loop), &a->work, read_config, read_done);
    if (r < 0) {
        mu_free(a);
        return r;
    }
    *ret = a;
    return 0;
}

void mu_docker_auth_stop_(struct mu_docker_auth *a)
{
    a->done = NULL;
    uv_cancel((uv_req_t *)&a->work);
}
