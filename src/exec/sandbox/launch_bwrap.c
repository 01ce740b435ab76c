/* Rung B: where only /usr/bin/bwrap may make user namespaces, it makes them and the mounts; a
 * second stage of ours inside adds limits, Landlock and the filter before the program. What
 * bubblewrap 0.8 cannot do is refused: overlays. It is run with an empty environment of its own:
 * the task's variables would be code (LD_PRELOAD) in a process outside. */
#include "exec/sandbox/launch_int.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "exec/sandbox/limits_int.h"
#include "exec/sandbox/linux_int.h"
#include "exec/sandbox/sandbox.h"

enum { ARGS_MAX = 4 << 20, FILES = 256, STATUS_FD = 4, START_MS = 30000 };

struct plan {
    struct mu_buf args; /* NUL-separated, for --args */
    int args_fd;
    int files[FILES]; /* descriptors that bubblewrap reads */
    size_t n_files;
    int failed;
};

static const char bwrap_path[] = "/usr/bin/bwrap";

/* --- its arguments --- */

static void word(struct plan *p, const char *w)
{
    mu_buf_add_str(&p->args, w);
    mu_buf_add_char(&p->args, 0);
}

static void words(struct plan *p, const char *a, const char *b, const char *c)
{
    word(p, a);
    if (b) {
        word(p, b);
    }
    if (c) {
        word(p, c);
    }
}

