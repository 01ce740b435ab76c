/* On the pool: the session's folder, the keeper's birth, the way back to one that lives. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "exec/sandbox/namespace_int.h"

enum {
    RANGE_TRIES = 64,
    POLICY_MAX = 256 << 10,
};

/* --- what is looked up once --- */

/* The ranges that files of earlier sessions still belong to. */
static void ranges_on_disk(struct mu_sandbox_driver *d)
{
    int fd = openat(d->state_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[300];
        struct stat st;
        snprintf(path, sizeof path, "%s/workspace", e->d_name);
        if (e->d_name[0] != '.' && fstatat(d->state_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            st.st_uid >= MU_NS_FIRST_ID) {
            size_t slot = (st.st_uid - MU_NS_FIRST_ID) / MU_BOX_RANGE;
            if (slot < MU_NS_RANGES) {
                d->range_used[slot] = 1;
            }
        }
    }
    if (dir) {
        closedir(dir);
    } else if (fd >= 0) {
        close(fd);
    }
}

void mu_ns_probe(struct mu_sandbox_driver *d)
{
    pthread_mutex_lock(&d->lock);
    if (!d->probed) {
        d->probed = true;
        char name[80];
        const char *id = d->settings.worker_id;
        snprintf(name, sizeof name, "%.64s", mu_box_id_valid(id) ? id : "worker");
        mu_cgroup_probe(name, &d->cgroup);
        ranges_on_disk(d);
    }
    pthread_mutex_unlock(&d->lock);
}

/* Held by the keeper for its life, so two workers of one machine never share a range. */
static int lock_range(size_t slot)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int n = snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "muster-ids-%zu", slot);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&at, len) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

int64_t mu_ns_take_range(struct mu_sandbox_driver *d, int *ret_fd)
{
    const struct mu_env *env = d->settings.env ? d->settings.env : mu_loop_env(d->loop);
    int64_t range = 0;
    pthread_mutex_lock(&d->lock);
    for (int i = 0; i < RANGE_TRIES && !range; i++) {
        uint32_t random;
        env->random(env, &random, sizeof random);
        size_t slot = random % MU_NS_RANGES;
        if (!d->range_used[slot] && (*ret_fd = lock_range(slot)) >= 0) {
            d->range_used[slot] = 1;
            range = MU_NS_FIRST_ID + (int64_t)slot * MU_BOX_RANGE;
        }
    }
    pthread_mutex_unlock(&d->lock);
    return range;
}

void mu_ns_give_range(struct mu_sandbox_driver *d, int64_t range)
{
    if (range >= MU_NS_FIRST_ID) {
        pthread_mutex_lock(&d->lock);
        d->range_used[(range - MU_NS_FIRST_ID) / MU_BOX_RANGE] = 0;
        pthread_mutex_unlock(&d->lock);
    }
}

/* --- the keeper --- */

struct birth {
    const char *program;
    const char *const *argv;
    int null, ctl, lock;
};

