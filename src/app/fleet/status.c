/* Who is there (village-control-plane.md 6.4): heartbeats, online and offline, drained; and what
 * people see of it. */
#include <stdio.h>

#include "app/fleet/fleet_int.h"

enum { SKEW_MS = 5000 };

const char *mu_worker_status_name(enum mu_worker_status s)
{
    static const char *const names[] = {"online", "offline", "draining"};
    return names[s];
}

bool mu_worker_serves(const struct mu_worker *w, const char *org_id)
{
    return !w->org_id[0] || strcmp(w->org_id, org_id) == 0;
}

const char *mu_worker_host(const struct mu_worker *w)
{
    return w->host ? w->host : w->name;
}

void mu_worker_know(struct mu_worker *w)
{
    if (!w->anonymous && mu_list_empty(&w->known)) {
        mu_list_push(&w->f->known, &w->known);
    }
}

struct mu_worker *mu_fleet_by_uid(struct mu_fleet *f, const struct mu_id *uid)
{
    char key[8 + MU_ID_LEN];
    snprintf(key, sizeof key, "rnr_%s", uid->text);
    struct mu_worker *w = mu_map_get(&f->workers, mu_str(key));
    if (w && w->org_id[0]) {
        return w;
    }
    MU_LIST_EACH(it, tmp, &f->known)
    {
        w = MU_CONTAINER(it, struct mu_worker, known);
        if (strcmp(w->uid.text, uid->text) == 0) {
            return w;
        }
    }
    return NULL;
}

struct mu_worker *mu_fleet_by_host(struct mu_fleet *f, const char *org_id, mu_bytes host)
{
    if (!org_id[0]) {
        struct mu_worker *w = mu_map_get(&f->workers, host);
        return w && !w->org_id[0] ? w : NULL;
    }
    MU_LIST_EACH(it, tmp, &f->known)
    {
        struct mu_worker *w = MU_CONTAINER(it, struct mu_worker, known);
        if (strcmp(w->org_id, org_id) == 0 && mu_bytes_is(host, mu_worker_host(w))) {
            return w;
        }
    }
    return NULL;
}

/* --- status --- */

static bool is_online(const struct mu_worker *w)
{
    return w->attached ||
           (w->seen_ms && mu_fleet_now(w->f) - w->seen_ms <= w->f->opts.heartbeat_timeout_ms);
}

enum mu_worker_status mu_worker_status(const struct mu_worker *w)
{
    return !is_online(w)                ? MU_WORKER_OFFLINE
           : w->drain_ms || w->draining ? MU_WORKER_DRAINING
                                        : MU_WORKER_ONLINE;
}

void mu_worker_status_look(struct mu_worker *w)
{
    if (w->f->closed || w->leaving || mu_list_empty(&w->known)) {
        return;
    }
    bool online = is_online(w);
    if (online != w->online) {
        w->online = online;
        mu_log(MU_LOG_INFO, online ? "worker.online" : "worker.offline",
               MU_KC("worker_id", w->name));
        mu_worker_record(w, online ? MU_EV_RUNNER_ONLINE : MU_EV_RUNNER_OFFLINE);
    }
    if (w->drain_ms && !w->drained_ms && mu_list_empty(&w->tasks)) {
        w->drained_ms = MU_MAX(mu_fleet_now(w->f), 1);
        mu_log(MU_LOG_INFO, "worker.drained", MU_KC("worker_id", w->name));
        mu_worker_record(w, MU_EV_RUNNER_DRAINED);
    }
}

static void silent(struct mu_worker *w)
{
    mu_log(MU_LOG_WARN, "worker.silent", MU_KC("worker_id", w->name));
    mu_worker_evict(w, 4408, "No heartbeat");
    w->seen_ms -= w->f->opts.heartbeat_timeout_ms; /* that is how long it was not heard of */
}

void mu_fleet_status_tick(struct mu_fleet *f, int64_t now)
{
    if (now < f->check_ms) {
        return;
    }
    f->check_ms = now + f->opts.check_ms;
    MU_LIST_EACH(it, tmp, &f->known)
    {
        struct mu_worker *w = MU_CONTAINER(it, struct mu_worker, known);
        /* one that never sent a heartbeat is known by its connection alone */
        if (w->attached && w->beat_ms && now - w->beat_ms > f->opts.heartbeat_timeout_ms) {
            silent(w);
        }
        if (w->drain_until_ms && mu_fleet_now(f) >= w->drain_until_ms) {
            mu_worker_stop_rest(w);
        }
        mu_worker_status_look(w);
    }
}

/* --- heartbeats --- */

static void tell_skew(struct mu_worker *w, int64_t skew_ms)
{
    bool far = skew_ms > SKEW_MS || skew_ms < -SKEW_MS;
    w->skew_ms = skew_ms;
    if (far && !w->told_skew) {
        mu_log(MU_LOG_WARN, "worker.clock_skew", MU_KC("worker_id", w->name),
               MU_KI("skew_ms", skew_ms));
    }
    w->told_skew = far;
}

