/* From the spec to a running sandbox. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "exec/sandbox/keep_int.h"
#include "exec/sandbox/sandbox.h"

enum {
    PLAN_MAX = 32 << 20,
    LOG_DEFAULT = 64 << 20,
    NO_LIMIT_MS = 24 * 3600 * 1000,
};

static int failed(struct keep *k, int r, const char *reason, const char *step, const char *what)
{
    snprintf(k->end.reason, sizeof k->end.reason, "%s", reason);
    snprintf(k->end.step, sizeof k->end.step, "%s", step);
    snprintf(k->end.message, sizeof k->end.message, "sandbox: %s %s: %s", step, what,
             mu_err_text(r));
    k->end.step_errno = -r;
    k->end.exit_code = MU_LAUNCH_FAILED;
    return r;
}

/* --- folders --- */

static int own_dir(struct keep *k, int parent, const char *name, mode_t mode)
{
    unsigned id = (unsigned)(k->box.range + mu_box_uid(&k->box));
    if (mkdirat(parent, name, 0700) < 0 && errno != EEXIST) {
        return -errno;
    }
    MU_AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || (k->box.range && fchown(fd, id, id) < 0) || fchmod(fd, mode) < 0) {
        return -errno;
    }
    return 0;
}

static int make_folders(struct keep *k)
{
    static const struct {
        const char *name;
        mode_t mode;
    } dirs[] = {{"workspace", 0755}, {"home", 0755},  {"tmp", 01777},
                {"vartmp", 01777},   {"upper", 0700}, {"work", 0700}};
    bool overlay = *k->box.base || k->box.n_checkouts;
    for (size_t i = 0; i < (overlay ? MU_ARRAY_LEN(dirs) : 4); i++) {
        int r = own_dir(k, k->session_fd, dirs[i].name, dirs[i].mode);
        if (r < 0) {
            return r;
        }
    }
    int r = 0;
    for (size_t i = 0; r == 0 && i <= k->box.n_checkouts; i++) {
        char upper[48], work[48];
        bool root = i == k->box.n_checkouts;
        if (root ? !*k->box.base : !*k->box.checkouts[i].tree) {
            continue;
        }
        snprintf(upper, sizeof upper, root ? "upper/root" : "upper/%zu", i);
        snprintf(work, sizeof work, root ? "work/root" : "work/%zu", i);
        r = own_dir(k, k->session_fd, upper, 0755);
        r = r ? r : own_dir(k, k->session_fd, work, 0700);
    }
    return r;
}

