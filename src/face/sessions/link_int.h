/* Shared by the files of approval links. */
#ifndef MU_FACE_SESSIONS_LINK_INT_H
#define MU_FACE_SESSIONS_LINK_INT_H

#include "app/sessions/links.h"
#include "face/sessions/sessions_int.h"

/* What there is to say to somebody with a link. */
enum mu_visit_state {
    MU_VISIT_OPEN,
    MU_VISIT_DONE,      /* decided just now */
    MU_VISIT_VOTED,     /* counted just now; a second person is wanted */
    MU_VISIT_USED,      /* before */
    MU_VISIT_DECIDED,   /* elsewhere */
    MU_VISIT_EXPIRED,   /* the link or what it is for */
    MU_VISIT_CANCELLED, /* nobody asks any more */
    MU_VISIT_UNKNOWN,
    MU_VISIT_REFUSED, /* not for that decision */
    MU_VISIT_BAD,     /* `why` */
    MU_VISIT_BUSY,    /* too often */
    MU_VISIT_FAILED,  /* of the server's doing */
};

/* One request with a link; in the call's arena. */
struct mu_visit {
    struct mu_call *c;
    bool page, decides, again, allow, stop;
    mu_bytes reason;
    enum mu_visit_state state;
    const char *why;
    int64_t retry_ms;
    /* of the link and its gate */
    struct mu_id link, session, gate;
    mu_bytes label, made_by, description, context;
    const char *action, *risk;
    int decisions, status;
    bool by_agent;
    int64_t asked_ms, expires_ms, used_ms, resolved_ms;
    mu_bytes title, harness; /* of the session */
    struct mu_link_look look;
    struct mu_session_get get;
    struct mu_gate_resolve op;
    struct mu_fleet_cancel cancel;
};

/* --- link_page.c --- */
/* Answers with the page of its state; nothing in it is of another origin or runs. */
void mu_visit_page(struct mu_visit *v);
/* Appends text so that every byte of it can be seen: marked up, and what has no shape of its own
 * (controls, what turns or joins text, spaces that are none) by its number. */
void mu_visit_text(struct mu_buf *dst, mu_bytes text);

#endif
