/* The end: whatever happened, result.json says it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/env.h"
#include "runner/runner_int.h"

enum { RESULT_MAX = 1 << 20, OUTPUT_MAX = MU_OUTPUT_HEAD + MU_OUTPUT_MARK * 2 + MU_OUTPUT_TAIL };
static const struct mu_patch_limits PATCH = {NULL, 120000, 16 << 20, 32 << 20};
enum { PATCH_STOPPING_MS = 1200 };

static void write_result(struct mu_runner *r)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, RESULT_MAX);
    r->result.duration_ms = mu_mono_ms() - r->began_ms;
    mu_buf_add_char(&b, '{');
    mu_result_add(&b, &r->result);
    mu_buf_add_str(&b, "}\n");
    int e = b.failed ? b.failed : mu_workspace_write(&r->ws, "result.json", mu_buf_bytes(&b));
    if (e) {
        mu_note("result.json: %s", mu_err_text(e));
    }
}

/* What was kept of the output, in memory. */
static void read_output(struct mu_runner *r, struct mu_buf *ret)
{
    struct mu_output *o = &r->output;
    while (ret->len < (size_t)o->len) {
        char *p = mu_buf_room(ret, (size_t)o->len - ret->len);
        ssize_t n = p ? pread(o->fd, p, (size_t)o->len - ret->len, (off_t)ret->len) : 0;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        ret->len += (size_t)n;
    }
}

/* An agent that cleaned the workspace took the file's name away, not our descriptor. */
static void name_output(struct mu_runner *r, mu_bytes kept)
{
    struct stat there, ours;
    bool same = fstatat(r->ws.oz, "agent_output.txt", &there, AT_SYMLINK_NOFOLLOW) == 0 &&
                fstat(r->output.fd, &ours) == 0 && there.st_ino == ours.st_ino &&
                there.st_dev == ours.st_dev;
    if (!same) {
        int e = mu_workspace_write(&r->ws, "agent_output.txt", kept);
        if (e) {
            mu_note("agent_output.txt: %s", mu_err_text(e));
        }
    }
}

static void add_patch(struct mu_runner *r)
{
    struct mu_patch_limits limits = PATCH;
    limits.path = r->first_path;
    if (r->procs.stopping) {
        limits.timeout_ms = PATCH_STOPPING_MS;
    }
    int64_t bytes = mu_patch_make(&r->checkouts, &r->ws, &r->procs, &limits);
    bytes = bytes > 0 ? mu_secrets_file(r, "changes.patch") : bytes;
    if (bytes < 0) {
        mu_note("changes.patch: %s", mu_err_text((int)bytes));
        (void)unlinkat(r->ws.oz, "changes.patch", 0);
    }
    struct mu_result_file f = {mu_bytes_dup(MU_B("changes.patch")),
                               mu_bytes_dup(MU_B(MU_WORKSPACE "/.oz/changes.patch")),
                               mu_media_type("changes.patch"), bytes};
    if (bytes > 0 && f.name && f.path) {
        r->result.files[r->result.n_files++] = f;
    } else {
        mu_result_file_fini(&f);
    }
}

/* The branch of the pull requests is known when the task left the one it began with in its only
 * repository. */
static void find_branch(struct mu_runner *r)
{
    if (r->checkouts.n != 1 || !r->result.n_prs) {
        return;
    }
    const struct mu_checkout *c = &r->checkouts.items[0];
    char *now = mu_checkout_branch(c);
    if (now && (!c->branch || strcmp(now, c->branch) != 0)) {
        r->result.pr_branch = now;
    } else {
        mu_free(now);
    }
}

/* What could not be gone through is not handed on. */
static void hide_in_artifacts(struct mu_runner *r, size_t first)
{
    struct mu_result *res = &r->result;
    size_t n = first;
    for (size_t i = first; i < res->n_files; i++) {
        struct mu_result_file f = res->files[i];
        mu_bytes path = mu_str(f.path);
        f.bytes = mu_bytes_starts(path, MU_B(MU_WORKSPACE "/.oz/"))
                      ? mu_secrets_file(r, f.path + sizeof MU_WORKSPACE "/.oz/" - 1)
                      : MU_E_INVALID;
        if (f.bytes < 0) {
            mu_note("%s: %s", f.name, mu_err_text((int)f.bytes));
            mu_result_file_fini(&f);
        } else {
            res->files[n++] = f;
        }
    }
    res->n_files = n;
}

static void collect(struct mu_runner *r, struct mu_buf *kept)
{
    struct mu_result *res = &r->result;
    if (r->output.fd >= 0) {
        mu_output_end(&r->output);
        read_output(r, kept);
        name_output(r, mu_buf_bytes(kept));
        res->output_path = MU_WORKSPACE "/.oz/agent_output.txt";
        res->output_truncated = r->output.cut;
        res->n_prs = mu_find_pull_requests(mu_buf_bytes(kept), res->prs);
        res->session_link = mu_find_session_link(mu_buf_bytes(kept));
        find_branch(r);
    }
    write_result(r); /* whoever kills us now finds what is known */
    if (r->output.fd >= 0) {
        add_patch(r);
        size_t first = res->n_files;
        size_t left_out = mu_workspace_artifacts(&r->ws, res->files, &res->n_files);
        hide_in_artifacts(r, first);
        if (left_out) {
            mu_note("%zu of the artifacts were left out: no plain files, too many or too large",
                    left_out);
        }
        write_result(r);
    }
}

void mu_runner_finish(struct mu_runner *r)
{
    struct mu_err err;
    struct mu_buf kept MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&kept, OUTPUT_MAX);
    r->result.created_ms = mu_env_wall_ms(&mu_env_real);
    mu_say_flush(&r->procs, r->procs.stopping ? 200 : 5000);
    if (r->ws.fd >= 0 && mu_workspace_oz(&r->ws, &err) == 0) {
        collect(r, &kept);
    }
    mu_report_end(&r->report, &r->procs, &r->result, mu_buf_bytes(&kept));
}
