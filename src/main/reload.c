/* SIGHUP: the settings are read again (docs/operations.md). Files, a look for agents and up to
 * three seconds of waiting for local servers are a matter of the work pool; the core loop takes
 * over what came of it in one step that is all or nothing. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "main/server.h"

enum { RETIRED_MS = 3600000, AGAIN_MS = 100 };

/* --- the configurations that were replaced --- */

/* Frees those that were replaced so long ago that nothing can refer to them any more: a call copies
 * what it needs, a request or a unit of work is over much sooner. */
static void free_retired(struct mu_server *s, int64_t now_ms)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_retired; i++) {
        if (now_ms - s->retired[i].at_ms >= RETIRED_MS) {
            mu_config_free(s->retired[i].conf);
        } else {
            s->retired[n++] = s->retired[i];
        }
    }
    s->n_retired = n;
}

static void replace_conf(struct mu_server *s, struct mu_config *next)
{
    if (s->conf != s->first_conf) {
        s->retired[s->n_retired++] = (struct mu_retired_config){s->conf, mu_env_mono_ms(s->env)};
    }
    s->conf = next;
}

/* --- reading, on a thread of the work pool --- */

/* Where things are cannot change while they are in use. */
static void keep_places(const struct mu_server *s, struct mu_config *next)
{
    next->data_dir = s->first_conf->data_dir;
    next->blob_dir = s->first_conf->blob_dir;
}

static void read_all(struct mu_job *job)
{
    struct mu_reload *r = MU_CONTAINER(job, struct mu_reload, job);
    struct mu_server *s = MU_CONTAINER(r, struct mu_server, reload);
    struct mu_err *err = &r->err;
    r->result = mu_config_load(s->args, &r->next, &r->warnings, err);
    if (r->result < 0) {
        return;
    }
    keep_places(s, r->next);
    bool given = r->next->admin_key != NULL;
    r->result = mu_config_first_start(r->next, s->env, &r->new_admin_key, err);
    r->admin_key_in_file = !given && r->next->admin_key;
    if (r->result == 0) {
        r->result = mu_config_discover(r->next, getenv("PATH"), err);
    }
    if (r->result == 0) {
        r->result = mu_identity_read_tokens(s->d.identity, &r->tokens, err);
    }
    if (r->result == 0) {
        r->result = mu_http_server_prepare_tls(s->http, err);
    }
}

/* --- taking over, on the core loop --- */

static void log_outcome(const struct mu_server *s, struct mu_reload *r)
{
    if (r->result < 0) {
        mu_log(MU_LOG_ERROR, "reload.failed", MU_KC("err_message", r->err.text));
        return;
    }
    mu_server_log_warnings(&r->warnings);
    if (r->new_admin_key) {
        mu_server_log_new_key(s);
    }
    mu_log(MU_LOG_INFO, "reload.done");
}

static void take_over(struct mu_server *s, struct mu_reload *r)
{
    struct mu_config *next = r->next;
    /* The only step that can fail comes first; it changes nothing then. */
    r->result = mu_providers_reload(s->d.providers, &next->provider_list, &next->providers);
    if (r->result < 0) {
        mu_err_set(&r->err, r->result, "providers: %s", mu_err_text(r->result));
        return;
    }
    mu_identity_take(s->d.identity, &r->tokens, next->admin_key);
    mu_http_server_commit_tls(s->http, true);
    mu_dispatch_reload(s->d.dispatch, &next->providers);
    mu_schedules_reload(s->schedules, &next->providers);
    atomic_store(&s->oz.settings, &next->providers);
    atomic_store(&s->admin_key_in_file, r->admin_key_in_file);
    mu_server_log_setup(s->env, next);
    replace_conf(s, next);
    r->next = NULL;
}

static void was_read(struct mu_job *job)
{
    struct mu_reload *r = MU_CONTAINER(job, struct mu_reload, job);
    struct mu_server *s = MU_CONTAINER(r, struct mu_server, reload);
    if (!job->ran || s->signals) { /* the server stops: there is nobody to take it over */
        r->result = mu_err_set(&r->err, MU_E_SHUTDOWN, "%s", mu_err_text(MU_E_SHUTDOWN));
    }
    if (r->result == 0) {
        take_over(s, r);
    }
    mu_http_server_commit_tls(s->http, false);
    mu_tenant_tokens_fini(&r->tokens);
    r->next = mu_config_free(r->next);
    log_outcome(s, r);
    mu_buf_fini(&r->warnings);
    atomic_store(&s->keys_busy, false);
    if (!s->signals) {
        mu_notify("READY=1");
    }
}

/* --- the signal --- */

static int begin_reload(struct mu_server *s, struct mu_err *err)
{
    struct mu_reload *r = &s->reload;
    free_retired(s, mu_env_mono_ms(s->env));
    if (s->n_retired == MU_MAX_RETIRED) {
        return mu_err_set(err, MU_E_LIMIT, "more than %d reloads within an hour", MU_MAX_RETIRED);
    }
    r->job = (struct mu_job){.run = read_all, .done = was_read, .loop = s->loops[0]};
    r->next = NULL;
    r->tokens = (struct mu_tenant_tokens){0};
    r->err = (struct mu_err){0};
    r->result = 0;
    r->new_admin_key = false;
    mu_buf_init(&r->warnings, 1 << 20);
    int res = mu_work_submit(s->work, &r->job);
    return res < 0 ? mu_err_set(err, res, "%s", mu_err_text(res)) : 0;
}

/* One at a time, not while the admin key is replaced, and not before the listeners are there: until
 * then it waits. Signals that come meanwhile are this one. */
static void try_reload(struct mu_timer *t)
{
    struct mu_server *s = MU_CONTAINER(t, struct mu_server, reload.again);
    struct mu_err err = {0};
    int r = 0;
    if (s->signals) {
        return;
    }
    if (!atomic_load(&s->ready) || atomic_exchange(&s->keys_busy, true)) {
        r = mu_timer_set(t, AGAIN_MS);
        if (r < 0) {
            mu_err_set(&err, r, "%s", mu_err_text(r));
        }
    } else {
        mu_notify("RELOADING=1");
        r = begin_reload(s, &err);
        if (r < 0) {
            atomic_store(&s->keys_busy, false);
            mu_notify("READY=1");
        }
    }
    if (r < 0) {
        mu_log(MU_LOG_ERROR, "reload.failed", MU_KC("err_message", err.text));
    }
}

void mu_server_on_reload(void *arg, int signum MU_UNUSED)
{
    struct mu_server *s = arg;
    if (!mu_timer_is_set(&s->reload.again)) {
        mu_timer_init(&s->reload.again, s->loops[0], try_reload);
        try_reload(&s->reload.again);
    }
}
