/* The kind `direct`: the agent as a process of this user, without any isolation (oz-worker.md 10).
 * A small shell stays around the agent and writes its exit status into a file, and its output goes
 * to a file: so a restarted worker finds the agent again, running or ended. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#include "exec/process.h"
#include "exec/sandbox/direct_int.h"

enum {
    ARENA_BYTES = 64 << 20,
    TAIL_FIRST_MS = 10,
    TAIL_MOST_MS = 250,
    READ_PIECE = 64 << 10,
    PIECES = 16, /* of one turn */
    DEFAULT_LOG = 64 << 20,
    DEFAULT_GRACE_MS = 10000,
    TEARDOWN_MS = 60000
};

/* $1 = where the status goes; the rest is the command. The trap keeps the shell until the agent has
 * ended; the agent itself gets the signal's usual effect. */
static const char around[] =
    "end=$1; shift; trap : TERM INT HUP; \"$@\"; s=$?; echo \"$s\" >\"$end.tmp\" && "
    "mv -f \"$end.tmp\" \"$end\"; exit \"$s\"";

static void on_tail(struct mu_timer *t);
static void reap(struct mu_direct_box *b);
static void free_box(struct mu_direct_box *b);

static struct mu_direct_box *box_of(struct mu_sandbox *s)
{
    return (struct mu_direct_box *)s;
}

struct mu_work *mu_direct_work(struct mu_direct *d)
{
    if (!d->work && mu_work_new(1, 1024, &d->work) < 0) {
        d->work = NULL;
    }
    return d->work;
}

/* --- driver --- */

