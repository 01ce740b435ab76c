/* Sessions that wait for people for long hibernate: their runner takes a checkpoint, and the worker
 * is free (village-control-plane.md 13.2). All on the core loop. */
#ifndef MU_APP_LIVE_SLEEPER_INT_H
#define MU_APP_LIVE_SLEEPER_INT_H

#include "app/live/live_int.h"

struct mu_sleeper;
MU_MUST_USE int mu_sleeper_new(struct mu_live *l, struct mu_sleeper **ret);
void mu_sleeper_start(struct mu_sleeper *z);
/* Before the loops are freed: begins nothing any more. */
void mu_sleeper_end(struct mu_sleeper *z);
/* After them. */
struct mu_sleeper *mu_sleeper_free(struct mu_sleeper *z);

/* Its runner was greeted: it is asked (again), or stands still again when its session is paused. */
void mu_sleeper_talks(struct mu_live_session *s);
/* Its runner says that everything is in a checkpoint, or why not. */
void mu_sleeper_said(struct mu_live_session *s, yyjson_val *m);
/* Everything that was said is stored: the rest of it; false: nothing is to be done. */
bool mu_sleeper_store(struct mu_live_session *s);

#endif
