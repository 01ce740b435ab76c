#include "main/cmd.h"

#define SWITCH(n, h)                                                                               \
    {                                                                                              \
        .name = n, .help = h                                                                       \
    }
#define VALUE(n, v, h)                                                                             \
    {                                                                                              \
        .name = n, .value = v, .help = h                                                           \
    }
#define MANY(n, v, h)                                                                              \
    {                                                                                              \
        .name = n, .value = v, .repeat = true, .help = h                                           \
    }
#define END                                                                                        \
    {                                                                                              \
        0                                                                                          \
    }

const struct mu_flag mu_client_flags[] = {
    VALUE("url", "URL", "server (else OZ_API_BASE_URL, else the one of this machine)"),
    SWITCH("json", "print what the API answered"), END};

static const struct mu_flag config_flags[] = {
    {.name = "config", .letter = 'c', .value = "FILE", .help = "settings file"},
    MANY("set", "NAME=value", "one setting; wins over all others"),
    END};
static const struct mu_flag show_config_flags[] = {
    {.name = "config", .letter = 'c', .value = "FILE", .help = "settings file"},
    MANY("set", "NAME=value", "one setting; wins over all others"),
    SWITCH("json", "as JSON"),
    SWITCH("markdown", "as docs/configuration.md"),
    END};
static const struct mu_flag doctor_flags[] = {
    {.name = "config", .letter = 'c', .value = "FILE", .help = "settings file"},
    MANY("set", "NAME=value", "one setting; wins over all others"),
    SWITCH("json", "as JSON"),
    END};
static const struct mu_flag restore_flags[] = {
    {.name = "config", .letter = 'c', .value = "FILE", .help = "settings file"},
    MANY("set", "NAME=value", "one setting; wins over all others"),
    SWITCH("force", "replace what is in the data folder"),
    END};
static const struct mu_flag worker_flags[] = {
    {.name = "config", .letter = 'c', .value = "FILE", .help = "settings file"},
    MANY("set", "NAME=value", "one setting; wins over all others"),
    VALUE("config-file", "FILE", "the worker's own file (YAML)"),
    VALUE("worker-id", "NAME", "its name, one for each live worker (default: the host's name)"),
    VALUE("api-key", "KEY", "key for the server; better OZ_API_KEY, or OZ_API_KEY_FILE"),
    VALUE("enrol-token-file", "FILE", "enrolment token, for the first connection of a new worker"),
    VALUE("web-socket-url", "URL", "where it connects (else OZ_WS_URL)"),
    VALUE("server-root-url", "URL", "the server as tasks see it (else OZ_SERVER_ROOT_URL)"),
    VALUE("session-sharing-server-url", "URL", "handed to agents"),
    VALUE("sandbox", "KIND", "auto, namespace, docker, direct or command (default: auto)"),
    VALUE("backend", "KIND", "the same"),
    VALUE("capacity", "N", "tasks at once; 0 = no limit"),
    VALUE("max-concurrent-tasks", "N", "the same"),
    VALUE("state-dir", "DIR", "journal and sandboxes (default: worker in the data folder)"),
    VALUE("metrics-listen", "HOST:PORT", "metrics and probes (default: 127.0.0.1:9464), or none"),
    VALUE("task-timeout", "TIME", "longest run of a task (default: 8h)"),
    VALUE("drain-timeout", "TIME", "at a stop, time for what runs; then it is cancelled"),
    SWITCH("keep-running", "at SIGTERM, leave what runs to the next start"),
    VALUE("output-limit", "SIZE", "bytes of output kept of a task (default: 8MiB)"),
    VALUE("idle-on-complete", "TIME", "handed to agents"),
    {.name = "env",
     .letter = 'e',
     .value = "NAME[=value]",
     .repeat = true,
     .help = "variable of every task; without = its value here"},
    {.name = "volumes",
     .letter = 'v',
     .value = "HOST:DIR[:MODE]",
     .repeat = true,
     .help = "folder of the host in every container"},
    VALUE("pull", "WHEN", "images: missing, always or never (default: missing)"),
    VALUE("task-network", "NAME", "network of containers (default: bridge)"),
    VALUE("target-dir", "DIR", "kind direct: one folder for all tasks, never removed"),
    MANY("label", "WORD", "a word by which tasks may choose this worker"),
    VALUE("with-parent", "PID", "stop when this process, which started it, ends"),
    SWITCH("secret-files", "containers get their secrets as files"),
    SWITCH("no-cleanup", "keep what ended tasks leave"),
    VALUE("log-level", "LEVEL", "debug, info, warn or error"),
    SWITCH("check", "say what protects on this machine, and end"),
    END};
