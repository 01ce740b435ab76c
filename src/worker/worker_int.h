/* Shared by the files of the worker only: its root and the objects below it. */
#ifndef MU_WORKER_WORKER_INT_H
#define MU_WORKER_WORKER_INT_H

#include "base/map.h"
#include "base/metrics.h"
#include "exec/broker/broker.h"
#include "exec/git/checkout.h"
#include "net/fetch.h"
#include "net/http.h"
#include "net/ws.h"
#include "worker/backoff.h"
#include "worker/kept.h"
#include "worker/store.h"
#include "worker/wire.h"
#include "worker/worker.h"

enum {
    MU_WORKER_MAX_KINDS = 4,
    MU_WORKER_MAX_TASKS = 1024, /* with capacity 0 */
    MU_WORKER_MAX_DISPATCHED = 1024,
    MU_WORKER_MAX_ENDS = 4096, /* unacknowledged ends */
    MU_WORKER_MAX_FILES = 64,  /* of one task */
    MU_WORKER_MAX_REPOS = 8,
};

struct mu_backend {
    const struct mu_sandbox_ops *ops;
    struct mu_sandbox_driver *driver;
    struct mu_sandbox_report report;
    struct mu_worker *w;
    bool checked;
};

/* --- tasks --- */

enum mu_attempt_state {
    MU_ATTEMPT_PREPARING,  /* its prompt is fetched, its checkouts are made */
    MU_ATTEMPT_STARTED,    /* its driver has it */
    MU_ATTEMPT_COLLECTING, /* it has ended: results are read and uploaded */
    MU_ATTEMPT_STORING,    /* its end goes into the journal */
    MU_ATTEMPT_RELEASING,
    MU_ATTEMPT_DISPATCHED, /* somebody else runs it; kept so that it can be cancelled */
    MU_ATTEMPT_OVER
};

struct mu_attempt_file {
    char name[129], path[512], media_type[128];
};

struct mu_collect {
    size_t step;
    struct mu_buf output, artifacts; /* artifacts: the items of a JSON array */
    size_t n_artifacts;
    char *session_link;
    char phase[16];
    char message[256]; /* why it did not end well, in its own words */
    struct mu_attempt_file *files;
    size_t n_files, at_file, failed_files;
    unsigned tries;
    struct mu_fetch *upload;
};

struct mu_repo {
    struct mu_attempt *t;
    const char *url, *ref, *name; /* of the attempt's arena */
    struct mu_checkout *held;     /* from the start of a checkout until the sandbox is gone */
    struct mu_checkout_view view;
    bool pending;
};
struct mu_checkouts {
    struct mu_repo repos[MU_WORKER_MAX_REPOS];
    size_t n, pending;
    bool starting;
    char why[400]; /* the first that failed */
};

struct mu_relay;
struct mu_puts;
struct mu_fetching;

struct mu_attempt {
    struct mu_list link; /* in mu_worker.tasks */
    struct mu_worker *w;
    enum mu_attempt_state state;
    char task_id[MU_WIRE_MAX_TASK_ID + 1], execution_id[MU_WIRE_MAX_EXECUTION_ID + 1];
    int64_t epoch, seq, acked_seq, claim_seq;
    int64_t told_seq;  /* of the last task_state; the end's own number is another one */
    char *token;       /* of its session, or NULL */
    char link_key[65]; /* its runner's; "" = it speaks with nobody */
    struct mu_relay *relay;
    struct mu_backend *backend;
    struct mu_sandbox *sandbox;
    char told[16];  /* the last task_state: "preparing" … */
    bool cancelled; /* by the server */
    bool muted;     /* another attempt took its place: its end is nobody's business */
    bool dispatched, adopted;
    bool held;               /* the server has confirmed that it runs: lease.c */
    const char *stop_reason; /* literal; why we stop it, NULL = we do not */
    bool stop_graceful;

