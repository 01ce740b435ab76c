/* The first look around when nobody configured a provider: keys, a local server, agents. What is
 * found serves the administrator only (`discovered`). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include "exec/process.h"
#include "main/config_int.h"
#include "proto/json.h"

enum { CONNECT_MS = 200, ANSWER_MS = 800, MAX_ANSWER = 256 * 1024 };

static int no_memory(struct mu_err *err)
{
    return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
}

static int64_t now_ms(void)
{
    return mu_env_mono_ms(&mu_env_real);
}

/* --- a local server that speaks the OpenAI dialect --- */

static bool wait_for(int fd, short events, int64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = events};
    int64_t left;
    while ((left = deadline - now_ms()) > 0) {
        int n = poll(&p, 1, (int)left);
        if (n > 0) {
            return true;
        }
        if (n < 0 && errno != EINTR) {
            return false;
        }
    }
    return false;
}

static int connect_local(unsigned port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    MU_AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int failed = 0;
    socklen_t len = sizeof failed;
    if (fd < 0 || (connect(fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS) ||
        !wait_for(fd, POLLOUT, now_ms() + CONNECT_MS) ||
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len) < 0 || failed) {
        return -1;
    }
    return mu_steal_fd(&fd);
}

/* HTTP/1.0, so that the answer comes in one piece and ends with the connection. */
static bool get_models(unsigned port, struct mu_buf *answer)
{
    char request[160];
    MU_AUTO_CLOSE int fd = connect_local(port);
    int64_t deadline = now_ms() + ANSWER_MS;
    int n = snprintf(request, sizeof request,
                     "GET /v1/models HTTP/1.0\r\nHost: 127.0.0.1:%u\r\nAccept: "
                     "application/json\r\nConnection: close\r\n\r\n",
                     port);
    if (fd < 0 || send(fd, request, (size_t)n, MSG_NOSIGNAL) != n) {
        return false;
    }
    while (wait_for(fd, POLLIN, deadline)) {
        char *room = mu_buf_room(answer, 4096);
        ssize_t got = room ? recv(fd, room, 4096, 0) : -1;
        if (got == 0) {
            return true;
        }
        if (got < 0) {
            if (room && (errno == EAGAIN || errno == EINTR)) {
                continue;
            }
            return false;
        }
        answer->len += (size_t)got;
    }
    return false;
}

static bool model_ok(mu_bytes id)
{
    for (size_t i = 0; i < id.len; i++) {
        if (id.ptr[i] <= ' ' || id.ptr[i] > '~') {
            return false;
        }
    }
    return id.len > 0 && id.len <= 200;
}

bool mu_discover_local(struct mu_arena *a, unsigned port, const char **ret_model)
{
    const struct mu_json_limits limits = {.max_bytes = MAX_ANSWER, .max_depth = 16};
    struct mu_buf answer;
    yyjson_val *root;
    bool found = false;
    mu_buf_init(&answer, MAX_ANSWER);
    if (get_models(port, &answer)) {
        mu_bytes all = mu_buf_bytes(&answer);
        ptrdiff_t head = mu_bytes_find(all, MU_B("\r\n\r\n"));
        bool ok = head > 12 && mu_bytes_starts(all, MU_B("HTTP/1.")) &&
                  mu_bytes_eq(mu_bytes_head(mu_bytes_from(all, 8), 5), MU_B(" 200 "));
        if (ok &&
            mu_json_read(a, mu_bytes_from(all, (size_t)head + 4), &limits, &root, NULL) == 0) {
            mu_bytes id = mu_json_get_bytes(yyjson_arr_get_first(mu_json_get(root, "data")), "id");
            *ret_model = model_ok(id) ? mu_arena_dup(a, id).ptr : NULL;
            found = *ret_model != NULL;
        }
    }
    mu_buf_fini(&answer);
    return found;
}

/* --- what was found becomes a provider --- */

static bool taken(const struct mu_config *c, const char *key)
{
    for (size_t i = 0; i < c->provider_list.n; i++) {
        if (!strcmp(c->provider_list.items[i].key, key)) {
            return true;
        }
    }
    return false;
}

static struct mu_provider_conf *add_found(struct mu_config *c, const char *key,
                                          enum mu_provider_type type, const char *model,
                                          const char *found)
{
    struct mu_provider_conf *p = mu_config_add_provider(c, key, type);
    if (!p) {
        return NULL;
    }
    const char *asked = c->provider_model ? c->provider_model : c->model;
    p->model = asked ? asked : model;
    p->model_given = asked != NULL || type != MU_PROVIDER_CLI;
    p->has_temperature = false; /* newer models refuse it */
    p->discovered = true;
    p->found = mu_arena_dup(&c->arena, mu_str(found)).ptr;
    return p->found ? p : NULL;
}

static int find_keys(struct mu_config *c, struct mu_err *err)
{
    const struct {
        const char *value, *variable, *key, *model, *base_url;
        enum mu_provider_type type;
    } keys[] = {
        {c->anthropic_api_key, "ANTHROPIC_API_KEY", "claude", "claude-sonnet-4-5", NULL,
         MU_PROVIDER_ANTHROPIC},
        {c->openai_api_key, "OPENAI_API_KEY", "codex", "gpt-4.1", "https://api.openai.com/v1",
         MU_PROVIDER_OPENAI},
        {c->google_api_key, "GOOGLE_API_KEY", "gemini", "gemini-2.5-flash",
         "https://generativelanguage.googleapis.com/v1beta/openai", MU_PROVIDER_OPENAI},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(keys); i++) {
        char found[80];
        if (!keys[i].value) {
            continue;
        }
        snprintf(found, sizeof found, "%s in the settings", keys[i].variable);
        struct mu_provider_conf *p = add_found(c, keys[i].key, keys[i].type, keys[i].model, found);
        if (!p) {
            return no_memory(err);
        }
        p->api_key = keys[i].value;
        p->base_url = keys[i].base_url ? keys[i].base_url : p->base_url;
    }
    return 0;
}

