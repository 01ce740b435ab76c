#include "main/worker_conf.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "exec/process.h"
#include "main/config_int.h"
#include "proto/url.h"
#include "worker/units.h"
#include "worker/yaml.h"

#define WS_PATH "/api/v1/selfhosted/worker/ws"
enum { ARENA_BYTES = 16 << 20, STOP_GRACE_MS = 10000, DEFAULT_METRICS_PORT = 9464 };

struct build {
    struct mu_worker_settings *s;
    struct mu_config *c;
    const struct mu_cli *cli;
    struct mu_worker_yaml yaml;
    struct mu_err *err;
};

static int no_memory(struct build *b)
{
    return mu_err_set(b->err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
}

/* --- sources --- */

static const char *flag(struct build *b, const char *name)
{
    return b->cli ? mu_cli_value(b->cli, name) : NULL;
}

/* A variable that was really given, not its default. */
static bool given(const struct build *b, const char *name)
{
    for (size_t i = 0; i < mu_config_table_len; i++) {
        if (!strcmp(mu_config_table[i].name, name)) {
            return b->c->sources[i] != MU_FROM_DEFAULT;
        }
    }
    return false;
}

static const char *first(const char *a, const char *b, const char *c)
{
    return a && a[0] ? a : b && b[0] ? b : c;
}

static int read_yaml(struct build *b)
{
    const char *path = flag(b, "config-file");
    struct stat st;
    b->yaml = (struct mu_worker_yaml){.cleanup = -1, .max_concurrent_tasks = -1};
    if (!path) {
        return 0;
    }
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return mu_err_set(b->err, MU_E_INVALID, "--config-file %s: %s", path, mu_err_text(-errno));
    }
    char *text = mu_arena_alloc(&b->s->arena, MU_WORKER_YAML_MAX + 1);
    ssize_t n = 0;
    size_t len = 0;
    while (text && len <= MU_WORKER_YAML_MAX &&
           (n = read(fd, text + len, MU_WORKER_YAML_MAX + 1 - len)) > 0) {
        len += (size_t)n;
    }
    if (!text || n < 0) {
        return text ? mu_err_set(b->err, MU_E_INVALID, "--config-file %s: %s", path,
                                 mu_err_text(-errno))
                    : no_memory(b);
    }
    int r = mu_worker_yaml_read(&b->s->arena, mu_bytes_of(text, len), &b->yaml, b->err);
    if (r < 0) {
        mu_err_context(b->err, "--config-file %s", path);
    }
    return r;
}

/* --- lists: the file's entries first, then the flags', which a comma may hold several of --- */

struct list {
    const char **items;
    size_t n;
};

static int push(struct build *b, struct list *l, const char *text)
{
    if (!text) {
        return no_memory(b);
    }
    if (!l->items) {
        l->items = mu_arena_calloc(&b->s->arena, (MU_WORKER_MAX_LIST + 1) * sizeof *l->items);
    }
    if (!l->items) {
        return no_memory(b);
    }
    if (l->n == MU_WORKER_MAX_LIST) {
        return mu_err_set(b->err, MU_E_INVALID, "more than %d entries in a list",
                          MU_WORKER_MAX_LIST);
    }
    l->items[l->n++] = text;
    return 0;
}

static int push_words(struct build *b, struct list *l, const char *text)
{
    int r = 0;
    for (mu_bytes rest = mu_str(text); r == 0 && rest.ptr;) {
        mu_bytes word = mu_bytes_trim(mu_bytes_split(&rest, ','));
        if (word.len) {
            r = push(b, l, mu_arena_dup(&b->s->arena, word).ptr);
        }
    }
    return r;
}

static int push_flag(struct build *b, struct list *l, const char *name)
{
    int r = 0;
    const char *v;
    for (size_t at = 0; b->cli && r == 0 && (v = mu_cli_next(b->cli, name, &at));) {
        r = push_words(b, l, v);
    }
    return r;
}

/* "NAME=value", or "NAME": that of this process, empty when it has none. */
static int push_var(struct build *b, struct list *l, const char *text)
{
    mu_bytes rest = mu_str(text);
    mu_bytes name = mu_bytes_split(&rest, '=');
    for (size_t i = 0; i < name.len; i++) {
        if ((unsigned char)name.ptr[i] <= ' ') {
            name.len = 0;
        }
    }
    if (name.len == 0) {
        return mu_err_set(b->err, MU_E_INVALID, "--env %s: a name is empty or has blanks", text);
    }
    if (rest.ptr) {
        return push(b, l, text);
    }
    mu_bytes copy = mu_arena_dup(&b->s->arena, name);
    const char *value = copy.ptr ? getenv(copy.ptr) : NULL;
    return push(b, l,
                mu_arena_printf(&b->s->arena, "%.*s=%s", MU_ARGS(name), value ? value : "").ptr);
}

