/* The provider router (oz-providers.md): which candidates a run has, what each may take just now
 * (breaker, blocks, quota as far as memory knows, CLI slots), and one call of one provider. Core
 * loop only, but for mu_providers_status(). */
#ifndef MU_APP_PROVIDERS_PROVIDERS_H
#define MU_APP_PROVIDERS_PROVIDERS_H

#include "app/providers/config.h"
#include "app/sessions/sessions.h"
#include "base/arena.h"
#include "exec/models.h"
#include "exec/process.h"
#include "net/fetch.h"

struct mu_providers;
struct mu_provider; /* one configured provider, with its live state */

struct mu_providers_opts {
    const struct mu_env *env;
    struct mu_loop *core;
    struct mu_writer *writer; /* quota blocks are kept in the database */
    struct mu_metrics *metrics;
    const struct mu_fetch_ops *fetch;
    struct mu_fetcher *fetcher;
    const struct mu_process_ops *process;
    struct mu_work *work;        /* private directories are made and removed there */
    const char *scratch_dir;     /* where they are made; exists */
    const char *const *environ_; /* the server's environment: the allow-list picks from it */
    const struct mu_provider_list *list;
    const struct mu_providers_settings
        *settings; /* both must outlive the object, or the next reload */
};
/* Loads stored blocks from `db` (NULL: none), and removes from `scratch_dir`, which is this
 * server's alone, what calls of an earlier run left there. Blocking, start-up. */
MU_MUST_USE int mu_providers_new(const struct mu_providers_opts *opts, struct mu_db *db,
                                 struct mu_providers **ret);
/* No call may be running (abort, and wait for their done()). */
struct mu_providers *mu_providers_free(struct mu_providers *p);
/* New settings, core loop: breakers, blocks and running calls stay with the key of a provider. One
 * that is gone keeps its struct (a call of it ends with MU_CALL_CONFIG); every mu_provider_conf
 * pointer from before is void. Keys that were unknown at start have no metrics. -ENOMEM: nothing
 * changed. */
MU_MUST_USE int mu_providers_reload(struct mu_providers *p, const struct mu_provider_list *list,
                                    const struct mu_providers_settings *settings);

/* The harness of a requested model id (oz-api.md 4.3); "shell" is ours. Literal or the settings'
 * text. */
const char *mu_providers_harness(const struct mu_providers_settings *s, mu_bytes model_id);

/* Candidates in order for a harness (section 3). `admin`: discovered providers and the shell are
 * only for the admin key. Returns how many (at most max). */
enum { MU_CANDIDATES_MAX = 32 };
unsigned mu_providers_candidates(struct mu_providers *p, mu_bytes harness, bool admin,
                                 struct mu_provider **ret, unsigned max);
/* The words of the configuration error for a harness without candidates. */
void mu_providers_no_candidate(struct mu_providers *p, mu_bytes harness, bool admin, char *dst,
                               size_t size);

const struct mu_provider_conf *mu_provider_conf(const struct mu_provider *pr);
/* The model for a request: the requested id when the provider lists it, else the configured one. */
mu_bytes mu_provider_model(const struct mu_provider *pr, mu_bytes requested);

/* Whether a call may be tried now: MU_P_OK, MU_P_BLOCKED (rate limited, quota known to be full:
 * *ret_until_ms), MU_P_BROKEN (breaker open until *ret_until_ms), MU_P_BUSY (every CLI slot is
 * taken: wait for a slot). */
enum mu_provider_gate { MU_P_OK, MU_P_BLOCKED, MU_P_BROKEN, MU_P_BUSY };
enum mu_provider_gate mu_provider_gate(struct mu_provider *pr, const char *org_id, int64_t now_ms,
                                       int64_t *ret_until_ms);
/* A call of it is about to come: until the release, the gate counts it as one that runs. */
void mu_provider_hold(struct mu_provider *pr);
void mu_provider_release(struct mu_provider *pr);
/* Fills the quota part of a claim (limit 0 when the provider has none). */
void mu_provider_quota(const struct mu_provider *pr, const char *org_id, int64_t now_ms,
                       struct mu_quota_take *ret);
