/* A request of this very process: the head and the body of one, its answer as a call. What answers
 * requests of connections (net/http.h) answers it, and cannot tell the difference. */
#ifndef MU_NET_HTTP_LOCAL_H
#define MU_NET_HTTP_LOCAL_H

#include "net/http.h"

struct mu_http_local {
    struct mu_loop *loop;
    /* Exactly once, on the loop, when the request was opened; what it is given is valid inside the
     * call, and the request is gone afterwards. Status 0: the answer would have been a stream, or
     * another protocol. */
    void (*done)(struct mu_http_local *l, int status, const struct mu_http_pair *headers, size_t n,
                 mu_bytes body);
    void *ctx;
};

/* `head`: request line and headers up to the empty line, as on a connection, with the body's
 * Content-Length if there is one. Copies both. Loop thread; the request must be answered like any
 * other. MU_E_INVALID: no such head; MU_E_TOO_LARGE, -ENOMEM: done() does not run. */
MU_MUST_USE int mu_http_local_open(struct mu_http_local *l, mu_bytes head, mu_bytes body,
                                   struct mu_http_req **ret);

/* Once the loop has ended: frees one that was never answered; done() does not run. NULL is
 * harmless.
 */
void mu_http_local_drop(struct mu_http_req *req);

#endif
