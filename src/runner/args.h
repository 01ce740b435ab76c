/* The argument list that workers of either dialect start an agent with (oz-worker.md 8.2). */
#ifndef MU_RUNNER_ARGS_H
#define MU_RUNNER_ARGS_H

#include "base/err.h"

struct mu_runner_args {
    const char *model, *harness, *task_id, *server_root_url; /* NULL = not given */
    bool self_test;
};

/* argv[0..argc) follows the word `runner`; leading `agent` and `run` are dropped. Words that are no
 * known flag are skipped. MU_E_INVALID (worded) when a flag lacks its value. Points into argv. */
MU_MUST_USE int mu_runner_args_parse(int argc, char **argv, struct mu_runner_args *ret,
                                     struct mu_err *err);

#endif
