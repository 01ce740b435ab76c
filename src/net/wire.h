/* A TCP connection as WebSockets use it, plain or TLS: a queue of whole frames that goes out in as
 * few writes as possible, and input as it comes. Internal to this folder; the loop's thread only.
 *
 * The owner holds the handle, closes it and frees what is left with mu_wire_fini() in the handle's
 * close callback. It calls mu_wire_flush() when it has its turn (dirty() asks for one). */
#ifndef MU_NET_WIRE_H
#define MU_NET_WIRE_H

#include <uv.h>

#include "io/loop.h"
#include "net/tls.h"

enum {
    MU_WIRE_IN_BYTES = 16 * 1024,  /* read at once, when the owner lends no buffer */
    MU_WIRE_RECORDS = 16 * 1024,   /* plaintext that is encrypted at once */
    MU_WIRE_TLS_AHEAD = 64 * 1024, /* ciphertext that may wait for the socket */
    MU_WIRE_URGENT = 2 * 1024,     /* bytes that may wait to overtake the queue */
};

struct mu_wire;
struct mu_wire_ops {
    /* Bytes of the peer, which may be changed in place. */
    void (*input)(struct mu_wire *w, char *ptr, size_t len);
    /* The peer will send no more: 0 = it ended its side, else a code. At most once. */
    void (*end)(struct mu_wire *w, int why);
    /* There is something to do: give it a turn before the loop waits. */
    void (*dirty)(struct mu_wire *w);
};

/* Bytes that leave together: nothing is put between them. */
struct mu_wire_node {
    struct mu_wire_node *next;
    size_t len;
    char data[];
};

struct mu_wire_flight;

struct mu_wire {
    const struct mu_wire_ops *ops;
    uv_tcp_t *tcp; /* NULL before mu_wire_start() */
    struct mu_tls *tls;
    char *scratch; /* lent by the owner, or NULL */
    size_t scratch_size;
    struct mu_wire_node *head, *last;
    struct mu_wire_node *urgent; /* goes out at the next border between nodes */
    struct mu_wire_flight *flight;
    size_t head_off, queued; /* bytes of the first node that are gone; bytes that are not */
    size_t nodes;
    uint64_t handed; /* bytes given to libuv so far */
    bool reading, deaf, ended, broken;
};

void mu_wire_init(struct mu_wire *w, const struct mu_wire_ops *ops);
/* Starts reading; `tls` is the wire's from now on. An error shows as `broken`. */
void mu_wire_start(struct mu_wire *w, uv_tcp_t *tcp, struct mu_tls *tls);
/* TLS on a connection that began without. */
void mu_wire_secure(struct mu_wire *w, struct mu_tls *tls);
/* No input is reported any more; what comes is read away (or not read at all: `stop`). */
void mu_wire_deafen(struct mu_wire *w, bool stop);
struct mu_wire_node *mu_wire_node(size_t len); /* NULL = out of memory */
/* Takes the node. */
void mu_wire_push(struct mu_wire *w, struct mu_wire_node *n);
/* The same for bytes that overtake the others, in their own order. Where they are more than
 * MU_WIRE_URGENT, those that did not go yet are dropped for the newest. */
void mu_wire_push_urgent(struct mu_wire *w, struct mu_wire_node *n);
void mu_wire_flush(struct mu_wire *w);
/* Ends our side of the connection; the peer's goes on. false: it cannot be done. */
bool mu_wire_shut(struct mu_wire *w);
/* Bytes the kernel has not taken yet; and those it took, of all that ever went out. */
size_t mu_wire_waiting(const struct mu_wire *w);
uint64_t mu_wire_taken(const struct mu_wire *w);
/* Forgets what was not sent. */
void mu_wire_drop(struct mu_wire *w);
void mu_wire_fini(struct mu_wire *w);

#endif
