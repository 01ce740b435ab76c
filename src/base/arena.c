#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>

struct mu_arena_block {
    struct mu_arena_block *next;
    size_t len, cap;
    _Alignas(16) char data[];
};

enum { FIRST_BLOCK = 1024, LARGEST_BLOCK = 64 * 1024 };

void mu_arena_init(struct mu_arena *a, size_t max_bytes)
{
    *a = (struct mu_arena){.max = max_bytes};
}

void mu_arena_fini(struct mu_arena *a)
{
    struct mu_arena_block *b = a->blocks;
    while (b) {
        struct mu_arena_block *next = b->next;
        mu_free(b);
        b = next;
    }
    a->blocks = NULL;
    a->used = 0;
}

static struct mu_arena_block *grow(struct mu_arena *a, size_t size)
{
    size_t cap = a->blocks ? MU_MIN(a->blocks->cap * 2, (size_t)LARGEST_BLOCK) : FIRST_BLOCK;
    cap = MU_MAX(cap, size);
    struct mu_arena_block *b = mu_alloc(sizeof *b + cap);
    if (!b) {
        return NULL;
    }
    b->len = 0;
    b->cap = cap;
    b->next = a->blocks;
    a->blocks = b;
    return b;
}

void *mu_arena_alloc(struct mu_arena *a, size_t size)
{
    if (size > a->max || a->used > a->max - size || size > SIZE_MAX / 2) {
        return NULL;
    }
    size_t rounded = (size + 15) & ~(size_t)15;
    struct mu_arena_block *b = a->blocks;
    if (!b || b->cap - b->len < rounded) {
        b = grow(a, rounded);
        if (!b) {
            return NULL;
        }
    }
    void *p = b->data + b->len;
    b->len += rounded;
    a->used += rounded; /* else many small pieces would take a multiple of the limit */
    return p;
}

void *mu_arena_calloc(struct mu_arena *a, size_t size)
{
    void *p = mu_arena_alloc(a, size);
    return p ? memset(p, 0, size) : NULL;
}

mu_bytes mu_arena_dup(struct mu_arena *a, mu_bytes b)
{
    char *p = mu_arena_alloc(a, b.len + 1);
    if (!p) {
        return MU_B_NONE;
    }
    if (b.len) {
        memcpy(p, b.ptr, b.len);
    }
    p[b.len] = 0;
    return mu_bytes_of(p, b.len);
}

mu_bytes mu_arena_printf(struct mu_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : mu_arena_alloc(a, (size_t)n + 1);
    if (p) {
        vsnprintf(p, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    return p ? mu_bytes_of(p, (size_t)n) : MU_B_NONE;
}
