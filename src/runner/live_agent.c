/* The agent's process: started with its bridge program, spoken with over pipes, started again. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "runner/live_int.h"
#include "runner/procs_int.h"

enum { READ_BLOCK = 4096, ERR_BLOCK = 4096, WORDS = 64, DRAIN_MS = 500, CLOSED_MS = 2000 };

/* What speaks ACP, and how it is made to ask (real-parts.md 5): the policy and people decide, and
 * the sandbox is what protects. */
static const struct bridge {
    enum mu_harness harness;
    const char *name, *command, *mode;
    const char *variable, *value; /* set when it is not */
    const char *serve;            /* what speaks its own protocol, which is preferred */
} bridges[] = {
    {MU_HARNESS_CLAUDE, "CLAUDE", "claude-agent-acp", "default", NULL, NULL, NULL},
    {MU_HARNESS_CODEX, "CODEX",
     "codex-acp -c approval_policy=\"untrusted\" -c sandbox_mode=\"danger-full-access\"", NULL,
     NULL, NULL, NULL},
    {MU_HARNESS_GEMINI, "GEMINI", "gemini --acp", "default", NULL, NULL, NULL},
    {MU_HARNESS_OPENCODE, "OPENCODE", "opencode acp", NULL, "OPENCODE_PERMISSION",
     "{\"*\":\"allow\",\"bash\":\"ask\",\"edit\":\"ask\",\"webfetch\":\"ask\","
     "\"external_directory\":\"ask\"}",
     "opencode serve"},
    {MU_HARNESS_CUSTOM, "CUSTOM", NULL, NULL, NULL, NULL, NULL},
    {MU_HARNESS_SHELL, "SHELL", NULL, NULL, NULL, NULL, NULL},
};

static const struct bridge *bridge_of(enum mu_harness h)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(bridges); i++) {
        if (bridges[i].harness == h) {
            return &bridges[i];
        }
    }
    return &bridges[0];
}

void mu_agent_init(struct mu_agent *a)
{
    *a = (struct mu_agent){.in = -1, .out = -1, .err = -1};
    mu_buf_init(&a->tell, MU_LIVE_AGENT_OUT);
}

static void close_fds(struct mu_agent *a)
{
    int *fds[] = {&a->in, &a->out, &a->err};
    for (size_t i = 0; i < MU_ARRAY_LEN(fds); i++) {
        if (*fds[i] >= 0) {
            close(*fds[i]);
        }
        *fds[i] = -1;
    }
}

static void end_speaking(struct mu_agent *a)
{
    if (a->serve) {
        a->serve = mu_serve_free(a->serve);
    } else if (a->spoke) {
        mu_acp_fini(&a->acp);
    }
    a->spoke = false;
}

void mu_agent_fini(struct mu_live *v)
{
    struct mu_agent *a = &v->agent;
    close_fds(a);
    end_speaking(a);
    mu_buf_fini(&a->tell);
}

static int fail(struct mu_live *v, int status, const char *text)
{
    struct mu_json_w *w = mu_link_begin(&v->link, "error");
    mu_jw_kcstr(w, "error", text);
    mu_link_end(&v->link);
    mu_view_note(v, "\x1b[31m", "%s", text);
    v->agent.step = MU_AGENT_GONE;
    return mu_runner_fail(v->r, status, "%.400s", text);
}

/* --- starting it --- */

/* The pipes of a child that is spoken with; the ends of the child are closed afterwards. */
static int start_piped(struct mu_live *v, const char *const *argv, bool *no_interpreter)
{
    struct mu_agent *a = &v->agent;
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    struct mu_spawned child = {.pid = -1, .out = -1};
    int r = pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 ? -errno : 0;
    if (!r) {
        struct mu_proc proc = {.argv = argv, .cwd = v->r->ws.root, .in = in[0], .out = out[1]};
        mu_spawn(&proc, &child);
        r = child.error;
    }
    *no_interpreter = child.no_interpreter;
    int theirs[] = {in[0], out[1]};
    for (size_t i = 0; i < MU_ARRAY_LEN(theirs); i++) {
        if (theirs[i] >= 0) {
            close(theirs[i]);
        }
    }
    a->in = in[1];
    a->out = out[0];
    a->err = child.out;
    if (r) {
        close_fds(a);
        return r;
    }
    (void)fcntl(a->in, F_SETFL, O_NONBLOCK);
    (void)fcntl(a->out, F_SETFL, O_NONBLOCK);
    a->pid = child.pid;
    a->ended = false;
    a->drain_until = a->kill_at = 0;
    return 0;
}

