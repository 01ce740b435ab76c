/* How a task ended, as result.json and the report say it (oz-worker.md 13.5). */
#ifndef MU_RUNNER_RESULT_H
#define MU_RUNNER_RESULT_H

#include "proto/links.h"
#include "runner/workspace.h"

struct mu_result {
    int exit_code;
    const char *phase;       /* args env clone setup agent */
    const char *output_path; /* NULL: the agent said nothing */
    int64_t duration_ms, created_ms;
    char message[480]; /* why it ended early; "" */
    bool output_truncated;
    mu_bytes prs[MU_PULL_REQUESTS_MAX];
    size_t n_prs;
    char *pr_branch; /* of all of them; NULL = unknown */
    mu_bytes session_link;
    struct mu_result_file files[MU_RESULT_FILES];
    size_t n_files;
};

/* Appends the members without the braces, so that others can stand beside them. */
void mu_result_add(struct mu_buf *dst, const struct mu_result *r);
void mu_result_fini(struct mu_result *r);

#endif
