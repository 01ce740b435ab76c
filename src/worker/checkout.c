/* Repositories of a task: checked out once by the worker and laid under the workspace as an
 * overlay, so that a warm one costs a mount (sandbox.md 8). Only where the kind of sandbox can do
 * that; the runner clones otherwise. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "proto/repo.h"
#include "worker/worker_int.h"

enum { REPO_TEXT = 65536, FETCH_MS = 600000, FRESH_MS = 5000, PARALLEL = 4 };
#define CACHE_BYTES (INT64_C(20) << 30)

struct mu_git_cache *mu_worker_git(struct mu_worker *w)
{
    struct mu_err err;
    const struct mu_git_settings settings = {.env = w->env,
                                             .dir = w->conf->cache_dir,
                                             .max_bytes = CACHE_BYTES,
                                             .fetch_timeout_ms = FETCH_MS,
                                             .fresh_ms = FRESH_MS,
                                             .parallel = PARALLEL,
                                             .ssh_keys = w->conf->ssh_keys};
    if (!w->git && w->conf->cache_dir && mu_git_cache_new(w->loop, &settings, &w->git, &err) < 0) {
        mu_log(MU_LOG_WARN, "git.no_cache", MU_KC("err_message", err.text));
        w->git = NULL;
    }
    return w->git;
}

/* As the runner would take it: a variable of the assignment, or of those that its user gave. */
static mu_bytes token_in(yyjson_val *vars)
{
    static const char *const names[] = {MU_REPO_TOKENS};
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        mu_bytes token = mu_json_get_bytes(vars, names[i]);
        if (token.len && !memchr(token.ptr, '\n', token.len) && !memchr(token.ptr, 0, token.len)) {
            return token;
        }
    }
    return MU_B_NONE;
}

int mu_worker_credential(struct mu_arena *a, yyjson_val *env_vars, const char *url,
                         const char **ret)
{
    static const struct mu_json_limits limits = {.max_bytes = 8 << 20, .max_depth = 4};
    yyjson_val *users = NULL;
    *ret = NULL;
    if (strncmp(url, "https://github.com/", 19) != 0) {
        return 0;
    }
    mu_bytes json = mu_json_get_bytes(env_vars, "OZ_ENV_VARS_JSON");
    if (json.len && mu_json_read(a, json, &limits, &users, NULL) == -ENOMEM) {
        return -ENOMEM;
    }
    mu_bytes token = token_in(users);
    token = token.len ? token : token_in(env_vars);
    if (token.len) {
        *ret = mu_arena_printf(a, "x-access-token:%.*s", MU_ARGS(token)).ptr;
    }
    return token.len && !*ret ? -ENOMEM : 0;
}

static void finish(struct mu_attempt *t)
{
    struct mu_checkouts *c = &t->checkouts;
    if (t->stop_reason || !c->why[0]) {
        mu_attempt_start(t);
    } else {
        mu_attempt_fail(t, "workspace_setup", "%s", c->why);
    }
}

static void on_done(void *arg, int result, const struct mu_checkout_view *view, const char *why)
{
    struct mu_repo *repo = arg;
    struct mu_attempt *t = repo->t;
    struct mu_checkouts *c = &t->checkouts;
    repo->pending = false;
    if (result < 0 && !c->why[0]) {
        snprintf(c->why, sizeof c->why, "%s: %s", repo->url,
                 why && why[0] ? why : mu_err_text(result));
    } else if (result == 0) {
        repo->view = *view;
        mu_log(MU_LOG_DEBUG, "task.checked_out", MU_KC("task_id", t->task_id),
               MU_KC("commit", view->commit), MU_KT("warm", view->warm));
    }
    if (c->pending && --c->pending == 0 && !c->starting) {
        finish(t);
    }
}

/* False: for the runner to judge, or no memory. */
static bool read_repo(struct mu_attempt *t, mu_bytes line, struct mu_repo *ret)
{
    struct mu_repo_spec spec;
    const char *why;
    if (mu_repo_spec_parse(line, &spec, &why) < 0 || !spec.plain) {
        return false;
    }
    ret->url = mu_repo_url(&t->arena, &spec).ptr;
    ret->ref = mu_arena_dup(&t->arena, spec.ref).ptr;
    ret->name = mu_arena_dup(&t->arena, spec.name).ptr;
    return ret->url && ret->ref && ret->name;
}

