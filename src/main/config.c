#include <errno.h>
#include <stdio.h>

#include "main/config_int.h"
#include "main/suggest.h"

#define AT(field) offsetof(struct mu_config, field)
#define TEXT(n, f, d, h)                                                                           \
    {                                                                                              \
        .name = n, .type = MU_OPT_TEXT, .offset = AT(f), .fallback = d, .unit = "", .help = h      \
    }
#define SECRET(n, f, h)                                                                            \
    {                                                                                              \
        .name = n, .type = MU_OPT_SECRET, .offset = AT(f), .unit = "", .help = h                   \
    }
#define FLAG(n, f, d, h)                                                                           \
    {                                                                                              \
        .name = n, .type = MU_OPT_FLAG, .offset = AT(f), .fallback = d, .unit = "", .help = h      \
    }
#define INT(n, f, d, lo, hi, u, h)                                                                 \
    {                                                                                              \
        .name = n, .type = MU_OPT_INT, .offset = AT(f), .fallback = d, .min = lo, .max = hi,       \
        .unit = u, .help = h                                                                       \
    }
#define ENUM(n, f, d, w, h)                                                                        \
    {                                                                                              \
        .name = n, .type = MU_OPT_ENUM, .offset = AT(f), .fallback = d, .words = w, .unit = "",    \
        .help = h                                                                                  \
    }
#define ANY INT64_MIN, INT64_MAX

