/* What earlier processes of this worker left on the engine (oz-worker.md 9.4, "orphan sweep"). */
#include <errno.h>
#include <stdio.h>

#include "exec/sandbox/docker_int.h"

enum { MAX_ORPHANS = 4096 };

struct mu_docker_sweep {
    struct mu_docker *d;
    struct mu_engine_call *call;
    char **keep;
    size_t n_keep, open, removed;
    struct mu_timer later;
    void (*done)(void *arg, size_t removed);
    void *arg;
};

static void sweep_free(struct mu_docker_sweep *s)
{
    mu_timer_clear(&s->later);
    mu_engine_cancel(s->call);
    for (size_t i = 0; i < s->n_keep; i++) {
        mu_free(s->keep[i]);
    }
    mu_free(s->keep);
    mu_free(s);
}

static void over(struct mu_docker_sweep *s)
{
    if (s->d) {
        s->d->sweep = NULL;
    }
    s->done(s->arg, s->removed);
    sweep_free(s);
}

static void on_later(struct mu_timer *t)
{
    over(MU_CONTAINER(t, struct mu_docker_sweep, later));
}

static void on_removed(void *arg)
{
    struct mu_docker_sweep *s = arg;
    s->removed++;
    if (--s->open == 0) {
        over(s);
    }
}

static bool is_ours_now(const struct mu_docker_sweep *s, yyjson_val *labels)
{
    mu_bytes execution = mu_json_get_bytes(labels, "oz.execution");
    if (mu_bytes_is(mu_json_get_bytes(labels, "oz.helper"), s->d->instance)) {
        return true;
    }
    for (size_t i = 0; i < s->n_keep; i++) {
        if (mu_bytes_is(execution, s->keep[i])) {
            return true;
        }
    }
    MU_LIST_EACH(it, tmp, &s->d->boxes)
    {
        if (mu_bytes_is(execution, MU_CONTAINER(it, struct mu_docker_box, link)->execution)) {
            return true;
        }
    }
    return false;
}

static void on_list(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_sweep *s = arg;
    struct mu_arena a;
    size_t i, n;
    yyjson_val *v;
    s->call = NULL;
    s->open = 1;
    mu_arena_init(&a, 64 << 20);
    yyjson_val *list =
        res->result == 0 && res->status == 200 ? mu_docker_json_(&a, res->body) : NULL;
    yyjson_arr_foreach(list, i, n, v)
    {
        char id[MU_DOCKER_ID];
        mu_bytes text = mu_json_get_bytes(v, "Id");
        if (text.len == 0 || text.len >= sizeof id || is_ours_now(s, mu_json_get(v, "Labels")) ||
            i >= MAX_ORPHANS) {
            continue;
        }
        mu_engine_text(id, sizeof id, text);
        if (mu_docker_remove_(s->d, id, on_removed, s) == 0) {
            s->open++;
        }
    }
    mu_arena_fini(&a);
    if (--s->open == 0) {
        over(s);
    }
}

static int copy_keep(struct mu_docker_sweep *s, const char *const *keep, size_t n)
{
    s->keep = mu_calloc(n + 1, sizeof *s->keep);
    for (size_t i = 0; s->keep && i < n; i++) {
        s->keep[i] = mu_bytes_dup(mu_str(keep[i]));
        if (!s->keep[i]) {
            return -ENOMEM;
        }
        s->n_keep++;
    }
    return s->keep ? 0 : -ENOMEM;
}

static int ask(struct mu_docker_sweep *s)
{
    const struct mu_engine_request req = {
        .method = "GET", .done = on_list, .arg = s, .max_body = 4 << 20};
    char label[600], escaped[3 * 1024];
    struct mu_buf filter MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&filter, 1024);
    struct mu_json_w w = mu_json_w(&filter);
    mu_jw_obj(&w);
    mu_jw_key(&w, "label");
    mu_jw_arr(&w);
    mu_jw_str(&w, MU_B("oz.managed=1"));
    snprintf(label, sizeof label, "oz.worker=%.500s", s->d->settings.worker_id);
    mu_jw_str(&w, mu_str(label));
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    int r = filter.failed ? filter.failed
                          : mu_docker_escape_(escaped, sizeof escaped, mu_buf_bytes(&filter));
    return r < 0
               ? r
               : mu_docker_ask_(s->d, &req, &s->call, "/containers/json?all=1&filters=%s", escaped);
}

void mu_docker_sweep_(struct mu_sandbox_driver *driver, const char *const *keep, size_t n_keep,
                      void (*done)(void *arg, size_t removed), void *arg)
{
    struct mu_docker *d = (struct mu_docker *)driver;
    struct mu_docker_sweep *s = d->sweep ? NULL : mu_calloc(1, sizeof *s);
    if (!s) { /* one is under way, or there is no memory: the next start sweeps again */
        done(arg, 0);
        return;
    }
    s->d = d;
    s->done = done;
    s->arg = arg;
    mu_timer_init(&s->later, d->loop, on_later);
    d->sweep = s;
    int r = copy_keep(s, keep, n_keep);
    r = r < 0 ? r : ask(s);
    if (r < 0 && mu_timer_set(&s->later, 0) < 0) {
        over(s);
    }
}

void mu_docker_sweep_fini_(struct mu_docker *d)
{
    if (d->sweep) {
        sweep_free(d->sweep);
        d->sweep = NULL;
    }
}
