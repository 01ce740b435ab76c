/* What a session is restored from: the checkpoints of a chain, oldest first, as the server tells
 * them (docs/runner-protocol.md). Pure. */
#ifndef MU_RUNNER_MANIFEST_H
#define MU_RUNNER_MANIFEST_H

#include "base/bytes.h"
#include "base/err.h"

enum {
    MU_MANIFEST_CHAIN = 64,
    MU_MANIFEST_ROOTS = 40,
    MU_MANIFEST_FILES = 4096,
    MU_MANIFEST_SHALLOW = 64,
    MU_MANIFEST_BYTES = 4 << 20,
};

/* A part; `first` begins a pack, which goes on with those behind it. */
struct mu_manifest_file {
    char name[64];
    bool first;
};
struct mu_manifest_root {
    char kind[16]; /* "checkout", "workspace", "home" */
    char *dir;     /* below the workspace; "" = itself */
    char branch[256], head[65], base[65], commit[65];
    char shallow[MU_MANIFEST_SHALLOW][65];
    size_t n_shallow;
    struct mu_manifest_file *files;
    size_t n_files;
};
struct mu_manifest {
    struct mu_manifest_root roots[MU_MANIFEST_ROOTS]; /* of the newest */
    size_t n_roots;
    char conversation[513]; /* "" = not known */
};
/* MU_E_INVALID, worded; -ENOMEM. Nothing is kept then. */
MU_MUST_USE int mu_manifest_read(mu_bytes json, struct mu_manifest *ret, struct mu_err *err);
void mu_manifest_fini(struct mu_manifest *m);

#endif
