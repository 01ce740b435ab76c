/* Sessions, approvals and workers as people name them on the command line: by the beginning of
 * their ids. */
#ifndef MU_MAIN_SESSION_ID_H
#define MU_MAIN_SESSION_ID_H

#include "main/client.h"

enum { MU_LONG_ID = 48 }; /* "ses_" and a UUID, with its NUL */

/* The whole id: `given` as it is, or that of the only session whose id begins so (with or without
 * "ses_"), among the newest 2000. 0, or an exit code after saying why. */
MU_MUST_USE int mu_session_named(struct mu_client *c, const char *given, char ret[MU_LONG_ID]);
/* The same for an approval, those that wait first; also its session's. */
MU_MUST_USE int mu_approval_named(struct mu_client *c, const char *given, char ret[MU_LONG_ID],
                                  char ret_session[MU_LONG_ID]);
/* The same for a worker ("rnr_…"), also by its whole name, which goes before beginnings of ids. */
MU_MUST_USE int mu_runner_named(struct mu_client *c, const char *given, char ret[MU_LONG_ID]);
/* "/sessions/<id><suffix>" */
mu_bytes mu_session_path(struct mu_client *c, const char *id, const char *suffix);
/* One call on one session, named by the first argument. `body`: JSON or empty. 0: *ret. */
MU_MUST_USE int mu_session_call(const struct mu_cli *cli, struct mu_client *c, const char *method,
                                const char *suffix, mu_bytes body, char id[MU_LONG_ID],
                                struct mu_reply *ret);
/* Prints the session that the answer tells of, which is new. */
void mu_session_made(const struct mu_client *c, const struct mu_reply *r);

#endif
