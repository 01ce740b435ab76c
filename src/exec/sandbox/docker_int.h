/* Shared by the files of the docker driver. One box = one sandbox = one container. */
#ifndef MU_EXEC_SANDBOX_DOCKER_INT_H
#define MU_EXEC_SANDBOX_DOCKER_INT_H

#include "base/arena.h"
#include "base/buf.h"
#include "exec/engine/demux.h"
#include "exec/engine/engine.h"
#include "exec/engine/pull.h"
#include "exec/sandbox/sandbox.h"
#include "proto/json.h"

enum {
    MU_DOCKER_ID = 80,    /* of a container, with its NUL */
    MU_DOCKER_NAME = 160, /* of a container or volume */
    MU_DOCKER_TEXT = 480,
    MU_DOCKER_VOLUMES = 256, /* that are remembered */
    MU_DOCKER_MAX_SIDECARS = 9,
    MU_DOCKER_ANSWER = 2 << 20, /* of an inspection */
    MU_DOCKER_SPEC = 64 << 20,  /* a copied spec at most */
};
/* Retries while the engine is away; how long before a running task is given up. */
enum { MU_DOCKER_RETRY_MS = 250, MU_DOCKER_RETRY_MAX_MS = 5000, MU_DOCKER_AWAY_MS = 120000 };

struct mu_docker;
struct mu_docker_box;

/* --- an image that is to be there (docker_image.c) --- */

struct mu_docker_image {
    struct mu_docker *d;
    struct mu_engine_call *call;
    char ref[512];
    char id[MU_DOCKER_NAME]; /* digest of the repository, else the image's own */
    char user[64];           /* the image's, "" = root */
    bool pulled;             /* or tried to */
    bool with_auth;          /* the registry's entry of Docker's configuration is used */
    bool working;
    struct mu_docker_auth *auth; /* the entry is being looked for */
    struct mu_pull pull;
    char error[MU_DOCKER_TEXT];
    void (*progress)(void *arg, const char *text); /* may be NULL */
    /* 0 = the image is there; else `error` says why not. */
    void (*done)(void *arg, int result);
    void *arg;
};
MU_MUST_USE int mu_docker_image_start_(struct mu_docker_image *im, const char *ref);
void mu_docker_image_stop_(struct mu_docker_image *im);
/* "host/name:tag@digest" → what comes before tag or digest, and that (or "latest"). */
void mu_docker_ref_split(mu_bytes ref, mu_bytes *ret_name, mu_bytes *ret_tag);
/* The registry's host; empty = Docker's own. */
mu_bytes mu_docker_ref_host(mu_bytes name);

/* --- credentials (docker_auth.c) --- */

struct mu_docker_auth;
/* Looks in Docker's configuration file for the image's registry; done() gets an
 * "X-Registry-Auth: …\r\n" line, or NULL. */
MU_MUST_USE int mu_docker_auth_start_(struct mu_docker *d, mu_bytes image,
                                      void (*done)(void *arg, const char *header), void *arg,
                                      struct mu_docker_auth **ret);
void mu_docker_auth_stop_(struct mu_docker_auth *a);
/* Pure: the line out of the file's text. -ENOMEM, MU_E_NOT_FOUND, MU_E_INVALID. */
MU_MUST_USE int mu_docker_auth_header(mu_bytes config, mu_bytes image, struct mu_buf *dst);

/* --- volumes with a file system for /agent and the like (docker_volume.c) --- */

struct mu_docker_want {
    struct mu_list link; /* in the volume's list */
    struct mu_docker_volume *volume;
    /* `text` says why not, or what to start in it ("" = nothing). Not from inside get. */
    void (*done)(void *arg, int result, const char *text);
    void *arg;
};
struct mu_docker_volume {
    struct mu_list link;
    struct mu_docker *d;
    char name[MU_DOCKER_NAME];
    char image[512]; /* where it comes from; "" = the bundle */
    char helper_image[512];
    char created[40]; /* as the engine tells it, when it was last seen ready */
    char entry[48];   /* what to start in it, "" = nothing that fits */
    bool ready, busy, filling, filled;
    struct mu_list wants;
    char source[MU_DOCKER_ID], target[MU_DOCKER_ID]; /* helper containers */
    struct mu_engine_call *call, *export;
    size_t sent; /* of the bundle */
    int result;
    char error[MU_DOCKER_TEXT];
    struct mu_timer later;
};
/* `image` NULL = the bundle. `helper` is an image that is there, for a container that is never
 * started. -ENOMEM, MU_E_LIMIT. */
