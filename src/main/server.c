/* Building the server, floor by floor, and taking it down again. */
#include "main/server.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/log.h"
#include "db/migrate.h"
#include "exec/process.h"
#include "main/settings.h"
#include "main/web_assets.h"
#include "net/fetch.h"

extern char **environ;

enum { WORK_THREADS = 4, WORK_QUEUE = 4096, MAX_TENANTS = 100000, LOOP_LIMIT_MS = 50 };
/* An attempt that is not confirmed ends with its lease: the worker needs time to do that. */
enum { LEAST_GRACE_MS = 1000, RUNNER_ANSWER_MS = 5000 };

static void slow_turn(void *arg MU_UNUSED, const char *loop_name, int64_t turn_ms)
{
    mu_log(MU_LOG_WARN, "loop.slow_turn", MU_KC("loop", loop_name), MU_KI("turn_ms", turn_ms));
}

static int build_ground(struct mu_server *s, struct mu_err *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t n = s->conf->threads > 0 ? s->conf->threads : cores > 0 ? cores : 1;
    s->n_loops = (size_t)MU_MIN(n, (int64_t)MU_MAX_LOOPS);
    for (size_t i = 0; i < s->n_loops; i++) {
        char name[16];
        snprintf(name, sizeof name, i ? "loop-%zu" : "core", i);
        int r = mu_loop_new(s->env, name, &s->loops[i]);
        if (r < 0) {
            return mu_err_set(err, r, "cannot make an event loop: %s", mu_err_text(r));
        }
    }
    int r = mu_metrics_new(&s->metrics);
    if (r == 0) {
        r = mu_work_new(WORK_THREADS, WORK_QUEUE, &s->work);
    }
    if (r == 0) {
        r = mu_feed_new(s->loops, s->n_loops, &s->feed);
    }
    return r < 0 ? mu_err_set(err, r, "cannot start: %s", mu_err_text(r)) : 0;
}

static int build_db(struct mu_server *s, struct mu_err *err)
{
    const struct mu_config *c = s->conf;
    struct mu_db_opts db = {.url = c->database_url,
                            .sync_normal = strcmp(c->sqlite_sync, "normal") == 0};
    const struct mu_writer_opts wo = {.db = db,
                                      .env = s->env,
                                      .feed = s->feed,
                                      .org_types = MU_ORG_EVENTS,
                                      .metrics = s->metrics};
    int r = mu_writer_new(&wo, &s->writer, err);
    if (r < 0) {
        return r;
    }
    bool pg = mu_db_engine_of(c->database_url) == MU_DB_PG;
    db.reader = true;
    const struct mu_readers_opts ro = {.db = db, .env = s->env, .threads = pg ? 4 : 2};
    return mu_readers_new(&ro, &s->readers, err);
}

/* The at-rest root: ENCRYPTION_KEY, or the generated file that mu_config_first_start() made of it.
 */
static int build_vault(struct mu_server *s, struct mu_err *err)
{
    const struct mu_config *c = s->conf;
    int r = mu_vault_new(s->env, mu_str(c->encryption_key), mu_str(c->encryption_key_previous),
                         &s->vault);
    return r < 0 ? mu_err_set(err, r, "ENCRYPTION_KEY is not usable: %s", mu_err_text(r)) : 0;
}

/* Fractions of a day count; whatever is above 0 is at least a millisecond, as 0 means for ever. */
static int64_t retention_ms(double days)
{
    return days > 0 ? MU_MAX((int64_t)(days * 86400000.0), 1) : 0;
}

static int make_folder(char *path, size_t size, const char *dir, const char *name,
                       struct mu_err *err)
{
    snprintf(path, size, "%s/%s", dir, name);
    return mkdir(path, 0700) < 0 && errno != EEXIST
               ? mu_err_set(err, -errno, "cannot make '%s': %s", path, strerror(errno))
               : 0;
}