/* clang-format off */
const struct mu_option mu_config_table[] = {
    /* storage */
    TEXT("OZ_DATA_DIR", data_dir, NULL, "Folder of keys, database and blobs (created 0700); default: the user's state folder."),
    TEXT("OZ_ENV_FILE", env_file, NULL, "Settings file that is read instead of .env in the working directory."),
    {.name = "DATABASE_URL", .alias = "TURSO_DATABASE_URL", .type = MU_OPT_TEXT, .offset = AT(database_url), .unit = "",
     .help = "Database: a path or file:… (SQLite), or postgres://…; default: muster.db in the data folder."},
    TEXT("OZ_BLOB_DIR", blob_dir, NULL, "Folder of large results; default: blobs in the data folder."),
    ENUM("OZ_SQLITE_SYNC", sqlite_sync, "full", "full normal", "SQLite synchronous mode; normal may lose the last commits at a power cut."),
    INT("OZ_DISK_MIN_FREE_MB", disk_min_free_mb, "256", 0, 1073741824, "MiB", "Below this much free disk space writes are refused with 503; 0 = never."),
    /* listening */
    TEXT("OZ_CONTROL_PLANE_HOST", host, "127.0.0.1", "Address of the main listener."),
    INT("OZ_CONTROL_PLANE_PORT", port, "8080", 0, 65535, "", "Port of the main listener; 0 = any free one."),
    TEXT("OZ_METRICS_LISTEN", metrics_listen, NULL, "host:port of a listener that serves only /metrics, /livez and /readyz, without a key; off = none."),
    TEXT("OZ_TLS_CERT_FILE", tls_cert_file, NULL, "Certificate chain (PEM); with OZ_TLS_KEY_FILE the main listener speaks TLS."),
    TEXT("OZ_TLS_KEY_FILE", tls_key_file, NULL, "Private key (PEM) of OZ_TLS_CERT_FILE."),
    TEXT("PUBLIC_URL", public_url, NULL, "Address that people and browsers use: base of session links, and its host is answered."),
    TEXT("OZ_ALLOWED_HOSTS", allowed_hosts, NULL, "Further Host names that are answered, separated by commas."),
    TEXT("OZ_CORS_ORIGIN", cors_origin, NULL, "Origins that browsers may call from: a list separated by commas, or *."),
    FLAG("OZ_WEB", web, "on", "Serve the web app at /, where the build has one."),
    INT("OZ_THREADS", threads, "0", 0, 64, "", "Threads that own connections; 0 = one for each core."),
    INT("OZ_MAX_CONNECTIONS", max_connections, "20000", 1, 1000000, "", "Connections open at once."),
    INT("OZ_SHUTDOWN_GRACE_MS", shutdown_grace_ms, "10000", 0, 25000, "ms", "After a stop signal, time for requests and runs; then work is requeued."),
    /* identity */
    ENUM("ENVIRONMENT", environment, "development", "development staging production", "production forbids generated secrets."),
    SECRET("OZ_ADMIN_API_KEY", admin_key, "Bearer of the administrator; generated into admin.key when unset."),
    FLAG("OZ_ALLOW_NO_ADMIN_KEY", allow_no_admin_key, "off", "Start without an administrator's key."),
    TEXT("OZ_TENANT_TOKENS_FILE", tenant_tokens_file, NULL, "File of SHA-256 hashes, one a line: only these bare tokens are tenants."),
    SECRET("ENCRYPTION_KEY", encryption_key, "Root of all at-rest encryption, at least 32 characters; generated into encryption.key when unset."),
    SECRET("ENCRYPTION_KEY_PREVIOUS", encryption_key_previous, "The root before: readable, never written."),
    INT("OZ_LOGIN_REQUESTS_PER_MINUTE", login_rpm, "20", 0, 100000, "", "Attempts of one address to sign in; 0 = no limit. Behind a proxy all of them come from its address."),
    INT("OZ_LOGIN_MAX_FAILURES", login_max_failures, "10", 0, 100000, "", "Of those, how many may fail within ten minutes; 0 = no limit."),
    INT("OZ_TENANT_REQUESTS_PER_MINUTE", tenant_requests_per_minute, "0", 0, 10000000, "", "Requests of one tenant in a minute; 0 = no limit."),
    INT("OZ_TENANT_MAX_QUEUED", tenant_max_queued, "100000", 1, 100000000, "", "Runs of one tenant that have not ended."),
    INT("OZ_TENANT_MAX_RUNNING", tenant_max_running, "0", 0, 1000000, "", "Runs of one tenant that execute at once; 0 = no limit."),
    /* log */
    {.name = "OZ_LOG_LEVEL", .alias = "LOG_LEVEL", .type = MU_OPT_ENUM, .offset = AT(log_level), .fallback = "info",
     .words = "debug info warn error", .unit = "", .help = "Least important level that is logged.", .reload = true},
    {.name = "OZ_LOG_FORMAT", .type = MU_OPT_ENUM, .offset = AT(log_format), .fallback = "json", .words = "json text", .unit = "",
     .help = "One JSON object a line, or text for people.", .reload = true},
    /* runs */
    INT("OZ_RUN_CONCURRENCY", run_concurrency, "64", 1, 4096, "", "Runs without an environment that execute at once."),
    INT("OZ_RUN_MAX_ATTEMPTS", run_max_attempts, "3", 1, 10, "", "Executions of one run before it fails as interrupted."),
    INT("OZ_RUN_MAX_SECONDS", run_max_seconds, "28800", 60, 604800, "s", "A run on a worker fails after this time."),
    INT("OZ_PENDING_MAX_SECONDS", pending_max_seconds, "86400", 60, 2592000, "s", "A run that waits for a worker fails after this time."),
    {.name = "OZ_RUN_RETENTION_DAYS", .type = MU_OPT_REAL, .offset = AT(retention_days), .fallback = "30", .min = -1,
     .max = 36500, .unit = "days", .help = "Ended runs are deleted after this time; 0 or less = never."},
    INT("OZ_RETENTION_SWEEP_INTERVAL_MS", retention_sweep_ms, "3600000", 60000, 604800000, "ms", "Time between two looks for runs to delete."),
    FLAG("OZ_LIST_LEGACY_ITEMS", list_legacy_items, "on", "The run list also has the member items."),
    INT("OZ_LIST_MESSAGE_BYTES", list_message_bytes, "4096", 0, 4096, "bytes", "In lists, status_message.message is cut to this length."),
    ENUM("OZ_RUN_SOURCE_DEFAULT", run_source_default, "API", "API LOCAL LINEAR SLACK SCHEDULED_AGENT WEB_APP GITHUB_ACTION CLOUD_MODE CLI", "source of runs that come over the API."),
    FLAG("OZ_ALLOW_RAW_ENV_IMAGE", allow_raw_env_image, "on", "An environment id that is unknown is taken as a container image."),
    TEXT("OZ_IMAGE_ALLOWLIST", image_allowlist, NULL, "Container images that are allowed: globs separated by commas; unset = any."),
    FLAG("OZ_TENANT_HOST_NETWORK", tenant_host_network, "off", "Tenants' environments may ask for the worker's own network (right sandbox.host_network); the administrator's always may."),
    FLAG("OZ_TENANT_NESTED", tenant_nested, "off", "Tenants' environments may ask for user namespaces inside (right sandbox.nested); the administrator's always may."),
    /* live sessions */
    INT("OZ_MAX_SESSIONS_PER_ORG", max_sessions_per_org, "10", 0, 1000000, "", "Sessions of one org that have not ended; 0 = no limit. Runs of the Oz API do not count."),
    INT("OZ_DEFAULT_TIMEOUT_MINUTES", default_timeout_minutes, "60", 1, 10080, "min", "How long a session may run that says nothing of it."),
    INT("OZ_MAX_TIMEOUT_MINUTES", max_timeout_minutes, "120", 1, 10080, "min", "How long a session may ask to run."),
    INT("OZ_MAX_QUEUE_MINUTES", max_queue_minutes, "60", 1, 43200, "min", "A session that waits for a worker ends after this time."),
    /* the WebSocket of clients */
    INT("OZ_WS_HEARTBEAT_INTERVAL_MS", ws_heartbeat_ms, "30000", 100, 3600000, "ms", "A client that gets nothing for so long gets a ping."),
    INT("OZ_WS_CONNECTION_TIMEOUT_MS", ws_timeout_ms, "60000", 200, 3600000, "ms", "A client of which nothing is heard for so long is dropped."),
    INT("OZ_WS_AUTH_TIMEOUT_MS", ws_auth_ms, "10000", 100, 600000, "ms", "A client says who it is within this time."),
    INT("OZ_WS_MAX_MESSAGE_SIZE", ws_max_message, "1048576", 1024, 16777216, "bytes", "Longest message of a client."),
    INT("OZ_WS_MAX_CONNECTIONS_PER_USER", ws_max_per_user, "10", 1, 1000000, "", "Client WebSockets of one user at once."),
    INT("OZ_WS_MAX_CONNECTIONS", ws_max_connections, "10000", 1, 1000000, "", "Client WebSockets at once."),
    INT("OZ_WS_MAX_SUBSCRIPTIONS_PER_CONNECTION", ws_max_subscriptions, "100", 1, 10000, "", "Sessions that one client WebSocket follows at once."),
    INT("OZ_WS_SEND_BUFFER_SOFT_BYTES", ws_soft_bytes, "1048576", 16384, 1073741824, "bytes", "A client with more unsent bytes gets no terminal bytes until it has read; at most half of the hard limit."),
    INT("OZ_WS_SEND_BUFFER_HARD_BYTES", ws_hard_bytes, "8388608", 1048576, 1073741824, "bytes", "A client with more unsent bytes is cut."),
    INT("OZ_WS_MAX_MESSAGES_PER_SECOND", ws_messages_per_second, "100", 1, 100000, "", "Messages of one client WebSocket; for two seconds' worth it may be faster."),
    INT("OZ_RECENT_EVENTS_LIMIT", recent_events_limit, "50", 0, 200, "", "Entries in recentEvents of a session."),
    FLAG("OZ_ALLOW_LOCAL_REPOS", allow_local_repos, "off", "Sessions may name repositories by path, file://, http:// and git://."),
    FLAG("OZ_ALLOW_SKIP_PERMISSIONS", allow_skip_permissions, "off", "Sessions of everybody may ask for dangerouslySkipPermissions; the administrator's always may."),
    INT("OZ_APPROVAL_TIMEOUT_MINUTES", approval_timeout_minutes, "30", 1, 10080, "min", "An approval that nobody gave within this time is denied."),
    INT("OZ_APPROVAL_LINK_REQUESTS_PER_MINUTE", approval_link_rpm, "60", 0, 100000, "", "Requests with approval links from one address; 0 = no limit. Behind a proxy all of them come from its address."),
    INT("OZ_HIBERNATED_MAX_DAYS", hibernated_max_days, "30", 1, 3650, "days", "A session that is paused, hibernated or parked for so long ends."),
    {.name = "OZ_HIBERNATE_PAUSED_MINUTES", .type = MU_OPT_REAL, .offset = AT(hibernate_paused_minutes), .fallback = "15",
     .min = 0, .max = 525600, .unit = "min",
     .help = "An interactive session that is paused for so long hibernates: behind a checkpoint its sandbox ends and its worker is free; 0 = never."},
    {.name = "OZ_HIBERNATE_IDLE_MINUTES", .type = MU_OPT_REAL, .offset = AT(hibernate_idle_minutes), .fallback = "0",
     .min = 0, .max = 525600, .unit = "min",
     .help = "The same of one whose agent has nothing to do and whose terminals are silent for so long; 0 = never."},
    {.name = "OZ_HIBERNATE_WAITING_MINUTES", .type = MU_OPT_REAL, .offset = AT(hibernate_waiting_minutes), .fallback = "10",
     .min = 0, .max = 525600, .unit = "min",
     .help = "The same of one that waits for an approval for so long; 0 = never."},
    INT("OZ_SESSION_DATA_TTL_HOURS", session_data_ttl_hours, "24", 1, 87600, "h", "What terminals showed, and checkpoints, are deleted so long after the end of their session."),
    INT("OZ_TERMINAL_RECORDING_MB", recording_max_mb, "64", 8, 1024, "MiB", "What is kept of the terminals of one session; older bytes go."),
    INT("OZ_CHECKPOINT_MAX_MB", checkpoint_max_mb, "1024", 0, 1048576, "MiB", "What is kept of one session's checkpoints (workspace and conversation after a turn); the oldest go first; 0 = none are taken."),
    /* workers */
    TEXT("OZ_WORKER_KEYS", worker_keys, NULL, "Keys of single workers besides the admin key: <worker id>=<SHA-256 of the key in hexadecimal>, separated by commas."),
    TEXT("OZ_WORKER_SIDECAR_IMAGE", worker_sidecar_image, NULL, "Image that Go workers mount at /agent; unset = such workers get no work (Muster's own need none)."),
    FLAG("OZ_WORKER_SIDECAR_LIVE", worker_sidecar_live, "on", "That image holds Muster's agent program: Go workers get live sessions too."),
    FLAG("OZ_REQUIRE_WORKER_SIDECAR", require_worker_sidecar, "off", "Fail at start when OZ_WORKER_SIDECAR_IMAGE is unset."),
    ENUM("OZ_WORKER_DIALECT", worker_dialect, "auto", "auto vendored warp", "Dialect of Go workers; auto = found out from their messages."),
    INT("OZ_WORKER_CLAIM_TIMEOUT_MS", worker_claim_timeout_ms, "120000", 10000, 86400000, "ms", "A Go worker confirms an assignment within this time, or the run goes back to the queue."),
    INT("OZ_CLAIM_TIMEOUT_MS", claim_timeout_ms, "30000", 1000, 600000, "ms", "The same for Muster's own workers."),
    INT("OZ_WORKER_RECONNECT_GRACE_MS", worker_grace_ms, "120000", 0, 3600000, "ms", "A worker that lost its connection may return within this time and keeps its runs; less than a second counts as one."),
    INT("OZ_WORKER_DEFAULT_CAPACITY", worker_default_capacity, "5", 0, 1000000, "", "Runs at once on a worker that announces no capacity; 0 = no limit."),
    INT("OZ_RUNNER_HEARTBEAT_INTERVAL_MS", runner_heartbeat_ms, "10000", 1000, 60000, "ms", "Told to Muster's own workers: time between two heartbeats."),
    INT("OZ_HEARTBEAT_TIMEOUT_MS", heartbeat_timeout_ms, "30000", 2000, 3600000, "ms", "A worker that is silent for so long is offline; what did not run yet goes elsewhere."),
    INT("OZ_HEALTH_CHECK_INTERVAL_MS", health_check_ms, "5000", 100, 600000, "ms", "Time between two looks for workers that are silent."),
    INT("OZ_MAX_RUNNERS_PER_ORG", max_runners_per_org, "10", 1, 100000, "", "Workers of one org that are registered."),
    INT("OZ_MAX_RUNNERS", max_runners, "1000", 1, 100000, "", "Workers that are registered in all."),
    {.name = "OZ_LOAD_FACTOR", .type = MU_OPT_REAL, .offset = AT(load_factor), .fallback = "0.8", .min = 0, .max = 1, .unit = "",
     .help = "A worker that is fuller than this part of its capacity is chosen after others."},
    INT("OZ_DRAIN_TIMEOUT_MINUTES", drain_timeout_minutes, "0", 0, 10080, "min", "What still runs on a worker so long after its drain is stopped, when the drain says nothing; 0 = never."),
    TEXT("SANDBOX_SERVER_URL", sandbox_server_url, NULL, "This server as seen from sandboxes; default: PUBLIC_URL, else the main listener."),
    /* providers */
    TEXT("OZ_MODEL", model, NULL, "Default model."),
    TEXT("OZ_PROVIDER_MODEL", provider_model, NULL, "Default model of providers; before OZ_MODEL."),
    TEXT("OZ_PROVIDER_BASE_URL", provider_base_url, NULL, "URL of the provider custom and of providers that set no type, URL or model of their own."),
    SECRET("OZ_PROVIDER_API_KEY", provider_api_key, "Key of the same providers."),
    INT("OZ_PROVIDER_MSG_LIMIT", provider_msg_limit, "0", 0, 1000000000, "", "Default quota: messages within a window; 0 = none."),
    INT("OZ_PROVIDER_WINDOW_SECONDS", provider_window_seconds, "0", 0, 31536000, "s", "Default quota: length of the window; 0 = none."),
    TEXT("OZ_DEFAULT_PROVIDER", providers.default_provider, "custom", "Provider of a harness that is not in the table."),
    TEXT("OZ_OZAPI_DEFAULT_HARNESS", providers.default_harness, "custom", "Harness when the model id matches nothing."),
    TEXT("OZ_PROVIDER_FALLBACK_ORDER", providers.fallback_order, NULL, "Providers that are tried after the first, separated by commas."),
    FLAG("OZ_QUEUE_ON_SATURATION", providers.queue_on_saturation, "off", "Wait for quota instead of failing when all providers are saturated."),
    INT("OZ_QUEUE_MAX_WAIT_SECONDS", providers.queue_max_wait_s, "300", -1, 31536000, "s", "Total wait of one run for quota; 0 or less = no limit."),
    INT("OZ_PROVIDER_RETRIES", providers.retries, "1", 0, 5, "", "Further tries at an unavailable provider before the next one."),
    INT("OZ_PROVIDER_MAX_OUTPUT_BYTES", providers.max_output_bytes, "8388608", 1024, 268435456, "bytes", "Longest answer of a provider."),
    FLAG("OZ_CONTROL_PLANE_STREAMING", providers.streaming, "on", "Stream from HTTP providers."),
    FLAG("OZ_STARTUP_VALIDATE_PROVIDERS", startup_validate_providers, "off", "Fail at start, not at the first run, when a harness has no provider."),
    TEXT("OZ_VALIDATE_HARNESSES", validate_harnesses, NULL, "Harnesses to check at start, separated by commas; default: the default harness and custom."),
    SECRET("ANTHROPIC_API_KEY", anthropic_api_key, "Used for the administrator when no provider is configured."),
    SECRET("OPENAI_API_KEY", openai_api_key, "Used for the administrator when no provider is configured."),
    {.name = "GOOGLE_API_KEY", .alias = "GEMINI_API_KEY", .type = MU_OPT_SECRET, .offset = AT(google_api_key), .unit = "",
     .help = "Used for the administrator when no provider is configured."},
    /* the worker */
    FLAG("OZ_EMBEDDED_WORKER", embedded_worker, "on", "The server starts a worker of its own on this machine."),
    {.name = "OZ_API_KEY", .alias = "WARP_API_KEY CONTROL_PLANE_TOKEN", .type = MU_OPT_SECRET, .offset = AT(api_key), .unit = "",
     .help = "Bearer that a worker presents to its server."},
    SECRET("OZ_WORKER_ENROL_TOKEN", worker_enrol_token, "Enrolment token (en_…) for the first connection of a worker that has no credential of its own yet."),
    {.name = "OZ_WS_URL", .alias = "CONTROL_PLANE_URL", .type = MU_OPT_TEXT, .offset = AT(ws_url), .unit = "",
     .help = "Where a worker connects; default: that of OZ_SERVER_ROOT_URL, else ws://localhost:8080/api/v1/selfhosted/worker/ws."},
    TEXT("OZ_SERVER_ROOT_URL", server_root_url, NULL, "The server as tasks of a worker see it; default: that of OZ_WS_URL, else http://localhost:8080."),
    INT("OZ_RECONNECT_MAX_ATTEMPTS", reconnect_max_attempts, "0", 0, 1000000, "", "A worker gives up (exit code 4) after so many failures to connect in a row; 0 = never."),
    INT("OZ_RECONNECT_WINDOW_SECONDS", reconnect_window_seconds, "0", 0, 31536000, "s", "Only failures within this time count together; 0 = however far apart."),
    TEXT("RUNNER_WORKSPACE_DIR", runner_workspace_dir, NULL, "Workspaces of the sandbox kind direct; default: below the worker's state folder."),
    FLAG("OZ_GIT_SSH_KEYS", git_ssh_keys, "off", "Workers fetch ssh repositories with the keys and the agent of their user: every tenant can then read what those open."),
    TEXT("RUNNER_CACHE_DIR", runner_cache_dir, NULL, "Mirrors of repositories; default: below the worker's state folder."),
    TEXT("RUNNER_FEATURES", runner_features, NULL, "Features that a worker announces, separated by commas."),
    INT("RUNNER_MAX_SESSIONS", runner_max_sessions, "0", 0, 1024, "", "Tasks of a worker at once, when --capacity says nothing; 0 = no limit."),
    TEXT("CLAUDE_CODE_PATH", claude_path, NULL, "Program of the harness claude; default: claude on PATH."),
    TEXT("CODEX_PATH", codex_path, NULL, "Program of the harness codex; default: codex on PATH."),
    TEXT("GEMINI_PATH", gemini_path, NULL, "Program of the harness gemini; default: gemini on PATH."),
    TEXT("DOCKER_HOST", docker_host, NULL, "Socket of the container engine: unix://… or tcp://…; default: unix:///var/run/docker.sock."),
    /* sandboxes */
    ENUM("SANDBOX_DRIVER", sandbox_driver, "auto", "auto namespace docker podman direct process command", "Kind of sandbox; auto = docker when a task needs an image and an engine answers, else namespace."),
    INT("SANDBOX_MAX", sandbox_max, "8", 0, 1024, "", "Tasks of the embedded worker at once."),
    INT("SANDBOX_MEMORY_MB", sandbox_memory_mb, "4096", 64, 16777216, "MiB", "Memory of one sandbox."),
    {.name = "SANDBOX_CPUS", .type = MU_OPT_REAL, .offset = AT(sandbox_cpus), .fallback = "2", .min = 0, .max = 4096, .unit = "",
     .help = "Processors of one sandbox; 0 = no limit."},
    INT("SANDBOX_PIDS", sandbox_pids, "4096", 16, 4194304, "", "Processes and threads of one sandbox."),
    FLAG("ALLOW_UNSAFE_PROCESS_DRIVER", allow_unsafe_process_driver, "off", "Allow the sandbox kind direct, which isolates nothing."),
    ENUM("OZ_SANDBOX_MIN", sandbox_min, "full", "full landlock", "Weakest protection with which the kind namespace is used."),
    TEXT("OZ_SANDBOX_BASE", sandbox_base, NULL, "Unpacked root folder that sandboxes see; default: /usr and parts of /etc of the host."),
    ENUM("OZ_SANDBOX_NET", sandbox_net, "proxy", "proxy none host", "Network of sandboxes; host shares that of the machine."),
    TEXT("OZ_SANDBOX_ALLOW", sandbox_allow, "api.anthropic.com:443,api.openai.com:443,chatgpt.com:443,generativelanguage.googleapis.com:443", "host:port pairs that every sandbox may reach besides those of its environment, separated by commas; *.example.com:443 covers names below it; none = no others."),
    TEXT("OZ_SANDBOX_ALLOW_ADDR", sandbox_allow_addr, NULL, "Private addresses (ip:port) that allowed names may resolve to, separated by commas."),
    TEXT("OZ_SANDBOX_FORWARD", sandbox_forward, NULL, "Loopback ports inside and what they reach: 8081=host:port, separated by commas."),
    FLAG("OZ_SANDBOX_NESTED", sandbox_nested, "off", "Environments may ask for user namespaces inside a sandbox (nested)."),
    TEXT("OZ_SANDBOX_RO", sandbox_ro, NULL, "Further folders of the host that sandboxes see read-only, separated by commas."),
    TEXT("OZ_SANDBOX_ETC", sandbox_etc, NULL, "Further entries of /etc that sandboxes see read-only, separated by commas."),
    INT("OZ_SANDBOX_DISK_MB", sandbox_disk_mb, "10240", 16, 1073741824, "MiB", "Disk that one sandbox may fill."),
    INT("OZ_SANDBOX_SHM_MB", sandbox_shm_mb, "1024", 1, 1048576, "MiB", "Size of /dev/shm in a sandbox."),
};
/* clang-format on */
const size_t mu_config_table_len = MU_ARRAY_LEN(mu_config_table);

