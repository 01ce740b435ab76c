/* Compiler attributes and clean-up helpers that every file uses. */
#ifndef MU_BASE_BASE_H
#define MU_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define MU_MUST_USE        __attribute__((warn_unused_result))
#define MU_PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))
#define MU_NORETURN        __attribute__((noreturn))
#define MU_UNUSED          __attribute__((unused))
#define MU_CLEANUP(fn)     __attribute__((cleanup(fn)))

#define MU_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MU_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define MU_MAX(a, b)    ((a) > (b) ? (a) : (b))
/* The struct of type `type` whose member `member` is at `ptr`. */
#define MU_CONTAINER(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Logs file:line and aborts when a programmer's assumption does not hold; stays on in release
 * builds. */
#define MU_CHECK(cond)                                                                             \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0)) {                                                        \
            mu_check_failed(__FILE__, __LINE__, #cond);                                            \
        }                                                                                          \
    } while (0)
MU_NORETURN void mu_check_failed(const char *file, int line, const char *cond);

static inline void mu_auto_free_(void *p)
{
    free(*(void **)p);
}
static inline void mu_auto_close_(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}
#define MU_AUTO_FREE  MU_CLEANUP(mu_auto_free_)
#define MU_AUTO_CLOSE MU_CLEANUP(mu_auto_close_)

/* Hands ownership out of a scope-bound variable: return mu_steal(&p). */
static inline void *mu_steal_(void *pp)
{
    void *p = *(void **)pp;
    *(void **)pp = NULL;
    return p;
}
#define mu_steal(pp) ((__typeof__(*(pp)))mu_steal_(pp))
static inline int mu_steal_fd(int *fd)
{
    int r = *fd;
    *fd = -1;
    return r;
}

/* The allocators of request-time memory: they return NULL on exhaustion, and tests make the n-th
 * call fail. */
void *mu_alloc(size_t size);
void *mu_calloc(size_t n, size_t size);
void *mu_realloc(void *p, size_t size);
void mu_free(void *p);
/* Tests only: the n-th allocation from now on fails (1 = the next; 0 = none). Returns how many
 * allocations were made since the last call. Not thread safe. */
long mu_alloc_fail_at(long n);

#endif
