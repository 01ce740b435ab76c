/* The seams (architecture.md 6): whatever is not a function of its inputs is reached through this
 * table, so that a simulator can put a driven clock and a seeded random source in its place. The
 * database driver, outbound HTTP and process start are tables of the floors that own them
 * (db/driver.h, net/fetch.h, exec/process.h) and are handed down beside this one. */
#ifndef MU_BASE_ENV_H
#define MU_BASE_ENV_H

#include "base/base.h"

struct mu_env {
    /* Milliseconds since 1970 UTC. Any thread. */
    int64_t (*wall_ms)(const struct mu_env *env);
    /* Nanoseconds of a clock that never goes back. Any thread. */
    int64_t (*mono_ns)(const struct mu_env *env);
    /* Unpredictable bytes. Any thread; never fails (it waits, or aborts). */
    void (*random)(const struct mu_env *env, void *dst, size_t len);
    void *arg;
};

/* The real clock (CLOCK_REALTIME, CLOCK_MONOTONIC) and the kernel's random source. */
extern const struct mu_env mu_env_real;

static inline int64_t mu_env_wall_ms(const struct mu_env *env)
{
    return env->wall_ms(env);
}
static inline int64_t mu_env_mono_ms(const struct mu_env *env)
{
    return env->mono_ns(env) / 1000000;
}

#endif
