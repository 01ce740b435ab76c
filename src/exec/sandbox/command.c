/* The kind `command`: somebody else's machinery runs the task; a command hands it over
 * (oz-worker.md 11). Success means "dispatched": no end is told, a second command cancels. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/arena.h"
#include "exec/sandbox/child.h"
#include "exec/sandbox/sandbox.h"
#include "proto/json.h"

extern char **environ;

enum {
    ARENA_BYTES = 64 << 20,
    CANCEL_MS = 10000,
    GRACE_MS = 2000,
    DEFAULT_DISPATCH_MS = 60000,
    MAX_VARS = 8192
};

struct command {
    struct mu_loop *loop;
    const struct mu_sandbox_settings *settings;
    struct mu_list boxes;
};

struct box {
    struct mu_list link;
    struct command *d;
    char id[65], task_id[129];
    struct mu_arena arena;
    struct mu_buf input;
    const char *image, *root_url;
    struct mu_sandbox_events events;
    void *arg;
    struct mu_child *child;
    struct mu_post post;
    bool posted, detached, ended, cancelling;
    const char *stop_reason;
    int exit_code;
    const char *reason;
    char message[160];
    void (*released)(void *arg);
    void *released_arg;
};

/* --- driver --- */

static int command_open(struct mu_loop *loop, const struct mu_sandbox_settings *settings,
                        struct mu_sandbox_driver **ret, struct mu_err *err)
{
    if (!settings->dispatch_command || !settings->dispatch_command[0]) {
        return mu_err_set(err, MU_E_INVALID,
                          "dispatch_command is missing (backend.command in the config file)");
    }
    struct command *d = mu_calloc(1, sizeof *d);
    if (!d) {
        return mu_err_set(err, -ENOMEM, "%s", mu_err_text(-ENOMEM));
    }
    d->loop = loop;
    d->settings = settings;
    mu_list_init(&d->boxes);
    *ret = (struct mu_sandbox_driver *)d;
    return 0;
}

static void free_box(struct box *b)
{
    mu_list_remove(&b->link);
    mu_child_forget(b->child);
    mu_buf_wipe(&b->input);
    mu_arena_fini(&b->arena);
    mu_free(b);
}

static struct mu_sandbox_driver *command_close(struct mu_sandbox_driver *sd)
{
    struct command *d = (struct command *)sd;
    if (d) {
        MU_LIST_EACH(it, tmp, &d->boxes)
        {
            struct box *b = MU_CONTAINER(it, struct box, link);
            if (b->posted) { /* freed when the loop delivers it */
                mu_list_remove(&b->link);
                b->detached = true;
            } else {
                free_box(b);
            }
        }
        mu_free(d);
    }
    return NULL;
}

struct check {
    struct mu_post post;
    void (*done)(void *arg, const struct mu_sandbox_report *report);
    void *arg;
};

static void tell_check(struct mu_post *post)
{
    struct check *c = MU_CONTAINER(post, struct check, post);
    const struct mu_sandbox_report report = {.kind = "command",
                                             .strength = "none",
                                             .summary =
                                                 "tasks are handed to dispatch_command; what "
                                                 "isolates them is its business",
                                             .usable = true};
    c->done(c->arg, &report);
    mu_free(c);
}

static int command_check(struct mu_sandbox_driver *sd,
                         void (*done)(void *arg, const struct mu_sandbox_report *report), void *arg)
{
    struct check *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    *c = (struct check){{.fn = tell_check}, done, arg};
    mu_loop_post(((struct command *)sd)->loop, &c->post);
    return 0;
}

/* --- what the command gets --- */

static const char *value_of(const char *const *env, const char *name)
{
    size_t len = strlen(name);
    for (; env && *env; env++) {
        if (!strncmp(*env, name, len) && (*env)[len] == '=') {
            return *env + len + 1;
        }
    }
    return NULL;
}

static void put_sidecars(struct mu_json_w *w, const struct mu_sandbox_spec *spec)
{
    bool main = spec->sidecar_image && spec->sidecar_image[0];
    mu_jw_key(w, "sidecars");
    if (!main && spec->n_mounts == 0) {
        mu_jw_null(w);
        return;
    }
    mu_jw_arr(w);
    for (size_t i = main ? 0 : 1; i <= spec->n_mounts; i++) {
        const struct mu_sandbox_mount *m = i ? &spec->mounts[i - 1] : NULL;
        mu_jw_obj(w);
        mu_jw_kcstr(w, "image", m ? m->source : spec->sidecar_image);
        mu_jw_kcstr(w, "mount_path", m ? m->target : "/agent");
        mu_jw_kbool(w, "read_write", m && m->writable);
        mu_jw_obj_end(w);
    }
    mu_jw_arr_end(w);
}

