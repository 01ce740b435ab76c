/* The driver and the broker around one sandbox, for tests of the way out and for bench/sandbox.py:
 *   outside <state> <agent tree> <script> [NAME=value …]
 * Settings from the environment: OUTSIDE_ALLOW ("host:port,…": the broker's list),
 * OUTSIDE_ALLOW_ADDR, OUTSIDE_FORWARD, OUTSIDE_RESOLVE ("name=address,…": what names resolve to,
 * nothing else does). OUTSIDE_RUNS=n OUTSIDE_AT_ONCE=m: starts n, m at a time, and prints the
 * milliseconds from start() to the first output of each, or "failed <why>"; else prints the log and
 * then "exit <code> <reason>". OUTSIDE_REPO=url: the workspace is a checkout of it; the
 * milliseconds count from the request for the checkout.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/env.h"
#include "exec/broker/broker.h"
#include "exec/git/checkout.h"
#include "exec/sandbox/sandbox.h"

enum { RUNS = 4096 };

struct one {
    struct mu_sandbox *s;
    struct mu_checkout *checkout;
    int64_t begun_ns;
    bool heard;
    char id[32];
};
static struct mu_loop *loop;
static struct mu_sandbox_driver *driver;
static struct mu_git_cache *git;
static struct one all[RUNS];
static int n_all = 1, n_started, n_over, at_once = 1;
static bool timing;
static const char *script;
static const char *const *env;

static void start_next(void);

static void on_log(void *arg, int64_t offset, mu_bytes bytes)
{
    struct one *o = arg;
    (void)offset;
    if (!timing) {
        fwrite(bytes.ptr, 1, bytes.len, stdout);
    } else if (!o->heard) {
        printf("%.3f\n", (double)(mu_env_real.mono_ns(&mu_env_real) - o->begun_ns) / 1e6);
    }
    o->heard = true;
}

static void on_released(void *arg)
{
    struct one *o = arg;
    o->checkout = o->checkout ? mu_checkout_release(o->checkout) : NULL;
    n_over++;
    start_next();
    if (n_over == n_all) {
        mu_loop_stop(loop);
    }
}

static void on_stopped(void *arg)
{
    (void)arg;
    mu_loop_stop(loop);
}

static void on_ended(void *arg, const struct mu_sandbox_result *r)
{
    struct one *o = arg;
    if (!timing) {
        printf("exit %d %s %s\n", r->exit_code, r->failure_reason ? r->failure_reason : "-",
               r->message ? r->message : "");
    } else if (!o->heard || r->exit_code != 0) {
        printf("failed %d %s\n", r->exit_code, r->message ? r->message : "without output");
    }
    mu_sandbox_namespace.release(o->s, on_released, o);
}

static void launch(struct one *o, const struct mu_sandbox_checkout *tree)
{
    static const struct mu_sandbox_events events = {.log = on_log, .ended = on_ended};
    static const char *const no_args[] = {NULL};
    struct mu_sandbox_spec spec = {.execution_id = o->id,
                                   .env = env,
                                   .argv = no_args,
                                   .prompt = mu_str(script),
                                   .checkouts = tree,
                                   .n_checkouts = tree ? 1 : 0};
    if (mu_sandbox_namespace.start(driver, &spec, &events, o, &o->s) < 0) {
        printf("failed: start\n");
        exit(1);
    }
}

static void on_checkout(void *arg, int result, const struct mu_checkout_view *view, const char *why)
{
    if (result < 0) {
        printf("failed: %s\n", why);
        exit(1);
    }
    launch(arg, &(struct mu_sandbox_checkout){
                    .tree = view->tree, .subdir = "", .objects = view->objects});
}

static void start_next(void)
{
    while (n_started < n_all && n_started - n_over < at_once) {
        struct one *o = &all[n_started++];
        snprintf(o->id, sizeof o->id, "outside-%d", n_started);
        o->begun_ns = mu_env_real.mono_ns(&mu_env_real);
        const struct mu_checkout_request req = {
            .url = getenv("OUTSIDE_REPO"), .ref = "", .done = on_checkout, .arg = o};
        if (!git) {
            launch(o, NULL);
        } else if (mu_checkout_start(git, &req, &o->checkout) < 0) {
            printf("failed: checkout\n");
            exit(1);
        }
    }
}

static void new_cache(const char *state)
{
    struct mu_err err;
    static char dir[4096];
    snprintf(dir, sizeof dir, "%s/git", state);
    const struct mu_git_settings settings = {.env = &mu_env_real,
                                             .dir = dir,
                                             .max_bytes = INT64_C(20) << 30,
                                             .fetch_timeout_ms = 600000,
                                             .fresh_ms = 5000,
                                             .parallel = 4};
    if (mu_git_cache_new(loop, &settings, &git, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
}

static char *resolve(void *arg, const char *host)
{
    mu_bytes rest = mu_str(arg);
    while (rest.ptr && rest.len) {
        mu_bytes address = mu_bytes_split(&rest, ',');
        if (mu_bytes_is(mu_bytes_split(&address, '='), host)) {
            return mu_bytes_dup(address);
        }
    }
    return NULL;
}

static struct mu_broker *new_broker(void)
{
    struct mu_err err;
    struct mu_broker *b = NULL;
    char *names = getenv("OUTSIDE_RESOLVE");
    struct mu_broker_settings settings = {
        .env = &mu_env_real,
        .allow = getenv("OUTSIDE_ALLOW"),
        .allow_addr = getenv("OUTSIDE_ALLOW_ADDR"),
        .forward = getenv("OUTSIDE_FORWARD"),
        .max_connections = 64,
        .max_bytes_per_hour = 1 << 30,
        .resolve = names ? resolve : NULL,
        .resolve_arg = names,
    };
    if (getenv("OUTSIDE_ALLOW") && mu_broker_new(loop, &settings, &b, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return b;
}

int main(int argc, char **argv)
{
    if (argc < 4 || mu_loop_new(&mu_env_real, "outside", &loop) < 0) {
        fprintf(stderr, "usage: outside STATE AGENT SCRIPT [NAME=value ...]\n");
        return 2;
    }
    struct mu_err err;
    char worker_id[32]; /* its control groups are its own, whoever else runs now */
    snprintf(worker_id, sizeof worker_id, "outside-%d", (int)getpid());
    struct mu_broker *broker = new_broker();
    struct mu_sandbox_settings settings = {
        .env = &mu_env_real,
        .state_dir = argv[1],
        .bundle_dir = argv[2],
        .worker_id = worker_id,
        .broker = broker,
    };
    script = argv[3];
    env = (const char *const *)argv + 4;
    timing = getenv("OUTSIDE_RUNS") != NULL;
    n_all = timing ? (int)strtol(getenv("OUTSIDE_RUNS"), NULL, 10) : 1;
    at_once = getenv("OUTSIDE_AT_ONCE") ? (int)strtol(getenv("OUTSIDE_AT_ONCE"), NULL, 10) : 1;
    n_all = n_all < 1 ? 1 : n_all > RUNS ? RUNS : n_all;
    if (mu_sandbox_namespace.open(loop, &settings, &driver, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (getenv("OUTSIDE_REPO")) {
        new_cache(argv[1]);
    }
    start_next();
    mu_loop_run(loop);
    if (git) {
        mu_git_cache_stop(git, on_stopped, NULL);
        mu_loop_run(loop);
        git = mu_git_cache_free(git);
    }
    mu_sandbox_namespace.close(driver);
    mu_broker_free(broker);
    mu_loop_free(loop);
    return 0;
}