static const struct mu_flag run_flags[] = {
    {.name = "follow", .letter = 'f', .help = "show state and text until it ends"},
    {.name = "model", .letter = 'm', .value = "MODEL", .help = "model id; picks the provider"},
    {.name = "env", .letter = 'e', .value = "ID", .help = "environment: runs on a worker"},
    VALUE("file", "FILE", "read the prompt from a file; - is standard input"),
    VALUE("title", "T", "title of the run"),
    VALUE("name", "N", "name to find it by"),
    VALUE("base-prompt", "TEXT", "system prompt"),
    VALUE("idempotency-key", "K", "the same key gives the same run for 24 hours"),
    VALUE("wait", "SECONDS", "wait for the end and print the answer"),
    END};
static const struct mu_flag ps_flags[] = {
    {.name = "all", .letter = 'a', .help = "ended runs too"},
    MANY("state", "STATE", "only runs in this state"),
    {.name = "limit", .letter = 'n', .value = "N", .help = "at most so many (1..200, default 50)"},
    END};
static const struct mu_flag logs_flags[] = {
    {.name = "follow", .letter = 'f', .help = "go on until the run ends"}, END};
static const struct mu_flag wait_flags[] = {
    VALUE("timeout", "SECONDS", "give up waiting after this time"), END};
static const struct mu_flag env_flags[] = {
    VALUE("name", "NAME", "its name"),
    VALUE("docker-image", "IMAGE", "container image"),
    MANY("repo", "OWNER/NAME", "repository to check out"),
    MANY("setup-command", "CMD", "command that prepares it"),
    MANY("var", "NAME[=value]", "variable; without = its value is taken from this environment"),
    VALUE("network", "MODE", "proxy (listed hosts), none, or host (the worker's own)"),
    MANY("allow", "HOST:PORT", "host that its runs may reach"),
    SWITCH("nested", "sandboxes of the agent's own inside"),
    SWITCH("fake-root", "the agent is user 0 inside"),
    MANY("limit", "NAME=N", "memory_mb, cpus, pids, disk_mb or timeout_seconds"),
    SWITCH("global", "for every tenant (administrator)"),
    END};
static const struct mu_flag env_update_flags[] = {
    VALUE("name", "NAME", "its name"),
    VALUE("docker-image", "IMAGE", "container image"),
    MANY("repo", "OWNER/NAME", "repositories, all of them anew"),
    MANY("setup-command", "CMD", "commands, all of them anew"),
    MANY("var", "NAME[=value]", "variable to set; the others stay"),
    MANY("unset", "NAME", "variable to remove"),
    VALUE("network", "MODE", "proxy (listed hosts), none, or host (the worker's own)"),
    MANY("allow", "HOST:PORT", "host that its runs may reach, all of them anew"),
    SWITCH("nested", "sandboxes of the agent's own inside"),
    SWITCH("fake-root", "the agent is user 0 inside"),
    MANY("limit", "NAME=N", "memory_mb, cpus, pids, disk_mb or timeout_seconds"),
    SWITCH("no-sandbox", "forget what was said about the sandbox before"),
    END};
