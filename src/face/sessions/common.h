/* What the faces in this envelope have in common: sessions, runners. On the request's loop. */
#ifndef MU_FACE_SESSIONS_COMMON_H
#define MU_FACE_SESSIONS_COMMON_H

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
enum { MU_SESS_PAGE_MAX = 100, MU_SESS_PAGE = 20 };
/* The members of its query. */
#define MU_SESS_PAGING                                                                             \
    {.name = "page", .type = MU_S_INT, .min = 1, .max = 1000000, .doc = "Page, 1 is the first."},  \
        {.name = "pageSize",                                                                       \
         .type = MU_S_INT,                                                                         \
         .min = 1,                                                                                 \
         .max = MU_SESS_PAGE_MAX,                                                                  \
         .doc = "Entries of a page, 20."},                                                         \
    {                                                                                              \
        .name = "cursor", .type = MU_S_STRING, .min = 1, .max = 512,                               \
        .doc = "nextCursor of the page before; page is ignored then."                              \
    }

/* providerId and harness; NULL when there is none. */
const char *mu_sess_harness(mu_bytes provider);
mu_bytes mu_sess_provider(mu_bytes harness);
/* An object: who did it. */
void mu_sess_actor(struct mu_json_w *w, const char *key, mu_bytes actor);

#endif
