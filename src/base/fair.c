#include "base/fair.h"

#include <errno.h>

struct owner {
    struct mu_list ring;
    struct mu_heap heap;
    mu_bytes key;
    void *owner;
};

void mu_fair_init(struct mu_fair *q,
                  bool (*less)(const struct mu_heap_node *a, const struct mu_heap_node *b))
{
    *q = (struct mu_fair){.less = less};
    mu_list_init(&q->ring);
    mu_map_init(&q->owners);
}

static void owner_free(struct mu_fair *q, struct owner *o)
{
    mu_list_remove(&o->ring);
    mu_map_remove(&q->owners, o->key);
    mu_heap_fini(&o->heap);
    mu_free(o);
}

void mu_fair_fini(struct mu_fair *q)
{
    while (!mu_list_empty(&q->ring)) {
        owner_free(q, MU_CONTAINER(q->ring.next, struct owner, ring));
    }
    mu_map_fini(&q->owners);
    mu_fair_init(q, q->less);
}

static struct owner *owner_of(struct mu_fair *q, mu_bytes key, void *owner)
{
    struct owner *o = mu_map_get(&q->owners, key);
    if (o) {
        return o;
    }
    o = mu_calloc(1, sizeof *o);
    if (!o) {
        return NULL;
    }
    o->key = key;
    o->owner = owner;
    mu_heap_init(&o->heap, q->less);
    if (mu_map_put(&q->owners, key, o) < 0) {
        mu_free(o);
        return NULL;
    }
    mu_list_push(&q->ring, &o->ring);
    return o;
}

int mu_fair_push(struct mu_fair *q, mu_bytes key, void *owner, struct mu_heap_node *n)
{
    struct owner *o = owner_of(q, key, owner);
    if (!o) {
        return -ENOMEM;
    }
    int r = mu_heap_push(&o->heap, n);
    if (o->heap.len == 0) {
        owner_free(q, o);
    }
    q->n += r == 0;
    return r;
}

void mu_fair_remove(struct mu_fair *q, mu_bytes key, struct mu_heap_node *n)
{
    struct owner *o = mu_map_get(&q->owners, key);
    mu_heap_remove(&o->heap, n);
    q->n--;
    if (o->heap.len == 0) {
        owner_free(q, o);
    }
}

static void to_the_back(struct mu_fair *q, struct owner *o)
{
    mu_list_remove(&o->ring);
    mu_list_push(&q->ring, &o->ring);
}

struct mu_heap_node *mu_fair_peek(struct mu_fair *q, bool (*busy)(const void *arg, void *owner),
                                  const void *arg)
{
    for (size_t left = q->owners.count; left > 0; left--) {
        struct owner *o = MU_CONTAINER(q->ring.next, struct owner, ring);
        if (!busy(arg, o->owner)) {
            return mu_heap_top(&o->heap);
        }
        to_the_back(q, o);
    }
    return NULL;
}

void mu_fair_turn(struct mu_fair *q, mu_bytes key)
{
    struct owner *o = mu_map_get(&q->owners, key);
    if (o) {
        to_the_back(q, o);
    }
}