/* What only the server has of what the domain is told. */
static int build_outside(struct mu_server *s, struct mu_err *err)
{
    const struct mu_config *c = s->conf;
    if (c->require_worker_sidecar && !(c->worker_sidecar_image && c->worker_sidecar_image[0])) {
        return mu_err_set(err, MU_E_INVALID,
                          "OZ_WORKER_SIDECAR_IMAGE is missing: OZ_REQUIRE_WORKER_SIDECAR asks for "
                          "it");
    }
    int r = mu_embedded_new(s->env, c, s->args, &s->embedded, &s->worker_keys);
    if (r == 0) {
        r = mu_fetcher_new(s->loops[0], 1024, &s->fetcher);
    }
    if (r < 0) {
        return mu_err_set(err, r, "cannot start: %s", mu_err_text(r));
    }
    r = make_folder(s->recordings, sizeof s->recordings, c->data_dir, "recordings", err);
    return r < 0 ? r : make_folder(s->scratch, sizeof s->scratch, c->data_dir, "scratch", err);
}

static enum mu_dialect dialect_of(const char *word)
{
    return strcmp(word, "vendored") == 0 ? MU_DIALECT_VENDORED
           : strcmp(word, "warp") == 0   ? MU_DIALECT_WARP
                                         : MU_DIALECT_UNKNOWN;
}

static int64_t minutes_ms(double minutes)
{
    return minutes > 0 ? MU_MAX((int64_t)(minutes * 60000.0), INT64_C(1)) : 0;
}

static struct mu_fleet_opts fleet_opts(const struct mu_config *c)
{
    bool sidecar = c->worker_sidecar_image && c->worker_sidecar_image[0];
    return (struct mu_fleet_opts){.claim_timeout_ms = c->worker_claim_timeout_ms,
                                  .native_claim_timeout_ms = c->claim_timeout_ms,
                                  .grace_ms = MU_MAX(c->worker_grace_ms, LEAST_GRACE_MS),
                                  .default_capacity = c->worker_default_capacity,
                                  .heartbeat_timeout_ms = c->heartbeat_timeout_ms,
                                  .check_ms = c->health_check_ms,
                                  .max_org_workers = c->max_runners_per_org,
                                  .max_workers = c->max_runners,
                                  .load_percent =
                                      MU_MAX((int64_t)(c->load_factor * 100.0 + 0.5), 1),
                                  .drain_timeout_ms = c->drain_timeout_minutes * 60000,
                                  .hibernated_ms = c->hibernated_max_days * 86400000,
                                  .dialect = dialect_of(c->worker_dialect),
                                  .go_workers = sidecar,
                                  .go_live = sidecar && c->worker_sidecar_live};
}

static struct mu_live_opts live_opts(const struct mu_server *s)
{
    const struct mu_config *c = s->conf;
    return (struct mu_live_opts){.recordings_dir = s->recordings,
                                 .recording_max = c->recording_max_mb << 20,
                                 .recording_keep_ms = c->session_data_ttl_hours * 3600000,
                                 .gate_ms = c->approval_timeout_minutes * 60000,
                                 .command_ms = RUNNER_ANSWER_MS,
                                 .paused_max_ms = c->hibernated_max_days * 86400000,
                                 .sleep_paused_ms = minutes_ms(c->hibernate_paused_minutes),
                                 .sleep_idle_ms = minutes_ms(c->hibernate_idle_minutes),
                                 .sleep_waiting_ms = minutes_ms(c->hibernate_waiting_minutes),
                                 .checkpoints = c->checkpoint_max_mb > 0};
}