/* Cuts `text` up; the number of words. */
static size_t split(char *text, const char *argv[WORDS])
{
    size_t n = 0;
    for (char *p = text; p && *p && n < WORDS;) {
        p += strspn(p, " \t");
        size_t len = strcspn(p, " \t");
        if (len) {
            argv[n++] = p;
        }
        p += len;
        if (*p) {
            *p++ = 0;
        }
    }
    return n;
}

static const char *wanted_model(const struct mu_live *v)
{
    const char *model = getenv("OZ_MODEL_ID");
    return v->model[0] ? v->model : model && *model ? model : v->r->args.model;
}

static struct mu_acp_options options(const struct mu_live *v, const char *mode)
{
    return (struct mu_acp_options){v->r->ws.root,
                                   v->agent.conversation[0] ? v->agent.conversation : v->load, mode,
                                   MU_VERSION, v->model};
}

/* OpenCode's own server. -errno: it is not there. */
static int start_serve(struct mu_live *v, const char *command)
{
    struct mu_agent *a = &v->agent;
    struct mu_acp_options opt = options(v, NULL);
    char *copy MU_AUTO_FREE = mu_bytes_dup(mu_str(command));
    const char *argv[WORDS + 5] = {NULL};
    char port[8];
    bool no_interpreter = false;
    size_t n = split(copy, argv);
    int r = n ? 0 : -ENOENT;
    end_speaking(a);
    a->serve = r ? NULL : mu_serve_new(v, &opt, wanted_model(v), &r);
    if (!a->serve) {
        return r;
    }
    snprintf(port, sizeof port, "%u", a->serve->port);
    const char *const more[] = {"--hostname", "127.0.0.1", "--port", port};
    memcpy(&argv[n], more, sizeof more);
    mu_serve_secret(a->serve);
    r = start_piped(v, argv, &no_interpreter);
    mu_serve_forget();
    if (r) {
        a->serve = mu_serve_free(a->serve);
        return r;
    }
    close(a->in); /* nothing is said to it there */
    a->in = -1;
    a->spoke = true;
    a->step = MU_AGENT_STARTING;
    return 0;
}

static int start_acp(struct mu_live *v, const struct bridge *b, const char *command)
{
    struct mu_agent *a = &v->agent;
    char *copy MU_AUTO_FREE = mu_bytes_dup(mu_str(command));
    const char *argv[WORDS + 1] = {NULL};
    char text[512];
    bool no_interpreter = false;
    if (!split(copy, argv)) {
        return fail(v, 127, "the agent's command is empty");
    }
    int r = start_piped(v, argv, &no_interpreter);
    if (r) {
        snprintf(text, sizeof text, "%.200s: %s%s", argv[0],
                 r == -ENOENT ? "not found: live sessions need this program in the image"
                              : mu_err_text(r),
                 no_interpreter ? " (what its first line names is missing here)" : "");
        return fail(v, r == -EACCES ? 126 : 127, text);
    }
    end_speaking(a);
    struct mu_acp_options opt = options(v, b->mode);
    r = mu_acp_init(&a->acp, &mu_live_acp, v, &opt);
    a->spoke = r == 0;
    a->step = MU_AGENT_STARTING;
    r = r ? r : mu_acp_start(&a->acp);
    return r ? fail(v, 1, mu_err_text(r)) : 0;
}