static int direct_open(struct mu_loop *loop, const struct mu_sandbox_settings *settings,
                       struct mu_sandbox_driver **ret, struct mu_err *err)
{
    const struct mu_sandbox_settings *s = settings;
    struct mu_direct *d = mu_calloc(1, sizeof *d);
    if (!d) {
        return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    d->loop = loop;
    d->settings = s;
    mu_list_init(&d->boxes);
    int n = snprintf(d->root, sizeof d->root, "%s/direct", s->state_dir);
    int m = s->workspace_root
                ? snprintf(d->workspaces, sizeof d->workspaces, "%s", s->workspace_root)
                : snprintf(d->workspaces, sizeof d->workspaces, "%s/workspaces", s->state_dir);
    /* Room for the ids below them. */
    if (n >= MU_DIRECT_PATH - 200 || m >= MU_DIRECT_PATH - 200 || d->workspaces[0] != '/' ||
        (s->target_dir && (s->target_dir[0] != '/' || strlen(s->target_dir) > 800))) {
        mu_free(d);
        return mu_err_set(err, MU_E_INVALID,
                          "workspace_root and target_dir must be absolute paths of at most 800 "
                          "characters");
    }
    *ret = (struct mu_sandbox_driver *)d;
    return 0;
}

static struct mu_sandbox_driver *direct_close(struct mu_sandbox_driver *sd)
{
    struct mu_direct *d = (struct mu_direct *)sd;
    if (d) {
        mu_work_free(d->work);
        MU_LIST_EACH(it, tmp, &d->boxes)
        {
            struct mu_direct_box *b = MU_CONTAINER(it, struct mu_direct_box, link);
            mu_list_remove(&b->link);
            b->detached = true; /* what is still on its way to the loop frees it */
            b->jobs++;
            mu_direct_job_done(b);
        }
        mu_free(d);
    }
    return NULL;
}

struct check {
    struct mu_post post;
    struct mu_direct *d;
    void (*done)(void *arg, const struct mu_sandbox_report *report);
    void *arg;
};

static char *find_agent(const struct mu_direct *d)
{
    char path[MU_DIRECT_PATH + 32];
    if (d->settings->oz_path) {
        return mu_process_find(d->settings->oz_path, getenv("PATH"));
    }
    char *oz = mu_process_find("oz", getenv("PATH"));
    if (oz || !d->settings->bundle_dir) {
        return oz;
    }
    snprintf(path, sizeof path, "%s/bin/muster", d->settings->bundle_dir); /* knows `agent run` */
    return mu_process_find(path, NULL);
}

static void tell_check(struct mu_post *post)
{
    struct check *c = MU_CONTAINER(post, struct check, post);
    struct mu_sandbox_report r = {.kind = "direct", .strength = "none", .n_layers = 1};
    char *agent = find_agent(c->d);
    r.usable = c->d->settings->allow_direct && agent;
    snprintf(r.summary, sizeof r.summary, "%s%s",
             !c->d->settings->allow_direct ? "isolates nothing: needs ALLOW_UNSAFE_PROCESS_DRIVER=1"
             : agent                       ? "isolates nothing; agent "
                     : "no agent program: neither oz_path, nor oz on PATH, nor the runner bundle",
             r.usable ? agent : "");
    snprintf(r.layers[0].name, sizeof r.layers[0].name, "isolation");
    snprintf(r.layers[0].cause, sizeof r.layers[0].cause, "the kind direct has none");
    snprintf(r.layers[0].cure, sizeof r.layers[0].cure, "use --sandbox namespace or docker");
    mu_free(agent);
    c->done(c->arg, &r);
    mu_free(c);
}

static int direct_check(struct mu_sandbox_driver *sd,
                        void (*done)(void *arg, const struct mu_sandbox_report *report), void *arg)
{
    struct check *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    *c = (struct check){{.fn = tell_check}, (struct mu_direct *)sd, done, arg};
    mu_loop_post(c->d->loop, &c->post);
    return 0;
}

/* --- a box --- */

static struct mu_direct_box *new_box(struct mu_direct *d, const char *execution_id,
                                     const struct mu_sandbox_events *events, void *arg)
{
    struct mu_direct_box *b = mu_calloc(1, sizeof *b);
    if (b) {
        b->d = d;
        b->events = *events;
        b->arg = arg;
        b->log_fd = -1;
        b->exit_code = -1;
        b->grace_ms = DEFAULT_GRACE_MS;
        b->log_bytes = DEFAULT_LOG;
        mu_arena_init(&b->arena, ARENA_BYTES);
        mu_timer_init(&b->tail, d->loop, on_tail);
        mu_direct_paths(b, execution_id);
        mu_list_push(&d->boxes, &b->link);
    }
    return b;
}

static void free_box(struct mu_direct_box *b)
{
    mu_list_remove(&b->link);
    mu_timer_clear(&b->tail);
    mu_child_forget(b->child);
    mu_arena_fini(&b->arena);
    if (b->log_fd >= 0) {
        close(b->log_fd);
    }
    mu_free(b);
}

void mu_direct_job_done(struct mu_direct_box *b)
{
    b->jobs--;
    if (b->detached && b->jobs == 0) {
        free_box(b);
    }
}

static void step_late(struct mu_post *post)
{
    struct mu_job *job = MU_CONTAINER(post, struct mu_job, post);
    job->done(job);
}

/* A step on a work thread; where there is none it counts as failed. */
static void run_step(struct mu_direct_box *b, void (*run)(struct mu_job *),
                     void (*done)(struct mu_job *))
{
    struct mu_work *work = mu_direct_work(b->d);
    b->step = (struct mu_job){.run = run, .done = done, .loop = b->d->loop};
    b->step_result = MU_E_CLOSED;
    b->jobs++;
    int r = work ? mu_work_submit(work, &b->step) : -ENOMEM;
    if (r < 0) { /* better on this thread than not at all */
        run(&b->step);
        b->step.post.fn = step_late;
        mu_loop_post(b->d->loop, &b->step.post);
    }
}

static void say_state(struct mu_direct_box *b, const char *state)
{
    if (b->events.state) {
        b->events.state(b->arg, state, NULL);
    }
}

static void fail(struct mu_direct_box *b, const char *reason, const char *message)
{
    if (!b->reason[0]) {
        snprintf(b->reason, sizeof b->reason, "%s", reason);
        snprintf(b->message, sizeof b->message, "%s", message);
    }
}

/* --- its output --- */

static bool read_some(struct mu_direct_box *b)
{
    char piece[READ_PIECE];
    int64_t room = b->log_bytes - b->log_at;
    size_t want = (size_t)MU_MIN(MU_MAX(room, (int64_t)0), (int64_t)sizeof piece);
    ssize_t n = want && b->log_fd >= 0 ? pread(b->log_fd, piece, want, b->log_at) : 0;
    if (n <= 0) {
        return false;
    }
    int64_t at = b->log_at;
    b->log_at += n;
    if (b->events.log) {
        b->events.log(b->arg, at, mu_bytes_of(piece, (size_t)n));
    }
    return true;
}

/* What is beyond the limit takes no disk. */
static void cut_log(struct mu_direct_box *b)
{
    struct stat st;
    if (b->log_at >= b->log_bytes && b->log_fd >= 0 && fstat(b->log_fd, &st) == 0 &&
        st.st_size > b->log_bytes) {
        int r MU_UNUSED = fallocate(b->log_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    b->log_bytes, st.st_size - b->log_bytes);
    }
}

static void on_tail(struct mu_timer *t)
{
    struct mu_direct_box *b = MU_CONTAINER(t, struct mu_direct_box, tail);
    bool some = false;
    for (int i = 0; i < PIECES && read_some(b); i++) {
        some = true;
    }
    cut_log(b);
    b->tail_ms = some ? TAIL_FIRST_MS : MU_MIN(b->tail_ms * 2, (int64_t)TAIL_MOST_MS);
    (void)!mu_timer_set(t, b->tail_ms);
}

static void start_tail(struct mu_direct_box *b)
{
    b->tail_ms = TAIL_FIRST_MS;
    (void)!mu_timer_set(&b->tail, b->tail_ms);
}

/* --- the end --- */

static void tell_end(struct mu_job *job)
{
    struct mu_direct_box *b = MU_CONTAINER(job, struct mu_direct_box, step);
    if (b->detached) {
        mu_direct_job_done(b);
        return;
    }
    b->jobs--;
    while (read_some(b)) {
    }
    cut_log(b);
    b->phase = MU_DIRECT_ENDED;
    const struct mu_sandbox_result result = {.exit_code = b->exit_code,
                                             .failure_reason = b->reason[0] ? b->reason : NULL,
                                             .message = b->reason[0] ? b->message : NULL};
    b->events.ended(b->arg, &result);
}

static void reap(struct mu_direct_box *b)
{
    mu_timer_clear(&b->tail);
    b->phase = MU_DIRECT_REAPING;
    run_step(b, mu_direct_reap, tell_end);
}

static void agent_done(void *arg, int status, bool timed_out)
{
    struct mu_direct_box *b = arg;
    b->child = NULL;
    b->exit_code = status;
    if (status < 0 && !mu_direct_read_end(b, &b->exit_code)) {
        fail(b, b->stop_reason ? b->stop_reason : "unknown",
             b->stop_reason ? "stopped" : "the agent ended while no worker watched it");
    }
    if (timed_out) {
        fail(b, "task_timeout", "the task took longer than it may");
    } else if (b->stop_reason) {
        fail(b, b->stop_reason, "stopped");
    }
    reap(b);
}

/* --- the agent --- */

static int start_agent(struct mu_direct_box *b)
{
    char end[MU_DIRECT_PATH + 32];
    size_t n = 0;
    MU_AUTO_FREE char *program = find_agent(b->d);
    if (!program) {
        fail(b, "agent_invocation", "no agent program: set oz_path, or put oz on PATH");
        return MU_E_NOT_FOUND;
    }
    while (b->argv[n]) {
        n++;
    }
    const char **argv = mu_arena_calloc(&b->arena, (n + 8) * sizeof *argv);
    const char *const *env = mu_direct_agent_env(b);
    if (!argv || !env) {
        return -ENOMEM;
    }
    snprintf(end, sizeof end, "%s/end", b->folder);
    const char *const first[] = {"/bin/sh", "-c", around, "sh", end, program};
    memcpy(argv, first, sizeof first);
    memcpy(argv + MU_ARRAY_LEN(first), b->argv, n * sizeof *argv);
    const struct mu_child_request req = {.argv = argv,
                                         .env = env,
                                         .cwd = b->workspace,
                                         .output_fd = b->log_fd,
                                         .timeout_ms = b->timeout_ms,
                                         .grace_ms = b->grace_ms,
                                         .done = agent_done,
                                         .arg = b};
    return mu_child_start(b->d->loop, &req, &b->child);
}

static void run_agent(struct mu_direct_box *b)
{
    int64_t started = 0;
    b->phase = MU_DIRECT_RUNNING;
    int r = start_agent(b);
    if (r < 0) {
        fail(b, "agent_invocation", mu_err_text(r));
        reap(b);
        return;
    }
    pid_t pid = mu_child_pid(b->child);
    if (mu_child_started(pid, &started) < 0 || mu_direct_write_meta(b, pid, started) < 0) {
        started = 0; /* it cannot be found again after a restart, that is all */
    }
    mu_arena_fini(&b->arena);
    b->env = NULL;
    b->argv = NULL;
    start_tail(b);
    say_state(b, "running");
}

static void setup_done(void *arg, int status, bool timed_out)
{
    struct mu_direct_box *b = arg;
    b->child = NULL;
    if (b->stop_reason) {
        fail(b, b->stop_reason, "stopped");
    } else if (timed_out) {
        fail(b, "task_timeout", "the setup command took longer than the task may");
    } else if (status != 0) {
        char text[80];
        snprintf(text, sizeof text, "the setup command ended with status %d", status);
        b->exit_code = status;
        fail(b, "setup_command", text);
    } else {
        run_agent(b);
        return;
    }
    reap(b);
}

static int start_hook(struct mu_direct_box *b, const char *command, bool with_file, int64_t limit,
                      void (*done)(void *arg, int status, bool timed_out))
{
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};
    const char *const *env = mu_direct_setup_env(b, with_file);
    if (!env) {
        return -ENOMEM;
    }
    const struct mu_child_request req = {.argv = argv,
                                         .env = env,
                                         .cwd = b->workspace,
                                         .output_fd = b->log_fd,
                                         .timeout_ms = limit,
                                         .grace_ms = b->grace_ms,
                                         .done = done,
                                         .arg = b};
    return mu_child_start(b->d->loop, &req, &b->child);
}