MU_MUST_USE int mu_docker_volume_get_(struct mu_docker *d, const char *name, const char *image,
                                      const char *helper, struct mu_docker_want *want);
void mu_docker_want_stop_(struct mu_docker_want *w);
void mu_docker_volume_free_(struct mu_docker_volume *v);
/* "ubuntu-0123456789ab" */
void mu_docker_volume_name(char dst[MU_DOCKER_NAME], mu_bytes ref, const char *id);

/* --- the installed bundle as an archive (docker_bundle.c) --- */

struct mu_docker_bundle {
    struct mu_docker_bundle_job *job; /* under way */
    struct mu_buf tar;
    char name[MU_DOCKER_NAME]; /* of the volume; "" before it was read */
    struct mu_list waiting;    /* mu_docker_bundle_want */
};
struct mu_docker_bundle_want {
    struct mu_list link;
    void (*done)(void *arg, int result, const char *error);
    void *arg;
};
MU_MUST_USE int mu_docker_bundle_get_(struct mu_docker *d, struct mu_docker_bundle_want *w);
void mu_docker_bundle_fini_(struct mu_docker *d);

/* --- the driver --- */

struct mu_docker {
    struct mu_loop *loop;
    struct mu_sandbox_settings settings;
    struct mu_engine *engine;
    char instance[17]; /* labels our helpers */
    char os[16], arch[16];
    struct mu_list boxes, buried, volumes, removals, reads;
    size_t n_volumes;
    struct mu_docker_bundle bundle;
    struct mu_docker_check *check;
    struct mu_docker_sweep *sweep;
};

/* --- a sandbox --- */

enum mu_docker_phase {
    MU_DOCKER_IMAGE,    /* the task image */
    MU_DOCKER_SIDECARS, /* volumes for /agent and others, one after another */
    MU_DOCKER_CREATE,
    MU_DOCKER_UPLOAD, /* prompt, secrets */
    MU_DOCKER_START,
    MU_DOCKER_ADOPT,   /* looking for what an earlier worker left */
    MU_DOCKER_RUN,     /* started, as far as we know */
    MU_DOCKER_COLLECT, /* the program is over: the rest of its log, how it ended */
    MU_DOCKER_ENDING,  /* ended() comes with the timer */
    MU_DOCKER_ENDED,
};

struct mu_docker_sidecar {
    const char *image; /* NULL = the bundle */
    const char *target;
    bool writable;
    char volume[MU_DOCKER_NAME];
};

struct mu_docker_box {
    struct mu_list link;
    struct mu_docker *d;
    enum mu_docker_phase phase;
    bool gone; /* released or detached: freed in the next turn, as it may be on the stack, … */
    unsigned holds; /* … or when this is 0: a removal that reports to it */
    struct mu_timer bury;
    struct mu_sandbox_events ev;
    void *arg;
    struct mu_arena arena;
    struct mu_sandbox_spec spec; /* texts in the arena; until the container runs */
    char name[MU_DOCKER_NAME], id[MU_DOCKER_ID], execution[72];
    int64_t timeout_ms, grace_ms, log_max;
    /* preparation */
    struct mu_docker_image image;
    struct mu_docker_sidecar sidecars[MU_DOCKER_MAX_SIDECARS];
    size_t n_sidecars, at_sidecar;
    struct mu_docker_want want;
    struct mu_docker_bundle_want bundle_want;
    char entry[48];
    char user[64];   /* of the task image, "" = root */
    bool cleared;    /* a container of this name was in the way, and may be gone */
    bool maybe_made; /* the engine did not tell whether it made the container */
    struct mu_engine_call *call;
    /* run */
    struct mu_engine_call *wait, *logs, *hint, *kill;
    struct mu_timer again, log_again, deadline, escalate, end, peek;
    int64_t running_since, away_since, retry_ms, log_retry_ms;
    struct mu_demux demux;
    int64_t log_at, log_skip; /* delivered so far; of the present stream to be passed over */
    bool log_done, log_clean; /* nothing more is wanted; the stream came to its end */
    bool log_dirty;           /* Podman: there is more than was fetched */
    /* freeze */
    struct mu_engine_call *hold;
    bool holding /* what is asked for */, held;
    void (*frozen)(void *arg, int result);
    void *frozen_arg;
    /* stop */
    bool stopping, graceful;
    const char *stop_reason;
    unsigned blows; /* stop, kill, kill, remove */
    /* end */
    struct mu_docker_shelf *shelf; /* small files that were read already */
    struct mu_sandbox_result result;
    char message[MU_DOCKER_TEXT];
};