/* A program without ACP has the screen for itself. */
static int start_screen(struct mu_live *v, const char *prompt)
{
    struct mu_runner *r = v->r;
    char script[4400];
    const char *const run_script[] = {"/bin/sh", script, NULL};
    const char *const custom[] = {"/bin/sh", "-c", getenv("OZ_SIDECAR_CUSTOM_CMD"), NULL};
    const char *const *argv = NULL;
    int in MU_AUTO_CLOSE = -1, e = 0;
    if (r->harness == MU_HARNESS_CUSTOM) {
        if (!custom[2] || !*custom[2]) {
            return fail(v, 2,
                        "harness custom needs OZ_SIDECAR_CUSTOM_CMD or OZ_SIDECAR_CUSTOM_ACP_CMD");
        }
        argv = custom;
    } else if (!v->interactive) {
        argv = run_script;
    }
    if (prompt && r->harness == MU_HARNESS_CUSTOM && !v->interactive) {
        mu_buf_clear(&r->prompt);
        mu_buf_add_str(&r->prompt, prompt);
        in = mu_runner_prompt_file(r);
        e = in < 0 ? -errno : 0;
    } else if (prompt && argv == run_script) {
        e = mu_workspace_write(&r->ws, "task.sh", mu_str(prompt));
    }
    snprintf(script, sizeof script, "%s/.oz/task.sh", r->ws.root);
    e = e ? e : mu_term_start(v, 0, argv, in, 0, 0);
    if (e) {
        char text[300];
        snprintf(text, sizeof text, "terminal 0: %s", mu_err_text(e));
        return fail(v, e == -ENOENT ? 127 : 1, text);
    }
    v->agent.step = MU_AGENT_READY;
    return 0;
}

int mu_agent_start(struct mu_live *v)
{
    const struct bridge *b = bridge_of(v->r->harness);
    char name[48];
    snprintf(name, sizeof name, "OZ_SIDECAR_%s_ACP_CMD", b->name);
    const char *command = getenv(name);
    const char *serve = command ? NULL : getenv("OZ_SIDECAR_OPENCODE_SERVE_CMD");
    serve = command || serve ? serve : b->serve; /* who names a bridge wants it */
    command = command ? command : b->command;
    if (b->variable) {
        (void)setenv(b->variable, b->value, 0);
    }
    if (b->serve && serve && *serve && !v->agent.no_serve[0]) {
        int r = start_serve(v, serve);
        if (!r) {
            return 0;
        }
        snprintf(v->agent.no_serve, sizeof v->agent.no_serve, "%.100s: %s", serve, mu_err_text(r));
    }
    if (command) {
        return start_acp(v, b, command);
    }
    if (v->interactive) {
        return start_screen(v, NULL);
    }
    if (v->turn.step == MU_TURN_NONE) {
        return 0; /* with the prompt */
    }
    mu_buf_add_char(&v->turn.prompt, 0);
    return start_screen(v, v->turn.prompt.failed ? "" : v->turn.prompt.ptr);
}

/* --- speaking --- */

void mu_agent_write(struct mu_live *v)
{
    struct mu_agent *a = &v->agent;
    while (a->in >= 0 && a->tell.len) {
        ssize_t n = write(a->in, a->tell.ptr, a->tell.len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            if (errno != EAGAIN) {
                close(a->in);
                a->in = -1;
            }
            return;
        }
        mu_buf_consume(&a->tell, (size_t)n);
    }
}

enum mu_acp_state mu_agent_state(const struct mu_live *v)
{
    const struct mu_agent *a = &v->agent;
    return a->serve ? a->serve->oc.state : a->acp.state;
}

uint64_t mu_agent_touches(const struct mu_live *v)
{
    const struct mu_agent *a = &v->agent;
    return a->serve ? a->serve->oc.rows.touches : a->acp.rows.touches;
}

int mu_agent_prompt(struct mu_live *v, mu_bytes text)
{
    struct mu_agent *a = &v->agent;
    return a->serve ? mu_oc_prompt(&a->serve->oc, text) : mu_acp_prompt(&a->acp, text);
}

int mu_agent_cancel(struct mu_live *v)
{
    struct mu_agent *a = &v->agent;
    return a->serve ? mu_oc_cancel(&a->serve->oc) : mu_acp_cancel(&a->acp);
}

void mu_agent_decide(struct mu_live *v, unsigned handle, enum mu_acp_decision d, const char *words)
{
    struct mu_agent *a = &v->agent;
    if (handle >= MU_PUSH_HANDLE) {
        mu_push_decide(v, handle, d == MU_ACP_ALLOW, words);
    } else if (a->serve) {
        (void)!mu_oc_decide(&a->serve->oc, handle, d, v->guard.stop_on_deny ? NULL : words);
    } else {
        (void)!mu_acp_answer(&a->acp, handle, d);
    }
}

void mu_agent_reply(struct mu_live *v, unsigned handle, mu_bytes answer)
{
    if (v->agent.serve) {
        (void)!mu_oc_reply(&v->agent.serve->oc, handle, answer);
    }
}

