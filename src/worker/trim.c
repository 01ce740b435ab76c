/* An idle worker is small: what only the start or the last task needed goes back. Heap by the
 * allocator's own means; of the program and its libraries the pages that were never written are
 * dropped and come back from the page cache when they are wanted. */
#include <malloc.h>
#include <stdio.h>
#include <sys/mman.h>

#include "worker/worker_int.h"

enum { TRIM_MS = 2000, LINE = 512 };

struct mapping {
    unsigned long from, to;
    bool droppable; /* of a file, and not writable */
};

static bool read_header(const char *line, struct mapping *m)
{
    char perms[8], path[2] = "";
    if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %1s", &m->from, &m->to, perms, path) < 3 ||
        !strchr(perms, 'p')) {
        return false;
    }
    m->droppable = path[0] == '/' && perms[0] == 'r' && perms[1] == '-';
    return true;
}

/* Of a mapping with private copies (relocated data) nothing is dropped: they are nowhere else. */
static void drop_pages(void)
{
    char line[LINE];
    struct mapping m = {0};
    unsigned long kb;
    FILE *f = fopen("/proc/self/smaps", "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strstr(line, " kB") == NULL) {
            m.droppable = read_header(line, &m) && m.droppable;
        } else if (sscanf(line, "Anonymous: %lu kB", &kb) == 1 && kb == 0 && m.droppable) {
            int r MU_UNUSED = madvise((void *)m.from, m.to - m.from, MADV_DONTNEED);
            m.droppable = false;
        }
    }
    if (f) {
        fclose(f);
    }
}

static void on_trim(struct mu_timer *t)
{
    struct mu_worker *w = MU_CONTAINER(t, struct mu_worker, trim_timer);
    if (w->n_tasks == 0) {
        malloc_trim(0);
        drop_pages();
    }
}

void mu_worker_trim_soon(struct mu_worker *w)
{
    if (w->phase == MU_PHASE_SERVING && !mu_timer_is_set(&w->trim_timer)) {
        (void)!mu_timer_set(&w->trim_timer, TRIM_MS);
    }
}

void mu_worker_trim_init(struct mu_worker *w)
{
    mu_timer_init(&w->trim_timer, w->loop, on_trim);
}
