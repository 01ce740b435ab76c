/* How often an address may try to sign in. A table of a fixed size: addresses that share a place in
 * it share its budget, and the place is chosen by a keyed hash. */
#include <arpa/inet.h>
#include <errno.h>

#include "base/map.h"
#include "face/web/web.h"

enum { PLACES = 8192 };

/* So many since then. */
struct window {
    int64_t since_ms, n;
};

struct place {
    struct window tries, failures;
};

struct mu_login_rates {
    pthread_mutex_t lock;
    int64_t tries, failures; /* 0 = no limit */
    struct place places[PLACES];
};

int mu_login_rates_new(int64_t tries, int64_t failures, struct mu_login_rates **ret)
{
    struct mu_login_rates *r = mu_calloc(1, sizeof *r);
    if (!r) {
        return -ENOMEM;
    }
    r->tries = tries;
    r->failures = failures;
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

static void roll(struct window *w, int64_t now_ms, int64_t span_ms)
{
    if (w->n && (now_ms < w->since_ms || now_ms - w->since_ms >= span_ms)) {
        *w = (struct window){0};
    }
}

/* How long until it is over, if it is full; else 0. */
static int64_t wait_of(struct window *w, int64_t now_ms, int64_t span_ms, int64_t max)
{
    roll(w, now_ms, span_ms);
    return max > 0 && w->n >= max ? w->since_ms + span_ms - now_ms : 0;
}

static void count(struct window *w, int64_t now_ms)
{
    w->since_ms = w->n ? w->since_ms : now_ms;
    w->n++;
}

int mu_login_try(struct mu_login_rates *r, mu_bytes peer, int64_t now_ms, int64_t *ret_wait_ms)
{
    pthread_mutex_lock(&r->lock);
    struct place *p = place_of(r, peer);
    int64_t a = wait_of(&p->tries, now_ms, MU_LOGIN_TRIES_MS, r->tries);
    int64_t b = wait_of(&p->failures, now_ms, MU_LOGIN_FAILURES_MS, r->failures);
    int64_t wait = MU_MAX(a, b);
    if (wait == 0) {
        count(&p->tries, now_ms);
    }
    pthread_mutex_unlock(&r->lock);
    *ret_wait_ms = wait;
    return wait ? MU_E_LIMIT : 0;
}

void mu_login_failed(struct mu_login_rates *r, mu_bytes peer, int64_t now_ms)
{
    pthread_mutex_lock(&r->lock);
    struct place *p = place_of(r, peer);
    roll(&p->failures, now_ms, MU_LOGIN_FAILURES_MS);
    count(&p->failures, now_ms);
    pthread_mutex_unlock(&r->lock);
}
