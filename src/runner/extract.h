/* What an agent's output tells besides its words: pull requests and the link of its session
 * (oz-worker.md 14.1, 14.2). Pure. */
#ifndef MU_RUNNER_EXTRACT_H
#define MU_RUNNER_EXTRACT_H

#include "base/bytes.h"

enum { MU_EXTRACT_PRS = 100 };

/* The distinct https://github.com/OWNER/NAME/pull/N in order of first appearance, at most
 * MU_EXTRACT_PRS; they point into `output`. Returns their number. */
size_t mu_extract_prs(mu_bytes output, mu_bytes ret[MU_EXTRACT_PRS]);
/* The first http(s) URL behind the word "session" on one line; empty when there is none. */
mu_bytes mu_extract_session(mu_bytes output);

#endif
