/* Framing of the socket between runner and worker (docs/runner-protocol.md): 4 bytes length of the
 * payload (big-endian), 1 byte kind, the payload. Pure. Part of the static program. */
#ifndef MU_PROTO_FRAME_H
#define MU_PROTO_FRAME_H

#include "base/buf.h"

enum mu_frame_kind {
    MU_FRAME_JSON = 0,  /* one JSON object; whoever gets it checks that */
    MU_FRAME_BYTES = 1, /* terminal bytes behind a head of 16 bytes */
    MU_FRAME_PUT = 2,   /* one JSON object that is between runner and worker only */
};
enum {
    MU_FRAME_HEAD = 5,
    MU_FRAME_JSON_MAX = 1 << 20,
    MU_FRAME_PUT_MAX = 8 << 10,
    MU_FRAME_DATA_MAX = 64 << 10, /* terminal bytes of one frame */
    MU_FRAME_TERM_HEAD = 16,
    MU_FRAME_BYTES_MAX = MU_FRAME_DATA_MAX + MU_FRAME_TERM_HEAD,
};

/* Puts frames together from pieces. */
struct mu_frame_in {
    unsigned char head[MU_FRAME_HEAD];
    size_t n_head;
    struct mu_buf body; /* of the frame that is not whole yet */
    int failed;
};
void mu_frame_in_init(struct mu_frame_in *f); /* takes no memory yet */
void mu_frame_in_fini(struct mu_frame_in *f);

/* Takes one frame; the payload is valid inside the call. Not 0 ends the feeding with it. */
typedef int (*mu_frame_fn)(void *arg, enum mu_frame_kind kind, mu_bytes payload);
/* 0 when all was taken. MU_E_PROTOCOL: an unknown kind, or a JSON or put frame without a byte;
 * MU_E_TOO_LARGE; -ENOMEM; or what `each` returned. After a failure every call returns it again.
 * `each` must not fini it. */
MU_MUST_USE int mu_frame_feed(struct mu_frame_in *f, mu_bytes piece, mu_frame_fn each, void *arg);

/* The first frame of bytes that frames were appended to. 1; 0: it is not whole. */
struct mu_frame_view {
    enum mu_frame_kind kind;
    mu_bytes payload;
};
MU_MUST_USE int mu_frame_front(mu_bytes b, struct mu_frame_view *ret);

/* Appends a frame. MU_E_TOO_LARGE: the payload is longer than its kind allows, or the buffer is
 * full; -ENOMEM. Nothing was appended then, and the buffer is as before. */
MU_MUST_USE int mu_frame_add(struct mu_buf *dst, enum mu_frame_kind kind, mu_bytes payload);

/* Kind 1: what is inside. */
struct mu_frame_term {
    unsigned terminal;
    uint64_t offset; /* of the first byte in the terminal's stream; below 2^63 */
    mu_bytes data;   /* at most MU_FRAME_DATA_MAX */
};
MU_MUST_USE int mu_frame_add_term(struct mu_buf *dst, const struct mu_frame_term *t);
/* MU_E_PROTOCOL: too short, not version 1, a byte that must be zero is not, or the offset is no
 * int64_t. */
MU_MUST_USE int mu_frame_term_parse(mu_bytes payload, struct mu_frame_term *ret);

#endif
