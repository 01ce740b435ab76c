/* HTTP/1.1 request parsing: llhttp in strict mode plus our policy (stack.md 2, "Request parsing is
 * a security boundary"). Pure: bytes in, a request out. */
#ifndef MU_PROTO_HTTP1_H
#define MU_PROTO_HTTP1_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum mu_http_method {
    MU_HTTP_GET,
    MU_HTTP_HEAD,
    MU_HTTP_POST,
    MU_HTTP_PUT,
    MU_HTTP_PATCH,
    MU_HTTP_DELETE,
    MU_HTTP_OPTIONS,
    MU_HTTP_OTHER, /* any other known method; CONNECT is refused by the policy */
};

struct mu_http_header {
    mu_bytes name;  /* as sent */
    mu_bytes value; /* trimmed */
};

struct mu_http_head {
    enum mu_http_method method;
    mu_bytes method_name;
    mu_bytes target; /* as sent, origin form */
    mu_bytes path;   /* decoded and normalised (proto/url.h) */
    mu_bytes query;  /* raw, without "?" */
    mu_bytes host;   /* exactly one Host header, lower case not applied */
    struct mu_http_header *headers;
    size_t n_headers;
    int64_t content_length; /* -1 = none */
    bool chunked, keep_alive, upgrade, expect_continue, http10;
};

struct mu_http1_limits {
    size_t max_start_line;   /* 8 KiB */
    size_t max_header_bytes; /* 32 KiB, names, values and separators */
    size_t max_headers;      /* 100 */
};
extern const struct mu_http1_limits mu_http1_default_limits;

/* What the parser is doing after a feed. */
enum mu_http1_event {
    MU_HTTP1_MORE,  /* wants more bytes */
    MU_HTTP1_HEAD,  /* the header block is complete: look at mu_http1_head(), then feed on */
    MU_HTTP1_BODY,  /* mu_http1_body() is a piece of the body */
    MU_HTTP1_DONE,  /* the message ended; what is left of the input belongs to the next one */
    MU_HTTP1_ERROR, /* answer mu_http1_status() and close */
};

struct mu_http1;
/* The parser object is small; header text lives in `a`, which must be reset by the caller between
 * messages (mu_http1_reset). */
MU_MUST_USE int mu_http1_new(const struct mu_http1_limits *limits, struct mu_arena *a,
                             struct mu_http1 **ret);
struct mu_http1 *mu_http1_free(struct mu_http1 *p);
void mu_http1_reset(struct mu_http1 *p, struct mu_arena *a);
/* Consumes a prefix of `in` (*ret_used bytes) up to the next event. Feeding the same bytes in any
 * cuts gives the same events (BODY pieces may be cut differently). After HEAD and BODY feed on,
 * also with nothing left: only MORE says that bytes are missing. */
enum mu_http1_event mu_http1_feed(struct mu_http1 *p, mu_bytes in, size_t *ret_used);
const struct mu_http_head *mu_http1_head(const struct mu_http1 *p);
mu_bytes mu_http1_body(const struct mu_http1 *p);
/* After ERROR: 400, 414, 417 (an expectation other than 100-continue), 431, 501 (unknown transfer
 * coding), 503 (out of memory) or 505, and a short text that names the fault. */
int mu_http1_status(const struct mu_http1 *p, const char **ret_text);
/* Whether bytes of an unfinished message were seen (for the header timeout). */
bool mu_http1_in_message(const struct mu_http1 *p);

/* First header of that name (ASCII case ignored); ptr NULL when absent. */
mu_bytes mu_http_header(const struct mu_http_head *h, const char *name);
/* The reason phrase of a status. */
const char *mu_http_reason(int status);

#endif
