/* Checkouts, the jobs they share, and the git processes of those jobs. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/encode.h"
#include "exec/git/git_int.h"

/* --- processes --- */

static void start_ready(struct mu_git_cache *g);

static void on_output(void *arg, mu_bytes piece)
{
    struct mu_git_job *job = arg;
    mu_buf_add(&job->out, piece);
}

static void on_done(void *arg, const struct mu_process_result *result)
{
    struct mu_git_job *job = arg;
    struct mu_git_cache *g = job->cache;
    job->process = NULL;
    g->running--;
    if (g->stopping) {
        mu_git_fail_(job, MU_E_SHUTDOWN, "the worker is stopping");
    } else {
        job->then(job, result);
    }
    start_ready(g);
}

static void start_one(struct mu_git_job *job)
{
    struct mu_git_cache *g = job->cache;
    struct mu_process_request req = {
        .argv = job->argv,
        .env = job->env,
        .cwd = g->settings.dir,
        .input = job->input,
        .timeout_ms = g->settings.fetch_timeout_ms,
        .max_output = MU_GIT_OUT,
        .on_output = on_output,
        .done = on_done,
        .arg = job,
    };
    mu_buf_clear(&job->out);
    int r = mu_process_real.start(g->loop, &req, &job->process);
    job->input = MU_B_NONE;
    if (r < 0) {
        mu_git_fail_(job, r, "git could not be started: %s", mu_err_text(r));
        return;
    }
    g->running++;
}

static void start_ready(struct mu_git_cache *g)
{
    struct mu_list *it;
    while (g->running < g->settings.parallel && (it = mu_list_pop(&g->ready))) {
        start_one(MU_CONTAINER(it, struct mu_git_job, slot));
    }
}

void mu_git_run_(struct mu_git_job *job, const char *const *argv,
                 void (*then)(struct mu_git_job *job, const struct mu_process_result *result))
{
    if (job->cache->stopping) {
        mu_git_fail_(job, MU_E_SHUTDOWN, "the worker is stopping");
        return;
    }
    job->argv = argv;
    job->then = then;
    mu_list_push(&job->cache->ready, &job->slot);
    start_ready(job->cache);
}

/* --- the end of a job --- */

/* The mirror goes to the next job that waits for it. */
static void unlock(struct mu_git_job *job)
{
    struct mu_git_mirror *m = job->mirror;
    if (!job->locked) {
        return;
    }
    job->locked = false;
    m->busy = NULL;
    struct mu_list *it = mu_list_pop(&m->waiting);
    if (it) {
        struct mu_git_job *next = MU_CONTAINER(it, struct mu_git_job, wait);
        m->busy = next;
        next->locked = true;
        mu_git_locked_(next);
    }
}

static void check_stopped(struct mu_git_cache *g)
{
    if (g->stopping && mu_list_empty(&g->jobs) && g->stopped) {
        void (*stopped)(void *arg) = g->stopped;
        g->stopped = NULL;
        stopped(g->stopped_arg);
    }
}

static void job_free(struct mu_git_job *job)
{
    if (job->temp) {
        mu_git_discard_(job->cache, job->temp);
    }
    job->mirror->users--;
    mu_list_remove(&job->link);
    mu_buf_wipe(&job->out);
    mu_arena_fini(&job->arena);
    mu_free(job);
}

static void tell(struct mu_checkout *c, struct mu_git_job *job, struct mu_git_base *base)
{
    c->job = NULL;
    mu_list_remove(&c->link);
    if (!base) {
        c->req.done(c->req.arg, job->result, NULL, job->why);
        return;
    }
    c->base = base;
    base->held++;
    c->view =
        (struct mu_checkout_view){.tree = base->tree, .objects = base->objects, .warm = job->warm};
    memcpy(c->view.commit, base->commit, sizeof c->view.commit);
    c->req.done(c->req.arg, 0, &c->view, NULL);
}

