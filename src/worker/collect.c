/* Results: what the runner left in /workspace/.oz, what is found in the output (oz-worker.md 13.5,
 * 14). */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "base/log.h"
#include "proto/links.h"
#include "worker/worker_int.h"

#define RESULT_PATH "/workspace/.oz/result.json"
#define OUTPUT_PATH "/workspace/.oz/agent_output.txt"
#define WORKSPACE   "/workspace/"
enum {
    MAX_RESULT = 1 << 20,
    MAX_RESULT_ARENA = 8 << 20,
    RESULT_DEPTH = 32,
    ARTIFACT_BYTES = 16 << 10, /* of one */
    ARTIFACTS_BYTES = 1 << 20,
    LINK_BYTES = 2048
};

void mu_collect_fini(struct mu_collect *c)
{
    mu_buf_fini(&c->output);
    mu_buf_fini(&c->artifacts);
    mu_free(c->session_link);
    mu_free(c->files);
}

/* --- result.json: nothing in it is trusted beyond this task --- */

static bool good_name(mu_bytes name)
{
    if (name.len == 0 || name.len > 128 || name.ptr[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && c != '.' && c != '_' && c != '-') {
            return false;
        }
    }
    return true;
}

static bool good_type(mu_bytes type)
{
    for (size_t i = 0; i < type.len; i++) {
        if (type.ptr[i] < ' ' || type.ptr[i] > '~') {
            return false;
        }
    }
    return type.len > 0 && type.len < sizeof((struct mu_attempt_file *)0)->media_type;
}

static void take_files(struct mu_attempt *t, yyjson_val *files)
{
    struct mu_collect *c = &t->collect;
    size_t i, n;
    yyjson_val *v;
    if (!yyjson_is_arr(files) || !t->token) {
        return;
    }
    c->files = mu_calloc(MU_WORKER_MAX_FILES, sizeof *c->files);
    if (!c->files) {
        return;
    }
    yyjson_arr_foreach(files, i, n, v)
    {
        mu_bytes path = mu_json_get_bytes(v, "path"), name = mu_json_get_bytes(v, "name");
        mu_bytes type = mu_json_get_bytes(v, "media_type");
        struct mu_attempt_file *f = &c->files[c->n_files];
        if (c->n_files == MU_WORKER_MAX_FILES) {
            mu_log(MU_LOG_WARN, "task.too_many_files", MU_KC("task_id", t->task_id));
            return;
        }
        if (!mu_bytes_starts(path, MU_B(WORKSPACE)) || path.len >= sizeof f->path ||
            memchr(path.ptr, 0, path.len) || !good_name(name)) {
            continue;
        }
        snprintf(f->path, sizeof f->path, "%.*s", MU_ARGS(path));
        snprintf(f->name, sizeof f->name, "%.*s", MU_ARGS(name));
        type = good_type(type) ? type : MU_B("application/octet-stream");
        snprintf(f->media_type, sizeof f->media_type, "%.*s", MU_ARGS(type));
        c->n_files++;
    }
}

static void take_artifacts(struct mu_collect *c, yyjson_val *list)
{
    size_t i, n;
    yyjson_val *v;
    if (!yyjson_is_arr(list)) {
        return;
    }
    yyjson_arr_foreach(list, i, n, v)
    {
        struct mu_buf one;
        if (c->n_artifacts >= MU_MAX_ARTIFACTS || !mu_json_get_bytes(v, "artifact_type").len) {
            continue;
        }
        mu_buf_init(&one, ARTIFACT_BYTES);
        mu_json_add(&one, v);
        if (!one.failed && c->artifacts.len + one.len + 1 <= c->artifacts.max) {
            mu_buf_add_str(&c->artifacts, c->n_artifacts ? "," : "");
            mu_buf_add(&c->artifacts, mu_buf_bytes(&one));
            c->n_artifacts += !c->artifacts.failed;
        }
        mu_buf_fini(&one);
    }
}

