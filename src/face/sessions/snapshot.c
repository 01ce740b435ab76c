/* The workspace of a session as the worker route stores it: the environment's snapshot with the
 * session's repository in front, and what its policy says of the sandbox. */
#include <errno.h>
#include <stdio.h>

#include "app/environments/sandbox.h"
#include "exec/broker/policy.h"
#include "face/sessions/sessions_int.h"
#include "proto/needs.h"

enum { SNAPSHOT_MAX = 4 << 20, HOST_MAX = 270 };

/* What a policy limits, and what the sandbox calls it. */
static const struct {
    const char *policy, *sandbox;
} limits[] = {
    {"memoryMb", "memory_mb"}, {"cpu", "cpus"}, {"maxProcesses", "pids"}, {"diskMb", "disk_mb"}};

/* --- what the schema does not say --- */

/* host:port; a host alone is its port 443. */
static mu_bytes egress(mu_bytes entry, char dst[HOST_MAX])
{
    bool port = mu_bytes_find_char(entry, ':') >= 0;
    int n = snprintf(dst, HOST_MAX, "%.*s%s", MU_ARGS(entry), port ? "" : ":443");
    return mu_bytes_of(dst, n < 0 || n >= HOST_MAX ? 0 : (size_t)n);
}

static bool placed_by(mu_bytes feature, int64_t *needs)
{
    for (size_t i = 0; i < MU_FEATURES; i++) {
        if (mu_bytes_is(feature, mu_features[i].word)) {
            *needs |= mu_features[i].bits;
            return true;
        }
    }
    return false;
}

int64_t mu_sess_feature_needs(yyjson_val *features)
{
    size_t i, n;
    yyjson_val *f;
    int64_t needs = 0;
    if (features && yyjson_is_arr(features)) {
        yyjson_arr_foreach(features, i, n, f)
        {
            (void)placed_by(mu_json_bytes(f), &needs);
        }
    }
    return needs;
}

void mu_sess_check_workspace(struct mu_call *c, yyjson_val *options)
{
    yyjson_val *features = mu_json_get(options, "features"), *v;
    yyjson_val *hosts = mu_json_get(mu_json_get(options, "policy"), "egressAllowlist");
    char path[64], text[HOST_MAX];
    int64_t needs = 0;
    size_t i, n;
    if (features && yyjson_is_arr(features)) {
        yyjson_arr_foreach(features, i, n, v)
        {
            mu_bytes word = mu_json_bytes(v);
            if (i < 16 && word.len && !mu_form_refuse(MU_F_FEATURE, word, &(const char *){NULL}) &&
                !placed_by(word, &needs)) {
                snprintf(path, sizeof path, "options.features[%zu]", i);
                mu_call_issue(c, "invalid_enum", path, "%s is none that runners are chosen by",
                              path);
            }
        }
    }
    if (hosts && yyjson_is_arr(hosts)) {
        yyjson_arr_foreach(hosts, i, n, v)
        {
            mu_bytes host = mu_json_bytes(v);
            if (i < 200 && host.len && !mu_allow_entry_ok(egress(host, text))) {
                snprintf(path, sizeof path, "options.policy.egressAllowlist[%zu]", i);
                mu_call_issue(c, "invalid_format", path,
                              "%s must be a host in lower case, *. in front allowed, with or "
                              "without a port",
                              path);
            }
        }
    }
}

/* --- writing --- */

static void add_member(struct mu_json_w *w, const char *key, yyjson_val *v)
{
    if (v && !yyjson_is_null(v)) {
        mu_jw_key(w, key);
        mu_json_add(w->buf, v);
        w->comma = true;
    }
}

/* The line of OZ_ENV_REPOS: git+ssh is ssh, and what to check out stands behind a "#". */
static mu_bytes repo_line(struct mu_arena *a, yyjson_val *repo)
{
    mu_bytes url = mu_json_get_bytes(repo, "url");
    static const char *const refs[] = {"commit", "tag", "branch"};
    mu_bytes ref = MU_B_NONE;
    for (size_t i = 0; i < MU_ARRAY_LEN(refs) && !ref.len; i++) {
        ref = mu_json_get_bytes(repo, refs[i]);
    }
    if (url.len > 4 && mu_bytes_eq_nocase(mu_bytes_head(url, 4), MU_B("git+"))) {
        url = mu_bytes_from(url, 4);
    }
    return mu_arena_printf(a, "%.*s%s%.*s", MU_ARGS(url), ref.len ? "#" : "", MU_ARGS(ref));
}

static void add_repos(struct mu_json_w *w, yyjson_val *spec, mu_bytes line)
{
    yyjson_val *repos = mu_json_get(spec, "repos"), *item;
    size_t i, n;
    mu_jw_key(w, "repos");
    mu_jw_arr(w);
    mu_jw_str(w, line);
    if (repos) {
        yyjson_arr_foreach(repos, i, n, item)
        {
            if (!mu_bytes_eq(mu_json_bytes(item), line)) {
                mu_jw_str(w, mu_json_bytes(item));
            }
        }
    }
    mu_jw_arr_end(w);
}

