/* What a session that goes on elsewhere begins with: the files of its checkpoint and of those
 * before it, fetched into the folder of its socket, where its runner reads them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/crypt.h"
#include "base/encode.h"
#include "base/fd.h"
#include "base/log.h"
#include "io/folder.h"
#include "worker/worker_int.h"

enum {
    MANIFEST_BYTES = 4 << 20,
    MANIFEST_ARENA = 64 << 20,
    DEPTH = 16,
    PART_BYTES = 16 << 20,
    PARTS = 8192,
    TRIES = 5,
    TRY_MS = 500, /* doubles */
    FETCH_MS = 300000,
    TOO_MANY = 429
};
#define ALL_BYTES (INT64_C(4) << 30)

struct part {
    const char *name, *sha256; /* in the arena */
};

struct mu_fetching {
    struct mu_attempt *t; /* NULL: nobody waits any more, its job frees it */
    struct mu_arena arena;
    struct part *parts;
    size_t n, at;
    bool listed; /* the manifest is there */
    bool busy;   /* its job is under way */
    struct mu_buf body;
    int status; /* of the answer whose body it is */
    struct mu_job job;
    char folder[4200], file[4400];
    const char *digest; /* that the body has to have; NULL = any */
    int result;
    unsigned tries;
};

static void next(struct mu_fetching *f);

static void destroy(struct mu_fetching *f)
{
    mu_buf_fini(&f->body);
    mu_arena_fini(&f->arena);
    mu_free(f);
}

struct mu_fetching *mu_restore_free(struct mu_fetching *f)
{
    if (f && f->busy) {
        f->t = NULL;
    } else if (f) {
        destroy(f);
    }
    return NULL;
}

static void fail(struct mu_attempt *t, const char *what, const char *why)
{
    char text[240]; /* what it is about may go with what is freed */
    snprintf(text, sizeof text, "%s: %s", what, why);
    t->fetching = mu_restore_free(t->fetching);
    mu_attempt_fail(t, "restore_failed", "The session's checkpoint could not be fetched: %s", text);
}

static const char *here(const struct mu_fetching *f)
{
    return f->listed ? f->parts[f->at].name : "its list";
}

/* --- to the disk --- */

static int write_file(const char *path, mu_bytes b)
{
    MU_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0) {
        return -errno;
    }
    int r = mu_write_all(fd, b);
    return r < 0 ? r : fchmod(fd, 0644) < 0 ? -errno : 0; /* its reader is another user */
}

/* The folder of the socket, which is opened later, and ours in it. */
static int make_folders(const struct mu_fetching *f)
{
    char path[4200];
    const char *last = strrchr(f->folder, '/');
    snprintf(path, sizeof path, "%.*s", (int)(last - f->folder), f->folder);
    char *upper = strrchr(path, '/');
    *upper = 0;
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        return -errno;
    }
    *upper = '/';
    if ((mkdir(path, 0711) < 0 && errno != EEXIST) || chmod(path, 0711) < 0) {
        return -errno;
    }
    (void)mu_folder_remove(f->folder);
    return mkdir(f->folder, 0755) < 0 || chmod(f->folder, 0755) < 0 ? -errno : 0;
}

static void run_store(struct mu_job *job)
{
    struct mu_fetching *f = MU_CONTAINER(job, struct mu_fetching, job);
    mu_bytes body = mu_buf_bytes(&f->body);
    f->result = f->digest ? 0 : make_folders(f);
    if (f->digest && strcmp(mu_sha256_hex(body).text, f->digest) != 0) {
        f->result = MU_E_CORRUPT;
    }
    f->result = f->result ? f->result : write_file(f->file, body);
}

static void stored(struct mu_job *job)
{
    struct mu_fetching *f = MU_CONTAINER(job, struct mu_fetching, job);
    struct mu_attempt *t = f->t;
    f->busy = false;
    if (!t) {
        destroy(f);
        return;
    }
    int r = job->ran ? f->result : MU_E_SHUTDOWN;
    if (r < 0) {
        fail(t, here(f), r == MU_E_CORRUPT ? "it is not what was stored" : mu_err_text(r));
        return;
    }
    f->at += f->listed;
    f->listed = true;
    f->tries = 0;
    next(f);
}

static void store(struct mu_fetching *f, const char *name, const char *digest)
{
    struct mu_work *work = mu_worker_work(f->t->w);
    snprintf(f->file, sizeof f->file, "%s/%s", f->folder, name);
    f->digest = digest;
    f->job = (struct mu_job){.run = run_store, .done = stored, .loop = f->t->w->loop};
    int r = work ? mu_work_submit(work, &f->job) : -ENOMEM;
    if (r < 0) {
        fail(f->t, here(f), mu_err_text(r));
        return;
    }
    f->busy = true;
}

/* --- the list --- */

static bool good_name(mu_bytes name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!word && c != '-' && c != '.') {
            return false;
        }
    }
    return name.len > 5 && name.len < 64 && mu_bytes_starts(name, MU_B("ckpt-"));
}

static bool add_part(struct mu_fetching *f, yyjson_val *v, int64_t *all)
{
    mu_bytes name = mu_json_get_bytes(v, "name"), digest = mu_json_get_bytes(v, "sha256");
    int64_t bytes = mu_json_get_i64(v, "bytes", -1);
    if (f->n == PARTS || !good_name(name) || !mu_hex_is(digest, 64) || bytes < 0 ||
        bytes > PART_BYTES || (*all += bytes) > ALL_BYTES) {
        return false;
    }
    struct part *p = &f->parts[f->n++];
    *p = (struct part){mu_arena_dup(&f->arena, name).ptr, mu_arena_dup(&f->arena, digest).ptr};
    return p->name && p->sha256;
}