/* One whose own protocol is not what we know may still speak ACP. */
static bool fall_back(struct mu_live *v, const char *why)
{
    struct mu_agent *a = &v->agent;
    if (!a->serve || a->step != MU_AGENT_STARTING || v->done || v->r->procs.stopping) {
        return false;
    }
    snprintf(a->no_serve, sizeof a->no_serve, "%s", why);
    mu_view_note(v, "\x1b[33m", "opencode serve: %s; it is spoken with over ACP", why);
    a->again = true;
    return true;
}

void mu_agent_broken(struct mu_live *v)
{
    char text[600];
    const char *why = v->agent.serve ? v->agent.serve->oc.err.text : v->agent.acp.err.text;
    if (v->agent.again || fall_back(v, why)) {
        mu_agent_kill(v, SIGKILL);
        return;
    }
    snprintf(text, sizeof text, "the agent was given up: %.480s", why);
    mu_turn_over(v, "failed", text, true);
    mu_live_end(v, 1, "%.470s", text);
}

void mu_agent_read(struct mu_live *v)
{
    struct mu_agent *a = &v->agent;
    char block[READ_BLOCK];
    for (int i = 0; i < 16 && a->out >= 0 && !mu_link_full(&v->link) && !v->done; i++) {
        ssize_t n = read(a->out, block, sizeof block);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            close(a->out);
            a->out = -1;
            a->kill_at = mu_mono_ms() + CLOSED_MS;
            return;
        }
        if (a->serve) {
            mu_serve_said(a->serve, mu_bytes_of(block, (size_t)n));
        } else if (mu_acp_feed(&a->acp, mu_bytes_of(block, (size_t)n)) < 0) {
            mu_agent_broken(v);
            return;
        }
    }
}

/* Its log: seen in terminal 0, in the runner's output and nowhere else. */
void mu_agent_read_err(struct mu_live *v)
{
    struct mu_agent *a = &v->agent;
    char block[ERR_BLOCK];
    ssize_t n = read(a->err, block, sizeof block);
    if (n > 0) {
        mu_say(&v->r->procs, mu_bytes_of(block, (size_t)n));
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        close(a->err);
        a->err = -1;
    }
}

void mu_agent_kill(struct mu_live *v, int sig)
{
    if (v->agent.pid > 0 && !v->agent.ended) {
        (void)kill(-v->agent.pid, sig);
    }
    if (v->terms[0].pid > 0 && !v->terms[0].ended) {
        (void)kill(-v->terms[0].pid, sig);
    }
}

static void exited(struct mu_live *v)
{
    int status = mu_procs_status(v->agent.wstatus);
    char text[200];
    snprintf(text, sizeof text, "the agent ended with status %d%s", status,
             v->turn.step == MU_TURN_RUNS ? " in the middle of a turn" : "");
    bool early = v->turn.step == MU_TURN_RUNS || v->agent.step == MU_AGENT_STARTING;
    if (v->turn.step != MU_TURN_NONE) {
        mu_turn_over(v, "failed", text, true);
    }
    /* one that ends by itself while somebody waits for it did not do its work, whatever it says */
    mu_live_end(v, status || !early ? status : 1, "%s", text);
}

void mu_agent_gone(struct mu_live *v)
{
    struct mu_agent *a = &v->agent;
    int64_t now = mu_mono_ms();
    a->drain_until = a->drain_until ? a->drain_until : now + DRAIN_MS;
    mu_agent_read(v);
    if (a->err >= 0) {
        mu_agent_read_err(v);
    }
    bool full = mu_link_full(&v->link); /* what it said last is not lost for that */
    if (a->out >= 0 && !a->again && !v->done && (full || now < a->drain_until)) {
        a->drain_until = full ? 0 : a->drain_until;
        return;
    }
    close_fds(a);
    mu_buf_clear(&a->tell);
    a->pid = 0;
    a->ended = false;
    a->drain_until = a->kill_at = 0;
    if (!a->again) {
        char why[80];
        snprintf(why, sizeof why, "it ended with status %d", mu_procs_status(a->wstatus));
        (void)fall_back(v, why);
    }
    if (!a->again || v->done) {
        exited(v);
        a->step = MU_AGENT_GONE;
        return;
    }
    a->again = false;
    if (v->turn.step == MU_TURN_RUNS) {
        mu_turn_over(v, "cancelled", "the agent did not stop and was started again", false);
    }
    int status = mu_agent_start(v);
    if (status) {
        mu_live_end(v, status, "%s", v->r->result.message);
    }
}
