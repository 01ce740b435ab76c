/* Intrusive doubly linked list: the head is a node too. An object is in at most one list per node.
 */
#ifndef MU_BASE_LIST_H
#define MU_BASE_LIST_H

#include "base/base.h"

struct mu_list {
    struct mu_list *next, *prev;
};

static inline void mu_list_init(struct mu_list *l)
{
    l->next = l->prev = l;
}
static inline bool mu_list_empty(const struct mu_list *l)
{
    return l->next == l;
}
static inline void mu_list_insert_(struct mu_list *node, struct mu_list *prev, struct mu_list *next)
{
    node->prev = prev;
    node->next = next;
    prev->next = node;
    next->prev = node;
}
static inline void mu_list_push(struct mu_list *l, struct mu_list *node) /* at the end */
{
    mu_list_insert_(node, l->prev, l);
}
/* At the front; with a node in place of the head: right behind that node. */
static inline void mu_list_push_front(struct mu_list *l, struct mu_list *node)
{
    mu_list_insert_(node, l, l->next);
}
/* The node then is an empty list of its own, so removing it again is harmless. */
static inline void mu_list_remove(struct mu_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    mu_list_init(node);
}
static inline struct mu_list *mu_list_pop(struct mu_list *l) /* the first, or NULL */
{
    struct mu_list *n = l->next;
    if (n == l) {
        return NULL;
    }
    mu_list_remove(n);
    return n;
}
/* `tmp` lets the body remove `it`. */
#define MU_LIST_EACH(it, tmp, head)                                                                \
    for (struct mu_list *it = (head)->next, *tmp = it->next; it != (head); it = tmp, tmp = it->next)

#endif