static int environment(struct build *b)
{
    struct list words = {0}, vars = {0};
    int r = 0;
    for (const char *const *e = b->yaml.environment; r == 0 && e && *e; e++) {
        r = push_var(b, &vars, *e);
    }
    if (r == 0) {
        r = push_flag(b, &words, "env");
    }
    for (size_t i = 0; r == 0 && i < words.n; i++) {
        r = push_var(b, &vars, words.items[i]);
    }
    b->s->conf.environment = vars.items;
    return r;
}

static int volumes(struct build *b)
{
    struct list l = {0};
    int r = 0;
    for (const char *const *v = b->yaml.volumes; r == 0 && v && *v; v++) {
        r = push_words(b, &l, *v);
    }
    if (r == 0) {
        r = push_flag(b, &l, "volumes");
    }
    b->s->conf.sandbox.volumes = l.items;
    return r;
}

static int labels(struct build *b)
{
    struct list l = {0}, f = {0};
    int r = 0;
    for (const char *const *v = b->yaml.labels; r == 0 && v && *v; v++) {
        r = push(b, &l, *v);
    }
    if (r == 0) {
        r = push_flag(b, &l, "label");
    }
    if (r == 0) {
        r = push(b, &f, "one-shot");
    }
    if (r == 0 && b->c->runner_features) {
        r = push_words(b, &f, b->c->runner_features);
    }
    b->s->conf.labels = l.items;
    b->s->conf.features = f.items;
    return r;
}

static bool has_variable(const char *const *environment, const char *name)
{
    for (; environment && *environment; environment++) {
        if (!strncmp(*environment, name, strlen(name))) {
            return true;
        }
    }
    return false;
}

/* A program of this machine that sandboxes see under this name. */
static int push_program(struct build *b, struct list *paths, const char *name, const char *real)
{
    int r = push(b, paths, name);
    return r == 0 ? push(b, paths, mu_arena_dup(&b->s->arena, mu_str(real)).ptr) : r;
}

/* The agents of this machine: announced, and bound into sandboxes, with what lets the runner talk
 * to them in live sessions. One whose command is given by a variable of every task is there too. */
static int harnesses(struct build *b)
{
    const struct {
        const char *name, *path;
    } known[] = {{"claude", b->c->claude_path},
                 {"codex", b->c->codex_path},
                 {"gemini", b->c->gemini_path},
                 {"opencode", NULL}};
    static const char *const bridges[] = {"claude-agent-acp", "codex-acp"};
    static const char *const commands[] = {"OZ_SIDECAR_CLAUDE_CMD=", "OZ_SIDECAR_CODEX_CMD=",
                                           "OZ_SIDECAR_GEMINI_CMD=", "OZ_SIDECAR_OPENCODE_CMD="};
    struct list names = {0}, paths = {0};
    int r = push(b, &names, "shell");
    for (size_t i = 0; r == 0 && i < MU_ARRAY_LEN(known); i++) {
        char real[PATH_MAX];
        char *found =
            mu_process_find(known[i].path ? known[i].path : known[i].name, getenv("PATH"));
        bool there = found && realpath(found, real);
        if (there || has_variable(b->s->conf.environment, commands[i])) {
            r = push(b, &names, known[i].name);
        }
        if (r == 0 && there) {
            r = push_program(b, &paths, known[i].name, real);
        }
        mu_free(found);
    }
    for (size_t i = 0; r == 0 && i < MU_ARRAY_LEN(bridges); i++) {
        char real[PATH_MAX], *found = mu_process_find(bridges[i], getenv("PATH"));
        if (found && realpath(found, real)) {
            r = push_program(b, &paths, bridges[i], real);
        }
        mu_free(found);
    }
    b->s->conf.harnesses = names.items;
    b->s->conf.sandbox.harness_paths = paths.items;
    return r;
}

/* --- single values --- */

static int duration(struct build *b, const char *name, const char *text, int64_t *ret)
{
    if (mu_duration_parse(mu_str(text), ret) < 0) {
        return mu_err_set(b->err, MU_E_INVALID, "%s: expected a time like 45m, 90s or 8h", name);
    }
    return 0;
}

