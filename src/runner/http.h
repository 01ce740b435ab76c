/* One HTTP request at a time, answered or not: for containers that no worker of ours started. Plain
 * HTTP by itself, https through the image's curl if there is one (oz-worker.md 13.6). */
#ifndef MU_RUNNER_HTTP_H
#define MU_RUNNER_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "runner/procs.h"

struct mu_http_url {
    bool tls;
    char host[256]; /* an IPv6 literal without its brackets */
    char port[6];
    char path[2048]; /* with the query; begins with "/" */
};
/* http:// and https:// only, no user, no control characters. MU_E_INVALID. */
MU_MUST_USE int mu_http_url_parse(mu_bytes text, struct mu_http_url *ret);

struct mu_http_answer {
    int status;
    bool complete;
};
/* Reads what came so far. `ended`: the connection was closed. When complete, the body is in
 * *ret_body (chunks joined). 0, or MU_E_PROTOCOL, or what the buffer failed with. */
MU_MUST_USE int mu_http_answer_parse(mu_bytes raw, bool ended, struct mu_http_answer *ret,
                                     struct mu_buf *ret_body);

struct mu_http_call {
    const char *method, *url, *bearer;
    mu_bytes body;        /* JSON; ptr NULL = none */
    int dir;              /* .oz, where curl may find the body in a file */
    const char *dir_path; /* the same as a path */
    int64_t timeout_ms;
};
/* Ends early when p->stopping comes. *ret_body may hold a part on errors. Worded; -ENOSYS: https,
 * and there is no curl. */
MU_MUST_USE int mu_http_send(struct mu_procs *p, const struct mu_http_call *call, int *ret_status,
                             struct mu_buf *ret_body, struct mu_err *err);

#endif
