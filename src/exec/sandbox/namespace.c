/* Kind namespace: the loop's side of a sandbox from start to release. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "exec/sandbox/namespace_int.h"
#include "exec/sandbox/namespace_test.h"

#ifndef P_PIDFD
#define P_PIDFD ((idtype_t)3)
#endif

enum {
    POOL_THREADS = 4,
    POOL_QUEUE = 8192,
    LOG_PIECE = 64 << 10,
    LOG_PIECES = 4,    /* of one turn */
    CTL_MESSAGES = 64, /* of one turn */
    DEFAULT_GRACE_MS = 10000,
};

/* --- memory and handles --- */

static void free_box(struct mu_sandbox *s)
{
    mu_list_remove(&s->node);
    if (s->session_fd >= 0) {
        close(s->session_fd);
    }
    if (s->log_fd >= 0) {
        close(s->log_fd);
    }
    mu_broker_session_free(s->broker);
    mu_free(s);
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void mu_ns_try_free(struct mu_sandbox *s)
{
    if (s->detached && s->handles == 0 && !s->prepare && !s->posted && !s->removing) {
        free_box(s);
    }
}

static void on_closed(uv_handle_t *h)
{
    struct mu_sandbox *s = h->data;
    s->handles--;
    mu_ns_try_free(s);
}

static void close_poll(uv_poll_t *poll, int *fd)
{
    if (*fd >= 0) {
        uv_close((uv_handle_t *)poll, on_closed);
        close_fd(fd);
    }
}

void mu_ns_let_go(struct mu_sandbox *s)
{
    s->detached = true;
    close_poll(&s->ctl, &s->ctl_fd);
    close_poll(&s->exit, &s->exit_fd);
}

static int open_poll(struct mu_sandbox *s, uv_poll_t *poll, int fd, uv_poll_cb cb)
{
    int r = uv_poll_init(mu_loop_uv(s->d->loop), poll, fd);
    if (r < 0) {
        return r;
    }
    poll->data = s;
    s->handles++;
    return uv_poll_start(poll, UV_READABLE, cb);
}

/* In a later turn: the rest of the log, the end. */
static void go_on(struct mu_sandbox *s)
{
    if (!s->posted) {
        s->posted = true;
        mu_loop_post(s->d->loop, &s->post);
    }
}

/* --- the end --- */

static void tell_end(struct mu_sandbox *s)
{
    struct mu_end *e = &s->end;
    struct mu_sandbox_result result = {
        .exit_code = (int)e->exit_code,
        .oom = e->oom != 0,
        .failure_reason = e->reason[0] ? e->reason : NULL,
        .message = e->message[0]  ? e->message
                   : e->reason[0] ? e->reason
                                  : NULL,
        .cpu_ms = e->cpu_ms,
        .peak_bytes = e->peak_bytes,
    };
    s->phase = MU_NS_ENDED;
    s->broker = mu_broker_session_free(s->broker);
    if (!s->detached) {
        s->events->ended(s->arg, &result);
    }
}

/* What it said is told to its last byte before its end is. */
void mu_ns_end(struct mu_sandbox *s, const struct mu_end *end)
{
    struct stat st;
    if (s->phase >= MU_NS_DRAINING) {
        return;
    }
    s->phase = MU_NS_DRAINING;
    s->end = *end;
    if (s->log_fd >= 0 && fstat(s->log_fd, &st) == 0) {
        s->log_size = st.st_size;
    }
    go_on(s);
}

static void lost(struct mu_sandbox *s)
{
    struct mu_end end;
    if (s->session_fd < 0 || mu_end_read(s->session_fd, &end) < 0) {
        end = (struct mu_end){.exit_code = -1, .reason = "unknown"};
        snprintf(end.message, sizeof end.message,
                 "sandbox: its keeper died and the sandbox with it");
    }
    mu_ns_end(s, &end);
}

/* --- output --- */

static void read_log(struct mu_sandbox *s)
{
    char piece[LOG_PIECE];
    for (int i = 0; i < LOG_PIECES && s->log_offset < s->log_size && !s->detached; i++) {
        size_t want = MU_MIN(sizeof piece, (size_t)(s->log_size - s->log_offset));
        ssize_t n = pread(s->log_fd, piece, want, s->log_offset);
        if (n <= 0) {
            s->log_size = s->log_offset;
            break;
        }
        int64_t at = s->log_offset;
        s->log_offset += n;
        if (s->events->log) {
            s->events->log(s->arg, at, mu_bytes_of(piece, (size_t)n));
        }
    }
    if (s->log_offset < s->log_size) {
        go_on(s);
    }
}

static void on_post(struct mu_post *post)
{
    struct mu_sandbox *s = MU_CONTAINER(post, struct mu_sandbox, post);
    s->posted = false;
    if (s->detached) {
        mu_ns_try_free(s);
        return;
    }
    if (s->log_fd >= 0) {
        read_log(s);
    }
    if (s->phase == MU_NS_DRAINING && s->log_offset >= s->log_size) {
        tell_end(s);
    }
}

/* --- the keeper --- */

static void dial(struct mu_sandbox *s, const struct mu_ctl_msg *m)
{
    struct mu_ctl_msg answer = {.kind = MU_CTL_DIALED, .id = m->id};
    MU_AUTO_CLOSE int fd = -1;
    int r = s->broker ? mu_broker_dial(s->broker, m->port, &fd) : -ECONNREFUSED;
    if (r < 0) {
        answer.kind = MU_CTL_REFUSED;
        answer.value = -r < 4096 ? -r : ECONNREFUSED;
        fd = -1;
    }
    r = mu_ctl_send(s->ctl_fd, &answer, fd); /* a keeper that is gone is seen by its EOF */
}

static void send_stop(struct mu_sandbox *s)
{
    struct mu_ctl_msg m = {.kind = MU_CTL_STOP, .value = s->stop_graceful ? s->grace_ms : 0};
    snprintf(m.text, sizeof m.text, "%s", s->stop_reason);
    if (s->ctl_fd >= 0) {
        int r MU_UNUSED = mu_ctl_send(s->ctl_fd, &m, -1);
    }
}

static void on_message(struct mu_sandbox *s, const struct mu_ctl_msg *m)
{
    size_t n;
    switch (m->kind) {
    case MU_CTL_STATE:
        n = strlen(m->text) + 1;
        if (s->events->state && !s->detached) {
            s->events->state(s->arg, m->text,
                             n < sizeof m->text && m->text[n] ? m->text + n : NULL);
        }
        break;
    case MU_CTL_LOG:
        s->log_size = MU_MAX(s->log_size, m->value);
        read_log(s);
        break;
    case MU_CTL_DIAL:
        dial(s, m);
        break;
    case MU_CTL_FROZEN:
        if (s->frozen && !s->detached) {
            void (*frozen)(void *arg, int result) = s->frozen;
            s->frozen = NULL;
            frozen(s->frozen_arg, (int)m->value);
        }
        break;
    default:
        break;
    }
}

static void on_ctl(uv_poll_t *poll, int status MU_UNUSED, int events MU_UNUSED)
{
    struct mu_sandbox *s = poll->data;
    for (int i = 0; i < CTL_MESSAGES && s->ctl_fd >= 0; i++) {
        struct mu_ctl_msg m;
        int r = mu_ctl_recv(s->ctl_fd, &m, NULL);
        if (r == 0) {
            return;
        }
        if (r < 0 || m.kind == MU_CTL_ENDED) {
            close_poll(&s->ctl, &s->ctl_fd);
            lost(s);
            return;
        }
        on_message(s, &m);
    }
}

static void on_exit_event(uv_poll_t *poll, int status MU_UNUSED, int events MU_UNUSED)
{
    struct mu_sandbox *s = poll->data;
    siginfo_t si = {0};
    if (waitid(P_PIDFD, (id_t)s->exit_fd, &si, WEXITED | WNOHANG) == 0 && si.si_pid == 0) {
        return;
    }
    s->keeper = 0;
    close_poll(&s->exit, &s->exit_fd);
}

static void ns_freeze(struct mu_sandbox *s, bool on, void (*done)(void *arg, int result), void *arg)
{
    const struct mu_ctl_msg m = {.kind = on ? MU_CTL_FREEZE : MU_CTL_THAW};
    int r = s->frozen || s->stop_asked || s->ctl_fd < 0 ? MU_E_UNAVAILABLE
                                                        : mu_ctl_send(s->ctl_fd, &m, -1);
    if (r < 0) {
        done(arg, r);
        return;
    }
    s->frozen = done;
    s->frozen_arg = arg;
}

/* --- after the pool --- */

static void free_prepare(struct mu_ns_prepare *p)
{
    mu_buf_wipe(&p->spec);
    mu_free(p->prompt);
    mu_free(p->policy);
    mu_free(p);
}

static void fail(struct mu_sandbox *s, const struct mu_ns_prepare *p)
{
    struct mu_end end = {.exit_code = -1};
    snprintf(end.reason, sizeof end.reason, "%s", p->adopt ? "unknown" : "workspace_setup");
    snprintf(end.message, sizeof end.message, "sandbox: %.280s",
             p->err.text[0] ? p->err.text : mu_err_text(p->result));
    mu_ns_end(s, &end);
}

static void begin(struct mu_sandbox *s, struct mu_ns_prepare *p)
{
    s->phase = MU_NS_RUNNING;
    s->ctl_fd = p->ctl_fd;
    if (open_poll(s, &s->ctl, s->ctl_fd, on_ctl) < 0) {
        close_fd(&s->ctl_fd); /* the keeper goes on; without its socket it is as good as lost */
        lost(s);
        return;
    }
    if (p->keeper > 0) {
        s->keeper = p->keeper;
        s->exit_fd = (int)syscall(SYS_pidfd_open, p->keeper, 0);
        if (s->exit_fd >= 0 && open_poll(s, &s->exit, s->exit_fd, on_exit_event) < 0) {
            close_fd(&s->exit_fd);
        }
    }
    struct mu_broker_session_opts opts = {.allow = p->policy};
    if (s->d->settings.broker &&
        mu_broker_session_new(s->d->settings.broker, &opts, &s->broker, NULL) < 0) {
        s->broker = NULL; /* its connections are refused */
    }
    if (s->stop_asked) {
        send_stop(s);
    }
}

static void on_prepared(struct mu_job *job)
{
    struct mu_ns_prepare *p = MU_CONTAINER(job, struct mu_ns_prepare, job);
    struct mu_sandbox *s = p->s;
    s->prepare = NULL;
    s->session_fd = p->session_fd;
    s->log_fd = p->log_fd;
    s->range = p->range;
    if (!job->ran) {
        p->result = MU_E_SHUTDOWN;
    }
    if (s->detached || p->result < 0) {
        close_fd(&p->ctl_fd);
    }
    if (s->detached) {
        /* nobody wants to hear of it */
    } else if (p->ended) {
        mu_ns_end(s, &p->end);
    } else if (p->result < 0) {
        fail(s, p);
    } else {
        begin(s, p);
    }
    free_prepare(p);
    mu_ns_try_free(s);
}

/* --- the table --- */

static struct mu_sandbox *new_box(struct mu_sandbox_driver *d, const char *id,
                                  const struct mu_sandbox_events *events, void *arg)
{
    struct mu_sandbox *s = mu_calloc(1, sizeof *s);
    struct mu_ns_prepare *p = s ? mu_calloc(1, sizeof *p) : NULL;
    if (!p) {
        mu_free(s);
        return NULL;
    }
    s->d = d;
    s->events = events;
    s->arg = arg;
    s->session_fd = s->ctl_fd = s->exit_fd = s->log_fd = -1;
    s->grace_ms = DEFAULT_GRACE_MS;
    snprintf(s->id, sizeof s->id, "%s", id);
    s->post.fn = on_post;
    mu_list_push(&d->boxes, &s->node);
    s->prepare = p;
    p->s = s;
    p->session_fd = p->ctl_fd = p->log_fd = -1;
    p->job = (struct mu_job){.run = mu_ns_prepare_run, .done = on_prepared, .loop = d->loop};
    mu_buf_init(&p->spec, MU_BOX_SPEC_MAX);
    return s;
}

/* Failures that are not about memory are told by ended(), as the table promises. */
static int submit(struct mu_sandbox *s, int why, struct mu_sandbox **ret)
{
    struct mu_ns_prepare *p = s->prepare;
    int r = why ? why : mu_work_submit(s->d->work, &p->job);
    if (r < 0) {
        s->prepare = NULL;
        p->result = r;
        if (r != -ENOMEM) {
            fail(s, p);
        }
        free_prepare(p);
        if (r == -ENOMEM) {
            free_box(s);
            return r;
        }
    }
    *ret = s;
    return 0;
}

int mu_ns_start_as(struct mu_sandbox_driver *d, const struct mu_sandbox_spec *spec, int64_t rung,
                   const struct mu_sandbox_events *events, void *arg, struct mu_sandbox **ret)
{
    MU_CHECK(mu_loop_here(d->loop));
    if (!mu_box_id_valid(spec->execution_id)) {
        return MU_E_INVALID;
    }
    struct mu_sandbox *s = new_box(d, spec->execution_id, events, arg);
    if (!s) {
        return -ENOMEM;
    }
    struct mu_ns_prepare *p = s->prepare;
    s->grace_ms = spec->stop_grace_ms > 0 ? spec->stop_grace_ms : DEFAULT_GRACE_MS;
    p->rung = rung;
    int r = mu_ns_spec(d, spec, rung, &p->spec, &p->err);
    p->prompt_len = spec->prompt.len;
    if (r == 0 && spec->prompt.ptr && !(p->prompt = mu_bytes_dup(spec->prompt))) {
        r = -ENOMEM;
    }
    if (r == 0 && spec->broker_policy && !(p->policy = mu_bytes_dup(mu_str(spec->broker_policy)))) {
        r = -ENOMEM;
    }
    return submit(s, r, ret);
}

static int ns_start(struct mu_sandbox_driver *d, const struct mu_sandbox_spec *spec,
                    const struct mu_sandbox_events *events, void *arg, struct mu_sandbox **ret)
{
    return mu_ns_start_as(d, spec, d->rung, events, arg, ret);
}

static int ns_adopt(struct mu_sandbox_driver *d, const char *execution_id, int64_t log_offset,
                    const struct mu_sandbox_events *events, void *arg, struct mu_sandbox **ret)
{
    MU_CHECK(mu_loop_here(d->loop));
    if (!mu_box_id_valid(execution_id)) {
        return MU_E_INVALID;
    }
    struct mu_sandbox *s = new_box(d, execution_id, events, arg);
    if (!s) {
        return -ENOMEM;
    }
    s->log_offset = log_offset;
    s->prepare->adopt = true;
    return submit(s, 0, ret);
}

static void ns_stop(struct mu_sandbox *s, bool graceful, const char *reason)
{
    MU_CHECK(mu_loop_here(s->d->loop));
    if (s->stop_asked && (graceful || !s->stop_graceful)) {
        return;
    }
    if (!s->stop_asked) {
        snprintf(s->stop_reason, sizeof s->stop_reason, "%s", reason);
    }
    s->stop_asked = true;
    s->stop_graceful = graceful;
    if (s->phase == MU_NS_RUNNING) {
        send_stop(s);
    }
}

static void ns_detach(struct mu_sandbox *s)
{
    MU_CHECK(mu_loop_here(s->d->loop));
    mu_ns_let_go(s);
    mu_ns_try_free(s);
}

static int ns_open(struct mu_loop *loop, const struct mu_sandbox_settings *settings,
                   struct mu_sandbox_driver **ret, struct mu_err *err)
{
    char path[PATH_MAX];
    if (!settings->state_dir || !settings->bundle_dir || !realpath(settings->bundle_dir, path)) {
        return mu_err_set(err, MU_E_INVALID, "sandbox: the /agent tree is not at %.200s",
                          settings->bundle_dir ? settings->bundle_dir : "(nowhere)");
    }
    if (settings->minimum && strcmp(settings->minimum, "full") != 0 &&
        strcmp(settings->minimum, "landlock") != 0) {
        return mu_err_set(err, MU_E_INVALID, "OZ_SANDBOX_MIN: \"full\" or \"landlock\"");
    }
    struct mu_sandbox_driver *d = mu_calloc(1, sizeof *d);
    if (!d) {
        return -ENOMEM;
    }
    d->loop = loop;
    d->settings = *settings;
    d->rung = geteuid() == 0 ? MU_RUNG_ROOT : MU_RUNG_OWN;
    d->state_fd = -1;
    mu_list_init(&d->boxes);
    pthread_mutex_init(&d->lock, NULL);
    snprintf(d->bundle, sizeof d->bundle, "%s", path);
    snprintf(path, sizeof path, "%s/s", settings->state_dir);
    int r = 0;
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        r = -errno;
    } else if (!realpath(path, d->state) ||
               (d->state_fd = open(d->state, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        r = -errno;
    }
    r = r ? r : mu_work_new(POOL_THREADS, POOL_QUEUE, &d->work);
    if (r < 0) {
        mu_err_set(err, r, "sandbox: state folder %.200s", path);
        mu_sandbox_namespace.close(d);
        return r;
    }
    *ret = d;
    return 0;
}

static struct mu_sandbox_driver *ns_close(struct mu_sandbox_driver *d)
{
    if (d) {
        mu_work_free(d->work);
        /* Those that were let go, whose handles close in a later turn. */
        MU_LIST_EACH(it, tmp, &d->boxes)
        {
            struct mu_sandbox *s = MU_CONTAINER(it, struct mu_sandbox, node);
            MU_CHECK(s->detached);
            mu_list_remove(it);
            s->d = NULL;
        }
        if (d->probed) {
            mu_cgroup_leave(&d->cgroup);
        }
        close_fd(&d->state_fd);
        pthread_mutex_destroy(&d->lock);
        mu_free(d);
    }
    return NULL;
}

void mu_sandbox_namespace_rung(struct mu_sandbox_driver *d, int rung)
{
    d->rung = rung;
}

const struct mu_sandbox_ops mu_sandbox_namespace = {
    .name = "namespace",
    .open = ns_open,
    .close = ns_close,
    .check = mu_ns_check,
    .start = ns_start,
    .adopt = ns_adopt,
    .stop = ns_stop,
    .freeze = ns_freeze,
    .read_file = mu_ns_read_file,
    .release = mu_ns_release,
    .detach = ns_detach,
    .sweep = mu_ns_sweep,
};
