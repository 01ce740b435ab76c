/* libmuster: the control plane of Muster inside another program.
 *
 * Sessions, approvals, events and runners with the semantics of the server (docs/library.md): it is
 * the server's own code, so validation, states, limits and error codes are the same. No socket is
 * opened. Storage is SQLite in a folder, a folder that is gone afterwards, or PostgreSQL.
 *
 * Texts go in and come out with their length and need no NUL; those that come out are valid UTF-8.
 * Every function may be called from any thread unless it says otherwise. Nothing is shared between
 * handles but the log (mu_cp_config.log_fd). */
#ifndef MUSTER_CONTROL_PLANE_H
#define MUSTER_CONTROL_PLANE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MU_CP_API __attribute__((visibility("default")))
#else
#define MU_CP_API
#endif

typedef struct mu_cp mu_cp;
typedef struct mu_cp_runner mu_cp_runner;

/* --- texts --- */

typedef struct mu_cp_str {
    const char *ptr; /* NULL: not given, not there */
    size_t len;
} mu_cp_str;

/* Of a text with a NUL, or NULL. */
static inline mu_cp_str mu_cp_text(const char *text)
{
    mu_cp_str s;
    s.ptr = text;
    s.len = text ? strlen(text) : 0;
    return s;
}

/* --- status: one for each error code of the API --- */

typedef enum mu_cp_status {
    MU_CP_OK = 0,
    MU_CP_VALIDATION_ERROR,
    MU_CP_INVALID_PROVIDER,
    MU_CP_SESSION_LIMIT_EXCEEDED,
    MU_CP_SESSION_NOT_FOUND,
    MU_CP_SESSION_ALREADY_STOPPED,
    MU_CP_INVALID_STATE,
    MU_CP_APPROVAL_NOT_FOUND,
    MU_CP_APPROVAL_ALREADY_RESOLVED,
    MU_CP_RUNNER_NOT_FOUND,
    MU_CP_RUNNER_LIMIT_EXCEEDED,
    MU_CP_RUNNER_HAS_ACTIVE_SESSIONS,
    MU_CP_RUNNER_CONFLICT,
    MU_CP_RUNNER_UNREACHABLE,
    MU_CP_PROVIDER_AUTH_MISSING,
    MU_CP_UNAUTHORIZED,
    MU_CP_FORBIDDEN,
    MU_CP_RATE_LIMITED,
    MU_CP_IDEMPOTENCY_CONFLICT,
    MU_CP_PAYLOAD_TOO_LARGE,
    MU_CP_METHOD_NOT_ALLOWED,
    MU_CP_NOT_FOUND, /* also: no such operation */
    MU_CP_INTERNAL_ERROR,
    MU_CP_UNAVAILABLE,   /* storage or memory just now: try again later */
    MU_CP_SHUTTING_DOWN, /* the handle is being closed */
    MU_CP_CONFLICT,
    MU_CP_PENDING, /* host-driven: the answer needs time to pass (mu_cp_call()) */
    MU_CP_OTHER    /* a code that this header does not know: it is in mu_cp_result.code */
} mu_cp_status;

/* "SESSION_NOT_FOUND"; never NULL. */
MU_CP_API const char *mu_cp_status_name(mu_cp_status status);

/* --- opening --- */

typedef struct mu_cp_config {
    size_t size; /* set by mu_cp_config_init() */

    /* 0: the library has threads of its own; time is `wall_ms` and `mono_ns`, or the system's.
     * 1: the host drives: nothing happens outside mu_cp_tick() and the calls, time is what
     * mu_cp_tick() says, and callbacks run inside the library's functions on the host's thread. */
    int host_driven;
    int64_t
        start_ms; /* host-driven: the time until the first tick, ms since 1970; 0: the system's */

    /* Clock and random source, from any thread; NULL: the system's. Ids are made of both. */
    int64_t (*wall_ms)(void *arg); /* ms since 1970 */
    int64_t (*mono_ns)(void *arg); /* never goes back */
    void (*random)(void *arg, void *dst, size_t len);
    void *seam_arg;

    int log_fd; /* JSON lines for operators; -1 (default): none. One setting for the process. */

    const char *files_dir; /* with PostgreSQL: a folder for recordings and files */
    mu_cp_str key;         /* root of the encryption at rest, at least 32 bytes; NULL:
                              <folder>/encryption.key         is used, and made when it is not there */

    /* What the server's settings of these names say (docs/library.md): default, range. */
    int64_t max_sessions_per_org;     /* 10; 0 (no limit) to 1000000 */
    int64_t default_timeout_minutes;  /* 60; 1 to 10080 */
    int64_t max_timeout_minutes;      /* 120; 1 to 10080 */
    int64_t max_queue_minutes;        /* 60; 1 to 43200 */
    int64_t approval_timeout_minutes; /* 30; 1 to 10080 */
    int64_t session_data_ttl_hours;   /* 24; 1 to 87600; of terminal recordings */
    int64_t retention_hours;          /* 0 (ended sessions are kept) to 87600 */
    int64_t recent_events;            /* 50; 0 to 200 */
    int64_t max_attempts;             /* 3; 1 to 10 */
    int64_t claim_timeout_ms;         /* 30000; 1000 to 600000 */
    int64_t orphan_grace_ms;          /* 120000; 0 to 86400000 */
    int allow_local_repos;            /* 0 */
    int allow_skip_permissions;       /* 0 */
} mu_cp_config;

