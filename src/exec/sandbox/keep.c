#include "exec/sandbox/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "exec/sandbox/keep_int.h"
#include "exec/sandbox/linux_int.h"
#include "exec/sandbox/userns_int.h"
#include "io/folder.h"

enum {
    SPEC_ARENA = 3 * MU_BOX_SPEC_MAX,
    STRAYS_MS = 2000,
};

int64_t keep_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- becoming a keeper --- */

/* 0 to 4 are taken by nothing of ours, so that the child can put its own there; the worker's socket
 * and the lock of the range (which only has to stay open) go up. */
static int settle_descriptors(struct keep *k)
{
    k->worker_fd = fcntl(MU_KEEPER_FD, F_DUPFD_CLOEXEC, 10);
    int lock = fcntl(MU_KEEPER_LOCK_FD, F_DUPFD_CLOEXEC, 10);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) {
        return -errno;
    }
    for (int fd = 0; fd < 5; fd++) {
        if (null != fd && dup3(null, fd, O_CLOEXEC) < 0) {
            return -errno;
        }
    }
    for (int fd = 5; fd < 10; fd++) {
        close(fd);
    }
    mu_close_range((unsigned)MU_MAX(MU_MAX(k->worker_fd, lock), 9) + 1);
    return 0;
}

static int open_session(struct keep *k, const char *path)
{
    struct stat st;
    if (!realpath(path, k->session)) {
        return -errno;
    }
    k->session_fd = open(k->session, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (k->session_fd < 0 || fstat(k->session_fd, &st) < 0) {
        return -errno;
    }
    /* What is inside may be anybody's; that nobody else comes to it hangs on this. */
    return st.st_uid == geteuid() && (st.st_mode & 0077) == 0 ? 0 : -EPERM;
}

static int read_spec(struct keep *k)
{
    struct mu_err err = {.text = ""};
    mu_bytes text;
    int r = mu_session_read(k->session_fd, "spec", MU_BOX_SPEC_MAX, &k->arena, &text);
    if (r == 0) {
        unlinkat(k->session_fd, "spec", 0); /* the task's secrets are in it */
        r = mu_box_read(text, &k->arena, &k->box, &err);
    }
    if (r < 0) {
        snprintf(k->end.reason, sizeof k->end.reason, "container_create");
        snprintf(k->end.message, sizeof k->end.message, "sandbox: %s",
                 err.text[0] ? err.text : mu_err_text(r));
        k->end.exit_code = MU_LAUNCH_FAILED;
    }
    return r;
}

/* --- the loop --- */

enum slot { EXIT, PIPE, LINK, LISTEN, WORKER, SLOTS };

static int wait_time(struct keep *k, int64_t now)
{
    int64_t next = keep_watch(k, now);
    if (k->drain_at_ms > now) {
        next = MU_MIN(next, k->drain_at_ms);
    }
    if (k->link_from_ms > now) {
        next = MU_MIN(next, k->link_from_ms);
    }
    return (int)MU_MAX(MU_MIN(next - now, (int64_t)60000), (int64_t)0);
}

/* False: PID 1 has ended. */
static bool turn(struct keep *k)
{
    int64_t now = keep_now_ms();
    int timeout = wait_time(k, now);
    struct pollfd p[SLOTS] = {
        [EXIT] = {k->pidfd, POLLIN, 0},
        [PIPE] = {now < k->drain_at_ms ? -1 : k->pipe_fd, POLLIN, 0},
        [LINK] = {now < k->link_from_ms ? -1 : k->link_fd, POLLIN, 0},
        [LISTEN] = {k->listen_fd, POLLIN, 0},
        [WORKER] = {k->worker_fd, POLLIN, 0},
    };
    if (poll(p, SLOTS, timeout) <= 0) {
        return true;
    }
    now = keep_now_ms();
    if (p[PIPE].revents) {
        keep_log_readable(k, now);
    }
    if (p[LINK].revents) {
        keep_link_readable(k, now);
    }
    if (p[WORKER].revents) {
        keep_worker_readable(k);
    }
    if (p[LISTEN].revents) {
        int fd = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            keep_worker_new(k, fd);
        }
    }
    return !p[EXIT].revents;
}

/* --- the end --- */

/* Rung D has no pid namespace: what outlived PID 1 is our child now. */
static void kill_strays(struct keep *k)
{
    int64_t until = keep_now_ms() + STRAYS_MS;
    while (k->box.rung == MU_RUNG_LANDLOCK && keep_now_ms() < until) {
        char path[64], text[4096];
        snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
        MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        text[MU_MAX(n, 0)] = 0;
        for (char *at = text, *end; *at; at = end) {
            long pid = strtol(at, &end, 10);
            if (end == at) {
                break;
            }
            kill((pid_t)pid, SIGKILL);
        }
        if (waitpid(-1, NULL, 0) < 0) {
            return;
        }
    }
}

