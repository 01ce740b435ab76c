/* The server's life: start and stop (oz-api.md 10, 11). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

#include "base/log.h"
#include "main/server.h"

enum { DISK_MS = 5000, TRIM_BYTES = 8 << 20, HARD_LIMIT_MS = 25000, DRAIN_MS = 1000 };

/* --- disk and memory: looked at on a thread of the work pool --- */

/* After a wave of connections the allocator keeps what it freed between what lives on. */
static void trim_memory(void)
{
    if (mallinfo2().fordblks > TRIM_BYTES) {
        malloc_trim(0);
    }
}

static void look_at_disk(struct mu_job *job)
{
    struct mu_disk_look *look = MU_CONTAINER(job, struct mu_disk_look, job);
    struct statvfs v;
    look->free_mb =
        statvfs(look->dir, &v) == 0 ? (int64_t)((uint64_t)v.f_bavail * v.f_frsize >> 20) : -1;
    trim_memory();
}

static void judge_disk(struct mu_server *s)
{
    int64_t free_mb = s->disk.free_mb, least = s->conf->disk_min_free_mb;
    if (free_mb < 0) {
        return; /* what was true stays true */
    }
    bool low = free_mb < least;
    if (low != atomic_exchange(&s->disk_low, low)) {
        mu_log(low ? MU_LOG_ERROR : MU_LOG_INFO, low ? "disk.nearly_full" : "disk.recovered",
               MU_KI("free_mb", free_mb), MU_KI("threshold_mb", least));
    }
}

static void disk_looked(struct mu_job *job)
{
    struct mu_server *s = MU_CONTAINER(job, struct mu_server, disk.job);
    if (job->ran) {
        judge_disk(s);
    }
    (void)!mu_timer_set(&s->disk.timer, DISK_MS);
}

/* The writer does not log: what it says of its trouble is told here, once when it begins. */
static void check_database(struct mu_server *s)
{
    struct mu_err err;
    mu_writer_trouble(s->writer, &err);
    bool down = err.code != 0;
    if (down && !s->db_down) {
        mu_log(MU_LOG_ERROR, "database.unavailable", MU_KC("err_message", err.text));
    } else if (!down && s->db_down) {
        mu_log(MU_LOG_INFO, "database.recovered");
    }
    s->db_down = down;
}

static void check_disk(struct mu_timer *t)
{
    struct mu_server *s = MU_CONTAINER(t, struct mu_server, disk.timer);
    if (s->signals) {
        return; /* nothing new is accepted, and the pool goes */
    }
    check_database(s);
    s->disk.job = (struct mu_job){.run = look_at_disk, .done = disk_looked, .loop = s->loops[0]};
    if (mu_work_submit(s->work, &s->disk.job) < 0) {
        (void)!mu_timer_set(t, DISK_MS);
    }
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
    mu_fleet_close(((struct mu_server *)arg)->d.fleet);
    finish(arg, 0);
}

static void stopped_early(void *arg)
{
    finish(arg, 0);
}

static void start_failed(void *arg)
{
    finish(arg, 1);
}

/* A listener that was opened before the one that failed closes first: what comes over it would need
 * the database. */
static void give_up(void *arg)
{
    struct mu_server *s = arg;
    mu_http_server_drain(s->http, 0, start_failed, s);
}

static void cut_off(struct mu_timer *t MU_UNUSED)
{
    mu_log(MU_LOG_ERROR, "shutdown.cut_off", MU_KI("after_ms", HARD_LIMIT_MS));
    _exit(0); /* what was acknowledged is on the disk; the rest is found by the recovery of the next
                 start */
}

static void live_stopped(void *arg)
{
    struct mu_server *s = arg;
    mu_http_server_drain(s->http, DRAIN_MS, drained, s);
}

static void runs_stopped(void *arg)
{
    struct mu_server *s = arg;
    mu_live_stop(s->d.live, live_stopped, s);
}

static void sweeper_stopped(void *arg)
{
    struct mu_server *s = arg;
    int64_t grace = s->signals > 1 ? 0 : s->conf->shutdown_grace_ms;
    s->runs_stopping = true;
    mu_dispatch_stop(s->d.dispatch, grace, runs_stopped, s);
}

static void keeper_stopped(void *arg)
{
    struct mu_server *s = arg;
    mu_sweeper_stop(s->sweeper, sweeper_stopped, s);
}

