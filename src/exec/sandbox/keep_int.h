/* The keeper, `muster keep <session folder>`: one single-threaded process per sandbox that starts
 * it, holds what it says, and sees to its end, whether a worker is there or not (sandbox.md 10). */
#ifndef MU_EXEC_SANDBOX_KEEP_INT_H
#define MU_EXEC_SANDBOX_KEEP_INT_H

#include <limits.h>

#include "exec/sandbox/ctl_int.h"
#include "exec/sandbox/disk_int.h"
#include "exec/sandbox/fd3.h"
#include "exec/sandbox/launch_int.h"

enum {
    KEEP_TICK_MS = 1000,
    KEEP_DIAL_MS = 20000, /* how long a connection waits for a worker that is gone */
};

struct keep_dial {
    bool used, told; /* told = a worker knows of it */
    uint16_t port;
    uint32_t id;
    int64_t since_ms;
};

struct keep {
    struct mu_arena arena; /* the spec; lives as long as the keeper */
    struct mu_box box;
    char session[PATH_MAX];
    int session_fd;
    pid_t pid;
    int pidfd;
    struct mu_cgroup cgroup;
    bool limited_memory; /* by the group */

    int log_fd, pipe_fd; /* the file; the read end of PID 1's output */
    int64_t log_size, log_told, log_max;
    int64_t drain_at_ms;  /* the log is full: the pipe is emptied no faster than this */
    int link_fd;          /* descriptor 3 of PID 1 is its other end */
    int64_t link_from_ms; /* messages from inside are not read before: they came too fast */
    int link_count;
    int64_t link_window_ms;
    int listen_fd, worker_fd;
    bool ready, told_state;
    struct keep_dial dials[MU_FD3_DIALS];

    int64_t started_ms, deadline_ms; /* monotonic; 0 = none */
    int64_t kill_at_ms;              /* being stopped; 0 = not */
    char reason[40], message[320];   /* why it is stopped */
    bool frozen, sweeping, low_space;

    struct mu_disk disk;
    int64_t disk_at_ms; /* the next walk */
    int disk_level;     /* 0; 80, 100: told already */
    int64_t tick_at_ms;
    int64_t peak_rss;
    struct mu_end end;
    int dir_fds[6]; /* keep --empty: the folders that its sandbox wrote to */
};

int64_t keep_now_ms(void);

/* keep_start.c: folders, groups, the launch. Negated errno, `end` filled with what failed. */
MU_MUST_USE int keep_start(struct keep *k);

/* keep_io.c */
void keep_log_readable(struct keep *k, int64_t now);
void keep_log_rest(struct keep *k); /* after the end: what is still in the pipe */
void keep_link_readable(struct keep *k, int64_t now);
void keep_worker_new(struct keep *k, int fd);
void keep_worker_readable(struct keep *k);
void keep_worker_tell(struct keep *k); /* what the worker does not know yet */
void keep_worker_state(struct keep *k, const char *state, const char *detail);
void keep_dials_expire(struct keep *k, int64_t now);
void keep_stop(struct keep *k, int64_t grace_ms, const char *reason, const char *message);
int keep_freeze(struct keep *k, bool on);

/* keep_watch.c: disk, memory, free space, deadline. Called often; returns when it wants to be
 * called again. */
int64_t keep_watch(struct keep *k, int64_t now);
/* The first children of a process, of all its threads; how many. */
size_t keep_children(pid_t pid, pid_t *list, size_t room);

#endif
