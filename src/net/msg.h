/* A refcounted, immutable piece of output, encoded once and shared by many connections on any
 * loops. */
#ifndef MU_NET_MSG_H
#define MU_NET_MSG_H

#include <stdatomic.h>

#include "base/bytes.h"

struct mu_msg {
    atomic_uint refs;
    size_t len;
    char data[];
};

/* One reference for the caller; NULL when out of memory. */
struct mu_msg *mu_msg_new(mu_bytes content);
/* Another reference to m, which it returns. Any thread. */
struct mu_msg *mu_msg_ref(struct mu_msg *m);
/* Returns NULL; the last reference frees. Any thread. */
struct mu_msg *mu_msg_unref(struct mu_msg *m);

#endif
