/* A control plane as a host has it: with threads of its own and driven by the host, in memory and
 * in a folder, with a runner that does what the test says. */
#ifndef TEST_LIB_LIBRARY_WORLD_H
#define TEST_LIB_LIBRARY_WORLD_H

#include "../unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "io/folder.h"
#include "muster/control_plane.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* cmocka hands a state to every test */
#pragma GCC diagnostic ignored "-Wunused-function"

enum { LOG = 400, TEXT = 120, MINUTE = 60000 };
/* Each driven world begins after the one before, and after now: ids never go back within a process.
 */
static int64_t begin_ms;
static bool driven; /* which worlds the tests run in just now */

/* --- a world --- */

struct kind {
    const char *name;
    bool file, driven;
};
static const struct kind kinds[] = {{"memory, threads", false, false},
                                    {"memory, driven", false, true},
                                    {"file, threads", true, false},
                                    {"file, driven", true, true}};

static struct world {
    const struct kind *kind;
    char folder[64];
    mu_cp *cp;
    int64_t now_ms;
    mu_cp_runner *runner;
    /* what was heard, under the lock */
    pthread_mutex_t lock;
    char log[LOG][TEXT];
    unsigned n;
    char turn[40], approval[40], session[48];
    _Atomic bool ask, refuse, hold; /* what the runner does */
} w = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const mu_cp_caller anna = {{"acme", 4}, {"anna", 4}, MU_CP_OPERATOR};
static const mu_cp_caller eve = {{"evil", 4}, {"eve", 3}, MU_CP_OPERATOR};
static const mu_cp_caller guest = {{"acme", 4}, {"guest", 5}, MU_CP_VIEWER};

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pthread_mutex_lock(&w.lock);
    if (w.n < LOG) {
        vsnprintf(w.log[w.n++], TEXT, fmt, ap);
    }
    pthread_mutex_unlock(&w.lock);
    va_end(ap);
}

static bool heard(const char *text)
{
    bool found = false;
    pthread_mutex_lock(&w.lock);
    for (unsigned i = 0; i < w.n; i++) {
        found = found || strcmp(w.log[i], text) == 0;
    }
    pthread_mutex_unlock(&w.lock);
    return found;
}

/* Whether a line ends so. */
static bool heard_end(const char *text)
{
    bool found = false;
    pthread_mutex_lock(&w.lock);
    for (unsigned i = 0; i < w.n; i++) {
        size_t n = strlen(w.log[i]), m = strlen(text);
        found = found || (n >= m && strcmp(w.log[i] + n - m, text) == 0);
    }
    pthread_mutex_unlock(&w.lock);
    return found;
}

static void step(void)
{
    if (w.kind->driven) {
        w.now_ms += 100;
        mu_cp_tick(w.cp, w.now_ms);
    } else {
        nanosleep(&(struct timespec){0, 2000000}, NULL);
    }
}

static void wait_for(const char *text)
{
    for (int i = 0; i < 5000; i++) {
        if (heard(text)) {
            return;
        }
        step();
    }
    for (unsigned i = 0; i < w.n; i++) {
        print_message("heard: %s\n", w.log[i]);
    }
    fail_msg("never heard: %s", text);
}

static mu_cp_str str(const char *text)
{
    return mu_cp_text(text);
}

static bool is(mu_cp_str s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.ptr, text, s.len) == 0;
}

#define ARGS(s) (int)(s).len, (s).ptr ? (s).ptr : ""

static void open_world(const mu_cp_config *more)
{
    mu_cp_config c;
    char why[300];
    mu_cp_config_init(&c);
    if (more) {
        c = *more;
    }
    c.host_driven = w.kind->driven;
    c.start_ms = w.now_ms;
    if (mu_cp_open(&c, w.kind->file ? w.folder : ":memory:", &w.cp, why, sizeof why) != MU_CP_OK) {
        fail_msg("%s: %s", w.kind->name, why);
    }
}

static void world_begin(const struct kind *kind, const mu_cp_config *more)
{
    w.kind = kind;
    w.n = 0;
    w.now_ms = begin_ms = (begin_ms ? begin_ms : (int64_t)time(NULL) * 1000) + 86400000;
    w.ask = w.refuse = w.hold = false;
    w.session[0] = w.turn[0] = w.approval[0] = 0;
    w.runner = NULL;
    snprintf(w.folder, sizeof w.folder, "/tmp/muster-lib-XXXXXX");
    assert_non_null(mkdtemp(w.folder));
    open_world(more);
}

static void world_end(void)
{
    mu_cp_close(w.cp);
    w.cp = NULL;
    mu_folder_remove(w.folder);
}

static void each(void (*test)(void))
{
    for (size_t i = driven; i < sizeof kinds / sizeof kinds[0]; i += 2) {
        world_begin(&kinds[i], NULL);
        test();
        world_end();
    }
}

/* --- a runner --- */

static void on_start(mu_cp_runner *r, const mu_cp_assignment *a, void *user)
{
    note("start %.*s", ARGS(a->task));
    if (w.refuse) {
        assert_int_equal(mu_cp_runner_reject(r, a->session_id), MU_CP_OK);
        return;
    }
    if (w.hold) {
        return;
    }
    assert_int_equal(mu_cp_runner_accept(r, a->session_id), MU_CP_OK);
    assert_int_equal(mu_cp_runner_preparing(r, a->session_id), MU_CP_OK);
    assert_int_equal(mu_cp_runner_running(r, a->session_id, str("codex"), str("/w")), MU_CP_OK);
}

