/* Links that decide one gate without an account: whoever has one may use it once, until its time is
 * over or its gate is decided. A link is "apl_<id>.<tag>"; the tag is an HMAC of everything that
 * its row says, so neither is worth anything without the other. Operations are structs that live
 * until done() ran, like those of sessions.h. */
#ifndef MU_APP_SESSIONS_LINKS_H
#define MU_APP_SESSIONS_LINKS_H

#include "app/sessions/live.h"
#include "base/crypt.h"

#define MU_LINK_PREFIX "apl_"
enum {
    MU_LINK_ALLOW = 1, /* decisions: what it may be used for */
    MU_LINK_DENY = 2,
    MU_LINK_LABEL_MAX = MU_ACTOR_LEN - 5, /* bytes; "link:<label>" is who decided */
    MU_LINKS_EACH = 20,                   /* of one gate */
    MU_LINK_LIFE_MS = 86400000,           /* at most */
    MU_LINK_TOKEN_LEN = 4 + MU_ID_LEN + 1 + 2 * MU_SHA256_LEN,
};

struct mu_link_row {
    mu_bytes id, session_id, gate_id, org_id, label, made_by;
    int decisions;
    int64_t created_ms, expires_ms, used_ms;
};

/* Makes one for a gate that is pending. It ends with the gate's time if that is sooner.
 * MU_E_NOT_FOUND: session (no_session) or gate; MU_E_EXISTS: it is decided; MU_E_CONFLICT: it is a
 * question, which wants more than yes or no; MU_E_LIMIT: MU_LINKS_EACH were made; MU_E_INVALID. */
struct mu_link_make {
    struct mu_unit unit;
    struct mu_sessions *sessions;
    const struct mu_vault *vault;
    bool admin;
    mu_bytes org_id;
    struct mu_id session, gate;
    int decisions;
    mu_bytes label, by; /* label: whom it is for; by: an actor, whose vote a use of it is */
    int64_t life_ms;    /* 1..MU_LINK_LIFE_MS */
    /* out */
    bool no_session;
    struct mu_id id;
    int64_t expires_ms;
    char token[MU_LINK_TOKEN_LEN + 1]; /* the only time that it is seen */
    int64_t now_ms;
    void (*done)(struct mu_link_make *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_link_make(struct mu_sessions *s, struct mu_link_make *op);

/* Whether a text is formed like a link. */
MU_MUST_USE int mu_link_parse(mu_bytes token, struct mu_id *ret_id, mu_bytes *ret_tag);

/* Reads what a link is for, and changes nothing. MU_E_NOT_FOUND: not one of ours (unknown, forged,
 * or its session is deleted). The rows are valid inside the callback, on a reader thread. */
struct mu_link_look {
    struct mu_read read;
    struct mu_sessions *sessions;
    const struct mu_vault *vault;
    mu_bytes token;
    int (*each)(void *arg, const struct mu_link_row *link, const struct mu_gate_row *gate);
    void *arg;
    void (*done)(struct mu_link_look *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_link_look(struct mu_sessions *s, struct mu_link_look *op);

#endif
