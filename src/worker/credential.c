/* The credential that an enrolment gave: said once, kept in the state folder, used from then on
 * (oz-worker.md 16). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/log.h"
#include "io/key_file.h"
#include "worker/worker_int.h"

enum { PATH = 4200 };

static void path_of(const struct mu_worker *w, char path[PATH])
{
    snprintf(path, PATH, "%s/credential", w->conf->state_dir);
}

void mu_credential_load(struct mu_worker *w)
{
    char path[PATH];
    struct mu_uplink *l = &w->link;
    path_of(w, path);
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, l->credential, sizeof l->credential - 1);
    l->credential[MU_MAX(n, 0)] = 0;
    l->credential[strcspn(l->credential, "\r\n")] = 0;
}

/* --- to the disk, which may take its time: the link goes on meanwhile --- */

static void write_it(struct mu_job *job)
{
    struct mu_credential_file *k = MU_CONTAINER(job, struct mu_credential_file, job);
    const struct mu_worker *w = k->w;
    char path[PATH];
    path_of(w, path);
    if (k->text[0]) {
        k->result = mu_key_file_write(w->conf->state_dir, "credential", mu_str(k->text), true);
    } else {
        k->result = unlink(path) < 0 && errno != ENOENT ? -errno : 0;
    }
}

static void say(struct mu_credential_file *k)
{
    if (k->result < 0 && k->text[0]) {
        mu_log(MU_LOG_ERROR, "link.credential_not_kept",
               MU_KC("err_message", mu_err_text(k->result)));
    } else if (k->result < 0) {
        mu_log(MU_LOG_WARN, "link.credential_not_removed",
               MU_KC("err_message", mu_err_text(k->result)));
    } else if (k->text[0]) {
        mu_log(MU_LOG_INFO, "link.enrolled");
    }
    explicit_bzero(k->text, sizeof k->text);
}

static void put(struct mu_worker *w);

static void written(struct mu_job *job)
{
    struct mu_credential_file *k = MU_CONTAINER(job, struct mu_credential_file, job);
    if (!k->busy) {
        return; /* the end of the process was faster */
    }
    if (!job->ran) {
        write_it(job);
    }
    k->busy = false;
    say(k);
    if (k->again) {
        put(k->w);
    }
}

/* What the memory holds now; one at a time, so that the last one stays. */
static void put(struct mu_worker *w)
{
    struct mu_credential_file *k = &w->link.file;
    struct mu_work *work = mu_worker_work(w);
    k->again = k->busy;
    if (k->busy) {
        return;
    }
    k->w = w;
    k->job = (struct mu_job){.run = write_it, .done = written, .loop = w->loop};
    memcpy(k->text, w->link.credential, sizeof k->text);
    k->busy = work && mu_work_submit(work, &k->job) == 0;
    if (!k->busy) {
        write_it(&k->job);
        say(k);
    }
}

void mu_credential_settle(struct mu_worker *w)
{
    struct mu_credential_file *k = &w->link.file;
    if (k->busy && (k->again || !k->job.ran)) {
        memcpy(k->text, w->link.credential, sizeof k->text);
        write_it(&k->job);
    }
    if (k->busy) {
        say(k);
    }
    k->busy = k->again = false;
}

/* --- what is said of it --- */

void mu_credential_keep(struct mu_worker *w, mu_bytes credential)
{
    struct mu_uplink *l = &w->link;
    if (credential.len == 0 || credential.len >= sizeof l->credential ||
        memchr(credential.ptr, '\n', credential.len) || memchr(credential.ptr, 0, credential.len)) {
        return;
    }
    /* also when it cannot be kept: this process may connect again */
    memcpy(l->credential, credential.ptr, credential.len);
    l->credential[credential.len] = 0;
    put(w);
}

void mu_credential_forget(struct mu_worker *w)
{
    explicit_bzero(w->link.credential, sizeof w->link.credential);
    put(w);
}