static int build_domain(struct mu_server *s, struct mu_db *db, struct mu_err *err)
{
    const struct mu_config *c = s->conf;
    struct mu_domain_opts o = {
        .env = s->env,
        .core = s->loops[0],
        .work = s->work,
        .metrics = s->metrics,
        .feed = s->feed,
        .writer = s->writer,
        .readers = s->readers,
        .vault = s->vault,
        .run_max_ms = c->run_max_seconds * 1000,
        .pending_max_ms = c->pending_max_seconds * 1000,
        .max_tries = c->run_max_attempts,
        .tenant_max_running = c->tenant_max_running,
        .files_dir = c->blob_dir,
        .identity = {.admin_key = c->admin_key,
                     .tenant_tokens_file = c->tenant_tokens_file,
                     .worker_keys = s->worker_keys ? s->worker_keys : c->worker_keys,
                     .requests_per_minute = c->tenant_requests_per_minute,
                     .max_tenants = MAX_TENANTS},
        .sessions = {.retention_ms = retention_ms(c->retention_days),
                     .max_queued = c->tenant_max_queued,
                     .checkpoint_max = c->checkpoint_max_mb << 20},
        .fleet = fleet_opts(c),
        .live = live_opts(s),
        .providers = {.fetch = &mu_fetch_real,
                      .fetcher = s->fetcher,
                      .process = &mu_process_real,
                      .scratch_dir = s->scratch,
                      .environ_ = (const char *const *)environ,
                      .list = &c->provider_list,
                      .settings = &c->providers},
        .dispatch = {.concurrency = c->run_concurrency}};
    return mu_domain_new(&s->d, &o, db, err);
}

static int build_schedules(struct mu_server *s, struct mu_err *err)
{
    const struct mu_config *c = s->conf;
    const struct mu_schedules_opts sc = {.env = s->env,
                                         .core = s->loops[0],
                                         .writer = s->writer,
                                         .readers = s->readers,
                                         .identity = s->d.identity,
                                         .dispatch = s->d.dispatch,
                                         .environments = s->d.environments,
                                         .settings = &c->providers,
                                         .allow_raw_env_image = c->allow_raw_env_image,
                                         .image_allowlist = c->image_allowlist};
    int r = mu_schedules_new(&sc, &s->schedules);
    return r < 0 ? mu_err_set(err, r, "cannot start: %s", mu_err_text(r)) : 0;
}

/* --- faces --- */

static bool is_ready(void *arg, const char **ret_why)
{
    struct mu_server *s = arg;
    *ret_why = "starting";
    return atomic_load(&s->ready);
}

static bool is_writable(void *arg, const char **ret_why)
{
    struct mu_server *s = arg;
    if (atomic_load_explicit(&s->disk_low, memory_order_relaxed)) {
        *ret_why = "the disk is nearly full (OZ_DISK_MIN_FREE_MB); nothing new is accepted";
        return false;
    }
    if (!mu_writer_healthy(s->writer)) {
        *ret_why = "the database does not accept writes just now";
        return false;
    }
    return true;
}

static const struct mu_meta *meta_of(void *app)
{
    return &MU_CONTAINER(app, struct mu_server, oz)->meta;
}

static void fill_sockets(struct mu_server *s)
{
    const struct mu_config *c = s->conf;
    const struct mu_sock_face_opts opts = {
        .env = s->env,
        .identity = s->d.identity,
        .sessions = s->d.sessions,
        .fleet = s->d.fleet,
        .live = s->d.live,
        .metrics = s->metrics,
        .recent_events = (unsigned)c->recent_events_limit,
        .limits = {.ping_ms = c->ws_heartbeat_ms,
                   .silence_ms = c->ws_timeout_ms,
                   .auth_ms = c->ws_auth_ms,
                   .max_message = c->ws_max_message,
                   .soft_bytes = MU_MIN(c->ws_soft_bytes, c->ws_hard_bytes / 2),
                   .hard_bytes = c->ws_hard_bytes,
                   .max_per_user = c->ws_max_per_user,
                   .max_total = c->ws_max_connections,
                   .max_subscriptions = c->ws_max_subscriptions,
                   .per_second = c->ws_messages_per_second}};
    mu_sock_face_init(&s->sockets, &opts);
}

