/* Shared by the files of this context. All of it belongs to the core loop. */
#ifndef MU_APP_PROVIDERS_PROVIDERS_INT_H
#define MU_APP_PROVIDERS_PROVIDERS_INT_H

#include "app/providers/providers.h"
#include "base/list.h"
#include "base/map.h"
#include "base/metrics.h"
#include "io/work.h"

enum {
    MU_CALL_CLASSES = MU_CALL_CANCELLED + 1,
    MU_BREAKER_FAILURES = 5,
    MU_BREAKER_WITHIN_MS = 30000,
    MU_BREAKER_OPEN_MS = 15000,
    MU_CALL_TEXT_CHARS = 500,
    MU_CALL_SECRETS = 16,
    MU_CALL_TAIL = 2048,
};

struct mu_breaker {
    int64_t failed_ms[MU_BREAKER_FAILURES]; /* a ring of the last failures */
    unsigned next;
    bool open;
    int64_t open_until_ms; /* then half open: one trial */
    bool trial;            /* it runs */
};
enum mu_breaker_state { MU_BREAKER_CLOSED, MU_BREAKER_OPEN, MU_BREAKER_HALF_OPEN };

struct mu_provider {
    struct mu_providers *all;
    const struct mu_provider_conf *conf;
    struct mu_provider_conf gone; /* what `conf` is once a reload has dropped it */
    char *key;
    struct mu_breaker breaker;
    int64_t running, held; /* calls under way; promised ones */
    struct mu_metric *calls[MU_CALL_CLASSES];
    char *labels; /* the texts of the metrics above */
};

/* What is known of one provider for one scope: an org, or "*" where the account is one for all. */
struct mu_scope {
    struct mu_list link; /* least recently used first */
    int64_t blocked_until_ms, strikes, full_until_ms;
    mu_bytes key; /* "<scope>\n<provider>", behind the struct */
};

struct mu_providers {
    struct mu_providers_opts opts;
    struct mu_provider **items; /* as configured; behind them those that a reload dropped */
    size_t n, n_all;
    struct mu_map scopes;
    struct mu_list scope_list;
    struct mu_list writes; /* blocks on their way to the database */
    unsigned n_writes;
    struct mu_list calls;
    struct mu_timer capacity_timer;
    void (*capacity_fn)(void *arg);
    void *capacity_arg;
    struct mu_metric *seconds;
};

static inline int64_t mu_providers_now(const struct mu_providers *p)
{
    return mu_env_wall_ms(p->opts.env);
}
static inline bool mu_provider_is_child(const struct mu_provider_conf *c)
{
    return c->type == MU_PROVIDER_CLI || c->type == MU_PROVIDER_SHELL;
}
static inline int64_t mu_provider_slots(const struct mu_provider_conf *c)
{
    return MU_MAX(c->cli_max_parallel, 1);
}
/* Appends the variable part of a key: "my-llm" -> "MY_LLM". */
void mu_provider_variable(mu_bytes key, char *dst, size_t size);

/* --- gates.c --- */
enum mu_breaker_state mu_breaker_state(struct mu_breaker *b, int64_t now_ms);
/* NULL when nothing is known. */
struct mu_scope *mu_scope_find(struct mu_provider *pr, const char *org_id);
MU_MUST_USE int mu_blocks_load(struct mu_providers *p, struct mu_db *db);
void mu_scopes_fini(struct mu_providers *p);

/* --- calls --- */
struct mu_call_child { /* the part of a call that runs a program: call_cli.c */
    bool shell;
    enum mu_cli_format format;
    int64_t timeout_ms, max_output;
    const int64_t *limit_exits;
    size_t n_limit_exits;
    const char **argv, **env;
    const char *cwd; /* NULL = the private directory */
    mu_bytes input, script;
    char *dir; /* the private directory; NULL = none is wanted, "" = not made */
    size_t dir_size;
    char *script_path;
    const char *scratch, *run_id;
    int made; /* < 0: why the directory could not be made */
    struct mu_job job;
    struct mu_timer retry;
    struct mu_process *process;
    struct mu_cli_reader *reader;
    int feed_error;
    bool killed;
    char tail[MU_CALL_TAIL]; /* the end of stdout */
    size_t tail_len;
};

struct mu_provider_call {
    struct mu_list link; /* providers.calls */
    struct mu_providers *p;
    struct mu_provider *pr;
    struct mu_arena arena;
    int (*on_delta)(void *arg, mu_bytes text);
    void (*done)(void *arg, const struct mu_call_result *result);
    void *arg;
    enum {
        MU_CALL_POSTED,    /* ended before it began; done() is on its way */
        MU_CALL_PREPARING, /* its directory is being made */
        MU_CALL_RUNNING,
        MU_CALL_REMOVING, /* done() was called; its directory is being removed */
    } phase;
    bool aborted, refused; /* refused: on_delta said so */
    bool trial;
    bool had_delta, had_text;
    int64_t began_ms;
    struct mu_post post;
    struct mu_call_result result;
    char text[MU_CALL_TEXT_CHARS * 4 + 64];
    mu_bytes secrets[MU_CALL_SECRETS]; /* never shown */
    size_t n_secrets;
    /* http */
    bool anthropic, stream;
    struct mu_fetch *fetch;
    struct mu_model_reader *reader;
    int status, body_error;
    struct mu_call_child child;
};

/* What both kinds of call begin and end with: call.c. A start function returns < 0 (nothing
 * happened) or 0: done() will run, if need be after mu_call_fail_soon(). */
MU_MUST_USE int mu_call_http_start(struct mu_provider_call *c, const struct mu_call_request *req);
MU_MUST_USE int mu_call_cli_start(struct mu_provider_call *c, const struct mu_call_request *req);
void mu_call_cli_abort(struct mu_provider_call *c);
/* Begins to remove the private directory; the call goes away afterwards. */
void mu_call_cli_remove(struct mu_provider_call *c);

/* The system text of a call; *ret_explicit: somebody asked for it. */
mu_bytes mu_call_system(const struct mu_call_request *req, bool *ret_explicit);
/* Remembers (copied) what must not appear in a text. */
MU_MUST_USE int mu_call_secret(struct mu_provider_call *c, mu_bytes secret);
int mu_call_delta(void *arg, mu_bytes text);
/* Class and text: prefix and words without secrets and control characters, at most 500 characters
 * (beginning and end of what is longer). */
void mu_provider_call_fail(struct mu_provider_call *c, enum mu_call_class cls, const char *prefix,
                           mu_bytes words);
/* The same, and done() from the loop's next turn. */
void mu_call_fail_soon(struct mu_provider_call *c, enum mu_call_class cls, const char *prefix,
                       mu_bytes words);
/* Calls done(); the call is gone afterwards, or removes its directory. */
void mu_call_finish(struct mu_provider_call *c);
void mu_call_free(struct mu_provider_call *c);

/* --- private.c: blocking, for the work pool --- */
/* A new directory "<scratch>/run-<id>-XXXXXX" (0700) into dst. */
MU_MUST_USE int mu_private_dir_make(const char *scratch, const char *run_id, char *dst,
                                    size_t size);
/* How many bytes `dst` needs. */
size_t mu_private_dir_size(const char *scratch, const char *run_id);
MU_MUST_USE int mu_private_dir_write(const char *dir, const char *name, mu_bytes content);
/* mu_folder_remove() removes it. */
/* Removes what calls of an earlier run of the server left behind. */
void mu_private_dirs_sweep(const char *scratch);

#endif
