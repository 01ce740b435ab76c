/* Recordings do not outlive their sessions by more than a day (village-control-plane.md 4.6). */
#ifndef MU_APP_LIVE_JANITOR_INT_H
#define MU_APP_LIVE_JANITOR_INT_H

#include "app/live/live.h"

struct mu_janitor;
MU_MUST_USE int mu_janitor_new(struct mu_live *l, struct mu_janitor **ret);
/* On the core loop: looks after that time (< 0: half a minute), then every ten minutes. */
void mu_janitor_start(struct mu_janitor *j, int64_t delay_ms);
/* Before the loops are freed: begins nothing any more. */
void mu_janitor_end(struct mu_janitor *j);
/* After them. */
struct mu_janitor *mu_janitor_free(struct mu_janitor *j);

#endif
