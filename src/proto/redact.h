/* Values that must not be seen, found in a stream of bytes wherever it was cut, and replaced by
 * "[redacted:NAME]" (architecture.md G9). One automaton (Aho and Corasick) knows every value in the
 * forms that programs give it: as it is, in JSON, in JSON in JSON, percent-encoded, and in base64
 * at each of its three alignments. Pure; part of the static program.
 *
 * Found is what stands there in one of these forms. Whoever can run programs can write a value in
 * another one: this is against accidents, not against a program that wants it out. */
#ifndef MU_PROTO_REDACT_H
#define MU_PROTO_REDACT_H

#include "base/buf.h"

enum {
    MU_REDACT_MIN = 8,      /* bytes; what is shorter is no secret, and in too many words */
    MU_REDACT_PIECE = 1024, /* a longer line of a value is several */
    MU_REDACT_SHOWN = 4,    /* fewer first bytes than this may be shown while more may come */
    MU_REDACT_NAME = 64,
    MU_REDACT_NAMES = 1024,
    MU_REDACT_NODES = 512 << 10, /* of all forms together: about 10 MiB */
    MU_REDACT_DEPTH = 256,       /* of JSON */
};

struct mu_redact; /* read-only once it is ready: then any number of streams, from any thread */

/* NULL: no memory. */
struct mu_redact *mu_redact_new(void);
struct mu_redact *mu_redact_free(struct mu_redact *r); /* overwrites what it knew */
/* Each line of `value` of at least MU_REDACT_MIN bytes, as it is, or only its other forms when
 * `encoded`: first every value as it is, so that those have the room. MU_E_TOO_LARGE (what was
 * added stays), -ENOMEM. Not after mu_redact_ready(). */
MU_MUST_USE int mu_redact_add(struct mu_redact *r, mu_bytes name, mu_bytes value, bool encoded);
/* -ENOMEM. */
MU_MUST_USE int mu_redact_ready(struct mu_redact *r);
/* There is something to be found. Of NULL: false. */
bool mu_redact_any(const struct mu_redact *r);

/* Zeroed: at the beginning. */
struct mu_redact_stream {
    uint32_t state;
    uint32_t held; /* bytes that may be the beginning of a value */
    bool inside;   /* the last that was given out is a mark */
    bool brief;    /* marks without names; set by the caller */
    uint64_t hits; /* marks so far */
    char hold[MU_REDACT_PIECE];
};
/* Appends what is known to be harmless. `r` NULL: everything. */
void mu_redact_feed(const struct mu_redact *r, struct mu_redact_stream *s, mu_bytes in,
                    struct mu_buf *out);
/* Nothing more comes: what may be the beginning of a value is one when it is MU_REDACT_MIN bytes
 * long. The stream begins anew, but for its count. */
void mu_redact_flush(const struct mu_redact *r, struct mu_redact_stream *s, struct mu_buf *out);
/* Nothing more came for a while: fewer than MU_REDACT_SHOWN first bytes are given out, and if it
 * becomes a value all the same, only the others are missing. */
void mu_redact_idle(const struct mu_redact *r, struct mu_redact_stream *s, struct mu_buf *out);
/* mu_redact_idle() would give something out. */
bool mu_redact_waits(const struct mu_redact *r, const struct mu_redact_stream *s);

/* A text of its own; the number of marks. */
uint64_t mu_redact_text(const struct mu_redact *r, mu_bytes in, struct mu_buf *out);
/* What of a JSON document is its writer's own and stays. */
struct mu_redact_own {
    const char *const *keep; /* strings, as "key" or "key.key" by the objects around them;
                                NULL-terminated, NULL = none */
    size_t levels;           /* so many objects have keys of its own, from the outermost … */
    const char *but;         /* … if they are not in this member of it; NULL = none */
};
/* A JSON document: every other string in it. `brief`: marks without names. MU_E_INVALID: it is no
 * JSON that we wrote; what `out` fails with, -ENOMEM. */
MU_MUST_USE int mu_redact_json(const struct mu_redact *r, mu_bytes json,
                               const struct mu_redact_own *own, bool brief, struct mu_buf *out);

#endif
