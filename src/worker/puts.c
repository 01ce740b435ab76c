/* Files that the runner of a live session wants stored while it runs: its checkpoints. One after
 * the other, through its back end, as an upload of the attempt; the runner hears of each. */
#include <errno.h>
#include <stdio.h>

#include "base/crypt.h"
#include "base/log.h"
#include "worker/worker_int.h"

#define PLACE "/workspace/.oz/checkpoint/"
enum {
    MAX_FILE = 16 << 20,
    MAX_WAITING = 64,
    TRIES = 6,
    TRY_MS = 500, /* doubles */
    TOO_MANY = 429,
    ANSWER = 4096
};

struct put {
    struct mu_list link;
    struct mu_puts *owner; /* NULL: nobody waits for it any more */
    int64_t id;
    char path[512], name[129];
    bool busy; /* one of its callbacks is to come */
    unsigned tries;
    struct mu_timer retry;
    struct mu_fetch *fetch;
    struct mu_job job;
    char *content;
    size_t len;
    struct mu_digest_hex sha256;
};

struct mu_puts {
    struct mu_attempt *t;
    struct mu_list waiting; /* the first one is under way */
    size_t n;
};

struct mu_puts *mu_puts_new(struct mu_attempt *t)
{
    struct mu_puts *p = mu_calloc(1, sizeof *p);
    if (p) {
        p->t = t;
        mu_list_init(&p->waiting);
    }
    return p;
}

static void put_free(struct put *x)
{
    mu_timer_clear(&x->retry);
    mu_free(x->content);
    mu_free(x);
}

struct mu_puts *mu_puts_free(struct mu_puts *p)
{
    if (!p) {
        return NULL;
    }
    MU_LIST_EACH(it, tmp, &p->waiting)
    {
        struct put *x = MU_CONTAINER(it, struct put, link);
        mu_list_remove(&x->link);
        mu_timer_clear(&x->retry);
        x->owner = NULL;
        if (x->fetch) {
            mu_fetch_real.abort(x->fetch);
        } else if (!x->busy) {
            put_free(x);
        }
    }
    mu_free(p);
    return NULL;
}

static void begin(struct put *x);

/* --- its end --- */

static void answer(struct mu_attempt *t, const struct put *x, int64_t id, const char *error)
{
    struct mu_buf b;
    mu_buf_init(&b, ANSWER);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_key(&w, "put");
    mu_jw_obj(&w);
    mu_jw_ki64(&w, "id", id);
    mu_jw_kbool(&w, "ok", !error);
    if (error) {
        mu_jw_kcstr(&w, "error", error);
    } else {
        mu_jw_ki64(&w, "bytes", (int64_t)x->len);
        mu_jw_kcstr(&w, "sha256", x->sha256.text);
    }
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
    if (!b.failed) {
        mu_relay_put_answer(t->relay, mu_buf_bytes(&b));
    }
    mu_buf_fini(&b);
}

/* The next one begins before this one is told: what hears of it may ask for more. */
static void over(struct put *x, const char *error)
{
    struct mu_puts *p = x->owner;
    struct mu_attempt *t = p->t;
    if (error) {
        mu_log(MU_LOG_WARN, "task.checkpoint_not_stored", MU_KC("task_id", t->task_id),
               MU_KC("name", x->name), MU_KC("err_message", error));
    }
    mu_list_remove(&x->link);
    p->n--;
    if (p->n) {
        begin(MU_CONTAINER(p->waiting.next, struct put, link));
    }
    answer(t, x, x->id, error);
    put_free(x);
}

/* Whether somebody still waits for it. */
static bool back(struct put *x)
{
    x->busy = false;
    if (!x->owner) {
        put_free(x);
        return false;
    }
    return true;
}

static void on_retry(struct mu_timer *timer)
{
    begin(MU_CONTAINER(timer, struct put, retry));
}

static void on_sent(void *arg, const struct mu_fetch_result *result)
{
    struct put *x = arg;
    x->fetch = NULL;
    if (!back(x)) {
        return;
    }
    if (result->end == MU_FETCH_OK && result->status >= 200 && result->status < 300) {
        over(x, NULL);
        return;
    }
    bool final = result->end == MU_FETCH_ABORTED ||
                 (result->status >= 400 && result->status < 500 && result->status != TOO_MANY);
    if (final || ++x->tries >= TRIES || x->owner->t->w->phase >= MU_PHASE_STOPPING ||
        mu_timer_set(&x->retry, (int64_t)TRY_MS << x->tries) < 0) {
        char why[160];
        if (result->status >= 300) {
            snprintf(why, sizeof why, "the server refused it (status %d)", result->status);
        } else {
            snprintf(why, sizeof why, "the server did not take it: %s",
                     result->text ? result->text : "no answer");
        }
        over(x, why);
    }
}

