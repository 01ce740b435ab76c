#include "runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "exec/sandbox/fd3.h"
#include "io/folder.h"
#include "runner/envvars.h"
#include "runner/http.h"
#include "runner/runner_int.h"

extern char **environ;

int mu_runner_fail(struct mu_runner *r, int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->result.message, sizeof r->result.message, fmt, ap);
    va_end(ap);
    mu_secrets_hide(r->redact, r->result.message, sizeof r->result.message);
    mu_note("%s", r->result.message);
    return status;
}

int mu_runner_child_failed(struct mu_runner *r, const char *what, const struct mu_proc_end *end)
{
    if (end->stopped) {
        return mu_runner_fail(r, 143, "stopped while %s ran", what);
    }
    if (end->timed_out) {
        return mu_runner_fail(r, end->status, "%s took too long", what);
    }
    if (end->error) {
        return mu_runner_fail(r, end->status, "%s: %s", what,
                              end->error == -ENOENT ? "not found" : mu_err_text(end->error));
    }
    return mu_runner_fail(r, end->status, "%s ended with status %d", what, end->status);
}

int64_t mu_runner_seconds(const char *name, int64_t fallback_s)
{
    int64_t s;
    mu_bytes text = mu_bytes_trim(mu_str(getenv(name)));
    if (mu_bytes_ends(text, MU_B("s"))) {
        text.len--;
    }
    bool ok = mu_bytes_i64(text, &s) == 0 && s > 0 && s <= 7 * 24 * 3600;
    return (ok ? s : fallback_s) * 1000;
}

/* --- the prompt --- */

static const char *server_root(const struct mu_runner *r)
{
    const char *names[] = {"OZ_SERVER_ROOT_URL", "WARP_SERVER_ROOT_URL"};
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        const char *v = getenv(names[i]);
        if (v && *v) {
            return v;
        }
    }
    return r->args.server_root_url;
}

static const char *run_id(const struct mu_runner *r)
{
    const char *id = getenv("OZ_RUN_ID");
    id = id && *id ? id : getenv("TASK_ID");
    return id && *id ? id : r->args.task_id;
}

/* A prompt too large for an environment lies on the server. */
static int fetch_prompt(struct mu_runner *r, const char *where, const char *token)
{
    const char *root = server_root(r);
    struct mu_buf url MU_CLEANUP(mu_buf_fini);
    struct mu_err err = {0};
    int status = 0, e = 0;
    if (!token || !*token || (where[0] == '/' && !root)) {
        return mu_runner_fail(r, 2,
                              "the prompt lies on the server, but there is no token or address");
    }
    mu_buf_init(&url, 4096);
    if (where[0] == '/') {
        mu_bytes base = mu_str(root);
        while (base.len && base.ptr[base.len - 1] == '/') {
            base.len--;
        }
        mu_buf_add(&url, base);
    }
    mu_buf_add_str(&url, where);
    mu_buf_add_char(&url, 0);
    for (int i = 0; i <= 3 && !url.failed; i++) {
        struct mu_http_call call = {"GET", url.ptr, token, MU_B_NONE, r->ws.oz, "", 20000};
        mu_buf_clear(&r->prompt);
        e = mu_http_send(&r->procs, &call, &status, &r->prompt, &err);
        if (e == MU_E_CANCELLED || e == -ENOSYS || (!e && status < 500)) {
            break;
        }
        usleep((useconds_t)(200000 << i));
    }
    if (e || url.failed) {
        return mu_runner_fail(r, 2, "the prompt was not fetched: %s", err.text);
    }
    return status == 200 ? 0
                         : mu_runner_fail(r, 2, "the prompt was not fetched: status %d", status);
}

static int read_prompt(struct mu_runner *r, const char *token)
{
    const char *text = getenv("OZ_TASK_PROMPT"), *url = getenv("OZ_TASK_PROMPT_URL");
    if (text && *text) {
        mu_buf_add_str(&r->prompt, text);
        return r->prompt.failed ? mu_runner_fail(r, 2, "the prompt is too long") : 0;
    }
    int e = mu_workspace_read(&r->ws, "prompt.txt", &r->prompt);
    if (e && e != MU_E_NOT_FOUND) {
        return mu_runner_fail(r, 2, "prompt.txt: %s", mu_err_text(e));
    }
    if (!r->prompt.len && url && *url) {
        int status = fetch_prompt(r, url, token);
        if (status) {
            return status;
        }
    }
    return r->prompt.len ? 0 : mu_runner_fail(r, 2, "no prompt: OZ_TASK_PROMPT is empty");
}

