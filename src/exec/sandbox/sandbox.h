/* Sandboxes: one table of functions a kind of back end (namespace, docker, direct, command). A
 * sandbox executes one attempt of a task: it is made from a spec, tells its output while it runs,
 * ends exactly once, gives its files, and is released without a trace. All calls and callbacks on
 * one loop; nothing blocks it. Specification: sandbox.md, oz-worker.md 8-11. */
#ifndef MU_EXEC_SANDBOX_SANDBOX_H
#define MU_EXEC_SANDBOX_SANDBOX_H

#include "base/bytes.h"
#include "io/loop.h"

enum mu_sandbox_network { MU_NET_PROXY, MU_NET_NONE, MU_NET_HOST };

/* A folder or volume mounted besides the standard tree. */
struct mu_sandbox_mount {
    const char *source; /* docker: an image when `image`, else a host path */
    const char *target; /* absolute */
    bool writable, image;
};

/* A checked-out base (exec/git/base.h): the workspace is an overlay over `tree`. */
struct mu_sandbox_checkout {
    const char *tree;    /* immutable checked-out folder; NULL = an empty workspace */
    const char *subdir;  /* "" = /workspace itself, else /workspace/<subdir> */
    const char *objects; /* the mirror's objects folder, mounted at /run/muster/git/<index> */
};

struct mu_sandbox_spec {
    const char *execution_id; /* names everything: [A-Za-z0-9_-]{1,64} */
    const char *task_id;
    int64_t epoch;
    const char *image;         /* docker: the task image */
    const char *sidecar_image; /* docker: "builtin", NULL or an image */
    const char *const *env;    /* "NAME=value", sorted, NULL-terminated (oz-worker.md 8.1, 8.4) */
    const char *const *argv;   /* what follows /agent/entrypoint.sh (8.2), NULL-terminated */
    mu_bytes prompt;           /* put at /workspace/.oz/prompt.txt before start; ptr NULL = none */
    mu_bytes task_json;        /* command: the `task` object of its stdin document; else unused */
    const struct mu_sandbox_mount *mounts;
    size_t n_mounts;
    const struct mu_sandbox_checkout *checkouts;
    size_t n_checkouts;
    /* limits; 0 = the driver's default */
    int64_t memory_bytes, pids, disk_bytes, shm_bytes, log_bytes;
    double cpus;
    int64_t timeout_ms;    /* from start; then stopped with failure task_timeout */
    int64_t stop_grace_ms; /* TERM, so much later KILL */
    /* namespace only */
    enum mu_sandbox_network network;
    const char *base; /* NULL = the host's /usr */
    bool fake_root, nested;
    const char *broker_policy; /* the environment's network.allow (exec/broker); NULL = nothing */
};

struct mu_sandbox_result {
    int exit_code; /* 128 + signal for signals; -1 = never observed */
    bool oom;
    const char *failure_reason; /* word of oz-worker.md 3.5; NULL = the program ended by itself */
    const char *message;        /* sentence for people; NULL with a NULL reason */
    int64_t cpu_ms, peak_bytes; /* 0 = not known */
};

/* All optional but ended(). Never called from inside a call of ours. */
struct mu_sandbox_events {
    /* "preparing" (images, folders), "starting", "running"; detail may be NULL. */
    void (*state)(void *arg, const char *state, const char *detail);
    /* Output of PID 1 in order, both streams joined: bytes [offset, offset + len). After adopt()
     * it begins again at the offset asked for. At most log_bytes in all, then silence. */
    void (*log)(void *arg, int64_t offset, mu_bytes bytes);
    /* Exactly once: no process of it is left. Its files are still there until release(). */
    void (*ended)(void *arg, const struct mu_sandbox_result *result);
};

/* One line of what protects, for `muster doctor` and hello.sandbox (sandbox.md 3). */
struct mu_sandbox_layer {
    char name[16]; /* "user ns", "seccomp" … */
    bool active;
    char detail[96];           /* what exactly */
    char cause[96], cure[128]; /* when not active */
};
enum { MU_SANDBOX_LAYERS = 24 };
struct mu_sandbox_report {
    char kind[16];     /* "namespace" */
    char strength[32]; /* "full", "full (through bwrap)", "full (root worker)", "weak", "none",
                          "unavailable" */
    char summary[160]; /* one line: version, time of a start; or why it is unavailable */
    bool usable;       /* a task may be started with the settings as they are */
    bool checkouts;    /* spec.checkouts is honoured; else the runner clones */
    struct mu_sandbox_layer layers[MU_SANDBOX_LAYERS];
    size_t n_layers;
};

/* Settings of all kinds, as configured (docs: sandbox.md 11, oz-worker.md 7). Texts outlive the
 * driver. */