/* Sets `size` and the defaults. */
MU_CP_API void mu_cp_config_init(mu_cp_config *config);

/* Opens a control plane. `storage`: ":memory:" (a private folder in memory, gone with the handle),
 * a folder (made if it is not there; that of a stopped server may be opened), or "postgres://…".
 * `config` NULL: the defaults. Blocking. MU_CP_VALIDATION_ERROR, MU_CP_UNAVAILABLE; then `err`, if
 * given, gets words, with a NUL. */
MU_CP_API mu_cp_status mu_cp_open(const mu_cp_config *config, const char *storage, mu_cp **ret,
                                  char *err, size_t err_size);

/* Ends everything, commits what was accepted, frees. Runners that are still open are closed first.
 * Callbacks that wait are called before it returns; what they ask of the handle is refused with
 * MU_CP_SHUTTING_DOWN, what they say of a runner with MU_CP_SESSION_NOT_FOUND. Nobody else uses the
 * handle any more; not from a callback. NULL is harmless. */
MU_CP_API void mu_cp_close(mu_cp *cp);

/* --- who acts --- */

typedef enum mu_cp_role {
    MU_CP_VIEWER = 1,
    MU_CP_OPERATOR,
    MU_CP_ORG_ADMIN,
    MU_CP_PLATFORM_ADMIN /* of no org in particular; everything */
} mu_cp_role;

/* The host vouches for whom it names. A NULL caller is the platform's administrator. */
typedef struct mu_cp_caller {
    mu_cp_str org_id;  /* 1 to 39 of [A-Za-z0-9._:-] */
    mu_cp_str user_id; /* at most 64 bytes; shown as who did it */
    mu_cp_role role;
} mu_cp_caller;

/* --- results --- */

typedef struct mu_cp_approval {
    mu_cp_str approval_id, session_id, org_id, action, description, risk, status;
    mu_cp_str decision, scope, reason, resolved_by;  /* once it is resolved */
    mu_cp_str context;                               /* JSON object */
    mu_cp_str requested_at, expires_at, resolved_at; /* ISO 8601 */
} mu_cp_approval;

typedef struct mu_cp_session {
    mu_cp_str session_id, org_id, state, provider_id, repo_url, task_summary, mode;
    mu_cp_str started_at, run_started_at, completed_at, deadline_at;
    mu_cp_str runner_id, runner_name, queue_reason, end_reason, error_message, created_by;
    int64_t duration_seconds, last_event_seq, attempt;
    int has_exit_code;
    int64_t exit_code;
    int64_t tokens_in, tokens_out, api_calls, compute_seconds;
    const mu_cp_approval *pending_approvals;
    size_t n_pending_approvals;
} mu_cp_session;

/* An event of a session's log, or (seq 0) something that streams. */
typedef struct mu_cp_event {
    int64_t seq;          /* 1, 2, 3 … of its subject; 0: it is not in the log */
    mu_cp_str type;       /* "SESSION_STATE_CHANGED", "APPROVAL_REQUESTED", … */
    mu_cp_str subject_id; /* "ses_…"; of MU_CP_ON_RUNNER "rnr_…" */
    int64_t timestamp_ms;
    mu_cp_str actor_type, actor_id; /* ptr NULL: unknown */
    mu_cp_str data;                 /* JSON object; of MU_CP_ON_TERMINAL: the bytes */
    unsigned terminal;              /* MU_CP_ON_TERMINAL: which, and the offset of the first byte */
    int64_t offset;
} mu_cp_event;

