/* The server: what main/server.c builds, without faces, and the ways in which it goes. */
#include "sim.h"

enum { DOWN_MS = 3000, DRAIN_MS = 1000, RETENTION_SWEEP_MS = 20000 };

static bool stopping, last_stop, over;
static const struct mu_providers_settings settings = {
    .default_provider = "none", .default_harness = "custom", .queue_on_saturation = true};
static const struct mu_provider_list no_providers;

static void must(int r, const char *what)
{
    if (r < 0) {
        sim_fail("simulator", "%s: %s", what, mu_err_text(r));
    }
}

/* --- start --- */

/* The files of runs would be on a disk that no seed empties: nobody here has any. */
int __wrap_mu_files_new(const char *dir, struct mu_files **ret, struct mu_err *err);
int __wrap_mu_files_new(const char *dir MU_UNUSED, struct mu_files **ret,
                        struct mu_err *err MU_UNUSED)
{
    *ret = NULL;
    return 0;
}

static void expired(void *arg MU_UNUSED, mu_bytes session_id)
{
    mu_dispatch_expired(sim.d.dispatch, session_id);
}

static void file_gone(void *arg MU_UNUSED, mu_bytes file_id MU_UNUSED)
{
}

static void recovered(void *arg MU_UNUSED)
{
    const struct mu_sweeper_opts so = {.sessions = sim.d.sessions,
                                       .core = sim.loops[0],
                                       .retention_interval_ms = RETENTION_SWEEP_MS,
                                       .work = sim.work,
                                       .expired = expired,
                                       .file_gone = file_gone};
    must(mu_sweeper_new(&so, &sim.sweeper), "sweeper");
    mu_live_start(sim.d.live);
    sim.up = true;
    sim_note("server: is up");
}

static void build_ground(void)
{
    struct mu_err err = {0};
    must(mu_loop_new(&sim.env, "0", &sim.loops[0]), "loop");
    must(mu_loop_new(&sim.env, "1", &sim.loops[1]), "loop");
    must(mu_feed_new(sim.loops, SIM_LOOPS, &sim.feed), "feed");
    must(mu_work_new(1, 100, &sim.work), "work");
    must(mu_metrics_new(&sim.metrics), "metrics");
    const struct mu_writer_opts wo = {.env = &sim.env, .feed = sim.feed};
    const struct mu_readers_opts ro = {.env = &sim.env};
    must(mu_writer_new(&wo, &sim.writer, &err), "writer");
    must(mu_readers_new(&ro, &sim.readers, &err), "readers");
}

static void build_domain(void)
{
    struct mu_err err = {0};
    struct mu_domain_opts o = {.env = &sim.env,
                               .core = sim.loops[0],
                               .work = sim.work,
                               .metrics = sim.metrics,
                               .feed = sim.feed,
                               .writer = sim.writer,
                               .readers = sim.readers,
                               .run_max_ms = sim.plan.run_max_ms,
                               .pending_max_ms = sim.plan.pending_max_ms,
                               .max_tries = sim.plan.max_tries,
                               .tenant_max_running = sim.plan.tenant_running,
                               .identity = {.admin_key = "the-admin"},
                               .sessions = {.retention_ms = sim.plan.retention_ms,
                                            .max_queued = sim.plan.max_queued,
                                            .checkpoint_max = 1 << 20},
                               .fleet = {.claim_timeout_ms = sim.plan.claim_ms,
                                         .native_claim_timeout_ms = sim.plan.native_claim_ms,
                                         .grace_ms = sim.plan.grace_ms,
                                         .default_capacity = sim.plan.default_capacity,
                                         .hibernated_ms = SIM_SLEEP_MS,
                                         .go_workers = true},
                               .live = {.recordings_dir = "/nowhere",
                                        .recording_max = 1 << 20,
                                        .recording_keep_ms = 3600000,
                                        .gate_ms = sim.plan.gate_ms,
                                        .command_ms = 5000,
                                        .paused_max_ms = SIM_SLEEP_MS,
                                        .checkpoints = true,
                                        .sleep_paused_ms = sim.plan.sleep_ms,
                                        .sleep_idle_ms = sim.plan.sleep_ms,
                                        .sleep_waiting_ms = sim.plan.sleep_ms},
                               .providers = {.list = &no_providers, .settings = &settings},
                               .dispatch = {.concurrency = 4}};
    must(mu_domain_new(&sim.d, &o, sim.db, &err), "domain");
    static const char *const tokens[SIM_ORGS] = {"alice", "bob", "the-admin"};
    for (unsigned i = 0; i < SIM_ORGS; i++) {
        must(mu_identity_resolve(sim.d.identity, mu_str(tokens[i]), &sim.who[i]), "principal");
    }
}