/* In the parent's memory (vfork): system calls only. */
MU_NORETURN static __attribute__((noinline)) void child(const struct birth *b)
{
    static const char *const env[] = {NULL};
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;
    int ctl = fcntl(b->ctl, F_DUPFD_CLOEXEC, 10);
    int lock = b->lock < 0 ? -1 : fcntl(b->lock, F_DUPFD_CLOEXEC, 10);
    if (ctl < 0 || dup2(b->null, 0) < 0 || dup2(b->null, 1) < 0 || dup2(b->null, 2) < 0 ||
        dup2(ctl, MU_KEEPER_FD) < 0 || dup2(lock < 0 ? b->null : lock, MU_KEEPER_LOCK_FD) < 0) {
        _exit(126);
    }
    syscall(SYS_close_range, MU_KEEPER_LOCK_FD + 1, ~0U, 0);
    setsid();
    for (int sig = 1; sig < NSIG; sig++) {
        sigaction(sig, &dfl, NULL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(b->program, (char *const *)(uintptr_t)b->argv, (char *const *)(uintptr_t)env);
    _exit(127);
}

static int spawn_keeper(struct mu_sandbox_driver *d, const char *folder, int ctl, int lock,
                        pid_t *ret)
{
    char program[PATH_MAX + 16];
    MU_AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const char *const argv[] = {"muster", "keep", folder, NULL};
    struct birth b = {program, argv, null, ctl, lock};
    sigset_t all, old;
    snprintf(program, sizeof program, "%s/bin/muster", d->bundle);
    if (null < 0 || access(program, X_OK) < 0) {
        return -errno;
    }
    /* A handler that ran in the child would act on our memory. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = vfork();
    if (pid == 0) {
        child(&b);
    }
    int why = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (pid < 0) {
        return -why;
    }
    *ret = pid;
    return 0;
}

/* --- start --- */

static int write_files(struct mu_ns_prepare *p)
{
    int r = mu_session_put(p->session_fd, "spec", mu_buf_bytes(&p->spec));
    if (r == 0 && p->prompt) {
        r = mu_session_put(p->session_fd, "prompt", mu_bytes_of(p->prompt, p->prompt_len));
    }
    if (r == 0 && p->policy) {
        r = mu_session_put(p->session_fd, "policy", mu_str(p->policy));
    }
    return r;
}

static int make_folder(struct mu_ns_prepare *p)
{
    struct mu_sandbox_driver *d = p->s->d;
    if (mkdirat(d->state_fd, p->s->id, 0700) < 0) {
        return mu_err_set(&p->err, -errno, "session folder %s/%.64s", d->state, p->s->id);
    }
    p->session_fd = openat(d->state_fd, p->s->id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return p->session_fd < 0 ? -errno : 0;
}

static int start(struct mu_ns_prepare *p)
{
    struct mu_sandbox_driver *d = p->s->d;
    MU_AUTO_CLOSE int lock = -1;
    MU_AUTO_CLOSE int keeper_end = -1;
    struct mu_box place = {.range = 0};
    char folder[PATH_MAX + MU_BOX_ID_MAX + 2];
    int pair[2];
    mu_ns_probe(d);
    int r = make_folder(p);
    if (r < 0) {
        return r;
    }
    if (p->rung == MU_RUNG_ROOT) {
        p->range = place.range = mu_ns_take_range(d, &lock);
        if (!place.range) {
            return mu_err_set(&p->err, -EAGAIN, "every range of ids is taken");
        }
    }
    place.cgroup = d->cgroup;
    mu_box_write_place(&place, &p->spec);
    r = p->spec.failed ? p->spec.failed : write_files(p);
    if (r < 0) {
        return mu_err_set(&p->err, r, "writing the session's files");
    }
    /* The log is there before anybody writes to it. */
    p->log_fd = openat(p->session_fd, "log", O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    if (p->log_fd < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        return -errno;
    }
    p->ctl_fd = pair[0];
    keeper_end = pair[1];
    snprintf(folder, sizeof folder, "%s/%s", d->state, p->s->id);
    return spawn_keeper(d, folder, keeper_end, lock, &p->keeper);
}

/* --- adoption --- */

static int adopt(struct mu_ns_prepare *p)
{
    struct mu_sandbox_driver *d = p->s->d;
    struct mu_arena arena;
    struct mu_box box;
    mu_bytes text;
    struct stat st;
    p->session_fd = openat(d->state_fd, p->s->id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (p->session_fd < 0) {
        return mu_err_set(&p->err, -errno, "nothing is left of it");
    }
    mu_ns_probe(d);
    mu_arena_init(&arena, 2 * MU_BOX_SPEC_MAX);
    if (mu_session_read(p->session_fd, "journal", MU_BOX_SPEC_MAX, &arena, &text) == 0 &&
        mu_box_read(text, &arena, &box, NULL) == 0) {
        p->range = box.range;
        p->s->grace_ms = box.grace_ms;
    } else if (fstatat(p->session_fd, "workspace", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
               st.st_uid >= MU_NS_FIRST_ID) {
        p->range = st.st_uid / MU_BOX_RANGE * MU_BOX_RANGE;
    }
    if (mu_session_read(p->session_fd, "policy", POLICY_MAX, &arena, &text) == 0) {
        p->policy = mu_bytes_dup(text);
    }
    mu_arena_fini(&arena);
    p->log_fd = openat(p->session_fd, "log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int r = mu_ctl_connect(p->session_fd, &p->ctl_fd);
    if (r == 0) {
        return 0;
    }
    if (mu_end_read(p->session_fd, &p->end) == 0) {
        p->ended = true;
        return 0;
    }
    return mu_err_set(&p->err, MU_E_NOT_FOUND, "its keeper died and the sandbox with it (%s)",
                      mu_err_text(r));
}

void mu_ns_prepare_run(struct mu_job *job)
{
    struct mu_ns_prepare *p = MU_CONTAINER(job, struct mu_ns_prepare, job);
    p->result = p->adopt ? adopt(p) : start(p);
}
