/* The server's memory, and its log. */
#include "base/log.h"
#include "sim.h"

struct block {
    struct block *next, *prev;
    size_t size;
    uint64_t step; /* in which it was taken, and by which code */
    const void *by;
    bool lasting;
    _Alignas(16) char bytes[];
};

static struct block blocks = {.next = &blocks, .prev = &blocks};
static bool lasting;

bool sim_mem_lasting(bool on)
{
    bool was = lasting;
    lasting = on;
    return was;
}

static void link_block(struct block *b)
{
    b->next = &blocks;
    b->prev = blocks.prev;
    blocks.prev->next = b;
    blocks.prev = b;
}

static struct block *of(void *p)
{
    return MU_CONTAINER(p, struct block, bytes);
}

static void *take(size_t size, const void *by)
{
    struct block *b = malloc(sizeof *b + size);
    if (!b) {
        return NULL;
    }
    b->size = size;
    b->step = sim.step;
    b->by = by;
    b->lasting = lasting;
    if (lasting) {
        b->next = b->prev = b;
    } else {
        link_block(b);
    }
    return b->bytes;
}

void *mu_alloc(size_t size)
{
    return take(size, __builtin_return_address(0));
}

void *mu_calloc(size_t n, size_t size)
{
    size_t all;
    if (__builtin_mul_overflow(n, size, &all)) {
        return NULL;
    }
    void *p = take(all, __builtin_return_address(0));
    return p ? memset(p, 0, all) : NULL;
}

void mu_free(void *p)
{
    if (p) {
        struct block *b = of(p);
        b->prev->next = b->next;
        b->next->prev = b->prev;
        free(b);
    }
}

void *mu_realloc(void *p, size_t size)
{
    const void *by = __builtin_return_address(0);
    if (!p) {
        return take(size, by);
    }
    bool was = sim_mem_lasting(of(p)->lasting);
    void *to = take(size, by);
    sim_mem_lasting(was);
    if (to) {
        memcpy(to, p, MU_MIN(of(p)->size, size));
        mu_free(p);
    }
    return to;
}

long mu_alloc_fail_at(long n MU_UNUSED)
{
    return 0;
}

void sim_mem_drop(void)
{
    while (blocks.next != &blocks) {
        mu_free(blocks.next->bytes);
    }
}

size_t sim_mem_left(void)
{
    size_t n = 0;
    for (struct block *b = blocks.next; b != &blocks; b = b->next) {
        sim_note("left: %zu bytes of step %llu, taken at %p", b->size, (unsigned long long)b->step,
                 b->by);
        n++;
    }
    return n;
}

void mu_check_failed(const char *file, int line, const char *cond)
{
    sim_fail("MU_CHECK", "%s:%d: %s", file, line, cond);
}

/* --- the log: what it says of trouble is an invariant too --- */

bool mu_log_on(enum mu_log_level level MU_UNUSED)
{
    return true;
}

void mu_log_setup(const struct mu_env *env MU_UNUSED, enum mu_log_level level MU_UNUSED,
                  bool text MU_UNUSED)
{
}

void mu_log_fd(int fd MU_UNUSED)
{
}

void mu_log_write(enum mu_log_level level MU_UNUSED, const char *msg, const struct mu_kv *kv,
                  size_t n)
{
    char line[SIM_LINE];
    int len = snprintf(line, sizeof line, "log %s", msg);
    for (size_t i = 0; i < n && len < (int)sizeof line - 1; i++) {
        size_t room = sizeof line - (size_t)len;
        len += kv[i].kind == MU_KV_BYTES
                   ? snprintf(line + len, room, " %s=%.*s", kv[i].key, MU_ARGS(kv[i].b))
                   : snprintf(line + len, room, " %s=%lld", kv[i].key, (long long)kv[i].i);
    }
    sim_note("%s", line);
    if (strcmp(msg, "reconcile.orphans") == 0) {
        sim_fail("G3", "the reconciler found orphans");
    }
}
