/* How often an address may try to sign in. A table of a fixed size: addresses that share a place in
 * it share its budget, and the place is chosen by a keyed hash. */
#include <arpa/inet.h>
#include <errno.h>

#include "base/map.h"
#include "face/web/web.h"

enum { PLACES = 8192 };

struct place {
    int64_t tries[MU_LOGIN_TRIES], failures[MU_LOGIN_FAILURES]; /* rings of times; 0 = none */
    unsigned next_try, next_failure;
};

struct mu_login_rates {
    pthread_mutex_t lock;
    struct place places[PLACES];
};

int mu_login_rates_new(struct mu_login_rates **ret)
{
    struct mu_login_rates *r = mu_calloc(1, sizeof *r);
    if (!r) {
        return -ENOMEM;
    }
    pthread_mutex_init(&r->lock, NULL);
    *ret = r;
    return 0;
}

struct mu_login_rates *mu_login_rates_free(struct mu_login_rates *r)
{
    if (r) {
        pthread_mutex_destroy(&r->lock);
        mu_free(r);
    }
    return NULL;
}

/* Of IPv6 the network: one customer has all addresses of it. */
static struct place *place_of(struct mu_login_rates *r, mu_bytes peer)
{
    char text[INET6_ADDRSTRLEN + 1];
    struct in6_addr v6;
    if (peer.len && peer.len < sizeof text) {
        memcpy(text, peer.ptr, peer.len);
        text[peer.len] = 0;
        if (inet_pton(AF_INET6, text, &v6) == 1 && !IN6_IS_ADDR_V4MAPPED(&v6)) {
            return &r->places[mu_hash(mu_bytes_of((const char *)v6.s6_addr, 8)) % PLACES];
        }
    }
    return &r->places[mu_hash(peer) % PLACES];
}

/* How long until the oldest of a full ring is `span` old; 0: there is room. */
static int64_t wait_of(const int64_t *ring, unsigned next, int64_t now_ms, int64_t span)
{
    int64_t oldest = ring[next];
    return oldest && oldest <= now_ms && now_ms - oldest < span ? oldest + span - now_ms : 0;
}

int mu_login_try(struct mu_login_rates *r, mu_bytes peer, int64_t now_ms, int64_t *ret_wait_ms)
{
    pthread_mutex_lock(&r->lock);
    struct place *p = place_of(r, peer);
    int64_t a = wait_of(p->tries, p->next_try, now_ms, MU_LOGIN_TRIES_MS);
    int64_t b = wait_of(p->failures, p->next_failure, now_ms, MU_LOGIN_FAILURES_MS);
    int64_t wait = MU_MAX(a, b);
    if (wait == 0) {
        p->tries[p->next_try] = MU_MAX(now_ms, INT64_C(1));
        p->next_try = (p->next_try + 1) % MU_LOGIN_TRIES;
    }
    pthread_mutex_unlock(&r->lock);
    *ret_wait_ms = wait;
    return wait ? MU_E_LIMIT : 0;
}

void mu_login_failed(struct mu_login_rates *r, mu_bytes peer, int64_t now_ms)
{
    pthread_mutex_lock(&r->lock);
    struct place *p = place_of(r, peer);
    p->failures[p->next_failure] = MU_MAX(now_ms, INT64_C(1));
    p->next_failure = (p->next_failure + 1) % MU_LOGIN_FAILURES;
    pthread_mutex_unlock(&r->lock);
}
