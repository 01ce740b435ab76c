#include "main/embedded.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>

#include "base/crypt.h"
#include "base/encode.h"
#include "base/log.h"
#include "exec/sandbox/child.h"
#include "worker/backoff.h"
#include "worker/worker.h"

extern char **environ;

enum {
    KEY_BYTES = 32,
    MAX_ENV = 4096,
    MAX_ARGS = 600,
    HELD_MS = 60000,      /* ran so long: the back-off begins anew */
    UNUSABLE_MS = 300000, /* nothing on this machine that it could use */
    EXIT_SETTINGS = 2,
    GRACE_MS = 10000
};

struct mu_embedded {
    const struct mu_env *env;
    const struct mu_config *conf;
    const struct mu_config_args *args;
    struct mu_loop *loop;
    struct mu_child *child;
    struct mu_timer timer; /* the next start, or the end of the grace */
    struct mu_backoff backoff;
    int64_t started_ms;
    char key[2 * KEY_BYTES + 1], own_pid[24], worker_id[128], state_dir[PATH_MAX], url[512],
        program[PATH_MAX];
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void name_it(struct mu_embedded *e)
{
    char host[65] = "", text[PATH_MAX + 70];
    if (gethostname(host, sizeof host - 1) < 0) {
        host[0] = 0;
    }
    for (char *p = host; *p; p++) {
        if (*p == ',' || *p == '=' || *p <= ' ') {
            *p = '-';
        }
    }
    /* Of this data folder, whatever else runs on the machine or with the database. */
    snprintf(text, sizeof text, "%s|%s", host, e->conf->data_dir);
    struct mu_digest_hex hex = mu_sha256_hex(mu_str(text));
    snprintf(e->worker_id, sizeof e->worker_id, "embedded-%.48s-%.8s", host[0] ? host : "host",
             hex.text);
}

int mu_embedded_new(const struct mu_env *env, const struct mu_config *conf,
                    const struct mu_config_args *args, struct mu_embedded **ret,
                    char **ret_worker_keys)
{
    unsigned char key[KEY_BYTES];
    struct mu_buf keys;
    *ret = NULL;
    *ret_worker_keys = NULL;
    if (!conf->embedded_worker || conf->sandbox_max == 0) {
        return 0;
    }
    struct mu_embedded *e = mu_calloc(1, sizeof *e);
    if (!e) {
        return -ENOMEM;
    }
    e->env = env;
    e->conf = conf;
    e->args = args;
    env->random(env, key, sizeof key);
    mu_hex(key, sizeof key, e->key);
    name_it(e);
    ssize_t n = readlink("/proc/self/exe", e->program, sizeof e->program - 1);
    e->program[MU_MAX(n, 0)] = 0;
    snprintf(e->state_dir, sizeof e->state_dir, "%s/worker", conf->data_dir);
    struct mu_digest_hex hash = mu_sha256_hex(mu_str(e->key));
    mu_buf_init(&keys, 4 << 20);
    mu_buf_printf(&keys, "%s%s%s=%s", conf->worker_keys ? conf->worker_keys : "",
                  conf->worker_keys ? "," : "", e->worker_id, hash.text);
    *ret_worker_keys = keys.failed ? NULL : mu_bytes_dup(mu_buf_bytes(&keys));
    mu_buf_fini(&keys);
    if (!*ret_worker_keys) {
        mu_free(e);
        return -ENOMEM;
    }
    *ret = e;
    return 0;
}

/* --- what it is started with --- */

/* The server's own secrets are none of its business. */
static bool is_secret(const char *pair)
{
    mu_bytes rest = mu_str(pair);
    mu_bytes name = mu_bytes_split(&rest, '=');
    const struct mu_option *o = mu_option_find(mu_config_table, mu_config_table_len, name);
    return (o && o->type == MU_OPT_SECRET) || mu_bytes_is(name, "DATABASE_URL") ||
           mu_bytes_is(name, "TURSO_DATABASE_URL") || mu_bytes_is(name, "OZ_WORKER_KEYS") ||
           mu_bytes_starts(name, MU_B("OZ_PROVIDER_")) || mu_bytes_ends(name, MU_B("_API_KEY"));
}

/* The key goes along in the environment, which only this user can read. */
static void fill_env(struct mu_embedded *e, const char *list[MAX_ENV + 2], char key[256])
{
    size_t n = 0;
    for (char **p = environ; *p && n < MAX_ENV; p++) {
        if (!is_secret(*p)) {
            list[n++] = *p;
        }
    }
    snprintf(key, 256, "OZ_API_KEY=%s", e->key);
    list[n++] = key;
    list[n] = NULL;
}

static void fill_args(struct mu_embedded *e, const char *list[MAX_ARGS], char capacity[24])
{
    const struct mu_config *c = e->conf;
    size_t n = 0;
    snprintf(capacity, 24, "%lld", (long long)c->sandbox_max);
    snprintf(e->own_pid, sizeof e->own_pid, "%ld", (long)getpid());
    const char *const fixed[] = {e->program,
                                 "worker",
                                 "--with-parent",
                                 e->own_pid,
                                 "--keep-running",
                                 "--worker-id",
                                 e->worker_id,
                                 "--state-dir",
                                 e->state_dir,
                                 "--server-root-url",
                                 e->url,
                                 "--capacity",
                                 capacity,
                                 "--sandbox",
                                 c->sandbox_driver,
                                 "--metrics-listen",
                                 "none",
                                 "--log-level",
                                 c->log_level};
    for (size_t i = 0; i < MU_ARRAY_LEN(fixed); i++) {
        list[n++] = fixed[i];
    }
    if (e->args->ini_file) {
        list[n++] = "--config";
        list[n++] = e->args->ini_file;
    }
    for (const char *const *f = e->args->flags; f && *f && n < MAX_ARGS - 3; f++) {
        if (!is_secret(*f)) { /* an argument list is for all to see */
            list[n++] = "--set";
            list[n++] = *f;
        }
    }
    list[n] = NULL;
}

static void launch(struct mu_embedded *e);

static void tell_stopped(struct mu_embedded *e)
{
    void (*fn)(void *) = e->stopped;
    e->stopped = NULL;
    mu_timer_clear(&e->timer);
    if (fn) {
        fn(e->stopped_arg);
    }
}

static void ended(void *arg, int status, bool timed_out MU_UNUSED)
{
    struct mu_embedded *e = arg;
    e->child = NULL;
    if (e->stopping) {
        tell_stopped(e);
        return;
    }
    if (mu_loop_now_ms(e->loop) - e->started_ms >= HELD_MS) {
        e->backoff.failures = 0;
    }
    int64_t delay = mu_backoff_next(&e->backoff, e->env, 1000);
    bool deregistered = status == MU_WORKER_EXIT_DEREGISTERED;
    if (status == EXIT_SETTINGS || deregistered) {
        delay = UNUSABLE_MS;
    }
    mu_log(MU_LOG_WARN, "worker.embedded_ended", MU_KI("exit_code", status),
           MU_KI("again_in_ms", delay),
           MU_KC("note", status == EXIT_SETTINGS ? "`muster doctor` says what is missing; "
                                                   "OZ_EMBEDDED_WORKER=off stops these tries"
                         : deregistered ? "it was deregistered; OZ_EMBEDDED_WORKER=off stops "
                                          "these tries"
                                        : "started again"));
    (void)!mu_timer_set(&e->timer, delay);
}

static void on_timer(struct mu_timer *t)
{
    struct mu_embedded *e = MU_CONTAINER(t, struct mu_embedded, timer);
    if (e->stopping && e->child) {
        mu_child_stop(e->child, true);
    } else if (!e->stopping) {
        launch(e);
    }
}

static void launch(struct mu_embedded *e)
{
    const char **env = mu_alloc((MAX_ENV + 2) * sizeof *env);
    const char *args[MAX_ARGS];
    char key[256], capacity[24];
    int r = -ENOMEM;
    if (env) {
        fill_env(e, env, key);
        fill_args(e, args, capacity);
        const struct mu_child_request req = {.argv = args,
                                             .env = env,
                                             .output_fd = 1, /* one log */
                                             .grace_ms = GRACE_MS,
                                             .leave_group = true,
                                             .done = ended,
                                             .arg = e};
        r = mu_child_start(e->loop, &req, &e->child);
        explicit_bzero(key, sizeof key);
    }
    mu_free(env);
    e->started_ms = mu_loop_now_ms(e->loop);
    if (r < 0) {
        mu_log(MU_LOG_ERROR, "worker.embedded_not_started", MU_KC("err_message", mu_err_text(r)));
        (void)!mu_timer_set(&e->timer, mu_backoff_next(&e->backoff, e->env, 1000));
    }
}

void mu_embedded_start(struct mu_embedded *e, struct mu_loop *core, const char *own_url)
{
    if (!e || e->stopping) {
        return;
    }
    const struct mu_config *c = e->conf;
    bool named = c->tls_cert_file && c->public_url; /* the name that the certificate is for */
    snprintf(e->url, sizeof e->url, "%s", named ? c->public_url : own_url);
    e->loop = core;
    mu_timer_init(&e->timer, core, on_timer);
    launch(e);
}

void mu_embedded_stop(struct mu_embedded *e, int signum, int64_t grace_ms,
                      void (*stopped)(void *arg), void *arg)
{
    if (!e || !e->loop) {
        if (e) {
            e->stopping = true;
        }
        stopped(arg);
        return;
    }
    e->stopping = true;
    e->stopped = stopped;
    e->stopped_arg = arg;
    mu_timer_clear(&e->timer);
    if (!e->child) {
        tell_stopped(e);
        return;
    }
    kill(mu_child_pid(e->child), signum);
    if (mu_timer_set(&e->timer, grace_ms) < 0) {
        mu_child_stop(e->child, true);
    }
}

void mu_embedded_stop_now(struct mu_embedded *e)
{
    if (e && e->child) {
        mu_child_stop(e->child, true);
    }
}

struct mu_embedded *mu_embedded_free(struct mu_embedded *e)
{
    if (e) {
        if (e->loop) {
            mu_timer_clear(&e->timer);
            mu_child_forget(e->child);
        }
        explicit_bzero(e->key, sizeof e->key);
        mu_free(e);
    }
    return NULL;
}
