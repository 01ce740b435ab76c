/* One sandbox through any driver, without a worker: for tests and benchmarks. Settings and the spec
 * are options; what to do comes as lines on stdin (stop, read, release, …); what happens goes to
 * stdout, a JSON object a line. Ends when stdin does and nothing is under way. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <uv.h>

#include "base/encode.h"
#include "exec/sandbox/sandbox.h"
#include "proto/json.h"

enum { MAX_LIST = 256 };

struct run {
    struct mu_loop *loop;
    const struct mu_sandbox_ops *ops;
    struct mu_sandbox_settings settings;
    struct mu_sandbox_spec spec;
    struct mu_sandbox_mount mounts[8];
    const char *env[MAX_LIST], *argv[MAX_LIST], *volumes[MAX_LIST];
    struct mu_sandbox_driver *driver;
    struct mu_sandbox *box;
    uv_pipe_t in;
    char line[4096];
    size_t have;
    unsigned open; /* what will still be told */
    bool eof;
};

static struct mu_buf out;

static struct mu_json_w event(const char *name)
{
    mu_buf_clear(&out);
    struct mu_json_w w = mu_json_w(&out);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "event", name);
    return w;
}

static void say(struct run *r, struct mu_json_w *w)
{
    mu_jw_ki64(w, "ms", mu_env_mono_ms(r->settings.env));
    mu_jw_obj_end(w);
    mu_buf_add_char(&out, '\n');
    MU_CHECK(!out.failed);
    for (size_t at = 0; at < out.len;) {
        ssize_t n = write(1, out.ptr + at, out.len - at);
        MU_CHECK(n > 0);
        at += (size_t)n;
    }
}

static void maybe_over(struct run *r)
{
    if (r->eof && r->open == 0 && !r->box) {
        mu_loop_stop(r->loop);
    }
}

static void key_opt(struct mu_json_w *w, const char *key, const char *text)
{
    mu_jw_kstr_opt(w, key, mu_str(text));
}

/* --- events --- */

static void on_state(void *arg, const char *state, const char *detail)
{
    struct mu_json_w w = event("state");
    mu_jw_kcstr(&w, "state", state);
    key_opt(&w, "detail", detail);
    say(arg, &w);
}

static void on_log(void *arg, int64_t offset, mu_bytes bytes)
{
    struct mu_json_w w = event("log");
    struct mu_buf b64;
    mu_buf_init(&b64, 32 << 20);
    mu_base64_add(&b64, bytes);
    mu_jw_ki64(&w, "offset", offset);
    mu_jw_kstr(&w, "data", mu_buf_bytes(&b64));
    say(arg, &w);
    mu_buf_fini(&b64);
}

static void on_ended(void *arg, const struct mu_sandbox_result *res)
{
    struct mu_json_w w = event("ended");
    mu_jw_ki64(&w, "exit_code", res->exit_code);
    mu_jw_kbool(&w, "oom", res->oom);
    key_opt(&w, "reason", res->failure_reason);
    key_opt(&w, "message", res->message);
    say(arg, &w);
}

static void on_file(void *arg, int result, mu_bytes bytes)
{
    struct run *r = arg;
    struct mu_json_w w = event("file");
    struct mu_buf b64;
    mu_buf_init(&b64, 128 << 20);
    mu_base64_add(&b64, bytes);
    mu_jw_kcstr(&w, "result", result == 0 ? "ok" : mu_err_text(result));
    mu_jw_kstr(&w, "data", mu_buf_bytes(&b64));
    say(r, &w);
    mu_buf_fini(&b64);
    r->open--;
    maybe_over(r);
}

static void on_released(void *arg)
{
    struct run *r = arg;
    struct mu_json_w w = event("released");
    say(r, &w);
    r->open--;
    maybe_over(r);
}

static void on_swept(void *arg, size_t removed)
{
    struct run *r = arg;
    struct mu_json_w w = event("swept");
    mu_jw_ki64(&w, "removed", (int64_t)removed);
    say(r, &w);
    r->open--;
    maybe_over(r);
}

