/* The list of skills as it is answered: grouped by name, each place that has it a variant. */
#include <errno.h>
#include <stdio.h>

#include "face/oz/agents_int.h"

struct variant {
    const struct mu_skill *skill;
    const struct mu_agent_repo *repo;
    size_t order;
    int64_t last_ms; /* 0 = not lately */
};

struct group {
    const struct variant *first;
    size_t n;
    int64_t last_ms;
};

/* --- when it was run last --- */

static void see(const struct mu_agents *x, mu_bytes text, int64_t *last_ms)
{
    const struct mu_agent_run *run = mu_map_get(&x->runs, text);
    *last_ms = run ? MU_MAX(*last_ms, run->last_ms) : *last_ms;
}

/* A run names it as repo:name, repo:path, owner/repo:name or owner/repo:path. */
static int64_t last_run(const struct mu_agents *x, const struct variant *v)
{
    char text[2 * MU_REPO_TEXT];
    int64_t last_ms = 0;
    for (int i = 0; x->runs.count && i < 4; i++) {
        mu_bytes what = i & 1 ? v->skill->path : v->skill->name;
        bool owner = (i & 2) && v->repo->owner.len;
        int n =
            snprintf(text, sizeof text, "%.*s%s%.*s:%.*s", owner ? (int)v->repo->owner.len : 0,
                     v->repo->owner.ptr, owner ? "/" : "", MU_ARGS(v->repo->name), MU_ARGS(what));
        if (n > 0 && (size_t)n < sizeof text) {
            see(x, mu_bytes_of(text, (size_t)n), &last_ms);
        }
    }
    return last_ms;
}

/* --- order --- */

static int by_name(const void *a, const void *b)
{
    const struct variant *x = a, *y = b;
    int c = mu_bytes_cmp(x->skill->name, y->skill->name);
    return c ? c : x->order < y->order ? -1 : 1;
}

static int by_last_run(const void *a, const void *b)
{
    const struct group *x = a, *y = b;
    if (x->last_ms != y->last_ms) {
        return x->last_ms > y->last_ms ? -1 : 1;
    }
    return mu_bytes_cmp(x->first->skill->name, y->first->skill->name);
}

static int collect(struct mu_agents *x, struct variant **ret, size_t *ret_n)
{
    size_t n = 0, at = 0;
    for (size_t i = 0; i < x->n_repos; i++) {
        n += x->repos[i].op.set ? x->repos[i].op.set->n : 0;
    }
    struct variant *all = mu_calloc(n + 1, sizeof *all);
    if (!all) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < x->n_repos; i++) {
        const struct mu_skill_set *set = x->repos[i].op.set;
        for (size_t k = 0; set && k < set->n; k++, at++) {
            all[at] = (struct variant){&set->skills[k], &x->repos[i], at, 0};
            all[at].last_ms = last_run(x, &all[at]);
        }
    }
    if (n) {
        qsort(all, n, sizeof *all, by_name);
    }
    *ret = all;
    *ret_n = n;
    return 0;
}

static int group(struct mu_agents *x, const struct variant *all, size_t n, struct group **ret,
                 size_t *ret_n)
{
    struct group *groups = mu_calloc(n + 1, sizeof *groups);
    size_t n_groups = 0;
    if (!groups) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        struct group *g = n_groups ? &groups[n_groups - 1] : NULL;
        if (!g || !mu_bytes_eq(g->first->skill->name, all[i].skill->name)) {
            g = &groups[n_groups++];
            g->first = &all[i];
        }
        g->n++;
        g->last_ms = MU_MAX(g->last_ms, all[i].last_ms);
    }
    if (x->by_last_run && n_groups) {
        qsort(groups, n_groups, sizeof *groups, by_last_run);
    }
    *ret = groups;
    *ret_n = n_groups;
    return 0;
}

/* --- JSON --- */

