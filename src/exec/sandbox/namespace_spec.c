/* From a task and the settings to the file `spec`: limits, variables, mounts. */
#include <errno.h>
#include <stdio.h>

#include "exec/sandbox/fd3.h"
#include "exec/sandbox/namespace_int.h"

enum {
    SPEC_ARENA = 2 * MU_BOX_SPEC_MAX,
    DEFAULT_PIDS = 1024,
    MIN_BYTES = 1 << 20,
};
static const int64_t default_disk = 10LL << 30, default_shm = 1LL << 30;

struct builder {
    struct mu_sandbox_driver *d;
    const struct mu_sandbox_spec *spec;
    struct mu_arena arena;
    struct mu_box box;
    size_t cap_env;
    int failed;
};

static const char *text(struct builder *b, const char *s)
{
    const char *copy = mu_arena_dup(&b->arena, mu_str(s)).ptr;
    b->failed = copy ? b->failed : -ENOMEM;
    return copy;
}

static void *array(struct builder *b, size_t n, size_t size)
{
    void *p = mu_arena_calloc(&b->arena, (n + 1) * size);
    b->failed = p ? b->failed : -ENOMEM;
    return p;
}

/* --- variables: ours first, the task's win --- */

static void put_env(struct builder *b, const char *pair)
{
    struct mu_box *box = &b->box;
    const char *eq = pair ? strchr(pair, '=') : NULL;
    if (!eq || b->failed) {
        b->failed = pair ? b->failed : -ENOMEM;
        return;
    }
    size_t name = (size_t)(eq - pair) + 1;
    for (size_t i = 0; i < box->n_env; i++) {
        if (strncmp(box->env[i], pair, name) == 0) {
            box->env[i] = pair;
            return;
        }
    }
    if (box->n_env < b->cap_env) {
        box->env[box->n_env++] = pair;
    }
}

