/* Shared by the two wire formats (models_openai.c, models_anthropic.c) and the reader (models.c).
 */
#ifndef MU_EXEC_MODELS_INT_H
#define MU_EXEC_MODELS_INT_H

#include "exec/models.h"
#include "proto/json.h"
#include "proto/sse.h"

/* What the two formats make of decoded JSON. Every function may call the mu_model_* helpers. */
struct mu_model_format {
    const char *error_prefix, *limited_prefix;
    const char *text_member; /* what a plain answer must have, for the complaint */
    /* One event of a stream. */
    void (*on_event)(struct mu_model_reader *r, mu_bytes event, yyjson_val *root);
    /* A whole plain answer; false when it has not the expected shape. */
    bool (*on_answer)(struct mu_model_reader *r, yyjson_val *root);
};
extern const struct mu_model_format mu_model_openai, mu_model_anthropic;

struct mu_model_reader {
    const struct mu_model_format *format;
    size_t max_output;
    int (*on_delta)(void *arg, mu_bytes text);
    void *arg;
    struct mu_sse sse;
    struct mu_buf body; /* of a plain or failed answer */
    enum { MU_BODY_UNKNOWN, MU_BODY_PLAIN, MU_BODY_STREAM } kind;
    size_t delivered; /* bytes that went to on_delta */
    bool has_words;   /* one of them was not white space */
    bool terminal;    /* the format's own end marker came */
    bool misshapen;   /* a plain answer without its text member */
    int failed;       /* what feed returns from now on */
    struct mu_model_answer answer;
};

/* Hands text on; keeps the limits and the first failure. */
void mu_model_deliver(struct mu_model_reader *r, mu_bytes text);
/* Text as a string, or as an array of parts with a member "text". False when it is neither. */
bool mu_model_deliver_content(struct mu_model_reader *r, yyjson_val *content);
void mu_model_finish(struct mu_model_reader *r, mu_bytes reason);
/* The upstream says inside a 2xx answer that it failed: `error` is its object or string. */
void mu_model_upstream_error(struct mu_model_reader *r, yyjson_val *error);
/* Whether the document has a member "error" that says so; it is then told. */
bool mu_model_has_error(struct mu_model_reader *r, yyjson_val *root);
enum mu_model_class mu_model_class_of_status(int status, mu_bytes body);
/* Appends upstream text on one line, without URLs and what looks like a key, at most 500 bytes. */
void mu_model_add_clean(struct mu_buf *dst, mu_bytes text);

/* --- the request --- */

/* The body under construction: members of extra_body replace ours, null leaves them out. */
struct mu_model_body {
    struct mu_json_w w;
    yyjson_val *extra;
};
/* Writes the key unless the operator's extra body has it; true when the value is to follow. */
bool mu_model_member(struct mu_model_body *b, const char *key);
void mu_model_add_message(struct mu_json_w *w, const char *role, mu_bytes text);
/* {"type":"text","text":…}: the prompt beside images. */
void mu_model_add_text(struct mu_json_w *w, mu_bytes text);
/* The earlier exchanges of the conversation, as messages. */
void mu_model_add_turns(struct mu_json_w *w, const struct mu_model_call *call);
void mu_model_body_openai(struct mu_model_body *b, const struct mu_model_call *call);
void mu_model_body_anthropic(struct mu_model_body *b, const struct mu_model_call *call);

#endif
