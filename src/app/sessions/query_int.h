/* Shared by query.c and list.c. */
#ifndef MU_APP_SESSIONS_QUERY_INT_H
#define MU_APP_SESSIONS_QUERY_INT_H

#include "app/sessions/sessions_int.h"

enum { MU_VIEW_COLUMN_COUNT = 53 };

/* Fills a view from a row of the view statements; pointers live as long as the row. */
void mu_session_view_read(struct mu_row *r, struct mu_session_view *v);
/* One row by id, and the newest `limit` rows of an org (or of all) before a cursor, heads included.
 */
MU_MUST_USE int mu_session_view_by_id(struct mu_db *db, mu_bytes id, mu_row_fn fn, void *arg);
MU_MUST_USE int mu_session_view_page(struct mu_db *db, bool admin, mu_bytes org_id, int view,
                                     mu_bytes before, unsigned limit, mu_row_fn fn, void *arg);

#endif
