/* POST /api/v1/keys/rotate-admin: a new admin key into the 0600 file of the data folder; the old
 * one is void at once. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/encode.h"
#include "base/log.h"
#include "main/server.h"

struct rotating {
    struct mu_call *c;
    struct mu_job job;
    char key[4 + 64 + 1];
    int result;
};

static int write_key(const char *dir, const char *key)
{
    char tmp[1100], path[1100];
    snprintf(tmp, sizeof tmp, "%s/admin.key.tmp", dir);
    snprintf(path, sizeof path, "%s/admin.key", dir);
    MU_AUTO_CLOSE int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    size_t len = strlen(key);
    if (write(fd, key, len) != (ssize_t)len || write(fd, "\n", 1) != 1 || fsync(fd) < 0 ||
        rename(tmp, path) < 0) {
        int r = -errno;
        unlink(tmp);
        return r ? r : MU_E_IO;
    }
    MU_AUTO_CLOSE int folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return folder < 0 || fsync(folder) < 0 ? MU_E_IO : 0;
}

static void run(struct mu_job *job)
{
    struct rotating *r = MU_CONTAINER(job, struct rotating, job);
    struct mu_server *s = MU_CONTAINER(mu_call_app(r->c), struct mu_server, oz);
    struct mu_err err;
    r->result = write_key(s->conf->data_dir, r->key);
    if (r->result == 0) {
        r->result = mu_identity_reload(s->identity, r->key, &err);
    }
}

static void done(struct mu_job *job)
{
    struct rotating *r = MU_CONTAINER(job, struct rotating, job);
    if (!job->ran || r->result < 0) {
        mu_call_fail(r->c, job->ran ? r->result : MU_E_SHUTDOWN);
        return;
    }
    mu_log(MU_LOG_WARN, "admin_key.rotated", MU_KS("req_id", mu_call_request_id(r->c)));
    struct mu_json_w w = mu_json_w(mu_call_buf(r->c));
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "key", r->key);
    mu_jw_kstr(&w, "request_id", mu_call_request_id(r->c));
    mu_jw_obj_end(&w);
    mu_call_send(r->c, 200);
}

static void rotate(struct mu_call *c)
{
    struct mu_server *s = MU_CONTAINER(mu_call_app(c), struct mu_server, oz);
    struct rotating *r = mu_arena_calloc(mu_call_arena(c), sizeof *r);
    if (!r) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    if (!s->admin_key_in_file) {
        mu_call_error(c, 400, "invalid_field", "OZ_ADMIN_API_KEY",
                      "the admin key is set by OZ_ADMIN_API_KEY: change it there and restart");
        return;
    }
    unsigned char raw[32];
    s->env->random(s->env, raw, sizeof raw);
    memcpy(r->key, "adm_", 4);
    mu_hex(raw, sizeof raw, r->key + 4);
    explicit_bzero(raw, sizeof raw);
    r->c = c;
    r->job = (struct mu_job){.run = run, .done = done, .loop = mu_call_loop(c)};
    int res = mu_work_submit(s->work, &r->job);
    if (res < 0) {
        mu_call_fail(c, res);
    }
}

const struct mu_route mu_server_routes[] = {
    {.method = MU_HTTP_POST,
     .path = "/api/v1/keys/rotate-admin",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_ADMIN,
     .handler = rotate,
     .id = "rotateAdminKey",
     .summary = "Replace the generated admin key; the old one is void at once.",
     .response = "AdminKey",
     .errors = "503"},
    {.path = NULL}};