/* Such a worker gets nothing: somebody must hear of it. */
static void tell_disk(struct mu_worker *w, int64_t before)
{
    bool was = before >= MU_DISK_FULL_PERCENT, is = w->disk >= MU_DISK_FULL_PERCENT;
    if (is && !was) {
        mu_log(MU_LOG_WARN, "worker.disk_full", MU_KC("worker_id", w->name),
               MU_KI("percent", w->disk),
               MU_KC("note", "it gets nothing until there is room in its state folder"));
    } else if (was && !is) {
        mu_log(MU_LOG_INFO, "worker.disk_has_room", MU_KC("worker_id", w->name),
               MU_KI("percent", w->disk));
    }
}

void mu_worker_beat(struct mu_worker *w, const struct mu_report *r)
{
    int64_t now = mu_fleet_now(w->f);
    w->seen_ms = now;
    if (!r->beat || (r->sequence && r->sequence <= w->sequence)) { /* out of order */
        return;
    }
    w->sequence = r->sequence ? r->sequence : w->sequence;
    w->beat_ms = r->peer ? MU_MAX(mu_loop_now_ms(w->f->opts.core), 1) : w->beat_ms;
    w->cpu = r->cpu;
    w->memory = r->memory;
    int64_t disk = w->disk;
    w->disk = r->disk;
    tell_disk(w, disk);
    if (r->sent_ms) {
        tell_skew(w, r->sent_ms - now);
    }
    if (r->runtimes.ptr && !(w->runtimes && mu_bytes_is(r->runtimes, w->runtimes))) {
        char *copy = mu_bytes_dup(r->runtimes);
        if (copy) {
            mu_free(w->runtimes);
            w->runtimes = copy;
        }
    }
    if (!r->peer) { /* with a link, its row is written when that comes and goes */
        mu_worker_dirty(w);
    }
    mu_worker_status_look(w);
    mu_worker_update(w);
}

/* --- looking --- */

size_t mu_fleet_sessions_of(const struct mu_worker *w, struct mu_id *dst, size_t max)
{
    size_t n = 0;
    MU_LIST_EACH(it, tmp, &((struct mu_worker *)(uintptr_t)w)->tasks)
    {
        if (n < max) {
            dst[n] = MU_CONTAINER(it, struct mu_task, link)->id;
        }
        n++;
    }
    return n;
}

void mu_worker_view(const struct mu_worker *w, struct mu_worker_view *v)
{
    *v = (struct mu_worker_view){.id = mu_id_bytes(&w->uid),
                                 .name = mu_str(w->name),
                                 .host = mu_str(mu_worker_host(w)),
                                 .org_id = mu_str(w->org_id),
                                 .version = mu_str(w->version),
                                 .instance = mu_str(w->instance),
                                 .caps = mu_str(w->caps),
                                 .meta = mu_str(w->meta),
                                 .runtimes = mu_str(w->runtimes),
                                 .dialect = w->dialect,
                                 .status = mu_worker_status(w),
                                 .connected = w->attached,
                                 .draining = w->draining || w->drain_ms,
                                 .drained = w->drained_ms != 0,
                                 .saturated = w->saturated_until != 0,
                                 .since_ms = w->attached ? w->since_ms : 0,
                                 .seen_ms = w->seen_ms,
                                 .created_ms = w->created_ms,
                                 .drain_ms = w->drain_ms,
                                 .capacity = w->capacity,
                                 .in_flight = w->in_flight,
                                 .conflicts = w->conflicts,
                                 .cpu = w->cpu,
                                 .memory = w->memory,
                                 .disk = w->disk,
                                 .skew_ms = w->skew_ms,
                                 .worker = w};
    MU_LIST_EACH(it, tmp, &((struct mu_worker *)(uintptr_t)w)->tasks)
    {
        const struct mu_work_item *k = MU_CONTAINER(it, struct mu_task, link)->work;
        v->reserved += k->slot && !k->confirmed; /* one that ended may wait to be stored */
    }
}

int mu_fleet_each(struct mu_fleet *f, int (*each)(void *arg, const struct mu_worker_view *v),
                  void *arg)
{
    size_t at = 0;
    struct mu_worker *w;
    int r = 0;
    while (r == 0 && (w = mu_map_next(&f->workers, &at))) {
        struct mu_worker_view v;
        if (w->attached || !mu_list_empty(&w->known)) { /* not those that only a pin named */
            mu_worker_view(w, &v);
            r = each(arg, &v);
        }
    }
    return r;
}

bool mu_fleet_get(struct mu_fleet *f, const struct mu_id *uid, bool admin, mu_bytes org_id,
                  struct mu_worker_view *ret)
{
    const struct mu_worker *w = mu_fleet_by_uid(f, uid);
    if (!w || w->leaving || (!admin && !(org_id.len && mu_bytes_is(org_id, w->org_id)))) {
        return false;
    }
    mu_worker_view(w, ret);
    return true;
}
