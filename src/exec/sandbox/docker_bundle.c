/* The tree that was installed with the worker (entrypoint.sh, bin/muster, …), read once as an
 * archive. The volume that it fills is named by its content. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <uv.h>

#include "base/crypt.h"
#include "exec/engine/tar.h"
#include "exec/sandbox/docker_int.h"

enum { MAX_BYTES = 64 << 20, MAX_FILES = 256, MAX_DEPTH = 4 };

struct mu_docker_bundle_job {
    uv_work_t work;
    struct mu_docker *d; /* NULL: the driver is gone */
    char *dir;
    struct mu_buf tar;
    unsigned files;
    int result;
    char error[MU_DOCKER_TEXT];
};

static int add_tree(struct mu_docker_bundle_job *j, int dir, const char *prefix, unsigned depth);

static int add_file(struct mu_docker_bundle_job *j, int fd, const char *name, const struct stat *st)
{
    struct mu_buf content;
    mu_buf_init(&content, MAX_BYTES);
    ssize_t n = 1;
    while (n > 0 && !content.failed) {
        char *p = mu_buf_room(&content, 64 << 10);
        n = p ? read(fd, p, 64 << 10) : 0;
        content.len += n > 0 ? (size_t)n : 0;
    }
    int r = n < 0 ? -errno : content.failed;
    if (r == 0) {
        mu_tar_add_file(&j->tar, name, st->st_mode & 0111 ? 0755 : 0644, mu_buf_bytes(&content));
        r = j->tar.failed;
    }
    mu_buf_fini(&content);
    return r;
}

static int add_one(struct mu_docker_bundle_job *j, int dir, const char *prefix, const char *base,
                   unsigned depth)
{
    char name[512];
    struct stat st;
    snprintf(name, sizeof name, "%s%s", prefix, base);
    MU_AUTO_CLOSE int fd = openat(dir, base, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int r = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;
    if (r == 0 && ++j->files > MAX_FILES) {
        r = MU_E_LIMIT;
    }
    if (r == 0 && S_ISDIR(st.st_mode)) {
        size_t len = strlen(name);
        mu_tar_add_dir(&j->tar, name, 0755);
        snprintf(name + len, sizeof name - len, "/");
        return depth >= MAX_DEPTH ? MU_E_LIMIT : add_tree(j, mu_steal_fd(&fd), name, depth + 1);
    }
    r = r < 0 ? r : !S_ISREG(st.st_mode) ? MU_E_INVALID : add_file(j, fd, name, &st);
    if (r < 0) {
        snprintf(j->error, sizeof j->error, "%.200s/%.200s: %s", j->dir, name, mu_err_text(r));
    }
    return r;
}

static int is_name(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

/* In the order of names: the hash must not depend on the disk. Takes over `dir`. */
static int add_tree(struct mu_docker_bundle_job *j, int dir, const char *prefix, unsigned depth)
{
    struct dirent **list = NULL;
    int n = scandirat(dir, ".", &list, is_name, alphasort), r = n < 0 ? -errno : 0;
    for (int i = 0; i < n; i++) {
        r = r < 0 ? r : add_one(j, dir, prefix, list[i]->d_name, depth);
        free(list[i]);
    }
    free(list);
    close(dir);
    return r;
}

static void read_bundle(uv_work_t *w)
{
    struct mu_docker_bundle_job *j = w->data;
    int dir = open(j->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    j->result = dir < 0 ? -errno : add_tree(j, dir, "", 0);
    mu_tar_add_end(&j->tar);
    j->result = j->result < 0 ? j->result : j->tar.failed;
    if (j->result < 0 && !j->error[0]) {
        snprintf(j->error, sizeof j->error, "the sidecar installed at '%.200s': %s", j->dir,
                 mu_err_text(j->result));
    }
}

static void job_free(struct mu_docker_bundle_job *j)
{
    mu_buf_fini(&j->tar);
    mu_free(j->dir);
    mu_free(j);
}

static void tell_all(struct mu_docker_bundle *b, int result, const char *error)
{
    struct mu_list *it, all;
    mu_list_init(&all);
    while ((it = mu_list_pop(&b->waiting))) {
        mu_list_push(&all, it);
    }
    while ((it = mu_list_pop(&all))) {
        struct mu_docker_bundle_want *w = MU_CONTAINER(it, struct mu_docker_bundle_want, link);
        w->done(w->arg, result, error);
    }
}

static void read_done(uv_work_t *w, int status)
{
    struct mu_docker_bundle_job *j = w->data;
    struct mu_docker *d = j->d;
    (void)status;
    if (d) {
        d->bundle.job = NULL;
        if (j->result == 0) {
            struct mu_digest_hex hex = mu_sha256_hex(mu_buf_bytes(&j->tar));
            snprintf(d->bundle.name, sizeof d->bundle.name, "muster-agent-%.12s", hex.text);
            d->bundle.tar = j->tar;
            mu_buf_init(&j->tar, 0);
        }
        tell_all(&d->bundle, j->result, j->error);
    }
    job_free(j);
}

int mu_docker_bundle_get_(struct mu_docker *d, struct mu_docker_bundle_want *w)
{
    struct mu_docker_bundle *b = &d->bundle;
    struct mu_docker_bundle_job *j = b->job;
    if (!j) {
        j = mu_calloc(1, sizeof *j);
        if (!j) {
            return -ENOMEM;
        }
        j->d = d;
        j->work.data = j;
        mu_buf_init(&j->tar, MAX_BYTES);
        j->dir = mu_bytes_dup(mu_str(d->settings.bundle_dir));
        int r =
            j->dir ? uv_queue_work(mu_loop_uv(d->loop), &j->work, read_bundle, read_done) : -ENOMEM;
        if (r < 0) {
            job_free(j);
            return r;
        }
        b->job = j;
    }
    mu_list_push(&b->waiting, &w->link);
    return 0;
}

void mu_docker_bundle_fini_(struct mu_docker *d)
{
    if (d->bundle.job) {
        d->bundle.job->d = NULL;
    }
    mu_buf_fini(&d->bundle.tar);
}
