/* Telling the server over HTTP, where no worker of ours does it (oz-worker.md 13.6): a heartbeat
 * and the output while the task runs, from a process of its own, and the result at the end. Best
 * effort: it never changes how the task ends. */
#ifndef MU_RUNNER_REPORT_H
#define MU_RUNNER_REPORT_H

#include "runner/procs.h"
#include "runner/result.h"

struct mu_report {
    bool on;
    char *url, *token, *execution_id; /* url of .../report */
    int dir;                          /* .oz */
    char dir_path[4200];
    int pipe; /* output for the process that reports; -1 = none */
    pid_t pid;
    int64_t *seq; /* shared with it */
};

/* What the environment and the arguments say; `token` is taken over. Off without a token, a server
 * or a run, or under our own worker. */
void mu_report_init(struct mu_report *r, const char *token, const char *server, const char *run);
/* Starts the process that reports while the task runs; p->spare is it. `dir` is .oz in the
 * workspace `root`. */
void mu_report_start(struct mu_report *r, int dir, const char *root, struct mu_procs *p);
/* A piece of the agent's output that begins at `offset`; dropped when the process is behind. */
void mu_report_log(struct mu_report *r, int64_t offset, mu_bytes piece);
/* The result with the output; three retries. Everything of the report is gone afterwards. */
void mu_report_end(struct mu_report *r, struct mu_procs *p, const struct mu_result *result,
                   mu_bytes output);

#endif
