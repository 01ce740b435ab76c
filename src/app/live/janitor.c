/* Three steps, one after the other: which folders nobody has written to for long (work pool), which
 * of their sessions still live (reader), and the others go (work pool). */
#include "app/live/janitor_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "app/live/live_int.h"
#include "io/folder.h"

enum { FIRST_MS = 30000, EVERY_MS = 600000, BATCH = 200 };

static const struct mu_stmt q_live = {
    "recorded_live", "t", "SELECT 1 FROM sessions WHERE id = $1 AND ended_ms IS NULL", NULL};

struct mu_janitor {
    struct mu_live *l;
    struct mu_timer timer;
    struct mu_job job;
    struct mu_read read;
    bool more;
    struct mu_id ids[BATCH];
    bool keep[BATCH];
    size_t n;
    int64_t before_ms;
};

static void again(struct mu_janitor *j, bool soon)
{
    if (!j->l->stopping) {
        (void)!mu_timer_set(&j->timer, soon ? 1000 : EVERY_MS);
    }
}

/* --- the first step --- */

static bool is_old(int dir, const char *name, int64_t before_ms)
{
    struct stat st;
    int fd MU_AUTO_CLOSE = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *d = fd >= 0 ? fdopendir(dup(fd)) : NULL;
    int64_t newest = fd >= 0 && fstat(fd, &st) == 0 ? (int64_t)st.st_mtim.tv_sec : INT64_MAX / 1000;
    const struct dirent *e;
    while (d && (e = readdir(d))) {
        if (e->d_name[0] != '.' && fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            newest = MU_MAX(newest, (int64_t)st.st_mtim.tv_sec);
        }
    }
    if (d) {
        closedir(d);
    }
    return newest * 1000 < before_ms;
}

static void look(struct mu_job *job)
{
    struct mu_janitor *j = MU_CONTAINER(job, struct mu_janitor, job);
    DIR *d = opendir(j->l->opts.recordings_dir);
    const struct dirent *e;
    j->n = 0;
    j->more = false;
    while (d && (e = readdir(d))) {
        struct mu_id id;
        if (mu_id_parse(mu_str(e->d_name), NULL, &id) < 0 ||
            !is_old(dirfd(d), e->d_name, j->before_ms)) {
            continue;
        }
        if (j->n == BATCH) {
            j->more = true;
            break;
        }
        j->keep[j->n] = false;
        j->ids[j->n++] = id;
    }
    if (d) {
        closedir(d);
    }
}

/* --- the second --- */

static int run_read(struct mu_read *read, struct mu_db *db)
{
    struct mu_janitor *j = MU_CONTAINER(read, struct mu_janitor, read);
    for (size_t i = 0; i < j->n; i++) {
        int r = MU_DB_RUN(db, &q_live, NULL, NULL, MU_VT(mu_id_bytes(&j->ids[i])));
        if (r < 0) {
            return r;
        }
        j->keep[i] = r > 0;
    }
    return 0;
}

/* --- the third --- */

static void sweep(struct mu_job *job)
{
    struct mu_janitor *j = MU_CONTAINER(job, struct mu_janitor, job);
    int dir MU_AUTO_CLOSE = open(j->l->opts.recordings_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; dir >= 0 && i < j->n; i++) {
        if (!j->keep[i]) {
            (void)mu_folder_remove_at(dir, j->ids[i].text);
        }
    }
}

static void swept(struct mu_job *job)
{
    struct mu_janitor *j = MU_CONTAINER(job, struct mu_janitor, job);
    again(j, j->more);
}

static void known(struct mu_read *read, int result)
{
    struct mu_janitor *j = MU_CONTAINER(read, struct mu_janitor, read);
    j->job = (struct mu_job){.run = sweep, .done = swept, .loop = j->l->opts.core};
    for (size_t i = 0; i < j->n; i++) { /* somebody may be looking at it just now */
        j->keep[i] = j->keep[i] || mu_live_find(j->l, &j->ids[i]);
    }
    if (result < 0 || mu_work_submit(j->l->opts.work, &j->job) < 0) {
        again(j, false);
    }
}

static void looked(struct mu_job *job)
{
    struct mu_janitor *j = MU_CONTAINER(job, struct mu_janitor, job);
    j->read = (struct mu_read){.run = run_read, .done = known, .loop = j->l->opts.core};
    if (j->l->stopping || !j->n || mu_readers_submit(j->l->opts.readers, &j->read) < 0) {
        again(j, false);
    }
}

static void on_timer(struct mu_timer *t)
{
    struct mu_janitor *j = MU_CONTAINER(t, struct mu_janitor, timer);
    j->before_ms = mu_live_now(j->l) - j->l->opts.recording_keep_ms;
    j->job = (struct mu_job){.run = look, .done = looked, .loop = j->l->opts.core};
    if (mu_work_submit(j->l->opts.work, &j->job) < 0) {
        again(j, false);
    }
}

int mu_janitor_new(struct mu_live *l, struct mu_janitor **ret)
{
    struct mu_janitor *j = mu_calloc(1, sizeof *j);
    if (!j) {
        return -ENOMEM;
    }
    j->l = l;
    mu_timer_init(&j->timer, l->opts.core, on_timer);
    *ret = j;
    return 0;
}

void mu_janitor_start(struct mu_janitor *j, int64_t delay_ms)
{
    (void)!mu_timer_set(&j->timer, delay_ms < 0 ? FIRST_MS : delay_ms);
}

void mu_janitor_end(struct mu_janitor *j)
{
    if (j) {
        mu_timer_clear(&j->timer);
    }
}

struct mu_janitor *mu_janitor_free(struct mu_janitor *j)
{
    mu_free(j);
    return NULL;
}
