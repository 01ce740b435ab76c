/* What the engine is and what it gives: ping, version, info. */
#include <errno.h>
#include <stdio.h>

#include "exec/sandbox/docker_int.h"

struct mu_docker_check {
    struct mu_docker *d;
    struct mu_engine_call *call;
    struct mu_sandbox_report report;
    char version[48];
    int64_t began_ms;
    void (*done)(void *arg, const struct mu_sandbox_report *report);
    void *arg;
};

static void over(struct mu_docker_check *c)
{
    c->d->check = NULL;
    c->done(c->arg, &c->report);
    mu_free(c);
}

static void fail(struct mu_docker_check *c, const char *why)
{
    snprintf(c->report.strength, sizeof c->report.strength, "unavailable");
    snprintf(c->report.summary, sizeof c->report.summary, "%.150s", why);
    c->report.usable = false;
    over(c);
}

static struct mu_sandbox_layer *layer(struct mu_docker_check *c, const char *name, bool active)
{
    struct mu_sandbox_layer *l = &c->report.layers[c->report.n_layers++];
    snprintf(l->name, sizeof l->name, "%s", name);
    l->active = active;
    return l;
}

/* SecurityOptions: ["name=seccomp,profile=builtin", "name=rootless", "name=userns", …] */
static bool option(yyjson_val *info, const char *name)
{
    yyjson_val *list = mu_json_get(info, "SecurityOptions"), *v;
    size_t i, n;
    yyjson_arr_foreach(list, i, n, v)
    {
        mu_bytes text = mu_json_bytes(v);
        if (mu_bytes_starts(text, MU_B("name="))) {
            mu_bytes rest = mu_bytes_from(text, 5);
            if (mu_bytes_is(mu_bytes_split(&rest, ','), name)) {
                return true;
            }
        }
    }
    return false;
}

static void user_layer(struct mu_docker_check *c, bool rootless, bool userns)
{
    struct mu_sandbox_layer *l = layer(c, "user ns", rootless || userns);
    if (l->active) {
        snprintf(l->detail, sizeof l->detail, "%s",
                 rootless ? "the engine runs without root" : "root inside is nobody outside");
    } else {
        snprintf(l->cause, sizeof l->cause, "root inside is root of the engine's machine");
        snprintf(l->cure, sizeof l->cure, "run the engine rootless, or with userns-remap");
    }
}

static void limit_layer(struct mu_docker_check *c, yyjson_val *info)
{
    bool memory = mu_json_get_bool(info, "MemoryLimit", false);
    bool cpu = mu_json_get_bool(info, "CpuCfsQuota", false) ||
               mu_json_get_bool(info, "CPUCfsQuota", false);
    bool pids = mu_json_get_bool(info, "PidsLimit", false);
    struct mu_sandbox_layer *l = layer(c, "limits", memory && pids);
    char driver[24], cgroups[8];
    mu_engine_text(driver, sizeof driver, mu_json_get_bytes(info, "CgroupDriver"));
    mu_engine_text(cgroups, sizeof cgroups, mu_json_get_bytes(info, "CgroupVersion"));
    snprintf(l->detail, sizeof l->detail, "cgroup %s (%s):%s%s%s", cgroups[0] ? cgroups : "?",
             driver[0] ? driver : "?", memory ? " memory" : "", cpu ? " cpu" : "",
             pids ? " processes" : "");
    if (!l->active) {
        snprintf(l->cause, sizeof l->cause, "the engine cannot limit%s%s", memory ? "" : " memory",
                 pids ? "" : " processes");
        snprintf(l->cure, sizeof l->cure,
                 "give the engine a cgroup with the controllers memory and pids");
    }
}

