/* The kinds of sandboxes of this worker: which are there, which really work, which takes a task
 * (oz-worker.md 7.3). */
#include <stdio.h>

#include "base/log.h"
#include "worker/worker_int.h"

enum { CHECK_MS = 30000 };

const struct mu_sandbox_ops *const mu_worker_kinds[] = {
    &mu_sandbox_namespace, &mu_sandbox_docker, &mu_sandbox_direct, &mu_sandbox_command, NULL};

bool mu_worker_kind(mu_bytes kind, const char **ret)
{
    static const char *const aliases[][2] = {{"podman", "docker"}, {"process", "direct"}};
    for (size_t i = 0; i < MU_ARRAY_LEN(aliases); i++) {
        if (mu_bytes_is(kind, aliases[i][0])) {
            kind = mu_str(aliases[i][1]);
        }
    }
    if (mu_bytes_is(kind, "auto")) {
        *ret = "auto";
        return true;
    }
    for (size_t i = 0; mu_worker_kinds[i]; i++) {
        if (mu_bytes_is(kind, mu_worker_kinds[i]->name)) {
            *ret = mu_worker_kinds[i]->name;
            return true;
        }
    }
    return false;
}

/* auto: whatever can be chosen without being named. */
static bool wanted(const struct mu_worker *w, const struct mu_sandbox_ops *ops)
{
    const char *named = w->conf->backend;
    if (strcmp(named, "auto") != 0) {
        return !strcmp(named, ops->name);
    }
    return !strcmp(ops->name, "namespace") || !strcmp(ops->name, "docker") ||
           (!strcmp(ops->name, "direct") && w->settings.allow_direct);
}

int mu_backends_open(struct mu_worker *w, struct mu_err *err)
{
    for (size_t i = 0; mu_worker_kinds[i] && w->n_backends < MU_WORKER_MAX_KINDS; i++) {
        const struct mu_sandbox_ops *ops = mu_worker_kinds[i];
        struct mu_backend *b = &w->backends[w->n_backends];
        if (!wanted(w, ops)) {
            continue;
        }
        int r = ops->open(w->loop, &w->settings, &b->driver, err);
        if (r < 0) {
            mu_err_context(err, "sandbox %s", ops->name);
            return r;
        }
        b->ops = ops;
        b->w = w;
        snprintf(b->report.kind, sizeof b->report.kind, "%s", ops->name);
        snprintf(b->report.strength, sizeof b->report.strength, "unavailable");
        snprintf(b->report.summary, sizeof b->report.summary, "not looked at yet");
        w->n_backends++;
    }
    if (w->n_backends == 0) {
        return mu_err_set(err, MU_E_UNAVAILABLE,
                          "no kind of sandbox can be chosen: the kind direct, which isolates "
                          "nothing, needs ALLOW_UNSAFE_PROCESS_DRIVER=1");
    }
    return 0;
}

void mu_backends_close(struct mu_worker *w)
{
    for (size_t i = 0; i < w->n_backends; i++) {
        struct mu_backend *b = &w->backends[i];
        b->driver = b->ops->close(b->driver);
    }
    w->n_backends = 0;
}

/* --- checks --- */

static void one_checked(void *arg, const struct mu_sandbox_report *report)
{
    struct mu_backend *b = arg;
    struct mu_worker *w = b->w;
    b->report = *report;
    b->checked = true;
    if (!w->only_checks) {
        mu_log(report->usable ? MU_LOG_INFO : MU_LOG_WARN, "sandbox.checked",
               MU_KC("kind", b->ops->name), MU_KC("strength", report->strength),
               MU_KC("summary", report->summary), MU_KT("usable", report->usable));
    }
    if (--w->unchecked == 0 && mu_timer_is_set(&w->check_timer)) { /* else it was too late */
        mu_timer_clear(&w->check_timer);
        w->after(w);
    }
    mu_worker_advance(w); /* who leaves waits for this */
}

bool mu_backends_busy(const struct mu_worker *w)
{
    return w->unchecked > 0 || w->sweeping > 0;
}

