/* The queue: per org a heap by (queued, id), the orgs in a ring. */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"

struct fair_org {
    struct mu_list ring;
    struct mu_heap heap;
    struct mu_tenant *tenant;
    char org_id[MU_ORG_LEN + 1];
};

static bool older(const struct mu_heap_node *x, const struct mu_heap_node *y)
{
    const struct mu_task *a = MU_CONTAINER(x, struct mu_task, node);
    const struct mu_task *b = MU_CONTAINER(y, struct mu_task, node);
    return a->queued_ms != b->queued_ms ? a->queued_ms < b->queued_ms
                                        : strcmp(a->id.text, b->id.text) < 0;
}

void mu_fairq_init(struct mu_fairq *q)
{
    mu_list_init(&q->ring);
    mu_map_init(&q->orgs);
    q->n = 0;
}

static void org_free(struct mu_fairq *q, struct fair_org *o)
{
    mu_list_remove(&o->ring);
    mu_map_remove(&q->orgs, mu_str(o->org_id));
    mu_heap_fini(&o->heap);
    mu_free(o);
}

void mu_fairq_fini(struct mu_fairq *q)
{
    while (!mu_list_empty(&q->ring)) {
        org_free(q, MU_CONTAINER(q->ring.next, struct fair_org, ring));
    }
    mu_map_fini(&q->orgs);
    mu_fairq_init(q);
}

int mu_fairq_push(struct mu_fairq *q, struct mu_task *t)
{
    struct fair_org *o = mu_map_get(&q->orgs, mu_str(t->org_id));
    if (!o) {
        o = mu_calloc(1, sizeof *o);
        if (!o) {
            return -ENOMEM;
        }
        memcpy(o->org_id, t->org_id, sizeof o->org_id);
        o->tenant = t->tenant;
        mu_heap_init(&o->heap, older);
        if (mu_map_put(&q->orgs, mu_str(o->org_id), o) < 0) {
            mu_free(o);
            return -ENOMEM;
        }
        mu_list_push(&q->ring, &o->ring);
    }
    if (mu_heap_push(&o->heap, &t->node) < 0) {
        if (o->heap.len == 0) {
            org_free(q, o);
        }
        return -ENOMEM;
    }
    q->n++;
    return 0;
}

void mu_fairq_remove(struct mu_fairq *q, struct mu_task *t)
{
    struct fair_org *o = mu_map_get(&q->orgs, mu_str(t->org_id));
    mu_heap_remove(&o->heap, &t->node);
    q->n--;
    if (o->heap.len == 0) {
        org_free(q, o);
    }
}

struct mu_task *mu_fairq_peek(struct mu_fairq *q, int64_t tenant_max_running)
{
    size_t orgs = q->orgs.count;
    for (size_t i = 0; i < orgs; i++) {
        struct fair_org *o = MU_CONTAINER(q->ring.next, struct fair_org, ring);
        if (tenant_max_running <= 0 || atomic_load(&o->tenant->running) < tenant_max_running) {
            return MU_CONTAINER(mu_heap_top(&o->heap), struct mu_task, node);
        }
        mu_list_remove(&o->ring);
        mu_list_push(&q->ring, &o->ring);
    }
    return NULL;
}

void mu_fairq_turn(struct mu_fairq *q, const struct mu_task *t)
{
    struct fair_org *o = mu_map_get(&q->orgs, mu_str(t->org_id));
    if (o) {
        mu_list_remove(&o->ring);
        mu_list_push(&q->ring, &o->ring);
    }
}
