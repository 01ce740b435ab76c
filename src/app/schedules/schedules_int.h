#ifndef MU_APP_SCHEDULES_SCHEDULES_INT_H
#define MU_APP_SCHEDULES_SCHEDULES_INT_H

#include "app/schedules/schedules.h"

enum { MU_SCHED_BATCH = 64 };

struct mu_firing;

extern const struct mu_stmt mu_q_sched_due;

struct mu_schedules {
    struct mu_schedules_opts opts;
    struct mu_timer timer;
    struct mu_read read;
    struct mu_firing *firing; /* the page of due schedules under way */
    bool reading, stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

#endif
