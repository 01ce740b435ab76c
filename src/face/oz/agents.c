/* GET /agent: the skills that can be run (oz-api.md 15.1). Which repositories there are the
 * environments say, what is in them a worker, when it was run last the tenant's runs. */
#include <errno.h>
#include <stdio.h>

#include "face/oz/agents_int.h"

enum { PAGES_MAX = 10, PAGE = 200 };

static void next_token(struct mu_agents *x);

static void finish(struct mu_agents *x, int result)
{
    struct mu_call *c = x->c;
    for (size_t i = 0; i < x->n_repos; i++) {
        struct mu_agent_repo *repo = &x->repos[i];
        if (repo->token.ptr) {
            explicit_bzero((char *)(uintptr_t)repo->token.ptr, repo->token.len);
        }
        repo->op.set = result < 0 ? mu_skill_set_unref(repo->op.set) : repo->op.set;
    }
    if (result < 0) {
        mu_map_fini(&x->runs);
        mu_call_fail(c, result);
        return;
    }
    mu_agents_send(x);
}

/* --- when each was run last --- */

static int take_run(void *arg, mu_bytes skill, int64_t created_ms)
{
    struct mu_agents *x = arg;
    struct mu_agent_run *run = mu_map_get(&x->runs, skill);
    if (run) {
        run->last_ms = MU_MAX(run->last_ms, created_ms);
        return 0;
    }
    run = mu_arena_calloc(mu_call_arena(x->c), sizeof *run);
    if (!run) {
        return -ENOMEM;
    }
    run->skill = mu_arena_dup(mu_call_arena(x->c), skill);
    run->last_ms = created_ms;
    return run->skill.ptr ? mu_map_put(&x->runs, run->skill, run) : -ENOMEM;
}

static void runs_read(struct mu_session_skills *op, int result)
{
    finish(op->ctx, result);
}

static void read_runs(struct mu_agents *x)
{
    x->lately = (struct mu_session_skills){.read = {.loop = mu_call_loop(x->c)},
                                           .org_id = mu_str(mu_call_principal(x->c)->org_id),
                                           .each = take_run,
                                           .arg = x,
                                           .done = runs_read,
                                           .ctx = x};
    int r = mu_session_skills(mu_oz(x->c)->sessions, &x->lately);
    if (r < 0) {
        finish(x, r);
    }
}

/* --- what is in them --- */

static void skills_known(struct mu_fleet_skills *op, int result)
{
    struct mu_agents *x = op->ctx;
    x->failed = result == -ENOMEM || result == MU_E_SHUTDOWN ? result : x->failed;
    if (--x->pending == 0) {
        if (x->failed) {
            finish(x, x->failed);
        } else {
            read_runs(x);
        }
    }
}

static void ask(struct mu_agents *x)
{
    bool refresh = mu_bytes_is(mu_call_query(x->c, "refresh", 0), "true");
    if (x->n_repos == 0) {
        finish(x, 0);
        return;
    }
    x->pending = x->n_repos;
    for (size_t i = 0; i < x->n_repos; i++) {
        struct mu_agent_repo *repo = &x->repos[i];
        repo->op = (struct mu_fleet_skills){.loop = mu_call_loop(x->c),
                                            .org_id = mu_str(mu_call_principal(x->c)->org_id),
                                            .repo = repo->text,
                                            .credential = repo->token,
                                            .refresh = refresh,
                                            .done = skills_known,
                                            .ctx = x};
        mu_fleet_skills(mu_oz(x->c)->fleet, &repo->op);
    }
}

/* --- whose credentials --- */

static const char *const token_names[] = {MU_REPO_TOKENS};

static size_t token_rank(mu_bytes name)
{
    size_t i = 0;
    while (i < MU_ARRAY_LEN(token_names) && !mu_bytes_is(name, token_names[i])) {
        i++;
    }
    return i;
}

static int take_token(void *arg, const struct mu_env_view *v)
{
    struct mu_agents *x = arg;
    size_t best = MU_ARRAY_LEN(token_names);
    for (size_t i = 0; v->values_shown && i < v->n_vars; i++) {
        if (token_rank(v->vars[i].name) < best && v->vars[i].value.len) {
            best = token_rank(v->vars[i].name);
            x->repos[x->at].token = mu_arena_dup(mu_call_arena(x->c), v->vars[i].value);
            if (!x->repos[x->at].token.ptr) {
                return -ENOMEM;
            }
        }
    }
    return 0;
}

static void token_read(struct mu_env_read *op, int result)
{
    struct mu_agents *x = op->ctx;
    if (result < 0 && result != MU_E_NOT_FOUND) {
        finish(x, result);
        return;
    }
    x->at++;
    next_token(x);
}

