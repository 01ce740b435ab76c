/* The configuration: one typed table (specification README 5), filled from default < INI file <
 * .env < environment < flag. */
#ifndef MU_MAIN_CONFIG_H
#define MU_MAIN_CONFIG_H

#include "app/providers/config.h"
#include "base/env.h"
#include "base/option.h"

/* Where a value came from, for `muster config`. */
enum mu_config_source {
    MU_FROM_DEFAULT,
    MU_FROM_INI,
    MU_FROM_ENV_FILE,
    MU_FROM_ENV,
    MU_FROM_FLAG,
    MU_FROM_GENERATED
};

struct mu_config {
    /* storage */
    const char *data_dir, *database_url, *blob_dir;
    const char *env_file;    /* which .env was asked for; NULL = the working directory's */
    const char *sqlite_sync; /* full | normal */
    int64_t disk_min_free_mb;
    /* listening */
    const char *host;
    int64_t port;
    const char *metrics_listen, *tls_cert_file, *tls_key_file, *public_url, *allowed_hosts,
        *cors_origin;
    int64_t threads, max_connections, shutdown_grace_ms;
    /* identity */
    const char *environment, *admin_key, *tenant_tokens_file, *encryption_key,
        *encryption_key_previous;
    bool web;
    int64_t login_rpm, login_max_failures;
    bool allow_no_admin_key;
    /* the WebSocket of clients */
    int64_t ws_heartbeat_ms, ws_timeout_ms, ws_auth_ms, ws_max_message, ws_max_per_user,
        ws_max_connections, ws_max_subscriptions, ws_soft_bytes, ws_hard_bytes,
        ws_messages_per_second;
    /* sessions */
    int64_t max_sessions_per_org, default_timeout_minutes, max_timeout_minutes, max_queue_minutes,
        recent_events_limit;
    bool allow_local_repos, allow_skip_permissions;
    int64_t approval_timeout_minutes, approval_link_rpm, hibernated_max_days, recording_max_mb,
        session_data_ttl_hours, checkpoint_max_mb;
    int64_t tenant_requests_per_minute, tenant_max_queued, tenant_max_running;
    /* log */
    const char *log_level, *log_format;
    /* runs */
    int64_t run_concurrency, run_max_attempts, run_max_seconds, pending_max_seconds,
        retention_sweep_ms, list_message_bytes;
    double retention_days;
    double hibernate_paused_minutes, hibernate_idle_minutes, hibernate_waiting_minutes;
    bool list_legacy_items, allow_raw_env_image;
    const char *image_allowlist, *run_source_default;
    /* workers */
    const char *worker_keys, *worker_sidecar_image, *worker_dialect, *sandbox_server_url;
    bool require_worker_sidecar, worker_sidecar_live;
    int64_t worker_claim_timeout_ms, claim_timeout_ms, worker_grace_ms, worker_default_capacity,
        runner_heartbeat_ms, heartbeat_timeout_ms, health_check_ms, max_runners_per_org,
        max_runners, drain_timeout_minutes;
    double load_factor;
    /* providers that are not per key */
    struct mu_providers_settings providers;
    const char *model, *provider_model, *provider_base_url, *provider_api_key;
    int64_t provider_msg_limit, provider_window_seconds;
    const char *anthropic_api_key, *openai_api_key, *google_api_key; /* for discovery */
    bool startup_validate_providers;
    const char *validate_harnesses;

    /* `muster worker`, and the one embedded in the server */
    bool embedded_worker;
    const char *api_key, *worker_enrol_token, *ws_url, *server_root_url;
    int64_t reconnect_max_attempts, reconnect_window_seconds;
    const char *runner_workspace_dir, *runner_cache_dir, *runner_features;
    int64_t runner_max_sessions;
    const char *claude_path, *codex_path, *gemini_path;
    bool allow_unsafe_process_driver;
    const char *docker_host;
    const char *sandbox_driver;
    int64_t sandbox_max, sandbox_memory_mb, sandbox_pids, sandbox_disk_mb, sandbox_shm_mb;
    double sandbox_cpus;
    const char *sandbox_min, *sandbox_base, *sandbox_net, *sandbox_ro, *sandbox_etc, *sandbox_allow,
        *sandbox_allow_addr, *sandbox_forward;
    bool git_ssh_keys, sandbox_nested, tenant_host_network, tenant_nested;

