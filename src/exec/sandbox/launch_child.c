/* Between clone3 and execve: the child. It shares nothing with the keeper but a copy of its memory,
 * and only makes system calls. */
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "exec/sandbox/landlock_int.h"
#include "exec/sandbox/launch_int.h"
#include "exec/sandbox/limits_int.h"
#include "exec/sandbox/sandbox.h"
/* After sys/mount.h, whose names it shares. */
#include "exec/sandbox/linux_int.h"

#include <linux/seccomp.h>

enum { STATUS_FD = 4 };

MU_NORETURN static void give_up(struct mu_launch *l, int fd)
{
    ssize_t n MU_UNUSED = send(fd, &l->failure, sizeof l->failure, MSG_NOSIGNAL);
    _exit(MU_LAUNCH_FAILED);
}

/* Dies with the keeper from here on. A change of identity clears it, so it is asked for twice. */
static int follow_keeper(struct mu_launch *l)
{
    struct pollfd keeper = {.fd = l->status[1], .events = POLLIN};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) {
        return mu_fail(&l->failure, "prctl", "PDEATHSIG");
    }
    /* It may have died before: inside a new pid namespace getppid() does not tell. */
    if (poll(&keeper, 1, 0) > 0 && keeper.revents & (POLLHUP | POLLERR)) {
        _exit(MU_LAUNCH_FAILED);
    }
    return 0;
}

static void wait_for_go(struct mu_launch *l)
{
    char go;
    ssize_t n;
    do {
        n = recv(l->status[1], &go, 1, 0);
    } while (n < 0 && errno == EINTR);
    if (n != 1) { /* the keeper gave up, or is gone */
        _exit(MU_LAUNCH_FAILED);
    }
}

static void default_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int sig = 1; sig < NSIG; sig++) {
        sigaction(sig, &dfl, NULL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int put_text(const char *path, const char *text)
{
    MU_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    size_t n = strlen(text);
    return fd >= 0 && write(fd, text, n) == (ssize_t)n ? 0 : -1;
}

/* --- namespaces --- */

/* The limit belongs to the new user namespace, whichever instance of /proc it is written through.
 */
static int limit_namespaces(struct mu_launch *l)
{
    if (mu_box_without(l->box, MU_WITHOUT_USERNS_LIMIT)) {
        return 0;
    }
    if (put_text("/proc/sys/user/max_user_namespaces", l->box->nested ? "32" : "0") < 0) {
        return mu_fail(&l->failure, "limit namespaces", "max_user_namespaces");
    }
    return 0;
}

static int become_agent(struct mu_launch *l)
{
    unsigned id = mu_box_uid(l->box);
    if (!l->box->range) {
        return 0; /* the one mapped id is who we are already */
    }
    if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, id, id, id) < 0 ||
        syscall(SYS_setresuid, id, id, id) < 0) {
        return mu_fail(&l->failure, "identity", "setresuid");
    }
    return follow_keeper(l);
}

static int loopback_up(struct mu_failure *f)
{
    struct ifreq ifr = {.ifr_name = "lo"};
    MU_AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &ifr) < 0) {
        return mu_fail(f, "loopback", "look");
    }
    ifr.ifr_flags = (short)(ifr.ifr_flags | IFF_UP | IFF_RUNNING);
    return ioctl(fd, SIOCSIFFLAGS, &ifr) < 0 ? mu_fail(f, "loopback", "up") : 0;
}

static int enter_namespaces(struct mu_launch *l)
{
    struct mu_failure *f = &l->failure;
    const struct mu_box *box = l->box;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        return mu_fail(f, "mounts private", "/");
    }
    if (limit_namespaces(l) < 0 || mu_tree_open(&l->tree, f) < 0 || become_agent(l) < 0 ||
        mu_tree_build(&l->tree, f) < 0) {
        return -1;
    }
    bool own_net = box->network != MU_NET_HOST && !mu_box_without(box, MU_WITHOUT_NETNS);
    if (own_net && loopback_up(f) < 0) {
        return -1;
    }
    if (sethostname("sandbox", strlen("sandbox")) < 0) {
        return mu_fail(f, "host name", "sandbox");
    }
    return chdir("/workspace") < 0 ? mu_fail(f, "chdir", "/workspace") : 0;
}

/* --- descriptors --- */

/* 0 = /dev/null, 1 and 2 = the log, 3 = the keeper, 4 = the status until execve. All else is
 * closed: a folder of the host that stayed open was CVE-2024-21626. */
static int place_descriptors(struct mu_launch *l)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(l->out_fd, 1) < 0 || dup2(l->out_fd, 2) < 0 ||
        dup2(l->link_fd, 3) < 0 || dup3(l->status[1], STATUS_FD, O_CLOEXEC) < 0) {
        return mu_fail(&l->failure, "descriptors", "dup");
    }
    if (mu_close_range(STATUS_FD + 1) < 0) {
        return mu_fail(&l->failure, "descriptors", "close_range");
    }
    return 0;
}

