/* One-time codes for the first look at the web app. In memory only, as digests: a restart voids
 * them, and `muster login-link` makes another. */
#include <errno.h>

#include "app/identity/identity_int.h"
#include "base/encode.h"

struct code {
    struct mu_list link;
    struct mu_digest digest;
    struct mu_credential of;
    int64_t until_ms;
};

void mu_codes_init(struct mu_identity *id)
{
    pthread_mutex_init(&id->codes_lock, NULL);
    mu_list_init(&id->codes);
}

static void forget(struct mu_identity *id, struct code *c)
{
    mu_list_remove(&c->link);
    id->n_codes--;
    explicit_bzero(c, sizeof *c);
    mu_free(c);
}

void mu_codes_fini(struct mu_identity *id)
{
    MU_LIST_EACH(it, tmp, &id->codes)
    {
        forget(id, MU_CONTAINER(it, struct code, link));
    }
    pthread_mutex_destroy(&id->codes_lock);
}

/* All live equally long, so the oldest ends first. */
static void drop_old(struct mu_identity *id, int64_t now_ms)
{
    MU_LIST_EACH(it, tmp, &id->codes)
    {
        struct code *c = MU_CONTAINER(it, struct code, link);
        if (c->until_ms > now_ms) {
            return;
        }
        forget(id, c);
    }
}

/* Good while it is the admin key's. */
static int admin_credential(struct mu_identity *id, struct mu_credential *ret)
{
    pthread_rwlock_rdlock(&id->lock);
    bool has = id->has_admin;
    *ret = (struct mu_credential){.digest = id->admin, .kind = MU_KIND_ADMIN};
    pthread_rwlock_unlock(&id->lock);
    return has ? 0 : MU_E_FORBIDDEN;
}

int mu_login_code_make(struct mu_identity *id, char dst[MU_LOGIN_CODE_LEN + 1])
{
    unsigned char raw[16];
    int64_t now_ms = mu_env_mono_ms(id->env);
    struct code *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    int r = admin_credential(id, &c->of);
    id->env->random(id->env, raw, sizeof raw);
    memcpy(dst, MU_LOGIN_CODE_PREFIX, sizeof MU_LOGIN_CODE_PREFIX);
    mu_hex(raw, sizeof raw, dst + strlen(MU_LOGIN_CODE_PREFIX));
    explicit_bzero(raw, sizeof raw);
    c->digest = mu_sha256(mu_bytes_of(dst, MU_LOGIN_CODE_LEN));
    c->until_ms = now_ms + MU_LOGIN_CODE_MS;
    pthread_mutex_lock(&id->codes_lock);
    drop_old(id, now_ms);
    r = r < 0 ? r : id->n_codes >= MU_LOGIN_CODES_MAX ? MU_E_LIMIT : 0;
    if (r == 0) {
        mu_list_push(&id->codes, &c->link);
        id->n_codes++;
    }
    pthread_mutex_unlock(&id->codes_lock);
    if (r < 0) {
        mu_free(c);
        explicit_bzero(dst, MU_LOGIN_CODE_LEN + 1);
    }
    return r;
}

int mu_login_code_take(struct mu_identity *id, mu_bytes code, struct mu_credential *ret)
{
    struct mu_digest digest = mu_sha256(code);
    int64_t now_ms = mu_env_mono_ms(id->env);
    struct code *found = NULL;
    pthread_mutex_lock(&id->codes_lock);
    drop_old(id, now_ms);
    MU_LIST_EACH(it, tmp, &id->codes) /* all of them, whichever it is */
    {
        struct code *c = MU_CONTAINER(it, struct code, link);
        if (mu_bytes_eq_secret(mu_bytes_of((const char *)c->digest.bytes, MU_SHA256_LEN),
                               mu_bytes_of((const char *)digest.bytes, MU_SHA256_LEN))) {
            found = c;
        }
    }
    if (found) {
        *ret = found->of;
        forget(id, found);
    }
    pthread_mutex_unlock(&id->codes_lock);
    return found ? 0 : MU_E_UNAUTHORIZED;
}