static int make_input(struct box *b, const struct mu_sandbox_spec *spec)
{
    struct mu_json_w w = mu_json_w(&b->input);
    mu_jw_obj(&w);
    mu_jw_ki64(&w, "version", 1);
    mu_jw_kcstr(&w, "run_id", spec->task_id);
    mu_jw_kcstr(&w, "execution_id", spec->execution_id);
    mu_jw_kcstr(&w, "server_root_url", b->root_url);
    mu_jw_kcstr(&w, "worker_id", b->d->settings->worker_id ? b->d->settings->worker_id : "");
    mu_jw_kcstr(&w, "docker_image", b->image);
    mu_jw_key(&w, "base_args");
    mu_jw_arr(&w);
    for (const char *const *a = spec->argv; a && *a; a++) {
        mu_jw_str(&w, mu_str(*a));
    }
    mu_jw_arr_end(&w);
    mu_jw_key(&w, "env");
    mu_jw_obj(&w);
    for (const char *const *e = spec->env; e && *e; e++) {
        mu_bytes value = mu_str(*e);
        mu_bytes name = mu_arena_dup(&b->arena, mu_bytes_split(&value, '='));
        if (!name.ptr) {
            return -ENOMEM;
        }
        mu_jw_str(&w, name);
        mu_buf_add_char(&b->input, ':');
        w.comma = false;
        mu_jw_str(&w, value);
    }
    if (spec->prompt.ptr && !value_of(spec->env, "OZ_TASK_PROMPT")) { /* too long for a variable */
        mu_jw_kstr(&w, "OZ_TASK_PROMPT", spec->prompt);
    }
    mu_jw_obj_end(&w);
    put_sidecars(&w, spec);
    mu_jw_kraw(&w, "task", spec->task_json.len ? spec->task_json : MU_B("null"));
    mu_jw_obj_end(&w);
    return b->input.failed;
}

static bool ours(const char *pair)
{
    static const char *const names[] = {"OZ_RUN_ID=", "OZ_EXECUTION_ID=", "OZ_WORKER_BACKEND=",
                                        "OZ_SERVER_ROOT_URL=", "OZ_DOCKER_IMAGE="};
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        if (!strncmp(pair, names[i], strlen(names[i]))) {
            return true;
        }
    }
    return false;
}

static bool overridden(const char *pair, const char *const *later)
{
    const char *eq = strchr(pair, '=');
    for (; eq && later && *later; later++) {
        if (!strncmp(*later, pair, (size_t)(eq - pair) + 1)) {
            return true;
        }
    }
    return false;
}

/* The worker's own < configured < ours. */
static const char *const *make_env(struct box *b, bool whole)
{
    const char *const *configured = b->d->settings->environment;
    const char **list = mu_arena_calloc(&b->arena, (MAX_VARS + 8) * sizeof *list);
    size_t n = 0;
    if (!list) {
        return NULL;
    }
    for (char **e = environ; *e && n < MAX_VARS; e++) {
        if (!ours(*e) && !overridden(*e, configured)) {
            list[n++] = *e;
        }
    }
    for (const char *const *e = configured; e && *e && n < MAX_VARS; e++) {
        if (!ours(*e)) {
            list[n++] = *e;
        }
    }
    const char *const own[][2] = {{"OZ_RUN_ID", b->task_id},
                                  {"OZ_EXECUTION_ID", b->id},
                                  {"OZ_WORKER_BACKEND", "command"},
                                  {"OZ_SERVER_ROOT_URL", b->root_url},
                                  {"OZ_DOCKER_IMAGE", b->image}};
    for (size_t i = 0; i < (whole ? MU_ARRAY_LEN(own) : 3); i++) {
        list[n] = mu_arena_printf(&b->arena, "%s=%s", own[i][0], own[i][1]).ptr;
        if (!list[n++]) {
            return NULL;
        }
    }
    return list;
}

/* --- dispatch --- */

static void free_if_left(struct box *b)
{
    if (b->detached && !b->posted) {
        free_box(b);
    }
}