static void prepared(struct mu_job *job)
{
    struct mu_direct_box *b = MU_CONTAINER(job, struct mu_direct_box, step);
    if (b->detached) {
        mu_direct_job_done(b);
        return;
    }
    b->jobs--;
    if (b->step_result < 0) {
        char text[200];
        snprintf(text, sizeof text, "the workspace could not be made: %s",
                 mu_err_text(b->step_result));
        fail(b, "workspace_setup", text);
        reap(b);
        return;
    }
    if (b->stop_reason) {
        fail(b, b->stop_reason, "stopped before it began");
        reap(b);
        return;
    }
    say_state(b, "starting");
    if (!b->d->settings->setup_command) {
        run_agent(b);
        return;
    }
    b->phase = MU_DIRECT_SETUP;
    start_tail(b);
    int r = start_hook(b, b->d->settings->setup_command, true, b->timeout_ms, setup_done);
    if (r < 0) {
        fail(b, "setup_command", mu_err_text(r));
        reap(b);
    }
}

/* --- start, adopt --- */

static int copy_list(struct mu_arena *a, const char *const *list, const char ***ret)
{
    size_t n = 0;
    while (list && list[n]) {
        n++;
    }
    const char **copy = mu_arena_calloc(a, (n + 1) * sizeof *copy);
    for (size_t i = 0; copy && i < n; i++) {
        copy[i] = mu_arena_dup(a, mu_str(list[i])).ptr;
        if (!copy[i]) {
            return -ENOMEM;
        }
    }
    *ret = copy;
    return copy ? 0 : -ENOMEM;
}

