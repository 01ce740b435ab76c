/* The agent: its command, its output. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "runner/runner_int.h"

enum { CLEAN_MAX = 1 << 20 }; /* of what one read gives, with its marks */

static const char *get_env(const char *name)
{
    return getenv(name);
}

static void keep(struct mu_runner *r)
{
    mu_bytes clean = mu_buf_bytes(&r->clean);
    mu_output_add(&r->output, clean);
    mu_report_log(&r->report, r->output.total - (int64_t)clean.len, clean);
    mu_buf_clear(&r->clean);
}

static void said(void *arg, mu_bytes piece)
{
    struct mu_runner *r = arg;
    mu_buf_clear(&r->clean);
    mu_redact_feed(r->redact, &r->stream, piece, &r->clean);
    keep(r);
    mu_say(&r->procs, piece);
}

int mu_runner_prompt_file(struct mu_runner *r)
{
    int fd MU_AUTO_CLOSE = memfd_create("prompt", MFD_CLOEXEC);
    mu_bytes rest = mu_buf_bytes(&r->prompt);
    while (fd >= 0 && rest.len) {
        ssize_t n = write(fd, rest.ptr, rest.len);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        rest = mu_bytes_from(rest, n > 0 ? (size_t)n : 0);
    }
    if (fd < 0 || lseek(fd, 0, SEEK_SET) < 0) {
        return -1;
    }
    return mu_steal_fd(&fd);
}

/* Whoever asked for this agent cannot be asked back: the programs' own questions are off, and they
 * are told that something around them protects. */
static void prepare_env(enum mu_harness h)
{
    if (h == MU_HARNESS_CLAUDE) {
        (void)setenv("IS_SANDBOX", "1", 0); /* it refuses to go unasked as root otherwise */
    } else if (h == MU_HARNESS_OPENCODE) {
        (void)setenv("OPENCODE_PERMISSION", "{\"*\":\"allow\"}", 0);
    }
}

static void not_started(struct mu_runner *r, const struct mu_harness_cmd *cmd,
                        const struct mu_proc_end *end)
{
    char text[512];
    int n = snprintf(text, sizeof text, "muster runner: %.300s: %s%s\n",
                     *cmd->argv[0] ? cmd->argv[0] : "(empty command)",
                     end->error == -ENOENT ? "not found" : mu_err_text(end->error),
                     end->no_interpreter ? " (what its first line names is missing here)" : "");
    said(r, mu_bytes_of(text, (size_t)n));
    (void)mu_runner_fail(r, end->status, "%s was not started", mu_harness_name(r->harness));
}

static int run(struct mu_runner *r, const struct mu_harness_cmd *cmd)
{
    int in MU_AUTO_CLOSE = cmd->prompt_on_stdin ? mu_runner_prompt_file(r) : -1;
    if (cmd->prompt_on_stdin && in < 0) {
        return mu_runner_fail(r, 1, "the prompt cannot be handed over: %s", mu_err_text(-errno));
    }
    int out = mu_workspace_create(&r->ws, "agent_output.txt", 0644);
    if (out < 0) {
        return mu_runner_fail(r, 1, "agent_output.txt: %s", mu_err_text(out));
    }
    mu_output_init(&r->output, out, MU_OUTPUT_HEAD, MU_OUTPUT_TAIL);
    prepare_env(r->harness);
    struct mu_proc proc = {.argv = cmd->argv,
                           .cwd = r->ws.root,
                           .in = in,
                           .out = -1,
                           .kill_rest = true,
                           .sink = said,
                           .arg = r};
    struct mu_proc_end end;
    mu_procs_run(&r->procs, &proc, &end);
    if (end.error) {
        not_started(r, cmd, &end);
    } else if (end.stopped) {
        (void)mu_runner_child_failed(r, mu_harness_name(r->harness), &end);
    }
    return end.status;
}

int mu_runner_agent(struct mu_runner *r)
{
    struct mu_err err;
    char script[4400];
    if (mu_workspace_oz(&r->ws, &err) < 0) {
        return mu_runner_fail(r, 1, "%s", err.text);
    }
    mu_checkouts_find(&r->checkouts, &r->ws, &r->procs, r->first_path);
    if (r->harness == MU_HARNESS_SHELL) {
        int e = mu_workspace_write(&r->ws, "task.sh", mu_buf_bytes(&r->prompt));
        if (e) {
            return mu_runner_fail(r, 1, "task.sh: %s", mu_err_text(e));
        }
    }
    snprintf(script, sizeof script, "%s/.oz/task.sh", r->ws.root);
    struct mu_harness_cmd cmd;
    int e = mu_harness_command(r->harness, mu_buf_bytes(&r->prompt), script, get_env, &cmd, &err);
    if (e) {
        return mu_runner_fail(r, 2, "%s", e == -ENOMEM ? mu_err_text(e) : err.text);
    }
    mu_buf_init(&r->clean, CLEAN_MAX);
    int status = run(r, &cmd);
    mu_redact_flush(r->redact, &r->stream, &r->clean);
    keep(r);
    mu_buf_fini(&r->clean);
    mu_harness_cmd_fini(&cmd);
    return status;
}