static void next_token(struct mu_agents *x)
{
    const struct mu_principal *p = mu_call_principal(x->c);
    while (x->at < x->n_repos && !x->repos[x->at].token_env.text[0]) {
        x->at++;
    }
    if (x->at == x->n_repos) {
        ask(x);
        return;
    }
    x->envs = (struct mu_env_read){.read = {.loop = mu_call_loop(x->c)},
                                   .org_id = mu_str(p->org_id),
                                   .id = x->repos[x->at].token_env,
                                   .each = take_token,
                                   .arg = x,
                                   .done = token_read,
                                   .ctx = x};
    int r = mu_environment_read(mu_oz(x->c)->environments, &x->envs);
    if (r < 0) {
        finish(x, r);
    }
}

/* --- which repositories --- */

/* "github.com/acme/tools.git", "host:acme/tools": the folders above the last part. */
static mu_bytes owner_of(const struct mu_repo_spec *spec)
{
    mu_bytes where = spec->where;
    ptrdiff_t at = mu_bytes_find(where, MU_B("://"));
    if (at >= 0) {
        where = mu_bytes_from(where, (size_t)at + 3);
        (void)mu_bytes_split(&where, '/');
    } else if (!spec->before[0]) { /* git@host:path */
        (void)mu_bytes_split(&where, ':');
    }
    while (where.len && where.ptr[where.len - 1] == '/') {
        where.len--;
    }
    while (where.len && where.ptr[where.len - 1] != '/') {
        where.len--;
    }
    while (where.len && where.ptr[where.len - 1] == '/') {
        where.len--;
    }
    while (where.len && where.ptr[0] == '/') {
        where = mu_bytes_from(where, 1);
    }
    return where;
}

static int url_of(struct mu_arena *a, const struct mu_repo_spec *spec, mu_bytes *ret)
{
    mu_bytes url = mu_repo_url(a, spec);
    url.len -= mu_bytes_ends(url, MU_B(".git")) ? 4 : 0;
    *ret = url;
    return url.ptr ? 0 : -ENOMEM;
}

/* Whether it is the one that was asked for; one without "#ref" means every ref. */
static bool is_wanted(const struct mu_agents *x, const struct mu_agent_repo *repo)
{
    return !x->wanted || (mu_bytes_eq_nocase(repo->url, x->wanted_url) &&
                          (!x->want.ref.len || mu_bytes_eq(repo->ref, x->want.ref)));
}

static struct mu_agent_repo *same_repo(struct mu_agents *x, const struct mu_agent_repo *repo)
{
    for (size_t i = 0; i < x->n_repos; i++) {
        if (mu_bytes_eq(x->repos[i].url, repo->url) && mu_bytes_eq(x->repos[i].ref, repo->ref)) {
            return &x->repos[i];
        }
    }
    return NULL;
}

static int add_repo(struct mu_agents *x, const struct mu_env_view *v, mu_bytes text,
                    const struct mu_agent_env *env)
{
    struct mu_arena *a = mu_call_arena(x->c);
    struct mu_repo_spec spec;
    const char *why;
    if (mu_repo_spec_parse(text, &spec, &why) < 0 || !spec.plain) {
        return 0; /* no worker would look at it */
    }
    struct mu_agent_repo fresh = {.ref = spec.ref};
    if (url_of(a, &spec, &fresh.url) < 0) {
        return -ENOMEM;
    }
    struct mu_agent_repo *repo = same_repo(x, &fresh);
    if (!is_wanted(x, &fresh) || (!repo && x->n_repos == MU_AGENT_REPOS)) {
        return 0;
    }
    if (!repo) {
        fresh.text = mu_arena_dup(a, mu_bytes_trim(text));
        fresh.ref = mu_arena_dup(a, spec.ref);
        fresh.owner = mu_arena_dup(a, owner_of(&spec));
        fresh.name = mu_arena_dup(a, spec.name);
        fresh.envs = mu_arena_calloc(a, MU_AGENT_ENVS * sizeof *fresh.envs);
        if (!fresh.text.ptr || !fresh.ref.ptr || !fresh.owner.ptr || !fresh.name.ptr ||
            !fresh.envs) {
            return -ENOMEM;
        }
        repo = &x->repos[x->n_repos++];
        *repo = fresh;
    }
    bool there = repo->n_envs && repo->envs[repo->n_envs - 1] == env;
    if (!there && repo->n_envs < MU_AGENT_ENVS) {
        repo->envs[repo->n_envs++] = env;
    }
    bool github = mu_bytes_starts(repo->url, MU_B("https://github.com/"));
    for (size_t i = 0; github && env->own && !repo->token_env.text[0] && i < v->n_vars; i++) {
        if (token_rank(v->vars[i].name) < MU_ARRAY_LEN(token_names)) {
            (void)!mu_id_parse(v->id, NULL, &repo->token_env);
        }
    }
    return 0;
}