static int copy_spec(struct mu_direct_box *b, const struct mu_sandbox_spec *spec)
{
    const char **argv = NULL;
    int r = copy_list(&b->arena, spec->env, &b->env);
    if (r == 0) {
        r = copy_list(&b->arena, spec->argv, &argv);
        b->argv = argv;
    }
    if (r == 0 && spec->prompt.ptr) {
        b->prompt = mu_arena_dup(&b->arena, spec->prompt);
        r = b->prompt.ptr ? 0 : -ENOMEM;
    }
    snprintf(b->task_id, sizeof b->task_id, "%s", spec->task_id ? spec->task_id : "");
    b->timeout_ms = spec->timeout_ms;
    b->grace_ms = spec->stop_grace_ms > 0 ? spec->stop_grace_ms : DEFAULT_GRACE_MS;
    b->log_bytes = spec->log_bytes > 0 ? spec->log_bytes : DEFAULT_LOG;
    b->deadline_ms =
        spec->timeout_ms > 0 ? mu_env_wall_ms(mu_loop_env(b->d->loop)) + spec->timeout_ms : 0;
    return r;
}

static void begin(struct mu_post *post)
{
    struct mu_direct_box *b = MU_CONTAINER(post, struct mu_direct_box, post);
    if (b->detached) {
        mu_direct_job_done(b);
        return;
    }
    b->jobs--;
    say_state(b, "preparing");
    run_step(b, mu_direct_prepare, prepared);
}

