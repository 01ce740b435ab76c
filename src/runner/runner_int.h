/* The whole of `muster runner`: what it knows and what it does, step by step. */
#ifndef MU_RUNNER_RUNNER_INT_H
#define MU_RUNNER_RUNNER_INT_H

#include "base/buf.h"
#include "runner/args.h"
#include "runner/bridge.h"
#include "runner/harness.h"
#include "runner/live.h"
#include "runner/output.h"
#include "runner/patch.h"
#include "runner/procs.h"
#include "runner/report.h"
#include "runner/repos.h"
#include "runner/restore.h"
#include "runner/result.h"
#include "runner/runner.h"
#include "runner/secrets.h"
#include "runner/workspace.h"

enum {
    MU_PROMPT_MAX = 2 << 20,
    MU_SETUP_TIMEOUT_S = 600,
    MU_CLONE_TIMEOUT_S = 1800,
};

struct mu_runner {
    struct mu_runner_args args;
    char self[4096];  /* this program, for git's questions */
    char *first_path; /* PATH as it was before the environment object's variables */
    int64_t began_ms; /* monotonic */
    struct mu_workspace ws;
    struct mu_procs procs;
    struct mu_bridge *bridge; /* NULL: no keeper */
    struct mu_report report;
    struct mu_live *live;       /* NULL: a one-shot task */
    struct mu_restore *restore; /* NULL: it begins anew */
    enum mu_harness harness;
    struct mu_buf prompt;
    struct mu_checkouts checkouts; /* what the task began with */
    struct mu_output output;       /* fd -1 until the agent began */
    struct mu_result result;
    const char *token; /* of the attempt; not in the environment any more */
    char link_key[65];
    char *env_block; /* what it was started with, which /proc/1/environ shows */
    size_t env_len;
    struct mu_redact *redact;       /* NULL until the variables are known */
    struct mu_redact_stream stream; /* what the agent of a one-shot task says */
    struct mu_buf clean;
};

/* Why the run ends early; returns `status`. */
int mu_runner_fail(struct mu_runner *r, int status, const char *fmt, ...) MU_PRINTF(3, 4);
/* What a child that did not end well is told of: its name, how it ended. */
int mu_runner_child_failed(struct mu_runner *r, const char *what, const struct mu_proc_end *end);

/* clone.c: OZ_ENV_REPOS into the workspace. 0 or the status to end with. */
int mu_runner_clone(struct mu_runner *r);
/* A commit of the checkout `tree` that is not there; `shallow`: without those before it. */
int mu_runner_fetch(struct mu_runner *r, const char *tree, const char *commit, bool shallow);
/* .oz is none of the files of the repository that the workspace is. */
void mu_runner_hide_oz(struct mu_runner *r);
/* setup.c: OZ_ENV_SETUP_COMMANDS. */
int mu_runner_setup(struct mu_runner *r);
/* agent.c: the agent itself. */
int mu_runner_agent(struct mu_runner *r);
/* A file without a name that holds r->prompt; -1 and errno when there is none. */
int mu_runner_prompt_file(struct mu_runner *r);
/* finish.c: the output's exact form, what can be read from it, the patch, result.json, the report.
 */
void mu_runner_finish(struct mu_runner *r);
/* selftest.c: prints what protects and works here. */
int mu_runner_self_test(void);

/* Puts a tag before each line of what a child says, for the log. */
struct mu_tag {
    struct mu_procs *procs;
    char text[40];
    bool inside;                /* of a line */
    char line[240], words[240]; /* the line so far; the first that says `fatal: …`, without that */
    size_t n_line;
};
void mu_tag_init(struct mu_tag *t, struct mu_procs *procs, const char *fmt, ...) MU_PRINTF(3, 4);
void mu_tag_sink(void *tag, mu_bytes piece);
void mu_tag_end(struct mu_tag *t);

/* Takes a variable out of the environment, and its value out of what /proc/1/environ shows. */
void mu_runner_unset(struct mu_runner *r, const char *name);

/* A number of seconds from the environment, in milliseconds. */
int64_t mu_runner_seconds(const char *name, int64_t fallback_s);

#endif
