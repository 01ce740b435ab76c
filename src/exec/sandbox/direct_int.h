/* Shared by the files of the kind `direct` only. */
#ifndef MU_EXEC_SANDBOX_DIRECT_INT_H
#define MU_EXEC_SANDBOX_DIRECT_INT_H

#include "base/arena.h"
#include "base/buf.h"
#include "exec/sandbox/child.h"
#include "exec/sandbox/sandbox.h"
#include "io/work.h"

enum { MU_DIRECT_ID = 64, MU_DIRECT_PATH = 1024 };

enum mu_direct_phase {
    MU_DIRECT_PREPARING, /* folders, on a work thread */
    MU_DIRECT_SETUP,
    MU_DIRECT_RUNNING,
    MU_DIRECT_REAPING, /* what left its group is looked for, on a work thread */
    MU_DIRECT_ENDED,
    MU_DIRECT_TEARDOWN,
    MU_DIRECT_REMOVING,
};

struct mu_direct {
    struct mu_loop *loop;
    const struct mu_sandbox_settings *settings;
    struct mu_work *work; /* made by the first that needs it */
    struct mu_list boxes;
    char root[MU_DIRECT_PATH]; /* below the state folder */
    char workspaces[MU_DIRECT_PATH];
};

struct mu_direct_box {
    struct mu_list link;
    struct mu_direct *d;
    enum mu_direct_phase phase;
    char id[MU_DIRECT_ID + 1], task_id[129];
    char folder[MU_DIRECT_PATH], workspace[MU_DIRECT_PATH];
    struct mu_arena arena;
    const char **env, *const *argv; /* env: of the setup command and the agent */
    mu_bytes prompt;
    int64_t timeout_ms, grace_ms, log_bytes, deadline_ms /* wall clock, 0 = none */;
    struct mu_sandbox_events events;
    void *arg;
    struct mu_child *child;
    struct mu_job step; /* prepare, reap, remove: one at a time */
    int step_result;
    size_t jobs;
    struct mu_timer tail;
    int64_t tail_ms, log_at;
    int log_fd;
    struct mu_post post;
    /* how it ended, or has to */
    const char *stop_reason;
    bool stop_now, detached, released, adopted;
    int exit_code;
    char reason[32], message[256];
    void (*released_fn)(void *arg);
    void *released_arg;
};

/* direct_env.c */
/* The variables of the setup command (full = true: on top of the worker's own) or the agent, in the
 * box's arena; NULL when out of memory. */
const char *const *mu_direct_setup_env(struct mu_direct_box *b, bool with_file);
const char *const *mu_direct_agent_env(struct mu_direct_box *b);
/* The value of a variable of the task, or NULL. */
const char *mu_direct_var(const struct mu_direct_box *b, const char *name);

/* direct_files.c: on a work thread */
void mu_direct_prepare(struct mu_job *job);
void mu_direct_reap(struct mu_job *job);
void mu_direct_remove(struct mu_job *job);
int mu_direct_read(const char *workspace, const char *path, size_t max, struct mu_buf *dst);
void mu_direct_paths(struct mu_direct_box *b, const char *execution_id);
/* Small files of the folder. */
int mu_direct_write_meta(const struct mu_direct_box *b, pid_t pid, int64_t started);
bool mu_direct_read_meta(struct mu_direct_box *b, pid_t *pid, int64_t *started,
                         int64_t *deadline_ms);
bool mu_direct_read_end(const struct mu_direct_box *b, int *ret);
void mu_direct_read_file(struct mu_sandbox *s, const char *path, size_t max,
                         void (*done)(void *arg, int result, mu_bytes bytes), void *arg);
void mu_direct_sweep(struct mu_sandbox_driver *sd, const char *const *keep, size_t n_keep,
                     void (*done)(void *arg, size_t removed), void *arg);

/* direct.c */
struct mu_work *mu_direct_work(struct mu_direct *d);
void mu_direct_job_done(struct mu_direct_box *b);

#endif