/* A descriptor with that content; -1. */
static int content(const char *text, size_t len)
{
    int fd = memfd_create("muster", MFD_CLOEXEC);
    size_t done = 0;
    while (fd >= 0 && done < len) {
        ssize_t n = write(fd, text + done, len - done);
        if (n <= 0) {
            close(fd);
            return -1;
        }
        done += (size_t)n;
    }
    if (fd >= 0 && lseek(fd, 0, SEEK_SET) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void add_file(struct plan *p, const struct mu_step *s, const char *at)
{
    char number[12];
    int fd = p->n_files < FILES ? content(s->text, s->len) : -1;
    if (fd < 0) {
        p->failed = -EMFILE;
        return;
    }
    p->files[p->n_files++] = fd;
    snprintf(number, sizeof number, "%d", fd);
    words(p, "--file", number, at);
}

static void add_step(struct plan *p, const struct mu_step *s, const struct mu_step *next)
{
    char at[1100];
    snprintf(at, sizeof at, "/%s", s->path);
    bool dev = strncmp(s->path, "dev", 3) == 0 && (s->path[3] == '/' || !s->path[3]);
    if (!*s->path || (dev && strcmp(s->path, "dev/shm") != 0)) {
        return; /* the root and /dev are bubblewrap's own */
    }
    switch (s->kind) {
    case MU_STEP_DIR:
        words(p, "--dir", at, NULL);
        break;
    case MU_STEP_FILE: /* a mount point of what follows is made by the bind itself */
        if (!next || next->kind != MU_STEP_BIND || strcmp(next->path, s->path) != 0) {
            add_file(p, s, at);
        }
        break;
    case MU_STEP_LINK:
        words(p, "--symlink", s->text, at);
        break;
    case MU_STEP_BIND:
        words(p, s->attr & MOUNT_ATTR_RDONLY ? "--ro-bind" : "--bind", s->text, at);
        break;
    case MU_STEP_TMPFS:
        if (strspn(s->size, "0123456789") == strlen(s->size)) {
            words(p, "--size", s->size, NULL);
        }
        words(p, "--tmpfs", at, NULL);
        break;
    case MU_STEP_PROC:
        words(p, "--proc", at, NULL);
        break;
    case MU_STEP_OVERLAY:
        p->failed = -EOPNOTSUPP;
        break;
    case MU_STEP_PTS:
    case MU_STEP_SEAL:
        break;
    }
}

/* What bubblewrap's /proc still shows. */
static void add_masks(struct plan *p)
{
    static const char *const masked[] = {"/proc/kcore",       "/proc/keys",     "/proc/key-users",
                                         "/proc/kmsg",        "/proc/kallsyms", "/proc/timer_list",
                                         "/proc/vmallocinfo", "/proc/modules"};
    for (size_t i = 0; i < MU_ARRAY_LEN(masked); i++) {
        if (access(masked[i], F_OK) == 0) {
            words(p, "--ro-bind", "/dev/null", masked[i]);
        }
    }
}

static void add_environment(struct plan *p, const struct mu_box *box)
{
    for (size_t i = 0; i < box->n_env; i++) {
        const char *eq = strchr(box->env[i], '=');
        if (eq) {
            word(p, "--setenv");
            mu_buf_add(&p->args, mu_bytes_of(box->env[i], (size_t)(eq - box->env[i])));
            mu_buf_add_char(&p->args, 0);
            word(p, eq + 1);
        }
    }
}

static void fill(struct plan *p, const struct mu_launch *l)
{
    const struct mu_box *box = l->box;
    static const char *const always[] = {"--unshare-user", "--unshare-ipc",     "--unshare-pid",
                                         "--unshare-uts",  "--unshare-cgroup",  "--as-pid-1",
                                         "--new-session",  "--die-with-parent", "--clearenv"};
    static const char *const root[] = {"CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID",
                                       "CAP_SETUID", "CAP_SETGID",       "CAP_SETFCAP"};
    char id[12];
    snprintf(id, sizeof id, "%u", mu_box_uid(box));
    for (size_t i = 0; i < MU_ARRAY_LEN(always); i++) {
        word(p, always[i]);
    }
    for (size_t i = 0; box->fake_root && i < MU_ARRAY_LEN(root); i++) {
        words(p, "--cap-add", root[i], NULL);
    }
    if (box->network != MU_NET_HOST) {
        word(p, "--unshare-net");
    }
    if (!box->nested) {
        word(p, "--disable-userns");
    }
    words(p, "--uid", id, NULL);
    words(p, "--gid", id, NULL);
    words(p, "--hostname", "sandbox", NULL);
    words(p, "--dev", "/dev", NULL);
    for (size_t i = 0; i < l->tree.n; i++) {
        add_step(p, &l->tree.steps[i], i + 1 < l->tree.n ? &l->tree.steps[i + 1] : NULL);
    }
    if (!box->nested) {
        add_masks(p);
    }
    words(p, "--remount-ro", "/", NULL);
    words(p, "--chdir", "/workspace", NULL);
    add_environment(p, box);
    p->failed = p->args.failed ? p->args.failed : p->failed;
    p->args_fd = p->failed ? -1 : content(p->args.ptr, p->args.len);
    p->failed = p->failed ? p->failed : p->args_fd < 0 ? -EMFILE : 0;
}

/* --- the launch --- */

/* The second stage gets what it needs as words: it reads no file. */
static const char **stage_argv(const struct mu_launch *l, struct mu_arena *arena)
{
    const struct mu_box *box = l->box;
    const char **argv = mu_arena_calloc(arena, (box->n_argv + 16) * sizeof *argv);
    const char *numbers =
        mu_arena_printf(arena, "%d,%d,%lld,%lld,%lld", box->nested != 0, box->fake_root != 0,
                        (long long)box->pids, (long long)box->disk_bytes, (long long)box->without)
            .ptr;
    const char *args = mu_arena_printf(arena, "%d", STATUS_FD + 1).ptr;
    if (!argv || !numbers || !args) {
        return NULL;
    }
    size_t n = 0;
    argv[n++] = "bwrap";
    argv[n++] = "--args";
    argv[n++] = args;
    argv[n++] = "--";
    argv[n++] = l->program;
    argv[n++] = "keep";
    argv[n++] = "--second-stage";
    argv[n++] = numbers;
    for (size_t i = 0; i < box->n_argv; i++) {
        argv[n++] = box->argv[i];
    }
    return argv;
}

MU_NORETURN static void child(struct mu_launch *l, struct plan *p, const char **argv)
{
    static const char *const env[] = {"PATH=/usr/bin:/bin", NULL};
    char go;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    close(l->status[0]);
    if (recv(l->status[1], &go, 1, 0) != 1) {
        _exit(MU_LAUNCH_FAILED);
    }
    for (size_t i = 0; i < p->n_files; i++) {
        fcntl(p->files[i], F_SETFD, 0); /* all of them are above 5 */
    }
    if (null < 0 || dup2(null, 0) < 0 || dup2(l->out_fd, 1) < 0 || dup2(l->out_fd, 2) < 0 ||
        dup2(l->link_fd, 3) < 0 || dup2(l->status[1], STATUS_FD) < 0 ||
        dup2(p->args_fd, STATUS_FD + 1) < 0) {
        _exit(MU_LAUNCH_FAILED);
    }
    execve(bwrap_path, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
    mu_fail(&l->failure, "execve", bwrap_path);
    ssize_t n MU_UNUSED = send(STATUS_FD, &l->failure, sizeof l->failure, MSG_NOSIGNAL);
    _exit(MU_LAUNCH_FAILED);
}

/* The second stage says "r" when it is there; the socket closes when the program runs, or when
 * bubblewrap gave up before. */
static int wait_for_stage(struct mu_launch *l)
{
    bool ready = false;
    for (;;) {
        struct mu_failure told;
        struct pollfd p = {.fd = l->status[0], .events = POLLIN};
        if (poll(&p, 1, START_MS) <= 0) {
            errno = ETIMEDOUT;
            return mu_fail(&l->failure, "bubblewrap", "does not answer");
        }
        ssize_t n = recv(l->status[0], &told, sizeof told, 0);
        if (n == (ssize_t)sizeof told) {
            told.step[sizeof told.step - 1] = told.what[sizeof told.what - 1] = 0;
            l->failure = told;
            return -1;
        }
        if (n == 1) {
            ready = true;
        } else if (ready) {
            return 0;
        } else {
            errno = EPERM;
            return mu_fail(&l->failure, "bubblewrap", "gave up; the log says why");
        }
    }
}

static int start(struct mu_launch *l, struct plan *p, const char **argv)
{
    struct mu_clone_args args = {
        .flags = CLONE_PIDFD, .pidfd = (uintptr_t)&l->pidfd, .exit_signal = SIGCHLD};
    if (l->cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)l->cgroup_fd;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, l->status) < 0) {
        return mu_fail(&l->failure, "socketpair", "status");
    }
    l->pid = mu_clone3(&args);
    if (l->pid == 0) {
        child(l, p, argv);
    }
    int r = l->pid < 0 ? mu_fail(&l->failure, "clone3", "bubblewrap") : 0;
    close(l->status[1]);
    if (r == 0) {
        int why = l->born ? l->born(l->arg, l->pid) : 0;
        errno = -why;
        r = why < 0                                         ? mu_fail(&l->failure, "cgroup", "add")
            : send(l->status[0], "g", 1, MSG_NOSIGNAL) != 1 ? mu_fail(&l->failure, "start", "go")
                                                            : wait_for_stage(l);
        if (r < 0) {
            mu_pidfd_kill(l->pidfd, SIGKILL);
            while (waitpid(l->pid, NULL, __WALL) < 0 && errno == EINTR) {
            }
            close(l->pidfd);
            l->pidfd = -1;
            l->pid = 0;
        }
    }
    close(l->status[0]);
    return r;
}

int mu_launch_bwrap(struct mu_launch *l)
{
    struct plan p = {.args_fd = -1};
    l->pid = 0;
    l->pidfd = -1;
    memset(&l->failure, 0, sizeof l->failure);
    mu_buf_init(&p.args, ARGS_MAX);
    fill(&p, l);
    const char **argv = p.failed ? NULL : stage_argv(l, l->tree.arena);
    int r = -1;
    if (argv) {
        r = start(l, &p, argv);
    } else {
        errno = p.failed ? -p.failed : ENOMEM;
        mu_fail(&l->failure, "bubblewrap", errno == EOPNOTSUPP ? "knows no overlays" : "arguments");
    }
    mu_buf_wipe(&p.args);
    for (size_t i = 0; i < p.n_files; i++) {
        close(p.files[i]);
    }
    if (p.args_fd >= 0) {
        close(p.args_fd);
    }
    return r == 0 ? 0 : l->failure.err > 0 ? -l->failure.err : -EPROTO;
}

/* --- inside --- */

static int next_number(mu_bytes *rest, int64_t *ret)
{
    return mu_bytes_i64(mu_bytes_split(rest, ','), ret);
}

static void give_up(const struct mu_failure *f)
{
    ssize_t n MU_UNUSED = send(STATUS_FD, f, sizeof *f, MSG_NOSIGNAL);
    _exit(MU_LAUNCH_FAILED);
}

int mu_launch_second_stage(int argc, char **argv)
{
    struct mu_box box = {.rung = MU_RUNG_BWRAP};
    struct mu_failure f = {0};
    mu_bytes rest = mu_str(argc > 1 ? argv[0] : "");
    extern char **environ;
    if (next_number(&rest, &box.nested) < 0 || next_number(&rest, &box.fake_root) < 0 ||
        next_number(&rest, &box.pids) < 0 || next_number(&rest, &box.disk_bytes) < 0 ||
        next_number(&rest, &box.without) < 0) {
        return MU_LAUNCH_FAILED;
    }
    ssize_t n MU_UNUSED = send(STATUS_FD, "r", 1, MSG_NOSIGNAL);
    fcntl(STATUS_FD, F_SETFD, FD_CLOEXEC);
    mu_close_range(STATUS_FD + 1);
    umask(022);
    if (mu_launch_lock_up_(&box, &mu_landlock_tree, &f) < 0) {
        give_up(&f);
    }
    execve("/proc/self/exe", argv + 1, environ);
    mu_fail(&f, "execve", "second stage");
    give_up(&f);
    return MU_LAUNCH_FAILED;
}
