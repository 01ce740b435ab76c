/* What a task asks of its sandbox (oz-worker.md 16: policy, resources): which kinds can give it,
 * what this worker offers in its hello, and what becomes of it: never more than the operator's. */
#include <errno.h>
#include <stdio.h>

#include "exec/broker/policy.h"
#include "proto/needs.h"
#include "proto/repo.h"
#include "worker/worker_int.h"

enum { REPO_LINES = 100 };

/* The kind namespace without namespaces (sandbox.md 3, rung D) closes sockets and no more. */
static int64_t of_namespace(const struct mu_backend *b)
{
    const struct mu_worker_conf *c = b->w->conf;
    int64_t can = MU_NEED_NET_NONE | MU_NEED_LIMITS | MU_NEED_DISK | MU_NEED_TIME | MU_NEED_LIVE;
    if (strcmp(b->report.strength, "weak") != 0) {
        can |= MU_NEED_FAKE_ROOT;
        can |= c->network != MU_NET_NONE ? MU_NEED_NET_PROXY : 0;
        can |= c->network == MU_NET_HOST ? MU_NEED_NET_HOST : 0;
        can |= b->w->settings.allow_nested ? MU_NEED_NESTED : 0;
    }
    return can | (b->w->settings.base ? MU_NEED_HARNESSES : 0);
}

static int64_t able(const struct mu_backend *b)
{
    const char *kind = b->ops->name;
    if (!strcmp(kind, "namespace")) {
        return of_namespace(b);
    }
    if (!strcmp(kind, "docker")) {
        return MU_NEED_NET_NONE | MU_NEED_LIMITS | MU_NEED_TIME | MU_NEED_LIVE | MU_NEED_HARNESSES |
               (b->w->conf->network == MU_NET_HOST ? MU_NEED_NET_HOST : 0);
    }
    return MU_NEED_TIME |
           (!strcmp(kind, "direct") ? MU_NEED_NET_HOST | MU_NEED_LIVE : MU_NEED_HARNESSES);
}

static int64_t wanted(const struct mu_wire_assignment *as)
{
    const struct mu_wire_policy *p = &as->policy;
    int64_t want = p->network == MU_WIRE_NET_NONE    ? MU_NEED_NET_NONE
                   : p->network == MU_WIRE_NET_PROXY ? MU_NEED_NET_PROXY
                                                     : 0; /* host: it gets what there is */
    want |= p->allow ? MU_NEED_NET_PROXY : 0;
    want |= p->nested ? MU_NEED_NESTED : 0;
    want |= p->fake_root ? MU_NEED_FAKE_ROOT : 0;
    want |= as->memory_mb > 0 || as->pids > 0 || as->cpus > 0 ? MU_NEED_LIMITS : 0;
    want |= as->live ? MU_NEED_LIVE : 0;
    return want | (as->disk_mb > 0 ? MU_NEED_DISK : 0);
}

bool mu_policy_fits(const struct mu_backend *b, const struct mu_wire_assignment *as, char *ret_why,
                    size_t size)
{
    int64_t lacks = wanted(as) & ~able(b);
    for (size_t i = 0; i < MU_FEATURES; i++) {
        if (lacks & mu_features[i].bits) {
            snprintf(ret_why, size, "the sandboxes of this worker (%s) do not offer %s",
                     b->ops->name, mu_features[i].word);
            return false;
        }
    }
    return true;
}

void mu_policy_features(const struct mu_worker *w, struct mu_json_w *jw)
{
    int64_t can = 0;
    for (size_t i = 0; i < w->n_backends; i++) {
        can |= w->backends[i].report.usable ? able(&w->backends[i]) : 0;
    }
    for (size_t i = 0; i < MU_FEATURES; i++) {
        if (can & mu_features[i].bits) {
            mu_jw_str(jw, mu_str(mu_features[i].word));
        }
    }
}

/* --- hosts --- */