void mu_git_job_end_(struct mu_git_job *job, struct mu_git_base *base)
{
    struct mu_git_cache *g = job->cache;
    if (base) {
        mu_git_base_touch_(g, base);
        base->held++; /* not while the others are told */
    }
    if (job->reading) {
        mu_git_read_failed_(job);
    }
    while (!mu_list_empty(&job->checkouts)) {
        tell(MU_CONTAINER(job->checkouts.next, struct mu_checkout, link), job, base);
    }
    if (base) {
        base->held--;
    }
    mu_list_remove(&job->slot);
    mu_list_remove(&job->wait);
    unlock(job);
    job_free(job);
    mu_git_trim_(g);
    check_stopped(g);
}

/* Names and passwords in URLs are nobody's business. */
static void blank_userinfo(char *text)
{
    for (char *p = text; (p = strstr(p, "://")) != NULL;) {
        char *end = p += 3;
        while (*end && !strchr("/ '\"\n", *end) && *end != '@') {
            end++;
        }
        if (*end == '@') {
            memset(p, '*', (size_t)(end - p));
        }
    }
}

void mu_git_fail_(struct mu_git_job *job, int code, const char *fmt, ...)
{
    va_list va;
    va_start(va, fmt);
    vsnprintf(job->why, sizeof job->why, fmt, va);
    va_end(va);
    blank_userinfo(job->why);
    job->result = code;
    mu_git_job_end_(job, NULL);
}

/* --- checkouts --- */

static const char *header_of(struct mu_git_job *job, const char *credential)
{
    struct mu_buf b;
    mu_buf_init(&b, 8 << 10);
    mu_buf_add_str(&b, "GIT_CONFIG_VALUE_0=Authorization: Basic ");
    mu_base64_add(&b, mu_str(credential));
    const char *r = b.failed ? NULL : mu_arena_dup(&job->arena, mu_buf_bytes(&b)).ptr;
    mu_buf_wipe(&b);
    return r;
}

static bool is_https(const char *url)
{
    return strncmp(url, "https://", 8) == 0;
}

/* The environment of the cache, and with a credential the header for this one server. */
static int build_env(struct mu_git_job *job, const char *credential)
{
    const char **base = job->cache->env;
    job->env = base;
    if (!credential || !is_https(job->url)) {
        return 0;
    }
    size_t n = 0, host = 8 + strcspn(job->url + 8, "/");
    while (base[n]) {
        n++;
    }
    const char **env = mu_arena_calloc(&job->arena, (n + 4) * sizeof *env);
    if (!env) {
        return -ENOMEM;
    }
    memcpy(env, base, n * sizeof *env);
    env[n++] = "GIT_CONFIG_COUNT=1";
    env[n++] =
        mu_arena_printf(&job->arena, "GIT_CONFIG_KEY_0=http.%.*s/.extraHeader", (int)host, job->url)
            .ptr;
    env[n++] = job->header = header_of(job, credential);
    job->env = env;
    return env[n - 2] && env[n - 1] ? 0 : -ENOMEM;
}

static struct mu_git_job *job_find(struct mu_git_cache *g, const struct mu_checkout_request *req)
{
    MU_LIST_EACH(it, tmp, &g->jobs)
    {
        struct mu_git_job *job = MU_CONTAINER(it, struct mu_git_job, link);
        if (!job->reading && job->index == req->index && !strcmp(job->url, req->url) &&
            !strcmp(job->ref, req->ref) && !job->header && !req->credential) {
            return job;
        }
    }
    return NULL;
}

static void begin(struct mu_post *post)
{
    struct mu_git_job *job = MU_CONTAINER(post, struct mu_git_job, post);
    if (job->cache->stopping) {
        mu_git_fail_(job, MU_E_SHUTDOWN, "the worker is stopping");
        return;
    }
    mu_git_resolve_(job);
}