static void explain(struct keep *k, int signum)
{
    struct mu_end *e = &k->end;
    if (k->reason[0]) {
        snprintf(e->reason, sizeof e->reason, "%s", k->reason);
        snprintf(e->message, sizeof e->message, "%s", k->message);
    } else if (e->oom) {
        snprintf(e->reason, sizeof e->reason, "container_oom");
        snprintf(e->message, sizeof e->message, "sandbox: the memory limit of %lld MiB was reached",
                 (long long)(k->box.memory_bytes >> 20));
    } else if (signum == SIGSYS) {
        snprintf(e->message, sizeof e->message, "sandbox: killed by the system call filter");
    }
}

static void collect(struct keep *k)
{
    struct rusage ru = {0};
    siginfo_t si = {0};
    struct mu_cgroup_usage usage;
    struct mu_end *e = &k->end;
    while (syscall(SYS_waitid, P_PIDFD, k->pidfd, &si, WEXITED, &ru) < 0 && errno == EINTR) {
    }
    int signum = si.si_code == CLD_EXITED ? 0 : si.si_status;
    e->exit_code = signum ? 128 + signum : si.si_status;
    kill_strays(k);
    mu_cgroup_kill(&k->cgroup);
    mu_cgroup_usage(&k->cgroup, &usage);
    /* From the counter: 137 alone may mean anything. */
    if (usage.oom_kills > 0 && e->exit_code != 0) {
        e->oom = 1;
    }
    e->cpu_ms = usage.cpu_ms >= 0 ? usage.cpu_ms
                                  : (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000 +
                                        (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1000;
    e->peak_bytes = usage.peak_bytes >= 0 ? usage.peak_bytes
                                          : MU_MAX(k->peak_rss, (int64_t)ru.ru_maxrss * 1024);
    explain(k, signum);
}

static int finish(struct keep *k)
{
    struct mu_ctl_msg ended = {.kind = MU_CTL_ENDED};
    mu_disk_end(&k->disk);
    if (k->cgroup.name[0]) {
        mu_cgroup_remove(&k->cgroup);
    }
    int r = mu_end_write(k->session_fd, &k->end);
    unlinkat(k->session_fd, "ctl.sock", 0);
    keep_worker_tell(k);
    if (k->worker_fd >= 0) {
        int sent MU_UNUSED = mu_ctl_send(k->worker_fd, &ended, -1); /* EOF says it too */
    }
    mu_arena_fini(&k->arena);
    return r < 0 ? 1 : 0;
}

static void limit_self(void)
{
    struct rlimit core = {0, 0}, files = {1024, 4096};
    setrlimit(RLIMIT_CORE, &core);
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
}

static int keep(const char *path)
{
    /* Not on the stack and not allocated: there is one. */
    static struct keep keeper;
    struct keep *k = &keeper;
    k->session_fd = k->pidfd = k->log_fd = k->pipe_fd = k->link_fd = k->listen_fd = -1;
    k->cgroup.unified_fd = -1;
    mu_arena_init(&k->arena, SPEC_ARENA);
    int r = settle_descriptors(k);
    r = r ? r : open_session(k, path);
    if (r < 0) {
        return 1; /* the worker sees that there is neither keeper nor end */
    }
    limit_self();
    r = read_spec(k);
    if (r == 0) {
        keep_worker_state(k, "starting", NULL);
        r = keep_start(k);
    }
    if (r == 0) {
        /* Not before: the files of the child's /proc would not be ours to write. */
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        while (turn(k)) {
        }
        keep_log_rest(k);
        collect(k);
    }
    return finish(k);
}

/* What the ids of a range left: emptied as the root of that range, which owns it and nothing else.
 */
static int empty_folders(void *arg)
{
    static const char *const names[] = {"workspace", "home", "tmp", "vartmp", "upper", "work"};
    struct keep *k = arg;
    int r = 0;
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        int fd = k->dir_fds[i];
        int why = fd < 0 ? 0 : mu_folder_empty(fd);
        r = r ? r : why;
    }
    return r < 0 ? 1 : 0;
}

static int empty_as_range(const char *path)
{
    static struct keep keeper;
    static const char *const names[] = {"workspace", "home", "tmp", "vartmp", "upper", "work"};
    struct keep *k = &keeper;
    mu_bytes text;
    mu_arena_init(&k->arena, SPEC_ARENA);
    int r = open_session(k, path);
    r = r ? r : mu_session_read(k->session_fd, "journal", MU_BOX_SPEC_MAX, &k->arena, &text);
    r = r ? r : mu_box_read(text, &k->arena, &k->box, NULL);
    if (r < 0 || !k->box.range) {
        return 1;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        k->dir_fds[i] =
            openat(k->session_fd, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    return mu_userns_run(0, k->box.range, MU_BOX_RANGE, empty_folders, k) == 0 ? 0 : 1;
}

int mu_keep_main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--empty") == 0) {
        return empty_as_range(argv[2]);
    }
    if (argc > 3 && strcmp(argv[1], "--second-stage") == 0) {
        return mu_launch_second_stage(argc - 2, argv + 2);
    }
    if (argc != 2 || argv[1][0] == '-') {
        static const char usage[] = "muster keep: is started by muster worker\n";
        ssize_t n MU_UNUSED = write(2, usage, sizeof usage - 1);
        return 2;
    }
    setsid();
    return keep(argv[1]);
}
