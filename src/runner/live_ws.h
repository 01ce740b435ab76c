/* The link of a live session over the server's WebSocket (agent-ops.md 9.1): in containers that no
 * worker of ours started. The frames of the unix socket travel as messages, JSON as text and
 * terminal bytes as binary ones. ws:// by itself, wss:// through the image's `openssl s_client`. */
#ifndef MU_RUNNER_LIVE_WS_H
#define MU_RUNNER_LIVE_WS_H

#include <sys/types.h>

#include "base/err.h"
#include "proto/frame.h"

struct mu_link_ws;

enum mu_link_verdict {
    MU_LINK_AGAIN, /* try again later */
    MU_LINK_OVER,  /* the attempt is over, or another runner took its place: that is all */
    MU_LINK_NEVER, /* it will not be let in */
};

/* `url` is that of the session's socket: ws://, wss://, http:// or https://. *child is who looks
 * the name up, or speaks TLS, while there is one; 0 = none: who reaps it sets that. Worded:
 * MU_E_INVALID, -ENOMEM; -ENOSYS: wss:// without openssl. */
MU_MUST_USE int mu_link_ws_new(const char *url, const char *token, pid_t *child,
                               struct mu_link_ws **ret, struct mu_err *err);
struct mu_link_ws *mu_link_ws_free(struct mu_link_ws *w);

/* Begins a connection: a descriptor for poll, which mu_link_ws_close() closes, or a code. */
MU_MUST_USE int mu_link_ws_open(struct mu_link_ws *w);
void mu_link_ws_close(struct mu_link_ws *w);
/* What to poll for while `out` holds frames; lowers *wait_ms to the next time limit. */
short mu_link_ws_want(const struct mu_link_ws *w, const struct mu_buf *out, int64_t *wait_ms);
/* Takes what came, as frames. Not 0: the connection is over, because of the peer, a time limit, or
 * what `each` returned. `each` must not close it. */
MU_MUST_USE int mu_link_ws_read(struct mu_link_ws *w, short revents, mu_frame_fn each, void *arg);
/* Writes whole frames of the front of `out`, as far as the peer takes them. The same. */
MU_MUST_USE int mu_link_ws_write(struct mu_link_ws *w, struct mu_buf *out);
/* What the end of the last connection means, and in words. */
enum mu_link_verdict mu_link_ws_verdict(const struct mu_link_ws *w, const char **ret_words);

#endif