/* --- locks --- */

static int set_filter(const struct mu_box *box, struct mu_failure *f)
{
    struct mu_seccomp_rules rules = {
        .nested = box->nested != 0,
        .fake_root = box->fake_root != 0,
        .one_id = box->range == 0,
        .only_unix = box->rung == MU_RUNG_LANDLOCK,
        .ceiling = mu_box_without(box, MU_WITHOUT_CEILING) ? MU_SECCOMP_CEILING - 8 : 0,
    };
    struct mu_seccomp_program program;
    mu_seccomp_build(&rules, &program);
    struct sock_fprog prog = {program.len, program.code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0) {
        return mu_fail(f, "seccomp", "filter");
    }
    return 0;
}

static int drop_capabilities(const struct mu_box *box, struct mu_failure *f)
{
    return mu_box_without(box, MU_WITHOUT_CAPS) ? 0 : mu_limits_capabilities(box->fake_root, f);
}

int mu_launch_lock_up_(const struct mu_box *box, const struct mu_landlock_rules *landlock,
                       struct mu_failure *f)
{
    if (!mu_box_without(box, MU_WITHOUT_LIMITS) && mu_limits_apply(box, f) < 0) {
        return -1;
    }
    /* Without no_new_privs (tests) the other two need the capabilities. */
    bool late = mu_box_without(box, MU_WITHOUT_NNP);
    if (!late && (drop_capabilities(box, f) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)) {
        return f->err ? -1 : mu_fail(f, "prctl", "no_new_privs");
    }
    /* It forbids mounting, which is what nesting needs. A kernel without it has the other locks;
     * where it is the only one its absence was found out before. */
    bool only_lock = box->rung == MU_RUNG_LANDLOCK;
    bool wanted = only_lock || (!box->nested && mu_landlock_abi() > 0 &&
                                !mu_box_without(box, MU_WITHOUT_LANDLOCK));
    if (wanted && mu_landlock_apply(landlock, f) < 0) {
        return -1;
    }
    if (!mu_box_without(box, MU_WITHOUT_SECCOMP) && set_filter(box, f) < 0) {
        return -1;
    }
    return late ? drop_capabilities(box, f) : 0;
}

/* A mount that may be written to lies outside of the folders that every tree has. */
static void allow_mounts(const struct mu_box *box, const struct mu_landlock_rules *base,
                         struct mu_landlock_path *list, struct mu_landlock_rules *ret)
{
    size_t n = base->n_paths;
    memcpy(list, base->paths, n * sizeof *list);
    for (size_t i = 0; i < box->n_mounts && n < MU_LAUNCH_PATHS; i++) {
        if (box->mounts[i].writable) {
            list[n++] = (struct mu_landlock_path){box->mounts[i].target, true, false};
        }
    }
    *ret = (struct mu_landlock_rules){list, n, base->tcp};
}

/* Where there is no tree of our own the folders have the host's names. */
static int lock_up(struct mu_launch *l)
{
    struct mu_landlock_rules host = {l->host_paths, 0, true};
    while (l->host_paths && host.n_paths < MU_LAUNCH_PATHS && l->host_paths[host.n_paths].path) {
        host.n_paths++;
    }
    const struct mu_landlock_rules *rules = l->box->rung == MU_RUNG_LANDLOCK ? &host
                                            : !l->tree.writable              ? &mu_landlock_tree
                                                                             : &mu_landlock_root;
    struct mu_landlock_path list[MU_LAUNCH_PATHS];
    struct mu_landlock_rules all = *rules;
    if (rules == &mu_landlock_tree) {
        allow_mounts(l->box, rules, list, &all);
    }
    return mu_launch_lock_up_(l->box, &all, &l->failure);
}

void mu_launch_child_(struct mu_launch *l)
{
    int status = l->status[1];
    close(l->status[0]);
    if (follow_keeper(l) < 0) {
        give_up(l, status);
    }
    wait_for_go(l);
    if (setsid() < 0) {
        mu_fail(&l->failure, "setsid", "");
        give_up(l, status);
    }
    default_signals();
    umask(022);
    if (put_text("/proc/self/oom_score_adj", "500") < 0) {
        errno = 0; /* manners, no lock */
    }
    if (l->box->rung == MU_RUNG_LANDLOCK ? fchdir(l->session_fd) < 0 || chdir("workspace") < 0
                                         : enter_namespaces(l) < 0) {
        if (l->box->rung == MU_RUNG_LANDLOCK) {
            mu_fail(&l->failure, "chdir", "workspace");
        }
        give_up(l, status);
    }
    if (place_descriptors(l) < 0) {
        give_up(l, status);
    }
    if (lock_up(l) < 0) {
        give_up(l, STATUS_FD);
    }
    execve(l->program, (char *const *)(uintptr_t)l->argv, (char *const *)(uintptr_t)l->box->env);
    mu_fail(&l->failure, "execve", l->program);
    give_up(l, STATUS_FD);
}