static void check_late(struct mu_timer *t)
{
    struct mu_worker *w = MU_CONTAINER(t, struct mu_worker, check_timer);
    for (size_t i = 0; i < w->n_backends; i++) {
        if (!w->backends[i].checked && !w->only_checks) {
            mu_log(MU_LOG_WARN, "sandbox.check_late", MU_KC("kind", w->backends[i].ops->name));
        }
    }
    w->after(w);
}

void mu_backends_check(struct mu_worker *w, void (*done)(struct mu_worker *w))
{
    w->after = done;
    mu_timer_init(&w->check_timer, w->loop, check_late);
    if (mu_timer_set(&w->check_timer, CHECK_MS) < 0) {
        mu_worker_give_up(w, 1);
        return;
    }
    w->unchecked = w->n_backends;
    for (size_t i = 0; i < w->n_backends; i++) {
        struct mu_backend *b = &w->backends[i];
        int r = b->ops->check(b->driver, one_checked, b);
        if (r < 0) {
            struct mu_sandbox_report report = b->report;
            snprintf(report.summary, sizeof report.summary, "%s", mu_err_text(r));
            one_checked(b, &report);
        }
    }
}

/* --- choice --- */

struct mu_backend *mu_backends_find(struct mu_worker *w, mu_bytes kind)
{
    for (size_t i = 0; i < w->n_backends; i++) {
        if (mu_bytes_is(kind, w->backends[i].ops->name)) {
            return &w->backends[i];
        }
    }
    return NULL;
}

bool mu_backends_usable(const struct mu_worker *w)
{
    for (size_t i = 0; i < w->n_backends; i++) {
        if (w->backends[i].report.usable) {
            return true;
        }
    }
    return false;
}

static struct mu_backend *usable(struct mu_worker *w, const char *kind)
{
    struct mu_backend *b = mu_backends_find(w, mu_str(kind));
    return b && b->report.usable ? b : NULL;
}

static struct mu_backend *fitting(struct mu_worker *w, const char *kind,
                                  const struct mu_wire_assignment *as, char *ret_why, size_t size)
{
    struct mu_backend *b = usable(w, kind);
    return b && mu_policy_fits(b, as, ret_why, size) ? b : NULL;
}

struct mu_backend *mu_backends_choose(struct mu_worker *w, const struct mu_wire_assignment *as,
                                      char *ret_why, size_t size)
{
    static const char *const with_image[] = {"docker", "namespace", "direct"};
    static const char *const without[] = {"namespace", "docker", "direct"};
    const char *const *order = as->image.len ? with_image : without;
    snprintf(ret_why, size, "no sandbox back end is usable on this worker");
    if (strcmp(w->conf->backend, "auto") != 0) {
        if (!usable(w, w->conf->backend) && w->n_backends) {
            snprintf(ret_why, size, "%s", w->backends[0].report.summary);
        }
        return fitting(w, w->conf->backend, as, ret_why, size);
    }
    for (size_t i = 0; i < 3; i++) {
        struct mu_backend *b = fitting(w, order[i], as, ret_why, size);
        if (b) {
            return b;
        }
    }
    return NULL;
}

/* --- what earlier processes left --- */

static void swept(void *arg, size_t removed)
{
    struct mu_backend *b = arg;
    struct mu_worker *w = b->w;
    if (removed) {
        mu_log(MU_LOG_INFO, "sandbox.swept", MU_KC("kind", b->ops->name),
               MU_KI("removed", (int64_t)removed));
    }
    if (--w->sweeping == 0) {
        w->after(w);
    }
    mu_worker_advance(w);
}

void mu_backends_sweep(struct mu_worker *w, void (*done)(struct mu_worker *w))
{
    const char *keep[MU_WORKER_MAX_TASKS + MU_WORKER_MAX_DISPATCHED];
    size_t n = 0;
    w->after = done;
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        if (n < MU_ARRAY_LEN(keep)) {
            keep[n++] = MU_CONTAINER(it, struct mu_attempt, link)->execution_id;
        }
    }
    w->sweeping = 1;
    for (size_t i = 0; i < w->n_backends; i++) {
        struct mu_backend *b = &w->backends[i];
        if (b->ops->sweep && b->report.usable) {
            w->sweeping++;
            b->ops->sweep(b->driver, keep, n, swept, b);
        }
    }
    if (--w->sweeping == 0) {
        done(w);
    }
}
