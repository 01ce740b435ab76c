/* Leases of what connected workers hold, renewed in the database every third of the grace: there
 * they end so long after the worker was last connected (data-model.md 3.6). */
#include <errno.h>

#include "app/fleet/fleet_int.h"

enum { LEASES = 256 /* a unit */ };

static const struct mu_stmt q_renew = {
    "renew", "tii",
    "UPDATE attempts SET lease_ms = $3 WHERE session_id = $1 AND epoch = $2 AND ended_ms IS NULL",
    NULL};

struct mu_leases {
    struct mu_unit unit;
    struct lease {
        struct mu_id session;
        int64_t epoch;
    } rows[LEASES];
    size_t n, at; /* at: where the round stands in f->tasks; one that is missed has two more */
    bool busy;
    int64_t next_ms, until_ms;
};

int mu_fleet_leases_new(struct mu_fleet *f)
{
    f->leases = mu_calloc(1, sizeof *f->leases);
    return f->leases ? 0 : -ENOMEM;
}

void mu_fleet_leases_free(struct mu_fleet *f)
{
    mu_free(f->leases);
    f->leases = NULL;
}

static int run_renew(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_leases *l = MU_CONTAINER(u, struct mu_leases, unit);
    int r = 0;
    for (size_t i = 0; r >= 0 && i < l->n; i++) {
        r = MU_TX_SEND(tx, &q_renew, -1, MU_VT(mu_id_bytes(&l->rows[i].session)),
                       MU_VI(l->rows[i].epoch), MU_VI(l->until_ms));
    }
    return r < 0 ? r : 0;
}

/* What could not be written is written with the next round. */
static void renewed(struct mu_unit *u, int result MU_UNUSED)
{
    MU_CONTAINER(u, struct mu_leases, unit)->busy = false;
}

void mu_leases_tick(struct mu_fleet *f)
{
    struct mu_leases *l = f->leases;
    int64_t now = mu_loop_now_ms(f->opts.core);
    struct mu_task *t = NULL;
    if (l->busy || now < l->next_ms || !f->opts.writer) {
        return;
    }
    for (l->n = 0; l->n < LEASES && (t = mu_map_next(&f->tasks, &l->at));) {
        const struct mu_work_item *k = t->work;
        if (k && k->offered && k->sent && k->conn) {
            l->rows[l->n++] = (struct lease){t->id, t->epoch};
        }
    }
    if (!t) { /* the round is over */
        l->at = 0;
        l->next_ms = now + f->opts.grace_ms / 3;
    }
    l->until_ms = mu_fleet_now(f) + f->opts.grace_ms;
    l->unit = (struct mu_unit){.run = run_renew, .done = renewed, .loop = f->opts.core};
    l->busy = l->n > 0 && mu_writer_submit(f->opts.writer, &l->unit) == 0;
}
