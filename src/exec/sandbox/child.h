/* A program on the host for the kinds `direct` and `command`: in a session of its own, its output
 * in a file, and, unlike those of exec/process.h, able to outlive the worker and to be found again.
 * Loop thread. */
#ifndef MU_EXEC_SANDBOX_CHILD_H
#define MU_EXEC_SANDBOX_CHILD_H

#include <sys/types.h>

#include "base/bytes.h"
#include "io/loop.h"

struct mu_child;

struct mu_child_request {
    const char *const *argv; /* argv[0] is a path */
    const char *const *env;
    const char *cwd;
    mu_bytes input;     /* its stdin, copied into memory; empty = /dev/null */
    int output_fd;      /* stdout and stderr; -1 = /dev/null. Stays the caller's */
    int64_t timeout_ms; /* then TERM, grace_ms later KILL; 0 = none */
    int64_t grace_ms;
    bool leave_group; /* what it left running in the background lives on */
    /* Exactly once, never from inside a call of ours; the child is gone afterwards. `status` as
     * waitid gives it: exit code or 128 + signal; -1 = it was not ours to wait for. */
    void (*done)(void *arg, int status, bool timed_out);
    void *arg;
};

/* Started: 0. -errno when it could not be (done() is not called then). */
MU_MUST_USE int mu_child_start(struct mu_loop *loop, const struct mu_child_request *req,
                               struct mu_child **ret);
/* One that an earlier process started: MU_E_NOT_FOUND when the process of that number is not the
 * one that began at `started`. Of `req` only times, done and arg count. */
MU_MUST_USE int mu_child_adopt(struct mu_loop *loop, pid_t pid, int64_t started,
                               const struct mu_child_request *req, struct mu_child **ret);
/* TERM to its group, KILL after grace_ms; now = KILL at once. done() follows. */
void mu_child_stop(struct mu_child *c, bool now);
/* Forgets it: it runs on, done() is not called. */
void mu_child_forget(struct mu_child *c);
pid_t mu_child_pid(const struct mu_child *c);

/* When a process began, in clock ticks since boot: with its number it names it for good.
 * MU_E_NOT_FOUND. */
MU_MUST_USE int mu_child_started(pid_t pid, int64_t *ret);
/* Kills every process of ours whose environment has the variable (a whole "NAME=value"), until
 * there is none or `rounds` are over. Blocking (milliseconds): not on a loop. The number still
 * alive. */
size_t mu_child_kill_marked(const char *variable, unsigned rounds);

#endif