/* "https://user@host:port/path" as host:port; over ssh and git the sandbox speaks https too. */
static void add_host(struct mu_buf *list, mu_bytes url)
{
    char entry[MU_HOST_MAX + 16];
    ptrdiff_t at = mu_bytes_find(url, MU_B("://"));
    bool own_port = mu_bytes_starts(url, MU_B("https:")) || mu_bytes_starts(url, MU_B("http:"));
    const char *port = mu_bytes_starts(url, MU_B("http:")) ? "80" : "443";
    mu_bytes rest = mu_bytes_from(url, at < 0 ? url.len : (size_t)at + 3);
    mu_bytes host = mu_bytes_split(&rest, '/');
    while ((at = mu_bytes_find_char(host, '@')) >= 0) {
        host = mu_bytes_from(host, (size_t)at + 1);
    }
    mu_bytes number = host;
    host = mu_bytes_split(&number, ':');
    if (host.len == 0 || host.len > MU_HOST_MAX) {
        return;
    }
    int n = number.len && own_port
                ? snprintf(entry, sizeof entry, "%.*s:%.*s", MU_ARGS(host), MU_ARGS(number))
                : snprintf(entry, sizeof entry, "%.*s:%s", MU_ARGS(host), port);
    for (char *c = entry; *c; c++) {
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
    }
    if (n < (int)sizeof entry && mu_allow_entry_ok(mu_str(entry))) { /* no addresses */
        mu_buf_add_str(list, entry);
        mu_buf_add_char(list, ',');
    }
}

/* Where the environment's repositories came from, work may be pushed to. */
static void add_git_hosts(struct mu_attempt *t, struct mu_buf *list)
{
    mu_bytes text = mu_wire_var(&t->as, "OZ_ENV_REPOS");
    for (int i = 0; text.ptr && i < REPO_LINES; i++) {
        mu_bytes line = mu_bytes_trim(mu_bytes_split(&text, '\n'));
        struct mu_repo_spec spec;
        const char *why;
        if (line.len && mu_repo_spec_parse(line, &spec, &why) == 0) {
            add_host(list, mu_repo_url(&t->arena, &spec));
        }
    }
}

/* The list of the environment, as text, and the hosts of its repositories. */
static const char *allowed_hosts(struct mu_attempt *t)
{
    yyjson_val *allow = t->as.policy.allow, *v;
    struct mu_buf text;
    size_t i, n;
    mu_buf_init(&text, 1 << 20);
    if (yyjson_is_str(allow)) {
        mu_buf_add(&text, mu_json_bytes(allow));
        mu_buf_add_char(&text, ',');
    } else if (yyjson_is_arr(allow)) {
        yyjson_arr_foreach(allow, i, n, v)
        {
            mu_buf_add(&text, mu_json_bytes(v));
            mu_buf_add_char(&text, ',');
        }
    }
    add_git_hosts(t, &text);
    const char *made =
        text.failed || !text.len ? NULL : mu_arena_dup(&t->arena, mu_buf_bytes(&text)).ptr;
    mu_buf_fini(&text);
    return made;
}

/* --- what it gets --- */

static enum mu_sandbox_network network_of(const struct mu_attempt *t)
{
    enum mu_sandbox_network most = t->w->conf->network;
    enum mu_wire_network asked = t->as.policy.network;
    if (most == MU_NET_NONE || asked == MU_WIRE_NET_NONE) {
        return MU_NET_NONE;
    }
    return asked == MU_WIRE_NET_PROXY || t->as.policy.allow ? MU_NET_PROXY : most;
}

static int64_t lesser(int64_t asked, int64_t most)
{
    return asked <= 0 ? 0 : most > 0 ? MU_MIN(asked, most) : asked;
}

void mu_policy_fill(struct mu_attempt *t, struct mu_sandbox_spec *spec)
{
    const struct mu_sandbox_settings *set = &t->w->settings;
    const struct mu_wire_assignment *as = &t->as;
    double cpus = as->vcpus > 0 ? (double)as->vcpus : as->cpus;
    spec->network = network_of(t);
    spec->fake_root = as->policy.fake_root;
    spec->nested = as->policy.nested;
    spec->broker_policy = spec->network == MU_NET_PROXY ? allowed_hosts(t) : NULL;
    spec->cpus = cpus > 0 && set->cpus > 0 ? MU_MIN(cpus, set->cpus) : cpus;
    spec->memory_bytes =
        lesser(as->memory_gb > 0 ? as->memory_gb << 30 : as->memory_mb << 20, set->memory_bytes);
    spec->pids = lesser(as->pids, set->pids);
    spec->disk_bytes = lesser(as->disk_mb << 20, set->disk_bytes);
}
