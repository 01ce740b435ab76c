/* What a text of untrusted origin tells besides its words: pull requests and the link of a session
 * (oz-worker.md 14.1, 14.2). Pure; in time linear in the text. Part of the static program. */
#ifndef MU_PROTO_LINKS_H
#define MU_PROTO_LINKS_H

#include "proto/json_write.h"

enum { MU_PULL_REQUESTS_MAX = 100, MU_PULL_REQUEST_LEN = 300 };

/* The distinct https://github.com/OWNER/NAME/pull/N in order of first appearance, at most
 * MU_PULL_REQUESTS_MAX, each at most MU_PULL_REQUEST_LEN bytes long with a number of at most ten
 * digits; they point into `text`. Returns how many. */
size_t mu_find_pull_requests(mu_bytes text, mu_bytes ret[MU_PULL_REQUESTS_MAX]);
/* The first http(s) URL behind the word "session" on one line, at most 2 KiB long; empty = none. */
mu_bytes mu_find_session_link(mu_bytes text);

/* A pull request as sidecar and worker report it, its time in whole seconds as the reference writes
 * it. */
void mu_pull_request_write(struct mu_json_w *w, mu_bytes url, mu_bytes branch, int64_t now_ms);

#endif