static void read_result(struct mu_attempt *t, mu_bytes text)
{
    const struct mu_json_limits limits = {.max_bytes = MAX_RESULT, .max_depth = RESULT_DEPTH};
    struct mu_arena arena;
    struct mu_err err;
    yyjson_val *root;
    mu_arena_init(&arena, MAX_RESULT_ARENA);
    if (mu_json_read(&arena, text, &limits, &root, &err) < 0) {
        mu_log(MU_LOG_WARN, "task.bad_result", MU_KC("task_id", t->task_id),
               MU_KC("err_message", err.text));
        mu_arena_fini(&arena);
        return;
    }
    mu_bytes phase = mu_json_get_bytes(root, "phase");
    snprintf(t->collect.phase, sizeof t->collect.phase, "%.*s",
             (int)MU_MIN(phase.len, sizeof t->collect.phase - 1), phase.ptr ? phase.ptr : "");
    mu_bytes message = mu_json_get_bytes(root, "message");
    if (!message.len || !memchr(message.ptr, 0, message.len)) {
        message = mu_utf8_cut(message, sizeof t->collect.message - 1);
        snprintf(t->collect.message, sizeof t->collect.message, "%.*s", MU_ARGS(message));
    }
    mu_bytes link = mu_json_get_bytes(root, "session_link");
    if (link.len && link.len <= LINK_BYTES && !memchr(link.ptr, 0, link.len)) {
        t->collect.session_link = mu_bytes_dup(link);
    }
    take_artifacts(&t->collect, mu_json_get(root, "artifacts"));
    take_files(t, mu_json_get(root, "files"));
    mu_arena_fini(&arena);
}

/* --- the output --- */

/* Output that is the container's log may come from an engine that was asked by others and carries
 * its frame headers; ours are taken off by the driver. */
static void search_output(struct mu_attempt *t)
{
    struct mu_collect *c = &t->collect;
    mu_bytes text = mu_buf_bytes(&c->output);
    mu_kept_pull_requests(text, mu_env_wall_ms(t->w->env), &c->artifacts, &c->n_artifacts);
    if (!c->session_link) {
        mu_bytes link = mu_find_session_link(text);
        c->session_link = link.len ? mu_bytes_dup(link) : NULL;
    }
}

static void on_output(void *arg, int result, mu_bytes bytes)
{
    struct mu_attempt *t = arg;
    struct mu_collect *c = &t->collect;
    size_t limit = (size_t)t->w->conf->output_limit;
    bool some = (result == 0 || result == MU_E_TOO_LARGE) && bytes.len;
    if (some) {
        mu_kept_cut(bytes, (int64_t)bytes.len + (result == MU_E_TOO_LARGE), limit, &c->output);
    }
    if (!some || c->output.failed) { /* none of its own: what the sandbox said */
        mu_buf_clear(&c->output);
        mu_kept_write(&t->log, &c->output);
    }
    if (c->output.failed) {
        mu_log(MU_LOG_WARN, "task.output_dropped", MU_KC("task_id", t->task_id),
               MU_KC("err_message", mu_err_text(c->output.failed)));
        mu_buf_fini(&c->output);
        mu_buf_init(&c->output, 1);
    }
    mu_clip_fini(&t->log);
    search_output(t);
    mu_collect_files(t);
}

static void on_result(void *arg, int result, mu_bytes bytes)
{
    struct mu_attempt *t = arg;
    if (result == 0) {
        read_result(t, bytes);
    }
    t->backend->ops->read_file(t->sandbox, OUTPUT_PATH, (size_t)t->w->conf->output_limit, on_output,
                               t);
}

void mu_collect_run(struct mu_attempt *t)
{
    struct mu_collect *c = &t->collect;
    mu_buf_init(&c->output, (size_t)t->w->conf->output_limit + 4096);
    mu_buf_init(&c->artifacts, ARTIFACTS_BYTES);
    t->backend->ops->read_file(t->sandbox, RESULT_PATH, MAX_RESULT, on_result, t);
}
