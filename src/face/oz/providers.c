/* GET /providers (oz-providers.md 9.21): what is configured, what is used, when it is free again;
 * never keys or URLs. */
#include <errno.h>

#include "face/oz/oz_int.h"

enum { MAX_PROVIDERS = 256 };

static const struct mu_stmt q_used = {
    "quota_used", "ttii",
    "SELECT count(*), min(free_ms) FROM quota_slots WHERE scope_id = $1 AND provider = $2 AND slot "
    "< $3 AND free_ms > $4",
    NULL};

struct row {
    struct mu_provider_status s;
    int64_t used, next_ms;
};

struct listing {
    struct mu_call *c;
    struct mu_post post; /* to the core loop and back */
    struct mu_read read;
    struct row rows[MAX_PROVIDERS];
    size_t n, at;
    int64_t now_ms;
};

static void answer(struct mu_read *read, int result)
{
    struct listing *l = MU_CONTAINER(read, struct listing, read);
    struct mu_call *c = l->c;
    if (result < 0) {
        mu_call_fail(c, result);
        return;
    }
    struct mu_json_w w = mu_json_w(mu_call_buf(c));
    mu_jw_obj(&w);
    mu_jw_key(&w, "providers");
    mu_jw_arr(&w);
    for (size_t i = 0; i < l->n; i++) {
        const struct row *r = &l->rows[i];
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "key", r->s.key);
        mu_jw_kcstr(&w, "type", r->s.type);
        mu_jw_kstr_opt(&w, "model", mu_str(r->s.model));
        mu_jw_kbool(&w, "discovered", r->s.discovered);
        mu_jw_kstr_opt(&w, "found", mu_str(r->s.found));
        if (r->s.limit > 0) {
            mu_jw_ki64(&w, "limit", r->s.limit);
            mu_jw_ki64(&w, "window_seconds", r->s.window_s);
            mu_jw_kcstr(&w, "quota_scope", r->s.quota_global ? "global" : "tenant");
            mu_jw_ki64(&w, "used", r->used);
            mu_jw_ktime_opt(&w, "resets_at", r->used ? r->next_ms : 0);
        } else {
            mu_jw_knull(&w, "limit");
        }
        mu_jw_ktime_opt(&w, "blocked_until",
                        r->s.blocked_until_ms > l->now_ms ? r->s.blocked_until_ms : 0);
        mu_jw_kcstr(&w, "breaker", r->s.breaker);
        mu_jw_ki64(&w, "running", r->s.running);
        if (r->s.max_parallel > 0) {
            mu_jw_ki64(&w, "max_parallel", r->s.max_parallel);
        }
        mu_jw_obj_end(&w);
    }
    mu_jw_arr_end(&w);
    mu_call_send_object(c, &w);
}

static int take_used(void *arg, struct mu_row *row)
{
    struct row *r = arg;
    r->used = mu_row_i64(row, 0);
    r->next_ms = mu_row_i64(row, 1);
    return 0;
}

static int run_used(struct mu_read *read, struct mu_db *db)
{
    struct listing *l = MU_CONTAINER(read, struct listing, read);
    const char *org = mu_call_principal(l->c)->org_id;
    int r = 0;
    for (size_t i = 0; r >= 0 && i < l->n; i++) {
        struct row *row = &l->rows[i];
        if (row->s.limit > 0) {
            r = MU_DB_RUN(db, &q_used, take_used, row,
                          MU_VT(mu_str(row->s.quota_global ? "*" : org)), MU_VT(mu_str(row->s.key)),
                          MU_VI(row->s.limit), MU_VI(l->now_ms));
        }
    }
    return r < 0 ? r : 0;
}

static void back(struct mu_post *post)
{
    struct listing *l = MU_CONTAINER(post, struct listing, post);
    l->read = (struct mu_read){.run = run_used, .done = answer, .loop = mu_call_loop(l->c)};
    int r = mu_readers_submit(mu_oz(l->c)->readers, &l->read);
    if (r < 0) {
        mu_call_fail(l->c, r);
    }
}

/* Texts are copied: a reload may free them while the quota is read. */
static const char *copy(struct listing *l, const char *text)
{
    return text ? mu_arena_dup(mu_call_arena(l->c), mu_str(text)).ptr : NULL;
}

static void add(void *arg, const struct mu_provider_status *s)
{
    struct listing *l = arg;
    if (l->n == MAX_PROVIDERS) {
        return;
    }
    struct row *r = &l->rows[l->n];
    r->s = *s;
    r->s.key = copy(l, s->key);
    r->s.type = copy(l, s->type);
    r->s.model = copy(l, s->model);
    r->s.found = copy(l, s->found);
    r->s.breaker = copy(l, s->breaker);
    l->n += r->s.key && r->s.type && r->s.breaker;
}

static void on_core(struct mu_post *post)
{
    struct listing *l = MU_CONTAINER(post, struct listing, post);
    const struct mu_principal *p = mu_call_principal(l->c);
    mu_providers_status(mu_oz(l->c)->providers, p->org_id, p->admin, add, l);
    l->post.fn = back;
    mu_loop_post(mu_call_loop(l->c), &l->post);
}

static void list_providers(struct mu_call *c)
{
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l) {
        return;
    }
    l->c = c;
    l->now_ms = mu_env_wall_ms(mu_oz(c)->env);
    l->post.fn = on_core;
    mu_loop_post(mu_oz(c)->core, &l->post);
}

const struct mu_route mu_oz_provider_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/providers",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = list_providers,
     .id = "listProviders",
     .summary = "Providers, their quota and their state, as the caller may use them.",
     .response = "ProviderList",
     .errors = "503"},
    {.path = NULL}};