static int direct_start(struct mu_sandbox_driver *sd, const struct mu_sandbox_spec *spec,
                        const struct mu_sandbox_events *events, void *arg, struct mu_sandbox **ret)
{
    struct mu_direct_box *b = new_box((struct mu_direct *)sd, spec->execution_id, events, arg);
    if (!b) {
        return -ENOMEM;
    }
    int r = copy_spec(b, spec);
    if (r < 0) {
        free_box(b);
        return r;
    }
    b->post.fn = begin;
    b->jobs++;
    mu_loop_post(b->d->loop, &b->post);
    *ret = (struct mu_sandbox *)b;
    return 0;
}

static void find_again(struct mu_post *post)
{
    struct mu_direct_box *b = MU_CONTAINER(post, struct mu_direct_box, post);
    pid_t pid = 0;
    int64_t started = 0;
    if (b->detached) {
        mu_direct_job_done(b);
        return;
    }
    b->jobs--;
    char path[MU_DIRECT_PATH + 32];
    snprintf(path, sizeof path, "%s/log", b->folder);
    b->log_fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    bool known = mu_direct_read_meta(b, &pid, &started, &b->deadline_ms);
    int64_t left = b->deadline_ms - mu_env_wall_ms(mu_loop_env(b->d->loop));
    const struct mu_child_request req = {.timeout_ms =
                                             b->deadline_ms > 0 ? MU_MAX(left, INT64_C(1)) : 0,
                                         .grace_ms = b->grace_ms,
                                         .done = agent_done,
                                         .arg = b};
    b->phase = MU_DIRECT_RUNNING;
    if (known && mu_child_adopt(b->d->loop, pid, started, &req, &b->child) == 0) {
        start_tail(b);
        say_state(b, "running");
        if (b->stop_reason) {
            mu_child_stop(b->child, b->stop_now);
        }
        return;
    }
    if (!mu_direct_read_end(b, &b->exit_code)) {
        fail(b, "unknown", "the worker was restarted and nothing is left of the task");
    }
    reap(b);
}

