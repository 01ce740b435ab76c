#include "worker/backoff.h"

int64_t mu_backoff_next(struct mu_backoff *b, const struct mu_env *env, int64_t asked_ms)
{
    int64_t limit = MU_BACKOFF_FIRST_MS;
    for (unsigned i = 0; i < b->failures && limit < MU_BACKOFF_MAX_MS; i++) {
        limit *= 2;
    }
    limit = MU_MIN(limit, (int64_t)MU_BACKOFF_MAX_MS);
    b->failures += b->failures < 64;
    uint64_t dice;
    env->random(env, &dice, sizeof dice);
    int64_t delay = (int64_t)(dice % (uint64_t)(limit + 1));
    if (asked_ms < 0) {
        return delay;
    }
    /* Spread what many workers were told at once. */
    return MU_MIN(asked_ms, (int64_t)MU_BACKOFF_ASKED_MAX_MS) + delay;
}

bool mu_breaker_failed(struct mu_breaker *b, int64_t now_ms)
{
    bool late = b->window_ms > 0 && now_ms - b->first_ms > b->window_ms;
    if (b->count == 0 || late) {
        b->count = 0;
        b->first_ms = now_ms;
    }
    b->count++;
    return b->max > 0 && b->count >= b->max;
}

void mu_breaker_connected(struct mu_breaker *b)
{
    b->count = 0;
}