    /* until it is started */
    struct mu_arena arena;
    struct mu_wire_assignment as;
    mu_bytes prompt;
    struct mu_fetch *prompt_fetch; /* also of what it is restored from */
    struct mu_fetching *fetching;  /* that */
    bool has_folder;               /* its socket's, while there is no relay that has it */
    bool restores;                 /* it is there */
    struct mu_checkouts checkouts;
    struct mu_buf fetched;

    int64_t since_ms;   /* wall clock of its assignment */
    int64_t started_at; /* loop time */
    int64_t lease_ms;   /* 0 = none: the server is not a native one */
    struct mu_clip log;
    int64_t log_sent;     /* what went to the server, or was left out */
    struct mu_buf unsent; /* log bytes that are gathered before they are sent */
    struct mu_timer log_timer, retry;
    int exit_code;
    bool oom;
    char failure_reason[32], message[480];
    int64_t cpu_ms, peak_bytes;
    struct mu_collect collect;
};

/* The end of an attempt that the server has not acknowledged. */
struct mu_end {
    struct mu_list link; /* in mu_worker.ends */
    char execution_id[MU_WIRE_MAX_EXECUTION_ID + 1];
    int64_t seq;
    char *text; /* when it could not be put into the journal */
    size_t text_len;
    bool sent; /* on this connection */
    bool gone; /* acknowledged while it was being read */
};

/* --- the link --- */

enum mu_uplink_state {
    MU_UPLINK_DOWN,
    MU_UPLINK_DIALING,
    MU_UPLINK_GREETING, /* hello is sent, no welcome yet */
    MU_UPLINK_PLAIN,
    MU_UPLINK_NATIVE,
};

/* The credential on its way to the disk. */
struct mu_credential_file {
    struct mu_job job;
    struct mu_worker *w;
    bool busy, again; /* again: it changed meanwhile */
    int result;
    char text[512]; /* "" = there shall be none */
};

struct mu_uplink {
    enum mu_uplink_state state;
    struct mu_ws *ws;
    struct mu_ws_dial *dial;
    char *url;
    char credential[512]; /* what an enrolment gave; "" = the configured key */
    struct mu_credential_file file;
    struct mu_timer retry, greet, beat, confirm;
    struct mu_backoff backoff;
    struct mu_breaker breaker;
    struct mu_buf in; /* of the message that arrives */
    bool in_over;
    int64_t opened_ms, heartbeat_ms, heartbeats;
    char runner_id[64];
    char reading[MU_WIRE_MAX_EXECUTION_ID + 1]; /* the end that is being read, or "" */
    bool closing, credential_refused;
    bool pinged; /* plain: behind the last end that was sent … */
    int64_t pinged_ms;
};

struct mu_worker_metrics {
    struct mu_metric *connected, *active, *max, *claimed, *rejected, *completed[4], *duration[4],
        *dial_failed, *remote_close;
    struct mu_worker_failures *failures; /* health.c */
    struct mu_metrics *all;
};
enum { MU_RESULT_SUCCEEDED, MU_RESULT_FAILED, MU_RESULT_CANCELLED, MU_RESULT_DISPATCHED };

enum mu_worker_phase {
    MU_PHASE_STARTING, /* checks, adoption */
    MU_PHASE_SERVING,
    MU_PHASE_DRAINING, /* no new work */
    MU_PHASE_STOPPING, /* what runs is stopped or left */
    MU_PHASE_LEAVING   /* the last messages go out */
};