/* --- its way --- */

static void run_digest(struct mu_job *job)
{
    struct put *x = MU_CONTAINER(job, struct put, job);
    x->sha256 = mu_sha256_hex(mu_bytes_of(x->content, x->len));
}

static void digested(struct mu_job *job)
{
    struct put *x = MU_CONTAINER(job, struct put, job);
    if (!back(x)) {
        return;
    }
    struct mu_upload up = {.name = x->name,
                           .media_type = "application/octet-stream",
                           .content = mu_bytes_of(x->content, x->len),
                           .done = on_sent,
                           .arg = x};
    int r = job->ran ? mu_upload_start(x->owner->t, &up, &x->fetch) : MU_E_SHUTDOWN;
    mu_free(x->content);
    x->content = NULL;
    if (r < 0) {
        over(x, mu_err_text(r));
        return;
    }
    x->busy = true;
}

static void on_content(void *arg, int result, mu_bytes bytes)
{
    struct put *x = arg;
    if (!back(x)) {
        return;
    }
    struct mu_worker *w = x->owner->t->w;
    struct mu_work *work = mu_worker_work(w);
    x->job = (struct mu_job){.run = run_digest, .done = digested, .loop = w->loop};
    x->len = bytes.len;
    mu_free(x->content);
    x->content = result < 0 || !work ? NULL : mu_alloc(bytes.len + 1);
    int r = result < 0 ? result : x->content ? 0 : -ENOMEM;
    if (r == 0) {
        if (bytes.len) {
            memcpy(x->content, bytes.ptr, bytes.len);
        }
        r = mu_work_submit(work, &x->job);
    }
    if (r < 0) {
        over(x, r == MU_E_TOO_LARGE ? "larger than 16 MiB" : mu_err_text(r));
        return;
    }
    x->busy = true;
}

static void begin(struct put *x)
{
    struct mu_attempt *t = x->owner->t;
    if (!t->token || !t->w->conf->server_root_url) {
        over(x, "there is nowhere to store it");
    } else if (t->state != MU_ATTEMPT_STARTED || t->muted) {
        over(x, "the attempt is over");
    } else {
        x->busy = true;
        t->backend->ops->read_file(t->sandbox, x->path, MAX_FILE, on_content, x);
    }
}

/* --- questions --- */

static bool good_name(mu_bytes name)
{
    mu_bytes rest = name;
    if (!mu_bytes_starts(name, MU_B("ckpt-")) || !mu_bytes_ends(name, MU_B(".pack")) ||
        name.len > 64) {
        return false;
    }
    rest = mu_bytes_head(mu_bytes_from(name, 5), name.len - 10);
    for (size_t i = 0; i < rest.len; i++) {
        if (rest.ptr[i] != '-' && (rest.ptr[i] < '0' || rest.ptr[i] > '9')) {
            return false;
        }
    }
    return rest.len > 0;
}

static bool good_path(mu_bytes path)
{
    return path.len < sizeof((struct put *)0)->path && mu_bytes_starts(path, MU_B(PLACE)) &&
           !memchr(path.ptr, 0, path.len) &&
           mu_bytes_is_path(mu_bytes_from(path, sizeof PLACE - 1));
}

/* The same file again, on another connection: it is asked for once. */
static bool join(struct mu_puts *p, mu_bytes name, int64_t id)
{
    MU_LIST_EACH(it, tmp, &p->waiting)
    {
        struct put *x = MU_CONTAINER(it, struct put, link);
        if (mu_bytes_is(name, x->name)) {
            x->id = id;
            return true;
        }
    }
    return false;
}

int mu_puts_take(struct mu_puts *p, yyjson_val *m)
{
    yyjson_val *put = mu_json_get(m, "put");
    mu_bytes path = mu_json_get_bytes(put, "path"), name = mu_json_get_bytes(put, "name");
    int64_t id = mu_json_get_i64(put, "id", 0);
    if (id < 1 || !good_name(name) || !good_path(path)) {
        return MU_E_PROTOCOL;
    }
    if (join(p, name, id)) {
        return 0;
    }
    if (p->n == MAX_WAITING) {
        answer(p->t, NULL, id, "too many files wait");
        return 0;
    }
    struct put *x = mu_calloc(1, sizeof *x);
    if (!x) {
        answer(p->t, NULL, id, mu_err_text(-ENOMEM));
        return 0;
    }
    x->owner = p;
    x->id = id;
    snprintf(x->path, sizeof x->path, "%.*s", MU_ARGS(path));
    snprintf(x->name, sizeof x->name, "%.*s", MU_ARGS(name));
    mu_timer_init(&x->retry, p->t->w->loop, on_retry);
    mu_list_push(&p->waiting, &x->link);
    if (++p->n == 1) {
        begin(x);
    }
    return 0;
}
