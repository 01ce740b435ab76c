/* A container stands still: the engine's pause, which freezes its cgroup. */
#include <errno.h>

#include "exec/sandbox/docker_int.h"

enum { ANSWER_MS = 10000 };

static void on_held(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    b->hold = NULL;
    /* 409, and podman's 500: it does so already, or does not run any more */
    bool ok = res->result == 0 && res->status >= 200 && res->status < 300;
    if (ok) {
        b->held = b->holding;
    }
    void (*frozen)(void *arg, int result) = b->frozen;
    b->frozen = NULL;
    if (frozen) {
        frozen(b->frozen_arg, ok ? 0 : res->result < 0 ? res->result : MU_E_UNAVAILABLE);
    }
    if (b->stopping && b->phase == MU_DOCKER_RUN) {
        b->held = false; /* nothing better can be done than to go on */
        mu_docker_stop_(b);
    }
}

static int hold(struct mu_docker_box *b, bool on)
{
    const struct mu_engine_request req = {
        .method = "POST", .timeout_ms = ANSWER_MS, .done = on_held, .arg = b};
    b->holding = on;
    return mu_docker_ask_(b->d, &req, &b->hold, "/containers/%s/%s", b->id,
                          on ? "pause" : "unpause");
}

void mu_docker_freeze_(struct mu_sandbox *s, bool on, void (*done)(void *arg, int result),
                       void *arg)
{
    struct mu_docker_box *b = (struct mu_docker_box *)s;
    if (b->phase != MU_DOCKER_RUN || b->hold || b->stopping) {
        done(arg, MU_E_UNAVAILABLE);
        return;
    }
    if (b->held == on) {
        done(arg, 0);
        return;
    }
    b->frozen = done;
    b->frozen_arg = arg;
    int r = hold(b, on);
    if (r < 0) {
        b->frozen = NULL;
        done(arg, r);
    }
}

bool mu_docker_thaw_(struct mu_docker_box *b)
{
    if (b->hold) {
        return true;
    }
    return b->held && hold(b, false) == 0;
}