static void on_report(void *arg, const struct mu_sandbox_report *report)
{
    struct run *r = arg;
    struct mu_json_w w = event("report");
    mu_jw_kcstr(&w, "strength", report->strength);
    mu_jw_kcstr(&w, "summary", report->summary);
    mu_jw_kbool(&w, "usable", report->usable);
    mu_jw_key(&w, "layers");
    mu_jw_obj(&w);
    for (size_t i = 0; i < report->n_layers; i++) {
        mu_jw_kbool(&w, report->layers[i].name, report->layers[i].active);
    }
    mu_jw_obj_end(&w);
    say(r, &w);
    r->open--;
    maybe_over(r);
}

static const struct mu_sandbox_events events = {on_state, on_log, on_ended};

/* --- commands --- */

static void failed(struct run *r, const char *what, int code)
{
    struct mu_json_w w = event("failed");
    mu_jw_kcstr(&w, "what", what);
    mu_jw_kcstr(&w, "error", mu_err_text(code));
    say(r, &w);
}

static void start(struct run *r, int64_t adopt_from)
{
    int e = adopt_from >= 0
                ? r->ops->adopt(r->driver, r->spec.execution_id, adopt_from, &events, r, &r->box)
                : r->ops->start(r->driver, &r->spec, &events, r, &r->box);
    if (e < 0) {
        failed(r, "start", e);
    }
}

static void sweep(struct run *r, mu_bytes keep)
{
    char *one = mu_bytes_dup(keep);
    const char *list[] = {one, NULL};
    r->open++;
    r->ops->sweep(r->driver, list, keep.len ? 1 : 0, on_swept, r);
    mu_free(one);
}

static void with_box(struct run *r, mu_bytes word, mu_bytes rest)
{
    static const char *reasons[] = {"task_cancelled", "graceful_shutdown"};
    if (mu_bytes_is(word, "stop")) {
        r->ops->stop(r->box, mu_bytes_is(rest, "graceful"), reasons[0]);
    } else if (mu_bytes_is(word, "read")) {
        int64_t max = 1 << 20;
        mu_bytes path = mu_bytes_split(&rest, ' ');
        MU_CHECK(rest.len == 0 || mu_bytes_i64(rest, &max) == 0);
        char *p = mu_bytes_dup(path);
        r->open++;
        r->ops->read_file(r->box, p, (size_t)max, on_file, r);
        mu_free(p);
    } else if (mu_bytes_is(word, "release")) {
        struct mu_sandbox *box = r->box;
        r->box = NULL;
        r->open++;
        r->ops->release(box, on_released, r);
    } else if (mu_bytes_is(word, "detach")) {
        r->ops->detach(r->box);
        r->box = NULL;
        struct mu_json_w w = event("detached");
        say(r, &w);
    } else {
        failed(r, "command", MU_E_INVALID);
    }
}

static void command(struct run *r, mu_bytes line)
{
    mu_bytes rest = line, word = mu_bytes_split(&rest, ' ');
    int64_t from;
    if (mu_bytes_is(word, "start")) {
        start(r, -1);
    } else if (mu_bytes_is(word, "adopt") && mu_bytes_i64(rest, &from) == 0) {
        start(r, from);
    } else if (mu_bytes_is(word, "sweep")) {
        sweep(r, rest);
    } else if (mu_bytes_is(word, "check")) {
        r->open++;
        MU_CHECK(r->ops->check(r->driver, on_report, r) == 0);
    } else if (r->box) {
        with_box(r, word, rest);
    } else {
        failed(r, "no sandbox", MU_E_NOT_FOUND);
    }
}

static void room(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
    struct run *r = h->data;
    (void)suggested;
    *ret = uv_buf_init(r->line + r->have, (unsigned)(sizeof r->line - r->have));
}

