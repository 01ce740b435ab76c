/* muster serve */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.h"
#include "main/cmd.h"
#include "main/server.h"

extern char **environ;

enum { MAPPED_FROM = 256 << 10 };

static enum mu_log_level level_of(const char *word)
{
    return strcmp(word, "debug") == 0   ? MU_LOG_DEBUG
           : strcmp(word, "warn") == 0  ? MU_LOG_WARN
           : strcmp(word, "error") == 0 ? MU_LOG_ERROR
                                        : MU_LOG_INFO;
}

void mu_server_log_setup(const struct mu_env *env, const struct mu_config *conf)
{
    mu_log_setup(env, level_of(conf->log_level), strcmp(conf->log_format, "text") == 0);
}

static int fatal(const char *text)
{
    mu_log(MU_LOG_ERROR, "startup.fatal", MU_KC("err_message", text));
    return 1;
}

void mu_server_log_warnings(struct mu_buf *warnings)
{
    for (mu_bytes rest = mu_buf_bytes(warnings); rest.ptr;) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        if (line.len) {
            mu_log(MU_LOG_WARN, "startup.setting", MU_KS("note", line));
        }
    }
    mu_buf_clear(warnings);
}

void mu_server_log_new_key(const struct mu_server *s)
{
    char file[1100];
    snprintf(file, sizeof file, "%s/admin.key", s->first_conf->data_dir);
    mu_log(MU_LOG_INFO, "startup.admin_key_generated", MU_KC("file", file));
}

/* As many descriptors as the system lets us have: a connection is one. */
static void raise_limits(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

/* Left alone, glibc raises the size from which a block is mapped by itself to 32 MiB as blocks come
 * and go, and what a thousand slow viewers once had waiting would stay with the process for good.
 */
static void give_memory_back(void)
{
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
    mallopt(M_TRIM_THRESHOLD, 4 * MAPPED_FROM);
}

static int configure(struct mu_server *s, struct mu_buf *warnings, struct mu_err *err)
{
    int r = mu_config_load(s->args, &s->conf, warnings, err);
    if (r < 0) {
        return r;
    }
    mu_server_log_setup(s->env, s->conf);
    mu_server_log_warnings(warnings);
    bool had_admin_key = s->conf->admin_key != NULL;
    r = mu_config_first_start(s->conf, s->env, &s->new_admin_key, err);
    atomic_store(&s->admin_key_in_file, !had_admin_key && s->conf->admin_key);
    if (r == 0) {
        r = mu_config_discover(s->conf, getenv("PATH"), err);
    }
    if (r == 0 && s->conf->startup_validate_providers) {
        r = mu_config_check_providers(s->conf, getenv("PATH"), warnings, err);
        mu_server_log_warnings(warnings);
        if (r == 0) {
            mu_log(MU_LOG_INFO, "startup.provider_validation_ok");
        }
    }
    return r;
}

int mu_cmd_serve(int argc, char **argv)
{
    struct mu_cli cli;
    int r = mu_cli_parse(mu_cmd_find("serve", NULL), argc, argv, &cli);
    if (r != 0) {
        return r < 0 ? 0 : r;
    }
    const char *flags[MU_CLI_MAX_FLAGS + 1] = {NULL}, *v;
    size_t at = 0, n = 0;
    while (n < MU_CLI_MAX_FLAGS && (v = mu_cli_next(&cli, "set", &at))) {
        flags[n++] = v;
    }
    const struct mu_config_args args = {.ini_file = mu_cli_value(&cli, "config"),
                                        .flags = flags,
                                        .environ_ = (const char *const *)environ};
    struct mu_server *s = mu_calloc(1, sizeof *s);
    struct mu_err err = {0};
    struct mu_buf warnings;
    mu_log_setup(&mu_env_real, MU_LOG_INFO, false);
    if (!s) {
        return fatal("out of memory");
    }
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD,
           SIG_DFL); /* ignored by whoever started us, it would take our children's codes */
    raise_limits();
    give_memory_back();
    mu_buf_init(&warnings, 1 << 20);
    s->env = &mu_env_real;
    s->args = &args;
    s->n_inherited = mu_inherited_sockets(s->inherited, MU_MAX_INHERITED);
    r = configure(s, &warnings, &err);
    if (r == 0) {
        r = mu_server_build(s, &err);
    }
    mu_buf_fini(&warnings);
    int code;
    if (r < 0) {
        code = fatal(err.text[0] ? err.text : mu_err_text(r));
        s->watchdog = mu_watchdog_free(s->watchdog);
        s->writer = mu_writer_free(s->writer);
        s->readers = mu_readers_free(s->readers);
        s->work = mu_work_free(s->work);
    } else {
        code = mu_server_run(s);
    }
    mu_server_free(s);
    mu_free(s);
    if (r == 0) {
        mu_log(MU_LOG_INFO, "shutdown.complete");
    }
    return code;
}
