/* Opening and closing: the domain (app/domain) as the server has it, without faces of the network
 * and without the provider route. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/encode.h"
#include "base/log.h"
#include "db/migrate.h"
#include "io/folder.h"
#include "io/key_file.h"
#include "lib/cp_int.h"

enum {
    QUEUE = 4096,
    MAX_TENANTS = 100000,
    RUNNER_ANSWER_MS = 5000,
    RECORDING_MAX = 64 << 20,
    RETENTION_SWEEP_MS = 3600000,
    LEAST_GRACE_MS = 1000,
    PAUSED_MAX_DAYS = 30,
};

void mu_cp_config_init(mu_cp_config *c)
{
    *c = (mu_cp_config){.size = sizeof *c,
                        .log_fd = -1,
                        .max_sessions_per_org = 10,
                        .default_timeout_minutes = 60,
                        .max_timeout_minutes = 120,
                        .max_queue_minutes = 60,
                        .approval_timeout_minutes = 30,
                        .session_data_ttl_hours = 24,
                        .recent_events = 50,
                        .max_attempts = 3,
                        .claim_timeout_ms = 30000,
                        .orphan_grace_ms = 120000};
}

void mu_lib_flag(struct mu_cp *cp, bool *flag)
{
    pthread_mutex_lock(&cp->lock);
    *flag = true;
    pthread_cond_broadcast(&cp->changed);
    pthread_mutex_unlock(&cp->lock);
}

bool mu_lib_enter(struct mu_cp *cp)
{
    pthread_mutex_lock(&cp->lock);
    bool open = !cp->closed;
    cp->inside += open;
    pthread_mutex_unlock(&cp->lock);
    return open;
}

void mu_lib_leave(struct mu_cp *cp)
{
    pthread_mutex_lock(&cp->lock);
    cp->inside--;
    pthread_cond_broadcast(&cp->changed);
    pthread_mutex_unlock(&cp->lock);
}

/* Callbacks that still come find it closed. */
static void shut(struct mu_cp *cp)
{
    pthread_mutex_lock(&cp->lock);
    cp->closed = true;
    while (cp->inside) {
        pthread_cond_wait(&cp->changed, &cp->lock);
    }
    pthread_mutex_unlock(&cp->lock);
}

/* --- what the host may set: the ranges of the server's settings --- */

static int check_config(const mu_cp_config *c, struct mu_err *err)
{
    const struct {
        const char *name;
        int64_t value, least, most;
    } ranges[] = {
        {"max_sessions_per_org", c->max_sessions_per_org, 0, 1000000},
        {"default_timeout_minutes", c->default_timeout_minutes, 1, 10080},
        {"max_timeout_minutes", c->max_timeout_minutes, 1, 10080},
        {"max_queue_minutes", c->max_queue_minutes, 1, 43200},
        {"approval_timeout_minutes", c->approval_timeout_minutes, 1, 10080},
        {"session_data_ttl_hours", c->session_data_ttl_hours, 1, 87600},
        {"retention_hours", c->retention_hours, 0, 87600},
        {"recent_events", c->recent_events, 0, 200},
        {"max_attempts", c->max_attempts, 1, 10},
        {"claim_timeout_ms", c->claim_timeout_ms, 1000, 600000},
        {"orphan_grace_ms", c->orphan_grace_ms, 0, 86400000},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(ranges); i++) {
        if (ranges[i].value < ranges[i].least || ranges[i].value > ranges[i].most) {
            return mu_err_set(err, MU_E_INVALID, "%s must be %lld to %lld", ranges[i].name,
                              (long long)ranges[i].least, (long long)ranges[i].most);
        }
    }
    return 0;
}

/* --- where things are --- */

static int make_folder(const char *path, struct mu_err *err)
{
    return mkdir(path, 0700) < 0 && errno != EEXIST
               ? mu_err_set(err, -errno, "cannot make '%s': %s", path, strerror(errno))
               : 0;
}

