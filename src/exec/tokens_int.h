/* Counts of tokens in what services and agents say. */
#ifndef MU_EXEC_TOKENS_INT_H
#define MU_EXEC_TOKENS_INT_H

#include "proto/json.h"

/* Cut to what may be true: whoever sends the text chooses the number, and sums must not overflow.
 */
static inline int64_t mu_token_count(yyjson_val *usage, const char *key)
{
    return MU_MIN(MU_MAX(mu_json_get_i64(usage, key, 0), 0), INT64_C(1000000000));
}

#endif