/* Variables of the specification (README 5) whose parts come with later versions. */
static const char *const later[] = {
    "OZ_WORKSPACE_LISTEN", "OZ_OPS_LISTEN", "OZ_SANDBOX_LISTEN", "FRONTEND_URL",
    "OZ_TRUSTED_PROXIES", "OZ_STATIC_DIR", "OZ_REDIS_URL", "UPSTASH_REDIS_REST_URL",
    "UPSTASH_REDIS_REST_TOKEN", "OZ_REDIS_EVENTS_DURABLE", "OZ_REDIS_EVENTS_STRICT",
    "OZ_REDIS_XADD_MAX_ATTEMPTS", "OZ_REDIS_XADD_RETRY_BASE_MS", "AUTH_SECRET", "AGENT_API_KEY",
    "GITHUB_CLIENT_ID", "GITHUB_CLIENT_SECRET", "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET",
    "GITHUB_WEBHOOK_SECRET", "OZ_ALLOW_SIGNUP", "ALLOWED_EMAILS", "ADMIN_EMAIL", "SLACK_BOT_TOKEN",
    "SLACK_SIGNING_SECRET", "SLACK_APP_ID", "SLACK_CLASSIFIER_MODEL", "TERMINATED_RETENTION_DAYS",
    "WEBHOOK_PAYLOAD_RETENTION_DAYS", "OZ_WORKER_BACKEND", "OZ_LOCAL_STREAMING", "OZ_RUNNER_MODE",
    "OZ_REMOTE_TIMEOUT_SECONDS", "OZ_STALE_AGENT_SWEEP_MS", "ORCHESTRATION_TIMEOUT_MS",
    "OZ_ORCH_POLL_MS", "OZ_ORCH_LEASE_MS", "OZ_ORCH_CONCURRENCY", "OZ_ORCH_INSTANCE_ID",
    "OZ_ORCH_REX_AGENT_ID", "OZ_ORCH_REX_AGENT_NAME", "OZ_CHAIN_MAX_DEPTH", "OZ_CHAIN_MAX_RUNS",
    "OZ_CHAIN_MAX_SECONDS", "SANDBOX_IMAGE", "SANDBOX_PUBLIC_URL", "MODAL_BACKEND_URL",
    "SANDBOX_BACKEND_URL", "SANDBOX_BACKEND_TOKEN", "ENABLE_AGENT_PROXY", "LLM_PROXY",
    "LAZY_SERVICES",
    /* options of the session, fleet and release faces */
    "OZ_STOP_GRACE_SECONDS", "OZ_ENABLE_AUTO_ROLLOUT", "OZ_DEFAULT_CHANNEL",
    "OZ_CANARY_DURATION_MINUTES", "OZ_AUTO_CANARY", "OZ_AUTO_SWEEP", "OZ_AUTO_PROGRESS",
    "OZ_ROLLOUT_CHECK_INTERVAL_MS", "OZ_MAX_CONCURRENT_ROLLOUTS", "OZ_ROLLBACK_THRESHOLDS",
    "OZ_MAX_VERSIONS_PER_PROVIDER", "OZ_MAX_BUILDS", "OZ_AUTO_DEPRECATE_DAYS",
    "OZ_MAX_OBSERVATION_HOURS"};

