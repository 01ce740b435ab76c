/* The registry: which providers there are, and which serve a harness in what order. */
#include "app/providers/providers.h"

#include <errno.h>
#include <stdio.h>

#include "app/providers/providers_int.h"

enum { HTTP_TOTAL_MS = 600000, HOLD_SLACK_MS = 60000 };

/* --- harnesses --- */

const char *mu_providers_harness(const struct mu_providers_settings *s, mu_bytes model_id)
{
    return mu_harness_of_model(model_id, s->default_harness ? s->default_harness : "custom");
}

static const char *primary_key(const struct mu_providers *p, mu_bytes harness)
{
    const char *other = p->opts.settings->default_provider;
    return mu_harness_primary(harness, other ? other : "custom");
}

/* "Claude-Code" -> "claude_code": how the fallback order's variable names a harness. */
static mu_bytes normalised(mu_bytes harness, char *dst, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < harness.len && n < size; i++) {
        char ch = harness.ptr[i];
        char low = ch >= 'A' && ch <= 'Z' ? (char)(ch | 32) : ch;
        bool plain = (low >= 'a' && low <= 'z') || (low >= '0' && low <= '9');
        if (plain) {
            dst[n++] = low;
        } else if (n == 0 || dst[n - 1] != '_') {
            dst[n++] = '_';
        }
    }
    return mu_bytes_of(dst, n);
}

static const char *fallback_keys(const struct mu_providers_settings *s, mu_bytes harness)
{
    char name[128];
    mu_bytes norm = normalised(harness, name, sizeof name);
    for (size_t i = 0; i < s->n_fallback_orders; i++) {
        if (mu_bytes_is(norm, s->fallback_orders[i].harness)) {
            return s->fallback_orders[i].keys;
        }
    }
    return s->fallback_order;
}

/* --- candidates --- */

static struct mu_provider *find(struct mu_provider **items, size_t n, mu_bytes key)
{
    for (size_t i = 0; i < n; i++) {
        if (mu_bytes_eq_nocase(key, mu_str(items[i]->key))) {
            return items[i];
        }
    }
    return NULL;
}

static bool has_text(const char *s)
{
    return s && s[0];
}

struct picks {
    struct mu_provider **items;
    unsigned n, max;
    bool admin, shell;
    bool withheld; /* one was left out because the caller is not the admin */
};

/* A script goes to the shell and to nothing else, and the shell gets nothing else. */
static void pick(struct picks *to, struct mu_provider *pr)
{
    if (!pr || !mu_provider_complete(pr->conf) ||
        (pr->conf->type == MU_PROVIDER_SHELL) != to->shell) {
        return;
    }
    if (!to->admin && (pr->conf->discovered || to->shell)) {
        to->withheld = true;
        return;
    }
    for (unsigned i = 0; i < to->n; i++) {
        if (to->items[i] == pr) {
            return;
        }
    }
    if (to->n < to->max) {
        to->items[to->n++] = pr;
    }
}

static void pick_all(struct mu_providers *p, mu_bytes harness, struct picks *to)
{
    to->shell = mu_bytes_is(harness, "shell");
    pick(to, find(p->items, p->n, mu_str(primary_key(p, harness))));
    const char *order = fallback_keys(p->opts.settings, harness);
    mu_bytes rest = to->shell || !order ? MU_B_NONE : mu_str(order);
    while (rest.ptr) {
        mu_bytes key = mu_bytes_trim(mu_bytes_split(&rest, ','));
        if (key.len) {
            pick(to, find(p->items, p->n, key));
        }
    }
    /* nobody named anything that fits: what was found on this machine serves */
    for (size_t i = 0; to->n == 0 && i < p->n; i++) {
        if (p->items[i]->conf->discovered) {
            pick(to, p->items[i]);
        }
    }
}

unsigned mu_providers_candidates(struct mu_providers *p, mu_bytes harness, bool admin,
                                 struct mu_provider **ret, unsigned max)
{
    struct picks to = {.items = ret, .max = max, .admin = admin};
    pick_all(p, harness, &to);
    return to.n;
}

void mu_provider_variable(mu_bytes key, char *dst, size_t size)
{
    size_t n = 0;
    for (; n < key.len && n + 1 < size; n++) {
        char ch = key.ptr[n];
        bool letter = (ch | 32) >= 'a' && (ch | 32) <= 'z';
        dst[n] = letter ? (char)(ch & ~32) : ch >= '0' && ch <= '9' ? ch : '_';
    }
    dst[n] = 0;
}

