/* The execution of one run (internal to app/dispatch). */
#ifndef MU_APP_DISPATCH_EXEC_H
#define MU_APP_DISPATCH_EXEC_H

#include "app/dispatch/dispatch_int.h"
#include "base/clock.h"
#include "io/work.h"

/* Everything one active run needs; owned by run->x. */
struct mu_exec {
    struct mu_run *run;
    /* operations: one of the first four is under way at a time; a chunk may be besides */
    struct mu_session_claim claim;
    struct mu_session_switch change;
    struct mu_session_put_back put_back;
    struct mu_session_saturate saturate;
    struct mu_session_end end;
    struct mu_session_chunk chunk;
    bool chunk_busy, over; /* over: free when the chunk is back */
    /* candidates */
    struct mu_provider *candidates[MU_CANDIDATES_MAX];
    unsigned n_candidates, at;
    bool saturated;          /* a candidate was full or answered 429 */
    int64_t saturated_until; /* the earliest time that one may be free again */
    struct mu_quota_settle quota;
    /* the call */
    struct mu_provider_call *call;
    unsigned retries;
    struct mu_timer retry_timer, chunk_timer, end_timer;
    struct mu_output out;
    int64_t persisted;
    struct mu_arena chunk_arena;
    bool discard;
    /* context, in claim.arena */
    mu_bytes system;
    struct mu_model_turn *turns;
    size_t n_turns;
    struct mu_model_image *images;
    size_t n_images;
    struct mu_read context_read;
    void *context; /* context.c */
    int context_result;
    /* record */
    struct mu_buf attempts; /* JSON objects, separated by commas */
    unsigned n_attempts;
    enum mu_call_class cls;
    char text[600];
    int status;
    bool is_exit_code, truncated;
    int64_t tokens_in, tokens_out;
    struct mu_buf final, provider_json;
};

/* context.c: earlier turns of the conversation, images, the system text; then `then` on the core
 * loop (x->context_result). */
void mu_exec_context(struct mu_exec *x, void (*then)(struct mu_exec *x));
/* finish.c */
void mu_exec_record(struct mu_exec *x, const struct mu_call_result *result);
void mu_exec_finish(struct mu_exec *x, int state, enum mu_outcome outcome,
                    enum mu_end_reason reason, const char *code, const char *text);
void mu_exec_put_back(struct mu_exec *x, bool saturated);
/* exec.c */
void mu_exec_over(struct mu_exec *x);
/* chunks.c */
void mu_exec_delta(struct mu_exec *x, mu_bytes text);
void mu_exec_discard(struct mu_exec *x);

#endif
