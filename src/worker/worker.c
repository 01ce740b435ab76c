/* Building a worker, running it, taking it down. */
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/encode.h"
#include "base/log.h"
#include "worker/worker_int.h"

enum { FETCHES = 64, JOBS = 1024, CHECK_ALL_MS = 60000 };

struct mu_fetcher *mu_worker_fetcher(struct mu_worker *w)
{
    if (!w->fetcher && mu_fetcher_new(w->loop, FETCHES, &w->fetcher) < 0) {
        w->fetcher = NULL;
    }
    return w->fetcher;
}

struct mu_work *mu_worker_work(struct mu_worker *w)
{
    if (!w->work && mu_work_new(1, JOBS, &w->work) < 0) {
        w->work = NULL;
    }
    return w->work;
}

/* --- the state folder --- */

static int make_folder(const char *path, struct mu_err *err)
{
    char part[4096];
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof part || path[0] != '/') {
        return mu_err_set(err, MU_E_INVALID, "--state-dir must be an absolute path");
    }
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != 0) {
            continue;
        }
        char c = part[i];
        part[i] = 0;
        if (mkdir(part, 0700) < 0 && errno != EEXIST) {
            return mu_err_set(err, -errno, "cannot make '%s': %s", part, strerror(errno));
        }
        part[i] = c;
    }
    return 0;
}

static int lock_folder(struct mu_worker *w, struct mu_err *err)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/lock", w->conf->state_dir);
    w->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (w->lock_fd < 0) {
        return mu_err_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
    }
    if (flock(w->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        return mu_err_set(err, MU_E_BUSY, "another worker uses '%s': give each its own --state-dir",
                          w->conf->state_dir);
    }
    return 0;
}

/* 128 random bits, the same for every start with this folder. */
static int take_instance(struct mu_worker *w, struct mu_err *err)
{
    char path[4200], tmp[4210];
    snprintf(path, sizeof path, "%s/instance", w->conf->state_dir);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    MU_AUTO_CLOSE int old = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (old >= 0 && read(old, w->instance, 32) == 32 &&
        mu_hex_is(mu_bytes_of(w->instance, 32), 32)) {
        return 0;
    }
    unsigned char bits[16];
    w->env->random(w->env, bits, sizeof bits);
    mu_hex(bits, sizeof bits, w->instance);
    MU_AUTO_CLOSE int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write(fd, w->instance, 32) != 32 || fsync(fd) < 0 || rename(tmp, path) < 0) {
        return mu_err_set(err, -errno, "cannot write '%s': %s", path, strerror(errno));
    }
    return 0;
}

static void store_idle(void *arg)
{
    mu_worker_advance(arg);
}

static int open_journal(struct mu_worker *w, struct mu_err *err)
{
    char path[4200];
    struct mu_journal *journal;
    int64_t lost = 0;
    snprintf(path, sizeof path, "%s/journal", w->conf->state_dir);
    int r = mu_journal_open(path, &journal, &lost, err);
    if (r < 0) {
        return r;
    }
    if (lost > 0) {
        mu_log(MU_LOG_WARN, "journal.tail_cut", MU_KI("bytes", lost));
    }
    r = mu_adopt_load(w, journal, err);
    if (r == 0) {
        r = mu_jstore_new(w->loop, journal, store_idle, w, &w->store);
        if (r < 0) {
            mu_err_set(err, r, "cannot start: %s", mu_err_text(r));
        }
    }
    if (r < 0) {
        mu_journal_close(journal);
    }
    return r;
}

static int open_broker(struct mu_worker *w, struct mu_err *err)
{
    const struct mu_broker_settings settings = {.env = w->env,
                                                .allow = w->conf->allow,
                                                .allow_addr = w->conf->allow_addr,
                                                .forward = w->conf->forward,
                                                .upstream = w->conf->upstream};
    int r = mu_broker_new(w->loop, &settings, &w->broker, err);
    w->settings.broker = w->broker;
    return r;
}

/* --- new and free --- */

