/* The messages of the worker link (oz-worker.md 3, 16): reading what servers send, writing what a
 * worker sends. One codec for plain servers (dialects V and W) and the native one. Pure. */
#ifndef MU_WORKER_WIRE_H
#define MU_WORKER_WIRE_H

#include "proto/json.h"

enum mu_wire_type {
    MU_WIRE_UNKNOWN, /* a type that we do not know: ignored */
    MU_WIRE_WELCOME,
    MU_WIRE_ASSIGNMENT,
    MU_WIRE_CANCEL, /* task_cancel, task_cancellation */
    MU_WIRE_ACK,
    MU_WIRE_COMMAND,
    MU_WIRE_RUNNER,
    MU_WIRE_HEARTBEAT,
};

enum {
    MU_WIRE_MAX_MESSAGE = 16 << 20,
    MU_WIRE_MAX_ARENA = 64 << 20,
    MU_WIRE_MAX_TASK_ID = 128,
    MU_WIRE_MAX_EXECUTION_ID = 64,
    MU_WIRE_MAX_PROMPT_ENV = 96 << 10, /* a longer prompt travels by file (8.4) */
    MU_WIRE_MAX_ENV_BYTES = 131000,    /* of one variable: what the kernel takes */
    MU_WIRE_MAX_LOG_CHUNK = 32 << 10,
};

/* The envelope; *ret_data is NULL when there is none. MU_E_INVALID, worded. */
MU_MUST_USE int mu_wire_read(struct mu_arena *a, mu_bytes text, enum mu_wire_type *ret_type,
                             yyjson_val **ret_data, struct mu_err *err);

struct mu_wire_mount {
    mu_bytes image, path;
    bool writable;
};

/* What the task needs of its sandbox. */
enum mu_wire_network { MU_WIRE_NET_ANY, MU_WIRE_NET_PROXY, MU_WIRE_NET_NONE, MU_WIRE_NET_HOST };
struct mu_wire_policy {
    enum mu_wire_network network;
    yyjson_val *allow; /* network.allow: an array of text, or text; NULL = none */
    bool nested, fake_root;
};

struct mu_wire_assignment {
    mu_bytes task_id;      /* valid whenever it is not empty, also after MU_E_INVALID */
    mu_bytes execution_id; /* empty: the server gave none */
    mu_bytes title, image, sidecar, session_token, harness;
    int64_t epoch, lease_ms, deadline_ms; /* 0 = none */
    int64_t vcpus, memory_gb, memory_mb, pids, disk_mb;
    double cpus;
    bool team;
    bool live;    /* its runner speaks the runner protocol */
    bool restore; /* and begins with a checkpoint */
    yyjson_val *task, *snapshot, *env_vars, *args, *secrets;
    struct mu_wire_policy policy;
    struct mu_wire_mount mounts[16];
    size_t n_mounts;
};
/* MU_E_INVALID with words that go into the task_failed. */
MU_MUST_USE int mu_wire_assignment(yyjson_val *data, struct mu_wire_assignment *ret,
                                   struct mu_err *err);
/* [A-Za-z0-9_.-]{1,128}, not "." or ".."; [A-Za-z0-9_-]{1,64}. */
bool mu_wire_task_id_ok(mu_bytes id);
bool mu_wire_execution_id_ok(mu_bytes id);

/* --- what is made of an assignment (8.1, 8.2) --- */
struct mu_wire_about {
    const char *server_root_url, *session_sharing_url, *idle_on_complete;
    const char *const *environment; /* the worker's own variables, "NAME=value" */
    const char *execution_id;
    const char *restore;         /* where the runner finds its checkpoint; NULL = it has none */
    const char *link, *link_key; /* where its runner connects; NULL = it does not */
    bool keep_token;             /* the run token goes along: a foreign runtime reports by itself */
};
/* "NAME=value", later ones won, sorted; *ret_prompt = a prompt that is too long for a variable (it
 * is none then). MU_E_INVALID worded, -ENOMEM. */
MU_MUST_USE int mu_wire_env(struct mu_arena *a, const struct mu_wire_assignment *as,
                            const struct mu_wire_about *about, const char *const **ret,
                            mu_bytes *ret_prompt, struct mu_err *err);
MU_MUST_USE int mu_wire_argv(struct mu_arena *a, const struct mu_wire_assignment *as,
                             const struct mu_wire_about *about, const char *const **ret);
/* A variable of the assignment; ptr NULL = not there. */
mu_bytes mu_wire_var(const struct mu_wire_assignment *as, const char *name);

/* --- what is sent --- */
struct mu_wire_ids {
    mu_bytes task_id, execution_id, worker_id;
    int64_t epoch, seq;
    bool native; /* execution_id, epoch and seq are sent */
};
void mu_wire_claimed(struct mu_buf *dst, const struct mu_wire_ids *ids);
void mu_wire_rejected(struct mu_buf *dst, const struct mu_wire_ids *ids, const char *reason);
void mu_wire_state(struct mu_buf *dst, const struct mu_wire_ids *ids, const char *state,
                   const char *detail);
void mu_wire_log(struct mu_buf *dst, const struct mu_wire_ids *ids, const char *stream,
                 int64_t offset, mu_bytes chunk);
struct mu_wire_skill {
    mu_bytes name, description, path, base_prompt;
};
/* The result of the command "skills". */
void mu_wire_skills_result(struct mu_buf *dst, mu_bytes command_id,
                           const struct mu_wire_skill *skills, size_t n, bool more);
void mu_wire_drain(struct mu_buf *dst, const char *reason);
void mu_wire_command_result(struct mu_buf *dst, mu_bytes command_id, bool ok, const char *code,
                            const char *message);

/* The end of an attempt. */
struct mu_wire_end {
    bool failed; /* task_failed instead of task_completed */
    int exit_code;
    mu_bytes output, artifacts /* JSON array, ptr NULL = none */, session_link;
    const char *message, *failure_reason; /* NULL = none */
    bool cancelled;                       /* task_state */
    int64_t duration_ms, cpu_ms, peak_bytes;
};
/* At most MU_WIRE_MAX_MESSAGE: of output that does not fit the beginning is left out. */
void mu_wire_end(struct mu_buf *dst, const struct mu_wire_ids *ids, const struct mu_wire_end *end);

#endif