static bool read_list(struct mu_fetching *f)
{
    const struct mu_json_limits limits = {.max_bytes = MANIFEST_BYTES, .max_depth = DEPTH};
    yyjson_val *root, *one, *part;
    size_t i, n, k, m;
    int64_t all = 0;
    f->parts = mu_arena_calloc(&f->arena, PARTS * sizeof *f->parts);
    if (!f->parts || mu_json_read(&f->arena, mu_buf_bytes(&f->body), &limits, &root, NULL) < 0) {
        return false;
    }
    yyjson_val *list = mu_json_get(root, "checkpoints");
    if (!yyjson_is_arr(list) || !yyjson_arr_size(list)) {
        return false;
    }
    yyjson_arr_foreach(list, i, n, one)
    {
        yyjson_val *parts = mu_json_get(one, "parts");
        if (!yyjson_is_arr(parts)) {
            return false;
        }
        yyjson_arr_foreach(parts, k, m, part)
        {
            if (!add_part(f, part, &all)) {
                return false;
            }
        }
    }
    return true;
}

/* --- from the server --- */

static int on_body(void *arg, int status, mu_bytes piece)
{
    struct mu_attempt *t = arg;
    struct mu_fetching *f = t->fetching;
    if (status == 200 && f) {
        mu_buf_add(&f->body, piece);
        return f->body.failed;
    }
    return 0;
}

static void on_retry(struct mu_timer *timer)
{
    next(MU_CONTAINER(timer, struct mu_attempt, retry)->fetching);
}

static void arrived(struct mu_fetching *f)
{
    struct mu_attempt *t = f->t;
    if (!f->listed && !read_list(f)) {
        fail(t, here(f), "it is not usable");
    } else if (!f->listed) {
        store(f, "checkpoint.json", NULL);
    } else {
        store(f, f->parts[f->at].name, f->parts[f->at].sha256);
    }
}

static void on_done(void *arg, const struct mu_fetch_result *result)
{
    struct mu_attempt *t = arg;
    struct mu_fetching *f = t->fetching;
    t->prompt_fetch = NULL;
    if (t->stop_reason) {
        t->fetching = mu_restore_free(f);
        mu_attempt_start(t);
        return;
    }
    if (result->end == MU_FETCH_OK && result->status == 200 && !f->body.failed) {
        arrived(f);
        return;
    }
    bool final = result->end == MU_FETCH_ABORTED || result->end == MU_FETCH_TOO_LARGE ||
                 f->body.failed ||
                 (result->status >= 400 && result->status < 500 && result->status != TOO_MANY);
    t->retry.fn = on_retry;
    if (final || ++f->tries >= TRIES || mu_timer_set(&t->retry, (int64_t)TRY_MS << f->tries) < 0) {
        char why[160];
        snprintf(why, sizeof why, "%s (status %d)", result->text ? result->text : "no answer",
                 result->status);
        fail(t, here(f), why);
    }
}

static int get(struct mu_attempt *t, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "/api/v1/agent/runs/%s/checkpoint%s%s", t->task_id, name ? "/" : "",
             name ? name : "");
    const struct mu_fetch_request req = {.method = "GET",
                                         .total_ms = FETCH_MS,
                                         .max_bytes = name ? PART_BYTES : MANIFEST_BYTES,
                                         .body_fn = on_body,
                                         .done = on_done,
                                         .arg = t};
    return mu_attempt_ask(t, mu_str(path), mu_str(t->token), NULL, req, &t->prompt_fetch);
}

static void next(struct mu_fetching *f)
{
    struct mu_attempt *t = f->t;
    if (t->stop_reason) {
        t->fetching = mu_restore_free(f);
        mu_attempt_start(t);
        return;
    }
    mu_buf_fini(&f->body);
    mu_buf_init(&f->body, f->listed ? PART_BYTES : MANIFEST_BYTES);
    if (f->listed && f->at == f->n) {
        mu_log(MU_LOG_INFO, "task.checkpoint_fetched", MU_KC("task_id", t->task_id),
               MU_KI("parts", (int64_t)f->n));
        t->fetching = mu_restore_free(f);
        t->restores = true;
        mu_checkouts_run(t);
        return;
    }
    int r = get(t, f->listed ? f->parts[f->at].name : NULL);
    if (r < 0) {
        fail(t, here(f), mu_err_text(r));
    }
}

void mu_restore_run(struct mu_attempt *t)
{
    if (!t->as.restore || t->stop_reason) {
        mu_checkouts_run(t);
        return;
    }
    if (!t->token || !t->w->conf->server_root_url) {
        fail(t, "its list", "there is nobody to ask, or no token to ask with");
        return;
    }
    struct mu_fetching *f = mu_calloc(1, sizeof *f);
    if (!f) {
        fail(t, "its list", mu_err_text(-ENOMEM));
        return;
    }
    mu_arena_init(&f->arena, MANIFEST_ARENA);
    mu_buf_init(&f->body, MANIFEST_BYTES);
    f->t = t;
    int n = snprintf(f->folder, sizeof f->folder, "%s/link/%s/restore", t->w->conf->state_dir,
                     t->execution_id);
    t->fetching = f;
    t->has_folder = true;
    if (n >= (int)sizeof f->folder) {
        fail(t, "its folder", mu_err_text(-ENAMETOOLONG));
        return;
    }
    mu_attempt_tell_state(t, "preparing", "checkpoint");
    next(f);
}