/* The prompt goes to /workspace/.oz/prompt.txt, which may lie in an overlay's upper folder. */
static int place_prompt(struct keep *k)
{
    const char *top = "workspace";
    unsigned id = (unsigned)(k->box.range + mu_box_uid(&k->box));
    struct stat st;
    if (fstatat(k->session_fd, "prompt", &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    for (size_t i = 0; i < k->box.n_checkouts; i++) {
        static char upper[32];
        if (*k->box.checkouts[i].tree && !*k->box.checkouts[i].subdir) {
            snprintf(upper, sizeof upper, "upper/%zu", i);
            top = upper;
        }
    }
    MU_AUTO_CLOSE int fd = openat(k->session_fd, top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 ? -errno : own_dir(k, fd, ".oz", 0755);
    if (r < 0) {
        return r;
    }
    if (renameat(k->session_fd, "prompt", fd, ".oz/prompt.txt") < 0 ||
        fchmodat(fd, ".oz/prompt.txt", 0644, 0) < 0 ||
        (k->box.range && fchownat(fd, ".oz/prompt.txt", id, id, AT_SYMLINK_NOFOLLOW) < 0)) {
        return -errno;
    }
    return 0;
}

/* --- descriptors --- */

static int open_log(struct keep *k, int *write_end)
{
    int fds[2];
    k->log_fd = openat(k->session_fd, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (k->log_fd < 0 || pipe2(fds, O_CLOEXEC) < 0) {
        return -errno;
    }
    k->pipe_fd = fds[0];
    *write_end = fds[1];
    int r MU_UNUSED = fcntl(fds[0], F_SETFL, O_NONBLOCK);
    r = fcntl(fds[0], F_SETPIPE_SZ, 256 << 10); /* fewer turns under a flood; 64 KiB do as well */
    k->log_max = k->box.log_bytes > 0 ? k->box.log_bytes : LOG_DEFAULT;
    return 0;
}

static int open_listener(struct keep *k)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/ctl.sock", k->session_fd);
    k->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (k->listen_fd < 0) {
        return -errno;
    }
    unlinkat(k->session_fd, "ctl.sock", 0);
    if (bind(k->listen_fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(k->listen_fd, 4) < 0) {
        return -errno;
    }
    return 0;
}

/* The first message is there before PID 1 looks. */
static int send_setup(struct keep *k)
{
    struct {
        struct mu_fd3_msg head;
        uint16_t ports[MU_FD3_PORTS];
    } m = {{.kind = MU_FD3_SETUP, .value = (int32_t)MU_MIN(k->box.n_ports, (size_t)MU_FD3_PORTS)},
           {0}};
    for (int32_t i = 0; i < m.head.value; i++) {
        m.ports[i] = (uint16_t)k->box.ports[i];
    }
    size_t len = sizeof m.head + (size_t)m.head.value * sizeof m.ports[0];
    return send(k->link_fd, &m, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* --- the launch --- */

static int born(void *arg, pid_t pid)
{
    struct keep *k = arg;
    return mu_cgroup_add_v1(&k->cgroup, pid);
}

/* What rung D may reach, by the host's names. */
static void host_paths(struct keep *k, struct mu_arena *arena, struct mu_launch *l)
{
    static const char *const readable[] = {"/usr",
                                           "/bin",
                                           "/sbin",
                                           "/lib",
                                           "/lib32",
                                           "/lib64",
                                           "/libx32",
                                           "/proc",
                                           "/etc/ld.so.cache",
                                           "/etc/passwd",
                                           "/etc/group",
                                           "/etc/nsswitch.conf",
                                           "/etc/ssl/certs",
                                           "/etc/alternatives",
                                           "/etc/localtime",
                                           "/etc/os-release",
                                           "/etc/bash.bashrc",
                                           "/etc/profile",
                                           "/etc/mime.types",
                                           "/etc/terminfo"};
    static const char *const devices[] = {"/dev/null",   "/dev/zero",    "/dev/full",
                                          "/dev/random", "/dev/urandom", "/dev/tty"};
    static const char *const folders[] = {"workspace", "home", "tmp", "vartmp"};
    struct mu_landlock_path *p = mu_arena_calloc(arena, MU_LAUNCH_PATHS * sizeof *p);
    size_t n = 0;
    if (!p) {
        return;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(readable); i++) {
        p[n++].path = readable[i];
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(devices); i++) {
        p[n++] = (struct mu_landlock_path){devices[i], true, true};
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(folders); i++) {
        const char *path = mu_arena_printf(arena, "%s/%s", k->session, folders[i]).ptr;
        p[n++] = (struct mu_landlock_path){path, true, false};
    }
    p[n++].path = k->box.bundle;
    for (size_t i = 0; i < k->box.n_harnesses && n < MU_LAUNCH_PATHS - 1; i++) {
        p[n++].path = k->box.harnesses[i].path;
    }
    l->host_paths = p;
}

static int plan(struct keep *k, struct mu_arena *arena, struct mu_launch *l, struct mu_err *err)
{
    if (k->box.rung == MU_RUNG_LANDLOCK) {
        l->program = mu_arena_printf(arena, "%s/bin/muster", k->box.bundle).ptr;
        host_paths(k, arena, l);
        return l->program && l->host_paths ? 0 : -ENOMEM;
    }
    l->program = "/agent/bin/muster";
    int r = mu_tree_plan(&k->box, k->session, arena, &l->tree, err);
    return r < 0 || !k->box.range ? r : mu_tree_idmap(&l->tree, &k->box, err);
}

static int launch(struct keep *k, int out_fd, int link_fd)
{
    struct mu_arena arena;
    struct mu_err err = {.text = ""};
    struct mu_launch l = {
        .box = &k->box,
        .session_fd = k->session_fd,
        .out_fd = out_fd,
        .link_fd = link_fd,
        .cgroup_fd = k->cgroup.unified_fd,
        .born = born,
        .arg = k,
        .argv = k->box.argv,
    };
    mu_arena_init(&arena, PLAN_MAX);
    int r = plan(k, &arena, &l, &err);
    if (r < 0) {
        failed(k, r, "volume_mount", "plan", err.text);
    } else if ((r = k->box.rung == MU_RUNG_BWRAP ? mu_launch_bwrap(&l) : mu_launch(&l)) < 0) {
        failed(k, r, "container_start", l.failure.step, l.failure.what);
    }
    k->pid = l.pid;
    k->pidfd = l.pidfd;
    mu_arena_fini(&arena);
    return r;
}

/* What a later worker must know, without the task's secrets. */
static int write_journal(struct keep *k)
{
    struct mu_box j = k->box;
    static const char *argv[] = {"-", NULL}, *env[] = {NULL};
    j.argv = argv;
    j.env = env;
    j.n_argv = 1;
    j.n_env = 0;
    struct mu_buf b;
    mu_buf_init(&b, MU_BOX_SPEC_MAX);
    mu_box_write(&j, &b);
    int r = b.failed ? b.failed : mu_session_write(k->session_fd, "journal", mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return r;
}

/* A file of its own: replacing one makes the file system write it out at once. */
static int write_pids(struct keep *k)
{
    char text[120];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(text, sizeof text, "pid=%d%ckeeper=%d%cstarted=%lld%c", (int)k->pid, 0, (int)getpid(),
             0, (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000, 0);
    size_t n = 0;
    for (int i = 0; i < 3; i++) {
        n += strlen(text + n) + 1;
    }
    return mu_session_write(k->session_fd, "pids", mu_bytes_of(text, n));
}

static int make_cgroup(struct keep *k)
{
    struct mu_err err = {.text = ""};
    struct mu_cgroup_limits limits = {k->box.memory_bytes, k->box.pids, k->box.cpu_milli};
    /* RLIMIT_NPROC is counted per user namespace and does the same at no cost. */
    if (k->box.cgroup.rung == MU_CGROUP_V1 && k->box.rung != MU_RUNG_LANDLOCK) {
        limits.pids = 0;
    }
    static const struct mu_cgroup_place none = {.rung = MU_CGROUP_NONE};
    bool without = mu_box_without(&k->box, MU_WITHOUT_CGROUP);
    int r = mu_cgroup_make(without ? &none : &k->box.cgroup, k->box.id, &limits, &k->cgroup, &err);
    k->limited_memory =
        *k->cgroup.place.memory || (*k->cgroup.place.unified && k->cgroup.place.v2_memory);
    return r < 0 ? failed(k, r, "container_create", "cgroup", err.text) : 0;
}

int keep_start(struct keep *k)
{
    MU_AUTO_CLOSE int out = -1;
    MU_AUTO_CLOSE int inner = -1;
    int pair[2];
    int r = make_folders(k);
    r = r ? r : place_prompt(k);
    if (r < 0) {
        return failed(k, r, "workspace_setup", "folders", "");
    }
    r = open_log(k, &out);
    r = r ? r : open_listener(k);
    if (r == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        r = -errno;
    }
    if (r < 0) {
        return failed(k, r, "container_create", "sockets", "");
    }
    k->link_fd = pair[0];
    inner = pair[1];
    r = send_setup(k);
    r = r ? r : write_journal(k);
    if (r < 0) {
        return failed(k, r, "container_create", "journal", "");
    }
    r = make_cgroup(k);
    if (r < 0) {
        return r;
    }
    /* Without namespaces nothing else ties what a task leaves behind to us. */
    if (k->box.rung == MU_RUNG_LANDLOCK) {
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    }
    r = launch(k, out, inner);
    if (r < 0) {
        return r;
    }
    k->started_ms = keep_now_ms();
    k->deadline_ms =
        k->started_ms + (k->box.timeout_ms > 0 ? k->box.timeout_ms : (int64_t)NO_LIMIT_MS);
    r = write_pids(k);
    if (r < 0) { /* as if it had been stopped: what runs is seen to its end */
        keep_stop(k, 0, "container_create", "sandbox: writing the journal");
    }
    return 0;
}