static void on_input(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct run *r = s->data;
    (void)buf;
    if (n < 0) {
        uv_close((uv_handle_t *)s, NULL);
        r->eof = true;
        if (r->box) { /* whoever asked is gone */
            r->ops->detach(r->box);
            r->box = NULL;
        }
        maybe_over(r);
        return;
    }
    r->have += (size_t)n;
    char *nl;
    while ((nl = memchr(r->line, '\n', r->have))) {
        size_t len = (size_t)(nl - r->line);
        command(r, mu_bytes_of(r->line, len));
        r->have -= len + 1;
        memmove(r->line, nl + 1, r->have);
    }
}

/* --- options --- */

static void add(const char **list, const char *text)
{
    size_t n = 0;
    while (list[n]) {
        n++;
    }
    MU_CHECK(n + 1 < MAX_LIST);
    list[n] = text;
}

static int64_t number(const char *text)
{
    int64_t n;
    MU_CHECK(mu_bytes_i64(mu_str(text), &n) == 0);
    return n;
}

static void add_mount(struct run *r, char *text, bool image)
{
    char *to = strrchr(text, '=');
    MU_CHECK(to && r->spec.n_mounts < MU_ARRAY_LEN(r->mounts));
    *to = 0;
    r->mounts[r->spec.n_mounts++] =
        (struct mu_sandbox_mount){.source = text, .target = to + 1, .image = image};
}

static mu_bytes whole_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    static char text[8 << 20];
    MU_CHECK(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    return mu_bytes_of(text, n);
}

static const struct mu_sandbox_ops *driver_named(const char *name)
{
    static const struct mu_sandbox_ops *const all[] = {
#ifdef HAVE_NAMESPACE
        &mu_sandbox_namespace,
#endif
#ifdef HAVE_DIRECT
        &mu_sandbox_direct,
#endif
#ifdef HAVE_COMMAND
        &mu_sandbox_command,
#endif
        &mu_sandbox_docker,
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(all); i++) {
        if (!strcmp(all[i]->name, name)) {
            return all[i];
        }
    }
    fprintf(stderr, "no driver '%s' in this build\n", name);
    exit(2);
}

enum word {
    DRIVER = 1000,
    HOST,
    BUNDLE,
    STATE,
    WORKER,
    KEEP,
    PULL,
    NETWORK,
    VOLUME,
    SECRETS, /* settings */
    EXECUTION,
    TASK,
    IMAGE,
    SIDECAR,
    ENV,
    PROMPT,
    MOUNT,
    MOUNT_IMAGE,
    TIMEOUT,
    GRACE,
    MEMORY,
    PIDS,
    LOG_BYTES,
    NET,
    CPUS,
};

static const struct option words[] = {{"driver", 1, NULL, DRIVER},
                                      {"host", 1, NULL, HOST},
                                      {"bundle", 1, NULL, BUNDLE},
                                      {"state", 1, NULL, STATE},
                                      {"worker", 1, NULL, WORKER},
                                      {"keep", 0, NULL, KEEP},
                                      {"pull", 1, NULL, PULL},
                                      {"task-network", 1, NULL, NETWORK},
                                      {"volume", 1, NULL, VOLUME},
                                      {"secret-files", 0, NULL, SECRETS},
                                      {"execution", 1, NULL, EXECUTION},
                                      {"task", 1, NULL, TASK},
                                      {"image", 1, NULL, IMAGE},
                                      {"sidecar", 1, NULL, SIDECAR},
                                      {"env", 1, NULL, ENV},
                                      {"prompt", 1, NULL, PROMPT},
                                      {"mount", 1, NULL, MOUNT},
                                      {"mount-image", 1, NULL, MOUNT_IMAGE},
                                      {"timeout", 1, NULL, TIMEOUT},
                                      {"grace", 1, NULL, GRACE},
                                      {"memory", 1, NULL, MEMORY},
                                      {"pids", 1, NULL, PIDS},
                                      {"log-bytes", 1, NULL, LOG_BYTES},
                                      {"net", 1, NULL, NET},
                                      {"cpus", 1, NULL, CPUS},
                                      {NULL, 0, NULL, 0}};

