/* Bearers that are nobody's account: the key of one worker (OZ_WORKER_KEYS) and the session token
 * of one attempt (OZ_RUN_TOKEN). */
#include <errno.h>
#include <stdio.h>

#include "app/identity/identity_int.h"
#include "base/encode.h"

enum { WORKER_KEYS_MAX = 10000 };

/* --- workers --- */

struct worker_key {
    char hash[65];
    char name[MU_WORKER_NAME_MAX + 1];
};

bool mu_worker_name_ok(mu_bytes name)
{
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        if (c < 0x20 || c == 0x7f) {
            return false;
        }
    }
    return name.len >= 1 && name.len <= MU_WORKER_NAME_MAX && mu_utf8_valid(name);
}

static int add_worker_key(struct mu_identity *id, mu_bytes one, struct mu_err *err)
{
    mu_bytes rest = one, name = mu_bytes_trim(mu_bytes_split(&rest, '='));
    mu_bytes hash = mu_bytes_trim(rest);
    bool ok = hash.len == 64 && mu_worker_name_ok(name);
    struct worker_key *k = mu_calloc(1, sizeof *k);
    if (!k) {
        return mu_err_set(err, -ENOMEM, "OZ_WORKER_KEYS: out of memory");
    }
    for (size_t i = 0; ok && i < hash.len; i++) {
        char c = hash.ptr[i];
        c = c >= 'A' && c <= 'F' ? (char)(c + 32) : c;
        ok = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        k->hash[i] = c;
    }
    if (!ok || id->workers.count >= WORKER_KEYS_MAX || mu_map_get(&id->workers, mu_str(k->hash))) {
        mu_free(k);
        return mu_err_set(err, MU_E_INVALID,
                          "OZ_WORKER_KEYS: entry %zu must be <worker id>=<SHA-256 of its key, 64 "
                          "hexadecimal characters>, each key once",
                          id->workers.count + 1);
    }
    memcpy(k->name, name.ptr, name.len);
    if (mu_map_put(&id->workers, mu_str(k->hash), k) < 0) {
        mu_free(k);
        return mu_err_set(err, -ENOMEM, "OZ_WORKER_KEYS: out of memory");
    }
    return 0;
}

int mu_identity_worker_keys(struct mu_identity *id, const char *list, struct mu_err *err)
{
    mu_bytes rest = mu_str(list);
    while (rest.ptr) {
        mu_bytes one = mu_bytes_trim(mu_bytes_split(&rest, ','));
        int r = one.len ? add_worker_key(id, one, err) : 0;
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

bool mu_grant_worker(struct mu_identity *id, struct mu_principal *p)
{
    const struct worker_key *k = mu_map_get(&id->workers, mu_str(p->token_hash));
    if (k) {
        p->worker = k->name;
        snprintf(p->uid, sizeof p->uid, "worker");
    }
    return k != NULL;
}

/* --- session tokens --- */

struct run_token {
    char hash[65];
    struct mu_id session;
    char org_id[MU_ORG_LEN + 1];
    int64_t epoch;
};

void mu_run_token_new(const struct mu_env *env, char dst[MU_RUN_TOKEN_LEN + 1],
                      struct mu_digest_hex *ret_hash)
{
    unsigned char raw[32];
    env->random(env, raw, sizeof raw);
    memcpy(dst, MU_RUN_TOKEN_PREFIX, sizeof MU_RUN_TOKEN_PREFIX);
    mu_hex(raw, sizeof raw, dst + strlen(MU_RUN_TOKEN_PREFIX));
    explicit_bzero(raw, sizeof raw);
    *ret_hash = mu_sha256_hex(mu_str(dst));
}

int mu_identity_run_token_add(struct mu_identity *id, const char *hash, const struct mu_id *session,
                              const char *org_id, int64_t epoch)
{
    struct run_token *t = mu_calloc(1, sizeof *t);
    if (!t) {
        return -ENOMEM;
    }
    snprintf(t->hash, sizeof t->hash, "%s", hash);
    snprintf(t->org_id, sizeof t->org_id, "%s", org_id);
    t->session = *session;
    t->epoch = epoch;
    pthread_rwlock_wrlock(&id->runs_lock);
    struct run_token *old = mu_map_get(&id->runs, mu_str(t->hash));
    int r = mu_map_put(&id->runs, mu_str(t->hash), t);
    pthread_rwlock_unlock(&id->runs_lock);
    mu_free(r < 0 ? t : old);
    return r;
}

void mu_identity_run_token_remove(struct mu_identity *id, const char *hash)
{
    pthread_rwlock_wrlock(&id->runs_lock);
    struct run_token *t = mu_map_remove(&id->runs, mu_str(hash));
    pthread_rwlock_unlock(&id->runs_lock);
    mu_free(t);
}

int mu_grant_run(struct mu_identity *id, struct mu_principal *p)
{
    char org[MU_ORG_LEN + 1] = "";
    pthread_rwlock_rdlock(&id->runs_lock);
    const struct run_token *t = mu_map_get(&id->runs, mu_str(p->token_hash));
    if (t) {
        p->run = t->session;
        p->run_epoch = t->epoch;
        memcpy(org, t->org_id, sizeof org);
    }
    pthread_rwlock_unlock(&id->runs_lock);
    if (!t) {
        return MU_E_UNAUTHORIZED;
    }
    p->token_hash[0] = 0;
    memcpy(p->org_id, org, sizeof p->org_id);
    snprintf(p->uid, sizeof p->uid, "%s", org);
    p->tenant = mu_identity_tenant(id, mu_str(org));
    return p->tenant ? 0 : -ENOMEM;
}