/* Everything a worker consists of. */
struct mu_worker {
    const struct mu_env *env;
    const struct mu_worker_conf *conf;
    struct mu_sandbox_settings settings;
    struct mu_loop *loop;
    struct mu_worker_metrics m;
    struct mu_jstore *store;
    struct mu_work *work;
    struct mu_fetcher *fetcher; /* these are made by the first that needs them */
    struct mu_git_cache *git;
    struct mu_broker *broker; /* the way out of sandboxes */
    struct mu_backend backends[MU_WORKER_MAX_KINDS];
    size_t n_backends, unchecked, sweeping;
    void (*after)(struct mu_worker *w); /* the checks, or the sweep */
    struct mu_uplink link;
    struct mu_list tasks, ends;
    struct mu_list questions; /* about repositories: skills.c */
    size_t n_questions;
    size_t n_tasks, n_ends; /* n_tasks: those that take a slot */
    struct mu_http_server *http;
    char instance[33], hostname[65];
    int lock_fd;
    enum mu_worker_phase phase;
    bool server_drains; /* told by a command */
    bool only_checks;   /* somebody asks what protects: nothing is logged */
    bool leave_running; /* what runs is left to the next start */
    bool settling, settle_again;
    bool git_stopping; /* was told to, and has not yet */
    struct mu_timer phase_timer, leave_timer, check_timer, trim_timer, lease_timer;
    int64_t heard_ms; /* loop time of the last byte from the server, as far as lease.c looked */
    int64_t asked_ms; /* of lease.c's last ping */
    struct mu_post begin;
    int signals, exit_code;
};

/* worker.c */
void mu_worker_advance(struct mu_worker *w); /* after anything that may let a phase end */
void mu_worker_give_up(struct mu_worker *w, int exit_code);
struct mu_fetcher *mu_worker_fetcher(struct mu_worker *w);
struct mu_work *mu_worker_work(struct mu_worker *w); /* for digests and files; NULL = no memory */
/* trim.c */
void mu_worker_trim_init(struct mu_worker *w);
void mu_worker_trim_soon(struct mu_worker *w); /* when it has become idle */
/* drain.c */
int mu_worker_watch_signals(struct mu_worker *w);
void mu_worker_drain(struct mu_worker *w, const char *reason);
/* The server has deregistered it: what runs is ended, nobody hears of it, and so it ends. */
void mu_worker_dismissed(struct mu_worker *w);
/* backends.c */
int mu_backends_open(struct mu_worker *w, struct mu_err *err);
void mu_backends_close(struct mu_worker *w);
/* A check or a sweep is under way: not to be closed now. */
bool mu_backends_busy(const struct mu_worker *w);
void mu_backends_check(struct mu_worker *w, void (*done)(struct mu_worker *w));
struct mu_backend *mu_backends_choose(struct mu_worker *w, const struct mu_wire_assignment *as,
                                      char *ret_why, size_t size);
struct mu_backend *mu_backends_find(struct mu_worker *w, mu_bytes kind);
bool mu_backends_usable(const struct mu_worker *w);
void mu_backends_sweep(struct mu_worker *w, void (*done)(struct mu_worker *w));
/* policy.c: what a task may ask of a sandbox */
/* Whether a kind of sandbox can do all of it; else the words of what it cannot. */
bool mu_policy_fits(const struct mu_backend *b, const struct mu_wire_assignment *as, char *ret_why,
                    size_t size);
/* What this worker can do, for the hello: items of an open array. */
void mu_policy_features(const struct mu_worker *w, struct mu_json_w *jw);
/* Never more than the worker's own settings. */
void mu_policy_fill(struct mu_attempt *t, struct mu_sandbox_spec *spec);
/* slots.c */
void mu_slots_assign(struct mu_worker *w, struct mu_arena *arena, yyjson_val *data);
void mu_slots_cancel(struct mu_worker *w, yyjson_val *data);
struct mu_attempt *mu_slots_find(struct mu_worker *w, mu_bytes task_id, mu_bytes execution_id);
/* task.c */
void mu_attempt_begin(struct mu_attempt *t);
void mu_attempt_stop(struct mu_attempt *t, bool graceful, const char *reason);
void mu_attempt_detach(struct mu_attempt *t);
void mu_attempt_tell_state(struct mu_attempt *t, const char *state, const char *detail);
void mu_attempt_record(struct mu_attempt *t);
void mu_attempt_fail(struct mu_attempt *t, const char *reason, const char *fmt, ...)
    MU_PRINTF(3, 4);
