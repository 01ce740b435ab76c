/* Checkpoints on their way out of a sandbox and back into one (docs/runner-protocol.md): with the
 * session token, by the worker. They are no files of the run. */
#include <errno.h>

#include "app/sessions/checkpoints.h"
#include "base/encode.h"
#include "face/oz/oz_int.h"

/* --- a part comes --- */

struct storing {
    struct mu_call *c;
    struct mu_job job;
    struct mu_checkpoint_put put;
    int stored, result;
};

static void answer(struct storing *x)
{
    struct mu_call *c = x->c;
    const struct mu_checkpoint_put *p = &x->put;
    if (x->result == MU_E_STALE) {
        mu_call_error(c, 409, "attempt_over", NULL, "This attempt is over; nothing was taken");
    } else if (x->result == MU_E_LIMIT) {
        mu_call_error(c, 413, "too_many_files", "name",
                      "The session keeps as much of its checkpoints as it may "
                      "(OZ_CHECKPOINT_MAX_MB)");
    } else if (x->result < 0) {
        mu_call_fail(c, x->result);
    } else {
        struct mu_json_w w = mu_json_w(mu_call_buf(c));
        mu_jw_obj(&w);
        mu_jw_kstr(&w, "name", p->name);
        mu_jw_kcstr(&w, "media_type", "application/octet-stream");
        mu_jw_ki64(&w, "bytes", p->bytes);
        mu_jw_kcstr(&w, "sha256", p->sha256.text);
        mu_call_send_object(c, &w);
    }
}

static void remove_object(struct mu_job *job)
{
    struct storing *x = MU_CONTAINER(job, struct storing, job);
    mu_files_remove(mu_oz(x->c)->files, mu_id_bytes(&x->put.object));
}

static void object_removed(struct mu_job *job)
{
    answer(MU_CONTAINER(job, struct storing, job));
}

/* An object without a row is nobody's; one that was replaced has a row that is dead. */
static void put(struct mu_checkpoint_put *op, int result)
{
    struct storing *x = op->ctx;
    x->result = result;
    x->job =
        (struct mu_job){.run = remove_object, .done = object_removed, .loop = mu_call_loop(x->c)};
    if (result >= 0 || mu_work_submit(mu_oz(x->c)->work, &x->job) < 0) {
        answer(x);
    }
}

static void store(struct mu_job *job)
{
    struct storing *x = MU_CONTAINER(job, struct storing, job);
    mu_bytes body = mu_call_raw_body(x->c);
    x->put.sha256 = mu_sha256_hex(body);
    x->stored = mu_files_put(mu_oz(x->c)->files, &x->put.object, body);
}

static void stored(struct mu_job *job)
{
    struct storing *x = MU_CONTAINER(job, struct storing, job);
    if (!job->ran || x->stored < 0) {
        mu_call_fail(x->c, job->ran ? x->stored : MU_E_SHUTDOWN);
        return;
    }
    int r = mu_checkpoint_put(mu_oz(x->c)->sessions, &x->put);
    if (r < 0) {
        put(&x->put, r);
    }
}

bool mu_oz_put_part(struct mu_call *c, const struct mu_id *run, mu_bytes name)
{
    int64_t epoch, number, own = mu_call_principal(c)->run_epoch;
    if (!mu_checkpoint_name(name, &epoch, &number) || epoch != own) {
        return false;
    }
    mu_bytes body = mu_call_raw_body(c);
    if (body.len > MU_CHECKPOINT_PART_BYTES) {
        mu_call_error(c, 413, "payload_too_large", NULL,
                      "A part of a checkpoint has at most %d MiB", MU_CHECKPOINT_PART_BYTES >> 20);
        return true;
    }
    struct storing *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return true;
    }
    x->c = c;
    x->put = (struct mu_checkpoint_put){.unit = {.loop = mu_call_loop(c)},
                                        .session = *run,
                                        .object = mu_id_new(mu_oz(c)->env, NULL),
                                        .epoch = own,
                                        .name = name,
                                        .bytes = (int64_t)body.len,
                                        .done = put,
                                        .ctx = x};
    x->job = (struct mu_job){.run = store, .done = stored, .loop = mu_call_loop(c)};
    int r = mu_work_submit(mu_oz(c)->work, &x->job);
    if (r < 0) {
        mu_call_fail(c, r);
    }
    return true;
}

/* --- what the attempt begins with --- */

struct reading {
    struct mu_call *c;
    struct mu_checkpoint_chain chain;
    struct mu_checkpoint_find find;
    struct mu_json_w w;
    struct mu_job job;
    int result;
};