static void schedules_stopped(void *arg)
{
    struct mu_server *s = arg;
    mu_keeper_stop(s->keeper, keeper_stopped, s);
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
        if (s->runs_stopping) { /* the grace ends now; else it will be none */
            mu_dispatch_stop(s->d.dispatch, 0, runs_stopped, s);
        }
        return;
    }
    mu_log(MU_LOG_INFO, "shutdown.start", MU_KC("signal", signum == SIGINT ? "SIGINT" : "SIGTERM"));
    mu_notify("STOPPING=1");
    mu_api_set_stopping(s->api);
    if (!atomic_load(&s->ready)) { /* nothing runs yet, and nothing must begin */
        mu_dispatch_stop(s->d.dispatch, 0, stopped_early, s);
        return;
    }
    mu_timer_init(&s->hard_limit, s->loops[0], cut_off);
    (void)!mu_timer_set(&s->hard_limit, HARD_LIMIT_MS);
    /* First, while its last words are still heard. */
    mu_embedded_stop(s->embedded, signum, s->conf->shutdown_grace_ms, worker_stopped, s);
}

/* --- start --- */

static void expired(void *arg, mu_bytes session_id)
{
    struct mu_server *s = arg;
    mu_dispatch_expired(s->d.dispatch, session_id);
}

static void file_gone(void *arg, mu_bytes file_id)
{
    struct mu_server *s = arg;
    mu_files_remove(s->d.files, file_id);
}

/* What time takes away: deadlines and retention, checkpoints. */
static int make_sweepers(struct mu_server *s)
{
    const struct mu_sweeper_opts so = {.sessions = s->d.sessions,
                                       .core = s->loops[0],
                                       .retention_interval_ms = s->conf->retention_sweep_ms,
                                       .hibernated_ms = s->conf->hibernated_max_days * 86400000,
                                       .work = s->work,
                                       .expired = expired,
                                       .file_gone = file_gone,
                                       .arg = s};
    const struct mu_keeper_opts ko = {.core = s->loops[0],
                                      .sessions = s->d.sessions,
                                      .work = s->work,
                                      .keep_ms = s->conf->session_data_ttl_hours * 3600000,
                                      .object_gone = file_gone,
                                      .arg = s};
    int r = mu_sweeper_new(&so, &s->sweeper);
    return r < 0 ? r : mu_keeper_new(&ko, &s->keeper);
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
    if (r < 0 || !c->metrics_listen) {
        return r;
    }
    char host[64];
    unsigned port, got;
    if (mu_config_listen(c->metrics_listen, host, sizeof host, &port) < 0) {
        return mu_err_set(err, MU_E_INVALID, "OZ_METRICS_LISTEN: expected host:port or off");
    }
    s->metrics_listener.probes_only = true;
    l = (struct mu_http_listen){
        .host = host, .port = port, .fd = -1, .listener_arg = &s->metrics_listener};
    return mu_http_server_listen(s->http, &l, &got, err);
}

/* Fills own_url from the socket or the setting that counts. */
static void find_own_url(struct mu_server *s)
{
    struct sockaddr_storage a = {.ss_family = AF_UNSPEC};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&a;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a;
    socklen_t len = sizeof a;
    char host[INET6_ADDRSTRLEN] = "127.0.0.1";
    if (s->n_inherited) {
        (void)!getsockname(s->inherited[0], (struct sockaddr *)&a, &len);
    } else if (inet_pton(AF_INET, s->conf->host, &v4->sin_addr) == 1) {
        a.ss_family = AF_INET;
    } else if (inet_pton(AF_INET6, s->conf->host, &v6->sin6_addr) == 1) {
        a.ss_family = AF_INET6;
    }
    bool is6 = a.ss_family == AF_INET6;
    if (is6 && IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr)) {
        v6->sin6_addr = in6addr_loopback; /* an IPv6 socket of ours takes no IPv4 */
    }
    if (is6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
    } else if (a.ss_family == AF_INET && v4->sin_addr.s_addr != htonl(INADDR_ANY)) {
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
    }
    snprintf(s->own_url, sizeof s->own_url, "%s://%s%s%s:%u",
             s->conf->tls_cert_file ? "https" : "http", is6 ? "[" : "", host, is6 ? "]" : "",
             s->port);
}