static void fill_sessions(struct mu_server *s)
{
    const struct mu_config *c = s->conf;
    s->link_rates.per_minute = c->approval_link_rpm;
    s->sess = (struct mu_sess_face){.vault = s->vault,
                                    .live = s->d.live,
                                    .max_sessions_per_org = c->max_sessions_per_org,
                                    .default_timeout_min =
                                        MU_MIN(c->default_timeout_minutes, c->max_timeout_minutes),
                                    .max_timeout_min = c->max_timeout_minutes,
                                    .max_queue_min = c->max_queue_minutes,
                                    .approval_timeout_min = c->approval_timeout_minutes,
                                    .recent_events = c->recent_events_limit,
                                    .own_url = s->own_url,
                                    .link_rates = &s->link_rates,
                                    .allow_local_repos = c->allow_local_repos,
                                    .allow_skip_permissions = c->allow_skip_permissions};
}

static int fill_web(struct mu_server *s)
{
    const struct mu_config *c = s->conf;
    s->web = (struct mu_web){.env = s->env,
                             .identity = s->d.identity,
                             .assets = c->web ? &mu_embedded_assets : NULL,
                             .public_url = c->public_url,
                             .own_url = s->own_url};
    return mu_login_rates_new(c->login_rpm, c->login_max_failures, &s->web.rates);
}

static void fill_faces(struct mu_server *s)
{
    const struct mu_config *c = s->conf;
    s->oz = (struct mu_oz){
        .env = s->env,
        .sessions = s->d.sessions,
        .dispatch = s->d.dispatch,
        .fleet = s->d.fleet,
        .environments = s->d.environments,
        .schedules = s->schedules,
        .providers = s->d.providers,
        .identity = s->d.identity,
        .files = s->d.files,
        .readers = s->readers,
        .work = s->work,
        .core = s->loops[0],
        .list_legacy_items = c->list_legacy_items,
        .allow_raw_env_image = c->allow_raw_env_image,
        .tenant_host_network = c->tenant_host_network,
        .tenant_nested = c->tenant_nested,
        .list_message_bytes = c->list_message_bytes,
        .image_allowlist = c->image_allowlist,
        .public_url = c->public_url,
        .run_source_default = mu_source_parse(mu_str(c->run_source_default)),
        .sse_clients =
            mu_metrics_gauge(s->metrics, "muster_sse_clients", NULL, "Open event streams."),
    };
    atomic_store(&s->oz.settings, &c->providers);
    s->oz.workers = &s->workers;
    s->oz.sess = &s->sess;
    s->oz.sockets = &s->sockets;
    s->oz.web = &s->web;
    fill_sockets(s);
    fill_sessions(s);
    s->workers.opts = (struct mu_worker_face_opts){
        .env = s->env,
        .fleet = s->d.fleet,
        .core = s->loops[0],
        .sidecar_image = c->worker_sidecar_image,
        .server_root_url = c->sandbox_server_url ? c->sandbox_server_url : c->public_url,
        .heartbeat_ms = c->runner_heartbeat_ms};
    s->meta = (struct mu_meta){
        .env = s->env,
        .identity = s->d.identity,
        .readers = s->readers,
        .writer = s->writer,
        .metrics = s->metrics,
        .version = MU_VERSION,
        .backend = mu_db_engine_of(c->database_url) == MU_DB_PG ? "postgresql" : "sqlite",
        .ready = is_ready,
        .ready_arg = s};
}