void sim_server_start(void)
{
    sim.life++;
    sim_note("server: starts, life %u", sim.life);
    build_ground();
    build_domain();
    stopping = false;
    sim.here = sim.loops[0];
    mu_dispatch_start(sim.d.dispatch, recovered, NULL);
    sim.here = NULL;
}

static void start_again(void *arg MU_UNUSED)
{
    sim_server_start();
}

/* --- kill --- */

static void forget(void)
{
    sim.up = false;
    memset(sim.loops, 0, sizeof sim.loops);
    sim.writer = NULL;
    sim.readers = NULL;
    sim.work = NULL;
    sim.feed = NULL;
    sim.d = (struct mu_domain){0};
    sim.sweeper = NULL;
    sim.metrics = NULL;
}

void sim_server_kill(void)
{
    sim_note("server: killed");
    sim.counts.kills++;
    sim_links_server_gone();
    sim_people_server_gone();
    sim_views_server_gone();
    sim_workers_server_gone();
    forget();
    sim_mem_drop();
    sim_db_killed();
}

static void kill_it(void *arg MU_UNUSED)
{
    if (sim.writer && !sim.calm) {
        sim_server_kill();
        sim_after(sim_between(0, DOWN_MS), start_again, NULL);
    }
}

/* --- stop --- */

static void free_all(void)
{
    sim.writer = mu_writer_free(sim.writer);
    sim.readers = mu_readers_free(sim.readers);
    sim.work = mu_work_free(sim.work);
    for (unsigned i = SIM_LOOPS; i-- > 0;) { /* the core last: the others post to it */
        sim_loop_drain(sim.loops[i]);
    }
    mu_sweeper_free(sim.sweeper);
    mu_domain_end(&sim.d);
    mu_loop_free(sim.loops[0]);
    mu_loop_free(sim.loops[1]);
    mu_domain_free(&sim.d);
    mu_metrics_free(sim.metrics);
    mu_feed_free(sim.feed);
}

static void finish(void *arg)
{
    if (!stopping || !sim.writer || (uintptr_t)arg != sim.life) { /* killed meanwhile */
        return;
    }
    mu_fleet_close(sim.d.fleet);
    sim_views_server_gone();
    free_all();
    sim_people_server_gone();
    sim_links_server_gone();
    sim_workers_server_gone();
    forget();
    size_t left = sim_mem_left();
    if (left) {
        sim_fail("leftovers", "%zu blocks of memory after an orderly stop", left);
    }
    sim_note("server: stopped");
    stopping = false;
    over = last_stop;
    if (!over) {
        sim_after(sim_between(0, DOWN_MS), start_again, NULL);
    }
}

static void live_stopped(void *arg MU_UNUSED)
{
    sim_links_server_stops();
    sim_after(sim_between(0, DRAIN_MS), finish, (void *)(uintptr_t)sim.life);
}

static void runs_stopped(void *arg MU_UNUSED)
{
    mu_live_stop(sim.d.live, live_stopped, NULL);
}

static void sweeper_stopped(void *arg MU_UNUSED)
{
    mu_dispatch_stop(sim.d.dispatch, 0, runs_stopped, NULL);
}

void sim_server_stop(void)
{
    sim_note("server: stops");
    stopping = true;
    sim.up = false;
    sim.here = sim.loops[0];
    mu_sweeper_stop(sim.sweeper, sweeper_stopped, NULL);
    sim.here = NULL;
}

static void restart_it(void *arg MU_UNUSED)
{
    if (sim.up && !stopping && !sim.calm) {
        sim.counts.restarts++;
        sim_server_stop();
    }
}

void sim_server_last_stop(void)
{
    last_stop = true;
    sim_server_stop();
}

bool sim_server_over(void)
{
    return over;
}

void sim_server_plan(void)
{
    stopping = last_stop = over = false;
    sim_after(0, start_again, NULL);
    for (unsigned i = 0; i < sim.plan.kills; i++) {
        sim_after(sim_between(1, sim.plan.horizon_ms), kill_it, NULL);
    }
    for (unsigned i = 0; i < sim.plan.restarts; i++) {
        sim_after(sim_between(1, sim.plan.horizon_ms), restart_it, NULL);
    }
}
