/* Repositories for sandboxes: one bare mirror per URL and worker, one checked-out
 * base per (mirror, commit), kept by last use. Sandboxes get a base as the lower layer of an
 * overlay and the mirror's objects read-only, so that a warm repository costs a mount (sandbox.md
 * 8). Only the worker fetches; nothing that a repository says is executed (hooks, filters,
 * fsmonitor, submodules, LFS).
 */
#ifndef MU_EXEC_GIT_CHECKOUT_H
#define MU_EXEC_GIT_CHECKOUT_H

#include "exec/process.h"

struct mu_git_cache;
struct mu_checkout;

struct mu_git_settings {
    const struct mu_env *env;
    const char *dir;          /* mirrors/ and bases/ lie below it; made if missing, 0700 */
    int64_t max_bytes;        /* of bases and mirrors together: the least recently used ones that
                                 nobody holds go (default 20 GiB) */
    int64_t fetch_timeout_ms; /* of one fetch or checkout: 600000 */
    int64_t fresh_ms;         /* a mirror fetched so recently is not fetched again: 5000 */
    unsigned parallel;        /* git processes at once: 4 */
    bool ssh_keys;            /* ssh may use the keys and the agent of the worker's user: then
                                 whoever names a repository reads what they open */
};
/* Loop thread for all of it. What an earlier process left half-made is removed. Worded. */
MU_MUST_USE int mu_git_cache_new(struct mu_loop *loop, const struct mu_git_settings *settings,
                                 struct mu_git_cache **ret, struct mu_err *err);
/* Ends what is under way (their done() is called with MU_E_SHUTDOWN), then calls `stopped`; nothing
 * may be started any more. */
void mu_git_cache_stop(struct mu_git_cache *g, void (*stopped)(void *arg), void *arg);
/* After `stopped`, when every checkout was released or aborted. Returns NULL. */
struct mu_git_cache *mu_git_cache_free(struct mu_git_cache *g);

struct mu_checkout_view {
    const char *tree;    /* the immutable base: a whole work tree with .git inside; lower layer */
    const char *objects; /* the mirror's objects; the base's alternates name
                            /run/muster/git/<index>/ with the index given at the start */
    char commit[41];
    bool warm; /* nothing was fetched or checked out for it */
};
struct mu_checkout_request {
    const char *url, *ref;
    unsigned index;         /* which /run/muster/git/<index> (0..7): part of the base's key */
    const char *credential; /* "user:token" for https, or NULL; handed to git in memory only */
    void (*progress)(void *arg, const char *text); /* may be NULL */
    /* Exactly once, never from inside start: 0 and a view (its texts live until release), or an
     * error worded for people ("fatal: …" of git, without secrets). */
    void (*done)(void *arg, int result, const struct mu_checkout_view *view, const char *why);
    void *arg;
};
/* Requests for the same mirror or base share the work. -ENOMEM. */
MU_MUST_USE int mu_checkout_start(struct mu_git_cache *g, const struct mu_checkout_request *req,
                                  struct mu_checkout **ret);
/* Before done(): done() is not called. The shared work goes on for others. Returns NULL. */
struct mu_checkout *mu_checkout_abort(struct mu_checkout *c);
/* From done() on, also after an error: the base may go from now on. Returns NULL. */
struct mu_checkout *mu_checkout_release(struct mu_checkout *c);

/* --- files of a commit, from the mirror alone: no work tree is made --- */

struct mu_git_file {
    mu_bytes path; /* valid UTF-8 without control characters, no part of it "." or ".." */
    mu_bytes text; /* whatever bytes it holds */
};
struct mu_git_files {
    const struct mu_git_file *files;
    size_t n;
    bool more; /* there were further ones than the limits admit */
    char commit[41];
};
enum { MU_GIT_READ_ROOTS = 8, MU_GIT_READ_FILES = 200, MU_GIT_READ_BYTES = 1 << 20 };
struct mu_git_read_request {
    const char *url, *ref, *credential; /* as above */
    const char *const *roots;           /* folders ("a/b") to look in, ended by NULL: at most
                                           MU_GIT_READ_ROOTS; static */
    const char *name;                   /* of the wanted files; static */
    unsigned max_depth;                 /* folders between a root and the file */
    size_t max_file_bytes;              /* a larger file is left out */
    /* Exactly once, never from inside start: 0 and the files (valid inside done() only), or an
     * error as above. Symbolic links and submodules are never followed. */
    void (*done)(void *arg, int result, const struct mu_git_files *files, const char *why);
    void *arg;
};
/* Brings the mirror up to date as a checkout does, under the same limits. -ENOMEM. */
MU_MUST_USE int mu_git_read_start(struct mu_git_cache *g, const struct mu_git_read_request *req);

/* For re-adopted sandboxes: holds a base by its folder, so that it stays. MU_E_NOT_FOUND. */
MU_MUST_USE int mu_checkout_hold(struct mu_git_cache *g, const char *tree,
                                 struct mu_checkout **ret);

#endif