static const struct mu_flag schedule_flags[] = {
    VALUE("cron", "EXPR", "five fields, UTC: \"0 9 * * *\""),
    VALUE("name", "NAME", "its name"),
    VALUE("prompt", "TEXT", "what to run"),
    VALUE("environment", "ID", "environment: runs on a worker"),
    VALUE("model", "MODEL", "model id; picks the provider"),
    SWITCH("disabled", "do not fire yet"),
    END};
static const struct mu_flag key_flags[] = {VALUE("tenant", "T", "whose key (default: its name)"),
                                           VALUE("expires", "DAYS", "valid for so many days"), END};

static const struct mu_flag sessions_flags[] = {
    {.name = "all", .letter = 'a', .help = "ended ones too"},
    MANY("state", "STATE", "only in this state; also active, terminal"),
    {.name = "limit", .letter = 'n', .value = "N", .help = "at most so many (1..100, default 50)"},
    END};
static const struct mu_flag session_new_flags[] = {
    VALUE("repo", "URL", "repository to work on"),
    VALUE("branch", "NAME", "its branch (default: the remote's)"),
    {.name = "provider",
     .letter = 'p',
     .value = "P",
     .help = "claude_code (default), codex, gemini_cli, opencode, shell or custom"},
    {.name = "interactive", .letter = 'i', .help = "stays for further prompts"},
    VALUE("policy", "FILE", "what the agent may do: a JSON object; - is standard input"),
    {.name = "model", .letter = 'm', .value = "MODEL", .help = "model for the agent"},
    {.name = "env", .letter = 'e', .value = "ID", .help = "environment"},
    VALUE("worker", "NAME", "the worker that must take it"),
    END};
static const struct mu_flag session_stop_flags[] = {SWITCH("force", "without time to wind up"),
                                                    END};
static const struct mu_flag session_checkpoints_flags[] = {
    VALUE("before", "N", "only those before that number (200 are shown)"), END};
static const struct mu_flag session_fork_flags[] = {
    VALUE("checkpoint", "N", "its number or its id (default: the newest)"),
    VALUE("title", "TEXT", "default: that of the session it is made from"),
    SWITCH("task", "it ends when the prompt is done, instead of waiting for more"), END};
static const struct mu_flag attach_flags[] = {
    VALUE("terminal", "N", "0 (default) is the agent's; 1 to 7 were opened besides"),
    SWITCH("read-only", "watch: nothing that is typed is sent"),
    VALUE("detach-key", "KEY", "ctrl-] (default), ctrl- and another, or none (else OZ_DETACH_KEY)"),
    END};
static const struct mu_flag approve_flags[] = {
    SWITCH("session", "the same request does not ask again in this session"), END};
static const struct mu_flag deny_flags[] = {VALUE("reason", "TEXT", "told to the agent"), END};
static const struct mu_flag drain_flags[] = {
    VALUE("reason", "TEXT", "why"),
    VALUE("stop-after", "MINUTES", "then what still runs is stopped; 0 = never (default)"),
    {.name = "wait", .letter = 'w', .help = "until nothing runs there"},
    END};
static const struct mu_flag worker_tokens_flags[] = {
    SWITCH("all", "also those that are used up, expired or revoked"), END};
static const struct mu_flag diff_flags[] = {SWITCH("patch", "the text of the patch"), END};