/* In memory where the system has a file system for that. */
static int temporary(struct mu_cp *cp, struct mu_err *err)
{
    const char *places[] = {"/dev/shm", getenv("TMPDIR"), "/tmp"};
    for (size_t i = 0; i < MU_ARRAY_LEN(places); i++) {
        if (!places[i] || !places[i][0] || strlen(places[i]) > 512) {
            continue;
        }
        snprintf(cp->root, sizeof cp->root, "%s/muster-XXXXXX", places[i]);
        if (mkdtemp(cp->root)) {
            cp->temporary = true;
            return 0;
        }
    }
    return mu_err_set(err, -errno, "cannot make a folder in memory: %s", strerror(errno));
}

static int place(struct mu_cp *cp, const char *storage, struct mu_err *err)
{
    bool pg = mu_db_engine_of(storage) == MU_DB_PG;
    const char *folder = pg ? cp->conf.files_dir : storage;
    if (pg && !folder) {
        return mu_err_set(err, MU_E_INVALID, "PostgreSQL needs files_dir for recordings and files");
    }
    if (strlen(storage) >= sizeof cp->url - 16 || strlen(folder) >= sizeof cp->root) {
        return mu_err_set(err, MU_E_INVALID, "the name of the storage is too long");
    }
    int r = 0;
    if (strcmp(storage, ":memory:") == 0) {
        r = temporary(cp, err);
    } else {
        snprintf(cp->root, sizeof cp->root, "%s", folder);
        r = make_folder(cp->root, err);
    }
    if (r < 0) {
        return r;
    }
    if (pg) {
        snprintf(cp->url, sizeof cp->url, "%s", storage);
    } else {
        snprintf(cp->url, sizeof cp->url, "%s/muster.db", cp->root);
    }
    snprintf(cp->recordings, sizeof cp->recordings, "%s/recordings", cp->root);
    snprintf(cp->blobs, sizeof cp->blobs, "%s/blobs", cp->root);
    return make_folder(cp->recordings, err);
}

/* --- the key --- */

static int find_key(struct mu_cp *cp, struct mu_buf *key, struct mu_err *err)
{
    char path[1100];
    if (cp->conf.key.ptr) {
        mu_bytes given = mu_cp_in(cp->conf.key);
        if (given.len > MU_KEY_FILE_MAX) {
            return mu_err_set(err, MU_E_INVALID, "the key is longer than %d bytes",
                              MU_KEY_FILE_MAX);
        }
        mu_buf_add(key, given);
        return key->failed;
    }
    snprintf(path, sizeof path, "%s/encryption.key", cp->root);
    int r = mu_key_file_read(path, key, err);
    if (r != MU_E_NOT_FOUND) {
        return r;
    }
    r = mu_key_file_make(&mu_env_real, cp->root, "encryption.key", "");
    return r < 0 && r != -EEXIST ? mu_err_set(err, r, "cannot create %s: %s", path, mu_err_text(r))
                                 : mu_key_file_read(path, key, err);
}

static int build_vault(struct mu_cp *cp, struct mu_err *err)
{
    struct mu_buf key;
    mu_buf_init(&key, MU_KEY_FILE_MAX);
    int r = find_key(cp, &key, err);
    if (r == 0) {
        mu_bytes root = mu_bytes_trim(mu_buf_bytes(&key));
        r = root.len < MU_KEY_LEAST ? MU_E_INVALID
                                    : mu_vault_new(&cp->env, root, MU_B_NONE, &cp->vault);
        if (r < 0) {
            mu_err_set(err, r, "the key is not usable: %s", mu_err_text(r));
        }
    }
    mu_buf_wipe(&key);
    mu_buf_fini(&key);
    return r;
}

/* --- the floors --- */