static int build(struct mu_worker *w, struct mu_err *err)
{
    int r = make_folder(w->conf->state_dir, err);
    if (r == 0) {
        r = lock_folder(w, err);
    }
    if (r == 0) {
        r = take_instance(w, err);
    }
    if (r < 0) {
        return r;
    }
    r = mu_loop_new(w->env, "worker", &w->loop);
    if (r == 0) {
        r = mu_health_metrics(w);
    }
    if (r < 0) {
        return mu_err_set(err, r, "cannot start: %s", mu_err_text(r));
    }
    r = open_broker(w, err);
    if (r == 0) {
        r = mu_backends_open(w, err);
    }
    if (r == 0) {
        r = open_journal(w, err);
    }
    if (r == 0) {
        r = mu_health_listen(w, err);
    }
    if (r == 0 && mu_uplink_init(w) < 0) {
        r = mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    return r;
}

static struct mu_worker *new_worker(const struct mu_env *env, const struct mu_worker_conf *conf)
{
    struct mu_worker *w = mu_calloc(1, sizeof *w);
    if (w) {
        w->env = env;
        w->conf = conf;
        w->lock_fd = -1;
        w->settings = conf->sandbox;
        w->settings.env = env;
        w->settings.state_dir = conf->state_dir;
        w->settings.worker_id = conf->worker_id;
        mu_list_init(&w->tasks);
        mu_list_init(&w->ends);
        mu_list_init(&w->questions);
        if (gethostname(w->hostname, sizeof w->hostname - 1) < 0) {
            w->hostname[0] = 0;
        }
    }
    return w;
}

int mu_worker_open(const struct mu_env *env, const struct mu_worker_conf *conf,
                   struct mu_worker **ret, struct mu_err *err)
{
    struct mu_worker *w = new_worker(env, conf);
    if (!w) {
        return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    int r = build(w, err);
    if (r < 0) {
        mu_worker_close(w);
        return r;
    }
    *ret = w;
    return 0;
}

struct mu_worker *mu_worker_close(struct mu_worker *w)
{
    if (!w) {
        return NULL;
    }
    w->store = mu_jstore_free(w->store);
    if (w->git_stopping || mu_backends_busy(w)) {
        return NULL; /* outlasted our patience: it may call back still, and the process ends now */
    }
    if (w->loop) {
        mu_fetcher_free(w->fetcher);
        mu_uplink_fini(w);
        mu_timer_clear(&w->check_timer);
        mu_timer_clear(&w->phase_timer);
        mu_timer_clear(&w->leave_timer);
        mu_timer_clear(&w->trim_timer);
        mu_timer_clear(&w->lease_timer);
        MU_LIST_EACH(it, tmp, &w->tasks)
        {
            mu_attempt_free(MU_CONTAINER(it, struct mu_attempt, link));
        }
        if (w->work) {
            mu_work_free(w->work);
            mu_credential_settle(w);
        }
        mu_backends_close(w);
        mu_broker_free(w->broker);
        mu_git_cache_free(w->git);
        mu_ends_free(w);
        mu_http_server_free(w->http);
        mu_loop_free(w->loop);
    }
    mu_metrics_free(w->m.all);
    mu_free(w->m.failures);
    if (w->lock_fd >= 0) {
        close(w->lock_fd);
    }
    mu_free(w);
    return NULL;
}

/* --- start --- */

static void serve(struct mu_worker *w)
{
    if (w->phase != MU_PHASE_STARTING) { /* stopped before it began */
        return;
    }
    w->phase = MU_PHASE_SERVING;
    mu_uplink_start(w);
    mu_worker_trim_soon(w);
}

static void sweep(struct mu_worker *w)
{
    if (w->phase != MU_PHASE_STARTING) {
        return;
    }
    if (!mu_backends_usable(w)) {
        for (size_t i = 0; i < w->n_backends; i++) {
            mu_log(MU_LOG_ERROR, "sandbox.unusable", MU_KC("kind", w->backends[i].ops->name),
                   MU_KC("summary", w->backends[i].report.summary));
        }
        mu_worker_give_up(w, 2);
        return;
    }
    mu_adopt_run(w);
    mu_backends_sweep(w, serve);
}

static void begin(struct mu_post *post)
{
    struct mu_worker *w = MU_CONTAINER(post, struct mu_worker, begin);
    mu_log(MU_LOG_INFO, "worker.start", MU_KC("worker_id", w->conf->worker_id),
           MU_KC("url", w->conf->ws_url), MU_KC("backend", w->conf->backend),
           MU_KI("capacity", w->conf->capacity), MU_KC("state_dir", w->conf->state_dir),
           MU_KC("version", MU_VERSION));
    mu_backends_check(w, sweep);
}

int mu_worker_run(struct mu_worker *w)
{
    int r = mu_worker_watch_signals(w);
    if (r < 0) {
        mu_log(MU_LOG_ERROR, "worker.fatal", MU_KC("err_message", mu_err_text(r)));
        return 1;
    }
    mu_worker_trim_init(w);
    mu_lease_init(w);
    w->begin.fn = begin;
    mu_loop_post(w->loop, &w->begin);
    mu_loop_run(w->loop);
    mu_log(MU_LOG_INFO, "worker.stopped", MU_KI("exit_code", w->exit_code));
    return w->exit_code;
}

/* --- only the checks --- */

static void all_checked(struct mu_worker *w)
{
    mu_loop_stop(w->loop);
}

static void begin_check(struct mu_post *post)
{
    mu_backends_check(MU_CONTAINER(post, struct mu_worker, begin), all_checked);
}

int mu_worker_check(const struct mu_env *env, const struct mu_worker_conf *conf,
                    void (*each)(void *arg, const struct mu_sandbox_report *report), void *arg,
                    struct mu_err *err)
{
    struct mu_worker *w = new_worker(env, conf);
    if (!w) {
        return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    w->only_checks = true;
    int r = make_folder(conf->state_dir, err);
    if (r == 0) {
        r = mu_loop_new(env, "check", &w->loop);
        if (r < 0) {
            mu_err_set(err, r, "%s", mu_err_text(r));
        }
    }
    if (r == 0) {
        r = open_broker(w, err);
    }
    if (r == 0) {
        r = mu_backends_open(w, err);
    }
    if (r == 0) {
        w->begin.fn = begin_check;
        mu_loop_post(w->loop, &w->begin);
        mu_loop_run(w->loop);
        for (size_t i = 0; i < w->n_backends; i++) {
            each(arg, &w->backends[i].report);
        }
    }
    mu_worker_close(w);
    return r;
}
