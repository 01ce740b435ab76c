/* Memory of one request, message or job: allocate freely, release all at once. One thread at a
 * time. */
#ifndef MU_BASE_ARENA_H
#define MU_BASE_ARENA_H

#include "base/bytes.h"

struct mu_arena {
    struct mu_arena_block *blocks; /* newest first */
    size_t used;                   /* bytes handed out, for the limit */
    size_t max;                    /* most bytes in all */
};

/* Takes no memory yet. `max_bytes` bounds everything that will come from it. */
void mu_arena_init(struct mu_arena *a, size_t max_bytes);
/* Frees everything; the arena may be used again. Accepts a zeroed one. */
void mu_arena_fini(struct mu_arena *a);
/* 16-byte aligned and not zeroed; NULL when the limit or the memory is exhausted. */
void *mu_arena_alloc(struct mu_arena *a, size_t size);
void *mu_arena_calloc(struct mu_arena *a, size_t size);
/* A NUL-terminated copy; ptr is NULL when there was no memory (also for empty input ptr is not NULL
 * on success). */
mu_bytes mu_arena_dup(struct mu_arena *a, mu_bytes b);
/* Formatted text, NUL-terminated; ptr NULL when there was no memory. */
mu_bytes mu_arena_printf(struct mu_arena *a, const char *fmt, ...) MU_PRINTF(2, 3);

#endif