/* Read by clients, inside sandboxes, by libraries from the environment, or by nobody. */
static const char *const ignored[] = {"OZ_API_BASE_URL",
                                      "OZ_API_LOG",
                                      "OZ_ENVIRONMENT_ID",
                                      "OZ_TASK_PROMPT",
                                      "OZ_TASK_PROMPT_URL",
                                      "OZ_ENV_REPOS",
                                      "OZ_ENV_SETUP_COMMANDS",
                                      "OZ_ENV_VARS",
                                      "OZ_ENV_VARS_JSON",
                                      "OZ_HARNESS",
                                      "OZ_MODEL_ID",
                                      "OZ_RUN_ID",
                                      "OZ_EXECUTION_ID",
                                      "OZ_RUN_TOKEN",
                                      "OZ_SIDECAR_CLAUDE_CMD",
                                      "OZ_SIDECAR_CODEX_CMD",
                                      "OZ_SIDECAR_GEMINI_CMD",
                                      "OZ_SIDECAR_CUSTOM_CMD",
                                      "OZ_SIDECAR_DEFAULT_HARNESS",
                                      "OZ_SETUP_TIMEOUT",
                                      "OZ_WORKSPACE_ROOT",
                                      "OZ_DOCKER_IMAGE",
                                      "OZ_ENVIRONMENT_FILE",
                                      "OZ_ALLOW_GLOBAL_QUOTA_SHIM",
                                      "OZ_TEST_USER_ID",
                                      "SANDBOX_JWT_SECRET",
                                      "AGENT_CALLBACK_URL",
                                      "AUTH_TRUST_HOST",
                                      "AUTH_URL",
                                      "TURSO_AUTH_TOKEN",
                                      "HTTP_PROXY",
                                      "HTTPS_PROXY",
                                      "NO_PROXY",
                                      "DOCKER_API_VERSION",
                                      "DOCKER_CERT_PATH",
                                      "DOCKER_TLS_VERIFY",
                                      "DOCKER_CONFIG"};

