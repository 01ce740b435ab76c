/* Items of many owners, served by turns: per owner a heap, the owners in a ring. One thread. */
#ifndef MU_BASE_FAIR_H
#define MU_BASE_FAIR_H

#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"

struct mu_fair {
    struct mu_list ring; /* owners that have items; the next turn is the first one's */
    struct mu_map owners;
    size_t n; /* items */
    bool (*less)(const struct mu_heap_node *a, const struct mu_heap_node *b);
};

/* `less` orders the items of one owner. */
void mu_fair_init(struct mu_fair *q,
                  bool (*less)(const struct mu_heap_node *a, const struct mu_heap_node *b));
/* Items that are still in it must not be touched by the functions below afterwards. */
void mu_fair_fini(struct mu_fair *q);
/* The bytes of `key`, which is the owner's alone, live as long as it has items here. The item must
 * not be in a queue. -ENOMEM. */
MU_MUST_USE int mu_fair_push(struct mu_fair *q, mu_bytes key, void *owner, struct mu_heap_node *n);
/* The item must be in this queue. */
void mu_fair_remove(struct mu_fair *q, mu_bytes key, struct mu_heap_node *n);
/* The first item, which stays, of the next owner that is not busy; NULL when there is none. */
struct mu_heap_node *mu_fair_peek(struct mu_fair *q, bool (*busy)(const void *arg, void *owner),
                                  const void *arg);
/* The next turn is another owner's. Harmless when this one has no items. */
void mu_fair_turn(struct mu_fair *q, mu_bytes key);

#endif