static void put_path(struct builder *b)
{
    struct mu_buf path;
    mu_buf_init(&path, 16 << 10);
    mu_buf_add_str(&path, "PATH=");
    for (size_t i = 0; i < b->box.n_harnesses; i++) {
        mu_buf_printf(&path, "/opt/harness/%s/bin:", b->box.harnesses[i].name);
    }
    mu_buf_add_str(&path, "/home/agent/.local/bin:/home/agent/.npm-global/bin:"
                          "/home/agent/.cargo/bin:/home/agent/go/bin:/usr/local/sbin:"
                          "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    b->failed = path.failed ? path.failed : b->failed;
    put_env(b, path.failed ? NULL : mu_arena_dup(&b->arena, mu_buf_bytes(&path)).ptr);
    mu_buf_fini(&path);
}

static void put_proxy(struct builder *b)
{
    static const char *const vars[] = {
        "HTTPS_PROXY=http://127.0.0.1:3128",
        "HTTP_PROXY=http://127.0.0.1:3128",
        "https_proxy=http://127.0.0.1:3128",
        "http_proxy=http://127.0.0.1:3128",
        "NO_PROXY=localhost,127.0.0.1,::1",
        "no_proxy=localhost,127.0.0.1,::1",
        "NODE_USE_ENV_PROXY=1",
        "GLOBAL_AGENT_HTTP_PROXY=http://127.0.0.1:3128",
        "GLOBAL_AGENT_HTTPS_PROXY=http://127.0.0.1:3128",
        "npm_config_proxy=http://127.0.0.1:3128",
        "npm_config_https_proxy=http://127.0.0.1:3128",
        "PIP_PROXY=http://127.0.0.1:3128",
        "CARGO_HTTP_PROXY=http://127.0.0.1:3128",
        ("JAVA_TOOL_OPTIONS=-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=3128 "
         "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=3128"),
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(vars); i++) {
        put_env(b, vars[i]);
    }
}

static void put_variables(struct builder *b, int64_t rung, bool proxy)
{
    static const char *const vars[] = {
        "HOME=/home/agent",
        "TMPDIR=/tmp",
        "USER=agent",
        "LOGNAME=agent",
        "SHELL=/bin/bash",
        "LANG=C.UTF-8",
        MU_FD3_ENV "=3",
        /* Installing goes into the home folder: nothing else is writable. */
        "NPM_CONFIG_PREFIX=/home/agent/.npm-global",
        "PYTHONUSERBASE=/home/agent/.local",
        "CARGO_HOME=/home/agent/.cargo",
        "GOPATH=/home/agent/go",
    };
    size_t n = 0;
    while (b->spec->env && b->spec->env[n]) {
        n++;
    }
    b->cap_env = n + 64;
    b->box.env = array(b, b->cap_env, sizeof *b->box.env);
    if (!b->box.env) {
        return;
    }
    put_path(b);
    for (size_t i = 0; i < MU_ARRAY_LEN(vars); i++) {
        put_env(b, vars[i]);
    }
    if (rung == MU_RUNG_LANDLOCK) { /* no tree of its own: the host's names */
        const char *s = b->d->state, *id = b->spec->execution_id;
        put_env(b, mu_arena_printf(&b->arena, "HOME=%s/%s/home", s, id).ptr);
        put_env(b, mu_arena_printf(&b->arena, "TMPDIR=%s/%s/tmp", s, id).ptr);
        put_env(b, mu_arena_printf(&b->arena, "MUSTER_WORKSPACE=%s/%s/workspace", s, id).ptr);
    }
    if (proxy) {
        put_proxy(b);
    }
    for (size_t i = 0; i < n; i++) {
        put_env(b, b->spec->env[i]);
    }
}

/* --- lists --- */

static void put_argv(struct builder *b)
{
    size_t n = 0;
    while (b->spec->argv && b->spec->argv[n]) {
        n++;
    }
    const char **argv = array(b, n + 2, sizeof *argv);
    if (argv) {
        argv[0] = "muster";
        argv[1] = "runner";
        memcpy(argv + 2, b->spec->argv, n * sizeof *argv);
        b->box.argv = argv;
        b->box.n_argv = n + 2;
    }
}

/* "SOURCE[:TARGET][:ro|:rw]", separated by commas. */
static void parse_mount(struct builder *b, mu_bytes entry)
{
    mu_bytes parts[3] = {MU_B_NONE, MU_B_NONE, MU_B_NONE};
    size_t n = 0;
    while (entry.ptr && n < 3) {
        parts[n++] = mu_bytes_split(&entry, ':');
    }
    bool writable = mu_bytes_is(parts[n - 1], "rw");
    if (writable || mu_bytes_is(parts[n - 1], "ro")) {
        n--;
    }
    if (n == 0 || parts[0].len == 0) {
        return;
    }
    mu_bytes target = n > 1 ? parts[1] : parts[0];
    struct mu_box_mount *m = &b->box.mounts[b->box.n_mounts++];
    m->source = mu_arena_dup(&b->arena, parts[0]).ptr;
    m->target = mu_arena_dup(&b->arena, target).ptr;
    m->writable = writable;
    b->failed = m->source && m->target ? b->failed : -ENOMEM;
}

static size_t count(const char *list)
{
    size_t n = list && *list ? 1 : 0;
    for (; list && *list; list++) {
        n += *list == ',';
    }
    return n;
}

static void put_mounts(struct builder *b)
{
    const struct mu_sandbox_settings *set = &b->d->settings;
    size_t n = b->spec->n_mounts + count(set->extra_ro);
    b->box.mounts = array(b, n, sizeof *b->box.mounts);
    mu_bytes rest = mu_str(set->extra_ro);
    while (b->box.mounts && rest.ptr && rest.len) {
        mu_bytes entry = mu_bytes_trim(mu_bytes_split(&rest, ','));
        if (entry.len) {
            parse_mount(b, entry);
        }
    }
    for (size_t i = 0; b->box.mounts && i < b->spec->n_mounts; i++) {
        const struct mu_sandbox_mount *m = &b->spec->mounts[i];
        if (!m->image) {
            b->box.mounts[b->box.n_mounts++] =
                (struct mu_box_mount){m->source, m->target, m->writable};
        }
    }
}

static void put_etc(struct builder *b)
{
    const char *list = b->d->settings.extra_etc;
    b->box.etc = array(b, count(list), sizeof *b->box.etc);
    mu_bytes rest = mu_str(list);
    while (b->box.etc && rest.ptr && rest.len) {
        mu_bytes entry = mu_bytes_trim(mu_bytes_split(&rest, ','));
        const char *copy = mu_arena_dup(&b->arena, entry).ptr;
        b->failed = copy ? b->failed : -ENOMEM;
        if (copy && *copy) {
            b->box.etc[b->box.n_etc++] = copy;
        }
    }
}

static void put_checkouts(struct builder *b)
{
    size_t n = b->spec->n_checkouts;
    b->box.checkouts = array(b, n, sizeof *b->box.checkouts);
    for (size_t i = 0; b->box.checkouts && i < n; i++) {
        const struct mu_sandbox_checkout *c = &b->spec->checkouts[i];
        b->box.checkouts[b->box.n_checkouts++] = (struct mu_box_checkout){
            c->tree ? c->tree : "", c->subdir ? c->subdir : "", c->objects ? c->objects : ""};
    }
}

static void put_harnesses(struct builder *b)
{
    const char *const *h = b->d->settings.harness_paths;
    size_t n = 0;
    while (h && h[n] && h[n + 1]) {
        n += 2;
    }
    b->box.harnesses = array(b, n / 2, sizeof *b->box.harnesses);
    for (size_t i = 0; b->box.harnesses && i < n; i += 2) {
        b->box.harnesses[b->box.n_harnesses++] = (struct mu_box_harness){h[i], h[i + 1]};
    }
}

static void put_ports(struct builder *b)
{
    uint16_t ports[MU_FD3_PORTS];
    struct mu_broker *broker = b->d->settings.broker;
    size_t n = broker ? mu_broker_ports(broker, ports, MU_FD3_PORTS) : 0;
    b->box.ports = array(b, n, sizeof *b->box.ports);
    for (size_t i = 0; b->box.ports && i < n; i++) {
        b->box.ports[b->box.n_ports++] = ports[i];
    }
}

/* --- all --- */

static int64_t first_of(int64_t a, int64_t b, int64_t c)
{
    return a > 0 ? a : b > 0 ? b : c;
}

static int check_rights(struct builder *b, struct mu_err *err)
{
    const struct mu_sandbox_settings *set = &b->d->settings;
    if (b->spec->nested && !set->allow_nested) {
        return mu_err_set(err, MU_E_FORBIDDEN, "this worker allows no nested sandboxes");
    }
    if (b->spec->network == MU_NET_HOST && !set->allow_host_network) {
        return mu_err_set(err, MU_E_FORBIDDEN, "this worker does not share its network");
    }
    for (size_t i = 0; i < b->spec->n_checkouts; i++) {
        const char *sub = b->spec->checkouts[i].subdir;
        if (sub && (*sub == '/' || strstr(sub, "..") || strlen(sub) > 512)) {
            return mu_err_set(err, MU_E_INVALID, "checkout folder %.100s", sub);
        }
    }
    return 0;
}

static void put_numbers(struct builder *b, int64_t rung)
{
    const struct mu_sandbox_settings *set = &b->d->settings;
    const struct mu_sandbox_spec *spec = b->spec;
    struct mu_box *box = &b->box;
    double cpus = spec->cpus > 0 ? spec->cpus : set->cpus;
    box->rung = rung;
    box->epoch = spec->epoch;
    box->network = spec->network;
    box->nested = spec->nested;
    box->fake_root = spec->fake_root;
    box->memory_bytes = first_of(spec->memory_bytes, set->memory_bytes, 0);
    box->pids = first_of(spec->pids, set->pids, DEFAULT_PIDS);
    box->cpu_milli = cpus > 0 && cpus < 100000 ? (int64_t)(cpus * 1000) : 0;
    box->disk_bytes =
        MU_MAX(first_of(spec->disk_bytes, set->disk_bytes, default_disk), (int64_t)MIN_BYTES);
    box->shm_bytes =
        MU_MAX(first_of(spec->shm_bytes, set->shm_bytes, default_shm), (int64_t)MIN_BYTES);
    box->log_bytes = spec->log_bytes;
    box->timeout_ms = spec->timeout_ms;
    box->grace_ms = spec->stop_grace_ms > 0 ? spec->stop_grace_ms : 10000;
    box->without = b->d->self_test_without;
}

int mu_ns_spec(struct mu_sandbox_driver *d, const struct mu_sandbox_spec *spec, int64_t rung,
               struct mu_buf *ret, struct mu_err *err)
{
    struct builder b = {.d = d, .spec = spec};
    int r = check_rights(&b, err);
    if (r < 0) {
        return r;
    }
    mu_arena_init(&b.arena, SPEC_ARENA);
    b.box.id = spec->execution_id;
    b.box.worker_id = text(&b, d->settings.worker_id ? d->settings.worker_id : "");
    b.box.bundle = d->bundle;
    b.box.base = spec->base ? spec->base : d->settings.base ? d->settings.base : "";
    if (strcmp(b.box.base, "host") == 0) {
        b.box.base = "";
    }
    put_numbers(&b, rung);
    put_argv(&b);
    put_harnesses(&b);
    put_mounts(&b);
    put_etc(&b);
    put_checkouts(&b);
    if (spec->network == MU_NET_PROXY) {
        put_ports(&b);
    }
    put_variables(&b, rung, b.box.n_ports > 0);
    r = b.failed;
    if (r == 0) {
        mu_box_write(&b.box, ret);
        r = ret->failed;
    }
    mu_arena_fini(&b.arena);
    return r;
}
