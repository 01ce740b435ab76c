/* What several worlds of tests do alike. */
#ifndef TEST_WORLDS_H
#define TEST_WORLDS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "io/loop.h"

/* The value that is shown of a metric without labels, or -1. */
static inline int64_t metric_of(struct mu_metrics *metrics, const char *name)
{
    struct mu_buf b;
    char key[80];
    mu_buf_init(&b, 1 << 20);
    mu_metrics_write(metrics, &b);
    mu_buf_add_char(&b, '\0');
    snprintf(key, sizeof key, "\n%s ", name);
    const char *at = strstr(b.ptr, key);
    int64_t v = at ? strtoll(at + strlen(key), NULL, 10) : -1;
    mu_buf_fini(&b);
    return v;
}

static inline void stop_turn(struct mu_timer *t)
{
    mu_loop_stop(t->loop);
}

/* Whatever the loop has to do in that time. */
static inline void turn_for(struct mu_loop *loop, int64_t ms)
{
    struct mu_timer t;
    mu_timer_init(&t, loop, stop_turn);
    assert_int_equal(mu_timer_set(&t, ms), 0);
    mu_loop_run(loop);
    mu_timer_clear(&t);
}

#endif