/* The server's address and the link's: each gives the other when it is not given itself. */
static int addresses(struct build *b)
{
    struct mu_worker_conf *w = &b->s->conf;
    struct mu_arena *a = &b->s->arena;
    const char *ws = flag(b, "web-socket-url"), *root = flag(b, "server-root-url");
    ws = first(ws, b->c->ws_url, b->yaml.web_socket_url);
    root = first(root, b->c->server_root_url, b->yaml.server_root_url);
    if (!ws && !root) {
        root = "http://localhost:8080";
    }
    if (!root) {
        mu_bytes rest = mu_str(ws);
        bool tls = mu_bytes_starts(rest, MU_B("wss:")) || mu_bytes_starts(rest, MU_B("https:"));
        ptrdiff_t at = mu_bytes_find(rest, MU_B("://"));
        rest = mu_bytes_from(rest, at < 0 ? 0 : (size_t)at + 3);
        mu_bytes host = mu_bytes_head(rest, strcspn(rest.ptr, "/?#"));
        root = mu_arena_printf(a, "%s://%.*s", tls ? "https" : "http", MU_ARGS(host)).ptr;
    }
    mu_bytes base = mu_str(root);
    while (mu_bytes_ends(base, MU_B("/"))) {
        base = mu_bytes_head(base, base.len - 1);
    }
    root = mu_arena_dup(a, base).ptr;
    if (!ws && root) {
        bool tls = mu_bytes_starts(base, MU_B("https:"));
        ptrdiff_t at = mu_bytes_find(base, MU_B("://"));
        mu_bytes rest = mu_bytes_from(base, at < 0 ? 0 : (size_t)at + 3);
        ws = mu_arena_printf(a, "%s://%.*s%s", tls ? "wss" : "ws", MU_ARGS(rest), WS_PATH).ptr;
    }
    if (!ws || !root) {
        return no_memory(b);
    }
    struct mu_url url;
    if (mu_url_parse(base, &url, b->err) < 0) {
        mu_err_context(b->err, "--server-root-url");
        return MU_E_INVALID;
    }
    w->ws_url = ws;
    w->server_root_url = root;
    return 0;
}

static const char *variable(const char *a, const char *b)
{
    const char *v = getenv(a);
    return v && v[0] ? v : getenv(b);
}

/* Whether NO_PROXY names the host, or a domain it lies in. */
static bool no_proxy(mu_bytes host)
{
    if (mu_bytes_is(host, "localhost") || mu_bytes_starts(host, MU_B("127.")) ||
        mu_bytes_is(host, "::1")) {
        return true;
    }
    for (mu_bytes rest = mu_str(variable("NO_PROXY", "no_proxy")); rest.ptr;) {
        mu_bytes word = mu_bytes_trim(mu_bytes_split(&rest, ','));
        if (mu_bytes_is(word, "*")) {
            return true;
        }
        mu_bytes name = mu_bytes_from(word, mu_bytes_starts(word, MU_B(".")) ? 1 : 0);
        bool below = name.len && host.len > name.len && mu_bytes_ends(host, name) &&
                     host.ptr[host.len - name.len - 1] == '.';
        if (name.len && (below || mu_bytes_eq_nocase(host, name))) {
            return true;
        }
    }
    return false;
}

/* "http://host:port" of a variable as host:port. */
static int parse_proxy(struct build *b, const char *name, const char *text, const char **ret)
{
    struct mu_url url;
    mu_bytes given_url = mu_str(text);
    if (mu_bytes_find(given_url, MU_B("://")) < 0) {
        given_url = mu_arena_printf(&b->s->arena, "http://%s", text);
    }
    if (!given_url.ptr || mu_url_parse(given_url, &url, b->err) < 0 || url.has_userinfo) {
        return mu_err_set(b->err, MU_E_INVALID, "%s: expected http://host:port", name);
    }
    bool v6 = mu_bytes_find_char(url.host, ':') >= 0;
    *ret = mu_arena_printf(&b->s->arena, "%s%.*s%s:%u", v6 ? "[" : "", MU_ARGS(url.host),
                           v6 ? "]" : "", url.port)
               .ptr;
    return *ret ? 0 : no_memory(b);
}

/* The machine's proxy: for the link, unless NO_PROXY names the server; and for what sandboxes may
 * reach. */
