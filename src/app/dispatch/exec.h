/* The execution of one run (internal to app/dispatch). */
#ifndef MU_APP_DISPATCH_EXEC_H
#define MU_APP_DISPATCH_EXEC_H

#include "app/dispatch/dispatch_int.h"
#include "base/clip.h"
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
    struct mu_provider *held; /* its slot is ours until the call begins */
    bool saturated;           /* a candidate was full or answered 429 */
    int64_t saturated_until;  /* the earliest time that one may be free again */
    struct mu_quota_settle quota;
    struct mu_provider *quota_of; /* whose it is; NULL = nothing is reserved */
    /* the call */
    struct mu_provider_call *call;
    unsigned retries;
    struct mu_timer retry_timer, chunk_timer, end_timer;
    struct mu_clip out;
    int64_t persisted;
    struct mu_arena chunk_arena;
    bool unwanted;    /* chunks: the attempt no longer holds the lease */
    bool discard;     /* what is stored belongs to a text that was thrown away */
    unsigned text_no; /* counts the texts thrown away; chunk_text: the one that the chunk is of */
    unsigned chunk_text;
    bool put_back_saturated;
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
    enum mu_call_class cls;
    char text[600];
    int status;
    bool is_exit_code, has_status, truncated, no_memory;
    int64_t tokens_in, tokens_out;
    struct mu_buf final, provider_json;
    int64_t final_bytes; /* what `final` was cut from */
};

/* context.c: earlier turns of the conversation, images, the system text; then `then` on the core
 * loop (x->context_result). */
void mu_exec_context(struct mu_exec *x, void (*then)(struct mu_exec *x));
/* finish.c */
void mu_exec_record(struct mu_exec *x, const struct mu_call_result *result);
/* x->quota was settled by a unit that is committed. */
void mu_exec_settled(struct mu_exec *x);
/* The answer of a call that worked, cut to what is stored: `text`, or (ptr NULL) the deltas. */
void mu_exec_keep(struct mu_exec *x, mu_bytes text);
/* When the run has waited as long as it may; INT64_MAX = never. */
int64_t mu_exec_give_up_ms(const struct mu_exec *x, int64_t now_ms);
/* What "waiting until …" says, and when the wait ends: not before now, at most the total wait. */
int64_t mu_exec_wait_until(struct mu_exec *x, int64_t now_ms);
int64_t mu_exec_wait_deadline(const struct mu_exec *x, int64_t now_ms);
/* Whether the run has waited as long as it may; x->text says so then. */
bool mu_exec_waited_out(struct mu_exec *x, int64_t now_ms);
void mu_exec_finish(struct mu_exec *x, int state, enum mu_outcome outcome,
                    enum mu_end_reason reason, const char *code, const char *text);
void mu_exec_put_back(struct mu_exec *x, bool saturated);
/* exec.c */
void mu_exec_over(struct mu_exec *x);
/* chunks.c */
/* -ENOMEM. */
MU_MUST_USE int mu_exec_delta(struct mu_exec *x, mu_bytes text);
void mu_exec_discard(struct mu_exec *x);

#endif