/* --- the steps --- */

struct inputs {
    int argc;
    char **argv;
    char *token;
};

static int step_args(struct mu_runner *r, const struct inputs *in)
{
    struct mu_err err;
    if (mu_runner_args_parse(in->argc, in->argv, &r->args, &err) < 0) {
        return mu_runner_fail(r, 2, "%s", err.text);
    }
    mu_report_init(&r->report, in->token, server_root(r), run_id(r));
    mu_report_start(&r->report, r->ws.oz, r->ws.root, &r->procs);
    if (r->live) { /* its prompts and its harness come over the link */
        return 0;
    }
    int status = read_prompt(r, in->token);
    const char *model = getenv("OZ_MODEL_ID");
    struct mu_harness_hints hints = {getenv("OZ_HARNESS"), r->args.harness,
                                     model && *model ? model : r->args.model,
                                     getenv("OZ_SIDECAR_DEFAULT_HARNESS")};
    if (!status && mu_harness_choose(&hints, &r->harness, &err) < 0) {
        status = mu_runner_fail(r, 2, "%s", err.text);
    }
    return status;
}

static int put_env(void *arg MU_UNUSED, mu_bytes name, mu_bytes value)
{
    char *n MU_AUTO_FREE = mu_bytes_dup(name);
    char *v MU_AUTO_FREE = mu_bytes_dup(value);
    return n && v && setenv(n, v, 1) == 0 ? 0 : -ENOMEM;
}

static int step_env(struct mu_runner *r)
{
    const char *json = getenv("OZ_ENV_VARS_JSON");
    struct mu_err err;
    /* copies: setting variables may move what these point to */
    char *lines_copy MU_AUTO_FREE = mu_bytes_dup(mu_str(getenv("OZ_ENV_VARS")));
    char *json_copy MU_AUTO_FREE = mu_bytes_dup(mu_str(json));
    if (!lines_copy || !json_copy || mu_envvars_lines(mu_str(lines_copy), put_env, NULL) < 0) {
        return mu_runner_fail(r, 1, "out of memory");
    }
    if (json && *json && mu_envvars_json(mu_str(json_copy), put_env, NULL, &err) < 0) {
        return mu_runner_fail(r, 2, "OZ_ENV_VARS_JSON: %s", err.text);
    }
    int status = mu_secrets_learn(r, mu_str(lines_copy), mu_str(json_copy));
    if (r->live) {
        mu_live_secrets(r->live);
    }
    return status;
}

static int step_agent(struct mu_runner *r)
{
    return r->live ? mu_live_run(r->live) : mu_runner_agent(r);
}

static int all_steps(struct mu_runner *r, const struct inputs *in)
{
    static const struct {
        const char *phase;
        int (*run)(struct mu_runner *r);
    } steps[] = {{"env", step_env},
                 {"clone", mu_runner_clone},
                 {"restore", mu_restore_workspace},
                 {"setup", mu_runner_setup},
                 {"agent", step_agent}};
    r->result.phase = "args";
    int status = step_args(r, in);
    for (size_t i = 0; i < MU_ARRAY_LEN(steps) && !status; i++) {
        if (steps[i].run == mu_restore_workspace && !r->restore) {
            continue;
        }
        mu_procs_signals(&r->procs);
        if (r->procs.stopping) {
            return mu_runner_fail(r, 143, "stopped before the agent ran");
        }
        r->result.phase = steps[i].phase;
        if (r->live && i > 0) {
            mu_live_boot(r->live, steps[i].phase);
        }
        status = steps[i].run(r);
    }
    return r->procs.stopping ? 143 : status;
}

/* --- around them --- */

/* Descriptors 0 to 2 exist, whatever started us: what is opened later must not become one. */
static void fill_stdio(void)
{
    for (int fd; (fd = open("/dev/null", O_RDWR)) >= 0;) {
        if (fd > 2) {
            close(fd);
            break;
        }
    }
}

/* An agent under the same user could read our token from our memory otherwise. The sanitizers' leak
 * check traces its own process, so it goes without. */
