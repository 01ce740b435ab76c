/* Shared by the files of this folder. */
#ifndef MU_EXEC_GIT_GIT_INT_H
#define MU_EXEC_GIT_GIT_INT_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "exec/git/checkout.h"

enum {
    MU_GIT_KEY = 24,     /* hexadecimal characters of a URL's or base's hash */
    MU_GIT_COMMIT = 40,  /* of a commit (SHA-1 repositories only) */
    MU_GIT_ANSWERS = 32, /* remembered refs of a mirror */
    MU_GIT_WHY = 400,
    MU_GIT_MAX_INDEX = 8,
    MU_GIT_OUT = 2 << 20, /* bytes that one git process may print */
};

/* Nothing that a repository or a user of this machine configured is executed. */
#define MU_GIT                                                                                     \
    "git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0",      \
        "-c", "maintenance.auto=false", "-c", "submodule.recurse=false", "-c",                     \
        "fetch.recurseSubmodules=false", "-c", "checkout.workers=0", "-c",                         \
        "advice.detachedHead=false"

/* What the server said a ref is, and when. */
struct mu_git_answer {
    char ref[201], branch[201], commit[MU_GIT_COMMIT + 1];
    int64_t at_ms;
};

struct mu_git_mirror {
    struct mu_list link;
    char key[MU_GIT_KEY + 1];
    char *path; /* <dir>/mirrors/<key> */
    bool exists;
    bool closed; /* fetched with a credential: who asks for it has to show that he may have it */
    struct mu_git_job *busy; /* who may fetch and check out */
    struct mu_list waiting;  /* jobs that want to */
    unsigned bases, users;   /* of it that exist; jobs that name it */
    int64_t bytes;
    struct mu_git_answer answers[MU_GIT_ANSWERS];
    unsigned n_answers;
};

/* An immutable checked-out tree. */
struct mu_git_base {
    struct mu_list link;
    struct mu_git_mirror *mirror;
    char key[MU_GIT_KEY + 1], commit[MU_GIT_COMMIT + 1];
    char *tree, *objects; /* <dir>/bases/<key>/tree, <mirror>/objects */
    unsigned held;
    int64_t bytes;
};

struct mu_git_cache {
    struct mu_loop *loop;
    struct mu_git_settings settings;
    struct mu_list mirrors, bases; /* bases: the least recently used first */
    struct mu_list jobs, ready;    /* ready: jobs that wait for a process slot */
    unsigned running;              /* git processes */
    int64_t bytes;
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct mu_post stop_post;
    unsigned temp_no;
    const char **env; /* of every git process */
    struct mu_arena arena;
};

struct mu_checkout {
    struct mu_list link; /* in its job */
    struct mu_git_cache *cache;
    struct mu_git_job *job;   /* until done() */
    struct mu_git_base *base; /* afterwards */
    struct mu_checkout_request req;
    struct mu_checkout_view view;
};

struct mu_git_reading; /* read.c */

/* The work for one (URL, ref, index): every checkout that asks for it meanwhile shares it. */
struct mu_git_job {
    struct mu_list link, wait, slot;
    struct mu_git_cache *cache;
    struct mu_git_mirror *mirror;
    struct mu_list checkouts;
    const char *url, *ref, *header; /* of the arena; header: Authorization, or NULL */
    unsigned index;
    bool warm;
    char commit[MU_GIT_COMMIT + 1], branch[201];
    const char *temp;               /* folder below tmp/ */
    struct mu_git_reading *reading; /* files are wanted, not a base; nobody shares it */
    struct mu_arena arena;
    struct mu_post post;
    /* the running process */
    struct mu_process *process;
    const char *const *argv, *const *env;
    mu_bytes input; /* of the next process; of the arena */
    struct mu_buf out;
    void (*then)(struct mu_git_job *job, const struct mu_process_result *result);
    char why[MU_GIT_WHY];
    int result;
    bool locked, fetched; /* it is mirror->busy; the mirror was fetched for it */
    bool admitted;        /* the server answered to its own credential, or to none */
};

/* cache.c */
struct mu_git_mirror *mu_git_mirror_get_(struct mu_git_cache *g, const char *url);
struct mu_git_base *mu_git_base_find_(struct mu_git_cache *g, const char *key);
void mu_git_base_key_(const char *url, const char *commit, unsigned index,
                      char dst[MU_GIT_KEY + 1]);
/* Takes over <temp> as the base `key`; NULL when it fails. */
struct mu_git_base *mu_git_base_add_(struct mu_git_cache *g, struct mu_git_mirror *m,
                                     const char *key, const char *commit, const char *temp,
                                     int64_t bytes);
void mu_git_base_touch_(struct mu_git_cache *g, struct mu_git_base *b);
/* Removes what is too much and held by nobody. */
void mu_git_trim_(struct mu_git_cache *g);
/* Moves a folder out of the way at once and removes it in the pool. */
void mu_git_discard_(struct mu_git_cache *g, const char *path);
/* job.c */
/* -ENOMEM: NULL. `index` is that of a checkout. */
struct mu_git_job *mu_git_job_new_(struct mu_git_cache *g, const char *url, const char *ref,
                                   unsigned index, const char *credential);
/* Runs git when a slot is free: `argv` of the job's arena, beginning with "git". */
void mu_git_run_(struct mu_git_job *job, const char *const *argv,
                 void (*then)(struct mu_git_job *job, const struct mu_process_result *result));
/* Tells everybody; the job is gone. `base` NULL: job->result and job->why. */
void mu_git_job_end_(struct mu_git_job *job, struct mu_git_base *base);
/* steps.c: what has to be done, one after the other. */
void mu_git_resolve_(struct mu_git_job *job);
/* The job has the mirror to itself. */
void mu_git_locked_(struct mu_git_job *job);
/* mu_git_run_() with a list that is copied. */
void mu_git_step_(struct mu_git_job *job, const char *const *list, size_t n,
                  void (*then)(struct mu_git_job *job, const struct mu_process_result *result));
/* Ends the job with git's own last word. */
void mu_git_failed_(struct mu_git_job *job, const char *what,
                    const struct mu_process_result *result);
/* The mirror's size was found out. */
void mu_git_weighed_(struct mu_git_job *job, int64_t bytes);
/* read.c */
/* The commit is in the mirror, which the job has to itself. */
void mu_git_read_tree_(struct mu_git_job *job);
/* The job ends without files. */
void mu_git_read_failed_(struct mu_git_job *job);
/* Ends the job with an error worded for people. */
void mu_git_fail_(struct mu_git_job *job, int code, const char *fmt, ...) MU_PRINTF(3, 4);

#endif