static void option_of_spec(struct run *r, int c, char *v)
{
    struct mu_sandbox_spec *spec = &r->spec;
    switch (c) {
    case EXECUTION:
        spec->execution_id = v;
        break;
    case TASK:
        spec->task_id = v;
        break;
    case IMAGE:
        spec->image = v;
        break;
    case SIDECAR:
        spec->sidecar_image = v;
        break;
    case ENV:
        add(r->env, v);
        break;
    case PROMPT:
        spec->prompt = whole_file(v);
        break;
    case MOUNT:
        add_mount(r, v, false);
        break;
    case MOUNT_IMAGE:
        add_mount(r, v, true);
        break;
    case TIMEOUT:
        spec->timeout_ms = number(v);
        break;
    case GRACE:
        spec->stop_grace_ms = number(v);
        break;
    case MEMORY:
        spec->memory_bytes = number(v);
        break;
    case PIDS:
        spec->pids = number(v);
        break;
    case LOG_BYTES:
        spec->log_bytes = number(v);
        break;
    case CPUS:
        spec->cpus = (double)number(v);
        break;
    case NET:
        spec->network = !strcmp(v, "none")   ? MU_NET_NONE
                        : !strcmp(v, "host") ? MU_NET_HOST
                                             : MU_NET_PROXY;
        break;
    default:
        exit(2);
    }
}

static void option(struct run *r, int c, char *v)
{
    struct mu_sandbox_settings *set = &r->settings;
    switch (c) {
    case DRIVER:
        r->ops = driver_named(v);
        break;
    case HOST:
        set->docker_host = v;
        break;
    case BUNDLE:
        set->bundle_dir = v;
        break;
    case STATE:
        set->state_dir = v;
        break;
    case WORKER:
        set->worker_id = v;
        break;
    case KEEP:
        set->keep = true;
        break;
    case PULL:
        set->pull = v;
        break;
    case NETWORK:
        set->task_network = v;
        break;
    case VOLUME:
        add(r->volumes, v);
        break;
    case SECRETS:
        set->secret_files = true;
        break;
    default:
        option_of_spec(r, c, v);
        break;
    }
}

int main(int argc, char **argv)
{
    static struct run r = {.ops = &mu_sandbox_docker};
    struct mu_err err = {0};
    int c;
    r.settings = (struct mu_sandbox_settings){.env = &mu_env_real,
                                              .worker_id = "worker-1",
                                              .state_dir = "/nonexistent",
                                              .bundle_dir = "/nonexistent",
                                              .allow_direct = true,
                                              .volumes = r.volumes};
    r.spec = (struct mu_sandbox_spec){.execution_id = "exec_1",
                                      .task_id = "run_1",
                                      .env = r.env,
                                      .argv = r.argv,
                                      .mounts = r.mounts};
    while ((c = getopt_long(argc, argv, "", words, NULL)) != -1) {
        option(&r, c, optarg);
    }
    for (int i = optind; i < argc; i++) {
        add(r.argv, argv[i]);
    }
    mu_buf_init(&out, 256 << 20);
    MU_CHECK(mu_loop_new(&mu_env_real, "sandbox-run", &r.loop) == 0);
    if (r.ops->open(r.loop, &r.settings, &r.driver, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        r.loop = mu_loop_free(r.loop);
        return 1;
    }
    uv_pipe_init(mu_loop_uv(r.loop), &r.in, 0);
    r.in.data = &r;
    MU_CHECK(uv_pipe_open(&r.in, 0) == 0);
    MU_CHECK(uv_read_start((uv_stream_t *)&r.in, room, on_input) == 0);
    mu_loop_run(r.loop);
    r.driver = r.ops->close(r.driver);
    r.loop = mu_loop_free(r.loop);
    mu_buf_fini(&out);
    return 0;
}