static void add_variant(struct mu_json_w *w, const struct variant *v)
{
    const struct mu_agent_repo *repo = v->repo;
    char id[2 * MU_REPO_TEXT];
    snprintf(id, sizeof id, "%.*s%s%.*s:%.*s", MU_ARGS(repo->owner), repo->owner.len ? "/" : "",
             MU_ARGS(repo->name), MU_ARGS(v->skill->path));
    mu_jw_obj(w);
    mu_jw_kcstr(w, "id", id);
    mu_jw_kstr(w, "description", v->skill->description);
    mu_jw_kstr(w, "base_prompt", v->skill->base_prompt);
    mu_jw_key(w, "environments");
    mu_jw_arr(w);
    for (size_t i = 0; i < repo->n_envs; i++) {
        char uid[8 + MU_ID_LEN];
        snprintf(uid, sizeof uid, "env_%.*s", MU_ARGS(repo->envs[i]->id));
        mu_jw_obj(w);
        mu_jw_kcstr(w, "uid", uid);
        mu_jw_kstr(w, "name", repo->envs[i]->name);
        mu_jw_obj_end(w);
    }
    mu_jw_arr_end(w);
    mu_jw_key(w, "source");
    mu_jw_obj(w);
    mu_jw_kstr(w, "owner", repo->owner);
    mu_jw_kstr(w, "name", repo->name);
    mu_jw_kstr(w, "skill_path", v->skill->path);
    mu_jw_obj_end(w);
    mu_jw_ktime_opt(w, "last_run_timestamp", v->last_ms);
    mu_jw_obj_end(w);
}

static bool add_group(struct mu_json_w *w, const struct group *g)
{
    mu_jw_obj(w);
    mu_jw_kstr(w, "name", g->first->skill->name);
    mu_jw_key(w, "variants");
    mu_jw_arr(w);
    size_t i = 0;
    while (i < g->n && (i == 0 || w->buf->len < MU_OZ_PAGE_BYTES)) {
        add_variant(w, &g->first[i++]);
    }
    mu_jw_arr_end(w);
    mu_jw_obj_end(w);
    return i == g->n && w->buf->len < MU_OZ_PAGE_BYTES;
}

/* Those that could not be looked at; never the address itself, which may hold a password. */
static void add_failures(struct mu_json_w *w, const struct mu_agents *x)
{
    mu_jw_key(w, "unavailable");
    mu_jw_arr(w);
    for (size_t i = 0; i < x->n_repos; i++) {
        const struct mu_agent_repo *repo = &x->repos[i];
        if (repo->op.result < 0) {
            char name[2 * MU_REPO_TEXT];
            snprintf(name, sizeof name, "%.*s%s%.*s%s%.*s", MU_ARGS(repo->owner),
                     repo->owner.len ? "/" : "", MU_ARGS(repo->name), repo->ref.len ? "#" : "",
                     MU_ARGS(repo->ref));
            mu_jw_obj(w);
            mu_jw_kcstr(w, "repo", name);
            mu_jw_kcstr(w, "message",
                        repo->op.why[0] ? repo->op.why : mu_err_text(repo->op.result));
            mu_jw_obj_end(w);
        }
    }
    mu_jw_arr_end(w);
}

static struct mu_json_w write_all(struct mu_agents *x, const struct group *groups, size_t n)
{
    struct mu_json_w w = mu_json_w(mu_call_buf(x->c));
    size_t i = 0;
    bool room = true;
    mu_jw_obj(&w);
    mu_jw_key(&w, "agents");
    mu_jw_arr(&w);
    while (room && i < n) {
        room = add_group(&w, &groups[i++]);
    }
    mu_jw_arr_end(&w);
    mu_oz_repeat(&w, sizeof "{\"agents\":" - 1, "items");
    add_failures(&w, x);
    mu_jw_kbool(&w, "truncated", i < n || (!room && n > 0));
    return w;
}

void mu_agents_send(struct mu_agents *x)
{
    struct variant *all = NULL;
    struct group *groups = NULL;
    size_t n = 0, n_groups = 0;
    struct mu_call *c = x->c;
    struct mu_json_w w = {0};
    int r = collect(x, &all, &n);
    r = r < 0 ? r : group(x, all, n, &groups, &n_groups);
    if (r == 0) {
        w = write_all(x, groups, n_groups);
    }
    mu_free(groups);
    mu_free(all);
    for (size_t i = 0; i < x->n_repos; i++) {
        x->repos[i].op.set = mu_skill_set_unref(x->repos[i].op.set);
    }
    mu_map_fini(&x->runs);
    if (r < 0) {
        mu_call_fail(c, r);
    } else {
        mu_call_send_object(c, &w);
    }
}
