/* The repository's credential is the runner's, not the agent's, as long as the policy wants to be
 * asked before work is sent away (village-control-plane.md 10.6): `git push` and `gh` ask here
 * first, from inside whatever runs them. */
#ifndef MU_RUNNER_PUSH_H
#define MU_RUNNER_PUSH_H

#include <poll.h>

#include "base/buf.h"
#include "exec/agents/acp.h"

#define MU_PUSH_ENV    "MUSTER_GATE" /* the folder of the socket */
#define MU_PUSH_SOCKET "gate"
#define MU_ASKPASS_ENV "MUSTER_ASKPASS"

enum {
    MU_PUSH_PATH = 4096,
    MU_PUSH_REQUEST = 64 << 10, /* 4 bytes length, then the words, each with a NUL */
    MU_PUSH_ANSWER = 64 << 10,  /* the same, then 'y' and NAME=value lines, or 'n' and why */
    MU_PUSH_CONNS = 8,
    MU_PUSH_FDS = MU_PUSH_CONNS + 1,
    MU_PUSH_HANDLE = 1 << 30, /* handles of its questions; those of agents are below */
};

struct mu_live;
struct mu_push_conn {
    int fd; /* -1: free */
    unsigned handle;
    bool asked;
    struct mu_buf in;
};
struct mu_push {
    bool settled;  /* what a program in here may know is decided */
    int listener;  /* -1: nothing is kept back */
    unsigned last; /* handle */
    struct mu_buf credential;
    struct mu_push_conn conns[MU_PUSH_CONNS];
};

void mu_push_init(struct mu_push *p);
void mu_push_fini(struct mu_push *p);
/* Before the agent starts: takes the credential out of the environment if the policy wants to be
 * asked. 0 or -errno: then the agent must not start. */
MU_MUST_USE int mu_push_hold(struct mu_live *v);
/* What to poll for; `who` is handed to mu_push_io(). */
size_t mu_push_want(const struct mu_live *v, struct pollfd fds[MU_PUSH_FDS], int who[MU_PUSH_FDS]);
void mu_push_io(struct mu_live *v, int who);
/* The answer to a question with this handle. */
void mu_push_decide(struct mu_live *v, unsigned handle, bool allow, const char *words);

#endif