/* Hosts besides those of the environment, where hosts are looked at at all. */
static void add_network(struct mu_json_w *w, yyjson_val *sandbox, yyjson_val *hosts)
{
    yyjson_val *network = mu_json_get(sandbox, "network"), *allow = mu_json_get(network, "allow");
    mu_bytes mode = mu_json_get_bytes(network, "mode");
    size_t i, n;
    yyjson_val *v;
    char text[HOST_MAX];
    if (!hosts || yyjson_arr_size(hosts) == 0 || (mode.len && !mu_bytes_is(mode, "proxy"))) {
        add_member(w, "network", network);
        return;
    }
    mu_jw_key(w, "network");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "mode", "proxy");
    mu_jw_key(w, "allow");
    mu_jw_arr(w);
    if (allow && yyjson_is_arr(allow)) {
        yyjson_arr_foreach(allow, i, n, v)
        {
            mu_jw_str(w, mu_json_bytes(v));
        }
    }
    yyjson_arr_foreach(hosts, i, n, v)
    {
        mu_jw_str(w, egress(mu_json_bytes(v), text));
    }
    mu_jw_arr_end(w);
    mu_jw_obj_end(w);
}

/* The smaller of both: a policy only tightens. */
static void add_limits(struct mu_json_w *w, yyjson_val *sandbox, yyjson_val *policy)
{
    yyjson_val *given = mu_json_get(sandbox, "limits");
    mu_jw_key(w, "limits");
    mu_jw_obj(w);
    for (size_t i = 0; i < MU_ARRAY_LEN(limits); i++) {
        yyjson_val *a = mu_json_get(given, limits[i].sandbox),
                   *b = mu_json_get(policy, limits[i].policy);
        bool first = a && yyjson_is_num(a) && yyjson_get_num(a) > 0;
        bool smaller = b && (!first || yyjson_get_num(b) < yyjson_get_num(a));
        add_member(w, limits[i].sandbox, smaller ? b : a);
    }
    add_member(w, "timeout_seconds", mu_json_get(given, "timeout_seconds"));
    mu_jw_obj_end(w);
}

static void add_sandbox(struct mu_json_w *w, yyjson_val *sandbox, yyjson_val *policy)
{
    bool says = mu_json_get(policy, "egressAllowlist");
    for (size_t i = 0; i < MU_ARRAY_LEN(limits); i++) {
        says = says || mu_json_get(policy, limits[i].policy);
    }
    if (!says) {
        add_member(w, "sandbox", sandbox);
        return;
    }
    mu_jw_key(w, "sandbox");
    mu_jw_obj(w);
    add_network(w, sandbox, mu_json_get(policy, "egressAllowlist"));
    add_member(w, "nested", mu_json_get(sandbox, "nested"));
    add_member(w, "root", mu_json_get(sandbox, "root"));
    add_limits(w, sandbox, policy);
    mu_jw_obj_end(w);
}

static void add_spec(struct mu_json_w *w, yyjson_val *env, mu_bytes line, yyjson_val *policy)
{
    yyjson_val *spec = mu_json_get(env, "spec");
    mu_jw_key(w, "spec");
    mu_jw_obj(w);
    add_repos(w, spec, line);
    if (mu_json_get(spec, "setup_commands")) {
        add_member(w, "setup_commands", mu_json_get(spec, "setup_commands"));
    } else {
        mu_jw_kraw(w, "setup_commands", MU_B("[]"));
    }
    add_member(w, "secrets", mu_json_get(spec, "secrets"));
    add_sandbox(w, mu_json_get(spec, "sandbox"), policy);
    mu_jw_obj_end(w);
}

static void add_snapshot(struct mu_json_w *w, yyjson_val *env, mu_bytes line, yyjson_val *policy)
{
    static const char *const kept[] = {"environment_id", "version", "name"};
    mu_bytes image = mu_json_get_bytes(env, "docker_image");
    yyjson_val *names = mu_json_get(env, "env_var_names");
    mu_jw_obj(w);
    for (size_t k = 0; k < MU_ARRAY_LEN(kept); k++) {
        add_member(w, kept[k], mu_json_get(env, kept[k]));
    }
    mu_jw_kstr(w, "docker_image", image.ptr ? image : MU_B(""));
    add_spec(w, env, line, policy);
    if (names) {
        add_member(w, "env_var_names", names);
    } else {
        mu_jw_kraw(w, "env_var_names", MU_B("[]"));
    }
    mu_jw_obj_end(w);
}

int mu_sess_snapshot(struct mu_arena *a, const struct mu_sess_workspace *x, mu_bytes *ret)
{
    static const struct mu_json_limits json = {.max_bytes = SNAPSHOT_MAX, .max_depth = 64};
    yyjson_val *env = NULL;
    mu_bytes line = repo_line(a, x->repo);
    int r = line.ptr ? 0 : -ENOMEM;
    if (r == 0 && x->environment.len) {
        r = mu_json_read(a, x->environment, &json, &env, NULL);
    }
    if (r < 0) {
        return r == -ENOMEM ? r : MU_E_CORRUPT;
    }
    struct mu_buf b;
    mu_buf_init(&b, SNAPSHOT_MAX);
    struct mu_json_w w = mu_json_w(&b);
    add_snapshot(&w, env, line, x->policy);
    *ret = b.failed ? MU_B_NONE : mu_arena_dup(a, mu_buf_bytes(&b));
    r = b.failed;
    mu_buf_fini(&b);
    return r < 0 ? r : ret->ptr ? 0 : -ENOMEM;
}
