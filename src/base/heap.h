/* Intrusive binary heap (smallest first): a node knows its place, so removal and change are O(log
 * n). One thread. */
#ifndef MU_BASE_HEAP_H
#define MU_BASE_HEAP_H

#include "base/base.h"

struct mu_heap_node {
    size_t place; /* 1-based; 0 = not in a heap */
};

struct mu_heap {
    struct mu_heap_node **nodes;
    size_t len, cap;
    bool (*less)(const struct mu_heap_node *a, const struct mu_heap_node *b);
};

void mu_heap_init(struct mu_heap *h,
                  bool (*less)(const struct mu_heap_node *a, const struct mu_heap_node *b));
/* Nodes that are still in it must not be touched by the functions below afterwards. */
void mu_heap_fini(struct mu_heap *h);
/* The node must not be in a heap. -ENOMEM. */
MU_MUST_USE int mu_heap_push(struct mu_heap *h, struct mu_heap_node *n);
/* The smallest, which stays, or NULL. */
struct mu_heap_node *mu_heap_top(const struct mu_heap *h);
/* Removes the smallest and returns it, or NULL. */
struct mu_heap_node *mu_heap_pop(struct mu_heap *h);
/* Harmless when it is in no heap. */
void mu_heap_remove(struct mu_heap *h, struct mu_heap_node *n);

#endif
