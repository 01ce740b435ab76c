#include "base/heap.h"

#include <errno.h>

void mu_heap_init(struct mu_heap *h,
                  bool (*less)(const struct mu_heap_node *a, const struct mu_heap_node *b))
{
    *h = (struct mu_heap){.less = less};
}

void mu_heap_fini(struct mu_heap *h)
{
    mu_free(h->nodes);
    h->nodes = NULL;
    h->len = h->cap = 0;
}

static void put(struct mu_heap *h, size_t i, struct mu_heap_node *n)
{
    h->nodes[i] = n;
    n->place = i + 1;
}

static void up(struct mu_heap *h, size_t i)
{
    struct mu_heap_node *n = h->nodes[i];
    while (i > 0 && h->less(n, h->nodes[(i - 1) / 2])) {
        put(h, i, h->nodes[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(h, i, n);
}

static void down(struct mu_heap *h, size_t i)
{
    struct mu_heap_node *n = h->nodes[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->len) {
            break;
        }
        if (child + 1 < h->len && h->less(h->nodes[child + 1], h->nodes[child])) {
            child++;
        }
        if (!h->less(h->nodes[child], n)) {
            break;
        }
        put(h, i, h->nodes[child]);
        i = child;
    }
    put(h, i, n);
}

int mu_heap_push(struct mu_heap *h, struct mu_heap_node *n)
{
    MU_CHECK(n->place == 0);
    if (h->len == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 32;
        struct mu_heap_node **p = mu_realloc(h->nodes, cap * sizeof *p);
        if (!p) {
            return -ENOMEM;
        }
        h->nodes = p;
        h->cap = cap;
    }
    put(h, h->len++, n);
    up(h, h->len - 1);
    return 0;
}

struct mu_heap_node *mu_heap_top(const struct mu_heap *h)
{
    return h->len ? h->nodes[0] : NULL;
}

void mu_heap_remove(struct mu_heap *h, struct mu_heap_node *n)
{
    if (n->place == 0) {
        return;
    }
    size_t i = n->place - 1;
    struct mu_heap_node *last = h->nodes[--h->len];
    n->place = 0;
    if (last != n) {
        put(h, i, last);
        up(h, i);
        down(h, last->place - 1);
    }
}

struct mu_heap_node *mu_heap_pop(struct mu_heap *h)
{
    struct mu_heap_node *n = mu_heap_top(h);
    if (n) {
        mu_heap_remove(h, n);
    }
    return n;
}
