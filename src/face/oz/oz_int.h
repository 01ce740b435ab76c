/* Shared by the files of the Oz face. */
#ifndef MU_FACE_OZ_OZ_INT_H
#define MU_FACE_OZ_OZ_INT_H

#include "face/oz/oz.h"

static inline struct mu_oz *mu_oz(struct mu_call *c)
{
    return mu_call_app(c);
}

/* States and sources as the SDKs name them. */
const char *mu_oz_state(int state, int outcome);
const char *mu_oz_source(int source);

/* The run object (oz-api.md 5). `full`: the single get. */
void mu_oz_run(struct mu_json_w *w, const struct mu_oz *oz, const struct mu_session_view *v,
               bool full);
/* The path parameter {runID}; answers 404 and returns false when it is no run id. */
bool mu_oz_run_id(struct mu_call *c, struct mu_id *ret);
/* A `cursor` or `limit` query; answers 400 and returns false when malformed. */
bool mu_oz_limit(struct mu_call *c, unsigned *ret);
bool mu_oz_cursor(struct mu_call *c, const char *prefix, struct mu_id *ret); /* text[0] = 0: none */

/* What was written from byte `from` on (a whole value), once more under a second key. */
void mu_oz_repeat(struct mu_json_w *w, size_t from, const char *key);

/* The image allow-list. */
static inline bool mu_oz_image_allowed(const struct mu_oz *oz, mu_bytes image)
{
    return mu_image_allowed(oz->image_allowlist, image);
}

/* A list's page ends with the row that passes this: what a row holds is the callers' choice. */
enum { MU_OZ_PAGE_BYTES = 8 << 20 };

/* Schemas used in two places. */
extern const struct mu_schema mu_oz_config_members[];

/* create.c */
void mu_oz_create_run(struct mu_call *c);
void mu_oz_rerun(struct mu_call *c);
/* attempt.c: the session of the path, if the token is of it; else 404 is answered. */
bool mu_oz_own_run(struct mu_call *c, struct mu_id *ret);
/* checkpoint.c: takes the body as a part of a checkpoint, if that is what the name says; false: it
 * does not. */
bool mu_oz_put_part(struct mu_call *c, const struct mu_id *run, mu_bytes name);
/* wait.c: GET one run, with ?wait= */
void mu_oz_get_run(struct mu_call *c);

#endif
