/* What one sandbox of kind namespace is: the driver writes it to the session's file `spec`, the
 * keeper reads it (and unlinks it: it holds the task's secrets). Records "name=value" that end with
 * NUL. Part of the static program: no libuv. */
#ifndef MU_EXEC_SANDBOX_BOX_INT_H
#define MU_EXEC_SANDBOX_BOX_INT_H

#include "base/arena.h"
#include "base/buf.h"
#include "exec/sandbox/cgroup_int.h"

enum {
    MU_BOX_SPEC_MAX = 8 << 20,
    MU_BOX_LIST_MAX = 4096, /* entries of one list */
    MU_BOX_ID_MAX = 64,
    MU_BOX_RANGE = 65536, /* host ids of a range */
    MU_BOX_UID = 1000,    /* `agent` inside */
};
enum mu_box_rung {
    MU_RUNG_NONE = 0,
    MU_RUNG_OWN = 'A',      /* own user namespace, one id */
    MU_RUNG_BWRAP = 'B',    /* namespaces and binds by /usr/bin/bwrap */
    MU_RUNG_ROOT = 'C',     /* own user namespace, a range of ids */
    MU_RUNG_LANDLOCK = 'D', /* no namespaces: Landlock and the filter alone */
};
/* Layers that the test build can leave out, to show which lock stops a probe. */
enum mu_box_layer {
    MU_WITHOUT_SECCOMP = 1 << 0,
    MU_WITHOUT_LANDLOCK = 1 << 1,
    MU_WITHOUT_NETNS = 1 << 2,
    MU_WITHOUT_MASKS = 1 << 3,
    MU_WITHOUT_NNP = 1 << 4,
    MU_WITHOUT_CAPS = 1 << 5,
    MU_WITHOUT_LIMITS = 1 << 6,
    MU_WITHOUT_USERNS_LIMIT = 1 << 7,
    MU_WITHOUT_IPCNS = 1 << 8,
    MU_WITHOUT_READONLY = 1 << 9,
    MU_WITHOUT_CGROUP = 1 << 10,
    MU_WITHOUT_CEILING = 1 << 11, /* lowered below the newest call of this kernel, not removed */
};

struct mu_box_mount {
    const char *source, *target;
    int64_t writable;
};
struct mu_box_checkout {
    const char *tree, *subdir, *objects; /* tree, objects: "" = none */
};
struct mu_box_harness {
    const char *name, *path;
};

struct mu_box {
    const char *id, *worker_id, *base, *bundle; /* base "" = the host's /usr */
    int64_t epoch, rung, range /* first host id, 0 = one id */, network, nested, fake_root;
    int64_t memory_bytes, pids, cpu_milli, disk_bytes, shm_bytes, log_bytes;
    int64_t timeout_ms, grace_ms, without;
    struct mu_cgroup_place cgroup;
    const char **argv, **env, **etc; /* NULL-terminated */
    size_t n_argv, n_env, n_etc;
    struct mu_box_mount *mounts;
    size_t n_mounts;
    struct mu_box_checkout *checkouts;
    size_t n_checkouts;
    struct mu_box_harness *harnesses;
    size_t n_harnesses;
    int64_t *ports;
    size_t n_ports;
};

/* buf->failed tells whether it worked. */
void mu_box_write(const struct mu_box *box, struct mu_buf *buf);
/* Only range and control groups, which are known last; what comes later in the text wins. */
void mu_box_write_place(const struct mu_box *box, struct mu_buf *buf);
/* Everything in *ret is in the arena. -ENOMEM; MU_E_INVALID with the bad record in `err`. */
MU_MUST_USE int mu_box_read(mu_bytes text, struct mu_arena *arena, struct mu_box *ret,
                            struct mu_err *err);
/* The id of the agent inside. */
static inline unsigned mu_box_uid(const struct mu_box *box)
{
    return box->fake_root ? 0 : MU_BOX_UID;
}
bool mu_box_id_valid(const char *id);
/* Whether a test left this layer out; in a program that is shipped nothing can be left out. */
static inline bool mu_box_without(const struct mu_box *box MU_UNUSED, int64_t layer MU_UNUSED)
{
#ifdef MU_SANDBOX_HOLES
    return (box->without & layer) != 0;
#else
    return false;
#endif
}

#endif