static int find_server(struct mu_config *c, const unsigned *ports, struct mu_err *err)
{
    for (size_t i = 0; ports[i]; i++) {
        const char *model;
        char found[80], url[64];
        if (!mu_discover_local(&c->arena, ports[i], &model)) {
            continue;
        }
        snprintf(url, sizeof url, "http://127.0.0.1:%u/v1", ports[i]);
        snprintf(found, sizeof found, "a server on 127.0.0.1:%u", ports[i]);
        struct mu_provider_conf *p = add_found(c, "local", MU_PROVIDER_OPENAI, model, found);
        if (!p) {
            return no_memory(err);
        }
        p->base_url = mu_arena_dup(&c->arena, mu_str(url)).ptr;
        return p->base_url ? 0 : no_memory(err);
    }
    return 0;
}

/* The arguments let an agent edit files in its own fresh folder at most; none of them may run
 * commands unasked outside its own sandbox. */
static const char *const claude_args[] = {"-p",
                                          "--output-format",
                                          "stream-json",
                                          "--verbose",
                                          "--include-partial-messages",
                                          "--permission-mode",
                                          "acceptEdits",
                                          NULL};
static const char *const codex_args[] = {
    "exec", "--json", "--sandbox", "workspace-write", "--skip-git-repo-check", "-", NULL};
static const char *const opencode_args[] = {"run", "--format", "json", "--agent", "plan", NULL};
static const char *const gemini_args[] = {"--output-format", "stream-json", "--approval-mode",
                                          "auto_edit", NULL};
#define PROXIES "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"
#define FOLDERS "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"
static const char *const claude_env[] = {"ANTHROPIC_API_KEY",
                                         "ANTHROPIC_AUTH_TOKEN",
                                         "ANTHROPIC_BASE_URL",
                                         "CLAUDE_CONFIG_DIR",
                                         "CLAUDE_CODE_OAUTH_TOKEN",
                                         PROXIES,
                                         NULL};
static const char *const codex_env[] = {"OPENAI_API_KEY", "OPENAI_BASE_URL", "CODEX_HOME", PROXIES,
                                        NULL};
static const char *const opencode_env[] = {
    "ANTHROPIC_API_KEY",       "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENCODE_CONFIG",
    "OPENCODE_CONFIG_CONTENT", FOLDERS,          PROXIES,          NULL};
static const char *const gemini_env[] = {"GEMINI_API_KEY", "GOOGLE_API_KEY",
                                         "GOOGLE_GEMINI_BASE_URL", PROXIES, NULL};

static const struct agent {
    const char *program, *second_key; /* when the program's name is taken as a key */
    const char *const *args, *const *env;
    enum mu_cli_format format;
} agents[] = {
    {"claude", "claude_cli", claude_args, claude_env, MU_CLI_CLAUDE_STREAM_JSON},
    {"codex", "codex_cli", codex_args, codex_env, MU_CLI_CODEX_JSON},
    {"opencode", "opencode_cli", opencode_args, opencode_env, MU_CLI_OPENCODE_JSON},
    {"gemini", "gemini_cli", gemini_args, gemini_env, MU_CLI_GEMINI_JSON},
};

static int find_agents(struct mu_config *c, const char *path, struct mu_err *err)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(agents); i++) {
        const struct agent *g = &agents[i];
        char *program = mu_process_find(g->program, path);
        if (!program) {
            continue;
        }
        mu_bytes cmd = mu_arena_dup(&c->arena, mu_str(program));
        mu_free(program);
        mu_bytes found = mu_arena_printf(&c->arena, "the program %s", cmd.ptr ? cmd.ptr : "");
        struct mu_provider_conf *p =
            cmd.ptr && found.ptr ? add_found(c, taken(c, g->program) ? g->second_key : g->program,
                                             MU_PROVIDER_CLI, "cli", found.ptr)
                                 : NULL;
        if (!p) {
            return no_memory(err);
        }
        /* The default models are names for HTTP endpoints: an agent brings its own. */
        p->model = "cli";
        p->model_given = false;
        p->cli_cmd = cmd.ptr;
        p->cli_args = g->args;
        p->cli_env = g->env;
        p->cli_format = g->format;
        p->cli_timeout_ms = 1800000;
    }
    return 0;
}

/* A harness nobody has heard of goes to the default provider: that is the first one found. */
static int add_default(struct mu_config *c, struct mu_err *err)
{
    const char *key = c->providers.default_provider;
    size_t first = 0;
    while (first < c->provider_list.n && c->provider_list.items[first].type == MU_PROVIDER_SHELL) {
        first++;
    }
    if (first == c->provider_list.n || taken(c, key)) {
        return 0;
    }
    struct mu_provider_conf *copy = mu_config_add_provider(c, key, MU_PROVIDER_OPENAI);
    if (!copy) {
        return no_memory(err);
    }
    const char *own = copy->key;
    *copy = c->provider_list.items[first];
    copy->key = own;
    return 0;
}

int mu_discover(struct mu_config *c, const char *path, const unsigned *ports, struct mu_err *err)
{
    if (c->providers_given) {
        return 0;
    }
    int r = find_keys(c, err);
    if (r == 0) {
        r = find_server(c, ports, err);
    }
    if (r == 0) {
        r = find_agents(c, path, err);
    }
    return r < 0 ? r : add_default(c, err);
}

int mu_config_discover(struct mu_config *c, const char *path, struct mu_err *err)
{
    static const unsigned ports[] = {11434, 8000, 1234, 0};
    return mu_discover(c, path, ports, err);
}
