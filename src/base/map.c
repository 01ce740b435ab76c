#include "base/map.h"

#include <errno.h>
#include <pthread.h>
#include <sys/random.h>

/* The key of the hash is drawn once per process: it is no state, so it needs no seam (iteration
 * order is never relied on). */
static uint64_t key0, key1;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void draw_key(void)
{
    uint64_t k[2] = {0x736f6d6570736575, 0x646f72616e646f6d};
    ssize_t n MU_UNUSED = getrandom(k, sizeof k, GRND_NONBLOCK);
    key0 = k[0];
    key1 = k[1];
}

static uint64_t rotl(uint64_t v, int n)
{
    return v << n | v >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

uint64_t mu_hash(mu_bytes b)
{
    pthread_once(&key_once, draw_key);
    uint64_t v[4] = {key0 ^ 0x736f6d6570736575, key1 ^ 0x646f72616e646f6d,
                     key0 ^ 0x6c7967656e657261, key1 ^ 0x7465646279746573};
    size_t i = 0;
    for (; i + 8 <= b.len; i += 8) {
        uint64_t m;
        memcpy(&m, b.ptr + i, 8);
        v[3] ^= m;
        sip_round(v);
        v[0] ^= m;
    }
    uint64_t last = (uint64_t)b.len << 56;
    for (size_t k = 0; i + k < b.len; k++) {
        last |= (uint64_t)(unsigned char)b.ptr[i + k] << (8 * k);
    }
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void mu_map_init(struct mu_map *m)
{
    *m = (struct mu_map){0};
}

void mu_map_fini(struct mu_map *m)
{
    mu_free(m->slots);
    *m = (struct mu_map){0};
}

static uint64_t hash_of(mu_bytes key)
{
    uint64_t h = mu_hash(key);
    return h < 2 ? h + 2 : h;
}

static struct mu_map_slot *find(const struct mu_map *m, mu_bytes key, uint64_t h)
{
    if (!m->cap) {
        return NULL;
    }
    for (size_t i = h & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct mu_map_slot *s = &m->slots[i];
        if (s->hash == 0) {
            return NULL;
        }
        if (s->hash == h && mu_bytes_eq(s->key, key)) {
            return s;
        }
    }
}

void *mu_map_get(const struct mu_map *m, mu_bytes key)
{
    struct mu_map_slot *s = find(m, key, hash_of(key));
    return s ? s->value : NULL;
}

static int rehash(struct mu_map *m)
{
    size_t cap = 16;
    while (cap < m->count * 4) {
        cap *= 2;
    }
    struct mu_map_slot *slots = mu_calloc(cap, sizeof *slots);
    if (!slots) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < m->cap; i++) {
        struct mu_map_slot *s = &m->slots[i];
        if (s->hash > 1) {
            size_t k = s->hash & (cap - 1);
            while (slots[k].hash) {
                k = (k + 1) & (cap - 1);
            }
            slots[k] = *s;
        }
    }
    mu_free(m->slots);
    m->slots = slots;
    m->cap = cap;
    m->used = m->count;
    return 0;
}

int mu_map_put(struct mu_map *m, mu_bytes key, void *value)
{
    uint64_t h = hash_of(key);
    struct mu_map_slot *s = find(m, key, h);
    if (s) {
        s->key = key;
        s->value = value;
        return 0;
    }
    if ((m->used + 1) * 4 > m->cap * 3) {
        int r = rehash(m);
        if (r < 0) {
            return r;
        }
    }
    size_t i = h & (m->cap - 1);
    while (m->slots[i].hash > 1) {
        i = (i + 1) & (m->cap - 1);
    }
    m->used += m->slots[i].hash == 0;
    m->slots[i] = (struct mu_map_slot){.hash = h, .key = key, .value = value};
    m->count++;
    return 0;
}

void *mu_map_remove(struct mu_map *m, mu_bytes key)
{
    struct mu_map_slot *s = find(m, key, hash_of(key));
    if (!s) {
        return NULL;
    }
    void *value = s->value;
    *s = (struct mu_map_slot){.hash = 1};
    m->count--;
    return value;
}

void *mu_map_next(const struct mu_map *m, size_t *at)
{
    while (*at < m->cap) {
        struct mu_map_slot *s = &m->slots[(*at)++];
        if (s->hash > 1) {
            return s->value;
        }
    }
    return NULL;
}