static void tell_end(struct mu_post *post)
{
    struct box *b = MU_CONTAINER(post, struct box, post);
    b->posted = false;
    if (b->detached) {
        free_if_left(b);
        return;
    }
    b->ended = true;
    const struct mu_sandbox_result result = {.exit_code = b->exit_code,
                                             .failure_reason = b->reason,
                                             .message = b->reason ? b->message : NULL};
    b->events.ended(b->arg, &result);
}

static void end(struct box *b, int exit_code, const char *reason, const char *message)
{
    b->exit_code = exit_code;
    b->reason = reason;
    snprintf(b->message, sizeof b->message, "%s", message);
    b->post.fn = tell_end;
    b->posted = true;
    mu_loop_post(b->d->loop, &b->post);
}

static int run(struct box *b, const char *command, bool whole, mu_bytes input, int64_t limit,
               void (*done)(void *arg, int status, bool timed_out))
{
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};
    const char *const *env = make_env(b, whole);
    if (!env) {
        return -ENOMEM;
    }
    const struct mu_child_request req = {.argv = argv,
                                         .env = env,
                                         .input = input,
                                         .output_fd = 2, /* the worker's own */
                                         .timeout_ms = limit,
                                         .grace_ms = GRACE_MS,
                                         .leave_group = true,
                                         .done = done,
                                         .arg = b};
    return mu_child_start(b->d->loop, &req, &b->child);
}

/* Which task it is, for a cancel after a restart of the worker. */
static void note_path(const struct box *b, char *dst, size_t size)
{
    snprintf(dst, size, "%s/command/%s", b->d->settings->state_dir, b->id);
}

static void keep_note(const struct box *b)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/command", b->d->settings->state_dir);
    int r MU_UNUSED = mkdir(path, 0700);
    note_path(b, path, sizeof path);
    MU_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
        ssize_t n MU_UNUSED = write(fd, b->task_id, strlen(b->task_id));
    }
}

static void read_note(struct box *b)
{
    char path[4200];
    note_path(b, path, sizeof path);
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, b->task_id, sizeof b->task_id - 1);
    b->task_id[MU_MAX(n, 0)] = 0;
}

static void dispatched(void *arg, int status, bool timed_out)
{
    struct box *b = arg;
    char text[120];
    b->child = NULL;
    if (timed_out) {
        end(b, -1, "dispatch_timeout", "the dispatch command took too long");
    } else if (b->stop_reason && status != 0) {
        end(b, status, b->stop_reason, "stopped");
    } else if (status != 0) {
        snprintf(text, sizeof text, "the dispatch command ended with status %d", status);
        end(b, status, "dispatch_command", text);
    } else {
        keep_note(b);
        end(b, 0, "dispatched", "dispatched");
    }
}

static void begin(struct mu_post *post)
{
    struct box *b = MU_CONTAINER(post, struct box, post);
    const struct mu_sandbox_settings *s = b->d->settings;
    b->posted = false;
    if (b->detached) {
        free_if_left(b);
        return;
    }
    if (b->stop_reason) {
        end(b, -1, b->stop_reason, "stopped before it began");
        return;
    }
    if (b->events.state) {
        b->events.state(b->arg, "starting", NULL);
    }
    int64_t limit = s->dispatch_timeout_ms > 0 ? s->dispatch_timeout_ms : DEFAULT_DISPATCH_MS;
    int r = run(b, s->dispatch_command, true, mu_buf_bytes(&b->input), limit, dispatched);
    mu_buf_wipe(&b->input);
    if (r < 0) {
        end(b, -1, "dispatch_command", mu_err_text(r));
    }
}

static struct box *new_box(struct command *d, const char *execution_id,
                           const struct mu_sandbox_events *events, void *arg)
{
    struct box *b = mu_calloc(1, sizeof *b);
    if (b) {
        b->d = d;
        b->events = *events;
        b->arg = arg;
        b->image = b->root_url = "";
        snprintf(b->id, sizeof b->id, "%s", execution_id);
        mu_arena_init(&b->arena, ARENA_BYTES);
        mu_buf_init(&b->input, ARENA_BYTES);
        mu_list_push(&d->boxes, &b->link);
    }
    return b;
}

