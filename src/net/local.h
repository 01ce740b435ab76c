/* Unix stream sockets on a loop: a listener below a folder, and connections with a bounded queue
 * out and a stop for what comes in. The loop's thread only. */
#ifndef MU_NET_LOCAL_H
#define MU_NET_LOCAL_H

#include "base/buf.h"
#include "io/loop.h"

struct mu_local;
struct mu_listener;

struct mu_local_ops {
    /* Bytes that came; valid inside the call. The connection may be closed inside. */
    void (*data)(void *arg, mu_bytes bytes);
    /* All that was queued has left; may be NULL. */
    void (*drained)(void *arg);
    /* The peer is gone, or does not take what is sent. Not after mu_local_close(). The connection
     * is closed by the caller then. */
    void (*ended)(void *arg);
};

/* Listens at `folder`/`name`, whatever had that name; the path may be longer than a socket address.
 * Everybody who reaches the folder may connect. accepted() takes the connection. -errno, -ENOMEM.
 */
MU_MUST_USE int mu_local_listen(struct mu_loop *loop, const char *folder, const char *name,
                                void (*accepted)(void *arg, struct mu_local *conn), void *arg,
                                struct mu_listener **ret);
/* Also removes the socket. Returns NULL. */
struct mu_listener *mu_listener_close(struct mu_listener *l);

/* Inside accepted(): from now on `ops` hears of it. */
void mu_local_start(struct mu_local *c, const struct mu_local_ops *ops, void *arg);
/* Copies. -ENOMEM or MU_E_TOO_LARGE (more than 32 MiB wait): nothing of it was queued. */
MU_MUST_USE int mu_local_send(struct mu_local *c, mu_bytes bytes);
size_t mu_local_unsent(const struct mu_local *c);
/* While `on` nothing is read: the peer's writes wait in the kernel. */
void mu_local_hold(struct mu_local *c, bool on);
/* What is queued is lost. Returns NULL. */
struct mu_local *mu_local_close(struct mu_local *c);

#endif
