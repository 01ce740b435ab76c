/* Control groups of sandboxes (sandbox.md 7): which rung this process has, and one group per
 * sandbox. Blocking, but only on cgroupfs. Part of the static program. */
#ifndef MU_EXEC_SANDBOX_CGROUP_INT_H
#define MU_EXEC_SANDBOX_CGROUP_INT_H

#include <sys/types.h>

#include "base/err.h"

enum mu_cgroup_rung {
    MU_CGROUP_NONE = 4,
    MU_CGROUP_DELEGATED = 1, /* v2 subtree that was given to us */
    MU_CGROUP_ROOT = 2,      /* root, v2 */
    MU_CGROUP_V1 = 3,        /* root, v1 or hybrid */
};
enum { MU_CGROUP_PATH = 512 };

/* Where groups of sandboxes are made: a folder for each part, "" = there is none. */
struct mu_cgroup_place {
    int64_t rung;
    char unified[MU_CGROUP_PATH];              /* v2; in a hybrid tree only freeze and kill */
    char memory[MU_CGROUP_PATH];               /* v1 */
    char pids[MU_CGROUP_PATH];                 /* v1 */
    char cpu[MU_CGROUP_PATH];                  /* v1 */
    char cpuacct[MU_CGROUP_PATH];              /* v1 */
    char freezer[MU_CGROUP_PATH];              /* v1, only without `unified` */
    int64_t v2_memory, v2_cpu, v2_pids, v2_io; /* controllers that v2 gives to our groups */
    char cause[96], cure[128];                 /* what is missing and why; "" = nothing */
};

/* Finds the place by trying: makes a group and removes it again. In v2 the calling process (all of
 * it) is moved into the leaf `worker` first, since a group with processes cannot give controllers
 * on. `name` is the folder for this worker's groups. */
void mu_cgroup_probe(const char *name, struct mu_cgroup_place *ret);
/* Reads where we are mounted; for tests: another root for the tree and another /proc/self/cgroup.
 */
void mu_cgroup_probe_at(const char *mountinfo, const char *self, const char *name, bool root,
                        struct mu_cgroup_place *ret);

/* Removes the folder for this worker's groups when nothing is in it any more (v1). */
void mu_cgroup_leave(const struct mu_cgroup_place *place);

struct mu_cgroup_limits {
    int64_t memory_bytes, pids, cpu_milli; /* 0 = none */
};
/* One sandbox's group. */
struct mu_cgroup {
    struct mu_cgroup_place place; /* only the parts that are used */
    char name[80];                /* "s-<id>" */
    int unified_fd;               /* of its v2 folder, for CLONE_INTO_CGROUP; -1 */
};
/* Makes the folders and sets the limits. Negated errno with words; nothing is left then. */
MU_MUST_USE int mu_cgroup_make(const struct mu_cgroup_place *place, const char *id,
                               const struct mu_cgroup_limits *limits, struct mu_cgroup *ret,
                               struct mu_err *err);
/* Puts the process into the v1 parts (the v2 part is done by clone3), before it is let go. */
MU_MUST_USE int mu_cgroup_add_v1(const struct mu_cgroup *g, pid_t pid);
/* -ENOSYS: there is no freezer. Returns when all stand still, after 2 s at the latest (-ETIMEDOUT).
 */
MU_MUST_USE int mu_cgroup_freeze(const struct mu_cgroup *g, bool on);
void mu_cgroup_kill(const struct mu_cgroup *g); /* without a way to do it: nothing */
struct mu_cgroup_usage {
    int64_t oom_kills, cpu_ms, peak_bytes; /* -1 = not known */
};
void mu_cgroup_usage(const struct mu_cgroup *g, struct mu_cgroup_usage *ret);
/* Removes the folders; waits up to 1 s for processes that are dying. */
void mu_cgroup_remove(struct mu_cgroup *g);
/* The same by id, after a keeper that did not come to it: kills what is in it. */
void mu_cgroup_clean(const struct mu_cgroup_place *place, const char *id);

#endif
