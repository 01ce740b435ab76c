/* What a sandbox left: folders, control groups, keepers that nobody adopted. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "exec/sandbox/namespace_int.h"
#include "io/folder.h"

enum {
    EMPTY_MS = 600000, /* for the helper that empties the folders of a range */
    STOP_MS = 15000,
    STEP_MS = 5,
    SWEEP_MAX = 65536,
};

/* --- one session, on the pool --- */

/* The folders of a range are emptied as its root, which has rights on its files and no others. */
static int empty_range(struct mu_sandbox_driver *d, const char *id)
{
    char program[PATH_MAX + 16], folder[PATH_MAX + MU_BOX_ID_MAX + 2];
    snprintf(program, sizeof program, "%s/bin/muster", d->bundle);
    snprintf(folder, sizeof folder, "%s/%s", d->state, id);
    const char *const argv[] = {program, "keep", "--empty", folder, NULL};
    static const char *const env[] = {NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        execve(program, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
        _exit(127);
    }
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return pid < 0 ? -errno : WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : MU_E_IO;
}

/* A keeper that still lives is told to end it now, and waited for. */
static void end_keeper(int session_fd)
{
    int fd, r MU_UNUSED;
    if (mu_ctl_connect(session_fd, &fd) < 0) {
        return;
    }
    struct mu_ctl_msg stop = {.kind = MU_CTL_STOP, .text = "task_cancelled"}, m;
    r = mu_ctl_send(fd, &stop, -1);
    for (int left = STOP_MS; left > 0; left -= STEP_MS) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, STEP_MS) > 0) {
            do {
                r = mu_ctl_recv(fd, &m, NULL);
            } while (r > 0);
            if (r < 0) {
                break;
            }
        }
    }
    close(fd);
}

static int remove_session(struct mu_sandbox_driver *d, const char *id, bool keep_files)
{
    struct mu_arena arena;
    struct mu_box box;
    mu_bytes text;
    MU_AUTO_CLOSE int fd = openat(d->state_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    end_keeper(fd);
    mu_arena_init(&arena, 2 * MU_BOX_SPEC_MAX);
    int64_t range = 0;
    if (mu_session_read(fd, "journal", MU_BOX_SPEC_MAX, &arena, &text) == 0 &&
        mu_box_read(text, &arena, &box, NULL) == 0) {
        range = box.range;
        mu_cgroup_clean(&box.cgroup, id);
    }
    mu_arena_fini(&arena);
    if (keep_files) {
        return 0;
    }
    int r = range ? empty_range(d, id) : 0;
    r = r ? r : mu_folder_remove_at(d->state_fd, id);
    if (r == 0) {
        mu_ns_give_range(d, range);
    }
    return r;
}

/* --- release --- */

static void run_release(struct mu_job *job)
{
    struct mu_sandbox *s = MU_CONTAINER(job, struct mu_sandbox, remove_job);
    mu_ns_probe(s->d);
    /* What cannot be removed now is found by the next sweep. */
    int r MU_UNUSED = remove_session(s->d, s->id, s->d->settings.keep);
}

static void release_done(struct mu_job *job)
{
    struct mu_sandbox *s = MU_CONTAINER(job, struct mu_sandbox, remove_job);
    s->removing = false;
    if (s->removed) {
        s->removed(s->removed_arg);
    }
    mu_ns_try_free(s);
}

void mu_ns_release(struct mu_sandbox *s, void (*done)(void *arg), void *arg)
{
    MU_CHECK(mu_loop_here(s->d->loop));
    mu_ns_let_go(s);
    s->removed = done;
    s->removed_arg = arg;
    s->removing = true;
    s->remove_job = (struct mu_job){.run = run_release, .done = release_done, .loop = s->d->loop};
    if (mu_work_submit(s->d->work, &s->remove_job) < 0) {
        s->remove_job.post.fn = NULL;
        release_done(&s->remove_job);
    }
}

/* --- sweep --- */

struct sweep {
    struct mu_job job;
    struct mu_sandbox_driver *d;
    char (*keep)[MU_BOX_ID_MAX + 1];
    size_t n_keep, removed;
    void (*done)(void *arg, size_t removed);
    void *arg;
};

static bool is_kept(const struct sweep *w, const char *id)
{
    for (size_t i = 0; i < w->n_keep; i++) {
        if (strcmp(w->keep[i], id) == 0) {
            return true;
        }
    }
    return false;
}

static void run_sweep(struct mu_job *job)
{
    struct sweep *w = MU_CONTAINER(job, struct sweep, job);
    mu_ns_probe(w->d);
    int fd = openat(w->d->state_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    int left = SWEEP_MAX;
    for (struct dirent *e; dir && left > 0 && (e = readdir(dir)); left--) {
        if (mu_box_id_valid(e->d_name) && !is_kept(w, e->d_name) &&
            remove_session(w->d, e->d_name, false) == 0) {
            w->removed++;
        }
    }
    if (dir) {
        closedir(dir);
    } else if (fd >= 0) {
        close(fd);
    }
}

static void sweep_done(struct mu_job *job)
{
    struct sweep *w = MU_CONTAINER(job, struct sweep, job);
    w->done(w->arg, w->removed);
    mu_free(w->keep);
    mu_free(w);
}

void mu_ns_sweep(struct mu_sandbox_driver *d, const char *const *keep, size_t n_keep,
                 void (*done)(void *arg, size_t removed), void *arg)
{
    MU_CHECK(mu_loop_here(d->loop));
    size_t n = n_keep;
    struct sweep *w = mu_calloc(1, sizeof *w);
    MU_LIST_EACH(it, tmp, &d->boxes)
    {
        n++;
    }
    if (!w || !(w->keep = mu_calloc(n + 1, sizeof *w->keep))) {
        mu_free(w);
        done(arg, 0);
        return;
    }
    for (size_t i = 0; i < n_keep; i++) {
        snprintf(w->keep[w->n_keep++], sizeof *w->keep, "%s", keep[i]);
    }
    MU_LIST_EACH(it, tmp, &d->boxes)
    {
        snprintf(w->keep[w->n_keep++], sizeof *w->keep, "%s",
                 MU_CONTAINER(it, struct mu_sandbox, node)->id);
    }
    w->job = (struct mu_job){.run = run_sweep, .done = sweep_done, .loop = d->loop};
    w->d = d;
    w->done = done;
    w->arg = arg;
    if (mu_work_submit(d->work, &w->job) < 0) {
        sweep_done(&w->job);
    }
}
