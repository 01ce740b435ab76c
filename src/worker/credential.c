/* The credential that an enrolment gave: said once, kept in the state folder, used from then on
 * (oz-worker.md 16). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/log.h"
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

void mu_credential_keep(struct mu_worker *w, mu_bytes credential)
{
    char path[PATH], tmp[PATH + 10];
    struct mu_uplink *l = &w->link;
    if (credential.len == 0 || credential.len >= sizeof l->credential ||
        memchr(credential.ptr, '\n', credential.len) || memchr(credential.ptr, 0, credential.len)) {
        return;
    }
    path_of(w, path);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    /* also when it cannot be kept: this process may connect again */
    memcpy(l->credential, credential.ptr, credential.len);
    l->credential[credential.len] = 0;
    MU_AUTO_CLOSE int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write(fd, credential.ptr, credential.len) != (ssize_t)credential.len ||
        fsync(fd) < 0 || rename(tmp, path) < 0) {
        mu_log(MU_LOG_ERROR, "link.credential_not_kept", MU_KC("err_message", mu_err_text(-errno)));
        return;
    }
    mu_log(MU_LOG_INFO, "link.enrolled");
}

void mu_credential_forget(struct mu_worker *w)
{
    char path[PATH];
    struct mu_uplink *l = &w->link;
    path_of(w, path);
    explicit_bzero(l->credential, sizeof l->credential);
    if (unlink(path) < 0 && errno != ENOENT) {
        mu_log(MU_LOG_WARN, "link.credential_not_removed",
               MU_KC("err_message", mu_err_text(-errno)));
    }
}