/* What an operation came to. Everything in it is valid until mu_cp_result_free(). */
typedef struct mu_cp_result {
    mu_cp_status status;
    int http_status;    /* what the server would have answered with */
    mu_cp_str envelope; /* JSON: {"success", "data"?, "error"?, "meta"} */
    mu_cp_str data;     /* JSON of its member `data`; ptr NULL: none. Of getTerminal: the bytes */
    mu_cp_str code, message, details; /* of an error; details: JSON object */

    /* The data of the typed functions; which one fills what is said there. */
    const mu_cp_session *sessions;
    size_t n_sessions;
    const mu_cp_approval *approvals;
    size_t n_approvals;
    const mu_cp_event *events;
    size_t n_events;
    int64_t total, next_seq, first_seq, last_seq;
    int has_more;
    mu_cp_str next_cursor;
    void *own;
} mu_cp_result;

/* Zeroes it. NULL and a zeroed one are harmless. */
MU_CP_API void mu_cp_result_free(mu_cp_result *result);

/* --- operations in JSON --- */

/* One operation by the name that the API gives it ("createSession", "listSessions", "stopSession",
 * "resolveApproval", …; mu_cp_operation()). `json`: an object with the parameters of the path, of
 * the query and of the body together, by their names; NULL: none. `idempotencyKey` and `requestId`
 * are taken as the headers of these names. The result has the envelope and no typed part.
 *
 * Waits for the answer, which comes after the commit. Host-driven, it turns the loop itself, and
 * when the answer needs time to pass (a runner that does not answer) returns MU_CP_PENDING: the
 * operation goes on and its answer is dropped; mu_cp_submit() hears it. Returns result->status. */
MU_CP_API mu_cp_status mu_cp_call(mu_cp *cp, const mu_cp_caller *caller, const char *op,
                                  mu_cp_str json, mu_cp_result *result);

/* Frees the result. */
typedef void (*mu_cp_done_fn)(mu_cp *cp, mu_cp_result *result, void *user);
/* The same without waiting: `done` runs exactly once, on a thread of the library (host-driven:
 * inside a function of it), also when the handle is closed before. At most 4096 answers are owed at
 * once: then, and without memory, `done` runs at once inside this call with MU_CP_UNAVAILABLE. */
MU_CP_API void mu_cp_submit(mu_cp *cp, const mu_cp_caller *caller, const char *op, mu_cp_str json,
                            mu_cp_done_fn done, void *user);

/* The i-th operation: its name; NULL behind the last. `summary` (may be NULL): one sentence. */
MU_CP_API const char *mu_cp_operation(size_t i, const char **summary);

/* --- operations in C: each is mu_cp_call() with the operation that its comment names first, and
 * reads the data of the answer into the members of the result that it names then. Unset members of
 * a request (ptr NULL, 0) are left to the defaults. Each returns result->status; the host frees the
 * result in any case. --- */

typedef struct mu_cp_create {
    mu_cp_str org_id;      /* NULL: the caller's own ("me") */
    mu_cp_str provider_id; /* "claude_code", "codex", … */
    mu_cp_str repo_url, repo_branch, repo_commit, repo_tag;
    mu_cp_str task; /* NULL: interactive, it waits for prompts */
    mu_cp_str mode; /* "task", "interactive" */
    mu_cp_str model, runner_id;
    int64_t timeout_minutes;
    mu_cp_str options;  /* JSON object: further members of `options` (env, policy, features …) */
    mu_cp_str metadata; /* JSON object of texts */
    mu_cp_str idempotency_key;
} mu_cp_create;
/* createSession: sessions[0] */
MU_CP_API mu_cp_status mu_cp_create_session(mu_cp *cp, const mu_cp_caller *caller,
                                            const mu_cp_create *request, mu_cp_result *result);
/* getSession: sessions[0] with pending_approvals */
MU_CP_API mu_cp_status mu_cp_get_session(mu_cp *cp, const mu_cp_caller *caller,
                                         mu_cp_str session_id, mu_cp_result *result);

typedef struct mu_cp_list {
    mu_cp_str org_id;     /* NULL: the caller's own */
    mu_cp_str state;      /* sessions: "RUNNING" … */
    mu_cp_str status;     /* approvals: "pending" … */
    mu_cp_str session_id; /* approvals: of one session */
    mu_cp_str provider_id;
    int64_t page, page_size;
    mu_cp_str cursor;
} mu_cp_list;
/* listSessions: sessions[], total, has_more, next_cursor. `request` NULL: all of the caller's. */
MU_CP_API mu_cp_status mu_cp_list_sessions(mu_cp *cp, const mu_cp_caller *caller,
                                           const mu_cp_list *request, mu_cp_result *result);
