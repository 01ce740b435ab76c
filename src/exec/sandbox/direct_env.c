/* The variables of the kind `direct` (oz-worker.md 10, steps 3 to 8). */
#include <fcntl.h>
#include <stdio.h>

#include "exec/sandbox/direct_int.h"

extern char **environ;

enum { MAX_VARS = 8192, MAX_ENV_FILE = 256 << 10 };

struct list {
    struct mu_arena *arena;
    const char **items;
    size_t n;
    bool failed;
};

static void init(struct list *l, struct mu_arena *arena)
{
    *l = (struct list){.arena = arena};
    l->items = mu_arena_calloc(arena, (MAX_VARS + 1) * sizeof *l->items);
    l->failed = !l->items;
}

/* The last of a name wins. */
static void put(struct list *l, const char *pair)
{
    const char *eq = pair ? strchr(pair, '=') : NULL;
    if (l->failed || !eq) {
        l->failed = l->failed || !pair;
        return;
    }
    size_t name = (size_t)(eq - pair) + 1;
    for (size_t i = 0; i < l->n; i++) {
        if (!strncmp(l->items[i], pair, name)) {
            l->items[i] = pair;
            return;
        }
    }
    if (l->n == MAX_VARS) {
        l->failed = true;
        return;
    }
    l->items[l->n++] = pair;
}

static void put_all(struct list *l, const char *const *pairs)
{
    for (; pairs && *pairs; pairs++) {
        put(l, *pairs);
    }
}

static void put_text(struct list *l, const char *name, const char *value)
{
    if (value) {
        put(l, mu_arena_printf(l->arena, "%s=%s", name, value).ptr);
    }
}

const char *mu_direct_var(const struct mu_direct_box *b, const char *name)
{
    size_t len = strlen(name);
    for (const char **e = b->env; e && *e; e++) {
        if (!strncmp(*e, name, len) && (*e)[len] == '=') {
            return *e + len + 1;
        }
    }
    return NULL;
}

static const char *harness_of(const struct mu_direct_box *b)
{
    const char *h = mu_direct_var(b, "OZ_HARNESS");
    for (const char *const *a = b->argv; !h && a && a[0] && a[1]; a++) {
        h = !strcmp(a[0], "--harness") ? a[1] : NULL;
    }
    return h ? h : "";
}

/* With a shared folder the git settings lie outside it. */
static void put_own(struct list *l, const struct mu_direct_box *b)
{
    char path[MU_DIRECT_PATH + 32];
    const char *harness = harness_of(b);
    bool claude = !strncmp(harness, "claude", 6), codex = !strcmp(harness, "codex");
    if (claude || codex) {
        snprintf(path, sizeof path, "%s/%s", b->workspace, claude ? ".claude" : ".codex");
        put_text(l, claude ? "CLAUDE_CONFIG_DIR" : "CODEX_HOME", path);
    }
    snprintf(path, sizeof path, "%s/.gitconfig",
             b->d->settings->target_dir ? b->folder : b->workspace);
    put_text(l, "GIT_CONFIG_GLOBAL", path);
    put_text(l, "OZ_WORKSPACE_ROOT", b->workspace);
    put_text(l, "MUSTER_WORKSPACE", b->workspace); /* where the runner finds /workspace */
    put_text(l, "OZ_WORKER_BACKEND", "direct");
    put_text(l, "OZ_RUN_ID", b->task_id[0] ? b->task_id : NULL);
    put_text(l, "OZ_EXECUTION_ID", b->id);
    put_text(l, "OZ_SANDBOX_MARK", b->folder); /* by it whatever is left is found */
}

const char *const *mu_direct_setup_env(struct mu_direct_box *b, bool with_file)
{
    struct list l;
    char path[MU_DIRECT_PATH + 32];
    init(&l, &b->arena);
    put_all(&l, (const char *const *)environ);
    put_all(&l, (const char *const *)b->env);
    if (with_file) {
        put_all(&l, b->d->settings->environment);
    }
    put_own(&l, b);
    if (with_file) {
        snprintf(path, sizeof path, "%s/env", b->folder);
        put_text(&l, "OZ_ENVIRONMENT_FILE", path);
    }
    return l.failed ? NULL : l.items;
}

/* --- what the setup command wrote: NAME=value lines, quotes and comments allowed --- */

static bool good_name(mu_bytes name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
                    (i > 0 && c >= '0' && c <= '9');
        if (!word) {
            return false;
        }
    }
    return name.len > 0;
}

static mu_bytes unquoted(mu_bytes v)
{
    v = mu_bytes_trim(v);
    bool quoted =
        v.len >= 2 && (v.ptr[0] == '"' || v.ptr[0] == '\'') && v.ptr[v.len - 1] == v.ptr[0];
    return quoted ? mu_bytes_of(v.ptr + 1, v.len - 2) : v;
}

static void put_file(struct list *l, const struct mu_direct_box *b)
{
    char path[MU_DIRECT_PATH + 32];
    snprintf(path, sizeof path, "%s/env", b->folder);
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    char *text = fd < 0 ? NULL : mu_arena_alloc(l->arena, MAX_ENV_FILE);
    ssize_t n = text ? read(fd, text, MAX_ENV_FILE) : 0;
    mu_bytes rest = mu_bytes_of(n > 0 ? text : NULL, n > 0 ? (size_t)n : 0);
    while (rest.ptr) {
        mu_bytes line = mu_bytes_trim(mu_bytes_split(&rest, '\n'));
        if (mu_bytes_starts(line, MU_B("export "))) {
            line = mu_bytes_trim(mu_bytes_from(line, 7));
        }
        mu_bytes value = line;
        mu_bytes name = mu_bytes_trim(mu_bytes_split(&value, '='));
        if (!value.ptr || !good_name(name) || memchr(line.ptr, 0, line.len) ||
            mu_bytes_is(name, "GIT_CONFIG_GLOBAL")) {
            continue;
        }
        value = unquoted(value);
        put(l, mu_arena_printf(l->arena, "%.*s=%.*s", MU_ARGS(name), MU_ARGS(value)).ptr);
    }
}

const char *const *mu_direct_agent_env(struct mu_direct_box *b)
{
    static const char *const host[] = {"HOME", "TMPDIR", "PATH"};
    struct list l;
    init(&l, &b->arena);
    for (size_t i = 0; i < MU_ARRAY_LEN(host); i++) {
        put_text(&l, host[i], getenv(host[i]));
    }
    put_all(&l, (const char *const *)b->env);
    put_all(&l, b->d->settings->environment);
    put_own(&l, b);
    put_file(&l, b);
    return l.failed ? NULL : l.items;
}
