/* The driver of kind namespace: the worker's side. What blocks runs on a small pool; the keepers
 * and their sandboxes live on when this process ends. */
#ifndef MU_EXEC_SANDBOX_NAMESPACE_INT_H
#define MU_EXEC_SANDBOX_NAMESPACE_INT_H

#include <limits.h>
#include <pthread.h>
#include <uv.h>

#include "base/list.h"
#include "exec/broker/broker.h"
#include "exec/sandbox/ctl_int.h"
#include "exec/sandbox/sandbox.h"
#include "io/work.h"

enum {
    MU_NS_RANGES = 4000,
    MU_NS_FIRST_ID = 0x70000000, /* above what systemd hands out */
};

struct mu_sandbox_driver {
    struct mu_loop *loop;
    struct mu_sandbox_settings settings;
    char state[PATH_MAX];  /* <state_dir>/s */
    char bundle[PATH_MAX]; /* the /agent tree */
    int state_fd;
    struct mu_work *work;
    struct mu_list boxes; /* of struct mu_sandbox */
    int64_t rung;         /* what new sandboxes are started with */

    pthread_mutex_t lock; /* of what follows: the pool's threads use it */
    bool probed;
    struct mu_cgroup_place cgroup;
    unsigned char range_used[MU_NS_RANGES];

    struct mu_ns_check *check;
    int64_t self_test_without; /* test build: layers left out, enum mu_box_layer */
};

enum mu_ns_phase { MU_NS_PREPARING, MU_NS_RUNNING, MU_NS_DRAINING, MU_NS_ENDED };

struct mu_sandbox {
    struct mu_list node;
    struct mu_sandbox_driver *d;
    const struct mu_sandbox_events *events;
    void *arg;
    char id[MU_BOX_ID_MAX + 1];
    enum mu_ns_phase phase;
    bool detached;  /* nobody wants to hear of it */
    int64_t range;  /* first id; 0 = none */
    int session_fd; /* -1 = there is no folder */

    struct mu_ns_prepare *prepare; /* runs on the pool */
    unsigned handles;              /* open libuv handles */
    int ctl_fd, exit_fd, log_fd;
    pid_t keeper; /* our child, to be reaped; 0 = it is not, or was */
    uv_poll_t ctl, exit;
    struct mu_post post; /* goes on with the log; tells the end */
    bool posted;
    bool removing; /* remove_job has it */
    struct mu_job remove_job;
    void (*removed)(void *arg);
    void *removed_arg;
    int64_t log_offset, log_size;
    struct mu_broker_session *broker;

    void (*frozen)(void *arg, int result); /* the answer that is awaited */
    void *frozen_arg;
    bool stop_asked, stop_graceful;
    char stop_reason[40];
    int64_t grace_ms;
    struct mu_end end; /* what ended() tells */
};

/* --- namespace.c --- */
void mu_ns_end(struct mu_sandbox *s, const struct mu_end *end);
/* Nobody wants to hear of it any more. */
void mu_ns_let_go(struct mu_sandbox *s);
/* Frees it when it was let go and nothing of it is under way. */
void mu_ns_try_free(struct mu_sandbox *s);

/* --- namespace_prepare.c: start and adoption up to a connected control socket --- */
struct mu_ns_prepare {
    struct mu_job job;
    struct mu_sandbox *s;
    bool adopt;
    int64_t rung;
    struct mu_buf spec; /* the file `spec`; empty when adopting */
    char *prompt, *policy;
    size_t prompt_len;
    /* results */
    int result;
    struct mu_err err;
    int session_fd, ctl_fd, log_fd;
    pid_t keeper;
    int64_t range;
    bool ended; /* adopt: `end` is there */
    struct mu_end end;
};
/* Fills `spec` from what the task and the settings want. 0, or a negated error with words. */
MU_MUST_USE int mu_ns_spec(struct mu_sandbox_driver *d, const struct mu_sandbox_spec *spec,
                           int64_t rung, struct mu_buf *ret, struct mu_err *err);
void mu_ns_prepare_run(struct mu_job *job);
/* What the pool looks up once: control groups, ranges in use. */
void mu_ns_probe(struct mu_sandbox_driver *d);
/* A range nobody on this host uses now, held by the socket *ret_fd; 0 = all are taken. */
int64_t mu_ns_take_range(struct mu_sandbox_driver *d, int *ret_fd);
void mu_ns_give_range(struct mu_sandbox_driver *d, int64_t range);

/* --- namespace_files.c --- */
void mu_ns_read_file(struct mu_sandbox *s, const char *path, size_t max,
                     void (*done)(void *arg, int result, mu_bytes bytes), void *arg);

/* --- namespace_remove.c --- */
void mu_ns_release(struct mu_sandbox *s, void (*done)(void *arg), void *arg);
void mu_ns_sweep(struct mu_sandbox_driver *d, const char *const *keep, size_t n_keep,
                 void (*done)(void *arg, size_t removed), void *arg);

/* --- namespace_check.c --- */
int mu_ns_check(struct mu_sandbox_driver *d,
                void (*done)(void *arg, const struct mu_sandbox_report *report), void *arg);
int mu_ns_start_as(struct mu_sandbox_driver *d, const struct mu_sandbox_spec *spec, int64_t rung,
                   const struct mu_sandbox_events *events, void *arg, struct mu_sandbox **ret);

#endif