/* stopSession: sessions[0], which is terminal, or STOPPING. */
MU_CP_API mu_cp_status mu_cp_stop_session(mu_cp *cp, const mu_cp_caller *caller,
                                          mu_cp_str session_id, mu_cp_str reason, int graceful,
                                          mu_cp_result *result);
/* pauseSession: its runner stands still. sessions[0] */
MU_CP_API mu_cp_status mu_cp_pause_session(mu_cp *cp, const mu_cp_caller *caller,
                                           mu_cp_str session_id, mu_cp_result *result);
/* resumeSession: it goes on. sessions[0] */
MU_CP_API mu_cp_status mu_cp_resume_session(mu_cp *cp, const mu_cp_caller *caller,
                                            mu_cp_str session_id, mu_cp_result *result);
/* endSession: an interactive session is done. sessions[0] */
MU_CP_API mu_cp_status mu_cp_end_session(mu_cp *cp, const mu_cp_caller *caller,
                                         mu_cp_str session_id, mu_cp_result *result);
/* sendInput: types into a terminal; `line`: with a newline behind. */
MU_CP_API mu_cp_status mu_cp_send_input(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                                        unsigned terminal, mu_cp_str text, int line,
                                        mu_cp_result *result);
/* resizeTerminal: its size in characters. */
MU_CP_API mu_cp_status mu_cp_resize_terminal(mu_cp *cp, const mu_cp_caller *caller,
                                             mu_cp_str session_id, unsigned terminal, int cols,
                                             int rows, mu_cp_result *result);
/* addPrompt: queues a prompt of an interactive session. */
MU_CP_API mu_cp_status mu_cp_add_prompt(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                                        mu_cp_str prompt, mu_cp_result *result);
/* getSessionEvents: the log after a number, at most `limit` (0: the default) of it: events[],
 * next_seq, first_seq, last_seq, has_more. */
MU_CP_API mu_cp_status mu_cp_get_events(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                                        int64_t after_seq, int64_t limit, mu_cp_result *result);

typedef struct mu_cp_ask {
    mu_cp_str action;      /* merge deps_add secrets deploy shell network tool */
    mu_cp_str description; /* for the one who decides */
    mu_cp_str risk;        /* low med high; NULL: med */
    mu_cp_str context;     /* JSON object, at most 16 KiB */
    mu_cp_str request_key; /* runners: what is the same request; NULL: like no other */
} mu_cp_ask;
/* requestApproval: asks in the name of a trusted integration. approvals[0] */
MU_CP_API mu_cp_status mu_cp_request_approval(mu_cp *cp, const mu_cp_caller *caller,
                                              mu_cp_str session_id, const mu_cp_ask *request,
                                              mu_cp_result *result);
/* resolveApproval: exactly one resolution wins. `allow` 0: deny; `for_session`: the same request
 * does not ask again. sessions[0] */
MU_CP_API mu_cp_status mu_cp_resolve_approval(mu_cp *cp, const mu_cp_caller *caller,
                                              mu_cp_str session_id, mu_cp_str approval_id,
                                              int allow, mu_cp_str reason, int for_session,
                                              mu_cp_result *result);
/* listApprovals, or with a session_id listSessionApprovals: approvals[], has_more, next_cursor.
 * `request` NULL: the inbox of the caller's org. */
MU_CP_API mu_cp_status mu_cp_list_approvals(mu_cp *cp, const mu_cp_caller *caller,
                                            const mu_cp_list *request, mu_cp_result *result);

/* --- events --- */

enum {
    MU_CP_ON_SESSION = 1,   /* created, changed its state, started, ended */
    MU_CP_ON_APPROVAL = 2,  /* requested, resolved */
    MU_CP_ON_TURN = 4,      /* prompts: queued, started, ended, changed */
    MU_CP_ON_FACT = 8,      /* what runners report: messages, tools, diffs, usage, artifacts … */
    MU_CP_ON_TERMINAL = 16, /* type "TERMINAL": bytes as they come */
    MU_CP_ON_TEXT = 32,     /* type "TEXT": the agent's words as they stream */
    MU_CP_ON_GAP = 64, /* type "GAP": callbacks were too slow, some events were not delivered; the
                          numbers show which, mu_cp_get_events() has them */
    MU_CP_ON_RUNNER = 128, /* of runners: they come and go */
    MU_CP_ON_ALL = 255
};

