/* The contexts as one: made, started and taken down, whole or half. */
#include "app/domain/domain.h"
#include "app_world.h"
#include "io/work.h"

static const struct mu_providers_settings settings = {
    .default_provider = "none", .default_harness = "custom", .queue_on_saturation = true};
static const struct mu_provider_list no_providers;

/* What it stands on but the database: of its own, so that it is also made under failures. */
struct ground {
    struct mu_loop *loop;
    struct mu_feed *feed;
    struct mu_metrics *metrics;
    struct mu_work *work;
    struct mu_db *db;
    char files[64], recordings[64];
    struct mu_domain d;
    struct mu_err err;
    bool ready, over;
};

static int ground_begin(struct world *w, struct ground *g)
{
    const struct mu_db_opts read = {.url = w->url, .reader = true};
    snprintf(g->files, sizeof g->files, "%s/blobs", w->dir.path);
    snprintf(g->recordings, sizeof g->recordings, "%s/recordings", w->dir.path);
    int r = mu_loop_new(&w->env, "domain", &g->loop);
    r = r < 0 ? r : mu_feed_new(&g->loop, 1, &g->feed);
    r = r < 0 ? r : mu_metrics_new(&g->metrics);
    r = r < 0 ? r : mu_work_new(1, 10, &g->work);
    return r < 0 ? r : mu_db_open(&read, &g->db, &g->err);
}

static int make(struct world *w, struct ground *g)
{
    struct mu_domain_opts o = {
        .env = &w->env,
        .core = g->loop,
        .work = g->work,
        .metrics = g->metrics,
        .feed = g->feed,
        .writer = w->writer,
        .readers = w->readers,
        .run_max_ms = 3600000,
        .pending_max_ms = 600000,
        .max_tries = 3,
        .files_dir = g->files,
        .identity = {.admin_key = "the-admin", .max_tenants = 100},
        .fleet = {.claim_timeout_ms = 30000, .grace_ms = 120000, .default_capacity = 5},
        .live = {.recordings_dir = g->recordings, .gate_ms = 60000, .command_ms = 5000},
        .providers = {.list = &no_providers, .settings = &settings},
        .dispatch = {.concurrency = 1}};
    return mu_domain_new(&g->d, &o, g->db, &g->err);
}

static void ground_end(struct ground *g)
{
    g->work = mu_work_free(g->work);
    mu_domain_end(&g->d);
    g->loop = mu_loop_free(g->loop);
    mu_domain_free(&g->d);
    g->db = mu_db_close(g->db);
    g->metrics = mu_metrics_free(g->metrics);
    g->feed = mu_feed_free(g->feed);
}

static bool is_empty(const struct mu_domain *d)
{
    return !d->identity && !d->files && !d->sessions && !d->environments && !d->fleet && !d->live &&
           !d->providers && !d->dispatch;
}

/* --- its life --- */

static void recovered(void *arg)
{
    struct ground *g = arg;
    mu_live_start(g->d.live);
    g->ready = true;
}

static void live_stopped(void *arg)
{
    struct ground *g = arg;
    mu_fleet_close(g->d.fleet);
    g->over = true;
}

static void runs_stopped(void *arg)
{
    mu_live_stop(((struct ground *)arg)->d.live, live_stopped, arg);
}

static void turn_until(struct ground *g, const bool *what)
{
    for (int i = 0; i < 10000 && !*what; i++) {
        turn_for(g->loop, 1);
    }
    assert_true(*what);
}

static void it_is_made_started_and_taken_down(struct world *w)
{
    struct ground g = {0};
    assert_int_equal(ground_begin(w, &g), 0);
    assert_int_equal(make(w, &g), 0);
    struct mu_principal p = {0};
    assert_int_equal(mu_identity_resolve(g.d.identity, mu_str("the-admin"), &p), 0);
    assert_true(p.admin);
    mu_dispatch_start(g.d.dispatch, recovered, &g);
    turn_until(&g, &g.ready);
    mu_dispatch_stop(g.d.dispatch, 0, runs_stopped, &g);
    turn_until(&g, &g.over);
    w->readers = mu_readers_free(w->readers); /* before the loop that they answer on */
    w->writer = mu_writer_free(w->writer);
    turn_for(g.loop, 1); /* what was posted before its end is delivered */
    ground_end(&g);
    assert_true(is_empty(&g.d));
}

static void what_cannot_be_made_is_said_in_words(struct world *w)
{
    struct ground g = {0};
    assert_int_equal(ground_begin(w, &g), 0);
    snprintf(g.files, sizeof g.files, "%s/no/such", w->dir.path);
    assert_true(make(w, &g) < 0);
    assert_non_null(strstr(g.err.text, g.files));
    assert_non_null(g.d.identity); /* it was half made */
    assert_null(g.d.sessions);
    ground_end(&g);
    assert_true(is_empty(&g.d));
}

static unsigned n_made, n_refused;

static int one_life(void *arg)
{
    struct ground g = {0};
    int r = ground_begin(arg, &g);
    if (r == 0) {
        r = make(arg, &g);
        n_made += r == 0;
        n_refused += r < 0;
        assert_true(r == 0 || (g.err.code < 0 && g.err.text[0]));
    }
    ground_end(&g);
    assert_true(is_empty(&g.d));
    return r;
}

static void it_survives_any_failing_allocation(struct world *w)
{
    n_made = n_refused = 0;
    each_allocation_fails(one_life, w);
    assert_true(n_made > 0); /* what fails for numbers that are only shown fails nothing */
    assert_true(n_refused >= 8);
}

IN_WORLD(it_is_made_started_and_taken_down)
IN_WORLD(what_cannot_be_made_is_said_in_words)
IN_WORLD(it_survives_any_failing_allocation)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(it_is_made_started_and_taken_down),
        ON_BOTH(what_cannot_be_made_is_said_in_words),
        ON_BOTH(it_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
