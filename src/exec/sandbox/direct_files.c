/* Folders and files of the kind `direct`: everything here may block and runs on a work thread,
 * except the few small files of a box. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/fd.h"
#include "exec/sandbox/direct_int.h"
#include "io/folder.h"

enum { KILL_ROUNDS = 200 };

void mu_direct_paths(struct mu_direct_box *b, const char *execution_id)
{
    const struct mu_sandbox_settings *s = b->d->settings;
    snprintf(b->id, sizeof b->id, "%s", execution_id);
    snprintf(b->folder, sizeof b->folder, "%s/%s", b->d->root, b->id);
    if (s->target_dir) {
        snprintf(b->workspace, sizeof b->workspace, "%s", s->target_dir);
    } else {
        snprintf(b->workspace, sizeof b->workspace, "%s/%s", b->d->workspaces, b->id);
    }
}

/* --- prepare --- */

static int make(const char *path)
{
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* All folders on the way. */
static int make_all(const char *path)
{
    char part[MU_DIRECT_PATH];
    snprintf(part, sizeof part, "%s", path);
    for (char *at = strchr(part + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        int r = make(part);
        if (r < 0) {
            return r;
        }
        *at = '/';
    }
    return make(part);
}

static int write_file(const char *path, mu_bytes text)
{
    MU_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    return mu_write_all(fd, text);
}

static int put_prompt(const struct mu_direct_box *b)
{
    char path[MU_DIRECT_PATH + 32];
    snprintf(path, sizeof path, "%s/.oz", b->workspace);
    int r = make(path);
    if (r == 0) {
        snprintf(path, sizeof path, "%s/.oz/prompt.txt", b->workspace);
        r = write_file(path, b->prompt);
    }
    return r;
}

static int prepare(struct mu_direct_box *b)
{
    char path[MU_DIRECT_PATH + 32];
    int r = make_all(b->d->root);
    if (r == 0) {
        r = make(b->folder);
    }
    if (r == 0 && !b->d->settings->target_dir) {
        r = make_all(b->d->workspaces);
        /* Its own: one of that name that is there already is somebody else's. */
        if (r == 0 && mkdir(b->workspace, 0700) < 0) {
            r = -errno;
        }
    }
    if (r == 0 && b->prompt.ptr) {
        r = put_prompt(b);
    }
    snprintf(path, sizeof path, "%s/env", b->folder);
    if (r == 0) {
        r = write_file(path, MU_B_NONE);
    }
    snprintf(path, sizeof path, "%s/log", b->folder);
    if (r == 0) {
        b->log_fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = b->log_fd < 0 ? -errno : 0;
    }
    return r;
}

void mu_direct_prepare(struct mu_job *job)
{
    struct mu_direct_box *b = MU_CONTAINER(job, struct mu_direct_box, step);
    b->step_result = prepare(b);
}

/* --- the end --- */

/* The folder's path rather than the id: no other worker has it. */
static void kill_left(const char *folder)
{
    char variable[MU_DIRECT_PATH + 300];
    snprintf(variable, sizeof variable, "OZ_SANDBOX_MARK=%s", folder);
    size_t left MU_UNUSED = mu_child_kill_marked(variable, KILL_ROUNDS);
}

void mu_direct_reap(struct mu_job *job)
{
    struct mu_direct_box *b = MU_CONTAINER(job, struct mu_direct_box, step);
    kill_left(b->folder);
    b->step_result = 0;
}

void mu_direct_remove(struct mu_job *job)
{
    struct mu_direct_box *b = MU_CONTAINER(job, struct mu_direct_box, step);
    kill_left(b->folder); /* of the teardown command */
    b->step_result = 0;
    if (b->d->settings->keep) {
        char path[MU_DIRECT_PATH + 32];
        snprintf(path, sizeof path, "%s/kept", b->folder);
        b->step_result = write_file(path, MU_B_NONE);
        return;
    }
    if (!b->d->settings->target_dir) {
        b->step_result = mu_folder_remove(b->workspace);
    }
    int r = mu_folder_remove(b->folder);
    b->step_result = b->step_result < 0 ? b->step_result : r;
}

/* --- reading a file that the task made --- */

static int open_beneath(const char *workspace, const char *path)
{
    struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
                                      RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    MU_AUTO_CLOSE int dir = open(workspace, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return -errno;
    }
    int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
    return fd < 0 ? -errno : fd;
}

int mu_direct_read(const char *workspace, const char *path, size_t max, struct mu_buf *dst)
{
    static const char prefix[] = "/workspace/";
    struct stat st;
    if (strncmp(path, prefix, sizeof prefix - 1) != 0) {
        return MU_E_INVALID;
    }
    MU_AUTO_CLOSE int fd = open_beneath(workspace, path + sizeof prefix - 1);
    if (fd < 0) {
        return fd == -ENOENT || fd == -ENOTDIR                ? MU_E_NOT_FOUND
               : fd == -ELOOP || fd == -EXDEV || fd == -ENXIO ? MU_E_INVALID
                                                              : fd;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1) {
        return MU_E_INVALID;
    }
    while (dst->len <= max) {
        char *room = mu_buf_room(dst, 65536);
        ssize_t n = room ? read(fd, room, MU_MIN(max - dst->len + 1, (size_t)65536)) : -1;
        if (!room) {
            return dst->failed;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : 0;
        }
        dst->len += (size_t)n;
    }
    dst->len = max;
    return MU_E_TOO_LARGE;
}

struct read_job {
    struct mu_job job;
    struct mu_direct_box *box;
    size_t max;
    int result;
    struct mu_buf bytes;
    void (*done)(void *arg, int result, mu_bytes bytes);
    void *arg;
    char path[];
};

static void run_read(struct mu_job *job)
{
    struct read_job *j = MU_CONTAINER(job, struct read_job, job);
    j->result = mu_direct_read(j->box->workspace, j->path, j->max, &j->bytes);
}

static void read_done(struct mu_job *job)
{
    struct read_job *j = MU_CONTAINER(job, struct read_job, job);
    struct mu_direct_box *b = j->box;
    if (!job->ran) {
        j->result = MU_E_CLOSED;
    }
    if (!b->detached) {
        j->done(j->arg, j->result, mu_buf_bytes(&j->bytes));
    }
    mu_buf_fini(&j->bytes);
    mu_free(j);
    mu_direct_job_done(b);
}

/* Without memory or a free thread the answer comes all the same. */
static void read_failed(struct mu_post *post)
{
    read_done(MU_CONTAINER(post, struct mu_job, post));
}

void mu_direct_read_file(struct mu_sandbox *s, const char *path, size_t max,
                         void (*done)(void *arg, int result, mu_bytes bytes), void *arg)
{
    struct mu_direct_box *b = (struct mu_direct_box *)s;
    struct mu_work *work = mu_direct_work(b->d);
    size_t len = strlen(path);
    struct read_job *j = mu_calloc(1, sizeof *j + len + 1);
    if (!j) {
        done(arg, -ENOMEM, MU_B_NONE);
        return;
    }
    j->job = (struct mu_job){.run = run_read, .done = read_done, .loop = b->d->loop};
    j->box = b;
    j->max = max;
    j->done = done;
    j->arg = arg;
    mu_buf_init(&j->bytes, max + 65537);
    memcpy(j->path, path, len + 1);
    b->jobs++;
    int r = work ? mu_work_submit(work, &j->job) : -ENOMEM;
    if (r < 0) {
        j->job.ran = true;
        j->result = r;
        j->job.post.fn = read_failed;
        mu_loop_post(b->d->loop, &j->job.post);
    }
}

/* --- small files of the folder --- */

int mu_direct_write_meta(const struct mu_direct_box *b, pid_t pid, int64_t started)
{
    char path[MU_DIRECT_PATH + 32], tmp[MU_DIRECT_PATH + 32], text[256];
    snprintf(path, sizeof path, "%s/meta", b->folder);
    snprintf(tmp, sizeof tmp, "%s/meta.tmp", b->folder);
    int n = snprintf(text, sizeof text, "%lld %lld %lld %s\n", (long long)pid, (long long)started,
                     (long long)b->deadline_ms, b->task_id);
    int r = write_file(tmp, mu_bytes_of(text, (size_t)n));
    return r == 0 && rename(tmp, path) < 0 ? -errno : r;
}

static mu_bytes read_small(const char *path, char *text, size_t size)
{
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size);
    return mu_bytes_trim(mu_bytes_of(text, n > 0 ? (size_t)n : 0));
}

bool mu_direct_read_meta(struct mu_direct_box *b, pid_t *pid, int64_t *started,
                         int64_t *deadline_ms)
{
    char path[MU_DIRECT_PATH + 32], text[256];
    int64_t number = 0;
    snprintf(path, sizeof path, "%s/meta", b->folder);
    mu_bytes rest = read_small(path, text, sizeof text);
    if (mu_bytes_i64(mu_bytes_split(&rest, ' '), &number) < 0 ||
        mu_bytes_i64(mu_bytes_split(&rest, ' '), started) < 0 ||
        mu_bytes_i64(mu_bytes_split(&rest, ' '), deadline_ms) < 0 || number <= 1 ||
        number > INT32_MAX) {
        return false;
    }
    *pid = (pid_t)number;
    snprintf(b->task_id, sizeof b->task_id, "%.*s", (int)MU_MIN(rest.len, sizeof b->task_id - 1),
             rest.ptr ? rest.ptr : "");
    return true;
}

bool mu_direct_read_end(const struct mu_direct_box *b, int *ret)
{
    char path[MU_DIRECT_PATH + 32], text[32];
    int64_t number;
    snprintf(path, sizeof path, "%s/end", b->folder);
    if (mu_bytes_i64(read_small(path, text, sizeof text), &number) < 0 || number < 0 ||
        number > 255) {
        return false;
    }
    *ret = (int)number;
    return true;
}

/* --- what earlier processes left --- */

struct sweep {
    struct mu_job job;
    struct mu_direct *d;
    char (*keep)[MU_DIRECT_ID + 1];
    size_t n_keep, removed;
    void (*done)(void *arg, size_t removed);
    void *arg;
};

static bool kept(const struct sweep *s, const char *id)
{
    for (size_t i = 0; i < s->n_keep; i++) {
        if (!strcmp(s->keep[i], id)) {
            return true;
        }
    }
    return false;
}

static void run_sweep(struct mu_job *job)
{
    struct sweep *s = MU_CONTAINER(job, struct sweep, job);
    DIR *dir = opendir(s->d->root);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[MU_DIRECT_PATH + 300], mark[MU_DIRECT_PATH + 320];
        if (e->d_name[0] == '.' || strlen(e->d_name) > MU_DIRECT_ID || kept(s, e->d_name)) {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s", s->d->root, e->d_name);
        snprintf(mark, sizeof mark, "%s/kept", path);
        if (access(mark, F_OK) == 0) {
            continue;
        }
        kill_left(path);
        int r = mu_folder_remove(path);
        if (!s->d->settings->target_dir) {
            snprintf(path, sizeof path, "%s/%s", s->d->workspaces, e->d_name);
            r = mu_folder_remove(path) < 0 ? -1 : r;
        }
        s->removed += r == 0;
    }
    if (dir) {
        closedir(dir);
    }
}

static void sweep_done(struct mu_job *job)
{
    struct sweep *s = MU_CONTAINER(job, struct sweep, job);
    s->done(s->arg, s->removed);
    mu_free(s->keep);
    mu_free(s);
}

static void sweep_post(struct mu_post *post)
{
    sweep_done(MU_CONTAINER(post, struct mu_job, post));
}

void mu_direct_sweep(struct mu_sandbox_driver *sd, const char *const *keep, size_t n_keep,
                     void (*done)(void *arg, size_t removed), void *arg)
{
    struct mu_direct *d = (struct mu_direct *)sd;
    struct mu_work *work = mu_direct_work(d);
    struct sweep *s = mu_calloc(1, sizeof *s);
    if (!s) {
        done(arg, 0);
        return;
    }
    *s = (struct sweep){.d = d, .done = done, .arg = arg};
    s->job = (struct mu_job){.run = run_sweep, .done = sweep_done, .loop = d->loop};
    s->keep = mu_calloc(n_keep + 1, sizeof *s->keep);
    for (size_t i = 0; s->keep && i < n_keep; i++) {
        snprintf(s->keep[s->n_keep++], sizeof *s->keep, "%s", keep[i]);
    }
    if (!s->keep || !work || mu_work_submit(work, &s->job) < 0) {
        s->job.post.fn = sweep_post;
        mu_loop_post(d->loop, &s->job.post);
    }
}