/* docker_freeze.c */
void mu_docker_freeze_(struct mu_sandbox *s, bool on, void (*done)(void *arg, int result),
                       void *arg);
/* Before a stop: true = it goes on by itself when the container was let go on. */
bool mu_docker_thaw_(struct mu_docker_box *b);

/* docker_call.c */
/* A call with `req`'s settings to a formatted path. */
MU_MUST_USE int mu_docker_ask_(struct mu_docker *d, const struct mu_engine_request *req,
                               struct mu_engine_call **ret, const char *fmt, ...) MU_PRINTF(4, 5);
/* Reads an answer; NULL when it is none. */
yyjson_val *mu_docker_json_(struct mu_arena *a, mu_bytes body);
/* Percent-encoded, for paths; at most room - 1 bytes. MU_E_TOO_LARGE. */
MU_MUST_USE int mu_docker_escape_(char *dst, size_t room, mu_bytes text);
/* Removes a container (id or name; "" = none), trying again for a while; done() may be NULL. */
MU_MUST_USE int mu_docker_remove_(struct mu_docker *d, const char *id, void (*done)(void *arg),
                                  void *arg);
void mu_docker_removals_fini_(struct mu_docker *d);

/* docker_body.c: pure */
void mu_docker_name(char dst[MU_DOCKER_NAME], const char *task_id, const char *execution_id);
/* The body of containers/create. `volumes`: of the sidecars. */
MU_MUST_USE int mu_docker_body_(const struct mu_docker_box *box, struct mu_buf *dst);
/* Of a helper that is never started; `volume` NULL = none. */
MU_MUST_USE int mu_docker_helper_body_(const struct mu_docker *d, const char *image,
                                       const char *volume, struct mu_buf *dst);
/* What is put into the container before its start, "" when there is nothing. */
MU_MUST_USE int mu_docker_files_(const struct mu_docker_box *box, struct mu_buf *dst);
bool mu_docker_is_secret(const char *variable);
extern const char mu_docker_secret_script[];

/* docker.c */
/* The box is over: ended() comes next turn. The first one counts. */
void mu_docker_end_(struct mu_docker_box *b, int exit_code, const char *reason, const char *fmt,
                    ...) MU_PRINTF(4, 5);
void mu_docker_state_(struct mu_docker_box *b, const char *state, const char *detail);
void mu_docker_maybe_free_(struct mu_docker_box *b);
void mu_docker_drop_calls_(struct mu_docker_box *b);

/* docker_prep.c */
MU_MUST_USE int mu_docker_prepare_(struct mu_docker_box *b);
void mu_docker_prep_stop_(struct mu_docker_box *b); /* before the container runs */

/* docker_run.c */
void mu_docker_run_init_(struct mu_docker_box *b);
/* The container was started; not `certain`: perhaps. */
void mu_docker_run_(struct mu_docker_box *b, bool certain);
void mu_docker_look_(struct mu_docker_box *b); /* phases ADOPT and RUN: how is it? */
void mu_docker_stop_(struct mu_docker_box *b); /* phase RUN: the next blow */

/* docker_log.c */
void mu_docker_log_init_(struct mu_docker_box *b);
void mu_docker_follow_(struct mu_docker_box *b);
/* The container has ended: what is missing of its log, then mu_docker_logged_(). */
void mu_docker_log_rest_(struct mu_docker_box *b);
void mu_docker_logged_(struct mu_docker_box *b); /* docker_run.c */

/* docker_file.c */
void mu_docker_read_file_(struct mu_sandbox *s, const char *path, size_t max,
                          void (*done)(void *arg, int result, mu_bytes bytes), void *arg);
void mu_docker_shelf_unref_(struct mu_docker_shelf *s);
void mu_docker_reads_fini_(struct mu_docker *d);

/* docker_check.c, docker_sweep.c */
int mu_docker_check_(struct mu_sandbox_driver *driver,
                     void (*done)(void *arg, const struct mu_sandbox_report *report), void *arg);
void mu_docker_check_fini_(struct mu_docker *d);
void mu_docker_sweep_(struct mu_sandbox_driver *driver, const char *const *keep, size_t n_keep,
                      void (*done)(void *arg, size_t removed), void *arg);
void mu_docker_sweep_fini_(struct mu_docker *d);

#endif