static int build_ground(struct mu_cp *cp, struct mu_err *err)
{
    int r = mu_loop_new(&cp->env, "mu-core", &cp->loop);
    if (r == 0) {
        r = mu_metrics_new(&cp->metrics);
    }
    if (r == 0) { /* one thread: what was asked last is done last (clock.c) */
        r = mu_work_new(1, QUEUE, &cp->work);
    }
    if (r == 0) {
        r = mu_feed_new(&cp->loop, 1, &cp->feed);
    }
    if (r < 0) {
        return mu_err_set(err, r, "cannot start: %s", mu_err_text(r));
    }
    mu_feed_tap(cp->feed, mu_lib_tap, cp);
    struct mu_db_opts db = {.url = cp->url, .sync_normal = cp->temporary};
    const struct mu_writer_opts wo = {
        .db = db, .env = &cp->env, .feed = cp->feed, .metrics = cp->metrics};
    r = mu_writer_new(&wo, &cp->writer, err);
    if (r < 0) {
        return r;
    }
    db.reader = true;
    const struct mu_readers_opts ro = {
        .db = db, .env = &cp->env, .threads = cp->conf.host_driven ? 1 : 2};
    r = mu_readers_new(&ro, &cp->readers, err);
    return r < 0 ? r : build_vault(cp, err);
}

static int build_domain(struct mu_cp *cp, struct mu_db *db, struct mu_err *err)
{
    const mu_cp_config *c = &cp->conf;
    unsigned char raw[32];
    mu_env_real.random(&mu_env_real, raw, sizeof raw); /* nobody can say it: no key is ever asked */
    mu_hex(raw, sizeof raw, cp->admin_key);
    cp->settings = (struct mu_providers_settings){
        .default_provider = "none", .default_harness = "custom", .queue_on_saturation = true};
    struct mu_domain_opts o = {.env = &cp->env,
                               .core = cp->loop,
                               .work = cp->work,
                               .metrics = cp->metrics,
                               .feed = cp->feed,
                               .writer = cp->writer,
                               .readers = cp->readers,
                               .vault = cp->vault,
                               .run_max_ms = c->max_timeout_minutes * 60000,
                               .pending_max_ms = c->max_queue_minutes * 60000,
                               .max_tries = c->max_attempts,
                               .files_dir = cp->blobs,
                               .identity = {.admin_key = cp->admin_key, .max_tenants = MAX_TENANTS},
                               .sessions = {.retention_ms = c->retention_hours * 3600000},
                               .fleet = {.claim_timeout_ms = c->claim_timeout_ms,
                                         .native_claim_timeout_ms = c->claim_timeout_ms,
                                         .grace_ms = MU_MAX(c->orphan_grace_ms, LEAST_GRACE_MS),
                                         .default_capacity = 5},
                               .live = {.recordings_dir = cp->recordings,
                                        .recording_max = RECORDING_MAX,
                                        .recording_keep_ms = c->session_data_ttl_hours * 3600000,
                                        .gate_ms = c->approval_timeout_minutes * 60000,
                                        .command_ms = RUNNER_ANSWER_MS,
                                        .paused_max_ms = PAUSED_MAX_DAYS * INT64_C(86400000)},
                               .providers = {.list = &cp->no_providers, .settings = &cp->settings},
                               .dispatch = {.concurrency = 1}};
    int r = mu_domain_new(&cp->d, &o, db, err);
    return r < 0 ? r : mu_identity_resolve(cp->d.identity, mu_str(cp->admin_key), &cp->admin);
}

static bool writable(void *arg, const char **ret_why)
{
    struct mu_cp *cp = arg;
    *ret_why = "the storage does not accept writes just now";
    return mu_writer_healthy(cp->writer);
}

