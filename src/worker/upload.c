/* Files of a task, one after the other: PUT /api/v1/agent/runs/{run}/files/{name} with the session
 * token (oz-worker.md 16). */
#include <stdio.h>

#include "base/log.h"
#include "worker/worker_int.h"

enum {
    MAX_FILE = 32 << 20, /* what the server takes */
    TRIES = 6,
    TRY_MS = 500, /* doubles */
    UPLOAD_MS = 300000,
    TOO_MANY = 429
};

static void next_file(struct mu_attempt *t);

static struct mu_attempt_file *here(struct mu_attempt *t)
{
    return &t->collect.files[t->collect.at_file];
}

static void give_up(struct mu_attempt *t, const char *why)
{
    mu_log(MU_LOG_WARN, "task.file_not_uploaded", MU_KC("task_id", t->task_id),
           MU_KC("name", here(t)->name), MU_KC("err_message", why));
    t->collect.failed_files++;
    t->collect.at_file++;
    next_file(t);
}

static void on_retry(struct mu_timer *timer)
{
    next_file(MU_CONTAINER(timer, struct mu_attempt, retry));
}

static void on_done(void *arg, const struct mu_fetch_result *result)
{
    struct mu_attempt *t = arg;
    struct mu_collect *c = &t->collect;
    c->upload = NULL;
    if (result->end == MU_FETCH_OK && result->status >= 200 && result->status < 300) {
        c->tries = 0;
        c->at_file++;
        next_file(t);
        return;
    }
    bool final = result->status >= 400 && result->status < 500 && result->status != TOO_MANY;
    t->retry.fn = on_retry;
    if (final || ++c->tries >= TRIES || t->w->phase >= MU_PHASE_STOPPING ||
        mu_timer_set(&t->retry, (int64_t)TRY_MS << c->tries) < 0) {
        c->tries = 0;
        give_up(t, final ? "the server refused it" : result->text ? result->text : "no answer");
    }
}

int mu_upload_start(struct mu_attempt *t, const struct mu_upload *up, struct mu_fetch **ret)
{
    char path[512];
    snprintf(path, sizeof path, "/api/v1/agent/runs/%s/files/%s", t->task_id, up->name);
    const struct mu_fetch_request req = {.method = "PUT",
                                         .body = up->content,
                                         .total_ms = UPLOAD_MS,
                                         .max_bytes = 65536,
                                         .done = up->done,
                                         .arg = up->arg};
    return mu_attempt_ask(t, mu_str(path), mu_str(t->token), up->media_type, req, ret);
}

static void on_content(void *arg, int result, mu_bytes bytes)
{
    struct mu_attempt *t = arg;
    const struct mu_upload up = {here(t)->name, here(t)->media_type, bytes, on_done, t};
    int r = result < 0 ? result : mu_upload_start(t, &up, &t->collect.upload);
    if (r < 0) {
        give_up(t, r == MU_E_TOO_LARGE ? "larger than 32 MiB" : mu_err_text(r));
    }
}

static void next_file(struct mu_attempt *t)
{
    struct mu_collect *c = &t->collect;
    if (c->at_file >= c->n_files || !t->w->conf->server_root_url) {
        mu_attempt_collected(t);
        return;
    }
    t->backend->ops->read_file(t->sandbox, here(t)->path, MAX_FILE, on_content, t);
}

void mu_collect_files(struct mu_attempt *t)
{
    t->collect.tries = 0;
    next_file(t);
}
