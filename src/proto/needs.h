/* What a task may need of the worker that takes it: sets of bits, and the words of hello.features
 * for them (oz-worker.md 16, docs/workers.md). Pure. */
#ifndef MU_PROTO_NEEDS_H
#define MU_PROTO_NEEDS_H

#include "base/bytes.h"

/* Stored with the session (sessions.needs): numbers are never given to something else. */
enum {
    MU_NEED_NET_NONE = 1 << 0,
    MU_NEED_NET_PROXY = 1 << 1,
    MU_NEED_NET_HOST = 1 << 2,
    MU_NEED_NESTED = 1 << 3,
    MU_NEED_FAKE_ROOT = 1 << 4,
    MU_NEED_LIMITS = 1 << 5, /* memory, processors, processes */
    MU_NEED_DISK = 1 << 6,
    MU_NEED_TIME = 1 << 7,
    MU_NEED_LIVE = 1 << 8, /* its runner is spoken with while it runs */
    MU_NEED_CLAUDE = 1 << 16,
    MU_NEED_CODEX = 1 << 17,
    MU_NEED_GEMINI = 1 << 18,
    MU_NEED_OPENCODE = 1 << 19,
    MU_NEED_HARNESSES = 0xf << 16,
};

enum { MU_FEATURES = 10 };
extern const struct mu_feature {
    const char *word;
    int64_t bits;
} mu_features[MU_FEATURES];

#endif
