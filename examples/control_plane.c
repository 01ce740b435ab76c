/* A control plane inside a program: a session, an agent that asks before it acts, a person who
 * allows it. cc control_plane.c $(pkg-config --cflags --libs muster) -pthread */
#include <muster/control_plane.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

static sem_t over;

static void check(mu_cp_status status, const char *what)
{
    if (status != MU_CP_OK) {
        fprintf(stderr, "%s: %s\n", what, mu_cp_status_name(status));
        exit(1);
    }
}

/* --- the runner: executes sessions; a real one would start an agent in a sandbox --- */

static void start(mu_cp_runner *r, const mu_cp_assignment *a, void *user)
{
    (void)user;
    check(mu_cp_runner_accept(r, a->session_id), "accept");
    check(mu_cp_runner_running(r, a->session_id, mu_cp_text("claude_code"), mu_cp_text("/work")),
          "running");
}

static void prompt(mu_cp_runner *r, mu_cp_str session, mu_cp_str turn, mu_cp_str text, void *user)
{
    char id[37];
    mu_cp_ask ask = {.action = mu_cp_text("merge"), .description = mu_cp_text("git push")};
    (void)user;
    printf("agent: %.*s? First I must push.\n", (int)text.len, text.ptr);
    check(mu_cp_runner_ask(r, session, turn, &ask, id), "ask");
}

static void decided(mu_cp_runner *r, mu_cp_str session, const mu_cp_decision *d, void *user)
{
    mu_cp_end end = {.has_exit_code = 1, .output = mu_cp_text("pushed\n")};
    (void)user;
    printf("agent: I hear %.*s.\n", (int)d->decision.len, d->decision.ptr);
    check(mu_cp_runner_ended(r, session, &end), "ended");
}

/* --- the person: allows what is asked --- */

static void happened(mu_cp *cp, const mu_cp_event *e, void *user)
{
    const mu_cp_caller *anna = user;
    mu_cp_result res;
    printf("%3lld %.*s\n", (long long)e->seq, (int)e->type.len, e->type.ptr);
    if (strncmp(e->type.ptr, "APPROVAL_REQUESTED", e->type.len) == 0) {
        check(mu_cp_get_session(cp, anna, e->subject_id, &res), "get");
        mu_cp_result more;
        check(mu_cp_resolve_approval(cp, anna, e->subject_id,
                                     res.sessions[0].pending_approvals[0].approval_id, 1,
                                     mu_cp_text("go ahead"), 0, &more),
              "resolve");
        mu_cp_result_free(&more);
        mu_cp_result_free(&res);
    } else if (strncmp(e->type.ptr, "SESSION_ENDED", e->type.len) == 0) {
        sem_post(&over);
    }
}

int main(void)
{
    mu_cp *cp;
    mu_cp_runner *runner;
    mu_cp_result res;
    char why[256];
    mu_cp_caller anna = {mu_cp_text("acme"), mu_cp_text("anna"), MU_CP_OPERATOR};
    mu_cp_runner_config rc = {.size = sizeof rc, .name = mu_cp_text("here"), .capacity = 1};
    mu_cp_runner_ops ops = {
        .size = sizeof ops, .start = start, .prompt = prompt, .decided = decided};
    mu_cp_create create = {.provider_id = mu_cp_text("claude_code"),
                           .repo_url = mu_cp_text("https://example.org/shop.git"),
                           .task = mu_cp_text("release the shop")};
    sem_init(&over, 0, 0);
    if (mu_cp_open(NULL, ":memory:", &cp, why, sizeof why) != MU_CP_OK) {
        fprintf(stderr, "open: %s\n", why);
        return 1;
    }
    mu_cp_on(cp, MU_CP_ON_SESSION | MU_CP_ON_APPROVAL, happened, &anna);
    check(mu_cp_runner_open(cp, &rc, &ops, NULL, &runner), "runner");
    check(mu_cp_create_session(cp, &anna, &create, &res), "create");
    printf("session %.*s\n", (int)res.sessions[0].session_id.len, res.sessions[0].session_id.ptr);
    sem_wait(&over);
    mu_cp_str id = res.sessions[0].session_id;
    mu_cp_result end;
    check(mu_cp_get_session(cp, &anna, id, &end), "get");
    printf("%.*s (%.*s)\n", (int)end.sessions[0].state.len, end.sessions[0].state.ptr,
           (int)end.sessions[0].end_reason.len, end.sessions[0].end_reason.ptr);
    mu_cp_result_free(&end);
    mu_cp_result_free(&res);
    mu_cp_close(cp);
    return 0;
}
