/* Open-addressing map from bytes to a pointer, hashed with a keyed hash so that outside data cannot
 * choose collisions. The key bytes belong to the caller and must live as long as the entry (they
 * usually lie inside the value). One thread. */
#ifndef MU_BASE_MAP_H
#define MU_BASE_MAP_H

#include "base/bytes.h"

struct mu_map_slot {
    uint64_t hash; /* 0 = never used, 1 = removed */
    mu_bytes key;
    void *value;
};

struct mu_map {
    struct mu_map_slot *slots;
    size_t count, used, cap; /* live entries, live + removed, slots (a power of two or 0) */
};

void mu_map_init(struct mu_map *m);
/* The values are the caller's to free before. */
void mu_map_fini(struct mu_map *m);
/* NULL when there is none. */
void *mu_map_get(const struct mu_map *m, mu_bytes key);
/* Adds, or replaces key and value. -ENOMEM leaves the map as it was. */
MU_MUST_USE int mu_map_put(struct mu_map *m, mu_bytes key, void *value);
/* Returns the value that was removed, or NULL. */
void *mu_map_remove(struct mu_map *m, mu_bytes key);
/* Walks all entries: start with *at = 0; NULL at the end. Removing the entry just returned is
 * allowed, adding is not. */
void *mu_map_next(const struct mu_map *m, size_t *at);

/* The keyed hash itself (SipHash-1-3 under a per-process random key). */
uint64_t mu_hash(mu_bytes b);

#endif
