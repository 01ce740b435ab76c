/* The time of gates: those that wait are in a heap; when one's time is over it is denied. */
#include <errno.h>

#include "app/live/live_int.h"

enum { RETRY_MS = MU_LIVE_GATE_RETRY_MS, LATE_MS = 60000 };

static bool sooner(const struct mu_heap_node *a, const struct mu_heap_node *b)
{
    return MU_CONTAINER(a, struct mu_live_gate, node)->expires_ms <
           MU_CONTAINER(b, struct mu_live_gate, node)->expires_ms;
}

static void watch(struct mu_live *l)
{
    struct mu_heap_node *top = mu_heap_top(&l->due);
    if (!top || l->stopping) {
        mu_timer_clear(&l->timer);
        return;
    }
    int64_t wait = MU_CONTAINER(top, struct mu_live_gate, node)->expires_ms - mu_live_now(l);
    /* the wall clock may be set: it is looked at again before long */
    (void)!mu_timer_set(&l->timer, MU_MIN(MU_MAX(wait, 0), (int64_t)LATE_MS));
}

static void forget(struct mu_live_gate *g)
{
    struct mu_live *l = g->l;
    mu_heap_remove(&l->due, &g->node);
    (void)mu_map_remove(&l->gates, mu_id_bytes(&g->id));
    mu_metric_add(l->pending, -1);
    mu_free(g);
}

static void expired(struct mu_gate_expire *op, int result)
{
    struct mu_live_gate *g = op->ctx;
    struct mu_live *l = g->l;
    struct mu_id session = g->session;
    bool stopped = result >= 0 && op->state == MU_ST_STOPPING;
    bool again = result < 0 && result != MU_E_STALE && result != MU_E_NOT_FOUND;
    g->busy = false;
    g->expires_ms = mu_live_now(l) + RETRY_MS;
    if (again && !l->stopping && mu_heap_push(&l->due, &g->node) == 0) {
        watch(l);
        return;
    }
    forget(g);
    if (result == MU_E_STALE) {
        mu_live_gates_of(l, &session, LATE_MS); /* it is paused, or was and its time has moved */
    } else if (result >= 0) {
        if (stopped) {
            mu_fleet_cancelled(l->opts.fleet, mu_id_bytes(&session));
        }
        mu_live_poke(l, &session);
    }
}

static void expire(struct mu_live_gate *g)
{
    struct mu_live *l = g->l;
    g->busy = true;
    g->op = (struct mu_gate_expire){.unit = {.loop = l->opts.core},
                                    .session = g->session,
                                    .gate = g->id,
                                    .stop = g->stops,
                                    .done = expired,
                                    .ctx = g};
    if (mu_gate_expire(l->opts.sessions, &g->op) < 0) {
        g->busy = false;
        g->expires_ms = mu_live_now(l) + RETRY_MS;
        if (mu_heap_push(&l->due, &g->node) < 0) {
            forget(g); /* a start of the server finds it again */
        }
    }
}

static void on_timer(struct mu_timer *t)
{
    struct mu_live *l = MU_CONTAINER(t, struct mu_live, timer);
    int64_t now = mu_live_now(l);
    struct mu_heap_node *top;
    while ((top = mu_heap_top(&l->due)) &&
           MU_CONTAINER(top, struct mu_live_gate, node)->expires_ms <= now) {
        expire(MU_CONTAINER(mu_heap_pop(&l->due), struct mu_live_gate, node));
    }
    watch(l);
}

