/* The only way out of a sandbox without a network of its own: PID 1 listens on loopback ports, asks
 * the keeper over descriptor 3 for each connection, and copies bytes between it and the descriptor
 * that it gets (sandbox.md 9, exec/sandbox/fd3.h). */
#ifndef MU_RUNNER_BRIDGE_H
#define MU_RUNNER_BRIDGE_H

#include <poll.h>

#include "base/err.h"

enum {
    MU_BRIDGE_PORTS = 32,
    MU_BRIDGE_CONNS = 128,
    MU_BRIDGE_FDS = 1 + MU_BRIDGE_PORTS + 2 * MU_BRIDGE_CONNS,
};

struct mu_bridge;
struct mu_procs;

/* Takes descriptor `fd` (the keeper's socket), reads SETUP, listens, says READY. Worded. */
MU_MUST_USE int mu_bridge_open(int fd, struct mu_bridge **ret, struct mu_err *err);
struct mu_bridge *mu_bridge_close(struct mu_bridge *b);
/* Fills in what to poll for (at most MU_BRIDGE_FDS) and returns how many; then the same array. */
size_t mu_bridge_want(struct mu_bridge *b, struct pollfd *fds);
void mu_bridge_serve(struct mu_bridge *b, const struct pollfd *fds, size_t n, struct mu_procs *p);

#endif
