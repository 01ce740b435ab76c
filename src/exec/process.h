/* Child processes: own process group, no inherited descriptors, limits, and an end that is certain
 * (oz-providers.md 7). */
#ifndef MU_EXEC_PROCESS_H
#define MU_EXEC_PROCESS_H

#include "base/bytes.h"
#include "io/loop.h"

enum mu_process_end {
    MU_PROCESS_EXITED,   /* code */
    MU_PROCESS_SIGNALED, /* signal */
    MU_PROCESS_TIMEOUT,
    MU_PROCESS_FLOOD,  /* stdout or stderr passed its limit */
    MU_PROCESS_KILLED, /* mu_process_kill() */
    MU_PROCESS_NOT_STARTED,
};

struct mu_process_result {
    enum mu_process_end end;
    int code; /* exit code, 128 + signal, or -1 */
    int signal;
    int start_errno;   /* NOT_STARTED: why (ENOENT: no such program or folder) */
    mu_bytes err_text; /* head and tail of stderr (at most 64 KiB), a line between them tells what
                          is missing; valid inside done() */
};

struct mu_process_request {
    const char *const *argv; /* argv[0] is searched on the PATH of `env`; no shell */
    const char *const *env;  /* the whole environment, "NAME=value", NULL-terminated */
    const char *cwd;         /* NULL = "/" */
    mu_bytes input; /* written to stdin, then EOF; copied. A child that does not read it comes to no
                       harm */
    int64_t timeout_ms; /* TERM to the group, kill_ms later KILL; 0 = none */
    int64_t kill_ms;    /* 5000 */
    size_t max_output;  /* on each of stdout and stderr: 20 MiB */
    int64_t max_memory_bytes, max_cpu_s, max_files; /* rlimits of the child; 0 = not set */
    void (*on_output)(void *arg, mu_bytes piece);   /* stdout as it comes */
    /* Exactly once, never from inside start: all of the group is dead and both pipes are closed. A
     * grandchild that left the group and holds a pipe open does not delay it by more than 2 s. */
    void (*done)(void *arg, const struct mu_process_result *result);
    void *arg;
};

struct mu_process;
/* The seam for process start. Loop thread; the vfork is quick and done on it. The child gets
 * PR_SET_PDEATHSIG (KILL), no_new_privs, setsid (own group), oom_score_adj 500, umask 077, default
 * signals and no descriptor but its three. PDEATHSIG fires when the *thread* that forked ends:
 * loops live as long as what they started, so start from loops only. Needs Linux 5.3 (pidfd).
 * start: -ENOMEM, MU_E_INVALID (no argv[0]); whatever else goes wrong is told by done() with
 * MU_PROCESS_NOT_STARTED. *ret is valid until done() was called; the loop must not be freed before.
 */
struct mu_process_ops {
    int (*start)(struct mu_loop *loop, const struct mu_process_request *req,
                 struct mu_process **ret);
    void (*kill)(struct mu_process *p); /* TERM, kill_ms later KILL; done() follows */
};
extern const struct mu_process_ops mu_process_real;

/* Finds a program as exec would: a path with a slash must be executable, else PATH is searched (an
 * empty element of it is skipped rather than meaning the working folder; NULL = "/bin:/usr/bin").
 * mu_free() it; NULL when there is none. */
char *mu_process_find(const char *program, const char *path);

#endif
