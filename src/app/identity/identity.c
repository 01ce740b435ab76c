#include "app/identity/identity.h"

#include <errno.h>
#include <stdio.h>

#include "app/identity/identity_int.h"
#include "base/encode.h"

enum { BURST_US = 60 * 1000 * 1000 }; /* a tenant may spend the budget of one minute at once */

/* --- construction --- */

static void set_admin(struct mu_identity *id, const char *key)
{
    id->has_admin = key && key[0];
    if (id->has_admin) {
        id->admin = mu_sha256(mu_bytes_trim(mu_str(key)));
    }
}

int mu_identity_new(const struct mu_identity_opts *opts, struct mu_db *db, struct mu_identity **ret,
                    struct mu_err *err)
{
    struct mu_identity *id = mu_calloc(1, sizeof *id);
    if (!id) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    id->env = opts->env;
    id->writer = opts->writer;
    id->readers = opts->readers;
    id->core = opts->core;
    id->tokens_file =
        opts->tenant_tokens_file && opts->tenant_tokens_file[0] ? opts->tenant_tokens_file : NULL;
    id->max_tenants = opts->max_tenants > 0 ? (size_t)opts->max_tenants : 100000;
    id->interval_us = opts->requests_per_minute > 0
                          ? MU_MAX((int64_t)60000000 / opts->requests_per_minute, 1)
                          : 0;
    pthread_rwlock_init(&id->lock, NULL);
    pthread_rwlock_init(&id->tenants_lock, NULL);
    pthread_rwlock_init(&id->runs_lock, NULL);
    pthread_rwlock_init(&id->passes_lock, NULL);
    mu_map_init(&id->keys);
    mu_map_init(&id->workers);
    mu_map_init(&id->runs);
    mu_map_init(&id->passes);
    mu_map_init(&id->tenants);
    mu_tickets_init(id);
    mu_logins_init(id);
    mu_codes_init(id);
    set_admin(id, opts->admin_key);
    int r = id->tokens_file ? mu_tokens_read(id->tokens_file, &id->tokens, &id->n_tokens, err) : 0;
    if (r == 0 && opts->worker_keys) {
        r = mu_identity_worker_keys(id, opts->worker_keys, err);
    }
    if (r == 0 && db) {
        r = mu_keys_load(id, db);
        r = r == 0 ? mu_passes_load(id, db) : r;
        r = r == 0 ? mu_logins_load(id, db) : r;
        if (r < 0) {
            mu_err_set(err, r, "loading the API keys: %s", mu_err_text(r));
        }
    }
    if (r < 0) {
        mu_identity_free(id);
        return r;
    }
    *ret = id;
    return 0;
}

static void free_values(struct mu_map *m)
{
    size_t at = 0;
    for (void *p = mu_map_next(m, &at); p; p = mu_map_next(m, &at)) {
        mu_free(p);
    }
    mu_map_fini(m);
}

struct mu_identity *mu_identity_free(struct mu_identity *id)
{
    if (id) {
        free_values(&id->keys);
        free_values(&id->tenants);
        free_values(&id->workers);
        free_values(&id->runs);
        free_values(&id->passes);
        pthread_rwlock_destroy(&id->passes_lock);
        mu_tickets_fini(id);
        mu_logins_fini(id);
        mu_codes_fini(id);
        pthread_rwlock_destroy(&id->runs_lock);
        mu_free(id->tokens);
        pthread_rwlock_destroy(&id->lock);
        pthread_rwlock_destroy(&id->tenants_lock);
        explicit_bzero(&id->admin, sizeof id->admin);
        mu_free(id);
    }
    return NULL;
}

int mu_identity_read_tokens(const struct mu_identity *id, struct mu_tenant_tokens *ret,
                            struct mu_err *err)
{
    *ret = (struct mu_tenant_tokens){0};
    return id->tokens_file ? mu_tokens_read(id->tokens_file, &ret->list, &ret->n, err) : 0;
}

void mu_tenant_tokens_fini(struct mu_tenant_tokens *t)
{
    mu_free(t->list);
    *t = (struct mu_tenant_tokens){0};
}

void mu_identity_take(struct mu_identity *id, struct mu_tenant_tokens *t, const char *admin_key)
{
    pthread_rwlock_wrlock(&id->lock);
    struct mu_tenant_tokens old = {id->tokens, id->n_tokens};
    id->tokens = t->list;
    id->n_tokens = t->n;
    set_admin(id, admin_key);
    pthread_rwlock_unlock(&id->lock);
    *t = old;
    mu_tenant_tokens_fini(t);
}

void mu_identity_set_admin_key(struct mu_identity *id, const char *admin_key)
{
    pthread_rwlock_wrlock(&id->lock);
    set_admin(id, admin_key);
    pthread_rwlock_unlock(&id->lock);
}

/* --- tenants --- */