struct mu_sandbox_settings {
    const struct mu_env *env;
    const char *state_dir;  /* sessions lie below it, 0700 */
    const char *bundle_dir; /* the /agent tree: entrypoint.sh, bin/muster (static) */
    const char *worker_id;
    bool keep; /* --no-cleanup */
    /* namespace */
    const char *minimum;                     /* "full" or "landlock" */
    const char *base, *extra_ro, *extra_etc; /* OZ_SANDBOX_BASE, _RO, _ETC; NULL = none */
    const char *const *harness_paths;        /* name, absolute path, …, NULL: programs bound at
                                                /opt/harness/<name> */
    bool allow_nested, allow_host_network;
    struct mu_broker *broker; /* the way out of MU_NET_PROXY; NULL = there is none. Outlives the
                                 driver. */
    int64_t memory_bytes, pids, disk_bytes, shm_bytes;
    double cpus;
    /* docker */
    const char *docker_host, *pull /* missing, always, never */, *task_network;
    const char *const *volumes; /* HOST:CONTAINER[:MODE], NULL-terminated */
    bool secret_files;
    /* direct, command */
    const char *workspace_root, *target_dir, *oz_path, *setup_command, *teardown_command;
    const char *dispatch_command, *cancel_command;
    int64_t dispatch_timeout_ms;
    const char *const *environment; /* extra variables, "NAME=value", NULL-terminated */
    bool allow_direct;              /* ALLOW_UNSAFE_PROCESS_DRIVER */
};

struct mu_sandbox_driver;
struct mu_sandbox;

struct mu_sandbox_ops {
    const char *name;
    /* Worded errors (bad setting). Does not look at the machine yet. */
    int (*open)(struct mu_loop *loop, const struct mu_sandbox_settings *settings,
                struct mu_sandbox_driver **ret, struct mu_err *err);
    /* When no sandbox of it is left in memory (running ones may live on outside: release is not
     * implied). Returns NULL. */
    struct mu_sandbox_driver *(*close)(struct mu_sandbox_driver *d);
    /* Finds out by doing it once what really works here; done() later. One at a time. */
    int (*check)(struct mu_sandbox_driver *d,
                 void (*done)(void *arg, const struct mu_sandbox_report *report), void *arg);
    /* The spec is copied. Failures after the return are told by ended(). -ENOMEM. */
    int (*start)(struct mu_sandbox_driver *d, const struct mu_sandbox_spec *spec,
                 const struct mu_sandbox_events *events, void *arg, struct mu_sandbox **ret);
    /* After a restart of the worker: takes over what start() of an earlier process began, running
     * or ended; log() goes on at `log_offset`. ended() with reason "unknown" and a message when
     * nothing is left of it. */
    int (*adopt)(struct mu_sandbox_driver *d, const char *execution_id, int64_t log_offset,
                 const struct mu_sandbox_events *events, void *arg, struct mu_sandbox **ret);
    /* Begins to stop it; ended() follows. graceful: TERM first, KILL after stop_grace_ms. `reason`
     * is the failure_reason that the result shall carry (literal). Again with graceful = false:
     * now. */
    void (*stop)(struct mu_sandbox *s, bool graceful, const char *reason);
    /* Everything in it stands still, or goes on; while it runs. done() may come inside: 0, -errno,
     * MU_E_UNAVAILABLE (it does not run, or another one is under way). NULL: this kind cannot. A
     * stop lets it go on first. Not called when the sandbox ends or is let go before. */
    void (*freeze)(struct mu_sandbox *s, bool on, void (*done)(void *arg, int result), void *arg);
    /* A regular file of its workspace ("/workspace/.oz/result.json"), at most `max` bytes, safely
     * (never through a link, never blocking). After ended() or while it runs. done(): `result` 0,
     * MU_E_NOT_FOUND, MU_E_TOO_LARGE (the first `max` bytes are there), MU_E_INVALID (not a
     * regular file, a link, …), -errno; bytes valid inside. */
    void (*read_file)(struct mu_sandbox *s, const char *path, size_t max,
                      void (*done)(void *arg, int result, mu_bytes bytes), void *arg);
    /* After ended(): removes everything it left (folder, container, volume, cgroup); then done().
     * The sandbox is gone at the call. With settings.keep the files stay. */
    void (*release)(struct mu_sandbox *s, void (*done)(void *arg), void *arg);
    /* Forgets without stopping: the worker ends, the sandbox lives on and is adopted later. */
    void (*detach)(struct mu_sandbox *s);
    /* Removes what earlier processes of this worker left and nobody adopted: everything of this
     * worker_id but the executions named. Then done() with the number removed. */
    void (*sweep)(struct mu_sandbox_driver *d, const char *const *keep, size_t n_keep,
                  void (*done)(void *arg, size_t removed), void *arg);
};

extern const struct mu_sandbox_ops mu_sandbox_namespace, mu_sandbox_docker, mu_sandbox_direct,
    mu_sandbox_command;

#endif
