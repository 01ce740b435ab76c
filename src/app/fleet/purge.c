/* Records that nobody needs any more: workers that were not seen for a month, and what is left of
 * those that were deregistered a day ago. */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"

enum { EVERY_MS = 3600000, AT_ONCE = 16 };
#define UNSEEN_MS (INT64_C(30) * 86400000)

#define GONE "(SELECT id FROM workers WHERE removed_ms < $1)"
static const struct mu_stmt q_events = {
    "workers_purge_events", "i",
    "DELETE FROM events WHERE stream_id IN (SELECT 'worker:' || id FROM workers WHERE removed_ms < "
    "$1)",
    NULL};
static const struct mu_stmt q_streams = {
    "workers_purge_streams", "i",
    "DELETE FROM streams WHERE id IN (SELECT 'worker:' || id FROM workers WHERE removed_ms < $1)",
    NULL};
static const struct mu_stmt q_credentials = {
    "workers_purge_credentials", "i",
    "DELETE FROM credentials WHERE kind = 4 AND subject_id IN " GONE, NULL};
static const struct mu_stmt q_enrolments = {
    "enrolments_purge", "i",
    "DELETE FROM credentials WHERE kind = 3 AND (expires_ms < $1 OR (uses_left <= 0 AND "
    "last_used_ms < $1))",
    NULL};
static const struct mu_stmt q_workers = {"workers_purge", "i",
                                         "DELETE FROM workers WHERE removed_ms < $1", NULL};

struct purge {
    struct mu_unit unit;
    int64_t before_ms;
};

static int run_purge(struct mu_unit *u, struct mu_tx *tx)
{
    static const struct mu_stmt *const all[] = {&q_events, &q_streams, &q_credentials,
                                                &q_enrolments, &q_workers};
    const struct purge *p = MU_CONTAINER(u, struct purge, unit);
    int r = 0;
    for (size_t i = 0; r >= 0 && i < MU_ARRAY_LEN(all); i++) {
        r = MU_TX_SEND(tx, all[i], -1, MU_VI(p->before_ms));
    }
    return MU_MIN(r, 0);
}

static void purged(struct mu_unit *u, int result)
{
    if (result < 0 && result != MU_E_SHUTDOWN) {
        mu_log(MU_LOG_WARN, "workers.not_purged", MU_KC("err_message", mu_err_text(result)));
    }
    mu_free(MU_CONTAINER(u, struct purge, unit));
}

static void forgotten(struct mu_fleet_change *op, int result)
{
    (void)result; /* the next look tries again */
    mu_free(op);
}

static void forget(struct mu_worker *w)
{
    struct mu_fleet_change *op = mu_calloc(1, sizeof *op);
    if (!op) {
        return;
    }
    op->loop = w->f->opts.core;
    op->act = MU_ACT_REMOVE;
    op->uid = w->uid;
    op->admin = true;
    op->reason = MU_B("It was not seen for 30 days");
    op->done = forgotten;
    mu_fleet_change(w->f, op);
}

void mu_fleet_purge_tick(struct mu_fleet *f, int64_t now)
{
    if (now < f->purge_ms || !f->opts.writer) {
        return;
    }
    int64_t wall = mu_fleet_now(f);
    unsigned n = 0;
    f->purge_ms = now + EVERY_MS;
    MU_LIST_EACH(it, tmp, &f->known)
    {
        struct mu_worker *w = MU_CONTAINER(it, struct mu_worker, known);
        bool stale = w->stored && !w->peer && !w->leaving && mu_list_empty(&w->tasks) &&
                     wall - w->seen_ms > UNSEEN_MS;
        if (stale && ++n <= AT_ONCE) {
            forget(w);
        }
    }
    struct purge *p = mu_calloc(1, sizeof *p);
    if (p) {
        p->before_ms = wall - MU_PASS_TOMBSTONE_MS;
        p->unit = (struct mu_unit){.run = run_purge, .done = purged, .loop = f->opts.core};
        if (mu_writer_submit(f->opts.writer, &p->unit) < 0) {
            mu_free(p);
        }
    }
}
