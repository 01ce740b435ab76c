/* The fleet API (village-control-plane.md 6, 12.1): workers as runners, below /api/v1. Its app is
 * struct mu_oz, like that of the sessions face, whose paging and words it shares. */
#ifndef MU_FACE_FLEET_FLEET_H
#define MU_FACE_FLEET_FLEET_H

#include "face/api/api.h"

extern const struct mu_route mu_fleet_routes[];        /* list, get, capacity, events */
extern const struct mu_route mu_fleet_change_routes[]; /* enrol, register, heartbeat, drain … */
extern const struct mu_route mu_fleet_enrolment_routes[];
extern const char *const mu_fleet_components[];

#endif
