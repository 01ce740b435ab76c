/* Ids: UUIDv7 as 36 lower-case characters (data-model.md 1.1). */
#ifndef MU_BASE_ID_H
#define MU_BASE_ID_H

#include "base/bytes.h"
#include "base/env.h"

enum { MU_ID_LEN = 36 };

/* A bare id with its NUL. */
struct mu_id {
    char text[MU_ID_LEN + 1];
};

/* The next id: greater than every one this process made before, its first 48 bits the wall clock in
 * milliseconds (or a little ahead of it when many were made in one millisecond). *ret_ms, if given,
 * gets that time. Any thread. */
struct mu_id mu_id_new(const struct mu_env *env, int64_t *ret_ms);
/* The smallest id of that millisecond: a bound for ranges. */
struct mu_id mu_id_floor(int64_t ms);
/* A random (version 4) UUID: request ids and whatever must not tell its time. */
struct mu_id mu_id_random(const struct mu_env *env);
/* Accepts "<prefix><uuid>" and "<uuid>" of any version in either case; writes it in lower case.
 * MU_E_INVALID. */
MU_MUST_USE int mu_id_parse(mu_bytes text, const char *prefix, struct mu_id *ret);
/* Its time; 0 for an id of another version. */
int64_t mu_id_ms(const struct mu_id *id);
static inline mu_bytes mu_id_bytes(const struct mu_id *id)
{
    return mu_bytes_of(id->text, id->text[0] ? MU_ID_LEN : 0);
}

#endif
