/* One HTTP answer as it comes: its status, then its body in pieces, chunked or not. For answers
 * that have no end (server-sent events) and for those that are whole. Pure. */
#ifndef MU_RUNNER_HTTP_STREAM_H
#define MU_RUNNER_HTTP_STREAM_H

#include "base/buf.h"
#include "base/err.h"

enum { MU_HTTP_STREAM_HEAD = 64 << 10 };

enum mu_http_stream_step {
    MU_HS_HEAD,
    MU_HS_SIZE, /* the line of a chunk's size */
    MU_HS_DATA,
    MU_HS_DATA_END, /* the line end behind a chunk */
    MU_HS_TRAILER,
    MU_HS_DONE,
    MU_HS_BROKEN,
};
struct mu_http_stream {
    enum mu_http_stream_step step;
    struct mu_buf line; /* of the head or between chunks */
    size_t head;        /* bytes of the head so far, or of the trailer */
    int status;         /* 0 = not known yet */
    bool chunked;
    int64_t left; /* of the body or the chunk; -1 = until the connection ends */
};
void mu_http_stream_init(struct mu_http_stream *s); /* takes no memory yet */
void mu_http_stream_fini(struct mu_http_stream *s);

/* Takes a prefix of *in, up to the next piece of the body (*ret_piece, a part of it; none: all was
 * taken, or it is DONE). MU_E_PROTOCOL, MU_E_TOO_LARGE, -ENOMEM; then it is BROKEN. */
MU_MUST_USE int mu_http_stream_feed(struct mu_http_stream *s, mu_bytes *in, mu_bytes *ret_piece);
/* The connection has ended. 0: the answer is whole; MU_E_PROTOCOL: it is not. */
MU_MUST_USE int mu_http_stream_end(struct mu_http_stream *s);

#endif