static int command_start(struct mu_sandbox_driver *sd, const struct mu_sandbox_spec *spec,
                         const struct mu_sandbox_events *events, void *arg, struct mu_sandbox **ret)
{
    struct box *b = new_box((struct command *)sd, spec->execution_id, events, arg);
    if (!b) {
        return -ENOMEM;
    }
    const char *root = value_of(spec->env, "WARP_SERVER_ROOT_URL");
    mu_bytes image = mu_arena_dup(&b->arena, mu_str(spec->image ? spec->image : ""));
    mu_bytes url = mu_arena_dup(&b->arena, mu_str(root ? root : ""));
    snprintf(b->task_id, sizeof b->task_id, "%s", spec->task_id);
    int r = image.ptr && url.ptr ? 0 : -ENOMEM;
    if (r == 0) {
        b->image = image.ptr;
        b->root_url = url.ptr;
        r = make_input(b, spec);
    }
    if (r < 0) {
        free_box(b);
        return r;
    }
    b->post.fn = begin;
    b->posted = true;
    mu_loop_post(b->d->loop, &b->post);
    *ret = (struct mu_sandbox *)b;
    return 0;
}

/* What was handed over runs wherever it runs: it is dispatched still. */
static int command_adopt(struct mu_sandbox_driver *sd, const char *execution_id,
                         int64_t log_offset MU_UNUSED, const struct mu_sandbox_events *events,
                         void *arg, struct mu_sandbox **ret)
{
    struct box *b = new_box((struct command *)sd, execution_id, events, arg);
    if (!b) {
        return -ENOMEM;
    }
    read_note(b);
    if (b->task_id[0]) {
        end(b, 0, "dispatched", "dispatched");
    } else {
        end(b, -1, "unknown", "the worker was restarted while the task was being dispatched");
    }
    *ret = (struct mu_sandbox *)b;
    return 0;
}

/* --- cancel --- */

static void finish(struct box *b)
{
    void (*fn)(void *) = b->released;
    void *arg = b->released_arg;
    char path[4200];
    note_path(b, path, sizeof path);
    unlink(path);
    free_box(b);
    fn(arg);
}

static void cancelled(void *arg, int status MU_UNUSED, bool timed_out MU_UNUSED)
{
    struct box *b = arg;
    b->child = NULL;
    b->cancelling = false;
    if (b->released) {
        finish(b);
    }
}

static void command_stop(struct mu_sandbox *s, bool graceful, const char *reason)
{
    struct box *b = (struct box *)s;
    const char *command = b->d->settings->cancel_command;
    bool again = b->stop_reason != NULL;
    b->stop_reason = again ? b->stop_reason : reason;
    if (b->child && !b->cancelling) { /* it is being handed over */
        mu_child_stop(b->child, !graceful);
    } else if (b->ended && !again && command && command[0]) {
        b->cancelling = run(b, command, false, MU_B_NONE, CANCEL_MS, cancelled) == 0;
    }
}

static void command_read_file(struct mu_sandbox *s MU_UNUSED, const char *path MU_UNUSED,
                              size_t max MU_UNUSED,
                              void (*done)(void *arg, int result, mu_bytes bytes), void *arg)
{
    done(arg, MU_E_NOT_FOUND, MU_B_NONE); /* its workspace is elsewhere */
}

static void late_release(struct mu_post *post)
{
    struct box *b = MU_CONTAINER(post, struct box, post);
    b->posted = false;
    if (b->detached) {
        free_if_left(b);
    } else {
        finish(b);
    }
}

static void command_release(struct mu_sandbox *s, void (*done)(void *arg), void *arg)
{
    struct box *b = (struct box *)s;
    b->released = done;
    b->released_arg = arg;
    if (!b->cancelling) {
        b->post.fn = late_release;
        b->posted = true;
        mu_loop_post(b->d->loop, &b->post);
    }
}

static void command_detach(struct mu_sandbox *s)
{
    struct box *b = (struct box *)s;
    b->detached = true;
    free_if_left(b);
}

static void command_sweep(struct mu_sandbox_driver *sd MU_UNUSED, const char *const *keep MU_UNUSED,
                          size_t n_keep MU_UNUSED, void (*done)(void *arg, size_t removed),
                          void *arg)
{
    done(arg, 0); /* nothing of it is on this machine but a note of some bytes */
}

const struct mu_sandbox_ops mu_sandbox_command = {
    .name = "command",
    .open = command_open,
    .close = command_close,
    .check = command_check,
    .start = command_start,
    .adopt = command_adopt,
    .stop = command_stop,
    .read_file = command_read_file,
    .release = command_release,
    .detach = command_detach,
    .sweep = command_sweep,
};
