/* The server's life: start, reload, stop (oz-api.md 10, 11). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/statvfs.h>

#include "base/log.h"
#include "main/server.h"

enum { DISK_MS = 5000, HARD_LIMIT_MS = 25000, DRAIN_MS = 1000, RETIRED_MS = 3600000 };

/* --- the disk --- */

static void check_disk(struct mu_timer *t)
{
    struct mu_server *s = MU_CONTAINER(t, struct mu_server, disk_timer);
    struct statvfs v;
    if (s->conf->disk_min_free_mb > 0 && statvfs(s->conf->data_dir, &v) == 0) {
        uint64_t free_mb = (uint64_t)v.f_bavail * v.f_frsize >> 20;
        bool low = free_mb < (uint64_t)s->conf->disk_min_free_mb;
        if (low != atomic_load(&s->disk_low)) {
            mu_log(low ? MU_LOG_ERROR : MU_LOG_INFO, low ? "disk.nearly_full" : "disk.recovered",
                   MU_KI("free_mb", (int64_t)free_mb),
                   MU_KI("threshold_mb", s->conf->disk_min_free_mb));
        }
        atomic_store(&s->disk_low, low);
    }
    (void)!mu_timer_set(t, DISK_MS);
}

/* --- stop --- */

static void finish(struct mu_server *s, int code)
{
    pthread_mutex_lock(&s->lock);
    s->over = true;
    s->exit_code = code;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void drained(void *arg)
{
    mu_fleet_close(((struct mu_server *)arg)->fleet);
    finish(arg, 0);
}

static void cut_off(struct mu_timer *t MU_UNUSED)
{
    mu_log(MU_LOG_ERROR, "shutdown.cut_off", MU_KI("after_ms", HARD_LIMIT_MS));
    _exit(0); /* what was acknowledged is on the disk; the rest is found by the recovery of the next
                 start */
}

static void runs_stopped(void *arg)
{
    struct mu_server *s = arg;
    mu_http_server_drain(s->http, DRAIN_MS, drained, s);
}

static void sweeper_stopped(void *arg)
{
    struct mu_server *s = arg;
    int64_t grace = s->signals > 1 ? 0 : s->conf->shutdown_grace_ms;
    mu_dispatch_stop(s->dispatch, grace, runs_stopped, s);
}

static void schedules_stopped(void *arg)
{
    struct mu_server *s = arg;
    mu_sweeper_stop(s->sweeper, sweeper_stopped, s);
}

static void worker_stopped(void *arg)
{
    struct mu_server *s = arg;
    mu_schedules_stop(s->schedules, schedules_stopped, s);
}

static void on_stop(void *arg, int signum)
{
    struct mu_server *s = arg;
    if (++s->signals > 1) {
        mu_embedded_stop_now(s->embedded);
        mu_dispatch_stop(s->dispatch, 0, runs_stopped, s); /* the grace ends now */
        return;
    }
    mu_log(MU_LOG_INFO, "shutdown.start", MU_KC("signal", signum == SIGINT ? "SIGINT" : "SIGTERM"));
    mu_notify("STOPPING=1");
    mu_api_set_stopping(s->api);
    if (!atomic_load(&s->ready)) {
        finish(s, 0); /* nothing runs yet */
        return;
    }
    mu_timer_init(&s->hard_limit, s->loops[0], cut_off);
    (void)!mu_timer_set(&s->hard_limit, HARD_LIMIT_MS);
    /* First, while its last words are still heard. */
    mu_embedded_stop(s->embedded, signum, s->conf->shutdown_grace_ms, worker_stopped, s);
}

/* --- reload --- */

/* Frees the configurations that were replaced so long ago that nothing can refer to them any more:
 * a call copies what it needs, a request or a unit of work is over much sooner. */
static void free_retired(struct mu_server *s, int64_t now_ms)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_retired; i++) {
        if (now_ms - s->retired[i].at_ms >= RETIRED_MS) {
            mu_config_free(s->retired[i].conf);
        } else {
            s->retired[n++] = s->retired[i];
        }
    }
    s->n_retired = n;
}

static void replace_conf(struct mu_server *s, struct mu_config *next, int64_t now_ms)
{
    if (s->conf != s->first_conf) {
        s->retired[s->n_retired++] = (struct mu_retired_config){s->conf, now_ms};
    }
    s->conf = next;
}