/* The event is valid inside the call. */
typedef void (*mu_cp_event_fn)(mu_cp *cp, const mu_cp_event *event, void *user);
/* `fn` runs after the commit, for each subject in the order of its log, on the dispatch thread
 * (host-driven: inside mu_cp_tick()). It may call the library, mu_cp_call() included, but not
 * mu_cp_close(). Returns a number for mu_cp_off(), 0 without memory. */
MU_CP_API unsigned mu_cp_on(mu_cp *cp, unsigned mask, mu_cp_event_fn fn, void *user);
/* From its return on `fn` is not called any more (called from a callback: after that callback). */
MU_CP_API void mu_cp_off(mu_cp *cp, unsigned number);

/* --- time --- */

/* Host-driven: it is `now_ms` (ms since 1970; never earlier than before). Does everything that is
 * due, waits for the storage, runs the callbacks, until nothing is left to do at this time. Returns
 * when it wants to be called next at the latest, INT64_MAX: when something is called. Otherwise
 * does nothing and returns INT64_MAX. */
MU_CP_API int64_t mu_cp_tick(mu_cp *cp, int64_t now_ms);

/* --- runners of the host: they execute sessions. The callbacks of all of them run one after the
 * other on a thread of their own (host-driven: inside a function of the library); they may call the
 * library like those of events. --- */

/* What a runner is to execute; valid inside the call. */
typedef struct mu_cp_assignment {
    mu_cp_str session_id; /* "ses_…": names the execution in the functions below */
    mu_cp_str execution_id;
    int64_t epoch; /* which attempt */
    mu_cp_str task, harness, model;
    mu_cp_str workspace; /* JSON object: {"repos":[…],"setup_commands":[…],"sandbox"?} */
    mu_cp_str config;    /* JSON object, as it was created; or empty */
    const mu_cp_str *env_names, *env_values;
    size_t n_env;
    int64_t deadline_ms; /* ms since 1970; 0: none */
} mu_cp_assignment;

typedef struct mu_cp_decision {
    mu_cp_str approval_id, decision /* "allow", "deny", "cancel" */, scope, reason, by;
    mu_cp_str answer; /* of a question: JSON object, or ptr NULL */
} mu_cp_decision;

/* Every member may be NULL: then nothing is done, but for `start` (the session is refused) and
 * `pause` (it counts as done). */
typedef struct mu_cp_runner_ops {
    size_t size; /* sizeof(mu_cp_runner_ops) */
    /* mu_cp_runner_accept() or _reject() follows, now or later, within claim_timeout_ms. */
    void (*start)(mu_cp_runner *r, const mu_cp_assignment *a, void *user);
    /* It shall end; mu_cp_runner_ended() follows. `at_once`: nobody waits for its last words. */
    void (*stop)(mu_cp_runner *r, mu_cp_str session_id, int at_once, void *user);
    /* Work for the agent: of a task its one prompt, once it runs. mu_cp_runner_turn() follows. */
    void (*prompt)(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str turn_id, mu_cp_str text,
                   void *user);
    /* What was asked with mu_cp_runner_ask() is decided. */
    void (*decided)(mu_cp_runner *r, mu_cp_str session_id, const mu_cp_decision *d, void *user);
    /* Somebody typed into a terminal; `line`: with a newline behind. */
    void (*input)(mu_cp_runner *r, mu_cp_str session_id, unsigned terminal, mu_cp_str bytes,
                  int line, void *user);
    /* The size of a terminal in characters. */
    void (*resize)(mu_cp_runner *r, mu_cp_str session_id, unsigned terminal, int cols, int rows,
                   void *user);
    /* The agent shall leave that prompt and wait for the next. */
    void (*interrupt)(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str turn_id, void *user);
    /* An interactive session is done: it ends like a task that is. */
    void (*end)(mu_cp_runner *r, mu_cp_str session_id, void *user);
    /* Stand still, or (pause 0) go on. Returns whether it does. */
    int (*pause)(mu_cp_runner *r, mu_cp_str session_id, int pause, void *user);
    /* Everything else of docs/runner-protocol.md, as it comes: init, diff, terminal-open … */
    void (*message)(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str json, void *user);
} mu_cp_runner_ops;

typedef struct mu_cp_runner_config {
    size_t size;                  /* sizeof(mu_cp_runner_config) */
    mu_cp_str name;               /* 1 to 200 bytes */
    int64_t capacity;             /* sessions at once; 0: 5 */
    const char *const *providers; /* "claude_code", …; NULL: any */
    size_t n_providers;
    const char *const *features; /* further ones; NULL: none */
    size_t n_features;
    mu_cp_str version;
} mu_cp_runner_config;