static void on_stop(mu_cp_runner *r, mu_cp_str session, int at_once, void *user)
{
    const mu_cp_end end = {.failed = 1, .message = str("stopped")};
    note("stop");
    mu_cp_runner_ended(r, session, &end);
}

static void on_prompt(mu_cp_runner *r, mu_cp_str session, mu_cp_str turn, mu_cp_str text,
                      void *user)
{
    const mu_cp_ask ask = {.action = str("deploy"),
                           .description = str("ship it"),
                           .risk = str("high"),
                           .context = str("{\"branch\":\"main\"}")};
    snprintf(w.turn, sizeof w.turn, "%.*s", ARGS(turn));
    mu_cp_runner_turn(r, session, turn, "thinking", str(NULL));
    if (w.ask) {
        assert_int_equal(mu_cp_runner_ask(r, session, turn, &ask, w.approval), MU_CP_OK);
    }
    note("prompt %.*s", ARGS(text));
}

static void on_decided(mu_cp_runner *r, mu_cp_str session, const mu_cp_decision *d, void *user)
{
    const mu_cp_end end = {.has_exit_code = 1, .exit_code = 0, .output = str("done\n")};
    note("decided %.*s %.*s", ARGS(d->decision), ARGS(d->reason));
    mu_cp_runner_turn(r, session, str(w.turn), "done", str(NULL));
    assert_int_equal(mu_cp_runner_ended(r, session, &end), MU_CP_OK);
}

static void on_input(mu_cp_runner *r, mu_cp_str session, unsigned terminal, mu_cp_str bytes,
                     int line, void *user)
{
    note("input %u %.*s%s", terminal, ARGS(bytes), line ? " line" : "");
}

static void on_resize(mu_cp_runner *r, mu_cp_str session, unsigned terminal, int cols, int rows,
                      void *user)
{
    note("resize %u %dx%d", terminal, cols, rows);
}

static int on_pause(mu_cp_runner *r, mu_cp_str session, int pause, void *user)
{
    note(pause ? "pause" : "go on");
    return 1;
}

static void on_message(mu_cp_runner *r, mu_cp_str session, mu_cp_str json, void *user)
{
    const char *at = strstr(json.ptr, "\"type\":\"diff\"");
    const char *id = at ? strstr(json.ptr, "\"requestId\":\"") : NULL;
    if (id) {
        char answer[300];
        snprintf(answer, sizeof answer,
                 "{\"type\":\"diff\",\"requestId\":\"%.36s\",\"files\":[{\"path\":\"a\",\"status\":"
                 "\"modified\",\"additions\":1,\"deletions\":0}]}",
                 id + 13);
        assert_int_equal(mu_cp_runner_say(r, session, str(answer)), MU_CP_OK);
    }
}

static const mu_cp_runner_ops ops = {.size = sizeof ops,
                                     .start = on_start,
                                     .stop = on_stop,
                                     .prompt = on_prompt,
                                     .decided = on_decided,
                                     .input = on_input,
                                     .resize = on_resize,
                                     .pause = on_pause,
                                     .message = on_message};

static void runner_open(const char *name)
{
    static const char *const providers[] = {"codex"};
    const mu_cp_runner_config c = {.size = sizeof c,
                                   .name = str(name),
                                   .capacity = 2,
                                   .providers = providers,
                                   .n_providers = 1};
    assert_int_equal(mu_cp_runner_open(w.cp, &c, &ops, NULL, &w.runner), MU_CP_OK);
}

static void on_event(mu_cp *cp, const mu_cp_event *e, void *user)
{
    note("%lld %.*s", (long long)e->seq, ARGS(e->type));
    if (is(e->type, "SESSION_ENDED")) {
        note("ended");
    }
}

static mu_cp_status create_as(const mu_cp_caller *who, const char *task, mu_cp_result *res)
{
    const mu_cp_create q = {.provider_id = str("codex"),
                            .repo_url = str("https://example.org/a.git"),
                            .task = str(task)};
    return mu_cp_create_session(w.cp, who, &q, res);
}

static void create(const char *task)
{
    mu_cp_result res;
    assert_int_equal(create_as(&anna, task, &res), MU_CP_OK);
    assert_int_equal(res.n_sessions, 1);
    snprintf(w.session, sizeof w.session, "%.*s", ARGS(res.sessions[0].session_id));
    mu_cp_result_free(&res);
}

static void state_is(const char *state, const char *reason)
{
    mu_cp_result res;
    assert_int_equal(mu_cp_get_session(w.cp, &anna, str(w.session), &res), MU_CP_OK);
    if (!is(res.sessions[0].state, state) || (reason && !is(res.sessions[0].end_reason, reason))) {
        fail_msg("%s: %.*s %.*s", w.kind->name, ARGS(res.sessions[0].state),
                 ARGS(res.sessions[0].end_reason));
    }
    mu_cp_result_free(&res);
}

static void state_comes(const char *state)
{
    for (int i = 0; i < 5000; i++) {
        mu_cp_result res;
        assert_int_equal(mu_cp_get_session(w.cp, &anna, str(w.session), &res), MU_CP_OK);
        bool there = is(res.sessions[0].state, state);
        mu_cp_result_free(&res);
        if (there) {
            return;
        }
        step();
    }
    state_is(state, NULL);
}

static void on_done(mu_cp *cp, mu_cp_result *res, void *user)
{
    note("done %s", mu_cp_status_name(res->status));
    mu_cp_result_free(res);
}

#endif
