/* Shared by the files of the sessions face. */
#ifndef MU_FACE_SESSIONS_SESSIONS_INT_H
#define MU_FACE_SESSIONS_SESSIONS_INT_H

#include "app/live/live.h"
#include "face/oz/oz.h"
#include "face/sessions/sessions.h"

static inline struct mu_oz *mu_sess_oz(struct mu_call *c)
{
    return mu_call_app(c);
}
static inline struct mu_sess_face *mu_sess_face(struct mu_call *c)
{
    return mu_sess_oz(c)->sess;
}

enum {
    MU_SESS_BODY = 1 << 20, /* of a request */
    MU_SESS_PAGE_MAX = 100,
    MU_SESS_PAGE = 20,
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
/* The org that `given` names: "me" is the caller's own. Answers FORBIDDEN and returns false for
 * another one's, unless the caller is the administrator. */
bool mu_sess_org(struct mu_call *c, mu_bytes given, mu_bytes *ret);
/* "1".."100" and the like: the caller's schema has checked it. */
int64_t mu_sess_query_i64(struct mu_call *c, const char *key, int64_t fallback);
/* Opaque positions in lists: base64url of an id and a tag that binds it to the list and the org.
 * MU_E_INVALID: it is not one of ours. */
void mu_sess_cursor_add(struct mu_json_w *w, const char *key, struct mu_call *c, const char *list,
                        mu_bytes org, const char *id);
MU_MUST_USE int mu_sess_cursor_read(struct mu_call *c, const char *list, mu_bytes org,
                                    mu_bytes text, struct mu_id *ret);
/* The call's paging: page, pageSize, cursor; ends the answer of a list. */
struct mu_sess_paging {
    int64_t page, size; /* page 0: by cursor */
    mu_bytes cursor;
};
struct mu_sess_paging mu_sess_paging_of(struct mu_call *c);
/* The check of every list: what the schema does not say of paging. */
void mu_sess_check_paging(struct mu_call *c);
extern const struct mu_schema mu_sess_page_schema[3]; /* page, pageSize, cursor */

/* --- json.c: words and objects --- */
const char *mu_sess_state(int state);
/* The stored states and outcomes that a word of the API stands for; false: none. */
bool mu_sess_add_state(struct mu_session_list *op, mu_bytes word);
/* providerId and harness; NULL when there is none. */
const char *mu_sess_harness(mu_bytes provider);
mu_bytes mu_sess_provider(mu_bytes harness);
void mu_sess_prefixed(struct mu_json_w *w, const char *key, const char *prefix, mu_bytes id);
/* The members of SessionSummary, and what SessionDetail has besides that comes from the row; the
 * object is open before and after. `state`: shown instead of the stored one; NULL = that one. */
void mu_sess_summary(struct mu_json_w *w, const struct mu_session_view *v, int64_t now_ms,
                     const char *state);
void mu_sess_detail(struct mu_json_w *w, const struct mu_session_view *v, int64_t now_ms);
void mu_sess_gate(struct mu_json_w *w, const struct mu_gate_row *row);
void mu_sess_actor(struct mu_json_w *w, const char *key, mu_bytes actor);

/* --- event_json.c --- */
/* {seq, type, timestamp, actor?, data} */
void mu_sess_event(struct mu_json_w *w, mu_bytes session_id, const struct mu_session_event *e);
/* {type, timestamp, summary} of recentEvents. */
void mu_sess_event_summary(struct mu_json_w *w, const struct mu_session_event *e);

/* --- detail.c: SessionDetail --- */
struct mu_sess_reading;
/* Answers with the SessionDetail of one session. `state` as in mu_sess_summary(). */
void mu_sess_answer_detail(struct mu_call *c, const struct mu_id *id, int status, const char *state,
                           const struct mu_http_pair *headers, size_t n_headers);

/* --- create.c --- */
extern const struct mu_schema mu_sess_create_body[];
void mu_sess_check_create(struct mu_call *c);
void mu_sess_create(struct mu_call *c);
/* Answers a create that was done, or refused. */
void mu_sess_created(struct mu_call *c, struct mu_session_create *op, int result);
void mu_sess_create_refused(struct mu_call *c, int result);
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
