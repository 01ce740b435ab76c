/* Sessions, their events and approvals as the sessions API shows them, for other ways to show them
 * (face/live). Nothing here needs a request; any thread unless said otherwise. */
#ifndef MU_FACE_SESSIONS_SHOW_H
#define MU_FACE_SESSIONS_SHOW_H

#include "app/fleet/fleet.h"
#include "app/identity/identity.h"
#include "app/sessions/live.h"
#include "proto/json.h"

/* The API's words for a stored state, and for a role. */
const char *mu_sess_state(int state);
const char *mu_sess_role(enum mu_role role);
/* A member `key`: the id with what it begins with ("ses_"). */
void mu_sess_prefixed(struct mu_json_w *w, const char *key, const char *prefix, mu_bytes id);
/* The members of SessionSummary; the object is open before and after. `state`: shown instead of the
 * stored one; NULL = that one. */
void mu_sess_summary(struct mu_json_w *w, const struct mu_session_view *v, int64_t now_ms,
                     const char *state);
/* How it ended: finalState, endReason, exitCode, errorMessage, usage, diff. */
void mu_sess_completed(struct mu_json_w *w, const struct mu_session_view *v);
/* An approval or a question. */
void mu_sess_gate(struct mu_json_w *w, const struct mu_gate_row *row);
/* Whether its policy ends a session when an approval is denied. -ENOMEM */
MU_MUST_USE int mu_sess_deny_stops(const struct mu_session_view *v, bool *ret);
/* The data of an event of the log (village-control-plane.md 11.2), and, of an event of the server's
 * own, the members of that. */
void mu_sess_event_data(struct mu_json_w *w, mu_bytes session_id, const struct mu_session_event *e);
void mu_sess_event_members(struct mu_json_w *w, mu_bytes session_id,
                           const struct mu_session_event *e);

/* SessionDetail: the row, its newest events and what it waits for, one after the other. The
 * caller fills the first part; it lives until done(). */
struct mu_sess_reading {
    const struct mu_env *env;
    struct mu_sessions *sessions;
    struct mu_fleet *fleet;
    struct mu_loop *loop;
    bool admin;
    mu_bytes org_id;
    struct mu_id id;
    unsigned max_recent;
    const char *state_word; /* shown instead of the stored state; NULL */
    struct mu_json_w w;     /* gets the object */
    /* What else is wanted of it, or NULL; reader threads. */
    void (*row)(struct mu_sess_reading *rd, const struct mu_session_view *v);
    void (*gate)(struct mu_sess_reading *rd, const struct mu_gate_row *row);
    void (*done)(struct mu_sess_reading *rd, int result); /* on the loop */
    void *ctx;
    /* own */
    struct mu_session_get get;
    struct mu_session_events events;
    struct mu_gate_list gates;
    struct mu_fleet_look look;
    char *worker;
    struct mu_buf *recent; /* one text an event, oldest first */
    size_t n_recent;
    struct mu_json_w pending;
    struct mu_buf pending_text;
    int state, route;
    int64_t last_seq;
};
/* A code with which done() is not called, or 0. */
MU_MUST_USE int mu_sess_detail_read(struct mu_sess_reading *rd);

#endif
