/* Tickets: what a browser puts into a URL instead of its token. In memory only: a restart voids
 * them, and their owners ask for new ones. */
#include <errno.h>

#include "app/identity/identity_int.h"
#include "base/encode.h"

struct ticket {
    struct mu_list link;
    struct mu_digest_hex hash; /* the map's key: the ticket itself is kept nowhere */
    struct mu_credential of;
    int64_t until_ms;
};

void mu_tickets_init(struct mu_identity *id)
{
    pthread_mutex_init(&id->tickets_lock, NULL);
    mu_map_init(&id->tickets);
    mu_list_init(&id->tickets_by_age);
}

static void forget(struct mu_identity *id, struct ticket *t)
{
    (void)mu_map_remove(&id->tickets, mu_str(t->hash.text));
    mu_list_remove(&t->link);
    explicit_bzero(t, sizeof *t);
    mu_free(t);
}

void mu_tickets_fini(struct mu_identity *id)
{
    MU_LIST_EACH(it, tmp, &id->tickets_by_age)
    {
        forget(id, MU_CONTAINER(it, struct ticket, link));
    }
    mu_map_fini(&id->tickets);
    pthread_mutex_destroy(&id->tickets_lock);
}

/* All live equally long, so the oldest ends first. */
static void drop_old(struct mu_identity *id, int64_t now_ms)
{
    MU_LIST_EACH(it, tmp, &id->tickets_by_age)
    {
        struct ticket *t = MU_CONTAINER(it, struct ticket, link);
        if (t->until_ms > now_ms) {
            return;
        }
        forget(id, t);
    }
}

static size_t count_of(const struct mu_identity *id, const struct mu_credential *of)
{
    size_t n = 0;
    MU_LIST_EACH(it, tmp, &id->tickets_by_age)
    {
        const struct ticket *t = MU_CONTAINER(it, struct ticket, link);
        n += memcmp(&t->of.digest, &of->digest, sizeof of->digest) == 0;
    }
    return n;
}

static int keep(struct mu_identity *id, struct ticket *t)
{
    if (id->tickets.count >= MU_TICKETS_MAX || count_of(id, &t->of) >= MU_TICKETS_EACH) {
        return MU_E_LIMIT;
    }
    int r = mu_map_put(&id->tickets, mu_str(t->hash.text), t);
    if (r == 0) {
        mu_list_push(&id->tickets_by_age, &t->link);
    }
    return r;
}

int mu_ticket_make(struct mu_identity *id, const struct mu_credential *of,
                   char dst[MU_TICKET_LEN + 1])
{
    unsigned char raw[32];
    int64_t now_ms = id->env->mono_ns(id->env) / 1000000;
    struct ticket *t = mu_calloc(1, sizeof *t);
    if (!t) {
        return -ENOMEM;
    }
    id->env->random(id->env, raw, sizeof raw);
    memcpy(dst, MU_TICKET_PREFIX, sizeof MU_TICKET_PREFIX);
    mu_hex(raw, sizeof raw, dst + strlen(MU_TICKET_PREFIX));
    explicit_bzero(raw, sizeof raw);
    t->hash = mu_sha256_hex(mu_str(dst));
    t->of = *of;
    t->until_ms = now_ms + MU_TICKET_MS;
    pthread_mutex_lock(&id->tickets_lock);
    drop_old(id, now_ms);
    int r = keep(id, t);
    pthread_mutex_unlock(&id->tickets_lock);
    if (r < 0) {
        mu_free(t);
    }
    return r;
}

int mu_ticket_take(struct mu_identity *id, mu_bytes ticket, struct mu_credential *ret)
{
    struct mu_digest_hex hash = mu_sha256_hex(ticket);
    int64_t now_ms = id->env->mono_ns(id->env) / 1000000;
    int r = MU_E_UNAUTHORIZED;
    pthread_mutex_lock(&id->tickets_lock);
    drop_old(id, now_ms);
    struct ticket *t = mu_map_get(&id->tickets, mu_str(hash.text));
    if (t) {
        *ret = t->of;
        forget(id, t);
        r = 0;
    }
    pthread_mutex_unlock(&id->tickets_lock);
    return r;
}