void mu_attempt_collected(struct mu_attempt *t);
extern const struct mu_sandbox_events mu_attempt_events;
struct mu_wire_ids mu_attempt_ids(const struct mu_attempt *t, int64_t seq);
void mu_attempt_flush_log(struct mu_attempt *t);
struct mu_attempt *mu_attempt_new(struct mu_worker *w);
struct mu_attempt *mu_attempt_free(struct mu_attempt *t);
/* prepare.c: prompt and checkouts; mu_attempt_start() or mu_attempt_fail() follows */
void mu_attempt_prepare(struct mu_attempt *t);
void mu_attempt_start(struct mu_attempt *t);
/* restore.c: what a session that goes on elsewhere begins with, below the folder of its socket;
 * mu_checkouts_run(), mu_attempt_start() or mu_attempt_fail() follows */
void mu_restore_run(struct mu_attempt *t);
struct mu_fetching *mu_restore_free(struct mu_fetching *f);
/* checkout.c: mu_attempt_start() or mu_attempt_fail() follows */
struct mu_git_cache *mu_worker_git(struct mu_worker *w);
/* Git's "user:password" for a URL, or NULL in *ret, from variables as an assignment has them: a
 * token of GitHub, for github.com and nothing else. -ENOMEM. */
MU_MUST_USE int mu_worker_credential(struct mu_arena *a, yyjson_val *env_vars, const char *url,
                                     const char **ret);
void mu_checkouts_run(struct mu_attempt *t);
void mu_checkouts_abort(struct mu_attempt *t);
size_t mu_checkouts_fill(const struct mu_attempt *t, struct mu_sandbox_checkout *dst);
void mu_checkouts_record(const struct mu_attempt *t, struct mu_json_w *w);
void mu_checkouts_adopt(struct mu_attempt *t, yyjson_val *trees);
void mu_checkouts_release(struct mu_attempt *t);
/* lease.c */
void mu_lease_init(struct mu_worker *w);
void mu_lease_watch(struct mu_worker *w);  /* an attempt has come */
void mu_lease_acked(struct mu_attempt *t); /* acked_seq has grown */
/* skills.c: the command of that name */
void mu_skills_command(struct mu_worker *w, mu_bytes id, yyjson_val *data);
/* relay.c: what the runners of live sessions say and are told (docs/runner-protocol.md) */
/* Where its runner finds it: makes the folder and the key, and listens. -errno, -ENOMEM. */
MU_MUST_USE int mu_relay_open(struct mu_attempt *t);
/* Inside the sandbox, and the folder outside. In the attempt's arena. */
const char *mu_relay_path(struct mu_attempt *t);
const char *mu_relay_folder(struct mu_attempt *t);
/* With the folder (`remove`), or as it was: its runner goes on. Returns NULL. */
struct mu_relay *mu_relay_close(struct mu_relay *r, bool remove);
void mu_relay_message(struct mu_worker *w, yyjson_val *data); /* `runner` of the server */
void mu_relay_down(struct mu_worker *w);                      /* the link is gone */
void mu_relay_sweep(struct mu_worker *w); /* start-up: folders of attempts that are not there */
/* The folder, where there is no relay. */
void mu_relay_remove(struct mu_attempt *t);
/* To the runner itself, if it is there. */
void mu_relay_put_answer(struct mu_relay *r, mu_bytes json);
/* Where its runner finds what it is restored from. In the attempt's arena. */
const char *mu_relay_restore(struct mu_attempt *t);
/* ask.c: a request to the server, with one of the attempt's tokens; `media_type` of the body, NULL
 * = there is none. All of `req` but url, headers and connect_ms is the caller's. As start() of a
 * fetcher. */
