/* Providers with a driven clock and a driven outbound HTTP; programs are real. */
#ifndef TEST_APP_PROVIDERS_WORLD_H
#define TEST_APP_PROVIDERS_WORLD_H

#include "../unit.h"
#include "../worlds.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

#include "app/providers/providers_int.h"
#include "base/encode.h"
#include "base/log.h"

enum { MAX_FETCHES = 16 };

/* The driven side of the seam: a test answers through it. */
struct mu_fetch {
    struct mu_fetch_request req;
    bool live, abort_asked;
    char url[256], headers[512];
    char *body;
};

struct world {
    struct mu_env env;
    int64_t now_ms;
    struct mu_loop *loop;
    struct mu_work *work;
    struct mu_metrics *metrics;
    struct mu_providers *p;
    struct mu_providers_opts opts;
    struct mu_provider_conf confs[8];
    struct mu_provider_list list;
    struct mu_providers_settings settings;
    char dir[32], scratch[48];
    struct mu_fetch fetches[MAX_FETCHES];
    unsigned n_fetches;
    /* what a call told */
    char out[64 << 10], final_text[1024], text[4096];
    size_t out_len;
    bool has_final, loop_runs;
    int dones, capacity, refuse;
    struct mu_call_result result;
};

static struct world *the_world; /* the seam's functions have no argument of ours */

static int64_t world_wall(const struct mu_env *env)
{
    return ((const struct world *)env->arg)->now_ms;
}
static int64_t world_mono(const struct mu_env *env)
{
    (void)env;
    return mu_env_real.mono_ns(&mu_env_real);
}

static int fake_start(struct mu_fetcher *f, const struct mu_fetch_request *req,
                      struct mu_fetch **ret)
{
    (void)f;
    struct mu_fetch *x = &the_world->fetches[the_world->n_fetches % MAX_FETCHES];
    the_world->n_fetches++;
    assert_false(x->live);
    free(x->body);
    *x = (struct mu_fetch){.req = *req, .live = true};
    snprintf(x->url, sizeof x->url, "%s", req->url);
    for (const char *const *h = req->headers; *h; h++) {
        size_t n = strlen(x->headers);
        snprintf(x->headers + n, sizeof x->headers - n, "%s\n", *h);
    }
    x->body = strndup(req->body.ptr, req->body.len);
    *ret = x;
    return 0;
}
static void fake_abort(struct mu_fetch *x)
{
    x->abort_asked = true;
}
static const struct mu_fetch_ops fake_fetch = {fake_start, fake_abort};

MU_UNUSED static int feed(struct mu_fetch *x, int status, const char *piece)
{
    return x->req.body_fn(x->req.arg, status, mu_str(piece));
}
MU_UNUSED static void end_fetch(struct mu_fetch *x, enum mu_fetch_end end, int status,
                                int64_t retry_after_ms)
{
    const struct mu_fetch_result r = {
        .end = end, .status = status, .retry_after_ms = retry_after_ms, .text = "it did not work"};
    x->live = false;
    x->req.done(x->req.arg, &r);
}

static int take_delta(void *arg, mu_bytes text)
{
    struct world *w = arg;
    if (w->refuse) {
        return w->refuse;
    }
    size_t n = MU_MIN(text.len, sizeof w->out - 1 - w->out_len);
    memcpy(w->out + w->out_len, text.ptr, n);
    w->out_len += n;
    w->out[w->out_len] = 0;
    return 0;
}
static void take_done(void *arg, const struct mu_call_result *r)
{
    struct world *w = arg;
    w->dones++;
    w->result = *r;
    snprintf(w->text, sizeof w->text, "%s", r->text ? r->text : "");
    w->has_final = r->final_text.ptr != NULL;
    snprintf(w->final_text, sizeof w->final_text, "%.*s", MU_ARGS(r->final_text));
    w->result.text = w->text;
    if (w->loop_runs) {
        mu_loop_stop(w->loop);
    }
}
static void take_capacity(void *arg)
{
    ((struct world *)arg)->capacity++;
}

static const char *const world_environ[] = {"PATH=/usr/local/bin:/usr/bin:/bin",
                                            "HOME=/tmp",
                                            "LC_ALL=C",
                                            "SERVER_ONLY=do-not-pass",
                                            "AGENT_KEY=very-secret-value-1234",
                                            "OZ_RUN_ID=not-this",
                                            NULL};

static struct mu_provider_conf *add_conf(struct world *w, const char *key,
                                         enum mu_provider_type type)
{
    struct mu_provider_conf *c = &w->confs[w->list.n++];
    *c = (struct mu_provider_conf){
        .key = key,
        .type = type,
        .model = "m-1",
        .model_given = true,
        .base_url = "https://models.example/v1",
        .api_key = "key-0123456789",
        .has_temperature = true,
        .temperature = 0.2,
        .timeout_ms = 5000,
        .cli_timeout_ms = 20000,
        .cli_max_parallel = 1,
        .cli_max_output = 1 << 20,
    };
    return c;
}

