#include "base/env.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int64_t real_wall_ms(const struct mu_env *env MU_UNUSED)
{
    return read_clock(CLOCK_REALTIME) / 1000000;
}

static int64_t real_mono_ns(const struct mu_env *env MU_UNUSED)
{
    return read_clock(CLOCK_MONOTONIC);
}

static void real_random(const struct mu_env *env MU_UNUSED, void *dst, size_t len)
{
    char *p = dst;
    while (len) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0) {
            MU_CHECK(errno == EINTR);
            continue;
        }
        p += n;
        len -= (size_t)n;
    }
}

const struct mu_env mu_env_real = {real_wall_ms, real_mono_ns, real_random, NULL};