static int build_face(struct mu_cp *cp, struct mu_err *err)
{
    const mu_cp_config *c = &cp->conf;
    static const char *const *const components[] = {mu_sess_components, NULL};
    cp->oz = (struct mu_oz){.env = &cp->env,
                            .sessions = cp->d.sessions,
                            .dispatch = cp->d.dispatch,
                            .fleet = cp->d.fleet,
                            .environments = cp->d.environments,
                            .providers = cp->d.providers,
                            .identity = cp->d.identity,
                            .files = cp->d.files,
                            .readers = cp->readers,
                            .work = cp->work,
                            .core = cp->loop,
                            .sess = &cp->sess};
    atomic_store(&cp->oz.settings, &cp->settings);
    cp->sess = (struct mu_sess_face){.vault = cp->vault,
                                     .live = cp->d.live,
                                     .max_sessions_per_org = c->max_sessions_per_org,
                                     .default_timeout_min =
                                         MU_MIN(c->default_timeout_minutes, c->max_timeout_minutes),
                                     .max_timeout_min = c->max_timeout_minutes,
                                     .max_queue_min = c->max_queue_minutes,
                                     .approval_timeout_min = c->approval_timeout_minutes,
                                     .recent_events = c->recent_events,
                                     .allow_local_repos = c->allow_local_repos != 0,
                                     .allow_skip_permissions = c->allow_skip_permissions != 0};
    const struct mu_api_opts ao = {.env = &cp->env,
                                   .identity = cp->d.identity,
                                   .metrics = cp->metrics,
                                   .tables = mu_lib_tables,
                                   .n_tables = mu_lib_n_tables,
                                   .components = components,
                                   .writable = writable,
                                   .writable_arg = cp,
                                   .app = &cp->oz};
    return mu_api_new(&ao, &cp->api, err);
}

static int build(struct mu_cp *cp, struct mu_err *err)
{
    struct mu_db *db = NULL;
    const struct mu_db_opts opts = {.url = cp->url, .reader = true};
    int r = build_ground(cp, err);
    if (r == 0) {
        r = mu_db_open(&opts, &db, err);
    }
    if (r == 0) {
        r = build_domain(cp, db, err);
    }
    mu_db_close(db);
    return r < 0 ? r : build_face(cp, err);
}

/* --- start --- */

static void expired(void *arg, mu_bytes session_id)
{
    mu_dispatch_expired(((struct mu_cp *)arg)->d.dispatch, session_id);
}

static void file_gone(void *arg, mu_bytes file_id)
{
    mu_files_remove(((struct mu_cp *)arg)->d.files, file_id);
}

static void recovered(void *arg)
{
    struct mu_cp *cp = arg;
    const struct mu_sweeper_opts so = {.sessions = cp->d.sessions,
                                       .core = cp->loop,
                                       .retention_interval_ms = RETENTION_SWEEP_MS,
                                       .work = cp->work,
                                       .expired = expired,
                                       .file_gone = file_gone,
                                       .arg = cp};
    cp->began = mu_sweeper_new(&so, &cp->sweeper);
    if (cp->began == 0) {
        mu_live_start(cp->d.live);
    }
    mu_lib_flag(cp, &cp->ready);
}

static void begin(struct mu_post *post)
{
    struct mu_cp *cp = MU_CONTAINER(post, struct mu_cp, begin_post);
    mu_dispatch_start(cp->d.dispatch, recovered, cp);
}

static int start(struct mu_cp *cp, struct mu_err *err)
{
    cp->begin_post.fn = begin;
    int r = mu_lib_lanes_start(cp);
    if (r == 0 && !cp->conf.host_driven) {
        r = mu_loop_start(cp->loop);
    }
    if (r < 0) {
        return mu_err_set(err, r, "cannot start a thread: %s", mu_err_text(r));
    }
    mu_loop_post(cp->loop, &cp->begin_post);
    if (!mu_lib_wait(cp, &cp->ready)) {
        return mu_err_set(err, MU_E_UNAVAILABLE, "what was left was not read");
    }
    return cp->began;
}

/* --- end --- */

static void live_stopped(void *arg)
{
    struct mu_cp *cp = arg;
    mu_fleet_close(cp->d.fleet);
    mu_lib_flag(cp, &cp->over);
}

static void runs_stopped(void *arg)
{
    struct mu_cp *cp = arg;
    mu_live_stop(cp->d.live, live_stopped, cp);
}

static void sweeper_stopped(void *arg)
{
    struct mu_cp *cp = arg;
    mu_dispatch_stop(cp->d.dispatch, 0, runs_stopped, cp);
}

static void end(struct mu_post *post)
{
    struct mu_cp *cp = MU_CONTAINER(post, struct mu_cp, end_post);
    mu_api_set_stopping(cp->api);
    if (cp->sweeper) {
        mu_sweeper_stop(cp->sweeper, sweeper_stopped, cp);
    } else {
        sweeper_stopped(cp);
    }
}