static int direct_adopt(struct mu_sandbox_driver *sd, const char *execution_id, int64_t log_offset,
                        const struct mu_sandbox_events *events, void *arg, struct mu_sandbox **ret)
{
    struct mu_direct_box *b = new_box((struct mu_direct *)sd, execution_id, events, arg);
    if (!b) {
        return -ENOMEM;
    }
    b->adopted = true;
    b->log_at = log_offset;
    b->post.fn = find_again;
    b->jobs++;
    mu_loop_post(b->d->loop, &b->post);
    *ret = (struct mu_sandbox *)b;
    return 0;
}

/* --- stop, release, detach --- */

static void direct_stop(struct mu_sandbox *s, bool graceful, const char *reason)
{
    struct mu_direct_box *b = box_of(s);
    if (!b->stop_reason) {
        b->stop_reason = reason;
    }
    b->stop_now = b->stop_now || !graceful;
    if (b->child && b->phase <= MU_DIRECT_RUNNING) {
        (void)kill(-mu_child_pid(b->child), SIGCONT); /* it may stand still */
        mu_child_stop(b->child, b->stop_now);
    }
}

static void direct_freeze(struct mu_sandbox *s, bool on, void (*done)(void *arg, int result),
                          void *arg)
{
    struct mu_direct_box *b = box_of(s);
    bool runs = b->child && b->phase == MU_DIRECT_RUNNING && !b->stop_reason;
    int r = !runs                                                        ? MU_E_UNAVAILABLE
            : kill(-mu_child_pid(b->child), on ? SIGSTOP : SIGCONT) == 0 ? 0
                                                                         : -errno;
    done(arg, r);
}

static void removed(struct mu_job *job)
{
    struct mu_direct_box *b = MU_CONTAINER(job, struct mu_direct_box, step);
    void (*fn)(void *) = b->released_fn;
    void *arg = b->released_arg;
    bool closed = b->detached;
    b->detached = true;
    mu_direct_job_done(b);
    if (!closed) {
        fn(arg);
    }
}

static void torn_down(void *arg, int status MU_UNUSED, bool timed_out MU_UNUSED)
{
    struct mu_direct_box *b = arg;
    b->child = NULL;
    b->phase = MU_DIRECT_REMOVING;
    run_step(b, mu_direct_remove, removed);
}

static void direct_release(struct mu_sandbox *s, void (*done)(void *arg), void *arg)
{
    struct mu_direct_box *b = box_of(s);
    const char *command = b->d->settings->teardown_command;
    b->released_fn = done;
    b->released_arg = arg;
    b->phase = MU_DIRECT_TEARDOWN;
    if (!command || start_hook(b, command, false, TEARDOWN_MS, torn_down) < 0) {
        torn_down(b, 0, false);
    }
}

static void direct_detach(struct mu_sandbox *s)
{
    struct mu_direct_box *b = box_of(s);
    if (b->child && b->phase != MU_DIRECT_RUNNING) {
        mu_child_stop(b->child, true); /* a half-done setup cannot be taken up again */
    }
    mu_child_forget(b->child);
    b->child = NULL;
    mu_timer_clear(&b->tail);
    b->detached = true;
    b->jobs++;
    mu_direct_job_done(b);
}

const struct mu_sandbox_ops mu_sandbox_direct = {
    .name = "direct",
    .open = direct_open,
    .close = direct_close,
    .check = direct_check,
    .start = direct_start,
    .adopt = direct_adopt,
    .stop = direct_stop,
    .freeze = direct_freeze,
    .read_file = mu_direct_read_file,
    .release = direct_release,
    .detach = direct_detach,
    .sweep = mu_direct_sweep,
};
