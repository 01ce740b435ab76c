/* What people did may have woken a session that slept: then it waits for a worker, and the fleet
 * must know of it. The row says so; a start of the server finds it too. */
#include "app/live/live_int.h"
#include "app/sessions/hibernate.h"

enum { RETRY_MS = 500 };

struct waking {
    struct mu_list link;
    struct mu_live *l;
    struct mu_timer timer;
    struct mu_session_queued op;
};

static void forget(struct waking *k)
{
    mu_timer_clear(&k->timer);
    mu_list_remove(&k->link);
    mu_free(k->op.pin);
    mu_free(k);
}

static void again(struct waking *k)
{
    if (k->l->stopping || mu_timer_set(&k->timer, RETRY_MS) < 0) {
        forget(k);
    }
}

static void looked(struct mu_session_queued *op, int result)
{
    struct waking *k = op->ctx;
    if (result >= 0) {
        result = k->l->stopping ? 0 : mu_fleet_woken(k->l->opts.fleet, &op->row);
    }
    if (result < 0 && result != MU_E_NOT_FOUND) {
        again(k);
    } else {
        forget(k);
    }
}

static void look(struct waking *k)
{
    mu_free(k->op.pin);
    k->op.pin = NULL;
    k->op.read = (struct mu_read){.loop = k->l->opts.core};
    if (mu_fleet_knows(k->l->opts.fleet, &k->op.id)) {
        forget(k);
    } else if (mu_session_queued_read(k->l->opts.sessions, &k->op) < 0) {
        again(k);
    }
}

static void on_timer(struct mu_timer *t)
{
    look(MU_CONTAINER(t, struct waking, timer));
}

void mu_live_woken(struct mu_live *l, const struct mu_id *session)
{
    if (l->stopping || mu_fleet_knows(l->opts.fleet, session)) {
        return;
    }
    struct waking *k = mu_calloc(1, sizeof *k);
    if (!k) {
        mu_log(MU_LOG_ERROR, "session.not_woken", MU_KS("session_id", mu_id_bytes(session)));
        return;
    }
    k->l = l;
    k->op = (struct mu_session_queued){.id = *session, .done = looked, .ctx = k};
    mu_timer_init(&k->timer, l->opts.core, on_timer);
    mu_list_push(&l->waking, &k->link);
    look(k);
}

void mu_live_woken_end(struct mu_live *l)
{
    MU_LIST_EACH(it, tmp, &l->waking)
    {
        forget(MU_CONTAINER(it, struct waking, link));
    }
}
