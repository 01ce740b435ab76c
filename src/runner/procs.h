/* Child processes of the runner, one after the other, with everything else that PID 1 has to do
 * meanwhile: reap orphans, pass TERM on, copy output, serve the bridge (sandbox.md 10). */
#ifndef MU_RUNNER_PROCS_H
#define MU_RUNNER_PROCS_H

#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "proto/redact.h"

struct mu_bridge;

struct pollfd;

/* Whoever else wants to be served while the runner waits for anything (a live session: its link,
 * its agent, its terminals). None of these runs inside another. */
struct mu_watch {
    /* Fills in what to poll for, at most MU_WATCH_FDS, and may lower *wait_ms. */
    size_t (*want)(void *arg, struct pollfd *fds, int64_t *wait_ms);
    void (*serve)(void *arg, const struct pollfd *fds, size_t n);
    /* Some other child than the one that runs by mu_procs_run() has ended. */
    void (*ended)(void *arg, pid_t pid, int wstatus);
    void (*said)(void *arg, mu_bytes b); /* a copy of what goes to standard output */
    void *arg;
};
enum { MU_WATCH_FDS = 32 };

enum {
    MU_STOP_GRACE_MS = 8000, /* from TERM to KILL */
    MU_SAY_MAX = 8 << 20,    /* of standard output; the file keeps the end as well */
    MU_LINGER = 16,
};

/* Children that mu_procs_kill_rest() lets live. */
enum mu_spare { MU_SPARE_REPORT, MU_SPARE_LINK /* speaks TLS for it */, MU_SPARES };

struct mu_procs {
    int sigfd;
    struct mu_bridge *bridge;     /* NULL = none; not owned */
    const struct mu_watch *watch; /* NULL = none; not owned */
    pid_t spare[MU_SPARES];       /* 0 = none, or it is gone */
    bool stopping;                /* TERM came, or the keeper said stop */
    int64_t kill_at;              /* monotonic ms; 0 = not yet */
    struct mu_buf say;            /* for standard output, not written yet */
    int64_t said;
    bool mute;                      /* nobody reads standard output any more */
    const struct mu_redact *redact; /* what is kept out of it; NULL = nothing; not owned */
    struct mu_redact_stream say_stream;
    /* Output of daemons that setup commands left: read so that they do not die of a closed pipe. */
    int linger[MU_LINGER];
    size_t n_linger;
    /* the child that runs now */
    pid_t child;
    bool ended;
    int wstatus;
};

/* Blocks the signals it wants, becomes the reaper of orphans. Once a process. Worded. */
MU_MUST_USE int mu_procs_init(struct mu_procs *p, struct mu_err *err);
void mu_procs_fini(struct mu_procs *p);

struct mu_proc {
    const char *const *argv; /* argv[0] without "/" is looked up in `path` */
    char *const *env;        /* NULL = as the runner's */
    const char *path;        /* NULL = PATH of the runner */
    const char *cwd;
    int in;         /* standard input; -1 = nothing to read */
    int out;        /* standard output goes there; -1 = to the sink, together with standard error */
    bool quiet;     /* standard error is thrown away */
    bool linger;    /* a setup command: what it left running goes on */
    bool kill_rest; /* the agent: nothing of it is left afterwards */
    bool even_stopping; /* works on results: not stopped by TERM */
    int64_t timeout_ms; /* 0 = none */
    int64_t file_max;   /* largest file it may write; 0 = any */
    void (*sink)(void *arg, mu_bytes piece);
    void *arg;
};
struct mu_proc_end {
    int status; /* its own, or 128 + signal; 126, 127 not started; 124 out of time */
    bool timed_out;
    bool stopped;        /* by TERM: before it began or while it ran */
    int error;           /* 126, 127: -errno */
    bool no_interpreter; /* the file is there, what its first line names is not */
};
/* Runs it to its end. */
void mu_procs_run(struct mu_procs *p, const struct mu_proc *proc, struct mu_proc_end *ret);

/* Waits at most `ms` for anything, and serves it: the loop of a runner that waits for no one child.
 */
void mu_procs_turn(struct mu_procs *p, int64_t ms);
/* How a child ended, as a shell says it. */
int mu_procs_status(int wstatus);

/* Puts bytes on standard output, later if need be; after MU_SAY_MAX nothing more. */
void mu_say(struct mu_procs *p, mu_bytes b);
/* Waits up to `ms` until all of it is written. */
void mu_say_flush(struct mu_procs *p, int64_t ms);
/* Kills every process below this one but the spare ones. */
void mu_procs_kill_rest(struct mu_procs *p);
/* As TERM: the group of the child is told, and killed `grace_ms` later. */
void mu_procs_stop(struct mu_procs *p, int64_t grace_ms);
/* Takes what the kernel has: signals and ended children. */
void mu_procs_signals(struct mu_procs *p);
int64_t mu_mono_ms(void);

/* "muster runner: …" on standard error. */
void mu_note(const char *fmt, ...) MU_PRINTF(1, 2);

#endif