const struct mu_cmd mu_commands[] = {
    {"serve", NULL, "", "Run the server.", config_flags, 0, 0, false, NULL, mu_cmd_serve},
    {"worker", NULL, "", "Hold sandboxes for a server.", worker_flags, 0, 0, false, mu_cmd_worker,
     NULL},
    {"run", NULL, "[PROMPT...]", "Send a task.", run_flags, 0, 200, true, mu_cmd_run, NULL},
    {"ps", NULL, "", "List runs.", ps_flags, 0, 0, true, mu_cmd_ps, NULL},
    {"show", NULL, "ID", "Show a run.", NULL, 1, 1, true, mu_cmd_show, NULL},
    {"logs", NULL, "ID", "Print a run's text.", logs_flags, 1, 1, true, mu_cmd_logs, NULL},
    {"cancel", NULL, "ID...", "Cancel runs.", NULL, 1, 200, true, mu_cmd_cancel, NULL},
    {"wait", NULL, "ID...", "Wait until runs have ended.", wait_flags, 1, 200, true, mu_cmd_wait,
     NULL},
    {"rerun", NULL, "ID", "Send the same task again.", NULL, 1, 1, true, mu_cmd_rerun, NULL},
    {"rm", NULL, "ID...", "Delete ended runs.", NULL, 1, 200, true, mu_cmd_rm, NULL},
    {"sessions", "new", "[PROMPT...|-]", "Start a live session.", session_new_flags, 0, 200, true,
     mu_cmd_session_new, NULL},
    {"sessions", "show", "ID", "Show a session.", NULL, 1, 1, true, mu_cmd_session_show, NULL},
    {"sessions", "stop", "ID", "Stop a session.", session_stop_flags, 1, 1, true,
     mu_cmd_session_stop, NULL},
    {"sessions", "end", "ID", "An interactive session is done.", NULL, 1, 1, true,
     mu_cmd_session_end, NULL},
    {"sessions", "prompt", "ID PROMPT...|-", "Queue a prompt.", NULL, 2, 200, true,
     mu_cmd_session_prompt, NULL},
    {"sessions", "interrupt", "ID", "Abort the prompt that is worked on.", NULL, 1, 1, true,
     mu_cmd_session_interrupt, NULL},
    {"sessions", "checkpoints", "ID", "List what is kept of a session after its turns.",
     session_checkpoints_flags, 1, 1, true, mu_cmd_session_checkpoints, NULL},
    {"sessions", "fork", "ID [PROMPT...|-]", "Start a session where another one was.",
     session_fork_flags, 1, 200, true, mu_cmd_session_fork, NULL},
    /* behind those of the group: completions take the first that fits */
    {"sessions", NULL, "", "List live sessions.", sessions_flags, 0, 0, true, mu_cmd_sessions,
     NULL},
    {"attach", NULL, "ID",
     "Sit at a session's terminal; exit codes: 0 finished, 1 failed, 4 stopped, 6 timed out.",
     attach_flags, 1, 1, true, mu_cmd_attach, NULL},
    {"approvals", NULL, "", "List what waits for a decision.", NULL, 0, 0, true, mu_cmd_approvals,
     NULL},
    {"approve", NULL, "ID", "Allow it.", approve_flags, 1, 1, true, mu_cmd_approve, NULL},
    {"deny", NULL, "ID", "Deny it.", deny_flags, 1, 1, true, mu_cmd_deny, NULL},
    {"pause", NULL, "ID", "Freeze a running session.", NULL, 1, 1, true, mu_cmd_pause, NULL},
    {"resume", NULL, "ID", "Let it go on.", NULL, 1, 1, true, mu_cmd_resume, NULL},
    {"fork", NULL, "ID [PROMPT...|-]", "Start a session where another one was.", session_fork_flags,
     1, 200, true, mu_cmd_session_fork, NULL},
    {"diff", NULL, "ID", "What a session has changed.", diff_flags, 1, 1, true, mu_cmd_diff, NULL},
    {"workers", "tokens", "", "List enrolment tokens.", worker_tokens_flags, 0, 0, true,
     mu_cmd_workers_tokens, NULL},
    {"workers", "revoke", "ID...", "Revoke enrolment tokens; workers that used them stay.", NULL, 1,
     200, true, mu_cmd_workers_revoke, NULL},
    {"workers", NULL, "", "List workers (administrator).", NULL, 0, 0, true, mu_cmd_workers, NULL},
    {"drain", NULL, "WORKER", "Give a worker nothing new; what it holds goes on.", drain_flags, 1,
     1, true, mu_cmd_drain, NULL},
    {"undrain", NULL, "WORKER", "Let it take sessions again.", NULL, 1, 1, true, mu_cmd_undrain,
     NULL},
    {"env", "create", "[NAME]", "Create an environment.", env_flags, 0, 1, true, mu_cmd_env_create,
     NULL},
    {"env", "list", "", "List environments.", NULL, 0, 0, true, mu_cmd_env_list, NULL},
    {"env", "get", "ID", "Show an environment.", NULL, 1, 1, true, mu_cmd_env_get, NULL},
    {"env", "update", "ID", "Change an environment.", env_update_flags, 1, 1, true,
     mu_cmd_env_update, NULL},
    {"env", "delete", "ID...", "Delete environments.", NULL, 1, 200, true, mu_cmd_env_delete, NULL},
    {"schedule", "create", "", "Create a schedule.", schedule_flags, 0, 0, true,
     mu_cmd_schedule_create, NULL},
    {"schedule", "list", "", "List schedules.", NULL, 0, 0, true, mu_cmd_schedule_list, NULL},
    {"schedule", "get", "ID", "Show a schedule.", NULL, 1, 1, true, mu_cmd_schedule_get, NULL},
    {"schedule", "update", "ID", "Change a schedule.", schedule_flags, 1, 1, true,
     mu_cmd_schedule_update, NULL},
    {"schedule", "pause", "ID", "Stop it from firing.", NULL, 1, 1, true, mu_cmd_schedule_pause,
     NULL},
    {"schedule", "resume", "ID", "Let it fire again.", NULL, 1, 1, true, mu_cmd_schedule_resume,
     NULL},
    {"schedule", "delete", "ID...", "Delete schedules.", NULL, 1, 200, true, mu_cmd_schedule_delete,
     NULL},
    {"providers", NULL, "", "List providers and their quota.", NULL, 0, 0, true, mu_cmd_providers,
     NULL},
    {"keys", "create", "NAME", "Create a tenant's key.", key_flags, 1, 1, true, mu_cmd_keys_create,
     NULL},
    {"keys", "list", "", "List keys.", NULL, 0, 0, true, mu_cmd_keys_list, NULL},
    {"keys", "revoke", "ID...", "Revoke keys.", NULL, 1, 200, true, mu_cmd_keys_revoke, NULL},
    {"keys", "rotate-admin", "", "Make a new administrator's key.", NULL, 0, 0, true,
     mu_cmd_keys_rotate, NULL},
    {"login-link", NULL, "", "Print a link that signs a browser in as administrator, once.", NULL,
     0, 0, true, mu_cmd_login_link, NULL},
    {"config", NULL, "", "Print the effective settings.", show_config_flags, 0, 0, false,
     mu_cmd_config, NULL},
    {"doctor", NULL, "", "Say what is present, what is active and what to do.", doctor_flags, 0, 0,
     false, mu_cmd_doctor, NULL},
    {"backup", NULL, "FILE", "Save database, keys and blobs, also while the server runs.",
     config_flags, 1, 1, false, mu_cmd_backup, NULL},
    {"restore", NULL, "FILE", "Put a backup back; the server must not run.", restore_flags, 1, 1,
     false, mu_cmd_restore, NULL},
    {"completion", NULL, "bash|zsh|fish", "Print the completions of a shell.", NULL, 1, 1, false,
     mu_cmd_completion, NULL},
    {0}};

const struct mu_cmd *mu_cmd_find(const char *name, const char *sub)
{
    for (const struct mu_cmd *c = mu_commands; c->name; c++) {
        bool same_sub = c->sub ? sub && !strcmp(c->sub, sub) : !sub;
        if (!strcmp(c->name, name) && same_sub) {
            return c;
        }
    }
    return NULL;
}