/* Memory of what the database said: no slot free before `until_ms` for that org. */
void mu_provider_note_full(struct mu_provider *pr, const char *org_id, int64_t until_ms);

/* A reservation was settled in the database: a slot is free again from `free_ms` on. Tells waiters.
 */
void mu_provider_note_free(struct mu_provider *pr, const char *org_id, int64_t free_ms);

struct mu_call_result;

/* --- one call --- */
struct mu_call_request {
    struct mu_provider *provider;
    const char *run_id, *org_id;
    mu_bytes model, system /* empty = the built-in one */, prompt;
    bool model_given;
    const struct mu_model_image *images;
    size_t n_images;
    const struct mu_model_turn *turns;
    size_t n_turns;
    int (*on_delta)(void *arg, mu_bytes text); /* < 0 aborts */
    void (*done)(void *arg,
                 const struct mu_call_result *result); /* exactly once, never from inside start */
    void *arg;
};

/* The class of a failed attempt (oz-providers.md 4.1), with its run error code (section 8). */
enum mu_call_class {
    MU_CALL_OK,
    MU_CALL_RATE_LIMITED,
    MU_CALL_UNAVAILABLE,
    MU_CALL_AUTH,
    MU_CALL_BAD_REQUEST,
    MU_CALL_NO_MODEL,
    MU_CALL_BAD_RESPONSE,
    MU_CALL_CLI_FAILED,
    MU_CALL_CLI_TIMEOUT,
    MU_CALL_CLI_OUTPUT_LIMIT,
    MU_CALL_CONFIG,
    MU_CALL_CANCELLED,
};
const char *mu_call_class_name(enum mu_call_class c); /* "rate_limited", … */
const char *
mu_call_error_code(enum mu_call_class c); /* "rate_limited", "provider_unavailable", … */
/* Whether the next candidate is tried. */
bool mu_call_falls_back(enum mu_call_class c, bool had_output);

struct mu_call_result {
    enum mu_call_class cls;
    int status; /* HTTP status or exit code; 0 = none */
    bool is_exit_code;
    int64_t ms, retry_after_ms; /* retry_after 0 = not told */
    int64_t tokens_in, tokens_out;
    bool truncated, counted; /* counted: the upstream counts it as a message (quota is kept) */
    mu_bytes final_text; /* formats that name the answer apart from the deltas; ptr NULL: the deltas
                            are it */
    const char *text; /* why it failed: at most 500 characters, without URL and key; "" when OK */
};

struct mu_provider_call;
/* Starts a call (one try; the caller retries). Takes a CLI slot. What `req` points at is copied.
 * -ENOMEM, MU_E_BUSY (no CLI slot, or the work pool is full), MU_E_CLOSED; done() is not called
 * then. */
MU_MUST_USE int mu_provider_call(struct mu_providers *p, const struct mu_call_request *req,
                                 struct mu_provider_call **ret);
/* Not after done(). done() follows with MU_CALL_CANCELLED, once the request's socket is closed or
 * the process group is gone. */
void mu_provider_call_abort(struct mu_provider_call *c);
/* What a finished call means for the provider: breaker, blocks. Also tells waiters, and logs what
 * an operator must know (auth, config, rate limits, the breaker). */
void mu_provider_learn(struct mu_provider *pr, const char *org_id,
                       const struct mu_call_result *result);

/* Called on the core loop whenever capacity may have become free (CLI slot, quota given back,
 * reload): from a turn of its own, once for many reasons. */
void mu_providers_on_capacity(struct mu_providers *p, void (*fn)(void *arg), void *arg);
void mu_providers_capacity(struct mu_providers *p);

/* GET /api/v1/providers (oz-providers.md 9.21): a snapshot for one caller, never keys or URLs.
 * `add` is called once a provider on the core loop; post there first. Quota use is read by the face
 * from the database. */
struct mu_provider_status {
    const char *key, *type, *model, *found;
    bool discovered, quota_global;
    int64_t limit, window_s;
    int64_t blocked_until_ms, breaker_until_ms;
    const char *breaker; /* closed, open, half_open */
    int64_t running, max_parallel;
};
void mu_providers_status(struct mu_providers *p, const char *org_id, bool admin,
                         void (*add)(void *arg, const struct mu_provider_status *s), void *arg);

#endif