void mu_providers_no_candidate(struct mu_providers *p, mu_bytes harness, bool admin, char *dst,
                               size_t size)
{
    struct mu_provider *none[1];
    struct picks to = {.items = none, .max = 1, .admin = admin};
    pick_all(p, harness, &to);
    mu_bytes shown = mu_bytes_head(harness, 64);
    if (to.shell) {
        snprintf(dst, size, "%s",
                 to.withheld ? "The shell harness serves the admin key only"
                             : "The shell harness is not available on this server");
        return;
    }
    char var[64];
    mu_provider_variable(mu_str(primary_key(p, harness)), var, sizeof var);
    int n = snprintf(dst, size,
                     "No provider is configured for harness '%.*s': set OZ_PROVIDER_%s_MODEL and "
                     "OZ_PROVIDER_%s_BASE_URL, or OZ_PROVIDER_%s_TYPE=anthropic or cli with its "
                     "variables, or name another in OZ_PROVIDER_FALLBACK_ORDER",
                     MU_ARGS(shown), var, var, var);
    if (to.withheld && n > 0 && (size_t)n < size) {
        snprintf(dst + n, size - (size_t)n,
                 ". What was found on this machine serves the admin key only until it is "
                 "configured");
    }
}

const struct mu_provider_conf *mu_provider_conf(const struct mu_provider *pr)
{
    return pr->conf;
}

mu_bytes mu_provider_model(const struct mu_provider *pr, mu_bytes requested)
{
    const char *const *m = pr->conf->models;
    for (; m && *m && requested.len; m++) {
        if (mu_bytes_is(requested, *m)) {
            return mu_str(*m);
        }
    }
    if (has_text(pr->conf->model)) {
        return mu_str(pr->conf->model);
    }
    return pr->conf->type == MU_PROVIDER_SHELL ? MU_B("shell") : MU_B("cli");
}

void mu_provider_quota(const struct mu_provider *pr, const char *org_id, int64_t now_ms,
                       struct mu_quota_take *ret)
{
    const struct mu_provider_conf *c = pr->conf;
    int64_t once = mu_provider_is_child(c) ? c->cli_timeout_ms : HTTP_TOTAL_MS;
    int64_t tries = 1 + MU_MAX(pr->all->opts.settings->retries, 0);
    *ret = (struct mu_quota_take){
        .provider = pr->key,
        .limit = c->msg_limit > 0 && c->window_seconds > 0 ? c->msg_limit : 0,
        .hold_until_ms = now_ms + once * tries + HOLD_SLACK_MS,
    };
    snprintf(ret->scope, sizeof ret->scope, "%s", c->quota_global ? "*" : org_id);
}

/* --- life --- */

static struct mu_provider *provider_free(struct mu_provider *pr)
{
    if (pr) {
        mu_free(pr->key);
        mu_free(pr->labels);
        mu_free(pr);
    }
    return NULL;
}

static int provider_new(struct mu_providers *p, const struct mu_provider_conf *conf,
                        struct mu_provider **ret)
{
    struct mu_provider *pr = mu_calloc(1, sizeof *pr);
    if (!pr) {
        return -ENOMEM;
    }
    pr->all = p;
    pr->conf = conf;
    pr->key = mu_bytes_dup(mu_str(conf->key));
    if (!pr->key) {
        provider_free(pr);
        return -ENOMEM;
    }
    *ret = pr;
    return 0;
}

static int provider_metrics(struct mu_provider *pr)
{
    size_t room = strlen(pr->key) + 64;
    pr->labels = mu_alloc(room * MU_CALL_CLASSES);
    if (!pr->labels) {
        return -ENOMEM;
    }
    for (int i = 0; i < MU_CALL_CLASSES; i++) {
        char *label = pr->labels + (size_t)i * room;
        snprintf(label, room, "provider=\"%s\",class=\"%s\"", pr->key,
                 mu_call_class_name((enum mu_call_class)i));
        pr->calls[i] = mu_metrics_counter(pr->all->opts.metrics, "muster_provider_calls_total",
                                          label, "Calls of providers, by how they ended.");
    }
    return 0;
}

static int load(struct mu_providers *p, struct mu_db *db)
{
    const struct mu_provider_list *list = p->opts.list;
    p->items = mu_calloc(list->n + 1, sizeof *p->items);
    if (!p->items) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < list->n; i++) {
        int r = provider_new(p, &list->items[i], &p->items[p->n]);
        if (r < 0) {
            return r;
        }
        p->n_all = ++p->n;
    }
    for (size_t i = 0; p->opts.metrics && i < p->n; i++) {
        int r = provider_metrics(p->items[i]);
        if (r < 0) {
            return r;
        }
    }
    if (p->opts.metrics) {
        p->seconds = mu_metrics_histogram(p->opts.metrics, "muster_provider_call_seconds", NULL,
                                          "How long calls of providers took.");
    }
    return db ? mu_blocks_load(p, db) : 0;
}