static int reload(struct mu_server *s, struct mu_err *err)
{
    int64_t now = mu_env_mono_ms(s->env);
    free_retired(s, now);
    if (s->n_retired == MU_MAX_RETIRED) {
        return mu_err_set(err, MU_E_LIMIT, "more than %d reloads within an hour", MU_MAX_RETIRED);
    }
    struct mu_config *next = NULL;
    struct mu_buf warnings;
    bool made = false;
    mu_buf_init(&warnings, 1 << 20);
    int r = mu_config_load(s->args, &next, &warnings, err);
    mu_buf_fini(&warnings);
    if (r == 0) {
        r = mu_config_first_start(next, s->env, &made, err);
    }
    if (r == 0) {
        r = mu_config_discover(next, getenv("PATH"), err);
    }
    if (r == 0) {
        r = mu_identity_reload(s->identity, next->admin_key, err);
    }
    if (r == 0 && next->tls_cert_file) {
        r = mu_http_server_reload_tls(s->http, err);
    }
    if (r == 0) {
        r = mu_providers_reload(s->providers, &next->provider_list, &next->providers);
        if (r < 0) {
            mu_err_set(err, r, "providers: %s", mu_err_text(r));
        }
    }
    if (r < 0) {
        mu_config_free(next);
        return r;
    }
    mu_dispatch_reload(s->dispatch, &next->providers);
    mu_schedules_reload(s->schedules, &next->providers);
    atomic_store(&s->oz.settings, &next->providers);
    mu_server_log_setup(s->env, next);
    replace_conf(s, next, now);
    return 0;
}

static void on_reload(void *arg, int signum MU_UNUSED)
{
    struct mu_server *s = arg;
    struct mu_err err = {0};
    mu_notify("RELOADING=1");
    if (reload(s, &err) < 0) {
        mu_log(MU_LOG_ERROR, "reload.failed", MU_KC("err_message", err.text));
    } else {
        mu_log(MU_LOG_INFO, "reload.done");
    }
    mu_notify("READY=1");
}

/* --- start --- */

static void expired(void *arg, mu_bytes session_id)
{
    struct mu_server *s = arg;
    mu_dispatch_expired(s->dispatch, session_id);
}

static void file_gone(void *arg, mu_bytes file_id)
{
    struct mu_server *s = arg;
    mu_files_remove(s->files, file_id);
}

static int listen_all(struct mu_server *s, struct mu_err *err)
{
    const struct mu_config *c = s->conf;
    struct mu_http_listen l = {.host = c->host,
                               .port = (unsigned)c->port,
                               .fd = s->n_inherited ? s->inherited[0] : -1,
                               .listener_arg = NULL,
                               .tls_cert_file = c->tls_cert_file,
                               .tls_key_file = c->tls_key_file};
    int r = mu_http_server_listen(s->http, &l, &s->port, err);
    if (r < 0 || !c->metrics_listen || strcmp(c->metrics_listen, "off") == 0) {
        return r;
    }
    char host[256];
    mu_bytes text = mu_str(c->metrics_listen);
    ptrdiff_t colon = -1;
    for (size_t i = 0; i < text.len; i++) {
        colon = text.ptr[i] == ':' ? (ptrdiff_t)i : colon;
    }
    int64_t port = 0;
    if (colon < 0 || mu_bytes_i64(mu_bytes_from(text, (size_t)colon + 1), &port) < 0 || port < 0 ||
        port > 65535) {
        return mu_err_set(err, MU_E_INVALID, "OZ_METRICS_LISTEN must be host:port");
    }
    snprintf(host, sizeof host, "%.*s", (int)colon, text.ptr);
    s->metrics_listener.probes_only = true;
    unsigned got;
    l = (struct mu_http_listen){
        .host = host, .port = (unsigned)port, .fd = -1, .listener_arg = &s->metrics_listener};
    return mu_http_server_listen(s->http, &l, &got, err);
}

static void own_url(const struct mu_server *s, char *dst, size_t size)
{
    bool any = strcmp(s->conf->host, "0.0.0.0") == 0 || strcmp(s->conf->host, "::") == 0;
    bool v6 = !any && strchr(s->conf->host, ':');
    snprintf(dst, size, "%s://%s%s%s:%u", s->conf->tls_cert_file ? "https" : "http", v6 ? "[" : "",
             any ? "127.0.0.1" : s->conf->host, v6 ? "]" : "", s->port);
}

/* How the command line finds the server of this data folder. */
static void write_address(const struct mu_server *s)
{
    char path[1100], tmp[1100], url[300], text[400];
    snprintf(path, sizeof path, "%s/server.json", s->conf->data_dir);
    snprintf(tmp, sizeof tmp, "%s/server.json.tmp", s->conf->data_dir);
    own_url(s, url, sizeof url);
    int n = snprintf(text, sizeof text, "{\"url\":\"%s\",\"pid\":%d}\n", url, (int)getpid());
    MU_AUTO_CLOSE int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write(fd, text, (size_t)n) != n || rename(tmp, path) < 0) {
        mu_log(MU_LOG_WARN, "startup.no_address_file", MU_KC("path", path),
               MU_KC("err_message", strerror(errno)));
    }
}

