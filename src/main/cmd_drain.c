/* muster drain, undrain: a worker goes out of use, and comes back. */
#include <stdio.h>
#include <time.h>

#include "main/session_id.h"
#include "main/ui.h"
#include "proto/json.h"

enum { LOOK_MS = 500, MAX_BREAKS = 60, MINUTES_MAX = 10080, BODY = 4096 };

static mu_bytes path_of(struct mu_client *c, const char *id, const char *suffix)
{
    return mu_client_path(c, "/runners", id, suffix);
}

static int64_t held(yyjson_val *runner)
{
    yyjson_val *load = mu_json_get(runner, "load");
    return mu_json_get_i64(load, "activeSessions", 0) +
           mu_json_get_i64(load, "reservedSessions", 0);
}

static bool drains(yyjson_val *runner)
{
    return mu_json_get_bytes(runner, "drainRequestedAt").len > 0;
}

static void say_left(const char *name, int64_t n, bool reachable)
{
    fprintf(stderr, "%s drains: %lld session%s left%s\n", name, (long long)n, n == 1 ? "" : "s",
            reachable ? "" : " (the worker is offline)");
}

/* Until it is drained. 0 and *ret, the last answer; else an exit code after saying why. */
static int wait_drained(struct mu_client *c, const char *name, const char *id, struct mu_reply *ret)
{
    int64_t last = -1;
    for (int breaks = 0;;) {
        mu_arena_fini(&c->arena); /* the answers of a long wait would add up */
        const struct mu_request req = {
            .method = "GET", .path = path_of(c, id, ""), .quiet = breaks < MAX_BREAKS};
        int r = mu_client_call(c, &req, ret);
        yyjson_val *runner = mu_json_get(ret->root, "data");
        if (r && ret->status >= 400 && r != MU_EXIT_NO_SERVER) {
            return req.quiet ? mu_client_refused(c, ret) : r;
        }
        if (r && ++breaks > MAX_BREAKS) {
            return r;
        }
        if (r == 0) {
            breaks = 0;
            if (mu_json_get_bool(runner, "drained", false)) {
                return 0;
            }
            if (!drains(runner)) {
                fprintf(stderr, "muster: %s was told to take sessions again\n", name);
                return MU_EXIT_FAILED;
            }
            if (held(runner) != last) {
                last = held(runner);
                say_left(name, last, mu_json_get_bool(runner, "connected", false));
            }
        }
        struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
        nanosleep(&pause, NULL);
    }
}

static int body_of(const struct mu_cli *cli, struct mu_buf *dst)
{
    int64_t minutes = -1;
    int r = mu_cli_number(cli, "stop-after", 0, MINUTES_MAX, -1, &minutes);
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    mu_client_option(&w, cli, "reason", "reason");
    if (minutes >= 0) {
        mu_jw_ki64(&w, "timeoutMinutes", minutes);
    }
    mu_jw_obj_end(&w);
    return r ? r : dst->failed ? mu_client_no_memory() : 0;
}

static int drain(struct mu_cli *cli, struct mu_client *c, mu_bytes body)
{
    struct mu_reply reply;
    char id[MU_LONG_ID];
    const char *name = cli->args[0];
    int r = mu_runner_named(c, name, id);
    if (r) {
        return r;
    }
    const struct mu_request req = {
        .method = "POST", .path = path_of(c, id, "/drain"), .body = body};
    r = mu_client_call(c, &req, &reply);
    if (r == 0 && mu_cli_has(cli, "wait")) {
        r = wait_drained(c, name, id, &reply);
    }
    yyjson_val *runner = r == 0 ? mu_json_get(reply.root, "data") : NULL;
    if (r == 0 && c->json) {
        mu_client_print(&reply);
    } else if (r == 0 && mu_json_get_bool(runner, "drained", false)) {
        printf("%s is drained\n", name);
    } else if (r == 0) {
        printf("%s drains, %lld left\n", name, (long long)held(runner));
    }
    return r;
}

int mu_cmd_drain(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_buf body;
    mu_buf_init(&body, BODY);
    int r = body_of(cli, &body);
    if (r == 0) {
        r = mu_client_open(cli, &c);
        if (r == 0) {
            r = drain(cli, &c, mu_buf_bytes(&body));
            mu_client_close(&c);
        }
    }
    mu_buf_fini(&body);
    return r;
}

int mu_cmd_undrain(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    char id[MU_LONG_ID];
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    r = mu_runner_named(&c, cli->args[0], id);
    if (r == 0) {
        const struct mu_request req = {.method = "POST", .path = path_of(&c, id, "/undrain")};
        r = mu_client_call(&c, &req, &reply);
    }
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        printf("%s takes sessions again\n", cli->args[0]);
    }
    mu_client_close(&c);
    return r;
}