static struct mu_tenant *find_tenant(struct mu_identity *id, mu_bytes org_id)
{
    pthread_rwlock_rdlock(&id->tenants_lock);
    struct mu_tenant *t = mu_map_get(&id->tenants, org_id);
    pthread_rwlock_unlock(&id->tenants_lock);
    return t;
}

/* Entries stay until the identity goes: sessions and loops hold pointers to them. */
static int tenant_of(struct mu_identity *id, mu_bytes org_id, size_t max, struct mu_tenant **ret)
{
    *ret = find_tenant(id, org_id);
    if (*ret) {
        return 0;
    }
    struct mu_tenant *fresh = mu_calloc(1, sizeof *fresh);
    if (!fresh) {
        return -ENOMEM;
    }
    MU_CHECK(org_id.len <= MU_ORG_LEN);
    memcpy(fresh->org_id, org_id.ptr, org_id.len);
    int r = 0;
    pthread_rwlock_wrlock(&id->tenants_lock);
    struct mu_tenant *t = mu_map_get(&id->tenants, org_id);
    if (!t) {
        r = id->tenants.count >= max ? MU_E_LIMIT
                                     : mu_map_put(&id->tenants, mu_str(fresh->org_id), fresh);
        if (r == 0) {
            t = fresh;
            fresh = NULL;
        }
    }
    pthread_rwlock_unlock(&id->tenants_lock);
    mu_free(fresh);
    *ret = t;
    return r;
}

struct mu_tenant *mu_identity_tenant(struct mu_identity *id, mu_bytes org_id)
{
    struct mu_tenant *t;
    if (org_id.len == 0 || org_id.len > MU_ORG_LEN) {
        return NULL;
    }
    return tenant_of(id, org_id, SIZE_MAX, &t) < 0 ? NULL : t;
}

bool mu_identity_is_admin_org(struct mu_identity *id, mu_bytes org_id)
{
    char hex[2 * MU_SHA256_LEN + 1], org[MU_ORG_LEN + 1];
    pthread_rwlock_rdlock(&id->lock);
    bool has = id->has_admin;
    struct mu_digest d = id->admin;
    pthread_rwlock_unlock(&id->lock);
    mu_hex(d.bytes, sizeof d.bytes, hex);
    snprintf(org, sizeof org, "tok_%.32s", hex);
    return has && mu_bytes_is(org_id, org);
}

/* --- who is it --- */

static int resolve_key(struct mu_identity *id, const char *hash, struct mu_principal *ret)
{
    int64_t now_ms = mu_env_wall_ms(id->env);
    int r = MU_E_UNAUTHORIZED;
    pthread_rwlock_rdlock(&id->lock);
    struct mu_key_entry *e = mu_map_get(&id->keys, mu_str(hash));
    if (e && e->live && (e->expires_ms == 0 || e->expires_ms > now_ms)) {
        memcpy(ret->org_id, e->org_id, sizeof ret->org_id);
        ret->role = e->role;
        ret->key = e->id;
        mu_key_used(id, e, now_ms);
        r = 0;
    }
    pthread_rwlock_unlock(&id->lock);
    if (r < 0) {
        return r;
    }
    snprintf(ret->uid, sizeof ret->uid, "%s", ret->org_id);
    r = tenant_of(id, mu_str(ret->org_id), id->max_tenants, &ret->tenant);
    if (r == 0) {
        /* the key's row and its org's were committed together */
        atomic_store_explicit(&ret->tenant->stored, true, memory_order_relaxed);
    }
    return r;
}

static bool is_admin(struct mu_identity *id, const struct mu_digest *d, bool *ret_listed)
{
    pthread_rwlock_rdlock(&id->lock);
    bool same = mu_bytes_eq_secret(mu_bytes_of((const char *)d->bytes, MU_SHA256_LEN),
                                   mu_bytes_of((const char *)id->admin.bytes, MU_SHA256_LEN));
    bool admin = id->has_admin && same;
    *ret_listed = !id->tokens_file || mu_tokens_has(id->tokens, id->n_tokens, d);
    pthread_rwlock_unlock(&id->lock);
    return admin;
}

static int kind_of(mu_bytes token)
{
    static const struct {
        const char *prefix;
        int kind;
    } kinds[] = {{"sk_", MU_KIND_KEY},    {MU_RUN_TOKEN_PREFIX, MU_KIND_RUN},
                 {"en_", MU_KIND_PASS},   {"wk_", MU_KIND_PASS},
                 {"adm_", MU_KIND_ADMIN}, {MU_LOGIN_PREFIX, MU_KIND_LOGIN}};
    for (size_t i = 0; i < MU_ARRAY_LEN(kinds); i++) {
        if (mu_bytes_starts(token, mu_str(kinds[i].prefix))) {
            return kinds[i].kind;
        }
    }
    return MU_KIND_OTHER;
}

struct mu_credential mu_credential_of(mu_bytes token)
{
    return (struct mu_credential){.digest = mu_sha256(token), .kind = kind_of(token)};
}