/* Sessions may be given to it from now on. MU_CP_VALIDATION_ERROR, MU_CP_RUNNER_CONFLICT: one of
 * that name is connected; MU_CP_RUNNER_LIMIT_EXCEEDED, MU_CP_UNAVAILABLE. `ops` is copied. Not from
 * a callback. */
MU_CP_API mu_cp_status mu_cp_runner_open(mu_cp *cp, const mu_cp_runner_config *config,
                                         const mu_cp_runner_ops *ops, void *user,
                                         mu_cp_runner **ret);
/* No callback of it runs afterwards; what it held is given to another one or fails. Not from a
 * callback. NULL is harmless. */
MU_CP_API void mu_cp_runner_close(mu_cp_runner *r);

/* What the runner says of an execution: the functions from here on. What is said is kept until it
 * is stored, and said again when the storage had trouble. Of an execution that it does not hold
 * (any more) nothing is said: MU_CP_SESSION_NOT_FOUND. MU_CP_UNAVAILABLE: too much waits (16 MiB of
 * one execution) or there is no memory: try again later. MU_CP_VALIDATION_ERROR: what is said is
 * too long, or not of its form. */

/* It executes what it was given. */
MU_CP_API mu_cp_status mu_cp_runner_accept(mu_cp_runner *r, mu_cp_str session_id);
/* It does not: the session goes to another runner, or waits. */
MU_CP_API mu_cp_status mu_cp_runner_reject(mu_cp_runner *r, mu_cp_str session_id);
/* The workspace is made: PREPARING_WORKSPACE. */
MU_CP_API mu_cp_status mu_cp_runner_preparing(mu_cp_runner *r, mu_cp_str session_id);
/* The agent is started: STARTING_PROVIDER. */
MU_CP_API mu_cp_status mu_cp_runner_starting(mu_cp_runner *r, mu_cp_str session_id);
/* The agent runs: RUNNING. `provider_id`, `workspace_path` may be NULL. */
MU_CP_API mu_cp_status mu_cp_runner_running(mu_cp_runner *r, mu_cp_str session_id,
                                            mu_cp_str provider_id, mu_cp_str workspace_path);
/* Bytes of a terminal (0: the agent's), at most 1 MiB. */
MU_CP_API mu_cp_status mu_cp_runner_terminal(mu_cp_runner *r, mu_cp_str session_id,
                                             unsigned terminal, mu_cp_str bytes);
/* A whole segment of the agent's words, at most 128 KiB. */
MU_CP_API mu_cp_status mu_cp_runner_words(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str turn_id,
                                          mu_cp_str text);
/* A fact by its type ("FILE_TOUCHED", "DIFF_SUMMARY", "USAGE_TICK", …) with a JSON object. */
MU_CP_API mu_cp_status mu_cp_runner_event(mu_cp_runner *r, mu_cp_str session_id, const char *type,
                                          mu_cp_str data);
/* May the agent? Nothing is done until `decided` says so. `id`, at least 37 bytes, gets the id of
 * the approval, with a NUL. */
MU_CP_API mu_cp_status mu_cp_runner_ask(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str turn_id,
                                        const mu_cp_ask *ask, char *id);
/* The prompt was accepted ("thinking"), or is over ("done", "failed", "cancelled"). */
MU_CP_API mu_cp_status mu_cp_runner_turn(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str turn_id,
                                         const char *status, mu_cp_str error);
/* Any other message of docs/runner-protocol.md but `hello` and `ping`: a JSON object with `type`
 * and without `seq`. A `stream` is shown and kept by nobody. */
MU_CP_API mu_cp_status mu_cp_runner_say(mu_cp_runner *r, mu_cp_str session_id, mu_cp_str json);
typedef struct mu_cp_end {
    int failed; /* with words in `message`, of which 64 KiB are kept */
    int has_exit_code;
    int64_t exit_code;
    mu_cp_str message, output; /* of the output the first MiB and the last 7 are kept */
    int64_t tokens_in, tokens_out;
} mu_cp_end;
/* The execution is over: the last word. */
MU_CP_API mu_cp_status mu_cp_runner_ended(mu_cp_runner *r, mu_cp_str session_id,
                                          const mu_cp_end *end);

#ifdef __cplusplus
}
#endif

#endif
