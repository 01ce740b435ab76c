/* The runner's end of the socket to its worker, or of the server's WebSocket where there is no
 * worker of ours (docs/runner-protocol.md): connects again and again, numbers its messages and
 * keeps them until they are acknowledged. */
#ifndef MU_RUNNER_LIVE_LINK_H
#define MU_RUNNER_LIVE_LINK_H

#include <poll.h>

#include "proto/frame.h"
#include "proto/json_write.h"
#include "proto/jtok.h"
#include "proto/redact.h"
#include "runner/live_ws.h"

enum {
    MU_LINK_BYTES = 16 << 20, /* of unacknowledged messages */
    MU_LINK_MESSAGES = 10000,
    MU_LINK_SLACK =
        2 << 20, /* kept free for what has to be said when the agent is not read any more */
    MU_LINK_SLACK_MESSAGES = 500,
    MU_LINK_OUT = 4 << 20,    /* not written yet */
    MU_LINK_SOFT = 256 << 10, /* above this nothing that can wait is added */
};

struct mu_link_note;
struct mu_link_ops {
    void (*hello)(void *arg, struct mu_json_w *w); /* its members behind type and key */
    /* A message of the server; of all but the first of a connection, `init` came before. */
    void (*message)(void *arg, const struct mu_jtok *j);
    /* The worker answers mu_link_put(). */
    void (*put)(void *arg, const struct mu_jtok *j);
};
struct mu_link {
    const struct mu_link_ops *ops;
    void *arg;
    char path[108], key[65];
    struct mu_link_ws *ws; /* NULL: the unix socket */
    int fd;                /* -1: not connected */
    bool up;               /* init came on this connection */
    bool drop;             /* it has to be ended */
    uint64_t ups;          /* how often it was up */
    struct mu_frame_in in;
    struct mu_buf out, build;
    const struct mu_redact *redact; /* what no message says; NULL = nothing; not owned */
    struct mu_buf clean;
    struct mu_json_w w;
    bool numbered; /* what is built */
    struct mu_jtok json;
    int64_t retry_at, retry_ms, ping_at;
    enum mu_link_verdict verdict; /* not AGAIN: it is not connected again, `words` say why */
    char words[200];
    struct mu_link_note *notes; /* unacknowledged, a ring */
    size_t n, head;
    size_t bytes;
    int64_t last;   /* number given out */
    int64_t unsent; /* the next number to be sent on this connection */
    int failed;     /* a message was lost: there was no room or memory for it */
};

/* `key` is 64 hexadecimal characters. MU_E_INVALID, -ENOMEM. */
MU_MUST_USE int mu_link_init(struct mu_link *l, const char *path, const char *key,
                             const struct mu_link_ops *ops, void *arg);
/* The same over the server's WebSocket: `ws` is taken over in any case. -ENOMEM. */
MU_MUST_USE int mu_link_init_ws(struct mu_link *l, struct mu_link_ws *ws,
                                const struct mu_link_ops *ops, void *arg);
void mu_link_fini(struct mu_link *l);

/* A message with a number. Between the two nothing else may be built. */
struct mu_json_w *mu_link_begin(struct mu_link *l, const char *type);
void mu_link_end(struct mu_link *l);
/* One without; NULL while it could not be sent at once. */
struct mu_json_w *mu_link_say(struct mu_link *l, const char *type);
/* Asks the worker itself: not numbered, and lost with the connection. False while it could not be
 * sent at once. */
bool mu_link_put(struct mu_link *l, mu_bytes json);
/* Room for what can wait or be lost: streams, terminals. */
bool mu_link_room(const struct mu_link *l);
/* Too much is unacknowledged: nothing that makes messages may be read. */
bool mu_link_full(const struct mu_link *l);
/* All is acknowledged. */
static inline bool mu_link_empty(const struct mu_link *l)
{
    return l->n == 0;
}
/* The server has everything up to `seq`; sends on from there when `anew`. */
void mu_link_acked(struct mu_link *l, int64_t seq, bool anew);
void mu_link_down(struct mu_link *l);

/* One entry or none for poll. */
size_t mu_link_want(struct mu_link *l, struct pollfd *fd, int64_t *wait_ms);
void mu_link_serve(struct mu_link *l, short revents);
/* Writes what can be written. */
void mu_link_flush(struct mu_link *l);

#endif