int mu_identity_resolve_credential(struct mu_identity *id, const struct mu_credential *c,
                                   struct mu_principal *ret)
{
    struct mu_principal p = {0};
    bool listed = false;
    mu_hex(c->digest.bytes, sizeof c->digest.bytes, p.token_hash);
    p.admin = is_admin(id, &c->digest, &listed);
    int r;
    if (!p.admin && c->kind == MU_KIND_KEY) {
        char hash[65];
        memcpy(hash, p.token_hash, sizeof hash);
        p.token_hash[0] = 0;
        r = resolve_key(id, hash, &p);
    } else if (!p.admin && c->kind == MU_KIND_RUN) {
        r = mu_grant_run(id, &p);
    } else if (!p.admin && c->kind == MU_KIND_PASS) {
        r = mu_grant_pass(id, &p);
    } else if (!p.admin && c->kind == MU_KIND_LOGIN) {
        r = mu_grant_login(id, c, &p);
    } else if (!p.admin && mu_grant_worker(id, &p)) {
        r = 0;
    } else if (!p.admin && (!listed || c->kind == MU_KIND_ADMIN)) {
        r = MU_E_UNAUTHORIZED; /* an admin key that was replaced is nobody's */
    } else {
        p.role = p.admin ? MU_ROLE_ADMIN : MU_ROLE_OPERATOR;
        snprintf(p.org_id, sizeof p.org_id, "tok_%.32s", p.token_hash);
        snprintf(p.uid, sizeof p.uid, "%s", p.token_hash);
        /* the administrator is let in however many tenants there are */
        r = tenant_of(id, mu_str(p.org_id), p.admin ? SIZE_MAX : id->max_tenants, &p.tenant);
    }
    if (r == 0) {
        *ret = p;
    }
    return r;
}

int mu_identity_resolve(struct mu_identity *id, mu_bytes token, struct mu_principal *ret)
{
    struct mu_credential c = mu_credential_of(token);
    return mu_identity_resolve_credential(id, &c, ret);
}

void mu_identity_name(struct mu_identity *id, const struct mu_principal *p, char *dst, size_t size)
{
    size_t at = 0;
    if (p->admin) {
        snprintf(dst, size, "Administrator");
        return;
    }
    snprintf(dst, size, "Tenant %.8s", strncmp(p->org_id, "tok_", 4) == 0 ? p->org_id + 4 : p->uid);
    if (!p->key.text[0]) {
        return;
    }
    pthread_rwlock_rdlock(&id->lock);
    for (struct mu_key_entry *e = mu_map_next(&id->keys, &at); e; e = mu_map_next(&id->keys, &at)) {
        if (strcmp(e->id.text, p->key.text) == 0) {
            mu_bytes name = mu_utf8_cut(mu_str(e->name), size - 1);
            snprintf(dst, size, "%.*s", MU_ARGS(name));
            break;
        }
    }
    pthread_rwlock_unlock(&id->lock);
}

/* GCRA: one number per tenant says when its budget would be full again. */
int mu_identity_charge(struct mu_identity *id, const struct mu_principal *p, int64_t *ret_retry_ms)
{
    if (p->admin || !p->tenant || id->interval_us == 0) {
        return 0;
    }
    int64_t now = id->env->mono_ns(id->env) / 1000;
    int64_t arrival = atomic_load_explicit(&p->tenant->bucket, memory_order_relaxed);
    for (;;) {
        int64_t next = MU_MAX(arrival, now) + id->interval_us;
        if (next - now > BURST_US) {
            *ret_retry_ms = (next - now - BURST_US + 999) / 1000;
            return MU_E_LIMIT;
        }
        if (atomic_compare_exchange_weak_explicit(&p->tenant->bucket, &arrival, next,
                                                  memory_order_relaxed, memory_order_relaxed)) {
            return 0;
        }
    }
}

/* --- the row of a bare token --- */

int mu_identity_store_org(struct mu_tx *tx, const struct mu_principal *p, int64_t now_ms)
{
    static const struct mu_stmt insert = {
        "org_token", "titti",
        "INSERT INTO orgs (id, kind, name, token_hash, created_ms) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT DO NOTHING",
        NULL};
    if (atomic_load_explicit(&p->tenant->stored, memory_order_relaxed)) {
        return 0;
    }
    mu_bytes org = mu_str(p->org_id);
    /* one that the administrator names has no token; keys are issued for it by that name */
    bool token = p->token_hash[0];
    return MU_TX_SEND(tx, &insert, -1, MU_VT(org), MU_VI(token ? MU_ORG_TOKEN : MU_ORG_ISSUED),
                      MU_VT(org), token ? MU_VT(mu_str(p->token_hash)) : MU_VNULL, MU_VI(now_ms));
}

void mu_identity_org_stored(const struct mu_principal *p)
{
    atomic_store_explicit(&p->tenant->stored, true, memory_order_relaxed);
}