/* The lines of OZ_ENV_REPOS; false when one of them is for the runner to judge. */
static bool read_repos(struct mu_attempt *t, mu_bytes text)
{
    struct mu_checkouts *c = &t->checkouts;
    while (text.ptr) {
        mu_bytes line = mu_bytes_trim(mu_bytes_split(&text, '\n'));
        if (!line.len) {
            continue;
        }
        struct mu_repo *repo = &c->repos[c->n];
        if (c->n == MU_WORKER_MAX_REPOS || !read_repo(t, line, repo)) {
            return false;
        }
        repo->t = t;
        c->n++;
    }
    for (size_t i = 0; i < c->n; i++) { /* two folders of one name */
        for (size_t k = 0; k < i; k++) {
            if (!strcmp(c->repos[i].name, c->repos[k].name)) {
                return false;
            }
        }
    }
    return c->n > 0;
}

static void start_all(struct mu_attempt *t)
{
    struct mu_checkouts *c = &t->checkouts;
    c->starting = true;
    for (size_t i = 0; i < c->n; i++) {
        struct mu_repo *repo = &c->repos[i];
        struct mu_checkout_request req = {
            .url = repo->url, .ref = repo->ref, .index = (unsigned)i, .done = on_done, .arg = repo};
        repo->pending = true;
        c->pending++;
        int r = mu_worker_credential(&t->arena, t->as.env_vars, repo->url, &req.credential);
        r = r < 0 ? r : mu_checkout_start(t->w->git, &req, &repo->held);
        if (r < 0) {
            repo->pending = false;
            c->pending--;
            snprintf(c->why, sizeof c->why, "%s: %s", repo->url, mu_err_text(r));
        }
    }
    c->starting = false;
    if (c->pending == 0) {
        finish(t);
    }
}

void mu_checkouts_run(struct mu_attempt *t)
{
    mu_bytes text = mu_wire_var(&t->as, "OZ_ENV_REPOS");
    if (t->stop_reason || !t->backend->report.checkouts || !text.len || text.len > REPO_TEXT ||
        !mu_worker_git(t->w)) {
        mu_attempt_start(t);
        return;
    }
    if (!read_repos(t, text)) {
        t->checkouts.n = 0;
        mu_attempt_start(t);
        return;
    }
    mu_attempt_tell_state(t, "preparing", "checkout");
    start_all(t);
}

/* Stopped meanwhile: whatever is under way is given up. */
void mu_checkouts_abort(struct mu_attempt *t)
{
    struct mu_checkouts *c = &t->checkouts;
    bool any = false;
    for (size_t i = 0; i < c->n; i++) {
        struct mu_repo *repo = &c->repos[i];
        if (repo->pending) {
            repo->held = mu_checkout_abort(repo->held);
            repo->pending = false;
            any = true;
        }
    }
    c->pending = 0;
    if (any) {
        finish(t);
    }
}

size_t mu_checkouts_fill(const struct mu_attempt *t, struct mu_sandbox_checkout *dst)
{
    const struct mu_checkouts *c = &t->checkouts;
    for (size_t i = 0; i < c->n; i++) {
        /* One alone takes the workspace itself; of several none does (13.5). */
        dst[i] = (struct mu_sandbox_checkout){.tree = c->repos[i].view.tree,
                                              .subdir = c->n == 1 ? "" : c->repos[i].name,
                                              .objects = c->repos[i].view.objects};
    }
    return c->n;
}

/* For the journal: which bases must stay while the sandbox lives. */
void mu_checkouts_record(const struct mu_attempt *t, struct mu_json_w *w)
{
    mu_jw_key(w, "trees");
    mu_jw_arr(w);
    for (size_t i = 0; i < t->checkouts.n; i++) {
        const struct mu_repo *repo = &t->checkouts.repos[i];
        if (repo->held && repo->view.tree) {
            mu_jw_str(w, mu_str(repo->view.tree));
        }
    }
    mu_jw_arr_end(w);
}

void mu_checkouts_adopt(struct mu_attempt *t, yyjson_val *trees)
{
    struct mu_checkouts *c = &t->checkouts;
    size_t i, n;
    yyjson_val *v;
    if (!yyjson_is_arr(trees) || yyjson_arr_size(trees) == 0 || !mu_worker_git(t->w)) {
        return;
    }
    yyjson_arr_foreach(trees, i, n, v)
    {
        const char *tree = yyjson_get_str(v);
        if (tree && c->n < MU_WORKER_MAX_REPOS &&
            mu_checkout_hold(t->w->git, tree, &c->repos[c->n].held) == 0) {
            c->repos[c->n].t = t;
            /* for the next record */
            c->repos[c->n].view.tree = mu_arena_dup(&t->arena, mu_str(tree)).ptr;
            c->n++;
        }
    }
}

void mu_checkouts_release(struct mu_attempt *t)
{
    struct mu_checkouts *c = &t->checkouts;
    for (size_t i = 0; i < c->n; i++) {
        struct mu_repo *repo = &c->repos[i];
        repo->held =
            repo->pending ? mu_checkout_abort(repo->held) : mu_checkout_release(repo->held);
    }
    c->n = c->pending = 0;
}