static void on_capacity(struct mu_timer *t)
{
    struct mu_providers *p = MU_CONTAINER(t, struct mu_providers, capacity_timer);
    if (p->capacity_fn) {
        p->capacity_fn(p->capacity_arg);
    }
}

int mu_providers_new(const struct mu_providers_opts *opts, struct mu_db *db,
                     struct mu_providers **ret)
{
    struct mu_providers *p = mu_calloc(1, sizeof *p);
    if (!p) {
        return -ENOMEM;
    }
    p->opts = *opts;
    mu_map_init(&p->scopes);
    mu_list_init(&p->scope_list);
    mu_list_init(&p->writes);
    mu_list_init(&p->calls);
    mu_timer_init(&p->capacity_timer, opts->core, on_capacity);
    int r = load(p, db);
    if (r < 0) {
        mu_providers_free(p);
        return r;
    }
    if (opts->scratch_dir) {
        mu_private_dirs_sweep(opts->scratch_dir);
    }
    *ret = p;
    return 0;
}

struct mu_providers *mu_providers_free(struct mu_providers *p)
{
    if (!p) {
        return NULL;
    }
    MU_LIST_EACH(it, tmp, &p->calls)
    {
        struct mu_provider_call *c = MU_CONTAINER(it, struct mu_provider_call, link);
        MU_CHECK(c->phase == MU_CALL_REMOVING);
        mu_list_remove(&c->link);
        c->p = NULL;
        if (mu_timer_is_set(&c->child.retry)) {
            mu_timer_clear(&c->child.retry);
            mu_call_free(c); /* the next start sweeps */
        }
    }
    mu_timer_clear(&p->capacity_timer);
    mu_scopes_fini(p);
    for (size_t i = 0; i < p->n_all; i++) {
        provider_free(p->items[i]);
    }
    mu_free(p->items);
    mu_free(p);
    return NULL;
}

static bool holds(struct mu_provider **items, size_t n, const struct mu_provider *pr)
{
    for (size_t i = 0; i < n; i++) {
        if (items[i] == pr) {
            return true;
        }
    }
    return false;
}

/* The providers of `list` in its order, live state kept by key, then those that are gone. */
static int arrange(struct mu_providers *p, const struct mu_provider_list *list,
                   struct mu_provider **items)
{
    size_t n = 0;
    for (; n < list->n; n++) {
        struct mu_provider *pr = find(p->items, p->n_all, mu_str(list->items[n].key));
        if (!pr || holds(items, n, pr)) {
            int r = provider_new(p, &list->items[n], &pr);
            if (r < 0) {
                return r;
            }
        }
        items[n] = pr;
    }
    for (size_t i = 0; i < p->n_all; i++) {
        if (!holds(items, list->n, p->items[i])) {
            items[n++] = p->items[i];
        }
    }
    return 0;
}

int mu_providers_reload(struct mu_providers *p, const struct mu_provider_list *list,
                        const struct mu_providers_settings *settings)
{
    MU_CHECK(mu_loop_here(p->opts.core));
    size_t max = list->n + p->n_all;
    struct mu_provider **items = mu_calloc(max + 1, sizeof *items);
    if (!items) {
        return -ENOMEM;
    }
    int r = arrange(p, list, items);
    if (r < 0) {
        for (size_t i = 0; items[i]; i++) {
            if (!holds(p->items, p->n_all, items[i])) {
                provider_free(items[i]);
            }
        }
        mu_free(items);
        return r;
    }
    mu_free(p->items);
    p->items = items;
    p->n = list->n;
    p->opts.list = list;
    p->opts.settings = settings;
    for (p->n_all = 0; p->n_all < max && items[p->n_all]; p->n_all++) {
        struct mu_provider *pr = items[p->n_all];
        if (p->n_all < p->n) {
            pr->conf = &list->items[p->n_all];
        } else {
            pr->gone = (struct mu_provider_conf){.key = pr->key};
            pr->conf = &pr->gone;
        }
    }
    mu_providers_capacity(p);
    return 0;
}

void mu_providers_on_capacity(struct mu_providers *p, void (*fn)(void *arg), void *arg)
{
    p->capacity_fn = fn;
    p->capacity_arg = arg;
}

void mu_providers_capacity(struct mu_providers *p)
{
    MU_CHECK(mu_loop_here(p->opts.core));
    if (p->capacity_fn && !mu_timer_is_set(&p->capacity_timer) &&
        mu_timer_set(&p->capacity_timer, 0) < 0) {
        p->capacity_fn(p->capacity_arg);
    }
}