static void greet(const struct mu_server *s)
{
    const struct mu_config *c = s->conf;
    for (size_t i = 0; i < c->provider_list.n; i++) {
        const struct mu_provider_conf *p = &c->provider_list.items[i];
        if (p->discovered) {
            mu_log(MU_LOG_INFO, "provider.discovered", MU_KC("provider_key", p->key),
                   MU_KC("found", p->found),
                   MU_KC("note", "serves the admin key only until it is configured"));
        }
    }
    if (geteuid() == 0) {
        mu_log(
            MU_LOG_WARN, "startup.root",
            MU_KC("note",
                  "running as root: agents started here are root too; a user of its own is safer"));
    }
    if (c->cors_origin && strcmp(c->cors_origin, "*") == 0) {
        mu_log(MU_LOG_WARN, "startup.cors_any",
               MU_KC("note", "OZ_CORS_ORIGIN=*: any web page may call this API"));
    }
    if (!isatty(1) || !c->admin_key) {
        return;
    }
    if (s->new_admin_key) {
        printf("\nMuster is ready at http://%s:%u\n  admin key (shown once; kept in %s/admin.key): "
               "%s\n\n",
               c->host, s->port, c->data_dir, c->admin_key);
    } else {
        printf("\nMuster is ready at http://%s:%u\n\n", c->host, s->port);
    }
    fflush(stdout);
}

static void recovered(void *arg)
{
    struct mu_server *s = arg;
    struct mu_err err = {0};
    if (s->signals) { /* told to stop before it was ready */
        return;
    }
    const struct mu_sweeper_opts so = {.sessions = s->sessions,
                                       .core = s->loops[0],
                                       .retention_interval_ms = s->conf->retention_sweep_ms,
                                       .expired = expired,
                                       .file_gone = file_gone,
                                       .arg = s};
    int r = mu_sweeper_new(&so, &s->sweeper);
    if (r == 0) {
        r = mu_schedules_start(s->schedules);
    }
    if (r < 0) {
        mu_err_set(&err, r, "%s", mu_err_text(r));
    } else {
        r = listen_all(s, &err);
    }
    if (r < 0) {
        mu_log(MU_LOG_ERROR, "startup.fatal", MU_KC("err_message", err.text));
        mu_fleet_close(s->fleet);
        finish(s, 1);
        return;
    }
    mu_timer_init(&s->disk_timer, s->loops[0], check_disk);
    check_disk(&s->disk_timer);
    if (!s->workers.opts.server_root_url) { /* this loop gives the work out: nothing was yet */
        own_url(s, s->root_url, sizeof s->root_url);
        s->workers.opts.server_root_url = s->root_url;
    }
    write_address(s);
    atomic_store(&s->ready, true);
    char admin_file[1100];
    snprintf(admin_file, sizeof admin_file, "%s/admin.key", s->conf->data_dir);
    if (s->new_admin_key) {
        mu_log(MU_LOG_INFO, "startup.admin_key_generated", MU_KC("file", admin_file));
    }
    mu_log(MU_LOG_INFO, "startup.listening", MU_KC("host", s->conf->host), MU_KI("port", s->port),
           MU_KC("backend", s->meta.backend), MU_KC("data_dir", s->conf->data_dir),
           MU_KC("version", MU_VERSION));
    if (s->conf->retention_days > 0) {
        char days[40];
        snprintf(days, sizeof days, "%.9g", s->conf->retention_days);
        mu_log(MU_LOG_INFO, "retention.enabled", MU_KJ("days", mu_str(days)),
               MU_KI("intervalMs", s->conf->retention_sweep_ms));
    }
    mu_notify("READY=1");
    greet(s);
    mu_embedded_start(s->embedded, s->loops[0], s->port);
}

static void begin(struct mu_post *post)
{
    struct mu_server *s = MU_CONTAINER(post, struct mu_server, begin_post);
    mu_dispatch_start(s->dispatch, recovered, s);
}

int mu_server_run(struct mu_server *s)
{
    s->first_conf = s->conf;
    s->begin_post.fn = begin;
    int r = mu_loop_signal(s->loops[0], SIGTERM, on_stop, s);
    if (r == 0) {
        r = mu_loop_signal(s->loops[0], SIGINT, on_stop, s);
    }
    if (r == 0) {
        r = mu_loop_signal(s->loops[0], SIGHUP, on_reload, s);
    }
    mu_loop_post(s->loops[0], &s->begin_post);
    size_t started = 0;
    while (r == 0 && started < s->n_loops) {
        r = mu_loop_start(s->loops[started]);
        started += r == 0;
    }
    if (r < 0) {
        mu_log(MU_LOG_ERROR, "startup.fatal", MU_KC("err_message", mu_err_text(r)));
        finish(s, 1);
    }
    pthread_mutex_lock(&s->lock);
    while (!s->over) {
        pthread_cond_wait(&s->changed, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    /* The loops still run: they take the completions of what the writer commits last. */
    s->writer = mu_writer_free(s->writer);
    s->readers = mu_readers_free(s->readers);
    s->work = mu_work_free(s->work);
    s->watchdog = mu_watchdog_free(s->watchdog);
    for (size_t i = started; i-- > 0;) { /* the core last: the others post to it */
        mu_loop_stop(s->loops[i]);
        mu_loop_join(s->loops[i]);
    }
    return s->exit_code;
}