static void world_begin(struct world *w)
{
    memset(w, 0, sizeof *w);
    the_world = w;
    w->now_ms = 1700000000000;
    w->env = (struct mu_env){world_wall, world_mono, mu_env_real.random, w};
    mu_log_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    snprintf(w->dir, sizeof w->dir, "/tmp/mu-prov-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->scratch, sizeof w->scratch, "%s/scratch", w->dir);
    assert_int_equal(mkdir(w->scratch, 0700), 0);
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &w->loop), 0);
    assert_int_equal(mu_work_new(1, 64, &w->work), 0);
    assert_int_equal(mu_metrics_new(&w->metrics), 0);
    w->list.items = w->confs;
    w->settings = (struct mu_providers_settings){.default_provider = "custom",
                                                 .default_harness = "custom",
                                                 .retries = 1,
                                                 .max_output_bytes = 4096,
                                                 .streaming = true};
    w->opts = (struct mu_providers_opts){.env = &w->env,
                                         .core = w->loop,
                                         .metrics = w->metrics,
                                         .fetch = &fake_fetch,
                                         .process = &mu_process_real,
                                         .work = w->work,
                                         .scratch_dir = w->scratch,
                                         .environ_ = world_environ,
                                         .list = &w->list,
                                         .settings = &w->settings};
}

MU_UNUSED static void world_start(struct world *w)
{
    assert_int_equal(mu_providers_new(&w->opts, NULL, &w->p), 0);
    mu_providers_on_capacity(w->p, take_capacity, w);
}

static int drop_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void world_end(struct world *w)
{
    w->p = mu_providers_free(w->p);
    w->work = mu_work_free(w->work);
    w->loop = mu_loop_free(w->loop);
    w->metrics = mu_metrics_free(w->metrics);
    for (unsigned i = 0; i < MAX_FETCHES; i++) {
        free(w->fetches[i].body);
    }
    nftw(w->dir, drop_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static struct mu_provider *provider(struct world *w, const char *key)
{
    for (size_t i = 0; i < w->p->n; i++) {
        if (strcmp(w->p->items[i]->key, key) == 0) {
            return w->p->items[i];
        }
    }
    fail_msg("no provider %s", key);
    return NULL;
}

MU_UNUSED static struct mu_call_request request(struct world *w, const char *key,
                                                const char *prompt)
{
    struct mu_provider *pr = provider(w, key);
    w->out_len = 0;
    w->out[0] = 0;
    return (struct mu_call_request){.provider = pr,
                                    .run_id = "run_1",
                                    .org_id = "tok_a",
                                    .model = mu_provider_model(pr, MU_B_NONE),
                                    .model_given = mu_provider_conf(pr)->model_given,
                                    .prompt = mu_str(prompt),
                                    .on_delta = take_delta,
                                    .done = take_done,
                                    .arg = w};
}

MU_UNUSED static void run_until_done(struct world *w)
{
    w->loop_runs = true;
    mu_loop_run(w->loop);
    w->loop_runs = false;
}

/* One call to its end. */
MU_UNUSED static void call(struct world *w, const char *key, const char *prompt)
{
    const struct mu_call_request req = request(w, key, prompt);
    struct mu_provider_call *c;
    int before = w->dones;
    assert_int_equal(mu_provider_call(w->p, &req, &c), 0);
    assert_int_equal(w->dones, before);
    run_until_done(w);
    assert_int_equal(w->dones, before + 1);
}

static void run_for(struct world *w, int64_t ms)
{
    turn_for(w->loop, ms);
}
/* Until the directories of ended calls are gone. */
MU_UNUSED static void settle(struct world *w)
{
    for (int i = 0; i < 500 && !mu_list_empty(&w->p->calls); i++) {
        run_for(w, 10);
    }
    assert_true(mu_list_empty(&w->p->calls));
}

MU_UNUSED static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        fail_msg("\"%s\" is not in: %s", part, text);
    }
}
MU_UNUSED static void assert_has_not(const char *text, const char *part)
{
    if (strstr(text, part)) {
        fail_msg("\"%s\" is in: %s", part, text);
    }
}
MU_UNUSED static void assert_class(const struct world *w, enum mu_call_class cls)
{
    if (w->result.cls != cls) {
        fail_msg("class %s instead of %s: %s", mu_call_class_name(w->result.cls),
                 mu_call_class_name(cls), w->text);
    }
}

#endif