static bool among(const char *const *names, size_t n, mu_bytes name)
{
    for (size_t i = 0; i < n; i++) {
        if (mu_bytes_is(name, names[i])) {
            return true;
        }
    }
    return false;
}

enum mu_config_name mu_config_classify(mu_bytes name)
{
    char key[64];
    mu_bytes order = MU_B("OZ_PROVIDER_FALLBACK_ORDER_");
    if (mu_option_find(mu_config_table, mu_config_table_len, name)) {
        return MU_NAME_ROW;
    }
    if (mu_bytes_starts(name, order) && name.len > order.len) {
        return MU_NAME_FALLBACK;
    }
    if (mu_provider_var(name, key)) {
        return MU_NAME_PROVIDER;
    }
    if (among(later, MU_ARRAY_LEN(later), name)) {
        return MU_NAME_LATER;
    }
    if (among(ignored, MU_ARRAY_LEN(ignored), name) ||
        (mu_bytes_starts(name, MU_B("OZ_SIDECAR_")) && mu_bytes_ends(name, MU_B("_CMD"))) ||
        mu_bytes_starts(name, MU_B("OTEL_"))) {
        return MU_NAME_IGNORED;
    }
    return MU_NAME_UNKNOWN;
}

/* A name that a word of it was left out of is nearer than one with other words. */
static unsigned distance(mu_bytes given, mu_bytes name)
{
    size_t at = 0;
    for (size_t i = 0; i < name.len && at < given.len; i++) {
        at += given.ptr[at] == name.ptr[i];
    }
    unsigned d = mu_edit_distance(given, name);
    return at == given.len && d > 1 ? d / 2 : d;
}

const char *mu_config_nearest(mu_bytes name)
{
    const char *best = NULL;
    unsigned least = 1000;
    for (size_t i = 0; i < mu_config_table_len; i++) {
        unsigned d = distance(name, mu_str(mu_config_table[i].name));
        if (d < least) {
            least = d;
            best = mu_config_table[i].name;
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(later); i++) {
        unsigned d = distance(name, mu_str(later[i]));
        if (d < least) {
            least = d;
            best = later[i];
        }
    }
    return mu_edit_near(name, least) ? best : NULL;
}

struct mu_config *mu_config_free(struct mu_config *c)
{
    if (c) {
        mu_arena_fini(&c->arena);
        mu_free(c);
    }
    return NULL;
}
