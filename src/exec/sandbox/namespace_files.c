/* Files of a workspace, read on the pool. */
#include <errno.h>
#include <fcntl.h>

#include "exec/sandbox/copyout_int.h"
#include "exec/sandbox/namespace_int.h"

struct read_job {
    struct mu_job job;
    int session_fd;
    char *path;
    size_t max;
    int64_t range;
    void (*done)(void *arg, int result, mu_bytes bytes);
    void *arg;
    int result;
    char *bytes;
    size_t len;
};

static void run_read(struct mu_job *job)
{
    struct read_job *j = MU_CONTAINER(job, struct read_job, job);
    j->result = j->session_fd < 0
                    ? MU_E_NOT_FOUND
                    : mu_copyout(j->session_fd, j->path, j->max, j->range, &j->bytes, &j->len);
}

static void read_done(struct mu_job *job)
{
    struct read_job *j = MU_CONTAINER(job, struct read_job, job);
    j->done(j->arg, job->ran ? j->result : MU_E_SHUTDOWN, mu_bytes_of(j->bytes, j->len));
    mu_free(j->bytes);
    mu_free(j->path);
    if (j->session_fd >= 0) {
        close(j->session_fd);
    }
    mu_free(j);
}

void mu_ns_read_file(struct mu_sandbox *s, const char *path, size_t max,
                     void (*done)(void *arg, int result, mu_bytes bytes), void *arg)
{
    MU_CHECK(mu_loop_here(s->d->loop));
    struct read_job *j = mu_calloc(1, sizeof *j);
    int r = j && (j->path = mu_bytes_dup(mu_str(path))) ? 0 : -ENOMEM;
    if (r == 0) {
        j->job = (struct mu_job){.run = run_read, .done = read_done, .loop = s->d->loop};
        j->session_fd = s->session_fd < 0 ? -1 : fcntl(s->session_fd, F_DUPFD_CLOEXEC, 3);
        j->max = max;
        j->range = s->range;
        j->done = done;
        j->arg = arg;
        r = mu_work_submit(s->d->work, &j->job);
    }
    if (r < 0) { /* the one answer that comes at once: there is no memory to wait with */
        if (j) {
            if (j->path && j->session_fd >= 0) {
                close(j->session_fd);
            }
            mu_free(j->path);
            mu_free(j);
        }
        done(arg, r, MU_B_NONE);
    }
}