static int build_faces(struct mu_server *s, struct mu_err *err)
{
    const struct mu_config *c = s->conf;
    static const struct mu_route *const tables[] = {
        mu_oz_agent_routes,       mu_oz_run_routes,       mu_oz_event_routes,
        mu_oz_environment_routes, mu_oz_file_routes,      mu_oz_schedule_routes,
        mu_oz_provider_routes,    mu_meta_routes,         mu_key_routes,
        mu_server_routes,         mu_worker_routes,       mu_runner_socket_routes,
        mu_oz_attempt_routes,     mu_sess_routes,         mu_sess_control_routes,
        mu_sess_event_routes,     mu_sess_result_routes,  mu_sess_approval_routes,
        mu_sess_turn_routes,      mu_sess_org_routes,     mu_sock_routes,
        mu_fleet_routes,          mu_fleet_change_routes, mu_fleet_enrolment_routes,
        mu_sess_link_routes,      mu_sess_fork_routes,    mu_oz_checkpoint_routes,
        mu_web_auth_routes};
    static const char *const *const components[] = {mu_oz_components,   mu_sess_components,
                                                    mu_sock_components, mu_fleet_components,
                                                    mu_web_components,  NULL};
    if (fill_web(s) < 0) {
        return mu_err_set(err, -ENOMEM, "cannot start: out of memory");
    }
    fill_faces(s);
    const struct mu_api_opts ao = {.env = s->env,
                                   .identity = s->d.identity,
                                   .metrics = s->metrics,
                                   .cors_origins = c->cors_origin,
                                   .public_url = c->public_url,
                                   .tls = c->tls_cert_file && c->tls_cert_file[0],
                                   .other = mu_web_other,
                                   .allowed_hosts = c->allowed_hosts,
                                   .tables = tables,
                                   .n_tables = MU_ARRAY_LEN(tables),
                                   .components = components,
                                   .writable = is_writable,
                                   .writable_arg = s,
                                   .meta_of = meta_of,
                                   .app = &s->oz};
    int r = mu_api_new(&ao, &s->api, err);
    if (r < 0) {
        return r;
    }
    struct mu_http_limits limits = mu_http_default_limits;
    limits.max_connections = (size_t)c->max_connections;
    const struct mu_http_ops ops = mu_api_http_ops(s->api);
    r = mu_http_server_new(s->loops, s->n_loops, &limits, &ops, &s->http);
    s->meta.http = s->http;
    return r < 0 ? mu_err_set(err, r, "cannot make the HTTP server: %s", mu_err_text(r)) : 0;
}

int mu_server_build(struct mu_server *s, struct mu_err *err)
{
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    int r = build_ground(s, err);
    if (r == 0) {
        r = build_db(s, err);
    }
    if (r == 0) {
        r = build_vault(s, err);
    }
    struct mu_db *db = NULL;
    const struct mu_db_opts opts = {.url = s->conf->database_url, .reader = true};
    if (r == 0) {
        r = mu_db_open(&opts, &db, err);
    }
    if (r == 0) {
        r = build_outside(s, err);
    }
    if (r == 0) {
        r = build_domain(s, db, err);
    }
    mu_db_close(db);
    if (r == 0) {
        r = build_schedules(s, err);
    }
    if (r == 0) {
        r = build_faces(s, err);
    }
    if (r == 0) {
        r = mu_watchdog_new(s->loops, s->n_loops, LOOP_LIMIT_MS, slow_turn, s, &s->watchdog);
        if (r < 0) {
            mu_err_set(err, r, "cannot start the watchdog: %s", mu_err_text(r));
        }
    }
    return r;
}

void mu_server_free(struct mu_server *s)
{
    mu_embedded_free(s->embedded);
    mu_free(s->worker_keys);
    mu_http_server_free(s->http);
    mu_api_free(s->api);
    s->web.rates = mu_login_rates_free(s->web.rates);
    mu_sweeper_free(s->sweeper);
    mu_keeper_free(s->keeper);
    mu_schedules_free(s->schedules);
    mu_domain_end(&s->d);
    mu_fetcher_free(s->fetcher);
    mu_vault_free(s->vault);
    mu_timer_clear(&s->disk.timer);
    mu_timer_clear(&s->reload.again);
    mu_timer_clear(&s->hard_limit);
    for (size_t i = 0; i < s->n_loops; i++) {
        mu_loop_free(s->loops[i]);
    }
    mu_domain_free(&s->d);
    mu_sock_face_fini(&s->sockets);
    mu_feed_free(s->feed);
    mu_metrics_free(s->metrics);
    if (s->conf != s->first_conf) {
        mu_config_free(s->conf);
    }
    mu_config_free(s->first_conf);
    for (size_t i = 0; i < s->n_retired; i++) {
        mu_config_free(s->retired[i].conf);
    }
}
