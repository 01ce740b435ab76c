#include "app/domain/domain.h"

static void fill(struct mu_domain_opts *o)
{
    struct mu_identity_opts *i = &o->identity;
    struct mu_sessions_opts *s = &o->sessions;
    struct mu_fleet_opts *f = &o->fleet;
    struct mu_live_opts *l = &o->live;
    struct mu_providers_opts *p = &o->providers;
    struct mu_dispatch_opts *d = &o->dispatch;
    i->env = s->env = f->env = l->env = p->env = d->env = o->env;
    i->core = f->core = l->core = p->core = d->core = o->core;
    l->work = p->work = o->work;
    s->metrics = f->metrics = l->metrics = p->metrics = d->metrics = o->metrics;
    s->feed = f->feed = l->feed = d->feed = o->feed;
    i->writer = s->writer = f->writer = l->writer = p->writer = o->writer;
    i->readers = s->readers = f->readers = l->readers = d->readers = o->readers;
    s->run_max_ms = f->run_max_ms = d->run_max_ms = o->run_max_ms;
    s->pending_max_ms = f->pending_max_ms = d->pending_max_ms = o->pending_max_ms;
    f->max_tries = d->max_tries = o->max_tries;
    f->tenant_max_running = d->tenant_max_running = o->tenant_max_running;
    d->settings = p->settings;
}

/* Whom sessions belong to, and what of them is kept. */
static int make_sessions(struct mu_domain *d, struct mu_domain_opts *o, struct mu_db *db,
                         struct mu_err *err)
{
    const struct mu_environments_opts eo = {o->env, o->writer, o->readers, o->vault};
    int r = mu_identity_new(&o->identity, db, &d->identity, err);
    if (r == 0) {
        r = mu_files_new(o->files_dir, &d->files, err);
    }
    if (r == 0) {
        o->sessions.identity = d->identity;
        r = mu_sessions_new(&o->sessions, &d->sessions);
    }
    return r < 0 ? r : mu_environments_new(&eo, &d->environments);
}

/* Who executes them. */
static int make_executors(struct mu_domain *d, struct mu_domain_opts *o, struct mu_db *db)
{
    o->fleet.sessions = o->live.sessions = o->dispatch.sessions = d->sessions;
    o->fleet.identity = o->dispatch.identity = d->identity;
    o->fleet.environments = d->environments;
    o->dispatch.files = d->files;
    int r = mu_fleet_new(&o->fleet, &d->fleet);
    o->live.fleet = o->dispatch.fleet = d->fleet;
    if (r == 0) {
        r = mu_live_new(&o->live, &d->live);
    }
    if (r == 0) {
        r = mu_live_load(d->live, db);
    }
    if (r == 0) {
        r = mu_providers_new(&o->providers, db, &d->providers);
    }
    o->dispatch.providers = d->providers;
    if (r == 0) {
        r = mu_dispatch_new(&o->dispatch, &d->dispatch);
    }
    return r < 0 ? r : mu_dispatch_load(d->dispatch, db);
}

int mu_domain_new(struct mu_domain *d, struct mu_domain_opts *o, struct mu_db *db,
                  struct mu_err *err)
{
    fill(o);
    int r = make_sessions(d, o, db, err);
    if (r == 0) {
        r = make_executors(d, o, db);
    }
    return r < 0 && !err->code ? mu_err_set(err, r, "cannot start: %s", mu_err_text(r)) : r;
}

void mu_domain_end(struct mu_domain *d)
{
    d->dispatch = mu_dispatch_free(d->dispatch);
    mu_fleet_end(d->fleet);
    mu_live_end(d->live);
    d->environments = mu_environments_free(d->environments);
    d->providers = mu_providers_free(d->providers);
    d->sessions = mu_sessions_free(d->sessions);
    d->files = mu_files_free(d->files);
    d->identity = mu_identity_free(d->identity);
}

void mu_domain_free(struct mu_domain *d)
{
    d->live = mu_live_free(d->live);
    d->fleet = mu_fleet_free(d->fleet);
}
