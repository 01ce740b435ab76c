/* The statements that must be answered from an index, each with the index's name, for the test that
 * asks both engines for their plans. The arrays end with a NULL statement. */
#ifndef MU_APP_SESSIONS_STATEMENTS_INT_H
#define MU_APP_SESSIONS_STATEMENTS_INT_H

#include "db/driver.h"

struct mu_planned {
    const struct mu_stmt *stmt;
    const char *index; /* "" = a primary key, whose name is the engine's */
};

extern const struct mu_planned mu_list_planned[], mu_query_planned[], mu_sweep_planned[],
    mu_moves_planned[], mu_quota_planned[], mu_attempts_planned[], mu_skills_planned[],
    mu_open_planned[], mu_live_planned[], mu_turns_planned[], mu_gates_planned[],
    mu_gates_resolve_planned[], mu_gates_read_planned[], mu_report_planned[], mu_create_planned[],
    mu_links_planned[], mu_checkpoints_planned[], mu_checkpoints_read_planned[],
    mu_keeper_planned[], mu_restore_planned[], mu_hibernate_planned[];

#endif