static void free_all(struct mu_cp *cp)
{
    shut(cp); /* what was posted before is still delivered */
    cp->writer = mu_writer_free(cp->writer);
    cp->readers = mu_readers_free(cp->readers);
    cp->work = mu_work_free(cp->work);
    if (cp->loop && !cp->conf.host_driven) {
        mu_loop_stop(cp->loop);
        mu_loop_join(cp->loop);
    }
    mu_sweeper_free(cp->sweeper);
    mu_domain_end(&cp->d);
    mu_vault_free(cp->vault);
    mu_loop_free(cp->loop);
    mu_domain_free(&cp->d);
    mu_feed_free(cp->feed);
    mu_lib_calls_drop(cp); /* answers them, which the lanes tell */
    mu_lib_lanes_end(cp);
    mu_lib_lanes_drop(cp);
    mu_lib_runners_drop(cp);
    mu_api_free(cp->api);
    mu_metrics_free(cp->metrics);
    if (cp->temporary) {
        mu_folder_remove(cp->root);
    }
    pthread_mutex_destroy(&cp->lock);
    pthread_mutex_destroy(&cp->drive);
    pthread_cond_destroy(&cp->changed);
    explicit_bzero(cp->admin_key, sizeof cp->admin_key);
    mu_free(cp);
}

void mu_cp_close(mu_cp *cp)
{
    if (!cp) {
        return;
    }
    mu_lib_runners_end(cp);
    cp->end_post.fn = end;
    mu_loop_post(cp->loop, &cp->end_post);
    if (!mu_lib_wait(cp,
                     &cp->over)) { /* host-driven: only time could bring what is still awaited */
        while (!cp->over) {
            mu_cp_tick(cp, atomic_load(&cp->now_ms) + 1000);
        }
    }
    free_all(cp);
}

static void setup_log(const struct mu_cp *cp)
{
    mu_log_fd(cp->conf.log_fd);
    mu_log_setup(&mu_env_real, cp->conf.log_fd < 0 ? MU_LOG_ERROR + 1 : MU_LOG_INFO, false);
}

static struct mu_cp *cp_new(const mu_cp_config *config)
{
    struct mu_cp *cp = mu_calloc(1, sizeof *cp);
    if (!cp) {
        return NULL;
    }
    mu_cp_config_init(&cp->conf);
    if (config) { /* one of an older header is shorter */
        memcpy(&cp->conf, config, MU_MIN(config->size, sizeof cp->conf));
    }
    pthread_mutex_init(&cp->lock, NULL);
    pthread_mutex_init(&cp->drive, NULL);
    pthread_cond_init(&cp->changed, NULL);
    mu_list_init(&cp->calls);
    mu_list_init(&cp->runners);
    mu_list_init(&cp->left);
    mu_lib_lanes_init(cp);
    mu_lib_clock_init(cp);
    setup_log(cp);
    return cp;
}

mu_cp_status mu_cp_open(const mu_cp_config *config, const char *storage, mu_cp **ret, char *text,
                        size_t text_size)
{
    struct mu_err err = {0};
    struct mu_cp *cp = cp_new(config);
    int r = cp ? 0 : mu_err_set(&err, -ENOMEM, "out of memory");
    if (text && text_size) {
        text[0] = 0;
    }
    if (r == 0) {
        r = check_config(&cp->conf, &err);
    }
    if (r == 0) {
        r = place(cp, storage, &err);
    }
    if (r == 0) {
        r = build(cp, &err);
    }
    if (r == 0) {
        r = start(cp, &err);
    }
    if (r == 0) {
        *ret = cp;
        return MU_CP_OK;
    }
    if (text && text_size) {
        snprintf(text, text_size, "%s", err.text[0] ? err.text : mu_err_text(r));
    }
    if (cp) {
        free_all(cp);
    }
    return r == MU_E_INVALID ? MU_CP_VALIDATION_ERROR : MU_CP_UNAVAILABLE;
}