static void lock_memory(void)
{
#ifndef __SANITIZE_ADDRESS__
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

/* Where the strings lie that the kernel put there: one behind the other. */
static void find_env(struct mu_runner *r)
{
    char *end = environ[0];
    for (char **e = environ; *e && *e == end; e++) {
        end += strlen(*e) + 1;
    }
    r->env_block = environ[0];
    r->env_len = environ[0] ? (size_t)(end - environ[0]) : 0;
}

void mu_runner_unset(struct mu_runner *r, const char *name)
{
    size_t n = strlen(name);
    unsetenv(name);
    for (size_t at = 0; at < r->env_len; at += strlen(r->env_block + at) + 1) {
        char *e = r->env_block + at;
        if (strncmp(e, name, n) == 0 && e[n] == '=') {
            size_t len = strlen(e);
            memset(e, '-', len); /* nobody's name, and the others stay where they are */
        }
    }
}

static char *take_env(struct mu_runner *r, const char *name)
{
    const char *v = getenv(name);
    char *copy = v ? mu_bytes_dup(mu_str(v)) : NULL;
    mu_runner_unset(r, name);
    return copy;
}

static int open_all(struct mu_runner *r)
{
    struct mu_err err;
    const char *root = getenv("MUSTER_WORKSPACE");
    const char *path = getenv("PATH");
    ssize_t n = readlink("/proc/self/exe", r->self, sizeof r->self - 1);
    r->self[n > 0 ? n : 0] = 0;
    r->first_path = mu_bytes_dup(mu_str(path ? path : "/usr/local/bin:/usr/bin:/bin"));
    if (mu_procs_init(&r->procs, &err) < 0) {
        return mu_runner_fail(r, 1, "%s", err.text);
    }
    char *keeper MU_AUTO_FREE = take_env(r, MU_FD3_ENV);
    if (keeper && strcmp(keeper, "3") == 0) {
        if (mu_bridge_open(MU_FD3, &r->bridge, &err) < 0) {
            return mu_runner_fail(r, 1, "network: %s", err.text);
        }
        r->procs.bridge = r->bridge;
    }
    if (mu_workspace_open(&r->ws, root && root[0] == '/' ? root : MU_WORKSPACE, &err) < 0 ||
        mu_workspace_oz(&r->ws, &err) < 0) {
        return mu_runner_fail(r, 1, "%s", err.text);
    }
    /* A repository or an earlier run may have left its own. */
    mu_folder_remove_at(r->ws.oz, "result.json");
    mu_folder_remove_at(r->ws.oz, "agent_output.txt");
    mu_folder_remove_at(r->ws.oz, "changes.patch");
    return chdir(r->ws.root) == 0 && r->first_path ? 0 : mu_runner_fail(r, 1, "no workspace");
}

static void close_all(struct mu_runner *r)
{
    r->live = mu_live_close(r->live);
    mu_secrets_forget(r);
    r->restore = mu_restore_free(r->restore);
    mu_output_fini(&r->output);
    mu_result_fini(&r->result);
    mu_checkouts_fini(&r->checkouts);
    mu_buf_fini(&r->prompt);
    mu_workspace_close(&r->ws);
    mu_procs_fini(&r->procs);
    r->bridge = mu_bridge_close(r->bridge);
    mu_free(r->first_path);
    r->first_path = NULL;
}

int mu_runner_main(int argc, char **argv)
{
    static struct mu_runner r;
    r = (struct mu_runner){.began_ms = mu_mono_ms(), .ws = {.fd = -1, .oz = -1}};
    r.output.fd = r.procs.sigfd = -1;
    r.report.dir = r.report.pipe = -1;
    r.result.phase = "args";
    mu_buf_init(&r.prompt, MU_PROMPT_MAX);
    fill_stdio();
    lock_memory();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--self-test") == 0) {
            return mu_runner_self_test();
        }
    }
    umask(022);
    find_env(&r);
    struct inputs in = {argc - 1, argv + 1, take_env(&r, "OZ_RUN_TOKEN")};
    char *other_name MU_AUTO_FREE = take_env(&r, "RUNNER_TOKEN");
    if (!in.token) {
        in.token = mu_steal(&other_name);
    }
    r.token = in.token;
    int status = open_all(&r);
    if (!status && mu_live_wanted()) {
        status = mu_live_open(&r, in.token, &r.live);
        status = status ? status : mu_restore_open(&r, &r.restore);
    }
    if (!status) {
        status = all_steps(&r, &in);
    }
    if (r.live) {
        mu_live_say_end(r.live, status, r.result.message);
    }
    r.result.exit_code = status;
    mu_runner_finish(&r);
    if (in.token) {
        explicit_bzero(in.token, strlen(in.token));
        mu_free(in.token);
    }
    close_all(&r);
    return status;
}