    struct mu_arena arena;          /* owns every text above */
    enum mu_config_source *sources; /* one per row of mu_config_table */
    struct mu_provider_list
        provider_list;             /* OZ_PROVIDER_<KEY>_*, parsed; plus what was discovered */
    bool providers_given;          /* some provider was configured: no discovery */
    struct mu_config_given *given; /* variables whose names hold a provider key or a harness */
    size_t n_given;
};

/* A variable that is no row of the table, for mu_config_print(). */
struct mu_config_given {
    const char *name, *shown; /* secrets masked */
    enum mu_config_source source;
};

extern const struct mu_option mu_config_table[];
extern const size_t mu_config_table_len;

struct mu_config_args {
    const char *ini_file; /* --config, or NULL */
    const char *const
        *flags; /* "NAME=value" pairs from --set and dedicated flags, NULL-terminated */
    const char *const *environ_; /* the process's environment */
};
/* Reads everything. Fatal (MU_E_INVALID, worded with the variable's name and the fix): malformed
 * values; unknown keys in the INI or .env file; unknown OZ_ variables in the environment (variables
 * of the specification that this version does not use yet are warned about instead, see
 * *ret_warnings; variables that clients or sandboxes read — OZ_API_KEY, OZ_API_BASE_URL,
 * OZ_API_LOG, OZ_RUN_ID … — are ignored). NAME_FILE reads the value of a text or secret row from a
 * file. .env comes from the working directory or OZ_ENV_FILE. */
MU_MUST_USE int mu_config_load(const struct mu_config_args *args, struct mu_config **ret,
                               struct mu_buf *ret_warnings, struct mu_err *err);
struct mu_config *mu_config_free(struct mu_config *c);
/* Creates the data folder (0700), and generates what is missing there unless ENVIRONMENT=production
 * (then it is fatal and named): admin key file "admin.key" and "encryption.key" (0600).
 * *ret_new_admin_key: this start made it. */
MU_MUST_USE int mu_config_first_start(struct mu_config *c, const struct mu_env *env,
                                      bool *ret_new_admin_key, struct mu_err *err);
/* What a first look finds when no provider is configured: keys in the environment, a local
 * OpenAI-compatible server, agents on `path`. Fills provider_list with entries marked `discovered`
 * and makes the default provider resolve to the first. Does nothing when a provider was configured.
 * Blocks for at most about three seconds. -ENOMEM. */
MU_MUST_USE int mu_config_discover(struct mu_config *c, const char *path, struct mu_err *err);
/* OZ_STARTUP_VALIDATE_PROVIDERS: MU_E_INVALID, worded, when a harness of OZ_VALIDATE_HARNESSES has
 * no candidate, or one without the key or the program it needs. Fallback names that nobody
 * configured are warnings. */
MU_MUST_USE int mu_config_check_providers(const struct mu_config *c, const char *path,
                                          struct mu_buf *warnings, struct mu_err *err);
/* "host:port" of a listener, the host without brackets. MU_E_INVALID. */
MU_MUST_USE int mu_config_listen(const char *text, char *host, size_t size, unsigned *ret_port);
/* The folder that is used when OZ_DATA_DIR says nothing; "" when there is no home either. */
void mu_config_default_data_dir(const char *const *environ_, bool root, char *dst, size_t size);
/* Prints the effective table (`muster config`): name, value (secrets masked), source; as text,
 * JSON, or the Markdown of docs/configuration.md. */
enum mu_config_style { MU_CONFIG_TEXT, MU_CONFIG_JSON, MU_CONFIG_MARKDOWN };
void mu_config_print(const struct mu_config *c, enum mu_config_style style, struct mu_buf *dst);

#endif