/* NULL: answered. */
static struct reading *reading_new(struct mu_call *c, struct mu_id *ret_run)
{
    struct reading *x = mu_oz_own_run(c, ret_run) ? mu_call_new(c, sizeof *x) : NULL;
    if (x) {
        x->c = c;
    }
    return x;
}

static int add_checkpoint(void *arg, const struct mu_checkpoint_row *k)
{
    struct reading *x = arg;
    struct mu_json_w *w = &x->w;
    mu_jw_obj(w);
    mu_jw_kstr(w, "id", k->id);
    mu_jw_ki64(w, "number", k->number);
    if (k->prev) {
        mu_jw_ki64(w, "prev", k->prev);
    }
    if (k->turn_id.ptr) {
        mu_jw_kstr(w, "turnId", k->turn_id);
    }
    if (k->conversation.ptr) {
        mu_jw_kstr(w, "conversationId", k->conversation);
    }
    mu_jw_ki64(w, "bytes", k->bytes);
    if (k->manifest.len > 2) { /* an object: its members */
        mu_buf_add_char(w->buf, ',');
        mu_buf_add(w->buf, mu_bytes_of(k->manifest.ptr + 1, k->manifest.len - 2));
    }
    mu_jw_obj_end(w);
    return w->buf->failed;
}

static void chain_read(struct mu_checkpoint_chain *op, int result)
{
    struct reading *x = op->ctx;
    if (result < 0) {
        mu_call_fail(x->c, result);
        return;
    }
    mu_jw_arr_end(&x->w);
    mu_call_send_object(x->c, &x->w);
}

static void get_checkpoint(struct mu_call *c)
{
    struct mu_id run;
    struct reading *x = reading_new(c, &run);
    if (!x) {
        return;
    }
    x->w = mu_json_w(mu_call_buf(c));
    mu_jw_obj(&x->w);
    mu_jw_key(&x->w, "checkpoints");
    mu_jw_arr(&x->w);
    x->chain = (struct mu_checkpoint_chain){.read = {.loop = mu_call_loop(c)},
                                            .session = run,
                                            .epoch = mu_call_principal(c)->run_epoch,
                                            .each = add_checkpoint,
                                            .arg = x,
                                            .done = chain_read,
                                            .ctx = x};
    int r = mu_checkpoint_chain(mu_oz(c)->sessions, &x->chain);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

static void read_object(struct mu_job *job)
{
    struct reading *x = MU_CONTAINER(job, struct reading, job);
    x->result = mu_files_get(mu_oz(x->c)->files, mu_id_bytes(&x->find.object), mu_call_buf(x->c));
}

static void object_read(struct mu_job *job)
{
    struct reading *x = MU_CONTAINER(job, struct reading, job);
    if (!job->ran || x->result < 0) {
        mu_call_fail(x->c, job->ran ? x->result : MU_E_SHUTDOWN);
    } else {
        mu_call_send(x->c, 200);
    }
}

static void part_found(struct mu_checkpoint_find *op, int result)
{
    struct reading *x = op->ctx;
    if (result >= 0) {
        x->job =
            (struct mu_job){.run = read_object, .done = object_read, .loop = mu_call_loop(x->c)};
        result = mu_work_submit(mu_oz(x->c)->work, &x->job);
    }
    if (result < 0) {
        mu_call_fail(x->c, result);
    }
}

static void get_part(struct mu_call *c)
{
    struct mu_id run;
    struct reading *x = reading_new(c, &run);
    if (!x) {
        return;
    }
    x->find = (struct mu_checkpoint_find){.read = {.loop = mu_call_loop(c)},
                                          .session = run,
                                          .epoch = mu_call_principal(c)->run_epoch,
                                          .name = mu_call_param(c, "name"),
                                          .done = part_found,
                                          .ctx = x};
    int r = mu_checkpoint_find(mu_oz(c)->sessions, &x->find);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

const struct mu_route mu_oz_checkpoint_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/agent/runs/{runID}/checkpoint",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_RUN,
     .handler = get_checkpoint,
     .id = "getRunCheckpoint",
     .summary = "The checkpoint that this attempt of a live session begins with, and those that it "
                "needs, oldest first (session token).",
     .errors = "404 503"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/agent/runs/{runID}/checkpoint/{name}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_RUN,
     .handler = get_part,
     .id = "downloadRunCheckpointPart",
     .summary = "The bytes of one of its parts (session token).",
     .media = "application/octet-stream",
     .errors = "404 503"},
    {.path = NULL}};
