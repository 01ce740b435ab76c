/* muster worker: the daemon that holds sandboxes. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.h"
#include "main/cmd.h"
#include "main/settings.h"
#include "main/worker_conf.h"

static enum mu_log_level level_of(const char *word)
{
    return !strcmp(word, "debug")   ? MU_LOG_DEBUG
           : !strcmp(word, "warn")  ? MU_LOG_WARN
           : !strcmp(word, "error") ? MU_LOG_ERROR
                                    : MU_LOG_INFO;
}

/* --- --check --- */

struct checked {
    bool usable;
};

static void print_report(void *arg, const struct mu_sandbox_report *r)
{
    struct checked *c = arg;
    c->usable = c->usable || r->usable;
    printf("%-12s %-24s %s\n", r->kind, r->strength, r->summary);
    for (size_t i = 0; i < r->n_layers && i < MU_SANDBOX_LAYERS; i++) {
        const struct mu_sandbox_layer *l = &r->layers[i];
        printf("  %-14s %-4s %s%s%s\n", l->name, l->active ? "yes" : "no", l->detail,
               !l->active && l->detail[0] && l->cause[0] ? "; " : "", l->active ? "" : l->cause);
        if (!l->active && l->cure[0]) {
            printf("  %-14s      -> %s\n", "", l->cure);
        }
    }
}

static int check(const struct mu_worker_settings *s)
{
    struct checked c = {0};
    struct mu_err err = {0};
    printf("worker       %s\nserver       %s\nstate        %s\nsandbox      %s\n",
           s->conf.worker_id, s->conf.ws_url, s->conf.state_dir, s->conf.backend);
    fflush(stdout);
    if (mu_worker_check(&mu_env_real, &s->conf, print_report, &c, &err) < 0) {
        fprintf(stderr, "muster: %s\n", err.text);
        return MU_EXIT_USAGE;
    }
    if (!c.usable) {
        puts("! no kind of sandbox is usable");
        return MU_EXIT_FAILED;
    }
    return MU_EXIT_OK;
}

/* --- the daemon --- */

static void prepare_process(void)
{
    struct rlimit r;
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = MU_MIN(r.rlim_max, (rlim_t)65536);
        setrlimit(RLIMIT_NOFILE, &r);
    }
    mallopt(M_ARENA_MAX, 1); /* what a task needed goes back when it has ended */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    mallopt(M_TRIM_THRESHOLD, 256 << 10);
}

static int run(struct mu_worker_settings *s)
{
    struct mu_worker *w = NULL;
    struct mu_err err = {0};
    int r = mu_worker_open(&mu_env_real, &s->conf, &w, &err);
    if (r < 0 && !s->metrics_given && s->conf.metrics_host && r == -EADDRINUSE) {
        mu_log(MU_LOG_WARN, "metrics.not_listening", MU_KC("err_message", err.text));
        s->conf.metrics_host = NULL;
        r = mu_worker_open(&mu_env_real, &s->conf, &w, &err);
    }
    if (r < 0) {
        mu_log(MU_LOG_ERROR, "worker.fatal", MU_KC("err_message", err.text));
        return r == MU_E_INVALID || r == MU_E_UNAVAILABLE || r == MU_E_BUSY ? MU_EXIT_USAGE
                                                                            : MU_EXIT_FAILED;
    }
    int code = mu_worker_run(w);
    mu_worker_close(w);
    return code;
}

/* From now on its end is ours. By its number: a parent that is process 1 is no orphan's foster
 * parent (a server that is the only program of a container). */
static bool parent_is_gone(const struct mu_cli *cli)
{
    const char *pid = mu_cli_value(cli, "with-parent");
    int64_t n = 0;
    return pid && mu_bytes_i64(mu_str(pid), &n) == 0 && prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 &&
           getppid() != (pid_t)n;
}

int mu_cmd_worker(struct mu_cli *cli)
{
    struct mu_config *config;
    struct mu_worker_settings s;
    struct mu_err err = {0};
    int r = mu_settings_of(cli, true, &config);
    if (r) {
        return r;
    }
    const char *level = mu_cli_value(cli, "log-level");
    level = level ? level : config->log_level;
    if (strcmp(level, "debug") != 0 && strcmp(level, "info") != 0 && strcmp(level, "warn") != 0 &&
        strcmp(level, "error") != 0) {
        mu_config_free(config);
        return mu_usage(cli->cmd, "--log-level: expected debug, info, warn or error");
    }
    mu_log_setup(&mu_env_real, mu_cli_has(cli, "check") ? MU_LOG_ERROR : level_of(level),
                 !strcmp(config->log_format, "text"));
    r = mu_worker_settings_load(&s, config, cli, &err);
    if (r < 0) {
        mu_worker_settings_fini(&s);
        return mu_usage(cli->cmd, "%s", err.text);
    }
    prepare_process();
    if (parent_is_gone(cli)) {
        mu_worker_settings_fini(&s);
        return MU_EXIT_OK;
    }
    r = mu_cli_has(cli, "check") ? check(&s) : run(&s);
    mu_worker_settings_fini(&s);
    return r;
}
