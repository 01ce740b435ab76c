/* POST /api/v1/keys/rotate-admin: a new admin key into the 0600 file of the data folder; the old
 * one is void at once. */
#include <errno.h>

#include "base/encode.h"
#include "base/log.h"
#include "io/key_file.h"
#include "main/server.h"

struct rotating {
    struct mu_call *c;
    struct mu_job job;
    char key[4 + 64 + 2]; /* with the newline of the file */
    int result;
};

static void run(struct mu_job *job)
{
    struct rotating *r = MU_CONTAINER(job, struct rotating, job);
    struct mu_server *s = MU_CONTAINER(mu_call_app(r->c), struct mu_server, oz);
    r->key[sizeof r->key - 2] = '\n';
    r->result = mu_key_file_write(s->first_conf->data_dir, "admin.key",
                                  mu_bytes_of(r->key, sizeof r->key - 1), true);
    r->key[sizeof r->key - 2] = 0;
    if (r->result == 0) {
        mu_identity_set_admin_key(s->d.identity, r->key);
    }
}

static void done(struct mu_job *job)
{
    struct rotating *r = MU_CONTAINER(job, struct rotating, job);
    struct mu_server *s = MU_CONTAINER(mu_call_app(r->c), struct mu_server, oz);
    atomic_store(&s->keys_busy, false);
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
    explicit_bzero(r->key, sizeof r->key);
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
    if (!atomic_load(&s->admin_key_in_file)) {
        mu_call_error(c, 400, "invalid_field", "OZ_ADMIN_API_KEY",
                      "the admin key is set by OZ_ADMIN_API_KEY: change it there and restart");
        return;
    }
    /* One at a time, and not while a reload has read the file: it would bring the old key back. */
    if (atomic_exchange(&s->keys_busy, true)) {
        mu_call_fail(c, MU_E_BUSY);
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
        atomic_store(&s->keys_busy, false);
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