/* How the command line finds the server of this data folder. */
static void write_address(const struct mu_server *s)
{
    char path[1100], tmp[1100], text[sizeof s->own_url + 64];
    snprintf(path, sizeof path, "%s/server.json", s->conf->data_dir);
    snprintf(tmp, sizeof tmp, "%s/server.json.tmp", s->conf->data_dir);
    int n = snprintf(text, sizeof text, "{\"url\":\"%s\",\"pid\":%d}\n", s->own_url, (int)getpid());
    MU_AUTO_CLOSE int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write(fd, text, (size_t)n) != n || rename(tmp, path) < 0) {
        mu_log(MU_LOG_WARN, "startup.no_address_file", MU_KC("path", path),
               MU_KC("err_message", strerror(errno)));
    }
}

/* On a terminal only, like the key that it stands for (G10). */
static void print_login_link(const struct mu_server *s)
{
    char url[2048];
    if (!s->web.assets || s->web.assets->n == 0) {
        puts("  this build has no web app; the API and the command line are complete");
        return;
    }
    if (mu_web_login_link(&s->web, url, sizeof url) == 0) {
        printf("  open, once and within 15 minutes: %s\n  (another one: muster login-link)\n", url);
        explicit_bzero(url, sizeof url);
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
    printf("\nMuster is ready at %s\n", s->own_url);
    if (s->new_admin_key) {
        printf("  admin key (shown once; kept in %s/admin.key): %s\n", c->data_dir, c->admin_key);
    }
    print_login_link(s);
    putchar('\n');
    fflush(stdout);
}

static void recovered(void *arg)
{
    struct mu_server *s = arg;
    struct mu_err err = {0};
    if (s->signals) { /* told to stop before it was ready */
        return;
    }
    int r = make_sweepers(s);
    if (r == 0) {
        r = listen_all(s, &err);
        r = r < 0 ? r : mu_schedules_start(s->schedules);
    }
    if (r < 0 && !err.code) {
        mu_err_set(&err, r, "%s", mu_err_text(r));
    }
    if (r < 0) {
        mu_log(MU_LOG_ERROR, "startup.fatal", MU_KC("err_message", err.text));
        s->sweeper = mu_sweeper_free(s->sweeper);
        s->keeper = mu_keeper_free(s->keeper);
        mu_fleet_close(s->d.fleet);
        mu_dispatch_stop(s->d.dispatch, 0, give_up, s); /* the queue must not begin to run */
        return;
    }
    mu_live_start(s->d.live);
    mu_keeper_start(s->keeper, -1);
    mu_timer_init(&s->disk.timer, s->loops[0], check_disk);
    (void)!mu_timer_set(&s->disk.timer, DISK_MS);
    find_own_url(s);
    if (!s->workers.opts.server_root_url) { /* this loop gives the work out: nothing was yet */
        s->workers.opts.server_root_url = s->own_url;
    }
    write_address(s);
    atomic_store(&s->ready, true);
    if (s->new_admin_key) {
        mu_server_log_new_key(s);
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
    mu_embedded_start(s->embedded, s->loops[0], s->own_url);
}

static void begin(struct mu_post *post)
{
    struct mu_server *s = MU_CONTAINER(post, struct mu_server, begin_post);
    if (!s->signals) {
        mu_dispatch_start(s->d.dispatch, recovered, s);
    }
}

int mu_server_run(struct mu_server *s)
{
    s->first_conf = s->conf;
    s->begin_post.fn = begin;
    s->disk.dir = s->conf->data_dir;
    look_at_disk(&s->disk.job);
    judge_disk(s);
    int r = mu_loop_signal(s->loops[0], SIGTERM, on_stop, s);
    if (r == 0) {
        r = mu_loop_signal(s->loops[0], SIGINT, on_stop, s);
    }
    if (r == 0) {
        r = mu_loop_signal(s->loops[0], SIGHUP, mu_server_on_reload, s);
    }
    size_t started = 0;
    while (r == 0 && started < s->n_loops) {
        r = mu_loop_start(s->loops[started]);
        started += r == 0;
    }
    if (r < 0) {
        mu_log(MU_LOG_ERROR, "startup.fatal", MU_KC("err_message", mu_err_text(r)));
        finish(s, 1);
    } else {
        mu_loop_post(s->loops[0], &s->begin_post);
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