static int proxy(struct build *b)
{
    struct mu_worker_conf *w = &b->s->conf;
    mu_bytes rest = mu_str(w->ws_url);
    bool tls = mu_bytes_starts(rest, MU_B("wss:")) || mu_bytes_starts(rest, MU_B("https:"));
    ptrdiff_t at = mu_bytes_find(rest, MU_B("://"));
    rest = mu_bytes_from(rest, at < 0 ? 0 : (size_t)at + 3);
    mu_bytes host = mu_bytes_head(rest, rest.ptr ? strcspn(rest.ptr, "/?#") : 0);
    ptrdiff_t colon = host.len && host.ptr[0] != '[' ? mu_bytes_find_char(host, ':') : -1;
    host = colon >= 0 ? mu_bytes_head(host, (size_t)colon) : host;
    const char *secure = variable("HTTPS_PROXY", "https_proxy");
    const char *plain = variable("HTTP_PROXY", "http_proxy"), *link = tls ? secure : plain;
    int r = 0;
    if (secure && secure[0]) {
        r = parse_proxy(b, "HTTPS_PROXY", secure, &w->upstream);
    }
    if (r == 0 && link && link[0] && !no_proxy(host)) {
        r = parse_proxy(b, tls ? "HTTPS_PROXY" : "HTTP_PROXY", link, &w->proxy);
    }
    return r;
}

static int metrics(struct build *b)
{
    struct mu_worker_conf *w = &b->s->conf;
    const char *text = first(flag(b, "metrics-listen"), b->yaml.metrics_listen, NULL);
    int64_t port = DEFAULT_METRICS_PORT;
    b->s->metrics_given = text != NULL;
    if (!text) {
        w->metrics_host = "127.0.0.1";
        w->metrics_port = DEFAULT_METRICS_PORT;
        return 0;
    }
    if (!strcmp(text, "none") || !strcmp(text, "off")) {
        return 0;
    }
    const char *colon = strrchr(text, ':');
    mu_bytes host = mu_bytes_of(text, colon ? (size_t)(colon - text) : 0);
    if (mu_bytes_starts(host, MU_B("[")) && mu_bytes_ends(host, MU_B("]"))) {
        host = mu_bytes_of(host.ptr + 1, host.len - 2);
    }
    if (!host.len || mu_bytes_i64(mu_str(colon + 1), &port) < 0 || port < 0 || port > 65535) {
        return mu_err_set(b->err, MU_E_INVALID, "--metrics-listen: expected host:port or none");
    }
    w->metrics_host = mu_arena_dup(&b->s->arena, host).ptr;
    w->metrics_port = (unsigned)port;
    return w->metrics_host ? 0 : no_memory(b);
}

static int times(struct build *b)
{
    struct mu_worker_conf *w = &b->s->conf;
    const char *limit = first(flag(b, "output-limit"), b->yaml.output_limit, "8MiB");
    int r =
        duration(b, "--task-timeout", first(flag(b, "task-timeout"), b->yaml.task_timeout, "8h"),
                 &w->task_timeout_ms);
    if (r == 0) {
        r = duration(b, "--drain-timeout",
                     first(flag(b, "drain-timeout"), b->yaml.drain_timeout, "0"),
                     &w->drain_timeout_ms);
    }
    if (r == 0) {
        r = duration(b, "dispatch_timeout", first(b->yaml.dispatch_timeout, "60s", NULL),
                     &w->sandbox.dispatch_timeout_ms);
    }
    if (r == 0 && (mu_size_parse(mu_str(limit), &w->output_limit) < 0 || w->output_limit < 65536 ||
                   w->output_limit > (64 << 20))) {
        r = mu_err_set(b->err, MU_E_INVALID, "--output-limit: expected 64KiB to 64MiB");
    }
    w->idle_on_complete = first(flag(b, "idle-on-complete"), b->yaml.idle_on_complete, NULL);
    int64_t idle;
    if (r == 0 && w->idle_on_complete) {
        r = duration(b, "--idle-on-complete", w->idle_on_complete, &idle);
    }
    w->stop_grace_ms = STOP_GRACE_MS;
    w->reconnect_max_attempts = b->c->reconnect_max_attempts;
    w->reconnect_window_ms = b->c->reconnect_window_seconds * 1000;
    return r;
}

