/* Shared by the files of this folder. */
#ifndef MU_FACE_FLEET_FLEET_INT_H
#define MU_FACE_FLEET_FLEET_INT_H

#include "face/fleet/fleet.h"
#include "face/sessions/common.h"
#include "face/sessions/show.h"
#include "face/worker/worker.h"

/* A question to the core loop, answered where the request is. */
struct mu_fleet_ask {
    struct mu_post post;
    struct mu_call *c;
    struct mu_oz *oz;
    struct mu_loop *loop;
    void (*look)(struct mu_fleet_ask *x); /* core loop */
    void (*then)(struct mu_fleet_ask *x); /* the request's */
    struct mu_buf json;                   /* what look() wrote; freed after then() */
    struct mu_id id;
    bool admin, found;
    mu_bytes org_id;
    void *ctx;
};
/* NULL: answered. */
struct mu_fleet_ask *mu_fleet_ask_new(struct mu_call *c);
void mu_fleet_ask(struct mu_fleet_ask *x);
/* The parameter {runnerId}; false: answered. */
bool mu_fleet_id(struct mu_call *c, struct mu_id *ret);
void mu_fleet_fail(struct mu_call *c, int code);
/* RunnerInfo; core loop. `members` are open before and after. */
void mu_fleet_info(struct mu_json_w *w, const struct mu_worker_view *v);
/* Whether it names that word among its features or labels, or offers that provider. */
bool mu_fleet_offers(const struct mu_worker_view *v, const char *list, mu_bytes word);
/* Answers with the RunnerInfo of a record; `registered`: by this call, so whatever org it is of.
 * `add` (may be NULL) goes before its end. */
void mu_fleet_answer_info(struct mu_call *c, const struct mu_id *id, int status, bool registered,
                          void (*add)(struct mu_json_w *w, void *ctx), void *ctx);

#endif
