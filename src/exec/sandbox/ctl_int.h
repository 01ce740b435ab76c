/* What the worker and the keeper say to each other, and what the keeper leaves behind: the control
 * socket, the files `journal` and `end`. Part of the static program. */
#ifndef MU_EXEC_SANDBOX_CTL_INT_H
#define MU_EXEC_SANDBOX_CTL_INT_H

#include "exec/sandbox/box_int.h"

/* SOCK_SEQPACKET; the peer has our user id (SO_PEERCRED). One worker at a time: a new connection
 * replaces the old one. Descriptors go to the keeper only, and only with DIALED. */
enum mu_ctl_kind {
    /* worker to keeper */
    MU_CTL_STOP = 1, /* `value` ms until KILL (0 = now); text: the failure_reason */
    MU_CTL_DIALED = 2,
    MU_CTL_REFUSED = 3, /* `value` an errno */
    MU_CTL_FREEZE = 4,
    MU_CTL_THAW = 5,
    /* keeper to worker */
    MU_CTL_STATE = 16, /* text: a state's word; behind a NUL the detail */
    MU_CTL_LOG = 17,   /* `value`: size of the log file now */
    MU_CTL_DIAL = 18,
    MU_CTL_FROZEN = 19, /* answer to FREEZE: `value` 0 or a negated errno */
    MU_CTL_ENDED = 20,  /* the file `end` is there */
};
enum {
    MU_CTL_TEXT = 384,
    MU_KEEPER_FD = 3,      /* in the keeper: the first worker's socket */
    MU_KEEPER_LOCK_FD = 4, /* what keeps its range of ids from others */
};

struct mu_ctl_msg {
    uint8_t kind, zero;
    uint16_t port;
    uint32_t id;
    int64_t value;
    char text[MU_CTL_TEXT]; /* NUL-terminated; trailing NULs are not sent */
};
/* Non-blocking. `fd` -1 = none. 0 or a negated errno. */
MU_MUST_USE int mu_ctl_send(int sock, const struct mu_ctl_msg *m, int fd);
/* 1 = a message; 0 = nothing there now; MU_E_CLOSED, MU_E_PROTOCOL, -errno. With `ret_fd` NULL
 * there is no control buffer: a descriptor that came along vanishes. */
MU_MUST_USE int mu_ctl_recv(int sock, struct mu_ctl_msg *ret, int *ret_fd);
/* A connection to the keeper of a session's folder; -ECONNREFUSED, -ENOENT: there is none. */
MU_MUST_USE int mu_ctl_connect(int session_fd, int *ret);

struct mu_end {
    int64_t exit_code, oom, cpu_ms, peak_bytes, step_errno;
    char reason[40]; /* "" = the program ended by itself */
    char message[320], step[40];
};
/* Atomically, as `end` in that folder. */
MU_MUST_USE int mu_end_write(int session_fd, const struct mu_end *end);
/* -ENOENT: not ended. */
MU_MUST_USE int mu_end_read(int session_fd, struct mu_end *ret);
/* Reads a whole file of a session's folder into the arena: links are not followed. */
MU_MUST_USE int mu_session_read(int session_fd, const char *name, size_t max,
                                struct mu_arena *arena, mu_bytes *ret);
/* Writes name.new and renames it. */
MU_MUST_USE int mu_session_write(int session_fd, const char *name, mu_bytes text);
/* A new file, where nobody looks before it is complete. */
MU_MUST_USE int mu_session_put(int session_fd, const char *name, mu_bytes text);

#endif