static int capacity(struct build *b)
{
    struct mu_worker_conf *w = &b->s->conf;
    const char *text = first(flag(b, "capacity"), flag(b, "max-concurrent-tasks"), NULL);
    int64_t n = 0;
    if (text && (mu_bytes_i64(mu_str(text), &n) < 0 || n < 0 || n > 1024)) {
        return mu_err_set(b->err, MU_E_INVALID,
                          "--capacity: expected a whole number from 0 to 1024");
    }
    if (n == 0 && b->yaml.max_concurrent_tasks > 0) { /* a flag of 0 is none */
        n = b->yaml.max_concurrent_tasks;
    }
    w->capacity = n ? MU_MIN(n, INT64_C(1024)) : b->c->runner_max_sessions;
    return 0;
}

static int backend(struct build *b)
{
    const char *named = first(flag(b, "sandbox"), flag(b, "backend"), b->yaml.sandbox);
    const char *variable_ = given(b, "SANDBOX_DRIVER") ? b->c->sandbox_driver : NULL;
    named = first(named, b->yaml.backend, variable_);
    named = named ? named : "auto";
    if (!mu_worker_kind(mu_str(named), &b->s->conf.backend)) {
        return mu_err_set(b->err, MU_E_INVALID, "--sandbox %s: this program has no such kind",
                          named);
    }
    return 0;
}

/* It becomes a header. */
static bool is_key(const char *text)
{
    for (; *text; text++) {
        if (*text <= ' ' || *text > '~') {
            return false;
        }
    }
    return true;
}

/* What came with an enrolment (the worker's credential.c), from an earlier start. */
static bool has_credential(struct build *b)
{
    mu_bytes path = mu_arena_printf(&b->s->arena, "%s/credential", b->s->conf.state_dir);
    return path.ptr && access(path.ptr, F_OK) == 0;
}

/* The file may be gone once it was used. */
static int enrolment(struct build *b)
{
    struct mu_worker_conf *w = &b->s->conf;
    const char *path = flag(b, "enrol-token-file");
    mu_bytes text = MU_B_NONE;
    w->enrol_token = first(b->c->worker_enrol_token, NULL, NULL);
    if (path && !(access(path, F_OK) < 0 && has_credential(b))) {
        int r = mu_config_read_value(&b->s->arena, path, &text, b->err);
        if (r < 0) {
            mu_err_context(b->err, "--enrol-token-file");
            return r;
        }
        w->enrol_token = mu_arena_dup(&b->s->arena, text).ptr;
        if (!w->enrol_token) {
            return no_memory(b);
        }
    }
    if (w->enrol_token &&
        (!mu_bytes_starts(mu_str(w->enrol_token), MU_B("en_")) || !is_key(w->enrol_token))) {
        return mu_err_set(b->err, MU_E_INVALID, "%s: not an enrolment token (en_...)",
                          path ? "--enrol-token-file" : "OZ_WORKER_ENROL_TOKEN");
    }
    return 0;
}

static int identity(struct build *b)
{
    struct mu_worker_conf *w = &b->s->conf;
    if (gethostname(b->s->hostname, sizeof b->s->hostname - 1) < 0) {
        snprintf(b->s->hostname, sizeof b->s->hostname, "worker");
    }
    w->worker_id = first(flag(b, "worker-id"), b->yaml.worker_id, b->s->hostname);
    w->api_key = first(flag(b, "api-key"), b->c->api_key, NULL);
    w->session_sharing_url = flag(b, "session-sharing-server-url");
    const char *state = first(flag(b, "state-dir"), b->yaml.state_dir, NULL);
    if (!state) {
        state = mu_arena_printf(&b->s->arena, "%s/worker", b->c->data_dir).ptr;
    }
    if (!state) {
        return no_memory(b);
    }
    w->state_dir = state;
    if (strlen(w->worker_id) > 128) {
        return mu_err_set(b->err, MU_E_INVALID, "--worker-id: longer than 128 characters");
    }
    if (w->api_key && !is_key(w->api_key)) {
        return mu_err_set(b->err, MU_E_INVALID, "OZ_API_KEY: not a key");
    }
    int r = enrolment(b);
    if (r == 0 && b->cli && !w->api_key && !w->enrol_token && !has_credential(b) &&
        !mu_cli_has(b->cli, "check")) {
        return mu_err_set(b->err, MU_E_INVALID,
                          "no key: set OZ_API_KEY (or OZ_API_KEY_FILE, or WARP_API_KEY), or give "
                          "--enrol-token-file (or OZ_WORKER_ENROL_TOKEN)");
    }
    return r;
}

