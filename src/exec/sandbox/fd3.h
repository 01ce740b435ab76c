/* Descriptor 3: what the keeper (`muster keep`, outside) and PID 1 (`muster runner`, inside) say to
 * each other. A unix SOCK_SEQPACKET socket; one message = one struct mu_fd3_msg, and for SETUP the
 * ports behind it. Both ends are the same build of the same program, so fields are in the machine's
 * byte order. No message is longer than MU_FD3_MAX.
 *
 * Descriptors flow inwards only: the keeper receives from inside without a control buffer, so what
 * somebody inside attaches vanishes in the kernel. PID 1 takes a descriptor with DIALED and with
 * nothing else. In PID 1 descriptor 3 is close-on-exec: agents have 0, 1 and 2 only.
 *
 * Neither side waits for the other: PID 1 sets the socket to non-blocking and goes on serving; the
 * keeper drops what does not fit. EOF on descriptor 3 = the keeper is gone (PID 1 dies of its
 * PDEATHSIG at the same moment).
 *
 * A runner that was not started by a keeper (docker, direct) has no descriptor 3: MU_FD3_ENV is not
 * in its environment then. It is taken out of what agents inherit. */
#ifndef MU_EXEC_SANDBOX_FD3_H
#define MU_EXEC_SANDBOX_FD3_H

#include <stdint.h>

#define MU_FD3_ENV "MUSTER_KEEPER" /* "3" when descriptor 3 is this socket */

enum {
    MU_FD3 = 3,
    MU_FD3_MAX = 64 << 10,
    MU_FD3_PROXY_PORT = 3128,
    MU_FD3_PORTS = 32, /* at most so many ports in SETUP */
    MU_FD3_DIALS = 64, /* at most so many DIAL without an answer; PID 1 closes what exceeds it */
};

enum mu_fd3_kind {
    /* --- keeper to PID 1 --- */
    /* The first message, there before PID 1 runs: `value` ports (uint16_t each) follow the struct.
     * PID 1 listens on 127.0.0.1 at each of them and asks DIAL for every connection. 0 ports = no
     * network at all. */
    MU_FD3_SETUP = 1,
    /* Answer to DIAL `id`. DIALED carries one descriptor (SCM_RIGHTS): a connected stream socket,
     * blocking, the broker serves its other end; PID 1 copies bytes both ways until both directions
     * have ended. REFUSED: `value` is an errno; PID 1 closes the connection. */
    MU_FD3_DIALED = 2,
    MU_FD3_REFUSED = 3,
    /* End the task: TERM to the agent's process group now; whatever is still there `value` ms after
     * this message dies with PID 1 (the keeper kills it). PID 1 should exit well before, with
     * result.json written. May come again with a smaller value. */
    MU_FD3_STOP = 4,
    /* Pause without a cgroup freezer: kill(-1, SIGSTOP) until a look through /proc shows nobody but
     * PID 1 running, at most 50 rounds; answered by SWEPT. THAW: kill(-1, SIGCONT). */
    MU_FD3_SWEEP = 5,
    MU_FD3_THAW = 6,

    /* --- PID 1 to keeper --- */
    /* PID 1 runs and listens on its ports; sent once, before the first DIAL. */
    MU_FD3_READY = 16,
    /* A connection was accepted on `port`. `id` is PID 1's own choice and unique among its
     * unanswered requests. */
    MU_FD3_DIAL = 17,
    /* Answer to SWEEP: `value` = processes that were still running when it gave up (0 = all
     * stopped), `id` = rounds. */
    MU_FD3_SWEPT = 18,
};

struct mu_fd3_msg {
    uint8_t kind; /* enum mu_fd3_kind */
    uint8_t zero;
    uint16_t port;
    uint32_t id;
    int32_t value;
};

#endif