static void judge(struct mu_docker_check *c, yyjson_val *info)
{
    struct mu_docker *d = c->d;
    bool rootless = option(info, "rootless"), userns = option(info, "userns");
    bool seccomp = option(info, "seccomp");
    user_layer(c, rootless, userns);
    struct mu_sandbox_layer *l = layer(c, "seccomp", seccomp);
    snprintf(l->detail, sizeof l->detail, seccomp ? "the engine's profile" : "none");
    if (!seccomp) {
        snprintf(l->cause, sizeof l->cause, "the engine was built or started without seccomp");
        snprintf(l->cure, sizeof l->cure, "start the engine with its default seccomp profile");
    }
    l = layer(c, "no-new-privs", true);
    snprintf(l->detail, sizeof l->detail, "set on every container");
    limit_layer(c, info);
    l = layer(c, "network", true);
    snprintf(l->detail, sizeof l->detail, "%.60s (no broker: the engine's network decides)",
             d->settings.task_network && *d->settings.task_network ? d->settings.task_network
                                                                   : "the engine's default");
    c->report.usable = true;
    snprintf(c->report.strength, sizeof c->report.strength, "%s",
             !seccomp               ? "weak"
             : (rootless || userns) ? "full"
                                    : "full (root engine)");
    snprintf(c->report.summary, sizeof c->report.summary,
             "engine %.40s, API %s, %.16s/%.16s, answers in %lld ms, at %.60s", c->version,
             mu_engine_version(d->engine), d->os, d->arch,
             (long long)(mu_loop_now_ms(d->loop) - c->began_ms), mu_engine_host(d->engine));
}

static void on_info(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_check *c = arg;
    struct mu_arena a;
    c->call = NULL;
    mu_arena_init(&a, 16 << 20);
    yyjson_val *v = res->result == 0 && res->status == 200 ? mu_docker_json_(&a, res->body) : NULL;
    if (v) {
        judge(c, v);
        over(c);
    } else {
        fail(c, res->message ? res->message : "the engine does not tell about itself");
    }
    mu_arena_fini(&a);
}

static void on_version(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_check *c = arg;
    struct mu_docker *d = c->d;
    struct mu_arena a;
    char why[160];
    c->call = NULL;
    mu_arena_init(&a, 1 << 20);
    yyjson_val *v = res->result == 0 && res->status == 200 ? mu_docker_json_(&a, res->body) : NULL;
    mu_engine_text(d->os, sizeof d->os, mu_json_get_bytes(v, "Os"));
    mu_engine_text(d->arch, sizeof d->arch, mu_json_get_bytes(v, "Arch"));
    mu_engine_text(c->version, sizeof c->version, mu_json_get_bytes(v, "Version"));
    mu_arena_fini(&a);
    bool known = !strcmp(d->arch, "amd64") || !strcmp(d->arch, "arm64");
    if (!v) {
        fail(c, res->message ? res->message : "the engine does not tell its version");
        return;
    }
    if (strcmp(d->os, "linux") != 0 || !known) {
        snprintf(why, sizeof why,
                 "the engine runs %s/%s; supported are linux/amd64 and linux/arm64", d->os,
                 d->arch);
        fail(c, why);
        return;
    }
    const struct mu_engine_request req = {
        .method = "GET", .done = on_info, .arg = c, .max_body = MU_DOCKER_ANSWER};
    if (mu_docker_ask_(d, &req, &c->call, "/info") < 0) {
        fail(c, mu_err_text(-ENOMEM));
    }
}

/* The ping goes before it: its version decides what is spoken. */
int mu_docker_check_(struct mu_sandbox_driver *driver,
                     void (*done)(void *arg, const struct mu_sandbox_report *report), void *arg)
{
    struct mu_docker *d = (struct mu_docker *)driver;
    if (d->check) {
        return MU_E_BUSY;
    }
    struct mu_docker_check *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    c->d = d;
    c->done = done;
    c->arg = arg;
    c->began_ms = mu_loop_now_ms(d->loop);
    snprintf(c->report.kind, sizeof c->report.kind, "docker");
    const struct mu_engine_request req = {
        .method = "GET", .done = on_version, .arg = c, .timeout_ms = 15000, .max_body = 256 << 10};
    int r = mu_docker_ask_(d, &req, &c->call, "/version");
    if (r < 0) {
        mu_free(c);
        return r;
    }
    d->check = c;
    return 0;
}

void mu_docker_check_fini_(struct mu_docker *d)
{
    if (d->check) {
        mu_engine_cancel(d->check->call);
        mu_free(d->check);
        d->check = NULL;
    }
}