/* The runner's tree lies next to the program, or where it is installed. */
static int bundle(struct build *b)
{
    static const char *const places[] = {"agent", "../lib/muster/agent"};
    char exe[PATH_MAX], path[PATH_MAX + 64], real[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[MU_MAX(n, 0)] = 0;
    char *slash = strrchr(exe, '/');
    for (size_t i = 0; slash && i < MU_ARRAY_LEN(places); i++) {
        snprintf(path, sizeof path, "%.*s/%s", (int)(slash - exe), exe, places[i]);
        if (realpath(path, real)) {
            b->s->conf.sandbox.bundle_dir = mu_arena_dup(&b->s->arena, mu_str(real)).ptr;
            return b->s->conf.sandbox.bundle_dir ? 0 : no_memory(b);
        }
    }
    return 0;
}

static int sandbox(struct build *b)
{
    struct mu_worker_conf *w = &b->s->conf;
    struct mu_sandbox_settings *s = &w->sandbox;
    const struct mu_config *c = b->c;
    const struct mu_worker_yaml *y = &b->yaml;
    const char *pull = first(flag(b, "pull"), y->pull, "missing");
    if (strcmp(pull, "missing") != 0 && strcmp(pull, "always") != 0 && strcmp(pull, "never") != 0) {
        return mu_err_set(b->err, MU_E_INVALID, "--pull: expected missing, always or never");
    }
    s->keep = b->cli && mu_cli_has(b->cli, "no-cleanup") ? true : y->cleanup == 0;
    s->minimum = c->sandbox_min;
    s->base = c->sandbox_base && strcmp(c->sandbox_base, "host") != 0 ? c->sandbox_base : NULL;
    s->extra_ro = c->sandbox_ro;
    s->extra_etc = c->sandbox_etc;
    s->allow_nested = c->sandbox_nested;
    s->allow_host_network = !strcmp(c->sandbox_net, "host");
    s->memory_bytes = c->sandbox_memory_mb << 20;
    s->pids = c->sandbox_pids;
    s->disk_bytes = c->sandbox_disk_mb << 20;
    s->shm_bytes = c->sandbox_shm_mb << 20;
    s->cpus = c->sandbox_cpus;
    s->docker_host = first(c->docker_host, y->docker_host, NULL);
    s->pull = pull;
    s->task_network = first(flag(b, "task-network"), y->task_network, "bridge");
    s->secret_files = b->cli && mu_cli_has(b->cli, "secret-files");
    s->workspace_root = first(y->workspace_root, c->runner_workspace_dir, NULL);
    s->target_dir = first(flag(b, "target-dir"), y->target_dir, NULL);
    s->oz_path = y->oz_path;
    s->setup_command = y->setup_command;
    s->teardown_command = y->teardown_command;
    s->dispatch_command = y->dispatch_command;
    s->cancel_command = y->cancel_command;
    s->environment = w->environment;
    s->allow_direct = c->allow_unsafe_process_driver;
    w->network = !strcmp(c->sandbox_net, "host")   ? MU_NET_HOST
                 : !strcmp(c->sandbox_net, "none") ? MU_NET_NONE
                                                   : MU_NET_PROXY;
    w->keep_running = b->cli && mu_cli_has(b->cli, "keep-running");
    w->allow = c->sandbox_allow && strcmp(c->sandbox_allow, "none") != 0 ? c->sandbox_allow : NULL;
    w->allow_addr = c->sandbox_allow_addr;
    w->forward = c->sandbox_forward;
    w->ssh_keys = c->git_ssh_keys;
    w->cache_dir = c->runner_cache_dir ? c->runner_cache_dir
                                       : mu_arena_printf(&b->s->arena, "%s/git", w->state_dir).ptr;
    return w->cache_dir ? 0 : no_memory(b);
}

int mu_worker_settings_load(struct mu_worker_settings *s, struct mu_config *config,
                            const struct mu_cli *cli, struct mu_err *err)
{
    static int (*const steps[])(struct build *) = {
        read_yaml, identity,    addresses, proxy,  metrics,   times,  capacity,
        backend,   environment, volumes,   labels, harnesses, bundle, sandbox};
    struct build b = {.s = s, .c = config, .cli = cli, .err = err};
    memset(s, 0, sizeof *s);
    s->config = config;
    mu_arena_init(&s->arena, ARENA_BYTES);
    int r = 0;
    for (size_t i = 0; r == 0 && i < MU_ARRAY_LEN(steps); i++) {
        r = steps[i](&b);
    }
    return r;
}

void mu_worker_settings_fini(struct mu_worker_settings *s)
{
    s->config = mu_config_free(s->config);
    mu_arena_fini(&s->arena);
}