void mu_live_gate_opened(struct mu_live *l, const struct mu_id *id, const struct mu_id *session,
                         int64_t expires_ms, bool stops)
{
    struct mu_live_gate *g = mu_map_get(&l->gates, mu_id_bytes(id));
    if (g && g->busy) {
        return;
    }
    if (g) { /* its time was moved */
        mu_heap_remove(&l->due, &g->node);
    } else {
        g = mu_calloc(1, sizeof *g);
        if (!g) {
            return;
        }
        g->l = l;
        g->id = *id;
        g->session = *session;
        if (mu_map_put(&l->gates, mu_id_bytes(&g->id), g) < 0) {
            mu_free(g);
            return;
        }
        mu_metric_add(l->pending, 1);
    }
    g->expires_ms = expires_ms;
    g->stops = stops;
    if (mu_heap_push(&l->due, &g->node) < 0) {
        forget(g);
        return;
    }
    watch(l);
}

void mu_live_gate_closed(struct mu_live *l, const struct mu_id *id)
{
    struct mu_live_gate *g = mu_map_get(&l->gates, mu_id_bytes(id));
    if (g && !g->busy) {
        forget(g);
        watch(l);
    }
}

/* --- read again --- */

struct look {
    struct mu_gate_list op;
    struct mu_live *l;
    struct mu_id session;
    int64_t retry_ms;
    struct {
        struct mu_id id;
        int64_t expires_ms;
    } found[MU_GATES_PENDING_MAX];
    size_t n;
};

static int take(void *arg, const struct mu_gate_row *row)
{
    struct look *k = arg;
    if (k->n < MU_ARRAY_LEN(k->found) && row->expires_ms &&
        mu_id_parse(row->id, NULL, &k->found[k->n].id) == 0) {
        k->found[k->n++].expires_ms = row->expires_ms;
    }
    return 0;
}

static void looked(struct mu_gate_list *op, int result)
{
    struct look *k = op->ctx;
    int64_t now = mu_live_now(k->l);
    for (size_t i = 0; result >= 0 && !k->l->stopping && i < k->n; i++) {
        const struct mu_live_session *s = mu_live_find(k->l, &k->session);
        int64_t at = k->found[i].expires_ms;
        mu_live_gate_opened(k->l, &k->found[i].id, &k->session, at <= now ? now + k->retry_ms : at,
                            s && s->expiry_stops);
    }
    mu_free(k);
}

void mu_live_gates_of(struct mu_live *l, const struct mu_id *session, int64_t retry_ms)
{
    struct look *k = l->stopping ? NULL : mu_calloc(1, sizeof *k);
    if (!k) {
        return;
    }
    k->l = l;
    k->session = *session;
    k->retry_ms = retry_ms;
    k->op = (struct mu_gate_list){.read = {.loop = l->opts.core},
                                  .admin = true,
                                  .session = k->session,
                                  .status = MU_GATE_PENDING,
                                  .limit = MU_GATES_PENDING_MAX,
                                  .each = take,
                                  .arg = k,
                                  .done = looked,
                                  .ctx = k};
    if (mu_gate_list(l->opts.sessions, &k->op) < 0) {
        mu_free(k);
    }
}

/* --- life --- */

static int load(void *arg, const struct mu_gate_row *row)
{
    struct mu_live *l = arg;
    struct mu_id id, session;
    if (row->status == MU_GATE_PENDING && row->expires_ms && mu_id_parse(row->id, NULL, &id) == 0 &&
        mu_id_parse(row->session_id, NULL, &session) == 0) {
        mu_live_gate_opened(l, &id, &session, row->expires_ms, false);
    }
    return 0;
}

int mu_live_load(struct mu_live *l, struct mu_db *db)
{
    return mu_gates_each_open(db, load, l);
}

void mu_live_gates_init(struct mu_live *l)
{
    mu_map_init(&l->gates);
    mu_heap_init(&l->due, sooner);
    mu_timer_init(&l->timer, l->opts.core, on_timer);
}

void mu_live_gates_fini(struct mu_live *l)
{
    size_t at = 0;
    struct mu_live_gate *g;
    mu_timer_clear(&l->timer);
    mu_heap_fini(&l->due);
    while ((g = mu_map_next(&l->gates, &at))) {
        mu_free(g);
    }
    mu_map_fini(&l->gates);
}