struct mu_git_job *mu_git_job_new_(struct mu_git_cache *g, const char *url, const char *ref,
                                   unsigned index, const char *credential)
{
    struct mu_git_mirror *m = mu_git_mirror_get_(g, url);
    struct mu_git_job *job = m ? mu_calloc(1, sizeof *job) : NULL;
    if (!job) {
        return NULL;
    }
    job->cache = g;
    job->mirror = m;
    job->index = index;
    mu_list_init(&job->checkouts);
    mu_list_init(&job->slot);
    mu_list_init(&job->wait);
    mu_arena_init(&job->arena, 1 << 20);
    mu_buf_init(&job->out, MU_GIT_OUT);
    job->url = mu_arena_dup(&job->arena, mu_str(url)).ptr;
    job->ref = mu_arena_dup(&job->arena, mu_str(ref)).ptr;
    if (!job->url || !job->ref || build_env(job, credential) < 0) {
        mu_arena_fini(&job->arena);
        mu_free(job);
        return NULL;
    }
    m->users++;
    mu_list_push(&g->jobs, &job->link);
    job->post.fn = begin;
    mu_loop_post(g->loop, &job->post);
    return job;
}

int mu_checkout_start(struct mu_git_cache *g, const struct mu_checkout_request *req,
                      struct mu_checkout **ret)
{
    MU_CHECK(req->index < MU_GIT_MAX_INDEX);
    struct mu_checkout *c = mu_calloc(1, sizeof *c);
    struct mu_git_job *job = c ? job_find(g, req) : NULL;
    if (c && !job) {
        job = mu_git_job_new_(g, req->url, req->ref, req->index, req->credential);
    }
    if (!job) {
        mu_free(c);
        return -ENOMEM;
    }
    c->cache = g;
    c->req = *req;
    c->job = job;
    mu_list_push(&job->checkouts, &c->link);
    *ret = c;
    return 0;
}

struct mu_checkout *mu_checkout_abort(struct mu_checkout *c)
{
    if (c) {
        MU_CHECK(c->job);
        mu_list_remove(&c->link);
        mu_free(c);
    }
    return NULL;
}

struct mu_checkout *mu_checkout_release(struct mu_checkout *c)
{
    if (c) {
        if (c->base) {
            c->base->held--;
            mu_git_trim_(c->cache);
        }
        mu_free(c);
    }
    return NULL;
}

int mu_checkout_hold(struct mu_git_cache *g, const char *tree, struct mu_checkout **ret)
{
    MU_LIST_EACH(it, tmp, &g->bases)
    {
        struct mu_git_base *b = MU_CONTAINER(it, struct mu_git_base, link);
        if (!strcmp(b->tree, tree)) {
            struct mu_checkout *c = mu_calloc(1, sizeof *c);
            if (!c) {
                return -ENOMEM;
            }
            c->cache = g;
            c->base = b;
            b->held++;
            *ret = c;
            return 0;
        }
    }
    return MU_E_NOT_FOUND;
}

static void stop_now(struct mu_post *post)
{
    struct mu_git_cache *g = MU_CONTAINER(post, struct mu_git_cache, stop_post);
    MU_LIST_EACH(it, tmp, &g->jobs)
    {
        struct mu_git_job *job = MU_CONTAINER(it, struct mu_git_job, link);
        if (job->process) {
            mu_process_real.kill(job->process);
        }
    }
    struct mu_list *it; /* those that wait for a slot; those that wait for a mirror follow it */
    while ((it = mu_list_pop(&g->ready))) {
        mu_git_fail_(MU_CONTAINER(it, struct mu_git_job, slot), MU_E_SHUTDOWN,
                     "the worker is stopping");
    }
    check_stopped(g);
}

void mu_git_cache_stop(struct mu_git_cache *g, void (*stopped)(void *arg), void *arg)
{
    g->stopping = true;
    g->stopped = stopped;
    g->stopped_arg = arg;
    g->stop_post.fn = stop_now;
    mu_loop_post(g->loop, &g->stop_post);
}