MU_MUST_USE int mu_attempt_ask(struct mu_attempt *t, mu_bytes path, mu_bytes token,
                               const char *media_type, struct mu_fetch_request req,
                               struct mu_fetch **ret);
/* puts.c: files that a runner wants stored while it runs (docs/runner-protocol.md) */
struct mu_puts *mu_puts_new(struct mu_attempt *t);
/* What is under way is given up. Returns NULL. */
struct mu_puts *mu_puts_free(struct mu_puts *p);
/* A question of the runner. MU_E_PROTOCOL, -ENOMEM. */
MU_MUST_USE int mu_puts_take(struct mu_puts *p, yyjson_val *m);
/* The commands pause and resume; false: neither. */
bool mu_relay_command(struct mu_worker *w, mu_bytes name, mu_bytes id, yyjson_val *data);
/* adopt.c */
int mu_adopt_load(struct mu_worker *w, struct mu_journal *j, struct mu_err *err);
void mu_adopt_run(struct mu_worker *w);
/* collect.c, upload.c: mu_attempt_collected() follows */
void mu_collect_run(struct mu_attempt *t);
void mu_collect_files(struct mu_attempt *t);
void mu_collect_fini(struct mu_collect *c);
/* One file of the attempt to the server; done() as of a fetch. */
struct mu_upload {
    const char *name, *media_type;
    mu_bytes content; /* copied */
    void (*done)(void *arg, const struct mu_fetch_result *result);
    void *arg;
};
MU_MUST_USE int mu_upload_start(struct mu_attempt *t, const struct mu_upload *up,
                                struct mu_fetch **ret);
/* ends.c */
struct mu_end *mu_ends_add(struct mu_worker *w, const char *execution_id, int64_t seq);
void mu_ends_pump(struct mu_worker *w);
void mu_ends_unsent(struct mu_worker *w); /* the connection is gone */
void mu_ends_acked(struct mu_worker *w, mu_bytes execution_id, int64_t seq);
void mu_ends_confirmed(struct mu_worker *w); /* plain: all that were sent have arrived */
struct mu_end *mu_ends_find(struct mu_worker *w, mu_bytes execution_id);
void mu_ends_free(struct mu_worker *w);
/* credential.c */
void mu_credential_load(struct mu_worker *w);
void mu_credential_keep(struct mu_worker *w, mu_bytes credential);
void mu_credential_forget(struct mu_worker *w); /* revoked for good */
void mu_credential_settle(struct mu_worker *w); /* behind the end of the pool: all is written */
/* link.c */
int mu_uplink_init(struct mu_worker *w);
void mu_uplink_start(struct mu_worker *w);
void mu_uplink_close(struct mu_worker *w); /* for good */
void mu_uplink_fini(struct mu_worker *w);
bool mu_uplink_up(const struct mu_worker *w);
bool mu_uplink_native(const struct mu_worker *w);
/* Dropped when the link is not up. */
void mu_uplink_send(struct mu_worker *w, const struct mu_buf *text);
/* Behind the end of an attempt: finds out on a plain server when it has arrived. */
void mu_uplink_watch_arrival(struct mu_worker *w);
/* link_up.c: what is said on a new connection, and what arrives */
void mu_uplink_hello(struct mu_worker *w);
void mu_uplink_ready(struct mu_worker *w); /* native or plain from now on */
void mu_uplink_message(struct mu_worker *w, mu_bytes text);
void mu_uplink_beat(struct mu_worker *w);
/* health.c */
int mu_health_metrics(struct mu_worker *w);
int mu_health_listen(struct mu_worker *w, struct mu_err *err);
void mu_health_ended(struct mu_worker *w, int result, int64_t duration_ms);
void mu_health_failure(struct mu_worker *w);                        /* of an assignment */
void mu_health_failure_of(struct mu_worker *w, const char *reason); /* of a task */

#endif