static int take_env(void *arg, const struct mu_env_view *v)
{
    static const struct mu_json_limits limits = {.max_bytes = 8 << 20, .max_depth = 40};
    struct mu_agents *x = arg;
    struct mu_arena *a = mu_call_arena(x->c), json;
    struct mu_agent_env *env = NULL;
    yyjson_val *spec = NULL, *item;
    size_t i, n;
    int r = 0;
    mu_arena_init(&json, 64 << 20);
    if (v->spec.len && mu_json_read(&json, v->spec, &limits, &spec, NULL) == -ENOMEM) {
        mu_arena_fini(&json);
        return -ENOMEM;
    }
    yyjson_val *repos = mu_json_get(spec, "repos");
    if (yyjson_arr_size(repos)) {
        env = mu_arena_calloc(a, sizeof *env);
        r = env ? 0 : -ENOMEM;
    }
    if (env) {
        env->id = mu_arena_dup(a, v->id);
        env->name = mu_arena_dup(a, v->name);
        env->own = v->org_id.ptr && mu_bytes_eq(v->org_id, mu_str(mu_call_principal(x->c)->org_id));
        r = env->id.ptr && env->name.ptr ? 0 : -ENOMEM;
    }
    yyjson_arr_foreach(repos, i, n, item)
    {
        r = r < 0 ? r : add_repo(x, v, mu_json_bytes(item), env);
    }
    mu_arena_fini(&json);
    return r;
}

static void read_page(struct mu_agents *x);

static void page_read(struct mu_env_read *op, int result)
{
    struct mu_agents *x = op->ctx;
    if (result < 0) {
        finish(x, result);
    } else if (op->more && ++x->pages < PAGES_MAX && x->n_repos < MU_AGENT_REPOS &&
               mu_id_parse(mu_str(op->next), NULL, &x->cursor) == 0) {
        read_page(x);
    } else {
        next_token(x);
    }
}

static void read_page(struct mu_agents *x)
{
    const struct mu_principal *p = mu_call_principal(x->c);
    x->envs = (struct mu_env_read){.read = {.loop = mu_call_loop(x->c)},
                                   .admin = p->admin,
                                   .org_id = mu_str(p->org_id),
                                   .list = true,
                                   .limit = PAGE,
                                   .cursor = x->cursor,
                                   .each = take_env,
                                   .arg = x,
                                   .done = page_read,
                                   .ctx = x};
    int r = mu_environment_read(mu_oz(x->c)->environments, &x->envs);
    if (r < 0) {
        finish(x, r);
    }
}

/* --- the question --- */

/* False: answered. */
static bool take_wanted(struct mu_agents *x)
{
    const char *why = "owner/name or a URL is expected";
    mu_bytes text = mu_call_query(x->c, "repo", 0);
    if (!text.ptr) {
        return true;
    }
    if (mu_repo_spec_parse(text, &x->want, &why) < 0 || !x->want.plain) {
        mu_call_error(x->c, 400, "invalid_field", "repo", "repo: %s", why);
        return false;
    }
    if (url_of(mu_call_arena(x->c), &x->want, &x->wanted_url) < 0) {
        mu_call_fail(x->c, -ENOMEM);
        return false;
    }
    x->wanted = true;
    return true;
}

static void list_agents(struct mu_call *c)
{
    struct mu_agents *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->by_last_run = mu_bytes_is(mu_call_query(c, "sort_by", 0), "last_run");
    mu_map_init(&x->runs);
    if (take_wanted(x)) {
        read_page(x);
    }
}

static const struct mu_schema agent_query[] = {
    {.name = "repo",
     .type = MU_S_STRING,
     .max = 200,
     .doc = "owner/repo, or a repository as an environment names it: only its skills. One that no "
            "environment of yours names has none."},
    {.name = "refresh",
     .type = MU_S_STRING,
     .words = "true false",
     .doc = "true: what is known is forgotten and the repositories are looked at again."},
    {.name = "sort_by",
     .type = MU_S_STRING,
     .words = "name last_run",
     .doc = "name (default), or last_run: those run last first, the others behind them by name."},
    {0}};

const struct mu_route mu_oz_agent_routes[] = {{.method = MU_HTTP_GET,
                                               .path = "/api/v1/agent",
                                               .face = MU_FACE_OZ,
                                               .auth = MU_AUTH_TENANT,
                                               .query = agent_query,
                                               .handler = list_agents,
                                               .id = "listAgents",
                                               .summary = "Skills that can be run.",
                                               .response = "AgentList",
                                               .errors = "503"},
                                              {.path = NULL}};
