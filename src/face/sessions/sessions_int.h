/* Shared by the files of the sessions face. */
#ifndef MU_FACE_SESSIONS_SESSIONS_INT_H
#define MU_FACE_SESSIONS_SESSIONS_INT_H

#include "app/live/live.h"
#include "face/oz/oz.h"
#include "face/sessions/common.h"
#include "face/sessions/show.h"

enum {
    MU_SESS_BODY = 1 << 20, /* of a request */
    MU_SESS_TASK_CHARS = 100000,
    MU_SESS_SUMMARY_CHARS = 100,
};

/* --- common.c --- */
/* The parameter {sessionId}; answers SESSION_NOT_FOUND and returns false when it is no id of one.
 */
bool mu_sess_id(struct mu_call *c, struct mu_id *ret);
/* The answer for one of our codes in an operation on one session: NOT_FOUND SESSION_NOT_FOUND,
 * CONFLICT INVALID_STATE, EXISTS …; the others as mu_call_fail(). */
void mu_sess_fail(struct mu_call *c, int code);
/* --- json.c: words and objects --- */
/* The stored states and outcomes that a word of the API stands for; false: none. */
bool mu_sess_add_state(struct mu_session_list *op, mu_bytes word);
/* What SessionDetail has besides the members of SessionSummary that comes from the row; the object
 * is open before and after. */
void mu_sess_detail(struct mu_json_w *w, const struct mu_session_view *v);

/* --- event_json.c --- */
/* {seq, type, timestamp, actor?, data} */
void mu_sess_event(struct mu_json_w *w, mu_bytes session_id, const struct mu_session_event *e);
/* {type, timestamp, summary} of recentEvents. */
void mu_sess_event_summary(struct mu_json_w *w, const struct mu_session_event *e);

/* --- detail.c: SessionDetail --- */
/* Answers with the SessionDetail of one session. `state` as in mu_sess_summary(). */
void mu_sess_answer_detail(struct mu_call *c, const struct mu_id *id, int status, const char *state,
                           const struct mu_http_pair *headers, size_t n_headers);

/* --- create.c --- */
extern const struct mu_schema mu_sess_create_body[];
void mu_sess_check_create(struct mu_call *c);
void mu_sess_create(struct mu_call *c);
/* Answers a create that was done, or refused. */
void mu_sess_created(struct mu_call *c, struct mu_session_create *op, int result);
/* The header Idempotency-Key, ptr NULL = none; false: answered. */
bool mu_sess_take_key(struct mu_call *c, mu_bytes *ret);
/* The caller, as one who acts for that org: his own, or of the administrator any; false: answered.
 */
bool mu_sess_act_for(struct mu_call *c, mu_bytes org, struct mu_principal *ret);
/* --- snapshot.c --- */
struct mu_sess_workspace {
    yyjson_val *repo, *policy; /* of the request; policy may be NULL */
    mu_bytes environment;      /* mu_environment_snapshot(), or empty */
};
/* What the session keeps of it (its env_snapshot), in the arena. -ENOMEM, MU_E_CORRUPT. */
MU_MUST_USE int mu_sess_snapshot(struct mu_arena *a, const struct mu_sess_workspace *x,
                                 mu_bytes *ret);
/* Notes features that nothing is placed by, and hosts that are none. */
void mu_sess_check_workspace(struct mu_call *c, yyjson_val *options);
int64_t mu_sess_feature_needs(yyjson_val *features);
/* --- list.c --- */
extern const struct mu_schema mu_sess_list_query[];
void mu_sess_check_list(struct mu_call *c);
void mu_sess_list(struct mu_call *c);

#endif
