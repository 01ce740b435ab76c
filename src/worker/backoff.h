/* When to dial again, and when to give up (oz-worker.md 2.5, 17 row 21). Pure. */
#ifndef MU_WORKER_BACKOFF_H
#define MU_WORKER_BACKOFF_H

#include "base/env.h"

enum { MU_BACKOFF_FIRST_MS = 500, MU_BACKOFF_MAX_MS = 30000, MU_BACKOFF_ASKED_MAX_MS = 300000 };

struct mu_backoff {
    unsigned failures; /* since the last connection that held */
};
/* The delay before the next try: uniform between nothing and a limit that doubles from 0.5 s to
 * 30 s. `asked_ms`: what the server asked for (Retry-After), -1 = nothing; never less than that (at
 * most five minutes of it). */
int64_t mu_backoff_next(struct mu_backoff *b, const struct mu_env *env, int64_t asked_ms);

/* Consecutive failures to connect; max 0 = never give up, window 0 = however far apart. */
struct mu_breaker {
    int64_t max, window_ms;
    int64_t count, first_ms;
};
/* A dial failed at `now_ms`: whether to give up. */
bool mu_breaker_failed(struct mu_breaker *b, int64_t now_ms);
void mu_breaker_connected(struct mu_breaker *b);

#endif
