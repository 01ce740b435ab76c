/* The wire formats of model providers: the request body, and an incremental reader of the answer
 * (oz-providers.md 6). Pure: no I/O. */
#ifndef MU_EXEC_MODELS_H
#define MU_EXEC_MODELS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum mu_model_wire { MU_WIRE_OPENAI, MU_WIRE_ANTHROPIC };

struct mu_model_image {
    mu_bytes mime_type, base64;
};
struct mu_model_turn { /* an earlier exchange of the conversation */
    mu_bytes prompt, answer;
};
struct mu_model_call {
    enum mu_model_wire wire;
    const char *base_url, *api_key; /* api_key may be NULL with OPENAI */
    mu_bytes model, system, prompt;
    const struct mu_model_image *images;
    size_t n_images;
    const struct mu_model_turn *turns;
    size_t n_turns;
    bool stream;
    bool has_temperature;
    double temperature;
    int64_t max_tokens;  /* 0 = not sent (ANTHROPIC always sends it) */
    mu_bytes extra_body; /* JSON object merged over the body, or empty */
};

/* Everything a POST needs, in the arena. `headers` is NULL-terminated. MU_E_INVALID when extra_body
 * is no object. */
struct mu_model_post {
    const char *url;
    const char *const *headers;
    mu_bytes body;
};
MU_MUST_USE int mu_model_post(struct mu_arena *a, const struct mu_model_call *call,
                              struct mu_model_post *ret, struct mu_err *err);

/* What an answer (or its failure) means: oz-providers.md 4.1. */
enum mu_model_class {
    MU_MODEL_OK,
    MU_MODEL_RATE_LIMITED,
    MU_MODEL_UNAVAILABLE,
    MU_MODEL_AUTH,
    MU_MODEL_BAD_REQUEST,
    MU_MODEL_NO_MODEL, /* 404 "model not found": the next candidate, though bad_request otherwise
                          ends the run */
    MU_MODEL_BAD_RESPONSE,
};
const char *mu_model_class_name(enum mu_model_class c); /* "rate_limited", … */

struct mu_model_answer {
    enum mu_model_class cls;
    int64_t tokens_in, tokens_out; /* 0 = not told */
    bool truncated;                /* finish_reason length, stop_reason max_tokens */
    char finish_reason[32];
    struct mu_err err; /* cls != OK: text with the prefix of 6.2/6.3 ("Provider error: …"), body cut
                          to 500 characters, no URL, no key */
};

/* Reads one answer. Deltas go to on_delta as they come (streaming), or once (plain JSON, also as
 * the answer to a streaming request). */
struct mu_model_reader;
MU_MUST_USE int mu_model_reader_new(enum mu_model_wire wire, size_t max_output_bytes,
                                    int (*on_delta)(void *arg, mu_bytes text), void *arg,
                                    struct mu_model_reader **ret);
struct mu_model_reader *mu_model_reader_free(struct mu_model_reader *r);
/* A piece of the body. `event_stream` by the answer's Content-Type. < 0 ends the call
 * (MU_E_TOO_LARGE, -ENOMEM, or what on_delta returned); an error event inside the stream also ends
 * it. */
MU_MUST_USE int mu_model_reader_feed(struct mu_model_reader *r, int status, bool event_stream,
                                     mu_bytes piece);
/* The body ended properly (`complete`) or broke. Fills the verdict; the text itself went to
 * on_delta untrimmed. */
void mu_model_reader_end(struct mu_model_reader *r, int status, const char *status_text,
                         bool complete, struct mu_model_answer *ret);

#endif
